/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reading ahead: what streams of reads will want (core/prefetch.h) comes from storage into a ring of memory (core/read-ahead.h)
 * before they ask. As it lies in storage, sealed: it is opened when it is wanted.
 *
 * Reads that are wanted go first: these here are submitted after them, a few at a time, and not while many of those are under
 * way. A page that is on its way already is waited for instead of being read again. Nothing here is believed: a page counts
 * while its version is the one in the page table, what is damaged is read again as if it had never been here, and an error
 * makes those who wait read for themselves.
 */
#include "far/engine-internal.h"

#include "core/prefetch.h"
#include "core/read-ahead.h"

#include <sys/mman.h>

/* Reads at a time, and their bytes: little enough that a read that is wanted is not long behind them. */
#define READS_MAX 16u
#define BYTES_MAX (1u << 20)
/* With more wanted ones under way, storage is busy enough. */
#define WANTED_MAX 8u
/* What is to be read when there is room for it; the oldest is forgotten for the newest. */
#define PLANS_MAX 512u
/* Nobody has read for so long: the memory is given back. */
#define IDLE_MS 10000u

G_STATIC_ASSERT (READ_AHEAD_ALIGN == STORAGE_ALIGN);

typedef struct AheadRead AheadRead;
struct AheadRead {
  StorageIo storage; /* first: what storage gives back is this */
  FarEngine *engine;
  AheadRead *next_free;
  FarRead *waiters;
  int chunk;
  unsigned n;
  uint32_t segment;
  struct read_ahead_page pages[ENGINE_READ_PAGES_MAX];
  uint32_t offsets[ENGINE_READ_PAGES_MAX]; /* in the segment */
};

struct FarAhead {
  struct prefetch streams;
  struct read_ahead *pages;
  guint8 *memory;
  gsize bytes;
  AheadRead reads[READS_MAX], *free_reads;
  gsize under_way; /* bytes */
  struct prefetch_range plans[PLANS_MAX];
  guint first_plan, n_plans;
  gint64 last_read;
  GSource *idle_source;
};

/* ---- what there is ---- */

guint64
engine_ahead_read (FarEngine *engine, FarIo *io, guint64 i, const struct far_page *page) {
  FarAhead *ahead = engine->ahead;
  const guint64 number = io->first + i;
  AheadRead *coming, *other;
  FarRead *waiter;
  gpointer owner;
  gsize at;

  switch (read_ahead_find (ahead->pages, number, page->version, &at, &owner)) {
  case READ_AHEAD_THERE:
    if (!engine_open_page (engine, io, i, page, ahead->memory + at)) {
      read_ahead_drop (ahead->pages, number);
      return 0;
    }
    if (read_ahead_use (ahead->pages, number))
      prefetch_used (&ahead->streams, 1);
    engine->figures.read_from_storage++;
    return 1;
  case READ_AHEAD_COMING:
    break;
  case READ_AHEAD_NONE:
  default:
    return 0;
  }
  coming = owner;
  waiter = engine_reads_take (engine);
  if (!waiter)
    return 0;
  waiter->io = io;
  waiter->first = i;
  for (waiter->n = 1; waiter->n < ENGINE_READ_PAGES_MAX && i + waiter->n < io->n; waiter->n++) {
    struct far_page next;

    far_store_get (engine->store, (uint32_t)(number + waiter->n), &next);
    if (read_ahead_find (ahead->pages, number + waiter->n, next.version, &at, &owner) != READ_AHEAD_COMING)
      break;
    other = owner;
    if (other != coming)
      break;
  }
  waiter->next_free = coming->waiters;
  coming->waiters = waiter;
  io->under_way++;
  return waiter->n;
}

gboolean
engine_ahead_has (const FarEngine *engine, guint64 number, guint64 version) {
  gpointer owner;
  gsize at;

  return read_ahead_find (engine->ahead->pages, number, version, &at, &owner) != READ_AHEAD_NONE;
}

/* ---- reads ---- */

