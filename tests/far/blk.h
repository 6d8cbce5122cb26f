/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A vhost-user-blk front-end for tests: QEMU's vhost-user-blk-pci and the guest's virtio_blk in one process, on the socket,
 * memory and rings of tests/frontend. Several queues, requests in any shape of chain, and the inflight region kept over
 * connections: after blk_disconnect, or the back-end's end, blk_connect goes on as QEMU does, and requests without an answer
 * get one.
 *
 * Calls return false on failure; blk->fe->why says what happened. Not thread-safe.
 */
#ifndef DOMYBS_TESTS_FAR_BLK_H
#define DOMYBS_TESTS_FAR_BLK_H

#include "frontend.h"

#define BLK_PAGE 4096u
#define BLK_SLOTS 32u      /* requests in flight at most, over all queues */
#define BLK_SLOT_PAGES 64u /* of data in one */
#define BLK_QUEUES_MAX 16u
#define BLK_QUEUE_SIZE 1024u
#define BLK_CONFIG_MAX 256u

/* Written down once more on purpose: the tests must not inherit the back-end's typos. */
enum { BLK_GET_INFLIGHT_FD = 31, BLK_SET_INFLIGHT_FD = 32 };
enum blk_type { BLK_IN = 0, BLK_OUT = 1, BLK_T_FLUSH = 4, BLK_T_GET_ID = 8, BLK_T_DISCARD = 11, BLK_T_WRITE_ZEROES = 13 };
enum { BLK_S_OK = 0, BLK_S_IOERR = 1, BLK_S_UNSUPP = 2, BLK_S_NONE = 0xee /* none was written */ };

#define BLK_BIT_SEG_MAX (1ull << 2)
#define BLK_BIT_BLK_SIZE (1ull << 6)
#define BLK_BIT_FLUSH (1ull << 9)
#define BLK_BIT_TOPOLOGY (1ull << 10)
#define BLK_BIT_MQ (1ull << 12)
#define BLK_BIT_DISCARD (1ull << 13)
#define BLK_BIT_WRITE_ZEROES (1ull << 14)
/* MQ, REPLY_ACK, BACKEND_REQ, CONFIG, INFLIGHT_SHMFD: what QEMU asks a disk for */
#define BLK_PROTOCOL_WANTED ((1ull << 0) | (1ull << 3) | (1ull << 5) | (1ull << 9) | (1ull << 12))

struct blk_config_space { /* as the driver reads it */
  uint64_t capacity;      /* in 512 bytes */
  uint32_t size_max, seg_max;
  uint16_t cylinders;
  uint8_t heads, sectors;
  uint32_t blk_size;
  uint8_t physical_block_exp, alignment_offset;
  uint16_t min_io_size;
  uint32_t opt_io_size;
  uint8_t wce, unused;
  uint16_t num_queues;
  uint32_t max_discard_sectors, max_discard_seg, discard_sector_alignment;
  uint32_t max_write_zeroes_sectors, max_write_zeroes_seg;
  uint8_t write_zeroes_may_unmap, unused1[3];
} __attribute__ ((packed));

struct blk_range_wire {
  uint64_t sector; /* of 512 bytes */
  uint32_t sectors, flags;
} __attribute__ ((packed));

struct blk_slot {
  bool in_flight;
  enum blk_type type;
  uint64_t first; /* page */
  unsigned n;     /* pages */
  unsigned queue;
  uint16_t head;
  uint64_t data_gpa, status_gpa;
};

struct blk_inflight_wire {
  uint64_t bytes, offset;
  uint16_t n_queues, queue_size;
  uint32_t padding;
};

struct blk {
  struct fe *fe;
  unsigned n_queues; /* set before the first blk_connect; 0: all that the device has */
  struct fe_queue queues[BLK_QUEUES_MAX];
  uint16_t kicked[BLK_QUEUES_MAX]; /* available index at the last blk_kick */
  struct blk_config_space config;
  struct blk_slot slots[BLK_SLOTS];
  unsigned n_in_flight;
  unsigned reconnects;
  bool keep_inflight; /* QEMU's way, the default; false: a new region with each connection, as for another VM */

  int inflight_fd; /* -1: not asked for yet */
  struct blk_inflight_wire inflight;
};
typedef struct blk blk_t;

struct blk *blk_new (void);
void blk_free (struct blk *blk);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (blk_t, blk_free)

/* From connect to running queues. After a connection that was lost: rings stay, positions are the used index's. */
bool blk_connect (struct blk *blk, const char *path);
/* The steps of it. */
bool blk_negotiate (struct blk *blk, const char *path);
bool blk_get_config (struct blk *blk, void *config, uint32_t bytes);
bool blk_get_inflight (struct blk *blk);
bool blk_set_inflight (struct blk *blk, const struct blk_inflight_wire *inflight, int fd);
bool blk_start_queues (struct blk *blk);
/* As QEMU does for a pause: ENABLE 0, GET_VRING_BASE; the device answers all that is in flight before. */
bool blk_stop_queues (struct blk *blk);
void blk_disconnect (struct blk *blk);
/* The guest was reset: rings are empty, nothing is in flight. */
void blk_forget (struct blk *blk);

/* How a request's chain looks like. */
struct blk_shape {
  bool indirect;
  bool status_with_data; /* reads: one descriptor */
  bool header_with_data; /* writes: one descriptor */
  unsigned cuts;         /* of the data, at random bytes */
  bool split_header;     /* of 16 bytes, in two */
};
struct blk_shape blk_random_shape (GRand *random);

/* Where the data of a request of n pages lies: for a write to be filled, for a read to be looked at. */
uint8_t *blk_data (struct blk *blk, unsigned slot);
/* A free slot; -1: none. */
int blk_free_slot (struct blk *blk);
/* Sets the slot up (its data's address), so that blk_data can be filled. */
void blk_prepare (struct blk *blk, unsigned slot, enum blk_type type, uint64_t first, unsigned n);
/* Publishes it; no kick. random NULL: cuts are even. DISCARD, WRITE_ZEROES: first and n are in one range, or in up to 4. */
void blk_submit (struct blk *blk, unsigned slot, const struct blk_shape *shape, GRand *random);
/* If the device wants to know of what was submitted since the last one. */
void blk_kick (struct blk *blk, unsigned queue);
/* What was answered, without waiting. */
bool blk_poll (struct blk *blk, unsigned *ret_slot, uint8_t *ret_status);
/* Waits for an answer. False: none came within the time, or the back-end has hung up (then blk_is_connected says so). */
bool blk_wait (struct blk *blk, unsigned *ret_slot, uint8_t *ret_status, int timeout_ms);
bool blk_is_connected (struct blk *blk);

/* One request, from start to end, with nothing else in flight. The status; BLK_S_NONE with fe->why: there was no answer. */
uint8_t blk_io (struct blk *blk, enum blk_type type, uint64_t first, unsigned n, void *data);

#endif
