/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "object-scene.h"
#include "testing.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <glib/gstdio.h>

static Scene *
make (guint64 n_pages, gboolean full) {
  Scene *scene = g_new0 (Scene, 1);
  g_autofree char *objects = NULL;
  g_autoptr (GError) error = NULL;

  scene->folder = g_dir_make_tmp ("domybs-object-XXXXXX", &error);
  g_assert_no_error (error);
  scene->random = testing_rand ();
  objects = g_build_filename (scene->folder, "objects", NULL);
  g_assert_cmpint (g_mkdir (objects, 0700), ==, 0);
  scene->path = g_build_filename (objects, "base.object", NULL);
  scene->source = g_build_filename (scene->folder, "source", NULL);
  scene->n_pages = n_pages;
  scene->size = n_pages * OBJECT_PAGE_BYTES - (guint64)g_rand_int_range (scene->random, 0, OBJECT_PAGE_BYTES);
  scene->content = g_malloc0 (n_pages * OBJECT_PAGE_BYTES);
  for (guint64 i = 0; i < n_pages; i++)
    if (full || g_rand_int_range (scene->random, 0, 3))
      for (unsigned k = 0; k < OBJECT_PAGE_BYTES; k += 4) {
        const guint32 value = g_rand_int (scene->random);

        if (i * OBJECT_PAGE_BYTES + k + 4 <= scene->size)
          memcpy (scene->content + i * OBJECT_PAGE_BYTES + k, &value, sizeof value);
      }
  g_assert_true (g_file_set_contents (scene->source, (const char *)scene->content, (gssize)scene->size, &error));
  return scene;
}

Scene *
scene_new (guint64 n_pages) {
  return make (n_pages, FALSE);
}

Scene *
scene_new_full (guint64 n_pages) {
  return make (n_pages, TRUE);
}

static void
remove_folder (const char *path) {
  g_autoptr (GDir) dir = g_dir_open (path, 0, NULL);
  const char *name;

  while (dir && (name = g_dir_read_name (dir))) {
    g_autofree char *file = g_build_filename (path, name, NULL);

    if (g_file_test (file, G_FILE_TEST_IS_DIR))
      remove_folder (file);
    else
      g_unlink (file);
  }
  g_rmdir (path);
}

void
scene_free (Scene *scene) {
  remove_folder (scene->folder);
  g_rand_free (scene->random);
  g_free (scene->folder);
  g_free (scene->source);
  g_free (scene->path);
  g_free (scene->content);
  g_free (scene);
}

void
scene_import (Scene *scene) {
  struct object_header header;
  g_autoptr (GError) error = NULL;

  object_file_import (scene->source, scene->path, NULL, NULL, &header, &error);
  g_assert_no_error (error);
  g_assert_cmpuint (header.size_bytes, ==, scene->size);
}

gboolean
scene_page_is_zero (const Scene *scene, guint64 page) {
  const guint8 *bytes = scene->content + page * OBJECT_PAGE_BYTES;

  return bytes[0] == 0 && memcmp (bytes, bytes + 1, OBJECT_PAGE_BYTES - 1) == 0;
}

guint64
scene_offset (const Scene *scene, guint64 page) {
  return object_data_offset (scene->n_pages) + page * OBJECT_PAGE_BYTES;
}

void
scene_flip (const Scene *scene, guint64 offset) {
  const int fd = open (scene->path, O_RDWR | O_CLOEXEC);
  guint8 byte;

  g_assert_cmpint (pread (fd, &byte, 1, (off_t)offset), ==, 1);
  byte ^= 0x10;
  g_assert_cmpint (pwrite (fd, &byte, 1, (off_t)offset), ==, 1);
  close (fd);
}

/* ---- programs ---- */

struct far *
scene_serve (Scene *scene, const char *name, const char *options) {
  g_autofree char *socket = g_strdup_printf ("%s/%s.sock", scene->folder, name),
                  *control = g_strdup_printf ("%s/%s.control", scene->folder, name),
                  *object = g_strdup_printf ("--object=base,file=%s,socket=%s%s", scene->path, socket, options),
                  *name_option = g_strdup_printf ("--name=%s", name),
                  *control_option = g_strdup_printf ("--control-socket=%s", control);
  struct far *far = far_start_arguments (CTL (name_option, object, control_option));

  g_free (far->backend->control_path);
  far->backend->control_path = g_steal_pointer (&control);
  far->n_disks = 1;
  far->socket_paths[0] = g_steal_pointer (&socket);
  return far;
}

struct blk *
scene_connect (struct far *far) {
  return far_connect (far, 0);
}

gint64
scene_status (struct far *far, const char *member) {
  g_autoptr (JsonNode) answer = backend_control_again (far->backend, "{\"execute\":\"status\"}");
  JsonObject *object = json_object_get_object_member (json_node_get_object (answer), "return");

  object = json_array_get_object_element (json_object_get_array_member (object, "objects"), 0);
  g_assert_true (json_object_has_member (object, member));
  return json_object_get_int_member (object, member);
}

guint8
scene_read (Scene *scene, struct blk *blk, guint64 first, unsigned n) {
  static guint8 bytes[BLK_SLOT_PAGES * OBJECT_PAGE_BYTES];
  guint8 status;

  memset (bytes, 0xee, sizeof bytes);
  status = blk_io (blk, BLK_IN, first, n, bytes);
  if (status == BLK_S_OK)
    g_assert_cmpint (memcmp (bytes, scene->content + first * OBJECT_PAGE_BYTES, n * (gsize)OBJECT_PAGE_BYTES), ==, 0);
  return status;
}

int
scene_ctl (Scene *scene, char **ret_said, const char *const *arguments) {
  g_autoptr (GPtrArray) argv = g_ptr_array_new ();
  g_auto (GStrv) env = g_get_environ ();
  g_autofree char *out = NULL, *err = NULL;
  g_autoptr (GError) error = NULL;
  int status;

  env = g_environ_setenv (env, "DOMYBS_TEST_RUNDIR", scene->folder, TRUE);
  env = g_environ_setenv (env, "LC_ALL", "C.UTF-8", TRUE);
  g_ptr_array_add (argv, (gpointer)g_getenv ("DOMYBSCTL"));
  for (; *arguments; arguments++)
    g_ptr_array_add (argv, (gpointer)*arguments);
  g_ptr_array_add (argv, NULL);
  g_spawn_sync (NULL, (char **)argv->pdata, env, G_SPAWN_DEFAULT, NULL, NULL, &out, &err, &status, &error);
  g_assert_no_error (error);
  if (ret_said)
    *ret_said = g_strconcat (out, err, NULL);
  testing_trace ("%s%s", out, err);
  return WIFEXITED (status) ? WEXITSTATUS (status) : 128 + WTERMSIG (status);
}
