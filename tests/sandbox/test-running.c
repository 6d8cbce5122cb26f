/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The sandbox of a back-end that runs: what the kernel says of its two processes, and what becomes of a worker that calls
 * what it may not. */
#include "rig.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

/* Private memory, of the keeper and of a worker, that is not shared with the back-ends of other VMs. */
#define PRIVATE_KIB_MAX 4096

static char *
proc_text (pid_t pid, const char *name) {
  g_autofree char *path = g_strdup_printf ("/proc/%d/%s", (int)pid, name);
  g_autoptr (GError) error = NULL;
  char *text;

  g_file_get_contents (path, &text, NULL, &error);
  g_assert_no_error (error);
  return text;
}

static void
expect_line (const char *text, const char *line) {
  if (!strstr (text, line))
    g_error ("no '%s' in:\n%s", line, text);
}

static uint64_t
number_after (const char *text, const char *name, unsigned base) {
  const char *at = strstr (text, name);

  g_assert_nonnull (at);
  return g_ascii_strtoull (at + strlen (name), NULL, base);
}

/* KiB. */
static uint64_t
smaps_sum (pid_t pid, const char *name) {
  g_autofree char *text = proc_text (pid, "smaps_rollup");

  return number_after (text, name, 10);
}

/* Soft and hard. From /proc: to ask for another user's with prlimit takes a privilege that containers have not. */
static void
expect_limit (pid_t pid, const char *name, uint64_t most) {
  g_autofree char *text = proc_text (pid, "limits");
  const char *at = strstr (text, name);
  unsigned long long soft = UINT64_MAX, hard = UINT64_MAX;

  g_assert_nonnull (at);
  if (sscanf (at + strlen (name), "%llu %llu", &soft, &hard) != 2 || soft > most || hard > most)
    g_error ("%s of process %d is more than %d:\n%s", name, (int)pid, (int)most, text);
}

static void
test_keeper (struct rig *rig, const void *data) {
  const pid_t pid = rig->backend->pid;
  g_autofree char *status = proc_text (pid, "status");

  expect_line (status, "\nNoNewPrivs:\t1\n");
  expect_limit (pid, "Max core file size", 0);
  expect_limit (pid, "Max open files", 1024);
  g_assert_cmpuint (number_after (status, "CapEff:", 16) & ~0x40e0ull, ==, 0); /* KILL, SETUID, SETGID, IPC_LOCK */
  if (backend_is_instrumented (rig->backend))
    return;
  expect_line (status, "\nSeccomp:\t2\nSeccomp_filters:\t1\n");
  if (geteuid () == 0)
    g_assert_cmpuint (number_after (status, "VmLck:", 10), >, 1024);
  g_test_message ("keeper: locked %d KiB, private %d KiB", (int)number_after (status, "VmLck:", 10),
                  (int)(smaps_sum (pid, "Private_Dirty:")));
  g_assert_cmpuint (smaps_sum (pid, "Private_Dirty:"), <, PRIVATE_KIB_MAX);
}

static void
test_worker (struct rig *rig, const void *data) {
  const pid_t pid = backend_worker (rig->backend);
  g_autofree char *status = proc_text (pid, "status");
  g_autofree char *keeper_oom = proc_text (rig->backend->pid, "oom_score_adj");
  g_autofree char *oom = proc_text (pid, "oom_score_adj");

  expect_line (status, "\nNoNewPrivs:\t1\n");
  expect_line (status, "\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n");
  expect_limit (pid, "Max core file size", 0);
  expect_limit (pid, "Max open files", 1024);
  g_assert_cmpstr (oom, ==, keeper_oom);
  if (geteuid () == 0) {
    expect_line (status, "\nGroups:\t \n");
    expect_line (status, "\nCapBnd:\t0000000000000000\n");
    g_assert_cmpuint (number_after (status, "\nUid:", 10), !=, 0);
    g_assert_cmpuint (number_after (status, "\nGid:", 10), !=, 0);
  }
  if (backend_is_instrumented (rig->backend))
    return;
  expect_line (status, "\nSeccomp:\t2\nSeccomp_filters:\t2\n");
  expect_limit (pid, "Max processes", 0);
  g_test_message ("worker: private %d KiB", (int)smaps_sum (pid, "Private_Dirty:"));
  g_assert_cmpuint (smaps_sum (pid, "Private_Dirty:"), <, PRIVATE_KIB_MAX);
}

#ifdef __x86_64__
/* Has the process, which waits in a system call, make this one instead, as who took it over would, and then wait again. Its
 * result may never come. FALSE: not allowed here. */
