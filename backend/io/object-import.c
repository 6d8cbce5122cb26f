/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Import and verification of objects: content goes through in pieces of 1 MiB, whose digests are one page of the table, so
 * neither needs memory for more than that.
 *
 * The file is made under a name that begins with ".import-", and gets its own by link(), which replaces nothing. What a killed
 * import leaves behind, the next one of that folder removes: it knows by the lock which of them nobody writes any more.
 */
#include "io/object-file.h"
#include "io/error.h"

#include <errno.h>
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define TEMPORARY ".import-"
#define PIECE_PAGES (OBJECT_PAGE_BYTES / OBJECT_DIGEST_BYTES)
#define PIECE_BYTES ((gsize)PIECE_PAGES * OBJECT_PAGE_BYTES)
/* A file of that age without a lock is nobody's: between the making and the locking are microseconds. */
#define LEFT_OVER_SECONDS 60

typedef struct {
  ObjectProgress progress;
  gpointer data;
  guint64 total;
} Course;

static gboolean
go_on (Course *course, guint64 done, GError **error) {
  if (!course->progress || course->progress (done, course->total, course->data))
    return TRUE;
  g_set_error (error, G_IO_ERROR, G_IO_ERROR_CANCELLED, "ended before its time");
  return FALSE;
}

static gboolean
fail_errno (GError **error, const char *path) {
  domybs_error_errno (error, "%s", path);
  return FALSE;
}

/* As many as there are, which are fewer than `bytes` only at the end of the file. */
static gssize
read_piece (int fd, void *buf, gsize bytes, guint64 offset) {
  gsize done = 0;

  while (done < bytes) {
    const ssize_t n = pread (fd, (char *)buf + done, bytes - done, (off_t)(offset + done));

    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0)
      return -1;
    if (n == 0)
      break;
    done += (gsize)n;
  }
  return (gssize)done;
}

static gboolean
write_piece (int fd, const void *buf, gsize bytes, guint64 offset) {
  gsize done = 0;

  while (done < bytes) {
    const ssize_t n = pwrite (fd, (const char *)buf + done, bytes - done, (off_t)(offset + done));

    if (n < 0 && errno != EINTR)
      return FALSE;
    done += n > 0 ? (gsize)n : 0;
  }
  return TRUE;
}

static gboolean
is_zero (const guint8 *page) {
  return page[0] == 0 && memcmp (page, page + 1, OBJECT_PAGE_BYTES - 1) == 0;
}

/* ---- import ---- */

typedef struct {
  const char *from, *path;
  int in, out;
  struct stat before;
  guint64 size, n_pages, data_offset;
  guint64 no_data_until; /* the source has a hole up to there */
  gnutls_hash_hd_t table_sum;
  struct object_header header;
  guint8 *piece;
  guint8 digests[PIECE_PAGES][OBJECT_DIGEST_BYTES];
  Course course;
} Import;

static gboolean
open_source (Import *import, GError **error) {
  off_t end;

  import->in = open (import->from, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (import->in < 0 || fstat (import->in, &import->before) < 0)
    return fail_errno (error, import->from);
  if (!S_ISREG (import->before.st_mode) && !S_ISBLK (import->before.st_mode)) {
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_USAGE, "%s is neither a file nor a block device", import->from);
    return FALSE;
  }
  end = lseek (import->in, 0, SEEK_END);
  if (end < 0)
    return fail_errno (error, import->from);
  if (end == 0 || (guint64)end > OBJECT_PAGES_MAX * OBJECT_PAGE_BYTES) {
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_USAGE, "%s %s", import->from,
                 end ? "is larger than 1T; import it in parts" : "is empty: there is nothing to import");
    return FALSE;
  }
  import->size = import->header.size_bytes = import->course.total = (guint64)end;
  import->n_pages = object_n_pages (import->size);
  import->data_offset = object_data_offset (import->n_pages);
  return TRUE;
}

/* Whether the source has nothing there, by its own word. */
static gboolean
is_hole (Import *import, guint64 offset, gsize bytes) {
  off_t data;

  if (offset < import->no_data_until)
    return offset + bytes <= import->no_data_until;
  data = lseek (import->in, (off_t)offset, SEEK_DATA);
  if (data >= 0)
    import->no_data_until = (guint64)data;
  else if (errno == ENXIO)
    import->no_data_until = import->size;
  return offset + bytes <= import->no_data_until;
}

