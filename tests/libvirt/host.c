/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "host.h"
#include "vm-internal.h"

#include <stdarg.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* A host is there in less than a second on an idle machine. */
#define START_SECONDS 60.0
#define END_SECONDS 15.0
#define COMMAND_SECONDS "90"
#define POLL_US 20000

struct Host {
  char *folder;
  char *log, *root;
  VmProcess serving;
  GPid pid; /* its first process */
};

static Host *the_host;

/* ---- life ---- */

static void
host_free (Host *host) {
  vm_process_clear (&host->serving);
  g_free (host->folder);
  g_free (host->log);
  g_free (host->root);
  g_free (host);
}

static void
broken (Host *host, const char *what) {
  g_autofree char *log = NULL;

  if (host->serving.log)
    g_file_get_contents (host->serving.log, &log, NULL, NULL);
  g_error ("%s: %s", what, log ? log : "no log");
}

Host *
host_get (void) {
  g_autofree char *lab = vm_lab_script ();
  g_autofree char *ready = NULL;
  g_autofree char *pid_path = NULL;
  g_autofree char *pid = NULL;
  g_autoptr (GError) error = NULL;
  gint64 deadline = g_get_monotonic_time () + (gint64)(START_SECONDS * G_USEC_PER_SEC);
  Host *host = the_host;

  if (host)
    return host;
  host = the_host = g_new0 (Host, 1);
  host->folder = vm_make_folder ("host");
  host->log = g_build_filename (host->folder, "log", NULL);
  const char *const serve[]
      = { lab, "host", "serve", host->folder, "--install", g_getenv ("DOMYBS_BUILD") ? g_getenv ("DOMYBS_BUILD") : DOMYBS_BUILD,
          NULL };
  if (!vm_process_spawn (&host->serving, "serve", host->folder, serve, &error))
    g_error ("%s", error->message);
  ready = g_build_filename (host->folder, "ready", NULL);
  while (!g_file_test (ready, G_FILE_TEST_EXISTS)) {
    if (!vm_process_runs (&host->serving))
      broken (host, "the lab's host did not start");
    if (g_get_monotonic_time () > deadline)
      broken (host, "the lab's host takes too long to start");
    g_usleep (POLL_US);
  }
  pid_path = g_build_filename (host->folder, "pid", NULL);
  if (!g_file_get_contents (pid_path, &pid, NULL, &error))
    g_error ("%s", error->message);
  host->pid = (GPid)g_ascii_strtoll (pid, NULL, 10);
  host->root = g_strdup_printf ("/proc/%d/root", (int)host->pid);
  return host;
}

void
host_end (void) {
  Host *host = g_steal_pointer (&the_host);
  g_autofree char *lab = vm_lab_script ();

  if (!host)
    return;
  const char *const stop[] = { lab, "host", "stop", host->folder, NULL };
  g_free (vm_script (stop));
  if (!vm_process_wait (&host->serving, END_SECONDS))
    g_error ("the lab's host did not end");
  if (!g_getenv ("DOMYBS_KEEP"))
    vm_delete_folder (host->folder);
  host_free (host);
}

const char *
host_root (Host *host) {
  return host->root;
}

const char *
host_log (Host *host) {
  return host->log;
}

/* ---- commands ---- */

void
host_result_free (HostResult *result) {
  g_free (result->command);
  g_free (result->out);
  g_free (result->err);
  g_free (result);
}

void
host_fail (const HostResult *result, const char *format, ...) {
  g_autofree char *message = NULL;
  g_autofree char *whole = NULL;
  va_list values;

  va_start (values, format);
  message = g_strdup_vprintf (format, values);
  va_end (values);
  whole = g_strdup_printf ("%s: '%s' ended with status %d after %.1f s\n---- stdout:\n%s\n---- stderr:\n%s", message,
                           result->command, result->status, result->seconds, result->out, result->err);
  g_assertion_message (G_LOG_DOMAIN, __FILE__, __LINE__, G_STRFUNC, whole);
  abort ();
}

