/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A process is killed with writes on their way to a slow device: the next one's writes come after them, all of them.
 *
 * Needs root: a loop device, made slow for the first process by the kernel's I/O controller.
 */
#include "storage-scene.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#define MIB ((guint64)1 << 20)
#define N 16u
#define BYTES (N * MIB)
#define BYTES_A_SECOND (6 * MIB)

/* ---- a slow device ---- */

typedef struct {
  char *folder, *file, *device;
  char *group; /* a folder of the cgroup file system */
  int fd;      /* keeps the device, which goes with its last user */
} SlowDevice;

static char *
output_of (const char *const *argv) {
  g_autofree char *out = NULL;
  int status;

  if (!g_spawn_sync (NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH | G_SPAWN_STDERR_TO_DEV_NULL, NULL, NULL, &out, NULL,
                     &status, NULL)
      || status != 0)
    return NULL;
  return g_strdup (g_strstrip (out));
}

static gboolean
write_text (const char *folder, const char *name, const char *text) {
  g_autofree char *path = g_build_filename (folder, name, NULL);
  const int fd = open (path, O_WRONLY | O_CLOEXEC);
  const gboolean ok = fd >= 0 && write (fd, text, strlen (text)) == (ssize_t)strlen (text);

  if (fd >= 0)
    close (fd);
  return ok;
}

/* Version 1 or 2 of cgroups, whichever this host has. */
static char *
make_group (dev_t device) {
  const char *const roots[] = { "/sys/fs/cgroup/blkio", "/sys/fs/cgroup" };
  const char *const files[] = { "blkio.throttle.write_bps_device", "io.max" };
  g_autofree char *v1 = g_strdup_printf ("%u:%u %" G_GUINT64_FORMAT, major (device), minor (device), BYTES_A_SECOND);
  g_autofree char *v2 = g_strdup_printf ("%u:%u wbps=%" G_GUINT64_FORMAT, major (device), minor (device), BYTES_A_SECOND);

  for (unsigned i = 0; i < G_N_ELEMENTS (roots); i++) {
    g_autofree char *group = g_strdup_printf ("%s/domybs-test-%d", roots[i], (int)getpid ());

    if (i == 1)
      write_text (roots[i], "cgroup.subtree_control", "+io");
    if (mkdir (group, 0755) == 0 && write_text (group, files[i], i == 0 ? v1 : v2))
      return g_steal_pointer (&group);
    rmdir (group);
  }
  return NULL;
}

static void
slow_device_free (SlowDevice *slow) {
  if (slow->fd >= 0)
    close (slow->fd);
  for (int i = 0; slow->group && rmdir (slow->group) < 0 && i < 200; i++)
    g_usleep (50000);
  g_free (slow->group);
  g_free (slow->device);
  g_free (slow->file);
  scene_folder_free (slow->folder);
  g_free (slow);
}

