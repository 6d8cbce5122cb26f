/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Requests of the memory device with wrong contents: written byte by byte, each wrong in one way. All are answered BAD_REQUEST (or
 * what the case says), grant nothing and take nothing back.
 */
#include "request-bytes.h"

#include <endian.h>
#include <string.h>

#define PAGE 4096u
#define WINDOW RIG_WINDOW_BLOCKS
#define USABLE (RIG_WINDOW_BLOCKS - RIG_SECTION_BLOCKS)

/* ---- headers ---- */

static void
type_out_of_range (struct rig *rig, const void *data) {
  static const unsigned types[] = { 0, 7, 255, 256, 257, 0x8001, 0xffff };
  g_autoptr (fe_t) fe = rig_open (rig);
  struct bytes bytes;

  for (size_t i = 0; i < G_N_ELEMENTS (types); i++) {
    put_header (&bytes, types[i], 0, 0, fe->session, 1);
    expect_status (fe, &bytes, DOMYBS_BAD_REQUEST);
  }
  rig_expect_logged (rig, "refused");
}

static void
header_flags_not_zero (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open (rig);
  struct bytes bytes;

  put_header (&bytes, DOMYBS_REQ_BYE, 1, 0, fe->session, 1);
  expect_status (fe, &bytes, DOMYBS_BAD_REQUEST);
}

static void
count_does_not_fit_the_length (struct rig *rig, const void *data) {
  static const struct {
    unsigned type;
    uint32_t count;
    unsigned body;
  } cases[] = {
    { DOMYBS_REQ_GRANT, 0, 32 },
    { DOMYBS_REQ_GRANT, 2, 32 },
    { DOMYBS_REQ_GRANT, 1, 31 },
    { DOMYBS_REQ_GRANT, 1, 33 },
    { DOMYBS_REQ_GRANT, UINT32_MAX, 32 },
    { DOMYBS_REQ_RELEASE, 0, 0 },
    { DOMYBS_REQ_RELEASE, 1, 0 },
    { DOMYBS_REQ_RELEASE, 1, 15 },
    { DOMYBS_REQ_RELEASE, 2, 16 },
    { DOMYBS_REQ_RELEASE, 129, 129 * 16 },
    { DOMYBS_REQ_RELEASE, UINT32_MAX, 16 },
    { DOMYBS_REQ_RELEASE, 0x10000001u, 16 }, /* × 16 wraps to 16 in 32 bits */
    { DOMYBS_REQ_STATS, 1, 0 },
    { DOMYBS_REQ_STATS, 65, 65 * 16 },
    { DOMYBS_REQ_STATS, 0x10000001u, 16 },
    { DOMYBS_REQ_BYE, 1, 0 },
    { DOMYBS_REQ_BYE, 0, 1 },
    { DOMYBS_REQ_RESERVE, 0, 16 },
    { DOMYBS_REQ_RESERVE, 2, 16 },
    { DOMYBS_REQ_RESERVE, 1, 15 },
    { DOMYBS_REQ_RESERVE, 1, 17 },
    { DOMYBS_REQ_RESERVE, 0x10000001u, 16 },
  };
  g_autoptr (fe_t) fe = rig_open (rig);

  for (size_t i = 0; i < G_N_ELEMENTS (cases); i++) {
    struct bytes bytes = { { 0 }, 0 };

    put_header (&bytes, cases[i].type, 0, cases[i].count, fe->session, 1);
    bytes.n += cases[i].body;
    if (bytes.n <= PAGE)
      expect_status (fe, &bytes, DOMYBS_BAD_REQUEST);
  }
}

