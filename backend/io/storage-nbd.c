/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * NBD servers, through libnbd, with one connection at a time.
 *
 * A server that does not answer is waited for, and one that is gone is looked for until it is back; then what had no answer is
 * sent again. Only an answer is an answer: an error in it is the request's error.
 *
 * What was sent over a connection that broke may still be carried out, later than what was sent again: so, if there were writes
 * among it, none is sent before the new connection has been there for SETTLE_MS. A server that is alive has done or dropped
 * them by then.
 */
#include "io/error.h"
#include "io/nbd-connect.h"
#include "io/source.h"
#include "io/storage-internal.h"

#include <errno.h>
#include <libnbd.h>
#include <poll.h>
#include <string.h>

#define DEPTH 64u
#define DISCARDS_DEPTH 4u
/* Reads share the connection with writes, and somebody waits for them: so writes go in parts, and few at a time. */
#define WRITE_BYTES (256u << 10)
#define WRITES_DEPTH 8u
#ifndef RETRY_MS_MIN /* a test is in a hurry */
#define RETRY_MS_MIN 100u
#define CONNECT_MS 10000u /* for a connection's first answers */
#define FIRST_MS 5000     /* and for those of the first one, which somebody waits for */
#define RETRY_MS_MAX 5000u
#define SETTLE_MS 5000u
#endif
#define LOOK_UP_TRIES 30 /* a second apart */
#define ANSWERS_AT_ONCE 64

typedef struct NbdStorage NbdStorage;

/* One command of libnbd's. */
struct slot {
  NbdStorage *storage;
  StorageIo *io; /* or a discard */
  struct storage_discard *discard;
  gboolean ended;
  int error;
};

struct NbdStorage {
  Storage base;
  NbdUri *uri;
  struct nbd_handle *nbd; /* NULL: waiting to connect again */
  gboolean ready;         /* it has shown its export */
  gboolean told;          /* the log has the connection's end */
  guint64 most;           /* bytes of a request */
  unsigned next_address;
  unsigned retry_ms;
  gboolean doubtful; /* a write of an earlier connection or process may be under way */

  GSource *nbd_source; /* its descriptor */
  gpointer tag;
  int watched_fd;
  GSource *retry_source, *deadline_source, *settle_source;

  struct io_queue reads, writes; /* that wait */
  unsigned writes_under_way;
  struct slot slots[DEPTH + WRITES_DEPTH + DISCARDS_DEPTH];
  unsigned used, n_ended; /* slots */
  gboolean broken;        /* found out while sending: the main loop is to see to it */
};

struct nbd_source {
  GSource source;
  NbdStorage *storage;
};

static void connection_lost (NbdStorage *storage, const char *why);
static void connect_again (NbdStorage *storage);
static void send_more (NbdStorage *storage);

/* ---- answers ---- */

/* Within libnbd: remembers only. */
static int
on_answer (void *user_data, int *error) {
  struct slot *slot = user_data;

  slot->ended = TRUE;
  slot->error = *error;
  slot->storage->n_ended++;
  return 1; /* libnbd may forget it */
}

/* libnbd's own words for a connection that ended, and the protocol's for a server that ends */
static gboolean
is_no_answer (int error) {
  return error == ENOTCONN || error == ESHUTDOWN;
}

static void
free_slot (NbdStorage *storage, struct slot *slot) {
  if (slot->ended)
    storage->n_ended--;
  if (slot->io && slot->io->is_write)
    storage->writes_under_way--;
  *slot = (struct slot){ .storage = storage };
  storage->used--;
}

static void
queue_io (NbdStorage *storage, StorageIo *io) {
  io_queue_push (io->is_write ? &storage->writes : &storage->reads, io);
}

/* How much of what is left of it goes next. */
static gsize
part_bytes (const NbdStorage *storage, const StorageIo *io) {
  return MIN (io->bytes - GPOINTER_TO_SIZE (io->internal[1]), io->is_write ? MIN (storage->most, WRITE_BYTES) : storage->most);
}

