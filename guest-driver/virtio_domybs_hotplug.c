// SPDX-License-Identifier: GPL-2.0-only
/*
 * Between us and the kernel's memory hotplug.
 *
 * Nobody but the worker may bring a section online: the memory notifier refuses (udev rules and the kernel's auto-online policy
 * try) until all its blocks are granted, and allows only ZONE_MOVABLE. The kernel exports nothing to bring a memory block
 * online with, so the worker writes to its sysfs file, through a private mount of sysfs and a file opened when the section was
 * added.
 *
 * Adding and removing sections waits for the kernel's hotplug lock, and whoever unplugs our device through ACPI holds that lock
 * while he waits for us. So these two run on a workqueue, and the worker, which an unplug needs for getting everything back,
 * stops waiting for them once the device is being removed. (Writing to the sysfs file only tries the lock.) What is left of the
 * sections then is buried by another workqueue when the lock is free again: offline or wholly taken sections, nothing in them is
 * anybody's. The next device may be there before that is done. It leaves the places of such sections alone until they are free.
 */
#include <linux/delay.h>
#include <linux/err.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/ioport.h>
#include <linux/memory.h>
#include <linux/memory_hotplug.h>
#include <linux/mm.h>
#include <linux/mount.h>
#include <linux/pci.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/workqueue.h>

#include "compat.h"
#include "domybs-drv.h"

#define DOMYBS_STATE_RETRIES 200 /* × 10 ms: somebody else's hotplug operation holds the lock */
#define DOMYBS_BURY_RETRIES 300  /* × 100 ms, then slower */
#define DOMYBS_AGAIN_WAIT 600 /* × 100 ms */

static struct workqueue_struct *domybs_hotplug_queue, *domybs_burial_queue;
static atomic_t domybs_burials; /* under way */
static LIST_HEAD (domybs_dying); /* domybs_resources_lock: devices that are being removed and may have sections still */
static DEFINE_MUTEX (domybs_resources_lock); /* who puts back what a section has in iomem */

static void
domybs_section_blocks_set (struct domybs *d, u32 s, enum domybs_block_state from, enum domybs_block_state to) {
  u64 first = domybs_section_start_block (d, s), b;

  spin_lock_irq (&d->lock);
  for (b = first; b < first + d->section_blocks; b++)
    if (d->block[b] == from)
      domybs_block_set_locked (d, b, to);
  spin_unlock_irq (&d->lock);
}

/* ---- the memory notifier ---- */

static u32
domybs_section_of (const struct domybs *d, const struct memory_notify *arg) {
  u64 phys = PFN_PHYS (arg->start_pfn);

  if (phys < d->window_phys || phys >= domybs_section_phys (d, d->sections))
    return DOMYBS_SECTION_NONE;
  return (u32)((phys - d->window_phys) >> DOMYBS_BLOCK_SHIFT) / d->section_blocks;
}

static int
domybs_going_online (struct domybs *d, u32 s, const struct memory_notify *arg) {
  struct domybs_section *section = &d->section[s];
  bool good;

  mutex_lock (&d->hotplug);
  spin_lock_irq (&d->lock);
  good = section->state == DOMYBS_SECTION_PARKED && d->onlining == s && section->count[DOMYBS_BLOCK_PARKED] == d->section_blocks
         && arg->nr_pages == d->section_blocks * DOMYBS_PAGES_PER_BLOCK
         && zone_idx (page_zone (pfn_to_page (arg->start_pfn))) == ZONE_MOVABLE;
  if (!good)
    d->counters.refused_online++;
  spin_unlock_irq (&d->lock);
  if (!good) {
    mutex_unlock (&d->hotplug);
    return NOTIFY_BAD;
  }
  domybs_section_set (d, s, DOMYBS_SECTION_ONLINING);
  d->hotplug_owner = s;
  return NOTIFY_OK;
}

static int
domybs_going_offline (struct domybs *d, u32 s) {
  u64 first = domybs_section_start_block (d, s), b;
  bool users;

  mutex_lock (&d->hotplug);
  spin_lock_irq (&d->lock);
  users = d->section[s].count[DOMYBS_BLOCK_USER];
  spin_unlock_irq (&d->lock);
  if (users || d->section[s].state != DOMYBS_SECTION_ONLINE) {
    /* Pages that users of /dev/domybs have are pinned: the kernel would try to move them for ever. */
    mutex_unlock (&d->hotplug);
    return notifier_from_errno (-EBUSY);
  }
  /* From here on the OOM notifier leaves the section's reserve alone. Pages that we took count as free for offlining when
   * nobody has a reference, not even we. */
  domybs_section_set (d, s, DOMYBS_SECTION_LEAVING);
  d->hotplug_owner = s;
  for (b = first; b < first + d->section_blocks; b++)
    domybs_pages_ref_drop (d, b);
  return NOTIFY_OK;
}

