/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Inside of the engine: what its files (writing, reading, moving to storage and cleaning) share. */
#ifndef DOMYBS_FAR_ENGINE_INTERNAL_H
#define DOMYBS_FAR_ENGINE_INTERNAL_H

#include "core/far-spare.h"
#include "io/log-limit.h"
#include "far/engine.h"
#include "io/page-pack.h"
#include "io/source.h"

/* Pages that one read of storage may bring: more are more reads, which go side by side. */
#define ENGINE_READ_PAGES_MAX 64u
/* Reads of storage at a time: what is beyond waits in a queue of ours. */
#define ENGINE_READS_MAX 64u
/* What a read of adjacent pages may cover: packed ones are not aligned, so a little more than the pages. */
#define ENGINE_READ_BYTES_MAX (ENGINE_READ_PAGES_MAX * FAR_PAGE_BYTES + STORAGE_ALIGN)

typedef struct {
  FarIo *head, **tail;
  guint64 n;
} FarIoQueue;

/* Adjacent bytes of a segment that one read of storage brings: whole sectors. */
typedef struct {
  uint32_t segment, begin, end;
} FarSpan;

typedef struct FarAhead FarAhead;
typedef struct FarRead FarRead;
struct FarRead {
  StorageIo storage; /* first: what storage gives back is this */
  FarEngine *engine;
  FarIo *io; /* NULL: its owner is gone */
  FarRead *next_free; /* or next waiter */
  guint64 first; /* of io's pages */
  unsigned n;
  uint32_t segment, offset; /* where the buffer's first byte is in its segment */
  uint64_t versions[ENGINE_READ_PAGES_MAX];
  uint32_t offsets[ENGINE_READ_PAGES_MAX]; /* in the segment */
  uint64_t finished; /* bits: pages that need nothing more, when another copy is read */
  guint8 *buf; /* ENGINE_READ_BYTES_MAX, aligned */
};

typedef struct {
  uint32_t page;
  uint64_t version;
} CleanPage;

typedef struct {
  StorageIo storage;
  gboolean reading;
  gboolean moving; /* buf holds the segment */
  uint32_t segment;
  CleanPage *pages; /* those that lived there when the reading began; FAR_SEGMENT_BYTES / FAR_UNIT_BYTES of them at most */
  unsigned n_pages, next;
  guint8 *buf;
} Cleaner;

struct FarEngine {
  FarEngineOptions options;
  char *name;
  struct far_store *store;
  guint8 *stage;
  Storage *storage;
  Seal *seal;
  gboolean settled;           /* writes of the process before have ended */
  gboolean kick_wanted;       /* something was submitted */
  gboolean kicking, kick_again;
  FarIoQueue writes_waiting;  /* for room in the stage */
  FarIoQueue reads_waiting;   /* for a buffer */
  FarIoQueue discards;        /* long ones, which go on piece by piece */
  GSource *discard_source;
  StorageIo *slot_ios;        /* one for each slot of the stage */
  uint32_t *slot_segments;    /* what is in those that are being written */
  guint slots_under_way;
  GSource *retry_source;      /* after an error of storage */
  guint retry_ms;
  gboolean hurry;             /* far_engine_hurry */
  GSource *wear_source;       /* there may be something left of the wear budget again */
  gint64 held_since;          /* µs; 0: it holds nothing back */
  gboolean full_logged;
  void (*room_changed) (gpointer data);
  gpointer room_data;
  GSource *trim_source;       /* idle: the stage's free slots are given back */
  gint64 last_write;
  gint64 last_request;
  struct far_spare spare;     /* engine-spare.c, as the next six */
  guint64 level;              /* blocks that the guest was promised */
  guint32 to_give;            /* places */
  gboolean give_again;        /* what the process before has given back, from that segment on */
  uint32_t give_again_from;
  gboolean tidying;
  GSource *spare_source;
  FarRead reads[ENGINE_READS_MAX];
  FarRead *free_reads;
  guint reads_under_way;      /* of reads, those that storage has; the others wait for what is read ahead */
  FarAhead *ahead;            /* NULL: nothing is read ahead */
  Cleaner cleaner;
  uint32_t *owner_pages;      /* engine-owner.c: of the segment that is looked at */
  guint8 *scratch;            /* two pages */
  LogLimit log_limit;
  FarEngineFigures figures;
};

