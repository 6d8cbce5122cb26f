/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The bytes of lease messages, and the names of their exports. */
#include "core/lease.h"
#include "testing.h"

#include <string.h>

static void
fill (GRand *rand, void *bytes, size_t n) {
  for (size_t i = 0; i < n; i++)
    ((uint8_t *)bytes)[i] = (uint8_t)testing_below (rand, 256);
}

static struct lease_request
some_request (GRand *rand) {
  struct lease_request request = { .verb = LEASE_ATTACH + (enum lease_verb)testing_below (rand, 5) };

  request.disk = (uint32_t)testing_edgy (rand);
  fill (rand, request.vm, LEASE_ID_BYTES);
  fill (rand, request.host, LEASE_ID_BYTES);
  fill (rand, request.boot, LEASE_ID_BYTES);
  fill (rand, request.incarnation, LEASE_ID_BYTES);
  request.session = testing_edgy (rand);
  request.lease = testing_edgy (rand);
  request.epoch = testing_edgy (rand);
  request.seq = testing_edgy (rand);
  request.blocks = testing_edgy (rand);
  request.revoke_seen = testing_edgy (rand);
  request.number = testing_edgy (rand);
  return request;
}

static void
test_requests (void) {
  g_autoptr (GRand) rand = testing_rand ();

  for (unsigned i = 0; i < testing_steps (20000); i++) {
    const struct lease_request request = some_request (rand);
    uint8_t bytes[LEASE_REQUEST_BYTES], again[LEASE_REQUEST_BYTES];
    struct lease_request read;

    memset (&read, 0, sizeof read);
    lease_request_encode (&request, bytes);
    g_assert_true (lease_request_decode (bytes, sizeof bytes, &read));
    lease_request_encode (&read, again);
    g_assert_cmpmem (bytes, sizeof bytes, again, sizeof again);
    g_assert_cmpuint (read.verb, ==, request.verb);
    g_assert_cmpuint (read.session, ==, request.session);
    g_assert_cmpuint (read.number, ==, request.number);
    g_assert_cmpmem (read.boot, LEASE_ID_BYTES, request.boot, LEASE_ID_BYTES);
    /* Each byte counts: changed, it is another request, or none */
    {
      const size_t at = testing_below (rand, sizeof bytes);

      bytes[at] ^= (uint8_t)(1 + testing_below (rand, 255));
      if (lease_request_decode (bytes, sizeof bytes, &read)) {
        lease_request_encode (&read, again);
        g_assert_cmpmem (bytes, sizeof bytes, again, sizeof again);
      }
    }
  }
}

static void
test_answers (void) {
  g_autoptr (GRand) rand = testing_rand ();

  for (unsigned i = 0; i < testing_steps (20000); i++) {
    struct lease_answer answer = { .verdict = (enum lease_verdict)testing_below (rand, LEASE_IN_USE + 1) }, read;
    uint8_t bytes[LEASE_ANSWER_BYTES], again[LEASE_ANSWER_BYTES];

    fill (rand, answer.incarnation, LEASE_ID_BYTES);
    answer.lease = testing_edgy (rand);
    answer.epoch = testing_edgy (rand);
    answer.level = testing_edgy (rand);
    answer.revoke_left_ms = (uint32_t)testing_edgy (rand);
    answer.number = testing_edgy (rand);
    lease_answer_encode (&answer, bytes);
    g_assert_true (lease_answer_decode (bytes, sizeof bytes, &read));
    lease_answer_encode (&read, again);
    g_assert_cmpmem (bytes, sizeof bytes, again, sizeof again);
    g_assert_cmpuint (read.verdict, ==, answer.verdict);
    g_assert_cmpuint (read.level, ==, answer.level);
    g_assert_cmpuint (read.revoke_left_ms, ==, answer.revoke_left_ms);
    g_assert_cmpuint (read.number, ==, answer.number);
  }
}

/* As leases.md says where each number is: other programs may be older or newer. */
static void
test_places (void) {
  struct lease_request request
      = { .verb = LEASE_KEEP, .disk = 0x01020304, .session = 0x1112131415161718, .number = 0x7172737475767778 };
  struct lease_answer answer
      = { .verdict = LEASE_NO_ROOM, .revoke_left_ms = 0x01020304, .lease = 0x2122232425262728, .number = 0x41 };
  uint8_t bytes[LEASE_REQUEST_BYTES];

  memset (request.vm, 'v', LEASE_ID_BYTES);
  memset (request.incarnation, 'i', LEASE_ID_BYTES);
  lease_request_encode (&request, bytes);
  g_assert_cmpmem (bytes, 8, "\0\1\0\4\1\2\3\4", 8);
  g_assert_cmpmem (bytes + 8, 16, "vvvvvvvvvvvvvvvv", 16);
  g_assert_cmpmem (bytes + 56, 16, "iiiiiiiiiiiiiiii", 16);
  g_assert_cmpmem (bytes + 72, 8, "\x11\x12\x13\x14\x15\x16\x17\x18", 8);
  g_assert_cmpmem (bytes + 120, 8, "\x71\x72\x73\x74\x75\x76\x77\x78", 8);
  lease_answer_encode (&answer, bytes);
  g_assert_cmpmem (bytes, 8, "\0\1\0\x9\1\2\3\4", 8);
  g_assert_cmpmem (bytes + 24, 8, "\x21\x22\x23\x24\x25\x26\x27\x28", 8);
  g_assert_cmpuint (bytes[88 + 7], ==, 0x41);
}

