/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The second part of scripts/demo: where the host's own RAM ends. A small VM may borrow some of it, and has far disks beside; a program
 * in the guest needs several times what the VM was booted with. The guest's kernel moves what is cold to the far disks, sealed, and takes
 * it back when it is touched; in the middle of that the process behind them is killed. Every word is verified.
 */
#include "demo-story.h"

#include <signal.h>
#include <string.h>

#define EVERY_US (500 * 1000)
#define FILL_SECONDS 300
#define BACK_SECONDS 60
#define BACK_FRACTION 0.95
#define BOOT_MIB 512
#define LOCAL "512M"
#define FAR "shared=512M,remote=1G"

typedef struct {
  guint64 boot, local;                 /* bytes: booted with; host RAM behind the window */
  guint64 used[2], stored[2], zero[2]; /* SHARED, REMOTE: the guest's pages; bytes in storage and stage; pages that are one value */
  guint64 read_p50_us, read_p99_us;
} Sample;

typedef struct {
  const char *what;
  Sample at;
  double seconds;
} Row;

typedef struct {
  Story story;
  int fill_mib;
  Row rows[6];
  unsigned n_rows;
} Demo;

static const char *const tiers[] = { "shared", "remote" };

static void
sample (Demo *demo, Sample *ret) {
  g_autofree char *text = lab_domain_ctl_ok (demo->story.domain, "status", "--json", NULL);
  g_autoptr (JsonParser) parser = json_parser_new ();
  JsonArray *disks;

  *ret = (Sample){ .boot = (guint64)BOOT_MIB * VM_MIB, .local = vm_host_memfd_bytes (demo->story.domain->vm) };
  if (!json_parser_load_from_data (parser, text, -1, NULL))
    vm_fail (demo->story.domain->vm, "status --json: %s", text);
  disks = json_object_get_array_member (
      json_object_get_object_member (json_object_get_object_member (json_node_get_object (json_parser_get_root (parser)), "domain"), "far"),
      "disks");
  for (guint i = 0; i < json_array_get_length (disks); i++) {
    JsonObject *disk = json_array_get_object_element (disks, i);

    for (guint t = 0; t < G_N_ELEMENTS (tiers); t++)
      if (g_str_equal (json_object_get_string_member (disk, "tier"), tiers[t])) {
        ret->used[t] = (guint64)story_member (disk, "used-bytes");
        ret->stored[t] = (guint64)story_member (disk, "stored-bytes");
        ret->zero[t] = ret->used[t] > ret->stored[t] ? ret->used[t] - ret->stored[t] : 0;
      }
  }
}

static void
show (Demo *demo, const Sample *now) {
  const double scale = (double)demo->fill_mib * VM_MIB;
  char local[SCREEN_BAR_BYTES], shared[SCREEN_BAR_BYTES], remote[SCREEN_BAR_BYTES];

  screen_bar (demo->story.screen, local, 8, (double)now->local / scale, 0);
  screen_bar (demo->story.screen, shared, 8, (double)now->used[0] / scale, 0);
  screen_bar (demo->story.screen, remote, 8, (double)now->used[1] / scale, 0);
  screen_live (demo->story.screen, "[%4.0fs] boot %u MiB | LOCAL %s %4u | SHARED %s %4u | REMOTE %s %4u MiB",
               story_seconds (demo->story.began), BOOT_MIB, local, story_mib (now->local), shared, story_mib (now->used[0]), remote,
               story_mib (now->used[1]));
}

static void
step_done (Demo *demo, const char *what, const Sample *at) {
  demo->rows[demo->n_rows++] = (Row){ what, *at, story_seconds (demo->story.step_began) };
}

static void
wait_for (Demo *demo, const char *wanted, GString *output, Sample *now) {
  const gint64 deadline = g_get_monotonic_time () + FILL_SECONDS * G_USEC_PER_SEC;

  for (;;) {
    const gboolean said = story_program_said (&demo->story, wanted, deadline, output);

    sample (demo, now);
    show (demo, now);
    if (said)
      return;
    g_usleep (EVERY_US);
  }
}

static void
boot (Demo *demo) {
  Sample now;

  story_step (&demo->story, "A VM of %d MiB that may borrow %s of the host's RAM, and has far disks behind that …", BOOT_MIB, LOCAL);
  story_define (&demo->story, BOOT_MIB);
  story_run (&demo->story, "domybsctl attach demo --window 4G --local-max " LOCAL " --far " FAR);
  screen_line (demo->story.screen, "        # virsh start demo");
  lab_domain_start (demo->story.domain);
  vm_expect_within (demo->story.domain->vm, 30, vm_driver_number (demo->story.domain->vm, "session") != 0);
  lab_domain_swap_on (demo->story.domain);
  screen_line (demo->story.screen, "        guest: # domybs-swap start     (with udev that happens by itself)");
  sample (demo, &now);
  show (demo, &now);
  step_done (demo, "booted, far disks are swap", &now);
}

