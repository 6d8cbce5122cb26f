/* SPDX-License-Identifier: GPL-2.0-or-later */
/* VMs whose QEMU is started by somebody else, such as libvirt. */
#include "vm-internal.h"

/* As in vm.c. */
#define BOOT_SECONDS 180.0
#define CONNECT_SECONDS 20.0

Vm *
vm_adopt (const VmForeign *foreign) {
  Vm *vm = vm_new (foreign->name, foreign->series, foreign->driver_params);
  g_autoptr (GError) error = NULL;

  vm->foreign = TRUE;
  vm->serial = g_strdup (foreign->serial_log);
  if (!vm_process_adopt (&vm->qemu, "qemu", foreign->qemu, foreign->qemu_log, &error))
    vm_fail_with (vm, error, "QEMU");
  vm->agent = channel_connect (foreign->agent_path, CONNECT_SECONDS, vm_watch, vm, &error);
  if (!vm->agent)
    vm_fail_with (vm, error, "the agent's port");
  vm_wait_hello (vm, BOOT_SECONDS);
  vm_load_driver (vm);
  return vm;
}

void
vm_adopt_backend (Vm *vm, GPid pid, const char *control_path, const char *log) {
  g_autoptr (GError) error = NULL;

  g_clear_pointer (&vm->control, qmp_free);
  g_free (vm->control_path);
  vm->control_path = g_strdup (control_path);
  if (pid == 0) {
    vm_process_clear (&vm->backend); /* without a log it is not watched */
  } else if (!vm_process_adopt (&vm->backend, "backend", pid, log, &error)) {
    vm_fail_with (vm, error, "the back-end");
  }
}

void
vm_may_end (Vm *vm) {
  vm->ending = TRUE;
}

void
vm_release (Vm *vm) {
  g_autofree char *complaints = NULL;

  if (!vm)
    return;
  complaints = vm->expect_complaints ? NULL : vm_kernel_complaints (vm);
  if (complaints)
    vm_fail (vm, "the guest's kernel complained:\n%s", complaints);
  vm_free (vm);
}
