/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "io/vhost-user-socket.h"
#include "io/fd-message.h"
#include "io/sandbox-calls.h"
#include "io/source.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

SANDBOX_CALLS (SANDBOX_CALL_IF (fcntl, 1, ~0u, F_DUPFD_CLOEXEC));

#define CONNECTION 1u /* a socket has one */
#define IN_BYTES_MAX (VHU_HEADER_BYTES + VHU_PAYLOAD_BYTES_MAX) /* the session asks for one message at most */

struct stream {
  VhostUserSocket *socket;
  int fd; /* -1: none. Of CHANNEL: that in its slot */
  uint64_t epoch;
  gboolean is_gone;
  GSource *in_source, *out_source;
  enum keeper_gone gone_why;
  GSource *gone_source;

  /* what comes: bytes from position on; the session wants `wanted` of them, 0: nothing now */
  uint64_t position;
  uint32_t wanted, have;
  uint8_t in[IN_BYTES_MAX];
  uint8_t slots[KEEPER_SLOTS_PER_MESSAGE]; /* what came with them */
  unsigned n_slots;
  gboolean truncated;

  /* what goes: bytes that the peer did not take yet */
  uint32_t n_out;
  int out_fd; /* goes along with the byte at out_fd_at; -1: none */
  uint32_t out_fd_at;
  uint8_t out[VHOST_USER_SOCKET_OUT_BYTES];
};

struct VhostUserSocket {
  VhostUserTransport transport;
  GMainContext *context;
  VhostUserSession *session;
  struct stream streams[KEEPER_STREAMS];
  int slots[VHOST_USER_SLOTS_MAX]; /* -1: free */
};

static VhostUserSocket *
socket_of (const VhostUserTransport *transport) {
  return (VhostUserSocket *)transport; /* its first member */
}

static enum keeper_stream
number_of (const struct stream *stream) {
  return stream == &stream->socket->streams[KEEPER_MAIN] ? KEEPER_MAIN : KEEPER_CHANNEL;
}

/* ---- slots ---- */

static unsigned
put_slot (VhostUserSocket *socket, int fd) {
  for (unsigned slot = 0; slot < VHOST_USER_SLOTS_MAX; slot++)
    if (socket->slots[slot] < 0) {
      socket->slots[slot] = fd;
      return slot;
    }
  close (fd);
  return KEEPER_NO_SLOT;
}

static int
transport_fd (const VhostUserTransport *transport, unsigned slot) {
  return slot < VHOST_USER_SLOTS_MAX ? socket_of (transport)->slots[slot] : -1;
}

static unsigned
transport_put (VhostUserTransport *transport, int fd) {
  return put_slot (socket_of (transport), fd);
}

/* Nothing is read that the session did not ask for. */
static gboolean
transport_is_ahead (const VhostUserTransport *transport, unsigned slot, uint64_t position) {
  return FALSE;
}

/* ---- the end of a stream ---- */

static gboolean
on_gone (gpointer data) {
  struct stream *stream = data;

  source_clear (&stream->gone_source);
  vhost_user_session_gone (stream->socket->session, number_of (stream), stream->epoch, stream->position + stream->have,
                           stream->gone_why);
  return G_SOURCE_REMOVE;
}

/* Told in a turn of its own: the session may be in the middle of something that made us send. */
static void
set_gone (struct stream *stream, enum keeper_gone why) {
  if (stream->is_gone)
    return;
  stream->is_gone = TRUE;
  stream->gone_why = why;
  source_clear (&stream->in_source);
  source_clear (&stream->out_source);
  stream->gone_source = g_idle_source_new ();
  g_source_set_priority (stream->gone_source, G_PRIORITY_DEFAULT);
  g_source_set_callback (stream->gone_source, on_gone, stream, NULL);
  g_source_attach (stream->gone_source, stream->socket->context);
}

static void
clear_stream (struct stream *stream) {
  source_clear (&stream->in_source);
  source_clear (&stream->out_source);
  source_clear (&stream->gone_source);
  if (stream->out_fd >= 0)
    close (stream->out_fd);
}

static void
begin_stream (struct stream *stream, VhostUserSocket *socket, uint64_t epoch, int fd) {
  stream->socket = socket;
  stream->fd = fd;
  stream->epoch = epoch;
  stream->is_gone = fd < 0;
  stream->position = 0;
  stream->wanted = stream->have = stream->n_out = 0;
  stream->n_slots = 0;
  stream->truncated = FALSE;
  stream->out_fd = -1;
}

