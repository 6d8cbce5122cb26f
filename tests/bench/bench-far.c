/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A far disk as its guest sees it, without a VM: a front-end that plays QEMU and virtio_blk, on domybs-far with and without seals, and on
 * qemu-storage-daemon's vhost-user-blk export of a raw file. All storage is a file in memory (--folder), so that what is measured is
 * the engine. Front-end and server on one processor, then on any.
 *
 * For each: requests a second, µs per request as the front-end waits for it, and µs of processor time that the server took.
 */
#include "far.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <glib/gstdio.h>

#define DISK_BYTES (512ull << 20)
#define DISK_PAGES (DISK_BYTES / BLK_PAGE)

static int seconds_ms = 700; /* of each measurement */
static int rounds = 3;
static char *json_path, *folder, *storage_daemon;
static GString *json;

struct server {
  const char *name;
  pid_t pids[2]; /* whose time counts */
  far_t *far;
  pid_t daemon;
  char *socket_path, *storage_path, *jail;
};

struct load {
  const char *name;
  enum blk_type type;
  unsigned depth, pages;
  bool random;
};

static const struct load loads[] = {
  { "write 4 KiB random, depth 1", BLK_OUT, 1, 1, true },   { "read 4 KiB random, depth 1", BLK_IN, 1, 1, true },
  { "write 4 KiB random, depth 32", BLK_OUT, 32, 1, true }, { "read 4 KiB random, depth 32", BLK_IN, 32, 1, true },
  { "write 256 KiB in a row, depth 4", BLK_OUT, 4, 64, false }, { "read 256 KiB in a row, depth 4", BLK_IN, 4, 64, false },
};

static double
now_us (void) {
  struct timespec ts;

  clock_gettime (CLOCK_MONOTONIC, &ts);
  return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
}

/* Processor time of all threads of a process that live. */
static double
cpu_us (pid_t pid) {
  g_autofree char *tasks = g_strdup_printf ("/proc/%d/task", (int)pid);
  g_autoptr (GDir) dir = g_dir_open (tasks, 0, NULL);
  double sum = 0;
  const char *name;

  while (dir && (name = g_dir_read_name (dir))) {
    g_autofree char *path = g_build_filename (tasks, name, "schedstat", NULL);
    g_autofree char *text = NULL;

    if (g_file_get_contents (path, &text, NULL, NULL))
      sum += strtod (text, NULL) / 1000;
  }
  return sum;
}

static void
pin (pid_t pid, bool pinned) {
  g_autofree char *tasks = g_strdup_printf ("/proc/%d/task", (int)pid);
  g_autoptr (GDir) dir = g_dir_open (tasks, 0, NULL);
  const char *name;
  cpu_set_t set;

  CPU_ZERO (&set);
  for (int i = 0; i < (pinned ? 1 : CPU_SETSIZE); i++)
    CPU_SET (i, &set);
  while (dir && (name = g_dir_read_name (dir)))
    sched_setaffinity (atoi (name), sizeof set, &set);
}

/* ---- servers ---- */

static void
start_ours (struct server *server, const char *name, const char *argument) {
  const char *const arguments[] = { argument, NULL };
  const struct far_options options = { .bytes = DISK_BYTES, .arguments = argument ? arguments : NULL, .disk_extra = ",queues=1" };

  server->name = name;
  g_setenv ("DOMYBS_FAR_FOLDER", folder, TRUE);
  server->far = far_start (&options);
  server->socket_path = g_strdup (server->far->socket_paths[0]);
}

/* False: there is none. */
static bool
start_daemon (struct server *server) {
  g_autofree char *in_path = g_find_program_in_path ("qemu-storage-daemon");
  const char *program = storage_daemon ? storage_daemon : in_path;
  g_autofree char *blockdev = NULL, *export = NULL;
  int fd;

  server->name = "qemu-storage-daemon";
  server->jail = g_build_filename (folder, "domybs-bench-XXXXXX", NULL);
  if (!program || !g_mkdtemp (server->jail))
    return false;
  server->socket_path = g_build_filename (server->jail, "s", NULL);
  server->storage_path = g_build_filename (server->jail, "disk", NULL);
  fd = open (server->storage_path, O_RDWR | O_CREAT, 0600);
  if (fd < 0 || posix_fallocate (fd, 0, DISK_BYTES))
    g_error ("%s: %s", server->storage_path, g_strerror (errno));
  close (fd);
  blockdev = g_strdup_printf ("driver=file,filename=%s,node-name=n,aio=io_uring", server->storage_path);
  export = g_strdup_printf ("type=vhost-user-blk,id=e,node-name=n,addr.type=unix,addr.path=%s,writable=on,logical-block-size=4096",
                            server->socket_path);
  server->daemon = fork ();
  if (server->daemon == 0) {
    prctl (PR_SET_PDEATHSIG, SIGKILL);
    execl (program, program, "--blockdev", blockdev, "--export", export, NULL);
    _exit (127);
  }
  for (int i = 0; i < 1000 && access (server->socket_path, F_OK) < 0; i++)
    g_usleep (10000);
  server->pids[0] = server->daemon;
  return access (server->socket_path, F_OK) == 0;
}

