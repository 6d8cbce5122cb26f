/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The memory device's decisions, rule by rule: sessions, ids, statistics, config space. */
#include "device-fixture.h"

/* ---- options ---- */

static void
test_options (void) {
  static const struct {
    struct memory_device_options options;
    const char *why;
  } cases[] = {
    { { .window_blocks = 1024, .max_blocks = 1024 }, NULL },
    { { .window_blocks = 512, .max_blocks = 1 }, "the window must be a power of two of at least 2 GiB" },
    { { .window_blocks = 0 }, "the window must be a power of two of at least 2 GiB" },
    { { .window_blocks = 3000 }, "the window must be a power of two of at least 2 GiB" },
    { { .window_blocks = 1ull << 43 }, "the window must be a power of two of at least 2 GiB" }, /* × 2 MiB wraps to 0 */
    { { .window_blocks = 1ull << 63 }, "the window must be a power of two of at least 2 GiB" },
    { { .window_blocks = 1024, .max_blocks = 1025 }, "the local capacity is larger than the window" },
    { { .window_blocks = 1024, .max_blocks = 9, .have_target = true, .target_blocks = 10 },
      "the target is larger than the local capacity" },
    { { .window_blocks = 1024, .max_blocks = 9, .have_target = true, .target_blocks = 9 }, NULL },
  };

  for (size_t i = 0; i < G_N_ELEMENTS (cases); i++) {
    struct memory_device device;
    const char *why = NULL;

    g_test_message ("case %zu", i);
    g_assert_cmpint (memory_device_init (&device, &cases[i].options, &why), ==, cases[i].why == NULL);
    g_assert_cmpstr (why, ==, cases[i].why);
    if (!cases[i].why)
      memory_device_clear (&device);
  }
}

/* ---- sessions ---- */

static void
test_nothing_without_hello (struct fixture *f, gconstpointer unused) {
  g_assert_cmpint (send (f, request_grant (0, 1, 0, 0, 1, 0, 0)), ==, DOMYBS_BAD_SESSION); /* session 0 is no session */
  g_assert_cmpint (send (f, request_grant (SESSION, 1, 0, 0, 1, 0, 0)), ==, DOMYBS_BAD_SESSION);
  g_assert_cmpint (send (f, request_bye (SESSION, 1)), ==, DOMYBS_BAD_SESSION);
  g_assert_nonnull (f->plan.refused_why);
  g_assert_cmpuint (f->device.regions.granted, ==, 0);
}

static void
test_hello (struct fixture *f, gconstpointer unused) {
  plan (f, request_hello (1, 128));
  g_assert_cmpint (f->plan.step, ==, DEVICE_STEP_NEW_SESSION);
  g_assert_cmpuint (f->device.session, ==, 0);
  finish (f, DEVICE_DONE, 0);
  g_assert_cmpint (status (f), ==, DOMYBS_OK);
  g_assert_cmpuint (le64toh (answer (f).session), ==, SESSION);
  g_assert_cmpuint (answer (f).id, ==, 0);
  g_assert_cmpuint (f->device.regions.region_blocks, ==, 128);
  g_assert_cmpstr (f->device.driver, ==, "test");
}

static void
test_hello_again (struct fixture *f, gconstpointer unused) {
  hello (f);
  g_assert_cmpint (grant (f, 10), ==, DOMYBS_OK);
  plan (f, request_hello (1, SECTION)); /* the same nonce: the driver did not see the answer */
  g_assert_cmpint (f->plan.step, ==, DEVICE_STEP_ANSWER);
  g_assert_cmpint (status (f), ==, DOMYBS_OK);
  g_assert_cmpuint (le64toh (answer (f).session), ==, SESSION);
  g_assert_cmpuint (f->device.regions.granted, ==, 10);
  g_assert_cmpuint (f->device.counters.sessions, ==, 1);
}

static void
test_new_hello_voids_grants (struct fixture *f, gconstpointer unused) {
  hello (f);
  g_assert_cmpint (grant (f, 10), ==, DOMYBS_OK);
  plan (f, request_hello (2, SECTION));
  g_assert_cmpint (f->plan.step, ==, DEVICE_STEP_NEW_SESSION);
  memory_device_finish (&f->device, &f->plan, DEVICE_DONE, 0, 77);
  g_assert_cmpuint (f->device.regions.granted, ==, 0);
  g_assert_cmpint (send (f, request_grant (SESSION, 2, 0, 0, 1, 0, 0)), ==, DOMYBS_BAD_SESSION);
  g_assert_cmpint (send (f, request_grant (77, 1, 0, 0, 1, 0, 0)), ==, DOMYBS_OK); /* ids begin anew */
}

