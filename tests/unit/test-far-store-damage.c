/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A state that is damaged, or of another version: refused with a reason and left as it is, or good enough to live on with. */
#include "far-model.h"
#include "testing.h"

#include <string.h>

#define PAGES (4 * 512u)

/* A store with all that there can be in one: each kind of page, staged, being written, written and bad segments. */
static void
some_store (struct far_model *model) {
  model_init (model, PAGES, 1000, 6);
  for (unsigned i = 0; i < 150; i++)
    model_step (model);
  while (model->n_writes)
    model_end_write (model, 0, true);
  for (uint32_t i = 0; i < 2 * 512; i += 2)
    model_write (model, &i, 1, FAR_RAW);
  far_store_close_open (model->store);
  if (model_begin_write (model))
    model_end_write (model, 0, false);
  (void)model_begin_write (model);
}

/* What comes of a state: NULL, or why it was refused; then it is as it was. */
static const char *
verdict (const struct far_model *model, uint64_t *state) {
  g_autofree uint64_t *before = g_memdup2 (state, model->state_bytes);
  const char *why = NULL;
  struct far_store *store = far_store_open (state, model->state_bytes, &model->geometry, &why);

  if (store) {
    g_assert_null (why);
    far_store_close (store);
    return NULL;
  }
  g_assert_nonnull (why);
  g_assert_cmpmem (state, model->state_bytes, before, model->state_bytes);
  return why;
}

/* ---- one thing wrong ---- */

struct scene {
  struct far_model model;
  struct far_layout layout;
  uint64_t *state; /* a copy to be damaged */
  struct far_header *header;
  struct far_record *journal;
  struct far_entry *entries;
  uint64_t *segments, *touched;
  uint32_t raw, other, packed;       /* pages */
  uint32_t written, staged, is_free; /* segments */
};

static void
scene_again (struct scene *scene) {
  uint8_t *bytes;

  g_free (scene->state);
  scene->state = g_memdup2 (scene->model.state, scene->model.state_bytes);
  bytes = (uint8_t *)scene->state;
  scene->header = (struct far_header *)(void *)bytes;
  scene->journal = (struct far_record *)(void *)(bytes + scene->layout.journal_at);
  scene->touched = (uint64_t *)(void *)(bytes + scene->layout.touched_at);
  scene->entries = (struct far_entry *)(void *)(bytes + scene->layout.pages_at);
  scene->segments = (uint64_t *)(void *)(bytes + scene->layout.segments_at);
}

static void
scene_init (struct scene *scene) {
  uint32_t pages[2] = { 0, 1 };

  memset (scene, 0, sizeof *scene);
  model_init (&scene->model, PAGES, 150, 6);
  far_store_lay_out (&scene->model.geometry, &scene->layout);
  model_write (&scene->model, pages, 2, FAR_RAW); /* written */
  far_store_close_open (scene->model.store);
  model_write_out (&scene->model);
  pages[0] = 2;
  model_write (&scene->model, pages, 1, FAR_PACKED); /* staged */
  scene->raw = 0;
  scene->other = 1;
  scene->packed = 2;
  scene->written = 0;
  scene->staged = 1;
  scene->is_free = 2;
  scene_again (scene);
  g_assert_cmpuint (far_where_segment (scene->entries[2].where), ==, 1);
}

static void
scene_clear (struct scene *scene) {
  model_clear (&scene->model);
  g_free (scene->state);
}

/* The state is refused for that, and then whole again. */
static void
refused (struct scene *scene, const char *why) {
  g_assert_cmpstr (verdict (&scene->model, scene->state), ==, why);
  scene_again (scene);
}

static void
accepted (struct scene *scene) {
  refused (scene, NULL);
}

static void
test_header (void) {
  struct scene scene;
  struct far_geometry geometry;

  scene_init (&scene);
  accepted (&scene);
  scene.header->magic ^= 1;
  refused (&scene, "it is no state of a far disk");
  scene.header->version = 0;
  refused (&scene, "its version is none that there was");
  scene.header->oldest_reader = FAR_STATE_VERSION + 1;
  refused (&scene, "it was written by a newer version, for that and newer ones only");
  scene.header->version = 9; /* newer, but it says that we can read it */
  accepted (&scene);
  scene.header->device++;
  refused (&scene, "it is for a disk of another shape");
  scene.header->n_stage_slots++;
  refused (&scene, "it is for a disk of another shape");
  scene.header->bytes++;
  refused (&scene, "its parts are not where they belong");
  scene.header->covered = scene.model.geometry.n_places + 1;
  refused (&scene, "it covers more places than there are");
  scene.header->next_version = 0;
  refused (&scene, "it has no versions left");
  scene.header->next_version = UINT64_MAX;
  refused (&scene, "it has no versions left");
  scene.header->next_version = 2;
  refused (&scene, "it has a page of a version that was not taken");
  geometry = scene.model.geometry;
  geometry.n_pages = 5;
  g_assert_nonnull (far_store_check_header (scene.state, scene.model.state_bytes, &geometry));
  g_assert_nonnull (far_store_check_header ((uint8_t *)scene.state + 4, scene.model.state_bytes, &scene.model.geometry));
  g_assert_nonnull (far_store_check_header (scene.state, sizeof (struct far_header) - 1, &scene.model.geometry));
  g_assert_nonnull (far_store_check_header (scene.state, scene.model.state_bytes - 4096, &scene.model.geometry));
  scene_clear (&scene);
}

