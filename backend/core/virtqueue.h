/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Split virtqueues, device side (VIRTIO 1.2, 2.7), with indirect descriptors and event index. Reusable by every vhost-user
 * device of ours.
 *
 * The rings and descriptors are written by a guest that may be hostile and may change them at any time, also between two of our
 * reads. So each field is read exactly once into a private copy, and only the copy is checked and used:
 *   – a chain is walked over copies of its descriptors, at most `num` of them (a loop ends there);
 *   – the pointers that come out lie in one mapping each; the bytes behind them can change, so callers copy a request before they
 *     check it (virtqueue_chain_read).
 * A violation makes the queue broken: nothing more is taken from it until the front-end sets it up anew.
 *
 * Pure: kicking and calling are the session's. Not thread-safe; one queue belongs to one thread.
 */
#ifndef DOMYBS_CORE_VIRTQUEUE_H
#define DOMYBS_CORE_VIRTQUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "core/guest-memory.h"

#define VIRTQUEUE_SIZE_MAX 1024u /* QEMU's own limit */
/* Pieces of one chain: Linux uses up to 1 header + 254 segments + 1 status for block devices. More is refused. */
#define VIRTQUEUE_PIECES_MAX 260u

enum virtqueue_feature { /* virtio feature bit numbers */
  VIRTIO_RING_F_INDIRECT_DESC_BIT = 28,
  VIRTIO_RING_F_EVENT_IDX_BIT = 29,
  VIRTIO_F_VERSION_1_BIT = 32,
};

enum virtqueue_state {
  VIRTQUEUE_IDLE = 0,  /* not set up */
  VIRTQUEUE_READY = 1, /* rings resolved */
  VIRTQUEUE_BROKEN = 2 /* the guest violated the protocol */
};

struct virtqueue {
  enum virtqueue_state state;
  const char *broken_why; /* a constant string; valid in VIRTQUEUE_BROKEN */
  uint32_t num;           /* size, a power of two ≤ VIRTQUEUE_SIZE_MAX */
  bool indirect;
  bool event_idx;
  bool have_addr;
  struct vhu_vring_addr addr; /* as the front-end gave it: resolved anew with each memory table */

  /* Into guest memory; valid in VIRTQUEUE_READY. */
  uint8_t *desc;
  uint16_t *avail; /* flags, idx, ring[num], used_event */
  uint16_t *used;  /* flags, idx, {u32 id, u32 len}[num], avail_event */

  uint16_t next_avail; /* our position in the available ring */
  uint16_t next_used;
  uint16_t signalled_used; /* next_used when the driver was last signalled */
  bool signalled_valid;
};

struct virtqueue_chain {
  uint16_t head;
  unsigned n_out, n_in;       /* device-readable, device-writable pieces */
  size_t out_bytes, in_bytes; /* their sums */
  struct iovec pieces[VIRTQUEUE_PIECES_MAX]; /* the n_out readable ones first */
};

/* Sets the size (SET_VRING_NUM). False if it is not a power of two from 1 to VIRTQUEUE_SIZE_MAX. */
bool virtqueue_set_num (struct virtqueue *vq, uint32_t num);

/* Resolves the ring addresses in vq->addr against memory. True: ready. False with the reason: a ring is misaligned or not
 * wholly within one piece of the VM's RAM; the queue is broken then, with that reason. The used index is read back from the ring. */
bool virtqueue_resolve (struct virtqueue *vq, const struct guest_memory *memory, const char **ret_why);

enum virtqueue_restored {
  VIRTQUEUE_RESTORED = 0, /* the ring has all that was pushed: its used index is next_used */
  VIRTQUEUE_RESTORED_OPEN = 1, /* all but the last: vq->next_used is next_used − 1, virtqueue_push is to be called for it */
  VIRTQUEUE_RESTORE_BROKEN = -1 /* *ret_why says why, and the queue is broken for that */
};

/* Like virtqueue_resolve, for a queue that goes on where another process left it: with positions that we have kept, not with
 * what the ring says, because a process that dies between two stores may have counted a chain as pushed and not have pushed it
 * yet. */
enum virtqueue_restored virtqueue_restore (struct virtqueue *vq, const struct guest_memory *memory, uint16_t next_avail,
                                           uint16_t next_used, const char **ret_why);

/* Forgets the rings (memory table gone, queue stopped); keeps size, features and positions. */
void virtqueue_unresolve (struct virtqueue *vq);

enum virtqueue_pop {
  VIRTQUEUE_POP_EMPTY = 0,
  VIRTQUEUE_POP_CHAIN = 1,
  VIRTQUEUE_POP_BROKEN = -1 /* vq->broken_why says why */
};

/* Takes the next chain. */
enum virtqueue_pop virtqueue_pop (struct virtqueue *vq, const struct guest_memory *memory, struct virtqueue_chain *ret_chain);

/* Walks the chain that begins at a descriptor, without taking anything: one that was popped before, to be answered now. CHAIN,
 * BROKEN (also for a head that is none), or EMPTY when the queue is idle. */
enum virtqueue_pop virtqueue_chain_at (struct virtqueue *vq, const struct guest_memory *memory, uint16_t head,
                                       struct virtqueue_chain *ret_chain);

/* Puts the chain that was popped last back, so that it is popped again later. Only one can be put back. */
void virtqueue_unpop (struct virtqueue *vq);

/* Copies up to cap readable bytes from offset on into buf. Returns how many. */
size_t virtqueue_chain_read (const struct virtqueue_chain *chain, size_t offset, void *buf, size_t cap);

/* Copies bytes into the writable part from its start. Returns how many fitted. */
size_t virtqueue_chain_write (const struct virtqueue_chain *chain, const void *buf, size_t bytes);

/* Returns a chain to the driver; written = bytes written into its writable part. */
void virtqueue_push (struct virtqueue *vq, uint16_t head, uint32_t written);

/* Whether the driver wants a signal for what was pushed since this was last asked. */
bool virtqueue_should_signal (struct virtqueue *vq);

/* Asks for (or, best effort, spares) kicks; when asking returns true, the ring has entries and must be looked at again. */
bool virtqueue_enable_kicks (struct virtqueue *vq, bool enable);

#endif
