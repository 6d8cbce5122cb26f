/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "domain-ram.h"

#include <string.h>

/* Where QEMU's q35 cuts RAM in two: what is above 2 GiB lies above 4 GiB, once there is more than 2.75 GiB. */
#define LOW_RAM_ALL (G_GUINT64_CONSTANT (0xb0000000))
#define LOW_RAM_CUT (G_GUINT64_CONSTANT (0x80000000))

xmlNode *
domain_first_cell (const DomainXml *xml) {
  return domain_xml_child (domain_xml_child (domain_xml_child (domain_xml_root (xml), "cpu"), "numa"), "cell");
}

static gboolean
cell_memory (xmlNode *cell, guint64 *ret_bytes) {
  g_autofree char *number = domain_xml_attribute (cell, "memory"), *unit = domain_xml_attribute (cell, "unit");

  *ret_bytes = 0;
  return !number || domain_xml_size (number, unit, ret_bytes);
}

gboolean
domain_boot_memory (const DomainXml *xml, guint64 *ret_bytes) {
  xmlNode *memory = domain_xml_child (domain_xml_root (xml), "memory"), *cell = domain_first_cell (xml);
  guint64 total = 0, bytes;

  for (; cell; cell = domain_xml_next (cell)) {
    if (!cell_memory (cell, &bytes) || bytes > G_MAXINT64 - total)
      return FALSE;
    total += bytes;
  }
  if (total == 0) {
    g_autofree char *number = domain_xml_content (memory), *unit = domain_xml_attribute (memory, "unit");

    if (!domain_xml_size (number, unit, &total))
      return FALSE;
  }
  *ret_bytes = total;
  return total > 0;
}

static unsigned
count_devices (const DomainXml *xml, const char *name) {
  xmlNode *node = domain_xml_child (domain_xml_child (domain_xml_root (xml), "devices"), name);
  unsigned n = 0;

  for (; node; node = domain_xml_next (node))
    n++;
  return n;
}

/* Whether one of the pieces that boot memory is made of lies on both sides of the cut. */
static gboolean
is_cut (const DomainXml *xml, guint64 total) {
  guint64 end = 0, bytes;

  if (total < LOW_RAM_ALL)
    return FALSE;
  for (xmlNode *cell = domain_first_cell (xml); cell; cell = domain_xml_next (cell)) {
    if (!cell_memory (cell, &bytes))
      return TRUE;
    end += bytes;
    if (end == LOW_RAM_CUT)
      return FALSE;
  }
  return TRUE;
}

/* A VGA card's memory at 0xa0000 makes a hole in RAM. */
static gboolean
has_vga (const DomainXml *xml) {
  static const char *const models[] = { "vga", "cirrus", "vmvga", "qxl", "virtio" };
  xmlNode *video = domain_xml_child (domain_xml_child (domain_xml_root (xml), "devices"), "video");

  for (; video; video = domain_xml_next (video))
    for (gsize i = 0; i < G_N_ELEMENTS (models); i++)
      if (domain_xml_attribute_is (domain_xml_child (video, "model"), "type", models[i]))
        return TRUE;
  return FALSE;
}

unsigned
domain_ram_regions (const DomainXml *xml, char **ret_how) {
  const unsigned n_dimms = count_devices (xml, "memory"), n_shmem = count_devices (xml, "shmem");
  unsigned n_cells = 0, n_cuts, n_vga = has_vga (xml) ? 1 : 0;
  guint64 total = 0, bytes;

  for (xmlNode *cell = domain_first_cell (xml); cell; cell = domain_xml_next (cell))
    if (!cell_memory (cell, &bytes) || bytes > 0)
      n_cells++;
  n_cells = MAX (1, n_cells);
  n_cuts = !domain_boot_memory (xml, &total) || is_cut (xml, total) ? 1 : 0;
  if (ret_how) {
    GString *how = g_string_new (NULL);

    g_string_append_printf (how, n_cells == 1 ? "boot memory 1" : "boot memory of %u NUMA cells %u", n_cells, n_cells);
    if (n_cuts)
      g_string_append (how, ", its part above 4 GiB 1");
    if (n_vga)
      g_string_append (how, ", its part behind the VGA card's 1");
    if (n_dimms)
      g_string_append_printf (how, ", <memory> devices %u", n_dimms);
    if (n_shmem)
      g_string_append_printf (how, ", <shmem> devices %u", n_shmem);
    *ret_how = g_string_free (how, FALSE);
  }
  return n_cells + n_cuts + n_vga + n_dimms + n_shmem;
}

static gboolean
not_shared (char **ret_why, xmlNode *node, const char *what) {
  if (ret_why)
    *ret_why = node ? g_strdup_printf ("%s (line %lu)", what, domain_xml_line (node)) : g_strdup (what);
  return FALSE;
}

gboolean
domain_memory_is_shared (const DomainXml *xml, char **ret_why) {
  xmlNode *root = domain_xml_root (xml), *backing = domain_xml_child (root, "memoryBacking"),
          *source = domain_xml_child (backing, "source"), *access = domain_xml_child (backing, "access"),
          *device = domain_xml_child (domain_xml_child (root, "devices"), "memory");
  const gboolean is_default = domain_xml_attribute_is (access, "mode", "shared");
  gboolean all_cells = TRUE;
  xmlNode *cell = domain_first_cell (xml);

  if (!domain_xml_attribute_is (source, "type", "memfd") && !domain_xml_attribute_is (source, "type", "file")
      && !domain_xml_child (backing, "hugepages"))
    return not_shared (ret_why, source, "<memoryBacking> has no <source type='memfd'/>");
  all_cells = cell != NULL;
  for (; cell; cell = domain_xml_next (cell)) {
    if (domain_xml_attribute_is (cell, "memAccess", "private"))
      return not_shared (ret_why, cell, "a NUMA cell has memAccess='private'");
    all_cells &= domain_xml_attribute_is (cell, "memAccess", "shared");
  }
  for (; device; device = domain_xml_next (device))
    if (domain_xml_attribute_is (device, "access", "private"))
      return not_shared (ret_why, device, "a <memory> device has access='private'");
  if (!is_default && !all_cells)
    return not_shared (ret_why, access, "<memoryBacking> has no <access mode='shared'/>");
  return TRUE;
}

char *
domain_memory_sharer (const DomainXml *xml) {
  xmlNode *devices = domain_xml_child (domain_xml_root (xml), "devices");
  static const struct {
    const char *device, *type;
  } sharers[]
      = { { "interface", "vhostuser" }, { "disk", "vhostuser" }, { "video", NULL }, { "input", NULL }, { "filesystem", NULL } };

  for (gsize i = 0; i < G_N_ELEMENTS (sharers); i++) {
    for (xmlNode *node = domain_xml_child (devices, sharers[i].device); node; node = domain_xml_next (node)) {
      xmlNode *driver = domain_xml_child (node, "driver");
      const gboolean is_one = sharers[i].type ? domain_xml_attribute_is (node, "type", sharers[i].type)
                                              : domain_xml_attribute_is (driver, "name", "vhostuser")
                                                    || domain_xml_attribute_is (driver, "type", "virtiofs")
                                                    || domain_xml_attribute_is (node, "type", "vhostuser");

      if (is_one)
        return g_strdup_printf ("<%s> in line %lu", sharers[i].device, domain_xml_line (node));
    }
  }
  return NULL;
}
