/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "core/rebalance-internal.h"

#include <stdlib.h>
#include <string.h>

void
rebalance_bounds (const struct pool *pool, enum pool_tier tier, uint32_t tolerance, uint32_t host, uint64_t *ret_least,
                  uint64_t *ret_most) {
  const struct pool_sums *own = &pool->sums[tier][host];
  uint64_t lent = 0, limit = 0;
  double mean, least, most;

  if (!flow_gives (pool, host)) {
    *ret_least = *ret_most = own->lent;
    return;
  }
  for (uint32_t h = 0; h < pool->snapshot->n_hosts; h++)
    if (flow_gives (pool, h)) {
      lent += pool->sums[tier][h].lent;
      limit += pool->sums[tier][h].limit;
    }
  if (own->limit == 0) {
    *ret_least = *ret_most = 0;
    return;
  }
  mean = (double)lent / (double)limit * (double)own->limit;
  least = mean * (1000 - tolerance) / 1000;
  most = mean * (1000 + tolerance) / 1000;
  /* Outwards: no host is to be a part of a block better than the others can be. */
  *ret_least = least < (double)own->limit ? (uint64_t)least : own->limit;
  *ret_most = most < (double)own->limit ? (uint64_t)most + (most > (double)(uint64_t)most) : own->limit;
}

/* ---- the order ---- */

/* Blocks with a way to go: now with these donors, to be with those. */
struct pending {
  uint32_t extent;
  uint32_t now[POOL_COPIES_MAX], then[POOL_COPIES_MAX];
  uint64_t blocks;
};

struct order {
  const struct flow *flow;
  const struct rebalance_options *options;
  struct rebalance_plan *plan;
  uint64_t load[POOL_HOSTS_MAX], free[POOL_HOSTS_MAX], all_free;
  struct pending *pending;
  uint32_t n_pending, pending_room, steps_room;
  bool is_headroom_short; /* the reason of the last one that was held */
};

static bool
grow (void **items, uint32_t *room, size_t size) {
  const uint32_t more = *room ? *room * 2 : 64;
  void *grown = more > *room ? realloc (*items, more * size) : NULL;

  if (!grown)
    return false;
  *items = grown;
  *room = more;
  return true;
}

static bool
add_pending (struct order *order, const struct pending *pending) {
  if (order->n_pending == order->pending_room && !grow ((void **)&order->pending, &order->pending_room, sizeof *order->pending))
    return false;
  order->pending[order->n_pending++] = *pending;
  return true;
}

static bool
is_urgent (const struct flow *flow, uint32_t host) {
  return flow->pool->sums[flow->tier][host].lent > flow->pool->sums[flow->tier][host].limit;
}

/* What the search has moved; first those that hosts want rid of. */
static bool
collect (struct order *order) {
  const struct flow *flow = order->flow;

  for (unsigned turn = 0; turn < 2; turn++)
    for (uint32_t k = 0; k < flow->n_kinds; k++) {
      const struct kind *kind = &flow->kinds[k];
      const struct pool_extent *extent = &flow->pool->snapshot->extents[kind->extent];
      struct pending pending = { .extent = kind->extent, .blocks = kind->blocks };
      bool is_moved = false, is_first = false;

      if (kind->blocks == 0)
        continue;
      memcpy (pending.now, extent->donors, sizeof pending.now);
      memcpy (pending.then, kind->donors, sizeof pending.then);
      if (extent->n_donors > 1 && (pending.then[1] == pending.now[0] || pending.then[0] == pending.now[1])) {
        const uint32_t swap = pending.then[0];

        pending.then[0] = pending.then[1];
        pending.then[1] = swap;
      }
      for (uint32_t leg = 0; leg < extent->n_donors; leg++)
        if (pending.now[leg] != pending.then[leg]) {
          is_moved = true;
          is_first |= is_urgent (flow, pending.now[leg]);
        }
      if (is_moved && is_first == (turn == 0) && !add_pending (order, &pending))
        return false;
    }
  return true;
}

/* Whether a move would leave a donor whose loss could be made up for before, or make worse what is missing. */
static bool
spends_headroom (const struct order *order, uint32_t from, uint32_t to, uint64_t blocks, struct pool_reason *ret_reason) {
  const struct flow *flow = order->flow;
  const struct pool *pool = flow->pool;
  const uint64_t limit = pool->sums[flow->tier][from].limit, load = order->load[from];
  /* What becomes free again where they were. */
  const uint64_t back
      = pool_set_has (&pool->takers, from) && load - blocks < limit ? limit - (load - blocks) - order->free[from] : 0;
  const uint64_t before = order->all_free, after = before - blocks + back;

  if (after >= before || order->options->spends_headroom)
    return false;
  for (uint32_t h = 0; h < pool->snapshot->n_hosts; h++) {
    const uint64_t lent = order->load[h] + (h == to ? blocks : 0) - (h == from ? blocks : 0);
    const uint64_t own = order->free[h] - (h == to ? blocks : 0) + (h == from ? back : 0);
    const uint64_t missing = lent + own > after ? lent + own - after : 0;
    const uint64_t missed = order->load[h] + order->free[h] > before ? order->load[h] + order->free[h] - before : 0;

    if (missing > missed) {
      *ret_reason = (struct pool_reason){
        .why = POOL_NO_HEADROOM,
        .host = h,
        .other = POOL_NOBODY,
        .n = { missing, lent, 0, 0 },
      };
      return true;
    }
  }
  return false;
}

