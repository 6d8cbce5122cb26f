/* SPDX-License-Identifier: GPL-2.0-only */
/* Far disks that are for programs: what virtio_domybs_disks.c has for virtio_domybs_ranges.c. */
#ifndef DOMYBS_DISKS_H
#define DOMYBS_DISKS_H

#include <linux/blkdev.h>
#include <linux/fs.h>
#include <linux/kref.h>
#include <linux/mutex.h>
#include <linux/pagemap.h>
#include <linux/wait.h>

#include "compat.h"
#include "domybs-drv.h"

struct domybs_disk {
  struct kref ref; /* each range; the last one goes under the tier's lock */
  struct domybs_tier *tier;
  domybs_bdev_handle *handle;
  struct block_device *bdev;
  struct address_space *mapping;
  bool keeps; /* pages that could not be written */
  u32 blocks;
  u32 taken;          /* the tier's lock: blocks that are not free */
  unsigned long *map; /* the tier's lock: a bit for each block that is not free */
  atomic_t freeing;   /* ranges that nobody has any more, and whose blocks are not free yet */
};

struct domybs_tier {
  const char *serial;
  const char *file_name; /* of a range, as in /proc/PID/maps */
  struct mutex lock;
  struct domybs_disk *disk; /* lock: the one that new ranges come from; NULL: none is open */
  u32 taken;                /* lock, read anywhere: of that disk */
  unsigned long freed;      /* lock, read anywhere: goes up whenever blocks became free */
  wait_queue_head_t wait;   /* for that */
};
extern struct domybs_tier domybs_tiers[DOMYBS_FAR_TIERS];

struct domybs_search {
  const char *serial;
  dev_t devt; /* 0: not found */
  u64 bytes;
};

void domybs_disks_init (void);
void domybs_disks_exit (void);
/* On a workqueue: whoever asks may not be allowed to look into sysfs. Asks the disks. -EOPNOTSUPP: there is none. */
int domybs_disk_find (const char *serial, struct domybs_search *ret);
/* With the tier's lock: a reference to the disk that ranges come from now; opens it. -EOPNOTSUPP (there is none that is any
 * good), -EBUSY (somebody else uses it), -ENOMEM, or an I/O error. */
int domybs_disk_get (struct domybs_tier *tier, struct domybs_disk **ret);
/* Without it. The last reference closes the disk. */
void domybs_disk_put (struct domybs_disk *disk);
void domybs_disk_mark (struct domybs_disk *disk, u32 start, u32 blocks, bool taken); /* with the lock */
int domybs_disk_zero (struct domybs_disk *disk, u32 start, u32 blocks);
void domybs_disk_forget (struct domybs_disk *disk, u32 start, u32 blocks); /* what the page cache has of it */

#endif
