/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The wear budget: what is beyond it waits, nothing is refused or lost, and the next process goes on with what is left of it.
 */
#include "engine-rig.h"

#define DAY_BYTES (64ull << 20) /* the least there is: four segments at once, then one in an hour */
#define BURST_BYTES (DAY_BYTES / 8)

static void
write_pages (Rig *rig, guint64 first, guint64 n) {
  for (guint64 page = first; page < first + n; page += REQUEST_PAGES_MAX) {
    Op *op;

    if (!is_free (rig, page, REQUEST_PAGES_MAX))
      continue;
    op = op_new (rig, BLK_WRITE, page, REQUEST_PAGES_MAX);
    fill_random (rig, op->pages, REQUEST_PAGES_MAX * FAR_PAGE_BYTES);
    far_engine_start (rig->engine, &op->io);
    far_engine_kick (rig->engine);
  }
}

/* Until writes wait for the budget, and nothing else is under way. */
static void
wait_until_held (Rig *rig) {
  const gint64 end = g_get_monotonic_time () + 60 * G_USEC_PER_SEC;
  FarEngineFigures f;

  do {
    g_assert_cmpint (g_get_monotonic_time (), <, end);
    g_main_context_iteration (NULL, FALSE);
    f = rig_figures (rig);
  } while (!f.held || f.store.slots_writing || !f.waiting);
}

static void
init (Rig *rig, guint64 wear_day_bytes) {
  rig_init (rig, TRUE, FALSE);
  rig->wear_day_bytes = wear_day_bytes;
  reopen_engine (rig);
}

static void
test_held (void) {
  FarEngineFigures f;
  guint64 first_wait;
  guint waiting;
  Rig rig;

  init (&rig, DAY_BYTES);
  f = rig_figures (&rig);
  g_assert_cmpuint (f.wear_day_bytes, ==, DAY_BYTES);
  g_assert_cmpuint (f.wear_burst_bytes, ==, BURST_BYTES);
  g_assert_cmpuint (f.wear_left_bytes, >, BURST_BYTES - 65536);
  g_assert_false (f.held);
  write_pages (&rig, 0, DISK_PAGES);
  write_pages (&rig, 0, DISK_PAGES / 2); /* 24 MiB: burst and stage have room for about 20 */
  wait_until_held (&rig);
  f = rig_figures (&rig);
  g_assert_cmpuint (f.storage_written_bytes, <=, BURST_BYTES + 65536);
  g_assert_cmpuint (f.storage_written_bytes, >, BURST_BYTES - 2 * FAR_SEGMENT_BYTES);
  g_assert_cmpuint (f.wear_left_bytes, <, FAR_SEGMENT_BYTES);
  g_assert_cmpuint (f.refused, ==, 0);
  first_wait = f.held_wait_us;
  g_assert_cmpuint (first_wait, >, 60 * G_USEC_PER_SEC);

  /* reads of what was answered go on meanwhile */
  waiting = rig.in_flight;
  for (guint64 page = 0; page < DISK_PAGES; page += 7)
    if (is_free (&rig, page, 1)) {
      far_engine_start (rig.engine, &op_new (&rig, BLK_READ, page, 1)->io);
      far_engine_kick (rig.engine);
      wait_for (&rig, waiting);
    }

  /* somebody wants all of it to end: it ends, and is owed */
  far_engine_hurry (rig.engine, TRUE);
  wait_for (&rig, 0);
  far_engine_hurry (rig.engine, FALSE);
  f = rig_figures (&rig);
  g_assert_cmpuint (f.waiting, ==, 0);
  g_assert_cmpuint (f.wear_left_bytes, ==, 0);
  g_assert_cmpuint (f.refused, ==, 0);
  g_assert_cmpuint (f.held_us, >, 0);
  read_all (&rig);

  /* the next process owes it, too */
  reopen_engine (&rig);
  g_assert_cmpuint (rig_figures (&rig).wear_left_bytes, ==, 0);
  write_pages (&rig, 0, DISK_PAGES);
  wait_until_held (&rig);
  f = rig_figures (&rig);
  g_assert_cmpuint (f.storage_written_bytes, ==, 0);
  g_assert_cmpuint (f.held_wait_us, >=, first_wait / 2);
  far_engine_hurry (rig.engine, TRUE);
  wait_for (&rig, 0);
  read_all (&rig);
  rig_clear (&rig);
}

/* What is overwritten soon is never written to storage, as long as the stage has room for it. */
static guint64
write_again_and_again (guint64 wear_day_bytes) {
  FarEngineFigures f;
  Rig rig;

  init (&rig, wear_day_bytes);
  for (guint i = 0; i < 40; i++) {
    write_pages (&rig, 0, FAR_BLOCK_PAGES / 2);
    wait_for (&rig, 0);
    for (guint k = 0; k < 10; k++) /* storage settles in there, for a start */
      g_main_context_iteration (NULL, FALSE);
  }
  read_all (&rig);
  f = rig_figures (&rig);
  rig_clear (&rig);
  return f.storage_written_bytes;
}

static void
test_saves (void) {
  const guint64 without = write_again_and_again (0), with = write_again_and_again (1ull << 40);

  g_test_message ("40 MiB written to the same 1 MiB: %" G_GUINT64_FORMAT " bytes to storage, with a budget %" G_GUINT64_FORMAT,
                  without, with);
  g_assert_cmpuint (without, >, 10ull << 20);
  g_assert_cmpuint (with, ==, 0);
}

/* A full disk, overwritten at random, with a budget that is large enough: cleaning goes on, later than without one, and keeps
 * up. */
static void
test_cleaning (void) {
  guint64 written[2];

  for (guint k = 0; k < 2; k++) {
    FarEngineFigures f;
    Rig rig;

    init (&rig, k ? 1ull << 40 : 0);
    write_pages (&rig, 0, DISK_PAGES);
    wait_for (&rig, 0);
    for (guint i = 0; i < 6 * DISK_PAGES; i++) {
      const guint64 page = random_below (&rig, DISK_PAGES);
      Op *op;

      if (!is_free (&rig, page, 1))
        continue;
      op = op_new (&rig, BLK_WRITE, page, 1);
      fill_random (&rig, op->pages, FAR_PAGE_BYTES);
      op_begin (op);
    }
    read_all (&rig);
    f = rig_figures (&rig);
    g_test_message ("%s: %" G_GUINT64_FORMAT " MiB to storage, %" G_GUINT64_FORMAT " pages moved by cleaning",
                    k ? "with a budget" : "without one", f.storage_written_bytes >> 20, f.cleaned_pages);
    g_assert_cmpuint (f.cleaned_pages, >, 0);
    g_assert_cmpuint (f.refused, ==, 0);
    written[k] = f.storage_written_bytes;
    rig_clear (&rig);
  }
  g_assert_cmpuint (written[1], <=, written[0]);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/engine-wear/held", test_held);
  g_test_add_func ("/engine-wear/saves", test_saves);
  g_test_add_func ("/engine-wear/cleaning", test_cleaning);
  return g_test_run ();
}
