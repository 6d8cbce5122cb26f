/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the keeper and the worker of a back-end say to each other, over one SOCK_SEQPACKET pair for each worker.
 *
 * The keeper holds all descriptors and is the only one that reads and writes QEMU's sockets. It knows bytes, positions and
 * descriptors, and nothing of what they mean: how many bytes come next is the worker's to say (WANT), because on a unix socket a
 * descriptor belongs to the bytes that it came with, and only who reads no further than one message can tell which those are.
 *
 *   keeper → worker                                       worker → keeper
 *   HELLO  who you are; then SLOT for the state, if any
 *                                                         CHECKED  I can go on from that state
 *   SLOT   for every other descriptor held
 *   GO     you are the one: all that follows is yours
 *                                                         WANT   up to `position` I am done; give me `count` bytes from there
 *   SLOT   for each descriptor, when it comes
 *   DATA   exactly those bytes
 *                                                         SEND   message number `position` of this stream
 *   GONE   the peer has gone (or was closed for a reason)
 *   CONNECTED  a new peer                                 PUT, DROP, CHANNEL, CLOSE, GOOD, REPLACE
 *   REPLACE_FAILED
 *
 * Everything that a worker says can be said again by the next one, and then does nothing: WANT by its position, SEND by its
 * number, CHANNEL and CLOSE by their epoch, PUT and DROP by their slot. So a worker that died between writing its state and
 * telling the keeper needs no memory of whether it told.
 *
 * The keeper outlives upgrades, so an older keeper talks with newer workers: within KEEPER_WIRE_VERSION nothing changes its
 * meaning, and what is reserved is zero.
 */
#ifndef DOMYBS_CORE_KEEPER_WIRE_H
#define DOMYBS_CORE_KEEPER_WIRE_H

#include <stdint.h>

#define KEEPER_WIRE_VERSION 1u

/* The worker's end of the pair: an inherited descriptor of this number. */
#define KEEPER_WORKER_FD 3

#define KEEPER_BYTES_MAX 4096u /* of one DATA or SEND */

enum keeper_stream {
  KEEPER_MAIN,    /* QEMU's connection; epoch: the keeper counts connections from 1 on */
  KEEPER_CHANNEL, /* the backend channel, a descriptor that came on MAIN; epoch: the worker's, rising over all connections */
  KEEPER_STREAMS
};

/* Slots: where the keeper holds descriptors. Numbers, so that a state in memory can name them. */
#define KEEPER_SLOTS 64u
#define KEEPER_NO_SLOT 255u
#define KEEPER_SLOT_STATE 0u   /* the worker's state; PUT by the first worker */
#define KEEPER_SLOT_CONTROL 1u /* the listening control socket, where there is one */
#define KEEPER_SLOT_ACCOUNT 2u /* the host account's file, with this VM's lock on it */
#define KEEPER_SLOT_PUT_FIRST 4u   /* to 15: for the worker's PUT */
#define KEEPER_SLOT_STREAM_FIRST 16u /* to 63: what came with bytes; all of them end with CLOSE */

enum keeper_type {
  /* keeper → worker */
  KEEPER_HELLO = 1,      /* bytes: struct keeper_hello */
  KEEPER_SLOT = 2,       /* slot, with its descriptor; stream and position (for those ≥ KEEPER_SLOT_STREAM_FIRST): the offset, since
                            the connection began, of the first byte of the read that it came with */
  KEEPER_GO = 3,         /* bytes: struct keeper_hello, as it is now */
  KEEPER_DATA = 4,       /* stream, epoch, position (of the first byte), bytes; slots: those that came with them, in order */
  KEEPER_GONE = 5,       /* stream, epoch; position: where the bytes end, of which some may never be asked for; count: enum keeper_gone */
  KEEPER_CONNECTED = 6,  /* epoch */
  KEEPER_REPLACE_FAILED = 7, /* bytes: why, text */

