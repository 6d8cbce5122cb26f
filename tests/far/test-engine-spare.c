/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Giving storage back. Measured by what the file system says of the storage file (st_blocks): after the guest has freed most of
 * its pages, in whole blocks as a swap does or one by one, nearly all of the file comes back while nothing else happens; what
 * the guest was promised stays; and what lives is there, also if the process ends in the middle of it.
 */
#include "engine-rig.h"
#include "far/engine-internal.h"

#include <fcntl.h>
#include <sys/stat.h>

#define PAGES (128 * FAR_BLOCK_PAGES)       /* 256 MiB */
#define LARGE_PAGES (192 * FAR_BLOCK_PAGES) /* what is kept in any case is less than what the test allows */
#define WINDOW_US (200 * 1000)
#define DAY_BYTES (64ull << 20)

static guint64
file_bytes (const Rig *rig) {
  struct stat st;

  g_assert_cmpint (fstat (rig->fd, &st), ==, 0);
  return (guint64)st.st_blocks * 512;
}

static void
begin (Rig *rig, enum blk_operation operation, guint64 first, guint64 n) {
  Op *op = op_new (rig, operation, first, n);

  if (operation == BLK_WRITE)
    fill_random (rig, op->pages, n * FAR_PAGE_BYTES);
  op_begin (op);
}

/* As four processors swap out, each to a cluster of its own: a segment has pages of several blocks. */
static void
fill (Rig *rig) {
  const guint64 streams = 4, each = rig->n_pages / streams;

  for (guint64 page = 0; page < each; page += REQUEST_PAGES_MAX / 2)
    for (guint64 stream = 0; stream < streams; stream++)
      begin (rig, BLK_WRITE, stream * each + page, REQUEST_PAGES_MAX / 2);
  wait_for (rig, 0);
}

static void
init (Rig *rig, guint64 n_pages, guint64 give_back_us) {
  rig_init_pages (rig, n_pages, TRUE, FALSE);
  rig->give_back_us = give_back_us;
  reopen_engine (rig);
}

static gboolean
on_tick (gpointer data) {
  return G_SOURCE_CONTINUE;
}

/* Until the file has at most so many bytes; patiently. FALSE: it has more still. */
static gboolean
wait_for_file (Rig *rig, guint64 bytes) {
  const gint64 end = g_get_monotonic_time () + 60 * G_USEC_PER_SEC;
  GSource *tick = source_timeout (20, on_tick, NULL);

  while (file_bytes (rig) > bytes && g_get_monotonic_time () < end)
    g_main_context_iteration (NULL, TRUE);
  source_clear (&tick);
  if (file_bytes (rig) > bytes) {
    const FarEngineFigures f = rig_figures (rig);

    g_test_message ("%" G_GUINT64_FORMAT " MiB are in the file; %u places covered, %u given back, %u free, %" G_GUINT64_FORMAT
                    " MiB stored, tidying %d, settled %d, slots free %u",
                    file_bytes (rig) >> 20, f.store.covered, f.store.given, f.store.free, f.store.stored_bytes >> 20,
                    rig->engine->tidying, rig->engine->settled, f.store.slots_free);
  }
  return file_bytes (rig) <= bytes;
}

/* Until nothing is left to do. */
static void
wait_until_idle (Rig *rig) {
  const gint64 end = g_get_monotonic_time () + 60 * G_USEC_PER_SEC;
  GSource *tick = source_timeout (20, on_tick, NULL);

  while (rig->engine->spare_source || rig->engine->tidying || rig->engine->cleaner.reading || rig->engine->cleaner.moving) {
    g_assert_cmpint (g_get_monotonic_time (), <, end);
    g_main_context_iteration (NULL, TRUE);
  }
  source_clear (&tick);
  g_assert_true (
      wait_for_file (rig, (guint64)rig_figures (rig).store.covered * FAR_SEGMENT_BYTES + (1 << 20))); /* the last discards */
}

