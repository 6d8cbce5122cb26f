/* SPDX-License-Identifier: GPL-2.0-or-later */
/* From the stage to storage, and back for what is worth keeping: writing out, more places, cleaning. */
#include "far/engine-internal.h"
#include "io/error.h"
#include "core/wear.h"

#include "core/crash-point.h"

#include <string.h>
#include <sys/mman.h>

/* Places that are backed by storage at a time: 32 MiB. */
#define COVER_PLACES 16u
/* After an error of storage: the next try is later each time. */
#define RETRY_FIRST_MS 100u
#define RETRY_MAX_MS 10000u
/* Segments on their way at a time: enough for any disk to be busy, few enough that reads are not behind a long row. */
#define WRITES_MAX 4u
/* Without writes for so long, what the stage holds no more is given back to the host. */
#define TRIM_MS 2000u

/* ---- writing out ---- */

static gboolean
on_retry (gpointer data) {
  FarEngine *engine = data;

  source_clear (&engine->retry_source);
  far_engine_kick (engine);
  return G_SOURCE_REMOVE;
}

static void
retry_later (FarEngine *engine) {
  if (engine->retry_source)
    return;
  engine->retry_ms = engine->retry_ms ? MIN (engine->retry_ms * 2, RETRY_MAX_MS) : RETRY_FIRST_MS;
  engine->retry_source = source_timeout (engine->retry_ms, on_retry, engine);
}

static gboolean
on_trim (gpointer data) {
  FarEngine *engine = data;

  if (g_get_monotonic_time () - engine->last_write < TRIM_MS * 1000 || engine->slots_under_way)
    return G_SOURCE_CONTINUE;
  source_clear (&engine->trim_source);
  for (guint slot = 0; slot < engine->options.geometry.n_stage_slots; slot++)
    if (far_store_slot_is_free (engine->store, slot))
      madvise (engine->stage + (gsize)slot * FAR_SEGMENT_BYTES, FAR_SEGMENT_BYTES, MADV_REMOVE);
  return G_SOURCE_REMOVE;
}

static void
segment_written (StorageIo *storage, int error) {
  FarEngine *engine = storage->data;
  const uint32_t segment = engine->slot_segments[storage - engine->slot_ios];

  engine->slots_under_way--;
  CRASH_POINT ("engine-written");
  if (error == 0) {
    engine->figures.storage_written_bytes += storage->bytes;
    engine->retry_ms = 0;
    far_store_written (engine->store, segment);
    if (!engine->trim_source)
      engine->trim_source = source_timeout (TRIM_MS, on_trim, engine);
  } else {
    const gboolean elsewhere = far_store_not_written (engine->store, segment);

    engine->figures.storage_errors++;
    if (log_limit_pass (&engine->log_limit))
      g_warning ("%s: %s: writing %zu bytes at %" G_GUINT64_FORMAT ": %s; %s", engine->options.name,
                 storage_description (engine->storage), storage->bytes, storage->offset, g_strerror (error),
                 elsewhere ? "they go to another place" : "there is no other place: they are kept in memory, and tried again");
    retry_later (engine);
  }
  engine_writes_go_on (engine);
  far_engine_kick (engine);
}

/* ---- the wear budget ---- */

/* The bucket may be looked at again so much later at the latest. */
#define WEAR_WAIT_MAX_MS 60000u
/* With copies, a donor that takes it may come before that. */
#define COPIES_WAIT_MAX_MS 1000u

static gboolean
on_wear (gpointer data) {
  FarEngine *engine = data;

  source_clear (&engine->wear_source);
  far_engine_kick (engine);
  return G_SOURCE_REMOVE;
}

static void
hold_no_more (FarEngine *engine) {
  source_clear (&engine->wear_source);
  if (engine->held_since)
    engine->figures.held_us += (guint64)(g_get_monotonic_time () - engine->held_since);
  engine->held_since = 0;
}

