/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "device/backend.h"
#include "device/log-limit.h"
#include "io/error.h"
#include "io/host-memory.h"
#include "io/vhost-user-session.h"
#include "io/window.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

/* How long a guest waits for its window. QEMU maps within milliseconds; while the VM is stopped in between, the request is put
 * back and does not time out. */
#define MAP_TIMEOUT_MS 10000
/* Requests in one turn of the main loop, so that a guest's flood leaves turns for the control socket and for audits. */
#define REQUESTS_PER_TURN 64
/* /proc/meminfo is read at most this often: reading it costs more than a grant does. */
#define HOST_MEMORY_AGE_US (100 * 1000)
/* How often a guest that was refused for the host's sake is offered another try, if there is room. */
#define OFFER_INTERVAL_MS 1000

struct Backend {
  struct memory_device device;
  GrantMode grant_mode;
  uint64_t host_reserve_bytes;
  char *name;
  VhostUserDevice type;
  uint64_t shmem_bytes;
  HostAccount *account;
  Window *window; /* NULL before the first session */
  VhostUserSession *session;
  BackendGone gone;
  gpointer gone_data;

  /* The one request that is under way: HELLO, while the front-end maps the window. */
  gboolean busy;
  gboolean map_on_its_way; /* asked for and not refused; outlives `busy` when the VM is stopped in between */
  uint16_t busy_head;
  struct device_plan plan;
  GSource *map_timeout;

  struct domybs_event reclaim, offer, config; /* waiting for a buffer; type 0 = none */
  GSource *audit_source, *offer_source;
  uint64_t audit_bytes;
  HostMemory host_memory;
  gint64 host_memory_at; /* g_get_monotonic_time */
  uint64_t promised_blocks; /* granted since then, less those released again: not in its figures yet */
  LogLimit refused_log;
};

static GSource *
add_timeout (unsigned ms, GSourceFunc function, gpointer data) {
  GSource *source = g_timeout_source_new (ms);
  g_autoptr (GMainContext) context = g_main_context_ref_thread_default ();

  g_source_set_callback (source, function, data, NULL);
  g_source_attach (source, context);
  return source;
}

static void
clear_source (GSource **source) {
  if (*source) {
    g_source_destroy (*source);
    g_source_unref (*source);
  }
  *source = NULL;
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

  host_account_return (backend->account, backend->device.regions.granted);
  memory_device_reset (&backend->device);
  if (backend->window && !window_punch (backend->window, &all, &error))
    g_warning ("%s: %s", backend->name, error->message);
}

static gboolean
own_memory (gpointer data, const struct stat *st) {
  Backend *backend = data;

  return backend->window && window_is (backend->window, st);
}

/* ---- answering ---- */

static void
answer (Backend *backend, struct virtqueue *vq, const struct virtqueue_chain *chain, const struct device_plan *plan) {
  const size_t written = virtqueue_chain_write (chain, plan->answer, plan->answer_bytes);

  virtqueue_push (vq, chain->head, (uint32_t)written);
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

  clear_source (&backend->map_timeout);
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
      g_message ("%s: session with %s, sections of %u blocks", backend->name, backend->device.driver,
                 backend->device.regions.region_blocks);
    answer (backend, vq, &chain, &backend->plan);
    vhost_user_session_signal (backend->session, DOMYBS_VQ_REQUEST);
  }
  vhost_user_session_queue_again (backend->session, DOMYBS_VQ_REQUEST);
}

static gboolean
on_map_timeout (gpointer data) {
  Backend *backend = data;

  g_warning ("%s: the front-end did not map the window within %d ms", backend->name, MAP_TIMEOUT_MS);
  clear_source (&backend->map_timeout);
  finish_hello (backend, DEVICE_FAILED);
  return G_SOURCE_REMOVE;
}

