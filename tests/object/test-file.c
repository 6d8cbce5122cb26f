/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Files of objects: what is imported is what is read, every damage is found and where it is, and nothing is ever half there. */
#include "object-scene.h"
#include "testing.h"

#include "io/error.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utime.h>

#include <glib/gstdio.h>

/* The damaged pages that it finds; -1: the file is refused. */
static gint64
verify (const Scene *scene, guint64 *ret_first) {
  g_autoptr (GError) error = NULL;
  g_autoptr (ObjectFile) file = object_file_open (scene->path, &error);
  guint64 damaged;

  if (!file) {
    g_assert_error (error, DOMYBS_ERROR, DOMYBS_ERROR_CORRUPT);
    return -1;
  }
  g_assert_true (object_file_verify (file, NULL, NULL, &damaged, ret_first, &error));
  g_assert_no_error (error);
  return (gint64)damaged;
}

static void
import_all (void) {
  static const guint64 sizes[] = { 1, 2, 255, 256, 257, 3000 };

  for (unsigned i = 0; i < G_N_ELEMENTS (sizes); i++) {
    g_autoptr (Scene) scene = scene_new (sizes[i]);
    g_autoptr (ObjectFile) file = NULL;
    g_autofree guint8 *bytes = g_malloc (sizes[i] * OBJECT_PAGE_BYTES);
    guint64 first, stored = 0;
    struct stat st;

    scene_import (scene);
    g_assert_cmpint (verify (scene, &first), ==, 0);
    file = object_file_open (scene->path, NULL);
    g_assert_cmpint (pread (file->fd, bytes, sizes[i] * OBJECT_PAGE_BYTES, (off_t)scene_offset (scene, 0)), ==,
                     (gssize)(sizes[i] * OBJECT_PAGE_BYTES));
    g_assert_cmpint (memcmp (bytes, scene->content, sizes[i] * OBJECT_PAGE_BYTES), ==, 0);
    for (guint64 page = 0; page < sizes[i]; page++)
      stored += !scene_page_is_zero (scene, page);
    g_assert_cmpuint (file->header.n_stored, ==, stored);
    g_assert_cmpint (stat (scene->path, &st), ==, 0);
    g_assert_cmpuint ((guint64)st.st_blocks * 512, <=, (stored + 4) * OBJECT_PAGE_BYTES + sizes[i] * 16 + 64 * 1024);
    g_assert_cmpuint (st.st_mode & 0777, ==, 0600);
  }
}

/* Terabytes of nothing take no time and no room. */
static void
import_sparse (void) {
  g_autoptr (Scene) scene = scene_new (1);
  struct stat st;
  guint64 first;

  g_assert_cmpint (truncate (scene->source, 8ll << 30), ==, 0);
  scene->size = 8ull << 30;
  scene_import (scene);
  g_assert_cmpint (stat (scene->path, &st), ==, 0);
  g_assert_cmpint (st.st_blocks, <, 1024);
  g_assert_cmpint (verify (scene, &first), ==, 0);
}

/* Every byte counts but those that nobody reads. */
static void
flips (void) {
  g_autoptr (Scene) scene = scene_new (600);
  const guint64 data = scene_offset (scene, 0), end = scene_offset (scene, scene->n_pages);
  unsigned refused = 0, pages = 0;

  scene_import (scene);
  for (unsigned i = 0; i < testing_steps (600); i++) {
    const guint64 offset = i % 3 == 0 ? testing_below (scene->random, data) : data + testing_below (scene->random, end - data);
    const guint64 page = offset < data ? 0 : (offset - data) / OBJECT_PAGE_BYTES;
    guint64 first = 0;
    gint64 damaged;

    testing_trace ("flip at %" G_GUINT64_FORMAT, offset);
    scene_flip (scene, offset);
    damaged = verify (scene, &first);
    if (offset < data) {
      g_assert_cmpint (damaged, ==, -1);
      refused++;
    } else if (scene_page_is_zero (scene, page)) {
      g_assert_cmpint (damaged, ==, 0);
    } else {
      g_assert_cmpint (damaged, ==, 1);
      g_assert_cmpuint (first, ==, page);
      pages++;
    }
    scene_flip (scene, offset);
  }
  g_test_message ("%u refused, %u pages", refused, pages);
  g_assert_cmpint (verify (scene, &(guint64){ 0 }), ==, 0);
}

