/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What is shared by the search for what is to move (rebalance-flow.c) and its order (rebalance.c). */
#ifndef DOMYBS_CORE_REBALANCE_INTERNAL_H
#define DOMYBS_CORE_REBALANCE_INTERNAL_H

#include "core/rebalance.h"

/* A block outside of the tolerance costs more than any way that has no cycle. */
#define FLOW_PENALTY 1024

/* Blocks that came from one extent and are with the same donors by now. */
struct kind {
  uint32_t extent; /* where they come from */
  uint32_t donors[POOL_COPIES_MAX];
  uint32_t next_of_extent;
  uint32_t next_at[POOL_COPIES_MAX]; /* at the same donor: KIND_LEG of the next one */
  uint64_t blocks;
};
#define KIND_LEG(kind, leg) ((kind)*POOL_COPIES_MAX + (leg))

/* One tier of a pool, and what the search has moved so far. */
struct flow {
  const struct pool *pool;
  enum pool_tier tier;
  uint64_t load[POOL_HOSTS_MAX], least[POOL_HOSTS_MAX], most[POOL_HOSTS_MAX];
  struct kind *kinds;
  uint32_t n_kinds, kinds_room;
  uint32_t *of_extent;         /* its first kind */
  uint32_t at[POOL_HOSTS_MAX]; /* first kind's leg there, or POOL_NOBODY */
  /* by cost + 1: where something of the host can go at that cost */
  struct pool_set reach[3][POOL_HOSTS_MAX];
  int32_t distance[POOL_HOSTS_MAX];
  uint32_t before[POOL_HOSTS_MAX];
  bool is_dead[POOL_HOSTS_MAX];
  uint32_t *seen; /* of each arc: the leg from which to look on; ARC */
  int32_t best;
  uint64_t looked; /* for pairs so far: bounds that */
  bool no_memory;
};

/* Whether the host's blocks may go elsewhere at all. */
bool flow_gives (const struct pool *pool, uint32_t host);
/* Whether two donors may have the copies of one block of that extent: the two that have them may. */
bool flow_pair_fits (const struct pool *pool, const struct pool_extent *extent, uint32_t a, uint32_t b);
/* Memory in *flow is to be given back by flow_free; false: there is not enough of it. */
bool flow_init (struct flow *flow, const struct pool *pool, enum pool_tier tier, uint32_t tolerance);
void flow_free (struct flow *flow);
/* Moves until nothing pays any more. */
void flow_run (struct flow *flow);

/* Where that copy of the kind may go. ret_home: back to where it was in the beginning. */
void flow_targets (const struct flow *flow, const struct kind *kind, uint32_t leg, struct pool_set *ret_home,
                   struct pool_set *ret_away);
/* Whether blocks of the extent were there in the beginning. */
bool flow_is_home (const struct pool_extent *extent, uint32_t host);
/* The kind of blocks of that extent which are with these donors; made, if it is not there. POOL_NOBODY: memory is short. */
uint32_t flow_get_kind (struct flow *flow, uint32_t extent, const uint32_t *donors);

/* What only moves of both copies of blocks at once can better; true: that was something. In small pools only: in others there
 * is hardly any such thing, and it takes long to look for it. */
bool flow_move_pairs (struct flow *flow);

#endif
