/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What each vhost-user message does to a session. */
#include "io/vhost-user-internal.h"
#include "io/sandbox-calls.h"

#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

SANDBOX_CALLS (SANDBOX_CALL_IF (fcntl, 1, ~0u, F_GETFL), SANDBOX_CALL_IF (fcntl, 1, ~0u, F_SETFL), SANDBOX_CALL (getsockopt),
               SANDBOX_CALL (readlink), SANDBOX_CALL (readlinkat));

#define BIT(n) (1ull << (n))

static const uint64_t ring_features = BIT (VIRTIO_F_VERSION_1_BIT) | BIT (VIRTIO_RING_F_INDIRECT_DESC_BIT)
                                      | BIT (VIRTIO_RING_F_EVENT_IDX_BIT) | BIT (VHU_F_PROTOCOL_FEATURES);

/* CONFIGURE_MEM_SLOTS (bit 15) is left out on purpose where a device has shared memory: with it a guest's reboot crashes QEMU
 * 11.1, and more than 512 maps abort it. */
static uint64_t
offered_protocol_features (const VhostUserSession *session) {
  uint64_t features = BIT (VHU_PROTOCOL_F_MQ) | BIT (VHU_PROTOCOL_F_REPLY_ACK) | BIT (VHU_PROTOCOL_F_BACKEND_REQ)
                      | BIT (VHU_PROTOCOL_F_CONFIG);

  if (session->type->reset)
    features |= BIT (VHU_PROTOCOL_F_RESET_DEVICE);
  if (session->type->inflight)
    features |= BIT (VHU_PROTOCOL_F_INFLIGHT_SHMFD);
  if (session->type->mem_slots)
    features |= BIT (VHU_PROTOCOL_F_CONFIGURE_MEM_SLOTS);
  if (session->type->n_shmem)
    features |= BIT (VHU_PROTOCOL_F_BACKEND_SEND_FD) | BIT (VHU_PROTOCOL_F_SHMEM);
  return features;
}

static gboolean
has (const VhostUserSession *session, enum vhu_protocol_feature feature) {
  return (session->protocol_features & BIT (feature)) != 0;
}

/* ---- replies ---- */

static const char *
send_reply (VhostUserSession *session, const uint8_t *bytes, size_t n) {
  return vhost_user_session_reply (session, bytes, n, STATE_NONE) ? NULL : "a reply that can't be sent";
}

static const char *
reply_u64 (VhostUserSession *session, uint32_t request, uint64_t value) {
  uint8_t bytes[VHU_HEADER_BYTES + 8];

  return send_reply (session, bytes, vhu_encode_u64 (request, value, bytes, sizeof bytes));
}

/* ---- queues ---- */

/* The guest chose where its rings are and which features it accepts: what is wrong with those breaks the queue, never the
 * session. */
void
vhost_user_session_resolve_queue (VhostUserSession *session, unsigned index) {
  SessionQueue *queue = &session->queues[index];
  const char *why;

  queue->break_logged = FALSE;
  if (!queue->started || !queue->vq.have_addr || session->memory.n_regions == 0)
    return;
  queue->vq.indirect = (session->features & BIT (VIRTIO_RING_F_INDIRECT_DESC_BIT)) != 0;
  queue->vq.event_idx = (session->features & BIT (VIRTIO_RING_F_EVENT_IDX_BIT)) != 0;
  if (!(session->features & BIT (VIRTIO_F_VERSION_1_BIT)))
    vhost_user_session_queue_break (session, index, "the driver did not accept VIRTIO_F_VERSION_1");
  else if (virtqueue_resolve (&queue->vq, &session->memory, &why))
    vhost_user_session_track (session, index);
  /* It may have been kicked while it had no rings; and if it is broken, that is logged. */
  vhost_user_session_queue_again (session, index);
}

void
vhost_user_session_queue_clear (VhostUserSession *session, SessionQueue *queue) {
  virtqueue_unresolve (&queue->vq);
  source_clear (&queue->kick_source);
  vhost_user_session_drop (session, &queue->kick_slot);
  vhost_user_session_drop (session, &queue->call_slot);
  vhost_user_session_drop (session, &queue->err_slot);
  queue->started = queue->enabled = queue->tracked = FALSE;
}

