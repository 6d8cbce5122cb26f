/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The memory device's decisions, rule by rule: grants and releases. */
#include "device-fixture.h"

/* ---- grants ---- */

static void
test_grant (struct fixture *f, gconstpointer unused) {
  struct domybs_run run;

  hello (f);
  plan (f, grant_of (f, 0, 100, 0, 0));
  g_assert_cmpint (f->plan.step, ==, DEVICE_STEP_GRANT);
  g_assert_cmpuint (f->plan.blocks, ==, 100);
  g_assert_cmpuint (f->device.regions.granted, ==, 0); /* not before the host has done its part */
  finish (f, DEVICE_DONE, 100);
  g_assert_cmpint (status (f), ==, DOMYBS_OK);
  g_assert_cmpuint (le64toh (answer (f).blocks), ==, 100);
  g_assert_cmpuint (le64toh (answer (f).granted), ==, 100);
  g_assert_cmpuint (le32toh (answer (f).count), ==, 1);
  memcpy (&run, f->plan.answer + sizeof (struct domybs_response), sizeof run);
  g_assert_cmpuint (run.start, ==, 0);
  g_assert_cmpuint (le64toh (run.count), ==, 100);
  g_assert_cmpuint (regions_count (&f->device.regions, 0, 100), ==, 100);
}

static void
test_grant_stops_at_the_limit (struct fixture *f, gconstpointer unused) {
  hello (f);
  g_assert_cmpint (grant (f, WINDOW), ==, DOMYBS_OK);
  g_assert_cmpuint (le64toh (answer (f).blocks), ==, LIMIT);
  g_assert_cmpint (grant (f, 1), ==, DOMYBS_NO_VM_CAPACITY);
  g_assert_cmpint (release (f, 5, 1), ==, DOMYBS_OK);
  g_assert_cmpint (send (f, grant_of (f, DOMYBS_GRANT_F_ALL, 2, 0, 0)), ==, DOMYBS_NO_VM_CAPACITY);
  g_assert_cmpint (grant (f, 2), ==, DOMYBS_OK);
  g_assert_cmpuint (le64toh (answer (f).blocks), ==, 1);
  g_assert_cmpuint (f->device.regions.granted, ==, LIMIT);
}

static void
test_far_tiers (struct fixture *f, gconstpointer unused) {
  hello (f);
  for (uint32_t hint = DOMYBS_HINT_ANY; hint <= DOMYBS_HINT_REMOTE; hint++)
    g_assert_cmpint (send (f, request_grant (SESSION, ++f->id, hint, 0, 1, 0, 0)), ==,
                     hint >= DOMYBS_HINT_SHARED ? DOMYBS_NO_TIER : DOMYBS_OK);
  g_assert_cmpuint (f->device.regions.granted, ==, 2);
}

static void
test_grant_in_an_area (struct fixture *f, gconstpointer unused) {
  hello (f);
  g_assert_cmpint (send (f, grant_of (f, DOMYBS_GRANT_F_ALL, SECTION, 3 * SECTION, SECTION)), ==, DOMYBS_OK);
  g_assert_cmpuint (regions_count (&f->device.regions, 3 * SECTION, SECTION), ==, SECTION);
  g_assert_cmpint (send (f, grant_of (f, 0, 1, 3 * SECTION, SECTION)), ==, DOMYBS_NO_VM_CAPACITY);
  g_assert_cmpint (release (f, 3 * SECTION + 9, 2), ==, DOMYBS_OK);
  g_assert_cmpint (send (f, grant_of (f, DOMYBS_GRANT_F_ALL, 3, 3 * SECTION, SECTION)), ==, DOMYBS_NO_VM_CAPACITY);
  g_assert_cmpint (send (f, grant_of (f, 0, 3, 3 * SECTION, SECTION)), ==, DOMYBS_OK);
  g_assert_cmpuint (le64toh (answer (f).blocks), ==, 2);
  /* the last section of the window is nobody's */
  g_assert_cmpint (send (f, grant_of (f, 0, 1, WINDOW - SECTION, SECTION)), ==, DOMYBS_NO_VM_CAPACITY);
}

