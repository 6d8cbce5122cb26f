/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Requests of a block device: each type, each mistake, cut into descriptors in any way. */
#include "core/blk-request.h"

#include <endian.h>
#include <string.h>

#include "testing.h"

enum { IN = 0, OUT = 1, FLUSH = 4, GET_ID = 8, DISCARD = 11, WRITE_ZEROES = 13 };

#define DISK_PAGES 1000u
#define OUT_MAX (16 + 64 * 4096u)
#define IN_MAX (64 * 4096u + 1)

static const struct blk_disk disk = { .n_pages = DISK_PAGES };
static const struct blk_disk read_only = { .n_pages = DISK_PAGES, .read_only = true };

/* What a driver offers: the bytes in a row, and the pieces that they are cut into, each with memory of its own. */
struct offer {
  uint8_t out[OUT_MAX];
  size_t out_bytes, in_bytes;
  struct virtqueue_chain chain;
  struct blk_request request;
  enum blk_status status;
  const char *why;
};

static void
offer_clear (struct offer *offer) {
  for (unsigned i = 0; i < offer->chain.n_out + offer->chain.n_in; i++)
    g_free (offer->chain.pieces[i].iov_base);
  memset (&offer->chain, 0, sizeof offer->chain);
}

static struct offer *
offer_new (uint32_t type, uint64_t sector) {
  struct offer *offer = g_new0 (struct offer, 1);
  const uint32_t type_le = htole32 (type);
  const uint64_t sector_le = htole64 (sector);

  memcpy (offer->out, &type_le, 4);
  memcpy (offer->out + 8, &sector_le, 8);
  offer->out_bytes = 16;
  offer->in_bytes = 1;
  return offer;
}

static void
offer_free (struct offer *offer) {
  offer_clear (offer);
  g_free (offer);
}

static void
add_range (struct offer *offer, uint64_t sector, uint32_t n_sectors, uint32_t flags) {
  const uint64_t sector_le = htole64 (sector);
  const uint32_t tail[2] = { htole32 (n_sectors), htole32 (flags) };

  memcpy (offer->out + offer->out_bytes, &sector_le, 8);
  memcpy (offer->out + offer->out_bytes + 8, tail, 8);
  offer->out_bytes += 16;
}

/* Cuts `bytes` into up to `most` pieces. rand NULL: one piece. */
static unsigned
cut (struct offer *offer, size_t bytes, unsigned most, const uint8_t *content, GRand *rand) {
  struct iovec *pieces = offer->chain.pieces + offer->chain.n_out;
  unsigned n = 0;

  for (size_t at = 0; at < bytes; n++) {
    size_t length = bytes - at;

    if (rand && n + 1 < most) {
      const size_t longest = testing_once_in (rand, 2) ? 20 : 4096;

      length = testing_once_in (rand, 4) ? MIN (length, 4096) : 1 + testing_below (rand, MIN (length, longest));
    }
    pieces[n] = (struct iovec){ g_malloc (length), length };
    if (content)
      memcpy (pieces[n].iov_base, content + at, length);
    else
      memset (pieces[n].iov_base, 0xee, length);
    at += length;
  }
  return n;
}

static enum blk_verdict
decode_cut (struct offer *offer, const struct blk_disk *of, GRand *rand) {
  enum blk_verdict verdict;

  offer_clear (offer);
  offer->chain.n_out = cut (offer, offer->out_bytes, 129, offer->out, rand);
  offer->chain.n_in = cut (offer, offer->in_bytes, 129, NULL, rand);
  offer->chain.out_bytes = offer->out_bytes;
  offer->chain.in_bytes = offer->in_bytes;
  memset (&offer->request, 0xcc, sizeof offer->request);
  offer->status = BLK_OK;
  offer->why = NULL;
  verdict = blk_request_decode (&offer->chain, of, &offer->request, &offer->status, &offer->why);
  if (verdict == BLK_BROKEN)
    g_assert_nonnull (offer->why);
  else
    g_assert_cmpuint (offer->request.status_offset, ==, offer->in_bytes - 1);
  if (verdict == BLK_REFUSE)
    g_assert_true (offer->status == BLK_IOERR || offer->status == BLK_UNSUPP);
  return verdict;
}