static void
request_longer_than_a_page (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open (rig);
  struct fe_queue *queue = &fe->queues[DOMYBS_VQ_REQUEST];
  const struct fe_piece pieces[] = { { fe_scratch_gpa (0), PAGE + 1, false }, { fe_response_gpa (0), PAGE, true } };
  struct fe_answer answer;
  uint32_t head, len;

  fe_encode_stats (fe, fe_at (fe, fe_scratch_gpa (0)), 1, NULL, 0);
  fe_write_chain (queue, 0, pieces, 2);
  fe_publish (queue, 0);
  fe_kick (queue);
  fe_must (fe, fe_wait_used (fe, queue, &head, &len, fe_patience_ms ()));
  fe_must (fe, fe_read_answer (fe, fe_response_gpa (0), len, &answer));
  g_assert_cmpuint (answer.status, ==, DOMYBS_BAD_REQUEST);
}

/* ---- HELLO ---- */

static void
put_hello (struct bytes *bytes, uint64_t session, uint64_t id, uint32_t abi, uint32_t section, uint64_t nonce, const char *driver) {
  put_header (bytes, DOMYBS_REQ_HELLO, 0, 1, session, id);
  put (bytes, abi, 4);
  put (bytes, section, 4);
  put (bytes, nonce, 8);
  memset (bytes->data + bytes->n, 0, 32);
  memcpy (bytes->data + bytes->n, driver, MIN (32, strlen (driver)));
  bytes->n += 32;
}

static void
hello_with_nonsense (struct rig *rig, const void *data) {
  static const uint32_t sections[] = { 0, 3, 63, 65, 1024, 2048, 0x40000000u, 0x80000000u, UINT32_MAX };
  g_autoptr (fe_t) fe = rig_open_to (rig, FE_STEP_ENABLE);
  struct bytes bytes;

  for (size_t i = 0; i < G_N_ELEMENTS (sections); i++) {
    put_hello (&bytes, 0, 0, 1, sections[i], 5, "d");
    expect_status (fe, &bytes, DOMYBS_BAD_REQUEST); /* 1024: the 2 GiB window would be one section */
  }
  put_hello (&bytes, 0, 0, 0, 64, 5, "d");
  expect_status (fe, &bytes, DOMYBS_BAD_REQUEST);
  put_hello (&bytes, 0, 0, 2, 64, 5, "d");
  expect_status (fe, &bytes, DOMYBS_BAD_REQUEST);
  put_hello (&bytes, 0, 0, 1, 64, 0, "d");
  expect_status (fe, &bytes, DOMYBS_BAD_REQUEST);
  put_hello (&bytes, 1, 0, 1, 64, 5, "d");
  expect_status (fe, &bytes, DOMYBS_BAD_REQUEST);
  put_hello (&bytes, 0, 1, 1, 64, 5, "d");
  expect_status (fe, &bytes, DOMYBS_BAD_REQUEST);
  g_assert_cmpuint (fe->maps, ==, 0);
}

/* The driver's name goes into the log: no line of its own making may come of it. */
static void
driver_name_forges_a_log_line (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open_to (rig, FE_STEP_ENABLE);
  g_autofree char *log = NULL;
  struct bytes bytes;

  put_hello (&bytes, 0, 0, 1, 64, 5, "x\nFORGED \033[31m");
  expect_status (fe, &bytes, DOMYBS_BAD_REQUEST);
  put_hello (&bytes, 0, 0, 1, 64, 5, "\xc3\xa4");
  expect_status (fe, &bytes, DOMYBS_BAD_REQUEST);
  put_hello (&bytes, 0, 0, 1, 64, 5, "a");
  memcpy (bytes.data + bytes.n - 8, "hidden", 6); /* behind the name's end */
  expect_status (fe, &bytes, DOMYBS_BAD_REQUEST);
  log = backend_log_from (rig->backend, rig->log_mark);
  g_assert_null (strstr (log, "FORGED"));
}

