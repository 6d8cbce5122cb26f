/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Serves exports of memory (donor/exports.h) as an NBD server, and passes lease requests on: fixed newstyle over TCP (or a unix
 * socket), TLS 1.3 with pre-shared keys, on the calling thread's default main context and nothing else. Data goes from the
 * socket into the exports' memory and back; the server holds some KiB for each connection (with TLS some 200), whatever its
 * peer does.
 *
 * The requests of one connection are carried out in the order in which they came, one after the other (what a READ brings is
 * from after the writes before it and from before those behind it); between connections there is no order. A connection is
 * closed, and its export with it, when its peer breaks the protocol, is too slow, or the export says ESTALE.
 */
#ifndef DOMYBS_DONOR_PAGE_SERVER_H
#define DOMYBS_DONOR_PAGE_SERVER_H

#include <glib.h>

#include "donor/exports.h"
#include "io/secure-stream.h"

typedef struct PageServer PageServer;

/* 0: the value in brackets. */
typedef struct {
  guint connections;   /* in all (900: a process has 1024 descriptors) */
  guint handshaking;   /* not yet authenticated, with an export or a lease: one more ends the oldest of them (32) */
  guint per_identity;  /* connections of one TLS identity (256: a far disk has four); without TLS: not limited */
  guint handshake_ms;  /* from the connection on, until an export is opened or a lease is spoken of (10,000) */
  guint lease_idle_ms; /* between lease requests of a connection (60,000) */
  guint request_ms;    /* for a request and its data to come in, or for its answer to be taken (60,000) */
} PageServerLimits;

/* listening_fd stays the caller's and open; it is non-blocking; -1: none yet. tls NULL: none, for whoever can connect (tests,
 * measurements). kind, exports: the caller's, for the server's lifetime. */
PageServer *page_server_new (int listening_fd, SecureSide *tls, const ExportsKind *kind, gpointer exports,
                             const PageServerLimits *limits);
/* One more listening socket, as in page_server_new. */
void page_server_listen (PageServer *server, int fd);
/* A connection that was accepted elsewhere: takes over fd, which is non-blocking. */
void page_server_adopt (PageServer *server, int fd);
/* Closes all connections, and their exports. Not from within a call of the exports. */
void page_server_free (PageServer *server);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (PageServer, page_server_free)

/* Closes the connections whose export `which` says TRUE for. When it returns, nothing of them is written any more, and
 * ExportsKind.close was called for each. Returns how many. From within calls of the exports, too. */
guint page_server_close_export (PageServer *server, gboolean (*which) (gpointer export, gpointer data), gpointer data);

typedef struct {
  guint connections, with_export, with_lease;
  guint64 accepted, refused;                    /* refused: for a limit */
  guint64 handshakes_failed;                    /* TLS */
  guint64 broken;                               /* closed because the peer broke the protocol or was too slow */
  guint64 reads, writes, trims, others, errors; /* requests, and those that were answered with an error */
  guint64 bytes_read, bytes_written;
  guint64 lease_requests;
} PageServerFigures;
void page_server_figures (const PageServer *server, PageServerFigures *ret_figures);

#endif