static void
test_pages (void) {
  static const char form[] = "it has a page of a form that there is not";
  struct scene scene;
  uint64_t *raw, *packed;

  scene_init (&scene);
#define DAMAGE(statement, why)                                                                                                 \
  do {                                                                                                                         \
    raw = &scene.entries[scene.raw].where;                                                                                     \
    packed = &scene.entries[scene.packed].where;                                                                               \
    statement;                                                                                                                 \
    (void)raw;                                                                                                                 \
    (void)packed;                                                                                                              \
    refused (&scene, why);                                                                                                     \
  } while (0)
  DAMAGE (*raw = 5, "it has a page of a kind that there is not");
  DAMAGE (*raw = FAR_SAME | 8, "it has a page of a kind that there is not");
  DAMAGE (*raw = FAR_SAME, NULL);
  DAMAGE (*raw = FAR_LOST, NULL);
  DAMAGE (*raw = 0, NULL);
  DAMAGE (*raw ^= 8, form);                /* not 4096 bytes */
  DAMAGE (*raw ^= 1 << 16, form);          /* not aligned */
  DAMAGE (*raw ^= 1 << 29, form);
  DAMAGE (*packed &= ~(0x1fffull << 3), form); /* 0 bytes */
  DAMAGE (*packed = (*packed & ~(0x1fffull << 3)) | 4096 << 3, form);
  DAMAGE (*packed = (*packed & ~(0x1fffull << 3)) | 1000 << 3 | 0x1fffull << 16, "it has a page where none can be");
  DAMAGE (*raw |= 0xffffffffull << 32, "it has a page where none can be");
  DAMAGE (scene.entries[scene.other].where = *raw, "it has two pages in one place");
  DAMAGE (scene.entries[scene.raw].version = 0, "it has a page of a version that was not taken");
  DAMAGE (scene.entries[scene.raw].version = scene.header->next_version, "it has a page of a version that was not taken");
  DAMAGE (*raw = (*raw & UINT32_MAX) | 1ull << 32, "it has a page in a segment of another class");
  DAMAGE (scene.segments[5] = FAR_SEGMENT_BAD; *raw = (*raw & UINT32_MAX) | 5ull << 32, "it has a page in a bad place");
  DAMAGE (scene.touched[0] |= 1ull << 5, "it has blocks behind its end");
#undef DAMAGE
  /* more than fit, each where it could be */
  for (uint32_t page = 0; page < 512; page++) {
    scene.entries[page] = scene.entries[0];
    scene.entries[page].where = (scene.entries[0].where & ~(0x1fffull << 16)) | (uint64_t)(page % 512 * 16) << 16;
  }
  accepted (&scene);
  for (uint32_t page = 0; page < 512; page++) {
    scene.entries[page] = scene.entries[0];
    scene.entries[page].where = (scene.entries[0].where & ~(0x1fffull << 16)) | (uint64_t)(page % 512 * 16) << 16;
  }
  scene.touched[0] |= 2;
  scene.entries[600] = scene.entries[7];
  refused (&scene, "it has more pages in a segment than fit into it");
  scene_clear (&scene);
}

