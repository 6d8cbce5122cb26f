/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The objects of a VM in words, a table's cell and JSON. Texts are to be freed. */
#ifndef DOMYBS_HOST_TOOLS_VM_OBJECT_DESCRIBE_H
#define DOMYBS_HOST_TOOLS_VM_OBJECT_DESCRIBE_H

#include "ctl/vm.h"

/* What an operator should know of one of them, "cause; next step"; NULL: nothing. The second: of the first for which there is
 * something. */
char *vm_object_trouble_of (const Vm *vm, unsigned number);
char *vm_objects_trouble (const Vm *vm);

/* "model,data", or "-". */
char *vm_objects_cell (const Vm *vm);

/* An array of "object-disk" of json.md, as the next value. */
void vm_objects_json (Ctl *ctl, const Vm *vm);

#endif
