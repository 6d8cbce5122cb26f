/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Reads: from the stage at once, from storage in as few reads as the pages' places allow. */
#include "far/engine-internal.h"

#include <string.h>

/* ---- one page whose bytes are here ---- */

static void
put_page (FarIo *io, guint64 i, guint64 value) {
  guint8 *to = io->page_at (io, i);
  guint8 page[FAR_PAGE_BYTES];

  if (to) {
    page_fill (to, value);
  } else {
    page_fill (page, value);
    io->copy (io, i, page);
  }
}

gboolean
engine_open_page (FarEngine *engine, FarIo *io, guint64 i, const struct far_page *page, const guint8 *bytes) {
  const uint64_t number = io->first + i;
  guint8 in_pieces[FAR_PAGE_BYTES];
  guint8 *to = io->page_at (io, i), *out = to ? to : in_pieces;
  gboolean ok;

  if (page->kind == FAR_PACKED)
    ok = seal_open_page (engine->seal, number, page, bytes, engine->scratch) && page_unpack (engine->scratch, page->bytes, out);
  else
    ok = seal_open_page (engine->seal, number, page, bytes, out);
  if (!to)
    io->copy (io, i, in_pieces);
  return ok;
}

gboolean
engine_page_is_good (FarEngine *engine, guint64 number, const struct far_page *page, const guint8 *bytes) {
  return seal_open_page (engine->seal, number, page, bytes, engine->scratch);
}

static void
say_damaged (FarEngine *engine, FarIo *io, guint64 i) {
  io->failed = TRUE;
  engine->figures.damaged++;
  if (log_limit_pass (&engine->log_limit))
    g_warning ("%s: page %" G_GUINT64_FORMAT " is not what was stored (%s): the guest gets an I/O error for it", engine->options.name,
               io->first + i, storage_description (engine->storage));
}

static void
open_page (FarEngine *engine, FarIo *io, guint64 i, const struct far_page *page, const guint8 *bytes) {
  if (!engine_open_page (engine, io, i, page, bytes))
    say_damaged (engine, io, i);
}

/* ---- reads of storage ---- */

static void read_done (StorageIo *storage, int error);
static void end_read (FarEngine *engine, FarIo *io);

void
engine_reads_init (FarEngine *engine) {
  for (guint i = 0; i < ENGINE_READS_MAX; i++) {
    FarRead *read = &engine->reads[i];

    read->engine = engine;
    read->storage.done = read_done;
    read->next_free = engine->free_reads;
    engine->free_reads = read;
  }
}

void
engine_reads_clear (FarEngine *engine) {
  for (guint i = 0; i < ENGINE_READS_MAX; i++)
    g_clear_pointer (&engine->reads[i].buf, g_aligned_free);
}

void
engine_reads_forget (FarEngine *engine, FarIo *io) {
  for (guint i = 0; i < ENGINE_READS_MAX; i++)
    if (engine->reads[i].io == io)
      engine->reads[i].io = NULL;
}

/* Where the sectors of a page begin and end, in its segment. */
static uint32_t
cover_begin (const struct far_page *page) {
  return page->offset & ~(STORAGE_ALIGN - 1);
}

static uint32_t
cover_end (const struct far_page *page) {
  return (page->offset + page->bytes + STORAGE_ALIGN - 1) & ~(STORAGE_ALIGN - 1);
}

void
engine_span_begin (FarSpan *span, const struct far_page *page) {
  *span = (FarSpan){ page->segment, cover_begin (page), cover_end (page) };
}

gboolean
engine_span_add (FarSpan *span, const struct far_page *page) {
  if ((page->kind != FAR_RAW && page->kind != FAR_PACKED) || page->segment != span->segment || cover_begin (page) > span->end
      || page->offset < span->begin || cover_end (page) - span->begin > ENGINE_READ_BYTES_MAX)
    return FALSE;
  span->end = MAX (span->end, cover_end (page));
  return TRUE;
}

FarRead *
engine_reads_take (FarEngine *engine) {
  FarRead *read = engine->free_reads;

  if (read)
    engine->free_reads = read->next_free;
  return read;
}

static void
give_back (FarEngine *engine, FarRead *read) {
  read->io = NULL;
  read->next_free = engine->free_reads;
  engine->free_reads = read;
}

/* Begins to read page i of io, which is in storage, and those behind it that lie behind it there, too. Returns how many that are. 0: there
 * is no buffer now. */
static guint64
begin_read (FarEngine *engine, FarIo *io, guint64 i, const struct far_page *first, uint32_t place) {
  FarRead *read = engine_reads_take (engine);
  struct far_page page;
  FarSpan span;

  if (!read)
    return 0;
  if (!read->buf)
    read->buf = g_aligned_alloc (1, ENGINE_READ_BYTES_MAX, STORAGE_ALIGN);
  read->io = io;
  read->first = i;
  engine_span_begin (&span, first);
  read->segment = span.segment;
  read->offset = span.begin;
  read->versions[0] = first->version;
  read->offsets[0] = first->offset;
  read->finished = 0;
  for (read->n = 1; read->n < ENGINE_READ_PAGES_MAX && i + read->n < io->n; read->n++) {
    const guint64 number = io->first + i + read->n;

    far_store_get (engine->store, (uint32_t)number, &page);
    if ((engine->ahead && engine_ahead_has (engine, number, page.version)) || !engine_span_add (&span, &page))
      break;
    read->versions[read->n] = page.version;
    read->offsets[read->n] = page.offset;
  }
  read->storage.is_write = FALSE;
  read->storage.buf = read->buf;
  read->storage.offset = (guint64)place * FAR_SEGMENT_BYTES + read->offset;
  read->storage.bytes = span.end - span.begin;
  engine->reads_under_way++;
  io->under_way++;
  storage_submit (engine->storage, &read->storage);
  engine->kick_wanted = TRUE;
  return read->n;
}