static void
test_grant_sections (struct fixture *f, gconstpointer unused) {
  hello (f);
  g_assert_cmpint (grant (f, 1), ==, DOMYBS_OK);
  g_assert_cmpint (send (f, grant_of (f, DOMYBS_GRANT_F_SECTION, 2 * SECTION + 5, 0, 0)), ==, DOMYBS_OK);
  g_assert_cmpuint (le64toh (answer (f).blocks), ==, 2 * SECTION);
  g_assert_cmpuint (regions_count (&f->device.regions, SECTION, 2 * SECTION), ==, 2 * SECTION);
  g_assert_cmpint (send (f, grant_of (f, DOMYBS_GRANT_F_SECTION, SECTION - 1, 0, 0)), ==, DOMYBS_NO_VM_CAPACITY);
}

static void
test_partial_grants (struct fixture *f, gconstpointer unused) {
  hello (f);
  plan (f, grant_of (f, 0, 100, 0, 0));
  finish (f, DEVICE_DONE, 30);
  g_assert_cmpint (status (f), ==, DOMYBS_OK);
  g_assert_cmpuint (le64toh (answer (f).blocks), ==, 30);
  g_assert_cmpuint (f->plan.blocks, ==, 30);
  g_assert_cmpuint (f->device.regions.granted, ==, 30);

  plan (f, grant_of (f, DOMYBS_GRANT_F_ALL, 100, 0, 0));
  finish (f, DEVICE_DONE, 99);
  g_assert_cmpint (status (f), ==, DOMYBS_NO_HOST_CAPACITY);
  g_assert_cmpuint (f->plan.blocks, ==, 0); /* all of it goes back to the host's account */

  plan (f, grant_of (f, DOMYBS_GRANT_F_SECTION, 3 * SECTION, 0, 0));
  finish (f, DEVICE_DONE, 2 * SECTION + 1);
  g_assert_cmpuint (le64toh (answer (f).blocks), ==, 2 * SECTION);
  plan (f, grant_of (f, DOMYBS_GRANT_F_SECTION, SECTION, 0, 0));
  finish (f, DEVICE_DONE, SECTION - 1);
  g_assert_cmpint (status (f), ==, DOMYBS_NO_HOST_CAPACITY);
  g_assert_cmpuint (f->device.regions.granted, ==, 30 + 2 * SECTION);
}

static void
test_partial_grant_over_runs (struct fixture *f, gconstpointer unused) {
  hello (f);
  g_assert_cmpint (grant (f, 40), ==, DOMYBS_OK);
  for (uint64_t b = 0; b < 20; b += 2)
    g_assert_cmpint (release (f, b, 1), ==, DOMYBS_OK);
  plan (f, grant_of (f, 0, 15, 0, SECTION));
  g_assert_cmpuint (f->plan.n_runs, ==, 11);
  finish (f, DEVICE_DONE, 4); /* ends with the fourth run: the fifth must not be left with 0 blocks */
  g_assert_cmpuint (f->plan.n_runs, ==, 4);
  g_assert_cmpuint (le32toh (answer (f).count), ==, 4);
  g_assert_cmpuint (f->device.regions.granted, ==, 34);
}

