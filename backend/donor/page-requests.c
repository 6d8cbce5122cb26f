/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The requests of a connection, one after the other. Answers gather until there is nothing more to read (or enough of them, or
 * memory is going to be changed), and go out together, data straight from the export's memory; while they do not go, nothing
 * more is read. A WRITE's data go straight into the export's memory.
 *
 * The export may be closed from within any of its own calls (a fence): after each of them, connection->ended is looked at.
 */
#include "donor/page-server-internal.h"

#include <errno.h>
#include <string.h>

#define REQUESTS_A_TURN 64u
#define BYTES_A_TURN (1u << 20)        /* then it is the turn of the others, who perhaps wait for a single page */
#define RECEIVE_BYTES_MAX (256u << 10) /* of a WRITE at once: the same */
#define BLOCKS_A_TURN 256u
#define DISCARD_BYTES_MAX (32u << 20) /* of a WRITE that is too large: it gets an answer; a larger one ends the connection */
#define SCRATCH_BYTES (64u * 1024)

/* Where what nobody wants is read to. */
static guint8 scratch[SCRATCH_BYTES];

/* ---- the export's memory ---- */

static const guint8 *
look (PageConnection *connection, guint64 block) {
  PageServer *server = connection->server;

  return connection->ended ? NULL : server->kind->look (server->exports, connection->export, block);
}

/* NULL: connection->error says why. */
static guint8 *
take (PageConnection *connection, guint64 block) {
  PageServer *server = connection->server;
  guint8 *memory = NULL;
  int error = ESTALE;

  if (!connection->ended)
    memory = server->kind->take (server->exports, connection->export, block, &error);
  if (memory && !connection->ended)
    return memory;
  connection->error = error == ENOSPC ? NBD_ENOSPC : error == ESTALE ? NBD_ESHUTDOWN : error == ENOMEM ? NBD_ENOMEM : NBD_EIO;
  connection->last |= error == ESTALE;
  return NULL;
}

static void
drop (PageConnection *connection, guint64 block) {
  PageServer *server = connection->server;

  if (!connection->ended)
    server->kind->drop (server->exports, connection->export, block);
}

/* How much of [offset, offset + bytes) lies in its first block. */
static guint32
within_block (guint64 offset, guint32 bytes) {
  const guint32 left = EXPORT_BLOCK_BYTES - (guint32)(offset % EXPORT_BLOCK_BYTES);

  return MIN (left, bytes);
}

/* ---- answers ---- */

static struct page_reply *
add_reply (PageConnection *connection) {
  struct page_reply *reply = &connection->replies[connection->n_replies++];

  reply->status = FALSE;
  reply->data_bytes = 0;
  return reply;
}

static void
reply_simple (PageConnection *connection, const struct nbd_request *request, enum nbd_error error) {
  struct page_reply *reply = add_reply (connection);

  nbd_simple_encode (error, request->cookie, reply->header);
  reply->header_bytes = NBD_SIMPLE_BYTES;
  connection->server->figures.errors += error != NBD_OK;
}

static void
reply_chunk (PageConnection *connection, const struct nbd_request *request, struct page_reply *reply, guint16 type, guint extra,
             guint32 data) {
  nbd_chunk_encode (NBD_CHUNK_FLAG_DONE, type, request->cookie, extra + data, reply->header);
  reply->header_bytes = NBD_CHUNK_BYTES + extra;
}

static void
reply_error (PageConnection *connection, const struct nbd_request *request, enum nbd_error error) {
  struct page_reply *reply;

  if (!connection->structured) {
    reply_simple (connection, request, error);
    return;
  }
  reply = add_reply (connection);
  nbd_put32 (reply->header + NBD_CHUNK_BYTES, error);
  nbd_put16 (reply->header + NBD_CHUNK_BYTES + 4, 0); /* no text */
  reply_chunk (connection, request, reply, NBD_CHUNK_ERROR, 6, 0);
  connection->server->figures.errors++;
}

/* The pieces of a reply from its byte `skip` on. Returns their number, 4 at most: the header, and a READ is over two blocks at
 * most. */
static guint
pieces_of (PageConnection *connection, const struct page_reply *reply, gsize skip, struct iovec *pieces) {
  guint64 offset = reply->offset;
  guint32 left = reply->data_bytes;
  guint n = 0;

  if (skip < reply->header_bytes)
    pieces[n++] = (struct iovec){ (guint8 *)reply->header + skip, reply->header_bytes - skip };
  skip -= MIN (skip, reply->header_bytes);
  if (reply->status && skip < connection->status_bytes)
    pieces[n++] = (struct iovec){ connection->status + skip, connection->status_bytes - skip };
  offset += skip;
  left -= reply->status ? 0 : (guint32)skip;
  while (left && !reply->status) {
    const guint32 here = within_block (offset, left);
    const guint8 *memory = look (connection, offset / EXPORT_BLOCK_BYTES);

    /* Not changed: they are written to the socket only. */
    pieces[n++] = memory ? (struct iovec){ (guint8 *)memory + offset % EXPORT_BLOCK_BYTES, here }
                         : (struct iovec){ connection->server->zeroes, here };
    offset += here;
    left -= here;
  }
  return n;
}

