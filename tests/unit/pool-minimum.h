/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What rebalancing costs at least, found in other ways than the product's: by a textbook's min-cost flow where that is what the
 * problem is (one copy at a donor), and by trying everything where it is not. */
#ifndef DOMYBS_TESTS_POOL_MINIMUM_H
#define DOMYBS_TESTS_POOL_MINIMUM_H

#include "core/rebalance.h"

struct minimum {
  uint64_t outside, moves; /* the fewest blocks outside of the tolerance, and the fewest moves that this takes */
};

/* Exact where no extent has two copies; else no more than the minimum: the two copies of a block know nothing of each other. */
struct minimum minimum_by_flow (const struct pool *pool, enum pool_tier tier, uint32_t tolerance);

/* Exact for any pool of at most MINIMUM_HOSTS hosts and MINIMUM_UNITS blocks in the tier; false: too big to try all. */
#define MINIMUM_HOSTS 6u
#define MINIMUM_UNITS 16u
bool minimum_by_trying (const struct pool *pool, enum pool_tier tier, uint32_t tolerance, struct minimum *ret_minimum);

#endif
