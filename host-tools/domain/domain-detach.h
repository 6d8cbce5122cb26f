/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef DOMYBS_HOST_TOOLS_DOMAIN_DETACH_H
#define DOMYBS_HOST_TOOLS_DOMAIN_DETACH_H

#include "domain-xml.h"

/* Whether there is anything of ours: metadata, arguments or disks with our ids. */
gboolean domain_is_attached (const DomainXml *xml);

/* Takes back what attach did; changes may be NULL. FALSE (CTL_ERROR_REFUSED) when the metadata is damaged. */
gboolean domain_undo (DomainXml *xml, GPtrArray *changes, GError **error);

#endif
