/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "far-model.h"

#include <string.h>

#include "testing.h"

static void
begin (struct far_model *model, enum model_call call) {
  if (model->begin)
    model->begin (model, call);
}

static void
end (struct far_model *model, enum model_call call) {
  if (model->end)
    model->end (model, call);
}

static uint64_t
below (struct far_model *model, uint64_t n) {
  return testing_below (model->rand, n);
}

/* ---- life and death ---- */

void
model_open (struct far_model *model) {
  const char *why = NULL;

  model->store = far_store_open (model->state, model->state_bytes, &model->geometry, &why);
  g_assert_cmpstr (why, ==, NULL);
  g_assert_nonnull (model->store);
}

void
model_init (struct far_model *model, uint64_t n_pages, unsigned spare_permille, unsigned n_slots) {
  memset (model, 0, sizeof *model);
  model->geometry = (struct far_geometry){
    .n_pages = n_pages,
    .n_places = far_store_places_needed (n_pages, spare_permille, n_slots),
    .n_stage_slots = n_slots,
    .device = 7,
  };
  g_assert_cmpstr (far_store_check_geometry (&model->geometry), ==, NULL);
  model->state_bytes = far_store_state_bytes (&model->geometry);
  model->state = g_malloc0 (model->state_bytes);
  far_store_format (model->state, &model->geometry);
  model->stage = g_new0 (uint32_t, (size_t)n_slots * FAR_UNITS);
  model->storage = g_new0 (uint32_t, (size_t)model->geometry.n_places * FAR_UNITS);
  model->pages = g_new0 (struct model_page, n_pages);
  model->versions = 1;
  model->rand = testing_rand ();
  model_open (model);
  far_store_cover (model->store, model->geometry.n_places);
}

void
model_clear (struct far_model *model) {
  far_store_close (model->store);
  g_free (model->state);
  g_free (model->stage);
  g_free (model->storage);
  g_free (model->pages);
  g_rand_free (model->rand);
}

void
model_copy (struct far_model *copy, const struct far_model *model, const void *state) {
  *copy = *model;
  copy->state = g_memdup2 (state, model->state_bytes);
  copy->stage = g_memdup2 (model->stage, (size_t)model->geometry.n_stage_slots * FAR_UNITS * sizeof (uint32_t));
  copy->storage = g_memdup2 (model->storage, (size_t)model->geometry.n_places * FAR_UNITS * sizeof (uint32_t));
  copy->pages = g_memdup2 (model->pages, model->geometry.n_pages * sizeof *model->pages);
  copy->rand = g_rand_copy (model->rand);
  copy->store = NULL;
  copy->begin = copy->end = NULL;
  copy->n_writes = 0;
}

static uint32_t *
units_of (const struct far_model *model, const struct far_segment *where) {
  return where->slot >= 0 ? &model->stage[(size_t)where->slot * FAR_UNITS] : &model->storage[(size_t)where->place * FAR_UNITS];
}

static void
carry_out (struct far_model *model, const struct far_write *write, bool wholly) {
  const uint32_t *from = &model->stage[(size_t)write->slot * FAR_UNITS];
  uint32_t *to = &model->storage[(size_t)write->place * FAR_UNITS];

  for (uint32_t i = 0; i < FAR_UNITS; i++)
    if (i >= write->bytes / FAR_UNIT_BYTES)
      to[i] = 0; /* nobody said what is there */
    else if (wholly || testing_once_in (model->rand, 2))
      to[i] = from[i];
}

void
model_die (struct far_model *model) {
  far_store_close (model->store);
  for (unsigned i = 0; i < model->n_writes; i++)
    carry_out (model, &model->writes[i], testing_once_in (model->rand, 3));
  model->n_writes = 0;
  model_open (model);
}

/* ---- writing the stage ---- */

