/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The memory device under any sequence of requests and any behaviour of the host, step by step against its shadow. */
#include <string.h>

#include "requests.h"
#include "shadow-device.h"
#include "testing.h"

struct driver {
  struct shadow_device shadow;
  GRand *rand;
  struct request_bytes sent[24]; /* the last requests, to be repeated */
  unsigned n_sent;
  unsigned statuses[DOMYBS_FAILED + 2]; /* how often each came; the last one: dropped */
};

static uint64_t
below (struct driver *d, uint64_t n) {
  return testing_below (d->rand, n);
}

/* A run of granted blocks, or one that may be anything. */
static struct domybs_run
some_run (struct driver *d) {
  uint64_t cursor = below (d, d->shadow.window_blocks);
  struct block_run run;

  if (testing_once_in (d->rand, 12))
    return (struct domybs_run){ testing_edgy (d->rand), testing_edgy (d->rand) };
  if (testing_once_in (d->rand, 8) || !regions_next_run (&d->shadow.device.regions, true, &cursor, &run))
    run = (struct block_run){ below (d, d->shadow.window_blocks), 1 + below (d, 4) };
  run.count = 1 + below (d, testing_once_in (d->rand, 4) ? run.count : MIN (run.count, 6));
  return (struct domybs_run){ run.start, run.count };
}

static struct request_bytes
some_release (struct driver *d, uint64_t session, uint64_t id) {
  struct domybs_run runs[DOMYBS_RUNS_MAX];
  const uint32_t n = 1 + (uint32_t)below (d, testing_once_in (d->rand, 4) ? DOMYBS_RUNS_MAX : 3);

  for (uint32_t i = 0; i < n; i++)
    runs[i] = some_run (d);
  return request_release (session, id, runs, n);
}

static struct request_bytes
some_grant (struct driver *d, uint64_t session, uint64_t id) {
  const struct shadow_device *shadow = &d->shadow;
  const uint32_t hint = testing_once_in (d->rand, 10) ? (uint32_t)below (d, 5) : DOMYBS_HINT_LOCAL;
  const uint32_t flags = testing_once_in (d->rand, 3) ? (uint32_t)below (d, 4) : 0;
  uint64_t blocks = 1 + below (d, testing_once_in (d->rand, 3) ? shadow->max_blocks : 20), start = 0, area = 0;

  switch (below (d, 6)) {
  case 0: /* a section, as the driver does */
  case 1:
    area = shadow->section_blocks;
    start = below (d, shadow->window_blocks / area) * area;
    blocks = testing_once_in (d->rand, 2) ? area : 1 + below (d, area);
    break;
  case 2: /* anything */
    start = below (d, shadow->window_blocks);
    area = 1 + below (d, shadow->window_blocks - start);
    break;
  case 3:
    if (testing_once_in (d->rand, 4)) {
      start = testing_edgy (d->rand);
      area = testing_edgy (d->rand);
      blocks = testing_edgy (d->rand);
    }
    break;
  default:
    break;
  }
  return request_grant (session, id, hint, flags, blocks, start, area);
}

static struct request_bytes
some_request (struct driver *d) {
  const uint64_t session = testing_once_in (d->rand, 40) ? below (d, 1000) : d->shadow.session;
  const uint64_t id = testing_once_in (d->rand, 20) ? d->shadow.last_id + 20 - below (d, 40) : d->shadow.last_id + 1;
  struct request_bytes request;

  if (d->n_sent && testing_once_in (d->rand, 6))
    return d->sent[below (d, MIN (d->n_sent, G_N_ELEMENTS (d->sent)))];
  if (d->shadow.session == 0 && !testing_once_in (d->rand, 4))
    return request_hello (1 + below (d, 4), 1u << below (d, 12));
  switch (below (d, 100)) {
  case 0:
    request = request_hello (below (d, 4), 1u << below (d, 12));
    break;
  case 1:
    request = request_bye (session, id);
    break;
  case 4:
  case 5:
  case 6:
    request = request_reserve (session, id, testing_once_in (d->rand, 8) ? (uint32_t)below (d, 6) : 2 + (uint32_t)below (d, 2),
                               testing_once_in (d->rand, 12), testing_once_in (d->rand, 4) ? testing_edgy (d->rand) : below (d, 500));
    break;
  case 2:
  case 3:
    request = request_stat (session, id, (uint32_t)below (d, 40), testing_edgy (d->rand));
    break;
  default:
    request = testing_once_in (d->rand, 2) ? some_release (d, session, id) : some_grant (d, session, id);
    break;
  }
  if (testing_once_in (d->rand, 25)) /* one byte wrong */
    request.bytes[below (d, request.n)] ^= (uint8_t)(1u << below (d, 8));
  if (testing_once_in (d->rand, 25)) /* cut short, or with something after its end */
    request.n = below (d, MIN (request.n + 40, sizeof request.bytes));
  return request;
}