static void
stop (struct server *server) {
  if (server->far)
    far_end (server->far);
  if (server->daemon > 0) {
    kill (server->daemon, SIGKILL);
    waitpid (server->daemon, NULL, 0);
  }
  if (server->socket_path)
    g_unlink (server->socket_path);
  if (server->storage_path)
    g_unlink (server->storage_path);
  if (server->jail)
    g_rmdir (server->jail);
  g_free (server->socket_path);
  g_free (server->storage_path);
  g_free (server->jail);
  *server = (struct server){ 0 };
}

/* ---- measuring ---- */

struct figures {
  double per_second, p50_us, p99_us, cpu_us;
};

static int
by_value (const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;

  return x < y ? -1 : x > y;
}

static void
wait_one (struct blk *blk, unsigned *ret_slot) {
  uint8_t status;

  if (!blk_wait (blk, ret_slot, &status, fe_patience_ms ()) || status != BLK_S_OK)
    g_error ("a request failed: status %u (%s)", status, blk->fe->why ? blk->fe->why : "?");
}

static uint64_t
next_page (const struct load *load, uint64_t *state) {
  if (!load->random) {
    *state = (*state + load->pages) % DISK_PAGES;
    return *state;
  }
  *state ^= *state << 13;
  *state ^= *state >> 7;
  *state ^= *state << 17;
  return *state % DISK_PAGES;
}

static void
measure (struct blk *blk, const struct server *server, const struct load *load, struct figures *ret) {
  const struct blk_shape shape = { .indirect = true };
  g_autoptr (GArray) times = g_array_new (FALSE, FALSE, sizeof (double));
  const double cpu = cpu_us (server->pids[0]) + (server->pids[1] ? cpu_us (server->pids[1]) : 0);
  const double began = now_us (), end = began + seconds_ms * 1000.0;
  static uint64_t state = 88172645463325252ull;
  double at[BLK_SLOTS];
  uint64_t row = 0;
  unsigned slot;

  while (now_us () < end || blk->n_in_flight) {
    bool submitted = false;

    while (blk->n_in_flight < load->depth && now_us () < end) {
      slot = (unsigned)blk_free_slot (blk);
      blk_prepare (blk, slot, load->type, next_page (load, load->random ? &state : &row), load->pages);
      at[slot] = now_us ();
      blk_submit (blk, slot, &shape, NULL);
      submitted = true;
    }
    if (submitted)
      blk_kick (blk, 0);
    if (blk->n_in_flight == 0)
      break;
    wait_one (blk, &slot);
    const double took = now_us () - at[slot];
    g_array_append_val (times, took);
  }
  ret->per_second = times->len / ((now_us () - began) / 1e6);
  ret->cpu_us = (cpu_us (server->pids[0]) + (server->pids[1] ? cpu_us (server->pids[1]) : 0) - cpu) / times->len;
  qsort (times->data, times->len, sizeof (double), by_value);
  ret->p50_us = g_array_index (times, double, times->len / 2);
  ret->p99_us = g_array_index (times, double, (guint)(times->len * 0.99));
}

/* Every page differs, and none packs: fills all slots once, and the disk from them. */
static void
fill (struct blk *blk) {
  const struct blk_shape shape = { .indirect = true };
  uint64_t state = 0x9e3779b97f4a7c15ull;

  for (unsigned i = 0; i < BLK_SLOTS; i++) {
    uint64_t *words;

    blk_prepare (blk, i, BLK_OUT, 0, BLK_SLOT_PAGES);
    words = (uint64_t *)blk_data (blk, i);
    for (unsigned k = 0; k < BLK_SLOT_PAGES * BLK_PAGE / 8; k++) {
      state ^= state << 13;
      state ^= state >> 7;
      state ^= state << 17;
      words[k] = state;
    }
  }
  for (uint64_t page = 0; page < DISK_PAGES; page += BLK_SLOT_PAGES) {
    unsigned slot = (unsigned)(page / BLK_SLOT_PAGES) % BLK_SLOTS;

    blk_prepare (blk, slot, BLK_OUT, page, BLK_SLOT_PAGES);
    blk_submit (blk, slot, &shape, NULL);
    blk_kick (blk, 0);
    wait_one (blk, &slot);
  }
}

