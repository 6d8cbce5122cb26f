/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A domain in words, table cells and JSON. */
#ifndef DOMYBS_HOST_TOOLS_VM_DESCRIBE_H
#define DOMYBS_HOST_TOOLS_VM_DESCRIBE_H

#include "ctl/text.h"
#include "ctl/vm.h"

/* Why it has what it has, in one or two sentences with the next step where one is needed. Pure. */
char *vm_explain (const Vm *vm);

/* The table of list and top. */
TextTable *vm_table_new (void);
void vm_table_add (TextTable *table, const Vm *vm);

/* Warns of what is wrong with single domains, which does not make a list of all fail. Not with --json, which has it in the
 * objects. */
void vm_warn (Ctl *ctl, GPtrArray *vms);

/* A "domain" object of json.md, as the next value (after a member name, or in an array). */
void vm_json (Ctl *ctl, const Vm *vm);

/* Sums over VMs, and what their back-ends say about this host. VM_UNKNOWN: nobody says. */
typedef struct {
  guint64 granted_bytes, used_bytes; /* of the VMs given */
  guint64 host_lent_bytes;           /* of all VMs of the host's account */
  guint64 host_limit_bytes, host_reserve_bytes;
  guint64 host_total_bytes, host_available_bytes;
  unsigned attached, running;
} VmTotals;
void vm_totals (GPtrArray *vms, VmTotals *ret_totals);

#endif
