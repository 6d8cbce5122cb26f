/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "device/keeper-internal.h"
#include "io/keeper-log.h"
#include "io/fd-message.h"
#include "io/sandbox-calls.h"

#include <errno.h>
#include <poll.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

SANDBOX_KEEPER_CALLS (SANDBOX_CALL (accept4), SANDBOX_CALL (getsockopt));

/* How long a second front-end may wait for the first to go: a device that is unplugged and plugged again at once connects
 * before the worker has closed the old connection. */
#define WAIT_FOR_FIRST_MS 1000
#define ACCEPT_PAUSE_MS 100 /* when there is no descriptor for a connection: the kernel keeps it */
#define STREAM_SLOTS (KEEPER_SLOTS - KEEPER_SLOT_STREAM_FIRST)
_Static_assert (FD_MESSAGE_FDS_MAX == KEEPER_SLOTS_PER_MESSAGE, "what comes at once can be listed");

struct keeper_peer peer;

/* ---- what comes ---- */

/* What the reader of a stream waits for, if it is there: the bytes that it wants, or that there will be no more of them. */
static void
tell_stream (struct keeper_stream_state *stream) {
  struct keeper_message message = { .stream = stream == &peer.main ? KEEPER_MAIN : KEEPER_CHANNEL, .epoch = stream->epoch };

  if (stream->is_gone && !stream->gone_told && (stream->gone_why != KEEPER_GONE_CLOSED || stream->wanted > stream->have)) {
    message.type = KEEPER_GONE;
    message.position = stream->position + stream->have;
    message.count = stream->gone_why;
    stream->gone_told = true;
  } else if (stream->wanted && stream->have >= stream->wanted) {
    message.type = KEEPER_DATA;
    message.position = stream->position;
    message.n_bytes = stream->wanted;
    message.truncated = stream->truncated;
    for (unsigned i = 0; i < stream->n_came; i++)
      if (peer.slots[stream->came[i]].position < stream->position + stream->wanted)
        message.slots[message.n_slots++] = stream->came[i];
  } else {
    return;
  }
  stream->wanted = 0;
  keeper_tell (&message, stream->in, -1);
}

static void
set_gone (struct keeper_stream_state *stream, enum keeper_gone why) {
  if (stream->is_gone)
    return;
  stream->is_gone = true;
  stream->gone_why = why;
  if (stream == &peer.main)
    peer.n_out = 0;
  tell_stream (stream);
}

static void
drop_slot (unsigned i) {
  if (peer.slots[i].fd < 0)
    return;
  if (peer.slots[i].fd == peer.channel.fd)
    peer.channel.fd = -1;
  close (peer.slots[i].fd);
  peer.slots[i].fd = -1;
}

/* A descriptor that came with the bytes that are being read. Numbers go round, so that one which two workers say DROP of is not
 * another one by then. */
static void
take_fd (struct keeper_stream_state *stream, int fd) {
  unsigned tries = stream->n_came < KEEPER_SLOTS_PER_MESSAGE ? STREAM_SLOTS : 0, i = 0;

  for (; tries > 0; tries--) {
    peer.last_slot = (peer.last_slot + 1) % STREAM_SLOTS;
    i = KEEPER_SLOT_STREAM_FIRST + peer.last_slot;
    if (peer.slots[i].fd < 0)
      break;
  }
  if (tries == 0) {
    stream->truncated = true;
    close (fd);
    return;
  }
  peer.slots[i] = (struct keeper_slot){ .fd = fd, .epoch = peer.main.epoch, .position = stream->position + stream->have };
  peer.slots[i].stream = stream == &peer.main ? KEEPER_MAIN : KEEPER_CHANNEL;
  stream->came[stream->n_came++] = (uint8_t)i;
  keeper_tell_slot (i);
}

/* Reads what is wanted and no byte more: the descriptors of the next message come with its own bytes. */
static void
read_stream (struct keeper_stream_state *stream) {
  struct fd_message_fds fds;
  const ssize_t n = fd_message_receive (stream->fd, stream->in + stream->have, stream->wanted - stream->have, &fds);

  if (n < 0 && errno == EAGAIN)
    return;
  stream->truncated |= fds.truncated;
  for (unsigned i = 0; i < fds.n; i++)
    take_fd (stream, fds.fds[i]);
  if (n > 0) {
    stream->have += (uint32_t)n;
    tell_stream (stream);
  } else {
    set_gone (stream, KEEPER_GONE_CLOSED);
  }
}

/* ---- what goes ---- */

/* Returns how many bytes are done with. What goes to a dead peer is; that it is dead shows when it is read. */
static uint32_t
send_to_peer (const struct keeper_stream_state *stream, const uint8_t *bytes, uint32_t n_bytes, int fd) {
  const ssize_t n = fd_message_send (stream->fd, bytes, n_bytes, NULL, 0, fd);

  return n >= 0 ? (uint32_t)n : errno == EPIPE || errno == ECONNRESET ? n_bytes : 0;
}

