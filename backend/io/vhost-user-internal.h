/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Inside of a vhost-user session: what its two files (messages, transport) share. */
#ifndef DOMYBS_IO_VHOST_USER_INTERNAL_H
#define DOMYBS_IO_VHOST_USER_INTERNAL_H

#include "io/source.h"
#include "io/vhost-user-session.h"

typedef struct {
  struct virtqueue vq;
  int kick_fd, call_fd, err_fd; /* -1: none */
  GSource *kick_source;
  gboolean enabled;
  gboolean started; /* has a kick fd since it was last stopped */
  gboolean break_logged;
} SessionQueue;

struct VhostUserSession {
  const VhostUserDevice *type;
  gpointer device;
  GMainContext *context;

  /* transport: one message at a time, which may arrive in pieces */
  int fd;
  GSource *source;
  GSource *out_source; /* while replies wait */
  GByteArray *out;
  uint8_t in[VHU_HEADER_BYTES + VHU_PAYLOAD_BYTES_MAX];
  size_t in_bytes;
  int in_fds[VHU_FDS_MAX];
  unsigned n_in_fds;
  GSource *close_source; /* closing is on its way */
  const char *close_why;
  GSource *again_source;
  uint32_t again_queues; /* bit mask */

  /* what was negotiated */
  gboolean have_features, have_protocol_features;
  uint64_t features, protocol_features;

  struct guest_memory memory;
  SessionQueue queues[VHOST_USER_QUEUES_MAX];

  /* backend channel */
  int channel_fd;
  GSource *channel_source;
  uint8_t channel_in[VHU_HEADER_BYTES + 8];
  size_t channel_in_bytes;
  VhostUserMapDone map_done; /* not NULL: a map is being answered */
};

/* vhost-user-messages.c: acts on one checked message. Takes the descriptors it keeps out of fds (sets them to -1). Returns NULL,
 * or why the session must close. */
const char *vhost_user_session_handle (VhostUserSession *session, const struct vhu_message *message, int *fds);

/* vhost-user-messages.c: stops a queue and closes its descriptors. */
void vhost_user_session_queue_clear (SessionQueue *queue);
void vhost_user_session_unmap_all (VhostUserSession *session);

/* vhost-user-session.c: queues bytes for the peer; FALSE when it has stopped reading. */
gboolean vhost_user_session_send (VhostUserSession *session, const uint8_t *bytes, size_t n);
/* vhost-user-session.c: sets, or replaces, the backend channel. Takes over fd. */
void vhost_user_session_set_channel (VhostUserSession *session, int fd);
/* vhost-user-session.c: watches a queue's kick descriptor. */
void vhost_user_session_watch_kick (VhostUserSession *session, unsigned queue);

void vhost_user_close_fd (int *fd);

#endif