/* engine.c */
void engine_done (FarEngine *engine, FarIo *io, gboolean ok);
void engine_queue_push (FarIoQueue *queue, FarIo *io);
FarIo *engine_queue_pop (FarIoQueue *queue);

/* engine-read.c */
void engine_read (FarEngine *engine, FarIo *io);
void engine_reads_init (FarEngine *engine);
void engine_reads_clear (FarEngine *engine);
void engine_reads_forget (FarEngine *engine, FarIo *io);
/* Opens what is in `bytes` into the request. FALSE: it is not what was sealed. */
gboolean engine_open_page (FarEngine *engine, FarIo *io, guint64 i, const struct far_page *page, const guint8 *bytes);
/* Whether what is in `bytes` is what was sealed as that page; uses the scratch pages. */
gboolean engine_page_is_good (FarEngine *engine, guint64 number, const struct far_page *page, const guint8 *bytes);
/* One that nobody uses; NULL: there is none. */
FarRead *engine_reads_take (FarEngine *engine);
/* What this one waited for is there, or will not come. */
void engine_reads_came (FarEngine *engine, FarRead *waiter);
/* There may be one again for those that wait for one. */
void engine_reads_go_on (FarEngine *engine);
void engine_span_begin (FarSpan *span, const struct far_page *page);
/* FALSE: that page does not lie behind what there is. */
gboolean engine_span_add (FarSpan *span, const struct far_page *page);

/* engine-prefetch.c */
void engine_ahead_init (FarEngine *engine);
/* Nothing begins any more. */
void engine_ahead_clear (FarEngine *engine);
/* After storage has ended. */
void engine_ahead_free (FarEngine *engine);
/* io is a read that begins: finds out what to read ahead. */
void engine_ahead_note (FarEngine *engine, const FarIo *io);
/* Begins to read that, as far as there is room. */
void engine_ahead_pump (FarEngine *engine);
/* The next two: only where engine->ahead is. Takes page i of io, and maybe some behind it, from what was read ahead or is being read.
 * Returns how many are done or under way; 0: it is not there. */
guint64 engine_ahead_read (FarEngine *engine, FarIo *io, guint64 i, const struct far_page *page);
gboolean engine_ahead_has (const FarEngine *engine, guint64 number, guint64 version);
void engine_ahead_figures (FarEngine *engine, FarEngineFigures *ret_figures);

/* engine-write.c */
/* Takes up where io was left. FALSE: it waits for room in the stage (io->next says how far it got). */
gboolean engine_write (FarEngine *engine, FarIo *io);
/* There may be room again. */
void engine_writes_go_on (FarEngine *engine);

/* engine-stage.c: from the stage to storage, and cleaning */
void engine_stage_init (FarEngine *engine);
/* Nothing begins any more. */
void engine_stage_clear (FarEngine *engine);
/* After storage has ended. */
void engine_stage_free (FarEngine *engine);
void engine_stage_pump (FarEngine *engine);
/* Backs more places with storage. FALSE: there are no more, or no space for them. */
gboolean engine_cover_more (FarEngine *engine);
void engine_wear_figures (FarEngine *engine, FarEngineFigures *ret_figures);
/* Whether cleaning can still make room, or does. */
gboolean engine_can_clean (FarEngine *engine);

/* engine-owner.c */
/* Tells storage with copies whom it may ask. */
void engine_owner_init (FarEngine *engine);

/* engine-spare.c: giving back to storage */
void engine_spare_init (FarEngine *engine);
/* Nothing begins any more. */
void engine_spare_clear (FarEngine *engine);
/* Something may have become free. */
void engine_spare_pump (FarEngine *engine);
/* A segment to be tidied now. FALSE: none. */
gboolean engine_spare_victim (FarEngine *engine, uint32_t *ret_segment);
/* Places that were given back had to be backed again. */
void engine_spare_regret (FarEngine *engine);

#endif
