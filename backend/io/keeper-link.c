/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "io/keeper-link.h"
#include "io/error.h"
#include "io/fd-message.h"
#include "io/source.h"

#include "core/crash-point.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

struct slot {
  int fd; /* -1: nothing */
  uint8_t stream;
  uint64_t position;
};

struct KeeperLink {
  VhostUserTransport transport;
  int fd;
  GSource *source;
  struct keeper_hello hello;
  struct slot slots[KEEPER_SLOTS];
  const KeeperLinkEvents *events;
  gpointer data;
  uint8_t bytes[KEEPER_MESSAGE_BYTES_MAX];
};

/* Without its keeper a worker has no one to work for; and QEMU may have the window mapped still: nothing of it may change. */
static void
end_without_keeper (void) {
  _exit (KEEPER_EXIT_AGAIN);
}

/* ---- messages ---- */

struct incoming {
  struct keeper_message head;
  const uint8_t *bytes;
  int fd; /* -1: none; who takes it sets it to -1 */
};

/* 1: what was asked for is there; 0: not now. */
static int
wait_for (const KeeperLink *link, short what, int timeout_ms) {
  struct pollfd pfd = { link->fd, what, 0 };
  int n;

  do
    n = poll (&pfd, 1, timeout_ms);
  while (n < 0 && errno == EINTR);
  return n > 0;
}

/* Reads one message. 1: there is one; 0: none now (only without wait); -1: the keeper is gone, or is none of ours. */
static int
receive (KeeperLink *link, gboolean wait, struct incoming *ret) {
  struct fd_message_fds fds;
  ssize_t n;

  ret->fd = -1;
  while ((n = fd_message_receive (link->fd, link->bytes, sizeof link->bytes, &fds)) < 0 && errno == EAGAIN)
    if (!wait || !wait_for (link, POLLIN, -1))
      return 0;
  for (unsigned i = 1; i < fds.n; i++)
    close (fds.fds[i]);
  if (fds.n)
    ret->fd = fds.fds[0];
  if (n < (ssize_t)sizeof ret->head || fds.truncated)
    return -1;
  memcpy (&ret->head, link->bytes, sizeof ret->head);
  ret->bytes = link->bytes + sizeof ret->head;
  return (size_t)n == sizeof ret->head + ret->head.n_bytes && ret->head.n_slots <= KEEPER_SLOTS_PER_MESSAGE
                 && ret->head.stream < KEEPER_STREAMS
             ? 1
             : -1;
}

static void
transmit (KeeperLink *link, const struct keeper_message *head, const uint8_t *bytes, int fd) {
  CRASH_POINT ("link-send");
  while (fd_message_send (link->fd, head, sizeof *head, bytes, head->n_bytes, fd) < 0)
    if (errno != EAGAIN || !wait_for (link, POLLOUT, -1)) /* the keeper reads at once, always */
      end_without_keeper ();
  CRASH_POINT ("link-sent");
}

static void
take_slot (KeeperLink *link, struct incoming *message) {
  struct slot *slot;

  if (message->head.slot >= KEEPER_SLOTS || message->fd < 0)
    return;
  slot = &link->slots[message->head.slot];
  if (slot->fd >= 0)
    close (slot->fd);
  *slot = (struct slot){ message->fd, message->head.stream, message->head.position };
  message->fd = -1;
}

/* ---- as a transport ---- */

static KeeperLink *
link_of (const VhostUserTransport *transport) {
  return (KeeperLink *)transport; /* its first member */
}

static void
transport_want (VhostUserTransport *transport, enum keeper_stream stream, uint64_t epoch, uint64_t position, unsigned count) {
  keeper_link_want (link_of (transport), stream, epoch, position, count);
}

static void
transport_send (VhostUserTransport *transport, enum keeper_stream stream, uint64_t epoch, uint64_t number,
                const uint8_t *bytes, size_t n, unsigned slot) {
  keeper_link_send (link_of (transport), stream, epoch, number, bytes, n, slot);
}

static int
transport_fd (const VhostUserTransport *transport, unsigned slot) {
  return keeper_link_fd (link_of (transport), slot);
}

static gboolean
transport_is_ahead (const VhostUserTransport *transport, unsigned slot, uint64_t position) {
  return keeper_link_is_ahead (link_of (transport), slot, position);
}

static unsigned
transport_put (VhostUserTransport *transport, int fd) {
  return keeper_link_put (link_of (transport), fd);
}

static void
transport_drop (VhostUserTransport *transport, unsigned slot) {
  keeper_link_drop (link_of (transport), slot);
}

