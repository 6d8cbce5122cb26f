/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "io/control-server.h"
#include "io/error.h"
#include "io/listen.h"
#include "io/sandbox-calls.h"
#include "io/source.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

SANDBOX_CALLS (SANDBOX_CALL (getsockopt), SANDBOX_CALL (sendto), SANDBOX_CALL (recvfrom));

/* When there is no descriptor for a client: the kernel keeps it. */
#define ACCEPT_PAUSE_MS 100

struct ControlServer {
  int fd;
  char *greeting;
  GSource *source; /* NULL while it pauses */
  GSource *pause;
  GMainContext *context;
  GPtrArray *clients; /* of ControlClient */
  ControlHandler handler;
  gpointer data;
};

struct ControlClient {
  ControlServer *server;
  int fd;
  GSource *source;
  GSource *out_source;
  GByteArray *out;
  unsigned events; /* subscribed */
  void (*ended) (gpointer data);
  gpointer ended_data;
  gboolean waits;     /* for the answer to a command that takes time */
  JsonNode *waits_id; /* its id; NULL: it had none */
  size_t in_bytes;
  char in[CONTROL_LINE_BYTES_MAX];
};

static void
client_free (gpointer data) {
  ControlClient *client = data;

  if (client->ended)
    client->ended (client->ended_data);
  source_clear (&client->source);
  source_clear (&client->out_source);
  g_byte_array_unref (client->out);
  g_clear_pointer (&client->waits_id, json_node_unref);
  close (client->fd);
  g_free (client);
}

static void
drop (ControlClient *client) {
  g_ptr_array_remove_fast (client->server->clients, client);
}

/* ---- answers ---- */

static gboolean
on_writable (gint fd, GIOCondition condition, gpointer data) {
  ControlClient *client = data;
  const ssize_t n = send (fd, client->out->data, client->out->len, MSG_NOSIGNAL | MSG_DONTWAIT);

  if (n < 0 && errno != EAGAIN && errno != EINTR) {
    drop (client);
    return G_SOURCE_REMOVE;
  }
  if (n > 0)
    g_byte_array_remove_range (client->out, 0, (guint)n);
  if (client->out->len)
    return G_SOURCE_CONTINUE;
  source_clear (&client->out_source);
  return G_SOURCE_REMOVE;
}

/* Sends text and a newline. FALSE: the client does not read; it is to be dropped. */
static gboolean
send_line (ControlClient *client, const char *text) {
  const size_t n = strlen (text);

  if (client->out->len + n + 1 > CONTROL_OUT_BYTES_MAX)
    return FALSE;
  g_byte_array_append (client->out, (const guint8 *)text, (guint)n);
  g_byte_array_append (client->out, (const guint8 *)"\n", 1);
  if (!client->out_source)
    client->out_source = source_fd (client->server->context, client->fd, G_IO_OUT, on_writable, client);
  return TRUE;
}

static const char *
error_class (const GError *error) {
  static const char *const classes[] = { "failed", "usage", "protocol", "in-use", "corrupt" };

  if (error->domain == DOMYBS_ERROR && (unsigned)error->code < G_N_ELEMENTS (classes))
    return classes[error->code];
  return "failed";
}

/* result and id may be NULL; takes over result. error counts where there is no result. */
static JsonNode *
make_answer (JsonNode *result, const GError *error, JsonNode *id) {
  g_autoptr (JsonBuilder) builder = json_builder_new_immutable ();

  json_builder_begin_object (builder);
  if (result) {
    json_builder_set_member_name (builder, "return");
    json_builder_add_value (builder, result);
  } else {
    json_builder_set_member_name (builder, "error");
    json_builder_begin_object (builder);
    json_builder_set_member_name (builder, "class");
    json_builder_add_string_value (builder, error_class (error));
    json_builder_set_member_name (builder, "desc");
    json_builder_add_string_value (builder, error->message);
    json_builder_end_object (builder);
  }
  if (id) {
    json_builder_set_member_name (builder, "id");
    json_builder_add_value (builder, json_node_copy (id));
  }
  json_builder_end_object (builder);
  return json_builder_get_root (builder);
}

