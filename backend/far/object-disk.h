/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Objects within domybs-far: what its keeper opens, what its worker makes of that, and what `status` says. */
#ifndef DOMYBS_FAR_OBJECT_DISK_H
#define DOMYBS_FAR_OBJECT_DISK_H

#include <json-glib/json-glib.h>

#include "far/disk.h"
#include "far/keeper.h"
#include "far/options.h"

/* In the keeper: listens, opens and checks the file, and puts descriptors into *disk, among them the table of digests in memory
 * that nobody can change (state_fd). */
gboolean object_disk_open (const FarObjectChoice *choice, const ListenRights *rights, struct far_keeper_disk *disk,
                           GError **error);

/* In the worker: slot is its number among the descriptors (far/handover.h). options->inflight_owner is the object's own. */
FarDisk *object_disk_new (const FarObjectChoice *choice, const FarDiskOptions *options, unsigned slot, GError **error);

/* One member of `objects`. */
void object_disk_add_status (JsonBuilder *builder, const FarObjectChoice *choice, FarDisk *disk);

/* Whether it has answered a read. */
gboolean object_disk_has_answered (FarDisk *disk);

#endif
