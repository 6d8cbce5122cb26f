/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "io/storage-internal.h"
#include "io/source.h"

#include <errno.h>
#include <unistd.h>

/* Every request is compared with all of them. */
#define DISCARDS_WAITING 256u
#define DISCARD_BYTES_MAX ((guint64)1 << 30)

void
io_queue_push (struct io_queue *queue, StorageIo *io) {
  io->internal[0] = NULL;
  if (queue->last)
    queue->last->internal[0] = io;
  else
    queue->first = io;
  queue->last = io;
}

StorageIo *
io_queue_pop (struct io_queue *queue) {
  StorageIo *io = queue->first;

  if (io) {
    queue->first = io->internal[0];
    if (!queue->first)
      queue->last = NULL;
  }
  return io;
}

static GSource *
source_idle (GSourceFunc function, gpointer data) {
  GSource *source = g_idle_source_new ();
  g_autoptr (GMainContext) context = g_main_context_ref_thread_default ();

  g_source_set_priority (source, G_PRIORITY_DEFAULT);
  g_source_set_callback (source, function, data, NULL);
  g_source_attach (source, context);
  return source;
}

void
storage_init (Storage *storage, const struct storage_kind *kind, guint64 bytes, char *description) {
  storage->kind = kind;
  storage->bytes = bytes;
  storage->description = description;
  storage_set_reachable (storage, TRUE);
}

void
storage_set_reachable (Storage *storage, gboolean reachable) {
  storage->reachable = reachable;
  storage->reachable_since = g_get_monotonic_time ();
}

static void
submit_allowed (Storage *storage, StorageIo *io) {
  if (storage->discards.head && storage_discard_overlaps (storage, io->offset, io->bytes))
    io_queue_push (&storage->blocked, io);
  else
    storage->kind->submit (storage, io);
}

/* ---- settled ---- */

static gboolean
on_settled (gpointer data) {
  Storage *storage = data;
  void (*const callback) (gpointer) = storage->on_settled;
  StorageIo *io;

  source_clear (&storage->settled_source);
  storage->settled = TRUE;
  while ((io = io_queue_pop (&storage->held)))
    submit_allowed (storage, io);
  storage->kind->kick (storage);
  storage->on_settled = NULL;
  if (callback)
    callback (storage->on_settled_data);
  return G_SOURCE_REMOVE;
}

void
storage_settle (Storage *storage) {
  if (!storage->settled && !storage->settled_source)
    storage->settled_source = source_idle (on_settled, storage);
}

void
storage_on_settled (Storage *storage, void (*settled) (gpointer data), gpointer data) {
  storage->on_settled = settled;
  storage->on_settled_data = data;
  if (storage->settled && !storage->settled_source)
    storage->settled_source = source_idle (on_settled, storage);
}

gboolean
storage_is_settled (const Storage *storage) {
  return storage->settled;
}

/* ---- discards ---- */

gboolean
storage_discard_overlaps (const Storage *storage, guint64 offset, guint64 bytes) {
  for (const GList *l = storage->discards.head; l; l = l->next) {
    const struct storage_discard *d = l->data;

    if (offset < d->offset + d->bytes && d->offset < offset + bytes)
      return TRUE;
  }
  return FALSE;
}

struct storage_discard *
storage_next_discard (Storage *storage) {
  if (storage->discards_under_way >= storage->kind->discards_depth)
    return NULL;
  for (GList *l = storage->discards.head; l; l = l->next) {
    struct storage_discard *discard = l->data;

    if (!discard->under_way) {
      discard->under_way = TRUE;
      storage->discards_under_way++;
      return discard;
    }
  }
  return NULL;
}

void
storage_discard_ended (Storage *storage, struct storage_discard *discard) {
  struct io_queue blocked = storage->blocked;
  StorageIo *io;

  storage->discards_under_way--;
  g_queue_remove (&storage->discards, discard);
  g_free (discard);
  storage->blocked = (struct io_queue){ NULL, NULL };
  while ((io = io_queue_pop (&blocked)))
    submit_allowed (storage, io);
}

/* ---- requests ---- */

static unsigned
call_refused (Storage *storage) {
  struct io_queue refused = storage->refused;
  unsigned n = 0;
  StorageIo *io;

  source_clear (&storage->refused_source);
  storage->refused = (struct io_queue){ NULL, NULL };
  for (; (io = io_queue_pop (&refused)); n++)
    io->done (io, GPOINTER_TO_INT (io->internal[1]));
  return n;
}

static gboolean
on_refused (gpointer data) {
  call_refused (data);
  return G_SOURCE_REMOVE;
}

void
storage_refuse (Storage *storage, StorageIo *io, int error) {
  io->internal[1] = GINT_TO_POINTER (error);
  io_queue_push (&storage->refused, io);
  if (!storage->refused_source)
    storage->refused_source = source_idle (on_refused, storage);
}