static gsize
reply_bytes (const PageConnection *connection, const struct page_reply *reply) {
  return reply->header_bytes + (reply->status ? connection->status_bytes : reply->data_bytes);
}

/* n bytes of the answers have gone. */
static void
replies_gone (PageConnection *connection, gsize n) {
  guint gone = 0;

  connection->sent += n;
  while (gone < connection->n_replies && connection->sent >= reply_bytes (connection, &connection->replies[gone])) {
    connection->sent -= reply_bytes (connection, &connection->replies[gone]);
    connection->status_queued &= !connection->replies[gone].status;
    gone++;
  }
  connection->n_replies -= gone;
  memmove (connection->replies, connection->replies + gone, connection->n_replies * sizeof *connection->replies);
  if (gone)
    page_connection_patience (connection, 0);
}

/* FALSE: they do not all go now, or the connection has ended. */
static gboolean
send_replies (PageConnection *connection) {
  while (connection->n_replies) {
    struct iovec pieces[4 * REPLIES];
    guint i, n = 0;
    gssize gone;

    for (i = 0; i < connection->n_replies; i++)
      n += pieces_of (connection, &connection->replies[i], i ? 0 : connection->sent, pieces + n);
    if (connection->ended)
      return FALSE;
    gone = secure_stream_writev (connection->stream, pieces, n);
    if (gone == -EAGAIN) {
      page_connection_watch (connection, G_IO_OUT);
      page_connection_patience (connection, connection->server->limits.request_ms);
      return FALSE;
    }
    if (gone < 0) {
      page_connection_end (connection, NULL);
      return FALSE;
    }
    replies_gone (connection, (gsize)gone);
  }
  connection->data_queued = FALSE;
  if (connection->last)
    page_connection_end (connection, NULL);
  return !connection->ended;
}

/* ---- requests that are answered at once ---- */

static gboolean
is_hole (PageConnection *connection, guint64 offset, guint32 bytes) {
  while (bytes) {
    const guint32 here = within_block (offset, bytes);

    if (look (connection, offset / EXPORT_BLOCK_BYTES))
      return FALSE;
    offset += here;
    bytes -= here;
  }
  return TRUE;
}

static void
do_read (PageConnection *connection, const struct nbd_request *request) {
  struct page_reply *reply;

  connection->server->figures.bytes_read += request->bytes;
  if (!connection->structured) {
    reply_simple (connection, request, NBD_OK);
    reply = &connection->replies[connection->n_replies - 1];
  } else {
    reply = add_reply (connection);
    nbd_put64 (reply->header + NBD_CHUNK_BYTES, request->offset);
    nbd_put32 (reply->header + NBD_CHUNK_BYTES + 8, request->bytes);
    if (!(request->flags & NBD_CMD_FLAG_DF) && is_hole (connection, request->offset, request->bytes)) {
      reply_chunk (connection, request, reply, NBD_CHUNK_OFFSET_HOLE, 12, 0);
      return;
    }
    reply_chunk (connection, request, reply, NBD_CHUNK_OFFSET_DATA, 8, request->bytes);
  }
  reply->offset = request->offset;
  reply->data_bytes = request->bytes;
  connection->data_queued = TRUE;
}

/* What is there, in runs. */
static void
do_block_status (PageConnection *connection, const struct nbd_request *request) {
  const guint max = request->flags & NBD_CMD_FLAG_REQ_ONE ? 1 : STATUS_EXTENTS;
  struct page_reply *reply;
  guint64 offset = request->offset;
  guint32 left = request->bytes, run = 0;
  guint n = 0;

  while (left) {
    const guint32 here = within_block (offset, left);
    const guint32 state = look (connection, offset / EXPORT_BLOCK_BYTES) ? 0 : NBD_STATE_HOLE | NBD_STATE_ZERO;

    if (n == 0 || nbd_get32 (connection->status + 8 * (n - 1) + 4) != state) {
      if (n == max)
        break;
      n++;
      run = 0;
      nbd_put32 (connection->status + 8 * (n - 1) + 4, state);
    }
    run += here;
    nbd_put32 (connection->status + 8 * (n - 1), run);
    offset += here;
    left -= here;
  }
  if (connection->ended)
    return;
  reply = add_reply (connection);
  reply->status = connection->status_queued = TRUE;
  connection->status_bytes = 8 * n;
  nbd_put32 (reply->header + NBD_CHUNK_BYTES, 1); /* the context's id */
  reply_chunk (connection, request, reply, NBD_CHUNK_BLOCK_STATUS, 4, connection->status_bytes);
}