/* Returns whether the request has ended. */
static gboolean
slot_ended (NbdStorage *storage, struct slot *slot, gboolean later) {
  struct storage_discard *const discard = slot->discard;
  StorageIo *const io = slot->io;
  const int error = slot->error;
  gsize progress;

  free_slot (storage, slot);
  if (discard) {
    storage->base.no_discards = storage->base.no_discards || error == ENOTSUP;
    storage_discard_ended (&storage->base, discard);
    return FALSE;
  }
  progress = GPOINTER_TO_SIZE (io->internal[1]) + part_bytes (storage, io);
  if (error == 0 && progress < io->bytes) {
    io->internal[1] = GSIZE_TO_POINTER (progress);
    queue_io (storage, io);
    return FALSE;
  }
  if (later)
    storage_refuse (&storage->base, io, error);
  else
    io->done (io, error);
  return TRUE;
}

static unsigned
take_answers (NbdStorage *storage, gboolean later) {
  unsigned n = 0;

  for (unsigned i = 0; storage->n_ended > 0 && i < G_N_ELEMENTS (storage->slots); i++)
    if (storage->slots[i].ended && !is_no_answer (storage->slots[i].error))
      n += slot_ended (storage, &storage->slots[i], later);
  return n;
}

/* ---- requests ---- */

static struct slot *
take_slot (NbdStorage *storage) {
  struct slot *slot = storage->slots;

  while (slot->io || slot->discard)
    slot++;
  *slot = (struct slot){ .storage = storage };
  storage->used++;
  return slot;
}

/* FALSE: libnbd did not take it. */
static gboolean
send_slot (NbdStorage *storage, struct slot *slot) {
  const nbd_completion_callback completion = { .callback = on_answer, .user_data = slot };
  StorageIo *const io = slot->io;
  gsize progress, bytes;

  if (slot->discard)
    return nbd_aio_trim (storage->nbd, slot->discard->bytes, slot->discard->offset, completion, 0) >= 0;
  progress = GPOINTER_TO_SIZE (io->internal[1]);
  bytes = part_bytes (storage, io);
  if (io->is_write)
    return nbd_aio_pwrite (storage->nbd, (char *)io->buf + progress, bytes, io->offset + progress, completion, 0) >= 0;
  return nbd_aio_pread (storage->nbd, (char *)io->buf + progress, bytes, io->offset + progress, completion, 0) >= 0;
}

/* Ends with an error what libnbd does not take, though the connection is there. */
static gboolean
send_or_end (NbdStorage *storage, struct slot *slot) {
  if (send_slot (storage, slot))
    return TRUE;
  if (nbd_aio_is_dead (storage->nbd) || nbd_aio_is_closed (storage->nbd))
    return storage->broken = TRUE, FALSE; /* it comes again with the others */
  slot->error = nbd_get_errno () ? nbd_get_errno () : EIO;
  slot->ended = TRUE;
  storage->n_ended++;
  return TRUE;
}

/* Reads first. */
static StorageIo *
next_io (NbdStorage *storage) {
  StorageIo *io = NULL;

  if (storage->used - storage->base.discards_under_way < DEPTH)
    io = io_queue_pop (&storage->reads);
  if (!io && storage->writes_under_way < WRITES_DEPTH)
    io = io_queue_pop (&storage->writes);
  return io;
}

static void
watch (NbdStorage *storage) {
  const unsigned direction = storage->nbd ? nbd_aio_get_direction (storage->nbd) : 0;
  const GIOCondition events
      = (direction & LIBNBD_AIO_DIRECTION_READ ? G_IO_IN : 0) | (direction & LIBNBD_AIO_DIRECTION_WRITE ? G_IO_OUT : 0);
  const int fd = storage->nbd ? nbd_aio_get_fd (storage->nbd) : -1;

  if (!storage->nbd_source)
    return;
  if (storage->tag && storage->watched_fd != fd) {
    g_source_remove_unix_fd (storage->nbd_source, storage->tag);
    storage->tag = NULL;
  }
  if (!storage->tag && fd >= 0)
    storage->tag = g_source_add_unix_fd (storage->nbd_source, fd, events);
  else if (storage->tag)
    g_source_modify_unix_fd (storage->nbd_source, storage->tag, events);
  storage->watched_fd = fd;
}

