/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Who reads in a row: what is found, how soon, how much is asked for, and that others are left alone. */
#include "core/prefetch.h"
#include "testing.h"

#include <string.h>

#define PAGES (1u << 20)
#define AHEAD_MAX 256u

typedef struct {
  struct prefetch prefetch;
  uint8_t *asked; /* pages: how often */
  uint64_t n_asked, n_ranges;
  uint32_t last_stream;
} Rig;

static void
rig_init (Rig *rig) {
  memset (rig, 0, sizeof *rig);
  rig->asked = g_malloc0 (PAGES);
  prefetch_init (&rig->prefetch, PAGES, AHEAD_MAX);
}

/* Returns how many pages were asked for because of it. */
static uint64_t
read_pages (Rig *rig, uint64_t first, uint64_t n) {
  struct prefetch_range ranges[PREFETCH_RANGES_MAX];
  const unsigned n_ranges = prefetch_read (&rig->prefetch, first, n, ranges, PREFETCH_RANGES_MAX);
  uint64_t sum = 0;

  g_assert_cmpuint (n_ranges, <=, PREFETCH_RANGES_MAX);
  for (unsigned i = 0; i < n_ranges; i++) {
    g_assert_cmpuint (ranges[i].n, >, 0);
    g_assert_cmpuint (ranges[i].first, <, PAGES);
    g_assert_cmpuint (ranges[i].n, <=, PAGES - ranges[i].first);
    for (uint32_t k = 0; k < ranges[i].n; k++)
      rig->asked[ranges[i].first + k]++;
    sum += ranges[i].n;
    rig->last_stream = ranges[i].stream;
  }
  rig->n_asked += sum;
  rig->n_ranges += n_ranges;
  return sum;
}

/* How many of [first, + n) were asked for; once at most. */
static uint64_t
count_asked (const Rig *rig, uint64_t first, uint64_t n) {
  uint64_t sum = 0;

  for (uint64_t i = first; i < first + n; i++) {
    g_assert_cmpuint (rig->asked[i], <=, 1);
    sum += rig->asked[i];
  }
  return sum;
}

/* n reads of `pages` each, `step` pages from one to the next: all but the first few were asked for before they came, once, and
 * not more than the window ahead; nothing else was. */
static void
check_stream (uint64_t from, int64_t step, uint32_t pages, unsigned n, unsigned unknown) {
  Rig rig;
  uint64_t wanted = 0, hits = 0;

  rig_init (&rig);
  for (unsigned i = 0; i < n; i++) {
    const uint64_t first = (uint64_t)((int64_t)from + (int64_t)i * step);

    if (i >= unknown)
      g_assert_cmpuint (count_asked (&rig, first, pages), ==, pages);
    hits += count_asked (&rig, first, pages);
    wanted += pages;
    read_pages (&rig, first, pages);
    g_assert_cmpuint (rig.n_asked - hits, <=, MAX (AHEAD_MAX, pages));
  }
  g_assert_cmpuint (hits, ==, wanted - (uint64_t)unknown * pages);
  if (step == (int64_t)pages || step == -(int64_t)pages) /* in a row: several reads' worth at a time */
    g_assert_cmpuint (rig.n_ranges, <, n);
  g_free (rig.asked);
}

static void
test_streams (void) {
  check_stream (5000, 1, 1, 3000, 3);
  check_stream (5000, 8, 8, 3000, 3);
  check_stream (5000, 64, 64, 300, 3);
  check_stream (900000, -1, 1, 3000, 3);
  check_stream (900000, -8, 8, 3000, 3);
}

static void
test_strides (void) {
  static const int64_t strides[] = { 2, 3, 7, 16, 100, 512, 5000, -2, -3, -100, -512 };

  for (unsigned i = 0; i < G_N_ELEMENTS (strides); i++) {
    const unsigned n = 100;
    Rig rig;
    uint64_t hits = 0, first = 300000;

    rig_init (&rig);
    for (unsigned k = 0; k < n; k++, first = (uint64_t)((int64_t)first + strides[i])) {
      hits += count_asked (&rig, first, 1);
      read_pages (&rig, first, 1);
    }
    g_assert_cmpuint (hits, ==, n - 4);
    /* nothing in between */
    for (uint64_t page = 0; page < PAGES; page++)
      if (((int64_t)page - 300000) % strides[i])
        g_assert_cmpuint (rig.asked[page], ==, 0);
    g_free (rig.asked);
  }
  check_stream (5000, 32, 4, 1000, 4);
}

/* Reads that belong to nothing make nothing be read. */
static void
test_random (void) {
  GRand *rand = testing_rand ();
  Rig rig;

  rig_init (&rig);
  for (unsigned i = 0; i < 200000; i++)
    read_pages (&rig, testing_below (rand, PAGES - 8), 1 + testing_below (rand, 8));
  g_test_message ("%" G_GUINT64_FORMAT " pages for 200000 random reads", rig.n_asked);
  g_assert_cmpuint (rig.n_asked, <, 2000);
  g_free (rig.asked);
  g_rand_free (rand);
}

