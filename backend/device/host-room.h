/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the host has to give: the limit that all its VMs share (io/host-account), and the memory that it really has
 * (io/host-memory) beyond what it keeps for itself. Both must have room for a block that is granted.
 */
#ifndef DOMYBS_DEVICE_HOST_ROOM_H
#define DOMYBS_DEVICE_HOST_ROOM_H

#include <glib.h>

#include "core/memory-device.h"
#include "io/host-account.h"

typedef struct HostRoom HostRoom;

/* Takes over account. reserve_bytes: what stays the host's. name: the VM's, for logs. */
HostRoom *host_room_new (HostAccount *account, uint64_t reserve_bytes, const char *name);
void host_room_free (HostRoom *room);

/* Takes up to `blocks` and returns how many; *ret_shortage says why that is less than asked for (NONE when it is not). */
uint64_t host_room_take (HostRoom *room, uint64_t blocks, enum device_shortage *ret_shortage);
void host_room_give_back (HostRoom *room, uint64_t blocks);

/* The VM has exactly this much, whatever an earlier process did not live to take or give back. */
void host_room_set (HostRoom *room, uint64_t blocks);

/* Whether there is room for a block. */
gboolean host_room_is_there (HostRoom *room);

/* The host's memory has no event: it is looked at once a second while somebody waits for some, and a backend at rest does not wake
 * up. Begins that, if it is not under way: while is_wanted says so, there_is is called each time that there is room for a block.
 * Ends with the first FALSE, or with the room. The callbacks must not free the room. */
void host_room_watch (HostRoom *room, gboolean (*is_wanted) (gpointer data), void (*there_is) (gpointer data), gpointer data);

/* Blocks of all VMs of the host, and the limit that this one applies to that; bytes that the host keeps. */
uint64_t host_room_used (HostRoom *room);
uint64_t host_room_limit (const HostRoom *room);
uint64_t host_room_reserve_bytes (const HostRoom *room);

#endif
