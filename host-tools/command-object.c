/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Objects: read-only content with a name, which VMs of this host share. */
#include "ctl/ctl.h"
#include "ctl/term.h"
#include "ctl/text.h"
#include "io/error.h"
#include "io/object-file.h"
#include "object/object.h"

#include <string.h>
#include <unistd.h>

static const char usage[] = "usage: domybsctl object import FILE | list | show NAME | verify NAME|--all | remove NAME";

/* ---- progress ---- */

typedef struct {
  Ctl *ctl;
  CtlProgress *progress;
} Course;

static gboolean
show_progress (guint64 done, guint64 total, gpointer data) {
  Course *course = data;
  g_autofree char *so_far = text_size_short (done), *all = text_size_short (total);
  g_autofree char *text = g_strdup_printf ("%s of %s", so_far, all);

  if (ctl_interrupted (course->ctl))
    return FALSE;
  ctl_progress_show (course->progress, (double)done / (double)total, text);
  return TRUE;
}

/* ---- saying ---- */

static void
json_users (Ctl *ctl, GPtrArray *users) {
  JsonBuilder *builder = ctl_json (ctl);

  json_builder_set_member_name (builder, "users");
  json_builder_begin_array (builder);
  for (unsigned i = 0; i < users->len; i++) {
    const ObjectUser *user = users->pdata[i];

    json_builder_begin_object (builder);
    ctl_json_string (ctl, "name", user->name);
    ctl_json_int (ctl, "pid", user->pid);
    json_builder_end_object (builder);
  }
  json_builder_end_array (builder);
}

/* An object of json.md, as the innermost value. */
static void
json_object (Ctl *ctl, const Object *object) {
  g_autoptr (GPtrArray) users = object_users (object->path);
  JsonBuilder *builder = ctl_json (ctl);

  json_builder_begin_object (builder);
  ctl_json_string (ctl, "name", object->name);
  ctl_json_string (ctl, "file", object->path);
  if (!object->problem) {
    ctl_json_bytes (ctl, "size-bytes", object->size_bytes);
    ctl_json_bytes (ctl, "stored-bytes", object->stored_bytes);
    ctl_json_string (ctl, "id", object->id);
  }
  ctl_json_bytes (ctl, "disk-bytes", object->disk_bytes);
  ctl_json_int (ctl, "imported-at", object->imported_at);
  ctl_json_string (ctl, "problem", object->problem ? object->problem->message : NULL);
  json_users (ctl, users);
  json_builder_end_object (builder);
}

static void
json_member (Ctl *ctl, const Object *object) {
  JsonBuilder *builder = ctl_json (ctl);

  if (!builder)
    return;
  json_builder_set_member_name (builder, "object");
  json_object (ctl, object);
}

/* ---- import ---- */

/* "/srv/images/Debian-13.raw" → "debian-13", as far as it goes. */
static char *
name_from (const char *file) {
  g_autofree char *base = g_path_get_basename (file), *lower = g_ascii_strdown (base, -1);
  char *dot = strchr (lower, '.');

  if (dot)
    *dot = '\0';
  return g_steal_pointer (&lower);
}

static gboolean
import (Ctl *ctl, const char *file, const char *name, GError **error) {
  g_autofree char *own_name = name ? g_strdup (name) : name_from (file);
  g_autofree char *path = NULL, *size = NULL, *stored = NULL;
  g_autoptr (GError) reason = NULL;
  g_autoptr (Object) object = NULL;
  struct object_header header;
  Course course = { .ctl = ctl };
  gboolean ok;

  if (!name && !object_name_is_good (own_name))
    return ctl_fail (error, CTL_ERROR_USAGE,
                     "object: no name can be made of '%s'; say one with --name (at most %u of a-z, 0-9 and '-')", file,
                     OBJECT_NAME_BYTES_MAX);
  if (!object_check_name (own_name, error) || !object_make_folder (error))
    return FALSE;
  path = object_path (own_name);
  ctl_interrupt_begin (ctl);
  course.progress = ctl_progress_new (ctl, own_name);
  ok = object_file_import (file, path, show_progress, &course, &header, &reason);
  ctl_progress_end (course.progress);
  ctl_interrupt_end (ctl);
  if (!ok && ctl->interrupted)
    return ctl_fail (error, CTL_ERROR_FAILED, "object '%s': nothing was imported", own_name);
  if (g_error_matches (reason, DOMYBS_ERROR, DOMYBS_ERROR_IN_USE))
    return ctl_fail (error, CTL_ERROR_REFUSED,
                     "object '%s': there is one already; remove it first, or import it under another --name", own_name);
  if (!ok) {
    object_take_error (error, own_name, g_steal_pointer (&reason));
    return FALSE;
  }
  object = object_read (own_name, error);
  if (!object)
    return FALSE;
  size = text_size_short (header.size_bytes);
  stored = text_size_short (header.n_stored * OBJECT_PAGE_BYTES);
  json_member (ctl, object);
  ctl_say (ctl, "Object '%s' has the content of %s: %s, of which %s are not zeros.", own_name, file, size, stored);
  return TRUE;
}

