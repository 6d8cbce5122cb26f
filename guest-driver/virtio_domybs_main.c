// SPDX-License-Identifier: GPL-2.0-only
/*
 * virtio_domybs: memory that a host lends to this guest, block by block.
 *
 * This file: finding the device and checking what it says of itself, and the ways in which all of it can end: removal, sleep,
 * hibernation, reboot, kexec, a crash dump, and a device that talks nonsense.
 */
#include <linux/completion.h>
#include <linux/crash_dump.h>
#include <linux/kthread.h>
#include <linux/log2.h>
#include <linux/memory.h>
#include <linux/memory_hotplug.h>
#include <linux/module.h>
#include <linux/random.h>
#include <linux/range.h>
#include <linux/reboot.h>
#include <linux/scatterlist.h>
#include <linux/slab.h>
#include <linux/suspend.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>

#include "compat.h"
#include "domybs-drv.h"

static char *domybs_mode_param = "auto";
module_param_named (mode, domybs_mode_param, charp, 0444);
MODULE_PARM_DESC (
    mode, "how it is decided how much memory to have, at first: auto (the host's target, else by pressure), target, manual");

static unsigned int domybs_virtio_id = DOMYBS_VIRTIO_ID_DEFAULT;
module_param_named (virtio_id, domybs_virtio_id, uint, 0444);
MODULE_PARM_DESC (virtio_id, "virtio device id that the host gave the device");

#define DOMYBS_REMOVE_LOG (30 * HZ)

/* ---- small things that everybody needs ---- */

static void
domybs_free (struct kref *ref) {
  struct domybs *d = container_of (ref, struct domybs, ref);

  bitmap_free (d->scan);
  kvfree (d->block);
  kvfree (d->section);
  put_device (d->dev);
  kfree (d);
}

void
domybs_put (struct domybs *d) {
  kref_put (&d->ref, domybs_free);
}

void
domybs_kick (struct domybs *d, int bit) {
  set_bit (bit, &d->kicks);
  wake_up (&d->wake);
}

u64
domybs_granted (struct domybs *d) {
  unsigned long flags;
  u64 n;

  spin_lock_irqsave (&d->lock, flags);
  n = domybs_granted_locked (d);
  spin_unlock_irqrestore (&d->lock, flags);
  return n;
}

void
domybs_break (struct domybs *d, const char *fmt, ...) {
  va_list args;

  if (d->broken)
    return;
  va_start (args, fmt);
  vsnprintf (d->broken_reason, sizeof d->broken_reason, fmt, args);
  va_end (args);
  smp_wmb (); /* the reason before the flag */
  WRITE_ONCE (d->broken, true);
  dev_err (d->dev, "broken: %s. The guest keeps the memory it has; nothing more is asked of the host\n", d->broken_reason);
}

/* ---- endings ---- */

static int
domybs_pm (struct notifier_block *nb, unsigned long action, void *unused) {
  struct domybs *d = container_of (nb, struct domybs, pm_nb);

  switch (action) {
  case PM_HIBERNATION_PREPARE:
  case PM_RESTORE_PREPARE:
    dev_err (d->dev, "hibernation refused: what the host lends would not be there after it\n");
    return notifier_from_errno (-EBUSY);
  case PM_SUSPEND_PREPARE:
    dev_err (d->dev, "sleep refused: the device cannot keep its memory over a reset\n");
    return notifier_from_errno (-EBUSY);
  default:
    return NOTIFY_DONE;
  }
}

static int
domybs_reboot (struct notifier_block *nb, unsigned long action, void *unused) {
  struct domybs *d = container_of (nb, struct domybs, reboot_nb);

  spin_lock_irq (&d->lock);
  d->stopping = true;
  spin_unlock_irq (&d->lock);
  domybs_kick (d, DOMYBS_KICK_WAKE);
  wait_event_timeout (d->progress, READ_ONCE (d->bye_said), HZ);
  return NOTIFY_DONE;
}

