/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "core/arena-size.h"

#define MARGIN_MIN_MIB 16u

static uint64_t
least (uint64_t a, uint64_t b) {
  return a < b ? a : b;
}

static uint64_t
minus (uint64_t a, uint64_t b) {
  return a > b ? a - b : 0;
}

static uint64_t
plus (uint64_t a, uint64_t b) {
  return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

uint64_t
arena_margin_mib (const struct arena_limits *limits) {
  const uint64_t margin = limits->reserve_mib / 8;

  return margin > MARGIN_MIN_MIB ? margin : MARGIN_MIN_MIB;
}

static uint64_t
eighth (uint64_t mib) {
  return mib / 8 > MARGIN_MIN_MIB ? mib / 8 : MARGIN_MIN_MIB;
}

/* What is available may be as low as that before pressure is the arena's affair. */
static bool
is_narrow (const struct arena_limits *limits, uint64_t spare) {
  return spare < limits->reserve_mib;
}

static enum arena_reason
shrink (struct arena_size *size, uint64_t wanted, uint64_t now, enum arena_reason reason) {
  size->trouble_ms = now;
  if (wanted >= size->wanted_mib)
    return ARENA_KEEP;
  size->wanted_mib = wanted;
  size->step_ms = now;
  return reason;
}

enum arena_reason
arena_size_step (struct arena_size *size, const struct arena_limits *limits, const struct arena_sample *sample) {
  const uint64_t margin = arena_margin_mib (limits), now = sample->now_ms;
  const uint64_t room = minus (plus (sample->available_mib, sample->has_mib), limits->reserve_mib); /* of the arena, in all */
  const uint64_t spare = minus (minus (sample->available_mib, sample->promised_mib), limits->reserve_mib);
  const bool pressure = sample->some >= ARENA_PRESSURE_SOME || sample->full >= ARENA_PRESSURE_FULL;

  if (!size->begun) {
    const uint64_t lent
        = plus (sample->has_mib, sample->promised_mib); /* by the process before this one: not called back for a margin */
    const uint64_t wanted = least (limits->max_mib, lent <= room && lent > minus (room, margin) ? lent : minus (room, margin));

    *size = (struct arena_size){ .begun = true, .wanted_mib = wanted, .trouble_ms = now, .step_ms = now };
    return ARENA_BEGUN;
  }
  if (room < least (size->wanted_mib, limits->max_mib))
    return shrink (size, minus (room, margin), now, ARENA_RESERVE);
  if (size->wanted_mib > limits->max_mib) {
    size->wanted_mib = limits->max_mib;
    return ARENA_OPERATOR;
  }
  if (pressure && is_narrow (limits, spare)) {
    if (now - size->step_ms < ARENA_PAUSE_MS) {
      size->trouble_ms = now;
      return ARENA_KEEP;
    }
    /* From what is lent: a lower wish above that would free nothing. */
    return shrink (size,
                   minus (least (size->wanted_mib, plus (sample->has_mib, sample->promised_mib)), eighth (size->wanted_mib)),
                   now, ARENA_PRESSURE);
  }
  if (now - size->trouble_ms < ARENA_CALM_MS || now - size->step_ms < ARENA_PAUSE_MS)
    return ARENA_KEEP;
  if (size->wanted_mib < limits->max_mib && room > plus (size->wanted_mib, 2 * margin)) {
    const uint64_t most = least (limits->max_mib, room - 2 * margin);

    size->wanted_mib = least (most, plus (size->wanted_mib, eighth (limits->max_mib)));
    size->step_ms = now;
    return ARENA_GROW;
  }
  return ARENA_KEEP;
}

uint64_t
arena_share (uint64_t level, uint64_t size, uint64_t sum) {
  return sum <= size ? level : level * size / sum;
}

const char *
arena_reason_text (enum arena_reason reason) {
  switch (reason) {
  case ARENA_KEEP:
    return "unchanged";
  case ARENA_BEGUN:
    return "what there was room for at the start";
  case ARENA_GROW:
    return "there is memory to spare";
  case ARENA_RESERVE:
    return "the host's reserve was touched";
  case ARENA_PRESSURE:
    return "programs wait for memory";
  case ARENA_OPERATOR:
    return "the operator's limits";
  }
  return "?";
}
