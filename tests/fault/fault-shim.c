/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Preloaded into a back-end: see fault.h. x86-64 and arm64 have no other names for these functions than the two of each here. */
#undef _FILE_OFFSET_BITS /* with it the headers rename what is defined here */
#undef _FORTIFY_SOURCE

#include "fault.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

/* The C library's own names, for those who stand before it. */
extern void *__libc_malloc (size_t n);
extern void *__libc_calloc (size_t n, size_t each);
extern void *__libc_realloc (void *old, size_t n);
extern void *__libc_memalign (size_t alignment, size_t n);

static struct fault_file *file; /* NULL: not set up, and nothing fails */
static enum fault_process self;
static uint64_t random_state;

/* ---- setting up ---- */

static void __attribute__ ((constructor))
set_up (int argc, char **argv) {
  const char *path = getenv (FAULT_FILE_ENV);
  void *memory;

  if (!path)
    return;
  for (int i = 1; i < argc; i++)
    if (strncmp (argv[i], "--worker=", 9) == 0)
      self = FAULT_WORKER;
  if (self == FAULT_KEEPER) {
    const int fd = (int)syscall (SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC);

    if (fd < 0 || syscall (SYS_dup3, fd, FAULT_FILE_FD, O_CLOEXEC) < 0)
      abort ();
    close (fd);
  }
  memory = (void *)syscall (SYS_mmap, NULL, sizeof *file, PROT_READ | PROT_WRITE, MAP_SHARED, FAULT_FILE_FD, 0);
  if (memory == MAP_FAILED)
    abort ();
  random_state = (uint64_t)getpid () * 0x9e3779b97f4a7c15ull + 1;
  __atomic_add_fetch (&((struct fault_file *)memory)->loaded[self], 1, __ATOMIC_SEQ_CST);
  file = memory;
}

/* ---- which calls fail ---- */

/* Counts a call; whether it is to fail, and with what. */
static const struct fault_rule *
fails (enum fault_kind kind) {
  struct fault_rule *rule;
  uint64_t number, times;

  if (!file)
    return NULL;
  number = __atomic_fetch_add (&file->calls[self][kind], 1, __ATOMIC_SEQ_CST);
  rule = &file->rules[self][kind];
  times = __atomic_load_n (&rule->times, __ATOMIC_SEQ_CST);
  if (times == 0 || number < rule->first || number - rule->first >= times)
    return NULL;
  __atomic_add_fetch (&file->failed[self][kind], 1, __ATOMIC_SEQ_CST);
  errno = rule->error;
  return rule;
}

static bool
interrupted (void) {
  const uint32_t of_1024 = file ? __atomic_load_n (&file->interrupts[self], __ATOMIC_SEQ_CST) : 0;

  if (of_1024 == 0)
    return false;
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  if ((random_state >> 20) % 1024 >= of_1024)
    return false;
  __atomic_add_fetch (&file->interrupted[self], 1, __ATOMIC_SEQ_CST);
  errno = EINTR;
  return true;
}

/* ---- memory ---- */

void *
malloc (size_t n) {
  return fails (FAULT_ALLOC) ? NULL : __libc_malloc (n);
}

void *
calloc (size_t n, size_t each) {
  return fails (FAULT_ALLOC) ? NULL : __libc_calloc (n, each);
}

void *
realloc (void *old, size_t n) {
  return fails (FAULT_ALLOC) ? NULL : __libc_realloc (old, n);
}

void *
memalign (size_t alignment, size_t n) {
  return fails (FAULT_ALLOC) ? NULL : __libc_memalign (alignment, n);
}

void *
aligned_alloc (size_t alignment, size_t n) {
  return memalign (alignment, n);
}

int
posix_memalign (void **ret, size_t alignment, size_t n) {
  void *memory = memalign (alignment, n);

  if (!memory)
    return ENOMEM;
  *ret = memory;
  return 0;
}

void *
mmap (void *address, size_t bytes, int protection, int flags, int fd, off_t offset) {
  if (fails (FAULT_MAP))
    return MAP_FAILED;
  return (void *)syscall (SYS_mmap, address, bytes, protection, flags, fd, offset);
}

void *
mmap64 (void *address, size_t bytes, int protection, int flags, int fd, off64_t offset) {
  return mmap (address, bytes, protection, flags, fd, offset);
}

int
madvise (void *address, size_t bytes, int advice) {
  const struct fault_rule *rule = advice == MADV_POPULATE_WRITE ? fails (FAULT_POPULATE) : NULL;

  if (rule) {
    const size_t some = bytes * rule->percent / 100 & ~(size_t)4095;

    if (some)
      syscall (SYS_madvise, address, some, advice);
    errno = rule->error;
    return -1;
  }
  if (advice == MADV_POPULATE_WRITE && interrupted ())
    return -1;
  return (int)syscall (SYS_madvise, address, bytes, advice);
}

int
fallocate (int fd, int mode, off_t offset, off_t bytes) {
  const struct fault_rule *rule = fails (mode & FALLOC_FL_PUNCH_HOLE ? FAULT_PUNCH : FAULT_FALLOCATE);

  if (rule) {
    const off_t some = bytes * rule->percent / 100 & ~(off_t)4095;

    if (some && !(mode & FALLOC_FL_PUNCH_HOLE))
      syscall (SYS_fallocate, fd, mode, offset, some);
    errno = rule->error;
    return -1;
  }
  if (interrupted ())
    return -1;
  return (int)syscall (SYS_fallocate, fd, mode, offset, bytes);
}

int
fallocate64 (int fd, int mode, off64_t offset, off64_t bytes) {
  return fallocate (fd, mode, offset, bytes);
}

