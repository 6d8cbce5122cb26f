/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "core/crash-policy.h"

#include <glib.h>

/* The policy after n deaths in a row; returns the last delay. */
static uint32_t
die (struct crash_policy *policy, unsigned n) {
  uint32_t delay = 0;

  while (n--) {
    bool roll_back;

    delay = crash_policy_died (policy, &roll_back);
    g_assert_false (roll_back);
  }
  return delay;
}

static void
three_strikes (void) {
  struct crash_policy policy = { 0 };

  g_assert_cmpuint (die (&policy, 2), ==, 0);
  g_assert_cmpint (policy.mode, ==, KEEPER_MODE_NORMAL);
  crash_policy_good (&policy);
  g_assert_cmpuint (policy.strikes, ==, 0);
  die (&policy, 2);
  g_assert_cmpint (policy.mode, ==, KEEPER_MODE_NORMAL);
  g_assert_cmpuint (die (&policy, 1), ==, 0); /* the busy one is needed at once */
  g_assert_cmpint (policy.mode, ==, KEEPER_MODE_BUSY);
  g_assert_cmpuint (policy.hold_ms, ==, KEEPER_HOLD_FIRST_MS);
}

static void
hold_doubles (void) {
  struct crash_policy policy = { 0 };
  uint32_t expected = KEEPER_HOLD_FIRST_MS;

  die (&policy, KEEPER_STRIKES_MAX);
  for (unsigned i = 0; i < 100; i++) {
    g_assert_cmpuint (policy.hold_ms, ==, expected);
    crash_policy_busy_over (&policy);
    g_assert_cmpint (policy.mode, ==, KEEPER_MODE_NORMAL);
    g_assert_cmpuint (die (&policy, 1), ==, 0);
    g_assert_cmpint (policy.mode, ==, KEEPER_MODE_BUSY);
    expected = MIN (2 * expected, KEEPER_HOLD_MAX_MS);
  }
  crash_policy_busy_over (&policy);
  crash_policy_good (&policy);
  g_assert_cmpuint (policy.strikes, ==, 0);
  die (&policy, KEEPER_STRIKES_MAX);
  g_assert_cmpuint (policy.hold_ms, ==, KEEPER_HOLD_FIRST_MS);
}

/* Deaths in busy mode are tried again ever more slowly, and normal mode is tried, too. */
static void
delays_grow (void) {
  struct crash_policy policy = { 0 };
  uint32_t before = 0;
  unsigned normal = 0;

  die (&policy, KEEPER_STRIKES_MAX);
  for (unsigned i = 0; i < 1000; i++) {
    const enum keeper_mode mode = policy.mode;
    const uint32_t delay = die (&policy, 1);

    g_assert_cmpuint (delay, <=, CRASH_DELAY_MAX_MS);
    if (mode == KEEPER_MODE_NORMAL) {
      normal++;
      before = 0;
    } else {
      g_assert_cmpuint (delay, >, 0);
      g_assert_cmpuint (delay, >=, before);
      before = delay;
    }
  }
  g_assert_cmpuint (normal, >=, 100);
  policy.strikes = UINT32_MAX;
  die (&policy, 1);
  g_assert_cmpuint (policy.strikes, ==, UINT32_MAX);
}

static void
rolls_back_once (void) {
  struct crash_policy policy = { 0 };
  bool roll_back;

  crash_policy_upgraded (&policy);
  die (&policy, 2);
  crash_policy_good (&policy); /* it did something: and dies later */
  die (&policy, 2);
  g_assert_cmpuint (crash_policy_died (&policy, &roll_back), ==, 0);
  g_assert_true (roll_back);
  g_assert_cmpint (policy.mode, ==, KEEPER_MODE_NORMAL);
  g_assert_cmpuint (policy.strikes, ==, 0);
  die (&policy, KEEPER_STRIKES_MAX); /* no second time */
  g_assert_cmpint (policy.mode, ==, KEEPER_MODE_BUSY);
  /* upgraded out of busy mode */
  crash_policy_busy_over (&policy);
  crash_policy_upgraded (&policy);
  g_assert_cmpuint (policy.strikes, ==, 0);
  die (&policy, 2);
  crash_policy_died (&policy, &roll_back);
  g_assert_true (roll_back);
}

int
main (int argc, char **argv) {
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/crash-policy/three-strikes", three_strikes);
  g_test_add_func ("/crash-policy/hold-doubles", hold_doubles);
  g_test_add_func ("/crash-policy/delays-grow", delays_grow);
  g_test_add_func ("/crash-policy/rolls-back-once", rolls_back_once);
  return g_test_run ();
}
