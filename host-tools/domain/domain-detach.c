/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Takes back what attach did, in the opposite order, and no more than that: what somebody has changed since is theirs. */
#include "domain-detach.h"

#include <string.h>

#include "domain-args.h"
#include "domain-far.h"
#include "domain-metadata.h"
#include "domain-object.h"
#include "domain-ram.h"
#include "domain.h"
#include "error.h"

G_GNUC_PRINTF (2, 3)
static void
tell (GPtrArray *changes, const char *format, ...) {
  va_list arguments;

  va_start (arguments, format);
  if (changes)
    g_ptr_array_add (changes, g_strdup_vprintf (format, arguments));
  va_end (arguments);
}

gboolean
domain_is_attached (const DomainXml *xml) {
  g_autoptr (GPtrArray) args = domain_args (xml);
  DomainObjects objects;

  domain_object_disks (xml, &objects);
  return domain_metadata_node (xml) || domain_args_have_ours (args) || domain_far_has_disks (xml) || objects.n;
}

/* ---- <qemu:commandline> ---- */

/* The last of our arguments; the option before it when that is still there. */
static gboolean
remove_one_argument (DomainXml *xml, int numa_node) {
  g_autoptr (GPtrArray) args = domain_args (xml);

  for (guint i = args->len; i-- > 0;) {
    const DomainArg *arg = args->pdata[i];
    const char *option = domain_args_option (args, i);

    if (!domain_arg_is_ours (option, arg->value, numa_node))
      continue;
    domain_xml_remove (xml, arg->node);
    if (option) {
      /* Removing one makes every node found before void. */
      g_autoptr (GPtrArray) rest = domain_args (xml);

      if (i <= rest->len)
        domain_xml_remove (xml, ((DomainArg *)rest->pdata[i - 1])->node);
    }
    return TRUE;
  }
  return FALSE;
}

static void
undo_arguments (DomainXml *xml, int numa_node, const DomainAdded *added, GPtrArray *changes) {
  xmlNode *commandline;
  unsigned n = 0;

  /* Bounded: an edit that fails would leave the argument where it is. */
  for (guint max = domain_args_count (xml); n < max && remove_one_argument (xml, numa_node); n++)
    ;
  if (n > 0)
    tell (changes, "takes the memory device and its hidden PCI Express port out of QEMU's command line");
  if (numa_node >= 0)
    tell (changes, "removes NUMA node %d, which was for the memory", numa_node);
  commandline = domain_xml_child_ns (domain_xml_root (xml), DOMAIN_QEMU_URI, "commandline");
  if (added->done[DOMAIN_ADDED_COMMANDLINE] && commandline && domain_xml_is_blank (commandline))
    domain_xml_remove (xml, commandline);
  if (added->done[DOMAIN_ADDED_XMLNS])
    domain_xml_undeclare (xml, "qemu", DOMAIN_QEMU_URI);
}

/* ---- NUMA cell ---- */

static void
undo_cell (DomainXml *xml, const DomainAdded *added, GPtrArray *changes) {
  xmlNode *cell = domain_first_cell (xml), *cpu, *numa;

  if (!added->done[DOMAIN_ADDED_CELL] || !cell)
    return;
  if (domain_xml_next (cell)) {
    tell (changes, "leaves NUMA cell 0, which attach made, since there are other cells now");
    return;
  }
  domain_xml_remove (xml, cell);
  tell (changes, "removes NUMA cell 0, which attach made");
  cpu = domain_xml_child (domain_xml_root (xml), "cpu");
  numa = domain_xml_child (cpu, "numa");
  if (added->done[DOMAIN_ADDED_NUMA] && numa && domain_xml_is_blank (numa))
    domain_xml_remove (xml, numa);
  cpu = domain_xml_child (domain_xml_root (xml), "cpu");
  if (added->done[DOMAIN_ADDED_CPU] && cpu && domain_xml_is_blank (cpu) && !cpu->properties)
    domain_xml_remove (xml, cpu);
}

/* ---- shared memory ---- */

static xmlNode *
backing_child (const DomainXml *xml, const char *name) {
  return domain_xml_child (domain_xml_child (domain_xml_root (xml), "memoryBacking"), name);
}

