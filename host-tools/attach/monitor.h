/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A running domain's QEMU, spoken to in QMP through libvirt. libvirt marks the domain as tainted by that (custom-monitor), and
 * no more. */
#ifndef DOMYBS_HOST_TOOLS_MONITOR_H
#define DOMYBS_HOST_TOOLS_MONITOR_H

#include "ctl/ctl.h"

/* Runs one command; arguments may be NULL and are taken over. Returns what is in "return" (the caller's). CTL_ERROR_FAILED with
 * QEMU's words when QEMU refuses it. Errors name the domain. */
JsonNode *monitor_execute (ctl_domain_t *domain, const char *command, JsonObject *arguments, GError **error);

/* Whether QEMU has a device, or a chardev, of this id. */
gboolean monitor_has_device (ctl_domain_t *domain, const char *id, gboolean *ret_has, GError **error);
gboolean monitor_has_chardev (ctl_domain_t *domain, const char *id, gboolean *ret_has, GError **error);

#endif
