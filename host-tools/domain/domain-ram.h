/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the XML says about the VM's own memory. */
#ifndef DOMYBS_HOST_TOOLS_DOMAIN_RAM_H
#define DOMYBS_HOST_TOOLS_DOMAIN_RAM_H

#include "domain-xml.h"

/* vhost-user's memory table without the CONFIGURE_MEM_SLOTS feature, which makes QEMU crash at a reboot of the guest. */
#define DOMAIN_RAM_REGIONS_MAX 8

/* The first <cell> of <cpu><numa>; the others are domain_xml_next's. */
xmlNode *domain_first_cell (const DomainXml *xml);

/* Boot memory in bytes: that of the cells where there are any, else of <memory>. FALSE when it can't be understood. */
gboolean domain_boot_memory (const DomainXml *xml, guint64 *ret_bytes);

/* How many regions of vhost-user's memory table the VM takes for its own RAM, and (may be NULL) of what they are. */
unsigned domain_ram_regions (const DomainXml *xml, char **ret_how);

/* Whether other processes can map all of the VM's memory; if not, *ret_why (may be NULL) says where it is said. */
gboolean domain_memory_is_shared (const DomainXml *xml, char **ret_why);

/* What needs shared memory besides us ("<filesystem> at line 40"), or NULL. */
char *domain_memory_sharer (const DomainXml *xml);

#endif
