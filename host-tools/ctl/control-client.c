/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/control-client.h"
#include "error.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define PROTOCOL 1 /* the only one there is */
/* json-glib's parser calls itself for each level; what a back-end says has four. */
#define DEPTH_MAX 16
#define EVENTS_MAX 256 /* waiting to be taken */
#define LINES_AT_ONCE 64
#define GATHER_MAX 256 /* connections at a time: far from the usual limit of 1024 descriptors */

struct ControlClient {
  int fd;
  gboolean greeted;
  gint64 last_id;
  GString *in;
  GQueue events; /* of char *, names */
};

static gboolean fail (GError **error, const char *format, ...) G_GNUC_PRINTF (2, 3);

static gboolean
fail (GError **error, const char *format, ...) {
  g_autofree char *text = NULL;
  va_list args;

  va_start (args, format);
  text = g_strdup_vprintf (format, args);
  va_end (args);
  g_set_error_literal (error, CTL_ERROR, CTL_ERROR_ACCESS, text);
  return FALSE;
}

static gint64
now_ms (void) {
  return g_get_monotonic_time () / 1000;
}

/* ---- lines ---- */

static gboolean
depth_is_sane (const char *line, size_t length) {
  unsigned depth = 0;
  gboolean in_string = FALSE;

  for (size_t i = 0; i < length; i++) {
    if (in_string) {
      if (line[i] == '\\')
        i++;
      else if (line[i] == '"')
        in_string = FALSE;
    } else if (line[i] == '"') {
      in_string = TRUE;
    } else if (line[i] == '{' || line[i] == '[') {
      if (++depth > DEPTH_MAX)
        return FALSE;
    } else if ((line[i] == '}' || line[i] == ']') && depth) {
      depth--;
    }
  }
  return TRUE;
}

static JsonObject *
parse_line (const char *line, size_t length, GError **error) {
  g_autoptr (JsonParser) parser = json_parser_new ();
  JsonNode *root;

  if (memchr (line, 0, length) || !g_utf8_validate (line, (gssize)length, NULL) || !depth_is_sane (line, length)
      || !json_parser_load_from_data (parser, line, (gssize)length, NULL)) {
    fail (error, "its back-end says something that is no JSON; end what listens at its control socket");
    return NULL;
  }
  root = json_parser_get_root (parser);
  if (!root || !JSON_NODE_HOLDS_OBJECT (root)) {
    fail (error, "its back-end says something that is no JSON object; end what listens at its control socket");
    return NULL;
  }
  return json_object_ref (json_node_get_object (root));
}

static gboolean
hung_up (GError **error) {
  return fail (error, "its back-end hung up; is it just ending? 'domybsctl list' shows what runs");
}

/* The next line, without waiting. NULL: none yet, or with error set: there will be none. */
static JsonObject *
next_line (ControlClient *client, GError **error) {
  for (;;) {
    const char *newline = memchr (client->in->str, '\n', client->in->len);
    char bytes[4096];
    ssize_t n;

    if (newline) {
      JsonObject *object = parse_line (client->in->str, (size_t)(newline - client->in->str), error);

      g_string_erase (client->in, 0, newline - client->in->str + 1);
      return object;
    }
    if (client->in->len > CONTROL_CLIENT_LINE_BYTES_MAX) {
      fail (error, "its back-end says a line without an end; end what listens at its control socket");
      return NULL;
    }
    n = recv (client->fd, bytes, sizeof bytes, MSG_DONTWAIT);
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0 && errno == EAGAIN)
      return NULL;
    if (n <= 0) {
      hung_up (error);
    } else {
      g_string_append_len (client->in, bytes, n);
      continue;
    }
    return NULL;
  }
}

static const char *
get_string (JsonObject *object, const char *name) {
  JsonNode *node = object ? json_object_get_member (object, name) : NULL;

  return node && JSON_NODE_HOLDS_VALUE (node) && json_node_get_value_type (node) == G_TYPE_STRING ? json_node_get_string (node)
                                                                                                  : NULL;
}

static gint64
get_int (JsonObject *object, const char *name) {
  JsonNode *node = object ? json_object_get_member (object, name) : NULL;

  return node && JSON_NODE_HOLDS_VALUE (node) && json_node_get_value_type (node) == G_TYPE_INT64 ? json_node_get_int (node)
                                                                                                 : -1;
}

static JsonObject *
get_object (JsonObject *object, const char *name) {
  JsonNode *node = object ? json_object_get_member (object, name) : NULL;

  return node && JSON_NODE_HOLDS_OBJECT (node) ? json_node_get_object (node) : NULL;
}

/* ---- one connection, step by step ---- */

