/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What storage with copies wants to know of the engine: whether what it reads is what was sealed, and what it may write. */
#include "core/crash-point.h"
#include "core/wear.h"
#include "far/engine-internal.h"

/* The pages that live in that place's segment, in owner_pages. */
static unsigned
find_pages (FarEngine *engine, guint64 offset) {
  struct far_segment segment;
  uint32_t number;

  if (!far_store_segment_at (engine->store, (uint32_t)(offset / FAR_SEGMENT_BYTES), &number))
    return 0;
  far_store_segment (engine->store, number, &segment);
  if (segment.slot >= 0)
    return 0; /* what is there is nobody's any more, or will be written again */
  if (!engine->owner_pages)
    engine->owner_pages = g_new (uint32_t, FAR_SEGMENT_BYTES / FAR_UNIT_BYTES);
  return far_store_pages_of (engine->store, number, engine->owner_pages, FAR_SEGMENT_BYTES / FAR_UNIT_BYTES);
}

static gboolean
is_wanted (gpointer data, guint64 offset) {
  return find_pages (data, offset) > 0;
}

static gboolean
is_sound (gpointer data, guint64 offset, const guint8 *buf, gsize from, gsize to) {
  FarEngine *engine = data;
  const unsigned n = find_pages (engine, offset);

  for (unsigned i = 0; i < n; i++) {
    struct far_page page;

    far_store_get (engine->store, engine->owner_pages[i], &page);
    if (page.offset >= from && page.offset < to
        && !engine_page_is_good (engine, engine->owner_pages[i], &page, buf + page.offset))
      return FALSE;
  }
  return TRUE;
}

/* Copies that had to be made leave no debt: who waits for room in the stage would pay it, for hours. */
static void
spend (gpointer data, gsize bytes) {
  FarEngine *engine = data;
  const guint64 day = engine->options.wear_day_bytes, now = (guint64)g_get_monotonic_time ();

  if (day == 0)
    return;
  far_store_set_wear_full_at (engine->store, wear_spend_left (day, far_store_wear_full_at (engine->store), now, bytes));
  CRASH_POINT ("engine-spent");
}

static guint64
spend_wait_us (gpointer data, gsize bytes) {
  FarEngine *engine = data;
  const guint64 day = engine->options.wear_day_bytes, now = (guint64)g_get_monotonic_time ();

  return day == 0 || engine->hurry ? 0 : wear_wait_us (day, far_store_wear_full_at (engine->store), now, bytes);
}

void
engine_owner_init (FarEngine *engine) {
  static const StorageOwner owner = { .is_sound = is_sound, .is_wanted = is_wanted, .spend = spend, .spend_wait_us = spend_wait_us };

  if (storage_has_copies (engine->storage))
    storage_set_owner (engine->storage, &owner, engine);
}
