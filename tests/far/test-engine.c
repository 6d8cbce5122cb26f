/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The engine of a far disk on a real storage file, without a front-end: what was written is what is read, through packing, sealing, the
 * stage, storage, cleaning, and one engine after another on the same state. */
#include "far/engine.h"
#include "testing.h"

#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define DISK_PAGES (8 * FAR_BLOCK_PAGES) /* 16 MiB */
#define SLOTS 6u
#define SPARE_PERMILLE 150u
#define REQUEST_PAGES_MAX 64u
#define IN_FLIGHT_MAX 16u
#define random_below(rig, n) testing_below ((rig)->rand, n)

typedef struct {
  char *folder, *path;
  int fd; /* of the storage: a keeper's, over all engines */
  struct far_geometry geometry;
  guint8 key[SEAL_KEY_BYTES];
  gboolean sealed, pack;
  void *state;
  gsize state_bytes, stage_bytes, storage_bytes;
  guint8 *stage;
  FarEngine *engine;
  guint8 *shadow; /* DISK_PAGES pages */
  GRand *rand;
  guint8 *busy;   /* requests on a page that may change it: nothing else is begun there */
  guint in_flight;
} Rig;

typedef struct {
  FarIo io; /* first */
  Rig *rig;
  guint8 *pages;
  gboolean in_pieces; /* pretends that every other page lies in several pieces */
  gboolean expect_failure, failed;
} Op;

static guint8 *
op_page_at (FarIo *io, guint64 i) {
  Op *op = (Op *)io;

  return op->in_pieces && (i & 1) ? NULL : op->pages + i * FAR_PAGE_BYTES;
}

static void
op_copy (FarIo *io, guint64 i, guint8 *page) {
  Op *op = (Op *)io;

  if (io->operation == BLK_WRITE)
    memcpy (page, op->pages + i * FAR_PAGE_BYTES, FAR_PAGE_BYTES);
  else
    memcpy (op->pages + i * FAR_PAGE_BYTES, page, FAR_PAGE_BYTES);
}

static void
op_done (FarIo *io, gboolean ok) {
  Op *op = (Op *)io;
  Rig *rig = op->rig;
  guint8 *shadow = rig->shadow + io->first * FAR_PAGE_BYTES;

  op->failed = !ok;
  if (!op->expect_failure)
    g_assert_true (ok);
  if (ok && io->operation == BLK_READ)
    for (guint64 i = 0; i < io->n; i++)
      if (memcmp (shadow + i * FAR_PAGE_BYTES, op->pages + i * FAR_PAGE_BYTES, FAR_PAGE_BYTES) != 0)
        g_error ("page %" G_GUINT64_FORMAT " is not what was written", io->first + i);
  if (ok && io->operation == BLK_WRITE)
    memcpy (shadow, op->pages, io->n * FAR_PAGE_BYTES);
  if (ok && (io->operation == BLK_DISCARD || io->operation == BLK_WRITE_ZEROES))
    memset (shadow, 0, io->n * FAR_PAGE_BYTES);
  memset (rig->busy + io->first, 0, io->n);
  rig->in_flight--;
  if (op->expect_failure)
    return;
  g_free (op->pages);
  g_free (op);
}

static Op *
op_new (Rig *rig, enum blk_operation operation, guint64 first, guint64 n) {
  Op *op = g_new0 (Op, 1);

  op->io = (FarIo){ .operation = operation, .first = first, .n = n, .page_at = op_page_at, .copy = op_copy, .done = op_done };
  op->rig = rig;
  op->pages = g_malloc (n * FAR_PAGE_BYTES);
  memset (rig->busy + first, 1, n);
  rig->in_flight++;
  return op;
}

static void
wait_for (Rig *rig, guint at_most) {
  const gint64 end = g_get_monotonic_time () + 60 * G_USEC_PER_SEC;

  while (rig->in_flight > at_most) {
    g_assert_cmpint (g_get_monotonic_time (), <, end);
    g_main_context_iteration (NULL, TRUE);
  }
}

static void
open_engine (Rig *rig) {
  g_autoptr (GError) error = NULL;
  const FarEngineOptions options = { .name = "test/shared", .geometry = rig->geometry, .pack = rig->pack };
  Storage *storage;
  Seal *seal;

  storage = storage_new (rig->path, rig->fd, rig->storage_bytes, -1, -1, &error);
  g_assert_no_error (error);
  seal = seal_new (rig->sealed ? rig->key : NULL, rig->geometry.device, &error);
  g_assert_no_error (error);
  rig->engine = far_engine_new (&options, rig->state, rig->state_bytes, rig->stage, storage, seal, &error);
  g_assert_no_error (error);
}

static void
rig_init (Rig *rig, gboolean sealed, gboolean pack) {
  g_autoptr (GError) error = NULL;

  memset (rig, 0, sizeof *rig);
  rig->folder = g_dir_make_tmp ("domybs-engine-XXXXXX", NULL);
  rig->path = g_build_filename (rig->folder, "storage", NULL);
  rig->rand = testing_rand ();
  rig->sealed = sealed;
  rig->pack = pack;
  rig->geometry = (struct far_geometry){ .n_pages = DISK_PAGES, .n_stage_slots = SLOTS, .device = 7 };
  rig->geometry.n_places = far_store_places_needed (DISK_PAGES, SPARE_PERMILLE, SLOTS);
  g_assert_null (far_store_check_geometry (&rig->geometry));
  rig->storage_bytes = (gsize)rig->geometry.n_places * FAR_SEGMENT_BYTES;
  rig->state_bytes = far_store_state_bytes (&rig->geometry);
  rig->stage_bytes = (gsize)SLOTS * FAR_SEGMENT_BYTES;
  rig->state = mmap (NULL, rig->state_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  rig->stage = mmap (NULL, rig->stage_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  rig->shadow = g_malloc0 (DISK_PAGES * FAR_PAGE_BYTES);
  rig->busy = g_malloc0 (DISK_PAGES);
  for (guint i = 0; i < sizeof rig->key; i++)
    rig->key[i] = (guint8)g_rand_int (rig->rand);
  far_store_format (rig->state, &rig->geometry);
  rig->fd = storage_open_file (rig->path, rig->storage_bytes, &error);
  g_assert_no_error (error);
  open_engine (rig);
}

static void
rig_clear (Rig *rig) {
  wait_for (rig, 0);
  far_engine_free (rig->engine);
  close (rig->fd);
  munmap (rig->state, rig->state_bytes);
  munmap (rig->stage, rig->stage_bytes);
  g_unlink (rig->path);
  g_rmdir (rig->folder);
  g_free (rig->folder);
  g_free (rig->path);
  g_free (rig->shadow);
  g_free (rig->busy);
  g_rand_free (rig->rand);
}

static gboolean
is_free (const Rig *rig, guint64 first, guint64 n) {
  for (guint64 i = first; i < first + n; i++)
    if (rig->busy[i])
      return FALSE;
  return TRUE;
}

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
read_all (Rig *rig) {
  wait_for (rig, 0);
  for (guint64 first = 0; first < DISK_PAGES; first += REQUEST_PAGES_MAX) {
    far_engine_start (rig->engine, &op_new (rig, BLK_READ, first, REQUEST_PAGES_MAX)->io);
    far_engine_kick (rig->engine);
    wait_for (rig, IN_FLIGHT_MAX - 1);
  }
  wait_for (rig, 0);
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
      wait_for (&rig, 0);
      far_engine_free (rig.engine);
      open_engine (&rig);
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
