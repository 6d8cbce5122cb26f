/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Objects of a running VM: their disks plugged into free PCI ports, and unplugged again, one by one.
 *
 * - plug: for each its domybs-far, metadata, disk; when one step fails, this one is undone, and those before it stay
 * - unplug: ask the guest for all of them, wait, end their processes, metadata
 *
 * They are read-only, so nothing can be lost. What the live XML shows is believed, not what the metadata says.
 */
#ifndef DOMYBS_HOST_TOOLS_LIVE_OBJECT_H
#define DOMYBS_HOST_TOOLS_LIVE_OBJECT_H

#include "ctl/ctl.h"
#include "ctl/vm.h"
#include "domain/domain.h"

/* Which of these the VM with this live XML does not have (others: disks that are to be plugged in besides), where they can be
 * plugged in. CTL_ERROR_REFUSED, without the object. */
gboolean live_objects_check (const char *xml, const DomainObjects *objects, unsigned others, DomainObjects *ret_missing,
                             GError **error);

/* Plugs in those that are not there. *ret_changed: FALSE when none was. */
gboolean live_objects_plug (Ctl *ctl, ctl_domain_t *domain, const DomainObjects *objects, gboolean *ret_changed,
                            GError **error);

/* Takes these out (NULL: all). CTL_ERROR_INCOMPLETE: the guest has not let go of one within half a minute. *ret_changed: FALSE
 * when none was there. */
gboolean live_objects_unplug (Ctl *ctl, ctl_domain_t *domain, const DomainObjects *objects, gboolean *ret_changed,
                              GError **error);

#endif
