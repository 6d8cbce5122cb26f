/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where the copies of a far disk's segments are. Place p is block p of the storage copy, and block p of the export of each
 * donor that has a copy of it: so all there is to know of a copy is whether it is there, and good. Targets: 0 is the storage
 * copy, 1 + d donor d.
 *
 *   ┌ header, 4096 bytes ──────────────────────────┐┌ map ─────────────┐
 *   │ what it is for; of each donor: incarnation,   ││ 8 bytes a place: │
 *   │ lease                                         ││ 2 bits a target  │
 *   └───────────────────────────────────────────────┘└──────────────────┘
 *
 * The state is memory that outlives the process (the keeper's memfd). Each change is one aligned 8-byte store, or several in an
 * order after which a successor finds either nothing to do or the same to do again. A copy is VALID from after its write has
 * ended until before the next one begins; so what a process had under way when it died is OLD, and its contents are still in
 * the stage, or in another copy.
 *
 * Below that: which copies a place should have (protection), as pure decisions over the map and what is known of the donors.
 *
 * Pure: no clock, nothing blocks. Not thread-safe.
 */
#ifndef DOMYBS_CORE_COPIES_H
#define DOMYBS_CORE_COPIES_H

#include "core/lease.h"
#include "core/placement.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define COPIES_STATE_VERSION 1u
#define COPIES_DONORS_MAX PLACEMENT_DONORS_MAX
#define COPIES_TARGETS (1u + COPIES_DONORS_MAX)
#define COPIES_LOCAL 0u
#define COPIES_LOCAL_BIT 1u
#define COPIES_ALL_DONORS (((1u << COPIES_DONORS_MAX) - 1) << 1)

enum copy_state {
  COPY_NONE = 0,    /* nothing there: a donor has no block for it */
  COPY_VALID = 1,   /* what the place holds */
  COPY_OLD = 2,     /* takes a block, but what is in it is nobody's: being written, or to be given back */
  COPY_SUSPECT = 3, /* what the place holds, but a page of it came back damaged: the last resort */
};

struct copies; /* made and freed by open and close */

size_t copies_state_bytes (uint32_t n_places);
/* Writes an empty map into zeroed memory of that size, aligned to 8 bytes. */
void copies_format (void *state, uint32_t n_places);
/* Goes on from a state; finishes what a predecessor had begun. NULL with *ret_why (a constant string) when it is none, or
 * memory is short. */
struct copies *copies_open (void *state, size_t bytes, uint32_t n_places, const char **ret_why);
void copies_close (struct copies *copies);

/* ---- donors: what their copies are in ---- */

/* Lease 0: there are no copies there. */
void copies_donor (const struct copies *copies, unsigned donor, uint8_t ret_incarnation[LEASE_ID_BYTES], uint64_t *ret_lease);
/* From now on that donor's copies are in this lease of this arena. When these are other ones than before, all copies there are
 * gone: the map says so before this returns, and before the new lease is noted. Returns how many good ones that were. */
uint64_t copies_donor_attached (struct copies *copies, unsigned donor, const uint8_t incarnation[LEASE_ID_BYTES],
                                uint64_t lease);
/* The arena or lease is gone for certain. Returns how many good copies that were. */
uint64_t copies_donor_lost (struct copies *copies, unsigned donor);

/* It was removed, perhaps without having heard of it: its copies count no more. What they are in stays noted, so that it gives
 * the blocks back should it come again; another one at its number does not have them, and they are forgotten. */
void copies_donor_left (struct copies *copies, unsigned donor);

/* ---- places; place < n_places, target < COPIES_TARGETS ---- */

enum copy_state copies_get (const struct copies *copies, uint32_t place, unsigned target);
/* The targets in that state. */
uint32_t copies_in_state (const struct copies *copies, uint32_t place, enum copy_state state);
/* The place had contents, and no copy is left. */
bool copies_is_lost (const struct copies *copies, uint32_t place);
void copies_set (struct copies *copies, uint32_t place, unsigned target, enum copy_state state);
/* New contents are about to be written to these targets: no copy holds what the place holds until copies_set says VALID. */
void copies_begin_write (struct copies *copies, uint32_t place, uint32_t targets);
/* The place holds nothing any more: donors' blocks are OLD, to be given back. */
void copies_discard (struct copies *copies, uint32_t place);

struct copies_figures {
  uint64_t count[COPIES_TARGETS][4]; /* by enum copy_state; NONE is not counted */
  uint64_t lost;                     /* places whose last copy is gone */
};
void copies_figures (const struct copies *copies, struct copies_figures *ret_figures);
/* Blocks that a donor has for us: any state but NONE. */
uint64_t copies_used (const struct copies *copies, unsigned donor);

/* ---- protection ---- */

enum copies_mode {
  COPIES_SSD,     /* storage and one donor */
  COPIES_MIRROR,  /* two donors of different failure domains; storage in place of one that can't be had */
  COPIES_STORAGE, /* storage alone */
};

enum copies_donor_state {
  COPIES_DONOR_GONE = 0, /* unreachable for so long that its copies do not count; they may come back all the same */
  COPIES_DONOR_AWAY,     /* unreachable for a while: its copies count, it gets no others */
  COPIES_DONOR_UP,
  COPIES_DONOR_LEAVING, /* reachable, but wants blocks back: its copies do not count, and go as soon as there are others */
};

struct copies_policy {
  enum copies_mode mode;
  unsigned n_donors;
  enum copies_donor_state donors[COPIES_DONORS_MAX];
  uint64_t room[COPIES_DONORS_MAX]; /* blocks that may be written there beyond those that there are */
  uint64_t free[COPIES_DONORS_MAX]; /* blocks that it could lend beyond: where there are more, more copies go */
  bool local_down;                  /* storage does not answer */
  struct placement placement;       /* made for copies_wanted_donors(mode) copies */
};

struct copies_plan {
  uint32_t add, drop; /* targets to be written, and those whose copy is to be given back */
  bool is_short;      /* protection wants more than can be had now */
};

unsigned copies_wanted_donors (enum copies_mode mode);
/* NULL: there is no such mode. */
const char *copies_mode_name (enum copies_mode mode);
bool copies_mode_parse (const char *text, enum copies_mode *ret_mode);

/* Where new contents of a place go: add. Donors that have a block for it already come first. */
void copies_plan_write (const struct copies_policy *policy, const struct copies *copies, uint32_t place,
                        struct copies_plan *ret_plan);
/* What is to be done for a place that holds something, or nothing. drop names no copy that is needed while add is not done. */
void copies_plan_repair (const struct copies_policy *policy, const struct copies *copies, uint32_t place,
                         struct copies_plan *ret_plan);
/* How many good copies count; 0: only suspects, or donors that are gone, have it. -1: it holds nothing. */
int copies_counted (const struct copies_policy *policy, const struct copies *copies, uint32_t place);

/* Whether the place has two good copies at hand with donors that don't fail together: then one in storage can wait. */
bool copies_can_wait_for_storage (const struct copies_policy *policy, const struct copies *copies, uint32_t place);

struct copies_protection {
  uint64_t places;       /* that hold something; of these … */
  uint64_t is_protected; /* have all that their protection wants */
  uint64_t degraded;     /* have less, but a copy that counts */
  uint64_t endangered;   /* have none that counts */
};
/* Of all places, in the time that looking at some hundred takes, however many there are. */
void copies_protection (const struct copies_policy *policy, const struct copies *copies,
                        struct copies_protection *ret_protection);

/* ---- what is asked of a donor ---- */

struct copies_need {
  uint64_t used;  /* blocks that have copies, or are being written */
  uint64_t asked; /* what it was asked for last */
  uint64_t free;  /* what it could lend beyond, as it has said last; UINT64_MAX: it has not */
  uint64_t most;  /* that may be asked of it */
  bool grows;     /* there may be more copies */
  bool is_revoked;
  uint64_t revoke_level;
};
/* The level to ask for: what is in use and a reserve ahead, so that writes need not wait for a grant. The reserve follows what
 * is in use, and shrinks when the donor is full, so that those who share a small one have what they need before anybody has
 * something ahead. The same as before while that is near enough: not up and down with each block. */
uint64_t copies_want (const struct copies_need *need);

#endif
