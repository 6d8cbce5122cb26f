/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-3-Clause) */
/*
 * libdomybs: memory in blocks of 2 MiB from /dev/domybs, for programs in a guest.
 *
 *     struct domybs_client *client;
 *     struct domybs_memory memory;
 *     int error = domybs_client_open (NULL, &client);
 *
 *     if (!error)
 *       error = domybs_client_allocate (client, 64 << 20, DOMYBS_CLIENT_LOCAL, &memory);
 *     if (error)
 *       fprintf (stderr, "%s\n", domybs_client_strerror (error));
 *     else
 *       memset (memory.address, 1, memory.bytes);
 *
 * Every function that can fail returns 0 or a negative errno and then leaves its outputs alone. A client may be used by several
 * threads at once; one allocation must not be freed while another thread uses it. Everything is freed when the client is closed
 * and the process has unmapped what it mapped, so at the latest when it ends; a child that was forked in between has it as
 * well, and keeps it.
 *
 * LOCAL memory is RAM that stays where it is. SHARED and REMOTE memory is a range of a far disk: there can be more of it than
 * RAM, pages come when they are touched and go when memory is short. A page that the far disk has lost is SIGBUS, as with a
 * file that is mapped.
 */
#ifndef LIBDOMYBS_H
#define LIBDOMYBS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define DOMYBS_CLIENT_DEVICE "/dev/domybs"
#define DOMYBS_CLIENT_BLOCK_BYTES ((size_t)2 << 20)

/* Where the memory should come from. The driver answers -EOPNOTSUPP for a tier that the VM does not have: SHARED and REMOTE
 * need a far disk for programs (domybsctl attach --far mem-shared=SIZE,mem-remote=SIZE). */
enum domybs_client_hint {
  DOMYBS_CLIENT_ANY = 0,
  DOMYBS_CLIENT_LOCAL = 1,  /* the host's own RAM */
  DOMYBS_CLIENT_SHARED = 2, /* RAM of neighbour hosts */
  DOMYBS_CLIENT_REMOTE = 3, /* storage-backed */
};

struct domybs_client;

struct domybs_memory {
  void *address;   /* page-aligned, zero-filled at first */
  size_t bytes;    /* a whole number of blocks, ≥ what was asked for */
  uint64_t handle; /* the library's */
};

struct domybs_client_info {
  size_t block_bytes;
  uint64_t section_blocks;                     /* the guest kernel's unit of memory hot-add */
  uint64_t window_blocks;                      /* the most that can ever be lent to this VM */
  uint64_t max_blocks;                         /* what it may have now */
  uint64_t client_max_blocks, user_max_blocks; /* what this client, and all clients together, may have */
};

struct domybs_client_stats { /* blocks */
  uint64_t granted;          /* the VM has */
  uint64_t online;           /* … of these the guest kernel's allocator */
  uint64_t held;             /* given back to the host, in sections that are online */
  uint64_t reserve;          /* kept for the OOM notifier */
  uint64_t user;             /* owned by clients */
  uint64_t own;              /* owned by this client */
  uint64_t stuck;            /* could not be freed when last asked */
  uint64_t max;
  uint64_t granted_ever, released_ever;
};

struct domybs_client_far {                     /* blocks */
  uint64_t shared_blocks, remote_blocks;       /* what the far disks for programs have; 0: the VM has no such disk */
  uint64_t shared_used, remote_used;           /* owned by clients */
  uint64_t own;                                /* owned by this client, of both */
  uint64_t client_max_blocks, user_max_blocks; /* what this client, and all, may have of both; 0: no limit but the disks */
};

/* device: NULL for DOMYBS_CLIENT_DEVICE. -ENOENT: the driver is not loaded or there is no device. */
int domybs_client_open (const char *device, struct domybs_client **ret_client);
/* NULL is fine. Allocations that were not freed stay usable until they are unmapped, which nobody can do by name any more. */
void domybs_client_close (struct domybs_client *client);

int domybs_client_info (struct domybs_client *client, struct domybs_client_info *ret_info);
int domybs_client_stats (struct domybs_client *client, struct domybs_client_stats *ret_stats);
/* Asks the VM's disks which of them these are. -ENOTTY: a driver that is older than far disks for programs. */
int domybs_client_far (struct domybs_client *client, struct domybs_client_far *ret_far);

/* Allocates at least `bytes` (> 0), rounded up to blocks, all or nothing, and maps them for reading and writing. May wait while
 * the host is asked. -EDQUOT: over a cap · -ENOSPC: the VM has all it may have, or the far disk no so many free blocks in a row
 * · -ENOMEM: none to be had now · -EOPNOTSUPP: no such tier · -EBUSY: somebody else uses the far disk, as swap for example. */
int domybs_client_allocate (struct domybs_client *client, size_t bytes, enum domybs_client_hint hint,
                            struct domybs_memory *ret_memory);
/* Unmaps and frees. What some device I/O still uses is freed when that is done. */
int domybs_client_free (struct domybs_client *client, const struct domybs_memory *memory);

/* What a negative (or positive) errno of these functions means; never NULL. The text is static. */
const char *domybs_client_strerror (int error);

#ifdef __cplusplus
}
#endif

#endif
