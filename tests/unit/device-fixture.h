/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A memory device with a small window, and the verbs of a driver and of a host that does everything. */
#ifndef DOMYBS_TESTS_DEVICE_FIXTURE_H
#define DOMYBS_TESTS_DEVICE_FIXTURE_H

#include <endian.h>
#include <string.h>

#include "core/memory-device.h"
#include "requests.h"
#include "testing.h"

#define WINDOW 2048u /* blocks: 4 GiB */
#define LIMIT 1000u
#define SECTION 64u
#define SESSION 0x5e5510ull
#define ROOM DOMYBS_RESPONSE_BYTES_MAX

struct fixture {
  struct memory_device device;
  struct device_plan plan;
  uint64_t id; /* of the last request sent */
};

static const struct memory_device_options good_options = { .window_blocks = WINDOW, .max_blocks = LIMIT, .grow_min_blocks = 64 };

static inline void
set_up (struct fixture *f, gconstpointer unused) {
  const char *why = NULL;

  g_assert_true (memory_device_init (&f->device, &good_options, &why));
  g_assert_null (why);
}

static inline void
tear_down (struct fixture *f, gconstpointer unused) {
  memory_device_clear (&f->device);
}

static inline struct domybs_response
answer (const struct fixture *f) {
  struct domybs_response response;

  g_assert_cmpuint (f->plan.answer_bytes, >=, sizeof response);
  memcpy (&response, f->plan.answer, sizeof response);
  return response;
}

static inline int
status (const struct fixture *f) {
  return le16toh (answer (f).status);
}

static inline void
plan (struct fixture *f, struct request_bytes request) {
  memory_device_plan (&f->device, request.bytes, request.n, ROOM, &f->plan);
}

static inline void
finish (struct fixture *f, enum device_outcome outcome, uint64_t blocks) {
  memory_device_finish (&f->device, &f->plan, outcome, blocks, SESSION);
}

/* Sends a request to a host that does everything. */
static inline int
send (struct fixture *f, struct request_bytes request) {
  plan (f, request);
  finish (f, DEVICE_DONE, UINT64_MAX);
  return status (f);
}

static inline void
hello (struct fixture *f) {
  g_assert_cmpint (send (f, request_hello (1, SECTION)), ==, DOMYBS_OK);
  f->id = 0;
}

static inline struct request_bytes
grant_of (struct fixture *f, uint32_t flags, uint64_t blocks, uint64_t area_start, uint64_t area_blocks) {
  return request_grant (SESSION, ++f->id, DOMYBS_HINT_LOCAL, flags, blocks, area_start, area_blocks);
}

static inline int
grant (struct fixture *f, uint64_t blocks) {
  return send (f, grant_of (f, 0, blocks, 0, 0));
}

static inline int
release (struct fixture *f, uint64_t start, uint64_t count) {
  return send (f, request_release_one (SESSION, ++f->id, start, count));
}

#define ADD(path, function) g_test_add ("/memory-device/" path, struct fixture, NULL, set_up, function, tear_down)

#endif
