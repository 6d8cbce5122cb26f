/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "vm.h"

#include <time.h>

/* console: everything from warnings on; panic: reboots at once, which the harness notices. The rest makes an emulated guest
 * boot in half the time and spares false alarms about processors that the host did not run for a while. */
static const char kernel_args[]
    = "console=ttyS0 loglevel=5 panic=-1 nokaslr mitigations=off tsc=reliable no_timer_check random.trust_cpu=on "
      "cryptomgr.notests nosoftlockup rcupdate.rcu_cpu_stall_suppress=1";

/* One clock is read on both sides of the other: a moment in which this program did not run would spoil the figure. */
static guint64
read_cycles (gint64 *ret_ns) {
  guint64 cycles = 0;
  gint64 shortest = G_MAXINT64;

  for (int i = 0; i < 20; i++) {
    struct timespec before, after;
    guint64 now;
    gint64 took;

    clock_gettime (CLOCK_MONOTONIC_RAW, &before);
    now = __builtin_ia32_rdtsc ();
    clock_gettime (CLOCK_MONOTONIC_RAW, &after);
    took = (after.tv_sec - before.tv_sec) * 1000000000 + after.tv_nsec - before.tv_nsec;
    if (took >= shortest)
      continue;
    shortest = took;
    cycles = now;
    *ret_ns = before.tv_sec * 1000000000 + before.tv_nsec + took / 2;
  }
  return cycles;
}

static guint64
cycles_khz (void) {
  gint64 began_ns, ended_ns;
  const guint64 began = read_cycles (&began_ns);
  guint64 cycles;

  g_usleep (50000);
  cycles = read_cycles (&ended_ns) - began;
  return cycles * 1000000 / (guint64)(ended_ns - began_ns);
}

/* What emulation needs besides:
 *
 * tsc_early_khz: an emulated processor counts the host's cycles. A guest that has to find out while it boots how fast that is,
 * on a machine with much else to do, is wrong by a factor of eight now and then, and so is its clock from then on.
 *
 * rootfstype=ramfs: QEMU keeps translated code by where in its RAM it lies, also when that RAM has gone, and new RAM takes its
 * place (11.1; seen: code that is run from the window after an unplug and a plug is what was there before). So programs must
 * not lie in the window. They would get there from a tmpfs, by way of demotion; pages of a ramfs stay where they are. */
static char *
emulation_args (void) {
  return g_strdup_printf ("rootfstype=ramfs tsc_early_khz=%" G_GUINT64_FORMAT, cycles_khz ());
}

const char *
vm_kernel_args (void) {
  static char *args;

  if (!args) {
    g_autofree char *emulated = vm_is_fast () ? g_strdup ("") : emulation_args ();
    const char *more = g_getenv ("DOMYBS_KERNEL_ARGS");

    args = g_strdup_printf ("%s %s %s", kernel_args, emulated, more ? more : "");
  }
  return args;
}
