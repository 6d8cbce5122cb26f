/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How much may be written to storage that wears out: so many bytes a day.
 *
 * A token bucket. It holds an eighth of a day's bytes and is filled by the other seven eighths over a day, so that whatever
 * the 24 hours that one looks at, no more than the day's bytes were spent in them. What is not spent is there later, up to the
 * full bucket: a burst.
 *
 * All that has to be kept is one number, the time at which the bucket will be full (µs, of a clock that only goes on; 0: it
 * is). It is kept where it outlives the process, and what is spent is spent before it is written: whoever dies in between has
 * spent it.
 *
 * Pure: time comes as an argument. day_bytes: within the bounds below; bytes: 64 MiB at most.
 */
#ifndef DOMYBS_CORE_WEAR_H
#define DOMYBS_CORE_WEAR_H

#include <stdbool.h>
#include <stdint.h>

#define WEAR_DAY_US (86400ull * 1000000)
/* A smaller budget would not be enough for a few segments at a time. */
#define WEAR_DAY_BYTES_MIN (64ull << 20)
#define WEAR_DAY_BYTES_MAX (1ull << 60)

/* What the full bucket holds. */
uint64_t wear_burst_bytes (uint64_t day_bytes);
/* What may be spent now. */
uint64_t wear_left (uint64_t day_bytes, uint64_t full_at_us, uint64_t now_us);
/* How long to wait until so many bytes may be spent, which must be at most a burst; 0: now. */
uint64_t wear_wait_us (uint64_t day_bytes, uint64_t full_at_us, uint64_t now_us, uint64_t bytes);
/* The new time at which it will be full. May be called without asking whether they may be spent: then the bucket owes them, a
 * day's at most. */
uint64_t wear_spend (uint64_t day_bytes, uint64_t full_at_us, uint64_t now_us, uint64_t bytes);
/* The same, but nothing is owed that was not before: what is more than there is left is not counted. */
uint64_t wear_spend_left (uint64_t day_bytes, uint64_t full_at_us, uint64_t now_us, uint64_t bytes);

#endif
