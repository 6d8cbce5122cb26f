/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "core/virtqueue.h"
#include "core/crash-point.h"

#include <endian.h>
#include <string.h>

#define DESC_F_NEXT 1u
#define DESC_F_WRITE 2u
#define DESC_F_INDIRECT 4u
#define DESC_BYTES 16u
#define AVAIL_F_NO_INTERRUPT 1u
#define USED_F_NO_NOTIFY 1u

struct desc {
  uint64_t addr;
  uint32_t len;
  uint16_t flags;
  uint16_t next;
};

/* Guest memory changes under us: these read and write it exactly once, whatever the compiler would like to do. */
static uint16_t
load16 (const uint16_t *p) {
  return le16toh (__atomic_load_n (p, __ATOMIC_ACQUIRE));
}

static void
store16 (uint16_t *p, uint16_t value) {
  __atomic_store_n (p, htole16 (value), __ATOMIC_RELEASE);
}

static struct desc
load_desc (const uint8_t *table, uint32_t index) {
  const uint64_t *p = (const uint64_t *)(table + (size_t)index * DESC_BYTES);
  const uint64_t low = __atomic_load_n (p, __ATOMIC_RELAXED), high = le64toh (__atomic_load_n (p + 1, __ATOMIC_RELAXED));

  return (struct desc){ le64toh (low), (uint32_t)high, (uint16_t)(high >> 32), (uint16_t)(high >> 48) };
}

static enum virtqueue_pop
broken (struct virtqueue *vq, const char *why) {
  vq->state = VIRTQUEUE_BROKEN;
  vq->broken_why = why;
  return VIRTQUEUE_POP_BROKEN;
}

bool
virtqueue_set_num (struct virtqueue *vq, uint32_t num) {
  if (num == 0 || num > VIRTQUEUE_SIZE_MAX || (num & (num - 1)))
    return false;
  vq->num = num;
  return true;
}

static bool
resolve (struct virtqueue *vq, const struct guest_memory *memory, const char **ret_why) {
  const uint64_t num = vq->num;
  uint8_t *desc;
  uint16_t *avail, *used;

  if (num == 0 || !vq->have_addr) {
    *ret_why = "size or address not set";
    return false;
  }
  if ((vq->addr.desc % 16) || (vq->addr.avail % 2) || (vq->addr.used % 4)) {
    *ret_why = "misaligned ring";
    return false;
  }
  desc = guest_memory_at_user (memory, vq->addr.desc, num * DESC_BYTES);
  avail = guest_memory_at_user (memory, vq->addr.avail, 4 + num * 2 + 2);
  used = guest_memory_at_user (memory, vq->addr.used, 4 + num * 8 + 2);
  if (!desc || !avail || !used) {
    *ret_why = "ring outside of the VM's RAM";
    return false;
  }
  /* user addresses are aligned, but whether the memory behind them is depends on the region's own alignment */
  if (((uintptr_t)desc % 8) || ((uintptr_t)avail % 2) || ((uintptr_t)used % 4)) {
    *ret_why = "misaligned memory region";
    return false;
  }
  vq->desc = desc;
  vq->avail = avail;
  vq->used = used;
  vq->next_used = load16 (&used[1]);
  vq->signalled_valid = false;
  vq->state = VIRTQUEUE_READY;
  return true;
}

bool
virtqueue_resolve (struct virtqueue *vq, const struct guest_memory *memory, const char **ret_why) {
  virtqueue_unresolve (vq);
  if (resolve (vq, memory, ret_why))
    return true;
  broken (vq, *ret_why);
  return false;
}

enum virtqueue_restored
virtqueue_restore (struct virtqueue *vq, const struct guest_memory *memory, uint16_t next_avail, uint16_t next_used,
                   const char **ret_why) {
  uint16_t in_ring;

  if (!virtqueue_resolve (vq, memory, ret_why))
    return VIRTQUEUE_RESTORE_BROKEN;
  in_ring = vq->next_used; /* read once: what it says may be another thing a moment later */
  vq->next_avail = next_avail;
  vq->next_used = next_used;
  if (in_ring == next_used)
    return VIRTQUEUE_RESTORED;
  if (in_ring == (uint16_t)(next_used - 1)) {
    vq->next_used = in_ring;
    return VIRTQUEUE_RESTORED_OPEN;
  }
  *ret_why = "the used index is not ours";
  broken (vq, *ret_why);
  return VIRTQUEUE_RESTORE_BROKEN;
}

