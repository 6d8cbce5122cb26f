/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "domain-metadata.h"

#include <string.h>

#include "error.h"

static const char *const kind_names[DOMAIN_ADDED_KINDS] = {
  [DOMAIN_ADDED_MEMORY_BACKING] = "memoryBacking",
  [DOMAIN_ADDED_SOURCE] = "source",
  [DOMAIN_ADDED_ACCESS] = "access",
  [DOMAIN_ADDED_MEM_ACCESS] = "memAccess",
  [DOMAIN_ADDED_CPU] = "cpu",
  [DOMAIN_ADDED_NUMA] = "numa",
  [DOMAIN_ADDED_CELL] = "cell",
  [DOMAIN_ADDED_XMLNS] = "xmlns",
  [DOMAIN_ADDED_COMMANDLINE] = "commandline",
  [DOMAIN_ADDED_METADATA] = "metadata",
};

void
domain_added_clear (DomainAdded *added) {
  g_clear_pointer (&added->private_cells, g_array_unref);
}

void
domain_record_clear (DomainRecord *record) {
  domain_far_clear (&record->far);
  domain_added_clear (&record->added);
}

gboolean
domain_record_is_none (const DomainRecord *record) {
  return !record->have_memory && domain_far_is_none (&record->far) && !record->objects.n;
}

xmlNode *
domain_metadata_node (const DomainXml *xml) {
  xmlNode *metadata = domain_xml_child (domain_xml_root (xml), "metadata"), *node = NULL;

  for (; metadata && !node; metadata = domain_xml_next (metadata))
    node = domain_xml_child_ns (metadata, DOMAIN_METADATA_URI, DOMAIN_METADATA_PREFIX);
  return node;
}

G_GNUC_PRINTF (3, 4)
static gboolean
refuse (xmlNode *node, GError **error, const char *format, ...) {
  g_autofree char *what = NULL;
  va_list arguments;

  va_start (arguments, format);
  what = g_strdup_vprintf (format, arguments);
  va_end (arguments);
  g_set_error (error, CTL_ERROR, CTL_ERROR_REFUSED,
               "<metadata> of the memory device is damaged: line %lu: %s; delete its <%s:%s> with 'virsh edit', then detach "
               "and attach again",
               domain_xml_line (node), what, DOMAIN_METADATA_PREFIX, DOMAIN_METADATA_PREFIX);
  return FALSE;
}

static gboolean
read_number (xmlNode *node, const char *name, guint64 min, guint64 max, guint64 *ret_number, GError **error) {
  g_autofree char *text = domain_xml_attribute (node, name);

  if (!domain_xml_number (text, min, max, ret_number))
    return refuse (node, error, "%s is not a number from %" G_GUINT64_FORMAT " to %" G_GUINT64_FORMAT, name, min, max);
  return TRUE;
}

/* An attribute that is one of two words. */
static gboolean
read_choice (xmlNode *node, const char *name, const char *no, const char *yes, gboolean *ret_yes, GError **error) {
  g_autofree char *text = domain_xml_attribute (node, name);

  if (g_strcmp0 (text, yes) != 0 && g_strcmp0 (text, no) != 0)
    return refuse (node, error, "%s is neither %s nor %s", name, yes, no);
  *ret_yes = strcmp (text, yes) == 0;
  return TRUE;
}

static gboolean
read_memory (xmlNode *node, DomainMemory *ret_memory, GError **error) {
  g_autofree char *numa_node = domain_xml_attribute (node, "numa-node");
  DomainMemory memory = { .numa_node = -1 };
  guint64 number;

  if (!read_number (node, "window", DOMAIN_WINDOW_BYTES_MIN, DOMAIN_WINDOW_BYTES_MAX, &memory.window_bytes, error))
    return FALSE;
  if (memory.window_bytes & (memory.window_bytes - 1))
    return refuse (node, error, "window is not a power of two");
  if (!read_number (node, "local-max", DOMAIN_BLOCK_BYTES, memory.window_bytes, &memory.local_max_bytes, error))
    return FALSE;
  if (memory.local_max_bytes % DOMAIN_BLOCK_BYTES)
    return refuse (node, error, "local-max is not a multiple of %u", DOMAIN_BLOCK_BYTES);
  if (!read_choice (node, "grant", "reserve", "populate", &memory.populate, error)
      || !read_choice (node, "present", "no", "yes", &memory.present, error))
    return FALSE;
  if (numa_node) {
    if (!read_number (node, "numa-node", 0, DOMAIN_NUMA_NODES_MAX - 1, &number, error))
      return FALSE;
    memory.numa_node = (int)number;
  }
  *ret_memory = memory;
  return TRUE;
}

static gboolean
read_was (xmlNode *node, const char *expected, gboolean *ret_was, GError **error) {
  g_autofree char *was = domain_xml_attribute (node, "was");

  if (was && g_strcmp0 (was, expected) != 0)
    return refuse (node, error, "was is not %s", expected ? expected : "known here");
  *ret_was = was != NULL;
  return TRUE;
}

