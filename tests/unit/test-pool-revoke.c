/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Revokes in random pools: never more than is wanted or lent, by the rules, in the right order, and as much as there is. */
#include "core/pool-revoke.h"
#include "pool-random.h"

#include <string.h>

static const struct random_shape shape
    = { .hosts = 10, .borrowers = 10, .extents = 40, .blocks = 500, .extent_blocks = 80, .pairs = 50 };

/* Lower: to be called back before. */
static unsigned
rank (const struct pool_snapshot *s, const struct pool_call *call) {
  const struct pool_borrower *b = &s->borrowers[s->extents[call->extent].borrower];

  return (b->has_pressure ? 100 : 0) + (call->to == POOL_NOBODY ? 10 : 0) + b->priority;
}

static void
test_random (void) {
  g_autoptr (GRand) rand = testing_rand ();
  unsigned whys[POOL_CALL_LAST + 1] = { 0 };

  for (unsigned n = testing_steps (3000); n; n--) {
    struct random_pool *random = random_pool_new (rand, &shape);
    struct pool_snapshot *s = &random->snapshot;
    const uint32_t host = (uint32_t)testing_below (rand, s->n_hosts);
    const enum pool_tier tier = testing_below (rand, POOL_TIERS);
    const uint64_t lent = rules_lent (s, tier, host), wanted = testing_below (rand, lent * 5 / 4 + 2);
    const bool is_hard = testing_once_in (rand, 2);
    g_autofree uint64_t *left = g_new0 (uint64_t, s->n_extents + 1);
    uint64_t free[POOL_HOSTS_MAX], back = 0, squeezed = 0;
    struct pool_revoke revoke;
    struct pool pool;

    random_pool_open (random, &pool);
    pool_revoke_make (&pool, host, tier, wanted, is_hard, &revoke);
    g_assert_false (revoke.no_memory);
    for (uint32_t h = 0; h < s->n_hosts; h++)
      free[h] = pool.sums[tier][h].free;
    for (uint32_t e = 0; e < s->n_extents; e++)
      left[e] = s->extents[e].tier == tier ? s->extents[e].blocks : 0;
    for (uint32_t i = 0; i < revoke.n_calls; i++) {
      const struct pool_call *call = &revoke.calls[i];
      const struct pool_extent *e = &s->extents[call->extent];
      const uint32_t other = e->n_donors == 1 ? POOL_NOBODY : e->donors[0] == host ? e->donors[1] : e->donors[0];
      const struct pool_borrower *b = &s->borrowers[e->borrower];
      char text[POOL_REASON_BYTES];

      whys[call->reason.why]++;
      g_assert_true (e->donors[0] == host || (e->n_donors > 1 && e->donors[1] == host));
      g_assert_cmpuint (call->blocks, >, 0);
      g_assert_cmpuint (call->blocks, <=, left[call->extent]);
      left[call->extent] -= call->blocks;
      back += call->blocks;
      if (call->to != POOL_NOBODY) {
        g_assert_cmpint (call->reason.why, ==, POOL_CALL_MOVE);
        g_assert_true (call->to != host && rules_allow (s, e->borrower, call->to, other));
        g_assert_cmpuint (call->blocks, <=, free[call->to]);
        free[call->to] -= call->blocks;
      } else {
        g_assert_cmpint (call->reason.why, ==, b->has_pressure ? POOL_CALL_LAST : POOL_CALL_STORAGE);
        g_assert_true (is_hard || !b->has_pressure);
        /* to storage only if no donor would have had it */
        for (uint32_t h = 0; h < s->n_hosts; h++)
          g_assert_true (h == host || free[h] == 0 || !rules_allow (s, e->borrower, h, other));
      }
      g_assert_true (i == 0 || rank (s, &revoke.calls[i - 1]) <= rank (s, call));
      g_assert_cmpuint (strlen (pool_reason_text (s, &call->reason, text)), >, 10);
    }
    g_assert_cmpuint (back, ==, revoke.blocks);
    g_assert_cmpuint (back, <=, wanted);
    g_assert_cmpuint (back + revoke.missing, ==, wanted);
    for (uint32_t e = 0; e < s->n_extents; e++)
      if (s->borrowers[s->extents[e].borrower].has_pressure && s->extents[e].tier == tier
          && (s->extents[e].donors[0] == host || (s->extents[e].n_donors > 1 && s->extents[e].donors[1] == host)))
        squeezed += s->extents[e].blocks;
    g_assert_cmpuint (back, >=, MIN (wanted, is_hard ? lent : lent - squeezed)); /* it ends, whatever the pool is like */
    pool_revoke_free (&revoke);
    pool_close (&pool);
    random_pool_free (random);
  }
  for (unsigned why = POOL_CALL_MOVE; why <= POOL_CALL_LAST && testing_steps (3000) == 3000; why++)
    g_assert_cmpuint (whys[why], >, 0);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/pool-revoke/random", test_random);
  return g_test_run ();
}
