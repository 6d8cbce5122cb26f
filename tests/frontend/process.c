/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "process.h"
#include "frontend.h"
#include "testing.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <glib/gstdio.h>

char *
backend_program (void) {
  const char *given = g_getenv ("DOMYBS_BACKEND");
  char self[4096];
  ssize_t n;

  if (given)
    return g_strdup (given);
  n = readlink ("/proc/self/exe", self, sizeof self - 1);
  g_assert_cmpint (n, >, 0);
  self[n] = 0;
  g_autofree char *directory = g_path_get_dirname (self);
  return g_build_filename (directory, "..", "..", "backend", "domybs-backend", NULL);
}

static void
child (const char *const *argv, const char *log_path, int the_fd, const char *crash_file) {
  const int log = open (log_path, O_WRONLY | O_CREAT | O_APPEND, 0600);
  const int null = open ("/dev/null", O_RDWR);

  prctl (PR_SET_PDEATHSIG, SIGKILL);
  dup2 (null, 0);
  dup2 (log, 1);
  dup2 (log, 2);
  if (the_fd >= 0)
    dup2 (the_fd, BACKEND_CHILD_FD);
  /* What the test program holds is not the back-end's: its descriptor count must be its own. */
  for (int fd = 3; fd < 1024; fd++)
    if (the_fd < 0 || fd != BACKEND_CHILD_FD)
      close (fd);
  if (crash_file)
    setenv ("DOMYBS_CRASH_FILE", crash_file, 1);
  execvp (argv[0], (char *const *)argv);
  dprintf (2, "exec %s: %s\n", argv[0], strerror (errno));
  _exit (127);
}

struct backend *
backend_new (const char *folder_template, const char *socket_name) {
  struct backend *backend = g_new0 (struct backend, 1);
  g_autoptr (GError) error = NULL;

  backend->directory = g_dir_make_tmp (folder_template, &error);
  g_assert_no_error (error);
  backend->socket_path = g_build_filename (backend->directory, socket_name, NULL);
  backend->control_path = g_build_filename (backend->directory, "control.sock", NULL);
  backend->log_path = g_build_filename (backend->directory, "log", NULL);
  return backend;
}

void
backend_run (struct backend *backend, const char *const *argv, int the_fd, const char *crash_file) {
  backend->pid = fork ();
  g_assert_cmpint (backend->pid, >=, 0);
  if (backend->pid == 0)
    child (argv, backend->log_path, the_fd, crash_file);
}

static struct backend *
start (int the_fd, const char *const *arguments) {
  struct backend *backend = backend_new ("domybs-test-XXXXXX", "vhost-user.sock");
  g_autoptr (GPtrArray) argv = g_ptr_array_new_with_free_func (g_free);
  const char *wrapper = g_getenv ("DOMYBS_BACKEND_WRAPPER");

  if (wrapper) {
    g_auto (GStrv) words = g_strsplit (wrapper, " ", -1);

    for (char **word = words; *word; word++)
      if (**word)
        g_ptr_array_add (argv, g_strdup (*word));
  }
  g_ptr_array_add (argv, backend_program ());
  g_ptr_array_add (argv, g_strdup ("--standalone"));
  if (the_fd >= 0)
    g_ptr_array_add (argv, g_strdup_printf ("--fd=%d", BACKEND_CHILD_FD));
  else
    g_ptr_array_add (argv, g_strdup_printf ("--socket-path=%s", backend->socket_path));
  g_ptr_array_add (argv, g_strdup_printf ("--control-path=%s", backend->control_path));
  for (; arguments && *arguments; arguments++)
    g_ptr_array_add (argv, g_strdup (*arguments));
  g_ptr_array_add (argv, NULL);

  backend_run (backend, (const char *const *)argv->pdata, the_fd, NULL);
  return backend;
}

struct backend *
backend_start (const char *const *arguments) {
  return start (-1, arguments);
}

struct backend *
backend_start_fd (int the_fd, const char *const *arguments) {
  return start (the_fd, arguments);
}

bool
backend_is_alive (struct backend *backend) {
  if (!backend->ended && waitpid (backend->pid, &backend->wait_status, WNOHANG) == backend->pid)
    backend->ended = true;
  return !backend->ended;
}

bool
backend_wait_end (struct backend *backend, int timeout_ms) {
  const int64_t deadline = fe_now_ms () + timeout_ms;

  while (backend_is_alive (backend)) {
    if (fe_now_ms () > deadline)
      return false;
    g_usleep (2000);
  }
  return true;
}

