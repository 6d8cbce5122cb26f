/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How much of its memory a host lends: the arena's wanted size, from what the kernel says of the host's memory.
 *
 * What the arena could have is what it has and what is available beyond the host's reserve. The reserve is hard: where that is
 * less than the wanted size, the size goes down at once and as far as needed, with a margin, so that it does not go down again
 * and again. Memory pressure (PSI) while little is available takes an eighth every ten seconds; while much is available it is
 * somebody's own limit, which an arena can't help. Up it goes slowly: after half a minute without trouble, with twice the
 * margin to spare, at most an eighth at a time. So a size that is in between stays, and a host that goes up and down does not
 * make its borrowers move their pages all the time.
 *
 * The size is a wish: revokes bring down what is lent above it, and new grants end at it. Pure; time is an argument.
 */
#ifndef DOMYBS_CORE_ARENA_SIZE_H
#define DOMYBS_CORE_ARENA_SIZE_H

#include <stdbool.h>
#include <stdint.h>

#define ARENA_CALM_MS 30000u  /* without trouble before it grows */
#define ARENA_PAUSE_MS 10000u /* between two steps up, or two for pressure */
/* Of the time, in hundredths of a percent over ten seconds, in which some task waited for memory; all tasks did. */
#define ARENA_PRESSURE_SOME 1000u
#define ARENA_PRESSURE_FULL 200u

struct arena_limits {
  uint64_t max_mib;     /* the operator's: never more */
  uint64_t reserve_mib; /* that stays available to the host */
};

struct arena_sample {
  uint64_t now_ms;        /* of any clock that only goes on */
  uint64_t available_mib; /* MemAvailable: what the arena has is not in it */
  uint64_t has_mib;       /* memory that the arena takes now */
  uint64_t promised_mib;  /* what is promised beyond that: it may be taken at any moment */
  unsigned some, full;    /* PSI's avg10, in hundredths of a percent; 0: the kernel does not say */
};

enum arena_reason {
  ARENA_KEEP,
  ARENA_BEGUN,    /* the first size */
  ARENA_GROW,     /* there is memory to spare, and has been for a while */
  ARENA_RESERVE,  /* the host's reserve was touched */
  ARENA_PRESSURE, /* tasks wait for memory */
  ARENA_OPERATOR, /* the limits have changed */
};

struct arena_size {
  uint64_t wanted_mib;
  uint64_t trouble_ms, step_ms; /* when there was trouble last, or a step was made */
  bool begun;
};

/* All zero before the first call, which sets the size to what there is room for. Says why the size is another one now. */
enum arena_reason arena_size_step (struct arena_size *size, const struct arena_limits *limits,
                                   const struct arena_sample *sample);
const char *arena_reason_text (enum arena_reason reason);

/* What is left of a level when all levels, `sum`, are to come down to `size` in proportion: of none more than 2^31. */
uint64_t arena_share (uint64_t level, uint64_t size, uint64_t sum);

/* Room that is left free below the one that there is. */
uint64_t arena_margin_mib (const struct arena_limits *limits);

#endif
