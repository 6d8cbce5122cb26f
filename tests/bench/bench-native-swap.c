/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How much slower a store of values (zipf.h) is on this machine's own processors when 75, 50 or 25 % of it are in memory, and
 * the rest is on a far disk; and with qemu-storage-daemon's disk in its place. Where no KVM works, no guest says that: an
 * emulated processor is so slow that disks look fast.
 *
 * What pages is not a guest's kernel but pager.h, in the store's own process: real faults, real requests over vhost-user-blk,
 * one read at a time that the program waits for, writes behind its back. So there is what an access to a far page costs on a
 * real processor, from the fault to the mapped page. Not in it: an interrupt's way into a guest and its exits; instead of them
 * a signal's way, and system calls to map and unmap, which are dearer than what a kernel does.
 *
 *   call    an operation is a function call: the most that a missing page can weigh
 *   tcp     one client asks for each over a connection of 127.0.0.1, as with Redis or memcached, and waits for the value
 *
 * Not pinned, the store looks for an answer for 200 µs before it sleeps, as KVM does for a guest's processor that waits.
 *
 * Slower is against the same store, of the same process, with all values in memory. All storage is a file in --folder. "pinned"
 * is all processes on one processor. CPU is what store, client and disk took together.
 */
#include "far.h"
#include "pager.h"
#include "processes.h"
#include "storage-daemon.h"
#include "zipf.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <glib/gstdio.h>
#include <json-glib/json-glib.h>

#define ROUNDS_MAX 32
#define VALUES_PER_PAGE (BLK_PAGE / ZIPF_VALUE_BYTES)
#define GOAL_SLOWDOWN 1.25
#define GOAL_AT 2 /* in locals */

enum server { SEALED, UNSEALED, DAEMON, SERVERS };
enum mode { CALL, TCP, MODES };
enum kind { US, P50, P99, CPU, DISK_CPU, INS, OUTS, KINDS };

static const char *const server_names[SERVERS] = { "domybs-far", "domybs-far, no seal", "qemu-storage-daemon" };
static const char *const mode_names[MODES] = { "call", "tcp" };
static const int locals[] = { 100, 75, 50, 25 };
#define N_LOCALS ((int)G_N_ELEMENTS (locals))

static int rounds = 3, mib = 128, operations = 100000, poll_us = 200;
static gboolean unpinned_only;
static char *folder, *stage, *json_path;
static double figures[2][SERVERS][N_LOCALS][MODES][KINDS][ROUNDS_MAX]; /* [pinned]; µs, pages: of an operation */
static bool measured[2][SERVERS];

/* One server and the store that is paged to it. */
struct scene {
  far_t *far;
  struct storage_daemon *daemon;
  struct blk *blk;
  struct pager *pager;
  struct zipf zipf;
  uint64_t state; /* of what is chosen next */
};

/* What the client of a store tells its parent. */
struct shared {
  struct zipf_times times;
  double cpu_us;
  uint64_t state;
};

/* ---- the store ---- */

