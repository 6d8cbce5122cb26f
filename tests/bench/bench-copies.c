/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A far disk whose pages live with neighbours: real donors (domybs-donor, TLS) and domybs-far on localhost, a front-end that
 * reads single pages, one at a time. Mirror with three donors, so that a page is with two of them and not in storage.
 *
 * Measured: reads while all is well; right after one donor was stopped (nobody tells it from a slow one); right after another
 * one was killed; and while its copies are made anew; how long these take; all pinned to one processor and not, with the usual
 * limit of re-protection and without. CPU time is of domybs-far and all donors.
 */
#include "donor.h"
#include "far.h"
#include "figures.h"
#include "processes.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <glib/gstdio.h>

#define N_DONORS 3u
#define KEYS "host1:000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n"
#define AWAY_S 3
#define READS_MAX 2000000

static int mib = 256, read_ms = 700;
static gboolean only_pinned, only_loose;

struct scene {
  struct donor *donors[N_DONORS];
  pid_t donor_workers[N_DONORS];
  char *addresses[N_DONORS];
  char *folder, *key_path;
  struct far *far;
  pid_t far_worker;
  struct blk *blk;
  gboolean pinned;
  uint64_t random;
  double *times; /* READS_MAX */
};

/* ---- the scene ---- */

static uint64_t
disk_bytes (void) {
  return (uint64_t)mib << 20;
}

static void
pin_all (struct scene *scene) {
  processes_pin (getpid (), scene->pinned);
  processes_pin (scene->far_worker, scene->pinned);
  for (unsigned d = 0; d < N_DONORS; d++)
    if (scene->donors[d])
      processes_pin (scene->donor_workers[d], scene->pinned);
}

static void
start_donor (struct scene *scene, unsigned d) {
  g_autofree char *listen = scene->addresses[d] ? g_strdup_printf ("--listen=%s", scene->addresses[d]) : NULL;
  const char *const arguments[] = { listen, NULL };

  scene->donors[d]
      = donor_start (&(struct donor_options){ .bytes = disk_bytes () * 3 / 2, .keys = KEYS, .arguments = arguments });
  if (!scene->addresses[d])
    scene->addresses[d] = g_strdup (scene->donors[d]->address);
  scene->donor_workers[d] = backend_wait_worker (scene->donors[d]->backend, 0, fe_patience_ms ());
}

static int64_t
copies (struct scene *scene, const char *member) {
  g_autofree char *path = g_strdup_printf ("copies.%s", member);

  return far_status (scene->far, 0, path);
}

static gboolean
is_protected (struct scene *scene) {
  return copies (scene, "places") > 0 && copies (scene, "protected") == copies (scene, "places")
         && !copies (scene, "repairing");
}

static void
wait_protected (struct scene *scene) {
  const int64_t deadline = fe_now_ms () + 10 * fe_patience_ms ();

  while (!is_protected (scene)) {
    if (fe_now_ms () > deadline)
      g_error ("it is not protected: %d of %d places", (int)copies (scene, "protected"), (int)copies (scene, "places"));
    g_usleep (20000);
  }
}

static void
wait_one (struct blk *blk, unsigned *ret_slot) {
  uint8_t status;

  if (!blk_wait (blk, ret_slot, &status, fe_patience_ms ()) || status != BLK_S_OK)
    g_error ("a request failed: status %u (%s)", status, blk->fe->why ? blk->fe->why : "?");
}

static uint64_t
next_random (struct scene *scene) {
  scene->random ^= scene->random << 13;
  scene->random ^= scene->random >> 7;
  scene->random ^= scene->random << 17;
  return scene->random;
}

/* Every page differs, and none packs. */
static void
fill (struct scene *scene) {
  const struct blk_shape shape = { .indirect = true };
  struct blk *blk = scene->blk;
  unsigned slot;

  for (uint64_t page = 0; page < disk_bytes () / BLK_PAGE; page += BLK_SLOT_PAGES) {
    uint64_t *words;

    slot = (unsigned)(page / BLK_SLOT_PAGES) % BLK_SLOTS;
    blk_prepare (blk, slot, BLK_OUT, page, BLK_SLOT_PAGES);
    words = (uint64_t *)blk_data (blk, slot);
    for (unsigned k = 0; k < BLK_SLOT_PAGES * BLK_PAGE / 8; k++)
      words[k] = next_random (scene);
    blk_submit (blk, slot, &shape, NULL);
    blk_kick (blk, 0);
    wait_one (blk, &slot);
  }
}

