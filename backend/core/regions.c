/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "core/regions.h"

#include <stdlib.h>
#include <string.h>

#define NONE UINT32_MAX

struct region_entry {
  uint32_t granted;    /* blocks */
  uint32_t prev, next; /* in the list of its kind; a full region is in none */
};

static bool
power_of_two (uint64_t n) {
  return n && !(n & (n - 1));
}

/* ---- bits: runs of blocks as masks over words ---- */

static uint64_t
word_mask (uint64_t word, uint64_t start, uint64_t end) {
  const uint64_t low = word * 64;
  uint64_t mask = ~0ull;

  if (start > low)
    mask &= ~0ull << (start - low);
  if (end < low + 64)
    mask &= ~0ull >> (low + 64 - end);
  return mask;
}

/* Whether every bit of [start, end) is `value`. */
static bool
bits_are (const uint64_t *bits, uint64_t start, uint64_t end, bool value) {
  for (uint64_t w = start / 64; w * 64 < end; w++) {
    const uint64_t mask = word_mask (w, start, end);

    if ((bits[w] & mask) != (value ? mask : 0))
      return false;
  }
  return true;
}

static void
bits_set (uint64_t *bits, uint64_t start, uint64_t end, bool value) {
  for (uint64_t w = start / 64; w * 64 < end; w++) {
    const uint64_t mask = word_mask (w, start, end);

    bits[w] = value ? bits[w] | mask : bits[w] & ~mask;
  }
}

/* The first position in [start, end) whose bit is `value`; end if there is none. */
static uint64_t
bits_find (const uint64_t *bits, uint64_t start, uint64_t end, bool value) {
  if (start >= end)
    return end;
  for (uint64_t w = start / 64; w * 64 < end; w++) {
    const uint64_t found = (value ? bits[w] : ~bits[w]) & word_mask (w, start, end);

    if (found)
      return w * 64 + (uint64_t)__builtin_ctzll (found);
  }
  return end;
}

/* ---- lists ---- */

static uint32_t *
list_of (struct regions *regions, uint32_t granted) {
  if (granted == 0)
    return &regions->first_empty;
  return granted < regions->region_blocks ? &regions->first_partial : NULL;
}

static void
unlist (struct regions *regions, uint32_t index) {
  struct region_entry *entry = &regions->entries[index];
  uint32_t *list = list_of (regions, entry->granted);

  if (!list)
    return;
  if (entry->prev == NONE)
    *list = entry->next;
  else
    regions->entries[entry->prev].next = entry->next;
  if (entry->next != NONE)
    regions->entries[entry->next].prev = entry->prev;
}

static void
enlist (struct regions *regions, uint32_t index) {
  struct region_entry *entry = &regions->entries[index];
  uint32_t *list = list_of (regions, entry->granted);

  if (!list)
    return;
  entry->prev = NONE;
  entry->next = *list;
  if (*list != NONE)
    regions->entries[*list].prev = index;
  *list = index;
}

/* Adds delta to the count of a region and moves it to the list that it then belongs to. */
static void
recount (struct regions *regions, uint32_t index, int64_t delta) {
  struct region_entry *entry = &regions->entries[index];
  const uint32_t after = (uint32_t)(entry->granted + delta);

  if (list_of (regions, entry->granted) == list_of (regions, after)) {
    entry->granted = after;
    return;
  }
  unlist (regions, index);
  entry->granted = after;
  enlist (regions, index);
}

/* ---- life ---- */

/* How many regions there are in the window, with the last one; 0: it can't be cut so. */
static uint64_t
cut (uint64_t n_blocks, uint32_t region_blocks) {
  uint64_t n;

  if (!power_of_two (region_blocks) || region_blocks > REGION_BLOCKS_MAX)
    return 0;
  n = n_blocks / region_blocks;
  return n < 2 || n > NONE ? 0 : n;
}

