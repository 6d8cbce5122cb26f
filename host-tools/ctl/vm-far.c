/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/vm-far.h"
#include "error.h"

#include <string.h>

#define PAGE_BYTES 4096u
/* Of domybs-far's figures, so that sums of them in bytes do not overflow. */
#define COUNT_MAX (1ull << 48)

static gboolean
nonsense (GError **error, const char *what) {
  g_set_error (error, CTL_ERROR, CTL_ERROR_ACCESS,
               "the answer of its domybs-far makes no sense (%s); its version does not fit this domybsctl", what);
  return FALSE;
}

JsonObject *
vm_json_object (JsonObject *object, const char *name) {
  JsonNode *node = object ? json_object_get_member (object, name) : NULL;

  return node && JSON_NODE_HOLDS_OBJECT (node) ? json_node_get_object (node) : NULL;
}

guint64
vm_json_count (JsonObject *object, const char *name) {
  JsonNode *node = object ? json_object_get_member (object, name) : NULL;
  gint64 value;

  if (!node || !JSON_NODE_HOLDS_VALUE (node) || json_node_get_value_type (node) != G_TYPE_INT64)
    return VM_UNKNOWN;
  value = json_node_get_int (node);
  return value >= 0 && (guint64)value <= COUNT_MAX ? (guint64)value : VM_UNKNOWN;
}

char *
vm_json_text (JsonObject *object, const char *name) {
  JsonNode *node = json_object_get_member (object, name);

  return node && JSON_NODE_HOLDS_VALUE (node) && json_node_get_value_type (node) == G_TYPE_STRING
             ? g_strdup (json_node_get_string (node))
             : NULL;
}

gboolean
vm_json_bool (JsonObject *object, const char *name) {
  JsonNode *node = json_object_get_member (object, name);

  return node && JSON_NODE_HOLDS_VALUE (node) && json_node_get_value_type (node) == G_TYPE_BOOLEAN
         && json_node_get_boolean (node);
}

/* What is not said is taken for well. */
static gboolean
is_false (JsonObject *object, const char *name) {
  JsonNode *node = json_object_get_member (object, name);

  return node && JSON_NODE_HOLDS_VALUE (node) && json_node_get_value_type (node) == G_TYPE_BOOLEAN
         && !json_node_get_boolean (node);
}

static void
read_disk (JsonObject *object, VmFarDisk *disk) {
  JsonObject *pages = vm_json_object (object, "pages"), *reads = vm_json_object (object, "read-latency-us"),
             *writes = vm_json_object (object, "write-latency-us"), *wear = vm_json_object (object, "wear");

  *disk = (VmFarDisk){
    .there = TRUE,
    .connected = vm_json_bool (object, "connected"),
    .unreachable = is_false (object, "storage-reachable"),
    .size_bytes = vm_json_count (object, "size-bytes"),
    .same_pages = vm_json_count (pages, "same"),
    .raw_pages = vm_json_count (pages, "raw"),
    .packed_pages = vm_json_count (pages, "packed"),
    .lost_pages = vm_json_count (pages, "lost"),
    .stored_bytes = vm_json_count (object, "stored-bytes"),
    .blocks_in_use = vm_json_count (object, "blocks-in-use"),
    .waiting = vm_json_count (object, "waiting"),
    .oldest_wait_ms = vm_json_count (object, "oldest-wait-ms"),
    .reads = vm_json_count (object, "reads"),
    .writes = vm_json_count (object, "writes"),
    .discards = vm_json_count (object, "discards"),
    .errors = vm_json_count (object, "errors"),
    .damaged_pages = vm_json_count (object, "damaged-pages"),
    .read_p50_us = vm_json_count (reads, "p50"),
    .read_p99_us = vm_json_count (reads, "p99"),
    .write_p50_us = vm_json_count (writes, "p50"),
    .write_p99_us = vm_json_count (writes, "p99"),
    .prefetched_pages = vm_json_count (object, "prefetched-pages"),
    .prefetch_used_pages = vm_json_count (object, "prefetch-used-pages"),
    .prefetch_wasted_pages = vm_json_count (object, "prefetch-wasted-pages"),
    .reserve_blocks = vm_json_count (object, "reserve-blocks"),
    .reserved_blocks = vm_json_count (object, "reserved-blocks"),
    .held = wear && vm_json_bool (wear, "held"),
    .wear_left_bytes = vm_json_count (wear, "left-bytes"),
    .held_ms = vm_json_count (wear, "held-ms"),
    .storage = vm_json_text (object, "storage"),
  };
  vm_copies_read (object, &disk->copies);
}

gboolean
vm_far_read (JsonObject *answer, VmFarStatus *ret_status, GError **error) {
  JsonNode *node = json_object_get_member (answer, "disks");
  JsonArray *disks = node && JSON_NODE_HOLDS_ARRAY (node) ? json_node_get_array (node) : NULL;
  VmFarStatus status = { .pid = vm_json_count (answer, "pid") };
  unsigned n = 0;

  for (guint i = 0; disks && i < json_array_get_length (disks); i++) {
    JsonNode *element = json_array_get_element (disks, i);
    g_autofree char *tier = NULL;

    if (!JSON_NODE_HOLDS_OBJECT (element))
      continue;
    tier = vm_json_text (json_node_get_object (element), "tier");
    for (DomainFarTier k = 0; tier && k < DOMAIN_FAR_TIERS; k++)
      if (strcmp (tier, domain_far_tier_name (k)) == 0 && !status.disks[k].there) {
        read_disk (json_node_get_object (element), &status.disks[k]);
        n++;
      }
  }
  if (n == 0)
    return nonsense (error, "there is no far disk in it");
  vm_worker_read (answer, &status.worker);
  *ret_status = status;
  return TRUE;
}

void
vm_far_clear (VmFarStatus *status) {
  for (DomainFarTier tier = 0; tier < DOMAIN_FAR_TIERS; tier++) {
    g_clear_pointer (&status->disks[tier].storage, g_free);
    vm_copies_clear (&status->disks[tier].copies);
  }
  vm_worker_clear (&status->worker);
}

guint64
vm_far_used_bytes (const VmFarDisk *disk) {
  if (disk->same_pages == VM_UNKNOWN || disk->raw_pages == VM_UNKNOWN || disk->packed_pages == VM_UNKNOWN)
    return VM_UNKNOWN;
  return (disk->same_pages + disk->raw_pages + disk->packed_pages) * PAGE_BYTES;
}
