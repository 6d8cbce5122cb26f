/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Not part of the product: see io/crash-point.h. */
#include "io/crash-point.h"
#include "core/crash-point.h"
#include "io/sandbox-calls.h"

#ifndef DOMYBS_CRASH_POINTS
#error "this file is for the program that tests build with -DDOMYBS_CRASH_POINTS"
#endif

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

SANDBOX_CALLS (SANDBOX_CALL (kill));

static struct crash_file *file; /* NULL: no test wants anything */
static uint8_t *nonces;         /* NULL: nobody counts them */
static gboolean armed;

void
crash_points_init (void) {
  const char *path = g_getenv (CRASH_FILE_ENV);
  struct stat st;
  void *memory;

  if (!path)
    return;
  if (fcntl (CRASH_FILE_FD, F_GETFD) < 0) { /* not inherited: we are the first */
    const int fd = open (path, O_RDWR | O_CLOEXEC);

    if (fd < 0 || dup2 (fd, CRASH_FILE_FD) < 0)
      g_error ("%s=%s: %s", CRASH_FILE_ENV, path, g_strerror (errno));
    close (fd);
  }
  if (fstat (CRASH_FILE_FD, &st) < 0)
    g_error ("%s=%s: %s", CRASH_FILE_ENV, path, g_strerror (errno));
  memory = mmap (NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, CRASH_FILE_FD, 0);
  if (memory == MAP_FAILED)
    g_error ("%s=%s: can't map it: %s", CRASH_FILE_ENV, path, g_strerror (errno));
  file = memory;
  if (st.st_size == (off_t)CRASH_FILE_BYTES_WITH_NONCES)
    nonces = (uint8_t *)memory + CRASH_NONCES_AT;
}

void
crash_points_inherit (void) {
  if (file)
    fcntl (CRASH_FILE_FD, F_SETFD, 0);
}

void
crash_points_arm (void) {
  armed = TRUE;
}

void
crash_point (const char *name) {
  uint64_t crashes, left;

  if (!armed || !file)
    return;
  __atomic_add_fetch (&file->passed, 1, __ATOMIC_SEQ_CST);
  crashes = __atomic_load_n (&file->crashes, __ATOMIC_SEQ_CST);
  if (file->only[0] && strncmp (file->only, name, sizeof file->only) != 0)
    return;
  if (crashes >= CRASHES_MAX)
    return;
  left = __atomic_load_n (&file->countdown[crashes], __ATOMIC_SEQ_CST);
  if (left == 0)
    return;
  __atomic_store_n (&file->countdown[crashes], left - 1, __ATOMIC_SEQ_CST);
  if (left > 1)
    return;
  memset (file->last, 0, sizeof file->last);
  strncpy (file->last, name, sizeof file->last - 1);
  __atomic_store_n (&file->crashes, crashes + 1, __ATOMIC_SEQ_CST);
  syscall (SYS_kill, getpid (), SIGKILL);
  for (;;)
    __builtin_trap (); /* a sandbox that forbids kill must not make the point pass */
}

void
crash_nonce (uint32_t device, uint64_t version) {
  const uint8_t bit = (uint8_t)(1u << (version % 8));

  if (!nonces)
    return;
  if (device >= CRASH_NONCE_DEVICES || version >= CRASH_NONCE_VERSIONS) {
    __atomic_add_fetch (&file->nonces_out_of_range, 1, __ATOMIC_SEQ_CST);
    return;
  }
  __atomic_add_fetch (&file->nonces, 1, __ATOMIC_SEQ_CST);
  if (__atomic_fetch_or (&nonces[(device * CRASH_NONCE_VERSIONS + version) / 8], bit, __ATOMIC_SEQ_CST) & bit)
    __atomic_add_fetch (&file->nonces_again, 1, __ATOMIC_SEQ_CST);
}
