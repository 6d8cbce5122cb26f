/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Far disks in a domain's XML (domain-disk.h). */
#ifndef DOMYBS_HOST_TOOLS_DOMAIN_FAR_H
#define DOMYBS_HOST_TOOLS_DOMAIN_FAR_H

#include "domain-xml.h"
#include "domain.h"

/* The disk of a tier, or NULL. */
xmlNode *domain_far_disk (const DomainXml *xml, DomainFarTier tier);
gboolean domain_far_has_disks (const DomainXml *xml);

/* Adds the disks; folder: where their sockets will be. Their names in the VM and their texts are appended to targets and texts
 * (of strings, may be NULL). FALSE: there are no <devices> to add them to. */
gboolean domain_far_add (DomainXml *xml, const DomainFar *far, const char *folder, GPtrArray *targets, GPtrArray *texts);

/* Removes the disks, and PCI ports higher than last_bus that libvirt added for them and nothing else uses. Returns how many
 * disks. */
unsigned domain_far_remove (DomainXml *xml, unsigned last_bus);

/* All that matters of the disks, in one text. */
char *domain_far_summary (const DomainXml *xml);

#endif