static void
test_hello_that_fails (struct fixture *f, gconstpointer unused) {
  static const struct {
    enum device_outcome outcome;
    int status;
  } cases[] = { { DEVICE_FAILED, DOMYBS_FAILED }, { DEVICE_RETRY, DOMYBS_BUSY }, { DEVICE_NO_HOST_CAPACITY, DOMYBS_FAILED } };

  for (size_t i = 0; i < G_N_ELEMENTS (cases); i++) {
    hello (f);
    g_assert_cmpint (grant (f, 10), ==, DOMYBS_OK);
    plan (f, request_hello (2, SECTION));
    finish (f, cases[i].outcome, 0);
    g_assert_cmpint (status (f), ==, cases[i].status);
    g_assert_cmpuint (f->device.session, ==, 0);
    g_assert_cmpuint (f->device.regions.granted, ==, 0); /* the old window is gone by then */
    g_assert_cmpint (send (f, request_hello (2, SECTION)), ==, DOMYBS_OK);
  }
}

static void
test_hello_dropped (struct fixture *f, gconstpointer unused) {
  hello (f);
  g_assert_cmpint (grant (f, 10), ==, DOMYBS_OK);
  plan (f, request_hello (2, SECTION));
  memory_device_drop (&f->device, &f->plan);
  g_assert_cmpuint (f->device.session, ==, SESSION);
  g_assert_cmpuint (f->device.regions.granted, ==, 10);
}

static void
test_hello_with_sections_too_large (void) {
  const struct memory_device_options small = { .window_blocks = 1024, .max_blocks = 100 };
  struct fixture f = { 0 };
  const char *why;

  g_assert_true (memory_device_init (&f.device, &small, &why));
  g_assert_cmpint (send (&f, request_hello (1, 1024)), ==, DOMYBS_BAD_REQUEST);
  g_assert_cmpstr (f.plan.refused_why, ==, "the window is smaller than two sections of this guest");
  g_assert_cmpint (send (&f, request_hello (1, 512)), ==, DOMYBS_OK);
  g_assert_cmpuint (f.device.regions.usable_blocks, ==, 512);
  memory_device_clear (&f.device);
}

static void
test_bye (struct fixture *f, gconstpointer unused) {
  hello (f);
  g_assert_cmpint (grant (f, 10), ==, DOMYBS_OK);
  plan (f, request_bye (SESSION, ++f->id));
  g_assert_cmpint (f->plan.step, ==, DEVICE_STEP_END);
  finish (f, DEVICE_FAILED, 0);
  g_assert_cmpint (status (f), ==, DOMYBS_FAILED);
  g_assert_cmpuint (f->device.session, ==, SESSION);
  g_assert_cmpuint (f->device.regions.granted, ==, 10);
  g_assert_cmpint (send (f, request_bye (SESSION, ++f->id)), ==, DOMYBS_OK);
  g_assert_cmpuint (f->device.session, ==, 0);
  g_assert_cmpuint (f->device.regions.granted, ==, 0);
  g_assert_cmpuint (f->device.counters.blocks_released, ==, 10);
  g_assert_cmpint (send (f, request_bye (SESSION, f->id)), ==, DOMYBS_BAD_SESSION);
}

/* ---- a host that does nothing now ---- */

static int
send_busy (struct fixture *f, struct request_bytes request) {
  memory_device_plan_busy (&f->device, request.bytes, request.n, ROOM, &f->plan);
  g_assert_cmpint (f->plan.step, ==, DEVICE_STEP_ANSWER);
  return status (f);
}

