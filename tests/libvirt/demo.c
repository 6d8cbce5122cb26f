/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What scripts/demo runs: one VM, started by libvirt, that borrows memory from its host and gives it back, with the figures of
 * both sides as it goes. The commands that it shows are the ones that it runs, on a host of its own (see host.h).
 *
 * Nothing in here tells the driver what to do. A program in the guest fills more memory than the guest has; that the guest
 * grows, and shrinks when the program has ended, is the driver's own doing. The figures are the guest kernel's (/proc/meminfo),
 * the driver's (sysfs), the back-end's (control socket), and the host kernel's (the blocks of the window's memfd): four books
 * that must agree.
 */
#include "demo-story.h"

#include <string.h>

#define EVERY_US (300 * 1000)
#define EVERY_CLOSELY_US (50 * 1000) /* while waiting for the driver's first step */
#define BACK_FRACTION 0.95
/* Hysteresis (5 s), and the time that an emulated guest takes to empty sections */
#define BACK_SECONDS 60
#define FILL_SECONDS 150

typedef struct {
  guint64 total, available; /* the guest's /proc/meminfo, bytes */
  guint64 driver_blocks;    /* granted, as the driver says */
  guint64 backend_blocks;   /* granted, as the back-end says */
  guint64 host;             /* bytes of the window that the host's kernel has memory for */
  char state[160];          /* the driver's, with the reason */
} Sample;

typedef struct {
  const char *what;
  Sample at;
  double seconds;
} Row;

typedef struct {
  char *window;
  int boot_mib, fill_mib;
  Story story;
  Vm *vm;
  Row rows[8];
  unsigned n_rows;
  double scale;  /* bytes that a whole bar stands for */
  char why[160]; /* the driver's reason the first time that it was seen growing */
} Demo;

/* ---- the figures ---- */

static void
sample (Demo *demo, Sample *ret) {
  g_autofree char *meminfo = vm_read (demo->vm, "/proc/meminfo");
  g_autofree char *state = vm_driver_get (demo->vm, "state");

  ret->total = story_meminfo (meminfo, "MemTotal:");
  ret->available = story_meminfo (meminfo, "MemAvailable:");
  g_strlcpy (ret->state, state, sizeof ret->state);
  if (!demo->why[0] && g_str_has_prefix (state, "growing "))
    g_strlcpy (demo->why, state + strlen ("growing "), sizeof demo->why);
  ret->driver_blocks = vm_driver_number (demo->vm, "granted_blocks");
  ret->backend_blocks = (guint64)vm_status_number (demo->vm, "granted-blocks");
  ret->host = vm_host_memfd_bytes (demo->vm);
}

static void
show (Demo *demo, const Sample *now) {
  const unsigned columns = screen_columns (demo->story.screen);
  /* Without bars and reason the line takes 66 columns, and a reason up to 90 */
  const unsigned bar = columns >= 160 ? 14 : columns >= 90 ? 10 : 6;
  char guest[SCREEN_BAR_BYTES], host[SCREEN_BAR_BYTES], reason[200] = "";

  screen_bar (demo->story.screen, guest, bar, (double)(now->total - now->available) / demo->scale, (double)now->total / demo->scale);
  screen_bar (demo->story.screen, host, bar, (double)now->host / demo->scale,
              (double)now->backend_blocks * VM_BLOCK_BYTES / demo->scale);
  if (columns >= 160)
    g_snprintf (reason, sizeof reason, " | %s", now->state);
  else if (columns >= 100)
    g_snprintf (reason, sizeof reason, " | %.*s", (int)strcspn (now->state, " "), now->state);
  screen_live (demo->story.screen, "[%4.0fs] guest %s %4u MiB %4u free | host %s %4u MiB %4u blocks%s", story_seconds (demo->story.began),
               guest, story_mib (now->total), story_mib (now->available), host, story_mib (now->host), (unsigned)now->backend_blocks, reason);
}

static void
legend (Demo *demo) {
  screen_line (demo->story.screen,
               "        (guest: %s used, %s available; host: %s memory behind the window, %s granted beyond that)",
               screen_mark (demo->story.screen, SCREEN_FULL), screen_mark (demo->story.screen, SCREEN_HALF),
               screen_mark (demo->story.screen, SCREEN_FULL), screen_mark (demo->story.screen, SCREEN_HALF));
}

/* ---- steps ---- */

static void
step_done (Demo *demo, const char *what, const Sample *at) {
  g_assert_cmpuint (demo->n_rows, <, G_N_ELEMENTS (demo->rows));
  demo->rows[demo->n_rows++] = (Row){ what, *at, story_seconds (demo->story.step_began) };
  demo->story.step_began = g_get_monotonic_time ();
}

/* ---- the program in the guest ---- */

