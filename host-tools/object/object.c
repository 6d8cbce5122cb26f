/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "object/object.h"
#include "error.h"
#include "host/launch.h"
#include "io/error.h"
#include "io/object-file.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include <glib/gstdio.h>

#define SUFFIX ".object" /* launch_object_path */

void
object_free (Object *object) {
  if (!object)
    return;
  g_free (object->name);
  g_free (object->path);
  g_free (object->id);
  g_clear_error (&object->problem);
  g_free (object);
}

static void
free_object (gpointer data) {
  object_free (data);
}

gboolean
object_check_name (const char *name, GError **error) {
  return object_name_is_good (name)
         || ctl_fail (
             error, CTL_ERROR_USAGE,
             "object '%s': that is no name for an object: write at most %u of a-z, 0-9 and '-', and not shared, remote "
             "or mem-…, which far disks are called",
             name, OBJECT_NAME_BYTES_MAX);
}

char *
object_path (const char *name) {
  return launch_object_path (name);
}

void
object_take_error (GError **error, const char *name, GError *from) {
  const CtlErrorCode code = g_error_matches (from, DOMYBS_ERROR, DOMYBS_ERROR_IN_USE)  ? CTL_ERROR_REFUSED
                            : g_error_matches (from, DOMYBS_ERROR, DOMYBS_ERROR_USAGE) ? CTL_ERROR_USAGE
                                                                                       : CTL_ERROR_FAILED;

  ctl_fail (error, code, "object '%s': %s", name, from->message);
  g_error_free (from);
}

/* ---- reading ---- */

static Object *
read_one (const char *name, const struct stat *st) {
  Object *object = g_new0 (Object, 1);
  g_autoptr (ObjectFile) file = NULL;
  GString *id;

  object->name = g_strdup (name);
  object->path = object_path (name);
  object->disk_bytes = (guint64)st->st_blocks * 512;
  object->imported_at = st->st_mtime;
  file = object_file_peek (object->path, &object->problem);
  if (!file)
    return object;
  object->size_bytes = file->header.size_bytes;
  object->stored_bytes = file->header.n_stored * OBJECT_PAGE_BYTES;
  id = g_string_new (NULL);
  for (unsigned i = 0; i < OBJECT_SUM_BYTES; i++)
    g_string_append_printf (id, "%02x", file->id[i]);
  object->id = g_string_free (id, FALSE);
  return object;
}

Object *
object_read (const char *name, GError **error) {
  g_autofree char *path = NULL;
  struct stat st;

  if (!object_check_name (name, error))
    return NULL;
  path = object_path (name);
  if (lstat (path, &st) == 0)
    return read_one (name, &st);
  if (errno == ENOENT)
    ctl_fail (error, CTL_ERROR_NOT_FOUND, "object '%s': there is none of that name; 'domybsctl object list' shows all", name);
  else
    ctl_fail (error, CTL_ERROR_ACCESS, "object '%s': %s: %s", name, path, g_strerror (errno));
  return NULL;
}

static int
by_name (gconstpointer a, gconstpointer b) {
  return strcmp ((*(Object *const *)a)->name, (*(Object *const *)b)->name);
}

GPtrArray *
object_list (GError **error) {
  g_autoptr (GPtrArray) objects = g_ptr_array_new_with_free_func (free_object);
  g_autoptr (GError) reason = NULL;
  g_autoptr (GDir) dir = g_dir_open (launch_object_folder (), 0, &reason);
  const char *file;

  if (!dir && !g_error_matches (reason, G_FILE_ERROR, G_FILE_ERROR_NOENT)) {
    ctl_fail (error, CTL_ERROR_ACCESS, "%s; objects are root's to see", reason->message);
    return NULL;
  }
  while (dir && (file = g_dir_read_name (dir))) {
    g_autofree char *name = g_str_has_suffix (file, SUFFIX) ? g_strndup (file, strlen (file) - strlen (SUFFIX)) : NULL;
    g_autofree char *path = NULL;
    struct stat st;

    if (!name || !object_name_is_good (name))
      continue;
    path = object_path (name);
    if (lstat (path, &st) == 0)
      g_ptr_array_add (objects, read_one (name, &st));
  }
  g_ptr_array_sort (objects, by_name);
  return g_steal_pointer (&objects);
}

gboolean
object_make_folder (GError **error) {
  if (g_mkdir_with_parents (launch_object_folder (), 0700) == 0)
    return TRUE;
  return ctl_fail (error, errno == EACCES || errno == EPERM ? CTL_ERROR_ACCESS : CTL_ERROR_FAILED,
                   "can't make the folder %s: %s", launch_object_folder (), g_strerror (errno));
}
