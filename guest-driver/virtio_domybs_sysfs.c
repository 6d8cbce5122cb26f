// SPDX-License-Identifier: GPL-2.0-only
/*
 * …/virtioN/domybs/: figures, the mode, and wanted_blocks for driving the device by hand. The specification lists the files.
 */
#include <linux/device.h>
#include <linux/kernel.h>
#include <linux/string.h>
#include <linux/sysfs.h>

#include "compat.h"
#include "domybs-drv.h"

static const char *const domybs_mode_names[] = {
  [DOMYBS_MODE_AUTO] = "auto",
  [DOMYBS_MODE_TARGET] = "target",
  [DOMYBS_MODE_MANUAL] = "manual",
};

static struct domybs *
domybs_of (struct device *dev) {
  return dev_to_virtio (dev)->priv;
}

static u64
domybs_count (struct domybs *d, enum domybs_block_state state) {
  u64 n;

  spin_lock_irq (&d->lock);
  n = d->count[state];
  spin_unlock_irq (&d->lock);
  return n;
}

static ssize_t
mode_show (struct device *dev, struct device_attribute *attr, char *buf) {
  return sysfs_emit (buf, "%s\n", domybs_mode_names[READ_ONCE (domybs_of (dev)->mode)]);
}

static ssize_t
mode_store (struct device *dev, struct device_attribute *attr, const char *buf, size_t len) {
  struct domybs *d = domybs_of (dev);
  int mode = sysfs_match_string (domybs_mode_names, buf);

  if (mode < 0)
    return mode;
  spin_lock_irq (&d->lock);
  /* By hand begins with what there is, so that the switch alone moves nothing. */
  if (mode == DOMYBS_MODE_MANUAL && d->mode != DOMYBS_MODE_MANUAL)
    d->wanted = domybs_granted_locked (d);
  d->mode = mode;
  spin_unlock_irq (&d->lock);
  domybs_kick (d, DOMYBS_KICK_WAKE);
  return len;
}
static DEVICE_ATTR_RW (mode);

static ssize_t
wanted_blocks_show (struct device *dev, struct device_attribute *attr, char *buf) {
  return sysfs_emit (buf, "%llu\n", READ_ONCE (domybs_of (dev)->wanted));
}

static ssize_t
wanted_blocks_store (struct device *dev, struct device_attribute *attr, const char *buf, size_t len) {
  struct domybs *d = domybs_of (dev);
  bool manual;
  u64 blocks;
  int rc = kstrtou64 (buf, 0, &blocks);

  if (rc)
    return rc;
  if (blocks > (u64)d->sections * d->section_blocks)
    return -ERANGE;
  spin_lock_irq (&d->lock);
  manual = d->mode == DOMYBS_MODE_MANUAL;
  if (manual)
    d->wanted = blocks;
  spin_unlock_irq (&d->lock);
  if (!manual)
    return -EPERM;
  domybs_kick (d, DOMYBS_KICK_OFFER); /* somebody wants it now: forget waiting times */
  return len;
}
static DEVICE_ATTR_RW (wanted_blocks);

static ssize_t
target_blocks_show (struct device *dev, struct device_attribute *attr, char *buf) {
  struct domybs *d = domybs_of (dev);

  if (!READ_ONCE (d->config.have_target))
    return sysfs_emit (buf, "none\n");
  return sysfs_emit (buf, "%llu\n", READ_ONCE (d->config.target_blocks));
}
static DEVICE_ATTR_RO (target_blocks);

#define DOMYBS_FIGURE(name, expression)                                                                                        \
  static ssize_t name##_show (struct device *dev, struct device_attribute *attr, char *buf) {                                  \
    struct domybs *d = domybs_of (dev);                                                                                        \
                                                                                                                               \
    return sysfs_emit (buf, "%llu\n", (unsigned long long)(expression));                                                       \
  }                                                                                                                            \
  static DEVICE_ATTR_RO (name)

DOMYBS_FIGURE (granted_blocks, domybs_granted (d));
DOMYBS_FIGURE (online_blocks, domybs_count (d, DOMYBS_BLOCK_USED) + domybs_count (d, DOMYBS_BLOCK_USER));
DOMYBS_FIGURE (held_blocks, domybs_count (d, DOMYBS_BLOCK_HELD));
DOMYBS_FIGURE (reserve_blocks, domybs_count (d, DOMYBS_BLOCK_RESERVE));
DOMYBS_FIGURE (user_blocks, domybs_count (d, DOMYBS_BLOCK_USER));
DOMYBS_FIGURE (stuck_blocks, READ_ONCE (d->stuck));
DOMYBS_FIGURE (max_blocks, READ_ONCE (d->config.max_blocks));
DOMYBS_FIGURE (window_blocks, d->window_blocks);
DOMYBS_FIGURE (section_blocks, d->section_blocks);
DOMYBS_FIGURE (spare, READ_ONCE (d->section_count[DOMYBS_SECTION_SPARE]));
DOMYBS_FIGURE (session, READ_ONCE (d->session));

static ssize_t
node_show (struct device *dev, struct device_attribute *attr, char *buf) {
  return sysfs_emit (buf, "%d\n", domybs_of (dev)->node);
}
static DEVICE_ATTR_RO (node);

