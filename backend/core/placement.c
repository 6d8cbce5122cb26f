/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "core/placement.h"

#include <string.h>

/* Vigna's splitmix64, https://prng.di.unimi.it/splitmix64.c: a good mixing of 64 bits. */
static uint64_t
mix (uint64_t x) {
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

/* Whether that donor's domain is none of the mask's. */
static bool
fits (const struct placement *p, uint32_t mask, unsigned donor) {
  for (unsigned d = 0; d < p->n_donors; d++)
    if ((mask >> d & 1) && (d == donor || p->domains[d] == p->domains[donor]))
      return false;
  return true;
}

static void
add_set (struct placement *p, uint32_t set) {
  for (unsigned s = 0; s < p->n_sets; s++)
    if (p->sets[s] == set)
      return;
  if (p->n_sets < PLACEMENT_SETS_MAX)
    p->sets[p->n_sets++] = (uint16_t)set;
}

/* Cuts one order of all donors into sets. What is left at the end is filled up with those that are in a set already, so that
 * nobody is left out. */
static void
cut (struct placement *p, const uint8_t *order, unsigned copies) {
  uint32_t used = 0;

  for (unsigned i = 0; i < p->n_donors; i++) {
    uint32_t set = 1u << order[i];

    if (used >> order[i] & 1)
      continue;
    for (unsigned turn = 0; turn < 2; turn++)
      for (unsigned j = 0; j < p->n_donors && placement_count (set) < copies; j++)
        if ((turn || !(used >> order[j] & 1)) && fits (p, set, order[j]))
          set |= 1u << order[j];
    if (placement_count (set) == copies) {
      add_set (p, set);
      used |= set;
    }
  }
}

void
placement_init (struct placement *p, unsigned n_donors, const uint32_t *domains, unsigned copies, unsigned scatter,
                uint64_t seed) {
  const unsigned per_order = copies > 1 ? copies - 1 : 1, orders = scatter / per_order + (scatter % per_order != 0);

  memset (p, 0, sizeof *p);
  p->n_donors = n_donors < PLACEMENT_DONORS_MAX ? n_donors : PLACEMENT_DONORS_MAX;
  for (unsigned d = 0; d < p->n_donors; d++)
    p->domains[d] = domains[d];
  for (unsigned o = 0; o < (orders ? orders : 1) && p->n_sets < PLACEMENT_SETS_MAX; o++) {
    uint8_t order[PLACEMENT_DONORS_MAX];

    for (unsigned i = 0; i < p->n_donors; i++) {
      const unsigned j = (unsigned)(mix (seed ^ mix ((uint64_t)o << 32 | i)) % (i + 1));

      order[i] = order[j];
      order[j] = (uint8_t)i;
    }
    cut (p, order, copies);
  }
}

/* What the set could still take: as much as the fullest of those that would get a copy. 0: it can't be taken. */
static uint64_t
set_room (const struct placement *p, uint32_t set, uint32_t have, uint32_t candidates, const uint64_t *room) {
  uint64_t least = UINT64_MAX;

  if ((set & have) != have || (set & ~have & ~candidates))
    return 0;
  for (unsigned d = 0; d < p->n_donors; d++)
    if ((set & ~have) >> d & 1)
      least = room[d] < least ? room[d] : least;
  return least;
}

/* Donors one by one, without sets. */
static uint32_t
choose_any (const struct placement *p, uint64_t place, unsigned copies, uint32_t have, uint32_t candidates,
            const uint64_t *room) {
  uint32_t chosen = 0;

  while (placement_count (have | chosen) < copies) {
    unsigned first = PLACEMENT_DONORS_MAX, second = first, n = 0;

    /* Two of those that fit, each with the same chance, by one pass. */
    for (unsigned d = 0; d < p->n_donors; d++) {
      if (!(candidates >> d & 1) || room[d] == 0 || !fits (p, have | chosen, d))
        continue;
      n++;
      if (mix (place ^ mix (d + 1)) % n == 0)
        first = d;
      if (mix (place ^ mix (d + 1001)) % n == 0)
        second = d;
    }
    if (n == 0)
      break;
    chosen |= 1u << (room[second] > room[first] ? second : first);
  }
  return chosen;
}

uint32_t
placement_choose (const struct placement *p, uint64_t place, unsigned copies, uint32_t have, uint32_t candidates,
                  const uint64_t *room) {
  uint32_t chosen[2] = { 0, 0 };
  uint64_t rooms[2] = { 0, 0 };
  unsigned n = 0;

  candidates &= ~have;
  if (placement_count (have) >= copies)
    return 0;
  for (unsigned s = 0; s < p->n_sets; s++) {
    const uint32_t set = p->sets[s];
    const uint64_t has = placement_count (set) == copies ? set_room (p, set, have, candidates, room) : 0;

    if (has == 0)
      continue;
    n++;
    for (unsigned k = 0; k < 2; k++)
      if (mix (place ^ mix (set + 65536ull * k)) % n == 0) {
        chosen[k] = set;
        rooms[k] = has;
      }
  }
  if (n == 0)
    return choose_any (p, place, copies, have, candidates, room);
  return chosen[rooms[1] > rooms[0]] & ~have;
}
