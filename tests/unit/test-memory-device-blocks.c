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
  g_assert_true (regions_all_granted (&f->device.regions, 0, 100));
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
  g_assert_true (regions_all_granted (&f->device.regions, 3 * SECTION, SECTION));
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
  g_assert_true (regions_all_granted (&f->device.regions, SECTION, 2 * SECTION));
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
  g_assert_false (regions_any_granted (&f->device.regions, 10, 20));
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
    g_assert_true (regions_all_granted (&f->device.regions, 0, 100));
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
    g_assert_false (regions_any_granted (&f->device.regions, 10, 20));
    finish (f, cases[i].outcome, 0);
    g_assert_cmpint (status (f), ==, cases[i].status);
    g_assert_true (regions_all_granted (&f->device.regions, 0, 100));
    g_assert_cmpuint (le64toh (answer (f).granted), ==, 100);
    g_assert_cmpuint (le64toh (answer (f).blocks), ==, 0);
  }
  plan (f, request_release_one (SESSION, ++f->id, 10, 20));
  memory_device_drop (&f->device, &f->plan);
  g_assert_true (regions_all_granted (&f->device.regions, 0, 100));
  g_assert_cmpint (send (f, request_release_one (SESSION, f->id, 10, 20)), ==, DOMYBS_OK);
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
  return g_test_run ();
}
