/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The transport of a vhost-user session: sockets, descriptors, kicks, and the backend channel. */
#include "io/vhost-user-internal.h"
#include "io/error.h"
#include "io/guest-map.h"

#include <errno.h>
#include <fcntl.h>
#include <glib-unix.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Replies that may wait for a peer. QEMU has one request open at a time; a peer that lets this fill up does not read. */
#define OUT_BYTES_MAX (16 * 1024)
/* Messages handled in one turn of the main loop, so that a flood leaves turns for others. */
#define MESSAGES_PER_TURN 16

void
vhost_user_close_fd (int *fd) {
  if (*fd >= 0)
    close (*fd);
  *fd = -1;
}

/* ---- end ---- */

void
vhost_user_session_free (VhostUserSession *session) {
  source_clear (&session->source);
  source_clear (&session->out_source);
  source_clear (&session->channel_source);
  source_clear (&session->close_source);
  source_clear (&session->again_source);
  for (unsigned i = 0; i < VHOST_USER_QUEUES_MAX; i++)
    vhost_user_session_queue_clear (&session->queues[i]);
  vhost_user_session_unmap_all (session);
  for (unsigned i = 0; i < session->n_in_fds; i++)
    vhost_user_close_fd (&session->in_fds[i]);
  vhost_user_close_fd (&session->channel_fd);
  vhost_user_close_fd (&session->fd);
  g_byte_array_unref (session->out);
  g_main_context_unref (session->context);
  g_free (session);
}

static gboolean
on_close (gpointer data) {
  VhostUserSession *session = data;

  session->type->closed (session->device, session->close_why);
  vhost_user_session_free (session);
  return G_SOURCE_REMOVE;
}

void
vhost_user_session_close (VhostUserSession *session, const char *why) {
  if (session->close_source)
    return; /* the first reason counts */
  session->close_why = why;
  /* Nothing of the peer is looked at any more. */
  source_clear (&session->source);
  source_clear (&session->out_source);
  source_clear (&session->channel_source);
  source_clear (&session->again_source);
  for (unsigned i = 0; i < VHOST_USER_QUEUES_MAX; i++)
    source_clear (&session->queues[i].kick_source);
  session->close_source = g_idle_source_new ();
  g_source_set_priority (session->close_source, G_PRIORITY_DEFAULT);
  g_source_set_callback (session->close_source, on_close, session, NULL);
  g_source_attach (session->close_source, session->context);
}

/* ---- sending on the main socket ---- */

static gboolean
on_writable (gint fd, GIOCondition condition, gpointer data) {
  VhostUserSession *session = data;
  const ssize_t n = send (fd, session->out->data, session->out->len, MSG_NOSIGNAL | MSG_DONTWAIT);

  if (n < 0 && errno != EAGAIN && errno != EINTR) {
    vhost_user_session_close (session, "can't send to the front-end");
    return G_SOURCE_REMOVE;
  }
  if (n > 0)
    g_byte_array_remove_range (session->out, 0, (guint)n);
  if (session->out->len)
    return G_SOURCE_CONTINUE;
  source_clear (&session->out_source);
  return G_SOURCE_REMOVE;
}

gboolean
vhost_user_session_send (VhostUserSession *session, const uint8_t *bytes, size_t n) {
  ssize_t sent = 0;

  if (session->out->len == 0)
    sent = send (session->fd, bytes, n, MSG_NOSIGNAL | MSG_DONTWAIT);
  if (sent < 0)
    sent = 0; /* a dead socket shows when it is read */
  if ((size_t)sent == n)
    return TRUE;
  if (session->out->len + n - (size_t)sent > OUT_BYTES_MAX)
    return FALSE;
  g_byte_array_append (session->out, bytes + sent, (guint)(n - (size_t)sent));
  if (!session->out_source)
    session->out_source = source_fd (session->context, session->fd, G_IO_OUT, on_writable, session);
  return TRUE;
}

