/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Reading ahead: what is read in a row comes from memory, is never an older version, and a page that is damaged or can't be
 * read is an error for itself only, whoever read it first. */
#include "engine-rig.h"

#include <string.h>
#include <unistd.h>

#define CACHE_BYTES (1u << 20)

/* All pages hold something of their own, nearly all of it in storage. */
static void
fill_disk (Rig *rig) {
  for (guint64 first = 0; first < DISK_PAGES; first += REQUEST_PAGES_MAX) {
    Op *op = op_new (rig, BLK_WRITE, first, REQUEST_PAGES_MAX);

    fill_random (rig, op->pages, REQUEST_PAGES_MAX * FAR_PAGE_BYTES);
    op_begin (op);
  }
  wait_for (rig, 0);
  reopen_engine (rig); /* counters from 0, nothing in memory but the stage */
}

static void
init (Rig *rig, gboolean sealed, gboolean pack) {
  rig_init (rig, sealed, pack);
  rig->prefetch_bytes = CACHE_BYTES;
  fill_disk (rig);
}

/* One after the other. */
static void
read_row (Rig *rig, guint64 from, gint64 step, guint n, guint64 pages) {
  for (guint i = 0; i < n; i++) {
    op_begin (op_new (rig, BLK_READ, (guint64)((gint64)from + (gint64)i * step), pages));
    wait_for (rig, 0);
  }
}

static void
check_used (Rig *rig, guint64 wanted) {
  const FarEngineFigures f = rig_figures (rig);

  g_test_message ("%" G_GUINT64_FORMAT " pages read ahead, %" G_GUINT64_FORMAT " used, %" G_GUINT64_FORMAT
                  " wasted; %" G_GUINT64_FORMAT " read from storage in all",
                  f.prefetched_pages, f.prefetch_used_pages, f.prefetch_wasted_pages, f.read_from_storage);
  g_assert_cmpuint (f.prefetch_used_pages * 10, >=, wanted * 9);
  g_assert_cmpuint (f.prefetched_pages, <=, f.prefetch_used_pages + CACHE_BYTES / FAR_PAGE_BYTES);
  g_assert_cmpuint (f.damaged + f.storage_errors + f.refused, ==, 0);
}

static void
test_rows (void) {
  static const struct {
    guint64 from;
    gint64 step;
    guint n, pages;
  } rows[] = { { 0, 1, 1024, 1 },     { 0, 8, 128, 8 }, { 0, 64, 16, 64 },
               { 1023, -1, 1024, 1 }, { 0, 4, 256, 1 }, { 1020, -4, 256, 2 } };

  for (guint i = 0; i < G_N_ELEMENTS (rows); i++) {
    Rig rig;

    init (&rig, TRUE, i & 1);
    read_row (&rig, rows[i].from, rows[i].step, rows[i].n, rows[i].pages);
    if (rows[i].pages < 64) /* three of those are most of it */
      check_used (&rig, (rows[i].n - 4) * rows[i].pages);
    else
      check_used (&rig, (rows[i].n - 4) * rows[i].pages * 8 / 10);
    rig_clear (&rig);
  }
}

/* Without a cache nothing is read ahead; with one, reads of no row read nothing ahead either. */
static void
test_none (void) {
  Rig rig;

  init (&rig, TRUE, FALSE);
  for (guint i = 0; i < 2000; i++)
    op_begin (op_new (&rig, BLK_READ, random_below (&rig, DISK_PAGES), 1));
  wait_for (&rig, 0);
  g_assert_cmpuint (rig_figures (&rig).prefetched_pages, <, 500); /* a small disk: some rows are chance */
  rig.prefetch_bytes = 0;
  reopen_engine (&rig);
  read_all (&rig);
  g_assert_cmpuint (rig_figures (&rig).prefetched_pages, ==, 0);
  g_assert_cmpuint (rig_figures (&rig).prefetch_bytes, ==, 0);
  rig_clear (&rig);
}

/* Rows of reads, and between them writes and discards to what was read ahead or is about to be: a read has what was written
 * last. */
static void
test_changes (gconstpointer data) {
  const guint flags = GPOINTER_TO_UINT (data);
  guint64 at[3] = { 0, DISK_PAGES / 2, DISK_PAGES - 1 };
  FarEngineFigures f;
  Rig rig;

  init (&rig, flags & 1, flags & 2);
  for (guint i = 0; i < testing_steps (20000); i++) {
    const guint who = (guint)random_below (&rig, G_N_ELEMENTS (at));
    const gint64 step = who == 2 ? -1 : who == 1 ? 3 : 1;
    guint64 page = at[who];
    enum blk_operation operation = BLK_READ;
    guint64 n = 1;
    Op *op;

    if (testing_once_in (rig.rand, 3)) { /* changes what is a little ahead */
      operation = testing_once_in (rig.rand, 4) ? BLK_DISCARD : BLK_WRITE;
      page = (guint64)((gint64)page + step * (gint64)random_below (&rig, 40)) % DISK_PAGES;
      n = 1 + random_below (&rig, 8);
      n = MIN (n, DISK_PAGES - page);
    } else if (testing_once_in (rig.rand, 500)) {
      at[who] = random_below (&rig, DISK_PAGES);
    } else {
      at[who] = (guint64)((gint64)page + step + DISK_PAGES) % DISK_PAGES;
    }
    if (!is_free (&rig, page, n))
      continue;
    op = op_new (&rig, operation, page, n);
    op->in_pieces = testing_once_in (rig.rand, 4);
    if (operation == BLK_WRITE)
      fill_random (&rig, op->pages, n * FAR_PAGE_BYTES / (testing_once_in (rig.rand, 3) ? 4 : 1));
    op_begin (op);
    if (testing_once_in (rig.rand, 2))
      wait_for (&rig, 0);
    if (testing_once_in (rig.rand, 8000))
      reopen_engine (&rig);
  }
  read_all (&rig);
  f = rig_figures (&rig);
  g_test_message ("%" G_GUINT64_FORMAT " pages read ahead, %" G_GUINT64_FORMAT " used; %" G_GUINT64_FORMAT " moved by cleaning",
                  f.prefetched_pages, f.prefetch_used_pages, f.cleaned_pages);
  g_assert_cmpuint (f.prefetch_used_pages, >, 0);
  g_assert_cmpuint (f.damaged + f.storage_errors, ==, 0);
  rig_clear (&rig);
}

