/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "adapt.h"

#include <libxml/parser.h>
#include <libxml/xpath.h>
#include <string.h>

#define XML(text) ((const xmlChar *)(text))

typedef struct {
  xmlDoc *doc;
  xmlXPathContext *xpath;
  const AdaptTo *to;
} Work;

/* ---- XML ---- */

static void
open_work (Work *work, const char *xml) {
  work->doc = xmlReadMemory (xml, (int)strlen (xml), "domain.xml", NULL, XML_PARSE_NONET);
  if (!work->doc)
    g_error ("this is no XML:\n%s", xml);
  work->xpath = xmlXPathNewContext (work->doc);
}

static void
close_work (Work *work) {
  xmlXPathFreeContext (work->xpath);
  xmlFreeDoc (work->doc);
}

/* The elements at an XPath; the array is the caller's. */
static GPtrArray *
find_all (Work *work, const char *path) {
  GPtrArray *nodes = g_ptr_array_new ();
  xmlXPathObject *found = xmlXPathEvalExpression (XML (path), work->xpath);

  for (int i = 0; found && found->nodesetval && i < found->nodesetval->nodeNr; i++)
    g_ptr_array_add (nodes, found->nodesetval->nodeTab[i]);
  xmlXPathFreeObject (found);
  return nodes;
}

static xmlNode *
find (Work *work, const char *path) {
  g_autoptr (GPtrArray) nodes = find_all (work, path);

  return nodes->len ? g_ptr_array_index (nodes, 0) : NULL;
}

static char *
take (xmlChar *text) {
  char *copy = g_strdup ((const char *)text);

  xmlFree (text);
  return copy;
}

static void
drop (Work *work, const char *path) {
  g_autoptr (GPtrArray) nodes = find_all (work, path);

  for (guint i = 0; i < nodes->len; i++) {
    xmlNode *node = g_ptr_array_index (nodes, i);

    xmlUnlinkNode (node);
    xmlFreeNode (node);
  }
}

static void
drop_children (xmlNode *node) {
  while (node->children) {
    xmlNode *child = node->children;

    xmlUnlinkNode (child);
    xmlFreeNode (child);
  }
}

/* Puts a piece of XML at the end of parent. */
static void G_GNUC_PRINTF (3, 4)
add (Work *work, xmlNode *parent, const char *format, ...) {
  g_autofree char *text = NULL;
  xmlNode *piece = NULL;
  va_list values;

  va_start (values, format);
  text = g_markup_vprintf_escaped (format, values);
  va_end (values);
  if (xmlParseInNodeContext (parent, text, (int)strlen (text), 0, &piece) != XML_ERR_OK)
    g_error ("this is no piece of XML: %s", text);
  xmlAddChildList (parent, piece);
}

/* The child of parent with that name, made if it is missing. */
static xmlNode *
child (xmlNode *parent, const char *name) {
  for (xmlNode *node = parent->children; node; node = node->next)
    if (node->type == XML_ELEMENT_NODE && xmlStrEqual (node->name, XML (name)))
      return node;
  return xmlNewChild (parent, NULL, XML (name), NULL);
}

/* ---- the parts of a domain ---- */

/* Emulated, guests touch memory six times as fast without these two features (see vm.c); 46 bits of addresses have room for a
 * device that is plugged in later where the top of 40 bits is reserved on AMD, as which the emulated processor poses. */
static void
adapt_cpu (Work *work, xmlNode *domain) {
  xmlNode *cpu;

  if (work->to->kvm)
    return;
  xmlSetProp (domain, XML ("type"), XML ("qemu"));
  cpu = child (domain, "cpu");
  drop (work, "/domain/cpu/*[not(self::numa) and not(self::topology)]");
  xmlUnsetProp (cpu, XML ("match"));
  xmlUnsetProp (cpu, XML ("check"));
  xmlUnsetProp (cpu, XML ("migratable"));
  xmlSetProp (cpu, XML ("mode"), XML ("maximum"));
  add (work, cpu, "<maxphysaddr mode='emulate' bits='46'/>");
  add (work, cpu, "<feature policy='disable' name='erms'/><feature policy='disable' name='fsrm'/>");
  /* Hyper-V and KVM features, and clocks of KVM */
  drop (work, "/domain/features/hyperv|/domain/features/kvm|/domain/clock/timer");
}

