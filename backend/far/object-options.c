/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "far/options.h"
#include "core/object.h"
#include "core/size.h"
#include "io/option-values.h"
#include "io/vhost-user-session.h"

#include <string.h>

#define QUEUES_DEFAULT 4u
#define AHEAD_DEFAULT_BYTES (4ull << 20)
#define AHEAD_MAX_BYTES (256ull << 20)
#define THERE_ARE "there are: file, socket, queues, prefetch, memory-slots"

static gboolean
wrong (GError **error, const FarObjectChoice *object, const char *part, const char *why) {
  return option_usage (error, "--object %s: %s %s", object->name, part, why);
}

static gboolean
understand_part (const char *part, FarObjectChoice *object, GError **error) {
  const char *value = strchr (part, '=');
  const size_t n = value ? (size_t)(value - part) : 0;
  guint64 number;

  if (!value || !value[1])
    return wrong (error, object, part, "is no NAME=VALUE; " THERE_ARE);
  value++;
  if (n == 4 && strncmp (part, "file", n) == 0) {
    g_free (object->file);
    object->file = g_strdup (value);
  } else if (n == 6 && strncmp (part, "socket", n) == 0) {
    g_free (object->socket_path);
    object->socket_path = g_strdup (value);
  } else if (n == 6 && strncmp (part, "queues", n) == 0) {
    if (!g_ascii_isdigit (value[0]) || !g_ascii_string_to_unsigned (value, 10, 1, VHOST_USER_QUEUES_MAX, &number, NULL))
      return option_usage (error, "--object %s: queues='%s' is not a whole number from 1 to %u", object->name, value,
                           VHOST_USER_QUEUES_MAX);
    object->n_queues = (unsigned)number;
  } else if (n == 8 && strncmp (part, "prefetch", n) == 0) {
    if (strcmp (value, "0") == 0)
      object->ahead_bytes = 0;
    else if (!size_parse (value, &object->ahead_bytes) || object->ahead_bytes > AHEAD_MAX_BYTES)
      return wrong (error, object, part, "is not a size up to 256M; 0 switches it off");
  } else if (n == 12 && strncmp (part, "memory-slots", n) == 0) {
    if (strcmp (value, "on") != 0 && strcmp (value, "off") != 0)
      return wrong (error, object, part, "is neither on nor off");
    object->mem_slots = value[1] == 'n';
  } else {
    return wrong (error, object, part, "is nothing that it has; " THERE_ARE);
  }
  return TRUE;
}

/* Its name and its socket are nobody else's. Its file may be. */
static gboolean
check_others (const FarOptions *options, const FarObjectChoice *object, GError **error) {
  for (unsigned i = 0; i < options->n_disks; i++)
    if (strcmp (options->disks[i].tier, object->name) == 0 || strcmp (options->disks[i].socket_path, object->socket_path) == 0)
      return option_usage (error, "--object %s: it has the name or the socket of disk %s; each needs its own", object->name,
                           options->disks[i].tier);
  for (unsigned i = 0; i + 1 < options->n_objects; i++)
    if (strcmp (options->objects[i].name, object->name) == 0
        || strcmp (options->objects[i].socket_path, object->socket_path) == 0)
      return option_usage (error, "--object %s: it has the name or the socket of object %s; each needs its own", object->name,
                           options->objects[i].name);
  return TRUE;
}

gboolean
far_object_option (const char *text, FarOptions *options, GError **error) {
  FarObjectChoice *object = &options->objects[options->n_objects];
  g_auto (GStrv) parts = far_option_split (text);

  if (options->n_disks + options->n_objects == FAR_DISKS_MAX)
    return option_usage (error, "--object: there are more than %u disks and objects; start a second domybs-far", FAR_DISKS_MAX);
  options->n_objects++; /* what it has is freed with the options from now on */
  object->n_queues = QUEUES_DEFAULT;
  object->ahead_bytes = AHEAD_DEFAULT_BYTES;
  if (!object_name_is_good (parts[0]))
    return option_usage (error,
                         "--object: '%s' is no name of an object: it has at most %u of a-z, 0-9 and '-', and is not shared, "
                         "remote or mem-…",
                         parts[0], OBJECT_NAME_BYTES_MAX);
  object->name = g_strdup (parts[0]);
  object->id = g_strdup_printf ("domybs-%s", object->name);
  object->label = g_strdup_printf ("%s/%s", options->name, object->name);
  for (char **part = parts + 1; *part; part++)
    if (!understand_part (*part, object, error))
      return FALSE;
  if (!object->file)
    return option_usage (error, "--object %s: file=PATH is missing, what 'domybsctl object import' has made", object->name);
  if (!object->socket_path)
    return option_usage (error, "--object %s: socket=PATH is missing, where QEMU connects to", object->name);
  return check_others (options, object, error);
}

void
far_object_choice_clear (FarObjectChoice *object) {
  g_free (object->name);
  g_free (object->id);
  g_free (object->label);
  g_free (object->file);
  g_free (object->socket_path);
}
