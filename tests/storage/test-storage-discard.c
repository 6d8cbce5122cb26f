/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Discards on a device that can discard but can't punch holes. There is none to be had here, so it is played: a memfd that may
 * not be changed (punching a hole in it is refused), fstat that says it is a block device, and ioctl that notes what it is
 * asked for.
 */
#include "storage-scene.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define BYTES ((guint64)256 << 20)

static int device = -1; /* its descriptor number does not matter: its inode does */
static gboolean can_discard;
static guint64 discarded_bytes, calls, largest;

int __real_fstat64 (int fd, struct stat *st);
int __wrap_fstat64 (int fd, struct stat *st);
int __wrap_ioctl (int fd, unsigned long request, ...);

int
__wrap_fstat64 (int fd, struct stat *st) {
  const int result = __real_fstat64 (fd, st);

  st->st_mode = (st->st_mode & ~(mode_t)S_IFMT) | S_IFBLK;
  return result;
}

int
__wrap_ioctl (int fd, unsigned long request, ...) {
  va_list arguments;
  guint64 *values;

  va_start (arguments, request);
  values = va_arg (arguments, guint64 *);
  va_end (arguments);
  if (request == BLKGETSIZE64) {
    *values = BYTES;
    return 0;
  }
  g_assert_cmpuint (request, ==, BLKDISCARD);
  calls++;
  if (!can_discard) {
    errno = EOPNOTSUPP;
    return -1;
  }
  g_assert_cmpuint (values[0] % STORAGE_ALIGN, ==, 0);
  g_assert_cmpuint (values[0] + values[1], <=, BYTES);
  discarded_bytes += values[1];
  largest = MAX (largest, values[1]);
  return 0;
}

static Storage *
open_device (void) {
  g_autoptr (GError) error = NULL;
  Storage *storage;

  device = memfd_create ("device", MFD_ALLOW_SEALING);
  g_assert_cmpint (ftruncate (device, (off_t)BYTES), ==, 0);
  g_assert_cmpint (fcntl (device, F_ADD_SEALS, F_SEAL_WRITE), ==, 0);
  storage = storage_new ("device", device, BYTES, -1, -1, &error);
  g_assert_no_error (error);
  g_assert_true (g_str_has_prefix (storage_description (storage), "device"));
  discarded_bytes = calls = largest = 0;
  return storage;
}

/* Waits until it was read, which comes after discards of the same place. */
static void
read_at (Storage *storage, guint64 offset) {
  g_autofree guint8 *buf = scene_buffer (STORAGE_ALIGN);

  g_assert_cmpint (scene_do (storage, FALSE, offset, buf, STORAGE_ALIGN), ==, 0);
}

static void
test_fallback (void) {
  Storage *storage = open_device ();

  can_discard = TRUE;
  storage_discard (storage, 1 << 20, 2 << 20);
  storage_kick (storage);
  read_at (storage, 1 << 20);
  g_assert_cmpuint (discarded_bytes, ==, 2 << 20); /* the first one, too, which was tried the other way before */
  for (guint64 i = 0; i < 20; i++)
    storage_discard (storage, i * 8 << 20, 4 << 20);
  storage_kick (storage);
  read_at (storage, 19 * 8 << 20);
  g_assert_cmpuint (discarded_bytes, ==, 82 << 20);
  storage_discard (storage, 0, BYTES);
  storage_kick (storage);
  read_at (storage, BYTES - STORAGE_ALIGN);
  g_assert_cmpuint (discarded_bytes, ==, (82 << 20) + BYTES);
  g_assert_cmpuint (largest, <=, 64 << 20);
  storage_free (storage);
  close (device);
}

/* One that can do neither is not asked again. */
static void
test_neither (void) {
  Storage *storage = open_device ();

  can_discard = FALSE;
  for (guint64 i = 0; i < 20; i++) {
    storage_discard (storage, i << 20, 1 << 20);
    storage_kick (storage);
    read_at (storage, i << 20);
  }
  g_assert_cmpuint (calls, ==, 1);
  storage_free (storage);
  close (device);
}

int
main (int argc, char **argv) {
  scene_init (&argc, &argv);
  g_test_add_func ("/storage/discard/by-ioctl", test_fallback);
  g_test_add_func ("/storage/discard/neither", test_neither);
  return g_test_run ();
}
