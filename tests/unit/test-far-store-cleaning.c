/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Cleaning: whatever is overwritten in whatever order, on a disk that is full of pages that can't be packed, writes never find
 * no room as long as their caller cleans when the store says so; and what that costs. Write amplification: pages written to
 * storage for each page that was written by the guest.
 */
#include "far-model.h"
#include "testing.h"

#include <string.h>

#define BLOCKS 64u
#define PAGES (BLOCKS * FAR_BLOCK_PAGES)
#define SLOTS 8u

static void
fill (struct far_model *model, enum far_kind kind) {
  uint32_t pages[FAR_COMMIT_MAX];

  for (uint32_t first = 0; first < PAGES; first += FAR_COMMIT_MAX) {
    for (unsigned i = 0; i < FAR_COMMIT_MAX; i++)
      pages[i] = first + i;
    model_write (model, pages, FAR_COMMIT_MAX, kind);
  }
}

/* The stage goes out as soon as there is something, as far as luck lets it. */
static void
storage_works (struct far_model *model) {
  if (testing_once_in (model->rand, 200))
    (void)model_begin_write (model);
  if (model->n_writes && testing_once_in (model->rand, 200))
    model_end_write (model, 0, true);
}

static double
amplification (struct far_model *model, uint64_t written_before, uint64_t moved_before) {
  const double written = (double)(model->pages_written - written_before), moved = (double)(model->pages_moved - moved_before);

  return (written + moved) / written;
}

/* Overwrites n_writes times `run` pages in a row from a random one on; after a time to settle, returns the write amplification.
 * */
static double
overwrite (struct far_model *model, unsigned n_writes, unsigned run, enum far_kind kind) {
  uint64_t written = 0, moved = 0;

  for (unsigned i = 0; i < n_writes; i++) {
    uint32_t pages[FAR_COMMIT_MAX];
    const uint32_t first = (uint32_t)testing_below (model->rand, PAGES / run) * run;

    if (i == n_writes / 2) {
      written = model->pages_written;
      moved = model->pages_moved;
    }
    for (unsigned k = 0; k < run; k++)
      pages[k] = first + k;
    model_write (model, pages, run, kind);
    storage_works (model);
  }
  return amplification (model, written, moved);
}

static void
check_all (struct far_model *model) {
  model_recount (model);
  model_check_pages (model);
}

/* Limits: those of greedy cleaning are about 1 / (2 × spare / (1 + spare)) for uniform random overwriting (measured here: 21,
 * 7.9, 4.4). */
static void
test_random_overwriting (void) {
  static const struct {
    unsigned permille;
    double at_most;
  } spares[] = { { 20, 60 }, { 60, 12 }, { 120, 6 }, { 250, 3.5 } };

  for (unsigned i = 0; i < G_N_ELEMENTS (spares); i++) {
    struct far_model model;
    double factor;

    model_init (&model, PAGES, spares[i].permille, SLOTS);
    fill (&model, FAR_RAW);
    factor = overwrite (&model, testing_steps (6 * PAGES), 1, FAR_RAW);
    check_all (&model);
    g_test_message ("spare %4.1f %%, single pages at random: %.2f", spares[i].permille / 10.0, factor);
    if (testing_steps (1000) == 1000)
      g_assert_cmpfloat (factor, <, spares[i].at_most);
    model_clear (&model);
  }
}

static void
test_sequential_overwriting (void) {
  struct far_model model;

  model_init (&model, PAGES, 60, SLOTS);
  for (unsigned round = 0; round < 5; round++)
    fill (&model, FAR_RAW);
  check_all (&model);
  g_test_message ("spare 6 %%, one after the other: %.2f", amplification (&model, 0, 0));
  g_assert_cmpfloat (amplification (&model, 0, 0), <, 1.02);
  model_clear (&model);
}

static void
test_clusters (void) {
  struct far_model model;
  double factor;

  model_init (&model, PAGES, 60, SLOTS);
  fill (&model, FAR_RAW);
  factor = overwrite (&model, testing_steps (6 * PAGES / 32), 32, FAR_RAW);
  g_test_message ("spare 6 %%, 32 pages in a row at random: %.2f", factor);
  check_all (&model);
  model_clear (&model);
}

