/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Inside of a vhost-user session: what its files share. */
#ifndef DOMYBS_IO_VHOST_USER_INTERNAL_H
#define DOMYBS_IO_VHOST_USER_INTERNAL_H

#include "core/inflight.h"
#include "io/log-limit.h"
#include "io/source.h"
#include "io/vhost-user-session.h"

struct late_push {
  uint16_t head;
  uint32_t written;
};

typedef struct {
  struct virtqueue vq;
  uint8_t kick_slot, call_slot, err_slot; /* STATE_NONE: none */
  GSource *kick_source;
  gboolean enabled;
  gboolean started; /* has a kick descriptor since it was last stopped */
  gboolean break_logged;
  gboolean push_open; /* restored: an answer that was committed is not in the ring yet */
  gboolean tracked;   /* inflight was started for this run of the queue */
  struct inflight inflight;
  struct late_push late[VIRTQUEUE_SIZE_MAX]; /* what was answered while the rings' memory was not there */
  unsigned n_late;
  uint64_t old_bits[VIRTQUEUE_SIZE_MAX / 64]; /* heads in flight that may use a region which leaves */
  unsigned n_old;
} SessionQueue;

struct VhostUserSession {
  const VhostUserDevice *type;
  gpointer device;
  GMainContext *context;
  VhostUserTransport *transport;

  uint64_t connection;
  uint64_t consumed; /* bytes of whole messages */
  uint64_t sent;     /* messages */
  gboolean want;     /* what comes next is to be asked for */
  gboolean in_message;
  GSource *close_source; /* closing is on its way */
  const char *close_why;
  GSource *again_source;
  uint32_t again_queues; /* bit mask */

  /* what was negotiated */
  gboolean have_features, have_protocol_features;
  uint64_t features, protocol_features;

  struct guest_memory memory;
  uint64_t region_offsets[GUEST_REGIONS_MAX];
  uint8_t region_slots[GUEST_REGIONS_MAX];
  struct guest_memory leaving; /* regions that were removed while requests were in flight */
  struct guest_memory old_memory; /* while memory_changed runs */
  SessionQueue queues[VHOST_USER_QUEUES_MAX];
  LogLimit break_log; /* a guest may set its queue up and break it as often as it likes */
  unsigned breaks_seen; /* guest_map_breaks when all memory was sound */
  int stopping; /* the queue whose GET_VRING_BASE waits for its answer; -1: none */
  struct {
    uint8_t *memory; /* NULL: the front-end gave none */
    unsigned n_queues, queue_size;
  } inflight;

  /* backend channel */
  uint64_t channel_epoch, channel_consumed, channel_sent;
  uint8_t channel_slot;
  gboolean channel_changed; /* the keeper is to be told */
  gboolean channel_want;
  gboolean map_open; /* a map is being answered */
  gboolean config_changed; /* the front-end does not know yet */

  /* what waits for the commit */
  struct {
    size_t bytes;
    uint8_t slot;
    uint8_t buf[STATE_OUT_BYTES_MAX];
  } out[KEEPER_STREAMS];
  uint8_t drops[VHOST_USER_SLOTS_MAX];
  unsigned n_drops;
};

/* vhost-user-messages.c: acts on one checked message. Takes the slots it keeps out of slots (sets them to STATE_NONE).
 * Returns NULL, or why the session must close. */
const char *vhost_user_session_handle (VhostUserSession *session, const struct vhu_message *message, uint8_t *slots);

/* vhost-user-messages.c: the answer to GET_VRING_BASE. NULL, or why the session must close. */
const char *vhost_user_session_queue_stopped (VhostUserSession *session, unsigned queue);
/* vhost-user-messages.c: stops a queue and lets its descriptors go. */
void vhost_user_session_queue_clear (VhostUserSession *session, SessionQueue *queue);
/* vhost-user-memory.c */
void vhost_user_session_unmap_all (VhostUserSession *session);
/* vhost-user-memory.c */
const char *vhost_user_session_set_memory (VhostUserSession *session, const struct vhu_memory_table *table, uint8_t *slots);
const char *vhost_user_session_add_memory (VhostUserSession *session, const struct vhu_memory_region *region, uint8_t *slot);
const char *vhost_user_session_remove_memory (VhostUserSession *session, const struct vhu_memory_region *region);
/* vhost-user-memory.c: a chain that was in flight is answered. */
void vhost_user_session_left (VhostUserSession *session, SessionQueue *queue, uint16_t head);
/* vhost-user-memory.c: a queue has stopped. */
void vhost_user_session_all_left (VhostUserSession *session, SessionQueue *queue);
/* vhost-user-messages.c: looks for a queue's rings in memory, if it has all that it needs. */
void vhost_user_session_resolve_queue (VhostUserSession *session, unsigned queue);
/* vhost-user-memory.c: maps what is in a slot; why it can't be is logged. */
gboolean vhost_user_session_map_region (VhostUserSession *session, struct guest_region *region, unsigned slot, uint64_t offset);

/* vhost-user-inflight.c */
const char *vhost_user_session_get_inflight (VhostUserSession *session, const struct vhu_inflight *asked);
const char *vhost_user_session_set_inflight (VhostUserSession *session, const struct vhu_inflight *description, unsigned slot);
void vhost_user_session_forget_inflight (VhostUserSession *session);
/* vhost-user-inflight.c: a queue whose rings were just resolved. FALSE: it is broken now. */
gboolean vhost_user_session_track (VhostUserSession *session, unsigned queue);

/* vhost-user-inflight.c: the rings may be there again. */
void vhost_user_session_push_late (VhostUserSession *session, unsigned queue);

/* vhost-user-session.c: what is to be done when an event was handled. */
void vhost_user_session_settle (VhostUserSession *session);
/* vhost-user-session.c: a reply, for the next flush; the descriptor in slot (STATE_NONE: none) goes along. One for each
 * event: FALSE if there is one already, or it is too long. */
gboolean vhost_user_session_reply (VhostUserSession *session, const uint8_t *bytes, size_t n, uint8_t slot);
/* vhost-user-session.c: lets go of a slot after the next commit, and sets it to STATE_NONE. */
void vhost_user_session_drop (VhostUserSession *session, uint8_t *slot);
/* vhost-user-session.c: sets, or replaces, the backend channel. STATE_NONE: none. */
void vhost_user_session_set_channel (VhostUserSession *session, uint8_t slot);
/* vhost-user-session.c: our descriptor of what is in a slot; -1: nothing. */
int vhost_user_session_fd (const VhostUserSession *session, unsigned slot);
/* vhost-user-session.c: signals the driver, whatever it said about that. */
void vhost_user_session_signal_anyway (VhostUserSession *session, unsigned queue);
/* vhost-user-session.c: watches a queue's kick descriptor. */
void vhost_user_session_watch_kick (VhostUserSession *session, unsigned queue);

#endif