static void
begin (struct scene *scene, gboolean pinned, const char *rate) {
  g_autoptr (GPtrArray) arguments = g_ptr_array_new_with_free_func (g_free);

  scene->pinned = pinned;
  scene->folder = g_dir_make_tmp ("domybs-bench-XXXXXX", NULL);
  scene->key_path = g_build_filename (scene->folder, "keys", NULL);
  if (!g_file_set_contents_full (scene->key_path, KEYS, -1, G_FILE_SET_CONTENTS_NONE, 0600, NULL))
    g_error ("can't write %s", scene->key_path);
  for (unsigned d = 0; d < N_DONORS; d++) {
    start_donor (scene, d);
    g_ptr_array_add (arguments, g_strdup_printf ("--donor=d%u,address=%s,psk=%s", d, scene->addresses[d], scene->key_path));
  }
  g_ptr_array_add (arguments, g_strdup_printf ("--donor-away=%d", AWAY_S));
  g_ptr_array_add (arguments, g_strdup ("--stage=16M"));
  if (rate)
    g_ptr_array_add (arguments, g_strdup_printf ("--repair-rate=%s", rate));
  g_ptr_array_add (arguments, NULL);
  scene->far = far_start (&(struct far_options){ .bytes = disk_bytes (),
                                                 .disk_extra = ",queues=1,protection=mirror,prefetch=0",
                                                 .arguments = (const char *const *)arguments->pdata });
  scene->blk = blk_new ();
  scene->blk->n_queues = 1;
  if (!blk_connect (scene->blk, scene->far->socket_paths[0]))
    g_error ("domybs-far: %s", scene->blk->fe->why);
  scene->far_worker = backend_wait_worker (scene->far->backend, 0, fe_patience_ms ());
  scene->random = 88172645463325252ull;
  pin_all (scene);
  while (far_status (scene->far, 0, "copies.places") < 0)
    g_usleep (10000);
  fill (scene);
  wait_protected (scene);
}

