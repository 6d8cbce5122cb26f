/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The handshake phase of a connection: one option after the other, each answered before the next is read. Never a byte beyond
 * what is waited for is read, so that nothing that came before TLS can pass for something that came through it.
 */
#include "donor/page-server-internal.h"

#include "core/lease.h"

#include <errno.h>
#include <string.h>

#define OPTIONS_A_TURN 16u
#define SKIP_BYTES_MAX (64u * 1024)
#define CONTEXT_ID 1u
#define QUERIES_MAX 16u
#define EXPORT_NAME_ZEROES 124u
#define PREFERRED_BYTES 4096u

/* ---- answers ---- */

static void
put (PageConnection *connection, const void *bytes, gsize n) {
  g_assert (n <= HANDSHAKE_OUT_BYTES - connection->out_end);
  if (n)
    memcpy (connection->out + connection->out_end, bytes, n);
  connection->out_end += n;
}

static void
reply (PageConnection *connection, guint32 type, const void *bytes, gsize n) {
  guint8 header[NBD_OPTION_REPLY_BYTES];

  nbd_option_reply_encode (connection->option, type, (guint32)n, header);
  put (connection, header, sizeof header);
  put (connection, bytes, n);
}

static void
reply_error (PageConnection *connection, guint32 type, const char *text) {
  reply (connection, type, text, MIN (strlen (text), HANDSHAKE_OUT_BYTES / 2));
}

static guint16
transmission_flags (const PageConnection *connection) {
  const guint16 flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA | NBD_FLAG_SEND_TRIM
                        | NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_CAN_MULTI_CONN;

  return connection->structured ? flags | NBD_FLAG_SEND_DF : flags;
}

/* ---- exports ---- */

static gpointer
open_export (PageConnection *connection, const struct nbd_text *name, guint64 *ret_bytes, const char **ret_why) {
  PageServer *server = connection->server;
  g_autofree char *text = NULL;
  gpointer export;

  *ret_why = "there is no such export";
  if (name->n > NBD_NAME_BYTES_MAX || memchr (name->bytes, '\0', name->n))
    return NULL;
  text = g_strndup ((const char *)name->bytes, name->n);
  export = server->kind->open (server->exports, connection->identity, text, ret_bytes, ret_why);
  if (g_strcmp0 (connection->context_name, text) != 0)
    connection->allocation = FALSE;
  return export;
}

static void
begin_serving (PageConnection *connection, gpointer export, guint64 bytes) {
  connection->export = export;
  connection->export_bytes = bytes;
  connection->state = PAGE_STATE_SERVING;
  page_connection_patience (connection, 0);
}

static void
do_go (PageConnection *connection) {
  guint8 info[NBD_INFO_EXPORT_BYTES], sizes[NBD_INFO_BLOCK_SIZE_BYTES];
  struct nbd_text name;
  const char *why;
  guint64 bytes;
  gpointer export;

  if (!nbd_go_decode (connection->in, connection->option_bytes, &name)) {
    reply_error (connection, NBD_REP_ERR_INVALID, "the option's data are malformed");
    return;
  }
  export = open_export (connection, &name, &bytes, &why);
  if (!export) {
    reply_error (connection, NBD_REP_ERR_UNKNOWN, why);
    return;
  }
  nbd_info_export_encode (bytes, transmission_flags (connection), info);
  reply (connection, NBD_REP_INFO, info, sizeof info);
  nbd_info_block_size_encode (1, PREFERRED_BYTES, NBD_REQUEST_DATA_MAX, sizes);
  reply (connection, NBD_REP_INFO, sizes, sizeof sizes);
  reply (connection, NBD_REP_ACK, NULL, 0);
  if (connection->option == NBD_OPT_GO)
    begin_serving (connection, export, bytes);
  else
    connection->server->kind->close (connection->server->exports, export);
}

/* The old way: it has no answer that says no. */
static void
do_export_name (PageConnection *connection) {
  const struct nbd_text name = { connection->in, connection->option_bytes };
  guint8 answer[10 + EXPORT_NAME_ZEROES] = { 0 };
  const char *why;
  guint64 bytes;
  gpointer export = open_export (connection, &name, &bytes, &why);

  if (!export) {
    page_connection_end (connection, why);
    return;
  }
  nbd_put64 (answer, bytes);
  nbd_put16 (answer + 8, transmission_flags (connection));
  put (connection, answer, connection->no_zeroes ? 10 : sizeof answer);
  begin_serving (connection, export, bytes);
}

