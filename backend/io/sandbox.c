/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "io/sandbox.h"
#include "io/error.h"
#include "io/sandbox-calls.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <locale.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* Sanitisers make system calls of their own, map terabytes, and read files when they report: there, privileges go, but no
 * call is forbidden and nothing is locked in memory. */
#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
#define SANITIZED 1
#elif defined __has_feature
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

#define WORKER_USER "domybs"
#define NOBODY 65534

/* Descriptors of the keeper, and of a worker: 64 slots, 16 clients, and what a program has besides. */
#define FILES_MAX 1024
/* What is locked counts when the stack grows: with a limit that is too low that would be a SIGSEGV. */
#define LOCKED_BYTES_MIN ((rlim_t)64 << 20)

/* ---- system calls that no module names ---- */

/* What any process here needs: memory, its own end, waiting, and the log on stderr. GLib's main loop polls and wakes itself
 * up. */
SANDBOX_CALLS (
  SANDBOX_CALL (brk), SANDBOX_CALL_IF (mmap, 2, PROT_EXEC, 0), SANDBOX_CALL_IF (mprotect, 2, PROT_EXEC, 0),
  SANDBOX_CALL (mremap), SANDBOX_CALL (munmap), SANDBOX_CALL (madvise), SANDBOX_CALL (getrandom), SANDBOX_CALL (futex),
  SANDBOX_CALL (exit), SANDBOX_CALL (exit_group), SANDBOX_CALL (rt_sigaction), SANDBOX_CALL (rt_sigprocmask),
  SANDBOX_CALL (rt_sigreturn), SANDBOX_CALL (restart_syscall), SANDBOX_CALL (sched_yield), SANDBOX_CALL (clock_gettime),
  SANDBOX_CALL (gettimeofday), SANDBOX_CALL (getpid), SANDBOX_CALL (gettid), SANDBOX_CALL (geteuid), SANDBOX_CALL (poll),
  SANDBOX_CALL (ppoll), SANDBOX_CALL (read), SANDBOX_CALL (write), SANDBOX_CALL (writev), SANDBOX_CALL (close),
  SANDBOX_CALL (fstat), SANDBOX_CALL (newfstatat), SANDBOX_CALL (statx), SANDBOX_CALL (lseek));

/* What a program calls on its way to main and to sandbox_worker. Files are opened to be read only. */
SANDBOX_KEEPER_CALLS (
  /* the loader, the C library */
  SANDBOX_CALL (mmap), SANDBOX_CALL (mprotect), SANDBOX_CALL (access), SANDBOX_CALL (faccessat), SANDBOX_CALL (faccessat2),
  SANDBOX_CALL_IF (openat, 2, O_ACCMODE | O_CREAT | O_TRUNC, O_RDONLY),
  SANDBOX_CALL_IF (open, 1, O_ACCMODE | O_CREAT | O_TRUNC, O_RDONLY), SANDBOX_CALL (pread64), SANDBOX_CALL (readlink),
  SANDBOX_CALL (readlinkat), SANDBOX_CALL (stat), SANDBOX_CALL (lstat), SANDBOX_CALL (getdents64),
  SANDBOX_CALL (fadvise64), SANDBOX_CALL (statfs), SANDBOX_CALL (fstatfs), SANDBOX_CALL (arch_prctl),
  SANDBOX_CALL (set_tid_address), SANDBOX_CALL (set_robust_list), SANDBOX_CALL (rseq), SANDBOX_CALL (prlimit64),
  SANDBOX_CALL (getrlimit), SANDBOX_CALL (setrlimit), SANDBOX_CALL (sysinfo), SANDBOX_CALL (uname), SANDBOX_CALL (getcwd),
  SANDBOX_CALL (sched_getaffinity), SANDBOX_CALL (getuid), SANDBOX_CALL (getgid), SANDBOX_CALL (getegid),
  SANDBOX_CALL (getppid), SANDBOX_CALL (getcpu), SANDBOX_CALL (time), SANDBOX_CALL (clock_getres),
  SANDBOX_CALL (sigaltstack), SANDBOX_CALL (ioctl), SANDBOX_CALL (eventfd2), SANDBOX_CALL (fcntl), SANDBOX_CALL (dup),
  SANDBOX_CALL (dup2), SANDBOX_CALL (dup3), SANDBOX_CALL (umask),
  /* sandbox_become_worker, sandbox_worker */
  SANDBOX_CALL (setgroups), SANDBOX_CALL (setresgid), SANDBOX_CALL (setresuid), SANDBOX_CALL (getresuid),
  SANDBOX_CALL (getresgid), SANDBOX_CALL (prctl), SANDBOX_CALL (seccomp),
  /* an end with the right signal; a worker's filter looks at whom it is for */
  SANDBOX_CALL (tgkill));

