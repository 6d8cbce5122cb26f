/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The codec of the memory device's requests: the bounds of every field, and the layout of answers. */
#include "core/device-request.h"

#include <endian.h>
#include <string.h>

#include "testing.h"

#define WINDOW 8192u

struct wire {
  uint8_t bytes[DOMYBS_REQUEST_BYTES_MAX + 64];
  size_t n;
};

static struct wire
wire_of (uint16_t type, uint32_t count, uint64_t session, uint64_t id, const void *body, size_t body_bytes) {
  const struct domybs_request head = {
    .type = htole16 (type), .count = htole32 (count), .session = htole64 (session), .id = htole64 (id)
  };
  struct wire wire = { .n = sizeof head + body_bytes };

  memcpy (wire.bytes, &head, sizeof head);
  if (body_bytes)
    memcpy (wire.bytes + sizeof head, body, body_bytes);
  return wire;
}

/* Decodes a copy that ends where its memory ends, so that a sanitiser sees any read behind it. */
static const char *
decode (const struct wire *wire, struct device_request *ret) {
  g_autofree uint8_t *copy = g_memdup2 (wire->bytes, wire->n);

  return device_request_decode (copy, wire->n, WINDOW, ret);
}

static struct domybs_hello
good_hello (void) {
  return (struct domybs_hello){
    .abi_version = htole32 (1), .section_blocks = htole32 (64), .nonce = htole64 (0x1122334455667788), .driver = "domybs 0.1"
  };
}

static const char *
decode_hello (const struct domybs_hello *hello, struct device_request *ret) {
  const struct wire wire = wire_of (DOMYBS_REQ_HELLO, 1, 0, 0, hello, sizeof *hello);

  return decode (&wire, ret);
}

static void
test_hello (void) {
  struct domybs_hello hello = good_hello ();
  struct device_request request;

  g_assert_cmpstr (decode_hello (&hello, &request), ==, NULL);
  g_assert_cmpint (request.type, ==, DOMYBS_REQ_HELLO);
  g_assert_cmpuint (request.hello.section_blocks, ==, 64);
  g_assert_cmpuint (request.hello.nonce, ==, 0x1122334455667788);
  g_assert_cmpstr (request.hello.driver, ==, "domybs 0.1");
}

static void
test_hello_version_and_nonce (void) {
  static const uint32_t versions[] = { 0, 2, UINT32_MAX };
  struct domybs_hello hello = good_hello ();
  struct device_request request;

  for (unsigned i = 0; i < G_N_ELEMENTS (versions); i++) {
    hello.abi_version = htole32 (versions[i]);
    g_assert_cmpstr (decode_hello (&hello, &request), ==, "the driver speaks another ABI version");
  }
  hello = good_hello ();
  hello.nonce = 0;
  g_assert_cmpstr (decode_hello (&hello, &request), ==, "nonce is 0");
}

static void
test_hello_section_size (void) {
  struct domybs_hello hello = good_hello ();
  struct device_request request;

  for (uint32_t size = 0; size < 3000; size++) {
    const bool good = size && size <= 1024 && (size & (size - 1)) == 0;

    hello.section_blocks = htole32 (size);
    g_assert_cmpstr (decode_hello (&hello, &request), ==, good ? NULL : "section size is not a power of two from 1 to 1024 blocks");
  }
  hello.section_blocks = htole32 (0x80000000);
  g_assert_nonnull (decode_hello (&hello, &request));
}

static void
test_hello_driver_name (void) {
  static const char bad[] = "driver name is not printable ASCII";
  struct domybs_hello hello = good_hello ();
  struct device_request request;

  memset (hello.driver, '~', sizeof hello.driver); /* all 32 bytes, no NUL */
  g_assert_cmpstr (decode_hello (&hello, &request), ==, NULL);
  g_assert_cmpuint (strlen (request.hello.driver), ==, 32);
  memset (hello.driver, 0, sizeof hello.driver);
  g_assert_cmpstr (decode_hello (&hello, &request), ==, NULL);
  g_assert_cmpstr (request.hello.driver, ==, "");
  for (unsigned c = 1; c < 256; c++) {
    memset (hello.driver, 0, sizeof hello.driver);
    hello.driver[0] = 'a';
    hello.driver[1] = (uint8_t)c;
    g_assert_cmpstr (decode_hello (&hello, &request), ==, c >= 0x20 && c <= 0x7e ? NULL : bad);
  }
  memset (hello.driver, 0, sizeof hello.driver);
  hello.driver[31] = 'x'; /* after the end */
  g_assert_cmpstr (decode_hello (&hello, &request), ==, bad);
}

