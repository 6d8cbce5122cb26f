/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How much of a far disk is ready: the figures' meaning, and against a page store that is really written. */
#include "core/far-level.h"
#include "testing.h"

#include <string.h>

static void
test_ready (void) {
  static const struct {
    uint32_t places, covered, free, bad;
    uint64_t in_use, ready;
  } cases[] = {
    { 120, 0, 0, 0, 0, 0 },       { 120, 16, 16, 0, 0, 13 },
    { 120, 16, 3, 0, 0, 0 },      { 120, 16, 2, 0, 0, 0 },     /* those are for cleaning */
    { 120, 110, 110, 0, 0, 100 }, { 120, 110, 60, 0, 80, 20 }, /* no more than the disk has */
    { 120, 120, 4, 0, 90, 10 },   { 120, 120, 0, 0, 99, 1 },   /* all is covered: cleaning makes room for all of the disk */
    { 120, 120, 4, 1, 90, 1 },    { 120, 120, 4, 0, 100, 0 },
  };

  for (size_t i = 0; i < G_N_ELEMENTS (cases); i++) {
    const struct far_figures figures = { .places = cases[i].places,
                                         .covered = cases[i].covered,
                                         .free = cases[i].free,
                                         .bad = cases[i].bad,
                                         .blocks_in_use = cases[i].in_use };

    g_test_message ("case %zu", i);
    g_assert_cmpuint (far_level_ready (&figures, 100), ==, cases[i].ready);
    g_assert_false (far_level_wants_more (&figures, 100, cases[i].ready));
    g_assert_cmpint (far_level_wants_more (&figures, 100, cases[i].ready + 1), ==,
                     cases[i].covered < cases[i].places && cases[i].ready < 100 - cases[i].in_use);
  }
}

/* Blocks that are said to be ready can be written, each page of them, without one more place being covered. */
static void
test_promise (void) {
  g_autoptr (GRand) rand = testing_rand ();
  const struct far_geometry geometry = { .n_pages = 40 * FAR_BLOCK_PAGES,
                                         .n_places = far_store_places_needed (40 * FAR_BLOCK_PAGES, 100, 8),
                                         .n_stage_slots = 8 };
  const size_t bytes = far_store_state_bytes (&geometry);

  for (unsigned round = 0; round < 20; round++) {
    g_autofree void *state = g_aligned_alloc0 (1, bytes, 8);
    const uint64_t level = 1 + testing_below (rand, 30);
    uint64_t block = 0;
    struct far_figures figures;
    struct far_store *store;
    const char *why = NULL;

    far_store_format (state, &geometry);
    store = far_store_open (state, bytes, &geometry, &why);
    g_assert_nonnull (store);
    for (unsigned step = 0; step < 4 && block + level <= 40; step++) {
      uint32_t covered;

      for (far_store_figures (store, &figures); far_level_wants_more (&figures, 40, level); far_store_figures (store, &figures))
        far_store_cover (store, figures.covered + 1);
      g_assert_cmpuint (far_level_ready (&figures, 40), >=, MIN (level, 40 - block));
      covered = figures.covered;
      for (uint64_t page = block * FAR_BLOCK_PAGES; page < (block + level) * FAR_BLOCK_PAGES; page++) {
        struct far_change change
            = { .page = (uint32_t)page,
                .now = { .kind = FAR_RAW, .bytes = FAR_PAGE_BYTES, .version = far_store_take_versions (store, 1) } };
        struct far_write write;
        struct far_spot spot;
        enum far_room room;

        while ((room = far_store_place (store, FAR_CLASS_RAW, FAR_PAGE_BYTES, &spot)) == FAR_ROOM_STAGE_FULL) {
          g_assert_true (far_store_next_write (store, &write));
          far_store_written (store, write.segment);
        }
        g_assert_cmpint (room, ==, FAR_ROOM);
        change.now.segment = spot.segment;
        change.now.offset = spot.offset;
        far_store_commit (store, &change, 1);
      }
      block += level;
      far_store_figures (store, &figures);
      g_assert_cmpuint (figures.covered, ==, covered);
    }
    far_store_close (store);
    g_aligned_free (g_steal_pointer (&state));
  }
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/far-level/is what is covered and free", test_ready);
  g_test_add_func ("/far-level/what is ready can be written", test_promise);
  return g_test_run ();
}