static void
test_host_refusals (struct fixture *f, gconstpointer unused) {
  static const struct {
    enum device_outcome outcome;
    int status;
    bool offer;
  } cases[] = {
    { DEVICE_FAILED, DOMYBS_FAILED, false },
    { DEVICE_NO_HOST_CAPACITY, DOMYBS_NO_HOST_CAPACITY, true },
    { DEVICE_RETRY, DOMYBS_BUSY, true },
  };

  hello (f);
  for (size_t i = 0; i < G_N_ELEMENTS (cases); i++) {
    f->device.offer_wanted = false;
    plan (f, grant_of (f, 0, 10, 0, 0));
    finish (f, cases[i].outcome, 10);
    g_assert_cmpint (status (f), ==, cases[i].status);
    g_assert_cmpint (f->device.offer_wanted, ==, cases[i].offer);
    g_assert_cmpint (le32toh (answer (f).retry_ms) > 0, ==, cases[i].status == DOMYBS_BUSY);
    g_assert_cmpuint (f->plan.blocks, ==, 0);
    g_assert_cmpuint (f->device.regions.granted, ==, 0);
    /* it was answered: the same again gets the same answer, a new try needs a new id */
    f->id--;
    plan (f, grant_of (f, 0, 10, 0, 0));
    g_assert_cmpint (f->plan.step, ==, DEVICE_STEP_ANSWER);
    g_assert_cmpint (status (f), ==, cases[i].status);
  }
  g_assert_cmpint (grant (f, 10), ==, DOMYBS_OK);
}

static void
test_grant_dropped (struct fixture *f, gconstpointer unused) {
  struct request_bytes request;

  hello (f);
  request = grant_of (f, 0, 10, 0, 0);
  plan (f, request);
  memory_device_drop (&f->device, &f->plan);
  g_assert_cmpuint (f->plan.blocks, ==, 0);
  g_assert_cmpuint (f->device.regions.granted, ==, 0);
  plan (f, request); /* it comes again, as new */
  g_assert_cmpint (f->plan.step, ==, DEVICE_STEP_GRANT);
  finish (f, DEVICE_DONE, 10);
  g_assert_cmpuint (f->device.regions.granted, ==, 10);
}

static void
test_room_for_runs (struct fixture *f, gconstpointer unused) {
  struct request_bytes request;

  hello (f);
  g_assert_cmpint (grant (f, 40), ==, DOMYBS_OK);
  for (uint64_t b = 0; b < 20; b += 2)
    g_assert_cmpint (release (f, b, 1), ==, DOMYBS_OK);
  request = grant_of (f, 0, 10, 0, 20);
  memory_device_plan (&f->device, request.bytes, request.n, sizeof (struct domybs_response) + 15, &f->plan);
  g_assert_cmpint (status (f), ==, DOMYBS_BAD_REQUEST);
  g_assert_cmpstr (f->plan.refused_why, ==, "no room for a run in the answer's buffer");
  memory_device_plan (&f->device, request.bytes, request.n, sizeof (struct domybs_response) + 3 * 16 + 15, &f->plan);
  g_assert_cmpuint (f->plan.n_runs, ==, 3);
  finish (f, DEVICE_DONE, UINT64_MAX);
  g_assert_cmpuint (f->plan.answer_bytes, ==, sizeof (struct domybs_response) + 3 * 16);
}

/* ---- releases ---- */

static void
test_release (struct fixture *f, gconstpointer unused) {
  hello (f);
  g_assert_cmpint (grant (f, 100), ==, DOMYBS_OK);
  g_assert_cmpint (release (f, 10, 20), ==, DOMYBS_OK);
  g_assert_cmpuint (le64toh (answer (f).blocks), ==, 20);
  g_assert_cmpuint (le64toh (answer (f).granted), ==, 80);
  g_assert_cmpuint (regions_count (&f->device.regions, 10, 20), ==, 0);
}