static void
good (struct offer *offer, const struct blk_disk *of, enum blk_operation operation) {
  g_assert_cmpint (decode_cut (offer, of, NULL), ==, BLK_GOOD);
  g_assert_cmpint (offer->request.operation, ==, operation);
}

static void
refused (struct offer *offer, const struct blk_disk *of, enum blk_status status) {
  g_assert_cmpint (decode_cut (offer, of, NULL), ==, BLK_REFUSE);
  g_assert_cmpint (offer->status, ==, status);
}

static void
test_read (void) {
  struct offer *offer = offer_new (IN, 8 * 990);

  offer->in_bytes = 4096 * 10 + 1;
  good (offer, &disk, BLK_READ);
  g_assert_cmpuint (offer->request.first, ==, 990);
  g_assert_cmpuint (offer->request.n, ==, 10);
  good (offer, &read_only, BLK_READ);
  offer->in_bytes = 4096 * 11 + 1;
  refused (offer, &disk, BLK_IOERR); /* behind the end */
  offer->in_bytes = 4096 * 10;
  refused (offer, &disk, BLK_IOERR);
  offer->in_bytes = 512 + 1;
  refused (offer, &disk, BLK_IOERR);
  offer->in_bytes = 1;
  good (offer, &disk, BLK_READ); /* of nothing */
  g_assert_cmpuint (offer->request.n, ==, 0);
  offer->in_bytes = 4096 + 1;
  offer->out_bytes = 17;
  refused (offer, &disk, BLK_IOERR);
  offer_free (offer);
}

static void
test_write (void) {
  struct offer *offer = offer_new (OUT, 8);

  offer->out_bytes = 16 + 2 * 4096;
  good (offer, &disk, BLK_WRITE);
  g_assert_cmpuint (offer->request.first, ==, 1);
  g_assert_cmpuint (offer->request.n, ==, 2);
  g_assert_cmpuint (offer->request.data_offset, ==, 16);
  refused (offer, &read_only, BLK_IOERR);
  offer->out_bytes++;
  refused (offer, &disk, BLK_IOERR);
  offer->out_bytes--;
  offer->in_bytes = 2;
  refused (offer, &disk, BLK_IOERR);
  offer_free (offer);
}

static void
test_sectors (void) {
  static const uint64_t bad[] = { 1, 7, 8 * 1000, 8 * 1001, UINT64_MAX, UINT64_MAX - 7, 1ull << 63, UINT64_MAX / 512,
                                  UINT64_MAX / 512 + 1, 1ull << 55 };

  for (unsigned i = 0; i < G_N_ELEMENTS (bad); i++) {
    struct offer *offer = offer_new (i % 2 ? IN : OUT, bad[i]);

    if (i % 2)
      offer->in_bytes = 4096 + 1;
    else
      offer->out_bytes = 16 + 4096;
    refused (offer, &disk, BLK_IOERR);
    offer_free (offer);
  }
}

static void
test_others (void) {
  struct offer *offer = offer_new (FLUSH, 0);

  good (offer, &disk, BLK_FLUSH);
  good (offer, &read_only, BLK_FLUSH);
  offer->out_bytes = 20;
  refused (offer, &disk, BLK_IOERR);
  offer_free (offer);
  offer = offer_new (GET_ID, 0);
  offer->in_bytes = BLK_ID_BYTES + 1;
  good (offer, &disk, BLK_GET_ID);
  offer->in_bytes = BLK_ID_BYTES;
  refused (offer, &disk, BLK_IOERR);
  offer->in_bytes = 4097;
  refused (offer, &disk, BLK_IOERR);
  offer_free (offer);
  for (uint32_t type = 0; type < 40; type++) {
    const bool known = type <= OUT || type == FLUSH || type == GET_ID || type == DISCARD || type == WRITE_ZEROES;

    offer = offer_new (type, 0);
    if (!known)
      refused (offer, &disk, BLK_UNSUPP);
    offer_free (offer);
  }
  offer = offer_new (0x80000000u | OUT, 0); /* once a barrier */
  refused (offer, &disk, BLK_UNSUPP);
  offer_free (offer);
}