static void
domybs_stop (struct domybs *d) {
  kthread_stop (d->worker);
  put_task_struct (d->worker);
  while (domybs_ops_run (d)) /* refuses those that came late */
    continue;
  domybs_room_empty (d);
  unregister_reboot_notifier (&d->reboot_nb);
  unregister_pm_notifier (&d->pm_nb);
  domybs_pressure_exit (d);
}

static void
domybs_queues_free (struct domybs *d) {
  virtio_reset_device (d->vdev);
  d->vdev->config->del_vqs (d->vdev);
  free_page ((unsigned long)d->request_page);
  free_page ((unsigned long)d->response_page);
  free_page ((unsigned long)d->runs);
  kfree (d->events);
}

#ifdef CONFIG_PROC_VMCORE
/* In a crash dump kernel: the window went away when the device was reset, so nothing of it can be dumped. */
static bool
domybs_pfn_is_ram (struct vmcore_cb *cb, unsigned long pfn) {
  struct domybs *d = container_of (cb, struct domybs, vmcore_cb);
  u64 phys = PFN_PHYS (pfn);

  return phys < d->window_phys || phys >= d->window_phys + (d->window_blocks << DOMYBS_BLOCK_SHIFT);
}
#endif

/* ---- probe ---- */

static int
domybs_mode_parse (struct domybs *d) {
  if (sysfs_streq (domybs_mode_param, "auto"))
    d->mode = DOMYBS_MODE_AUTO;
  else if (sysfs_streq (domybs_mode_param, "target"))
    d->mode = DOMYBS_MODE_TARGET;
  else if (sysfs_streq (domybs_mode_param, "manual"))
    d->mode = DOMYBS_MODE_MANUAL;
  else
    return -EINVAL;
  return 0;
}

/* What never changes in config space, and whether this kernel can live with it. */
static int
domybs_config_check (struct domybs *d) {
  struct virtio_device *vdev = d->vdev;
  struct virtio_shm_region region;
  u32 magic, block_bytes;
  u16 version;
  u64 sections;

  virtio_cread_le (vdev, struct domybs_config, magic, &magic);
  if (magic != DOMYBS_MAGIC) {
    dev_info (d->dev, "not a domybs memory device (magic %#x)\n", magic);
    return -ENODEV;
  }
  virtio_cread_le (vdev, struct domybs_config, abi_version, &version);
  virtio_cread_le (vdev, struct domybs_config, block_bytes, &block_bytes);
  virtio_cread_le (vdev, struct domybs_config, window_blocks, &d->window_blocks);
  virtio_cread_le (vdev, struct domybs_config, grow_min_blocks, &d->grow_min);
  if (version != DOMYBS_ABI_VERSION) {
    dev_err (d->dev, "the device speaks ABI version %u, this driver %u\n", version, DOMYBS_ABI_VERSION);
    return -EINVAL;
  }
  if (block_bytes != DOMYBS_BLOCK_BYTES) {
    dev_err (d->dev, "blocks of %u bytes, not %llu\n", block_bytes, DOMYBS_BLOCK_BYTES);
    return -EINVAL;
  }
  if (!is_power_of_2 (d->window_blocks) || d->window_blocks < DOMYBS_WINDOW_ALIGN_BYTES >> DOMYBS_BLOCK_SHIFT
      || d->window_blocks > 1ull << 31) {
    dev_err (d->dev, "a window of %llu blocks: not a power of two of at least 2 GiB\n", d->window_blocks);
    return -EINVAL;
  }
  if (!virtio_get_shm_region (vdev, &region, DOMYBS_SHM_WINDOW) || !region.len) {
    if (domybs_hotplug_again (vdev))
      dev_info (d->dev, "no room for the window while memory of the last device is there: tried again when that has gone\n");
    else
      dev_err (d->dev, "no shared memory region %u, so no window\n", DOMYBS_SHM_WINDOW);
    return -EINVAL;
  }
  d->window_phys = region.addr;
  d->section_blocks = memory_block_size_bytes () >> DOMYBS_BLOCK_SHIFT;
  if (region.len != d->window_blocks << DOMYBS_BLOCK_SHIFT) {
    dev_err (d->dev, "the region has %llu bytes, the window %llu\n", region.len, d->window_blocks << DOMYBS_BLOCK_SHIFT);
    return -EINVAL;
  }
  if (!d->section_blocks || d->section_blocks > 1024 || !is_power_of_2 (d->section_blocks)
      || !IS_ALIGNED (d->window_phys, memory_block_size_bytes ())) {
    dev_err (d->dev, "a window at %#llx does not fit memory blocks of %lu bytes\n", d->window_phys, memory_block_size_bytes ());
    return -EINVAL;
  }
  sections = d->window_blocks / d->section_blocks - 1;
  if (!sections) {
    dev_err (d->dev, "the window has a single memory block, and the last is never used\n");
    return -EINVAL;
  }
  d->sections = sections;
  d->grow_min = clamp_t (u64, d->grow_min, 1, sections * d->section_blocks);
  return 0;
}

