/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A donor that breaks the rules in one certain way, in processes of its own. Its pages are all zeroes. */
#ifndef DOMYBS_TESTS_EVIL_DONOR_H
#define DOMYBS_TESTS_EVIL_DONOR_H

#include <glib.h>
#include <sys/types.h>

enum evil {
  EVIL_NOT, /* as it should be */
  EVIL_SILENT,
  EVIL_NOISE,
  EVIL_OLD_STYLE,
  EVIL_LONG_REPLY,
  EVIL_OTHER_OPTION,
  EVIL_NO_LEASES,
  EVIL_LEASE_SHORT,
  EVIL_LEASE_NOISE,
  EVIL_SIZE, /* of the export */
  EVIL_READ_ONLY,
  EVIL_NO_INFO,
  EVIL_NO_TLS,
  EVIL_TLS_INJECTED, /* plain text behind the yes to TLS */
  EVIL_TLS_NOISE,
  /* attached: */
  EVIL_COOKIE,
  EVIL_TWICE,
  EVIL_CHUNK, /* a structured reply, that nobody wanted */
  EVIL_CUT,   /* ends within a page */
  EVIL_ERROR, /* evil_donor_error */
};

typedef struct {
  char *address;
  pid_t pid;
  gint *error; /* shared */
} EvilDonor;

EvilDonor *evil_donor_new (enum evil evil, guint64 export_bytes);
void evil_donor_free (EvilDonor *donor);

#endif
