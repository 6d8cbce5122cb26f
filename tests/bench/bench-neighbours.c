/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a neighbour's memory brings: a store of values of 1 KiB (zipf.h), paged to a far disk by pager.h as in bench-native-swap
 * (real faults on real processors, one read at a time that the program waits for), 50 and 25 % of it in memory. The far disk
 * has storage alone, or a copy with a neighbour as well (a domybs-donor on this host, over TLS; protection ssd), from which it
 * reads.
 *
 * How much that is depends on the storage: a file in memory, which costs less than any network; storage that answers later by
 * 60 µs, as a device does (its server takes some time of its own: what a page-in took in all is in the table), and by 1 ms, as
 * storage over a network does. All in each round, one after the other. CPU time is of the store, domybs-far and the donor.
 */
#include "far-place.h"
#include "figures.h"
#include "pager.h"
#include "processes.h"
#include "zipf.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <glib/gstdio.h>

#define VALUES_PER_PAGE (BLK_PAGE / ZIPF_VALUE_BYTES)
#define POLL_US 200u /* not pinned: as KVM does for a guest's processor that waits */
#define LOCAL_TIMES 5

static const struct storage {
  const char *name;
  unsigned delay_us;
} storages[] = { { "file in memory", 0 }, { "+60 us", 60 }, { "+1 ms", 1000 } };
#define N_STORAGES G_N_ELEMENTS (storages)

static const unsigned locals[] = { 100, 50, 25 };
#define N_LOCALS G_N_ELEMENTS (locals)

enum kind { US, P50, P99, CPU, INS, IN_US, KINDS };
static const struct {
  const char *name, *unit;
} kinds[KINDS] = { { "an operation", "us" },
                   { "p50", "us" },
                   { "p99", "us" },
                   { "CPU of an operation", "us" },
                   { "page-ins of 1000 operations", "" },
                   { "a page-in, all told", "us" } };

static int mib = 64, operations = 10000;
static gboolean is_pinned;
static char *folder, *stage;
static double *figures[N_STORAGES][2][N_LOCALS][KINDS];

struct scene {
  struct far_place *place;
  struct blk *blk;
  struct pager *pager;
  struct zipf zipf;
  uint64_t state; /* of what is chosen next */
};

static void
run (struct scene *scene, int n, double *ret) {
  struct zipf_times *times = g_new0 (struct zipf_times, 1);
  const uint64_t ins = scene->pager->ins, began = zipf_now_ns ();
  const double cpu = figures_cpu_us () + far_place_cpu_us (scene->place);
  uint64_t now = began;

  for (int k = 0; k < n; k++) {
    const uint64_t before = now;
    bool replace;
    const uint32_t i = zipf_choose (&scene->zipf, &scene->state, &replace);

    pager_note (scene->pager, i / VALUES_PER_PAGE, replace);
    if (replace)
      zipf_replace (scene->pager->area, i);
    else if (!zipf_check (scene->pager->area + (size_t)i * ZIPF_VALUE_BYTES, i))
      g_error ("value %u is not what was put there", i);
    now = zipf_now_ns ();
    zipf_times_add (times, now - before);
  }
  if (ret) {
    ret[US] = (double)(now - began) / 1000 / n;
    ret[P50] = zipf_times_at (times, 0.5) / 1000;
    ret[P99] = zipf_times_at (times, 0.99) / 1000;
    ret[CPU] = (figures_cpu_us () + far_place_cpu_us (scene->place) - cpu) / n;
    ret[INS] = (double)(scene->pager->ins - ins) / n * 1000;
    ret[IN_US] = 0;
  }
  g_free (times);
}

static void
begin (struct scene *scene, const struct storage *storage, bool neighbour) {
  const uint32_t n_values = (uint32_t)mib << 10, n_pages = n_values / VALUES_PER_PAGE;

  *scene = (struct scene){ .state = 88172645463325252ull };
  scene->place = far_place_start (&(struct far_place_options){ .folder = folder,
                                                               .stage = stage,
                                                               .bytes = (uint64_t)mib << 21, /* twice as much */
                                                               .delay_us = storage->delay_us,
                                                               .neighbour = neighbour });
  scene->blk = blk_new ();
  scene->blk->n_queues = 1;
  if (!blk_connect (scene->blk, scene->place->far->socket_paths[0]))
    g_error ("%s", scene->blk->fe->why);
  processes_pin (getpid (), is_pinned);
  far_place_pin (scene->place, is_pinned);
  zipf_init (&scene->zipf, n_values, g_malloc (zipf_table_bytes (n_values)));
  scene->pager = pager_new (scene->blk, n_pages);
  scene->pager->poll_us = is_pinned ? 0 : POLL_US;
  for (uint32_t page = 0; page < n_pages; page++)
    pager_note (scene->pager, page, true);
  zipf_fill (scene->pager->area, n_values);
}

