/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A back-end's transactions, and how a worker goes on from those of the one before: core/device-state.h has the rules. */
#include "device/backend-internal.h"
#include "core/crash-point.h"
#include "io/error.h"
#include "io/state-file.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* ---- saving ---- */

static void
save_no_session (const Backend *backend, struct state_record *record) {
  struct state_session *state = &record->scalars.session;

  state->channel_epoch = backend->channel_epoch;
  state->channel_slot = STATE_NONE;
  for (unsigned i = 0; i < STATE_QUEUES_MAX; i++)
    state->queues[i].kick_slot = state->queues[i].call_slot = state->queues[i].err_slot = STATE_NONE;
  record->out_bytes[KEEPER_MAIN] = record->out_bytes[KEEPER_CHANNEL] = 0;
  record->out_slot = STATE_NONE;
}

static void
save_backend (const Backend *backend, struct state_backend *state) {
  state->window_slot = backend->window_slot;
  state->map_on_its_way = (uint8_t)backend->map_on_its_way;
  state->finished = (uint8_t)backend->finished;
  state->connections = backend->connections;
  state->audit_bytes = backend->audit_bytes;
  state->short_grant.reason = backend->short_grant.reason;
  state->short_grant.asked_blocks = backend->short_grant.asked_blocks;
  state->short_grant.got_blocks = backend->short_grant.got_blocks;
  state->short_grant.at_us = backend->short_grant.at;
  state->stats_at_us = backend->stats_at;
  guest_events_save (&backend->events, state->events);
}

struct push {
  unsigned queue;
  const struct virtqueue_chain *chain;
  const void *bytes;
  size_t n;
};

/* Fills the record. Whether anything differs from what is committed. */
static gboolean
fill_record (Backend *backend, const struct push *push) {
  struct state_record *record = backend->state.record;

  memset (&record->scalars, 0, sizeof record->scalars);
  record->have_push = push != NULL;
  if (push) {
    record->push_queue = (uint16_t)push->queue;
    record->push_head = push->chain->head;
    record->push_bytes = (uint32_t)push->n;
    if (push->n)
      memcpy (record->push_payload, push->bytes, push->n);
  }
  device_state_save_device (record, &backend->device);
  if (backend->session)
    vhost_user_session_save (backend->session, record);
  else
    save_no_session (backend, record);
  record->scalars.session.closed = backend->closed;
  save_backend (backend, &record->scalars.backend);
  return push || record->change != DEVICE_CHANGE_NONE || record->answer != STATE_NO_ANSWER || record->out_bytes[KEEPER_MAIN]
         || record->out_bytes[KEEPER_CHANNEL] || memcmp (&record->scalars, backend->state.scalars, sizeof record->scalars) != 0;
}

static void
do_punches (Backend *backend) {
  for (unsigned i = 0; i < backend->n_punches; i++) {
    g_autoptr (GError) error = NULL;

    CRASH_POINT ("punch");
    if (window_punch (backend->window, &backend->punches[i], &error))
      continue;
    backend->unpunched = TRUE;
    if (log_limit_pass (&backend->refused_log))
      g_warning ("%s: %s; the next audit tries again", backend->name, error->message);
  }
  backend->n_punches = 0;
}

static void
do_effects (Backend *backend, const struct push *push) {
  do_punches (backend);
  if (push) {
    struct virtqueue *vq = vhost_user_session_queue (backend->session, push->queue);
    const size_t written = virtqueue_chain_write (push->chain, push->bytes, push->n);

    CRASH_POINT ("answer-written");
    virtqueue_push (vq, push->chain->head, (uint32_t)written);
    CRASH_POINT ("answer-pushed");
  }
  if (backend->session)
    vhost_user_session_flush (backend->session);
  host_room_give_back (backend->room, backend->return_blocks);
  backend->return_blocks = 0;
  keeper_link_drop (backend->link, backend->old_window_slot);
  backend->old_window_slot = STATE_NONE;
}

static void
commit (Backend *backend, const struct push *push) {
  const gboolean differs = fill_record (backend, push);

  if (differs) {
    CRASH_POINT ("record-filled");
    device_state_commit (&backend->state);
  }
  do_effects (backend, push);
  backend_watch_room (backend);
  if (!differs)
    return;
  device_state_done (&backend->state);
  CRASH_POINT ("transaction-done");
  if (backend->started && !backend->told_good && !backend->busy_mode) {
    backend->told_good = TRUE;
    keeper_link_good (backend->link);
  }
}

void
backend_commit (Backend *backend) {
  commit (backend, NULL);
}

void
backend_push (Backend *backend, unsigned queue, const struct virtqueue_chain *chain, const void *bytes, size_t n) {
  commit (backend, &(struct push){ queue, chain, bytes, n });
}