static void
test_hello_session_and_id (void) {
  const struct domybs_hello hello = good_hello ();
  const struct wire with_session = wire_of (DOMYBS_REQ_HELLO, 1, 1, 0, &hello, sizeof hello);
  const struct wire with_id = wire_of (DOMYBS_REQ_HELLO, 1, 0, 1, &hello, sizeof hello);
  struct device_request request;

  g_assert_cmpstr (decode (&with_session, &request), ==, "HELLO with a session or an id");
  g_assert_cmpstr (decode (&with_id, &request), ==, "HELLO with a session or an id");
}

static void
test_header (void) {
  struct wire wire = wire_of (DOMYBS_REQ_BYE, 0, 0xabcdef, 5, NULL, 0);
  struct device_request request;

  g_assert_cmpstr (decode (&wire, &request), ==, NULL);
  g_assert_cmpint (request.type, ==, DOMYBS_REQ_BYE);
  g_assert_cmpuint (request.session, ==, 0xabcdef);
  g_assert_cmpuint (request.id, ==, 5);
  for (wire.n = 0; wire.n < sizeof (struct domybs_request); wire.n++) {
    memset (&request, 0x5a, sizeof request);
    g_assert_cmpstr (decode (&wire, &request), ==, "shorter than its header");
    g_assert_cmpuint (request.id, ==, 0); /* nothing of an earlier request shows */
    g_assert_cmpuint (request.session, ==, 0);
  }
  wire = wire_of (DOMYBS_REQ_BYE, 0, 1, 0, NULL, 0);
  g_assert_cmpstr (decode (&wire, &request), ==, "id is 0");
  for (unsigned bit = 0; bit < 16; bit++) {
    wire = wire_of (DOMYBS_REQ_BYE, 0, 1, 1, NULL, 0);
    wire.bytes[2 + bit / 8] = (uint8_t)(1u << bit % 8);
    g_assert_cmpstr (decode (&wire, &request), ==, "unknown flags");
  }
  for (unsigned type = 0; type < 65536; type++)
    if (type < DOMYBS_REQ_HELLO || type > DOMYBS_REQ_RESERVE) {
      wire = wire_of ((uint16_t)type, 0, 1, 1, NULL, 0);
      g_assert_cmpstr (decode (&wire, &request), ==, "unknown request");
    }
}

static void
test_refusals_keep_the_address (void) {
  /* so that the answer of a refused request finds its way */
  const struct wire wire = wire_of (DOMYBS_REQ_GRANT, 2, 77, 88, NULL, 0);
  struct device_request request;

  g_assert_cmpstr (decode (&wire, &request), ==, "wrong length");
  g_assert_cmpint (request.type, ==, DOMYBS_REQ_GRANT);
  g_assert_cmpuint (request.session, ==, 77);
  g_assert_cmpuint (request.id, ==, 88);
}

