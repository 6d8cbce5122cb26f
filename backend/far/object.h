/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The pages of an object's disk (far/object.md): read from its file through the host's page cache, which all VMs that have the
 * object share, and checked against their digests each time. A page that is not what was imported is an I/O error for exactly
 * the requests that want it.
 *
 * Reads ahead of readers that go in steps (core/prefetch.h) into a small cache of its own.
 *
 * Runs on one thread, the thread-default GMainContext's. Answers may come before the call that asked returns.
 */
#ifndef DOMYBS_FAR_OBJECT_H
#define DOMYBS_FAR_OBJECT_H

#include "core/object.h"
#include "far/pages.h"

typedef struct {
  const char *name;    /* for the log: "vm1/base" */
  guint64 ahead_bytes; /* memory for pages that are read ahead; 0: none are */
} FarObjectOptions;

typedef struct FarObject FarObject;

/* meta: header and table (io/object-file.h), checked; stays the caller's, for as long as the object lives. storage is taken
 * over: the file of object_file_bytes. */
FarObject *far_object_new (const FarObjectOptions *options, const guint8 *meta, guint64 size_bytes, Storage *storage);

/* pages is a FarObject. */
extern const FarPagesKind far_object_pages;

typedef struct {
  guint64 reads, refused;    /* requests; those that ended in an error */
  guint64 read_pages;        /* all */
  guint64 zero_pages;        /* of these: not stored */
  guint64 read_from_storage; /* for the request that wanted them */
  guint64 ahead_pages;       /* read ahead … */
  guint64 ahead_used;        /* … and then wanted */
  guint64 ahead_wasted;      /* … and dropped unused */
  guint64 storage_read_bytes, storage_errors;
  guint64 damaged; /* reads of pages that were not what was imported */
  guint64 waiting, oldest_wait_us;
  guint64 read_latency[FAR_LATENCY_BUCKETS];
  gsize overhead_bytes; /* table and cache, at most */
} FarObjectFigures;

void far_object_figures (FarObject *object, FarObjectFigures *ret_figures);
Storage *far_object_storage (FarObject *object);

#endif