static ControlClient *
open_socket (const char *path, GError **error) {
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  g_autoptr (ControlClient) client = g_new0 (ControlClient, 1);

  client->in = g_string_new (NULL);
  g_queue_init (&client->events);
  client->fd = -1;
  if (strlen (path) >= sizeof address.sun_path) {
    fail (error, "the path of its control socket is too long: %s", path);
    return NULL;
  }
  strcpy (address.sun_path, path);
  client->fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (client->fd >= 0 && connect (client->fd, (const struct sockaddr *)&address, sizeof address) == 0)
    return g_steal_pointer (&client);
  switch (errno) {
  case ENOENT:
  case ECONNREFUSED:
    fail (error,
          "its back-end is not running (nobody listens at %s); it starts with the domain, if libvirt's hook is installed",
          path);
    break;
  case EACCES:
  case EPERM:
    fail (error, "no permission for its control socket (%s); run it as root", path);
    break;
  case EAGAIN:
    fail (error, "its back-end does not answer, and others are waiting for it already (%s); see its log", path);
    break;
  default:
    fail (error, "can't connect to its control socket (%s): %s", path, g_strerror (errno));
  }
  return NULL;
}

void
control_client_free (ControlClient *client) {
  if (client->fd >= 0)
    close (client->fd);
  g_string_free (client->in, TRUE);
  g_queue_clear_full (&client->events, g_free);
  g_free (client);
}

static gboolean
send_command (ControlClient *client, const char *command, JsonObject *arguments, GError **error) {
  g_autoptr (JsonBuilder) builder = json_builder_new ();
  g_autoptr (JsonNode) root = NULL;
  g_autofree char *text = NULL, *line = NULL;
  ssize_t n;

  json_builder_begin_object (builder);
  json_builder_set_member_name (builder, "execute");
  json_builder_add_string_value (builder, command);
  if (arguments) {
    JsonNode *node = json_node_new (JSON_NODE_OBJECT);

    json_node_take_object (node, arguments);
    json_builder_set_member_name (builder, "arguments");
    json_builder_add_value (builder, node);
  }
  json_builder_set_member_name (builder, "id");
  json_builder_add_int_value (builder, ++client->last_id);
  json_builder_end_object (builder);
  root = json_builder_get_root (builder);
  text = json_to_string (root, FALSE);
  line = g_strconcat (text, "\n", NULL);
  n = send (client->fd, line, strlen (line), MSG_NOSIGNAL | MSG_DONTWAIT);
  if (n == (ssize_t)strlen (line))
    return TRUE;
  if (n < 0 && errno != EAGAIN)
    return hung_up (error);
  return fail (error, "its back-end does not read what is sent to it; see its log, and 'ps' whether it is stopped");
}

/* Reads the first line that a server says. */
static gboolean
take_greeting (ControlClient *client, JsonObject *line, GError **error) {
  JsonObject *greeting = get_object (line, "domybs");
  const char *why = get_string (get_object (line, "error"), "desc");

  if (why)
    return fail (error, "its back-end refuses the connection: %s", why);
  if (!greeting || g_strcmp0 (get_string (greeting, "program"), "domybs-backend") != 0)
    return fail (error, "what listens at its control socket is no domybs-backend; end it");
  if (get_int (greeting, "protocol") != PROTOCOL)
    return fail (error, "its back-end speaks another protocol than this domybsctl (%d); use the domybsctl of its version (%s)",
                 PROTOCOL, get_string (greeting, "version") ? get_string (greeting, "version") : "unknown");
  client->greeted = TRUE;
  return TRUE;
}

/* Reads a line after the greeting. Returns the object in "return"; NULL without error when it was an event. */
static JsonObject *
take_answer (ControlClient *client, JsonObject *line, GError **error) {
  const char *event = get_string (line, "event");
  JsonObject *answer = get_object (line, "return"), *refusal = get_object (line, "error");

  if (event && !answer && !refusal) {
    /* Whoever does not take them in time knows enough: that something happened. */
    if (g_queue_get_length (&client->events) < EVENTS_MAX)
      g_queue_push_tail (&client->events, g_strdup (event));
    return NULL;
  }
  if (refusal && get_string (refusal, "desc")
      && (get_int (line, "id") == client->last_id || !json_object_has_member (line, "id"))) {
    g_set_error (error, CTL_ERROR, CTL_ERROR_FAILED, "its back-end says: %s", get_string (refusal, "desc"));
    return NULL;
  }
  if (!answer || get_int (line, "id") != client->last_id) {
    fail (error, "its back-end answers something that was not asked; end what listens at its control socket");
    return NULL;
  }
  return json_object_ref (answer);
}

/* Waits for a line. */
static JsonObject *
wait_line (ControlClient *client, gint64 deadline_ms, GError **error) {
  for (;;) {
    g_autoptr (GError) reason = NULL;
    struct pollfd readable = { client->fd, POLLIN, 0 };
    const gint64 left = deadline_ms - now_ms ();
    JsonObject *line;

    /* First of all: lines can come without end and none of them be the answer. */
    if (left <= 0) {
      fail (error, "its back-end does not answer in time; see its log, and 'ps' whether it is stopped");
      return NULL;
    }
    line = next_line (client, &reason);
    if (line)
      return line;
    if (reason) {
      g_propagate_error (error, g_steal_pointer (&reason));
      return NULL;
    }
    poll (&readable, 1, (int)left);
  }
}

/* ---- public ---- */

