/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "pool-minimum.h"
#include "pool-random.h"

#include <string.h>

#define PENALTY 100000 /* of a block outside */

static bool
gives (const struct pool_snapshot *s, uint32_t host) {
  return s->hosts[host].is_up && !s->hosts[host].is_frozen;
}

static bool
can_move (const struct pool_snapshot *s, const struct pool_extent *e, uint32_t donor) {
  return gives (s, donor) && s->hosts[s->borrowers[e->borrower].host].is_up;
}

/* ---- min-cost flow: cheapest ways by a queue (SPFA), one at a time ---- */

struct arc {
  uint32_t to, next;
  int64_t room, cost;
};

struct net {
  GArray *arcs;    /* in pairs: there and back */
  uint32_t *first; /* of a node */
  uint32_t n_nodes;
};

static void
add_arc (struct net *net, uint32_t from, uint32_t to, int64_t room, int64_t cost) {
  const struct arc there = { to, net->first[from], room, cost };
  struct arc back = { from, 0, 0, -cost };

  if (room == 0)
    return;
  g_array_append_val (net->arcs, there);
  net->first[from] = net->arcs->len - 1;
  back.next = net->first[to];
  g_array_append_val (net->arcs, back);
  net->first[to] = net->arcs->len - 1;
}

static int64_t
cheapest_flow (struct net *net, uint32_t source, uint32_t sink) {
  const uint32_t n = net->n_nodes;
  int64_t *distance = g_new (int64_t, n), cost = 0;
  uint32_t *by = g_new (uint32_t, n), *queue = g_new (uint32_t, n + 1);
  bool *is_queued = g_new0 (bool, n);

  for (;;) {
    uint32_t head = 0, tail = 0;
    int64_t room = INT64_MAX;

    for (uint32_t i = 0; i < n; i++)
      distance[i] = INT64_MAX;
    distance[source] = 0;
    queue[tail++] = source;
    while (head != tail) {
      const uint32_t u = queue[head];

      head = (head + 1) % (n + 1);
      is_queued[u] = false;
      for (uint32_t a = net->first[u]; a != UINT32_MAX; a = g_array_index (net->arcs, struct arc, a).next) {
        const struct arc *arc = &g_array_index (net->arcs, struct arc, a);

        if (arc->room == 0 || distance[u] + arc->cost >= distance[arc->to])
          continue;
        distance[arc->to] = distance[u] + arc->cost;
        by[arc->to] = a;
        if (!is_queued[arc->to]) {
          is_queued[arc->to] = true;
          queue[tail] = arc->to;
          tail = (tail + 1) % (n + 1);
        }
      }
    }
    if (distance[sink] == INT64_MAX)
      break;
    for (uint32_t v = sink; v != source; v = g_array_index (net->arcs, struct arc, by[v] ^ 1).to)
      room = MIN (room, g_array_index (net->arcs, struct arc, by[v]).room);
    for (uint32_t v = sink; v != source; v = g_array_index (net->arcs, struct arc, by[v] ^ 1).to) {
      g_array_index (net->arcs, struct arc, by[v]).room -= room;
      g_array_index (net->arcs, struct arc, by[v] ^ 1).room += room;
    }
    cost += room * distance[sink];
  }
  g_free (distance);
  g_free (by);
  g_free (queue);
  g_free (is_queued);
  return cost;
}

/* Whether that donor may have one of the copies at all, if the other one goes wherever that needs it. */
static bool
may_ever (const struct pool_snapshot *s, const struct pool_extent *e, uint32_t donor) {
  if (e->n_donors == 1)
    return rules_allow (s, e->borrower, donor, POOL_NOBODY);
  for (uint32_t other = 0; other < s->n_hosts; other++)
    if (other != donor && (other == e->donors[0] || other == e->donors[1] || rules_allow (s, e->borrower, other, POOL_NOBODY))
        && rules_allow (s, e->borrower, donor, other))
      return true;
  return false;
}

/* What a host may have: never more than its limit, unless that is how it was. */
static uint64_t
most_ever (const struct pool_snapshot *s, enum pool_tier tier, uint32_t host) {
  return MAX (rules_limit (s, tier, host), rules_lent (s, tier, host));
}

struct minimum
minimum_by_flow (const struct pool *pool, enum pool_tier tier, uint32_t tolerance) {
  const struct pool_snapshot *s = pool->snapshot;
  const uint32_t source = 0, sink = 1, hosts = 2, legs = hosts + s->n_hosts;
  struct net net = { .n_nodes = legs + s->n_extents * 2 };
  int64_t cost, lowest = 0;

  net.arcs = g_array_new (FALSE, FALSE, sizeof (struct arc));
  net.first = g_new (uint32_t, net.n_nodes);
  memset (net.first, 0xff, net.n_nodes * sizeof *net.first);
  for (uint32_t h = 0; h < s->n_hosts; h++) {
    uint64_t least, most;

    rebalance_bounds (pool, tier, tolerance, h, &least, &most);
    add_arc (&net, hosts + h, sink, (int64_t)least, -PENALTY);
    add_arc (&net, hosts + h, sink, (int64_t)(most - least), 0);
    add_arc (&net, hosts + h, sink, (int64_t)(most_ever (s, tier, h) - most), PENALTY);
    lowest += (int64_t)least * PENALTY;
  }
  for (uint32_t i = 0; i < s->n_extents; i++) {
    const struct pool_extent *e = &s->extents[i];

    for (uint32_t d = 0; e->tier == tier && d < e->n_donors; d++) {
      const uint32_t leg = legs + i * 2 + d;

      add_arc (&net, source, leg, (int64_t)e->blocks, 0);
      add_arc (&net, leg, hosts + e->donors[d], (int64_t)e->blocks, 0);
      for (uint32_t h = 0; h < s->n_hosts && can_move (s, e, e->donors[d]); h++)
        if (h != e->donors[d] && may_ever (s, e, h))
          add_arc (&net, leg, hosts + h, (int64_t)e->blocks, 1);
    }
  }
  cost = cheapest_flow (&net, source, sink) + lowest;
  g_array_free (net.arcs, TRUE);
  g_free (net.first);
  return (struct minimum){ .outside = (uint64_t)(cost / PENALTY), .moves = (uint64_t)(cost % PENALTY) };
}

