/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The device of a running VM: plugged into the hidden port that the VM was started with, and unplugged from it.
 *
 * - plug: back-end, metadata present="yes", chardev-add, device_add; when one fails, all is undone in reverse
 * - unplug: shrink to 0, device_del, wait for the guest, chardev-remove, back-end, metadata present="no"
 *
 * What QEMU says it has is believed, not what the metadata says: somebody may have unplugged it by hand, or a guest may have
 * let go of it after we had stopped waiting. So both finish what they find half done.
 *
 * A device whose back-end is gone can be unplugged as well: the guest's driver takes its programs' pages out of it, which needs
 * nobody to answer. It can't be told how much that is, so all there is to say is whether it worked within both time limits
 * together.
 */
#ifndef DOMYBS_HOST_TOOLS_LIVE_H
#define DOMYBS_HOST_TOOLS_LIVE_H

#include "ctl/ctl.h"
#include "domain/domain.h"
#include "ctl/vm.h"

/* memory: what domain_check_live has approved. *ret_changed: FALSE when it was plugged already. Errors name the domain. */
gboolean live_plug (Ctl *ctl, ctl_domain_t *domain, const DomainMemory *memory, gboolean *ret_changed, GError **error);

/* timeout_ms is for shrinking; the guest gets half a minute more to let go of the device. *ret_changed: FALSE when it was not
 * plugged. CTL_ERROR_INCOMPLETE when the guest can't give all back, or does not let go: then the device is there as before,
 * with the target that it had. JSON members start-bytes, reached-bytes, reason, stuck-bytes are added when it was tried to
 * shrink. */
gboolean live_unplug (Ctl *ctl, ctl_domain_t *domain, int timeout_ms, gboolean *ret_changed, GError **error);

/* Keeps everybody else from plugging and unplugging (launch_lock_plug), and reads the domain as it is then, with its live XML.
 * *ret_lock is to be closed. NULL with error. */
Vm *live_lock (ctl_domain_t *domain, int *ret_lock, char **ret_xml, GError **error);

/* How long a guest has to let go of a device that it was asked for: its hot-plug driver takes 5 s of its own between request
 * and removal on a real slot; a busy one takes longer. */
#define LIVE_LET_GO_TIMEOUT_MS 30000
#define LIVE_LET_GO_POLL_MS 100

#endif
