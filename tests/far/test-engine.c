/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The engine of a far disk on a real storage file, without a front-end: what was written is what is read, through packing, sealing, the
 * stage, storage, cleaning, and one engine after another on the same state. */
#include "engine-rig.h"

#include <string.h>

static void
fill_page (Rig *rig, guint8 *page) {
  const guint kind = (guint)random_below (rig, 8);
  guint64 *words = (guint64 *)page;
  guint n = FAR_PAGE_BYTES / 8;

  if (kind < 2) { /* one value */
    const guint64 value = kind ? (guint64)g_rand_int (rig->rand) << 32 : 0;

    for (guint i = 0; i < n; i++)
      words[i] = value;
    return;
  }
  if (kind < 4) { /* packs */
    memset (page, 0x5a, FAR_PAGE_BYTES);
    n = 1 + (guint)random_below (rig, 299);
  }
  for (guint i = 0; i < n; i++)
    words[i] = (guint64)g_rand_int (rig->rand) << 32 | (guint32)g_rand_int (rig->rand);
}

static void
random_op (Rig *rig) {
  static const enum blk_operation operations[]
      = { BLK_READ, BLK_READ, BLK_READ, BLK_WRITE, BLK_WRITE, BLK_WRITE, BLK_WRITE, BLK_DISCARD, BLK_WRITE_ZEROES };
  enum blk_operation operation = operations[random_below (rig, G_N_ELEMENTS (operations))];
  const gboolean is_long = random_below (rig, 3) == 0;
  guint64 n = 1 + random_below (rig, is_long ? REQUEST_PAGES_MAX : 4);
  guint64 first = random_below (rig, DISK_PAGES - n + 1);
  Op *op;

  if (operation == BLK_DISCARD && random_below (rig, 4) == 0) {
    first &= ~(guint64)(FAR_BLOCK_PAGES - 1);
    n = FAR_BLOCK_PAGES;
  }
  if (!is_free (rig, first, n))
    return;
  op = op_new (rig, operation, first, n);
  op->in_pieces = random_below (rig, 4) == 0;
  if (operation == BLK_WRITE)
    for (guint64 i = 0; i < n; i++)
      fill_page (rig, op->pages + i * FAR_PAGE_BYTES);
  far_engine_start (rig->engine, &op->io);
}

static void
test_random (gconstpointer data) {
  const guint flags = GPOINTER_TO_UINT (data);
  const guint n = testing_steps (30000);
  FarEngineFigures figures;
  Rig rig;

  rig_init (&rig, flags & 1, flags & 2);
  for (guint i = 0; i < n; i++) {
    random_op (&rig);
    if (random_below (&rig, 8) == 0)
      far_engine_kick (rig.engine);
    if (random_below (&rig, 4) == 0)
      g_main_context_iteration (NULL, FALSE);
    far_engine_kick (rig.engine);
    wait_for (&rig, IN_FLIGHT_MAX - 1);
    if (random_below (&rig, 4000) == 0) {
      reopen_engine (&rig);
    }
  }
  read_all (&rig);
  far_engine_figures (rig.engine, &figures);
  g_test_message ("%" G_GUINT64_FORMAT " pages written, %" G_GUINT64_FORMAT " same, %" G_GUINT64_FORMAT " packed, %" G_GUINT64_FORMAT
                  " moved by cleaning; read %" G_GUINT64_FORMAT " from the stage, %" G_GUINT64_FORMAT " from storage",
                  figures.written_pages, figures.same_pages, figures.packed_pages, figures.cleaned_pages, figures.read_from_stage,
                  figures.read_from_storage);
  g_assert_cmpuint (figures.damaged, ==, 0);
  g_assert_cmpuint (figures.storage_errors, ==, 0);
  rig_clear (&rig);
}

/* All pages live and incompressible, and single ones are written again and again: cleaning keeps up. */
static void
test_full (void) {
  FarEngineFigures figures;
  Rig rig;

  rig_init (&rig, TRUE, FALSE);
  for (guint64 i = 0; i < 6 * DISK_PAGES; i++) {
    const guint64 page = i < DISK_PAGES ? i : random_below (&rig, DISK_PAGES);
    Op *op;

    if (!is_free (&rig, page, 1))
      continue;
    op = op_new (&rig, BLK_WRITE, page, 1);
    for (guint k = 0; k < FAR_PAGE_BYTES / 4; k++)
      ((guint32 *)op->pages)[k] = (guint32)g_rand_int (rig.rand);
    far_engine_start (rig.engine, &op->io);
    far_engine_kick (rig.engine);
    wait_for (&rig, IN_FLIGHT_MAX - 1);
  }
  read_all (&rig);
  far_engine_figures (rig.engine, &figures);
  g_test_message ("%" G_GUINT64_FORMAT " pages written, %" G_GUINT64_FORMAT " moved by cleaning", figures.written_pages,
                  figures.cleaned_pages);
  g_assert_cmpuint (figures.cleaned_pages, >, 0);
  rig_clear (&rig);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_data_func ("/engine/random/plain", GUINT_TO_POINTER (0), test_random);
  g_test_add_data_func ("/engine/random/sealed", GUINT_TO_POINTER (1), test_random);
  g_test_add_data_func ("/engine/random/packed", GUINT_TO_POINTER (2), test_random);
  g_test_add_data_func ("/engine/random/sealed-packed", GUINT_TO_POINTER (3), test_random);
  g_test_add_func ("/engine/full", test_full);
  return g_test_run ();
}