bool
model_begin_write (struct far_model *model) {
  struct far_write *write = &model->writes[model->n_writes];
  bool found;

  begin (model, CALL_NEXT_WRITE);
  found = far_store_next_write (model->store, write);
  end (model, CALL_NEXT_WRITE);
  if (!found)
    return false;
  g_assert_cmpuint (write->bytes, >, 0);
  g_assert_cmpuint (write->bytes, <=, FAR_SEGMENT_BYTES);
  g_assert_cmpuint (write->bytes % FAR_PAGE_BYTES, ==, 0);
  g_assert_cmpuint (write->slot, <, model->geometry.n_stage_slots);
  g_assert_cmpuint (write->place, <, model->store->covered);
  g_assert_cmpuint (model->store->slots[write->slot].pending, ==, 0); /* as the contract says */
  for (unsigned i = 0; i < model->n_writes; i++) {
    g_assert_cmpuint (model->writes[i].slot, !=, write->slot);
    g_assert_cmpuint (model->writes[i].place, !=, write->place);
  }
  model->n_writes++;
  return true;
}

void
model_end_write (struct far_model *model, unsigned index, bool good) {
  const struct far_write write = model->writes[index];

  carry_out (model, &write, good);
  model->writes[index] = model->writes[--model->n_writes];
  model->segments_written++;
  if (good) {
    begin (model, CALL_WRITTEN);
    far_store_written (model->store, write.segment);
    end (model, CALL_WRITTEN);
    return;
  }
  begin (model, CALL_NOT_WRITTEN);
  (void)far_store_not_written (model->store, write.segment);
  end (model, CALL_NOT_WRITTEN);
  model->bad++;
}

void
model_write_out (struct far_model *model) {
  do
    while (model->n_writes)
      model_end_write (model, 0, !model->failing || testing_once_in (model->rand, 2));
  while (model_begin_write (model));
}

/* ---- changing pages ---- */

void
model_after_change (const struct far_page *now, struct model_page *ret_page) {
  const bool stored = now->kind == FAR_RAW || now->kind == FAR_PACKED;

  *ret_page = (struct model_page){ .kind = now->kind,
                                   .bytes = stored ? now->bytes : 0,
                                   .version = stored ? now->version : 0,
                                   .value = now->kind == FAR_SAME ? now->value : 0 };
}

static void
commit (struct far_model *model) {
  if (model->n_changes == 0)
    return;
  begin (model, CALL_COMMIT);
  far_store_commit (model->store, model->changes, model->n_changes);
  end (model, CALL_COMMIT);
  for (unsigned i = 0; i < model->n_changes; i++)
    model_after_change (&model->changes[i].now, &model->pages[model->changes[i].page]);
  model->n_changes = 0;
}

/* ---- places ---- */

static void
lose_bytes (struct far_model *model, const struct far_places *places) {
  uint32_t *units = &model->storage[(size_t)places->place * FAR_UNITS];

  g_assert_cmpuint (places->n, >, 0);
  g_assert_cmpuint (places->place + places->n, <=, model->geometry.n_places);
  for (unsigned i = 0; i < model->n_writes; i++) /* nothing is being written there */
    g_assert_cmpuint (model->writes[i].place - places->place, >=, places->n);
  memset (units, 0, (size_t)places->n * FAR_UNITS * sizeof *units);
}

bool
model_give_back (struct far_model *model, uint32_t most) {
  struct far_places places;
  bool found;

  begin (model, CALL_GIVE_BACK);
  found = far_store_give_back (model->store, most, &places);
  end (model, CALL_GIVE_BACK);
  if (!found)
    return false;
  g_assert_cmpuint (places.n, <=, most);
  lose_bytes (model, &places);
  model->given += places.n;
  return true;
}

bool
model_cover (struct far_model *model, uint32_t most) {
  struct far_places places;

  if (!far_store_next_uncovered (model->store, most, testing_once_in (model->rand, 8), &places)
      && !far_store_next_uncovered (model->store, most, false, &places))
    return false;
  places.n = 1 + (uint32_t)below (model, places.n);
  begin (model, CALL_COVER);
  far_store_cover_places (model->store, &places);
  end (model, CALL_COVER);
  return true;
}