/* ---- receiving on the main socket ---- */

/* Collects the descriptors of a message. More than any message has: refused, and what fitted is closed with the session. */
static const char *
take_fds (VhostUserSession *session, struct msghdr *msg) {
  for (struct cmsghdr *cmsg = CMSG_FIRSTHDR (msg); cmsg; cmsg = CMSG_NXTHDR (msg, cmsg)) {
    const int *fds = (const int *)CMSG_DATA (cmsg);
    size_t n;

    if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS)
      continue;
    n = (cmsg->cmsg_len - CMSG_LEN (0)) / sizeof (int);
    for (size_t i = 0; i < n; i++) {
      if (session->n_in_fds == VHU_FDS_MAX) {
        for (; i < n; i++)
          close (fds[i]);
        return "more file descriptors than any request has";
      }
      session->in_fds[session->n_in_fds++] = fds[i];
    }
  }
  return msg->msg_flags & MSG_CTRUNC ? "more file descriptors than any request has" : NULL;
}

/* Reads as much of the wanted bytes as there is. 1: all there; 0: wait; -1: over (*ret_why may stay NULL: closed). */
static int
receive (VhostUserSession *session, size_t wanted, const char **ret_why) {
  while (session->in_bytes < wanted) {
    union {
      char buf[CMSG_SPACE (sizeof (int) * (VHU_FDS_MAX + 1))];
      struct cmsghdr align;
    } control;
    struct iovec iov = { session->in + session->in_bytes, wanted - session->in_bytes };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buf, .msg_controllen = sizeof control.buf };
    const ssize_t n = recvmsg (session->fd, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
      return 0;
    if (n <= 0) {
      *ret_why = session->in_bytes ? "the front-end closed in the middle of a message" : NULL;
      return -1;
    }
    *ret_why = take_fds (session, &msg);
    if (*ret_why)
      return -1;
    session->in_bytes += (size_t)n;
  }
  return 1;
}

/* One message, if it is all there: 1 handled, 0 wait, -1 the session is over. */
static int
handle_one (VhostUserSession *session, const char **ret_why) {
  struct vhu_header header;
  struct vhu_message message;
  int result = receive (session, VHU_HEADER_BYTES, ret_why);

  if (result <= 0)
    return result;
  *ret_why = vhu_decode_header (session->in, &header);
  if (*ret_why) {
    g_message ("%s: request %u refused", session->type->name, *(const uint32_t *)(const void *)session->in);
    return -1;
  }
  result = receive (session, VHU_HEADER_BYTES + header.bytes, ret_why);
  if (result <= 0)
    return result;
  *ret_why = vhu_decode (&header, session->in + VHU_HEADER_BYTES, session->n_in_fds, &message);
  if (!*ret_why)
    *ret_why = vhost_user_session_handle (session, &message, session->in_fds);
  for (unsigned i = 0; i < session->n_in_fds; i++)
    vhost_user_close_fd (&session->in_fds[i]); /* those that were not kept */
  session->n_in_fds = 0;
  session->in_bytes = 0;
  if (*ret_why)
    g_message ("%s: %s refused", session->type->name, vhu_request_name (header.request));
  return *ret_why ? -1 : 1;
}

static gboolean
on_readable (gint fd, GIOCondition condition, gpointer data) {
  VhostUserSession *session = data;

  for (int i = 0; i < MESSAGES_PER_TURN; i++) {
    const char *why = NULL;
    const int result = handle_one (session, &why);

    if (session->close_source)
      return G_SOURCE_REMOVE; /* a device function closed the session; the source is gone */
    if (result < 0) {
      vhost_user_session_close (session, why);
      return G_SOURCE_REMOVE;
    }
    if (result == 0)
      break;
  }
  return G_SOURCE_CONTINUE;
}

/* ---- queues ---- */

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

