/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Runs a back-end: waits for front-ends, one at a time, until it is told to end. */
#ifndef DOMYBS_DEVICE_SERVER_H
#define DOMYBS_DEVICE_SERVER_H

#include "device/options.h"

/* Serves until SIGTERM or SIGINT, or, with --once or a connected --fd, until the front-end has gone. Returns FALSE with error when
 * it could not begin. Removes its sockets. */
gboolean server_run (const Options *options, GError **error);

#endif