static struct far_spot
place (struct far_model *model, enum far_class class, uint32_t bytes, uint64_t version) {
  struct far_spot spot = { 0 };
  enum far_room room;
  struct far_segment where;

  for (;;) {
    begin (model, CALL_PLACE);
    room = far_store_place (model->store, class, bytes, &spot);
    end (model, CALL_PLACE);
    if (room == FAR_ROOM)
      break;
    if (room == FAR_ROOM_NONE) {
      if (model_cover (model, 1 + (uint32_t)below (model, 6)))
        continue;
      commit (model);
      g_assert_true (class != FAR_CLASS_CLEANED && model_clean (model)); /* nobody cleans before all that was given back is there again */
      continue;
    }
    commit (model); /* before anything is written: the spots are in there */
    if (model->n_writes == 0)
      g_assert_true (model_begin_write (model));
    model_end_write (model, (unsigned)below (model, model->n_writes), !model->failing || testing_once_in (model->rand, 2));
  }
  g_assert_cmpint (room, ==, FAR_ROOM);
  far_store_segment (model->store, spot.segment, &where);
  g_assert_cmpint (where.slot, ==, (int)spot.slot);
  for (uint32_t i = 0; i < far_units (bytes); i++)
    model->stage[(size_t)spot.slot * FAR_UNITS + spot.offset / FAR_UNIT_BYTES + i] = (uint32_t)version;
  return spot;
}

static void
set_tag (struct far_page *page) {
  const uint64_t tag[2] = { page->version * 3, ~page->version };

  memcpy (page->tag, tag, sizeof page->tag);
}

static void
put_stored (struct far_model *model, struct far_page *page, enum far_class class) {
  const struct far_spot spot = place (model, class, page->bytes, page->version);

  page->segment = spot.segment;
  page->offset = spot.offset;
  set_tag (page);
}

static uint64_t
take_versions (struct far_model *model, unsigned n) {
  uint64_t first;

  begin (model, CALL_VERSIONS);
  first = far_store_take_versions (model->store, n);
  end (model, CALL_VERSIONS);
  g_assert_cmpuint (first, ==, model->versions);
  model->versions += n;
  return first;
}

static enum far_kind
some_kind (struct far_model *model) {
  static const enum far_kind kinds[] = { FAR_RAW, FAR_RAW, FAR_RAW, FAR_PACKED, FAR_PACKED, FAR_SAME, FAR_NONE, FAR_LOST };

  return kinds[below (model, G_N_ELEMENTS (kinds))];
}

bool
model_clean (struct far_model *model) {
  uint32_t segment, pages[64];
  unsigned n;

  if (!far_store_victim (model->store, &segment))
    return false;
  model->victims++;
  while ((n = far_store_pages_of (model->store, segment, pages, G_N_ELEMENTS (pages))) > 0) {
    g_assert_cmpuint (model->n_changes, ==, 0);
    for (unsigned i = 0; i < n; i++) {
      struct far_page now;

      model_check_page (model, pages[i]);
      far_store_get (model->store, pages[i], &now);
      g_assert_cmpuint (now.segment, ==, segment);
      put_stored (model, &now, FAR_CLASS_CLEANED);
      model->changes[model->n_changes++] = (struct far_change){ pages[i], now };
    }
    model->pages_moved += n;
    commit (model);
  }
  return true;
}

void
model_keep_clean (struct far_model *model) {
  bool urgent;

  while (far_store_wants_cleaning (model->store, &urgent))
    g_assert_true (model_clean (model));
}

bool
model_put (struct far_model *model, enum far_class class, uint32_t page) {
  struct far_change change = { .page = page };
  struct far_spot spot;
  enum far_room room;

  while ((room = far_store_place (model->store, class, FAR_PAGE_BYTES, &spot)) == FAR_ROOM_STAGE_FULL)
    model_write_out (model);
  if (room != FAR_ROOM)
    return false;
  far_store_get (model->store, page, &change.now);
  for (uint32_t unit = 0; unit < FAR_PAGE_UNITS; unit++)
    model->stage[(size_t)spot.slot * FAR_UNITS + spot.offset / FAR_UNIT_BYTES + unit] = (uint32_t)change.now.version;
  change.now.segment = spot.segment;
  change.now.offset = spot.offset;
  far_store_commit (model->store, &change, 1);
  return true;
}