static void
domybs_hotplug_end (struct domybs *d) {
  d->hotplug_owner = DOMYBS_SECTION_NONE;
  mutex_unlock (&d->hotplug);
}

/*
 * Whether the memory in the place of our section s is another device's: one that was unplugged is buried while the next one has its
 * addresses already, and each hears of the other's sections. What is being brought online in a place where we have nothing is ours
 * to refuse while we have the window, and when it is a section that we are just adding, which may outlast the window.
 */
static bool
domybs_is_foreign (struct domybs *d, u32 s, unsigned long action) {
  const struct domybs_hotplug *h = &d->hotplug_command;
  bool adding, foreign;

  spin_lock_irq (&d->lock);
  adding = h->busy && h->add && h->section == s;
  foreign = d->section[s].state == DOMYBS_SECTION_ABSENT
            && ((d->gone && !adding) || action == MEM_GOING_OFFLINE || action == MEM_CANCEL_OFFLINE || action == MEM_OFFLINE);
  spin_unlock_irq (&d->lock);
  return foreign;
}

static int
domybs_memory_notify (struct notifier_block *nb, unsigned long action, void *data) {
  struct domybs *d = container_of (nb, struct domybs, memory_nb);
  u32 s = domybs_section_of (d, data);
  u64 b, first;

  if (s == DOMYBS_SECTION_NONE || domybs_is_foreign (d, s, action))
    return NOTIFY_DONE;
  first = domybs_section_start_block (d, s);

  switch (action) {
  case MEM_GOING_ONLINE:
    return domybs_going_online (d, s, data);
  case MEM_ONLINE:
    domybs_section_blocks_set (d, s, DOMYBS_BLOCK_PARKED, DOMYBS_BLOCK_USED);
    domybs_section_set (d, s, DOMYBS_SECTION_ONLINE);
    d->counters.onlined++;
    domybs_hotplug_end (d);
    break;
  case MEM_CANCEL_ONLINE: /* also comes when it was we who refused, or somebody before us */
    if (d->section[s].state == DOMYBS_SECTION_ONLINING && d->hotplug_owner == s) {
      domybs_section_set (d, s, DOMYBS_SECTION_PARKED);
      domybs_hotplug_end (d);
    }
    break;
  case MEM_GOING_OFFLINE:
    return domybs_going_offline (d, s);
  case MEM_CANCEL_OFFLINE:
    if (d->section[s].state == DOMYBS_SECTION_LEAVING && d->hotplug_owner == s) {
      for (b = first; b < first + d->section_blocks; b++)
        domybs_pages_ref_restore (d, b);
      domybs_section_set (d, s, DOMYBS_SECTION_ONLINE);
      domybs_hotplug_end (d);
    }
    break;
  case MEM_OFFLINE:
    domybs_section_blocks_set (d, s, DOMYBS_BLOCK_HELD, DOMYBS_BLOCK_VOID);
    domybs_section_blocks_set (d, s, DOMYBS_BLOCK_USED, DOMYBS_BLOCK_PARKED);
    domybs_section_blocks_set (d, s, DOMYBS_BLOCK_TAKEN, DOMYBS_BLOCK_PARKED);
    domybs_section_blocks_set (d, s, DOMYBS_BLOCK_RESERVE, DOMYBS_BLOCK_PARKED);
    domybs_section_set (d, s, d->section[s].count[DOMYBS_BLOCK_PARKED] ? DOMYBS_SECTION_PARKED : DOMYBS_SECTION_SPARE);
    d->counters.offlined++;
    domybs_hotplug_end (d);
    domybs_kick (d, DOMYBS_KICK_WAKE); /* somebody else may have done it: what is granted in it can go back */
    break;
  default:
    break;
  }
  return NOTIFY_OK;
}

/* ---- the sysfs file of a memory block ---- */

static struct file *
domybs_sysfs_open (struct domybs *d, const char *path) {
  if (!d->sysfs_mnt) {
    struct file_system_type *type = get_fs_type ("sysfs");
    struct vfsmount *mnt;

    if (!type)
      return ERR_PTR (-ENODEV);
    mnt = kern_mount (type);
    module_put (type->owner);
    if (IS_ERR (mnt))
      return ERR_CAST (mnt);
    d->sysfs_mnt = mnt;
  }
  return file_open_root_mnt (d->sysfs_mnt, path, O_WRONLY | O_LARGEFILE, 0);
}