/* ---- what comes ---- */

static void
take_fds (struct stream *stream, const struct fd_message_fds *fds) {
  stream->truncated |= fds->truncated;
  for (unsigned i = 0; i < fds->n; i++) {
    unsigned slot = KEEPER_NO_SLOT;

    if (stream->n_slots < KEEPER_SLOTS_PER_MESSAGE)
      slot = put_slot (stream->socket, fds->fds[i]);
    else
      close (fds->fds[i]);
    if (slot == KEEPER_NO_SLOT)
      stream->truncated = TRUE;
    else
      stream->slots[stream->n_slots++] = (uint8_t)slot;
  }
}

static gboolean on_readable (gint fd, GIOCondition condition, gpointer data);

/* Looks for bytes while some are wanted; and for the peer's end in any case. */
static void
watch_in (struct stream *stream) {
  source_clear (&stream->in_source);
  if (!stream->is_gone)
    stream->in_source
        = source_fd (stream->socket->context, stream->fd, stream->wanted ? G_IO_IN : G_IO_HUP | G_IO_ERR, on_readable, stream);
}

static gboolean
on_readable (gint fd, GIOCondition condition, gpointer data) {
  struct stream *stream = data;
  struct fd_message_fds fds;
  ssize_t n;

  if (!stream->wanted) { /* its end */
    set_gone (stream, KEEPER_GONE_CLOSED);
    return G_SOURCE_REMOVE;
  }
  /* No byte more than is wanted: the descriptors of the next message come with its own bytes. */
  n = fd_message_receive (stream->fd, stream->in + stream->have, stream->wanted - stream->have, &fds);
  if (n < 0 && errno == EAGAIN)
    return G_SOURCE_CONTINUE;
  take_fds (stream, &fds);
  if (n <= 0) {
    set_gone (stream, KEEPER_GONE_CLOSED);
    return G_SOURCE_REMOVE;
  }
  stream->have += (uint32_t)n;
  if (stream->have < stream->wanted)
    return G_SOURCE_CONTINUE;
  stream->wanted = 0;
  vhost_user_session_received (stream->socket->session, number_of (stream), stream->epoch, stream->position, stream->in,
                               stream->have, stream->slots, stream->n_slots, stream->truncated);
  if (!stream->wanted && !stream->is_gone && stream->in_source == g_main_current_source ())
    watch_in (stream); /* the session is busy with what it got */
  return g_source_is_destroyed (g_main_current_source ()) ? G_SOURCE_REMOVE : G_SOURCE_CONTINUE;
}

static void
transport_want (VhostUserTransport *transport, enum keeper_stream number, uint64_t epoch, uint64_t position, unsigned count) {
  struct stream *stream = &socket_of (transport)->streams[number];

  if (epoch != stream->epoch || stream->is_gone)
    return;
  if (position != stream->position) { /* all up to there is the session's */
    stream->position = position;
    stream->have = 0;
    stream->n_slots = 0;
    stream->truncated = FALSE;
  }
  stream->wanted = MIN (count, IN_BYTES_MAX);
  watch_in (stream);
}

/* ---- what goes ---- */

/* Returns how many bytes are done with. What goes to a dead peer is; that it is dead shows when it is read. */
static uint32_t
send_now (struct stream *stream, const uint8_t *bytes, uint32_t n_bytes, int fd) {
  const ssize_t n = fd_message_send (stream->fd, bytes, n_bytes, NULL, 0, fd);

  return n >= 0 ? (uint32_t)n : errno == EAGAIN || errno == ENOBUFS ? 0 : n_bytes;
}

/* A descriptor goes with the first byte of what is sent with it, so what is before that goes apart. */
static void
flush_out (struct stream *stream) {
  while (stream->n_out) {
    const gboolean fd_first = stream->out_fd >= 0 && stream->out_fd_at == 0;
    const uint32_t n_bytes = stream->out_fd >= 0 && !fd_first ? stream->out_fd_at : stream->n_out;
    const uint32_t n = send_now (stream, stream->out, n_bytes, fd_first ? stream->out_fd : -1);

    if (n == 0)
      return;
    if (fd_first) {
      close (stream->out_fd);
      stream->out_fd = -1;
    } else if (stream->out_fd >= 0) {
      stream->out_fd_at -= n;
    }
    stream->n_out -= n;
    memmove (stream->out, stream->out + n, stream->n_out);
  }
}

