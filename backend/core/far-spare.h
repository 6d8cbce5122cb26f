/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which of a far disk's free places are given back to storage, and when it is worth to make some free for that.
 *
 * A place that is free is kept as long as it may be needed soon: those that cleaning needs, those that the guest was promised
 * (its level, core/far-level.h), and a few for the next writes. What is beyond that for a whole window of time, at each instant
 * of it, is given back at the window's end. So memory that goes up and down faster than that never has storage reserve and free
 * the same places in turn; and if what was given back is wanted again soon, windows become longer, up to sixteen times.
 *
 * Pages die in any order, and leave segments that are mostly gaps. When nothing else happens, those are tidied: what lives in
 * them moves together (as cleaning does it, but long before places are short), as long as that frees more than it writes and
 * gaps are a good part of all there is.
 *
 * Pure: time comes as an argument (µs, of a clock that only goes on).
 */
#ifndef DOMYBS_CORE_FAR_SPARE_H
#define DOMYBS_CORE_FAR_SPARE_H

#include "core/far-store.h"

/* Fewer are not worth the trouble. */
#define FAR_SPARE_LEAST 4u
/* So much of a segment must be garbage for it to be tidied. */
#define FAR_SPARE_TIDY_BYTES (FAR_SEGMENT_BYTES / 2)
#define FAR_SPARE_WINDOWS_MAX 16u

/* Zeroed, but for window_us. */
struct far_spare {
  uint64_t window_us; /* 0: nothing is given back, ever */
  uint64_t began_us;  /* of the window that runs */
  bool runs;
  uint32_t lowest;   /* in this window: the fewest places that could have been given back */
  unsigned windows;  /* a window's length, in windows; 0 is 1 */
  uint64_t given_us; /* when some were given back last; 0: never */
  bool regretted;    /* since then */
};

/* Free places that are kept; level: in blocks. */
uint32_t far_spare_keep (const struct far_figures *figures, uint64_t level);

/* How many places to give back now. fewest_free: since this was asked before. */
uint32_t far_spare_give (struct far_spare *spare, const struct far_figures *figures, uint32_t fewest_free, uint64_t level,
                         uint64_t now_us);
/* How long until it makes sense to ask again, if nothing changes; 0: it does not. */
uint64_t far_spare_wait_us (const struct far_spare *spare, uint64_t now_us);

/* Places that were given back had to be backed again. */
void far_spare_regret (struct far_spare *spare, uint64_t now_us);

/* Whether segments that are half garbage should be tidied, if nothing else is to be done. */
bool far_spare_wants_tidying (const struct far_spare *spare, const struct far_figures *figures);

#endif
