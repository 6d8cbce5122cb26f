/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How blocks come and go: by the host's target; by hand; at the host's request; and what happens at the VM's maximum. What the
 * guest's own want of memory does is test-pressure.c's. */
#include "scene.h"

#include <inttypes.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define MAX_BLOCKS 384u /* --local-max below */

static Vm *
get_vm (const char *series) {
  static const char *const backend[] = { "--window=2G", "--local-max=768M", NULL };

  return scene_small_vm ("grow", series, backend);
}

static gboolean
target_is_none (Vm *vm) {
  g_autofree char *target = vm_driver_get (vm, "target_blocks");

  return g_str_equal (target, "none");
}

/* ---- by the host's target ---- */

static void
test_target (gconstpointer series) {
  Vm *vm = get_vm (series);
  guint64 total;

  scene_have (vm, 0, 30);
  total = vm_guest_meminfo (vm, "MemTotal");
  g_assert_cmpint (vm_driver_set (vm, "mode", "target"), ==, 0);
  scene_set_target (vm, "128");
  scene_expect_granted (vm, 128, 20);
  g_assert_cmpuint (vm_driver_number (vm, "target_blocks"), ==, 128);
  vm_expect_within (vm, 10, vm_guest_meminfo (vm, "MemTotal") == total + 256 * VM_MIB);

  /* Data that lies in blocks moves away when the host wants them back, down to single blocks of a section. */
  scene_fill (vm, "data", 180, 3, "--thp on", 60);
  g_assert_cmpuint (vm_host_memfd_bytes (vm), >, 150 * VM_MIB);
  scene_set_target (vm, "20");
  scene_expect_granted (vm, 20, 60);
  vm_expect_within (vm, 5, vm_host_memfd_bytes (vm) <= 20 * VM_BLOCK_BYTES);
  vm_expect_within (vm, 5, vm_guest_meminfo (vm, "MemTotal") == total + 40 * VM_MIB);
  vm_expect_within (vm, 10, vm_driver_number (vm, "held_blocks") == SCENE_SECTION_BLOCKS - 20);
  scene_verify (vm, "data");
  scene_set_target (vm, "50");
  scene_expect_granted (vm, 50, 20);
  scene_set_target (vm, "0");
  scene_expect_granted (vm, 0, 60);
  scene_verify (vm, "data");
  scene_fill_end (vm, "data");
  vm_expect_within (vm, 10, vm_guest_meminfo (vm, "MemTotal") == total);

  /* more than it may have is cut to what it may have */
  scene_set_target (vm, "100000");
  scene_expect_granted (vm, MAX_BLOCKS, 30);
  scene_set_target (vm, "0");
  scene_expect_granted (vm, 0, 30);
  scene_set_target (vm, "null");
  vm_expect_within (vm, 10, target_is_none (vm));
  g_assert_cmpuint (scene_granted (vm), ==, 0);
  scene_expect_sane (vm);
}

/* ---- by hand ---- */

static void
test_by_hand (gconstpointer series) {
  Vm *vm = get_vm (series);
  static const guint64 steps[] = { 64, 192, 130, 131, 1, 384, 63, 0 };
  guint64 total;

  scene_have (vm, 0, 30);
  total = vm_guest_meminfo (vm, "MemTotal");
  for (guint i = 0; i < G_N_ELEMENTS (steps); i++) {
    scene_have (vm, steps[i], 30);
    vm_expect_within (vm, 5, vm_guest_meminfo (vm, "MemTotal") == total + steps[i] * VM_BLOCK_BYTES);
    vm_expect_within (vm, 5, vm_driver_number (vm, "spare") == 1);
  }
  scene_expect_nothing_granted (vm, 5);

  g_assert_cmpint (vm_driver_set (vm, "wanted_blocks", "100000"), ==, ERANGE);
  g_assert_cmpint (vm_driver_set (vm, "wanted_blocks", "-1"), !=, 0);
  g_assert_cmpint (vm_driver_set (vm, "mode", "sideways"), ==, EINVAL);
  g_assert_cmpint (vm_driver_set (vm, "mode", "target"), ==, 0);
  g_assert_cmpint (vm_driver_set (vm, "wanted_blocks", "1"), ==, EPERM);
  scene_want (vm, 0);
  scene_expect_sane (vm);
}

