/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What is no snapshot of a pool, the sums of what is one, copysets, and the sentences of reasons. */
#include "pool-random.h"

#include <string.h>

static const struct random_shape shape
    = { .hosts = 12, .borrowers = 10, .extents = 40, .blocks = 500, .extent_blocks = 60, .pairs = 50 };

static void
refused (const struct pool_snapshot *s, enum pool_fault fault, const char *what, uint32_t index) {
  struct pool_refusal refusal;
  struct pool pool;

  g_assert_false (pool_open (&pool, s, &refusal));
  g_assert_cmpstr (pool_fault_text (refusal.fault), ==, pool_fault_text (fault));
  g_assert_cmpint (refusal.fault, ==, fault);
  g_assert_cmpstr (refusal.what, ==, what);
  g_assert_cmpuint (refusal.index, ==, index);
}

/* Two hosts, two VMs, one extent; each test breaks one thing. */
struct few {
  struct pool_host hosts[2];
  struct pool_tenant tenants[2];
  struct pool_borrower borrowers[2];
  struct pool_extent extents[2];
  struct pool_copyset copysets[1];
  struct pool_snapshot s;
};

static void
make_few (struct few *few) {
  memset (few, 0, sizeof *few);
  for (uint32_t i = 0; i < 2; i++) {
    few->hosts[i] = (struct pool_host){ .name = { 'a', (char)('0' + i) }, .domain = i, .is_up = true };
    few->hosts[i].lending[POOL_SHARED] = (struct pool_lending){ .capacity = 100, .wanted = 80 };
    few->tenants[i] = (struct pool_tenant){ .id = i + 5, .quota = 1000 };
    few->borrowers[i] = (struct pool_borrower){ .id = i + 70, .host = i, .tenant = 5, .quota = 1000 };
    few->extents[i] = (struct pool_extent){ .borrower = 0, .n_donors = 1, .donors = { 1 }, .blocks = 10 };
  }
  few->copysets[0] = (struct pool_copyset){ { 0, 1 } };
  few->s = (struct pool_snapshot){ .n_hosts = 2,
                                   .n_tenants = 2,
                                   .n_borrowers = 2,
                                   .n_extents = 2,
                                   .n_copysets = 1,
                                   .hosts = few->hosts,
                                   .tenants = few->tenants,
                                   .borrowers = few->borrowers,
                                   .extents = few->extents,
                                   .copysets = few->copysets };
}

#define BROKEN(change, fault, what, index)                                                                                     \
  do {                                                                                                                         \
    make_few (few);                                                                                                            \
    change;                                                                                                                    \
    refused (&few->s, fault, what, index);                                                                                     \
  } while (0)

static void
test_refused (void) {
  g_autofree struct few *few = g_new0 (struct few, 1);
  struct pool_refusal refusal;
  struct pool pool;

  make_few (few);
  g_assert_true (pool_open (&pool, &few->s, &refusal));
  g_assert_cmpuint (pool.sums[POOL_SHARED][1].lent, ==, 20);
  g_assert_cmpuint (pool.sums[POOL_SHARED][1].free, ==, 60);
  g_assert_cmpuint (pool.borrowed[0], ==, 20);
  pool_close (&pool);
  BROKEN (few->s.n_hosts = 0, POOL_EMPTY, "pool", 0);
  BROKEN (few->s.n_hosts = POOL_HOSTS_MAX + 1, POOL_TOO_MANY, "hosts", POOL_HOSTS_MAX + 1);
  BROKEN (few->s.n_extents = POOL_EXTENTS_MAX + 1, POOL_TOO_MANY, "extents", POOL_EXTENTS_MAX + 1);
  BROKEN (few->s.copysets = NULL, POOL_TOO_MANY, "copysets", 1);
  BROKEN (few->hosts[1].name[0] = 0, POOL_HOST_NAME, "host", 1);
  BROKEN (memset (few->hosts[0].name, 'x', POOL_NAME_BYTES), POOL_HOST_NAME, "host", 0);
  BROKEN (few->hosts[1].name[1] = '0', POOL_HOST_TWICE, "host", 1);
  BROKEN (few->hosts[1].lending[1].capacity = POOL_BLOCKS_MAX + 1, POOL_AMOUNT, "host", 1);
  BROKEN (few->hosts[1].lending[0].reserved = 101, POOL_AMOUNT, "host", 1);
  BROKEN (few->hosts[1].lending[0].reserved = 81, POOL_OVERLENT, "host", 1);
  BROKEN (few->tenants[1].id = 5, POOL_TENANT_ORDER, "tenant", 1);
  BROKEN (few->borrowers[1].id = 70, POOL_BORROWER_ORDER, "borrower", 1);
  BROKEN (few->borrowers[1].host = 2, POOL_NO_SUCH_HOST, "borrower", 1);
  BROKEN (few->borrowers[1].tenant = 7, POOL_NO_SUCH_TENANT, "borrower", 1);
  BROKEN (few->borrowers[1].priority = 3, POOL_VALUE, "borrower", 1);
  BROKEN (few->borrowers[1].mode = 3, POOL_VALUE, "borrower", 1);
  BROKEN (few->extents[1].borrower = 2, POOL_NO_SUCH_BORROWER, "extent", 1);
  BROKEN (few->extents[1].tier = POOL_TIERS, POOL_VALUE, "extent", 1);
  BROKEN (few->extents[1].n_donors = 0, POOL_VALUE, "extent", 1);
  BROKEN (few->extents[1].n_donors = 3, POOL_VALUE, "extent", 1);
  BROKEN (few->extents[1].blocks = 0, POOL_AMOUNT, "extent", 1);
  BROKEN (few->extents[1].blocks = UINT64_MAX - 5, POOL_AMOUNT, "extent", 1); /* the sum would overflow */
  BROKEN (few->extents[1].blocks = 91, POOL_OVERLENT, "host", 1);
  BROKEN (few->extents[1].donors[0] = 2, POOL_NO_SUCH_HOST, "extent", 1);
  BROKEN (few->extents[1] = ((struct pool_extent){ .n_donors = 2, .donors = { 1, 1 }, .blocks = 1 }), POOL_DONOR_ORDER,
          "extent", 1);
  BROKEN (few->copysets[0].hosts[1] = 2, POOL_NO_SUCH_HOST, "copyset", 0);
  BROKEN (few->hosts[1].domain = 0, POOL_COPYSET_DOMAIN, "copyset", 0);
}

