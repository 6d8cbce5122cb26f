/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The core with an allocator that fails on demand (linked with -Wl,--wrap): nothing leaks, nothing is left half done. */
#include <stdlib.h>
#include <string.h>

#include "core/far-store.h"
#include "core/memory-device.h"
#include "requests.h"
#include "testing.h"

void *__real_malloc (size_t bytes);
void *__real_calloc (size_t n, size_t bytes);
void *__real_realloc (void *memory, size_t bytes);
void __real_free (void *memory);
void *__wrap_malloc (size_t bytes);
void *__wrap_calloc (size_t n, size_t bytes);
void *__wrap_realloc (void *memory, size_t bytes);
void __wrap_free (void *memory);

static int fail_after = -1; /* so many allocations succeed from now on; −1: all of them */
static int live;            /* allocations not freed */
static int allocations;     /* asked for */

static bool
fails (void) {
  allocations++;
  if (fail_after < 0)
    return false;
  if (fail_after == 0)
    return true;
  fail_after--;
  return false;
}

void *
__wrap_malloc (size_t bytes) {
  void *memory = fails () ? NULL : __real_malloc (bytes);

  live += memory != NULL;
  return memory;
}

void *
__wrap_calloc (size_t n, size_t bytes) {
  void *memory = fails () ? NULL : __real_calloc (n, bytes);

  live += memory != NULL;
  return memory;
}

void *
__wrap_realloc (void *memory, size_t bytes) {
  void *moved = fails () ? NULL : __real_realloc (memory, bytes);

  live += !memory && moved;
  return moved;
}

void
__wrap_free (void *memory) {
  live -= memory != NULL;
  __real_free (memory);
}

static void
no_failures (void) {
  fail_after = -1;
}

static void
test_regions_init (void) {
  struct regions regions;
  int failures = 0;

  for (int n = 0;; n++) {
    bool good;

    fail_after = n;
    good = regions_init (&regions, 1024, 64);
    no_failures ();
    if (good)
      break;
    failures++;
    g_assert_cmpint (live, ==, 0);
    g_assert_null (regions.bits);
    g_assert_null (regions.entries);
    regions_clear (&regions); /* harmless */
  }
  g_assert_cmpint (failures, >=, 2);
  g_assert_cmpint (live, ==, 2);
  regions_clear (&regions);
  g_assert_cmpint (live, ==, 0);
}

static void
test_regions_reset (void) {
  struct regions regions;
  struct block_run run;
  unsigned n_runs;

  g_assert_true (regions_init (&regions, 1024, 64));
  g_assert_true (regions_take (&regions, 10, 100));
  fail_after = 0;
  g_assert_false (regions_reset (&regions, 16));
  no_failures ();
  g_assert_cmpuint (regions.granted, ==, 100);
  g_assert_cmpuint (regions.region_blocks, ==, 64);
  g_assert_cmpuint (regions.usable_blocks, ==, 960);
  g_assert_cmpuint (regions_count (&regions, 10, 100), ==, 100);
  g_assert_cmpuint (regions_choose (&regions, 1, 0, 0, 0, &run, 1, &n_runs), ==, 1);
  regions_clear (&regions);
  g_assert_cmpint (live, ==, 0);
}

static const struct memory_device_options options = { .window_blocks = 1024, .max_blocks = 1000 };

static void
test_device_init (void) {
  struct memory_device device;
  int failures = 0;

  for (int n = 0;; n++) {
    const char *why = NULL;
    bool good;

    fail_after = n;
    good = memory_device_init (&device, &options, &why);
    no_failures ();
    if (good)
      break;
    failures++;
    g_assert_cmpstr (why, ==, "not enough memory for the block table");
    g_assert_cmpint (live, ==, 0);
  }
  g_assert_cmpint (failures, >=, 2);
  memory_device_clear (&device);
  g_assert_cmpint (live, ==, 0);
}

static int
send (struct memory_device *device, struct request_bytes request) {
  static struct device_plan plan;

  memory_device_plan (device, request.bytes, request.n, DOMYBS_RESPONSE_BYTES_MAX, &plan);
  memory_device_finish (device, &plan, DEVICE_DONE, UINT64_MAX, 7);
  return plan.answer[0];
}