static void
driver_name_without_an_end (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open_to (rig, FE_STEP_ENABLE);
  struct fe_answer answer;
  struct bytes bytes;

  put_hello (&bytes, 0, 0, 1, 64, 5, "0123456789012345678901234567890123456789%s%n");
  fe_must (fe, fe_call (fe, bytes.data, bytes.n, &answer));
  g_assert_cmpuint (answer.status, ==, DOMYBS_OK);
  g_autoptr (JsonNode) node = backend_control (rig->backend, "{\"execute\":\"status\"}");
  JsonObject *status = json_object_get_object_member (json_node_get_object (node), "return");
  g_assert_cmpstr (json_object_get_string_member (json_object_get_object_member (status, "guest"), "driver"), ==,
                   "01234567890123456789012345678901");
}

static unsigned
count_lines (const char *text) {
  unsigned n = 0;

  for (; (text = strchr (text, '\n')); text++)
    n++;
  return n;
}

/* A guest that begins and ends sessions as fast as it can: the host's log does not grow with it, and says how much it left out.
 */
static void
sessions_without_end (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open (rig);
  const int64_t begin = fe_now_ms ();
  g_autofree char *log = NULL;
  struct fe_answer answer;
  int64_t sessions;

  rig_mark (rig);
  sessions = backend_status (rig->backend, "sessions");
  for (int i = 0; i < 2000; i++) {
    fe_must (fe, fe_bye (fe, &answer));
    fe_must (fe, fe_hello (fe, RIG_SECTION_BLOCKS, &answer));
    g_assert_cmpuint (answer.status, ==, DOMYBS_OK);
  }
  g_assert_cmpint (backend_status (rig->backend, "sessions"), ==, sessions + 2000);
  log = backend_log_from (rig->backend, rig->log_mark);
  /* a burst, then a line a second, each with one that says how many were left out */
  g_assert_cmpuint (count_lines (log), <=, 2 * (10 + (fe_now_ms () - begin) / 1000 + 1));
  g_usleep (1100 * 1000);
  fe_must (fe, fe_bye (fe, &answer));
  rig_expect_logged (rig, "lines of this kind were left out");
}

static void
request_before_hello (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open_to (rig, FE_STEP_ENABLE);
  struct bytes bytes;

  for (unsigned type = DOMYBS_REQ_GRANT; type <= DOMYBS_REQ_BYE; type++) {
    struct fe_answer answer;
    uint8_t request[PAGE];
    const struct domybs_run run = { 0, 1 };
    const size_t n = type == DOMYBS_REQ_GRANT     ? fe_encode_grant (fe, request, 1, 1, 0, 0, 0, 0)
                     : type == DOMYBS_REQ_RELEASE ? fe_encode_release (fe, request, 1, &run, 1)
                     : type == DOMYBS_REQ_STATS   ? fe_encode_stats (fe, request, 1, NULL, 0)
                                                  : fe_encode_bye (fe, request, 1);

    fe_must (fe, fe_call (fe, request, n, &answer));
    g_assert_cmpuint (answer.status, ==, DOMYBS_BAD_SESSION);
  }
  /* session 0 is nobody's, also when there is one */
  put_header (&bytes, DOMYBS_REQ_BYE, 0, 0, 0, 1);
  expect_status (fe, &bytes, DOMYBS_BAD_SESSION);
}

static void
request_of_another_session (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open (rig);
  struct fe_answer answer;
  struct bytes bytes;
  const uint64_t old = fe->session;

  fe_must (fe, fe_grant (fe, 5, DOMYBS_HINT_ANY, 0, 0, 0, &answer));
  put_header (&bytes, DOMYBS_REQ_BYE, 0, 0, fe->session + 1, 2);
  expect_status (fe, &bytes, DOMYBS_BAD_SESSION);
  put_header (&bytes, DOMYBS_REQ_BYE, 0, 0, 0, 2);
  expect_status (fe, &bytes, DOMYBS_BAD_SESSION);
  fe_must (fe, fe_hello (fe, 64, &answer));
  g_assert_cmpuint (answer.session, !=, old);
  g_assert_cmpuint (answer.granted, ==, 0);
  put_header (&bytes, DOMYBS_REQ_BYE, 0, 0, old, 1);
  expect_status (fe, &bytes, DOMYBS_BAD_SESSION);
}

