/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The memory device of one VM: core/memory-device's decisions, carried out on a window, the host's room and a vhost-user
 * session. Everything runs on one thread, in the thread-default main context.
 */
#ifndef DOMYBS_DEVICE_BACKEND_H
#define DOMYBS_DEVICE_BACKEND_H

#include <glib.h>

#include "core/memory-device.h"
#include "io/host-account.h"
#include "io/keeper-link.h"

typedef enum {
  GRANT_RESERVE, /* a grant is a place in the books; the guest's first touch takes the memory */
  GRANT_POPULATE /* a grant has its memory from the start */
} GrantMode;

typedef struct {
  struct memory_device_options device;
  GrantMode grant_mode;
  uint64_t host_reserve_bytes; /* grants stop when the host has less than this available */
  unsigned audit_interval_ms;  /* 0: never */
  char *name;                  /* the VM's, for logs */
  gboolean once;               /* finished when the first front-end has gone */
} BackendOptions;

typedef struct Backend Backend;

/* The front-end has gone, and no other is wanted (options.once). One that we closed for a reason is not gone: it may still have the
 * window mapped, and the back-end goes on auditing that. */
typedef void (*BackendGone) (gpointer data);

/* Goes on from the state that the keeper has from an earlier worker; else begins one. Takes over account; options are copied; link
 * stays the caller's. */
Backend *backend_new (const BackendOptions *options, HostAccount *account, KeeperLink *link, BackendGone gone, gpointer data,
                      GError **error);
/* Frees what this process has of it. The window and its grants stay as they are: they are the keeper's, and the next worker's. */
void backend_free (Backend *backend);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (Backend, backend_free)

/* Begins to serve. */
void backend_start (Backend *backend);

/* Asks the keeper for another worker in the place of this one, which will not hear of it if that succeeds. failed: why not. */
typedef void (*BackendReplaceFailed) (gpointer data, const char *why);
void backend_replace (Backend *backend, enum keeper_program program, BackendReplaceFailed failed, gpointer data);

/* The host's wish for this VM; have_target FALSE: none, the guest decides by pressure. Returns the target that is in force
 * (capped at the VM's capacity). */
uint64_t backend_set_target (Backend *backend, gboolean have_target, uint64_t blocks);

/* Asks the guest to give `blocks` back within deadline_ms. FALSE when no guest listens. */
gboolean backend_reclaim (Backend *backend, uint64_t blocks, uint32_t deadline_ms);

/* Punches what is backed without a grant, now. Returns bytes. */
uint64_t backend_audit (Backend *backend);

typedef struct { /* a GRANT that got less than it asked for */
  enum device_shortage reason;
  uint64_t asked_blocks, got_blocks;
  gint64 at; /* g_get_monotonic_time; 0: there was none yet */
} BackendShortGrant;

/* What is known of the VM's far memory, by what domybs-far says. Blocks of 2 MiB. */
typedef struct {
  gboolean is_there;
  uint64_t blocks;          /* size */
  uint64_t in_use_blocks;
  uint64_t reserved_blocks; /* backed beyond those in use, at most the level */
  gboolean is_full;         /* there are no more to be had */
} BackendFarTier;

typedef struct {
  gboolean is_connected; /* all else is nothing if not */
  BackendFarTier tiers[DEVICE_FAR_TIERS];
} BackendFar;

typedef struct {
  const struct memory_device *device; /* device->shortage: whether the session's last GRANT was a short one */
  const char *name;
  gboolean connected;
  uint64_t connections;   /* since start */
  gboolean window_mapped; /* the guest can reach the window */
  uint64_t window_bytes_used; /* st_blocks of the memfd */
  int window_fd; /* -1: none */
  uint64_t audit_bytes; /* punched by audits since start */
  uint64_t host_limit_blocks, host_reserve_bytes;
  const BackendShortGrant *short_grant; /* the last one since start */
  gboolean busy_mode; /* every request of the guest is answered with BUSY, because earlier workers did not live */
  const struct keeper_hello *hello;
  gint64 stats_at; /* g_get_monotonic_time: when the guest last sent STATS; it means something when device->stats_known */
  const BackendFar *far;
} BackendState;

/* The pointers in it are the back-end's. */
void backend_state (Backend *backend, BackendState *ret_state);

/* Blocks of all back-ends of this host. May wait for some milliseconds (io/host-account). */
uint64_t backend_host_used_blocks (Backend *backend);

/* Something that backend_state shows may have changed. Called in the middle of the device's work: note it and return. */
typedef void (*BackendChanged) (gpointer data);

/* There is one watcher at most; changed NULL ends it. */
void backend_watch (Backend *backend, BackendChanged changed, gpointer data);

/* The same for what the guest wants to have of far memory (state.device->levels). */
void backend_watch_levels (Backend *backend, BackendChanged changed, gpointer data);

/* What is known of far memory is this, from now on. */
void backend_set_far (Backend *backend, const BackendFar *far);

/* A level that was told to those who have the far memory, by a worker before this one: taken where it is not known here. */
void backend_set_level (Backend *backend, unsigned tier, uint64_t blocks);

#endif
