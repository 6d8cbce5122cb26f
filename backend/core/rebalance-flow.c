/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "core/rebalance-internal.h"

#include <stdlib.h>
#include <string.h>

/* Ways are compared by cost, and at equal cost by how many moves they have: so the cheapest ways form no cycle. */
#define COST 1024
#define FAR_AWAY (INT32_MAX / 2)
#define KINDS_MAX (1u << 22)
#define ARC(u, v) ((u)*POOL_HOSTS_MAX + (v))

bool
flow_gives (const struct pool *pool, uint32_t host) {
  return pool->snapshot->hosts[host].is_up && !pool->snapshot->hosts[host].is_frozen;
}

bool
flow_pair_fits (const struct pool *pool, const struct pool_extent *extent, uint32_t a, uint32_t b) {
  return pool_set_has (&pool->partners[a], b) || (extent->donors[0] == a && extent->donors[1] == b)
         || (extent->donors[0] == b && extent->donors[1] == a);
}

/* ---- kinds ---- */

bool
flow_is_home (const struct pool_extent *extent, uint32_t host) {
  return extent->donors[0] == host || (extent->n_donors > 1 && extent->donors[1] == host);
}

uint32_t
flow_get_kind (struct flow *flow, uint32_t extent, const uint32_t *donors) {
  const uint32_t n = flow->pool->snapshot->extents[extent].n_donors;
  struct kind *kind;
  uint32_t k;

  for (k = flow->of_extent[extent]; k != POOL_NOBODY; k = flow->kinds[k].next_of_extent) {
    kind = &flow->kinds[k];
    if ((kind->donors[0] == donors[0] && (n == 1 || kind->donors[1] == donors[1]))
        || (n > 1 && kind->donors[0] == donors[1] && kind->donors[1] == donors[0]))
      return k;
  }
  if (flow->n_kinds == flow->kinds_room) {
    const uint32_t room = flow->kinds_room * 2;
    struct kind *more = room <= KINDS_MAX ? realloc (flow->kinds, room * sizeof *more) : NULL;

    if (!more) {
      flow->no_memory = true;
      return POOL_NOBODY;
    }
    flow->kinds = more;
    flow->kinds_room = room;
  }
  k = flow->n_kinds++;
  kind = &flow->kinds[k];
  *kind = (struct kind){ .extent = extent, .next_of_extent = flow->of_extent[extent] };
  flow->of_extent[extent] = k;
  for (uint32_t leg = 0; leg < n; leg++) {
    kind->donors[leg] = donors[leg];
    kind->next_at[leg] = flow->at[donors[leg]];
    flow->at[donors[leg]] = KIND_LEG (k, leg);
  }
  return k;
}

void
flow_targets (const struct flow *flow, const struct kind *kind, uint32_t leg, struct pool_set *ret_home,
              struct pool_set *ret_away) {
  const struct pool *pool = flow->pool;
  const struct pool_extent *extent = &pool->snapshot->extents[kind->extent];

  memset (ret_home, 0, sizeof *ret_home);
  pool_donors_of (pool, extent->borrower, ret_away);
  for (uint32_t d = 0; d < extent->n_donors; d++)
    pool_set_add (ret_home, extent->donors[d]);
  if (extent->n_donors > 1) {
    const uint32_t other = kind->donors[1 - leg], *origin = extent->donors;
    struct pool_set pairs = pool->partners[other];

    for (uint32_t d = 0; d < 2; d++)
      if (other == origin[d])
        pool_set_add (&pairs, origin[1 - d]);
    /* Both copies elsewhere: one has to go first, and what is in between has to be allowed, too. */
    if (!flow_is_home (extent, other) && !pool_set_has (&pool->partners[other], origin[0])
        && !pool_set_has (&pool->partners[other], origin[1]))
      for (unsigned w = 0; w < POOL_HOSTS_MAX / 64; w++)
        ret_away->words[w] &= pool->partners[origin[0]].words[w] | pool->partners[origin[1]].words[w];
    for (unsigned w = 0; w < POOL_HOSTS_MAX / 64; w++) {
      ret_home->words[w] &= pairs.words[w];
      ret_away->words[w] &= pairs.words[w];
    }
    for (uint32_t d = 0; d < 2; d++)
      pool_set_remove (ret_away, origin[d]);
    pool_set_remove (ret_home, other);
    pool_set_remove (ret_away, other);
  } else
    pool_set_remove (ret_away, extent->donors[0]);
  pool_set_remove (ret_home, kind->donors[leg]);
  pool_set_remove (ret_away, kind->donors[leg]);
}

