/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "device/backend-internal.h"
#include "io/error.h"
#include "io/sandbox-calls.h"
#include "io/source.h"
#include "io/state-file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

SANDBOX_CALLS (SANDBOX_CALL_IF (fcntl, 1, ~0u, F_DUPFD_CLOEXEC), SANDBOX_CALL (getrandom));

/* How long a guest waits for its window. QEMU maps within milliseconds; while the VM is stopped in between, the request is put
 * back and does not time out. */
#define MAP_TIMEOUT_MS 10000
/* Requests in one turn of the main loop, so that a guest's flood leaves turns for the control socket and for audits. */
#define REQUESTS_PER_TURN 64
/* A worker that has lived for so long without anything to do is none of a crash loop. */
#define GOOD_AFTER_MS 1000

static void
tell_changed (Backend *backend) {
  if (backend->changed)
    backend->changed (backend->changed_data);
}

/* ---- window ---- */

/* Whether the guest can reach the current window: the memory table says so, nothing else is believed. */
static gboolean
window_is_mapped (const Backend *backend) {
  return backend->session && vhost_user_session_has_own_memory (backend->session);
}

/* Ends whatever grants there are and empties the window. The window itself stays, and is audited, until another one takes its place:
 * somebody may have it mapped still, and must not be able to fill it behind our back. */
static void
void_grants (Backend *backend) {
  const struct block_run all = { 0, backend->device.options.window_blocks };
  g_autoptr (GError) error = NULL;

  backend_return_later (backend, backend->device.regions.granted);
  memory_device_reset (&backend->device);
  if (backend->window && !window_punch (backend->window, &all, &error)) {
    backend->unpunched = TRUE;
    g_warning ("%s: %s", backend->name, error->message);
  }
}

static gboolean
own_memory (gpointer data, const struct stat *st) {
  Backend *backend = data;

  return backend->window && window_is (backend->window, st);
}

/* ---- answering ----
 * A chain that was popped counts as taken in the next transaction: so none happens before it is answered, or put back. */

static void
answer (Backend *backend, const struct virtqueue_chain *chain, const struct device_plan *plan) {
  backend_push (backend, DOMYBS_VQ_REQUEST, chain, plan->answer, plan->answer_bytes);
}

static void
log_session (Backend *backend) {
  if (log_limit_pass (&backend->session_log))
    g_message ("%s: session with %s, sections of %u blocks", backend->name, backend->device.driver,
               backend->device.regions.region_blocks);
}

static uint64_t
random_session (void) {
  uint64_t session = 0;

  while (session == 0)
    if (getrandom (&session, sizeof session, 0) != sizeof session)
      session = (uint64_t)g_get_monotonic_time (); /* only has to differ from the one before */
  return session;
}

/* Ends the HELLO that waited for the window. Its chain was put back into the queue when it began to wait (see begin_session), so
 * it is popped once more here: guest memory may have been mapped anew since. */
static void
finish_hello (Backend *backend, enum device_outcome outcome) {
  struct virtqueue *vq = vhost_user_session_queue (backend->session, DOMYBS_VQ_REQUEST);
  struct virtqueue_chain chain;

  source_clear (&backend->map_timeout);
  backend->busy = FALSE;
  backend->map_on_its_way = FALSE;
  if (!vhost_user_session_queue_runs (backend->session, DOMYBS_VQ_REQUEST))
    return; /* stopped meanwhile: the guest asks again */
  if (virtqueue_pop (vq, vhost_user_session_memory (backend->session), &chain) == VIRTQUEUE_POP_CHAIN) {
    if (chain.head != backend->busy_head || chain.in_bytes < sizeof (struct domybs_response)) {
      vhost_user_session_queue_break (backend->session, DOMYBS_VQ_REQUEST, "the ring changed under a request");
      return;
    }
    memory_device_finish (&backend->device, &backend->plan, outcome, 0, random_session ());
    if (outcome == DEVICE_DONE)
      log_session (backend);
    backend_tell_levels (backend);
    tell_changed (backend);
    answer (backend, &chain, &backend->plan);
    vhost_user_session_signal (backend->session, DOMYBS_VQ_REQUEST);
  }
  vhost_user_session_queue_again (backend->session, DOMYBS_VQ_REQUEST);
}

