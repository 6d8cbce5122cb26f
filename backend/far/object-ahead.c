/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reading ahead, into a ring of memory (core/read-ahead.h): in reads of up to 32 pages. A request that wants a page of one that
 * is still on its way waits for it rather than reading it twice; if that read fails, it reads its own pages. What lies in the
 * ring is checked when it is wanted, not before: nobody gets a page that was not checked, and what nobody wants costs no sum.
 */
#include "far/object-internal.h"

#define VERSION 1u /* pages of an object have no other */

static void ahead_done (StorageIo *storage, int error);

static void
on_dropped (void *data, uint32_t stream, uint32_t pages) {
  prefetch_wasted (&((FarObject *)data)->prefetch, stream, pages);
}

void
object_ahead_init (FarObject *object) {
  const gsize bytes = (gsize)object->options.ahead_bytes & ~(gsize)(READ_AHEAD_ALIGN - 1);

  object->ahead = bytes ? read_ahead_new (bytes, on_dropped, object) : NULL;
  if (!object->ahead)
    return;
  object->ring = g_aligned_alloc (bytes / OBJECT_PAGE_BYTES, OBJECT_PAGE_BYTES, STORAGE_ALIGN);
  prefetch_init (&object->prefetch, object->n_pages, (guint32)MAX (bytes / OBJECT_PAGE_BYTES / 2, 1));
  for (unsigned i = 0; i < OBJECT_AHEAD_UNDER_WAY_MAX; i++) {
    object->aheads[i].object = object;
    object->aheads[i].storage.done = ahead_done;
    object->aheads[i].waiters_tail = &object->aheads[i].waiters;
  }
}

void
object_ahead_free (FarObject *object) {
  for (unsigned i = 0; i < OBJECT_AHEAD_UNDER_WAY_MAX; i++)
    while (object->aheads[i].waiters) {
      AheadWaiter *waiter = object->aheads[i].waiters;

      object->aheads[i].waiters = waiter->next;
      g_free (waiter);
    }
  g_clear_pointer (&object->ahead, read_ahead_free);
  g_clear_pointer (&object->ring, g_aligned_free);
}

static enum read_ahead_state
find (const FarObject *object, guint64 page, gsize *ret_at, ObjectAhead **ret_ahead) {
  void *owner = NULL;
  enum read_ahead_state state;

  if (!object->ahead)
    return READ_AHEAD_NONE;
  state = read_ahead_find (object->ahead, page, VERSION, ret_at, &owner);
  *ret_ahead = owner;
  return state;
}

gboolean
object_ahead_has (const FarObject *object, guint64 page) {
  ObjectAhead *ahead;
  gsize at;

  return find (object, page, &at, &ahead) != READ_AHEAD_NONE;
}

/* ---- taking ---- */

static void
use (FarObject *object, guint64 page) {
  if (!read_ahead_use (object->ahead, page))
    return;
  object->figures.ahead_used++;
  prefetch_used (&object->prefetch, 1);
}

static guint64
wait_for (ObjectAhead *ahead, FarIo *io, guint64 i) {
  const guint64 page = io->first + i;
  AheadWaiter *waiter = g_new (AheadWaiter, 1);
  const unsigned n = (unsigned)MIN (ahead->first + ahead->n - page, io->n - i);

  *waiter = (AheadWaiter){ .io = io, .at = i, .n = n };
  *ahead->waiters_tail = waiter;
  ahead->waiters_tail = &waiter->next;
  io->under_way++;
  return n;
}

guint64
object_ahead_take (FarObject *object, FarIo *io, guint64 i) {
  ObjectAhead *ahead;
  gsize at;

  switch (find (object, io->first + i, &at, &ahead)) {
  case READ_AHEAD_THERE:
    object_deliver (object, io, i, object->ring + at);
    use (object, io->first + i);
    return 1;
  case READ_AHEAD_COMING:
    return wait_for (ahead, io, i);
  case READ_AHEAD_NONE:
  default:
    return 0;
  }
}

void
object_ahead_forget (FarObject *object, FarIo *io) {
  for (unsigned i = 0; i < OBJECT_AHEAD_UNDER_WAY_MAX; i++) {
    AheadWaiter **p = &object->aheads[i].waiters;

    while (*p) {
      AheadWaiter *waiter = *p;

      if (waiter->io != io) {
        p = &waiter->next;
        continue;
      }
      *p = waiter->next;
      g_free (waiter);
    }
    object->aheads[i].waiters_tail = p;
  }
}

