/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Our element in <metadata>: what is attached, and what attach had to change in the rest of the XML. */
#ifndef DOMYBS_HOST_TOOLS_DOMAIN_METADATA_H
#define DOMYBS_HOST_TOOLS_DOMAIN_METADATA_H

#include "domain-xml.h"
#include "domain.h"

/* What attach added or changed. The order is that in which it did so; detach goes backwards. */
typedef enum {
  DOMAIN_ADDED_MEMORY_BACKING, /* <memoryBacking> */
  DOMAIN_ADDED_SOURCE,         /* its <source>; was: its type before, if there was one */
  DOMAIN_ADDED_ACCESS,         /* its <access>; was: its mode before */
  DOMAIN_ADDED_MEM_ACCESS,     /* memAccess of a NUMA cell; was: before */
  DOMAIN_ADDED_CPU,            /* <cpu> */
  DOMAIN_ADDED_NUMA,           /* its <numa> */
  DOMAIN_ADDED_CELL,           /* its <cell id='0'> */
  DOMAIN_ADDED_XMLNS,          /* the prefix of <qemu:commandline> at the root */
  DOMAIN_ADDED_COMMANDLINE,    /* <qemu:commandline> */
  DOMAIN_ADDED_METADATA,       /* <metadata> */
  DOMAIN_ADDED_KINDS,
} DomainAddedKind;

typedef struct {
  gboolean done[DOMAIN_ADDED_KINDS];
  gboolean source_was_anonymous; /* else there was none */
  gboolean access_was_private;   /* else there was none */
  GArray *private_cells;         /* of unsigned: NUMA cells whose memAccess was private; NULL is none */
} DomainAdded;

void domain_added_clear (DomainAdded *added);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (DomainAdded, domain_added_clear)

/* All of it. */
typedef struct {
  gboolean have_memory;
  DomainMemory memory; /* numa_node −1 where there is none */
  DomainFar far;       /* domain_far_is_none: there are none */
  unsigned last_bus;   /* with far disks: the highest PCI controller before they were added */
  DomainObjects objects;
  unsigned objects_last_bus; /* with objects: the same */
  DomainAdded added;
} DomainRecord;

#define DOMAIN_RECORD_NONE ((DomainRecord){ .memory = { .numa_node = -1 } })
void domain_record_clear (DomainRecord *record);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (DomainRecord, domain_record_clear)

/* Nothing is attached. */
gboolean domain_record_is_none (const DomainRecord *record);

/* Our element, or NULL. */
xmlNode *domain_metadata_node (const DomainXml *xml);

/* The record, which is to be DOMAIN_RECORD_NONE before. FALSE without error: there is no element. FALSE with CTL_ERROR_REFUSED:
 * it says something that attach never wrote. */
gboolean domain_metadata_read (const DomainXml *xml, DomainRecord *ret_record, GError **error);

/* The element's text. with_namespace FALSE: without prefix and xmlns, as virDomainSetMetadata wants it. */
char *domain_metadata_format (const DomainRecord *record, gboolean with_namespace);

#endif
