/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where blocks have two copies, it may be that neither of them can move, or that neither move pays, but both moves do: domains
 * and copysets allow u, c and v, w, but not v, c. So here an arc u → v is a move of one copy, or one of both copies, of which
 * the other one's c → w counts as a part of the arc's cost. Ways and cycles of such arcs that pay are looked for one by one,
 * and each is taken back if what it cost is more after all: its arcs may have been in each other's way.
 */
#include "core/rebalance-internal.h"

#include <stdlib.h>
#include <string.h>

#define NO_WAY (INT32_MAX / 8)
/* Arcs looked at in all, about a tenth of a second's worth. */
#define LOOKS_MAX (1ull << 24)
#define PUSH_LOOKS_MAX (1ull << 18)
/* Kinds × hosts × hosts of the smallest pools. */
#define PUSH_SIZE_MAX 2048u
#define WAYS_MAX 4096u

struct pair_arc {
  int32_t cost;
  uint32_t at;   /* KIND_LEG */
  uint32_t side; /* where the other copy goes, or POOL_NOBODY */
};

struct change {
  uint32_t from, to; /* kinds */
  uint64_t blocks;
};

struct pairs {
  struct flow *flow;
  uint32_t n;
  struct pair_arc *arcs; /* n × n */
  int32_t distance[POOL_HOSTS_MAX];
  uint32_t before[POOL_HOSTS_MAX];
};

/* What one block less or more costs at that host. */
static int32_t
give_cost (const struct flow *flow, uint32_t h) {
  return flow->load[h] > flow->most[h] ? -FLOW_PENALTY : flow->load[h] > flow->least[h] ? 0 : FLOW_PENALTY;
}

static int32_t
take_cost (const struct flow *flow, uint32_t h) {
  if (flow->load[h] >= flow->pool->sums[flow->tier][h].limit)
    return NO_WAY;
  return flow->load[h] < flow->least[h] ? -FLOW_PENALTY : flow->load[h] < flow->most[h] ? 0 : FLOW_PENALTY;
}

/* All that the plan costs so far. */
static int64_t
objective (const struct flow *flow) {
  int64_t sum = 0;

  for (uint32_t h = 0; h < flow->pool->snapshot->n_hosts; h++) {
    const uint64_t load = flow->load[h], least = flow->least[h], most = flow->most[h];

    sum += (int64_t)(load > most ? load - most : load < least ? least - load : 0) * FLOW_PENALTY;
  }
  for (uint32_t k = 0; k < flow->n_kinds; k++) {
    const struct pool_extent *extent = &flow->pool->snapshot->extents[flow->kinds[k].extent];

    for (uint32_t leg = 0; leg < extent->n_donors; leg++)
      sum += flow_is_home (extent, flow->kinds[k].donors[leg]) ? 0 : (int64_t)flow->kinds[k].blocks;
  }
  return sum;
}

static void
offer (struct pairs *pairs, uint32_t u, uint32_t v, int32_t cost, uint32_t at, uint32_t side) {
  struct pair_arc *arc = &pairs->arcs[u * pairs->n + v];

  if (cost < arc->cost)
    *arc = (struct pair_arc){ .cost = cost, .at = at, .side = side };
}

/* Moves of that copy alone. */
static void
offer_one (struct pairs *pairs, uint32_t k, uint32_t leg) {
  const struct flow *flow = pairs->flow;
  const struct kind *kind = &flow->kinds[k];
  const struct pool_extent *extent = &flow->pool->snapshot->extents[kind->extent];
  const uint32_t u = kind->donors[leg];
  struct pool_set home, away;

  flow_targets (flow, kind, leg, &home, &away);
  for (uint32_t v = 0; v < pairs->n; v++)
    if (pool_set_has (&home, v) || pool_set_has (&away, v))
      offer (pairs, u, v, (int)flow_is_home (extent, u) - (int)flow_is_home (extent, v), KIND_LEG (k, leg), POOL_NOBODY);
}

