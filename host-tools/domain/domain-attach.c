/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Attaching is: take back what an earlier attach did, then do all of it on what remains. So a second attach with other options
 * is an update, one after somebody's edits is a repair, and one that would make the same is none.
 */
#include <string.h>

#include "domain-args.h"
#include "domain-check.h"
#include "domain-disk.h"
#include "domain-detach.h"
#include "domain-far.h"
#include "domain-metadata.h"
#include "domain-object.h"
#include "domain-ram.h"
#include "domain-slots.h"
#include "domain.h"
#include "error.h"

typedef struct {
  DomainXml *xml;
  const DomainAttachOptions *options;
  const char *socket_path;
  GPtrArray *changes; /* may be NULL */
  DomainRecord record;
} Attach;

G_GNUC_PRINTF (2, 3)
static void
tell (Attach *attach, const char *format, ...) {
  va_list arguments;

  va_start (arguments, format);
  if (attach->changes)
    g_ptr_array_add (attach->changes, g_strdup_vprintf (format, arguments));
  va_end (arguments);
}

/* The last child of <domain> among those that libvirt writes before an element: where to put that one. */
static xmlNode *
place_after (const DomainXml *xml, const char *const *names) {
  xmlNode *root = domain_xml_root (xml), *place = NULL;

  for (; *names; names++) {
    for (xmlNode *node = domain_xml_child (root, *names); node; node = domain_xml_next (node))
      place = node;
  }
  return place;
}

static void
add_to_domain (Attach *attach, const char *const *names, const char *fragment) {
  xmlNode *place = place_after (attach->xml, names);

  if (place)
    domain_xml_insert_after (attach->xml, place, fragment);
  else
    domain_xml_append (attach->xml, domain_xml_root (attach->xml), fragment);
}

/* ---- shared memory ---- */

static xmlNode *
backing_child (Attach *attach, const char *name) {
  return domain_xml_child (domain_xml_child (domain_xml_root (attach->xml), "memoryBacking"), name);
}

static void
share_backing (Attach *attach) {
  static const char *const before[] = { "name", "memory", "currentMemory", "blkiotune", "memtune", NULL };
  DomainXml *xml = attach->xml;
  xmlNode *backing = domain_xml_child (domain_xml_root (xml), "memoryBacking"), *source = backing_child (attach, "source"),
          *access;

  if (!backing) {
    add_to_domain (attach, before, "<memoryBacking>\n  <source type='memfd'/>\n  <access mode='shared'/>\n</memoryBacking>");
    attach->record.added.done[DOMAIN_ADDED_MEMORY_BACKING] = attach->record.added.done[DOMAIN_ADDED_SOURCE]
        = attach->record.added.done[DOMAIN_ADDED_ACCESS] = TRUE;
    return;
  }
  if (!source) {
    domain_xml_append (xml, backing, "<source type='memfd'/>");
    attach->record.added.done[DOMAIN_ADDED_SOURCE] = TRUE;
  } else if (domain_xml_attribute_is (source, "type", "anonymous")) {
    domain_xml_set_attribute (xml, source, "type", "memfd");
    attach->record.added.done[DOMAIN_ADDED_SOURCE] = attach->record.added.source_was_anonymous = TRUE;
  }
  access = backing_child (attach, "access");
  if (!access) {
    domain_xml_insert_after (xml, backing_child (attach, "source"), "<access mode='shared'/>");
    attach->record.added.done[DOMAIN_ADDED_ACCESS] = TRUE;
  } else if (domain_xml_attribute_is (access, "mode", "private")) {
    domain_xml_set_attribute (xml, access, "mode", "shared");
    attach->record.added.done[DOMAIN_ADDED_ACCESS] = attach->record.added.access_was_private = TRUE;
  }
}