static gboolean
on_map_timeout (gpointer data) {
  Backend *backend = data;

  if (log_limit_pass (&backend->map_log))
    g_warning ("%s: the front-end did not map the window within %d ms", backend->name, MAP_TIMEOUT_MS);
  source_clear (&backend->map_timeout);
  finish_hello (backend, DEVICE_FAILED);
  backend_commit (backend);
  return G_SOURCE_REMOVE;
}

static void
on_map_answered (gpointer data, gboolean ok) {
  Backend *backend = data;

  if (!ok) {
    backend->map_on_its_way = FALSE;
    if (backend->busy) {
      if (log_limit_pass (&backend->map_log))
        g_warning ("%s: the front-end refused to map the window", backend->name);
      finish_hello (backend, DEVICE_FAILED);
    }
    return;
  }
  if (!backend->busy)
    return;
  /* The table that shows the map usually follows; it may also have come before this answer. */
  if (window_is_mapped (backend))
    finish_hello (backend, DEVICE_DONE);
}

/* A window of its own for a new session; the old one goes when that is committed. FALSE: there is none then. */
static gboolean
replace_window (Backend *backend, GError **error) {
  int fd;

  g_clear_pointer (&backend->window, window_free);
  if (backend->window_slot != STATE_NONE)
    backend->old_window_slot = backend->window_slot;
  backend->window_slot = STATE_NONE;
  backend->window = window_new (backend->device.options.window_blocks, error);
  if (!backend->window)
    return FALSE;
  backend->unpunched = FALSE;
  fd = fcntl (window_fd (backend->window), F_DUPFD_CLOEXEC, 0);
  if (fd < 0)
    domybs_error_errno (error, "can't keep the window's memfd");
  else
    backend->window_slot = (uint8_t)keeper_link_put (backend->link, fd);
  if (backend->window_slot != STATE_NONE)
    return TRUE;
  if (fd >= 0)
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_FAILED, "the keeper has no place for a window");
  g_clear_pointer (&backend->window, window_free);
  return FALSE;
}

/* HELLO: a fresh window in the place of the old. Where the front-end still has ours mapped, emptying it is the same thing. Returns
 * FALSE when the request has to wait for the front-end. */
static gboolean
begin_session (Backend *backend, enum device_outcome *ret_outcome) {
  g_autoptr (GError) error = NULL;

  *ret_outcome = DEVICE_FAILED;
  void_grants (backend);
  if (window_is_mapped (backend)) {
    backend->map_on_its_way = FALSE; /* it has come, while nobody waited for it */
    *ret_outcome = window_bytes (backend->window) ? DEVICE_RETRY : DEVICE_DONE;
    return TRUE;
  }
  if (!backend->map_on_its_way) {
    if (!replace_window (backend, &error)
        || !vhost_user_session_map (backend->session, DOMYBS_SHM_WINDOW, backend->window_slot, 0, 0,
                                    window_map_bytes (backend->window), &error)) {
      if (g_error_matches (error, DOMYBS_ERROR, DOMYBS_ERROR_IN_USE))
        *ret_outcome = DEVICE_RETRY;
      if (log_limit_pass (&backend->map_log))
        g_warning ("%s: %s", backend->name, error->message);
      g_clear_pointer (&backend->window, window_free);
      keeper_link_drop (backend->link, backend->window_slot); /* no state names it */
      backend->window_slot = STATE_NONE;
      return TRUE;
    }
    backend->map_on_its_way = TRUE;
  }
  backend->busy = TRUE;
  backend->map_timeout = source_timeout (MAP_TIMEOUT_MS, on_map_timeout, backend);
  return FALSE;
}

/* ---- grant and release ---- */

static gboolean
populate (Backend *backend, const struct device_plan *plan, uint64_t blocks) {
  uint64_t done = 0;

  for (unsigned i = 0; i < plan->n_runs && done < blocks; i++) {
    const struct block_run run = { plan->runs[i].start, MIN (plan->runs[i].count, blocks - done) };
    g_autoptr (GError) error = NULL;

    if (!window_populate (backend->window, &run, &error)) {
      if (log_limit_pass (&backend->refused_log))
        g_warning ("%s: %s", backend->name, error->message);
      for (unsigned j = 0; j <= i; j++)
        if (!window_punch (backend->window, &plan->runs[j], NULL))
          backend->unpunched = TRUE;
      return FALSE;
    }
    done += run.count;
  }
  return TRUE;
}

/* Blocks that are granted read as zero: what could not be punched when they were given back is punched now. FALSE: it still can't. */
static gboolean
is_clean (Backend *backend) {
  gboolean all = TRUE;

  if (backend->unpunched)
    window_audit (backend->window, &backend->device.regions, &all);
  backend->unpunched = !all;
  return all;
}

