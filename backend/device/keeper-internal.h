/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Inside of the keeper: what its two files share, workers (keeper.c) and the peer, QEMU (keeper-peer.c). */
#ifndef DOMYBS_DEVICE_KEEPER_INTERNAL_H
#define DOMYBS_DEVICE_KEEPER_INTERNAL_H

#include <sys/types.h>

#include "core/keeper-wire.h"
#include "device/keeper.h"

/* Replies that may wait for QEMU. It has one request open at a time; a peer that lets this fill up does not read. */
#define KEEPER_OUT_BYTES_MAX (16u * 1024)

struct keeper_slot {
  int fd; /* -1: empty */
  uint8_t stream;
  uint64_t epoch, position; /* of MAIN's connection; where the bytes begin that it came with */
};

struct keeper_stream_state {
  int fd; /* -1: none. CHANNEL: its slot's */
  uint64_t epoch, position; /* of in[0], since the connection began */
  uint32_t have, wanted;    /* bytes from there on */
  uint64_t sent;            /* number of the last message that went out, or waits in peer.out */
  bool is_gone, gone_told, truncated;
  enum keeper_gone gone_why;
  uint32_t n_came;
  uint8_t came[KEEPER_SLOTS_PER_MESSAGE]; /* slots of what came with the bytes from position on */
  uint8_t in[KEEPER_BYTES_MAX];
};

/* One for the process, and static: nothing is allocated once it runs. */
struct keeper_peer {
  int listen_fd; /* -1: none */
  struct keeper_slot slots[KEEPER_SLOTS];
  unsigned last_slot;
  struct keeper_stream_state main, channel;
  uint32_t n_out;
  uint8_t out[KEEPER_OUT_BYTES_MAX]; /* MAIN */
  int waiting_fd;                    /* a second front-end; -1: none */
  int64_t waiting_until, accept_at;  /* ms */
};
extern struct keeper_peer peer;

/* ---- keeper.c ---- */

/* To the worker that runs, if one does. bytes: message->n_bytes of them; fd: goes along, -1: none. */
void keeper_tell (const struct keeper_message *message, const void *bytes, int fd);
void keeper_tell_slot (unsigned slot);

/* ---- keeper-peer.c ---- */

void keeper_peer_init (const struct keeper_options *options);
/* Another worker runs: it has been told nothing yet. */
void keeper_peer_new_reader (void);

struct pollfd;
#define KEEPER_PEER_POLL_FDS 3
void keeper_peer_poll_fds (struct pollfd *fds, int64_t now_ms);
/* Deals with what poll found, and with what is over by now. */
void keeper_peer_turn (const struct pollfd *fds, int64_t now_ms);
/* When keeper_peer_turn has something to do at the latest; INT64_MAX: nothing. */
int64_t keeper_peer_due (int64_t now_ms);

/* What a running worker says. bytes: message->n_bytes of them. fd: PUT's, which takes it over; -1: none came. Returns which rule
 * that breaks, or NULL; then it has done nothing. */
const char *keeper_peer_obey (const struct keeper_message *message, const uint8_t *bytes, int fd);

#endif
