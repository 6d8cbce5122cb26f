/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A vhost-user front-end, the driver behind it, and a device that takes its time, all in the process and thread of the test:
 * nothing happens but when the test lets the main context run, so every order of events can be had.
 */
#ifndef DOMYBS_TESTS_FRONT_H
#define DOMYBS_TESTS_FRONT_H

#include <glib.h>

#include "io/vhost-user-socket.h"

#define FRONT_QUEUES 16u
#define FRONT_NUM 8u /* entries of each queue */
#define FRONT_GUEST_BASE 0x40000000ull
#define FRONT_USER_BASE 0x7f5500000000ull
#define FRONT_RAM_BYTES (1u << 20)

/* In the VM's memory, for each queue: its rings, and 64 bytes for each head, the first 32 of which the device may read. */
#define FRONT_QUEUE_BYTES 0x1000u
#define FRONT_AVAIL 0x400u
#define FRONT_USED 0x600u
#define FRONT_DATA 0x800u

struct taken {
  unsigned queue;
  struct virtqueue_chain chain;
};

struct front {
  /* front-end and driver */
  int fd; /* its end of the socket */
  int ram_fd;
  uint8_t *ram;
  int channel; /* its end of the backend channel; -1: none */
  int inflight_fd;
  uint64_t inflight_bytes;
  int kicks[FRONT_QUEUES], calls[FRONT_QUEUES], errs[FRONT_QUEUES];
  uint16_t avail[FRONT_QUEUES], seen_used[FRONT_QUEUES];

  /* device */
  VhostUserDevice type;
  VhostUserSocket *socket; /* NULL: the session has ended */
  struct taken taken[FRONT_QUEUES * FRONT_NUM];
  unsigned n_taken;
  gboolean answer_at_once;
  gboolean stop_at_once; /* says that it has stopped from within queue_stop */
  unsigned n_stops, n_memory_changes, n_closed, n_config_writes;
  int moves_failed;
  gboolean drops_what_is_gone; /* answers, in memory_changed, what has lost its memory */
  char *closed_why; /* NULL: the front-end just closed */
};

/* For a test program's main, in place of testing_init. */
void front_tests_init (int *argc, char ***argv);
/* The beginning and the end of a test, which gives back all that it took, the descriptors that came over the socket included. */
void front_begin (struct front *front);
void front_end (struct front *front);

void front_init (struct front *front);
void front_clear (struct front *front);

/* A new connection, as after the death of the back-end where there was one: its requests are gone without a word. */
void front_connect (struct front *front);
void front_die (struct front *front);

/* Lets the main context run until there is nothing to do. */
void front_run (struct front *front);

/* Messages. _ask runs, and returns how many bytes of payload came as the reply (-1: none came). */
void front_send (struct front *front, uint32_t request, const void *payload, uint32_t bytes, const int *fds, unsigned n_fds);
void front_send_raw (struct front *front, const void *bytes, size_t n, const int *fds, unsigned n_fds);
void front_send_state (struct front *front, uint32_t request, uint32_t index, uint32_t num);
int front_reply (struct front *front, uint32_t request, void *payload, uint32_t cap, int *ret_fd);
uint64_t front_ask_u64 (struct front *front, uint32_t request);

/* Protocol features with INFLIGHT_SHMFD and the rest, then the backend channel. */
void front_negotiate (struct front *front);
/* GET_INFLIGHT_FD, where there is no region yet, and SET_INFLIGHT_FD. */
void front_give_inflight (struct front *front);
void front_set_inflight (struct front *front, int fd, uint64_t bytes, uint64_t offset, uint16_t n_queues, uint16_t queue_size);
/* The VM's memory as one region. */
void front_give_memory (struct front *front);
/* One region, n bytes of the VM's memory from `at` on, which are at the same place for guest and front-end. */
void front_add_memory (struct front *front, uint64_t at, uint64_t n);
void front_remove_memory (struct front *front, uint64_t at, uint64_t n);
/* Everything that a queue needs, as QEMU does it when the driver is ready or the back-end is there again. */
void front_start_queue (struct front *front, unsigned queue);
/* Only its descriptors, in the place of those that it has. */
void front_send_vring_fds (struct front *front, unsigned queue);
/* negotiate, inflight, memory, queue 0. */
void front_start (struct front *front);

/* The driver. The request of a head has `text` in what the device may read. */
void front_offer (struct front *front, unsigned queue, uint16_t head, const char *text);
void front_kick (struct front *front, unsigned queue);
/* Answers that came since: heads, in their order. */
unsigned front_collect (struct front *front, unsigned queue, uint16_t *heads);
/* What the device wrote for a head. */
const char *front_answer (struct front *front, unsigned queue, uint16_t head);
/* Whether an eventfd was signalled; it is not any more afterwards. */
gboolean front_signalled (int fd);

/* The device: answers the i-th of those that it took, with what it read, and "ok: " before it; signals. */
void front_device_answer (struct front *front, unsigned i);

/* Open descriptors of this process. */
unsigned front_open_fds (void);

/* ---- what is expected ---- */

/* The session has ended, for that reason (NULL: the front-end just closed), once since this was asked. */
void front_expect_closed (struct front *front, const char *why);
/* These heads are with the device, in that order. */
void front_expect_taken (const struct front *front, unsigned n, const uint16_t *heads);
#define FRONT_EXPECT_TAKEN(front, ...) \
  front_expect_taken (front, sizeof ((const uint16_t[]){ __VA_ARGS__ }) / 2, (const uint16_t[]){ __VA_ARGS__ })
/* These were answered on queue 0 since this was asked. */
void front_expect_answers (struct front *front, unsigned n, const uint16_t *heads);
#define FRONT_EXPECT_ANSWERS(front, ...) \
  front_expect_answers (front, sizeof ((const uint16_t[]){ __VA_ARGS__ }) / 2, (const uint16_t[]){ __VA_ARGS__ })
/* Heads 2, 0 and 3 on queue 0, and the device has them. */
void front_offer_three (struct front *front);

#endif