/* Whether the stage has so much room that what is in it can stay there: what the guest overwrites or frees meanwhile is never
 * written. Only where there is a budget, for it costs memory. */
static gboolean
can_stay (FarEngine *engine) {
  struct far_figures figures;

  if (engine->options.wear_day_bytes == 0 || engine->writes_waiting.head)
    return FALSE;
  far_store_figures (engine->store, &figures);
  return figures.slots_free > figures.slots / 2;
}

/* Takes what writing so many bytes costs, where storage with copies does not do that itself. FALSE: later. */
static gboolean
spend (FarEngine *engine, guint32 bytes) {
  const guint64 day = engine->options.wear_day_bytes, full_at = far_store_wear_full_at (engine->store);
  const gint64 now = g_get_monotonic_time ();
  guint64 wait;

  if (day == 0 || !storage_wears (engine->storage, (guint64)far_store_next_write_place (engine->store) * FAR_SEGMENT_BYTES))
    return TRUE;
  wait = engine->hurry ? 0 : wear_wait_us (day, full_at, (guint64)now, bytes);
  if (wait == 0 && storage_has_copies (engine->storage))
    return TRUE;
  if (wait == 0) {
    far_store_set_wear_full_at (engine->store, wear_spend (day, full_at, (guint64)now, bytes));
    CRASH_POINT ("engine-spent");
    return TRUE;
  }
  if (!engine->held_since)
    engine->held_since = now;
  if (!engine->wear_source)
    engine->wear_source = source_timeout ((guint)MIN (wait / 1000 + 1, storage_has_copies (engine->storage) ? COPIES_WAIT_MAX_MS : WEAR_WAIT_MAX_MS),
                                           on_wear, engine);
  return FALSE;
}

/* The next segment that may be written now. */
static gboolean
next_write (FarEngine *engine, struct far_write *ret_write) {
  const guint32 bytes = far_store_next_write_bytes (engine->store);
  gboolean ok;

  if (bytes == 0 || can_stay (engine)) {
    hold_no_more (engine);
    return FALSE;
  }
  ok = spend (engine, bytes);
  if (ok)
    hold_no_more (engine);
  return ok && far_store_next_write (engine->store, ret_write);
}

void
engine_wear_figures (FarEngine *engine, FarEngineFigures *ret_figures) {
  const guint64 day = engine->options.wear_day_bytes, now = (guint64)g_get_monotonic_time ();
  guint64 full_at;

  if (day == 0)
    return;
  full_at = far_store_wear_full_at (engine->store);
  ret_figures->wear_day_bytes = day;
  ret_figures->wear_burst_bytes = wear_burst_bytes (day);
  ret_figures->wear_left_bytes = wear_left (day, full_at, now);
  if (!engine->held_since)
    return;
  ret_figures->held = TRUE;
  ret_figures->held_us += now - (guint64)engine->held_since;
  ret_figures->held_wait_us = wear_wait_us (day, full_at, now, far_store_next_write_bytes (engine->store));
}

/* ---- writes begin ---- */

static void
write_out (FarEngine *engine) {
  struct far_write write;

  while (engine->settled && !engine->retry_source && engine->slots_under_way < WRITES_MAX && next_write (engine, &write)) {
    StorageIo *io = &engine->slot_ios[write.slot];

    CRASH_POINT ("engine-writes");
    io->is_write = TRUE;
    io->offset = (guint64)write.place * FAR_SEGMENT_BYTES;
    io->buf = engine->stage + (gsize)write.slot * FAR_SEGMENT_BYTES;
    io->bytes = write.bytes;
    io->done = segment_written;
    io->data = engine;
    engine->slot_segments[write.slot] = write.segment;
    engine->slots_under_way++;
    storage_submit (engine->storage, io);
    engine->kick_wanted = TRUE;
  }
}

/* ---- more places ---- */

