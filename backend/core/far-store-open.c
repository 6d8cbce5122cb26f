/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Making a store's state, and going on from one: nothing in it is believed before it was looked at, and nothing in it changes
 * before all of it was found good. What a commit has left in the journal counts as done meanwhile (struct pending).
 */
#include "core/far-store-internal.h"

#include <stdlib.h>
#include <string.h>

#define HEADER_BYTES 4096u

_Static_assert(sizeof (struct far_header) <= HEADER_BYTES, "");

/* ---- layout ---- */

static size_t
round_up (size_t n, size_t to) {
  return (n + to - 1) / to * to;
}

void
far_store_lay_out (const struct far_geometry *geometry, struct far_layout *ret_layout) {
  const size_t n_blocks = geometry->n_pages / FAR_BLOCK_PAGES;
  struct far_layout *l = ret_layout;

  l->journal_at = HEADER_BYTES;
  l->touched_at = round_up (l->journal_at + FAR_RECORDS_MAX * sizeof (struct far_record), 4096);
  l->touched_words = (n_blocks + 63) / 64;
  l->pages_at = round_up (l->touched_at + l->touched_words * sizeof (uint64_t), 4096);
  l->segments_at = l->pages_at + geometry->n_pages * sizeof (struct far_entry);
  l->bytes = round_up (l->segments_at + geometry->n_places * sizeof (uint64_t), 4096);
}

uint32_t
far_store_places_needed (uint64_t n_pages, unsigned spare_permille, unsigned n_stage_slots) {
  const uint64_t full = (n_pages + FAR_BLOCK_PAGES - 1) / FAR_BLOCK_PAGES;
  const uint64_t permille = spare_permille > FAR_SPARE_PERMILLE_MIN ? spare_permille : FAR_SPARE_PERMILLE_MIN;
  uint64_t needed;

  if (full > FAR_PLACES_MAX || permille > 1000000)
    return UINT32_MAX;
  needed = full + (full * permille + 999) / 1000 + n_stage_slots + FAR_RESERVED_PLACES + 1;
  return needed < UINT32_MAX ? (uint32_t)needed : UINT32_MAX;
}

const char *
far_store_check_geometry (const struct far_geometry *geometry) {
  if (geometry->n_pages == 0 || geometry->n_pages % FAR_BLOCK_PAGES)
    return "the disk is not a whole number of 2 MiB blocks";
  if (geometry->n_pages > FAR_PAGES_MAX)
    return "the disk is larger than 16 TiB";
  if (geometry->n_stage_slots < FAR_STAGE_SLOTS_MIN || geometry->n_stage_slots > FAR_STAGE_SLOTS_MAX)
    return "the stage has not between 4 and 255 slots";
  if (geometry->n_places > FAR_PLACES_MAX)
    return "there are more places than can be numbered";
  if (geometry->n_places < far_store_places_needed (geometry->n_pages, 0, geometry->n_stage_slots))
    return "there are fewer places than the disk needs";
  return NULL;
}

size_t
far_store_state_bytes (const struct far_geometry *geometry) {
  struct far_layout layout;

  far_store_lay_out (geometry, &layout);
  return layout.bytes;
}

static size_t
free_words (const struct far_geometry *geometry) {
  return (geometry->n_places + 63) / 64;
}

size_t
far_store_overhead_bytes (const struct far_geometry *geometry) {
  return far_store_state_bytes (geometry) + sizeof (struct far_store) + geometry->n_pages * sizeof (struct far_link)
         + geometry->n_places * sizeof (struct far_live) + geometry->n_pages / FAR_BLOCK_PAGES * sizeof (uint16_t)
         + free_words (geometry) * sizeof (uint64_t);
}

/* ---- the header ---- */

/* So nobody finds the version of one process with the other's oldest reader. */
void
far_store_set_version (struct far_header *header, uint32_t oldest_reader) {
  typedef uint64_t __attribute__ ((may_alias)) word;
  const uint32_t versions[2] = { FAR_STATE_VERSION, oldest_reader };
  uint64_t value;

  _Static_assert(offsetof (struct far_header, version) % 8 == 0
                     && offsetof (struct far_header, oldest_reader) == offsetof (struct far_header, version) + 4,
                 "one aligned word");
  memcpy (&value, versions, sizeof value);
  FAR_STORE (*(word *)(void *)&header->version, value, "far-version-of-state");
}