HostResult *
host_run_argv (Host *host, const char *const *argv) {
  g_autoptr (GPtrArray) all = g_ptr_array_new ();
  g_autoptr (GError) error = NULL;
  g_autofree char *lab = vm_lab_script ();
  HostResult *result = g_new0 (HostResult, 1);
  gint64 began = g_get_monotonic_time ();
  const char *const before[] = { lab, "host", "run", host->folder, "timeout", "-k", "2", COMMAND_SECONDS };
  int status;

  for (guint i = 0; i < G_N_ELEMENTS (before); i++)
    g_ptr_array_add (all, (gpointer)before[i]);
  for (guint i = 0; argv[i]; i++)
    g_ptr_array_add (all, (gpointer)argv[i]);
  g_ptr_array_add (all, NULL);
  result->command = g_strjoinv (" ", (char **)argv);
  if (!g_spawn_sync (NULL, (char **)all->pdata, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, &result->out, &result->err, &status,
                     &error))
    g_error ("%s: %s", result->command, error->message);
  result->status = WIFEXITED (status) ? WEXITSTATUS (status) : 128 + WTERMSIG (status);
  result->seconds = (double)(g_get_monotonic_time () - began) / G_USEC_PER_SEC;
  if (g_getenv ("DOMYBS_TRACE"))
    g_printerr ("# %.2f s, status %d: %s\n", result->seconds, result->status, result->command);
  return result;
}

static HostResult *
run_list (Host *host, const char *program, va_list more) {
  g_autoptr (GPtrArray) argv = g_ptr_array_new ();

  for (const char *word = program; word; word = va_arg (more, const char *))
    g_ptr_array_add (argv, (gpointer)word);
  g_ptr_array_add (argv, NULL);
  return host_run_argv (host, (const char *const *)argv->pdata);
}

HostResult *
host_run (Host *host, const char *program, ...) {
  HostResult *result;
  va_list more;

  va_start (more, program);
  result = run_list (host, program, more);
  va_end (more);
  return result;
}

char *
host_run_ok (Host *host, const char *program, ...) {
  g_autoptr (HostResult) result = NULL;
  va_list more;

  va_start (more, program);
  result = run_list (host, program, more);
  va_end (more);
  if (result->status != 0)
    host_fail (result, "on the lab's host");
  return g_steal_pointer (&result->out);
}

char *
host_shell (Host *host, const char *format, ...) {
  g_autofree char *line = NULL;
  va_list values;

  va_start (values, format);
  line = g_strdup_vprintf (format, values);
  va_end (values);
  return host_run_ok (host, "sh", "-c", line, NULL);
}

void
host_libvirtd (Host *host, const char *what) {
  g_free (host_run_ok (host, "lab-libvirtd", what, NULL));
}

/* ---- files ---- */

void
host_write (Host *host, const char *path, const char *text) {
  g_autofree char *outside = g_build_filename (host->root, path, NULL);
  g_autofree char *folder = g_path_get_dirname (outside);
  g_autoptr (GError) error = NULL;

  if (g_mkdir_with_parents (folder, 0755) || !g_file_set_contents (outside, text, -1, &error))
    g_error ("writing %s on the lab's host: %s", path, error ? error->message : "no folder");
}

char *
host_read (Host *host, const char *path) {
  g_autofree char *outside = g_build_filename (host->root, path, NULL);
  char *text = NULL;

  g_file_get_contents (outside, &text, NULL, NULL);
  return text;
}

/* ---- what runs there ---- */