void
virtqueue_unresolve (struct virtqueue *vq) {
  vq->state = VIRTQUEUE_IDLE;
  vq->broken_why = NULL;
  vq->desc = NULL;
  vq->avail = vq->used = NULL;
}

/* What a walk over a chain has found so far. Device-writable pieces are collected apart, because a chain must not go back from
 * writable to readable. */
struct walk {
  struct virtqueue_chain *chain;
  const struct guest_memory *memory;
};

static const char *
walk_piece (struct walk *walk, const struct desc *desc) {
  struct virtqueue_chain *chain = walk->chain;
  const unsigned n = chain->n_out + chain->n_in;
  void *host;

  if (n == VIRTQUEUE_PIECES_MAX)
    return "chain has too many pieces";
  if (desc->len == 0)
    return "empty descriptor";
  host = guest_memory_at (walk->memory, desc->addr, desc->len);
  if (!host)
    return "buffer outside of the VM's RAM";
  if (desc->flags & DESC_F_WRITE) {
    chain->n_in++;
    chain->in_bytes += desc->len;
  } else {
    if (chain->n_in)
      return "readable descriptor after a writable one";
    chain->n_out++;
    chain->out_bytes += desc->len;
  }
  chain->pieces[n] = (struct iovec){ host, desc->len };
  return NULL;
}

/* Walks a table of `entries` descriptors from `first` on. */
static const char *
walk_table (struct walk *walk, struct virtqueue *vq, const uint8_t *table, uint32_t entries, uint32_t first, bool is_indirect) {
  uint32_t index = first;
  const char *why;

  for (uint32_t steps = 0; steps < entries; steps++) {
    struct desc desc;

    if (index >= entries)
      return "descriptor index out of range";
    desc = load_desc (table, index);
    if (desc.flags & DESC_F_INDIRECT) {
      /* also as the last one after direct descriptors (VIRTIO 1.2, 2.7.5.3.2) */
      const uint8_t *inner;

      if (!vq->indirect)
        return "indirect descriptor, but that feature was not negotiated";
      if (is_indirect)
        return "indirect table within an indirect table";
      if (desc.flags & DESC_F_NEXT)
        return "indirect descriptor with a next one";
      if (desc.len == 0 || desc.len % DESC_BYTES || desc.len / DESC_BYTES > VIRTQUEUE_PIECES_MAX)
        return "indirect table of bad size";
      inner = guest_memory_at (walk->memory, desc.addr, desc.len);
      if (!inner || (uintptr_t)inner % 8)
        return "indirect table misaligned or outside of the VM's RAM";
      return walk_table (walk, vq, inner, desc.len / DESC_BYTES, 0, true);
    }
    why = walk_piece (walk, &desc);
    if (why)
      return why;
    if (!(desc.flags & DESC_F_NEXT))
      return NULL;
    index = desc.next;
  }
  return "chain loops";
}

/* What there is to take from a queue that is not ready. */
static enum virtqueue_pop
not_ready (const struct virtqueue *vq) {
  return vq->state == VIRTQUEUE_BROKEN ? VIRTQUEUE_POP_BROKEN : VIRTQUEUE_POP_EMPTY;
}

enum virtqueue_pop
virtqueue_chain_at (struct virtqueue *vq, const struct guest_memory *memory, uint16_t head, struct virtqueue_chain *ret_chain) {
  struct walk walk = { ret_chain, memory };
  const char *why;

  if (vq->state != VIRTQUEUE_READY)
    return not_ready (vq);
  if (head >= vq->num)
    return broken (vq, "available ring entry out of range");
  ret_chain->head = head;
  ret_chain->n_out = ret_chain->n_in = 0;
  ret_chain->out_bytes = ret_chain->in_bytes = 0;
  why = walk_table (&walk, vq, vq->desc, vq->num, head, false);
  return why ? broken (vq, why) : VIRTQUEUE_POP_CHAIN;
}

