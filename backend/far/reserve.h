/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Far memory ahead of need: keeps as much of each tier's disk backed with storage, beyond what is in use, as the guest has
 * asked the VM's memory device for (DOMYBS_REQ_RESERVE). So pages that a guest under pressure writes out need not wait for
 * storage to be reserved, and a guest knows beforehand when there is none.
 *
 * Connected with the memory device's control socket (device/far-link.h; the keeper connects: far/connector.h), and again when
 * that connection has ended. The level stays what it was meanwhile; without a memory device everything works as if there were
 * no levels.
 *
 * Runs in the thread-default main context, one step of covering (32 MiB) at a turn; has no timer running when nothing changes.
 */
#ifndef DOMYBS_FAR_RESERVE_H
#define DOMYBS_FAR_RESERVE_H

#include "far/engine.h"

#define FAR_RESERVE_TIERS 2u

typedef struct FarReserve FarReserve;

typedef struct {
  const char *tier; /* "shared", "remote"; constant */
  FarEngine *engine;
} FarReserveTier;

/* connector_fd: the worker's end, the caller's. name: the VM's, for the log. tiers: at most FAR_RESERVE_TIERS; their engines
 * must outlive it. path: for the log. */
FarReserve *far_reserve_new (const char *name, const char *path, int connector_fd, const FarReserveTier *tiers,
                             unsigned n_tiers);
/* Asks for the first connection. */
void far_reserve_start (FarReserve *reserve);
void far_reserve_free (FarReserve *reserve);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (FarReserve, far_reserve_free)

gboolean far_reserve_is_connected (const FarReserve *reserve);

/* The level of that engine's tier. FALSE: none is known. */
gboolean far_reserve_level (const FarReserve *reserve, const FarEngine *engine, guint64 *ret_blocks);

#endif
