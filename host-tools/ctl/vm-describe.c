/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/vm-describe.h"
#include "ctl/vm-far-describe.h"
#include "ctl/vm-object-describe.h"
#include "ctl/resize.h"

#include <stdio.h>
#include <string.h>

/* A refusal that is older explains nothing of now: a guest that still wants memory asks every second. */
#define REFUSAL_FRESH_MS 30000

static guint64
bytes (const Vm *vm, guint64 blocks) {
  return blocks == VM_UNKNOWN ? VM_UNKNOWN : blocks * vm->status.block_bytes;
}

static char *
short_size (guint64 size) {
  return size == VM_UNKNOWN ? g_strdup ("-") : text_size_short (size);
}

/* ---- workers ---- */

char *
vm_worker_deaths (const VmWorker *worker) {
  g_autofree char *age = NULL;

  if (!worker->known || worker->deaths == VM_UNKNOWN || !worker->deaths)
    return NULL;
  age = worker->last_death_age_ms == VM_UNKNOWN ? g_strdup ("some time") : text_age (worker->last_death_age_ms);
  return g_strdup_printf ("worker restarted %" G_GUINT64_FORMAT " time%s, last %s ago: %s", worker->deaths,
                          worker->deaths == 1 ? "" : "s", age, worker->last_death ? worker->last_death : "cause not known");
}

char *
vm_worker_trouble (const Vm *vm) {
  const VmWorker *worker = &vm->status.worker;
  g_autofree char *log = vm_log_path (vm);

  if (!vm->have_status || !worker->known)
    return NULL;
  if (worker->busy) {
    g_autofree char *strikes
        = worker->strikes == VM_UNKNOWN ? g_strdup ("several") : g_strdup_printf ("%" G_GUINT64_FORMAT, worker->strikes);

    return g_strdup_printf (
        "its memory device is busy: its worker died %s times in a row, last by %s, so the guest keeps what it has and is told "
        "to ask again later; see %s, 'domybsctl backend upgrade %s' takes the version that is installed now",
        strikes, worker->last_death ? worker->last_death : "a cause that is not known", log, vm->word);
  }
  if (worker->rolled_back)
    return g_strdup_printf ("its last upgrade was undone, because workers of the new version died: it is at version %s; see %s",
                            worker->version ? worker->version : "unknown", log);
  return NULL;
}

/* ---- words ---- */

static char *
explain_target (const Vm *vm) {
  const VmStatus *status = &vm->status;
  g_autofree char *target = text_size (bytes (vm, status->target_blocks)),
                  *granted = text_size (bytes (vm, status->granted_blocks));
  const gboolean stuck = status->blocks_stuck != VM_UNKNOWN && status->blocks_stuck > 0;
  const ResizeReason refused = resize_refusal (status, REFUSAL_FRESH_MS);
  g_autofree char *why = NULL;

  if (status->granted_blocks == status->target_blocks)
    return g_strdup_printf (
        "The host's target is %s, and that is what it has. 'domybsctl target %s auto' leaves it to the guest again.", target,
        vm->word);
  if (status->granted_blocks < status->target_blocks && refused)
    why = resize_explain (refused, status, 0, vm->word);
  else if (status->granted_blocks > status->target_blocks && stuck)
    why = resize_explain (RESIZE_STUCK, status, status->blocks_stuck, vm->word);
  if (why)
    return g_strdup_printf ("It has %s of the host's target of %s: %s.", granted, target, why);
  return g_strdup_printf ("The host's target is %s and it has %s: it is on its way, or the guest can't come nearer.", target,
                          granted);
}

static char *
explain_pressure (const Vm *vm) {
  const VmStatus *status = &vm->status;
  const ResizeReason refused = resize_refusal (status, REFUSAL_FRESH_MS);

  if (refused) {
    g_autofree char *why = resize_explain (refused, status, 0, vm->word);

    return g_strdup_printf ("The guest asked for more and did not get it: %s.", why);
  }
  if (status->granted_blocks == 0)
    return g_strdup ("The guest has enough memory of its own; it borrows when that runs low.");
  if (status->granted_blocks >= status->max_blocks)
    return g_strdup ("The guest has all that it may borrow; it gives back what it does not need.");
  return g_strdup ("The guest decides: it borrows when its memory runs low, and gives back what it does not need.");
}