static void
on_map_answered (gpointer data, gboolean ok) {
  Backend *backend = data;

  if (!ok) {
    backend->map_on_its_way = FALSE;
    if (backend->busy) {
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

/* HELLO: a fresh window in the place of the old. Where the front-end still has ours mapped, emptying it is the same thing. Returns
 * FALSE when the request has to wait for the front-end. */
static gboolean
begin_session (Backend *backend, enum device_outcome *ret_outcome) {
  g_autoptr (GError) error = NULL;

  *ret_outcome = DEVICE_FAILED;
  void_grants (backend);
  if (window_is_mapped (backend)) {
    *ret_outcome = window_bytes (backend->window) ? DEVICE_RETRY : DEVICE_DONE;
    return TRUE;
  }
  if (!backend->map_on_its_way) {
    g_clear_pointer (&backend->window, window_free);
    backend->window = window_new (backend->device.options.window_blocks, &error);
    if (!backend->window
        || !vhost_user_session_map (backend->session, DOMYBS_SHM_WINDOW, window_fd (backend->window), 0, 0,
                                    window_map_bytes (backend->window), on_map_answered, &error)) {
      if (g_error_matches (error, DOMYBS_ERROR, DOMYBS_ERROR_IN_USE))
        *ret_outcome = DEVICE_RETRY;
      g_warning ("%s: %s", backend->name, error->message);
      g_clear_pointer (&backend->window, window_free);
      return TRUE;
    }
    backend->map_on_its_way = TRUE;
  }
  backend->busy = TRUE;
  backend->map_timeout = add_timeout (MAP_TIMEOUT_MS, on_map_timeout, backend);
  return FALSE;
}

/* ---- grant and release ---- */

/* How many blocks the host's free memory has room for, on top of what is kept back. */
static uint64_t
host_room_blocks (Backend *backend) {
  const gint64 now = g_get_monotonic_time ();
  uint64_t room;

  if (backend->host_memory_at == 0 || now - backend->host_memory_at > HOST_MEMORY_AGE_US) {
    g_autoptr (GError) error = NULL;

    if (!host_memory_read (&backend->host_memory, &error)) {
      g_warning ("%s: %s", backend->name, error->message);
      return 0;
    }
    backend->host_memory_at = now;
    backend->promised_blocks = 0;
  }
  if (backend->host_memory.available_bytes <= backend->host_reserve_bytes)
    return 0;
  room = (backend->host_memory.available_bytes - backend->host_reserve_bytes) >> DOMYBS_BLOCK_SHIFT;
  return room - MIN (room, backend->promised_blocks);
}

static gboolean
populate (Backend *backend, const struct device_plan *plan, uint64_t blocks) {
  uint64_t done = 0;

  for (unsigned i = 0; i < plan->n_runs && done < blocks; i++) {
    const struct block_run run = { plan->runs[i].start, MIN (plan->runs[i].count, blocks - done) };
    g_autoptr (GError) error = NULL;

    if (!window_populate (backend->window, &run, &error)) {
      g_warning ("%s: %s", backend->name, error->message);
      while (i-- > 0)
        window_punch (backend->window, &plan->runs[i], NULL);
      return FALSE;
    }
    done += run.count;
  }
  return TRUE;
}

static void
do_grant (Backend *backend, struct device_plan *plan) {
  const uint64_t room = host_room_blocks (backend);
  const uint64_t wanted = MIN (plan->blocks, room);
  int64_t reserved = wanted ? host_account_reserve (backend->account, wanted) : 0;
  enum device_outcome outcome = reserved < 0 ? DEVICE_RETRY : reserved == 0 ? DEVICE_NO_HOST_CAPACITY : DEVICE_DONE;

  if ((plan->request.grant.flags & DOMYBS_GRANT_F_ALL) && reserved > 0 && (uint64_t)reserved < plan->blocks)
    outcome = DEVICE_NO_HOST_CAPACITY; /* before anything is populated for nothing */
  if (outcome == DEVICE_DONE && backend->grant_mode == GRANT_POPULATE && !populate (backend, plan, (uint64_t)reserved))
    outcome = DEVICE_NO_HOST_CAPACITY;
  memory_device_finish (&backend->device, plan, outcome, reserved > 0 ? (uint64_t)reserved : 0, 0);
  if (reserved > 0 && (uint64_t)reserved > plan->blocks)
    host_account_return (backend->account, (uint64_t)reserved - plan->blocks);
  backend->promised_blocks += plan->blocks;
}

static void
do_release (Backend *backend, struct device_plan *plan) {
  enum device_outcome outcome = DEVICE_DONE;
  const uint64_t blocks = plan->blocks;

  for (unsigned i = 0; i < plan->n_runs && outcome == DEVICE_DONE; i++) {
    g_autoptr (GError) error = NULL;

    if (!window_punch (backend->window, &plan->runs[i], &error)) {
      g_warning ("%s: %s", backend->name, error->message);
      outcome = DEVICE_FAILED;
    }
  }
  memory_device_finish (&backend->device, plan, outcome, 0, 0);
  if (outcome == DEVICE_DONE) {
    host_account_return (backend->account, blocks);
    backend->promised_blocks -= MIN (backend->promised_blocks, blocks);
  }
}

static void
do_end (Backend *backend, struct device_plan *plan) {
  const struct block_run all = { 0, backend->device.options.window_blocks };
  const uint64_t blocks = backend->device.regions.granted;
  const gboolean ok = window_punch (backend->window, &all, NULL);

  memory_device_finish (&backend->device, plan, ok ? DEVICE_DONE : DEVICE_FAILED, 0, 0);
  if (ok)
    host_account_return (backend->account, blocks);
  g_message ("%s: the guest said good-bye", backend->name);
}

/* ---- request queue ---- */

/* Handles one chain. When it has to wait, backend->busy is set, and nothing else may be taken meanwhile. */
static void
handle_request (Backend *backend, struct virtqueue *vq, const struct virtqueue_chain *chain) {
  uint8_t bytes[DOMYBS_REQUEST_BYTES_MAX + 1]; /* one more, so that a longer request shows */
  const size_t n = virtqueue_chain_read (chain, 0, bytes, sizeof bytes);
  struct device_plan *plan = &backend->plan;
  enum device_outcome outcome;

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
    break;
  case DEVICE_STEP_GRANT:
    do_grant (backend, plan);
    break;
  case DEVICE_STEP_RELEASE:
    do_release (backend, plan);
    break;
  case DEVICE_STEP_END:
    do_end (backend, plan);
    break;
  }
  answer (backend, vq, chain, plan);
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
      virtqueue_push (vq, chain.head, 0);
      vhost_user_session_queue_break (backend->session, DOMYBS_VQ_REQUEST, "a request without room for its answer");
      break;
    }
    handle_request (backend, vq, &chain);
    if (!vhost_user_session_memory_is_sound (backend->session))
      return;
  }
  vhost_user_session_signal (backend->session, DOMYBS_VQ_REQUEST);
  if (left < 0 && !backend->busy)
    vhost_user_session_queue_again (backend->session, DOMYBS_VQ_REQUEST);
}