static void
undo_private_cells (DomainXml *xml, const DomainAdded *added) {
  for (guint i = 0; added->private_cells && i < added->private_cells->len; i++) {
    g_autofree char *id = g_strdup_printf ("%u", g_array_index (added->private_cells, unsigned, i));
    xmlNode *cell = domain_first_cell (xml);

    while (cell && !domain_xml_attribute_is (cell, "id", id))
      cell = domain_xml_next (cell);
    if (cell && domain_xml_attribute_is (cell, "memAccess", "shared"))
      domain_xml_set_attribute (xml, cell, "memAccess", "private");
  }
}

static void
undo_access (DomainXml *xml, const DomainAdded *added) {
  xmlNode *access = backing_child (xml, "access");

  if (!added->done[DOMAIN_ADDED_ACCESS] || !domain_xml_attribute_is (access, "mode", "shared"))
    return;
  if (added->access_was_private)
    domain_xml_set_attribute (xml, access, "mode", "private");
  else
    domain_xml_remove (xml, access);
}

static void
undo_source (DomainXml *xml, const DomainAdded *added) {
  xmlNode *source = backing_child (xml, "source");

  if (!added->done[DOMAIN_ADDED_SOURCE] || !domain_xml_attribute_is (source, "type", "memfd"))
    return;
  if (added->source_was_anonymous)
    domain_xml_set_attribute (xml, source, "type", "anonymous");
  else
    domain_xml_remove (xml, source);
}

static void
undo_backing (DomainXml *xml, const DomainAdded *added, GPtrArray *changes) {
  const gboolean did_any
      = added->done[DOMAIN_ADDED_ACCESS] || added->done[DOMAIN_ADDED_SOURCE] || added->done[DOMAIN_ADDED_MEM_ACCESS];
  g_autofree char *sharer = domain_memory_sharer (xml);
  xmlNode *backing;

  if (!did_any)
    return;
  if (sharer) {
    tell (changes, "leaves the VM's memory shared: %s needs that, too", sharer);
    return;
  }
  undo_private_cells (xml, added);
  undo_access (xml, added);
  undo_source (xml, added);
  backing = domain_xml_child (domain_xml_root (xml), "memoryBacking");
  if (added->done[DOMAIN_ADDED_MEMORY_BACKING] && backing && domain_xml_is_blank (backing))
    domain_xml_remove (xml, backing);
  tell (changes, "makes the VM's memory what it was before, not shared");
}

/* ---- all ---- */

static void
undo_metadata (DomainXml *xml, const DomainAdded *added) {
  xmlNode *node = domain_metadata_node (xml), *metadata;

  if (!node)
    return;
  domain_xml_remove (xml, node);
  metadata = domain_xml_child (domain_xml_root (xml), "metadata");
  if (added->done[DOMAIN_ADDED_METADATA] && metadata && domain_xml_is_blank (metadata))
    domain_xml_remove (xml, metadata);
}

static void
undo_far (DomainXml *xml, unsigned last_bus, GPtrArray *changes) {
  const unsigned n = domain_far_remove (xml, last_bus);

  if (n > 0)
    tell (changes, "removes %s, and PCI ports that libvirt has added for it", n == 1 ? "the far disk" : "the far disks");
}

static void
undo_objects (DomainXml *xml, const DomainObjects *objects, unsigned last_bus, GPtrArray *changes) {
  g_autofree char *names = domain_objects_text (objects, ", ");
  const unsigned n = domain_object_remove (xml, objects, last_bus);

  if (n > 0)
    tell (changes, "removes the disk%s of object%s %s, and PCI ports that libvirt has added for %s", n == 1 ? "" : "s",
          n == 1 ? "" : "s", names, n == 1 ? "it" : "them");
}

gboolean
domain_undo (DomainXml *xml, GPtrArray *changes, GError **error) {
  DomainObjects there;
  g_autoptr (GError) damage = NULL;
  g_auto (DomainRecord) record = DOMAIN_RECORD_NONE;

  if (!domain_metadata_read (xml, &record, &damage)) {
    g_autoptr (GPtrArray) args = domain_args (xml);

    if (damage) {
      g_propagate_error (error, g_steal_pointer (&damage));
      return FALSE;
    }
    record.memory.numa_node = domain_args_numa_node (args);
    record.last_bus = record.objects_last_bus = G_MAXUINT;
    tell (changes,
          "finds no record of it in <metadata>: a NUMA cell or shared memory that attach may have added stay as they are");
  }
  domain_object_disks (xml, &there);
  undo_metadata (xml, &record.added);
  undo_objects (xml, &there, record.objects.n ? record.objects_last_bus : G_MAXUINT, changes);
  undo_far (xml, record.last_bus, changes);
  undo_arguments (xml, record.memory.numa_node, &record.added, changes);
  undo_cell (xml, &record.added, changes);
  undo_backing (xml, &record.added, changes);
  return TRUE;
}