/* Of a VM that has nothing but far disks. */
static char *
explain_far (const Vm *vm) {
  g_autofree char *trouble = vm_far_trouble (vm);

  if (trouble)
    return g_strdup_printf ("Its far disks are in trouble: %s.", trouble);
  if (vm->far_pending)
    return g_strdup ("Its far disks come with the next start.");
  if (vm->id < 0)
    return g_strdup ("It is not running; its far disks come with the next start.");
  return g_strdup ("The guest's own kernel decides what goes to its far disks, once they are its swap (domybs-swap).");
}

/* Of a VM that has nothing but objects. */
static char *
explain_objects (const Vm *vm) {
  g_autofree char *trouble = vm_objects_trouble (vm);

  if (trouble)
    return g_strdup_printf ("Its objects are in trouble: %s.", trouble);
  if (vm->objects_pending)
    return g_strdup ("Its objects come with the next start.");
  if (vm->id < 0)
    return g_strdup ("It is not running; its objects come with the next start.");
  return g_strdup_printf ("The guest reads its objects as read-only disks: /dev/disk/by-id/virtio-domybs-%s and so on.",
                          vm->objects.items[0].name);
}

char *
vm_explain (const Vm *vm) {
  g_autofree char *trouble = NULL;

  if (vm->problem)
    return g_strdup_printf ("Not known: %s.", vm->problem->message);
  if (!vm->attached && !vm->pending && (vm->have_far || vm->far_pending))
    return explain_far (vm);
  if (!vm->attached && !vm->pending && (vm->have_objects || vm->objects_pending))
    return explain_objects (vm);
  if (vm->pending)
    return g_strdup_printf (
        "The memory device comes with the next start; 'domybsctl attach %s --live' plugs it in now where that is possible.",
        vm->word);
  if (!vm->attached)
    return g_strdup_printf ("No memory device is attached; 'domybsctl attach %s' gives it one.", vm->word);
  if (vm->id < 0)
    return g_strdup ("It is not running; its memory device comes with the next start.");
  if (!vm->memory.present)
    return g_strdup_printf ("The memory device is unplugged; 'domybsctl attach %s --live' plugs it in again.", vm->word);
  if (!vm->have_status || !vm->status.connected)
    return g_strdup_printf (
        "Its back-end waits for QEMU; if that stays so, start the domain again ('virsh reboot' is not enough).");
  if (vm->state == VM_PAUSED)
    return g_strdup_printf ("The guest is paused and keeps what it has; 'virsh resume %s' lets it go on.", vm->word);
  trouble = vm->status.worker.busy ? vm_worker_trouble (vm) : NULL;
  if (trouble)
    return g_strdup_printf ("I%s.", trouble + 1); /* "its …" */
  if (!vm->status.session)
    return g_strdup ("No guest driver has said hello: the guest boots, or virtio_domybs is not loaded in it.");
  return vm->status.have_target ? explain_target (vm) : explain_pressure (vm);
}

/* ---- tables ---- */

static const char *
driver_text (const Vm *vm) {
  if (vm->gone)
    return "(gone)";
  if (vm->problem)
    return "?";
  if (vm->pending)
    return "(next start)";
  if (vm->attached && vm->id >= 0 && !vm->memory.present)
    return "(unplugged)";
  if (!vm->have_status)
    return "-";
  if (vm->status.worker.busy)
    return "(busy)";
  if (!vm->status.session)
    return "(none)";
  return vm->status.driver ? vm->status.driver : "?";
}

