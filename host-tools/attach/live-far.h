/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Far disks of a running VM: plugged into free PCI ports, and unplugged again.
 *
 * - plug: domybs-far, metadata, one disk after the other; when one fails, all is undone in reverse
 * - unplug: look whether they are empty, ask the guest for all of them, wait, domybs-far, metadata
 *
 * What a guest has on a far disk is the guest's memory, and the disk is the only place where it is. So a disk that still holds
 * a page is not pulled. One that is swap does: its first page says that it is.
 *
 * All disks of a VM come and go together, since they are one process's. What the live XML shows is believed, not what the
 * metadata says: somebody may have unplugged one by hand, or a guest may have let go of it after we had stopped waiting.
 */
#ifndef DOMYBS_HOST_TOOLS_LIVE_FAR_H
#define DOMYBS_HOST_TOOLS_LIVE_FAR_H

#include "ctl/ctl.h"
#include "ctl/vm.h"
#include "domain/domain.h"

/* Whether just these are there. */
gboolean live_far_is (const char *xml, const DomainFar *far);

/* Whether they can be plugged into the VM with this live XML. CTL_ERROR_REFUSED, without the object. */
gboolean live_far_check (const Vm *vm, const char *xml, const DomainFar *far, GError **error);

/* far: what live_far_check has approved. *ret_changed: FALSE when they were plugged already. Errors name the domain. */
gboolean live_far_plug (Ctl *ctl, ctl_domain_t *domain, const DomainFar *far, gboolean *ret_changed, GError **error);

/* Takes all out. CTL_ERROR_REFUSED: something is on one of them, nothing was changed. CTL_ERROR_INCOMPLETE: the guest has not
 * let go of one within half a minute. *ret_changed: FALSE when there were none. */
gboolean live_far_unplug (Ctl *ctl, ctl_domain_t *domain, gboolean *ret_changed, GError **error);

#endif