static void
flush_main (void) {
  const uint32_t n = send_to_peer (&peer.main, peer.out, peer.n_out, -1);

  peer.n_out -= n;
  memmove (peer.out, peer.out + n, peer.n_out);
}

static void
send_main (const uint8_t *bytes, uint32_t n_bytes, int fd) {
  const uint32_t n = peer.n_out ? 0 : send_to_peer (&peer.main, bytes, n_bytes, fd);

  if ((fd >= 0 && n == 0) || n_bytes - n > KEEPER_OUT_BYTES_MAX - peer.n_out) { /* a descriptor can't wait in peer.out */
    set_gone (&peer.main, KEEPER_GONE_NO_READ);
    return;
  }
  memcpy (peer.out + peer.n_out, bytes + n, n_bytes - n);
  peer.n_out += n_bytes - n;
}

/* ---- connections ---- */

static void
new_stream (struct keeper_stream_state *stream, uint64_t epoch, int fd) {
  memset (stream, 0, offsetof (struct keeper_stream_state, in));
  stream->epoch = epoch;
  stream->fd = fd;
}

static void
connect_main (int fd) {
  const struct keeper_message message = { .type = KEEPER_CONNECTED, .epoch = peer.main.epoch + 1 };

  new_stream (&peer.main, message.epoch, fd);
  keeper_tell (&message, NULL, -1); /* one that does not run yet hears it with GO */
}

static void
close_main (void) {
  const int next = peer.waiting_fd;

  close (peer.main.fd);
  peer.main.fd = -1;
  peer.n_out = 0;
  for (unsigned i = KEEPER_SLOT_STREAM_FIRST; i < KEEPER_SLOTS; i++)
    drop_slot (i);
  peer.waiting_fd = -1;
  if (next >= 0)
    connect_main (next);
}

