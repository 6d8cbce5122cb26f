// SPDX-License-Identifier: GPL-2.0-only
/*
 * The worker: one thread per device that looks at the numbers, asks the policy, and carries out what it says, in steps small
 * enough that a new fact (pressure, an event, a user of /dev/domybs) is seen soon.
 *
 * Steps of growing: HELD blocks back first (no hotplug needed), then the spare section. Steps of shrinking, cheapest first:
 * sections whose pages are all free (offlining them touches nothing), free blocks of other sections, nearly empty sections,
 * and, if the policy allows moving pages, other sections and single blocks.
 */
#include <linux/freezer.h>
#include <linux/kthread.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/sched/signal.h>

#include "compat.h"
#include "domybs-drv.h"

unsigned int domybs_poll_ms = 100;
module_param_named (poll_ms, domybs_poll_ms, uint, 0644);
MODULE_PARM_DESC (poll_ms,
                  "how often the worker looks at the guest's memory while something goes on (ms); five times slower when idle");

unsigned int domybs_hysteresis_ms = 5000;
module_param_named (hysteresis_ms, domybs_hysteresis_ms, uint, 0644);
MODULE_PARM_DESC (hysteresis_ms,
                  "available memory must be above the high watermark for so long before blocks are given back (ms)");

unsigned int domybs_reserve_blocks = 4;
module_param_named (reserve_blocks, domybs_reserve_blocks, uint, 0644);
MODULE_PARM_DESC (reserve_blocks,
                  "granted blocks kept out of the page allocator for the OOM notifier to hand out (automatic mode only)");

static unsigned int domybs_low_percent = 10, domybs_low_mib = 128, domybs_high_percent = 25, domybs_high_mib = 320;
module_param_named (low_percent, domybs_low_percent, uint, 0644);
MODULE_PARM_DESC (low_percent, "grow when available memory is below this share of the guest's memory (percent) …");
module_param_named (low_mib, domybs_low_mib, uint, 0644);
MODULE_PARM_DESC (low_mib, "… or below this much (MiB), whichever is more");
module_param_named (high_percent, domybs_high_percent, uint, 0644);
MODULE_PARM_DESC (high_percent, "give back while available memory is above this share of the guest's memory (percent) …");
module_param_named (high_mib, domybs_high_mib, uint, 0644);
MODULE_PARM_DESC (high_mib, "… and above this much (MiB)");

#define DOMYBS_STEP_MAX 512u              /* doubling ends at 1 GiB: what is not needed costs hysteresis time */
#define DOMYBS_LEAVE_FREE_MS 2000         /* offlining a section whose pages are free takes a fraction of it */
#define DOMYBS_LEAVE_AT_ONCE 16           /* free sections to offline before they are released together */
#define DOMYBS_LEAVE_MOVE_MS 3000         /* moving up to 128 MiB */
#define DOMYBS_SHRINK_BACKOFF_MAX_MS 2000 /* freed memory must be seen soon: the search for free blocks is cheap */
#define DOMYBS_CONFIG_EVERY msecs_to_jiffies (20)
#define DOMYBS_STATS_BUSY (2 * HZ)
#define DOMYBS_STATS_IDLE (10 * HZ)

static u64
domybs_percent_blocks (unsigned int percent, unsigned int mib) {
  u64 total = ((u64)totalram_pages () << PAGE_SHIFT) >> DOMYBS_BLOCK_SHIFT;

  return max (total * min (percent, 100u) / 100, DOMYBS_BLOCKS_PER_MIB (mib));
}

u64
domybs_low_blocks (void) {
  return domybs_percent_blocks (READ_ONCE (domybs_low_percent), READ_ONCE (domybs_low_mib));
}

u64
domybs_high_blocks (const struct domybs *d) {
  /* Growing by a small section must not carry us from below low to above high. */
  return max (domybs_percent_blocks (READ_ONCE (domybs_high_percent), READ_ONCE (domybs_high_mib)),
              domybs_low_blocks () + min (d->section_blocks, 64u));
}

