/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "domain-object.h"

#include <string.h>

#include "core/object.h"
#include "domain-disk.h"

#define ALIAS_PREFIX DOMAIN_DISK_ALIAS_PREFIX "object-"

G_STATIC_ASSERT (sizeof ((DomainObject *)0)->name > OBJECT_NAME_BYTES_MAX);

/* ---- lists of names ---- */

const DomainObject *
domain_objects_find (const DomainObjects *objects, const char *name) {
  for (unsigned i = 0; i < objects->n; i++)
    if (strcmp (objects->items[i].name, name) == 0)
      return &objects->items[i];
  return NULL;
}

gboolean
domain_objects_add (DomainObjects *objects, const char *name) {
  if (!object_name_is_good (name))
    return FALSE;
  if (domain_objects_find (objects, name))
    return TRUE;
  if (objects->n == DOMAIN_OBJECTS_MAX)
    return FALSE;
  g_strlcpy (objects->items[objects->n].name, name, sizeof objects->items[0].name);
  objects->items[objects->n++].queues = 0;
  return TRUE;
}

void
domain_objects_remove (DomainObjects *objects, const DomainObjects *others) {
  unsigned kept = 0;

  for (unsigned i = 0; i < objects->n; i++)
    if (!domain_objects_find (others, objects->items[i].name))
      objects->items[kept++] = objects->items[i];
  objects->n = kept;
}

char *
domain_objects_text (const DomainObjects *objects, const char *between) {
  GString *text = g_string_new (NULL);

  for (unsigned i = 0; i < objects->n; i++)
    g_string_append_printf (text, "%s%s", i ? between : "", objects->items[i].name);
  return g_string_free (text, FALSE);
}

char *
domain_object_socket_name (const char *name) {
  return g_strdup_printf ("object-%s.sock", name);
}

char *
domain_object_alias (const char *name) {
  return g_strconcat (ALIAS_PREFIX, name, NULL);
}

/* ---- in the XML ---- */

static xmlNode *
devices_of (const DomainXml *xml) {
  return domain_xml_child (domain_xml_root (xml), "devices");
}

/* The name in a disk's alias, or NULL. */
static char *
name_of (xmlNode *disk) {
  g_autofree char *alias = domain_xml_attribute (domain_xml_child (disk, "alias"), "name");

  return alias && g_str_has_prefix (alias, ALIAS_PREFIX) ? g_strdup (alias + strlen (ALIAS_PREFIX)) : NULL;
}

void
domain_object_disks (const DomainXml *xml, DomainObjects *ret_objects) {
  *ret_objects = (DomainObjects){ 0 };
  for (xmlNode *disk = domain_xml_child (devices_of (xml), "disk"); disk; disk = domain_xml_next (disk)) {
    g_autofree char *name = name_of (disk);

    if (name && !domain_objects_find (ret_objects, name) && domain_objects_add (ret_objects, name))
      ret_objects->items[ret_objects->n - 1].queues = domain_disk_queues (disk);
  }
}

char *
domain_object_add (DomainXml *xml, const char *name, const char *folder, char **ret_text) {
  g_autofree char *alias = domain_object_alias (name), *socket = domain_object_socket_name (name),
                  *path = g_build_filename (folder, socket, NULL);

  return domain_disk_add (xml, &(DomainDisk){ alias, path, domain_disk_default_queues (xml) }, ret_text);
}

unsigned
domain_object_remove (DomainXml *xml, const DomainObjects *objects, unsigned last_bus) {
  g_autoptr (GPtrArray) aliases = g_ptr_array_new_with_free_func (g_free);

  for (unsigned i = 0; i < objects->n; i++)
    g_ptr_array_add (aliases, domain_object_alias (objects->items[i].name));
  return domain_disks_remove (xml, aliases, last_bus);
}

char *
domain_object_summary (const DomainXml *xml) {
  GString *text = g_string_new (NULL);
  DomainObjects objects;

  domain_object_disks (xml, &objects);
  for (unsigned i = 0; i < objects.n; i++) {
    g_autofree char *alias = domain_object_alias (objects.items[i].name);

    domain_disk_add_summary (domain_disk_find (xml, alias), alias, text);
  }
  return g_string_free (text, FALSE);
}