static void
do_grant (Backend *backend, struct device_plan *plan) {
  const bool all = plan->request.grant.flags & DOMYBS_GRANT_F_ALL;
  const gboolean clean = is_clean (backend);
  enum device_shortage shortage = DEVICE_SHORTAGE_NONE;
  const uint64_t taken = clean ? host_room_take (backend->room, plan->blocks, &shortage) : 0;
  enum device_outcome outcome = DEVICE_DONE;

  if (!clean || shortage == DEVICE_SHORTAGE_HOST_BUSY)
    outcome = DEVICE_RETRY;
  else if (taken == 0 || (all && taken < plan->blocks)) /* before anything is populated for nothing */
    outcome = DEVICE_NO_HOST_CAPACITY;
  else if (backend->grant_mode == GRANT_POPULATE && !populate (backend, plan, taken)) {
    outcome = DEVICE_NO_HOST_CAPACITY;
    shortage = DEVICE_SHORTAGE_POPULATE;
  }
  if (shortage != DEVICE_SHORTAGE_NONE)
    plan->shortage = shortage; /* the host has less than the VM's own limits leave */
  memory_device_finish (&backend->device, plan, outcome, taken, 0);
  backend_return_later (backend, taken - plan->blocks);
}

/* The books first: what is not granted any more is punched with the commit, or by the audit of a worker that starts. The other way
 * round, one that dies in between leaves blocks that are granted, and empty; and the next one may have to say BUSY. */
static void
do_release (Backend *backend, struct device_plan *plan) {
  const uint64_t blocks = plan->blocks;

  backend_punch_later (backend, plan->runs, plan->n_runs);
  memory_device_finish (&backend->device, plan, DEVICE_DONE, 0, 0);
  backend_return_later (backend, blocks);
}

static void
do_end (Backend *backend, struct device_plan *plan) {
  const struct block_run all = { 0, backend->device.options.window_blocks };
  const uint64_t blocks = backend->device.regions.granted;

  backend_punch_later (backend, &all, 1);
  memory_device_finish (&backend->device, plan, DEVICE_DONE, 0, 0);
  backend_return_later (backend, blocks);
  if (log_limit_pass (&backend->session_log))
    g_message ("%s: the guest said good-bye", backend->name);
}

/* ---- request queue ---- */

/* Handles one chain. When it has to wait, backend->busy is set, and nothing else may be taken meanwhile. */
static void
handle_request (Backend *backend, struct virtqueue *vq, const struct virtqueue_chain *chain) {
  uint8_t bytes[DOMYBS_REQUEST_BYTES_MAX + 1]; /* one more, so that a longer request shows */
  const size_t n = virtqueue_chain_read (chain, 0, bytes, sizeof bytes);
  const uint64_t short_grants = backend->device.counters.short_grants;
  struct device_plan *plan = &backend->plan;
  enum device_outcome outcome;

  if (backend->busy_mode)
    memory_device_plan_busy (&backend->device, bytes, n, chain->in_bytes, plan);
  else
    memory_device_plan (&backend->device, bytes, n, chain->in_bytes, plan);
  if (plan->refused_why && log_limit_pass (&backend->refused_log))
    g_message ("%s: %s refused: %s", backend->name, device_request_name (plan->request.type), plan->refused_why);
  switch (plan->step) {
  case DEVICE_STEP_ANSWER:
    break;
  case DEVICE_STEP_NEW_SESSION:
    if (!begin_session (backend, &outcome)) {
      backend->busy_head = chain->head;
      virtqueue_unpop (vq); /* finish_hello takes it again */
      return;
    }
    memory_device_finish (&backend->device, plan, outcome, 0, random_session ());
    if (outcome == DEVICE_DONE)
      log_session (backend);
    backend_tell_levels (backend);
    break;
  case DEVICE_STEP_GRANT:
    do_grant (backend, plan);
    break;
  case DEVICE_STEP_RELEASE:
    do_release (backend, plan);
    break;
  case DEVICE_STEP_END:
    do_end (backend, plan);
    backend_tell_levels (backend);
    break;
  case DEVICE_STEP_RESERVE:
    backend_reserve (backend, plan);
    break;
  }
  if (backend->device.counters.short_grants != short_grants)
    backend->short_grant
        = (BackendShortGrant){ backend->device.shortage, plan->request.grant.blocks, plan->blocks, g_get_monotonic_time () };
  if (plan->request.type == DOMYBS_REQ_STATS && !plan->refused_why)
    backend->stats_at = g_get_monotonic_time ();
  answer (backend, chain, plan);
}