/* Whether that copy of the kind may go to host at exactly that cost. */
static bool
costs (const struct flow *flow, uint32_t k, uint32_t leg, uint32_t host, int cost) {
  const struct kind *kind = &flow->kinds[k];
  const struct pool_extent *extent = &flow->pool->snapshot->extents[kind->extent];
  struct pool_set home, away;

  if (kind->blocks == 0 || (int)flow_is_home (extent, kind->donors[leg]) - (int)flow_is_home (extent, host) != cost)
    return false;
  flow_targets (flow, kind, leg, &home, &away);
  return pool_set_has (flow_is_home (extent, host) ? &home : &away, host);
}

/* So many blocks, which were taken out of kind k before, have that copy at host now; false: they stay, memory is short. */
static void
put (struct flow *flow, uint32_t k, uint32_t leg, uint32_t host, uint64_t blocks) {
  uint32_t donors[POOL_COPIES_MAX], to;

  if (blocks == 0)
    return;
  memcpy (donors, flow->kinds[k].donors, sizeof donors);
  donors[leg] = host;
  to = flow_get_kind (flow, flow->kinds[k].extent, donors);
  flow->kinds[to == POOL_NOBODY ? k : to].blocks += blocks;
}

/* ---- cheapest ways ---- */

static void
find_reach (struct flow *flow) {
  memset (flow->reach, 0, sizeof flow->reach);
  for (uint32_t k = 0; k < flow->n_kinds; k++) {
    const struct kind *kind = &flow->kinds[k];
    const struct pool_extent *extent = &flow->pool->snapshot->extents[kind->extent];

    for (uint32_t leg = 0; kind->blocks && leg < extent->n_donors; leg++) {
      const uint32_t u = kind->donors[leg];
      const int from = flow_is_home (extent, u);
      struct pool_set home, away;

      if (!flow_gives (flow->pool, u))
        continue;
      flow_targets (flow, kind, leg, &home, &away);
      for (unsigned w = 0; w < POOL_HOSTS_MAX / 64; w++) {
        flow->reach[from][u].words[w] |= home.words[w];
        flow->reach[from + 1][u].words[w] |= away.words[w];
      }
    }
  }
}

static int32_t
source_cost (const struct flow *flow, uint32_t u) {
  if (!flow_gives (flow->pool, u) || flow->load[u] <= flow->least[u])
    return FAR_AWAY;
  return flow->load[u] > flow->most[u] ? -FLOW_PENALTY * COST : 0;
}

/* What one block more costs at v; room: for how many. */
static int32_t
sink_cost (const struct flow *flow, uint32_t v, uint64_t *ret_room) {
  *ret_room = flow->load[v] < flow->least[v]  ? flow->least[v] - flow->load[v]
              : flow->load[v] < flow->most[v] ? flow->most[v] - flow->load[v]
                                              : 0;
  if (*ret_room == 0 || !flow_gives (flow->pool, v))
    return FAR_AWAY;
  return flow->load[v] < flow->least[v] ? -FLOW_PENALTY * COST : 0;
}

/* Shorter ways to the neighbours of u. Returns whether there were any. */
static bool
relax (struct flow *flow, uint32_t u) {
  bool is_changed = false;

  for (int cost = -1; cost <= 1; cost++)
    for (unsigned w = 0; w < POOL_HOSTS_MAX / 64; w++)
      for (uint64_t bits = flow->reach[cost + 1][u].words[w]; bits; bits &= bits - 1) {
        const uint32_t v = w * 64 + (uint32_t)__builtin_ctzll (bits);
        const int32_t distance = flow->distance[u] + cost * COST + 1;

        if (distance < flow->distance[v]) {
          flow->distance[v] = distance;
          flow->before[v] = u;
          is_changed = true;
        }
      }
  return is_changed;
}

