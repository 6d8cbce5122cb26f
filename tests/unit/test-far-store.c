/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The page store while nobody dies: each call, and any sequence of them against a plain list of pages. */
#include "far-model.h"
#include "testing.h"

#include <string.h>

#define SLOTS 6u

static void
range (uint32_t *pages, uint32_t first, unsigned n) {
  for (unsigned i = 0; i < n; i++)
    pages[i] = first + i;
}

/* n pages from first on, in commits of 256. */
static void
write_range (struct far_model *model, uint32_t first, uint32_t n, enum far_kind kind) {
  uint32_t pages[FAR_COMMIT_MAX];

  for (uint32_t done = 0; done < n; done += FAR_COMMIT_MAX) {
    range (pages, first + done, MIN (n - done, FAR_COMMIT_MAX));
    model_write (model, pages, MIN (n - done, FAR_COMMIT_MAX), kind);
  }
}

static struct far_figures
figures_of (const struct far_model *model) {
  struct far_figures figures;

  far_store_figures (model->store, &figures);
  return figures;
}

static void
test_geometry (void) {
  struct far_geometry good = { .n_pages = 1024, .n_places = far_store_places_needed (1024, 0, 4), .n_stage_slots = 4 };
  struct far_geometry bad;

  g_assert_cmpuint (good.n_places, ==, 2 + 1 + 4 + 4);
  g_assert_cmpuint (far_store_places_needed (512 * 1000, 120, 10), ==, 1000 + 120 + 10 + 4);
  g_assert_cmpuint (far_store_places_needed (UINT64_MAX - 1000, 120, 10), ==, UINT32_MAX);
  g_assert_cmpstr (far_store_check_geometry (&good), ==, NULL);
  bad = good;
  bad.n_pages = 0;
  g_assert_nonnull (far_store_check_geometry (&bad));
  bad.n_pages = 1000;
  g_assert_nonnull (far_store_check_geometry (&bad));
  bad.n_pages = FAR_PAGES_MAX + 512;
  g_assert_nonnull (far_store_check_geometry (&bad));
  bad = good;
  bad.n_places--;
  g_assert_nonnull (far_store_check_geometry (&bad));
  bad.n_places = UINT32_MAX;
  g_assert_nonnull (far_store_check_geometry (&bad));
  bad = good;
  bad.n_stage_slots = 3;
  g_assert_nonnull (far_store_check_geometry (&bad));
  bad.n_stage_slots = 256;
  g_assert_nonnull (far_store_check_geometry (&bad));
}

static void
test_overhead (void) {
  struct far_geometry geometry = { .n_pages = 1ull << 24, .n_stage_slots = 32 }; /* 64 GiB */

  geometry.n_places = far_store_places_needed (geometry.n_pages, 60, 32);
  g_assert_cmpuint (far_store_overhead_bytes (&geometry) * 100, <, geometry.n_pages * FAR_PAGE_BYTES); /* 1 % */
  g_assert_cmpuint (far_store_state_bytes (&geometry), <, far_store_overhead_bytes (&geometry));
}

static void
test_fresh (void) {
  struct far_model model;
  uint32_t segment;
  bool urgent;
  struct far_write write;

  model_init (&model, 2048, 100, SLOTS);
  model_check_pages (&model);
  model_recount (&model);
  g_assert_cmpuint (figures_of (&model).pages[FAR_NONE], ==, 2048);
  g_assert_cmpuint (figures_of (&model).free, ==, model.geometry.n_places);
  g_assert_false (far_store_victim (model.store, &segment));
  g_assert_false (far_store_wants_cleaning (model.store, &urgent));
  g_assert_false (urgent);
  g_assert_false (far_store_next_write (model.store, &write));
  g_assert_cmpuint (far_store_discard (model.store, 0, 2048, 1), ==, 2048);
  /* nothing of the tables was touched */
  for (size_t i = 4096 / 8; i < model.state_bytes / 8; i++)
    g_assert_cmpuint (model.state[i], ==, 0);
  model_clear (&model);
}

