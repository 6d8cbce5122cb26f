/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "domain-disk.h"

#include <string.h>

#include "domain.h"

/* vda … vdzzz */
#define TARGETS_MAX (26u + 26 * 26 + 26 * 26 * 26)

static xmlNode *
devices_of (const DomainXml *xml) {
  return domain_xml_child (domain_xml_root (xml), "devices");
}

/* ---- reading ---- */

xmlNode *
domain_disk_find (const DomainXml *xml, const char *alias) {
  xmlNode *disk = domain_xml_child (devices_of (xml), "disk");

  while (disk && !domain_xml_attribute_is (domain_xml_child (disk, "alias"), "name", alias))
    disk = domain_xml_next (disk);
  return disk;
}

unsigned
domain_disk_default_queues (const DomainXml *xml) {
  g_autofree char *text = domain_xml_content (domain_xml_child (domain_xml_root (xml), "vcpu"));
  guint64 vcpus;

  return domain_xml_number (text, 1, G_MAXUINT16, &vcpus) ? (unsigned)MIN (vcpus, DOMAIN_FAR_QUEUES_MAX) : 1;
}

unsigned
domain_disk_queues (xmlNode *disk) {
  g_autofree char *text = domain_xml_attribute (domain_xml_child (disk, "driver"), "queues");
  guint64 queues;

  if (!text)
    return 1;
  return domain_xml_number (text, 1, DOMAIN_FAR_QUEUES_LIMIT, &queues) ? (unsigned)queues : 0;
}

static gboolean
is_pci (xmlNode *address, const char *attribute, guint64 max, guint64 *ret_number) {
  g_autofree char *text = domain_xml_attribute (address, attribute);
  char *end;

  if (!text || !g_ascii_isdigit (*text))
    return FALSE;
  *ret_number = g_ascii_strtoull (text, &end, 0);
  return *end == '\0' && *ret_number <= max;
}

unsigned
domain_disk_last_bus (const DomainXml *xml) {
  xmlNode *controller = domain_xml_child (devices_of (xml), "controller");
  guint64 last = 0, index;

  for (; controller; controller = domain_xml_next (controller))
    if (domain_xml_attribute_is (controller, "type", "pci") && is_pci (controller, "index", 255, &index))
      last = MAX (last, index);
  return (unsigned)last;
}

/* The PCI bus that a device is on; 0: the first one, or not known. */
static guint64
bus_of (xmlNode *device) {
  xmlNode *address = domain_xml_child (device, "address");
  guint64 bus;

  return domain_xml_attribute_is (address, "type", "pci") && is_pci (address, "bus", 255, &bus) ? bus : 0;
}

/* Some models have an <address> further inside; none of those is a PCI one. */
static gboolean
is_used (const DomainXml *xml, guint64 bus) {
  xmlNode *device = devices_of (xml);

  for (device = device ? device->children : NULL; device; device = device->next)
    if (device->type == XML_ELEMENT_NODE && bus_of (device) == bus)
      return TRUE;
  return FALSE;
}

unsigned
domain_disk_free_ports (const DomainXml *xml) {
  xmlNode *controller = domain_xml_child (devices_of (xml), "controller");
  gboolean express = FALSE;
  unsigned n = 0;
  guint64 index;

  for (; controller; controller = domain_xml_next (controller)) {
    if (!domain_xml_attribute_is (controller, "type", "pci"))
      continue;
    express |= domain_xml_attribute_is (controller, "model", "pcie-root");
    if (!domain_xml_attribute_is (controller, "model", "pcie-root-port")
        && !domain_xml_attribute_is (controller, "model", "pcie-switch-downstream-port"))
      continue;
    n += is_pci (controller, "index", 255, &index) && index > 0 && !is_used (xml, index)
         && !domain_xml_attribute_is (domain_xml_child (controller, "target"), "hotplug", "off");
  }
  return express ? n : G_MAXUINT;
}

/* ---- targets ---- */

/* "vda" is 1; 0: another name. */
static guint
target_number (const char *name) {
  guint number = 0;

  if (!name || !g_str_has_prefix (name, "vd") || strlen (name) > 5)
    return 0;
  for (name += 2; *name; name++) {
    if (!g_ascii_islower (*name))
      return 0;
    number = number * 26 + (guint)(*name - 'a') + 1;
  }
  return number;
}

static char *
target_name (guint number) {
  char letters[8];
  int at = sizeof letters - 1;

  letters[at] = '\0';
  for (; number > 0 && at > 0; number = (number - 1) / 26)
    letters[--at] = (char)('a' + (number - 1) % 26);
  return g_strconcat ("vd", letters + at, NULL);
}

