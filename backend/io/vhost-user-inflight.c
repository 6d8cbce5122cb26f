/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Devices whose requests take a while: what is in flight, how it outlives the process, and how a queue that has some stops. */
#include "io/vhost-user-internal.h"
#include "io/guest-map.h"
#include "io/sandbox-calls.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

SANDBOX_CALLS (SANDBOX_CALL (memfd_create), SANDBOX_CALL (ftruncate), SANDBOX_CALL_IF (fcntl, 1, ~0u, F_ADD_SEALS));

/* ---- the region ---- */

static const char *
check_counts (const VhostUserSession *session, const struct vhu_inflight *inflight) {
  if (inflight->n_queues == 0 || inflight->n_queues > session->type->n_queues)
    return "an inflight region for more queues than there are, or for none";
  if (inflight_region_bytes (inflight->queue_size) == 0)
    return "an inflight region for queues of a size that none can have";
  return NULL;
}

/* The queues' regions, then whose it is. Its size is checked to be that of as many queues. */
static size_t
owner_offset (const struct vhu_inflight *inflight) {
  return inflight->n_queues * inflight_region_bytes (inflight->queue_size);
}

static size_t
bytes_needed (const VhostUserSession *session, const struct vhu_inflight *inflight) {
  return owner_offset (inflight) + (session->type->inflight_owner ? INFLIGHT_ALIGNMENT : 0);
}

static gboolean
fill_region (int fd, const struct vhu_inflight *inflight, const uint8_t *owner) {
  if (ftruncate (fd, (off_t)inflight->bytes) < 0)
    return FALSE; /* zeroed */
  if (owner
      && (lseek (fd, (off_t)owner_offset (inflight), SEEK_SET) < 0
          || write (fd, owner, VHOST_USER_OWNER_BYTES) != VHOST_USER_OWNER_BYTES))
    return FALSE;
  return fcntl (fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) == 0;
}

/* Nothing of it is kept: the front-end hands it back when it starts the device. */
const char *
vhost_user_session_get_inflight (VhostUserSession *session, const struct vhu_inflight *asked) {
  uint8_t bytes[VHU_HEADER_BYTES + 24];
  struct vhu_inflight reply = *asked;
  const char *why = check_counts (session, asked);
  uint8_t slot;
  int fd;

  if (why)
    return why;
  reply.bytes = bytes_needed (session, asked);
  reply.offset = 0;
  fd = memfd_create ("domybs-inflight", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0 || !fill_region (fd, &reply, session->type->inflight_owner)) {
    g_warning ("%s: can't make an inflight region: %s", session->type->name, g_strerror (errno));
    if (fd >= 0)
      close (fd);
    return "there is no memory for an inflight region";
  }
  slot = (uint8_t)vhost_user_transport_put (session->transport, fd);
  if (slot == STATE_NONE)
    return "there is no room for an inflight region";
  if (!vhost_user_session_reply (session, bytes, vhu_encode_inflight (&reply, bytes, sizeof bytes), slot))
    why = "a reply that can't be sent";
  vhost_user_session_drop (session, &slot); /* after it was sent */
  return why;
}

static const char *
check_owner (const VhostUserSession *session, const struct vhu_inflight *description, const uint8_t *memory) {
  const uint8_t *owner = session->type->inflight_owner;

  if (owner && memcmp (memory + owner_offset (description), owner, VHOST_USER_OWNER_BYTES) != 0)
    return "the VM has worked with another back-end, which took the data with it: the VM has to be reset";
  return NULL;
}

const char *
vhost_user_session_set_inflight (VhostUserSession *session, const struct vhu_inflight *description, unsigned slot) {
  g_autoptr (GError) error = NULL;
  const char *why = check_counts (session, description);
  uint8_t *memory;

  if (why)
    return why;
  if (description->bytes < bytes_needed (session, description))
    return "an inflight region that is too small for its queues";
  if (description->offset % INFLIGHT_ALIGNMENT)
    return "a misaligned inflight region";
  for (unsigned i = 0; i < session->type->n_queues; i++)
    if (session->queues[i].vq.state != VIRTQUEUE_IDLE || session->queues[i].tracked)
      return "the inflight region can't change while a queue runs";
  memory = guest_map (vhost_user_session_fd (session, slot), description->offset, bytes_needed (session, description), &error);
  if (!memory) {
    g_message ("%s: inflight region: %s", session->type->name, error->message);
    return "an inflight region that can't be mapped";
  }
  why = check_owner (session, description, memory);
  if (why) {
    guest_unmap (memory);
    return why;
  }
  vhost_user_session_forget_inflight (session);
  session->inflight.memory = memory;
  session->inflight.n_queues = description->n_queues;
  session->inflight.queue_size = description->queue_size;
  return NULL;
}