/* Only eventfds can be used without a risk of blocking, or of a descriptor that is always readable. */
static gboolean
is_eventfd (int fd) {
  char link[64], target[64];
  ssize_t n;

  g_snprintf (link, sizeof link, "/proc/self/fd/%d", fd);
  n = readlink (link, target, sizeof target - 1);
  if (n < 0)
    return FALSE;
  target[n] = '\0';
  return g_str_has_prefix (target, "anon_inode:[eventfd");
}

static const char *
set_vring_fd (VhostUserSession *session, const struct vhu_message *message, uint8_t *slots) {
  const unsigned index = message->u64 & 0xff;
  const gboolean no_fd = (message->u64 & VHU_VRING_NOFD_MASK) != 0;
  SessionQueue *queue;
  uint8_t *slot;

  if (message->u64 & ~0x1ffull)
    return "unknown bits beside a queue's number";
  if (index >= session->type->n_queues)
    return "no such queue";
  queue = &session->queues[index];
  slot = message->request == VHU_SET_VRING_KICK   ? &queue->kick_slot
         : message->request == VHU_SET_VRING_CALL ? &queue->call_slot
                                                  : &queue->err_slot;
  if (no_fd && message->request == VHU_SET_VRING_KICK)
    return "a queue without a kick descriptor: polling is not supported";
  if (!no_fd) {
    const int fd = vhost_user_session_fd (session, slots[0]);
    const int flags = fcntl (fd, F_GETFL);

    if (!is_eventfd (fd))
      return "a queue's descriptor is not an eventfd";
    if (flags < 0 || fcntl (fd, F_SETFL, flags | O_NONBLOCK) < 0)
      return "a queue's descriptor can't be made non-blocking";
  }
  if (message->request == VHU_SET_VRING_KICK)
    source_clear (&queue->kick_source);
  vhost_user_session_drop (session, slot);
  if (!no_fd) {
    *slot = slots[0];
    slots[0] = STATE_NONE;
  }
  /* Who was here before may have died between an answer and its signal. (Of saved sessions, _resume thinks of that.) */
  if (message->request == VHU_SET_VRING_CALL && session->type->inflight)
    vhost_user_session_signal_anyway (session, index);
  if (message->request == VHU_SET_VRING_KICK) {
    queue->started = TRUE;
    /* Without protocol features there is no SET_VRING_ENABLE: the kick descriptor enables. */
    if (!(session->features & BIT (VHU_F_PROTOCOL_FEATURES)))
      queue->enabled = TRUE;
    vhost_user_session_watch_kick (session, index);
    vhost_user_session_resolve_queue (session, index);
  }
  return NULL;
}

static const char *
set_vring_addr (VhostUserSession *session, const struct vhu_vring_addr *addr) {
  SessionQueue *queue;

  if (addr->index >= session->type->n_queues)
    return "no such queue";
  if (addr->flags)
    return "logging of the used ring was not negotiated";
  queue = &session->queues[addr->index];
  queue->vq.addr = *addr;
  queue->vq.have_addr = TRUE;
  vhost_user_session_resolve_queue (session, addr->index);
  return NULL;
}

const char *
vhost_user_session_queue_stopped (VhostUserSession *session, unsigned index) {
  SessionQueue *queue = &session->queues[index];
  const struct vhu_vring_state reply = { index, queue->vq.next_avail };
  uint8_t bytes[VHU_HEADER_BYTES + 8];

  virtqueue_unresolve (&queue->vq);
  source_clear (&queue->kick_source);
  vhost_user_session_drop (session, &queue->kick_slot);
  queue->started = queue->tracked = FALSE;
  vhost_user_session_all_left (session, queue);
  session->stopping = -1;
  return send_reply (session, bytes, vhu_encode_state (VHU_GET_VRING_BASE, &reply, bytes, sizeof bytes));
}

static const char *
stop_queue (VhostUserSession *session, unsigned index) {
  session->stopping = (int)index;
  if (session->queues[index].vq.state != VIRTQUEUE_IDLE || vhost_user_session_in_flight (session, index))
    if (!session->type->queue_stop (session->device, index) || session->stopping < 0)
      return NULL; /* it says when it has stopped, or has said so already */
  return vhost_user_session_queue_stopped (session, index);
}

