/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Mappings of memory that a peer gave us as a file descriptor.
 *
 * A peer can shrink its file after we mapped it; touching the lost part is SIGBUS. One handler for the process replaces such a
 * mapping as a whole by anonymous zero pages and marks it broken, so that the code that touched it goes on undisturbed and its
 * session can be closed at the next safe point. A SIGBUS anywhere else keeps its default action.
 */
#ifndef DOMYBS_IO_GUEST_MAP_H
#define DOMYBS_IO_GUEST_MAP_H

#include <glib.h>
#include <stdint.h>

/* Mappings at a time, in the whole process: the handler walks a fixed table. */
#define GUEST_MAP_MAX 256

/* Installs the handler; once per process, before the first mapping. */
gboolean guest_map_init (GError **error);

/* Maps bytes of fd from offset on, shared and read-write. fd stays the caller's and may be closed. Refuses what is not a regular
 * file (memfd, tmpfs, hugetlbfs, ext4, XFS), is shorter than offset + bytes, or is on a file system that can make us wait (FUSE, NFS). */
void *guest_map (int fd, uint64_t offset, uint64_t bytes, GError **error);

/* Ends a mapping made by guest_map. NULL is ignored. */
void guest_unmap (void *address);

/* Whether the handler had to replace it. FALSE for NULL. */
gboolean guest_map_is_broken (const void *address);

/* How many mappings the handler has replaced since the process began: while that stays the same, none is newly broken. */
unsigned guest_map_breaks (void);

#endif