static void
clear (struct scene *scene) {
  processes_pin (getpid (), FALSE);
  blk_free (scene->blk);
  far_end (scene->far);
  for (unsigned d = 0; d < N_DONORS; d++) {
    donor_end (scene->donors[d]);
    g_free (scene->addresses[d]);
    scene->addresses[d] = NULL;
  }
  g_unlink (scene->key_path);
  g_rmdir (scene->folder);
  g_free (scene->key_path);
  g_free (scene->folder);
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
note (int round, const char *how, const char *what, const char *figure, const char *unit, double value) {
  g_autofree char *name = g_strdup_printf ("%s: %s%s%s", how, what, *figure ? ", " : "", figure);
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

static double
cpu_us (const struct scene *scene) {
  double sum = processes_cpu_us (scene->far_worker);

  for (unsigned d = 0; d < N_DONORS; d++)
    sum += scene->donors[d] ? processes_cpu_us (scene->donor_workers[d]) : 0;
  return sum;
}

static int
by_value (const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;

  return x < y ? -1 : x > y;
}

/* Single pages here and there, for read_ms, or until `done` says so (asked now and then). Returns the p99. */
static double
read_pages (struct scene *scene, int round, const char *how, const char *what, gboolean (*done) (struct scene *scene)) {
  const struct blk_shape shape = { .indirect = true };
  const double cpu = cpu_us (scene), end = figures_us () + read_ms * 1000.0;
  double asked = figures_us ();
  guint n = 0;

  while (n < READS_MAX && (done || figures_us () < end)) {
    const double start = figures_us ();
    unsigned slot = (unsigned)blk_free_slot (scene->blk);

    blk_prepare (scene->blk, slot, BLK_IN, next_random (scene) % (disk_bytes () / BLK_PAGE), 1);
    blk_submit (scene->blk, slot, &shape, NULL);
    blk_kick (scene->blk, 0);
    wait_one (scene->blk, &slot);
    scene->times[n++] = figures_us () - start;
    if (done && figures_us () - asked > 50000) {
      if (done (scene))
        break;
      asked = figures_us ();
    }
  }
  qsort (scene->times, n, sizeof *scene->times, by_value);
  note (round, how, what, "p50", "us", scene->times[n / 2]);
  note (round, how, what, "p99", "us", scene->times[n * 99ull / 100]);
  note (round, how, what, "longest", "us", scene->times[n - 1]);
  note (round, how, what, "CPU of all", "us", (cpu_us (scene) - cpu) / n);
  return scene->times[n * 99ull / 100];
}

/* ---- what happens ---- */

static void
lose (struct scene *scene, unsigned d) {
  kill (scene->donors[d]->backend->pid, SIGKILL);
  backend_wait_end (scene->donors[d]->backend, fe_patience_ms ());
  while (kill (scene->donor_workers[d], 0) == 0) /* it dies with its keeper */
    g_usleep (1000);
}

static void
come_back (struct scene *scene, unsigned d) {
  donor_end (scene->donors[d]);
  start_donor (scene, d);
  pin_all (scene);
  wait_protected (scene);
}

static void
wait_repairing (struct scene *scene) {
  while (!copies (scene, "repairing"))
    g_usleep (2000);
}

static void
note_repair (struct scene *scene, int round, const char *how, const char *what, double began_us, double cpu_before,
             int64_t before) {
  const double seconds = (figures_us () - began_us) / 1e6,
               gib = (double)(copies (scene, "repaired-bytes") - before) / (double)(1ull << 30);

  note (round, how, what, "copies", "MiB", gib * 1024);
  note (round, how, what, "for 1 GiB", "s", seconds / gib);
  note (round, how, what, "CPU of all for 1 GiB", "s", (cpu_us (scene) - cpu_before) / 1e6 / gib);
}

static void
measure (struct scene *scene, int round, gboolean pinned, const char *rate) {
  g_autofree char *how = g_strdup_printf ("%s, %s", pinned ? "pinned" : "not pinned", rate ? "no limit" : "usual limit");
  double healthy, began, cpu;
  int64_t before;

  begin (scene, pinned, rate);
  read_pages (scene, 0, how, "warm", NULL);
  healthy = read_pages (scene, round, how, "reads, all is well", NULL);
  if (!rate) {
    kill (scene->donor_workers[0], SIGSTOP);
    note (round, how, "reads, one donor hangs", "p99 of that", "%",
          read_pages (scene, round, how, "reads, one donor hangs", NULL) / healthy * 100);
    kill (scene->donor_workers[0], SIGCONT);
    wait_protected (scene);
    read_pages (scene, 0, how, "warm", NULL);
  }
  before = copies (scene, "repaired-bytes");
  lose (scene, 1);
  note (round, how, "reads, one donor has died", "p99 of that", "%",
        read_pages (scene, round, how, "reads, one donor has died", NULL) / healthy * 100);
  wait_repairing (scene);
  began = figures_us ();
  cpu = cpu_us (scene);
  wait_protected (scene);
  note_repair (scene, round, how, "protected again", began, cpu, before);
  come_back (scene, 1);
  before = copies (scene, "repaired-bytes");
  lose (scene, 2);
  wait_repairing (scene);
  began = figures_us ();
  cpu = cpu_us (scene);
  read_pages (scene, round, how, "reads, meanwhile", is_protected);
  note_repair (scene, round, how, "protected again beside reads", began, cpu, before);
  come_back (scene, 2);
  clear (scene);
}

int
main (int argc, char **argv) {
  const GOptionEntry entries[] = { { "mib", 0, 0, G_OPTION_ARG_INT, &mib, "Size of the disk (256)", "MIB" },
                                   { "ms", 0, 0, G_OPTION_ARG_INT, &read_ms, "Time of each measurement of reads (700)", "MS" },
                                   { "pinned", 0, 0, G_OPTION_ARG_NONE, &only_pinned, "Only pinned", NULL },
                                   { "not-pinned", 0, 0, G_OPTION_ARG_NONE, &only_loose, "Only not pinned", NULL },
                                   { NULL } };
  struct scene scene = { .times = g_new (double, READS_MAX) };

  figures_rounds = 1;
  figures_begin (argc, argv, "A far disk with neighbours", "– donors that hang and die under a far disk", entries);
  if (mib < 64 || read_ms < 1 || read_ms > AWAY_S * 400) {
    g_printerr ("bench-copies: --mib is 64 at least, --ms 1 to %d\n", AWAY_S * 400);
    return 2;
  }
  if (!g_getenv ("DOMYBS_FAR_FOLDER"))
    g_setenv ("DOMYBS_FAR_FOLDER", "/dev/shm", TRUE);
  rows = g_array_new (FALSE, FALSE, sizeof (struct row));
  for (int round = 0; round < figures_rounds; round++)
    for (int pinned = 1; pinned >= 0; pinned--) {
      if (pinned ? only_loose : only_pinned)
        continue;
      measure (&scene, round, pinned, NULL);
      measure (&scene, round, pinned, "1T");
    }
  for (guint i = 0; i < rows->len; i++) {
    const struct row *const row = &g_array_index (rows, struct row, i);

    if (!strstr (row->name, ": warm"))
      figures_record (row->name, row->unit, row->values);
    g_free (row->name);
    g_free (row->values);
  }
  g_array_unref (rows);
  g_free (scene.times);
  return figures_end ();
}
