/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "pool-random.h"

#include <stdio.h>
#include <string.h>

#define ABOUT(n) (1 + testing_below (rand, (n)))

static void
make_hosts (struct random_pool *random, GRand *rand, const struct random_shape *shape) {
  const uint32_t n = shape->hosts < 3 ? shape->hosts : (uint32_t)(2 + testing_below (rand, shape->hosts - 1));
  const uint32_t domains = (uint32_t)ABOUT (n), zones = testing_once_in (rand, 8) ? 2 : 1;

  random->snapshot.n_hosts = n;
  for (uint32_t h = 0; h < n; h++) {
    struct pool_host *host = &random->hosts[h];

    snprintf (host->name, sizeof host->name, "host%u", h);
    host->domain = testing_once_in (rand, 2) ? h + 1000 : (uint32_t)testing_below (rand, domains);
    host->zone = (uint32_t)testing_below (rand, zones);
    for (unsigned t = 0; t < POOL_TIERS; t++) {
      struct pool_lending *lending = &host->lending[t];

      lending->capacity = testing_once_in (rand, 20) ? 0 : ABOUT (shape->blocks) * (testing_once_in (rand, 10) ? 3 : 1);
      lending->wanted = testing_once_in (rand, 5) ? testing_below (rand, lending->capacity + 1) : UINT64_MAX;
      lending->reserved = testing_once_in (rand, 5) ? testing_below (rand, lending->capacity / 4 + 1) : 0;
    }
    host->is_up = shape->is_plain || !testing_once_in (rand, 20);
    host->has_pressure = !shape->is_plain && testing_once_in (rand, 12);
    host->is_frozen = !shape->is_plain && testing_once_in (rand, 25);
    host->is_draining = !shape->is_plain && testing_once_in (rand, 12);
  }
  if (testing_once_in (rand, 3))
    random->snapshot.n_copysets
        = pool_make_copysets (random->hosts, n, (uint32_t)testing_below (rand, 10), g_rand_int (rand), random->copysets);
}

static void
make_borrowers (struct random_pool *random, GRand *rand, const struct random_shape *shape) {
  const uint32_t n = (uint32_t)ABOUT (shape->borrowers);

  random->borrowers = g_new0 (struct pool_borrower, n);
  random->snapshot.n_borrowers = n;
  for (uint32_t t = 0; t < 4; t++)
    random->tenants[t]
        = (struct pool_tenant){ .id = t * 10 + 1,
                                .quota = testing_once_in (rand, 4) ? ABOUT (shape->blocks * 2) : POOL_UNLIMITED };
  for (uint32_t b = 0; b < n; b++) {
    struct pool_borrower *borrower = &random->borrowers[b];

    borrower->id = (uint64_t)b * 3 + 7;
    borrower->host = (uint32_t)testing_below (rand, random->snapshot.n_hosts);
    borrower->tenant = random->tenants[testing_below (rand, 4)].id;
    borrower->quota = testing_once_in (rand, 4) ? shape->blocks : POOL_UNLIMITED;
    borrower->priority = (enum pool_priority)testing_below (rand, 3);
    borrower->mode = testing_below (rand, 100) < shape->pairs ? COPIES_MIRROR : COPIES_SSD;
    borrower->has_pressure = testing_once_in (rand, 6);
    memset (&borrower->donors, 0xff, sizeof borrower->donors);
    for (uint32_t h = 0; !shape->is_plain && testing_once_in (rand, 3) && h < random->snapshot.n_hosts; h++)
      if (testing_once_in (rand, 3))
        pool_set_remove (&borrower->donors, h);
  }
}

/* Lies about as it may have come to lie: by the rules for most, against them for a few. */
static void
make_extents (struct random_pool *random, GRand *rand, const struct random_shape *shape) {
  struct pool_snapshot *s = &random->snapshot;
  const uint32_t n = (uint32_t)(shape->extents / 2 + testing_below (rand, shape->extents / 2 + 1)),
                 crowd = (uint32_t)ABOUT (s->n_hosts);

  random->extents_room = n + 64;
  random->extents = g_new0 (struct pool_extent, random->extents_room);
  s->extents = random->extents;
  for (uint32_t i = 0; i < n; i++) {
    struct pool_extent e = { .borrower = (uint32_t)testing_below (rand, s->n_borrowers),
                             .tier = testing_below (rand, 4) ? POOL_SHARED : POOL_REMOTE };
    const bool is_pair = s->borrowers[e.borrower].mode == COPIES_MIRROR && s->n_hosts > 1;
    uint64_t room = UINT64_MAX;

    e.n_donors = is_pair ? 2 : 1;
    for (unsigned tries = 0; tries < 20; tries++) {
      e.donors[0] = (uint32_t)testing_below (rand, testing_once_in (rand, 3) ? s->n_hosts : crowd);
      e.donors[1] = (uint32_t)testing_below (rand, s->n_hosts);
      if (!testing_once_in (rand, 10)
          && ((is_pair && !rules_allow (s, e.borrower, e.donors[0], e.donors[1]))
              || e.donors[0] == s->borrowers[e.borrower].host))
        continue;
      if (!is_pair || e.donors[0] != e.donors[1])
        break;
    }
    if (is_pair && e.donors[0] == e.donors[1])
      continue;
    if (is_pair && e.donors[0] > e.donors[1]) {
      const uint32_t swap = e.donors[0];

      e.donors[0] = e.donors[1];
      e.donors[1] = swap;
    }
    for (uint32_t d = 0; d < e.n_donors; d++) {
      const struct pool_lending *lending = &s->hosts[e.donors[d]].lending[e.tier];
      const uint64_t left = lending->capacity - lending->reserved - rules_lent (s, e.tier, e.donors[d]);

      room = left < room ? left : room;
    }
    e.blocks = ABOUT (shape->extent_blocks);
    e.blocks = e.blocks < room ? e.blocks : room;
    if (e.blocks)
      random->extents[s->n_extents++] = e;
  }
}

