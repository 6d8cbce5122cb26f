// SPDX-License-Identifier: GPL-2.0-only
/*
 * Far disks that are for programs and not for swap, known by their serials: found, opened, and kept from losing pages.
 *
 * Every free block of an open disk reads as zeros: all of the disk is zeroed when it is opened, which is when the first range
 * is asked for, and each range when it is freed. It is the host's to make that cheap, so disks that have no "write zeroes" are
 * refused. When the last range is freed, the disk is closed.
 *
 * A page that can't be written would be lost in the page cache of a disk: it is clean after that, and when it is dropped, what
 * is read next is what was there before. We see to it that it isn't dropped but written again, as the kernel does with swap:
 * while one of our disks is open, its page cache asks us before it lets go of a page. Disks of kernels without buffer heads
 * can't be helped in this way; ranges know what to do then.
 */
#include <linux/bitmap.h>
#include <linux/blkdev.h>
#include <linux/buffer_head.h>
#include <linux/err.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/mount.h>
#include <linux/pagemap.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>
#include <linux/virtio_ids.h>

#include "domybs-disks.h"

#define DOMYBS_SERIAL_MAX 32 /* virtio's own limit is 20 */
#define DOMYBS_DISK_BLOCKS_MAX (1u << 30)

struct domybs_tier domybs_tiers[DOMYBS_FAR_TIERS] = {
  { .serial = "domybs-mem-shared", .file_name = "[domybs-shared]" },
  { .serial = "domybs-mem-remote", .file_name = "[domybs-remote]" },
};

static DEFINE_MUTEX (domybs_disks_lock);
static struct vfsmount *domybs_disks_sysfs;     /* domybs_disks_lock */
static const struct bus_type *domybs_disks_bus; /* virtio's; set before anybody can ask for a range */

/* ---- finding a disk ---- */

/* "block/vda/serial" of sysfs, which no kernel function gives. It asks the disk. */
static bool
domybs_disk_has_serial (const char *name, const char *serial) {
  char path[64], text[DOMYBS_SERIAL_MAX + 1] = "";
  struct file *file;
  loff_t pos = 0;
  ssize_t n;

  if ((size_t)snprintf (path, sizeof path, "block/%s/serial", name) >= sizeof path)
    return false;
  file = file_open_root_mnt (domybs_disks_sysfs, path, O_RDONLY | O_LARGEFILE, 0);
  if (IS_ERR (file))
    return false;
  n = kernel_read (file, text, DOMYBS_SERIAL_MAX, &pos);
  fput (file);
  return n > 0 && sysfs_streq (text, serial);
}

static int
domybs_search_child (struct device *dev, void *data) {
  struct domybs_search *search = data;

  if (!dev->class || strcmp (dev->class->name, "block") || !domybs_disk_has_serial (dev_name (dev), search->serial))
    return 0;
  search->devt = dev->devt;
  search->bytes = bdev_nr_bytes (dev_to_bdev (dev));
  return 1;
}

static int
domybs_search_device (struct device *dev, void *data) {
  if (dev_to_virtio (dev)->id.device != VIRTIO_ID_BLOCK)
    return 0;
  return device_for_each_child (dev, data, domybs_search_child);
}

static int
domybs_sysfs_mount (void) {
  struct file_system_type *type;
  struct vfsmount *mnt;
  int rc = 0;

  mutex_lock (&domybs_disks_lock);
  if (!domybs_disks_sysfs) {
    type = get_fs_type ("sysfs");
    mnt = type ? kern_mount (type) : ERR_PTR (-ENODEV);
    if (type)
      module_put (type->owner);
    if (IS_ERR (mnt))
      rc = PTR_ERR (mnt);
    else
      domybs_disks_sysfs = mnt;
  }
  mutex_unlock (&domybs_disks_lock);
  return rc;
}

int
domybs_disk_find (const char *serial, struct domybs_search *ret) {
  int rc = domybs_sysfs_mount ();

  if (rc)
    return rc;
  *ret = (struct domybs_search){ .serial = serial };
  bus_for_each_dev ((void *)domybs_disks_bus, NULL, ret, domybs_search_device);
  return ret->devt ? 0 : -EOPNOTSUPP;
}

/* ---- pages that could not be written ---- */

/* The page cache operations of disks, and a copy with release_folio. Both constant once `plain` is set; domybs_disks_lock. */
static const struct address_space_operations *domybs_plain_aops;
static struct address_space_operations domybs_keeping_aops;

/* The folio is locked, clean, and about to be dropped. */
static bool
domybs_release_folio (struct folio *folio, gfp_t gfp) {
  struct buffer_head *head = folio_buffers (folio), *bh = head;

  if (!head)
    return true;
  do {
    if (buffer_write_io_error (bh)) {
      folio_mark_dirty (folio); /* it is written again, sooner or later */
      return false;
    }
    bh = bh->b_this_page;
  } while (bh != head);
  return try_to_free_buffers (folio);
}

static void
domybs_disk_keep (struct domybs_disk *disk) {
  const struct address_space_operations *aops = disk->mapping->a_ops;

  mutex_lock (&domybs_disks_lock);
  if (!domybs_plain_aops && aops->dirty_folio == block_dirty_folio && !aops->release_folio) {
    domybs_keeping_aops = *aops;
    domybs_keeping_aops.release_folio = domybs_release_folio;
    domybs_plain_aops = aops;
  }
  disk->keeps = aops == domybs_plain_aops;
  mutex_unlock (&domybs_disks_lock);
  if (disk->keeps)
    WRITE_ONCE (disk->mapping->a_ops, &domybs_keeping_aops);
}

/* All pages go with it: they are nobody's any more, and each is locked in turn, so that nobody is in release_folio afterwards.
 */
