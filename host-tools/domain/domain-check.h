/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the device can't be attached to, and why. All: CTL_ERROR_REFUSED with the way out. */
#ifndef DOMYBS_HOST_TOOLS_DOMAIN_CHECK_H
#define DOMYBS_HOST_TOOLS_DOMAIN_CHECK_H

#include "domain-xml.h"
#include "domain.h"

/* The options alone. */
gboolean domain_check_options (const DomainAttachOptions *options, GError **error);

/* A domain to which nothing is attached. */
gboolean domain_check_attachable (const DomainXml *xml, const DomainAttachOptions *options, const DomainHost *host,
                                  GError **error);

/* What rules the device out whether it is plugged before or after the start: a device that pins memory, locked memory, … */
gboolean domain_check_neighbours (const DomainXml *xml, GError **error);

/* The same for far disks: memory that can't be shared, far disks that are there already. */
gboolean domain_check_far_neighbours (const DomainXml *xml, GError **error);
/* … and for objects, of which there may be others. */
gboolean domain_check_object_neighbours (const DomainXml *xml, GError **error);

/* Whether vhost-user has room for its regions of memory, and for a window beside them. */
gboolean domain_check_regions (const DomainXml *xml, gboolean window, GError **error);

/* The room that the hidden port keeps for a window: twice its size, since firmware aligns a port's range to what is plugged in
 * at boot, and a window must begin at a multiple of its own size. */
guint64 domain_port_room (guint64 window_bytes);

/* A size as people read it: "64 GiB". To be freed. */
char *domain_size_text (guint64 bytes);

#endif
