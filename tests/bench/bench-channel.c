/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The page channel, its two ends in processes of their own on TCP of localhost: single reads of 4 KiB against others that
 * answer over TCP, many at a time, a whole disk, and write-out, with the seal of each page too. All of them in each round, one
 * after the other; pinned: both ends on the machine's last processor. CPU time is of both ends, "here" of this one alone.
 */
#include "channel-peers.h"
#include "figures.h"
#include "processes.h"

#include "../page-channel/donor-process.h"
#include "io/page-channel.h"
#include "io/seal.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BLOCK_BYTES (2u << 20)
#define DEPTH_MAX 64u
#define OURS 2u /* plain, TLS */
#define SINGLES_MAX (OURS + 4u)

static int n_reads = 5000, mib = 128;
static gboolean only_pinned, only_loose, only_singles;
static char *only_peer;

/* ---- ours ---- */

struct ours {
  DonorProcess *donor;
  PageChannel *channel;
  Seal *seal;
  PageIo ios[DEPTH_MAX];
  guint8 *bufs[DEPTH_MAX], *pages;
  struct far_page *tags;
  GRand *rand;
  guint64 started, ended, n, export_bytes;
  gsize bytes;
  enum page_op op;
  gboolean random, sealing;
  guint64 version;
  guint32 worker;
};

static void
seal_block (struct ours *ours, PageIo *io) {
  for (gsize at = 0; at < io->bytes; at += FAR_PAGE_BYTES) {
    const guint64 number = (io->offset + at) / FAR_PAGE_BYTES;
    struct far_page page = { .kind = FAR_RAW, .bytes = FAR_PAGE_BYTES, .version = ++ours->version };

    seal_close_page (ours->seal, number, &page, ours->pages + (number * FAR_PAGE_BYTES) % ours->export_bytes,
                     (guint8 *)io->buf + at);
    ours->tags[number] = page;
  }
}

static void
begin (struct ours *ours, PageIo *io) {
  const guint64 places = ours->export_bytes / ours->bytes;

  io->offset
      = (ours->random ? (guint64)g_rand_int_range (ours->rand, 0, (gint32)places) : ours->started % places) * ours->bytes;
  ours->started++;
  if (ours->sealing)
    seal_block (ours, io);
  page_channel_submit (ours->channel, io);
}

static void
on_done (PageIo *io, int error) {
  struct ours *ours = io->data;

  if (error != 0)
    g_error ("the channel: %s", g_strerror (error));
  ours->ended++;
  if (ours->started < ours->n)
    begin (ours, io);
}

static void
go (struct ours *ours, enum page_op op, enum page_class class, gsize bytes, guint depth, guint64 n) {
  ours->started = ours->ended = 0;
  ours->n = n;
  ours->op = op;
  ours->bytes = bytes;
  ours->random = bytes == FAR_PAGE_BYTES;
  for (guint i = 0; i < depth && ours->started < n; i++) {
    ours->ios[i] = (PageIo){ .op = op, .class = class, .bytes = bytes, .buf = ours->bufs[i], .done = on_done, .data = ours };
    begin (ours, &ours->ios[i]);
  }
  while (ours->ended < n) {
    page_channel_kick (ours->channel);
    g_main_context_iteration (NULL, TRUE);
  }
}

static gboolean
is_attached (const struct ours *ours, guint64 level) {
  PageChannelFigures figures;

  page_channel_figures (ours->channel, &figures);
  return figures.state == PAGE_CHANNEL_ATTACHED && figures.lease.level >= level;
}

/* The one that is measured is the only one: others would be more descriptors to look at. */
static void
open_channel (struct ours *ours) {
  const guint64 blocks = ours->export_bytes / BLOCK_BYTES;
  PageChannelOptions options = { .name = "donor", .vm = { 1 }, .host = { 1 }, .boot = { 1 } };
  g_autoptr (GError) error = NULL;

  options.address = ours->donor->address;
  options.worker = ++ours->worker;
  options.export_blocks = blocks;
  if (ours->donor->tls) {
    options.psk_identity = DONOR_IDENTITY;
    options.psk = donor_key;
    options.psk_bytes = sizeof donor_key;
  }
  ours->channel = page_channel_new (&options, NULL, &error);
  if (!ours->channel)
    g_error ("%s", error->message);
  page_channel_want (ours->channel, blocks);
  while (!is_attached (ours, blocks))
    g_main_context_iteration (NULL, TRUE);
}

static void
close_channel (struct ours *ours) {
  page_channel_free (g_steal_pointer (&ours->channel));
}

