/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who reads in a row: finds streams among reads, and says what they will want next, so that it can be read ahead.
 *
 * Streams go forwards, backwards, or in equal strides, many at a time and mixed with reads that belong to none; several
 * requests of one may be under way at once and come out of order. A stream is believed after three reads in a row, or four in
 * equal strides. It is read ahead of in a window that begins small and doubles each time it was asked for again. What was read
 * ahead in vain makes a stream's window smaller, ends it, and if that is so of most, makes all new streams wait until they have
 * lasted.
 *
 * Pure, and it can be replayed: what it answers depends on the calls before and on nothing else. It allocates nothing; a call
 * costs some ten nanoseconds.
 */
#ifndef DOMYBS_CORE_PREFETCH_H
#define DOMYBS_CORE_PREFETCH_H

#include <stdbool.h>
#include <stdint.h>

#define PREFETCH_STREAMS 16u
#define PREFETCH_HISTORY 32u
/* What one read may make worth reading ahead: strides are a range each. */
#define PREFETCH_RANGES_MAX 32u

/* Pages [first, + n), within the disk, to be read ahead now. */
struct prefetch_range {
  uint64_t first;
  uint32_t n;
  uint32_t stream; /* for prefetch_wasted */
};

enum prefetch_way { PREFETCH_FREE = 0, PREFETCH_FORWARDS, PREFETCH_BACKWARDS, PREFETCH_STRIDES };

/* Private, as is all below. */
struct prefetch_stream {
  enum prefetch_way way;
  uint32_t number;
  uint32_t n;       /* STRIDES: pages of each read */
  uint32_t window;  /* pages to be ahead of it */
  uint32_t hold;    /* so many times the window does not grow */
  uint32_t matches; /* reads that belonged to it */
  uint32_t loose;   /* of these the last ones, that were near it and not close */
  int64_t stride;   /* STRIDES */
  int64_t at;    /* FORWARDS: the first page behind what was read; BACKWARDS: the lowest that was; STRIDES: the last read's */
  int64_t edge;  /* the first of what was not asked for, in its direction (BACKWARDS: the lowest that was) */
  uint64_t used; /* when */
};

struct prefetch {
  uint64_t n_pages, now;
  uint32_t ahead_max, last_number;
  int32_t credit; /* pages that were worth it less those that were not, within bounds */
  unsigned newest;
  struct {
    uint64_t first, end;
  } history[PREFETCH_HISTORY];
  struct prefetch_stream streams[PREFETCH_STREAMS];
};

/* n_pages: of what is read. ahead_max: pages that are asked for ahead of one stream, 1 at least. */
void prefetch_init (struct prefetch *prefetch, uint64_t n_pages, uint32_t ahead_max);

/* Pages [first, + n), n > 0, are being read because somebody wants them. Returns how many ranges are worth reading ahead,
 * nearest first, at most max (0: none of them is remembered as asked for). */
unsigned prefetch_read (struct prefetch *prefetch, uint64_t first, uint64_t n, struct prefetch_range *ret_ranges, unsigned max);

/* What came of it: so many pages that were read ahead were wanted, or were dropped without. */
void prefetch_used (struct prefetch *prefetch, uint32_t pages);
void prefetch_wasted (struct prefetch *prefetch, uint32_t stream, uint32_t pages);

#endif
