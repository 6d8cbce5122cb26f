/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "far/object-internal.h"
#include "far/latency.h"
#include "io/object-file.h"

#include <string.h>

static void go_through (FarObject *object, FarIo *io);

/* ---- pages ---- */

static void
put_page (FarIo *io, guint64 i, const guint8 *bytes) {
  guint8 *to = io->page_at (io, i);

  if (to)
    memcpy (to, bytes, OBJECT_PAGE_BYTES);
  else
    io->copy (io, i, (guint8 *)bytes); /* a read: copied from there */
}

static void
put_zeros (FarIo *io, guint64 i) {
  static guint8 zeros[OBJECT_PAGE_BYTES];

  put_page (io, i, zeros);
}

/* Checked where nobody else can change them: bytes are ours. */
void
object_deliver (FarObject *object, FarIo *io, guint64 i, const guint8 *bytes) {
  const guint64 page = io->first + i;

  if (object_page_is (bytes, object_digest (object, page))) {
    put_page (io, i, bytes);
    return;
  }
  io->failed = TRUE;
  object->figures.damaged++;
  if (log_limit_pass (&object->log_limit))
    g_warning ("%s: page %" G_GUINT64_FORMAT " is not what was imported (%s): the guest gets an I/O error for it; "
               "'domybsctl object verify' looks at all of them",
               object->options.name, page, storage_description (object->storage));
}

/* ---- requests ---- */

static void
wait_for_read (FarObject *object, FarIo *io) {
  io->next_waiting = NULL;
  io->queued = TRUE;
  *object->waiting_tail = io;
  object->waiting_tail = &io->next_waiting;
  object->n_waiting++;
}

static FarIo *
next_waiting (FarObject *object) {
  FarIo *io = object->waiting;

  if (!io)
    return NULL;
  object->waiting = io->next_waiting;
  if (!object->waiting)
    object->waiting_tail = &object->waiting;
  io->queued = FALSE;
  object->n_waiting--;
  return io;
}

static void
end_if_done (FarObject *object, FarIo *io) {
  if (io->under_way || io->queued)
    return;
  object->figures.read_latency[latency_bucket (g_get_monotonic_time () - io->began)]++;
  object->figures.refused += io->failed;
  io->done (io, !io->failed);
}

void
object_part_done (FarObject *object, FarIo *io) {
  io->under_way--;
  end_if_done (object, io);
}

/* ---- reads of storage ---- */

/* FALSE: there is no buffer now. */
static gboolean
begin_read (FarObject *object, FarIo *io, guint64 i, unsigned n) {
  ObjectRead *read = object->free_reads;

  if (!read)
    return FALSE;
  object->free_reads = read->next_free;
  if (!read->buf)
    read->buf = g_aligned_alloc (OBJECT_READ_PAGES_MAX, OBJECT_PAGE_BYTES, STORAGE_ALIGN);
  read->io = io;
  read->at = i;
  read->n = n;
  read->storage.is_write = FALSE;
  read->storage.buf = read->buf;
  read->storage.offset = object->data_offset + (io->first + i) * OBJECT_PAGE_BYTES;
  read->storage.bytes = (gsize)n * OBJECT_PAGE_BYTES;
  io->under_way++;
  storage_submit (object->storage, &read->storage);
  object->kick_wanted = TRUE;
  return TRUE;
}

static void
read_done (StorageIo *storage, int error) {
  ObjectRead *read = (ObjectRead *)storage;
  FarObject *object = read->object;
  FarIo *io = read->io;

  object->figures.storage_read_bytes += storage->bytes;
  if (error) {
    object->figures.storage_errors++;
    if (log_limit_pass (&object->log_limit))
      g_warning ("%s: %s: reading %zu bytes at %" G_GUINT64_FORMAT ": %s", object->options.name,
                 storage_description (object->storage), storage->bytes, storage->offset, g_strerror (error));
    if (io)
      io->failed = TRUE;
  } else if (io) {
    for (unsigned k = 0; k < read->n; k++)
      object_deliver (object, io, read->at + k, read->buf + (gsize)k * OBJECT_PAGE_BYTES);
    object->figures.read_from_storage += read->n;
  }
  read->io = NULL;
  read->next_free = object->free_reads;
  object->free_reads = read;
  if (io)
    object_part_done (object, io);
  io = next_waiting (object);
  if (io)
    go_through (object, io);
  far_object_pages.kick (object);
}

/* How many pages from i on are stored and wanted, and fit into one read. */
static unsigned
run_length (const FarObject *object, const FarIo *io, guint64 i) {
  unsigned n = 1;

  while (n < OBJECT_READ_PAGES_MAX && i + n < io->n && !object_digest_is_zero (object_digest (object, io->first + i + n))
         && !object_ahead_has (object, io->first + i + n))
    n++;
  return n;
}

/* How many pages from io->next on are done or under way; 0: not now. */
static guint64
read_some (FarObject *object, FarIo *io) {
  const guint64 i = io->next;
  guint64 n;

  if (object_digest_is_zero (object_digest (object, io->first + i))) {
    put_zeros (io, i);
    object->figures.zero_pages++;
    return 1;
  }
  n = object_ahead_take (object, io, i);
  if (n)
    return n;
  n = run_length (object, io, i);
  return begin_read (object, io, i, (unsigned)n) ? n : 0;
}

