/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Who keeper and worker are, and what is left to them, as root, as another user and in a container. */
#include "case.h"
#include "io/sandbox.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NOBODY 65534

/* A line of /proc/self/status, from before the sandbox on: it opens files for reading, which a keeper may. */
static uint64_t
status_number (const char *name, int base) {
  char text[8192];
  const int fd = open ("/proc/self/status", O_RDONLY | O_CLOEXEC);
  const ssize_t n = read (fd, text, sizeof text - 1);
  const char *line;

  close (fd);
  if (n <= 0)
    _exit (92);
  text[n] = 0;
  line = strstr (text, name);
  return line ? strtoull (line + strlen (name), NULL, base) : UINT64_MAX;
}

static int
keeper_privileges (void) {
  struct rlimit limit;
  const uint64_t kept = status_number ("CapEff:", 16);
  const uint64_t least = (1u << CAP_KILL) | (1u << CAP_SETUID) | (1u << CAP_SETGID);

  /* CAP_IPC_LOCK stays where the limit could not be raised, so that what is locked can grow */
  if (kept != (case_is_root () ? least : 0) && kept != (least | (1u << CAP_IPC_LOCK)))
    return 1;
  if (status_number ("CapPrm:", 16) != kept || status_number ("CapInh:", 16) || status_number ("CapAmb:", 16))
    return 2;
  if (case_is_root () && status_number ("CapBnd:", 16))
    return 3;
  if (status_number ("NoNewPrivs:", 10) != 1 || status_number ("Seccomp:", 10) != (CASE_HAS_FILTERS ? 2 : 0))
    return 4;
  if (getrlimit (RLIMIT_CORE, &limit) < 0 || limit.rlim_max != 0)
    return 5;
  if (getrlimit (RLIMIT_NOFILE, &limit) < 0 || limit.rlim_max > 1024)
    return 6;
  if (case_is_root () && prctl (PR_GET_DUMPABLE, 0, 0, 0, 0) != 0)
    return 7;
  if (umask (022) != 077)
    return 8;
  if (CASE_HAS_FILTERS && case_is_root () && status_number ("VmLck:", 10) < 1024) /* kB */
    return 9;
  g_printerr ("VmLck %d kB, anonymous %d kB\n", (int)status_number ("VmLck:", 10), (int)status_number ("RssAnon:", 10));
  return 0;
}

/* All of it from outside, because a worker can't open its own status. */
static int
keeper_looks_at_worker (void) {
  GError *error = NULL;
  const pid_t pid = fork ();
  char path[64], text[8192];
  ssize_t n;
  int fd;

  if (pid == 0) {
    if (sandbox_become_worker () || !sandbox_worker (&error))
      _exit (93);
    for (;;)
      poll (NULL, 0, 1000);
  }
  g_snprintf (path, sizeof path, "/proc/%d/status", (int)pid);
  for (int i = 0; i < 500; i++) {
    fd = open (path, O_RDONLY | O_CLOEXEC);
    n = read (fd, text, sizeof text - 1);
    close (fd);
    if (n <= 0)
      return 21;
    text[n] = 0;
    if (CASE_HAS_FILTERS ? strstr (text, "Seccomp_filters:\t2") != NULL : !strstr (text, "\nUid:\t0"))
      break;
    poll (NULL, 0, 10);
  }
  kill (pid, SIGKILL);
  case_wait (pid);
  g_printerr ("%s", text);
  return 0;
}

static void
test_keeper_privileges (void) {
  g_autofree char *text = NULL;
  const int status = case_run (NULL, keeper_privileges, NULL, &text);

  case_expect_good (status, text);
  g_test_message ("%s", text);
}

static void
expect_worker_user (CaseBody before, unsigned uid, unsigned gid) {
  g_autofree char *text = NULL;
  g_autofree char *uids = g_strdup_printf ("\nUid:\t%u\t%u\t%u\t%u\n", uid, uid, uid, uid);
  g_autofree char *gids = g_strdup_printf ("\nGid:\t%u\t%u\t%u\t%u\n", gid, gid, gid, gid);
  const int status = case_run (before, keeper_looks_at_worker, NULL, &text);

  case_expect_good (status, text);
  case_expect_text (text, uids);
  case_expect_text (text, gids);
  case_expect_text (text, "\nGroups:\t \n");
  case_expect_text (text, "\nCapPrm:\t0000000000000000\n");
  case_expect_text (text, "\nCapEff:\t0000000000000000\n");
  case_expect_text (text, "\nCapBnd:\t0000000000000000\n");
  case_expect_text (text, "\nCapAmb:\t0000000000000000\n");
  case_expect_text (text, "\nNoNewPrivs:\t1\n");
  if (CASE_HAS_FILTERS)
    case_expect_text (text, "\nSeccomp:\t2\nSeccomp_filters:\t2\n");
}

