/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The page channel of one far disk to one donor, the borrower's end: attaches a lease, keeps it, and reads, writes and trims
 * pages of its export.
 *
 * Wire: NBD (fixed newstyle) over TCP, TLS 1.3 with a pre-shared key; lease requests (core/lease.h) are a private option in the
 * handshake phase of a connection of their own. Demand reads, write-out and prefetch have a connection each, so that none waits
 * behind another; requests are pipelined on each.
 *
 * Connects, attaches, and connects again by itself, later each time (up to some seconds). Asynchronous, on the thread-default
 * GMainContext of who made it; nothing blocks.
 */
#ifndef DOMYBS_IO_PAGE_CHANNEL_H
#define DOMYBS_IO_PAGE_CHANNEL_H

#include "core/lease.h"

#include <glib.h>

typedef struct PageChannel PageChannel;
typedef struct PageIo PageIo;

enum page_op { PAGE_READ, PAGE_WRITE, PAGE_TRIM };
enum page_class { PAGE_DEMAND, PAGE_WRITE_OUT, PAGE_PREFETCH, PAGE_CLASSES };

/* error: 0, or
 *
 *   ENOSPC     beyond the lease's level
 *
 *   ENOTCONN   there is no connection, or it broke: whether a write was carried out, or a part of it, is not known; what was not
 *              never will be once the state is ATTACHED again (the donor has fenced the old connections)
 *
 *   ETIMEDOUT  the deadline has passed: as before; the connection is given up
 *
 *   ESTALE     lease, epoch or incarnation are not that any more
 *
 *   EIO, …     what the donor said
 */
typedef void (*PageDone) (PageIo *io, int error);

/* The caller's, and left alone until done was called. */
struct PageIo {
  enum page_op op;
  enum page_class class;
  guint64 offset;    /* multiples of 4096, within the export */
  gsize bytes;       /* 4096 … 2 MiB; TRIM: whole blocks, or any */
  void *buf;         /* not TRIM */
  guint deadline_ms; /* from submit on; 0: none */
  PageDone done;     /* never from within submit or kick */
  gpointer data;
  gint64 began; /* µs, set by submit */
  gpointer internal[4];
};

enum page_channel_state {
  PAGE_CHANNEL_DOWN,     /* no connection: unreachable is not lost */
  PAGE_CHANNEL_ATTACHED, /* requests are carried out (PREFETCH ends with ENOTCONN while only that connection is away) */
  PAGE_CHANNEL_LOST, /* the contents are gone for certain (another incarnation, lease ended): it goes on, with an empty lease,
                      * after page_channel_begin_anew */
  PAGE_CHANNEL_REFUSED, /* the donor does not want us: key, limit, a higher session; `why` says so. Tried again slowly */
};

typedef struct {
  /* state, level, revoke, reachability, or whether the donor has room left, have changed; may be called often. From the main loop only, never from within a call
   * of the owner's; when the state becomes ATTACHED, before any request is taken. What was under way has ended before DOWN or
   * LOST is told. The channel must not be freed in it, nor in a request's done. */
  void (*changed) (PageChannel *channel, gpointer data);
  gpointer data;
} PageChannelWatch;

typedef struct {
  const char *name;         /* the donor's, for the log */
  const char *address;      /* as io/tcp.h has them: numbers, no names */
  const char *psk_identity; /* NULL: no TLS (tests, measurements) */
  const guint8 *psk;        /* copied, wiped with the channel */
  gsize psk_bytes;
  uint8_t vm[LEASE_ID_BYTES], host[LEASE_ID_BYTES], boot[LEASE_ID_BYTES];
  uint32_t disk;
  uint32_t worker;        /* the number of this worker, from 1 on: above those of all workers of this disk before */
  uint64_t export_blocks; /* of 2 MiB */
  uint8_t incarnation[LEASE_ID_BYTES]; /* that copies of earlier workers are in … */
  uint64_t lease;                      /* … with the lease; zeroes, 0: there are none */
  guint keep_ms;                       /* between keep-alives; 0: 5000 */
} PageChannelOptions;

/* Begins to connect. Error: what is wrong with the options; a donor that does not answer is none. Before sandbox_worker: what
 * the channel calls then is let through. */
PageChannel *page_channel_new (const PageChannelOptions *options, const PageChannelWatch *watch, GError **error);
/* What is under way ends with ENOTCONN before it returns. The lease stays as it is (detached): page_channel_end_lease ends it.
 */
void page_channel_free (PageChannel *channel);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (PageChannel, page_channel_free)

/* Requests of a class are carried out in the order of submit; there is no order between classes. What is not within the export
 * ends with EINVAL. */
void page_channel_submit (PageChannel *channel, PageIo *io);
/* Sends what was submitted. */
void page_channel_kick (PageChannel *channel);

/* The level that is wanted from now on, in blocks; GRANT and RELEASE are sent as needed, and repeated (a RELEASE also after
 * TRIMs). */
void page_channel_want (PageChannel *channel, guint64 blocks);
/* PAGE_CHANNEL_LOST: the owner has noted that all copies there are gone. */
void page_channel_begin_anew (PageChannel *channel);
/* Gives all of it back; done is called when the donor has said so, or after timeout_ms. */
void page_channel_end_lease (PageChannel *channel, guint timeout_ms, void (*done) (gpointer data, gboolean ok), gpointer data);

typedef struct {
  enum page_channel_state state;
  const char *why;           /* DOWN, REFUSED: for people; else NULL */
  gint64 since_us;           /* monotonic: when state began */
  struct lease_answer lease; /* the last one; zeroes before the first */
  gint64 revoke_deadline_us; /* monotonic; 0: no revoke */
  guint64 requests[PAGE_CLASSES], bytes_read, bytes_written, errors, timeouts, reconnects;
  guint in_flight[PAGE_CLASSES];
} PageChannelFigures;
void page_channel_figures (const PageChannel *channel, PageChannelFigures *ret_figures);

#endif