/* Whether the extent's blocks may be with v and w, and can get there copy by copy. */
static bool
may_both (const struct flow *flow, const struct pool_extent *extent, uint32_t v, uint32_t w) {
  const struct pool_set *partners = flow->pool->partners;

  return flow_pair_fits (flow->pool, extent, v, w)
         && (flow_is_home (extent, v) || flow_is_home (extent, w) || pool_set_has (&partners[v], extent->donors[0])
             || pool_set_has (&partners[v], extent->donors[1]) || pool_set_has (&partners[w], extent->donors[0])
             || pool_set_has (&partners[w], extent->donors[1]));
}

static void
offer_both (struct pairs *pairs, uint32_t k, uint32_t leg) {
  const struct flow *flow = pairs->flow;
  const struct kind *kind = &flow->kinds[k];
  const struct pool_extent *extent = &flow->pool->snapshot->extents[kind->extent];
  const uint32_t u = kind->donors[leg], c = kind->donors[1 - leg];
  const int32_t cost = (int)flow_is_home (extent, u) + (int)flow_is_home (extent, c) + give_cost (flow, c) - 2;
  struct pool_set takers;

  if (!flow_gives (flow->pool, c))
    return;
  pool_donors_of (flow->pool, extent->borrower, &takers);
  for (uint32_t d = 0; d < 2; d++)
    pool_set_add (&takers, extent->donors[d]);
  pool_set_remove (&takers, u);
  pool_set_remove (&takers, c);
  for (uint32_t w = 0; w < pairs->n; w++) {
    const int32_t side = pool_set_has (&takers, w) ? take_cost (flow, w) : NO_WAY;

    for (uint32_t v = 0; side < NO_WAY && v < pairs->n; v++)
      if (v != w && pool_set_has (&takers, v) && may_both (flow, extent, v, w))
        offer (pairs, u, v, cost + side + !flow_is_home (extent, v) + !flow_is_home (extent, w), KIND_LEG (k, leg), w);
  }
}

static void
find_arcs (struct pairs *pairs) {
  struct flow *flow = pairs->flow;

  for (uint32_t i = 0; i < pairs->n * pairs->n; i++)
    pairs->arcs[i] = (struct pair_arc){ .cost = NO_WAY };
  for (uint32_t k = 0; k < flow->n_kinds; k++) {
    const uint32_t n = flow->pool->snapshot->extents[flow->kinds[k].extent].n_donors;

    for (uint32_t leg = 0; flow->kinds[k].blocks && leg < n; leg++) {
      if (!flow_gives (flow->pool, flow->kinds[k].donors[leg]))
        continue;
      offer_one (pairs, k, leg);
      if (n > 1)
        offer_both (pairs, k, leg);
      flow->looked += (uint64_t)pairs->n * pairs->n;
    }
  }
}

/* ---- ways ---- */

/* Bellman and Ford's, over at most n + 1 rounds. hosts: the way, from its end to its beginning; a cycle's begins with its end.
 * Returns how many hosts; 0: none pays. */
static uint32_t
find_way (struct pairs *pairs, uint32_t *hosts) {
  const uint32_t n = pairs->n;
  uint32_t changed = POOL_NOBODY, end = POOL_NOBODY, found = 0;
  int32_t best = 0;

  for (uint32_t h = 0; h < n; h++) {
    pairs->distance[h] = give_cost (pairs->flow, h);
    pairs->before[h] = POOL_NOBODY;
  }
  for (uint32_t round = 0; round <= n; round++) {
    changed = POOL_NOBODY;
    for (uint32_t u = 0; u < n; u++)
      for (uint32_t v = 0; v < n; v++)
        if (pairs->arcs[u * n + v].cost < NO_WAY && pairs->distance[u] + pairs->arcs[u * n + v].cost < pairs->distance[v]) {
          pairs->distance[v] = pairs->distance[u] + pairs->arcs[u * n + v].cost;
          pairs->before[v] = u;
          changed = v;
        }
    if (changed == POOL_NOBODY)
      break;
  }
  if (changed != POOL_NOBODY) { /* a cycle */
    for (uint32_t i = 0; i < n && pairs->before[changed] != POOL_NOBODY; i++)
      changed = pairs->before[changed];
    end = changed;
  } else
    for (uint32_t v = 0; v < n; v++) {
      const int32_t take = take_cost (pairs->flow, v);

      if (take < NO_WAY && pairs->before[v] != POOL_NOBODY && pairs->distance[v] + take < best) {
        best = pairs->distance[v] + take;
        end = v;
      }
    }
  if (end == POOL_NOBODY)
    return 0;
  hosts[found++] = end;
  for (uint32_t h = pairs->before[end]; h != POOL_NOBODY && found <= n; h = pairs->before[h]) {
    hosts[found++] = h;
    if (h == end)
      break;
  }
  return found > 1 ? found : 0;
}

