/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which system calls are left to a keeper and to a worker. */
#include "case.h"
#include "io/error.h"
#include "io/guest-map.h"
#include "io/host-memory.h"

#include <errno.h>
#include <fcntl.h>
#include <json-glib/json-glib.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define CALLS 600

/* What the processes of a case share. */
static struct shared {
  int status[CALLS];
} *shared;

/* ---- what a worker calls ---- */

static const char *const allowed[] = {
  "accept4", "brk", "clock_gettime", "clock_nanosleep", "close", "exit", "exit_group", "fallocate", "fstat", "fstatfs",
  "ftruncate", "futex", "geteuid", "getpid", "getrandom", "getsockopt", "gettid", "gettimeofday", "lseek", "madvise",
  "memfd_create", "mremap", "munmap", "nanosleep", "newfstatat", "poll", "ppoll", "pread64", "preadv2", "read", "readlink",
  "readlinkat", "recvfrom", "recvmsg", "restart_syscall", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sched_yield",
  "sendmsg", "sendto", "statx", "timer_create", "timer_settime", "write", "writev",
  /* whose third argument, a protection, is looked at */
  "mmap", "mprotect",
};

static gboolean
is_allowed (int call) {
  g_autofree char *name = NULL;
  char *found = seccomp_syscall_resolve_num_arch (SCMP_ARCH_NATIVE, call);
  gboolean result = FALSE;

  for (size_t i = 0; found && i < G_N_ELEMENTS (allowed); i++)
    result |= strcmp (found, allowed[i]) == 0;
  free (found);
  return result;
}

static int call_to_make;

static int
make_call (void) {
  /* Arguments that nothing can be done with, and that no call waits for; but as flags and protections they are none */
  const long result = syscall (call_to_make, -1L, -1L, 0L, 0L, 0L, 0L);

  return result < 0 && errno == ENOSYS ? 38 : 0;
}

static int
make_all_calls (void) {
  for (call_to_make = 0; call_to_make < CALLS; call_to_make++) {
    const pid_t pid = fork ();

    if (pid == 0)
      _exit (case_as_worker (make_call));
    shared->status[call_to_make] = case_wait (pid);
  }
  return 0;
}

/* Every number there is, and those to come. */
static void
test_worker_calls (void) {
  g_autofree char *text = NULL;
  int newest = CALLS, wrong = 0;

  if (!CASE_HAS_FILTERS) {
    g_test_skip ("sanitised programs have no filters");
    return;
  }
  case_expect_good (case_run (NULL, make_all_calls, NULL, &text), text);
  for (char *name = NULL; !name; free (name))
    name = seccomp_syscall_resolve_num_arch (SCMP_ARCH_NATIVE, --newest);
  for (int call = 0; call < CALLS; call++) {
    const int status = shared->status[call];
    char *name = seccomp_syscall_resolve_num_arch (SCMP_ARCH_NATIVE, call);
    const gboolean ended = WIFSIGNALED (status) && WTERMSIG (status) == SIGSYS;
    /* 335 and 336, of the kernel's probes, are let through by the kernel itself; called by others they end the process */
    const gboolean expected_end = call == 335 || call == 336 ? ended : call <= newest ? !is_allowed (call) : call > newest + 64;

    if (ended != expected_end || (!ended && call > newest && status != 38 << 8)) {
      g_test_message ("%s (%d): wait status 0x%x, expected is %s", name ? name : "?", call, (unsigned)status,
                      expected_end ? "SIGSYS" : "no SIGSYS");
      wrong++;
    }
    free (name);
  }
  g_assert_cmpint (wrong, ==, 0);
}

