/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How long a guest takes to get 1 GiB that it can use, and its host to get it back: ours, virtio-mem and virtio-balloon, in one
 * VM.
 *
 * All three devices are in the same guest; between measurements each is at its minimum (the balloon has taken 1 GiB of the boot
 * memory). A round is a measurement of each, one after the other, so that a noisy moment of the machine hits all alike:
 *
 *   capacity   the host asks (control socket or QMP) → the guest's MemTotal is that much higher, as a program sees that polls
 * each 2 ms touch      that program writes to each page of it back       the program has ended; the host asks for the memory
 * back → the host's kernel has taken at least 95 % of what the measurement added out of the file behind it (st_blocks of the
 * memfd, looked at each millisecond)
 *
 *   moved      capacity and back: what the device itself has to answer for
 *   total      all three: from need to usable and touched memory and back
 *
 * Touching costs the same whoever brought the memory: the guest's kernel clears each page (an emulated processor takes its time
 * for that), and the host's finds and clears one behind it. So it bounds the ratio of the totals, and the table says by how
 * much.
 *
 * (All of it is 32 MiB short of 1 GiB: balloons are not exact.)
 *
 * A ballast program keeps the guest's boot memory nearly used up, so that the touched memory is the new one; the host's figures
 * prove that. virtio-mem gets what its documentation recommends for shrinking: 2 MiB blocks, memory brought online as movable.
 * "pinned" is all of QEMU and the back-end on one core. Ratios within one run are what counts.
 */
#include "vm.h"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define GROW_MIB 1024
#define SHARE 0.95
#define SLACK_MIB 32 /* of capacity: a balloon that is nearly done may wait long for its last pages */
#define BOOT_MIB 2048
#define SHMEM_ENABLED "/sys/kernel/mm/transparent_hugepage/shmem_enabled"
#define STEP_SECONDS 120
#define GOAL_MEM 2.0
#define GOAL_BALLOON 50.0

typedef enum { OURS, MEM, BALLOON, PEERS } Peer;
typedef enum { CAPACITY, TOUCH, BACK, MOVED, TOTAL, PHASES } Phase;

static const char *const peer_names[PEERS] = { "domybs", "virtio-mem", "virtio-balloon" };
static const char *const phase_names[PHASES] = { "capacity", "touch", "back", "moved", "total" };

typedef struct {
  Vm *vm;
  int rounds;
  char *series, *json_path, *driver_params, *grant;
  GArray *seconds[2][PEERS][PHASES]; /* [pinned] */
  GArray *host_mib[2][PEERS];        /* how much the host gave, as a check */
  GArray *floor_touch, *floor_back;  /* of the host alone */
  int fd[PEERS];                     /* the file behind each peer's memory */
} Bench;

static double
since (gint64 began) {
  return (double)(g_get_monotonic_time () - began) / G_USEC_PER_SEC;
}

/* ---- the host's side ---- */

/* The memfd of QEMU that has size bytes. */
static int
qemu_memfd (Vm *vm, guint64 size) {
  g_autofree char *folder = g_strdup_printf ("/proc/%d/fd", vm_qemu_pid (vm));
  DIR *dir = opendir (folder);
  const struct dirent *entry;
  int found = -1;

  while (dir && found < 0 && (entry = readdir (dir))) {
    g_autofree char *path = g_build_filename (folder, entry->d_name, NULL);
    g_autofree char *target = g_file_read_link (path, NULL);
    struct stat st;

    if (!target || !g_str_has_prefix (target, "/memfd:"))
      continue;
    found = open (path, O_RDONLY | O_CLOEXEC);
    if (found >= 0 && (fstat (found, &st) || (guint64)st.st_size != size)) {
      close (found);
      found = -1;
    }
  }
  if (dir)
    closedir (dir);
  if (found < 0)
    vm_fail (vm, "QEMU has no memfd of %" G_GUINT64_FORMAT " bytes", size);
  return found;
}

static int
our_memfd (Vm *vm) {
  g_autoptr (JsonNode) status = vm_control (vm, "{\"execute\": \"status\"}");
  const char *path = json_object_get_string_member (json_node_get_object (status), "memfd-path");
  const int fd = open (path, O_RDONLY | O_CLOEXEC);

  if (fd < 0)
    vm_fail (vm, "the window's file can't be opened at %s", path);
  return fd;
}