/* ---- event queue ---- */

/* Sends one event if the guest has given a buffer for it. */
static gboolean
send_event (Backend *backend, struct domybs_event *event) {
  struct virtqueue *vq = vhost_user_session_queue (backend->session, DOMYBS_VQ_EVENT);
  struct virtqueue_chain chain;
  enum virtqueue_pop popped;

  if (event->type == 0)
    return TRUE;
  popped = virtqueue_pop (vq, vhost_user_session_memory (backend->session), &chain);
  if (popped != VIRTQUEUE_POP_CHAIN) {
    virtqueue_enable_kicks (vq, true);
    if (popped == VIRTQUEUE_POP_BROKEN)
      vhost_user_session_queue_again (backend->session, DOMYBS_VQ_EVENT); /* logs it: no kick may have brought us here */
    return FALSE;
  }
  if (chain.in_bytes < sizeof *event) {
    virtqueue_push (vq, chain.head, 0);
    vhost_user_session_queue_break (backend->session, DOMYBS_VQ_EVENT, "an event buffer without room for an event");
    return FALSE;
  }
  event->session = GUINT64_TO_LE (backend->device.session);
  event->generation = GUINT32_TO_LE (backend->device.generation);
  virtqueue_push (vq, chain.head, (uint32_t)virtqueue_chain_write (&chain, event, sizeof *event));
  memset (event, 0, sizeof *event);
  return TRUE;
}

static void
send_events (Backend *backend) {
  if (!backend->session || !vhost_user_session_queue_runs (backend->session, DOMYBS_VQ_EVENT))
    return;
  if (send_event (backend, &backend->reclaim) && send_event (backend, &backend->config))
    send_event (backend, &backend->offer);
  vhost_user_session_signal (backend->session, DOMYBS_VQ_EVENT);
}

static gboolean
on_offer (gpointer data) {
  Backend *backend = data;

  if (!backend->device.offer_wanted || !backend->device.session)
    return G_SOURCE_CONTINUE;
  if (host_room_blocks (backend) && host_account_used (backend->account) < host_account_limit (backend->account)) {
    backend->device.offer_wanted = false;
    backend->offer = (struct domybs_event){ .type = GUINT16_TO_LE (DOMYBS_EVENT_OFFER) };
    send_events (backend);
  }
  return G_SOURCE_CONTINUE;
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
    send_events (backend);
}

/* A HELLO that waits is still in the ring; when the queue runs again it is taken from there, and then the window may be mapped
 * already. Only our waiting ends. */
static void
on_queue_stop (gpointer data, unsigned queue) {
  Backend *backend = data;

  if (queue != DOMYBS_VQ_REQUEST || !backend->busy)
    return;
  clear_source (&backend->map_timeout);
  memory_device_drop (&backend->device, &backend->plan);
  backend->busy = FALSE;
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
  if (backend->device.session && !window_is_mapped (backend)) {
    g_message ("%s: the guest was reset: %" G_GUINT64_FORMAT " blocks are back", backend->name, backend->device.regions.granted);
    void_grants (backend);
  }
}

