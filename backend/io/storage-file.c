/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Files and block devices, through one io_uring.
 *
 * The ring is restricted to reads, writes and discards of the one file that is registered with it: what a process may ask the
 * kernel for through a ring no seccomp filter sees, and this one outlives sandbox_worker, after which no other can be made.
 */
#include "io/storage-internal.h"
#include "io/error.h"
#include "io/sandbox-calls.h"
#include "io/source.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

SANDBOX_CALLS (SANDBOX_CALL (io_uring_enter), SANDBOX_CALL (fallocate), SANDBOX_CALL_IF (ioctl, 1, ~0u, BLKDISCARD),
               SANDBOX_CALL_IF (io_uring_register, 1, ~0u, IORING_UNREGISTER_FILES));
SANDBOX_KEEPER_CALLS (SANDBOX_CALL (io_uring_setup), SANDBOX_CALL (io_uring_register));

#define RING_ENTRIES 128u
#define DEPTH 120u        /* reads and writes that the kernel has at a time */
#define DISCARDS_DEPTH 4u /* and discards: they are for a kernel thread each */
#define REAP_AT_ONCE 64u
#define IOCTL_BYTES (64ull << 20) /* discarded in one call */
#define RETRY_MS 5 /* what the kernel has no memory for at the moment */

enum { FILE_STORAGE, FILE_GONE, N_FILES }; /* as registered with the ring */

#define IS_DISCARD 1u /* in a completion's pointer */

typedef struct {
  Storage base;
  int fd, gone_fd;
  gboolean is_device;
  gboolean discards_by_ioctl; /* a device that can discard, but has no zeroes to offer for it */
  struct io_uring ring;
  gboolean have_ring;
  GSource *ring_source, *gone_source, *retry_source;
  struct io_queue waiting; /* for the ring */
  unsigned under_way;      /* of them in the ring */
  struct io_queue later;   /* for the retry timer */
  gboolean warned;
  gboolean unsubmitted; /* the kernel did not take all of the ring */
} FileStorage;

struct ring_source {
  GSource source;
  FileStorage *storage;
};

/* ---- to the kernel ---- */

static void submit_more (FileStorage *storage);

static gboolean
on_retry (gpointer data) {
  FileStorage *storage = data;
  StorageIo *io;

  source_clear (&storage->retry_source);
  while ((io = io_queue_pop (&storage->later)))
    io_queue_push (&storage->waiting, io);
  submit_more (storage);
  return G_SOURCE_REMOVE;
}

static void
retry_soon (FileStorage *storage) {
  if (!storage->retry_source)
    storage->retry_source = source_timeout (RETRY_MS, on_retry, storage);
}

static void
fill_io (struct io_uring_sqe *sqe, StorageIo *io) {
  const gsize progress = GPOINTER_TO_SIZE (io->internal[1]);
  char *const buf = (char *)io->buf + progress;
  const unsigned bytes = (unsigned)(io->bytes - progress);

  if (io->is_write)
    io_uring_prep_write (sqe, FILE_STORAGE, buf, bytes, io->offset + progress);
  else
    io_uring_prep_read (sqe, FILE_STORAGE, buf, bytes, io->offset + progress);
  io_uring_sqe_set_flags (sqe, IOSQE_FIXED_FILE);
  io_uring_sqe_set_data (sqe, io);
}

static void
fill_discard (struct io_uring_sqe *sqe, const struct storage_discard *discard) {
  io_uring_prep_fallocate (sqe, FILE_STORAGE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)discard->offset,
                           (off_t)discard->bytes);
  io_uring_sqe_set_flags (sqe, IOSQE_FIXED_FILE);
  io_uring_sqe_set_data (sqe, (char *)discard + IS_DISCARD);
}

/* Blocks, a little at a time. FALSE: there is no such thing here. */
static gboolean
discard_by_ioctl (FileStorage *storage, guint64 offset, guint64 bytes) {
  for (guint64 end = offset + bytes; offset < end; offset += IOCTL_BYTES) {
    guint64 range[2] = { offset, MIN (end - offset, IOCTL_BYTES) };

    if (ioctl (storage->fd, BLKDISCARD, range) < 0)
      return FALSE;
  }
  return TRUE;
}