void
far_store_format (void *state, const struct far_geometry *geometry) {
  struct far_header *header = state;

  memset (header, 0, sizeof *header);
  CRASH_POINT ("far-format");
  header->bytes = far_store_state_bytes (geometry);
  header->n_pages = geometry->n_pages;
  header->n_places = geometry->n_places;
  header->n_stage_slots = geometry->n_stage_slots;
  header->device = geometry->device;
  header->next_version = 1; /* 0 is none */
  far_store_set_version (header, FAR_STATE_OLDEST);
  FAR_STORE (header->magic, FAR_STATE_MAGIC, "far-formatted");
}

const char *
far_store_check_header (const void *state, size_t bytes, const struct far_geometry *geometry) {
  const struct far_header *header = state;

  if ((uintptr_t)state % 8 || bytes < sizeof *header || header->magic != FAR_STATE_MAGIC)
    return "it is no state of a far disk";
  if (header->oldest_reader > FAR_STATE_VERSION)
    return "it was written by a newer version, for that and newer ones only";
  if (header->version < FAR_STATE_OLDEST || header->oldest_reader > header->version)
    return "its version is none that there was";
  if (far_store_check_geometry (geometry) || header->n_pages != geometry->n_pages || header->n_places != geometry->n_places
      || header->n_stage_slots != geometry->n_stage_slots || header->device != geometry->device)
    return "it is for a disk of another shape";
  if (header->bytes != bytes || bytes != far_store_state_bytes (geometry))
    return "its parts are not where they belong";
  return NULL;
}

/* ---- what the journal says ---- */

/* Its records, those of pages first, in the order of their numbers. */
struct pending {
  unsigned n_pages, n_segments;
  uint16_t order[FAR_RECORDS_MAX];
};

static uint64_t
target_of (const struct far_store *store, const struct pending *pending, unsigned i) {
  return store->journal[pending->order[i]].target;
}

static const char *
read_journal (const struct far_store *store, struct pending *pending) {
  const uint64_t n = store->header->n_records;

  pending->n_pages = pending->n_segments = 0;
  if (n > FAR_RECORDS_MAX)
    return "its journal is longer than any";
  for (unsigned i = 0; i < n; i++) {
    const uint64_t target = store->journal[i].target;
    unsigned at = i;

    if (target >> 32 == FAR_RECORD_PAGE && (uint32_t)target < store->geometry.n_pages
        && far_is_touched (store, (uint32_t)target))
      pending->n_pages++;
    else if (target >> 32 == FAR_RECORD_SEGMENT && (uint32_t)target < store->geometry.n_places)
      pending->n_segments++;
    else
      return "its journal changes something that there is not";
    for (; at > 0 && target_of (store, pending, at - 1) > target; at--)
      pending->order[at] = pending->order[at - 1];
    pending->order[at] = (uint16_t)i;
  }
  for (unsigned i = 1; i < n; i++)
    if (target_of (store, pending, i - 1) == target_of (store, pending, i))
      return "its journal changes something twice";
  return NULL;
}

/* The record of a target; NULL: there is none. */
static const struct far_entry *
find_pending (const struct far_store *store, const struct pending *pending, uint64_t target) {
  unsigned low = 0, high = pending->n_pages + pending->n_segments;

  while (low < high) {
    const unsigned middle = (low + high) / 2;
    const uint64_t found = target_of (store, pending, middle);

    if (found == target)
      return &store->journal[pending->order[middle]].now;
    if (found < target)
      low = middle + 1;
    else
      high = middle;
  }
  return NULL;
}

static const struct far_entry *
entry_of (const struct far_store *store, const struct pending *pending, uint32_t page) {
  const struct far_entry *found = NULL;

  if (pending->n_pages)
    found = find_pending (store, pending, (uint64_t)FAR_RECORD_PAGE << 32 | page);
  return found ? found : &store->entries[page];
}

static uint64_t
segment_of (const struct far_store *store, const struct pending *pending, uint32_t segment) {
  const struct far_entry *found = NULL;

  if (pending->n_segments)
    found = find_pending (store, pending, (uint64_t)FAR_RECORD_SEGMENT << 32 | segment);
  return found ? found->where : store->segments[segment];
}

/* ---- segments ---- */

