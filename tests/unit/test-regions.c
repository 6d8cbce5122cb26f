/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Region allocation against a model that is nothing but one byte per block. */
#include "core/regions.h"

#include <string.h>

#include "testing.h"

#define BLOCKS_MAX 2048u
#define RUNS_MAX 40u

struct model {
  struct regions regions;
  uint8_t granted[BLOCKS_MAX];
};

static uint64_t
model_usable (const struct model *model) {
  const uint64_t size = model->regions.region_blocks;

  return (model->regions.n_blocks / size - 1) * size;
}

static void
model_init (struct model *model, uint64_t blocks, uint32_t region_blocks) {
  memset (model, 0, sizeof *model);
  g_assert_true (regions_init (&model->regions, blocks, region_blocks));
}

static uint64_t
count_granted (const struct model *model, uint64_t start, uint64_t count) {
  uint64_t granted = 0;

  for (uint64_t i = start; i < start + count; i++)
    granted += model->granted[i];
  return granted;
}

/* Everything that can be asked says what the model says. */
static void
check (const struct model *model) {
  const struct regions *regions = &model->regions;
  const uint64_t usable = model_usable (model), size = regions->region_blocks;
  uint64_t opened = 0;

  g_assert_cmpuint (regions->usable_blocks, ==, usable);
  g_assert_cmpuint (regions->n_regions, ==, usable / size);
  g_assert_cmpuint (regions->granted, ==, count_granted (model, 0, regions->n_blocks));
  for (unsigned want = 0; want < 2; want++) {
    uint64_t cursor = 0, expected = 0;
    struct block_run run;

    while (regions_next_run (regions, want, &cursor, &run)) {
      while (expected < regions->n_blocks && model->granted[expected] != want)
        expected++;
      g_assert_cmpuint (run.start, ==, expected);
      while (expected < regions->n_blocks && model->granted[expected] == want)
        expected++;
      g_assert_cmpuint (run.start + run.count, ==, expected);
      g_assert_cmpuint (cursor, ==, expected);
    }
    while (expected < regions->n_blocks)
      g_assert_cmpuint (model->granted[expected++], !=, want);
  }
  for (uint64_t r = 0; r < usable / size; r++)
    opened += count_granted (model, r * size, size) ? size : 0;
  g_assert_cmpuint (regions_fragmentation (regions), ==, opened ? (opened - regions->granted) * 1000 / opened : 0);
}

static bool
model_change (struct model *model, uint64_t start, uint64_t count, bool take) {
  const uint64_t usable = model_usable (model);

  if (count == 0 || start >= usable || count > usable - start)
    return false;
  if (count_granted (model, start, count) != (take ? 0 : count))
    return false;
  memset (model->granted + start, take, count);
  return true;
}

static void
change (struct model *model, uint64_t start, uint64_t count, bool take) {
  const bool expected = model_change (model, start, count, take);

  g_assert_cmpint ((take ? regions_take : regions_give) (&model->regions, start, count), ==, expected);
}

