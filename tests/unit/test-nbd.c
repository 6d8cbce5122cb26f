/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The NBD codec: what is written is read again, the bytes are those of the protocol, and lengths from the wire are never
 * believed. */
#include "core/nbd.h"
#include "testing.h"

#include <string.h>

static void
test_bytes (void) {
  static const uint8_t greeting[] = { 'N', 'B', 'D', 'M', 'A', 'G', 'I', 'C', 'I', 'H', 'A', 'V', 'E', 'O', 'P', 'T', 0, 3 };
  static const uint8_t option[] = { 'I', 'H', 'A', 'V', 'E', 'O', 'P', 'T', 0x44, 0x4d, 0x59, 0x42, 0, 0, 0, 160 };
  static const uint8_t reply[] = { 0, 3, 0xe8, 0x89, 4, 0x55, 0x65, 0xa9, 0, 0, 0, 7, 0x80, 0, 0, 6, 0, 0, 1, 2 };
  static const uint8_t request[]
      = { 0x25, 0x60, 0x95, 0x13, 0, 2, 0, 6, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0x20, 0, 0 };
  static const uint8_t simple[] = { 0x67, 0x44, 0x66, 0x98, 0, 0, 0, 28, 1, 2, 3, 4, 5, 6, 7, 8 };
  static const uint8_t chunk[] = { 0x66, 0x8e, 0x33, 0xef, 0, 1, 0x80, 1, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 6 };
  const struct nbd_request zeroes
      = { NBD_CMD_FLAG_NO_HOLE, NBD_CMD_WRITE_ZEROES, UINT64_C (0x0102030405060708), UINT64_C (0x100000000), 1u << 21 };
  uint8_t out[64];

  nbd_greeting_encode (NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES, out);
  g_assert_cmpmem (out, NBD_GREETING_BYTES, greeting, sizeof greeting);
  nbd_option_encode (NBD_OPT_LEASE, 160, out);
  g_assert_cmpmem (out, NBD_OPTION_BYTES, option, sizeof option);
  nbd_option_reply_encode (NBD_OPT_GO, NBD_REP_ERR_UNKNOWN, 258, out);
  g_assert_cmpmem (out, NBD_OPTION_REPLY_BYTES, reply, sizeof reply);
  nbd_request_encode (&zeroes, out);
  g_assert_cmpmem (out, NBD_REQUEST_BYTES, request, sizeof request);
  nbd_simple_encode (NBD_ENOSPC, zeroes.cookie, out);
  g_assert_cmpmem (out, NBD_SIMPLE_BYTES, simple, sizeof simple);
  nbd_chunk_encode (NBD_CHUNK_FLAG_DONE, NBD_CHUNK_ERROR, zeroes.cookie, 6, out);
  g_assert_cmpmem (out, NBD_CHUNK_BYTES, chunk, sizeof chunk);
}

/* Every bit of a header that is not the one of its kind makes it none. */
static void
test_magic (void) {
  const struct nbd_request empty = { 0 };
  uint8_t bytes[32];
  uint16_t a, b;
  uint32_t c, d, e;
  uint64_t f;
  unsigned bit;

  for (bit = 0; bit < 128; bit++) {
    struct nbd_request request;

    nbd_greeting_encode (NBD_FLAG_FIXED_NEWSTYLE, bytes);
    bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    g_assert_false (nbd_greeting_decode (bytes, &a));
    if (bit < 64) {
      nbd_option_encode (1, 2, bytes);
      bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
      g_assert_false (nbd_option_decode (bytes, &c, &d));
      nbd_option_reply_encode (1, 2, 3, bytes);
      bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
      g_assert_false (nbd_option_reply_decode (bytes, &c, &d, &e));
    }
    if (bit < 32) {
      nbd_request_encode (&empty, bytes);
      bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
      g_assert_false (nbd_request_decode (bytes, &request));
      nbd_simple_encode (1, 2, bytes);
      bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
      g_assert_false (nbd_simple_decode (bytes, &c, &f));
      nbd_chunk_encode (1, 2, 3, 4, bytes);
      bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
      g_assert_false (nbd_chunk_decode (bytes, &a, &b, &f, &c));
    }
  }
  nbd_greeting_encode (0, bytes); /* not of the fixed newstyle */
  g_assert_false (nbd_greeting_decode (bytes, &a));
}