static guint64
host_bytes (Bench *bench, Peer peer) {
  struct stat st;

  if (fstat (bench->fd[peer], &st))
    vm_fail (bench->vm, "fstat");
  return (guint64)st.st_blocks * 512;
}

static void
ask (Bench *bench, Peer peer, gboolean grown) {
  g_autoptr (JsonNode) done = NULL;

  switch (peer) {
  case OURS:
    done = vm_control (bench->vm, "{\"execute\": \"set-target\", \"arguments\": {\"blocks\": %d}}", grown ? GROW_MIB / 2 : 0);
    break;
  case MEM:
    done = vm_qmp (bench->vm,
                   "{\"execute\": \"qom-set\", \"arguments\": {\"path\": \"mem0\", \"property\": \"requested-size\", "
                   "\"value\": %" G_GUINT64_FORMAT "}}",
                   grown ? GROW_MIB * VM_MIB : 0);
    break;
  case BALLOON:
    done = vm_qmp (bench->vm, "{\"execute\": \"balloon\", \"arguments\": {\"value\": %" G_GUINT64_FORMAT "}}",
                   (BOOT_MIB - (grown ? 0 : GROW_MIB)) * VM_MIB);
    break;
  default:
    break;
  }
}

/* ---- pinning ---- */

static void
pin_process (Vm *vm, GPid pid, const cpu_set_t *cpus) {
  g_autofree char *folder = g_strdup_printf ("/proc/%d/task", pid);
  g_autoptr (GError) error = NULL;
  g_autoptr (GDir) dir = g_dir_open (folder, 0, &error);
  const char *name;

  if (!dir)
    vm_fail (vm, "%s", error->message);
  while ((name = g_dir_read_name (dir)))
    sched_setaffinity (atoi (name), sizeof *cpus, cpus);
}

static void
pin (Bench *bench, gboolean pinned) {
  cpu_set_t cpus;

  CPU_ZERO (&cpus);
  for (long cpu = 0; cpu < sysconf (_SC_NPROCESSORS_ONLN); cpu++)
    if (!pinned || cpu == sysconf (_SC_NPROCESSORS_ONLN) - 1)
      CPU_SET ((int)cpu, &cpus);
  pin_process (bench->vm, vm_qemu_pid (bench->vm), &cpus);
  pin_process (bench->vm, vm_backend_pid (bench->vm), &cpus);
  pin_process (bench->vm, vm_worker_pid (bench->vm), &cpus);
}

/* ---- the floor ---- */

/* What the host's kernel takes for as much memory without any VM: the first write to each page of a memfd, and punching it out
 * in pieces of a section. */
static void
measure_floor (Bench *bench) {
  const size_t bytes = (GROW_MIB - SLACK_MIB) * VM_MIB, piece = 128 * VM_MIB;

  for (int round = 0; round < bench->rounds; round++) {
    const int fd = memfd_create ("floor", MFD_CLOEXEC);
    char *start;
    gint64 began;
    double seconds;

    if (fd < 0 || ftruncate (fd, (off_t)bytes))
      g_error ("no memfd of %zu bytes", bytes);
    start = mmap (NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    g_assert_true (start != MAP_FAILED);
    began = g_get_monotonic_time ();
    for (size_t at = 0; at < bytes; at += 4096)
      ((volatile char *)start)[at] = 1;
    seconds = since (began);
    g_array_append_val (bench->floor_touch, seconds);
    began = g_get_monotonic_time ();
    for (size_t at = 0; at < bytes; at += piece)
      fallocate (fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)at, (off_t)MIN (piece, bytes - at));
    seconds = since (began);
    g_array_append_val (bench->floor_back, seconds);
    munmap (start, bytes);
    close (fd);
  }
}

/* ---- a measurement ---- */

/* The number after a line's prefix, waited for; says when the line was seen. */
static double
expect_number (Bench *bench, GString *said, const char *prefix) {
  const gint64 began = g_get_monotonic_time ();

  for (;;) {
    g_autofree char *answer = NULL;
    const char *line = strstr (said->str, prefix);

    if (line && strchr (line, '\n'))
      return g_ascii_strtod (line + strlen (prefix), NULL);
    if (since (began) > STEP_SECONDS || strstr (said->str, "failed"))
      vm_fail (bench->vm, "the program in the guest has not said '%s': %s", prefix, said->str);
    if (vm_request (bench->vm, 30, &answer, "poll need") || g_str_has_prefix (answer, "exit "))
      vm_fail (bench->vm, "the program in the guest has ended: %s", answer);
    g_string_append (said, strchr (answer, '\n') + 1);
    g_usleep (5000);
  }
}