static void
end (struct scene *scene) {
  pager_free (scene->pager);
  blk_free (scene->blk);
  g_free (scene->zipf.threshold);
  far_place_end (scene->place);
  processes_pin (getpid (), false);
}

static void
measure (unsigned s, int neighbour, int round) {
  struct scene scene;
  double local_us = 0;

  begin (&scene, &storages[s], neighbour);
  for (unsigned l = 0; l < N_LOCALS; l++) {
    const int n = operations * (locals[l] == 100 ? LOCAL_TIMES : 1);
    double of_one[KINDS];

    if (locals[l] < 100) {
      pager_limit (scene.pager, scene.pager->n_pages / 100 * locals[l]);
      far_place_wait_protected (scene.place);
    }
    run (&scene, n, NULL);
    run (&scene, n, of_one);
    if (locals[l] == 100)
      local_us = of_one[US];
    else if (of_one[INS] > 0)
      of_one[IN_US] = (of_one[US] - local_us) / of_one[INS] * 1000;
    for (enum kind kind = 0; kind < KINDS; kind++)
      figures[s][neighbour][l][kind][round] = of_one[kind];
  }
  end (&scene);
}

/* ---- results ---- */

static void
record (unsigned s, int neighbour, unsigned l, enum kind kind) {
  g_autofree char *name = g_strdup_printf ("%u %%, %s, %s: %s", locals[l], storages[s].name,
                                           neighbour ? "neighbour" : "storage only", kinds[kind].name);
  g_autofree double *values = g_memdup2 (figures[s][neighbour][l][kind], sizeof (double) * (gsize)figures_rounds);

  figures_record (name, kinds[kind].unit, values);
}

/* How many times the time (of the same round) with storage only is that with a neighbour. */
static void
record_ratio (unsigned s, unsigned l) {
  g_autofree char *name = g_strdup_printf ("%u %%, %s: a neighbour makes it faster, times 100", locals[l], storages[s].name);
  g_autofree double *values = g_new (double, figures_rounds);

  for (int round = 0; round < figures_rounds; round++)
    values[round] = figures[s][0][l][US][round] / figures[s][1][l][US][round] * 100;
  figures_record (name, "%", values);
}

int
main (int argc, char **argv) {
  const GOptionEntry entries[]
      = { { "mib", 0, 0, G_OPTION_ARG_INT, &mib, "Values, MiB, a power of two (64)", "MIB" },
          { "operations", 0, 0, G_OPTION_ARG_INT, &operations, "Of each measurement, and before each to settle (10000)", "N" },
          { "pinned", 0, 0, G_OPTION_ARG_NONE, &is_pinned, "All on one processor (but what plays slow storage)", NULL },
          { "folder", 0, 0, G_OPTION_ARG_FILENAME, &folder, "Where files are (/dev/shm)", "FOLDER" },
          { "stage", 0, 0, G_OPTION_ARG_STRING, &stage, "Of domybs-far (8M, the least: what is in it is read from memory)",
            "SIZE" },
          { NULL } };
  unsigned n_storages = N_STORAGES;

  figures_rounds = 3;
  figures_begin (argc, argv, "A store of values, partly on a far disk", "– what a neighbour's memory brings (3 rounds)",
                 entries);
  if (operations < 1000 || mib < 16 || mib > 4096 || (mib & (mib - 1))) {
    g_printerr ("bench-neighbours: --operations or --mib is wrong (see --help)\n");
    return 2;
  }
  folder = folder ? folder : g_strdup ("/dev/shm");
  stage = stage ? stage : g_strdup ("8M");
  g_setenv ("TMPDIR", folder, TRUE); /* where NBD storage is */
  if (!far_place_can_delay ()) {
    puts ("  no nbdkit: nothing is slow here (Debian: nbdkit)");
    n_storages = 1;
  }
  for (unsigned s = 0; s < N_STORAGES; s++)
    for (int neighbour = 0; neighbour < 2; neighbour++)
      for (unsigned l = 0; l < N_LOCALS; l++)
        for (enum kind kind = 0; kind < KINDS; kind++)
          figures[s][neighbour][l][kind] = g_new0 (double, figures_rounds);
  for (int round = 0; round < figures_rounds; round++)
    for (unsigned s = 0; s < n_storages; s++)
      for (int k = 0; k < 2; k++)
        measure (s, (k + round) % 2, round); /* each is the first one in turn */
  for (unsigned l = 0; l < N_LOCALS; l++)
    for (unsigned s = 0; s < n_storages; s++) {
      for (int neighbour = 0; neighbour < 2; neighbour++)
        for (enum kind kind = 0; kind < (locals[l] == 100 ? INS : KINDS); kind++)
          record (s, neighbour, l, kind);
      if (locals[l] < 100)
        record_ratio (s, l);
    }
  return figures_end ();
}