static void
step (struct driver *d, unsigned number) {
  const struct request_bytes request = some_request (d);
  const size_t head = sizeof (struct domybs_response);
  const size_t cap = testing_once_in (d->rand, 5) ? head + below (d, 100) : DOMYBS_RESPONSE_BYTES_MAX;
  struct shadow_host host = {
    .busy = testing_once_in (d->rand, 12),
    .drop = testing_once_in (d->rand, 15),
    .outcome = testing_once_in (d->rand, 6) ? (enum device_outcome)below (d, 4) : DEVICE_DONE,
    .blocks = testing_once_in (d->rand, 5) ? below (d, 100) : UINT64_MAX,
    .new_session = 1 + below (d, 1000),
  };
  int status;

  if (request.bytes[0] == DOMYBS_REQ_RESERVE && testing_once_in (d->rand, 4))
    host.outcome = DEVICE_NO_TIER; /* of nothing else */
  testing_trace ("step %u: type %u, %zu bytes, room %zu, drop %d, outcome %d, room for %" G_GUINT64_FORMAT " blocks", number,
                 request.bytes[0], request.n, cap, host.drop, host.outcome, host.blocks);
  d->sent[d->n_sent++ % G_N_ELEMENTS (d->sent)] = request;
  status = shadow_request (&d->shadow, request.bytes, request.n, cap, &host);
  testing_trace ("  status %d, %" G_GUINT64_FORMAT " granted", status, d->shadow.n_granted);
  d->statuses[status < 0 ? DOMYBS_FAILED + 1 : status]++;
  if (testing_once_in (d->rand, 200)) {
    testing_trace ("  guest reset");
    shadow_reset (&d->shadow);
  }
  if (testing_once_in (d->rand, 50))
    memory_device_set_target (&d->shadow.device, testing_once_in (d->rand, 2), testing_edgy (d->rand));
  d->shadow.device.offer_wanted = d->shadow.offer_wanted = d->shadow.offer_wanted && !testing_once_in (d->rand, 3);
}

static void
test_random (gconstpointer data) {
  const struct memory_device_options *options = data;
  struct driver *d = g_new0 (struct driver, 1);

  d->rand = testing_rand ();
  shadow_init (&d->shadow, options);
  for (unsigned i = 0, steps = testing_steps (20000); i < steps; i++)
    step (d, i);
  if (testing_steps (20000) == 20000)
    for (unsigned i = 0; i < G_N_ELEMENTS (d->statuses); i++) {
      g_test_message ("%s: %u times", i <= DOMYBS_FAILED ? device_status_name ((enum domybs_status)i) : "dropped", d->statuses[i]);
      g_assert_cmpuint (d->statuses[i], >, 0);
    }
  shadow_clear (&d->shadow);
  g_rand_free (d->rand);
  g_free (d);
}

int
main (int argc, char **argv) {
  static const struct memory_device_options small = { .window_blocks = 1024, .max_blocks = 300 };
  static const struct memory_device_options all_of_it = { .window_blocks = 1024, .max_blocks = 1024 };
  static const struct memory_device_options larger = { .window_blocks = 4096, .max_blocks = 2500 };

  testing_init (&argc, &argv);
  g_test_add_data_func ("/memory-device/any sequence agrees with the shadow/small limit", &small, test_random);
  g_test_add_data_func ("/memory-device/any sequence agrees with the shadow/whole window", &all_of_it, test_random);
  g_test_add_data_func ("/memory-device/any sequence agrees with the shadow/larger window", &larger, test_random);
  return g_test_run ();
}
