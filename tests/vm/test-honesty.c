/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a guest no longer needs, the host gets back, unasked. The figure is the number of blocks that the host's kernel has for
 * the window's memfd; nobody's own books count.
 *
 * "Releasable" is counted in the guest, from the kernel's flags of each page: whole 2 MiB pieces of the window in which every
 * page is free, right after the program has freed its memory. Pieces that were free before count too, if the host still has
 * memory for them.
 */
#include "scene.h"

#include <inttypes.h>
#include <string.h>

/* Hysteresis (the driver's default) and a second: what is promised. */
#define HYSTERESIS_SECONDS 5.0
#define SHARE 0.95
/* The audit's interval, in which it begins; the rest is for a machine that has other things to do. */
#define AUDIT_SECONDS 1.0
#define AUDIT_SLACK_SECONDS 4.0

/* An emulated guest has to do the work, too: scanning, taking and offlining half a gigabyte is a second or two of processor
 * time there on a machine that boots it in three seconds, and as much more as that machine is slower. */
static double
with_slack (Vm *vm, double seconds) {
  return vm_is_fast () ? seconds : seconds + MAX (5.0, 2 * vm_boot_seconds (vm));
}

static Vm *
get_vm (const char *series) {
  static const char *const backend[] = { "--window=2G", "--local-max=768M", "--audit-interval=1000", NULL };
  g_autofree char *name = g_strdup_printf ("honesty-%s", series);

  /* iomem=relaxed: root may map a device's memory although a driver uses it, as any kernel that means ill could */
  return scene_vm (&(VmConfig){ .name = name,
                                .series = series,
                                .ram_mib = 512,
                                .kernel_args = "iomem=relaxed",
                                .backend_args = backend,
                                .driver_params = "mode=manual" });
}

/* What was there before pieces were freed. */
typedef struct {
  guint64 host, granted, total; /* bytes: the window's on the host, what is granted by the books, the guest's MemTotal */
} Before;

static Before
look (Vm *vm) {
  return (Before){ vm_host_memfd_bytes (vm), scene_granted (vm) * VM_BLOCK_BYTES, vm_guest_meminfo (vm, "MemTotal") };
}

/* The most that can be demanded: the releasable pieces but for those that the driver keeps back for the OOM notifier (4 by
 * default), or what the host has if that is less. Waits until 95 % of it is given back, and gone from the host: there, pieces
 * that were granted and never touched had taken nothing. */
static void
expect_drop (Vm *vm, const char *what, double freed_at, const Before *before, guint64 releasable) {
  guint64 reserve = MIN (vm_driver_number (vm, "reserve_blocks"), 4) * VM_BLOCK_BYTES;
  guint64 must = (guint64)(SHARE * (double)MIN (releasable - reserve, before->host));
  guint64 untouched = before->granted - MIN (before->granted, before->host);
  guint64 must_host = must - MIN (must, untouched), granted = before->granted, host = before->host;
  double seconds = 0, limit = with_slack (vm, HYSTERESIS_SECONDS + 1);

  while (before->granted - granted < must || before->host - host < must_host) {
    seconds = scene_now () - freed_at;
    if (seconds > 4 * limit) {
      g_autofree char *state = vm_driver_get (vm, "state");

      vm_fail (
          vm,
          "%s: %.0f MiB releasable, of %.0f granted and %.0f on the host, but %.1f s later only %.0f are given back and %.0f "
          "gone from the host; the driver says: %s",
          what, scene_mib (releasable), scene_mib (before->granted), scene_mib (before->host), seconds,
          scene_mib (before->granted - granted), scene_mib (before->host - host), state);
    }
    g_usleep (50000);
    granted = MIN (scene_granted (vm) * VM_BLOCK_BYTES, before->granted);
    host = MIN (vm_host_memfd_bytes (vm), before->host);
  }
  seconds = scene_now () - freed_at;
  vm_expect_within (vm, 5, before->total - vm_guest_meminfo (vm, "MemTotal") >= must);
  g_test_message (
      "%s: %.0f MiB on the host, %.0f MiB releasable, 95 %% of it back after %.1f s (hysteresis %.0f s); then %.0f MiB", what,
      scene_mib (before->host), scene_mib (releasable), seconds, HYSTERESIS_SECONDS, scene_mib (vm_host_memfd_bytes (vm)));
  if (seconds > limit)
    vm_fail (vm, "%s: that took longer than %.0f s", what, limit);
}

/* ---- all at once, after growth by pressure ---- */

static void
test_all_at_once (gconstpointer series) {
  Vm *vm = get_vm (series);
  guint64 releasable;
  Before before;
  double freed_at;

  scene_have (vm, 0, 30);
  g_assert_cmpint (vm_driver_set (vm, "mode", "auto"), ==, 0);
  scene_fill (vm, "data", 800, 1, "--thp on", 120);
  before = look (vm);
  g_assert_cmpuint (before.host, >, 300 * VM_MIB);
  freed_at = scene_now ();
  scene_free (vm, "data", "free");
  releasable = scene_releasable_bytes (vm);
  g_assert_cmpuint (releasable, >, 300 * VM_MIB);
  expect_drop (vm, "all at once", freed_at, &before, releasable);

  /* and all of it comes back */
  g_free (vm_job_ask (vm, "data", "refill", 120));
  scene_verify (vm, "data");
  scene_fill_end (vm, "data");
  scene_have (vm, 0, 30);
  scene_expect_nothing_granted (vm, 5);
  scene_expect_sane (vm);
}

