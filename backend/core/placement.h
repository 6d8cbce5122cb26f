/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which donors get the copies of a place.
 *
 * Copysets (Cidon and others, "Copysets: Reducing the Frequency of Data Loss in Cloud Storage", 2013): with copies on any two
 * of n donors, any two donors that die together take something with them. So the copies of a place go to the members of one set
 * out of a few, made beforehand: `scatter` says with how many others a donor shares sets, and so how many help when its copies
 * are made anew.
 *
 * Members of a set are of different failure domains. Among the sets with room, two are taken by a hash of the place, and of
 * these the one with more room (the power of two choices): even, without a count of who has what, and the same again for the
 * same place while little changes.
 *
 * Pure; no allocation.
 */
#ifndef DOMYBS_CORE_PLACEMENT_H
#define DOMYBS_CORE_PLACEMENT_H

#include <stdbool.h>
#include <stdint.h>

#define PLACEMENT_DONORS_MAX 16u /* donors are bits 0 to 15 of a mask */
#define PLACEMENT_SETS_MAX 64u
#define PLACEMENT_SCATTER_DEFAULT 4u

struct placement {
  unsigned n_donors;
  uint32_t domains[PLACEMENT_DONORS_MAX]; /* equal: they may fail together */
  unsigned n_sets;
  uint16_t sets[PLACEMENT_SETS_MAX];
};

static inline unsigned
placement_count (uint32_t mask) {
  unsigned n = 0;

  for (; mask; mask &= mask - 1)
    n++;
  return n;
}

/* Sets of `copies` (1 to 4) members of different domains. Where there are not so many domains there is no set. seed: the same
 * for all workers of a VM, another one for each VM. */
void placement_init (struct placement *placement, unsigned n_donors, const uint32_t *domains, unsigned copies, unsigned scatter,
                     uint64_t seed);

/* The donors that should have place's copies: those in `have` and, of `candidates` (which has no member of `have`), so many
 * more that there are `copies` (as in placement_init), of different domains all. room: what each donor could still take. A mask
 * without `have`; fewer than asked for, or none, where that can't be. A set is preferred that has all of `have`; where none has
 * them, or has room, any candidates of other domains do: two copies somewhere are better than one in the right set. */
uint32_t placement_choose (const struct placement *placement, uint64_t place, unsigned copies, uint32_t have,
                           uint32_t candidates, const uint64_t *room);

#endif