/* Calls with each process of the host, its name, and its command line, whose words are separated by blanks. */
static void
for_each_process (Host *host, void (*call) (GPid pid, const char *comm, const char *command, gpointer data), gpointer data) {
  g_autofree char *link = g_strdup_printf ("/proc/%d/ns/pid", (int)host->pid);
  g_autofree char *space = g_file_read_link (link, NULL);
  g_autoptr (GDir) all = g_dir_open ("/proc", 0, NULL);
  const char *name;

  g_assert_nonnull (space);
  while ((name = g_dir_read_name (all))) {
    g_autofree char *link_of = g_strdup_printf ("/proc/%s/ns/pid", name);
    g_autofree char *space_of = g_ascii_isdigit (*name) ? g_file_read_link (link_of, NULL) : NULL;
    g_autofree char *comm_path = g_strdup_printf ("/proc/%s/comm", name);
    g_autofree char *command_path = g_strdup_printf ("/proc/%s/cmdline", name);
    g_autofree char *comm = NULL;
    g_autofree char *command = NULL;
    gsize length;

    if (g_strcmp0 (space, space_of) != 0 || !g_file_get_contents (comm_path, &comm, NULL, NULL)
        || !g_file_get_contents (command_path, &command, &length, NULL))
      continue;
    for (gsize i = 0; i + 1 < length; i++)
      if (!command[i])
        command[i] = ' ';
    call ((GPid)g_ascii_strtoll (name, NULL, 10), g_strchomp (comm), command, data);
  }
}

typedef struct {
  const char *comm, *needle;
  GPid found;
} Wanted;

static void
look_for (GPid pid, const char *comm, const char *command, gpointer data) {
  Wanted *wanted = data;

  /* a back-end's workers come and go: it is known by its keeper */
  if (g_str_equal (comm, wanted->comm) && strstr (command, wanted->needle) && !strstr (command, " --worker="))
    wanted->found = pid;
}

GPid
host_find_process (Host *host, const char *comm, const char *needle) {
  Wanted wanted = { comm, needle, 0 };

  for_each_process (host, look_for, &wanted);
  return wanted.found;
}

static void
note_stranger (GPid pid, const char *comm, const char *command, gpointer data) {
  /* the first process and its sleep; libvirtd */
  static const char *const known[] = { "bash", "sleep", "libvirtd" };

  for (guint i = 0; i < G_N_ELEMENTS (known); i++)
    if (g_str_equal (comm, known[i]))
      return;
  g_string_append_printf (data, "process %d: %s\n", (int)pid, *command ? command : comm);
}

char *
host_remains (Host *host) {
  GString *remains = g_string_new (NULL);
  g_autofree char *unix_path = g_strdup_printf ("/proc/%d/net/unix", (int)host->pid);
  g_autofree char *sockets = NULL;
  g_autofree char *files = NULL;
  g_auto (GStrv) lines = NULL;

  for_each_process (host, note_stranger, remains);
  if (g_file_get_contents (unix_path, &sockets, NULL, NULL)) {
    lines = g_strsplit (sockets, "\n", -1);
    for (guint i = 0; lines[i]; i++)
      if (strstr (lines[i], "domybs"))
        g_string_append_printf (remains, "socket: %s\n", lines[i]);
  }
  /* What belongs to the host and not to a VM: the account of all VMs, and the lock of starts and stops */
  files = host_shell (host, "find /run /dev/shm /var/tmp -path '*domybs*' ! -path /run/domybs ! -path /run/domybs/vm "
                            "! -path /run/domybs/vm/.lock ! -path '/run/domybs/*account*'");
  g_string_append (remains, files);
  return g_string_free (remains, FALSE);
}

void
host_expect_clean (Host *host, double seconds) {
  gint64 deadline = g_get_monotonic_time () + (gint64)(seconds * G_USEC_PER_SEC);

  for (;;) {
    g_autofree char *remains = host_remains (host);

    if (!*remains)
      return;
    if (g_get_monotonic_time () > deadline)
      g_error ("this remains on the host %g s after it should have gone:\n%s", seconds, remains);
    g_usleep (POLL_US * 5);
  }
}