static void
run_request_queue (Backend *backend) {
  struct virtqueue *vq = vhost_user_session_queue (backend->session, DOMYBS_VQ_REQUEST);
  struct virtqueue_chain chain;
  int left = REQUESTS_PER_TURN;

  if (backend->busy) {
    if (window_is_mapped (backend))
      finish_hello (backend, DEVICE_DONE);
    return;
  }
  virtqueue_enable_kicks (vq, false);
  while (!backend->busy && left-- > 0) {
    const enum virtqueue_pop popped = virtqueue_pop (vq, vhost_user_session_memory (backend->session), &chain);

    if (popped == VIRTQUEUE_POP_EMPTY && virtqueue_enable_kicks (vq, true))
      continue; /* something came before the driver saw that we want kicks again */
    if (popped != VIRTQUEUE_POP_CHAIN)
      break;
    if (chain.in_bytes < sizeof (struct domybs_response)) {
      backend_push (backend, DOMYBS_VQ_REQUEST, &chain, NULL, 0);
      vhost_user_session_queue_break (backend->session, DOMYBS_VQ_REQUEST, "a request without room for its answer");
      break;
    }
    handle_request (backend, vq, &chain);
    if (!vhost_user_session_memory_is_sound (backend->session))
      return;
  }
  tell_changed (backend);
  vhost_user_session_signal (backend->session, DOMYBS_VQ_REQUEST);
  if (left < 0 && !backend->busy)
    vhost_user_session_queue_again (backend->session, DOMYBS_VQ_REQUEST);
}

/* ---- event queue ---- */

static void
push_event (gpointer data, const struct virtqueue_chain *chain, const void *bytes, size_t n) {
  backend_push (data, DOMYBS_VQ_EVENT, chain, bytes, n);
}

void
backend_send_events (Backend *backend) {
  guest_events_send (&backend->events, backend->session, &backend->device, push_event, backend);
}

static gboolean
offer_is_wanted (gpointer data) {
  return ((Backend *)data)->device.offer_wanted;
}

static void
offer (gpointer data) {
  Backend *backend = data;

  if (!backend->device.session)
    return;
  backend->device.offer_wanted = false;
  guest_events_offer (&backend->events);
  backend_commit (backend);
  backend_send_events (backend);
}

/* A guest that was refused for the host's sake is offered another try. */
void
backend_watch_room (Backend *backend) {
  host_room_watch (backend->room, offer_is_wanted, offer, backend);
}

/* ---- the session's calls ---- */

static void
on_get_config (gpointer data, uint8_t *buf) {
  Backend *backend = data;
  struct domybs_config config;

  memory_device_config (&backend->device, &config);
  memcpy (buf, &config, sizeof config);
}

static void
on_queue_ready (gpointer data, unsigned queue) {
  Backend *backend = data;

  if (queue == DOMYBS_VQ_REQUEST)
    run_request_queue (backend);
  else
    backend_send_events (backend);
}

/* A HELLO that waits is still in the ring; when the queue runs again it is taken from there, and then the window may be mapped
 * already. Only our waiting ends. */
static gboolean
on_queue_stop (gpointer data, unsigned queue) {
  Backend *backend = data;

  if (queue == DOMYBS_VQ_REQUEST && backend->busy) {
    source_clear (&backend->map_timeout);
    memory_device_drop (&backend->device, &backend->plan);
    backend->busy = FALSE;
  }
  return TRUE;
}

static void
guest_was_reset (Backend *backend) {
  if (backend->device.session && log_limit_pass (&backend->session_log))
    g_message ("%s: the guest was reset: %" G_GUINT64_FORMAT " blocks are back", backend->name,
               backend->device.regions.granted);
  void_grants (backend);
  backend_tell_levels (backend);
  tell_changed (backend);
}

static void
on_memory_changed (gpointer data) {
  Backend *backend = data;

  if (backend->busy) {
    if (window_is_mapped (backend))
      /* The queues have no rings yet at this point of SET_MEM_TABLE; the session runs them right after. */
      vhost_user_session_queue_again (backend->session, DOMYBS_VQ_REQUEST);
    return;
  }
  if (backend->device.session && !window_is_mapped (backend))
    guest_was_reset (backend);
}