static void
test_round_trips (void) {
  GRand *rand = testing_rand ();
  unsigned i;

  for (i = 0; i < testing_steps (20000); i++) {
    const struct nbd_request request = { (uint16_t)testing_edgy (rand), (uint16_t)testing_edgy (rand), testing_edgy (rand),
                                         testing_edgy (rand), (uint32_t)testing_edgy (rand) };
    struct nbd_request got;
    uint8_t bytes[32];
    uint16_t flags, type;
    uint32_t n, error;
    uint64_t cookie;

    nbd_request_encode (&request, bytes);
    g_assert_true (nbd_request_decode (bytes, &got));
    g_assert_true (got.flags == request.flags && got.command == request.command && got.cookie == request.cookie
                   && got.offset == request.offset && got.bytes == request.bytes);
    nbd_simple_encode (request.bytes, request.cookie, bytes);
    g_assert_true (nbd_simple_decode (bytes, &error, &cookie) && error == request.bytes && cookie == request.cookie);
    nbd_chunk_encode (request.flags, request.command, request.cookie, request.bytes, bytes);
    g_assert_true (nbd_chunk_decode (bytes, &flags, &type, &cookie, &n));
    g_assert_true (flags == request.flags && type == request.command && cookie == request.cookie && n == request.bytes);
  }
  g_rand_free (rand);
}

/* Options' data of any bytes, each in memory of exactly its size: what is returned lies within. */
static void
test_data (void) {
  GRand *rand = testing_rand ();
  unsigned i, good = 0;

  for (i = 0; i < testing_steps (100000); i++) {
    const size_t n = testing_below (rand, 48);
    g_autofree uint8_t *data = g_malloc (n ? n : 1);
    struct nbd_text name = { 0 }, queries[3] = { 0 };
    uint32_t count, k;
    size_t j;

    for (j = 0; j < n; j++)
      data[j] = testing_once_in (rand, 3)    ? (uint8_t)testing_below (rand, 8)
                : testing_once_in (rand, 50) ? (uint8_t)g_rand_int (rand)
                                             : 0;
    if (nbd_go_decode (data, n, &name)) {
      g_assert_true (name.bytes >= data && name.bytes + name.n + 2 <= data + n);
      good++;
    }
    if (nbd_meta_decode (data, n, &name, queries, G_N_ELEMENTS (queries), &count)) {
      g_assert_cmpuint (count, <=, G_N_ELEMENTS (queries));
      g_assert_true (name.bytes >= data && name.bytes + name.n + 4 <= data + n);
      for (k = 0; k < count; k++)
        g_assert_true (queries[k].bytes >= data && queries[k].bytes + queries[k].n <= data + n);
      good++;
    }
  }
  g_assert_cmpuint (good, >, testing_steps (100000) / 1000); /* not all of it is nonsense */
  g_rand_free (rand);
}

static void
test_names (void) {
  uint8_t data[NBD_NAME_BYTES_MAX + 16] = { 0 };
  struct nbd_text name, query;
  uint64_t size;
  uint32_t count;
  uint16_t flags;
  size_t n = nbd_go_encode ("lease-1.2.3", data);

  g_assert_true (nbd_go_decode (data, n, &name));
  g_assert_true (nbd_text_is (&name, "lease-1.2.3"));
  g_assert_false (nbd_text_is (&name, "lease-1.2."));
  g_assert_false (nbd_text_is (&name, "lease-1.2.34"));
  /* The longest name, and one more. */
  memset (data, 0, sizeof data);
  nbd_put32 (data, NBD_NAME_BYTES_MAX);
  g_assert_true (nbd_go_decode (data, 4 + NBD_NAME_BYTES_MAX + 2, &name));
  nbd_put32 (data, NBD_NAME_BYTES_MAX + 1);
  g_assert_false (nbd_go_decode (data, 4 + NBD_NAME_BYTES_MAX + 1 + 2, &name));
  /* More queries than are wanted are counted off, not returned. */
  memset (data, 0, sizeof data);
  nbd_put32 (data + 4, 1000);
  g_assert_true (nbd_meta_decode (data, 8 + 4 * 1000, &name, &query, 1, &count));
  g_assert_cmpuint (count, ==, 1);
  nbd_info_export_encode (UINT64_C (1) << 40, NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_TRIM, data);
  g_assert_true (nbd_info_export_decode (data, NBD_INFO_EXPORT_BYTES, &size, &flags));
  g_assert_cmpuint (size, ==, UINT64_C (1) << 40);
  g_assert_false (nbd_info_export_decode (data, NBD_INFO_EXPORT_BYTES - 1, &size, &flags));
  data[1] = NBD_INFO_NAME;
  g_assert_false (nbd_info_export_decode (data, NBD_INFO_EXPORT_BYTES, &size, &flags));
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/nbd/bytes", test_bytes);
  g_test_add_func ("/nbd/magic", test_magic);
  g_test_add_func ("/nbd/round-trips", test_round_trips);
  g_test_add_func ("/nbd/data", test_data);
  g_test_add_func ("/nbd/names", test_names);
  return g_test_run ();
}
