/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The segments of a store: filling them in the stage, writing them to their places, and which one to clean. */
#include "core/far-store-internal.h"

#include <string.h>

/* ---- free segments ---- */

static void
spare_no_more (struct far_store *store) {
  uint32_t segment;

  while ((segment = store->buckets[FAR_BUCKET_SPARED]) != FAR_NO_SEGMENT)
    far_store_set_bucket (store, segment, far_bucket_of (store->live[segment].units));
}

void
far_store_set_free (struct far_store *store, uint32_t segment) {
  store->free_segments[segment / 64] |= 1ull << segment % 64;
  store->n_free++;
  if (segment < store->lowest_free)
    store->lowest_free = segment;
  if (segment > store->highest_free)
    store->highest_free = segment;
  if (store->n_free > FAR_RESERVED_PLACES)
    store->refused = false;
  if (store->spared_for && --store->spared_for == 0)
    spare_no_more (store);
}

static bool
is_free (const struct far_store *store, uint32_t segment) {
  return store->free_segments[segment / 64] >> segment % 64 & 1;
}

/* There is one. The lowest, so that the end of the storage copy is not used before it must be. */
static uint32_t
take_free (struct far_store *store) {
  uint32_t word = store->lowest_free / 64, segment;

  while (store->free_segments[word] == 0)
    word++;
  segment = word * 64 + (uint32_t)__builtin_ctzll (store->free_segments[word]);
  store->free_segments[word] &= store->free_segments[word] - 1;
  store->n_free--;
  store->lowest_free = segment + 1;
  if (store->n_free < store->fewest_free)
    store->fewest_free = store->n_free;
  return segment;
}

void
far_store_cover (struct far_store *store, uint32_t n_places) {
  const uint32_t before = store->covered;

  if (n_places > store->geometry.n_places)
    n_places = store->geometry.n_places;
  if (n_places <= before)
    return;
  FAR_STORE (store->header->covered, n_places, "far-covered");
  store->covered = n_places;
  for (uint32_t segment = before; segment < n_places; segment++)
    far_store_set_free (store, segment);
}

/* ---- buckets: written segments by what lives in them ---- */

static void
leave_bucket (struct far_store *store, uint32_t segment) {
  struct far_live *live = &store->live[segment];
  const unsigned bucket = live->bucket;

  if (live->prev != FAR_NO_SEGMENT)
    store->live[live->prev].next = live->next;
  else
    store->buckets[bucket] = live->next;
  if (live->next != FAR_NO_SEGMENT)
    store->live[live->next].prev = live->prev;
  if (store->buckets[bucket] == FAR_NO_SEGMENT && bucket != FAR_BUCKET_SPARED)
    store->bucket_bits[bucket / 64] &= ~(1ull << bucket % 64);
  live->bucket = 0;
}

void
far_store_set_bucket (struct far_store *store, uint32_t segment, unsigned bucket) {
  struct far_live *live = &store->live[segment];

  if (live->bucket)
    leave_bucket (store, segment);
  if (bucket == 0)
    return;
  live->bucket = (uint16_t)bucket;
  live->prev = FAR_NO_SEGMENT;
  live->next = store->buckets[bucket];
  if (live->next != FAR_NO_SEGMENT)
    store->live[live->next].prev = segment;
  store->buckets[bucket] = segment;
  if (bucket != FAR_BUCKET_SPARED)
    store->bucket_bits[bucket / 64] |= 1ull << bucket % 64;
}

/* The first bucket that is not empty; FAR_BUCKETS: there is none. */
static unsigned
lowest_bucket (const struct far_store *store) {
  for (unsigned i = 0; i < sizeof store->bucket_bits / sizeof store->bucket_bits[0]; i++)
    if (store->bucket_bits[i])
      return i * 64 + (unsigned)__builtin_ctzll (store->bucket_bits[i]);
  return FAR_BUCKETS;
}

/* One with so much garbage at least, the most there is; FAR_NO_SEGMENT: there is none. */
static uint32_t
best_victim (const struct far_store *store, uint32_t gain_units) {
  const unsigned bucket = lowest_bucket (store);

  return bucket <= (FAR_UNITS - gain_units) / FAR_PAGE_UNITS ? store->buckets[bucket] : FAR_NO_SEGMENT;
}