void
model_write (struct far_model *model, const uint32_t *pages, unsigned n, enum far_kind kind) {
  const uint64_t first = take_versions (model, n);

  model_keep_clean (model);
  for (unsigned i = 0; i < n; i++) {
    struct far_page now = { .kind = kind == FAR_NONE ? some_kind (model) : kind };

    if (now.kind == FAR_SAME)
      now.value = testing_edgy (model->rand);
    if (now.kind == FAR_RAW || now.kind == FAR_PACKED) {
      now.bytes = now.kind == FAR_RAW ? FAR_PAGE_BYTES : 1 + (uint32_t)below (model, FAR_PAGE_BYTES - 1);
      now.version = first + i;
      put_stored (model, &now, now.kind == FAR_RAW ? FAR_CLASS_RAW : FAR_CLASS_PACKED);
    }
    model->changes[model->n_changes++] = (struct far_change){ pages[i], now };
    model->pages_written++;
  }
  commit (model);
}

void
model_discard (struct far_model *model, uint64_t first, uint64_t n, unsigned max_pages) {
  uint64_t done, changed = 0;

  model->discard_first = first;
  model->discard_n = n;
  begin (model, CALL_DISCARD);
  done = far_store_discard (model->store, first, n, max_pages);
  end (model, CALL_DISCARD);
  g_assert_cmpuint (done, <=, n);
  for (uint64_t page = first; page < first + done; page++) {
    changed += model->pages[page].kind != FAR_NONE;
    model->pages[page] = (struct model_page){ 0 };
  }
  g_assert_cmpuint (changed, <=, max_pages);
  if (done < n)
    g_assert_cmpuint (changed, ==, max_pages);
  model->discard_n = 0;
}

/* ---- anything ---- */

static unsigned
some_pages (struct far_model *model, uint32_t *pages) {
  const unsigned n = testing_once_in (model->rand, 12) ? 1 + (unsigned)below (model, FAR_COMMIT_MAX)
                                                       : 1 + (unsigned)below (model, testing_once_in (model->rand, 2) ? 1 : 24);
  const uint64_t n_pages = model->geometry.n_pages;
  g_autoptr (GHashTable) taken = g_hash_table_new (NULL, NULL);
  uint32_t page = (uint32_t)below (model, n_pages);

  for (unsigned i = 0; i < n; i++) {
    page = testing_once_in (model->rand, 4) ? (uint32_t)below (model, n_pages) : (page + 1) % (uint32_t)n_pages;
    while (!g_hash_table_add (taken, GUINT_TO_POINTER (page + 1)))
      page = (uint32_t)below (model, n_pages);
    pages[i] = page;
  }
  return n;
}

void
model_step (struct far_model *model) {
  const uint64_t n_pages = model->geometry.n_pages;
  uint32_t pages[FAR_COMMIT_MAX], segment;
  uint64_t first;
  unsigned n;

  switch (below (model, 25)) {
  case 0:
    first = below (model, n_pages);
    model_discard (model, first, 1 + below (model, n_pages - first), 1 + (unsigned)below (model, 700));
    return;
  case 1:
    model_discard (model, below (model, n_pages), 1, 1);
    return;
  case 2:
    begin (model, CALL_CLOSE_OPEN);
    far_store_close_open (model->store);
    end (model, CALL_CLOSE_OPEN);
    return;
  case 3:
  case 4:
    (void)model_begin_write (model);
    return;
  case 5:
    if (model->n_writes)
      model_end_write (model, (unsigned)below (model, model->n_writes), true);
    return;
  case 6: /* as many as there are places more than are needed */
    if (model->n_writes && testing_once_in (model->rand, 4)
        && model->bad < model->geometry.n_places - far_store_places_needed (n_pages, 0, model->geometry.n_stage_slots))
      model_end_write (model, (unsigned)below (model, model->n_writes), false);
    return;
  case 7:
    if (testing_once_in (model->rand, 3) && far_store_victim (model->store, &segment))
      far_store_spare_victim (model->store, segment);
    else
      (void)model_clean (model);
    return;
  case 8:
    model_write_out (model);
    return;
  case 9:
    if (testing_once_in (model->rand, 3))
      (void)model_cover (model, 1 + (uint32_t)below (model, 3));
    else
      (void)model_give_back (model, 1 + (uint32_t)below (model, 6));
    return;
  default:
    n = some_pages (model, pages);
    model_write (model, pages, n, (const enum far_kind[]){ FAR_NONE, FAR_PACKED, FAR_RAW }[below (model, 3)]);
    return;
  }
}

