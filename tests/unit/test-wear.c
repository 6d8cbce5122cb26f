/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The wear budget: over any 24 hours no more than the day's bytes, and what is promised for later is there then. */
#include "core/wear.h"
#include "testing.h"

#define SEGMENT (2u << 20)
#define HOUR_US (WEAR_DAY_US / 24)

static void
test_full (void) {
  const uint64_t day = 100ull << 30, burst = wear_burst_bytes (day);
  uint64_t full_at = 0, now = 5 * HOUR_US, spent = 0;

  g_assert_cmpuint (burst, ==, day / 8);
  g_assert_cmpuint (wear_left (day, full_at, now), >, burst - 100000);
  g_assert_cmpuint (wear_left (day, full_at, now), <=, burst);
  while (wear_wait_us (day, full_at, now, SEGMENT) == 0) {
    full_at = wear_spend (day, full_at, now, SEGMENT);
    spent += SEGMENT;
    g_assert_cmpuint (spent, <=, burst);
  }
  g_assert_cmpuint (spent, >, burst - 2 * SEGMENT);
  g_assert_cmpuint (wear_left (day, full_at, now), <, 2 * SEGMENT);
  /* what flows in, flows at seven eighths of the day's bytes a day; what nobody takes is there up to the burst */
  g_assert_cmpuint (wear_left (day, full_at, now + HOUR_US), >, day * 7 / 8 / 24 - SEGMENT);
  g_assert_cmpuint (wear_left (day, full_at, now + HOUR_US), <, day * 7 / 8 / 24 + 2 * SEGMENT);
  g_assert_cmpuint (wear_left (day, full_at, now + 3 * HOUR_US), <, burst);
  g_assert_cmpuint (wear_left (day, full_at, now + 4 * HOUR_US), >, burst - 100000);
  g_assert_cmpuint (wear_left (day, full_at, now + 400 * HOUR_US), <=, burst);
}

static void
test_debt (void) {
  const uint64_t day = 1ull << 30, now = WEAR_DAY_US;
  uint64_t full_at = 0, wait;

  for (unsigned i = 0; i < 128; i++) /* 256 MiB, twice the burst */
    full_at = wear_spend (day, full_at, now, SEGMENT);
  g_assert_cmpuint (wear_left (day, full_at, now), ==, 0);
  wait = wear_wait_us (day, full_at, now, SEGMENT);
  g_assert_cmpuint (wait, >, 3 * HOUR_US);
  g_assert_cmpuint (wait, <, 4 * HOUR_US);
  /* nobody owes more than a day */
  for (unsigned i = 0; i < 10000; i++)
    full_at = wear_spend (day, full_at, now, SEGMENT);
  g_assert_cmpuint (wear_wait_us (day, full_at, now, SEGMENT), <, WEAR_DAY_US + HOUR_US);
  g_assert_cmpuint (wear_wait_us (day, UINT64_MAX, now, SEGMENT), <, WEAR_DAY_US + HOUR_US);
  g_assert_cmpuint (wear_left (day, UINT64_MAX, now), ==, 0);
}

/* Somebody who writes as soon as it may, and somebody who writes now and then: in no window of 24 hours is it more than the
 * day's bytes. */
