/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "zipf.h"

#include <math.h>
#include <time.h>

#define WORDS (ZIPF_VALUE_BYTES / 8)
#define MIXED_WORDS 42 /* of WORDS: those that pack badly */
#define STEP 0x9e3779b97f4a7c15ull

size_t
zipf_table_bytes (uint32_t n) {
  return n * (size_t)2 * sizeof (uint32_t);
}

/* Vose's way to build it. While that goes on, threshold holds 1024ths of a fair share, and alias the list of ranks that wait:
 * those with less than a share from its start on, the others from its end on. */
void
zipf_init (struct zipf *zipf, uint32_t n, void *table) {
  double sum = 0, carried;
  uint32_t rich = 0;

  *zipf = (struct zipf){ .n = n, .threshold = table, .alias = (uint32_t *)table + n };
  for (uint32_t i = 0; i < n; i++)
    sum += pow (i + 1, -ZIPF_EXPONENT);
  /* Shares fall with the rank: `rich` is the last one that may still have more than a share left, and every poor one, from the
   * last rank on, takes what it lacks from there. */
  carried = pow (1, -ZIPF_EXPONENT) / sum * n;
  for (uint32_t poor = n; poor-- > 0;) {
    const double share = pow (poor + 1, -ZIPF_EXPONENT) / sum * n;

    if (poor <= rich)
      break;
    if (share >= 1) { /* what the poor have not taken: rounding of a few ranks in the middle */
      zipf->threshold[poor] = UINT32_MAX;
      zipf->alias[poor] = poor;
      continue;
    }
    zipf->threshold[poor] = (uint32_t)(share * UINT32_MAX);
    zipf->alias[poor] = rich;
    carried -= 1 - share;
    /* a giver that has become poor itself takes from the next one */
    while (carried < 1 && rich + 1 < poor) {
      zipf->threshold[rich] = (uint32_t)(fmax (carried, 0) * UINT32_MAX);
      zipf->alias[rich] = rich + 1;
      carried = pow (rich + 2, -ZIPF_EXPONENT) / sum * n - (1 - carried);
      rich++;
    }
  }
  zipf->threshold[rich] = UINT32_MAX;
  zipf->alias[rich] = rich;
}

uint64_t
zipf_random (uint64_t *state) {
  *state ^= *state << 13;
  *state ^= *state >> 7;
  *state ^= *state << 17;
  return *state;
}

uint32_t
zipf_hash (uint32_t rank, uint32_t n) {
  const uint32_t mask = n - 1, half = ((uint32_t)__builtin_ctz (n) + 1) / 2;

  rank = (rank * 0x9e3779b1u) & mask;
  rank ^= rank >> half;
  rank = (rank * 0x85ebca6bu) & mask;
  rank ^= rank >> (half + 1);
  return (rank * 0xc2b2ae35u) & mask;
}

uint32_t
zipf_next (const struct zipf *zipf, uint64_t *state) {
  const uint64_t random = zipf_random (state) * STEP;
  const uint32_t i = (uint32_t)random & (zipf->n - 1), chance = (uint32_t)(random >> 32);

  return zipf_hash (chance <= zipf->threshold[i] ? i : zipf->alias[i], zipf->n);
}

/* ---- values ---- */

/* Word 0 is the sum of all others, 1 a version. */
static void
put (uint64_t *words, uint32_t i, uint64_t version) {
  uint64_t value = (i + version * 0x100000001b3ull) * STEP, sum = i + version;

  words[1] = version;
  for (unsigned k = 2; k < WORDS; k++) {
    if (k < MIXED_WORDS) {
      value ^= value >> 29;
      value = value * STEP + k;
    }
    words[k] = value;
    sum += value;
  }
  words[0] = sum;
}

static uint64_t *
words_of (void *values, uint32_t i) {
  return (uint64_t *)values + (size_t)i * WORDS;
}

void
zipf_fill (void *values, uint32_t n) {
  for (uint32_t i = 0; i < n; i++)
    put (words_of (values, i), i, 1);
}

void
zipf_replace (void *values, uint32_t i) {
  uint64_t *words = words_of (values, i);

  put (words, i, words[1] + 1);
}

bool
zipf_check (const void *value, uint32_t i) {
  const uint64_t *words = value;
  uint64_t sum = i;

  for (unsigned k = 1; k < WORDS; k++)
    sum += words[k];
  return sum == words[0];
}

uint32_t
zipf_choose (const struct zipf *zipf, uint64_t *state, bool *ret_replace) {
  const uint32_t i = zipf_next (zipf, state);

  *ret_replace = zipf_random (state) >> 32 < (uint64_t)UINT32_MAX / 100 * ZIPF_UPDATE_PERCENT;
  return i;
}

bool
zipf_operation (const struct zipf *zipf, void *values, uint64_t *state) {
  bool replace;
  const uint32_t i = zipf_choose (zipf, state, &replace);

  if (replace)
    zipf_replace (values, i);
  return replace || zipf_check (words_of (values, i), i);
}

/* ---- times ---- */

void
zipf_times_add (struct zipf_times *times, uint64_t ns) {
  const unsigned power = ns < ZIPF_STEPS ? 0 : 63u - (unsigned)__builtin_clzll (ns) - 3;
  const unsigned step = power ? (unsigned)(ns >> (power - 1)) & (ZIPF_STEPS - 1) : (unsigned)ns;

  times->counts[power * ZIPF_STEPS + step]++;
  times->count++;
  times->sum_ns += ns;
}

double
zipf_times_at (const struct zipf_times *times, double quantile) {
  uint64_t left = (uint64_t)(quantile * (double)(times->count - (times->count > 0)));

  for (unsigned i = 0; i < 64 * ZIPF_STEPS; i++) {
    const unsigned power = i / ZIPF_STEPS, step = i % ZIPF_STEPS;

    if (times->counts[i] > left)
      return power ? ldexp (ZIPF_STEPS + step + 0.5, (int)power - 1) : step;
    left -= times->counts[i];
  }
  return 0;
}

uint64_t
zipf_now_ns (void) {
  struct timespec ts;

  clock_gettime (CLOCK_MONOTONIC, &ts);
  return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}
