/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The back-end's worker is killed again and again, at any time and while QEMU waits for a reply, while the guest's memory grows
 * and shrinks and is verified. Neither the guest nor QEMU may notice anything but the delay.
 *
 * A worker that is stopped (SIGSTOP) when QEMU or the guest begin something, and killed some time later, is killed while they
 * wait: that is told from how long it took them.
 */
#include "scene.h"

#include <inttypes.h>
#include <string.h>

/* What dies depends little on the guest's kernel, so that most of it is done with one. */
typedef struct {
  const char *series;
  guint load_shots, driver_rounds, reset_rounds, plug_rounds, shots_least;
} Kernel;

static const Kernel kernels[] = {
  { "6.12", 28, 8, 2, 3, 50 },
  { "6.1", 8, 3, 1, 2, 20 },
  { "new", 8, 3, 1, 2, 20 },
};
#define HELD_US 400000
#define HELD_SECONDS 0.4

static struct {
  guint shots, held;
  double sum, worst;
} tally;

static Vm *
get_vm (const Kernel *kernel) {
  /* Grants are populated: a request takes the back-end long enough to be hit. */
  static const char *const backend[] = { "--window=2G", "--local-max=512M", "--grant=populate", NULL };
  g_autofree char *name = g_strdup_printf ("kill-%s", kernel->series);

  return scene_vm (&(VmConfig){ .name = name,
                                .series = kernel->series,
                                .ram_mib = 512,
                                .root_port = TRUE,
                                .backend_args = backend,
                                .driver_params = "mode=manual" });
}

static void
wait_for (VmShot *shot) {
  const double seconds = vm_shot_wait (shot);

  tally.shots++;
  tally.sum += seconds;
  tally.worst = MAX (tally.worst, seconds);
}

/* What began at that time can't have been done without the worker that was held. */
static void
expect_waited (Vm *vm, double began) {
  if (scene_now () - began < HELD_SECONDS)
    vm_fail (vm, "after %.3f s it was done, without a worker that could answer", scene_now () - began);
  tally.held++;
}

static guint
any_time (GRand *rand, guint below_ms) {
  return (guint)testing_below (rand, below_ms * 1000);
}

/* ---- under load ---- */

static void
test_load (gconstpointer data) {
  const Kernel *kernel = data;
  Vm *vm = get_vm (kernel);
  g_autoptr (GRand) rand = testing_rand ();
  guint64 grants, requests;

  scene_have (vm, 2 * SCENE_SECTION_BLOCKS, 30);
  scene_fill (vm, "data", 100, 1, "", 60);
  grants = scene_counter (vm, "grants");
  requests = scene_counter (vm, "requests");
  vm_job_start (vm, "seesaw",
                "cd /sys/bus/virtio/drivers/virtio_domybs/virtio*/domybs; "
                "while true; do for n in 256 60 190 70; do echo $n > wanted_blocks; "
                "i=0; while [ $i -lt 40 ] && [ $(cat granted_blocks) != $n ]; do i=$((i+1)); done; done; done");
  for (guint i = 0; i < kernel->load_shots; i++) {
    wait_for (vm_shoot_worker (vm, FALSE, any_time (rand, 250)));
    if (i % 5 == 0)
      scene_verify (vm, "data");
  }
  vm_job_kill (vm, "seesaw");
  g_test_message ("%u kills during %" PRIu64 " requests, %" PRIu64 " blocks granted", kernel->load_shots,
                  scene_counter (vm, "requests") - requests, scene_counter (vm, "grants") - grants);
  g_assert_cmpuint (scene_counter (vm, "grants"), >, grants);
  scene_verify (vm, "data");
  scene_expect_sane (vm);
  scene_have (vm, 2 * SCENE_SECTION_BLOCKS, 60);
  scene_verify (vm, "data");
  scene_fill_end (vm, "data");
  scene_have (vm, 0, 30);
  scene_expect_nothing_granted (vm, 10);
  scene_expect_sane (vm);
}

/* The guest asks, and the worker dies before it has read the request. */
static void
test_request (gconstpointer data) {
  const Kernel *kernel = data;
  Vm *vm = get_vm (kernel);

  for (int round = 0; round < 2; round++) {
    const guint64 blocks = round ? 0 : SCENE_SECTION_BLOCKS;
    VmShot *shot = vm_shoot_worker (vm, TRUE, HELD_US);
    const double began = scene_now ();

    scene_have (vm, blocks, 30);
    expect_waited (vm, began);
    wait_for (shot);
  }
  scene_expect_nothing_granted (vm, 10);
  scene_expect_sane (vm);
}

/* ---- the driver's beginning: config space, byte by byte, and DRIVER_OK ---- */

static void
test_driver (gconstpointer data) {
  const Kernel *kernel = data;
  Vm *vm = get_vm (kernel);
  g_autoptr (GRand) rand = testing_rand ();

  for (guint round = 0; round < kernel->driver_rounds; round++) {
    const gboolean held = round == 0;
    VmShot *shot;
    double began;

    scene_unload (vm, 30);
    shot = vm_shoot_worker (vm, held, held ? HELD_US : any_time (rand, 100));
    began = scene_now ();
    scene_load (vm, "manual");
    if (held)
      expect_waited (vm, began);
    wait_for (shot);
  }
  scene_have (vm, SCENE_SECTION_BLOCKS, 30);
  scene_fill (vm, "data", 60, 2, "", 60);
  scene_fill_end (vm, "data");
  scene_expect_sane (vm);
}