  /* worker → keeper */
  KEEPER_CHECKED = 33,
  KEEPER_WANT = 34,    /* stream, epoch, position, count ≤ KEEPER_BYTES_MAX */
  KEEPER_SEND = 35,    /* stream, epoch, position (number, from 1 on in each epoch), bytes; slot: its descriptor goes along */
  KEEPER_PUT = 36,     /* slot, with its descriptor: replaces what was there. ≤ 15 only */
  KEEPER_DROP = 37,    /* slot: may be closed */
  KEEPER_SET_CHANNEL = 38, /* epoch, slot (KEEPER_NO_SLOT: none): what CHANNEL is from now on. Nothing happens if that is its epoch */
  KEEPER_CLOSE = 39,   /* epoch: ends this connection, its channel, and all slots ≥ KEEPER_SLOT_STREAM_FIRST; then others are accepted */
  KEEPER_GOOD = 40,    /* this worker has done something, or has lived for a while: it is no crash loop */
  KEEPER_REPLACE = 41, /* count: enum keeper_program; start another worker in my place */
};

enum keeper_gone {
  KEEPER_GONE_CLOSED = 0,  /* the peer closed, or reset, the connection */
  KEEPER_GONE_NO_READ = 1, /* the peer does not read: more than the keeper can hold waits */
  KEEPER_GONE_PARTIAL = 2, /* CHANNEL: half a message went out; QEMU would wait for the rest for ever */
};

enum keeper_program {
  KEEPER_PROGRAM_SAME = 0, /* the program that runs now, even if its file is another by now */
  KEEPER_PROGRAM_INSTALLED = 1, /* what lies at its path now */
};

#define KEEPER_SLOTS_PER_MESSAGE 16u

struct keeper_message {
  uint16_t type;
  uint8_t stream;
  uint8_t slot;
  uint32_t count;
  uint64_t epoch;
  uint64_t position;
  uint32_t n_bytes; /* that follow */
  uint8_t n_slots;  /* DATA */
  uint8_t truncated; /* DATA: there were more descriptors than the keeper could take; they are closed */
  uint8_t reserved[2];
  uint8_t slots[KEEPER_SLOTS_PER_MESSAGE];
};
_Static_assert (sizeof (struct keeper_message) == 48, "versions share this layout");

#define KEEPER_MESSAGE_BYTES_MAX (sizeof (struct keeper_message) + KEEPER_BYTES_MAX)

enum keeper_mode {
  KEEPER_MODE_NORMAL = 0,
  KEEPER_MODE_BUSY = 1, /* workers died before they did anything: answer every request of the guest with BUSY for hold_ms, then exit with
                           KEEPER_EXIT_AGAIN */
};

struct keeper_hello {
  uint32_t wire_version;
  uint32_t mode; /* enum keeper_mode */
  uint32_t hold_ms;
  uint32_t keeper_pid;
  uint64_t connection;  /* MAIN's epoch; 0: there was none yet */
  uint32_t is_connected; /* 0: that connection was CLOSEd; 1: not */
  int32_t last_status;  /* wait status of the last worker that died unasked */
  uint64_t starts;      /* workers that got GO, this one included */
  uint64_t deaths;      /* those that died unasked */
  uint64_t last_death_us; /* CLOCK_MONOTONIC; 0: none */
  uint64_t started_us;  /* the keeper */
  uint32_t strikes;     /* deaths in a row before a GOOD */
  uint32_t rolled_back; /* 1: the last upgrade was undone, its workers died */
  uint32_t accepts;     /* 1: the keeper listens, and takes another connection after a CLOSE; 0: there was only the one */
  uint32_t has_state;   /* 1: a SLOT message with KEEPER_SLOT_STATE follows HELLO */
  uint64_t reserved[3];
};
_Static_assert (sizeof (struct keeper_hello) == 104, "versions share this layout");

/* Exit statuses of a worker. Any other, and every signal, is a death. */
enum keeper_exit {
  KEEPER_EXIT_DONE = 0,   /* no more is wanted (--once): the keeper ends, too, with 0 */
  KEEPER_EXIT_CANT = 65,  /* it can't begin, and has said why on stderr: a first worker's ends the keeper with 1; as a replacement's
                             it leaves the old worker where it is */
  KEEPER_EXIT_AGAIN = 66, /* busy mode is over */
};

/* Deaths in a row, without GOOD, after which the device goes into busy mode; and how long that lasts: doubled each time. */
#define KEEPER_STRIKES_MAX 3u
#define KEEPER_HOLD_FIRST_MS 1000u
#define KEEPER_HOLD_MAX_MS 60000u

#endif
