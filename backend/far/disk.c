/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "far/disk.h"
#include "io/log-limit.h"
#include "io/sandbox-calls.h"
#include "io/source.h"
#include "io/vhost-user-socket.h"

#include "core/crash-point.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

SANDBOX_CALLS (SANDBOX_CALL (accept4));

/* Chains of one queue at a turn, so that the other queues, and the other disks, get theirs. */
#define CHAINS_PER_TURN 64u
#define ACCEPT_PAUSE_MS 100
/* Requests that are kept for the next time. */
#define SPARE_REQUESTS_MAX 64u

typedef struct Request Request;
struct Request {
  FarIo io; /* first: what the engine gives back is this */
  FarDisk *disk;
  Request *previous, *next; /* of those in flight; of the spare ones: next */
  unsigned queue;
  unsigned range; /* DISCARD, WRITE_ZEROES: the one that is carried out */
  struct blk_request blk;
  struct virtqueue_chain chain;
  /* Going through the pages in order is going on from here. */
  guint64 at_page;
  struct blk_cursor at;
};

typedef struct {
  unsigned in_flight;
  gboolean stopping;  /* the front-end waits for them */
  gboolean to_signal;
} DiskQueue;

struct FarDisk {
  FarDiskOptions options;
  char *name, *id;
  VhostUserDevice type;
  const FarPagesKind *kind;
  gpointer pages; /* of that kind */
  int listen_fd;
  GSource *listen_source, *pause_source;
  VhostUserSocket *socket; /* NULL: nobody is connected */
  guint64 connections;
  struct blk_disk blk;
  DiskQueue queues[VHOST_USER_QUEUES_MAX];
  Request *in_flight; /* in no order */
  Request *spare;
  unsigned n_spare, n_in_flight;
  unsigned bursts; /* > 0: signals wait for the burst's end */
};

static VhostUserSession *
session_of (FarDisk *disk) {
  return vhost_user_socket_session (disk->socket);
}

/* ---- requests ---- */

static Request *
new_request (FarDisk *disk, unsigned queue) {
  Request *request = disk->spare;

  if (request) {
    disk->spare = request->next;
    disk->n_spare--;
  } else {
    request = g_new (Request, 1);
  }
  memset (&request->io, 0, sizeof request->io);
  request->disk = disk;
  request->queue = queue;
  request->range = 0;
  request->previous = NULL;
  request->next = disk->in_flight;
  if (disk->in_flight)
    disk->in_flight->previous = request;
  disk->in_flight = request;
  disk->n_in_flight++;
  disk->queues[queue].in_flight++;
  return request;
}

static void
free_request (Request *request) {
  FarDisk *disk = request->disk;

  if (request->previous)
    request->previous->next = request->next;
  else
    disk->in_flight = request->next;
  if (request->next)
    request->next->previous = request->previous;
  disk->n_in_flight--;
  disk->queues[request->queue].in_flight--;
  if (disk->n_spare >= SPARE_REQUESTS_MAX) {
    g_free (request);
    return;
  }
  request->next = disk->spare;
  disk->spare = request;
  disk->n_spare++;
}

/* ---- the guest's pages ---- */

static guint8 *
move_to (Request *request, guint64 i, struct blk_cursor *ret_was) {
  guint8 *page;

  if (i < request->at_page) {
    blk_cursor_begin (&request->chain, &request->blk, &request->at);
    request->at_page = 0;
  }
  do
    page = blk_cursor_next (&request->chain, &request->at, ret_was);
  while (request->at_page++ < i);
  return page;
}

static guint8 *
page_at (FarIo *io, guint64 i) {
  struct blk_cursor was;

  return move_to ((Request *)io, i, &was);
}

static void
copy_page (FarIo *io, guint64 i, guint8 *page) {
  Request *request = (Request *)io;
  struct blk_cursor was;

  move_to (request, i, &was);
  if (io->operation == BLK_WRITE)
    blk_page_read (&request->chain, &was, page);
  else
    blk_page_write (&request->chain, &was, page);
}

