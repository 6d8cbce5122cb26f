/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a page server (donor/page-server.h) serves: exports of memory in blocks of 2 MiB, some of which are there. The donor's are its
 * leases (donor/lender.h); tests have their own.
 *
 * All calls come from the page server's thread.
 */
#ifndef DOMYBS_DONOR_EXPORTS_H
#define DOMYBS_DONOR_EXPORTS_H

#include <glib.h>

#define EXPORT_BLOCK_BYTES (2u << 20)

typedef struct {
  /* A connection of identity (of its TLS key; "" without TLS) wants the export of that name, which may be any bytes. Returns the export,
   * for one connection, and its size (a multiple of EXPORT_BLOCK_BYTES); NULL: refused, with a sentence for the peer. */
  gpointer (*open) (gpointer exports, const char *identity, const char *name, guint64 *ret_bytes, const char **ret_why);
  /* That connection has ended: nothing of it is written any more. */
  void (*close) (gpointer exports, gpointer export);
  /* The block's memory, or NULL: there is none, it reads as zeroes. Valid until the caller's next return to the main loop. */
  const guint8 *(*look) (gpointer exports, gpointer export, guint64 block);
  /* The same for writing; a block that has none gets zeroed memory. NULL with ret_errno: ENOSPC (beyond the lease), ESTALE (the lease is
   * no more what it was). */
  guint8 *(*take) (gpointer exports, gpointer export, guint64 block, int *ret_errno);
  /* The block is no longer wanted: its contents are gone, it reads as zeroes. */
  void (*drop) (gpointer exports, gpointer export, guint64 block);
  /* A lease request (core/lease.h) of that identity; answer has LEASE_ANSWER_BYTES. Returns the answer's length; 0: the bytes were none, the
   * connection is to be closed. NULL: this server knows no leases. */
  gsize (*lease) (gpointer exports, const char *identity, const guint8 *request, gsize bytes, guint8 *ret_answer);
} ExportsKind;

#endif
