/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "engine-rig.h"

#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define SPARE_PERMILLE 150u

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

void
op_free (Op *op) {
  g_free (op->pages);
  g_free (op);
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
  op_free (op);
}

Op *
op_new (Rig *rig, enum blk_operation operation, guint64 first, guint64 n) {
  Op *op = g_new0 (Op, 1);

  op->io = (FarIo){ .operation = operation, .first = first, .n = n, .page_at = op_page_at, .copy = op_copy, .done = op_done };
  op->rig = rig;
  op->pages = g_malloc (n * FAR_PAGE_BYTES);
  memset (rig->busy + first, 1, n);
  rig->in_flight++;
  return op;
}

void
wait_for (Rig *rig, guint at_most) {
  const gint64 end = g_get_monotonic_time () + 60 * G_USEC_PER_SEC;

  while (rig->in_flight > at_most) {
    g_assert_cmpint (g_get_monotonic_time (), <, end);
    g_main_context_iteration (NULL, TRUE);
  }
}

void
open_engine (Rig *rig) {
  g_autoptr (GError) error = NULL;
  const FarEngineOptions options = { .name = "test/shared",
                                     .geometry = rig->geometry,
                                     .pack = rig->pack,
                                     .prefetch_bytes = rig->prefetch_bytes,
                                     .wear_day_bytes = rig->wear_day_bytes,
                                     .give_back_us = rig->give_back_us };
  Storage *storage;
  Seal *seal;

  storage = storage_new (rig->path, rig->fd, rig->storage_bytes, -1, -1, &error);
  g_assert_no_error (error);
  if (rig->wrap)
    storage = rig->wrap (rig->wrap_data, storage);
  seal = seal_new (rig->sealed ? rig->key : NULL, rig->geometry.device, &error);
  g_assert_no_error (error);
  rig->engine = far_engine_new (&options, rig->state, rig->state_bytes, rig->stage, storage, seal, &error);
  g_assert_no_error (error);
}

void
reopen_engine (Rig *rig) {
  wait_for (rig, 0);
  far_engine_free (rig->engine);
  open_engine (rig);
}

FarEngineFigures
rig_figures (Rig *rig) {
  FarEngineFigures figures;

  far_engine_figures (rig->engine, &figures);
  return figures;
}

void
rig_init (Rig *rig, gboolean sealed, gboolean pack) {
  rig_init_pages (rig, DISK_PAGES, sealed, pack);
}

void
rig_init_pages (Rig *rig, guint64 n_pages, gboolean sealed, gboolean pack) {
  g_autoptr (GError) error = NULL;

  memset (rig, 0, sizeof *rig);
  rig->folder = g_dir_make_tmp ("domybs-engine-XXXXXX", NULL);
  rig->path = g_build_filename (rig->folder, "storage", NULL);
  rig->rand = testing_rand ();
  rig->n_pages = n_pages;
  rig->sealed = sealed;
  rig->pack = pack;
  rig->geometry = (struct far_geometry){ .n_pages = n_pages, .n_stage_slots = SLOTS, .device = 7 };
  rig->geometry.n_places = far_store_places_needed (n_pages, SPARE_PERMILLE, SLOTS);
  g_assert_null (far_store_check_geometry (&rig->geometry));
  rig->storage_bytes = (gsize)rig->geometry.n_places * FAR_SEGMENT_BYTES;
  rig->state_bytes = far_store_state_bytes (&rig->geometry);
  rig->stage_bytes = (gsize)SLOTS * FAR_SEGMENT_BYTES;
  rig->state = mmap (NULL, rig->state_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  rig->stage = mmap (NULL, rig->stage_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  rig->shadow = g_malloc0 (n_pages * FAR_PAGE_BYTES);
  rig->busy = g_malloc0 (n_pages);
  for (guint i = 0; i < sizeof rig->key; i++)
    rig->key[i] = (guint8)g_rand_int (rig->rand);
  far_store_format (rig->state, &rig->geometry);
  rig->fd = storage_open_file (rig->path, rig->storage_bytes, &error);
  g_assert_no_error (error);
  open_engine (rig);
}

void
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

gboolean
is_free (const Rig *rig, guint64 first, guint64 n) {
  for (guint64 i = first; i < first + n; i++)
    if (rig->busy[i])
      return FALSE;
  return TRUE;
}

void
op_begin (Op *op) {
  Rig *rig = op->rig;

  far_engine_start (rig->engine, &op->io);
  far_engine_kick (rig->engine);
  wait_for (rig, IN_FLIGHT_MAX - 1);
}

void
fill_random (Rig *rig, guint8 *bytes, gsize n) {
  for (gsize i = 0; i < n / sizeof (guint32); i++)
    ((guint32 *)bytes)[i] = (guint32)g_rand_int (rig->rand);
}

void
read_all (Rig *rig) {
  wait_for (rig, 0);
  for (guint64 first = 0; first < rig->n_pages; first += REQUEST_PAGES_MAX) {
    far_engine_start (rig->engine, &op_new (rig, BLK_READ, first, REQUEST_PAGES_MAX)->io);
    far_engine_kick (rig->engine);
    wait_for (rig, IN_FLIGHT_MAX - 1);
  }
  wait_for (rig, 0);
}
