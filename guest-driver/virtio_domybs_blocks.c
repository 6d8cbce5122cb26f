// SPDX-License-Identifier: GPL-2.0-only
/*
 * Blocks inside online sections: 2 MiB of pages, in the page allocator or out of it.
 *
 * A block that is released while its section stays online is taken from the page allocator first, as 512 pages with one
 * reference each, and marked PageOffline, so that nobody reads it (dumps, /proc/kcore) and offlining its section knows it for
 * empty. It no longer counts as managed memory: the guest's MemTotal follows.
 *
 * Taking a block can mean that its content is written (init_on_alloc), which brings memory of the host back for a moment. So
 * blocks are taken and released in batches.
 */
#include <linux/bitmap.h>
#include <linux/gfp.h>
#include <linux/highmem.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/page-flags.h>

#include "compat.h"
#include "domybs-drv.h"

/* Neither reclaim nor reserves nor other nodes: free memory or nothing. */
#define DOMYBS_GFP_FREE (__GFP_HIGHMEM | __GFP_MOVABLE | __GFP_THISNODE | __GFP_NOWARN | __GFP_NORETRY | __GFP_NOMEMALLOC)
/* On a node that we share, pages that are not ours turn up when ours are used up. So many, and we stop. */
#define DOMYBS_FOREIGN_MAX 2

unsigned int domybs_batch_blocks = 32;
module_param_named (batch_blocks, domybs_batch_blocks, uint, 0644);
MODULE_PARM_DESC (batch_blocks, "blocks taken from the page allocator before they are released together");

void
domybs_block_set_locked (struct domybs *d, u64 block, enum domybs_block_state state) {
  struct domybs_section *section = &d->section[(u32)block / d->section_blocks];
  u8 old = d->block[block];

  section->count[old]--;
  d->count[old]--;
  d->block[block] = state;
  section->count[state]++;
  d->count[state]++;
}

void
domybs_block_set (struct domybs *d, u64 block, enum domybs_block_state state) {
  unsigned long flags;

  spin_lock_irqsave (&d->lock, flags);
  domybs_block_set_locked (d, block, state);
  spin_unlock_irqrestore (&d->lock, flags);
}

enum domybs_block_state
domybs_block_get (const struct domybs *d, u64 block) {
  return READ_ONCE (d->block[block]);
}

/* ---- pages of a block ---- */

void
domybs_pages_set_offline (struct domybs *d, u64 block) {
  struct page *page = pfn_to_page (domybs_block_pfn (d, block));
  unsigned long i;

  page_offline_begin ();
  for (i = 0; i < DOMYBS_PAGES_PER_BLOCK; i++)
    __SetPageOffline (page + i);
  page_offline_end ();
  adjust_managed_page_count (page, -(long)DOMYBS_PAGES_PER_BLOCK);
}

static void
domybs_pages_clear_offline (struct domybs *d, u64 block) {
  struct page *page = pfn_to_page (domybs_block_pfn (d, block));
  unsigned long i;

  for (i = 0; i < DOMYBS_PAGES_PER_BLOCK; i++)
    __ClearPageOffline (page + i);
  adjust_managed_page_count (page, DOMYBS_PAGES_PER_BLOCK);
}

/* Frees pages with one reference each in pieces as big as never go to per-CPU lists: there they would not become a whole block
 * again, and page by page it takes ten times as long. */
void
domybs_pages_free (unsigned long pfn, unsigned long pages) {
  unsigned long i;

  while (pages) {
    unsigned int order = min_t (unsigned int, DOMYBS_BLOCK_ORDER - 1, min_t (unsigned int, __ffs (pfn), __fls (pages)));

    for (i = 1; i < 1ul << order; i++)
      set_page_count (pfn_to_page (pfn + i), 0); /* only the first page of a piece has a reference when it is freed */
    __free_pages (pfn_to_page (pfn), order);
    pfn += 1ul << order;
    pages -= 1ul << order;
  }
}

void
domybs_pages_give (struct domybs *d, u64 block) {
  domybs_pages_clear_offline (d, block);
  domybs_pages_free (domybs_block_pfn (d, block), DOMYBS_PAGES_PER_BLOCK);
}

static bool
domybs_block_is_out (const struct domybs *d, u64 block) {
  enum domybs_block_state state = domybs_block_get (d, block);

  return state == DOMYBS_BLOCK_TAKEN || state == DOMYBS_BLOCK_RESERVE || state == DOMYBS_BLOCK_HELD;
}

