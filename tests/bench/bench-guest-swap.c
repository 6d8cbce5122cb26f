/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What it costs a program in a guest that part of its memory is somewhere else: a store of values of 1 KiB (zipf.h) of which
 * 75, 50 and 25 % may be in the guest's memory (a cgroup's memory.max), the rest on
 *
 *     far disk       ours: sealed, storage a file, a stage of 8 MiB, the least there is, so that storage has the pages
 *     virtio-blk     QEMU's own disk on a file beside it: cache=none, io_uring, an I/O thread; not sealed
 *     zram within    zram (LZ4) whose pool is counted: what it holds in the guest's memory, the store gives up
 *     zram beside    the same with its pool for free, so with more memory than all others
 *
 * against all of it in memory. One VM has all of them, and uses one after the other: a round is a measurement of each, so that
 * a noisy moment hits all alike. All swap without readahead (vm.page-cluster=0: keys are hashed) and with discards.
 *
 * An emulated guest's processor is ten times slower or more, and its disks are not: ratios say less of a real machine there
 * than which way is the better one, and by how much. bench-native-swap is about real processors.
 *
 * "pinned" is all of QEMU and domybs-far on one processor. Host CPU is the time of all of their threads.
 */
#include "far.h"
#include "processes.h"
#include "vm.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <glib/gstdio.h>

#define CGROUP "/sys/fs/cgroup/store"
#define FAR_DISK "/dev/vda"
#define PEER_DISK "/dev/vdb"
#define ZRAM "/dev/zram0"
#define DISK_BYTES(bench) ((guint64)(bench)->mib * 2 * VM_MIB)
#define LOCAL_TIMES 10 /* so many times the operations when all is in memory, for a time that can be measured */
#define GOAL_AT 1      /* in locals: 50 % */

typedef enum { LOCAL, FAR_DISK_SWAP, VIRTIO, ZRAM_WITHIN, ZRAM_BESIDE, PEERS } Peer;

static const char *const peer_names[PEERS] = { "all local", "far disk", "virtio-blk", "zram within", "zram beside" };
static const int locals[] = { 75, 50, 25 };
#define N_LOCALS ((int)G_N_ELEMENTS (locals))

typedef enum { US, P50, P99, P999, CPU, INS, OUTS, POOL, KINDS } Kind;

static const char *const kind_names[KINDS]
    = { "us-per-operation",        "p50-us",       "p99-us", "p999-us", "host-cpu-us-per-operation", "page-ins-per-operation",
        "page-outs-per-operation", "zram-pool-mib" };

typedef struct {
  Vm *vm;
  far_t *far;
  int rounds, mib, operations, settle;
  gboolean served;
  char *series, *json_path, *folder, *stage;
  GArray *figures[2][PEERS][N_LOCALS][KINDS]; /* [pinned] */
} Bench;

/* ---- the VM ---- */