/* Adds to an eventfd of the peer's. Its blocking mode is shared with the peer, so a full counter is looked for first: that is a
 * signal that waits already. FALSE: it is no good any more. */
static gboolean
signal_fd (int fd) {
  struct pollfd poll_fd = { .fd = fd, .events = POLLOUT };
  const uint64_t one = 1;

  if (poll (&poll_fd, 1, 0) <= 0 || !(poll_fd.revents & POLLOUT))
    return TRUE;
  return write (fd, &one, sizeof one) == sizeof one || errno == EAGAIN || errno == EINTR;
}

static void
look_at_queue (VhostUserSession *session, unsigned index) {
  SessionQueue *queue = &session->queues[index];

  if (vhost_user_session_queue_runs (session, index))
    session->type->queue_ready (session->device, index);
  if (queue->vq.state == VIRTQUEUE_BROKEN && !queue->break_logged) {
    queue->break_logged = TRUE;
    g_warning ("%s: queue %u is closed until the guest sets it up anew: %s", session->type->name, index, queue->vq.broken_why);
    if (queue->err_fd >= 0)
      signal_fd (queue->err_fd);
  }
  vhost_user_session_memory_is_sound (session);
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
  q->kick_source = g_unix_fd_source_new (q->kick_fd, G_IO_IN);
  g_source_set_callback (q->kick_source, G_SOURCE_FUNC (on_kick), kick, g_free);
  g_source_attach (q->kick_source, session->context);
}

void
vhost_user_session_signal (VhostUserSession *session, unsigned queue) {
  SessionQueue *q = &session->queues[queue];

  if (q->call_fd < 0 || !virtqueue_should_signal (&q->vq))
    return;
  if (!signal_fd (q->call_fd))
    vhost_user_session_close (session, "a queue's call descriptor can't be written");
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
  for (unsigned i = 0; i < session->memory.n_regions; i++) {
    if (!guest_map_is_broken (session->memory.regions[i].host))
      continue;
    vhost_user_session_close (session, "the front-end took away memory that it had given us");
    return FALSE;
  }
  return TRUE;
}

/* ---- backend channel ---- */

static void
drop_channel (VhostUserSession *session) {
  const VhostUserMapDone done = session->map_done;

  source_clear (&session->channel_source);
  vhost_user_close_fd (&session->channel_fd);
  session->channel_in_bytes = 0;
  session->map_done = NULL;
  if (done)
    done (session->device, FALSE);
}

static gboolean
on_channel (gint fd, GIOCondition condition, gpointer data) {
  VhostUserSession *session = data;
  const size_t wanted = sizeof session->channel_in - session->channel_in_bytes;
  const ssize_t n = recv (fd, session->channel_in + session->channel_in_bytes, wanted, MSG_DONTWAIT);
  VhostUserMapDone done;
  const char *why;
  uint32_t request;
  uint64_t value;

  if (n < 0 && (errno == EAGAIN || errno == EINTR))
    return G_SOURCE_CONTINUE;
  if (n <= 0) {
    drop_channel (session); /* QEMU does this when the device stops; a new one may come */
    return G_SOURCE_REMOVE;
  }
  session->channel_in_bytes += (size_t)n;
  if (session->channel_in_bytes < sizeof session->channel_in)
    return G_SOURCE_CONTINUE;
  session->channel_in_bytes = 0;
  done = session->map_done;
  session->map_done = NULL;
  why = vhu_decode_backend_reply (session->channel_in, &request, &value);
  if (!why && (!done || request != VHU_BACKEND_SHMEM_MAP))
    why = "an answer on the backend channel that nothing was asked for";
  if (why) {
    vhost_user_session_close (session, why);
    return G_SOURCE_REMOVE;
  }
  done (session->device, value == 0);
  return g_source_is_destroyed (g_main_current_source ()) ? G_SOURCE_REMOVE : G_SOURCE_CONTINUE;
}

