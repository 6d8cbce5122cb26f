/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How a vhost-user session goes from one worker to the next. */
#include "io/vhost-user-internal.h"
#include "core/crash-point.h"
#include "io/error.h"

#include <string.h>

_Static_assert (VHOST_USER_QUEUES_MAX <= STATE_QUEUES_MAX, "all queues are saved");

/* ---- saving ---- */

static void
save_queue (const SessionQueue *queue, gboolean pushing, struct state_queue *ret) {
  *ret = (struct state_queue){
    .started = queue->started,
    .enabled = queue->enabled,
    .broken = queue->vq.state == VIRTQUEUE_BROKEN,
    .have_addr = queue->vq.have_addr,
    .num = queue->vq.num,
    .desc = queue->vq.addr.desc,
    .used = queue->vq.addr.used,
    .avail = queue->vq.addr.avail,
    .next_avail = queue->vq.next_avail,
    .next_used = (uint16_t)(queue->vq.next_used + (pushing ? 1 : 0)),
    .kick_slot = queue->kick_slot,
    .call_slot = queue->call_slot,
    .err_slot = queue->err_slot,
  };
}

void
vhost_user_session_save (VhostUserSession *session, struct state_record *record) {
  struct state_session *state = &record->scalars.session;

  state->connection = session->connection;
  state->consumed = session->consumed;
  state->sent = session->sent;
  state->channel_epoch = session->channel_epoch;
  state->channel_consumed = session->channel_consumed;
  state->channel_sent = session->channel_sent;
  state->features = session->features;
  state->protocol_features = session->protocol_features;
  state->channel_slot = session->channel_slot;
  state->map_open = (uint8_t)session->map_open;
  state->have_features = (uint8_t)session->have_features;
  state->have_protocol_features = (uint8_t)session->have_protocol_features;
  g_assert (session->memory.n_regions <= G_N_ELEMENTS (state->regions)); /* no mem_slots */
  state->n_regions = session->memory.n_regions;
  memset (state->regions, 0, sizeof state->regions);
  for (unsigned i = 0; i < session->memory.n_regions; i++)
    state->regions[i] = (struct state_region){
      .guest_addr = session->memory.regions[i].guest_addr,
      .bytes = session->memory.regions[i].bytes,
      .user_addr = session->memory.regions[i].user_addr,
      .offset = session->region_offsets[i],
      .slot = session->region_slots[i],
    };
  for (unsigned i = 0; i < VHOST_USER_QUEUES_MAX; i++)
    save_queue (&session->queues[i], record->have_push && record->push_queue == i, &state->queues[i]);
  for (unsigned stream = 0; stream < KEEPER_STREAMS; stream++) {
    record->out_bytes[stream] = (uint32_t)session->out[stream].bytes;
    memcpy (record->out[stream], session->out[stream].buf, session->out[stream].bytes);
  }
  record->out_slot = session->out[KEEPER_CHANNEL].slot;
}

/* ---- restoring ---- */

static void
restore_queue (VhostUserSession *session, unsigned index, const struct state_queue *state) {
  SessionQueue *queue = &session->queues[index];
  const char *why;

  queue->started = state->started;
  queue->enabled = state->enabled;
  queue->kick_slot = state->kick_slot;
  queue->call_slot = state->call_slot;
  queue->err_slot = state->err_slot;
  queue->vq.num = state->num;
  queue->vq.have_addr = state->have_addr;
  queue->vq.addr = (struct vhu_vring_addr){ .index = index, .desc = state->desc, .used = state->used, .avail = state->avail };
  queue->vq.next_avail = state->next_avail;
  queue->vq.next_used = state->next_used;
  queue->vq.indirect = (session->features & (1ull << VIRTIO_RING_F_INDIRECT_DESC_BIT)) != 0;
  queue->vq.event_idx = (session->features & (1ull << VIRTIO_RING_F_EVENT_IDX_BIT)) != 0;
  if (state->broken) {
    queue->vq.state = VIRTQUEUE_BROKEN;
    queue->vq.broken_why = "it was before this worker began";
    queue->break_logged = TRUE;
  } else if (queue->started && queue->vq.have_addr && session->memory.n_regions) {
    queue->push_open
        = virtqueue_restore (&queue->vq, &session->memory, state->next_avail, state->next_used, &why) == VIRTQUEUE_RESTORED_OPEN;
  }
  if (queue->started && vhost_user_session_fd (session, queue->kick_slot) >= 0)
    vhost_user_session_watch_kick (session, index);
}