static char *
make_peer_storage (Bench *bench) {
  char *path = g_strdup_printf ("%s/%d-guest-swap-peer", bench->folder, (int)getpid ());
  const int fd = open (path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

  if (fd < 0 || (errno = posix_fallocate (fd, 0, (off_t)DISK_BYTES (bench))))
    g_error ("%s: %s", path, g_strerror (errno));
  close (fd);
  return path;
}

static void
start (Bench *bench, const char *program) {
  const char *const far_arguments[] = { "--stage", bench->stage, NULL };
  g_autofree char *file = g_strdup_printf ("%s:/bin/zipftool", program);
  const char *const initramfs_args[] = { "--module", "lz4", "--module", "zram", "--file", file, NULL };
  g_autofree char *peer_path = make_peer_storage (bench), *chardev = NULL, *blockdev = NULL;

  g_setenv ("DOMYBS_FAR_FOLDER", bench->folder, TRUE);
  bench->far
      = far_start (&(struct far_options){ .bytes = DISK_BYTES (bench), .disk_extra = ",queues=1", .arguments = far_arguments });
  for (int tries = 0; !g_file_test (bench->far->socket_paths[0], G_FILE_TEST_EXISTS) && tries < 400; tries++)
    g_usleep (50000);
  chardev = g_strdup_printf ("socket,id=far,path=%s,reconnect-ms=50", bench->far->socket_paths[0]);
  blockdev = g_strdup_printf ("driver=file,node-name=peer,filename=%s,cache.direct=on,aio=io_uring,discard=unmap", peer_path);
  const char *const qemu_args[] = { "-chardev",  chardev,
                                    "-device",   "vhost-user-blk-pci,chardev=far,num-queues=1",
                                    "-object",   "iothread,id=io",
                                    "-blockdev", blockdev,
                                    "-device",   "virtio-blk-pci,drive=peer,iothread=io,num-queues=1,discard=on,serial=peer",
                                    NULL };

  bench->vm = vm_start (&(VmConfig){ .name = "swap",
                                     .series = bench->series,
                                     .ram_mib = 256 + 2 * (guint)bench->mib,
                                     .vcpus = 1,
                                     .qemu_args = qemu_args,
                                     .initramfs_args = initramfs_args });
  g_unlink (peer_path); /* who needs them has them open: whatever happens, nothing is left */
  g_unlink (bench->far->storage_path);
  g_free (vm_run_ok (bench->vm,
                     "grep -q ^domybs- /sys/block/vda/serial && grep -q ^peer /sys/block/vdb/serial && [ -b " ZRAM " ]"));
  g_free (vm_run_ok (bench->vm,
                     "mkdir -p /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && mkdir " CGROUP
                     " && echo +memory >/sys/fs/cgroup/cgroup.subtree_control && echo 0 >/proc/sys/vm/page-cluster"));
}

static void
pin (Bench *bench, gboolean pinned) {
  processes_pin (vm_qemu_pid (bench->vm), pinned);
  processes_pin (bench->far->backend->pid, pinned);
  processes_pin (backend_wait_worker (bench->far->backend, 0, fe_patience_ms ()), pinned);
}

static double
cpu_us (Bench *bench) {
  return processes_cpu_us (vm_qemu_pid (bench->vm)) + processes_cpu_us (bench->far->backend->pid)
         + processes_cpu_us (backend_wait_worker (bench->far->backend, 0, fe_patience_ms ()));
}

/* ---- a measurement ---- */

static const char *
device_of (Peer peer) {
  return peer == FAR_DISK_SWAP ? FAR_DISK : peer == VIRTIO ? PEER_DISK : peer == LOCAL ? NULL : ZRAM;
}

static void
swap_on (Bench *bench, Peer peer) {
  const char *device = device_of (peer);

  if (peer == ZRAM_WITHIN || peer == ZRAM_BESIDE)
    g_free (vm_run_ok (
        bench->vm, "cd /sys/block/zram0 && echo 1 >reset && echo lz4 >comp_algorithm && echo %" G_GUINT64_FORMAT " >disksize",
        DISK_BYTES (bench)));
  if (device)
    g_free (vm_run_ok (bench->vm, "d=%s; echo 0 >/sys/block/${d##*/}/queue/rotational; mkswap $d >/dev/null && swapon -d $d",
                       device));
}

static void
swap_off (Bench *bench, Peer peer) {
  const char *device = device_of (peer);

  if (device)
    g_free (vm_run_ok (bench->vm, "swapoff %s", device));
  if (device && g_str_equal (device, ZRAM))
    g_free (vm_run_ok (bench->vm, "echo 1 >/sys/block/zram0/reset"));
}

/* What zram has of the guest's memory, bytes. */
static guint64
pool_bytes (Bench *bench) {
  g_autofree char *text = vm_read (bench->vm, "/sys/block/zram0/mm_stat");
  guint64 original, packed, used;

  if (sscanf (text, "%" G_GUINT64_FORMAT " %" G_GUINT64_FORMAT " %" G_GUINT64_FORMAT, &original, &packed, &used) != 3)
    vm_fail (bench->vm, "zram's mm_stat is '%s'", text);
  return used;
}

static void
limit (Bench *bench, guint64 bytes) {
  g_free (vm_run_ok (bench->vm, "echo %" G_GUINT64_FORMAT " >" CGROUP "/memory.max", bytes));
}

/* Has the store do so many operations and, if it counts, keeps the figures. */
static void
run_store (Bench *bench, int n, GArray **figures) {
  g_autofree char *command = g_strdup_printf ("run %d", n), *line = NULL;
  const double cpu = cpu_us (bench);
  double values[KINDS], operations, took;

  vm_job_tell (bench->vm, "store", command);
  g_usleep ((gulong)n); /* less than a µs for each, it won't be: asking takes the guest's time */
  line = vm_job_expect (bench->vm, "store", "ok ran", 600);
  if (!figures)
    return;
  values[CPU] = cpu_us (bench) - cpu;
  if (sscanf (line, "ok ran %lf %lf %lf %lf %lf %lf %lf", &operations, &took, &values[P50], &values[P99], &values[P999],
              &values[INS], &values[OUTS])
      != 7)
    vm_fail (bench->vm, "zipftool says '%s'", line);
  values[US] = took * 1e6 / operations;
  for (Kind kind = P50; kind <= P999; kind++)
    values[kind] /= 1000;
  values[CPU] /= operations;
  values[INS] /= operations;
  values[OUTS] /= operations;
  values[POOL] = (double)pool_bytes (bench) / (double)VM_MIB;
  for (Kind kind = 0; kind < KINDS; kind++)
    g_array_append_val (figures[kind], values[kind]);
}

/* Leaves the store that share of its values, settled. What zram holds of it counts, too, if that is asked for; the two depend
 * on each other, so it takes some steps. False: there is no room for both. */
static gboolean
squeeze (Bench *bench, Peer peer, guint64 whole, int percent) {
  const guint64 bytes = (guint64)bench->mib * VM_MIB, allowed = whole - bytes * (guint64)(100 - percent) / 100;
  guint64 pool = 0, before;

  if (peer != ZRAM_WITHIN) {
    limit (bench, allowed);
    run_store (bench, bench->settle, NULL);
    return TRUE;
  }
  for (int step = 0; step < 12; step++) {
    before = pool;
    pool = pool_bytes (bench);
    if (pool + (whole - bytes) + bytes / 16 > allowed)
      return FALSE;
    limit (bench, allowed - pool);
    run_store (bench, bench->settle / 2, NULL);
    if (step > 0 && (pool > before ? pool - before : before - pool) < bytes / 200)
      break;
  }
  return TRUE;
}

static void
measure (Bench *bench, Peer peer, int pinned) {
  guint64 whole;

  swap_on (bench, peer);
  vm_job_start (bench->vm, "store", "echo 0 >" CGROUP "/cgroup.procs && exec zipftool %dM%s", bench->mib,
                bench->served ? " --served" : "");
  g_free (vm_job_expect (bench->vm, "store", "ok filled", 300));
  {
    g_autofree char *current = vm_read (bench->vm, CGROUP "/memory.current");

    whole = g_ascii_strtoull (current, NULL, 10);
  }
  for (int i = 0; i < (peer == LOCAL ? 1 : N_LOCALS); i++) {
    GArray **figures = bench->figures[pinned][peer][i];

    if (peer == LOCAL)
      run_store (bench, bench->settle * LOCAL_TIMES, NULL);
    else if (!squeeze (bench, peer, whole, locals[i])) {
      printf ("  %-8s %-12s %3d %%: its pool does not fit in beside the values\n", pinned ? "pinned" : "unpinned",
              peer_names[peer], locals[i]);
      break;
    }
    run_store (bench, bench->operations * (peer == LOCAL ? LOCAL_TIMES : 1), figures);
    printf ("  %-8s %-12s %3d %%: %8.2f µs, %.4f page-ins\n", pinned ? "pinned" : "unpinned", peer_names[peer],
            peer == LOCAL ? 100 : locals[i], g_array_index (figures[US], double, figures[US]->len - 1),
            g_array_index (figures[INS], double, figures[INS]->len - 1));
    fflush (stdout);
  }
  vm_job_kill (bench->vm, "store");
  g_free (vm_run_ok (bench->vm,
                     "while [ -n \"$(cat " CGROUP "/cgroup.procs)\" ]; do sleep 0.1; done; echo max >" CGROUP "/memory.max"));
  swap_off (bench, peer);
}

/* ---- results ---- */

static gint
compare (gconstpointer a, gconstpointer b) {
  const double x = *(const double *)a, y = *(const double *)b;

  return x < y ? -1 : x > y;
}

static double
of (GArray *figures, double quantile) {
  g_array_sort (figures, compare);
  return g_array_index (figures, double, (guint)(quantile * (figures->len - 1) + 0.5));
}

/* Against all of it in memory; kind: US, or CPU, which a machine with much else to do spoils less. NAN: it was not measured. */
static double
slowdown (Bench *bench, int pinned, Peer peer, int local, Kind kind) {
  GArray *figures = bench->figures[pinned][peer][local][kind], *base = bench->figures[pinned][LOCAL][0][kind];

  return figures->len && base->len ? of (figures, 0.5) / of (base, 0.5) : (double)NAN;
}

static void
print_row (Bench *bench, int pinned, Peer peer, int local) {
  GArray **figures = bench->figures[pinned][peer][local];
  const double times = slowdown (bench, pinned, peer, local, US);
  g_autofree char *bar = NULL;

  if (!figures[US]->len) {
    printf ("  %-12s %4d %%   its pool does not fit in beside the values\n", peer_names[peer], locals[local]);
    return;
  }
  bar = g_strnfill ((gsize)CLAMP (times * 4 + 0.5, 1, 40), times * 4 > 40 ? '>' : '#');
  printf ("  %-12s %4d %% %8.2f (%.2f … %.2f) %8.1f %8.1f %8.2f %8.4f %8.4f %6.2f× %s\n", peer_names[peer],
          peer == LOCAL ? 100 : locals[local], of (figures[US], 0.5), of (figures[US], 0), of (figures[US], 1),
          of (figures[P50], 0.5), of (figures[P99], 0.5), of (figures[CPU], 0.5), of (figures[INS], 0.5),
          of (figures[OUTS], 0.5), times, bar);
}

static void
print_table (Bench *bench) {
  for (int pinned = 0; pinned < 2; pinned++) {
    if (!bench->figures[pinned][LOCAL][0][US]->len)
      continue;
    printf ("\n%s: %d MiB of values, %s; medians of %d rounds; per operation\n", pinned ? "All on one processor" : "Not pinned",
            bench->mib, bench->served ? "asked for over a socket" : "asked for by a function call", bench->rounds);
    printf ("  %-12s %6s %8s %16s %8s %8s %8s %8s %8s %7s\n", "", "local", "µs", "(least … most)", "p50 µs", "p99 µs", "CPU µs",
            "page-ins", "-outs", "slower");
    print_row (bench, pinned, LOCAL, 0);
    for (int local = 0; local < N_LOCALS; local++)
      for (Peer peer = FAR_DISK_SWAP; peer < PEERS; peer++)
        print_row (bench, pinned, peer, local);
  }
  puts ("\nAt 50 %, the peers against ours (more than 1: ours takes less)");
  for (int pinned = 0; pinned < 2; pinned++)
    for (Peer peer = VIRTIO; peer < PEERS; peer++) {
      const double time = slowdown (bench, pinned, peer, GOAL_AT, US) / slowdown (bench, pinned, FAR_DISK_SWAP, GOAL_AT, US),
                   cpu = slowdown (bench, pinned, peer, GOAL_AT, CPU) / slowdown (bench, pinned, FAR_DISK_SWAP, GOAL_AT, CPU);

      if (!isnan (time))
        printf ("  %-10s %-12s %.2f of the time, %.2f of the host's processor time\n", pinned ? "pinned" : "not pinned",
                peer_names[peer], time, cpu);
    }
}

static void
add_row (JsonBuilder *builder, Bench *bench, int pinned, Peer peer, int local) {
  GArray **figures = bench->figures[pinned][peer][local];

  json_builder_begin_object (builder);
  json_builder_set_member_name (builder, "memory");
  json_builder_add_string_value (builder, peer_names[peer]);
  json_builder_set_member_name (builder, "pinned");
  json_builder_add_boolean_value (builder, pinned);
  json_builder_set_member_name (builder, "local-percent");
  json_builder_add_int_value (builder, peer == LOCAL ? 100 : locals[local]);
  json_builder_set_member_name (builder, "slowdown");
  if (figures[US]->len)
    json_builder_add_double_value (builder, slowdown (bench, pinned, peer, local, US));
  else
    json_builder_add_null_value (builder); /* it does not fit */
  for (Kind kind = 0; figures[US]->len && kind < KINDS; kind++) {
    json_builder_set_member_name (builder, kind_names[kind]);
    json_builder_begin_object (builder);
    json_builder_set_member_name (builder, "median");
    json_builder_add_double_value (builder, of (figures[kind], 0.5));
    json_builder_set_member_name (builder, "min");
    json_builder_add_double_value (builder, of (figures[kind], 0));
    json_builder_set_member_name (builder, "max");
    json_builder_add_double_value (builder, of (figures[kind], 1));
    json_builder_end_object (builder);
  }
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
  json_builder_add_string_value (builder, "guest-swap");
  json_builder_set_member_name (builder, "rounds");
  json_builder_add_int_value (builder, bench->rounds);
  json_builder_set_member_name (builder, "mib");
  json_builder_add_int_value (builder, bench->mib);
  json_builder_set_member_name (builder, "operations");
  json_builder_add_int_value (builder, bench->operations);
  json_builder_set_member_name (builder, "served");
  json_builder_add_boolean_value (builder, bench->served);
  json_builder_set_member_name (builder, "accelerator");
  json_builder_add_string_value (builder, vm_is_fast () ? "kvm" : "tcg");
  json_builder_set_member_name (builder, "series");
  json_builder_add_string_value (builder, bench->series);
  json_builder_set_member_name (builder, "storage-folder");
  json_builder_add_string_value (builder, bench->folder);
  json_builder_set_member_name (builder, "stage");
  json_builder_add_string_value (builder, bench->stage);
  json_builder_set_member_name (builder, "results");
  json_builder_begin_array (builder);
  for (int pinned = 0; pinned < 2; pinned++)
    for (Peer peer = 0; bench->figures[pinned][LOCAL][0][US]->len && peer < PEERS; peer++)
      for (int local = 0; local < (peer == LOCAL ? 1 : N_LOCALS); local++)
        add_row (builder, bench, pinned, peer, local);
  json_builder_end_array (builder);
  json_builder_end_object (builder);
  root = json_builder_get_root (builder);
  json_generator_set_root (generator, root);
  json_generator_set_pretty (generator, TRUE);
  if (!json_generator_to_file (generator, bench->json_path, &error))
    g_error ("%s", error->message);
  printf ("\nThe same as JSON: %s\n", bench->json_path);
}

static void
print_nothing (const char *text) {
}

int
main (int argc, char **argv) {
  Bench bench = { .rounds = 3, .mib = 128, .operations = 60000, .settle = 40000 };
  gboolean no_pinned = FALSE;
  const GOptionEntry entries[] = {
    { "rounds", 0, 0, G_OPTION_ARG_INT, &bench.rounds, "rounds of each measurement (default 3)", "N" },
    { "operations", 0, 0, G_OPTION_ARG_INT, &bench.operations, "of each measurement (default 60000)", "N" },
    { "settle", 0, 0, G_OPTION_ARG_INT, &bench.settle, "operations before each (default 40000)", "N" },
    { "mib", 0, 0, G_OPTION_ARG_INT, &bench.mib, "values, MiB, a power of two (default 128)", "MIB" },
    { "served", 0, 0, G_OPTION_ARG_NONE, &bench.served, "another process has the values, one asks it over a socket", NULL },
    { "folder", 0, 0, G_OPTION_ARG_FILENAME, &bench.folder, "where storage files are: in /dev or /tmp (default /dev/shm)",
      "FOLDER" },
    { "stage", 0, 0, G_OPTION_ARG_STRING, &bench.stage, "of domybs-far (default 8M)", "SIZE" },
    { "series", 0, 0, G_OPTION_ARG_STRING, &bench.series, "guest kernel: 6.1, 6.12 (default) or new", "SERIES" },
    { "unpinned-only", 0, 0, G_OPTION_ARG_NONE, &no_pinned, "do not measure on one processor as well", NULL },
    { "json", 0, 0, G_OPTION_ARG_FILENAME, &bench.json_path, "where to write the results as JSON", "FILE" },
    { NULL },
  };
  g_autoptr (GOptionContext) context
      = g_option_context_new ("– a store of values in a guest, partly on a far disk, a disk, or zram");
  g_autoptr (GError) error = NULL;
  char *no_args[] = { argv[0], NULL }, **test_argv = no_args;
  int test_argc = 1;

  g_option_context_add_main_entries (context, entries, NULL);
  if (!g_option_context_parse (context, &argc, &argv, &error) || bench.rounds < 1 || bench.mib < 16 || bench.mib > 4096
      || (bench.mib & (bench.mib - 1)) || bench.operations < 1 || bench.settle < 2 || bench.operations > 10000000
      || bench.settle > 10000000) {
    fprintf (stderr, "bench-guest-swap: %s (see --help)\n", error ? error->message : "wrong arguments");
    return 2;
  }
  if (!bench.series)
    bench.series = g_strdup ("6.12");
  if (!bench.folder)
    bench.folder = g_strdup ("/dev/shm");
  if (!bench.stage)
    bench.stage = g_strdup ("8M");
  g_set_print_handler (print_nothing); /* what a test runner wants to read */
  vm_test_init (&test_argc, &test_argv);
  for (int pinned = 0; pinned < 2; pinned++)
    for (int peer = 0; peer < PEERS; peer++)
      for (int local = 0; local < N_LOCALS; local++)
        for (int kind = 0; kind < KINDS; kind++)
          bench.figures[pinned][peer][local][kind] = g_array_new (FALSE, FALSE, sizeof (double));

  start (&bench, ZIPFTOOL);
  printf ("One VM, %s, Linux %s, %d MiB of RAM, storage in %s\n", vm_is_fast () ? "KVM" : "emulated (TCG)", bench.series,
          256 + 2 * bench.mib, bench.folder);
  for (int pinned = 0; pinned < (no_pinned ? 1 : 2); pinned++) {
    pin (&bench, pinned);
    for (int round = 0; round < bench.rounds; round++)
      for (Peer peer = 0; peer < PEERS; peer++)
        measure (&bench, peer, pinned);
  }
  vm_stop (bench.vm);
  far_end (bench.far);
  print_table (&bench);
  if (bench.json_path)
    write_json (&bench);
  return vm_test_run ();
}