/* ---- going it ---- */

static void
carry (struct flow *flow, uint32_t from, uint32_t to, uint64_t blocks) {
  const uint32_t n = flow->pool->snapshot->extents[flow->kinds[from].extent].n_donors;

  for (uint32_t leg = 0; leg < n; leg++) {
    flow->load[flow->kinds[from].donors[leg]] -= blocks;
    flow->load[flow->kinds[to].donors[leg]] += blocks;
  }
  flow->kinds[from].blocks -= blocks;
  flow->kinds[to].blocks += blocks;
}

/* One block along each arc. False: some arc has none left by now; what was carried is in changes. */
static bool
go (struct pairs *pairs, const uint32_t *hosts, uint32_t n_hosts, struct change *changes, uint32_t *ret_n) {
  struct flow *flow = pairs->flow;

  *ret_n = 0;
  for (uint32_t i = n_hosts - 1; i > 0; i--) {
    const struct pair_arc *arc = &pairs->arcs[hosts[i] * pairs->n + hosts[i - 1]];
    const uint32_t k = arc->at / POOL_COPIES_MAX, leg = arc->at % POOL_COPIES_MAX;
    uint32_t donors[POOL_COPIES_MAX], to;

    if (flow->kinds[k].blocks == 0)
      return false;
    memcpy (donors, flow->kinds[k].donors, sizeof donors);
    donors[leg] = hosts[i - 1];
    if (arc->side != POOL_NOBODY)
      donors[1 - leg] = arc->side;
    to = flow_get_kind (flow, flow->kinds[k].extent, donors);
    if (to == POOL_NOBODY)
      return false;
    carry (flow, k, to, 1);
    changes[(*ret_n)++] = (struct change){ k, to, 1 };
  }
  return true;
}

/* Whether it was worth it; if not it was taken back. What is worth it once is done as often as it is. */
static bool
try_way (struct pairs *pairs, const uint32_t *hosts, uint32_t n_hosts) {
  struct flow *flow = pairs->flow;
  struct change changes[POOL_HOSTS_MAX];
  bool is_any = false;

  for (uint64_t times = 1;;) {
    const int64_t before = objective (flow);
    bool is_good = true;
    uint32_t n = 0;

    if (!is_any)
      is_good = go (pairs, hosts, n_hosts, changes, &n);
    else /* twice as many as the last time */
      for (n = 0; n < n_hosts - 1 && is_good; n++) {
        is_good = flow->kinds[changes[n].from].blocks >= times;
        if (!is_good)
          break;
        carry (flow, changes[n].from, changes[n].to, times);
      }
    for (uint32_t h = 0; h < pairs->n && is_good; h++)
      is_good = flow->load[h] <= flow->pool->sums[flow->tier][h].limit || flow->load[h] <= flow->pool->sums[flow->tier][h].lent;
    is_good = is_good && objective (flow) < before;
    if (!is_good) {
      while (n--)
        carry (flow, changes[n].to, changes[n].from, times);
      if (times == 1)
        return is_any;
      times /= 2;
      continue;
    }
    times = is_any ? times * 2 : 1;
    is_any = true;
    flow->looked += pairs->n * 4;
  }
}

/* Ways as long as there are some that pay. */
static bool
go_ways (struct pairs *pairs) {
  struct flow *flow = pairs->flow;
  bool is_any = false;

  for (uint32_t ways = 0; ways < WAYS_MAX; ways++) {
    uint32_t hosts[POOL_HOSTS_MAX + 1], n;
    bool is_good = false;

    if (flow->looked + (uint64_t)flow->n_kinds * pairs->n * pairs->n * 2 > LOOKS_MAX)
      break;
    find_arcs (pairs);
    for (uint32_t tries = 0; tries < 16 && !is_good && (n = find_way (pairs, hosts)) > 0; tries++) {
      is_good = try_way (pairs, hosts, n);
      if (!is_good) /* not that arc, then */
        pairs->arcs[hosts[1] * pairs->n + hosts[0]].cost = NO_WAY;
    }
    if (!is_good)
      break;
    is_any = true;
  }
  return is_any;
}

