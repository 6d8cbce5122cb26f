/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Files and devices as storage: what is accepted, what comes back, what happens without room. */
#include "storage-scene.h"

#include "io/error.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define MIB ((guint64)1 << 20)

static Storage *
open_storage (const char *path, guint64 bytes, int *ret_fd) {
  g_autoptr (GError) error = NULL;
  const int fd = storage_open_file (path, bytes, &error);
  Storage *storage;

  g_assert_no_error (error);
  g_assert_cmpint (fd, >=, 0);
  storage = storage_new (path, fd, bytes, -1, -1, &error);
  g_assert_no_error (error);
  g_test_message ("%s", storage_description (storage));
  if (ret_fd)
    *ret_fd = fd;
  else
    close (fd);
  return storage;
}

static void
round_trip (const char *where) {
  char *folder = scene_folder (where);
  g_autofree char *path = g_build_filename (folder, "far", NULL);
  g_autoptr (GRand) rand = testing_rand ();
  Storage *storage = open_storage (path, 64 * MIB, NULL);
  const SceneTrip trip = {
    .storage = storage, .bytes = 64 * MIB, .most = 2 * MIB, .steps = testing_steps (4000), .at_a_time = 200, .discards = TRUE
  };

  scene_round_trip (rand, &trip);
  storage_free (storage);
  scene_folder_free (folder);
}

static void
test_tmpfs (void) {
  round_trip ("/dev/shm");
}

static void
test_disk (void) {
  round_trip ("/var/tmp");
}

/* ---- what is accepted ---- */

typedef struct {
  char *folder, *path;
} Place;

static void
set_up (Place *place, gconstpointer where) {
  place->folder = scene_folder (where);
  place->path = g_build_filename (place->folder, "far", NULL);
}

static void
tear_down (Place *place, gconstpointer where) {
  g_free (place->path);
  scene_folder_free (place->folder);
}

static void
expect_refused (const char *path, guint64 bytes, const char *text) {
  g_autoptr (GError) error = NULL;

  g_assert_cmpint (storage_open_file (path, bytes, &error), ==, -1);
  g_assert_nonnull (error);
  g_test_message ("%s", error->message);
  if (!strstr (error->message, text))
    g_error ("'%s' does not say '%s'", error->message, text);
}

static void
make_file (const char *path, const char *text) {
  g_autoptr (GError) error = NULL;

  g_file_set_contents (path, text, -1, &error);
  g_assert_no_error (error);
}

static void
test_accepted (Place *place, gconstpointer where) {
  struct stat st;
  int fd;

  /* made; again, larger, smaller; empty */
  for (guint64 i = 4; i > 0; i--) {
    const guint64 bytes = (i % 3 + 1) * MIB;

    storage_free (open_storage (place->path, bytes, NULL));
    g_assert_cmpint (stat (place->path, &st), ==, 0);
    g_assert_cmpint (st.st_size, ==, bytes + STORAGE_ALIGN);
    g_assert_cmpint (st.st_mode & 07777, ==, 0600);
    g_assert_cmpint (st.st_blocks, <=, 64);
  }
  unlink (place->path);
  fd = open (place->path, O_CREAT | O_WRONLY | O_CLOEXEC, 0640);
  close (fd);
  storage_free (open_storage (place->path, MIB, NULL));
}

/* Whatever was in the file is gone when it is opened anew: it has been given back. */
static void
test_emptied (Place *place, gconstpointer where) {
  guint8 *buf = scene_buffer (MIB);
  Storage *storage = open_storage (place->path, MIB, NULL);

  scene_pattern (buf, 0, MIB, 3);
  g_assert_cmpint (scene_do (storage, TRUE, 0, buf, MIB), ==, 0);
  storage_free (storage);
  storage = open_storage (place->path, MIB, NULL);
  g_assert_cmpint (scene_do (storage, FALSE, 0, buf, MIB), ==, 0);
  for (guint64 i = 0; i < MIB; i++)
    g_assert_cmpint (buf[i], ==, 0);
  storage_free (storage);
  free (buf);
}

