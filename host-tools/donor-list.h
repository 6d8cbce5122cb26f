/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `domybsctl donor add`, `list` and `remove`: the neighbours that this host's VMs may borrow from (host/donors.h). */
#ifndef DOMYBS_HOST_TOOLS_DONOR_LIST_H
#define DOMYBS_HOST_TOOLS_DONOR_LIST_H

#include "ctl/ctl.h"
#include "host/donors.h"

gboolean donor_list_add (Ctl *ctl, const HostDonor *donor, GError **error);
gboolean donor_list_remove (Ctl *ctl, const char *name, int wait_s, GError **error);
gboolean donor_list_show (Ctl *ctl, GError **error);

#endif
