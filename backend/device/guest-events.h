/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the guest is to be told through its event queue: one event of each kind waits until the guest has given a buffer for it;
 * a newer one of that kind takes its place. */
#ifndef DOMYBS_DEVICE_GUEST_EVENTS_H
#define DOMYBS_DEVICE_GUEST_EVENTS_H

#include <glib.h>

#include "core/memory-device.h"
#include "io/vhost-user-session.h"

typedef struct {
  struct domybs_event reclaim, config, offer; /* type 0 = none */
} GuestEvents;

void guest_events_reclaim (GuestEvents *events, uint64_t blocks, uint32_t deadline_ms);
void guest_events_config (GuestEvents *events);
void guest_events_offer (GuestEvents *events);

/* Puts an event into a chain of the event queue and returns that to the driver; what events has waiting counts it no more. */
typedef void (*GuestEventsPush) (gpointer data, const struct virtqueue_chain *chain, const void *bytes, size_t n);

/* Sends what there are buffers for, through push. session may be NULL: nobody is connected. */
void guest_events_send (GuestEvents *events, VhostUserSession *session, const struct memory_device *device, GuestEventsPush push,
                        gpointer data);

/* To and from what the next worker reads: 4 events, the last one is spare. */
void guest_events_save (const GuestEvents *events, struct domybs_event *ret_events);
void guest_events_load (GuestEvents *events, const struct domybs_event *saved);

/* The guest is gone. */
void guest_events_clear (GuestEvents *events);

#endif
