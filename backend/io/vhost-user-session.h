/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One vhost-user connection, back-end side: from the bytes that a keeper carries to virtqueues that a device can pop from.
 * Reusable: a device is a table of functions on top of this.
 *
 * The session lives longer than the process: what it is made of (struct state_session) is saved by its device with every
 * transaction (core/device-state.h), and the next worker restores it. So nothing leaves the process while an event is handled:
 * replies, messages on the backend channel and descriptors that are not needed any more wait until the device has committed
 * (`settle`), and then go out (vhost_user_session_flush). One message of the front-end is one transaction, so at most one reply waits.
 *
 * The session owns the mapped memory table and the queues; sockets and descriptors are the keeper's (io/keeper-link), and named by
 * slots. It runs on the thread-default GMainContext of its creator and never blocks: messages may arrive in pieces, and a call to
 * the front-end (backend channel) reports its answer later. That matters with QEMU: after a SHMEM_MAP it sends SET_MEM_TABLE on
 * the main socket, and waits for our answer to that.
 *
 * A peer that breaks the protocol is not argued with: the session closes, with the reason, and the device hears of it once.
 */
#ifndef DOMYBS_IO_VHOST_USER_SESSION_H
#define DOMYBS_IO_VHOST_USER_SESSION_H

#include <glib.h>
#include <sys/stat.h>

#include "core/device-state.h"
#include "core/guest-memory.h"
#include "core/virtqueue.h"
#include "io/keeper-link.h"

#define VHOST_USER_QUEUES_MAX STATE_QUEUES_MAX

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
  /* The front-end has answered a vhost_user_session_map. ok: it said 0; a front-end says so before it has mapped: believe the
   * memory table that follows. */
  void (*map_answered) (gpointer device, gboolean ok);
  /* An event was handled to its end: what it did is to be committed, then flushed. */
  void (*settle) (gpointer device);
  /* The connection is over; why is for the log, NULL when the peer just closed it. The session frees itself after this. */
  void (*closed) (gpointer device, const char *why);
} VhostUserDevice;

/* A new connection of the keeper's; nothing was read of it yet, and will be with the first flush. channel_epoch: the last one that was
 * used. device_type must outlive the session. */
VhostUserSession *vhost_user_session_new (KeeperLink *link, uint64_t connection, uint64_t channel_epoch,
                                          const VhostUserDevice *device_type, gpointer device);

/* What the keeper has for it (KeeperLinkEvents). */
void vhost_user_session_received (VhostUserSession *session, enum keeper_stream stream, uint64_t epoch, uint64_t position,
                                  const uint8_t *bytes, size_t n, const uint8_t *slots, unsigned n_slots, gboolean truncated);
void vhost_user_session_gone (VhostUserSession *session, enum keeper_stream stream, uint64_t epoch, uint64_t end_position,
                              enum keeper_gone why);

/* The session that an earlier worker saved: maps the memory table and resolves the queues. NULL with error when that can't be done
 * (then that connection can't go on). Nothing runs yet: vhost_user_session_resume. */
VhostUserSession *vhost_user_session_restore (KeeperLink *link, const struct state_session *state,
                                              const VhostUserDevice *device_type, gpointer device, GError **error);

/* Makes sure of the effects of a committed transaction (core/device-state.h, step 4), as far as they are the session's. */
void vhost_user_session_redo (VhostUserSession *session, const struct state_record *record);

/* Whether the session needs what is in a slot; also when it has not read yet what that came with. */
gboolean vhost_user_session_uses (const VhostUserSession *session, unsigned slot);

/* After restore and redo: reads on, signals the driver, and looks at every queue (a kick may have been read by who died). */
void vhost_user_session_resume (VhostUserSession *session);

/* Fills record->scalars.session, and what goes out with this transaction. record->have_push and push_queue are set already: what they announce
 * is counted as pushed. */
void vhost_user_session_save (VhostUserSession *session, struct state_record *record);

/* Whether something waits to go out. */
gboolean vhost_user_session_has_output (const VhostUserSession *session);

/* After the commit: sends what waits, drops what is not needed any more, reads on. */
void vhost_user_session_flush (VhostUserSession *session);

uint64_t vhost_user_session_connection (const VhostUserSession *session);
uint64_t vhost_user_session_channel_epoch (const VhostUserSession *session);

/* Forgets the session, without a word to anybody. */
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

/* Asks the front-end to map [fd_offset, + bytes) of the descriptor in slot at shm_offset of a shared-memory region: the message goes out
 * with the next flush. FALSE when it can't be asked (feature or channel missing; IN_USE: an earlier request is still open): error says
 * which. Otherwise map_answered is called once, unless the session closes first. */
gboolean vhost_user_session_map (VhostUserSession *session, uint8_t shmem_id, unsigned slot, uint64_t fd_offset, uint64_t shm_offset,
                                 uint64_t bytes, GError **error);

#endif
