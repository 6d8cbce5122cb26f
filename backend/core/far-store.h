/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The page store of one far disk: where each 4 KiB page of the disk is, and which version of it.
 *
 * Pages are sealed (io/seal.h) and appended to segments of 2 MiB. A segment is filled in memory (a slot of the stage), then
 * written as a whole to its place in the storage copy; a page is never changed where it lies, its next version is appended
 * somewhere else (Rosenblum and Ousterhout, "The Design and Implementation of a Log-Structured File System", 1992). So storage
 * sees writes of 2 MiB only, packed pages take no more than they need, and whatever is being written, the version before it is
 * still whole. Segments with few live pages are cleaned: what lives in them is appended again, as it is, under its old seal.
 *
 *   page table     where each page is       32 bytes a page    ┐ in the state, which outlives the process
 *   segment table  where each segment is     8 bytes a segment ┘
 *   lists          which pages a segment has 8 bytes a page      rebuilt by far_store_open
 *
 * which is 0.98 % of the disk's size (far_store_overhead_bytes says exactly).
 *
 * The state is memory that outlives the process (a memfd that the keeper holds), not the host: the memory of a VM dies with its
 * host, and so does the key of the seals. It is good at every instant, because it is changed in two ways only:
 *   – one aligned 8-byte store (next_version, a segment that is staged or no more, a page that is discarded);
 *   – a commit: the new values are written to the journal, one 8-byte store of their number makes them valid, then they are
 *     copied to the tables, and the number goes back to 0. Whoever opens a state with a number in the journal copies again:
 *     copying twice is copying once.
 *
 * Versions: one counter for the disk, never reset while the key lives. far_store_take_versions stores the new counter before a
 * version is used, so a version (the nonce of a seal) is used once, whatever dies in between.
 *
 * Pure: memory comes from outside, nothing blocks, no clock, no cipher. Not thread-safe.
 */
#ifndef DOMYBS_CORE_FAR_STORE_H
#define DOMYBS_CORE_FAR_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FAR_PAGE_BYTES 4096u
#define FAR_SEGMENT_BYTES (2u << 20)
#define FAR_BLOCK_PAGES 512u /* pages of a 2 MiB block of the disk: what is reserved and released */
#define FAR_UNIT_BYTES 256u  /* packed pages take whole units of a segment */
#define FAR_TAG_BYTES 16u
#define FAR_PAGES_MAX (1ull << 32) /* 16 TiB: page numbers have 32 bits */
#define FAR_STAGE_SLOTS_MAX 255u
#define FAR_STAGE_SLOTS_MIN 4u /* one open for each class, one for cleaning, one on its way to storage */
#define FAR_COMMIT_MAX 256u /* changes in one commit */

#define FAR_STATE_VERSION 2u /* 2: places that were given back; without any, version 1 can read it, too */

enum far_kind {
  FAR_NONE = 0,   /* never written, or discarded: reads as zeros */
  FAR_SAME = 1,   /* one 8-byte value, repeated */
  FAR_RAW = 2,    /* 4096 bytes, sealed */
  FAR_PACKED = 3, /* fewer, LZ4 and sealed */
  FAR_LOST = 4,   /* its last copy is gone for certain: an I/O error, until it is written again */
};

enum far_class { FAR_CLASS_RAW, FAR_CLASS_PACKED, FAR_CLASS_CLEANED, FAR_CLASSES }; /* segments are filled with one class */

/* What a store is made for; all of it is written into the state. */
struct far_geometry {
  uint64_t n_pages;       /* a multiple of FAR_BLOCK_PAGES */
  uint32_t n_places;      /* places for segments in the storage copy; ≥ far_store_places_needed */
  uint32_t n_stage_slots; /* of FAR_SEGMENT_BYTES each */
  uint32_t device;        /* the disk's number within its VM: part of each nonce */
};

/* A page. In the state it is 32 bytes. */
struct far_page {
  enum far_kind kind;
  uint32_t bytes;   /* RAW, PACKED: as stored */
  uint32_t segment; /* RAW, PACKED */
  uint32_t offset;  /* in the segment, a multiple of FAR_UNIT_BYTES; RAW: of FAR_PAGE_BYTES */
  uint64_t version; /* RAW, PACKED */
  union {
    uint8_t tag[FAR_TAG_BYTES]; /* RAW, PACKED */
    uint64_t value;             /* SAME */
  };
};

struct far_change {
  uint32_t page;
  struct far_page now;
};

/* Where a segment is at this moment. */
struct far_segment {
  int slot;       /* of the stage: read it there; -1: not staged */
  uint32_t place; /* in the storage copy, in segments; meaningful when it is not staged, or is being written */
};

/* Segments in a row whose places are in a row, too. */
struct far_places {
  uint32_t segment, place; /* the first */
  uint32_t n;
};

