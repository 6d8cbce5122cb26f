/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Listening unix sockets at a path. */
#ifndef DOMYBS_IO_LISTEN_H
#define DOMYBS_IO_LISTEN_H

#include <glib.h>
#include <sys/types.h>

/* Who may connect. */
typedef struct {
  gid_t group; /* or LISTEN_GROUP_UNCHANGED */
  int mode;    /* of the socket's file; or LISTEN_MODE_UMASK: 0777 less the umask */
} ListenRights;

#define LISTEN_GROUP_UNCHANGED ((gid_t)-1)
#define LISTEN_MODE_UMASK (-1)

/* Listens at path, non-blocking. A socket file that nobody listens on any more is replaced; one in use is an error (IN_USE),
 * and so is anything that is not a socket. Nobody can connect before group and mode are as they should be. On failure nothing
 * is left at path. Changes the umask for a moment: for programs with one thread. */
int listen_unix (const char *path, const ListenRights *rights, GError **error);

/* Accepts one connection, non-blocking and close-on-exec; -1 when there is none. */
int listen_accept (int fd);

#endif