static void
test_any_day (void) {
  GRand *rand = testing_rand ();

  for (unsigned round = 0; round < 40; round++) {
    const uint64_t day = WEAR_DAY_BYTES_MIN << testing_below (rand, 12), step = 1 + testing_below (rand, 200);
    const bool greedy = round & 1;
    g_autoptr (GArray) times = g_array_new (FALSE, FALSE, sizeof (uint64_t)),
                       sums = g_array_new (FALSE, FALSE, sizeof (uint64_t));
    uint64_t full_at = 0, now = testing_below (rand, 1ull << 50), sum = 0;
    guint from = 0;

    for (unsigned i = 0; i < testing_steps (4000); i++) {
      const uint32_t bytes = (uint32_t)(1 + testing_below (rand, SEGMENT / 4096)) * 4096;
      const uint64_t wait = wear_wait_us (day, full_at, now, bytes);

      if (wait) {
        g_assert_cmpuint (wear_wait_us (day, full_at, now + wait, bytes), <=, 1);
        now += greedy ? wait + 1 : testing_below (rand, 2 * wait);
        continue;
      }
      g_assert_cmpuint (wear_left (day, full_at, now) + 200000, >=, bytes);
      full_at = wear_spend (day, full_at, now, bytes);
      sum += bytes;
      g_array_append_val (times, now);
      g_array_append_val (sums, sum);
      while (g_array_index (times, uint64_t, from) + WEAR_DAY_US <= now)
        from++;
      g_assert_cmpuint (sum - (from ? g_array_index (sums, uint64_t, from - 1) : 0), <=, day);
      now += greedy ? 0 : testing_below (rand, step * 60000000);
    }
  }
  g_rand_free (rand);
}

/* The largest and the smallest budget, and all times: nothing overflows, and time only helps. */
static void
test_edges (void) {
  GRand *rand = testing_rand ();

  for (unsigned i = 0; i < testing_steps (200000); i++) {
    const uint64_t day = WEAR_DAY_BYTES_MIN << testing_below (rand, 35), now = testing_edgy (rand) >> 1;
    const uint64_t full_at = testing_edgy (rand), later = now + testing_edgy (rand) % (2 * WEAR_DAY_US);
    const uint32_t bytes = 1 + (uint32_t)testing_below (rand, 64u << 20);
    const uint64_t after = wear_spend (day, full_at, now, bytes);

    g_assert_cmpuint (day, <=, WEAR_DAY_BYTES_MAX);
    g_assert_cmpuint (wear_left (day, full_at, now), <=, wear_burst_bytes (day));
    g_assert_cmpuint (wear_left (day, full_at, later), >=, wear_left (day, full_at, now));
    g_assert_cmpuint (wear_wait_us (day, full_at, later, bytes), <=, wear_wait_us (day, full_at, now, bytes));
    g_assert_cmpuint (wear_left (day, after, now), <=, wear_left (day, full_at, now));
    g_assert_cmpuint (after, >, now);
  }
  g_rand_free (rand);
}

/* The same, but what there is not is not owed: afterwards a byte has to be waited for no longer than one takes to flow in. What
 * was owed before stays. */
static void
test_no_debt (void) {
  GRand *rand = testing_rand ();

  for (unsigned i = 0; i < testing_steps (100000); i++) {
    const uint64_t day = WEAR_DAY_BYTES_MIN << testing_below (rand, 20), now = WEAR_DAY_US * 10;
    const uint64_t full_at = now - WEAR_DAY_US + testing_below (rand, 2 * WEAR_DAY_US);
    const uint32_t bytes = 1 + (uint32_t)testing_below (rand, 64u << 20);
    const uint64_t after = wear_spend_left (day, full_at, now, bytes), owing = wear_spend (day, full_at, now, bytes);

    g_assert_cmpuint (after, >=, full_at);
    g_assert_cmpuint (after, <=, owing);
    if (wear_left (day, owing, now) > 0)
      g_assert_cmpuint (after, ==, owing);
    else if (wear_left (day, full_at, now) > 0)
      g_assert_cmpuint (wear_wait_us (day, after, now, 1), <=, 1 + WEAR_DAY_US * 8 / 7 / day);
    else
      g_assert_cmpuint (after, ==, full_at);
  }
  g_rand_free (rand);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/wear/full", test_full);
  g_test_add_func ("/wear/debt", test_debt);
  g_test_add_func ("/wear/any-day", test_any_day);
  g_test_add_func ("/wear/edges", test_edges);
  g_test_add_func ("/wear/no-debt", test_no_debt);
  return g_test_run ();
}