const char *
backend_end_text (struct backend *backend) {
  static char text[64];

  if (backend_is_alive (backend))
    return "alive";
  if (WIFSIGNALED (backend->wait_status))
    g_snprintf (text, sizeof text, "signal %d (%s)", WTERMSIG (backend->wait_status), strsignal (WTERMSIG (backend->wait_status)));
  else
    g_snprintf (text, sizeof text, "exit %d", WEXITSTATUS (backend->wait_status));
  return text;
}

/* ---- keeper and worker ---- */

static bool
is_zombie (pid_t pid) {
  char path[64], text[512];
  const char *end;
  ssize_t n;
  int fd;

  g_snprintf (path, sizeof path, "/proc/%d/stat", (int)pid);
  fd = open (path, O_RDONLY | O_CLOEXEC);
  if (fd < 0)
    return true; /* not even that */
  n = read (fd, text, sizeof text - 1);
  close (fd);
  if (n <= 0)
    return true;
  text[n] = 0;
  end = strrchr (text, ')'); /* behind the name, which may have anything in it */
  return !end || end[1] == 0 || end[2] == 'Z' || end[2] == 'X';
}

/* Plain reads and no allocations: kill tests ask this between two requests. */
unsigned
backend_processes (struct backend *backend, pid_t ret_pids[BACKEND_PROCESSES_MAX]) {
  char path[64], text[256];
  unsigned n_pids = 1;
  ssize_t n;
  int fd;

  ret_pids[0] = backend->pid;
  g_snprintf (path, sizeof path, "/proc/%d/task/%d/children", (int)backend->pid, (int)backend->pid);
  fd = open (path, O_RDONLY | O_CLOEXEC);
  if (fd < 0)
    return n_pids;
  n = read (fd, text, sizeof text - 1);
  close (fd);
  text[MAX (n, 0)] = 0;
  for (char *at = text; n_pids < BACKEND_PROCESSES_MAX;) {
    char *end;
    const long pid = strtol (at, &end, 10);

    if (end == at)
      break;
    at = end;
    if (pid > 0 && !is_zombie ((pid_t)pid))
      ret_pids[n_pids++] = (pid_t)pid;
  }
  return n_pids;
}

pid_t
backend_worker (struct backend *backend) {
  pid_t pids[BACKEND_PROCESSES_MAX];
  const unsigned n = backend_processes (backend, pids);

  return n > 1 ? pids[n - 1] : 0;
}

pid_t
backend_wait_worker (struct backend *backend, pid_t other, int timeout_ms) {
  const int64_t deadline = fe_now_ms () + timeout_ms;
  pid_t pid;

  while ((pid = backend_worker (backend)) == 0 || pid == other) {
    if (fe_now_ms () > deadline)
      return 0;
    g_usleep (100);
  }
  return pid;
}

/* An end of the process of that pidfd; the pidfd is closed. */
static bool
wait_pidfd (int pidfd, int timeout_ms) {
  struct pollfd pfd = { pidfd, POLLIN, 0 };
  const bool ended = pidfd < 0 || poll (&pfd, 1, timeout_ms) > 0;

  fe_close (&pidfd);
  return ended;
}

bool
backend_kill_worker (pid_t worker) {
  const int pidfd = (int)syscall (SYS_pidfd_open, worker, 0);

  /* Through the descriptor: whatever has this number, it is what we have looked at. */
  if (pidfd < 0 || is_zombie (worker) || syscall (SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0) < 0) {
    if (pidfd >= 0)
      close (pidfd);
    return false;
  }
  if (!wait_pidfd (pidfd, fe_patience_ms ()))
    g_error ("worker %d does not die of SIGKILL", (int)worker);
  return true;
}

void
backend_signal_all (struct backend *backend, int signal_number) {
  pid_t pids[BACKEND_PROCESSES_MAX];
  const unsigned n = backend_processes (backend, pids);

  for (unsigned i = 0; i < n; i++)
    g_assert_true (signal_number == SIGSTOP ? testing_stop (pids[i]) : kill (pids[i], signal_number) == 0);
}

void
backend_kill (struct backend *backend) {
  int pidfds[BACKEND_PROCESSES_MAX];
  pid_t pids[BACKEND_PROCESSES_MAX];
  unsigned n;

  if (!backend_is_alive (backend))
    return;
  n = backend_processes (backend, pids);
  for (unsigned i = 1; i < n; i++)
    pidfds[i] = (int)syscall (SYS_pidfd_open, pids[i], 0);
  kill (backend->pid, SIGKILL);
  waitpid (backend->pid, &backend->wait_status, 0);
  backend->ended = true;
  for (unsigned i = 1; i < n; i++)
    if (!wait_pidfd (pidfds[i], fe_patience_ms ()))
      g_error ("worker %d outlives its keeper", (int)pids[i]);
}