/* ---- answers ---- */

static void
signal_queues (FarDisk *disk) {
  for (unsigned i = 0; i < disk->options.n_queues && disk->socket; i++)
    if (disk->queues[i].to_signal) {
      disk->queues[i].to_signal = FALSE;
      vhost_user_session_signal (session_of (disk), i);
    }
}

/* QEMU waits for its queues to stop, all of it: nothing that can be done now may wait. */
static void
hurry (FarDisk *disk) {
  gboolean any = FALSE;

  for (unsigned i = 0; i < disk->options.n_queues; i++)
    any = any || disk->queues[i].stopping;
  if (disk->kind->hurry)
    disk->kind->hurry (disk->pages, any);
}

/* It was pushed. */
static void
ended (Request *request) {
  FarDisk *disk = request->disk;
  const unsigned queue = request->queue;
  DiskQueue *q = &disk->queues[queue];

  free_request (request);
  q->to_signal = TRUE;
  if (!disk->bursts)
    signal_queues (disk);
  if (q->stopping && q->in_flight == 0 && disk->socket) {
    q->stopping = FALSE;
    hurry (disk);
    vhost_user_session_stopped (session_of (disk), queue);
  }
}

static void
answer (Request *request, enum blk_status status) {
  blk_request_answer (&request->chain, &request->blk, status);
  CRASH_POINT ("disk-answered");
  vhost_user_session_push (session_of (request->disk), request->queue, request->chain.head, (uint32_t)request->chain.in_bytes);
  CRASH_POINT ("disk-pushed");
  ended (request);
}

static void begin_range (Request *request);

static void
on_done (FarIo *io, gboolean ok) {
  Request *request = (Request *)io;
  const gboolean more = request->blk.n_ranges && request->range + 1 < request->blk.n_ranges;

  if (ok && more) {
    request->range++;
    begin_range (request);
  } else {
    answer (request, ok ? BLK_OK : BLK_IOERR);
  }
}

/* ---- requests begin ---- */

static void
begin_range (Request *request) {
  request->io.first = request->blk.ranges[request->range].first;
  request->io.n = request->blk.ranges[request->range].n;
  request->disk->kind->start (request->disk->pages, &request->io);
}

static void
answer_id (Request *request) {
  char id[BLK_ID_BYTES] = { 0 };

  /* NUL-padded; a name of exactly this length has no NUL (VIRTIO 1.2, 5.2.6) */
  memcpy (id, request->disk->options.id, MIN (strlen (request->disk->options.id), sizeof id));
  virtqueue_chain_write (&request->chain, id, MIN (sizeof id, request->blk.status_offset));
  answer (request, BLK_OK);
}

static void
begin (Request *request) {
  const struct blk_request *blk = &request->blk;

  request->io.operation = blk->operation;
  request->io.page_at = page_at;
  request->io.copy = copy_page;
  request->io.done = on_done;
  switch (blk->operation) {
  case BLK_READ:
  case BLK_WRITE:
    request->io.first = blk->first;
    request->io.n = blk->n;
    blk_cursor_begin (&request->chain, blk, &request->at);
    request->at_page = 0;
    request->disk->kind->start (request->disk->pages, &request->io);
    break;
  case BLK_DISCARD:
  case BLK_WRITE_ZEROES:
    if (blk->n_ranges)
      begin_range (request);
    else
      answer (request, BLK_OK);
    break;
  case BLK_GET_ID:
    answer_id (request);
    break;
  case BLK_FLUSH: /* what was answered is as safe as it gets: this memory dies with its host */
  default:
    answer (request, BLK_OK);
  }
}