/* Bellman and Ford's. Returns a host of a cycle of negative cost, or POOL_NOBODY. */
static uint32_t
find_distances (struct flow *flow) {
  const uint32_t n = flow->pool->snapshot->n_hosts;
  uint32_t host = POOL_NOBODY;

  for (uint32_t u = 0; u < n; u++) {
    flow->distance[u] = source_cost (flow, u);
    flow->before[u] = POOL_NOBODY;
  }
  for (uint32_t round = 0; round <= n; round++) {
    host = POOL_NOBODY;
    for (uint32_t u = 0; u < n; u++)
      if (flow->distance[u] < FAR_AWAY && relax (flow, u))
        host = u;
    if (host == POOL_NOBODY)
      return POOL_NOBODY;
  }
  for (uint32_t i = 0; i < n; i++) /* back into the cycle, wherever it was seen from */
    if (flow->before[host] != POOL_NOBODY)
      host = flow->before[host];
  return host;
}

/* ---- sending ---- */

static uint64_t
smaller (uint64_t a, uint64_t b) {
  return a < b ? a : b;
}

/* So much as can go on from u, which is not counted in anybody's load yet, to where it is best. What a kind gives is taken out
 * of it before the way is looked for further on: the same blocks are not on it twice. */
static uint64_t
send (struct flow *flow, uint32_t u, uint64_t wanted) {
  uint64_t room, sent = 0;
  const int32_t cost = sink_cost (flow, u, &room);

  if (cost < FAR_AWAY && flow->distance[u] + cost == flow->best) {
    sent = smaller (wanted, room);
    flow->load[u] += sent;
  }
  for (int step = -1; step <= 1 && sent < wanted; step++)
    for (uint32_t v = 0; v < flow->pool->snapshot->n_hosts && sent < wanted; v++) {
      uint32_t *at = &flow->seen[ARC (u, v)];

      if (!pool_set_has (&flow->reach[step + 1][u], v) || flow->distance[v] != flow->distance[u] + step * COST + 1)
        continue;
      while (*at != POOL_NOBODY && sent < wanted && !flow->is_dead[v]) {
        const uint32_t k = *at / POOL_COPIES_MAX, leg = *at % POOL_COPIES_MAX;
        uint64_t blocks, went;

        if (!costs (flow, k, leg, v, step)) {
          *at = flow->kinds[k].next_at[leg];
          continue;
        }
        blocks = smaller (flow->kinds[k].blocks, wanted - sent);
        flow->kinds[k].blocks -= blocks;
        went = send (flow, v, blocks);
        flow->kinds[k].blocks += blocks - went;
        put (flow, k, leg, v, went);
        sent += went;
      }
    }
  if (sent < wanted)
    flow->is_dead[u] = true;
  return sent;
}

/* Sends what there is along the arcs host[0] → host[1] → … → host[n]; the same host at both ends: a cycle, and no load changes.
 * Where that can't be done, false, and the arc at fault can't be gone any more until reach is found anew. */
static bool
send_around (struct flow *flow, const uint32_t *hosts, uint32_t n) {
  uint32_t legs[POOL_HOSTS_MAX], found = 0;
  uint64_t taken[POOL_HOSTS_MAX], least = UINT64_MAX;

  for (; found < n; found++) {
    const uint32_t u = hosts[found], v = hosts[found + 1];
    int best = 2;

    legs[found] = POOL_NOBODY;
    for (uint32_t at = flow->at[u]; at != POOL_NOBODY; at = flow->kinds[at / POOL_COPIES_MAX].next_at[at % POOL_COPIES_MAX])
      for (int c = -1; c < best && c <= 1; c++)
        if (costs (flow, at / POOL_COPIES_MAX, at % POOL_COPIES_MAX, v, c)) {
          best = c;
          legs[found] = at;
        }
    if (legs[found] == POOL_NOBODY) {
      for (int c = 0; c < 3; c++)
        pool_set_remove (&flow->reach[c][u], v);
      break;
    }
    taken[found] = flow->kinds[legs[found] / POOL_COPIES_MAX].blocks;
    flow->kinds[legs[found] / POOL_COPIES_MAX].blocks = 0;
    least = smaller (least, taken[found]);
  }
  for (uint32_t i = 0; i < found; i++)
    flow->kinds[legs[i] / POOL_COPIES_MAX].blocks += found == n ? taken[i] - least : taken[i];
  for (uint32_t i = 0; i < n && found == n; i++)
    put (flow, legs[i] / POOL_COPIES_MAX, legs[i] % POOL_COPIES_MAX, hosts[i + 1], least);
  return found == n;
}

