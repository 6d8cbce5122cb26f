/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The memory device's decisions: sessions, grants, replays, targets.
 *
 * A request is handled in two steps, so that everything that can fail on the host happens between them and nothing has to be
 * undone in here:
 *
 *   memory_device_plan    bytes of the guest → what the host has to do (map a window, account and populate runs, punch runs)
 *   … the host does it …
 *   memory_device_finish  how that went → new state and the answer
 *
 *            HELLO                       guest reset, disconnect, BYE
 *   no session ──→ (window is mapped) ──→ session ──→ no session
 *
 * One plan at a time: between plan and finish, the device takes no other request (HELLO takes milliseconds: the front-end has to
 * map the window and tell us). A plan can also be dropped (memory_device_drop), then it never happened.
 *
 * What it has to remember over the end of its process goes through core/device-state.
 *
 * Pure: time, randomness and host state come in as arguments. Memory: ~70 KiB of answers for replay, plus struct regions.
 */
#ifndef DOMYBS_CORE_MEMORY_DEVICE_H
#define DOMYBS_CORE_MEMORY_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/device-request.h"
#include "core/regions.h"

struct memory_device_options {
  uint64_t window_blocks;   /* a power of two, ≥ DOMYBS_WINDOW_ALIGN_BYTES */
  uint64_t max_blocks;      /* local capacity of this VM */
  uint32_t grow_min_blocks; /* advice to the driver */
  bool have_target;
  uint64_t target_blocks;
  bool have_numa_pxm;
  uint32_t numa_pxm;
};

/* Why a GRANT got less than it asked for. Where several limits are below what was asked for, it is the lowest: what has to be
 * raised first. */
enum device_shortage {
  DEVICE_SHORTAGE_NONE,
  DEVICE_SHORTAGE_CAPACITY,    /* the VM has all that it may have (max_blocks, or the usable window) */
  DEVICE_SHORTAGE_AREA,        /* the part of the window, or the whole sections, that it asked for are not free */
  DEVICE_SHORTAGE_RUNS,        /* free blocks are too scattered for one answer; asking again gets more */
  DEVICE_SHORTAGE_TIER,        /* the tier of the hint does not exist */
  DEVICE_SHORTAGE_HOST_LIMIT,  /* all VMs of the host together have what they may have */
  DEVICE_SHORTAGE_HOST_MEMORY, /* the host itself is short of memory */
  DEVICE_SHORTAGE_HOST_BUSY,   /* the host's account could not be asked just now */
  DEVICE_SHORTAGE_POPULATE,    /* the host's kernel did not give the memory (populate mode) */
};

/* For people and programs: "capacity", "host-limit", …; NULL for NONE. */
const char *device_shortage_name (enum device_shortage shortage);

struct memory_device_counters { /* since start */
  uint64_t requests, refused, replayed, sessions;
  uint64_t short_grants; /* GRANTs that got less than they asked for */
  uint64_t blocks_granted, blocks_released;
};

struct memory_device_answer {
  uint64_t id;
  uint64_t digest; /* of the request's bytes: the same id with another text is not a repetition */
  uint32_t bytes;
  uint8_t response[DOMYBS_RESPONSE_BYTES_MAX];
};

/* What has happened to the block table since it was last saved (core/device-state.h): one change. So it is saved after each
 * memory_device_finish and memory_device_reset; what those do before a CLEAR is no matter once that has happened. */
enum device_change_kind {
  DEVICE_CHANGE_NONE = 0,
  DEVICE_CHANGE_TAKE = 1,  /* runs are granted now */
  DEVICE_CHANGE_GIVE = 2,  /* runs are not granted any more */
  DEVICE_CHANGE_CLEAR = 3, /* nothing is */
};

struct device_change {
  enum device_change_kind kind;
  unsigned n_runs;
  struct block_run runs[DOMYBS_RUNS_MAX];
};

/* The tiers of far memory: SHARED, REMOTE. */
#define DEVICE_FAR_TIERS 2u

static inline unsigned
device_far_tier (enum domybs_hint tier) {
  return (unsigned)tier - DOMYBS_HINT_SHARED;
}

/* How much far memory beyond what is in use the guest wants to have ready, of one tier. It is no part of what is saved (a driver says
 * it again and again), so after a worker's death it is not known until the guest, or who keeps the far memory, says it. */
struct device_level {
  bool known;
  uint64_t blocks;
};