static void
test_refused (Place *place, gconstpointer where) {
  g_autofree char *other = g_build_filename (place->folder, "other", NULL),
                  *nowhere = g_build_filename (place->folder, "no", "far", NULL);
  g_autofree char *content = NULL;

  expect_refused (place->folder, MIB, "neither a file nor");
  expect_refused (nowhere, MIB, "No such file");
  expect_refused ("/dev/null", MIB, "neither a file nor");
  expect_refused (place->path, 0, "size");
  expect_refused (place->path, MIB + 1, "size");
  g_assert_cmpint (mkfifo (place->path, 0600), ==, 0);
  expect_refused (place->path, MIB, "neither a file nor");
  unlink (place->path);

  make_file (other, "a diary of ten years");
  expect_refused (other, MIB, "holds something else");
  g_assert_cmpint (symlink ("other", place->path), ==, 0);
  expect_refused (place->path, MIB, "symbolic link");
  unlink (place->path);
  g_assert_cmpint (symlink ("not-there", place->path), ==, 0);
  expect_refused (place->path, MIB, "No such file");
  unlink (place->path);
  g_assert_cmpint (link (other, place->path), ==, 0);
  expect_refused (place->path, MIB, "hard link");
  g_assert_true (g_file_get_contents (other, &content, NULL, NULL));
  g_assert_cmpstr (content, ==, "a diary of ten years");
}

/* A page of zeros at the end, or a mark that is not at the end, are no mark. */
static void
test_marks (Place *place, gconstpointer where) {
  int fd;

  storage_free (open_storage (place->path, MIB, NULL));
  g_assert_cmpint (truncate (place->path, (off_t)MIB), ==, 0);
  expect_refused (place->path, MIB, "holds something else");
  g_assert_cmpint (truncate (place->path, (off_t)MIB + 8192), ==, 0);
  expect_refused (place->path, MIB, "holds something else");
  fd = open (place->path, O_WRONLY | O_CLOEXEC | O_TRUNC);
  g_assert_cmpint (pwrite (fd, "domybs far pages", 16, (off_t)MIB), ==, 16);
  g_assert_cmpint (ftruncate (fd, (off_t)MIB + 4096), ==, 0);
  close (fd);
  expect_refused (place->path, MIB, "holds something else");
}

static void
test_other_user (Place *place, gconstpointer where) {
  if (geteuid () != 0) {
    g_test_skip ("needs root");
    return;
  }
  storage_free (open_storage (place->path, MIB, NULL));
  g_assert_cmpint (chown (place->path, 65534, 65534), ==, 0);
  expect_refused (place->path, MIB, "another user");
}

/* The lock goes with the last descriptor: a child's counts as well. */
static void
test_lock (Place *place, gconstpointer where) {
  Storage *storage;
  int fd, status;
  pid_t child;

  storage = open_storage (place->path, MIB, &fd);
  expect_refused (place->path, MIB, "in use by another VM");
  close (fd);
  expect_refused (place->path, MIB, "in use by another VM");
  storage_free (storage);

  storage = open_storage (place->path, MIB, &fd);
  child = fork ();
  if (child == 0) {
    pause ();
    _exit (0);
  }
  storage_free (storage);
  close (fd);
  expect_refused (place->path, MIB, "in use by another VM");
  kill (child, SIGKILL);
  waitpid (child, &status, 0);
  for (int i = 0; i < 500; i++) { /* the ring goes a little later than its process */
    fd = storage_open_file (place->path, MIB, NULL);
    if (fd >= 0)
      break;
    g_usleep (10000);
  }
  g_assert_cmpint (fd, >=, 0);
  close (fd);
}

/* ---- room ---- */

static guint64
used (const char *path) {
  struct stat st;

  g_assert_cmpint (stat (path, &st), ==, 0);
  return (guint64)st.st_blocks * 512;
}