static const char *
set_vring_state (VhostUserSession *session, const struct vhu_message *message) {
  const struct vhu_vring_state *state = &message->state;
  SessionQueue *queue;

  if (state->index >= session->type->n_queues)
    return "no such queue";
  queue = &session->queues[state->index];
  switch (message->request) {
  case VHU_SET_VRING_NUM:
    if (queue->vq.state != VIRTQUEUE_IDLE)
      return "the size of a running queue can't change";
    return virtqueue_set_num (&queue->vq, state->num) ? NULL : "a queue's size must be a power of two up to 1024";
  case VHU_SET_VRING_BASE:
    if (queue->vq.state != VIRTQUEUE_IDLE)
      return "the position of a running queue can't change";
    if (state->num > UINT16_MAX)
      return "a queue's position is out of range";
    queue->vq.next_avail = (uint16_t)state->num;
    return NULL;
  case VHU_SET_VRING_ENABLE:
    if (state->num > 1)
      return "SET_VRING_ENABLE with neither 0 nor 1";
    queue->enabled = state->num == 1;
    if (queue->enabled)
      vhost_user_session_queue_again (session, state->index);
    return NULL;
  default: /* GET_VRING_BASE: stops the queue */
    return stop_queue (session, state->index);
  }
}

/* ---- features, config, the rest ---- */

static const char *
set_features (VhostUserSession *session, uint64_t features) {
  if (features & ~(ring_features | session->type->features))
    return "SET_FEATURES with a feature that was not offered";
  session->features = features;
  session->have_features = TRUE;
  return NULL;
}

static const char *
set_protocol_features (VhostUserSession *session, uint64_t features) {
  if (features & ~offered_protocol_features (session))
    return "SET_PROTOCOL_FEATURES with a feature that was not offered";
  session->protocol_features = features;
  session->have_protocol_features = TRUE;
  return NULL;
}

static const char *
get_config (VhostUserSession *session, const struct vhu_config *asked) {
  uint8_t space[VHU_CONFIG_BYTES_MAX] = { 0 };
  uint8_t bytes[VHU_HEADER_BYTES + VHU_PAYLOAD_BYTES_MAX];
  struct vhu_config reply = { .offset = asked->offset, .bytes = asked->bytes, .flags = asked->flags };

  if (asked->offset + asked->bytes > session->type->config_bytes)
    return send_reply (session, bytes, vhu_encode_empty_config (bytes, sizeof bytes));
  session->type->get_config (session->device, space);
  memcpy (reply.data, space + asked->offset, asked->bytes);
  return send_reply (session, bytes, vhu_encode_config (&reply, bytes, sizeof bytes));
}

static const char *
set_config (VhostUserSession *session, const struct vhu_config *config) {
  if (!session->type->set_config)
    return "config space is read-only";
  if (config->offset + config->bytes > session->type->config_bytes)
    return "a write beyond config space";
  session->type->set_config (session->device, config->data, config->offset, config->bytes);
  return NULL;
}

static const char *
get_shmem_config (VhostUserSession *session) {
  uint8_t bytes[VHU_HEADER_BYTES + 8 + 8 * VHU_SHMEM_REGIONS_MAX];

  return send_reply (session, bytes,
                     vhu_encode_shmem_config (session->type->shmem_bytes, session->type->n_shmem, bytes, sizeof bytes));
}

static const char *
set_channel (VhostUserSession *session, uint8_t *slots) {
  int type;
  socklen_t length = sizeof type;

  if (getsockopt (vhost_user_session_fd (session, slots[0]), SOL_SOCKET, SO_TYPE, &type, &length) < 0 || type != SOCK_STREAM)
    return "the backend channel is not a stream socket";
  if (session->map_open)
    return "the backend channel was replaced while it was in use";
  vhost_user_session_set_channel (session, slots[0]);
  slots[0] = STATE_NONE;
  return NULL;
}

