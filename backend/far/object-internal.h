/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Inside of an object: what its files (reading, reading ahead) share. */
#ifndef DOMYBS_FAR_OBJECT_INTERNAL_H
#define DOMYBS_FAR_OBJECT_INTERNAL_H

#include "far/object.h"
#include "io/log-limit.h"

#include "core/prefetch.h"
#include "core/read-ahead.h"

/* Pages of one read, of storage at a time, as for an engine. */
#define OBJECT_READ_PAGES_MAX 64u
#define OBJECT_READS_MAX 64u
/* What is read ahead is in pieces of 128 KiB at most, so that a reader that goes on waits for one of them and not for all; and
 * so many at a time that they and all other reads fit into the storage's ring. */
#define OBJECT_AHEAD_PAGES 32u
#define OBJECT_AHEAD_UNDER_WAY_MAX 48u

typedef struct ObjectRead ObjectRead;
struct ObjectRead {
  StorageIo storage; /* first: what storage gives back is this */
  FarObject *object;
  FarIo *io; /* NULL: its owner is gone */
  ObjectRead *next_free;
  guint64 at; /* of io's pages */
  unsigned n;
  guint8 *buf; /* OBJECT_READ_PAGES_MAX pages */
};

/* A request that wants pages of a piece that is on its way. */
typedef struct AheadWaiter AheadWaiter;
struct AheadWaiter {
  AheadWaiter *next;
  FarIo *io;
  guint64 at; /* of io's pages */
  unsigned n;
};

/* A read of pages that somebody may want. */
typedef struct {
  StorageIo storage; /* first */
  FarObject *object;
  gboolean is_busy;
  int chunk;     /* its number in the ring */
  guint64 first; /* page of the object */
  unsigned n;
  AheadWaiter *waiters, **waiters_tail;
} ObjectAhead;

struct FarObject {
  FarObjectOptions options;
  char *name;
  guint64 n_pages, data_offset;
  const guint8 *digests;
  Storage *storage;
  gboolean kick_wanted, kicking, kick_again;
  ObjectRead reads[OBJECT_READS_MAX];
  ObjectRead *free_reads;
  FarIo *waiting, **waiting_tail; /* for a read */
  guint64 n_waiting;
  struct read_ahead *ahead; /* NULL: nothing is read ahead */
  guint8 *ring;
  ObjectAhead aheads[OBJECT_AHEAD_UNDER_WAY_MAX];
  struct prefetch prefetch;
  LogLimit log_limit;
  FarObjectFigures figures;
};

/* object.c */
static inline const guint8 *
object_digest (const FarObject *object, guint64 page) {
  return object->digests + page * OBJECT_DIGEST_BYTES;
}
/* Gives io its page i, whose bytes these should be. */
void object_deliver (FarObject *object, FarIo *io, guint64 i, const guint8 *bytes);
/* Reads n pages of io from storage, from page i on: for those whose piece could not be read ahead. */
void object_read_again (FarObject *object, FarIo *io, guint64 i, guint64 n);
/* One of the things that io waited for has ended. */
void object_part_done (FarObject *object, FarIo *io);

/* object-ahead.c */
void object_ahead_init (FarObject *object);
void object_ahead_free (FarObject *object);
/* Whether page i of io was read ahead, or is being read: returns how many pages from there on are done or will be; 0: neither.
 */
guint64 object_ahead_take (FarObject *object, FarIo *io, guint64 i);
gboolean object_ahead_has (const FarObject *object, guint64 page);
/* io is a read that was just begun: begins to read what will be wanted next, if that can be known. */
void object_ahead_plan (FarObject *object, const FarIo *io);
void object_ahead_forget (FarObject *object, FarIo *io);

#endif
