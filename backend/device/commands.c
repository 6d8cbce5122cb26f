/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "device/commands.h"
#include "core/device-state.h"
#include "io/error.h"
#include "io/json-members.h"
#include "io/worker-status.h"

#include <string.h>
#include <unistd.h>

/* Cells in the answer to `blocks`: the most keeps that answer well below what a client may leave unread
 * (CONTROL_OUT_BYTES_MAX). */
#define BLOCKS_CELLS_DEFAULT 64
#define BLOCKS_CELLS_MAX 4096

typedef JsonNode *(*CommandFunction) (const Operator *op, ControlClient *client, JsonObject *arguments, GError **error);

struct command {
  const char *name;
  CommandFunction run;
  const char *arguments[5]; /* those it knows, NULL-terminated */
  gboolean of_far;          /* of domybs-far's connection, which may say nothing else */
};

/* ---- reading arguments ---- */

/* Reads a whole number between min and max. FALSE with error when it is missing or something else. */
static gboolean
get_count (JsonObject *arguments, const char *name, guint64 min, guint64 max, guint64 *ret_value, GError **error) {
  JsonNode *node = json_object_get_member (arguments, name);
  gint64 value;

  if (!node || !JSON_NODE_HOLDS_VALUE (node) || json_node_get_value_type (node) != G_TYPE_INT64) {
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_USAGE, "argument '%s' must be a whole number", name);
    return FALSE;
  }
  value = json_node_get_int (node);
  if (value < 0 || (guint64)value < min || (guint64)value > max) {
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_USAGE,
                 "argument '%s' must be between %" G_GUINT64_FORMAT " and %" G_GUINT64_FORMAT, name, min, max);
    return FALSE;
  }
  *ret_value = (guint64)value;
  return TRUE;
}

/* ---- status ---- */

static guint64
ms_since (gint64 monotonic_time) {
  return (guint64)MAX (g_get_monotonic_time () - monotonic_time, 0) / 1000;
}

static const char *const stat_names[] = {
  [DOMYBS_STAT_MEM_TOTAL] = "mem-total-bytes",
  [DOMYBS_STAT_MEM_FREE] = "mem-free-bytes",
  [DOMYBS_STAT_MEM_AVAILABLE] = "mem-available-bytes",
  [DOMYBS_STAT_SWAP_TOTAL] = "swap-total-bytes",
  [DOMYBS_STAT_SWAP_FREE] = "swap-free-bytes",
  [DOMYBS_STAT_SWAP_IN] = "swap-in-pages",
  [DOMYBS_STAT_SWAP_OUT] = "swap-out-pages",
  [DOMYBS_STAT_PSI_SOME_US] = "psi-some-us",
  [DOMYBS_STAT_PSI_FULL_US] = "psi-full-us",
  [DOMYBS_STAT_BLOCKS_ONLINE] = "blocks-online",
  [DOMYBS_STAT_BLOCKS_HELD] = "blocks-held",
  [DOMYBS_STAT_BLOCKS_STUCK] = "blocks-stuck",
  [DOMYBS_STAT_OOM_KILLS] = "oom-kills",
};

static void
add_guest (JsonBuilder *builder, const struct memory_device *device) {
  json_builder_set_member_name (builder, "guest");
  json_builder_begin_object (builder);
  if (device->session) {
    add_string (builder, "driver", device->driver); /* printable ASCII, checked by the codec */
    add_int (builder, "section-blocks", device->regions.region_blocks);
  }
  for (unsigned tag = 0; tag < G_N_ELEMENTS (stat_names); tag++)
    if (stat_names[tag] && (device->stats_known & (1u << tag)))
      add_int (builder, stat_names[tag], device->stats[tag]);
  json_builder_end_object (builder);
}

static const char *const far_tiers[DEVICE_FAR_TIERS] = { "shared", "remote" };

