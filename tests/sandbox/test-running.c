/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The sandbox of a back-end that runs: what the kernel says of its two processes. test-calls makes the calls themselves. */
#include "rig.h"

#include <stdio.h>
#include <string.h>
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

int
main (int argc, char **argv) {
  g_test_init (&argc, &argv, NULL);
  rig_add ("/sandbox/running/keeper", test_keeper, NULL);
  rig_add ("/sandbox/running/worker", test_worker, NULL);
  return rig_run ();
}
