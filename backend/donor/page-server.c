/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "donor/page-server-internal.h"
#include "io/listen.h"
#include "io/quiet-fds.h"
#include "io/source.h"
#include "io/tcp.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define ACCEPT_PAUSE_MS 100 /* when there is no descriptor for a connection: the kernel keeps it */

struct listener {
  PageServer *server;
  int fd;
  GSource *source; /* NULL while it rests or pauses */
  GSource *pause;
  QuietFd quiet;
};

/* ---- connections ---- */

static void
free_connection (PageConnection *connection) {
  secure_stream_free (connection->stream);
  g_free (connection->context_name);
  g_free (connection);
}

void
page_connection_end (PageConnection *connection, const char *why) {
  PageServer *server = connection->server;

  if (connection->ended)
    return;
  connection->ended = TRUE;
  if (why)
    server->figures.broken++;
  if (why && log_limit_pass (&server->log)) {
    g_autofree char *peer = tcp_peer_name (secure_stream_fd (connection->stream));

    g_message ("connection of %s%s%s ended: %s", peer, *connection->identity ? " as " : "", connection->identity, why);
  }
  g_ptr_array_remove_fast (server->connections, connection);
  if (connection->export)
    server->kind->close (server->exports, connection->export);
  connection->export = NULL;
  if (connection != server->current)
    free_connection (connection);
}

void
page_connection_ready (SecureStream *stream, GIOCondition ready, gpointer data) {
  PageConnection *connection = data;
  PageServer *server = connection->server;

  server->current = connection;
  if (connection->state != PAGE_STATE_SERVING || connection->out_end)
    page_handshake_step (connection);
  if (!connection->ended && connection->state == PAGE_STATE_SERVING && connection->out_end == 0)
    page_requests_step (connection);
  server->current = NULL;
  if (connection->ended)
    free_connection (connection);
}

static gboolean
is_handshaking (const PageConnection *connection) {
  return !connection->export && !connection->lease_spoken;
}

/* ---- deadlines ---- */

static gboolean on_patience_over (gpointer data);

/* The timer runs until the first deadline, or an earlier one that has been called off since. */
static void
arm (PageServer *server, gint64 deadline, gint64 now) {
  if (server->patience && server->patience_until <= deadline)
    return;
  source_clear (&server->patience);
  server->patience_until = deadline;
  server->patience = source_timeout ((guint)(MAX (deadline - now, 0) / 1000 + 1), on_patience_over, server);
}

static gboolean
on_patience_over (gpointer data) {
  PageServer *server = data;
  const gint64 now = g_get_monotonic_time ();
  gint64 first = 0;
  guint i;

  source_clear (&server->patience);
  for (i = server->connections->len; i-- > 0;) {
    PageConnection *connection = server->connections->pdata[i];

    if (connection->deadline && connection->deadline <= now)
      page_connection_end (connection, connection->export         ? "a request or its answer took too long"
                                       : connection->lease_spoken ? "no lease request for a long time"
                                                                  : "it did not say in time what it wants");
    else if (connection->deadline && (!first || connection->deadline < first))
      first = connection->deadline;
  }
  if (first)
    arm (server, first, now);
  return G_SOURCE_REMOVE;
}

void
page_connection_patience (PageConnection *connection, guint ms) {
  gint64 now;

  if (ms == 0)
    connection->deadline = 0;
  if (ms == 0 || connection->deadline)
    return;
  now = g_get_monotonic_time ();
  connection->deadline = now + (gint64)ms * 1000;
  arm (connection->server, connection->deadline, now);
}

/* ---- limits ---- */

gboolean
page_connection_known (PageConnection *connection) {
  PageServer *server = connection->server;
  guint i, n = 0;

  connection->authenticated = TRUE;
  g_strlcpy (connection->identity, secure_stream_identity (connection->stream), sizeof connection->identity);
  for (i = 0; i < server->connections->len; i++) {
    const PageConnection *other = server->connections->pdata[i];

    n += other->authenticated && strcmp (other->identity, connection->identity) == 0;
  }
  if (n <= server->limits.per_identity)
    return TRUE;
  server->figures.refused++;
  page_connection_end (connection, "this identity has too many connections");
  return FALSE;
}

/* Ends the oldest connection that has not yet said what it wants. FALSE: there is none. */
static gboolean
end_oldest_handshake (PageServer *server, const char *why) {
  PageConnection *oldest = NULL;
  guint i;

  for (i = 0; i < server->connections->len; i++) {
    PageConnection *connection = server->connections->pdata[i];

    if (is_handshaking (connection) && (!oldest || connection->serial < oldest->serial))
      oldest = connection;
  }
  if (!oldest)
    return FALSE;
  server->figures.refused++;
  page_connection_end (oldest, why);
  return TRUE;
}

/* Makes room for one more connection. FALSE: it cannot be had. */
static gboolean
admit (PageServer *server) {
  guint i, handshaking = 0;

  for (i = 0; i < server->connections->len; i++)
    handshaking += is_handshaking (server->connections->pdata[i]);
  if (handshaking >= server->limits.handshaking)
    end_oldest_handshake (server, "too many others wait to be let in");
  if (server->connections->len < server->limits.connections)
    return TRUE;
  return end_oldest_handshake (server, "there are too many connections");
}

/* ---- accepting ---- */