static gboolean
has_target (const DomainXml *xml, guint number) {
  xmlNode *disk = domain_xml_child (devices_of (xml), "disk");

  for (; disk; disk = domain_xml_next (disk)) {
    g_autofree char *target = domain_xml_attribute (domain_xml_child (disk, "target"), "dev");

    if (target_number (target) == number)
      return TRUE;
  }
  return FALSE;
}

/* Behind all others, so that disks that are there keep their places in the guest and in its boot order; and *ret_last is the
 * disk before it, as libvirt sorts them. Where the very last name is taken, any that is free. */
static char *
free_target (const DomainXml *xml, xmlNode **ret_last) {
  xmlNode *disk = domain_xml_child (devices_of (xml), "disk");
  guint highest = 0;

  for (*ret_last = NULL; disk; disk = domain_xml_next (disk)) {
    g_autofree char *target = domain_xml_attribute (domain_xml_child (disk, "target"), "dev");
    const guint number = target_number (target);

    if (number >= highest)
      *ret_last = disk;
    highest = MAX (highest, number);
  }
  if (highest < TARGETS_MAX)
    return target_name (highest + 1);
  for (guint number = 1; number < TARGETS_MAX; number++)
    if (!has_target (xml, number))
      return target_name (number);
  return g_strdup ("vdzzzz");
}

/* ---- editing ---- */

static char *
disk_text (const DomainDisk *disk, const char *target) {
  /* snapshot='no' is what libvirt writes there itself. */
  return g_markup_printf_escaped ("<disk type='vhostuser' device='disk' snapshot='no'>\n"
                                  "  <driver name='qemu' type='raw' queues='%u'/>\n"
                                  "  <source type='unix' path='%s'>\n"
                                  "    <reconnect enabled='yes' timeout='1'/>\n"
                                  "  </source>\n"
                                  "  <target dev='%s' bus='virtio'/>\n"
                                  "  <alias name='%s'/>\n"
                                  "</disk>",
                                  disk->queues, disk->socket_path, target, disk->alias);
}

char *
domain_disk_add (DomainXml *xml, const DomainDisk *disk, char **ret_text) {
  xmlNode *devices = devices_of (xml), *last;
  char *target = free_target (xml, &last);
  g_autofree char *text = disk_text (disk, target);

  if (!last)
    last = domain_xml_child (devices, "emulator");
  if (last)
    domain_xml_insert_after (xml, last, text);
  else
    domain_xml_append (xml, devices, text);
  if (ret_text)
    *ret_text = g_steal_pointer (&text);
  return target;
}

static void
remove_port (DomainXml *xml, guint64 bus, unsigned last_bus) {
  xmlNode *controller = domain_xml_child (devices_of (xml), "controller");
  guint64 index;

  if (bus <= last_bus || is_used (xml, bus))
    return;
  for (; controller; controller = domain_xml_next (controller))
    if (domain_xml_attribute_is (controller, "type", "pci") && is_pci (controller, "index", 255, &index) && index == bus) {
      domain_xml_remove (xml, controller);
      return;
    }
}

unsigned
domain_disks_remove (DomainXml *xml, GPtrArray *aliases, unsigned last_bus) {
  g_autofree guint64 *buses = g_new0 (guint64, aliases->len + 1);
  unsigned n = 0;

  /* All disks first: on a machine without PCI Express they share a bus. */
  for (guint i = aliases->len; i-- > 0;) {
    xmlNode *disk = domain_disk_find (xml, aliases->pdata[i]);

    if (!disk)
      continue;
    buses[i] = bus_of (disk);
    domain_xml_remove (xml, disk);
    n++;
  }
  for (guint i = 0; i < aliases->len; i++)
    remove_port (xml, buses[i], last_bus);
  return n;
}

void
domain_disk_add_summary (xmlNode *disk, const char *name, GString *text) {
  xmlNode *source = domain_xml_child (disk, "source");
  g_autofree char *path = domain_xml_attribute (source, "path"),
                  *bus = domain_xml_attribute (domain_xml_child (disk, "target"), "bus");

  g_string_append_printf (text, "%s %d %u %s %s %d\n", name, domain_xml_attribute_is (disk, "type", "vhostuser"),
                          domain_disk_queues (disk), path, bus,
                          domain_xml_attribute_is (domain_xml_child (source, "reconnect"), "enabled", "yes"));
}