/* ---- trying everything: block by block, all loads that can come about, and what each costs at least ---- */

#define SLOTS (1u << 16)

struct table {
  uint64_t keys[SLOTS]; /* loads, 8 bits a host, + 1 */
  uint32_t costs[SLOTS];
  uint32_t used[SLOTS], n_used;
};

static bool
note (struct table *table, uint64_t loads, uint32_t cost) {
  uint32_t slot = (uint32_t)(pool_mix (loads) % SLOTS);

  while (table->keys[slot] && table->keys[slot] != loads + 1)
    slot = (slot + 1) % SLOTS;
  if (!table->keys[slot]) {
    if (table->n_used == SLOTS / 2)
      return false;
    table->keys[slot] = loads + 1;
    table->costs[slot] = cost;
    table->used[table->n_used++] = slot;
  }
  table->costs[slot] = MIN (table->costs[slot], cost);
  return true;
}

static void
empty (struct table *table) {
  while (table->n_used)
    table->keys[table->used[--table->n_used]] = 0;
}

/* Fewest moves from where the extent is to each pair of donors (or donor: twice the same), one copy at a time, by the rules all
 * the time. */
static void
ways (const struct pool_snapshot *s, const struct pool_extent *e, uint8_t ret_moves[MINIMUM_HOSTS][MINIMUM_HOSTS]) {
  const uint32_t a = e->donors[0], b = e->n_donors == 2 ? e->donors[1] : a;

  memset (ret_moves, 0xff, MINIMUM_HOSTS * MINIMUM_HOSTS);
  ret_moves[a][b] = 0;
  if (!s->hosts[s->borrowers[e->borrower].host].is_up)
    return;
  for (uint8_t n = 0; n < 8; n++)
    for (uint32_t x = 0; x < s->n_hosts; x++)
      for (uint32_t y = 0; y < s->n_hosts; y++)
        for (uint32_t to = 0; ret_moves[x][y] == n && to < s->n_hosts; to++) {
          if (e->n_donors == 1) {
            if (gives (s, x) && rules_allow (s, e->borrower, to, POOL_NOBODY) && ret_moves[to][to] > n + 1)
              ret_moves[to][to] = (uint8_t)(n + 1);
            continue;
          }
          if (gives (s, x) && to != y && rules_allow (s, e->borrower, to, y) && ret_moves[to][y] > n + 1)
            ret_moves[to][y] = (uint8_t)(n + 1);
          if (gives (s, y) && to != x && rules_allow (s, e->borrower, to, x) && ret_moves[x][to] > n + 1)
            ret_moves[x][to] = (uint8_t)(n + 1);
        }
}

static bool
add_block (const struct pool_snapshot *s, const struct pool_extent *e, const struct table *before, struct table *after) {
  uint8_t moves[MINIMUM_HOSTS][MINIMUM_HOSTS];

  ways (s, e, moves);
  empty (after);
  for (uint32_t i = 0; i < before->n_used; i++) {
    const uint64_t loads = before->keys[before->used[i]] - 1;

    for (uint32_t x = 0; x < s->n_hosts; x++)
      for (uint32_t y = 0; y < s->n_hosts; y++)
        if (moves[x][y] != 0xff
            && !note (after, loads + (1ull << x * 8) + (e->n_donors == 2 ? 1ull << y * 8 : 0),
                      before->costs[before->used[i]] + moves[x][y]))
          return false;
  }
  return true;
}

bool
minimum_by_trying (const struct pool *pool, enum pool_tier tier, uint32_t tolerance, struct minimum *ret_minimum) {
  static struct table tables[2];
  const struct pool_snapshot *s = pool->snapshot;
  uint64_t blocks = 0, lowest = UINT64_MAX;
  unsigned now = 0;

  for (uint32_t e = 0; e < s->n_extents; e++)
    blocks += s->extents[e].tier == tier ? s->extents[e].blocks : 0;
  if (s->n_hosts > MINIMUM_HOSTS || blocks > MINIMUM_UNITS)
    return false;
  empty (&tables[0]);
  note (&tables[0], 0, 0);
  for (uint32_t e = 0; e < s->n_extents; e++)
    for (uint64_t i = 0; s->extents[e].tier == tier && i < s->extents[e].blocks; i++) {
      if (!add_block (s, &s->extents[e], &tables[now], &tables[1 - now]))
        return false;
      now = 1 - now;
    }
  for (uint32_t i = 0; i < tables[now].n_used; i++) {
    const uint64_t loads = tables[now].keys[tables[now].used[i]] - 1;
    uint64_t cost = tables[now].costs[tables[now].used[i]];

    for (uint32_t h = 0; h < s->n_hosts; h++) {
      const uint64_t load = loads >> h * 8 & 0xff;
      uint64_t least, most;

      rebalance_bounds (pool, tier, tolerance, h, &least, &most);
      cost = load > most_ever (s, tier, h) ? UINT64_MAX / 2 : cost;
      cost += PENALTY * (load > most ? load - most : load < least ? least - load : 0);
    }
    lowest = MIN (lowest, cost);
  }
  *ret_minimum = (struct minimum){ .outside = lowest / PENALTY, .moves = lowest % PENALTY };
  return true;
}
