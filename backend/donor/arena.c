/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "donor/arena.h"
#include "io/error.h"
#include "io/sandbox-calls.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

SANDBOX_CALLS (SANDBOX_CALL_IF (fallocate, 1, ~0u, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE));
/* before a worker's sandbox */
SANDBOX_KEEPER_CALLS (SANDBOX_CALL (mlock2), SANDBOX_CALL_IF (fcntl, 1, ~0u, F_GET_SEALS));

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW)

struct Arena {
  int fd;
  guint64 n_blocks;
  guint8 *address;
  gboolean locked;
};

int
arena_create (guint64 n_blocks, GError **error) {
  const int fd = memfd_create ("domybs-arena", MFD_CLOEXEC | MFD_ALLOW_SEALING);

  if (fd >= 0 && ftruncate (fd, (off_t)(n_blocks * ARENA_BLOCK_BYTES)) == 0 && fcntl (fd, F_ADD_SEALS, SEALS) == 0)
    return fd;
  domybs_error_errno (error, "can't make an arena of %" G_GUINT64_FORMAT " MiB", n_blocks * (ARENA_BLOCK_BYTES >> 20));
  if (fd >= 0)
    close (fd);
  return -1;
}

/* At a multiple of 2 MiB, so that huge pages fit; the kernel does that by itself from 6.7 on. */
static void *
map_aligned (int fd, gsize bytes) {
  guint8 *const place = mmap (NULL, bytes + ARENA_BLOCK_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  guint8 *start;

  if (place == MAP_FAILED)
    return MAP_FAILED;
  start = place + (ARENA_BLOCK_BYTES - (guintptr)place % ARENA_BLOCK_BYTES) % ARENA_BLOCK_BYTES;
  if (start > place)
    munmap (place, (gsize)(start - place));
  munmap (start + bytes, ARENA_BLOCK_BYTES - (gsize)(start - place));
  return mmap (start, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
}

Arena *
arena_open (int fd, guint64 n_blocks, gboolean lock, GError **error) {
  g_autoptr (Arena) arena = g_new0 (Arena, 1);
  const gsize bytes = n_blocks * ARENA_BLOCK_BYTES;
  const int seals = fcntl (fd, F_GET_SEALS);
  struct stat st;

  arena->fd = fd;
  arena->n_blocks = n_blocks;
  arena->address = MAP_FAILED;
  if (fstat (fd, &st) < 0 || (guint64)st.st_size != bytes || seals < 0 || (seals & SEALS) != SEALS) {
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_CORRUPT,
                 "what the keeper gave as descriptor %d is no arena of %" G_GUINT64_FORMAT " blocks", fd, n_blocks);
    return NULL;
  }
  arena->address = map_aligned (fd, bytes);
  if (arena->address == MAP_FAILED) {
    domybs_error_errno (error, "can't map an arena of %" G_GSIZE_FORMAT " MiB", bytes >> 20);
    return NULL;
  }
  if (madvise (arena->address, bytes, MADV_HUGEPAGE) < 0)
    g_debug ("arena: %s", g_strerror (errno)); /* a kernel without huge pages */
  if (madvise (arena->address, bytes, MADV_DONTDUMP) < 0)
    g_debug ("arena: %s", g_strerror (errno));
  arena->locked = lock && mlock2 (arena->address, bytes, MLOCK_ONFAULT) == 0;
  if (lock && !arena->locked)
    g_message ("the arena can't be locked in memory, so it may have to wait for the host's swap: %s; raise the limit (ulimit "
               "-l, LimitMEMLOCK=)",
               g_strerror (errno));
  return g_steal_pointer (&arena);
}

void
arena_free (Arena *arena) {
  if (arena->address != MAP_FAILED)
    munmap (arena->address, arena->n_blocks * ARENA_BLOCK_BYTES);
  close (arena->fd);
  g_free (arena);
}

guint8 *
arena_block (const Arena *arena, guint64 block) {
  return arena->address + block * ARENA_BLOCK_BYTES;
}

/* By a call, which can fail, not by a touch, which would be the end of this process. Kernels before 5.14 have none: there the
 * touch it is. */
gboolean
arena_fill (Arena *arena, guint64 block) {
  int result;

  do
    result = madvise (arena_block (arena, block), ARENA_BLOCK_BYTES, MADV_POPULATE_WRITE);
  while (result < 0 && (errno == EINTR || errno == EAGAIN));
  return result == 0 || errno == EINVAL;
}

gboolean
arena_clear (Arena *arena, guint64 block) {
  int result;

  do
    result = fallocate (arena->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(block * ARENA_BLOCK_BYTES),
                        ARENA_BLOCK_BYTES);
  while (result < 0 && errno == EINTR);
  return result == 0;
}

guint64
arena_bytes (const Arena *arena) {
  struct stat st;

  return fstat (arena->fd, &st) < 0 ? 0 : (guint64)st.st_blocks * 512;
}

gboolean
arena_is_locked (const Arena *arena) {
  return arena->locked;
}
