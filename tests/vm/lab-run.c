/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "lab-run.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <glib/gstdio.h>

#define RUN_SECONDS 120.0
#define LISTEN_SECONDS 30.0

char *
lab_folder (const char *name) {
  char *folder = vm_make_folder (name);

  g_assert_cmpint (g_chmod (folder, 0755), ==, 0);
  return folder;
}

static void
spawn (VmProcess *process, const char *what, const char *folder, const char *command) {
  g_autofree char *lab = vm_lab_script (), *whole = g_strdup_printf ("%s run %s", lab, command);
  g_auto (GStrv) arguments = NULL;
  g_autoptr (GError) error = NULL;

  if (!g_shell_parse_argv (whole, NULL, &arguments, &error)
      || !vm_process_spawn (process, what, folder, (const char *const *)arguments, &error))
    g_error ("%s: %s", command, error->message);
}

void
lab_spawn (VmProcess *process, const char *what, const char *folder, const char *format, ...) {
  g_autofree char *command = NULL;
  va_list arguments;

  va_start (arguments, format);
  command = g_strdup_vprintf (format, arguments);
  va_end (arguments);
  spawn (process, what, folder, command);
}

/* Its log begins with a line that is the command. */
static char *
run (const char *folder, double seconds, const char *command, int *ret_status) {
  VmProcess process = { 0 };
  g_autofree char *log = NULL;
  char *end;

  spawn (&process, "run", folder, command);
  if (vm_process_wait (&process, seconds)) {
    *ret_status = WIFEXITED (process.status) ? WEXITSTATUS (process.status) : 128 + WTERMSIG (process.status);
  } else {
    kill (process.pid, SIGKILL);
    vm_process_wait (&process, seconds);
    *ret_status = -1;
  }
  g_assert_true (g_file_get_contents (process.log, &log, NULL, NULL));
  g_unlink (process.log);
  vm_process_clear (&process);
  end = strchr (log, '\n');
  return g_strdup (end ? end + 1 : "");
}

int
lab_run (const char *folder, double seconds, char **ret_output, const char *format, ...) {
  g_autofree char *command = NULL, *output = NULL;
  va_list arguments;
  int status;

  va_start (arguments, format);
  command = g_strdup_vprintf (format, arguments);
  va_end (arguments);
  output = run (folder, seconds, command, &status);
  if (ret_output)
    *ret_output = g_steal_pointer (&output);
  return status;
}

char *
lab_run_ok (const char *folder, const char *format, ...) {
  g_autofree char *command = NULL;
  va_list arguments;
  char *output;
  int status;

  va_start (arguments, format);
  command = g_strdup_vprintf (format, arguments);
  va_end (arguments);
  output = run (folder, RUN_SECONDS, command, &status);
  if (status)
    g_error ("%s: status %d:\n%s", command, status, output);
  return output;
}

/* ---- NBD servers ---- */

void
lab_server_again (LabServer *server) {
  const gint64 deadline = g_get_monotonic_time () + (gint64)(LISTEN_SECONDS * G_USEC_PER_SEC);

  g_unlink (server->socket);
  spawn (&server->process, "server", server->folder, server->command);
  /* Workers are another user. */
  while (g_chmod (server->socket, 0666) < 0) {
    if (!vm_process_runs (&server->process) || g_get_monotonic_time () > deadline)
      g_error ("%s does not listen (log: %s)", server->command, server->process.log);
    g_usleep (5000);
  }
}

void
lab_server_start (LabServer *server, LabServerKind kind, guint64 bytes) {
  static const char *const filters[] = {
    [LAB_SERVER_SLOW] = "--filter=delay",
    [LAB_SERVER_FAILS] = "--filter=error",
  };
  g_autofree char *settings = NULL;
  int fd;

  *server = (LabServer){ .folder = lab_folder ("storage") };
  server->socket = g_build_filename (server->folder, "nbd", NULL);
  server->image = g_build_filename (server->folder, "image", NULL);
  server->trouble = g_build_filename (server->folder, "trouble", NULL);
  fd = open (server->image, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  g_assert_cmpint (ftruncate (fd, (off_t)bytes), ==, 0);
  close (fd);
  if (kind == LAB_SERVER_QEMU) {
    server->uri = g_strdup_printf ("nbd+unix:///far?socket=%s", server->socket);
    server->command = g_strdup_printf (
        "qemu-storage-daemon --blockdev driver=file,node-name=image,filename=%s,cache.direct=on,discard=unmap"
        " --nbd-server addr.type=unix,addr.path=%s,max-connections=0 --export "
        "type=nbd,id=far,name=far,node-name=image,writable=on",
        server->image, server->socket);
  } else {
    server->uri = g_strdup_printf ("nbd+unix:///?socket=%s", server->socket);
    if (kind == LAB_SERVER_SLOW)
      settings = g_strdup ("rdelay=5ms wdelay=20ms");
    else if (kind == LAB_SERVER_FAILS)
      settings = g_strdup_printf ("error=EIO error-pread-rate=2%% error-pwrite-rate=10%% error-file=%s", server->trouble);
    server->command = g_strdup_printf ("nbdkit --foreground --unix %s %s file file=%s %s", server->socket,
                                       kind == LAB_SERVER_PLAIN ? "" : filters[kind], server->image, settings ? settings : "");
  }
  lab_server_again (server);
}

void
lab_server_kill (LabServer *server) {
  kill (server->process.pid, SIGKILL);
  g_assert_true (vm_process_wait (&server->process, LISTEN_SECONDS));
}

void
lab_server_hang (LabServer *server) {
  g_assert_true (testing_stop (server->process.pid));
}

void
lab_server_go_on (LabServer *server) {
  g_assert_cmpint (kill (server->process.pid, SIGCONT), ==, 0);
}

void
lab_server_end (LabServer *server) {
  lab_server_kill (server);
  vm_process_clear (&server->process);
  if (!g_getenv ("DOMYBS_KEEP"))
    vm_delete_folder (server->folder);
  g_free (server->folder);
  g_free (server->socket);
  g_free (server->uri);
  g_free (server->image);
  g_free (server->trouble);
  g_free (server->command);
  *server = (LabServer){ 0 };
}
