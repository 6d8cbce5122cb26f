/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "io/host-account.h"
#include "io/error.h"
#include "io/sandbox-calls.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Taking a slot and mapping the file come before there is a sandbox. */
SANDBOX_CALLS (SANDBOX_CALL_IF (fcntl, 1, ~0u, F_OFD_SETLK), SANDBOX_CALL_IF (fcntl, 1, ~0u, F_OFD_GETLK), SANDBOX_CALL (nanosleep),
               SANDBOX_CALL (clock_nanosleep));

#define MAGIC 0x54434341424d5944ull /* "DYMBACCT" */
#define VERSION 1u
/* Summing takes microseconds; a lock that is still held after this long belongs to a process that was stopped. */
#define LOCK_TRIES 50
#define LOCK_PAUSE_US 100
/* A back-end that starts can wait: on a host with much to do, who holds the lock may not run for a while. */
#define LOCK_TRIES_AT_START 20000

struct slot {
  _Atomic uint64_t blocks;
  uint32_t pid;
  char name[52];
};
_Static_assert (sizeof (struct slot) == 64, "slots are part of a file that versions share");

struct account_file {
  uint64_t magic;
  uint32_t version;
  uint32_t n_slots;
  uint8_t reserved[48];
  struct slot slots[HOST_ACCOUNT_SLOTS];
};

struct HostAccount {
  int fd; /* -1: private */
  struct account_file *file;
  unsigned slot;
  gboolean adopted;
  uint64_t limit_blocks;
};

static int
lock_byte (int fd, short type, off_t byte) {
  struct flock lock = { .l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1 };

  return fcntl (fd, F_OFD_SETLK, &lock);
}

static gboolean
lock_sum (const HostAccount *account, int tries) {
  if (account->fd < 0)
    return TRUE;
  for (int i = 0; i < tries; i++) {
    if (lock_byte (account->fd, F_WRLCK, 0) == 0)
      return TRUE;
    g_usleep (LOCK_PAUSE_US);
  }
  return FALSE;
}

static void
unlock_sum (const HostAccount *account) {
  if (account->fd >= 0)
    lock_byte (account->fd, F_UNLCK, 0);
}

static gboolean
slot_is_alive (const HostAccount *account, unsigned i) {
  struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 1 + (off_t)i, .l_len = 1 };

  if (i == account->slot || account->fd < 0)
    return TRUE;
  return fcntl (account->fd, F_OFD_GETLK, &lock) < 0 || lock.l_type != F_UNLCK;
}

/* Sums the slots; with bury set, slots of dead processes are cleared first (costs a system call for each slot in use). */
static uint64_t
sum (HostAccount *account, gboolean bury) {
  uint64_t total = 0;

  for (unsigned i = 0; i < HOST_ACCOUNT_SLOTS; i++) {
    const uint64_t blocks = atomic_load (&account->file->slots[i].blocks);

    if (blocks == 0)
      continue;
    if (bury && !slot_is_alive (account, i)) {
      atomic_store (&account->file->slots[i].blocks, 0);
      continue;
    }
    /* saturating: the file is writable by every back-end, a wild number must not wrap into room */
    total = total + blocks < total ? UINT64_MAX : total + blocks;
  }
  return total;
}

static gboolean
prepare_file (HostAccount *account, const char *path, GError **error) {
  struct stat st;

  /* Who adopts it finds it set up, and needs no lock to look at it. */
  if (!account->adopted && !lock_sum (account, LOCK_TRIES_AT_START)) {
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_IN_USE, "host account %s is locked by another process that does not go on", path);
    return FALSE;
  }
  if (fstat (account->fd, &st) < 0 || (st.st_size < (off_t)sizeof *account->file && ftruncate (account->fd, sizeof *account->file) < 0)) {
    domybs_error_errno (error, "can't set up host account %s", path);
    goto fail;
  }
  account->file = mmap (NULL, sizeof *account->file, PROT_READ | PROT_WRITE, MAP_SHARED, account->fd, 0);
  if (account->file == MAP_FAILED) {
    account->file = NULL;
    domybs_error_errno (error, "can't map host account %s", path);
    goto fail;
  }
  if (account->file->magic == 0) {
    account->file->magic = MAGIC;
    account->file->version = VERSION;
    account->file->n_slots = HOST_ACCOUNT_SLOTS;
  }
  if (account->file->magic != MAGIC || account->file->version != VERSION || account->file->n_slots != HOST_ACCOUNT_SLOTS) {
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_CORRUPT,
                 "%s is not a host account of this version; remove it when no domybs-backend runs", path);
    goto fail;
  }
  if (!account->adopted)
    unlock_sum (account);
  return TRUE;
