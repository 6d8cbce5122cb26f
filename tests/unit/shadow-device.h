/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A second opinion on the memory device: the rules of the ABI once more, slow and plain, one byte per block.
 *
 * Every request goes to the device and to the shadow; the answers, the plans in between and all the books must agree, else the
 * program aborts with what differs. What the rules leave open (which of the free blocks are granted) is taken from the device
 * and checked: ungranted before, within the area, within the limits.
 */
#ifndef DOMYBS_TESTS_SHADOW_DEVICE_H
#define DOMYBS_TESTS_SHADOW_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/memory-device.h"

/* What the host does about one request. */
struct shadow_host {
  bool busy; /* does nothing now (memory_device_plan_busy) */
  bool drop; /* the queue is stopped before the host gets to it */
  enum device_outcome outcome;
  uint64_t blocks;      /* GRANT: has room for so many */
  uint64_t new_session; /* ≠ 0 */
};

struct shadow_past { /* an answered request */
  uint64_t id;
  size_t request_bytes, answer_bytes;
  uint8_t request[DOMYBS_REQUEST_BYTES_MAX], answer[DOMYBS_RESPONSE_BYTES_MAX];
};

struct shadow_device {
  struct memory_device device;
  struct device_plan plan; /* of the last request, finished */
  /* the shadow's books */
  uint64_t window_blocks, max_blocks, n_granted;
  uint8_t *granted; /* one per block */
  uint32_t section_blocks;
  uint64_t session, nonce, last_id, requests;
  bool offer_wanted, far_offer_wanted;
  uint64_t levels[2]; /* SHARED, REMOTE */
  struct shadow_past past[DOMYBS_REPLAY_DEPTH];
};

void shadow_init (struct shadow_device *shadow, const struct memory_device_options *options);
void shadow_clear (struct shadow_device *shadow);

/* One request of n bytes, whose answer may have cap bytes (≥ sizeof (struct domybs_response)). Returns the answer's status; -1 when
 * it was dropped. */
int shadow_request (struct shadow_device *shadow, const uint8_t *bytes, size_t n, size_t cap, const struct shadow_host *host);

/* The guest is gone or was reset. */
void shadow_reset (struct shadow_device *shadow);

#endif