/* Makes the answer to one line; NULL: it comes later. */
static JsonNode *
answer_line (ControlClient *client, const char *line, gssize length) {
  g_autoptr (JsonParser) parser = json_parser_new_immutable ();
  g_autoptr (JsonObject) no_arguments = json_object_new ();
  g_autoptr (GError) error = NULL;
  JsonObject *request = NULL, *arguments = no_arguments;
  JsonNode *result = NULL, *node, *id;
  const char *command = NULL;

  if (!g_utf8_validate (line, length, NULL))
    g_set_error (&error, DOMYBS_ERROR, DOMYBS_ERROR_PROTOCOL, "the line is not UTF-8");
  else if (json_parser_load_from_data (parser, line, length, &error) && json_parser_get_root (parser)
           && JSON_NODE_HOLDS_OBJECT (json_parser_get_root (parser)))
    request = json_node_get_object (json_parser_get_root (parser));
  if (error && error->domain != DOMYBS_ERROR) {
    g_autofree char *text = g_strdup (error->message);

    g_clear_error (&error);
    g_set_error (&error, DOMYBS_ERROR, DOMYBS_ERROR_PROTOCOL, "the line is not JSON: %s", text);
  }
  if (request) {
    node = json_object_get_member (request, "execute");
    if (node && JSON_NODE_HOLDS_VALUE (node) && json_node_get_value_type (node) == G_TYPE_STRING)
      command = json_node_get_string (node);
    node = json_object_get_member (request, "arguments");
    if (node && JSON_NODE_HOLDS_OBJECT (node))
      arguments = json_node_get_object (node);
    else if (node)
      command = NULL;
  }
  id = request ? json_object_get_member (request, "id") : NULL;
  if (id && !JSON_NODE_HOLDS_VALUE (id))
    id = NULL;
  if (command && client->waits)
    g_set_error (&error, DOMYBS_ERROR, DOMYBS_ERROR_IN_USE, "an earlier command of this connection is still being answered");
  else if (command)
    result = client->server->handler (client->server->data, client, command, arguments, &error);
  else if (!error)
    g_set_error (&error, DOMYBS_ERROR, DOMYBS_ERROR_PROTOCOL,
                 "expected {\"execute\": \"COMMAND\"} or {\"execute\": \"COMMAND\", \"arguments\": {…}}");
  if (result || error)
    return make_answer (result, error, id);
  client->waits = TRUE;
  client->waits_id = id ? json_node_copy (id) : NULL;
  return NULL;
}

/* ---- clients ---- */