static u64
domybs_available_blocks (void) {
  return (u64)max (si_mem_available (), 0l) / DOMYBS_PAGES_PER_BLOCK;
}

u64
domybs_to_spare_blocks (void) {
  u64 available = domybs_available_blocks (), low = domybs_low_blocks ();

  return available > low ? available - low : 0;
}

bool
domybs_pressed (struct domybs *d) {
  if (READ_ONCE (d->draining))
    return false; /* it all has to go, as soon as there is anywhere to put it */
  return test_bit (DOMYBS_KICK_OOM, &d->kicks) || domybs_available_blocks () < domybs_low_blocks ();
}

static void
domybs_progress (struct domybs *d, bool good) {
  spin_lock_irq (&d->lock);
  d->progress_seq++;
  d->progress_good = good;
  spin_unlock_irq (&d->lock);
  wake_up_all (&d->progress);
}

static void
domybs_look (struct domybs *d, struct domybs_view *v) {
  *v = (struct domybs_view){
    .oom = test_and_clear_bit (DOMYBS_KICK_OOM, &d->kicks),
    .section_blocks = d->section_blocks,
    .grow_min = d->grow_min,
    .step = d->step,
    .available = domybs_available_blocks (),
    .low = domybs_low_blocks (),
    .high = domybs_high_blocks (d),
    .hysteresis_ms = READ_ONCE (domybs_hysteresis_ms),
  };
  spin_lock_irq (&d->lock);
  v->mode = d->mode;
  v->draining = d->draining;
  v->stopping = d->stopping;
  v->have_target = d->config.have_target;
  v->target = d->config.target_blocks;
  v->max = d->config.max_blocks;
  v->wanted = d->wanted;
  v->granted = domybs_granted_locked (d);
  v->used = d->count[DOMYBS_BLOCK_USED];
  v->held = d->count[DOMYBS_BLOCK_HELD];
  v->reserve = d->count[DOMYBS_BLOCK_RESERVE];
  v->user = d->count[DOMYBS_BLOCK_USER];
  if (d->reclaim_left && time_after (jiffies, d->reclaim_deadline))
    d->reclaim_left = 0;
  v->reclaim = d->reclaim_left;
  spin_unlock_irq (&d->lock);

  if (v->available <= v->high)
    d->above_high_since = 0;
  else if (!d->above_high_since)
    d->above_high_since = jiffies ? jiffies : 1;
  if (d->above_high_since)
    v->above_high_ms = jiffies_to_msecs (jiffies - d->above_high_since);
}

/* An OOM call while there is memory for programs is about the kernel's own. What was set aside for it the notifier has given
 * back already; then come the per-CPU lists, and the memmap of a spare is the last that we can give. Growing would only take
 * more of it. */
static void
domybs_oom_kernel (struct domybs *d, struct domybs_view *v) {
  bool good;

  if (!v->oom || v->available < DOMYBS_OOM_PLENTY || !domybs_room_short (d))
    return;
  v->oom = false;
  good = domybs_room_drain (d);
  if (!good) {
    good = domybs_spare_drop (d);
    d->counters.spares_dropped += good;
  }
  domybs_progress (d, good);
}

static bool
domybs_by_pressure (const struct domybs_view *v) {
  return v->mode == DOMYBS_MODE_AUTO && !v->have_target && !v->draining && !v->stopping;
}

/* Something that should be looked at before going on with what we do. */
static bool
domybs_interrupted (struct domybs *d) {
  return kthread_should_stop () || test_bit (DOMYBS_KICK_EVENT, &d->kicks) || test_bit (DOMYBS_KICK_CONFIG, &d->kicks);
}

static bool
domybs_ending (struct domybs *d) {
  return READ_ONCE (d->draining) || READ_ONCE (d->stopping) || READ_ONCE (d->broken);
}

/* ---- growing ---- */

static bool
domybs_ask_waits (const struct domybs *d) {
  return d->ask_after && time_before (jiffies, d->ask_after);
}

