/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Something else than a back-end listens at a control socket: each lie is one clear line and exit status 5, in bounded time.
 * Most of that time is waiting, so all cases run at the same time, from when the first one is looked at.
 */
#include "ctl-scene.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define GREETING "{\"domybs\":{\"program\":\"domybs-backend\",\"version\":\"0.1.0\",\"protocol\":1}}\n"
#define STATUS                                                                                                                 \
  "\"block-bytes\":2097152,\"window-blocks\":2048,\"max-blocks\":1024,\"granted-blocks\":0,\"target-blocks\":32,"              \
  "\"connected\":true,\"window-mapped\":true,\"session\":true,\"memfd-bytes\":0,\"requests\":7"

typedef struct {
  const char *greeting; /* NULL: none */
  const char *answer;   /* to each line; "%ID%" stands for the id that came; NULL: none */
  size_t flood;         /* so many bytes of `answer` instead of an answer, without an end */
  gboolean hangs_up;    /* after the greeting */
} Lies;

typedef struct {
  const Lies *lies;
  int fd, stop[2];
  GThread *thread;
} Server;

static gboolean
send_all (int fd, const char *text, size_t n) {
  while (n) {
    const ssize_t sent = send (fd, text, n, MSG_NOSIGNAL);

    if (sent <= 0)
      return FALSE;
    text += sent;
    n -= (size_t)sent;
  }
  return TRUE;
}

static gboolean
answer (const Lies *lies, int fd, const char *line) {
  const char *id = strstr (line, "\"id\":");
  g_autofree char *number = g_strdup_printf ("%d", id ? atoi (id + 5) : 0);
  g_autoptr (GString) text = g_string_new (lies->answer ? lies->answer : "");

  g_string_replace (text, "%ID%", number, 0);
  for (size_t sent = 0; sent < lies->flood; sent += text->len)
    if (!send_all (fd, text->str, text->len))
      return FALSE;
  return lies->flood || send_all (fd, text->str, text->len);
}

static void
serve (Server *server, int fd) {
  const Lies *lies = server->lies;
  char line[4096];

  if (lies->greeting && !send_all (fd, lies->greeting, strlen (lies->greeting)))
    return;
  while (!lies->hangs_up) {
    struct pollfd polls[] = { { fd, POLLIN, 0 }, { server->stop[0], POLLIN, 0 } };
    ssize_t n;

    poll (polls, 2, -1);
    if (polls[1].revents)
      return;
    n = recv (fd, line, sizeof line - 1, 0);
    if (n <= 0)
      return;
    line[n] = 0;
    if (!answer (lies, fd, line))
      return;
  }
}

static gpointer
run (gpointer data) {
  Server *server = data;

  for (;;) {
    struct pollfd polls[] = { { server->fd, POLLIN, 0 }, { server->stop[0], POLLIN, 0 } };
    int fd;

    poll (polls, 2, -1);
    if (polls[1].revents)
      return NULL;
    fd = accept (server->fd, NULL, NULL);
    if (fd >= 0) {
      serve (server, fd);
      close (fd);
    }
  }
}

static Server *
server_new (Scene *scene, const char *uuid, const Lies *lies) {
  Server *server = g_new0 (Server, 1);
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  g_autofree char *path = scene_control_path (scene, uuid);

  server->lies = lies;
  server->fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  strcpy (address.sun_path, path);
  g_assert_cmpint (bind (server->fd, (const struct sockaddr *)&address, sizeof address), ==, 0);
  g_assert_cmpint (listen (server->fd, 8), ==, 0);
  g_assert_cmpint (pipe (server->stop), ==, 0);
  server->thread = g_thread_new ("liar", run, server);
  return server;
}

