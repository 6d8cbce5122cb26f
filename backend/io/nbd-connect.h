/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A libnbd handle for an NBD URI, connecting without ever waiting; and what that needs of the sandbox. */
#ifndef DOMYBS_IO_NBD_CONNECT_H
#define DOMYBS_IO_NBD_CONNECT_H

#include <libnbd.h>

#include "io/nbd-uri.h"

/* A handle that connects now, to the URI's address number (modulo their number); NULL with nbd_get_error. */
struct nbd_handle *nbd_connect_begin (const NbdUri *uri, unsigned number);
/* Once there is a socket. */
void nbd_connect_tune (struct nbd_handle *nbd, const NbdUri *uri);
/* Before sandbox_worker: connecting is to be possible afterwards. */
void nbd_connect_tell_sandbox (const NbdUri *uri);

#endif
