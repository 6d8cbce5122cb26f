/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The transport of a vhost-user session: messages, kicks, the backend channel, and how all that goes from worker to worker. */
#include "io/vhost-user-internal.h"
#include "core/crash-point.h"
#include "io/error.h"
#include "io/event-write.h"
#include "io/guest-map.h"
#include "io/sandbox-calls.h"

#include <errno.h>
#include <fcntl.h>
#include <glib-unix.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

SANDBOX_CALLS (SANDBOX_CALL (preadv2));

#define CHANNEL_REPLY_BYTES (VHU_HEADER_BYTES + 8u)

/* ---- end ---- */

void
vhost_user_session_drop (VhostUserSession *session, uint8_t *slot) {
  if (*slot != STATE_NONE && session->n_drops < G_N_ELEMENTS (session->drops))
    session->drops[session->n_drops++] = *slot;
  *slot = STATE_NONE;
}

uint64_t
vhost_user_session_connection (const VhostUserSession *session) {
  return session->connection;
}

uint64_t
vhost_user_session_channel_epoch (const VhostUserSession *session) {
  return session->channel_epoch;
}

void
vhost_user_session_free (VhostUserSession *session) {
  source_clear (&session->close_source);
  source_clear (&session->again_source);
  for (unsigned i = 0; i < VHOST_USER_QUEUES_MAX; i++)
    vhost_user_session_queue_clear (session, &session->queues[i]);
  vhost_user_session_unmap_all (session);
  vhost_user_session_forget_inflight (session);
  g_main_context_unref (session->context);
  g_free (session);
}

static gboolean
on_close (gpointer data) {
  VhostUserSession *session = data;
  VhostUserTransport *transport = session->transport;

  session->type->closed (session->device, session->close_why);
  vhost_user_session_free (session);
  if (transport->session_ended)
    transport->session_ended (transport);
  return G_SOURCE_REMOVE;
}

void
vhost_user_session_close (VhostUserSession *session, const char *why) {
  if (session->close_source)
    return; /* the first reason counts */
  session->close_why = why;
  /* Nothing of the peer is looked at any more. */
  source_clear (&session->again_source);
  for (unsigned i = 0; i < VHOST_USER_QUEUES_MAX; i++)
    source_clear (&session->queues[i].kick_source);
  session->close_source = g_idle_source_new ();
  g_source_set_priority (session->close_source, G_PRIORITY_DEFAULT);
  g_source_set_callback (session->close_source, on_close, session, NULL);
  g_source_attach (session->close_source, session->context);
}

/* ---- what goes out ---- */

static gboolean
put_out (VhostUserSession *session, enum keeper_stream stream, const uint8_t *bytes, size_t n, uint8_t slot) {
  if (session->out[stream].bytes || n == 0 || n > STATE_OUT_BYTES_MAX)
    return FALSE;
  memcpy (session->out[stream].buf, bytes, n);
  session->out[stream].bytes = n;
  session->out[stream].slot = slot;
  return TRUE;
}

gboolean
vhost_user_session_reply (VhostUserSession *session, const uint8_t *bytes, size_t n, uint8_t slot) {
  if (!put_out (session, KEEPER_MAIN, bytes, n, slot))
    return FALSE;
  session->sent++;
  return TRUE;
}

gboolean
vhost_user_session_has_output (const VhostUserSession *session) {
  return session->out[KEEPER_MAIN].bytes || session->out[KEEPER_CHANNEL].bytes || session->n_drops || session->want
         || session->channel_changed || session->channel_want;
}

void
vhost_user_session_settle (VhostUserSession *session) {
  if (session->type->settle)
    session->type->settle (session->device);
  else
    vhost_user_session_flush (session);
}

static void
ask_for_channel (VhostUserSession *session) {
  if (session->channel_slot != STATE_NONE)
    vhost_user_transport_want (session->transport, KEEPER_CHANNEL, session->channel_epoch, session->channel_consumed,
                               CHANNEL_REPLY_BYTES);
}