/* Takes one chain. FALSE: there is none. */
static gboolean
take_one (FarDisk *disk, unsigned queue) {
  VhostUserSession *session = session_of (disk);
  Request *request = new_request (disk, queue);
  const char *why = NULL;
  enum blk_status status;

  if (vhost_user_session_pop (session, queue, &request->chain) != VIRTQUEUE_POP_CHAIN) {
    free_request (request);
    return FALSE;
  }
  CRASH_POINT ("disk-popped");
  switch (blk_request_decode (&request->chain, &disk->blk, &request->blk, &status, &why)) {
  case BLK_GOOD:
    begin (request);
    return TRUE;
  case BLK_REFUSE:
    answer (request, status);
    return TRUE;
  case BLK_BROKEN:
  default:
    free_request (request);
    vhost_user_session_queue_break (session, queue, why);
    return FALSE;
  }
}

/* ---- the session's calls ---- */

static void
get_config (gpointer data, uint8_t *buf) {
  FarDisk *disk = data;

  blk_config (&disk->blk, disk->options.n_queues, buf);
}

static void
queue_ready (gpointer data, unsigned queue) {
  FarDisk *disk = data;
  VhostUserSession *session = session_of (disk);
  struct virtqueue *vq = vhost_user_session_queue (session, queue);
  unsigned n = 0;

  disk->bursts++;
  virtqueue_enable_kicks (vq, false);
  do
    while (n < CHAINS_PER_TURN && take_one (disk, queue))
      n++;
  while (n < CHAINS_PER_TURN && virtqueue_enable_kicks (vq, true));
  disk->kind->kick (disk->pages);
  disk->bursts--;
  signal_queues (disk);
  if (n == CHAINS_PER_TURN)
    vhost_user_session_queue_again (session, queue);
}

static gboolean
queue_stop (gpointer data, unsigned queue) {
  FarDisk *disk = data;

  disk->queues[queue].stopping = disk->queues[queue].in_flight > 0;
  hurry (disk); /* may bring it to its end */
  return !disk->queues[queue].stopping;
}

/* Buffers have moved. A request whose buffers are no more ends, and nothing of it is touched: its status stays as the driver left it,
 * which is no success. */
static void
memory_changed (gpointer data) {
  FarDisk *disk = data;
  VhostUserSession *session = session_of (disk);

  for (Request *request = disk->in_flight, *next; request; request = next) {
    next = request->next;
    if (vhost_user_session_move_chain (session, &request->chain))
      continue; /* the cursor counts pieces, not addresses */
    disk->kind->forget (disk->pages, &request->io);
    vhost_user_session_push (session, request->queue, request->chain.head, 0);
    ended (request);
  }
}

/* The cache mode is all that a driver may write, and there is no cache. */
static void
set_config (gpointer data, const uint8_t *bytes, unsigned offset, unsigned n) {
}

static void
closed (gpointer data, const char *why) {
  static LogLimit close_log; /* of all disks: a front-end may come and go as often as it likes */
  FarDisk *disk = data;

  if (why && log_limit_pass (&close_log))
    g_warning ("%s: the connection is closed: %s", disk->name, why);
  while (disk->in_flight) {
    disk->kind->forget (disk->pages, &disk->in_flight->io);
    free_request (disk->in_flight);
  }
  for (unsigned i = 0; i < VHOST_USER_QUEUES_MAX; i++)
    disk->queues[i] = (DiskQueue){ 0 };
  hurry (disk);
  disk->socket = NULL; /* it frees itself after this */
  far_disk_start (disk);
  if (disk->options.closed)
    disk->options.closed (disk->options.data);
}

/* ---- an engine's pages ---- */

static guint64
engine_n_pages (gconstpointer pages) {
  return far_engine_n_pages (pages);
}

static void
engine_start (gpointer pages, FarIo *io) {
  far_engine_start (pages, io);
}

static void
engine_kick (gpointer pages) {
  far_engine_kick (pages);
}

static void
engine_forget (gpointer pages, FarIo *io) {
  far_engine_forget (pages, io);
}

static void
engine_hurry (gpointer pages, gboolean hurry) {
  far_engine_hurry (pages, hurry);
}

static void
engine_free (gpointer pages) {
  far_engine_free (pages);
}