/* One of those that are spared, for when there is no other; FAR_NO_SEGMENT: there is none. */
static uint32_t
spared_victim (const struct far_store *store) {
  uint32_t segment = store->buckets[FAR_BUCKET_SPARED];

  while (segment != FAR_NO_SEGMENT && store->live[segment].units > FAR_UNITS - FAR_GAIN_UNITS)
    segment = store->live[segment].next;
  return segment;
}

/* ---- the stage ---- */

static void
store_segment (struct far_store *store, uint32_t segment, uint64_t flags) {
  FAR_STORE (store->segments[segment], (store->segments[segment] & UINT32_MAX) | flags, "far-segment");
}

static uint64_t
staged_flags (const struct far_slot *slot, unsigned number) {
  return (uint64_t)(number + 1) << FAR_SEGMENT_SLOT_SHIFT | (uint64_t)slot->class << FAR_SEGMENT_CLASS_SHIFT;
}

void
far_store_enqueue (struct far_store *store, unsigned slot) {
  store->slots[slot].use = FAR_SLOT_CLOSED;
  store->queue[store->n_queue++] = (uint8_t)slot;
}

static void
dequeue (struct far_store *store, unsigned slot) {
  unsigned i = 0;

  while (i < store->n_queue && store->queue[i] != slot)
    i++;
  if (i == store->n_queue)
    return;
  store->n_queue--;
  memmove (&store->queue[i], &store->queue[i + 1], store->n_queue - i);
}

void
far_store_unstage (struct far_store *store, unsigned number) {
  struct far_slot *slot = &store->slots[number];
  const uint32_t segment = slot->segment;
  const struct far_live *live = &store->live[segment];

  store_segment (store, segment, 0);
  if (slot->use == FAR_SLOT_CLOSED)
    dequeue (store, number);
  if (slot->use == FAR_SLOT_WRITING)
    store->n_slots_writing--;
  memset (slot, 0, sizeof *slot);
  store->n_slots_free++;
  if (live->n_pages == 0)
    far_store_set_free (store, segment);
  else
    far_store_set_bucket (store, segment, far_bucket_of (live->units));
}

void
far_store_emptied (struct far_store *store, uint32_t segment) {
  const int number = far_segment_slot (store->segments[segment]);

  if (store->live[segment].n_pages)
    return; /* one came, too */
  if (number >= 0) {
    const struct far_slot *slot = &store->slots[number];

    if (slot->use == FAR_SLOT_CLOSED && slot->pending == 0)
      far_store_unstage (store, (unsigned)number);
    return;
  }
  if (!is_free (store, segment))
    far_store_set_free (store, segment);
}

static void
close_class (struct far_store *store, enum far_class class) {
  const int number = store->open[class];

  if (number < 0)
    return;
  store->open[class] = -1;
  far_store_enqueue (store, (unsigned)number);
  far_store_emptied (store, store->slots[number].segment);
}

/* Bad places are tried again, all of them: storage may be well by now. */
static void
forgive (struct far_store *store) {
  for (uint32_t segment = 0; segment < store->covered && store->n_bad; segment++) {
    if (!(store->segments[segment] & FAR_SEGMENT_BAD))
      continue;
    store_segment (store, segment, 0);
    store->n_bad--;
    far_store_set_free (store, segment);
  }
}

static bool
has_victim (const struct far_store *store) {
  return best_victim (store, FAR_GAIN_UNITS) != FAR_NO_SEGMENT || spared_victim (store) != FAR_NO_SEGMENT;
}

static enum far_room
open_class (struct far_store *store, enum far_class class) {
  const bool cleaned = class == FAR_CLASS_CLEANED;
  const uint32_t kept = cleaned ? 0 : FAR_RESERVED_PLACES;
  /* of the stage, too, one is left for cleaning */
  const unsigned slots_kept = cleaned || store->open[FAR_CLASS_CLEANED] >= 0 ? 0 : 1;
  unsigned number = 0;
  struct far_slot *slot;

  if (store->n_free <= kept && store->n_bad && (cleaned || !has_victim (store)))
    forgive (store);
  if (store->n_free <= kept) {
    store->refused = true;
    return FAR_ROOM_NONE;
  }
  if (store->n_slots_free <= slots_kept)
    return FAR_ROOM_STAGE_FULL;
  while (store->slots[number].use != FAR_SLOT_FREE)
    number++;
  slot = &store->slots[number];
  *slot = (struct far_slot){ .use = FAR_SLOT_OPEN, .class = class, .segment = take_free (store), .down = FAR_UNITS };
  store->n_slots_free--;
  store->open[class] = (int)number;
  store_segment (store, slot->segment, staged_flags (slot, number));
  return FAR_ROOM;
}

