/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "place.h"
#include "host/launch.h"
#include "host/unix-socket.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <glib/gstdio.h>

#define PATIENCE_US (20 * G_USEC_PER_SEC)

static char *base;   /* of this program; a folder in it for each test */
static char *folder; /* holds "run", RUNDIR, and links to programs */

static gboolean
has_path (const char *pid, const char *path) {
  g_autofree char *line_path = g_build_filename ("/proc", pid, "cmdline", NULL);
  g_autofree char *line = NULL;
  gsize n = 0;

  return g_file_get_contents (line_path, &line, &n, NULL) && memmem (line, n, path, strlen (path));
}

/* A back-end's worker, which is its keeper's own affair; before it has become another program it looks like its keeper. */
static gboolean
is_child_of_one (const char *pid, const char *path) {
  g_autofree char *stat_path = g_build_filename ("/proc", pid, "stat", NULL);
  g_autofree char *stat = NULL, *parent = NULL;
  const char *end = g_file_get_contents (stat_path, &stat, NULL, NULL) ? strrchr (stat, ')') : NULL;
  int ppid;

  if (!end || sscanf (end + 1, " %*c %d", &ppid) != 1)
    return TRUE; /* it has just ended */
  parent = g_strdup_printf ("%d", ppid);
  return has_path (parent, path);
}

static GArray *
find_processes (const char *path) {
  GArray *pids = g_array_new (FALSE, FALSE, sizeof (pid_t));
  g_autoptr (GDir) processes = g_dir_open ("/proc", 0, NULL);
  const char *name;

  while ((name = g_dir_read_name (processes))) {
    const pid_t pid = (pid_t)g_ascii_strtoll (name, NULL, 10);

    if (pid > 0 && pid != getpid () && has_path (name, path) && !is_child_of_one (name, path))
      g_array_append_val (pids, pid);
  }
  return pids;
}

static guint
kill_processes (const char *path) {
  g_autoptr (GArray) left = find_processes (path);

  for (guint i = 0; i < left->len; i++)
    kill (g_array_index (left, pid_t, i), SIGKILL);
  return left->len;
}

static void
remove_all (const char *path) {
  g_autoptr (GDir) entries = g_file_test (path, G_FILE_TEST_IS_SYMLINK) ? NULL : g_dir_open (path, 0, NULL);
  const char *name;

  while (entries && (name = g_dir_read_name (entries))) {
    g_autofree char *entry = g_build_filename (path, name, NULL);

    remove_all (entry);
  }
  g_remove (path);
}

/* What is tested makes processes that outlive who started them: however this program ends, somebody sees to it that they do,
 * too. */
static void
start_cleaner (void) {
  int alive[2];
  pid_t pid;
  char c;

  g_assert_cmpint (pipe2 (alive, O_CLOEXEC), ==, 0);
  pid = fork ();
  if (pid == 0) {
    const int null = open ("/dev/null", O_RDWR);

    setsid ();
    if (fork () > 0)
      _exit (0);
    for (int fd = 0; fd < 3; fd++)
      dup2 (null, fd);
    close (alive[1]);
    while (read (alive[0], &c, 1) < 0)
      ;
    kill_processes (base);
    remove_all (base);
    _exit (0);
  }
  g_assert_cmpint (waitpid (pid, NULL, 0), ==, pid);
  close (alive[0]);
}

static char *
fake_program (const char *name) {
  char *path = g_build_filename (folder, name, NULL);

  if (!g_file_test (path, G_FILE_TEST_EXISTS))
    g_assert_cmpint (symlink (g_getenv ("DOMYBS_FAKE_PROCESS"), path), ==, 0);
  return path;
}

void
place_use_program (const char *name) {
  g_autofree char *program = name ? fake_program (name) : g_strdup (g_getenv ("DOMYBS_REAL_BACKEND"));

  g_setenv ("DOMYBS_BACKEND", program, TRUE);
}

const char *
place_uuid (void) {
  static char *uuid;

  if (!uuid)
    uuid = g_uuid_string_random ();
  return uuid;
}