static gboolean
read_one_added (xmlNode *node, DomainAdded *added, GError **error) {
  g_autofree char *what = domain_xml_attribute (node, "what");
  DomainAddedKind kind = 0;
  gboolean was = FALSE;
  guint64 number;

  while (kind < DOMAIN_ADDED_KINDS && g_strcmp0 (what, kind_names[kind]) != 0)
    kind++;
  if (kind == DOMAIN_ADDED_KINDS)
    return refuse (node, error, "what is not known here");
  if (added->done[kind] && kind != DOMAIN_ADDED_MEM_ACCESS)
    return refuse (node, error, "%s is there twice", kind_names[kind]);
  added->done[kind] = TRUE;
  switch (kind) {
  case DOMAIN_ADDED_SOURCE:
    return read_was (node, "anonymous", &added->source_was_anonymous, error);
  case DOMAIN_ADDED_ACCESS:
    return read_was (node, "private", &added->access_was_private, error);
  case DOMAIN_ADDED_MEM_ACCESS:
    if (!read_was (node, "private", &was, error) || !read_number (node, "cell", 0, DOMAIN_NUMA_NODES_MAX - 1, &number, error))
      return FALSE;
    if (!added->private_cells)
      added->private_cells = g_array_new (FALSE, FALSE, sizeof (unsigned));
    if (!was || added->private_cells->len == DOMAIN_NUMA_NODES_MAX)
      return refuse (node, error, "memAccess has no was, or there are too many");
    g_array_append_val (added->private_cells, (unsigned){ (unsigned)number });
    return TRUE;
  default:
    return read_was (node, NULL, &was, error);
  }
}

/* Sizes and storage. The storage is opened by root: nothing that could be taken for another option, and no relative path. */
static gboolean
read_far (xmlNode *node, DomainRecord *record, GError **error) {
  g_autofree char *wear = NULL, *protection = NULL;
  guint64 last_bus;

  for (DomainFarTier tier = 0; tier < DOMAIN_FAR_TIERS; tier++) {
    const char *name = domain_far_tier_name (tier);
    g_autofree char *there = domain_xml_attribute (node, name);

    if (!there)
      continue;
    if (!read_number (node, name, DOMAIN_FAR_BYTES_MIN, DOMAIN_FAR_BYTES_MAX, &record->far.bytes[tier], error))
      return FALSE;
    if (record->far.bytes[tier] % DOMAIN_BLOCK_BYTES)
      return refuse (node, error, "%s is not a multiple of %u", name, DOMAIN_BLOCK_BYTES);
  }
  if (domain_far_is_none (&record->far))
    return refuse (node, error, "it has no size");
  record->far.storage = domain_xml_attribute (node, "storage");
  if (!domain_far_storage_is_valid (record->far.storage))
    return refuse (node, error, "storage is neither an absolute path nor an NBD URI");
  if (!read_choice (node, "compress", "no", "yes", &record->far.compress, error)
      || !read_number (node, "last-bus", 0, 255, &last_bus, error))
    return FALSE;
  wear = domain_xml_attribute (node, "wear");
  if (wear && !read_number (node, "wear", DOMAIN_FAR_WEAR_BYTES_MIN, DOMAIN_FAR_WEAR_BYTES_MAX, &record->far.wear_bytes, error))
    return FALSE;
  protection = domain_xml_attribute (node, "protection");
  if (protection
      && (!domain_far_protection_parse (protection, &record->far.protection)
          || record->far.protection == DOMAIN_FAR_PROTECTION_DEFAULT))
    return refuse (node, error, "protection is none of ssd, mirror, storage");
  record->last_bus = (unsigned)last_bus;
  return TRUE;
}

/* Names become those of files and sockets. */
static gboolean
read_objects (xmlNode *node, DomainRecord *record, GError **error) {
  g_autofree char *text = domain_xml_attribute (node, "names");
  g_auto (GStrv) names = text && *text ? g_strsplit (text, " ", -1) : NULL;
  guint64 last_bus;

  if (!names)
    return refuse (node, error, "it has no names");
  for (char **name = names; *name; name++)
    if (domain_objects_find (&record->objects, *name) || !domain_objects_add (&record->objects, *name))
      return refuse (node, error, "names has one twice, more than %u, or one that no object can have", DOMAIN_OBJECTS_MAX);
  if (!read_number (node, "last-bus", 0, 255, &last_bus, error))
    return FALSE;
  record->objects_last_bus = (unsigned)last_bus;
  return TRUE;
}

