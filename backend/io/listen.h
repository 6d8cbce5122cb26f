/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Listening unix sockets at a path. */
#ifndef DOMYBS_IO_LISTEN_H
#define DOMYBS_IO_LISTEN_H

#include <glib.h>

/* Listens at path, non-blocking. A socket file that nobody listens on any more is replaced; one in use is an error (IN_USE), and so
 * is anything that is not a socket. */
int listen_unix (const char *path, GError **error);

/* Accepts one connection, non-blocking and close-on-exec; -1 when there is none. */
int listen_accept (int fd);

#endif
