/* SPDX-License-Identifier: GPL-2.0-or-later */
/* domybs-donor's command line: read, completed with defaults and checked. */
#ifndef DOMYBS_DONOR_OPTIONS_H
#define DOMYBS_DONOR_OPTIONS_H

#include "core/lease-donor.h"
#include "donor/handover.h"

#include <glib.h>

#define DONOR_RESERVE_DEFAULT UINT64_MAX

typedef struct {
  char *name;
  struct lease_donor_geometry geometry;
  struct lease_donor_limits limits; /* of each identity */
  char **listen;                    /* addresses (io/tcp.h), at most DONOR_LISTEN_MAX */
  char *psk_path;                   /* NULL: no TLS */
  char *control_path;
  uint64_t reserve_bytes; /* or DONOR_RESERVE_DEFAULT: io/host-memory.h says how much */
  uint64_t ttl_ms, revoke_ms;
  gboolean fixed, lock;
  gboolean is_worker; /* started by a keeper */
  gboolean version;
} DonorOptions;

/* Reads argv. NULL with error (DOMYBS_ERROR_USAGE or GOption's own) when something is wrong with it. --help prints and exits,
 * as GOption does. */
DonorOptions *donor_options_parse (int *argc, char ***argv, GError **error);
void donor_options_free (DonorOptions *options);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (DonorOptions, donor_options_free)

#endif