static int
domybs_grow_step (struct domybs *d, u64 want, u64 room, bool pressed, u32 *ret_section) {
  u32 got = 0;
  int rc;

  *ret_section = DOMYBS_SECTION_NONE;
  if (d->count[DOMYBS_BLOCK_HELD]) {
    mutex_lock (&d->hotplug);
    rc = domybs_blocks_regrant (d, min_t (u64, want, 4 * READ_ONCE (domybs_batch_blocks)), DOMYBS_BLOCK_USED, &got);
    mutex_unlock (&d->hotplug);
    if (rc || got)
      return rc ? rc : got;
  }
  if (room < d->section_blocks)
    return -ENOSPC;
  if (!d->section_count[DOMYBS_SECTION_SPARE]) {
    rc = domybs_spare_fill (d, pressed);
    d->no_spare_memory = rc == -ENOMEM;
    if (rc)
      return rc;
  }
  return domybs_section_grow (d, ret_section);
}

static void
domybs_grow (struct domybs *d, const struct domybs_view *v, const struct domybs_decision *decision) {
  u64 granted = v->granted, grown = 0;
  bool pressed = v->oom || v->available < v->low;
  int rc = 0;

  /* One step at least, or a host that sends events all the time could keep us from growing. */
  while (grown < decision->blocks && !domybs_ending (d) && !domybs_ask_waits (d) && !(grown && domybs_interrupted (d))) {
    u32 section;

    rc = domybs_grow_step (d, decision->blocks - grown, v->max > granted ? v->max - granted : 0, pressed, &section);
    if (rc <= 0)
      break;
    grown += rc;
    granted += rc;
    domybs_progress (d, true);
    if (section != DOMYBS_SECTION_NONE)
      d->no_spare_memory = domybs_spare_fill (d, pressed) == -ENOMEM;
  }
  if (grown) {
    d->step
        = time_before (jiffies, d->last_grow + HZ) ? min (d->step * 2, max_t (u64, DOMYBS_STEP_MAX, d->grow_min)) : d->grow_min;
    d->last_grow = jiffies;
    d->shrink_after = 0;
    d->shrink_backoff_ms = 0;
    dev_dbg (d->dev, "grew by %llu blocks: %s\n", grown, domybs_why_text (decision->why));
    return;
  }
  domybs_progress (d, false);
  if (rc < 0 && !domybs_ask_waits (d)) {
    /* Not the host's refusal: the kernel has no memory for a spare, or hotplug failed. */
    d->ask_after = jiffies + msecs_to_jiffies (rc == -ENOSPC ? 1000 : 200);
    if (!d->ask_after)
      d->ask_after = 1;
  }
}

/* ---- shrinking ---- */

/* The section that is cheapest to empty among those that have no more than `want` blocks in use and no more than `busy_max`
 * that are not wholly free. */
static u32
domybs_section_choose (struct domybs *d, u64 want, u32 busy_max) {
  u32 best = DOMYBS_SECTION_NONE, best_busy = ~0u, s;

  for (s = d->sections; s-- > 0;) {
    struct domybs_section *section = &d->section[s];
    u32 used = section->count[DOMYBS_BLOCK_USED], busy;

    if (section->state != DOMYBS_SECTION_ONLINE || section->count[DOMYBS_BLOCK_USER] || used > want
        || (section->failures && time_before (jiffies, section->retry_jiffies)))
      continue;
    busy = used - domybs_blocks_scan (d, s);
    if (!busy)
      return s;
    if (busy <= busy_max && busy < best_busy) {
      best = s;
      best_busy = busy;
    }
  }
  return best;
}

/* Sections in which nothing is in use any more. */
static u64
domybs_shrink_empty (struct domybs *d) {
  bool any = false;
  u64 freed = 0;
  u32 s;

  for (s = d->sections; s-- > 0 && !domybs_interrupted (d);) {
    struct domybs_section *section = &d->section[s];
    u32 reserve = section->count[DOMYBS_BLOCK_RESERVE];

    if (section->state != DOMYBS_SECTION_ONLINE || section->count[DOMYBS_BLOCK_USED] || section->count[DOMYBS_BLOCK_USER]
        || section->count[DOMYBS_BLOCK_TAKEN] || (section->failures && time_before (jiffies, section->retry_jiffies)))
      continue;
    if (domybs_section_leave (d, s, DOMYBS_LEAVE_FREE_MS))
      continue;
    freed += reserve;
    any = true;
  }
  if (any)
    domybs_sections_settle (d);
  return freed;
}

