/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "core/pool-placement.h"

#include <string.h>

static struct pool_reason
because (enum pool_why why, uint32_t host, uint32_t other, uint64_t a, uint64_t b, uint64_t c, uint64_t d) {
  return (struct pool_reason){ .why = why, .host = host, .other = other, .n = { a, b, c, d } };
}

/* ---- one host ---- */

struct pool_reason
pool_why_host (const struct pool *pool, const struct pool_grant *grant, uint32_t h, uint32_t other) {
  const struct pool_snapshot *s = pool->snapshot;
  const struct pool_borrower *borrower = &s->borrowers[grant->borrower];
  const struct pool_host *host = &s->hosts[h];
  const uint64_t room = pool->sums[grant->tier][h].free;
  enum pool_why why = POOL_YES;

  if (h == borrower->host)
    why = POOL_NOT_OWN;
  else if (!host->is_up)
    why = POOL_NOT_UP;
  else if (host->is_frozen)
    why = POOL_NOT_FROZEN;
  else if (host->is_draining)
    why = POOL_NOT_DRAINED;
  else if (host->has_pressure)
    why = POOL_NOT_PRESSED;
  else if (host->zone != s->hosts[borrower->host].zone)
    why = POOL_NOT_ZONE;
  else if (!pool_set_has (&borrower->donors, h))
    why = POOL_NOT_KNOWN;
  else if (other != POOL_NOBODY && s->hosts[other].domain == host->domain)
    why = POOL_NOT_DOMAIN;
  else if (other != POOL_NOBODY && !pool_set_has (&pool->partners[other], h))
    why = POOL_NOT_SET;
  else if (pool_set_has (&grant->refused, h))
    why = POOL_NOT_ADMITTED;
  else if (room < grant->blocks)
    why = POOL_NOT_ROOM;
  return because (why, h, other, grant->blocks, room, 0, 0);
}

/* ---- the pool ---- */

/* What would be missing for the loss of the donor for which that is most, with the blocks at these donors. */
static uint64_t
missing_with (const struct pool *pool, const struct pool_grant *grant, const uint32_t *donors, uint32_t n, uint32_t *ret_host,
              uint64_t *ret_lent) {
  const uint64_t free = pool->free[grant->tier] - grant->blocks * n;
  uint64_t most = 0;

  for (uint32_t h = 0; h < pool->snapshot->n_hosts; h++) {
    const struct pool_sums *sums = &pool->sums[grant->tier][h];
    uint64_t lent = sums->lent, own = sums->free;

    for (uint32_t d = 0; d < n; d++)
      if (donors[d] == h) {
        lent += grant->blocks;
        own -= grant->blocks;
      }
    if (lent > free - own && lent - (free - own) > most) {
      most = lent - (free - own);
      *ret_host = h;
      *ret_lent = lent;
    }
  }
  return most;
}

/* Whether these donors may have it, as far as the pool as a whole is concerned. */
static bool
leaves_enough (const struct pool *pool, const struct pool_grant *grant, const uint32_t *donors, uint32_t n,
               struct pool_reason *ret_reason) {
  const struct pool_borrower *borrower = &pool->snapshot->borrowers[grant->borrower];
  const uint64_t left = pool->free[grant->tier] - grant->blocks * n;
  uint64_t all = pool->free[grant->tier], kept, missing, lent = 0;
  uint32_t host = POOL_NOBODY;

  missing = missing_with (pool, grant, donors, n, &host, &lent);
  if (missing > 0) {
    *ret_reason = because (POOL_NO_HEADROOM, host, POOL_NOBODY, missing, lent, 0, 0);
    return false;
  }
  for (uint32_t h = 0; h < pool->snapshot->n_hosts; h++)
    all += pool->sums[grant->tier][h].lent;
  kept = all / POOL_PRIORITY_PART * (uint64_t)(POOL_HIGH - borrower->priority);
  if (left < kept) {
    *ret_reason = because (POOL_NO_PRIORITY, POOL_NOBODY, POOL_NOBODY, kept, left, 0, 0);
    return false;
  }
  return true;
}

