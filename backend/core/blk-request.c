/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "core/blk-request.h"

#include <endian.h>
#include <string.h>

#include "core/far-store.h"

#define SECTORS_PER_PAGE (FAR_PAGE_BYTES / 512)

enum blk_type {
  TYPE_IN = 0,
  TYPE_OUT = 1,
  TYPE_FLUSH = 4,
  TYPE_GET_ID = 8,
  TYPE_DISCARD = 11,
  TYPE_WRITE_ZEROES = 13,
};

struct blk_header {
  uint32_t type, reserved;
  uint64_t sector;
};
_Static_assert(sizeof (struct blk_header) == 16, "");

struct blk_segment { /* of DISCARD and WRITE_ZEROES */
  uint64_t sector;
  uint32_t n_sectors, flags;
};
_Static_assert(sizeof (struct blk_segment) == 16, "");
#define SEGMENT_F_UNMAP 1u

/* Whether these sectors are whole pages of the disk. */
static bool
pages_of (const struct blk_disk *disk, uint64_t sector, uint64_t n_sectors, uint64_t *ret_first, uint64_t *ret_n) {
  const uint64_t first = sector / SECTORS_PER_PAGE, n = n_sectors / SECTORS_PER_PAGE;

  if (sector % SECTORS_PER_PAGE || n_sectors % SECTORS_PER_PAGE || first > disk->n_pages || n > disk->n_pages - first)
    return false;
  *ret_first = first;
  *ret_n = n;
  return true;
}

static enum blk_status
decode_data (const struct blk_disk *disk, uint64_t sector, size_t data_bytes, struct blk_request *request) {
  if (data_bytes % FAR_PAGE_BYTES || !pages_of (disk, sector, data_bytes / 512, &request->first, &request->n))
    return BLK_IOERR;
  return BLK_OK;
}

static enum blk_status
decode_ranges (const struct virtqueue_chain *chain, const struct blk_disk *disk, size_t bytes, struct blk_request *request) {
  struct blk_segment segments[BLK_RANGES_MAX];
  const uint32_t flags_known = request->operation == BLK_WRITE_ZEROES ? SEGMENT_F_UNMAP : 0;

  if (bytes == 0 || bytes % sizeof segments[0] || bytes > sizeof segments)
    return BLK_IOERR;
  (void)virtqueue_chain_read (chain, sizeof (struct blk_header), segments, bytes);
  request->n_ranges = (unsigned)(bytes / sizeof segments[0]);
  for (unsigned i = 0; i < request->n_ranges; i++) {
    const uint32_t n_sectors = le32toh (segments[i].n_sectors);
    struct blk_range *range = &request->ranges[i];

    if (le32toh (segments[i].flags) & ~flags_known)
      return BLK_UNSUPP;
    if (n_sectors > BLK_RANGE_PAGES_MAX * SECTORS_PER_PAGE
        || !pages_of (disk, le64toh (segments[i].sector), n_sectors, &range->first, &range->n))
      return BLK_IOERR;
  }
  return BLK_OK;
}

static bool
operation_of (uint32_t type, enum blk_operation *ret_operation) {
  switch (type) {
  case TYPE_IN:
    *ret_operation = BLK_READ;
    return true;
  case TYPE_OUT:
    *ret_operation = BLK_WRITE;
    return true;
  case TYPE_FLUSH:
    *ret_operation = BLK_FLUSH;
    return true;
  case TYPE_GET_ID:
    *ret_operation = BLK_GET_ID;
    return true;
  case TYPE_DISCARD:
    *ret_operation = BLK_DISCARD;
    return true;
  case TYPE_WRITE_ZEROES:
    *ret_operation = BLK_WRITE_ZEROES;
    return true;
  default:
    return false;
  }
}

/* out, in: bytes beside the header and the status. What a request does not need must not be there: so nobody has to think about
 * what it would mean. */
static enum blk_status
decode (const struct virtqueue_chain *chain, const struct blk_disk *disk, const struct blk_header *header,
        struct blk_request *request) {
  const size_t out = chain->out_bytes - sizeof *header, in = chain->in_bytes - 1;
  const uint64_t sector = le64toh (header->sector);

  if (!operation_of (le32toh (header->type), &request->operation))
    return BLK_UNSUPP;
  switch (request->operation) {
  case BLK_READ:
    return out ? BLK_IOERR : decode_data (disk, sector, in, request);
  case BLK_WRITE:
    request->data_offset = sizeof *header;
    return in || disk->read_only ? BLK_IOERR : decode_data (disk, sector, out, request);
  case BLK_GET_ID:
    return out || in != BLK_ID_BYTES ? BLK_IOERR : BLK_OK;
  case BLK_DISCARD:
  case BLK_WRITE_ZEROES:
    return in || disk->read_only ? BLK_IOERR : decode_ranges (chain, disk, out, request);
  default: /* BLK_FLUSH */
    return out || in ? BLK_IOERR : BLK_OK;
  }
}

enum blk_verdict
blk_request_decode (const struct virtqueue_chain *chain, const struct blk_disk *disk, struct blk_request *ret_request,
                    enum blk_status *ret_status, const char **ret_why) {
  struct blk_header header;
  enum blk_status status = BLK_IOERR;

  if (chain->in_bytes == 0) {
    *ret_why = "no room for the status of a request";
    return BLK_BROKEN;
  }
  ret_request->first = ret_request->n = 0;
  ret_request->data_offset = 0;
  ret_request->status_offset = chain->in_bytes - 1;
  ret_request->n_ranges = 0;
  if (virtqueue_chain_read (chain, 0, &header, sizeof header) == sizeof header)
    status = decode (chain, disk, &header, ret_request);
  if (status == BLK_OK)
    return BLK_GOOD;
  *ret_status = status;
  return BLK_REFUSE;
}