static void
test_allocate (Place *place, gconstpointer where) {
  g_autoptr (GError) error = NULL;
  Storage *storage = open_storage (place->path, 64 * MIB, NULL);
  guint8 *buf = scene_buffer (2 * MIB);

  g_assert_true (storage_allocate (storage, 8 * MIB, 16 * MIB, &error));
  g_assert_cmpuint (used (place->path), >=, 16 * MIB);
  g_assert_cmpuint (used (place->path), <, 20 * MIB);
  for (guint64 at = 8 * MIB; at < 24 * MIB; at += 2 * MIB) {
    scene_pattern (buf, at, 2 * MIB, 9);
    g_assert_cmpint (scene_do (storage, TRUE, at, buf, 2 * MIB), ==, 0);
  }
  for (guint64 at = 8 * MIB; at < 24 * MIB; at += 2 * MIB) /* merged */
    storage_discard (storage, at, 2 * MIB);
  /* a discard before does not take away what is allocated afterwards */
  g_assert_true (storage_allocate (storage, 20 * MIB, 2 * MIB, &error));
  storage_kick (storage);
  g_assert_cmpint (scene_do (storage, FALSE, 20 * MIB, buf, 2 * MIB), ==, 0);
  for (guint64 i = 0; i < 2 * MIB; i++)
    g_assert_cmpint (buf[i], ==, 0);
  g_assert_cmpuint (used (place->path), >=, 2 * MIB);
  g_assert_cmpuint (used (place->path), <, 6 * MIB);
  storage_free (storage);
  free (buf);
}

/* Far more discards than wait at a time, each far from the one before. */
static void
test_many_discards (Place *place, gconstpointer where) {
  enum { N = 2000 };
  Storage *storage = open_storage (place->path, 2 * N * 8192, NULL);
  guint8 *buf = scene_buffer (4096);

  g_assert_true (storage_allocate (storage, 0, 2 * N * 8192, NULL));
  for (guint64 i = 0; i < N; i++)
    storage_discard (storage, i * 2 * 8192, 8192);
  storage_kick (storage);
  for (guint64 i = 0; i < N; i += 100)
    g_assert_cmpint (scene_do (storage, FALSE, i * 2 * 8192, buf, 4096), ==, 0);
  for (int i = 0; i < 1000 && used (place->path) > N * 8192 + MIB; i++)
    scene_run_for (10);
  g_assert_cmpuint (used (place->path), <=, N * 8192 + MIB);
  storage_free (storage);
  free (buf);
}

static gboolean
run (const char *const *argv) {
  int status;

  return g_spawn_sync (NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH | G_SPAWN_STDERR_TO_DEV_NULL, NULL, NULL, NULL, NULL,
                       &status, NULL)
         && status == 0;
}

static void
test_no_space (Place *place, gconstpointer where) {
  const char *const mount[] = { "mount", "-t", "tmpfs", "-o", "size=8m", "domybs-test", place->folder, NULL };
  const char *const umount[] = { "umount", place->folder, NULL };
  g_autoptr (GError) error = NULL;
  guint8 *buf = scene_buffer (2 * MIB);
  Storage *storage;

  if (!run (mount)) {
    g_test_skip ("can't mount a file system here (root?)");
    free (buf);
    return;
  }
  storage = open_storage (place->path, 64 * MIB, NULL);
  g_assert_true (storage_allocate (storage, 0, 4 * MIB, &error));
  g_assert_false (storage_allocate (storage, 4 * MIB, 8 * MIB, &error));
  g_test_message ("%s", error->message);
  g_assert_nonnull (strstr (error->message, "No space left"));
  scene_pattern (buf, 0, 2 * MIB, 1);
  g_assert_cmpint (scene_do (storage, TRUE, 2 * MIB, buf, 2 * MIB), ==, 0); /* allocated */
  g_assert_cmpint (scene_do (storage, TRUE, 8 * MIB, buf, 2 * MIB), ==, 0);
  g_assert_cmpint (scene_do (storage, TRUE, 16 * MIB, buf, 2 * MIB), ==, ENOSPC); /* a part of it has room */
  storage_discard (storage, 8 * MIB, 2 * MIB);
  g_assert_cmpint (scene_do (storage, TRUE, 16 * MIB, buf, MIB), ==, 0);
  storage_free (storage);
  g_assert_true (run (umount));
  free (buf);
}