void
domybs_pages_ref_drop (struct domybs *d, u64 block) {
  struct page *page = pfn_to_page (domybs_block_pfn (d, block));
  unsigned long i;

  if (!domybs_block_is_out (d, block))
    return;
  for (i = 0; i < DOMYBS_PAGES_PER_BLOCK; i++)
    page_ref_dec (page + i);
  if (DOMYBS_OFFLINE_COUNTS_ALL)
    adjust_managed_page_count (page, DOMYBS_PAGES_PER_BLOCK);
}

void
domybs_pages_ref_restore (struct domybs *d, u64 block) {
  struct page *page = pfn_to_page (domybs_block_pfn (d, block));
  unsigned long i;

  if (!domybs_block_is_out (d, block))
    return;
  for (i = 0; i < DOMYBS_PAGES_PER_BLOCK; i++)
    page_ref_inc (page + i);
  if (DOMYBS_OFFLINE_COUNTS_ALL)
    adjust_managed_page_count (page, -(long)DOMYBS_PAGES_PER_BLOCK);
}

/* ---- finding free blocks ---- */

/* Without locks, so a guess; whoever takes the pages finds out. Pages on per-CPU lists count as free: taking drains those. */
static bool
domybs_block_looks_free (unsigned long pfn) {
  unsigned long end = pfn + DOMYBS_PAGES_PER_BLOCK;
  unsigned int order;

  for (order = DOMYBS_BLOCK_ORDER + 1; order <= DOMYBS_MAX_ORDER; order++) {
    struct page *head = pfn_to_page (ALIGN_DOWN (pfn, 1ul << order));

    if (PageBuddy (head) && READ_ONCE (page_private (head)) >= order)
      return true;
  }
  while (pfn < end) {
    struct page *page = pfn_to_page (pfn);

    if (PageBuddy (page)) {
      unsigned long free_order = READ_ONCE (page_private (page));

      if (free_order > DOMYBS_MAX_ORDER)
        return false;
      pfn += 1ul << free_order;
    } else if (!PageCompound (page) && !page_ref_count (page)) {
      pfn++;
    } else {
      return false;
    }
  }
  return true;
}

u32
domybs_blocks_scan (struct domybs *d, u32 s) {
  u64 first = domybs_section_start_block (d, s);
  u32 i, n = 0;

  bitmap_zero (d->scan, d->section_blocks);
  if (d->section[s].state != DOMYBS_SECTION_ONLINE)
    return 0;
  for (i = 0; i < d->section_blocks; i++)
    if (domybs_block_get (d, first + i) == DOMYBS_BLOCK_USED && domybs_block_looks_free (domybs_block_pfn (d, first + i))) {
      __set_bit (i, d->scan);
      n++;
    }
  return n;
}

/* ---- taking ---- */

/* For the operation of a user of /dev/domybs that the worker is at. */
static void
domybs_block_note (struct domybs *d, u64 block) {
  if (!WARN_ON_ONCE (d->op->got >= d->op->blocks))
    d->op->block[d->op->got++] = block;
}

static void
domybs_block_take_done (struct domybs *d, u64 block, enum domybs_block_state into) {
  if (into == DOMYBS_BLOCK_USER) {
    struct page *page = pfn_to_page (domybs_block_pfn (d, block));
    unsigned long i;

    if (!want_init_on_alloc (GFP_KERNEL))
      for (i = 0; i < DOMYBS_PAGES_PER_BLOCK; i++)
        clear_highpage (page + i);
    domybs_block_note (d, block);
  } else {
    domybs_pages_set_offline (d, block);
  }
  domybs_block_set (d, block, into);
}

static u32
domybs_take_run (struct domybs *d, u64 block, u32 n, enum domybs_block_state into) {
  u32 i;

  if (!domybs_alloc_contig (domybs_block_pfn (d, block), n * DOMYBS_PAGES_PER_BLOCK, GFP_KERNEL | __GFP_NOWARN)) {
    d->counters.taken_range += n;
    for (i = 0; i < n; i++)
      domybs_block_take_done (d, block + i, into);
    return n;
  }
  if (n == 1 || domybs_pressed (d))
    return 0;
  return domybs_take_run (d, block, n / 2, into) + domybs_take_run (d, block + n / 2, n - n / 2, into);
}

