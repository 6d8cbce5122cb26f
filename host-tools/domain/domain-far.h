/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Far disks in a domain's XML: <disk type='vhostuser'>, which libvirt knows natively. They are known again by their aliases
 * ("ua-domybs-…", of which libvirt leaves alone what begins with "ua-").
 *
 * A disk needs a PCI bus of its own on PCI Express machines. libvirt chooses it, and where none is free it adds a root port.
 * Such a port is recognised by its number, which is higher than any that was there at attach, and is taken back with its disk.
 */
#ifndef DOMYBS_HOST_TOOLS_DOMAIN_FAR_H
#define DOMYBS_HOST_TOOLS_DOMAIN_FAR_H

#include "domain-xml.h"
#include "domain.h"

/* The disk of a tier, or NULL. */
xmlNode *domain_far_disk (const DomainXml *xml, DomainFarTier tier);
gboolean domain_far_has_disks (const DomainXml *xml);

/* As many queues as a disk gets: one for each of the VM's processors, up to DOMAIN_FAR_QUEUES_MAX. */
unsigned domain_far_queues (const DomainXml *xml);

/* The number that a disk has; 0: none that can be used. */
unsigned domain_far_disk_queues (xmlNode *disk);

/* The highest number of a PCI controller. */
unsigned domain_far_last_bus (const DomainXml *xml);

/* Adds the disks; folder: where their sockets will be. FALSE: there are no <devices> to add them to. */
gboolean domain_far_add (DomainXml *xml, const DomainFar *far, const char *folder, GPtrArray *targets);

/* The same, and the text of each disk is appended to texts. */
gboolean domain_far_add_texts (DomainXml *xml, const DomainFar *far, const char *folder, GPtrArray *texts);

/* How many disks could be plugged into the running VM (its live XML): its free ports for hot plug. G_MAXUINT where libvirt
 * alone knows, as on machines without PCI Express. */
unsigned domain_far_free_ports (const DomainXml *xml);

/* Removes the disks, and PCI ports higher than last_bus that libvirt added for them and nothing else uses. Returns how many
 * disks. */
unsigned domain_far_remove (DomainXml *xml, unsigned last_bus);

/* All that matters of the disks, in one text. */
char *domain_far_summary (const DomainXml *xml);

#endif