/* For every type: which lengths of body are good with this count? */
static void
test_lengths (void) {
  static const struct {
    uint16_t type;
    uint32_t count;
    int good; /* bytes of body; −1: none */
  } cases[] = {
    { DOMYBS_REQ_HELLO, 1, 48 },    { DOMYBS_REQ_HELLO, 0, -1 },       { DOMYBS_REQ_HELLO, 2, -1 },
    { DOMYBS_REQ_GRANT, 1, 32 },    { DOMYBS_REQ_GRANT, 0, -1 },       { DOMYBS_REQ_GRANT, UINT32_MAX, -1 },
    { DOMYBS_REQ_RELEASE, 0, -1 },  { DOMYBS_REQ_RELEASE, 1, 16 },     { DOMYBS_REQ_RELEASE, 128, 2048 },
    { DOMYBS_REQ_RELEASE, 129, -1 }, { DOMYBS_REQ_RELEASE, 0x10000000, -1 }, /* × 16 = 0 in 32 bits */
    { DOMYBS_REQ_STATS, 0, 0 },     { DOMYBS_REQ_STATS, 3, 48 },       { DOMYBS_REQ_STATS, 64, 1024 },
    { DOMYBS_REQ_STATS, 65, -1 },   { DOMYBS_REQ_STATS, 0x10000000, -1 },
    { DOMYBS_REQ_BYE, 0, 0 },       { DOMYBS_REQ_BYE, 1, -1 },
    { DOMYBS_REQ_RESERVE, 1, 16 },  { DOMYBS_REQ_RESERVE, 0, -1 },     { DOMYBS_REQ_RESERVE, 2, -1 },
  };
  struct domybs_run runs[160];
  struct device_request request;

  for (size_t i = 0; i < G_N_ELEMENTS (runs); i++)
    runs[i] = (struct domybs_run){ htole64 (i), htole64 (1) };
  for (size_t i = 0; i < G_N_ELEMENTS (cases); i++)
    for (size_t body = 0; body <= sizeof runs; body++) {
      const struct domybs_hello hello = good_hello ();
      const struct domybs_grant grant = { .blocks = htole64 (1) };
      const struct domybs_reserve reserve = { .tier = htole32 (DOMYBS_HINT_SHARED) };
      const bool is_hello = cases[i].type == DOMYBS_REQ_HELLO;
      struct wire wire = wire_of (cases[i].type, cases[i].count, 0, !is_hello, runs, body);

      if (is_hello && body >= sizeof hello)
        memcpy (wire.bytes + 24, &hello, sizeof hello);
      if (cases[i].type == DOMYBS_REQ_GRANT && body >= sizeof grant)
        memcpy (wire.bytes + 24, &grant, sizeof grant);
      if (cases[i].type == DOMYBS_REQ_RESERVE && body >= sizeof reserve)
        memcpy (wire.bytes + 24, &reserve, sizeof reserve);
      if ((int)body == cases[i].good)
        g_assert_cmpstr (decode (&wire, &request), ==, NULL);
      else
        g_assert_true (g_str_has_prefix (decode (&wire, &request), "wrong length"));
    }
}

static void
test_longest (void) {
  struct wire wire = wire_of (DOMYBS_REQ_BYE, 0, 1, 1, NULL, 0);
  struct device_request request;

  wire.n = DOMYBS_REQUEST_BYTES_MAX;
  g_assert_cmpstr (decode (&wire, &request), ==, "wrong length");
  wire.n++;
  g_assert_cmpstr (decode (&wire, &request), ==, "longer than any request");
  g_assert_cmpuint (request.id, ==, 1);
}

static void
test_grant (void) {
  static const char blocks_bad[] = "number of blocks out of range", area_bad[] = "area outside of the window";
  static const struct {
    uint32_t hint, flags;
    uint64_t blocks, area_start, area_blocks;
    const char *why;
  } cases[] = {
    { DOMYBS_HINT_ANY, 0, 1, 0, 0, NULL },
    { DOMYBS_HINT_REMOTE, DOMYBS_GRANT_F_ALL | DOMYBS_GRANT_F_SECTION, WINDOW, 0, WINDOW, NULL },
    { 4, 0, 1, 0, 0, "unknown hint" },
    { UINT32_MAX, 0, 1, 0, 0, "unknown hint" },
    { 0, 4, 1, 0, 0, "unknown flags" },
    { 0, 0x80000000, 1, 0, 0, "unknown flags" },
    { 0, 0, 0, 0, 0, blocks_bad },
    { 0, 0, WINDOW + 1, 0, 0, blocks_bad },
    { 0, 0, UINT64_MAX, 0, 0, blocks_bad },
    { 0, 0, 1, 1, 0, area_bad }, /* a start without a size */
    { 0, 0, 1, WINDOW - 1, 1, NULL },
    { 0, 0, 1, WINDOW - 1, 2, area_bad },
    { 0, 0, 1, WINDOW, 1, area_bad },
    { 0, 0, 1, 0, WINDOW + 1, area_bad },
    { 0, 0, 1, UINT64_MAX, 2, area_bad },
    { 0, 0, 1, 2, UINT64_MAX, area_bad }, /* the sum wraps to 1 */
  };
  struct device_request request;

  for (size_t i = 0; i < G_N_ELEMENTS (cases); i++) {
    const struct domybs_grant grant = { htole32 (cases[i].hint), htole32 (cases[i].flags), htole64 (cases[i].blocks),
                                        htole64 (cases[i].area_start), htole64 (cases[i].area_blocks) };
    const struct wire wire = wire_of (DOMYBS_REQ_GRANT, 1, 9, 9, &grant, sizeof grant);

    g_test_message ("case %zu", i);
    g_assert_cmpstr (decode (&wire, &request), ==, cases[i].why);
    if (cases[i].why)
      continue;
    g_assert_cmpuint (request.grant.hint, ==, cases[i].hint);
    g_assert_cmpuint (request.grant.flags, ==, cases[i].flags);
    g_assert_cmpuint (request.grant.blocks, ==, cases[i].blocks);
    g_assert_cmpuint (request.grant.area_start, ==, cases[i].area_start);
    g_assert_cmpuint (request.grant.area_blocks, ==, cases[i].area_blocks);
  }
}