u32
domybs_blocks_take_in (struct domybs *d, u32 s, u32 want, bool migrate, enum domybs_block_state into) {
  u64 first = domybs_section_start_block (d, s);
  u32 taken = 0, i = 0, run;

  if (d->section[s].state != DOMYBS_SECTION_ONLINE || !want)
    return 0;
  domybs_blocks_scan (d, s);
  while (taken < want && (i = find_next_bit (d->scan, d->section_blocks, i)) < d->section_blocks) {
    run = min_t (u32, find_next_zero_bit (d->scan, d->section_blocks, i) - i, want - taken);
    taken += domybs_take_run (d, first + i, run, into);
    i += run;
  }
  for (i = 0; migrate && taken < want && i < d->section_blocks && !domybs_pressed (d); i++)
    if (domybs_block_get (d, first + i) == DOMYBS_BLOCK_USED)
      taken += domybs_take_run (d, first + i, 1, into);
  return taken;
}

/* Cheap and from anywhere: whole free blocks as the allocator hands them out. */
static u32
domybs_take_order9 (struct domybs *d, u32 want) {
  unsigned long window_pfn = domybs_block_pfn (d, 0);
  u64 usable = (u64)d->sections * d->section_blocks;
  u32 taken = 0, foreign = 0;
  LIST_HEAD (others);
  struct page *page, *next;

  while (taken < want) {
    u64 block;

    page = alloc_pages_node (d->node, DOMYBS_GFP_FREE, DOMYBS_BLOCK_ORDER);
    if (!page)
      break;
    block = (page_to_pfn (page) - window_pfn) / DOMYBS_PAGES_PER_BLOCK;
    if (page_to_pfn (page) < window_pfn || block >= usable || domybs_block_get (d, block) != DOMYBS_BLOCK_USED
        || d->section[(u32)block / d->section_blocks].state != DOMYBS_SECTION_ONLINE) {
      list_add (&page->lru, &others);
      if (++foreign >= DOMYBS_FOREIGN_MAX)
        break;
      continue;
    }
    split_page (page, DOMYBS_BLOCK_ORDER);
    domybs_block_take_done (d, block, DOMYBS_BLOCK_TAKEN);
    taken++;
  }
  list_for_each_entry_safe (page, next, &others, lru) {
    list_del (&page->lru);
    __free_pages (page, DOMYBS_BLOCK_ORDER);
  }
  d->counters.taken_order9 += taken;
  return taken;
}

u32
domybs_blocks_take (struct domybs *d, u32 want, bool migrate) {
  u32 taken = domybs_take_order9 (d, want), s;

  /* What the allocator does not hand out as one piece may still be whole: in pieces on per-CPU lists, or below a watermark. */
  for (s = d->sections; s-- > 0 && taken < want;)
    if (d->section[s].count[DOMYBS_BLOCK_USED])
      taken += domybs_blocks_take_in (d, s, want - taken, false, DOMYBS_BLOCK_TAKEN);
  for (s = d->sections; migrate && s-- > 0 && taken < want;)
    if (d->section[s].count[DOMYBS_BLOCK_USED])
      taken += domybs_blocks_take_in (d, s, want - taken, true, DOMYBS_BLOCK_TAKEN);
  return taken;
}

/* ---- to and from the host ---- */

u32
domybs_block_runs (struct domybs *d, enum domybs_block_state state, u64 *from, struct domybs_extent *runs) {
  u64 end = (u64)d->sections * d->section_blocks, b = *from;
  u32 n = 0;

  while (b < end) {
    u32 s = (u32)b / d->section_blocks;

    if (!d->section[s].count[state]) {
      b = domybs_section_start_block (d, s + 1);
      continue;
    }
    if (domybs_block_get (d, b) == state) {
      if (n && runs[n - 1].start + runs[n - 1].count == b) {
        runs[n - 1].count++;
      } else {
        if (n == DOMYBS_RUNS_MAX)
          break;
        runs[n++] = (struct domybs_extent){ .start = b, .count = 1 };
      }
    }
    b++;
  }
  *from = b;
  return n;
}

