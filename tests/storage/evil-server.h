/* SPDX-License-Identifier: GPL-2.0-or-later */
/* An NBD server that breaks the rules, in a process of its own; and that is a good one (of zeros in memory) when it is told to.
 */
#ifndef DOMYBS_TESTS_EVIL_SERVER_H
#define DOMYBS_TESTS_EVIL_SERVER_H

#include <glib.h>
#include <sys/types.h>

/* Ways to be evil, each counted. */
enum evil {
  EVIL_CLOSE,  /* ends the connection */
  EVIL_SHORT,  /* in the middle of a message */
  EVIL_NOISE,  /* random bytes */
  EVIL_MAGIC,  /* another magic number */
  EVIL_COOKIE, /* answers what was not asked */
  EVIL_TWICE,  /* answers twice */
  EVIL_ERROR,  /* any error number */
  EVIL_SILENT, /* does not answer at all */
  EVIL_SLOW,   /* in small pieces */
  EVIL_CHUNK,  /* structured replies out of bounds, of odd types, without data */
  EVIL_EXPORT, /* too small, read-only, odd flags and block sizes */
  EVIL_OPTION, /* refuses options, answers others */
  N_EVIL,
};

typedef struct {
  char *socket;
  pid_t pid;
  struct evil_shared {
    gint good;
    gint connections;
    gint done[N_EVIL];
  } * shared;
} EvilServer;

EvilServer *evil_server_new (const char *folder, guint64 bytes, guint32 seed);
void evil_server_free (EvilServer *server);

#endif