static void
measure (Bench *bench, Peer peer, int pinned, gboolean count) {
  g_autoptr (GString) said = g_string_new (NULL);
  const guint64 before = host_bytes (bench, peer), total_before = vm_guest_meminfo (bench->vm, "MemTotal");
  double seconds[PHASES];
  guint64 given;
  gint64 began;

  if (vm_request (bench->vm, 30, NULL, "start need needtool %d %d", GROW_MIB - SLACK_MIB, GROW_MIB - SLACK_MIB))
    vm_fail (bench->vm, "needtool does not start");
  expect_number (bench, said, "ok waiting");
  began = g_get_monotonic_time ();
  ask (bench, peer, TRUE);
  seconds[TOUCH] = expect_number (bench, said, "ok touched ");
  /* What passed until we saw it, without the touching: the guest's clock times that, ours the rest. At most one look (5 ms and
   * an answer of the agent) too much. */
  seconds[CAPACITY] = since (began) - seconds[TOUCH];
  given = host_bytes (bench, peer) - before;

  vm_job_tell (bench->vm, "need", "end");
  vm_job_wait (bench->vm, "need", 60, NULL);
  began = g_get_monotonic_time ();
  ask (bench, peer, FALSE);
  while ((double)host_bytes (bench, peer) > (double)before + (1 - SHARE) * (double)given) {
    if (since (began) > STEP_SECONDS)
      vm_fail (bench->vm, "%s: %" G_GUINT64_FORMAT " MiB have not come back", peer_names[peer],
               (host_bytes (bench, peer) - before) / VM_MIB);
    g_usleep (1000);
  }
  seconds[BACK] = since (began);
  seconds[MOVED] = seconds[CAPACITY] + seconds[BACK];
  seconds[TOTAL] = seconds[MOVED] + seconds[TOUCH];
  if (count) {
    const double mib = (double)given / VM_MIB;

    for (int phase = 0; phase < PHASES; phase++)
      g_array_append_val (bench->seconds[pinned][peer][phase], seconds[phase]);
    g_array_append_val (bench->host_mib[pinned][peer], mib);
  }
  printf ("  %-8s %-15s capacity %7.3f  touch %7.3f  back %7.3f  total %7.3f s   host gave %4u MiB%s\n",
          pinned ? "pinned" : "unpinned", peer_names[peer], seconds[CAPACITY], seconds[TOUCH], seconds[BACK], seconds[TOTAL],
          (unsigned)(given / VM_MIB), count ? "" : "   (warm-up)");
  fflush (stdout);
  /* Loose ends of the shrinking are not the next one's burden */
  for (int i = 0; i < 40 && vm_guest_meminfo (bench->vm, "MemTotal") > total_before + 2 * VM_MIB; i++)
    g_usleep (G_USEC_PER_SEC / 4);
  g_usleep (G_USEC_PER_SEC / 2);
}

/* ---- the VM ---- */

