/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What carries the bytes and descriptors of a vhost-user session, as the session sees it: the keeper (io/keeper-link), or the
 * front-end's socket itself (io/vhost-user-socket). Who offers it has this struct as its first member.
 *
 * Streams, positions and slots are those of core/keeper-wire.h. What comes is told with vhost_user_session_received and
 * _gone, never from within one of these functions.
 */
#ifndef DOMYBS_IO_VHOST_USER_TRANSPORT_H
#define DOMYBS_IO_VHOST_USER_TRANSPORT_H

#include <glib.h>

#include "core/keeper-wire.h"

typedef struct VhostUserTransport VhostUserTransport;

struct VhostUserTransport {
  /* Bytes before position are done with: the next thing to be told are the count bytes from there (or that they never come). */
  void (*want) (VhostUserTransport *transport, enum keeper_stream stream, uint64_t epoch, uint64_t position, unsigned count);
  /* Message number `number` of a stream; the descriptor in slot goes along (KEEPER_NO_SLOT: none). Never waits. */
  void (*send) (VhostUserTransport *transport, enum keeper_stream stream, uint64_t epoch, uint64_t number,
                const uint8_t *bytes, size_t n, unsigned slot);
  /* The descriptor in a slot, which stays the transport's; -1: nothing. */
  int (*fd) (const VhostUserTransport *transport, unsigned slot);
  /* Whether a slot holds something that came with bytes of MAIN at or after position. */
  gboolean (*is_ahead) (const VhostUserTransport *transport, unsigned slot, uint64_t position);
  /* A slot for a descriptor of ours, which is taken over in any case; KEEPER_NO_SLOT: there is no room. */
  unsigned (*put) (VhostUserTransport *transport, int fd);
  /* Closes it. KEEPER_NO_SLOT is ignored. */
  void (*drop) (VhostUserTransport *transport, unsigned slot);
  /* The backend channel is the descriptor in this slot from now on (KEEPER_NO_SLOT: there is none). */
  void (*set_channel) (VhostUserTransport *transport, uint64_t epoch, unsigned slot);
  /* The session closed itself, and is gone. NULL: that is the device's business. */
  void (*session_ended) (VhostUserTransport *transport);
};

/* Slots of any transport are below this. */
#define VHOST_USER_SLOTS_MAX 128u

static inline void
vhost_user_transport_want (VhostUserTransport *transport, enum keeper_stream stream, uint64_t epoch, uint64_t position,
                           unsigned count) {
  transport->want (transport, stream, epoch, position, count);
}

static inline void
vhost_user_transport_send (VhostUserTransport *transport, enum keeper_stream stream, uint64_t epoch, uint64_t number,
                           const uint8_t *bytes, size_t n, unsigned slot) {
  transport->send (transport, stream, epoch, number, bytes, n, slot);
}

static inline int
vhost_user_transport_fd (const VhostUserTransport *transport, unsigned slot) {
  return transport->fd (transport, slot);
}

static inline gboolean
vhost_user_transport_is_ahead (const VhostUserTransport *transport, unsigned slot, uint64_t position) {
  return transport->is_ahead (transport, slot, position);
}

static inline unsigned
vhost_user_transport_put (VhostUserTransport *transport, int fd) {
  return transport->put (transport, fd);
}

static inline void
vhost_user_transport_drop (VhostUserTransport *transport, unsigned slot) {
  transport->drop (transport, slot);
}

static inline void
vhost_user_transport_set_channel (VhostUserTransport *transport, uint64_t epoch, unsigned slot) {
  transport->set_channel (transport, epoch, slot);
}

#endif
