/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "domain-far.h"

#include <string.h>

#define ALIAS_PREFIX "ua-domybs-"
/* vda … vdzzz */
#define TARGETS_MAX (26u + 26 * 26 + 26 * 26 * 26)

static xmlNode *
devices_of (const DomainXml *xml) {
  return domain_xml_child (domain_xml_root (xml), "devices");
}

const char *
domain_far_tier_name (DomainFarTier tier) {
  static const char *const names[DOMAIN_FAR_TIERS] = {
    [DOMAIN_FAR_SHARED] = "shared",
    [DOMAIN_FAR_REMOTE] = "remote",
    [DOMAIN_FAR_MEM_SHARED] = "mem-shared",
    [DOMAIN_FAR_MEM_REMOTE] = "mem-remote",
  };

  return names[tier];
}

char *
domain_far_socket_name (DomainFarTier tier) {
  return g_strdup_printf ("far-%s.sock", domain_far_tier_name (tier));
}

gboolean
domain_far_is_none (const DomainFar *far) {
  for (DomainFarTier tier = 0; tier < DOMAIN_FAR_TIERS; tier++)
    if (far->bytes[tier])
      return FALSE;
  return TRUE;
}

gboolean
domain_far_storage_is_nbd (const char *storage) {
  static const char *const schemes[] = { "nbd://", "nbds://", "nbd+unix://", "nbds+unix://" };

  for (gsize i = 0; storage && i < G_N_ELEMENTS (schemes); i++)
    if (g_str_has_prefix (storage, schemes[i]))
      return TRUE;
  return FALSE;
}

/* It goes into an argument of domybs-far, into messages, and (a path) to open(): one line, without surprises. */
gboolean
domain_far_storage_is_valid (const char *storage) {
  if (!storage || strlen (storage) > 1024 || !g_utf8_validate (storage, -1, NULL))
    return FALSE;
  for (const char *at = storage; *at; at = g_utf8_next_char (at))
    if (!g_unichar_isprint (g_utf8_get_char (at)) || *at == ',')
      return FALSE;
  return storage[0] == '/' || domain_far_storage_is_nbd (storage);
}

void
domain_far_clear (DomainFar *far) {
  g_free (far->storage);
  *far = (DomainFar){ 0 };
}

void
domain_far_copy (const DomainFar *far, DomainFar *ret_far) {
  *ret_far = *far;
  ret_far->storage = g_strdup (far->storage);
}

/* ---- reading ---- */

xmlNode *
domain_far_disk (const DomainXml *xml, DomainFarTier tier) {
  g_autofree char *alias = domain_far_alias (tier);
  xmlNode *disk = domain_xml_child (devices_of (xml), "disk");

  while (disk && !domain_xml_attribute_is (domain_xml_child (disk, "alias"), "name", alias))
    disk = domain_xml_next (disk);
  return disk;
}

char *
domain_far_alias (DomainFarTier tier) {
  return g_strconcat (ALIAS_PREFIX, domain_far_tier_name (tier), NULL);
}

gboolean
domain_far_has_disks (const DomainXml *xml) {
  for (DomainFarTier tier = 0; tier < DOMAIN_FAR_TIERS; tier++)
    if (domain_far_disk (xml, tier))
      return TRUE;
  return FALSE;
}

unsigned
domain_far_queues (const DomainXml *xml) {
  g_autofree char *text = domain_xml_content (domain_xml_child (domain_xml_root (xml), "vcpu"));
  guint64 vcpus;

  return domain_xml_number (text, 1, G_MAXUINT16, &vcpus) ? (unsigned)MIN (vcpus, DOMAIN_FAR_QUEUES_MAX) : 1;
}