/* Digests of the piece's pages, where they are not zeros. */
static gboolean
sum_pages (Import *import, unsigned n) {
  for (unsigned i = 0; i < n; i++) {
    const guint8 *page = import->piece + (gsize)i * OBJECT_PAGE_BYTES;
    guint8 sum[OBJECT_SUM_BYTES];

    if (is_zero (page))
      continue;
    if (!object_sum (page, OBJECT_PAGE_BYTES, sum))
      return FALSE;
    memcpy (import->digests[i], sum, OBJECT_DIGEST_BYTES);
    import->header.n_stored++;
  }
  return TRUE;
}

/* Writes those pages, in as few writes as they have gaps. */
static gboolean
store_pages (Import *import, guint64 first, unsigned n) {
  for (unsigned i = 0, end; i < n; i = end) {
    end = i + 1;
    if (object_digest_is_zero (import->digests[i]))
      continue;
    while (end < n && !object_digest_is_zero (import->digests[end]))
      end++;
    if (!write_piece (import->out, import->piece + (gsize)i * OBJECT_PAGE_BYTES, (gsize)(end - i) * OBJECT_PAGE_BYTES,
                      import->data_offset + (first + i) * OBJECT_PAGE_BYTES))
      return FALSE;
  }
  return TRUE;
}

static gboolean
import_piece (Import *import, guint64 first, GError **error) {
  const unsigned n = (unsigned)MIN (PIECE_PAGES, import->n_pages - first);
  const guint64 offset = first * OBJECT_PAGE_BYTES;
  const gsize wanted = (gsize)MIN (PIECE_BYTES, import->size - offset);
  gssize bytes;

  memset (import->digests, 0, sizeof import->digests);
  if (!is_hole (import, offset, wanted)) {
    bytes = read_piece (import->in, import->piece, wanted, offset);
    if (bytes < 0)
      return fail_errno (error, import->from);
    if ((gsize)bytes < wanted) {
      g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_FAILED, "%s became shorter while it was read", import->from);
      return FALSE;
    }
    memset (import->piece + bytes, 0, PIECE_BYTES - (gsize)bytes);
    if (!sum_pages (import, n) || !store_pages (import, first, n))
      return fail_errno (error, import->path);
  }
  /* Of a piece without content the file has none, either. */
  if (gnutls_hash (import->table_sum, import->digests, sizeof import->digests) < 0
      || (!is_zero ((const guint8 *)import->digests)
          && !write_piece (import->out, import->digests, sizeof import->digests,
                           OBJECT_HEADER_BYTES + first * OBJECT_DIGEST_BYTES)))
    return fail_errno (error, import->path);
  return go_on (&import->course, offset + wanted, error);
}

static gboolean
is_unchanged (const Import *import, GError **error) {
  struct stat now;

  if (fstat (import->in, &now) == 0
      && (S_ISBLK (now.st_mode)
          || (now.st_size == import->before.st_size && now.st_mtim.tv_sec == import->before.st_mtim.tv_sec
              && now.st_mtim.tv_nsec == import->before.st_mtim.tv_nsec)))
    return TRUE;
  g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_FAILED, "%s was changed while it was read; import it when nobody writes to it",
               import->from);
  return FALSE;
}

static gboolean
import_all (Import *import, GError **error) {
  guint8 header[OBJECT_HEADER_BYTES];

  if (ftruncate (import->out, (off_t)object_file_bytes (import->n_pages)) < 0)
    return fail_errno (error, import->path);
  for (guint64 first = 0; first < import->n_pages; first += PIECE_PAGES)
    if (!import_piece (import, first, error))
      return FALSE;
  if (!is_unchanged (import, error))
    return FALSE;
  gnutls_hash_output (import->table_sum, import->header.table_sum);
  object_header_write (&import->header, header);
  return (object_sum (header, OBJECT_SUMMED_BYTES, header + OBJECT_SUMMED_BYTES)
          && write_piece (import->out, header, sizeof header, 0) && fsync (import->out) == 0)
         || fail_errno (error, import->path);
}

/* ---- its file ---- */

static gboolean
lock (int fd) {
  struct flock all = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

  return fcntl (fd, F_OFD_SETLK, &all) == 0;
}