static void
send_more (NbdStorage *storage) {
  struct storage_discard *discard;
  gboolean ok = TRUE;
  StorageIo *io;

  if (!storage->ready)
    return;
  while (ok && (io = next_io (storage))) {
    struct slot *slot = take_slot (storage);

    slot->io = io;
    storage->writes_under_way += io->is_write ? 1 : 0;
    ok = send_or_end (storage, slot);
  }
  while (ok && (discard = storage_next_discard (&storage->base))) {
    struct slot *slot = take_slot (storage);

    slot->discard = discard;
    ok = send_or_end (storage, slot);
  }
  take_answers (storage, TRUE); /* whoever called this does not expect done */
  watch (storage);
}

static void
nbd_submit (Storage *base, StorageIo *io) {
  queue_io ((NbdStorage *)base, io);
}

static void
nbd_kick (Storage *base) {
  send_more ((NbdStorage *)base);
}

/* ---- a connection's life ---- */

static gboolean
on_settle_time (gpointer data) {
  NbdStorage *storage = data;

  source_clear (&storage->settle_source);
  storage->doubtful = FALSE;
  storage_settle (&storage->base);
  return G_SOURCE_REMOVE;
}

/* NULL: the export will do. */
static char *
what_is_wrong (NbdStorage *storage) {
  const int64_t size = nbd_get_size (storage->nbd);
  const int64_t least = nbd_get_block_size (storage->nbd, LIBNBD_SIZE_MINIMUM),
                most = nbd_get_block_size (storage->nbd, LIBNBD_SIZE_MAXIMUM);

  if (size < 0 || (guint64)size < storage->base.bytes)
    return g_strdup_printf ("the export has %" G_GINT64_FORMAT " bytes, but %" G_GUINT64_FORMAT " are needed", size,
                            storage->base.bytes);
  if (nbd_is_read_only (storage->nbd) != 0)
    return g_strdup ("the export can't be written");
  if (least > (int64_t)STORAGE_ALIGN)
    return g_strdup_printf ("the export's blocks have %" G_GINT64_FORMAT " bytes, pages have %u", least, STORAGE_ALIGN);
  storage->most = most >= (int64_t)STORAGE_ALIGN ? (guint64)most & ~(guint64)(STORAGE_ALIGN - 1) : STORAGE_IO_BYTES_MAX;
  storage->base.no_discards = nbd_can_trim (storage->nbd) != 1;
  return NULL;
}

static void
connection_ready (NbdStorage *storage) {
  g_autofree char *wrong = what_is_wrong (storage);

  if (wrong) {
    connection_lost (storage, wrong);
    return;
  }
  source_clear (&storage->deadline_source);
  storage->ready = TRUE;
  storage->retry_ms = RETRY_MS_MIN;
  if (storage->told)
    g_message ("%s: connected again", storage->uri->text);
  storage->told = FALSE;
  storage_set_reachable (&storage->base, TRUE);
  if (!storage->doubtful)
    storage_settle (&storage->base);
  else if (!storage->settle_source)
    storage->settle_source = source_timeout (SETTLE_MS, on_settle_time, storage);
  send_more (storage);
}

static gboolean
on_retry (gpointer data) {
  NbdStorage *storage = data;

  source_clear (&storage->retry_source);
  connect_again (storage);
  return G_SOURCE_REMOVE;
}

static gboolean
on_deadline (gpointer data) {
  NbdStorage *storage = data;

  source_clear (&storage->deadline_source);
  connection_lost (storage, "no answer");
  return G_SOURCE_REMOVE;
}

/* Puts back what has no answer. */
static void
take_back (NbdStorage *storage) {
  take_answers (storage, TRUE);
  for (unsigned i = 0; i < G_N_ELEMENTS (storage->slots); i++) {
    struct slot *const slot = &storage->slots[i];

    if (slot->discard) {
      struct storage_discard *const discard = slot->discard;

      storage->doubtful = TRUE;
      free_slot (storage, slot);
      storage_discard_ended (&storage->base, discard);
    } else if (slot->io) {
      StorageIo *const io = slot->io;

      storage->doubtful = storage->doubtful || io->is_write;
      free_slot (storage, slot);
      queue_io (storage, io);
    }
  }
}

