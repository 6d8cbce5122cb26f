/* SPDX-License-Identifier: GPL-2.0-or-later */
/* domybs-backend's command line: read, completed with defaults and checked. */
#ifndef DOMYBS_DEVICE_OPTIONS_H
#define DOMYBS_DEVICE_OPTIONS_H

#include "device/backend.h"
#include "io/listen.h"

typedef struct {
  char *socket_path; /* NULL with fd */
  ListenRights socket_rights;
  int fd;            /* -1 with socket_path */
  char *control_path;
  char *host_account_path; /* NULL: no account shared with others */
  uint64_t host_limit_bytes;
  gboolean once; /* end when the first front-end has gone */
  gboolean is_worker; /* started by a keeper; account_slot: its slot in the host account, -1 = none */
  int account_slot;
  gboolean print_capabilities, version;
  BackendOptions backend;
} Options;

/* Reads argv. NULL with error (DOMYBS_ERROR_USAGE or GOption's own) when something is wrong with it. --help prints and exits, as
 * GOption does. */
Options *options_parse (int *argc, char ***argv, GError **error);
void options_free (Options *options);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (Options, options_free)

#endif
