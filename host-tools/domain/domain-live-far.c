/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Far disks of a running domain: what its live XML says of them, and what is to be plugged. */
#include "domain-check.h"
#include "domain-disk.h"
#include "domain-far.h"
#include "domain-metadata.h"
#include "domain-ram.h"
#include "domain.h"
#include "error.h"

#include <string.h>

static unsigned
count (const DomainFar *far) {
  unsigned n = 0;

  for (DomainFarTier tier = 0; tier < DOMAIN_FAR_TIERS; tier++)
    n += far->bytes[tier] != 0;
  return n;
}

unsigned
domain_far_there (const char *text, gboolean ret_there[DOMAIN_FAR_TIERS]) {
  g_autoptr (DomainXml) xml = domain_xml_new (text, NULL);
  unsigned n = 0;

  for (DomainFarTier tier = 0; tier < DOMAIN_FAR_TIERS; tier++) {
    ret_there[tier] = xml && domain_far_disk (xml, tier) != NULL;
    n += ret_there[tier] != 0;
  }
  return n;
}

gboolean
domain_check_live_far (const char *text, const DomainFar *far, GError **error) {
  g_autoptr (DomainXml) xml = domain_xml_new (text, error);
  g_autofree char *why = NULL;
  g_auto (DomainRecord) record = DOMAIN_RECORD_NONE;
  unsigned ports;

  if (!xml)
    return FALSE;
  (void)domain_metadata_read (xml, &record, NULL); /* what is damaged is refused by who reads it */
  if (!domain_check_far_neighbours (xml, error) || !domain_check_regions (xml, record.have_memory, error))
    return FALSE;
  if (!domain_memory_is_shared (xml, &why)) {
    g_set_error (error, CTL_ERROR, CTL_ERROR_REFUSED,
                 "the running VM's memory is not shared (%s), and QEMU can't change that; attach with --config, then restart "
                 "the VM",
                 why);
    return FALSE;
  }
  ports = domain_disk_free_ports (xml);
  if (ports >= count (far))
    return TRUE;
  g_set_error (
      error, CTL_ERROR, CTL_ERROR_REFUSED,
      "the running VM has %u free PCI Express port%s for hot plug, and its far disks need %u; attach with --config, then "
      "restart the VM",
      ports, ports == 1 ? "" : "s", count (far));
  return FALSE;
}

GPtrArray *
domain_far_devices (const char *text, const DomainFar *far, const char *socket_path, unsigned ret_queues[DOMAIN_FAR_TIERS],
                    GError **error) {
  g_autoptr (DomainXml) xml = domain_xml_new (text, error);
  g_autoptr (GPtrArray) devices = g_ptr_array_new_with_free_func (g_free);
  g_autofree char *folder = g_path_get_dirname (socket_path);

  if (!xml)
    return NULL;
  if (!domain_far_add (xml, far, folder, NULL, devices)) {
    g_set_error (error, CTL_ERROR, CTL_ERROR_REFUSED, "its XML has no <devices>; correct it");
    return NULL;
  }
  for (DomainFarTier tier = 0; tier < DOMAIN_FAR_TIERS; tier++)
    ret_queues[tier] = far->bytes[tier] ? domain_disk_default_queues (xml) : 0;
  return g_steal_pointer (&devices);
}

gboolean
domain_metadata_with_far (const char *text, const DomainFar *far, char **ret_element, GError **error) {
  g_autoptr (DomainXml) xml = domain_xml_new (text, error);
  g_autoptr (GError) reason = NULL;
  g_auto (DomainRecord) record = DOMAIN_RECORD_NONE;

  if (!xml)
    return FALSE;
  if (!domain_metadata_read (xml, &record, &reason) && reason) {
    g_propagate_error (error, g_steal_pointer (&reason));
    return FALSE;
  }
  domain_far_clear (&record.far);
  record.last_bus = domain_disk_last_bus (xml);
  if (far)
    domain_far_copy (far, &record.far);
  *ret_element = domain_record_is_none (&record) ? NULL : domain_metadata_format (&record, FALSE);
  return TRUE;
}