/* Writes have to wait until it is certain that none of an earlier connection comes after them. */
static void
hold_writes (NbdStorage *storage) {
  StorageIo *io;

  source_clear (&storage->settle_source);
  source_clear (&storage->base.settled_source);
  storage->base.settled = FALSE;
  while ((io = io_queue_pop (&storage->writes)))
    io_queue_push (&storage->base.held, io);
}

static void
drop_connection (NbdStorage *storage) {
  source_clear (&storage->nbd_source);
  source_clear (&storage->deadline_source);
  storage->tag = NULL;
  storage->ready = storage->broken = FALSE;
  nbd_close (storage->nbd);
  storage->nbd = NULL;
}

static void
connection_lost (NbdStorage *storage, const char *why) {
  if (!storage->told)
    g_message ("%s: no connection (%s); waiting for it", storage->uri->text, why);
  storage->told = TRUE;
  if (storage->base.reachable)
    storage_set_reachable (&storage->base, FALSE);
  if (storage->nbd)
    drop_connection (storage);
  take_back (storage);
  if (storage->doubtful)
    hold_writes (storage);
  if (!storage->retry_source)
    storage->retry_source = source_timeout (storage->retry_ms, on_retry, storage);
  storage->retry_ms = MIN (storage->retry_ms * 2, RETRY_MS_MAX);
}

/* After each step of libnbd's. */
static void
look (NbdStorage *storage) {
  if (nbd_aio_is_dead (storage->nbd) || nbd_aio_is_closed (storage->nbd)) {
    g_autofree char *why = g_strdup (storage->ready || !nbd_get_error () ? "it ended" : nbd_get_error ());

    connection_lost (storage, why);
  } else if (storage->n_ended > 0) /* answers that are none, over a connection that is there */
    connection_lost (storage, "it is shutting down");
  else if (!storage->ready && nbd_aio_is_ready (storage->nbd))
    connection_ready (storage);
  else
    watch (storage);
}

/* One step if the socket is ready for one. FALSE: there is nothing to do now. */
static gboolean
do_step (NbdStorage *storage, int timeout_ms) {
  const unsigned direction = nbd_aio_get_direction (storage->nbd);
  struct pollfd fd = { .fd = nbd_aio_get_fd (storage->nbd) };

  fd.events
      = (short)((direction & LIBNBD_AIO_DIRECTION_READ ? POLLIN : 0) | (direction & LIBNBD_AIO_DIRECTION_WRITE ? POLLOUT : 0));
  if (fd.fd < 0 || poll (&fd, 1, timeout_ms) <= 0)
    return FALSE;
  if (direction & LIBNBD_AIO_DIRECTION_READ && fd.revents & (POLLIN | POLLHUP | POLLERR))
    nbd_aio_notify_read (storage->nbd);
  else
    nbd_aio_notify_write (storage->nbd);
  return TRUE;
}

static gboolean
source_prepare (GSource *source, gint *timeout) {
  *timeout = -1;
  return ((struct nbd_source *)source)->storage->broken;
}

static gboolean
source_check (GSource *source) {
  const NbdStorage *storage = ((struct nbd_source *)source)->storage;

  if (storage->broken)
    return TRUE;
  return storage->tag && g_source_query_unix_fd (source, storage->tag) != 0;
}

static gboolean
source_dispatch (GSource *source, GSourceFunc callback, gpointer data) {
  NbdStorage *storage = ((struct nbd_source *)source)->storage;
  int steps = 0;

  /* libnbd goes from one answer to the next only when it is asked */
  while (steps++ < ANSWERS_AT_ONCE && do_step (storage, 0))
    if (nbd_aio_is_dead (storage->nbd) || nbd_aio_is_closed (storage->nbd))
      break;
  take_answers (storage, FALSE);
  if (storage->nbd && !g_source_is_destroyed (source)) /* done may have had it ended */
    look (storage);
  send_more (storage);
  return G_SOURCE_CONTINUE;
}

static GSourceFuncs nbd_source_functions = { .prepare = source_prepare, .check = source_check, .dispatch = source_dispatch };

static void
attach_connection (NbdStorage *storage) {
  g_autoptr (GMainContext) context = g_main_context_ref_thread_default ();

  storage->nbd_source = g_source_new (&nbd_source_functions, sizeof (struct nbd_source));
  ((struct nbd_source *)storage->nbd_source)->storage = storage;
  storage->tag = NULL;
  watch (storage);
  g_source_attach (storage->nbd_source, context);
  nbd_connect_tune (storage->nbd, storage->uri);
}

