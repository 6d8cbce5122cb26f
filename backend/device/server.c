/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "device/server.h"
#include "device/commands.h"
#include "io/error.h"
#include "io/guest-map.h"
#include "io/listen.h"

#include <fcntl.h>
#include <glib-unix.h>
#include <sys/socket.h>
#include <unistd.h>

struct server {
  GMainLoop *loop;
  Backend *backend;
  int listen_fd; /* -1: only the one connection that we were given */
  gboolean connected;
  int waiting_fd; /* a second front-end; -1: none */
  guint waiting_id;
  gboolean once;
};

/* How long a second front-end may wait for the first to go: a device that is unplugged and plugged again at once connects before
 * we have seen the old connection end. */
#define WAIT_FOR_FIRST_MS 1000

static void
drop_waiting (struct server *server) {
  if (server->waiting_id)
    g_source_remove (server->waiting_id);
  server->waiting_id = 0;
  if (server->waiting_fd >= 0)
    close (server->waiting_fd);
  server->waiting_fd = -1;
}

static void on_gone (gpointer data, const char *why);

static void
use_connection (struct server *server, int fd) {
  server->connected = TRUE;
  backend_connect (server->backend, fd, on_gone, server);
}

static void
on_gone (gpointer data, const char *why) {
  struct server *server = data;
  const int next = server->waiting_fd;

  server->connected = FALSE;
  if (server->once || server->listen_fd < 0) {
    if (!why) /* else its VM may still run, with the window mapped: that is audited until we are told to end */
      g_main_loop_quit (server->loop);
    return;
  }
  server->waiting_fd = -1;
  drop_waiting (server);
  if (next >= 0)
    use_connection (server, next);
}

static gboolean
on_waited_enough (gpointer data) {
  struct server *server = data;

  g_warning ("a second front-end was turned away: one device is for one VM");
  server->waiting_id = 0;
  drop_waiting (server);
  return G_SOURCE_REMOVE;
}

static gboolean
on_connection (gint fd, GIOCondition condition, gpointer data) {
  struct server *server = data;
  const int connection = listen_accept (fd);

  if (connection < 0)
    return G_SOURCE_CONTINUE;
  if (!server->connected) {
    use_connection (server, connection);
  } else {
    drop_waiting (server); /* the newest counts: the one before has had its time cut short by its own successor */
    server->waiting_fd = connection;
    server->waiting_id = g_timeout_add (WAIT_FOR_FIRST_MS, on_waited_enough, server);
  }
  return G_SOURCE_CONTINUE;
}

static gboolean
on_signal (gpointer data) {
  struct server *server = data;

  g_message ("told to end");
  g_main_loop_quit (server->loop);
  return G_SOURCE_CONTINUE;
}

/* An inherited descriptor may be a listening socket or an established connection. */
static gboolean
use_fd (struct server *server, int fd, GError **error) {
  int listening = 0;
  socklen_t length = sizeof listening;

  if (getsockopt (fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &length) < 0) {
    domybs_error_errno (error, "--fd %d is not a socket", fd);
    return FALSE;
  }
  if (fcntl (fd, F_SETFD, FD_CLOEXEC) < 0 || !g_unix_set_fd_nonblocking (fd, TRUE, error))
    return FALSE;
  if (listening)
    server->listen_fd = fd;
  else
    use_connection (server, fd);
  return TRUE;
}

static HostAccount *
open_account (const Options *options, GError **error) {
  const uint64_t limit = options->host_limit_bytes >> DOMYBS_BLOCK_SHIFT;

  return options->host_account_path ? host_account_open (options->host_account_path, options->backend.name, limit, error)
                                    : host_account_private (limit);
}

gboolean
server_run (const Options *options, GError **error) {
  struct server server = { .listen_fd = -1, .waiting_fd = -1, .once = options->once };
  g_autoptr (ControlServer) control = NULL;
  g_autoptr (Backend) backend = NULL;
  g_autoptr (Monitor) monitor = NULL;
  Operator op = { 0 };
  g_autoptr (GMainLoop) loop = g_main_loop_new (NULL, FALSE);
  HostAccount *account;
  guint term, interrupt, accepting = 0;

  if (!guest_map_init (error))
    return FALSE;
  account = open_account (options, error);
  if (!account)
    return FALSE;
  backend = backend_new (&options->backend, account, error);
  if (!backend)
    return FALSE;
  server.loop = loop;
  server.backend = backend;
  if (options->control_path) {
    control = control_server_new (options->control_path, "domybs-backend", backend_command, &op, error);
    if (!control)
      return FALSE;
    monitor = monitor_new (backend, control);
    op = (Operator){ backend, monitor };
  }
  if (options->socket_path) {
    server.listen_fd = listen_unix (options->socket_path, &options->socket_rights, error);
    if (server.listen_fd < 0)
      return FALSE;
  } else if (!use_fd (&server, options->fd, error)) {
    return FALSE;
  }
  if (server.listen_fd >= 0)
    accepting = g_unix_fd_add (server.listen_fd, G_IO_IN, on_connection, &server);
  term = g_unix_signal_add (SIGTERM, on_signal, &server);
  interrupt = g_unix_signal_add (SIGINT, on_signal, &server);

  g_main_loop_run (loop);

  g_source_remove (term);
  g_source_remove (interrupt);
  if (accepting)
    g_source_remove (accepting);
  drop_waiting (&server);
  if (server.listen_fd >= 0)
    close (server.listen_fd);
  if (options->socket_path)
    unlink (options->socket_path);
  return TRUE;
}
