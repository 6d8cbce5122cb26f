/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A VM with everything attached that has nothing to do: the memory device with its driver and granted blocks, far disks as swap
 * that hold pages of it. No process of ours may run at all, but the memory device's worker for the figures that the driver
 * sends every ten seconds; and they may take 8 MiB of memory of their own beyond tables and stages. (The audit of the memory device's
 * window, which looks every second whether the guest has touched what it was not granted, is off here: it is a timer by
 * nature.)
 *
 * DOMYBS_IDLE_SECONDS says how long it is watched (10; an hour is 3600).
 */
#include "far.h"
#include "lab-run.h"
#include "scene.h"

#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#define RAM_MIB 256
#define SWAP_MIB 512
#define BLOCKS 64 /* granted */
#define OWN_MAX ((guint64)8 << 20)
#define PROCESSES_MAX 4
#define STATS_SECONDS 10 /* of the driver at rest */
#define STATS_SWITCHES 4
#define TRIES 12 /* stretches */

typedef struct {
  const char *what;
  pid_t pid;
  gboolean asked; /* by the guest, now and then */
} Process;

/* How often all threads of a process have been given a processor, by their own will and not. */
static guint64
switches (pid_t pid) {
  g_autofree char *folder = g_strdup_printf ("/proc/%d/task", (int)pid);
  g_autoptr (GDir) threads = g_dir_open (folder, 0, NULL);
  const char *thread;
  guint64 sum = 0;

  g_assert_nonnull (threads);
  while ((thread = g_dir_read_name (threads))) {
    g_autofree char *path = g_build_filename (folder, thread, "status", NULL), *text = NULL;
    const char *at;

    if (!g_file_get_contents (path, &text, NULL, NULL))
      continue;
    for (at = text; (at = strstr (at, "_ctxt_switches:")); at++)
      sum += g_ascii_strtoull (strchr (at, ':') + 1, NULL, 10);
  }
  return sum;
}

/* A kind of memory, in bytes: RssAnon, RssFile. What is left out, RssShmem, is tables, stages, and the guest's. */
static guint64
rss (pid_t pid, const char *kind) {
  g_autofree char *path = g_strdup_printf ("/proc/%d/status", (int)pid), *text = NULL;
  const char *at;

  g_assert_true (g_file_get_contents (path, &text, NULL, NULL));
  at = strstr (text, kind);
  g_assert_nonnull (at);
  return g_ascii_strtoull (at + strlen (kind) + 1, NULL, 10) * 1024;
}

/* Of a keeper and its worker, who are one program and have its libraries in common. How much of those is mapped depends on what the
 * host has in its page cache anyway (11 to 14 MiB were seen for one program), so it is only told. */
static void
check_rss (const Process *keeper, const Process *worker) {
  const guint64 anonymous = rss (keeper->pid, "RssAnon") + rss (worker->pid, "RssAnon"),
                file = MAX (rss (keeper->pid, "RssFile"), rss (worker->pid, "RssFile"));

  g_test_message ("%s and its worker: %" G_GUINT64_FORMAT " KiB of their own, %" G_GUINT64_FORMAT
                  " KiB of program and libraries",
                  keeper->what, anonymous >> 10, file >> 10);
  g_assert_cmpuint (anonymous, <=, OWN_MAX);
}

static guint64
seconds_wanted (void) {
  const char *text = g_getenv ("DOMYBS_IDLE_SECONDS");

  return text && atoi (text) > 0 ? (guint64)atoi (text) : 10;
}

/* Whether none of them ran for so long, unasked. */
static gboolean
rests (const Process *processes, unsigned n, guint64 seconds) {
  guint64 before[PROCESSES_MAX];
  gboolean quiet = TRUE;

  for (unsigned i = 0; i < n; i++)
    before[i] = switches (processes[i].pid);
  g_usleep (seconds * G_USEC_PER_SEC);
  for (unsigned i = 0; i < n; i++) {
    const guint64 times = switches (processes[i].pid) - before[i];

    const guint64 most = processes[i].asked ? 4 + seconds * STATS_SWITCHES / STATS_SECONDS : 0;

    if (times)
      g_test_message ("%s ran %" G_GUINT64_FORMAT " times in %" G_GUINT64_FORMAT " s", processes[i].what, times, seconds);
    quiet = quiet && times <= most;
  }
  return quiet;
}