static struct pool_reason
explain (const struct order *order, uint32_t from, uint32_t to) {
  const struct flow *flow = order->flow;
  const struct pool_sums *a = &flow->pool->sums[flow->tier][from], *b = &flow->pool->sums[flow->tier][to];
  enum pool_why why = POOL_MOVE_ROOM;

  if (flow->pool->snapshot->hosts[from].is_draining)
    why = POOL_MOVE_DRAIN;
  else if (a->lent > a->limit)
    why = POOL_MOVE_LIMIT;
  else if (a->lent > flow->most[from])
    why = POOL_MOVE_FULL;
  else if (b->lent < flow->least[to])
    why = POOL_MOVE_EMPTY;
  return (struct pool_reason){
    .why = why, .host = from, .other = to, .n = { order->load[from], a->limit, order->load[to], b->limit }
  };
}

static bool
emit (struct order *order, const struct pending *pending, uint32_t leg, uint64_t blocks) {
  const struct flow *flow = order->flow;
  const struct pool_extent *extent = &flow->pool->snapshot->extents[pending->extent];
  const uint32_t from = pending->now[leg], to = pending->then[leg];
  struct rebalance_plan *plan = order->plan;

  if (plan->n_steps == order->steps_room && !grow ((void **)&plan->steps, &order->steps_room, sizeof *plan->steps))
    return false;
  plan->steps[plan->n_steps++] = (struct rebalance_step){
    .borrower = extent->borrower,
    .tier = flow->tier,
    .from = from,
    .to = to,
    .stays = extent->n_donors > 1 ? pending->now[1 - leg] : POOL_NOBODY,
    .blocks = blocks,
    .reason = explain (order, from, to),
  };
  plan->blocks += blocks;
  for (unsigned i = 0; i < 2; i++) {
    const uint32_t h = i ? to : from;
    const uint64_t limit = flow->pool->sums[flow->tier][h].limit;
    uint64_t left;

    order->load[h] = i ? order->load[h] + blocks : order->load[h] - blocks;
    left = pool_set_has (&flow->pool->takers, h) && limit > order->load[h] ? limit - order->load[h] : 0;
    order->all_free = order->all_free - order->free[h] + left;
    order->free[h] = left;
  }
  return true;
}

enum moved { MOVED_NOTHING, MOVED_SOME, MOVED_NO_MEMORY };

/* One copy of what pending[i] is about, if that may be now. is_part: also if there is room for a part only. */
static enum moved
advance (struct order *order, uint32_t i, bool is_part) {
  const struct flow *flow = order->flow;
  const struct pool_extent *extent = &flow->pool->snapshot->extents[order->pending[i].extent];

  for (uint32_t leg = 0; leg < extent->n_donors; leg++) {
    struct pending went = order->pending[i];
    const uint32_t to = went.then[leg];

    if (went.now[leg] == to || (extent->n_donors > 1 && !flow_pair_fits (flow->pool, extent, went.now[1 - leg], to)))
      continue;
    went.blocks = went.blocks < order->free[to] ? went.blocks : order->free[to];
    if (went.blocks == 0 || (went.blocks < order->pending[i].blocks && !is_part))
      continue;
    if (spends_headroom (order, went.now[leg], to, went.blocks, &order->plan->held_reason)) {
      order->is_headroom_short = true;
      continue;
    }
    if (!emit (order, &went, leg, went.blocks))
      return MOVED_NO_MEMORY;
    order->pending[i].blocks -= went.blocks;
    went.now[leg] = to;
    if (extent->n_donors > 1 && went.now[1 - leg] != went.then[1 - leg]) {
      if (order->pending[i].blocks == 0)
        order->pending[i] = went;
      else if (!add_pending (order, &went))
        return MOVED_NO_MEMORY;
    }
    return MOVED_SOME;
  }
  return MOVED_NOTHING;
}

/* All that can go as a whole, as often as something can; then one part, and again. */
static bool
put_in_order (struct order *order) {
  for (bool is_part = false;; is_part = !is_part) {
    bool is_any = false;

    for (bool again = true; again;) {
      again = false;
      for (uint32_t i = 0; i < order->n_pending; i++) {
        const enum moved moved = order->pending[i].blocks ? advance (order, i, is_part) : MOVED_NOTHING;

        if (moved == MOVED_NO_MEMORY)
          return false;
        if (moved == MOVED_SOME) {
          is_any = true;
          again = !is_part;
          if (is_part)
            break;
        }
      }
    }
    if (is_part && !is_any)
      return true;
  }
}