/* Fills the ring and hands it to the kernel, in one call. */
static void
submit_more (FileStorage *storage) {
  struct storage_discard *discard;
  unsigned filled = 0;
  int result;

  while (storage->discards_by_ioctl && (discard = storage_next_discard (&storage->base))) {
    storage->base.no_discards = !discard_by_ioctl (storage, discard->offset, discard->bytes);
    storage_discard_ended (&storage->base, discard);
  }
  while (storage->waiting.first && storage->under_way < DEPTH) {
    struct io_uring_sqe *sqe = io_uring_get_sqe (&storage->ring);

    if (!sqe)
      break;
    fill_io (sqe, io_queue_pop (&storage->waiting));
    storage->under_way++;
    filled++;
  }
  while (io_uring_sq_space_left (&storage->ring) > 0 && (discard = storage_next_discard (&storage->base))) {
    fill_discard (io_uring_get_sqe (&storage->ring), discard);
    filled++;
  }
  if (filled == 0 && !storage->unsubmitted)
    return;
  do
    result = io_uring_submit (&storage->ring);
  while (result == -EINTR);
  storage->unsubmitted = io_uring_sq_ready (&storage->ring) > 0;
  if (storage->unsubmitted)
    retry_soon (storage);
  if (result < 0)
    g_debug ("%s: io_uring_enter: %s", storage->base.description, g_strerror (-result));
}

/* ---- from the kernel ---- */

static void
file_submit (Storage *base, StorageIo *io) {
  io_queue_push (&((FileStorage *)base)->waiting, io);
}

/* Does with io what its result says. TRUE: it has ended, with *ret_error. */
static gboolean
io_ended (FileStorage *storage, StorageIo *io, int result, int *ret_error) {
  const gsize before = GPOINTER_TO_SIZE (io->internal[1]);
  gsize progress;

  storage->under_way--;
  if (result == -EAGAIN || result == -EINTR || result == -ECANCELED) {
    if (result == -ECANCELED && !storage->warned) /* nobody cancels: it had no thread for it */
      g_warning ("%s: the kernel can't start threads for I/O (RLIMIT_NPROC, pids.max?); trying again",
                 storage->base.description);
    storage->warned = storage->warned || result == -ECANCELED;
    io_queue_push (&storage->later, io);
    retry_soon (storage);
    return FALSE;
  }
  if (result < 0) {
    *ret_error = -result;
    return TRUE;
  }
  /* A part: the rest is asked for again, and has the answer (no space, the file's end). */
  progress = (before + (gsize)result) & ~(gsize)(STORAGE_ALIGN - 1);
  *ret_error = progress == io->bytes ? 0 : EIO;
  if (progress == io->bytes || progress == before)
    return TRUE;
  io->internal[1] = GSIZE_TO_POINTER (progress);
  io_queue_push (&storage->waiting, io);
  return FALSE;
}

static void
discard_ended (FileStorage *storage, struct storage_discard *discard, int result) {
  if (result == -EOPNOTSUPP || result == -ENOSYS || result == -EINVAL || result == -EPERM) {
    /* To punch a hole is to promise zeroes, which not every device can; to discard is not. */
    storage->discards_by_ioctl = storage->is_device;
    if (!storage->is_device || !discard_by_ioctl (storage, discard->offset, discard->bytes))
      storage->base.no_discards = TRUE;
  }
  storage_discard_ended (&storage->base, discard);
}

/* later: done is called by the main loop. Returns how many requests have ended. */
static unsigned
take_completions (FileStorage *storage, gboolean later) {
  struct {
    void *data;
    int result;
  } ended[REAP_AT_ONCE];
  struct io_uring_cqe *cqes[REAP_AT_ONCE];
  /* copied, because done may come back here */
  const unsigned n = io_uring_peek_batch_cqe (&storage->ring, cqes, REAP_AT_ONCE);
  unsigned n_ended = 0;

  for (unsigned i = 0; i < n; i++) {
    ended[i].data = io_uring_cqe_get_data (cqes[i]);
    ended[i].result = cqes[i]->res;
  }
  io_uring_cq_advance (&storage->ring, n);
  for (unsigned i = 0; i < n; i++) {
    const uintptr_t data = (uintptr_t)ended[i].data;
    int error;

    if (data & IS_DISCARD)
      discard_ended (storage, (struct storage_discard *)(data - IS_DISCARD), ended[i].result);
    else if (io_ended (storage, ended[i].data, ended[i].result, &error)) {
      n_ended++;
      if (later)
        storage_refuse (&storage->base, ended[i].data, error);
      else
        ((StorageIo *)ended[i].data)->done (ended[i].data, error);
    }
  }
  if (n > 0)
    submit_more (storage);
  return n_ended;
}

static unsigned
file_reap (Storage *base) {
  return take_completions ((FileStorage *)base, FALSE);
}

static void
file_kick (Storage *base) {
  submit_more ((FileStorage *)base);
}

