/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Any sequence of requests and host moods, checked step by step against the shadow of the memory device. */
#include "fuzz-request.h"

#include <glib.h>

#include "fuzz.h"
#include "requests.h"
#include "shadow-device.h"

#define OPERATIONS_MAX 200
#define REMEMBERED 32

struct guest {
  struct shadow_device shadow;
  struct request_bytes sent[REMEMBERED];
  unsigned n_sent;
};

static void
send (struct guest *guest, const struct request_bytes *request, uint8_t mood) {
  const bool scarce = mood & FUZZ_MOOD_SCARCE;
  const struct shadow_host host = {
    .drop = mood & FUZZ_MOOD_DROP,
    .outcome = (enum device_outcome)(mood & FUZZ_MOOD_OUTCOME),
    .blocks = scarce ? (uint64_t)(mood >> 4) * 7 : UINT64_MAX,
    .new_session = 1000 + guest->n_sent,
  };
  const bool tight = !scarce && (mood & FUZZ_MOOD_TIGHT);
  const size_t cap = tight ? sizeof (struct domybs_response) + guest->n_sent % 80 : DOMYBS_RESPONSE_BYTES_MAX;

  guest->sent[guest->n_sent++ % REMEMBERED] = *request;
  (void)shadow_request (&guest->shadow, request->bytes, request->n, cap, &host);
}

static struct request_bytes
raw_request (struct input *input, uint64_t session, uint64_t id, bool patch) {
  struct request_bytes request = { .n = input_8 (input) };

  input_bytes (input, request.bytes, request.n);
  if (patch && request.n >= sizeof (struct domybs_request)) {
    memcpy (request.bytes + offsetof (struct domybs_request, session), &session, 8);
    memcpy (request.bytes + offsetof (struct domybs_request, id), &id, 8);
  }
  return request;
}

static struct request_bytes
release_request (struct input *input, uint64_t session, uint64_t id) {
  struct domybs_run runs[DOMYBS_RUNS_MAX];
  const uint32_t n = 1 + input_8 (input) % DOMYBS_RUNS_MAX;

  for (uint32_t i = 0; i < n; i++) {
    runs[i].start = input_16 (input) % (FUZZ_WINDOW_BLOCKS + 1);
    runs[i].count = input_8 (input);
  }
  return request_release (session, id, runs, n);
}

static struct request_bytes
release_granted_request (struct guest *guest, struct input *input, uint64_t session, uint64_t id) {
  uint64_t cursor = input_16 (input) % FUZZ_WINDOW_BLOCKS;
  const uint64_t count = input_8 (input);
  struct block_run run;

  if (!regions_next_run (&guest->shadow.device.regions, true, &cursor, &run))
    run = (struct block_run){ cursor, 1 };
  return request_release_one (session, id, run.start, MIN (1 + count, run.count));
}

static struct request_bytes
stats_request (struct input *input, uint64_t session, uint64_t id) {
  struct domybs_stat stats[DOMYBS_STATS_MAX] = { { 0 } };
  const uint32_t n = input_8 (input) % (DOMYBS_STATS_MAX + 1);

  for (uint32_t i = 0; i < n; i++) {
    stats[i].tag = input_8 (input);
    stats[i].value = input_16 (input);
  }
  return request_of (DOMYBS_REQ_STATS, n, session, id, stats, n * sizeof stats[0]);
}

static void
operate (struct guest *guest, struct input *input) {
  const enum fuzz_operation operation = (enum fuzz_operation)(input_8 (input) % FUZZ_OPERATIONS);
  struct request_bytes request = { .n = 0 };
  uint64_t session = guest->shadow.session, id = guest->shadow.last_id + 1;
  uint8_t mood, a, b;
  uint16_t blocks, start, area;

  if (operation == FUZZ_RESET) {
    shadow_reset (&guest->shadow);
    return;
  }
  if (operation == FUZZ_TARGET) {
    a = input_8 (input);
    (void)memory_device_set_target (&guest->shadow.device, a & 1, input_16 (input));
    return;
  }
  mood = input_8 (input);
  if (!(mood & FUZZ_MOOD_SCARCE) && (mood & FUZZ_MOOD_WRONG_ID))
    id += 20 - input->left % 64;
  if (!(mood & FUZZ_MOOD_SCARCE) && (mood & FUZZ_MOOD_WRONG_SESSION))
    session = 999;
  switch (operation) {
  case FUZZ_HELLO:
    a = input_8 (input);
    b = input_8 (input);
    request = request_hello (a % 8, 1u << b % 12);
    break;
  case FUZZ_GRANT:
    a = input_8 (input);
    blocks = input_16 (input);
    start = input_16 (input);
    area = input_16 (input);
    request = request_grant (session, id, a & 7, a >> 3 & 7, blocks % (FUZZ_WINDOW_BLOCKS + 2), start % (FUZZ_WINDOW_BLOCKS + 2),
                             area % (FUZZ_WINDOW_BLOCKS + 2));
    break;
  case FUZZ_RELEASE:
    request = release_request (input, session, id);
    break;
  case FUZZ_RELEASE_GRANTED:
    request = release_granted_request (guest, input, session, id);
    break;
  case FUZZ_STATS:
    request = stats_request (input, session, id);
    break;
  case FUZZ_RESERVE:
    a = input_8 (input);
    blocks = input_16 (input);
    request = request_reserve (session, id, a & 7, a >> 3, (uint64_t)blocks << (a >> 6) * 4);
    break;
  case FUZZ_BYE:
    request = request_bye (session, id);
    break;
  case FUZZ_RAW:
  case FUZZ_RAW_ALL:
    request = raw_request (input, session, id, operation == FUZZ_RAW);
    break;
  default: /* FUZZ_REPEAT */
    a = input_8 (input);
    if (guest->n_sent == 0)
      return;
    request = guest->sent[a % MIN (guest->n_sent, REMEMBERED)];
    break;
  }
  send (guest, &request, mood);
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size) {
  static const struct memory_device_options options = { .window_blocks = FUZZ_WINDOW_BLOCKS, .max_blocks = FUZZ_MAX_BLOCKS };
  struct input input = { data, size };
  struct guest *guest = g_new0 (struct guest, 1);

  shadow_init (&guest->shadow, &options);
  for (unsigned i = 0; i < OPERATIONS_MAX && input.left; i++)
    operate (guest, &input);
  shadow_clear (&guest->shadow);
  g_free (guest);
  return 0;
}