gboolean
domain_metadata_read (const DomainXml *xml, DomainRecord *ret_record, GError **error) {
  xmlNode *node = domain_metadata_node (xml), *memory_node = domain_xml_child_ns (node, DOMAIN_METADATA_URI, "memory"),
          *far_node = domain_xml_child_ns (node, DOMAIN_METADATA_URI, "far"),
          *objects_node = domain_xml_child_ns (node, DOMAIN_METADATA_URI, "objects");
  g_auto (DomainRecord) record = DOMAIN_RECORD_NONE;

  if (!node)
    return FALSE;
  if (!memory_node && !far_node && !objects_node)
    return refuse (node, error, "it has neither <%s:memory> nor <%s:far> or <%s:objects>", DOMAIN_METADATA_PREFIX,
                   DOMAIN_METADATA_PREFIX, DOMAIN_METADATA_PREFIX);
  if ((memory_node && domain_xml_next (memory_node)) || (far_node && domain_xml_next (far_node))
      || (objects_node && domain_xml_next (objects_node)) || domain_xml_next (node))
    return refuse (node, error, "it is there twice");
  record.have_memory = memory_node != NULL;
  if ((memory_node && !read_memory (memory_node, &record.memory, error)) || (far_node && !read_far (far_node, &record, error))
      || (objects_node && !read_objects (objects_node, &record, error)))
    return FALSE;
  for (xmlNode *at = domain_xml_child_ns (node, DOMAIN_METADATA_URI, "added"); at; at = domain_xml_next (at))
    if (!read_one_added (at, &record.added, error))
      return FALSE;
  *ret_record = record;
  record = DOMAIN_RECORD_NONE;
  return TRUE;
}

static void
format_added (GString *text, const char *prefix, const char *what, const char *was) {
  g_string_append_printf (text, "  <%sadded what=\"%s\"", prefix, what);
  if (was)
    g_string_append_printf (text, " was=\"%s\"", was);
  g_string_append (text, "/>\n");
}

static void
format_memory (GString *text, const char *prefix, const DomainMemory *memory) {
  g_string_append_printf (text, "  <%smemory window=\"%" G_GUINT64_FORMAT "\" local-max=\"%" G_GUINT64_FORMAT "\" grant=\"%s\"",
                          prefix, memory->window_bytes, memory->local_max_bytes, memory->populate ? "populate" : "reserve");
  if (memory->numa_node >= 0)
    g_string_append_printf (text, " numa-node=\"%d\"", memory->numa_node);
  g_string_append_printf (text, " present=\"%s\"/>\n", memory->present ? "yes" : "no");
}

static void
format_far (GString *text, const char *prefix, const DomainRecord *record) {
  g_autofree char *storage = g_markup_escape_text (record->far.storage, -1);

  g_string_append_printf (text, "  <%sfar", prefix);
  for (DomainFarTier tier = 0; tier < DOMAIN_FAR_TIERS; tier++)
    if (record->far.bytes[tier])
      g_string_append_printf (text, " %s=\"%" G_GUINT64_FORMAT "\"", domain_far_tier_name (tier), record->far.bytes[tier]);
  g_string_append_printf (text, " storage=\"%s\" compress=\"%s\"", storage, record->far.compress ? "yes" : "no");
  if (record->far.wear_bytes)
    g_string_append_printf (text, " wear=\"%" G_GUINT64_FORMAT "\"", record->far.wear_bytes);
  if (record->far.protection)
    g_string_append_printf (text, " protection=\"%s\"", domain_far_protection_name (record->far.protection));
  g_string_append_printf (text, " last-bus=\"%u\"/>\n", record->last_bus);
}

static void
format_objects (GString *text, const char *prefix, const DomainRecord *record) {
  g_autofree char *names = domain_objects_text (&record->objects, " ");

  g_string_append_printf (text, "  <%sobjects names=\"%s\" last-bus=\"%u\"/>\n", prefix, names, record->objects_last_bus);
}

char *
domain_metadata_format (const DomainRecord *record, gboolean with_namespace) {
  const char *prefix = with_namespace ? DOMAIN_METADATA_PREFIX ":" : "";
  const char *xmlns = with_namespace ? " xmlns:" DOMAIN_METADATA_PREFIX "=\"" DOMAIN_METADATA_URI "\"" : "";
  const DomainAdded *added = &record->added;
  GString *text = g_string_new (NULL);

  /* Double quotes: libvirt dumps foreign metadata with them. */
  g_string_append_printf (text, "<%s" DOMAIN_METADATA_PREFIX "%s>\n", prefix, xmlns);
  if (record->have_memory)
    format_memory (text, prefix, &record->memory);
  if (!domain_far_is_none (&record->far))
    format_far (text, prefix, record);
  if (record->objects.n)
    format_objects (text, prefix, record);
  for (DomainAddedKind kind = 0; kind < DOMAIN_ADDED_KINDS; kind++) {
    if (!added->done[kind])
      continue;
    if (kind == DOMAIN_ADDED_MEM_ACCESS)
      for (guint i = 0; i < added->private_cells->len; i++)
        g_string_append_printf (text, "  <%sadded what=\"%s\" cell=\"%u\" was=\"private\"/>\n", prefix, kind_names[kind],
                                g_array_index (added->private_cells, unsigned, i));
    else if (kind == DOMAIN_ADDED_SOURCE)
      format_added (text, prefix, kind_names[kind], added->source_was_anonymous ? "anonymous" : NULL);
    else if (kind == DOMAIN_ADDED_ACCESS)
      format_added (text, prefix, kind_names[kind], added->access_was_private ? "private" : NULL);
    else
      format_added (text, prefix, kind_names[kind], NULL);
  }
  g_string_append_printf (text, "</%s" DOMAIN_METADATA_PREFIX ">", prefix);
  return g_string_free (text, FALSE);
}
