/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "copies-scene.h"

#include <string.h>

static Storage *
wrap (gpointer data, Storage *local) {
  static const char *const apart[] = { "a", "b", "c", "d", "e", "f" };
  Scene *scene = data;
  FarDonorOptions donors[FAKE_DONORS];
  FarCopiesOptions options = { .name = "test/shared",
                               .mode = scene->mode,
                               .n_places = scene->rig.geometry.n_places,
                               .n_donors = scene->n_donors,
                               .donors = donors,
                               .vm = { 1 },
                               .worker = ++scene->worker,
                               .away_ms = AWAY_MS,
                               .deadline_ms = scene->deadline_ms ? scene->deadline_ms : 500 };
  g_autoptr (GError) error = NULL;
  Storage *storage;

  for (guint d = 0; d < scene->n_donors; d++)
    donors[d] = (FarDonorOptions){
      .name = fake_name (d), .address = "fake", .blocks_max = 1000, .domain = scene->domains ? scene->domains[d] : apart[d]
    };
  storage = far_copies_new (&options, local, scene->map, scene->map_bytes, &error);
  g_assert_no_error (error);
  scene->copies = far_copies_of (storage);
  return storage;
}

void
scene_init_pages (Scene *scene, enum copies_mode mode, guint n_donors, guint64 n_pages) {
  memset (scene, 0, sizeof *scene);
  rig_init_pages (&scene->rig, n_pages, TRUE, FALSE);
  fake_init (1000, scene->rig.rand);
  scene->mode = mode;
  scene->n_donors = n_donors;
  scene->map_bytes = copies_state_bytes (scene->rig.geometry.n_places);
  scene->map = g_malloc0 (scene->map_bytes);
  copies_format (scene->map, scene->rig.geometry.n_places);
  scene->rig.wrap = wrap;
  scene->rig.wrap_data = scene;
  reopen_engine (&scene->rig);
}

void
scene_init (Scene *scene, enum copies_mode mode, guint n_donors) {
  scene_init_pages (scene, mode, n_donors, DISK_PAGES);
}

void
scene_clear (Scene *scene) {
  rig_clear (&scene->rig);
  fake_clear ();
  g_free (scene->map);
}

FarCopiesFigures
scene_figures (Scene *scene) {
  FarCopiesFigures f;

  far_copies_figures (scene->copies, &f);
  return f;
}

FarDonorFigures
scene_donor (Scene *scene, guint donor) {
  FarDonorFigures f;

  far_copies_donor_figures (scene->copies, donor, &f);
  return f;
}

guint64
scene_used (const Scene *scene) {
  guint64 used = 0;

  for (guint d = 0; d < scene->n_donors; d++)
    used += fake_used (d);
  return used;
}

gboolean
scene_is_protected (Scene *scene) {
  const FarCopiesFigures f = scene_figures (scene);

  testing_trace ("places %u protected %u degraded %u endangered %u lost %u repairs %u failed %u used %u", (guint)f.places,
                 (guint)f.protected, (guint)f.degraded, (guint)f.endangered, (guint)f.lost, (guint)f.repairs_under_way,
                 (guint)f.repairs_failed, (guint)scene_used (scene));

  return f.places > 0 && f.protected == f.places && f.repairs_under_way == 0
         && rig_figures (&scene->rig).store.slots_writing == 0;
}

void
scene_write_all (Scene *scene) {
  for (guint64 page = 0; page < scene->rig.n_pages; page += REQUEST_PAGES_MAX) {
    Op *op = op_new (&scene->rig, BLK_WRITE, page, REQUEST_PAGES_MAX);

    fill_random (&scene->rig, op->pages, REQUEST_PAGES_MAX * FAR_PAGE_BYTES);
    op_begin (op);
  }
  wait_for (&scene->rig, 0);
}

/* Pages here and there, each read or written. */
void
scene_churn (Scene *scene, guint n, guint writes_of_ten) {
  for (guint i = 0; i < n; i++) {
    const guint64 pages = 1 + random_below (&scene->rig, 8), first = random_below (&scene->rig, DISK_PAGES - pages);
    const gboolean writes = random_below (&scene->rig, 10) < writes_of_ten;
    Op *op;

    if (!is_free (&scene->rig, first, pages))
      continue;
    op = op_new (&scene->rig, writes ? BLK_WRITE : BLK_READ, first, pages);
    if (writes)
      fill_random (&scene->rig, op->pages, pages * FAR_PAGE_BYTES);
    op_begin (op);
  }
}
