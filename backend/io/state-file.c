/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "io/state-file.h"
#include "io/error.h"
#include "io/sandbox-calls.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* before the worker's sandbox */
SANDBOX_KEEPER_CALLS (SANDBOX_CALL (memfd_create), SANDBOX_CALL (fallocate), SANDBOX_CALL_IF (fcntl, 1, ~0u, F_ADD_SEALS),
                      SANDBOX_CALL_IF (fcntl, 1, ~0u, F_GET_SEALS));

/* Against its size changing under a mapping: a store into what is gone would be SIGBUS. */
#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW)

static void *
map (int fd, size_t bytes, int protection, GError **error) {
  void *memory = mmap (NULL, bytes, protection, MAP_SHARED, fd, 0);

  if (memory != MAP_FAILED)
    return memory;
  domybs_error_errno (error, "can't map the device's state of %" G_GSIZE_FORMAT " bytes", bytes);
  return NULL;
}

int
state_file_create (uint64_t window_blocks, struct device_state *ret_state, GError **error) {
  const size_t bytes = device_state_bytes (window_blocks);
  void *memory;
  int fd, result;

  if (bytes == 0) {
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_USAGE, "there is no state for a window of %" G_GUINT64_FORMAT " blocks",
                 window_blocks);
    return -1;
  }
  fd = memfd_create ("domybs-state", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) {
    domybs_error_errno (error, "can't create the state's memfd");
    return -1;
  }
  /* All of it now: a store that finds no memory later would be SIGBUS. */
  do
    result = fallocate (fd, 0, 0, (off_t)bytes);
  while (result < 0 && errno == EINTR);
  if (result < 0 || fcntl (fd, F_ADD_SEALS, SEALS | F_SEAL_SEAL) < 0) {
    domybs_error_errno (error, "can't set up the state's memfd of %" G_GSIZE_FORMAT " bytes", bytes);
    close (fd);
    return -1;
  }
  memory = map (fd, bytes, PROT_READ | PROT_WRITE, error);
  if (!memory) {
    close (fd);
    return -1;
  }
  device_state_create (ret_state, memory, window_blocks, DOMYBS_VERSION);
  return fd;
}

/* Why not, with both versions where it is for those: who upgrades has to know which to take. */
static void
set_refusal (const void *memory, size_t bytes, const char *why, GError **error) {
  const struct state_header *header = memory;
  const gboolean is_state = bytes >= sizeof *header && header->magic == DOMYBS_STATE_MAGIC;

  if (is_state && header->oldest_reader > DOMYBS_STATE_VERSION)
    g_set_error (
        error, DOMYBS_ERROR, DOMYBS_ERROR_USAGE,
        "the device's state has version %u, which versions from %u on can read; this program (%s) reads up to version %u",
        header->version, header->oldest_reader, DOMYBS_VERSION, DOMYBS_STATE_VERSION);
  else if (is_state && header->version && header->version < DOMYBS_STATE_OLDEST)
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_USAGE,
                 "the device's state has version %u; this program (%s) reads versions from %u on: one between them has to come first",
                 header->version, DOMYBS_VERSION, DOMYBS_STATE_OLDEST);
  else
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_CORRUPT, "can't go on from the device's state: %s", why);
}

/* Maps all of it; *ret_bytes long. */
static void *
map_sealed (int fd, int protection, size_t *ret_bytes, GError **error) {
  struct stat st;
  const int seals = fcntl (fd, F_GET_SEALS);

  if (fstat (fd, &st) < 0) {
    domybs_error_errno (error, "can't look at the device's state");
    return NULL;
  }
  if (seals < 0 || (seals & SEALS) != SEALS || st.st_size <= 0) {
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_CORRUPT, "can't go on from the device's state: it is no sealed memory file");
    return NULL;
  }
  *ret_bytes = (size_t)st.st_size;
  return map (fd, *ret_bytes, protection, error);
}

gboolean
state_file_is_ours (int fd, uint64_t window_blocks, GError **error) {
  size_t bytes;
  void *memory = map_sealed (fd, PROT_READ, &bytes, error);
  const char *why;

  if (!memory)
    return FALSE;
  why = device_state_check_header (memory, bytes, window_blocks);
  if (why)
    set_refusal (memory, bytes, why, error);
  munmap (memory, bytes);
  return why == NULL;
}

gboolean
state_file_open (int fd, uint64_t window_blocks, struct device_state *ret_state, GError **error) {
  size_t bytes;
  void *memory = map_sealed (fd, PROT_READ | PROT_WRITE, &bytes, error);
  const char *why;

  if (!memory)
    return FALSE;
  why = device_state_check (memory, bytes, window_blocks);
  if (why) {
    set_refusal (memory, bytes, why, error);
    munmap (memory, bytes);
    return FALSE;
  }
  device_state_attach (ret_state, memory);
  return TRUE;
}

void
state_file_close (struct device_state *state) {
  if (state->header)
    munmap (state->header, state->bytes);
  *state = (struct device_state){ 0 };
}