static void
add_row (TextTable *table, const Vm *vm, gboolean with_far, gboolean with_objects) {
  const VmStatus *status = vm->have_status ? &vm->status : NULL;
  const gboolean known = vm->attached || vm->pending;
  g_autofree char *window = short_size (known ? vm->memory.window_bytes : VM_UNKNOWN);
  g_autofree char *max = short_size (known ? vm->memory.local_max_bytes : VM_UNKNOWN);
  g_autofree char *granted = short_size (status ? bytes (vm, status->granted_blocks) : VM_UNKNOWN);
  g_autofree char *target = status && !status->have_target
                                ? g_strdup ("auto")
                                : short_size (status ? bytes (vm, status->target_blocks) : VM_UNKNOWN);
  g_autofree char *used = short_size (status ? status->memfd_bytes : VM_UNKNOWN), *far = vm_far_cell (vm),
                  *objects = vm_objects_cell (vm);
  const char *rest[3] = { NULL };
  unsigned n = 0;

  if (with_far)
    rest[n++] = far;
  if (with_objects)
    rest[n++] = objects;
  rest[n++] = driver_text (vm);
  text_table_add (table, vm->name, vm_state_text (vm->state), window, max, granted, target, used, rest[0], rest[1], rest[2],
                  NULL);
}

TextTable *
vm_table_new (GPtrArray *vms) {
  const char *heads[11] = { "NAME", "STATE", ">WINDOW", ">MAX", ">GRANTED", ">TARGET", ">USED" };
  gboolean far = FALSE, objects = FALSE;
  unsigned n = 7;
  TextTable *table;

  for (unsigned i = 0; i < vms->len; i++) {
    const Vm *vm = vms->pdata[i];

    far |= vm->have_far || vm->far_pending;
    objects |= vm->objects.n != 0;
  }
  if (far)
    heads[n++] = ">FAR";
  if (objects)
    heads[n++] = "OBJECTS";
  heads[n] = "DRIVER";
  table = text_table_new (heads);
  for (unsigned i = 0; i < vms->len; i++)
    add_row (table, vms->pdata[i], far, objects);
  return table;
}

/* A host whose hook does not work has as many problems as domains: some tell it. */
#define WARNINGS_MAX 5

void
vm_warn (Ctl *ctl, GPtrArray *vms) {
  unsigned n = 0;

  for (unsigned i = 0; i < vms->len && !ctl->json; i++) {
    const Vm *vm = vms->pdata[i];
    g_autofree char *trouble = vm->problem ? g_strdup (vm->problem->message) : vm_worker_trouble (vm);

    if (!trouble)
      trouble = vm_far_trouble (vm);
    if (!trouble)
      trouble = vm_objects_trouble (vm);
    if (trouble && n++ < WARNINGS_MAX)
      ctl_warn (ctl, "domain '%s': %s", vm->label, trouble);
  }
  if (n > WARNINGS_MAX)
    ctl_warn (ctl, "%u more domains have problems; 'domybsctl list --json' tells them all", n - WARNINGS_MAX);
}

/* ---- JSON ---- */

static void
json_size (Ctl *ctl, const char *name, guint64 value) {
  if (value == VM_UNKNOWN)
    ctl_json_null (ctl, name);
  else
    ctl_json_bytes (ctl, name, value);
}

void
vm_json_worker (Ctl *ctl, const VmWorker *worker) {
  JsonBuilder *builder = ctl_json (ctl);

  json_builder_set_member_name (builder, "worker");
  if (!worker->known) {
    json_builder_add_null_value (builder);
    return;
  }
  json_builder_begin_object (builder);
  json_size (ctl, "pid", worker->pid);
  ctl_json_string (ctl, "version", worker->version);
  json_size (ctl, "state-version", worker->state_version);
  ctl_json_string (ctl, "mode", worker->busy ? "busy" : "normal");
  json_size (ctl, "starts", worker->starts);
  json_size (ctl, "deaths", worker->deaths);
  json_size (ctl, "strikes", worker->strikes);
  ctl_json_string (ctl, "last-death", worker->last_death);
  json_size (ctl, "last-death-age-ms", worker->last_death ? worker->last_death_age_ms : VM_UNKNOWN);
  json_size (ctl, "age-ms", worker->age_ms);
  json_size (ctl, "keeper-age-ms", worker->keeper_age_ms);
  ctl_json_bool (ctl, "rolled-back", worker->rolled_back);
  json_builder_end_object (builder);
}