void
backend_punch_later (Backend *backend, const struct block_run *runs, unsigned n) {
  memcpy (backend->punches, runs, n * sizeof *runs);
  backend->n_punches = n;
}

void
backend_return_later (Backend *backend, uint64_t blocks) {
  backend->return_blocks += blocks;
}

/* ---- restoring ---- */

static void
load_backend (Backend *backend, const struct state_backend *state) {
  backend->window_slot = state->window_slot;
  backend->map_on_its_way = state->map_on_its_way;
  backend->finished = state->finished;
  backend->connections = state->connections;
  backend->audit_bytes = state->audit_bytes;
  backend->short_grant = (BackendShortGrant){ (enum device_shortage)state->short_grant.reason, state->short_grant.asked_blocks,
                                              state->short_grant.got_blocks, state->short_grant.at_us };
  backend->stats_at = state->stats_at_us;
  guest_events_load (&backend->events, state->events);
}

static gboolean
load_window (Backend *backend, GError **error) {
  gboolean all;
  int fd;

  if (backend->window_slot == STATE_NONE)
    return TRUE;
  fd = fcntl (keeper_link_fd (backend->link, backend->window_slot), F_DUPFD_CLOEXEC, 0);
  if (fd < 0) {
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_CORRUPT, "the state names a window that the keeper does not have");
    return FALSE;
  }
  backend->window = window_from_fd (fd, backend->device.options.window_blocks, error);
  if (!backend->window)
    return FALSE;
  window_audit (backend->window, &backend->device.regions, &all); /* what another did not live to punch, or populated for nobody */
  backend->unpunched = !all;
  return TRUE;
}

/* Lets go of what a worker put, or got, and did not live to name in its state, or to let go of. */
static void
drop_strays (Backend *backend) {
  for (unsigned slot = KEEPER_SLOT_PUT_FIRST; slot < KEEPER_SLOTS; slot++)
    if (slot != backend->window_slot && !(backend->session && vhost_user_session_uses (backend->session, slot)))
      keeper_link_drop (backend->link, slot);
}

/* The connection as the state has it and as the keeper has it. */
static gboolean
load_session (Backend *backend, const struct state_session *state, GError **error) {
  const struct keeper_hello *hello = keeper_link_hello (backend->link);

  backend->closed = state->closed;
  backend->channel_epoch = state->channel_epoch;
  if (state->connection && state->connection == hello->connection && hello->is_connected) {
    g_autoptr (GError) local = NULL;

    backend->session = vhost_user_session_restore (keeper_link_transport (backend->link), state, &backend->type, backend, &local);
    if (backend->session)
      return TRUE;
    if (hello->strikes + 1 < KEEPER_STRIKES_MAX) { /* a passing want of memory, maybe: another worker tries again */
      g_propagate_error (error, g_steal_pointer (&local));
      return FALSE;
    }
    g_warning ("%s: connection closed: %s", backend->name, local->message);
    backend->closed = state->connection;
    keeper_link_close (backend->link, state->connection);
    return TRUE;
  }
  if (hello->is_connected && hello->connection == state->closed && !backend->finished)
    keeper_link_close (backend->link, state->closed); /* as we may have said already */
  return TRUE;
}

static gboolean
load (Backend *backend, GError **error) {
  const gboolean open = device_state_recover (&backend->state);
  const struct state_scalars *scalars = backend->state.scalars;
  const char *why = device_state_load_device (&backend->state, &backend->device);

  if (why) {
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_CORRUPT, "the state that an earlier worker left can't be used: %s", why);
    return FALSE;
  }
  load_backend (backend, &scalars->backend);
  CRASH_POINT ("restore-device");
  if (!load_window (backend, error) || !load_session (backend, &scalars->session, error))
    return FALSE;
  CRASH_POINT ("restore-session");
  host_room_set (backend->room, backend->device.regions.granted);
  if (open) {
    if (backend->session)
      vhost_user_session_redo (backend->session, backend->state.record);
    device_state_done (&backend->state);
    CRASH_POINT ("restore-done");
  }
  drop_strays (backend);
  return TRUE;
}

gboolean
backend_restore (Backend *backend, GError **error) {
  const uint64_t blocks = backend->device.options.window_blocks;
  const int fd = keeper_link_fd (backend->link, KEEPER_SLOT_STATE);

  if (fd >= 0) {
    if (!state_file_open (fd, blocks, &backend->state, error) || !load (backend, error))
      return FALSE;
    device_state_adopt (&backend->state, "domybs-backend " DOMYBS_VERSION);
  } else {
    const int new_fd = state_file_create (blocks, &backend->state, error);

    if (new_fd < 0)
      return FALSE;
    /* The first transaction comes before anybody else can see it. */
    backend_commit (backend);
    keeper_link_put_at (backend->link, KEEPER_SLOT_STATE, new_fd);
  }
  CRASH_POINT ("restored");
  return TRUE;
}