int
domybs_sysfs_write (struct domybs *d, const char *path, const char *word) {
  struct file *file = domybs_sysfs_open (d, path);
  loff_t pos = 0;
  ssize_t n;

  if (IS_ERR (file))
    return PTR_ERR (file);
  n = kernel_write (file, word, strlen (word), &pos);
  fput (file);
  return n < 0 ? n : 0;
}

static struct file *
domybs_state_open (struct domybs *d, u32 s) {
  char path[64];

  snprintf (path, sizeof path, "devices/system/memory/memory%llu/state",
            (unsigned long long)(domybs_section_phys (d, s) / memory_block_size_bytes ()));
  return domybs_sysfs_open (d, path);
}

int
domybs_hotplug_state (struct domybs *d, u32 s, const char *word) {
  struct domybs_section *section = &d->section[s];
  int tries;

  if (!section->state_file) {
    section->state_file = domybs_state_open (d, s);
    if (IS_ERR (section->state_file)) {
      int rc = PTR_ERR (section->state_file);

      section->state_file = NULL;
      dev_warn_ratelimited (d->dev, "cannot open the state file of section %u: %d\n", s, rc);
      return rc;
    }
  }
  for (tries = 0;; tries++) {
    loff_t pos = 0;
    ssize_t n = kernel_write (section->state_file, word, strlen (word), &pos);

    if (n >= 0)
      return 0;
    if (n != -ERESTARTNOINTR || tries >= DOMYBS_STATE_RETRIES || READ_ONCE (d->draining))
      return n == -ERESTARTNOINTR ? -EBUSY : n;
    /* Somebody else has the hotplug lock; sysfs asked us, by a pretended signal, to begin again. */
    flush_signals (current);
    schedule_timeout_uninterruptible (msecs_to_jiffies (5));
  }
}

static void
domybs_state_close (struct domybs_section *section) {
  if (section->state_file)
    fput (section->state_file);
  section->state_file = NULL;
}

/* ---- adding and removing, on the workqueue ---- */

static int
domybs_add_now (struct domybs *d, u32 s) {
  /* That there is enough memory was looked at before, and reclaiming here could mean to wait for a process that is out of
   * memory and waits for us. */
  unsigned int noreclaim = memalloc_noreclaim_save ();
  struct file *file;
  int rc;

  rc = add_memory_driver_managed (d->node, domybs_section_phys (d, s), domybs_section_bytes (d), d->resource_name, MHP_NONE);
  if (!rc) {
    domybs_section_set (d, s, DOMYBS_SECTION_SPARE);
    d->counters.added++;
    file = domybs_state_open (d, s);
    if (IS_ERR (file))
      dev_warn_ratelimited (d->dev, "cannot open the state file of section %u: %ld\n", s, PTR_ERR (file));
    else
      d->section[s].state_file = file; /* if not, it is tried again when it is needed */
  }
  memalloc_noreclaim_restore (noreclaim);
  return rc;
}

static void domybs_section_gone (struct domybs *d, u32 s);

static int
domybs_remove_now (struct domybs *d, u32 s) {
  int rc;

  domybs_state_close (&d->section[s]);
  rc = offline_and_remove_memory (domybs_section_phys (d, s), domybs_section_bytes (d));
  if (rc)
    return rc;
  domybs_section_gone (d, s);
  d->counters.removed++;
  return 0;
}

static void
domybs_hotplug_work (struct work_struct *work) {
  struct domybs *d = container_of (work, struct domybs, hotplug_work);
  struct domybs_hotplug *h = &d->hotplug_command;
  int rc = h->add ? domybs_add_now (d, h->section) : domybs_remove_now (d, h->section);

  spin_lock_irq (&d->lock);
  h->rc = rc;
  h->busy = false;
  spin_unlock_irq (&d->lock);
  wake_up_all (&d->hotplug_wait);
  domybs_put (d);
}

static int
domybs_hotplug_run (struct domybs *d, u32 s, bool add) {
  struct domybs_hotplug *h = &d->hotplug_command;
  int rc;

  if (READ_ONCE (h->busy) || READ_ONCE (d->draining))
    return -ESHUTDOWN;
  *h = (struct domybs_hotplug){ .busy = true, .add = add, .section = s };
  kref_get (&d->ref);
  queue_work (domybs_hotplug_queue, &d->hotplug_work);
  wait_event (d->hotplug_wait, !READ_ONCE (h->busy) || READ_ONCE (d->draining));
  spin_lock_irq (&d->lock);
  rc = h->busy ? -ESHUTDOWN : h->rc;
  spin_unlock_irq (&d->lock);
  return rc;
}

