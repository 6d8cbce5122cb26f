/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Any bytes in a chain that is cut in any way: what comes out of it lies on the disk, and all that is touched lies in the
 * chain. */
#include "fuzz-blk.h"

#include <glib.h>

#include "core/blk-request.h"
#include "core/far-store.h"
#include "fuzz.h"

#define PIECES_MAX (VIRTQUEUE_PIECES_MAX / 2)

/* Pieces of exactly their size, so that a sanitizer sees each byte too much. */
static unsigned
cut (struct iovec *pieces, size_t bytes, uint8_t how, struct input *content) {
  size_t length = how ? how : bytes;
  unsigned n = 0;

  for (size_t at = 0; at < bytes; n++) {
    const size_t this = n + 1 < PIECES_MAX ? MIN (length, bytes - at) : bytes - at;

    pieces[n] = (struct iovec){ g_malloc (this), this };
    if (content)
      input_bytes (content, pieces[n].iov_base, this);
    else
      memset (pieces[n].iov_base, 0xee, this);
    at += this;
    length = length > 8192 ? how : length * 2;
  }
  return n;
}

static void
check_range (const struct blk_disk *disk, uint64_t first, uint64_t n) {
  g_assert_cmpuint (first, <=, disk->n_pages);
  g_assert_cmpuint (n, <=, disk->n_pages - first);
}

/* Carries out READ and WRITE as a device does. */
static void
carry_out (const struct virtqueue_chain *chain, const struct blk_request *request) {
  uint8_t page[FAR_PAGE_BYTES] = { 0 };
  struct blk_cursor cursor, was;

  blk_cursor_begin (chain, request, &cursor);
  for (uint64_t i = 0; i < request->n; i++) {
    uint8_t *whole = blk_cursor_next (chain, &cursor, &was);

    if (request->operation == BLK_WRITE) {
      blk_page_read (chain, &was, page);
      if (whole)
        g_assert_cmpmem (whole, FAR_PAGE_BYTES, page, FAR_PAGE_BYTES);
    } else if (whole) {
      memset (whole, 0x5a, FAR_PAGE_BYTES);
    } else {
      memset (page, 0x5a, FAR_PAGE_BYTES);
      blk_page_write (chain, &was, page);
    }
  }
}

/* All writable bytes are the answer to a READ; else only the last one was written to. */
static void
check_written (const struct virtqueue_chain *chain, uint8_t expected, enum blk_status status) {
  size_t left = chain->in_bytes;

  for (unsigned i = chain->n_out; i < chain->n_out + chain->n_in; i++)
    for (size_t k = 0; k < chain->pieces[i].iov_len; k++, left--)
      g_assert_cmpuint (((uint8_t *)chain->pieces[i].iov_base)[k], ==, left == 1 ? (uint8_t)status : expected);
}

static void
check_good (const struct virtqueue_chain *chain, const struct blk_disk *disk, const struct blk_request *request) {
  const bool discards = request->operation == BLK_DISCARD || request->operation == BLK_WRITE_ZEROES;

  g_assert_false ((discards || request->operation == BLK_WRITE) && disk->read_only);
  switch (request->operation) {
  case BLK_READ:
    g_assert_cmpuint (request->n * FAR_PAGE_BYTES + 1, ==, chain->in_bytes);
    break;
  case BLK_WRITE:
    g_assert_cmpuint (request->n * FAR_PAGE_BYTES + request->data_offset, ==, chain->out_bytes);
    break;
  case BLK_GET_ID:
    g_assert_cmpuint (chain->in_bytes, ==, BLK_ID_BYTES + 1);
    break;
  default:
    break;
  }
  check_range (disk, request->first, request->n);
  g_assert_cmpuint (request->n_ranges, <=, BLK_RANGES_MAX);
  for (unsigned i = 0; i < request->n_ranges; i++) {
    check_range (disk, request->ranges[i].first, request->ranges[i].n);
    g_assert_cmpuint (request->ranges[i].n, <=, BLK_RANGE_PAGES_MAX);
  }
  if (request->operation == BLK_READ || request->operation == BLK_WRITE)
    carry_out (chain, request);
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size) {
  struct input input = { data, size };
  const uint8_t options = input_8 (&input);
  const uint32_t n_pages = (uint32_t)input_16 (&input) | (uint32_t)input_16 (&input) << 16;
  const struct blk_disk disk = { .n_pages = options & FUZZ_BLK_LARGE ? (uint64_t)n_pages << 12 : n_pages,
                                 .read_only = options & FUZZ_BLK_READ_ONLY };
  struct virtqueue_chain *chain = g_new0 (struct virtqueue_chain, 1);
  struct blk_request *request = g_new (struct blk_request, 1);
  enum blk_status status = BLK_OK;
  enum blk_verdict verdict;
  const char *why = NULL;
  uint8_t how;

  chain->out_bytes = input_16 (&input);
  chain->in_bytes = input_16 (&input);
  how = input_8 (&input);
  chain->n_out = cut (chain->pieces, chain->out_bytes, how, &input);
  chain->n_in = cut (chain->pieces + chain->n_out, chain->in_bytes, how, NULL);
  verdict = blk_request_decode (chain, &disk, request, &status, &why);
  g_assert_cmpint (verdict == BLK_BROKEN, ==, chain->in_bytes == 0);
  if (verdict == BLK_BROKEN)
    g_assert_nonnull (why);
  else {
    g_assert_cmpuint (request->status_offset, ==, chain->in_bytes - 1);
    if (verdict == BLK_GOOD)
      check_good (chain, &disk, request);
    else
      g_assert_true (status == BLK_IOERR || status == BLK_UNSUPP);
    blk_request_answer (chain, request, status);
    check_written (chain, verdict == BLK_GOOD && request->operation == BLK_READ ? 0x5a : 0xee, status);
  }
  for (unsigned i = 0; i < chain->n_out + chain->n_in; i++)
    g_free (chain->pieces[i].iov_base);
  g_free (chain);
  g_free (request);
  return 0;
}
