/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Steps that plugging and unplugging of far disks and of objects have in common. Errors name the domain. */
#ifndef DOMYBS_HOST_TOOLS_LIVE_DISK_H
#define DOMYBS_HOST_TOOLS_LIVE_DISK_H

#include "ctl/ctl.h"
#include "ctl/vm.h"

/* Asks the guest for the disks of these aliases that are there, and waits until it has let go of all, half a minute at most.
 * what: "its far disks". FALSE without error: it did not in that time, or there was an interrupt. */
gboolean live_disks_take_out (Ctl *ctl, const Vm *vm, ctl_domain_t *domain, GPtrArray *aliases, const char *what,
                              GError **error);

/* The error for that. */
void live_disks_not_let_go (Ctl *ctl, const Vm *vm, const char *what, GError **error);

/* Sets our element of the live metadata; NULL: there is to be none any more. */
gboolean live_disks_set_metadata (const Vm *vm, ctl_domain_t *domain, const char *element, GError **error);

#endif
