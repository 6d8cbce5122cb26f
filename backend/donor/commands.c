/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "donor/commands.h"
#include "io/error.h"
#include "io/json-members.h"
#include "io/worker-status.h"
#include "io/tcp.h"

#include <string.h>

/* In one answer: the most keep it below what a client may leave unread (CONTROL_OUT_BYTES_MAX). */
#define LEASES_AT_ONCE 64u

typedef JsonNode *(*CommandFunction) (DonorOperator *op, JsonObject *arguments, GError **error);

static void
add_hex (JsonBuilder *builder, const char *name, const guint8 *bytes, gsize n) {
  g_autoptr (GString) text = g_string_sized_new (2 * n);

  for (gsize i = 0; i < n; i++)
    g_string_append_printf (text, "%02x", bytes[i]);
  add_string (builder, name, text->str);
}

static void
add_lease_id (JsonBuilder *builder, const char *name, guint64 lease) {
  char text[17];

  g_snprintf (text, sizeof text, "%016" G_GINT64_MODIFIER "x", lease);
  add_string (builder, name, text);
}

/* ---- status ---- */

/* With the port that it really has. */
static char *
address_text (const char *address, int fd) {
  const char *colon = strrchr (address, ':');

  if (g_str_has_prefix (address, "unix:") || !colon)
    return g_strdup (address);
  return g_strdup_printf ("%.*s:%u", (int)(colon - address), address, tcp_port (fd));
}

/* Of the arena's blocks in chunks of 1 GiB; of a smaller arena, in the greatest that fit. */
static unsigned
fragmentation_permille (const struct buddy *buddy) {
  unsigned order = 9;

  while (order > 0 && 1ull << order > buddy->units)
    order--;
  return buddy_fragmentation_permille (buddy, order);
}

static void
add_sizes (JsonBuilder *builder, DonorOperator *op) {
  struct lease_donor_figures leases;
  LenderFigures figures;

  lender_figures (op->lender, &figures);
  lease_donor_figures (lender_leases (op->lender), &leases);
  add_hex (builder, "incarnation", leases.incarnation, sizeof leases.incarnation);
  add_int (builder, "arena-blocks", leases.blocks);
  add_int (builder, "max-blocks", figures.max_blocks);
  add_int (builder, "size-blocks", figures.wanted_blocks);
  add_string (builder, "size-reason", arena_reason_text (figures.reason));
  add_int (builder, "promised-blocks", leases.promised);
  add_int (builder, "used-blocks", leases.used);
  add_int (builder, "dirty-blocks", leases.dirty);
  add_int (builder, "free-blocks", leases.free);
  add_int (builder, "fragmentation-permille", fragmentation_permille (lease_donor_buddy (lender_leases (op->lender))));
  add_int (builder, "memory-bytes", figures.memory_bytes);
  add_bool (builder, "locked", figures.locked);
  add_int (builder, "leases", leases.leases);
  json_builder_set_member_name (builder, "leases-ended");
  json_builder_begin_object (builder);
  add_int (builder, "by-borrower", leases.ended_by_end);
  add_int (builder, "by-evidence", leases.ended_by_evidence);
  add_int (builder, "by-operator", leases.ended_by_order);
  add_int (builder, "by-ttl", leases.ended_by_ttl);
  json_builder_end_object (builder);
  add_int (builder, "fill-failures", figures.fill_failures);
  add_int (builder, "clear-failures", figures.clear_failures);
  json_builder_set_member_name (builder, "host");
  json_builder_begin_object (builder);
  add_bool (builder, "followed", !op->options->fixed);
  add_int (builder, "available-bytes", figures.host_available_bytes);
  add_int (builder, "reserve-bytes", figures.reserve_bytes);
  add_int (builder, "pressure-some-permille", figures.pressure.some / 10);
  add_int (builder, "pressure-full-permille", figures.pressure.full / 10);
  json_builder_end_object (builder);
}

static void
add_server (JsonBuilder *builder, DonorOperator *op) {
  PageServerFigures f;

  page_server_figures (op->pages, &f);
  json_builder_set_member_name (builder, "listen");
  json_builder_begin_array (builder);
  for (int i = 0; op->options->listen[i]; i++) {
    g_autofree char *address = address_text (op->options->listen[i], DONOR_FD_LISTEN + i);

    json_builder_add_string_value (builder, address);
  }
  json_builder_end_array (builder);
  add_bool (builder, "tls", op->options->psk_path != NULL);
  if (op->options->psk_path)
    add_string (builder, "psk", op->options->psk_path);
  else
    add_null (builder, "psk");
  add_int_or_null (builder, "identities", op->options->psk_path != NULL, op->keys);
  json_builder_set_member_name (builder, "connections");
  json_builder_begin_object (builder);
  add_int (builder, "open", f.connections);
  add_int (builder, "with-export", f.with_export);
  add_int (builder, "with-lease", f.with_lease);
  add_int (builder, "accepted", f.accepted);
  add_int (builder, "refused", f.refused);
  add_int (builder, "handshakes-failed", f.handshakes_failed);
  add_int (builder, "broken", f.broken);
  json_builder_end_object (builder);
  json_builder_set_member_name (builder, "requests");
  json_builder_begin_object (builder);
  add_int (builder, "reads", f.reads);
  add_int (builder, "writes", f.writes);
  add_int (builder, "trims", f.trims);
  add_int (builder, "others", f.others);
  add_int (builder, "errors", f.errors);
  add_int (builder, "leases", f.lease_requests);
  add_int (builder, "read-bytes", f.bytes_read);
  add_int (builder, "written-bytes", f.bytes_written);
  json_builder_end_object (builder);
}

