/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fake-control.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define OLD_VERSION "0.1.0"
#define LAST_DEATH_AGE_MS 300500
#define LINE_BYTES_MAX 4096

struct FakeControl {
  FakeHabits habits;
  GThread *thread;
  int fd, stop[2];
  int starts, orders; /* atomic */
  /* the thread's */
  const char *version;
  unsigned deaths;
  gboolean rolled_back;
  unsigned away;
  char *target; /* JSON */
};

static gboolean
say (int fd, const char *text) {
  for (size_t left = strlen (text); left;) {
    const ssize_t n = send (fd, text, left, MSG_NOSIGNAL);

    if (n <= 0)
      return FALSE;
    text += n;
    left -= (size_t)n;
  }
  return TRUE;
}

static char *
worker_text (FakeControl *control) {
  const FakeHabits *habits = &control->habits;
  const int starts = g_atomic_int_get (&control->starts);
  const char *death = habits->last_death ? habits->last_death : "signal 9 (Killed)";
  g_autofree char *last
      = control->deaths ? g_strdup_printf ("\"%s\",\"last-death-age-ms\":%d", death, LAST_DEATH_AGE_MS) : g_strdup ("null");

  return g_strdup_printf (",\"worker\":{\"pid\":%d,\"keeper-pid\":99,\"version\":\"%s\",\"state-version\":2,\"mode\":\"%s\","
                          "\"starts\":%d,\"deaths\":%u,\"strikes\":%u,\"last-death\":%s,\"age-ms\":61000,"
                          "\"keeper-age-ms\":7200000,\"rolled-back\":%s}",
                          100 + starts, control->version, habits->busy ? "busy" : "normal", starts, control->deaths,
                          habits->strikes, last, control->rolled_back ? "true" : "false");
}

/* Whoever has a target has as much at once. */
static char *
status_text (FakeControl *control) {
  const gboolean have_target = strcmp (control->target, "null") != 0;
  g_autofree char *worker = control->habits.too_old ? g_strdup ("") : worker_text (control);

  return g_strdup_printf ("\"pid\":99,\"block-bytes\":2097152,\"window-blocks\":2048,\"max-blocks\":1024,\"granted-blocks\":%s,"
                          "\"target-blocks\":%s,\"connected\":true,\"window-mapped\":true,\"session\":true,\"memfd-bytes\":0,"
                          "\"requests\":7,\"guest\":{\"driver\":\"fake 1\"}%s",
                          have_target ? control->target : "0", control->target, worker);
}

static char *
far_status_text (FakeControl *control) {
  g_autofree char *worker = control->habits.too_old ? g_strdup ("") : worker_text (control);
  const gboolean connected = !control->away;

  control->away -= !connected;
  return g_strdup_printf ("\"pid\":99,\"disks\":[{\"tier\":\"shared\",\"connected\":%s,\"size-bytes\":1073741824,"
                          "\"blocks-in-use\":%u}],\"objects\":[{\"name\":\"model\",\"connected\":%s}]%s",
                          connected ? "true" : "false", control->habits.blocks, connected ? "true" : "false", worker);
}

static void
next_worker (FakeControl *control, gboolean died) {
  g_atomic_int_inc (&control->starts);
  control->deaths += died;
  control->away = control->habits.away;
}

/* FALSE: the worker ends now. */
static gboolean
take_order (FakeControl *control, int fd, const char *verb, int id) {
  const FakeHabits *habits = &control->habits;
  g_autofree char *answer = NULL;

  g_atomic_int_inc (&control->orders);
  if (habits->silent)
    return TRUE;
  if (habits->too_old || habits->refusal) {
    answer
        = g_strdup_printf ("{\"error\":{\"class\":\"%s\",\"desc\":\"%s\"},\"id\":%d}\n", habits->too_old ? "usage" : "failed",
                           habits->too_old ? "unknown command 'restart'; there are: status, blocks" : habits->refusal, id);
    return say (fd, answer);
  }
  if (!habits->same)
    next_worker (control, habits->short_lived);
  if (strcmp (verb, "upgrade") == 0 && habits->short_lived)
    control->rolled_back = TRUE;
  else if (strcmp (verb, "upgrade") == 0 && habits->installed)
    control->version = habits->installed;
  return FALSE;
}

