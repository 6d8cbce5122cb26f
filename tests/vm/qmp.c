/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "qmp.h"

struct Qmp {
  Channel *channel;
  JsonObject *greeting;
  GPtrArray *events; /* JsonObject, oldest first */
};

static JsonObject *
read_object (Qmp *qmp, double seconds, GError **error) {
  g_autofree char *line = channel_read_line (qmp->channel, seconds, error);
  g_autoptr (JsonNode) node = NULL;

  if (!line)
    return NULL;
  node = json_from_string (line, error);
  if (!node) {
    g_prefix_error (error, "not JSON: '%s': ", line);
    return NULL;
  }
  if (!JSON_NODE_HOLDS_OBJECT (node)) {
    g_set_error (error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA, "not a JSON object: '%s'", line);
    return NULL;
  }
  return json_node_dup_object (node);
}

Qmp *
qmp_connect (const char *path, gboolean negotiate, double seconds, ChannelWatchdog watchdog, gpointer data, GError **error) {
  g_autoptr (Qmp) qmp = g_new0 (Qmp, 1);

  qmp->events = g_ptr_array_new_with_free_func ((GDestroyNotify)json_object_unref);
  qmp->channel = channel_connect (path, seconds, watchdog, data, error);
  if (!qmp->channel)
    return NULL;
  qmp->greeting = read_object (qmp, seconds, error);
  if (!qmp->greeting)
    return NULL;
  if (negotiate) {
    g_autoptr (JsonNode) done = qmp_execute (qmp, "{\"execute\": \"qmp_capabilities\"}", seconds, error);

    if (!done)
      return NULL;
  }
  return g_steal_pointer (&qmp);
}

void
qmp_free (Qmp *qmp) {
  g_clear_pointer (&qmp->channel, channel_free);
  g_clear_pointer (&qmp->greeting, json_object_unref);
  g_ptr_array_unref (qmp->events);
  g_free (qmp);
}

JsonObject *
qmp_greeting (Qmp *qmp) {
  return qmp->greeting;
}

JsonNode *
qmp_execute (Qmp *qmp, const char *json, double seconds, GError **error) {
  g_autofree char *line = g_strconcat (json, "\n", NULL);

  if (!channel_write (qmp->channel, line, strlen (line), seconds, error))
    return NULL;
  for (;;) {
    g_autoptr (JsonObject) object = read_object (qmp, seconds, error);

    if (!object)
      return NULL;
    if (json_object_has_member (object, "return"))
      return json_node_copy (json_object_get_member (object, "return"));
    if (json_object_has_member (object, "error")) {
      JsonObject *failure = json_object_get_object_member (object, "error");

      g_set_error (error, G_IO_ERROR, G_IO_ERROR_FAILED, "%s: %s: %s", json,
                   json_object_get_string_member_with_default (failure, "class", "error"),
                   json_object_get_string_member_with_default (failure, "desc", "no description"));
      return NULL;
    }
    g_ptr_array_add (qmp->events, g_steal_pointer (&object));
  }
}

JsonObject *
qmp_wait_event (Qmp *qmp, const char *name, double seconds, GError **error) {
  gint64 deadline = g_get_monotonic_time () + (gint64)(seconds * G_USEC_PER_SEC);

  for (guint seen = 0;;) {
    for (; seen < qmp->events->len; seen++) {
      JsonObject *event = g_ptr_array_index (qmp->events, seen);

      if (g_strcmp0 (json_object_get_string_member_with_default (event, "event", ""), name) == 0) {
        json_object_ref (event);
        g_ptr_array_remove_index (qmp->events, seen);
        return event;
      }
    }
    JsonObject *next = read_object (qmp, (double)(deadline - g_get_monotonic_time ()) / G_USEC_PER_SEC, error);
    if (!next) {
      g_prefix_error (error, "waiting for the event %s: ", name);
      return NULL;
    }
    g_ptr_array_add (qmp->events, next);
  }
}

void
qmp_forget_events (Qmp *qmp) {
  g_ptr_array_set_size (qmp->events, 0);
}
