/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How a test ends workers at its own choice of instants (core/crash-point.h); only in the program that is built with
 * -DDOMYBS_CRASH_POINTS.
 *
 * The test makes a file of at least sizeof (struct crash_file), names it in $DOMYBS_CRASH_FILE of the back-end and maps it
 * shared. The first process (the keeper) opens it as descriptor CRASH_FILE_FD, without CLOEXEC: workers inherit it, for they
 * run as a user who could not open it. Only processes that called CRASH_POINTS_ARM count, which is workers.
 *
 * Each point that is passed does passed++. If crashes < CRASHES_MAX and countdown[crashes] > 0, that goes down by one; where it
 * gets to 0, the point's name goes to last, crashes goes up by one, and the process ends itself with SIGKILL. So countdown { n,
 * m } is: the first worker dies at its n-th point from now, and the next at the m-th point after that, which is in its recovery
 * when m is small. All may be written and read while the back-end runs: set `crashes` to 0 first, the countdowns from the last
 * to the first after that.
 */
#ifndef DOMYBS_IO_CRASH_POINT_H
#define DOMYBS_IO_CRASH_POINT_H

#include <stdint.h>

#define CRASH_FILE_ENV "DOMYBS_CRASH_FILE"
#define CRASH_FILE_FD 100
#define CRASHES_MAX 4u

struct crash_file {
  uint64_t countdown[CRASHES_MAX];
  uint64_t passed;
  uint64_t crashes;
  char last[64]; /* ended by a NUL */
  char only[64]; /* a point's name: countdowns count no others; empty: all */

  /* CRASH_NONCE. Only a file of CRASH_FILE_BYTES_WITH_NONCES has the bits that these are counted with. */
  uint64_t nonces, nonces_again; /* that were used; of these, used before */
  uint64_t nonces_out_of_range;
};

/* Behind it: a bit for each version of each device. */
#define CRASH_NONCES_AT 4096u
#define CRASH_NONCE_DEVICES 8u
#define CRASH_NONCE_VERSIONS (1ull << 25)
#define CRASH_FILE_BYTES_WITH_NONCES (CRASH_NONCES_AT + CRASH_NONCE_DEVICES * CRASH_NONCE_VERSIONS / 8)

#endif
