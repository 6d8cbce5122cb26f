/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The engine of one far disk: carries out reads, writes and discards of pages with the page store (core/far-store.h: where), seals (io/seal.h), packing
 * (io/page-pack.h), the stage (memory that outlives the process) and the storage copy (io/storage.h).
 *
 * A write is answered when its pages are sealed in the stage and committed: that survives this process. The stage goes to storage in whole
 * segments, behind; when all of it waits for storage, writes wait. A page that can't be read because storage says so, or that is not what
 * was sealed, is an I/O error for exactly that request, and logged; storage that does not answer is waited for.
 *
 * Runs on one thread, the thread-default GMainContext's. Answers may come before the call that asked returns.
 */
#ifndef DOMYBS_FAR_ENGINE_H
#define DOMYBS_FAR_ENGINE_H

#include "core/blk-request.h"
#include "core/far-store.h"
#include "io/seal.h"
#include "io/storage.h"

typedef struct {
  const char *name;             /* for the log: "vm1/shared" */
  struct far_geometry geometry;
  gboolean pack;                /* LZ4 */
  gsize prefetch_bytes;         /* of memory for what is read ahead; 0: nothing is */
  guint64 wear_day_bytes;       /* so many may be written to storage in a day (core/wear.h); 0: there is no bound */
  guint64 give_back_us;         /* what is free for so long and not needed is given back to storage (core/far-spare.h); 0: never */
} FarEngineOptions;

typedef struct FarEngine FarEngine;
typedef struct FarIo FarIo;

/* One request, its owner's; left alone until done was called. */
struct FarIo {
  enum blk_operation operation; /* READ, WRITE, DISCARD, WRITE_ZEROES */
  guint64 first, n;             /* pages, within the disk */
  /* READ, WRITE: page i's memory, 4096 bytes, or NULL: then it is in pieces, for copy. May give another address at each call. */
  guint8 *(*page_at) (FarIo *io, guint64 i);
  /* Copies page i from the request (WRITE) or into it (READ). */
  void (*copy) (FarIo *io, guint64 i, guint8 *page);
  void (*done) (FarIo *io, gboolean ok);

  /* the engine's */
  guint64 next;      /* pages from first on that are done, or under way */
  guint under_way;   /* reads of storage */
  gboolean failed;
  gboolean again;    /* a page moved while it was read */
  gboolean queued;
  FarIo *next_waiting;
  gint64 began;      /* µs */
};

/* state, stage: the memory; storage and seal are taken over. NULL with error: the state can't be gone on from. */
FarEngine *far_engine_new (const FarEngineOptions *options, void *state, gsize state_bytes, guint8 *stage, Storage *storage,
                           Seal *seal, GError **error);
/* Nothing may be under way. */
void far_engine_free (FarEngine *engine);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (FarEngine, far_engine_free)

guint64 far_engine_n_pages (const FarEngine *engine);

void far_engine_start (FarEngine *engine, FarIo *io);
/* After a burst of far_engine_start: hands to storage what they need, in one go. */
void far_engine_kick (FarEngine *engine);

/* Somebody waits until all requests have ended: the wear budget does not hold them back now, it owes what they take. */
void far_engine_hurry (FarEngine *engine, gboolean hurry);

/* Forgets the requests whose done was not called yet: their owner is gone. What they have under way ends unseen. */
void far_engine_forget (FarEngine *engine, FarIo *io);

/* Backs 32 MiB more of the storage copy (fewer, where that is all there is), before they are needed; takes as long as a fallocate.
 * FALSE: there are no more, or storage has no room. */
gboolean far_engine_cover_more (FarEngine *engine);
/* So many blocks beyond those in use are to stay backed: what was promised to the guest (core/far-level.h). 0 at first. */
void far_engine_set_level (FarEngine *engine, guint64 blocks);
/* Calls changed when there may be more or less room than before: often, in the middle of work. NULL: no more. */
void far_engine_on_room (FarEngine *engine, void (*changed) (gpointer data), gpointer data);

#define FAR_LATENCY_BUCKETS 40
typedef struct {
  struct far_figures store;
  const char *storage;
  guint64 reads, writes, discards; /* requests */
  guint64 read_pages, written_pages, same_pages, packed_pages; /* written_pages: all; of these, same and packed */
  guint64 read_from_stage, read_from_storage; /* pages */
  guint64 storage_read_bytes, storage_written_bytes, cleaned_pages;
  guint64 given_back_places; /* to storage, since the start */
  guint64 refused, damaged; /* requests that ended in an error; pages that were not what was sealed */
  guint64 waiting;          /* requests that wait now */
  guint64 oldest_wait_us;
  guint64 storage_errors;
  guint64 read_latency[FAR_LATENCY_BUCKETS], write_latency[FAR_LATENCY_BUCKETS]; /* bucket b: < 2^(b/2) µs */
  gsize overhead_bytes;
  gsize prefetch_bytes;
  guint64 prefetched_pages, prefetch_used_pages, prefetch_wasted_pages;
  guint64 wear_day_bytes, wear_burst_bytes, wear_left_bytes; /* all 0: no budget */
  gboolean held; /* segments wait for the budget now */
  guint64 held_us;   /* in all */
  guint64 held_wait_us; /* held: until the next one may be written */
} FarEngineFigures;
/* Blocks of [first, + n) that have a page which is not all zeros. */
guint64 far_engine_count_blocks (FarEngine *engine, guint64 first, guint64 n);
void far_engine_figures (FarEngine *engine, FarEngineFigures *ret_figures);

#endif