static void
add_worker (JsonBuilder *builder, const DonorOperator *op) {
  const struct process_page *page = &op->page->process;

  worker_status_add (builder, &(struct worker_status){
                                  .keeper_pid = page->keeper_pid,
                                  .state_version = LEASE_DONOR_STATE_VERSION,
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
run_status (DonorOperator *op, JsonObject *arguments, GError **error) {
  g_autoptr (JsonBuilder) builder = json_builder_new ();

  json_builder_begin_object (builder);
  add_string (builder, "name", op->options->name);
  add_int (builder, "pid", op->page->process.keeper_pid);
  add_int (builder, "block-bytes", ARENA_BLOCK_BYTES);
  add_server (builder, op);
  add_sizes (builder, op);
  add_worker (builder, op);
  json_builder_end_object (builder);
  return json_builder_get_root (builder);
}

/* ---- leases ---- */

/* Borrowers choose identities' and disks' bytes: what is no text is not shown as text. */
static void
add_identity (JsonBuilder *builder, const char *identity) {
  g_autofree char *text = g_utf8_make_valid (identity, -1);

  add_string (builder, "identity", text);
}

static void
add_lease (JsonBuilder *builder, DonorOperator *op, const struct lease_info *info, guint64 now_ms) {
  json_builder_begin_object (builder);
  add_lease_id (builder, "lease", info->lease);
  add_identity (builder, info->identity);
  add_hex (builder, "vm", info->vm, sizeof info->vm);
  add_int (builder, "disk", info->disk);
  add_hex (builder, "host", info->host, sizeof info->host);
  add_hex (builder, "boot", info->boot, sizeof info->boot);
  add_int (builder, "epoch", info->epoch);
  add_int (builder, "session", info->session);
  add_string (builder, "state", info->silent_ms > LENDER_DETACHED_MS ? "detached" : "attached");
  add_int (builder, "silent-ms", info->silent_ms);
  add_int (builder, "connections", lender_connections (op->lender, info->lease));
  add_int (builder, "export-blocks", info->export_blocks);
  add_int (builder, "blocks", info->level);
  add_int (builder, "used-blocks", info->used);
  json_builder_set_member_name (builder, "revoke");
  if (info->revoke) {
    const gboolean overdue = info->revoke_until_ms <= now_ms;

    json_builder_begin_object (builder);
    add_int (builder, "blocks", info->revoke_level);
    add_int (builder, "left-ms", overdue ? 0 : info->revoke_until_ms - now_ms);
    add_bool (builder, "overdue", overdue);
    add_bool (builder, "seen", info->revoke_seen);
    json_builder_end_object (builder);
  } else {
    json_builder_add_null_value (builder);
  }
  json_builder_end_object (builder);
}

static gboolean
get_number (JsonObject *arguments, const char *name, gboolean needed, guint64 *ret_value, GError **error) {
  JsonNode *node = json_object_get_member (arguments, name);

  if (!node && !needed)
    return TRUE;
  if (!node || !JSON_NODE_HOLDS_VALUE (node) || json_node_get_value_type (node) != G_TYPE_INT64
      || json_node_get_int (node) < 0) {
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_USAGE, "argument '%s' must be a whole number, 0 or more", name);
    return FALSE;
  }
  *ret_value = (guint64)json_node_get_int (node);
  return TRUE;
}

static JsonNode *
run_leases (DonorOperator *op, JsonObject *arguments, GError **error) {
  const struct lease_donor *leases = lender_leases (op->lender);
  const guint32 n_slots = op->options->geometry.n_leases;
  g_autoptr (JsonBuilder) builder = json_builder_new ();
  guint64 from = 0, slot;
  LenderFigures figures;
  struct lease_info info;
  guint n = 0;

  if (!get_number (arguments, "from", FALSE, &from, error))
    return NULL;
  lender_figures (op->lender, &figures);
  json_builder_begin_object (builder);
  add_int (builder, "block-bytes", ARENA_BLOCK_BYTES);
  json_builder_set_member_name (builder, "leases");
  json_builder_begin_array (builder);
  for (slot = from; slot < n_slots && n < LEASES_AT_ONCE; slot++)
    if (lease_donor_lease (leases, (guint32)slot, &info)) {
      add_lease (builder, op, &info, figures.now_ms);
      n++;
    }
  json_builder_end_array (builder);
  while (slot < n_slots && !lease_donor_lease (leases, (guint32)slot, &info))
    slot++;
  add_int_or_null (builder, "next", slot < n_slots, slot);
  json_builder_end_object (builder);
  return json_builder_get_root (builder);
}

/* ---- orders ---- */

static gboolean
get_lease (JsonObject *arguments, guint64 *ret_lease, GError **error) {
  JsonNode *node = json_object_get_member (arguments, "lease");
  const char *text = node && JSON_NODE_HOLDS_VALUE (node) && json_node_get_value_type (node) == G_TYPE_STRING
                         ? json_node_get_string (node)
                         : NULL;

  if (text && g_ascii_isxdigit (text[0]) && g_ascii_string_to_unsigned (text, 16, 1, G_MAXUINT64, ret_lease, NULL))
    return TRUE;
  g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_USAGE,
               "argument 'lease' must be a lease's hexadecimal number, as the command leases shows it");
  return FALSE;
}

static JsonNode *
nothing (void) {
  g_autoptr (JsonBuilder) builder = json_builder_new ();

  json_builder_begin_object (builder);
  json_builder_end_object (builder);
  return json_builder_get_root (builder);
}

static JsonNode *
run_revoke (DonorOperator *op, JsonObject *arguments, GError **error) {
  guint64 lease, blocks;

  if (!get_lease (arguments, &lease, error) || !get_number (arguments, "blocks", TRUE, &blocks, error)
      || !lender_revoke (op->lender, lease, blocks, error))
    return NULL;
  return nothing ();
}

static JsonNode *
run_forget (DonorOperator *op, JsonObject *arguments, GError **error) {
  guint64 lease;

  return get_lease (arguments, &lease, error) && lender_forget (op->lender, lease, error) ? nothing () : NULL;
}

/* For all workers to come; --size stays the most. */
static JsonNode *
run_size (DonorOperator *op, JsonObject *arguments, GError **error) {
  guint64 blocks;

  if (!get_number (arguments, "blocks", TRUE, &blocks, error))
    return NULL;
  if (blocks > op->options->geometry.n_blocks) {
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_USAGE,
                 "the arena has %" G_GUINT64_FORMAT " blocks; more need another --size", op->options->geometry.n_blocks);
    return NULL;
  }
  __atomic_store_n (&op->page->size_blocks, blocks, __ATOMIC_RELEASE);
  __atomic_store_n (&op->page->has_size, 1, __ATOMIC_RELEASE);
  lender_set_max (op->lender, blocks);
  return nothing ();
}

