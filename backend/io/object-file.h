/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Files of objects (core/object.h): made from other files, opened, read page by page. Whoever reads one holds a read lock on it
 * (an OFD lock: the open file's), so that nobody removes it meanwhile; whoever removes one needs the write lock.
 *
 * Errors are DOMYBS_ERROR_…: CORRUPT when a file is not what an import writes, IN_USE for locks, USAGE for what can't be
 * imported, FAILED with errno's text.
 */
#ifndef DOMYBS_IO_OBJECT_FILE_H
#define DOMYBS_IO_OBJECT_FILE_H

#include <gio/gio.h>

#include "core/object.h"

typedef struct {
  int fd; /* for reading, locked */
  struct object_header header;
  guint64 n_pages;
  guint8 *meta;                /* header and table as they are in the file, checked: object_data_offset bytes */
  guint8 id[OBJECT_SUM_BYTES]; /* the header's sum: two objects of the same id have the same content */
} ObjectFile;

/* Opens and checks header and table, not the pages. */
ObjectFile *object_file_open (const char *path, GError **error);
/* The header only; no lock, and meta is NULL: for lists. */
ObjectFile *object_file_peek (const char *path, GError **error);
void object_file_free (ObjectFile *file);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (ObjectFile, object_file_free)

/* Header and table in a memfd that nobody can change (sealed). -1 with error. */
int object_file_share_meta (const ObjectFile *file, GError **error);

static inline const guint8 *
object_meta_digest (const guint8 *meta, guint64 page) {
  return meta + OBJECT_HEADER_BYTES + page * OBJECT_DIGEST_BYTES;
}

/* SHA-256 of n bytes. FALSE: the library can't, which is nobody's fault that could be named. */
gboolean object_sum (const void *bytes, gsize n, guint8 ret_sum[OBJECT_SUM_BYTES]);
/* Whether the 4096 bytes at `bytes` are the page of that digest. */
gboolean object_page_is (const guint8 *bytes, const guint8 *digest);

/* Called after each MiB: done, of total bytes. FALSE ends it (G_IO_ERROR_CANCELLED). */
typedef gboolean (*ObjectProgress) (guint64 done, guint64 total, gpointer data);

/* Makes the object at path from a file or block device, in one step: whatever happens, there is nothing at path or the whole
 * object, on storage for good. IN_USE when there is something at path. progress may be NULL. */
gboolean object_file_import (const char *from, const char *path, ObjectProgress progress, gpointer data,
                             struct object_header *ret_header, GError **error);

/* Reads and checks every page. *ret_damaged: how many are not what was imported; *ret_first: the first of these (valid if there
 * are any). An error is something else. */
gboolean object_file_verify (ObjectFile *file, ObjectProgress progress, gpointer data, guint64 *ret_damaged, guint64 *ret_first,
                             GError **error);

/* Removes it, unless somebody has it open (IN_USE). */
gboolean object_file_remove (const char *path, GError **error);

#endif