static void
test_ranges (void) {
  for (unsigned zeroes = 0; zeroes < 2; zeroes++) {
    struct offer *offer = offer_new (zeroes ? WRITE_ZEROES : DISCARD, 77 /* ignored */);

    refused (offer, &disk, BLK_IOERR); /* no range */
    add_range (offer, 8 * 999, 8, 0);
    add_range (offer, 0, 8 * 1000, 0);
    add_range (offer, 8 * 1000, 0, 0);
    good (offer, &disk, zeroes ? BLK_WRITE_ZEROES : BLK_DISCARD);
    g_assert_cmpuint (offer->request.n_ranges, ==, 3);
    g_assert_cmpuint (offer->request.ranges[0].first, ==, 999);
    g_assert_cmpuint (offer->request.ranges[0].n, ==, 1);
    g_assert_cmpuint (offer->request.ranges[1].first, ==, 0);
    g_assert_cmpuint (offer->request.ranges[1].n, ==, 1000);
    g_assert_cmpuint (offer->request.ranges[2].n, ==, 0);
    refused (offer, &read_only, BLK_IOERR);
    offer->in_bytes = 5;
    refused (offer, &disk, BLK_IOERR);
    offer->in_bytes = 1;
    offer->out_bytes -= 4;
    refused (offer, &disk, BLK_IOERR);
    offer->out_bytes = 16;
    for (unsigned i = 0; i < BLK_RANGES_MAX; i++)
      add_range (offer, 8 * i, 8, 0);
    good (offer, &disk, zeroes ? BLK_WRITE_ZEROES : BLK_DISCARD);
    g_assert_cmpuint (offer->request.n_ranges, ==, BLK_RANGES_MAX);
    add_range (offer, 0, 8, 0);
    refused (offer, &disk, BLK_IOERR);
    offer_free (offer);
  }
}

static void
test_bad_ranges (void) {
  static const struct {
    uint64_t sector;
    uint32_t n_sectors, flags;
    enum blk_status discard, zeroes;
  } ranges[] = {
    { 0, 8, 1, BLK_UNSUPP, BLK_OK }, /* unmap */
    { 0, 8, 2, BLK_UNSUPP, BLK_UNSUPP },
    { 0, 8, 0x80000000u, BLK_UNSUPP, BLK_UNSUPP },
    { 0, 4, 0, BLK_IOERR, BLK_IOERR },
    { 4, 8, 0, BLK_IOERR, BLK_IOERR },
    { 8 * 1000, 8, 0, BLK_IOERR, BLK_IOERR },
    { 8, 8 * 1000, 0, BLK_IOERR, BLK_IOERR },
    { UINT64_MAX - 7, 8, 0, BLK_IOERR, BLK_IOERR },
    { UINT64_MAX - 7, 16, 0, BLK_IOERR, BLK_IOERR },
    { 0, UINT32_MAX - 7, 0, BLK_IOERR, BLK_IOERR },
  };

  for (unsigned i = 0; i < G_N_ELEMENTS (ranges); i++)
    for (unsigned zeroes = 0; zeroes < 2; zeroes++) {
      struct offer *offer = offer_new (zeroes ? WRITE_ZEROES : DISCARD, 0);
      const enum blk_status status = zeroes ? ranges[i].zeroes : ranges[i].discard;

      add_range (offer, 0, 8, 0);
      add_range (offer, ranges[i].sector, ranges[i].n_sectors, ranges[i].flags);
      if (status == BLK_OK)
        good (offer, &disk, BLK_WRITE_ZEROES);
      else
        refused (offer, &disk, status);
      offer_free (offer);
    }
}

static void
test_large_range (void) {
  const struct blk_disk large = { .n_pages = 1ull << 32 };
  struct offer *offer = offer_new (DISCARD, 0);

  add_range (offer, (large.n_pages - BLK_RANGE_PAGES_MAX) * 8, BLK_RANGE_PAGES_MAX * 8, 0);
  good (offer, &large, BLK_DISCARD);
  g_assert_cmpuint (offer->request.ranges[0].first + offer->request.ranges[0].n, ==, 1ull << 32);
  add_range (offer, 0, (BLK_RANGE_PAGES_MAX + 1) * 8, 0);
  refused (offer, &large, BLK_IOERR);
  offer_free (offer);
}

