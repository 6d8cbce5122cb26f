/* SPDX-License-Identifier: GPL-2.0-or-later */
/* An image of a device's state in plain memory, and a transaction as the back-end makes them: one request of the guest,
 * answered in queue 0. */
#ifndef DOMYBS_TESTS_STATE_IMAGE_H
#define DOMYBS_TESTS_STATE_IMAGE_H

#include <glib.h>
#include <string.h>

#include "core/device-state.h"

#define IMAGE_WINDOW 1024u /* blocks: the smallest there is */

struct image {
  struct device_state state;
  uint8_t *memory;
};

static inline struct image
image_new (const char *program) {
  struct image image = { .memory = g_malloc0 (device_state_bytes (IMAGE_WINDOW)) };

  device_state_create (&image.state, image.memory, IMAGE_WINDOW, program);
  return image;
}

static inline struct image
image_copy (const struct image *image) {
  struct image copy = { .memory = g_memdup2 (image->memory, image->state.bytes) };

  device_state_attach (&copy.state, copy.memory);
  return copy;
}

static inline void
image_clear (struct image *image) {
  g_free (image->memory);
}

static inline const char *
image_check (const struct image *image) {
  return device_state_check (image->memory, image->state.bytes, IMAGE_WINDOW);
}

/* Begins a transaction: the record as the last one left the scalars, nothing to push or to send. */
static inline struct state_record *
image_begin (struct image *image, struct memory_device *device) {
  struct state_record *record = image->state.record;

  record->scalars = *image->state.scalars;
  record->have_push = 0;
  record->out_bytes[0] = record->out_bytes[1] = 0;
  record->out_slot = STATE_NONE;
  device_state_save_device (record, device);
  return record;
}

/* Something to push in it: n bytes for the chain at head of queue 0. */
static inline void
image_push (struct state_record *record, uint16_t head, const void *bytes, size_t n) {
  record->scalars.session.queues[0].num = 128;
  record->scalars.session.queues[0].next_avail++;
  record->scalars.session.queues[0].next_used++;
  record->have_push = 1;
  record->push_queue = 0;
  record->push_head = head;
  record->push_bytes = (uint32_t)n;
  memcpy (record->push_payload, bytes, n);
}

static inline void
image_commit (struct image *image) {
  device_state_commit (&image->state);
  device_state_done (&image->state);
}

/* A device as the back-end begins with it, without a session. */
static inline void
image_device_init (struct memory_device *device) {
  static const struct memory_device_options options = { .window_blocks = IMAGE_WINDOW, .max_blocks = 800 };
  const char *why = NULL;

  if (!memory_device_init (device, &options, &why))
    g_error ("%s", why);
}

/* What both remember is the same. */
static inline void
image_same_device (const struct memory_device *a, const struct memory_device *b) {
  g_assert_cmpuint (a->session, ==, b->session);
  g_assert_cmpuint (a->nonce, ==, b->nonce);
  g_assert_cmpuint (a->last_id, ==, b->last_id);
  g_assert_cmpuint (a->generation, ==, b->generation);
  g_assert_cmpint (a->options.have_target, ==, b->options.have_target);
  g_assert_cmpuint (a->options.target_blocks, ==, b->options.target_blocks);
  g_assert_cmpint (a->shortage, ==, b->shortage);
  g_assert_cmpint (a->offer_wanted, ==, b->offer_wanted);
  g_assert_cmpmem (&a->counters, sizeof a->counters, &b->counters, sizeof b->counters);
  g_assert_cmpuint (a->stats_known, ==, b->stats_known);
  g_assert_cmpmem (a->stats, sizeof a->stats, b->stats, sizeof b->stats);
  g_assert_cmpstr (a->driver, ==, b->driver);
  g_assert_cmpuint (a->regions.region_blocks, ==, b->regions.region_blocks);
  g_assert_cmpuint (a->regions.usable_blocks, ==, b->regions.usable_blocks);
  g_assert_cmpuint (a->regions.granted, ==, b->regions.granted);
  g_assert_cmpmem (a->regions.bits, IMAGE_WINDOW / 8, b->regions.bits, IMAGE_WINDOW / 8);
  g_assert_cmpuint (regions_fragmentation (&a->regions), ==, regions_fragmentation (&b->regions));
  for (uint64_t id = a->last_id; id > 0 && a->last_id - id < DOMYBS_REPLAY_DEPTH; id--) {
    const struct memory_device_answer *one = &a->answers[id % DOMYBS_REPLAY_DEPTH],
                                      *other = &b->answers[id % DOMYBS_REPLAY_DEPTH];

    g_assert_cmpuint (one->id, ==, id);
    g_assert_cmpuint (other->id, ==, id);
    g_assert_cmpuint (one->digest, ==, other->digest);
    g_assert_cmpmem (one->response, one->bytes, other->response, other->bytes);
  }
}

#endif
