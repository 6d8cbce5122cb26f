/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The worker is killed at random instants under full load: 0 requests lost or answered twice, 0 blocks leaked or granted twice, contents
 * intact (guest.h says what is looked at). How often: $DOMYBS_KILLS, over all tests of this program.
 */
#include "stage.h"
#include "testing.h"

struct shape {
  const char *name;
  unsigned share; /* of the kills, in percent */
  const char *const *arguments;
  uint64_t max_blocks, host_blocks, block_cost;
};

static const char *const plain[] = { NULL };
static const char *const small_host[] = { "--local-max=1000M", "--host-limit=800M", NULL };
static const char *const populated[] = { "--grant=populate", "--local-max=100M", NULL };

static const struct shape shapes[] = {
  { "plain", 60, plain, 1024, UINT64_MAX, GUEST_BYTES_TOUCHED },
  { "small-host", 25, small_host, 500, 400, GUEST_BYTES_TOUCHED },
  { "populated", 15, populated, 50, UINT64_MAX, DOMYBS_BLOCK_BYTES },
};

/* An instant: mostly within microseconds of the last request, sometimes later. */
static uint32_t
instant (GRand *random) {
  switch (testing_below (random, 8)) {
  case 0:
  case 1:
  case 2:
    return (uint32_t)testing_below (random, 60);
  case 3:
  case 4:
    return (uint32_t)testing_below (random, 600);
  case 5:
  case 6:
    return (uint32_t)testing_below (random, 4000);
  default:
    return (uint32_t)testing_below (random, 40000);
  }
}

/* Some workers are killed while they start, again and again; three in a row are a crash loop, and the device is busy for a second. */
static void
arm (struct stage *stage) {
  struct reaper_plan plan = { .after_us = instant (stage->random) };

  if (testing_once_in (stage->random, 6))
    plan.again = testing_once_in (stage->random, 12) ? 2 + (unsigned)testing_below (stage->random, 2) : 1;
  for (unsigned i = 0; i < plan.again; i++)
    plan.again_us[i] = (uint32_t)testing_below (stage->random, testing_once_in (stage->random, 2) ? 3000 : 30000);
  if (reaper_arm (&stage->reaper, &plan))
    guest_trace (stage->guest, "to be killed in %u us, and %u times more", plan.after_us, plan.again);
}

static void
random_kills (gconstpointer data) {
  const struct shape *shape = data;
  const unsigned wanted = (stage_kills (320) * shape->share + 99) / 100;
  unsigned next_check = 20, steps = 0;
  struct stage stage;

  stage_begin (&stage, shape->arguments);
  stage.guest->max_blocks = shape->max_blocks;
  stage.guest->host_blocks = shape->host_blocks;
  stage.guest->block_cost = shape->block_cost;
  /* without kills the same load, for its own sake */
  while (wanted ? (unsigned)g_atomic_int_get (&stage.reaper.kills) < wanted : steps < 4000) {
    stage_act (&stage);
    if (wanted && testing_once_in (stage.random, 3))
      arm (&stage);
    if ((wanted ? (unsigned)g_atomic_int_get (&stage.reaper.kills) : steps++ / 20) >= next_check) {
      stage_check (&stage);
      next_check += 20;
    }
  }
  stage_check (&stage);
  stage_report (&stage);
  stage_end (&stage);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  for (size_t i = 0; i < G_N_ELEMENTS (shapes); i++) {
    g_autofree char *path = g_strconcat ("/kill/random/", shapes[i].name, NULL);

    g_test_add_data_func (path, &shapes[i], random_kills);
  }
  return g_test_run ();
}