static bool
cancel_cycle (struct flow *flow, uint32_t host) {
  uint32_t back[POOL_HOSTS_MAX + 1], hosts[POOL_HOSTS_MAX + 1], n = 0;

  for (uint32_t h = host; n == 0 || (h != host && n < POOL_HOSTS_MAX);) {
    back[n++] = h;
    h = flow->before[h];
    if (h == POOL_NOBODY)
      return false;
  }
  back[n] = host;
  for (uint32_t i = 0; i <= n; i++)
    hosts[i] = back[n - i];
  return send_around (flow, hosts, n);
}

/* One round: cheapest ways, and all that can be sent along them. False: nothing pays any more. */
static bool
send_cheapest (struct flow *flow) {
  const uint32_t n = flow->pool->snapshot->n_hosts;
  uint64_t sent = 0;
  uint32_t host;

  find_reach (flow);
  /* Only copies of two make cycles that pay: what moves one may be cheaper for what has moved the other. */
  for (uint32_t tries = 0; (host = find_distances (flow)) != POOL_NOBODY; tries++) {
    if (tries == 4 * POOL_HOSTS_MAX)
      return false;
    if (cancel_cycle (flow, host))
      find_reach (flow);
    else
      for (unsigned w = 0; w < POOL_HOSTS_MAX / 64; w++) /* without that host's ways for less */
        flow->reach[0][host].words[w] = 0;
  }
  flow->best = 0;
  for (uint32_t v = 0; v < n; v++) {
    uint64_t room;
    const int32_t cost = sink_cost (flow, v, &room);

    if (cost < FAR_AWAY && flow->distance[v] < FAR_AWAY && flow->distance[v] + cost < flow->best)
      flow->best = flow->distance[v] + cost;
    flow->is_dead[v] = false;
  }
  if (flow->best >= 0)
    return false;
  for (uint32_t u = 0; u < n; u++)
    for (uint32_t v = 0; v < n; v++)
      flow->seen[ARC (u, v)] = flow->at[u];
  for (uint32_t u = 0; u < n; u++) {
    const int32_t cost = source_cost (flow, u);
    uint64_t spare, went;

    if (cost == FAR_AWAY || flow->distance[u] != cost)
      continue;
    spare = flow->load[u] - (cost ? flow->most[u] : flow->least[u]);
    flow->load[u] -= spare;
    went = send (flow, u, spare);
    flow->load[u] += spare - went;
    sent += went;
  }
  return sent > 0 && !flow->no_memory;
}

void
flow_run (struct flow *flow) {
  do
    while (send_cheapest (flow))
      continue;
  while (flow_move_pairs (flow));
}

/* ---- begin and end ---- */

bool
flow_init (struct flow *flow, const struct pool *pool, enum pool_tier tier, uint32_t tolerance) {
  const struct pool_snapshot *s = pool->snapshot;

  memset (flow, 0, sizeof *flow);
  flow->pool = pool;
  flow->tier = tier;
  flow->kinds_room = s->n_extents * 2 + 64;
  flow->kinds = malloc (flow->kinds_room * sizeof *flow->kinds);
  flow->of_extent = malloc (((size_t)s->n_extents + 1) * sizeof *flow->of_extent);
  flow->seen = malloc (POOL_HOSTS_MAX * POOL_HOSTS_MAX * sizeof *flow->seen);
  if (!flow->kinds || !flow->of_extent || !flow->seen) {
    flow_free (flow);
    return false;
  }
  for (uint32_t h = 0; h < s->n_hosts; h++) {
    flow->at[h] = POOL_NOBODY;
    flow->load[h] = pool->sums[tier][h].lent;
    rebalance_bounds (pool, tier, tolerance, h, &flow->least[h], &flow->most[h]);
  }
  for (uint32_t e = 0; e < s->n_extents; e++) {
    const struct pool_extent *extent = &s->extents[e];

    flow->of_extent[e] = POOL_NOBODY;
    /* A borrower that nobody hears of can't move what it has. */
    if (extent->tier == tier && s->hosts[s->borrowers[extent->borrower].host].is_up)
      flow->kinds[flow_get_kind (flow, e, extent->donors)].blocks = extent->blocks;
  }
  return true;
}

void
flow_free (struct flow *flow) {
  free (flow->kinds);
  free (flow->of_extent);
  free (flow->seen);
  memset (flow, 0, sizeof *flow);
}