static void
start_ours (struct ours *ours, gboolean tls) {
  const guint64 blocks = (guint64)mib / 2;
  static const guint8 key[SEAL_KEY_BYTES] = { 1 };

  ours->export_bytes = blocks * BLOCK_BYTES;
  ours->donor = donor_process_new (blocks, tls);
  ours->rand = g_rand_new_with_seed (1);
  ours->seal = seal_new (key, 1, NULL);
  ours->tags = g_new0 (struct far_page, ours->export_bytes / FAR_PAGE_BYTES);
  ours->pages = g_aligned_alloc (ours->export_bytes, 1, FAR_PAGE_BYTES);
  memset (ours->pages, 3, ours->export_bytes);
  for (guint i = 0; i < DEPTH_MAX; i++) {
    ours->bufs[i] = g_aligned_alloc (BLOCK_BYTES, 1, FAR_PAGE_BYTES);
    memset (ours->bufs[i], 1, BLOCK_BYTES);
  }
  open_channel (ours);
  go (ours, PAGE_WRITE, PAGE_WRITE_OUT, BLOCK_BYTES, 2, blocks);
  close_channel (ours);
}

static void
end_ours (struct ours *ours) {
  donor_process_free (ours->donor);
  seal_free (ours->seal);
  g_rand_free (ours->rand);
  g_free (ours->tags);
  g_aligned_free (ours->pages);
  for (guint i = 0; i < DEPTH_MAX; i++)
    g_aligned_free (ours->bufs[i]);
}

static void
read_ours (gpointer data, guint page) {
  go (data, PAGE_READ, PAGE_DEMAND, FAR_PAGE_BYTES, 1, 1);
}

/* ---- figures ---- */

struct row {
  char *name;
  const char *unit;
  double *values;
};

static GArray *rows;

/* Makes the row at its first value. */
static void
note (int round, const char *pinned, const char *what, const char *figure, const char *unit, double value) {
  g_autofree char *name = g_strdup_printf ("%s: %s%s%s", pinned, what, *figure ? ", " : "", figure);
  struct row row;

  for (guint i = 0; i < rows->len; i++)
    if (strcmp (g_array_index (rows, struct row, i).name, name) == 0) {
      g_array_index (rows, struct row, i).values[round] = value;
      return;
    }
  row = (struct row){ g_steal_pointer (&name), unit, g_new0 (double, figures_rounds) };
  row.values[round] = value;
  g_array_append_val (rows, row);
}

static int
compare_doubles (const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;

  return x < y ? -1 : x > y;
}

/* Single reads; returns the p50 in µs. */
static double
measure_singles (int round, const char *pinned, const ChannelPeer *peer, GRand *rand) {
  g_autofree double *us = g_new (double, n_reads);
  double cpu = figures_cpu_us () + processes_cpu_us (peer->pid);

  for (int i = 0; i < n_reads; i++) {
    const guint page = (guint)g_rand_int_range (rand, 0, PEER_PAGES);
    const double start = figures_us ();

    peer->read (peer->data, page);
    us[i] = figures_us () - start;
  }
  cpu = figures_cpu_us () + processes_cpu_us (peer->pid) - cpu;
  qsort (us, (size_t)n_reads, sizeof *us, compare_doubles);
  note (round, pinned, peer->name, "p50", "us", us[n_reads / 2]);
  note (round, pinned, peer->name, "p99", "us", us[n_reads * 99 / 100]);
  note (round, pinned, peer->name, "CPU of both ends", "us", cpu / n_reads);
  return us[n_reads / 2];
}

static void
measure_bulk (int round, const char *pinned, struct ours *ours, const char *what, enum page_op op, enum page_class class,
              gsize bytes, guint depth, guint64 n) {
  const double start = figures_us (), cpu_here = figures_cpu_us (), cpu_there = processes_cpu_us (ours->donor->pid);
  double us, here, there;

  go (ours, op, class, bytes, depth, n);
  us = figures_us () - start;
  here = figures_cpu_us () - cpu_here;
  there = processes_cpu_us (ours->donor->pid) - cpu_there;
  if (bytes == FAR_PAGE_BYTES) {
    note (round, pinned, what, "", "reads/s", (double)n / us * 1e6);
    note (round, pinned, what, "CPU of both ends", "us", (here + there) / (double)n);
  } else {
    note (round, pinned, what, "", "MB/s", (double)(n * bytes) / us);
    note (round, pinned, what, "MB per CPU second here", "MB", (double)(n * bytes) / here);
    note (round, pinned, what, "MB per CPU second there", "MB", (double)(n * bytes) / there);
    note (round, pinned, what, "MB per CPU second of both ends", "MB", (double)(n * bytes) / (here + there));
  }
}

