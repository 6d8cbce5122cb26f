/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Gossip, simulated: DOMYBS_SEEDS (1,000) zones of 3 to 24 hosts, each with its own faults and liars. A zone that goes wrong
 * says its seed; it runs alone with --world SEED.
 */
#include "gossip-world.h"
#include "testing.h"

#include <string.h>

#define QUIET_BYTES                                                                                                            \
  400u /* a host's, per second, when nothing changes: a probe and an answer, each with what it weighs around */

static uint64_t running;

static void
name_seed (const char *domain, GLogLevelFlags level, const char *message, gpointer data) {
  if (running)
    g_print ("Bail out! %s (run it with --world %" PRIu64 ")\n", message, running);
  running = 0;
  g_log_default_handler (domain, level, message, data);
}

static uint64_t
bytes_of (const struct gossip_world *world) {
  uint64_t bytes = 0;

  for (uint32_t i = 0; i < world->plan.hosts; i++)
    bytes += world->hosts[i].bytes;
  return bytes;
}

static void
run (struct gossip_world *world, uint64_t seed) {
  struct gossip_plan plan;
  uint64_t bytes;

  running = seed;
  gossip_plan_make (&plan, seed);
  gossip_world_init (world, &plan);
  gossip_world_run (world, plan.end_at - 10000);
  bytes = bytes_of (world);
  gossip_world_run (world, plan.end_at);
  gossip_world_check_calm (world);
  if (!plan.loss && !plan.late && !plan.replays && bytes_of (world) - bytes > (uint64_t)QUIET_BYTES * 10 * plan.hosts)
    g_error ("it is not quiet: %" PRIu64 " bytes in 10 s, of %u hosts", bytes_of (world) - bytes, plan.hosts);
  running = 0;
}

static guint64
n_seeds (void) {
  const char *text = g_getenv ("DOMYBS_SEEDS");
#ifdef __SANITIZE_ADDRESS__
  guint64 n = 100;
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
  const uint64_t first = testing_below (rand, UINT64_MAX / 2) + 1;
  uint64_t events = 0, packets = 0, deaths = 0, lies = 0, restarts = 0, refused = 0;
  gint64 began = g_get_monotonic_time ();

  for (guint64 i = 0; i < n; i++) {
    struct gossip_world world = { 0 };

    run (&world, first + i);
    events += world.events;
    packets += world.packets;
    deaths += world.deaths;
    lies += world.lies;
    restarts += world.restarts;
    for (uint32_t k = 0; k < world.plan.hosts; k++) {
      struct gossip_figures figures;

      gossip_figures (world.hosts[k].gossip, &figures);
      refused += figures.refused_records;
    }
    gossip_world_clear (&world);
  }
  g_print ("# %" G_GUINT64_FORMAT " zones in %.1f s: %" PRIu64 " events, all looked at after each; %" PRIu64
           " packets, %" PRIu64 " verdicts of death, %" PRIu64 " hosts killed, %" PRIu64 " lies, %" PRIu64 " records refused\n",
           n, (double)(g_get_monotonic_time () - began) / G_USEC_PER_SEC, events, packets, deaths, restarts, lies, refused);
  if (n >= 1000)
    g_assert_true (deaths && restarts && lies && refused);
}

/* The same twice is the same. */
static void
test_replay (void) {
  g_autoptr (GRand) rand = testing_rand ();
  const uint64_t seed = testing_below (rand, UINT64_MAX / 2) + 1;
  struct gossip_world one = { 0 }, two = { 0 };

  run (&one, seed);
  run (&two, seed);
  g_assert_cmpuint (one.events, ==, two.events);
  g_assert_cmpuint (one.random, ==, two.random);
  gossip_world_clear (&one);
  gossip_world_clear (&two);
}

int
main (int argc, char **argv) {
  if (argc == 3 && strcmp (argv[1], "--world") == 0) {
    struct gossip_world world = { 0 };

    run (&world, g_ascii_strtoull (argv[2], NULL, 10));
    gossip_world_clear (&world);
    return 0;
  }
  testing_init (&argc, &argv);
  g_log_set_default_handler (name_seed, NULL);
  g_test_add_func ("/gossip-simulation/replay", test_replay);
  g_test_add_func ("/gossip-simulation/seeds", test_seeds);
  return g_test_run ();
}