bool
regions_reset (struct regions *regions, uint32_t region_blocks) {
  const uint64_t n = cut (regions->n_blocks, region_blocks);
  struct region_entry *entries;

  if (n == 0)
    return false;
  entries = regions->entries;
  if (n - 1 != regions->n_regions) /* the same cut again must not need memory: a session's end must not fail */
    entries = realloc (entries, (n - 1) * sizeof *entries);
  if (!entries)
    return false;
  regions->entries = entries;
  regions->region_blocks = region_blocks;
  regions->n_regions = (uint32_t)(n - 1);
  regions->usable_blocks = (n - 1) * region_blocks;
  regions->granted = 0;
  regions->first_partial = NONE;
  regions->first_empty = NONE;
  memset (regions->bits, 0, (regions->n_blocks + 63) / 64 * sizeof *regions->bits);
  for (uint32_t i = regions->n_regions; i-- > 0;) {
    entries[i].granted = 0;
    enlist (regions, i);
  }
  return true;
}

bool
regions_init (struct regions *regions, uint64_t n_blocks, uint32_t region_blocks) {
  memset (regions, 0, sizeof *regions);
  regions->n_blocks = n_blocks;
  regions->bits = calloc ((n_blocks + 63) / 64, sizeof *regions->bits);
  if (!regions->bits || !regions_reset (regions, region_blocks)) {
    regions_clear (regions);
    return false;
  }
  return true;
}

void
regions_bits_assign (uint64_t *bits, uint64_t start, uint64_t count, bool granted) {
  bits_set (bits, start, start + count, granted);
}

bool
regions_bits_fit (uint64_t n_blocks, uint32_t region_blocks, const uint64_t *bits) {
  const uint64_t n = cut (n_blocks, region_blocks), end = (n_blocks + 63) / 64 * 64;

  return n && (!bits || bits_find (bits, (n - 1) * region_blocks, end, true) == end);
}

bool
regions_load (struct regions *regions, uint32_t region_blocks, const uint64_t *bits) {
  if (!regions_reset (regions, region_blocks))
    return false;
  memcpy (regions->bits, bits, (regions->n_blocks + 63) / 64 * sizeof *bits);
  for (uint32_t i = regions->n_regions; i-- > 0;) { /* downwards: the lists begin with the lowest, as in a fresh window */
    const uint64_t granted = regions_count (regions, (uint64_t)i * region_blocks, region_blocks);

    if (granted)
      recount (regions, i, (int64_t)granted);
    regions->granted += granted;
  }
  return true;
}

void
regions_clear (struct regions *regions) {
  free (regions->bits);
  free (regions->entries);
  memset (regions, 0, sizeof *regions);
}

/* ---- choosing ---- */

struct choice {
  struct block_run *runs;
  unsigned n, max;
  uint64_t wanted, found;
};

/* Adds the ungranted blocks of [start, end) to the choice. False when it is complete or has no run left. */
static bool
choose_in (const struct regions *regions, uint64_t start, uint64_t end, struct choice *choice) {
  while (choice->found < choice->wanted) {
    const uint64_t first = bits_find (regions->bits, start, end, false);
    uint64_t last, count;
    struct block_run *previous = choice->n ? &choice->runs[choice->n - 1] : NULL;

    if (first == end)
      return true;
    last = bits_find (regions->bits, first, end, true);
    count = last - first;
    if (count > choice->wanted - choice->found)
      count = choice->wanted - choice->found;
    if (previous && previous->start + previous->count == first)
      previous->count += count;
    else if (choice->n < choice->max)
      choice->runs[choice->n++] = (struct block_run){ first, count };
    else
      return false;
    choice->found += count;
    start = last;
  }
  return false;
}

static bool
choose_in_region (const struct regions *regions, uint32_t index, struct choice *choice) {
  const uint64_t start = (uint64_t)index * regions->region_blocks;

  return choose_in (regions, start, start + regions->region_blocks, choice);
}

