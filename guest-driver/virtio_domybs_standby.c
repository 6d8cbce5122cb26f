// SPDX-License-Identifier: GPL-2.0-only
/*
 * Far memory ahead of need: tells the host how much of each far disk is to be ready beyond what is in use. domybs-standby.h
 * decides, this asks. Nothing here waits: what the host says is asked for again at one of the worker's next turns.
 */
#include <linux/jiffies.h>
#include <linux/module.h>

#include "domybs-drv.h"

static unsigned int domybs_standby_mib[DOMYBS_STANDBY_TIERS] = { 64, 0 };
module_param_named (standby_shared, domybs_standby_mib[0], uint, 0644);
MODULE_PARM_DESC (
    standby_shared,
    "far memory of tier SHARED that the host is to have ready beyond what is in use (MiB); four times as much under pressure");
module_param_named (standby_remote, domybs_standby_mib[1], uint, 0644);
MODULE_PARM_DESC (standby_remote, "the same of tier REMOTE (MiB)");

static unsigned int domybs_standby_calm_ms = 10000;
module_param_named (standby_calm_ms, domybs_standby_calm_ms, uint, 0644);
MODULE_PARM_DESC (standby_calm_ms, "how long pressure must be over before that is no longer four times as much (ms)");

static const char *const domybs_standby_words[DOMYBS_STANDBY_STATES] = {
  [DOMYBS_STANDBY_NEVER] = "not asked for",
  [DOMYBS_STANDBY_READY] = "ready",
  [DOMYBS_STANDBY_FILLING] = "the host is at it",
  [DOMYBS_STANDBY_SHORT] = "the host has no more",
  [DOMYBS_STANDBY_WAITING] = "the host has no far memory for this VM yet",
  [DOMYBS_STANDBY_NO_TIER] = "this VM has no far memory of this tier",
  [DOMYBS_STANDBY_UNKNOWN] = "the host's device does not know of it",
};

static u32
domybs_ms_since (unsigned long then) {
  return min (jiffies_to_msecs (jiffies - then), 0x7fffffffu);
}

static bool
domybs_standby_update (struct domybs *d, bool pressed) {
  if (pressed)
    d->standby_pressed_at = jiffies;
  d->standby_raised = domybs_standby_raised (d->standby_raised, pressed, domybs_ms_since (d->standby_pressed_at),
                                             READ_ONCE (domybs_standby_calm_ms));
  return d->standby_raised;
}

static void
domybs_standby_ask (struct domybs *d, u32 tier, u64 level) {
  enum domybs_standby_state state;
  struct domybs_standby next = d->standby[tier];
  u64 ready = 0;

  switch (domybs_far_reserve (d, DOMYBS_HINT_SHARED + tier, level, &ready)) {
  case 0:
    state = ready < level ? DOMYBS_STANDBY_FILLING : DOMYBS_STANDBY_READY;
    break;
  case -ENOMEM:
    state = DOMYBS_STANDBY_SHORT;
    break;
  case -EAGAIN:
    state = DOMYBS_STANDBY_WAITING;
    break;
  case -EOPNOTSUPP:
    state = DOMYBS_STANDBY_NO_TIER;
    break;
  case -ENOSYS:
    state = DOMYBS_STANDBY_UNKNOWN;
    break;
  default:
    return; /* broken, or given up on */
  }
  domybs_standby_answered (&next, level, state, ready);
  d->standby_at[tier] = jiffies;
  spin_lock_irq (&d->lock);
  d->standby[tier] = next;
  spin_unlock_irq (&d->lock);
}

void
domybs_standby_run (struct domybs *d, const struct domybs_view *v) {
  bool raised = domybs_standby_update (d, v->oom || v->available < v->low);
  bool offered = d->standby_offered;
  u32 tier;

  if (v->draining || v->stopping)
    return;
  d->standby_offered = false;
  for (tier = 0; tier < DOMYBS_STANDBY_TIERS; tier++) {
    u64 base = DOMYBS_BLOCKS_PER_MIB (READ_ONCE (domybs_standby_mib[tier]));
    u64 level = domybs_standby_level (base, raised, DOMYBS_RESERVE_BLOCKS_MAX);

    if (domybs_standby_asks (&d->standby[tier], level, domybs_ms_since (d->standby_at[tier]), offered))
      domybs_standby_ask (d, tier, level);
  }
}

void
domybs_standby_reset (struct domybs *d) {
  spin_lock_irq (&d->lock);
  memset (d->standby, 0, sizeof d->standby);
  spin_unlock_irq (&d->lock);
}

ssize_t
domybs_standby_show (struct domybs *d, char *buf) {
  static const char *const tiers[DOMYBS_STANDBY_TIERS] = { "shared", "remote" };
  struct domybs_standby standby[DOMYBS_STANDBY_TIERS];
  int len = 0;
  u32 tier;

  spin_lock_irq (&d->lock);
  memcpy (standby, d->standby, sizeof standby);
  spin_unlock_irq (&d->lock);
  for (tier = 0; tier < DOMYBS_STANDBY_TIERS; tier++)
    len += sysfs_emit_at (buf, len, "%s asked %llu ready %llu %s\n", tiers[tier], standby[tier].level, standby[tier].ready,
                          domybs_standby_words[standby[tier].state]);
  return len;
}
