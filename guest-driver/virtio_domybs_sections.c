// SPDX-License-Identifier: GPL-2.0-only
/*
 * Sections: the guest kernel's memory blocks inside the window.
 *
 * Growing when nothing is free must not need memory. Adding a section does (its memmap is 1.6 % of it, from the kernel's own
 * zones), so one section, the spare, is always added ahead of need but left offline, and growing is: GRANT its blocks, bring it
 * online, and only then, with memory at hand, add the next spare.
 *
 * An emptied section goes the same way back: offline, its blocks released, and removed unless it is wanted as the spare.
 */
#include <linux/acpi.h>
#include <linux/err.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/memory-tiers.h>
#include <linux/memory_hotplug.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mount.h>
#include <linux/nodemask.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

#include "compat.h"
#include "domybs-drv.h"

unsigned int domybs_spares = 1;
module_param_named (spares, domybs_spares, uint, 0644);
MODULE_PARM_DESC (spares, "sections kept added but offline, ready for growing without memory (at least 1)");

/* Slightly slower than DRAM is what a node of its own is declared to be: one tier below, so that cold pages can be demoted to
 * it. */
#define DOMYBS_ADISTANCE (MEMTIER_ADISTANCE_DRAM + MEMTIER_CHUNK_SIZE)

void
domybs_section_set (struct domybs *d, u32 s, enum domybs_section_state state) {
  unsigned long flags;

  spin_lock_irqsave (&d->lock, flags);
  d->section_count[d->section[s].state]--;
  d->section[s].state = state;
  d->section_count[state]++;
  spin_unlock_irqrestore (&d->lock, flags);
}

/* ---- spares ---- */

/* Whether a section can be added there: nothing of ours is on its way back to the host, and nothing of a device that was
 * unplugged, whose address the window has now, waits for its burial. */
static bool
domybs_place_is_free (struct domybs *d, u32 s) {
  return !d->section[s].count[DOMYBS_BLOCK_PARKED] && !pfn_valid (PHYS_PFN (domybs_section_phys (d, s)));
}

static u32
domybs_section_find (struct domybs *d, enum domybs_section_state state) {
  u32 s;

  for (s = 0; s < d->sections; s++)
    if (d->section[s].state == state && (state != DOMYBS_SECTION_ABSENT || domybs_place_is_free (d, s)))
      return s;
  return DOMYBS_SECTION_NONE;
}

int
domybs_spare_fill (struct domybs *d, bool pressed) {
  u32 wanted = max (READ_ONCE (domybs_spares), 1u);
  int rc = 0;

  while (d->section_count[DOMYBS_SECTION_SPARE] < wanted) {
    u32 s = domybs_section_find (d, DOMYBS_SECTION_ABSENT);

    if (s == DOMYBS_SECTION_NONE)
      return 0;
    while (!domybs_may_add (d, pressed))
      if (d->section_count[DOMYBS_SECTION_SPARE] || !domybs_room_give (d, 1))
        return -ENOMEM;
    rc = domybs_hotplug_add (d, s);
    if (rc) {
      if (rc != -ESHUTDOWN)
        dev_warn_ratelimited (d->dev, "adding section %u failed: %d\n", s, rc);
      return rc == -ENOMEM ? rc : -EIO;
    }
  }
  return 0;
}

bool
domybs_spare_drop (struct domybs *d) {
  u32 s = domybs_section_find (d, DOMYBS_SECTION_SPARE);

  return s != DOMYBS_SECTION_NONE && !domybs_hotplug_remove (d, s);
}

/* Removes spares too many, from the top: the window is used from below. */
static void
domybs_spares_trim (struct domybs *d) {
  u32 spares = max (READ_ONCE (domybs_spares), 1u), s;

  for (s = d->sections; s-- > 0 && d->section_count[DOMYBS_SECTION_SPARE] > spares;)
    if (d->section[s].state == DOMYBS_SECTION_SPARE && domybs_hotplug_remove (d, s))
      break;
}

/* ---- growing and shrinking by a section ---- */

static int
domybs_module_hold (struct domybs *d) {
  if (d->module_held)
    return 0;
  if (!try_module_get (THIS_MODULE))
    return -ESHUTDOWN;
  d->module_held = true;
  return 0;
}

static void
domybs_module_release (struct domybs *d) {
  if (d->module_held && !domybs_granted (d) && !d->section_count[DOMYBS_SECTION_ONLINE]) {
    d->module_held = false;
    module_put (THIS_MODULE);
  }
}