/* NULL: there is none here, and the test is skipped. */
static SlowDevice *
slow_device_new (void) {
  SlowDevice *slow = g_new0 (SlowDevice, 1);
  const char *detach[] = { "losetup", "--detach", NULL, NULL };
  struct stat st;
  int fd;

  slow->folder = scene_folder ("/var/tmp");
  slow->file = g_build_filename (slow->folder, "disk", NULL);
  fd = open (slow->file, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
  slow->fd = -1;
  if (fd >= 0 && ftruncate (fd, (off_t)BYTES) == 0) {
    const char *const attach[] = { "losetup", "--find", "--show", slow->file, NULL };

    slow->device = output_of (attach);
  }
  if (fd >= 0)
    close (fd);
  if (slow->device) {
    slow->fd = open (slow->device, O_RDONLY | O_CLOEXEC);
    detach[2] = slow->device;
    g_free (output_of (detach)); /* when its last user closes it */
  }
  if (slow->fd >= 0 && fstat (slow->fd, &st) == 0)
    slow->group = make_group (st.st_rdev);
  if (slow->group)
    return slow;
  g_test_skip (slow->fd < 0 ? "no loop devices here (root?)" : "no I/O controller here that could slow a device down");
  slow_device_free (slow);
  return NULL;
}

/* ---- two processes ---- */

/* Writes version 1 all over, and waits for its end. */
static void
first_process (const SlowDevice *slow, int fd, int gone_write_fd, int ready_fd) {
  Storage *storage = storage_new (slow->device, fd, BYTES, gone_write_fd, -1, NULL);
  SceneIo io[N];

  prctl (PR_SET_PDEATHSIG, SIGKILL);
  if (!storage || !write_text (slow->group, "cgroup.procs", "0"))
    _exit (1);
  for (unsigned i = 0; i < N; i++) {
    guint8 *buf = scene_buffer (MIB);

    scene_pattern (buf, i * MIB, MIB, 1);
    scene_io (&io[i], TRUE, i * MIB, buf, MIB);
    scene_submit (storage, &io[i]);
  }
  while (!storage_is_settled (storage))
    g_main_context_iteration (NULL, TRUE);
  storage_kick (storage);
  if (write (ready_fd, "r", 1) != 1)
    _exit (1);
  for (;;)
    g_main_context_iteration (NULL, TRUE);
}

static gboolean
has_hung_up (int fd) {
  struct pollfd poll_fd = { .fd = fd };

  return poll (&poll_fd, 1, 0) == 1 && (poll_fd.revents & POLLHUP);
}

/* How many pieces of the file below the device are version 1. */
static unsigned
pieces_written (const SlowDevice *slow) {
  g_autofree char *all = NULL;
  unsigned n = 0;

  g_assert_true (g_file_get_contents (slow->file, &all, NULL, NULL));
  for (unsigned i = 0; i < N; i++)
    n += scene_is_pattern ((guint8 *)all + i * MIB, i * MIB, MIB, 1);
  return n;
}

/* Returns the read end; the process is dead, and what it wrote is on its way. */
static int
run_first_process (const SlowDevice *slow, int fd) {
  int gone[2], ready[2], status;
  char byte;
  pid_t child;

  g_assert_cmpint (pipe2 (gone, O_CLOEXEC), ==, 0);
  g_assert_cmpint (pipe2 (ready, O_CLOEXEC), ==, 0);
  child = fork ();
  g_assert_cmpint (child, >=, 0);
  if (child == 0)
    first_process (slow, fd, gone[1], ready[1]);
  close (gone[1]);
  close (ready[1]);
  g_assert_cmpint (read (ready[0], &byte, 1), ==, 1);
  close (ready[0]);
  for (int i = 0; i < 3000 && pieces_written (slow) == 0; i++) /* what the kernel has not begun by then, it may forget */
    g_usleep (10000);
  kill (child, SIGKILL);
  g_assert_cmpint (waitpid (child, &status, 0), ==, child);
  g_assert_true (WIFSIGNALED (status));
  return gone[0];
}

/* Whether the last piece is the second process's in the end. */
static gboolean
second_process_wins (gboolean with_pipe) {
  SlowDevice *slow = slow_device_new ();
  guint8 *buf = scene_buffer (MIB), *other = scene_buffer (4096);
  unsigned before, after;
  Storage *storage;
  SceneIo write;
  gboolean wins;
  int fd, gone;

  if (!slow)
    return with_pipe;
  fd = storage_open_file (slow->device, BYTES, NULL);
  g_assert_cmpint (fd, >=, 0);
  gone = run_first_process (slow, fd);
  before = pieces_written (slow);
  g_test_message ("when the process was gone, %u of %u pieces were written", before, N);
  g_assert_cmpuint (before, <, N);
  g_assert_false (has_hung_up (gone));

  storage = storage_new (slow->device, fd, BYTES, -1, with_pipe ? gone : -1, NULL);
  g_assert_nonnull (storage);
  scene_pattern (buf, BYTES - MIB, MIB, 2);
  scene_io (&write, TRUE, BYTES - MIB, buf, MIB);
  scene_submit (storage, &write);
  storage_kick (storage);
  g_assert_cmpint (scene_do (storage, FALSE, 0, other, 4096), ==, 0); /* reads wait for nothing */
  scene_wait (&write.ended, 60);
  g_assert_cmpint (write.error, ==, 0);
  if (with_pipe) {
    g_assert_true (has_hung_up (gone));
    after = pieces_written (slow);
    g_test_message ("and %u when its ring was", after);
    g_assert_cmpuint (after, >, before);
    scene_run_for (1000);
    g_assert_cmpuint (pieces_written (slow), ==, after);
  }
  while (!has_hung_up (gone))
    scene_run_for (20);
  g_assert_cmpint (scene_do (storage, FALSE, BYTES - MIB, buf, MIB), ==, 0);
  wins = scene_is_pattern (buf, BYTES - MIB, MIB, 2);
  storage_free (storage);
  close (gone);
  close (fd);
  slow_device_free (slow);
  free (buf);
  free (other);
  return wins;
}

static void
test_with_pipe (void) {
  g_assert_true (second_process_wins (TRUE));
}

/* That there is a danger at all, and that the test would see it; unless the kernel had not begun the last piece. */
static void
test_without_pipe (void) {
  if (second_process_wins (FALSE))
    g_test_skip ("the old write was forgotten this time");
}

int
main (int argc, char **argv) {
  scene_init (&argc, &argv);
  g_test_add_func ("/storage/gone/with-pipe", test_with_pipe);
  g_test_add_func ("/storage/gone/without-pipe", test_without_pipe);
  return g_test_run ();
}
