/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Far disks in words, a table's cell and JSON. Texts are to be freed. */
#ifndef DOMYBS_HOST_TOOLS_VM_FAR_DESCRIBE_H
#define DOMYBS_HOST_TOOLS_VM_FAR_DESCRIBE_H

#include "ctl/vm.h"

/* "1.2G of 8G, stored in 700M; reads take 90 µs (p50), 400 µs (p99)" */
char *vm_far_disk_text (const VmFarDisk *disk);

/* What an operator should know of it, "cause; next step", without the object; NULL: nothing. The second: of all that is far. */
char *vm_far_disk_trouble (const VmFarDisk *disk);
char *vm_far_trouble (const Vm *vm);

/* Some of what its guest asks for has waited for a while for storage or donors. */
gboolean vm_far_waits (const Vm *vm);

/* "1.2G/40G": used, of all disks; with " waits" where it does. */
char *vm_far_cell (const Vm *vm);

/* An array of "far-disk" of json.md, as the next value. */
void vm_far_json_disks (Ctl *ctl, const Vm *vm);

#endif