/* ---- checks ---- */

bool
model_page_is (const struct far_model *model, uint32_t page, const struct model_page *expected) {
  struct far_page now, tagged;
  struct far_segment where;
  const uint32_t *units;

  far_store_get (model->store, page, &now);
  if (now.kind != expected->kind)
    return false;
  if (now.kind == FAR_SAME)
    return now.value == expected->value;
  if (now.kind != FAR_RAW && now.kind != FAR_PACKED)
    return true;
  tagged = now;
  set_tag (&tagged);
  if (now.version != expected->version || now.bytes != expected->bytes || memcmp (now.tag, tagged.tag, sizeof now.tag) != 0)
    return false;
  g_assert_cmpuint (now.segment, <, model->geometry.n_places);
  g_assert_cmpuint (now.offset % (now.kind == FAR_RAW ? FAR_PAGE_BYTES : FAR_UNIT_BYTES), ==, 0);
  g_assert_cmpuint (now.offset + now.bytes, <=, FAR_SEGMENT_BYTES);
  far_store_segment (model->store, now.segment, &where);
  units = units_of (model, &where) + now.offset / FAR_UNIT_BYTES;
  for (uint32_t i = 0; i < far_units (now.bytes); i++)
    g_assert_cmpuint (units[i], ==, (uint32_t)now.version);
  return true;
}

void
model_check_page (const struct far_model *model, uint32_t page) {
  if (!model_page_is (model, page, &model->pages[page]))
    g_error ("page %u is not what it must be", page);
}

void
model_check_pages (const struct far_model *model) {
  for (uint64_t page = 0; page < model->geometry.n_pages; page++)
    model_check_page (model, (uint32_t)page);
}

struct recount {
  struct far_figures figures;
  uint32_t *units, *n_pages; /* of segments */
};

static void
recount_pages (const struct far_model *model, struct recount *recount) {
  for (uint64_t block = 0; block < model->geometry.n_pages / FAR_BLOCK_PAGES; block++) {
    bool in_use = false;

    for (uint64_t page = block * FAR_BLOCK_PAGES; page < (block + 1) * FAR_BLOCK_PAGES; page++) {
      struct far_page now;

      far_store_get (model->store, (uint32_t)page, &now);
      recount->figures.pages[now.kind]++;
      in_use = in_use || now.kind != FAR_NONE;
      if (now.kind != FAR_RAW && now.kind != FAR_PACKED)
        continue;
      recount->figures.stored_bytes += now.bytes;
      recount->units[now.segment] += far_units (now.bytes);
      recount->n_pages[now.segment]++;
    }
    g_assert_cmpuint (far_store_count_blocks (model->store, block, 1), ==, in_use);
    recount->figures.blocks_in_use += in_use;
  }
}