void
vhost_user_session_forget_inflight (VhostUserSession *session) {
  for (unsigned i = 0; i < VHOST_USER_QUEUES_MAX; i++) {
    session->queues[i].inflight.region = NULL;
    session->queues[i].tracked = FALSE;
  }
  guest_unmap (session->inflight.memory);
  session->inflight.memory = NULL;
}

gboolean
vhost_user_session_track (VhostUserSession *session, unsigned index) {
  SessionQueue *queue = &session->queues[index];
  struct inflight_region *region = NULL;
  const char *why = NULL;

  if (queue->tracked)
    return TRUE; /* it ran already, and only its memory was mapped anew */
  if (session->inflight.memory) {
    if (index >= session->inflight.n_queues || queue->vq.num > session->inflight.queue_size)
      why = "the queue does not fit into the inflight region";
    else
      region = (struct inflight_region *)(session->inflight.memory
                                          + index * inflight_region_bytes (session->inflight.queue_size));
  }
  if (why || !inflight_start (&queue->inflight, region, &queue->vq, &why)) {
    vhost_user_session_queue_break (session, index, why);
    return FALSE;
  }
  queue->tracked = TRUE;
  if (queue->inflight.n_again)
    g_message ("%s: queue %u: %u requests that had no answer are carried out again", session->type->name, index,
               queue->inflight.n_again);
  return TRUE;
}

/* ---- requests ---- */

enum virtqueue_pop
vhost_user_session_pop (VhostUserSession *session, unsigned index, struct virtqueue_chain *ret_chain) {
  SessionQueue *queue = &session->queues[index];
  enum virtqueue_pop popped;
  int head;

  if (!vhost_user_session_queue_runs (session, index) || session->stopping == (int)index)
    return VIRTQUEUE_POP_EMPTY;
  head = inflight_next_again (&queue->inflight);
  if (head >= 0) {
    popped = virtqueue_chain_at (&queue->vq, &session->memory, (uint16_t)head, ret_chain);
    if (popped == VIRTQUEUE_POP_CHAIN)
      inflight_took_again (&queue->inflight);
  } else {
    popped = virtqueue_pop (&queue->vq, &session->memory, ret_chain);
    if (popped == VIRTQUEUE_POP_CHAIN && !inflight_take (&queue->inflight, ret_chain->head)) {
      vhost_user_session_queue_break (session, index, "a chain was made available that is in flight already");
      popped = VIRTQUEUE_POP_BROKEN;
    }
  }
  if (popped == VIRTQUEUE_POP_BROKEN)
    vhost_user_session_queue_again (session, index); /* logs it */
  return popped;
}

void
vhost_user_session_push (VhostUserSession *session, unsigned index, uint16_t head, uint32_t written) {
  SessionQueue *queue = &session->queues[index];

  if (queue->tracked && queue->vq.state == VIRTQUEUE_IDLE && queue->n_late < G_N_ELEMENTS (queue->late)) {
    queue->late[queue->n_late++] = (struct late_push){ head, written };
    return;
  }
  inflight_push (&queue->inflight, &queue->vq, head, written);
  if (queue->n_old)
    vhost_user_session_left (session, queue, head);
}

void
vhost_user_session_push_late (VhostUserSession *session, unsigned index) {
  SessionQueue *queue = &session->queues[index];
  const unsigned n = queue->vq.state == VIRTQUEUE_IDLE ? 0 : queue->n_late;

  if (n == 0)
    return;
  queue->n_late = 0;
  for (unsigned i = 0; i < n; i++)
    vhost_user_session_push (session, index, queue->late[i].head, queue->late[i].written);
  vhost_user_session_signal (session, index);
}

unsigned
vhost_user_session_in_flight (const VhostUserSession *session, unsigned index) {
  const struct inflight *inflight = &session->queues[index].inflight;

  return inflight->n - (inflight->n_again - inflight->done_again);
}

void
vhost_user_session_stopped (VhostUserSession *session, unsigned index) {
  const char *why;

  if (session->stopping != (int)index || session->close_source)
    return;
  why = vhost_user_session_queue_stopped (session, index);
  if (why)
    vhost_user_session_close (session, why);
  if (session->in_message)
    return; /* that is handled to its end first */
  session->want = TRUE;
  vhost_user_session_settle (session);
}
