/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "domain-slots.h"

#include <string.h>

#include "domain-args.h"

#define CHASSIS_MAX 255

static void
use_slot (gboolean *used, const char *text) {
  const guint64 slot = g_ascii_strtoull (text, NULL, 16);

  if (slot < 32)
    used[slot] = TRUE;
}

static void
find_used_slots_below (xmlNode *node, gboolean *used) {
  for (xmlNode *child = node->children; child; child = child->next) {
    if (child->type != XML_ELEMENT_NODE)
      continue;
    if (strcmp ((const char *)child->name, "address") == 0 && domain_xml_attribute_is (child, "type", "pci")) {
      g_autofree char *bus = domain_xml_attribute (child, "bus"), *slot = domain_xml_attribute (child, "slot");

      if (!bus || g_ascii_strtoull (bus, NULL, 0) == 0)
        use_slot (used, slot ? slot : "0");
    }
    find_used_slots_below (child, used);
  }
}

/* A user's argument may be addr=10.0 or "addr":"0x10": QEMU reads both as hexadecimal. */
int
domain_free_slot (const DomainXml *xml, gboolean leave_one) {
  xmlNode *devices = domain_xml_child (domain_xml_root (xml), "devices");
  g_autoptr (GPtrArray) args = domain_args (xml);
  gboolean used[32] = { FALSE };

  if (devices)
    find_used_slots_below (devices, used);
  for (guint i = 0; i < args->len; i++) {
    const char *at = ((DomainArg *)args->pdata[i])->value;

    while ((at = strstr (at, "addr"))) {
      at += strlen ("addr");
      use_slot (used, at + strspn (at, "\"' :="));
    }
  }
  for (int slot = 1; slot < DOMAIN_SLOT_FIRST; slot++)
    leave_one &= used[slot];
  for (int slot = DOMAIN_SLOT_FIRST; slot < DOMAIN_SLOT_END; slot++) {
    if (!used[slot] && !leave_one)
      return slot;
    leave_one &= used[slot];
  }
  return -1;
}

unsigned
domain_free_chassis (const DomainXml *xml) {
  xmlNode *controller = domain_xml_child (domain_xml_child (domain_xml_root (xml), "devices"), "controller");
  g_autoptr (GPtrArray) args = domain_args (xml);
  gboolean used[CHASSIS_MAX + 1] = { FALSE };
  unsigned chassis = CHASSIS_MAX;
  guint64 number;

  for (; controller; controller = domain_xml_next (controller)) {
    xmlNode *target = domain_xml_child (controller, "target");
    g_autofree char *one = domain_xml_attribute (target, "chassis"), *other = domain_xml_attribute (target, "chassisNr"),
                    *index = domain_xml_attribute (controller, "index");

    /* The index is what libvirt will take where it has not seen the XML yet. */
    if (domain_xml_number (one ? one : other ? other : index, 0, CHASSIS_MAX, &number))
      used[number] = TRUE;
  }
  for (guint i = 0; i < args->len; i++) {
    const char *at = strstr (((DomainArg *)args->pdata[i])->value, "chassis");

    if (at && (number = g_ascii_strtoull (at + strcspn (at, "0123456789"), NULL, 0)) <= CHASSIS_MAX)
      used[number] = TRUE;
  }
  while (chassis > 1 && used[chassis])
    chassis--;
  return chassis;
}
