/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a domain's XML says, without changing it. */
#include "domain.h"

#include <string.h>

#include "domain-args.h"
#include "domain-check.h"
#include "domain-disk.h"
#include "domain-far.h"
#include "domain-metadata.h"
#include "domain-ram.h"
#include "error.h"

/* A UUID becomes a folder's name: 8-4-4-4-12 hexadecimal digits and nothing else. In lower case, as libvirt prints it. */
static char *
read_uuid (const char *text) {
  if (!text || strlen (text) != 36)
    return NULL;
  for (int i = 0; i < 36; i++) {
    const gboolean is_dash = i == 8 || i == 13 || i == 18 || i == 23;

    if (is_dash ? text[i] != '-' : !g_ascii_isxdigit (text[i]))
      return NULL;
  }
  return g_ascii_strdown (text, -1);
}

/* A name becomes a file's name and is printed on terminals. */
static gboolean
is_good_name (const char *name) {
  if (*name == '\0' || strlen (name) > 255 || strchr (name, '/') || strcmp (name, ".") == 0 || strcmp (name, "..") == 0)
    return FALSE;
  for (const char *at = name; *at; at = g_utf8_next_char (at))
    if (g_unichar_iscntrl (g_utf8_get_char (at)))
      return FALSE;
  return TRUE;
}

gboolean
domain_read_identity (const char *text, DomainIdentity *ret_identity, GError **error) {
  g_autoptr (DomainXml) xml = domain_xml_new (text, error);
  xmlNode *root = xml ? domain_xml_root (xml) : NULL;
  g_autofree char *name = domain_xml_content (domain_xml_child (root, "name")),
                  *uuid_text = domain_xml_content (domain_xml_child (root, "uuid")), *uuid = read_uuid (uuid_text),
                  *id_text = domain_xml_attribute (root, "id");
  guint64 id;

  if (!xml)
    return FALSE;
  if (!name || !is_good_name (name)) {
    g_set_error (error, CTL_ERROR, CTL_ERROR_REFUSED, "its <name> is missing, or can't be a file's name; correct it");
    return FALSE;
  }
  if (!uuid) {
    g_set_error (error, CTL_ERROR, CTL_ERROR_REFUSED,
                 "its <uuid> is missing or is none; define it in libvirt, which gives it one");
    return FALSE;
  }
  ret_identity->id = domain_xml_number (id_text, 0, G_MAXINT, &id) ? (int)id : -1;
  ret_identity->name = g_steal_pointer (&name);
  ret_identity->uuid = g_steal_pointer (&uuid);
  return TRUE;
}

void
domain_identity_clear (DomainIdentity *identity) {
  g_clear_pointer (&identity->name, g_free);
  g_clear_pointer (&identity->uuid, g_free);
}

char *
domain_read_dac_label (const char *text) {
  g_autoptr (DomainXml) xml = domain_xml_new (text, NULL);
  xmlNode *label = xml ? domain_xml_child (domain_xml_root (xml), "seclabel") : NULL;

  while (label && !domain_xml_attribute_is (label, "model", "dac"))
    label = domain_xml_next (label);
  return domain_xml_content (domain_xml_child (label, "label"));
}

char *
domain_read_emulator (const char *text) {
  g_autoptr (DomainXml) xml = domain_xml_new (text, NULL);

  return xml ? domain_xml_content (domain_xml_child (domain_xml_child (domain_xml_root (xml), "devices"), "emulator")) : NULL;
}

gboolean
domain_read_memory (const char *text, DomainMemory *ret_memory, GError **error) {
  g_autoptr (DomainXml) xml = domain_xml_new (text, error);

  g_auto (DomainRecord) record = DOMAIN_RECORD_NONE;

  if (!xml || !domain_metadata_read (xml, &record, error) || !record.have_memory)
    return FALSE;
  *ret_memory = record.memory;
  return TRUE;
}

gboolean
domain_read_far (const char *text, DomainFar *ret_far, unsigned ret_queues[DOMAIN_FAR_TIERS], GError **error) {
  g_autoptr (DomainXml) xml = domain_xml_new (text, error);
  g_auto (DomainRecord) record = DOMAIN_RECORD_NONE;

  if (!xml || !domain_metadata_read (xml, &record, error) || domain_far_is_none (&record.far))
    return FALSE;
  for (DomainFarTier tier = 0; tier < DOMAIN_FAR_TIERS; tier++) {
    xmlNode *disk = record.far.bytes[tier] ? domain_far_disk (xml, tier) : NULL;

    ret_queues[tier] = disk ? domain_disk_queues (disk) : 0;
    if (disk && !ret_queues[tier]) {
      g_set_error (error, CTL_ERROR, CTL_ERROR_REFUSED,
                   "its far disk has no number of queues from 1 to %u (line %lu); correct it", DOMAIN_FAR_QUEUES_LIMIT,
                   domain_xml_line (disk));
      return FALSE;
    }
  }
  *ret_far = record.far;
  record.far = (DomainFar){ 0 };
  return TRUE;
}