static void
test_find (void) {
  g_autofree struct few *few = g_new0 (struct few, 1);

  make_few (few);
  g_assert_cmpuint (pool_find_host (&few->s, "a1"), ==, 1);
  g_assert_cmpuint (pool_find_host (&few->s, "a2"), ==, POOL_NOBODY);
  g_assert_cmpuint (pool_find_borrower (&few->s, 71), ==, 1);
  g_assert_cmpuint (pool_find_borrower (&few->s, 69), ==, POOL_NOBODY);
  g_assert_cmpuint (pool_find_borrower (&few->s, UINT64_MAX), ==, POOL_NOBODY);
  g_assert_cmpuint (pool_find_tenant (&few->s, 6), ==, 1);
  g_assert_cmpuint (pool_find_tenant (&few->s, 7), ==, POOL_NOBODY);
}

/* Sums, limits and headroom are those that a plain reading gives. */
static void
test_sums (void) {
  g_autoptr (GRand) rand = testing_rand ();

  for (unsigned n = testing_steps (500); n; n--) {
    struct random_pool *random = random_pool_new (rand, &shape);
    const struct pool_snapshot *s = &random->snapshot;
    struct pool pool;

    random_pool_open (random, &pool);
    for (unsigned t = 0; t < POOL_TIERS; t++) {
      uint32_t host = POOL_NOBODY;
      const uint64_t missing = pool_headroom_missing (&pool, t, &host);

      g_assert_cmpuint (missing, ==, rules_missing (s, t));
      g_assert_true ((missing == 0) == (host == POOL_NOBODY));
      for (uint32_t h = 0; h < s->n_hosts; h++) {
        g_assert_cmpuint (pool.sums[t][h].lent, ==, rules_lent (s, t, h));
        g_assert_cmpuint (pool.sums[t][h].limit, ==, rules_limit (s, t, h));
        g_assert_cmpuint (pool.sums[t][h].free, <=, pool.sums[t][h].limit);
      }
    }
    for (uint32_t b = 0; b < s->n_borrowers; b++) {
      struct pool_set donors;

      pool_donors_of (&pool, b, &donors);
      for (uint32_t h = 0; h < s->n_hosts; h++)
        g_assert_true (pool_set_has (&donors, h) == rules_allow (s, b, h, POOL_NOBODY));
    }
    pool_close (&pool);
    random_pool_free (random);
  }
}

/* Of 40 hosts in 8 racks each one shares sets with about as many others as it should, of other racks, and nobody is left out.
 */
