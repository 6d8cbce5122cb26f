// SPDX-License-Identifier: GPL-2.0-only
/*
 * The kernel's own cries for memory.
 *
 * The shrinker frees nothing: that it is asked says that reclaim has begun, and the worker looks at once instead of at its next
 * turn. The OOM notifier is the last stop before a process is killed, which is what people fear most: it hands out what was set
 * aside for the kernel, or the reserve, which needs nothing but a spinlock, and else waits, for a bounded time, for the worker
 * to bring a section online. The worker can: it may dip into the kernel's reserves, and the spare section needs hardly any
 * memory.
 */
#include <linux/jiffies.h>
#include <linux/module.h>
#include <linux/oom.h>
#include <linux/sched.h>
#include <linux/shrinker.h>

#include "compat.h"
#include "domybs-drv.h"

static unsigned int domybs_oom_wait_ms = 1500;
module_param_named (oom_wait_ms, domybs_oom_wait_ms, uint, 0644);
MODULE_PARM_DESC (oom_wait_ms,
                  "how long a process that runs out of memory waits for more before the kernel kills one (ms, at most 5000)");

#define DOMYBS_OOM_ANSWERS 3
#define DOMYBS_OOM_ROOM 1               /* block: page tables for a gigabyte, or the memmap of a small section */
#define DOMYBS_SHRINKER_EVERY (HZ / 50) /* reclaim calls very often */

static unsigned long
domybs_shrinker_count (struct shrinker *shrinker, struct shrink_control *sc) {
  struct domybs *d = domybs_from_shrinker (shrinker, struct domybs, own_shrinker);
  unsigned long last = READ_ONCE (d->shrinker_kick);

  if (!last || time_after (jiffies, last + DOMYBS_SHRINKER_EVERY)) {
    WRITE_ONCE (d->shrinker_kick, jiffies);
    domybs_kick (d, DOMYBS_KICK_WAKE);
  }
  return 0;
}

static unsigned long
domybs_shrinker_scan (struct shrinker *shrinker, struct shrink_control *sc) {
  return SHRINK_STOP;
}

static bool
domybs_moved_on (struct domybs *d, unsigned long seq) {
  return READ_ONCE (d->progress_seq) != seq;
}

/* Asks the worker for help and waits for it. The first answer may be about something that it had begun before; so a no is
 * believed only when it is repeated. */
static bool
domybs_oom_ask (struct domybs *d) {
  unsigned long end = jiffies + msecs_to_jiffies (min (READ_ONCE (domybs_oom_wait_ms), 5000u)), seq;
  bool good = false;
  int answers;

  for (answers = 0; answers < DOMYBS_OOM_ANSWERS && !good && time_before (jiffies, end); answers++) {
    seq = READ_ONCE (d->progress_seq);
    smp_mb (); /* the number before the kick */
    domybs_kick (d, DOMYBS_KICK_OOM);
    domybs_offline_abort (d);
    if (!wait_event_timeout (d->progress, domybs_moved_on (d, seq), end - jiffies))
      break;
    spin_lock_irq (&d->lock);
    good = d->progress_good;
    spin_unlock_irq (&d->lock);
  }
  return good;
}

static int
domybs_oom (struct notifier_block *nb, unsigned long unused, void *data) {
  struct domybs *d = container_of (nb, struct domybs, oom_nb);
  unsigned long *freed = data;
  bool act, good;
  u32 blocks;

  spin_lock_irq (&d->lock);
  act = !d->draining && !d->stopping && !d->broken;
  d->counters.oom_calls++;
  spin_unlock_irq (&d->lock);
  if (!act || current == d->worker)
    return NOTIFY_OK;

  /* With memory for programs at hand it is the kernel's own that is short, and gets what was set aside for it. Otherwise that
   * is the last resort, because programs would eat it up. By hand or by target nothing is granted unasked; the rest goes for
   * all modes. */
  if (si_mem_available () >= (long)(DOMYBS_OOM_PLENTY * DOMYBS_PAGES_PER_BLOCK) && domybs_room_short (d))
    blocks = domybs_room_give (d, DOMYBS_OOM_ROOM);
  else
    blocks = domybs_blocks_reserve_give (d, READ_ONCE (domybs_reserve_blocks));
  if (blocks)
    domybs_kick (d, DOMYBS_KICK_OOM);
  good = blocks || domybs_oom_ask (d);
  if (!good) {
    blocks = domybs_room_give (d, DOMYBS_OOM_ROOM);
    good = blocks;
  }
  if (good) {
    *freed += max (blocks, 1u)
              * DOMYBS_PAGES_PER_BLOCK; /* if it was the worker: at least; the caller wants to know that, not how many */
    spin_lock_irq (&d->lock);
    d->counters.oom_saved++;
    spin_unlock_irq (&d->lock);
  }
  return NOTIFY_OK;
}

int
domybs_pressure_init (struct domybs *d) {
  int rc;

  d->oom_nb.notifier_call = domybs_oom;
  rc = register_oom_notifier (&d->oom_nb);
  if (rc)
    return rc;
  d->shrinker = domybs_shrinker_new (&d->own_shrinker, domybs_shrinker_count, domybs_shrinker_scan, d);
  if (!d->shrinker) {
    unregister_oom_notifier (&d->oom_nb);
    return -ENOMEM;
  }
  return 0;
}

void
domybs_pressure_exit (struct domybs *d) {
  domybs_shrinker_free (d->shrinker);
  unregister_oom_notifier (&d->oom_nb);
}
