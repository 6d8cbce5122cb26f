/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/vm-object-describe.h"
#include "ctl/vm-describe.h"

char *
vm_object_trouble_of (const Vm *vm, unsigned number) {
  const VmObjectStatus *status = &vm->object_status[number];
  g_autofree char *trouble = NULL;

  if (vm->object_problems[number])
    return g_strdup (vm->object_problems[number]->message);
  trouble = vm_object_trouble (status);
  if (trouble)
    return g_strdup_printf ("object '%s': %s", vm->objects.items[number].name, trouble);
  if (status->known && status->worker.rolled_back) {
    g_autofree char *log = vm_object_log_path (vm, number);

    return g_strdup_printf ("the last upgrade of its domybs-far for object '%s' was undone, because workers of the new version "
                            "died: it is at version %s; see %s",
                            vm->objects.items[number].name, status->worker.version ? status->worker.version : "unknown", log);
  }
  return NULL;
}

char *
vm_objects_trouble (const Vm *vm) {
  char *trouble = NULL;

  for (unsigned i = 0; i < vm->objects.n && !trouble; i++)
    trouble = vm_object_trouble_of (vm, i);
  return trouble;
}

char *
vm_objects_cell (const Vm *vm) {
  return vm->objects.n ? domain_objects_text (&vm->objects, ",") : g_strdup ("-");
}

void
vm_objects_json (Ctl *ctl, const Vm *vm) {
  JsonBuilder *builder = ctl_json (ctl);

  json_builder_begin_array (builder);
  for (unsigned i = 0; i < vm->objects.n; i++) {
    const VmObjectStatus *status = &vm->object_status[i];

    json_builder_begin_object (builder);
    ctl_json_string (ctl, "name", vm->objects.items[i].name);
    ctl_json_bool (ctl, "pending", vm->objects_pending);
    vm_object_json (ctl, status);
    vm_json_worker (ctl, &status->worker);
    vm_json_error (ctl, vm->object_problems[i]);
    json_builder_end_object (builder);
  }
  json_builder_end_array (builder);
}
