/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The workload of the paging benchmarks: a store of values of 1 KiB, of which some are wanted far more often than others (Zipf,
 * 0.99: YCSB's), with hashed keys, so that those lie anywhere. 95 of 100 operations read a value from its first to its last
 * byte and check it, 5 replace one.
 *
 * Nothing here allocates or makes a system call after its start, and there is no floating point in an operation, which an
 * emulated processor would take long for. A program without libraries can have it.
 */
#ifndef DOMYBS_TESTS_ZIPF_H
#define DOMYBS_TESTS_ZIPF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ZIPF_VALUE_BYTES 1024u
#define ZIPF_EXPONENT 0.99
#define ZIPF_UPDATE_PERCENT 5u

/* Ranks 0 … n − 1 with probability ~ 1 / (rank + 1)^0.99, by the alias method: two numbers for each. */
struct zipf {
  uint32_t n; /* a power of two */
  uint32_t *threshold, *alias;
};

size_t zipf_table_bytes (uint32_t n);
/* table: zipf_table_bytes (n) of the caller's, which stay its. */
void zipf_init (struct zipf *zipf, uint32_t n, void *table);
uint64_t zipf_random (uint64_t *state);
/* The value of a rank: one to one. */
uint32_t zipf_hash (uint32_t rank, uint32_t n);
/* The number of the next value: a rank by chance, hashed. */
uint32_t zipf_next (const struct zipf *zipf, uint64_t *state);

/* values: n × 1 KiB. A third of each packs badly, the rest very well: LZ4 makes about a third of 4 KiB. */
void zipf_fill (void *values, uint32_t n);
void zipf_replace (void *values, uint32_t i);
/* One value, as it was copied from its place i. False: it is not what was put there. */
bool zipf_check (const void *value, uint32_t i);
/* One operation of the mix. False: a value was damaged. */
bool zipf_operation (const struct zipf *zipf, void *values, uint64_t *state);
/* The next one of the mix: which value, and whether it is replaced. */
uint32_t zipf_choose (const struct zipf *zipf, uint64_t *state, bool *ret_replace);

/* How long operations took: 16 steps for each power of two of nanoseconds. */
#define ZIPF_STEPS 16u
struct zipf_times {
  uint64_t count, sum_ns;
  uint64_t counts[64 * ZIPF_STEPS];
};
void zipf_times_add (struct zipf_times *times, uint64_t ns);
/* Nanoseconds; quantile 0 … 1. */
double zipf_times_at (const struct zipf_times *times, double quantile);

uint64_t zipf_now_ns (void);

#endif
