/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Where the hidden port can go: what neither libvirt nor an argument of the user has taken. */
#ifndef DOMYBS_HOST_TOOLS_DOMAIN_SLOTS_H
#define DOMYBS_HOST_TOOLS_DOMAIN_SLOTS_H

#include "domain-xml.h"

/* Slots of pcie.0 in the order in which they are tried. libvirt fills from 0x01 upward and has fixed ones at 0x1b, 0x1d to
 * 0x1f. */
#define DOMAIN_SLOT_FIRST 0x10
#define DOMAIN_SLOT_END 0x1b

/* A free slot, or -1. leave_one: not the lowest of all that are free, where libvirt will put a port that it has to add. */
int domain_free_slot (const DomainXml *xml, gboolean leave_one);

/* A chassis number that no other port has: QEMU does not start with two the same. libvirt counts from 1, so this counts from
 * 255 down. */
unsigned domain_free_chassis (const DomainXml *xml);

#endif