static int
domybs_range_check (struct domybs *d) {
  struct range range = mhp_get_pluggable_range (true);

  if (d->window_phys < range.start || d->window_phys + (d->window_blocks << DOMYBS_BLOCK_SHIFT) - 1 > range.end) {
    dev_err (d->dev, "this kernel cannot address a window at %#llx (up to %#llx)\n", d->window_phys, range.end);
    return -ERANGE;
  }
  return 0;
}

static int
domybs_queues_init (struct domybs *d) {
  struct virtqueue *vqs[DOMYBS_VQ_COUNT];
  int rc;

  BUILD_BUG_ON (DOMYBS_REQUEST_BYTES_MAX > PAGE_SIZE || DOMYBS_RESPONSE_BYTES_MAX > PAGE_SIZE);
  BUILD_BUG_ON (sizeof (struct domybs_request) + DOMYBS_RUNS_MAX * sizeof (struct domybs_run) > DOMYBS_REQUEST_BYTES_MAX);
  BUILD_BUG_ON (sizeof (struct domybs_response) + DOMYBS_RUNS_MAX * sizeof (struct domybs_run) > DOMYBS_RESPONSE_BYTES_MAX);
  BUILD_BUG_ON (DOMYBS_RUNS_MAX * sizeof (struct domybs_extent) > PAGE_SIZE);

  d->request_page = (void *)get_zeroed_page (GFP_KERNEL);
  d->response_page = (void *)get_zeroed_page (GFP_KERNEL);
  d->runs = (void *)get_zeroed_page (GFP_KERNEL);
  d->events = kcalloc (DOMYBS_EVENT_BUFFERS, sizeof *d->events, GFP_KERNEL);
  rc = -ENOMEM;
  if (!d->request_page || !d->response_page || !d->runs || !d->events)
    goto out_free;
  rc = domybs_find_vqs (d->vdev, vqs, domybs_request_done, domybs_event_arrived);
  if (rc) {
    dev_err (d->dev, "no queues: %d\n", rc);
    goto out_free;
  }
  d->request_vq = vqs[DOMYBS_VQ_REQUEST];
  d->event_vq = vqs[DOMYBS_VQ_EVENT];
  return 0;

out_free:
  free_page ((unsigned long)d->request_page);
  free_page ((unsigned long)d->response_page);
  free_page ((unsigned long)d->runs);
  kfree (d->events);
  return rc;
}

