/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A driver's side of one split virtqueue in a small piece of fake guest memory, which does exactly what a test tells it. */
#ifndef DOMYBS_TESTS_RING_H
#define DOMYBS_TESTS_RING_H

#include <glib.h>
#include <string.h>

#include "core/virtqueue.h"

#define RING_GUEST_BASE 0x10000ull          /* guest address of the memory */
#define RING_USER_BASE 0x7f1200000000ull    /* the front-end's address of it */
#define RING_DESC 0x0000u                   /* offsets in it; room for the largest queue */
#define RING_AVAIL 0x4000u
#define RING_USED 0x5000u
#define RING_INDIRECT 0x8000u
#define RING_DATA 0x10000u
#define RING_BYTES 0x20000u

enum { NEXT = 1, WRITE = 2, INDIRECT = 4 };

struct ring {
  struct virtqueue vq;
  struct guest_memory memory;
  struct virtqueue_chain chain;
  uint8_t *bytes; /* RING_BYTES of guest memory; where it ends, memory ends */
  uint16_t avail; /* what the driver will write next */
};

static inline void
ring_put16 (struct ring *ring, uint32_t offset, uint16_t value) {
  memcpy (ring->bytes + offset, &value, sizeof value);
}

static inline uint16_t
ring_get16 (const struct ring *ring, uint32_t offset) {
  uint16_t value;
  memcpy (&value, ring->bytes + offset, sizeof value);
  return value;
}

static inline uint32_t
ring_get32 (const struct ring *ring, uint32_t offset) {
  uint32_t value;
  memcpy (&value, ring->bytes + offset, sizeof value);
  return value;
}

/* A ready queue of `num` entries whose indices both stand at `start`. */
static inline void
ring_init (struct ring *ring, uint32_t num, uint16_t start) {
  const char *why = NULL;

  memset (ring, 0, sizeof *ring);
  ring->bytes = g_malloc0 (RING_BYTES);
  ring->memory.n_regions = 1;
  ring->memory.regions[0] = (struct guest_region){
    .guest_addr = RING_GUEST_BASE, .bytes = RING_BYTES, .user_addr = RING_USER_BASE, .host = ring->bytes
  };
  g_assert_true (virtqueue_set_num (&ring->vq, num));
  ring->vq.addr = (struct vhu_vring_addr){
    .desc = RING_USER_BASE + RING_DESC, .avail = RING_USER_BASE + RING_AVAIL, .used = RING_USER_BASE + RING_USED
  };
  ring->vq.have_addr = true;
  ring->vq.next_avail = ring->avail = start;
  ring_put16 (ring, RING_AVAIL + 2, start);
  ring_put16 (ring, RING_USED + 2, start);
  if (!virtqueue_resolve (&ring->vq, &ring->memory, &why))
    g_error ("%s", why);
}

static inline void
ring_clear (struct ring *ring) {
  g_free (ring->bytes);
}

static inline void
ring_desc_at (struct ring *ring, uint32_t table, uint32_t index, uint64_t addr, uint32_t len, uint16_t flags, uint16_t next) {
  uint8_t *p = ring->bytes + table + (size_t)index * 16;

  memcpy (p, &addr, 8);
  memcpy (p + 8, &len, 4);
  memcpy (p + 12, &flags, 2);
  memcpy (p + 14, &next, 2);
}

/* Descriptor `index` of the queue's own table, for len bytes at `data` in the data area. */
static inline void
ring_desc (struct ring *ring, uint32_t index, uint32_t data, uint32_t len, uint16_t flags, uint16_t next) {
  ring_desc_at (ring, RING_DESC, index, RING_GUEST_BASE + RING_DATA + data, len, flags, next);
}

/* Three descriptors in a table of their own: 10 and 5 readable bytes, 7 writable ones, at 0, 100 and 200 of the data area. */
static inline void
ring_indirect_table (struct ring *ring) {
  const uint64_t data = RING_GUEST_BASE + RING_DATA;

  ring_desc_at (ring, RING_INDIRECT, 0, data, 10, NEXT, 2);
  ring_desc_at (ring, RING_INDIRECT, 2, data + 100, 5, NEXT, 1);
  ring_desc_at (ring, RING_INDIRECT, 1, data + 200, 7, WRITE, 0);
}

/* Makes the chain that begins at `head` available. */
static inline void
ring_offer (struct ring *ring, uint16_t head) {
  ring_put16 (ring, RING_AVAIL + 4 + 2 * (ring->avail % ring->vq.num), head);
  ring->avail++;
  ring_put16 (ring, RING_AVAIL + 2, ring->avail);
}

static inline enum virtqueue_pop
ring_pop (struct ring *ring) {
  return virtqueue_pop (&ring->vq, &ring->memory, &ring->chain);
}

#endif
