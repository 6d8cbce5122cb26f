/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "far/commands.h"
#include "far/donor-table.h"
#include "far/latency.h"
#include "far/object-disk.h"
#include "core/far-level.h"
#include "io/error.h"
#include "io/json-members.h"
#include "io/worker-status.h"

#include <string.h>

/* Cells in the answer to `blocks`: the most keeps that answer well below what a client may leave unread
 * (CONTROL_OUT_BYTES_MAX). */
#define BLOCKS_CELLS_DEFAULT 64
#define BLOCKS_CELLS_MAX 1024

typedef JsonNode *(*CommandFunction) (FarOperator *op, JsonObject *arguments, GError **error);

/* ---- figures ---- */

static guint64
ms_since (gint64 monotonic_time) {
  return (guint64)MAX (g_get_monotonic_time () - monotonic_time, 0) / 1000;
}

static void
add_permille (JsonBuilder *builder, const char *name, guint64 part, guint64 whole) {
  add_int_or_null (builder, name, whole != 0, whole ? part * 1000 / whole : 0);
}

static void
add_pages (JsonBuilder *builder, const FarEngineFigures *f, guint64 n_pages) {
  const guint64 *pages = f->store.pages;
  const guint64 kept = pages[FAR_SAME] + pages[FAR_RAW] + pages[FAR_PACKED];

  json_builder_set_member_name (builder, "pages");
  json_builder_begin_object (builder);
  add_int (builder, "none", n_pages - kept - pages[FAR_LOST]);
  add_int (builder, "same", pages[FAR_SAME]);
  add_int (builder, "raw", pages[FAR_RAW]);
  add_int (builder, "packed", pages[FAR_PACKED]);
  add_int (builder, "lost", pages[FAR_LOST]);
  json_builder_end_object (builder);
  add_int (builder, "stored-bytes", f->store.stored_bytes);
  add_permille (builder, "stored-permille", f->store.stored_bytes, kept * FAR_PAGE_BYTES);
  add_int (builder, "blocks-in-use", f->store.blocks_in_use);
}

static void
add_storage (JsonBuilder *builder, const FarDiskChoice *choice, const FarEngineFigures *f, Storage *storage) {
  const struct far_figures *store = &f->store;
  gint64 since;
  const gboolean reachable = storage_is_reachable (storage, &since);

  add_string (builder, "storage", f->storage);
  add_bool (builder, "storage-reachable", reachable);
  add_int (builder, "storage-reachable-age-ms", ms_since (since));
  add_bool (builder, "storage-settled", storage_is_settled (storage));
  add_int (builder, "storage-bytes", (guint64)choice->geometry.n_places * FAR_SEGMENT_BYTES);
  json_builder_set_member_name (builder, "segments");
  json_builder_begin_object (builder);
  add_int (builder, "places", store->places);
  add_int (builder, "covered", store->covered);
  add_int (builder, "free", store->free);
  add_int (builder, "bad", store->bad);
  add_int (builder, "given", store->given);
  json_builder_end_object (builder);
  json_builder_set_member_name (builder, "stage");
  json_builder_begin_object (builder);
  add_int (builder, "slots", store->slots);
  add_int (builder, "free", store->slots_free);
  add_int (builder, "writing", store->slots_writing);
  json_builder_end_object (builder);
  add_int (builder, "storage-read-bytes", f->storage_read_bytes);
  add_int (builder, "storage-written-bytes", f->storage_written_bytes);
  add_int (builder, "cleaned-pages", f->cleaned_pages);
  add_int (builder, "storage-errors", f->storage_errors);
}

static void
add_wear (JsonBuilder *builder, const FarEngineFigures *f) {
  json_builder_set_member_name (builder, "wear");
  if (f->wear_day_bytes == 0) {
    json_builder_add_null_value (builder);
    return;
  }
  json_builder_begin_object (builder);
  add_int (builder, "day-bytes", f->wear_day_bytes);
  add_int (builder, "burst-bytes", f->wear_burst_bytes);
  add_int (builder, "left-bytes", f->wear_left_bytes);
  add_bool (builder, "held", f->held);
  add_int (builder, "held-ms", f->held_us / 1000);
  add_int_or_null (builder, "held-wait-ms", f->held, f->held_wait_us / 1000);
  json_builder_end_object (builder);
}

static void
add_prefetch (JsonBuilder *builder, const FarEngineFigures *f) {
  add_int (builder, "prefetch-bytes", f->prefetch_bytes);
  add_int (builder, "prefetched-pages", f->prefetched_pages);
  add_int (builder, "prefetch-used-pages", f->prefetch_used_pages);
  add_int (builder, "prefetch-wasted-pages", f->prefetch_wasted_pages);
}