static void
test_segments (void) {
  static const char not_its_own[] = "it has a segment in a slot that is not its own";
  struct scene scene;

  scene_init (&scene);
#define DAMAGE(segment, value, why)                                                                                            \
  do {                                                                                                                         \
    scene.segments[segment] = (value);                                                                                         \
    refused (&scene, (why));                                                                                                   \
  } while (0)
#define SLOT(n) ((uint64_t)((n) + 1) << FAR_SEGMENT_SLOT_SHIFT)
#define CLASS(n) ((uint64_t)(n) << FAR_SEGMENT_CLASS_SHIFT)
  DAMAGE (3, 1ull << 45, "it has a segment with flags that there are not");
  DAMAGE (3, FAR_SEGMENT_GIVEN, NULL);
  DAMAGE (3, FAR_SEGMENT_GIVEN | FAR_SEGMENT_BAD, "it has a bad place that was given back");
  DAMAGE (3, FAR_SEGMENT_GIVEN | FAR_SEGMENT_WRITING, "it has a segment that is staged and is not");
  DAMAGE (3, FAR_SEGMENT_GIVEN | SLOT (3), "it has a segment that is staged and is not");
  DAMAGE (0, FAR_SEGMENT_GIVEN, "it has a page in a place that was given back");
  DAMAGE (3, 3 ^ 4, "it has two segments at one place");
  DAMAGE (3, UINT32_MAX, "it has a segment at a place that is not covered");
  DAMAGE (3, FAR_SEGMENT_WRITING, "it has a segment that is staged and is not");
  DAMAGE (3, CLASS (1), "it has a segment that is staged and is not");
  DAMAGE (3, FAR_SEGMENT_BAD | SLOT (3), "it has a segment that is staged and is not");
  DAMAGE (3, SLOT (3) | CLASS (3), "it has a segment of a class that there is not");
  DAMAGE (3, SLOT (6), not_its_own);
  DAMAGE (3, SLOT (254), not_its_own);
  DAMAGE (3, SLOT (0), not_its_own); /* that of the packed page */
  DAMAGE (3, SLOT (3) | CLASS (2), NULL); /* nothing lives in it: it is free */
  DAMAGE (3, SLOT (3) | FAR_SEGMENT_WRITING, NULL);
  DAMAGE (3, FAR_SEGMENT_BAD, NULL);
  DAMAGE (0, FAR_SEGMENT_BAD, "it has a page in a bad place");
  scene.segments[3] = 3 ^ 4;
  scene.segments[4] = 4 ^ 3;
  accepted (&scene);
  scene.header->covered = 8;
  scene.segments[3] = 3 ^ 9;
  scene.segments[9] = 9 ^ 3;
  refused (&scene, "it has a segment at a place that is not covered");
  scene.header->covered = 8;
  scene.segments[9] = FAR_SEGMENT_BAD;
  refused (&scene, "it has a segment that is not covered");
#undef DAMAGE
  scene_clear (&scene);
}

static void
test_journal (void) {
  static const char nothing[] = "its journal changes something that there is not";
  struct scene scene;
  const uint64_t page = (uint64_t)FAR_RECORD_PAGE << 32, segment = (uint64_t)FAR_RECORD_SEGMENT << 32;

  scene_init (&scene);
  memset (scene.journal, 0, 3 * sizeof *scene.journal);
  scene.header->n_records = 1;
  refused (&scene, nothing);
  scene.header->n_records = FAR_RECORDS_MAX + 1;
  refused (&scene, "its journal is longer than any");
  scene.header->n_records = UINT64_MAX;
  refused (&scene, "its journal is longer than any");
  scene.header->n_records = 1;
  scene.journal[0].target = page | PAGES;
  refused (&scene, nothing);
  scene.header->n_records = 1;
  scene.journal[0].target = page | 600; /* of a block that was not touched */
  refused (&scene, nothing);
  scene.header->n_records = 1;
  scene.journal[0].target = segment | scene.model.geometry.n_places;
  refused (&scene, nothing);
  scene.header->n_records = 1;
  scene.journal[0].target = 3ull << 32;
  refused (&scene, nothing);
  scene.header->n_records = 2;
  scene.journal[0].target = scene.journal[1].target = page | 3;
  refused (&scene, "its journal changes something twice");
  /* what it says counts: for better … */
  scene.entries[1].where = scene.entries[0].where;
  scene.header->n_records = 2;
  scene.journal[0] = (struct far_record){ .target = page | 1, .now = { .where = FAR_SAME } };
  scene.journal[1] = (struct far_record){ .target = segment | 3, .now = { .where = FAR_SEGMENT_BAD } };
  accepted (&scene);
  /* … and for worse */
  scene.header->n_records = 1;
  scene.journal[0] = (struct far_record){ .target = page | 3, .now = scene.entries[0] };
  refused (&scene, "it has two pages in one place");
  scene.header->n_records = 1;
  scene.journal[0] = (struct far_record){ .target = segment | 0, .now = { .where = FAR_SEGMENT_BAD } };
  refused (&scene, "it has a page in a bad place");
  scene_clear (&scene);
}

/* ---- anything wrong ---- */

/* Whatever it opened on: it can be lived with. What the pages are is not known, so nobody asks for more than that nothing
 * breaks. */