static void
test_reserve (void) {
  static const char tier_bad[] = "not a tier of far memory", flags_bad[] = "unknown flags", blocks_bad[] = "number of blocks out of range";
  static const struct {
    uint32_t tier, flags;
    uint64_t blocks;
    const char *why;
  } cases[] = {
    { DOMYBS_HINT_SHARED, 0, 0, NULL },
    { DOMYBS_HINT_REMOTE, 0, 1, NULL },
    { DOMYBS_HINT_SHARED, 0, DOMYBS_RESERVE_BLOCKS_MAX, NULL },
    { DOMYBS_HINT_SHARED, 0, DOMYBS_RESERVE_BLOCKS_MAX + 1, blocks_bad },
    { DOMYBS_HINT_REMOTE, 0, UINT64_MAX, blocks_bad },
    { DOMYBS_HINT_ANY, 0, 1, tier_bad },
    { DOMYBS_HINT_LOCAL, 0, 1, tier_bad },
    { 4, 0, 1, tier_bad },
    { UINT32_MAX, 0, 1, tier_bad },
    { DOMYBS_HINT_SHARED, 1, 1, flags_bad },
    { DOMYBS_HINT_SHARED, 1u << 31, 1, flags_bad },
  };
  struct device_request request;

  for (size_t i = 0; i < G_N_ELEMENTS (cases); i++) {
    const struct domybs_reserve reserve = { htole32 (cases[i].tier), htole32 (cases[i].flags), htole64 (cases[i].blocks) };
    const struct wire wire = wire_of (DOMYBS_REQ_RESERVE, 1, 9, 9, &reserve, sizeof reserve);

    g_test_message ("case %zu", i);
    g_assert_cmpstr (decode (&wire, &request), ==, cases[i].why);
    if (cases[i].why)
      continue;
    g_assert_cmpuint (request.reserve.tier, ==, cases[i].tier);
    g_assert_cmpuint (request.reserve.blocks, ==, cases[i].blocks);
  }
}

static void
test_release (void) {
  static const struct {
    uint64_t start, count;
    bool good;
  } cases[] = {
    { 0, 1, true },          { 0, WINDOW, true },          { WINDOW - 1, 1, true },
    { 0, 0, false },         { WINDOW, 1, false },         { WINDOW - 1, 2, false },
    { 0, WINDOW + 1, false }, { UINT64_MAX, 1, false },    { UINT64_MAX, 2, false },
    { 1, UINT64_MAX, false }, { WINDOW, UINT64_MAX - WINDOW, false },
  };
  struct device_request request;

  for (size_t i = 0; i < G_N_ELEMENTS (cases); i++)
    for (unsigned at = 0; at < 3; at++) { /* in every place of three */
      struct domybs_run runs[3] = { { 0, htole64 (1) }, { 0, htole64 (1) }, { 0, htole64 (1) } };
      struct wire wire;

      runs[at] = (struct domybs_run){ htole64 (cases[i].start), htole64 (cases[i].count) };
      wire = wire_of (DOMYBS_REQ_RELEASE, 3, 9, 9, runs, sizeof runs);
      g_test_message ("case %zu at %u", i, at);
      g_assert_cmpstr (decode (&wire, &request), ==, cases[i].good ? NULL : "run outside of the window");
      if (!cases[i].good)
        continue;
      g_assert_cmpuint (request.release.n_runs, ==, 3);
      g_assert_cmpuint (request.release.blocks, ==, cases[i].count + 2);
      g_assert_cmpuint (request.release.runs[at].start, ==, cases[i].start);
      g_assert_cmpuint (request.release.runs[at].count, ==, cases[i].count);
    }
}

