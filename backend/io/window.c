/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "io/window.h"
#include "io/error.h"
#include "io/sandbox-calls.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

SANDBOX_CALLS (SANDBOX_CALL (memfd_create), SANDBOX_CALL (ftruncate), SANDBOX_CALL (fallocate),
               SANDBOX_CALL_IF (fcntl, 1, ~0u, F_ADD_SEALS));

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

struct Window {
  int fd;
  uint64_t bytes;
  uint8_t *address; /* our own mapping, for populating only */
  struct stat st;   /* identity */
};

static gboolean
set_up (Window *window, GError **error) {
  window->address = mmap (NULL, window->bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, window->fd, 0);
  if (window->address == MAP_FAILED) {
    domybs_error_errno (error, "can't map the window of %" G_GUINT64_FORMAT " bytes", window->bytes);
    return FALSE;
  }
  madvise (window->address, window->bytes, MADV_DONTDUMP);
  madvise (window->address, window->bytes, MADV_HUGEPAGE); /* fails where shmem huge pages are off: 4 KiB pages then */
  return TRUE;
}

Window *
window_new (uint64_t n_blocks, GError **error) {
  g_autoptr (Window) window = g_new0 (Window, 1);

  window->bytes = n_blocks << DOMYBS_BLOCK_SHIFT;
  window->address = MAP_FAILED;
  window->fd = memfd_create ("domybs-window", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (window->fd < 0) {
    domybs_error_errno (error, "can't create the window's memfd");
    return NULL;
  }
  if (ftruncate (window->fd, (off_t)window->bytes) < 0
      || fcntl (window->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0 || fstat (window->fd, &window->st) < 0) {
    domybs_error_errno (error, "can't set up the window's memfd of %" G_GUINT64_FORMAT " bytes", window->bytes);
    return NULL;
  }
  return set_up (window, error) ? g_steal_pointer (&window) : NULL;
}

Window *
window_from_fd (int fd, uint64_t n_blocks, GError **error) {
  g_autoptr (Window) window = g_new0 (Window, 1);

  window->bytes = n_blocks << DOMYBS_BLOCK_SHIFT;
  window->address = MAP_FAILED;
  window->fd = fd;
  if (fstat (fd, &window->st) < 0 || (uint64_t)window->st.st_size != window->bytes) {
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_CORRUPT, "what should be a window of %" G_GUINT64_FORMAT " bytes has %" G_GINT64_FORMAT,
                 window->bytes, (gint64)window->st.st_size);
    return NULL;
  }
  return set_up (window, error) ? g_steal_pointer (&window) : NULL;
}

void
window_free (Window *window) {
  if (window->address != MAP_FAILED)
    munmap (window->address, window->bytes);
  if (window->fd >= 0)
    close (window->fd);
  g_free (window);
}

int
window_fd (const Window *window) {
  return window->fd;
}

uint64_t
window_map_bytes (const Window *window) {
  return window->bytes - 4096;
}

gboolean
window_is (const Window *window, const struct stat *st) {
  return st->st_dev == window->st.st_dev && st->st_ino == window->st.st_ino;
}

static off_t
run_start (const struct block_run *run) {
  return (off_t)(run->start << DOMYBS_BLOCK_SHIFT);
}

static off_t
run_bytes (const struct block_run *run) {
  return (off_t)(run->count << DOMYBS_BLOCK_SHIFT);
}

static gboolean
punch (Window *window, off_t start, off_t bytes) {
  int result;

  do
    result = fallocate (window->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, start, bytes);
  while (result < 0 && errno == EINTR);
  return result == 0;
}

gboolean
window_populate (Window *window, const struct block_run *run, GError **error) {
  int result;

  /* Populating through a mapping gives huge pages under shmem_enabled=advise; fallocate would not (it has no mapping whose
   * advice counts). It needs Linux 5.14. */
  do
    result = madvise (window->address + run_start (run), (size_t)run_bytes (run), MADV_POPULATE_WRITE);
  while (result < 0 && (errno == EINTR || errno == EAGAIN));
  if (result < 0 && errno == EINVAL)
    do
      result = fallocate (window->fd, 0, run_start (run), run_bytes (run));
    while (result < 0 && errno == EINTR);
  if (result < 0) {
    domybs_error_errno (error, "can't populate %" G_GUINT64_FORMAT " blocks from block %" G_GUINT64_FORMAT " on", run->count,
                        run->start);
    return FALSE;
  }
  return TRUE;
}

gboolean
window_punch (Window *window, const struct block_run *run, GError **error) {
  if (!punch (window, run_start (run), run_bytes (run))) {
    domybs_error_errno (error, "can't punch %" G_GUINT64_FORMAT " blocks from block %" G_GUINT64_FORMAT " on", run->count,
                        run->start);
    return FALSE;
  }
  return TRUE;
}

uint64_t
window_bytes (const Window *window) {
  struct stat st;

  return fstat (window->fd, &st) < 0 ? 0 : (uint64_t)st.st_blocks * 512;
}

/* Memory that somebody fallocated and nobody wrote to is a hole to SEEK_DATA, but it costs all the same. It shows as more memory than
 * the grants could take; below that it is within what the VM may have. */
static uint64_t
punch_unwritten (Window *window, const struct regions *regions, gboolean *all) {
  const uint64_t before = window_bytes (window);
  uint64_t cursor = 0, after;
  struct block_run run;

  if (before <= regions->granted << DOMYBS_BLOCK_SHIFT)
    return 0;
  while (regions_next_run (regions, false, &cursor, &run))
    *all &= punch (window, run_start (&run), run_bytes (&run));
  after = window_bytes (window);
  return before > after ? before - after : 0;
}

uint64_t
window_audit (Window *window, const struct regions *regions, gboolean *ret_all) {
  uint64_t cursor = 0, punched = 0;
  struct block_run run;

  *ret_all = TRUE;
  while (regions_next_run (regions, false, &cursor, &run)) {
    const off_t end = run_start (&run) + run_bytes (&run);
    off_t at = run_start (&run);

    while (at < end) {
      const off_t data = lseek (window->fd, at, SEEK_DATA);
      off_t hole;

      if (data < 0 || data >= end)
        break;
      hole = lseek (window->fd, data, SEEK_HOLE);
      if (hole < 0 || hole > end)
        hole = end;
      if (!punch (window, data, hole - data)) {
        *ret_all = FALSE; /* the next audit tries again */
        break;
      }
      punched += (uint64_t)(hole - data);
      at = hole;
    }
  }
  return punched + punch_unwritten (window, regions, ret_all);
}