static void
test_release_of_what_is_not_granted (struct fixture *f, gconstpointer unused) {
  static const struct {
    struct domybs_run runs[3];
    uint32_t n;
  } cases[] = {
    { { { 100, 1 } }, 1 },
    { { { 99, 2 } }, 1 },
    { { { 0, 10 }, { 10, 10 }, { 100, 1 } }, 3 },
    { { { 0, 10 }, { 5, 1 } }, 2 },         /* twice in one request */
    { { { 0, 1 }, { 0, 1 } }, 2 },
    { { { WINDOW - 1, 1 } }, 1 },           /* the section that is never granted */
    { { { 0, WINDOW }, }, 1 },
  };

  hello (f);
  g_assert_cmpint (grant (f, 100), ==, DOMYBS_OK);
  for (size_t i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_test_message ("case %zu", i);
    g_assert_cmpint (send (f, request_release (SESSION, 2, cases[i].runs, cases[i].n)), ==, DOMYBS_BAD_REQUEST);
    g_assert_cmpstr (f->plan.refused_why, ==, "a run is not wholly granted");
    g_assert_cmpuint (f->device.regions.granted, ==, 100); /* all or none */
    g_assert_cmpuint (regions_count (&f->device.regions, 0, 100), ==, 100);
  }
}

static void
test_release_that_fails (struct fixture *f, gconstpointer unused) {
  static const struct {
    enum device_outcome outcome;
    int status;
  } cases[] = { { DEVICE_FAILED, DOMYBS_FAILED }, { DEVICE_RETRY, DOMYBS_BUSY } };

  hello (f);
  g_assert_cmpint (grant (f, 100), ==, DOMYBS_OK);
  for (size_t i = 0; i < G_N_ELEMENTS (cases); i++) {
    plan (f, request_release_one (SESSION, ++f->id, 10, 20));
    g_assert_cmpint (f->plan.step, ==, DEVICE_STEP_RELEASE);
    /* from here on nobody may be told that they are granted: they are being punched */
    g_assert_cmpuint (regions_count (&f->device.regions, 10, 20), ==, 0);
    finish (f, cases[i].outcome, 0);
    g_assert_cmpint (status (f), ==, cases[i].status);
    g_assert_cmpuint (regions_count (&f->device.regions, 0, 100), ==, 100);
    g_assert_cmpuint (le64toh (answer (f).granted), ==, 100);
    g_assert_cmpuint (le64toh (answer (f).blocks), ==, 0);
  }
  plan (f, request_release_one (SESSION, ++f->id, 10, 20));
  memory_device_drop (&f->device, &f->plan);
  g_assert_cmpuint (regions_count (&f->device.regions, 0, 100), ==, 100);
  g_assert_cmpint (send (f, request_release_one (SESSION, f->id, 10, 20)), ==, DOMYBS_OK);
}

/* ---- why a grant is short ---- */

static void
is_short_of (const struct fixture *f, const char *reason) {
  g_assert_cmpstr (device_shortage_name (f->device.shortage), ==, reason);
}

static void
test_short_of_capacity (struct fixture *f, gconstpointer unused) {
  hello (f);
  is_short_of (f, NULL);
  g_assert_cmpint (grant (f, LIMIT - 10), ==, DOMYBS_OK);
  is_short_of (f, NULL);
  g_assert_cmpint (send (f, grant_of (f, DOMYBS_GRANT_F_ALL, 11, 0, 0)), ==, DOMYBS_NO_VM_CAPACITY);
  is_short_of (f, "capacity");
  g_assert_cmpint (grant (f, 11), ==, DOMYBS_OK); /* 10 of them */
  is_short_of (f, "capacity");
  g_assert_cmpint (grant (f, 1), ==, DOMYBS_NO_VM_CAPACITY);
  is_short_of (f, "capacity");
  g_assert_cmpuint (f->device.counters.short_grants, ==, 3);
  g_assert_cmpint (release (f, 0, 5), ==, DOMYBS_OK); /* says nothing about grants */
  is_short_of (f, "capacity");
  g_assert_cmpint (grant (f, 5), ==, DOMYBS_OK);
  is_short_of (f, NULL);
  g_assert_cmpuint (f->device.counters.short_grants, ==, 3);
}

/* Whole sections of what the VM may still have. */
static void
test_short_of_capacity_for_sections (struct fixture *f, gconstpointer unused) {
  hello (f);
  g_assert_cmpint (send (f, grant_of (f, DOMYBS_GRANT_F_SECTION, LIMIT + 24, 0, 0)), ==, DOMYBS_OK);
  g_assert_cmpuint (le64toh (answer (f).blocks), ==, LIMIT / SECTION * SECTION);
  is_short_of (f, "capacity");
}