static int
with_passwd (const char *text) {
  const char path[] = "/tmp/domybs-test-passwd";
  int fd;

  if (unshare (CLONE_NEWNS) < 0 || mount (NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0
      || mount ("none", "/tmp", "tmpfs", 0, NULL) < 0)
    return 31;
  fd = open (path, O_WRONLY | O_CREAT, 0644);
  if (write (fd, text, strlen (text)) < 0 || mount (path, "/etc/passwd", NULL, MS_BIND, NULL) < 0)
    return 32;
  close (fd);
  return 0;
}

static int
with_domybs (void) {
  const gid_t groups[] = { 4, 5 };

  return setgroups (2, groups) < 0 ? 33
                                   : with_passwd ("root:x:0:0::/:/bin/sh\ndomybsx:x:3:3::/:/bin/sh\n"
                                                  "domybs:x:812:813::/:/usr/sbin/nologin\n");
}

static int
without_domybs (void) {
  return with_passwd ("root:x:0:0::/:/bin/sh\n");
}

static int
with_wrong_domybs (void) {
  return with_passwd ("root:x:0:0::/:/bin/sh\ndomybs:x:0:0::/:/bin/sh\n");
}

static void
test_worker_user (void) {
  if (!case_is_root ()) {
    g_test_skip ("needs root");
    return;
  }
  expect_worker_user (with_domybs, 812, 813);
  expect_worker_user (without_domybs, NOBODY, NOBODY);
  expect_worker_user (with_wrong_domybs, NOBODY, NOBODY);
}

static int
become_plain_user (void) {
  return setgroups (0, NULL) < 0 || setresgid (1234, 1234, 1234) < 0 || setresuid (1234, 1234, 1234) < 0 ? 34 : 0;
}

static int
keeper_of_plain_user (void) {
  if (status_number ("CapEff:", 16) || status_number ("CapPrm:", 16))
    return 41;
  return status_number ("NoNewPrivs:", 10) == 1 ? 0 : 42;
}

static int
worker_of_plain_user (void) {
  return geteuid () == 1234 ? 0 : 43;
}

/* Nobody else to be, and no limits to raise: it works, and says so. */
static void
test_plain_user (void) {
  g_autofree char *text = NULL;

  if (!case_is_root ()) {
    g_test_skip ("needs root, to become somebody else");
    return;
  }
  case_expect_good (case_run (become_plain_user, keeper_of_plain_user, worker_of_plain_user, &text), text);
}

/* A container that has one user: root, of a user namespace. */
static int
enter_small_container (void) {
  static const char map[] = "0 0 1";
  int fd;

  if (unshare (CLONE_NEWUSER) < 0)
    return 77;
  fd = open ("/proc/self/setgroups", O_WRONLY);
  if (fd < 0 || write (fd, "deny", 4) < 0)
    return 51;
  close (fd);
  fd = open ("/proc/self/uid_map", O_WRONLY);
  if (fd < 0 || write (fd, map, sizeof map - 1) < 0)
    return 52;
  close (fd);
  return 0;
}

static int
keeper_of_small_container (void) {
  return status_number ("CapEff:", 16) & ~(1ull << CAP_IPC_LOCK) ? 53 : 0;
}

static int
worker_of_small_container (void) {
  return geteuid () == 0 ? 0 : 54;
}

static void
test_small_container (void) {
  g_autofree char *text = NULL;
  int status;

  if (!case_is_root ()) {
    g_test_skip ("needs root");
    return;
  }
  status = case_run (enter_small_container, keeper_of_small_container, worker_of_small_container, &text);
  if (WIFEXITED (status) && WEXITSTATUS (status) == 77) {
    g_test_skip ("no user namespaces here");
    return;
  }
  case_expect_good (status, text);
  case_expect_text (text, "the worker runs as root");
}

/* ---- a keeper starts a program ---- */

static int self_fd = -1;

static int
open_self (void) {
  self_fd = open ("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  return self_fd < 0 ? 81 : 0;
}

static int
start_self (void) {
  static char *const argv[] = { (char *)"worker", (char *)"--as-worker", NULL };
  const pid_t pid = fork ();
  int status;

  if (pid == 0) {
    if (sandbox_become_worker () == 0)
      syscall (SYS_execveat, self_fd, "", argv, environ, AT_EMPTY_PATH);
    _exit (82);
  }
  status = case_wait (pid);
  return WIFEXITED (status) ? WEXITSTATUS (status) : 84;
}

static void
test_keeper_starts (void) {
  g_autofree char *text = NULL;

  case_expect_good (case_run (open_self, start_self, NULL, &text), text);
  case_expect_text (text, "here I am");
}

static int
worker_main (void) {
  g_autoptr (GError) error = NULL;

  if (!sandbox_worker (&error))
    return 83;
  g_printerr ("here I am\n");
  return 0;
}

int
main (int argc, char **argv) {
  if (argc > 1 && strcmp (argv[1], "--as-worker") == 0)
    return worker_main ();
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/sandbox/keeper/privileges", test_keeper_privileges);
  g_test_add_func ("/sandbox/keeper/starts", test_keeper_starts);
  g_test_add_func ("/sandbox/worker/user", test_worker_user);
  g_test_add_func ("/sandbox/plain-user", test_plain_user);
  g_test_add_func ("/sandbox/small-container", test_small_container);
  return g_test_run ();
}
