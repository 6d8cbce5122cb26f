/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A far disk under a real QEMU and a real guest's driver. Programs in the guest write, read back and verify with O_DIRECT all
 * the while that its worker is killed, the VM stopped and continued, its memory enlarged, the VM reset: none of it may be
 * noticed by them.
 */
#include "far.h"
#include "scene.h"

#include <stdlib.h>
#include <string.h>

#define QUEUES 2
#define DISKS 2
#define DIMMS_MAX 3
#define ROUNDS_MAX 5
#define BUFFER_MIB 24 /* of each program: many requests of many segments, and some hundred KiB in flight */

static struct far *far;

static Vm *
start (const char *series, gboolean window) {
  static const char *const backend_args[] = { "--window=2G", "--local-max=512M", NULL };
  g_autoptr (GPtrArray) arguments = g_ptr_array_new_with_free_func (g_free);

  /* With so little of a stage most reads wait for storage, and end in any order. */
  far = far_start (&(struct far_options){ .n_disks = DISKS,
                                          .disk_extra = ",queues=" G_STRINGIFY (QUEUES),
                                          .arguments = (const char *const[]){ "--stage=8M", NULL } });
  for (unsigned i = 0; i < DISKS; i++) {
    for (int tries = 0; !g_file_test (far->socket_paths[i], G_FILE_TEST_EXISTS) && tries < 400; tries++)
      g_usleep (50000);
    g_ptr_array_add (arguments, g_strdup ("-chardev"));
    g_ptr_array_add (arguments, g_strdup_printf ("socket,id=far%u,path=%s,reconnect-ms=50", i, far->socket_paths[i]));
    g_ptr_array_add (arguments, g_strdup ("-device"));
    g_ptr_array_add (arguments, g_strdup_printf ("vhost-user-blk-pci,chardev=far%u,num-queues=%d", i, QUEUES));
  }
  g_ptr_array_add (arguments, NULL);
  return vm_start (&(VmConfig){
    .name = "disk",
    .series = series,
    .ram_mib = 512,
    .max_ram_mib = 2048,
    .qemu_args = (const char *const *)arguments->pdata,
    .backend_args = window ? backend_args : NULL,
    .driver_params = window ? "mode=manual" : NULL,
  });
}

static void
end (Vm *vm) {
  g_autofree char *errors = vm_run_ok (vm, "dmesg | grep -c 'I/O error' || true");

  g_assert_cmpint (atoi (errors), ==, 0);
  vm_stop (vm);
  g_clear_pointer (&far, far_end);
}

static void
load (Vm *vm, double seconds) {
  for (unsigned i = 0; i < DISKS; i++) {
    g_autofree char *job = g_strdup_printf ("load%u", i);

    vm_job_start (vm, job, "memtool dio /dev/vd%c %uM %u --seconds %g", 'a' + (int)i, BUFFER_MIB, i + 1, seconds);
    g_free (vm_job_expect (vm, job, "ok ready", 60));
  }
}

static void
load_ends (Vm *vm, double seconds) {
  for (unsigned i = 0; i < DISKS; i++) {
    g_autofree char *job = g_strdup_printf ("load%u", i);
    g_autofree char *line = vm_job_expect (vm, job, "ok dio", seconds);

    g_test_message ("%s", line);
    g_assert_cmpint (vm_job_wait (vm, job, 10, NULL), ==, 0);
  }
}

/* ---- what happens meanwhile ---- */

static void
stop_and_continue (Vm *vm, GRand *rand) {
  vm_pause (vm);
  if (testing_once_in (rand, 2))
    far_kill_worker (far);
  g_usleep (testing_below (rand, 300000));
  vm_resume (vm);
}

/* The memory table is another one afterwards, for requests in flight, too. */
static void
enlarge (Vm *vm, unsigned number) {
  json_node_unref (vm_qmp (vm, "{'execute': 'object-add', 'arguments': {'qom-type': 'memory-backend-memfd', 'id': 'more%u',"
                               " 'size': 134217728, 'share': true}}",
                           number));
  json_node_unref (vm_qmp (vm, "{'execute': 'device_add', 'arguments': {'driver': 'pc-dimm', 'id': 'dimm%u',"
                               " 'memdev': 'more%u'}}",
                           number, number));
}