static const FarPagesKind engine_pages = {
  .n_pages = engine_n_pages,
  .start = engine_start,
  .kick = engine_kick,
  .forget = engine_forget,
  .hurry = engine_hurry,
  .free = engine_free,
};

FarDisk *
far_disk_new (const FarDiskOptions *options, int listen_fd, FarEngine *engine) {
  return far_disk_new_of (options, listen_fd, &engine_pages, engine);
}

/* ---- connections ---- */

static gboolean
on_pause_over (gpointer data) {
  FarDisk *disk = data;

  source_clear (&disk->pause_source);
  far_disk_start (disk);
  return G_SOURCE_REMOVE;
}

/* One at a time: while somebody is connected, nobody is accepted; who comes waits in the socket's own queue. That is how it is after a
 * front-end's end, too: the next one is there before the first one's end was read. */
static gboolean
on_connection (gint fd, GIOCondition condition, gpointer data) {
  FarDisk *disk = data;
  int connection;

  connection = accept4 (fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (connection < 0 && (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED))
    return G_SOURCE_CONTINUE;
  source_clear (&disk->listen_source);
  if (connection < 0) { /* no descriptor for it: the kernel keeps it */
    disk->pause_source = source_timeout (ACCEPT_PAUSE_MS, on_pause_over, disk);
    return G_SOURCE_REMOVE;
  }
  disk->connections++;
  disk->socket = vhost_user_socket_new (connection, &disk->type, disk);
  return G_SOURCE_REMOVE;
}

FarDisk *
far_disk_new_of (const FarDiskOptions *options, int listen_fd, const FarPagesKind *kind, gpointer pages) {
  FarDisk *disk = g_new0 (FarDisk, 1);

  disk->options = *options;
  disk->options.name = disk->name = g_strdup (options->name);
  disk->options.id = disk->id = g_strdup (options->id);
  disk->kind = kind;
  disk->pages = pages;
  disk->listen_fd = listen_fd;
  disk->blk = (struct blk_disk){ .n_pages = kind->n_pages (pages), .read_only = options->read_only };
  disk->type = (VhostUserDevice){
    .name = disk->name,
    .n_queues = options->n_queues,
    .features = blk_features (&disk->blk),
    .config_bytes = VHU_CONFIG_BYTES_MAX, /* a front-end may know a longer one than we do: zeros */
    .get_config = get_config,
    .set_config = set_config,
    .queue_ready = queue_ready,
    .queue_stop = queue_stop,
    .memory_changed = memory_changed,
    .inflight = TRUE,
    .mem_slots = options->mem_slots,
    .inflight_owner = options->inflight_owner,
    .config_changes = TRUE,
    .closed = closed,
  };
  return disk;
}

void
far_disk_start (FarDisk *disk) {
  disk->listen_source = source_fd (NULL, disk->listen_fd, G_IO_IN, on_connection, disk);
}

void
far_disk_free (FarDisk *disk) {
  source_clear (&disk->listen_source);
  source_clear (&disk->pause_source);
  close (disk->listen_fd);
  while (disk->in_flight) {
    disk->kind->forget (disk->pages, &disk->in_flight->io);
    free_request (disk->in_flight);
  }
  g_clear_pointer (&disk->socket, vhost_user_socket_free);
  while (disk->spare) {
    Request *request = disk->spare;

    disk->spare = request->next;
    g_free (request);
  }
  disk->kind->free (disk->pages);
  g_free (disk->name);
  g_free (disk->id);
  g_free (disk);
}

/* ---- figures ---- */

FarEngine *
far_disk_engine (FarDisk *disk) {
  return disk->kind == &engine_pages ? disk->pages : NULL;
}

gpointer
far_disk_pages (FarDisk *disk) {
  return disk->pages;
}

gboolean
far_disk_is_connected (const FarDisk *disk) {
  return disk->socket != NULL;
}

guint64
far_disk_connections (const FarDisk *disk) {
  return disk->connections;
}

unsigned
far_disk_in_flight (const FarDisk *disk) {
  return disk->n_in_flight;
}