static void
test_short_chains (void) {
  struct offer *offer = offer_new (IN, 0);

  for (offer->out_bytes = 0; offer->out_bytes < 16; offer->out_bytes++)
    refused (offer, &disk, BLK_IOERR);
  offer->in_bytes = 0;
  for (offer->out_bytes = 0; offer->out_bytes < 20; offer->out_bytes++)
    g_assert_cmpint (decode_cut (offer, &disk, NULL), ==, BLK_BROKEN);
  offer_free (offer);
}

/* The chain's writable bytes in a row. */
static uint8_t *
in_bytes (const struct offer *offer) {
  uint8_t *bytes = g_malloc (offer->in_bytes);
  size_t at = 0;

  for (unsigned i = offer->chain.n_out; i < offer->chain.n_out + offer->chain.n_in; i++) {
    memcpy (bytes + at, offer->chain.pieces[i].iov_base, offer->chain.pieces[i].iov_len);
    at += offer->chain.pieces[i].iov_len;
  }
  g_assert_cmpuint (at, ==, offer->in_bytes);
  return bytes;
}

static void
check_write (struct offer *offer) {
  struct blk_cursor cursor, was;

  blk_cursor_begin (&offer->chain, &offer->request, &cursor);
  for (uint64_t i = 0; i < offer->request.n; i++) {
    const uint8_t *page = blk_cursor_next (&offer->chain, &cursor, &was);
    uint8_t copy[4096];

    blk_page_read (&offer->chain, &was, copy);
    g_assert_cmpmem (copy, 4096, offer->out + 16 + i * 4096, 4096);
    if (page)
      g_assert_cmpmem (page, 4096, offer->out + 16 + i * 4096, 4096);
  }
}

static void
check_read (struct offer *offer, GRand *rand) {
  const size_t n = offer->in_bytes - 1;
  g_autofree uint8_t *expected = g_malloc (offer->in_bytes), *found = NULL;
  struct blk_cursor cursor, was;

  for (size_t i = 0; i < n; i++)
    expected[i] = (uint8_t)g_rand_int (rand);
  expected[n] = BLK_OK;
  blk_cursor_begin (&offer->chain, &offer->request, &cursor);
  for (uint64_t i = 0; i < offer->request.n; i++) {
    uint8_t *page = blk_cursor_next (&offer->chain, &cursor, &was);

    if (page)
      memcpy (page, expected + i * 4096, 4096);
    else
      blk_page_write (&offer->chain, &was, expected + i * 4096);
  }
  blk_request_answer (&offer->chain, &offer->request, BLK_OK);
  found = in_bytes (offer);
  g_assert_cmpmem (found, offer->in_bytes, expected, offer->in_bytes);
}

/* However it is cut, it says the same. */
static void
test_cuts (void) {
  GRand *rand = testing_rand ();

  for (unsigned i = 0; i < testing_steps (1500); i++) {
    const bool write = testing_once_in (rand, 2);
    const uint64_t n = testing_below (rand, 9), first = testing_below (rand, DISK_PAGES - n + 1);
    struct offer *offer = offer_new (write ? OUT : IN, first * 8);

    if (write) {
      offer->out_bytes = 16 + n * 4096;
      for (size_t k = 16; k < offer->out_bytes; k++)
        offer->out[k] = (uint8_t)g_rand_int (rand);
    } else {
      offer->in_bytes = n * 4096 + 1;
    }
    g_assert_cmpint (decode_cut (offer, &disk, rand), ==, BLK_GOOD);
    g_assert_cmpint (offer->request.operation, ==, write ? BLK_WRITE : BLK_READ);
    g_assert_cmpuint (offer->request.first, ==, first);
    g_assert_cmpuint (offer->request.n, ==, n);
    if (write)
      check_write (offer);
    else
      check_read (offer, rand);
    offer_free (offer);
  }
  g_rand_free (rand);
}

static void
test_whole_pages (void) {
  struct offer *offer = offer_new (IN, 0);
  struct blk_cursor cursor, was;

  offer->in_bytes = 4096 * 3 + 1;
  good (offer, &disk, BLK_READ);
  blk_cursor_begin (&offer->chain, &offer->request, &cursor);
  for (unsigned i = 0; i < 3; i++)
    g_assert_true (blk_cursor_next (&offer->chain, &cursor, &was) == (uint8_t *)offer->chain.pieces[1].iov_base + i * 4096);
  g_assert_null (blk_cursor_next (&offer->chain, &cursor, &was)); /* the status alone: no page */
  g_assert_null (blk_cursor_next (&offer->chain, &cursor, &was));
  offer_free (offer);
}