/* How often a queue went on with requests that had no answer. */
static unsigned
recoveries (void) {
  g_autofree char *log = backend_log_from (far->backend, 0);
  unsigned n = 0;

  for (const char *at = log; (at = strstr (at, "carried out again")); at++)
    n++;
  return n;
}

static void
trouble (Vm *vm, GRand *rand, double seconds, unsigned *dimms) {
  const gint64 until = g_get_monotonic_time () + (gint64)(seconds * G_USEC_PER_SEC);
  unsigned kills = 0, stops = 0;

  while (g_get_monotonic_time () < until) {
    const unsigned what = (unsigned)testing_below (rand, 6);

    if (what == 0 && *dimms < DIMMS_MAX) {
      enlarge (vm, (*dimms)++);
    } else if (what == 1) {
      stop_and_continue (vm, rand);
      stops++;
    } else {
      far_kill_worker (far);
      kills++;
    }
    g_usleep (testing_below (rand, 1500000));
  }
  g_test_message ("%u kills, %u stops", kills, stops);
}

static void
test_load (gconstpointer series) {
  g_autoptr (GRand) rand = testing_rand ();
  const double seconds = vm_patience (8);
  unsigned dimms = 0;
  Vm *vm = start (series, FALSE);
  g_autofree char *queues = vm_run_ok (vm, "ls -d /sys/block/vda/mq/* | wc -l");

  g_assert_cmpint (atoi (queues), ==, QUEUES);
  /* Until something was in flight when the worker died: mostly three or four times in one round. Requests that end in their order
   * would survive without the inflight region, too, so that it is used has to be seen in the log. */
  for (unsigned round = 0; round < ROUNDS_MAX && recoveries () == 0; round++) {
    load (vm, seconds);
    trouble (vm, rand, seconds, &dimms);
    load_ends (vm, seconds + 60);
  }
  g_test_message ("%u times more memory; requests were carried out again %u times", dimms, recoveries ());
  g_assert_cmpuint (recoveries (), >, 0);

  /* the other way round: QEMU's reset button, and a guest that reboots under load */
  load (vm, 60);
  vm_reset (vm);
  load (vm, 2);
  load_ends (vm, 60);
  load (vm, 60);
  vm_reboot (vm);
  far_kill_worker (far);
  load (vm, 2);
  load_ends (vm, 60);
  end (vm);
}

/* A memory device beside it: its window comes and goes in the disks' memory, too, and requests may be in it. (With a disk that
 * offers CONFIGURE_MEM_SLOTS, QEMU 11.1 crashes at the reset.) */
static void
test_beside_window (gconstpointer series) {
  Vm *vm = start (series, TRUE);

  load (vm, vm_patience (4));
  scene_have (vm, 64, 60);
  scene_have (vm, 0, 60);
  scene_have (vm, 128, 60);
  far_kill_worker (far);
  load_ends (vm, 100);
  load (vm, 60);
  vm_reset (vm);
  scene_have (vm, 64, 60);
  load (vm, 2);
  load_ends (vm, 60);
  load (vm, 60);
  vm_reboot (vm);
  scene_have (vm, 64, 60);
  load (vm, 2);
  far_kill_worker (far);
  load_ends (vm, 60);
  end (vm);
}

int
main (int argc, char **argv) {
  vm_test_init (&argc, &argv);
  for (const char *const *series = vm_all_series; *series; series++) {
    g_autofree char *path = g_strdup_printf ("/disk/%s/programs notice nothing", *series);

    g_test_add_data_func (path, *series, test_load);
    if (g_str_equal (*series, "6.12"))
      g_test_add_data_func ("/disk/6.12/beside a window", *series, test_beside_window);
  }
  return vm_test_run ();
}
