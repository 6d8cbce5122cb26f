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

/* Sends what there are buffers for. session may be NULL: nobody is connected. */
void guest_events_send (GuestEvents *events, VhostUserSession *session, const struct memory_device *device);

/* The guest is gone. */
void guest_events_clear (GuestEvents *events);

#endif
