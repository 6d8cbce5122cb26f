/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A file as storage of far pages: ours, through the main loop (and, "reaped", asked at once), against a bare loop on an
 * io_uring of its own with the same flags and files, and against pread. All of them in each round, one after the other. CPU
 * time is this process's, the kernel's threads for it included.
 */
#include "figures.h"
#include "io/storage.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MIB ((guint64)1 << 20)
#define WRITE_BYTES (2 * MIB)
#define READ_BYTES 4096u
#define DEPTH_MAX 32u

static int mib = 512, n_reads = 20000;
static char **places;

struct bench {
  Storage *storage;
  int fd;
  struct io_uring ring;
  guint64 bytes;
  guint8 *bufs[DEPTH_MAX];
  GRand *rand;
  StorageIo ios[DEPTH_MAX];
  guint64 started, ended, n;
  gboolean is_write, reap;
};

static guint64
next_offset (struct bench *bench, gboolean is_write, guint64 i) {
  if (is_write)
    return i * WRITE_BYTES % bench->bytes;
  return (guint64)g_rand_int_range (bench->rand, 0, (gint32)(bench->bytes / READ_BYTES)) * READ_BYTES;
}

/* ---- ours ---- */

static void
start_ours (struct bench *bench, StorageIo *io) {
  io->offset = next_offset (bench, bench->is_write, bench->started++);
  storage_submit (bench->storage, io);
}

static void
on_done (StorageIo *io, int error) {
  struct bench *bench = io->data;

  g_assert (error == 0);
  bench->ended++;
  if (bench->started < bench->n)
    start_ours (bench, io);
}

static void
ours (struct bench *bench, gboolean is_write, unsigned depth, guint64 n) {
  bench->started = bench->ended = 0;
  bench->n = n;
  bench->is_write = is_write;
  for (unsigned i = 0; i < depth && bench->started < n; i++) {
    bench->ios[i] = (StorageIo){
      .is_write = is_write, .buf = bench->bufs[i], .bytes = is_write ? WRITE_BYTES : READ_BYTES, .done = on_done, .data = bench
    };
    start_ours (bench, &bench->ios[i]);
  }
  while (bench->ended < n) {
    storage_kick (bench->storage);
    if (!bench->reap || storage_reap (bench->storage) == 0)
      g_main_context_iteration (NULL, TRUE);
  }
}

/* ---- a bare ring ---- */

static void
prepare_bare (struct bench *bench, gboolean is_write, guint8 *buf, guint64 i) {
  struct io_uring_sqe *sqe = io_uring_get_sqe (&bench->ring);
  const guint64 offset = next_offset (bench, is_write, i);

  if (is_write)
    io_uring_prep_write (sqe, 0, buf, WRITE_BYTES, offset);
  else
    io_uring_prep_read (sqe, 0, buf, READ_BYTES, offset);
  io_uring_sqe_set_flags (sqe, IOSQE_FIXED_FILE);
  io_uring_sqe_set_data (sqe, buf);
}

static void
bare (struct bench *bench, gboolean is_write, unsigned depth, guint64 n) {
  guint64 started = 0, ended = 0;
  struct io_uring_cqe *cqes[DEPTH_MAX];

  while (started < MIN (depth, n)) {
    prepare_bare (bench, is_write, bench->bufs[started], started);
    started++;
  }
  while (ended < n) {
    unsigned got;

    io_uring_submit_and_wait (&bench->ring, 1);
    got = io_uring_peek_batch_cqe (&bench->ring, cqes, DEPTH_MAX);
    for (unsigned i = 0; i < got; i++) {
      g_assert (cqes[i]->res == (int)(is_write ? WRITE_BYTES : READ_BYTES));
      ended++;
      if (started < n)
        prepare_bare (bench, is_write, io_uring_cqe_get_data (cqes[i]), started++);
    }
    io_uring_cq_advance (&bench->ring, got);
  }
}

/* ---- one after the other ---- */

static void
plain (struct bench *bench, gboolean is_write, unsigned depth, guint64 n) {
  for (guint64 i = 0; i < n; i++) {
    const guint64 offset = next_offset (bench, is_write, i);
    const ssize_t result = is_write ? pwrite (bench->fd, bench->bufs[0], WRITE_BYTES, (off_t)offset)
                                    : pread (bench->fd, bench->bufs[0], READ_BYTES, (off_t)offset);

    g_assert (result == (ssize_t)(is_write ? WRITE_BYTES : READ_BYTES));
  }
}

/* ---- ---- */

typedef void (*Way) (struct bench *bench, gboolean is_write, unsigned depth, guint64 n);

