/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "core/buddy.h"

#include <string.h>

static uint64_t
words (uint64_t bits) {
  return (bits + 63) / 64;
}

/* ---- the bits of one order ---- */

static unsigned
lay_out (uint64_t n, uint64_t *ret_words, uint64_t *memory, struct buddy_bits *bits) {
  unsigned depth = 0;

  *ret_words = 0;
  while (n > 0) {
    n = words (n);
    if (bits)
      bits->levels[depth] = memory + *ret_words;
    *ret_words += n;
    depth++;
    if (n == 1)
      break;
  }
  return depth;
}

static bool
is_set (const struct buddy_bits *bits, uint64_t chunk) {
  return chunk < bits->n && (bits->levels[0][chunk / 64] >> (chunk % 64) & 1);
}

static void
set (struct buddy *buddy, unsigned order, uint64_t chunk) {
  struct buddy_bits *bits = &buddy->bits[order];

  for (unsigned level = 0; level < bits->depth; level++, chunk /= 64) {
    uint64_t *const word = &bits->levels[level][chunk / 64];
    const uint64_t before = *word;

    *word = before | 1ull << (chunk % 64);
    if (before)
      break;
  }
  if (bits->free++ == 0)
    buddy->orders |= 1u << order;
}

static void
clear (struct buddy *buddy, unsigned order, uint64_t chunk) {
  struct buddy_bits *bits = &buddy->bits[order];

  for (unsigned level = 0; level < bits->depth; level++, chunk /= 64) {
    uint64_t *const word = &bits->levels[level][chunk / 64];

    *word &= ~(1ull << (chunk % 64));
    if (*word)
      break;
  }
  if (--bits->free == 0)
    buddy->orders &= ~(1u << order);
}

/* There is one. */
static uint64_t
first (const struct buddy_bits *bits) {
  uint64_t chunk = 0;

  for (unsigned level = bits->depth; level-- > 0;)
    chunk = chunk * 64 + (unsigned)__builtin_ctzll (bits->levels[level][chunk]);
  return chunk;
}

/* ---- public ---- */

size_t
buddy_bytes (uint64_t n) {
  uint64_t all = 0;

  if (n == 0 || n > BUDDY_UNITS_MAX)
    return 0;
  for (unsigned order = 0; order < BUDDY_ORDERS; order++) {
    uint64_t some;

    lay_out (n >> order, &some, NULL, NULL);
    all += some;
  }
  return (size_t)(all * sizeof (uint64_t));
}

void
buddy_init (struct buddy *buddy, uint64_t n, void *memory) {
  uint64_t *at = memory;

  memset (memory, 0, buddy_bytes (n));
  *buddy = (struct buddy){ .units = n };
  for (unsigned order = 0; order < BUDDY_ORDERS; order++) {
    struct buddy_bits *bits = &buddy->bits[order];
    uint64_t some;

    bits->n = n >> order;
    bits->depth = lay_out (bits->n, &some, at, bits);
    at += some;
  }
}

/* Of a free chunk of order `from`, which is no longer free, the part [chunk of order `order`] is kept, the rest is free. */
static void
split (struct buddy *buddy, unsigned from, unsigned order, uint64_t chunk) {
  for (unsigned o = order; o < from; o++)
    set (buddy, o, (chunk >> (o - order)) ^ 1);
}

uint64_t
buddy_take (struct buddy *buddy, unsigned order) {
  unsigned from;
  uint64_t chunk;

  if (order >= BUDDY_ORDERS || !(buddy->orders >> order))
    return BUDDY_NONE;
  from = order + (unsigned)__builtin_ctz (buddy->orders >> order);
  chunk = first (&buddy->bits[from]);
  clear (buddy, from, chunk);
  chunk <<= from - order;
  split (buddy, from, order, chunk);
  buddy->free -= 1ull << order;
  return chunk << order;
}

/* The order of the free chunk that has it; BUDDY_ORDERS: there is none. */
static unsigned
find (const struct buddy *buddy, uint64_t unit) {
  unsigned order = 0;

  while (order < BUDDY_ORDERS && !is_set (&buddy->bits[order], unit >> order))
    order++;
  return order;
}

bool
buddy_take_unit (struct buddy *buddy, uint64_t unit) {
  const unsigned order = find (buddy, unit);

  if (order == BUDDY_ORDERS)
    return false;
  clear (buddy, order, unit >> order);
  split (buddy, order, 0, unit);
  buddy->free--;
  return true;
}

bool
buddy_release (struct buddy *buddy, uint64_t unit, unsigned order) {
  const unsigned began = order;
  uint64_t chunk;

  if (order >= BUDDY_ORDERS || unit >= buddy->units || buddy->units - unit < 1ull << order || unit & ((1ull << order) - 1))
    return false;
  if (find (buddy, unit) != BUDDY_ORDERS)
    return false;
  chunk = unit >> order;
  while (order + 1 < BUDDY_ORDERS && is_set (&buddy->bits[order], chunk ^ 1)) {
    clear (buddy, order, chunk ^ 1);
    chunk >>= 1;
    order++;
  }
  set (buddy, order, chunk);
  buddy->free += 1ull << began;
  return true;
}

bool
buddy_release_run (struct buddy *buddy, uint64_t start, uint64_t count) {
  if (start > buddy->units || count > buddy->units - start)
    return false;
  while (count) {
    unsigned order = 0;

    while (order + 1 < BUDDY_ORDERS && !(start & ((2ull << order) - 1)) && 2ull << order <= count)
      order++;
    if (!buddy_release (buddy, start, order))
      return false;
    start += 1ull << order;
    count -= 1ull << order;
  }
  return true;
}

bool
buddy_is_free (const struct buddy *buddy, uint64_t unit) {
  return unit < buddy->units && find (buddy, unit) != BUDDY_ORDERS;
}

uint64_t
buddy_free_in_order (const struct buddy *buddy, unsigned order) {
  uint64_t sum = 0;

  for (; order < BUDDY_ORDERS; order++)
    sum += buddy->bits[order].free << order;
  return sum;
}

unsigned
buddy_fragmentation_permille (const struct buddy *buddy, unsigned order) {
  return buddy->free ? (unsigned)((buddy->free - buddy_free_in_order (buddy, order)) * 1000 / buddy->free) : 0;
}