static void
live_on (struct far_model *model) {
  const uint64_t n_pages = model->geometry.n_pages;
  struct far_write write;
  uint32_t segment, pages[16];
  bool urgent;

  for (unsigned i = 0; i < 300; i++) {
    const uint32_t page = (uint32_t)testing_below (model->rand, n_pages);
    struct far_change change = { .page = page, .now = { .kind = FAR_RAW, .bytes = FAR_PAGE_BYTES } };
    struct far_spot spot;

    far_store_get (model->store, page, &change.now);
    if (i % 3 == 0 && far_store_next_write (model->store, &write))
      far_store_written (model->store, write.segment);
    if (far_store_wants_cleaning (model->store, &urgent) && far_store_victim (model->store, &segment))
      (void)far_store_pages_of (model->store, segment, pages, G_N_ELEMENTS (pages));
    if (i % 10 == 0)
      (void)far_store_discard (model->store, page, n_pages - page, 20);
    change.now = (struct far_page){ .kind = FAR_RAW, .bytes = FAR_PAGE_BYTES };
    if (far_store_place (model->store, FAR_CLASS_RAW, FAR_PAGE_BYTES, &spot) != FAR_ROOM)
      continue;
    change.now.segment = spot.segment;
    change.now.offset = spot.offset;
    change.now.version = far_store_take_versions (model->store, 1);
    far_store_commit (model->store, &change, 1);
  }
  model->versions = model->store->header->next_version;
  model_recount (model);
  if (model->versions > UINT64_MAX / 2)
    return; /* the damage left it just below the last one that is let in */
  far_store_close (model->store);
  model->store = NULL;
  model_open (model); /* and what it leaves is good */
  model_recount (model);
}

static void
damage (struct far_model *model, const struct far_layout *layout) {
  uint8_t *bytes = (uint8_t *)model->state;
  const struct {
    size_t at, bytes;
  } parts[] = { { 0, sizeof (struct far_header) },
                { 0, sizeof (struct far_header) },
                { layout->journal_at, 4 * sizeof (struct far_record) },
                { layout->touched_at, layout->touched_words * 8 },
                { layout->pages_at, model->geometry.n_pages * sizeof (struct far_entry) },
                { layout->pages_at, model->geometry.n_pages * sizeof (struct far_entry) },
                { layout->segments_at, model->geometry.n_places * 8 } };
  const unsigned part = (unsigned)testing_below (model->rand, G_N_ELEMENTS (parts));
  const size_t at = parts[part].at + testing_below (model->rand, parts[part].bytes);
  uint64_t edgy;

  switch (testing_below (model->rand, 4)) {
  case 0:
    bytes[at] ^= (uint8_t)(1u << testing_below (model->rand, 8));
    return;
  case 1:
    bytes[at] = (uint8_t)testing_below (model->rand, 256);
    return;
  case 2: /* a word of the same part from elsewhere */
    memcpy (bytes + at / 8 * 8, bytes + (parts[part].at + testing_below (model->rand, parts[part].bytes)) / 8 * 8, 8);
    return;
  default:
    edgy = testing_edgy (model->rand);
    memcpy (bytes + at / 8 * 8, &edgy, 8);
    return;
  }
}

static void
test_random_damage (void) {
  const unsigned rounds = testing_steps (4000);
  struct far_model model;
  struct far_layout layout;
  unsigned n_refused = 0;

  some_store (&model);
  far_store_lay_out (&model.geometry, &layout);
  for (unsigned i = 0; i < rounds; i++) {
    g_autofree uint64_t *before = NULL;
    const char *why = NULL;
    struct far_model copy;

    model_copy (&copy, &model, model.state);
    for (unsigned k = 0; k < i % 13; k++)
      (void)g_rand_int (model.rand); /* the copy's go on from another number */
    if (testing_once_in (model.rand, 3))
      ((struct far_header *)(void *)copy.state)->n_records = 1 + testing_below (model.rand, 4);
    for (uint64_t n = testing_below (copy.rand, 4); n > 0; n--)
      damage (&copy, &layout);
    before = g_memdup2 (copy.state, copy.state_bytes);
    copy.store = far_store_open (copy.state, copy.state_bytes, &copy.geometry, &why);
    if (copy.store) {
      live_on (&copy);
    } else {
      g_assert_nonnull (why);
      g_assert_cmpmem (copy.state, copy.state_bytes, before, copy.state_bytes);
      n_refused++;
    }
    model_clear (&copy);
  }
  if (rounds >= 1000) {
    g_assert_cmpuint (n_refused, >, rounds / 20);
    g_assert_cmpuint (n_refused, <, rounds - rounds / 20);
  }
  model_clear (&model);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/far-store-damage/the header", test_header);
  g_test_add_func ("/far-store-damage/pages", test_pages);
  g_test_add_func ("/far-store-damage/segments", test_segments);
  g_test_add_func ("/far-store-damage/the journal", test_journal);
  g_test_add_func ("/far-store-damage/anything", test_random_damage);
  return g_test_run ();
}