enum virtqueue_pop
virtqueue_pop (struct virtqueue *vq, const struct guest_memory *memory, struct virtqueue_chain *ret_chain) {
  enum virtqueue_pop popped;
  uint16_t available;

  if (vq->state != VIRTQUEUE_READY)
    return not_ready (vq);
  available = (uint16_t)(load16 (&vq->avail[1]) - vq->next_avail);
  if (available == 0)
    return VIRTQUEUE_POP_EMPTY;
  if (available > vq->num)
    return broken (vq, "available index moved by more than the queue's size");
  popped = virtqueue_chain_at (vq, memory, load16 (&vq->avail[2 + (vq->next_avail & (vq->num - 1))]), ret_chain);
  if (popped == VIRTQUEUE_POP_CHAIN)
    vq->next_avail++;
  return popped;
}

void
virtqueue_unpop (struct virtqueue *vq) {
  vq->next_avail--;
}

size_t
virtqueue_chain_read (const struct virtqueue_chain *chain, size_t offset, void *buf, size_t cap) {
  size_t done = 0;

  for (unsigned i = 0; i < chain->n_out && done < cap; i++) {
    const struct iovec *piece = &chain->pieces[i];
    size_t n;

    if (offset >= piece->iov_len) {
      offset -= piece->iov_len;
      continue;
    }
    n = piece->iov_len - offset;
    if (n > cap - done)
      n = cap - done;
    memcpy ((uint8_t *)buf + done, (const uint8_t *)piece->iov_base + offset, n);
    done += n;
    offset = 0;
  }
  return done;
}

size_t
virtqueue_chain_write (const struct virtqueue_chain *chain, const void *buf, size_t bytes) {
  size_t done = 0;

  for (unsigned i = 0; i < chain->n_in && done < bytes; i++) {
    const struct iovec *piece = &chain->pieces[chain->n_out + i];
    const size_t n = piece->iov_len < bytes - done ? piece->iov_len : bytes - done;

    memcpy (piece->iov_base, (const uint8_t *)buf + done, n);
    done += n;
  }
  return done;
}

void
virtqueue_push (struct virtqueue *vq, uint16_t head, uint32_t written) {
  uint32_t *entry;

  if (vq->state != VIRTQUEUE_READY)
    return; /* the queue was stopped or broke while the request was under way: nobody waits for it there */
  entry = (uint32_t *)(vq->used + 2) + 2 * (vq->next_used & (vq->num - 1));
  __atomic_store_n (entry, htole32 (head), __ATOMIC_RELAXED);
  __atomic_store_n (entry + 1, htole32 (written), __ATOMIC_RELAXED);
  CRASH_POINT ("used-entry");
  vq->next_used++;
  store16 (&vq->used[1], vq->next_used); /* release: the entry is seen before the index */
}

bool
virtqueue_should_signal (struct virtqueue *vq) {
  uint16_t before, event;
  bool valid;

  if (vq->state != VIRTQUEUE_READY)
    return false;
  __atomic_thread_fence (__ATOMIC_SEQ_CST); /* the index is written before the driver's wish is read */
  if (!vq->event_idx)
    return !(load16 (&vq->avail[0]) & AVAIL_F_NO_INTERRUPT);
  before = vq->signalled_used;
  valid = vq->signalled_valid;
  if (valid && before == vq->next_used)
    return false; /* nothing new */
  event = load16 (&vq->avail[2 + vq->num]);
  vq->signalled_used = vq->next_used;
  vq->signalled_valid = true;
  /* VIRTIO 1.2, 2.7.10.1: signal if used_event lies in [before, next_used) */
  return !valid || (uint16_t)(vq->next_used - event - 1) < (uint16_t)(vq->next_used - before);
}

bool
virtqueue_enable_kicks (struct virtqueue *vq, bool enable) {
  if (vq->state != VIRTQUEUE_READY)
    return false;
  if (vq->event_idx) {
    /* not wanting kicks needs nothing: the old avail_event stays behind */
    if (enable)
      store16 (&vq->used[2 + vq->num * 4], vq->next_avail);
  } else {
    store16 (&vq->used[0], enable ? 0 : USED_F_NO_NOTIFY);
  }
  if (!enable)
    return false;
  __atomic_thread_fence (__ATOMIC_SEQ_CST); /* the wish is written before the index is read */
  return load16 (&vq->avail[1]) != vq->next_avail;
}