static struct domybs *
domybs_new (struct virtio_device *vdev) {
  struct domybs *d = kzalloc (sizeof *d, GFP_KERNEL);

  if (!d)
    return NULL;
  kref_init (&d->ref);
  d->vdev = vdev;
  d->dev = get_device (&vdev->dev); /* the burial may come after the device */
  mutex_init (&d->hotplug);
  spin_lock_init (&d->lock);
  init_waitqueue_head (&d->wake);
  init_waitqueue_head (&d->progress);
  init_waitqueue_head (&d->hotplug_wait);
  init_completion (&d->answered);
  INIT_LIST_HEAD (&d->ops);
  INIT_LIST_HEAD (&d->room_middles);
  do
    d->nonce = get_random_u64 ();
  while (!d->nonce);
  d->last.why = DOMYBS_WHY_STARTING;
  d->stats_after = jiffies;
  d->last_grow = d->config_read = jiffies - 2 * HZ;
  return d;
}

static int
domybs_start (struct domybs *d) {
  int rc;

  rc = domybs_pressure_init (d);
  if (rc)
    return rc;
  d->pm_nb.notifier_call = domybs_pm;
  rc = register_pm_notifier (&d->pm_nb);
  if (rc)
    goto out_pressure;
  d->reboot_nb.notifier_call = domybs_reboot;
  rc = register_reboot_notifier (&d->reboot_nb);
  if (rc)
    goto out_pm;
  d->worker = kthread_create (domybs_worker, d, "domybs/%s", dev_name (d->dev));
  if (IS_ERR (d->worker)) {
    rc = PTR_ERR (d->worker);
    goto out_reboot;
  }
  get_task_struct (d->worker);

  virtio_device_ready (d->vdev);
  domybs_events_fill (d);
  domybs_config_refresh (d);
  wake_up_process (d->worker);
  return 0;

out_reboot:
  unregister_reboot_notifier (&d->reboot_nb);
out_pm:
  unregister_pm_notifier (&d->pm_nb);
out_pressure:
  domybs_pressure_exit (d);
  return rc;
}

static int
domybs_probe (struct virtio_device *vdev) {
  struct domybs *d;
  int rc;

  if (!vdev->config->get) {
    dev_err (&vdev->dev, "no access to config space\n");
    return -EINVAL;
  }
  d = domybs_new (vdev);
  if (!d)
    return -ENOMEM;
  vdev->priv = d;
  rc = domybs_config_check (d);
  if (rc)
    goto out_put;
#ifdef CONFIG_PROC_VMCORE
  if (is_kdump_kernel ()) {
    d->sections = 0;
    d->vmcore_cb.pfn_is_ram = domybs_pfn_is_ram;
    register_vmcore_cb (&d->vmcore_cb);
    return 0;
  }
#endif
  rc = domybs_range_check (d);
  if (rc)
    goto out_put;
  rc = domybs_mode_parse (d);
  if (rc) {
    dev_err (d->dev, "mode=%s is none of auto, target, manual\n", domybs_mode_param);
    goto out_put;
  }
  rc = domybs_sections_init (d);
  if (rc)
    goto out_put;
  rc = domybs_queues_init (d);
  if (rc)
    goto out_sections;
  rc = domybs_chardev_init (d);
  if (rc)
    goto out_queues;
  rc = domybs_start (d);
  if (rc)
    goto out_chardev;
  return 0;

out_chardev:
  domybs_chardev_exit (d);
  spin_lock_irq (&d->lock);
  d->gone = true;
  spin_unlock_irq (&d->lock);
  while (domybs_ops_run (d))
    continue;
out_queues:
  domybs_queues_free (d);
out_sections:
  domybs_sections_exit (d);
out_put:
  vdev->priv = NULL;
  domybs_put (d);
  return rc;
}

/*
 * Comes when the module is unloaded (then only spares are left: whatever is granted holds a reference to the module) and when
 * the device is unplugged. Unplugging waits until everything is given back: memory that vanishes under a kernel takes it along.
 */