/* Chooses, and checks the choice against what the header promises. Returns the number of runs. */
static unsigned
choose (const struct model *model, uint64_t blocks, uint64_t area_start, uint64_t area_blocks, unsigned flags, unsigned max_runs,
        struct block_run *runs) {
  const uint64_t usable = model_usable (model), size = model->regions.region_blocks;
  const bool whole = flags & REGIONS_WHOLE;
  const uint64_t first = area_blocks ? MIN (area_start, usable) : 0;
  const uint64_t end = area_blocks ? MIN (area_start + area_blocks, usable) : usable;
  const uint64_t wanted = whole ? blocks / size * size : blocks;
  uint8_t chosen[BLOCKS_MAX] = { 0 };
  uint64_t found, sum = 0, free_blocks = 0;
  unsigned n_runs = 12345;
  bool empty_opened = false, partial_left = false;

  found = regions_choose (&model->regions, blocks, area_start, area_blocks, flags, runs, max_runs, &n_runs);
  g_assert_cmpuint (n_runs, <=, max_runs);
  for (unsigned i = 0; i < n_runs; i++) {
    g_assert_cmpuint (runs[i].count, >, 0);
    sum += runs[i].count;
    for (uint64_t b = runs[i].start; b < runs[i].start + runs[i].count; b++) {
      g_assert_cmpuint (b, >=, first);
      g_assert_cmpuint (b, <, end);
      g_assert_false (model->granted[b]);
      g_assert_false (chosen[b]);
      if (!whole && !area_blocks) {
        /* partly granted regions first: after the first block of an empty one, no other comes */
        const bool empty = count_granted (model, b / size * size, size) == 0;

        g_assert_true (empty || !empty_opened);
        empty_opened = empty;
      }
      chosen[b] = 1;
    }
  }
  g_assert_cmpuint (sum, ==, found);
  g_assert_cmpuint (found, <=, wanted);

  /* What could have been chosen: enough is chosen unless there is no more of it, or no more room for runs. */
  for (uint64_t r = 0; r < usable / size; r++) {
    const uint64_t low = MAX (first, r * size), high = MIN (end, (r + 1) * size);
    uint64_t here = 0, free_here = 0;

    if (low >= high || (whole && (high - low < size || count_granted (model, low, size))))
      continue;
    for (uint64_t b = low; b < high; b++) {
      if (model->granted[b])
        continue;
      free_here++;
      here += chosen[b];
      if (chosen[b]) /* the lowest of its region: all free ones before it are chosen, too */
        for (uint64_t k = low; k < b; k++)
          g_assert_true (model->granted[k] || chosen[k]);
    }
    if (whole)
      g_assert_true (here == 0 || here == size);
    free_blocks += free_here;
    partial_left = partial_left || (free_here < size && here < free_here);
  }
  if (!whole && !area_blocks)
    g_assert_false (empty_opened && partial_left);
  if (n_runs < max_runs)
    g_assert_cmpuint (found, ==, whole ? MIN (wanted, free_blocks) : MIN (blocks, free_blocks));
  return n_runs;
}

/* ---- rules, one by one ---- */

static void
test_last_region (void) {
  struct model model;
  struct block_run runs[RUNS_MAX];

  model_init (&model, 1024, 64);
  g_assert_cmpuint (model.regions.usable_blocks, ==, 960);
  change (&model, 0, 960, true);
  g_assert_cmpuint (choose (&model, 1, 0, 0, 0, RUNS_MAX, runs), ==, 0);
  g_assert_cmpuint (choose (&model, 1, 960, 64, 0, RUNS_MAX, runs), ==, 0);
  g_assert_false (regions_take (&model.regions, 960, 1));
  g_assert_false (regions_take (&model.regions, 1023, 1));
  check (&model);
  regions_clear (&model.regions);
}

static void
test_init_limits (void) {
  static const struct {
    uint64_t blocks;
    uint32_t region;
    bool good;
  } cases[] = {
    { 1024, 512, true },   { 1024, 1024, false }, { 1024, 0, false },    { 1024, 3, false },
    { 1024, 63, false },   { 1024, 1, true },     { 2, 1, true },        { 1, 1, false },
    { 8192, 1024, true },  { 8192, 2048, false }, { 8192, UINT32_MAX, false }, { 127, 64, false },
    { 128, 64, true },     { 1000, 64, true },
  };

  for (size_t i = 0; i < G_N_ELEMENTS (cases); i++) {
    struct regions regions;

    g_test_message ("case %zu", i);
    g_assert_cmpint (regions_init (&regions, cases[i].blocks, cases[i].region), ==, cases[i].good);
    if (cases[i].good)
      regions_clear (&regions);
  }
}

static void
test_reset (void) {
  struct model model;

  model_init (&model, 1024, 64);
  change (&model, 100, 200, true);
  /* refused: nothing changes */
  g_assert_false (regions_reset (&model.regions, 1024));
  g_assert_false (regions_reset (&model.regions, 48));
  check (&model);
  for (uint32_t size = 1; size <= 512; size *= 2) {
    g_assert_true (regions_reset (&model.regions, size));
    memset (model.granted, 0, sizeof model.granted);
    check (&model);
    change (&model, 0, model.regions.usable_blocks, true);
    check (&model);
  }
  regions_clear (&model.regions);
}

