/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What reading ahead brings and what it costs: one read of 4 KiB at a time (and 32 at a time, at random), with and without,
 * from slow storage (an NBD server that takes a while for each read) and from a file in memory. Both disks are read in turn,
 * round by round.
 */
#include "far.h"
#include "storage/nbd-server.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DISK_BYTES (128ull << 20)
#define DISK_PAGES (DISK_BYTES / BLK_PAGE)
/* Of the storage copy: the disk's, and what is spare. */
#define STORAGE_BYTES (384ull << 20)

static int measure_ms = 700, rounds = 3, delay_ms = 1;
static char *json_path;
static GString *json;

struct load {
  const char *name;
  unsigned depth;
  int64_t step; /* pages from one read to the next; 0: at random */
};

static const struct load loads[] = {
  { "in a row, depth 1", 1, 1 },       { "in a row, depth 4", 4, 1 },  { "backwards, depth 1", 1, -1 },
  { "every 4th page, depth 1", 1, 4 }, { "at random, depth 1", 1, 0 }, { "at random, depth 32", 32, 0 },
};

struct disk {
  const char *name;
  far_t *far;
  blk_t *blk;
  uint64_t at;
};

static double
now_us (void) {
  return (double)g_get_monotonic_time ();
}

static void
wait_one (struct blk *blk, unsigned *ret_slot) {
  uint8_t status;

  if (!blk_wait (blk, ret_slot, &status, fe_patience_ms ()) || status != BLK_S_OK)
    g_error ("a request failed: status %u (%s)", status, blk->fe->why ? blk->fe->why : "?");
}

/* Reads a second. */
static double
measure (struct disk *disk, const struct load *load) {
  static uint64_t state = 88172645463325252ull;
  const struct blk_shape shape = { .indirect = true };
  const double began = now_us (), end = began + measure_ms * 1000.0;
  uint64_t n = 0;
  unsigned slot;

  while (now_us () < end || disk->blk->n_in_flight) {
    while (disk->blk->n_in_flight < load->depth && now_us () < end) {
      state ^= state << 13;
      state ^= state >> 7;
      state ^= state << 17;
      disk->at = load->step ? (disk->at + DISK_PAGES + (uint64_t)load->step) % DISK_PAGES : state % DISK_PAGES;
      slot = (unsigned)blk_free_slot (disk->blk);
      blk_prepare (disk->blk, slot, BLK_IN, disk->at, 1);
      blk_submit (disk->blk, slot, &shape, NULL);
    }
    if (disk->blk->n_in_flight == 0)
      break;
    blk_kick (disk->blk, 0);
    wait_one (disk->blk, &slot);
    n++;
  }
  return (double)n / ((now_us () - began) / 1e6);
}

/* Every page differs, and none packs. */
static void
fill (struct blk *blk) {
  const struct blk_shape shape = { .indirect = true };
  uint64_t state = 0x9e3779b97f4a7c15ull;

  for (uint64_t page = 0; page < DISK_PAGES; page += BLK_SLOT_PAGES) {
    unsigned slot = 0;
    uint64_t *words;

    blk_prepare (blk, slot, BLK_OUT, page, BLK_SLOT_PAGES);
    words = (uint64_t *)blk_data (blk, slot);
    for (unsigned k = 0; k < BLK_SLOT_PAGES * BLK_PAGE / 8; k++) {
      state ^= state << 13;
      state ^= state >> 7;
      state ^= state << 17;
      words[k] = state;
    }
    blk_submit (blk, slot, &shape, NULL);
    blk_kick (blk, 0);
    wait_one (blk, &slot);
  }
}

static void
start (struct disk *disk, const char *name, const char *storage, const char *extra) {
  const struct far_options options = { .bytes = DISK_BYTES, .storage = storage, .disk_extra = extra };

  disk->name = name;
  disk->far = far_start (&options);
  disk->blk = blk_new ();
  disk->blk->n_queues = 1;
  if (!blk_connect (disk->blk, disk->far->socket_paths[0]))
    g_error ("%s", disk->blk->fe->why);
  fill (disk->blk);
}

static void
stop (struct disk *disk) {
  blk_free (disk->blk);
  far_end (disk->far);
}

static int
by_value (const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;

  return x < y ? -1 : x > y;
}

