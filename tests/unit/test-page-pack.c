/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Pages of one value, and packed ones. */
#include "io/page-pack.h"
#include "testing.h"

#include <string.h>

#define PAGE FAR_PAGE_BYTES

/* What pages look like: random, sparse, text, pointers, runs. */
static void
make_page (GRand *rand, uint8_t *page) {
  switch (testing_below (rand, 6)) {
  case 0:
    for (unsigned i = 0; i < PAGE; i++)
      page[i] = (uint8_t)testing_below (rand, 256);
    break;
  case 1:
    memset (page, 0, PAGE);
    for (unsigned i = 0; i < 20; i++)
      page[testing_below (rand, PAGE)] = (uint8_t)testing_below (rand, 256);
    break;
  case 2:
    for (unsigned i = 0; i < PAGE; i++)
      page[i] = (uint8_t) "the quick brown fox jumps over lazy dogs"[testing_below (rand, 40)];
    break;
  case 3:
    for (unsigned i = 0; i < PAGE; i += 8) {
      const uint64_t pointer = 0x7f1200000000u + testing_below (rand, 1 << 20) * 16;

      memcpy (page + i, &pointer, 8);
    }
    break;
  case 4:
    for (unsigned i = 0; i < PAGE;) {
      const unsigned n = 1 + (unsigned)testing_below (rand, 200);

      memset (page + i, (int)testing_below (rand, 256), MIN (n, PAGE - i));
      i += n;
    }
    break;
  default: /* the first part random: about as long as is still worth it */
    memset (page, 7, PAGE);
    for (unsigned i = (unsigned)testing_below (rand, 60); i < PAGE_PACKED_BYTES_MAX; i++)
      page[i] = (uint8_t)testing_below (rand, 256);
  }
}

/* ---- one value ---- */

static void
test_same (void) {
  static const uint64_t values[] = { 0, 1, UINT64_MAX, 0x8000000000000000u, 0x0102030405060708u };
  uint8_t memory[PAGE + 64];

  for (unsigned i = 0; i < G_N_ELEMENTS (values); i++)
    for (unsigned odd = 0; odd < 9; odd++) { /* a guest's pages may be anywhere */
      uint8_t *const page = memory + odd;
      uint64_t value = ~values[i];

      memset (memory, 0x5a, sizeof memory);
      page_fill (page, values[i]);
      g_assert_cmpint (memory[odd + PAGE], ==, 0x5a);
      for (unsigned at = 0; at < PAGE; at += 8)
        g_assert_cmpint (memcmp (page + at, &values[i], 8), ==, 0);
      g_assert_true (page_is_same (page, &value));
      g_assert_cmpuint (value, ==, values[i]);
    }
}

/* A difference of one bit, anywhere. */
static void
test_almost_same (void) {
  g_autoptr (GRand) rand = testing_rand ();
  uint8_t page[PAGE];
  uint64_t value = 99;

  for (unsigned bit = 0; bit < PAGE * 8; bit++) {
    const uint64_t of = testing_edgy (rand);

    page_fill (page, of);
    page[bit / 8] ^= (uint8_t)(1u << bit % 8);
    g_assert_false (page_is_same (page, &value));
    g_assert_cmpuint (value, ==, 99);
  }
}

/* Against the plain way. */
static void
test_same_random (void) {
  g_autoptr (GRand) rand = testing_rand ();

  for (unsigned i = 0; i < testing_steps (20000); i++) {
    uint8_t page[PAGE];
    uint64_t value;
    gboolean same = TRUE;

    page_fill (page, testing_below (rand, 2));
    for (uint64_t n = testing_below (rand, 3); n > 0; n--)
      page[testing_below (rand, PAGE)] = (uint8_t)testing_below (rand, 2);
    for (unsigned at = 8; at < PAGE; at += 8)
      same = same && memcmp (page, page + at, 8) == 0;
    g_assert_cmpint (page_is_same (page, &value), ==, same);
    if (same)
      g_assert_cmpint (memcmp (page, &value, 8), ==, 0);
  }
}

/* ---- LZ4 ---- */