gboolean
engine_cover_more (FarEngine *engine) {
  g_autoptr (GError) error = NULL;
  struct far_figures before, after;
  struct far_places places;

  far_store_figures (engine->store, &before);
  /* What the process before has given back may be on its way still, until storage is settled. */
  if (!far_store_next_uncovered (engine->store, COVER_PLACES, !engine->settled, &places))
    return FALSE;
  /* The last of a file system's space comes in smaller pieces. */
  while (places.n
         && !storage_allocate (engine->storage, (guint64)places.place * FAR_SEGMENT_BYTES, (guint64)places.n * FAR_SEGMENT_BYTES,
                               places.n == 1 ? &error : NULL))
    places.n /= 2;
  if (places.n == 0) {
    if (error && !engine->full_logged) {
      g_warning ("%s: %s; the disk goes on with what it has", engine->options.name, error->message);
      engine->full_logged = TRUE;
    }
    return FALSE;
  }
  engine->full_logged = FALSE;
  far_store_cover_places (engine->store, &places);
  far_store_figures (engine->store, &after);
  if (after.given < before.given)
    engine_spare_regret (engine);
  return TRUE;
}

/* ---- cleaning ---- */

/* Appends what still lives of the segment that was read. */
static void
move_pages (FarEngine *engine) {
  Cleaner *cleaner = &engine->cleaner;
  struct far_change changes[FAR_COMMIT_MAX];
  gboolean full = FALSE;

  while (cleaner->next < cleaner->n_pages && !full) {
    unsigned n = 0;

    for (; cleaner->next < cleaner->n_pages && n < FAR_COMMIT_MAX; cleaner->next++) {
      const CleanPage *was = &cleaner->pages[cleaner->next];
      struct far_page *page = &changes[n].now;
      struct far_spot spot;

      far_store_get (engine->store, was->page, page);
      if ((page->kind != FAR_RAW && page->kind != FAR_PACKED) || page->segment != cleaner->segment || page->version != was->version)
        continue; /* it is somewhere else by now */
      full = far_store_place (engine->store, FAR_CLASS_CLEANED, page->bytes, &spot) != FAR_ROOM;
      if (full)
        break;
      memcpy (engine->stage + (gsize)spot.slot * FAR_SEGMENT_BYTES + spot.offset, cleaner->buf + page->offset, page->bytes);
      page->segment = spot.segment;
      page->offset = spot.offset;
      changes[n++].page = was->page;
    }
    CRASH_POINT ("engine-moved");
    if (n)
      far_store_commit (engine->store, changes, n);
    engine->figures.cleaned_pages += n;
  }
  if (full)
    return; /* goes on when a slot has become free */
  cleaner->moving = FALSE;
  engine_writes_go_on (engine);
}

/* What is moved is not opened: where there are other copies, a damaged one must not take their place. FALSE: another one is read. */
static gboolean
is_sound (FarEngine *engine, StorageIo *storage) {
  const Cleaner *cleaner = &engine->cleaner;

  if (!storage_has_copies (engine->storage))
    return TRUE;
  for (unsigned i = 0; i < cleaner->n_pages; i++) {
    const CleanPage *was = &cleaner->pages[i];
    struct far_page page;

    far_store_get (engine->store, was->page, &page);
    if ((page.kind == FAR_RAW || page.kind == FAR_PACKED) && page.segment == cleaner->segment && page.version == was->version
        && !engine_page_is_good (engine, was->page, &page, cleaner->buf + page.offset))
      return !storage_read_again (engine->storage, storage);
  }
  return TRUE;
}

static void
victim_read (StorageIo *storage, int error) {
  FarEngine *engine = storage->data;
  Cleaner *cleaner = &engine->cleaner;

  if (!error && !is_sound (engine, storage)) {
    engine->kick_wanted = TRUE;
    far_engine_kick (engine);
    return;
  }
  cleaner->reading = FALSE;
  if (error) {
    engine->figures.storage_errors++;
    if (log_limit_pass (&engine->log_limit))
      g_warning ("%s: %s: cleaning: reading %zu bytes at %" G_GUINT64_FORMAT ": %s", engine->options.name,
                 storage_description (engine->storage), storage->bytes, storage->offset, g_strerror (error));
    far_store_spare_victim (engine->store, cleaner->segment);
    retry_later (engine);
  } else {
    engine->figures.storage_read_bytes += storage->bytes;
    cleaner->moving = TRUE;
  }
  far_engine_kick (engine);
}