static void
on_reset (gpointer data) {
  Backend *backend = data;

  on_queue_stop (backend, DOMYBS_VQ_REQUEST);
  if (backend->device.session)
    g_message ("%s: the guest was reset: %" G_GUINT64_FORMAT " blocks are back", backend->name, backend->device.regions.granted);
  void_grants (backend);
}

static void
on_closed (gpointer data, const char *why) {
  Backend *backend = data;

  if (why)
    g_warning ("%s: connection closed: %s", backend->name, why);
  else
    g_message ("%s: the front-end has gone", backend->name);
  clear_source (&backend->map_timeout);
  backend->busy = FALSE;
  backend->map_on_its_way = FALSE;
  backend->session = NULL; /* frees itself */
  void_grants (backend);
  memset (&backend->reclaim, 0, sizeof backend->reclaim);
  memset (&backend->offer, 0, sizeof backend->offer);
  memset (&backend->config, 0, sizeof backend->config);
  backend->gone (backend->gone_data, why);
}

/* ---- public ---- */

gboolean
backend_connect (Backend *backend, int fd, BackendGone gone, gpointer data) {
  if (backend->session) {
    close (fd);
    return FALSE;
  }
  backend->gone = gone;
  backend->gone_data = data;
  backend->session = vhost_user_session_new (fd, &backend->type, backend);
  return TRUE;
}

uint64_t
backend_set_target (Backend *backend, gboolean have_target, uint64_t blocks) {
  if (memory_device_set_target (&backend->device, have_target, blocks) && backend->session) {
    /* Both ways: the interrupt makes a driver re-read config space, the event reaches one whose front-end has no channel. */
    backend->config = (struct domybs_event){ .type = GUINT16_TO_LE (DOMYBS_EVENT_CONFIG) };
    vhost_user_session_config_changed (backend->session);
    send_events (backend);
  }
  return backend->device.options.target_blocks;
}

gboolean
backend_reclaim (Backend *backend, uint64_t blocks, uint32_t deadline_ms) {
  if (!backend->device.session)
    return FALSE;
  backend->reclaim = (struct domybs_event){
    .type = GUINT16_TO_LE (DOMYBS_EVENT_RECLAIM),
    .deadline_ms = GUINT32_TO_LE (deadline_ms),
    .blocks = GUINT64_TO_LE (blocks),
  };
  send_events (backend);
  return TRUE;
}

uint64_t
backend_audit (Backend *backend) {
  uint64_t bytes;

  if (!backend->window)
    return 0;
  bytes = window_audit (backend->window, &backend->device.regions);
  backend->audit_bytes += bytes;
  if (bytes && log_limit_pass (&backend->refused_log))
    g_warning ("%s: the guest touched %" G_GUINT64_FORMAT " KiB that it was not granted; they were taken back", backend->name,
               bytes / 1024);
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
    .window_mapped = window_is_mapped (backend),
    .window_bytes_used = backend->window ? window_bytes (backend->window) : 0,
    .window_fd = backend->window ? window_fd (backend->window) : -1,
    .audit_bytes = backend->audit_bytes,
    .host_used_blocks = host_account_used (backend->account),
    .host_limit_blocks = host_account_limit (backend->account),
  };
}

Backend *
backend_new (const BackendOptions *options, HostAccount *account, GError **error) {
  g_autoptr (HostAccount) owned = account;
  Backend *backend;
  const char *why;

  backend = g_new0 (Backend, 1);
  if (!memory_device_init (&backend->device, &options->device, &why)) {
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_USAGE, "%s", why);
    g_free (backend);
    return NULL;
  }
  backend->grant_mode = options->grant_mode;
  backend->host_reserve_bytes = options->host_reserve_bytes;
  backend->name = g_strdup (options->name);
  backend->account = g_steal_pointer (&owned);
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
    .closed = on_closed,
  };
  if (options->audit_interval_ms)
    backend->audit_source = add_timeout (options->audit_interval_ms, on_audit, backend);
  backend->offer_source = add_timeout (OFFER_INTERVAL_MS, on_offer, backend);
  return backend;
}

void
backend_free (Backend *backend) {
  clear_source (&backend->map_timeout);
  clear_source (&backend->audit_source);
  clear_source (&backend->offer_source);
  g_clear_pointer (&backend->session, vhost_user_session_free);
  void_grants (backend);
  g_clear_pointer (&backend->window, window_free);
  host_account_free (backend->account);
  memory_device_clear (&backend->device);
  g_free (backend->name);
  g_free (backend);
}
