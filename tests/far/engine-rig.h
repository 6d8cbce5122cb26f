/* SPDX-License-Identifier: GPL-2.0-or-later */
/* An engine on a real storage file, without a front-end, beside a plain copy of what its disk must hold: each read is compared.
 */
#ifndef DOMYBS_TESTS_FAR_ENGINE_RIG_H
#define DOMYBS_TESTS_FAR_ENGINE_RIG_H

#include "far/engine.h"
#include "testing.h"

#define DISK_PAGES (8 * FAR_BLOCK_PAGES) /* 16 MiB */
#define SLOTS 6u
#define REQUEST_PAGES_MAX 64u
#define IN_FLIGHT_MAX 16u
#define random_below(rig, n) testing_below ((rig)->rand, n)

typedef struct {
  char *folder, *path;
  int fd; /* of the storage: a keeper's, over all engines */
  struct far_geometry geometry;
  guint8 key[SEAL_KEY_BYTES];
  gboolean sealed, pack;
  gsize prefetch_bytes; /* for the next open_engine, as is the next one */
  guint64 wear_day_bytes, give_back_us;
  Storage *(*wrap) (gpointer data, Storage *storage); /* NULL: the engine has the file itself */
  gpointer wrap_data;
  void *state;
  gsize state_bytes, stage_bytes, storage_bytes;
  guint8 *stage;
  FarEngine *engine;
  guint64 n_pages;
  guint8 *shadow; /* n_pages pages */
  GRand *rand;
  guint8 *busy; /* requests on a page that may change it: nothing else is begun there */
  guint in_flight;
} Rig;

typedef struct {
  FarIo io; /* first */
  Rig *rig;
  guint8 *pages;
  gboolean in_pieces;              /* pretends that every other page lies in several pieces */
  gboolean expect_failure, failed; /* then it is not freed when it has ended */
} Op;

/* Opens an engine, of DISK_PAGES. */
void rig_init (Rig *rig, gboolean sealed, gboolean pack);
void rig_init_pages (Rig *rig, guint64 n_pages, gboolean sealed, gboolean pack);
/* Waits for what is under way. */
void rig_clear (Rig *rig);
void open_engine (Rig *rig);
void reopen_engine (Rig *rig);
FarEngineFigures rig_figures (Rig *rig);

/* Pages that no other request may change at the moment. */
gboolean is_free (const Rig *rig, guint64 first, guint64 n);
/* To be begun; its pages are uninitialised. */
Op *op_new (Rig *rig, enum blk_operation operation, guint64 first, guint64 n);
void op_free (Op *op);
/* Begins it, and lets no more than IN_FLIGHT_MAX be under way. */
void op_begin (Op *op);
/* Until no more than so many requests are under way; a minute at most. */
void wait_for (Rig *rig, guint at_most);
/* Incompressible. */
void fill_random (Rig *rig, guint8 *bytes, gsize n);
/* Reads the whole disk, in a row. */
void read_all (Rig *rig);

#endif
