/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a neighbour's memory brings a program in a guest: a store of values of 1 KiB (zipf.h) of which 50 and 25 % may be in the
 * guest's memory, the rest in swap on a far disk, with storage alone or with a neighbour as well (far-place.h). One VM has all
 * of these disks, and uses one after the other: a round is a measurement of each.
 *
 * An emulated guest's processor is ten times slower or more, and neither storage nor neighbours are: what a page-in costs the
 * host weighs too little in there. bench-neighbours is about real processors. CPU is QEMU's, domybs-far's and the donor's.
 */
#include "far-place.h"
#include "figures.h"
#include "processes.h"
#include "vm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <glib/gstdio.h>

#define CGROUP "/sys/fs/cgroup/store"
#define LOCAL_TIMES 5 /* so many times the operations when all is in memory */
#define N_PLACES 6u   /* and the first row is all in memory */

static const struct {
  const char *name;
  unsigned delay_us;
  bool neighbour;
} places[N_PLACES] = {
  { "file in memory, storage only", 0, false }, { "file in memory, neighbour", 0, true },
  { "+60 us, storage only", 60, false },        { "+60 us, neighbour", 60, true },
  { "+1 ms, storage only", 1000, false },       { "+1 ms, neighbour", 1000, true },
};

static const unsigned locals[] = { 50, 25 };
#define N_LOCALS G_N_ELEMENTS (locals)

enum kind { US, P50, P99, CPU, INS, IN_US, KINDS };
static const struct {
  const char *name, *unit;
} kinds[KINDS] = { { "an operation", "us" },
                   { "p50", "us" },
                   { "p99", "us" },
                   { "host's CPU of an operation", "us" },
                   { "page-ins of 1000 operations", "" },
                   { "a page-in, all told", "us" } };

static int mib = 64, operations = 12000, settle = 8000;
static char *folder, *stage, *series;
static double *figures[N_PLACES][N_LOCALS][KINDS], *local_figures[KINDS];

struct scene {
  Vm *vm;
  struct far_place *places[N_PLACES];
  char *devices[N_PLACES]; /* in the guest */
  unsigned n_places;
};

/* Each disk has another size, by which it is known in the guest. */
static uint64_t
bytes_of (unsigned p) {
  return ((uint64_t)mib * 2 + 16 * p) * VM_MIB;
}

static void
start (struct scene *scene) {
  g_autofree char *file = g_strdup_printf ("%s:/bin/zipftool", ZIPFTOOL);
  const char *const initramfs_args[] = { "--file", file, NULL };
  g_autoptr (GPtrArray) qemu_args = g_ptr_array_new_with_free_func (g_free);

  scene->n_places = far_place_can_delay () ? N_PLACES : 2;
  for (unsigned p = 0; p < scene->n_places; p++) {
    const char *socket;

    scene->places[p] = far_place_start (&(struct far_place_options){ .folder = folder,
                                                                     .stage = stage,
                                                                     .bytes = bytes_of (p),
                                                                     .delay_us = places[p].delay_us,
                                                                     .neighbour = places[p].neighbour });
    socket = scene->places[p]->far->socket_paths[0];
    for (int tries = 0; !g_file_test (socket, G_FILE_TEST_EXISTS) && tries < 400; tries++)
      g_usleep (50000);
    if (!g_file_test (socket, G_FILE_TEST_EXISTS)) {
      g_autofree char *log = backend_log_from (scene->places[p]->far->backend, 0);

      g_error ("disk %u does not listen:\n%s", p, log);
    }
    g_ptr_array_add (qemu_args, g_strdup ("-chardev"));
    g_ptr_array_add (qemu_args, g_strdup_printf ("socket,id=far%u,path=%s,reconnect-ms=50", p, socket));
    g_ptr_array_add (qemu_args, g_strdup ("-device"));
    g_ptr_array_add (qemu_args, g_strdup_printf ("vhost-user-blk-pci,chardev=far%u,num-queues=1", p));
  }
  g_ptr_array_add (qemu_args, NULL);
  scene->vm = vm_start (&(VmConfig){ .name = "neighbours",
                                     .series = series,
                                     .ram_mib = 256 + 2 * (guint)mib,
                                     .vcpus = 1,
                                     .qemu_args = (const char *const *)qemu_args->pdata,
                                     .initramfs_args = initramfs_args });
  for (unsigned p = 0; p < scene->n_places; p++) {
    scene->devices[p] = vm_run_ok (
        scene->vm, "cd /sys/block; for d in vd*; do [ $(cat $d/size) = %" G_GUINT64_FORMAT " ] && echo $d; done; true",
        bytes_of (p) / 512);
    g_strstrip (scene->devices[p]);
    if (!g_str_has_prefix (scene->devices[p], "vd") || strlen (scene->devices[p]) != 3)
      vm_fail (scene->vm, "the guest has '%s' as disk %u", scene->devices[p], p);
  }
  g_free (vm_run_ok (scene->vm,
                     "mkdir -p /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && mkdir " CGROUP
                     " && echo +memory >/sys/fs/cgroup/cgroup.subtree_control && echo 0 >/proc/sys/vm/page-cluster"));
}