u64
domybs_sections_settle (struct domybs *d) {
  struct domybs_extent *runs = d->runs;
  u64 from = 0, total = 0, b;
  u32 n, i, s;

  while ((n = domybs_block_runs (d, DOMYBS_BLOCK_PARKED, &from, runs)) > 0) {
    if (domybs_release (d, runs, n))
      break;
    for (i = 0; i < n; i++) {
      for (b = runs[i].start; b < runs[i].start + runs[i].count; b++)
        domybs_block_set (d, b, DOMYBS_BLOCK_VOID);
      total += runs[i].count;
    }
  }
  for (s = 0; s < d->sections; s++)
    if (d->section[s].state == DOMYBS_SECTION_PARKED && !d->section[s].count[DOMYBS_BLOCK_PARKED])
      domybs_section_set (d, s, DOMYBS_SECTION_SPARE);
  domybs_spares_trim (d);
  domybs_module_release (d);
  return total;
}

int
domybs_section_grow (struct domybs *d, u32 *ret_section) {
  u32 s = domybs_section_find (d, DOMYBS_SECTION_SPARE), runs;
  unsigned int noreclaim;
  u64 blocks, b;
  int rc;

  if (s == DOMYBS_SECTION_NONE)
    return -ENOMEM;
  rc = domybs_module_hold (d);
  if (rc)
    return rc;
  rc = domybs_grant (d, DOMYBS_HINT_LOCAL, DOMYBS_GRANT_F_ALL | DOMYBS_GRANT_F_SECTION, d->section_blocks,
                     domybs_section_start_block (d, s), d->section_blocks, &runs, &blocks);
  if (rc) {
    domybs_module_release (d);
    return rc;
  }

  for (b = 0; b < d->section_blocks; b++)
    domybs_block_set (d, domybs_section_start_block (d, s) + b, DOMYBS_BLOCK_PARKED);
  domybs_section_set (d, s, DOMYBS_SECTION_PARKED);
  spin_lock_irq (&d->lock);
  d->onlining = s;
  spin_unlock_irq (&d->lock);

  /* What it allocates (zone statistics, the first time) may come from the reserves: it gives back a thousand times as much. */
  noreclaim = memalloc_noreclaim_save ();
  rc = domybs_hotplug_state (d, s, "online_movable");
  memalloc_noreclaim_restore (noreclaim);

  spin_lock_irq (&d->lock);
  d->onlining = DOMYBS_SECTION_NONE;
  spin_unlock_irq (&d->lock);
  if (d->section[s].state != DOMYBS_SECTION_ONLINE) {
    dev_warn_ratelimited (d->dev, "bringing section %u online failed: %d\n", s, rc);
    domybs_sections_settle (d);
    return rc ? rc : -EBUSY;
  }
  d->section[s].failures = 0;
  d->section[s].retry_jiffies = jiffies;
  *ret_section = s;
  return d->section_blocks;
}

/* Ends an offline that takes too long, or that stands in the way of growing: the kernel looks for signals between its attempts.
 */
void
domybs_offline_abort (struct domybs *d) {
  unsigned long flags;

  spin_lock_irqsave (&d->lock, flags);
  if (d->offlining)
    send_sig (SIGALRM, d->worker, 1);
  spin_unlock_irqrestore (&d->lock, flags);
}

static void
domybs_offline_timeout (struct timer_list *t) {
  struct domybs *d = domybs_from_timer (d, t, offline_timer);

  domybs_offline_abort (d);
}

int
domybs_section_leave (struct domybs *d, u32 s, unsigned int ms) {
  struct domybs_section *section = &d->section[s];
  int rc;

  spin_lock_irq (&d->lock);
  d->offlining = true;
  spin_unlock_irq (&d->lock);
  mod_timer (&d->offline_timer, jiffies + msecs_to_jiffies (ms));

  rc = domybs_hotplug_state (d, s, "offline");

  spin_lock_irq (&d->lock);
  d->offlining = false;
  spin_unlock_irq (&d->lock);
  timer_delete_sync (&d->offline_timer);
  flush_signals (current);

  if (section->state == DOMYBS_SECTION_ONLINE) {
    d->counters.offline_failed++;
    section->failures = min (section->failures + 1, 6);
    section->retry_jiffies = jiffies + (HZ << section->failures);
    return rc ? rc : -EBUSY;
  }
  section->failures = 0;
  return 0;
}

/* ---- node and memory tier ---- */

static bool domybs_demote = true;
module_param_named (demote, domybs_demote, bool, 0444);
MODULE_PARM_DESC (demote,
                  "where the window is a NUMA node of its own, let the kernel move cold pages there (numa/demotion_enabled)");

/*
 * The tier of the nodes that we are the only ones to bring memory to. It belongs to all our devices together, and a node is in
 * it from the first of them to the last: a device that is plugged in right after another was unplugged comes while the other's
 * sections are still being removed. The kernel puts memory that arrives without a tier into the one of ordinary memory, where
 * the node stays until the next boot, and moves nothing there any more.
 */