static void
add_donor (JsonBuilder *builder, FarCopies *copies, guint number) {
  static const char *const states[] = { [PAGE_CHANNEL_DOWN] = "down", [PAGE_CHANNEL_ATTACHED] = "attached", [PAGE_CHANNEL_LOST] = "lost",
                                        [PAGE_CHANNEL_REFUSED] = "refused" };
  static const char *const counts[] = { [COPIES_DONOR_GONE] = "gone", [COPIES_DONOR_AWAY] = "away", [COPIES_DONOR_UP] = "up",
                                        [COPIES_DONOR_LEAVING] = "leaving" };
  FarDonorFigures f;

  far_copies_donor_figures (copies, number, &f);
  if (!f.name)
    return;
  json_builder_begin_object (builder);
  add_string (builder, "name", f.name);
  add_string (builder, "address", f.address);
  add_string (builder, "domain", f.domain);
  add_string (builder, "channel", states[f.channel.state]);
  add_int (builder, "channel-age-ms", ms_since (f.channel.since_us));
  if (f.channel.why)
    add_string (builder, "why", f.channel.why);
  else
    add_null (builder, "why");
  add_string (builder, "state", counts[f.state]);
  add_bool (builder, "leaves", f.leaves);
  add_int (builder, "copies", f.valid);
  add_int (builder, "suspect", f.suspect);
  add_int (builder, "old", f.old);
  add_int (builder, "level", f.channel.lease.level);
  add_int (builder, "wanted", f.wanted_blocks);
  add_int_or_null (builder, "revoke-level", f.channel.lease.revoke != 0, f.channel.lease.revoke_level);
  add_int (builder, "read-bytes", f.channel.bytes_read);
  add_int (builder, "written-bytes", f.channel.bytes_written);
  add_int (builder, "failed-writes", f.failed_writes);
  add_int (builder, "damaged", f.damaged);
  add_int (builder, "timeouts", f.channel.timeouts);
  add_int (builder, "reconnects", f.channel.reconnects);
  add_int_or_null (builder, "read-p50-us", f.read_p50_us != 0, f.read_p50_us);
  add_int_or_null (builder, "read-p95-us", f.read_p95_us != 0, f.read_p95_us);
  json_builder_end_object (builder);
}

static void
add_copies (JsonBuilder *builder, FarCopies *copies) {
  FarCopiesFigures f;

  json_builder_set_member_name (builder, "copies");
  if (!copies) {
    json_builder_add_null_value (builder);
    return;
  }
  far_copies_figures (copies, &f);
  json_builder_begin_object (builder);
  add_int (builder, "places", f.places);
  add_int (builder, "protected", f.protected);
  add_int (builder, "degraded", f.degraded);
  add_int (builder, "endangered", f.endangered);
  add_int (builder, "lost", f.lost);
  add_int (builder, "in-storage", f.local_valid);
  add_int (builder, "waiting", f.waiting);
  add_bool (builder, "repairing", f.repairing);
  add_int (builder, "repaired-bytes", f.repaired_bytes);
  add_int (builder, "repairs-failed", f.repairs_failed);
  add_int (builder, "given-back", f.moved_back);
  add_int (builder, "degraded-writes", f.degraded_writes);
  add_int (builder, "read-elsewhere", f.read_elsewhere);
  add_int (builder, "hedged", f.hedged);
  add_int (builder, "hedges-won", f.hedges_won);
  json_builder_set_member_name (builder, "donors");
  json_builder_begin_array (builder);
  for (guint d = 0; d < f.n_donors; d++)
    add_donor (builder, copies, d);
  json_builder_end_array (builder);
  json_builder_end_object (builder);
}

/* What the guest wants to have ready, and what is, whether it wants it or not. */
static void
add_reserve (JsonBuilder *builder, const FarOperator *op, FarDisk *disk, const FarEngineFigures *f, guint64 n_pages) {
  guint64 level = 0;
  const gboolean has_level = op->reserve && far_reserve_level (op->reserve, far_disk_engine (disk), &level);

  add_int_or_null (builder, "reserve-blocks", has_level, level);
  add_int (builder, "reserved-blocks", far_level_ready (&f->store, n_pages / FAR_BLOCK_PAGES));
}

