/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Data in blocks while blocks come and go around it: every word is verified against its address. */
#include "scene.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define MAX_BLOCKS 256u /* --local-max below */
#define CYCLES 20

static Vm *
get_vm (const char *series) {
  static const char *const backend[] = { "--window=2G", "--local-max=512M", NULL };

  return scene_small_vm ("data", series, backend);
}

/* Sections that are online or, at this moment, being tried to empty. */
static guint
sections_online (Vm *vm) {
  g_autofree char *text = vm_driver_get (vm, "sections");
  const char *found = strstr (text, "online ");
  guint online, leaving;

  if (!found || sscanf (found, "online %u leaving %u", &online, &leaving) != 2)
    vm_fail (vm, "the driver's sections are '%s'", text);
  return online + leaving;
}

/* ---- cycles ---- */

/* Data that stays from the first cycle to the last, and data that is new in each; sizes at random. In every other cycle the new
 * data is still there when the blocks go, so that it must move, else it has gone before, in pieces or at once. */
static void
test_cycles (gconstpointer series) {
  Vm *vm = get_vm (series);
  g_autoptr (GRand) rand = testing_rand ();
  double began = scene_now ();
  guint64 moved = 0;

  scene_have (vm, MAX_BLOCKS, 30);
  scene_fill (vm, "stays", 60, 100, "--thp on", 60);
  g_assert_cmpuint (vm_host_memfd_bytes (vm), >, 50 * VM_MIB);
  for (guint cycle = 0; cycle < CYCLES; cycle++) {
    guint64 high = SCENE_SECTION_BLOCKS * (2 + testing_below (rand, 2)) + testing_below (rand, SCENE_SECTION_BLOCKS);
    guint64 low = testing_below (rand, 40);
    gboolean present = cycle % 2, huge = cycle / 2 % 2;

    testing_trace ("cycle %u: up to %" PRIu64 ", down to %" PRIu64, cycle, high, low);
    scene_have (vm, high, 30);
    scene_fill (vm, "comes", 60, 200 + cycle, huge ? "--thp on" : "--thp off", 60);
    if (cycle % 4 == 0)
      scene_free (vm, "comes", "free-random 0.5 5 2M");
    if (!present)
      scene_fill_end (vm, "comes");
    /* the kernel moves pages about by itself, too, and must know which ones are not there */
    g_assert_cmpint (vm_write (vm, "/proc/sys/vm/compact_memory", "1"), ==, 0);
    scene_have (vm, low, 60);
    vm_expect_within (vm, 5, vm_host_memfd_bytes (vm) <= low * VM_BLOCK_BYTES);
    if (present) {
      scene_verify (vm, "comes");
      scene_fill_end (vm, "comes");
    }
    scene_verify (vm, "stays");
    moved += high - low;
  }
  g_test_message ("%u cycles, %" PRIu64 " blocks up and down, in %.1f s", CYCLES, moved, scene_now () - began);
  scene_fill_end (vm, "stays");
  scene_have (vm, 0, 30);
  scene_expect_nothing_granted (vm, 5);
  scene_expect_sane (vm);
}

/* ---- blocks of a section that is in use ---- */

