/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a keeper does when its worker has died: how soon the next one starts, in which mode, and of which program.
 *
 *   normal ── dies 3 times in a row without GOOD ──┬─ after an upgrade, once ──→ normal, of the program before it
 *     ↑                                            └─→ busy ── its hold is over ─→ normal, and the next death makes it busy at once,
 *     └── GOOD: all is forgotten                        ↑ │                        for twice as long
 *                                                       └─┴─ dies, too: again after a growing delay; now and then a normal one is tried
 *
 * Workers that may be healthy start at once, because each millisecond without one is the guest's; only those that can't even be
 * busy are made to wait, for CRASH_DELAY_MAX_MS at most. Pure.
 */
#ifndef DOMYBS_CORE_CRASH_POLICY_H
#define DOMYBS_CORE_CRASH_POLICY_H

#include <stdbool.h>
#include <stdint.h>

#include "core/keeper-wire.h"

#define CRASH_DELAY_MAX_MS 1000u

/* All zero at the start. */
struct crash_policy {
  enum keeper_mode mode; /* of the next worker */
  uint32_t strikes;      /* deaths in a row before a GOOD */
  uint32_t hold_ms;      /* of the last busy mode since GOOD; 0: there was none */
  uint32_t busy_deaths;  /* in a row, in this busy mode */
  bool can_roll_back;    /* the program before the last upgrade is still there */
};

/* The worker died, or could not be started. Returns how many ms to wait before the next one; *ret_roll_back: it is to be of the
 * program before the upgrade. */
uint32_t crash_policy_died (struct crash_policy *policy, bool *ret_roll_back);

/* A worker of normal mode has done something. */
void crash_policy_good (struct crash_policy *policy);

/* Busy mode is over: its time has passed, or the operator wants another worker now. */
void crash_policy_busy_over (struct crash_policy *policy);

/* Another program was installed and runs: what the one before did is not its fault, and there is one to go back to. */
void crash_policy_upgraded (struct crash_policy *policy);

#endif