static JsonNode *
run_version (DonorOperator *op, JsonObject *arguments, GError **error) {
  g_autoptr (JsonBuilder) builder = json_builder_new ();

  json_builder_begin_object (builder);
  add_string (builder, "version", DOMYBS_VERSION);
  add_int (builder, "state-version", LEASE_DONOR_STATE_VERSION);
  json_builder_end_object (builder);
  return json_builder_get_root (builder);
}

/* The answer to these two is the end of the connection: this process is not there any more then. */
static JsonNode *
run_restart (DonorOperator *op, JsonObject *arguments, GError **error) {
  op->leave (op, PROCESS_EXIT_RESTART);
  return NULL;
}

static JsonNode *
run_upgrade (DonorOperator *op, JsonObject *arguments, GError **error) {
  op->leave (op, PROCESS_EXIT_UPGRADE);
  return NULL;
}

static const struct {
  const char *name;
  CommandFunction run;
  const char *arguments[2]; /* those that it knows */
} commands[] = {
  { "status", run_status, { NULL } },    { "leases", run_leases, { "from" } }, { "revoke", run_revoke, { "lease", "blocks" } },
  { "forget", run_forget, { "lease" } }, { "size", run_size, { "blocks" } },   { "version", run_version, { NULL } },
  { "restart", run_restart, { NULL } },  { "upgrade", run_upgrade, { NULL } },
};

JsonNode *
donor_command (gpointer data, ControlClient *client, const char *command, JsonObject *arguments, GError **error) {
  DonorOperator *op = data;

  for (unsigned i = 0; i < G_N_ELEMENTS (commands); i++) {
    JsonObjectIter iter;
    const char *name;

    if (strcmp (commands[i].name, command) != 0)
      continue;
    json_object_iter_init (&iter, arguments);
    while (json_object_iter_next (&iter, &name, NULL))
      if (g_strcmp0 (commands[i].arguments[0], name) != 0 && g_strcmp0 (commands[i].arguments[1], name) != 0) {
        g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_USAGE, "command '%s' has no argument '%s'", command, name);
        return NULL;
      }
    return commands[i].run (op, arguments, error);
  }
  g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_USAGE,
               "unknown command '%s'; there are: status, leases, revoke, forget, size, version, restart, upgrade", command);
  return NULL;
}