static void
release_in_use (Vm *vm, const char *thp) {
  guint64 freed, releasable, rest;

  scene_have (vm, SCENE_SECTION_BLOCKS, 30);
  scene_fill (vm, "data", 120, 7, thp, 60);
  g_assert_cmpuint (vm_host_memfd_bytes (vm), >, 100 * VM_MIB);
  freed = scene_free (vm, "data", "free-random 0.5 9 2M") / VM_BLOCK_BYTES;
  releasable = scene_releasable_bytes (vm) / VM_BLOCK_BYTES;
  g_assert_cmpuint (releasable, >=, 8);
  g_assert_cmpuint (releasable, <, SCENE_SECTION_BLOCKS - 8);
  rest = SCENE_SECTION_BLOCKS - releasable;

  /* exactly the free blocks go; the section stays, and nothing in it moves */
  scene_have (vm, rest, 30);
  g_test_message ("%s: %" PRIu64 " pieces of 2 MiB freed, %" PRIu64 " whole blocks free and released", thp, freed, releasable);
  vm_expect_within (vm, 5, vm_driver_number (vm, "held_blocks") == releasable);
  g_assert_cmpuint (sections_online (vm), ==, 1);
  vm_expect_within (vm, 5, vm_host_memfd_bytes (vm) <= rest * VM_BLOCK_BYTES);
  g_assert_cmpuint (vm_host_memfd_bytes (vm), >, 8 * VM_BLOCK_BYTES);
  scene_verify (vm, "data");

  /* taken back in the same section, as empty blocks, and used */
  scene_have (vm, SCENE_SECTION_BLOCKS, 30);
  vm_expect_within (vm, 5, vm_driver_number (vm, "held_blocks") == 0);
  g_assert_cmpuint (sections_online (vm), ==, 1);
  g_free (vm_job_ask (vm, "data", "refill", 60));
  scene_verify (vm, "data");
  g_assert_cmpuint (vm_host_memfd_bytes (vm), >, 100 * VM_MIB);
  scene_fill_end (vm, "data");
  scene_have (vm, 0, 30);
  scene_expect_nothing_granted (vm, 5);
  scene_expect_sane (vm);
}

static void
test_release_huge (gconstpointer series) {
  release_in_use (get_vm (series), "--thp on");
}

static void
test_release_small (gconstpointer series) {
  release_in_use (get_vm (series), "--thp off");
}

/* ---- a section that can't be emptied ---- */

#define PINNED 24u

static void
test_busy_section (gconstpointer series) {
  Vm *vm = get_vm (series);
  guint64 failed, stuck;
  double began;

  scene_have (vm, SCENE_SECTION_BLOCKS, 30);
  vm_job_start (vm, "pin", "windowtool pin %u", PINNED);
  g_free (vm_job_expect (vm, "pin", "ok pinned", 30));
  scene_fill (vm, "data", 40, 8, "", 60);
  failed = scene_counter (vm, "offline_failed");
  scene_want (vm, 0);
  /* whatever can go goes, moved data included, and it goes on trying */
  vm_expect_within (vm, 60, scene_granted (vm) <= PINNED);
  vm_expect_within (vm, 10, scene_counter (vm, "offline_failed") > failed || vm_driver_number (vm, "stuck_blocks") > 0);
  g_usleep (3 * G_USEC_PER_SEC);
  g_test_message ("%" PRIu64 " blocks stay for %u pinned pages; offlining failed %" PRIu64 " times, %" PRIu64 " blocks stuck",
                  scene_granted (vm), PINNED, scene_counter (vm, "offline_failed") - failed,
                  vm_driver_number (vm, "stuck_blocks"));
  /* it goes on trying: between two tries the figures agree */
  vm_expect_within (vm, 10, vm_driver_number (vm, "stuck_blocks") == scene_granted (vm) && scene_state_is (vm, "shrinking"));
  stuck = scene_granted (vm);
  /* not quite all pins may lie in blocks, and some may share one */
  g_assert_cmpuint (stuck, >=, PINNED / 2);
  g_assert_cmpuint (sections_online (vm), ==, 1);
  scene_verify (vm, "data");
  g_free (vm_job_ask (vm, "pin", "verify", 30));

  /* let go, it is retried unasked */
  began = scene_now ();
  vm_job_kill (vm, "pin");
  scene_expect_nothing_granted (vm, 30);
  g_test_message ("%.1f s after they were let go, all was given back", scene_now () - began);
  vm_expect_within (vm, 90, sections_online (vm) == 0);
  scene_verify (vm, "data");
  scene_fill_end (vm, "data");
  scene_expect_sane (vm);
}

int
main (int argc, char **argv) {
  static const SceneCase cases[] = {
    { "release-in-use-huge", test_release_huge, SCENE_EVERYWHERE },
    { "release-in-use-small", test_release_small, SCENE_BOTH },
    { "busy-section", test_busy_section, SCENE_EVERYWHERE },
    { "cycles", test_cycles, SCENE_BOTH },
  };

  vm_test_init (&argc, &argv);
  scene_add_cases ("data", cases, G_N_ELEMENTS (cases));
  return vm_test_run ();
}