/* Its list has its pages, each at its own units. */
static void
recount_list (const struct far_model *model, const struct recount *recount, uint32_t segment) {
  const struct far_live *live = &model->store->live[segment];
  bool used[FAR_UNITS] = { false };
  uint32_t page = live->head;

  g_assert_cmpuint (live->units, ==, recount->units[segment]);
  g_assert_cmpuint (live->n_pages, ==, recount->n_pages[segment]);
  for (uint32_t i = 0; i < live->n_pages; i++) {
    const struct far_link *link = &model->store->links[page];
    struct far_page now;

    far_store_get (model->store, page, &now);
    g_assert_true (now.kind == FAR_RAW || now.kind == FAR_PACKED);
    g_assert_cmpuint (now.segment, ==, segment);
    for (uint32_t unit = 0; unit < far_units (now.bytes); unit++) {
      g_assert_false (used[now.offset / FAR_UNIT_BYTES + unit]);
      used[now.offset / FAR_UNIT_BYTES + unit] = true;
    }
    g_assert_cmpint (link->prev == page, ==, i == 0);
    g_assert_cmpint (link->next == page, ==, i + 1 == live->n_pages);
    g_assert_true (link->next == page || model->store->links[link->next].prev == page);
    page = link->next;
  }
}

static void
recount_segment (const struct far_model *model, struct recount *recount, uint32_t segment) {
  const struct far_store *store = model->store;
  const uint64_t now = store->segments[segment];
  const int number = far_segment_slot (now);
  const bool is_free = store->free_segments[segment / 64] >> segment % 64 & 1;
  const struct far_live *live = &store->live[segment];

  recount_list (model, recount, segment);
  if (now & FAR_SEGMENT_BAD) {
    recount->figures.bad++;
    g_assert_false (is_free);
    g_assert_cmpint (number, ==, -1);
    g_assert_cmpuint (live->n_pages, ==, 0);
    return;
  }
  if (now & FAR_SEGMENT_GIVEN) {
    recount->figures.given++;
    recount->figures.covered--;
    g_assert_false (is_free);
    g_assert_cmpint (number, ==, -1);
    g_assert_cmpuint (live->n_pages, ==, 0);
    g_assert_cmpuint (segment, >=, store->lowest_given);
    return;
  }
  if (number >= 0) {
    const struct far_slot *slot = &store->slots[number];

    g_assert_false (is_free);
    g_assert_cmpuint (live->bucket, ==, 0);
    g_assert_cmpint (slot->use, !=, FAR_SLOT_FREE);
    g_assert_cmpuint (slot->segment, ==, segment);
    recount->figures.slots_free--;
    recount->figures.slots_writing += slot->use == FAR_SLOT_WRITING;
    g_assert_cmpint (store->open[slot->class] == number, ==, slot->use == FAR_SLOT_OPEN);
    if (slot->use != FAR_SLOT_CLOSED) /* closed, but begun: by a process that has died */
      g_assert_cmpint ((now & FAR_SEGMENT_WRITING) != 0, ==, slot->use == FAR_SLOT_WRITING);
    return;
  }
  g_assert_cmpint (is_free, ==, live->n_pages == 0);
  recount->figures.free += is_free;
  if (is_free) {
    g_assert_cmpuint (segment, >=, store->lowest_free);
    g_assert_cmpuint (segment, <=, store->highest_free);
  }
  if (live->bucket != FAR_BUCKET_SPARED || live->n_pages == 0)
    g_assert_cmpuint (live->bucket, ==, far_bucket_of (live->units));
}

static void
recount_buckets (const struct far_model *model) {
  const struct far_store *store = model->store;
  uint32_t n = 0, expected = 0, victim, fewest = FAR_BUCKETS;

  for (unsigned bucket = 0; bucket <= FAR_BUCKET_SPARED; bucket++) {
    uint32_t before = FAR_NO_SEGMENT;

    if (bucket < FAR_BUCKETS)
      g_assert_cmpint (store->buckets[bucket] != FAR_NO_SEGMENT, ==, store->bucket_bits[bucket / 64] >> bucket % 64 & 1);
    for (uint32_t at = store->buckets[bucket]; at != FAR_NO_SEGMENT; at = store->live[at].next) {
      g_assert_cmpuint (store->live[at].bucket, ==, bucket);
      g_assert_cmpuint (store->live[at].prev, ==, before);
      before = at;
      n++;
    }
  }
  for (uint32_t segment = 0; segment < store->covered; segment++) {
    expected += store->live[segment].bucket != 0;
    if (store->live[segment].bucket)
      fewest = MIN (fewest, store->live[segment].bucket);
  }
  g_assert_cmpuint (n, ==, expected);
  if (far_store_victim (store, &victim) && store->live[victim].bucket != FAR_BUCKET_SPARED)
    g_assert_cmpuint (store->live[victim].bucket, ==, fewest);
}