/* ---- requests in steps ---- */

static void
begin_write (PageConnection *connection, const struct nbd_request *request, enum nbd_error error) {
  connection->request = *request;
  connection->receives = TRUE;
  connection->done = 0;
  connection->error = error;
}

/* n more bytes of a WRITE's data are there. */
static void
write_goes_on (PageConnection *connection, gsize n) {
  connection->done += (guint32)n;
  if (connection->done < connection->request.bytes)
    return;
  connection->receives = FALSE;
  page_connection_patience (connection, 0);
  if (connection->error == NBD_OK)
    connection->server->figures.bytes_written += connection->request.bytes;
  reply_simple (connection, &connection->request, connection->error);
}

/* Where the rest of a WRITE's data go (all of it, so that what is beyond the lease is beyond it before half of it is written):
 * two pieces of the export at most, or the scratch memory. Returns their number; 0: the connection has ended. */
static guint
write_pieces (PageConnection *connection, struct iovec *pieces) {
  guint64 offset = connection->request.offset + connection->done;
  guint32 left = connection->request.bytes - connection->done;
  guint n = 0;

  while (left && connection->error == NBD_OK) {
    const guint32 here = within_block (offset, left);
    guint8 *memory = take (connection, offset / EXPORT_BLOCK_BYTES);

    if (memory)
      pieces[n++] = (struct iovec){ memory + offset % EXPORT_BLOCK_BYTES, here };
    offset += here;
    left -= here;
  }
  if (connection->ended)
    return 0;
  if (connection->error == NBD_OK) {
    pieces[0].iov_len = MIN (pieces[0].iov_len, RECEIVE_BYTES_MAX);
    pieces[n - 1].iov_len = MIN (pieces[n - 1].iov_len, RECEIVE_BYTES_MAX);
    return pieces[0].iov_len == RECEIVE_BYTES_MAX ? 1 : n;
  }
  pieces[0] = (struct iovec){ scratch, MIN (connection->request.bytes - connection->done, SCRATCH_BYTES) };
  return 1;
}

/* Data that came together with the request's header. */
static void
write_from_in (PageConnection *connection) {
  struct iovec pieces[3];
  const guint n = write_pieces (connection, pieces);
  guint i;

  for (i = 0; i < n && connection->in_at < connection->in_end; i++) {
    const gsize here = MIN (pieces[i].iov_len, connection->in_end - connection->in_at);

    memcpy (pieces[i].iov_base, connection->in + connection->in_at, here);
    connection->in_at += here;
    write_goes_on (connection, here);
  }
}

/* One step of a TRIM or WRITE_ZEROES. */
static void
do_wide (PageConnection *connection) {
  const struct nbd_request *request = &connection->request;
  const gboolean zeroes = request->command == NBD_CMD_WRITE_ZEROES;
  guint32 blocks = BLOCKS_A_TURN, budget = EXPORT_BLOCK_BYTES;

  while (connection->done < request->bytes && blocks && budget && connection->error == NBD_OK) {
    const guint64 offset = request->offset + connection->done, block = offset / EXPORT_BLOCK_BYTES;
    guint32 here = within_block (offset, request->bytes - connection->done);

    if (here == EXPORT_BLOCK_BYTES && !(request->flags & NBD_CMD_FLAG_NO_HOLE))
      drop (connection, block);
    else if (zeroes && ((request->flags & NBD_CMD_FLAG_NO_HOLE) || look (connection, block))) {
      guint8 *memory = take (connection, block);

      here = MIN (here, budget);
      if (memory)
        memset (memory + offset % EXPORT_BLOCK_BYTES, 0, here);
      budget -= here;
    }
    connection->done += here;
    blocks--;
    if (connection->ended)
      return;
  }
  if (connection->done < request->bytes && connection->error == NBD_OK)
    return;
  connection->wide = FALSE;
  reply_simple (connection, request, connection->error);
}

/* Whether the next request, which is there, has to wait until what was read before it is sent. */
static gboolean
comes_after_reads (const PageConnection *connection) {
  const guint16 command = nbd_get16 (connection->in + connection->in_at + 6);

  return connection->data_queued && (command == NBD_CMD_WRITE || command == NBD_CMD_TRIM || command == NBD_CMD_WRITE_ZEROES);
}

