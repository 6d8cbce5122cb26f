/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "core/far-spare.h"
#include "core/far-store-internal.h"

/* Kept for the next writes: this part of all places, but neither fewer nor more. */
#define SLACK_PART 32u
#define SLACK_MIN 4u
#define SLACK_MAX 16u
/* And this part of those in use, by which that may go up and down. */
#define USED_PART 16u
/* Backed again so many windows after it was given back: that was too early. */
#define REGRET_WINDOWS 8u
/* Gaps are worth tidying when they are this part of what is used, at least. */
#define GAPS_PART 8u

static uint32_t
used_places (const struct far_figures *figures) {
  return figures->covered - figures->free - figures->bad;
}

uint32_t
far_spare_keep (const struct far_figures *figures, uint64_t level) {
  uint32_t slack = figures->places / SLACK_PART;
  uint64_t keep;

  slack = slack < SLACK_MIN ? SLACK_MIN : slack > SLACK_MAX ? SLACK_MAX : slack;
  keep = FAR_RESERVED_PLACES + slack + used_places (figures) / USED_PART;
  keep += level < figures->places ? level : figures->places;
  return keep < figures->places ? (uint32_t)keep : figures->places;
}

static uint64_t
window (const struct far_spare *spare) {
  return spare->window_us * (spare->windows ? spare->windows : 1);
}

uint32_t
far_spare_give (struct far_spare *spare, const struct far_figures *figures, uint32_t fewest_free, uint64_t level,
                uint64_t now_us) {
  const uint32_t keep = far_spare_keep (figures, level), excess = fewest_free > keep ? fewest_free - keep : 0;
  const uint32_t excess_now = figures->free > keep ? figures->free - keep : 0;
  uint32_t give;

  if (spare->window_us == 0 || excess_now < FAR_SPARE_LEAST) {
    spare->runs = false;
    return 0;
  }
  if (!spare->runs || excess < FAR_SPARE_LEAST) { /* from now on there are some */
    spare->runs = true;
    spare->began_us = now_us;
    spare->lowest = excess_now;
    return 0;
  }
  if (excess < spare->lowest)
    spare->lowest = excess;
  if (now_us - spare->began_us < window (spare))
    return 0;
  give = spare->lowest; /* at least FAR_SPARE_LEAST */
  spare->began_us = now_us;
  spare->lowest = excess_now - give;
  spare->runs = spare->lowest >= FAR_SPARE_LEAST;
  if (spare->windows > 1 && !spare->regretted && now_us - spare->given_us > REGRET_WINDOWS * window (spare))
    spare->windows /= 2;
  spare->given_us = now_us;
  spare->regretted = false;
  return give;
}

uint64_t
far_spare_wait_us (const struct far_spare *spare, uint64_t now_us) {
  const uint64_t passed = now_us - spare->began_us;

  if (!spare->runs)
    return 0;
  return passed < window (spare) ? window (spare) - passed : 1;
}

void
far_spare_regret (struct far_spare *spare, uint64_t now_us) {
  if (spare->given_us == 0 || spare->regretted || now_us - spare->given_us > REGRET_WINDOWS * window (spare))
    return;
  spare->windows = spare->windows ? spare->windows * 2 : 2;
  if (spare->windows > FAR_SPARE_WINDOWS_MAX)
    spare->windows = FAR_SPARE_WINDOWS_MAX;
  spare->regretted = true; /* once for each time */
}

bool
far_spare_wants_tidying (const struct far_spare *spare, const struct far_figures *figures) {
  const uint64_t used = used_places (figures), least = used / GAPS_PART > FAR_SPARE_LEAST ? used / GAPS_PART : FAR_SPARE_LEAST;

  return spare->window_us && used * FAR_SEGMENT_BYTES > figures->stored_bytes
         && used * FAR_SEGMENT_BYTES - figures->stored_bytes >= least * FAR_SEGMENT_BYTES;
}