static void
adapt_boot (Work *work, xmlNode *domain) {
  xmlNode *os = child (domain, "os");
  xmlNode *type = child (os, "type");
  g_autofree char *machine = take (xmlGetProp (type, XML ("machine")));

  /* other makers' machine types */
  if (machine && strstr (machine, "-rhel"))
    xmlSetProp (type, XML ("machine"), XML ("q35"));
  xmlUnsetProp (os, XML ("firmware"));
  drop (work, "/domain/os/*[not(self::type)]|/domain/devices/*/boot|/domain/features/smm|/domain/launchSecurity");
  add (work, os, "<kernel>%s</kernel><initrd>%s</initrd><cmdline>%s</cmdline>", work->to->kernel, work->to->initramfs,
       work->to->kernel_args);
}

static void
adapt_memory (Work *work) {
  const char *const sizes[] = { "/domain/memory", "/domain/currentMemory" };
  g_autoptr (GPtrArray) cells = find_all (work, "/domain/cpu/numa/cell[@memory]");
  xmlNode *memory = find (work, "/domain/memory");
  g_autofree char *unit = memory ? take (xmlGetProp (memory, XML ("unit"))) : NULL;
  g_autofree char *number = memory ? take (xmlNodeGetContent (memory)) : NULL;
  guint64 mib = number ? g_ascii_strtoull (number, NULL, 10) : 0;
  guint per_cell;

  mib = !unit || g_str_equal (unit, "KiB") ? mib / 1024 : g_ascii_strncasecmp (unit, "G", 1) == 0 ? mib * 1024 : mib;
  if (mib <= work->to->ram_mib_max)
    return;
  per_cell = work->to->ram_mib_max / MAX (cells->len, 1) / 2 * 2;
  for (guint i = 0; i < cells->len; i++) {
    g_autofree char *text = g_strdup_printf ("%u", per_cell);

    xmlSetProp (g_ptr_array_index (cells, i), XML ("memory"), XML (text));
    xmlSetProp (g_ptr_array_index (cells, i), XML ("unit"), XML ("MiB"));
  }
  for (guint i = 0; i < G_N_ELEMENTS (sizes); i++) {
    xmlNode *node = find (work, sizes[i]);
    g_autofree char *text = g_strdup_printf ("%u", per_cell * MAX (cells->len, 1));

    if (!node)
      continue;
    xmlNodeSetContent (node, XML (text));
    xmlSetProp (node, XML ("unit"), XML ("MiB"));
  }
}

/* Disks that are block devices become files. */
static void
adapt_disks (Work *work, GPtrArray *disks) {
  g_autoptr (GPtrArray) devices = find_all (work, "/domain/devices/disk[@type='block']");
  g_autoptr (GPtrArray) sources = NULL;

  for (guint i = 0; i < devices->len; i++) {
    xmlNode *source = child (g_ptr_array_index (devices, i), "source");
    g_autofree char *path = g_strdup_printf ("/var/lib/domybs-lab/block-%u", i);

    xmlSetProp (g_ptr_array_index (devices, i), XML ("type"), XML ("file"));
    xmlUnsetProp (source, XML ("dev"));
    xmlSetProp (source, XML ("file"), XML (path));
  }
  sources = find_all (work, "/domain/devices/disk/source[@file]");
  for (guint i = 0; i < sources->len; i++) {
    xmlNode *source = g_ptr_array_index (sources, i);
    xmlNode *driver = child (source->parent, "driver");
    AdaptDisk *disk = g_new0 (AdaptDisk, 1);

    disk->path = take (xmlGetProp (source, XML ("file")));
    disk->format = take (xmlGetProp (driver, XML ("type")));
    if (!disk->format)
      disk->format = g_strdup ("raw");
    g_ptr_array_add (disks, disk);
  }
}