VhostUserSession *
vhost_user_session_restore (VhostUserTransport *transport, const struct state_session *state, const VhostUserDevice *device_type, gpointer device,
                            GError **error) {
  g_autoptr (VhostUserSession) session
      = vhost_user_session_new (transport, state->connection, state->channel_epoch, device_type, device);

  session->consumed = state->consumed;
  session->sent = state->sent;
  session->channel_consumed = state->channel_consumed;
  session->channel_sent = state->channel_sent;
  session->channel_slot = state->channel_slot;
  session->map_open = state->map_open;
  session->have_features = state->have_features;
  session->have_protocol_features = state->have_protocol_features;
  session->features = state->features;
  session->protocol_features = state->protocol_features;
  for (unsigned i = 0; i < state->n_regions; i++) {
    struct guest_region *region = &session->memory.regions[i];

    *region = (struct guest_region){
      .guest_addr = state->regions[i].guest_addr,
      .bytes = state->regions[i].bytes,
      .user_addr = state->regions[i].user_addr,
    };
    if (!vhost_user_session_map_region (session, region, state->regions[i].slot, state->regions[i].offset)) {
      g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_FAILED, "the VM's memory can't be mapped again");
      return NULL;
    }
    session->region_offsets[i] = state->regions[i].offset;
    session->region_slots[i] = state->regions[i].slot;
    session->memory.n_regions++;
    CRASH_POINT ("restore-region");
  }
  for (unsigned i = 0; i < device_type->n_queues; i++)
    restore_queue (session, i, &state->queues[i]);
  session->channel_changed = TRUE; /* said again: the keeper knows by the epoch whether it is news */
  return g_steal_pointer (&session);
}

void
vhost_user_session_redo (VhostUserSession *session, const struct state_record *record) {
  if (record->have_push && record->push_queue < session->type->n_queues && session->queues[record->push_queue].push_open) {
    SessionQueue *queue = &session->queues[record->push_queue];
    struct virtqueue_chain chain;

    queue->push_open = FALSE;
    if (virtqueue_chain_at (&queue->vq, &session->memory, record->push_head, &chain) == VIRTQUEUE_POP_CHAIN) {
      const size_t written = virtqueue_chain_write (&chain, record->push_payload, record->push_bytes);

      CRASH_POINT ("redo-written");
      virtqueue_push (&queue->vq, record->push_head, (uint32_t)written);
      CRASH_POINT ("redo-pushed");
    }
  }
  if (record->out_bytes[KEEPER_CHANNEL]) {
    /* before what goes out on it */
    vhost_user_transport_set_channel (session->transport, session->channel_epoch, session->channel_slot);
    vhost_user_transport_send (session->transport, KEEPER_CHANNEL, session->channel_epoch, session->channel_sent,
                               record->out[KEEPER_CHANNEL], record->out_bytes[KEEPER_CHANNEL], record->out_slot);
  }
  if (record->out_bytes[KEEPER_MAIN])
    vhost_user_transport_send (session->transport, KEEPER_MAIN, session->connection, session->sent, record->out[KEEPER_MAIN],
                               record->out_bytes[KEEPER_MAIN], KEEPER_NO_SLOT);
}

gboolean
vhost_user_session_uses (const VhostUserSession *session, unsigned slot) {
  if (slot == session->channel_slot || vhost_user_transport_is_ahead (session->transport, slot, session->consumed))
    return TRUE;
  for (unsigned i = 0; i < session->memory.n_regions; i++)
    if (slot == session->region_slots[i])
      return TRUE;
  for (unsigned i = 0; i < session->type->n_queues; i++)
    if (slot == session->queues[i].kick_slot || slot == session->queues[i].call_slot || slot == session->queues[i].err_slot)
      return TRUE;
  return FALSE;
}

void
vhost_user_session_resume (VhostUserSession *session) {
  for (unsigned i = 0; i < session->type->n_queues; i++) {
    SessionQueue *queue = &session->queues[i];

    if (queue->push_open)
      vhost_user_session_queue_break (session, i, "the used index is not ours");
    queue->push_open = FALSE;
    if (queue->vq.state == VIRTQUEUE_IDLE)
      continue;
    vhost_user_session_signal_anyway (session, i);
    vhost_user_session_queue_again (session, i);
  }
}
