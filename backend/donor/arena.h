/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The memory that a donor lends: a sparse memfd of the most that it may lend, in blocks of 2 MiB. A block takes memory from
 * when it is filled until it is cleared; in huge pages, where the host has them for shared memory (shmem_enabled=advise), and
 * never in swap. */
#ifndef DOMYBS_DONOR_ARENA_H
#define DOMYBS_DONOR_ARENA_H

#include <glib.h>

#define ARENA_BLOCK_BYTES (2u << 20)

typedef struct Arena Arena;

/* A fresh one, sealed against shrinking and growing. The caller's; −1 with error. */
int arena_create (guint64 n_blocks, GError **error);
/* Maps it, with whatever is in it. lock: keep it out of swap; what can't be had is logged. Takes over fd, also on failure. */
Arena *arena_open (int fd, guint64 n_blocks, gboolean lock, GError **error);
void arena_free (Arena *arena);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (Arena, arena_free)

guint8 *arena_block (const Arena *arena, guint64 block);
/* Has memory for all of the block from now on. FALSE: the host has none. */
gboolean arena_fill (Arena *arena, guint64 block);
/* It reads as zeroes, and takes no memory. FALSE: it is as it was, perhaps in part. */
gboolean arena_clear (Arena *arena, guint64 block);
/* Memory that it takes now, as the kernel counts it. */
guint64 arena_bytes (const Arena *arena);
gboolean arena_is_locked (const Arena *arena);

#endif
