/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Opening of files and devices for far pages, by a process that may: what it opens will be written all over, so it is looked at
 * closely first.
 */
#include "io/storage.h"
#include "io/error.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

/* The block behind the last page of a file of ours begins with this. */
static const char mark[] = "domybs far pages, of no use without the VM that wrote them\n";
#define MARK_BYTES STORAGE_ALIGN

#define LOCK_TRIES 25
#define LOCK_TRY_US 20000

static int
refuse (GError **error, DomybsError code, const char *path, const char *why) {
  g_set_error (error, DOMYBS_ERROR, code, "%s %s", path, why);
  return -1;
}

static int
refuse_errno (GError **error, const char *path) {
  domybs_error_errno (error, "%s", path);
  return -1;
}

/* The lock is the open file's: it goes with the last of its descriptors, wherever that is, a ring of the kernel's included:
 * that of a process which has just ended may take some milliseconds. */
static gboolean
lock (int fd, const char *path, GError **error) {
  struct flock all = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

  for (int i = 0; i < LOCK_TRIES; i++) {
    if (fcntl (fd, F_OFD_SETLK, &all) == 0)
      return TRUE;
    g_usleep (LOCK_TRY_US);
  }
  if (errno == EAGAIN || errno == EACCES)
    refuse (error, DOMYBS_ERROR_IN_USE, path,
            "is in use by another VM, or has writes of one that ended under way; choose another path");
  else
    refuse_errno (error, path);
  return FALSE;
}

/* O_DIRECT where a read shows that it works with our alignment; the file has a block there. */
static void
try_direct (int fd, const char *path, guint64 offset) {
  const int flags = fcntl (fd, F_GETFL);
  char buffer[STORAGE_ALIGN] __attribute__ ((aligned (STORAGE_ALIGN)));
  int failure = 0;

  if (fcntl (fd, F_SETFL, flags | O_DIRECT) < 0 || pread (fd, buffer, sizeof buffer, (off_t)offset) < 0)
    failure = errno;
  if (failure) {
    fcntl (fd, F_SETFL, flags);
    g_message ("%s: no direct I/O there (%s): pages go through the host's page cache", path, g_strerror (failure));
  }
}

/* A file that we made, or an empty one that was made for us. */
static gboolean
check_file (int fd, const struct stat *st, const char *path, GError **error) {
  char found[sizeof mark] = "";

  if (st->st_uid != geteuid ())
    return refuse (error, DOMYBS_ERROR_USAGE, path, "belongs to another user: remove it, or choose another path") == 0;
  if (st->st_nlink != 1)
    return refuse (error, DOMYBS_ERROR_USAGE, path, "has a second name (hard link): choose another path") == 0;
  if (st->st_size == 0)
    return TRUE;
  if (st->st_size > (off_t)MARK_BYTES && st->st_size % MARK_BYTES == 0
      && pread (fd, found, sizeof mark - 1, st->st_size - (off_t)MARK_BYTES) == (ssize_t)sizeof mark - 1
      && strcmp (found, mark) == 0)
    return TRUE;
  return refuse (error, DOMYBS_ERROR_USAGE, path, "holds something else than far pages: remove it, or choose another path")
         == 0;
}

/* Empty, and of the right size. The mark is there before the file has any page, and moves in one step. */
static gboolean
prepare_file (int fd, guint64 bytes, const char *path, GError **error) {
  g_autofree char *block = g_malloc0 (MARK_BYTES);

  memcpy (block, mark, sizeof mark - 1);
  if (ftruncate (fd, 0) == 0 && pwrite (fd, block, MARK_BYTES, (off_t)bytes) == (ssize_t)MARK_BYTES)
    return TRUE;
  refuse_errno (error, path);
  return FALSE;
}

static int
open_file (const char *path, gboolean make, guint64 bytes, GError **error) {
  int fd = open (path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | (make ? O_CREAT | O_EXCL : 0), 0600);
  struct stat st;

  if (fd < 0)
    return refuse_errno (error, path);
  if (fstat (fd, &st) < 0 || !S_ISREG (st.st_mode)) {
    close (fd);
    return refuse (error, DOMYBS_ERROR_USAGE, path, "was exchanged while it was opened");
  }
  if (!lock (fd, path, error) || !check_file (fd, &st, path, error) || !prepare_file (fd, bytes, path, error)) {
    if (make)
      unlink (path);
    close (fd);
    return -1;
  }
  try_direct (fd, path, bytes);
  return fd;
}

/* O_EXCL: nobody else has it, no file system is mounted from it, no swap is on it. */
static int
open_device (const char *path, guint64 bytes, GError **error) {
  int fd = open (path, O_RDWR | O_CLOEXEC | O_EXCL | O_NONBLOCK);
  guint64 size = 0;
  struct stat st;

  if (fd < 0 && errno == EBUSY)
    return refuse (error, DOMYBS_ERROR_IN_USE, path, "is in use: by a file system, as swap, or by another VM");
  if (fd < 0)
    return refuse_errno (error, path);
  if (fstat (fd, &st) < 0 || !S_ISBLK (st.st_mode) || ioctl (fd, BLKGETSIZE64, &size) < 0 || size < bytes) {
    close (fd);
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_USAGE,
                 "device %s has %" G_GUINT64_FORMAT " bytes, but %" G_GUINT64_FORMAT " are needed", path, size, bytes);
    return -1;
  }
  if (!lock (fd, path, error)) {
    close (fd);
    return -1;
  }
  try_direct (fd, path, 0);
  return fd;
}

int
storage_open_file (const char *spec, guint64 bytes, GError **error) {
  gboolean is_link;
  struct stat st;

  if (storage_spec_is_nbd (spec))
    return -1;
  if (bytes == 0 || bytes % STORAGE_ALIGN || bytes > G_MAXINT64 - MARK_BYTES)
    return refuse (error, DOMYBS_ERROR_USAGE, spec, "can't have such a size");
  if (lstat (spec, &st) < 0)
    return errno == ENOENT ? open_file (spec, TRUE, bytes, error) : refuse_errno (error, spec);
  /* Devices have links as stable names. A link to a file is no name that we gave. */
  is_link = S_ISLNK (st.st_mode);
  if (is_link && stat (spec, &st) < 0)
    return refuse_errno (error, spec);
  if (S_ISBLK (st.st_mode))
    return open_device (spec, bytes, error);
  if (is_link)
    return refuse (error, DOMYBS_ERROR_USAGE, spec, "is a symbolic link, but not to a block device: name the file itself");
  if (!S_ISREG (st.st_mode))
    return refuse (error, DOMYBS_ERROR_USAGE, spec, "is neither a file nor a block device");
  return open_file (spec, FALSE, bytes, error);
}
