/* SPDX-License-Identifier: GPL-2.0-or-later */
/* domybs-far's command line: read, completed with defaults and checked. */
#ifndef DOMYBS_FAR_OPTIONS_H
#define DOMYBS_FAR_OPTIONS_H

#include "core/far-store.h"
#include "far/handover.h"
#include "io/listen.h"

typedef struct {
  char *tier; /* "shared" */
  char *id;   /* "domybs-shared": what the guest sees */
  char *name; /* for the log: "vm1/shared" */
  char *socket_path, *storage;
  unsigned n_queues;
  gboolean mem_slots;
  struct far_geometry geometry;
} FarDiskChoice;

typedef struct {
  char *name;
  unsigned n_disks;
  FarDiskChoice disks[FAR_DISKS_MAX];
  ListenRights socket_rights;
  char *control_path;
  gboolean pack, seal;
  gboolean once;      /* end when the front-ends have gone */
  gboolean is_worker; /* started by a keeper */
  gboolean version;
} FarOptions;

/* Reads argv. NULL with error (DOMYBS_ERROR_USAGE or GOption's own) when something is wrong with it. --help prints and exits,
 * as GOption does. */
FarOptions *far_options_parse (int *argc, char ***argv, GError **error);
void far_options_free (FarOptions *options);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (FarOptions, far_options_free)

#endif