static void
connect_again (NbdStorage *storage) {
  storage->nbd = nbd_connect_begin (storage->uri, storage->next_address++);
  if (!storage->nbd) {
    g_autofree char *why = g_strdup (nbd_get_error ());

    connection_lost (storage, why ? why : "?");
    return;
  }
  storage->deadline_source = source_timeout (CONNECT_MS, on_deadline, storage);
  attach_connection (storage);
  look (storage);
}

/* ---- beginning and end ---- */

static void
nbd_free (Storage *base) {
  NbdStorage *storage = (NbdStorage *)base;

  source_clear (&storage->retry_source);
  source_clear (&storage->settle_source);
  if (storage->nbd)
    drop_connection (storage);
  if (storage->uri)
    nbd_uri_free (storage->uri);
}

static unsigned
nbd_reap (Storage *base) {
  return take_answers ((NbdStorage *)base, FALSE);
}

static const struct storage_kind nbd_kind = {
  .submit = nbd_submit,
  .kick = nbd_kick,
  .reap = nbd_reap,
  .discards_depth = DISCARDS_DEPTH,
  .free = nbd_free,
};

/* Waits for the first connection: what is wrong with the URI is better said now. */
static gboolean
connect_first (NbdStorage *storage, GError **error) {
  const gint64 until = g_get_monotonic_time () + FIRST_MS * 1000;
  g_autofree char *wrong = NULL;
  unsigned tries = storage->uri->n_addresses;

  do {
    if (storage->nbd)
      nbd_close (storage->nbd);
    storage->nbd = nbd_connect_begin (storage->uri, storage->next_address++);
    while (storage->nbd && !nbd_aio_is_ready (storage->nbd) && !nbd_aio_is_dead (storage->nbd)
           && !nbd_aio_is_closed (storage->nbd)) {
      const gint64 left = until - g_get_monotonic_time ();

      if (left <= 0 || !do_step (storage, (int)(left / 1000) + 1)) {
        g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_FAILED, "%s: the server does not answer", storage->uri->text);
        return FALSE;
      }
    }
  } while (--tries > 0 && !(storage->nbd && nbd_aio_is_ready (storage->nbd)));
  if (!storage->nbd || !nbd_aio_is_ready (storage->nbd)) {
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_FAILED, "%s: %s", storage->uri->text,
                 nbd_get_error () ? nbd_get_error () : "the server ended the connection");
    return FALSE;
  }
  wrong = what_is_wrong (storage);
  if (!wrong)
    return TRUE;
  g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_USAGE, "%s: %s", storage->uri->text, wrong);
  return FALSE;
}

static gboolean
look_up (NbdStorage *storage, gboolean patiently, GError **error) {
  for (int i = 0; patiently && i < LOOK_UP_TRIES; i++) {
    if (nbd_uri_look_up (storage->uri, NULL))
      return TRUE;
    g_usleep (G_USEC_PER_SEC);
  }
  return nbd_uri_look_up (storage->uri, error);
}

Storage *
storage_nbd_new (const char *text, guint64 bytes, gboolean had_process_before, GError **error) {
  NbdStorage *storage = g_new0 (NbdStorage, 1);

  storage_init (&storage->base, &nbd_kind, bytes, g_strdup_printf ("NBD server %s", text));
  storage->retry_ms = RETRY_MS_MIN;
  storage->most = STORAGE_IO_BYTES_MAX;
  storage->doubtful = had_process_before;
  storage->watched_fd = -1;
  storage->uri = nbd_uri_parse (text, error);
  if (!storage->uri || !look_up (storage, had_process_before, error)
      || (!had_process_before && !connect_first (storage, error))) {
    storage_free (&storage->base);
    return NULL;
  }
  nbd_connect_tell_sandbox (storage->uri);
  if (storage->nbd) {
    attach_connection (storage);
    connection_ready (storage);
  } else {
    storage_set_reachable (&storage->base, FALSE);
    connect_again (storage); /* a server that is away now may be back soon, and the VM is running */
  }
  return &storage->base;
}