unsigned
domain_far_disk_queues (xmlNode *disk) {
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
domain_far_last_bus (const DomainXml *xml) {
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
domain_far_free_ports (const DomainXml *xml) {
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
disk_text (DomainFarTier tier, unsigned queues, const char *folder, const char *target) {
  g_autofree char *socket = domain_far_socket_name (tier), *path = g_build_filename (folder, socket, NULL);

  /* snapshot='no' is what libvirt writes there itself. */
  return g_markup_printf_escaped ("<disk type='vhostuser' device='disk' snapshot='no'>\n"
                                  "  <driver name='qemu' type='raw' queues='%u'/>\n"
                                  "  <source type='unix' path='%s'>\n"
                                  "    <reconnect enabled='yes' timeout='1'/>\n"
                                  "  </source>\n"
                                  "  <target dev='%s' bus='virtio'/>\n"
                                  "  <alias name='" ALIAS_PREFIX "%s'/>\n"
                                  "</disk>",
                                  queues, path, target, domain_far_tier_name (tier));
}

static void
add_disk (DomainXml *xml, DomainFarTier tier, unsigned queues, const char *folder, GPtrArray *targets) {
  xmlNode *devices = devices_of (xml), *last;
  char *target = free_target (xml, &last);
  g_autofree char *fragment = disk_text (tier, queues, folder, target);

  if (!last)
    last = domain_xml_child (devices, "emulator");
  if (last)
    domain_xml_insert_after (xml, last, fragment);
  else
    domain_xml_append (xml, devices, fragment);
  if (targets)
    g_ptr_array_add (targets, target);
  else
    g_free (target);
}

gboolean
domain_far_add (DomainXml *xml, const DomainFar *far, const char *folder, GPtrArray *targets) {
  const unsigned queues = domain_far_queues (xml);

  if (!devices_of (xml))
    return FALSE;
  for (DomainFarTier tier = 0; tier < DOMAIN_FAR_TIERS; tier++)
    if (far->bytes[tier])
      add_disk (xml, tier, queues, folder, targets);
  return TRUE;
}

gboolean
domain_far_add_texts (DomainXml *xml, const DomainFar *far, const char *folder, GPtrArray *texts) {
  const unsigned queues = domain_far_queues (xml);

  if (!devices_of (xml))
    return FALSE;
  for (DomainFarTier tier = 0; tier < DOMAIN_FAR_TIERS; tier++) {
    xmlNode *last;
    g_autofree char *target = free_target (xml, &last);

    if (!far->bytes[tier])
      continue;
    g_ptr_array_add (texts, disk_text (tier, queues, folder, target));
    add_disk (xml, tier, queues, folder, NULL);
  }
  return TRUE;
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
domain_far_remove (DomainXml *xml, unsigned last_bus) {
  guint64 buses[DOMAIN_FAR_TIERS] = { 0 };
  unsigned n = 0;

  /* All disks first: on a machine without PCI Express they share a bus. */
  for (DomainFarTier tier = DOMAIN_FAR_TIERS; tier-- > 0;) {
    xmlNode *disk = domain_far_disk (xml, tier);

    if (!disk)
      continue;
    buses[tier] = bus_of (disk);
    domain_xml_remove (xml, disk);
    n++;
  }
  for (DomainFarTier tier = 0; tier < DOMAIN_FAR_TIERS; tier++)
    remove_port (xml, buses[tier], last_bus);
  return n;
}

char *
domain_far_summary (const DomainXml *xml) {
  GString *text = g_string_new (NULL);

  for (DomainFarTier tier = 0; tier < DOMAIN_FAR_TIERS; tier++) {
    xmlNode *disk = domain_far_disk (xml, tier), *source = domain_xml_child (disk, "source");
    g_autofree char *path = domain_xml_attribute (source, "path"),
                    *target = domain_xml_attribute (domain_xml_child (disk, "target"), "bus");

    if (disk)
      g_string_append_printf (text, "%s %d %u %s %s %d\n", domain_far_tier_name (tier),
                              domain_xml_attribute_is (disk, "type", "vhostuser"), domain_far_disk_queues (disk), path, target,
                              domain_xml_attribute_is (domain_xml_child (source, "reconnect"), "enabled", "yes"));
  }
  return g_string_free (text, FALSE);
}
