/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Giving storage back that the disk does not need any more (core/far-spare.h says what and when): places are taken out of use
 * in the page store, then discarded; and, while nobody asks for anything, segments with many gaps are tidied, so that places
 * become free.
 *
 * No timer runs when there is nothing to give back.
 */
#include "core/crash-point.h"
#include "core/wear.h"
#include "far/engine-internal.h"

/* Tidying begins after this part of a window without any request, and ends with the next one. */
#define QUIET_PART 4u
/* Rows of places that are discarded at a turn, and the time between turns: each may be a system call. */
#define ROWS_PER_TURN 64u
#define TURN_US 10000u
/* A discard may take long; what is read or written there waits for it. */
#define ROW_PLACES_MAX 128u
/* When the wear budget leaves nothing for tidying: later. */
#define WEAR_AGAIN_US (60 * (guint64)G_USEC_PER_SEC)

static gboolean on_spare (gpointer data);

static void
discard (FarEngine *engine, const struct far_places *places) {
  storage_discard (engine->storage, (guint64)places->place * FAR_SEGMENT_BYTES, (guint64)places->n * FAR_SEGMENT_BYTES);
  engine->kick_wanted = TRUE;
}

/* What the process before has taken out of use: nobody knows whether storage was told. */
static void
give_again (FarEngine *engine) {
  struct far_places places;

  for (guint i = 0; engine->give_again && i < ROWS_PER_TURN; i++) {
    engine->give_again = far_store_given (engine->store, engine->give_again_from, ROW_PLACES_MAX, &places);
    if (!engine->give_again)
      return;
    discard (engine, &places);
    engine->give_again_from = places.segment + places.n;
  }
}

static void
give (FarEngine *engine) {
  struct far_places places;

  for (guint i = 0; engine->to_give && i < ROWS_PER_TURN; i++) {
    if (!far_store_give_back (engine->store, MIN (engine->to_give, ROW_PLACES_MAX), &places)) {
      engine->to_give = 0;
      return;
    }
    CRASH_POINT ("engine-given");
    discard (engine, &places);
    engine->to_give -= places.n;
    engine->figures.given_back_places += places.n;
  }
}

/* ---- when ---- */

/* Tidying is worth something, and its writes are not at the guest's cost. */
static gboolean
wants_tidying (FarEngine *engine, const struct far_figures *figures) {
  uint32_t segment;

  return far_spare_wants_tidying (&engine->spare, figures)
         && far_store_victim_with (engine->store, FAR_SPARE_TIDY_BYTES, &segment);
}

static gboolean
may_write (const FarEngine *engine, gint64 now) {
  const guint64 day = engine->options.wear_day_bytes;

  return day == 0 || wear_left (day, far_store_wear_full_at (engine->store), (guint64)now) >= wear_burst_bytes (day) / 2;
}

/* Until it makes sense to look again; 0: it does not, until something happens. */
static guint64
wait_us (FarEngine *engine, const struct far_figures *figures, gint64 now) {
  guint64 wait, until_tidy;

  if (engine->to_give || engine->give_again)
    return TURN_US;
  wait = far_spare_wait_us (&engine->spare, (guint64)now);
  if (engine->tidying || !wants_tidying (engine, figures))
    return wait;
  until_tidy = (guint64)(now - engine->last_request) < engine->spare.window_us / QUIET_PART
                   ? engine->spare.window_us / QUIET_PART - (guint64)(now - engine->last_request)
               : may_write (engine, now) ? 1
                                         : WEAR_AGAIN_US;
  return wait ? MIN (wait, until_tidy) : until_tidy;
}

static void
look (FarEngine *engine, gint64 now) {
  struct far_figures figures;
  guint64 wait;

  far_store_figures (engine->store, &figures);
  if (!engine->to_give)
    engine->to_give
        = far_spare_give (&engine->spare, &figures, far_store_fewest_free (engine->store), engine->level, (guint64)now);
  wait = wait_us (engine, &figures, now);
  if (wait)
    engine->spare_source = source_timeout ((guint)MIN (wait / 1000 + 1, G_MAXINT), on_spare, engine);
}

static gboolean
on_spare (gpointer data) {
  FarEngine *engine = data;
  const gint64 now = g_get_monotonic_time ();
  struct far_figures figures;

  source_clear (&engine->spare_source);
  give_again (engine);
  give (engine);
  far_store_figures (engine->store, &figures);
  engine->tidying = (guint64)(now - engine->last_request) >= engine->spare.window_us / QUIET_PART && may_write (engine, now)
                    && wants_tidying (engine, &figures);
  look (engine, now);
  far_engine_kick (engine);
  return G_SOURCE_REMOVE;
}

/* ---- for the other files ---- */

gboolean
engine_spare_victim (FarEngine *engine, uint32_t *ret_segment) {
  struct far_figures figures;

  if (!engine->tidying)
    return FALSE;
  far_store_figures (engine->store, &figures);
  engine->tidying = may_write (engine, g_get_monotonic_time ()) && far_spare_wants_tidying (&engine->spare, &figures)
                    && far_store_victim_with (engine->store, FAR_SPARE_TIDY_BYTES, ret_segment);
  return engine->tidying;
}

void
engine_spare_pump (FarEngine *engine) {
  if (engine->settled && engine->spare.window_us && !engine->spare_source)
    look (engine, g_get_monotonic_time ());
}

void
engine_spare_regret (FarEngine *engine) {
  far_spare_regret (&engine->spare, (guint64)g_get_monotonic_time ());
}

void
engine_spare_init (FarEngine *engine) {
  struct far_figures figures;

  far_store_figures (engine->store, &figures);
  engine->spare.window_us = engine->options.give_back_us;
  engine->give_again = figures.given > 0;
  engine->last_request = g_get_monotonic_time ();
}

void
engine_spare_clear (FarEngine *engine) {
  source_clear (&engine->spare_source);
}
