/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A guest that runs short: blocks come by pressure, from next to no free memory, and when the kernel is about to kill. How fast
 * the driver is decides whether a process dies, so nothing else should run beside these. */
#include "scene.h"

#include <inttypes.h>

static Vm *
get_vm (const char *series) {
  static const char *const backend[] = { "--window=2G", "--local-max=768M", NULL };
  Vm *vm = scene_small_vm ("pressure", series, backend);

  scene_set_parameter (vm, "hysteresis_ms", "1000"); /* what it is for is test-honesty.c's */
  return vm;
}

/* Fills anonymous memory until little is free but what the kernel keeps for itself; the driver must not help. Returns how many
 * MiB. How much is left over differs by tens of MiB from run to run: the kernel frees what it booted with when it comes to it.
 * So *ret_free_bytes is what was seen, and callers reckon with that. */
static guint
fill_boot_memory (Vm *vm, const char *job, guint64 *ret_free_bytes) {
  g_autofree char *kept = vm_read (vm, "/proc/sys/vm/min_free_kbytes");
  guint64 kept_bytes = g_ascii_strtoull (kept, NULL, 10) * 1024;
  guint mib = (guint)((vm_guest_meminfo (vm, "MemFree") - kept_bytes) / VM_MIB) - 8; /* nothing is cached in this guest */

  scene_fill (vm, job, mib, 1, "--thp off", 120);
  *ret_free_bytes = vm_guest_meminfo (vm, "MemFree");
  g_test_message ("%u MiB filled, %.1f MiB free, of which the kernel keeps %.1f for itself", mib, scene_mib (*ret_free_bytes),
                  scene_mib (kept_bytes));
  g_assert_cmpuint (*ret_free_bytes, <, kept_bytes + 64 * VM_MIB);
  g_assert_cmpuint (scene_granted (vm), ==, 0);
  return mib;
}

/* Blocks that came by pressure go back when the pressure is over. */
static void
expect_return (Vm *vm, guint64 total_before) {
  double began = scene_now ();

  vm_expect_within (vm, 60, vm_host_memfd_bytes (vm) <= 16 * VM_MIB);
  g_test_message ("%.1f s later the host has its memory back", scene_now () - began);
  vm_expect_within (vm, 20, vm_guest_meminfo (vm, "MemTotal") <= total_before + 16 * VM_MIB);
  scene_have (vm, 0, 30);
  scene_expect_nothing_granted (vm, 10);
}

static void
test_pressure (gconstpointer series) {
  Vm *vm = get_vm (series);
  guint64 total, grown, free_bytes, borrowed_least;
  guint first, second = 420;

  scene_have (vm, 0, 30);
  total = vm_guest_meminfo (vm, "MemTotal");
  first = fill_boot_memory (vm, "first", &free_bytes);
  g_assert_cmpint (vm_driver_set (vm, "mode", "auto"), ==, 0);
  scene_fill (vm, "second", second, 2, "--thp on", 120);
  scene_verify (vm, "first");
  scene_verify (vm, "second");

  g_assert_cmpuint ((guint64)(first + second) * VM_MIB, >, total);
  grown = vm_guest_meminfo (vm, "MemTotal") - total;
  g_test_message ("%u MiB of data in a guest with %.0f MiB of boot memory; %" PRIu64 " blocks granted, MemTotal +%.0f MiB, "
                  "on the host %.0f MiB",
                  first + second, scene_mib (total), scene_granted (vm), scene_mib (grown),
                  scene_mib (vm_host_memfd_bytes (vm)));
  /* what is not in boot memory is in blocks, on the host too */
  borrowed_least = (guint64)second * VM_MIB - free_bytes - 16 * VM_MIB;
  g_assert_cmpuint (grown, >=, borrowed_least);
  g_assert_cmpuint (vm_host_memfd_bytes (vm), >=, borrowed_least);
  scene_expect_sane (vm);

  scene_fill_end (vm, "second");
  scene_fill_end (vm, "first");
  expect_return (vm, total);
  scene_expect_sane (vm);
}

/* No watermark lets the driver begin early: the first that it hears of is that the kernel is about to kill somebody. */
static void
test_out_of_memory (gconstpointer series) {
  Vm *vm = get_vm (series);
  guint64 total, calls, free_bytes;
  guint first;

  scene_have (vm, 0, 30);
  total = vm_guest_meminfo (vm, "MemTotal");
  calls = scene_counter (vm, "oom_calls");
  first = fill_boot_memory (vm, "first", &free_bytes);
  scene_set_parameter (vm, "low_percent", "0");
  scene_set_parameter (vm, "low_mib", "0");
  g_assert_cmpint (vm_driver_set (vm, "mode", "auto"), ==, 0);
  scene_fill (vm, "second", 200, 2, "--thp off", 120);
  scene_verify (vm, "first");
  g_test_message ("%u MiB of data, %" PRIu64 " blocks granted; the kernel was %" PRIu64 " times about to kill, saved %" PRIu64
                  " times",
                  first + 200, scene_granted (vm), scene_counter (vm, "oom_calls") - calls, scene_counter (vm, "oom_saved"));
  g_assert_cmpuint (scene_counter (vm, "oom_calls"), >, calls);
  scene_expect_sane (vm);

  scene_set_parameter (vm, "low_percent", "10");
  scene_set_parameter (vm, "low_mib", "128");
  scene_fill_end (vm, "second");
  scene_fill_end (vm, "first");
  expect_return (vm, total);
}

int
main (int argc, char **argv) {
  static const SceneCase cases[] = {
    { "pressure", test_pressure, SCENE_EVERYWHERE },
    { "out-of-memory", test_out_of_memory, SCENE_EVERYWHERE },
  };

  vm_test_init (&argc, &argv);
  scene_add_cases ("pressure", cases, G_N_ELEMENTS (cases));
  return vm_test_run ();
}