/* ---- list, show ---- */

static gboolean
list (Ctl *ctl, GError **error) {
  static const char *const heads[] = { "NAME", ">SIZE", ">STORED", "USED BY", NULL };
  g_autoptr (GPtrArray) objects = object_list (error);
  g_autoptr (TextTable) table = text_table_new (heads);
  JsonBuilder *builder = ctl_json (ctl);
  g_autofree char *text = NULL;
  int columns, lines;

  if (!objects)
    return FALSE;
  if (builder) {
    json_builder_set_member_name (builder, "objects");
    json_builder_begin_array (builder);
    for (unsigned i = 0; i < objects->len; i++)
      json_object (ctl, objects->pdata[i]);
    json_builder_end_array (builder);
    return TRUE;
  }
  if (objects->len == 0) {
    ctl_say (ctl, "There are no objects; 'domybsctl object import FILE' makes one.");
    return TRUE;
  }
  for (unsigned i = 0; i < objects->len; i++) {
    const Object *object = objects->pdata[i];
    g_autoptr (GPtrArray) users = object_users (object->path);
    g_autofree char *size = text_size_short (object->size_bytes), *stored = text_size_short (object->stored_bytes);
    GString *names = g_string_new (object->problem ? "damaged" : users->len ? NULL : "-");

    for (unsigned k = 0; k < users->len; k++)
      g_string_append_printf (names, "%s%s", names->len ? ", " : "", ((const ObjectUser *)users->pdata[k])->name);
    text_table_add (table, object->name, object->problem ? "?" : size, object->problem ? "?" : stored, names->str, NULL);
    g_string_free (names, TRUE);
    if (object->problem)
      ctl_warn (ctl, "object '%s': %s", object->name, object->problem->message);
  }
  term_size (STDOUT_FILENO, &columns, &lines);
  text = text_table_format (table, columns);
  ctl_print (ctl, text);
  return TRUE;
}

static gboolean
show (Ctl *ctl, const char *name, GError **error) {
  g_autoptr (Object) object = object_read (name, error);
  g_autofree char *size = NULL, *stored = NULL, *disk = NULL, *who = NULL, *when = NULL, *text = NULL;
  g_autoptr (GPtrArray) users = NULL;
  g_autoptr (GDateTime) time = NULL;

  if (!object)
    return FALSE;
  json_member (ctl, object);
  if (object->problem)
    return ctl_fail (error, CTL_ERROR_FAILED, "object '%s': %s; remove it and import it again", name, object->problem->message);
  users = object_users (object->path);
  who = object_users_text (users);
  size = text_size (object->size_bytes);
  stored = text_size (object->stored_bytes);
  disk = text_size_short (object->disk_bytes);
  time = g_date_time_new_from_unix_local (object->imported_at);
  when = time ? g_date_time_format (time, "%Y-%m-%d %H:%M:%S") : g_strdup ("?");
  text = g_strdup_printf (
      "Object         %s\nSize           %s\nNot zeros      %s\nTakes          %s in %s\nImported       %s\nId             %s\n"
      "Used by        %s\n",
      object->name, size, stored, disk, object->path, when, object->id, who ? who : "nobody");
  ctl_print (ctl, text);
  return TRUE;
}

/* ---- verify ---- */

static gboolean
verify_one (Ctl *ctl, const Object *object, GError **error) {
  g_autoptr (GError) reason = NULL;
  g_autoptr (ObjectFile) file = object_file_open (object->path, &reason);
  guint64 damaged = 0, first = 0;
  Course course = { .ctl = ctl };
  gboolean ok = FALSE;

  if (file) {
    course.progress = ctl_progress_new (ctl, object->name);
    ok = object_file_verify (file, show_progress, &course, &damaged, &first, &reason);
    ctl_progress_end (course.progress);
  }
  if (ctl_json (ctl) && file && ok) {
    JsonBuilder *builder = ctl_json (ctl);

    json_builder_begin_object (builder);
    ctl_json_string (ctl, "name", object->name);
    ctl_json_int (ctl, "pages", (gint64)file->n_pages);
    ctl_json_int (ctl, "damaged-pages", (gint64)damaged);
    if (damaged)
      ctl_json_int (ctl, "first-damaged-page", (gint64)first);
    else
      ctl_json_null (ctl, "first-damaged-page");
    json_builder_end_object (builder);
  }
  if (!ok && ctl->interrupted)
    return ctl_fail (error, CTL_ERROR_FAILED, "object '%s': not all of it was verified", object->name);
  if (!ok) {
    object_take_error (error, object->name, g_steal_pointer (&reason));
    return FALSE;
  }
  if (damaged)
    return ctl_fail (error, CTL_ERROR_FAILED,
                     "object '%s': %" G_GUINT64_FORMAT " of %" G_GUINT64_FORMAT
                     " pages are damaged, the first one is page %" G_GUINT64_FORMAT "; remove it and import it again",
                     object->name, damaged, file->n_pages, first);
  ctl_say (ctl, "Object '%s' is good.", object->name);
  return TRUE;
}