/* Pages of two kinds and all sizes, the worst for what is lost at the ends of segments. */
static void
test_mixed_overwriting (void) {
  for (unsigned permille = 20; permille <= 60; permille += 40) {
    struct far_model model;
    double factor;

    model_init (&model, PAGES, permille, SLOTS);
    fill (&model, FAR_RAW);
    factor = overwrite (&model, testing_steps (3 * PAGES), 1, FAR_PACKED);
    (void)overwrite (&model, testing_steps (PAGES), 2, FAR_NONE);
    (void)overwrite (&model, testing_steps (PAGES / 64), FAR_COMMIT_MAX, FAR_NONE);
    (void)overwrite (&model, testing_steps (2 * PAGES), 1, FAR_RAW);
    fill (&model, FAR_RAW);
    check_all (&model);
    g_test_message ("spare %u %%, packed over raw ones: %.2f", permille / 10, factor);
    model_clear (&model);
  }
}

/* A store that may still grow is not cleaned; one that may not although there are places is. */
static void
test_growth (void) {
  struct far_model model;
  struct far_figures figures;
  uint32_t page;
  bool urgent;

  model_init (&model, PAGES, 60, SLOTS);
  far_store_close (model.store);
  memset (model.state, 0, model.state_bytes);
  far_store_format (model.state, &model.geometry);
  model_open (&model);
  far_store_cover (model.store, 6);
  for (;;) {
    uint32_t pages[2] = { (uint32_t)testing_below (model.rand, PAGES / 4), (uint32_t)testing_below (model.rand, PAGES / 4) };

    far_store_figures (model.store, &figures);
    if (figures.covered > model.geometry.n_places / 2)
      break;
    model_write (&model, pages, 1 + (pages[0] != pages[1]), FAR_RAW);
    storage_works (&model);
    if (figures.free <= FAR_RESERVED_PLACES + 1)
      far_store_cover (model.store, figures.covered + 1);
  }
  g_assert_cmpuint (model.pages_moved, ==, 0);
  page = 0;
  while (model.pages[page].kind != FAR_RAW)
    page++;
  while (model_put (&model, FAR_CLASS_RAW, page))
    do
      page = (page + 1) % (PAGES / 4);
    while (model.pages[page].kind != FAR_RAW);
  g_assert_true (far_store_wants_cleaning (model.store, &urgent));
  g_assert_true (urgent);
  model_keep_clean (&model);
  g_assert_false (far_store_wants_cleaning (model.store, &urgent));
  model_write_out (&model); /* what was moved may take up all of the stage */
  g_assert_true (model_put (&model, FAR_CLASS_RAW, page));
  check_all (&model);
  model_clear (&model);
}

/* Nothing is moved for nothing: a store at rest says so, and moving on its own account ends. */
static void
test_rest (void) {
  struct far_model model;
  uint64_t moved;
  bool urgent;

  model_init (&model, PAGES, 60, SLOTS);
  fill (&model, FAR_RAW);
  (void)overwrite (&model, testing_steps (PAGES), 1, FAR_RAW);
  model_write_out (&model);
  model_keep_clean (&model);
  moved = model.pages_moved;
  g_assert_false (far_store_wants_cleaning (model.store, &urgent));
  while (model_clean (&model))
    g_assert_cmpuint (model.pages_moved - moved, <, 20 * PAGES);
  check_all (&model);
  model_clear (&model);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/far-store-cleaning/single pages at random, the disk full", test_random_overwriting);
  g_test_add_func ("/far-store-cleaning/one page after the other", test_sequential_overwriting);
  g_test_add_func ("/far-store-cleaning/clusters at random", test_clusters);
  g_test_add_func ("/far-store-cleaning/pages of all kinds and sizes", test_mixed_overwriting);
  g_test_add_func ("/far-store-cleaning/growing comes first", test_growth);
  g_test_add_func ("/far-store-cleaning/a store at rest", test_rest);
  return g_test_run ();
}