static void
test_answers (void) {
  GRand *rand = testing_rand ();

  for (unsigned i = 0; i < 200; i++) {
    struct offer *offer = offer_new (i % 2 ? 99 : FLUSH, 0);
    g_autofree uint8_t *found = NULL;

    offer->in_bytes = i % 2 ? 1 + testing_below (rand, 5000) : 1;
    (void)decode_cut (offer, &disk, rand);
    blk_request_answer (&offer->chain, &offer->request, i % 2 ? BLK_UNSUPP : BLK_OK);
    found = in_bytes (offer);
    for (size_t k = 0; k < offer->in_bytes; k++)
      g_assert_cmpuint (found[k], ==, k + 1 < offer->in_bytes ? 0xee : i % 2 ? BLK_UNSUPP : BLK_OK);
    offer_free (offer);
  }
  g_rand_free (rand);
}

static uint64_t
config_field (const uint8_t *config, unsigned at, unsigned bytes) {
  uint64_t value = 0;

  for (unsigned i = 0; i < bytes; i++)
    value |= (uint64_t)config[at + i] << 8 * i;
  return value;
}

/* VIRTIO 1.2, 5.2.4. */
static void
test_config (void) {
  const struct blk_disk large = { .n_pages = 1ull << 32 };
  uint8_t config[BLK_CONFIG_BYTES];

  blk_config (&large, 5, config);
  g_assert_cmpuint (config_field (config, 0, 8), ==, 1ull << 35);
  g_assert_cmpuint (config_field (config, 8, 4), ==, 0);
  g_assert_cmpuint (config_field (config, 12, 4), ==, 126);
  g_assert_cmpuint (config_field (config, 20, 4), ==, 4096);
  g_assert_cmpuint (config_field (config, 34, 2), ==, 5);
  g_assert_cmpuint (config_field (config, 36, 4), ==, BLK_RANGE_PAGES_MAX * 8);
  g_assert_cmpuint (config_field (config, 40, 4), ==, BLK_RANGES_MAX);
  g_assert_cmpuint (config_field (config, 44, 4), ==, 8);
  g_assert_cmpuint (config_field (config, 48, 4), ==, BLK_RANGE_PAGES_MAX * 8);
  g_assert_cmpuint (config_field (config, 52, 4), ==, BLK_RANGES_MAX);
  g_assert_cmpuint (config[56], ==, 1);
  blk_config (&read_only, 1, config);
  g_assert_cmpuint (config_field (config, 0, 8), ==, 8000);
  g_assert_cmpuint (config_field (config, 36, 8), ==, 0);
  g_assert_cmphex (blk_features (&large), ==, 1 << 2 | 1 << 6 | 1 << 9 | 1 << 10 | 1 << 12 | 1 << 13 | 1 << 14);
  g_assert_cmphex (blk_features (&read_only), ==, 1 << 2 | 1 << 5 | 1 << 6 | 1 << 9 | 1 << 10 | 1 << 12);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/blk-request/READ", test_read);
  g_test_add_func ("/blk-request/WRITE", test_write);
  g_test_add_func ("/blk-request/sectors that are not the disk's", test_sectors);
  g_test_add_func ("/blk-request/FLUSH, GET_ID, and what there is not", test_others);
  g_test_add_func ("/blk-request/DISCARD and WRITE_ZEROES", test_ranges);
  g_test_add_func ("/blk-request/ranges that are none", test_bad_ranges);
  g_test_add_func ("/blk-request/the largest range", test_large_range);
  g_test_add_func ("/blk-request/chains that are too short", test_short_chains);
  g_test_add_func ("/blk-request/a request cut in any way", test_cuts);
  g_test_add_func ("/blk-request/pages in one piece are not copied", test_whole_pages);
  g_test_add_func ("/blk-request/the status is the last byte", test_answers);
  g_test_add_func ("/blk-request/configuration and features", test_config);
  return g_test_run ();
}