static DEFINE_MUTEX (domybs_tier_lock);
static struct memory_dev_type *domybs_tier;
static unsigned int domybs_tier_users, domybs_tier_users_of[MAX_NUMNODES];

static bool
domybs_tier_enter (struct domybs *d) {
  bool good = true;

  mutex_lock (&domybs_tier_lock);
  if (!domybs_tier_users_of[d->node] && (node_state (d->node, N_MEMORY) || node_state (d->node, N_CPU))) {
    good = false;
  } else if (!domybs_tier_users) {
    domybs_tier = alloc_memory_type (DOMYBS_ADISTANCE);
    good = !IS_ERR_OR_NULL (domybs_tier);
    if (!good)
      dev_warn (d->dev, "no memory tier of its own for node %d\n", d->node);
  }
  if (good) {
    domybs_tier_users++;
    if (!domybs_tier_users_of[d->node]++) /* this must be said before its first memory arrives */
      init_node_memory_type (d->node, domybs_tier);
  }
  mutex_unlock (&domybs_tier_lock);
  return good;
}

static void
domybs_tier_leave (struct domybs *d) {
  if (!d->in_tier)
    return;
  d->in_tier = false;
  mutex_lock (&domybs_tier_lock);
  if (!--domybs_tier_users_of[d->node])
    clear_node_memory_type (d->node, domybs_tier);
  if (!--domybs_tier_users)
    domybs_put_memory_type (domybs_tier);
  mutex_unlock (&domybs_tier_lock);
}

/* Programs fill their own node first. Only demotion gets anything out of it again without swap, and the kernel's own memory can
 * be nowhere else. */
void
domybs_demotion_allow (struct domybs *d) {
  int rc;

  if (!d->in_tier || !domybs_demote)
    return;
  rc = domybs_sysfs_write (d, "kernel/mm/numa/demotion_enabled", "1");
  if (rc)
    dev_info (d->dev, "demotion to node %d could not be switched on: %d\n", d->node, rc);
}

static void
domybs_node_choose (struct domybs *d, u16 flags, u32 pxm) {
  int node = NUMA_NO_NODE;

#ifdef CONFIG_ACPI_NUMA
  if (flags & DOMYBS_CONFIG_F_NUMA_NODE)
    node = pxm_to_node (pxm);
#endif
  if (node != NUMA_NO_NODE && node_possible (node)) {
    d->node = node;
  } else {
    d->node = dev_to_node (d->dev);
    if (d->node == NUMA_NO_NODE || !node_online (d->node))
      d->node = first_online_node;
    if (flags & DOMYBS_CONFIG_F_NUMA_NODE)
      dev_info (d->dev, "the VM has no NUMA node for proximity domain %u, memory goes to node %d\n", pxm, d->node);
  }
  d->in_tier = domybs_tier_enter (d);
}

int
domybs_sections_init (struct domybs *d) {
  u16 flags;
  u32 pxm;
  int rc;

  virtio_cread_le (d->vdev, struct domybs_config, flags, &flags);
  virtio_cread_le (d->vdev, struct domybs_config, numa_pxm, &pxm);
  d->section = kvcalloc (d->sections, sizeof *d->section, GFP_KERNEL);
  d->block = kvcalloc (d->sections, d->section_blocks, GFP_KERNEL);
  d->scan = bitmap_zalloc (d->section_blocks, GFP_KERNEL);
  if (!d->section || !d->block || !d->scan) {
    rc = -ENOMEM;
    goto out_free;
  }
  d->count[DOMYBS_BLOCK_VOID] = (u64)d->sections * d->section_blocks;
  d->section_count[DOMYBS_SECTION_ABSENT] = d->sections;
  for (u32 s = 0; s < d->sections; s++)
    d->section[s].count[DOMYBS_BLOCK_VOID] = d->section_blocks;
  timer_setup (&d->offline_timer, domybs_offline_timeout, 0);
  /* "System RAM (…)" is how the kernel and kexec tools tell memory that a driver manages from what firmware lists. */
  strscpy (d->resource_name, "System RAM (domybs)", sizeof d->resource_name);
  domybs_node_choose (d, flags, pxm);
  rc = domybs_hotplug_init (d);
  if (rc)
    goto out_tier;
  return 0;

out_tier:
  domybs_tier_leave (d);
out_free:
  bitmap_free (d->scan);
  kvfree (d->block);
  kvfree (d->section);
  d->scan = NULL;
  d->block = NULL;
  d->section = NULL;
  return rc;
}

/* The tables themselves go with the last reference to the device (an open /dev/domybs may still look at them). */
void
domybs_sections_exit (struct domybs *d) {
  domybs_hotplug_exit (d);
  if (d->module_held) {
    d->module_held = false;
    module_put (THIS_MODULE);
  }
  domybs_tier_leave (d);
}