static gboolean
on_idle (gpointer data) {
  FarEngine *engine = data;
  FarAhead *ahead = engine->ahead;
  struct read_ahead_figures figures;

  if (g_get_monotonic_time () - ahead->last_read < IDLE_MS * 1000 || ahead->under_way)
    return G_SOURCE_CONTINUE;
  read_ahead_drop_all (ahead->pages);
  read_ahead_get_figures (ahead->pages, &figures);
  if (figures.n_chunks)
    return G_SOURCE_CONTINUE;
  madvise (ahead->memory, ahead->bytes, MADV_DONTNEED);
  source_clear (&ahead->idle_source);
  return G_SOURCE_REMOVE;
}

/* What came is the page's only if it lies where it lay when the reading began: its place may have been somebody else's
 * meanwhile. */
static void
ahead_done (StorageIo *storage, int error) {
  AheadRead *read = (AheadRead *)storage;
  FarEngine *engine = read->engine;
  FarAhead *ahead = engine->ahead;
  bool good[ENGINE_READ_PAGES_MAX];
  FarRead *waiter = read->waiters;

  for (unsigned k = 0; k < read->n; k++) {
    struct far_page page;

    far_store_get (engine->store, (uint32_t)read->pages[k].page, &page);
    good[k] = error == 0 && page.version == read->pages[k].version && (page.kind == FAR_RAW || page.kind == FAR_PACKED)
              && page.segment == read->segment && page.offset == read->offsets[k];
  }
  read_ahead_end (ahead->pages, read->chunk, good);
  ahead->under_way -= storage->bytes;
  engine->figures.storage_read_bytes += storage->bytes;
  read->waiters = NULL;
  read->next_free = ahead->free_reads;
  ahead->free_reads = read;
  while (waiter) {
    FarRead *next = waiter->next_free;

    engine_reads_came (engine, waiter);
    waiter = next;
  }
  engine_reads_go_on (engine);
  far_engine_kick (engine);
}

/* Of pages [plan->first, + plan->n) those at the start that can be read at once; they are taken off the plan. FALSE: not now.
 */
static gboolean
begin (FarEngine *engine, struct prefetch_range *plan) {
  FarAhead *ahead = engine->ahead;
  AheadRead *read = ahead->free_reads;
  struct far_segment segment;
  FarSpan span = { 0 };
  gsize at;

  for (read->n = 0; plan->n && read->n < ENGINE_READ_PAGES_MAX; plan->first++, plan->n--) {
    struct far_page page;

    far_store_get (engine->store, (uint32_t)plan->first, &page);
    if (read->n == 0) {
      if (page.kind != FAR_RAW && page.kind != FAR_PACKED)
        continue;
      far_store_segment (engine->store, page.segment, &segment);
      if (segment.slot >= 0 || engine_ahead_has (engine, plan->first, page.version))
        continue;
      engine_span_begin (&span, &page);
    } else if (engine_ahead_has (engine, plan->first, page.version) || !engine_span_add (&span, &page)) {
      break;
    }
    read->pages[read->n] = (struct read_ahead_page){ plan->first, page.version, page.offset - span.begin };
    read->offsets[read->n++] = page.offset;
  }
  if (read->n == 0)
    return TRUE;
  read->segment = span.segment;
  read->chunk = read_ahead_begin (ahead->pages, read->pages, read->n, span.end - span.begin, plan->stream, read, &at);
  if (read->chunk < 0)
    return FALSE;
  ahead->free_reads = read->next_free;
  ahead->under_way += span.end - span.begin;
  read->storage.is_write = FALSE;
  read->storage.ahead = TRUE;
  read->storage.buf = ahead->memory + at;
  read->storage.offset = (guint64)segment.place * FAR_SEGMENT_BYTES + span.begin;
  read->storage.bytes = span.end - span.begin;
  storage_submit (engine->storage, &read->storage);
  engine->kick_wanted = TRUE;
  if (!ahead->idle_source)
    ahead->idle_source = source_timeout (IDLE_MS, on_idle, engine);
  return TRUE;
}

void
engine_ahead_pump (FarEngine *engine) {
  FarAhead *ahead = engine->ahead;

  if (!ahead)
    return;
  while (ahead->n_plans && ahead->free_reads && ahead->under_way < BYTES_MAX && !engine->reads_waiting.head
         && engine->reads_under_way <= WANTED_MAX) {
    struct prefetch_range *plan = &ahead->plans[ahead->first_plan];

    if (begin (engine, plan) && plan->n)
      continue;
    ahead->first_plan = (ahead->first_plan + 1) % PLANS_MAX;
    ahead->n_plans--;
  }
}