static void
share_cells (Attach *attach) {
  guint64 id;

  for (guint64 i = 0; i < DOMAIN_NUMA_NODES_MAX; i++) {
    xmlNode *cell = domain_first_cell (attach->xml);

    for (guint64 skip = i; cell && skip > 0; skip--)
      cell = domain_xml_next (cell);
    if (!cell)
      return;
    g_autofree char *text = domain_xml_attribute (cell, "id");

    if (!domain_xml_attribute_is (cell, "memAccess", "private") || !domain_xml_number (text, 0, DOMAIN_NUMA_NODES_MAX - 1, &id))
      continue;
    domain_xml_set_attribute (attach->xml, cell, "memAccess", "shared");
    if (!attach->record.added.private_cells)
      attach->record.added.private_cells = g_array_new (FALSE, FALSE, sizeof (unsigned));
    g_array_append_val (attach->record.added.private_cells, (unsigned){ (unsigned)id });
    attach->record.added.done[DOMAIN_ADDED_MEM_ACCESS] = TRUE;
  }
}

static gboolean
share_memory (Attach *attach, GError **error) {
  g_autofree char *why = NULL;

  if (domain_memory_is_shared (attach->xml, NULL))
    return TRUE;
  share_backing (attach);
  share_cells (attach);
  if (!domain_xml_check (attach->xml, error))
    return FALSE;
  if (!domain_memory_is_shared (attach->xml, &why)) {
    g_set_error (error, CTL_ERROR, CTL_ERROR_REFUSED, "its memory can't be made shared: %s; correct <memoryBacking>", why);
    return FALSE;
  }
  tell (attach, "makes the VM's memory shared (memfd), so that the device's back-end can map it");
  return TRUE;
}

/* ---- NUMA node ---- */

static unsigned
count_cells (const DomainXml *xml) {
  unsigned n = 0;

  for (xmlNode *cell = domain_first_cell (xml); cell; cell = domain_xml_next (cell))
    n++;
  return n;
}

/* One cell with all vCPUs and all memory. From then on libvirt takes the VM's memory from it. */
static gboolean
add_cell (Attach *attach) {
  static const char *const before[]
      = { "name",    "memory",   "currentMemory", "memoryBacking", "vcpu", "vcpus",    "iothreads",
          "cputune", "numatune", "resource",      "sysinfo",       "os",   "features", NULL };
  DomainXml *xml = attach->xml;
  xmlNode *root = domain_xml_root (xml), *memory = domain_xml_child (root, "memory"), *cpu = domain_xml_child (root, "cpu"),
          *numa = domain_xml_child (cpu, "numa");
  g_autofree char *vcpu = domain_xml_content (domain_xml_child (root, "vcpu")), *size = domain_xml_content (memory),
                  *unit = domain_xml_attribute (memory, "unit"), *cell = NULL, *whole = NULL;
  guint64 vcpus = 1, bytes;

  if ((vcpu && !domain_xml_number (vcpu, 1, G_MAXUINT16, &vcpus)) || !domain_xml_size (size, unit, &bytes))
    return FALSE;
  cell = vcpus == 1 ? g_markup_printf_escaped ("<cell id='0' cpus='0' memory='%s' unit='%s'/>", size, unit ? unit : "KiB")
                    : g_markup_printf_escaped ("<cell id='0' cpus='0-%" G_GUINT64_FORMAT "' memory='%s' unit='%s'/>", vcpus - 1,
                                               size, unit ? unit : "KiB");
  if (numa)
    domain_xml_append (xml, numa, cell);
  else if (cpu)
    domain_xml_append (xml, cpu, (whole = g_strdup_printf ("<numa>\n  %s\n</numa>", cell)));
  else
    add_to_domain (attach, before, (whole = g_strdup_printf ("<cpu>\n  <numa>\n    %s\n  </numa>\n</cpu>", cell)));
  attach->record.added.done[DOMAIN_ADDED_CELL] = TRUE;
  attach->record.added.done[DOMAIN_ADDED_NUMA] = !numa;
  attach->record.added.done[DOMAIN_ADDED_CPU] = !cpu;
  tell (attach, "puts all vCPUs and all memory of the VM into NUMA cell 0; until detach libvirt takes the VM's memory size "
                "from there, and lets the number of vCPUs only grow");
  return TRUE;
}

