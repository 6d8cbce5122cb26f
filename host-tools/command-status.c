/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/term.h"
#include "ctl/vm-describe.h"
#include "ctl/vm-far-describe.h"
#include "ctl/vm-object-describe.h"

#include <unistd.h>

static void append_field (GString *out, const char *name, const char *format, ...) G_GNUC_PRINTF (3, 4);

static void
append_field (GString *out, const char *name, const char *format, ...) {
  g_autofree char *value = NULL, *clean = NULL;
  va_list args;

  va_start (args, format);
  value = g_strdup_vprintf (format, args);
  va_end (args);
  clean = ctl_escape (value);
  g_string_append_printf (out, "%s%*s %s\n", name, MAX (14 - text_width (name), 0), "", clean);
}

/* "3.2G", or exact too where that is another text: "3.2G (3276M)". */
static char *
both_sizes (guint64 bytes) {
  g_autofree char *rounded = text_size_short (bytes), *exact = text_size (bytes);

  if (bytes == VM_UNKNOWN)
    return g_strdup ("not known");
  return g_str_equal (rounded, exact) ? g_steal_pointer (&exact) : g_strdup_printf ("%s (%s)", rounded, exact);
}

static void
append_size (GString *out, const char *name, guint64 bytes) {
  g_autofree char *text = both_sizes (bytes);

  append_field (out, name, "%s", text);
}

/* For what nobody counts in blocks. */
static void
append_rounded (GString *out, const char *name, guint64 bytes) {
  g_autofree char *text = bytes == VM_UNKNOWN ? g_strdup ("not known") : text_size_short (bytes);

  append_field (out, name, "%s", text);
}

static void
append_worker (GString *out, const VmWorker *worker, gboolean far) {
  g_autofree char *deaths = vm_worker_deaths (worker), *age = NULL;

  if (!worker->known)
    return;
  if (worker->pid != VM_UNKNOWN && worker->age_ms != VM_UNKNOWN) {
    age = text_age (worker->age_ms);
    append_field (out, far ? "Far worker" : "Worker", "process %" G_GUINT64_FORMAT ", version %s, for %s%s", worker->pid,
                  worker->version ? worker->version : "unknown", age, worker->busy ? ", busy" : "");
  }
  if (deaths)
    append_field (out, far ? "Far restarts" : "Restarts", "%s", deaths);
  if (worker->rolled_back)
    append_field (out, far ? "Far upgrade" : "Upgrade", "the last one was undone, because workers of the new version died");
}

static void
append_backend (GString *out, const Vm *vm) {
  const VmStatus *status = &vm->status;
  const guint64 block = status->block_bytes;

  append_size (out, "Granted", status->granted_blocks * block);
  if (status->have_target)
    append_size (out, "Target", status->target_blocks * block);
  else
    append_field (out, "Target", "auto (the guest decides)");
  append_rounded (out, "Used of host", status->memfd_bytes);
  append_field (out, "QEMU", status->connected ? "connected" : "not connected");
  append_worker (out, &status->worker, FALSE);
  append_field (out, "Guest driver", "%s", !status->session ? "none" : status->driver ? status->driver : "of unknown name");
  if (status->refused_reason && status->refused_age_ms != VM_UNKNOWN)
    append_field (out, "Last refusal", "%s, %" G_GUINT64_FORMAT " s ago", status->refused_reason,
                  status->refused_age_ms / 1000);
  if (status->audit_punched_bytes != VM_UNKNOWN && status->audit_punched_bytes)
    append_rounded (out, "Taken back", status->audit_punched_bytes);
  if (!status->session || status->mem_total_bytes == VM_UNKNOWN)
    return;
  append_rounded (out, "Guest memory", status->mem_total_bytes);
  append_rounded (out, "… available", status->mem_available_bytes);
  if (status->blocks_stuck != VM_UNKNOWN && status->blocks_stuck)
    append_size (out, "… stuck", status->blocks_stuck * block);
}