/* Nobody but the driver brings its sections online: the spare has no memory behind it. */
static void
test_spare_is_safe (gconstpointer series) {
  Vm *vm = get_vm (series);
  guint64 refused;
  g_autofree char *output = NULL;
  static const char *const words[] = { "online", "online_kernel", "online_movable" };

  scene_have (vm, 0, 30);
  vm_expect_within (vm, 10, vm_driver_number (vm, "spare") == 1);
  refused = scene_counter (vm, "online_refused");
  for (guint i = 0; i < G_N_ELEMENTS (words); i++) {
    output = vm_run_ok (vm,
                        "n=0; for f in /sys/devices/system/memory/memory*/state; do "
                        "if grep -q offline $f; then n=$((n+1)); echo %s > $f && exit 1; fi; done 2>/dev/null; echo $n",
                        words[i]);
    g_assert_cmpstr (g_strchomp (output), ==, "1");
    g_clear_pointer (&output, g_free);
  }
  g_assert_cmpuint (scene_counter (vm, "online_refused"), ==, refused + G_N_ELEMENTS (words));
  g_assert_cmpuint (vm_host_memfd_bytes (vm), ==, 0);
  scene_have (vm, SCENE_SECTION_BLOCKS, 20);
  scene_have (vm, 0, 20);
  scene_expect_sane (vm);
}

/* ---- the host asks ---- */

static void
get_reclaim (Vm *vm, guint64 *ret_asked, guint64 *ret_done) {
  g_autofree char *text = vm_driver_get (vm, "reclaim");

  if (sscanf (text, "asked %" SCNu64 " done %" SCNu64, ret_asked, ret_done) != 2)
    vm_fail (vm, "the driver's reclaim is '%s'", text);
}

static void
test_reclaim (gconstpointer series) {
  Vm *vm = get_vm (series);
  guint64 asked_before, done_before, asked, done;
  g_autoptr (JsonNode) answer = NULL;

  get_reclaim (vm, &asked_before, &done_before);
  scene_have (vm, 192, 30);
  scene_fill (vm, "data", 150, 4, "", 60);
  answer = vm_control (vm, "{\"execute\": \"reclaim\", \"arguments\": {\"blocks\": 70, \"deadline-ms\": 30000}}");
  vm_expect_within (vm, 30, scene_granted (vm) <= 192 - 70);
  scene_verify (vm, "data");
  vm_expect_within (vm, 5, (get_reclaim (vm, &asked, &done), done - done_before >= 70));
  g_assert_cmpuint (asked - asked_before, ==, 70);
  g_test_message ("asked for %" PRIu64 ", got %" PRIu64 " blocks", asked - asked_before, done - done_before);
  /* and does not take them again at once */
  g_usleep (500 * 1000);
  g_assert_cmpuint (scene_granted (vm), <=, 192 - 70);
  scene_fill_end (vm, "data");
  scene_have (vm, 0, 30);
  scene_expect_sane (vm);
}

/* ---- the VM's maximum ---- */

static void
test_maximum (gconstpointer series) {
  Vm *vm = get_vm (series);
  g_autofree char *state = NULL;
  guint64 requests;

  /* a low watermark that nothing can satisfy: pressure without end */
  scene_have (vm, 0, 30);
  scene_set_parameter (vm, "low_mib", "4000");
  g_assert_cmpint (vm_driver_set (vm, "mode", "auto"), ==, 0);
  scene_expect_granted (vm, MAX_BLOCKS, 30);
  vm_expect_within (vm, 10, (g_free (state), state = vm_driver_get (vm, "state"), strstr (state, "all that it may have")));
  g_test_message ("state: %s", state);
  g_assert_true (g_str_has_prefix (state, "waiting "));
  /* it does not pester the host */
  requests = scene_counter (vm, "requests");
  g_usleep (2 * G_USEC_PER_SEC);
  g_assert_cmpuint (scene_counter (vm, "requests") - requests, <=, 4);
  scene_fill (vm, "data", 400, 5, "--thp on", 120);
  scene_fill_end (vm, "data");
  scene_set_parameter (vm, "low_mib", "128");
  scene_have (vm, 0, 30);
  scene_expect_nothing_granted (vm, 5);
  scene_expect_sane (vm);
}

/* ---- a node of its own ---- */

static Vm *
get_own_node_vm (const char *series) {
  static const char *const backend[] = { "--window=2G", "--local-max=1G", NULL };
  g_autofree char *name = g_strdup_printf ("node-%s", series);

  return scene_vm (&(VmConfig){ .name = name,
                                .series = series,
                                .ram_mib = 512,
                                .root_port = TRUE,
                                .own_node = TRUE,
                                .backend_args = backend,
                                .driver_params = "mode=manual" });
}