static void
do_request (PageConnection *connection) {
  PageServer *server = connection->server;
  struct nbd_request request;
  enum nbd_error error;

  if (!nbd_request_decode (connection->in + connection->in_at, &request)) {
    page_connection_end (connection, "it sent no request where one belongs");
    return;
  }
  connection->in_at += NBD_REQUEST_BYTES;
  if (request.command == NBD_CMD_DISC) {
    connection->last = TRUE;
    return;
  }
  error = nbd_request_check (&request, connection->export_bytes, connection->structured, connection->allocation);
  switch (request.command) {
  case NBD_CMD_WRITE:
    server->figures.writes++;
    if (error != NBD_OK && request.bytes > DISCARD_BYTES_MAX)
      page_connection_end (connection, "a write has far too many data");
    else if (request.bytes == 0)
      reply_simple (connection, &request, error);
    else {
      begin_write (connection, &request, error);
      if (!connection->ended)
        write_from_in (connection);
    }
    return;
  case NBD_CMD_READ:
    server->figures.reads++;
    if (error == NBD_OK)
      do_read (connection, &request);
    break;
  case NBD_CMD_BLOCK_STATUS:
    server->figures.others++;
    if (error == NBD_OK)
      do_block_status (connection, &request);
    break;
  case NBD_CMD_TRIM:
  case NBD_CMD_WRITE_ZEROES:
    if (request.command == NBD_CMD_TRIM)
      server->figures.trims++;
    else
      server->figures.others++;
    if (error == NBD_OK) {
      connection->request = request;
      connection->wide = TRUE;
      connection->done = 0;
      connection->error = NBD_OK;
    }
    break;
  default:
    server->figures.others++;
    if (error == NBD_OK) /* FLUSH: memory is as durable as it gets */
      reply_simple (connection, &request, NBD_OK);
  }
  if (error != NBD_OK)
    reply_error (connection, &request, error);
}

/* ---- reading ---- */

/* More data of a WRITE, and what comes behind them; or more requests. Returns what secure_stream_readv does. */
static gssize
receive (PageConnection *connection, gboolean *ret_less) {
  struct iovec pieces[4];
  gsize data = 0, room;
  gssize n;
  guint i, count = 0;

  if (connection->in_at == connection->in_end)
    connection->in_at = connection->in_end = 0;
  if (connection->in_at) {
    memmove (connection->in, connection->in + connection->in_at, connection->in_end - connection->in_at);
    connection->in_end -= connection->in_at;
    connection->in_at = 0;
  }
  if (connection->receives) { /* nothing is in in, then */
    count = write_pieces (connection, pieces);
    if (count == 0)
      return 0;
    for (i = 0; i < count; i++)
      data += pieces[i].iov_len;
  }
  room = IN_BYTES - connection->in_end;
  if (!connection->receives || data == connection->request.bytes - connection->done)
    pieces[count++] = (struct iovec){ connection->in + connection->in_end, room };
  else
    room = 0;
  n = secure_stream_readv (connection->stream, pieces, count);
  if (n <= 0)
    return n;
  *ret_less = (gsize)n < data + room && !connection->server->tls;
  if ((gsize)n > data)
    connection->in_end += (gsize)n - data;
  if (connection->receives)
    write_goes_on (connection, MIN ((gsize)n, data));
  return n;
}

void
page_requests_step (PageConnection *connection) {
  gboolean less = FALSE; /* plain: the socket gave less than there was room for, so it has no more now */
  guint requests = 0;
  gsize bytes = 0;
  gssize n;

  for (;;) {
    if (connection->ended)
      return;
    if (connection->last && connection->receives) { /* the data do not matter any more */
      connection->receives = FALSE;
      reply_simple (connection, &connection->request, connection->error);
    }
    if ((connection->n_replies == REPLIES || connection->status_queued || connection->last) && !send_replies (connection))
      return;
    if (requests >= REQUESTS_A_TURN || bytes >= BYTES_A_TURN) {
      if (!send_replies (connection))
        return;
      page_connection_watch (connection, G_IO_IN);
      secure_stream_again (connection->stream);
      return;
    }
    if (connection->wide) {
      do_wide (connection);
      bytes += EXPORT_BLOCK_BYTES;
      continue;
    }
    if (!connection->receives && connection->in_end - connection->in_at >= NBD_REQUEST_BYTES) {
      if (comes_after_reads (connection) && !send_replies (connection))
        return;
      do_request (connection);
      requests++;
      if (connection->n_replies)
        bytes += connection->replies[connection->n_replies - 1].data_bytes;
      continue;
    }
    n = less ? -EAGAIN : receive (connection, &less);
    if (n > 0) {
      bytes += (gsize)n;
      continue;
    }
    if (connection->ended || (n == -EAGAIN && !send_replies (connection)))
      return;
    if (n != -EAGAIN) {
      page_connection_end (connection, n == -EPROTO ? secure_stream_why (connection->stream) : NULL);
      return;
    }
    if (connection->receives || connection->in_at < connection->in_end)
      page_connection_patience (connection, connection->server->limits.request_ms);
    page_connection_watch (connection, G_IO_IN);
    return;
  }
}
