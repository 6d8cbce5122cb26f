/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "far/engine-internal.h"
#include "far/latency.h"
#include "io/error.h"

/* ---- requests ---- */

void
engine_queue_push (FarIoQueue *queue, FarIo *io) {
  io->next_waiting = NULL;
  io->queued = TRUE;
  *queue->tail = io;
  queue->tail = &io->next_waiting;
  queue->n++;
}

FarIo *
engine_queue_pop (FarIoQueue *queue) {
  FarIo *io = queue->head;

  if (!io)
    return NULL;
  queue->head = io->next_waiting;
  if (!queue->head)
    queue->tail = &queue->head;
  io->queued = FALSE;
  queue->n--;
  return io;
}

static gboolean
queue_remove (FarIoQueue *queue, FarIo *io) {
  for (FarIo **p = &queue->head; *p; p = &(*p)->next_waiting) {
    if (*p != io)
      continue;
    *p = io->next_waiting;
    if (!*p)
      queue->tail = p;
    io->queued = FALSE;
    queue->n--;
    return TRUE;
  }
  return FALSE;
}

void
engine_done (FarEngine *engine, FarIo *io, gboolean ok) {
  const guint bucket = latency_bucket (g_get_monotonic_time () - io->began);

  if (io->operation == BLK_READ)
    engine->figures.read_latency[bucket]++;
  else if (io->operation == BLK_WRITE)
    engine->figures.write_latency[bucket]++;
  engine->figures.refused += !ok;
  io->done (io, ok);
}

/* ---- discards ---- */

/* So many pages at a turn: some 10 ms. */
#define DISCARD_PAGES_PER_TURN 32768u

/* TRUE: it is done. */
static gboolean
discard_some (FarEngine *engine, FarIo *io) {
  io->next += far_store_discard (engine->store, io->first + io->next, io->n - io->next, DISCARD_PAGES_PER_TURN);
  return io->next == io->n;
}

static gboolean
on_discard (gpointer data) {
  FarEngine *engine = data;
  FarIo *io = engine->discards.head;

  if (io && discard_some (engine, io)) {
    engine_queue_pop (&engine->discards);
    engine_done (engine, io, TRUE);
    engine_writes_go_on (engine);
    far_engine_kick (engine);
  }
  if (engine->discards.head)
    return G_SOURCE_CONTINUE;
  source_clear (&engine->discard_source);
  return G_SOURCE_REMOVE;
}

static void
discard (FarEngine *engine, FarIo *io) {
  if (!engine->discards.head && discard_some (engine, io)) {
    engine_done (engine, io, TRUE);
    engine_writes_go_on (engine);
    return;
  }
  engine_queue_push (&engine->discards, io);
  if (!engine->discard_source) {
    engine->discard_source = g_idle_source_new ();
    g_source_set_priority (engine->discard_source, G_PRIORITY_DEFAULT);
    g_source_set_callback (engine->discard_source, on_discard, engine, NULL);
    g_source_attach (engine->discard_source, g_main_context_get_thread_default ());
  }
}

/* ---- all of them ---- */

void
far_engine_start (FarEngine *engine, FarIo *io) {
  io->next = 0;
  io->under_way = 0;
  io->failed = io->queued = io->again = FALSE;
  io->began = engine->last_request = g_get_monotonic_time ();
  engine->tidying = FALSE;
  switch (io->operation) {
  case BLK_READ:
    engine->figures.reads++;
    engine_ahead_note (engine, io);
    engine_read (engine, io);
    break;
  case BLK_WRITE:
    engine->figures.writes++;
    engine->last_write = io->began;
    if (engine->writes_waiting.head || !engine_write (engine, io))
      engine_queue_push (&engine->writes_waiting, io);
    break;
  case BLK_DISCARD:
  case BLK_WRITE_ZEROES:
    engine->figures.discards++;
    discard (engine, io);
    break;
  default:
    engine_done (engine, io, io->operation == BLK_FLUSH);
  }
}

/* What storage does in no time (memory, a page cache) has ended by then, and its requests are answered in the same turn. */
void
far_engine_kick (FarEngine *engine) {
  engine->kick_again = TRUE;
  if (engine->kicking)
    return; /* the one that runs goes round again */
  engine->kicking = TRUE;
  while (engine->kick_again) {
    engine->kick_again = FALSE;
    engine_stage_pump (engine);
    engine_ahead_pump (engine);
    engine_spare_pump (engine);
    if (engine->kick_wanted) {
      engine->kick_wanted = FALSE;
      storage_kick (engine->storage);
      storage_reap (engine->storage);
    }
  }
  engine->kicking = FALSE;
  if (engine->room_changed)
    engine->room_changed (engine->room_data);
}

