/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The stage for tests of objects: a folder of its own, content whose pages are known, and programs that work with it. */
#ifndef DOMYBS_TESTS_OBJECT_SCENE_H
#define DOMYBS_TESTS_OBJECT_SCENE_H

#include "far.h"
#include "io/object-file.h"

typedef struct {
  char *folder, *source, *path; /* path: FOLDER/objects/base.object */
  GRand *random;
  guint64 size, n_pages;
  guint8 *content; /* n_pages pages; the last one filled up with zeros */
} Scene;

/* With a source of n_pages (its last page in part) some of which are zeros. */
Scene *scene_new (guint64 n_pages);
/* … none of which are. */
Scene *scene_new_full (guint64 n_pages);
void scene_free (Scene *scene);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (Scene, scene_free)

/* Imports the source, which must succeed. */
void scene_import (Scene *scene);
gboolean scene_page_is_zero (const Scene *scene, guint64 page);
/* Where a page lies in the object's file. */
guint64 scene_offset (const Scene *scene, guint64 page);
/* Changes one byte of the object's file. */
void scene_flip (const Scene *scene, guint64 offset);

/* A domybs-far that serves it; options is put behind, for example ",prefetch=0". */
struct far *scene_serve (Scene *scene, const char *name, const char *options);
struct blk *scene_connect (struct far *far);
/* One number of the first object in `status`. */
gint64 scene_status (struct far *far, const char *member);

/* Reads pages and compares them. Returns the status. */
guint8 scene_read (Scene *scene, struct blk *blk, guint64 first, unsigned n);

/* domybsctl: its exit status; what it said, out and err in one. */
int scene_ctl (Scene *scene, char **ret_said, const char *const *arguments);
#define CTL(...) ((const char *const[]){ __VA_ARGS__, NULL })

#endif
