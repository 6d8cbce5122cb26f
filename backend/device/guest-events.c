/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "device/guest-events.h"

#include <string.h>

void
guest_events_reclaim (GuestEvents *events, uint64_t blocks, uint32_t deadline_ms) {
  events->reclaim = (struct domybs_event){
    .type = GUINT16_TO_LE (DOMYBS_EVENT_RECLAIM),
    .deadline_ms = GUINT32_TO_LE (deadline_ms),
    .blocks = GUINT64_TO_LE (blocks),
  };
}

void
guest_events_config (GuestEvents *events) {
  events->config = (struct domybs_event){ .type = GUINT16_TO_LE (DOMYBS_EVENT_CONFIG) };
}

void
guest_events_offer (GuestEvents *events) {
  events->offer = (struct domybs_event){ .type = GUINT16_TO_LE (DOMYBS_EVENT_OFFER) };
}

/* Sends one event if the guest has given a buffer for it. */
static gboolean
send_event (struct domybs_event *event, VhostUserSession *session, const struct memory_device *device, GuestEventsPush push,
            gpointer data) {
  struct virtqueue *vq = vhost_user_session_queue (session, DOMYBS_VQ_EVENT);
  struct virtqueue_chain chain;
  struct domybs_event sent;
  enum virtqueue_pop popped;

  if (event->type == 0)
    return TRUE;
  popped = virtqueue_pop (vq, vhost_user_session_memory (session), &chain);
  if (popped != VIRTQUEUE_POP_CHAIN) {
    virtqueue_enable_kicks (vq, true);
    if (popped == VIRTQUEUE_POP_BROKEN)
      vhost_user_session_queue_again (session, DOMYBS_VQ_EVENT); /* logs it: no kick may have brought us here */
    return FALSE;
  }
  if (chain.in_bytes < sizeof *event) {
    push (data, &chain, NULL, 0);
    vhost_user_session_queue_break (session, DOMYBS_VQ_EVENT, "an event buffer without room for an event");
    return FALSE;
  }
  event->session = GUINT64_TO_LE (device->session);
  event->generation = GUINT32_TO_LE (device->generation);
  sent = *event;
  memset (event, 0, sizeof *event);
  push (data, &chain, &sent, sizeof sent);
  return TRUE;
}

void
guest_events_send (GuestEvents *events, VhostUserSession *session, const struct memory_device *device, GuestEventsPush push,
                   gpointer data) {
  if (!session || !vhost_user_session_queue_runs (session, DOMYBS_VQ_EVENT))
    return;
  if (send_event (&events->reclaim, session, device, push, data) && send_event (&events->config, session, device, push, data))
    send_event (&events->offer, session, device, push, data);
  vhost_user_session_signal (session, DOMYBS_VQ_EVENT);
}

void
guest_events_save (const GuestEvents *events, struct domybs_event *ret_events) {
  ret_events[0] = events->reclaim;
  ret_events[1] = events->config;
  ret_events[2] = events->offer;
}

void
guest_events_load (GuestEvents *events, const struct domybs_event *saved) {
  events->reclaim = saved[0];
  events->config = saved[1];
  events->offer = saved[2];
}

void
guest_events_clear (GuestEvents *events) {
  memset (events, 0, sizeof *events);
}