static const char *
take_segment (struct far_store *store, uint32_t segment, uint64_t now, uint64_t *places) {
  const uint32_t place = far_segment_place (now, segment);
  const int number = far_segment_slot (now);
  const uint64_t class = now >> FAR_SEGMENT_CLASS_SHIFT & 3;
  struct far_slot *slot;

  if (now & ~FAR_SEGMENT_ALL)
    return "it has a segment with flags that there are not";
  if (place >= store->covered)
    return "it has a segment at a place that is not covered";
  if (places[place / 64] >> place % 64 & 1)
    return "it has two segments at one place";
  places[place / 64] |= 1ull << place % 64;
  if (number < 0 || now & (FAR_SEGMENT_BAD | FAR_SEGMENT_GIVEN)) {
    const uint64_t flags = now & ~(uint64_t)UINT32_MAX;

    if (flags & ~(FAR_SEGMENT_BAD | FAR_SEGMENT_GIVEN))
      return "it has a segment that is staged and is not";
    if (flags == (FAR_SEGMENT_BAD | FAR_SEGMENT_GIVEN))
      return "it has a bad place that was given back";
    store->n_bad += flags == FAR_SEGMENT_BAD;
    store->n_given += flags == FAR_SEGMENT_GIVEN;
    return NULL;
  }
  if ((unsigned)number >= store->geometry.n_stage_slots || store->slots[number].use != FAR_SLOT_FREE)
    return "it has a segment in a slot that is not its own";
  if (class >= FAR_CLASSES)
    return "it has a segment of a class that there is not";
  slot = &store->slots[number];
  slot->use = now & FAR_SEGMENT_WRITING ? FAR_SLOT_WRITING : FAR_SLOT_CLOSED;
  slot->class = (enum far_class)class;
  slot->segment = segment;
  slot->down = FAR_UNITS;
  store->n_slots_free--;
  return NULL;
}

static const char *
scan_segments (struct far_store *store, const struct pending *pending) {
  uint64_t *places = calloc (free_words (&store->geometry), sizeof *places);
  const char *why = NULL;

  if (!places)
    return "not enough memory for the page store";
  for (uint32_t segment = 0; segment < store->geometry.n_places && !why; segment++) {
    const uint64_t now = segment_of (store, pending, segment);

    if (segment < store->covered)
      why = take_segment (store, segment, now, places);
    else if (now)
      why = "it has a segment that is not covered";
  }
  free (places);
  return why;
}

/* ---- pages ---- */

static const char *
check_stored (const struct far_store *store, const struct pending *pending, const struct far_entry *entry) {
  const uint64_t where = entry->where;
  const uint32_t bytes = far_where_bytes (where), units = far_units (bytes), unit = far_where_unit (where);
  const uint32_t segment = far_where_segment (where);
  const bool raw = far_where_kind (where) == FAR_RAW;

  if (where >> 29 & 7 || bytes == 0 || (raw ? bytes != FAR_PAGE_BYTES || unit % FAR_PAGE_UNITS : bytes >= FAR_PAGE_BYTES))
    return "it has a page of a form that there is not";
  if (segment >= store->covered || unit + units > FAR_UNITS)
    return "it has a page where none can be";
  if (segment_of (store, pending, segment) & FAR_SEGMENT_BAD)
    return "it has a page in a bad place";
  if (segment_of (store, pending, segment) & FAR_SEGMENT_GIVEN)
    return "it has a page in a place that was given back";
  if (store->live[segment].units + units > FAR_UNITS)
    return "it has more pages in a segment than fit into it";
  if (entry->version == 0 || entry->version >= store->header->next_version)
    return "it has a page of a version that was not taken";
  return NULL;
}

/* How far the slot is filled, as far as what lives in it tells. */
static const char *
fill_slot (struct far_store *store, const struct pending *pending, uint64_t where) {
  const int number = far_segment_slot (segment_of (store, pending, far_where_segment (where)));
  const uint32_t unit = far_where_unit (where), end = unit + far_units (far_where_bytes (where));
  const bool raw = far_where_kind (where) == FAR_RAW;
  struct far_slot *slot;

  if (number < 0)
    return NULL;
  slot = &store->slots[number];
  if (slot->class != FAR_CLASS_CLEANED && (slot->class == FAR_CLASS_RAW) != raw)
    return "it has a page in a segment of another class";
  if (slot->class == FAR_CLASS_CLEANED && !raw)
    slot->down = unit < slot->down ? unit : slot->down;
  else
    slot->up = end > slot->up ? end : slot->up;
  return NULL;
}

