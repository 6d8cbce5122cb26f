/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Requests of a virtio block device (VIRTIO 1.2, 5.2): the bytes that a guest wrote in, one checked request out. All that a
 * guest can get wrong about one request is refused here.
 *
 * The disk has sectors of 4 KiB (blk_size), though requests count in 512 bytes, as VIRTIO says; what is not aligned to 4 KiB is
 * refused. Pure.
 */
#ifndef DOMYBS_CORE_BLK_REQUEST_H
#define DOMYBS_CORE_BLK_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/virtqueue.h"

enum blk_feature { /* bit numbers */
  BLK_F_SEG_MAX = 2,
  BLK_F_RO = 5,
  BLK_F_BLK_SIZE = 6,
  BLK_F_FLUSH = 9,
  BLK_F_TOPOLOGY = 10,
  BLK_F_MQ = 12,
  BLK_F_DISCARD = 13,
  BLK_F_WRITE_ZEROES = 14,
};

#define BLK_ID_BYTES 20u
#define BLK_RANGES_MAX 64u /* of one DISCARD or WRITE_ZEROES: max_discard_seg */
#define BLK_RANGE_PAGES_MAX (1u << 18) /* 1 GiB: max_discard_sectors, so that one request does not hold up the others */
#define BLK_CONFIG_BYTES 60u

enum blk_status { BLK_OK = 0, BLK_IOERR = 1, BLK_UNSUPP = 2 };

enum blk_operation { BLK_READ, BLK_WRITE, BLK_FLUSH, BLK_GET_ID, BLK_DISCARD, BLK_WRITE_ZEROES };

struct blk_range {
  uint64_t first; /* page */
  uint64_t n;
};

struct blk_request {
  enum blk_operation operation;
  uint64_t first, n;   /* READ, WRITE: pages; n may be 0 */
  size_t data_offset;  /* READ: always 0, into the writable bytes; WRITE: into the readable ones, behind the header */
  size_t status_offset; /* of the status byte in the writable bytes: always the last one */
  unsigned n_ranges;   /* DISCARD, WRITE_ZEROES */
  struct blk_range ranges[BLK_RANGES_MAX];
};

struct blk_disk {
  uint64_t n_pages;
  bool read_only;
};

enum blk_verdict {
  BLK_GOOD = 0,   /* carry it out */
  BLK_REFUSE = 1, /* answer *ret_status */
  BLK_BROKEN = 2, /* there is no room for a status: the queue is to be broken, *ret_why says why */
};

/* Copies what it needs out of the chain once, then checks the copy. In BLK_REFUSE, too, ret_request->status_offset is set. */
enum blk_verdict blk_request_decode (const struct virtqueue_chain *chain, const struct blk_disk *disk,
                                     struct blk_request *ret_request, enum blk_status *ret_status, const char **ret_why);

/* Writes the status byte where the request says. */
void blk_request_answer (const struct virtqueue_chain *chain, const struct blk_request *request, enum blk_status status);

/* Config space. */
void blk_config (const struct blk_disk *disk, unsigned n_queues, uint8_t out[BLK_CONFIG_BYTES]);

/* Features to offer. */
uint64_t blk_features (const struct blk_disk *disk);

/* Goes through the pages of a READ or WRITE in order. */
struct blk_cursor {
  unsigned piece;
  size_t offset; /* in that piece */
};
void blk_cursor_begin (const struct virtqueue_chain *chain, const struct blk_request *request, struct blk_cursor *ret_cursor);
/* The next page: where it is in one piece, or NULL. The cursor moves on in both cases; *ret_was: where this page began. */
uint8_t *blk_cursor_next (const struct virtqueue_chain *chain, struct blk_cursor *cursor, struct blk_cursor *ret_was);
/* For a page in several pieces. */
void blk_page_read (const struct virtqueue_chain *chain, const struct blk_cursor *at, uint8_t page[4096]);
void blk_page_write (const struct virtqueue_chain *chain, const struct blk_cursor *at, const uint8_t page[4096]);

#endif
