/* SPDX-License-Identifier: GPL-2.0-or-later */
/* NBD servers of others, as children of the test that end with it. */
#ifndef DOMYBS_TESTS_NBD_SERVER_H
#define DOMYBS_TESTS_NBD_SERVER_H

#include <glib.h>
#include <sys/types.h>

typedef struct {
  char *folder; /* its own */
  char *file;   /* what it exports */
  char *socket, *uri;
  unsigned port; /* TCP on localhost instead of the socket; 0: not */
  char **argv;
  pid_t pid; /* 0: not running */
} NbdServer;

/* Whether there is such a program here; else the test is skipped, with the reason. */
gboolean nbd_server_have (const char *program);

/* Makes a file of `bytes`, and does not start the server yet. kind "nbdkit", "qemu-nbd" or "qemu-storage-daemon". extra:
 * arguments of nbdkit, filters first, the plug-in's behind "--" (NULL: none); FILE in them is the file, FOLDER its folder. */
NbdServer *nbd_server_new (const char *kind, guint64 bytes, const char *const *filters, const char *const *parameters);
/* Before the first start, nbdkit only: TCP at a free port of localhost; uri is for that then. */
void nbd_server_use_tcp (NbdServer *server);
/* Starts it, again, and waits for its socket. */
void nbd_server_start (NbdServer *server);
void nbd_server_kill (NbdServer *server);
void nbd_server_signal (NbdServer *server, int signal);
void nbd_server_free (NbdServer *server);

/* With openssl: an authority, and a server's certificate for `name`, under the names that nbdkit and libnbd look for. */
gboolean nbd_server_make_certificates (const char *folder, const char *name);

#endif