/* Somebody makes the file shorter: errors for what is not there, nothing else. */
static void
test_truncated (Place *place, gconstpointer where) {
  Storage *storage = open_storage (place->path, 4 * MIB, NULL);
  guint8 *buf = scene_buffer (2 * MIB);

  g_assert_cmpint (truncate (place->path, (off_t)MIB + 4096), ==, 0);
  g_assert_cmpint (scene_do (storage, FALSE, 0, buf, MIB), ==, 0);
  g_assert_cmpint (scene_do (storage, FALSE, 0, buf, 2 * MIB), ==, EIO);
  g_assert_cmpint (scene_do (storage, FALSE, 2 * MIB, buf, 4096), ==, EIO);
  storage_free (storage);
  free (buf);
}

static void
test_out_of_bounds (Place *place, gconstpointer where) {
  Storage *storage = open_storage (place->path, MIB, NULL);
  guint8 *buf = scene_buffer (2 * MIB);

  g_assert_cmpint (scene_do (storage, FALSE, MIB, buf, 4096), ==, EINVAL); /* there is the mark */
  g_assert_cmpint (scene_do (storage, TRUE, MIB - 4096, buf, 8192), ==, EINVAL);
  g_assert_cmpint (scene_do (storage, TRUE, 512, buf, 4096), ==, EINVAL);
  g_assert_cmpint (scene_do (storage, TRUE, 0, buf, 512), ==, EINVAL);
  g_assert_cmpint (scene_do (storage, TRUE, G_MAXUINT64 - 4095, buf, 8192), ==, EINVAL);
  storage_free (storage);
  free (buf);
}

static void
test_too_small (Place *place, gconstpointer where) {
  g_autoptr (GError) error = NULL;
  const int fd = storage_open_file (place->path, MIB, NULL);

  g_assert_null (storage_new (place->path, fd, 2 * MIB, -1, -1, &error));
  g_test_message ("%s", error->message);
  close (fd);
}

/* Freed with requests under way: waits for them, calls nothing. */
static void
test_free (Place *place, gconstpointer where) {
  enum { N = 200 };
  Storage *storage = open_storage (place->path, N * MIB, NULL);
  guint8 *buf = scene_buffer (MIB);
  g_autofree SceneIo *io = g_new0 (SceneIo, N);

  for (guint64 i = 0; i < N; i++) {
    scene_io (&io[i], i & 1, i * MIB, buf, MIB);
    scene_submit (storage, &io[i]);
    if (i % 16 == 0)
      storage_discard (storage, i * MIB, 2 * MIB);
  }
  storage_kick (storage);
  storage_free (storage);
  scene_run_for (50);
  for (int i = 0; i < N; i++)
    g_assert_false (io[i].ended);
  free (buf);
}

/* ---- the pipe of the process before ---- */

static void
on_settled (gpointer data) {
  *(gboolean *)data = TRUE;
}

static void
test_settled (Place *place, gconstpointer where) {
  const int fd = storage_open_file (place->path, MIB, NULL);
  guint8 *buf = scene_buffer (4096), *read_buf = scene_buffer (4096);
  gboolean settled = FALSE;
  Storage *storage;
  SceneIo write;
  int gone[2];

  g_assert_cmpint (pipe2 (gone, O_CLOEXEC), ==, 0);
  storage = storage_new (place->path, fd, MIB, -1, gone[0], NULL);
  g_assert_nonnull (storage);
  close (gone[0]);
  close (fd);
  storage_on_settled (storage, on_settled, &settled);
  scene_pattern (buf, 0, 4096, 1);
  scene_io (&write, TRUE, 0, buf, 4096);
  scene_submit (storage, &write);
  storage_kick (storage);
  g_assert_cmpint (scene_do (storage, FALSE, 0, read_buf, 4096), ==, 0);
  scene_run_for (100);
  g_assert_false (settled || write.ended || storage_is_settled (storage));
  close (gone[1]);
  scene_wait (&write.ended, 60);
  g_assert_cmpint (write.error, ==, 0);
  g_assert_true (settled);
  g_assert_cmpint (scene_do (storage, FALSE, 0, read_buf, 4096), ==, 0);
  g_assert_true (scene_is_pattern (read_buf, 0, 4096, 1));
  settled = FALSE;
  storage_on_settled (storage, on_settled, &settled); /* also afterwards, once */
  g_assert_false (settled);
  scene_wait (&settled, 60);
  storage_free (storage);
  free (buf);
  free (read_buf);
}