void
vhost_user_session_set_channel (VhostUserSession *session, int fd) {
  drop_channel (session);
  session->channel_fd = fd;
  session->channel_source = source_fd (session->context, fd, G_IO_IN, on_channel, session);
}

/* One sendmsg per message: QEMU blocks its main loop on half a message. */
static gboolean
send_on_channel (VhostUserSession *session, const uint8_t *bytes, size_t n, int fd) {
  union {
    char buf[CMSG_SPACE (sizeof (int))];
    struct cmsghdr align;
  } control = { { 0 } };
  struct iovec iov = { (void *)bytes, n };
  struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
  ssize_t sent;

  if (fd >= 0) {
    struct cmsghdr *cmsg;

    msg.msg_control = control.buf;
    msg.msg_controllen = sizeof control.buf;
    cmsg = CMSG_FIRSTHDR (&msg);
    cmsg->cmsg_level = SOL_SOCKET;
    cmsg->cmsg_type = SCM_RIGHTS;
    cmsg->cmsg_len = CMSG_LEN (sizeof (int));
    memcpy (CMSG_DATA (cmsg), &fd, sizeof fd);
  }
  do
    sent = sendmsg (session->channel_fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
  while (sent < 0 && errno == EINTR);
  if (sent >= 0 && (size_t)sent != n)
    vhost_user_session_close (session, "the backend channel took half a message");
  return sent >= 0 && (size_t)sent == n;
}

gboolean
vhost_user_session_map (VhostUserSession *session, uint8_t shmem_id, int fd, uint64_t fd_offset, uint64_t shm_offset,
                        uint64_t bytes, VhostUserMapDone done, GError **error) {
  const uint64_t needed = (1ull << VHU_PROTOCOL_F_SHMEM) | (1ull << VHU_PROTOCOL_F_BACKEND_REQ)
                          | (1ull << VHU_PROTOCOL_F_BACKEND_SEND_FD) | (1ull << VHU_PROTOCOL_F_REPLY_ACK);
  const struct vhu_shmem_map map = { shmem_id, fd_offset, shm_offset, bytes, VHU_SHMEM_MAP_F_RW };
  uint8_t message[VHU_HEADER_BYTES + VHU_SHMEM_MAP_BYTES];
  const char *why = NULL;

  if (session->map_done) {
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_IN_USE, "an earlier map is still being answered by the front-end");
    return FALSE;
  }
  if ((session->protocol_features & needed) != needed)
    why = "the front-end has no shared-memory regions (QEMU 11.0 or later is needed)";
  else if (session->channel_fd < 0)
    why = "the front-end gave no backend channel";
  if (!why) {
    const size_t n = vhu_encode_backend (VHU_BACKEND_SHMEM_MAP, true, &map, message, sizeof message);

    if (!send_on_channel (session, message, n, fd))
      why = "the backend channel takes no message";
  }
  if (why) {
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_PROTOCOL, "can't map the window into the guest: %s", why);
    return FALSE;
  }
  session->map_done = done;
  return TRUE;
}

/* ---- life ---- */

VhostUserSession *
vhost_user_session_new (int fd, const VhostUserDevice *device_type, gpointer device) {
  VhostUserSession *session = g_new0 (VhostUserSession, 1);

  g_assert (device_type->n_queues <= VHOST_USER_QUEUES_MAX && device_type->config_bytes <= VHU_CONFIG_BYTES_MAX);
  session->type = device_type;
  session->device = device;
  session->context = g_main_context_ref_thread_default ();
  session->fd = fd;
  session->channel_fd = -1;
  session->out = g_byte_array_new ();
  for (unsigned i = 0; i < VHOST_USER_QUEUES_MAX; i++)
    session->queues[i].kick_fd = session->queues[i].call_fd = session->queues[i].err_fd = -1;
  session->source = source_fd (session->context, fd, G_IO_IN, on_readable, session);
  return session;
}