static void
do_meta_context (PageConnection *connection) {
  const gboolean set = connection->option == NBD_OPT_SET_META_CONTEXT;
  guint8 context[4 + sizeof NBD_CONTEXT_ALLOCATION - 1];
  struct nbd_text name, queries[QUERIES_MAX];
  gboolean wanted = FALSE;
  guint32 count, i;

  if (set) {
    connection->allocation = FALSE;
    g_clear_pointer (&connection->context_name, g_free);
  }
  if (!nbd_meta_decode (connection->in, connection->option_bytes, &name, queries, QUERIES_MAX, &count)) {
    reply_error (connection, NBD_REP_ERR_INVALID, "the option's data are malformed");
    return;
  }
  if (!connection->structured) {
    reply_error (connection, NBD_REP_ERR_INVALID, "structured replies come first");
    return;
  }
  for (i = 0; i < count; i++)
    wanted |= nbd_text_is (&queries[i], NBD_CONTEXT_ALLOCATION) || (!set && nbd_text_is (&queries[i], "base:"));
  if (wanted || (!set && count == 0)) {
    nbd_put32 (context, set ? CONTEXT_ID : 0);
    memcpy (context + 4, NBD_CONTEXT_ALLOCATION, sizeof context - 4);
    reply (connection, NBD_REP_META_CONTEXT, context, sizeof context);
  }
  reply (connection, NBD_REP_ACK, NULL, 0);
  if (set && wanted && !memchr (name.bytes, '\0', name.n)) {
    connection->allocation = TRUE;
    connection->context_name = g_strndup ((const char *)name.bytes, name.n);
  }
}

static void
do_lease (PageConnection *connection) {
  PageServer *server = connection->server;
  guint8 answer[LEASE_ANSWER_BYTES];
  gsize n;

  if (!server->kind->lease) {
    reply_error (connection, NBD_REP_ERR_UNSUP, "this server knows no leases");
    return;
  }
  n = server->kind->lease (server->exports, connection->identity, connection->in, connection->option_bytes, answer);
  if (n == 0 || n > sizeof answer) {
    page_connection_end (connection, "it sent no lease request where one belongs");
    return;
  }
  server->figures.lease_requests++;
  connection->lease_spoken = TRUE;
  page_connection_patience (connection, 0);
  page_connection_patience (connection, server->limits.lease_idle_ms);
  reply (connection, NBD_REP_LEASE, answer, n);
}

static void
do_start_tls (PageConnection *connection) {
  if (!connection->server->tls)
    reply_error (connection, NBD_REP_ERR_UNSUP, "this server has no TLS");
  else if (connection->authenticated || connection->option_bytes)
    reply_error (connection, NBD_REP_ERR_INVALID,
                 connection->authenticated ? "there is TLS already" : "this option has no data");
  else {
    reply (connection, NBD_REP_ACK, NULL, 0);
    connection->tls_next = TRUE;
  }
}

static void
do_option (PageConnection *connection) {
  const gboolean too_soon = connection->server->tls && !connection->authenticated;

  switch (connection->option) {
  case NBD_OPT_ABORT:
    reply (connection, NBD_REP_ACK, NULL, 0);
    connection->last = TRUE;
    return;
  case NBD_OPT_STARTTLS:
    do_start_tls (connection);
    return;
  case NBD_OPT_EXPORT_NAME:
    if (too_soon)
      page_connection_end (connection, "it wants an export without TLS");
    else
      do_export_name (connection);
    return;
  }
  if (too_soon) {
    reply_error (connection, NBD_REP_ERR_TLS_REQD, "TLS with a pre-shared key comes first");
    return;
  }
  switch (connection->option) {
  case NBD_OPT_LIST: /* names are for those who know them */
  case NBD_OPT_STRUCTURED_REPLY:
    if (connection->option_bytes) {
      reply_error (connection, NBD_REP_ERR_INVALID, "this option has no data");
      return;
    }
    connection->structured |= connection->option == NBD_OPT_STRUCTURED_REPLY;
    reply (connection, NBD_REP_ACK, NULL, 0);
    return;
  case NBD_OPT_GO:
  case NBD_OPT_INFO:
    do_go (connection);
    return;
  case NBD_OPT_LIST_META_CONTEXT:
  case NBD_OPT_SET_META_CONTEXT:
    do_meta_context (connection);
    return;
  case NBD_OPT_LEASE:
    do_lease (connection);
    return;
  default:
    reply_error (connection, NBD_REP_ERR_UNSUP, "this server does not know that option");
  }
}