static void
transport_set_channel (VhostUserTransport *transport, uint64_t epoch, unsigned slot) {
  keeper_link_set_channel (link_of (transport), epoch, slot);
}

VhostUserTransport *
keeper_link_transport (KeeperLink *link) {
  return &link->transport;
}

/* ---- the beginning ---- */

KeeperLink *
keeper_link_open (int fd, GError **error) {
  g_autoptr (KeeperLink) link = g_new0 (KeeperLink, 1);
  struct incoming message;

  link->transport = (VhostUserTransport){
    .want = transport_want,
    .send = transport_send,
    .fd = transport_fd,
    .is_ahead = transport_is_ahead,
    .put = transport_put,
    .drop = transport_drop,
    .set_channel = transport_set_channel,
  };
  link->fd = fd;
  for (unsigned i = 0; i < KEEPER_SLOTS; i++)
    link->slots[i].fd = -1;
  if (fcntl (fd, F_SETFD, FD_CLOEXEC) < 0) {
    domybs_error_errno (error, "descriptor %d is not a keeper's", fd);
    return NULL;
  }
  if (receive (link, TRUE, &message) != 1 || message.head.type != KEEPER_HELLO || message.head.n_bytes != sizeof link->hello) {
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_PROTOCOL, "no keeper at descriptor %d; --worker is for keepers to use", fd);
    return NULL;
  }
  memcpy (&link->hello, message.bytes, sizeof link->hello);
  if (link->hello.wire_version != KEEPER_WIRE_VERSION) {
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_PROTOCOL,
                 "the keeper speaks version %u, this worker version %u; the VM's device has to be unplugged and plugged for this program",
                 link->hello.wire_version, KEEPER_WIRE_VERSION);
    return NULL;
  }
  while (link->hello.has_state && link->slots[KEEPER_SLOT_STATE].fd < 0) {
    if (receive (link, TRUE, &message) != 1 || message.head.type != KEEPER_SLOT) {
      g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_PROTOCOL, "the keeper gave no state");
      return NULL;
    }
    take_slot (link, &message);
  }
  return g_steal_pointer (&link);
}

void
keeper_link_free (KeeperLink *link) {
  source_clear (&link->source);
  for (unsigned i = 0; i < KEEPER_SLOTS; i++)
    if (link->slots[i].fd >= 0)
      close (link->slots[i].fd);
  close (link->fd);
  g_free (link);
}

const struct keeper_hello *
keeper_link_hello (const KeeperLink *link) {
  return &link->hello;
}

gboolean
keeper_link_checked (KeeperLink *link, GError **error) {
  const struct keeper_message checked = { .type = KEEPER_CHECKED, .slot = KEEPER_NO_SLOT };
  struct incoming message;

  transmit (link, &checked, NULL, -1);
  while (receive (link, TRUE, &message) == 1) {
    if (message.head.type == KEEPER_SLOT) {
      take_slot (link, &message);
      continue;
    }
    if (message.fd >= 0)
      close (message.fd);
    if (message.head.type != KEEPER_GO)
      break;
    /* As it is now: a replacement's HELLO is from before the other one went. */
    if (message.head.n_bytes == sizeof link->hello)
      memcpy (&link->hello, message.bytes, sizeof link->hello);
    return TRUE;
  }
  g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_PROTOCOL, "the keeper has let go of this worker");
  return FALSE;
}

/* ---- events ---- */

static void
dispatch (KeeperLink *link, struct incoming *message) {
  const struct keeper_message *head = &message->head;
  const enum keeper_stream stream = (enum keeper_stream)head->stream;

  switch (head->type) {
  case KEEPER_SLOT:
    if (link->hello.is_connected && head->epoch == link->hello.connection) /* else it crossed our CLOSE, and is closed there */
      take_slot (link, message);
    break;
  case KEEPER_DATA:
    CRASH_POINT ("link-data");
    link->events->received (link->data, stream, head->epoch, head->position, message->bytes, head->n_bytes, head->slots,
                            head->n_slots, head->truncated);
    break;
  case KEEPER_GONE:
    link->events->gone (link->data, stream, head->epoch, head->position, (enum keeper_gone)head->count);
    break;
  case KEEPER_CONNECTED:
    link->hello.connection = head->epoch;
    link->hello.is_connected = 1;
    link->events->connected (link->data, head->epoch);
    break;
  case KEEPER_REPLACE_FAILED: {
    g_autofree char *why = g_strndup ((const char *)message->bytes, head->n_bytes);

    link->events->replace_failed (link->data, why);
    break;
  }
  default: /* of a newer keeper */
    break;
  }
  if (message->fd >= 0)
    close (message->fd);
}

