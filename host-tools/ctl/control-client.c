/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/control-client.h"
#include "error.h"
#include "host/launch.h"

#include <errno.h>
#include <poll.h>
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
/* How often a question is asked again when who was asked hangs up. A back-end whose workers die without end holds the next one
 * back after three. */
#define REPEATS_MAX 4
#define REPEAT_AFTER_US 5000

struct ControlClient {
  char *path;
  const char *program; /* that is to listen there: static */
  int fd;
  gboolean greeted;
  gboolean hung_up; /* why the last step failed: the connection ended */
  gboolean nobody;  /* … nobody listens */
  gboolean unknown; /* the last refusal: it does not know the command */
  char *version;    /* of who has greeted; NULL: it did not say */
  gint64 last_id;
  GString *in;
  GQueue events;     /* of char *, names */
  char **subscribed; /* names; NULL: to nothing */
};

#define fail(error, ...) ctl_fail (error, CTL_ERROR_ACCESS, __VA_ARGS__)

/* In messages: "its %s …". */
static const char *
who (const ControlClient *client) {
  return strcmp (client->program, "domybs-backend") == 0 ? "back-end" : client->program;
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
parse_line (const ControlClient *client, const char *line, size_t length, GError **error) {
  g_autoptr (JsonParser) parser = json_parser_new ();
  JsonNode *root;

  if (memchr (line, 0, length) || !g_utf8_validate (line, (gssize)length, NULL) || !depth_is_sane (line, length)
      || !json_parser_load_from_data (parser, line, (gssize)length, NULL)) {
    fail (error, "its %s says something that is no JSON; end what listens at its control socket", who (client));
    return NULL;
  }
  root = json_parser_get_root (parser);
  if (!root || !JSON_NODE_HOLDS_OBJECT (root)) {
    fail (error, "its %s says something that is no JSON object; end what listens at its control socket", who (client));
    return NULL;
  }
  return json_object_ref (json_node_get_object (root));
}

static gboolean
hung_up (ControlClient *client, GError **error) {
  client->hung_up = TRUE;
  return fail (error, "its %s hung up; is it just ending? 'domybsctl list' shows what runs", who (client));
}

/* The next line, without waiting. NULL: none yet, or with error set: there will be none. */
static JsonObject *
next_line (ControlClient *client, GError **error) {
  for (;;) {
    const char *newline = memchr (client->in->str, '\n', client->in->len);
    char bytes[4096];
    ssize_t n;

    if (newline) {
      JsonObject *object = parse_line (client, client->in->str, (size_t)(newline - client->in->str), error);

      g_string_erase (client->in, 0, newline - client->in->str + 1);
      return object;
    }
    if (client->in->len > CONTROL_CLIENT_LINE_BYTES_MAX) {
      fail (error, "its %s says a line without an end; end what listens at its control socket", who (client));
      return NULL;
    }
    n = recv (client->fd, bytes, sizeof bytes, MSG_DONTWAIT);
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0 && errno == EAGAIN)
      return NULL;
    if (n <= 0) {
      hung_up (client, error);
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

/* Connects, without waiting; whatever connection there was before is closed. */
static gboolean
open_connection (ControlClient *client, GError **error) {
  struct sockaddr_un address = { .sun_family = AF_UNIX };

  if (client->fd >= 0)
    close (client->fd);
  client->greeted = client->hung_up = client->nobody = FALSE;
  g_string_truncate (client->in, 0);
  client->fd = -1;
  if (strlen (client->path) >= sizeof address.sun_path)
    return fail (error, "the path of its control socket is too long: %s", client->path);
  strcpy (address.sun_path, client->path);
  client->fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (client->fd >= 0 && connect (client->fd, (const struct sockaddr *)&address, sizeof address) == 0)
    return TRUE;
  switch (errno) {
  case ENOENT:
  case ECONNREFUSED:
    client->nobody = TRUE;
    return fail (error,
                 "its %s is not running (nobody listens at %s); it starts with the domain, if libvirt's hook is installed",
                 who (client), client->path);
  case EACCES:
  case EPERM:
    return fail (error, "no permission for its control socket (%s); run it as root", client->path);
  case EAGAIN:
    return fail (error, "its %s does not answer, and others are waiting for it already (%s); see its log", who (client),
                 client->path);
  default:
    return fail (error, "can't connect to its control socket (%s): %s", client->path, g_strerror (errno));
  }
}

static ControlClient *
client_new (const char *path) {
  ControlClient *client = g_new0 (ControlClient, 1);

  client->path = g_strdup (path);
  client->program = g_str_has_suffix (path, "/far-control.sock") || g_str_has_suffix (path, LAUNCH_OBJECT_CONTROL_SUFFIX) ? "domybs-far"
                                                                                                                          : "domybs-backend";
  client->in = g_string_new (NULL);
  g_queue_init (&client->events);
  client->fd = -1;
  return client;
}

void
control_client_free (ControlClient *client) {
  if (client->fd >= 0)
    close (client->fd);
  g_string_free (client->in, TRUE);
  g_queue_clear_full (&client->events, g_free);
  g_strfreev (client->subscribed);
  g_free (client->version);
  g_free (client->path);
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

    json_node_set_object (node, arguments);
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
    return hung_up (client, error);
  return fail (error, "its %s does not read what is sent to it; see its log, and 'ps' whether it is stopped", who (client));
}

/* Reads the first line that a server says. */
static gboolean
take_greeting (ControlClient *client, JsonObject *line, GError **error) {
  JsonObject *greeting = get_object (line, "domybs");
  const char *why = get_string (get_object (line, "error"), "desc");

  if (why)
    return fail (error, "its %s refuses the connection: %s", who (client), why);
  if (!greeting || g_strcmp0 (get_string (greeting, "program"), client->program) != 0)
    return fail (error, "what listens at its control socket is no %s; end it", client->program);
  if (get_int (greeting, "protocol") != PROTOCOL)
    return fail (error, "its %s speaks another protocol than this domybsctl (%d); use the domybsctl of its version (%s)",
                 who (client), PROTOCOL, get_string (greeting, "version") ? get_string (greeting, "version") : "unknown");
  client->greeted = TRUE;
  g_free (client->version);
  client->version = g_strdup (get_string (greeting, "version"));
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
    client->unknown = g_str_has_prefix (get_string (refusal, "desc"), "unknown command ");
    g_set_error (error, CTL_ERROR, CTL_ERROR_FAILED, "its %s says: %s", who (client), get_string (refusal, "desc"));
    return NULL;
  }
  if (!answer || get_int (line, "id") != client->last_id) {
    fail (error, "its %s answers something that was not asked; end what listens at its control socket", who (client));
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
      fail (error, "its %s does not answer in time; see its log, and 'ps' whether it is stopped", who (client));
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

/* ---- asking ---- */

/* Sends a command and waits for its answer. client->hung_up tells whether it failed for want of a connection. */
static JsonObject *
ask (ControlClient *client, const char *command, JsonObject *arguments, gint64 deadline_ms, GError **error) {
  client->unknown = FALSE;
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

static gboolean
ask_for_events (ControlClient *client, gint64 deadline_ms, GError **error) {
  JsonArray *names = json_array_new ();
  g_autoptr (JsonObject) arguments = json_object_new ();
  g_autoptr (JsonObject) answer = NULL;

  for (char **name = client->subscribed; *name; name++)
    json_array_add_string_element (names, *name);
  json_object_set_array_member (arguments, "events", names);
  answer = ask (client, "subscribe", arguments, deadline_ms, error);
  return answer != NULL;
}

/* Connects, and is greeted; tells again what events are wanted. */
static gboolean
meet_once (ControlClient *client, gint64 deadline_ms, GError **error) {
  g_autoptr (JsonObject) line = open_connection (client, error) ? wait_line (client, deadline_ms, error) : NULL;

  return line && take_greeting (client, line, error) && (!client->subscribed || ask_for_events (client, deadline_ms, error));
}

/* Whoever is there may be replaced in just that moment. */
static gboolean
meet (ControlClient *client, gint64 deadline_ms, GError **error) {
  for (unsigned repeats = 0;; repeats++) {
    g_autoptr (GError) reason = NULL;

    if (meet_once (client, deadline_ms, &reason))
      return TRUE;
    if (!client->hung_up || repeats == REPEATS_MAX) {
      g_propagate_error (error, g_steal_pointer (&reason));
      return FALSE;
    }
    g_usleep (REPEAT_AFTER_US);
  }
}

/* ---- public ---- */

ControlClient *
control_client_new (const char *path, int timeout_ms, GError **error) {
  g_autoptr (ControlClient) client = client_new (path);

  return meet (client, now_ms () + timeout_ms, error) ? g_steal_pointer (&client) : NULL;
}

ControlClient *
control_client_new_of (const char *path, const char *program, int timeout_ms, GError **error) {
  g_autoptr (ControlClient) client = client_new (path);

  client->program = program;
  return meet (client, now_ms () + timeout_ms, error) ? g_steal_pointer (&client) : NULL;
}

gboolean
control_client_nobody (const char *path) {
  g_autoptr (ControlClient) client = client_new (path);

  return !open_connection (client, NULL) && client->nobody;
}

const char *
control_client_version (const ControlClient *client) {
  return client->version ? client->version : "unknown";
}

JsonObject *
control_client_execute (ControlClient *client, const char *command, JsonObject *arguments, int timeout_ms, GError **error) {
  g_autoptr (JsonObject) taken = arguments;
  const gint64 deadline_ms = now_ms () + timeout_ms;

  for (unsigned repeats = 0;; repeats++) {
    g_autoptr (GError) reason = NULL;
    JsonObject *answer = ask (client, command, taken, deadline_ms, &reason);

    if (answer)
      return answer;
    if (!client->hung_up || repeats == REPEATS_MAX) {
      g_propagate_error (error, g_steal_pointer (&reason));
      return NULL;
    }
    if (!meet (client, deadline_ms, error))
      return NULL;
  }
}

/* Waits until the connection ends, which is the only answer to what was done. */
static gboolean
wait_for_end (ControlClient *client, gint64 deadline_ms) {
  for (;;) {
    g_autoptr (JsonObject) line = wait_line (client, deadline_ms, NULL);

    if (!line)
      return client->hung_up;
  }
}

gboolean
control_client_replace (ControlClient *client, const char *command, int timeout_ms, GError **error) {
  const gint64 deadline_ms = now_ms () + timeout_ms;
  g_autoptr (GError) reason = NULL;
  g_autoptr (JsonObject) answer = ask (client, command, NULL, deadline_ms, &reason);

  if (client->hung_up || (answer && wait_for_end (client, deadline_ms)))
    return meet (client, deadline_ms, error);
  if (client->unknown)
    g_set_error (error, CTL_ERROR, CTL_ERROR_REFUSED,
                 "its %s (version %s) is too old for that: it can't be replaced while its QEMU runs; it takes a restart "
                 "of the VM (shut it down and start it)",
                 who (client), control_client_version (client));
  else if (reason && reason->code != CTL_ERROR_ACCESS)
    g_propagate_error (error, g_steal_pointer (&reason));
  else
    g_set_error (error, CTL_ERROR, CTL_ERROR_FAILED, "its %s has not replaced its worker within %d s; see its log",
                 who (client), timeout_ms / 1000);
  return FALSE;
}

gboolean
control_client_subscribe (ControlClient *client, const char *const *events, GError **error) {
  const gint64 deadline_ms = now_ms () + CONTROL_CLIENT_TIMEOUT_MS;
  g_autoptr (GError) reason = NULL;

  g_strfreev (client->subscribed);
  client->subscribed = g_strdupv ((char **)events);
  if (ask_for_events (client, deadline_ms, &reason))
    return TRUE;
  if (client->hung_up)
    return meet (client, deadline_ms, error);
  g_clear_pointer (&client->subscribed, g_strfreev);
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
      fail (&reason, "its %s answers something that was not asked; end what listens at its control socket", who (client));
    if (reason && client->hung_up) {
      /* What was told meanwhile is lost, but not that there may be something */
      meet (client, now_ms () + CONTROL_CLIENT_TIMEOUT_MS, error);
      return NULL;
    }
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

typedef struct {
  ControlClient *client; /* NULL: answered, or given up */
  unsigned repeats;
} Asked;

/* Connects, or connects again. */
static void
gather_open (Asked *asked, struct pollfd *ret_poll, GError **error) {
  if (!open_connection (asked->client, error))
    g_clear_pointer (&asked->client, control_client_free);
  *ret_poll = (struct pollfd){ asked->client ? asked->client->fd : -1, POLLIN, 0 };
}

static void
gather_some (const char *const *paths, unsigned n, const char *command, gint64 deadline_ms, JsonObject **ret_answers,
             GError **ret_errors) {
  g_autofree Asked *asked = g_new0 (Asked, n);
  struct pollfd polls[GATHER_MAX];
  unsigned open = 0;
  gint64 left;

  for (unsigned i = 0; i < n; i++) {
    polls[i] = (struct pollfd){ -1, 0, 0 };
    asked[i].client = paths[i] ? client_new (paths[i]) : NULL;
    if (asked[i].client)
      gather_open (&asked[i], &polls[i], &ret_errors[i]);
    open += asked[i].client != NULL;
  }
  while (open && (left = deadline_ms - now_ms ()) > 0) {
    if (poll (polls, n, (int)left) < 0)
      continue;
    for (unsigned i = 0; i < n; i++) {
      if (!polls[i].revents || gather_step (asked[i].client, command, &ret_answers[i], &ret_errors[i]))
        continue;
      if (asked[i].client->hung_up && asked[i].repeats++ < REPEATS_MAX) {
        g_clear_error (&ret_errors[i]);
        gather_open (&asked[i], &polls[i], &ret_errors[i]);
        open -= asked[i].client == NULL;
        continue;
      }
      g_clear_pointer (&asked[i].client, control_client_free);
      polls[i] = (struct pollfd){ -1, 0, 0 };
      open--;
    }
  }
  for (unsigned i = 0; i < n; i++)
    if (asked[i].client) {
      fail (&ret_errors[i], "its %s does not answer in time; see its log, and 'ps' whether it is stopped",
            who (asked[i].client));
      control_client_free (asked[i].client);
    }
}

void
control_client_gather (const char *const *paths, unsigned n, const char *command, int timeout_ms, JsonObject **ret_answers,
                       GError **ret_errors) {
  const gint64 deadline_ms = now_ms () + timeout_ms;

  for (unsigned first = 0; first < n; first += GATHER_MAX)
    gather_some (paths + first, MIN (n - first, GATHER_MAX), command, deadline_ms, ret_answers + first, ret_errors + first);
}