/* ---- devices ---- */

static char *
loop_device (const char *path) {
  g_autofree char *out = NULL;
  const char *const attach[] = { "losetup", "--find", "--show", path, NULL };
  int status;

  if (!g_spawn_sync (NULL, (char **)attach, NULL, G_SPAWN_SEARCH_PATH | G_SPAWN_STDERR_TO_DEV_NULL, NULL, NULL, &out, NULL,
                     &status, NULL)
      || status != 0)
    return NULL;
  return g_strdup (g_strstrip (out));
}

static void
test_device (Place *place, gconstpointer where) {
  g_autofree char *disk = g_build_filename (place->folder, "disk", NULL), *device = NULL;
  g_autoptr (GRand) rand = testing_rand ();
  const char *detach[] = { "losetup", "--detach", NULL, NULL };
  Storage *storage;
  int keep;

  make_file (disk, "");
  g_assert_cmpint (truncate (disk, 64 << 20), ==, 0);
  device = loop_device (disk);
  if (!device) {
    g_test_skip ("no loop devices here (root?)");
    return;
  }
  keep = open (device, O_RDONLY | O_CLOEXEC);
  detach[2] = device;
  g_assert_true (run (detach)); /* when its last user has gone */
  expect_refused (device, 65 * MIB, "are needed");
  g_assert_cmpint (symlink (device, place->path), ==, 0); /* as in /dev/disk/by-id */
  storage = open_storage (place->path, 64 * MIB, NULL);
  expect_refused (device, 64 * MIB, "in use");
  g_assert_true (storage_allocate (storage, 0, 64 * MIB, NULL));
  scene_round_trip (rand, &(SceneTrip){ .storage = storage,
                                        .bytes = 64 * MIB,
                                        .most = MIB,
                                        .steps = testing_steps (1000),
                                        .at_a_time = 100,
                                        .discards = TRUE });
  storage_free (storage);
  close (keep);
}

#define TEST(name, where, function) g_test_add ("/storage/file/" name, Place, where, set_up, function, tear_down)

int
main (int argc, char **argv) {
  scene_init (&argc, &argv);
  g_test_add_func ("/storage/file/round-trip/tmpfs", test_tmpfs);
  g_test_add_func ("/storage/file/round-trip/disk", test_disk);
  TEST ("round-trip/device", "/var/tmp", test_device);
  TEST ("accepted/tmpfs", "/dev/shm", test_accepted);
  TEST ("accepted/disk", "/var/tmp", test_accepted);
  TEST ("emptied", "/var/tmp", test_emptied);
  TEST ("refused", "/var/tmp", test_refused);
  TEST ("marks", "/dev/shm", test_marks);
  TEST ("other-user", "/dev/shm", test_other_user);
  TEST ("lock", "/var/tmp", test_lock);
  TEST ("allocate/tmpfs", "/dev/shm", test_allocate);
  TEST ("allocate/disk", "/var/tmp", test_allocate);
  TEST ("many-discards", "/dev/shm", test_many_discards);
  TEST ("no-space", NULL, test_no_space);
  TEST ("truncated/tmpfs", "/dev/shm", test_truncated);
  TEST ("truncated/disk", "/var/tmp", test_truncated);
  TEST ("out-of-bounds", "/dev/shm", test_out_of_bounds);
  TEST ("too-small", "/dev/shm", test_too_small);
  TEST ("free/tmpfs", "/dev/shm", test_free);
  TEST ("free/disk", "/var/tmp", test_free);
  TEST ("settled", "/dev/shm", test_settled);
  return g_test_run ();
}