static gboolean
on_readable (gint fd, GIOCondition condition, gpointer data) {
  KeeperLink *link = data;
  struct incoming message;
  const int got = receive (link, FALSE, &message);

  if (got < 0)
    end_without_keeper ();
  if (got > 0)
    dispatch (link, &message);
  return G_SOURCE_CONTINUE;
}

void
keeper_link_run (KeeperLink *link, const KeeperLinkEvents *events, gpointer data) {
  link->events = events;
  link->data = data;
  link->source = source_fd (NULL, link->fd, G_IO_IN, on_readable, link);
}

/* ---- slots ---- */

int
keeper_link_fd (const KeeperLink *link, unsigned slot) {
  return slot < KEEPER_SLOTS ? link->slots[slot].fd : -1;
}

gboolean
keeper_link_is_ahead (const KeeperLink *link, unsigned slot, uint64_t position) {
  return slot >= KEEPER_SLOT_STREAM_FIRST && slot < KEEPER_SLOTS && link->slots[slot].stream == KEEPER_MAIN
         && link->slots[slot].position >= position;
}

unsigned
keeper_link_put (KeeperLink *link, int fd) {
  for (unsigned slot = KEEPER_SLOT_PUT_FIRST; slot < KEEPER_SLOT_STREAM_FIRST; slot++)
    if (link->slots[slot].fd < 0) {
      keeper_link_put_at (link, slot, fd);
      return slot;
    }
  close (fd);
  return KEEPER_NO_SLOT;
}

void
keeper_link_put_at (KeeperLink *link, unsigned slot, int fd) {
  const struct keeper_message head = { .type = KEEPER_PUT, .slot = (uint8_t)slot };

  if (link->slots[slot].fd >= 0)
    close (link->slots[slot].fd);
  link->slots[slot] = (struct slot){ .fd = fd };
  transmit (link, &head, NULL, fd);
}

void
keeper_link_drop (KeeperLink *link, unsigned slot) {
  const struct keeper_message head = { .type = KEEPER_DROP, .slot = (uint8_t)slot };

  if (slot >= KEEPER_SLOTS || link->slots[slot].fd < 0)
    return;
  close (link->slots[slot].fd);
  link->slots[slot].fd = -1;
  transmit (link, &head, NULL, -1);
}

/* ---- streams ---- */

void
keeper_link_want (KeeperLink *link, enum keeper_stream stream, uint64_t epoch, uint64_t position, unsigned count) {
  const struct keeper_message head = { .type = KEEPER_WANT, .stream = (uint8_t)stream, .slot = KEEPER_NO_SLOT, .count = count,
                                       .epoch = epoch, .position = position };

  transmit (link, &head, NULL, -1);
}

void
keeper_link_send (KeeperLink *link, enum keeper_stream stream, uint64_t epoch, uint64_t number, const uint8_t *bytes, size_t n,
                  unsigned slot) {
  const struct keeper_message head = { .type = KEEPER_SEND, .stream = (uint8_t)stream, .slot = (uint8_t)slot, .epoch = epoch,
                                       .position = number, .n_bytes = (uint32_t)n };

  transmit (link, &head, bytes, -1);
}

void
keeper_link_set_channel (KeeperLink *link, uint64_t epoch, unsigned slot) {
  const struct keeper_message head = { .type = KEEPER_SET_CHANNEL, .stream = KEEPER_CHANNEL, .slot = (uint8_t)slot, .epoch = epoch };

  transmit (link, &head, NULL, -1);
}

void
keeper_link_close (KeeperLink *link, uint64_t epoch) {
  const struct keeper_message head = { .type = KEEPER_CLOSE, .slot = KEEPER_NO_SLOT, .epoch = epoch };

  /* All that came with the connection's bytes goes with it, there and here. */
  for (unsigned slot = KEEPER_SLOT_STREAM_FIRST; slot < KEEPER_SLOTS; slot++)
    if (link->slots[slot].fd >= 0) {
      close (link->slots[slot].fd);
      link->slots[slot].fd = -1;
    }
  link->hello.is_connected = 0;
  transmit (link, &head, NULL, -1);
}

void
keeper_link_good (KeeperLink *link) {
  const struct keeper_message head = { .type = KEEPER_GOOD, .slot = KEEPER_NO_SLOT };

  transmit (link, &head, NULL, -1);
}

void
keeper_link_replace (KeeperLink *link, enum keeper_program program) {
  const struct keeper_message head = { .type = KEEPER_REPLACE, .slot = KEEPER_NO_SLOT, .count = (uint32_t)program };

  transmit (link, &head, NULL, -1);
}
