/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The host's side of the window: a memfd whose holes are the blocks that cost nothing.
 *
 * The memfd is sealed against shrinking and growing, because QEMU and every other vhost-user device of the VM get it too. What it
 * costs the host is read from the kernel (st_blocks), never from our own books.
 */
#ifndef DOMYBS_IO_WINDOW_H
#define DOMYBS_IO_WINDOW_H

#include <glib.h>
#include <sys/stat.h>

#include "core/regions.h"

typedef struct Window Window;

/* A fresh, empty window of n_blocks. */
Window *window_new (uint64_t n_blocks, GError **error);
/* One that an earlier process made. Takes over fd, also on failure. */
Window *window_from_fd (int fd, uint64_t n_blocks, GError **error);
void window_free (Window *window);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (Window, window_free)

int window_fd (const Window *window); /* stays the window's */

/* How many bytes are to be mapped into the guest: one page less than the window, because a map of just below a multiple of 2 MiB
 * is what QEMU's mmap places at a 2 MiB-aligned address, which huge pages need. */
uint64_t window_map_bytes (const Window *window);

/* Whether st describes this window's memfd. */
gboolean window_is (const Window *window, const struct stat *st);

/* Backs a run with memory now, charged to us, as huge pages where the host's shmem_enabled allows. On failure some of the run
 * may be backed: punch it. */
gboolean window_populate (Window *window, const struct block_run *run, GError **error);

/* Returns a run's memory to the host; its content is gone. */
gboolean window_punch (Window *window, const struct block_run *run, GError **error);

/* Bytes of host memory that the window holds now, from the kernel. */
uint64_t window_bytes (const Window *window);

/* Punches what is backed outside of the granted blocks (somebody touched it without a grant). Returns how many bytes that was;
 * *ret_all: nothing of it is left. */
uint64_t window_audit (Window *window, const struct regions *regions, gboolean *ret_all);

#endif