static void
append_copies (GString *out, const VmCopies *copies) {
  g_autofree char *text = vm_copies_text (copies);

  if (text)
    append_field (out, "… protection", "%s", text);
  for (unsigned i = 0; i < copies->n_donors; i++) {
    g_autofree char *donor = vm_copies_donor_text (&copies->donors[i]),
                    *clean = ctl_escape (copies->donors[i].name ? copies->donors[i].name : "?"),
                    *name = g_strdup_printf ("… donor %s", clean);

    append_field (out, name, "%s", donor);
  }
}

static void
append_far (GString *out, const Vm *vm) {
  for (DomainFarTier tier = 0; tier < DOMAIN_FAR_TIERS; tier++) {
    g_autofree char *name = g_strdup_printf ("Far %s", domain_far_tier_name (tier)),
                    *size = text_size_short (vm->far.bytes[tier]), *text = NULL, *trouble = NULL;
    const VmFarDisk *disk = &vm->far_status.disks[tier];

    if (!vm->far.bytes[tier])
      continue;
    if (!vm->have_far_status || !disk->there) {
      append_field (out, name, "%s%s", size, vm->far_pending ? ", from the next start on" : "");
      continue;
    }
    text = vm_far_disk_text (disk);
    trouble = vm_far_disk_trouble (disk);
    append_field (out, name, "%s", text);
    if (disk->storage)
      append_field (out, "… in", "%s", disk->storage);
    append_copies (out, &disk->copies);
    if (trouble)
      append_field (out, "… trouble", "%s", trouble);
  }
  if (vm->have_far_status)
    append_worker (out, &vm->far_status.worker, TRUE);
  else
    append_field (out, "… in", "%s", vm->far.storage);
  if (vm->far_problem)
    append_field (out, "… trouble", "%s", vm->far_problem->message);
}

static void
append_objects (GString *out, const Vm *vm) {
  for (unsigned i = 0; i < vm->objects.n; i++) {
    const VmObjectStatus *status = &vm->object_status[i];
    g_autofree char *name = g_strdup_printf ("Object %s", vm->objects.items[i].name), *text = vm_object_text (status),
                    *trouble = vm_object_trouble (status), *deaths = vm_worker_deaths (&status->worker);

    append_field (out, name, "%s", status->known ? text : vm->objects_pending ? "from the next start on" : "read-only");
    if (deaths)
      append_field (out, "… restarts", "%s", deaths);
    if (vm->object_problems[i])
      append_field (out, "… trouble", "%s", vm->object_problems[i]->message);
    else if (trouble)
      append_field (out, "… trouble", "%s", trouble);
  }
}

static void
print_vm (Ctl *ctl, const Vm *vm) {
  g_autoptr (GString) out = g_string_new (NULL);
  g_autofree char *why = vm_explain (vm);

  append_field (out, "Name", "%s", vm->name);
  append_field (out, "UUID", "%s", vm->uuid);
  if (vm->id >= 0)
    append_field (out, "State", "%s, id %d", vm_state_text (vm->state), vm->id);
  else
    append_field (out, "State", "%s", vm_state_text (vm->state));
  if (vm->attached || vm->pending) {
    append_size (out, "Window", vm->memory.window_bytes);
    append_size (out, "Local maximum", vm->memory.local_max_bytes);
    append_field (out, "Grants", "%s",
                  vm->memory.populate ? "populate (memory is taken at once)" : "reserve (memory is taken at first touch)");
    if (vm->memory.numa_node >= 0)
      append_field (out, "NUMA node", "%d", vm->memory.numa_node);
    else
      append_field (out, "NUMA node", "none of its own");
  }
  if (vm->have_status)
    append_backend (out, vm);
  else if (vm->gone)
    append_field (out, "Back-end", "gone");
  if (vm->have_far || vm->far_pending)
    append_far (out, vm);
  append_objects (out, vm);
  append_field (out, "Why", "%s", why);
  ctl_print (ctl, out->str);
}