int
backend_stop (struct backend *backend) {
  if (backend_is_alive (backend)) {
    kill (backend->pid, SIGTERM);
    if (!backend_wait_end (backend, fe_patience_ms ())) {
      backend_kill (backend);
      return -1;
    }
  }
  return backend->wait_status;
}

void
backend_free (struct backend *backend) {
  if (!backend)
    return;
  backend_stop (backend);
  if (g_getenv ("DOMYBS_TEST_LOG")) {
    g_autofree char *log = backend_log_from (backend, 0);

    g_printerr ("---- log of back-end %d\n%s----\n", (int)backend->pid, log);
  }
  g_unlink (backend->socket_path);
  g_unlink (backend->control_path);
  g_unlink (backend->log_path);
  g_rmdir (backend->directory);
  g_free (backend->directory);
  g_free (backend->socket_path);
  g_free (backend->control_path);
  g_free (backend->log_path);
  g_free (backend);
}

/* ---- /proc ---- */

static unsigned
fds_of (pid_t pid, GString *text) {
  g_autofree char *path = g_strdup_printf ("/proc/%d/fd", (int)pid);
  g_autoptr (GDir) directory = g_dir_open (path, 0, NULL);
  const char *name;
  unsigned n = 0;

  while (directory && (name = g_dir_read_name (directory))) {
    n++;
    if (text) {
      g_autofree char *link = g_build_filename (path, name, NULL);
      g_autofree char *target = g_file_read_link (link, NULL);

      g_string_append_printf (text, " %s=%s", name, target ? target : "?");
    }
  }
  return n;
}

unsigned
backend_fds (struct backend *backend) {
  pid_t pids[BACKEND_PROCESSES_MAX];
  unsigned sum = 0;

  for (unsigned i = 0, n = backend_processes (backend, pids); i < n; i++)
    sum += fds_of (pids[i], NULL);
  return sum;
}

char *
backend_fds_text (struct backend *backend) {
  g_autoptr (GString) text = g_string_new (NULL);
  pid_t pids[BACKEND_PROCESSES_MAX];

  for (unsigned i = 0, n = backend_processes (backend, pids); i < n; i++) {
    g_string_append_printf (text, " %s %d:", i ? "worker" : "keeper", (int)pids[i]);
    fds_of (pids[i], text);
  }
  return g_string_free (g_steal_pointer (&text), FALSE);
}

static char *
proc_file (pid_t pid, const char *name) {
  g_autofree char *path = g_strdup_printf ("/proc/%d/%s", (int)pid, name);
  char *text = NULL;

  if (!g_file_get_contents (path, &text, NULL, NULL))
    return g_strdup ("");
  return text;
}

unsigned
backend_maps (struct backend *backend) {
  pid_t pids[BACKEND_PROCESSES_MAX];
  unsigned sum = 0;

  for (unsigned i = 0, n = backend_processes (backend, pids); i < n; i++) {
    g_autofree char *text = proc_file (pids[i], "maps");

    for (const char *p = text; (p = strchr (p, '\n')); p++)
      sum++;
  }
  return sum;
}

uint64_t
backend_anonymous_kib (struct backend *backend) {
  pid_t pids[BACKEND_PROCESSES_MAX];
  uint64_t sum = 0;

  for (unsigned i = 0, n = backend_processes (backend, pids); i < n; i++) {
    g_autofree char *text = proc_file (pids[i], "status");
    const char *line = strstr (text, "RssAnon:");

    sum += line ? g_ascii_strtoull (line + strlen ("RssAnon:"), NULL, 10) : 0;
  }
  return sum;
}

bool
backend_is_instrumented (struct backend *backend) {
  g_autofree char *text = proc_file (backend->pid, "maps");

  return strstr (text, "libasan") || strstr (text, "valgrind") || strstr (text, "libclang_rt");
}

/* ---- log ---- */

size_t
backend_log_size (struct backend *backend) {
  GStatBuf st;

  return g_stat (backend->log_path, &st) < 0 ? 0 : (size_t)st.st_size;
}

char *
backend_log_from (struct backend *backend, size_t offset) {
  g_autofree char *text = NULL;
  size_t n = 0;

  if (!g_file_get_contents (backend->log_path, &text, &n, NULL) || offset >= n)
    return g_strdup ("");
  return g_strdup (text + offset);
}

bool
backend_wait_log (struct backend *backend, size_t offset, const char *text, int timeout_ms) {
  const int64_t deadline = fe_now_ms () + timeout_ms;

  for (;;) {
    g_autofree char *log = backend_log_from (backend, offset);

    if (strstr (log, text))
      return true;
    if (fe_now_ms () > deadline || !backend_is_alive (backend))
      return false;
    g_usleep (2000);
  }
}