/* The ring's own descriptor wakes the main loop up, and what is in the ring can be seen without a call. */
static gboolean
ring_prepare (GSource *source, gint *timeout) {
  *timeout = -1;
  return io_uring_cq_ready (&((struct ring_source *)source)->storage->ring) > 0;
}

static gboolean
ring_check (GSource *source) {
  struct io_uring *ring = &((struct ring_source *)source)->storage->ring;

  return io_uring_cq_ready (ring) > 0 || (IO_URING_READ_ONCE (*ring->sq.kflags) & IORING_SQ_CQ_OVERFLOW) != 0;
}

static gboolean
ring_dispatch (GSource *source, GSourceFunc callback, gpointer data) {
  take_completions (((struct ring_source *)source)->storage, FALSE);
  return G_SOURCE_CONTINUE;
}

static GSourceFuncs ring_source_functions = { .prepare = ring_prepare, .check = ring_check, .dispatch = ring_dispatch };

/* ---- room ---- */

static int
call_fallocate (int fd, int mode, guint64 offset, guint64 bytes) {
  while (fallocate (fd, mode, (off_t)offset, (off_t)bytes) < 0)
    if (errno != EINTR)
      return errno;
  return 0;
}

static gboolean
file_allocate (Storage *base, guint64 offset, guint64 bytes, GError **error) {
  FileStorage *storage = (FileStorage *)base;
  int failure;

  if (storage->is_device)
    return TRUE;
  /* a discard that came later than this would take the room away again */
  while (storage_discard_overlaps (base, offset, bytes)) {
    submit_more (storage);
    io_uring_submit_and_wait (&storage->ring, 1);
    take_completions (storage, TRUE);
  }
  failure = call_fallocate (storage->fd, 0, offset, bytes);
  if (failure == 0 || failure == EOPNOTSUPP) /* such a file system can't promise room: then writes fail when there is none */
    return TRUE;
  errno = failure;
  domybs_error_errno (error, "no room for %" G_GUINT64_FORMAT " MiB more in %s", bytes >> 20, storage->base.description);
  return FALSE;
}

static void
file_discard_now (Storage *base, guint64 offset, guint64 bytes) {
  FileStorage *storage = (FileStorage *)base;

  if (storage->discards_by_ioctl)
    discard_by_ioctl (storage, offset, bytes);
  else
    call_fallocate (storage->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, bytes);
}

/* ---- beginning and end ---- */

/* liburing 2.3 has functions for these two, but does not export them. */
static int
register_call (struct io_uring *ring, unsigned what, void *argument, unsigned n) {
  return syscall (SYS_io_uring_register, ring->ring_fd, what, argument, n) < 0 ? -errno : 0;
}

static gboolean
ring_failed (GError **error, const char *path, int code) {
  const gboolean forbidden = code == EPERM || code == ENOSYS || code == EACCES;

  errno = code;
  domybs_error_errno (error, "%s: no io_uring%s", path,
                      forbidden ? " (it is forbidden here: see sysctl kernel.io_uring_disabled, and the container's rules)"
                                : "");
  return FALSE;
}

static int
restrict_ring (struct io_uring *ring) {
  struct io_uring_restriction allowed[] = {
    { .opcode = IORING_RESTRICTION_REGISTER_OP, .register_op = IORING_UNREGISTER_FILES },
    { .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_READ },
    { .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_WRITE },
    { .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_FALLOCATE },
    { .opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED, .sqe_flags = IOSQE_FIXED_FILE },
    { .opcode = IORING_RESTRICTION_SQE_FLAGS_REQUIRED, .sqe_flags = IOSQE_FIXED_FILE },
  };

  return register_call (ring, IORING_REGISTER_RESTRICTIONS, allowed, G_N_ELEMENTS (allowed));
}

