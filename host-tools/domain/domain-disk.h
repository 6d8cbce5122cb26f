/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Our disks in a domain's XML: <disk type='vhostuser'>, which libvirt knows natively. They are known again by their aliases
 * ("ua-domybs-…", of which libvirt leaves alone what begins with "ua-").
 *
 * A disk needs a PCI bus of its own on PCI Express machines. libvirt chooses it, and where none is free it adds a root port.
 * Such a port is recognised by its number, which is higher than any that was there at attach, and is taken back with its disk.
 */
#ifndef DOMYBS_HOST_TOOLS_DOMAIN_DISK_H
#define DOMYBS_HOST_TOOLS_DOMAIN_DISK_H

#include "domain-xml.h"

#define DOMAIN_DISK_ALIAS_PREFIX "ua-domybs-"

typedef struct {
  const char *alias;
  const char *socket_path;
  unsigned queues;
} DomainDisk;

/* The disk with that alias, or NULL. */
xmlNode *domain_disk_find (const DomainXml *xml, const char *alias);

/* As many queues as a disk gets: one for each of the VM's processors, up to DOMAIN_FAR_QUEUES_MAX. */
unsigned domain_disk_default_queues (const DomainXml *xml);

/* The number that a disk has; 0: none that can be used. */
unsigned domain_disk_queues (xmlNode *disk);

/* The highest number of a PCI controller. */
unsigned domain_disk_last_bus (const DomainXml *xml);

/* How many disks could be plugged into the running VM (its live XML): its free ports for hot plug. G_MAXUINT where libvirt
 * alone knows, as on machines without PCI Express. */
unsigned domain_disk_free_ports (const DomainXml *xml);

/* Adds a disk, behind all others, to the domain's <devices>, which there are. Returns the name that it gets ("vdb"), and its
 * text (may be NULL). */
char *domain_disk_add (DomainXml *xml, const DomainDisk *disk, char **ret_text);

/* Removes the disks of these aliases (of strings), and PCI ports higher than last_bus that libvirt added for them and nothing
 * else uses. Returns how many disks. */
unsigned domain_disks_remove (DomainXml *xml, GPtrArray *aliases, unsigned last_bus);

/* All that matters of a disk, in one line. */
void domain_disk_add_summary (xmlNode *disk, const char *name, GString *text);

#endif
