/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Objects of a running domain: what its live XML says of them, and what is to be plugged. */
#include "domain-check.h"
#include "domain-disk.h"
#include "domain-metadata.h"
#include "domain-object.h"
#include "domain-ram.h"
#include "domain.h"
#include "error.h"

gboolean
domain_read_objects (const char *text, DomainObjects *ret_objects, GError **error) {
  g_autoptr (DomainXml) xml = domain_xml_new (text, error);
  g_auto (DomainRecord) record = DOMAIN_RECORD_NONE;

  if (!xml || !domain_metadata_read (xml, &record, error) || !record.objects.n)
    return FALSE;
  for (unsigned i = 0; i < record.objects.n; i++) {
    DomainObject *object = &record.objects.items[i];
    g_autofree char *alias = domain_object_alias (object->name);
    xmlNode *disk = domain_disk_find (xml, alias);

    object->queues = disk ? domain_disk_queues (disk) : 0;
    if (disk && !object->queues) {
      g_set_error (error, CTL_ERROR, CTL_ERROR_REFUSED,
                   "its disk of object '%s' has no number of queues from 1 to %u (line %lu); correct it", object->name,
                   DOMAIN_FAR_QUEUES_LIMIT, domain_xml_line (disk));
      return FALSE;
    }
  }
  *ret_objects = record.objects;
  return TRUE;
}

unsigned
domain_objects_there (const char *text, DomainObjects *ret_objects) {
  g_autoptr (DomainXml) xml = domain_xml_new (text, NULL);

  *ret_objects = (DomainObjects){ 0 };
  if (xml)
    domain_object_disks (xml, ret_objects);
  return ret_objects->n;
}

GPtrArray *
domain_disks_there (const char *text, GPtrArray *aliases) {
  g_autoptr (DomainXml) xml = domain_xml_new (text, NULL);
  GPtrArray *there = g_ptr_array_new_with_free_func (g_free);

  for (guint i = 0; xml && i < aliases->len; i++)
    if (domain_disk_find (xml, aliases->pdata[i]))
      g_ptr_array_add (there, g_strdup (aliases->pdata[i]));
  return there;
}

gboolean
domain_check_live_objects (const char *text, const DomainObjects *objects, unsigned others, GError **error) {
  g_autoptr (DomainXml) xml = domain_xml_new (text, error);
  g_autofree char *why = NULL;
  g_auto (DomainRecord) record = DOMAIN_RECORD_NONE;
  unsigned ports;

  if (!xml)
    return FALSE;
  (void)domain_metadata_read (xml, &record, NULL); /* what is damaged is refused by who reads it */
  if (!domain_check_object_neighbours (xml, error) || !domain_check_regions (xml, record.have_memory, error))
    return FALSE;
  if (!domain_memory_is_shared (xml, &why)) {
    g_set_error (error, CTL_ERROR, CTL_ERROR_REFUSED,
                 "the running VM's memory is not shared (%s), and QEMU can't change that; attach with --config, then restart "
                 "the VM",
                 why);
    return FALSE;
  }
  ports = domain_disk_free_ports (xml);
  if (ports >= others + objects->n)
    return TRUE;
  g_set_error (
      error, CTL_ERROR, CTL_ERROR_REFUSED,
      "the running VM has %u free PCI Express port%s for hot plug, and its new disks need %u; attach with --config, then "
      "restart the VM",
      ports, ports == 1 ? "" : "s", others + objects->n);
  return FALSE;
}

char *
domain_object_device (const char *text, const char *name, const char *socket_path, unsigned *ret_queues, GError **error) {
  g_autoptr (DomainXml) xml = domain_xml_new (text, error);
  g_autofree char *folder = g_path_get_dirname (socket_path), *target = NULL;
  char *device = NULL;

  if (!xml || !domain_check_object_neighbours (xml, error))
    return NULL;
  *ret_queues = domain_disk_default_queues (xml);
  target = domain_object_add (xml, name, folder, &device);
  return device;
}

gboolean
domain_metadata_with_objects (const char *text, const DomainObjects *objects, char **ret_element, GError **error) {
  g_autoptr (DomainXml) xml = domain_xml_new (text, error);
  g_autoptr (GError) reason = NULL;
  g_auto (DomainRecord) record = DOMAIN_RECORD_NONE;

  if (!xml)
    return FALSE;
  if (!domain_metadata_read (xml, &record, &reason) && reason) {
    g_propagate_error (error, g_steal_pointer (&reason));
    return FALSE;
  }
  if (!record.objects.n)
    record.objects_last_bus = domain_disk_last_bus (xml);
  record.objects = *objects;
  *ret_element = domain_record_is_none (&record) ? NULL : domain_metadata_format (&record, FALSE);
  return TRUE;
}