/* ---- plans ---- */

/* Somebody was faster. */
static void
trim_plans (FarAhead *ahead, guint64 first, guint64 end) {
  for (guint i = 0; i < ahead->n_plans; i++) {
    struct prefetch_range *plan = &ahead->plans[(ahead->first_plan + i) % PLANS_MAX];
    const guint64 plan_end = plan->first + plan->n;

    if (first <= plan->first && end > plan->first) {
      plan->first = MIN (end, plan_end);
      plan->n = (uint32_t)(plan_end - plan->first);
    } else if (first > plan->first && first < plan_end && end >= plan_end) {
      plan->n = (uint32_t)(first - plan->first);
    }
  }
}

void
engine_ahead_note (FarEngine *engine, const FarIo *io) {
  FarAhead *ahead = engine->ahead;
  struct prefetch_range ranges[PREFETCH_RANGES_MAX];
  unsigned n;

  if (!ahead)
    return;
  ahead->last_read = io->began;
  if (ahead->n_plans)
    trim_plans (ahead, io->first, io->first + io->n);
  n = prefetch_read (&ahead->streams, io->first, io->n, ranges, G_N_ELEMENTS (ranges));
  for (unsigned i = 0; i < n; i++) {
    if (ahead->n_plans == PLANS_MAX) {
      ahead->first_plan = (ahead->first_plan + 1) % PLANS_MAX;
      ahead->n_plans--;
    }
    ahead->plans[(ahead->first_plan + ahead->n_plans++) % PLANS_MAX] = ranges[i];
  }
}

/* ---- life ---- */

static void
on_dropped (void *data, uint32_t stream, uint32_t pages) {
  prefetch_wasted (&((FarAhead *)data)->streams, stream, pages);
}

void
engine_ahead_init (FarEngine *engine) {
  const gsize bytes = engine->options.prefetch_bytes & ~(gsize)(READ_AHEAD_ALIGN - 1);
  FarAhead *ahead;

  if (bytes == 0)
    return;
  ahead = engine->ahead = g_new0 (FarAhead, 1);
  ahead->bytes = bytes;
  ahead->pages = read_ahead_new (bytes, on_dropped, ahead);
  ahead->memory = mmap (NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (!ahead->pages || ahead->memory == MAP_FAILED) {
    g_warning ("%s: no memory to read ahead into", engine->options.name);
    if (ahead->memory == MAP_FAILED)
      ahead->memory = NULL;
    engine_ahead_free (engine);
    return;
  }
  /* one stream has a quarter at most, so that there is room for others, and for what it has not used yet */
  prefetch_init (&ahead->streams, engine->options.geometry.n_pages, (uint32_t)MAX (bytes / FAR_PAGE_BYTES / 4, 1));
  for (guint i = 0; i < READS_MAX; i++) {
    ahead->reads[i].engine = engine;
    ahead->reads[i].storage.done = ahead_done;
    ahead->reads[i].next_free = ahead->free_reads;
    ahead->free_reads = &ahead->reads[i];
  }
}

void
engine_ahead_clear (FarEngine *engine) {
  if (engine->ahead)
    source_clear (&engine->ahead->idle_source);
}

void
engine_ahead_free (FarEngine *engine) {
  FarAhead *ahead = engine->ahead;

  if (!ahead)
    return;
  if (ahead->memory)
    munmap (ahead->memory, ahead->bytes);
  read_ahead_free (ahead->pages);
  g_free (ahead);
  engine->ahead = NULL;
}

void
engine_ahead_figures (FarEngine *engine, FarEngineFigures *ret_figures) {
  struct read_ahead_figures figures = { 0 };

  if (engine->ahead)
    read_ahead_get_figures (engine->ahead->pages, &figures);
  ret_figures->prefetch_bytes = engine->ahead ? engine->ahead->bytes : 0;
  ret_figures->prefetched_pages = figures.pages;
  ret_figures->prefetch_used_pages = figures.used;
  ret_figures->prefetch_wasted_pages = figures.wasted;
}
