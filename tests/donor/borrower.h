/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A borrower that waits for each answer: lease requests and pages over sockets of its own, plain or TLS. Aborts the test where
 * a donor breaks the protocol or lets it wait; what a donor may do (refuse, close) is returned. */
#ifndef DOMYBS_TESTS_DONOR_BORROWER_H
#define DOMYBS_TESTS_DONOR_BORROWER_H

#include "core/lease.h"
#include "core/nbd.h"

#include <glib.h>

struct borrower_key {
  const char *identity;
  guint8 key[32];
};

/* One connection. */
struct wire;
/* address: "127.0.0.1:PORT" or "unix:PATH"; key NULL: plain. NULL: nobody there, or TLS was refused. Past STARTTLS. */
struct wire *wire_open (const char *address, const struct borrower_key *key);
void wire_close (struct wire *wire);
/* FALSE: the peer has closed it. */
gboolean wire_write (struct wire *wire, const void *bytes, gsize n);
gboolean wire_read (struct wire *wire, void *bytes, gsize n);
int wire_fd (const struct wire *wire);

/* A request and its answer; FALSE: it was closed. */
gboolean wire_lease (struct wire *wire, const struct lease_request *request, struct lease_answer *ret_answer);
/* GO. 0, or the error reply's type; −1: it was closed. */
gint64 wire_go (struct wire *wire, const char *name, guint64 *ret_bytes);
/* The error of the reply (enum nbd_error); −1: it was closed. */
int wire_request (struct wire *wire, guint16 command, guint64 offset, guint32 bytes, void *data);

/* A far disk of a VM's life. */
struct borrower {
  const char *address;
  const struct borrower_key *key;
  uint8_t vm[LEASE_ID_BYTES], host[LEASE_ID_BYTES], boot[LEASE_ID_BYTES];
  uint32_t disk;
  uint64_t session, seq;
  struct lease_answer last;
  struct wire *lease, *pages; /* NULL: not connected */
};

/* Begins a session: attaches, and opens the export of export_blocks. */
enum lease_verdict borrower_attach (struct borrower *borrower, uint64_t export_blocks);
/* On its lease connection, which is made again once if it is closed. Aborts when there is no donor. */
enum lease_verdict borrower_ask (struct borrower *borrower, enum lease_verb verb, uint64_t blocks);
gboolean borrower_open_pages (struct borrower *borrower);
/* Drops its connections. */
void borrower_leave (struct borrower *borrower);

/* Pages of one block say whose they are. Error as above. */
int borrower_put (struct borrower *borrower, guint64 block, guint64 stamp);
/* 0: the block has none. */
int borrower_get (struct borrower *borrower, guint64 block, guint64 *ret_stamp);
int borrower_trim (struct borrower *borrower, guint64 block);

#endif
