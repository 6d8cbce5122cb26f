/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Moving copies between donors, so that each lends its share: the plan that moves the least.
 *
 * Of each tier: the mean is what all hosts lend that may give, by what they want to lend at most. Each host is to lend its
 * mean, give or take the tolerance; a host that is drained, nothing, and no host more than its limit. The plan leaves as few
 * blocks as the rules allow outside of that, and moves as few as that takes. `drain HOST` is the same, of a snapshot in which
 * HOST is draining.
 *
 * Method: blocks that move from host u to host v are flow on an arc u → v, which costs 1 a block, 0 if they were moved already,
 * and −1 if v is where they came from; being outside of the tolerance costs more than any way. Flow is sent along cheapest ways
 * until none pays (successive shortest paths with blocking flows, as in Ahuja, Magnanti, Orlin, "Network Flows", 1993, ch. 9).
 * With one copy at a donor that is the minimum. With two copies the arcs of a block's two copies depend on each other, the
 * problem is no flow, and the result is near the minimum (backend/daemon/decisions.md has figures).
 *
 * Pure; takes memory in proportion to the snapshot.
 */
#ifndef DOMYBS_CORE_REBALANCE_H
#define DOMYBS_CORE_REBALANCE_H

#include "core/pool-reason.h"

#define REBALANCE_TOLERANCE_DEFAULT 50u /* thousandths of the mean */
#define REBALANCE_TOLERANCE_MAX 1000u

struct rebalance_options {
  uint32_t tolerance;   /* thousandths of the mean, at most REBALANCE_TOLERANCE_MAX */
  bool spends_headroom; /* go on where the loss of a donor could not be made up for any more: the operator insists */
};

/* So many blocks of an extent have their copy at `from` moved to `to`; the other copy stays at `stays` (or POOL_NOBODY). */
struct rebalance_step {
  uint32_t borrower;
  enum pool_tier tier;
  uint32_t from, to, stays;
  uint64_t blocks;
  struct pool_reason reason;
};

enum rebalance_verdict {
  REBALANCE_DONE,     /* after the plan all hosts are within the tolerance */
  REBALANCE_RULES,    /* as near as the rules allow: `outside` blocks are not */
  REBALANCE_HEADROOM, /* `held` blocks stay where they are, to keep room for the loss of a donor */
  REBALANCE_FROZEN,   /* the pool is frozen: no step */
  REBALANCE_BAD,      /* options that can't be */
  REBALANCE_NO_MEMORY,
};

struct rebalance_plan {
  enum rebalance_verdict verdict;
  struct rebalance_step *steps; /* in their order: after each of them, and any part of it, all rules hold */
  uint32_t n_steps;
  uint64_t blocks;              /* that are moved, each copy each time */
  uint64_t outside[POOL_TIERS]; /* blocks too many, and too few, at hosts, after the plan */
  uint64_t held;
  struct pool_reason held_reason; /* of the last one that was held */
};

/* Planning again after a part of the steps has been carried out gives what is left of it: in bytes exactly where there is one
 * copy at a donor. So a plan need not be kept. To be freed with rebalance_free, whatever the verdict. */
void rebalance_make (const struct pool *pool, const struct rebalance_options *options, struct rebalance_plan *ret_plan);
void rebalance_free (struct rebalance_plan *plan);

/* Between what that host is to lend: of a host that neither gives nor takes, what it lends. */
void rebalance_bounds (const struct pool *pool, enum pool_tier tier, uint32_t tolerance, uint32_t host, uint64_t *ret_least,
                       uint64_t *ret_most);

const char *rebalance_verdict_text (enum rebalance_verdict verdict);

#endif
