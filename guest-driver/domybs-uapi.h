/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-3-Clause) */
/*
 * /dev/domybs: how a program in the guest gets blocks of its own. libdomybs wraps it.
 *
 * A program opens the device, allocates blocks of 2 MiB with a hint as to where they should come from, maps them (shared), and
 * frees them. An allocation lives until it is freed (or the file is closed) and no mapping of it is left, those of child
 * processes included; so a process that dies frees everything. Its content is zero at first. Device I/O (O_DIRECT) into it
 * works.
 *
 * Hints any and local: the pages are the host's RAM and pinned: they are not swapped and do not move.
 *
 * Hints shared and remote: the blocks are a range of a far disk that the VM has for programs (serial domybs-mem-shared,
 * domybs-mem-remote), and what is mapped is that disk's page cache: there can be more of it than RAM. The kernel brings pages
 * in when they are touched, and writes them out and drops them when memory is short. A page that the disk can't read is SIGBUS.
 * One that it can't write stays in memory, and is written again when memory is short (msync() says EIO, to whoever has a range
 * of that disk). When the disk is unplugged, all that is not in memory is SIGBUS. Long-term pins (RDMA, io_uring's registered
 * buffers) may be refused, as for files.
 *
 * Errors, besides the usual: EOPNOTSUPP the tier asked for is not available · EDQUOT over the cap of this file or of all ·
 * ENOSPC the VM has all that it may have, or the far disk no so many free blocks in a row · ENOMEM the host (or the guest
 * kernel) has nothing to give now · EBUSY somebody else uses the far disk · EIO the far disk fails · ENODEV the device is gone
 * or broken.
 */
#ifndef DOMYBS_UAPI_H
#define DOMYBS_UAPI_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define DOMYBS_UAPI_VERSION 1u

struct domybs_ioc_info {
  __u32 uapi_version; /* DOMYBS_UAPI_VERSION */
  __u32 block_bytes;
  __u64 section_blocks;
  __u64 window_blocks;
  __u64 max_blocks;      /* what the VM may have, all users together */
  __u64 file_max_blocks; /* what one open file may have */
  __u64 user_max_blocks; /* what all open files may have */
  __u64 reserved[2];
};

struct domybs_ioc_alloc {
  __u64 blocks;      /* in: how many, all or none */
  __u32 hint;        /* in: 0 any, 1 local, 2 shared, 3 remote */
  __u32 flags;       /* in: 0 */
  __u64 handle;      /* out: names the allocation in this file */
  __u64 offset;      /* out: for mmap; bytes */
  __u64 reserved[2]; /* in: 0 */
};

struct domybs_ioc_free {
  __u64 handle;
  __u64 reserved; /* 0 */
};

struct domybs_ioc_stats { /* blocks unless said otherwise */
  __u64 granted;          /* the VM has */
  __u64 online;           /* … in the page allocator */
  __u64 held;             /* released, in sections that are online */
  __u64 reserve;          /* kept for the OOM notifier */
  __u64 user;             /* owned by users of this device */
  __u64 stuck;            /* could not be freed when last asked */
  __u64 file_blocks;      /* owned by this open file */
  __u64 max_blocks;
  __u64 grants;   /* blocks granted since the driver was loaded */
  __u64 releases; /* blocks released since then */
  __u64 reserved[6];
};

/* Blocks. [0] is shared, [1] remote. Asks the VM's disks for their names, so it waits for them. */
struct domybs_ioc_far {
  __u64 disk_blocks[2];                   /* what the far disks for programs have; 0: there is none */
  __u64 used_blocks[2];                   /* owned by users of this device, or just being freed */
  __u64 file_blocks;                      /* owned by this open file, both together */
  __u64 file_max_blocks, user_max_blocks; /* what it, and all, may have of both together; 0: no limit but the disks */
  __u64 reserved;
};

#define DOMYBS_IOC_INFO _IOR (0xdb, 1, struct domybs_ioc_info)
#define DOMYBS_IOC_ALLOC _IOWR (0xdb, 2, struct domybs_ioc_alloc)
#define DOMYBS_IOC_FREE _IOW (0xdb, 3, struct domybs_ioc_free)
#define DOMYBS_IOC_STATS _IOR (0xdb, 4, struct domybs_ioc_stats)
#define DOMYBS_IOC_FAR _IOR (0xdb, 5, struct domybs_ioc_far)

#endif