static void
test_partly_granted_first (void) {
  struct model model;
  struct block_run runs[RUNS_MAX];

  model_init (&model, 1024, 64);
  /* one block used in region 7, all others empty: 63 blocks fit there, the 64th opens region 0 */
  change (&model, 7 * 64 + 10, 1, true);
  g_assert_cmpuint (choose (&model, 63, 0, 0, 0, RUNS_MAX, runs), ==, 2);
  g_assert_cmpuint (runs[0].start, ==, 7 * 64);
  g_assert_cmpuint (runs[0].count, ==, 10);
  g_assert_cmpuint (runs[1].start, ==, 7 * 64 + 11);
  g_assert_cmpuint (runs[1].count, ==, 53);
  g_assert_cmpuint (choose (&model, 64, 0, 0, 0, RUNS_MAX, runs), ==, 3);
  g_assert_cmpuint (runs[2].start, ==, 0);
  g_assert_cmpuint (runs[2].count, ==, 1);
  regions_clear (&model.regions);
}

static void
test_address_order_at_first (void) {
  struct model model;
  struct block_run runs[RUNS_MAX];

  model_init (&model, 1024, 64);
  g_assert_cmpuint (choose (&model, 200, 0, 0, 0, RUNS_MAX, runs), ==, 1);
  g_assert_cmpuint (runs[0].start, ==, 0);
  g_assert_cmpuint (runs[0].count, ==, 200);
  /* … and the region freed last is taken first later */
  change (&model, 0, 256, true);
  change (&model, 64, 64, false);
  g_assert_cmpuint (choose (&model, 64, 0, 0, 0, RUNS_MAX, runs), ==, 1);
  g_assert_cmpuint (runs[0].start, ==, 64);
  regions_clear (&model.regions);
}

static void
test_whole (void) {
  struct model model;
  struct block_run runs[RUNS_MAX];

  model_init (&model, 1024, 64);
  change (&model, 70, 1, true); /* region 1 is not whole */
  g_assert_cmpuint (choose (&model, 63, 0, 0, REGIONS_WHOLE, RUNS_MAX, runs), ==, 0);
  g_assert_cmpuint (choose (&model, 64, 64, 64, REGIONS_WHOLE, RUNS_MAX, runs), ==, 0);
  g_assert_cmpuint (choose (&model, 127, 0, 0, REGIONS_WHOLE, RUNS_MAX, runs), ==, 1);
  g_assert_cmpuint (runs[0].count, ==, 64);
  g_assert_cmpuint (choose (&model, 192, 0, 0, REGIONS_WHOLE, RUNS_MAX, runs), ==, 2);
  /* an area that cuts a region on either side has only what lies between */
  g_assert_cmpuint (choose (&model, 960, 129, 190, REGIONS_WHOLE, RUNS_MAX, runs), ==, 1);
  g_assert_cmpuint (runs[0].start, ==, 192);
  g_assert_cmpuint (runs[0].count, ==, 64);
  g_assert_cmpuint (choose (&model, 960, 129, 126, REGIONS_WHOLE, RUNS_MAX, runs), ==, 0);
  regions_clear (&model.regions);
}

static void
test_run_limit (void) {
  struct model model;
  struct block_run runs[RUNS_MAX];

  model_init (&model, 1024, 64);
  for (uint64_t b = 0; b < 64; b += 2) /* every other block: 32 runs of one */
    change (&model, b, 1, true);
  g_assert_cmpuint (choose (&model, 20, 0, 64, 0, 5, runs), ==, 5);
  g_assert_cmpuint (runs[4].start, ==, 9);
  g_assert_cmpuint (choose (&model, 3, 0, 64, 0, 5, runs), ==, 3);
  g_assert_cmpuint (choose (&model, 20, 0, 0, 0, 1, runs), ==, 1);
  g_assert_cmpuint (choose (&model, 20, 0, 0, 0, 0, runs), ==, 0);
  g_assert_cmpuint (choose (&model, 0, 0, 0, 0, 5, runs), ==, 0);
  regions_clear (&model.regions);
}