/* The feature that must have been negotiated before a request may be used; -1: none. */
static int
feature_needed (uint32_t request) {
  switch (request) {
  case VHU_GET_QUEUE_NUM:
    return VHU_PROTOCOL_F_MQ;
  case VHU_SET_BACKEND_REQ_FD:
    return VHU_PROTOCOL_F_BACKEND_REQ;
  case VHU_GET_CONFIG:
  case VHU_SET_CONFIG:
    return VHU_PROTOCOL_F_CONFIG;
  case VHU_RESET_DEVICE:
    return VHU_PROTOCOL_F_RESET_DEVICE;
  case VHU_GET_SHMEM_CONFIG:
    return VHU_PROTOCOL_F_SHMEM;
  case VHU_GET_MAX_MEM_SLOTS:
  case VHU_ADD_MEM_REG:
  case VHU_REM_MEM_REG:
    return VHU_PROTOCOL_F_CONFIGURE_MEM_SLOTS;
  case VHU_GET_INFLIGHT_FD:
  case VHU_SET_INFLIGHT_FD:
    return VHU_PROTOCOL_F_INFLIGHT_SHMFD;
  default:
    return -1;
  }
}

static const char *
act (VhostUserSession *session, const struct vhu_message *message, uint8_t *slots, gboolean *ret_replied) {
  const uint32_t request = message->request;

  *ret_replied = TRUE;
  switch (request) {
  case VHU_GET_FEATURES:
    return reply_u64 (session, request, ring_features | session->type->features);
  case VHU_GET_PROTOCOL_FEATURES:
    return reply_u64 (session, request, offered_protocol_features (session));
  case VHU_GET_QUEUE_NUM:
    return reply_u64 (session, request, session->type->n_queues);
  case VHU_GET_MAX_MEM_SLOTS:
    return reply_u64 (session, request, GUEST_REGIONS_MAX);
  case VHU_GET_CONFIG:
    return get_config (session, &message->config);
  case VHU_GET_SHMEM_CONFIG:
    return get_shmem_config (session);
  case VHU_GET_VRING_BASE:
    return set_vring_state (session, message);
  case VHU_GET_INFLIGHT_FD:
    return vhost_user_session_get_inflight (session, &message->inflight);
  default:
    break;
  }

  *ret_replied = FALSE;
  switch (request) {
  case VHU_SET_FEATURES:
    return set_features (session, message->u64);
  case VHU_SET_PROTOCOL_FEATURES:
    return set_protocol_features (session, message->u64);
  case VHU_SET_OWNER:
  case VHU_RESET_OWNER: /* deprecated: front-ends may send it, nothing follows from it */
    return NULL;
  case VHU_SET_MEM_TABLE:
    return vhost_user_session_set_memory (session, &message->memory, slots);
  case VHU_ADD_MEM_REG:
    return vhost_user_session_add_memory (session, &message->region, &slots[0]);
  case VHU_REM_MEM_REG:
    return vhost_user_session_remove_memory (session, &message->region);
  case VHU_SET_VRING_NUM:
  case VHU_SET_VRING_BASE:
  case VHU_SET_VRING_ENABLE:
    return set_vring_state (session, message);
  case VHU_SET_VRING_ADDR:
    return set_vring_addr (session, &message->addr);
  case VHU_SET_VRING_KICK:
  case VHU_SET_VRING_CALL:
  case VHU_SET_VRING_ERR:
    return set_vring_fd (session, message, slots);
  case VHU_SET_BACKEND_REQ_FD:
    return set_channel (session, slots);
  case VHU_SET_CONFIG:
    return set_config (session, &message->config);
  case VHU_SET_INFLIGHT_FD:
    return vhost_user_session_set_inflight (session, &message->inflight, slots[0]);
  case VHU_RESET_DEVICE:
    session->type->reset (session->device);
    return NULL;
  default:
    return "unknown request";
  }
}

const char *
vhost_user_session_handle (VhostUserSession *session, const struct vhu_message *message, uint8_t *slots) {
  const int needed = feature_needed (message->request);
  gboolean replied;
  const char *why;

  if (needed >= 0 && !has (session, (enum vhu_protocol_feature)needed))
    return "a request whose protocol feature was not negotiated";
  why = act (session, message, slots, &replied);
  if (!replied && message->need_reply && has (session, VHU_PROTOCOL_F_REPLY_ACK)) {
    const char *send_why = reply_u64 (session, message->request, why ? 1 : 0);

    why = why ? why : send_why;
  }
  return why;
}
