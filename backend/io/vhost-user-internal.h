/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Inside of a vhost-user session: what its two files (messages, transport) share. */
#ifndef DOMYBS_IO_VHOST_USER_INTERNAL_H
#define DOMYBS_IO_VHOST_USER_INTERNAL_H

#include "io/source.h"
#include "io/vhost-user-session.h"

typedef struct {
  struct virtqueue vq;
  uint8_t kick_slot, call_slot, err_slot; /* STATE_NONE: none */
  GSource *kick_source;
  gboolean enabled;
  gboolean started; /* has a kick descriptor since it was last stopped */
  gboolean break_logged;
  gboolean push_open; /* restored: an answer that was committed is not in the ring yet */
} SessionQueue;

struct VhostUserSession {
  const VhostUserDevice *type;
  gpointer device;
  GMainContext *context;
  KeeperLink *link;

  uint64_t connection;
  uint64_t consumed; /* bytes of whole messages */
  uint64_t sent;     /* messages */
  gboolean want;     /* what comes next is to be asked for */
  GSource *close_source; /* closing is on its way */
  const char *close_why;
  GSource *again_source;
  uint32_t again_queues; /* bit mask */

  /* what was negotiated */
  gboolean have_features, have_protocol_features;
  uint64_t features, protocol_features;

  struct guest_memory memory;
  uint64_t region_offsets[VHU_MEMORY_REGIONS_MAX];
  uint8_t region_slots[VHU_MEMORY_REGIONS_MAX];
  SessionQueue queues[VHOST_USER_QUEUES_MAX];

  /* backend channel */
  uint64_t channel_epoch, channel_consumed, channel_sent;
  uint8_t channel_slot;
  gboolean channel_changed; /* the keeper is to be told */
  gboolean channel_want;
  gboolean map_open; /* a map is being answered */

  /* what waits for the commit */
  struct {
    size_t bytes;
    uint8_t slot;
    uint8_t buf[STATE_OUT_BYTES_MAX];
  } out[KEEPER_STREAMS];
  uint8_t drops[KEEPER_SLOTS];
  unsigned n_drops;
};

/* vhost-user-messages.c: acts on one checked message. Takes the slots it keeps out of slots (sets them to STATE_NONE). Returns NULL,
 * or why the session must close. */
const char *vhost_user_session_handle (VhostUserSession *session, const struct vhu_message *message, uint8_t *slots);

/* vhost-user-messages.c: stops a queue and lets its descriptors go. */
void vhost_user_session_queue_clear (VhostUserSession *session, SessionQueue *queue);
void vhost_user_session_unmap_all (VhostUserSession *session);
/* vhost-user-messages.c: maps what is in a slot; why it can't be is logged. */
gboolean vhost_user_session_map_region (VhostUserSession *session, struct guest_region *region, unsigned slot, uint64_t offset);

/* vhost-user-session.c: a reply, for the next flush. One for each event: FALSE if there is one already, or it is too long. */
gboolean vhost_user_session_reply (VhostUserSession *session, const uint8_t *bytes, size_t n);
/* vhost-user-session.c: lets go of a slot after the next commit, and sets it to STATE_NONE. */
void vhost_user_session_drop (VhostUserSession *session, uint8_t *slot);
/* vhost-user-session.c: sets, or replaces, the backend channel. STATE_NONE: none. */
void vhost_user_session_set_channel (VhostUserSession *session, uint8_t slot);
/* vhost-user-session.c: signals the driver, whatever it said about that. */
void vhost_user_session_signal_anyway (VhostUserSession *session, unsigned queue);
/* vhost-user-session.c: watches a queue's kick descriptor. */
void vhost_user_session_watch_kick (VhostUserSession *session, unsigned queue);

#endif
