/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A guest that keeps its own books, for tests that kill the back-end under it.
 *
 * It has up to FE_SLOTS requests in flight, and judges each answer in the order in which it asked, by the rules of domybs-device.md and by
 * nothing that the back-end says about itself:
 *
 *   – each request is answered once: a used entry belongs to the oldest request in flight, and a buffer that was given back stays as it
 *     was left;
 *   – a repeated id gets the same bytes again, also from another worker;
 *   – no block is granted that the guest has, none is missing from `granted`; limits, areas and flags hold to the block;
 *   – granted blocks read as zero when they come, and keep what was written to them until they are released;
 *   – BUSY is an answer: nothing was done;
 *   – events: one used entry for each buffer; what was asked for by an operator arrives.
 *
 * Whatever is wrong ends the test at once (guest_fail), with the last things that happened and the back-end's log.
 */
#ifndef DOMYBS_TESTS_GUEST_H
#define DOMYBS_TESTS_GUEST_H

#include "frontend.h"
#include "process.h"
#include "reaper.h"

#define GUEST_BLOCKS_MAX 4096u /* of a window */
#define GUEST_TRACE_LINES 160
#define GUEST_EVENT_BUFFERS 8u
#define GUEST_BYTES_TOUCHED 8192u /* of each granted block: its first and its last page */

struct guest_request {
  bool in_flight, used_before; /* used_before: its answer's page has our mark, which must stay */
  bool spoilt;                 /* a used id with other bytes, which may make no sense at all */
  uint16_t head;
  size_t n;
  uint32_t cap;
  uint8_t bytes[DOMYBS_REQUEST_BYTES_MAX];
};

struct guest_past { /* an answered request with an id */
  uint64_t id;
  size_t n, answer_bytes;
  uint8_t bytes[DOMYBS_REQUEST_BYTES_MAX], answer[DOMYBS_RESPONSE_BYTES_MAX];
};

struct guest {
  struct fe *fe;
  struct backend *backend;
  struct reaper *reaper; /* told of ring resets; may be NULL */
  GRand *random;
  uint64_t window_blocks, max_blocks, host_blocks;
  char *account_path; /* NULL: none */
  bool indirect;      /* requests also as indirect chains */
  bool roomy;         /* every GRANT has room for all runs that there can be */
  void (*trickle) (void *data); /* as fe's, from the next connection on */
  void *trickle_data;
  uint64_t block_cost; /* of each granted block, in bytes: GUEST_BYTES_TOUCHED, or all of it where grants are populated */
  bool poor_host;     /* FAILED and NO_HOST_CAPACITY may come at any time */

  struct guest_request slots[FE_SLOTS];
  unsigned order[FE_SLOTS], n_in_flight; /* slots, oldest first */
  unsigned next_slot;

  /* the books: what the answers so far say */
  uint64_t session, nonce, last_id;
  uint32_t section_blocks;
  uint64_t n_granted;
  uint64_t keys[GUEST_BLOCKS_MAX]; /* what is written to the block; 0: not granted */
  bool leaving[GUEST_BLOCKS_MAX];  /* in a RELEASE in flight */
  uint64_t next_key;
  struct guest_past past[DOMYBS_REPLAY_DEPTH];
  uint64_t last_stat; /* BLOCKS_ONLINE in the last STATS that was done; 0: none in this session */
  uint32_t generation, config_generation; /* the newest in an answer, and in config space, which is ahead of answers in the ring */
  uint16_t last_status;

  /* events */
  bool posted[GUEST_EVENT_BUFFERS];
  uint32_t config_event_generation; /* of the newest CONFIG event */
  unsigned reclaims_asked, reclaims_sure, reclaims_got; /* sure: since the last of them was acknowledged in this session, one must come */
  bool reclaim_due, config_due;
  bool have_target;
  uint64_t target;

  uint64_t submitted, answered, busy, replayed, refused, hellos, resets; /* counts, for the report */

  char trace[GUEST_TRACE_LINES][160];
  unsigned n_trace;
};

/* A guest that is connected to the back-end, all queues running, without a session yet. random is borrowed. */
struct guest *guest_new (struct backend *backend, GRand *random);
void guest_free (struct guest *guest);
typedef struct guest guest_t;
G_DEFINE_AUTOPTR_CLEANUP_FUNC (guest_t, guest_free)

void guest_trace (struct guest *guest, const char *format, ...) G_GNUC_PRINTF (2, 3);
_Noreturn void guest_fail (struct guest *guest, const char *format, ...) G_GNUC_PRINTF (2, 3);
#define guest_must(guest, call) \
  do { \
    if (!(call)) \
      guest_fail ((guest), "%s: %s", #call, (guest)->fe->why ? (guest)->fe->why : "?"); \
  } while (0)

/* ---- requests (guest-requests.c): put into the ring, not waited for. All need a free slot ---- */

bool guest_has_slot (const struct guest *guest);
void guest_submit_grant (struct guest *guest, uint64_t blocks, uint32_t hint, uint32_t flags, uint64_t area_start, uint64_t area_blocks);
/* Verifies and gives up to n_runs random runs of granted blocks, of up to `most` blocks each; false when there is nothing to give. */
bool guest_submit_release (struct guest *guest, unsigned n_runs, uint64_t most);
void guest_submit_stats (struct guest *guest, unsigned n);
void guest_submit_bye (struct guest *guest);
void guest_submit_hello (struct guest *guest, uint64_t nonce, uint32_t section_blocks);
/* An answered request once more, `back` ids ago (1: the last). False when there is none. other_bytes: with another text. */
bool guest_submit_again (struct guest *guest, unsigned back, bool other_bytes);
/* Something of any kind. */
void guest_submit_random (struct guest *guest);

/* Takes and judges one answer, within timeout_ms; false when there was none. */
bool guest_take (struct guest *guest, int timeout_ms);
/* Until nothing is in flight. */
void guest_drain (struct guest *guest);
/* Drains, then says HELLO (again while the device is busy) until there is a session. */
void guest_begin (struct guest *guest);

/* ---- what the front-end does ---- */

void guest_pause (struct guest *guest, unsigned queue);        /* stop and start, whatever is in flight */
void guest_new_call (struct guest *guest, unsigned queue);     /* another call descriptor while it runs */
void guest_same_table (struct guest *guest);                   /* SET_MEM_TABLE as it is */
void guest_read_config (struct guest *guest, bool trickled);
void guest_reset (struct guest *guest);                        /* of the guest: nothing is in flight afterwards, and no session */
void guest_reconnect (struct guest *guest);                    /* unplug and plug */

/* ---- what operators do ---- */

void guest_set_target (struct guest *guest, bool have_target, uint64_t blocks);
void guest_reclaim (struct guest *guest, uint64_t blocks);

/* ---- checks ---- */

void guest_look_at_some (struct guest *guest, unsigned n); /* random blocks */
/* Drains, then everything: contents, the back-end's books, the host account, what the window costs, events that are due.
 * Returns the worker's deaths as status tells them. */
int64_t guest_check (struct guest *guest);

#endif