/* ---- what has come ---- */

/* Bytes that belong to what is waited for. */
static gsize
wanted_bytes (const PageConnection *connection) {
  switch (connection->state) {
  case PAGE_STATE_FLAGS:
    return NBD_CLIENT_FLAGS_BYTES;
  case PAGE_STATE_OPTION:
    return NBD_OPTION_BYTES;
  case PAGE_STATE_OPTION_SKIP:
    return MIN (connection->option_bytes, IN_BYTES);
  default:
    return connection->option_bytes;
  }
}

static void
take_flags (PageConnection *connection) {
  const guint32 flags = nbd_get32 (connection->in);

  connection->state = PAGE_STATE_OPTION;
  connection->no_zeroes = (flags & NBD_FLAG_NO_ZEROES) != 0;
  if (flags & ~(guint32)(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES))
    page_connection_end (connection, "it has flags that nobody offered");
}

static void
take_option (PageConnection *connection) {
  if (!nbd_option_decode (connection->in, &connection->option, &connection->option_bytes))
    page_connection_end (connection, "it sent no option where one belongs");
  else if (connection->option_bytes > SKIP_BYTES_MAX)
    page_connection_end (connection, "an option has too many data");
  else
    connection->state = connection->option_bytes > IN_BYTES ? PAGE_STATE_OPTION_SKIP : PAGE_STATE_OPTION_DATA;
}

/* What was waited for is there, in in. */
static void
take (PageConnection *connection) {
  connection->in_end = 0;
  switch (connection->state) {
  case PAGE_STATE_FLAGS:
    take_flags (connection);
    break;
  case PAGE_STATE_OPTION:
    take_option (connection);
    break;
  case PAGE_STATE_OPTION_DATA:
    connection->state = PAGE_STATE_OPTION;
    do_option (connection);
    break;
  default: /* SKIP */
    connection->option_bytes -= MIN (connection->option_bytes, IN_BYTES);
    if (connection->option_bytes == 0) {
      connection->state = PAGE_STATE_OPTION;
      reply_error (connection, NBD_REP_ERR_TOO_BIG, "the option has too many data");
    }
  }
}

/* FALSE: not all of it can go now, or the connection has ended. */
static gboolean
send_out (PageConnection *connection) {
  gssize n;

  while (connection->out_at < connection->out_end) {
    n = secure_stream_write (connection->stream, connection->out + connection->out_at,
                             connection->out_end - connection->out_at);
    if (n == -EAGAIN) {
      page_connection_watch (connection, G_IO_OUT);
      return FALSE;
    }
    if (n < 0) {
      page_connection_end (connection, NULL);
      return FALSE;
    }
    connection->out_at += (gsize)n;
  }
  connection->out_at = connection->out_end = 0;
  if (connection->last)
    page_connection_end (connection, NULL);
  return !connection->ended;
}

static void
ended_by_peer (PageConnection *connection, gssize result) {
  if (result < 0 && connection->server->tls && !connection->authenticated && secure_stream_refused (connection->stream))
    connection->server->figures.handshakes_failed++;
  page_connection_end (connection, result == -EPROTO ? secure_stream_why (connection->stream) : NULL);
}

void
page_handshake_step (PageConnection *connection) {
  guint options = 0;
  gssize n;

  while (send_out (connection) && connection->state != PAGE_STATE_SERVING) {
    gsize wanted;

    if (connection->tls_next) {
      connection->tls_next = FALSE;
      secure_stream_start_tls (connection->stream, connection->server->tls);
    }
    wanted = wanted_bytes (connection);
    if (options >= OPTIONS_A_TURN) {
      page_connection_watch (connection, G_IO_IN);
      secure_stream_again (connection->stream);
      return;
    }
    if (wanted > connection->in_end) {
      n = secure_stream_read (connection->stream, connection->in + connection->in_end, wanted - connection->in_end);
      if (n == -EAGAIN) {
        page_connection_watch (connection, G_IO_IN);
        return;
      }
      if (n <= 0) {
        ended_by_peer (connection, n);
        return;
      }
      connection->in_end += (gsize)n;
      if (!connection->authenticated && secure_stream_identity (connection->stream) && !page_connection_known (connection))
        return;
    }
    if (connection->in_end >= wanted) {
      options += connection->state == PAGE_STATE_OPTION_DATA;
      take (connection);
      if (connection->ended)
        return;
    }
  }
}