/* Many streams at a time, among reads of no stream, and out of order by a little: they are found all the same. */
static void
test_mixed (void) {
  enum { STREAMS = 8, READS = 20000 };
  GRand *rand = testing_rand ();
  uint64_t at[STREAMS], hits = 0, wanted = 0, held[STREAMS] = { 0 };
  Rig rig;

  rig_init (&rig);
  for (unsigned s = 0; s < STREAMS; s++)
    at[s] = (s + 1) * 100000ull + testing_below (rand, 1000);
  for (unsigned i = 0; i < READS; i++) {
    const unsigned s = (unsigned)testing_below (rand, STREAMS);
    uint64_t first = at[s];

    if (testing_once_in (rand, 3)) { /* not below the streams' own pages */
      read_pages (&rig, testing_below (rand, 90000), 1);
      continue;
    }
    if (held[s]) {
      first = held[s];
      held[s] = 0;
    } else {
      if (testing_once_in (rand, 4)) { /* it is overtaken by the next one */
        held[s] = at[s]++;
        first = at[s];
      }
      at[s]++;
    }
    wanted++;
    hits += rig.asked[first] > 0;
    read_pages (&rig, first, 1);
  }
  g_test_message ("%" G_GUINT64_FORMAT " of %" G_GUINT64_FORMAT " reads of streams were asked for before", hits, wanted);
  g_assert_cmpuint (hits * 100, >, wanted * 97);
  g_free (rig.asked);
  g_rand_free (rand);
}

/* Short rows that end: after some waste, only those are believed that last; and those then bring the credit back. */
static void
test_waste (void) {
  GRand *rand = testing_rand ();
  uint64_t asked;
  Rig rig;

  rig_init (&rig);
  for (unsigned i = 0; i < 1000; i++) {
    const uint64_t first = testing_below (rand, PAGES / 8 - 8) * 8;

    if (i == 500)
      rig.n_asked = 0;
    for (unsigned k = 0; k < 8; k++) {
      const uint64_t before = rig.n_asked;

      read_pages (&rig, first + k, 1);
      if (rig.n_asked != before)
        prefetch_wasted (&rig.prefetch, rig.last_stream, (uint32_t)(rig.n_asked - before));
    }
  }
  g_assert_cmpuint (rig.n_asked, <, 50);
  asked = rig.n_asked;
  for (unsigned k = 0; k < 2000; k++) {
    if (rig.asked[500000 + k])
      prefetch_used (&rig.prefetch, 1);
    read_pages (&rig, 500000 + k, 1);
  }
  g_assert_cmpuint (rig.n_asked, >, asked + 1900);
  g_free (rig.asked);
  g_rand_free (rand);
}

/* A stream whose pages go unused is asked for less and less, then no more. */
static void
test_unused (void) {
  Rig rig;
  uint64_t largest = 0, before;

  rig_init (&rig);
  for (unsigned i = 0; i < 1000; i++) {
    const uint64_t asked = read_pages (&rig, 1000 + i, 1);

    largest = MAX (largest, asked);
  }
  g_assert_cmpuint (largest, >=, AHEAD_MAX / 2);
  g_assert_cmpuint (largest, <=, AHEAD_MAX);
  for (unsigned i = 0; i < 10; i++)
    prefetch_wasted (&rig.prefetch, rig.last_stream, 10);
  before = rig.n_asked;
  read_pages (&rig, 2000, 1);
  g_assert_cmpuint (rig.n_asked - before, <=, 8); /* it is found anew, with the first window */
  g_free (rig.asked);
}

/* Anything at all, also at the disk's ends: always within it, and the same calls have the same answers. */
static void
test_anything (void) {
  GRand *rand = testing_rand ();

  for (unsigned round = 0; round < 200; round++) {
    const uint64_t n_pages = 1 + testing_below (rand, testing_once_in (rand, 2) ? 200 : 1ull << 32);
    const uint32_t most = 1 + (uint32_t)testing_below (rand, 600);
    struct prefetch one, two;
    uint64_t at = testing_below (rand, n_pages);
    int64_t step = 1;

    prefetch_init (&one, n_pages, most);
    prefetch_init (&two, n_pages, most);
    for (unsigned i = 0; i < testing_steps (500); i++) {
      struct prefetch_range ranges[PREFETCH_RANGES_MAX], same[PREFETCH_RANGES_MAX];
      const unsigned max = (unsigned)testing_below (rand, PREFETCH_RANGES_MAX + 1);
      uint64_t n = 1 + testing_below (rand, MIN (n_pages, 70)), sum = 0;
      unsigned n_ranges;

      if (testing_once_in (rand, 8))
        step = (int64_t)testing_below (rand, 41) - 20;
      if (testing_once_in (rand, 8))
        at = testing_below (rand, n_pages);
      at = at + (uint64_t)step < n_pages ? at + (uint64_t)step : testing_below (rand, n_pages);
      n = testing_once_in (rand, 3) ? MIN (n, n_pages - at) : 1;
      n_ranges = prefetch_read (&one, at, n, ranges, max);
      g_assert_cmpuint (prefetch_read (&two, at, n, same, max), ==, n_ranges);
      g_assert_cmpuint (n_ranges, <=, max);
      for (unsigned k = 0; k < n_ranges; k++) {
        g_assert_cmpuint (ranges[k].first, <, n_pages);
        g_assert_cmpuint (ranges[k].n, >, 0);
        g_assert_cmpuint (ranges[k].n, <=, n_pages - ranges[k].first);
        g_assert_cmpuint (ranges[k].first, ==, same[k].first);
        g_assert_cmpuint (ranges[k].n, ==, same[k].n);
        sum += ranges[k].n;
      }
      g_assert_cmpuint (sum, <=, MAX (most, n));
      if (n_ranges && testing_once_in (rand, 4)) {
        prefetch_wasted (&one, ranges[0].stream, ranges[0].n);
        prefetch_wasted (&two, ranges[0].stream, ranges[0].n);
      }
    }
  }
  g_rand_free (rand);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/prefetch/streams", test_streams);
  g_test_add_func ("/prefetch/strides", test_strides);
  g_test_add_func ("/prefetch/random", test_random);
  g_test_add_func ("/prefetch/mixed", test_mixed);
  g_test_add_func ("/prefetch/waste", test_waste);
  g_test_add_func ("/prefetch/unused", test_unused);
  g_test_add_func ("/prefetch/anything", test_anything);
  return g_test_run ();
}