gboolean
far_engine_cover_more (FarEngine *engine) {
  if (!engine_cover_more (engine))
    return FALSE;
  engine_writes_go_on (engine); /* those that storage had no room for */
  far_engine_kick (engine);
  return TRUE;
}

void
far_engine_set_level (FarEngine *engine, guint64 blocks) {
  engine->level = blocks;
}

void
far_engine_on_room (FarEngine *engine, void (*changed) (gpointer data), gpointer data) {
  engine->room_changed = changed;
  engine->room_data = data;
}

void
far_engine_hurry (FarEngine *engine, gboolean hurry) {
  if (engine->hurry == hurry)
    return;
  engine->hurry = hurry;
  if (hurry)
    far_engine_kick (engine);
}

void
far_engine_forget (FarEngine *engine, FarIo *io) {
  if (!queue_remove (&engine->writes_waiting, io) && !queue_remove (&engine->reads_waiting, io))
    queue_remove (&engine->discards, io);
  engine_reads_forget (engine, io);
}

/* ---- life ---- */

static void
on_settled (gpointer data) {
  FarEngine *engine = data;

  engine->settled = TRUE;
  engine_writes_go_on (engine); /* those that need a place which was given back */
  far_engine_kick (engine);
}

FarEngine *
far_engine_new (const FarEngineOptions *options, void *state, gsize state_bytes, guint8 *stage, Storage *storage, Seal *seal,
                GError **error) {
  FarEngine *engine = g_new0 (FarEngine, 1);
  const char *why;

  engine->options = *options;
  engine->options.name = engine->name = g_strdup (options->name);
  engine->stage = stage;
  engine->storage = storage;
  engine->seal = seal;
  engine->writes_waiting.tail = &engine->writes_waiting.head;
  engine->reads_waiting.tail = &engine->reads_waiting.head;
  engine->discards.tail = &engine->discards.head;
  engine->store = far_store_open (state, state_bytes, &options->geometry, &why);
  if (!engine->store) {
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_CORRUPT, "%s: can't go on from the page store's state: %s", options->name, why);
    far_engine_free (engine);
    return NULL;
  }
  engine->scratch = g_aligned_alloc (2, FAR_PAGE_BYTES, FAR_PAGE_BYTES);
  engine_reads_init (engine);
  engine_ahead_init (engine);
  engine_stage_init (engine);
  engine_spare_init (engine);
  engine_owner_init (engine);
  storage_on_settled (storage, on_settled, engine);
  return engine;
}

void
far_engine_free (FarEngine *engine) {
  source_clear (&engine->discard_source);
  engine_spare_clear (engine);
  if (engine->store)
    engine_stage_clear (engine);
  engine_ahead_clear (engine);
  g_clear_pointer (&engine->storage, storage_free); /* ends what is under way */
  engine_reads_clear (engine);
  engine_ahead_free (engine);
  engine_stage_free (engine);
  g_clear_pointer (&engine->scratch, g_aligned_free);
  g_free (engine->owner_pages);
  g_clear_pointer (&engine->seal, seal_free);
  g_clear_pointer (&engine->store, far_store_close);
  g_free (engine->name);
  g_free (engine);
}

guint64
far_engine_n_pages (const FarEngine *engine) {
  return engine->options.geometry.n_pages;
}

guint64
far_engine_count_blocks (FarEngine *engine, guint64 first, guint64 n) {
  return far_store_count_blocks (engine->store, first, n);
}

void
far_engine_figures (FarEngine *engine, FarEngineFigures *ret_figures) {
  const FarIo *oldest = engine->writes_waiting.head;
  gint64 began = oldest ? oldest->began : G_MAXINT64;

  for (guint i = 0; i < ENGINE_READS_MAX; i++)
    if (engine->reads[i].io)
      began = MIN (began, engine->reads[i].io->began);
  *ret_figures = engine->figures;
  far_store_figures (engine->store, &ret_figures->store);
  engine_ahead_figures (engine, ret_figures);
  engine_wear_figures (engine, ret_figures);
  ret_figures->storage = storage_description (engine->storage);
  ret_figures->overhead_bytes = far_store_overhead_bytes (&engine->options.geometry);
  ret_figures->waiting = engine->writes_waiting.n + engine->reads_waiting.n;
  for (guint i = 0; i < ENGINE_READS_MAX; i++)
    ret_figures->waiting += engine->reads[i].io != NULL;
  ret_figures->oldest_wait_us = began == G_MAXINT64 ? 0 : (guint64)(g_get_monotonic_time () - began);
}