static void
on_reset (gpointer data) {
  on_queue_stop (data, DOMYBS_VQ_REQUEST);
  guest_was_reset (data);
}

static void
on_settle (gpointer data) {
  backend_commit (data);
}

static void
on_closed (gpointer data, const char *why) {
  Backend *backend = data;
  const uint64_t connection = backend->closed = vhost_user_session_connection (backend->session);

  if (why)
    g_warning ("%s: connection closed: %s", backend->name, why);
  else
    g_message ("%s: the front-end has gone", backend->name);
  source_clear (&backend->map_timeout);
  backend->busy = FALSE;
  backend->map_on_its_way = FALSE;
  backend->channel_epoch = vhost_user_session_channel_epoch (backend->session);
  backend->session = NULL; /* frees itself */
  void_grants (backend);
  guest_events_clear (&backend->events);
  backend->finished = !why && backend->once;
  backend_commit (backend);
  if (!backend->finished)
    keeper_link_close (backend->link, connection);
  backend_tell_levels (backend);
  tell_changed (backend);
  if (backend->finished)
    backend->gone (backend->gone_data);
}

/* ---- the keeper's calls ---- */

static void
on_connected (gpointer data, uint64_t epoch) {
  Backend *backend = data;

  if (backend->session)
    return; /* the keeper has one connection at a time */
  backend->session = vhost_user_session_new (keeper_link_transport (backend->link), epoch, backend->channel_epoch, &backend->type,
                                             backend);
  backend->connections++;
  backend_commit (backend);
  tell_changed (backend);
}

static void
on_received (gpointer data, enum keeper_stream stream, uint64_t epoch, uint64_t position, const uint8_t *bytes, size_t n,
             const uint8_t *slots, unsigned n_slots, gboolean truncated) {
  Backend *backend = data;

  if (backend->session)
    vhost_user_session_received (backend->session, stream, epoch, position, bytes, n, slots, n_slots, truncated);
}

static void
on_stream_gone (gpointer data, enum keeper_stream stream, uint64_t epoch, uint64_t end_position, enum keeper_gone why) {
  Backend *backend = data;

  if (backend->session)
    vhost_user_session_gone (backend->session, stream, epoch, end_position, why);
}

static void
on_replace_failed (gpointer data, const char *why) {
  Backend *backend = data;

  if (backend->replace_failed)
    backend->replace_failed (backend->replace_data, why);
}

static gboolean
on_lived_a_while (gpointer data) {
  Backend *backend = data;

  source_clear (&backend->good_source);
  if (!backend->told_good)
    keeper_link_good (backend->link);
  backend->told_good = TRUE;
  return G_SOURCE_REMOVE;
}

/* ---- public ---- */

void
backend_watch (Backend *backend, BackendChanged changed, gpointer data) {
  backend->changed = changed;
  backend->changed_data = data;
}

void
backend_start (Backend *backend) {
  static const KeeperLinkEvents events = { on_connected, on_received, on_stream_gone, on_replace_failed };
  const struct keeper_hello *hello = keeper_link_hello (backend->link);

  keeper_link_run (backend->link, &events, backend);
  if (backend->finished) { /* who found that did not live to say so */
    backend->gone (backend->gone_data);
    return;
  }
  if (backend->session) {
    vhost_user_session_resume (backend->session);
    backend_commit (backend);
  } else if (hello->is_connected) {
    on_connected (backend, hello->connection);
  }
  backend->started = TRUE;
  if (!backend->busy_mode)
    backend->good_source = source_timeout (GOOD_AFTER_MS, on_lived_a_while, backend);
}

void
backend_replace (Backend *backend, enum keeper_program program, BackendReplaceFailed failed, gpointer data) {
  backend->replace_failed = failed;
  backend->replace_data = data;
  keeper_link_replace (backend->link, program);
}

uint64_t
backend_set_target (Backend *backend, gboolean have_target, uint64_t blocks) {
  /* An event, and no configuration interrupt: QEMU crashes when it is asked for one (CONFIG_CHANGE) while the device is not
   * started, and may stop the device at the moment at which we ask. A driver without a session reads config space when it has
   * one: the generation in its first answer differs. */
  if (memory_device_set_target (&backend->device, have_target, blocks) && backend->device.session) {
    guest_events_config (&backend->events);
    backend_commit (backend); /* the events come later than this, or never, but a change that was answered for is not lost */
    backend_send_events (backend);
  }
  backend_commit (backend);
  tell_changed (backend);
  return backend->device.options.target_blocks;
}