static void
start (Bench *bench) {
  static const char *const qemu_args[] = {
    "-object", "memory-backend-memfd,id=mem0-ram,size=1G,share=on",
    "-device", "virtio-mem-pci,id=mem0,memdev=mem0-ram,requested-size=0,block-size=2M",
    "-device", "virtio-balloon-pci,id=balloon0",
    NULL,
  };
  const char *const backend_args[] = { "--window=4G", "--target=0", "--grant", bench->grant, NULL };
  const VmConfig config = {
    .name = "bench",
    .series = bench->series,
    .ram_mib = BOOT_MIB,
    .max_ram_mib = BOOT_MIB + GROW_MIB,
    .kernel_args = "memhp_default_state=online_movable",
    .qemu_args = qemu_args,
    .backend_args = backend_args,
    .driver_params = bench->driver_params,
  };
  guint64 available;

  bench->vm = vm_start (&config);
  vm_expect_within (bench->vm, 30, vm_driver_number (bench->vm, "session") != 0);
  bench->fd[OURS] = our_memfd (bench->vm);
  bench->fd[MEM] = qemu_memfd (bench->vm, GROW_MIB * VM_MIB);
  bench->fd[BALLOON] = qemu_memfd (bench->vm, BOOT_MIB * VM_MIB);
  /* All of the boot memory is touched once, so that what the host has behind it is what the balloon leaves */
  vm_job_start (bench->vm, "touch", "memtool fill %dM --hold", BOOT_MIB - 450);
  g_free (vm_job_expect (bench->vm, "touch", "ok filled", STEP_SECONDS));
  vm_job_kill (bench->vm, "touch");
  ask (bench, BALLOON, FALSE);
  vm_expect_within (bench->vm, STEP_SECONDS, vm_guest_meminfo (bench->vm, "MemTotal") < (BOOT_MIB - GROW_MIB) * VM_MIB);
  available = vm_guest_meminfo (bench->vm, "MemAvailable");
  if (available > 500 * VM_MIB) {
    vm_job_start (bench->vm, "ballast", "memtool fill %uM --hold", (unsigned)(available / VM_MIB - 450));
    g_free (vm_job_expect (bench->vm, "ballast", "ok verified", STEP_SECONDS));
  }
  printf ("One VM, %s, Linux %s, grants by %s: %u MiB available with everything at its minimum\n",
          vm_is_fast () ? "KVM" : "emulated (TCG)", bench->series, bench->grant,
          (unsigned)(vm_guest_meminfo (bench->vm, "MemAvailable") / VM_MIB));
}

/* ---- results ---- */

static gint
compare (gconstpointer a, gconstpointer b) {
  const double x = *(const double *)a, y = *(const double *)b;

  return x < y ? -1 : x > y;
}

/* quantile: 0 least, 0.5 median, 1 most. */
static double
of (GArray *figures, double quantile) {
  g_array_sort (figures, compare);
  return g_array_index (figures, double, (guint)(quantile * (figures->len - 1) + 0.5));
}

static double
ratio (Bench *bench, int pinned, Peer peer, Phase phase) {
  return of (bench->seconds[pinned][peer][phase], 0.5) / of (bench->seconds[pinned][OURS][phase], 0.5);
}

static void
print_table (Bench *bench) {
  double floor;

  for (int pinned = 0; pinned < 2; pinned++) {
    if (bench->seconds[pinned][OURS][TOTAL]->len == 0)
      continue;
    printf ("\n%s, %d rounds: median (least … most) seconds for %d MiB\n", pinned ? "All on one core" : "Not pinned",
            bench->rounds, GROW_MIB - SLACK_MIB);
    printf ("  %-15s", "");
    for (int phase = 0; phase < PHASES; phase++)
      printf (" %22s", phase_names[phase]);
    puts ("");
    for (int peer = 0; peer < PEERS; peer++) {
      printf ("  %-15s", peer_names[peer]);
      for (int phase = 0; phase < PHASES; phase++) {
        GArray *figures = bench->seconds[pinned][peer][phase];
        g_autofree char *text = g_strdup_printf ("%.2f (%.2f … %.2f)", of (figures, 0.5), of (figures, 0), of (figures, 1));

        printf (" %*s", 22 + 2 /* the ellipsis has three bytes */, text);
      }
      puts ("");
    }
    for (int peer = MEM; peer < PEERS; peer++) {
      printf ("  %-15s", peer == MEM ? "× virtio-mem" : "× virtio-balloon");
      for (int phase = 0; phase < PHASES; phase++)
        printf (" %21.2f×", ratio (bench, pinned, peer, phase));
      puts ("");
    }
  }
  floor = of (bench->floor_touch, 0.5) + of (bench->floor_back, 0.5);
  puts ("\nNot pinned, medians");
  printf ("  the host's kernel alone, without a VM: %.2f s to touch a memfd of that size, %.2f s to punch it out. That floor "
          "makes\n"
          "  %.1f the most that any device could be faster than virtio-mem here, and %.1f than virtio-balloon\n",
          of (bench->floor_touch, 0.5), of (bench->floor_back, 0.5), of (bench->seconds[0][MEM][TOTAL], 0.5) / floor,
          of (bench->seconds[0][BALLOON][TOTAL], 0.5) / floor);
  printf ("  touching is %.0f %% of our total\n",
          100 * of (bench->seconds[0][OURS][TOUCH], 0.5) / of (bench->seconds[0][OURS][TOTAL], 0.5));
  printf ("  without touching: %.2f times as fast as virtio-mem, %.2f times as fast as virtio-balloon\n",
          ratio (bench, 0, MEM, MOVED), ratio (bench, 0, BALLOON, MOVED));
  puts ("Goals (total, not pinned)");
  printf ("  at least %g times as fast as virtio-mem: %.2f, %s\n", GOAL_MEM, ratio (bench, 0, MEM, TOTAL),
          ratio (bench, 0, MEM, TOTAL) >= GOAL_MEM ? "met" : "MISSED");
  printf ("  at least %g times as fast as virtio-balloon: %.2f, %s\n", GOAL_BALLOON, ratio (bench, 0, BALLOON, TOTAL),
          ratio (bench, 0, BALLOON, TOTAL) >= GOAL_BALLOON ? "met" : "MISSED");
}