char *
domain_metadata_for_libvirt (const char *text, const DomainMemory *memory, GError **error) {
  g_autoptr (DomainXml) xml = domain_xml_new (text, error);
  g_autoptr (GError) reason = NULL;
  g_auto (DomainRecord) record = DOMAIN_RECORD_NONE;

  if (!xml)
    return NULL;
  if (!domain_metadata_read (xml, &record, &reason) || !record.have_memory) {
    if (!reason)
      g_set_error (&reason, CTL_ERROR, CTL_ERROR_NOT_FOUND, "no memory device is attached to it; 'domybsctl attach' does that");
    g_propagate_error (error, g_steal_pointer (&reason));
    return NULL;
  }
  record.memory = *memory;
  return domain_metadata_format (&record, FALSE);
}

/* The room that the hidden port was given; 0: there is no port. */
static guint64
port_room (const DomainXml *xml) {
  g_autoptr (GPtrArray) args = domain_args (xml);

  for (guint i = 0; i < args->len; i++) {
    const char *value = ((DomainArg *)args->pdata[i])->value;
    g_autofree char *id = domain_arg_value (value, "id"), *room = domain_arg_value (value, "pref64-reserve");
    const gsize length = room ? strlen (room) : 0;
    guint64 gibibytes;

    if (g_strcmp0 (id, DOMAIN_PORT_ID) != 0 || length < 2 || room[length - 1] != 'G')
      continue;
    room[length - 1] = '\0';
    if (domain_xml_number (room, 1, G_MAXUINT32, &gibibytes))
      return gibibytes << 30;
  }
  return 0;
}

gboolean
domain_check_start (const char *text, GError **error) {
  g_autoptr (DomainXml) xml = domain_xml_new (text, error);
  g_auto (DomainRecord) record = DOMAIN_RECORD_NONE;
  g_autoptr (GError) reason = NULL;
  g_autofree char *why = NULL;
  gboolean pays;

  if (!xml)
    return FALSE;
  /* Only the window can't be pinned. What is damaged is refused by who reads it. */
  pays = !domain_metadata_read (xml, &record, NULL) || record.have_memory;
  if ((!pays || domain_check_neighbours (xml, &reason)) && !domain_memory_is_shared (xml, &why))
    g_set_error (&reason, CTL_ERROR, CTL_ERROR_REFUSED, "its memory is not shared (%s); correct that", why);
  if (reason)
    g_set_error (error, CTL_ERROR, CTL_ERROR_REFUSED, "%s, or take the %s away with 'domybsctl detach'", reason->message,
                 pays                               ? "memory device"
                 : domain_far_is_none (&record.far) ? "objects"
                                                    : "far disks");
  return !reason;
}

gboolean
domain_check_live (const char *text, guint64 window_bytes, GError **error) {
  g_autoptr (DomainXml) xml = domain_xml_new (text, error);
  const guint64 room = xml ? port_room (xml) : 0, needed = domain_port_room (window_bytes);
  g_autofree char *why = NULL, *room_text = domain_size_text (room / 2), *window_text = domain_size_text (window_bytes);

  if (!xml || !domain_check_neighbours (xml, error))
    return FALSE;
  if (!domain_memory_is_shared (xml, &why)) {
    g_set_error (error, CTL_ERROR, CTL_ERROR_REFUSED,
                 "the running VM's memory is not shared (%s); attach with --config, then restart the VM", why);
    return FALSE;
  }
  if (room == 0) {
    g_set_error (error, CTL_ERROR, CTL_ERROR_REFUSED,
                 "the running VM was started without a port for the device; attach with --config, then restart the VM");
    return FALSE;
  }
  if (room < needed) {
    g_set_error (error, CTL_ERROR, CTL_ERROR_REFUSED,
                 "the running VM's port has room for a window of %s, not of %s; use --window %" G_GUINT64_FORMAT
                 "G, or attach with --config and restart the VM",
                 room_text, window_text, room / 2 >> 30);
    return FALSE;
  }
  return TRUE;
}