/* Sections whose pages are all free. */
static u64
domybs_shrink_free (struct domybs *d, u64 want) {
  u64 freed = 0;
  u32 n, s;

  for (n = 0; n < DOMYBS_LEAVE_AT_ONCE && freed < want && !domybs_interrupted (d) && !domybs_pressed (d); n++) {
    u64 blocks;

    s = domybs_section_choose (d, want - freed, 0);
    if (s == DOMYBS_SECTION_NONE)
      break;
    blocks = d->section[s].count[DOMYBS_BLOCK_USED] + d->section[s].count[DOMYBS_BLOCK_RESERVE];
    if (domybs_section_leave (d, s, DOMYBS_LEAVE_FREE_MS))
      break;
    freed += max (blocks, 1ull);
  }
  if (freed)
    domybs_sections_settle (d);
  return freed;
}

static u64
domybs_shrink_step (struct domybs *d, const struct domybs_view *v, const struct domybs_decision *decision) {
  u32 batch = min_t (u64, decision->blocks, max (READ_ONCE (domybs_batch_blocks), 1u)), s;
  u64 freed = 0;

  if (!domybs_by_pressure (v) && v->reserve) {
    mutex_lock (&d->hotplug);
    domybs_blocks_reserve_drop (d, 0);
    freed = domybs_blocks_release_taken (d);
    mutex_unlock (&d->hotplug);
    if (freed)
      return freed;
  }

  freed = domybs_shrink_free (d, decision->blocks);
  if (freed)
    return freed;

  mutex_lock (&d->hotplug);
  domybs_blocks_take (d, batch, false);
  freed = domybs_blocks_release_taken (d);
  mutex_unlock (&d->hotplug);
  if (freed || domybs_interrupted (d) || domybs_pressed (d))
    return freed;

  /* Unasked, a section is emptied by moving pages only if they are few: the rest of it is worth more than that. */
  s = domybs_section_choose (d, decision->blocks, decision->migrate ? d->section_blocks : d->section_blocks / 4);
  if (s != DOMYBS_SECTION_NONE) {
    freed = d->section[s].count[DOMYBS_BLOCK_USED];
    if (!domybs_section_leave (d, s, DOMYBS_LEAVE_MOVE_MS)) {
      domybs_sections_settle (d);
      return max (freed, 1ull);
    }
  }
  if (!decision->migrate)
    return 0;
  mutex_lock (&d->hotplug);
  domybs_blocks_take (d, batch, true);
  freed = domybs_blocks_release_taken (d);
  mutex_unlock (&d->hotplug);
  return freed;
}

/* For removal: blocks only, because sections need a lock that may be held by who removes us. */
static u64
domybs_drain_step (struct domybs *d) {
  u64 freed;

  mutex_lock (&d->hotplug);
  domybs_blocks_reserve_drop (d, 0);
  domybs_blocks_take (d, max (READ_ONCE (domybs_batch_blocks), 1u), true);
  freed = domybs_blocks_release_taken (d);
  mutex_unlock (&d->hotplug);
  return freed;
}

