/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "domain-far.h"

#include <string.h>

#include "domain-disk.h"

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

const char *
domain_far_protection_name (DomainFarProtection protection) {
  static const char *const names[DOMAIN_FAR_PROTECTIONS] = {
    [DOMAIN_FAR_PROTECTION_DEFAULT] = "default",
    [DOMAIN_FAR_PROTECTION_SSD] = "ssd",
    [DOMAIN_FAR_PROTECTION_MIRROR] = "mirror",
    [DOMAIN_FAR_PROTECTION_STORAGE] = "storage",
  };

  return names[protection];
}

gboolean
domain_far_protection_parse (const char *text, DomainFarProtection *ret_protection) {
  for (DomainFarProtection p = 0; p < DOMAIN_FAR_PROTECTIONS; p++)
    if (strcmp (text, domain_far_protection_name (p)) == 0) {
      *ret_protection = p;
      return TRUE;
    }
  return FALSE;
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

char *
domain_far_alias (DomainFarTier tier) {
  return g_strconcat (DOMAIN_DISK_ALIAS_PREFIX, domain_far_tier_name (tier), NULL);
}

xmlNode *
domain_far_disk (const DomainXml *xml, DomainFarTier tier) {
  g_autofree char *alias = domain_far_alias (tier);

  return domain_disk_find (xml, alias);
}

gboolean
domain_far_has_disks (const DomainXml *xml) {
  for (DomainFarTier tier = 0; tier < DOMAIN_FAR_TIERS; tier++)
    if (domain_far_disk (xml, tier))
      return TRUE;
  return FALSE;
}

/* ---- editing ---- */

gboolean
domain_far_add (DomainXml *xml, const DomainFar *far, const char *folder, GPtrArray *targets, GPtrArray *texts) {
  const unsigned queues = domain_disk_default_queues (xml);

  if (!devices_of (xml))
    return FALSE;
  for (DomainFarTier tier = 0; tier < DOMAIN_FAR_TIERS; tier++) {
    g_autofree char *alias = domain_far_alias (tier), *socket = domain_far_socket_name (tier),
                    *path = g_build_filename (folder, socket, NULL), *target = NULL, *text = NULL;

    if (!far->bytes[tier])
      continue;
    target = domain_disk_add (xml, &(DomainDisk){ alias, path, queues }, &text);
    if (targets)
      g_ptr_array_add (targets, g_steal_pointer (&target));
    if (texts)
      g_ptr_array_add (texts, g_steal_pointer (&text));
  }
  return TRUE;
}

unsigned
domain_far_remove (DomainXml *xml, unsigned last_bus) {
  g_autoptr (GPtrArray) aliases = g_ptr_array_new_with_free_func (g_free);

  for (DomainFarTier tier = 0; tier < DOMAIN_FAR_TIERS; tier++)
    g_ptr_array_add (aliases, domain_far_alias (tier));
  return domain_disks_remove (xml, aliases, last_bus);
}

char *
domain_far_summary (const DomainXml *xml) {
  GString *text = g_string_new (NULL);

  for (DomainFarTier tier = 0; tier < DOMAIN_FAR_TIERS; tier++) {
    xmlNode *disk = domain_far_disk (xml, tier);

    if (disk)
      domain_disk_add_summary (disk, domain_far_tier_name (tier), text);
  }
  return g_string_free (text, FALSE);
}
