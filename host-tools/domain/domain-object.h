/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Objects in a domain's XML: a read-only disk of each (domain-disk.h), with its name in the alias. */
#ifndef DOMYBS_HOST_TOOLS_DOMAIN_OBJECT_H
#define DOMYBS_HOST_TOOLS_DOMAIN_OBJECT_H

#include "domain-xml.h"
#include "domain.h"

/* Adds the disk of an object; folder: where its socket will be. Returns its name in the VM ("vdb"), and its text (may be NULL).
 * The domain has <devices>. */
char *domain_object_add (DomainXml *xml, const char *name, const char *folder, char **ret_text);

/* The objects that have a disk, whatever the metadata says; what is beyond DOMAIN_OBJECTS_MAX is left out. */
void domain_object_disks (const DomainXml *xml, DomainObjects *ret_objects);

/* Removes the disks of these objects, with their ports as in domain_disks_remove. Returns how many. */
unsigned domain_object_remove (DomainXml *xml, const DomainObjects *objects, unsigned last_bus);

/* All that matters of the disks, in one text. */
char *domain_object_summary (const DomainXml *xml);

#endif
