// SPDX-License-Identifier: GPL-2.0-only
/*
 * /dev/domybs: blocks for programs.
 *
 * The worker does the work: an ALLOC is queued to it and waited for. What it hands over are ordinary pages with one reference
 * of ours; a mapping takes more through page faults, so O_DIRECT and friends work, and a page that some I/O still uses when the
 * allocation goes away is freed when that I/O is done.
 *
 * An allocation belongs to an open file and is referenced by its handle and by each mapping; mappings keep the file open. So
 * nothing outlives the processes that use it.
 *
 * Blocks of far disks are another thing: ranges of a disk, whose pages come and go. See virtio_domybs_ranges.c.
 */
#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/idr.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "compat.h"
#include "domybs-drv.h"

static unsigned int domybs_user_max_blocks = 4096, domybs_user_max_open_blocks = 1024;
module_param_named (user_max_blocks, domybs_user_max_blocks, uint, 0644);
MODULE_PARM_DESC (user_max_blocks, "blocks that all users of /dev/domybs together may have");
module_param_named (user_max_open_blocks, domybs_user_max_open_blocks, uint, 0644);
MODULE_PARM_DESC (user_max_open_blocks, "blocks that one open file of /dev/domybs may have");

static unsigned int domybs_user_max_far_blocks, domybs_user_max_open_far_blocks;
module_param_named (user_max_far_blocks, domybs_user_max_far_blocks, uint, 0644);
MODULE_PARM_DESC (user_max_far_blocks, "blocks of far disks that all users of /dev/domybs together may have; 0: what there is");
module_param_named (user_max_open_far_blocks, domybs_user_max_open_far_blocks, uint, 0644);
MODULE_PARM_DESC (user_max_open_far_blocks, "blocks of far disks that one open file of /dev/domybs may have; 0: what there is");

/* An allocation's offset for mmap is its handle times this: room for any window, and handles up to 2^20 stay positive. */
#define DOMYBS_OFFSET_SHIFT 42
#define DOMYBS_HANDLES_MAX (1 << 20)

static DEFINE_IDA (domybs_misc_ida);

struct domybs_file {
  struct domybs *d;
  struct kref ref; /* the open file, and each range of it: those outlive it while they are mapped */
  struct mutex lock;
  struct idr handles; /* lock */
  u64 blocks;         /* d->lock: owned or asked for */
  u64 far_blocks;     /* d->lock: the same of far disks */
};

struct domybs_alloc {
  struct kref ref; /* the handle and each mapping; of a range the handle alone */
  struct domybs_file *file;
  struct domybs_range *range; /* NULL: blocks of the window, these: */
  u32 blocks;
  u32 *block;
};

/* ---- operations for the worker ---- */

void
domybs_op_put (struct kref *ref) {
  struct domybs_op *op = container_of (ref, struct domybs_op, ref);

  kvfree (op->block);
  kfree (op);
}

static void
domybs_user_free (struct domybs *d, const u32 *block, u32 count) {
  u32 i, k;

  for (i = 0; i < count; i++) {
    struct page *page = pfn_to_page (domybs_block_pfn (d, block[i]));

    domybs_block_set (d, block[i], DOMYBS_BLOCK_USED);
    for (k = 0; k < DOMYBS_PAGES_PER_BLOCK; k++)
      put_page (page + k);
    cond_resched ();
  }
  if (count)
    domybs_kick (d, DOMYBS_KICK_WAKE);
}

static int
domybs_op_local (struct domybs *d, struct domybs_op *op) {
  int rc = 0, idle = 0;

  d->op = op;
  while (op->got < op->blocks && !READ_ONCE (op->abandoned) && !READ_ONCE (d->draining)) {
    u32 want = op->blocks - op->got, got = 0, section, s;

    mutex_lock (&d->hotplug);
    if (d->count[DOMYBS_BLOCK_HELD])
      domybs_blocks_regrant (d, want, DOMYBS_BLOCK_USER, &got);
    if (!got) {
      /* Free memory of ours, as long as the guest has enough of it. */
      for (s = d->sections; s-- > 0 && got < want;)
        got += domybs_blocks_take_in (d, s, min_t (u64, want - got, domybs_to_spare_blocks ()), false, DOMYBS_BLOCK_USER);
    }
    mutex_unlock (&d->hotplug);
    if (got) {
      idle = 0;
      continue;
    }
    rc = d->section_count[DOMYBS_SECTION_SPARE] ? 0 : domybs_spare_fill (d, false);
    if (!rc)
      rc = domybs_section_grow (d, &section);
    if (rc > 0) {
      idle = 0;
      mutex_lock (&d->hotplug);
      domybs_blocks_take_in (d, section, want, false, DOMYBS_BLOCK_USER);
      mutex_unlock (&d->hotplug);
      domybs_spare_fill (d, false);
      rc = 0;
    } else if (rc != -EAGAIN || ++idle > 20) {
      break;
    } else {
      schedule_timeout_interruptible (HZ / 20);
    }
  }
  d->op = NULL;
  if (op->got == op->blocks)
    return 0;
  return rc < 0 ? rc : -ENOMEM;
}