static void
test_round_trip (void) {
  g_autoptr (GRand) rand = testing_rand ();
  unsigned packed = 0, not_worth = 0;

  for (unsigned i = 0; i < testing_steps (20000); i++) {
    uint8_t page[PAGE + 1], out[PAGE + 1], back[PAGE + 2];
    unsigned bytes;

    make_page (rand, page + 1);
    memset (out, 0x5a, sizeof out);
    memset (back, 0x5b, sizeof back);
    bytes = page_pack (page + 1, out);
    g_assert_cmpuint (bytes, <=, PAGE_PACKED_BYTES_MAX);
    for (unsigned at = PAGE_PACKED_BYTES_MAX; at < sizeof out; at++)
      g_assert_cmpint (out[at], ==, 0x5a);
    if (bytes == 0) {
      not_worth++;
      continue;
    }
    packed++;
    g_assert_true (page_unpack (out, bytes, back + 1));
    g_assert_cmpmem (back + 1, PAGE, page + 1, PAGE);
    g_assert_cmpint (back[0], ==, 0x5b);
    g_assert_cmpint (back[PAGE + 1], ==, 0x5b);
  }
  g_test_message ("%u packed, %u not worth it", packed, not_worth);
  g_assert_cmpuint (packed, >, 0);
  g_assert_cmpuint (not_worth, >, 0);
}

/* A page packs to the same bytes whatever came before it. */
static void
test_no_history (void) {
  g_autoptr (GRand) rand = testing_rand ();

  for (unsigned i = 0; i < testing_steps (500); i++) {
    uint8_t page[PAGE], other[PAGE], first[PAGE], second[PAGE], out[PAGE];
    unsigned bytes;

    make_page (rand, page);
    make_page (rand, other);
    bytes = page_pack (page, first);
    page_pack (other, out);
    g_assert_cmpuint (page_pack (page, second), ==, bytes);
    g_assert_cmpmem (first, bytes, second, bytes);
  }
}

/* What was not packed here: refused, or some page, but nothing is read or written elsewhere. */
static void
test_garbage (void) {
  g_autoptr (GRand) rand = testing_rand ();
  unsigned refused = 0;

  for (unsigned i = 0; i < testing_steps (20000); i++) {
    uint8_t page[PAGE], packed[PAGE], back[PAGE + 2];
    unsigned bytes;

    make_page (rand, page);
    bytes = page_pack (page, packed);
    if (bytes == 0 || testing_once_in (rand, 3)) {
      bytes = (unsigned)testing_below (rand, PAGE);
      for (unsigned at = 0; at < bytes; at++)
        packed[at] = (uint8_t)testing_below (rand, 256);
    } else if (testing_once_in (rand, 2))
      bytes -= 1 + (unsigned)testing_below (rand, bytes);
    else
      for (uint64_t n = 1 + testing_below (rand, 4); n > 0; n--)
        packed[testing_below (rand, bytes)] ^= (uint8_t)(1u << testing_below (rand, 8));
    memset (back, 0x5b, sizeof back);
    if (!page_unpack (packed, bytes, back + 1)) {
      refused++;
      for (unsigned at = 0; at < PAGE; at++)
        g_assert_cmpint (back[at + 1], ==, 0);
    }
    g_assert_cmpint (back[0], ==, 0x5b);
    g_assert_cmpint (back[PAGE + 1], ==, 0x5b);
  }
  g_assert_cmpuint (refused, >, 0);
}

static void
test_wrong_lengths (void) {
  uint8_t page[PAGE] = { 0 }, packed[2 * PAGE], back[PAGE];
  const unsigned bytes = page_pack (page, packed);

  g_assert_cmpuint (bytes, >, 0);
  memset (packed + bytes, 0, sizeof packed - bytes);
  g_assert_false (page_unpack (packed, 0, back));
  g_assert_false (page_unpack (packed, bytes - 1, back));
  g_assert_false (page_unpack (packed, bytes + 1, back));
  g_assert_false (page_unpack (packed, PAGE, back));
  g_assert_false (page_unpack (packed, UINT32_MAX, back));
  g_assert_true (page_unpack (packed, bytes, back));
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/page-pack/same", test_same);
  g_test_add_func ("/page-pack/almost-same", test_almost_same);
  g_test_add_func ("/page-pack/same-random", test_same_random);
  g_test_add_func ("/page-pack/round-trip", test_round_trip);
  g_test_add_func ("/page-pack/no-history", test_no_history);
  g_test_add_func ("/page-pack/garbage", test_garbage);
  g_test_add_func ("/page-pack/wrong-lengths", test_wrong_lengths);
  return g_test_run ();
}
