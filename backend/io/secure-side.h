/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What io/secure-side.c makes and io/secure-stream.c uses: the credentials of a side of TLS. A session's pointer is its side.
 */
#ifndef DOMYBS_IO_SECURE_SIDE_H
#define DOMYBS_IO_SECURE_SIDE_H

#include <gnutls/gnutls.h>

#include "io/secure-stream.h"

struct SecureSide {
  gatomicrefcount refs;
  gnutls_priority_t priority;
  gnutls_psk_server_credentials_t server; /* or */
  gnutls_psk_client_credentials_t client;
  PskKeys *keys;  /* server */
  char *identity; /* client */
};

/* A session of that side. Returns what GnuTLS does (negative: an error); *ret_session is NULL, or to be ended. */
int secure_side_begin (SecureSide *side, gnutls_session_t *ret_session);

#endif