static void
use (Demo *demo) {
  const guint64 fill = (guint64)demo->fill_mib * VM_MIB;
  g_autofree char *request = g_strdup_printf ("start program memtool fill %dM --hold", demo->fill_mib);
  g_autoptr (GString) output = g_string_new (NULL);
  GPid worker;
  Sample now;

  story_step (&demo->story, "A program in the guest fills %d MiB, %.1f times what the VM was booted with …", demo->fill_mib,
              (double)demo->fill_mib / BOOT_MIB);
  story_program_request (&demo->story, request);
  wait_for (demo, "ok filled", output, &now);
  story_check (&demo->story, now.local > 0 && now.used[0] > 0, "LOCAL gave %u MiB, SHARED took %u MiB, REMOTE %u MiB",
               story_mib (now.local), story_mib (now.used[0]), story_mib (now.used[1]));
  step_done (demo, "program has filled its memory", &now);

  story_step (&demo->story, "It compares every word with what it wrote there; meanwhile the process behind the disks is killed (kill -9) …");
  worker = host_find_process (host_get (), "domybs-far-work", "--worker");
  story_check (&demo->story, worker > 0 && kill (worker, SIGKILL) == 0, "process %d killed; its keeper starts another, and QEMU connects to that",
               (int)worker);
  wait_for (demo, "ok verified", output, &now);
  story_check (&demo->story,
               g_ascii_strtoull (strstr (output->str, "ok verified") + strlen ("ok verified "), NULL, 10) == fill,
               "%d MiB are as they were written", demo->fill_mib);
  step_done (demo, "every word verified", &now);
  story_run (&demo->story, "domybsctl blocks demo");
}

static void
give_back (Demo *demo) {
  const gint64 deadline = g_get_monotonic_time () + BACK_SECONDS * G_USEC_PER_SEC;
  g_autofree char *rest = NULL;
  Sample full, now;
  guint64 was, is;
  int status;

  story_step (&demo->story, "The program ends. The guest's kernel discards what it has no use for any more …");
  sample (demo, &full);
  was = full.used[0] + full.used[1];
  story_program_request (&demo->story, "tell program exit");
  do {
    g_free (rest);
    rest = story_program_poll (&demo->story, &status);
    sample (demo, &now);
    show (demo, &now);
    is = now.used[0] + now.used[1];
    g_usleep (EVERY_US);
  } while ((status < 0 || (double)is > (1 - BACK_FRACTION) * (double)was) && g_get_monotonic_time () < deadline);
  story_check (&demo->story, (double)is <= (1 - BACK_FRACTION) * (double)was, "%u of %u MiB of far memory are free again",
               story_mib (was - MIN (is, was)), story_mib (was));
  step_done (demo, "program has ended", &now);
}

static void
summary (Demo *demo) {
  Screen *screen = demo->story.screen;

  screen_line (screen, "\n %-30s %8s %9s %9s %9s %9s %8s", "step", "boot", "LOCAL", "SHARED", "REMOTE", "stored", "seconds");
  screen_line (screen, " ------------------------------ -------- --------- --------- --------- --------- --------");
  for (unsigned i = 0; i < demo->n_rows; i++) {
    const Row *row = &demo->rows[i];

    screen_line (screen, " %-30s %4u MiB %5u MiB %5u MiB %5u MiB %5u MiB %8.1f", row->what, BOOT_MIB, story_mib (row->at.local),
                 story_mib (row->at.used[0]), story_mib (row->at.used[1]), story_mib (row->at.stored[0] + row->at.stored[1]),
                 row->seconds);
  }
  screen_line (screen, " (stored: sealed bytes of both far tiers; pages that are one value throughout take none)\n");
  if (demo->story.failures)
    screen_line (screen, "FAILED: %u of the checks above did not hold.", demo->story.failures);
  else
    screen_line (screen,
                 "Proved: an unchanged QEMU and Linux used %.1f times the VM's own memory, intact, over the death of the process that "
                 "held most of it.",
                 (double)demo->fill_mib / BOOT_MIB);
}

int
main (int argc, char **argv) {
  Demo demo = { .fill_mib = 1536 };
  const GOptionEntry entries[] = {
    { "fill", 0, 0, G_OPTION_ARG_INT, &demo.fill_mib, "what the program in the guest fills (default 1536)", "MIB" },
    { NULL },
  };

  story_begin (&demo.story, entries, argc, argv);
  boot (&demo);
  use (&demo);
  give_back (&demo);
  story_detach (&demo.story);
  summary (&demo);
  return story_end (&demo.story);
}
