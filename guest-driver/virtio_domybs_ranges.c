// SPDX-License-Identifier: GPL-2.0-only
/*
 * Ranges: blocks of far disks, for /dev/domybs.
 *
 * A VM may have two far disks that are for programs and not for swap; they are known by their serials, domybs-mem-shared and
 * domybs-mem-remote. A range is a run of blocks of such a disk. What a program maps is the page cache of the disk: the kernel
 * brings pages in as they are touched, and writes them out and drops them when memory is short.
 *
 * Each range has a file of its own, which nobody can open and which every mapping of the range has as its file; fork, mremap
 * and partial unmapping need no bookkeeping of ours. It shares the disk's page cache, as a block device's files do, but lets
 * itself be mapped only inside of the range. When the handle and the last mapping are gone, so is the file, and the range is
 * freed.
 *
 * A page that the disk can't read is SIGBUS for whoever touches it. One that could not be written stays in memory and is
 * written again. Where that cannot be arranged (see virtio_domybs_disks.c), nobody knows which page it was, and what is read
 * from then on may be old: so whoever has a range at the time of a failed write gets SIGBUS for each page that is not mapped
 * already.
 *
 * Whatever waits for a disk is done on a workqueue: a disk that hangs holds up neither the end of a process nor a signal.
 */
#include <linux/anon_inodes.h>
#include <linux/bitmap.h>
#include <linux/err.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/pagemap.h>
#include <linux/slab.h>

#include "domybs-disks.h"

enum { DOMYBS_RANGE_BEGINS, DOMYBS_RANGE_BEGUN, DOMYBS_RANGE_ABANDONED };

struct domybs_range {
  struct domybs_tier *tier;
  struct domybs_disk *disk;
  struct file *file; /* no reference; its private data is this */
  u32 start, blocks;
  errseq_t write_errors; /* of the disk, when the range was new */

  struct work_struct work;
  atomic_t state; /* who has it: the work that begins it, or who asked */
  struct completion begun;
  int result;

  void (*freed) (void *owner, u32 blocks);
  void *owner;
};

static struct workqueue_struct *domybs_ranges_queue;

/* ---- a range begins and ends, on the workqueue ---- */

static int
domybs_range_place (struct domybs_range *range) {
  struct domybs_tier *tier = range->tier;
  struct domybs_disk *disk;
  unsigned long start, freed;
  int rc;

  mutex_lock (&tier->lock);
  rc = domybs_disk_get (tier, &disk);
  if (rc) {
    mutex_unlock (&tier->lock);
    return rc;
  }
  for (;;) {
    start = bitmap_find_next_zero_area (disk->map, disk->blocks, 0, range->blocks, 0);
    if (start < disk->blocks && disk->blocks - start >= range->blocks) {
      domybs_disk_mark (disk, (u32)start, range->blocks, true);
      range->disk = disk;
      range->start = (u32)start;
      mutex_unlock (&tier->lock);
      return 0;
    }
    freed = tier->freed;
    if (range->blocks > disk->blocks || !atomic_read (&disk->freeing) || atomic_read (&range->state) == DOMYBS_RANGE_ABANDONED)
      break;
    /* There may be room in a moment. */
    mutex_unlock (&tier->lock);
    wait_event_idle (tier->wait, READ_ONCE (tier->freed) != freed || atomic_read (&range->state) == DOMYBS_RANGE_ABANDONED);
    mutex_lock (&tier->lock);
  }
  mutex_unlock (&tier->lock);
  domybs_disk_put (disk);
  return -ENOSPC;
}

static void
domybs_range_end (struct domybs_range *range) {
  struct domybs_disk *disk = range->disk;
  struct domybs_tier *tier = range->tier;
  int rc;

  /* Nobody maps it. A page that some I/O still uses is only taken out of the cache; it is freed when that I/O is done.
   * Afterwards once more: a reader of the blocks before it may have read ahead into this range until it was zeroed. */
  domybs_disk_forget (disk, range->start, range->blocks);
  rc = domybs_disk_zero (disk, range->start, range->blocks);
  domybs_disk_forget (disk, range->start, range->blocks);

  mutex_lock (&tier->lock);
  if (rc)
    pr_warn_ratelimited (
        "virtio_domybs: %u blocks of the far disk %s could not be zeroed (%d) and are left alone until it is closed\n",
        range->blocks, tier->serial, rc);
  else
    domybs_disk_mark (disk, range->start, range->blocks, false);
  atomic_dec (&disk->freeing);
  WRITE_ONCE (tier->freed, tier->freed + 1);
  mutex_unlock (&tier->lock);
  wake_up_all (&tier->wait);
  domybs_disk_put (disk);
  kfree (range);
}

