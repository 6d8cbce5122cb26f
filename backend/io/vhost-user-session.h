/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One vhost-user connection, back-end side: from the bytes that a transport carries to virtqueues that a device can pop from.
 * Reusable: a device is a table of functions on top of this.
 *
 * There are two transports (io/vhost-user-transport.h), and with them two ways to outlive a process. On the front-end's own
 * socket (io/vhost-user-socket) the session ends with the process; the front-end connects again, and hands back the inflight
 * region, in which the requests are that have no answer yet (core/inflight.h; the end of this file).
 *
 * With a keeper the session lives longer than the process: what it is made of (struct state_session) is saved by its device
 * with every transaction (core/device-state.h), and the next worker restores it. So nothing leaves the process while an event
 * is handled: replies, messages on the backend channel and descriptors that are not needed any more wait until the device has
 * committed (`settle`), and then go out (vhost_user_session_flush). One message of the front-end is one transaction, so at
 * most one reply waits.
 *
 * The session owns the mapped memory table and the queues; sockets and descriptors are the transport's, and named by slots.
 * It runs on the thread-default GMainContext of its creator and never blocks: messages may arrive in pieces, and a call to
 * the front-end (backend channel) reports its answer later. That matters with QEMU: after a SHMEM_MAP it sends SET_MEM_TABLE
 * on the main socket, and waits for our answer to that.
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
#include "io/vhost-user-transport.h"

#define VHOST_USER_QUEUES_MAX 16u
#define VHOST_USER_OWNER_BYTES 16u

typedef struct VhostUserSession VhostUserSession;

/* What a device is. All functions run on the session's thread and must not free the session. */
typedef struct {
  const char *name;       /* for the log */
  unsigned n_queues;      /* ≤ VHOST_USER_QUEUES_MAX */
  uint64_t features;      /* virtio feature bits of the device type; those of the ring are the session's */
  unsigned config_bytes;  /* size of config space */
  unsigned n_shmem;       /* VIRTIO shared-memory regions */
  const uint64_t *shmem_bytes;
  gboolean inflight;      /* offers the inflight region: only for a device that uses vhost_user_session_pop and _push */
  /* NULL, or VHOST_USER_OWNER_BYTES that only who has this device's data knows: a region that somebody else made is refused,
   * because what the guest believes to be on the device is not here. */
  const uint8_t *inflight_owner;
  /* Offers CONFIGURE_MEM_SLOTS: regions that come and go one by one, up to GUEST_REGIONS_MAX. libblkio insists on it. QEMU 11.1
   * crashes when a VM is reset that has a device with shared memory, and any device that offers this. Only for sessions that
   * are not saved. */
  gboolean mem_slots;
  gboolean config_changes; /* the front-end bears CONFIG_CHANGE: vhost-user-blk does, QEMU's test device crashes */

  /* Writes config space as it is now. */
  void (*get_config) (gpointer device, uint8_t *buf);
  /* There may be something in the queue. */
  void (*queue_ready) (gpointer device, unsigned queue);
  /* Writes to config space; NULL: the connection is closed for that. */
  void (*set_config) (gpointer device, const uint8_t *bytes, unsigned offset, unsigned n);
  /* The queue is to stop. TRUE: nothing of it is in flight; what was popped with virtqueue_pop and is not answered yet is put
   * back (virtqueue_unpop). FALSE: something is; nothing more is popped, answers still reach the driver, and after the last
   * of them the device calls vhost_user_session_stopped (which it may do before it returns). Until then the front-end waits
   * (QEMU: with all of the VM), and no further message of it is read. Other queues go on. */
  gboolean (*queue_stop) (gpointer device, unsigned queue);
  /* The memory table has changed. Addresses in guest memory that the device holds are about to end: after this returns, they
   * are no more. vhost_user_session_moved says where each one is now. NULL for a device that holds none. (With mem_slots,
   * regions that come and go move nothing: one that goes stays mapped until the requests have ended that were in flight.) */
  void (*memory_changed) (gpointer device);
  /* The guest was reset (front-ends that say so). NULL: not offered. */
  void (*reset) (gpointer device);
  /* Whether the file described by st is shared memory of this device: no ring or buffer may lie in that. */
  gboolean (*own_memory) (gpointer device, const struct stat *st);
  /* The front-end has answered a vhost_user_session_map. ok: it said 0; a front-end says so before it has mapped: believe the
   * memory table that follows. */
  void (*map_answered) (gpointer device, gboolean ok);
  /* An event was handled to its end: what it did is to be committed, then flushed. NULL: nothing is to be committed, the
   * session flushes by itself. */
  void (*settle) (gpointer device);
  /* The connection is over; why is for the log, NULL when the peer just closed it. The session frees itself after this, and
   * guest memory is gone then. Requests in flight are dropped: they stay in the inflight region, for the next connection. */
  void (*closed) (gpointer device, const char *why);
} VhostUserDevice;