/* Handles the complete lines in the buffer. FALSE: drop the client. */
static gboolean
handle_lines (ControlClient *client) {
  static const char too_long[] = "{\"error\":{\"class\":\"protocol\",\"desc\":\"the line is longer than 4096 bytes\"}}\n";
  char *start = client->in, *newline;

  while ((newline = memchr (start, '\n', client->in_bytes - (size_t)(start - client->in)))) {
    g_autoptr (JsonNode) node = NULL;
    g_autofree char *text = NULL;

    if (newline > start && newline[-1] == '\r')
      newline[-1] = ' ';
    node = answer_line (client, start, newline - start);
    text = node ? json_to_string (node, FALSE) : NULL;
    if (text && !send_line (client, text))
      return FALSE;
    start = newline + 1;
  }
  client->in_bytes -= (size_t)(start - client->in);
  memmove (client->in, start, client->in_bytes);
  if (client->in_bytes < sizeof client->in)
    return TRUE;
  /* Best effort, and past what may still wait to be sent: the client goes in any case. */
  send (client->fd, too_long, sizeof too_long - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
  return FALSE;
}

static gboolean
on_readable (gint fd, GIOCondition condition, gpointer data) {
  ControlClient *client = data;
  const ssize_t n = recv (fd, client->in + client->in_bytes, sizeof client->in - client->in_bytes, MSG_DONTWAIT);

  if (n < 0 && (errno == EAGAIN || errno == EINTR))
    return G_SOURCE_CONTINUE;
  if (n > 0) {
    client->in_bytes += (size_t)n;
    if (handle_lines (client))
      return G_SOURCE_CONTINUE;
  }
  drop (client);
  return G_SOURCE_REMOVE;
}

static gboolean
may_connect (int fd) {
  struct ucred peer;
  socklen_t length = sizeof peer;

  return getsockopt (fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 && (peer.uid == 0 || peer.uid == geteuid ());
}

static gboolean on_pause_over (gpointer data);

static gboolean
on_connection (gint listen_fd, GIOCondition condition, gpointer data) {
  ControlServer *server = data;
  ControlClient *client;
  const int fd = listen_accept (listen_fd);

  if (fd < 0 && (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED))
    return G_SOURCE_CONTINUE;
  if (fd < 0) { /* it would be ready again at once */
    source_clear (&server->source);
    server->pause = source_timeout (ACCEPT_PAUSE_MS, on_pause_over, server);
    return G_SOURCE_REMOVE;
  }
  if (!may_connect (fd) || server->clients->len >= CONTROL_CLIENTS_MAX) {
    const char *text = server->clients->len >= CONTROL_CLIENTS_MAX
                           ? "{\"error\":{\"class\":\"in-use\",\"desc\":\"16 clients are connected already\"}}\n"
                           : "{\"error\":{\"class\":\"failed\",\"desc\":\"only root and the user of this process may use the control socket\"}}\n";

    send (fd, text, strlen (text), MSG_NOSIGNAL | MSG_DONTWAIT);
    close (fd);
    return G_SOURCE_CONTINUE;
  }
  client = g_new0 (ControlClient, 1);
  client->server = server;
  client->fd = fd;
  client->out = g_byte_array_new ();
  client->source = source_fd (server->context, fd, G_IO_IN, on_readable, client);
  g_ptr_array_add (server->clients, client);
  send_line (client, server->greeting);
  return G_SOURCE_CONTINUE;
}

static gboolean
on_pause_over (gpointer data) {
  ControlServer *server = data;

  source_clear (&server->pause);
  server->source = source_fd (server->context, server->fd, G_IO_IN, on_connection, server);
  return G_SOURCE_REMOVE;
}

/* ---- events ---- */

void
control_client_subscribe (ControlClient *client, unsigned events) {
  client->events = events;
}

void
control_client_on_end (ControlClient *client, void (*ended) (gpointer data), gpointer data) {
  client->ended = ended;
  client->ended_data = data;
}

unsigned
control_server_subscribed (const ControlServer *server) {
  unsigned events = 0;

  for (guint i = 0; i < server->clients->len; i++)
    events |= ((const ControlClient *)server->clients->pdata[i])->events;
  return events;
}

void
control_server_emit (ControlServer *server, unsigned event, const char *name, JsonNode *data) {
  g_autoptr (JsonBuilder) builder = json_builder_new_immutable ();
  g_autoptr (JsonNode) node = NULL;
  g_autofree char *text = NULL;
  const gint64 now = g_get_real_time ();

  json_builder_begin_object (builder);
  json_builder_set_member_name (builder, "event");
  json_builder_add_string_value (builder, name);
  json_builder_set_member_name (builder, "data");
  json_builder_add_value (builder, data);
  json_builder_set_member_name (builder, "timestamp");
  json_builder_begin_object (builder);
  json_builder_set_member_name (builder, "seconds");
  json_builder_add_int_value (builder, now / G_USEC_PER_SEC);
  json_builder_set_member_name (builder, "microseconds");
  json_builder_add_int_value (builder, now % G_USEC_PER_SEC);
  json_builder_end_object (builder);
  json_builder_end_object (builder);
  node = json_builder_get_root (builder);
  text = json_to_string (node, FALSE);
  for (guint i = server->clients->len; i-- > 0;) { /* from the end: dropping moves the last one into the gap */
    ControlClient *client = server->clients->pdata[i];

    if ((client->events & event) && !send_line (client, text))
      drop (client);
  }
}

void
control_server_refuse_waiting (ControlServer *server, const GError *error) {
  for (guint i = server->clients->len; i-- > 0;) { /* from the end, as above */
    ControlClient *client = server->clients->pdata[i];
    g_autoptr (JsonNode) node = NULL;
    g_autofree char *text = NULL;

    if (!client->waits)
      continue;
    node = make_answer (NULL, error, client->waits_id);
    text = json_to_string (node, FALSE);
    client->waits = FALSE;
    g_clear_pointer (&client->waits_id, json_node_unref);
    if (!send_line (client, text))
      drop (client);
  }
}

/* ---- life ---- */

ControlServer *
control_server_new (int fd, const char *program, ControlHandler handler, gpointer data) {
  ControlServer *server = g_new0 (ControlServer, 1);

  server->fd = fd;
  server->greeting = g_strdup_printf ("{\"domybs\":{\"program\":\"%s\",\"version\":\"" DOMYBS_VERSION "\",\"protocol\":%d}}", program,
                                      CONTROL_PROTOCOL);
  server->context = g_main_context_ref_thread_default ();
  server->clients = g_ptr_array_new_with_free_func (client_free);
  server->handler = handler;
  server->data = data;
  server->source = source_fd (server->context, fd, G_IO_IN, on_connection, server);
  return server;
}

void
control_server_free (ControlServer *server) {
  source_clear (&server->source);
  source_clear (&server->pause);
  g_ptr_array_unref (server->clients);
  close (server->fd);
  g_free (server->greeting);
  g_main_context_unref (server->context);
  g_free (server);
}