static void
domybs_shrink (struct domybs *d, const struct domybs_view *v, const struct domybs_decision *decision) {
  u64 freed;

  if (d->shrink_after && time_before (jiffies, d->shrink_after))
    return;
  if (v->draining) {
    freed = domybs_drain_step (d);
  } else {
    freed = domybs_shrink_step (d, v, decision);
    freed += domybs_shrink_empty (d);
  }

  spin_lock_irq (&d->lock);
  d->stuck = freed >= decision->blocks ? 0 : decision->blocks - freed;
  if (d->reclaim_left) {
    u64 done = min (freed, d->reclaim_left);

    d->reclaim_left -= done;
    d->counters.reclaim_done += done;
    if (d->mode == DOMYBS_MODE_MANUAL) /* or we would ask for them again at once */
      d->wanted -= min (d->wanted, done);
  }
  spin_unlock_irq (&d->lock);
  if (freed) {
    d->shrink_after = 0;
    d->shrink_backoff_ms = 0;
    dev_dbg (d->dev, "gave back %llu blocks: %s\n", freed, domybs_why_text (decision->why));
    return;
  }
  d->shrink_backoff_ms = clamp (d->shrink_backoff_ms * 2, 250u, (u32)DOMYBS_SHRINK_BACKOFF_MAX_MS);
  d->shrink_after = jiffies + msecs_to_jiffies (d->shrink_backoff_ms);
  if (!d->shrink_after)
    d->shrink_after = 1;
}

/* ---- upkeep ---- */

static void
domybs_upkeep (struct domybs *d, const struct domybs_view *v) {
  if (d->count[DOMYBS_BLOCK_PARKED])
    domybs_sections_settle (d);
  if (v->draining || v->stopping)
    return;
  if (d->section_count[DOMYBS_SECTION_SPARE] != max (READ_ONCE (domybs_spares), 1u)) {
    d->no_spare_memory = domybs_spare_fill (d, false) == -ENOMEM;
    if (d->section_count[DOMYBS_SECTION_SPARE] > max (READ_ONCE (domybs_spares), 1u))
      domybs_sections_settle (d);
  }
  domybs_room_fill (d, v->available > v->high);
  if (domybs_by_pressure (v) && v->used > READ_ONCE (domybs_reserve_blocks) && v->reserve < READ_ONCE (domybs_reserve_blocks)
      && v->available > v->low + domybs_reserve_blocks) {
    mutex_lock (&d->hotplug);
    domybs_blocks_reserve_fill (d, READ_ONCE (domybs_reserve_blocks) - v->reserve);
    mutex_unlock (&d->hotplug);
  }
}

/* Soon when there is news, which includes that nothing more can be done: an operator waits for that. */
static void
domybs_report (struct domybs *d) {
  u64 granted = domybs_granted (d);
  bool changed = granted != d->stats_granted || d->last.why != d->stats_why || d->last.action != DOMYBS_REST;

  if (!changed && time_before (jiffies, d->stats_after))
    return;
  if (changed && time_before (jiffies, d->stats_after - DOMYBS_STATS_IDLE + DOMYBS_STATS_BUSY))
    return;
  d->stats_granted = granted;
  d->stats_why = d->last.why;
  d->stats_after = jiffies + DOMYBS_STATS_IDLE;
  domybs_stats_send (d);
}

static void
domybs_kicks_take (struct domybs *d) {
  clear_bit (DOMYBS_KICK_WAKE, &d->kicks);
  if (test_and_clear_bit (DOMYBS_KICK_EVENT, &d->kicks))
    domybs_events_drain (d);
  if (test_bit (DOMYBS_KICK_CONFIG, &d->kicks)) {
    if (time_before (jiffies, d->config_read + DOMYBS_CONFIG_EVERY)) /* for a host that changes its mind all the time */
      schedule_timeout_uninterruptible (DOMYBS_CONFIG_EVERY);
    clear_bit (DOMYBS_KICK_CONFIG, &d->kicks);
    d->config_read = jiffies;
    domybs_config_refresh (d);
  }
  if (test_and_clear_bit (DOMYBS_KICK_OFFER, &d->kicks)) {
    d->ask_after = 0;
    d->ask_backoff_ms = 0;
    d->standby_offered = true;
  }
}

static bool
domybs_hello_done (struct domybs *d) {
  int rc;

  if (d->session)
    return true;
  if (READ_ONCE (d->broken) || READ_ONCE (d->draining) || READ_ONCE (d->stopping) || d->bye_said)
    return false;
  rc = domybs_hello (d);
  if (rc)
    return false;
  domybs_demotion_allow (d);
  domybs_standby_reset (d);
  dev_info (d->dev, "session %llu: window of %llu blocks, sections of %u blocks, up to %llu blocks, node %d\n", d->session,
            d->window_blocks, d->section_blocks, d->config.max_blocks, d->node);
  return true;
}

