/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Beginnings and ends: of the driver, the guest, the device, and time standing still in between. */
#include "scene.h"

#include <inttypes.h>
#include <errno.h>
#include <string.h>

/* Grants are populated here: that takes the back-end tens of milliseconds, so that something else can come in between. */
static Vm *
get_vm (const char *series) {
  static const char *const backend[] = { "--window=2G", "--local-max=512M", "--grant=populate", NULL };
  g_autofree char *name = g_strdup_printf ("life-%s", series);

  return scene_vm (&(VmConfig){ .name = name,
                                .series = series,
                                .ram_mib = 512,
                                .root_port = TRUE,
                                .backend_args = backend,
                                .driver_params = "mode=manual" });
}

/* ---- the driver ---- */

static void
test_rmmod (gconstpointer series) {
  Vm *vm = get_vm (series);
  guint64 session;
  int error;

  scene_have (vm, SCENE_SECTION_BLOCKS, 30);
  scene_fill (vm, "data", 100, 1, "", 60);
  error = vm_unload (vm, "virtio_domybs");
  g_assert_true (error == EBUSY || error == EWOULDBLOCK);
  /* blocks of a section that is in use are no reason to go either */
  scene_free (vm, "data", "free-random 0.4 3 2M");
  scene_have (vm, SCENE_SECTION_BLOCKS - 10, 30);
  error = vm_unload (vm, "virtio_domybs");
  g_assert_true (error == EBUSY || error == EWOULDBLOCK);
  scene_verify (vm, "data");
  scene_fill_end (vm, "data");

  scene_have (vm, 0, 30);
  scene_expect_nothing_granted (vm, 10);
  session = vm_driver_number (vm, "session");
  scene_unload (vm, 30);
  g_assert_cmpint (vm_run (vm, NULL, "grep -q domybs /proc/iomem"), ==, 1); /* the spare has gone, too */
  scene_load (vm, "manual");
  scene_have (vm, SCENE_SECTION_BLOCKS, 30);
  g_assert_cmpuint (vm_driver_number (vm, "session"), !=, session);
  scene_have (vm, 0, 30);
  scene_expect_sane (vm);
}

static void
test_refusals (gconstpointer series) {
  Vm *vm = get_vm (series);
  g_autofree char *device = NULL;
  g_autofree char *log = NULL;
  guint64 total;

  scene_have (vm, SCENE_SECTION_BLOCKS, 30);
  scene_fill (vm, "data", 100, 2, "", 60);
  total = vm_guest_meminfo (vm, "MemTotal");
  device = g_strchomp (vm_run_ok (vm, "basename /sys/bus/virtio/drivers/virtio_domybs/virtio*"));
  g_assert_cmpint (vm_write (vm, "/sys/bus/virtio/drivers/virtio_domybs/unbind", device), !=, 0);
  g_assert_cmpint (vm_write (vm, "/sys/power/state", "disk"), ==, EBUSY);
  g_assert_cmpint (vm_write (vm, "/sys/power/state", "freeze"), ==, EBUSY);
  /* by us, and not for want of a swap disk */
  log = vm_run_ok (vm, "dmesg | grep 'hibernation refused' && dmesg | grep 'sleep refused'");
  g_test_message ("%s", log);
  g_assert_cmpuint (vm_guest_meminfo (vm, "MemTotal"), ==, total);
  scene_verify (vm, "data");
  scene_fill_end (vm, "data");
  scene_have (vm, 0, 30);
  scene_expect_sane (vm);
}

/* The host may change its mind at any time, also while the device is not started: QEMU must not be asked for anything then. A
 * driver that comes later, or goes on, finds the target there. */
static void
test_target_without_driver (gconstpointer series) {
  Vm *vm = get_vm (series);

  scene_have (vm, 0, 30);
  scene_unload (vm, 30);
  scene_set_target (vm, "10");
  scene_set_target (vm, "70");
  g_free (vm_run_ok (vm, "true"));
  vm_pause (vm);
  scene_set_target (vm, "80");
  vm_resume (vm);
  scene_load (vm, "target");
  scene_expect_granted (vm, 80, 30);
  vm_pause (vm);
  scene_set_target (vm, "20");
  g_usleep (300 * 1000);
  vm_resume (vm);
  scene_expect_granted (vm, 20, 30);
  scene_set_target (vm, "null");
  scene_have (vm, 0, 30);
  scene_expect_nothing_granted (vm, 10);
  scene_expect_sane (vm);
}

/* ---- the guest ---- */

static void
begin_again (Vm *vm, void (*again) (Vm *vm)) {
  scene_have (vm, 2 * SCENE_SECTION_BLOCKS, 30);
  scene_fill (vm, "data", 150, 4, "", 60);
  g_assert_cmpuint (vm_host_memfd_bytes (vm), >, 120 * VM_MIB);
  again (vm);
  scene_booted (vm);
  scene_expect_nothing_granted (vm, 20);
  scene_have (vm, SCENE_SECTION_BLOCKS, 30);
  scene_fill (vm, "more", 100, 5, "", 60);
  g_assert_cmpuint (vm_host_memfd_bytes (vm), >, 90 * VM_MIB);
  scene_fill_end (vm, "more");
  scene_have (vm, 0, 30);
  scene_expect_nothing_granted (vm, 5);
  scene_expect_sane (vm);
}

static void
test_reboot (gconstpointer series) {
  begin_again (get_vm (series), vm_reboot);
}