static void
measure_ours (int round, const char *pinned, struct ours *ours, const char *kind) {
  const guint64 blocks = ours->export_bytes / BLOCK_BYTES;
  g_autofree char *many = g_strdup_printf ("%s, 4 KiB reads, 32 at a time", kind),
                  *whole = g_strdup_printf ("%s, whole disk read", kind), *out = g_strdup_printf ("%s, write-out", kind),
                  *sealed = g_strdup_printf ("%s, write-out and seal", kind);

  measure_bulk (round, pinned, ours, many, PAGE_READ, PAGE_DEMAND, FAR_PAGE_BYTES, 32, (guint64)n_reads * 2);
  measure_bulk (round, pinned, ours, whole, PAGE_READ, PAGE_PREFETCH, 256u << 10, 8, blocks * 8);
  measure_bulk (round, pinned, ours, out, PAGE_WRITE, PAGE_WRITE_OUT, BLOCK_BYTES, 4, blocks);
  ours->sealing = TRUE;
  measure_bulk (round, pinned, ours, sealed, PAGE_WRITE, PAGE_WRITE_OUT, BLOCK_BYTES, 4, blocks);
  ours->sealing = FALSE;
}

/* What the ratios are to is measured in any case. */
static gboolean
is_wanted (const ChannelPeer *peer) {
  return !only_peer || strstr (peer->name, only_peer) || strncmp (peer->name, "raw", 3) == 0;
}

static void
measure_all (int round, gboolean pin, struct ours ours[OURS], ChannelPeer *peers[SINGLES_MAX]) {
  static const char *const kinds[OURS] = { "ours, plain", "ours, TLS" };
  const char *const pinned = pin ? "pinned" : "not pinned";
  g_autoptr (GRand) rand = g_rand_new_with_seed ((guint32)round);
  double p50[SINGLES_MAX] = { 0 };

  processes_pin (getpid (), pin);
  for (guint i = 0; i < SINGLES_MAX; i++)
    if (peers[i]) {
      struct ours *const one = i > 0 && i <= OURS ? &ours[i - 1] : NULL;

      processes_pin (peers[i]->pid, pin);
      if (!is_wanted (peers[i]))
        continue;
      if (one)
        open_channel (one);
      p50[i] = measure_singles (round, pinned, peers[i], rand);
      if (one)
        close_channel (one);
    }
  for (guint i = 0; i < OURS; i++)
    if (p50[1 + i] > 0)
      note (round, pinned, kinds[i], "p50, of raw TCP's", "%", p50[1 + i] / p50[0] * 100);
  for (guint i = 0; i < OURS && !only_singles; i++) {
    open_channel (&ours[i]);
    measure_ours (round, pinned, &ours[i], kinds[i]);
    close_channel (&ours[i]);
  }
}

int
main (int argc, char **argv) {
  const GOptionEntry entries[] = { { "reads", 0, 0, G_OPTION_ARG_INT, &n_reads, "Single reads in a round (5000)", "N" },
                                   { "mib", 0, 0, G_OPTION_ARG_INT, &mib, "Size of the export (128)", "MIB" },
                                   { "pinned", 0, 0, G_OPTION_ARG_NONE, &only_pinned, "Only pinned", NULL },
                                   { "not-pinned", 0, 0, G_OPTION_ARG_NONE, &only_loose, "Only not pinned", NULL },
                                   { "singles", 0, 0, G_OPTION_ARG_NONE, &only_singles, "Only single reads", NULL },
                                   { "peer", 0, 0, G_OPTION_ARG_STRING, &only_peer,
                                     "Single reads from raw TCP and those with TEXT in their names only", "TEXT" },
                                   { NULL } };
  ChannelPeer of_ours[OURS] = { { .name = "ours, plain", .read = read_ours }, { .name = "ours, TLS", .read = read_ours } };
  struct ours ours[OURS] = { 0 };
  ChannelPeer *peers[SINGLES_MAX];

  figures_begin (argc, argv, "A page channel", "– the page channel between two processes, against other servers", entries);
  if (n_reads < 1 || mib < 64) {
    g_printerr ("bench-channel: --reads and --mib are too small (1, 64)\n");
    return 2;
  }
  rows = g_array_new (FALSE, FALSE, sizeof (struct row));
  peers[0] = channel_peer_raw ();
  for (guint i = 0; i < OURS; i++) {
    start_ours (&ours[i], i == 1);
    of_ours[i].data = &ours[i];
    of_ours[i].pid = ours[i].donor->pid;
    peers[1 + i] = &of_ours[i];
  }
  peers[3] = channel_peer_nbdkit ();
  peers[4] = channel_peer_memcached ();
  peers[5] = channel_peer_redis ();
  for (int round = 0; round < figures_rounds; round++) {
    if (!only_loose)
      measure_all (round, TRUE, ours, peers);
    if (!only_pinned)
      measure_all (round, FALSE, ours, peers);
  }
  for (guint i = 0; i < rows->len; i++) {
    const struct row *const row = &g_array_index (rows, struct row, i);

    figures_record (row->name, row->unit, row->values);
    g_free (row->name);
    g_free (row->values);
  }
  g_array_unref (rows);
  for (guint i = 0; i < OURS; i++)
    end_ours (&ours[i]);
  for (guint i = 0; i < SINGLES_MAX; i++)
    if (peers[i] && (i == 0 || i > OURS))
      channel_peer_free (peers[i]);
  return figures_end ();
}