static void
add_disk (const FarOperator *op, JsonBuilder *builder, const FarDiskChoice *choice, FarDisk *disk, Storage *storage, FarCopies *copies) {
  const guint64 n_pages = choice->geometry.n_pages, bytes = n_pages * FAR_PAGE_BYTES;
  FarEngineFigures f;

  far_engine_figures (far_disk_engine (disk), &f);
  json_builder_begin_object (builder);
  add_string (builder, "tier", choice->tier);
  add_string (builder, "id", choice->id);
  add_string (builder, "socket", choice->socket_path);
  add_int (builder, "size-bytes", bytes);
  add_int (builder, "queues", choice->n_queues);
  add_bool (builder, "connected", far_disk_is_connected (disk));
  add_int (builder, "connections", far_disk_connections (disk));
  add_int (builder, "in-flight", far_disk_in_flight (disk));
  add_int (builder, "waiting", f.waiting);
  add_int (builder, "oldest-wait-ms", f.oldest_wait_us / 1000);
  add_pages (builder, &f, n_pages);
  add_reserve (builder, op, disk, &f, n_pages);
  add_storage (builder, choice, &f, storage);
  add_string (builder, "protection", copies_mode_name (choice->protection));
  add_copies (builder, copies);
  add_int (builder, "reads", f.reads);
  add_int (builder, "writes", f.writes);
  add_int (builder, "discards", f.discards);
  add_int (builder, "read-pages", f.read_pages);
  add_int (builder, "read-pages-from-stage", f.read_from_stage);
  add_int (builder, "read-pages-from-storage", f.read_from_storage);
  add_prefetch (builder, &f);
  add_wear (builder, &f);
  add_int (builder, "written-pages", f.written_pages);
  add_permille (builder, "written-same-permille", f.same_pages, f.written_pages);
  add_permille (builder, "written-packed-permille", f.packed_pages, f.written_pages);
  latency_add (builder, "read-latency-us", f.read_latency);
  latency_add (builder, "write-latency-us", f.write_latency);
  add_int (builder, "errors", f.refused);
  add_int (builder, "damaged-pages", f.damaged);
  add_int (builder, "overhead-bytes", f.overhead_bytes);
  json_builder_set_member_name (builder, "overhead-percent");
  json_builder_add_double_value (builder, (double)(f.overhead_bytes * 10000 / bytes) / 100);
  json_builder_end_object (builder);
}

/* ---- the worker ---- */