static void
test_busy (struct fixture *f, gconstpointer unused) {
  const struct domybs_run run = { 0, 1 };

  g_assert_cmpint (send_busy (f, request_hello (1, SECTION)), ==, DOMYBS_BUSY);
  g_assert_cmpuint (f->device.session, ==, 0);
  hello (f);
  g_assert_cmpint (grant (f, 10), ==, DOMYBS_OK);
  g_assert_cmpint (send_busy (f, grant_of (f, 0, 10, 0, 0)), ==, DOMYBS_BUSY);
  g_assert_cmpuint (le32toh (answer (f).retry_ms), >, 0);
  g_assert_true (f->device.offer_wanted);
  g_assert_cmpint (send_busy (f, request_release (SESSION, ++f->id, &run, 1)), ==, DOMYBS_BUSY);
  g_assert_cmpint (send_busy (f, request_stat (SESSION, ++f->id, DOMYBS_STAT_MEM_FREE, 5)), ==, DOMYBS_BUSY);
  g_assert_cmpint (send_busy (f, request_bye (SESSION, ++f->id)), ==, DOMYBS_BUSY);
  g_assert_cmpint (send_busy (f, request_hello (2, SECTION)), ==, DOMYBS_BUSY);
  g_assert_cmpuint (f->device.regions.granted, ==, 10);
  g_assert_cmpuint (f->device.session, ==, SESSION);
  g_assert_cmpuint (f->device.stats_known, ==, 0);
  /* the ids are used up, and what was answered then is answered so again by one who could do it now */
  g_assert_cmpint (send (f, request_bye (SESSION, f->id)), ==, DOMYBS_BUSY);
  g_assert_cmpint (send (f, request_bye (SESSION, f->id + 1)), ==, DOMYBS_OK);
}

static void
test_busy_knows_repetitions (struct fixture *f, gconstpointer unused) {
  const struct request_bytes request = request_grant (SESSION, 1, 0, 0, 10, 0, 0);

  hello (f);
  g_assert_cmpint (send (f, request), ==, DOMYBS_OK);
  g_assert_cmpint (send_busy (f, request), ==, DOMYBS_OK);
  g_assert_cmpuint (le64toh (answer (f).blocks), ==, 10);
  g_assert_cmpint (send_busy (f, request_hello (1, SECTION)), ==, DOMYBS_OK);
  g_assert_cmpint (send_busy (f, request_bye (SESSION + 1, 2)), ==, DOMYBS_BAD_SESSION);
  g_assert_cmpint (send_busy (f, request_bye (SESSION, 3)), ==, DOMYBS_BAD_REQUEST);
  g_assert_cmpint (send_busy (f, request_hello (0, SECTION)), ==, DOMYBS_BAD_REQUEST);
}

static void
test_guest_reset (struct fixture *f, gconstpointer unused) {
  hello (f);
  g_assert_cmpint (grant (f, LIMIT), ==, DOMYBS_OK);
  g_assert_cmpint (send (f, request_stat (SESSION, ++f->id, DOMYBS_STAT_MEM_FREE, 5)), ==, DOMYBS_OK);
  memory_device_reset (&f->device);
  g_assert_cmpuint (f->device.session, ==, 0);
  g_assert_cmpuint (f->device.regions.granted, ==, 0);
  g_assert_cmpuint (f->device.stats_known, ==, 0);
  g_assert_cmpint (grant (f, 1), ==, DOMYBS_BAD_SESSION);
  /* the same nonce after a reset is a new session all the same */
  plan (f, request_hello (1, SECTION));
  g_assert_cmpint (f->plan.step, ==, DEVICE_STEP_NEW_SESSION);
}

/* ---- ids ---- */

static void
test_repetition (struct fixture *f, gconstpointer unused) {
  struct request_bytes request;
  uint8_t first[ROOM];
  size_t bytes;

  hello (f);
  request = grant_of (f, 0, 10, 0, 0);
  g_assert_cmpint (send (f, request), ==, DOMYBS_OK);
  bytes = f->plan.answer_bytes;
  memcpy (first, f->plan.answer, bytes);
  for (unsigned i = 0; i < 3; i++) {
    g_assert_cmpint (send (f, request), ==, DOMYBS_OK);
    g_assert_cmpint (f->plan.step, ==, DEVICE_STEP_ANSWER);
    g_assert_cmpmem (f->plan.answer, f->plan.answer_bytes, first, bytes);
    g_assert_cmpuint (f->device.regions.granted, ==, 10);
  }
  g_assert_cmpuint (f->device.counters.replayed, ==, 3);
  g_assert_cmpuint (f->device.counters.blocks_granted, ==, 10);
}

