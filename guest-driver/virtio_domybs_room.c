// SPDX-License-Identifier: GPL-2.0-only
/*
 * Room for the kernel itself.
 *
 * What we bring is for ZONE_MOVABLE: programs can use it, the kernel's own structures (page tables, the memmap of the next
 * section) cannot. A program that filled the boot memory before help came leaves the kernel with next to nothing, and nothing
 * exported moves a page from there into ZONE_MOVABLE (migration keeps to the zones that the page's own may fall back to). So
 * some blocks of the kernel's zones are set aside while there are plenty, and given back when they are short: a few MiB of
 * memmap or page tables bring gigabytes into use.
 *
 * They are given back all but one page in their middle: a whole free block would be the next thing that a program gets as a
 * huge page, because those come from the program's own node down to the last watermark. The pages in the middle follow when the
 * shortage is over.
 *
 * Free pages on per-CPU lists do not count for the watermarks, and newer kernels keep many MiB there. Nothing exported drains
 * those lists as such, but allocating a range of a zone does.
 */
#include <linux/gfp.h>
#include <linux/memory_hotplug.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/sched/mm.h>

#include "compat.h"
#include "domybs-drv.h"

static unsigned int domybs_kernel_floor_mib = 4;
module_param_named (kernel_floor_mib, domybs_kernel_floor_mib, uint, 0644);
MODULE_PARM_DESC (kernel_floor_mib,
                  "no section is added when that would leave the kernel's own zones less free memory than this (MiB)");

static unsigned int domybs_kernel_reserve_mib = 16;
module_param_named (kernel_reserve_mib, domybs_kernel_reserve_mib, uint, 0644);
MODULE_PARM_DESC (
    kernel_reserve_mib,
    "memory set aside for the kernel's own needs while it grows under pressure (MiB, at most 64 and 1/32 of its zones)");

#define DOMYBS_ROOM_SHARE 32     /* of the kernel's zones, at most one part in so many */
#define DOMYBS_ROOM_LISTED SZ_1M /* draining per-CPU lists is not worth while for less */
#define DOMYBS_ROOM_LOOKS 1024u
#define DOMYBS_ROOM_TRIES 4u
#define DOMYBS_ROOM_CALM SZ_16M /* … and twice the low watermark free: no shortage */

struct domybs_kernel_memory {
  u64 free, listed, min, low, managed; /* bytes; listed: on per-CPU lists; all zones that the kernel can use together */
};

static void
domybs_kernel_memory (struct domybs_kernel_memory *ret) {
  int nid, z, cpu;

  *ret = (struct domybs_kernel_memory){};
  for_each_online_node (nid) {
    for (z = 0; z <= ZONE_NORMAL; z++) {
      struct zone *zone = &NODE_DATA (nid)->node_zones[z];

      if (!populated_zone (zone))
        continue;
      ret->free += zone_page_state (zone, NR_FREE_PAGES);
      ret->min += min_wmark_pages (zone);
      ret->low += low_wmark_pages (zone);
      ret->managed += zone_managed_pages (zone);
      for_each_online_cpu (cpu) {
        ret->listed += max (READ_ONCE (per_cpu_ptr (zone->per_cpu_pageset, cpu)->count), 0);
      }
    }
  }
  ret->free <<= PAGE_SHIFT;
  ret->min <<= PAGE_SHIFT;
  ret->low <<= PAGE_SHIFT;
  ret->managed <<= PAGE_SHIFT;
  ret->listed <<= PAGE_SHIFT;
}

static u64
domybs_section_cost (const struct domybs *d) {
  return (domybs_section_bytes (d) >> PAGE_SHIFT) * sizeof (struct page) + SZ_512K;
}

/* What must be free for another section: its memmap, and something beyond. pressed: half-way into the reserves below the zones'
 * watermarks, which whoever adds it may use then. */
static u64
domybs_add_floor (const struct domybs *d, const struct domybs_kernel_memory *kernel, bool pressed) {
  return domybs_section_cost (d) + ((u64)READ_ONCE (domybs_kernel_floor_mib) << 20) + (pressed ? kernel->min / 2 : kernel->min);
}

bool
domybs_may_add (const struct domybs *d, bool pressed) {
  struct domybs_kernel_memory kernel;

  domybs_kernel_memory (&kernel);
  return kernel.free >= domybs_add_floor (d, &kernel, pressed);
}

/* How many blocks the kernel's zones are short of being able to live and to take the next section without touching reserves. */
u32
domybs_room_short (const struct domybs *d) {
  struct domybs_kernel_memory kernel;
  u64 want;

  domybs_kernel_memory (&kernel);
  want = max (kernel.low + domybs_section_cost (d), domybs_add_floor (d, &kernel, false));
  return kernel.free >= want ? 0 : DIV_ROUND_UP_ULL (want - kernel.free, DOMYBS_BLOCK_BYTES);
}

