/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What carries out a disk's requests, for far/disk.c: an engine (far/engine.h), or an object (far/object.h). */
#ifndef DOMYBS_FAR_PAGES_H
#define DOMYBS_FAR_PAGES_H

#include "far/engine.h"

/* Each function as its counterpart in far/engine.h. */
typedef struct {
  guint64 (*n_pages) (gconstpointer pages);
  void (*start) (gpointer pages, FarIo *io);
  void (*kick) (gpointer pages);
  void (*forget) (gpointer pages, FarIo *io);
  void (*hurry) (gpointer pages, gboolean hurry); /* NULL: there is no need */
  void (*free) (gpointer pages);
} FarPagesKind;

#endif
