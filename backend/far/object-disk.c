/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "far/object-disk.h"
#include "io/json-members.h"
#include "far/latency.h"
#include "far/object.h"
#include "io/error.h"
#include "io/object-file.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- keeper ---- */

gboolean
object_disk_open (const FarObjectChoice *choice, const ListenRights *rights, struct far_keeper_disk *disk, GError **error) {
  g_autoptr (ObjectFile) file = NULL;

  disk->name = choice->label;
  file = object_file_open (choice->file, error); /* first: a file that is no good leaves no socket */
  if (!file)
    return FALSE;
  disk->listen_fd = listen_unix (choice->socket_path, rights, error);
  if (disk->listen_fd < 0)
    return FALSE;
  disk->state_fd = object_file_share_meta (file, error);
  if (disk->state_fd < 0)
    return FALSE;
  /* What is to be read ahead is known here better than in the kernel, which sees all queues as one reader. */
  if (posix_fadvise (file->fd, 0, 0, POSIX_FADV_RANDOM) != 0)
    g_debug ("%s: no advice", choice->file);
  disk->storage_fd = file->fd; /* with its lock */
  file->fd = -1;
  return TRUE;
}

/* ---- worker ---- */

/* What the keeper has checked, though maybe by another version of this program. */
static const guint8 *
map_meta (int fd, struct object_header *ret_header, GError **error) {
  guint8 sum[OBJECT_SUM_BYTES];
  const char *why;
  struct stat st;
  void *meta;

  if (fstat (fd, &st) < 0 || st.st_size < (off_t)OBJECT_HEADER_BYTES) {
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_CORRUPT, "the keeper gave no table of an object as descriptor %d", fd);
    return NULL;
  }
  /* Private: older kernels map what is sealed against writing in no other way. */
  meta = mmap (NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
  close (fd);
  if (meta == MAP_FAILED) {
    domybs_error_errno (error, "can't map %zu bytes", (size_t)st.st_size);
    return NULL;
  }
  why = object_sum (meta, OBJECT_SUMMED_BYTES, sum) ? object_header_check (meta, sum, 0, ret_header) : "can't be checked";
  if (!why && object_data_offset (object_n_pages (ret_header->size_bytes)) == (guint64)st.st_size)
    return meta;
  g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_CORRUPT, "the table of an object that the keeper gave %s",
               why ? why : "is too short");
  return NULL;
}

/* A file that somebody has cut short meanwhile is to cost the pages that were cut off, and not the VM all of its disks. */
static guint64
file_bytes (int fd, guint64 wanted) {
  struct stat st;

  return fstat (fd, &st) == 0 && (guint64)st.st_size < wanted ? (guint64)st.st_size & ~(guint64)(STORAGE_ALIGN - 1) : wanted;
}

FarDisk *
object_disk_new (const FarObjectChoice *choice, const FarDiskOptions *options, unsigned slot, GError **error) {
  const int fd = far_fd (slot, FAR_FD_STORAGE);
  FarDiskOptions own = *options;
  struct object_header header;
  const guint8 *meta = map_meta (far_fd (slot, FAR_FD_STATE), &header, error);
  guint64 bytes;
  Storage *storage;

  close (far_fd (slot, FAR_FD_GONE_READ)); /* nothing is ever written, so nobody has to wait for its end */
  if (!meta)
    return NULL;
  bytes = object_file_bytes (object_n_pages (header.size_bytes));
  storage = storage_new (choice->file, fd, file_bytes (fd, bytes), far_fd (slot, FAR_FD_GONE_WRITE), -1, error);
  if (!storage)
    return NULL;
  /* Whoever has the same content can go on where another one was, also one with another keeper: it had nothing else. */
  own.inflight_owner = meta + OBJECT_SUMMED_BYTES;
  return far_disk_new_of (&own, far_fd (slot, FAR_FD_LISTEN), &far_object_pages,
                          far_object_new (&(FarObjectOptions){ .name = choice->label, .ahead_bytes = choice->ahead_bytes },
                                          meta, header.size_bytes, storage));
}

/* ---- figures ---- */

gboolean
object_disk_has_answered (FarDisk *disk) {
  FarObjectFigures f;

  far_object_figures (far_disk_pages (disk), &f);
  for (guint b = 0; b < FAR_LATENCY_BUCKETS; b++)
    if (f.read_latency[b])
      return TRUE;
  return FALSE;
}

void
object_disk_add_status (JsonBuilder *builder, const FarObjectChoice *choice, FarDisk *disk) {
  FarObject *object = far_disk_pages (disk);
  FarObjectFigures f;

  far_object_figures (object, &f);
  json_builder_begin_object (builder);
  add_string (builder, "name", choice->name);
  add_string (builder, "id", choice->id);
  add_string (builder, "socket", choice->socket_path);
  add_string (builder, "file", choice->file);
  add_int (builder, "size-bytes", far_object_pages.n_pages (object) * OBJECT_PAGE_BYTES);
  add_int (builder, "queues", choice->n_queues);
  add_bool (builder, "connected", far_disk_is_connected (disk));
  add_int (builder, "connections", far_disk_connections (disk));
  add_int (builder, "in-flight", far_disk_in_flight (disk));
  add_int (builder, "waiting", f.waiting);
  add_int (builder, "oldest-wait-ms", f.oldest_wait_us / 1000);
  add_int (builder, "reads", f.reads);
  add_int (builder, "read-pages", f.read_pages);
  add_int (builder, "read-pages-zero", f.zero_pages);
  add_int (builder, "read-pages-from-storage", f.read_from_storage);
  add_int (builder, "prefetched-pages", f.ahead_pages);
  add_int (builder, "prefetch-used-pages", f.ahead_used);
  add_int (builder, "prefetch-wasted-pages", f.ahead_wasted);
  add_int (builder, "storage-read-bytes", f.storage_read_bytes);
  add_int (builder, "storage-errors", f.storage_errors);
  latency_add (builder, "read-latency-us", f.read_latency);
  add_int (builder, "errors", f.refused);
  add_int (builder, "damaged-pages", f.damaged);
  add_int (builder, "overhead-bytes", f.overhead_bytes);
  json_builder_end_object (builder);
}
