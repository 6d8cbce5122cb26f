/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One vhost-user connection, back-end side: from the accepted socket to virtqueues that a device can pop from. Reusable: the
 * memory device and the far disks are both a table of functions on top of this.
 *
 * The session owns the socket, every descriptor that came through it, the mapped memory table and the queues. It runs on the
 * thread-default GMainContext of its creator and never blocks: messages may arrive in pieces, replies wait (bounded) for a peer
 * that reads slowly, and a call to the front-end (backend channel) reports its answer later. That matters with QEMU: after a
 * SHMEM_MAP it sends SET_MEM_TABLE on the main socket, and waits for our answer to that.
 *
 * A peer that breaks the protocol is not argued with: the session closes, with the reason, and the device hears of it once.
 */
#ifndef DOMYBS_IO_VHOST_USER_SESSION_H
#define DOMYBS_IO_VHOST_USER_SESSION_H

#include <glib.h>
#include <sys/stat.h>

#include "core/guest-memory.h"
#include "core/virtqueue.h"

#define VHOST_USER_QUEUES_MAX 16

typedef struct VhostUserSession VhostUserSession;

/* What a device is. All functions run on the session's thread and must not free the session. */
typedef struct {
  const char *name;       /* for the log */
  unsigned n_queues;      /* ≤ VHOST_USER_QUEUES_MAX */
  uint64_t features;      /* virtio feature bits of the device type; those of the ring are the session's */
  unsigned config_bytes;  /* size of config space */
  unsigned n_shmem;       /* VIRTIO shared-memory regions */
  const uint64_t *shmem_bytes;

  /* Writes config space as it is now. */
  void (*get_config) (gpointer device, uint8_t *buf);
  /* There may be something in the queue. */
  void (*queue_ready) (gpointer device, unsigned queue);
  /* The queue stops after this: put back (virtqueue_unpop) what was popped and is not answered yet. */
  void (*queue_stop) (gpointer device, unsigned queue);
  /* The memory table has changed. */
  void (*memory_changed) (gpointer device);
  /* The guest was reset (front-ends that say so). */
  void (*reset) (gpointer device);
  /* Whether the file described by st is shared memory of this device: no ring or buffer may lie in that. */
  gboolean (*own_memory) (gpointer device, const struct stat *st);
  /* The connection is over; why is for the log, NULL when the peer just closed it. The session frees itself after this. */
  void (*closed) (gpointer device, const char *why);
} VhostUserDevice;

/* Takes over fd, a connected unix stream socket. device_type must outlive the session. */
VhostUserSession *vhost_user_session_new (int fd, const VhostUserDevice *device_type, gpointer device);

/* Ends the connection at once, without calling closed. */
void vhost_user_session_free (VhostUserSession *session);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (VhostUserSession, vhost_user_session_free)

/* Ends the connection for a reason, at the next turn of the main loop: safe to call from a device's function. */
void vhost_user_session_close (VhostUserSession *session, const char *why);

/* The queue, to pop from and push to. It may be idle or broken. */
struct virtqueue *vhost_user_session_queue (VhostUserSession *session, unsigned queue);
const struct guest_memory *vhost_user_session_memory (VhostUserSession *session);

/* Whether the queue is set up, enabled and not broken. */
gboolean vhost_user_session_queue_runs (VhostUserSession *session, unsigned queue);

/* Whether the memory table has memory of the device itself (own_memory). */
gboolean vhost_user_session_has_own_memory (VhostUserSession *session);

/* Signals the driver if it wants to be, for what was pushed. */
void vhost_user_session_signal (VhostUserSession *session, unsigned queue);

/* Calls queue_ready again in the next turn of the main loop: for devices that stop after some chains to let others in. */
void vhost_user_session_queue_again (VhostUserSession *session, unsigned queue);

/* Declares a queue broken for a mistake that only the device sees; why is a constant string. */
void vhost_user_session_queue_break (VhostUserSession *session, unsigned queue, const char *why);

/* After touching guest memory: FALSE when it turned out to be gone (the session closes then). */
gboolean vhost_user_session_memory_is_sound (VhostUserSession *session);

/* ok: the front-end answered 0. */
typedef void (*VhostUserMapDone) (gpointer device, gboolean ok);

/* Asks the front-end to map [fd_offset, + bytes) of fd at shm_offset of a shared-memory region. FALSE when it can't be asked
 * (feature or channel missing, channel full; IN_USE: an earlier request is still open): error says which. Otherwise done is called once,
 * unless the session closes first. A front-end says yes before it has mapped: believe the memory table that follows. */
gboolean vhost_user_session_map (VhostUserSession *session, uint8_t shmem_id, int fd, uint64_t fd_offset, uint64_t shm_offset,
                                 uint64_t bytes, VhostUserMapDone done, GError **error);

#endif