/* What the guest wants of far memory, and what domybs-far says there is. */
static void
add_far (JsonBuilder *builder, const BackendState *state) {
  const BackendFar *far = state->far;

  json_builder_set_member_name (builder, "far");
  json_builder_begin_object (builder);
  add_bool (builder, "connected", far->is_connected);
  json_builder_set_member_name (builder, "tiers");
  json_builder_begin_array (builder);
  for (unsigned i = 0; i < DEVICE_FAR_TIERS; i++) {
    const struct device_level *level = &state->device->levels[i];
    const BackendFarTier *tier = &far->tiers[i];

    if (!tier->is_there)
      continue;
    json_builder_begin_object (builder);
    add_string (builder, "tier", far_tiers[i]);
    add_int (builder, "blocks", tier->blocks);
    add_int (builder, "in-use-blocks", tier->in_use_blocks);
    add_int_or_null (builder, "reserve-blocks", level->known, level->blocks);
    add_int (builder, "reserved-blocks", tier->reserved_blocks);
    add_bool (builder, "full", tier->is_full);
    json_builder_end_object (builder);
  }
  json_builder_end_array (builder);
  json_builder_end_object (builder);
}

/* Why the session's last GRANT got less than it asked for, if it did. */
static void
add_refusal (JsonBuilder *builder, const BackendState *state) {
  if (state->device->shortage == DEVICE_SHORTAGE_NONE) {
    add_null (builder, "refused-reason");
    add_null (builder, "refused-age-ms");
    return;
  }
  add_string (builder, "refused-reason", device_shortage_name (state->device->shortage));
  add_int (builder, "refused-age-ms", ms_since (state->short_grant->at));
}

static void
add_worker (JsonBuilder *builder, const Operator *op, const BackendState *state) {
  const struct keeper_hello *page = state->hello;

  worker_status_add (builder, &(struct worker_status){
                                  .keeper_pid = page->keeper_pid,
                                  .mode = state->busy_mode ? "busy" : "normal",
                                  .state_version = DOMYBS_STATE_VERSION,
                                  .starts = page->starts,
                                  .deaths = page->deaths,
                                  .strikes = page->strikes,
                                  .last_status = page->last_status,
                                  .last_death_at = (gint64)page->last_death_us,
                                  .keeper_started_at = (gint64)page->started_us,
                                  .started_at = op->started_at,
                                  .rolled_back = page->rolled_back != 0,
                              });
}

static JsonNode *
run_status (const Operator *op, ControlClient *client, JsonObject *arguments, GError **error) {
  g_autoptr (JsonBuilder) builder = json_builder_new ();
  const struct memory_device *device;
  BackendState state;

  backend_state (op->backend, &state);
  device = state.device;
  json_builder_begin_object (builder);
  add_string (builder, "name", state.name);
  add_int (builder, "pid", state.hello->keeper_pid);
  add_int (builder, "block-bytes", DOMYBS_BLOCK_BYTES);
  add_int (builder, "window-blocks", device->options.window_blocks);
  add_int (builder, "max-blocks", device->options.max_blocks);
  add_int_or_null (builder, "target-blocks", device->options.have_target, device->options.target_blocks);
  add_int (builder, "granted-blocks", device->regions.granted);
  add_int (builder, "fragmentation-permille", regions_fragmentation (&device->regions));
  add_bool (builder, "connected", state.connected);
  add_int (builder, "connections", state.connections);
  add_bool (builder, "window-mapped", state.window_mapped);
  add_bool (builder, "session", device->session != 0);
  add_int (builder, "generation", device->generation);
  add_int (builder, "memfd-bytes", state.window_bytes_used);
  if (state.window_fd >= 0) {
    g_autofree char *path = g_strdup_printf ("/proc/%d/fd/%d", getpid (), state.window_fd);

    add_string (builder, "memfd-path", path);
  }
  add_int (builder, "audit-punched-bytes", state.audit_bytes);
  add_int (builder, "audit-punched-blocks", (state.audit_bytes + DOMYBS_BLOCK_BYTES - 1) / DOMYBS_BLOCK_BYTES);
  add_int (builder, "host-used-blocks", backend_host_used_blocks (op->backend));
  add_int (builder, "host-limit-blocks", state.host_limit_blocks);
  add_int (builder, "host-reserve-bytes", state.host_reserve_bytes);
  add_refusal (builder, &state);
  add_int (builder, "requests", device->counters.requests);
  add_int (builder, "requests-refused", device->counters.refused);
  add_int (builder, "requests-replayed", device->counters.replayed);
  add_int (builder, "grants-short", device->counters.short_grants);
  add_int (builder, "sessions", device->counters.sessions);
  add_int (builder, "blocks-granted-total", device->counters.blocks_granted);
  add_int (builder, "blocks-released-total", device->counters.blocks_released);
  add_int_or_null (builder, "stats-age-ms", device->stats_known != 0, ms_since (state.stats_at));
  add_guest (builder, device);
  add_far (builder, &state);
  add_worker (builder, op, &state);
  json_builder_end_object (builder);
  return json_builder_get_root (builder);
}

