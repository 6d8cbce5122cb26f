/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "core/inflight.h"
#include "core/crash-point.h"

#include <string.h>

/* Others write here, too: every field is read once, and what is stored is stored in the order of the source. */
#define LOAD(field) __atomic_load_n (&(field), __ATOMIC_ACQUIRE)
#define STORE(field, value) __atomic_store_n (&(field), (value), __ATOMIC_RELEASE)

size_t
inflight_region_bytes (uint32_t queue_size) {
  const size_t bytes = sizeof (struct inflight_region) + queue_size * sizeof (struct inflight_desc);

  if (queue_size == 0 || queue_size > VIRTQUEUE_SIZE_MAX)
    return 0;
  return (bytes + INFLIGHT_ALIGNMENT - 1) / INFLIGHT_ALIGNMENT * INFLIGHT_ALIGNMENT;
}

/* ---- what we know ---- */

static uint64_t
bit_of (uint16_t head) {
  return 1ull << (head % 64);
}

static bool
has (const struct inflight *inflight, uint16_t head) {
  return head < inflight->num && (inflight->bits[head / 64] & bit_of (head));
}

static void
add (struct inflight *inflight, uint16_t head) {
  inflight->bits[head / 64] |= bit_of (head);
  inflight->n++;
}

/* ---- a queue starts ---- */

static void
format_region (struct inflight *inflight, uint16_t used_idx) {
  struct inflight_region *region = inflight->region;

  STORE (region->desc_num, (uint16_t)inflight->num);
  STORE (region->used_idx, used_idx);
  STORE (region->version, INFLIGHT_VERSION); /* last: until then it is new */
}

/* The last batch was answered, but not all of its marks are gone. */
static const char *
settle_batch (struct inflight *inflight, uint16_t n, uint16_t used_idx) {
  struct inflight_region *region = inflight->region;
  uint16_t head = LOAD (region->last_batch_head);

  if (n > inflight->num)
    return "the used index is not ours";
  for (; n > 0; n--) {
    if (head >= inflight->num)
      return "the inflight region names a descriptor that is none";
    STORE (region->desc[head].inflight, 0);
    CRASH_POINT ("inflight-settling");
    head = LOAD (region->desc[head].next);
  }
  STORE (region->used_idx, used_idx);
  CRASH_POINT ("inflight-settled");
  return NULL;
}

/* Sorts by counter, smallest first. Insertion: the order is almost always nearly that of the heads, and there are 1024 at
 * most. */
static void
sort_again (struct inflight *inflight, uint64_t *counters) {
  for (uint32_t i = 1; i < inflight->n_again; i++) {
    const uint64_t counter = counters[i];
    const uint16_t head = inflight->again[i];
    uint32_t k = i;

    for (; k > 0 && counters[k - 1] > counter; k--) {
      counters[k] = counters[k - 1];
      inflight->again[k] = inflight->again[k - 1];
    }
    counters[k] = counter;
    inflight->again[k] = head;
  }
}

static void
list_again (struct inflight *inflight) {
  uint64_t counters[VIRTQUEUE_SIZE_MAX];

  for (uint32_t head = 0; head < inflight->num; head++) {
    if (!LOAD (inflight->region->desc[head].inflight))
      continue;
    counters[inflight->n_again] = LOAD (inflight->region->desc[head].counter);
    inflight->again[inflight->n_again++] = (uint16_t)head;
    add (inflight, (uint16_t)head);
  }
  sort_again (inflight, counters);
  if (inflight->n_again)
    inflight->counter = counters[inflight->n_again - 1] + 1;
}

bool
inflight_start (struct inflight *inflight, struct inflight_region *region, struct virtqueue *vq, const char **ret_why) {
  const uint16_t used_idx = vq->next_used; /* as the ring had it when it was resolved */
  uint16_t open;
  const char *why = NULL;

  memset (inflight, 0, sizeof *inflight);
  inflight->num = vq->num;
  if (!region)
    return true;
  inflight->region = region;
  switch (LOAD (region->version)) {
  case 0:
    format_region (inflight, used_idx);
    return true;
  case INFLIGHT_VERSION:
    break;
  default:
    why = "the inflight region is of another version";
  }
  if (!why && LOAD (region->features))
    why = "the inflight region has features that we do not know";
  open = why ? 0 : (uint16_t)(used_idx - LOAD (region->used_idx));
  if (open)
    why = settle_batch (inflight, open, used_idx);
  if (why) {
    *ret_why = why;
    return false;
  }
  inflight->last_batch_head = LOAD (region->last_batch_head);
  list_again (inflight);
  vq->next_avail = (uint16_t)(used_idx + inflight->n);
  return true;
}

/* ---- a queue runs ---- */

int
inflight_next_again (const struct inflight *inflight) {
  return inflight->done_again < inflight->n_again ? inflight->again[inflight->done_again] : -1;
}

void
inflight_took_again (struct inflight *inflight) {
  inflight->done_again++;
}

bool
inflight_take (struct inflight *inflight, uint16_t head) {
  if (head >= inflight->num || has (inflight, head))
    return false;
  add (inflight, head);
  if (inflight->region) {
    STORE (inflight->region->desc[head].counter, inflight->counter);
    CRASH_POINT ("inflight-counter");
    STORE (inflight->region->desc[head].inflight, 1);
    CRASH_POINT ("inflight-taken");
  }
  inflight->counter++;
  return true;
}

void
inflight_push (struct inflight *inflight, struct virtqueue *vq, uint16_t head, uint32_t written) {
  struct inflight_region *region = inflight->region;

  if (!has (inflight, head))
    return;
  inflight->bits[head / 64] &= ~bit_of (head);
  inflight->n--;
  if (!region || vq->state != VIRTQUEUE_READY) {
    virtqueue_push (vq, head, written);
    return;
  }
  STORE (region->desc[head].next, inflight->last_batch_head);
  CRASH_POINT ("inflight-next");
  inflight->last_batch_head = head;
  STORE (region->last_batch_head, head);
  CRASH_POINT ("inflight-batch");
  virtqueue_push (vq, head, written);
  CRASH_POINT ("inflight-pushed");
  STORE (region->desc[head].inflight, 0);
  CRASH_POINT ("inflight-cleared");
  STORE (region->used_idx, vq->next_used);
  CRASH_POINT ("inflight-done");
}