static void
test_hello (void) {
  struct memory_device device;
  const char *why;

  g_assert_true (memory_device_init (&device, &options, &why));
  g_assert_cmpint (send (&device, request_hello (1, 64)), ==, DOMYBS_OK);
  g_assert_cmpint (send (&device, request_grant (7, 1, 0, 0, 100, 0, 0)), ==, DOMYBS_OK);
  fail_after = 0;
  g_assert_cmpint (send (&device, request_hello (2, 1)), ==, DOMYBS_FAILED); /* 16 times as many sections */
  no_failures ();
  g_assert_cmpuint (device.session, ==, 0);
  g_assert_cmpuint (device.regions.granted, ==, 0);
  g_assert_cmpuint (device.regions.region_blocks, ==, 64);
  g_assert_cmpint (send (&device, request_hello (2, 1)), ==, DOMYBS_OK);
  memory_device_clear (&device);
  g_assert_cmpint (live, ==, 0);
}

static void
test_end_of_session (void) {
  struct memory_device device;
  const char *why;

  /* giving up grants must not depend on memory that is not there */
  g_assert_true (memory_device_init (&device, &options, &why));
  for (unsigned by_bye = 0; by_bye < 2; by_bye++) {
    g_assert_cmpint (send (&device, request_hello (1, 64)), ==, DOMYBS_OK);
    g_assert_cmpint (send (&device, request_grant (7, 1, 0, 0, 100, 0, 0)), ==, DOMYBS_OK);
    fail_after = 0;
    if (by_bye)
      g_assert_cmpint (send (&device, request_bye (7, 2)), ==, DOMYBS_OK);
    else
      memory_device_reset (&device);
    no_failures ();
    g_assert_cmpuint (device.session, ==, 0);
    g_assert_cmpuint (device.regions.granted, ==, 0);
    g_assert_cmpuint (regions_count (&device.regions, 0, 100), ==, 0);
  }
  memory_device_clear (&device);
  g_assert_cmpint (live, ==, 0);
}

static void
test_requests_need_no_memory (void) {
  struct memory_device device;
  const char *why;

  g_assert_true (memory_device_init (&device, &options, &why));
  g_assert_cmpint (send (&device, request_hello (1, 64)), ==, DOMYBS_OK);
  allocations = 0;
  for (uint64_t id = 1; id < 100; id += 3) {
    g_assert_cmpint (send (&device, request_grant (7, id, 0, 0, 100, 0, 128)), ==, DOMYBS_OK);
    g_assert_cmpint (send (&device, request_stat (7, id + 1, 1, 1)), ==, DOMYBS_OK);
    g_assert_cmpint (send (&device, request_release_one (7, id + 2, 0, 100)), ==, DOMYBS_OK);
    g_assert_cmpint (send (&device, request_hello (1, 64)), ==, DOMYBS_OK);
  }
  g_assert_cmpint (allocations, ==, 0);
  memory_device_clear (&device);
  g_assert_cmpint (live, ==, 0);
}

static void
test_far_store_open (void) {
  struct far_geometry geometry = { .n_pages = 2048, .n_stage_slots = 4 };
  uint64_t *state, *before;
  size_t bytes;
  int failures = 0;

  geometry.n_places = far_store_places_needed (geometry.n_pages, 100, 4);
  bytes = far_store_state_bytes (&geometry);
  state = g_malloc0 (bytes);
  far_store_format (state, &geometry);
  before = g_memdup2 (state, bytes);
  for (int n = 0;; n++) {
    const int live_before = live;
    const char *why = NULL;
    struct far_store *store;

    fail_after = n;
    store = far_store_open (state, bytes, &geometry, &why);
    no_failures ();
    if (store) {
      allocations = 0;
      far_store_cover (store, geometry.n_places);
      g_assert_cmpint (allocations, ==, 0);
      far_store_close (store);
      g_assert_cmpint (live, ==, live_before);
      break;
    }
    failures++;
    g_assert_cmpstr (why, ==, "not enough memory for the page store");
    g_assert_cmpint (live, ==, live_before);
    g_assert_cmpmem (state, bytes, before, bytes);
  }
  g_assert_cmpint (failures, >=, 5);
  g_free (state);
  g_free (before);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/no-memory/regions are set up wholly or not at all", test_regions_init);
  g_test_add_func ("/no-memory/a reset of regions that fails changes nothing", test_regions_reset);
  g_test_add_func ("/no-memory/a device is set up wholly or not at all", test_device_init);
  g_test_add_func ("/no-memory/a hello without memory fails and can be said again", test_hello);
  g_test_add_func ("/no-memory/a session ends without memory", test_end_of_session);
  g_test_add_func ("/no-memory/grants and releases allocate nothing", test_requests_need_no_memory);
  g_test_add_func ("/no-memory/a page store is opened wholly or not at all", test_far_store_open);
  return g_test_run ();
}