/* ---- reading ---- */

/* While there are waiters it counts as on its way: an answer may bring the next request, which must neither have the room for
 * something else, nor find nobody to wait for. */
static void
ahead_done (StorageIo *storage, int error) {
  static const bool none[OBJECT_AHEAD_PAGES];
  ObjectAhead *ahead = (ObjectAhead *)storage;
  FarObject *object = ahead->object;
  guint32 used = 0;
  AheadWaiter *waiter;

  object->figures.storage_read_bytes += storage->bytes;
  object->figures.storage_errors += error != 0; /* logged when somebody wants it */
  while ((waiter = ahead->waiters)) {
    FarIo *io = waiter->io;
    const guint64 begin = io->first + waiter->at - ahead->first;

    ahead->waiters = waiter->next;
    if (!ahead->waiters)
      ahead->waiters_tail = &ahead->waiters;
    if (error)
      object_read_again (object, io, waiter->at, waiter->n);
    for (guint64 k = 0; !error && k < waiter->n; k++) {
      object_deliver (object, io, waiter->at + k, (guint8 *)storage->buf + (begin + k) * OBJECT_PAGE_BYTES);
      used |= 1u << (begin + k);
    }
    g_free (waiter);
    object_part_done (object, io);
  }
  read_ahead_end (object->ahead, ahead->chunk, error ? none : NULL);
  ahead->is_busy = FALSE;
  for (unsigned k = 0; k < ahead->n; k++)
    if (used & 1u << k)
      use (object, ahead->first + k);
  far_object_pages.kick (object);
}

static ObjectAhead *
idle_one (FarObject *object) {
  for (unsigned i = 0; i < OBJECT_AHEAD_UNDER_WAY_MAX; i++)
    if (!object->aheads[i].is_busy)
      return &object->aheads[i];
  return NULL;
}

static gboolean
begin (FarObject *object, guint64 first, unsigned n, guint32 stream) {
  ObjectAhead *ahead = idle_one (object);
  struct read_ahead_page pages[OBJECT_AHEAD_PAGES];
  gsize at;

  if (!ahead)
    return FALSE;
  for (unsigned i = 0; i < n; i++)
    pages[i] = (struct read_ahead_page){ first + i, VERSION, i * OBJECT_PAGE_BYTES };
  ahead->chunk = read_ahead_begin (object->ahead, pages, n, (gsize)n * OBJECT_PAGE_BYTES, stream, ahead, &at);
  if (ahead->chunk < 0)
    return FALSE;
  ahead->is_busy = TRUE;
  ahead->first = first;
  ahead->n = n;
  ahead->storage.is_write = FALSE;
  ahead->storage.buf = object->ring + at;
  ahead->storage.offset = object->data_offset + first * OBJECT_PAGE_BYTES;
  ahead->storage.bytes = (gsize)n * OBJECT_PAGE_BYTES;
  object->figures.ahead_pages += n;
  storage_submit (object->storage, &ahead->storage);
  object->kick_wanted = TRUE;
  return TRUE;
}

/* What of a range is stored and not here yet, piece by piece. FALSE: there is no room for more now. */
static gboolean
read_range (FarObject *object, const struct prefetch_range *range) {
  const guint64 end = MIN (range->first + range->n, object->n_pages);
  guint64 first = range->first;

  while (first < end) {
    unsigned k = 0;

    while (k < OBJECT_AHEAD_PAGES && first + k < end && !object_digest_is_zero (object_digest (object, first + k))
           && !object_ahead_has (object, first + k))
      k++;
    if (k && !begin (object, first, k, range->stream))
      return FALSE;
    first += MAX (k, 1);
  }
  return TRUE;
}

void
object_ahead_plan (FarObject *object, const FarIo *io) {
  struct prefetch_range ranges[PREFETCH_RANGES_MAX];
  unsigned n;

  if (!object->ahead || !io->n)
    return;
  n = prefetch_read (&object->prefetch, io->first, io->n, ranges, G_N_ELEMENTS (ranges));
  for (unsigned i = 0; i < n && read_range (object, &ranges[i]); i++) {
  }
}
