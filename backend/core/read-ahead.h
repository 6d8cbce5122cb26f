/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What was read ahead (core/prefetch.h says what should be): which pages, of which version, and where in a ring of memory.
 *
 * The memory is the caller's. It is given out in chunks, one for each read of storage, the oldest of which make room for new
 * ones; a chunk that is being filled does not, and what does not fit then is not read ahead. So memory has its bound, and
 * nobody waits for it.
 *
 * A page's version is its name here: what is found has to be of the version that is wanted, or it is nothing. There is one
 * version of a page at most.
 *
 * Pure, not thread-safe.
 */
#ifndef DOMYBS_CORE_READ_AHEAD_H
#define DOMYBS_CORE_READ_AHEAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define READ_AHEAD_ALIGN 4096u /* of chunks */

struct read_ahead; /* private */

struct read_ahead_page {
  uint64_t page, version;
  uint32_t offset; /* in its chunk */
};

enum read_ahead_state { READ_AHEAD_NONE, READ_AHEAD_COMING, READ_AHEAD_THERE };

struct read_ahead_figures {
  uint64_t pages, used,
      wasted;                 /* that came; of these: that were wanted, and that were dropped unwanted. The others are there */
  uint32_t n_chunks, n_pages; /* now */
};

/* bytes: of the ring, a multiple of READ_AHEAD_ALIGN, less than 2 GiB. dropped: `pages` that were asked for by a stream went
 * unused; it must not call back. NULL: no memory. */
struct read_ahead *read_ahead_new (size_t bytes, void (*dropped) (void *data, uint32_t stream, uint32_t pages), void *data);
void read_ahead_free (struct read_ahead *ahead);

/* Room for a chunk of `bytes` (a multiple of READ_AHEAD_ALIGN, > 0) with n pages (> 0): versions of theirs that were there are
 * there no more. Returns its number, with *ret_at its place in the ring; -1: there is no room now. owner: whatever it belongs
 * to. */
int read_ahead_begin (struct read_ahead *ahead, const struct read_ahead_page *pages, unsigned n, size_t bytes, uint32_t stream,
                      void *owner, size_t *ret_at);
/* Its bytes are there. Page i is dropped where good[i] is false; good NULL: all of them are. */
void read_ahead_end (struct read_ahead *ahead, int chunk, const bool *good);

/* Where that version of a page is: THERE: its bytes are at *ret_at in the ring, until the next read_ahead_begin. COMING: they
 * will be, *ret_owner knows when. */
enum read_ahead_state read_ahead_find (const struct read_ahead *ahead, uint64_t page, uint64_t version, size_t *ret_at,
                                       void **ret_owner);
/* It is THERE, and is used. Returns whether that is so for the first time. */
bool read_ahead_use (struct read_ahead *ahead, uint64_t page);
/* Whatever there is of a page is no good. */
void read_ahead_drop (struct read_ahead *ahead, uint64_t page);
/* Drops all that is not being filled. */
void read_ahead_drop_all (struct read_ahead *ahead);

void read_ahead_get_figures (const struct read_ahead *ahead, struct read_ahead_figures *ret_figures);

#endif