char *
domain_detach (const char *text, GPtrArray *changes, GError **error) {
  g_autoptr (DomainXml) xml = domain_xml_new (text, error);

  if (!xml)
    return NULL;
  if (!domain_is_attached (xml)) {
    g_set_error (error, CTL_ERROR, CTL_ERROR_NOT_FOUND, "nothing is attached to it; 'domybsctl attach' does that");
    return NULL;
  }
  return domain_undo (xml, changes, error) ? domain_xml_finish (xml, error) : NULL;
}

/* ---- parts ---- */

/* The objects that are to go, of those that there are. */
static void
choose_objects (const DomainParts *parts, const DomainObjects *there, DomainObjects *ret_objects) {
  DomainObjects others = *there;

  *ret_objects = *there;
  if (parts->all_objects)
    return;
  domain_objects_remove (&others, &parts->objects);
  domain_objects_remove (ret_objects, &others);
}

static void
replace_metadata (DomainXml *xml, const DomainRecord *record) {
  g_autofree char *text = domain_metadata_format (record, TRUE);

  domain_xml_insert_after (xml, domain_metadata_node (xml), text);
  domain_xml_remove (xml, domain_metadata_node (xml)); /* the first of both */
}

/* What was added for the device alone; whatever of it is left is somebody else's by now. */
static void
forget_memory (DomainRecord *record) {
  static const DomainAddedKind kinds[]
      = { DOMAIN_ADDED_CPU, DOMAIN_ADDED_NUMA, DOMAIN_ADDED_CELL, DOMAIN_ADDED_XMLNS, DOMAIN_ADDED_COMMANDLINE };

  for (gsize i = 0; i < G_N_ELEMENTS (kinds); i++)
    record->added.done[kinds[i]] = FALSE;
  record->have_memory = FALSE;
}

char *
domain_detach_parts (const char *text, const DomainParts *parts, GPtrArray *changes, GError **error) {
  g_autoptr (DomainXml) xml = domain_xml_new (text, error);
  g_auto (DomainRecord) record = DOMAIN_RECORD_NONE;
  g_autoptr (GError) damage = NULL;
  g_autoptr (GPtrArray) args = NULL;
  DomainObjects there, gone;
  gboolean has_record, has_memory, has_far;

  if (!xml)
    return NULL;
  has_record = domain_metadata_read (xml, &record, &damage);
  if (damage) {
    g_propagate_error (error, g_steal_pointer (&damage));
    return NULL;
  }
  args = domain_args (xml);
  has_memory = record.have_memory || domain_args_have_ours (args);
  has_far = !domain_far_is_none (&record.far) || domain_far_has_disks (xml);
  domain_object_disks (xml, &there);
  for (unsigned i = 0; i < record.objects.n; i++)
    domain_objects_add (&there, record.objects.items[i].name);
  choose_objects (parts, &there, &gone);
  if (!(parts->memory && has_memory) && !(parts->far && has_far) && !gone.n) {
    g_set_error (error, CTL_ERROR, CTL_ERROR_NOT_FOUND, "nothing of that is attached to it; 'domybsctl attach' does that");
    return NULL;
  }
  if ((parts->memory || !has_memory) && (parts->far || !has_far) && gone.n == there.n)
    return domain_undo (xml, changes, error) ? domain_xml_finish (xml, error) : NULL;
  undo_objects (xml, &gone, record.objects.n ? record.objects_last_bus : G_MAXUINT, changes);
  domain_objects_remove (&record.objects, &gone);
  if (parts->far) {
    undo_far (xml, domain_far_is_none (&record.far) ? G_MAXUINT : record.last_bus, changes);
    domain_far_clear (&record.far);
  }
  if (parts->memory) {
    if (!has_record)
      record.memory.numa_node = domain_args_numa_node (args);
    undo_arguments (xml, record.memory.numa_node, &record.added, changes);
    undo_cell (xml, &record.added, changes);
    forget_memory (&record);
  }
  if (has_record)
    replace_metadata (xml, &record);
  return domain_xml_finish (xml, error);
}