static void
compare (const char *storage, struct disk disks[2]) {
  for (unsigned i = 0; i < G_N_ELEMENTS (loads); i++) {
    double rates[2][16];

    for (int round = 0; round < rounds; round++)
      for (unsigned j = 0; j < 2; j++) {
        const unsigned k = (j + (unsigned)round) % 2; /* each is the first one in turn */

        rates[k][round] = measure (&disks[k], &loads[i]);
      }
    for (unsigned k = 0; k < 2; k++) {
      qsort (rates[k], (size_t)rounds, sizeof (double), by_value);
      printf ("  %-26s %-20s %10.0f/s   ×%.2f\n", loads[i].name, disks[k].name, rates[k][rounds / 2],
              rates[k][rounds / 2] / rates[0][rounds / 2]);
      g_string_append_printf (json, "%s{\"storage\": \"%s\", \"load\": \"%s\", \"disk\": \"%s\", \"per-second\": %.1f}",
                              json->len ? ",\n  " : "", storage, loads[i].name, disks[k].name, rates[k][rounds / 2]);
    }
    fflush (stdout);
  }
  printf ("  read ahead: %" PRId64 " pages, used: %" PRId64 ", dropped unused: %" PRId64 "\n",
          far_status (disks[1].far, 0, "prefetched-pages"), far_status (disks[1].far, 0, "prefetch-used-pages"),
          far_status (disks[1].far, 0, "prefetch-wasted-pages"));
}

static void
run (const char *title, const char *storage, const char *const *places) {
  struct disk disks[2] = { { 0 } };

  printf ("%s\n", title);
  start (&disks[0], "without", places[0], ",queues=1,prefetch=0");
  start (&disks[1], "read ahead (4 MiB)", places[1], ",queues=1,prefetch=4M");
  compare (storage, disks);
  stop (&disks[0]);
  stop (&disks[1]);
}

int
main (int argc, char **argv) {
  const GOptionEntry entries[] = {
    { "ms", 0, 0, G_OPTION_ARG_INT, &measure_ms, "Time of each measurement (700)", "MS" },
    { "rounds", 0, 0, G_OPTION_ARG_INT, &rounds, "Of each measurement; the median counts (3)", "N" },
    { "delay", 0, 0, G_OPTION_ARG_INT, &delay_ms, "That slow storage takes for each read (1)", "MS" },
    { "json", 0, 0, G_OPTION_ARG_FILENAME, &json_path, "Write the results there, too", "FILE" },
    { NULL },
  };
  g_autoptr (GOptionContext) context = g_option_context_new ("– what reading ahead brings, and costs");
  g_autoptr (GError) error = NULL;
  g_autofree char *nbdkit = NULL;
  char *files[2];

  g_option_context_add_main_entries (context, entries, NULL);
  if (!g_option_context_parse (context, &argc, &argv, &error) || argc > 1 || rounds < 1 || rounds > 16 || measure_ms < 1
      || delay_ms < 1) {
    g_printerr ("bench-prefetch: %s\n", error ? error->message : "wrong arguments");
    return 2;
  }
  json = g_string_new (NULL);
  nbdkit = g_find_program_in_path ("nbdkit");
  if (nbdkit) {
    g_autofree char *delay = g_strdup_printf ("delay-read=%dms", delay_ms);
    g_autofree char *title = g_strdup_printf ("NBD, %d ms for each read", delay_ms);
    const char *const filters[] = { "--filter=delay", NULL };
    const char *const parameters[] = { delay, NULL };
    NbdServer *servers[2];

    for (unsigned i = 0; i < 2; i++) {
      servers[i] = nbd_server_new ("nbdkit", STORAGE_BYTES, filters, parameters);
      nbd_server_start (servers[i]);
      if (chmod (servers[i]->folder, 0711) < 0 || chmod (servers[i]->socket, 0666) < 0) /* a worker is nobody */
        g_error ("%s: %s", servers[i]->socket, g_strerror (errno));
    }
    run (title, "nbd", (const char *const[]){ servers[0]->uri, servers[1]->uri });
    for (unsigned i = 0; i < 2; i++)
      nbd_server_free (servers[i]);
  } else {
    printf ("no nbdkit: nothing is slow here (Debian: nbdkit)\n");
  }
  for (unsigned i = 0; i < 2; i++)
    files[i] = g_strdup_printf ("/dev/shm/domybs-bench-%d-%u", (int)getpid (), i);
  run ("A file in memory", "memory", (const char *const *)files); /* which domybs-far makes, and removes */
  for (unsigned i = 0; i < 2; i++)
    g_free (files[i]);
  if (json_path) {
    g_autofree char *text = g_strdup_printf ("[\n  %s\n]\n", json->str);

    if (!g_file_set_contents (json_path, text, -1, &error)) {
      g_printerr ("bench-prefetch: %s\n", error->message);
      return 1;
    }
  }
  g_string_free (json, TRUE);
  return 0;
}
