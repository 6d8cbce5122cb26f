/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inside of a page store: the state's layout, and what is rebuilt beside it.
 *
 *   ┌ header ───┐┌ journal ──┐┌ touched ────────┐┌ page table ──────┐┌ segment table ───┐
 *   │ 4096 bytes ││ see below ││ 1 bit a block   ││ 32 bytes a page  ││ 8 bytes a segment│
 *   └────────────┘└───────────┘└─────────────────┘└──────────────────┘└──────────────────┘
 *
 * Zeroes are the empty store (but for the header), so that of a disk that was never written nothing is touched: memory is
 * taken as the disk is used. That is what `touched` is for, too: reading a hole of a memfd fills it, so the entries of a block
 * are not even looked at before its bit is set, and zeroed before that (nobody has checked what is in there).
 *
 * A process that is killed ends between two instructions, and who comes after it sees all its stores up to there and none
 * behind. So all that is needed for an order is that the compiler keeps it: FAR_ORDER.
 */
#ifndef DOMYBS_CORE_FAR_STORE_INTERNAL_H
#define DOMYBS_CORE_FAR_STORE_INTERNAL_H

#include "core/crash-point.h"
#include "core/far-store.h"

#define FAR_STATE_MAGIC 0x45524f5453524146ull /* "FARSTORE" */
#define FAR_STATE_OLDEST 1u

#define FAR_UNITS (FAR_SEGMENT_BYTES / FAR_UNIT_BYTES) /* of a segment: 8192 */
#define FAR_PAGE_UNITS (FAR_PAGE_BYTES / FAR_UNIT_BYTES)
#define FAR_PLACES_MAX (1u << 30)
/* Free places that only cleaning may take. One would do for an engine that moves one segment at a time, and always to its
 * end. */
#define FAR_RESERVED_PLACES 3u
#define FAR_SPARE_PERMILLE_MIN 20u
/* Cleaning begins when so many more are left than the reserved ones: as late as possible, because every overwrite until then
 * makes it cheaper. At the first it waits for a segment with at least 1/16 of garbage. At the second it does not: one commit
 * may open a segment of each of two classes. */
#define FAR_CLEAN_SOON 8u
#define FAR_CLEAN_NOW 2u
/* A victim must have that much of garbage at least: more than what is lost at the end of the segment that its pages go to. */
#define FAR_GAIN_UNITS (2 * FAR_PAGE_UNITS)
#define FAR_GAIN_UNITS_SOON (FAR_UNITS / 16)

#define FAR_ORDER() __atomic_signal_fence (__ATOMIC_SEQ_CST)
/* One store that is there or is not, after all before it and before all after it; and a place to die at. */
#define FAR_STORE(target, value, name)                                                                                         \
  do {                                                                                                                         \
    __atomic_store_n (&(target), (value), __ATOMIC_RELEASE);                                                                   \
    FAR_ORDER ();                                                                                                              \
    CRASH_POINT (name);                                                                                                        \
  } while (0)

/* ---- the state ---- */

/* where: kind (3 bits), bytes (13), first unit in the segment (13), 3 zeroes, segment (32). A kind that is not stored has
 * zeroes in the rest, so that a page is discarded by one store. */
struct far_entry {
  uint64_t where, version;
  uint64_t tag[2]; /* SAME: the value, 0 */
};
_Static_assert (sizeof (struct far_entry) == 32, "");

/* A segment: its place ^ its number (32 bits), slot + 1 (8), class (2), being written (1), bad (1), its place given back (1). Which
 * place a segment has changes only where one is bad; segments and places below `covered` are each other's. While it is not staged,
 * slot, class and being written are 0; at most one of bad and given back is set, and then nothing else. */
#define FAR_SEGMENT_SLOT_SHIFT 32
#define FAR_SEGMENT_CLASS_SHIFT 40
#define FAR_SEGMENT_WRITING (1ull << 42)
#define FAR_SEGMENT_BAD (1ull << 43)
#define FAR_SEGMENT_GIVEN (1ull << 44) /* since version 2 */
#define FAR_SEGMENT_ALL ((1ull << 45) - 1)
#define FAR_GIVEN_OLDEST_READER 2u /* of a state with one */

enum far_record_type { FAR_RECORD_PAGE = 1, FAR_RECORD_SEGMENT = 2 };

struct far_record {
  uint64_t target; /* type << 32 | number */
  struct far_entry now; /* a segment: now.where */
};
#define FAR_RECORDS_MAX FAR_COMMIT_MAX

struct far_header {
  uint64_t magic; /* written last: without it, nothing else counts */
  uint32_t version, oldest_reader;
  uint64_t bytes; /* of the state */
  uint64_t n_pages;
  uint32_t n_places, n_stage_slots;
  uint32_t device, reserved;
  uint64_t next_version; /* the first one that was never taken */
  uint64_t covered;
  uint64_t n_records; /* in the journal; 0: what is in there is nobody's business */
  uint64_t wear_full_at; /* core/wear.h; those who don't know it leave it alone, and 0 is that nothing was spent */
};

struct far_layout {
  size_t journal_at, touched_at, touched_words, pages_at, segments_at, bytes;
};

/* ---- beside it ---- */

/* Of a page: its neighbours in its segment's list. The ends link to themselves, because each of 2³² numbers may be a page. */
struct far_link {
  uint32_t next, prev;
};

/* Of a segment. */
struct far_live {
  uint32_t head;       /* its first page, if it has one */
  uint16_t units, n_pages; /* that live in it */
  uint32_t next, prev; /* in its bucket */
  uint16_t bucket;     /* of written segments by live units, in pages, rounded up; or FAR_BUCKET_SPARED; 0: in none */
};