static ssize_t
sections_show (struct device *dev, struct device_attribute *attr, char *buf) {
  struct domybs *d = domybs_of (dev);
  u32 n[DOMYBS_SECTION_STATES];

  spin_lock_irq (&d->lock);
  memcpy (n, d->section_count, sizeof n);
  spin_unlock_irq (&d->lock);
  return sysfs_emit (buf, "absent %u spare %u parked %u online %u leaving %u\n", n[DOMYBS_SECTION_ABSENT],
                     n[DOMYBS_SECTION_SPARE], n[DOMYBS_SECTION_PARKED] + n[DOMYBS_SECTION_ONLINING], n[DOMYBS_SECTION_ONLINE],
                     n[DOMYBS_SECTION_LEAVING]);
}
static DEVICE_ATTR_RO (sections);

static ssize_t
state_show (struct device *dev, struct device_attribute *attr, char *buf) {
  struct domybs *d = domybs_of (dev);
  struct domybs_decision last;
  const char *word, *hint = "";
  bool broken, draining, waits, no_memory;

  spin_lock_irq (&d->lock);
  last = d->last;
  broken = d->broken;
  draining = d->draining;
  waits = d->ask_after && time_before (jiffies, d->ask_after);
  no_memory = d->no_spare_memory;
  spin_unlock_irq (&d->lock);

  if (broken)
    return sysfs_emit (buf, "broken %s\n", d->broken_reason);
  if (!READ_ONCE (d->session))
    return sysfs_emit (buf, "starting no session yet\n");
  if (last.action == DOMYBS_GROW && waits) {
    word = "waiting";
    hint = no_memory ? " (the kernel has no memory for the next section's page structures)" : " (the host said: not now)";
  } else if (draining) {
    word = "draining";
  } else if (last.action == DOMYBS_REST) {
    word = last.watch ? "waiting" : "resting";
  } else {
    word = last.action == DOMYBS_GROW ? "growing" : "shrinking";
  }
  return sysfs_emit (buf, "%s %s%s\n", word, domybs_why_text (last.why), hint);
}
static DEVICE_ATTR_RO (state);

static ssize_t
reclaim_show (struct device *dev, struct device_attribute *attr, char *buf) {
  struct domybs *d = domybs_of (dev);
  u64 asked, done, left;

  spin_lock_irq (&d->lock);
  asked = d->counters.reclaim_asked;
  done = d->counters.reclaim_done;
  left = d->reclaim_left;
  spin_unlock_irq (&d->lock);
  return sysfs_emit (buf, "asked %llu done %llu left %llu\n", asked, done, left);
}
static DEVICE_ATTR_RO (reclaim);

static ssize_t
standby_show (struct device *dev, struct device_attribute *attr, char *buf) {
  return domybs_standby_show (domybs_of (dev), buf);
}
static DEVICE_ATTR_RO (standby);

static ssize_t
counters_show (struct device *dev, struct device_attribute *attr, char *buf) {
  const struct domybs_counters *c = &domybs_of (dev)->counters;
  const struct {
    const char *name;
    u64 value;
  } figures[] = {
    { "requests", c->requests },
    { "grants", c->granted },
    { "releases", c->released },
    { "sections_added", c->added },
    { "sections_onlined", c->onlined },
    { "sections_offlined", c->offlined },
    { "sections_removed", c->removed },
    { "online_refused", c->refused_online },
    { "offline_failed", c->offline_failed },
    { "taken_whole", c->taken_order9 },
    { "taken_range", c->taken_range },
    { "room_given", c->room_given },
    { "spares_dropped", c->spares_dropped },
    { "oom_calls", c->oom_calls },
    { "oom_saved", c->oom_saved },
  };
  int len = 0;
  size_t i;

  for (i = 0; i < ARRAY_SIZE (figures); i++)
    len += sysfs_emit_at (buf, len, "%s %llu\n", figures[i].name, figures[i].value);
  return len;
}
static DEVICE_ATTR_RO (counters);

static ssize_t
broken_show (struct device *dev, struct device_attribute *attr, char *buf) {
  struct domybs *d = domybs_of (dev);

  if (!READ_ONCE (d->broken))
    return sysfs_emit (buf, "0\n");
  return sysfs_emit (buf, "1 %s\n", d->broken_reason);
}
static DEVICE_ATTR_RO (broken);

static struct attribute *domybs_attrs[] = {
  &dev_attr_mode.attr,           &dev_attr_wanted_blocks.attr, &dev_attr_target_blocks.attr,
  &dev_attr_granted_blocks.attr, &dev_attr_online_blocks.attr, &dev_attr_held_blocks.attr,
  &dev_attr_reserve_blocks.attr, &dev_attr_user_blocks.attr,   &dev_attr_stuck_blocks.attr,
  &dev_attr_max_blocks.attr,     &dev_attr_window_blocks.attr, &dev_attr_section_blocks.attr,
  &dev_attr_sections.attr,       &dev_attr_spare.attr,         &dev_attr_node.attr,
  &dev_attr_session.attr,        &dev_attr_state.attr,         &dev_attr_reclaim.attr,
  &dev_attr_counters.attr,       &dev_attr_broken.attr,        &dev_attr_standby.attr,
  NULL,
};

static const struct attribute_group domybs_group = {
  .name = "domybs",
  .attrs = domybs_attrs,
};

const struct attribute_group *domybs_groups[] = {
  &domybs_group,
  NULL,
};
