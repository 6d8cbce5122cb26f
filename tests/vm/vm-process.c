/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "vm-internal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define POLL_US 10000

/* In the child, before exec: the kernel kills it when this program is gone, be it by abort() or SIGKILL. */
static void
die_with_parent (gpointer parent) {
  prctl (PR_SET_PDEATHSIG, SIGKILL);
  if (getppid () != GPOINTER_TO_INT (parent))
    _exit (127);
  /* Ctrl-C at a terminal is for the test program: it ends the rest in order */
  setpgid (0, 0);
}

gboolean
vm_process_spawn (VmProcess *process, const char *what, const char *folder, const char *const *arguments, GError **error) {
  g_autofree char *log_name = g_strdup_printf ("%s.log", what);
  g_autofree char *command = g_strjoinv (" ", (char **)arguments);
  gboolean started;
  int log;

  g_free (process->log);
  process->what = what;
  process->log = g_build_filename (folder, log_name, NULL);
  log = open (process->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (log < 0) {
    g_set_error (error, G_IO_ERROR, g_io_error_from_errno (errno), "can't create %s: %s", process->log, g_strerror (errno));
    return FALSE;
  }
  dprintf (log, "$ %s\n", command);
  started = g_spawn_async_with_fds (NULL, (char **)arguments, NULL, G_SPAWN_DO_NOT_REAP_CHILD | G_SPAWN_SEARCH_PATH,
                                    die_with_parent, GINT_TO_POINTER (getpid ()), &process->pid, -1, log, log, error);
  close (log);
  return started;
}

void
vm_process_start (Vm *vm, VmProcess *process, const char *what, const char *const *arguments) {
  g_autoptr (GError) error = NULL;

  if (!vm_process_spawn (process, what, vm->folder, arguments, &error))
    vm_fail_with (vm, error, what);
}

gboolean
vm_process_adopt (VmProcess *process, const char *what, GPid pid, const char *log, GError **error) {
  int fd = (int)syscall (SYS_pidfd_open, pid, 0);

  if (fd < 0) {
    g_set_error (error, G_IO_ERROR, g_io_error_from_errno (errno), "no process %d: %s", (int)pid, g_strerror (errno));
    return FALSE;
  }
  vm_process_clear (process);
  *process = (VmProcess){ .what = what, .pid = pid, .pidfd = fd, .log = g_strdup (log) };
  return TRUE;
}

void
vm_process_clear (VmProcess *process) {
  if (process->pidfd)
    close (process->pidfd);
  g_free (process->log);
  *process = (VmProcess){ 0 };
}

gboolean
vm_process_runs (VmProcess *process) {
  if (process->pid == 0)
    return FALSE;
  if (process->pidfd) {
    struct pollfd ended = { .fd = process->pidfd, .events = POLLIN };

    if (poll (&ended, 1, 0) == 0)
      return TRUE;
    close (process->pidfd);
    process->pidfd = 0;
    process->status = -1;
  } else if (waitpid (process->pid, &process->status, WNOHANG) == 0) {
    return TRUE;
  }
  process->pid = 0;
  return FALSE;
}

gboolean
vm_process_wait (VmProcess *process, double seconds) {
  gint64 deadline = g_get_monotonic_time () + (gint64)(seconds * G_USEC_PER_SEC);

  while (vm_process_runs (process)) {
    if (g_get_monotonic_time () > deadline)
      return FALSE;
    g_usleep (POLL_US);
  }
  return TRUE;
}

gboolean
vm_process_end (VmProcess *process, double seconds) {
  if (!vm_process_runs (process))
    return TRUE;
  kill (process->pid, SIGTERM);
  if (vm_process_wait (process, seconds))
    return TRUE;
  kill (process->pid, SIGKILL);
  vm_process_wait (process, seconds);
  return FALSE;
}

char *
vm_process_describe (VmProcess *process) {
  if (process->pid)
    return g_strdup ("running");
  if (process->status == -1)
    return g_strdup ("ended");
  if (WIFSIGNALED (process->status))
    return g_strdup_printf ("killed by signal %d (%s)", WTERMSIG (process->status), strsignal (WTERMSIG (process->status)));
  return g_strdup_printf ("exit status %d", WEXITSTATUS (process->status));
}

char *
vm_script (const char *const *arguments) {
  g_autoptr (GError) error = NULL;
  g_autofree char *complaints = NULL;
  char *output = NULL;
  int status;

  if (!g_spawn_sync (NULL, (char **)arguments, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, &output, &complaints, &status, &error))
    g_error ("%s: %s", arguments[0], error->message);
  if (!g_spawn_check_wait_status (status, &error))
    g_error ("%s %s: %s\n%s%s", arguments[0], arguments[1], error->message, output, complaints);
  return g_strchomp (output);
}
