/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inside of a donor's table: the state's layout, and what is rebuilt beside it.
 *
 *   ┌ header ───┐┌ lease table ────┐┌ block table ─┐
 *   │ 4096 bytes ││ 256 bytes each  ││ 8 bytes each │
 *   └────────────┘└─────────────────┘└──────────────┘
 *
 * A process that is killed ends between two instructions, and who comes after it sees all its stores up to there and none
 * behind. So all that is needed for an order is that the compiler keeps it.
 */
#ifndef DOMYBS_CORE_LEASE_DONOR_INTERNAL_H
#define DOMYBS_CORE_LEASE_DONOR_INTERNAL_H

#include "core/crash-point.h"
#include "core/lease-donor.h"

#define LEASE_DONOR_MAGIC 0x53455341454c4f44ull /* "DOLEASES" */
#define LEASE_DONOR_OLDEST 1u

/* One store that is there or is not, after all before it and before all after it; and a place to die at. */
#define LEASE_STORE(target, value, name)                                                                                       \
  do {                                                                                                                         \
    __atomic_signal_fence (__ATOMIC_SEQ_CST);                                                                                  \
    __atomic_store_n (&(target), (value), __ATOMIC_RELEASE);                                                                   \
    __atomic_signal_fence (__ATOMIC_SEQ_CST);                                                                                  \
    CRASH_POINT (name);                                                                                                        \
  } while (0)

/* ---- the state ---- */

struct donor_header {
  uint64_t magic; /* written last: without it, nothing else counts */
  uint32_t version, oldest_reader;
  uint64_t bytes; /* of the state */
  uint64_t n_blocks, n_leases;
  uint8_t incarnation[LEASE_ID_BYTES];
  uint64_t next_number, next_revoke; /* the first that was never used, of leases and epochs, of revokes; 0 is none */
  uint64_t served_ms;                /* how long the donor has served */
};

enum donor_record_state { DONOR_RECORD_LIVE = 0, DONOR_RECORD_ENDING = 1 /* its blocks become dirty, then it is no more */ };

/* A lease. id is written last when it is made, and is the first that goes when it is over. */
struct donor_record {
  uint64_t id; /* 0: there is none, and the rest means nothing */
  uint64_t state;
  uint64_t epoch, session;
  uint64_t level, seq;
  uint64_t export_blocks;
  uint64_t seen_ms;                               /* that the donor had served when its last request came */
  uint64_t revoke, revoke_level, revoke_until_ms; /* revoke 0: the others mean nothing */
  uint64_t disk;
  uint8_t vm[LEASE_ID_BYTES], host[LEASE_ID_BYTES], boot[LEASE_ID_BYTES];
  char identity[LEASE_IDENTITY_BYTES];
  uint64_t reserved[6];
};
_Static_assert(sizeof (struct donor_record) == 256, "");

/* A block of the arena: enum lease_block_state (2 bits), slot (16), block of the export (30), zeroes. FREE and DIRTY have
 * zeroes in the rest. */
#define DONOR_WORD_SLOT_SHIFT 2
#define DONOR_WORD_BLOCK_SHIFT 18
#define DONOR_WORD_ALL ((1ull << 48) - 1)

struct donor_layout {
  size_t leases_at, words_at, bytes;
};

/* ---- beside it ---- */

#define DONOR_NONE UINT32_MAX

/* Of a block of the arena: its neighbours in the list of its lease, or of the dirty ones. */
struct donor_link {
  uint32_t next, prev;
};

struct donor_list {
  uint32_t head, tail, n;
};

/* Of a slot. */
struct donor_slot {
  struct donor_list blocks; /* that it uses */
  uint64_t revoke_seen;
};

struct lease_donor {
  struct donor_header *header;
  struct donor_record *records;
  uint64_t *words;
  uint64_t n_blocks;
  uint32_t n_leases;
  struct lease_donor_ops ops;

  uint64_t limit, promised;
  uint64_t used;
  uint32_t n_live;
  struct donor_slot *slots;
  struct donor_link *links;
  struct donor_list dirty;
  /* From (slot, block of the export) to block of the arena: open addressing, linear probing; 0 is empty, else the block + 1. At
   * most half full. */
  uint32_t *map;
  uint64_t map_mask, hash_key;
  struct buddy buddy;
  void *buddy_memory;

  bool has_clock;
  uint64_t last_ms;
  uint64_t ended_by_end, ended_by_evidence, ended_by_order, ended_by_ttl;
};

static inline enum lease_block_state
donor_word_state (uint64_t word) {
  return (enum lease_block_state) (word & 3);
}

static inline uint32_t
donor_word_slot (uint64_t word) {
  return (uint32_t)(word >> DONOR_WORD_SLOT_SHIFT) & 0xffff;
}

static inline uint64_t
donor_word_block (uint64_t word) {
  return word >> DONOR_WORD_BLOCK_SHIFT;
}

static inline uint64_t
donor_word (uint32_t slot, uint64_t block) {
  return LEASE_BLOCK_USED | (uint64_t)slot << DONOR_WORD_SLOT_SHIFT | block << DONOR_WORD_BLOCK_SHIFT;
}

/* ---- lease-donor-open.c ---- */
void donor_lay_out (const struct lease_donor_geometry *geometry, struct donor_layout *ret_layout);

/* ---- lease-donor-blocks.c ---- */
/* The block of the arena with that word, or DONOR_NONE. */
uint32_t donor_find (const struct lease_donor *donor, uint64_t word);
/* Notes a block whose word says that it is used; false: another one has the same word. */
bool donor_note_used (struct lease_donor *donor, uint32_t block);
void donor_note_dirty (struct lease_donor *donor, uint32_t block);
/* The lease ends: no connection of it writes any more. */
void donor_end_lease (struct lease_donor *donor, uint32_t slot);

#endif