static gboolean
make_ring (FileStorage *storage, const char *path, int gone_write_fd, GError **error) {
  const int files[N_FILES] = { storage->fd, gone_write_fd };
  int result;

  /* Without interrupting us for what we fetch soon anyway; older kernels (5.19, 6.0) don't know that. */
  result = io_uring_queue_init (RING_ENTRIES, &storage->ring,
                                IORING_SETUP_R_DISABLED | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SINGLE_ISSUER);
  if (result == -EINVAL)
    result = io_uring_queue_init (RING_ENTRIES, &storage->ring, IORING_SETUP_R_DISABLED);
  if (result < 0)
    return ring_failed (error, path, -result);
  storage->have_ring = TRUE;
  result = io_uring_register_files (&storage->ring, files, gone_write_fd >= 0 ? N_FILES : 1);
  if (result == 0)
    result = restrict_ring (&storage->ring);
  if (result == 0)
    result = register_call (&storage->ring, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
  return result == 0 || ring_failed (error, path, -result);
}

static void
attach_ring (FileStorage *storage) {
  g_autoptr (GMainContext) context = g_main_context_ref_thread_default ();

  storage->ring_source = g_source_new (&ring_source_functions, sizeof (struct ring_source));
  ((struct ring_source *)storage->ring_source)->storage = storage;
  g_source_add_unix_fd (storage->ring_source, storage->ring.ring_fd, G_IO_IN);
  g_source_attach (storage->ring_source, context);
}

static void
forget_waiting (FileStorage *storage) {
  storage->waiting = storage->later = storage->base.blocked = (struct io_queue){ NULL, NULL };
  storage->base.no_discards = TRUE;
  for (GList *l = storage->base.discards.head, *next; l; l = next) {
    struct storage_discard *discard = l->data;

    next = l->next;
    if (!discard->under_way) {
      g_queue_delete_link (&storage->base.discards, l);
      g_free (discard);
    }
  }
}

static void
file_free (Storage *base) {
  FileStorage *storage = (FileStorage *)base;

  source_clear (&storage->ring_source);
  source_clear (&storage->gone_source);
  source_clear (&storage->retry_source);
  if (storage->have_ring) {
    /* Buffers belong to the kernel until then. What has not begun does not. */
    forget_waiting (storage);
    while (storage->under_way > 0 || base->discards_under_way > 0) {
      io_uring_submit_and_wait (&storage->ring, 1);
      take_completions (storage, TRUE);
      forget_waiting (storage);
    }
    source_clear (&base->refused_source);
    source_clear (&storage->retry_source);
    /* else file and lock are held until the kernel has taken the ring down, a little later than this */
    register_call (&storage->ring, IORING_UNREGISTER_FILES, NULL, 0);
    io_uring_queue_exit (&storage->ring);
  }
  if (storage->gone_fd >= 0)
    close (storage->gone_fd);
  if (storage->fd >= 0)
    close (storage->fd);
}

static const struct storage_kind file_kind = {
  .submit = file_submit,
  .kick = file_kick,
  .reap = file_reap,
  .allocate = file_allocate,
  .discards_depth = DISCARDS_DEPTH,
  .discard_now = file_discard_now,
  .free = file_free,
};

static gboolean
on_gone (gint fd, GIOCondition condition, gpointer data) {
  FileStorage *storage = data;

  source_clear (&storage->gone_source);
  storage_settle (&storage->base);
  return G_SOURCE_REMOVE;
}

static gboolean
check_size (FileStorage *storage, const char *path, guint64 bytes, GError **error) {
  struct stat st;
  guint64 size = 0;

  if (fstat (storage->fd, &st) < 0) {
    domybs_error_errno (error, "%s", path);
    return FALSE;
  }
  storage->is_device = S_ISBLK (st.st_mode);
  if (!storage->is_device)
    size = (guint64)st.st_size;
  else if (ioctl (storage->fd, BLKGETSIZE64, &size) < 0)
    size = 0;
  if (size < bytes)
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_USAGE,
                 "%s has %" G_GUINT64_FORMAT " bytes, but %" G_GUINT64_FORMAT " are needed", path, size, bytes);
  return size >= bytes;
}

Storage *
storage_file_new (const char *path, int fd, guint64 bytes, int gone_write_fd, int gone_read_fd, GError **error) {
  FileStorage *storage = g_new0 (FileStorage, 1);
  gboolean ok;

  storage->base.kind = &file_kind;
  storage->fd = fcntl (fd, F_DUPFD_CLOEXEC, 0);
  storage->gone_fd = gone_read_fd < 0 ? -1 : fcntl (gone_read_fd, F_DUPFD_CLOEXEC, 0);
  ok = storage->fd >= 0 && (gone_read_fd < 0 || storage->gone_fd >= 0);
  if (!ok)
    domybs_error_errno (error, "%s: no descriptor", path);
  ok = ok && check_size (storage, path, bytes, error) && make_ring (storage, path, gone_write_fd, error);
  if (gone_write_fd >= 0)
    close (gone_write_fd);
  if (!ok) {
    storage_free (&storage->base);
    return NULL;
  }
  storage_init (&storage->base, &file_kind, bytes,
                g_strdup_printf ("%s %s (%sio_uring)", storage->is_device ? "device" : "file", path,
                                 fcntl (storage->fd, F_GETFL) & O_DIRECT ? "O_DIRECT, " : "through the host's page cache, "));
  attach_ring (storage);
  if (gone_read_fd < 0)
    storage_settle (&storage->base);
  else
    storage->gone_source = source_fd (NULL, storage->gone_fd, 0, on_gone, storage);
  return &storage->base;
}