static void
test_kinds (void) {
  static const enum far_kind kinds[] = { FAR_RAW, FAR_SAME, FAR_PACKED, FAR_LOST, FAR_RAW };
  struct far_model model;
  uint32_t page = 700;

  model_init (&model, 2048, 100, SLOTS);
  for (unsigned i = 0; i < G_N_ELEMENTS (kinds); i++) {
    model_write (&model, &page, 1, kinds[i]);
    model_check_pages (&model);
    model_recount (&model);
    g_assert_cmpuint (figures_of (&model).pages[kinds[i]], ==, 1);
    g_assert_cmpuint (figures_of (&model).blocks_in_use, ==, 1);
    model_die (&model);
    model_check_pages (&model);
    model_recount (&model);
  }
  model_discard (&model, 0, 2048, 1);
  g_assert_cmpuint (figures_of (&model).blocks_in_use, ==, 0);
  g_assert_cmpuint (figures_of (&model).stored_bytes, ==, 0);
  model_clear (&model);
}

/* A segment that is full is written, one with nothing in it is not. */
static void
test_segment_life (void) {
  struct far_model model;
  struct far_segment where;
  struct far_page page;

  model_init (&model, 2048, 100, SLOTS);
  write_range (&model, 0, 513, FAR_RAW);
  far_store_get (model.store, 0, &page);
  far_store_segment (model.store, page.segment, &where);
  g_assert_cmpint (where.slot, >=, 0);
  g_assert_true (model_begin_write (&model));
  g_assert_cmpuint (model.writes[0].bytes, ==, FAR_SEGMENT_BYTES);
  g_assert_cmpuint (model.writes[0].segment, ==, page.segment);
  g_assert_cmpuint (figures_of (&model).slots_writing, ==, 1);
  g_assert_false (model_begin_write (&model));
  model_end_write (&model, 0, true);
  far_store_segment (model.store, page.segment, &where);
  g_assert_cmpint (where.slot, ==, -1);
  model_check_pages (&model);

  far_store_close_open (model.store); /* the one page */
  g_assert_true (model_begin_write (&model));
  g_assert_cmpuint (model.writes[0].bytes, ==, FAR_PAGE_BYTES);
  model_discard (&model, 512, 1, 1); /* while it is being written: it becomes free when that has ended */
  g_assert_cmpuint (figures_of (&model).free, ==, model.geometry.n_places - 2);
  model_end_write (&model, 0, true);
  g_assert_cmpuint (figures_of (&model).free, ==, model.geometry.n_places - 1);

  write_range (&model, 600, 1, FAR_PACKED);
  far_store_close_open (model.store);
  model_discard (&model, 600, 1, 1); /* before it is written: it never is */
  g_assert_false (model_begin_write (&model));
  g_assert_cmpuint (figures_of (&model).slots_free, ==, SLOTS);
  model_discard (&model, 0, 512, 512);
  g_assert_cmpuint (figures_of (&model).free, ==, model.geometry.n_places);
  model_recount (&model);
  model_clear (&model);
}

/* Closed, and empty, but somebody is about to commit into it. */
static void
test_spots_are_kept (void) {
  struct far_model model;
  struct far_spot spot, other;
  struct far_change change;
  uint32_t pages[2] = { 1, 2 };

  model_init (&model, 2048, 100, SLOTS);
  model_write (&model, pages, 1, FAR_RAW);
  g_assert_cmpint (far_store_place (model.store, FAR_CLASS_RAW, FAR_PAGE_BYTES, &spot), ==, FAR_ROOM);
  far_store_close_open (model.store);
  model_discard (&model, 1, 1, 1);
  g_assert_cmpuint (figures_of (&model).slots_free, ==, SLOTS - 1);
  for (unsigned i = 0; i < 600; i++) { /* nobody else gets there */
    g_assert_cmpint (far_store_place (model.store, FAR_CLASS_PACKED, FAR_PAGE_BYTES / 2, &other), ==, FAR_ROOM);
    g_assert_cmpuint (other.segment, !=, spot.segment);
  }
  change = (struct far_change){ .page = 2,
                                .now = { .kind = FAR_RAW,
                                         .bytes = FAR_PAGE_BYTES,
                                         .segment = spot.segment,
                                         .offset = spot.offset,
                                         .version = far_store_take_versions (model.store, 1) } };
  far_store_commit (model.store, &change, 1);
  model.versions++;
  model_recount (&model);
  model_discard (&model, 2, 1, 1);
  model.pages[2].kind = FAR_NONE;
  g_assert_cmpuint (figures_of (&model).slots_free, ==, SLOTS - 1); /* the other one */
  model_recount (&model);
  model_clear (&model);
}