/* ---- control socket ---- */

int
control_connect (const char *path) {
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  const int64_t deadline = fe_now_ms () + fe_patience_ms ();
  const int fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

  g_assert_cmpint (fd, >=, 0);
  g_assert_cmpuint (strlen (path), <, sizeof address.sun_path);
  strcpy (address.sun_path, path);
  while (connect (fd, (const struct sockaddr *)&address, sizeof address) < 0) {
    if ((errno != ENOENT && errno != ECONNREFUSED) || fe_now_ms () > deadline) {
      close (fd);
      return -1;
    }
    g_usleep (5000);
  }
  return fd;
}

JsonNode *
control_read (int fd, int timeout_ms) {
  g_autoptr (GString) line = g_string_new (NULL);
  const int64_t deadline = fe_now_ms () + timeout_ms;
  char c = 0;

  while (c != '\n') {
    struct pollfd pfd = { fd, POLLIN, 0 };

    if (fe_now_ms () > deadline)
      return NULL;
    if (poll (&pfd, 1, 50) <= 0)
      continue;
    if (read (fd, &c, 1) <= 0)
      return NULL;
    g_string_append_c (line, c);
  }
  return json_from_string (line->str, NULL);
}

int
control_open (struct backend *backend) {
  const int fd = control_connect (backend->control_path);
  g_autoptr (JsonNode) greeting = NULL;

  if (fd < 0)
    g_error ("no control socket at %s (back-end: %s)", backend->control_path, backend_end_text (backend));
  greeting = control_read (fd, fe_patience_ms ());
  g_assert_nonnull (greeting);
  g_assert_true (json_object_has_member (json_node_get_object (greeting), "domybs"));
  return fd;
}

JsonNode *
control_call (int fd, const char *command) {
  g_autofree char *line = g_strconcat (command, "\n", NULL);
  JsonNode *answer;

  g_assert_cmpint (send (fd, line, strlen (line), MSG_NOSIGNAL), ==, (ssize_t)strlen (line));
  answer = control_read (fd, fe_patience_ms ());
  g_assert_nonnull (answer);
  g_assert_true (JSON_NODE_HOLDS_OBJECT (answer));
  return answer;
}

JsonNode *
backend_control (struct backend *backend, const char *command) {
  const int fd = control_open (backend);
  JsonNode *answer = control_call (fd, command);

  close (fd);
  return answer;
}

JsonNode *
backend_control_once (struct backend *backend, const char *command) {
  g_autofree char *line = g_strconcat (command, "\n", NULL);
  int fd = control_connect (backend->control_path);
  g_autoptr (JsonNode) greeting = NULL;
  JsonNode *answer = NULL;

  if (fd < 0)
    return NULL;
  greeting = control_read (fd, fe_patience_ms ());
  if (greeting && send (fd, line, strlen (line), MSG_NOSIGNAL) == (ssize_t)strlen (line))
    answer = control_read (fd, fe_patience_ms ());
  close (fd);
  if (answer)
    g_assert_true (JSON_NODE_HOLDS_OBJECT (answer));
  return answer;
}

JsonNode *
backend_control_again (struct backend *backend, const char *command) {
  const int64_t deadline = fe_now_ms () + fe_patience_ms ();

  for (;;) {
    JsonNode *answer = backend_control_once (backend, command);

    if (answer)
      return answer;
    if (fe_now_ms () > deadline)
      g_error ("no answer to %s (back-end: %s)", command, backend_end_text (backend));
    g_usleep (1000);
  }
}

int64_t
backend_status (struct backend *backend, const char *member) {
  g_autoptr (JsonNode) answer = backend_control (backend, "{\"execute\":\"status\"}");
  JsonObject *status;
  JsonNode *node;

  g_assert_true (JSON_NODE_HOLDS_OBJECT (answer));
  node = json_object_get_member (json_node_get_object (answer), "return");
  g_assert_true (node && JSON_NODE_HOLDS_OBJECT (node));
  status = json_node_get_object (node);
  node = json_object_get_member (status, member);
  return node && JSON_NODE_HOLDS_VALUE (node) ? json_node_get_int (node) : INT64_MIN;
}

bool
backend_wait_status (struct backend *backend, const char *member, int64_t value, int timeout_ms) {
  const int64_t deadline = fe_now_ms () + timeout_ms;

  while (backend_status (backend, member) != value) {
    if (fe_now_ms () > deadline || !backend_is_alive (backend))
      return false;
    g_usleep (5000);
  }
  return true;
}