/* Has the store do so many operations and, if it counts, keeps the figures. */
static void
run_store (struct scene *scene, struct far_place *place, int n, double *ret) {
  g_autofree char *command = g_strdup_printf ("run %d", n), *line = NULL;
  const double cpu = processes_cpu_us (vm_qemu_pid (scene->vm)) + (place ? far_place_cpu_us (place) : 0);
  double done, took, p999, outs;

  vm_job_tell (scene->vm, "store", command);
  line = vm_job_expect (scene->vm, "store", "ok ran", 600);
  if (!ret)
    return;
  ret[CPU] = processes_cpu_us (vm_qemu_pid (scene->vm)) + (place ? far_place_cpu_us (place) : 0) - cpu;
  if (sscanf (line, "ok ran %lf %lf %lf %lf %lf %lf %lf", &done, &took, &ret[P50], &ret[P99], &p999, &ret[INS], &outs) != 7)
    vm_fail (scene->vm, "zipftool says '%s'", line);
  ret[US] = took * 1e6 / done;
  ret[P50] /= 1000;
  ret[P99] /= 1000;
  ret[CPU] /= done;
  ret[INS] = ret[INS] / done * 1000;
  ret[IN_US] = 0;
}

static void
measure (struct scene *scene, unsigned p, int round) {
  struct far_place *place = scene->places[p];
  const char *device = scene->devices[p];
  double of_one[KINDS], local_us = 0;
  uint64_t whole;

  g_free (vm_run_ok (scene->vm, "echo 0 >/sys/block/%s/queue/rotational; mkswap /dev/%s >/dev/null && swapon -d /dev/%s",
                     device, device, device));
  vm_job_start (scene->vm, "store", "echo 0 >" CGROUP "/cgroup.procs && exec zipftool %dM", mib);
  g_free (vm_job_expect (scene->vm, "store", "ok filled", 300));
  {
    g_autofree char *current = vm_read (scene->vm, CGROUP "/memory.current");

    whole = g_ascii_strtoull (current, NULL, 10);
  }
  run_store (scene, place, operations * LOCAL_TIMES, of_one);
  local_us = of_one[US];
  for (enum kind kind = 0; p == 0 && kind < KINDS; kind++)
    local_figures[kind][round] = of_one[kind];
  for (unsigned l = 0; l < N_LOCALS; l++) {
    g_free (vm_run_ok (scene->vm, "echo %" G_GUINT64_FORMAT " >" CGROUP "/memory.max",
                       whole - (uint64_t)mib * VM_MIB * (100 - locals[l]) / 100));
    far_place_wait_protected (place);
    run_store (scene, place, settle, NULL);
    run_store (scene, place, operations, of_one);
    if (of_one[INS] > 0)
      of_one[IN_US] = (of_one[US] - local_us) / of_one[INS] * 1000;
    for (enum kind kind = 0; kind < KINDS; kind++)
      figures[p][l][kind][round] = of_one[kind];
  }
  vm_job_kill (scene->vm, "store");
  g_free (vm_run_ok (scene->vm,
                     "while [ -n \"$(cat " CGROUP "/cgroup.procs)\" ]; do sleep 0.1; done; echo max >" CGROUP
                     "/memory.max; swapoff /dev/%s",
                     device));
}