static int
by_rate (const void *a, const void *b) {
  return by_value (&((const struct figures *)a)->per_second, &((const struct figures *)b)->per_second);
}

static void
run (struct server *server, bool pinned, double *rates) {
  g_autoptr (blk_t) blk = blk_new ();

  blk->n_queues = 1;
  if (!blk_connect (blk, server->socket_path))
    g_error ("%s: %s", server->name, blk->fe->why);
  if (server->far) {
    server->pids[0] = server->far->backend->pid;
    server->pids[1] = backend_wait_worker (server->far->backend, 0, fe_patience_ms ());
  }
  fill (blk);
  pin (getpid (), pinned);
  for (unsigned i = 0; i < 2; i++)
    if (server->pids[i])
      pin (server->pids[i], pinned);
  for (unsigned i = 0; i < G_N_ELEMENTS (loads); i++) {
    struct figures figures[16];

    for (int round = 0; round < rounds; round++)
      measure (blk, server, &loads[i], &figures[round]);
    qsort (figures, (size_t)rounds, sizeof *figures, by_rate);
    const struct figures *f = &figures[rounds / 2];
    const double mb = f->per_second * loads[i].pages * BLK_PAGE / 1e6;

    if (rates[i] == 0)
      rates[i] = f->per_second;
    printf ("  %-34s %-22s %9.0f/s %8.0f MB/s %8.1f %8.1f %8.2f   ×%.2f\n", loads[i].name, server->name, f->per_second, mb, f->p50_us,
            f->p99_us, f->cpu_us, f->per_second / rates[i]);
    fflush (stdout);
    g_string_append_printf (json,
                            "%s{\"load\": \"%s\", \"server\": \"%s\", \"pinned\": %s, \"per-second\": %.1f, \"mb-per-second\": %.1f, "
                            "\"p50-us\": %.2f, \"p99-us\": %.2f, \"server-cpu-us\": %.3f}",
                            json->len ? ",\n  " : "", loads[i].name, server->name, pinned ? "true" : "false", f->per_second, mb,
                            f->p50_us, f->p99_us, f->cpu_us);
  }
  pin (getpid (), false);
}

int
main (int argc, char **argv) {
  const GOptionEntry entries[] = {
    { "ms", 0, 0, G_OPTION_ARG_INT, &seconds_ms, "Time of each measurement (700)", "MS" },
    { "rounds", 0, 0, G_OPTION_ARG_INT, &rounds, "Of each measurement; the median counts (3)", "N" },
    { "folder", 0, 0, G_OPTION_ARG_FILENAME, &folder, "Where storage files are (/dev/shm)", "FOLDER" },
    { "storage-daemon", 0, 0, G_OPTION_ARG_FILENAME, &storage_daemon, "qemu-storage-daemon (from PATH)", "FILE" },
    { "json", 0, 0, G_OPTION_ARG_FILENAME, &json_path, "Write the results there, too", "FILE" },
    { NULL },
  };
  g_autoptr (GOptionContext) context = g_option_context_new ("– a far disk's engine against qemu-storage-daemon");
  g_autoptr (GError) error = NULL;

  g_option_context_add_main_entries (context, entries, NULL);
  if (!g_option_context_parse (context, &argc, &argv, &error) || argc > 1 || rounds < 1 || rounds > 16 || seconds_ms < 1) {
    g_printerr ("bench-far: %s\n", error ? error->message : "wrong arguments");
    return 2;
  }
  if (!folder)
    folder = g_strdup ("/dev/shm");
  json = g_string_new (NULL);
  for (int pinned = 1; pinned >= 0; pinned--) {
    double rates[G_N_ELEMENTS (loads)] = { 0 };
    struct server server = { 0 };

    printf ("%-36s %-22s %11s %13s %8s %8s %8s   %s\n", pinned ? "All on one processor" : "On any processor", "", "requests", "data",
            "p50 µs", "p99 µs", "CPU µs", "against the first");
    if (start_daemon (&server))
      run (&server, pinned, rates);
    else
      printf ("  no qemu-storage-daemon to compare with (Debian: qemu-utils)\n");
    stop (&server);
    start_ours (&server, "domybs-far, no seal", "--no-seal");
    run (&server, pinned, rates);
    stop (&server);
    start_ours (&server, "domybs-far", NULL);
    run (&server, pinned, rates);
    stop (&server);
  }
  if (json_path) {
    g_autofree char *text = g_strdup_printf ("[\n  %s\n]\n", json->str);

    if (!g_file_set_contents (json_path, text, -1, &error)) {
      g_printerr ("bench-far: %s\n", error->message);
      return 1;
    }
  }
  g_string_free (json, TRUE);
  return 0;
}
