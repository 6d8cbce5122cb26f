/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Writes: sealed into the stage, committed, answered. */
#include "far/engine-internal.h"

#include "core/crash-point.h"

#include <string.h>

/* Pages whose entries are asked for before they are needed: a miss costs as much as a tenth of a seal. */
#define PREFETCH 4u

/* What became of one page. */
enum page_verdict { PAGE_PLACED, PAGE_NO_ROOM_NOW, PAGE_FAILED };

/* Finds room, making some if need be. */
static enum page_verdict
find_room (FarEngine *engine, enum far_class class, uint32_t bytes, struct far_spot *ret_spot) {
  for (;;) {
    switch (far_store_place (engine->store, class, bytes, ret_spot)) {
    case FAR_ROOM:
      return PAGE_PLACED;
    case FAR_ROOM_STAGE_FULL:
      return PAGE_NO_ROOM_NOW;
    case FAR_ROOM_NONE:
    default:
      if (engine_cover_more (engine))
        continue;
      return engine_can_clean (engine) ? PAGE_NO_ROOM_NOW : PAGE_FAILED;
    }
  }
}

/* Makes what the page table is to say of a page, and puts its bytes where that says. raw: the page, which the guest may change while
 * we look; each byte of what we keep was there at some instant, which is all that a write promises who does not wait for its end. */
static enum page_verdict
seal_page (FarEngine *engine, uint64_t number, uint64_t version, const guint8 *raw, struct far_page *ret_page) {
  struct far_page page = { .kind = FAR_RAW, .bytes = FAR_PAGE_BYTES, .version = version };
  const guint8 *bytes = raw;
  enum page_verdict verdict;
  struct far_spot spot;

  if (page_is_same (raw, &page.value)) {
    page.kind = FAR_SAME;
    page.bytes = 0;
    page.version = 0;
    if (page.value == 0)
      page.kind = FAR_NONE; /* which reads as zeros */
    *ret_page = page;
    engine->figures.same_pages++;
    return PAGE_PLACED;
  }
  if (engine->options.pack) {
    guint8 *copy = engine->scratch, *packed = engine->scratch + FAR_PAGE_BYTES;
    unsigned n;

    memcpy (copy, raw, FAR_PAGE_BYTES); /* LZ4 reads twice */
    n = page_pack (copy, packed);
    bytes = copy;
    if (n) {
      page.kind = FAR_PACKED;
      page.bytes = n;
      bytes = packed;
    }
  }
  verdict = find_room (engine, page.kind == FAR_RAW ? FAR_CLASS_RAW : FAR_CLASS_PACKED, page.bytes, &spot);
  if (verdict != PAGE_PLACED)
    return verdict;
  page.segment = spot.segment;
  page.offset = spot.offset;
  if (!seal_close_page (engine->seal, number, &page, bytes, engine->stage + (gsize)spot.slot * FAR_SEGMENT_BYTES + spot.offset))
    return PAGE_FAILED;
  engine->figures.packed_pages += page.kind == FAR_PACKED;
  *ret_page = page;
  return PAGE_PLACED;
}

gboolean
engine_write (FarEngine *engine, FarIo *io) {
  struct far_change changes[FAR_COMMIT_MAX];
  enum page_verdict verdict = PAGE_PLACED;

  while (io->next < io->n && verdict == PAGE_PLACED) {
    const unsigned most = (unsigned)MIN (io->n - io->next, FAR_COMMIT_MAX);
    const uint64_t versions = far_store_take_versions (engine->store, most);
    unsigned n;

    CRASH_POINT ("engine-versions");
    for (n = 0; n < MIN (most, PREFETCH); n++)
      far_store_prefetch (engine->store, (uint32_t)(io->first + io->next + n));
    for (n = 0; n < most; n++) {
      const guint64 i = io->next + n;
      guint8 in_pieces[FAR_PAGE_BYTES];
      const guint8 *raw = io->page_at (io, i);

      if (n + PREFETCH < most)
        far_store_prefetch (engine->store, (uint32_t)(io->first + i + PREFETCH));
      if (!raw) {
        io->copy (io, i, in_pieces);
        raw = in_pieces;
      }
      changes[n].page = (uint32_t)(io->first + i);
      verdict = seal_page (engine, io->first + i, versions + n, raw, &changes[n].now);
      if (verdict != PAGE_PLACED)
        break;
      CRASH_POINT ("engine-sealed");
    }
    if (n)
      far_store_commit (engine->store, changes, n);
    CRASH_POINT ("engine-committed");
    io->next += n;
    engine->figures.written_pages += n;
  }
  if (verdict == PAGE_NO_ROOM_NOW)
    return FALSE;
  engine_done (engine, io, verdict == PAGE_PLACED);
  return TRUE;
}

void
engine_writes_go_on (FarEngine *engine) {
  while (engine->writes_waiting.head) {
    FarIo *io = engine_queue_pop (&engine->writes_waiting);

    if (engine_write (engine, io))
      continue;
    /* It is the first one still. */
    io->next_waiting = engine->writes_waiting.head;
    if (!io->next_waiting)
      engine->writes_waiting.tail = &io->next_waiting;
    engine->writes_waiting.head = io;
    io->queued = TRUE;
    engine->writes_waiting.n++;
    return;
  }
}
