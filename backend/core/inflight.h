/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which requests of a split virtqueue are in flight, in memory that outlives the process: the front-end holds it and hands it
 * to the next back-end (vhost-user, INFLIGHT_SHMFD; layout and rules: QEMU's docs/interop/vhost-user.rst, "Inflight I/O
 * tracking").
 *
 *   0          8         10         12                14         16              32
 *   ┌──────────┬─────────┬──────────┬─────────────────┬──────────┬───────────────┬───
 *   │ features │ version │ desc_num │ last_batch_head │ used_idx │ desc[0]       │ desc[1] …   one queue; the next one begins
 *   └──────────┴─────────┴──────────┴─────────────────┴──────────┴───────────────┴───          at a multiple of 64 bytes
 *   desc:  inflight (1), padding (5), next (2), counter (8)
 *
 * The stores, in this order, and what a process finds that comes after a death behind each of them. "In flight" is what has
 * inflight = 1; the position in the available ring is not stored but follows: used index + number in flight.
 *
 *   taking a chain      1. desc[head].counter          not in flight, so not counted as taken: it is taken again
 *                       2. desc[head].inflight = 1     in flight: to be carried out (again)
 *   answering it        3. desc[head].next             still in flight, and the ring's used index equal to used_idx: again.
 *                       4. last_batch_head = head      It was carried out; doing that twice must be harmless (the device's)
 *                       5. the used ring's entry       the same: the driver looks at no entry that the index has not reached
 *                       6. the used ring's index       the driver has it. The index is one more than used_idx: so the last
 *                                                      batch, last_batch_head, was answered: its inflight is to be 0
 *                       7. desc[head].inflight = 0     the same: it is set to 0 once more
 *                       8. used_idx = index            settled
 *
 * 7 before 8: else a death between the two would leave an answered chain in flight with nothing to tell so. 4 before 6: else
 * the batch that is answered could be taken for the one before. 2 comes before the request has any effect. Recovery does 7
 * and 8 for what is open and can die at each store as well. A process that is killed ends between two instructions, and who
 * comes after it sees all that it has stored; so it is only the compiler that must keep the order (release stores).
 *
 * A driver sees the answer at 6 and can offer the same head again before 7. That is no harm: it is taken again only by who
 * did 7 and 8, or recovered.
 *
 * The region can be written by the front-end at any time, also with nonsense. So it is read in recovery only, each field
 * once, and checked; what is in flight while we run is known from private memory. Nonsense makes the queue broken, or has
 * requests carried out that nobody waits for: the front-end's own harm.
 *
 * Pure.
 */
#ifndef DOMYBS_CORE_INFLIGHT_H
#define DOMYBS_CORE_INFLIGHT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/virtqueue.h"

#define INFLIGHT_ALIGNMENT 64u
#define INFLIGHT_VERSION 1u /* 0: the region is new */

struct inflight_desc {
  uint8_t inflight;
  uint8_t padding[5];
  uint16_t next; /* of the batch that was answered last: the one answered before */
  uint64_t counter;
};
_Static_assert (sizeof (struct inflight_desc) == 16, "vhost-user's layout");

struct inflight_region {
  uint64_t features; /* 0 */
  uint16_t version;
  uint16_t desc_num;
  uint16_t last_batch_head;
  uint16_t used_idx;
  struct inflight_desc desc[];
};
_Static_assert (sizeof (struct inflight_region) == 16, "vhost-user's layout");

/* One queue's. All zero: nothing is in flight, and no region. */
struct inflight {
  struct inflight_region *region; /* NULL: nothing outlives us */
  uint32_t num;                   /* the queue's size */
  uint32_t n;                     /* chains in flight, those to be done again included */
  uint64_t counter;               /* the next one's */
  uint16_t last_batch_head;       /* as it is in the region */
  uint32_t n_again, done_again;   /* heads[done_again … n_again) are to be done again, in this order */
  uint16_t again[VIRTQUEUE_SIZE_MAX];
  uint64_t bits[VIRTQUEUE_SIZE_MAX / 64]; /* heads that are in flight */
};

/* Bytes of one queue's region: a multiple of INFLIGHT_ALIGNMENT. 0: no queue is that large. */
size_t inflight_region_bytes (uint32_t queue_size);

/* A queue starts: vq is resolved. region: its own part of the front-end's memory (8-byte aligned, of at least
 * inflight_region_bytes (vq->num)), or NULL. Settles what the process before left open, and sets vq->next_avail where the
 * region knows it better than the front-end. False with the reason: the region holds nonsense, and the queue must not run. */
bool inflight_start (struct inflight *inflight, struct inflight_region *region, struct virtqueue *vq, const char **ret_why);

/* The next head to be done again, without taking it: -1: none. */
int inflight_next_again (const struct inflight *inflight);
/* It was handed out. */
void inflight_took_again (struct inflight *inflight);

/* A chain was taken from the ring. False: it is in flight already; the driver offered it twice. */
bool inflight_take (struct inflight *inflight, uint16_t head);

/* Answers a chain that is in flight: virtqueue_push with the stores around it. Only forgets it when the queue is not ready:
 * then it stays in flight in the region. A head that is not in flight is ignored. */
void inflight_push (struct inflight *inflight, struct virtqueue *vq, uint16_t head, uint32_t written);

#endif
