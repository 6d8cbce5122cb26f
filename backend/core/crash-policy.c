/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "core/crash-policy.h"

#define DELAY_FIRST_MS 10u
/* Deaths in busy mode after which a normal worker is tried: 10 + 20 + … + 1000 ms. */
#define BUSY_DEATHS_MAX 8u

static uint32_t
doubled (uint32_t value, uint32_t first, uint32_t max) {
  if (value == 0)
    return first;
  return value < max / 2 ? value * 2 : max;
}

/* Workers can't even be busy. Normal ones may do better, they do not do the same. */
static uint32_t
busy_died (struct crash_policy *policy) {
  uint32_t delay = 0;

  for (uint32_t i = 0; i <= policy->busy_deaths; i++)
    delay = doubled (delay, DELAY_FIRST_MS, CRASH_DELAY_MAX_MS);
  if (++policy->busy_deaths >= BUSY_DEATHS_MAX)
    crash_policy_busy_over (policy);
  return delay;
}

uint32_t
crash_policy_died (struct crash_policy *policy, bool *ret_roll_back) {
  *ret_roll_back = false;
  if (policy->strikes < UINT32_MAX)
    policy->strikes++;
  if (policy->mode == KEEPER_MODE_BUSY)
    return busy_died (policy);
  if (policy->strikes < KEEPER_STRIKES_MAX)
    return 0;
  if (policy->can_roll_back) {
    *policy = (struct crash_policy){ .mode = KEEPER_MODE_NORMAL };
    *ret_roll_back = true;
    return 0;
  }
  policy->mode = KEEPER_MODE_BUSY;
  policy->busy_deaths = 0;
  policy->hold_ms = doubled (policy->hold_ms, KEEPER_HOLD_FIRST_MS, KEEPER_HOLD_MAX_MS);
  return 0;
}

void
crash_policy_good (struct crash_policy *policy) {
  policy->strikes = 0;
  policy->hold_ms = 0;
}

void
crash_policy_busy_over (struct crash_policy *policy) {
  policy->mode = KEEPER_MODE_NORMAL;
  policy->busy_deaths = 0;
}

void
crash_policy_upgraded (struct crash_policy *policy) {
  *policy = (struct crash_policy){ .mode = KEEPER_MODE_NORMAL, .can_roll_back = true };
}