bool
domybs_ops_run (struct domybs *d) {
  struct domybs_op *op;
  bool abandoned;

  spin_lock_irq (&d->lock);
  op = list_first_entry_or_null (&d->ops, struct domybs_op, list);
  if (op)
    list_del_init (&op->list);
  spin_unlock_irq (&d->lock);
  if (!op)
    return false;

  if (READ_ONCE (d->broken) || READ_ONCE (d->draining) || !d->session)
    op->result = -ENODEV;
  else
    op->result = domybs_op_local (d, op);
  if (op->result == -EIO)
    op->result = -ENODEV;

  spin_lock_irq (&d->lock);
  op->finished = true;
  abandoned = op->abandoned;
  spin_unlock_irq (&d->lock);
  if (abandoned || op->result) {
    domybs_user_free (d, op->block, op->got);
    op->got = 0;
  }
  complete (&op->done);
  kref_put (&op->ref, domybs_op_put);
  domybs_kick (d, DOMYBS_KICK_WAKE); /* there may be another */
  return true;
}

/* Queues, waits. The blocks are op->block when this returns 0. */
static int
domybs_op_submit (struct domybs *d, struct domybs_op *op) {
  bool finished;
  int rc;

  spin_lock_irq (&d->lock);
  if (d->gone || d->broken || d->draining) {
    spin_unlock_irq (&d->lock);
    return -ENODEV;
  }
  kref_get (&op->ref);
  list_add_tail (&op->list, &d->ops);
  spin_unlock_irq (&d->lock);
  domybs_kick (d, DOMYBS_KICK_WAKE);

  rc = wait_for_completion_killable (&op->done);
  if (!rc)
    return op->result;
  spin_lock_irq (&d->lock);
  finished = op->finished;
  if (!finished)
    op->abandoned = true;
  spin_unlock_irq (&d->lock);
  if (!finished)
    return -EINTR;
  wait_for_completion (&op->done);
  return op->result;
}

/* ---- allocations ---- */

static void
domybs_file_release (struct kref *ref) {
  struct domybs_file *file = container_of (ref, struct domybs_file, ref);

  domybs_put (file->d);
  kfree (file);
}

static void
domybs_alloc_release (struct kref *ref) {
  struct domybs_alloc *alloc = container_of (ref, struct domybs_alloc, ref);
  struct domybs *d = alloc->file->d;

  if (alloc->range) {
    domybs_range_put (alloc->range);
    kfree (alloc);
    return;
  }
  domybs_user_free (d, alloc->block, alloc->blocks);
  spin_lock_irq (&d->lock);
  alloc->file->blocks -= alloc->blocks;
  d->user_reserved -= alloc->blocks;
  spin_unlock_irq (&d->lock);
  kvfree (alloc->block);
  kfree (alloc);
}

static void
domybs_alloc_put (struct domybs_alloc *alloc) {
  kref_put (&alloc->ref, domybs_alloc_release);
}

static bool
domybs_charge (struct domybs_file *file, u64 blocks) {
  struct domybs *d = file->d;
  u64 file_max = READ_ONCE (domybs_user_max_open_blocks), all_max = READ_ONCE (domybs_user_max_blocks);
  bool good;

  spin_lock_irq (&d->lock);
  good = blocks <= file_max && file->blocks <= file_max - blocks && blocks <= all_max && d->user_reserved <= all_max - blocks;
  if (good) {
    file->blocks += blocks;
    d->user_reserved += blocks;
  }
  spin_unlock_irq (&d->lock);
  return good;
}

static void
domybs_uncharge (struct domybs_file *file, u64 blocks) {
  spin_lock_irq (&file->d->lock);
  file->blocks -= blocks;
  file->d->user_reserved -= blocks;
  spin_unlock_irq (&file->d->lock);
}

