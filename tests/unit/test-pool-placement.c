/* SPDX-License-Identifier: GPL-2.0-or-later */
/* New blocks of random pools: what is chosen keeps all rules, what is refused breaks the one that is named, and load spreads.
 */
#include "core/pool-placement.h"
#include "pool-random.h"

#include <string.h>

static const struct random_shape many
    = { .hosts = 28, .borrowers = 30, .extents = 60, .blocks = 200, .extent_blocks = 90, .pairs = 20, .is_plain = true };
static const struct random_shape shape
    = { .hosts = 12, .borrowers = 10, .extents = 30, .blocks = 600, .extent_blocks = 60, .pairs = 50 };

static struct pool_grant
random_grant (GRand *rand, const struct pool_snapshot *s) {
  struct pool_grant grant = { .borrower = (uint32_t)testing_below (rand, s->n_borrowers),
                              .tier = testing_below (rand, POOL_TIERS),
                              .blocks = 1 + testing_below (rand, testing_once_in (rand, 3) ? 400 : 30),
                              .seed = g_rand_int (rand) };

  if (testing_once_in (rand, 3))
    pool_set_add (&grant.refused, (uint32_t)testing_below (rand, s->n_hosts));
  return grant;
}

static uint64_t
held_by (const struct pool_snapshot *s, uint32_t borrower, bool of_tenant) {
  uint64_t sum = 0;

  for (uint32_t e = 0; e < s->n_extents; e++)
    if (of_tenant ? s->borrowers[s->extents[e].borrower].tenant == s->borrowers[borrower].tenant
                  : s->extents[e].borrower == borrower)
      sum += s->extents[e].blocks * s->extents[e].n_donors;
  return sum;
}

/* Whether it may be with these donors, by the rules read plainly, all but the pool's. */
static bool
fits (const struct pool_snapshot *s, const struct pool_grant *grant, const uint32_t *donors, uint32_t n) {
  const struct pool_borrower *b = &s->borrowers[grant->borrower];
  const uint64_t has = held_by (s, grant->borrower, false), tenant_has = held_by (s, grant->borrower, true),
                 wanted = grant->blocks * n;
  uint64_t quota = 0;

  for (uint32_t t = 0; t < s->n_tenants; t++)
    quota = s->tenants[t].id == b->tenant ? s->tenants[t].quota : quota;
  if ((b->quota != POOL_UNLIMITED && has + wanted > b->quota) || (quota != POOL_UNLIMITED && tenant_has + wanted > quota))
    return false;
  if (s->is_frozen || (s->hosts[b->host].has_pressure && rules_lent (s, grant->tier, b->host) > 0))
    return false;
  for (uint32_t d = 0; d < n; d++)
    if (!rules_allow (s, grant->borrower, donors[d], n > 1 ? donors[1 - d] : POOL_NOBODY)
        || pool_set_has (&grant->refused, donors[d])
        || rules_lent (s, grant->tier, donors[d]) + grant->blocks > rules_limit (s, grant->tier, donors[d]))
      return false;
  return true;
}

/* The same with the pool's: the blocks are put there, and what is left is looked at. */
static bool
is_allowed (struct random_pool *random, const struct pool_grant *grant, const uint32_t *donors, uint32_t n) {
  struct pool_snapshot *s = &random->snapshot;
  uint64_t lent = 0, free = 0;
  bool is_good;

  if (!fits (s, grant, donors, n))
    return false;
  s->extents = random->extents;
  random->extents[s->n_extents++] = (struct pool_extent){ .borrower = grant->borrower,
                                                          .tier = grant->tier,
                                                          .n_donors = n,
                                                          .donors = { donors[0], n > 1 ? donors[1] : 0 },
                                                          .blocks = grant->blocks };
  for (uint32_t h = 0; h < s->n_hosts; h++) {
    const struct pool_host *host = &s->hosts[h];
    const uint64_t has = rules_lent (s, grant->tier, h), limit = rules_limit (s, grant->tier, h);

    lent += has;
    if (host->is_up && !host->is_frozen && !host->is_draining && !host->has_pressure && limit > has)
      free += limit - has;
  }
  is_good = rules_missing (s, grant->tier) == 0 && free >= (lent + free) / 16 * (2 - s->borrowers[grant->borrower].priority);
  s->n_extents--;
  return is_good;
}