static double
own_cpu_us (void) {
  struct rusage usage;

  getrusage (RUSAGE_SELF, &usage);
  return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e6
         + (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static double
disk_cpu_us (struct scene *scene) {
  if (scene->daemon)
    return processes_cpu_us (scene->daemon->pid);
  return processes_cpu_us (scene->far->backend->pid)
         + processes_cpu_us (backend_wait_worker (scene->far->backend, 0, fe_patience_ms ()));
}

static void
run_calls (struct scene *scene, int n, struct zipf_times *times) {
  uint64_t now = zipf_now_ns ();

  while (n-- > 0) {
    const uint64_t before = now;
    bool replace;
    const uint32_t i = zipf_choose (&scene->zipf, &scene->state, &replace);

    pager_note (scene->pager, i / VALUES_PER_PAGE, replace);
    if (replace)
      zipf_replace (scene->pager->area, i);
    else if (!zipf_check (scene->pager->area + (size_t)i * ZIPF_VALUE_BYTES, i))
      g_error ("value %u is not what was put there", i);
    now = zipf_now_ns ();
    zipf_times_add (times, now - before);
  }
}

struct request {
  uint32_t i, replace;
};

static void
connect_both (int *ret_store, int *ret_client) {
  struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl (INADDR_LOOPBACK) };
  socklen_t size = sizeof address;
  const int listener = socket (AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

  *ret_client = socket (AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (bind (listener, (struct sockaddr *)&address, sizeof address) || listen (listener, 1)
      || getsockname (listener, (struct sockaddr *)&address, &size) || connect (*ret_client, (struct sockaddr *)&address, size)
      || (*ret_store = accept4 (listener, NULL, NULL, SOCK_CLOEXEC)) < 0
      || setsockopt (*ret_client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one)
      || setsockopt (*ret_store, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one))
    g_error ("a connection to oneself: %s", g_strerror (errno));
  close (listener);
}

/* The client: a process of its own, which chooses, asks, waits, checks and takes the time. */
static void
run_client (struct scene *scene, int socket, int n, struct shared *shared) {
  uint8_t value[ZIPF_VALUE_BYTES] __attribute__ ((aligned (8)));
  uint64_t now = zipf_now_ns ();

  while (n-- > 0) {
    const uint64_t before = now;
    struct request request;
    bool replace;

    request.i = zipf_choose (&scene->zipf, &scene->state, &replace);
    request.replace = replace;
    if (send (socket, &request, sizeof request, 0) != sizeof request
        || recv (socket, value, sizeof value, MSG_WAITALL) != sizeof value)
      _exit (1);
    if (!zipf_check (value, request.i))
      _exit (3);
    now = zipf_now_ns ();
    zipf_times_add (&shared->times, now - before);
  }
  shared->cpu_us = own_cpu_us ();
  shared->state = scene->state;
  _exit (0);
}

static void
run_tcp (struct scene *scene, int n, struct shared *shared) {
  struct request request;
  int store, client, status;
  pid_t child;

  connect_both (&store, &client);
  child = fork ();
  if (child == 0) {
    prctl (PR_SET_PDEATHSIG, SIGKILL);
    close (store);
    run_client (scene, client, n, shared);
  }
  close (client);
  while (recv (store, &request, sizeof request, MSG_WAITALL) == sizeof request) {
    volatile const uint8_t *value = scene->pager->area + (size_t)request.i * ZIPF_VALUE_BYTES;

    pager_note (scene->pager, request.i / VALUES_PER_PAGE, request.replace);
    if (request.replace)
      zipf_replace (scene->pager->area, request.i);
    (void)*value; /* faults are ours to have, not send()'s: the kernel would find a hole */
    if (send (store, (const void *)value, ZIPF_VALUE_BYTES, MSG_NOSIGNAL) != ZIPF_VALUE_BYTES)
      break;
  }
  close (store);
  if (waitpid (child, &status, 0) != child || !WIFEXITED (status) || WEXITSTATUS (status))
    g_error ("the client has %s",
             WIFEXITED (status) && WEXITSTATUS (status) == 3 ? "got a value that was not put there" : "failed");
  scene->state = shared->state;
}

/* ---- a measurement ---- */

static void
run (struct scene *scene, enum mode mode, int n, double *ret) {
  struct shared *shared = mmap (NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  const uint64_t ins = scene->pager->ins, outs = scene->pager->outs;
  const double cpu = own_cpu_us (), disk_cpu = disk_cpu_us (scene);
  const uint64_t began = zipf_now_ns ();

  g_assert_true (shared != MAP_FAILED);
  if (mode == CALL)
    run_calls (scene, n, &shared->times);
  else
    run_tcp (scene, n, shared);
  ret[US] = (double)(zipf_now_ns () - began) / 1000 / n;
  ret[P50] = zipf_times_at (&shared->times, 0.5) / 1000;
  ret[P99] = zipf_times_at (&shared->times, 0.99) / 1000;
  ret[DISK_CPU] = (disk_cpu_us (scene) - disk_cpu) / n;
  ret[CPU] = (own_cpu_us () - cpu + shared->cpu_us) / n + ret[DISK_CPU];
  ret[INS] = (double)(scene->pager->ins - ins) / n;
  ret[OUTS] = (double)(scene->pager->outs - outs) / n;
  munmap (shared, sizeof *shared);
}

/* False: there is no such server here. */
static bool
begin (struct scene *scene, enum server server, bool pinned) {
  const uint32_t n_values = (uint32_t)mib << 10, n_pages = n_values / VALUES_PER_PAGE;
  const uint64_t bytes = (uint64_t)mib << 21; /* twice as much */
  const char *const arguments[] = { "--stage", stage, server == UNSEALED ? "--no-seal" : NULL, NULL };

  *scene = (struct scene){ .state = 88172645463325252ull };
  if (server == DAEMON) {
    scene->daemon = storage_daemon_start (folder, bytes);
    if (!scene->daemon)
      return false;
  } else {
    scene->far = far_start (&(struct far_options){ .bytes = bytes, .disk_extra = ",queues=1", .arguments = arguments });
  }
  scene->blk = blk_new ();
  scene->blk->n_queues = 1;
  if (!blk_connect (scene->blk, scene->daemon ? scene->daemon->socket_path : scene->far->socket_paths[0]))
    g_error ("%s: %s", server_names[server], scene->blk->fe->why);
  if (scene->far)
    g_unlink (scene->far->storage_path); /* it is open: whatever happens, nothing is left */
  processes_pin (getpid (), pinned);
  if (scene->daemon) {
    processes_pin (scene->daemon->pid, pinned);
  } else {
    processes_pin (scene->far->backend->pid, pinned);
    processes_pin (backend_wait_worker (scene->far->backend, 0, fe_patience_ms ()), pinned);
  }
  zipf_init (&scene->zipf, n_values, g_malloc (zipf_table_bytes (n_values)));
  scene->pager = pager_new (scene->blk, n_pages);
  scene->pager->poll_us = pinned ? 0 : (unsigned)poll_us; /* polling on the disk's own processor keeps it from answering */
  for (uint32_t page = 0; page < n_pages; page++)
    pager_note (scene->pager, page, true);
  zipf_fill (scene->pager->area, n_values);
  return true;
}

static void
end (struct scene *scene) {
  pager_free (scene->pager);
  blk_free (scene->blk);
  g_free (scene->zipf.threshold);
  storage_daemon_end (scene->daemon);
  far_end (scene->far);
}

static void
measure (enum server server, bool pinned, int round) {
  struct scene scene;
  double settle[KINDS];

  measured[pinned][server] = begin (&scene, server, pinned);
  if (!measured[pinned][server])
    return;
  for (int local = 0; local < N_LOCALS; local++) {
    if (locals[local] < 100)
      pager_limit (scene.pager, scene.pager->n_pages / 100 * (uint32_t)locals[local]);
    run (&scene, CALL, operations, settle);
    for (enum mode mode = 0; mode < MODES; mode++) {
      double of_one[KINDS];

      run (&scene, mode, operations, of_one);
      for (enum kind kind = 0; kind < KINDS; kind++)
        figures[pinned][server][local][mode][kind][round] = of_one[kind];
      printf ("  %-8s %-20s %3d %% %-4s: %8.2f µs, %8.2f µs of processor time, %.4f page-ins\n", pinned ? "pinned" : "unpinned",
              server_names[server], locals[local], mode_names[mode], of_one[US], of_one[CPU], of_one[INS]);
      fflush (stdout);
    }
  }
  end (&scene);
  processes_pin (getpid (), false);
}

/* ---- results ---- */

static int
compare (const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;

  return x < y ? -1 : x > y;
}

static double
of (int pinned, enum server server, int local, enum mode mode, enum kind kind, double quantile) {
  double *values = figures[pinned][server][local][mode][kind];

  qsort (values, (size_t)rounds, sizeof *values, compare);
  return values[(int)(quantile * (rounds - 1) + 0.5)];
}

/* kind: US, or CPU, which a machine with much else to do spoils less. */
static double
slowdown (int pinned, enum server server, int local, enum mode mode, enum kind kind) {
  return of (pinned, server, local, mode, kind, 0.5) / of (pinned, server, 0, mode, kind, 0.5);
}

static void
print_table (void) {
  for (int pinned = 1; pinned >= 0; pinned--)
    for (enum mode mode = 0; mode < MODES && measured[pinned][SEALED]; mode++) {
      printf ("\n%s, %s: %d MiB of values, medians of %d rounds; per operation\n",
              pinned ? "All on one processor" : "On any processor", mode == CALL ? "called" : "asked over TCP", mib, rounds);
      printf ("  %-22s %6s %8s %18s %8s %8s %8s %8s %8s %8s %7s\n", "", "local", "µs", "(least … most)", "p50 µs", "p99 µs",
              "CPU µs", "disk's", "page-ins", "-outs", "slower");
      for (int local = 0; local < N_LOCALS; local++)
        for (enum server server = 0; server < SERVERS; server++) {
          const double times = measured[pinned][server] ? slowdown (pinned, server, local, mode, US) : 0;
          g_autofree char *bar = g_strnfill ((gsize)CLAMP (times * 4 + 0.5, 1, 40), times * 4 > 40 ? '>' : '#');

          if (!measured[pinned][server])
            continue;
          printf ("  %-22s %4d %% %8.2f (%6.2f … %6.2f) %8.2f %8.2f %8.2f %8.2f %8.4f %8.4f %6.2f× %s\n", server_names[server],
                  locals[local], of (pinned, server, local, mode, US, 0.5), of (pinned, server, local, mode, US, 0),
                  of (pinned, server, local, mode, US, 1), of (pinned, server, local, mode, P50, 0.5),
                  of (pinned, server, local, mode, P99, 0.5), of (pinned, server, local, mode, CPU, 0.5),
                  of (pinned, server, local, mode, DISK_CPU, 0.5), of (pinned, server, local, mode, INS, 0.5),
                  of (pinned, server, local, mode, OUTS, 0.5), times, bar);
        }
    }
  printf ("\nGoal, at %d %%: at most %g times as slow, sealed\n", locals[GOAL_AT], GOAL_SLOWDOWN);
  for (int pinned = 1; pinned >= 0; pinned--)
    for (enum mode mode = 0; mode < MODES && measured[pinned][SEALED]; mode++) {
      const double times = slowdown (pinned, SEALED, GOAL_AT, mode, US);

      printf ("  %-10s %-5s %6.2f, %s (processor time: %.2f)\n", pinned ? "pinned" : "not pinned", mode_names[mode], times,
              times <= GOAL_SLOWDOWN ? "met" : "MISSED", slowdown (pinned, SEALED, GOAL_AT, mode, CPU));
    }
}

static void
add_number (JsonBuilder *builder, const char *name, double value) {
  json_builder_set_member_name (builder, name);
  json_builder_add_double_value (builder, value);
}

static void
add_row (JsonBuilder *builder, int pinned, enum server server, int local, enum mode mode) {
  static const char *const names[KINDS] = {
    "us-per-operation",       "p50-us", "p99-us", "cpu-us-per-operation", "disk-cpu-us-per-operation", "page-ins-per-operation",
    "page-outs-per-operation"
  };

  json_builder_begin_object (builder);
  json_builder_set_member_name (builder, "server");
  json_builder_add_string_value (builder, server_names[server]);
  json_builder_set_member_name (builder, "pinned");
  json_builder_add_boolean_value (builder, pinned);
  json_builder_set_member_name (builder, "mode");
  json_builder_add_string_value (builder, mode_names[mode]);
  json_builder_set_member_name (builder, "local-percent");
  json_builder_add_int_value (builder, locals[local]);
  add_number (builder, "slowdown", slowdown (pinned, server, local, mode, US));
  add_number (builder, "slowdown-of-cpu", slowdown (pinned, server, local, mode, CPU));
  for (enum kind kind = 0; kind < KINDS; kind++) {
    json_builder_set_member_name (builder, names[kind]);
    json_builder_begin_object (builder);
    add_number (builder, "median", of (pinned, server, local, mode, kind, 0.5));
    add_number (builder, "min", of (pinned, server, local, mode, kind, 0));
    add_number (builder, "max", of (pinned, server, local, mode, kind, 1));
    json_builder_end_object (builder);
  }
  json_builder_end_object (builder);
}

static bool
write_json (void) {
  g_autoptr (JsonBuilder) builder = json_builder_new ();
  g_autoptr (JsonGenerator) generator = json_generator_new ();
  g_autoptr (JsonNode) root = NULL;
  g_autoptr (GError) error = NULL;

  json_builder_begin_object (builder);
  json_builder_set_member_name (builder, "benchmark");
  json_builder_add_string_value (builder, "native-swap");
  json_builder_set_member_name (builder, "rounds");
  json_builder_add_int_value (builder, rounds);
  json_builder_set_member_name (builder, "mib");
  json_builder_add_int_value (builder, mib);
  json_builder_set_member_name (builder, "operations");
  json_builder_add_int_value (builder, operations);
  json_builder_set_member_name (builder, "poll-us");
  json_builder_add_int_value (builder, poll_us);
  json_builder_set_member_name (builder, "storage-folder");
  json_builder_add_string_value (builder, folder);
  json_builder_set_member_name (builder, "stage");
  json_builder_add_string_value (builder, stage);
  json_builder_set_member_name (builder, "results");
  json_builder_begin_array (builder);
  for (int pinned = 0; pinned < 2; pinned++)
    for (enum server server = 0; server < SERVERS; server++)
      for (int local = 0; local < N_LOCALS && measured[pinned][server]; local++)
        for (enum mode mode = 0; mode < MODES; mode++)
          add_row (builder, pinned, server, local, mode);
  json_builder_end_array (builder);
  json_builder_end_object (builder);
  root = json_builder_get_root (builder);
  json_generator_set_root (generator, root);
  json_generator_set_pretty (generator, TRUE);
  if (json_generator_to_file (generator, json_path, &error))
    return true;
  g_printerr ("bench-native-swap: %s\n", error->message);
  return false;
}

int
main (int argc, char **argv) {
  const GOptionEntry entries[] = {
    { "rounds", 0, 0, G_OPTION_ARG_INT, &rounds, "Of each measurement; the median counts (3)", "N" },
    { "mib", 0, 0, G_OPTION_ARG_INT, &mib, "Values, MiB, a power of two (128)", "MIB" },
    { "operations", 0, 0, G_OPTION_ARG_INT, &operations, "Of each measurement, and before each to settle (100000)", "N" },
    { "folder", 0, 0, G_OPTION_ARG_FILENAME, &folder, "Where storage files are (/dev/shm)", "FOLDER" },
    { "stage", 0, 0, G_OPTION_ARG_STRING, &stage, "Of domybs-far (8M, the least: what is in it is read from memory)", "SIZE" },
    { "poll", 0, 0, G_OPTION_ARG_INT, &poll_us, "Look for answers so long before sleeping, if not pinned (200, as KVM does)",
      "US" },
    { "unpinned-only", 0, 0, G_OPTION_ARG_NONE, &unpinned_only, "Do not measure on one processor as well", NULL },
    { "json", 0, 0, G_OPTION_ARG_FILENAME, &json_path, "Write the results there, too", "FILE" },
    { NULL },
  };
  g_autoptr (GOptionContext) context = g_option_context_new ("– a store of values, partly on a far disk, on real processors");
  g_autoptr (GError) error = NULL;

  g_option_context_add_main_entries (context, entries, NULL);
  if (!g_option_context_parse (context, &argc, &argv, &error) || argc > 1 || rounds < 1 || rounds > ROUNDS_MAX
      || operations < 1000 || poll_us < 0 || operations > 100000000 || mib < 16 || mib > 16384 || (mib & (mib - 1))) {
    g_printerr ("bench-native-swap: %s\n", error ? error->message : "wrong arguments");
    return 2;
  }
  if (!folder)
    folder = g_strdup ("/dev/shm");
  if (!stage)
    stage = g_strdup ("8M");
  g_setenv ("DOMYBS_FAR_FOLDER", folder, TRUE);
  for (int pinned = unpinned_only ? 0 : 1; pinned >= 0; pinned--)
    for (int round = 0; round < rounds; round++)
      for (enum server server = 0; server < SERVERS; server++)
        measure (server, pinned, round);
  if (!measured[0][DAEMON])
    puts ("(no qemu-storage-daemon to compare with; Debian: qemu-utils)");
  print_table ();
  return !json_path || write_json () ? 0 : 1;
}
