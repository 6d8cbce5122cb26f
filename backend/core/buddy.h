/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A buddy allocator: n units, of whatever kind, in chunks of 2^order units that begin at a multiple of their size.
 *
 *   order 2  ┌───────────────┐               a set bit: the chunk is free, as a whole and not as a part of a greater one
 *   order 1  ┌───────┬───────┐
 *   order 0  ┌───┬───┬───┬───┐               above each order's bits: a bit for each word that is not 0, and so on up to one
 * word
 *
 * A chunk is taken from the smallest order that has a free one, at its lowest place, so that what is used gathers at the front
 * and what is free stays whole behind it. Taking and releasing change one bit for each order they go through: O(log n), with
 * steps of 64.
 *
 * The state is in the caller's memory, and is made of a list of what is free (buddy_release_run), not kept: what is used is
 * noted elsewhere by who uses it. Pure.
 */
#ifndef DOMYBS_CORE_BUDDY_H
#define DOMYBS_CORE_BUDDY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BUDDY_ORDERS 21u /* 0 … 20: with units of 2 MiB chunks of up to 2 TiB */
#define BUDDY_UNITS_MAX (1u << 30)
#define BUDDY_NONE UINT64_MAX
#define BUDDY_LEVELS 5u /* 64^5 = 2^30 */

struct buddy_bits {
  uint64_t *levels[BUDDY_LEVELS]; /* [0]: the chunks */
  uint64_t n;                     /* chunks of this order that fit */
  uint64_t free;                  /* bits of levels[0] that are set */
  unsigned depth;                 /* levels[depth − 1] is one word */
};

struct buddy {
  uint64_t units, free; /* free: units */
  uint32_t orders;      /* a bit for each order that has a free chunk */
  struct buddy_bits bits[BUDDY_ORDERS];
};

/* Of the memory that n units need; a multiple of 8. 0: n is 0 or more than BUDDY_UNITS_MAX. */
size_t buddy_bytes (uint64_t n);
/* All units are taken. memory: buddy_bytes (n) bytes, aligned to 8, in use until the end; what was in it is gone. */
void buddy_init (struct buddy *buddy, uint64_t n, void *memory);

/* The first unit of a chunk of 2^order units; BUDDY_NONE: there is none (free memory may be there in smaller chunks). */
uint64_t buddy_take (struct buddy *buddy, unsigned order);
/* Takes just this unit. False: it is not free. */
bool buddy_take_unit (struct buddy *buddy, uint64_t unit);
/* Gives back 2^order units from `unit` on, all of which were taken, by one or more calls. Numbers that can't be, or a chunk
 * that is free in part as far as can be seen in passing, are refused: false, and nothing has changed. */
bool buddy_release (struct buddy *buddy, uint64_t unit, unsigned order);
/* The same for any run. */
bool buddy_release_run (struct buddy *buddy, uint64_t start, uint64_t count);

/* Whether that unit is free: O(orders). */
bool buddy_is_free (const struct buddy *buddy, uint64_t unit);
/* Units that could be taken as chunks of that order. */
uint64_t buddy_free_in_order (const struct buddy *buddy, unsigned order);
/* How much of what is free can't be taken as chunks of that order: 0 none of it … 1000 all of it. Nothing free: 0. */
unsigned buddy_fragmentation_permille (const struct buddy *buddy, unsigned order);

#endif