/* Why the VM can't get one more NUMA node on QEMU's command line, or NULL. */
static const char *
why_no_node (Attach *attach) {
  g_autoptr (GPtrArray) args = domain_args (attach->xml);
  xmlNode *devices = domain_xml_child (domain_xml_root (attach->xml), "devices");

  for (guint i = 0; i < args->len; i++)
    if (g_strcmp0 (domain_args_option (args, i), "-numa") == 0)
      return "its <qemu:commandline> has NUMA nodes of its own";
  if (count_cells (attach->xml) == 0 && domain_xml_child (devices, "memory"))
    return "it has <memory> devices but no NUMA cell";
  if (count_cells (attach->xml) >= DOMAIN_NUMA_NODES_MAX)
    return "it has as many nodes as QEMU can have";
  return NULL;
}

static void
choose_node (Attach *attach) {
  const char *why = why_no_node (attach);

  if (!attach->options->own_node)
    return;
  if (!why && count_cells (attach->xml) == 0 && !add_cell (attach))
    why = "its <vcpu> or <memory> can't be understood";
  if (why)
    tell (attach, "gives the memory no NUMA node of its own: %s", why);
  else
    attach->record.memory.numa_node = (int)count_cells (attach->xml);
}

/* With HMAT (interconnects, caches) QEMU wants to know of each node whose processors reach it first. */
static char *
node_argument (Attach *attach) {
  xmlNode *numa = domain_first_cell (attach->xml)->parent, *cell = domain_first_cell (attach->xml);
  gboolean has_hmat = domain_xml_child (numa, "interconnects") != NULL, has_near = FALSE;
  guint64 near_cell = 0;

  for (; cell; cell = domain_xml_next (cell)) {
    g_autofree char *cpus = domain_xml_attribute (cell, "cpus"), *id = domain_xml_attribute (cell, "id");

    has_hmat |= domain_xml_child (cell, "cache") != NULL;
    if (!has_near && cpus && *cpus)
      has_near = domain_xml_number (id, 0, DOMAIN_NUMA_NODES_MAX - 1, &near_cell);
  }
  if (has_hmat)
    return g_strdup_printf ("node,nodeid=%d,initiator=%" G_GUINT64_FORMAT, attach->record.memory.numa_node, near_cell);
  return g_strdup_printf ("node,nodeid=%d", attach->record.memory.numa_node);
}

/* The largest distance between any two cells; 0 where none is given. */
static guint64
largest_distance (Attach *attach) {
  guint64 largest = 0, value;

  for (xmlNode *cell = domain_first_cell (attach->xml); cell; cell = domain_xml_next (cell)) {
    xmlNode *sibling = domain_xml_child (domain_xml_child (cell, "distances"), "sibling");

    for (; sibling; sibling = domain_xml_next (sibling)) {
      g_autofree char *text = domain_xml_attribute (sibling, "value");

      if (domain_xml_number (text, 10, 254, &value))
        largest = MAX (largest, value);
    }
  }
  return largest;
}

/* ---- QEMU's command line ---- */

/* An option and its argument. */
G_GNUC_PRINTF (4, 5)
static void
add_argument (GString *text, const char *prefix, const char *option, const char *format, ...) {
  g_autofree char *argument = NULL, *markup = NULL;
  va_list arguments;

  va_start (arguments, format);
  argument = g_strdup_vprintf (format, arguments);
  va_end (arguments);
  markup = g_markup_printf_escaped ("<%sarg value='%s'/>\n<%sarg value='%s'/>", prefix, option, prefix, argument);
  g_string_append_printf (text, "%s%s", text->len ? "\n" : "", markup);
}

static char *
double_commas (const char *text) {
  g_auto (GStrv) parts = g_strsplit (text, ",", -1);

  return g_strjoinv (",,", parts);
}