void
place_set_up (void) {
  static int tests;
  g_autoptr (GError) error = NULL;
  g_autofree char *number = g_strdup_printf ("%d", ++tests), *run = NULL;

  if (!base) {
    base = g_dir_make_tmp ("domybs-hook-XXXXXX", &error);
    g_assert_no_error (error);
    start_cleaner ();
  }
  folder = g_build_filename (base, number, NULL);
  g_assert_cmpint (g_mkdir (folder, 0700), ==, 0);
  run = g_build_filename (folder, "run", NULL);
  g_setenv ("DOMYBS_TEST_RUNDIR", run, TRUE);
  place_use_program (NULL);
}

char *
place_path (const char *name) {
  return g_build_filename (folder, "run", name, NULL);
}

char *
place_file (const char *name) {
  return g_build_filename (folder, name, NULL);
}

unsigned
place_folders (void) {
  g_autofree char *path = place_path ("vm");
  g_autoptr (GDir) entries = g_dir_open (path, 0, NULL);
  const char *name;
  unsigned n = 0;

  while (entries && (name = g_dir_read_name (entries)))
    n += !g_str_equal (name, ".lock");
  return n;
}

unsigned
place_process_count (void) {
  g_autofree char *run = place_path ("");

  /* What is about to become a worker, or has just been ended, may look like a back-end for a moment. */
  for (int tries = 100;; tries--) {
    g_autoptr (GArray) pids = find_processes (run);

    if (pids->len <= 1 || tries == 0)
      return pids->len;
    g_usleep (10 * 1000);
  }
}

char *
place_log (const char *name) {
  g_autofree char *file = g_strconcat (name, ".log", NULL);
  g_autofree char *path = g_build_filename (folder, "run", "log", file, NULL);
  char *text = NULL;

  return g_file_get_contents (path, &text, NULL, NULL) ? text : g_strdup ("");
}

void
place_tear_down (void) {
  g_autofree char *run = place_path ("");
  const gint64 deadline = g_get_monotonic_time () + 2 * G_USEC_PER_SEC;
  guint left;

  /* a worker sees the end of its keeper in its own time */
  while (place_process_count () && g_get_monotonic_time () < deadline)
    g_usleep (5000);
  left = kill_processes (run);

  remove_all (folder);
  g_clear_pointer (&folder, g_free);
  g_assert_cmpuint (left, ==, 0);
}

pid_t
place_start_program (const char *name, ...) {
  g_autoptr (GPtrArray) argv = g_ptr_array_new ();
  g_autofree char *program = fake_program (name);
  int running[2];
  va_list args;
  pid_t pid;
  char c;

  g_ptr_array_add (argv, program);
  va_start (args, name);
  do
    g_ptr_array_add (argv, va_arg (args, char *));
  while (argv->pdata[argv->len - 1]);
  va_end (args);
  g_assert_cmpint (pipe2 (running, O_CLOEXEC), ==, 0);
  pid = fork ();
  if (pid == 0) {
    execv (program, (char **)argv->pdata);
    _exit (127);
  }
  close (running[1]);
  g_assert_cmpint (read (running[0], &c, 1), ==, 0); /* closed by exec */
  close (running[0]);
  return pid;
}

pid_t
place_start_qemu (const char *uuid) {
  g_autofree char *socket = launch_socket_path (uuid);
  const gint64 deadline = g_get_monotonic_time () + PATIENCE_US;
  const pid_t pid = place_start_program ("qemu", "-name", "guest=a vm", "-uuid", uuid, socket, NULL);

  while (!(unix_socket_state (socket) & UNIX_SOCKET_CONNECTED)) {
    g_assert_cmpint (g_get_monotonic_time (), <, deadline);
    g_usleep (2000);
  }
  return pid;
}

void
place_end (pid_t pid) {
  kill (pid, SIGKILL);
  g_assert_cmpint (waitpid (pid, NULL, 0), ==, pid);
}