/* The number of a reply goes up with each (vhost_user_session_reply). */
static void
send_main (VhostUserSession *session) {
  vhost_user_transport_send (session->transport, KEEPER_MAIN, session->connection, session->sent, session->out[KEEPER_MAIN].buf,
                             session->out[KEEPER_MAIN].bytes, session->out[KEEPER_MAIN].slot);
}

/* The message has no number of its own in a state: saved sessions don't have it. */
static void
announce_config (VhostUserSession *session) {
  const uint64_t needed = 1ull << VHU_PROTOCOL_F_CONFIG | 1ull << VHU_PROTOCOL_F_BACKEND_REQ;
  uint8_t message[VHU_HEADER_BYTES];

  if ((session->protocol_features & needed) != needed || session->channel_slot == STATE_NONE)
    return;
  for (unsigned i = 0; i < session->type->n_queues; i++)
    if (session->queues[i].vq.state == VIRTQUEUE_READY
        && put_out (session, KEEPER_CHANNEL, message,
                    vhu_encode_backend (VHU_BACKEND_CONFIG_CHANGE, false, NULL, message, sizeof message), STATE_NONE)) {
      session->channel_sent++;
      session->config_changed = FALSE;
      return;
    }
}

void
vhost_user_session_config_changed (VhostUserSession *session) {
  if (!session->type->config_changes)
    return;
  session->config_changed = TRUE;
  vhost_user_session_settle (session);
}

void
vhost_user_session_flush (VhostUserSession *session) {
  if (session->config_changed)
    announce_config (session);
  if (session->channel_changed)
    vhost_user_transport_set_channel (session->transport, session->channel_epoch, session->channel_slot);
  if (session->out[KEEPER_MAIN].bytes)
    send_main (session);
  if (session->out[KEEPER_CHANNEL].bytes)
    vhost_user_transport_send (session->transport, KEEPER_CHANNEL, session->channel_epoch, session->channel_sent,
                               session->out[KEEPER_CHANNEL].buf, session->out[KEEPER_CHANNEL].bytes,
                               session->out[KEEPER_CHANNEL].slot);
  for (unsigned i = 0; i < session->n_drops; i++)
    vhost_user_transport_drop (session->transport, session->drops[i]);
  if (session->channel_changed || session->channel_want)
    ask_for_channel (session);
  if (session->want && !session->close_source)
    vhost_user_transport_want (session->transport, KEEPER_MAIN, session->connection, session->consumed, VHU_HEADER_BYTES);
  session->channel_changed = session->channel_want = session->want = FALSE;
  session->out[KEEPER_MAIN].bytes = session->out[KEEPER_CHANNEL].bytes = 0;
  session->n_drops = 0;
}

/* ---- receiving on the main socket ---- */

/* A message, or as much of it as was asked for. Returns why the session must close, or NULL. */
static const char *
handle_bytes (VhostUserSession *session, const uint8_t *bytes, size_t n, uint8_t *slots, unsigned n_slots) {
  struct vhu_header header;
  struct vhu_message message;
  const char *why;

  if (n < VHU_HEADER_BYTES)
    return "less than a message's header";
  why = vhu_decode_header (bytes, &header);
  if (why) {
    uint32_t request;

    memcpy (&request, bytes, sizeof request);
    g_message ("%s: request %u refused", session->type->name, request);
    return why;
  }
  if (n < VHU_HEADER_BYTES + header.bytes) {
    vhost_user_transport_want (session->transport, KEEPER_MAIN, session->connection, session->consumed,
                               VHU_HEADER_BYTES + header.bytes);
    return NULL;
  }
  why = vhu_decode (&header, bytes + VHU_HEADER_BYTES, n_slots, &message);
  if (!why) {
    session->in_message = TRUE;
    why = vhost_user_session_handle (session, &message, slots);
    session->in_message = FALSE;
  }
  if (why) {
    g_message ("%s: %s refused", session->type->name, vhu_request_name (header.request));
    return why;
  }
  for (unsigned i = 0; i < n_slots; i++)
    vhost_user_session_drop (session, &slots[i]); /* those that were not kept */
  session->consumed += n;
  session->want = session->stopping < 0; /* else when the queue has stopped */
  CRASH_POINT ("session-message");
  vhost_user_session_settle (session);
  return NULL;
}

