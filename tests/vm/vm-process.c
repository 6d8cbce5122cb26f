/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "vm-internal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
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

void
vm_process_start (Vm *vm, VmProcess *process, const char *what, const char *const *arguments) {
  g_autoptr (GError) error = NULL;
  g_autofree char *log_name = g_strdup_printf ("%s.log", what);
  g_autofree char *command = g_strjoinv (" ", (char **)arguments);
  int log;

  process->what = what;
  process->log = g_build_filename (vm->folder, log_name, NULL);
  log = open (process->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (log < 0)
    vm_fail (vm, "can't create %s: %s", process->log, g_strerror (errno));
  dprintf (log, "$ %s\n", command);
  if (!g_spawn_async_with_fds (NULL, (char **)arguments, NULL, G_SPAWN_DO_NOT_REAP_CHILD | G_SPAWN_SEARCH_PATH, die_with_parent,
                               GINT_TO_POINTER (getpid ()), &process->pid, -1, log, log, &error))
    vm_fail_with (vm, error, what);
  close (log);
}

gboolean
vm_process_runs (VmProcess *process) {
  if (process->pid == 0)
    return FALSE;
  if (waitpid (process->pid, &process->status, WNOHANG) == 0)
    return TRUE;
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