u32
domybs_blocks_release_taken (struct domybs *d) {
  struct domybs_extent *runs = d->runs;
  u32 released = 0, n, i;
  u64 from = 0, b;

  /* Nothing can be released to a broken device; when it is being removed it is enough that nobody uses the blocks. */
  if (READ_ONCE (d->broken) && READ_ONCE (d->draining))
    return d->count[DOMYBS_BLOCK_TAKEN];
  while ((n = domybs_block_runs (d, DOMYBS_BLOCK_TAKEN, &from, runs)) > 0) {
    bool done = !domybs_release (d, runs, n);

    for (i = 0; i < n; i++)
      for (b = runs[i].start; b < runs[i].start + runs[i].count; b++) {
        domybs_block_set (d, b, done ? DOMYBS_BLOCK_HELD : DOMYBS_BLOCK_USED);
        if (!done)
          domybs_pages_give (d, b);
        else
          released++;
      }
  }
  return released;
}

int
domybs_blocks_regrant (struct domybs *d, u32 want, enum domybs_block_state into, u32 *ret_blocks) {
  u32 s, runs, i;
  int rc = 0;

  *ret_blocks = 0;
  for (s = 0; s < d->sections && *ret_blocks < want; s++) {
    u32 held = d->section[s].count[DOMYBS_BLOCK_HELD];
    u64 got, b;

    if (d->section[s].state != DOMYBS_SECTION_ONLINE || !held)
      continue;
    rc = domybs_grant (d, DOMYBS_HINT_LOCAL, 0, min (held, want - *ret_blocks), domybs_section_start_block (d, s),
                       d->section_blocks, &runs, &got);
    if (rc)
      break;
    for (i = 0; i < runs; i++)
      for (b = d->runs[i].start; b < d->runs[i].start + d->runs[i].count; b++) {
        domybs_block_set (d, b, into);
        if (into == DOMYBS_BLOCK_USER) {
          domybs_pages_clear_offline (d, b); /* granted blocks are zero */
          domybs_block_note (d, b);
        } else {
          domybs_pages_give (d, b);
        }
      }
    *ret_blocks += got;
  }
  return *ret_blocks ? 0 : rc;
}

/* ---- the reserve ---- */

u32
domybs_blocks_reserve_fill (struct domybs *d, u32 want) {
  u32 taken = domybs_take_order9 (d, want), s, i;

  for (s = 0; s < d->sections && taken; s++) {
    u64 first = domybs_section_start_block (d, s);

    for (i = 0; i < d->section_blocks && d->section[s].count[DOMYBS_BLOCK_TAKEN]; i++)
      if (domybs_block_get (d, first + i) == DOMYBS_BLOCK_TAKEN)
        domybs_block_set (d, first + i, DOMYBS_BLOCK_RESERVE);
  }
  return taken;
}

u32
domybs_blocks_reserve_give (struct domybs *d, u32 want) {
  u64 found[16];
  u32 n = 0, s, i;
  unsigned long flags;

  want = min_t (u32, want, ARRAY_SIZE (found));
  spin_lock_irqsave (&d->lock, flags);
  for (s = 0; s < d->sections && n < want && d->count[DOMYBS_BLOCK_RESERVE]; s++) {
    if (d->section[s].state != DOMYBS_SECTION_ONLINE || !d->section[s].count[DOMYBS_BLOCK_RESERVE])
      continue;
    for (i = 0; i < d->section_blocks && n < want; i++) {
      u64 block = domybs_section_start_block (d, s) + i;

      if (d->block[block] != DOMYBS_BLOCK_RESERVE)
        continue;
      domybs_block_set_locked (d, block, DOMYBS_BLOCK_USED);
      found[n++] = block;
    }
  }
  spin_unlock_irqrestore (&d->lock, flags);
  for (i = 0; i < n; i++)
    domybs_pages_give (d, found[i]);
  return n;
}

void
domybs_blocks_reserve_drop (struct domybs *d, u32 keep) {
  u64 end = (u64)d->sections * d->section_blocks, b;

  spin_lock_irq (&d->lock);
  for (b = 0; b < end && d->count[DOMYBS_BLOCK_RESERVE] > keep; b++) {
    if (!d->section[(u32)b / d->section_blocks].count[DOMYBS_BLOCK_RESERVE]) {
      b = domybs_section_start_block (d, (u32)b / d->section_blocks + 1) - 1;
      continue;
    }
    if (d->block[b] == DOMYBS_BLOCK_RESERVE)
      domybs_block_set_locked (d, b, DOMYBS_BLOCK_TAKEN);
  }
  spin_unlock_irq (&d->lock);
}