/* Shows figures until the program has printed a line that begins with wanted. TRUE if the wait ended because blocks were
 * granted for the first time, which only counts where until_grant says so. */
static gboolean
watch_program (Demo *demo, const char *wanted, gboolean until_grant, GString *output, Sample *now) {
  const gint64 deadline = g_get_monotonic_time () + FILL_SECONDS * G_USEC_PER_SEC;

  for (;;) {
    const gboolean said = story_program_said (&demo->story, wanted, deadline, output);

    sample (demo, now);
    show (demo, now);
    if (said)
      return FALSE;
    if (until_grant && now->driver_blocks)
      return TRUE;
    g_usleep (until_grant ? EVERY_CLOSELY_US : EVERY_US);
  }
}

/* ---- the story ---- */

static void
boot (Demo *demo) {
  g_autofree char *attach = g_strdup_printf ("domybsctl attach demo --window %s --local-max %s", demo->window, demo->window);
  g_autofree char *release = NULL;
  Sample now;

  story_step (&demo->story,
        "A plain libvirt domain with %d MiB of memory gets a window of %s through which it can borrow more, and boots (%s) …",
        demo->boot_mib, demo->window, vm_is_fast () ? "KVM" : "emulated: no KVM here");
  story_define (&demo->story, demo->boot_mib);
  story_run (&demo->story, attach);
  screen_line (demo->story.screen, "        # virsh start demo");
  demo->vm = lab_domain_start (demo->story.domain);
  vm_expect_within (demo->vm, 30, vm_driver_number (demo->vm, "session") != 0);
  release = vm_read (demo->vm, "/proc/sys/kernel/osrelease");
  sample (demo, &now);
  screen_line (
      demo->story.screen,
      "        Linux %s in a stock QEMU, as libvirt's unprivileged user, sandboxed; driver loaded; nothing borrowed yet",
      release);
  lab_domain_expect_confined (demo->story.domain);
  legend (demo);
  show (demo, &now);
  story_check (&demo->story, now.driver_blocks == 0 && now.host == 0, "no block granted, and the host has %u KiB behind the window",
         (unsigned)(now.host / 1024));
  step_done (demo, "booted, driver loaded", &now);
}

static void
grow (Demo *demo, Sample *ret_full) {
  g_autoptr (GString) output = g_string_new (NULL);
  g_autofree char *request = g_strdup_printf ("start program memtool fill %dM --hold", demo->fill_mib);
  const guint64 fill = (guint64)demo->fill_mib * VM_MIB;
  g_autofree char *mode = NULL;
  g_autofree char *target = NULL;
  Sample now;

  story_step (&demo->story, "A program in the guest fills %d MiB, %.2f times what the guest was booted with …", demo->fill_mib,
        (double)demo->fill_mib / demo->boot_mib);
  story_program_request (&demo->story, request);
  if (!watch_program (demo, "ok filled", TRUE, output, &now))
    vm_fail (demo->vm, "the program had all its memory and no block was ever granted");
  step_done (demo, "guest runs short, blocks come", &now);
  story_step (&demo->story, "The guest ran short, and its driver asks the host for blocks. The program fills on …");
  watch_program (demo, "ok filled", FALSE, output, ret_full);
  mode = vm_driver_get (demo->vm, "mode");
  target = vm_driver_get (demo->vm, "target_blocks");
  story_check (&demo->story, g_str_equal (mode, "auto") && g_str_equal (target, "none"), "by pressure alone (mode %s, target %s): %s", mode,
         target, demo->why[0] ? demo->why : "faster than it could be watched");
  story_check (&demo->story, ret_full->total > fill && ret_full->host > fill - (guint64)demo->boot_mib * VM_MIB,
         "the program has its %d MiB; the host lends %u blocks and has %u MiB behind them", demo->fill_mib,
         (unsigned)ret_full->backend_blocks, story_mib (ret_full->host));
  step_done (demo, "program has filled its memory", ret_full);

  story_step (&demo->story, "The program compares every word with what it wrote there …");
  watch_program (demo, "ok verified", FALSE, output, &now);
  story_check (&demo->story, g_ascii_strtoull (strstr (output->str, "ok verified") + strlen ("ok verified "), NULL, 10) == fill,
         "%d MiB are as they were written", demo->fill_mib);
  step_done (demo, "every word verified", &now);
}

