/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A donor's leases, and which block of the arena belongs to whom (backend/donor/leases.md has the rules and their reasons).
 *
 *   header         incarnation, and the numbers that are never used twice: of leases and epochs, of revokes
 *   lease table    256 bytes a lease    ┐ in the state, which outlives the process
 *   block table      8 bytes a block    ┘
 *   lists, map      16 to 32 bytes a block; rebuilt by lease_donor_open
 *
 * A block of the arena is
 *
 *   FREE ──take──→ USED ──drop, end of the lease──→ DIRTY ──zeroed──→ FREE
 *
 * so what one lease wrote is never seen by another. A level is a promise: the levels of all leases are never more than the
 * arena has blocks, so there is a block for each write within a level (perhaps one that has to be zeroed first).
 *
 * The state is good at every instant, because each change is one aligned 8-byte store, or several in an order in which each
 * prefix is good. Whoever opens it finishes what was begun (a lease whose end had begun ends).
 *
 * Time is the caller's, in ms of a clock that goes on while the machine sleeps and is the same for all processes of a keeper
 * (CLOCK_BOOTTIME). It decides nothing but what an operator has ordered (the ttl), what is shown, and that evidence waits for a
 * while.
 *
 * Pure; not thread-safe. Nothing here believes a number of a peer before it was checked; no memory is taken after
 * lease_donor_open.
 */
#ifndef DOMYBS_CORE_LEASE_DONOR_H
#define DOMYBS_CORE_LEASE_DONOR_H

#include "core/buddy.h"
#include "core/lease.h"

#define LEASE_DONOR_STATE_VERSION 1u
#define LEASE_DONOR_BLOCKS_MAX (1u << 26) /* 128 TiB */
#define LEASE_DONOR_LEASES_MAX 4096u
/* A lease of level 0 has nothing to lose: it is forgotten when nobody has asked for it for so long. */
#define LEASE_DONOR_EMPTY_MS (10u * 60 * 1000)
/* Whom nobody has heard of for so long is detached: shown so, and evidence counts only then. */
#define LEASE_DONOR_DETACHED_MS (20u * 1000)
/* Time that the donor did not look at its clock for counts as so much at most: while it was stopped nobody could reach it. */
#define LEASE_DONOR_STEP_MS (60u * 1000)

struct lease_donor_geometry {
  uint64_t n_blocks; /* of the arena */
  uint32_t n_leases; /* at most */
};

struct lease_donor_ops {
  /* Closes the connections of that lease whose epoch is lower than below_epoch, and says whether nothing of theirs is written
   * any more. False: not yet; then nothing changes, and who has asked is told to ask again. Called again each time. */
  bool (*fence) (void *data, uint64_t lease, uint64_t below_epoch);
  void *data;
};

/* What an identity may have, in all its leases. */
struct lease_donor_limits {
  uint32_t leases;
  uint64_t blocks; /* the sum of their levels */
};

struct lease_donor; /* private; made and freed by open and close */

/* NULL, or why there can't be such a table (a constant string). */
const char *lease_donor_check_geometry (const struct lease_donor_geometry *geometry);
size_t lease_donor_state_bytes (const struct lease_donor_geometry *geometry);
/* Writes a table without leases into zeroed memory of lease_donor_state_bytes, of an arena that is all zeroes. incarnation:
 * random. Until it is done the first 8 bytes are 0: whoever finds them so may do it again. */
void lease_donor_format (void *state, const struct lease_donor_geometry *geometry, const uint8_t incarnation[LEASE_ID_BYTES]);
/* NULL, or why a process of this version could not go on from that state; looks at the header only. */
const char *lease_donor_check_header (const void *state, size_t bytes, const struct lease_donor_geometry *geometry);

/* Goes on from a state, aligned to 8 bytes, in use until close. No connection is open. hash_key: random, told to nobody. NULL
 * with *ret_why (a constant string) when the state is none, or memory is short; it is unchanged then. limit: see
 * lease_donor_set_limit. */
struct lease_donor *lease_donor_open (void *state, size_t bytes, const struct lease_donor_geometry *geometry, uint64_t limit,
                                      uint64_t hash_key, const struct lease_donor_ops *ops, const char **ret_why);
void lease_donor_close (struct lease_donor *donor);

/* ---- requests ---- */

/* A request of that identity (of its TLS key; "" without TLS; shorter than LEASE_IDENTITY_BYTES, or it is refused). All that it
 * brings about is in the table, and the fence has been called, before this returns; then the answer may be sent. */
void lease_donor_step (struct lease_donor *donor, uint64_t now_ms, const char *identity,
                       const struct lease_donor_limits *limits, const struct lease_request *request,
                       struct lease_answer *ret_answer);

