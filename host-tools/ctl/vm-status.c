/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/vm-status.h"
#include "error.h"

#include <string.h>

/* 2^40 blocks are 2 EiB: beyond any machine, and far from an overflow when counted in bytes. */
#define BLOCKS_MAX (1ull << 40)

static gboolean
nonsense (GError **error, const char *name, const char *what) {
  g_set_error (error, CTL_ERROR, CTL_ERROR_ACCESS,
               "its back-end's answer makes no sense ('%s' %s); its version does not fit this domybsctl", name, what);
  return FALSE;
}

static gboolean
is_type (JsonNode *node, GType type) {
  return node && JSON_NODE_HOLDS_VALUE (node) && json_node_get_value_type (node) == type;
}

static gboolean
need_count (JsonObject *object, const char *name, guint64 max, guint64 *ret_value, GError **error) {
  JsonNode *node = json_object_get_member (object, name);

  if (!is_type (node, G_TYPE_INT64))
    return nonsense (error, name, node ? "is no number" : "is missing");
  if (json_node_get_int (node) < 0 || (guint64)json_node_get_int (node) > max)
    return nonsense (error, name, "is out of range");
  *ret_value = (guint64)json_node_get_int (node);
  return TRUE;
}

static gboolean
need_bool (JsonObject *object, const char *name, gboolean *ret_value, GError **error) {
  JsonNode *node = json_object_get_member (object, name);

  if (!is_type (node, G_TYPE_BOOLEAN))
    return nonsense (error, name, node ? "is neither true nor false" : "is missing");
  *ret_value = json_node_get_boolean (node);
  return TRUE;
}

/* What may be missing. */
static guint64
maybe_count (JsonObject *object, const char *name) {
  JsonNode *node = object ? json_object_get_member (object, name) : NULL;

  return is_type (node, G_TYPE_INT64) && json_node_get_int (node) >= 0 ? (guint64)json_node_get_int (node) : VM_UNKNOWN;
}

static char *
maybe_string (JsonObject *object, const char *name) {
  JsonNode *node = object ? json_object_get_member (object, name) : NULL;

  return is_type (node, G_TYPE_STRING) ? g_strdup (json_node_get_string (node)) : NULL;
}

static gboolean
read_target (JsonObject *answer, VmStatus *status, GError **error) {
  JsonNode *node = json_object_get_member (answer, "target-blocks");

  status->have_target = node && !JSON_NODE_HOLDS_NULL (node);
  return node ? !status->have_target || need_count (answer, "target-blocks", BLOCKS_MAX, &status->target_blocks, error)
              : nonsense (error, "target-blocks", "is missing");
}

static gboolean
maybe_bool (JsonObject *object, const char *name) {
  JsonNode *node = json_object_get_member (object, name);

  return is_type (node, G_TYPE_BOOLEAN) && json_node_get_boolean (node);
}

void
vm_worker_read (JsonObject *answer, VmWorker *ret) {
  JsonNode *node = json_object_get_member (answer, "worker");
  JsonObject *worker = node && JSON_NODE_HOLDS_OBJECT (node) ? json_node_get_object (node) : NULL;
  g_autofree char *mode = NULL;

  *ret = (VmWorker){ 0 };
  if (!worker)
    return;
  mode = maybe_string (worker, "mode");
  *ret = (VmWorker){
    .known = TRUE,
    .pid = maybe_count (worker, "pid"),
    .keeper_pid = maybe_count (worker, "keeper-pid"),
    .state_version = maybe_count (worker, "state-version"),
    .version = maybe_string (worker, "version"),
    .busy = g_strcmp0 (mode, "busy") == 0,
    .starts = maybe_count (worker, "starts"),
    .deaths = maybe_count (worker, "deaths"),
    .strikes = maybe_count (worker, "strikes"),
    .last_death = maybe_string (worker, "last-death"),
    .last_death_age_ms = maybe_count (worker, "last-death-age-ms"),
    .age_ms = maybe_count (worker, "age-ms"),
    .keeper_age_ms = maybe_count (worker, "keeper-age-ms"),
    .rolled_back = maybe_bool (worker, "rolled-back"),
  };
}

gboolean
vm_status_read (JsonObject *answer, VmStatus *ret_status, GError **error) {
  JsonNode *node = json_object_get_member (answer, "guest");
  JsonObject *guest = node && JSON_NODE_HOLDS_OBJECT (node) ? json_node_get_object (node) : NULL;
  VmStatus status = { 0 };

  if (!need_count (answer, "block-bytes", 1ull << 21, &status.block_bytes, error)
      || !need_count (answer, "window-blocks", BLOCKS_MAX, &status.window_blocks, error)
      || !need_count (answer, "max-blocks", status.window_blocks, &status.max_blocks, error)
      || !need_count (answer, "granted-blocks", status.window_blocks, &status.granted_blocks, error)
      || !read_target (answer, &status, error) || !need_bool (answer, "connected", &status.connected, error)
      || !need_bool (answer, "window-mapped", &status.window_mapped, error)
      || !need_bool (answer, "session", &status.session, error)
      || !need_count (answer, "memfd-bytes", BLOCKS_MAX << 21, &status.memfd_bytes, error)
      || !need_count (answer, "requests", G_MAXINT64, &status.requests, error))
    return FALSE;
  if (status.block_bytes != 1ull << 21)
    return nonsense (error, "block-bytes", "is not 2 MiB");
  status.fragmentation_permille = maybe_count (answer, "fragmentation-permille");
  status.requests_refused = maybe_count (answer, "requests-refused");
  status.audit_punched_bytes = maybe_count (answer, "audit-punched-bytes");
  status.host_used_blocks = maybe_count (answer, "host-used-blocks");
  status.host_limit_blocks = maybe_count (answer, "host-limit-blocks");
  status.host_reserve_bytes = maybe_count (answer, "host-reserve-bytes");
  status.pid = maybe_count (answer, "pid");
  status.refused_age_ms = maybe_count (answer, "refused-age-ms");
  status.stats_age_ms = maybe_count (answer, "stats-age-ms");
  status.section_blocks = maybe_count (guest, "section-blocks");
  status.mem_total_bytes = maybe_count (guest, "mem-total-bytes");
  status.mem_available_bytes = maybe_count (guest, "mem-available-bytes");
  status.swap_total_bytes = maybe_count (guest, "swap-total-bytes");
  status.swap_free_bytes = maybe_count (guest, "swap-free-bytes");
  status.blocks_online = maybe_count (guest, "blocks-online");
  status.blocks_held = maybe_count (guest, "blocks-held");
  status.blocks_stuck = maybe_count (guest, "blocks-stuck");
  status.refused_reason = maybe_string (answer, "refused-reason");
  status.driver = status.session ? maybe_string (guest, "driver") : NULL;
  vm_worker_read (answer, &status.worker);
  *ret_status = status;
  return TRUE;
}

void
vm_worker_clear (VmWorker *worker) {
  g_clear_pointer (&worker->version, g_free);
  g_clear_pointer (&worker->last_death, g_free);
}

void
vm_status_clear (VmStatus *status) {
  g_clear_pointer (&status->refused_reason, g_free);
  g_clear_pointer (&status->driver, g_free);
  vm_worker_clear (&status->worker);
}