static void
add_figures (JsonBuilder *builder, const char *name, GArray *figures) {
  json_builder_set_member_name (builder, name);
  json_builder_begin_object (builder);
  json_builder_set_member_name (builder, "median");
  json_builder_add_double_value (builder, of (figures, 0.5));
  json_builder_set_member_name (builder, "min");
  json_builder_add_double_value (builder, of (figures, 0));
  json_builder_set_member_name (builder, "max");
  json_builder_add_double_value (builder, of (figures, 1));
  json_builder_end_object (builder);
}

static void
add_peer (JsonBuilder *builder, Bench *bench, int pinned, Peer peer) {
  json_builder_begin_object (builder);
  json_builder_set_member_name (builder, "peer");
  json_builder_add_string_value (builder, peer_names[peer]);
  json_builder_set_member_name (builder, "pinned");
  json_builder_add_boolean_value (builder, pinned);
  for (int phase = 0; phase < PHASES; phase++) {
    g_autofree char *name = g_strconcat (phase_names[phase], "-s", NULL);

    add_figures (builder, name, bench->seconds[pinned][peer][phase]);
  }
  add_figures (builder, "host-mib", bench->host_mib[pinned][peer]);
  json_builder_set_member_name (builder, "total-times-ours");
  json_builder_add_double_value (builder, ratio (bench, pinned, peer, TOTAL));
  json_builder_set_member_name (builder, "moved-times-ours");
  json_builder_add_double_value (builder, ratio (bench, pinned, peer, MOVED));
  json_builder_end_object (builder);
}

static void
write_json (Bench *bench) {
  g_autoptr (JsonBuilder) builder = json_builder_new ();
  g_autoptr (JsonGenerator) generator = json_generator_new ();
  g_autoptr (JsonNode) root = NULL;
  g_autoptr (GError) error = NULL;

  json_builder_begin_object (builder);
  json_builder_set_member_name (builder, "benchmark");
  json_builder_add_string_value (builder, "vm");
  json_builder_set_member_name (builder, "rounds");
  json_builder_add_int_value (builder, bench->rounds);
  json_builder_set_member_name (builder, "mib");
  json_builder_add_int_value (builder, GROW_MIB - SLACK_MIB);
  json_builder_set_member_name (builder, "accelerator");
  json_builder_add_string_value (builder, vm_is_fast () ? "kvm" : "tcg");
  json_builder_set_member_name (builder, "series");
  json_builder_add_string_value (builder, bench->series);
  json_builder_set_member_name (builder, "grant");
  json_builder_add_string_value (builder, bench->grant);
  add_figures (builder, "host-alone-touch-s", bench->floor_touch);
  add_figures (builder, "host-alone-back-s", bench->floor_back);
  json_builder_set_member_name (builder, "results");
  json_builder_begin_array (builder);
  for (int pinned = 0; pinned < 2; pinned++)
    for (int peer = 0; peer < PEERS; peer++)
      if (bench->seconds[pinned][peer][TOTAL]->len)
        add_peer (builder, bench, pinned, (Peer)peer);
  json_builder_end_array (builder);
  json_builder_end_object (builder);
  root = json_builder_get_root (builder);
  json_generator_set_root (generator, root);
  json_generator_set_pretty (generator, TRUE);
  if (!json_generator_to_file (generator, bench->json_path, &error))
    g_error ("%s", error->message);
  printf ("\nThe same as JSON: %s\n", bench->json_path);
}

/* ---- */