/* Says BYE when the machine goes down and nothing would be lost by it. */
static void
domybs_farewell (struct domybs *d) {
  if (!READ_ONCE (d->stopping) || d->bye_said)
    return;
  if (!domybs_granted (d) && !READ_ONCE (d->broken))
    domybs_bye (d);
  spin_lock_irq (&d->lock);
  d->bye_said = true;
  spin_unlock_irq (&d->lock);
  wake_up_all (&d->progress);
}

static void
domybs_drained (struct domybs *d) {
  bool done;

  if (!READ_ONCE (d->draining) || d->drained)
    return;
  spin_lock_irq (&d->lock);
  done = !d->count[DOMYBS_BLOCK_USED] && !d->count[DOMYBS_BLOCK_USER] && (!domybs_granted_locked (d) || d->broken)
         && !d->section_count[DOMYBS_SECTION_ONLINING] && !d->section_count[DOMYBS_SECTION_LEAVING];
  d->drained = done;
  spin_unlock_irq (&d->lock);
  if (!done)
    return;
  wake_up_all (&d->progress);
}

static long
domybs_pause (const struct domybs *d, const struct domybs_view *v, const struct domybs_decision *decision) {
  u32 poll = max (READ_ONCE (domybs_poll_ms), 10u);

  if (READ_ONCE (d->broken) && !v->draining)
    return MAX_SCHEDULE_TIMEOUT;
  if (decision->action == DOMYBS_SHRINK && !(d->shrink_after && time_before (jiffies, d->shrink_after)))
    return 0;
  if (decision->action == DOMYBS_GROW && !domybs_ask_waits (d))
    return 0;
  if (decision->watch || decision->action != DOMYBS_REST || v->available < 3 * v->low)
    return msecs_to_jiffies (poll);
  return msecs_to_jiffies (5 * poll);
}

int
domybs_worker (void *data) {
  struct domybs *d = data;
  long pause = 0;

  allow_signal (SIGALRM);
  sched_set_normal (current, -10);

  while (!kthread_should_stop ()) {
    struct domybs_view view;
    struct domybs_decision decision;

    if (pause)
      wait_event_interruptible_timeout (d->wake, d->kicks || kthread_should_stop (), pause);
    cond_resched ();
    flush_signals (current);
    if (kthread_should_stop ())
      break;
    domybs_kicks_take (d);
    if (!domybs_hello_done (d) && !READ_ONCE (d->draining)) {
      domybs_ops_run (d);
      domybs_farewell (d);
      domybs_progress (d, false);
      pause = READ_ONCE (d->broken) || READ_ONCE (d->stopping) ? MAX_SCHEDULE_TIMEOUT : msecs_to_jiffies (500);
      continue;
    }

    domybs_look (d, &view);
    domybs_oom_kernel (d, &view);
    domybs_decide (&view, &decision);
    if (READ_ONCE (d->broken) && !view.draining)
      decision = (struct domybs_decision){ .action = DOMYBS_REST, .why = DOMYBS_WHY_ENOUGH };
    spin_lock_irq (&d->lock);
    d->last = decision;
    if (decision.action == DOMYBS_REST)
      d->stuck = 0;
    spin_unlock_irq (&d->lock);

    if (decision.action == DOMYBS_GROW)
      domybs_grow (d, &view, &decision);
    else if (view.oom)
      domybs_progress (d, false);
    if (decision.action == DOMYBS_SHRINK)
      domybs_shrink (d, &view, &decision);
    if (!READ_ONCE (d->broken)) {
      domybs_ops_run (d);
      domybs_upkeep (d, &view);
      domybs_report (d);
      domybs_standby_run (d, &view);
    } else {
      domybs_ops_run (d);
    }
    domybs_farewell (d);
    domybs_drained (d);
    pause = domybs_pause (d, &view, &decision);
  }
  return 0;
}