/* Reads page i, wherever it is, and if it is in storage some behind it. Returns how many are done or under way; 0: not now. */
static guint64
read_some (FarEngine *engine, FarIo *io, guint64 i) {
  struct far_page page;
  struct far_segment segment;

  far_store_get (engine->store, (uint32_t)(io->first + i), &page);
  switch (page.kind) {
  case FAR_NONE:
    put_page (io, i, 0);
    return 1;
  case FAR_SAME:
    put_page (io, i, page.value);
    return 1;
  case FAR_RAW:
  case FAR_PACKED:
    break;
  case FAR_LOST:
  default:
    io->failed = TRUE;
    return 1;
  }
  far_store_segment (engine->store, page.segment, &segment);
  if (segment.slot < 0) {
    const guint64 n = engine->ahead ? engine_ahead_read (engine, io, i, &page) : 0;

    return n ? n : begin_read (engine, io, i, &page, segment.place);
  }
  open_page (engine, io, i, &page, engine->stage + (gsize)segment.slot * FAR_SEGMENT_BYTES + page.offset);
  engine->figures.read_from_stage++;
  return 1;
}

void
engine_read (FarEngine *engine, FarIo *io) {
  guint64 first = io->next;

  /* under_way keeps it from being answered before all of it was looked at. */
  io->under_way++;
  while (io->next < io->n) {
    const guint64 n = read_some (engine, io, io->next);

    if (n == 0)
      break;
    io->next += n;
  }
  engine->figures.read_pages += io->next - first;
  io->under_way--;
  if (io->next < io->n)
    engine_queue_push (&engine->reads_waiting, io);
  end_read (engine, io);
}

static void
end_read (FarEngine *engine, FarIo *io) {
  if (io->under_way || io->queued)
    return;
  if (io->again && !io->failed) { /* all of it: that is rare, and simple */
    io->again = FALSE;
    io->next = 0;
    engine_read (engine, io);
  } else {
    engine_done (engine, io, !io->failed);
  }
}

/* A page whose bytes came from storage, if they are still its bytes. FALSE: they are damaged, and another copy is asked. */
static gboolean
finish_page (FarEngine *engine, FarRead *read, unsigned k) {
  FarIo *io = read->io;
  const guint64 i = read->first + k;
  struct far_page page;
  struct far_segment segment;

  far_store_get (engine->store, (uint32_t)(io->first + i), &page);
  if (page.kind != FAR_RAW && page.kind != FAR_PACKED) {
    read_some (engine, io, i); /* discarded meanwhile, or written: at once */
  } else if (page.version == read->versions[k] && page.segment == read->segment && page.offset == read->offsets[k]) {
    const guint8 *bytes = read->buf + (page.offset - read->offset);

    if (engine_open_page (engine, io, i, &page, bytes)) {
      engine->figures.read_from_storage++;
    } else if (storage_read_again (engine->storage, &read->storage)) {
      engine->kick_wanted = TRUE;
      return FALSE;
    } else {
      say_damaged (engine, io, i);
    }
  } else {
    /* Written or moved meanwhile: into the stage as a rule. A slow read may even find that it was moved twice, and is in the same segment again. */
    far_store_segment (engine->store, page.segment, &segment);
    if (segment.slot >= 0)
      read_some (engine, io, i);
    else
      io->again = TRUE;
  }
  read->finished |= 1ull << k;
  return TRUE;
}

static void
read_done (StorageIo *storage, int error) {
  FarRead *read = (FarRead *)storage;
  FarEngine *engine = read->engine;
  FarIo *io = read->io;

  engine->figures.storage_read_bytes += storage->bytes;
  if (error) {
    engine->figures.storage_errors++;
    if (log_limit_pass (&engine->log_limit))
      g_warning ("%s: %s: reading %zu bytes at %" G_GUINT64_FORMAT ": %s", engine->options.name, storage_description (engine->storage),
                 storage->bytes, storage->offset, g_strerror (error));
    if (io)
      io->failed = TRUE;
  } else if (io) {
    for (unsigned k = 0; k < read->n; k++)
      if (!(read->finished >> k & 1) && !finish_page (engine, read, k)) {
        far_engine_kick (engine);
        return; /* it is under way again, for this page and those behind it */
      }
  }
  engine->reads_under_way--;
  give_back (engine, read);
  if (io) {
    io->under_way--;
    end_read (engine, io);
  }
  engine_reads_go_on (engine);
  far_engine_kick (engine);
}

void
engine_reads_came (FarEngine *engine, FarRead *waiter) {
  FarIo *io = waiter->io;
  guint64 i = waiter->first;
  const guint64 end = i + waiter->n;

  give_back (engine, waiter);
  if (!io)
    return;
  while (i < end) {
    const guint64 n = read_some (engine, io, i);

    if (n == 0) { /* it was not there after all, and there is no buffer */
      io->again = TRUE;
      break;
    }
    i += n;
  }
  io->under_way--;
  end_read (engine, io);
}

void
engine_reads_go_on (FarEngine *engine) {
  FarIo *io;

  while (engine->free_reads && (io = engine_queue_pop (&engine->reads_waiting)))
    engine_read (engine, io);
}