static void
exchanged_pages (void) {
  g_autoptr (Scene) scene = scene_new_full (50);
  guint8 a[OBJECT_PAGE_BYTES], b[OBJECT_PAGE_BYTES];
  guint64 first;
  int fd;

  scene_import (scene);
  fd = open (scene->path, O_RDWR | O_CLOEXEC);
  g_assert_cmpint (pread (fd, a, sizeof a, (off_t)scene_offset (scene, 7)), ==, sizeof a);
  g_assert_cmpint (pread (fd, b, sizeof b, (off_t)scene_offset (scene, 30)), ==, sizeof b);
  g_assert_cmpint (pwrite (fd, b, sizeof b, (off_t)scene_offset (scene, 7)), ==, sizeof b);
  g_assert_cmpint (pwrite (fd, a, sizeof a, (off_t)scene_offset (scene, 30)), ==, sizeof a);
  close (fd);
  g_assert_cmpint (verify (scene, &first), ==, 2);
  g_assert_cmpuint (first, ==, 7);
}

static void
wrong_sizes (void) {
  g_autoptr (Scene) scene = scene_new (100);
  const off_t sizes[]
      = { 0, 1, 4095, 4096, 8191, 8192, 8193, (off_t)scene_offset (scene, 100) - 1, (off_t)scene_offset (scene, 100) + 1 };

  scene_import (scene);
  for (unsigned i = G_N_ELEMENTS (sizes); i-- > 0;) {
    g_assert_cmpint (truncate (scene->path, sizes[i]), ==, 0);
    g_assert_cmpint (verify (scene, &(guint64){ 0 }), ==, -1);
  }
  g_unlink (scene->path);
  g_assert_cmpint (mkfifo (scene->path, 0600), ==, 0);
  g_assert_cmpint (verify (scene, &(guint64){ 0 }), ==, -1);
  g_unlink (scene->path);
  g_assert_cmpint (symlink (scene->source, scene->path), ==, 0);
  g_assert_null (object_file_open (scene->path, NULL));
}

/* ---- nothing half ---- */

static unsigned
files_in (const Scene *scene) {
  g_autofree char *folder = g_path_get_dirname (scene->path);
  g_autoptr (GDir) dir = g_dir_open (folder, 0, NULL);
  unsigned n = 0;

  while (g_dir_read_name (dir))
    n++;
  return n;
}

static gboolean
stop_half_way (guint64 done, guint64 total, gpointer data) {
  return done < total / 2;
}

static gboolean
change_half_way (guint64 done, guint64 total, gpointer data) {
  const Scene *scene = data;
  const int fd = open (scene->source, O_WRONLY | O_CLOEXEC);

  g_assert_cmpint (pwrite (fd, "x", 1, 5), ==, 1);
  close (fd);
  return TRUE;
}

static gboolean
somebody_is_faster (guint64 done, guint64 total, gpointer data) {
  const Scene *scene = data;

  return g_file_set_contents (scene->path, "theirs", -1, NULL);
}

static void
nothing_half (void) {
  g_autoptr (Scene) scene = scene_new (1000);
  g_autoptr (GError) stopped = NULL, changed = NULL, late = NULL, there = NULL;
  g_autofree char *theirs = NULL;
  struct object_header header;

  g_assert_false (object_file_import (scene->source, scene->path, stop_half_way, NULL, &header, &stopped));
  g_assert_error (stopped, G_IO_ERROR, G_IO_ERROR_CANCELLED);
  g_assert_cmpuint (files_in (scene), ==, 0);
  g_assert_false (object_file_import (scene->source, scene->path, change_half_way, scene, &header, &changed));
  g_assert_error (changed, DOMYBS_ERROR, DOMYBS_ERROR_FAILED);
  g_assert_nonnull (strstr (changed->message, "changed while it was read"));
  g_assert_cmpuint (files_in (scene), ==, 0);
  g_assert_false (object_file_import (scene->source, scene->path, somebody_is_faster, scene, &header, &late));
  g_assert_error (late, DOMYBS_ERROR, DOMYBS_ERROR_IN_USE);
  g_assert_cmpuint (files_in (scene), ==, 1);
  g_assert_false (object_file_import (scene->source, scene->path, NULL, NULL, &header, &there));
  g_assert_error (there, DOMYBS_ERROR, DOMYBS_ERROR_IN_USE);
  g_assert_true (g_file_get_contents (scene->path, &theirs, NULL, NULL));
  g_assert_cmpstr (theirs, ==, "theirs");
}