static void
give_back (Demo *demo, const Sample *full) {
  const guint64 left_allowed = (guint64)((double)full->host * (1 - BACK_FRACTION));
  const gint64 deadline = g_get_monotonic_time () + BACK_SECONDS * G_USEC_PER_SEC;
  g_autofree char *rest = NULL;
  Sample now;
  int status;

  story_step (&demo->story, "The program ends. Nobody tells the driver …");
  story_program_request (&demo->story, "tell program exit");
  do {
    g_free (rest);
    rest = story_program_poll (&demo->story, &status);
    sample (demo, &now);
    show (demo, &now);
    g_usleep (EVERY_US / 3);
  } while (status < 0 && g_get_monotonic_time () < deadline);
  story_check (&demo->story, status == 0, "the program ended with status %d", status);
  step_done (demo, "program has ended", &now);

  screen_line (demo->story.screen, "        Freed memory is kept for 5 s in case it is wanted again; then the blocks go back …");
  while (now.host > left_allowed && g_get_monotonic_time () < deadline) {
    g_usleep (EVERY_US);
    sample (demo, &now);
    show (demo, &now);
  }
  /* A moment more: the last blocks come out one section at a time, and the books are read one after the other */
  for (int i = 0; i < 10 && (now.host || now.driver_blocks != now.backend_blocks); i++) {
    g_usleep (EVERY_US);
    sample (demo, &now);
    show (demo, &now);
  }
  story_check (&demo->story, now.host <= left_allowed, "%.1f %% of the host's memory came back (%u MiB of %u; asked for are %.0f %%)",
         100.0 * (1 - (double)now.host / (double)MAX (full->host, 1)), story_mib (full->host - MIN (now.host, full->host)),
         story_mib (full->host), 100 * BACK_FRACTION);
  story_check (&demo->story, now.driver_blocks == now.backend_blocks, "driver and back-end agree: %u blocks granted",
         (unsigned)now.backend_blocks);
  step_done (demo, "blocks went back", &now);
}

static void
nothing_harmed (Demo *demo) {
  const guint64 killed = vm_guest_vmstat (demo->vm, "oom_kill");
  g_autofree char *complaints = vm_kernel_complaints (demo->vm);
  g_autofree char *broken = vm_driver_get (demo->vm, "broken");

  story_check (&demo->story, killed == 0 && !complaints && g_str_equal (broken, "0"),
         "the guest's kernel killed %u processes and had %s to complain about", (unsigned)killed,
         complaints ? complaints : "nothing");
}

static void
summary (Demo *demo) {
  screen_line (demo->story.screen, "\n %-30s %9s %9s %7s %9s %8s", "", "guest", "guest", "blocks", "host", "");
  screen_line (demo->story.screen, " %-30s %9s %9s %7s %9s %8s", "step", "MemTotal", "available", "granted", "memory", "seconds");
  screen_line (demo->story.screen, " ------------------------------ --------- --------- ------- --------- --------");
  for (unsigned i = 0; i < demo->n_rows; i++) {
    const Row *row = &demo->rows[i];

    screen_line (demo->story.screen, " %-30s %5u MiB %5u MiB %7u %5u MiB %8.1f", row->what, story_mib (row->at.total),
                 story_mib (row->at.available), (unsigned)row->at.backend_blocks, story_mib (row->at.host), row->seconds);
  }
  screen_line (demo->story.screen,
               " (host memory: what the host's kernel has allocated behind the window, beside the %d MiB of boot memory)\n",
               demo->boot_mib);
  if (demo->story.failures)
    screen_line (demo->story.screen, "FAILED: %u of the checks above did not hold.", demo->story.failures);
  else
    screen_line (demo->story.screen,
                 "Proved: an unchanged QEMU and Linux used %.2f times the VM's own memory, intact, by borrowing it "
                 "block by block when it ran short, and the host had it back %.0f s after it was free.",
                 (double)demo->fill_mib / demo->boot_mib, demo->rows[demo->n_rows - 1].seconds);
}

int
main (int argc, char **argv) {
  Demo demo = { .boot_mib = 1024, .fill_mib = 2048 };
  const GOptionEntry entries[] = {
    { "boot-ram", 0, 0, G_OPTION_ARG_INT, &demo.boot_mib, "memory that the VM is booted with (default 1024)", "MIB" },
    { "window", 0, 0, G_OPTION_ARG_STRING, &demo.window, "window to borrow through, a power of two (default 4G)", "SIZE" },
    { "fill", 0, 0, G_OPTION_ARG_INT, &demo.fill_mib, "what the program in the guest fills (default 2048)", "MIB" },
    { NULL },
  };
  Sample full;

  story_begin (&demo.story, entries, argc, argv);
  if (!demo.window)
    demo.window = g_strdup ("4G");
  demo.scale = (double)((guint64)demo.boot_mib + (guint64)demo.fill_mib) * VM_MIB;

  boot (&demo);
  grow (&demo, &full);
  give_back (&demo, &full);
  nothing_harmed (&demo);
  story_detach (&demo.story);
  summary (&demo);
  g_free (demo.window);
  return story_end (&demo.story);
}
