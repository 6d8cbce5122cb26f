/* SPDX-License-Identifier: GPL-2.0-or-later */
/* <qemu:commandline>: the arguments that libvirt appends to QEMU's command line, ours and other people's. */
#ifndef DOMYBS_HOST_TOOLS_DOMAIN_ARGS_H
#define DOMYBS_HOST_TOOLS_DOMAIN_ARGS_H

#include "domain-xml.h"

#define DOMAIN_QEMU_URI "http://libvirt.org/schemas/domain/qemu/1.0"

typedef struct {
  xmlNode *node;
  char *value; /* "" where the attribute is missing */
} DomainArg;

/* All <qemu:arg> in their order; the array owns its entries (DomainArg *). */
GPtrArray *domain_args (const DomainXml *xml);

guint domain_args_count (const DomainXml *xml);

/* The value of a key in QEMU's own syntax (a,b=c,d=e; a doubled comma is one comma), or NULL. With key NULL: the first word. */
char *domain_arg_value (const char *arg, const char *key);

/* Whether `value`, the argument behind `option` (NULL: none), is one that attach made: it has one of our ids, or it is about
 * the NUMA node numa_node (-1: none). */
gboolean domain_arg_is_ours (const char *option, const char *value, int numa_node);

/* Whether some argument has one of our ids. */
gboolean domain_args_have_ours (GPtrArray *args);

/* The NUMA node that our initiator is for, or -1. */
int domain_args_numa_node (GPtrArray *args);

/* The option before args[i] ("-device" where it is written "--device"), or NULL. */
const char *domain_args_option (GPtrArray *args, guint i);

#endif