static void
domybs_range_end_work (struct work_struct *work) {
  domybs_range_end (container_of (work, struct domybs_range, work));
}

static void
domybs_range_end_later (struct domybs_range *range) {
  atomic_inc (&range->disk->freeing);
  INIT_WORK (&range->work, domybs_range_end_work);
  queue_work (domybs_ranges_queue, &range->work);
}

static void
domybs_range_begin_work (struct work_struct *work) {
  struct domybs_range *range = container_of (work, struct domybs_range, work);

  range->result = domybs_range_place (range);
  if (atomic_cmpxchg (&range->state, DOMYBS_RANGE_BEGINS, DOMYBS_RANGE_BEGUN) == DOMYBS_RANGE_BEGINS) {
    complete (&range->begun);
    return;
  }
  if (range->result) {
    kfree (range);
  } else {
    atomic_inc (&range->disk->freeing);
    domybs_range_end (range);
  }
}

/* ---- mappings ---- */

/* A write to the disk has failed since the range is there, and nobody knows of which page. */
static bool
domybs_range_damaged (const struct file *file) {
  const struct domybs_range *range = file->private_data;

  return !range->disk->keeps && filemap_check_wb_err (range->disk->mapping, range->write_errors) != 0;
}

static vm_fault_t
domybs_range_fault (struct vm_fault *vmf) {
  struct file *file = vmf->vma->vm_file;

  if (domybs_range_damaged (file)) {
    pr_warn_ratelimited ("virtio_domybs: %s[%d] is refused a page, because a write to the far disk %s has failed\n",
                         current->comm, task_pid_nr (current), ((struct domybs_range *)file->private_data)->tier->serial);
    return VM_FAULT_SIGBUS;
  }
  return filemap_fault (vmf);
}

static vm_fault_t
domybs_range_map_pages (struct vm_fault *vmf, pgoff_t first, pgoff_t last) {
  return domybs_range_damaged (vmf->vma->vm_file) ? 0 : filemap_map_pages (vmf, first, last);
}

static const struct vm_operations_struct domybs_range_vm_ops = {
  .fault = domybs_range_fault,
  .map_pages = domybs_range_map_pages,
  .page_mkwrite = filemap_page_mkwrite,
};

/* Of the range's own file. Comes from nobody but the kernel's remap_file_pages(), which asks for any page of a mapping's file.
 */
static int
domybs_range_file_mmap (struct file *file, struct vm_area_struct *vma) {
  const struct domybs_range *range = file->private_data;
  u64 first = (u64)range->start * DOMYBS_PAGES_PER_BLOCK, pages = (u64)range->blocks * DOMYBS_PAGES_PER_BLOCK;

  if (!(vma->vm_flags & VM_SHARED) || vma->vm_pgoff < first || vma->vm_pgoff - first > pages
      || vma_pages (vma) > pages - (vma->vm_pgoff - first))
    return -EINVAL;
  vma->vm_ops = &domybs_range_vm_ops;
  domybs_vma_set_flags (vma, VM_DONTEXPAND);
  return 0;
}

int
domybs_range_mmap (struct domybs_range *range, struct vm_area_struct *vma, u64 inside) {
  u64 bytes = (u64)range->blocks << DOMYBS_BLOCK_SHIFT;

  if (inside > bytes || vma->vm_end - vma->vm_start > bytes - inside)
    return -EINVAL;
  vma_set_file (vma, range->file);
  vma->vm_pgoff = (unsigned long)(range->start * (u64)DOMYBS_PAGES_PER_BLOCK + (inside >> PAGE_SHIFT));
  return domybs_range_file_mmap (range->file, vma);
}

static int
domybs_range_file_fsync (struct file *file, loff_t start, loff_t end, int datasync) {
  return file_write_and_wait_range (file, start, end);
}