static bool
take_room (struct far_store *store, int number, uint32_t bytes, struct far_spot *ret_spot) {
  const uint32_t units = far_units (bytes);
  struct far_slot *slot;
  uint32_t unit;

  if (number < 0)
    return false;
  slot = &store->slots[number];
  if (slot->down - slot->up < units)
    return false;
  if (slot->class == FAR_CLASS_CLEANED && bytes < FAR_PAGE_BYTES) {
    slot->down -= units;
    unit = slot->down;
  } else {
    unit = slot->up;
    slot->up += units;
  }
  slot->pending++;
  ret_spot->segment = slot->segment;
  ret_spot->offset = unit * FAR_UNIT_BYTES;
  ret_spot->slot = (unsigned)number;
  return true;
}

enum far_room
far_store_place (struct far_store *store, enum far_class class, uint32_t bytes, struct far_spot *ret_spot) {
  enum far_room room;

  if (take_room (store, store->open[class], bytes, ret_spot))
    return FAR_ROOM;
  close_class (store, class);
  room = open_class (store, class);
  if (room == FAR_ROOM)
    (void)take_room (store, store->open[class], bytes, ret_spot);
  return room;
}

void
far_store_close_open (struct far_store *store) {
  for (unsigned class = 0; class < FAR_CLASSES; class++)
    close_class (store, (enum far_class)class);
}

void
far_store_segment (const struct far_store *store, uint32_t segment, struct far_segment *ret_segment) {
  const uint64_t now = store->segments[segment];

  ret_segment->slot = far_segment_slot (now);
  ret_segment->place = far_segment_place (now, segment);
}

/* Segments have each other's places, in circles, where some are bad; else their own. */
bool
far_store_segment_at (const struct far_store *store, uint32_t place, uint32_t *ret_segment) {
  uint32_t segment = place;

  for (uint32_t n = 0; n < store->geometry.n_places && segment < store->geometry.n_places; n++) {
    const uint32_t at = far_segment_place (store->segments[segment], segment);

    if (at == place) {
      *ret_segment = segment;
      return true;
    }
    segment = at;
  }
  return false;
}

bool
far_store_slot_is_free (const struct far_store *store, unsigned slot) {
  return store->slots[slot].use == FAR_SLOT_FREE;
}

/* ---- writing ---- */

/* Another place for a staged segment: that of a free one, which gets the bad place. The last free place stays for cleaning:
 * without it nothing would ever become free again. */
static bool
move_away (struct far_store *store, unsigned number) {
  const struct far_slot *slot = &store->slots[number];
  const uint32_t segment = slot->segment;
  uint32_t other, place, other_place;

  if (store->n_free <= 1)
    return false;
  other = take_free (store);
  place = far_segment_place (store->segments[segment], segment);
  other_place = far_segment_place (store->segments[other], other);
  store->journal[0].target = (uint64_t)FAR_RECORD_SEGMENT << 32 | segment;
  store->journal[0].now.where = (other_place ^ segment) | staged_flags (slot, number);
  CRASH_POINT ("far-record-segment");
  store->journal[1].target = (uint64_t)FAR_RECORD_SEGMENT << 32 | other;
  store->journal[1].now.where = (place ^ other) | FAR_SEGMENT_BAD;
  CRASH_POINT ("far-record-bad");
  FAR_STORE (store->header->n_records, 2, "far-committed");
  far_store_apply (store);
  store->n_bad++;
  return true;
}

static uint32_t
bytes_to_write (const struct far_slot *slot) {
  const uint32_t units = slot->down < FAR_UNITS ? FAR_UNITS : slot->up;

  return (units + FAR_PAGE_UNITS - 1) / FAR_PAGE_UNITS * FAR_PAGE_BYTES;
}

uint32_t
far_store_next_write_bytes (const struct far_store *store) {
  return store->n_queue ? bytes_to_write (&store->slots[store->queue[0]]) : 0;
}

uint32_t
far_store_next_write_place (const struct far_store *store) {
  const uint32_t segment = store->slots[store->queue[0]].segment;

  return far_segment_place (store->segments[segment], segment);
}

