/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "io/object-file.h"
#include "io/error.h"

#include <errno.h>
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* That of a process which has just ended, or of its ring in the kernel, may take some milliseconds. */
#define LOCK_TRIES 25
#define LOCK_TRY_US 20000

static gboolean
refuse (GError **error, DomybsError code, const char *path, const char *why) {
  g_set_error (error, DOMYBS_ERROR, code, "%s %s", path, why);
  return FALSE;
}

static gboolean
refuse_errno (GError **error, const char *path) {
  domybs_error_errno (error, "%s", path);
  return FALSE;
}

gboolean
object_sum (const void *bytes, gsize n, guint8 ret_sum[OBJECT_SUM_BYTES]) {
  return gnutls_hash_fast (GNUTLS_DIG_SHA256, bytes, n, ret_sum) >= 0;
}

gboolean
object_page_is (const guint8 *bytes, const guint8 *digest) {
  guint8 sum[OBJECT_SUM_BYTES];

  return object_sum (bytes, OBJECT_PAGE_BYTES, sum) && memcmp (sum, digest, OBJECT_DIGEST_BYTES) == 0;
}

/* ---- opening ---- */

static gboolean
lock (int fd, short type, const char *path, GError **error) {
  struct flock all = { .l_type = type, .l_whence = SEEK_SET };

  for (int i = 0; i < LOCK_TRIES; i++) {
    if (fcntl (fd, F_OFD_SETLK, &all) == 0)
      return TRUE;
    if (errno != EAGAIN && errno != EACCES)
      return refuse_errno (error, path);
    g_usleep (LOCK_TRY_US);
  }
  return refuse (error, DOMYBS_ERROR_IN_USE, path, type == F_RDLCK ? "is just being removed" : "is in use");
}

static gboolean
read_all (int fd, void *buf, gsize bytes, guint64 offset, const char *path, GError **error) {
  gsize done = 0;

  while (done < bytes) {
    const ssize_t n = pread (fd, (char *)buf + done, bytes - done, (off_t)(offset + done));

    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0)
      return refuse_errno (error, path);
    if (n == 0)
      return refuse (error, DOMYBS_ERROR_CORRUPT, path, "was cut short");
    done += (gsize)n;
  }
  return TRUE;
}

static gboolean
read_header (ObjectFile *file, guint64 file_bytes, const char *path, GError **error) {
  guint8 header[OBJECT_HEADER_BYTES];
  const char *why;

  if (file_bytes < OBJECT_HEADER_BYTES)
    return refuse (error, DOMYBS_ERROR_CORRUPT, path, "is no object");
  if (!read_all (file->fd, header, sizeof header, 0, path, error))
    return FALSE;
  if (!object_sum (header, OBJECT_SUMMED_BYTES, file->id))
    return refuse (error, DOMYBS_ERROR_FAILED, path, "can't be checked: GnuTLS has no SHA-256 here");
  why = object_header_check (header, file->id, file_bytes, &file->header);
  if (why)
    return refuse (error, DOMYBS_ERROR_CORRUPT, path, why);
  file->n_pages = object_n_pages (file->header.size_bytes);
  file->meta = g_memdup2 (header, sizeof header);
  return TRUE;
}

/* The size was checked against the file's. */
static gboolean
read_table (ObjectFile *file, const char *path, GError **error) {
  const gsize bytes = object_data_offset (file->n_pages);
  guint8 *const meta = g_try_realloc (file->meta, bytes);
  guint8 sum[OBJECT_SUM_BYTES];
  const char *why;

  if (!meta)
    return refuse (error, DOMYBS_ERROR_FAILED, path, "has a table that there is no memory for");
  file->meta = meta;
  if (!read_all (file->fd, meta + OBJECT_HEADER_BYTES, bytes - OBJECT_HEADER_BYTES, OBJECT_HEADER_BYTES, path, error))
    return FALSE;
  if (!object_sum (meta + OBJECT_HEADER_BYTES, bytes - OBJECT_HEADER_BYTES, sum))
    return refuse (error, DOMYBS_ERROR_FAILED, path, "can't be checked: GnuTLS has no SHA-256 here");
  why = object_table_check (&file->header, meta + OBJECT_HEADER_BYTES, sum);
  return why ? refuse (error, DOMYBS_ERROR_CORRUPT, path, why) : TRUE;
}

static ObjectFile *
open_file (const char *path, gboolean peek, GError **error) {
  g_autoptr (ObjectFile) file = g_new0 (ObjectFile, 1);
  struct stat st;

  file->fd = open (path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (file->fd < 0) {
    refuse_errno (error, path);
    return NULL;
  }
  if (!peek && !lock (file->fd, F_RDLCK, path, error))
    return NULL;
  if (fstat (file->fd, &st) < 0) {
    refuse_errno (error, path);
    return NULL;
  }
  if (!S_ISREG (st.st_mode)) {
    refuse (error, DOMYBS_ERROR_CORRUPT, path, "is no file");
    return NULL;
  }
  if (st.st_nlink == 0) {
    refuse (error, DOMYBS_ERROR_FAILED, path, "was removed just now");
    return NULL;
  }
  if (!read_header (file, (guint64)st.st_size, path, error) || (!peek && !read_table (file, path, error)))
    return NULL;
  if (peek)
    g_clear_pointer (&file->meta, g_free);
  return g_steal_pointer (&file);
}

ObjectFile *
object_file_open (const char *path, GError **error) {
  return open_file (path, FALSE, error);
}

ObjectFile *
object_file_peek (const char *path, GError **error) {
  return open_file (path, TRUE, error);
}

void
object_file_free (ObjectFile *file) {
  if (!file)
    return;
  if (file->fd >= 0)
    close (file->fd);
  g_free (file->meta);
  g_free (file);
}

int
object_file_share_meta (const ObjectFile *file, GError **error) {
  const gsize bytes = object_data_offset (file->n_pages);
  const int fd = memfd_create ("domybs-object-table", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  gsize done = 0;

  while (fd >= 0 && done < bytes) {
    const ssize_t n = write (fd, file->meta + done, bytes - done);

    if (n < 0 && errno != EINTR)
      break;
    done += n > 0 ? (gsize)n : 0;
  }
  if (fd >= 0 && done == bytes && fcntl (fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) == 0)
    return fd;
  domybs_error_errno (error, "can't make %zu bytes of memory (table of an object)", bytes);
  if (fd >= 0)
    close (fd);
  return -1;
}

gboolean
object_file_remove (const char *path, GError **error) {
  const int fd = open (path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  gboolean ok;

  if (fd < 0)
    return refuse_errno (error, path);
  ok = lock (fd, F_WRLCK, path, error);
  if (ok && unlink (path) < 0)
    ok = refuse_errno (error, path);
  close (fd);
  return ok;
}