static bool
domybs_charge_far (struct domybs_file *file, u64 blocks) {
  struct domybs *d = file->d;
  u64 file_max = READ_ONCE (domybs_user_max_open_far_blocks) ?: U32_MAX,
      all_max = READ_ONCE (domybs_user_max_far_blocks) ?: U32_MAX;
  bool good;

  spin_lock_irq (&d->lock);
  good = blocks <= file_max && file->far_blocks <= file_max - blocks && blocks <= all_max && d->user_far <= all_max - blocks;
  if (good) {
    file->far_blocks += blocks;
    d->user_far += blocks;
  }
  spin_unlock_irq (&d->lock);
  return good;
}

static void
domybs_uncharge_far (struct domybs_file *file, u64 blocks) {
  spin_lock_irq (&file->d->lock);
  file->far_blocks -= blocks;
  file->d->user_far -= blocks;
  spin_unlock_irq (&file->d->lock);
}

static void
domybs_range_freed (void *owner, u32 blocks) {
  struct domybs_file *file = owner;

  domybs_uncharge_far (file, blocks);
  kref_put (&file->ref, domybs_file_release);
}

static int
domybs_alloc_far (struct domybs_file *file, u32 hint, u32 blocks, struct domybs_alloc **ret) {
  struct domybs_alloc *alloc = kzalloc (sizeof *alloc, GFP_KERNEL_ACCOUNT);
  int rc;

  if (!alloc)
    return -ENOMEM;
  kref_get (&file->ref);
  rc = domybs_range_new (hint, blocks, domybs_range_freed, file, &alloc->range);
  if (rc) {
    kref_put (&file->ref, domybs_file_release);
    kfree (alloc);
    return rc;
  }
  kref_init (&alloc->ref);
  alloc->file = file;
  alloc->blocks = blocks;
  *ret = alloc;
  return 0;
}

static int
domybs_alloc_new (struct domybs_file *file, u32 hint, u32 blocks, struct domybs_alloc **ret) {
  struct domybs_alloc *alloc = kzalloc (sizeof *alloc, GFP_KERNEL_ACCOUNT);
  struct domybs_op *op = kzalloc (sizeof *op, GFP_KERNEL_ACCOUNT);
  int rc = -ENOMEM;

  if (!alloc || !op)
    goto out_free;
  kref_init (&op->ref);
  init_completion (&op->done);
  op->hint = hint;
  op->blocks = blocks;
  op->block = kvmalloc_array (blocks, sizeof *op->block, GFP_KERNEL_ACCOUNT);
  if (!op->block)
    goto out_free;
  rc = domybs_op_submit (file->d, op);
  if (rc) {
    kref_put (&op->ref, domybs_op_put);
    kfree (alloc);
    return rc;
  }
  kref_init (&alloc->ref);
  alloc->file = file;
  alloc->blocks = blocks;
  swap (alloc->block, op->block);
  kref_put (&op->ref, domybs_op_put);
  *ret = alloc;
  return 0;

out_free:
  kfree (op);
  kfree (alloc);
  return rc;
}

static long
domybs_ioctl_alloc (struct domybs_file *file, struct domybs_ioc_alloc __user *arg) {
  struct domybs_ioc_alloc in;
  struct domybs_alloc *alloc;
  int rc, handle;
  bool far;

  if (copy_from_user (&in, arg, sizeof in))
    return -EFAULT;
  if (!in.blocks || in.hint > DOMYBS_HINT_REMOTE || in.flags || in.handle || in.offset || in.reserved[0] || in.reserved[1])
    return -EINVAL;
  far = in.hint == DOMYBS_HINT_SHARED || in.hint == DOMYBS_HINT_REMOTE;
  if (far ? !domybs_charge_far (file, in.blocks) : !domybs_charge (file, in.blocks))
    return -EDQUOT;
  if (far)
    rc = domybs_alloc_far (file, in.hint, (u32)in.blocks, &alloc);
  else
    rc = domybs_alloc_new (file, in.hint, (u32)in.blocks, &alloc);
  if (rc) {
    if (far)
      domybs_uncharge_far (file, in.blocks);
    else
      domybs_uncharge (file, in.blocks);
    return rc;
  }
  mutex_lock (&file->lock);
  handle = idr_alloc (&file->handles, alloc, 1, DOMYBS_HANDLES_MAX, GFP_KERNEL_ACCOUNT);
  mutex_unlock (&file->lock);
  if (handle < 0) {
    domybs_alloc_put (alloc);
    return handle;
  }
  in.handle = handle;
  in.offset = (u64)handle << DOMYBS_OFFSET_SHIFT;
  if (copy_to_user (arg, &in, sizeof in)) {
    /* Nobody else can have freed it in between unless they guessed the handle; then there is nothing left to free. */
    mutex_lock (&file->lock);
    alloc = idr_remove (&file->handles, handle);
    mutex_unlock (&file->lock);
    if (alloc)
      domybs_alloc_put (alloc);
    return -EFAULT;
  }
  return 0;
}