static int
domybs_range_file_release (struct inode *inode, struct file *file) {
  struct domybs_range *range = file->private_data;

  range->freed (range->owner, range->blocks);
  domybs_range_end_later (range);
  return 0;
}

static const struct file_operations domybs_range_fops = {
  .owner = THIS_MODULE,
  .mmap = domybs_range_file_mmap,
  .fsync = domybs_range_file_fsync,
  .release = domybs_range_file_release,
};

/* ---- for /dev/domybs ---- */

static int
domybs_range_file_new (struct domybs_range *range) {
  struct address_space *mapping = range->disk->mapping;
  struct file *file = anon_inode_getfile (range->tier->file_name, &domybs_range_fops, range, O_RDWR);

  if (IS_ERR (file))
    return PTR_ERR (file);
  file->f_mapping = mapping;
  file_ra_state_init (&file->f_ra, mapping);
  /* An error that nobody has seen yet would be one of this range's, too. */
  range->write_errors = filemap_sample_wb_err (mapping);
  errseq_check_and_advance (&mapping->wb_err, &range->write_errors);
  file->f_wb_err = range->write_errors;
  range->file = file;
  return 0;
}

int
domybs_range_new (u32 hint, u32 blocks, void (*freed) (void *owner, u32 blocks), void *owner, struct domybs_range **ret) {
  struct domybs_range *range = kzalloc (sizeof *range, GFP_KERNEL_ACCOUNT);
  int rc;

  if (!range)
    return -ENOMEM;
  range->tier = &domybs_tiers[hint == DOMYBS_HINT_SHARED ? 0 : 1];
  range->blocks = blocks;
  range->freed = freed;
  range->owner = owner;
  atomic_set (&range->state, DOMYBS_RANGE_BEGINS);
  init_completion (&range->begun);
  INIT_WORK (&range->work, domybs_range_begin_work);
  queue_work (domybs_ranges_queue, &range->work);

  if (wait_for_completion_killable (&range->begun)) {
    struct domybs_tier *tier = range->tier;

    if (atomic_cmpxchg (&range->state, DOMYBS_RANGE_BEGINS, DOMYBS_RANGE_ABANDONED) == DOMYBS_RANGE_BEGINS) {
      wake_up_all (&tier->wait);
      return -EINTR;
    }
    wait_for_completion (&range->begun);
  }
  rc = range->result;
  if (rc) {
    kfree (range);
    return rc;
  }
  rc = domybs_range_file_new (range);
  if (rc) {
    domybs_range_end_later (range);
    return rc;
  }
  *ret = range;
  return 0;
}

void
domybs_range_put (struct domybs_range *range) {
  fput (range->file);
}

struct domybs_sizes_work {
  struct work_struct work;
  u64 *blocks;
};

static void
domybs_sizes_work (struct work_struct *work) {
  u64 *blocks = container_of (work, struct domybs_sizes_work, work)->blocks;
  struct domybs_search found;
  int i;

  for (i = 0; i < DOMYBS_FAR_TIERS; i++)
    blocks[i] = domybs_disk_find (domybs_tiers[i].serial, &found) ? 0 : found.bytes >> DOMYBS_BLOCK_SHIFT;
}

void
domybs_ranges_sizes (u64 ret_blocks[DOMYBS_FAR_TIERS]) {
  struct domybs_sizes_work sizes = { .blocks = ret_blocks };

  INIT_WORK_ONSTACK (&sizes.work, domybs_sizes_work);
  queue_work (domybs_ranges_queue, &sizes.work);
  flush_work (&sizes.work);
  destroy_work_on_stack (&sizes.work);
}

void
domybs_ranges_used (u64 ret_blocks[DOMYBS_FAR_TIERS]) {
  int i;

  for (i = 0; i < DOMYBS_FAR_TIERS; i++)
    ret_blocks[i] = READ_ONCE (domybs_tiers[i].taken);
}

int
domybs_ranges_init (void) {
  domybs_disks_init ();
  domybs_ranges_queue = alloc_workqueue ("domybs-ranges", WQ_UNBOUND, 0);
  return domybs_ranges_queue ? 0 : -ENOMEM;
}

void
domybs_ranges_exit (void) {
  destroy_workqueue (domybs_ranges_queue); /* waits for the ranges that are being freed: nobody has one any more */
  domybs_disks_exit ();
}