/* Room for one page in an open segment. */
struct far_spot {
  uint32_t segment, offset;
  unsigned slot;
};

enum far_room {
  FAR_ROOM = 0,
  FAR_ROOM_STAGE_FULL, /* all slots wait for storage: ask again after a far_store_written */
  FAR_ROOM_NONE,       /* all covered places are in use: cleaning, or covering more of them, may make room */
};

struct far_store; /* private: far-store-internal.h; made and freed by open and close */

/* Places that a disk of n_pages needs: all of its pages, `spare_permille` (less than 20 counts as 20) more for cleaning, one
 * for each slot, and what is kept for cleaning alone. A geometry must have what a spare of 20 ‰ needs. */
uint32_t far_store_places_needed (uint64_t n_pages, unsigned spare_permille, unsigned n_stage_slots);
/* NULL, or why no store can be made so (a constant string). */
const char *far_store_check_geometry (const struct far_geometry *geometry);
size_t far_store_state_bytes (const struct far_geometry *geometry);
/* All that the tables take, in the state and beside it. */
size_t far_store_overhead_bytes (const struct far_geometry *geometry);

/* Writes an empty store into zeroed memory of far_store_state_bytes. Until it is done the first 8 bytes are 0: whoever finds
 * them so may do it again. All versions begin at 1. */
void far_store_format (void *state, const struct far_geometry *geometry);

/* Looks at the header only: whether a process of this version could go on from it; for one that looks while another one still
 * writes. NULL, or why not. */
const char *far_store_check_header (const void *state, size_t bytes, const struct far_geometry *geometry);

/* Goes on from a state (fresh, or of an earlier process): finishes its last commit, checks everything, builds the lists.
 * Segments that were staged are staged still: those that were being written are to be written again (far_store_next_write; no
 * write of theirs may be under way any more when that is called), one of each class may go on being filled, the others are
 * closed. NULL with *ret_why (a constant string) when the state is none, or memory is short; state is unchanged then. state
 * must be aligned to 8 bytes, and stay until close. */
struct far_store *far_store_open (void *state, size_t bytes, const struct far_geometry *geometry, const char **ret_why);
void far_store_close (struct far_store *store);

/* ---- pages ---- */

/* page < n_pages, here and below. */
void far_store_get (const struct far_store *store, uint32_t page, struct far_page *ret_page);

/* Best called some time before a page is looked at or changed (before it is sealed): what is said of it comes into the
 * processor's caches. */
void far_store_prefetch (const struct far_store *store, uint32_t page);

/* The first of n versions that were never used. */
uint64_t far_store_take_versions (struct far_store *store, unsigned n);

/* Room for `bytes` (RAW: FAR_PAGE_BYTES) at the end of the class's open segment, another one being opened when that is full.
 * The room is this page's from then on, whether a commit follows or not (what is not committed is not live); a commit must
 * follow before the segment comes with far_store_next_write. CLEANED takes pages of both kinds, and may use the last places and
 * the last slot, which the others leave alone, so that cleaning can always end (if one segment is cleaned after the other, each
 * to its end). A segment that no more fits into is closed, and comes with far_store_next_write. */
enum far_room far_store_place (struct far_store *store, enum far_class class, uint32_t bytes, struct far_spot *ret_spot);

/* Makes 1 to FAR_COMMIT_MAX changes at once; a page at most once in them. Segments that have no live page any more become free,
 * those that wait to be written as well (not those with a spot that was given and is not committed). Reads of storage that are
 * under way may find another segment's bytes there afterwards: who has read compares the page's version with what far_store_get
 * says then. */
void far_store_commit (struct far_store *store, const struct far_change *changes, unsigned n);

/* Makes [first, + n) NONE, in as many commits as it takes, at most max_pages of those that are not NONE already. Returns how
 * many pages from first on are done with: call again with the rest. */
uint64_t far_store_discard (struct far_store *store, uint64_t first, uint64_t n, unsigned max_pages);

void far_store_segment (const struct far_store *store, uint32_t segment, struct far_segment *ret_segment);
/* The segment that has that place of the storage copy. False: none has. */
bool far_store_segment_at (const struct far_store *store, uint32_t place, uint32_t *ret_segment);
/* Whether a slot of the stage holds nothing: its memory may be given back. */
bool far_store_slot_is_free (const struct far_store *store, unsigned slot);

/* ---- from the stage to storage ---- */

struct far_write {
  uint32_t segment;
  unsigned slot;
  uint32_t place;
  uint32_t bytes; /* from the slot's start; a multiple of FAR_PAGE_BYTES */
};

/* The next closed segment that is to be written, the one that was closed first; marks it as being written. False: there is
 * none. */