static gboolean
take_line (FakeControl *control, int fd, const char *line) {
  const char *id_text = strstr (line, "\"id\":"), *blocks = strstr (line, "\"blocks\":");
  const int id = id_text ? atoi (id_text + strlen ("\"id\":")) : 0;
  g_autofree char *status = NULL, *answer = NULL;

  if (strstr (line, "\"restart\""))
    return take_order (control, fd, "restart", id);
  if (strstr (line, "\"upgrade\""))
    return take_order (control, fd, "upgrade", id);
  if (control->habits.hang_ups) {
    control->habits.hang_ups--;
    next_worker (control, TRUE);
    return FALSE;
  }
  if (strstr (line, "\"set-target\"") && blocks) {
    blocks += strlen ("\"blocks\":");
    g_free (control->target);
    control->target = g_strndup (blocks, strcspn (blocks, "}"));
  }
  status = control->habits.status ? g_strdup (control->habits.status)
           : control->habits.far  ? far_status_text (control)
                                  : status_text (control);
  answer = g_strdup_printf ("{\"return\":{%s},\"id\":%d}\n", status, id);
  return say (fd, answer);
}

/* One client, until it or the worker goes, or all ends. */
static void
serve (FakeControl *control, int fd) {
  g_autofree char *greeting
      = g_strdup_printf ("{\"domybs\":{\"program\":\"%s\",\"version\":\"%s\",\"protocol\":1}}\n",
                         control->habits.status || control->habits.far ? "domybs-far" : "domybs-backend", control->version);
  char line[LINE_BYTES_MAX];

  if (!say (fd, greeting))
    return;
  for (;;) {
    struct pollfd polls[] = { { fd, POLLIN, 0 }, { control->stop[0], POLLIN, 0 } };
    ssize_t n;

    poll (polls, 2, -1);
    if (polls[1].revents)
      return;
    n = recv (fd, line, sizeof line - 1, 0); /* domybsctl sends a line at a time, and waits for its answer */
    if (n <= 0)
      return;
    line[n] = 0;
    if (!take_line (control, fd, line))
      return;
  }
}

static gpointer
run (gpointer data) {
  FakeControl *control = data;

  for (;;) {
    struct pollfd polls[] = { { control->fd, POLLIN, 0 }, { control->stop[0], POLLIN, 0 } };
    int fd;

    poll (polls, 2, -1);
    if (polls[1].revents)
      return NULL;
    fd = accept (control->fd, NULL, NULL);
    if (fd >= 0) {
      serve (control, fd);
      close (fd);
    }
  }
}

FakeControl *
fake_control_start (const char *path, const FakeHabits *habits) {
  FakeControl *control = g_new0 (FakeControl, 1);
  struct sockaddr_un address = { .sun_family = AF_UNIX };

  control->habits = *habits;
  control->version = OLD_VERSION;
  control->deaths = habits->deaths;
  control->starts = 1 + (int)habits->deaths;
  control->target = g_strdup ("null");
  control->fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  g_assert_cmpuint (strlen (path), <, sizeof address.sun_path);
  strcpy (address.sun_path, path);
  g_assert_cmpint (bind (control->fd, (const struct sockaddr *)&address, sizeof address), ==, 0);
  g_assert_cmpint (listen (control->fd, 8), ==, 0);
  g_assert_cmpint (pipe (control->stop), ==, 0);
  control->thread = g_thread_new ("fake-control", run, control);
  return control;
}

void
fake_control_stop (FakeControl *control) {
  close (control->stop[1]);
  g_thread_join (control->thread);
  close (control->stop[0]);
  close (control->fd);
  g_free (control->target);
  g_free (control);
}

unsigned
fake_control_starts (FakeControl *control) {
  return (unsigned)g_atomic_int_get (&control->starts);
}

unsigned
fake_control_orders (FakeControl *control) {
  return (unsigned)g_atomic_int_get (&control->orders);
}