static void
test_release_repetition (struct fixture *f, gconstpointer unused) {
  hello (f);
  g_assert_cmpint (grant (f, 10), ==, DOMYBS_OK);
  g_assert_cmpint (release (f, 0, 4), ==, DOMYBS_OK);
  f->id--;
  g_assert_cmpint (release (f, 0, 4), ==, DOMYBS_OK);
  g_assert_cmpuint (le64toh (answer (f).blocks), ==, 4);
  g_assert_cmpuint (f->device.regions.granted, ==, 6);
}

static void
test_repetition_with_another_text (struct fixture *f, gconstpointer unused) {
  hello (f);
  g_assert_cmpint (grant (f, 10), ==, DOMYBS_OK);
  g_assert_cmpint (send (f, request_grant (SESSION, 1, DOMYBS_HINT_LOCAL, 0, 11, 0, 0)), ==, DOMYBS_BAD_REQUEST);
  g_assert_cmpstr (f->plan.refused_why, ==, "a used id with another request");
  g_assert_cmpint (send (f, request_bye (SESSION, 1)), ==, DOMYBS_BAD_REQUEST);
  g_assert_cmpuint (f->device.regions.granted, ==, 10);
}

static void
test_repetition_needs_room (struct fixture *f, gconstpointer unused) {
  struct request_bytes request;

  hello (f);
  request = grant_of (f, 0, 10, 0, 0);
  g_assert_cmpint (send (f, request), ==, DOMYBS_OK);
  memory_device_plan (&f->device, request.bytes, request.n, sizeof (struct domybs_response), &f->plan);
  g_assert_cmpint (status (f), ==, DOMYBS_BAD_REQUEST);
  g_assert_cmpuint (f->plan.answer_bytes, ==, sizeof (struct domybs_response));
}

static void
test_old_ids (struct fixture *f, gconstpointer unused) {
  struct request_bytes requests[40];

  hello (f);
  for (unsigned i = 0; i < G_N_ELEMENTS (requests); i++) {
    requests[i] = request_stat (SESSION, i + 1, DOMYBS_STAT_MEM_FREE, i);
    g_assert_cmpint (send (f, requests[i]), ==, DOMYBS_OK);
    for (unsigned k = 0; k <= i; k++)
      g_assert_cmpint (send (f, requests[k]), ==, i - k < DOMYBS_REPLAY_DEPTH ? DOMYBS_OK : DOMYBS_STALE);
    g_assert_cmpuint (f->device.stats[DOMYBS_STAT_MEM_FREE], ==, i); /* a repetition has no effect */
  }
}

static void
test_id_gaps (struct fixture *f, gconstpointer unused) {
  hello (f);
  g_assert_cmpint (send (f, request_grant (SESSION, 2, 0, 0, 1, 0, 0)), ==, DOMYBS_BAD_REQUEST);
  g_assert_cmpstr (f->plan.refused_why, ==, "an id that is not the next one");
  g_assert_cmpint (send (f, request_grant (SESSION, UINT64_MAX, 0, 0, 1, 0, 0)), ==, DOMYBS_BAD_REQUEST);
  g_assert_cmpint (send (f, request_grant (SESSION, 1, 0, 0, 1, 0, 0)), ==, DOMYBS_OK);
}

static void
test_refusal_takes_no_id (struct fixture *f, gconstpointer unused) {
  hello (f);
  g_assert_cmpint (send (f, request_release_one (SESSION, 1, 0, 1)), ==, DOMYBS_BAD_REQUEST);
  g_assert_cmpint (send (f, request_grant (SESSION, 1, 0, 0, 1, 0, 0)), ==, DOMYBS_OK);
  g_assert_cmpuint (f->device.counters.refused, ==, 1);
}

static void
test_ids_of_an_old_session_are_forgotten (struct fixture *f, gconstpointer unused) {
  struct request_bytes old;

  hello (f);
  old = grant_of (f, 0, 10, 0, 0);
  g_assert_cmpint (send (f, old), ==, DOMYBS_OK);
  memory_device_reset (&f->device);
  hello (f); /* the same session number, even */
  g_assert_cmpint (send (f, old), ==, DOMYBS_OK);
  g_assert_cmpuint (f->device.regions.granted, ==, 10); /* done, not replayed */
}

/* ---- statistics, targets, config ---- */