/* ---- the plan ---- */

static uint64_t
outside (const struct order *order) {
  const struct flow *flow = order->flow;
  uint64_t sum = 0;

  for (uint32_t h = 0; h < flow->pool->snapshot->n_hosts; h++) {
    const uint64_t load = order->load[h], least = flow->least[h], most = flow->most[h];

    sum += load > most ? load - most : load < least ? least - load : 0;
  }
  return sum;
}

/* Where something is held, what would only have made way for it is not done either: the plan ends where it has bettered most.
 * So each plan that has a step betters something, and there is a last one. */
static void
finish (struct order *order, uint32_t first_step) {
  const struct flow *flow = order->flow;
  struct rebalance_plan *plan = order->plan;
  uint32_t n_best = first_step;
  uint64_t best, held = 0;

  for (uint32_t i = 0; i < order->n_pending; i++)
    held += order->pending[i].blocks;
  if (held > 0) {
    for (uint32_t h = 0; h < flow->pool->snapshot->n_hosts; h++)
      order->load[h] = flow->pool->sums[flow->tier][h].lent;
    best = outside (order);
    for (uint32_t i = first_step; i < plan->n_steps; i++) {
      order->load[plan->steps[i].from] -= plan->steps[i].blocks;
      order->load[plan->steps[i].to] += plan->steps[i].blocks;
      if (outside (order) < best) {
        best = outside (order);
        n_best = i + 1;
      }
    }
    while (plan->n_steps > n_best) {
      const struct rebalance_step *last = &plan->steps[--plan->n_steps];

      order->load[last->from] += last->blocks;
      order->load[last->to] -= last->blocks;
      plan->blocks -= last->blocks;
      held += last->blocks;
    }
  }
  plan->held += held;
  plan->outside[flow->tier] += outside (order);
}

static bool
plan_tier (const struct pool *pool, enum pool_tier tier, const struct rebalance_options *options, struct rebalance_plan *plan,
           uint32_t *steps_room, bool *ret_headroom) {
  struct flow flow;
  struct order order = { .flow = &flow, .options = options, .plan = plan, .steps_room = *steps_room };
  const uint32_t first_step = plan->n_steps;
  bool is_good;

  if (!flow_init (&flow, pool, tier, options->tolerance))
    return false;
  flow_run (&flow);
  for (uint32_t h = 0; h < pool->snapshot->n_hosts; h++) {
    order.load[h] = pool->sums[tier][h].lent;
    order.free[h] = pool->sums[tier][h].free;
  }
  order.all_free = pool->free[tier];
  is_good = !flow.no_memory && collect (&order) && put_in_order (&order);
  if (is_good)
    finish (&order, first_step);
  *steps_room = order.steps_room;
  *ret_headroom |= order.is_headroom_short;
  free (order.pending);
  flow_free (&flow);
  return is_good;
}

void
rebalance_make (const struct pool *pool, const struct rebalance_options *options, struct rebalance_plan *ret_plan) {
  uint32_t steps_room = 0;
  bool is_headroom_short = false;

  memset (ret_plan, 0, sizeof *ret_plan);
  if (options->tolerance > REBALANCE_TOLERANCE_MAX) {
    ret_plan->verdict = REBALANCE_BAD;
    return;
  }
  if (pool->snapshot->is_frozen) {
    ret_plan->verdict = REBALANCE_FROZEN;
    return;
  }
  for (unsigned t = 0; t < POOL_TIERS; t++)
    if (!plan_tier (pool, t, options, ret_plan, &steps_room, &is_headroom_short)) {
      rebalance_free (ret_plan);
      ret_plan->verdict = REBALANCE_NO_MEMORY;
      return;
    }
  if (ret_plan->held && is_headroom_short)
    ret_plan->verdict = REBALANCE_HEADROOM;
  else
    for (unsigned t = 0; t < POOL_TIERS; t++)
      if (ret_plan->outside[t])
        ret_plan->verdict = REBALANCE_RULES;
}

void
rebalance_free (struct rebalance_plan *plan) {
  free (plan->steps);
  memset (plan, 0, sizeof *plan);
}

const char *
rebalance_verdict_text (enum rebalance_verdict verdict) {
  switch (verdict) {
  case REBALANCE_DONE:
    return "every host lends its share";
  case REBALANCE_RULES:
    return "as near to even as failure domains, copysets, keys and limits allow";
  case REBALANCE_HEADROOM:
    return "some copies stay: the room that they would take is for the loss of a donor";
  case REBALANCE_FROZEN:
    return "the pool is frozen: nothing moves";
  case REBALANCE_BAD:
    return "the tolerance is more than 1000 thousandths";
  case REBALANCE_NO_MEMORY:
    return "memory is short";
  }
  return "?";
}