/* What a killed import has left goes with the next one; what another one is writing stays. */
static void
left_over (void) {
  g_autoptr (Scene) scene = scene_new (10);
  g_autofree char *folder = g_path_get_dirname (scene->path), *dead = g_build_filename (folder, ".import-AAAAAA", NULL),
                  *alive = g_build_filename (folder, ".import-BBBBBB", NULL);
  const struct utimbuf long_ago = { 1000000, 1000000 };
  struct flock all = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
  int fd;

  g_assert_true (g_file_set_contents (dead, "dead", -1, NULL));
  g_assert_true (g_file_set_contents (alive, "alive", -1, NULL));
  g_assert_cmpint (utime (dead, &long_ago), ==, 0);
  g_assert_cmpint (utime (alive, &long_ago), ==, 0);
  fd = open (alive, O_RDWR | O_CLOEXEC);
  g_assert_cmpint (fcntl (fd, F_OFD_SETLK, &all), ==, 0);
  scene_import (scene);
  g_assert_false (g_file_test (dead, G_FILE_TEST_EXISTS));
  g_assert_true (g_file_test (alive, G_FILE_TEST_EXISTS));
  close (fd);
}

static void
wrong_sources (void) {
  g_autoptr (Scene) scene = scene_new (1);
  struct object_header header;
  static const struct {
    const char *path, *why;
  } wrong[] = { { "/nonexistent", "No such file" },
                { "/", "neither a file" },
                { "/dev/null", "neither a file" },
                { "/dev/zero", "neither a file" } };
  g_autoptr (GError) empty = NULL, large = NULL;

  for (unsigned i = 0; i < G_N_ELEMENTS (wrong); i++) {
    g_autoptr (GError) error = NULL;

    g_assert_false (object_file_import (wrong[i].path, scene->path, NULL, NULL, &header, &error));
    g_assert_nonnull (strstr (error->message, wrong[i].why));
  }
  g_assert_cmpint (truncate (scene->source, 0), ==, 0);
  g_assert_false (object_file_import (scene->source, scene->path, NULL, NULL, &header, &empty));
  g_assert_error (empty, DOMYBS_ERROR, DOMYBS_ERROR_USAGE);
  g_assert_cmpint (truncate (scene->source, (1ll << 40) + 1), ==, 0);
  g_assert_false (object_file_import (scene->source, scene->path, NULL, NULL, &header, &large));
  g_assert_error (large, DOMYBS_ERROR, DOMYBS_ERROR_USAGE);
  g_assert_cmpuint (files_in (scene), ==, 0);
}

static void
locks (void) {
  g_autoptr (Scene) scene = scene_new (10);
  g_autoptr (ObjectFile) one = NULL, two = NULL, again = NULL;
  g_autoptr (GError) error = NULL, gone = NULL;

  scene_import (scene);
  one = object_file_open (scene->path, NULL);
  two = object_file_open (scene->path, NULL);
  g_assert_nonnull (two);
  g_assert_false (object_file_remove (scene->path, &error));
  g_assert_error (error, DOMYBS_ERROR, DOMYBS_ERROR_IN_USE);
  g_clear_pointer (&one, object_file_free);
  g_assert_false (object_file_remove (scene->path, NULL));
  g_clear_pointer (&two, object_file_free);
  g_assert_true (object_file_remove (scene->path, NULL));
  again = object_file_open (scene->path, &gone);
  g_assert_null (again);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/object/file/import", import_all);
  g_test_add_func ("/object/file/sparse", import_sparse);
  g_test_add_func ("/object/file/flips", flips);
  g_test_add_func ("/object/file/exchanged", exchanged_pages);
  g_test_add_func ("/object/file/wrong-sizes", wrong_sizes);
  g_test_add_func ("/object/file/nothing-half", nothing_half);
  g_test_add_func ("/object/file/left-over", left_over);
  g_test_add_func ("/object/file/wrong-sources", wrong_sources);
  g_test_add_func ("/object/file/locks", locks);
  return g_test_run ();
}
