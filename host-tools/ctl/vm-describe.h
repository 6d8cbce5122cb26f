/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A domain in words, table cells and JSON. */
#ifndef DOMYBS_HOST_TOOLS_VM_DESCRIBE_H
#define DOMYBS_HOST_TOOLS_VM_DESCRIBE_H

#include "ctl/text.h"
#include "ctl/vm.h"

/* Why it has what it has, in one or two sentences with the next step where one is needed. Pure. */
char *vm_explain (const Vm *vm);

/* What an operator should know about its back-end's workers although it does all that it can: that it is busy because they
 * died, or that an upgrade was undone. "cause; next step", without the object. NULL: nothing. */
char *vm_worker_trouble (const Vm *vm);

/* "worker restarted 3 times, last 5 min ago: signal 9 (Killed)"; NULL: its workers have not died. */
char *vm_worker_deaths (const VmWorker *worker);

/* The table of list and top, with all of them in it; with a column more if one has far disks. */
TextTable *vm_table_new (GPtrArray *vms);

/* Warns of what is wrong with single domains, vm_worker_trouble included, which does not make a list of all fail. Not with
 * --json, which has it in the objects. */
void vm_warn (Ctl *ctl, GPtrArray *vms);

/* Members "worker" and "problem" (NULL: none) of json.md. */
void vm_json_worker (Ctl *ctl, const VmWorker *worker);
void vm_json_error (Ctl *ctl, const GError *error);

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
