/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The state of a memory device as it survives its worker: a flat image in a memfd that the keeper holds.
 *
 *   ┌ header ──────────┐┌ scalars ─┐┌ answers[16] ─┐┌ record ───────────────┐┌ bits ──────┐
 *   │versions, sizes,  ││          ││for replay    ││the transaction that is ││1 = granted │
 *   │committed, done   ││          ││              ││under way               ││            │
 *   └──────────────────┘└──────────┘└──────────────┘└────────────────────────┘└────────────┘
 *
 * It is valid at every instant, because it changes in transactions, each of which is a redo record:
 *
 *   1. fill `record`             while committed == done nobody reads it
 *   2. committed = done + 1      the transaction has happened. One aligned 8-byte store: it is there or it is not
 *   3. apply the record          scalars, answer, bits: all of it assigns what the record says, so doing it twice, or doing the
 *                                rest of what was half done, gives the same
 *   4. effects outside           the answer into the guest's ring, the message to QEMU, descriptors to drop: each can be told,
 *                                or tells by itself, whether it was done (used index; message number; slot)
 *   5. done = committed          only now may the record be overwritten
 *
 * A worker that finds committed != done does 3 to 5 again. Stores must reach memory in this order as seen by the next process:
 * a process that is killed ends between two instructions, all that it stored before is seen by who comes after it (coherence;
 * the kernel's exit and wait order the two), and all that is needed is that the compiler keeps the order: release stores at 2
 * and 5 (what is before stays before), and a full fence after each (what is after stays after: applying does not begin before
 * 2, filling the next record not before 5).
 *
 * What happens before 2 must be harmless when it is done again by the next worker, or undone by what it does at its start:
 *   – punching all for a reset, a new session or a closed connection: nobody can want what was in there. (What a RELEASE or BYE gives back is
 *     punched after 2, before the answer, and by the audit of a worker that starts: until it is committed, the answer may still be BUSY.)
 *   – reserving in the host account: the slot is set to what the books say at the start;
 *   – PUT of a new window: a slot that no state names is dropped at the start;
 *   – populating: the audit punches what nobody was granted.
 *
 * Versions. `version` is that of the worker which wrote last, `oldest_reader` the oldest that can go on from what it wrote.
 * Rule: a layout only grows into reserved, zero space; so versions N and N−1 read each other's, in both directions
 * (tests/unit/test-device-state, frozen images in tests/fixtures/state). A worker that reads a state of another version first
 * brings it to its own: what is new is set to its default, then `version` is stored.
 *
 *   version 1   all but the following
 *   version 2   scalars.backend.events: what the guest is to be told survives
 *
 * Pure.
 */
#ifndef DOMYBS_CORE_DEVICE_STATE_H
#define DOMYBS_CORE_DEVICE_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/memory-device.h"
#include "core/virtqueue.h"

#ifndef DOMYBS_STATE_VERSION /* tests build back-ends of other versions */
#define DOMYBS_STATE_VERSION 2u
#endif
#ifndef DOMYBS_STATE_OLDEST
#define DOMYBS_STATE_OLDEST 1u /* that we read, and that reads ours */
#endif
#define DOMYBS_STATE_MAGIC 0x4554415453424d59ull /* "YMBSTATE" */

#define STATE_QUEUES_MAX 16u
#define STATE_NONE 255u /* no slot */

struct state_queue {
  uint8_t started, enabled, broken, have_addr; /* broken: until the guest sets it up anew */
  uint32_t num;
  uint64_t desc, used, avail;      /* the front-end's addresses */
  uint16_t next_avail, next_used;
  uint8_t kick_slot, call_slot, err_slot;
  uint8_t reserved[9];
};
_Static_assert (sizeof (struct state_queue) == 48, "");

struct state_region {
  uint64_t guest_addr, bytes, user_addr, offset;
  uint8_t slot;
  uint8_t reserved[7];
};
_Static_assert (sizeof (struct state_region) == 40, "");

struct state_session { /* of a vhost-user connection */
  uint64_t connection; /* the keeper's epoch; 0: none */
  uint64_t closed;     /* the epoch that we have closed last: if the keeper still has it, it is to be told again */
  uint64_t consumed;   /* bytes of MAIN */
  uint64_t sent;       /* messages on MAIN */
  uint64_t channel_epoch; /* rises over all connections */
  uint64_t channel_consumed, channel_sent;
  uint64_t features, protocol_features;
  uint8_t channel_slot;
  uint8_t map_open; /* a SHMEM_MAP is being answered */
  uint8_t have_features, have_protocol_features;
  uint32_t n_regions;
  struct state_region regions[VHU_MEMORY_REGIONS_MAX];
  struct state_queue queues[STATE_QUEUES_MAX];
  uint64_t reserved[8];
};

struct state_device { /* of struct memory_device */
  uint64_t session, nonce, last_id;
  uint64_t target_blocks;
  uint32_t have_target;
  uint32_t generation;
  uint32_t region_blocks; /* 0: no device was saved yet */
  uint32_t shortage;
  uint32_t offer_wanted;
  uint32_t stats_known;
  uint64_t stats[32];
  struct memory_device_counters counters;
  char driver[40];
  uint64_t reserved[8];
};

struct state_backend { /* of device/backend */
  uint8_t window_slot; /* the window's memfd; STATE_NONE: there is none yet */
  uint8_t map_on_its_way;
  uint8_t finished; /* the front-end has gone, and no other is wanted */
  uint8_t reserved1[5];
  uint64_t connections, audit_bytes;
  struct { /* the last GRANT that got less than it asked for */
    uint64_t reason, asked_blocks, got_blocks;
    int64_t at_us; /* CLOCK_MONOTONIC, as all times here: it goes on over processes */
  } short_grant;
  int64_t stats_at_us;
  struct domybs_event events[4]; /* version 2: reclaim, config, offer; type 0: none */
  uint64_t reserved[8];
};

struct state_scalars {
  struct state_device device;
  struct state_session session;
  struct state_backend backend;
};

struct state_answer {
  uint64_t id, digest;
  uint32_t bytes;
  uint32_t reserved;
  uint8_t response[DOMYBS_RESPONSE_BYTES_MAX];
};

#define STATE_OUT_BYTES_MAX 4096u

/* One transaction. What it does not use need not be written: the counts say. */
struct state_record {
  struct state_scalars scalars; /* after it */

  uint32_t change; /* enum device_change_kind: what it does to the bits */
  uint32_t n_runs;
  struct block_run runs[DOMYBS_RUNS_MAX];

  /* What goes into a ring. As queues[push_queue].next_used in scalars counts it already, it was pushed when the ring's used
   * index is equal to that, and not yet when it is one less. */
  uint32_t have_push;
  uint16_t push_queue, push_head;
  uint32_t push_bytes;
  uint32_t answer; /* its payload is also answers[answer]; STATE_NO_ANSWER: not */
  uint64_t answer_id, answer_digest;
  uint8_t push_payload[DOMYBS_RESPONSE_BYTES_MAX];

  /* Messages number scalars.session.sent and channel_sent; 0 bytes: none. */
  uint32_t out_bytes[2]; /* MAIN, CHANNEL */
  uint32_t out_slot;     /* goes along on CHANNEL; STATE_NONE: none */
  uint32_t reserved;
  uint8_t out[2][STATE_OUT_BYTES_MAX];
};
#define STATE_NO_ANSWER UINT32_MAX

struct state_header {
  uint64_t magic;
  uint32_t version, oldest_reader;
  uint64_t bytes; /* of the whole image */
  uint64_t window_blocks;
  uint32_t scalars_at, scalars_bytes;
  uint32_t answers_at, answer_bytes; /* DOMYBS_REPLAY_DEPTH of them */
  uint32_t record_at, record_bytes;
  uint32_t bits_at, bits_bytes;
  uint64_t committed, done; /* transactions; read and written with the functions below only */
  char program[64]; /* of the worker that wrote last: for those who look */
};

/* An image in memory that is mapped somewhere. */
struct device_state {
  size_t bytes; /* of the image */
  struct state_header *header;
  struct state_scalars *scalars;
  struct state_answer *answers;
  struct state_record *record;
  uint64_t *bits; /* as regions.bits */
};

/* How large an image is, for a window of so many blocks (a power of two); 0: there is none for so large a window. */
size_t device_state_bytes (uint64_t window_blocks);

/* Writes an empty image (nobody connected, nothing granted, slots STATE_NONE) of the current version. Memory:
 * device_state_bytes long, zero, 8-byte aligned. program: for the header. No device was saved in it yet
 * (scalars.device.region_blocks is 0): loading from it leaves a device as its options have made it. */
void device_state_create (struct device_state *state, void *memory, uint64_t window_blocks, const char *program);

/* Whether a worker of ours can go on from such an image in memory (n bytes): NULL, or why not. Looks at the header only, at
 * what never changes while a worker lives: that may go on writing meanwhile. */
const char *device_state_check_header (const void *memory, size_t n, uint64_t window_blocks);

/* The same for all of it, when nobody writes. Changes nothing. All offsets, sizes, counts, slots and enumerations are good
 * afterwards, of the record too where it is to be applied: nothing below reads or writes outside of the image. */
const char *device_state_check (const void *memory, size_t n, uint64_t window_blocks);

/* After device_state_check said yes: sets the pointers; changes nothing. */
void device_state_attach (struct device_state *state, void *memory);

/* Step 3 for a transaction that was committed and not done, if there is one: returns true then, and its effects (step 4) are
 * to be made sure of, after which device_state_done. Afterwards (also when false) the scalars are those of the last
 * transaction, of our own version. */
bool device_state_recover (struct device_state *state);

/* Steps 2 and 3, for the record that the caller has filled. */
void device_state_commit (struct device_state *state);
/* Step 5. */
void device_state_done (struct device_state *state);

/* Brings the image to this program's version: new fields at their defaults. After recovery and its effects. */
void device_state_adopt (struct device_state *state, const char *program);

/* ---- struct memory_device from and to an image ---- */

/* Fills record->scalars.device, change, n_runs, runs and answer from what the device has done since the last save, and clears
 * that note in the device (device->change, device->answered). Where there is an answer, also answer_id, answer_digest,
 * push_bytes and push_payload: what is remembered is what is pushed. */
void device_state_save_device (struct state_record *record, struct memory_device *device);

/* Makes a device (memory_device_init was called with the operator's options) what the image says. The target in the image wins
 * over that of the options, cut to what they allow. NULL, or why that can't be (memory is short, or the image makes no sense);
 * the device is unchanged then. */
const char *device_state_load_device (const struct device_state *state, struct memory_device *device);

#endif