void
storage_submit (Storage *storage, StorageIo *io) {
  io->began = g_get_monotonic_time ();
  io->internal[1] = NULL;
  if (io->bytes == 0 || io->bytes > STORAGE_IO_BYTES_MAX || io->bytes % STORAGE_ALIGN || io->offset % STORAGE_ALIGN
      || io->offset > storage->bytes || io->bytes > storage->bytes - io->offset)
    storage_refuse (storage, io, EINVAL);
  else if (io->is_write && !storage->settled)
    io_queue_push (&storage->held, io);
  else
    submit_allowed (storage, io);
}

void
storage_kick (Storage *storage) {
  storage->kind->kick (storage);
}

gboolean
storage_read_again (Storage *storage, StorageIo *io) {
  return storage->kind->read_again && storage->kind->read_again (storage, io);
}

gboolean
storage_has_copies (const Storage *storage) {
  return storage->kind->read_again != NULL;
}

void
storage_set_owner (Storage *storage, const StorageOwner *owner, gpointer data) {
  storage->owner = owner;
  storage->owner_data = data;
}

gboolean
storage_wears (Storage *storage, guint64 offset) {
  return !storage->kind->wears || storage->kind->wears (storage, offset);
}

gboolean
storage_is_sound (const Storage *storage, guint64 offset, const guint8 *buf, gsize from, gsize to) {
  return !storage->owner || storage->owner->is_sound (storage->owner_data, offset, buf, from, to);
}

gboolean
storage_is_wanted (const Storage *storage, guint64 offset) {
  return !storage->owner || storage->owner->is_wanted (storage->owner_data, offset);
}

void
storage_spend (const Storage *storage, gsize bytes) {
  if (storage->owner)
    storage->owner->spend (storage->owner_data, bytes);
}

guint64
storage_spend_wait_us (const Storage *storage, gsize bytes) {
  return storage->owner ? storage->owner->spend_wait_us (storage->owner_data, bytes) : 0;
}

unsigned
storage_reap (Storage *storage) {
  return (storage->refused.first ? call_refused (storage) : 0) + storage->kind->reap (storage);
}

static gboolean
in_bounds (const Storage *storage, guint64 offset, guint64 bytes) {
  return bytes > 0 && offset % STORAGE_ALIGN == 0 && bytes % STORAGE_ALIGN == 0 && offset <= storage->bytes
         && bytes <= storage->bytes - offset;
}

gboolean
storage_allocate (Storage *storage, guint64 offset, guint64 bytes, GError **error) {
  g_return_val_if_fail (in_bounds (storage, offset, bytes), FALSE);
  return !storage->kind->allocate || storage->kind->allocate (storage, offset, bytes, error);
}

void
storage_discard (Storage *storage, guint64 offset, guint64 bytes) {
  struct storage_discard *last, *discard;

  g_return_if_fail (in_bounds (storage, offset, bytes));
  if (storage->no_discards)
    return;
  while (bytes > DISCARD_BYTES_MAX) {
    storage_discard (storage, offset, DISCARD_BYTES_MAX);
    offset += DISCARD_BYTES_MAX;
    bytes -= DISCARD_BYTES_MAX;
  }
  last = g_queue_peek_tail (&storage->discards);
  if (last && !last->under_way && last->offset + last->bytes == offset && last->bytes + bytes <= DISCARD_BYTES_MAX) {
    last->bytes += bytes;
    return;
  }
  if (storage->discards.length >= DISCARDS_WAITING) {
    if (storage->kind->discard_now && !storage_discard_overlaps (storage, offset, bytes))
      storage->kind->discard_now (storage, offset, bytes);
    return;
  }
  discard = g_new (struct storage_discard, 1);
  *discard = (struct storage_discard){ offset, bytes, FALSE };
  g_queue_push_tail (&storage->discards, discard);
}

/* ---- public ---- */

gboolean
storage_spec_is_nbd (const char *spec) {
  return g_str_has_prefix (spec, "nbd://") || g_str_has_prefix (spec, "nbds://") || g_str_has_prefix (spec, "nbd+unix://")
         || g_str_has_prefix (spec, "nbds+unix://");
}

Storage *
storage_new (const char *spec, int fd, guint64 bytes, int gone_write_fd, int gone_read_fd, GError **error) {
  if (!storage_spec_is_nbd (spec))
    return storage_file_new (spec, fd, bytes, gone_write_fd, gone_read_fd, error);
  if (gone_write_fd >= 0)
    close (gone_write_fd);
  return storage_nbd_new (spec, bytes, gone_read_fd >= 0, error);
}

void
storage_free (Storage *storage) {
  if (!storage)
    return;
  source_clear (&storage->settled_source);
  source_clear (&storage->refused_source);
  storage->kind->free (storage);
  g_queue_clear_full (&storage->discards, g_free);
  g_free (storage->description);
  g_free (storage);
}

const char *
storage_description (const Storage *storage) {
  return storage->description;
}

gboolean
storage_is_reachable (const Storage *storage, gint64 *ret_since_us) {
  *ret_since_us = storage->reachable_since;
  return storage->reachable;
}