static void
receive_main (VhostUserSession *session, const uint8_t *bytes, size_t n, const uint8_t *slots, unsigned n_slots, gboolean truncated) {
  uint8_t mine[VHU_FDS_MAX];
  const char *why = NULL;

  if (truncated || n_slots > VHU_FDS_MAX)
    why = "more file descriptors than any request has";
  if (!why) {
    memcpy (mine, slots, n_slots);
    why = handle_bytes (session, bytes, n, mine, n_slots);
  }
  if (!why)
    return;
  /* A refusal says so. It goes out without a commit: who finds the message again will refuse it again, and that reply has the
   * same number. */
  if (session->out[KEEPER_MAIN].bytes)
    send_main (session);
  vhost_user_session_close (session, why);
}

/* ---- queues ---- */

int
vhost_user_session_fd (const VhostUserSession *session, unsigned slot) {
  return vhost_user_transport_fd (session->transport, slot);
}

struct virtqueue *
vhost_user_session_queue (VhostUserSession *session, unsigned queue) {
  return &session->queues[queue].vq;
}

const struct guest_memory *
vhost_user_session_memory (VhostUserSession *session) {
  return &session->memory;
}

gboolean
vhost_user_session_queue_runs (VhostUserSession *session, unsigned queue) {
  const SessionQueue *q = &session->queues[queue];

  return q->started && q->enabled && q->vq.state == VIRTQUEUE_READY && !session->close_source;
}

static void
look_at_queue (VhostUserSession *session, unsigned index) {
  SessionQueue *queue = &session->queues[index];

  if (vhost_user_session_queue_runs (session, index))
    session->type->queue_ready (session->device, index);
  if (queue->vq.state == VIRTQUEUE_BROKEN && !queue->break_logged) {
    queue->break_logged = TRUE;
    if (log_limit_pass (&session->break_log))
      g_warning ("%s: queue %u is closed until the guest sets it up anew: %s", session->type->name, index,
                 queue->vq.broken_why);
    if (queue->err_slot != STATE_NONE)
      event_write (vhost_user_session_fd (session, queue->err_slot));
  }
  vhost_user_session_memory_is_sound (session);
  vhost_user_session_settle (session);
}

static gboolean
on_again (gpointer data) {
  VhostUserSession *session = data;
  const uint32_t queues = session->again_queues;

  session->again_queues = 0;
  source_clear (&session->again_source);
  for (unsigned i = 0; i < session->type->n_queues; i++)
    if (queues & (1u << i))
      look_at_queue (session, i);
  return G_SOURCE_REMOVE;
}

void
vhost_user_session_queue_again (VhostUserSession *session, unsigned queue) {
  if (session->close_source)
    return;
  session->again_queues |= 1u << queue;
  if (session->again_source)
    return;
  session->again_source = g_idle_source_new ();
  g_source_set_priority (session->again_source, G_PRIORITY_DEFAULT);
  g_source_set_callback (session->again_source, on_again, session, NULL);
  g_source_attach (session->again_source, session->context);
}

void
vhost_user_session_queue_break (VhostUserSession *session, unsigned queue, const char *why) {
  struct virtqueue *vq = &session->queues[queue].vq;

  vq->state = VIRTQUEUE_BROKEN;
  vq->broken_why = why;
  vhost_user_session_queue_again (session, queue); /* logs it */
}

struct kick {
  VhostUserSession *session;
  unsigned queue;
};

static gboolean
on_kick (gint fd, GIOCondition condition, gpointer data) {
  const struct kick *kick = data;
  VhostUserSession *session = kick->session;
  const unsigned queue = kick->queue;
  uint64_t count;
  struct iovec iov = { &count, sizeof count };
  /* RWF_NOWAIT: the descriptor's blocking mode is shared with the peer, who could change it under us. */
  const ssize_t n = preadv2 (fd, &iov, 1, -1, RWF_NOWAIT);

  if (n < 0 && errno != EAGAIN && errno != EINTR) {
    vhost_user_session_close (session, "a queue's kick descriptor can't be read");
    return G_SOURCE_REMOVE;
  }
  if (n > 0)
    look_at_queue (session, queue);
  return g_source_is_destroyed (g_main_current_source ()) ? G_SOURCE_REMOVE : G_SOURCE_CONTINUE;
}