static void
remove_left_over (const char *folder) {
  g_autoptr (GDir) dir = g_dir_open (folder, 0, NULL);
  const char *name;

  while (dir && (name = g_dir_read_name (dir))) {
    g_autofree char *path = g_build_filename (folder, name, NULL);
    struct stat st;
    int fd;

    if (!g_str_has_prefix (name, TEMPORARY))
      continue;
    fd = open (path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
      continue;
    if (fstat (fd, &st) == 0 && S_ISREG (st.st_mode) && st.st_mtime + LEFT_OVER_SECONDS < time (NULL) && lock (fd))
      unlink (path);
    close (fd);
  }
}

static gboolean
sync_folder (const char *folder) {
  const int fd = open (folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const gboolean ok = fd >= 0 && fsync (fd) == 0;

  if (fd >= 0)
    close (fd);
  return ok;
}

/* Gives the file its name: from here on it is there. */
static gboolean
publish (const char *temporary, const char *path, const char *folder, GError **error) {
  if (link (temporary, path) < 0) {
    if (errno != EEXIST)
      return fail_errno (error, path);
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_IN_USE, "%s is there already", path);
    return FALSE;
  }
  return sync_folder (folder) || fail_errno (error, folder);
}

gboolean
object_file_import (const char *from, const char *path, ObjectProgress progress, gpointer data,
                    struct object_header *ret_header, GError **error) {
  g_autofree char *folder = g_path_get_dirname (path);
  g_autofree char *temporary = g_build_filename (folder, TEMPORARY "XXXXXX", NULL);
  Import *import = g_new0 (Import, 1);
  gboolean ok = FALSE;

  import->from = from;
  import->path = path;
  import->in = import->out = -1;
  import->course = (Course){ .progress = progress, .data = data };
  import->piece = g_malloc (PIECE_BYTES);
  if (!open_source (import, error))
    goto out;
  if (faccessat (AT_FDCWD, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0) { /* said again by publish: here it is cheap */
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_IN_USE, "%s is there already", path);
    goto out;
  }
  remove_left_over (folder);
  import->out = mkostemp (temporary, O_CLOEXEC);
  if (import->out < 0) {
    fail_errno (error, folder);
    goto out;
  }
  if (gnutls_hash_init (&import->table_sum, GNUTLS_DIG_SHA256) < 0) {
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_FAILED, "GnuTLS has no SHA-256 here");
  } else {
    ok = (lock (import->out) || fail_errno (error, path)) && import_all (import, error)
         && publish (temporary, path, folder, error);
    gnutls_hash_deinit (import->table_sum, NULL);
  }
  unlink (temporary);
  if (ok)
    *ret_header = import->header;
out:
  if (import->in >= 0)
    close (import->in);
  if (import->out >= 0)
    close (import->out);
  g_free (import->piece);
  g_free (import);
  return ok;
}

/* ---- verification ---- */

static gboolean
has_stored (const ObjectFile *file, guint64 first, guint64 n) {
  for (guint64 i = 0; i < n; i++)
    if (!object_digest_is_zero (object_meta_digest (file->meta, first + i)))
      return TRUE;
  return FALSE;
}

gboolean
object_file_verify (ObjectFile *file, ObjectProgress progress, gpointer data, guint64 *ret_damaged, guint64 *ret_first,
                    GError **error) {
  Course course = { .progress = progress, .data = data, .total = file->header.size_bytes };
  const guint64 data_offset = object_data_offset (file->n_pages);
  g_autofree guint8 *piece = g_malloc (PIECE_BYTES);

  *ret_damaged = 0;
  for (guint64 first = 0; first < file->n_pages; first += PIECE_PAGES) {
    const guint64 n = MIN (PIECE_PAGES, file->n_pages - first);
    const gboolean any = has_stored (file, first, n);
    const gssize bytes
        = any ? read_piece (file->fd, piece, (gsize)n * OBJECT_PAGE_BYTES, data_offset + first * OBJECT_PAGE_BYTES) : 0;

    if (bytes < 0 && errno != EIO) {
      domybs_error_errno (error, "can't read it");
      return FALSE;
    }
    for (guint64 i = 0; any && i < n; i++) {
      const guint8 *page = piece + i * OBJECT_PAGE_BYTES, *digest = object_meta_digest (file->meta, first + i);
      gboolean good = (gssize)((i + 1) * OBJECT_PAGE_BYTES) <= bytes;

      /* What the disk can't read as a whole, page by page. */
      if (bytes < 0)
        good = read_piece (file->fd, (void *)page, OBJECT_PAGE_BYTES, data_offset + (first + i) * OBJECT_PAGE_BYTES)
               == (gssize)OBJECT_PAGE_BYTES;
      /* Zeros are not read by those who serve it: what lies there harms nobody. */
      if (object_digest_is_zero (digest) || (good && object_page_is (page, digest)))
        continue;
      if (!*ret_damaged)
        *ret_first = first + i;
      ++*ret_damaged;
    }
    if (!go_on (&course, MIN ((first + n) * OBJECT_PAGE_BYTES, file->header.size_bytes), error))
      return FALSE;
  }
  return TRUE;
}