/* ---- random pieces among others that stay ---- */

/* The driver decides by itself, but thinks too little of the guest's memory to give anything back. */
static void
hold_back (Vm *vm, gboolean hold) {
  scene_set_parameter (vm, "high_percent", hold ? "100" : "25");
}

/* Frees, counts what could be released while the driver still holds back, and then lets it: all of the hysteresis time begins
 * there. */
static void
free_and_expect_drop (Vm *vm, const char *command, const char *what) {
  guint64 releasable;
  Before before;
  double freed_at;

  hold_back (vm, TRUE);
  scene_free (vm, "data", command);
  releasable = scene_releasable_bytes (vm);
  g_assert_cmpuint (releasable, >, 40 * VM_MIB);
  before = look (vm);
  freed_at = scene_now ();
  hold_back (vm, FALSE);
  expect_drop (vm, what, freed_at, &before, releasable);
}

/* The memory is granted by hand first, so that the data lies in blocks and boot memory stays free: then there is no reason to
 * keep any free block of the window. */
static void
free_random (Vm *vm, const char *thp, const char *command, gboolean the_rest) {
  g_autofree char *what = g_strdup_printf ("%s, %s", command, thp);

  scene_have (vm, 4 * SCENE_SECTION_BLOCKS, 30);
  scene_fill (vm, "data", 500, 2, thp, 120);
  g_assert_cmpuint (vm_host_memfd_bytes (vm), >, 480 * VM_MIB);
  hold_back (vm, TRUE);
  g_assert_cmpint (vm_driver_set (vm, "mode", "auto"), ==, 0);
  free_and_expect_drop (vm, command, what);
  scene_verify (vm, "data");
  if (the_rest) {
    free_and_expect_drop (vm, "free", "the rest");
    g_free (vm_job_ask (vm, "data", "refill", 120));
    scene_verify (vm, "data");
  }
  scene_fill_end (vm, "data");
  scene_have (vm, 0, 30);
  scene_expect_nothing_granted (vm, 5);
  scene_expect_sane (vm);
}

static void
test_random_huge (gconstpointer series) {
  free_random (get_vm (series), "--thp on", "free-random 0.5 11 2M", TRUE);
}

static void
test_random_small (gconstpointer series) {
  free_random (get_vm (series), "--thp off", "free-random 0.6 12 2M", FALSE);
}

/* ---- what nobody granted ---- */

static void
test_audit (gconstpointer series) {
  Vm *vm = get_vm (series);
  guint64 start, end, offset, before, taken, bytes = 64 * VM_MIB;
  double touched_at, seconds;

  scene_have (vm, SCENE_SECTION_BLOCKS, 30);
  scene_fill (vm, "data", 100, 3, "", 60);
  scene_window (vm, &start, &end);
  offset = (end - start) / 2; /* far from what is granted, and from the spare */
  before = vm_host_memfd_bytes (vm);
  taken = (guint64)vm_status_number (vm, "audit-punched-bytes");
  g_free (vm_run_ok (vm, "windowtool touch /sys/bus/virtio/drivers/virtio_domybs/virtio*/../resource4 %" PRIu64 " %" PRIu64,
                     offset, bytes));
  touched_at = scene_now ();
  /* the program that did it, and the kernel, may have touched some more of what is granted */
  vm_expect_within (vm, 10, vm_host_memfd_bytes (vm) <= before + 8 * VM_MIB);
  seconds = scene_now () - touched_at;
  g_test_message ("%.0f MiB touched without a grant were gone after %.1f s (audited every %.0f s); %.0f MiB by its own count",
                  scene_mib (bytes), seconds, AUDIT_SECONDS,
                  scene_mib ((guint64)vm_status_number (vm, "audit-punched-bytes") - taken));
  g_assert_cmpfloat (seconds, <, AUDIT_SECONDS + AUDIT_SLACK_SECONDS);
  g_assert_cmpuint ((guint64)vm_status_number (vm, "audit-punched-bytes") - taken, >=, bytes);
  /* granted memory is left alone */
  scene_verify (vm, "data");
  scene_fill_end (vm, "data");
  scene_have (vm, 0, 30);
  scene_expect_nothing_granted (vm, 5);
  scene_expect_sane (vm);
}

int
main (int argc, char **argv) {
  static const SceneCase cases[] = {
    { "all-at-once", test_all_at_once, SCENE_EVERYWHERE },
    { "random-huge", test_random_huge, SCENE_BOTH },
    { "random-small", test_random_small, SCENE_ONCE },
    { "audit", test_audit, SCENE_BOTH },
  };

  vm_test_init (&argc, &argv);
  scene_add_cases ("honesty", cases, G_N_ELEMENTS (cases));
  return vm_test_run ();
}