/* ---- ids ---- */

static void
ids_out_of_order (struct rig *rig, const void *data) {
  static const uint64_t ids[] = { 0, 3, 17, 1ull << 32, 1ull << 63, UINT64_MAX - 1, UINT64_MAX };
  g_autoptr (fe_t) fe = rig_open (rig);
  struct fe_answer answer;
  struct bytes bytes;

  fe_must (fe, fe_grant (fe, 1, DOMYBS_HINT_ANY, 0, 0, 0, &answer));
  for (size_t i = 0; i < G_N_ELEMENTS (ids); i++) {
    put_header (&bytes, DOMYBS_REQ_BYE, 0, 0, fe->session, ids[i]);
    expect_status (fe, &bytes, DOMYBS_BAD_REQUEST);
  }
  g_assert_cmpint (backend_status (rig->backend, "granted-blocks"), ==, 1);
}

static void
ids_repeated_do_nothing_twice (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open (rig);
  uint8_t requests[DOMYBS_REPLAY_DEPTH][PAGE];
  size_t n[DOMYBS_REPLAY_DEPTH];
  struct fe_answer first[DOMYBS_REPLAY_DEPTH], again;

  for (unsigned i = 0; i < DOMYBS_REPLAY_DEPTH; i++) {
    n[i] = fe_encode_grant (fe, requests[i], 0, i + 1, DOMYBS_HINT_ANY, DOMYBS_GRANT_F_ALL, 0, 0);
    fe_must (fe, fe_call (fe, requests[i], n[i], &first[i]));
    g_assert_cmpuint (first[i].status, ==, DOMYBS_OK);
  }
  for (int round = 0; round < 3; round++)
    for (unsigned i = DOMYBS_REPLAY_DEPTH; i-- > 0;) {
      fe_must (fe, fe_call (fe, requests[i], n[i], &again));
      g_assert_cmpmem (&again, sizeof again, &first[i], sizeof first[i]);
    }
  g_assert_cmpint (backend_status (rig->backend, "granted-blocks"), ==, 16 * 17 / 2);

  /* the same id with another text is not a repetition */
  const struct domybs_run run = { first[0].runs[0].start, 1 };
  uint8_t other[PAGE];
  fe_must (fe, fe_call (fe, other, fe_encode_release (fe, other, 1, &run, 1), &again));
  g_assert_cmpuint (again.status, ==, DOMYBS_BAD_REQUEST);
  /* one more, and the oldest is forgotten */
  fe_must (fe, fe_stats (fe, NULL, 0, &again));
  fe_must (fe, fe_call (fe, requests[0], n[0], &again));
  g_assert_cmpuint (again.status, ==, DOMYBS_STALE);
  g_assert_cmpint (backend_status (rig->backend, "granted-blocks"), ==, 16 * 17 / 2);
}

/* A release that is repeated after its blocks were granted anew must not take them away. */
static void
release_repeated_after_a_new_grant (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open (rig);
  const struct domybs_run run = { 0, 4 };
  struct fe_answer answer;
  uint8_t release[PAGE];
  size_t n;

  fe_must (fe, fe_grant (fe, 4, DOMYBS_HINT_ANY, DOMYBS_GRANT_F_ALL, 0, 4, &answer));
  n = fe_encode_release (fe, release, 0, &run, 1);
  fe_must (fe, fe_call (fe, release, n, &answer));
  fe_must (fe, fe_grant (fe, 4, DOMYBS_HINT_ANY, DOMYBS_GRANT_F_ALL, 0, 4, &answer));
  memset (fe_block (fe, 0), 0x77, PAGE);
  fe_must (fe, fe_call (fe, release, n, &answer));
  g_assert_cmpuint (answer.status, ==, DOMYBS_OK);
  g_assert_cmpint (backend_status (rig->backend, "granted-blocks"), ==, 4);
  g_assert_cmpuint (*fe_block (fe, 0), ==, 0x77);
}