/* ---- blocks ---- */

static JsonNode *
run_blocks (const Operator *op, ControlClient *client, JsonObject *arguments, GError **error) {
  g_autoptr (JsonBuilder) builder = json_builder_new ();
  guint64 cells = BLOCKS_CELLS_DEFAULT, window, cell;
  const struct regions *regions;
  BackendState state;

  if (json_object_has_member (arguments, "cells") && !get_count (arguments, "cells", 1, BLOCKS_CELLS_MAX, &cells, error))
    return NULL;
  backend_state (op->backend, &state);
  regions = &state.device->regions;
  window = regions->n_blocks;
  cell = (window + cells - 1) / cells;
  json_builder_begin_object (builder);
  add_int (builder, "window-blocks", window);
  add_int (builder, "usable-blocks", regions->usable_blocks);
  add_int (builder, "block-bytes", DOMYBS_BLOCK_BYTES);
  add_int (builder, "cell-blocks", cell);
  json_builder_set_member_name (builder, "granted");
  json_builder_begin_array (builder);
  for (guint64 start = 0; start < window; start += cell)
    json_builder_add_int_value (builder, (gint64)regions_count (regions, start, cell));
  json_builder_end_array (builder);
  json_builder_end_object (builder);
  return json_builder_get_root (builder);
}

/* ---- the other commands ---- */

static JsonNode *
one_int (const char *name, guint64 value) {
  g_autoptr (JsonBuilder) builder = json_builder_new ();

  json_builder_begin_object (builder);
  add_int (builder, name, value);
  json_builder_end_object (builder);
  return json_builder_get_root (builder);
}

static JsonNode *
run_set_target (const Operator *op, ControlClient *client, JsonObject *arguments, GError **error) {
  guint64 blocks = 0;
  JsonNode *node = json_object_get_member (arguments, "blocks");
  const gboolean by_pressure = node && JSON_NODE_HOLDS_NULL (node);

  if (!by_pressure && !get_count (arguments, "blocks", 0, G_MAXINT64, &blocks, error))
    return NULL;
  return one_int ("target-blocks", backend_set_target (op->backend, !by_pressure, blocks));
}

static JsonNode *
run_reclaim (const Operator *op, ControlClient *client, JsonObject *arguments, GError **error) {
  guint64 blocks, deadline_ms = 10000;

  if (!get_count (arguments, "blocks", 0, G_MAXINT64, &blocks, error))
    return NULL;
  if (json_object_has_member (arguments, "deadline-ms")
      && !get_count (arguments, "deadline-ms", 0, G_MAXUINT32, &deadline_ms, error))
    return NULL;
  if (!backend_reclaim (op->backend, blocks, (uint32_t)deadline_ms)) {
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_FAILED,
                 "no guest driver is listening; load virtio_domybs in the guest and try again");
    return NULL;
  }
  return one_int ("asked-blocks", blocks);
}

static JsonNode *
run_audit (const Operator *op, ControlClient *client, JsonObject *arguments, GError **error) {
  return one_int ("punched-bytes", backend_audit (op->backend));
}

static JsonNode *
run_version (const Operator *op, ControlClient *client, JsonObject *arguments, GError **error) {
  g_autoptr (JsonBuilder) builder = json_builder_new ();

  json_builder_begin_object (builder);
  add_string (builder, "version", DOMYBS_VERSION);
  add_int (builder, "abi-version", DOMYBS_ABI_VERSION);
  json_builder_end_object (builder);
  return json_builder_get_root (builder);
}