/* To be called now and then, at least each LEASE_DONOR_STEP_MS: ends leases of level 0 that nobody asks for, and, if ttl_ms is
 * not 0, those that nobody has asked for while the donor served for so long. Returns how many of the latter it has ended. */
unsigned lease_donor_pass_time (struct lease_donor *donor, uint64_t now_ms, uint64_t ttl_ms);

/* ---- what the operator, or the size of the arena, wants ---- */

/* The levels of all leases grow up to so many blocks in sum; what is promised already stays. At most n_blocks count. */
void lease_donor_set_limit (struct lease_donor *donor, uint64_t blocks);
/* The borrower is to come down to that level until then; replaces an earlier revoke. A level that is not below the one in
 * force: takes the revoke back. False: no such lease. */
bool lease_donor_revoke (struct lease_donor *donor, uint64_t lease, uint64_t level, uint64_t until_ms);
/* Ends a lease, contents and all: the operator knows that they are not needed. False: no such lease, or its connections still
 * end. */
bool lease_donor_forget (struct lease_donor *donor, uint64_t lease);

/* ---- exports: what the page server asks ---- */

/* What a connection may reach; good for one epoch of one lease. */
struct lease_export {
  uint64_t lease, epoch;
  uint32_t slot;
};

/* name: any bytes up to a 0. False with *ret_why (a constant string, for the peer): refused. */
bool lease_donor_export (const struct lease_donor *donor, const char *identity, const char *name,
                         struct lease_export *ret_export, uint64_t *ret_blocks, const char **ret_why);

/* Whether the export's epoch is still that of its lease. What follows refuses others itself. */
bool lease_donor_is_current (const struct lease_donor *donor, const struct lease_export *export);

/* The block of the arena that has that block of the export; false: there is none (it reads as zeroes), or the export is over.
 */
bool lease_donor_look (const struct lease_donor *donor, const struct lease_export *export, uint64_t block,
                       uint64_t *ret_arena_block);

enum lease_take {
  LEASE_TAKEN,         /* *ret_arena_block is its, and was zeroes if *ret_fresh */
  LEASE_TAKE_ZERO,     /* only dirty blocks are left: zero *ret_arena_block, say so (lease_donor_zeroed), and ask again */
  LEASE_TAKE_NO_LEVEL, /* beyond the lease's level */
  LEASE_TAKE_STALE,    /* the export is over */
  LEASE_TAKE_BAD,      /* beyond the export */
};
/* The same for writing; a block that has none gets one. */
enum lease_take lease_donor_take (struct lease_donor *donor, const struct lease_export *export, uint64_t block,
                                  uint64_t *ret_arena_block, bool *ret_fresh);

/* Its contents are not wanted any more: the lease has one block more for other writes. */
void lease_donor_drop (struct lease_donor *donor, const struct lease_export *export, uint64_t block);

/* A block that is to be zeroed; the same again until lease_donor_zeroed. False: there is none. */
bool lease_donor_next_dirty (const struct lease_donor *donor, uint64_t *ret_arena_block);
/* All of it is zeroes, or a hole. False: it is not dirty. */
bool lease_donor_zeroed (struct lease_donor *donor, uint64_t arena_block);

/* ---- to be shown ---- */

enum lease_block_state { LEASE_BLOCK_FREE = 0, LEASE_BLOCK_USED = 1, LEASE_BLOCK_DIRTY = 2 };
enum lease_block_state lease_donor_block (const struct lease_donor *donor, uint64_t arena_block);

struct lease_info {
  uint64_t lease, epoch, session;
  char identity[LEASE_IDENTITY_BYTES];
  uint8_t vm[LEASE_ID_BYTES], host[LEASE_ID_BYTES], boot[LEASE_ID_BYTES];
  uint32_t disk;
  uint64_t export_blocks, level, used;
  uint64_t silent_ms; /* since its last request, as far as the donor has served meanwhile */
  uint64_t revoke;    /* number; 0: none, and the next ones mean nothing */
  uint64_t revoke_level, revoke_until_ms;
  bool revoke_seen; /* the borrower has said so, to this process */
};
/* slot: 0 … n_leases − 1. False: there is none in it. */
bool lease_donor_lease (const struct lease_donor *donor, uint32_t slot, struct lease_info *ret_info);

struct lease_donor_figures {
  uint8_t incarnation[LEASE_ID_BYTES];
  uint64_t blocks, limit;
  uint64_t promised;          /* the sum of all levels */
  uint64_t used, dirty, free; /* blocks of the arena */
  uint32_t leases;
  uint64_t ended_by_end, ended_by_evidence, ended_by_order, ended_by_ttl; /* in this process */
};
void lease_donor_figures (const struct lease_donor *donor, struct lease_donor_figures *ret_figures);
const struct buddy *lease_donor_buddy (const struct lease_donor *donor);

#endif