static void
test_cleaned_segments_take_both (void) {
  struct far_model model;
  struct far_spot spot;
  uint32_t up = 0, down = FAR_SEGMENT_BYTES, segment;

  model_init (&model, 2048, 100, SLOTS);
  for (unsigned i = 0; i < 200; i++) {
    g_assert_cmpint (far_store_place (model.store, FAR_CLASS_CLEANED, FAR_PAGE_BYTES, &spot), ==, FAR_ROOM);
    g_assert_cmpuint (spot.offset, ==, up);
    up += FAR_PAGE_BYTES;
    g_assert_cmpint (far_store_place (model.store, FAR_CLASS_CLEANED, 1000, &spot), ==, FAR_ROOM);
    down -= 1024;
    g_assert_cmpuint (spot.offset, ==, down);
  }
  segment = spot.segment;
  while (down - up >= FAR_PAGE_BYTES) {
    g_assert_cmpint (far_store_place (model.store, FAR_CLASS_CLEANED, FAR_PAGE_BYTES, &spot), ==, FAR_ROOM);
    g_assert_cmpuint (spot.segment, ==, segment);
    up += FAR_PAGE_BYTES;
  }
  while (down > up) {
    g_assert_cmpint (far_store_place (model.store, FAR_CLASS_CLEANED, 1, &spot), ==, FAR_ROOM);
    g_assert_cmpuint (spot.segment, ==, segment);
    down -= FAR_UNIT_BYTES;
  }
  g_assert_cmpint (far_store_place (model.store, FAR_CLASS_CLEANED, 1, &spot), ==, FAR_ROOM);
  g_assert_cmpuint (spot.segment, !=, segment);
  model_clear (&model);
}

/* The stage is full when all wait for storage, but one slot is left for cleaning. */
static void
test_stage_full (void) {
  struct far_model model;
  struct far_spot spot;
  struct far_write write;
  unsigned n = 0;

  model_init (&model, 16 * 512, 100, SLOTS);
  while (far_store_place (model.store, FAR_CLASS_RAW, FAR_PAGE_BYTES, &spot) == FAR_ROOM)
    n++;
  g_assert_cmpuint (n, ==, (SLOTS - 1) * 512);
  g_assert_cmpint (far_store_place (model.store, FAR_CLASS_RAW, FAR_PAGE_BYTES, &spot), ==, FAR_ROOM_STAGE_FULL);
  g_assert_cmpint (far_store_place (model.store, FAR_CLASS_PACKED, 100, &spot), ==, FAR_ROOM_STAGE_FULL);
  g_assert_cmpint (far_store_place (model.store, FAR_CLASS_CLEANED, 100, &spot), ==, FAR_ROOM);
  g_assert_true (far_store_next_write (model.store, &write)); /* what was closed first */
  g_assert_cmpuint (write.segment, ==, 0);
  g_assert_cmpint (far_store_place (model.store, FAR_CLASS_RAW, FAR_PAGE_BYTES, &spot), ==, FAR_ROOM_STAGE_FULL);
  far_store_written (model.store, write.segment);
  g_assert_cmpint (far_store_place (model.store, FAR_CLASS_RAW, FAR_PAGE_BYTES, &spot), ==, FAR_ROOM);
  model_clear (&model);
}

