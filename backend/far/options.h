/* SPDX-License-Identifier: GPL-2.0-or-later */
/* domybs-far's command line: read, completed with defaults and checked. */
#ifndef DOMYBS_FAR_OPTIONS_H
#define DOMYBS_FAR_OPTIONS_H

#include "core/copies.h"
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
  uint64_t prefetch_bytes; /* 0: nothing is read ahead */
  uint64_t wear_day_bytes; /* core/wear.h; 0: no budget */
  enum copies_mode protection; /* without donors: COPIES_STORAGE */
  gboolean has_protection;     /* it was said */
  unsigned give_back_s;    /* core/far-spare.h: a window; 0: nothing is given back */
} FarDiskChoice;

/* A read-only disk of an object's content (far/object.md). */
typedef struct {
  char *name;  /* "base" */
  char *id;    /* "domybs-base": what the guest sees */
  char *label; /* for the log: "vm1/base" */
  char *file, *socket_path;
  unsigned n_queues;
  guint64 ahead_bytes; /* for pages that are read ahead; 0: none are */
  gboolean mem_slots;
} FarObjectChoice;

#define FAR_DONOR_NAME_BYTES_MAX 63u
/* A neighbour that lends memory. */
typedef struct {
  char *name, *address;
  char *domain;   /* its own name, if none was given */
  char *psk_path; /* NULL: no TLS */
  char *identity; /* NULL: the first one in that file */
  gboolean no_tls;
  uint64_t bytes_max; /* UINT64_MAX: as much as it lends */
} FarDonorChoice;

typedef struct {
  char *name;
  unsigned n_donors;
  FarDonorChoice donors[COPIES_DONORS_MAX];
  gboolean donors_later; /* there may be none at first */
  uint64_t repair_rate;  /* bytes a second */
  unsigned donor_away_s; /* a donor that is unreachable for so long counts as gone */
  unsigned n_objects; /* with n_disks at most FAR_DISKS_MAX; behind the disks wherever they have numbers */
  FarObjectChoice objects[FAR_DISKS_MAX];
  unsigned n_disks;
  FarDiskChoice disks[FAR_DISKS_MAX];
  ListenRights socket_rights;
  char *control_path;
  char *memory_device; /* the control socket of the VM's domybs-backend; NULL: there is none */
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

/* Parts of an option's value: commas separate, two of them are one in a value, as QEMU has it. Free with g_strfreev. */
char **far_option_split (const char *text);

gboolean far_donor_name_is_good (const char *name);
/* donor-options.c: the value of one --donor, and its key, read from its file. */
gboolean far_donor_option (const char *text, FarOptions *options, GError **error);
void far_donor_choice_clear (FarDonorChoice *donor);
gboolean far_donor_key (const FarDonorChoice *donor, struct far_donor_key *ret_key, GError **error);

/* object-options.c: the value of one --object. Disks come first. */
gboolean far_object_option (const char *text, FarOptions *options, GError **error);
void far_object_choice_clear (FarObjectChoice *object);

#endif