static void
test_areas_at_the_edge (void) {
  struct model model;
  struct block_run runs[RUNS_MAX];
  static const struct {
    uint64_t start, blocks, expected;
  } cases[] = {
    { 0, 1, 1 },        { 959, 1, 1 },       { 959, 2, 1 },     { 960, 1, 0 },
    { 0, 1024, 960 },   { 1, 1023, 959 },    { 1023, 1, 0 },    { 500, UINT64_MAX, 460 },
    { 1, UINT64_MAX, 959 }, { UINT64_MAX, 1, 0 }, { UINT64_MAX, UINT64_MAX, 0 },
  };

  model_init (&model, 1024, 64);
  for (size_t i = 0; i < G_N_ELEMENTS (cases); i++) {
    unsigned n_runs;

    g_test_message ("case %zu", i);
    g_assert_cmpuint (regions_choose (&model.regions, 1024, cases[i].start, cases[i].blocks, 0, runs, RUNS_MAX, &n_runs), ==,
                      cases[i].expected);
    g_assert_cmpuint (n_runs, ==, cases[i].expected ? 1 : 0);
  }
  regions_clear (&model.regions);
}

static void
test_take_and_give_are_whole_or_nothing (void) {
  struct model model;

  model_init (&model, 1024, 64);
  change (&model, 10, 5, true);
  change (&model, 0, 11, true);   /* ends in it */
  change (&model, 14, 10, true);  /* begins in it */
  change (&model, 5, 20, true);   /* holds it */
  change (&model, 9, 2, false);
  change (&model, 14, 2, false);
  change (&model, 10, 0, true);
  change (&model, 10, 0, false);
  change (&model, 959, 2, true);
  change (&model, UINT64_MAX, 1, true);
  change (&model, UINT64_MAX, 2, true); /* wraps to block 0 */
  change (&model, 1, UINT64_MAX, true);
  change (&model, 11, UINT64_MAX, false);
  check (&model);
  g_assert_cmpuint (model.regions.granted, ==, 5);
  regions_clear (&model.regions);
}

static void
test_counting (void) {
  struct model model;
  const struct regions *regions = &model.regions;

  model_init (&model, 1024, 64);
  change (&model, 62, 4, true); /* over the border of two words and two regions */
  change (&model, 128, 64, true);
  change (&model, 300, 1, true);
  for (uint64_t start = 0; start < 1024; start++)
    for (uint64_t count = 0; count <= 200; count++)
      g_assert_cmpuint (regions_count (regions, start, count), ==, count_granted (&model, start, MIN (count, 1024 - start)));
  g_assert_cmpuint (regions_count (regions, 0, 1024), ==, 69);
  g_assert_cmpuint (regions_count (regions, 0, UINT64_MAX), ==, 69);
  g_assert_cmpuint (regions_count (regions, 63, UINT64_MAX), ==, 68);
  g_assert_cmpuint (regions_count (regions, 1024, 1), ==, 0);
  g_assert_cmpuint (regions_count (regions, UINT64_MAX, 2), ==, 0);
  g_assert_cmpuint (regions_count (regions, UINT64_MAX, UINT64_MAX), ==, 0);
  regions_clear (&model.regions);
}

static void
test_cursor (void) {
  struct model model;
  struct block_run run;
  uint64_t cursor = 0;

  model_init (&model, 1024, 64);
  change (&model, 100, 100, true);
  cursor = 150; /* from the middle of a run */
  g_assert_true (regions_next_run (&model.regions, true, &cursor, &run));
  g_assert_cmpuint (run.start, ==, 150);
  g_assert_cmpuint (run.count, ==, 50);
  g_assert_false (regions_next_run (&model.regions, true, &cursor, &run));
  g_assert_cmpuint (cursor, ==, 200);
  /* ungranted runs reach to the end of the window, with the region that is never granted */
  g_assert_true (regions_next_run (&model.regions, false, &cursor, &run));
  g_assert_cmpuint (run.start, ==, 200);
  g_assert_cmpuint (run.count, ==, 824);
  g_assert_false (regions_next_run (&model.regions, false, &cursor, &run));
  cursor = 5000;
  g_assert_false (regions_next_run (&model.regions, false, &cursor, &run));
  regions_clear (&model.regions);
}