static void
test_cover (void) {
  struct far_model model;
  struct far_spot spot;
  bool urgent;

  model_init (&model, 16 * 512, 100, SLOTS);
  far_store_close (model.store);
  memset (model.state, 0, model.state_bytes);
  far_store_format (model.state, &model.geometry);
  model_open (&model);
  g_assert_cmpint (far_store_place (model.store, FAR_CLASS_RAW, FAR_PAGE_BYTES, &spot), ==, FAR_ROOM_NONE);
  g_assert_cmpint (far_store_place (model.store, FAR_CLASS_CLEANED, FAR_PAGE_BYTES, &spot), ==, FAR_ROOM_NONE);
  far_store_cover (model.store, FAR_RESERVED_PLACES + 1);
  g_assert_cmpint (far_store_place (model.store, FAR_CLASS_RAW, FAR_PAGE_BYTES, &spot), ==, FAR_ROOM);
  g_assert_cmpint (far_store_place (model.store, FAR_CLASS_PACKED, 100, &spot), ==, FAR_ROOM_NONE);
  g_assert_cmpint (far_store_place (model.store, FAR_CLASS_CLEANED, 100, &spot), ==, FAR_ROOM);
  (void)far_store_wants_cleaning (model.store, &urgent);
  g_assert_true (urgent);
  far_store_cover (model.store, 2); /* grows only */
  g_assert_cmpuint (figures_of (&model).covered, ==, FAR_RESERVED_PLACES + 1);
  far_store_cover (model.store, UINT32_MAX);
  g_assert_cmpuint (figures_of (&model).covered, ==, model.geometry.n_places);
  model_die (&model);
  g_assert_cmpuint (figures_of (&model).covered, ==, model.geometry.n_places);
  g_assert_cmpuint (figures_of (&model).free, ==, model.geometry.n_places); /* what was placed was not committed */
  model_recount (&model);
  model_clear (&model);
}

static void
test_bad_places (void) {
  struct far_model model;
  uint32_t first_place;

  model_init (&model, 2048, 100, SLOTS);
  write_range (&model, 0, 600, FAR_RAW);
  g_assert_true (model_begin_write (&model));
  first_place = model.writes[0].place;
  for (unsigned i = 0; i < 3; i++) {
    model_end_write (&model, 0, false);
    g_assert_cmpuint (figures_of (&model).bad, ==, i + 1);
    model_recount (&model);
    model_check_pages (&model);
    if (i == 1) {
      model_die (&model);
      model_recount (&model);
    }
    g_assert_true (model_begin_write (&model));
    g_assert_cmpuint (model.writes[0].place, !=, first_place);
  }
  model_end_write (&model, 0, true);
  model_check_pages (&model);
  model_write_out (&model);
  model_die (&model);
  g_assert_cmpuint (figures_of (&model).bad, ==, 3);
  model_check_pages (&model);
  model_recount (&model);
  /* not as long as there is something to clean */
  while (model_put (&model, FAR_CLASS_RAW, (uint32_t)testing_below (model.rand, 599)))
    ;
  g_assert_cmpuint (figures_of (&model).bad, ==, 3);
  g_assert_true (model_clean (&model));
  model_recount (&model);
  model_clear (&model);
}

/* Every place turns bad: the last free one stays, and what is staged is written to its own place when storage is well again. */
static void
test_no_other_place (void) {
  struct far_model model;
  uint32_t place;

  model_init (&model, 2048, 100, SLOTS);
  write_range (&model, 0, 512 + 1, FAR_RAW); /* one to fail, and one that is open */
  while (figures_of (&model).free > 1) {
    g_assert_true (model_begin_write (&model));
    model_end_write (&model, 0, false);
  }
  for (unsigned i = 0; i < 3; i++) {
    g_assert_true (model_begin_write (&model));
    place = model.writes[0].place;
    g_assert_false (far_store_not_written (model.store, model.writes[0].segment));
    model.n_writes = 0;
    model_recount (&model);
    model_check_pages (&model);
    if (i == 1)
      model_die (&model);
  }
  g_assert_true (model_begin_write (&model));
  g_assert_cmpuint (model.writes[0].place, ==, place);
  model_end_write (&model, 0, true);
  model_recount (&model);
  model_check_pages (&model);
  /* and bad ones are tried again before anything is refused */
  g_assert_cmpuint (figures_of (&model).bad, >, FAR_RESERVED_PLACES);
  write_range (&model, 513, 1000, FAR_RAW);
  g_assert_cmpuint (figures_of (&model).bad, ==, 0);
  model_recount (&model);
  model_check_pages (&model);
  model_clear (&model);
}