/* A VM that may have the whole window can still not have its last section. */
static void
test_short_of_window (struct fixture *f, gconstpointer unused) {
  f->device.options.max_blocks = WINDOW;
  hello (f);
  g_assert_cmpint (grant (f, WINDOW), ==, DOMYBS_OK);
  g_assert_cmpuint (le64toh (answer (f).blocks), ==, WINDOW - SECTION);
  is_short_of (f, "capacity");
}

static void
test_short_of_area (struct fixture *f, gconstpointer unused) {
  hello (f);
  g_assert_cmpint (send (f, grant_of (f, 0, 20, 10, 15)), ==, DOMYBS_OK);
  is_short_of (f, "area");
  g_assert_cmpint (send (f, grant_of (f, 0, 1, 10, 15)), ==, DOMYBS_NO_VM_CAPACITY);
  is_short_of (f, "area");
  g_assert_cmpint (send (f, grant_of (f, 0, 20, WINDOW - SECTION - 5, SECTION)), ==, DOMYBS_OK); /* into the last section */
  is_short_of (f, "area");
  g_assert_cmpint (send (f, grant_of (f, DOMYBS_GRANT_F_SECTION, SECTION, 0, SECTION)), ==, DOMYBS_NO_VM_CAPACITY);
  is_short_of (f, "area");
  g_assert_cmpint (send (f, grant_of (f, 0, 5, 0, 15)), ==, DOMYBS_OK);
  is_short_of (f, NULL);
}

/* Every other block is free: an answer has no room for that many runs. */
static void
test_short_of_runs (struct fixture *f, gconstpointer unused) {
  hello (f);
  g_assert_cmpint (grant (f, 400), ==, DOMYBS_OK);
  for (uint64_t b = 0; b < 400; b += 2)
    g_assert_cmpint (release (f, b, 1), ==, DOMYBS_OK);
  g_assert_cmpint (send (f, grant_of (f, 0, 200, 0, 400)), ==, DOMYBS_OK);
  g_assert_cmpuint (le64toh (answer (f).blocks), ==, DOMYBS_RUNS_MAX);
  is_short_of (f, "runs");
  g_assert_cmpint (send (f, grant_of (f, 0, 200, 0, 400)), ==, DOMYBS_OK); /* the rest, which is all that there is */
  g_assert_cmpuint (le64toh (answer (f).blocks), ==, 200 - DOMYBS_RUNS_MAX);
  is_short_of (f, "area");
}

/* As many runs as an answer can have, and not one more. */
static void
test_short_of_area_with_all_runs (struct fixture *f, gconstpointer unused) {
  hello (f);
  g_assert_cmpint (grant (f, 2 * DOMYBS_RUNS_MAX), ==, DOMYBS_OK);
  for (uint64_t b = 0; b < 2 * DOMYBS_RUNS_MAX; b += 2)
    g_assert_cmpint (release (f, b, 1), ==, DOMYBS_OK);
  g_assert_cmpint (send (f, grant_of (f, 0, 200, 0, 2 * DOMYBS_RUNS_MAX)), ==, DOMYBS_OK);
  g_assert_cmpuint (le64toh (answer (f).blocks), ==, DOMYBS_RUNS_MAX);
  is_short_of (f, "area");
}

static void
test_short_of_tier (struct fixture *f, gconstpointer unused) {
  hello (f);
  g_assert_cmpint (send (f, request_grant (SESSION, ++f->id, DOMYBS_HINT_REMOTE, 0, 1, 0, 0)), ==, DOMYBS_NO_TIER);
  is_short_of (f, "tier");
}