static void
test_random (void) {
  g_autoptr (GRand) rand = testing_rand ();
  unsigned whys[POOL_CALL_LAST + 1] = { 0 };

  for (unsigned n = testing_steps (3000); n; n--) {
    struct random_pool *random = random_pool_new (rand, testing_once_in (rand, 2) ? &many : &shape);
    struct pool_snapshot *s = &random->snapshot;
    const struct pool_grant grant = random_grant (rand, s);
    const uint32_t copies = copies_wanted_donors (s->borrowers[grant.borrower].mode);
    struct pool_choice choice, again;
    bool is_any = false;
    struct pool pool;

    s->is_frozen = testing_once_in (rand, 40);
    random_pool_open (random, &pool);
    pool_place (&pool, &grant, &choice);
    pool_place (&pool, &grant, &again);
    g_assert_cmpmem (&choice, sizeof choice, &again, sizeof again);
    whys[choice.reason.why]++;
    g_assert_cmpuint (choice.n_donors, <=, copies);
    for (uint32_t a = 0; a < s->n_hosts; a++) {
      const enum pool_why why = pool_why_host (&pool, &grant, a, POOL_NOBODY).why;

      g_assert_true ((why == POOL_YES)
                     == (rules_allow (s, grant.borrower, a, POOL_NOBODY) && !pool_set_has (&grant.refused, a)
                         && rules_lent (s, grant.tier, a) + grant.blocks <= rules_limit (s, grant.tier, a)));
      if (copies == 1)
        is_any |= is_allowed (random, &grant, &a, 1);
      for (uint32_t b = a + 1; copies == 2 && b < s->n_hosts; b++)
        is_any |= is_allowed (random, &grant, (uint32_t[]){ a, b }, 2);
    }
    if (choice.n_donors) {
      g_assert_true (is_allowed (random, &grant, choice.donors, choice.n_donors));
      g_assert_true (choice.reason.why >= POOL_TWO && choice.reason.why <= POOL_SAME);
    } else
      g_assert_true (choice.reason.why > POOL_YES && choice.reason.why <= POOL_NO_DONOR);
    g_assert_true (is_any == (choice.n_donors == copies)); /* refused only where nothing would do */
    pool_close (&pool);
    random_pool_free (random);
  }
  for (unsigned why = 0; why <= POOL_SAME; why++)
    if (whys[why])
      g_test_message ("%s: %u", pool_why_name (why), whys[why]);
  for (unsigned why = POOL_NO_FROZEN; why <= POOL_SAME && testing_steps (3000) == 3000; why++)
    if (why != POOL_NO_SENSE && why != POOL_NO_MODE && why != POOL_NO_PRIORITY && (why <= POOL_NO_DONOR || why >= POOL_TWO))
      g_assert_cmpuint (whys[why], >, 0); /* each has been seen */
}