/* Reads in a row of which some fail. Returns which: 1 byte for each page. */
static guint8 *
read_failing (Rig *rig, guint in_flight) {
  guint8 *failed = g_malloc0 (DISK_PAGES);
  g_autoptr (GPtrArray) ops = g_ptr_array_new ();

  for (guint64 page = 0; page < DISK_PAGES; page++) {
    Op *op = op_new (rig, BLK_READ, page, 1);

    op->expect_failure = TRUE;
    g_ptr_array_add (ops, op);
    op_begin (op);
    wait_for (rig, in_flight);
  }
  wait_for (rig, 0);
  for (guint i = 0; i < ops->len; i++) {
    Op *op = g_ptr_array_index (ops, i);

    failed[op->io.first] = op->failed;
    op_free (op);
  }
  return failed;
}

/* What is read ahead and damaged is one error for that page, and none for those that were read with it. */
static void
test_damage (void) {
  guint8 *bytes = g_aligned_alloc (1, FAR_PAGE_BYTES, FAR_PAGE_BYTES); /* O_DIRECT */
  guint n = 0;
  Rig rig;

  init (&rig, TRUE, FALSE);
  for (off_t at = 7 * FAR_PAGE_BYTES + 100; at < (off_t)FAR_SEGMENT_BYTES; at += 31 * FAR_PAGE_BYTES, n++) {
    const off_t start = at & ~(off_t)(FAR_PAGE_BYTES - 1);

    g_assert_cmpint (pread (rig.fd, bytes, FAR_PAGE_BYTES, start), ==, FAR_PAGE_BYTES);
    bytes[at - start] ^= 1;
    g_assert_cmpint (pwrite (rig.fd, bytes, FAR_PAGE_BYTES, start), ==, FAR_PAGE_BYTES);
  }
  g_aligned_free (bytes);
  for (guint in_flight = 0; in_flight < 6; in_flight += 5) {
    g_autofree guint8 *failed = read_failing (&rig, in_flight);
    guint n_failed = 0;

    for (guint64 page = 0; page < DISK_PAGES; page++)
      n_failed += failed[page];
    g_assert_cmpuint (n_failed, ==, n);
    g_assert_cmpuint (rig_figures (&rig).damaged, ==, n * (in_flight ? 2 : 1));
  }
  g_assert_cmpuint (rig_figures (&rig).prefetch_used_pages, >, DISK_PAGES / 3);
  rig_clear (&rig);
}

/* The same with pages that storage has no more: the file ends in the middle of what is read ahead. */
static void
test_errors (void) {
  const off_t end = 2 * (off_t)FAR_SEGMENT_BYTES + 100 * FAR_PAGE_BYTES;
  Rig rig;

  init (&rig, TRUE, FALSE);
  g_assert_cmpint (ftruncate (rig.fd, end), ==, 0); /* what is written behind it later leaves zeroes before it: damage, then */
  for (guint in_flight = 0; in_flight < 6; in_flight += 5) {
    g_autofree guint8 *failed = read_failing (&rig, in_flight);
    guint n_failed = 0, n_good = 0;

    /* filled in order: what is in the stage can be read still */
    for (guint64 i = 0; i < DISK_PAGES; i++) {
      n_failed += failed[i];
      n_good += !failed[i] && i < 2 * FAR_BLOCK_PAGES + 100;
    }
    g_assert_cmpuint (n_failed, >, 0);
    g_assert_cmpuint (n_good, ==, 2 * FAR_BLOCK_PAGES + 100);
    g_assert_true (failed[2 * FAR_BLOCK_PAGES + 100]);
  }
  g_assert_cmpint (ftruncate (rig.fd, (off_t)rig.storage_bytes), ==, 0);
  rig_clear (&rig);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_log_set_always_fatal (G_LOG_FATAL_MASK | G_LOG_LEVEL_CRITICAL); /* damage is warned of */
  g_test_add_func ("/engine-ahead/rows", test_rows);
  g_test_add_func ("/engine-ahead/none", test_none);
  g_test_add_data_func ("/engine-ahead/changes/plain", GUINT_TO_POINTER (0), test_changes);
  g_test_add_data_func ("/engine-ahead/changes/sealed", GUINT_TO_POINTER (1), test_changes);
  g_test_add_data_func ("/engine-ahead/changes/sealed-packed", GUINT_TO_POINTER (3), test_changes);
  g_test_add_func ("/engine-ahead/damage", test_damage);
  g_test_add_func ("/engine-ahead/errors", test_errors);
  return g_test_run ();
}