static void
test_reset (gconstpointer series) {
  begin_again (get_vm (series), vm_reset);
}

/* ---- time standing still ---- */

static void
test_pause (gconstpointer series) {
  Vm *vm = get_vm (series);
  guint64 bytes;

  scene_have (vm, SCENE_SECTION_BLOCKS, 30);
  scene_fill (vm, "data", 100, 6, "", 60);
  bytes = vm_host_memfd_bytes (vm);
  vm_pause (vm);
  g_usleep (1500 * 1000); /* longer than the audit's interval */
  g_assert_cmpuint (vm_host_memfd_bytes (vm), ==, bytes);
  /* what the host says meanwhile is not lost */
  g_autoptr (JsonNode) answer
      = vm_control (vm, "{\"execute\": \"reclaim\", \"arguments\": {\"blocks\": 10, \"deadline-ms\": 30000}}");
  vm_resume (vm);
  scene_verify (vm, "data");
  vm_expect_within (vm, 20, scene_granted (vm) <= SCENE_SECTION_BLOCKS - 10);
  scene_verify (vm, "data");
  scene_fill_end (vm, "data");
  scene_have (vm, 0, 30);
  scene_expect_sane (vm);
}

static void
test_pause_amid_requests (gconstpointer series) {
  Vm *vm = get_vm (series);
  g_autoptr (GRand) rand = testing_rand ();
  guint64 grants, requests;
  guint amid = 0, pauses = 40;

  scene_have (vm, 2 * SCENE_SECTION_BLOCKS, 30);
  scene_fill (vm, "data", 60, 7, "", 60);
  grants = scene_counter (vm, "grants");
  requests = scene_counter (vm, "requests");
  vm_job_start (vm, "seesaw",
                "cd /sys/bus/virtio/drivers/virtio_domybs/virtio*/domybs; "
                "while true; do for n in 256 40 190 64; do echo $n > wanted_blocks; "
                "i=0; while [ $i -lt 40 ] && [ $(cat granted_blocks) != $n ]; do i=$((i+1)); done; done; done");
  for (guint i = 0; i < pauses; i++) {
    double began;

    g_usleep ((gulong)testing_below (rand, 150 * 1000));
    began = scene_now ();
    vm_pause (vm);
    /* QEMU's stop waits for what the back-end has begun */
    amid += scene_now () - began > 0.004;
    g_usleep ((gulong)testing_below (rand, 30 * 1000));
    vm_resume (vm);
  }
  vm_job_kill (vm, "seesaw");
  g_test_message ("%u pauses during %" PRIu64 " requests, %" PRIu64 " blocks granted; about %u of them waited for a request",
                  pauses, scene_counter (vm, "requests") - requests, scene_counter (vm, "grants") - grants, amid);
  g_assert_cmpuint (scene_counter (vm, "grants"), >, grants);
  scene_verify (vm, "data");
  scene_expect_sane (vm);
  scene_have (vm, 2 * SCENE_SECTION_BLOCKS, 60);
  scene_verify (vm, "data");
  scene_fill_end (vm, "data");
  scene_have (vm, 0, 30);
  scene_expect_nothing_granted (vm, 5);
  scene_expect_sane (vm);
}

/* ---- the device ---- */

static void
test_unplug (gconstpointer series) {
  Vm *vm = get_vm (series);
  guint fds = 0;

  for (int round = 0; round < 2; round++) {
    scene_have (vm, 2 * SCENE_SECTION_BLOCKS, 30);
    scene_fill (vm, "data", 150, 8, "", 60);
    if (round == 0) {
      /* after a shrink */
      scene_fill_end (vm, "data");
      scene_have (vm, 0, 30);
    } else {
      /* with blocks still granted, and data in them: the driver empties them first */
      scene_free (vm, "data", "free-random 0.3 5 2M");
    }
    scene_plug_out (vm);
    g_assert_cmpuint (vm_host_memfd_bytes (vm), ==, 0);
    if (round == 0) /* the other time the next device comes at once, while sections of the last one may still be there */
      vm_expect_within (vm, 20, vm_run (vm, NULL, "grep -q domybs /proc/iomem") == 1);
    /* nothing is left behind in the back-end, either */
    if (round == 0)
      fds = vm_backend_fds (vm);
    vm_expect_within (vm, 5, vm_backend_fds (vm) <= fds);

    scene_plug_in (vm);
    if (round == 1) {
      scene_verify (vm, "data");
      scene_fill_end (vm, "data");
    }
    /* the driver is there already; loading it again is how a test says in which mode */
    scene_unload (vm, 30);
    scene_load (vm, "manual");
  }
  scene_have (vm, SCENE_SECTION_BLOCKS, 30);
  scene_have (vm, 0, 30);
  scene_expect_sane (vm);
}

int
main (int argc, char **argv) {
  static const SceneCase cases[] = {
    { "rmmod", test_rmmod, SCENE_EVERYWHERE },
    { "refusals", test_refusals, SCENE_BOTH },
    { "target-without-driver", test_target_without_driver, SCENE_BOTH },
    { "pause", test_pause, SCENE_ONCE },
    { "pause-amid-requests", test_pause_amid_requests, SCENE_BOTH },
    { "reboot", test_reboot, SCENE_BOTH },
    { "reset", test_reset, SCENE_ONCE },
    { "unplug", test_unplug, SCENE_EVERYWHERE },
  };

  vm_test_init (&argc, &argv);
  scene_add_cases ("life", cases, G_N_ELEMENTS (cases));
  return vm_test_run ();
}
