/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * How much far memory to have ready at the host, and how often to ask for it. Functions of numbers: no locks, no clock, no
 * kernel state; they are tested outside of the kernel, by who includes this with the types below.
 *
 * Why at all: a guest under pressure writes pages out as fast as it can, and each of them that waits until its host has found
 * room for it makes the pressure worse. So some room is kept ready beyond what is in use, always; four times as much once
 * memory is short, for what is written out in the next seconds; and again less when that has been over for a while, because
 * room that is kept for one guest is missing to others.
 */
#ifndef DOMYBS_STANDBY_H
#define DOMYBS_STANDBY_H

#define DOMYBS_STANDBY_RAISE 4u /* times as much under pressure: 256 MiB of 64 is what a fast disk takes in a second */

/* What the last answer said. */
enum domybs_standby_state {
  DOMYBS_STANDBY_NEVER = 0, /* nothing was asked yet */
  DOMYBS_STANDBY_READY,     /* it is all there */
  DOMYBS_STANDBY_FILLING,   /* the host is at it */
  DOMYBS_STANDBY_SHORT,     /* the host has no more */
  DOMYBS_STANDBY_WAITING,   /* not now: nobody has far memory yet */
  DOMYBS_STANDBY_NO_TIER,   /* this VM has no far memory of that tier */
  DOMYBS_STANDBY_UNKNOWN,   /* the device does not know what is asked */
  DOMYBS_STANDBY_STATES
};

struct domybs_standby {
  u64 level; /* asked for last, in blocks */
  u64 ready; /* of these, by the answer */
  enum domybs_standby_state state;
  u32 pause_ms; /* until it is asked again unasked */
};

/* Pressure raises it at once; calm lowers it when it has lasted. */
static inline bool
domybs_standby_raised (bool is_raised, bool is_pressed, u32 calm_ms, u32 calm_needed_ms) {
  return is_pressed || (is_raised && calm_ms < calm_needed_ms);
}

static inline u64
domybs_standby_level (u64 base, bool is_raised, u64 max) {
  u64 level = base;

  if (is_raised)
    level = base > max / DOMYBS_STANDBY_RAISE ? max : base * DOMYBS_STANDBY_RAISE;
  return level < max ? level : max;
}

/* The answers that are worth another question at once when the level is another one: the others say the same of any level. */
static inline bool
domybs_standby_answers_levels (enum domybs_standby_state state) {
  return state <= DOMYBS_STANDBY_SHORT;
}

/* Whether to ask now for `level`. since_ms: since the last answer. offered: the host has said that asking is worth while. */
static inline bool
domybs_standby_asks (const struct domybs_standby *s, u64 level, u32 since_ms, bool offered) {
  if (s->state == DOMYBS_STANDBY_NEVER)
    return level != 0;
  if (level != s->level && domybs_standby_answers_levels (s->state))
    return true;
  if (level == 0 && s->level == 0)
    return false; /* that needs no looking after */
  if (offered && s->state >= DOMYBS_STANDBY_FILLING && s->state <= DOMYBS_STANDBY_WAITING)
    return true;
  return since_ms >= s->pause_ms;
}

/* An answer. Levels are the guest's to remember: a host whose processes have all died is told again within half a minute. */
static inline void
domybs_standby_answered (struct domybs_standby *s, u64 level, enum domybs_standby_state state, u64 ready) {
  static const struct {
    u32 first_ms, max_ms;
  } pauses[DOMYBS_STANDBY_STATES] = {
    [DOMYBS_STANDBY_READY] = { 30000, 30000 },    [DOMYBS_STANDBY_FILLING] = { 500, 30000 },
    [DOMYBS_STANDBY_SHORT] = { 1000, 60000 },     [DOMYBS_STANDBY_WAITING] = { 1000, 60000 },
    [DOMYBS_STANDBY_NO_TIER] = { 60000, 600000 }, [DOMYBS_STANDBY_UNKNOWN] = { 3600000, 3600000 },
  };
  bool again = state == s->state && level == s->level;
  u32 pause = again ? s->pause_ms * 2 : pauses[state].first_ms;

  s->pause_ms = pause < pauses[state].max_ms ? pause : pauses[state].max_ms;
  s->level = level;
  s->state = state;
  s->ready = ready;
}

#endif