static void
test_copysets (void) {
  static struct pool_copyset sets[POOL_COPYSETS_MAX], again[POOL_COPYSETS_MAX];
  static struct pool_host hosts[POOL_HOSTS_MAX];
  g_autoptr (GRand) rand = testing_rand ();

  for (uint32_t h = 0; h < POOL_HOSTS_MAX; h++)
    hosts[h].domain = h % 8;
  for (uint32_t scatter = 2; scatter <= 10; scatter++)
    for (uint32_t n = 8; n <= POOL_HOSTS_MAX; n *= 2) {
      const uint32_t wanted = CLAMP (scatter, POOL_SCATTER_MIN, POOL_SCATTER_MAX);
      const uint64_t seed = g_rand_int (rand);
      const uint32_t n_sets = pool_make_copysets (hosts, n, scatter, seed, sets);
      unsigned with[POOL_HOSTS_MAX] = { 0 };

      g_assert_cmpuint (n_sets, <=, n * wanted);
      g_assert_cmpuint (pool_make_copysets (hosts, n, scatter, seed, again), ==, n_sets);
      g_assert_cmpmem (sets, n_sets * sizeof sets[0], again, n_sets * sizeof sets[0]);
      for (uint32_t i = 0; i < n_sets; i++) {
        g_assert_cmpuint (sets[i].hosts[0], <, sets[i].hosts[1]);
        g_assert_cmpuint (sets[i].hosts[1], <, n);
        g_assert_cmpuint (hosts[sets[i].hosts[0]].domain, !=, hosts[sets[i].hosts[1]].domain);
        for (unsigned d = 0; d < 2; d++)
          with[sets[i].hosts[d]]++;
        for (uint32_t j = 0; j < i; j++)
          g_assert_true (memcmp (&sets[i], &sets[j], sizeof sets[i]) != 0);
      }
      for (uint32_t h = 0; h < n; h++) {
        g_assert_cmpuint (with[h], >=, MIN (wanted, n - n / 8 - 1) - (n == 8));
        g_assert_cmpuint (with[h], <=, 2 * wanted + 2);
      }
    }
  /* one rack: there is none */
  for (uint32_t h = 0; h < 8; h++)
    hosts[h].domain = 3;
  g_assert_cmpuint (pool_make_copysets (hosts, 8, 4, 1, sets), ==, 0);
}

/* Each reason makes a sentence, with names and numbers, that fits. */
static void
test_texts (void) {
  g_autofree struct few *few = g_new0 (struct few, 1);
  struct pool_reason reason = { .host = 0, .other = 1, .n = { UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX } };
  char text[POOL_REASON_BYTES];

  make_few (few);
  memset (few->hosts[0].name, 'x', POOL_NAME_BYTES - 1);
  memset (few->hosts[1].name, 'y', POOL_NAME_BYTES - 1);
  for (unsigned why = 0; why <= POOL_CALL_LAST; why++) {
    reason.why = why;
    pool_reason_text (&few->s, &reason, text);
    g_assert_nonnull (pool_why_name (why));
    g_assert_cmpuint (strlen (text), >, 8);
    g_assert_cmpuint (strlen (text), <, POOL_REASON_BYTES - 1); /* nothing was cut off */
    g_assert_null (strchr (text, '%'));
    for (unsigned other = 0; other < why; other++)
      g_assert_cmpstr (pool_why_name (other), !=, pool_why_name (why));
  }
  reason = (struct pool_reason){ .why = POOL_NOT_ROOM, .host = 5, .other = POOL_NOBODY, .n = { 12, 0, 0, 0 } };
  g_assert_cmpstr (pool_reason_text (&few->s, &reason, text), ==, "nobody has room for 0 blocks, not for 12");
  reason.why = 1000;
  g_assert_cmpstr (pool_reason_text (&few->s, &reason, text), ==, "?");
  g_assert_cmpstr (pool_why_name (1000), ==, "?");
}

/* How far from even. */
static void
test_imbalance (void) {
  g_autofree struct few *few = g_new0 (struct few, 1);
  struct pool_refusal refusal;
  struct pool pool;

  make_few (few);
  g_assert_true (pool_open (&pool, &few->s, &refusal));
  g_assert_cmpuint (pool_imbalance (&pool, POOL_SHARED), ==, 1000); /* 20 of 80 and 0 of 80: the mean is 10 */
  g_assert_cmpuint (pool_imbalance (&pool, POOL_REMOTE), ==, 0);
  pool_close (&pool);
  few->hosts[1].is_draining = true;
  g_assert_true (pool_open (&pool, &few->s, &refusal));
  g_assert_cmpuint (pool_imbalance (&pool, POOL_SHARED), ==, UINT32_MAX);
  g_assert_cmpuint (pool.sums[POOL_SHARED][1].free, ==, 0);
  pool_close (&pool);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/pool-snapshot/refused", test_refused);
  g_test_add_func ("/pool-snapshot/find", test_find);
  g_test_add_func ("/pool-snapshot/sums", test_sums);
  g_test_add_func ("/pool-snapshot/copysets", test_copysets);
  g_test_add_func ("/pool-snapshot/texts", test_texts);
  g_test_add_func ("/pool-snapshot/imbalance", test_imbalance);
  return g_test_run ();
}