/* ---- anything, in any order ---- */

static void
random_step (struct model *model, GRand *rand, unsigned step) {
  const uint64_t blocks = model->regions.n_blocks;
  struct block_run runs[RUNS_MAX];
  uint64_t start = testing_below (rand, blocks), count = 1 + testing_below (rand, testing_once_in (rand, 4) ? blocks - start : 20);
  unsigned n_runs;

  switch (testing_below (rand, 12)) {
  case 0: /* hostile numbers */
    start = testing_edgy (rand);
    count = testing_edgy (rand);
    testing_trace ("step %u: edges %" G_GUINT64_FORMAT " + %" G_GUINT64_FORMAT, step, start, count);
    change (model, start, count, testing_once_in (rand, 2));
    break;
  case 1:
    testing_trace ("step %u: take %" G_GUINT64_FORMAT " + %" G_GUINT64_FORMAT, step, start, count);
    change (model, start, count, true);
    break;
  case 2: /* a run that cannot fail, now and then a long one */
  case 3:
  case 4: {
    uint64_t cursor = testing_once_in (rand, 4) ? 0 : start;
    struct block_run run;

    if (!regions_next_run (&model->regions, true, &cursor, &run))
      break;
    if (testing_once_in (rand, 2))
      run.count = 1 + testing_below (rand, run.count);
    testing_trace ("step %u: give %" G_GUINT64_FORMAT " + %" G_GUINT64_FORMAT, step, run.start, run.count);
    change (model, run.start, run.count, false);
    break;
  }
  case 5:
    testing_trace ("step %u: give %" G_GUINT64_FORMAT " + %" G_GUINT64_FORMAT, step, start, count);
    change (model, start, count, false);
    break;
  case 6:
    if (testing_once_in (rand, 60)) {
      const uint32_t size = 1u << testing_below (rand, 8);

      testing_trace ("step %u: reset to regions of %u", step, size);
      if (regions_reset (&model->regions, size))
        memset (model->granted, 0, sizeof model->granted);
      else
        g_assert_cmpuint (blocks / size, <, 2);
    }
    break;
  default: {
    const bool area = testing_once_in (rand, 2);
    const unsigned flags = testing_once_in (rand, 3) ? REGIONS_WHOLE : 0;
    const unsigned max = testing_once_in (rand, 3) ? 1 + (unsigned)testing_below (rand, 3) : RUNS_MAX;
    const uint64_t wanted = 1 + testing_below (rand, testing_once_in (rand, 3) ? blocks : 30);

    testing_trace ("step %u: choose %" G_GUINT64_FORMAT ", area %" G_GUINT64_FORMAT " + %" G_GUINT64_FORMAT ", flags %u, %u runs",
                   step, wanted, area ? start : 0, area ? count : 0, flags, max);
    n_runs = choose (model, wanted, area ? start : 0, area ? count : 0, flags, max, runs);
    if (testing_once_in (rand, 5))
      break; /* a choice alone changes nothing */
    for (unsigned i = 0; i < n_runs; i++)
      change (model, runs[i].start, runs[i].count, true);
    break;
  }
  }
  check (model);
}

static void
test_random (void) {
  g_autoptr (GRand) rand = testing_rand ();
  static const uint64_t sizes[] = { 2, 63, 64, 65, 128, 200, 512, 1000, BLOCKS_MAX };

  for (size_t i = 0; i < G_N_ELEMENTS (sizes); i++) {
    struct model *model = g_new (struct model, 1);
    uint32_t region = 1u << testing_below (rand, 7);

    while (sizes[i] / region < 2)
      region /= 2;
    testing_trace ("window of %" G_GUINT64_FORMAT ", regions of %u", sizes[i], region);
    model_init (model, sizes[i], region);
    for (unsigned step = 0, steps = testing_steps (5000); step < steps; step++)
      random_step (model, rand, step);
    regions_clear (&model->regions);
    g_free (model);
  }
}