void
vhost_user_session_watch_kick (VhostUserSession *session, unsigned queue) {
  struct kick *kick = g_new (struct kick, 1);
  SessionQueue *q = &session->queues[queue];

  *kick = (struct kick){ session, queue };
  q->kick_source = g_unix_fd_source_new (vhost_user_session_fd (session, q->kick_slot), G_IO_IN);
  g_source_set_callback (q->kick_source, G_SOURCE_FUNC (on_kick), kick, g_free);
  g_source_attach (q->kick_source, session->context);
}

void
vhost_user_session_signal (VhostUserSession *session, unsigned queue) {
  SessionQueue *q = &session->queues[queue];

  if (q->call_slot == STATE_NONE || !virtqueue_should_signal (&q->vq))
    return;
  if (!event_write (vhost_user_session_fd (session, q->call_slot)))
    vhost_user_session_close (session, "a queue's call descriptor can't be written");
}

void
vhost_user_session_signal_anyway (VhostUserSession *session, unsigned queue) {
  const int fd = vhost_user_session_fd (session, session->queues[queue].call_slot);

  if (fd >= 0)
    event_write (fd);
}

gboolean
vhost_user_session_has_own_memory (VhostUserSession *session) {
  for (unsigned i = 0; i < session->memory.n_regions; i++)
    if (session->memory.regions[i].own)
      return TRUE;
  return FALSE;
}

gboolean
vhost_user_session_memory_is_sound (VhostUserSession *session) {
  const unsigned breaks = guest_map_breaks ();
  gboolean sound = TRUE;

  if (breaks == session->breaks_seen)
    return TRUE;
  for (unsigned i = 0; i < session->memory.n_regions; i++)
    sound &= !guest_map_is_broken (session->memory.regions[i].host);
  for (unsigned i = 0; i < session->leaving.n_regions; i++)
    sound &= !guest_map_is_broken (session->leaving.regions[i].host);
  sound &= !guest_map_is_broken (session->inflight.memory);
  if (sound)
    session->breaks_seen = breaks;
  else
    vhost_user_session_close (session, "the front-end took away memory that it had given us");
  return sound;
}

/* ---- backend channel ---- */

static void
drop_channel (VhostUserSession *session) {
  const gboolean was_open = session->map_open;

  if (session->channel_slot == STATE_NONE)
    return;
  vhost_user_session_drop (session, &session->channel_slot);
  session->channel_epoch++;
  session->channel_consumed = session->channel_sent = 0;
  session->channel_changed = TRUE;
  session->channel_want = FALSE;
  session->out[KEEPER_CHANNEL].bytes = 0;
  session->map_open = FALSE;
  if (was_open)
    session->type->map_answered (session->device, FALSE);
}

void
vhost_user_session_set_channel (VhostUserSession *session, uint8_t slot) {
  drop_channel (session);
  session->channel_slot = slot;
  session->channel_epoch++;
  session->channel_consumed = session->channel_sent = 0;
  session->channel_changed = TRUE;
}

static void
receive_channel (VhostUserSession *session, const uint8_t *bytes, size_t n) {
  const gboolean was_open = session->map_open;
  const char *why;
  uint32_t request;
  uint64_t value;

  if (n != CHANNEL_REPLY_BYTES)
    return;
  why = vhu_decode_backend_reply (bytes, &request, &value);
  if (!why && (!was_open || request != VHU_BACKEND_SHMEM_MAP))
    why = "an answer on the backend channel that nothing was asked for";
  if (why) {
    vhost_user_session_close (session, why);
    return;
  }
  session->map_open = FALSE;
  session->channel_consumed += n;
  session->channel_want = TRUE;
  session->type->map_answered (session->device, value == 0);
  vhost_user_session_settle (session);
}

