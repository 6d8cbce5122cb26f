/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where an NBD server is, taken from a URI (https://github.com/NetworkBlockDevice/nbd/blob/master/doc/uri.md):
 *
 *   nbd://HOST[:PORT]/EXPORT
 *
 *   nbd+unix:///EXPORT?socket=PATH
 *
 *   nbds://[USER@]HOST[:PORT]/EXPORT?tls-psk-file=FILE or ?tls-certificates=FOLDER
 *
 *   nbds+unix://[USER@]/EXPORT?socket=PATH&tls-psk-file=FILE or &tls-certificates=FOLDER
 *
 * libnbd reads URIs as well, but looks the host up each time that it connects, and waits for the answer: here that is done
 * once.
 */
#ifndef DOMYBS_IO_NBD_URI_H
#define DOMYBS_IO_NBD_URI_H

#include <glib.h>
#include <sys/socket.h>

#define NBD_ADDRESSES_MAX 8u

struct nbd_address {
  struct sockaddr_storage address;
  socklen_t bytes;
};

typedef struct {
  char *text;   /* the whole, without what is secret in it (nothing is) */
  char *export; /* "" for the default one */
  char *host, *port;
  char *socket; /* NULL: TCP */
  gboolean tls;
  char *user, *psk_file, *certificates; /* or NULL */
  struct nbd_address addresses[NBD_ADDRESSES_MAX];
  unsigned n_addresses;
} NbdUri;

/* Reads it; looks nothing up. */
NbdUri *nbd_uri_parse (const char *text, GError **error);
void nbd_uri_free (NbdUri *uri);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (NbdUri, nbd_uri_free)

/* Fills in addresses; may wait for name servers. */
gboolean nbd_uri_look_up (NbdUri *uri, GError **error);

#endif
