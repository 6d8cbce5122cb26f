/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copies with donors of the test's own (fake-channel.h) under an engine whose every read is compared (engine-rig.h). */
#ifndef DOMYBS_TESTS_FAR_COPIES_SCENE_H
#define DOMYBS_TESTS_FAR_COPIES_SCENE_H

#include "engine-rig.h"
#include "fake-channel.h"
#include "far/copies.h"

#define PATIENCE_US (20 * G_USEC_PER_SEC)
#define AWAY_MS 150u

typedef struct {
  Rig rig;
  enum copies_mode mode;
  guint n_donors;
  const char *const *domains;
  void *map;
  gsize map_bytes;
  FarCopies *copies;
  guint32 worker;
  guint deadline_ms; /* 0: 500 */
} Scene;

#define WAIT_UNTIL(condition)                                                                                                  \
  do {                                                                                                                         \
    const gint64 end_of_patience = g_get_monotonic_time () + PATIENCE_US;                                                      \
    while (!(condition)) {                                                                                                     \
      g_assert_cmpint (g_get_monotonic_time (), <, end_of_patience);                                                           \
      if (!g_main_context_iteration (NULL, FALSE))                                                                             \
        g_usleep (500);                                                                                                        \
    }                                                                                                                          \
  } while (0)

void scene_init (Scene *scene, enum copies_mode mode, guint n_donors);
void scene_init_pages (Scene *scene, enum copies_mode mode, guint n_donors, guint64 n_pages);
void scene_clear (Scene *scene);
FarCopiesFigures scene_figures (Scene *scene);
FarDonorFigures scene_donor (Scene *scene, guint donor);
/* Blocks in use at all donors. */
guint64 scene_used (const Scene *scene);
/* All of it, and nothing is on its way. */
gboolean scene_is_protected (Scene *scene);
/* Every page, and waits. */
void scene_write_all (Scene *scene);
/* Pages here and there, each read or written. */
void scene_churn (Scene *scene, guint n, guint writes_of_ten);

#endif