static void
adapt_devices (Work *work, xmlNode *devices) {
  g_autoptr (GPtrArray) interfaces = find_all (work, "/domain/devices/interface");
  g_autoptr (GPtrArray) graphics = find_all (work, "/domain/devices/graphics[@type='spice']");
  g_autoptr (GPtrArray) qxl = find_all (work, "/domain/devices/video/model[@type='qxl']");
  xmlNode *serial;

  xmlNodeSetContent (child (devices, "emulator"), XML (work->to->emulator));
  drop (work, "/domain/devices/interface/*[not(self::mac or self::model or self::address)]");
  for (guint i = 0; i < interfaces->len; i++) {
    xmlSetProp (g_ptr_array_index (interfaces, i), XML ("type"), XML ("user"));
    /* the firmware would try to boot from each */
    add (work, g_ptr_array_index (interfaces, i), "<rom enabled='no'/>");
  }
  for (guint i = 0; i < graphics->len; i++) {
    xmlNode *node = g_ptr_array_index (graphics, i);

    drop_children (node);
    xmlSetProp (node, XML ("type"), XML ("vnc"));
  }
  for (guint i = 0; i < qxl->len; i++) {
    xmlNode *model = g_ptr_array_index (qxl, i);

    while (model->properties)
      xmlRemoveProp (model->properties);
    xmlSetProp (model, XML ("type"), XML ("virtio"));
  }
  drop (work, "/domain/devices/*[self::hostdev[@type='usb'] or self::tpm or self::filesystem or self::vsock or self::smartcard "
              "or self::redirdev]"
              "|/domain/cputune|/domain/numatune|/domain/memtune|/domain/memoryBacking/hugepages/page");
  drop (work, "/domain/devices/*[self::audio[@type='spice'] or self::channel[@type='spicevmc'] or self::crypto]");

  serial = find (work, "/domain/devices/serial[not(preceding-sibling::serial)]");
  if (serial) {
    drop (work, "/domain/devices/serial[1]/source|/domain/devices/serial[1]/protocol");
    xmlSetProp (serial, XML ("type"), XML ("file"));
    add (work, serial, "<source path='%s'/>", work->to->serial);
  } else {
    add (work, devices, "<serial type='file'><source path='%s'/></serial>", work->to->serial);
  }
  /* it would be the serial one's twin */
  drop (work, "/domain/devices/console");
  add (work, devices,
       "<channel type='unix'><source mode='bind' path='%s'/><target type='virtio' name='domybs.agent'/></channel>",
       work->to->agent);
}

/* ---- all of it ---- */

void
adapt_disk_free (AdaptDisk *disk) {
  g_free (disk->path);
  g_free (disk->format);
  g_free (disk);
}

char *
adapt_domain (const char *xml, const AdaptTo *to, GPtrArray *disks) {
  Work work = { .to = to };
  xmlNode *domain;
  xmlChar *text;
  int length;

  open_work (&work, xml);
  domain = xmlDocGetRootElement (work.doc);
  adapt_cpu (&work, domain);
  adapt_boot (&work, domain);
  adapt_memory (&work);
  adapt_disks (&work, disks);
  adapt_devices (&work, child (domain, "devices"));
  xmlDocDumpMemory (work.doc, &text, &length);
  close_work (&work);
  return take (text);
}

char *
adapt_find (const char *xml, const char *xpath) {
  Work work = { 0 };
  xmlNode *node;
  char *text;

  open_work (&work, xml);
  node = find (&work, xpath);
  text = node ? take (xmlNodeGetContent (node)) : NULL;
  close_work (&work);
  return text;
}