struct memory_device {
  struct memory_device_options options;
  struct regions regions;
  uint32_t generation;
  uint64_t session; /* 0 = none */
  uint64_t nonce;
  char driver[33];
  uint64_t last_id;
  bool offer_wanted; /* a grant was refused for the host's sake: tell the guest when that changes */
  bool far_offer_wanted; /* the same of a RESERVE */
  struct device_level levels[DEVICE_FAR_TIERS];
  enum device_shortage shortage; /* of the session's last GRANT */
  struct memory_device_counters counters;
  uint64_t stats[32]; /* by tag, what the guest said last; bit `tag` of stats_known says whether it ever did */
  uint32_t stats_known;
  struct memory_device_answer answers[DOMYBS_REPLAY_DEPTH];
  /* for who saves */
  struct device_change change;
  int answered; /* which of answers[] was written since the last save; −1: none */
};

enum device_step {
  DEVICE_STEP_ANSWER,      /* nothing to do but to send plan.answer */
  DEVICE_STEP_NEW_SESSION, /* void all grants, put a fresh window in place */
  DEVICE_STEP_GRANT,       /* account (and populate) up to plan.blocks in plan.runs */
  DEVICE_STEP_RELEASE,     /* punch plan.runs */
  DEVICE_STEP_END,         /* punch everything */
  DEVICE_STEP_RESERVE,     /* find out how plan.request.reserve is: finish makes it the level */
};

struct device_plan {
  enum device_step step;
  struct device_request request;
  uint64_t digest;
  unsigned n_runs;
  struct block_run runs[DOMYBS_RUNS_MAX];
  uint64_t blocks; /* sum of runs */
  enum device_shortage shortage; /* GRANT: why blocks is less than what was asked for */
  const char *refused_why; /* for the log, where the guest did wrong */
  size_t answer_bytes;
  uint8_t answer[DOMYBS_RESPONSE_BYTES_MAX]; /* DEVICE_STEP_ANSWER, or after finish */
};

/* False when memory is short or the options make no sense (*ret_why says what). Does not take ownership of anything. */
bool memory_device_init (struct memory_device *device, const struct memory_device_options *options, const char **ret_why);
void memory_device_clear (struct memory_device *device);

/* Reads a request of n bytes (a private copy; n may exceed what any request has: refused then) whose answer may have answer_cap
 * bytes. answer_cap < sizeof (struct domybs_response) is the caller's to refuse: such a chain cannot be answered at all. */
void memory_device_plan (struct memory_device *device, const uint8_t *bytes, size_t n, size_t answer_cap, struct device_plan *plan);

/* The same for a host that is not to do anything now, because whoever did it before did not live: a good request gets BUSY (and
 * uses its id up, as every BUSY does), a HELLO too. Repetitions are answered and bad requests refused as always; the step is
 * always ANSWER. */
void memory_device_plan_busy (struct memory_device *device, const uint8_t *bytes, size_t n, size_t answer_cap,
                              struct device_plan *plan);

enum device_outcome {
  DEVICE_DONE,             /* as planned; GRANT: `blocks` of them, from the first run on */
  DEVICE_NO_HOST_CAPACITY, /* GRANT: nothing */
  DEVICE_FAILED,           /* the host could not; nothing was done */
  DEVICE_RETRY,            /* not now; nothing was done */
  DEVICE_NO_TIER,          /* RESERVE: there is no far memory of that tier; any other request: as FAILED */
};

/* Carries the plan out in the books and makes the answer. blocks: how many the host had room for (GRANT), fewer than planned
 * means a partial grant, and the caller has put its reason into plan->shortage; or how many of the level there are now (RESERVE,
 * whatever the outcome; NO_HOST_CAPACITY: more are not to be had, yet the level is what was asked for). new_session: a random
 * number ≠ 0 (NEW_SESSION).
 * After a GRANT, plan->runs/blocks say what was granted in the end: the caller returns the rest to the host's account. */
void memory_device_finish (struct memory_device *device, struct device_plan *plan, enum device_outcome outcome, uint64_t blocks,
                           uint64_t new_session);

/* Forgets a plan that was not finished (the queue was stopped in between; the request will come again). */
void memory_device_drop (struct memory_device *device, struct device_plan *plan);

/* The guest is gone or was reset: no session, nothing granted. */
void memory_device_reset (struct memory_device *device);

/* Changes the host's wish. Returns false when nothing changed (then no config change need be sent). */
bool memory_device_set_target (struct memory_device *device, bool have_target, uint64_t target_blocks);

/* Config space as the driver reads it now. */
void memory_device_config (const struct memory_device *device, struct domybs_config *ret_config);

#endif