struct random_pool *
random_pool_new (GRand *rand, const struct random_shape *shape) {
  struct random_pool *random = g_new0 (struct random_pool, 1);
  struct pool_snapshot *s = &random->snapshot;

  s->hosts = random->hosts;
  s->tenants = random->tenants;
  s->n_tenants = 4;
  s->copysets = random->copysets;
  make_hosts (random, rand, shape);
  make_borrowers (random, rand, shape);
  s->borrowers = random->borrowers;
  make_extents (random, rand, shape);
  return random;
}

void
random_pool_free (struct random_pool *random) {
  g_free (random->borrowers);
  g_free (random->extents);
  g_free (random);
}

void
random_pool_open (struct random_pool *random, struct pool *pool) {
  struct pool_refusal refusal;

  if (!pool_open (pool, &random->snapshot, &refusal))
    g_error ("%s %u: %s", refusal.what, refusal.index, pool_fault_text (refusal.fault));
}

/* ---- the rules, read plainly ---- */

static bool
is_copyset (const struct pool_snapshot *s, uint32_t a, uint32_t b) {
  for (uint32_t i = 0; i < s->n_copysets; i++)
    if ((s->copysets[i].hosts[0] == a && s->copysets[i].hosts[1] == b)
        || (s->copysets[i].hosts[0] == b && s->copysets[i].hosts[1] == a))
      return true;
  return s->n_copysets == 0;
}

bool
rules_allow (const struct pool_snapshot *s, uint32_t borrower, uint32_t donor, uint32_t other) {
  const struct pool_borrower *b = &s->borrowers[borrower];
  const struct pool_host *host = &s->hosts[donor];

  if (donor == b->host || !pool_set_has (&b->donors, donor) || host->zone != s->hosts[b->host].zone)
    return false;
  if (!host->is_up || host->is_frozen || host->is_draining || host->has_pressure)
    return false;
  return other == POOL_NOBODY || (host->domain != s->hosts[other].domain && is_copyset (s, donor, other));
}

uint64_t
rules_lent (const struct pool_snapshot *s, enum pool_tier tier, uint32_t host) {
  uint64_t lent = 0;

  for (uint32_t e = 0; e < s->n_extents; e++)
    for (uint32_t d = 0; d < s->extents[e].n_donors; d++)
      if (s->extents[e].tier == tier && s->extents[e].donors[d] == host)
        lent += s->extents[e].blocks;
  return lent;
}

uint64_t
rules_limit (const struct pool_snapshot *s, enum pool_tier tier, uint32_t host) {
  const struct pool_lending *lending = &s->hosts[host].lending[tier];

  return s->hosts[host].is_draining ? 0 : MAX (MIN (lending->capacity, lending->wanted), lending->reserved) - lending->reserved;
}

uint64_t
rules_missing (const struct pool_snapshot *s, enum pool_tier tier) {
  uint64_t worst = 0;

  for (uint32_t dead = 0; dead < s->n_hosts; dead++) {
    const uint64_t lent = rules_lent (s, tier, dead);
    uint64_t room = 0;

    for (uint32_t h = 0; h < s->n_hosts; h++) {
      const struct pool_host *host = &s->hosts[h];
      const uint64_t limit = rules_limit (s, tier, h), has = rules_lent (s, tier, h);

      if (h != dead && host->is_up && !host->is_frozen && !host->is_draining && !host->has_pressure && limit > has)
        room += limit - has;
    }
    worst = lent > room && lent - room > worst ? lent - room : worst;
  }
  return worst;
}

/* ---- carrying out ---- */

static bool
is_with (const struct pool_extent *e, uint32_t a, uint32_t b) {
  if (b == POOL_NOBODY)
    return e->n_donors == 1 && e->donors[0] == a;
  return e->n_donors == 2 && ((e->donors[0] == a && e->donors[1] == b) || (e->donors[0] == b && e->donors[1] == a));
}

void
random_pool_move (struct random_pool *random, uint32_t borrower, enum pool_tier tier, uint32_t from, uint32_t to,
                  uint32_t stays, uint64_t blocks) {
  struct pool_snapshot *s = &random->snapshot;
  struct pool_extent *there = NULL;
  uint64_t left = blocks;

  for (uint32_t i = 0; i < s->n_extents && left; i++) {
    struct pool_extent *e = &random->extents[i];

    if (e->borrower == borrower && e->tier == tier && is_with (e, from, stays)) {
      const uint64_t part = MIN (left, e->blocks);

      e->blocks -= part;
      left -= part;
      if (e->blocks == 0)
        random->extents[i--] = random->extents[--s->n_extents];
    }
  }
  g_assert_cmpuint (left, ==, 0); /* the plan moves what there is */
  for (uint32_t i = 0; i < s->n_extents && !there; i++)
    if (random->extents[i].borrower == borrower && random->extents[i].tier == tier && is_with (&random->extents[i], to, stays))
      there = &random->extents[i];
  if (!there) {
    if (s->n_extents == random->extents_room) {
      random->extents_room *= 2;
      random->extents = g_renew (struct pool_extent, random->extents, random->extents_room);
      s->extents = random->extents;
    }
    there = &random->extents[s->n_extents++];
    *there = (struct pool_extent){ .borrower = borrower, .tier = tier, .n_donors = stays == POOL_NOBODY ? 1 : 2 };
    there->donors[0] = stays == POOL_NOBODY ? to : MIN (to, stays);
    there->donors[1] = stays == POOL_NOBODY ? 0 : MAX (to, stays);
  }
  there->blocks += blocks;
}