static void
recount_queue (const struct far_model *model) {
  const struct far_store *store = model->store;
  unsigned closed = 0;

  for (unsigned i = 0; i < model->geometry.n_stage_slots; i++)
    closed += store->slots[i].use == FAR_SLOT_CLOSED;
  g_assert_cmpuint (store->n_queue, ==, closed);
  for (unsigned i = 0; i < store->n_queue; i++) {
    g_assert_cmpint (store->slots[store->queue[i]].use, ==, FAR_SLOT_CLOSED);
    for (unsigned k = 0; k < i; k++)
      g_assert_cmpuint (store->queue[k], !=, store->queue[i]);
  }
}

/* All that are given back are found, in runs. */
static void
recount_given (const struct far_model *model, uint32_t expected) {
  struct far_places places = { 0 };
  uint32_t n = 0;

  for (uint32_t from = 0; far_store_given (model->store, from, 3, &places); from = places.segment + places.n) {
    g_assert_cmpuint (places.n, <=, 3);
    for (uint32_t i = 0; i < places.n; i++, n++) {
      struct far_segment where;

      g_assert_true (model->store->segments[places.segment + i] & FAR_SEGMENT_GIVEN);
      far_store_segment (model->store, places.segment + i, &where);
      g_assert_cmpuint (where.place, ==, places.place + i);
    }
  }
  g_assert_cmpuint (n, ==, expected);
  g_assert_cmpuint (model->store->header->oldest_reader, ==, expected ? 2 : 1); /* older ones would use them */
}

void
model_recount (const struct far_model *model) {
  const struct far_geometry *geometry = &model->geometry;
  struct recount recount = { .figures = { .places = geometry->n_places,
                                          .covered = model->store->covered,
                                          .slots = geometry->n_stage_slots,
                                          .slots_free = geometry->n_stage_slots,
                                          .versions = model->versions - 1 } };
  g_autofree bool *places = g_new0 (bool, geometry->n_places);
  unsigned slots_free = 0;
  struct far_figures figures;

  recount.units = g_new0 (uint32_t, geometry->n_places);
  recount.n_pages = g_new0 (uint32_t, geometry->n_places);
  recount_pages (model, &recount);
  for (uint32_t segment = 0; segment < geometry->n_places; segment++) {
    struct far_segment where;
    uint32_t at;

    far_store_segment (model->store, segment, &where);
    g_assert_true (far_store_segment_at (model->store, where.place, &at));
    g_assert_cmpuint (at, ==, segment);
    g_assert_cmpuint (where.place, <, geometry->n_places);
    g_assert_false (places[where.place]);
    places[where.place] = true;
    if (segment < model->store->covered)
      recount_segment (model, &recount, segment);
  }
  recount_buckets (model);
  recount_queue (model);
  recount_given (model, recount.figures.given);
  g_assert_cmpuint (far_store_count_blocks (model->store, 0, geometry->n_pages / FAR_BLOCK_PAGES), ==,
                    recount.figures.blocks_in_use);
  for (unsigned slot = 0; slot < geometry->n_stage_slots; slot++)
    slots_free += far_store_slot_is_free (model->store, slot);
  g_assert_cmpuint (slots_free, ==, recount.figures.slots_free);
  far_store_figures (model->store, &figures);
  g_assert_cmpmem (&figures, sizeof figures, &recount.figures, sizeof recount.figures);
  g_free (recount.units);
  g_free (recount.n_pages);
}