static long
domybs_ioctl_free (struct domybs_file *file, const struct domybs_ioc_free __user *arg) {
  struct domybs_ioc_free in;
  struct domybs_alloc *alloc;

  if (copy_from_user (&in, arg, sizeof in))
    return -EFAULT;
  if (in.reserved || !in.handle || in.handle >= DOMYBS_HANDLES_MAX)
    return -EINVAL;
  mutex_lock (&file->lock);
  alloc = idr_remove (&file->handles, (unsigned long)in.handle);
  mutex_unlock (&file->lock);
  if (!alloc)
    return -ENOENT;
  domybs_alloc_put (alloc);
  return 0;
}

static long
domybs_ioctl_info (struct domybs_file *file, struct domybs_ioc_info __user *arg) {
  struct domybs *d = file->d;
  struct domybs_ioc_info out = {
    .uapi_version = DOMYBS_UAPI_VERSION,
    .block_bytes = DOMYBS_BLOCK_BYTES,
    .section_blocks = d->section_blocks,
    .window_blocks = d->window_blocks,
    .max_blocks = READ_ONCE (d->config.max_blocks),
    .file_max_blocks = READ_ONCE (domybs_user_max_open_blocks),
    .user_max_blocks = READ_ONCE (domybs_user_max_blocks),
  };

  return copy_to_user (arg, &out, sizeof out) ? -EFAULT : 0;
}

static long
domybs_ioctl_stats (struct domybs_file *file, struct domybs_ioc_stats __user *arg) {
  struct domybs *d = file->d;
  struct domybs_ioc_stats out = {};

  spin_lock_irq (&d->lock);
  out.granted = domybs_granted_locked (d);
  out.online = d->count[DOMYBS_BLOCK_USED];
  out.held = d->count[DOMYBS_BLOCK_HELD];
  out.reserve = d->count[DOMYBS_BLOCK_RESERVE];
  out.user = d->count[DOMYBS_BLOCK_USER];
  out.stuck = d->stuck;
  out.file_blocks = file->blocks;
  out.max_blocks = d->config.max_blocks;
  out.grants = d->counters.granted;
  out.releases = d->counters.released;
  spin_unlock_irq (&d->lock);
  return copy_to_user (arg, &out, sizeof out) ? -EFAULT : 0;
}

static long
domybs_ioctl_far (struct domybs_file *file, struct domybs_ioc_far __user *arg) {
  struct domybs_ioc_far out = {};

  domybs_ranges_sizes (out.disk_blocks);
  domybs_ranges_used (out.used_blocks);
  spin_lock_irq (&file->d->lock);
  out.file_blocks = file->far_blocks;
  spin_unlock_irq (&file->d->lock);
  out.file_max_blocks = READ_ONCE (domybs_user_max_open_far_blocks);
  out.user_max_blocks = READ_ONCE (domybs_user_max_far_blocks);
  return copy_to_user (arg, &out, sizeof out) ? -EFAULT : 0;
}

static long
domybs_ioctl (struct file *filp, unsigned int cmd, unsigned long arg) {
  struct domybs_file *file = filp->private_data;
  void __user *user = (void __user *)arg;

  if (READ_ONCE (file->d->gone))
    return -ENODEV;
  switch (cmd) {
  case DOMYBS_IOC_INFO:
    return domybs_ioctl_info (file, user);
  case DOMYBS_IOC_ALLOC:
    return domybs_ioctl_alloc (file, user);
  case DOMYBS_IOC_FREE:
    return domybs_ioctl_free (file, user);
  case DOMYBS_IOC_STATS:
    return domybs_ioctl_stats (file, user);
  case DOMYBS_IOC_FAR:
    return domybs_ioctl_far (file, user);
  default:
    return -ENOTTY;
  }
}

/* ---- mappings ---- */

static void
domybs_vma_open (struct vm_area_struct *vma) {
  struct domybs_alloc *alloc = vma->vm_private_data;

  kref_get (&alloc->ref);
}

static void
domybs_vma_close (struct vm_area_struct *vma) {
  domybs_alloc_put (vma->vm_private_data);
}