static void
test_stats (struct fixture *f, gconstpointer unused) {
  hello (f);
  g_assert_cmpuint (f->device.stats_known, ==, 0);
  g_assert_cmpint (send (f, request_stat (SESSION, 1, DOMYBS_STAT_MEM_TOTAL, 123)), ==, DOMYBS_OK);
  g_assert_cmpint (send (f, request_stat (SESSION, 2, 31, 7)), ==, DOMYBS_OK);
  g_assert_cmpint (send (f, request_stat (SESSION, 3, 32, 7)), ==, DOMYBS_OK); /* of a newer driver: no harm */
  g_assert_cmpint (send (f, request_stat (SESSION, 4, UINT32_MAX, 7)), ==, DOMYBS_OK);
  g_assert_cmpuint (f->device.stats_known, ==, 1u << 31 | 1u << DOMYBS_STAT_MEM_TOTAL);
  g_assert_cmpuint (f->device.stats[DOMYBS_STAT_MEM_TOTAL], ==, 123);
}

static struct domybs_config
config (const struct fixture *f) {
  struct domybs_config config;

  memset (&config, 0xff, sizeof config);
  memory_device_config (&f->device, &config);
  return config;
}

static void
test_config (void) {
  const struct memory_device_options options = { .window_blocks = WINDOW,
                                                 .max_blocks = LIMIT,
                                                 .grow_min_blocks = 32,
                                                 .have_target = true,
                                                 .target_blocks = 7,
                                                 .have_numa_pxm = true,
                                                 .numa_pxm = 3 };
  static const uint8_t zeroes[16];
  struct fixture f = { 0 };
  struct domybs_config c;
  const char *why;

  g_assert_true (memory_device_init (&f.device, &options, &why));
  c = config (&f);
  g_assert_cmpmem (&c, 4, "DMYB", 4);
  g_assert_cmpuint (le16toh (c.abi_version), ==, 1);
  g_assert_cmpuint (le16toh (c.flags), ==, DOMYBS_CONFIG_F_TARGET | DOMYBS_CONFIG_F_NUMA_NODE);
  g_assert_cmpuint (le32toh (c.block_bytes), ==, 2 << 20);
  g_assert_cmpuint (le32toh (c.grow_min_blocks), ==, 32);
  g_assert_cmpuint (le64toh (c.window_blocks), ==, WINDOW);
  g_assert_cmpuint (le64toh (c.max_blocks), ==, LIMIT);
  g_assert_cmpuint (le64toh (c.target_blocks), ==, 7);
  g_assert_cmpuint (le32toh (c.numa_pxm), ==, 3);
  g_assert_cmpmem (c.reserved, sizeof c.reserved, zeroes, sizeof zeroes);
  memory_device_clear (&f.device);
}

static void
test_target (struct fixture *f, gconstpointer unused) {
  uint32_t generation = le32toh (config (f).generation);

  g_assert_cmpuint (le16toh (config (f).flags), ==, 0);
  g_assert_false (memory_device_set_target (&f->device, false, 0));
  g_assert_false (memory_device_set_target (&f->device, false, 5)); /* without a target its value means nothing */
  g_assert_cmpuint (le32toh (config (f).generation), ==, generation);

  g_assert_true (memory_device_set_target (&f->device, true, 0));
  g_assert_cmpuint (le16toh (config (f).flags), ==, DOMYBS_CONFIG_F_TARGET);
  g_assert_cmpuint (le32toh (config (f).generation), ==, ++generation);
  g_assert_true (memory_device_set_target (&f->device, true, 500));
  g_assert_cmpuint (le64toh (config (f).target_blocks), ==, 500);
  g_assert_cmpuint (le32toh (config (f).generation), ==, ++generation);
  g_assert_false (memory_device_set_target (&f->device, true, 500));
  g_assert_true (memory_device_set_target (&f->device, true, UINT64_MAX)); /* as much as there can be */
  g_assert_cmpuint (le64toh (config (f).target_blocks), ==, LIMIT);
  generation++;
  g_assert_true (memory_device_set_target (&f->device, false, 0));
  g_assert_cmpuint (le64toh (config (f).target_blocks), ==, 0);
  g_assert_cmpuint (le32toh (config (f).generation), ==, ++generation);
  /* every answer says under which generation it was made */
  hello (f);
  g_assert_cmpuint (le32toh (answer (f).generation), ==, generation);
}