static char *
our_arguments (Attach *attach, const char *prefix, int slot) {
  const int node = attach->record.memory.numa_node;
  const guint64 distance = largest_distance (attach);
  g_autofree char *path = double_commas (attach->socket_path), *node_text = node >= 0 ? node_argument (attach) : NULL;
  GString *text = g_string_new (NULL);

  add_argument (text, prefix, "-device",
                "pcie-root-port,id=" DOMAIN_PORT_ID
                ",bus=pcie.0,addr=0x%x,port=0x%x,chassis=%u,pref64-reserve=%" G_GUINT64_FORMAT "G",
                (unsigned)slot, (unsigned)slot << 3, domain_free_chassis (attach->xml),
                domain_port_room (attach->record.memory.window_bytes) >> 30);
  add_argument (text, prefix, "-chardev", "socket,id=" DOMAIN_CHARDEV_ID ",path=%s", path);
  add_argument (text, prefix, "-device",
                DOMAIN_DEVICE_DRIVER ",id=" DOMAIN_DEVICE_ID ",bus=" DOMAIN_PORT_ID ",chardev=" DOMAIN_CHARDEV_ID
                                     ",virtio-id=%d,num_vqs=%d,config_size=%d",
                DOMAIN_DEVICE_VIRTIO_ID, DOMAIN_DEVICE_QUEUES, DOMAIN_DEVICE_CONFIG_BYTES);
  if (node >= 0) {
    add_argument (text, prefix, "-numa", "%s", node_text);
    /* QEMU wants either no distances or all of them. */
    for (int other = 0; distance > 0 && other < node; other++) {
      add_argument (text, prefix, "-numa", "dist,src=%d,dst=%d,val=%" G_GUINT64_FORMAT, other, node, MAX (20, distance));
      add_argument (text, prefix, "-numa", "dist,src=%d,dst=%d,val=%" G_GUINT64_FORMAT, node, other, MAX (20, distance));
    }
    add_argument (text, prefix, "-object",
                  "acpi-generic-initiator,id=" DOMAIN_INITIATOR_ID ",pci-dev=" DOMAIN_INITIATOR_PCI_ID ",node=%d", node);
  }
  return g_string_free (text, FALSE);
}

/* The prefix ("qemu:") that <qemu:commandline> has, or will have. */
static char *
choose_prefix (Attach *attach) {
  xmlNode *root = domain_xml_root (attach->xml), *commandline = domain_xml_child_ns (root, DOMAIN_QEMU_URI, "commandline");
  xmlNs *ns = commandline ? commandline->ns : xmlSearchNsByHref (root->doc, root, (const xmlChar *)DOMAIN_QEMU_URI);

  if (!ns && !xmlSearchNs (root->doc, root, (const xmlChar *)"qemu")) {
    domain_xml_declare (attach->xml, "qemu", DOMAIN_QEMU_URI);
    attach->record.added.done[DOMAIN_ADDED_XMLNS] = TRUE;
    return g_strdup ("qemu:");
  }
  if (!ns)
    return NULL;
  return ns->prefix ? g_strconcat ((const char *)ns->prefix, ":", NULL) : g_strdup ("");
}

/* Behind all that is libvirt's own, before <qemu:capabilities> and its like. */
static void
add_commandline (Attach *attach, const char *fragment) {
  xmlNode *root = domain_xml_root (attach->xml), *last = domain_xml_last_child (root);

  while (last && (last->type != XML_ELEMENT_NODE || last->ns))
    last = last->prev;
  if (last)
    domain_xml_insert_after (attach->xml, last, fragment);
  else
    domain_xml_append (attach->xml, root, fragment);
}