static vm_fault_t
domybs_vma_fault (struct vm_fault *vmf) {
  struct domybs_alloc *alloc = vmf->vma->vm_private_data;
  u64 index = vmf->pgoff & ((1ull << (DOMYBS_OFFSET_SHIFT - PAGE_SHIFT)) - 1);
  u64 block = index / DOMYBS_PAGES_PER_BLOCK;

  if (block >= alloc->blocks)
    return VM_FAULT_SIGBUS;
  vmf->page = pfn_to_page (domybs_block_pfn (alloc->file->d, alloc->block[block]) + index % DOMYBS_PAGES_PER_BLOCK);
  get_page (vmf->page);
  return 0;
}

static const struct vm_operations_struct domybs_vm_ops = {
  .open = domybs_vma_open,
  .close = domybs_vma_close,
  .fault = domybs_vma_fault,
};

static int
domybs_mmap (struct file *filp, struct vm_area_struct *vma) {
  struct domybs_file *file = filp->private_data;
  u64 offset = (u64)vma->vm_pgoff << PAGE_SHIFT, inside = offset & ((1ull << DOMYBS_OFFSET_SHIFT) - 1);
  u64 handle = offset >> DOMYBS_OFFSET_SHIFT, bytes = vma->vm_end - vma->vm_start;
  struct domybs_alloc *alloc;
  int rc;

  if (!(vma->vm_flags & VM_SHARED))
    return -EINVAL;
  mutex_lock (&file->lock);
  alloc = handle && handle < DOMYBS_HANDLES_MAX ? idr_find (&file->handles, (unsigned long)handle) : NULL;
  if (alloc)
    kref_get (&alloc->ref);
  mutex_unlock (&file->lock);
  if (!alloc)
    return -ENOENT;
  if (alloc->range) {
    rc = domybs_range_mmap (alloc->range, vma, inside);
    domybs_alloc_put (alloc);
    return rc;
  }
  if (inside + bytes > (u64)alloc->blocks << DOMYBS_BLOCK_SHIFT) {
    domybs_alloc_put (alloc);
    return -EINVAL;
  }
  vma->vm_private_data = alloc;
  vma->vm_ops = &domybs_vm_ops;
  domybs_vma_set_flags (vma, VM_DONTEXPAND);
  return 0;
}

/* ---- open, close ---- */

static int
domybs_open (struct inode *inode, struct file *filp) {
  struct domybs *d = container_of (filp->private_data, struct domybs, misc);
  struct domybs_file *file = kzalloc (sizeof *file, GFP_KERNEL_ACCOUNT);

  if (!file)
    return -ENOMEM;
  kref_get (&d->ref);
  kref_init (&file->ref);
  file->d = d;
  mutex_init (&file->lock);
  idr_init (&file->handles);
  filp->private_data = file;
  return 0;
}

static int
domybs_close (struct inode *inode, struct file *filp) {
  struct domybs_file *file = filp->private_data;
  struct domybs_alloc *alloc;
  int handle;

  idr_for_each_entry (&file->handles, alloc, handle) {
    domybs_alloc_put (alloc);
  }
  idr_destroy (&file->handles);
  kref_put (&file->ref, domybs_file_release);
  return 0;
}

static const struct file_operations domybs_fops = {
  .owner = THIS_MODULE,
  .open = domybs_open,
  .release = domybs_close,
  .unlocked_ioctl = domybs_ioctl,
  .compat_ioctl = compat_ptr_ioctl,
  .mmap = domybs_mmap,
};

int
domybs_chardev_init (struct domybs *d) {
  int rc;

  domybs_disks_bus_set (d->dev->bus);
  d->misc_index = ida_alloc (&domybs_misc_ida, GFP_KERNEL);
  if (d->misc_index < 0)
    return d->misc_index;
  if (d->misc_index)
    snprintf (d->misc_name, sizeof d->misc_name, "domybs%d", d->misc_index);
  else
    strscpy (d->misc_name, "domybs", sizeof d->misc_name);
  d->misc.minor = MISC_DYNAMIC_MINOR;
  d->misc.name = d->misc_name;
  d->misc.fops = &domybs_fops;
  d->misc.mode = 0600;
  rc = misc_register (&d->misc);
  if (rc)
    ida_free (&domybs_misc_ida, d->misc_index);
  return rc;
}

void
domybs_chardev_exit (struct domybs *d) {
  misc_deregister (&d->misc);
  ida_free (&domybs_misc_ida, d->misc_index);
}
