/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/vm-object.h"
#include "ctl/text.h"
#include "ctl/vm-far.h"
#include "error.h"

#include <string.h>

/* What a guest may wait for storage before that is worth a word. */
#define WAIT_TOLD_MS 1000

/* ---- reading ---- */

static JsonObject *
find (JsonObject *answer, const char *name) {
  JsonNode *node = json_object_get_member (answer, "objects");
  JsonArray *objects = node && JSON_NODE_HOLDS_ARRAY (node) ? json_node_get_array (node) : NULL;

  for (guint i = 0; objects && i < json_array_get_length (objects); i++) {
    JsonNode *element = json_array_get_element (objects, i);
    JsonObject *object = JSON_NODE_HOLDS_OBJECT (element) ? json_node_get_object (element) : NULL;
    g_autofree char *found = object ? vm_json_text (object, "name") : NULL;

    if (g_strcmp0 (found, name) == 0)
      return object;
  }
  return NULL;
}

gboolean
vm_object_read (JsonObject *answer, const char *name, VmObjectStatus *ret_status, GError **error) {
  JsonObject *object = find (answer, name), *reads;

  if (!object) {
    g_set_error (error, CTL_ERROR, CTL_ERROR_ACCESS,
                 "the answer of its domybs-far for object '%s' makes no sense (that object is not in it); its version does not "
                 "fit this domybsctl",
                 name);
    return FALSE;
  }
  reads = vm_json_object (object, "read-latency-us");
  *ret_status = (VmObjectStatus){
    .known = TRUE,
    .connected = vm_json_bool (object, "connected"),
    .pid = vm_json_count (answer, "pid"),
    .size_bytes = vm_json_count (object, "size-bytes"),
    .reads = vm_json_count (object, "reads"),
    .read_pages = vm_json_count (object, "read-pages"),
    .errors = vm_json_count (object, "errors"),
    .damaged_pages = vm_json_count (object, "damaged-pages"),
    .waiting = vm_json_count (object, "waiting"),
    .oldest_wait_ms = vm_json_count (object, "oldest-wait-ms"),
    .read_p50_us = vm_json_count (reads, "p50"),
    .read_p99_us = vm_json_count (reads, "p99"),
    .prefetched_pages = vm_json_count (object, "prefetched-pages"),
    .prefetch_used_pages = vm_json_count (object, "prefetch-used-pages"),
    .storage_read_bytes = vm_json_count (object, "storage-read-bytes"),
  };
  vm_worker_read (answer, &ret_status->worker);
  return TRUE;
}

void
vm_object_clear (VmObjectStatus *status) {
  vm_worker_clear (&status->worker);
}

/* ---- words ---- */

static gboolean
is_some (guint64 count) {
  return count != VM_UNKNOWN && count > 0;
}

char *
vm_object_text (const VmObjectStatus *status) {
  g_autofree char *size = status->size_bytes == VM_UNKNOWN ? g_strdup ("?") : text_size_short (status->size_bytes);
  GString *text = g_string_new (size);

  if (status->read_p50_us != VM_UNKNOWN && status->read_p99_us != VM_UNKNOWN)
    g_string_append_printf (text, "; reads take %" G_GUINT64_FORMAT " µs (p50), %" G_GUINT64_FORMAT " µs (p99)",
                            status->read_p50_us, status->read_p99_us);
  if (!status->connected)
    g_string_append (text, "; not connected to QEMU");
  return g_string_free (text, FALSE);
}

char *
vm_object_trouble (const VmObjectStatus *status) {
  if (!status->known)
    return NULL;
  if (is_some (status->damaged_pages))
    return g_strdup_printf ("%" G_GUINT64_FORMAT
                            " times a page was read that is not what was imported; 'domybsctl object verify' says which are "
                            "damaged",
                            status->damaged_pages);
  if (is_some (status->waiting) && is_some (status->oldest_wait_ms) && status->oldest_wait_ms > WAIT_TOLD_MS)
    return g_strdup_printf ("%" G_GUINT64_FORMAT
                            " requests of the guest wait for the storage, the oldest for %" G_GUINT64_FORMAT
                            " s; see that it answers",
                            status->waiting, status->oldest_wait_ms / 1000);
  if (is_some (status->errors))
    return g_strdup_printf ("%" G_GUINT64_FORMAT " requests of the guest ended in an error; see its log", status->errors);
  return NULL;
}

/* ---- JSON ---- */

static void
json_count (Ctl *ctl, const VmObjectStatus *status, const char *name, guint64 value) {
  if (!status->known || value == VM_UNKNOWN)
    ctl_json_null (ctl, name);
  else
    ctl_json_int (ctl, name, (gint64)value);
}

void
vm_object_json (Ctl *ctl, const VmObjectStatus *status) {
  ctl_json_bool (ctl, "connected", status->connected);
  json_count (ctl, status, "pid", status->pid);
  json_count (ctl, status, "size-bytes", status->size_bytes);
  json_count (ctl, status, "reads", status->reads);
  json_count (ctl, status, "read-pages", status->read_pages);
  json_count (ctl, status, "errors", status->errors);
  json_count (ctl, status, "damaged-pages", status->damaged_pages);
  json_count (ctl, status, "waiting", status->waiting);
  json_count (ctl, status, "oldest-wait-ms", status->oldest_wait_ms);
  json_count (ctl, status, "read-p50-us", status->read_p50_us);
  json_count (ctl, status, "read-p99-us", status->read_p99_us);
  json_count (ctl, status, "prefetched-pages", status->prefetched_pages);
  json_count (ctl, status, "prefetch-used-pages", status->prefetch_used_pages);
  json_count (ctl, status, "storage-read-bytes", status->storage_read_bytes);
}
