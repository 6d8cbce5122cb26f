/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Inside of a back-end: what its files (requests, transactions) share. */
#ifndef DOMYBS_DEVICE_BACKEND_INTERNAL_H
#define DOMYBS_DEVICE_BACKEND_INTERNAL_H

#include "core/device-state.h"
#include "device/backend.h"
#include "device/guest-events.h"
#include "device/host-room.h"
#include "io/log-limit.h"
#include "io/vhost-user-session.h"
#include "io/window.h"

struct Backend {
  struct memory_device device;
  GrantMode grant_mode;
  char *name;
  VhostUserDevice type;
  uint64_t shmem_bytes;
  HostRoom *room;
  KeeperLink *link;          /* not ours */
  struct device_state state; /* the image that the next worker goes on from */
  Window *window;            /* NULL before the first session */
  uint8_t window_slot;       /* STATE_NONE: none */
  VhostUserSession *session;
  BackendGone gone;
  gpointer gone_data;
  gboolean busy_mode; /* every request is answered with BUSY */
  gboolean once;
  gboolean finished;  /* see struct state_backend */
  gboolean told_good;
  gboolean started; /* what an earlier worker left is done */

  /* The one request that is under way: HELLO, while the front-end maps the window. */
  gboolean busy;
  gboolean map_on_its_way; /* asked for and not refused; outlives `busy` when the VM is stopped in between */
  uint16_t busy_head;
  struct device_plan plan;
  GSource *map_timeout;

  GuestEvents events;
  GSource *audit_source, *good_source;
  uint64_t connections, audit_bytes; /* since start */
  uint64_t closed;                   /* the connection that was closed last */
  uint64_t channel_epoch;            /* the last session's */
  BackendShortGrant short_grant;
  gint64 stats_at; /* g_get_monotonic_time */
  LogLimit refused_log, session_log, map_log;

  /* what waits for the commit */
  uint64_t return_blocks; /* to the host */
  unsigned n_punches;     /* whose content is to go */
  struct block_run punches[DOMYBS_RUNS_MAX];
  uint8_t old_window_slot;
  gboolean unpunched; /* something could not be punched: blocks that nobody has may hold what was in them */

  BackendReplaceFailed replace_failed;
  gpointer replace_data;
  BackendChanged changed; /* NULL: nobody watches */
  gpointer changed_data;
  BackendFar far;
  BackendChanged levels_changed; /* NULL: nobody watches */
  gpointer levels_data;
};

/* backend-state.c: makes durable what has happened, and then lets go out what waits for that. Cheap when there is nothing. */
void backend_commit (Backend *backend);
/* Sees to it that the host's memory is looked at while the guest waits for some. */
void backend_watch_room (Backend *backend);

/* backend-state.c: the same, and in the same transaction puts an answer of n bytes into a chain of a queue and returns it to the driver:
 * exactly once, whenever the process ends. */
void backend_push (Backend *backend, unsigned queue, const struct virtqueue_chain *chain, const void *bytes, size_t n);

/* backend-state.c: goes on from the state that an earlier worker left, or writes the first one. FALSE: that can't be done. */
gboolean backend_restore (Backend *backend, GError **error);

/* Runs (at most DOMYBS_RUNS_MAX) that are empty when the next commit is answered for. */
void backend_punch_later (Backend *backend, const struct block_run *runs, unsigned n);

/* Tells the guest what there is to tell (backend->events), as far as it has given buffers for that. */
void backend_send_events (Backend *backend);

/* backend-far.c: a RESERVE that was planned. The guest says what it wants; who has the far memory sees to it, in its own time. */
void backend_reserve (Backend *backend, struct device_plan *plan);

/* backend-far.c: device.levels may be others now. */
void backend_tell_levels (Backend *backend);

/* Blocks that the host gets back with the next commit. */
void backend_return_later (Backend *backend, uint64_t blocks);

#endif
