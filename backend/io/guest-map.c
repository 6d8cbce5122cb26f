/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "io/guest-map.h"
#include "io/error.h"
#include "io/sandbox-calls.h"

#include <errno.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

SANDBOX_CALLS (SANDBOX_CALL (fstatfs), SANDBOX_CALL (nanosleep), SANDBOX_CALL (clock_nanosleep));

/* How often, and how long from one time to the next, it is tried to map when there is no memory for that. */
#define MAP_TRIES 20
#define MAP_PAUSE_US 10000

/* Read by the signal handler: `base` is set last and cleared first, so that the handler never sees half an entry. */
static struct mapping {
  _Atomic (uint8_t *) base;
  size_t bytes;
  uint8_t *address; /* what guest_map returned: base + the offset's part within a page */
  atomic_bool broken;
} mappings[GUEST_MAP_MAX];

static atomic_uint breaks;

static void
on_sigbus (int signal_number, siginfo_t *info, void *context) {
  const uint8_t *address = info->si_addr;

  for (unsigned i = 0; i < GUEST_MAP_MAX; i++) {
    uint8_t *base = atomic_load (&mappings[i].base);

    if (!base || address < base || address >= base + mappings[i].bytes)
      continue;
    /* The whole mapping, not a page: its page size may be a huge one, and nothing of it is to be trusted any more. */
    if (mmap (base, mappings[i].bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0)
        == MAP_FAILED)
      break;
    atomic_store (&mappings[i].broken, TRUE);
    atomic_fetch_add (&breaks, 1);
    return;
  }
  signal (signal_number, SIG_DFL); /* not ours: the access is repeated and ends the process as it would have */
}

gboolean
guest_map_init (GError **error) {
  struct sigaction action = { .sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_NODEFER };

  sigemptyset (&action.sa_mask);
  if (sigaction (SIGBUS, &action, NULL) < 0) {
    domybs_error_errno (error, "can't install the SIGBUS handler");
    return FALSE;
  }
  return TRUE;
}

static struct mapping *
find (const void *address) {
  for (unsigned i = 0; i < GUEST_MAP_MAX; i++)
    if (atomic_load (&mappings[i].base) && mappings[i].address == address)
      return &mappings[i];
  return NULL;
}

/* File systems that answer without another process: a fault in a FUSE or network file can wait for its server, and we with it, for
 * ever. Guests' RAM is in the first two; the others are for memory-backend-file on persistent memory. */
static gboolean
is_local_file_system (uint64_t type) {
  return type == TMPFS_MAGIC || type == HUGETLBFS_MAGIC || type == EXT4_SUPER_MAGIC || type == XFS_SUPER_MAGIC;
}

/* The front-end takes a no for the end of its device, and waits for the answer in any case: so a host that has no memory for a moment is
 * waited for. */
static void *
map_patiently (uint64_t length, int fd, uint64_t start) {
  for (int i = 1;; i++) {
    void *base = mmap (NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, (off_t)start);

    if (base != MAP_FAILED || errno != ENOMEM || i == MAP_TRIES)
      return base;
    g_usleep (MAP_PAUSE_US);
  }
}

void *
guest_map (int fd, uint64_t offset, uint64_t bytes, GError **error) {
  struct mapping *mapping = NULL;
  struct stat st;
  struct statfs fs;
  uint64_t page = (uint64_t)sysconf (_SC_PAGESIZE);
  uint64_t start, length;
  void *base;

  for (unsigned i = 0; i < GUEST_MAP_MAX && !mapping; i++)
    if (!atomic_load (&mappings[i].base))
      mapping = &mappings[i];
  if (!mapping) {
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_FAILED, "more than %d memory mappings at a time", GUEST_MAP_MAX);
    return NULL;
  }
  if (fstat (fd, &st) < 0 || fstatfs (fd, &fs) < 0) {
    domybs_error_errno (error, "can't look at a memory region's file");
    return NULL;
  }
  if (!S_ISREG (st.st_mode)) {
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_PROTOCOL, "a memory region's descriptor is not a memfd or a regular file");
    return NULL;
  }
  if (!is_local_file_system ((uint64_t)fs.f_type)) {
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_PROTOCOL,
                 "a memory region's file is on a file system (type 0x%" G_GINT64_MODIFIER "x) that may wait for others; use a memfd, "
                 "tmpfs or hugetlbfs",
                 (uint64_t)fs.f_type);
    return NULL;
  }
  /* offset + bytes was checked not to wrap (vhost-user codec); asking again costs nothing and keeps this function safe alone. */
  if (bytes == 0 || offset + bytes < offset || offset + bytes > (uint64_t)st.st_size) {
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_PROTOCOL,
                 "a memory region ends at byte %" G_GUINT64_FORMAT " of a file that has %" G_GUINT64_FORMAT, offset + bytes,
                 (uint64_t)st.st_size);
    return NULL;
  }
  if ((uint64_t)fs.f_type == HUGETLBFS_MAGIC && (uint64_t)fs.f_bsize > page)
    page = (uint64_t)fs.f_bsize;
  start = offset - offset % page;
  length = (offset + bytes - start + page - 1) / page * page;
  base = map_patiently (length, fd, start);
  if (base == MAP_FAILED) {
    domybs_error_errno (error, "can't map a memory region of %" G_GUINT64_FORMAT " bytes", bytes);
    return NULL;
  }
  madvise (base, length, MADV_DONTDUMP); /* guests' memory has no place in our core dumps */
  mapping->bytes = length;
  mapping->address = (uint8_t *)base + (offset - start);
  atomic_store (&mapping->broken, FALSE);
  atomic_store (&mapping->base, base);
  return mapping->address;
}

void
guest_unmap (void *address) {
  struct mapping *mapping = address ? find (address) : NULL;

  if (!mapping)
    return;
  uint8_t *base = atomic_exchange (&mapping->base, NULL);
  munmap (base, mapping->bytes);
}

unsigned
guest_map_breaks (void) {
  return atomic_load (&breaks);
}

gboolean
guest_map_is_broken (const void *address) {
  const struct mapping *mapping = address ? find (address) : NULL;

  return mapping && atomic_load (&mapping->broken);
}
