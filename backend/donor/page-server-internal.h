/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the page server's files share: one connection, from its handshake (page-handshake.c) to its requests (page-requests.c).
 */
#ifndef DOMYBS_DONOR_PAGE_SERVER_INTERNAL_H
#define DOMYBS_DONOR_PAGE_SERVER_INTERNAL_H

#include "core/nbd.h"
#include "donor/page-server.h"
#include "io/log-limit.h"

#define IN_BYTES 8192u           /* an option's data at most; or many requests */
#define HANDSHAKE_OUT_BYTES 512u /* what is to be said about one option */
#define REPLIES 16u              /* that are sent by one call */
#define REPLY_HEADER_BYTES 32u
#define STATUS_EXTENTS 128u

typedef struct PageConnection PageConnection;

struct PageServer {
  SecureSide *tls; /* NULL: none */
  const ExportsKind *kind;
  gpointer exports;
  PageServerLimits limits;
  GPtrArray *listeners;    /* of struct listener */
  GPtrArray *connections;  /* of PageConnection, in no order */
  PageConnection *current; /* that is being served: it is freed when that returns */
  GSource *patience;       /* until patience_until (µs), where a connection has a deadline */
  gint64 patience_until;
  guint64 serial;
  guint8 *zeroes; /* EXPORT_BLOCK_BYTES, read only: what is not there */
  LogLimit log;
  PageServerFigures figures;
};

enum page_state {
  PAGE_STATE_FLAGS,       /* the client's flags are to come */
  PAGE_STATE_OPTION,      /* an option's header */
  PAGE_STATE_OPTION_DATA, /* its data */
  PAGE_STATE_OPTION_SKIP, /* its data, that are too many */
  PAGE_STATE_SERVING,     /* requests */
};

/* An answer that waits to be sent: the header, then bytes of the export. */
struct page_reply {
  guint8 header[REPLY_HEADER_BYTES];
  guint header_bytes;
  gboolean status;    /* header, then the connection's status */
  guint64 offset;     /* of the data */
  guint32 data_bytes; /* 0: none */
};

struct PageConnection {
  PageServer *server;
  SecureStream *stream;
  guint64 serial;
  char identity[PSK_IDENTITY_BYTES_MAX + 1]; /* "": none */
  enum page_state state;
  gboolean authenticated, no_zeroes, structured, allocation, lease_spoken;
  gboolean ended;     /* closed; freed when the call that serves it returns */
  gboolean last;      /* to be closed when all is sent */
  gboolean tls_next;  /* STARTTLS was agreed to, and TLS begins when all is sent */
  char *context_name; /* the export that SET_META_CONTEXT was for */
  gpointer export;
  guint64 export_bytes;
  gint64 deadline; /* µs; 0: none */
  guint32 option, option_bytes;
  gsize in_at, in_end, out_at, out_end; /* of in; of out, in the handshake */
  gsize sent;                           /* of the first reply */
  guint n_replies;
  gboolean status_queued, data_queued; /* among the replies */
  guint status_bytes;
  struct nbd_request request; /* that is being carried out, where `wide` or `receives` */
  gboolean wide;              /* TRIM or WRITE_ZEROES, in steps */
  gboolean receives;          /* the data of a WRITE */
  guint32 done;               /* bytes of it */
  enum nbd_error error;
  struct page_reply replies[REPLIES];
  guint8 status[8 * STATUS_EXTENTS];
  guint8 out[HANDSHAKE_OUT_BYTES];
  guint8 in[IN_BYTES];
};

/* Closes it: its export, its socket. Freed at once, or when who serves it returns. why: for the log, the peer's fault; NULL:
 * nothing to say. */
void page_connection_end (PageConnection *connection, const char *why);
/* A time from now on at which it is closed, unless it has one already; ms 0: none. */
void page_connection_patience (PageConnection *connection, guint ms);
/* The peer has shown who it is. FALSE: it has too many connections, and this one has ended. */
gboolean page_connection_known (PageConnection *connection);

/* Go on, as far as it goes without waiting. */
void page_handshake_step (PageConnection *connection);
void page_requests_step (PageConnection *connection);
/* Called by the stream. */
void page_connection_ready (SecureStream *stream, GIOCondition ready, gpointer data);

static inline void
page_connection_watch (PageConnection *connection, GIOCondition condition) {
  secure_stream_watch (connection->stream, condition, page_connection_ready, connection);
}

#endif