static gboolean
add_arguments (Attach *attach, GError **error) {
  g_autofree char *prefix = choose_prefix (attach), *arguments = NULL, *whole = NULL,
                  *room = domain_size_text (domain_port_room (attach->record.memory.window_bytes));
  const int slot = domain_free_slot (attach->xml, attach->options->far || attach->options->objects);
  xmlNode *commandline, *last = NULL;

  if (slot < 0) {
    g_set_error (
        error, CTL_ERROR, CTL_ERROR_REFUSED,
        "its PCI Express slots 0x%x to 0x%x are all taken, and the device's port needs one; move a device to another slot",
        DOMAIN_SLOT_FIRST, DOMAIN_SLOT_END - 1);
    return FALSE;
  }
  if (!prefix) {
    g_set_error (error, CTL_ERROR, CTL_ERROR_REFUSED, "the XML uses the prefix 'qemu' for another namespace than %s; rename it",
                 DOMAIN_QEMU_URI);
    return FALSE;
  }
  arguments = our_arguments (attach, prefix, slot);
  commandline = domain_xml_child_ns (domain_xml_root (attach->xml), DOMAIN_QEMU_URI, "commandline");
  for (xmlNode *arg = domain_xml_child_ns (commandline, DOMAIN_QEMU_URI, "arg"); arg; arg = domain_xml_next (arg))
    last = arg;
  if (last) {
    domain_xml_insert_after (attach->xml, last, arguments);
  } else if (commandline) {
    domain_xml_append (attach->xml, commandline, arguments);
  } else {
    g_auto (GStrv) lines = g_strsplit (arguments, "\n", -1);
    g_autofree char *inner = g_strjoinv ("\n  ", lines);

    whole = g_strdup_printf ("<%scommandline>\n  %s\n</%scommandline>", prefix, inner, prefix);
    add_commandline (attach, whole);
    attach->record.added.done[DOMAIN_ADDED_COMMANDLINE] = TRUE;
  }
  tell (attach,
        "adds a hidden PCI Express port in slot 0x%x with room for %s, and the memory device in it; a VM that has it can't be "
        "migrated or saved while it runs",
        (unsigned)slot, room);
  if (attach->record.memory.numa_node >= 0)
    tell (attach, "adds NUMA node %d for the memory", attach->record.memory.numa_node);
  return TRUE;
}

/* ---- far disks ---- */

static gboolean
add_far_disks (Attach *attach, GError **error) {
  const DomainFar *far = attach->options->far;
  g_autoptr (GPtrArray) targets = g_ptr_array_new_with_free_func (g_free);
  g_autofree char *folder = g_path_get_dirname (attach->socket_path);
  DomainRecord *record = &attach->record;
  guint i = 0;

  record->last_bus = domain_disk_last_bus (attach->xml);
  record->far.storage = g_strdup (far->storage);
  record->far.compress = far->compress;
  record->far.wear_bytes = far->wear_bytes;
  record->far.protection = far->protection;
  for (DomainFarTier tier = 0; tier < DOMAIN_FAR_TIERS; tier++)
    record->far.bytes[tier] = far->bytes[tier];
  domain_far_add (attach->xml, far, folder, targets, NULL);
  if (!domain_xml_check (attach->xml, error))
    return FALSE;
  for (DomainFarTier tier = 0; tier < DOMAIN_FAR_TIERS; tier++) {
    g_autofree char *size = domain_size_text (far->bytes[tier]);

    if (far->bytes[tier])
      tell (attach, "adds the far disk '%s' of %s as %s, stored in %s", domain_far_tier_name (tier), size,
            (const char *)targets->pdata[i++], far->storage);
  }
  return TRUE;
}

/* ---- objects ---- */

static gboolean
add_objects (Attach *attach, GError **error) {
  const DomainObjects *objects = attach->options->objects;
  g_autofree char *folder = g_path_get_dirname (attach->socket_path);

  attach->record.objects = *objects;
  /* Far disks that were just added have no place yet, so it is theirs, too. */
  attach->record.objects_last_bus = domain_disk_last_bus (attach->xml);
  for (unsigned i = 0; i < objects->n; i++) {
    g_autofree char *target = domain_object_add (attach->xml, objects->items[i].name, folder, NULL);

    tell (attach, "adds the object '%s' as %s, read-only", objects->items[i].name, target);
  }
  return domain_xml_check (attach->xml, error);
}

/* ---- metadata ---- */