static gboolean
on_writable (gint fd, GIOCondition condition, gpointer data) {
  struct stream *stream = data;

  flush_out (stream);
  if (stream->n_out)
    return G_SOURCE_CONTINUE;
  source_clear (&stream->out_source);
  return G_SOURCE_REMOVE;
}

static void
transport_send (VhostUserTransport *transport, enum keeper_stream number, uint64_t epoch, uint64_t message,
                const uint8_t *bytes, size_t n_bytes, unsigned slot) {
  struct stream *stream = &socket_of (transport)->streams[number];
  const int fd = transport_fd (transport, slot);
  uint32_t n = 0;

  if (epoch != stream->epoch || stream->is_gone)
    return;
  if (!stream->n_out)
    n = send_now (stream, bytes, (uint32_t)n_bytes, fd);
  if (n == n_bytes)
    return;
  if (n_bytes - n > sizeof stream->out - stream->n_out || (n == 0 && fd >= 0 && stream->out_fd >= 0)) {
    set_gone (stream, KEEPER_GONE_NO_READ);
    return;
  }
  if (n == 0 && fd >= 0) { /* that in the slot may be closed before its turn */
    stream->out_fd = fcntl (fd, F_DUPFD_CLOEXEC, 0);
    stream->out_fd_at = stream->n_out;
  }
  memcpy (stream->out + stream->n_out, bytes + n, n_bytes - n);
  stream->n_out += (uint32_t)(n_bytes - n);
  if (!stream->out_source)
    stream->out_source = source_fd (stream->socket->context, stream->fd, G_IO_OUT, on_writable, stream);
}

/* ---- backend channel ---- */

static void
transport_set_channel (VhostUserTransport *transport, uint64_t epoch, unsigned slot) {
  VhostUserSocket *socket = socket_of (transport);
  struct stream *channel = &socket->streams[KEEPER_CHANNEL];

  if (epoch == channel->epoch)
    return;
  clear_stream (channel);
  begin_stream (channel, socket, epoch, transport_fd (transport, slot));
}

static void
transport_drop (VhostUserTransport *transport, unsigned slot) {
  VhostUserSocket *socket = socket_of (transport);
  const int fd = transport_fd (transport, slot);

  if (fd < 0)
    return;
  if (fd == socket->streams[KEEPER_CHANNEL].fd) {
    clear_stream (&socket->streams[KEEPER_CHANNEL]);
    begin_stream (&socket->streams[KEEPER_CHANNEL], socket, socket->streams[KEEPER_CHANNEL].epoch, -1);
  }
  close (fd);
  socket->slots[slot] = -1;
}

/* ---- life ---- */

static void
free_socket (VhostUserSocket *socket) {
  for (unsigned i = 0; i < KEEPER_STREAMS; i++)
    clear_stream (&socket->streams[i]);
  for (unsigned slot = 0; slot < VHOST_USER_SLOTS_MAX; slot++)
    if (socket->slots[slot] >= 0)
      close (socket->slots[slot]);
  close (socket->streams[KEEPER_MAIN].fd);
  g_main_context_unref (socket->context);
  g_free (socket);
}

static void
transport_session_ended (VhostUserTransport *transport) {
  free_socket (socket_of (transport));
}

VhostUserSocket *
vhost_user_socket_new (int fd, const VhostUserDevice *device_type, gpointer device) {
  VhostUserSocket *socket = g_new0 (VhostUserSocket, 1);

  socket->transport = (VhostUserTransport){
    .want = transport_want,
    .send = transport_send,
    .fd = transport_fd,
    .is_ahead = transport_is_ahead,
    .put = transport_put,
    .drop = transport_drop,
    .set_channel = transport_set_channel,
    .session_ended = transport_session_ended,
  };
  socket->context = g_main_context_ref_thread_default ();
  for (unsigned slot = 0; slot < VHOST_USER_SLOTS_MAX; slot++)
    socket->slots[slot] = -1;
  begin_stream (&socket->streams[KEEPER_MAIN], socket, CONNECTION, fd);
  begin_stream (&socket->streams[KEEPER_CHANNEL], socket, 0, -1);
  socket->session = vhost_user_session_new (&socket->transport, CONNECTION, 0, device_type, device);
  vhost_user_session_flush (socket->session); /* wants the first header */
  return socket;
}

void
vhost_user_socket_free (VhostUserSocket *socket) {
  vhost_user_session_free (socket->session);
  free_socket (socket);
}

VhostUserSession *
vhost_user_socket_session (VhostUserSocket *socket) {
  return socket->session;
}