/* Storage that fails every other time for a while, on a disk that is full and goes on being written to: nobody is refused for
 * good, and when it is well again, all is. */
static void
test_failing_storage (void) {
  const unsigned steps = testing_steps (20000);
  struct far_model model;
  unsigned n_refused = 0;

  model_init (&model, 8 * 512, 60, SLOTS);
  write_range (&model, 0, 8 * 512, FAR_RAW);
  for (unsigned i = 0; i < steps; i++) {
    bool urgent;

    model.failing = i < steps / 2;
    if (far_store_wants_cleaning (model.store, &urgent))
      (void)model_clean (&model);
    if (!model_put (&model, FAR_CLASS_RAW, (uint32_t)testing_below (model.rand, 8 * 512)))
      n_refused++;
    if (i % 500 == 0) {
      model_recount (&model);
      model_check_pages (&model);
    }
  }
  g_assert_cmpuint (n_refused, <, steps / 2);
  if (steps >= 10000)
    g_assert_cmpuint (model.bad, >, 20);
  model_write_out (&model);
  write_range (&model, 0, 8 * 512, FAR_RAW); /* as if nothing had been */
  model_recount (&model);
  model_check_pages (&model);
  model_clear (&model);
}

static void
test_discard_limits (void) {
  struct far_model model;

  model_init (&model, 4096, 100, SLOTS);
  write_range (&model, 100, 1000, FAR_RAW);
  g_assert_cmpuint (far_store_discard (model.store, 0, 4096, 10), ==, 110);
  g_assert_cmpuint (far_store_discard (model.store, 110, 3986, 2000), ==, 3986);
  g_assert_cmpuint (figures_of (&model).pages[FAR_NONE], ==, 4096);
  model_clear (&model);
}

/* A victim that can't be read is spared: others come first, for some time. */
static void
test_spared_victims (void) {
  struct far_model model;
  uint32_t first, second, victim, page = 7 * 512;

  model_init (&model, 8 * 512, 100, SLOTS);
  write_range (&model, 0, 1025, FAR_RAW);
  model_write_out (&model);
  model_discard (&model, 0, 300, 300);
  model_discard (&model, 512, 200, 200);
  g_assert_true (far_store_victim (model.store, &first));
  g_assert_cmpuint (first, ==, 0);
  far_store_spare_victim (model.store, first);
  model_recount (&model);
  g_assert_true (far_store_victim (model.store, &second));
  g_assert_cmpuint (second, ==, 1);
  model_discard (&model, 300, 10, 10); /* that changes nothing */
  g_assert_true (far_store_victim (model.store, &victim));
  g_assert_cmpuint (victim, ==, second);
  for (unsigned i = 0; i < 3; i++) { /* no other: in turn */
    far_store_spare_victim (model.store, second);
    model_recount (&model);
    g_assert_true (far_store_victim (model.store, &victim));
    g_assert_cmpuint (victim, ==, first);
    far_store_spare_victim (model.store, first);
    g_assert_true (far_store_victim (model.store, &victim));
    g_assert_cmpuint (victim, ==, second);
  }
  model_discard (&model, 512, 512, 512); /* the second one is free */
  g_assert_true (far_store_victim (model.store, &victim));
  g_assert_cmpuint (victim, ==, first);
  model_recount (&model);
  far_store_close_open (model.store);
  for (unsigned i = 1; i < FAR_SPARED_FOR; i++) { /* as many as it takes */
    g_assert_cmpuint (model.store->live[first].bucket, ==, FAR_BUCKET_SPARED);
    model_write (&model, &page, 1, FAR_RAW);
    model_discard (&model, page, 1, 1);
    far_store_close_open (model.store);
  }
  g_assert_cmpuint (model.store->live[first].bucket, <, FAR_BUCKETS);
  g_assert_true (model_clean (&model));
  model_recount (&model);
  model_check_pages (&model);
  model_clear (&model);
}