static void
add_metadata (Attach *attach) {
  static const char *const before[] = { "name", "uuid", "genid", "title", "description", NULL };
  xmlNode *metadata = domain_xml_child (domain_xml_root (attach->xml), "metadata");
  g_autofree char *text = NULL, *whole = NULL;

  attach->record.added.done[DOMAIN_ADDED_METADATA] = !metadata;
  text = domain_metadata_format (&attach->record, TRUE);
  if (metadata) {
    domain_xml_append (attach->xml, metadata, text);
  } else {
    g_auto (GStrv) lines = g_strsplit (text, "\n", -1);
    g_autofree char *inner = g_strjoinv ("\n  ", lines);

    whole = g_strdup_printf ("<metadata>\n  %s\n</metadata>", inner);
    add_to_domain (attach, before, whole);
  }
}

/* ---- all ---- */

static gboolean
attach_anew (Attach *attach, const DomainHost *host, GError **error) {
  if (!domain_check_attachable (attach->xml, attach->options, host, error) || !share_memory (attach, error))
    return FALSE;
  if (attach->options->window_bytes) {
    choose_node (attach);
    /* What comes now looks at what was added */
    if (!domain_xml_check (attach->xml, error) || !add_arguments (attach, error))
      return FALSE;
  }
  if ((attach->options->far && !add_far_disks (attach, error)) || (attach->options->objects && !add_objects (attach, error)))
    return FALSE;
  add_metadata (attach);
  return TRUE;
}

/* All that matters of what is attached, in one text: two XMLs with the same one need no change into each other. */
static char *
summary (const DomainXml *xml) {
  g_autoptr (GPtrArray) args = domain_args (xml);
  g_auto (DomainRecord) record = DOMAIN_RECORD_NONE;
  g_autofree char *disks = domain_far_summary (xml), *objects = domain_object_summary (xml), *text_of_record = NULL;
  GString *text = g_string_new (NULL);
  const gboolean has_record = domain_metadata_read (xml, &record, NULL);

  domain_added_clear (&record.added);
  memset (&record.added, 0, sizeof record.added);
  record.last_bus = record.objects_last_bus = 0;
  text_of_record = domain_metadata_format (&record, TRUE);
  g_string_append_printf (text, "%d %s\n%d %d\n%s%s", has_record, text_of_record, domain_memory_is_shared (xml, NULL),
                          count_cells (xml), disks, objects);
  for (guint i = 0; i < args->len; i++) {
    const char *option = domain_args_option (args, i), *value = ((DomainArg *)args->pdata[i])->value;

    if (domain_arg_is_ours (option, value, record.memory.numa_node))
      g_string_append_printf (text, "%s %s\n", option ? option : "", value);
  }
  return g_string_free (text, FALSE);
}

char *
domain_attach (const char *text, const DomainAttachOptions *options, const DomainHost *host, const char *socket_path,
               GPtrArray *changes, GError **error) {
  g_autoptr (DomainXml) xml = NULL;
  g_autoptr (GPtrArray) new_changes = g_ptr_array_new_with_free_func (g_free);
  g_autofree char *before = NULL, *after = NULL;
  Attach attach = {
    .options = options,
    .socket_path = socket_path,
    .changes = new_changes,
    .record = DOMAIN_RECORD_NONE,
  };
  gboolean ok;

  if (options->window_bytes) {
    attach.record.have_memory = TRUE;
    attach.record.memory = (DomainMemory){ options->window_bytes, options->local_max_bytes, options->populate, -1, TRUE };
  }
  if (!domain_check_options (options, error) || !(xml = domain_xml_new (text, error)))
    return NULL;
  if (domain_metadata_node (xml)) {
    before = summary (xml);
    if (!domain_undo (xml, NULL, error))
      return NULL;
    g_ptr_array_add (new_changes, g_strdup ("replaces what is attached"));
  }
  attach.xml = xml;
  ok = attach_anew (&attach, host, error);
  domain_record_clear (&attach.record);
  if (!ok)
    return NULL;
  after = summary (xml);
  if (g_strcmp0 (before, after) == 0)
    return g_strdup (text);
  for (guint i = 0; changes && i < new_changes->len; i++)
    g_ptr_array_add (changes, g_strdup (new_changes->pdata[i]));
  return domain_xml_finish (xml, error);
}