/* ---- floods ---- */

static void
flood_of_hellos (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open (rig);
  struct fe_answer answer;

  for (int i = 0; i < 500; i++) {
    fe_must (fe, fe_hello (fe, 1u << (i % 9), &answer));
    g_assert_cmpuint (answer.status, ==, DOMYBS_OK);
    fe_must (fe, fe_grant (fe, 3, DOMYBS_HINT_ANY, 0, 0, 0, &answer));
    g_assert_cmpuint (answer.granted, ==, 3);
  }
  g_assert_cmpuint (fe->maps, ==, 1); /* the window that is mapped is emptied, not mapped again */
}

static void
hello_repeated_is_one_session (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open (rig);
  struct fe_answer answer;
  uint8_t request[PAGE];

  fe_must (fe, fe_grant (fe, 2, DOMYBS_HINT_ANY, 0, 0, 0, &answer));
  for (int i = 0; i < 10; i++) {
    fe_must (fe, fe_call (fe, request, fe_encode_hello (request, 64, fe->nonce), &answer));
    g_assert_cmpuint (answer.status, ==, DOMYBS_OK);
    g_assert_cmpuint (answer.session, ==, fe->session);
    g_assert_cmpuint (answer.granted, ==, 2);
  }
}

static void
flood_of_bad_requests_does_not_flood_the_log (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open (rig);
  g_autofree char *log = NULL;
  struct bytes bytes;
  int64_t start;

  rig_mark (rig);
  start = fe_now_ms ();
  for (int i = 0; i < 20000; i++) {
    put_header (&bytes, 99, 0, 0, fe->session, 1);
    expect_status (fe, &bytes, DOMYBS_BAD_REQUEST);
  }
  log = backend_log_from (rig->backend, rig->log_mark);
  g_assert_cmpuint (count_lines (log), <=, 2 * (10 + (fe_now_ms () - start) / 1000 + 1));
  g_usleep (1100 * 1000);
  expect_status (fe, &bytes, DOMYBS_BAD_REQUEST);
  rig_expect_logged (rig, "lines of this kind were left out");
  rig_expect_logged (rig, "refused");
}

int
main (int argc, char **argv) {
  g_test_init (&argc, &argv, NULL);
  rig_add ("/requests/type-out-of-range", type_out_of_range, NULL);
  rig_add ("/requests/header-flags-not-zero", header_flags_not_zero, NULL);
  rig_add ("/requests/count-does-not-fit-the-length", count_does_not_fit_the_length, NULL);
  rig_add ("/requests/request-longer-than-a-page", request_longer_than_a_page, NULL);
  rig_add ("/requests/hello-with-nonsense", hello_with_nonsense, NULL);
  rig_add ("/requests/driver-name-forges-a-log-line", driver_name_forges_a_log_line, NULL);
  rig_add ("/requests/driver-name-without-an-end", driver_name_without_an_end, NULL);
  rig_add ("/requests/sessions-without-end", sessions_without_end, NULL);
  rig_add ("/requests/request-before-hello", request_before_hello, NULL);
  rig_add ("/requests/request-of-another-session", request_of_another_session, NULL);
  rig_add ("/requests/ids-out-of-order", ids_out_of_order, NULL);
  rig_add ("/requests/ids-repeated-do-nothing-twice", ids_repeated_do_nothing_twice, NULL);
  rig_add ("/requests/release-repeated-after-a-new-grant", release_repeated_after_a_new_grant, NULL);
  rig_add ("/requests/flood-of-hellos", flood_of_hellos, NULL);
  rig_add ("/requests/hello-repeated-is-one-session", hello_repeated_is_one_session, NULL);
  rig_add ("/requests/flood-of-bad-requests-does-not-flood-the-log", flood_of_bad_requests_does_not_flood_the_log, NULL);
  return rig_run ();
}