/* Ten equal hosts, each block placed by what was heard before: even, and by far more so than by one choice. */
static void
test_spread (void) {
  g_autoptr (GRand) rand = testing_rand ();
  struct random_pool *random = random_pool_new (
      rand,
      &(struct random_shape){ .hosts = 4, .borrowers = 1, .extents = 0, .blocks = 10, .extent_blocks = 1, .is_plain = true });
  struct pool_snapshot *s = &random->snapshot;
  uint64_t most = 0, fewest = UINT64_MAX;

  s->n_hosts = 11;
  s->n_copysets = 0;
  for (uint32_t h = 0; h < s->n_hosts; h++) {
    random->hosts[h] = (struct pool_host){ .name = { 'h', (char)('a' + h) }, .domain = h, .is_up = true };
    random->hosts[h].lending[POOL_SHARED] = (struct pool_lending){ .capacity = 1000, .wanted = 1000 };
  }
  random->borrowers[0].host = 10;
  random->borrowers[0].mode = COPIES_SSD;
  random->borrowers[0].quota = random->tenants[0].quota = POOL_UNLIMITED;
  random->borrowers[0].tenant = random->tenants[0].id;
  random->borrowers[0].priority = POOL_HIGH;
  s->n_borrowers = 1;
  for (unsigned i = 0; i < 1000; i++) {
    const struct pool_grant grant = { .blocks = 1, .seed = g_rand_int (rand) };
    struct pool_choice choice;
    struct pool pool;

    random_pool_open (random, &pool);
    pool_place (&pool, &grant, &choice);
    g_assert_cmpuint (choice.n_donors, ==, 1);
    pool_close (&pool);
    if (i < 10) /* the first one has something */
      random->extents[s->n_extents++] = (struct pool_extent){ .n_donors = 1, .donors = { choice.donors[0] }, .blocks = 1 };
    else {
      uint32_t e = 0;

      while (e < s->n_extents && s->extents[e].donors[0] != choice.donors[0])
        e++;
      random->extents[e]
          = (struct pool_extent){ .n_donors = 1, .donors = { choice.donors[0] }, .blocks = random->extents[e].blocks + 1 };
      s->n_extents += e == s->n_extents;
    }
  }
  for (uint32_t h = 0; h < 10; h++) {
    most = MAX (most, rules_lent (s, POOL_SHARED, h));
    fewest = MIN (fewest, rules_lent (s, POOL_SHARED, h));
  }
  g_test_message ("1000 blocks on 10 hosts: %u to %u", (unsigned)fewest, (unsigned)most);
  g_assert_cmpuint (most, <=, 106); /* by one choice about 120 */
  random_pool_free (random);
}

/* Twenty hosts of which each lends 88 of 100: the last eighth is for others than those of low priority, the last sixteenth for
 * those of high priority alone; and nobody gets what would be needed if a donor died. */
static void
test_priority (void) {
  static const struct {
    enum pool_priority priority;
    uint64_t lent;
    enum pool_why why;
  } cases[] = {
    { POOL_LOW, 86, POOL_TWO },    { POOL_LOW, 88, POOL_NO_PRIORITY },
    { POOL_NORMAL, 88, POOL_TWO }, { POOL_NORMAL, 94, POOL_NO_PRIORITY },
    { POOL_HIGH, 94, POOL_TWO },   { POOL_HIGH, 95, POOL_NO_HEADROOM },
  };

  for (unsigned i = 0; i < G_N_ELEMENTS (cases); i++) {
    static struct pool_host hosts[21];
    struct pool_tenant tenant = { .quota = POOL_UNLIMITED };
    struct pool_borrower borrower = { .host = 20, .quota = POOL_UNLIMITED, .priority = cases[i].priority };
    struct pool_extent extents[20];
    const struct pool_snapshot s = { .n_hosts = 21,
                                     .n_tenants = 1,
                                     .n_borrowers = 1,
                                     .n_extents = 20,
                                     .hosts = hosts,
                                     .tenants = &tenant,
                                     .borrowers = &borrower,
                                     .extents = extents };
    char text[POOL_REASON_BYTES];
    struct pool_refusal refusal;
    struct pool_choice choice;
    struct pool pool;

    memset (&borrower.donors, 0xff, sizeof borrower.donors);
    for (uint32_t h = 0; h < 21; h++) {
      hosts[h] = (struct pool_host){ .name = { 'h', (char)('a' + h) }, .domain = h, .is_up = true };
      hosts[h].lending[POOL_SHARED] = (struct pool_lending){ .capacity = h < 20 ? 100 : 0, .wanted = 100 };
      if (h < 20)
        extents[h] = (struct pool_extent){ .n_donors = 1, .donors = { h }, .blocks = cases[i].lent };
    }
    g_assert_true (pool_open (&pool, &s, &refusal));
    pool_place (&pool, &(struct pool_grant){ .blocks = 2, .seed = i }, &choice);
    g_assert_cmpstr (pool_why_name (choice.reason.why), ==, pool_why_name (cases[i].why));
    if (cases[i].why == POOL_NO_PRIORITY && cases[i].priority == POOL_LOW)
      g_assert_cmpstr (pool_reason_text (&s, &choice.reason, text), ==,
                       "238 blocks would be left, and the last 250 are for borrowers of higher priority");
    pool_close (&pool);
  }
}