static void
test_limit_follows_sections (void) {
  const struct memory_device_options options = {
    .window_blocks = 1024, .max_blocks = 1024, .have_target = true, .target_blocks = 1024
  };
  struct fixture f = { 0 };
  uint32_t generation;
  const char *why;

  /* a guest with large sections can use less of the window, and learns so through a new generation */
  g_assert_true (memory_device_init (&f.device, &options, &why));
  generation = le32toh (config (&f).generation);
  g_assert_cmpuint (le64toh (config (&f).max_blocks), ==, 960);
  g_assert_cmpuint (le64toh (config (&f).target_blocks), ==, 960);
  g_assert_cmpint (send (&f, request_hello (1, 512)), ==, DOMYBS_OK);
  g_assert_cmpuint (le64toh (config (&f).max_blocks), ==, 512);
  g_assert_cmpuint (le64toh (config (&f).target_blocks), ==, 512);
  g_assert_cmpuint (le32toh (config (&f).generation), >, generation);
  g_assert_cmpuint (le32toh (answer (&f).generation), ==, le32toh (config (&f).generation));
  generation = le32toh (config (&f).generation);
  g_assert_cmpint (send (&f, request_hello (2, 512)), ==, DOMYBS_OK);
  g_assert_cmpuint (le32toh (config (&f).generation), ==, generation);
  memory_device_clear (&f.device);
}

/* ---- far memory ---- */

static int
reserve (struct fixture *f, unsigned tier, uint64_t level, enum device_outcome outcome, uint64_t ready) {
  plan (f, request_reserve (SESSION, ++f->id, tier, 0, level));
  g_assert_cmpint (f->plan.step, ==, DEVICE_STEP_RESERVE);
  finish (f, outcome, ready);
  return status (f);
}

static void
test_reserve (struct fixture *f, gconstpointer unused) {
  hello (f);
  g_assert_cmpint (reserve (f, DOMYBS_HINT_SHARED, 32, DEVICE_DONE, 7), ==, DOMYBS_OK);
  g_assert_cmpuint (le64toh (answer (f).blocks), ==, 7);
  g_assert_cmpuint (le32toh (answer (f).count), ==, 0);
  g_assert_cmpuint (f->device.levels[0].blocks, ==, 32);
  g_assert_cmpuint (f->device.levels[1].blocks, ==, 0);
  g_assert_cmpint (reserve (f, DOMYBS_HINT_REMOTE, 5, DEVICE_DONE, 900), ==, DOMYBS_OK);
  g_assert_cmpuint (le64toh (answer (f).blocks), ==, 5); /* no more than was asked for */
  g_assert_cmpuint (f->device.levels[0].blocks, ==, 32);
  g_assert_cmpuint (f->device.levels[1].blocks, ==, 5);
  g_assert_false (f->device.far_offer_wanted);
  g_assert_cmpuint (f->device.regions.granted, ==, 0);
  /* it is a level, not a sum; and 0 ends it */
  g_assert_cmpint (reserve (f, DOMYBS_HINT_SHARED, 8, DEVICE_DONE, 8), ==, DOMYBS_OK);
  g_assert_cmpuint (f->device.levels[0].blocks, ==, 8);
  g_assert_cmpint (reserve (f, DOMYBS_HINT_SHARED, 0, DEVICE_DONE, 8), ==, DOMYBS_OK);
  g_assert_cmpuint (le64toh (answer (f).blocks), ==, 0);
}

static void
test_reserve_refused (struct fixture *f, gconstpointer unused) {
  hello (f);
  g_assert_cmpint (reserve (f, DOMYBS_HINT_SHARED, 32, DEVICE_NO_TIER, 0), ==, DOMYBS_NO_TIER);
  g_assert_false (f->device.far_offer_wanted); /* there will be none */
  g_assert_cmpint (reserve (f, DOMYBS_HINT_SHARED, 32, DEVICE_FAILED, 0), ==, DOMYBS_FAILED);
  g_assert_cmpuint (f->device.levels[0].blocks, ==, 0);
  g_assert_cmpint (reserve (f, DOMYBS_HINT_SHARED, 32, DEVICE_RETRY, 0), ==, DOMYBS_BUSY);
  g_assert_cmpuint (f->device.levels[0].blocks, ==, 0);
  g_assert_true (f->device.far_offer_wanted);
  f->device.far_offer_wanted = false;
  g_assert_cmpint (reserve (f, DOMYBS_HINT_SHARED, 32, DEVICE_NO_HOST_CAPACITY, 9), ==, DOMYBS_NO_HOST_CAPACITY);
  g_assert_cmpuint (le64toh (answer (f).blocks), ==, 9);
  g_assert_cmpuint (f->device.levels[0].blocks, ==, 32); /* more may come: the guest wants it still */
  g_assert_true (f->device.far_offer_wanted);
  g_assert_false (f->device.offer_wanted);
}

