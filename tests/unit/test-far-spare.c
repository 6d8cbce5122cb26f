/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which free places are given back, and when: never what was promised, never what goes up and down, all else within two
 * windows. */
#include "core/far-level.h"
#include "core/far-spare.h"
#include "testing.h"

#define WINDOW 10000000ull
#define PLACES 600u

/* A disk that uses `used` places, all others being covered. */
static struct far_figures
figures_of (uint32_t covered, uint32_t used) {
  return (struct far_figures){ .places = PLACES,
                               .covered = covered,
                               .free = covered - used,
                               .given = PLACES - covered,
                               .blocks_in_use = used,
                               .stored_bytes = (uint64_t)used * FAR_SEGMENT_BYTES };
}

static void
test_promise (void) {
  g_autoptr (GRand) rand = testing_rand ();
  struct far_spare spare = { .window_us = WINDOW };
  uint32_t covered = PLACES, used = 0, fewest = covered;
  uint64_t now = 1, level = 0, n_blocks = 500;
  unsigned given = 0;

  for (unsigned i = 0; i < 200000; i++) {
    struct far_figures f = figures_of (covered, used);
    const uint64_t before = MIN (far_level_ready (&f, n_blocks), level);
    const uint32_t keep = far_spare_keep (&f, level), n = far_spare_give (&spare, &f, fewest, level, now);

    g_assert_cmpuint (n, <=, fewest);
    if (n) {
      g_assert_cmpuint (n, >=, FAR_SPARE_LEAST);
      g_assert_cmpuint (f.free - n, >=, keep);
      g_assert_cmpuint (keep, >=, 3 + MIN (level, PLACES - 3)); /* those of cleaning */
      covered -= n;
      given++;
    }
    f = figures_of (covered, used);
    g_assert_cmpuint (far_level_ready (&f, n_blocks), >=, before);
    if (testing_once_in (rand, 50))
      level = testing_below (rand, 4) * testing_below (rand, 60);
    while (far_level_wants_more (&f, n_blocks, level)) {
      f = figures_of (++covered, used);
      far_spare_regret (&spare, now);
    }
    if (testing_once_in (rand, 8)) /* up or down */
      used = (uint32_t)testing_below (rand, 450);
    if (covered < used + 3) {
      covered = used + 3;
      far_spare_regret (&spare, now);
    }
    fewest = covered - used;
    if (testing_once_in (rand, 10)) /* there were fewer in between */
      fewest = (uint32_t)testing_below (rand, fewest + 1);
    now += testing_below (rand, WINDOW / 2);
    g_assert_cmpuint (spare.windows, <=, FAR_SPARE_WINDOWS_MAX);
  }
  g_test_message ("given back %u times", given);
  g_assert_cmpuint (given, >, 100);
}