fail:
  if (!account->adopted)
    unlock_sum (account);
  return FALSE;
}

HostAccount *
host_account_open (const char *path, const char *name, uint64_t limit_blocks, GError **error) {
  g_autoptr (HostAccount) account = g_new0 (HostAccount, 1);
  g_autofree char *directory = g_path_get_dirname (path);

  account->limit_blocks = limit_blocks;
  account->slot = HOST_ACCOUNT_SLOTS;
  if (g_mkdir_with_parents (directory, 0755) < 0) {
    account->fd = -1;
    domybs_error_errno (error, "can't create directory %s for the host account", directory);
    return NULL;
  }
  account->fd = open (path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0660);
  if (account->fd < 0) {
    domybs_error_errno (error, "can't open host account %s", path);
    return NULL;
  }
  if (!prepare_file (account, path, error))
    return NULL;
  for (unsigned i = 0; i < HOST_ACCOUNT_SLOTS; i++) {
    struct slot *slot = &account->file->slots[i];

    if (lock_byte (account->fd, F_WRLCK, 1 + (off_t)i) < 0)
      continue;
    atomic_store (&slot->blocks, 0);
    slot->pid = (uint32_t)getpid ();
    g_strlcpy (slot->name, name, sizeof slot->name);
    account->slot = i;
    return g_steal_pointer (&account);
  }
  g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_IN_USE, "host account %s has no free slot (%d back-ends run)", path, HOST_ACCOUNT_SLOTS);
  return NULL;
}

int
host_account_fd (const HostAccount *account) {
  return account->fd;
}

int
host_account_slot (const HostAccount *account) {
  return account->fd < 0 ? -1 : (int)account->slot;
}

HostAccount *
host_account_adopt (int fd, int slot, uint64_t limit_blocks, GError **error) {
  g_autoptr (HostAccount) account = g_new0 (HostAccount, 1);

  account->fd = fd;
  account->adopted = TRUE;
  account->limit_blocks = limit_blocks;
  account->slot = HOST_ACCOUNT_SLOTS;
  unlock_sum (account); /* if its last owner died with it: the lock is the open file's, and so ours */
  if (slot < 0 || slot >= HOST_ACCOUNT_SLOTS) {
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_USAGE, "%d is no slot of a host account", slot);
    return NULL;
  }
  if (!prepare_file (account, "of the keeper", error))
    return NULL;
  account->slot = (unsigned)slot;
  return g_steal_pointer (&account);
}

HostAccount *
host_account_private (uint64_t limit_blocks) {
  HostAccount *account = g_new0 (HostAccount, 1);

  account->fd = -1;
  account->limit_blocks = limit_blocks;
  account->file = g_new0 (struct account_file, 1);
  return account;
}

void
host_account_free (HostAccount *account) {
  if (account->fd < 0) {
    g_free (account->file);
  } else {
    if (account->file && account->slot < HOST_ACCOUNT_SLOTS && !account->adopted)
      atomic_store (&account->file->slots[account->slot].blocks, 0);
    if (account->file)
      munmap (account->file, sizeof *account->file);
    close (account->fd); /* the slot's lock goes with it */
  }
  g_free (account);
}

int64_t
host_account_reserve (HostAccount *account, uint64_t blocks) {
  uint64_t used, room;

  if (!lock_sum (account, LOCK_TRIES))
    return -1;
  used = sum (account, FALSE);
  if (used > account->limit_blocks || account->limit_blocks - used < blocks)
    used = sum (account, TRUE);
  room = used < account->limit_blocks ? account->limit_blocks - used : 0;
  if (blocks > room)
    blocks = room;
  atomic_fetch_add (&account->file->slots[account->slot].blocks, blocks);
  unlock_sum (account);
  return (int64_t)blocks;
}

void
host_account_return (HostAccount *account, uint64_t blocks) {
  _Atomic uint64_t *mine = &account->file->slots[account->slot].blocks;
  uint64_t have = atomic_load (mine);

  /* Only this process subtracts from its slot, and less is always safe for the others: no lock. */
  while (!atomic_compare_exchange_weak (mine, &have, have > blocks ? have - blocks : 0))
    ;
}

void
host_account_set (HostAccount *account, uint64_t blocks) {
  atomic_store (&account->file->slots[account->slot].blocks, blocks);
}

uint64_t
host_account_used (HostAccount *account) {
  uint64_t used;

  if (!lock_sum (account, LOCK_TRIES))
    return sum (account, FALSE);
  used = sum (account, TRUE);
  unlock_sum (account);
  return used;
}

uint64_t
host_account_limit (const HostAccount *account) {
  return account->limit_blocks;
}