static gboolean
status_of_one (Ctl *ctl, ctl_connect_t *connection, const char *text, GError **error) {
  g_autoptr (ctl_domain_t) domain = ctl_domain_find (connection, text, error);
  g_autoptr (Vm) vm = domain ? vm_read (domain, error) : NULL;

  if (!vm)
    return FALSE;
  vm_ask (vm);
  if (ctl_json (ctl)) {
    json_builder_set_member_name (ctl_json (ctl), "domain");
    vm_json (ctl, vm);
  }
  print_vm (ctl, vm);
  if (!vm->problem)
    return TRUE;
  g_propagate_error (error, g_error_copy (vm->problem));
  vm_prefix_error (vm, error);
  return FALSE;
}

static void
json_total (Ctl *ctl, const char *name, guint64 value) {
  if (value == VM_UNKNOWN)
    ctl_json_null (ctl, name);
  else
    ctl_json_bytes (ctl, name, value);
}

static void
json_host (Ctl *ctl, const VmTotals *totals, GPtrArray *vms) {
  JsonBuilder *builder = ctl_json (ctl);

  if (!builder)
    return;
  json_builder_set_member_name (builder, "host");
  json_builder_begin_object (builder);
  json_total (ctl, "memory-total-bytes", totals->host_total_bytes);
  json_total (ctl, "memory-available-bytes", totals->host_available_bytes);
  json_total (ctl, "reserve-bytes", totals->host_reserve_bytes);
  json_total (ctl, "limit-bytes", totals->host_limit_bytes);
  json_total (ctl, "lent-bytes", totals->host_lent_bytes);
  json_total (ctl, "granted-bytes", totals->granted_bytes);
  json_total (ctl, "used-bytes", totals->used_bytes);
  ctl_json_int (ctl, "domains-attached", totals->attached);
  ctl_json_int (ctl, "domains-running", totals->running);
  json_builder_end_object (builder);
  json_builder_set_member_name (builder, "domains");
  json_builder_begin_array (builder);
  for (unsigned i = 0; i < vms->len; i++)
    vm_json (ctl, vms->pdata[i]);
  json_builder_end_array (builder);
}

static gboolean
status_of_all (Ctl *ctl, ctl_connect_t *connection, GError **error) {
  g_autoptr (GPtrArray) vms = vm_gather (connection, FALSE, error);
  g_autoptr (GString) out = g_string_new (NULL);
  g_autoptr (TextTable) table = NULL;
  g_autofree char *text = NULL;
  int columns, lines;
  VmTotals totals;

  if (!vms)
    return FALSE;
  vm_ask_all (vms);
  vm_totals (vms, &totals);
  json_host (ctl, &totals, vms);
  append_rounded (out, "Host memory", totals.host_total_bytes);
  append_rounded (out, "… available", totals.host_available_bytes);
  if (totals.host_reserve_bytes != VM_UNKNOWN)
    append_rounded (out, "… kept", totals.host_reserve_bytes);
  if (totals.host_limit_bytes != VM_UNKNOWN)
    append_rounded (out, "Lends at most", totals.host_limit_bytes);
  append_size (out, "Granted", totals.granted_bytes);
  append_rounded (out, "Really used", totals.used_bytes);
  append_field (out, "Domains", "%u with the memory device, %u of them running", totals.attached, totals.running);
  if (vms->len) {
    table = vm_table_new (vms);
    term_size (STDOUT_FILENO, &columns, &lines);
    text = text_table_format (table, columns);
    g_string_append_printf (out, "\n%s", text);
  }
  ctl_print (ctl, out->str);
  vm_warn (ctl, vms);
  return TRUE;
}

gboolean
command_status (Ctl *ctl, int argc, char **argv, GError **error) {
  g_autoptr (ctl_connect_t) connection = NULL;

  if (!ctl_parse (ctl, NULL, &argc, &argv, 0, 1, error))
    return FALSE;
  connection = ctl_connect (ctl, CTL_READS, error);
  if (!connection)
    return FALSE;
  return argc ? status_of_one (ctl, connection, argv[0], error) : status_of_all (ctl, connection, error);
}