static const char *
scan_block (struct far_store *store, const struct pending *pending, uint64_t block) {
  const uint64_t first = block * FAR_BLOCK_PAGES;

  for (uint64_t page = first; page < first + FAR_BLOCK_PAGES; page++) {
    const struct far_entry *entry = entry_of (store, pending, (uint32_t)page);
    const uint64_t where = entry->where;
    const char *why;

    if (where == FAR_NONE)
      continue;
    if (far_where_is_stored (where)) {
      why = check_stored (store, pending, entry);
      if (!why)
        why = fill_slot (store, pending, where);
      if (why)
        return why;
    } else if (where != FAR_SAME && where != FAR_LOST) {
      return "it has a page of a kind that there is not";
    }
    far_store_link (store, (uint32_t)page, where);
  }
  return NULL;
}

static const char *
scan_pages (struct far_store *store, const struct pending *pending, const struct far_layout *layout) {
  const uint64_t n_blocks = store->geometry.n_pages / FAR_BLOCK_PAGES;

  for (uint64_t i = 0; i < layout->touched_words; i++)
    for (uint64_t bits = store->touched[i]; bits; bits &= bits - 1) {
      const uint64_t block = i * 64 + (unsigned)__builtin_ctzll (bits);
      const char *why = block < n_blocks ? scan_block (store, pending, block) : "it has blocks behind its end";

      if (why)
        return why;
    }
  return NULL;
}

/* Going through the list of one segment: each unit is one page's. */
struct walk {
  uint32_t page;
  uint32_t left;
  uint64_t used[FAR_UNITS / 64 + 1]; /* one word more, for the carry of the last */
};
/* So many at once: each step waits for memory, and they wait together. */
#define WALKS 8u

/* False: some unit was another page's already. */
static bool
walk_on (const struct far_store *store, const struct pending *pending, struct walk *walk) {
  const uint64_t where = entry_of (store, pending, walk->page)->where;
  const uint32_t unit = far_where_unit (where), shift = unit % 64;
  const uint64_t bits = (1ull << far_units (far_where_bytes (where))) - 1, carry = shift ? bits >> (64 - shift) : 0;
  uint64_t *word = &walk->used[unit / 64];

  if (word[0] & bits << shift || word[1] & carry)
    return false;
  word[0] |= bits << shift;
  word[1] |= carry;
  walk->page = store->links[walk->page].next;
  walk->left--;
  __builtin_prefetch (&store->links[walk->page]);
  __builtin_prefetch (&store->entries[walk->page]);
  return true;
}

static bool
has_overlap (const struct far_store *store, const struct pending *pending, struct walk walks[WALKS]) {
  uint32_t segment = 0;
  bool going = true;

  memset (walks, 0, WALKS * sizeof *walks);
  while (going) {
    going = false;
    for (unsigned i = 0; i < WALKS; i++) {
      struct walk *walk = &walks[i];

      while (walk->left == 0 && segment < store->covered) {
        const struct far_live *live = &store->live[segment++];

        if (live->n_pages) {
          memset (walk, 0, sizeof *walk);
          walk->page = live->head;
          walk->left = live->n_pages;
        }
      }
      if (walk->left == 0)
        continue;
      going = true;
      if (!walk_on (store, pending, walk))
        return true;
    }
  }
  return false;
}

static const char *
check_lists (const struct far_store *store, const struct pending *pending) {
  struct walk walks[WALKS];

  if (has_overlap (store, pending, walks))
    return "it has two pages in one place";
  for (unsigned i = 0; i < store->geometry.n_stage_slots; i++)
    if (store->slots[i].use != FAR_SLOT_FREE && store->slots[i].up > store->slots[i].down)
      return "it has a staged segment that is not filled as they are";
  return NULL;
}

/* ---- going on ---- */

/* The first that stores anything. */
static void
take_over (struct far_store *store) {
  if (store->header->n_records)
    far_store_apply (store);
  far_store_set_version (store->header, store->n_given ? FAR_GIVEN_OLDEST_READER : FAR_STATE_OLDEST);
  for (uint32_t segment = 0; segment < store->covered; segment++) {
    const uint64_t now = store->segments[segment];
    const struct far_live *live = &store->live[segment];

    if (now & (FAR_SEGMENT_BAD | FAR_SEGMENT_GIVEN) || far_segment_slot (now) >= 0)
      continue;
    if (live->n_pages)
      far_store_set_bucket (store, segment, far_bucket_of (live->units));
    else
      far_store_set_free (store, segment);
  }
  store->fewest_free = store->n_free;
}