#define FAR_NO_SEGMENT UINT32_MAX
#define FAR_BUCKETS (FAR_UNITS / FAR_PAGE_UNITS + 1)
#define FAR_BUCKET_SPARED FAR_BUCKETS
/* Spared victims are victims again when so many segments became free. */
#define FAR_SPARED_FOR 64u

enum far_slot_use { FAR_SLOT_FREE = 0, FAR_SLOT_OPEN, FAR_SLOT_CLOSED, FAR_SLOT_WRITING };

/* Of the stage. Whole pages of a segment go upwards from its start; packed ones, too, but downwards from its end in
 * a segment of cleaned pages, which has both: so nothing is lost to alignment. */
struct far_slot {
  enum far_slot_use use;
  enum far_class class;
  uint32_t segment;
  uint32_t up, down; /* units: what is between is free */
  uint32_t pending;  /* spots that were given and are not committed */
};

struct far_store {
  struct far_header *header;
  struct far_record *journal;
  uint64_t *touched;
  struct far_entry *entries;
  uint64_t *segments;
  struct far_geometry geometry;

  struct far_link *links;  /* n_pages */
  struct far_live *live;   /* n_places */
  uint16_t *block_pages;   /* of each block: its pages that are not NONE */
  uint64_t *free_segments; /* bits */
  uint32_t lowest_free;    /* there is none below */
  uint32_t highest_free;   /* nor above */
  uint32_t lowest_given;   /* nor one that was given back below this */
  uint32_t n_free, n_bad, n_given, covered;
  uint32_t fewest_free;
  bool refused; /* there was no place for a write, and there is none since */

  struct far_slot slots[FAR_STAGE_SLOTS_MAX];
  unsigned n_slots_free, n_slots_writing;
  uint8_t queue[FAR_STAGE_SLOTS_MAX]; /* closed ones, in the order in which they were closed */
  unsigned n_queue;
  int open[FAR_CLASSES]; /* slot; −1: none */

  uint32_t buckets[FAR_BUCKETS + 1]; /* the first segment of each, or FAR_NO_SEGMENT */
  uint64_t bucket_bits[(FAR_BUCKETS + 63) / 64]; /* not of the spared ones */
  unsigned spared_for;

  uint64_t n_pages[FAR_LOST + 1]; /* by kind; NONE is not counted */
  uint64_t stored_bytes, blocks_in_use;
  uint32_t emptied[FAR_COMMIT_MAX]; /* segments that lost their last page in this commit */
};

static inline enum far_kind
far_where_kind (uint64_t where) {
  return (enum far_kind)(where & 7);
}

static inline bool
far_where_is_stored (uint64_t where) {
  const enum far_kind kind = far_where_kind (where);

  return kind == FAR_RAW || kind == FAR_PACKED;
}

static inline uint32_t
far_where_bytes (uint64_t where) {
  return (uint32_t)(where >> 3) & 0x1fff;
}

static inline uint32_t
far_where_unit (uint64_t where) {
  return (uint32_t)(where >> 16) & 0x1fff;
}

static inline uint32_t
far_where_segment (uint64_t where) {
  return (uint32_t)(where >> 32);
}

static inline uint32_t
far_units (uint32_t bytes) {
  return (bytes + FAR_UNIT_BYTES - 1) / FAR_UNIT_BYTES;
}

static inline uint64_t
far_where (const struct far_page *page) {
  const uint64_t kind = (uint64_t)page->kind;

  if (page->kind != FAR_RAW && page->kind != FAR_PACKED)
    return kind;
  return kind | (uint64_t)page->bytes << 3 | (uint64_t)(page->offset / FAR_UNIT_BYTES) << 16 | (uint64_t)page->segment << 32;
}

static inline bool
far_is_touched (const struct far_store *store, uint64_t page) {
  const uint64_t block = page / FAR_BLOCK_PAGES;

  return store->touched[block / 64] >> block % 64 & 1;
}

static inline int
far_segment_slot (uint64_t segment) {
  return (int)(segment >> FAR_SEGMENT_SLOT_SHIFT & 0xff) - 1;
}

static inline uint32_t
far_segment_place (uint64_t segment, uint32_t number) {
  return (uint32_t)segment ^ number;
}

/* ---- far-store-open.c ---- */
void far_store_lay_out (const struct far_geometry *geometry, struct far_layout *ret_layout);
/* This version, and the oldest that can read what there is, both in one store. */
void far_store_set_version (struct far_header *header, uint32_t oldest_reader);

/* ---- far-store.c ---- */
/* Copies what is in the journal, and empties it. */
void far_store_apply (struct far_store *store);
/* Adds a page to its segment's list and figures, and those of the store; `where` is that of the page. */
void far_store_link (struct far_store *store, uint32_t page, uint64_t where);

/* ---- far-store-room.c ---- */
/* A segment that has no live page: it becomes free, unless it is open, or is being written, or somebody has a spot in it. */
void far_store_emptied (struct far_store *store, uint32_t segment);
/* The slot is free; the segment is a written one, or free if nothing lives in it. */
void far_store_unstage (struct far_store *store, unsigned slot);
void far_store_enqueue (struct far_store *store, unsigned slot);
void far_store_set_free (struct far_store *store, uint32_t segment);
/* Puts a segment into the bucket that it belongs into, or into none. */
void far_store_set_bucket (struct far_store *store, uint32_t segment, unsigned bucket);

static inline unsigned
far_bucket_of (uint32_t units) {
  return (units + FAR_PAGE_UNITS - 1) / FAR_PAGE_UNITS;
}

#endif
