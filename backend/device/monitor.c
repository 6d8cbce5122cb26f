/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "device/monitor.h"
#include "io/json-members.h"
#include "io/error.h"
#include "io/source.h"

#include <string.h>

/* What was told last. Counters are in it so that what comes and goes within one interval shows, too. */
struct picture {
  gboolean connected, session, have_target;
  uint64_t connections, sessions, granted, target, short_grants, audit_bytes;
};

struct Monitor {
  Backend *backend;
  ControlServer *server;
  GSource *timer; /* while something has changed that was not told yet */
  gint64 told_at; /* g_get_monotonic_time; 0 = nothing yet */
  struct picture told;
};

struct event {
  const char *name;
  /* Whether it is to be told, and its members. */
  gboolean (*changed) (const struct picture *before, const struct picture *now);
  void (*describe) (JsonBuilder *builder, const BackendState *state, const struct picture *before);
};

/* ---- the events ---- */

static gboolean
connection_changed (const struct picture *before, const struct picture *now) {
  return before->connected != now->connected || before->connections != now->connections;
}

static void
describe_connection (JsonBuilder *builder, const BackendState *state, const struct picture *before) {
  add_bool (builder, "connected", state->connected);
  add_int (builder, "connections", state->connections);
}

static gboolean
session_changed (const struct picture *before, const struct picture *now) {
  return before->session != now->session || before->sessions != now->sessions;
}

static void
describe_session (JsonBuilder *builder, const BackendState *state, const struct picture *before) {
  add_bool (builder, "session", state->device->session != 0);
  add_int (builder, "sessions", state->device->counters.sessions);
  if (state->device->session)
    add_string (builder, "driver", state->device->driver); /* printable ASCII, checked by the codec */
}

static gboolean
target_changed (const struct picture *before, const struct picture *now) {
  return before->have_target != now->have_target || before->target != now->target;
}

static void
describe_target (JsonBuilder *builder, const BackendState *state, const struct picture *before) {
  add_int_or_null (builder, "target-blocks", state->device->options.have_target, state->device->options.target_blocks);
}

static gboolean
granted_changed (const struct picture *before, const struct picture *now) {
  return before->granted != now->granted;
}

static void
describe_granted (JsonBuilder *builder, const BackendState *state, const struct picture *before) {
  add_int (builder, "granted-blocks", state->device->regions.granted);
}

static gboolean
refused_changed (const struct picture *before, const struct picture *now) {
  return before->short_grants != now->short_grants;
}

static void
describe_refused (JsonBuilder *builder, const BackendState *state, const struct picture *before) {
  add_string (builder, "reason", device_shortage_name (state->short_grant->reason));
  add_int (builder, "asked-blocks", state->short_grant->asked_blocks);
  add_int (builder, "got-blocks", state->short_grant->got_blocks);
  add_int (builder, "times", state->device->counters.short_grants - before->short_grants);
}

static gboolean
audit_changed (const struct picture *before, const struct picture *now) {
  return before->audit_bytes != now->audit_bytes;
}

static void
describe_audit (JsonBuilder *builder, const BackendState *state, const struct picture *before) {
  add_int (builder, "punched-bytes", state->audit_bytes - before->audit_bytes);
}

/* In the order in which they are told. An event's bit is its place. */
static const struct event events[] = {
  { "connection", connection_changed, describe_connection },
  { "session", session_changed, describe_session },
  { "target", target_changed, describe_target },
  { "granted", granted_changed, describe_granted },
  { "refused", refused_changed, describe_refused },
  { "audit", audit_changed, describe_audit },
};

#define ALL_EVENTS ((1u << G_N_ELEMENTS (events)) - 1)

/* ---- telling ---- */

static struct picture
take_picture (const BackendState *state) {
  const struct memory_device *device = state->device;

  return (struct picture){
    .connected = state->connected,
    .session = device->session != 0,
    .have_target = device->options.have_target,
    .connections = state->connections,
    .sessions = device->counters.sessions,
    .granted = device->regions.granted,
    .target = device->options.target_blocks,
    .short_grants = device->counters.short_grants,
    .audit_bytes = state->audit_bytes,
  };
}

static gboolean
on_time_to_tell (gpointer data) {
  Monitor *monitor = data;
  const struct picture before = monitor->told;
  BackendState state;

  source_clear (&monitor->timer);
  backend_state (monitor->backend, &state);
  monitor->told = take_picture (&state);
  monitor->told_at = g_get_monotonic_time ();
  for (unsigned i = 0; i < G_N_ELEMENTS (events); i++) {
    g_autoptr (JsonBuilder) builder = NULL;

    if (!events[i].changed (&before, &monitor->told) || !(control_server_subscribed (monitor->server) & (1u << i)))
      continue;
    builder = json_builder_new ();
    json_builder_begin_object (builder);
    events[i].describe (builder, &state, &before);
    json_builder_end_object (builder);
    control_server_emit (monitor->server, 1u << i, events[i].name, json_builder_get_root (builder));
  }
  return G_SOURCE_REMOVE;
}

static void
on_changed (gpointer data) {
  Monitor *monitor = data;
  gint64 wait_ms;

  if (monitor->timer || !(control_server_subscribed (monitor->server) & ALL_EVENTS))
    return;
  wait_ms = monitor->told_at ? MONITOR_INTERVAL_MS - (g_get_monotonic_time () - monitor->told_at) / 1000 : 0;
  monitor->timer = source_timeout ((unsigned)CLAMP (wait_ms, 0, MONITOR_INTERVAL_MS), on_time_to_tell, monitor);
}

gboolean
monitor_subscribe (Monitor *monitor, ControlClient *client, JsonArray *names, GError **error) {
  unsigned wanted = 0;

  for (guint k = 0; k < json_array_get_length (names); k++) {
    JsonNode *node = json_array_get_element (names, k);
    const char *name
        = JSON_NODE_HOLDS_VALUE (node) && json_node_get_value_type (node) == G_TYPE_STRING ? json_node_get_string (node) : "";
    unsigned i = 0;

    while (i < G_N_ELEMENTS (events) && strcmp (events[i].name, name) != 0)
      i++;
    if (i == G_N_ELEMENTS (events)) {
      g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_USAGE,
                   "no event '%s'; there are: connection, session, target, granted, refused, audit", name);
      return FALSE;
    }
    wanted |= 1u << i;
  }
  if (!(control_server_subscribed (monitor->server) & ALL_EVENTS)) {
    BackendState state;

    backend_state (monitor->backend, &state); /* nobody was told what changed while nobody listened */
    monitor->told = take_picture (&state);
  }
  control_client_subscribe (client, wanted);
  return TRUE;
}

/* ---- life ---- */

Monitor *
monitor_new (Backend *backend, ControlServer *server) {
  Monitor *monitor = g_new0 (Monitor, 1);

  monitor->backend = backend;
  monitor->server = server;
  backend_watch (backend, on_changed, monitor);
  return monitor;
}

void
monitor_free (Monitor *monitor) {
  backend_watch (monitor->backend, NULL, NULL);
  source_clear (&monitor->timer);
  g_free (monitor);
}