static JsonNode *
run_subscribe (const Operator *op, ControlClient *client, JsonObject *arguments, GError **error) {
  g_autoptr (JsonBuilder) builder = json_builder_new ();
  JsonNode *node = json_object_get_member (arguments, "events");

  if (!node || !JSON_NODE_HOLDS_ARRAY (node)) {
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_USAGE, "argument 'events' must be an array of names");
    return NULL;
  }
  if (!monitor_subscribe (op->monitor, client, json_node_get_array (node), error))
    return NULL;
  json_builder_begin_object (builder);
  json_builder_end_object (builder);
  return json_builder_get_root (builder);
}

static void
on_replace_failed (gpointer data, const char *why) {
  const Operator *op = data;
  g_autoptr (GError) error = g_error_new (DOMYBS_ERROR, DOMYBS_ERROR_FAILED, "%s; this worker goes on", why);

  control_server_refuse_waiting (op->server, error);
}

/* The answer to success is the end of the connection: this process is not there any more then. */
static JsonNode *
run_restart (const Operator *op, ControlClient *client, JsonObject *arguments, GError **error) {
  backend_replace (op->backend, KEEPER_PROGRAM_SAME, on_replace_failed, (gpointer)op);
  return NULL;
}

static JsonNode *
run_upgrade (const Operator *op, ControlClient *client, JsonObject *arguments, GError **error) {
  backend_replace (op->backend, KEEPER_PROGRAM_INSTALLED, on_replace_failed, (gpointer)op);
  return NULL;
}

/* ---- domybs-far ---- */

static JsonNode *
run_far_serve (const Operator *op, ControlClient *client, JsonObject *arguments, GError **error) {
  return far_link_serve (op->far, client, error);
}

static JsonNode *
run_far_tiers (const Operator *op, ControlClient *client, JsonObject *arguments, GError **error) {
  return far_link_tiers (op->far, client, arguments, error);
}

static JsonNode *
run_far_reserved (const Operator *op, ControlClient *client, JsonObject *arguments, GError **error) {
  return far_link_reserved (op->far, client, arguments, error);
}

static const struct command commands[] = {
  { "status", run_status, { NULL } },
  { "blocks", run_blocks, { "cells", NULL } },
  { "set-target", run_set_target, { "blocks", NULL } },
  { "reclaim", run_reclaim, { "blocks", "deadline-ms", NULL } },
  { "audit", run_audit, { NULL } },
  { "subscribe", run_subscribe, { "events", NULL } },
  { "version", run_version, { NULL } },
  { "restart", run_restart, { NULL } },
  { "upgrade", run_upgrade, { NULL } },
  { "far-serve", run_far_serve, { NULL }, TRUE },
  { "far-tiers", run_far_tiers, { "tiers", NULL }, TRUE },
  { "far-reserved", run_far_reserved, { "tier", "blocks", "in-use-blocks", "full", NULL }, TRUE },
};

static gboolean
knows_argument (const struct command *command, const char *name) {
  for (unsigned i = 0; i < G_N_ELEMENTS (command->arguments) && command->arguments[i]; i++)
    if (strcmp (command->arguments[i], name) == 0)
      return TRUE;
  return FALSE;
}

JsonNode *
backend_command (gpointer data, ControlClient *client, const char *command, JsonObject *arguments, GError **error) {
  const Operator *op = data;

  for (unsigned i = 0; i < G_N_ELEMENTS (commands); i++) {
    JsonObjectIter iter;
    const char *name;

    if (strcmp (commands[i].name, command) != 0)
      continue;
    if (!commands[i].of_far && far_link_is (op->far, client)) {
      g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_USAGE, "a connection that said far-serve can't say '%s'", command);
      return NULL;
    }
    json_object_iter_init (&iter, arguments);
    while (json_object_iter_next (&iter, &name, NULL))
      if (!knows_argument (&commands[i], name)) {
        g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_USAGE, "command '%s' has no argument '%s'", command, name);
        return NULL;
      }
    return commands[i].run (op, client, arguments, error);
  }
  g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_USAGE,
               "unknown command '%s'; there are: status, blocks, set-target, reclaim, audit, subscribe, version, restart, upgrade", command);
  return NULL;
}