/* Returns what was chosen before. */
static char *
shmem_huge_set (const char *choice) {
  g_autofree char *before = NULL;
  char *start, *end;
  FILE *file;

  if (!g_file_get_contents (SHMEM_ENABLED, &before, NULL, NULL) || !(start = strchr (before, '['))
      || !(end = strchr (start, ']')) || !(file = fopen (SHMEM_ENABLED, "w")))
    g_error ("shmem huge pages: %s is not there or not to be written", SHMEM_ENABLED);
  fputs (choice, file);
  if (fclose (file))
    g_error ("shmem huge pages: '%s' can't be set", choice);
  return g_strndup (start + 1, (gsize)(end - start - 1));
}

static void
print_nothing (const char *text) {
}

int
main (int argc, char **argv) {
  Bench bench = { .rounds = 5 };
  gboolean no_pinned = FALSE, set_huge = FALSE;
  g_autofree char *huge_before = NULL;
  const GOptionEntry entries[] = {
    { "rounds", 0, 0, G_OPTION_ARG_INT, &bench.rounds, "rounds of each measurement (default 5)", "N" },
    { "series", 0, 0, G_OPTION_ARG_STRING, &bench.series, "guest kernel: 6.1, 6.12 (default) or new", "SERIES" },
    { "driver-params", 0, 0, G_OPTION_ARG_STRING, &bench.driver_params, "module parameters of virtio_domybs", "TEXT" },
    { "grant", 0, 0, G_OPTION_ARG_STRING, &bench.grant, "how our back-end grants: reserve (default) or populate", "MODE" },
    { "set-huge", 0, 0, G_OPTION_ARG_NONE, &set_huge, "allow shmem huge pages (advise) on this host meanwhile, for all three",
      NULL },
    { "unpinned-only", 0, 0, G_OPTION_ARG_NONE, &no_pinned, "do not measure on one core as well", NULL },
    { "json", 0, 0, G_OPTION_ARG_FILENAME, &bench.json_path, "where to write the results as JSON", "FILE" },
    { NULL },
  };
  g_autoptr (GOptionContext) context
      = g_option_context_new ("– 1 GiB into a guest and back, beside virtio-mem and virtio-balloon");
  g_autoptr (GError) error = NULL;
  char *no_args[] = { argv[0], NULL }, **test_argv = no_args;
  int test_argc = 1;

  g_option_context_add_main_entries (context, entries, NULL);
  if (!g_option_context_parse (context, &argc, &argv, &error) || bench.rounds < 1 || bench.rounds > 1000) {
    fprintf (stderr, "bench-vm: %s (see --help)\n", error ? error->message : "--rounds: 1 to 1000");
    return 2;
  }
  if (!bench.series)
    bench.series = g_strdup ("6.12");
  if (!bench.driver_params)
    bench.driver_params = g_strdup ("mode=target low_percent=0 low_mib=64");
  if (!bench.grant)
    bench.grant = g_strdup ("reserve");
  if (set_huge)
    huge_before = shmem_huge_set ("advise");
  g_set_print_handler (print_nothing); /* what a test runner wants to read */
  vm_test_init (&test_argc, &test_argv);
  bench.floor_touch = g_array_new (FALSE, FALSE, sizeof (double));
  bench.floor_back = g_array_new (FALSE, FALSE, sizeof (double));
  for (int pinned = 0; pinned < 2; pinned++)
    for (int peer = 0; peer < PEERS; peer++) {
      bench.host_mib[pinned][peer] = g_array_new (FALSE, FALSE, sizeof (double));
      for (int phase = 0; phase < PHASES; phase++)
        bench.seconds[pinned][peer][phase] = g_array_new (FALSE, FALSE, sizeof (double));
    }

  start (&bench);
  for (int peer = 0; peer < PEERS; peer++)
    measure (&bench, (Peer)peer, 0, FALSE);
  for (int pinned = 0; pinned < (no_pinned ? 1 : 2); pinned++) {
    pin (&bench, pinned);
    for (int round = 0; round < bench.rounds; round++)
      for (int peer = 0; peer < PEERS; peer++)
        measure (&bench, (Peer)peer, pinned, TRUE);
  }
  vm_stop (bench.vm);
  measure_floor (&bench);
  if (huge_before)
    g_free (shmem_huge_set (huge_before));
  print_table (&bench);
  if (bench.json_path)
    write_json (&bench);
  return vm_test_run ();
}