/* ---- results ---- */

static void
record (unsigned percent, const char *what, double *const *values) {
  for (enum kind kind = 0; kind < (percent == 100 ? INS : KINDS); kind++) {
    g_autofree char *name = g_strdup_printf ("%u %%, %s: %s", percent, what, kinds[kind].name);
    g_autofree double *copy = g_memdup2 (values[kind], sizeof (double) * (gsize)figures_rounds);

    figures_record (name, kinds[kind].unit, copy);
  }
}

/* How many times the time (of the same round) with storage only is that with a neighbour. */
static void
record_ratio (unsigned p, unsigned l) {
  g_autofree char *name = g_strdup_printf ("%u %%, %s: makes it faster, times 100", locals[l], places[p + 1].name);
  g_autofree double *values = g_new (double, figures_rounds);

  for (int round = 0; round < figures_rounds; round++)
    values[round] = figures[p][l][US][round] / figures[p + 1][l][US][round] * 100;
  figures_record (name, "%", values);
}

static void
print_nothing (const char *text) {
}

int
main (int argc, char **argv) {
  const GOptionEntry entries[] = {
    { "mib", 0, 0, G_OPTION_ARG_INT, &mib, "Values, MiB, a power of two (64)", "MIB" },
    { "operations", 0, 0, G_OPTION_ARG_INT, &operations, "Of each measurement (12000)", "N" },
    { "settle", 0, 0, G_OPTION_ARG_INT, &settle, "Operations before each (8000)", "N" },
    { "folder", 0, 0, G_OPTION_ARG_FILENAME, &folder, "Where files are: in /dev or /tmp (/dev/shm)", "FOLDER" },
    { "stage", 0, 0, G_OPTION_ARG_STRING, &stage, "Of domybs-far (8M)", "SIZE" },
    { "series", 0, 0, G_OPTION_ARG_STRING, &series, "Guest kernel: 6.1, 6.12 (default) or new", "SERIES" },
    { NULL },
  };
  char *no_args[] = { argv[0], NULL }, **test_argv = no_args;
  int test_argc = 1;
  struct scene scene = { 0 };

  figures_rounds = 3;
  figures_begin (argc, argv, "A store of values in a guest, partly on a far disk",
                 "– what a neighbour brings a guest (3 rounds)", entries);
  if (operations < 1000 || settle < 2 || mib < 16 || mib > 1024 || (mib & (mib - 1))) {
    g_printerr ("bench-guest-neighbours: wrong arguments (see --help)\n");
    return 2;
  }
  folder = folder ? folder : g_strdup ("/dev/shm");
  stage = stage ? stage : g_strdup ("8M");
  series = series ? series : g_strdup ("6.12");
  g_setenv ("TMPDIR", folder, TRUE);   /* where NBD storage is */
  g_set_print_handler (print_nothing); /* what a test runner wants to read */
  vm_test_init (&test_argc, &test_argv);
  for (enum kind kind = 0; kind < KINDS; kind++) {
    local_figures[kind] = g_new0 (double, figures_rounds);
    for (unsigned p = 0; p < N_PLACES; p++)
      for (unsigned l = 0; l < N_LOCALS; l++)
        figures[p][l][kind] = g_new0 (double, figures_rounds);
  }
  start (&scene);
  printf ("  (%s, Linux %s)\n", vm_is_fast () ? "KVM" : "emulated, TCG", series);
  for (int round = 0; round < figures_rounds; round++)
    for (unsigned p = 0; p < scene.n_places; p++)
      measure (&scene, p, round);
  vm_stop (scene.vm);
  for (unsigned p = 0; p < scene.n_places; p++) {
    far_place_end (scene.places[p]);
    g_free (scene.devices[p]);
  }
  record (100, "all in memory", local_figures);
  for (unsigned l = 0; l < N_LOCALS; l++)
    for (unsigned p = 0; p < scene.n_places; p++) {
      record (locals[l], places[p].name, figures[p][l]);
      if (p % 2 == 1)
        record_ratio (p - 1, l);
    }
  if (!far_place_can_delay ())
    puts ("  no nbdkit: nothing is slow here (Debian: nbdkit)");
  return figures_end () || vm_test_run ();
}