/* All that is too much is gone after a window, if there was nothing else; and somebody asks again until then. */
static void
test_soon (void) {
  struct far_spare spare = { .window_us = WINDOW };
  uint32_t covered = PLACES, used = 30, keep;
  struct far_figures f = figures_of (covered, used);
  uint64_t now = 12345;

  keep = far_spare_keep (&f, 20);
  g_assert_cmpuint (keep, <, 50);
  g_assert_cmpuint (far_spare_wait_us (&spare, now), ==, 0);
  g_assert_cmpuint (far_spare_give (&spare, &f, 0, 20, now), ==, 0); /* none were free an instant ago */
  g_assert_cmpuint (far_spare_wait_us (&spare, now), ==, WINDOW);
  now += WINDOW - 1;
  g_assert_cmpuint (far_spare_give (&spare, &f, f.free, 20, now), ==, 0);
  g_assert_cmpuint (far_spare_wait_us (&spare, now), ==, 1);
  now++;
  g_assert_cmpuint (far_spare_give (&spare, &f, f.free, 20, now), ==, f.free - keep);
  f = figures_of (used + keep, used);
  g_assert_cmpuint (far_spare_give (&spare, &f, f.free, 20, now), ==, 0);
  g_assert_cmpuint (far_spare_wait_us (&spare, now), ==, 0); /* nobody wakes up for nothing */

  /* what became free in the middle of a window is gone after the next one */
  spare = (struct far_spare){ .window_us = WINDOW };
  f = figures_of (PLACES, 400);
  far_spare_give (&spare, &f, f.free, 0, now);
  f = figures_of (PLACES, 100);
  now += WINDOW;
  covered = PLACES - far_spare_give (&spare, &f, PLACES - 400, 0, now);
  g_assert_cmpuint (covered, >, 400);
  g_assert_cmpuint (covered, <, 450);
  f = figures_of (covered, 100);
  now += far_spare_wait_us (&spare, now);
  covered -= far_spare_give (&spare, &f, f.free, 0, now);
  g_assert_cmpuint (covered, <, 150);

  spare = (struct far_spare){ .window_us = 0 };
  f = figures_of (PLACES, 0);
  for (unsigned i = 0; i < 10; i++)
    g_assert_cmpuint (far_spare_give (&spare, &f, f.free, 0, now += WINDOW), ==, 0);
  g_assert_cmpuint (far_spare_wait_us (&spare, now), ==, 0);
  f.stored_bytes = 0;
  f.free = 0;
  g_assert_false (far_spare_wants_tidying (&spare, &f));
}

/* So many times are places given back by a guest that needs 400 places for half of each period, and 100 for the other half. */
static unsigned
up_and_down (uint64_t period, unsigned periods) {
  struct far_spare spare = { .window_us = WINDOW };
  uint32_t covered = 420;
  uint64_t now = 1;
  unsigned given = 0;

  for (unsigned i = 0; i < periods; i++)
    for (unsigned part = 0; part < 16; part++, now += period / 16) {
      const uint32_t used = part < 8 ? 400 : 100;
      struct far_figures f;
      uint32_t n;

      if (used + 3 > covered) {
        covered = used + 20;
        far_spare_regret (&spare, now);
      }
      f = figures_of (covered, used);
      n = far_spare_give (&spare, &f, part == 8 ? covered - 400 : f.free, 0, now);
      covered -= n;
      given += n > 0;
    }
  return given;
}

static void
test_hysteresis (void) {
  const unsigned fast = up_and_down (WINDOW * 3 / 2, 1000), slow = up_and_down (WINDOW * 6, 1000),
                 slowest = up_and_down (WINDOW * 100, 100);

  g_test_message ("given back: %u, %u, %u times", fast, slow, slowest);
  g_assert_cmpuint (fast, ==, 0);
  g_assert_cmpuint (slow, <=, 10);     /* some tries, and longer windows then */
  g_assert_cmpuint (slowest, >=, 100); /* each time */
}

static void
test_tidying (void) {
  const struct far_spare spare = { .window_us = WINDOW };
  struct far_figures f = figures_of (400, 300);

  g_assert_false (far_spare_wants_tidying (&spare, &f)); /* all is full */
  f.stored_bytes = 300ull * FAR_SEGMENT_BYTES * 9 / 10;
  g_assert_false (far_spare_wants_tidying (&spare, &f));
  f.stored_bytes = 300ull * FAR_SEGMENT_BYTES * 17 / 20;
  g_assert_true (far_spare_wants_tidying (&spare, &f));
  f = figures_of (10, 4);
  f.stored_bytes = FAR_SEGMENT_BYTES;
  g_assert_false (far_spare_wants_tidying (&spare, &f)); /* not for so little */
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/far-spare/what was promised stays", test_promise);
  g_test_add_func ("/far-spare/the rest is given back soon", test_soon);
  g_test_add_func ("/far-spare/what goes up and down stays", test_hysteresis);
  g_test_add_func ("/far-spare/tidying is for large gaps", test_tidying);
  return g_test_run ();
}