static gboolean
make_call (pid_t pid, long call, long *ret_result) {
  struct user_regs_struct registers, before;

  if (ptrace (PTRACE_SEIZE, pid, NULL, NULL) < 0)
    return FALSE;
  g_assert_no_errno (ptrace (PTRACE_INTERRUPT, pid, NULL, NULL));
  g_assert_no_errno (waitpid (pid, NULL, __WALL));
  g_assert_no_errno (ptrace (PTRACE_GETREGS, pid, NULL, &before));
  before.rip -= 2; /* back onto the instruction that it waits in */
  before.rax = before.orig_rax;
  before.orig_rax = ~0ull; /* it is no restart of a call to the kernel */
  registers = before;
  registers.rax = (unsigned long long)call;
  registers.rdi = registers.rsi = registers.rdx = registers.r10 = registers.r8 = registers.r9 = 0;
  g_assert_no_errno (ptrace (PTRACE_SETREGS, pid, NULL, &registers));
  g_assert_no_errno (ptrace (PTRACE_SINGLESTEP, pid, NULL, NULL));
  g_assert_no_errno (waitpid (pid, NULL, __WALL));
  if (ptrace (PTRACE_GETREGS, pid, NULL, &registers) < 0)
    return TRUE; /* it is over */
  *ret_result = (long)registers.rax;
  g_assert_no_errno (ptrace (PTRACE_SETREGS, pid, NULL, &before));
  g_assert_no_errno (ptrace (PTRACE_DETACH, pid, NULL, NULL));
  return TRUE;
}

/* Each of these ends it, QEMU's connection and the guest's blocks stay. A request between two deaths is what keeps them from
 * being a crash loop. */
static void
test_forbidden (void) {
  static const long calls[] = { SYS_socket, SYS_execve, SYS_openat, SYS_fork, SYS_ptrace, SYS_setuid, SYS_kill };
  static const char *const arguments[] = { "--window=2G", NULL };
  g_autoptr (backend_t) backend = backend_start (arguments);
  g_autoptr (fe_t) fe = fe_new ();
  struct fe_answer answer;

  fe_must (fe, fe_open (fe, backend->socket_path)); /* by then it is all there, also what it is instrumented with */
  if (backend_is_instrumented (backend)) {
    g_test_skip ("sanitised programs have no filters");
    return;
  }
  fe_must (fe, fe_grant (fe, 8, DOMYBS_HINT_ANY, 0, 0, 0, &answer));
  g_assert_cmpuint (answer.blocks, ==, 8);
  for (size_t i = 0; i < G_N_ELEMENTS (calls); i++) {
    const pid_t worker = backend_worker (backend);
    long result = 0;
    g_autoptr (JsonNode) node = NULL;
    JsonObject *status;

    g_assert_cmpint (worker, >, 0);
    if (!make_call (worker, calls[i], &result)) {
      g_test_skip ("no ptrace here");
      return;
    }
    if (backend_wait_worker (backend, worker, fe_patience_ms ()) == 0)
      g_error ("the worker survives system call %ld, or nobody comes after it", calls[i]);
    node = backend_control_again (backend, "{\"execute\":\"status\"}");
    status = json_object_get_object_member (json_object_get_object_member (json_node_get_object (node), "return"), "worker");
    g_assert_cmpstr (json_object_get_string_member (status, "last-death"), ==, "signal 31 (Bad system call)");
    g_assert_cmpint (json_object_get_int_member (status, "deaths"), ==, (int)i + 1);
    fe_must (fe, fe_grant (fe, 1, DOMYBS_HINT_ANY, 0, 0, 0, &answer));
    g_assert_cmpuint (answer.granted, ==, 9 + i);
  }
}

/* The keeper lives on, and works: to it the call is missing. */
static void
test_keeper_forbidden (void) {
  static const long calls[] = { SYS_socket, SYS_execve, SYS_ptrace, SYS_setuid };
  static const char *const arguments[] = { "--window=2G", NULL };
  g_autoptr (backend_t) backend = backend_start (arguments);
  g_autoptr (fe_t) fe = fe_new ();
  struct fe_answer answer;

  fe_must (fe, fe_open (fe, backend->socket_path)); /* by then it is all there, also what it is instrumented with */
  if (backend_is_instrumented (backend)) {
    g_test_skip ("sanitised programs have no filters");
    return;
  }
  for (size_t i = 0; i < G_N_ELEMENTS (calls); i++) {
    long result = calls[i];

    /* Where the step ends before the call, as it does when a signal comes at that moment, the register still has its number. */
    for (int tries = 0; tries < 20 && result == calls[i]; tries++)
      if (!make_call (backend->pid, calls[i], &result)) {
        g_test_skip ("no ptrace here");
        return;
      }
    g_assert_cmpint (result, ==, -ENOSYS);
    fe_must (fe, fe_grant (fe, 1, DOMYBS_HINT_ANY, 0, 0, 0, &answer));
    g_assert_cmpuint (answer.granted, ==, i + 1);
  }
  g_assert_true (backend_is_alive (backend));
}
#endif

int
main (int argc, char **argv) {
  g_test_init (&argc, &argv, NULL);
  rig_add ("/sandbox/running/keeper", test_keeper, NULL);
  rig_add ("/sandbox/running/worker", test_worker, NULL);
#ifdef __x86_64__
  g_test_add_func ("/sandbox/running/forbidden", test_forbidden);
  g_test_add_func ("/sandbox/running/keeper-forbidden", test_keeper_forbidden);
#endif
  return rig_run ();
}