extern const struct sandbox_call *const __start_sandbox_calls[], *const __stop_sandbox_calls[];
extern const struct sandbox_call *const __start_sandbox_keeper_calls[], *const __stop_sandbox_keeper_calls[];

/* What a program has asked for its workers. */
static struct {
  rlim_t lock_bytes;
  gboolean kernel_threads;
  const struct sandbox_call *lists[SANDBOX_LISTS_MAX];
  unsigned n_lists;
} let;

/* ---- filters ---- */

static gboolean
failed (GError **error, int code, const char *what) {
  errno = code;
  domybs_error_errno (error, "can't shut itself into its sandbox: %s", what);
  return FALSE;
}

static int
allow (scmp_filter_ctx filter, const struct sandbox_call *const *from, const struct sandbox_call *const *to) {
  for (; from < to; from++)
    for (const struct sandbox_call *c = *from; c->call != INT_MIN; c++) {
      const struct scmp_arg_cmp compare = { (unsigned)c->argument, SCMP_CMP_MASKED_EQ, c->mask, c->value };
      const int result = seccomp_rule_add_array (filter, SCMP_ACT_ALLOW, c->call, c->argument < 0 ? 0 : 1, &compare);

      /* this machine has no such call; or another list has it already */
      if (result < 0 && result != -EDOM && result != -EEXIST)
        return result;
    }
  return 0;
}

/* Calls that were invented after this filter: to a C library of tomorrow they have to look missing, as they did to that of
 * today. */
#define CALLS_MAX 600
#define CALLS_TO_COME 64

static int
miss_calls_to_come (scmp_filter_ctx filter) {
  int newest = CALLS_MAX, result = 0;
  char *name = NULL;

  while (newest > 0 && !(name = seccomp_syscall_resolve_num_arch (SCMP_ARCH_NATIVE, newest)))
    newest--;
  free (name);
  for (int call = newest + 1; call <= newest + CALLS_TO_COME && result == 0; call++)
    result = seccomp_rule_add (filter, SCMP_ACT_ERRNO (ENOSYS), call, 0);
  return result;
}

/* Programs of other architectures' calls are ended by either filter. What is forbidden is in the kernel's log. */
static int
load (gboolean worker) {
  const scmp_filter_ctx filter = seccomp_init (worker ? SCMP_ACT_KILL_PROCESS : SCMP_ACT_ERRNO (ENOSYS));
  /* Its own end, with the right signal: abort() */
  const struct sandbox_call own[] = { SANDBOX_CALL_IF (tgkill, 0, UINT32_MAX, (uint64_t)getpid ()), { INT_MIN, -1, 0, 0 } };
  const struct sandbox_call *const own_list = own;
  int result;

  if (!filter)
    return -ENOMEM;
  result = seccomp_attr_set (filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
  if (result == 0)
    result = seccomp_attr_set (filter, SCMP_FLTATR_CTL_TSYNC, 1);
  seccomp_attr_set (filter, SCMP_FLTATR_CTL_LOG, 1);
  seccomp_attr_set (filter, SCMP_FLTATR_CTL_OPTIMIZE, 2); /* looked up by halves; both only where the library can */
  if (result == 0)
    result = allow (filter, __start_sandbox_calls, __stop_sandbox_calls);
  if (result == 0 && worker)
    result = allow (filter, let.lists, let.lists + let.n_lists);
  if (result == 0)
    result = worker ? allow (filter, &own_list, &own_list + 1)
                    : allow (filter, __start_sandbox_keeper_calls, __stop_sandbox_keeper_calls);
  if (result == 0 && worker)
    result = miss_calls_to_come (filter);
  if (result == 0)
    result = seccomp_load (filter);
  seccomp_release (filter);
  return result;
}

/* ---- keeper: users and privileges ---- */

/* Who workers are. */
static struct {
  gboolean other; /* than the keeper */
  uid_t uid;
  gid_t gid;
} worker_user;

/* From the file itself: a host's user database may be a network away, and system users are in the file. */
static void
find_worker_user (void) {
  FILE *file = fopen ("/etc/passwd", "re");
  const struct passwd *user = NULL;

  worker_user.uid = worker_user.gid = NOBODY;
  while (file && (user = fgetpwent (file)))
    if (strcmp (user->pw_name, WORKER_USER) == 0 && user->pw_uid != 0) {
      worker_user.uid = user->pw_uid;
      worker_user.gid = user->pw_gid;
      break;
    }
  if (file)
    fclose (file);
}

/* Tried by a child: in a container that has one user only there is nobody else to be. */
static int
try_worker_user (void) {
  const pid_t child = fork ();
  int status;

  if (child < 0)
    return errno;
  if (child == 0)
    _exit (sandbox_become_worker () & 0x7f);
  while (waitpid (child, &status, 0) < 0)
    if (errno != EINTR)
      return errno;
  return WIFEXITED (status) ? WEXITSTATUS (status) : ECANCELED;
}

static int
get_capabilities (struct __user_cap_data_struct *data) {
  struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };

  return syscall (SYS_capget, &header, data) < 0 ? errno : 0;
}