/* A new connection of the transport's; nothing was read of it yet, and will be with the first flush. channel_epoch: the last
 * one that was used. device_type must outlive the session. */
VhostUserSession *vhost_user_session_new (VhostUserTransport *transport, uint64_t connection, uint64_t channel_epoch,
                                          const VhostUserDevice *device_type, gpointer device);

/* What the transport has for it. */
void vhost_user_session_received (VhostUserSession *session, enum keeper_stream stream, uint64_t epoch, uint64_t position,
                                  const uint8_t *bytes, size_t n, const uint8_t *slots, unsigned n_slots, gboolean truncated);
void vhost_user_session_gone (VhostUserSession *session, enum keeper_stream stream, uint64_t epoch, uint64_t end_position,
                              enum keeper_gone why);

/* The session that an earlier worker saved: maps the memory table and resolves the queues. NULL with error when that can't be
 * done (then that connection can't go on). Nothing runs yet: vhost_user_session_resume. */
VhostUserSession *vhost_user_session_restore (VhostUserTransport *transport, const struct state_session *state,
                                              const VhostUserDevice *device_type, gpointer device, GError **error);

/* Makes sure of the effects of a committed transaction (core/device-state.h, step 4), as far as they are the session's. */
void vhost_user_session_redo (VhostUserSession *session, const struct state_record *record);

/* Whether the session needs what is in a slot; also when it has not read yet what that came with. */
gboolean vhost_user_session_uses (const VhostUserSession *session, unsigned slot);

/* After restore and redo: reads on, signals the driver, and looks at every queue (a kick may have been read by who died). */
void vhost_user_session_resume (VhostUserSession *session);

/* Fills record->scalars.session, and what goes out with this transaction. record->have_push and push_queue are set already:
 * what they announce is counted as pushed. */
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

/* Asks the front-end to map [fd_offset, + bytes) of the descriptor in slot at shm_offset of a shared-memory region: the
 * message goes out with the next flush. FALSE when it can't be asked (feature or channel missing; IN_USE: an earlier request
 * is still open): error says which. Otherwise map_answered is called once, unless the session closes first. */
gboolean vhost_user_session_map (VhostUserSession *session, uint8_t shmem_id, unsigned slot, uint64_t fd_offset, uint64_t shm_offset,
                                 uint64_t bytes, GError **error);

/* ---- devices whose requests take a while ----
 *
 * They take chains with vhost_user_session_pop and answer them with vhost_user_session_push, in any order: the session knows
 * what is in flight, and with `inflight` so does the next process. A request that was in flight when a process died is
 * carried out again, so that must be harmless. All from the session's thread. */

/* The next chain of a queue: those to be done again first, in their order, then what is in the ring. EMPTY also for a queue
 * that does not run or is about to stop. */
enum virtqueue_pop vhost_user_session_pop (VhostUserSession *session, unsigned queue, struct virtqueue_chain *ret_chain);

/* Answers one of them, when all that it wrote is in the guest's memory. Does not signal. In memory_changed it takes effect,
 * with nothing written, when that is over. */
void vhost_user_session_push (VhostUserSession *session, unsigned queue, uint16_t head, uint32_t written);

/* How many were popped and not pushed. */
unsigned vhost_user_session_in_flight (const VhostUserSession *session, unsigned queue);

/* After queue_stop returned FALSE: the last answer was pushed. */
void vhost_user_session_stopped (VhostUserSession *session, unsigned queue);

/* In memory_changed: where n bytes of guest memory are now that were at `address`, within one piece of a chain. NULL: the
 * guest has that memory no more (or: not as one piece); the request is to be answered with an error, and its memory left
 * alone. */
void *vhost_user_session_moved (VhostUserSession *session, const void *address, size_t n);

/* The same for all pieces of a chain. FALSE: not all of them are there; the chain is unchanged. */
gboolean vhost_user_session_move_chain (VhostUserSession *session, struct virtqueue_chain *chain);

/* Config space has changed: tells the front-end, when a queue runs; else as soon as one does. Nothing where the device type
 * or the front-end does not allow it. */
void vhost_user_session_config_changed (VhostUserSession *session);

#endif