static void
compare (struct bench *bench, const char *place, const char *what, gboolean is_write, unsigned depth, guint64 n) {
  const struct {
    const char *name;
    Way way;
    gboolean reap;
  } ways[] = { { "ours", ours, FALSE },
               { "ours, reaped", ours, TRUE },
               { "bare io_uring", bare, FALSE },
               { is_write ? "pwrite" : "pread", plain, FALSE } };
  const unsigned n_ways = bench->fd < 0 ? 1 : depth == 1 || is_write ? 4 : 3;
  double *us[4], *cpu[4];

  for (unsigned w = 0; w < n_ways; w++) {
    us[w] = g_new (double, figures_rounds);
    cpu[w] = g_new (double, figures_rounds);
  }
  for (int round = 0; round < figures_rounds; round++)
    for (unsigned w = 0; w < n_ways; w++) {
      const double cpu_start = figures_cpu_us (), start = figures_us ();

      bench->reap = ways[w].reap;
      ways[w].way (bench, is_write, depth, n);
      us[w][round] = (figures_us () - start) / (double)n;
      cpu[w][round] = (figures_cpu_us () - cpu_start) / (double)n;
    }
  for (unsigned w = 0; w < n_ways; w++) {
    g_autofree char *name = g_strdup_printf ("%s, %s: %s", place, what, ways[w].name),
                    *cpu_name = g_strconcat (name, ", CPU", NULL);

    if (is_write)
      for (int round = 0; round < figures_rounds; round++)
        us[w][round] = WRITE_BYTES / us[w][round];
    figures_record (name, is_write ? "MB/s" : "us", us[w]);
    figures_record (cpu_name, "us", cpu[w]);
    g_free (us[w]);
    g_free (cpu[w]);
  }
}

static void
measure (struct bench *bench, const char *place) {
  while (!storage_is_settled (bench->storage))
    g_main_context_iteration (NULL, TRUE);
  g_print ("  %s\n", storage_description (bench->storage));
  ours (bench, TRUE, 4, bench->bytes / WRITE_BYTES); /* written once before anything is measured */
  compare (bench, place, "2 MiB writes, 4 at a time", TRUE, 4, bench->bytes / WRITE_BYTES);
  compare (bench, place, "4 KiB random reads, 1 at a time", FALSE, 1, (guint64)n_reads);
  compare (bench, place, "4 KiB random reads, 32 at a time", FALSE, 32, (guint64)n_reads);
}

static void
run (const char *place) {
  const gboolean is_nbd = storage_spec_is_nbd (place);
  g_autofree char *folder = g_build_filename (place, "domybs-bench-XXXXXX", NULL), *spec = NULL;
  struct bench bench = { .bytes = (guint64)mib * MIB, .rand = g_rand_new_with_seed (1), .fd = -1 };
  g_autoptr (GError) error = NULL;

  if (!is_nbd && !g_mkdtemp (folder)) {
    g_printerr ("%s: %s\n", folder, g_strerror (errno));
    exit (1);
  }
  spec = is_nbd ? g_strdup (place) : g_build_filename (folder, "far", NULL);
  bench.fd = storage_open_file (spec, bench.bytes, &error);
  bench.storage = error ? NULL : storage_new (spec, bench.fd, bench.bytes, -1, -1, &error);
  if (!bench.storage || !storage_allocate (bench.storage, 0, bench.bytes, &error)
      || io_uring_queue_init (128, &bench.ring, IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SINGLE_ISSUER) < 0) {
    g_printerr ("%s: %s\n", place, error ? error->message : "no io_uring");
    exit (1);
  }
  if (bench.fd >= 0)
    io_uring_register_files (&bench.ring, &bench.fd, 1);
  for (unsigned i = 0; i < DEPTH_MAX; i++) {
    bench.bufs[i] = g_aligned_alloc (1, WRITE_BYTES, 4096);
    memset (bench.bufs[i], (int)i + 1, WRITE_BYTES);
  }
  measure (&bench, place);
  for (unsigned i = 0; i < DEPTH_MAX; i++)
    g_aligned_free (bench.bufs[i]);
  io_uring_queue_exit (&bench.ring);
  storage_free (bench.storage);
  g_rand_free (bench.rand);
  if (!is_nbd) {
    close (bench.fd);
    unlink (spec);
    rmdir (folder);
  }
}

int
main (int argc, char **argv) {
  const GOptionEntry entries[] = {
    { "size", 0, 0, G_OPTION_ARG_INT, &mib, "Size of the file (512)", "MIB" },
    { "reads", 0, 0, G_OPTION_ARG_INT, &n_reads, "Reads of a round (20000)", "N" },
    { "place", 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &places,
      "Folder for the file, or NBD URI; several times (/dev/shm and /var/tmp)", "FOLDER" },
    { NULL },
  };
  char *usual[] = { (char *)"/dev/shm", (char *)"/var/tmp", NULL };

  figures_begin (argc, argv, "Storage of far pages", "– reads and writes of storage", entries);
  for (char **place = places ? places : usual; *place; place++)
    run (*place);
  return figures_end ();
}