/* What does not depend on a donor. */
static bool
may_borrow (const struct pool *pool, const struct pool_grant *grant, uint32_t copies, struct pool_reason *ret_reason) {
  const struct pool_snapshot *s = pool->snapshot;
  const struct pool_borrower *borrower = &s->borrowers[grant->borrower];
  const uint32_t tenant = pool_find_tenant (s, borrower->tenant);
  const uint64_t wanted = grant->blocks * copies, has = pool->borrowed[grant->borrower];
  const uint64_t tenant_has = pool->tenant_borrowed[tenant], lends = pool->sums[grant->tier][borrower->host].lent;

  if (has > borrower->quota || wanted > borrower->quota - has)
    *ret_reason = because (POOL_NO_QUOTA, POOL_NOBODY, POOL_NOBODY, wanted, has, borrower->quota, 0);
  else if (tenant_has > s->tenants[tenant].quota || wanted > s->tenants[tenant].quota - tenant_has)
    *ret_reason = because (POOL_NO_TENANT, POOL_NOBODY, POOL_NOBODY, wanted, tenant_has, s->tenants[tenant].quota, 0);
  else if (s->hosts[borrower->host].has_pressure && lends > 0)
    *ret_reason = because (POOL_NO_SQUEEZED, borrower->host, POOL_NOBODY, lends, 0, 0, 0);
  else
    return true;
  return false;
}

/* ---- the choice ---- */

/* Whether a would be less full than b, with the blocks. */
static bool
is_emptier (const struct pool *pool, const struct pool_grant *grant, uint32_t a, uint32_t b) {
  const struct pool_sums *x = &pool->sums[grant->tier][a], *y = &pool->sums[grant->tier][b];

  return (x->lent + grant->blocks) * y->limit < (y->lent + grant->blocks) * x->limit;
}

/* The fuller one of a set's. */
static uint32_t
fuller (const struct pool *pool, const struct pool_grant *grant, const uint32_t *donors, uint32_t n) {
  return n > 1 && is_emptier (pool, grant, donors[0], donors[1]) ? donors[1] : donors[0];
}

struct draw {
  uint32_t n; /* sets that would do */
  uint32_t donors[2][POOL_COPIES_MAX];
  uint64_t lots[2];          /* of the two sets */
  struct pool_reason reason; /* why another one would not do, though its hosts would */
};

/* One set more. Each draws a lot, and the lowest two are taken: so all pairs have the same chance, without a list of them. */
static void
consider (const struct pool *pool, const struct pool_grant *grant, const uint32_t *donors, uint32_t n, struct draw *draw) {
  const uint64_t name = (uint64_t)donors[0] << 32 | (n > 1 ? donors[1] + 1 : 0);
  const uint64_t lot = pool_mix (grant->seed ^ pool_mix (name));
  unsigned place = 2;

  if (!leaves_enough (pool, grant, donors, n, &draw->reason))
    return;
  if (draw->n == 0 || lot < draw->lots[0]) {
    draw->lots[1] = draw->lots[0];
    memcpy (draw->donors[1], draw->donors[0], sizeof draw->donors[1]);
    place = 0;
  } else if (draw->n == 1 || lot < draw->lots[1])
    place = 1;
  draw->n++;
  if (place == 2)
    return;
  draw->lots[place] = lot;
  memcpy (draw->donors[place], donors, n * sizeof *donors);
}

static void
draw_two (const struct pool *pool, const struct pool_grant *grant, uint32_t copies, struct draw *ret_draw) {
  const uint32_t n = pool->snapshot->n_hosts;
  struct pool_set good = { 0 };

  memset (ret_draw, 0, sizeof *ret_draw);
  for (uint32_t h = 0; h < n; h++)
    if (pool_why_host (pool, grant, h, POOL_NOBODY).why == POOL_YES)
      pool_set_add (&good, h);
  for (uint32_t a = 0; a < n; a++) {
    if (!pool_set_has (&good, a))
      continue;
    if (copies == 1)
      consider (pool, grant, &a, 1, ret_draw);
    for (uint32_t b = a + 1; copies == 2 && b < n; b++)
      if (pool_set_has (&good, b) && pool_set_has (&pool->partners[a], b))
        consider (pool, grant, (uint32_t[]){ a, b }, 2, ret_draw);
  }
}