bool
far_store_next_write (struct far_store *store, struct far_write *ret_write) {
  unsigned number;
  struct far_slot *slot;

  if (store->n_queue == 0)
    return false;
  number = store->queue[0];
  slot = &store->slots[number];
  dequeue (store, number);
  slot->use = FAR_SLOT_WRITING;
  store->n_slots_writing++;
  store_segment (store, slot->segment, staged_flags (slot, number) | FAR_SEGMENT_WRITING);
  ret_write->segment = slot->segment;
  ret_write->slot = number;
  ret_write->place = far_segment_place (store->segments[slot->segment], slot->segment);
  ret_write->bytes = bytes_to_write (slot);
  return true;
}

/* The slot of a segment that is being written; −1: it is not. */
static int
writing_slot (const struct far_store *store, uint32_t segment) {
  const int number = far_segment_slot (store->segments[segment]);

  return number >= 0 && store->slots[number].use == FAR_SLOT_WRITING ? number : -1;
}

void
far_store_written (struct far_store *store, uint32_t segment) {
  const int number = writing_slot (store, segment);

  if (number >= 0)
    far_store_unstage (store, (unsigned)number);
}

bool
far_store_not_written (struct far_store *store, uint32_t segment) {
  const int number = writing_slot (store, segment);

  if (number < 0)
    return false;
  store->n_slots_writing--;
  far_store_enqueue (store, (unsigned)number);
  if (move_away (store, (unsigned)number))
    return true;
  store_segment (store, segment, staged_flags (&store->slots[number], (unsigned)number));
  return false;
}

/* ---- wear ---- */

uint64_t
far_store_wear_full_at (const struct far_store *store) {
  return store->header->wear_full_at;
}

void
far_store_set_wear_full_at (struct far_store *store, uint64_t full_at_us) {
  FAR_STORE (store->header->wear_full_at, full_at_us, "far-wear");
}

/* ---- cleaning ---- */

bool
far_store_victim (const struct far_store *store, uint32_t *ret_segment) {
  const uint32_t best = best_victim (store, FAR_GAIN_UNITS);
  const uint32_t victim = best != FAR_NO_SEGMENT ? best : spared_victim (store);

  if (victim == FAR_NO_SEGMENT)
    return false;
  *ret_segment = victim;
  return true;
}

bool
far_store_victim_with (const struct far_store *store, uint32_t garbage_bytes, uint32_t *ret_segment) {
  const uint32_t units = far_units (garbage_bytes), best = best_victim (store, units > FAR_GAIN_UNITS ? units : FAR_GAIN_UNITS);

  if (best == FAR_NO_SEGMENT)
    return false;
  *ret_segment = best;
  return true;
}

void
far_store_spare_victim (struct far_store *store, uint32_t segment) {
  uint32_t last;

  if (store->live[segment].bucket == 0)
    return;
  far_store_set_bucket (store, segment, 0);
  store->spared_for = FAR_SPARED_FOR;
  last = store->buckets[FAR_BUCKET_SPARED];
  if (last == FAR_NO_SEGMENT) {
    far_store_set_bucket (store, segment, FAR_BUCKET_SPARED);
    return;
  }
  /* at the end: if all are spared, each is tried in its turn */
  while (store->live[last].next != FAR_NO_SEGMENT)
    last = store->live[last].next;
  store->live[last].next = segment;
  store->live[segment].prev = last;
  store->live[segment].next = FAR_NO_SEGMENT;
  store->live[segment].bucket = FAR_BUCKET_SPARED;
}

bool
far_store_wants_cleaning (const struct far_store *store, bool *ret_urgent) {
  const uint32_t spare = store->n_free > FAR_RESERVED_PLACES ? store->n_free - FAR_RESERVED_PLACES : 0;
  /* Places that can still be covered are as good as free ones, until somebody was refused in spite of them. */
  const uint32_t more = store->refused ? 0 : spare + (store->geometry.n_places - store->covered) + store->n_given;

  *ret_urgent = spare == 0;
  if (more > FAR_CLEAN_SOON)
    return false;
  if (more > FAR_CLEAN_NOW)
    return best_victim (store, FAR_GAIN_UNITS_SOON) != FAR_NO_SEGMENT;
  return has_victim (store);
}