ControlClient *
control_client_new (const char *path, int timeout_ms, GError **error) {
  const gint64 deadline_ms = now_ms () + timeout_ms;
  g_autoptr (ControlClient) client = open_socket (path, error);
  g_autoptr (JsonObject) line = client ? wait_line (client, deadline_ms, error) : NULL;

  if (!line || !take_greeting (client, line, error))
    return NULL;
  return g_steal_pointer (&client);
}

JsonObject *
control_client_execute (ControlClient *client, const char *command, JsonObject *arguments, int timeout_ms, GError **error) {
  const gint64 deadline_ms = now_ms () + timeout_ms;

  if (!send_command (client, command, arguments, error))
    return NULL;
  for (;;) {
    g_autoptr (JsonObject) line = wait_line (client, deadline_ms, error);
    g_autoptr (GError) reason = NULL;
    JsonObject *answer;

    if (!line)
      return NULL;
    answer = take_answer (client, line, &reason);
    if (answer)
      return answer;
    if (reason) {
      g_propagate_error (error, g_steal_pointer (&reason));
      return NULL;
    }
  }
}

gboolean
control_client_subscribe (ControlClient *client, const char *const *events, GError **error) {
  JsonObject *arguments = json_object_new ();
  JsonArray *names = json_array_new ();
  g_autoptr (JsonObject) answer = NULL;
  g_autoptr (GError) reason = NULL;

  for (; *events; events++)
    json_array_add_string_element (names, *events);
  json_object_set_array_member (arguments, "events", names);
  answer = control_client_execute (client, "subscribe", arguments, CONTROL_CLIENT_TIMEOUT_MS, &reason);
  if (answer)
    return TRUE;
  if (reason->code == CTL_ERROR_ACCESS)
    g_propagate_error (error, g_steal_pointer (&reason));
  return FALSE;
}

int
control_client_fd (const ControlClient *client) {
  return client->fd;
}

char *
control_client_event (ControlClient *client, GError **error) {
  while (g_queue_is_empty (&client->events)) {
    g_autoptr (GError) reason = NULL;
    g_autoptr (JsonObject) line = next_line (client, &reason);
    g_autoptr (JsonObject) answer = NULL;

    if (line)
      answer = take_answer (client, line, &reason);
    if (answer)
      fail (&reason, "its back-end answers something that was not asked; end what listens at its control socket");
    if (reason) {
      g_propagate_error (error, g_steal_pointer (&reason));
      return NULL;
    }
    if (!line)
      return NULL;
  }
  return g_queue_pop_head (&client->events);
}

/* ---- many at once ---- */

/* As far as it goes without waiting, and without leaving the others alone for long. FALSE: it is over, with answer or error
 * set. */
static gboolean
gather_step (ControlClient *client, const char *command, JsonObject **ret_answer, GError **error) {
  for (unsigned lines = 0; lines < LINES_AT_ONCE; lines++) {
    g_autoptr (GError) reason = NULL;
    g_autoptr (JsonObject) line = next_line (client, &reason);

    if (line && !client->greeted) {
      if (take_greeting (client, line, &reason))
        send_command (client, command, NULL, &reason);
    } else if (line) {
      *ret_answer = take_answer (client, line, &reason);
    }
    if (reason)
      g_propagate_error (error, g_steal_pointer (&reason));
    else if (!line)
      return TRUE;
    else if (!*ret_answer)
      continue;
    return FALSE;
  }
  return TRUE;
}

static void
gather_some (const char *const *paths, unsigned n, const char *command, gint64 deadline_ms, JsonObject **ret_answers,
             GError **ret_errors) {
  g_autofree ControlClient **clients = g_new0 (ControlClient *, n);
  struct pollfd polls[GATHER_MAX];
  unsigned open = 0;
  gint64 left;

  for (unsigned i = 0; i < n; i++) {
    clients[i] = paths[i] ? open_socket (paths[i], &ret_errors[i]) : NULL;
    polls[i] = (struct pollfd){ clients[i] ? clients[i]->fd : -1, POLLIN, 0 };
    open += clients[i] != NULL;
  }
  while (open && (left = deadline_ms - now_ms ()) > 0) {
    if (poll (polls, n, (int)left) < 0)
      continue;
    for (unsigned i = 0; i < n; i++) {
      if (!polls[i].revents || gather_step (clients[i], command, &ret_answers[i], &ret_errors[i]))
        continue;
      g_clear_pointer (&clients[i], control_client_free);
      polls[i] = (struct pollfd){ -1, 0, 0 };
      open--;
    }
  }
  for (unsigned i = 0; i < n; i++)
    if (clients[i]) {
      fail (&ret_errors[i], "its back-end does not answer in time; see its log, and 'ps' whether it is stopped");
      control_client_free (clients[i]);
    }
}

void
control_client_gather (const char *const *paths, unsigned n, const char *command, int timeout_ms, JsonObject **ret_answers,
                       GError **ret_errors) {
  const gint64 deadline_ms = now_ms () + timeout_ms;

  for (unsigned first = 0; first < n; first += GATHER_MAX)
    gather_some (paths + first, MIN (n - first, GATHER_MAX), command, deadline_ms, ret_answers + first, ret_errors + first);
}