int
domybs_hotplug_add (struct domybs *d, u32 s) {
  return domybs_hotplug_run (d, s, true);
}

int
domybs_hotplug_remove (struct domybs *d, u32 s) {
  return domybs_hotplug_run (d, s, false);
}

/* ---- burial ---- */

/* When the PCI device goes, its BAR's resource goes, and with it what we had registered inside; offlining wants to find it. And
 * the kernel may look for room for the next device at any time: it must not put a BAR on top of a section, which could never be
 * removed then. So all come back at once: in the notifier below, while whoever removes the device still keeps others from looking
 * for room. If they leave no room for the next device's window, it comes later (again, below). */
static void
domybs_resources_restore_locked (struct domybs *d) {
  u64 bytes = domybs_section_bytes (d);
  u32 s;

  for (s = 0; s < d->sections; s++) {
    u64 start = domybs_section_phys (d, s);

    if (d->section[s].state != DOMYBS_SECTION_ABSENT
        && region_intersects (start, bytes, IORESOURCE_SYSTEM_RAM, IORES_DESC_NONE) == REGION_DISJOINT)
      __request_region (&iomem_resource, start, bytes, d->resource_name,
                        IORESOURCE_SYSTEM_RAM | IORESOURCE_SYSRAM_DRIVER_MANAGED);
  }
}

static void
domybs_resources_restore (struct domybs *d) {
  mutex_lock (&domybs_resources_lock);
  domybs_resources_restore_locked (d);
  mutex_unlock (&domybs_resources_lock);
}

/* The PCI core has forgotten the device, and frees its BARs next: we free that of the window before, so that its place never looks
 * free. A section that is being removed at this moment may get its resource back, too: who removes it looks. */
static int
domybs_pci_notify (struct notifier_block *nb, unsigned long action, void *data) {
  struct domybs *d;
  int i;

  if (action != BUS_NOTIFY_REMOVED_DEVICE)
    return NOTIFY_DONE;
  mutex_lock (&domybs_resources_lock);
  list_for_each_entry (d, &domybs_dying, dying) {
    if (d->dying_pci != data)
      continue;
    for (i = 0; i < PCI_STD_NUM_BARS; i++) {
      struct resource *bar = &to_pci_dev (d->dying_pci)->resource[i];

      if (bar->parent && bar->start <= d->window_phys && bar->end >= d->window_phys)
        release_resource (bar);
    }
    domybs_resources_restore_locked (d);
    d->dying_pci = NULL;
  }
  mutex_unlock (&domybs_resources_lock);
  return NOTIFY_DONE;
}

static struct notifier_block domybs_pci_nb = { .notifier_call = domybs_pci_notify };

void
domybs_hotplug_dying (struct domybs *d, struct virtio_device *vdev) {
  if (!dev_is_pci (vdev->dev.parent))
    return;
  mutex_lock (&domybs_resources_lock);
  d->dying_pci = vdev->dev.parent;
  list_add (&d->dying, &domybs_dying);
  mutex_unlock (&domybs_resources_lock);
}

/* The section has gone: so has what the notifier may have put back for it meanwhile. */
static void
domybs_section_gone (struct domybs *d, u32 s) {
  u64 start = domybs_section_phys (d, s), bytes = domybs_section_bytes (d);

  mutex_lock (&domybs_resources_lock);
  domybs_section_set (d, s, DOMYBS_SECTION_ABSENT);
  if (region_intersects (start, bytes, IORESOURCE_SYSTEM_RAM, IORES_DESC_NONE) == REGION_INTERSECTS)
    __release_region (&iomem_resource, start, bytes);
  mutex_unlock (&domybs_resources_lock);
}

static void
domybs_bury_work (struct work_struct *work) {
  struct domybs *d = container_of (work, struct domybs, bury_work);
  u32 s, left, tries;

  flush_work (&d->hotplug_work);
  for (tries = 0;; tries++) {
    left = 0;
    domybs_resources_restore (d);
    for (s = 0; s < d->sections; s++)
      if (d->section[s].state != DOMYBS_SECTION_ABSENT)
        left += domybs_remove_now (d, s) != 0;
    if (!left)
      break;
    if (tries == DOMYBS_BURY_RETRIES)
      dev_crit (d->dev, "%u sections of the removed device cannot be removed now\n", left);
    /* The notifier stays meanwhile, so that nobody brings them online again. */
    if (tries >= DOMYBS_BURY_RETRIES && !d->module_held) {
      atomic_dec (&domybs_burials);
      return;
    }
    if (tries) /* the first time we waited for the lock, and meanwhile the resources went */
      msleep (tries < DOMYBS_BURY_RETRIES ? 100 : 1000);
  }
  mutex_lock (&domybs_resources_lock);
  list_del_init (&d->dying);
  mutex_unlock (&domybs_resources_lock);
  domybs_sections_exit (d);
  atomic_dec (&domybs_burials);
  spin_lock_irq (&d->lock);
  d->buried = true;
  spin_unlock_irq (&d->lock);
  wake_up_all (&d->hotplug_wait);
  domybs_put (d);
}

