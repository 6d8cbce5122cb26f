/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How much far memory a guest's driver wants to have ready, and how often it asks: guest-driver/domybs-standby.h, outside of a
 * kernel. */
#include "testing.h"

#include <stdbool.h>
#include <stdint.h>

typedef uint64_t u64;
typedef uint32_t u32;
#include "domybs-standby.h"

#define MOST (1ull << 23)

static void
test_level (void) {
  g_assert_cmpuint (domybs_standby_level (32, false, MOST), ==, 32);
  g_assert_cmpuint (domybs_standby_level (32, true, MOST), ==, 128);
  g_assert_cmpuint (domybs_standby_level (0, true, MOST), ==, 0); /* who wants none gets none */
  g_assert_cmpuint (domybs_standby_level (MOST, false, MOST), ==, MOST);
  g_assert_cmpuint (domybs_standby_level (MOST / 4 + 1, true, MOST), ==, MOST);
  g_assert_cmpuint (domybs_standby_level (UINT64_MAX, true, MOST), ==, MOST);
  g_assert_cmpuint (domybs_standby_level (UINT64_MAX / 4 + 1, true, MOST), ==, MOST); /* × 4 wraps to 0 */
}

static void
test_raised (void) {
  g_assert_true (domybs_standby_raised (false, true, 0, 10000)); /* at once */
  g_assert_true (domybs_standby_raised (true, false, 9999, 10000));
  g_assert_false (domybs_standby_raised (true, false, 10000, 10000));
  g_assert_false (domybs_standby_raised (false, false, 0, 10000)); /* calm does not raise it */
  g_assert_true (domybs_standby_raised (true, true, 99999, 10000));
  g_assert_false (domybs_standby_raised (true, false, 0, 0));
}

static void
test_asks (void) {
  struct domybs_standby s = { 0 };

  g_assert_false (domybs_standby_asks (&s, 0, UINT32_MAX, true)); /* nothing is wanted, nothing was asked */
  g_assert_true (domybs_standby_asks (&s, 32, 0, false));
  domybs_standby_answered (&s, 32, DOMYBS_STANDBY_READY, 32);
  g_assert_false (domybs_standby_asks (&s, 32, 29999, true));
  g_assert_true (domybs_standby_asks (&s, 32, 30000, false)); /* in case that all who knew of it have died */
  g_assert_true (domybs_standby_asks (&s, 128, 0, false));
  g_assert_true (domybs_standby_asks (&s, 0, 0, false));
  domybs_standby_answered (&s, 0, DOMYBS_STANDBY_READY, 0);
  g_assert_false (domybs_standby_asks (&s, 0, UINT32_MAX, true));
}

/* Where another level has the same answer, pressure that comes and goes asks no more often than nothing at all. */
static void
test_no_hurry (void) {
  static const enum domybs_standby_state states[] = { DOMYBS_STANDBY_WAITING, DOMYBS_STANDBY_NO_TIER, DOMYBS_STANDBY_UNKNOWN };

  for (unsigned i = 0; i < G_N_ELEMENTS (states); i++) {
    struct domybs_standby s = { 0 };

    domybs_standby_answered (&s, 32, states[i], 0);
    g_assert_false (domybs_standby_asks (&s, 128, s.pause_ms - 1, false));
    g_assert_true (domybs_standby_asks (&s, 128, s.pause_ms, false));
    /* an OFFER is about room: those without the tier, or the request, have none to come */
    g_assert_cmpint (domybs_standby_asks (&s, 32, 0, true), ==, states[i] == DOMYBS_STANDBY_WAITING);
  }
}

static void
test_pauses (void) {
  static const struct {
    enum domybs_standby_state state;
    u32 first, last;
  } cases[] = {
    { DOMYBS_STANDBY_READY, 30000, 30000 },    { DOMYBS_STANDBY_FILLING, 500, 30000 },
    { DOMYBS_STANDBY_SHORT, 1000, 60000 },     { DOMYBS_STANDBY_WAITING, 1000, 60000 },
    { DOMYBS_STANDBY_NO_TIER, 60000, 600000 }, { DOMYBS_STANDBY_UNKNOWN, 3600000, 3600000 },
  };

  for (unsigned i = 0; i < G_N_ELEMENTS (cases); i++) {
    struct domybs_standby s = { 0 };
    u32 before = 0;

    domybs_standby_answered (&s, 32, cases[i].state, 5);
    g_assert_cmpuint (s.pause_ms, ==, cases[i].first);
    for (unsigned n = 0; n < 20; n++) {
      before = s.pause_ms;
      domybs_standby_answered (&s, 32, cases[i].state, 5);
      g_assert_cmpuint (s.pause_ms, >=, before);
      g_assert_cmpuint (s.pause_ms, <=, cases[i].last);
    }
    g_assert_cmpuint (s.pause_ms, ==, cases[i].last);
    domybs_standby_answered (&s, 33, cases[i].state, 5); /* another level: a new question */
    g_assert_cmpuint (s.pause_ms, ==, cases[i].first);
  }
}

/* A guest whose pressure comes and goes at random, and a host in any mood: the level is always one of two, raised while there
 * is pressure and for the calm time after it; and requests stay few. */
static void
test_random (void) {
  g_autoptr (GRand) rand = testing_rand ();
  const unsigned steps = testing_steps (20000);
  struct domybs_standby s = { 0 };
  bool raised = false, pressed = false;
  u64 now = 1000000, pressed_at = 0, asked_at = 0;
  unsigned asked = 0, changes = 0;

  for (unsigned i = 0; i < steps; i++, now += 100) {
    u64 level;

    if (testing_once_in (rand, 40))
      pressed = !pressed;
    if (pressed)
      pressed_at = now;
    raised = domybs_standby_raised (raised, pressed, (u32)(now - pressed_at), 10000);
    g_assert_cmpint (raised, ==, now - pressed_at < 10000);
    level = domybs_standby_level (32, raised, MOST);
    changes += level != s.level;
    if (!domybs_standby_asks (&s, level, (u32)(now - asked_at), testing_once_in (rand, 200)))
      continue;
    asked++;
    asked_at = now;
    domybs_standby_answered (&s, level, (enum domybs_standby_state) (1 + testing_below (rand, DOMYBS_STANDBY_STATES - 1)), 0);
    if (s.state == DOMYBS_STANDBY_UNKNOWN || s.state == DOMYBS_STANDBY_NO_TIER)
      s.state = DOMYBS_STANDBY_READY; /* those would end it */
  }
  g_test_message ("%u requests in %u s", asked, steps / 10);
  g_assert_cmpuint (asked, >, 0);
  g_assert_cmpuint (asked, <, steps / 4);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/standby/four times as much under pressure, and never too much", test_level);
  g_test_add_func ("/standby/raised at once and lowered after a while", test_raised);
  g_test_add_func ("/standby/asks when the level is another and now and then", test_asks);
  g_test_add_func ("/standby/does not ask more often where a level does not matter", test_no_hurry);
  g_test_add_func ("/standby/pauses grow to their limits", test_pauses);
  g_test_add_func ("/standby/any pressure and any host", test_random);
  return g_test_run ();
}