static gboolean on_connection (int fd, GIOCondition condition, gpointer data);

static gboolean
on_pause_over (gpointer data) {
  struct listener *listener = data;

  source_clear (&listener->pause);
  listener->source = source_fd (NULL, listener->fd, G_IO_IN, on_connection, listener);
  return G_SOURCE_REMOVE;
}

void
page_server_adopt (PageServer *server, int fd) {
  PageConnection *connection = g_new0 (PageConnection, 1);

  tcp_tune (fd);
  connection->server = server;
  connection->serial = ++server->serial;
  connection->stream = secure_stream_new (fd);
  server->figures.accepted++;
  if (!admit (server)) {
    server->figures.refused++;
    free_connection (connection);
    return;
  }
  g_ptr_array_add (server->connections, connection);
  page_connection_patience (connection, server->limits.handshake_ms);
  nbd_greeting_encode (NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES, connection->out);
  connection->out_end = NBD_GREETING_BYTES;
  page_connection_ready (connection->stream, G_IO_OUT, connection);
}

static gboolean
on_connection (int fd, GIOCondition condition, gpointer data) {
  struct listener *listener = data;
  int peer;

  quiet_fd_busy (&listener->quiet);
  peer = listen_accept (fd);
  if (peer < 0 && errno != EMFILE && errno != ENFILE && errno != ENOBUFS && errno != ENOMEM)
    return G_SOURCE_CONTINUE;
  if (peer < 0) {
    source_clear (&listener->source);
    listener->pause = source_timeout (ACCEPT_PAUSE_MS, on_pause_over, listener);
    return G_SOURCE_REMOVE;
  }
  page_server_adopt (listener->server, peer);
  return G_SOURCE_CONTINUE;
}

static gboolean
rest (gpointer owner) {
  struct listener *listener = owner;

  if (!listener->source) /* it pauses */
    return FALSE;
  source_clear (&listener->source);
  return TRUE;
}

static void
wake (gpointer owner) {
  struct listener *listener = owner;

  listener->source = source_fd (NULL, listener->fd, G_IO_IN, on_connection, listener);
}

static const QuietFdKind quiet_kind = { rest, wake };

static void
free_listener (gpointer data) {
  struct listener *listener = data;

  quiet_fd_clear (&listener->quiet);
  source_clear (&listener->source);
  source_clear (&listener->pause);
  g_free (listener);
}

void
page_server_listen (PageServer *server, int fd) {
  struct listener *listener = g_new0 (struct listener, 1);

  listener->server = server;
  listener->fd = fd;
  listener->source = source_fd (NULL, fd, G_IO_IN, on_connection, listener);
  quiet_fd_init (&listener->quiet, fd, &quiet_kind, listener);
  g_ptr_array_add (server->listeners, listener);
}

/* ---- the server ---- */

static guint
or_default (guint value, guint otherwise) {
  return value ? value : otherwise;
}

PageServer *
page_server_new (int listening_fd, SecureSide *tls, const ExportsKind *kind, gpointer exports, const PageServerLimits *limits) {
  PageServer *server = g_new0 (PageServer, 1);
  void *zeroes = mmap (NULL, EXPORT_BLOCK_BYTES, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

  server->zeroes = zeroes == MAP_FAILED ? NULL : zeroes;
  if (!server->zeroes)
    g_error ("no memory for the page server");
  server->tls = tls ? secure_side_ref (tls) : NULL;
  server->kind = kind;
  server->exports = exports;
  server->limits = (PageServerLimits){
    .connections = or_default (limits->connections, 900),
    .handshaking = or_default (limits->handshaking, 32),
    .per_identity = or_default (limits->per_identity, 256),
    .handshake_ms = or_default (limits->handshake_ms, 10 * 1000),
    .lease_idle_ms = or_default (limits->lease_idle_ms, 60 * 1000),
    .request_ms = or_default (limits->request_ms, 60 * 1000),
  };
  server->connections = g_ptr_array_new ();
  server->listeners = g_ptr_array_new_with_free_func (free_listener);
  if (listening_fd >= 0)
    page_server_listen (server, listening_fd);
  return server;
}

void
page_server_free (PageServer *server) {
  if (!server)
    return;
  g_ptr_array_unref (server->listeners);
  while (server->connections->len)
    page_connection_end (server->connections->pdata[server->connections->len - 1], NULL);
  g_ptr_array_unref (server->connections);
  source_clear (&server->patience);
  secure_side_unref (server->tls);
  munmap (server->zeroes, EXPORT_BLOCK_BYTES);
  g_free (server);
}

guint
page_server_close_export (PageServer *server, gboolean (*which) (gpointer export, gpointer data), gpointer data) {
  guint i, n = 0;

  for (i = server->connections->len; i-- > 0;) {
    PageConnection *connection = server->connections->pdata[i];

    if (connection->export && which (connection->export, data)) {
      page_connection_end (connection, NULL);
      n++;
    }
  }
  return n;
}

void
page_server_figures (const PageServer *server, PageServerFigures *ret_figures) {
  guint i;

  *ret_figures = server->figures;
  ret_figures->connections = server->connections->len;
  for (i = 0; i < server->connections->len; i++) {
    const PageConnection *connection = server->connections->pdata[i];

    ret_figures->with_export += connection->export != NULL;
    ret_figures->with_lease += connection->lease_spoken;
  }
}
