// SPDX-License-Identifier: GPL-2.0-only
/*
 * How many blocks do we want? A function of numbers: no locks, no clock, no kernel state.
 *
 * In order: a device that is leaving gets everything back; the host's limit and its RECLAIM are followed as far as the guest
 * can bear it; then the goal (by hand, or the host's target); and without a goal, pressure: below the low watermark grow, above
 * the high one for the hysteresis time give back, down to the high one. "Can bear it" is always the same: not below the low
 * watermark, because a guest that has to kill a process to please its host has been served badly.
 */
#include <linux/minmax.h>
#include <linux/types.h>

#include "domybs-drv.h"

static const char *const domybs_why_texts[DOMYBS_WHY_COUNT] = {
  [DOMYBS_WHY_STARTING] = "starting",
  [DOMYBS_WHY_ENOUGH] = "available memory is between the watermarks, or nothing of ours could be given back",
  [DOMYBS_WHY_LOW] = "available memory is below the low watermark",
  [DOMYBS_WHY_OOM] = "the kernel was about to kill a process",
  [DOMYBS_WHY_HIGH_WAIT] = "available memory is above the high watermark, waiting out the hysteresis time",
  [DOMYBS_WHY_HIGH] = "available memory was above the high watermark for the hysteresis time",
  [DOMYBS_WHY_TARGET_ABOVE] = "the host's target is above what is granted",
  [DOMYBS_WHY_TARGET_BELOW] = "the host's target is below what is granted",
  [DOMYBS_WHY_TARGET_NEEDED] = "the host's target is below what is granted, but the guest needs it",
  [DOMYBS_WHY_TARGET_NONE] = "the host has set no target",
  [DOMYBS_WHY_MANUAL_ABOVE] = "wanted_blocks is above what is granted",
  [DOMYBS_WHY_MANUAL_BELOW] = "wanted_blocks is below what is granted",
  [DOMYBS_WHY_MANUAL_NEEDED] = "wanted_blocks is below what is granted, but the guest needs it",
  [DOMYBS_WHY_RECLAIM] = "the host asks for blocks back",
  [DOMYBS_WHY_RECLAIM_NEEDED] = "the host asks for blocks back, but the guest needs them",
  [DOMYBS_WHY_MAX] = "available memory is low, but the VM has all that it may have",
  [DOMYBS_WHY_OVER_MAX] = "the host lowered the VM's maximum below what is granted",
  [DOMYBS_WHY_DRAIN] = "the device is being removed",
  [DOMYBS_WHY_STOPPING] = "the machine is going down",
};

const char *
domybs_why_text (enum domybs_reason why) {
  return why < DOMYBS_WHY_COUNT ? domybs_why_texts[why] : "?";
}

/* Shrinks by as much of `excess` as leaves the low watermark alone; if that is nothing, waits and says so. */
static void
domybs_shrink_within (const struct domybs_view *v, u64 excess, enum domybs_reason why, enum domybs_reason needed,
                      struct domybs_decision *ret) {
  u64 room = v->available > v->low ? v->available - v->low : 0;

  ret->watch = true;
  ret->blocks = min (excess, room);
  ret->migrate = true;
  ret->action = ret->blocks ? DOMYBS_SHRINK : DOMYBS_REST;
  ret->why = ret->blocks ? why : needed;
}

static void
domybs_decide_goal (const struct domybs_view *v, u64 goal, enum domybs_reason above, enum domybs_reason below,
                    enum domybs_reason needed, struct domybs_decision *ret) {
  goal = min (goal, v->max);
  if (v->granted < goal) {
    ret->action = DOMYBS_GROW;
    ret->blocks = goal - v->granted;
    ret->why = above;
  } else if (v->granted > goal) {
    domybs_shrink_within (v, v->granted - goal, below, needed, ret);
  }
}

static void
domybs_decide_pressure (const struct domybs_view *v, struct domybs_decision *ret) {
  if (v->available < v->low || v->oom) {
    u64 need = v->available < v->low ? v->low - v->available : 0;

    ret->watch = true;
    ret->why = v->oom ? DOMYBS_WHY_OOM : DOMYBS_WHY_LOW;
    ret->blocks = min (max3 (need, v->grow_min, v->step), v->max > v->granted ? v->max - v->granted : 0);
    if (ret->blocks)
      ret->action = DOMYBS_GROW;
    else
      ret->why = DOMYBS_WHY_MAX;
    return;
  }
  if (v->available <= v->high || !(v->used + v->reserve))
    return;
  ret->watch = true;
  ret->why = DOMYBS_WHY_HIGH_WAIT;
  if (v->above_high_ms < v->hysteresis_ms)
    return;
  ret->why = DOMYBS_WHY_HIGH;
  ret->blocks = min (v->available - v->high, v->used);
  if (ret->blocks)
    ret->action = DOMYBS_SHRINK;
}

void
domybs_decide (const struct domybs_view *v, struct domybs_decision *ret) {
  *ret = (struct domybs_decision){ .action = DOMYBS_REST, .why = DOMYBS_WHY_ENOUGH };

  if (v->draining) {
    ret->why = DOMYBS_WHY_DRAIN;
    ret->watch = true;
    ret->blocks = v->granted;
    ret->migrate = true;
    ret->action = v->granted ? DOMYBS_SHRINK : DOMYBS_REST;
  } else if (v->stopping) {
    ret->why = DOMYBS_WHY_STOPPING;
  } else if (v->granted > v->max) {
    domybs_shrink_within (v, v->granted - v->max, DOMYBS_WHY_OVER_MAX, DOMYBS_WHY_RECLAIM_NEEDED, ret);
  } else if (v->reclaim && v->granted) {
    domybs_shrink_within (v, min (v->reclaim, v->granted), DOMYBS_WHY_RECLAIM, DOMYBS_WHY_RECLAIM_NEEDED, ret);
  } else if (v->mode == DOMYBS_MODE_MANUAL) {
    domybs_decide_goal (v, v->wanted, DOMYBS_WHY_MANUAL_ABOVE, DOMYBS_WHY_MANUAL_BELOW, DOMYBS_WHY_MANUAL_NEEDED, ret);
  } else if (v->have_target) {
    domybs_decide_goal (v, v->target, DOMYBS_WHY_TARGET_ABOVE, DOMYBS_WHY_TARGET_BELOW, DOMYBS_WHY_TARGET_NEEDED, ret);
  } else if (v->mode == DOMYBS_MODE_TARGET) {
    ret->why = DOMYBS_WHY_TARGET_NONE;
  } else {
    domybs_decide_pressure (v, ret);
  }
}