static void
test_stats (void) {
  const struct domybs_stat stats[2] = { { htole32 (3), htole32 (99), htole64 (UINT64_MAX) },
                                        { htole32 (UINT32_MAX), 0, htole64 (7) } };
  const struct wire wire = wire_of (DOMYBS_REQ_STATS, 2, 9, 9, stats, sizeof stats);
  struct device_request request;

  g_assert_cmpstr (decode (&wire, &request), ==, NULL); /* unknown tags and reserved fields are for later versions */
  g_assert_cmpuint (request.stats.n, ==, 2);
  g_assert_cmpuint (request.stats.stats[0].tag, ==, 3);
  g_assert_cmpuint (request.stats.stats[0].value, ==, UINT64_MAX);
  g_assert_cmpuint (request.stats.stats[1].tag, ==, UINT32_MAX);
  g_assert_cmpuint (request.stats.stats[1].value, ==, 7);
}

static void
test_response_layout (void) {
  struct device_response response = { DOMYBS_NO_HOST_CAPACITY, 0x0102030405060708, 2, 3, 4, 5, 6, 2, { { 7, 8 }, { 9, 10 } } };
  static const uint8_t expected[] = {
    3, 0, 0, 0, 2, 0, 0, 0,                         /* status, reserved, count */
    8, 7, 6, 5, 4, 3, 2, 1, 2, 0, 0, 0, 0, 0, 0, 0, /* session, id */
    3, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, /* blocks, granted */
    5, 0, 0, 0, 6, 0, 0, 0,                         /* retry, generation */
    7, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0,
  };
  uint8_t out[DOMYBS_RESPONSE_BYTES_MAX];

  memset (out, 0xee, sizeof out);
  g_assert_cmpuint (device_response_bytes (&response), ==, sizeof expected);
  g_assert_cmpuint (device_response_encode (&response, out), ==, sizeof expected);
  g_assert_cmpmem (out, sizeof expected, expected, sizeof expected);
  g_assert_cmpuint (out[sizeof expected], ==, 0xee);
  response.n_runs = DOMYBS_RUNS_MAX;
  g_assert_cmpuint (device_response_encode (&response, out), <=, sizeof out);
}

static void
test_names (void) {
  g_assert_cmpstr (device_request_name (DOMYBS_REQ_HELLO), ==, "HELLO");
  g_assert_cmpstr (device_request_name (DOMYBS_REQ_GRANT), ==, "GRANT");
  g_assert_cmpstr (device_request_name (DOMYBS_REQ_RELEASE), ==, "RELEASE");
  g_assert_cmpstr (device_request_name (DOMYBS_REQ_STATS), ==, "STATS");
  g_assert_cmpstr (device_request_name (DOMYBS_REQ_BYE), ==, "BYE");
  g_assert_cmpstr (device_request_name (DOMYBS_REQ_RESERVE), ==, "RESERVE");
  g_assert_cmpstr (device_request_name ((enum domybs_request_type)7), ==, "unknown");
  g_assert_cmpstr (device_request_name ((enum domybs_request_type)65535), ==, "unknown");
  g_assert_cmpstr (device_status_name (DOMYBS_OK), ==, "OK");
  g_assert_cmpstr (device_status_name (DOMYBS_STALE), ==, "STALE");
  g_assert_cmpstr (device_status_name (DOMYBS_FAILED), ==, "FAILED");
  g_assert_cmpstr (device_status_name ((enum domybs_status)9), ==, "unknown");
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/device-request/hello/comes out as it went in", test_hello);
  g_test_add_func ("/device-request/hello/another version or no nonce is refused", test_hello_version_and_nonce);
  g_test_add_func ("/device-request/hello/a section is a power of two up to 1024 blocks", test_hello_section_size);
  g_test_add_func ("/device-request/hello/a driver's name is printable and ends once", test_hello_driver_name);
  g_test_add_func ("/device-request/hello/has neither session nor id", test_hello_session_and_id);
  g_test_add_func ("/device-request/header/is whole with known type and no flags", test_header);
  g_test_add_func ("/device-request/header/of a refused request still says whose it is", test_refusals_keep_the_address);
  g_test_add_func ("/device-request/length/fits type and count exactly", test_lengths);
  g_test_add_func ("/device-request/length/is 4096 bytes at most", test_longest);
  g_test_add_func ("/device-request/grant/hint and flags and blocks and area are in range", test_grant);
  g_test_add_func ("/device-request/release/every run lies in the window", test_release);
  g_test_add_func ("/device-request/stats/come out as they went in", test_stats);
  g_test_add_func ("/device-request/reserve/tier and flags and blocks are in range", test_reserve);
  g_test_add_func ("/device-request/response/has its layout", test_response_layout);
  g_test_add_func ("/device-request/names are those of the header", test_names);
  return g_test_run ();
}