/* Until all that is left to do is to look again in a minute. */
static void
wait_until_it_waits (Rig *rig) {
  const gint64 end = g_get_monotonic_time () + 60 * G_USEC_PER_SEC;
  GSource *tick = source_timeout (20, on_tick, NULL);

  while (!rig->engine->spare_source
         || g_source_get_ready_time (rig->engine->spare_source) < g_get_monotonic_time () + 30 * G_USEC_PER_SEC) {
    g_assert_cmpint (g_get_monotonic_time (), <, end);
    g_main_context_iteration (NULL, TRUE);
  }
  source_clear (&tick);
}

/* Frees so many of a hundred, exactly: any of them. */
static void
free_most (Rig *rig, gboolean by_blocks, guint percent) {
  const guint64 n = by_blocks ? FAR_BLOCK_PAGES : 1, all = rig->n_pages / n;
  guint64 wanted = all * percent / 100;

  for (guint64 i = 0; i < all; i++)
    if (testing_below (rig->rand, all - i) < wanted) {
      begin (rig, BLK_DISCARD, i * n, n);
      wanted--;
    }
  wait_for (rig, 0);
}

static void
test_comes_back (gconstpointer data) {
  const gboolean by_blocks = GPOINTER_TO_INT (data);
  guint64 full, after;
  gint64 began;
  FarEngineFigures f;
  Rig rig;

  init (&rig, LARGE_PAGES, WINDOW_US);
  fill (&rig);
  wait_until_idle (&rig);
  full = file_bytes (&rig);
  g_assert_cmpuint (full, >=, LARGE_PAGES * FAR_PAGE_BYTES - SLOTS * FAR_SEGMENT_BYTES);
  g_assert_cmpuint (rig_figures (&rig).given_back_places, ==, 0); /* it is all in use */
  free_most (&rig, by_blocks, 90);
  began = g_get_monotonic_time ();
  if (!wait_for_file (&rig, full / 5))
    g_error ("%" G_GUINT64_FORMAT " MiB of %" G_GUINT64_FORMAT " are in the file still", file_bytes (&rig) >> 20, full >> 20);
  g_test_message ("%" G_GUINT64_FORMAT " MiB came back to %" G_GUINT64_FORMAT " within %.2f s", full >> 20,
                  file_bytes (&rig) >> 20, (double)(g_get_monotonic_time () - began) / G_USEC_PER_SEC);
  wait_until_idle (&rig);
  f = rig_figures (&rig);
  after = file_bytes (&rig);
  g_test_message ("then %" G_GUINT64_FORMAT " MiB; %u places covered, %u given back, %u free, %" G_GUINT64_FORMAT
                  " pages moved",
                  after >> 20, f.store.covered, f.store.given, f.store.free, f.cleaned_pages);
  g_assert_cmpuint (after, <=, (guint64)f.store.covered * FAR_SEGMENT_BYTES + (1 << 20));
  g_assert_cmpuint (f.cleaned_pages, <=, LARGE_PAGES / 4); /* none was moved in vain */
  read_all (&rig);

  /* it is wanted again */
  fill (&rig);
  read_all (&rig);
  g_assert_cmpuint (file_bytes (&rig), >=, full);
  f = rig_figures (&rig);
  g_assert_cmpuint (f.refused + f.damaged, ==, 0);
  rig_clear (&rig);
}

/* The process ends at any time; its successor goes on where it was. */
static void
test_over_deaths (void) {
  Rig rig;

  init (&rig, PAGES, WINDOW_US / 10);
  for (guint round = 0; round < 2; round++) {
    fill (&rig);
    free_most (&rig, round & 1, 90);
    for (guint death = 0; death < 10; death++) {
      const guint turns = (guint)testing_below (rig.rand, 60);

      for (guint i = 0; i < turns; i++)
        g_main_context_iteration (NULL, FALSE);
      if (testing_once_in (rig.rand, 4))
        g_usleep (WINDOW_US / 10);
      reopen_engine (&rig);
    }
    g_assert_true (wait_for_file (&rig, PAGES * FAR_PAGE_BYTES * 3 / 10));
    read_all (&rig);
  }
  rig_clear (&rig);
}

