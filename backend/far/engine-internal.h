/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Inside of the engine: what its files (writing, reading, moving to storage and cleaning) share. */
#ifndef DOMYBS_FAR_ENGINE_INTERNAL_H
#define DOMYBS_FAR_ENGINE_INTERNAL_H

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

typedef struct FarRead FarRead;
struct FarRead {
  StorageIo storage; /* first: what storage gives back is this */
  FarEngine *engine;
  FarIo *io; /* NULL: its owner is gone */
  FarRead *next_free;
  guint64 first; /* of io's pages */
  unsigned n;
  uint32_t segment, offset; /* where the buffer's first byte is in its segment */
  uint64_t versions[ENGINE_READ_PAGES_MAX];
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
  gboolean full_logged;
  GSource *trim_source;       /* idle: the stage's free slots are given back */
  gint64 last_write;
  FarRead reads[ENGINE_READS_MAX];
  FarRead *free_reads;
  Cleaner cleaner;
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
/* Whether cleaning can still make room, or does. */
gboolean engine_can_clean (FarEngine *engine);

#endif