static void
begin_cleaning (FarEngine *engine, uint32_t victim) {
  Cleaner *cleaner = &engine->cleaner;
  const unsigned cap = FAR_SEGMENT_BYTES / FAR_UNIT_BYTES;
  struct far_segment segment;
  g_autofree uint32_t *pages = NULL;

  cleaner->segment = victim;
  if (!cleaner->buf) {
    cleaner->buf = g_aligned_alloc (1, FAR_SEGMENT_BYTES, STORAGE_ALIGN);
    cleaner->pages = g_new (CleanPage, cap);
  }
  pages = g_new (uint32_t, cap);
  cleaner->n_pages = far_store_pages_of (engine->store, cleaner->segment, pages, cap);
  cleaner->next = 0;
  for (unsigned i = 0; i < cleaner->n_pages; i++) {
    struct far_page page;

    far_store_get (engine->store, pages[i], &page);
    cleaner->pages[i] = (CleanPage){ pages[i], page.version };
  }
  far_store_segment (engine->store, cleaner->segment, &segment);
  cleaner->storage.is_write = FALSE;
  cleaner->storage.ahead = TRUE;
  cleaner->storage.offset = (guint64)segment.place * FAR_SEGMENT_BYTES;
  cleaner->storage.buf = cleaner->buf;
  cleaner->storage.bytes = FAR_SEGMENT_BYTES;
  cleaner->storage.done = victim_read;
  cleaner->storage.data = engine;
  cleaner->reading = TRUE;
  storage_submit (engine->storage, &cleaner->storage);
  engine->kick_wanted = TRUE;
}

/* The segment to clean now, if any. With a budget, as late as can be: what waits has more garbage then, and costs less. */
static gboolean
find_victim (FarEngine *engine, uint32_t *ret_segment) {
  bool urgent;

  if (far_store_wants_cleaning (engine->store, &urgent) && (urgent || engine->options.wear_day_bytes == 0))
    return far_store_victim (engine->store, ret_segment);
  return engine_spare_victim (engine, ret_segment);
}

static void
clean (FarEngine *engine) {
  Cleaner *cleaner = &engine->cleaner;
  uint32_t victim;

  if (cleaner->moving)
    move_pages (engine);
  if (!cleaner->moving && !cleaner->reading && engine->settled && !engine->retry_source && find_victim (engine, &victim))
    begin_cleaning (engine, victim);
}

gboolean
engine_can_clean (FarEngine *engine) {
  uint32_t segment;

  return engine->cleaner.reading || engine->cleaner.moving || engine->slots_under_way || !engine->settled || engine->retry_source
         || far_store_next_write_bytes (engine->store)
         || far_store_victim (engine->store, &segment);
}

/* ---- all of it ---- */

void
engine_stage_pump (FarEngine *engine) {
  clean (engine);
  write_out (engine);
}

void
engine_stage_init (FarEngine *engine) {
  engine->slot_ios = g_new0 (StorageIo, engine->options.geometry.n_stage_slots);
  engine->slot_segments = g_new0 (uint32_t, engine->options.geometry.n_stage_slots);
}

void
engine_stage_clear (FarEngine *engine) {
  source_clear (&engine->retry_source);
  source_clear (&engine->trim_source);
  source_clear (&engine->wear_source);
}

void
engine_stage_free (FarEngine *engine) {
  g_free (engine->slot_ios);
  g_free (engine->slot_segments);
  g_clear_pointer (&engine->cleaner.buf, g_aligned_free);
  g_free (engine->cleaner.pages);
}