/* Otherwise the kernel moves nothing there, and its own memory fills up with programs. */
static void
expect_tier_of_its_own (Vm *vm) {
  g_autofree char *tiers = NULL;

  vm_expect_within (vm, 20, vm_run (vm, NULL, "grep -q 1 /sys/devices/virtual/memory_tiering/*/nodelist") == 0);
  tiers = vm_run_ok (vm, "cd /sys/devices/virtual/memory_tiering && head */nodelist");
  g_test_message ("memory tiers: %s", g_strchomp (tiers));
  g_assert_cmpint (vm_run (vm, NULL, "grep -lx 1 /sys/devices/virtual/memory_tiering/*/nodelist"), ==, 0);
  g_assert_cmpint (vm_run (vm, NULL, "grep -lx 0 /sys/devices/virtual/memory_tiering/*/nodelist"), ==, 0);
}

static void
test_own_node (gconstpointer series) {
  Vm *vm = get_own_node_vm (series);
  g_autofree char *total = NULL;

  g_assert_cmpuint (vm_driver_number (vm, "node"), ==, 1);
  scene_have (vm, 96, 30);
  total = vm_run_ok (vm, "awk '/MemTotal/ { print $4 }' /sys/devices/system/node/node1/meminfo");
  g_assert_cmpuint (g_ascii_strtoull (total, NULL, 10), ==, 96 * 2048);
  expect_tier_of_its_own (vm);
  g_assert_cmpint (vm_driver_set (vm, "mode", "auto"), ==, 0);
  scene_fill (vm, "data", 500, 6, "--thp on", 60);
  g_assert_cmpuint (vm_host_memfd_bytes (vm), >, 32 * VM_MIB);
  scene_verify (vm, "data");
  scene_fill_end (vm, "data");
  scene_have (vm, 0, 30);
  scene_expect_nothing_granted (vm, 5);
  scene_expect_sane (vm);
}

#define BUSY 6

/* A device that is plugged while the last one's sections are still being removed. So they are many, and the guest is busy. */
static void
test_own_node_again (gconstpointer series) {
  Vm *vm = get_own_node_vm (series);

  for (int round = 0; round < 3; round++) {
    gboolean amid;

    scene_have (vm, 8 * SCENE_SECTION_BLOCKS, 60);
    for (int i = 0; i < BUSY; i++) {
      g_autofree char *job = g_strdup_printf ("busy-%d", i);

      vm_job_start (vm, job, "while true; do :; done");
    }
    scene_plug_out (vm);
    amid = vm_run (vm, NULL, "grep -qx 0 /sys/devices/system/node/has_memory") != 0;
    scene_plug_in (vm);
    g_test_message ("plugged in with %s of the last device there", amid ? "sections" : "nothing");
    vm_expect_within (vm, 60, vm_driver_set (vm, "mode", "manual") == 0);
    for (int i = 0; i < BUSY; i++) {
      g_autofree char *job = g_strdup_printf ("busy-%d", i);

      vm_job_kill (vm, job);
    }
    scene_have (vm, SCENE_SECTION_BLOCKS, 60);
    g_assert_cmpuint (vm_driver_number (vm, "node"), ==, 1);
    /* one section and the spare: nothing of the last device, which is in the same tier */
    vm_expect_within (vm, 60, vm_run (vm, NULL, "test $(grep -c 'System RAM (domybs)' /proc/iomem) = 2") == 0);
    vm_expect_within (vm, 20, vm_driver_number (vm, "online_blocks") == SCENE_SECTION_BLOCKS);
    expect_tier_of_its_own (vm);
  }
  scene_have (vm, 0, 30);
  scene_expect_nothing_granted (vm, 10);
  scene_expect_sane (vm);
}

int
main (int argc, char **argv) {
  static const SceneCase cases[] = {
    { "by-hand", test_by_hand, SCENE_EVERYWHERE }, { "spare-is-safe", test_spare_is_safe, SCENE_EVERYWHERE },
    { "target", test_target, SCENE_BOTH },         { "reclaim", test_reclaim, SCENE_BOTH },
    { "maximum", test_maximum, SCENE_BOTH },       { "own-node", test_own_node, SCENE_BOTH },
    { "own-node-again", test_own_node_again, SCENE_EVERYWHERE },
  };

  vm_test_init (&argc, &argv);
  scene_add_cases ("grow", cases, G_N_ELEMENTS (cases));
  return vm_test_run ();
}