/* ---- descriptors ---- */

#define MODE_OF(flags) \
  mode_t mode = 0; \
  if ((flags) & (O_CREAT | O_TMPFILE)) { \
    va_list args; \
    va_start (args, flags); \
    mode = va_arg (args, mode_t); \
    va_end (args); \
  }

int
open (const char *path, int flags, ...) {
  MODE_OF (flags)
  return fails (FAULT_DESCRIPTOR) ? -1 : (int)syscall (SYS_openat, AT_FDCWD, path, flags, mode);
}

int
open64 (const char *path, int flags, ...) {
  MODE_OF (flags)
  return fails (FAULT_DESCRIPTOR) ? -1 : (int)syscall (SYS_openat, AT_FDCWD, path, flags, mode);
}

int
openat (int folder, const char *path, int flags, ...) {
  MODE_OF (flags)
  return fails (FAULT_DESCRIPTOR) ? -1 : (int)syscall (SYS_openat, folder, path, flags, mode);
}

int
openat64 (int folder, const char *path, int flags, ...) {
  MODE_OF (flags)
  return fails (FAULT_DESCRIPTOR) ? -1 : (int)syscall (SYS_openat, folder, path, flags, mode);
}

int
memfd_create (const char *name, unsigned flags) {
  return fails (FAULT_DESCRIPTOR) ? -1 : (int)syscall (SYS_memfd_create, name, flags);
}

int
dup (int fd) {
  return fails (FAULT_DESCRIPTOR) ? -1 : (int)syscall (SYS_dup, fd);
}

int
eventfd (unsigned value, int flags) {
  return fails (FAULT_DESCRIPTOR) ? -1 : (int)syscall (SYS_eventfd2, value, flags);
}

int
socket (int domain, int type, int protocol) {
  return fails (FAULT_DESCRIPTOR) ? -1 : (int)syscall (SYS_socket, domain, type, protocol);
}

int
socketpair (int domain, int type, int protocol, int pair[2]) {
  return fails (FAULT_DESCRIPTOR) ? -1 : (int)syscall (SYS_socketpair, domain, type, protocol, pair);
}

int
accept4 (int fd, struct sockaddr *address, socklen_t *length, int flags) {
  return fails (FAULT_DESCRIPTOR) || interrupted () ? -1 : (int)syscall (SYS_accept4, fd, address, length, flags);
}

int
fcntl (int fd, int command, ...) {
  va_list args;
  long argument;

  va_start (args, command);
  argument = va_arg (args, long);
  va_end (args);
  if ((command == F_DUPFD || command == F_DUPFD_CLOEXEC) && fails (FAULT_DESCRIPTOR))
    return -1;
  return (int)syscall (SYS_fcntl, fd, command, argument);
}

int
fcntl64 (int fd, int command, ...) {
  va_list args;
  long argument;

  va_start (args, command);
  argument = va_arg (args, long);
  va_end (args);
  return fcntl (fd, command, argument);
}

/* ---- processes ---- */

pid_t
fork (void) {
  pid_t (*next) (void);

  if (fails (FAULT_FORK))
    return -1;
  *(void **)&next = dlsym (RTLD_NEXT, "fork");
  return next ();
}

/* The keeper lets nothing through to a worker. */
int
execveat (int fd, const char *path, char *const argv[], char *const envp[], int flags) {
  if (file)
    syscall (SYS_fcntl, FAULT_FILE_FD, F_SETFD, 0);
  return (int)syscall (SYS_execveat, fd, path, argv, envp, flags);
}

/* ---- what may be interrupted ---- */

int
poll (struct pollfd *fds, nfds_t n, int timeout_ms) {
  const struct timespec timeout = { timeout_ms / 1000, timeout_ms % 1000 * 1000000L };

  if (timeout_ms != 0 && interrupted ()) /* it waits */
    return -1;
#ifdef SYS_poll
  (void)timeout;
  return (int)syscall (SYS_poll, fds, n, timeout_ms);
#else
  return (int)syscall (SYS_ppoll, fds, n, timeout_ms < 0 ? NULL : &timeout, NULL, 0);
#endif
}

ssize_t
read (int fd, void *bytes, size_t n) {
  return interrupted () ? -1 : syscall (SYS_read, fd, bytes, n);
}

/* Not of the eight bytes for an eventfd: who writes them has polled before, and does not wait. */
ssize_t
write (int fd, const void *bytes, size_t n) {
  return n != sizeof (uint64_t) && interrupted () ? -1 : syscall (SYS_write, fd, bytes, n);
}

ssize_t
writev (int fd, const struct iovec *parts, int n) {
  return interrupted () ? -1 : syscall (SYS_writev, fd, parts, n);
}

ssize_t
recv (int fd, void *bytes, size_t n, int flags) {
  return interrupted () ? -1 : syscall (SYS_recvfrom, fd, bytes, n, flags, NULL, NULL);
}

ssize_t
send (int fd, const void *bytes, size_t n, int flags) {
  return interrupted () ? -1 : syscall (SYS_sendto, fd, bytes, n, flags, NULL, 0);
}

ssize_t
recvmsg (int fd, struct msghdr *message, int flags) {
  return interrupted () ? -1 : syscall (SYS_recvmsg, fd, message, flags);
}

ssize_t
sendmsg (int fd, const struct msghdr *message, int flags) {
  return interrupted () ? -1 : syscall (SYS_sendmsg, fd, message, flags);
}

pid_t
waitpid (pid_t pid, int *status, int flags) {
  return !(flags & WNOHANG) && interrupted () ? -1 : (pid_t)syscall (SYS_wait4, pid, status, flags, NULL);
}
