/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Region allocation for the LOCAL tier: which blocks of the window are granted.
 *
 * The window is cut into regions of the guest's section size. A guest can only return the memory map of a section (and the host
 * only get large contiguous holes) when all of its blocks are free, so blocks are taken from partly granted regions first and a
 * fresh region is opened only when none of those has room. Within a region, blocks are taken lowest first.
 *
 * One bit per block and a count per region; regions of a kind (empty, partly granted) hang on a list, so that an unconstrained
 * grant finds its region in O(1) and a block in it with one scan over region_blocks / 64 words. Empty regions are listed in
 * address order at first and last-freed-first later.
 *
 * Pure. Allocates at init and set_region_blocks only, sizes given by the operator's window (16 bytes per region, 1 bit per block).
 */
#ifndef DOMYBS_CORE_REGIONS_H
#define DOMYBS_CORE_REGIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "domybs-abi.h"

#define REGION_BLOCKS_MAX 1024u /* 2 GiB: the largest section of any Linux guest on x86 */

struct region_entry;

struct regions {
  uint64_t n_blocks;      /* of the window */
  uint64_t usable_blocks; /* without the last region, which is never granted (the map ends 4 KiB before the window does) */
  uint32_t region_blocks;
  uint32_t n_regions; /* usable ones */
  uint64_t granted;   /* blocks */
  uint64_t *bits;     /* 1 = granted */
  struct region_entry *entries;
  uint32_t first_empty, first_partial; /* list heads; UINT32_MAX = none */
};

struct block_run {
  uint64_t start;
  uint64_t count;
};

/* For a window of n_blocks (≥ 2 regions). False when memory is short. region_blocks: a power of two ≤ REGION_BLOCKS_MAX. */
bool regions_init (struct regions *regions, uint64_t n_blocks, uint32_t region_blocks);
void regions_clear (struct regions *regions);

/* Forgets all grants and cuts the window anew. On failure (memory, or fewer than 2 regions) nothing has changed; the
 * same region_blocks as before cannot fail. */
bool regions_reset (struct regions *regions, uint32_t region_blocks);

/* Sets the bits of [start, + count) to granted, or to ungranted, whatever they are now. The range must lie within the bits. */
void regions_bits_assign (uint64_t *bits, uint64_t start, uint64_t count, bool granted);

/* Whether bits (1 = granted; a whole number of words for n_blocks) are the bits of a window that is cut so: a cut that
 * regions_init takes, and nothing granted beyond its usable blocks. bits NULL: only whether it can be cut so. */
bool regions_bits_fit (uint64_t n_blocks, uint32_t region_blocks, const uint64_t *bits);

/* Cuts the window anew and takes over bits that fit. False when memory is short; nothing has changed then. */
bool regions_load (struct regions *regions, uint32_t region_blocks, const uint64_t *bits);

#define REGIONS_WHOLE (1u << 0) /* only whole regions that are wholly free */

/* Chooses up to `blocks` ungranted blocks within [area_start, + area_blocks) (0, 0: anywhere) and writes them as at most max_runs
 * runs, ascending within a region. Nothing is granted yet: regions_take does that, so that what has to happen in between
 * (accounts, populating) can fail without a trace. Returns how many blocks were found; fewer than asked for when there are no
 * more, or when they would need more than max_runs runs. */
uint64_t regions_choose (const struct regions *regions, uint64_t blocks, uint64_t area_start, uint64_t area_blocks, unsigned flags,
                         struct block_run *runs, unsigned max_runs, unsigned *ret_n_runs);

/* Grants a run that is wholly usable and ungranted; false (and nothing done) otherwise. */
bool regions_take (struct regions *regions, uint64_t start, uint64_t count);

/* Ends the grant of a run that is wholly granted; false (and nothing done) otherwise. */
bool regions_give (struct regions *regions, uint64_t start, uint64_t count);

/* How many blocks of [start, + count) are granted; what lies outside of the window is not. */
uint64_t regions_count (const struct regions *regions, uint64_t start, uint64_t count);

/* The next maximal run of ungranted (or granted) blocks at or after *cursor, over the whole window; false at its end. */
bool regions_next_run (const struct regions *regions, bool granted, uint64_t *cursor, struct block_run *ret_run);

/* Share of empty blocks within opened regions, 0…1000 per mille: what whole-section release cannot return. */
unsigned regions_fragmentation (const struct regions *regions);

#endif