static int
executable_memory (void) {
  return mmap (NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED;
}

static int
memory_made_executable (void) {
  void *memory = mmap (NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

  return mprotect (memory, 4096, PROT_READ | PROT_EXEC);
}

static int
own_a_descriptor (void) {
  return fcntl (1, F_SETOWN, getpid ());
}

static int
signal_init (void) {
  return (int)syscall (SYS_tgkill, 1, 1, 0);
}

#ifdef __x86_64__
static int
call_as_i386 (void) {
  int result;

  __asm__ volatile ("int $0x80" : "=a"(result) : "a"(20) : "memory"); /* getpid */
  return 0;
}

static int
call_as_x32 (void) {
  syscall (0x40000000 | SYS_getpid);
  return 0;
}
#endif

static int
start_thread (void) {
  return (int)syscall (SYS_clone, CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD, 0, 0, 0, 0);
}

static void
test_worker_arguments (void) {
  static const CaseBody forbidden[] = { executable_memory, memory_made_executable, own_a_descriptor, signal_init, start_thread,
#ifdef __x86_64__
                                    call_as_i386, call_as_x32
#endif
  };

  if (!CASE_HAS_FILTERS) {
    g_test_skip ("sanitised programs have no filters");
    return;
  }
  for (size_t i = 0; i < G_N_ELEMENTS (forbidden); i++) {
    g_autofree char *text = NULL;
    const int status = case_run (NULL, NULL, forbidden[i], &text);

    if (!WIFSIGNALED (status) || WTERMSIG (status) != SIGSYS)
      g_error ("number %d: wait status 0x%x instead of SIGSYS; %s", (int)i, (unsigned)status, text);
  }
}

static int
abort_it (void) {
  abort ();
}

/* Its end has the right name. */
static void
test_worker_abort (void) {
  const int status = case_run (NULL, NULL, abort_it, NULL);

  g_assert_true (WIFSIGNALED (status) && WTERMSIG (status) == SIGABRT);
}

static int pair[2];

static int
open_first (void) {
  HostMemory memory;

  g_main_context_default (); /* opens what it wakes itself up with */
  return socketpair (AF_UNIX, SOCK_SEQPACKET, 0, pair) < 0 || !host_memory_read (&memory, NULL) || !guest_map_init (NULL)
             ? 61
             : 0;
}

static gboolean
on_timeout (gpointer data) {
  g_main_loop_quit (data);
  return G_SOURCE_REMOVE;
}

/* What a worker does all day, in the C library's and GLib's clothes. */
static int
work (void) {
  g_autoptr (GMainLoop) loop = g_main_loop_new (NULL, FALSE);
  g_autoptr (JsonParser) parser = json_parser_new ();
  g_autofree char *much = g_malloc0 (64 << 20);
  g_autofree char *more = NULL;
  g_autoptr (GError) error = NULL;
  HostMemory memory;
  char link[64];
  struct statfs fs;
  uint8_t *mapped;
  int fd;

  more = g_realloc (g_steal_pointer (&much), 256 << 20);
  g_timeout_add (10, on_timeout, loop);
  g_main_loop_run (loop);
  if (!host_memory_read (&memory, NULL) || memory.available_bytes == 0)
    return 71;
  if (json_parser_load_from_data (parser, "{ \"a\": ", -1, &error) || !error)
    return 72;
  g_clear_error (&error);
  errno = EILSEQ;
  domybs_error_errno (&error, "can't do %s", "this");
  g_printerr ("%s %g\n", error->message, 1.5); /* the program has a log writer of its own, which does the same */
  g_printerr ("%s\n", strsignal (SIGSYS));
  fd = memfd_create ("test", MFD_ALLOW_SEALING | MFD_CLOEXEC);
  if (fd < 0 || ftruncate (fd, 1 << 20) < 0 || fallocate (fd, 0, 0, 4096) < 0 || fcntl (fd, F_ADD_SEALS, F_SEAL_GROW) < 0
      || fstatfs (fd, &fs) < 0)
    return 73;
  if (readlink ("/proc/self/fd/0", link, sizeof link) < 0)
    return 74;
  /* A peer that takes its memory away */
  mapped = guest_map (fd, 0, 8192, &error);
  if (!mapped || ftruncate (fd, 0) < 0)
    return 75;
  mapped[4096] = 1;
  if (!guest_map_is_broken (mapped))
    return 76;
  guest_unmap (mapped);
  close (fd);
  if (send (pair[0], "x", 1, MSG_NOSIGNAL) != 1 || recv (pair[1], link, 1, 0) != 1)
    return 78;
  g_usleep (100);
  return 0;
}

static void
test_worker_works (void) {
  static const char *const locales[] = { "C", "C.UTF-8", "de_DE.UTF-8", "" };

  for (size_t i = 0; i < G_N_ELEMENTS (locales); i++) {
    g_autofree char *text = NULL;
    int status;

    g_setenv ("LC_ALL", locales[i], TRUE);
    status = case_run (open_first, NULL, work, &text);
    g_unsetenv ("LC_ALL");
    case_expect_good (status, text);
    case_expect_text (text, "Bad system call");
  }
}

/* ---- what a keeper can't do any more: to it such calls are missing ---- */

static int
keeper_forbidden (void) {
  const struct {
    const char *name;
    long result;
  } calls[] = {
#define TRY(call) { #call, (errno = 0, (call) < 0) ? errno : 0 }
    TRY (socket (AF_UNIX, SOCK_STREAM, 0)),
    TRY (socket (AF_INET, SOCK_STREAM, 0)),
    TRY (open ("/tmp/domybs-test-sandbox", O_WRONLY | O_CREAT, 0600)),
    TRY (open ("/dev/null", O_RDWR)),
    TRY (open ("/dev/null", O_WRONLY)),
    TRY (open ("/dev/null", O_RDONLY | O_TRUNC)),
    TRY (syscall (SYS_execve, "/bin/true", NULL, NULL)),
    TRY (syscall (SYS_execveat, AT_FDCWD, "/bin/true", NULL, NULL, 0)),
    TRY (unshare (CLONE_NEWUSER)),
    TRY (syscall (SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0)),
    TRY (syscall (SYS_clone3, NULL, 0)),
    TRY (syscall (SYS_ptrace, 0, 0, 0, 0)),
    TRY (mount ("none", "/tmp", "tmpfs", 0, NULL)),
    TRY (chmod ("/", 0700)),
    TRY (chown ("/", 0, 0)),
    TRY (rename ("/tmp/a", "/tmp/b")),
    TRY (mkdir ("/tmp/domybs-test-sandbox", 0700)),
    TRY (link ("/tmp/a", "/tmp/b")),
    TRY (syscall (SYS_bpf, 0, 0, 0)),
    TRY (syscall (SYS_io_uring_setup, 0, 0)),
    TRY (syscall (SYS_process_vm_writev, 0, 0, 0, 0, 0, 0)),
    TRY (syscall (SYS_setuid, 0)),
    TRY (syscall (SYS_reboot, 0, 0, 0, 0)),
#undef TRY
  };
  int bad = 0;

  for (size_t i = 0; i < G_N_ELEMENTS (calls); i++)
    if (calls[i].result != ENOSYS) {
      g_printerr ("%s: errno %ld\n", calls[i].name, calls[i].result);
      bad = 1;
    }
  return bad;
}

static void
test_keeper_calls (void) {
  g_autofree char *text = NULL;

  if (!CASE_HAS_FILTERS) {
    g_test_skip ("sanitised programs have no filters");
    return;
  }
  case_expect_good (case_run (NULL, keeper_forbidden, NULL, &text), text);
}

int
main (int argc, char **argv) {
  g_test_init (&argc, &argv, NULL);
  shared = mmap (NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  g_assert_true (shared != MAP_FAILED);
  g_test_add_func ("/sandbox/calls/keeper", test_keeper_calls);
  g_test_add_func ("/sandbox/calls/worker", test_worker_calls);
  g_test_add_func ("/sandbox/calls/worker-arguments", test_worker_arguments);
  g_test_add_func ("/sandbox/calls/worker-abort", test_worker_abort);
  g_test_add_func ("/sandbox/calls/worker-works", test_worker_works);
  return g_test_run ();
}