static void
test_admit (void) {
  struct pool_own own = { .lending = { .capacity = 100, .wanted = 90, .reserved = 10 }, .lent = 50 };
  struct pool_reason reason = pool_admit (&own, 3, 30);

  g_assert_cmpint (reason.why, ==, POOL_YES);
  reason = pool_admit (&own, 3, 31);
  g_assert_cmpint (reason.why, ==, POOL_ADMIT_LESS);
  g_assert_cmpuint (reason.n[0], ==, 30);
  own.lent = 81;
  g_assert_cmpint (pool_admit (&own, 3, 1).why, ==, POOL_NOT_ROOM);
  own = (struct pool_own){ .lending = { .capacity = 5, .wanted = UINT64_MAX, .reserved = 6 } };
  g_assert_cmpint (pool_admit (&own, 3, UINT64_MAX).why, ==, POOL_NOT_ROOM);
  own = (struct pool_own){ .lending = { .capacity = 5, .wanted = 5 }, .has_pressure = true };
  g_assert_cmpint (pool_admit (&own, 3, 1).why, ==, POOL_NOT_PRESSED);
  own.is_draining = true;
  g_assert_cmpint (pool_admit (&own, 3, 1).why, ==, POOL_NOT_DRAINED);
  own.is_frozen = true;
  g_assert_cmpint (pool_admit (&own, 3, 1).why, ==, POOL_NOT_FROZEN);
}

/* Requests that can't be. */
static void
test_senseless (void) {
  g_autoptr (GRand) rand = testing_rand ();
  struct random_pool *random = random_pool_new (rand, &shape);
  const struct pool_grant bad[] = { { .blocks = 0 },
                                    { .blocks = POOL_BLOCKS_MAX + 1 },
                                    { .blocks = UINT64_MAX },
                                    { .blocks = 1, .borrower = POOL_NOBODY },
                                    { .blocks = 1, .tier = POOL_TIERS } };
  struct pool_choice choice;
  struct pool pool;

  random->borrowers[0].mode = COPIES_STORAGE;
  random_pool_open (random, &pool);
  for (unsigned i = 0; i < G_N_ELEMENTS (bad); i++) {
    pool_place (&pool, &bad[i], &choice);
    g_assert_cmpuint (choice.n_donors, ==, 0);
    g_assert_cmpint (choice.reason.why, ==, POOL_NO_SENSE);
  }
  pool_place (&pool, &(struct pool_grant){ .blocks = 1 }, &choice);
  g_assert_cmpuint (choice.n_donors, ==, 0);
  g_assert_cmpint (choice.reason.why, ==, POOL_NO_MODE);
  pool_close (&pool);
  random_pool_free (random);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/pool-placement/random", test_random);
  g_test_add_func ("/pool-placement/spread", test_spread);
  g_test_add_func ("/pool-placement/priority", test_priority);
  g_test_add_func ("/pool-placement/admit", test_admit);
  g_test_add_func ("/pool-placement/senseless", test_senseless);
  return g_test_run ();
}