bool far_store_next_write (struct far_store *store, struct far_write *ret_write);

/* It was written: its slot is free, it is read from storage. If it has no live page any more, it becomes free as well. */
void far_store_written (struct far_store *store, uint32_t segment);

/* It could not be written, and comes again with far_store_next_write. True: to another place; its own is bad from now on.
 * False: there is no other (the last free one stays for cleaning), it is to be written to its own place again, after a while.
 * Bad places are tried again when a write would be refused otherwise and nothing can be cleaned: storage may be well by then. */
bool far_store_not_written (struct far_store *store, uint32_t segment);

/* How many bytes far_store_next_write would have to write; 0: there is nothing. */
uint32_t far_store_next_write_bytes (const struct far_store *store);

/* To which place; only if there is something. */
uint32_t far_store_next_write_place (const struct far_store *store);

/* Closes what is open, so that it comes with far_store_next_write. */
void far_store_close_open (struct far_store *store);

/* ---- room ---- */

/* The first n places are backed by storage; only those are used, as far as they are not given back. Grows only, up to n_places.
 * Kept in the state. */
void far_store_cover (struct far_store *store, uint32_t n_places);

/* At most `most` places that storage would have to back next, for far_store_cover_places: those that were given back first
 * (unless only_new), then the ones behind those that are covered. False: there are none. */
bool far_store_next_uncovered (struct far_store *store, uint32_t most, bool only_new, struct far_places *ret_places);
/* These, which far_store_next_uncovered has just named (or fewer, from the first on), are backed by storage from now on. */
void far_store_cover_places (struct far_store *store, const struct far_places *places);

/* Takes at most `most` places of free segments out of use, the last ones, as many as lie in a row. When it returns, the caller may
 * have storage give them back; they are not used again before far_store_cover_places. False: there are none beyond those that are
 * kept for cleaning. A process that dies may not have got to it: its successor has all of them given back once more. */
bool far_store_give_back (struct far_store *store, uint32_t most, struct far_places *ret_places);
/* The first places from segment `from` on that are given back, at most `most`. False: there are none. */
bool far_store_given (const struct far_store *store, uint32_t from, uint32_t most, struct far_places *ret_places);

/* The fewest free places since the last call of this. */
uint32_t far_store_fewest_free (struct far_store *store);

/* ---- wear ---- */

/* What core/wear.h wants to be kept, in the state. */
uint64_t far_store_wear_full_at (const struct far_store *store);
void far_store_set_wear_full_at (struct far_store *store, uint64_t full_at_us);

/* ---- cleaning ---- */

/* Whether free places are so few that cleaning should go on, and there is a victim that makes it worth while (the fewer places,
 * the less it takes). Covering more comes before cleaning: while there are places to be covered, this is true only after a
 * FAR_ROOM_NONE, until there is a place again. *ret_urgent, in any case: no segment can be opened for a write. With
 * all places covered, a caller that cleans to the end whenever this says so gets no FAR_ROOM_NONE. */
bool far_store_wants_cleaning (const struct far_store *store, bool *ret_urgent);
/* The written segment with the fewest live bytes (to a page), if cleaning it gains anything. The same again until its pages
 * were moved. */
bool far_store_victim (const struct far_store *store, uint32_t *ret_segment);
/* The same, if at least so many bytes of it are garbage; never one that is spared. */
bool far_store_victim_with (const struct far_store *store, uint32_t garbage_bytes, uint32_t *ret_segment);
/* It can't be cleaned now (its pages can't be read): it is no victim any more until some other segments became free, unless
 * there is no other one: then those that are spared come in turn, and the caller should wait a while before each. */
void far_store_spare_victim (struct far_store *store, uint32_t segment);
/* Up to cap pages that live in a segment, from the start of its list; moving or changing a page takes it off the list. Returns
 * how many. */
unsigned far_store_pages_of (const struct far_store *store, uint32_t segment, uint32_t *pages, unsigned cap);

/* ---- figures ---- */

struct far_figures {
  uint64_t pages[FAR_LOST + 1]; /* by kind */
  uint64_t stored_bytes;        /* of RAW and PACKED, as stored */
  uint64_t blocks_in_use;       /* blocks of the disk with a page that is not NONE */
  uint32_t places, covered, free, bad; /* places; covered: without those that are given back */
  uint32_t given; /* places that were covered, and are given back */
  uint32_t slots, slots_free, slots_writing; /* of the stage; the others are open, or wait to be written */
  uint64_t versions; /* used so far */
};
void far_store_figures (const struct far_store *store, struct far_figures *ret_figures);
/* How many of n blocks of the disk (first + n ≤ all of them) have a page that is not NONE. */
uint64_t far_store_count_blocks (const struct far_store *store, uint64_t first, uint64_t n);

#endif