gboolean
vhost_user_session_map (VhostUserSession *session, uint8_t shmem_id, unsigned slot, uint64_t fd_offset, uint64_t shm_offset,
                        uint64_t bytes, GError **error) {
  const uint64_t needed = (1ull << VHU_PROTOCOL_F_SHMEM) | (1ull << VHU_PROTOCOL_F_BACKEND_REQ)
                          | (1ull << VHU_PROTOCOL_F_BACKEND_SEND_FD) | (1ull << VHU_PROTOCOL_F_REPLY_ACK);
  const struct vhu_shmem_map map = { shmem_id, fd_offset, shm_offset, bytes, VHU_SHMEM_MAP_F_RW };
  uint8_t message[VHU_HEADER_BYTES + VHU_SHMEM_MAP_BYTES];
  const char *why = NULL;

  if (session->map_open) {
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_IN_USE, "an earlier map is still being answered by the front-end");
    return FALSE;
  }
  if ((session->protocol_features & needed) != needed)
    why = "the front-end has no shared-memory regions (QEMU 11.0 or later is needed)";
  else if (session->channel_slot == STATE_NONE)
    why = "the front-end gave no backend channel";
  else if (!put_out (session, KEEPER_CHANNEL, message, vhu_encode_backend (VHU_BACKEND_SHMEM_MAP, true, &map, message, sizeof message),
                     (uint8_t)slot))
    why = "the backend channel takes no message";
  if (why) {
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_PROTOCOL, "can't map the window into the guest: %s", why);
    return FALSE;
  }
  session->channel_sent++;
  session->map_open = TRUE;
  return TRUE;
}

/* ---- from the keeper ---- */

void
vhost_user_session_received (VhostUserSession *session, enum keeper_stream stream, uint64_t epoch, uint64_t position,
                             const uint8_t *bytes, size_t n, const uint8_t *slots, unsigned n_slots, gboolean truncated) {
  if (session->close_source)
    return;
  if (stream == KEEPER_MAIN && epoch == session->connection && position == session->consumed)
    receive_main (session, bytes, n, slots, n_slots, truncated);
  else if (stream == KEEPER_CHANNEL && epoch == session->channel_epoch && position == session->channel_consumed) {
    for (unsigned i = 0; i < n_slots; i++) /* no answer has any */
      vhost_user_transport_drop (session->transport, slots[i]);
    receive_channel (session, bytes, n);
  }
}

void
vhost_user_session_gone (VhostUserSession *session, enum keeper_stream stream, uint64_t epoch, uint64_t end_position,
                         enum keeper_gone why) {
  if (session->close_source)
    return;
  if (stream == KEEPER_MAIN && epoch == session->connection) {
    vhost_user_session_close (session, why == KEEPER_GONE_NO_READ ? "the front-end does not read its replies"
                                       : end_position > session->consumed ? "the front-end closed in the middle of a message"
                                                                          : NULL);
  } else if (stream == KEEPER_CHANNEL && epoch == session->channel_epoch) {
    if (why == KEEPER_GONE_PARTIAL) {
      vhost_user_session_close (session, "the backend channel took half a message");
      return;
    }
    drop_channel (session); /* QEMU does this when the device stops; a new one may come */
    vhost_user_session_settle (session);
  }
}

/* ---- life ---- */

VhostUserSession *
vhost_user_session_new (VhostUserTransport *transport, uint64_t connection, uint64_t channel_epoch,
                        const VhostUserDevice *device_type, gpointer device) {
  VhostUserSession *session = g_new0 (VhostUserSession, 1);

  g_assert (device_type->n_queues <= VHOST_USER_QUEUES_MAX && device_type->config_bytes <= VHU_CONFIG_BYTES_MAX);
  g_assert (!device_type->mem_slots || !device_type->n_shmem);
  session->type = device_type;
  session->device = device;
  session->context = g_main_context_ref_thread_default ();
  session->transport = transport;
  session->stopping = -1;
  session->breaks_seen = guest_map_breaks ();
  session->connection = connection;
  session->channel_epoch = channel_epoch;
  session->channel_slot = STATE_NONE;
  for (unsigned i = 0; i < VHOST_USER_QUEUES_MAX; i++)
    session->queues[i].kick_slot = session->queues[i].call_slot = session->queues[i].err_slot = STATE_NONE;
  for (unsigned i = 0; i < GUEST_REGIONS_MAX; i++)
    session->region_slots[i] = STATE_NONE;
  session->want = TRUE;
  return session;
}
