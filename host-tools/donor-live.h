/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Donors of VMs that run: each domybs-far of this host is told of those that come and go (backend/far/control.md: add-donor,
 * remove-donor). */
#ifndef DOMYBS_HOST_TOOLS_DONOR_LIVE_H
#define DOMYBS_HOST_TOOLS_DONOR_LIVE_H

#include "ctl/ctl.h"
#include "host/donors.h"

/* How long a removal is waited for when nothing is said. */
#define DONOR_LIVE_WAIT_S 300

/* Whether a VM that runs has a donor of that name. */
gboolean donor_live_is_there (const char *name);

/* Tells all of them of a new one. A VM that can't have it is a warning. Adds the member "vms". */
void donor_live_add (Ctl *ctl, const HostDonor *donor);

/* Has it leave all of them, and waits until it has, or an interrupt, or for wait_s seconds; then CTL_ERROR_FAILED, with what
 * waits and why: the order stays. Adds the member "vms". */
gboolean donor_live_remove (Ctl *ctl, const char *name, int wait_s, GError **error);

#endif