/* Segments go on being filled after a death, so many deaths do not cost many places. */
static void
test_many_deaths (void) {
  struct far_model model;
  uint32_t page;

  model_init (&model, 2048, 100, SLOTS);
  for (page = 0; page < 1000; page++) {
    model_write (&model, &page, 1, page % 2 ? FAR_RAW : FAR_PACKED);
    model_die (&model);
    model_recount (&model);
  }
  g_assert_cmpuint (model.segments_written, <=, 3);
  model_check_pages (&model);
  model_clear (&model);
}

static void
test_last_page (void) {
  struct far_model model;
  uint32_t pages[] = { 0, 511, 512, 2047 };

  model_init (&model, 2048, 100, SLOTS);
  model_write (&model, pages, 4, FAR_RAW);
  model_die (&model);
  model_check_pages (&model);
  g_assert_cmpuint (figures_of (&model).blocks_in_use, ==, 3);
  model_recount (&model);
  model_clear (&model);
}

static void
test_random (void) {
  const unsigned steps = testing_steps (20000);
  struct far_model model;

  for (unsigned round = 0; round < 4; round++) {
    model_init (&model, 6 * 512 + 512 * round, 20 + 300 * round, SLOTS - round % 2);
    for (unsigned i = 0; i < round; i++)
      (void)g_rand_int (model.rand); /* another sequence in each round */
    for (unsigned i = 0; i < steps; i++) {
      model_step (&model);
      if (i % 50 == 0)
        model_recount (&model);
      if (i % 200 == 0)
        model_check_pages (&model);
      if (testing_once_in (model.rand, 150)) {
        model_die (&model);
        model_recount (&model);
        model_check_pages (&model);
      }
    }
    testing_trace ("%lu pages written, %lu moved, %lu segments", model.pages_written, model.pages_moved,
                   model.segments_written);
    model_clear (&model);
  }
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/far-store/a geometry is checked", test_geometry);
  g_test_add_func ("/far-store/tables take less than one percent", test_overhead);
  g_test_add_func ("/far-store/a fresh store is empty, and touches nothing", test_fresh);
  g_test_add_func ("/far-store/a page of each kind", test_kinds);
  g_test_add_func ("/far-store/the first and the last page", test_last_page);
  g_test_add_func ("/far-store/a segment is staged, written, and free when nothing lives in it", test_segment_life);
  g_test_add_func ("/far-store/a spot is its page's until it is committed", test_spots_are_kept);
  g_test_add_func ("/far-store/cleaned segments take whole and packed pages", test_cleaned_segments_take_both);
  g_test_add_func ("/far-store/a full stage leaves a slot for cleaning", test_stage_full);
  g_test_add_func ("/far-store/only covered places are used, the last ones by cleaning", test_cover);
  g_test_add_func ("/far-store/a bad place is given up", test_bad_places);
  g_test_add_func ("/far-store/without another place a segment is written to its own again", test_no_other_place);
  g_test_add_func ("/far-store/storage that fails for a while", test_failing_storage);
  g_test_add_func ("/far-store/a discard ends after so many pages", test_discard_limits);
  g_test_add_func ("/far-store/a victim that can't be cleaned is spared for a while", test_spared_victims);
  g_test_add_func ("/far-store/many deaths do not cost many places", test_many_deaths);
  g_test_add_func ("/far-store/any sequence of calls", test_random);
  return g_test_run ();
}