static void
domybs_remove (struct virtio_device *vdev) {
  struct domybs *d = vdev->priv;
  bool lost = false;

#ifdef CONFIG_PROC_VMCORE
  if (is_kdump_kernel ()) {
    unregister_vmcore_cb (&d->vmcore_cb);
    vdev->priv = NULL;
    domybs_put (d);
    return;
  }
#endif
  domybs_chardev_exit (d);
  spin_lock_irq (&d->lock);
  d->draining = true;
  spin_unlock_irq (&d->lock);
  wake_up_all (&d->hotplug_wait);
  domybs_kick (d, DOMYBS_KICK_WAKE);
  domybs_offline_abort (d);
  while (!wait_event_timeout (d->progress, READ_ONCE (d->drained), DOMYBS_REMOVE_LOG)) {
    if (virtqueue_is_broken (d->request_vq)) {
      lost = true;
      break;
    }
    dev_warn (d->dev, "removal waits: %llu blocks are still in use\n", domybs_granted (d));
  }
  domybs_stop (d);
  if (!lost)
    domybs_bye (d);
  spin_lock_irq (&d->lock);
  d->gone = true;
  spin_unlock_irq (&d->lock);
  domybs_queues_free (d);
  vdev->priv = NULL;
  domybs_hotplug_dying (d, vdev);
  if (lost) { /* nothing can help those who use it; but nobody else shall get at it, so the sections, the notifier and we stay
               */
    dev_crit (d->dev, "the device is gone with %llu blocks of memory in use\n", domybs_granted (d));
    return;
  }
  domybs_hotplug_bury (d);
  domybs_put (d);
}

#ifdef CONFIG_PM_SLEEP
static int
domybs_freeze (struct virtio_device *vdev) {
  dev_err (&vdev->dev, "sleep refused: the device cannot keep its memory over a reset\n");
  return -EBUSY;
}

static int
domybs_restore (struct virtio_device *vdev) {
  return -EBUSY;
}
#endif

#ifdef DOMYBS_HAVE_SHUTDOWN
/* The default would reset the device, and with it take memory away from a kernel that still runs. */
static void
domybs_shutdown (struct virtio_device *vdev) {
  struct domybs *d = vdev->priv;

  if (d && !domybs_granted (d))
    virtio_reset_device (vdev);
}
#endif

static struct virtio_device_id domybs_ids[] = {
  { DOMYBS_VIRTIO_ID_DEFAULT, VIRTIO_DEV_ANY_ID },
  { 0 },
};
MODULE_DEVICE_TABLE (virtio, domybs_ids);

static struct virtio_driver domybs_driver = {
  .driver.name = "virtio_domybs",
  .driver.suppress_bind_attrs = true,
  .driver.dev_groups = domybs_groups,
  .id_table = domybs_ids,
  .probe = domybs_probe,
  .remove = domybs_remove,
  .config_changed = domybs_config_changed,
#ifdef CONFIG_PM_SLEEP
  .freeze = domybs_freeze,
  .restore = domybs_restore,
#endif
#ifdef DOMYBS_HAVE_SHUTDOWN
  .shutdown = domybs_shutdown,
#endif
};

static int __init
domybs_init (void) {
  int rc = domybs_hotplug_module_init ();

  if (rc)
    return rc;
  rc = domybs_ranges_init ();
  if (rc) {
    domybs_hotplug_module_exit ();
    return rc;
  }
  domybs_ids[0].device = domybs_virtio_id;
  rc = register_virtio_driver (&domybs_driver);
  if (rc) {
    domybs_ranges_exit ();
    domybs_hotplug_module_exit ();
  }
  return rc;
}

static void __exit
domybs_exit (void) {
  unregister_virtio_driver (&domybs_driver);
  domybs_ranges_exit ();
  domybs_hotplug_module_exit (); /* waits for the burials */
}

module_init (domybs_init);
module_exit (domybs_exit);
MODULE_DESCRIPTION ("Domybs-VM memory device");
MODULE_AUTHOR ("The Domybs-VM authors");
MODULE_VERSION (DOMYBS_DRIVER_VERSION);
MODULE_LICENSE ("GPL");
