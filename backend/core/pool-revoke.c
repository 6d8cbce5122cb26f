/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "core/pool-revoke.h"

#include <stdlib.h>
#include <string.h>

struct work {
  const struct pool *pool;
  uint32_t host;
  enum pool_tier tier;
  uint64_t wanted;
  uint64_t free[POOL_HOSTS_MAX]; /* as the calls so far leave it */
  uint64_t *left;                /* of each extent */
  struct pool_revoke *revoke;
  uint32_t room;
};

static bool
has_copy (const struct pool_extent *extent, uint32_t host, uint32_t *ret_other) {
  for (uint32_t d = 0; d < extent->n_donors; d++)
    if (extent->donors[d] == host) {
      *ret_other = extent->n_donors > 1 ? extent->donors[1 - d] : POOL_NOBODY;
      return true;
    }
  return false;
}

static bool
call (struct work *work, uint32_t extent, uint32_t to, uint64_t blocks, enum pool_why why) {
  struct pool_revoke *revoke = work->revoke;

  if (revoke->n_calls == work->room) {
    const uint32_t room = work->room ? work->room * 2 : 64;
    struct pool_call *calls = realloc (revoke->calls, room * sizeof *calls);

    if (!calls)
      return false;
    revoke->calls = calls;
    work->room = room;
  }
  revoke->calls[revoke->n_calls++] = (struct pool_call){
    .extent = extent,
    .to = to,
    .blocks = blocks,
    .reason
    = { .why = why, .host = work->host, .other = to, .n = { to == POOL_NOBODY ? blocks : work->free[to], blocks, 0, 0 } },
  };
  work->left[extent] -= blocks;
  revoke->blocks += blocks;
  if (to != POOL_NOBODY)
    work->free[to] -= blocks;
  return true;
}

/* The donor with most room of those that may take it, or POOL_NOBODY. */
static uint32_t
find_taker (const struct work *work, const struct pool_extent *extent, uint32_t other) {
  uint32_t best = POOL_NOBODY;
  struct pool_set takers;

  pool_donors_of (work->pool, extent->borrower, &takers);
  for (uint32_t h = 0; h < work->pool->snapshot->n_hosts; h++)
    if (h != work->host && pool_set_has (&takers, h) && work->free[h] > 0
        && (other == POOL_NOBODY || pool_set_has (&work->pool->partners[other], h))
        && (best == POOL_NOBODY || work->free[h] > work->free[best]))
      best = h;
  return best;
}

static uint64_t
least (uint64_t a, uint64_t b) {
  return a < b ? a : b;
}

/* All extents there of borrowers of that kind. False: memory is short. */
static bool
call_back (struct work *work, enum pool_priority priority, bool has_pressure, bool to_storage) {
  const struct pool_snapshot *s = work->pool->snapshot;

  for (uint32_t e = 0; e < s->n_extents && work->revoke->blocks < work->wanted; e++) {
    const struct pool_extent *extent = &s->extents[e];
    const struct pool_borrower *borrower = &s->borrowers[extent->borrower];
    uint32_t other;

    if (extent->tier != work->tier || borrower->priority != priority || borrower->has_pressure != has_pressure
        || !has_copy (extent, work->host, &other))
      continue;
    while (work->left[e] > 0 && work->revoke->blocks < work->wanted) {
      const uint64_t blocks = least (work->left[e], work->wanted - work->revoke->blocks);
      const uint32_t to = to_storage ? POOL_NOBODY : find_taker (work, extent, other);

      if (!to_storage && to == POOL_NOBODY)
        break;
      if (!call (work, e, to, to_storage ? blocks : least (blocks, work->free[to]),
                 !to_storage    ? POOL_CALL_MOVE
                 : has_pressure ? POOL_CALL_LAST
                                : POOL_CALL_STORAGE))
        return false;
    }
  }
  return true;
}

void
pool_revoke_make (const struct pool *pool, uint32_t host, enum pool_tier tier, uint64_t blocks, bool is_hard,
                  struct pool_revoke *ret_revoke) {
  const struct pool_snapshot *s = pool->snapshot;
  struct work work = { .pool = pool, .host = host, .tier = tier, .wanted = blocks, .revoke = ret_revoke };
  bool is_good;

  memset (ret_revoke, 0, sizeof *ret_revoke);
  work.left = malloc (((size_t)s->n_extents + 1) * sizeof *work.left);
  is_good = work.left != NULL;
  for (uint32_t h = 0; h < s->n_hosts; h++)
    work.free[h] = pool->sums[tier][h].free;
  for (uint32_t e = 0; is_good && e < s->n_extents; e++)
    work.left[e] = s->extents[e].blocks;
  /* Others to donors, others to storage, those short of memory to donors, and to storage. */
  for (unsigned turn = 0; turn < (is_hard ? 4 : 3); turn++)
    for (unsigned priority = POOL_LOW; is_good && priority <= POOL_HIGH; priority++)
      is_good = call_back (&work, priority, turn >= 2, turn % 2);
  free (work.left);
  if (!is_good) {
    pool_revoke_free (ret_revoke);
    ret_revoke->no_memory = true;
  }
  ret_revoke->missing = blocks - ret_revoke->blocks;
}

void
pool_revoke_free (struct pool_revoke *revoke) {
  free (revoke->calls);
  memset (revoke, 0, sizeof *revoke);
}