gboolean
backend_reclaim (Backend *backend, uint64_t blocks, uint32_t deadline_ms) {
  if (!backend->device.session)
    return FALSE;
  guest_events_reclaim (&backend->events, blocks, deadline_ms);
  backend_commit (backend);
  backend_send_events (backend);
  return TRUE;
}

uint64_t
backend_audit (Backend *backend) {
  gboolean all;
  uint64_t bytes;

  if (!backend->window)
    return 0;
  bytes = window_audit (backend->window, &backend->device.regions, &all);
  backend->unpunched = !all;
  backend->audit_bytes += bytes;
  if (bytes && log_limit_pass (&backend->refused_log))
    g_warning ("%s: the guest touched %" G_GUINT64_FORMAT " KiB that it was not granted; they were taken back", backend->name,
               bytes / 1024);
  if (bytes) {
    backend_commit (backend);
    tell_changed (backend);
  }
  return bytes;
}

static gboolean
on_audit (gpointer data) {
  backend_audit (data);
  return G_SOURCE_CONTINUE;
}

void
backend_state (Backend *backend, BackendState *ret_state) {
  *ret_state = (BackendState){
    .device = &backend->device,
    .connected = backend->session != NULL,
    .connections = backend->connections,
    .window_mapped = window_is_mapped (backend),
    .window_bytes_used = backend->window ? window_bytes (backend->window) : 0,
    .window_fd = backend->window ? window_fd (backend->window) : -1,
    .audit_bytes = backend->audit_bytes,
    .host_limit_blocks = host_room_limit (backend->room),
    .host_reserve_bytes = host_room_reserve_bytes (backend->room),
    .name = backend->name,
    .short_grant = &backend->short_grant,
    .stats_at = backend->stats_at,
    .busy_mode = backend->busy_mode,
    .far = &backend->far,
    .hello = keeper_link_hello (backend->link),
  };
}

uint64_t
backend_host_used_blocks (Backend *backend) {
  return host_room_used (backend->room);
}

Backend *
backend_new (const BackendOptions *options, HostAccount *account, KeeperLink *link, BackendGone gone, gpointer data, GError **error) {
  g_autoptr (HostAccount) owned = account;
  g_autoptr (Backend) backend = g_new0 (Backend, 1);
  const char *why;

  if (!memory_device_init (&backend->device, &options->device, &why)) {
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_USAGE, "%s", why);
    return NULL;
  }
  backend->gone = gone;
  backend->gone_data = data;
  backend->once = options->once;
  backend->link = link;
  backend->busy_mode = keeper_link_hello (link)->mode == KEEPER_MODE_BUSY;
  backend->window_slot = backend->old_window_slot = STATE_NONE;
  backend->grant_mode = options->grant_mode;
  backend->name = g_strdup (options->name);
  backend->room = host_room_new (g_steal_pointer (&owned), options->host_reserve_bytes, backend->name);
  backend->shmem_bytes = options->device.window_blocks << DOMYBS_BLOCK_SHIFT;
  backend->type = (VhostUserDevice){
    .name = backend->name,
    .n_queues = DOMYBS_VQ_COUNT,
    .config_bytes = sizeof (struct domybs_config),
    .n_shmem = 1,
    .shmem_bytes = &backend->shmem_bytes,
    .get_config = on_get_config,
    .queue_ready = on_queue_ready,
    .queue_stop = on_queue_stop,
    .memory_changed = on_memory_changed,
    .reset = on_reset,
    .own_memory = own_memory,
    .map_answered = on_map_answered,
    .settle = on_settle,
    .closed = on_closed,
  };
  if (!backend_restore (backend, error))
    return NULL;
  if (options->audit_interval_ms)
    backend->audit_source = source_timeout (options->audit_interval_ms, on_audit, backend);
  backend_watch_room (backend); /* the worker before may have refused something */
  return g_steal_pointer (&backend);
}

void
backend_free (Backend *backend) {
  source_clear (&backend->map_timeout);
  source_clear (&backend->audit_source);
  source_clear (&backend->good_source);
  g_clear_pointer (&backend->session, vhost_user_session_free);
  g_clear_pointer (&backend->window, window_free);
  g_clear_pointer (&backend->room, host_room_free);
  memory_device_clear (&backend->device);
  state_file_close (&backend->state);
  g_free (backend->name);
  g_free (backend);
}
