/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Leases, simulated: DOMYBS_SEEDS (1,000) worlds, each with its own faults, and the scenarios that once found something. A
 * world that goes wrong is written to a file, which runs alone: test-leases --scenario FILE (with DOMYBS_TRACE=1 it says what
 * happens).
 */
#include "testing.h"
#include "world.h"

#include <string.h>

static const struct plan *running; /* for when it goes wrong */

static void
keep_scenario (const char *domain, GLogLevelFlags level, const char *message, gpointer data) {
  g_autofree char *text = NULL, *path = NULL;

  if (running) {
    text = plan_write (running);
    path = g_strdup_printf ("%s/domybs-%" G_GUINT64_FORMAT ".scenario", g_get_tmp_dir (), running->seed);
    running = NULL;
    if (g_file_set_contents (path, text, -1, NULL))
      g_print ("Bail out! %s\n# the scenario is in %s: run it with --scenario, keep it in tests/simulation/scenarios\n",
               message, path);
  }
  g_log_default_handler (domain, level, message, data);
}

static void
run (struct world *world, const struct plan *plan) {
  running = plan;
  world_run (world, plan);
  running = NULL;
}

static guint64
n_seeds (void) {
  const char *text = g_getenv ("DOMYBS_SEEDS");
#ifdef __SANITIZE_ADDRESS__
  guint64 n = 150;
#else
  guint64 n = 1000;
#endif

  if (text && !g_ascii_string_to_unsigned (text, 10, 1, 100000000, &n, NULL))
    g_error ("DOMYBS_SEEDS=%s is no number", text);
  return testing_steps ((unsigned)n);
}

static void
test_seeds (void) {
  const guint64 n = n_seeds ();
  g_autoptr (GRand) rand = testing_rand ();
  g_autoptr (GHashTable) points = g_hash_table_new (g_str_hash, g_str_equal);
  const uint64_t first = testing_below (rand, UINT64_MAX);
  uint64_t events = 0, writes = 0, reads = 0, trims = 0, bytes = 0, lost = 0, revokes = 0, deaths = 0, busy = 0, lives = 0;
  gint64 began = g_get_monotonic_time ();

  for (guint64 i = 0; i < n; i++) {
    struct world world = { .points = points };
    struct plan plan;

    plan_make (&plan, first + i);
    run (&world, &plan);
    events += world.events;
    writes += world.writes;
    reads += world.reads;
    trims += world.trims;
    bytes += world.bytes_checked;
    lost += world.lost;
    revokes += world.revokes;
    busy += world.busy;
    lives += world.n_vms;
    for (unsigned d = 0; d < DONORS_MAX; d++)
      deaths += world.donors[d].deaths;
    world_clear (&world);
    plan_clear (&plan);
  }
  g_print ("# %" G_GUINT64_FORMAT " worlds in %.1f s: %" G_GUINT64_FORMAT
           " events, all of it looked at after each; %" G_GUINT64_FORMAT " VMs, %" G_GUINT64_FORMAT
           " writes, %" G_GUINT64_FORMAT " reads, %" G_GUINT64_FORMAT " trims, %" G_GUINT64_FORMAT
           " revokes, %" G_GUINT64_FORMAT " deaths of donors, %" G_GUINT64_FORMAT " leases lost for cause, %" G_GUINT64_FORMAT
           " fences that took time\n",
           n, (double)(g_get_monotonic_time () - began) / G_USEC_PER_SEC, events, lives, writes, reads, trims, revokes, deaths,
           lost, busy);
  for (guint i = 0; n >= 1000 && i < STORES; i++)
    if (!g_hash_table_contains (points, stores[i]))
      g_error ("no donor died at %s", stores[i]);
}

/* The same twice is the same. */
static void
test_replay (void) {
  g_autoptr (GRand) rand = testing_rand ();
  struct world one = { 0 }, two = { 0 };
  struct plan plan;

  plan_make (&plan, testing_below (rand, UINT64_MAX));
  run (&one, &plan);
  run (&two, &plan);
  g_assert_cmpuint (one.events, ==, two.events);
  g_assert_cmpuint (one.numbers, ==, two.numbers);
  g_assert_cmpuint (one.random, ==, two.random);
  world_clear (&one);
  world_clear (&two);
  plan_clear (&plan);
}

static void
test_scenario (gconstpointer path) {
  struct world world = { 0 };
  g_autoptr (GError) error = NULL;
  g_autofree char *text = NULL;
  struct plan plan;

  if (!plan_read (&plan, path, &error))
    g_error ("%s", error->message);
  run (&world, &plan);
  world_clear (&world);
  plan_clear (&plan);
}

int
main (int argc, char **argv) {
  g_autoptr (GDir) dir = NULL;
  const char *name;

  if (argc == 3 && strcmp (argv[1], "--scenario") == 0) {
    test_scenario (argv[2]);
    return 0;
  }
  testing_init (&argc, &argv);
  g_log_set_default_handler (keep_scenario, NULL);
  g_test_add_func ("/simulation/replay", test_replay);
  dir = g_dir_open (DOMYBS_SCENARIOS, 0, NULL);
  while (dir && (name = g_dir_read_name (dir)))
    if (g_str_has_suffix (name, ".scenario")) {
      g_autofree char *test = g_strdup_printf ("/simulation/scenarios/%.*s", (int)(strlen (name) - strlen (".scenario")), name);

      g_test_add_data_func_full (test, g_build_filename (DOMYBS_SCENARIOS, name, NULL), test_scenario, g_free);
    }
  g_test_add_func ("/simulation/seeds", test_seeds);
  return g_test_run ();
}