/* A level is what one session of a guest wants. */
static void
test_reserve_ends (struct fixture *f, gconstpointer unused) {
  for (unsigned way = 0; way < 3; way++) {
    hello (f);
    g_assert_cmpint (reserve (f, DOMYBS_HINT_SHARED, 32, DEVICE_DONE, 32), ==, DOMYBS_OK);
    g_assert_cmpint (reserve (f, DOMYBS_HINT_REMOTE, 16, DEVICE_RETRY, 0), ==, DOMYBS_BUSY);
    if (way == 0)
      memory_device_reset (&f->device);
    else if (way == 1)
      g_assert_cmpint (send (f, request_bye (SESSION, ++f->id)), ==, DOMYBS_OK);
    else
      g_assert_cmpint (send (f, request_hello (77, SECTION)), ==, DOMYBS_OK);
    g_assert_true (f->device.levels[0].known);
    g_assert_cmpuint (f->device.levels[0].blocks, ==, 0);
    g_assert_false (f->device.far_offer_wanted);
    memory_device_reset (&f->device);
  }
}

/* The same request again is the same answer, whatever there is by now. */
static void
test_reserve_repetition (struct fixture *f, gconstpointer unused) {
  struct request_bytes first;

  hello (f);
  g_assert_cmpint (reserve (f, DOMYBS_HINT_SHARED, 32, DEVICE_DONE, 7), ==, DOMYBS_OK);
  first = request_reserve (SESSION, f->id, DOMYBS_HINT_SHARED, 0, 32);
  g_assert_cmpint (reserve (f, DOMYBS_HINT_SHARED, 4, DEVICE_DONE, 4), ==, DOMYBS_OK);
  plan (f, first);
  g_assert_cmpint (f->plan.step, ==, DEVICE_STEP_ANSWER);
  g_assert_cmpuint (le64toh (answer (f).blocks), ==, 7);
  g_assert_cmpuint (f->device.levels[0].blocks, ==, 4);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/memory-device/options that make no sense are refused", test_options);
  ADD ("session/nothing goes without hello", test_nothing_without_hello);
  ADD ("session/hello begins one", test_hello);
  ADD ("session/hello again with its nonce is the same session", test_hello_again);
  ADD ("session/hello with a new nonce voids all grants", test_new_hello_voids_grants);
  ADD ("session/a hello that fails leaves none", test_hello_that_fails);
  ADD ("session/a dropped hello leaves the old one", test_hello_dropped);
  g_test_add_func ("/memory-device/session/sections larger than half the window are refused", test_hello_with_sections_too_large);
  ADD ("session/bye releases everything", test_bye);
  ADD ("session/a guest's reset ends it", test_guest_reset);
  ADD ("id/a repeated grant gets its answer again and nothing more", test_repetition);
  ADD ("id/a repeated release gets its answer again and nothing more", test_release_repetition);
  ADD ("id/a used one with another request is refused", test_repetition_with_another_text);
  ADD ("id/a repetition with too little room is refused", test_repetition_needs_room);
  ADD ("id/the last 16 are remembered and older ones are stale", test_old_ids);
  ADD ("id/no number may be left out", test_id_gaps);
  ADD ("id/a refused request takes none", test_refusal_takes_no_id);
  ADD ("id/those of an old session are forgotten", test_ids_of_an_old_session_are_forgotten);
  ADD ("statistics are kept by tag and unknown tags are ignored", test_stats);
  g_test_add_func ("/memory-device/config/has its layout", test_config);
  ADD ("config/a new target is a new generation", test_target);
  ADD ("busy/every good request is put off and uses its id up", test_busy);
  ADD ("busy/repetitions are answered and bad requests refused", test_busy_knows_repetitions);
  ADD ("far/a level is what the guest wants to have ready", test_reserve);
  ADD ("far/what the host says of a level", test_reserve_refused);
  ADD ("far/levels end with the session", test_reserve_ends);
  ADD ("far/a repeated reserve gets its answer again", test_reserve_repetition);
  g_test_add_func ("/memory-device/config/the limit follows the size of the guest's sections", test_limit_follows_sections);
  return g_test_run ();
}