void
domybs_hotplug_bury (struct domybs *d) {
  kref_get (&d->ref);
  atomic_inc (&domybs_burials);
  queue_work (domybs_burial_queue, &d->bury_work);
  /* Unless it is the ACPI that removes the device, there is no reason to leave it for later. */
  wait_event_timeout (d->hotplug_wait, READ_ONCE (d->buried), HZ / 2);
}

/* ---- a device that found no room for its window because of a burial ---- */

struct domybs_again {
  struct work_struct work;
  struct pci_dev *pci;
};

/* Has the kernel find the device anew, as `remove` and `rescan` in sysfs do, once the last one's sections have gone. */
static void
domybs_again_work (struct work_struct *work) {
  struct domybs_again *again = container_of (work, struct domybs_again, work);
  struct pci_dev *pci = again->pci, *there;
  u32 i;

  for (i = 0; i < DOMYBS_AGAIN_WAIT && atomic_read (&domybs_burials); i++)
    msleep (100);
  pci_lock_rescan_remove ();
  there = pci_get_slot (pci->bus, pci->devfn);
  if (there == pci) { /* it may have been unplugged meanwhile */
    pci_stop_and_remove_bus_device (pci);
    pci_rescan_bus (pci->bus);
  }
  pci_unlock_rescan_remove ();
  pci_dev_put (there);
  pci_dev_put (pci);
  kfree (again);
}

bool
domybs_hotplug_again (struct virtio_device *vdev) {
  struct domybs_again *again;

  if (!atomic_read (&domybs_burials) || !dev_is_pci (vdev->dev.parent))
    return false;
  again = kzalloc (sizeof *again, GFP_KERNEL);
  if (!again)
    return false;
  INIT_WORK (&again->work, domybs_again_work);
  again->pci = pci_dev_get (to_pci_dev (vdev->dev.parent));
  return queue_work (domybs_burial_queue, &again->work);
}

int
domybs_hotplug_init (struct domybs *d) {
  d->onlining = d->hotplug_owner = DOMYBS_SECTION_NONE;
  INIT_WORK (&d->hotplug_work, domybs_hotplug_work);
  INIT_WORK (&d->bury_work, domybs_bury_work);
  INIT_LIST_HEAD (&d->dying);
  d->memory_nb.notifier_call = domybs_memory_notify;
  return register_memory_notifier (&d->memory_nb);
}

void
domybs_hotplug_exit (struct domybs *d) {
  u32 s;

  unregister_memory_notifier (&d->memory_nb);
  for (s = 0; s < d->sections; s++)
    domybs_state_close (&d->section[s]);
  if (d->sysfs_mnt)
    kern_unmount (d->sysfs_mnt);
  d->sysfs_mnt = NULL;
}

int
domybs_hotplug_module_init (void) {
  int rc;

  /* MEM_RECLAIM: it has a thread of its own from the start, because it is needed most when a new one cannot be had. */
  domybs_hotplug_queue = alloc_ordered_workqueue ("domybs", WQ_MEM_RECLAIM);
  if (!domybs_hotplug_queue)
    return -ENOMEM;
  domybs_burial_queue = alloc_workqueue ("domybs-burial", WQ_UNBOUND | WQ_MEM_RECLAIM, 0);
  if (!domybs_burial_queue) {
    destroy_workqueue (domybs_hotplug_queue);
    return -ENOMEM;
  }
  rc = bus_register_notifier (&pci_bus_type, &domybs_pci_nb);
  if (rc) {
    destroy_workqueue (domybs_burial_queue);
    destroy_workqueue (domybs_hotplug_queue);
  }
  return rc;
}

void
domybs_hotplug_module_exit (void) {
  bus_unregister_notifier (&pci_bus_type, &domybs_pci_nb);
  destroy_workqueue (domybs_burial_queue);
  destroy_workqueue (domybs_hotplug_queue);
}