static void
json_backend (Ctl *ctl, const Vm *vm) {
  JsonBuilder *builder = ctl_json (ctl);
  const VmStatus *status = &vm->status;

  json_builder_set_member_name (builder, "backend");
  if (!vm->have_status) {
    json_builder_add_null_value (builder);
    return;
  }
  json_builder_begin_object (builder);
  json_size (ctl, "pid", status->pid);
  ctl_json_bool (ctl, "connected", status->connected);
  ctl_json_bool (ctl, "window-mapped", status->window_mapped);
  ctl_json_bool (ctl, "session", status->session);
  ctl_json_string (ctl, "driver", status->driver);
  json_size (ctl, "max-bytes", bytes (vm, status->max_blocks));
  json_size (ctl, "granted-bytes", bytes (vm, status->granted_blocks));
  json_size (ctl, "target-bytes", status->have_target ? bytes (vm, status->target_blocks) : VM_UNKNOWN);
  json_size (ctl, "used-bytes", status->memfd_bytes);
  json_size (ctl, "fragmentation-permille", status->fragmentation_permille);
  json_size (ctl, "audit-punched-bytes", status->audit_punched_bytes);
  ctl_json_string (ctl, "refused-reason", status->refused_reason);
  json_size (ctl, "refused-age-ms", status->refused_reason ? status->refused_age_ms : VM_UNKNOWN);
  vm_json_worker (ctl, &status->worker);
  json_builder_end_object (builder);
}

static void
json_guest (Ctl *ctl, const Vm *vm) {
  JsonBuilder *builder = ctl_json (ctl);
  const VmStatus *status = &vm->status;

  json_builder_set_member_name (builder, "guest");
  if (!vm->have_status || !status->session) {
    json_builder_add_null_value (builder);
    return;
  }
  json_builder_begin_object (builder);
  json_size (ctl, "section-bytes", bytes (vm, status->section_blocks));
  json_size (ctl, "memory-total-bytes", status->mem_total_bytes);
  json_size (ctl, "memory-available-bytes", status->mem_available_bytes);
  json_size (ctl, "swap-total-bytes", status->swap_total_bytes);
  json_size (ctl, "swap-free-bytes", status->swap_free_bytes);
  json_size (ctl, "online-bytes", bytes (vm, status->blocks_online));
  json_size (ctl, "held-bytes", bytes (vm, status->blocks_held));
  json_size (ctl, "stuck-bytes", bytes (vm, status->blocks_stuck));
  json_size (ctl, "age-ms", status->stats_age_ms);
  json_builder_end_object (builder);
}

static void
json_memory (Ctl *ctl, const Vm *vm) {
  JsonBuilder *builder = ctl_json (ctl);

  json_builder_set_member_name (builder, "memory");
  if (!vm->attached && !vm->pending) {
    json_builder_add_null_value (builder);
    return;
  }
  json_builder_begin_object (builder);
  ctl_json_bytes (ctl, "window-bytes", vm->memory.window_bytes);
  ctl_json_bytes (ctl, "local-max-bytes", vm->memory.local_max_bytes);
  ctl_json_string (ctl, "grant", vm->memory.populate ? "populate" : "reserve");
  if (vm->memory.numa_node >= 0)
    ctl_json_int (ctl, "numa-node", vm->memory.numa_node);
  else
    ctl_json_null (ctl, "numa-node");
  ctl_json_bool (ctl, "present", vm->memory.present);
  json_builder_end_object (builder);
}

void
vm_json_error (Ctl *ctl, const GError *error) {
  JsonBuilder *builder = ctl_json (ctl);

  json_builder_set_member_name (builder, "problem");
  if (!error) {
    json_builder_add_null_value (builder);
    return;
  }
  json_builder_begin_object (builder);
  ctl_json_string (ctl, "code", ctl_error_name (error->code));
  ctl_json_string (ctl, "message", error->message);
  json_builder_end_object (builder);
}