/* ---- one block elsewhere, and what that makes possible ---- */

/* Whether it is better with one block of kind from with these donors, and ways from there; else all is as it was. saved: room
 * for the blocks of n_kinds kinds. */
static bool
try_push (struct pairs *pairs, uint32_t from, const uint32_t *donors, uint64_t *saved, uint32_t n_kinds) {
  struct flow *flow = pairs->flow;
  const int64_t before = objective (flow);
  uint64_t load[POOL_HOSTS_MAX];
  uint32_t to;

  memcpy (load, flow->load, sizeof load);
  for (uint32_t k = 0; k < n_kinds; k++)
    saved[k] = flow->kinds[k].blocks;
  to = flow_get_kind (flow, flow->kinds[from].extent, donors);
  if (to == POOL_NOBODY || to == from)
    return false;
  carry (flow, from, to, 1);
  go_ways (pairs);
  if (objective (flow) < before)
    return true;
  memcpy (flow->load, load, sizeof load);
  for (uint32_t k = 0; k < flow->n_kinds; k++)
    flow->kinds[k].blocks = k < n_kinds ? saved[k] : 0;
  return false;
}

static bool
push_kind (struct pairs *pairs, uint32_t k, uint64_t *saved, uint32_t n_kinds) {
  struct flow *flow = pairs->flow;
  const struct pool_extent *extent = &flow->pool->snapshot->extents[flow->kinds[k].extent];
  const uint32_t u = flow->kinds[k].donors[0], c = flow->kinds[k].donors[1];
  struct pool_set takers;

  pool_donors_of (flow->pool, extent->borrower, &takers);
  for (uint32_t d = 0; d < 2; d++)
    pool_set_add (&takers, extent->donors[d]);
  for (uint32_t v = 0; v < pairs->n; v++)
    for (uint32_t w = v + 1; w < pairs->n; w++) {
      const bool stays_v = v == u || v == c, stays_w = w == u || w == c;

      if (flow->looked > PUSH_LOOKS_MAX)
        return false;
      if ((!stays_v && (!pool_set_has (&takers, v) || take_cost (flow, v) == NO_WAY))
          || (!stays_w && (!pool_set_has (&takers, w) || take_cost (flow, w) == NO_WAY)) || (stays_v && stays_w)
          || !may_both (flow, extent, v, w))
        continue;
      if (try_push (pairs, k, (uint32_t[]){ v, w }, saved, n_kinds))
        return true;
    }
  return false;
}

static bool
push (struct pairs *pairs) {
  struct flow *flow = pairs->flow;
  const uint32_t n_kinds = flow->n_kinds;
  uint64_t *saved = malloc (n_kinds * sizeof *saved);
  bool is_any = false;

  for (uint32_t k = 0; saved && k < n_kinds && !is_any && flow->looked < PUSH_LOOKS_MAX; k++) {
    const struct kind *kind = &flow->kinds[k];

    if (kind->blocks > 0 && flow->pool->snapshot->extents[kind->extent].n_donors > 1 && flow_gives (flow->pool, kind->donors[0])
        && flow_gives (flow->pool, kind->donors[1]))
      is_any = push_kind (pairs, k, saved, n_kinds);
  }
  free (saved);
  return is_any;
}

bool
flow_move_pairs (struct flow *flow) {
  struct pairs pairs = { .flow = flow, .n = flow->pool->snapshot->n_hosts };
  bool is_any = false, is_pair = false;

  for (uint32_t k = 0; k < flow->n_kinds && !is_pair; k++)
    is_pair = flow->pool->snapshot->extents[flow->kinds[k].extent].n_donors > 1;
  if (!is_pair || flow->no_memory)
    return false;
  pairs.arcs = malloc ((size_t)pairs.n * pairs.n * sizeof *pairs.arcs);
  if (!pairs.arcs)
    return false; /* a plan all the same */
  is_any = go_ways (&pairs);
  while ((uint64_t)flow->n_kinds * pairs.n * pairs.n <= PUSH_SIZE_MAX && push (&pairs))
    is_any = true;
  free (pairs.arcs);
  return is_any && !flow->no_memory;
}