static gboolean
have_capability (unsigned capability) {
  struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];

  return get_capabilities (data) == 0 && (data[0].effective & (1u << capability));
}

/* kept: a set of bits. */
static int
drop_capabilities (uint32_t kept) {
  struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
  struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];
  int failure;

  /* Nothing that it starts shall ever get one back. May fail without CAP_SETPCAP; then no_new_privs does the same. */
  for (unsigned long capability = 0; prctl (PR_CAPBSET_READ, capability, 0, 0, 0) >= 0; capability++)
    prctl (PR_CAPBSET_DROP, capability, 0, 0, 0);
  prctl (PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  failure = get_capabilities (data);
  if (failure)
    return failure;
  data[0].permitted = data[0].effective = data[0].permitted & kept;
  data[1].permitted = data[1].effective = 0;
  data[0].inheritable = data[1].inheritable = 0;
  return syscall (SYS_capset, &header, data) < 0 ? errno : 0;
}

/* ---- keeper: memory ---- */

/* As far as it may. FALSE: the limit stays too low for a process without CAP_IPC_LOCK. */
static gboolean
raise_lock_limit (void) {
  struct rlimit limit = { RLIM_INFINITY, RLIM_INFINITY };

  if (setrlimit (RLIMIT_MEMLOCK, &limit) == 0)
    return TRUE;
  if (getrlimit (RLIMIT_MEMLOCK, &limit) < 0)
    return FALSE;
  limit.rlim_cur = limit.rlim_max;
  return setrlimit (RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur >= LOCKED_BYTES_MIN;
}

/* Files that only workers use: libraries that a keeper never calls, with tables of tens of MB, and locales, which on hosts that have all
 * of them are 200 MB. */
static gboolean
is_for_workers (const char *path) {
  static const char *const for_keepers[]
    = { "ld-linux", "ld-musl", "libc.", "libc-", "libglib-2", "libgobject-2", "libgio-2", "libjson-glib", "libseccomp" };
  const char *name = strrchr (path, '/') + 1;

  if (g_str_has_prefix (path, "/usr/lib/locale/"))
    return TRUE;
  if (!strstr (name, ".so"))
    return FALSE;
  for (unsigned i = 0; i < G_N_ELEMENTS (for_keepers); i++)
    if (g_str_has_prefix (name, for_keepers[i]))
      return FALSE;
  return TRUE;
}

/* Locks what is mapped, and all that will be. */
static gboolean
lock_memory (void) {
  FILE *maps = fopen ("/proc/self/maps", "re");
  gboolean ok = maps && mlockall (MCL_FUTURE) == 0;
  char line[PATH_MAX + 128];

  while (ok && fgets (line, sizeof line, maps)) {
    const char *path = strchr (line, '/');
    unsigned long start, end;
    char rights[5];

    if (sscanf (line, "%lx-%lx %4s", &start, &end, rights) != 3 || rights[0] != 'r' || strstr (line, "[v")
        || (path && is_for_workers (path)))
      continue; /* guard pages, the kernel's own, and what is not ours */
    ok = mlock ((const void *)start, end - start) == 0;
  }
  if (maps)
    fclose (maps);
  if (!ok)
    munlockall ();
  return ok;
}

/* ---- public ---- */

static void
limit (__rlimit_resource_t resource, rlim_t most) {
  struct rlimit limits;

  if (getrlimit (resource, &limits) < 0)
    return;
  limits.rlim_max = MIN (limits.rlim_max, most);
  limits.rlim_cur = MIN (limits.rlim_cur, most);
  setrlimit (resource, &limits); /* to less is always allowed */
}

/* The out-of-memory killer shall take the VM rather than its back-end: without that the VM ends as well, and no memory is
 * freed. Where it is not allowed, as in a container, it is as likely a victim as others. */
static void
hide_from_oom_killer (void) {
  const int fd = open ("/proc/self/oom_score_adj", O_RDWR | O_CLOEXEC);
  char text[16] = "";

  if (fd < 0)
    return;
  if (pread (fd, text, sizeof text - 1, 0) > 0 && g_ascii_strtoll (text, NULL, 10) > -999 && write (fd, "-999", 4) < 0)
    g_debug ("oom_score_adj: %s", g_strerror (errno));
  close (fd);
}

gboolean
sandbox_keeper (GError **error) {
  const gboolean root = geteuid () == 0;
  uint32_t kept = 0;
  int failure;

  hide_from_oom_killer ();
  limit (RLIMIT_CORE, 0);
  limit (RLIMIT_NOFILE, FILES_MAX);
  /* RLIMIT_FSIZE stays: a memfd's size counts. */
  umask (077);
  if (root) {
    find_worker_user ();
    worker_user.other = TRUE;
    failure = try_worker_user ();
    if (failure) {
      g_message ("the worker runs as root, for it can't become user %u: %s", (unsigned)worker_user.uid, g_strerror (failure));
      worker_user.other = FALSE;
    }
    prctl (PR_SET_DUMPABLE, 0, 0, 0, 0); /* not for others: their tools may look at what is theirs */
  }
  if (!SANITIZED) {
    if (!raise_lock_limit ())
      kept |= 1u << CAP_IPC_LOCK;
    if ((kept && !have_capability (CAP_IPC_LOCK)) || !lock_memory ())
      g_message ("its memory can't be locked, so it may have to wait for the host's swap; "
                 "raise the limit (ulimit -l, LimitMEMLOCK=)");
  }
  if (prctl (PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
    return failed (error, errno, "no_new_privs");
  if (worker_user.other)
    kept |= (1u << CAP_KILL) | (1u << CAP_SETUID) | (1u << CAP_SETGID);
  failure = drop_capabilities (kept);
  if (failure)
    return failed (error, failure, "capabilities");
  failure = SANITIZED ? 0 : load (FALSE);
  return failure ? failed (error, -failure, "system calls of the keeper") : TRUE;
}

void
sandbox_let_worker_lock (size_t bytes) {
  let.lock_bytes = bytes;
}

void
sandbox_let_worker_call (const struct sandbox_call *list) {
  g_return_if_fail (let.n_lists < SANDBOX_LISTS_MAX);
  for (unsigned i = 0; i < let.n_lists; i++)
    if (let.lists[i] == list)
      return;
  let.lists[let.n_lists++] = list;
}

void
sandbox_let_worker_have_kernel_threads (void) {
  let.kernel_threads = TRUE;
}

int
sandbox_become_worker (void) {
  limit (RLIMIT_MEMLOCK, let.lock_bytes);
  if (!worker_user.other)
    return 0;
  if (setgroups (0, NULL) < 0 || setresgid (worker_user.gid, worker_user.gid, worker_user.gid) < 0
      || setresuid (worker_user.uid, worker_user.uid, worker_user.uid) < 0)
    return errno;
  return 0;
}

/* Other workers, of other VMs, are the same user: to them it is closed. The folder in /proc belongs to the user of the
 * process, or to root where it is closed. */
static gboolean
keeper_is_another_user (void) {
  char path[32];
  struct stat st;

  g_snprintf (path, sizeof path, "/proc/%d", (int)getppid ());
  return stat (path, &st) < 0 || st.st_uid != geteuid ();
}

gboolean
sandbox_worker (GError **error) {
  const struct rlimit none = { 0, 0 };
  int failure;

  if (geteuid () != 0 && keeper_is_another_user ())
    prctl (PR_SET_DUMPABLE, 0, 0, 0, 0);
  if (SANITIZED)
    return TRUE;
  /* Libraries open files when they need them first: translations, which this locale has none of, and tables of character
   * sets. */
  setlocale (LC_ALL, "C");
  setlocale (LC_CTYPE, "C.UTF-8");
  g_get_charset (NULL);
  if (!let.kernel_threads)
    setrlimit (RLIMIT_NPROC, &none);
  failure = load (TRUE);
  return failure ? failed (error, -failure, "system calls of a worker") : TRUE;
}
