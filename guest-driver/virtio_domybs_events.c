// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the device says unasked: configuration space that changes, and events. Interrupts only note that there is something; the
 * worker looks, and believes no more than can be checked.
 */
#include <linux/jiffies.h>
#include <linux/minmax.h>
#include <linux/scatterlist.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>

#include "compat.h"
#include "domybs-drv.h"

#define DOMYBS_CONFIG_TRIES 8

void
domybs_config_refresh (struct domybs *d) {
  struct domybs_config_seen seen = {};
  u32 generation;
  u16 flags;
  int tries;

  /* Behind a device that has stopped answering there may be nobody: QEMU does not survive to be asked for its configuration then. */
  if (READ_ONCE (d->broken))
    return;
  for (tries = 0; tries < DOMYBS_CONFIG_TRIES; tries++) {
    virtio_cread_le (d->vdev, struct domybs_config, generation, &generation);
    virtio_cread_le (d->vdev, struct domybs_config, flags, &flags);
    virtio_cread_le (d->vdev, struct domybs_config, max_blocks, &seen.max_blocks);
    virtio_cread_le (d->vdev, struct domybs_config, target_blocks, &seen.target_blocks);
    virtio_cread_le (d->vdev, struct domybs_config, generation, &seen.generation);
    if (seen.generation == generation)
      break;
  }
  if (tries == DOMYBS_CONFIG_TRIES) {
    domybs_kick (d, DOMYBS_KICK_CONFIG); /* a host that changes its mind all the time; later then */
    return;
  }
  seen.have_target = flags & DOMYBS_CONFIG_F_TARGET;
  if (seen.max_blocks > d->window_blocks || (seen.have_target && seen.target_blocks > d->window_blocks)) {
    domybs_break (d, "configuration: at most %llu blocks, target %llu, in a window of %llu", seen.max_blocks,
                  seen.target_blocks, d->window_blocks);
    return;
  }
  spin_lock_irq (&d->lock);
  d->config = seen;
  spin_unlock_irq (&d->lock);
  d->ask_after = 0;
  d->ask_backoff_ms = 0;
}

static void
domybs_event_take (struct domybs *d, const struct domybs_event *event) {
  u64 blocks = le64_to_cpu (event->blocks);

  if (le64_to_cpu (event->session) != d->session)
    return; /* said to an earlier session */
  switch (le16_to_cpu (event->type)) {
  case DOMYBS_EVENT_RECLAIM:
    if (blocks > d->window_blocks) {
      domybs_break (d, "RECLAIM of %llu blocks from a window of %llu", blocks, d->window_blocks);
      return;
    }
    spin_lock_irq (&d->lock);
    d->reclaim_left = blocks;
    d->reclaim_deadline = jiffies + msecs_to_jiffies (clamp (le32_to_cpu (event->deadline_ms), 1000u, 3600000u));
    d->counters.reclaim_asked += blocks;
    spin_unlock_irq (&d->lock);
    d->shrink_after = 0;
    break;
  case DOMYBS_EVENT_OFFER:
    set_bit (DOMYBS_KICK_OFFER, &d->kicks);
    break;
  case DOMYBS_EVENT_CONFIG:
    set_bit (DOMYBS_KICK_CONFIG, &d->kicks);
    break;
  default:
    dev_dbg (d->dev, "event of an unknown type %u\n", le16_to_cpu (event->type));
  }
}

static int
domybs_event_offer (struct domybs *d, struct domybs_event *event) {
  struct scatterlist sg;

  memset (event, 0, sizeof *event);
  sg_init_one (&sg, event, sizeof *event);
  return virtqueue_add_inbuf (d->event_vq, &sg, 1, event, GFP_KERNEL);
}

void
domybs_events_drain (struct domybs *d) {
  struct domybs_event *event, copy;
  unsigned int len;
  bool any = false;

  while (!READ_ONCE (d->broken) && (event = virtqueue_get_buf (d->event_vq, &len))) {
    if (len != sizeof copy) {
      domybs_break (d, "event of %u bytes", len);
      return;
    }
    copy = *event;
    barrier (); /* only the copy is looked at from here on */
    domybs_event_take (d, &copy);
    if (domybs_event_offer (d, event)) {
      domybs_break (d, "the event queue takes no buffer");
      return;
    }
    any = true;
  }
  if (any)
    virtqueue_kick (d->event_vq);
}

void
domybs_event_arrived (struct virtqueue *vq) {
  domybs_kick (vq->vdev->priv, DOMYBS_KICK_EVENT);
}

void
domybs_config_changed (struct virtio_device *vdev) {
  struct domybs *d = vdev->priv;

  if (d)
    domybs_kick (d, DOMYBS_KICK_CONFIG);
}

void
domybs_events_fill (struct domybs *d) {
  int i;

  for (i = 0; i < DOMYBS_EVENT_BUFFERS; i++)
    if (domybs_event_offer (d, &d->events[i]))
      break;
  virtqueue_kick (d->event_vq);
}