uint64_t
regions_choose (const struct regions *regions, uint64_t blocks, uint64_t area_start, uint64_t area_blocks, unsigned flags,
                struct block_run *runs, unsigned max_runs, unsigned *ret_n_runs) {
  const uint64_t size = regions->region_blocks;
  struct choice choice = { runs, 0, max_runs, blocks, 0 };

  if (flags & REGIONS_WHOLE)
    choice.wanted -= choice.wanted % size;
  if (area_blocks) {
    uint64_t end = area_blocks > regions->usable_blocks ? regions->usable_blocks : area_start + area_blocks;

    if (area_start >= regions->usable_blocks)
      end = area_start = 0;
    if (end > regions->usable_blocks || end < area_start)
      end = regions->usable_blocks;
    if (!(flags & REGIONS_WHOLE)) {
      choose_in (regions, area_start, end, &choice);
    } else {
      for (uint64_t i = (area_start + size - 1) / size; (i + 1) * size <= end; i++)
        if (regions->entries[i].granted == 0 && !choose_in_region (regions, (uint32_t)i, &choice))
          break;
    }
  } else {
    bool more = true;

    if (!(flags & REGIONS_WHOLE))
      for (uint32_t i = regions->first_partial; more && i != NONE; i = regions->entries[i].next)
        more = choose_in_region (regions, i, &choice);
    for (uint32_t i = regions->first_empty; more && i != NONE; i = regions->entries[i].next)
      more = choose_in_region (regions, i, &choice);
  }
  *ret_n_runs = choice.n;
  return choice.found;
}

static bool
in_window (const struct regions *regions, uint64_t start, uint64_t count) {
  return count && start < regions->usable_blocks && count <= regions->usable_blocks - start;
}

static bool
change (struct regions *regions, uint64_t start, uint64_t count, bool take) {
  const uint64_t end = start + count;
  const int shift = __builtin_ctz (regions->region_blocks); /* a division here is most of the cost of a single block */

  if (!in_window (regions, start, count) || !bits_are (regions->bits, start, end, !take))
    return false;
  bits_set (regions->bits, start, end, take);
  for (uint64_t at = start; at < end;) {
    const uint64_t index = at >> shift;
    const uint64_t stop = (index + 1) << shift < end ? (index + 1) << shift : end;

    recount (regions, (uint32_t)index, take ? (int64_t)(stop - at) : -(int64_t)(stop - at));
    at = stop;
  }
  regions->granted = take ? regions->granted + count : regions->granted - count;
  return true;
}

bool
regions_take (struct regions *regions, uint64_t start, uint64_t count) {
  return change (regions, start, count, true);
}

bool
regions_give (struct regions *regions, uint64_t start, uint64_t count) {
  return change (regions, start, count, false);
}

/* In words of the language: the compiler's own would be a call into its library on a plain x86-64. */
static unsigned
count_ones (uint64_t word) {
  word -= (word >> 1) & 0x5555555555555555ull;
  word = (word & 0x3333333333333333ull) + ((word >> 2) & 0x3333333333333333ull);
  word = (word + (word >> 4)) & 0x0f0f0f0f0f0f0f0full;
  return (unsigned)((word * 0x0101010101010101ull) >> 56);
}

uint64_t
regions_count (const struct regions *regions, uint64_t start, uint64_t count) {
  uint64_t end, granted = 0;

  if (start >= regions->n_blocks || count == 0)
    return 0;
  end = count < regions->n_blocks - start ? start + count : regions->n_blocks;
  for (uint64_t w = start / 64; w * 64 < end; w++)
    granted += count_ones (regions->bits[w] & word_mask (w, start, end));
  return granted;
}

bool
regions_next_run (const struct regions *regions, bool granted, uint64_t *cursor, struct block_run *ret_run) {
  const uint64_t first = bits_find (regions->bits, *cursor, regions->n_blocks, granted);
  uint64_t end;

  if (first >= regions->n_blocks)
    return false;
  end = bits_find (regions->bits, first, regions->n_blocks, !granted);
  *ret_run = (struct block_run){ first, end - first };
  *cursor = end;
  return true;
}

unsigned
regions_fragmentation (const struct regions *regions) {
  uint64_t opened = 0;

  for (uint32_t i = 0; i < regions->n_regions; i++)
    if (regions->entries[i].granted)
      opened += regions->region_blocks;
  return opened ? (unsigned)((opened - regions->granted) * 1000 / opened) : 0;
}