/* Bits of one window loaded into another: all that can be asked is the same. */
static void
test_load (void) {
  struct model model, loaded;
  GRand *rand = testing_rand ();

  for (unsigned i = 0, steps = testing_steps (300); i < steps; i++) {
    const uint32_t size = 1u << testing_below (rand, 10);
    uint64_t usable;

    model_init (&model, 1024, size);
    model_init (&loaded, 1024, 1u << testing_below (rand, 10));
    g_assert_true (regions_take (&loaded.regions, 0, 1)); /* what was there before goes */
    usable = model_usable (&model);
    for (unsigned k = 0; k < 30; k++) {
      const uint64_t start = testing_below (rand, usable), count = 1 + testing_below (rand, MIN (usable - start, 100));

      if (regions_take (&model.regions, start, count))
        memset (model.granted + start, 1, count);
    }
    g_assert_true (regions_bits_fit (1024, size, model.regions.bits));
    g_assert_true (regions_load (&loaded.regions, size, model.regions.bits));
    memcpy (loaded.granted, model.granted, sizeof loaded.granted);
    check (&loaded);
    for (uint64_t block = 0; block < usable; block++) /* and so is all that can be done */
      g_assert_cmpint (regions_give (&loaded.regions, block, 1), ==, model.granted[block]);
    memset (loaded.granted, 0, sizeof loaded.granted);
    check (&loaded);
    regions_clear (&model.regions);
    regions_clear (&loaded.regions);
  }
  g_rand_free (rand);
}

static void
test_bits_fit (void) {
  uint64_t bits[1024 / 64] = { 0 };

  g_assert_true (regions_bits_fit (1024, 64, bits));
  g_assert_true (regions_bits_fit (1024, 512, bits));
  g_assert_false (regions_bits_fit (1024, 1024, bits)); /* one region, which is the last */
  g_assert_false (regions_bits_fit (1024, 0, bits));
  g_assert_false (regions_bits_fit (1024, 96, bits));
  g_assert_false (regions_bits_fit (4096, 2048, NULL));
  g_assert_true (regions_bits_fit (4096, 1024, NULL));
  regions_bits_assign (bits, 959, 1, true); /* the last usable one of sections of 64 */
  g_assert_true (regions_bits_fit (1024, 64, bits));
  g_assert_false (regions_bits_fit (1024, 128, bits));
  regions_bits_assign (bits, 1023, 1, true);
  g_assert_false (regions_bits_fit (1024, 64, bits));
  g_assert_true (regions_bits_fit (1024, 64, NULL));
  regions_bits_assign (bits, 960, 64, false);
  g_assert_true (regions_bits_fit (1024, 64, bits));
  regions_bits_assign (bits, 960, 1, true);
  g_assert_false (regions_bits_fit (1024, 64, bits));
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/regions/the last region is never granted", test_last_region);
  g_test_add_func ("/regions/a window has at least two regions and their size is a power of two", test_init_limits);
  g_test_add_func ("/regions/a reset forgets all grants and a refused one changes nothing", test_reset);
  g_test_add_func ("/regions/partly granted regions are filled before an empty one is opened", test_partly_granted_first);
  g_test_add_func ("/regions/empty regions are opened in address order at first", test_address_order_at_first);
  g_test_add_func ("/regions/whole regions are wholly free ones only", test_whole);
  g_test_add_func ("/regions/a choice ends where its runs do", test_run_limit);
  g_test_add_func ("/regions/areas beyond the window hold nothing more", test_areas_at_the_edge);
  g_test_add_func ("/regions/a run is taken and given wholly or not at all", test_take_and_give_are_whole_or_nothing);
  g_test_add_func ("/regions/counting is right over borders", test_counting);
  g_test_add_func ("/regions/the cursor walks over all runs", test_cursor);
  g_test_add_func ("/regions/loaded bits are what they were", test_load);
  g_test_add_func ("/regions/bits that fit no window are told", test_bits_fit);
  g_test_add_func ("/regions/any operations in any order agree with one byte per block", test_random);
  return g_test_run ();
}