static void
json_far (Ctl *ctl, const Vm *vm) {
  JsonBuilder *builder = ctl_json (ctl);

  if (!vm->have_far && !vm->far_pending)
    return;
  json_builder_set_member_name (builder, "far");
  json_builder_begin_object (builder);
  ctl_json_bytes (ctl, "shared-bytes", vm->far.bytes[DOMAIN_FAR_SHARED]);
  ctl_json_bytes (ctl, "remote-bytes", vm->far.bytes[DOMAIN_FAR_REMOTE]);
  ctl_json_bytes (ctl, "mem-shared-bytes", vm->far.bytes[DOMAIN_FAR_MEM_SHARED]);
  ctl_json_bytes (ctl, "mem-remote-bytes", vm->far.bytes[DOMAIN_FAR_MEM_REMOTE]);
  ctl_json_string (ctl, "storage", vm->far.storage);
  ctl_json_bool (ctl, "compress", vm->far.compress);
  ctl_json_bytes (ctl, "wear-bytes", vm->far.wear_bytes);
  ctl_json_string (ctl, "protection", domain_far_protection_name (vm->far.protection));
  ctl_json_bool (ctl, "pending", vm->far_pending);
  json_builder_set_member_name (builder, "disks");
  vm_far_json_disks (ctl, vm);
  vm_json_worker (ctl, &vm->far_status.worker);
  vm_json_error (ctl, vm->far_problem);
  json_builder_end_object (builder);
}

void
vm_json (Ctl *ctl, const Vm *vm) {
  JsonBuilder *builder = ctl_json (ctl);
  g_autofree char *state = g_strdelimit (g_strdup (vm_state_text (vm->state)), " ", '-');

  if (!builder)
    return;
  json_builder_begin_object (builder);
  ctl_json_string (ctl, "name", vm->name);
  ctl_json_string (ctl, "uuid", vm->uuid);
  if (vm->id >= 0)
    ctl_json_int (ctl, "id", vm->id);
  else
    ctl_json_null (ctl, "id");
  ctl_json_string (ctl, "state", state);
  ctl_json_bool (ctl, "attached", vm->attached);
  ctl_json_bool (ctl, "pending", vm->pending);
  json_memory (ctl, vm);
  json_backend (ctl, vm);
  ctl_json_bool (ctl, "backend-gone", vm->gone);
  json_guest (ctl, vm);
  json_far (ctl, vm);
  if (vm->objects.n) {
    json_builder_set_member_name (builder, "objects");
    vm_objects_json (ctl, vm);
  }
  vm_json_error (ctl, vm->problem);
  json_builder_end_object (builder);
}

/* ---- totals ---- */

/* In bytes; VM_UNKNOWN where /proc is not there. */
static guint64
meminfo (const char *text, const char *name) {
  const char *line = strstr (text, name);
  guint64 kib;

  return line && sscanf (line + strlen (name), ": %" G_GUINT64_FORMAT " kB", &kib) == 1 ? kib * 1024 : VM_UNKNOWN;
}

void
vm_totals (GPtrArray *vms, VmTotals *ret) {
  g_autofree char *text = NULL;

  *ret = (VmTotals){
    .host_lent_bytes = VM_UNKNOWN,
    .host_limit_bytes = VM_UNKNOWN,
    .host_reserve_bytes = VM_UNKNOWN,
    .host_total_bytes = VM_UNKNOWN,
    .host_available_bytes = VM_UNKNOWN,
  };
  if (g_file_get_contents ("/proc/meminfo", &text, NULL, NULL)) {
    ret->host_total_bytes = meminfo (text, "MemTotal");
    ret->host_available_bytes = meminfo (text, "MemAvailable");
  }
  for (unsigned i = 0; i < vms->len; i++) {
    const Vm *vm = vms->pdata[i];

    ret->attached += vm->attached;
    ret->running += vm->attached && vm->id >= 0;
    if (!vm->have_status)
      continue;
    ret->granted_bytes += bytes (vm, vm->status.granted_blocks);
    ret->used_bytes += vm->status.memfd_bytes;
    /* All say the same of the host, unless one was started with options of its own: the last one's will do. */
    ret->host_lent_bytes = bytes (vm, vm->status.host_used_blocks);
    ret->host_limit_bytes = bytes (vm, vm->status.host_limit_blocks);
    ret->host_reserve_bytes = vm->status.host_reserve_bytes;
  }
}
