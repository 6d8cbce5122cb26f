/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Who is at a unix socket, asked of the kernel's list and not by connecting: a back-end takes whoever connects for its QEMU. */
#ifndef DOMYBS_HOST_TOOLS_UNIX_SOCKET_H
#define DOMYBS_HOST_TOOLS_UNIX_SOCKET_H

#include <glib.h>

typedef enum {
  UNIX_SOCKET_LISTENS = 1 << 0,   /* somebody listens at the path */
  UNIX_SOCKET_CONNECTED = 1 << 1, /* a connection that was made to it exists still, maybe with a client that is gone */
} UnixSocketState;

/* path as it was bound: absolute, without spaces. 0 (nobody) where the list can't be read. */
UnixSocketState unix_socket_state (const char *path);

/* Whether who accepts connections there speaks first, within so many ms: for control sockets, which anybody may connect to. */
gboolean unix_socket_greets (const char *path, int ms);

#endif