static void
accept_front_end (int64_t now) {
  const int fd = accept4 (peer.listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

  if (fd < 0) {
    if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
      peer.accept_at = now + ACCEPT_PAUSE_MS;
  } else if (peer.main.fd < 0) {
    connect_main (fd);
  } else {
    if (peer.waiting_fd >= 0)
      close (peer.waiting_fd); /* the newest counts: the one before has had its time cut short by its own successor */
    peer.waiting_fd = fd;
    peer.waiting_until = now + WAIT_FOR_FIRST_MS;
  }
}

/* ---- from the worker: functions return which rule it breaks, or NULL ---- */

/* Bytes before position are done with, and so is the list of what came with them (the slots stay until DROP). */
static const char *
want (struct keeper_stream_state *stream, const struct keeper_message *message) {
  const uint64_t done = message->position - stream->position;
  uint32_t n = 0;

  if (stream->fd < 0 || message->epoch != stream->epoch)
    return NULL; /* of a connection that is over */
  if (message->count > KEEPER_BYTES_MAX || message->position < stream->position || done > stream->have)
    return "it wants bytes that can't be had";
  stream->position = message->position;
  stream->have -= (uint32_t)done;
  memmove (stream->in, stream->in + done, stream->have);
  stream->truncated &= done == 0;
  for (unsigned i = 0; i < stream->n_came; i++)
    if (peer.slots[stream->came[i]].position >= stream->position)
      stream->came[n++] = stream->came[i];
  stream->n_came = n;
  stream->wanted = message->count;
  tell_stream (stream);
  return NULL;
}

static const char *
send_message (struct keeper_stream_state *stream, const struct keeper_message *message, const uint8_t *bytes) {
  const int fd = message->slot < KEEPER_SLOTS ? peer.slots[message->slot].fd : -1;
  uint32_t n;

  if (stream->fd < 0 || message->epoch != stream->epoch || message->position <= stream->sent)
    return NULL; /* over, or sent already */
  if (message->position != stream->sent + 1 || (message->slot != KEEPER_NO_SLOT && fd < 0))
    return "it sends what can't be sent";
  stream->sent++;
  if (stream->is_gone)
    return NULL;
  if (stream == &peer.main) {
    send_main (bytes, message->n_bytes, fd);
    return NULL;
  }
  n = send_to_peer (stream, bytes, message->n_bytes, fd); /* all or nothing: QEMU blocks its main loop on half a message */
  if (n != message->n_bytes)
    set_gone (stream, n ? KEEPER_GONE_PARTIAL : KEEPER_GONE_NO_READ);
  return NULL;
}

static const char *
set_channel (const struct keeper_message *message) {
  const unsigned slot = message->slot;
  int type, fd = -1;
  socklen_t length = sizeof type;

  if (message->epoch <= peer.channel.epoch)
    return NULL;
  if (slot != KEEPER_NO_SLOT) {
    fd = slot >= KEEPER_SLOT_STREAM_FIRST && slot < KEEPER_SLOTS ? peer.slots[slot].fd : -1;
    if (getsockopt (fd, SOL_SOCKET, SO_TYPE, &type, &length) < 0 || type != SOCK_STREAM)
      return "its channel is no stream socket";
  }
  new_stream (&peer.channel, message->epoch, fd);
  return NULL;
}

const char *
keeper_peer_obey (const struct keeper_message *message, const uint8_t *bytes, int fd) {
  struct keeper_stream_state *stream = message->stream == KEEPER_MAIN ? &peer.main : &peer.channel;
  const unsigned slot = message->slot;

  switch (message->type) {
  case KEEPER_WANT:
    return want (stream, message);
  case KEEPER_SEND:
    return send_message (stream, message, bytes);
  case KEEPER_PUT:
    if (fd < 0 || slot >= KEEPER_SLOT_STREAM_FIRST || (slot != KEEPER_SLOT_STATE && slot < KEEPER_SLOT_PUT_FIRST))
      return "it puts nothing, or where it may not";
    drop_slot (slot);
    peer.slots[slot] = (struct keeper_slot){ .fd = fd };
    return NULL;
  case KEEPER_DROP:
    if (slot < KEEPER_SLOT_PUT_FIRST || slot >= KEEPER_SLOTS)
      return "it drops what it may not";
    drop_slot (slot);
    return NULL;
  case KEEPER_SET_CHANNEL:
    return set_channel (message);
  case KEEPER_CLOSE:
    if (peer.main.fd >= 0 && message->epoch == peer.main.epoch)
      close_main ();
    return NULL;
  default:
    return "there is no such message";
  }
}

/* ---- life ---- */

void
keeper_peer_init (const struct keeper_options *options) {
  for (unsigned i = 0; i < KEEPER_SLOTS; i++)
    peer.slots[i].fd = -1;
  peer.slots[KEEPER_SLOT_CONTROL].fd = options->control_fd;
  peer.slots[KEEPER_SLOT_ACCOUNT].fd = options->account_fd;
  peer.listen_fd = options->listen_fd;
  peer.main.fd = peer.channel.fd = peer.waiting_fd = -1;
  if (options->connection_fd >= 0)
    connect_main (options->connection_fd);
}

void
keeper_peer_new_reader (void) {
  peer.main.wanted = peer.channel.wanted = 0;
  peer.main.gone_told = peer.channel.gone_told = false;
}

static bool
is_wanted (const struct keeper_stream_state *stream) {
  return stream->fd >= 0 && !stream->is_gone && stream->wanted > stream->have;
}

/* A dead peer's socket is always ready, so nobody is polled without need. */
void
keeper_peer_poll_fds (struct pollfd *fds, int64_t now_ms) {
  const short main_events = (short)((is_wanted (&peer.main) ? POLLIN : 0) | (peer.n_out ? POLLOUT : 0));

  fds[0] = (struct pollfd){ .fd = now_ms >= peer.accept_at ? peer.listen_fd : -1, .events = POLLIN };
  fds[1] = (struct pollfd){ .fd = main_events ? peer.main.fd : -1, .events = main_events };
  fds[2] = (struct pollfd){ .fd = is_wanted (&peer.channel) ? peer.channel.fd : -1, .events = POLLIN };
}

static bool
has_hung_up (int fd) {
  struct pollfd pfd = { fd, POLLRDHUP, 0 };

  return poll (&pfd, 1, 0) > 0 && (pfd.revents & (POLLRDHUP | POLLHUP));
}

void
keeper_peer_turn (const struct pollfd *fds, int64_t now_ms) {
  if (fds[1].revents && peer.n_out)
    flush_main ();
  if (fds[1].revents && is_wanted (&peer.main))
    read_stream (&peer.main);
  if (fds[2].revents && is_wanted (&peer.channel))
    read_stream (&peer.channel);
  if (fds[0].revents)
    accept_front_end (now_ms);
  if (peer.waiting_fd >= 0 && now_ms >= peer.waiting_until && has_hung_up (peer.main.fd)
      && !has_hung_up (peer.waiting_fd)) {
    /* The place is free as soon as a worker has seen that; the next one starts, or is slow. */
    peer.waiting_until = now_ms + WAIT_FOR_FIRST_MS;
  } else if (peer.waiting_fd >= 0 && now_ms >= peer.waiting_until) {
    keeper_log ("warning: a second front-end was turned away: one device is for one VM");
    close (peer.waiting_fd);
    peer.waiting_fd = -1;
  }
}

int64_t
keeper_peer_due (int64_t now_ms) {
  int64_t due = peer.waiting_fd >= 0 ? peer.waiting_until : INT64_MAX;

  return peer.accept_at > now_ms && peer.accept_at < due ? peer.accept_at : due;
}
