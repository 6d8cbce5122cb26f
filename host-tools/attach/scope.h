/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which side of a domain a command changes: the running VM, its configuration, or both. As for virsh, but without a flag it is
 * all there is. */
#ifndef DOMYBS_HOST_TOOLS_SCOPE_H
#define DOMYBS_HOST_TOOLS_SCOPE_H

#include "ctl/ctl.h"

typedef struct {
  gboolean live, config;
  gboolean live_asked; /* by --live: it must be possible then */
  gboolean running, persistent;
} Scope;

/* Only the system's libvirt has the hook that starts back-ends. CTL_ERROR_REFUSED for qemu:///session and qemu:///embed. */
gboolean scope_is_system (ctl_connect_t *connection, GError **error);

/* The flags as they were given. CTL_ERROR_REFUSED for --live without a running VM and --config for a transient one. */
gboolean scope_choose (ctl_domain_t *domain, gboolean live, gboolean config, Scope *ret_scope, GError **error);

/* The middle of a message "domain 'LABEL': cause; next step". */
char *scope_cause (const char *label, const GError *error);

#endif