void
blk_request_answer (const struct virtqueue_chain *chain, const struct blk_request *request, enum blk_status status) {
  size_t offset = request->status_offset;

  for (unsigned i = chain->n_out; i < chain->n_out + chain->n_in; i++) {
    const struct iovec *piece = &chain->pieces[i];

    if (offset < piece->iov_len) {
      ((uint8_t *)piece->iov_base)[offset] = (uint8_t)status;
      return;
    }
    offset -= piece->iov_len;
  }
}

/* ---- configuration ---- */

uint64_t
blk_features (const struct blk_disk *disk) {
  const uint64_t always
      = 1ull << BLK_F_SEG_MAX | 1ull << BLK_F_BLK_SIZE | 1ull << BLK_F_FLUSH | 1ull << BLK_F_TOPOLOGY | 1ull << BLK_F_MQ;

  return always | (disk->read_only ? 1ull << BLK_F_RO : 1ull << BLK_F_DISCARD | 1ull << BLK_F_WRITE_ZEROES);
}

static void
put (uint8_t *out, unsigned bytes, uint64_t value) {
  for (unsigned i = 0; i < bytes; i++)
    out[i] = (uint8_t)(value >> 8 * i);
}

void
blk_config (const struct blk_disk *disk, unsigned n_queues, uint8_t out[BLK_CONFIG_BYTES]) {
  memset (out, 0, BLK_CONFIG_BYTES);
  put (out + 0, 8, disk->n_pages * SECTORS_PER_PAGE); /* capacity */
  /* As QEMU has it for queues of 128: a driver without indirect descriptors must get a whole request into the queue. */
  put (out + 12, 4, 126);                       /* seg_max */
  put (out + 20, 4, FAR_PAGE_BYTES);            /* blk_size */
  /* topology: min_io_size, in blk_size; no optimal one: Linux would read ahead twice that */
  put (out + 26, 2, 1);
  put (out + 34, 2, n_queues);                  /* num_queues */
  if (disk->read_only)
    return;
  put (out + 36, 4, BLK_RANGE_PAGES_MAX * SECTORS_PER_PAGE); /* max_discard_sectors */
  put (out + 40, 4, BLK_RANGES_MAX);                         /* max_discard_seg */
  put (out + 44, 4, SECTORS_PER_PAGE);                       /* discard_sector_alignment */
  put (out + 48, 4, BLK_RANGE_PAGES_MAX * SECTORS_PER_PAGE); /* max_write_zeroes_sectors */
  put (out + 52, 4, BLK_RANGES_MAX);                         /* max_write_zeroes_seg */
  out[56] = 1;                                               /* write_zeroes_may_unmap */
}

/* ---- pages in a chain ---- */

/* Moves on by so many bytes: to the piece that has the byte there. */
static void
advance (const struct virtqueue_chain *chain, struct blk_cursor *cursor, size_t bytes) {
  const unsigned n_pieces = chain->n_out + chain->n_in;

  cursor->offset += bytes;
  while (cursor->piece < n_pieces && cursor->offset >= chain->pieces[cursor->piece].iov_len) {
    cursor->offset -= chain->pieces[cursor->piece].iov_len;
    cursor->piece++;
  }
}

void
blk_cursor_begin (const struct virtqueue_chain *chain, const struct blk_request *request, struct blk_cursor *ret_cursor) {
  ret_cursor->piece = request->operation == BLK_READ ? chain->n_out : 0;
  ret_cursor->offset = 0;
  advance (chain, ret_cursor, request->data_offset);
}

uint8_t *
blk_cursor_next (const struct virtqueue_chain *chain, struct blk_cursor *cursor, struct blk_cursor *ret_was) {
  const struct blk_cursor was = *cursor;
  const struct iovec *piece = &chain->pieces[was.piece];

  *ret_was = was;
  advance (chain, cursor, FAR_PAGE_BYTES);
  if (was.piece >= chain->n_out + chain->n_in || piece->iov_len - was.offset < FAR_PAGE_BYTES)
    return NULL;
  return (uint8_t *)piece->iov_base + was.offset;
}

/* The bytes of a page, piece by piece: how many are next, and where; 0: no more. */
static size_t
next_bytes (const struct virtqueue_chain *chain, struct blk_cursor *at, size_t left, uint8_t **ret_bytes) {
  const struct iovec *piece = &chain->pieces[at->piece];
  size_t n;

  if (left == 0 || at->piece >= chain->n_out + chain->n_in)
    return 0;
  n = piece->iov_len - at->offset < left ? piece->iov_len - at->offset : left;
  *ret_bytes = (uint8_t *)piece->iov_base + at->offset;
  advance (chain, at, n);
  return n;
}

void
blk_page_read (const struct virtqueue_chain *chain, const struct blk_cursor *at, uint8_t page[FAR_PAGE_BYTES]) {
  struct blk_cursor cursor = *at;
  size_t done = 0, n;
  uint8_t *bytes;

  while ((n = next_bytes (chain, &cursor, FAR_PAGE_BYTES - done, &bytes)) > 0) {
    memcpy (page + done, bytes, n);
    done += n;
  }
}

void
blk_page_write (const struct virtqueue_chain *chain, const struct blk_cursor *at, const uint8_t page[FAR_PAGE_BYTES]) {
  struct blk_cursor cursor = *at;
  size_t done = 0, n;
  uint8_t *bytes;

  while ((n = next_bytes (chain, &cursor, FAR_PAGE_BYTES - done, &bytes)) > 0) {
    memcpy (bytes, page + done, n);
    done += n;
  }
}