u32
domybs_room_give (struct domybs *d, u32 want) {
  u32 given = 0;

  while (given < want) {
    struct page *page = NULL;
    unsigned long flags, pfn;

    spin_lock_irqsave (&d->lock, flags);
    if (d->room_blocks) {
      page = d->room_block[--d->room_blocks];
      list_add (&page[DOMYBS_PAGES_PER_BLOCK / 2].lru, &d->room_middles);
    }
    spin_unlock_irqrestore (&d->lock, flags);
    if (!page)
      break;
    pfn = page_to_pfn (page);
    domybs_pages_free (pfn, DOMYBS_PAGES_PER_BLOCK / 2);
    domybs_pages_free (pfn + DOMYBS_PAGES_PER_BLOCK / 2 + 1, DOMYBS_PAGES_PER_BLOCK / 2 - 1);
    given++;
  }
  WRITE_ONCE (d->counters.room_given, d->counters.room_given + given);
  return given;
}

static void
domybs_room_free_middles (struct domybs *d) {
  struct page *page, *next;
  LIST_HEAD (middles);

  spin_lock_irq (&d->lock);
  list_splice_init (&d->room_middles, &middles);
  spin_unlock_irq (&d->lock);
  list_for_each_entry_safe (page, next, &middles, lru) {
    list_del (&page->lru);
    __free_page (page);
  }
}

void
domybs_room_fill (struct domybs *d, bool enough) {
  struct domybs_kernel_memory kernel;
  struct page *page;
  u64 most;

  domybs_kernel_memory (&kernel);
  if (kernel.free < 2 * kernel.low + DOMYBS_ROOM_CALM && !enough)
    return;
  domybs_room_free_middles (d);
  most = min3 ((u64)READ_ONCE (domybs_kernel_reserve_mib) << 20, kernel.managed / DOMYBS_ROOM_SHARE,
               (u64)DOMYBS_ROOM_MAX << DOMYBS_BLOCK_SHIFT);
  if (d->room_blocks >= most >> DOMYBS_BLOCK_SHIFT || (d->room_after && time_before (jiffies, d->room_after)))
    return;
  /* With reclaim, because it is page cache that may have to go, but without trying hard. */
  page = alloc_pages (GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN | __GFP_NOMEMALLOC, DOMYBS_BLOCK_ORDER);
  d->room_after = page ? 0 : jiffies + 5 * HZ;
  if (!page)
    return;
  split_page (page, DOMYBS_BLOCK_ORDER);
  spin_lock_irq (&d->lock);
  d->room_block[d->room_blocks++] = page;
  spin_unlock_irq (&d->lock);
}

/* Free or movable all through, as far as can be seen without locks. */
static bool
domybs_block_looks_movable (unsigned long pfn) {
  unsigned long end = pfn + DOMYBS_PAGES_PER_BLOCK;

  while (pfn < end) {
    struct page *page = pfn_to_page (pfn), *head = compound_head (page);

    if (PageBuddy (page)) {
      unsigned long order = READ_ONCE (page_private (page));

      pfn += 1ul << (order <= DOMYBS_MAX_ORDER ? order : 0);
    } else if (!PageReserved (page) && (PageLRU (head) || !page_ref_count (head))) {
      pfn++;
    } else {
      return false;
    }
  }
  return true;
}

bool
domybs_room_drain (struct domybs *d) {
  struct domybs_kernel_memory before, after;
  u32 looks = 0, tries = 0;
  unsigned int noreclaim;
  int nid;

  domybs_kernel_memory (&before);
  if (before.listed < DOMYBS_ROOM_LISTED)
    return false;
  noreclaim = memalloc_noreclaim_save (); /* others are out of memory and wait for us */
  for_each_online_node (nid) {
    struct zone *zone = &NODE_DATA (nid)->node_zones[ZONE_NORMAL];
    unsigned long pfn;

    if (!populated_zone (zone))
      zone = &NODE_DATA (nid)->node_zones[ZONE_DMA32];
    for (pfn = ALIGN_DOWN (zone_end_pfn (zone), DOMYBS_PAGES_PER_BLOCK);
         pfn >= zone->zone_start_pfn + DOMYBS_PAGES_PER_BLOCK && looks < DOMYBS_ROOM_LOOKS && tries < DOMYBS_ROOM_TRIES;
         looks++) {
      pfn -= DOMYBS_PAGES_PER_BLOCK;
      if (!pfn_to_online_page (pfn) || page_zone (pfn_to_page (pfn)) != zone || !domybs_block_looks_movable (pfn))
        continue;
      tries++;
      if (domybs_alloc_contig (pfn, DOMYBS_PAGES_PER_BLOCK, GFP_KERNEL | __GFP_NOWARN))
        continue;
      domybs_pages_free (pfn, DOMYBS_PAGES_PER_BLOCK);
      break;
    }
  }
  memalloc_noreclaim_restore (noreclaim);
  domybs_kernel_memory (&after);
  return after.free > before.free;
}

void
domybs_room_empty (struct domybs *d) {
  domybs_room_give (d, DOMYBS_ROOM_MAX);
  domybs_room_free_middles (d);
}