static void
test_idle (void) {
  static const char *const tiers[] = { "shared", "remote" };
  static const char *const swap[] = { "--file", DOMYBS_SOURCE "/guest-driver/udev/domybs-swap:/bin/domybs-swap", NULL };
  g_autoptr (GPtrArray) arguments = g_ptr_array_new_with_free_func (g_free);
  g_autofree char *folder = lab_folder ("idle"), *link = g_build_filename (folder, "control", NULL),
                  *option = g_strdup_printf ("--memory-device=%s", link), *control = NULL;
  struct far *far = far_start (&(struct far_options){
      .bytes = (uint64_t)SWAP_MIB << 20, .n_disks = 2, .tiers = tiers, .arguments = (const char *const[]){ option, NULL } });
  Process processes[PROCESSES_MAX];
  unsigned tries = 1;
  Vm *vm;

  for (unsigned i = 0; i < 2; i++) {
    for (int wait = 0; !g_file_test (far->socket_paths[i], G_FILE_TEST_EXISTS); wait++) {
      g_assert_cmpint (wait, <, 600);
      g_usleep (50000);
    }
    g_ptr_array_add (arguments, g_strdup ("-chardev"));
    g_ptr_array_add (arguments, g_strdup_printf ("socket,id=far%u,path=%s,reconnect-ms=1000", i, far->socket_paths[i]));
    g_ptr_array_add (arguments, g_strdup ("-device"));
    g_ptr_array_add (arguments, g_strdup_printf ("vhost-user-blk-pci,chardev=far%u,num-queues=4", i));
  }
  g_ptr_array_add (arguments, NULL);
  vm = vm_start (
      &(VmConfig){ .name = "idle",
                   .ram_mib = RAM_MIB,
                   .qemu_args = (const char *const *)arguments->pdata,
                   .backend_args = (const char *const[]){ "--window=2G", "--local-max=512M", "--audit-interval=0", NULL },
                   .driver_params = "mode=manual",
                   .initramfs_args = swap });
  /* Far disks have to be there before the VM, whose memory device's socket they are told of. */
  control = g_build_filename (vm_folder (vm), "control.sock", NULL);
  g_assert_cmpint (symlink (control, link), ==, 0);
  g_free (vm_run_ok (vm, "sh /bin/domybs-swap start"));
  scene_have (vm, BLOCKS, 60);
  vm_job_start (vm, "fill", "memtool fill %uM --hold", RAM_MIB + 2 * BLOCKS);
  g_free (vm_job_expect (vm, "fill", "ok verified", vm_patience (90)));
  g_assert_cmpint (far_status (far, 0, "blocks-in-use"), >, 4);

  processes[0] = (Process){ "domybs-backend", vm_backend_pid (vm), FALSE };
  processes[1] = (Process){ "domybs-backend's worker", vm_worker_pid (vm), TRUE };
  processes[2] = (Process){ "domybs-far", far->backend->pid, FALSE };
  processes[3] = (Process){ "domybs-far's worker", backend_wait_worker (far->backend, 0, fe_patience_ms ()), FALSE };
  /* So long at a stretch, sooner or later: a guest has things of its own to do, too, for which it may want a page. */
  while (!rests (processes, 4, seconds_wanted ())) {
    if (tries++ == TRIES)
      vm_fail (vm, "it does not come to rest");
  }
  check_rss (&processes[0], &processes[1]);
  check_rss (&processes[2], &processes[3]);
  g_free (vm_job_ask (vm, "fill", "verify", vm_patience (60)));
  vm_job_kill (vm, "fill");
  vm_stop (vm);
  far_end (far);
  vm_delete_folder (folder);
}

int
main (int argc, char **argv) {
  vm_test_init (&argc, &argv);
  g_test_add_func ("/idle/6.12", test_idle);
  return vm_test_run ();
}
