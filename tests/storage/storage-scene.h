/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the tests of storage share: requests and their ends, contents to compare with, a folder, servers. */
#ifndef DOMYBS_TESTS_STORAGE_SCENE_H
#define DOMYBS_TESTS_STORAGE_SCENE_H

#include <glib.h>

#include "io/storage.h"
#include "testing.h"

/* In place of testing_init. */
void scene_init (int *argc, char ***argv);

/* A folder of the test's own below `where` (NULL: TMPDIR). scene_folder_free removes it and what is in it. */
char *scene_folder (const char *where);
void scene_folder_free (char *folder);

/* Runs the main loop until *flag or `seconds` have gone (then the test ends). */
void scene_wait (const gboolean *flag, unsigned seconds);
/* Runs it for so long. */
void scene_run_for (unsigned ms);

/* One request and its end. */
typedef struct {
  StorageIo io;
  gboolean ended;
  int error;
} SceneIo;

void scene_io (SceneIo *io, gboolean is_write, guint64 offset, void *buf, gsize bytes);
void scene_submit (Storage *storage, SceneIo *io);
/* Submits, kicks and waits. Returns the error. */
int scene_do (Storage *storage, gboolean is_write, guint64 offset, void *buf, gsize bytes);

/* Page-aligned memory, freed with g_free. */
guint8 *scene_buffer (gsize bytes);
/* Fills a page-aligned piece with what depends on offset and version. */
void scene_pattern (guint8 *buf, guint64 offset, gsize bytes, guint32 version);
/* Whether it is that. */
gboolean scene_is_pattern (const guint8 *buf, guint64 offset, gsize bytes, guint32 version);

/* Random writes, reads and discards of all sizes, many at a time, never two of one place; checks every byte that is read.
 * disturb: called now and then. Every page is written at least once, and read at the end. */
typedef struct {
  Storage *storage;
  guint64 bytes;
  gsize most; /* bytes of a request */
  unsigned steps;
  unsigned at_a_time;
  gboolean discards;
  void (*disturb) (gpointer data);
  gpointer disturb_data;
} SceneTrip;
void scene_round_trip (GRand *rand, const SceneTrip *trip);

#endif
