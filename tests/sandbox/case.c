/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "case.h"
#include "io/sandbox.h"
#include "io/sandbox-calls.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* What the cases' keepers call, in the place of device/keeper.c */
SANDBOX_KEEPER_CALLS (SANDBOX_CALL (wait4), SANDBOX_CALL (kill), SANDBOX_CALL_IF (clone, 0, SANDBOX_NAMESPACES, 0),
                      SANDBOX_CALL_IF (execveat, 4, AT_EMPTY_PATH, AT_EMPTY_PATH));

int
case_wait (pid_t pid) {
  int status;

  while (waitpid (pid, &status, 0) < 0)
    if (errno != EINTR)
      _exit (99);
  return status;
}

static void
say_and_exit (const GError *error) {
  g_printerr ("%s\n", error->message);
  _exit (90);
}

int
case_as_worker (CaseBody worker) {
  GError *error = NULL;
  const int failure = sandbox_become_worker ();

  if (failure)
    _exit (91);
  if (!sandbox_worker (&error))
    say_and_exit (error);
  return worker ();
}

int
case_run (CaseBody before, CaseBody keeper, CaseBody worker, char **ret_text) {
  int fds[2];
  pid_t pid;
  GString *text = g_string_new (NULL);
  char part[256];
  ssize_t n;

  g_assert_no_errno (pipe2 (fds, O_CLOEXEC));
  pid = fork ();
  if (pid == 0) {
    GError *error = NULL;
    int status = 0;

    dup2 (fds[1], 2);
    close (fds[1]);
    alarm (20);
    if (before)
      status = before ();
    if (status == 0 && !sandbox_keeper (&error))
      say_and_exit (error);
    if (status == 0 && keeper)
      status = keeper ();
    if (status == 0 && worker) {
      pid = fork ();
      if (pid == 0)
        _exit (case_as_worker (worker));
      status = case_wait (pid);
      if (WIFSIGNALED (status))
        kill (getpid (), WTERMSIG (status)); /* the same end for us: that is what the test looks at */
      status = WEXITSTATUS (status);
    }
    _exit (status);
  }
  close (fds[1]);
  while ((n = read (fds[0], part, sizeof part)) > 0)
    g_string_append_len (text, part, n);
  close (fds[0]);
  if (ret_text)
    *ret_text = g_string_free (text, FALSE);
  else
    g_string_free (text, TRUE);
  return case_wait (pid);
}

void
case_expect_good (int status, const char *text) {
  if (!WIFEXITED (status) || WEXITSTATUS (status))
    g_error ("the process ended with wait status 0x%x, after: %s", (unsigned)status, text);
}

gboolean
case_is_root (void) {
  return geteuid () == 0;
}

void
case_expect_text (const char *text, const char *line) {
  if (!strstr (text, line))
    g_error ("no '%s' in:\n%s", line, text);
}