/* What was staged is staged, and goes on being filled where there is most room left: so a process that dies again and again
 * does not use up the free places. What was being written comes with far_store_next_write; nothing may be added to it. */
static void
take_over_stage (struct far_store *store) {
  for (unsigned number = 0; number < store->geometry.n_stage_slots; number++) {
    struct far_slot *slot = &store->slots[number];
    int *open = &store->open[slot->class];
    const struct far_slot *other = *open >= 0 ? &store->slots[*open] : NULL;
    const uint32_t room = slot->down - slot->up;

    if (slot->use == FAR_SLOT_FREE)
      continue;
    if (store->live[slot->segment].n_pages == 0) {
      slot->use = FAR_SLOT_OPEN; /* it is in no queue, and no write of ours is under way */
      far_store_unstage (store, number);
      continue;
    }
    if (slot->use == FAR_SLOT_CLOSED && room >= FAR_PAGE_UNITS && (!other || room > other->down - other->up)) {
      if (other)
        far_store_enqueue (store, (unsigned)*open);
      slot->use = FAR_SLOT_OPEN;
      *open = (int)number;
      continue;
    }
    far_store_enqueue (store, number);
  }
}

static struct far_store *
new_store (void *state, const struct far_geometry *geometry, const struct far_layout *layout) {
  struct far_store *store = calloc (1, sizeof *store);
  uint8_t *bytes = state;

  if (!store)
    return NULL;
  store->header = state;
  store->journal = (struct far_record *)(void *)(bytes + layout->journal_at);
  store->touched = (uint64_t *)(void *)(bytes + layout->touched_at);
  store->entries = (struct far_entry *)(void *)(bytes + layout->pages_at);
  store->segments = (uint64_t *)(void *)(bytes + layout->segments_at);
  store->geometry = *geometry;
  store->n_slots_free = geometry->n_stage_slots;
  store->lowest_free = geometry->n_places;
  for (unsigned i = 0; i < FAR_CLASSES; i++)
    store->open[i] = -1;
  for (unsigned i = 0; i <= FAR_BUCKET_SPARED; i++)
    store->buckets[i] = FAR_NO_SEGMENT;
  store->links = calloc (geometry->n_pages, sizeof *store->links);
  store->live = calloc (geometry->n_places, sizeof *store->live);
  store->block_pages = calloc (geometry->n_pages / FAR_BLOCK_PAGES, sizeof *store->block_pages);
  store->free_segments = calloc (free_words (geometry), sizeof *store->free_segments);
  if (store->links && store->live && store->block_pages && store->free_segments)
    return store;
  far_store_close (store);
  return NULL;
}

static const char *
scan (struct far_store *store, const struct far_layout *layout) {
  struct pending pending;
  const char *why;

  if (store->header->covered > store->geometry.n_places)
    return "it covers more places than there are";
  store->covered = (uint32_t)store->header->covered;
  if (store->header->next_version == 0 || store->header->next_version > UINT64_MAX / 2)
    return "it has no versions left";
  why = read_journal (store, &pending);
  if (!why)
    why = scan_segments (store, &pending);
  if (!why)
    why = scan_pages (store, &pending, layout);
  return why ? why : check_lists (store, &pending);
}

struct far_store *
far_store_open (void *state, size_t bytes, const struct far_geometry *geometry, const char **ret_why) {
  const char *why = far_store_check_header (state, bytes, geometry);
  struct far_store *store = NULL;
  struct far_layout layout;

  if (!why) {
    far_store_lay_out (geometry, &layout);
    store = new_store (state, geometry, &layout);
    why = store ? scan (store, &layout) : "not enough memory for the page store";
  }
  if (why) {
    far_store_close (store);
    *ret_why = why;
    return NULL;
  }
  take_over (store);
  take_over_stage (store);
  return store;
}

void
far_store_close (struct far_store *store) {
  if (!store)
    return;
  free (store->links);
  free (store->live);
  free (store->block_pages);
  free (store->free_segments);
  free (store);
}
