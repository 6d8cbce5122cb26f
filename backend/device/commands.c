/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "device/commands.h"
#include "io/error.h"

#include <string.h>
#include <unistd.h>

typedef JsonNode *(*CommandFunction) (Backend *backend, JsonObject *arguments, GError **error);

struct command {
  const char *name;
  CommandFunction run;
  const char *arguments[3]; /* those it knows, NULL-terminated */
};

/* ---- reading arguments ---- */

/* Reads a whole number ≥ 0. FALSE with error when it is missing or something else. */
static gboolean
get_count (JsonObject *arguments, const char *name, guint64 max, guint64 *ret_value, GError **error) {
  JsonNode *node = json_object_get_member (arguments, name);
  gint64 value;

  if (!node || !JSON_NODE_HOLDS_VALUE (node) || json_node_get_value_type (node) != G_TYPE_INT64) {
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_USAGE, "argument '%s' must be a whole number", name);
    return FALSE;
  }
  value = json_node_get_int (node);
  if (value < 0 || (guint64)value > max) {
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_USAGE, "argument '%s' must be between 0 and %" G_GUINT64_FORMAT, name, max);
    return FALSE;
  }
  *ret_value = (guint64)value;
  return TRUE;
}

/* ---- status ---- */

static void
add_int (JsonBuilder *builder, const char *name, guint64 value) {
  json_builder_set_member_name (builder, name);
  json_builder_add_int_value (builder, (gint64)MIN (value, (guint64)G_MAXINT64));
}

static void
add_bool (JsonBuilder *builder, const char *name, gboolean value) {
  json_builder_set_member_name (builder, name);
  json_builder_add_boolean_value (builder, value);
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
    json_builder_set_member_name (builder, "driver");
    json_builder_add_string_value (builder, device->driver); /* printable ASCII, checked by the codec */
    add_int (builder, "section-blocks", device->regions.region_blocks);
  }
  for (unsigned tag = 0; tag < G_N_ELEMENTS (stat_names); tag++)
    if (stat_names[tag] && (device->stats_known & (1u << tag)))
      add_int (builder, stat_names[tag], device->stats[tag]);
  json_builder_end_object (builder);
}

static JsonNode *
run_status (Backend *backend, JsonObject *arguments, GError **error) {
  g_autoptr (JsonBuilder) builder = json_builder_new ();
  const struct memory_device *device;
  BackendState state;

  backend_state (backend, &state);
  device = state.device;
  json_builder_begin_object (builder);
  add_int (builder, "block-bytes", DOMYBS_BLOCK_BYTES);
  add_int (builder, "window-blocks", device->options.window_blocks);
  add_int (builder, "max-blocks", device->options.max_blocks);
  json_builder_set_member_name (builder, "target-blocks");
  if (device->options.have_target)
    json_builder_add_int_value (builder, (gint64)device->options.target_blocks);
  else
    json_builder_add_null_value (builder);
  add_int (builder, "granted-blocks", device->regions.granted);
  add_int (builder, "fragmentation-permille", regions_fragmentation (&device->regions));
  add_bool (builder, "connected", state.connected);
  add_bool (builder, "window-mapped", state.window_mapped);
  add_bool (builder, "session", device->session != 0);
  add_int (builder, "generation", device->generation);
  add_int (builder, "memfd-bytes", state.window_bytes_used);
  if (state.window_fd >= 0) {
    g_autofree char *path = g_strdup_printf ("/proc/%d/fd/%d", getpid (), state.window_fd);

    json_builder_set_member_name (builder, "memfd-path");
    json_builder_add_string_value (builder, path);
  }
  add_int (builder, "audit-punched-bytes", state.audit_bytes);
  add_int (builder, "audit-punched-blocks", (state.audit_bytes + DOMYBS_BLOCK_BYTES - 1) / DOMYBS_BLOCK_BYTES);
  add_int (builder, "host-used-blocks", state.host_used_blocks);
  add_int (builder, "host-limit-blocks", state.host_limit_blocks);
  add_int (builder, "requests", device->counters.requests);
  add_int (builder, "requests-refused", device->counters.refused);
  add_int (builder, "requests-replayed", device->counters.replayed);
  add_int (builder, "sessions", device->counters.sessions);
  add_int (builder, "blocks-granted-total", device->counters.blocks_granted);
  add_int (builder, "blocks-released-total", device->counters.blocks_released);
  add_guest (builder, device);
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
run_set_target (Backend *backend, JsonObject *arguments, GError **error) {
  guint64 blocks = 0;
  JsonNode *node = json_object_get_member (arguments, "blocks");
  const gboolean by_pressure = node && JSON_NODE_HOLDS_NULL (node);

  if (!by_pressure && !get_count (arguments, "blocks", G_MAXINT64, &blocks, error))
    return NULL;
  return one_int ("target-blocks", backend_set_target (backend, !by_pressure, blocks));
}

static JsonNode *
run_reclaim (Backend *backend, JsonObject *arguments, GError **error) {
  guint64 blocks, deadline_ms = 10000;

  if (!get_count (arguments, "blocks", G_MAXINT64, &blocks, error))
    return NULL;
  if (json_object_has_member (arguments, "deadline-ms") && !get_count (arguments, "deadline-ms", G_MAXUINT32, &deadline_ms, error))
    return NULL;
  if (!backend_reclaim (backend, blocks, (uint32_t)deadline_ms)) {
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_FAILED,
                 "no guest driver is listening; load virtio_domybs in the guest and try again");
    return NULL;
  }
  return one_int ("asked-blocks", blocks);
}

static JsonNode *
run_audit (Backend *backend, JsonObject *arguments, GError **error) {
  return one_int ("punched-bytes", backend_audit (backend));
}

static JsonNode *
run_version (Backend *backend, JsonObject *arguments, GError **error) {
  g_autoptr (JsonBuilder) builder = json_builder_new ();

  json_builder_begin_object (builder);
  json_builder_set_member_name (builder, "version");
  json_builder_add_string_value (builder, DOMYBS_VERSION);
  add_int (builder, "abi-version", DOMYBS_ABI_VERSION);
  json_builder_end_object (builder);
  return json_builder_get_root (builder);
}

static const struct command commands[] = {
  { "status", run_status, { NULL } },
  { "set-target", run_set_target, { "blocks", NULL } },
  { "reclaim", run_reclaim, { "blocks", "deadline-ms", NULL } },
  { "audit", run_audit, { NULL } },
  { "version", run_version, { NULL } },
};

static gboolean
knows_argument (const struct command *command, const char *name) {
  for (unsigned i = 0; i < G_N_ELEMENTS (command->arguments) && command->arguments[i]; i++)
    if (strcmp (command->arguments[i], name) == 0)
      return TRUE;
  return FALSE;
}

JsonNode *
backend_command (gpointer data, const char *command, JsonObject *arguments, GError **error) {
  Backend *backend = data;

  for (unsigned i = 0; i < G_N_ELEMENTS (commands); i++) {
    JsonObjectIter iter;
    const char *name;

    if (strcmp (commands[i].name, command) != 0)
      continue;
    json_object_iter_init (&iter, arguments);
    while (json_object_iter_next (&iter, &name, NULL))
      if (!knows_argument (&commands[i], name)) {
        g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_USAGE, "command '%s' has no argument '%s'", command, name);
        return NULL;
      }
    return commands[i].run (backend, arguments, error);
  }
  g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_USAGE, "unknown command '%s'; there are: status, set-target, reclaim, audit, version",
               command);
  return NULL;
}