/* It died between taking places out of use and telling storage: storage is told again. */
static void
test_told_again (void) {
  struct far_places places;
  guint64 before;
  uint32_t given = 0;
  Rig rig;

  init (&rig, PAGES, 0);
  fill (&rig);
  free_most (&rig, TRUE, 100);
  before = file_bytes (&rig);
  while (far_store_give_back (rig.engine->store, 5, &places))
    given += places.n;
  g_assert_cmpuint (given, >=, 110);
  reopen_engine (&rig);
  for (guint i = 0; i < 100; i++)
    g_main_context_iteration (NULL, FALSE);
  g_assert_cmpuint (file_bytes (&rig), ==, before); /* it is not to give back */
  rig.give_back_us = WINDOW_US;
  reopen_engine (&rig);
  g_assert_true (wait_for_file (&rig, before - (guint64)given * FAR_SEGMENT_BYTES));
  rig_clear (&rig);
}

/* What the guest was promised can be written without one more place being backed. */
static void
test_promised (void) {
  const guint64 level = 50;
  FarEngineFigures f;
  guint64 bytes;
  uint32_t covered;
  Rig rig;

  init (&rig, PAGES, WINDOW_US);
  far_engine_set_level (rig.engine, level);
  fill (&rig);
  free_most (&rig, TRUE, 100);
  g_assert_true (wait_for_file (&rig, PAGES * FAR_PAGE_BYTES * 3 / 4));
  wait_until_idle (&rig);
  f = rig_figures (&rig);
  covered = f.store.covered;
  bytes = file_bytes (&rig);
  g_assert_cmpuint (covered, >=, level + 3);
  g_assert_cmpuint (bytes, >=, (guint64)covered * FAR_SEGMENT_BYTES); /* really */
  for (guint64 page = 0; page < level * FAR_BLOCK_PAGES; page += REQUEST_PAGES_MAX)
    begin (&rig, BLK_WRITE, page, REQUEST_PAGES_MAX);
  wait_for (&rig, 0);
  f = rig_figures (&rig);
  g_assert_cmpuint (f.store.covered, ==, covered);
  g_assert_cmpuint (file_bytes (&rig), ==, bytes);
  read_all (&rig);
  rig_clear (&rig);
}

/* With a wear budget, tidying does not take what the guest's own pages may need. */
static void
test_budget (void) {
  FarEngineFigures f;
  Rig rig;

  rig_init_pages (&rig, PAGES / 2, TRUE, FALSE);
  rig.give_back_us = WINDOW_US;
  rig.wear_day_bytes = DAY_BYTES;
  reopen_engine (&rig);
  far_engine_hurry (rig.engine, TRUE);
  fill (&rig); /* the burst is used up */
  far_engine_hurry (rig.engine, FALSE);
  free_most (&rig, TRUE, 50);
  free_most (&rig, FALSE, 90);
  wait_until_it_waits (&rig);
  f = rig_figures (&rig);
  g_assert_cmpuint (f.cleaned_pages, ==, 0);
  rig.wear_day_bytes = 0;
  reopen_engine (&rig);
  g_assert_true (wait_for_file (&rig, PAGES / 2 * FAR_PAGE_BYTES / 3));
  g_assert_cmpuint (rig_figures (&rig).cleaned_pages, >, 0);
  read_all (&rig);
  rig_clear (&rig);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_data_func ("/engine-spare/comes back/blocks", GINT_TO_POINTER (TRUE), test_comes_back);
  g_test_add_data_func ("/engine-spare/comes back/pages", GINT_TO_POINTER (FALSE), test_comes_back);
  g_test_add_func ("/engine-spare/over deaths", test_over_deaths);
  g_test_add_func ("/engine-spare/told again", test_told_again);
  g_test_add_func ("/engine-spare/what was promised stays", test_promised);
  g_test_add_func ("/engine-spare/wear budget", test_budget);
  return g_test_run ();
}