static void
add_worker (JsonBuilder *builder, const FarOperator *op) {
  const struct far_handover *page = op->page;

  worker_status_add (builder, &(struct worker_status){
                                  .keeper_pid = page->keeper_pid,
                                  .state_version = FAR_STATE_VERSION,
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

static void
add_memory_device (JsonBuilder *builder, const FarOperator *op) {
  json_builder_set_member_name (builder, "memory-device");
  if (!op->reserve) {
    json_builder_add_null_value (builder);
    return;
  }
  json_builder_begin_object (builder);
  add_string (builder, "path", op->options->memory_device);
  add_bool (builder, "connected", far_reserve_is_connected (op->reserve));
  json_builder_end_object (builder);
}

/* ---- commands ---- */

static JsonNode *
run_status (FarOperator *op, JsonObject *arguments, GError **error) {
  g_autoptr (JsonBuilder) builder = json_builder_new ();

  json_builder_begin_object (builder);
  add_string (builder, "name", op->options->name);
  add_int (builder, "pid", op->page->keeper_pid);
  add_int (builder, "page-bytes", FAR_PAGE_BYTES);
  add_int (builder, "block-bytes", FAR_BLOCK_PAGES * FAR_PAGE_BYTES);
  add_bool (builder, "sealed", op->options->seal);
  add_bool (builder, "compressed", op->options->pack);
  add_memory_device (builder, op);
  json_builder_set_member_name (builder, "disks");
  json_builder_begin_array (builder);
  for (unsigned i = 0; i < op->options->n_disks; i++)
    add_disk (op, builder, &op->options->disks[i], op->disks[i], op->storages[i], op->copies[i]);
  json_builder_end_array (builder);
  json_builder_set_member_name (builder, "objects");
  json_builder_begin_array (builder);
  for (unsigned i = 0; i < op->options->n_objects; i++)
    object_disk_add_status (builder, &op->options->objects[i], op->objects[i]);
  json_builder_end_array (builder);
  add_worker (builder, op);
  json_builder_end_object (builder);
  return json_builder_get_root (builder);
}

static gboolean
get_cells (JsonObject *arguments, guint64 *ret_cells, GError **error) {
  JsonNode *node = json_object_get_member (arguments, "cells");
  gint64 value;

  *ret_cells = BLOCKS_CELLS_DEFAULT;
  if (!node)
    return TRUE;
  value = JSON_NODE_HOLDS_VALUE (node) && json_node_get_value_type (node) == G_TYPE_INT64 ? json_node_get_int (node) : 0;
  if (value < 1 || value > BLOCKS_CELLS_MAX) {
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_USAGE, "argument 'cells' must be a whole number between 1 and %d",
                 BLOCKS_CELLS_MAX);
    return FALSE;
  }
  *ret_cells = (guint64)value;
  return TRUE;
}

static JsonNode *
run_blocks (FarOperator *op, JsonObject *arguments, GError **error) {
  g_autoptr (JsonBuilder) builder = json_builder_new ();
  guint64 cells;

  if (!get_cells (arguments, &cells, error))
    return NULL;
  json_builder_begin_object (builder);
  add_int (builder, "block-bytes", FAR_BLOCK_PAGES * FAR_PAGE_BYTES);
  json_builder_set_member_name (builder, "disks");
  json_builder_begin_array (builder);
  for (unsigned i = 0; i < op->options->n_disks; i++) {
    const guint64 blocks = op->options->disks[i].geometry.n_pages / FAR_BLOCK_PAGES, cell = (blocks + cells - 1) / cells;

    json_builder_begin_object (builder);
    add_string (builder, "tier", op->options->disks[i].tier);
    add_int (builder, "blocks", blocks);
    add_int (builder, "cell-blocks", cell);
    json_builder_set_member_name (builder, "in-use");
    json_builder_begin_array (builder);
    for (guint64 start = 0; start < blocks; start += cell)
      json_builder_add_int_value (
          builder, (gint64)far_engine_count_blocks (far_disk_engine (op->disks[i]), start, MIN (cell, blocks - start)));
    json_builder_end_array (builder);
    json_builder_end_object (builder);
  }
  json_builder_end_array (builder);
  json_builder_end_object (builder);
  return json_builder_get_root (builder);
}

static JsonNode *
run_version (FarOperator *op, JsonObject *arguments, GError **error) {
  g_autoptr (JsonBuilder) builder = json_builder_new ();

  json_builder_begin_object (builder);
  add_string (builder, "version", DOMYBS_VERSION);
  add_int (builder, "state-version", FAR_STATE_VERSION);
  json_builder_end_object (builder);
  return json_builder_get_root (builder);
}

/* The answer to these two is the end of the connection: this process is not there any more then. */
static JsonNode *
run_restart (FarOperator *op, JsonObject *arguments, GError **error) {
  op->leave (op, FAR_EXIT_RESTART);
  return NULL;
}

static JsonNode *
run_upgrade (FarOperator *op, JsonObject *arguments, GError **error) {
  op->leave (op, FAR_EXIT_UPGRADE);
  return NULL;
}

static gboolean
has_donors (const FarOperator *op, GError **error) {
  if (op->donors)
    return TRUE;
  g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_IN_USE,
               "it was started without donors, and its pages are in storage only; donors come with the VM's next start");
  return FALSE;
}

static JsonNode *
run_add_donor (FarOperator *op, JsonObject *arguments, GError **error) {
  return has_donors (op, error) ? far_donor_table_add (op->donors, arguments, error) : NULL;
}

static JsonNode *
run_remove_donor (FarOperator *op, JsonObject *arguments, GError **error) {
  return has_donors (op, error) ? far_donor_table_remove (op->donors, arguments, error) : NULL;
}

static const struct {
  const char *name;
  CommandFunction run;
  const char *arguments; /* those that it knows, each with blanks around it */
} commands[] = {
  { "status", run_status, "" },
  { "blocks", run_blocks, " cells " },
  { "version", run_version, "" },
  { "restart", run_restart, "" },
  { "upgrade", run_upgrade, "" },
  { "add-donor", run_add_donor, " name address domain identity key bytes " },
  { "remove-donor", run_remove_donor, " name " },
};

static gboolean
knows (const char *arguments, const char *name) {
  g_autofree char *word = g_strdup_printf (" %s ", name);

  return !strchr (name, ' ') && strstr (arguments, word);
}

JsonNode *
far_command (gpointer data, ControlClient *client, const char *command, JsonObject *arguments, GError **error) {
  FarOperator *op = data;

  for (unsigned i = 0; i < G_N_ELEMENTS (commands); i++) {
    JsonObjectIter iter;
    const char *name;

    if (strcmp (commands[i].name, command) != 0)
      continue;
    json_object_iter_init (&iter, arguments);
    while (json_object_iter_next (&iter, &name, NULL))
      if (!knows (commands[i].arguments, name)) {
        g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_USAGE, "command '%s' has no argument '%s'", command, name);
        return NULL;
      }
    return commands[i].run (op, arguments, error);
  }
  g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_USAGE,
               "unknown command '%s'; there are: status, blocks, version, restart, upgrade, add-donor, remove-donor",
               command);
  return NULL;
}