static void
go_through (FarObject *object, FarIo *io) {
  const guint64 before = io->next;

  io->under_way++; /* not answered before all of it was looked at */
  while (io->next < io->n) {
    const guint64 n = read_some (object, io);

    if (n == 0)
      break;
    io->next += n;
  }
  object->figures.read_pages += io->next - before;
  io->under_way--;
  if (io->next < io->n)
    wait_for_read (object, io);
  end_if_done (object, io);
}

/* A piece that was read ahead of them has failed: those who waited for it get an answer of their own. Where there is no buffer,
 * the request goes on from that page again, which is right, too. */
void
object_read_again (FarObject *object, FarIo *io, guint64 i, guint64 n) {
  if (!io->queued && begin_read (object, io, i, (unsigned)n))
    return;
  io->next = MIN (io->next, i);
  if (!io->queued)
    wait_for_read (object, io);
}

/* ---- for a disk ---- */

static guint64
object_n_pages_of (gconstpointer pages) {
  return ((const FarObject *)pages)->n_pages;
}

static void
object_start (gpointer pages, FarIo *io) {
  FarObject *object = pages;

  io->next = 0;
  io->under_way = 0;
  io->failed = io->queued = io->again = FALSE;
  io->began = g_get_monotonic_time ();
  if (io->operation != BLK_READ) { /* the rest was refused before: the disk is read-only */
    object->figures.refused++;
    io->done (io, FALSE);
    return;
  }
  object->figures.reads++;
  io->under_way++; /* it may be answered, and be no more, before its plan was made */
  go_through (object, io);
  object_ahead_plan (object, io);
  object_part_done (object, io);
}

static void
object_kick (gpointer pages) {
  FarObject *object = pages;

  object->kick_again = TRUE;
  if (object->kicking)
    return; /* the one that runs goes round again */
  object->kicking = TRUE;
  while (object->kick_again) {
    object->kick_again = FALSE;
    if (object->kick_wanted) {
      object->kick_wanted = FALSE;
      storage_kick (object->storage);
      storage_reap (object->storage);
    }
  }
  object->kicking = FALSE;
}

static void
object_forget (gpointer pages, FarIo *io) {
  FarObject *object = pages;

  for (FarIo **p = &object->waiting; *p; p = &(*p)->next_waiting)
    if (*p == io) {
      *p = io->next_waiting;
      if (!*p)
        object->waiting_tail = p;
      object->n_waiting--;
      break;
    }
  for (unsigned i = 0; i < OBJECT_READS_MAX; i++)
    if (object->reads[i].io == io)
      object->reads[i].io = NULL;
  object_ahead_forget (object, io);
}

static void
object_free (gpointer pages) {
  FarObject *object = pages;

  g_clear_pointer (&object->storage, storage_free); /* ends what is under way */
  for (unsigned i = 0; i < OBJECT_READS_MAX; i++)
    g_clear_pointer (&object->reads[i].buf, g_aligned_free);
  object_ahead_free (object);
  g_free (object->name);
  g_free (object);
}

const FarPagesKind far_object_pages = {
  .n_pages = object_n_pages_of,
  .start = object_start,
  .kick = object_kick,
  .forget = object_forget,
  .free = object_free,
};

FarObject *
far_object_new (const FarObjectOptions *options, const guint8 *meta, guint64 size_bytes, Storage *storage) {
  FarObject *object = g_new0 (FarObject, 1);

  object->options = *options;
  object->options.name = object->name = g_strdup (options->name);
  object->n_pages = object_n_pages (size_bytes);
  object->data_offset = object_data_offset (object->n_pages);
  object->digests = object_meta_digest (meta, 0);
  object->storage = storage;
  object->waiting_tail = &object->waiting;
  for (unsigned i = 0; i < OBJECT_READS_MAX; i++) {
    ObjectRead *read = &object->reads[i];

    read->object = object;
    read->storage.done = read_done;
    read->next_free = object->free_reads;
    object->free_reads = read;
  }
  object_ahead_init (object);
  return object;
}

/* ---- figures ---- */

Storage *
far_object_storage (FarObject *object) {
  return object->storage;
}

void
far_object_figures (FarObject *object, FarObjectFigures *ret_figures) {
  gint64 began = object->waiting ? object->waiting->began : G_MAXINT64;

  *ret_figures = object->figures;
  ret_figures->waiting = object->n_waiting;
  for (unsigned i = 0; i < OBJECT_READS_MAX; i++)
    if (object->reads[i].io) {
      ret_figures->waiting++;
      began = MIN (began, object->reads[i].io->began);
    }
  for (unsigned i = 0; i < OBJECT_AHEAD_UNDER_WAY_MAX; i++)
    for (const AheadWaiter *waiter = object->aheads[i].waiters; waiter; waiter = waiter->next) {
      ret_figures->waiting++;
      began = MIN (began, waiter->io->began);
    }
  ret_figures->oldest_wait_us = began == G_MAXINT64 ? 0 : (guint64)(g_get_monotonic_time () - began);
  if (object->ahead) {
    struct read_ahead_figures ahead;

    read_ahead_get_figures (object->ahead, &ahead);
    ret_figures->ahead_wasted = ahead.wasted;
  }
  ret_figures->overhead_bytes
      = object->data_offset + object->options.ahead_bytes + (gsize)OBJECT_READS_MAX * OBJECT_READ_PAGES_MAX * OBJECT_PAGE_BYTES;
}