static void
test_wrong_bytes (void) {
  const struct lease_request request = { .verb = LEASE_KEEP };
  const struct lease_answer answer = { .verdict = LEASE_OK };
  uint8_t bytes[LEASE_REQUEST_BYTES + 1] = { 0 };
  struct lease_request read_request;
  struct lease_answer read_answer;

  lease_request_encode (&request, bytes);
  g_assert_false (lease_request_decode (bytes, LEASE_REQUEST_BYTES - 1, &read_request));
  g_assert_false (lease_request_decode (bytes, LEASE_REQUEST_BYTES + 1, &read_request));
  g_assert_false (lease_request_decode (bytes, 0, &read_request));
  bytes[1] = 2; /* another version */
  g_assert_false (lease_request_decode (bytes, LEASE_REQUEST_BYTES, &read_request));
  for (unsigned verb = 0; verb < 256; verb++) {
    lease_request_encode (&request, bytes);
    bytes[3] = (uint8_t)verb;
    g_assert_cmpint (lease_request_decode (bytes, LEASE_REQUEST_BYTES, &read_request), ==,
                     verb >= LEASE_ATTACH && verb <= LEASE_END);
  }
  lease_request_encode (&request, bytes);
  bytes[LEASE_REQUEST_BYTES - 1] = 1;
  g_assert_false (lease_request_decode (bytes, LEASE_REQUEST_BYTES, &read_request));
  lease_answer_encode (&answer, bytes);
  g_assert_false (lease_answer_decode (bytes, LEASE_ANSWER_BYTES - 1, &read_answer));
  bytes[3] = LEASE_IN_USE + 1;
  g_assert_false (lease_answer_decode (bytes, LEASE_ANSWER_BYTES, &read_answer));
  lease_answer_encode (&answer, bytes);
  bytes[LEASE_ANSWER_BYTES - 1] = 1;
  g_assert_false (lease_answer_decode (bytes, LEASE_ANSWER_BYTES, &read_answer));
}

static void
test_names (void) {
  const uint8_t incarnation[LEASE_ID_BYTES] = { 0x00, 0x01, 0xab, 0xff };
  uint8_t read[LEASE_ID_BYTES];
  uint64_t lease, epoch;
  char name[LEASE_EXPORT_NAME_BYTES], wrong[LEASE_EXPORT_NAME_BYTES + 1];

  lease_export_name (0x1f, UINT64_MAX, incarnation, name);
  g_assert_cmpstr (name, ==, "lease-000000000000001f.ffffffffffffffff.0001abff000000000000000000000000");
  g_assert_cmpuint (strlen (name) + 1, ==, LEASE_EXPORT_NAME_BYTES);
  g_assert_true (lease_export_parse (name, &lease, &epoch, read));
  g_assert_cmpuint (lease, ==, 0x1f);
  g_assert_cmpuint (epoch, ==, UINT64_MAX);
  g_assert_cmpmem (read, sizeof read, incarnation, sizeof incarnation);
  /* Nothing but these characters, each at its place; nothing behind */
  for (size_t i = 0; i < strlen (name); i++)
    for (unsigned c = 0; c < 256; c++) {
      const bool good
          = c == (uint8_t)name[i] || (g_ascii_isxdigit (name[i]) && i >= 6 && strchr ("0123456789abcdef", (int)c) && c);

      memcpy (wrong, name, sizeof name);
      wrong[i] = (char)c;
      g_assert_cmpint (lease_export_parse (wrong, &lease, &epoch, read), ==, good);
    }
  g_snprintf (wrong, sizeof wrong, "%s0", name);
  g_assert_false (lease_export_parse (wrong, &lease, &epoch, read));
  g_assert_false (lease_export_parse ("", &lease, &epoch, read));
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/lease/requests", test_requests);
  g_test_add_func ("/lease/answers", test_answers);
  g_test_add_func ("/lease/places", test_places);
  g_test_add_func ("/lease/wrong-bytes", test_wrong_bytes);
  g_test_add_func ("/lease/names", test_names);
  return g_test_run ();
}