/* Goes on with the others after a damaged one: the first error is the command's, the others are warnings. */
static gboolean
verify (Ctl *ctl, const char *name, GError **error) {
  g_autoptr (GPtrArray) objects = NULL;
  g_autoptr (GError) first = NULL;

  if (name) {
    Object *object = object_read (name, error);

    if (!object)
      return FALSE;
    objects = g_ptr_array_new ();
    g_ptr_array_add (objects, object);
    g_ptr_array_set_free_func (objects, (GDestroyNotify)object_free);
  } else if (!(objects = object_list (error))) {
    return FALSE;
  }
  if (ctl_json (ctl)) {
    json_builder_set_member_name (ctl_json (ctl), "verified");
    json_builder_begin_array (ctl_json (ctl));
  }
  ctl_interrupt_begin (ctl);
  for (unsigned i = 0; i < objects->len && !ctl_interrupted (ctl); i++) {
    g_autoptr (GError) reason = NULL;

    if (verify_one (ctl, objects->pdata[i], &reason))
      continue;
    if (first)
      ctl_warn (ctl, "%s", reason->message);
    else
      first = g_steal_pointer (&reason);
  }
  ctl_interrupt_end (ctl);
  if (ctl_json (ctl))
    json_builder_end_array (ctl_json (ctl));
  if (!first)
    return TRUE;
  g_propagate_error (error, g_steal_pointer (&first));
  return FALSE;
}

/* ---- remove ---- */

static gboolean
remove_one (Ctl *ctl, const char *name, GError **error) {
  g_autoptr (Object) object = object_read (name, error);
  g_autoptr (GError) reason = NULL;

  if (!object)
    return FALSE;
  if (object_file_remove (object->path, &reason)) {
    ctl_json_string (ctl, "name", name);
    ctl_say (ctl, "Object '%s' is removed.", name);
    return TRUE;
  }
  if (g_error_matches (reason, DOMYBS_ERROR, DOMYBS_ERROR_IN_USE)) {
    g_autoptr (GPtrArray) users = object_users (object->path);
    g_autofree char *who = object_users_text (users);

    return ctl_fail (error, CTL_ERROR_REFUSED, "object '%s': it is in use by %s; detach it there first", name,
                     who ? who : "a process that can't be seen from here");
  }
  object_take_error (error, name, g_steal_pointer (&reason));
  return FALSE;
}

/* ---- all of it ---- */

gboolean
command_object (Ctl *ctl, int argc, char **argv, GError **error) {
  g_autofree char *name = NULL;
  gboolean all = FALSE;
  const GOptionEntry entries[] = {
    { "name", 0, 0, G_OPTION_ARG_STRING, &name, "import: the object's name (made of FILE's)", "NAME" },
    { "all", 'a', 0, G_OPTION_ARG_NONE, &all, "verify: all objects", NULL },
    G_OPTION_ENTRY_NULL,
  };
  const char *action, *argument;

  if (!ctl_parse (ctl, entries, &argc, &argv, 1, 2, error))
    return FALSE;
  action = argv[0];
  argument = argc > 1 ? argv[1] : NULL;
  if (name && strcmp (action, "import") != 0)
    return ctl_fail (error, CTL_ERROR_USAGE, "object %s: --name is for import; %s", action, usage);
  if (all && strcmp (action, "verify") != 0)
    return ctl_fail (error, CTL_ERROR_USAGE, "object %s: --all is for verify; %s", action, usage);
  if (strcmp (action, "list") == 0)
    return argument ? ctl_fail (error, CTL_ERROR_USAGE, "object list: '%s' is one argument too many; %s", argument, usage)
                    : list (ctl, error);
  if (strcmp (action, "verify") == 0 && all)
    return argument ? ctl_fail (error, CTL_ERROR_USAGE, "object verify: a name and --all can't both be; %s", usage)
                    : verify (ctl, NULL, error);
  if (strcmp (action, "import") != 0 && strcmp (action, "show") != 0 && strcmp (action, "verify") != 0
      && strcmp (action, "remove") != 0)
    return ctl_fail (error, CTL_ERROR_USAGE, "object: '%s' is none of import, list, show, verify, remove; %s", action, usage);
  if (!argument)
    return ctl_fail (error, CTL_ERROR_USAGE, "object %s: %s is missing; %s", action,
                     strcmp (action, "import") == 0 ? "a file" : "a name", usage);
  return strcmp (action, "import") == 0   ? import (ctl, argument, name, error)
         : strcmp (action, "show") == 0   ? show (ctl, argument, error)
         : strcmp (action, "verify") == 0 ? verify (ctl, argument, error)
                                          : remove_one (ctl, argument, error);
}