static void
take_emptier (const struct pool *pool, const struct pool_grant *grant, uint32_t copies, const struct draw *draw,
              struct pool_choice *choice) {
  const uint32_t fullest[2]
      = { fuller (pool, grant, draw->donors[0], copies), fuller (pool, grant, draw->donors[draw->n > 1], copies) };
  const unsigned taken = draw->n > 1 && is_emptier (pool, grant, fullest[1], fullest[0]);
  const uint32_t is = fullest[taken], other = fullest[1 - taken];
  const struct pool_sums *x = &pool->sums[grant->tier][is], *y = &pool->sums[grant->tier][other];

  choice->n_donors = copies;
  memcpy (choice->donors, draw->donors[taken], copies * sizeof choice->donors[0]);
  if (draw->n == 1 || is == other)
    choice->reason = because (draw->n == 1 ? POOL_ONLY : POOL_SAME, is, POOL_NOBODY, x->lent + grant->blocks, x->limit, 0, 0);
  else
    choice->reason = because (POOL_TWO, is, other, x->lent + grant->blocks, x->limit, y->lent + grant->blocks, y->limit);
}

/* Nothing was found: why. */
static struct pool_reason
why_none (const struct pool *pool, const struct pool_grant *grant, const struct draw *draw) {
  struct pool_grant least = *grant;
  uint32_t n = 0;

  if (draw->reason.why != POOL_YES)
    return draw->reason;
  least.blocks = 1;
  for (uint32_t h = 0; h < pool->snapshot->n_hosts; h++)
    n += pool_why_host (pool, &least, h, POOL_NOBODY).why == POOL_YES;
  return because (POOL_NO_DONOR, POOL_NOBODY, POOL_NOBODY, pool->snapshot->n_hosts, n, 0, 0);
}

void
pool_place (const struct pool *pool, const struct pool_grant *grant, struct pool_choice *ret_choice) {
  const struct pool_snapshot *s = pool->snapshot;
  struct draw draw;
  unsigned copies;

  *ret_choice = (struct pool_choice){ .reason = because (POOL_NO_SENSE, POOL_NOBODY, POOL_NOBODY, grant->blocks, 0, 0, 0) };
  if (grant->borrower >= s->n_borrowers || (unsigned)grant->tier >= POOL_TIERS || grant->blocks == 0
      || grant->blocks > POOL_BLOCKS_MAX)
    return;
  copies = copies_wanted_donors (s->borrowers[grant->borrower].mode);
  ret_choice->reason.why = s->is_frozen ? POOL_NO_FROZEN : POOL_NO_MODE;
  if (s->is_frozen || copies == 0)
    return;
  for (; copies > 0 && ret_choice->n_donors == 0; copies--) {
    struct pool_reason reason = { 0 };

    if (!may_borrow (pool, grant, copies, &reason)) {
      ret_choice->reason = reason;
      return;
    }
    draw_two (pool, grant, copies, &draw);
    if (draw.n > 0)
      take_emptier (pool, grant, copies, &draw, ret_choice);
    else
      ret_choice->reason = why_none (pool, grant, &draw);
    if (draw.reason.why != POOL_YES && draw.n == 0)
      return; /* the pool is too full for it: fewer copies are no way around that */
  }
}

/* ---- the donor's answer ---- */

struct pool_reason
pool_admit (const struct pool_own *own, uint32_t host, uint64_t blocks) {
  const struct pool_lending *lending = &own->lending;
  const uint64_t most = lending->wanted < lending->capacity ? lending->wanted : lending->capacity;
  const uint64_t limit = most > lending->reserved ? most - lending->reserved : 0,
                 room = limit > own->lent ? limit - own->lent : 0;
  enum pool_why why = POOL_YES;

  if (own->is_frozen)
    why = POOL_NOT_FROZEN;
  else if (own->is_draining)
    why = POOL_NOT_DRAINED;
  else if (own->has_pressure)
    why = POOL_NOT_PRESSED;
  else if (room == 0)
    why = POOL_NOT_ROOM;
  else if (room < blocks)
    return because (POOL_ADMIT_LESS, host, POOL_NOBODY, room, 0, 0, 0);
  return because (why, host, POOL_NOBODY, blocks, room, 0, 0);
}