/* The host's reason counts when the host has less than the VM's limits leave; else the VM's own. */
static void
test_short_of_host (struct fixture *f, gconstpointer unused) {
  hello (f);
  plan (f, grant_of (f, 0, LIMIT + 1, 0, 0));
  f->plan.shortage = DEVICE_SHORTAGE_HOST_MEMORY;
  finish (f, DEVICE_DONE, 30);
  is_short_of (f, "host-memory");
  plan (f, grant_of (f, DOMYBS_GRANT_F_ALL, 10, 0, 0));
  f->plan.shortage = DEVICE_SHORTAGE_HOST_LIMIT;
  finish (f, DEVICE_NO_HOST_CAPACITY, 0);
  is_short_of (f, "host-limit");
  plan (f, grant_of (f, 0, 10, 0, 0));
  f->plan.shortage = DEVICE_SHORTAGE_HOST_BUSY;
  finish (f, DEVICE_RETRY, 0);
  is_short_of (f, "host-busy");
  plan (f, grant_of (f, 0, LIMIT, 0, 0));
  finish (f, DEVICE_DONE, LIMIT);
  is_short_of (f, "capacity");
}

/* Neither a repetition nor a request that is refused says anything new; a new session knows nothing of the old one's. */
static void
test_shortage_ends_with_the_session (struct fixture *f, gconstpointer unused) {
  struct request_bytes request;

  hello (f);
  request = grant_of (f, 0, LIMIT + 1, 0, 0);
  g_assert_cmpint (send (f, request), ==, DOMYBS_OK);
  g_assert_cmpint (release (f, 0, 100), ==, DOMYBS_OK);
  g_assert_cmpint (grant (f, 1), ==, DOMYBS_OK);
  is_short_of (f, NULL);
  g_assert_cmpint (send (f, request), ==, DOMYBS_OK);
  is_short_of (f, NULL);
  g_assert_cmpint (send (f, request_grant (SESSION, f->id + 7, DOMYBS_HINT_ANY, 0, LIMIT, 0, 0)), ==, DOMYBS_BAD_REQUEST);
  is_short_of (f, NULL);
  g_assert_cmpuint (f->device.counters.short_grants, ==, 1);
  g_assert_cmpint (grant (f, LIMIT), ==, DOMYBS_OK);
  is_short_of (f, "capacity");
  g_assert_cmpint (send (f, request_hello (2, SECTION)), ==, DOMYBS_OK);
  is_short_of (f, NULL);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  ADD ("grant/becomes true when the host has done its part", test_grant);
  ADD ("grant/stops at the limit of the VM", test_grant_stops_at_the_limit);
  ADD ("grant/far tiers are not available", test_far_tiers);
  ADD ("grant/an area is kept to", test_grant_in_an_area);
  ADD ("grant/whole sections are whole", test_grant_sections);
  ADD ("grant/a host with less room gives less unless all was asked for", test_partial_grants);
  ADD ("grant/a partial one may end between runs", test_partial_grant_over_runs);
  ADD ("grant/every refusal of the host has its status", test_host_refusals);
  ADD ("grant/a dropped one never happened", test_grant_dropped);
  ADD ("grant/runs are limited by the room for the answer", test_room_for_runs);
  ADD ("release/ends grants", test_release);
  ADD ("release/of anything not wholly granted changes nothing", test_release_of_what_is_not_granted);
  ADD ("release/one that fails or is dropped leaves everything granted", test_release_that_fails);
  ADD ("shortage/capacity", test_short_of_capacity);
  ADD ("shortage/capacity for whole sections", test_short_of_capacity_for_sections);
  ADD ("shortage/window", test_short_of_window);
  ADD ("shortage/area", test_short_of_area);
  ADD ("shortage/runs", test_short_of_runs);
  ADD ("shortage/area, with as many runs as there can be", test_short_of_area_with_all_runs);
  ADD ("shortage/tier", test_short_of_tier);
  ADD ("shortage/host", test_short_of_host);
  ADD ("shortage/ends with the session", test_shortage_ends_with_the_session);
  return g_test_run ();
}