static void
server_free (Server *server) {
  close (server->stop[1]);
  g_thread_join (server->thread);
  close (server->stop[0]);
  close (server->fd);
  g_free (server);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC (Server, server_free)

static const struct {
  const char *name;
  Lies lies;
  const char *words;
  int status;            /* 0: 5 */
  gboolean grows, draws; /* in the place of setting a target */
} cases[] = {
  { "says-nothing", { NULL }, "does not answer in time" },
  { "hangs-up", { GREETING, .hangs_up = TRUE }, "hung up" },
  { "hangs-up-at-once", { NULL, .hangs_up = TRUE }, "hung up" },
  { "does-not-answer", { GREETING }, "does not answer in time" },
  { "greets-with-garbage", { "\001\002\003\n" }, "no JSON" },
  { "greets-with-a-number", { "7\n" }, "no JSON object" },
  { "greets-with-a-nul", { "{}\\u0000\n" }, "no JSON" },
  { "is-somebody-else", { "{\"QMP\":{\"version\":{}}}\n" }, "no domybs-backend" },
  { "is-another-program", { "{\"domybs\":{\"program\":\"domybs-far\",\"protocol\":1}}\n" }, "no domybs-backend" },
  { "is-of-the-future",
    { "{\"domybs\":{\"program\":\"domybs-backend\",\"version\":\"9\",\"protocol\":2}}\n" },
    "another protocol" },
  { "has-no-room", { "{\"error\":{\"class\":\"in-use\",\"desc\":\"16 clients are connected already\"}}\n" }, "16 clients" },
  { "answers-garbage", { GREETING, "\377\376\n" }, "no JSON" },
  { "answers-an-array", { GREETING, "[]\n" }, "no JSON object" },
  { "answers-something-else", { GREETING, "{\"return\":{" STATUS "},\"id\":4711}\n" }, "not asked" },
  { "answers-without-id", { GREETING, "{\"return\":{" STATUS "}}\n" }, "not asked" },
  { "answers-nothing", { GREETING, "{\"return\":{},\"id\":%ID%}\n" }, "makes no sense" },
  { "answers-nonsense", { GREETING, "{\"return\":{" STATUS ",\"granted-blocks\":-1},\"id\":%ID%}\n" }, "makes no sense" },
  { "answers-half", { GREETING, "{\"return\":{" }, "does not answer in time" },
  { "answers-twice",
    { GREETING, "{\"return\":{" STATUS "},\"id\":%ID%}\n{\"return\":{" STATUS "},\"id\":%ID%}\n" },
    "not asked" },
  { "answers-with-a-very-long-line", { GREETING, "xxxxxxxxxxxxxxxx", 1 << 20 }, "a line without an end" },
  { "answers-with-a-very-deep-line",
    { GREETING, "{\"return\":{" STATUS ",\"deep\":[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]},\"id\":%ID%}\n" },
    "no JSON" },
  { "moves-the-cursor",
    { GREETING, "{\"error\":{\"class\":\"failed\",\"desc\":\"\\u001b[2J\\nall is well\"},\"id\":%ID%}\n" },
    "\\x1b[2J\\nall is well",
    .status = 1 },
  /* Events without end are no answer. */
  { "floods-events", { GREETING, "{\"event\":\"granted\",\"data\":{}}\n", 1 << 30 }, "does not answer in time", .grows = TRUE },
  /* Answers well but never comes further: it ends with what the server says. */
  { "never-moves",
    { GREETING, "{\"return\":{" STATUS "},\"id\":%ID%}\n" },
    "has 0, not 64M: the guest does not respond",
    6,
    .grows = TRUE },
  { "draws-no-window",
    { GREETING, "{\"return\":{" STATUS ",\"cell-blocks\":1,\"granted\":[1,\"2\",null]},\"id\":%ID%}\n" },
    "does not cover the window",
    .draws = TRUE },
};

static Scene *all;
static Server *servers[G_N_ELEMENTS (cases)];
static Running *runs[G_N_ELEMENTS (cases)];

static void
start_all (void) {
  const char *uuids[G_N_ELEMENTS (cases)];

  if (all)
    return;
  all = scene_new ();
  for (unsigned i = 0; i < G_N_ELEMENTS (cases); i++)
    uuids[i] = scene_add (all, cases[i].name, TRUE, SCENE_MEMORY (SCENE_GIB));
  for (unsigned i = 0; i < G_N_ELEMENTS (cases); i++) {
    servers[i] = server_new (all, uuids[i], &cases[i].lies);
    runs[i] = scene_start (all, cases[i].draws ? ARGS ("blocks", cases[i].name)
                                               : ARGS (cases[i].grows ? "grow" : "target", cases[i].name, "64M"));
  }
}

static void
end_all (void) {
  for (unsigned i = 0; all && i < G_N_ELEMENTS (cases); i++)
    server_free (servers[i]);
  g_clear_pointer (&all, scene_free);
}

static void
is_refused (gconstpointer data) {
  const unsigned which = GPOINTER_TO_UINT (data);
  g_autofree char *object = g_strdup_printf ("domain '%s': ", cases[which].name);
  g_auto (Run) run = { 0 };

  start_all ();
  scene_finish (runs[which], 0, &run);
  run_must_fail (&run, cases[which].status ? cases[which].status : 5, ARGS (object, cases[which].words));
}

/* Many of them cost a list one time limit, not one each, and spoil nobody else's line. */
static void
does_not_spoil_a_list (void) {
  g_autoptr (Scene) scene = scene_new ();
  g_autoptr (GPtrArray) liars = g_ptr_array_new_with_free_func ((GDestroyNotify)server_free);
  g_autoptr (JsonObject) object = NULL;
  g_auto (Run) run = { 0 };
  const char *good;
  JsonArray *domains;
  unsigned n_problems = 0;

  for (unsigned i = 0; i < G_N_ELEMENTS (cases); i++)
    g_ptr_array_add (liars,
                     server_new (scene, scene_add (scene, cases[i].name, TRUE, SCENE_MEMORY (SCENE_GIB)), &cases[i].lies));
  good = scene_add (scene, "good", TRUE, SCENE_MEMORY (SCENE_GIB));
  scene_backend (scene, good, NULL);
  scene_run (scene, &run, ARGS ("list", "--json"));
  g_assert_cmpint (run.status, ==, 0);
  object = run_json (&run);
  domains = json_object_get_array_member (object, "domains");
  g_assert_cmpuint (json_array_get_length (domains), ==, G_N_ELEMENTS (cases) + 1);
  for (unsigned i = 0; i < json_array_get_length (domains); i++) {
    JsonObject *domain = json_array_get_object_element (domains, i);
    const gboolean problem = !JSON_NODE_HOLDS_NULL (json_object_get_member (domain, "problem"));

    n_problems += problem;
    g_assert_cmpint (JSON_NODE_HOLDS_NULL (json_object_get_member (domain, "backend")), ==, problem);
    if (strcmp (json_object_get_string_member (domain, "name"), "good") == 0)
      g_assert_false (problem);
  }
  /* who answers twice has answered, and so has who does not lie about its status */
  g_assert_cmpuint (n_problems, ==, G_N_ELEMENTS (cases) - 3);
}

int
main (int argc, char **argv) {
  int status;

  g_test_init (&argc, &argv, NULL);
  for (unsigned i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autofree char *path = g_strdup_printf ("/hostile-server/%s", cases[i].name);

    g_test_add_data_func (path, GUINT_TO_POINTER (i), is_refused);
  }
  g_test_add_func ("/hostile-server/does-not-spoil-a-list", does_not_spoil_a_list);
  status = g_test_run ();
  end_all ();
  return status;
}