/* ---- reset, and all of a guest's beginning after it ---- */

static void
test_reset (gconstpointer data) {
  const Kernel *kernel = data;
  Vm *vm = get_vm (kernel);
  g_autoptr (GRand) rand = testing_rand ();

  scene_have (vm, SCENE_SECTION_BLOCKS, 30);
  scene_fill (vm, "data", 100, 3, "", 60);
  for (guint round = 0; round < kernel->reset_rounds; round++) {
    const gboolean held = round == 0;
    VmShot *shot = vm_shoot_worker (vm, held, held ? HELD_US : any_time (rand, 50));
    const double began = scene_now ();

    if (held) {
      g_autoptr (JsonNode) reset = vm_qmp (vm, "{\"execute\": \"system_reset\"}");
      /* QEMU's own thread waits for the queues to stop, and answers nobody */
      g_autoptr (JsonNode) status = vm_qmp (vm, "{\"execute\": \"query-status\"}");

      expect_waited (vm, began);
      wait_for (shot);
      shot = vm_shoot_worker (vm, FALSE, any_time (rand, 3000)); /* somewhere in its boot */
    }
    vm_reset (vm);
    wait_for (shot);
    scene_booted (vm);
    scene_expect_nothing_granted (vm, 20);
    scene_have (vm, SCENE_SECTION_BLOCKS, 30);
  }
  scene_have (vm, 0, 30);
  scene_expect_nothing_granted (vm, 10);
  scene_expect_sane (vm);
}

/* ---- unplug, and plug: QEMU's realize ---- */

static void
test_plug (gconstpointer data) {
  const Kernel *kernel = data;
  Vm *vm = get_vm (kernel);
  g_autoptr (GRand) rand = testing_rand ();

  for (guint round = 0; round < kernel->plug_rounds; round++) {
    const gboolean held = round == 0;
    VmShot *shot;
    double began;

    scene_have (vm, SCENE_SECTION_BLOCKS, 30);
    scene_fill (vm, "data", 60, 4, "", 60);
    shot = vm_shoot_worker (vm, held, held ? HELD_US : any_time (rand, 1500));
    began = scene_now ();
    scene_plug_out (vm);
    if (held)
      expect_waited (vm, began);
    wait_for (shot);
    g_assert_cmpuint (vm_host_memfd_bytes (vm), ==, 0);

    shot = vm_shoot_worker (vm, held, held ? HELD_US : any_time (rand, 20));
    began = scene_now ();
    scene_plug_in (vm);
    if (held)
      expect_waited (vm, began);
    wait_for (shot);
    shot = vm_shoot_worker (vm, FALSE, any_time (rand, 300)); /* the driver finds it */
    scene_verify (vm, "data");
    scene_fill_end (vm, "data");
    wait_for (shot);
    scene_unload (vm, 30);
    scene_load (vm, "manual");
  }
  scene_have (vm, SCENE_SECTION_BLOCKS, 30);
  scene_have (vm, 0, 30);
  scene_expect_sane (vm);
}

/* ---- what is to be seen of all that ---- */

static void
test_nothing_noticed (gconstpointer data) {
  const Kernel *kernel = data;
  Vm *vm = get_vm (kernel);
  g_autofree char *path = g_build_filename (vm_folder (vm), "qemu.log", NULL);
  g_autofree char *said = vm_run_ok (vm, "dmesg -r | grep -E '^<[0-4]>.*virtio_domybs virtio' || true");
  g_autofree char *log = NULL;
  const char *after_command;

  /* we look for it only when what went on meanwhile is over, a boot among others */
  g_test_message ("%u kills, %u of them while somebody waited: we saw the next after %.0f ms on average, %.0f at worst",
                  tally.shots, tally.held, tally.sum * 1000 / MAX (tally.shots, 1), tally.worst * 1000);
  g_assert_cmpuint (tally.shots, >=, kernel->shots_least);
  memset (&tally, 0, sizeof tally);
  if (*said)
    vm_fail (vm, "the guest's driver said:\n%s", said);
  g_assert_true (g_file_get_contents (path, &log, NULL, NULL));
  after_command = strchr (log, '\n');
  g_assert_nonnull (after_command);
  if (after_command[1])
    vm_fail (vm, "QEMU said:\n%s", after_command + 1);
  scene_end ();
}

int
main (int argc, char **argv) {
  static const struct {
    const char *name;
    GTestDataFunc run;
  } cases[] = {
    { "load", test_load },   { "request", test_request }, { "driver", test_driver },
    { "reset", test_reset }, { "plug", test_plug },       { "nothing-noticed", test_nothing_noticed },
  };

  vm_test_init (&argc, &argv);
  for (guint k = 0; k < G_N_ELEMENTS (kernels); k++)
    for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
      g_autofree char *path = g_strdup_printf ("/kill/%s/%s", kernels[k].series, cases[i].name);

      g_test_add_data_func (path, &kernels[k], cases[i].run);
    }
  return vm_test_run ();
}