static void
domybs_disk_unkeep (struct domybs_disk *disk) {
  if (disk->keeps)
    WRITE_ONCE (disk->mapping->a_ops, domybs_plain_aops);
  truncate_inode_pages_range (disk->mapping, 0, -1);
}

/* ---- disks ---- */

int
domybs_disk_zero (struct domybs_disk *disk, u32 start, u32 blocks) {
  return blkdev_issue_zeroout (disk->bdev, (sector_t)start << (DOMYBS_BLOCK_SHIFT - SECTOR_SHIFT),
                               (sector_t)blocks << (DOMYBS_BLOCK_SHIFT - SECTOR_SHIFT), GFP_KERNEL, BLKDEV_ZERO_NOFALLBACK);
}

void
domybs_disk_forget (struct domybs_disk *disk, u32 start, u32 blocks) {
  truncate_inode_pages_range (disk->mapping, (loff_t)start << DOMYBS_BLOCK_SHIFT,
                              (((loff_t)start + blocks) << DOMYBS_BLOCK_SHIFT) - 1);
}

/* The tier's lock is held. 0, or -EOPNOTSUPP (there is none that is any good), -EBUSY (somebody else uses it), or an I/O error.
 */
static int
domybs_disk_open (struct domybs_tier *tier, struct domybs_disk **ret) {
  struct domybs_search found;
  struct domybs_disk *disk;
  int rc = domybs_disk_find (tier->serial, &found);

  if (rc)
    return rc;
  disk = kzalloc (sizeof *disk, GFP_KERNEL);
  if (!disk)
    return -ENOMEM;
  kref_init (&disk->ref);
  atomic_set (&disk->freeing, 0);
  disk->tier = tier;
  disk->handle = domybs_bdev_open (found.devt, domybs_tiers);
  rc = PTR_ERR (disk->handle);
  if (IS_ERR (disk->handle))
    goto out_free;
  disk->bdev = domybs_bdev_of (disk->handle);
  disk->mapping = domybs_bdev_mapping (disk->handle);
  disk->blocks = min_t (u64, (u64)bdev_nr_bytes (disk->bdev) >> DOMYBS_BLOCK_SHIFT, DOMYBS_DISK_BLOCKS_MAX);
  rc = -EOPNOTSUPP;
  if (!disk->blocks || !bdev_write_zeroes_sectors (disk->bdev) || bdev_read_only (disk->bdev))
    goto out_close;
  rc = -ENOMEM;
  disk->map = kvcalloc (BITS_TO_LONGS (disk->blocks), sizeof *disk->map, GFP_KERNEL);
  if (!disk->map)
    goto out_close;
  /* What another boot of this guest, or another driver, has left there. */
  domybs_disk_forget (disk, 0, disk->blocks);
  rc = domybs_disk_zero (disk, 0, disk->blocks);
  if (rc)
    goto out_close;
  domybs_disk_forget (disk, 0, disk->blocks);
  domybs_disk_keep (disk);
  *ret = disk;
  return 0;

out_close:
  domybs_bdev_close (disk->handle, domybs_tiers);
  kvfree (disk->map);
out_free:
  pr_warn_ratelimited ("virtio_domybs: the far disk %s cannot be used for /dev/domybs: %d\n", tier->serial, rc);
  kfree (disk);
  return rc;
}

/* With the tier's lock, which it drops. */
static void
domybs_disk_release (struct kref *ref) {
  struct domybs_disk *disk = container_of (ref, struct domybs_disk, ref);
  struct domybs_tier *tier = disk->tier;

  if (tier->disk == disk) {
    tier->disk = NULL;
    WRITE_ONCE (tier->taken, 0);
  }
  domybs_disk_unkeep (disk);
  domybs_bdev_close (disk->handle, domybs_tiers);
  mutex_unlock (&tier->lock);
  kvfree (disk->map);
  kfree (disk);
}

void
domybs_disk_put (struct domybs_disk *disk) {
  struct domybs_tier *tier = disk->tier;

  kref_put_mutex (&disk->ref, domybs_disk_release, &tier->lock);
}

int
domybs_disk_get (struct domybs_tier *tier, struct domybs_disk **ret) {
  struct domybs_disk *disk = tier->disk;
  int rc;

  /* One that was unplugged stays with its ranges, which can't reach it any more; there may be another. */
  if (!disk || !disk_live (disk->bdev->bd_disk)) {
    rc = domybs_disk_open (tier, &disk);
    if (rc)
      return rc;
    tier->disk = disk;
    WRITE_ONCE (tier->taken, 0);
  } else {
    kref_get (&disk->ref);
  }
  *ret = disk;
  return 0;
}

void
domybs_disk_mark (struct domybs_disk *disk, u32 start, u32 blocks, bool taken) {
  if (taken) {
    bitmap_set (disk->map, start, blocks);
    disk->taken += blocks;
  } else {
    bitmap_clear (disk->map, start, blocks);
    disk->taken -= blocks;
  }
  if (disk->tier->disk == disk)
    WRITE_ONCE (disk->tier->taken, disk->taken);
}

void
domybs_disks_bus_set (const struct bus_type *bus) {
  WRITE_ONCE (domybs_disks_bus, bus);
}

void
domybs_disks_init (void) {
  int i;

  for (i = 0; i < DOMYBS_FAR_TIERS; i++) {
    mutex_init (&domybs_tiers[i].lock);
    init_waitqueue_head (&domybs_tiers[i].wait);
  }
}

void
domybs_disks_exit (void) {
  if (domybs_plain_aops)
    synchronize_rcu_tasks (); /* who has just read the address of our operations has used it by then */
  if (domybs_disks_sysfs)
    kern_unmount (domybs_disks_sysfs);
}
