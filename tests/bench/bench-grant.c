/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a grant and a release cost, natively: a front-end and the back-end, no QEMU, no guest.
 *
 *   untouched   GRANT n, RELEASE n
 *   touched     GRANT n, one write to each page, RELEASE n; with 4 KiB pages, and with huge pages where the host allows them
 *   populate    the same where the back-end takes the memory at the grant
 *   peers       a bare memfd that is allocated and punched (what the memory itself costs), and ping-pongs over a unix socket and over
 *               a pair of eventfds (what any answer from another process costs)
 *   allocator   regions_choose + regions_take + regions_give, against a bitmap that is searched from its start
 *
 * Times are medians of the rounds, with minimum and maximum. "same core" pins both processes to one core, which takes the cross-core
 * wake-up out (facts of this kind of machine: it is most of an unpinned round trip). Compare figures of one run only.
 */
#include "frontend.h"
#include "process.h"
#include "rig.h"

#include "core/regions.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BLOCK ((size_t)DOMYBS_BLOCK_BYTES)
#define SHMEM_ENABLED "/sys/kernel/mm/transparent_hugepage/shmem_enabled"
#define ROUND_BLOCKS 512u /* blocks granted at a time; the window is 4 GiB */
#define MIN_ROUND_NS (20 * 1000 * 1000)

static int rounds = 7;
static char *json_path;
static gboolean set_huge;

struct result {
  char *name, *unit;
  double median, min, max;
};

static GArray *results;

static int64_t
clock_ns (clockid_t clock) {
  struct timespec ts;

  clock_gettime (clock, &ts);
  return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static int64_t
now_ns (void) {
  return clock_ns (CLOCK_MONOTONIC);
}

/* For what one thread does alone and without the kernel: other programs' turns on the core do not count. */
static int64_t
cpu_ns (void) {
  return clock_ns (CLOCK_THREAD_CPUTIME_ID);
}

static int
compare_doubles (const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;

  return x < y ? -1 : x > y;
}

static double
record (const char *name, const char *unit, double *values, int n) {
  struct result result = { g_strdup (name), g_strdup (unit), 0, 0, 0 };

  qsort (values, (size_t)n, sizeof *values, compare_doubles);
  result.median = n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
  result.min = values[0];
  result.max = values[n - 1];
  printf ("  %-64s %10.3f %10.3f %10.3f  %s\n", name, result.median, result.min, result.max, unit);
  fflush (stdout);
  g_array_append_val (results, result);
  return result.median;
}

static void
heading (const char *text) {
  printf ("\n%-66s %10s %10s %10s\n", text, "median", "min", "max");
}

static void
pin (pid_t pid, int cpu) {
  cpu_set_t set;

  CPU_ZERO (&set);
  if (cpu >= 0)
    CPU_SET (cpu, &set);
  else
    for (int i = 0; i < sysconf (_SC_NPROCESSORS_ONLN); i++)
      CPU_SET (i, &set);
  if (sched_setaffinity (pid, sizeof set, &set) < 0)
    fprintf (stderr, "pinning is not possible here: %s\n", g_strerror (errno));
}

static int
last_cpu (void) {
  return (int)sysconf (_SC_NPROCESSORS_ONLN) - 1;
}

/* ---- peers ---- */

static void
raw_memfd (const char *label, bool touched, bool huge) {
  const int fd = memfd_create ("bench", MFD_CLOEXEC);
  const size_t bytes = (size_t)ROUND_BLOCKS * BLOCK;
  double *give = g_new (double, rounds), *take = g_new (double, rounds);
  g_autofree char *give_name = NULL, *take_name = NULL;
  uint8_t *map, *aligned;

  g_assert_cmpint (ftruncate (fd, (off_t)bytes), ==, 0);
  /* An aligned place, as huge pages need. */
  map = mmap (NULL, bytes + BLOCK, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  aligned = (uint8_t *)(((uintptr_t)map + BLOCK - 1) / BLOCK * BLOCK);
  g_assert_true (mmap (aligned, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == aligned);
  if (huge)
    madvise (aligned, bytes, MADV_HUGEPAGE);
  for (int round = 0; round < rounds; round++) {
    int64_t start = now_ns ();

    for (size_t at = 0; at < bytes; at += BLOCK)
      if (touched)
        for (size_t i = 0; i < BLOCK; i += 4096)
          aligned[at + i] = 1;
      else
        g_assert_cmpint (fallocate (fd, 0, (off_t)at, BLOCK), ==, 0);
    take[round] = (double)(now_ns () - start) / ROUND_BLOCKS / 1000;
    start = now_ns ();
    for (size_t at = 0; at < bytes; at += BLOCK)
      g_assert_cmpint (fallocate (fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)at, BLOCK), ==, 0);
    give[round] = (double)(now_ns () - start) / ROUND_BLOCKS / 1000;
  }
  take_name = g_strdup_printf ("bare memfd, %s: %s", label, touched ? "touch each page" : "fallocate");
  give_name = g_strdup_printf ("bare memfd, %s: punch", label);
  record (take_name, "µs/block", take, rounds);
  record (give_name, "µs/block", give, rounds);
  munmap (map, bytes + BLOCK);
  close (fd);
  g_free (give);
  g_free (take);
}

static void
punch_holes (void) {
  const int fd = memfd_create ("bench", MFD_CLOEXEC);
  double *values = g_new (double, rounds);

  g_assert_cmpint (ftruncate (fd, (off_t)(ROUND_BLOCKS * BLOCK)), ==, 0);
  for (int round = 0; round < rounds; round++) {
    const int64_t start = now_ns ();

    for (unsigned i = 0; i < ROUND_BLOCKS * 8; i++)
      g_assert_cmpint (fallocate (fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(i % ROUND_BLOCKS * BLOCK), BLOCK), ==, 0);
    values[round] = (double)(now_ns () - start) / (ROUND_BLOCKS * 8) / 1000;
  }
  record ("bare memfd, untouched: punch", "µs/block", values, rounds);
  close (fd);
  g_free (values);
}

/* Both ends read with poll first: that is how event loops do it. */
static void
ping_pong (const char *label, bool use_socket, int cpu) {
  int to[2], from[2];
  double *values = g_new (double, rounds);
  const unsigned trips = 2000;
  uint8_t message[48] = { 0 };
  const size_t n = use_socket ? sizeof message : 8;
  pid_t child;

  if (use_socket) {
    g_assert_cmpint (socketpair (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, to), ==, 0);
    from[0] = to[1];
    from[1] = to[0];
  } else {
    to[0] = from[1] = eventfd (0, EFD_CLOEXEC);
    to[1] = from[0] = eventfd (0, EFD_CLOEXEC);
  }
  message[0] = 1;
  child = fork ();
  if (child == 0) {
    /* reads at from[0] (the second end), answers there (socket) or on the other eventfd */
    const int in = use_socket ? from[0] : to[0], out = use_socket ? from[0] : to[1];
    struct pollfd pfd = { in, POLLIN, 0 };
    uint8_t buf[48];

    pin (0, cpu);
    if (use_socket)
      close (to[0]);
    while (poll (&pfd, 1, -1) > 0 && read (in, buf, n) == (ssize_t)n)
      if (write (out, buf, n) != (ssize_t)n)
        break;
    _exit (0);
  }
  pin (0, cpu);
  const int out = use_socket ? to[0] : to[0], in = use_socket ? to[0] : to[1];
  for (int round = 0; round < rounds; round++) {
    const int64_t start = now_ns ();

    for (unsigned i = 0; i < trips; i++) {
      struct pollfd pfd = { in, POLLIN, 0 };
      uint8_t buf[48];

      g_assert_cmpint (write (out, message, n), ==, (ssize_t)n);
      poll (&pfd, 1, -1);
      g_assert_cmpint (read (in, buf, n), ==, (ssize_t)n);
    }
    values[round] = (double)(now_ns () - start) / trips / 1000;
  }
  record (label, "µs/round trip", values, rounds);
  kill (child, SIGKILL);
  waitpid (child, NULL, 0);
  close (to[0]);
  close (to[1]);
  pin (0, -1);
  g_free (values);
}

/* ---- grant and release ---- */

struct series {
  const char *label;
  unsigned batch;     /* blocks in one request */
  unsigned in_flight; /* requests at a time */
  bool touched;
};

struct times {
  int64_t grant, touch, release;
};

static void
finish_all (struct fe *fe, unsigned n, struct fe_answer *answers, unsigned blocks) {
  for (unsigned slot = 0; slot < n; slot++) {
    fe_must (fe, fe_complete (fe, slot, &answers[slot], fe_patience_ms ()));
    g_assert_cmpuint (answers[slot].status, ==, DOMYBS_OK);
    g_assert_cmpuint (answers[slot].blocks, ==, blocks);
  }
}

/* Grants ROUND_BLOCKS in batches, touches them, releases them in the same batches. */
static void
one_pass (struct fe *fe, const struct series *series, struct times *times) {
  static struct domybs_run runs[ROUND_BLOCKS][8];
  static uint32_t n_runs[ROUND_BLOCKS];
  const unsigned requests = ROUND_BLOCKS / series->batch, in_flight = MIN (series->in_flight, requests);
  struct fe_answer answers[FE_SLOTS];
  uint8_t buf[4096];
  int64_t start = now_ns ();

  for (unsigned i = 0; i < requests; i += in_flight) {
    for (unsigned slot = 0; slot < in_flight; slot++)
      fe_submit (fe, slot, buf, fe_encode_grant (fe, buf, 0, series->batch, DOMYBS_HINT_LOCAL, DOMYBS_GRANT_F_ALL, 0, 0), 4096);
    finish_all (fe, in_flight, answers, series->batch);
    for (unsigned slot = 0; slot < in_flight; slot++) {
      g_assert_cmpuint (answers[slot].count, <=, 8);
      n_runs[i + slot] = answers[slot].count;
      memcpy (runs[i + slot], answers[slot].runs, answers[slot].count * sizeof runs[0][0]);
    }
  }
  times->grant += now_ns () - start;
  start = now_ns ();
  if (series->touched)
    for (unsigned i = 0; i < requests; i++)
      for (uint32_t r = 0; r < n_runs[i]; r++)
        for (uint64_t block = runs[i][r].start; block < runs[i][r].start + runs[i][r].count; block++)
          for (size_t at = 0; at < BLOCK; at += 4096)
            fe_block (fe, block)[at] = 1;
  times->touch += now_ns () - start;
  start = now_ns ();
  for (unsigned i = 0; i < requests; i += in_flight) {
    for (unsigned slot = 0; slot < in_flight; slot++)
      fe_submit (fe, slot, buf, fe_encode_release (fe, buf, 0, runs[i + slot], n_runs[i + slot]), 4096);
    finish_all (fe, in_flight, answers, series->batch);
  }
  times->release += now_ns () - start;
}

/* Returns the median of grant + release. */
static double
grant_and_release (struct fe *fe, const struct series *series, const char *setting) {
  double *grant = g_new (double, rounds), *touch = g_new (double, rounds), *release = g_new (double, rounds),
         *sum = g_new (double, rounds);
  double median;

  for (int round = 0; round < rounds; round++) {
    struct times times = { 0 };
    unsigned passes = 0;

    do {
      one_pass (fe, series, &times);
      passes++;
    } while (times.grant + times.touch + times.release < MIN_ROUND_NS);
    const double per_block = 1.0 / passes / ROUND_BLOCKS / 1000;
    grant[round] = (double)times.grant * per_block;
    touch[round] = (double)times.touch * per_block;
    release[round] = (double)times.release * per_block;
    sum[round] = grant[round] + release[round];
  }
  g_autofree char *base = g_strdup_printf ("%s, batch %u%s, %s", series->label, series->batch, series->in_flight > 1 ? " × 16 in flight" : "",
                                           setting);
  g_autofree char *g = g_strconcat (base, ": grant", NULL), *t = g_strconcat (base, ": touch", NULL),
                  *r = g_strconcat (base, ": release", NULL), *both = g_strconcat (base, ": grant + release", NULL);
  record (g, "µs/block", grant, rounds);
  if (series->touched)
    record (t, "µs/block", touch, rounds);
  record (r, "µs/block", release, rounds);
  median = record (both, "µs/block", sum, rounds);
  g_free (grant);
  g_free (touch);
  g_free (release);
  g_free (sum);
  return median;
}

static struct fe *
connect_to (struct backend *backend, bool huge) {
  struct fe *fe = fe_new ();

  fe->huge = huge;
  fe_must (fe, fe_open (fe, backend->socket_path));
  return fe;
}

static double
run_series (const char *mode, const struct series *series, size_t n, bool huge, bool pinned) {
  const char *const arguments[] = { "--window=4G", "--host-account=none", "--host-reserve=0", mode, NULL };
  struct backend *backend = backend_start (arguments);
  struct fe *fe = connect_to (backend, huge);
  pid_t pids[BACKEND_PROCESSES_MAX];
  double best = 0;

  for (unsigned i = 0, count = backend_processes (backend, pids); i < count; i++)
    pin (pids[i], pinned ? last_cpu () : -1);
  pin (0, pinned ? last_cpu () : -1);
  for (size_t i = 0; i < n; i++) {
    const double median = grant_and_release (fe, &series[i], pinned ? "same core" : "not pinned");

    if (i == 0 || median < best)
      best = median;
  }
  pin (0, -1);
  fe_free (fe);
  backend_free (backend);
  return best;
}

/* ---- the allocator alone ---- */

/* The peer: one bit a block, searched from the start for the first free ones. */
struct bitmap {
  uint64_t *words;
  uint64_t n_blocks;
};

static uint64_t
bitmap_take_first (struct bitmap *bitmap) {
  for (uint64_t w = 0; w < bitmap->n_blocks / 64; w++)
    if (~bitmap->words[w]) {
      const uint64_t bit = (uint64_t)__builtin_ctzll (~bitmap->words[w]);

      bitmap->words[w] |= 1ull << bit;
      return w * 64 + bit;
    }
  return UINT64_MAX;
}

/* A window of n_blocks that is half granted; then one block is taken and a random granted one given back, again and again. */
static double
allocator (uint64_t n_blocks, unsigned batch) {
  const unsigned operations = 200000 / batch;
  const uint64_t held = n_blocks / 2;
  double *ours = g_new (double, rounds), *theirs = g_new (double, rounds);
  uint64_t *blocks = g_new (uint64_t, held + batch);
  double median;

  for (int round = 0; round < rounds; round++) {
    GRand *random = g_rand_new_with_seed (4711 + (guint32)round);
    struct bitmap bitmap = { g_new0 (uint64_t, n_blocks / 64), n_blocks };
    guint32 *choices = g_new (guint32, operations);
    struct block_run runs[DOMYBS_RUNS_MAX];
    struct regions regions;
    uint64_t n = 0;
    unsigned n_runs;
    int64_t start;

    for (unsigned i = 0; i < operations; i++)
      choices[i] = g_rand_int (random) % (guint32)(held - batch);
    /* The starting point is made by random takes and gives, so that free blocks lie in the midst of granted ones. */
    g_assert_true (regions_init (&regions, n_blocks, 64));
    while (n < held) {
      regions_choose (&regions, 1, 0, 0, 0, runs, 1, &n_runs);
      regions_take (&regions, runs[0].start, 1);
      blocks[n++] = runs[0].start;
      if (n > 8 && g_rand_int (random) % 4 == 0) {
        const uint64_t i = g_rand_int (random) % n;

        regions_give (&regions, blocks[i], 1);
        blocks[i] = blocks[--n];
      }
    }
    start = cpu_ns ();
    for (unsigned i = 0; i < operations; i++) {
      /* `batch` blocks as one request: chosen, taken; then as many given back, one run each where they are single blocks */
      const uint64_t found = regions_choose (&regions, batch, 0, 0, 0, runs, DOMYBS_RUNS_MAX, &n_runs);
      uint64_t at = choices[i];

      g_assert (found == batch);
      for (unsigned k = 0; k < n_runs; k++)
        regions_take (&regions, runs[k].start, runs[k].count);
      for (unsigned k = 0; k < n_runs; k++)
        for (uint64_t b = 0; b < runs[k].count; b++, at++) {
          regions_give (&regions, blocks[at], 1);
          blocks[at] = runs[k].start + b;
        }
    }
    ours[round] = (double)(cpu_ns () - start) / operations / batch;
    regions_clear (&regions);

    for (uint64_t i = 0; i < held; i++)
      blocks[i] = bitmap_take_first (&bitmap);
    start = cpu_ns ();
    for (unsigned i = 0; i < operations; i++)
      for (unsigned k = 0; k < batch; k++) {
        const uint64_t at = choices[i] + k, taken = bitmap_take_first (&bitmap);

        bitmap.words[blocks[at] / 64] &= ~(1ull << (blocks[at] % 64));
        blocks[at] = taken;
      }
    theirs[round] = (double)(cpu_ns () - start) / operations / batch;
    g_free (bitmap.words);
    g_free (choices);
    g_rand_free (random);
  }
  g_autofree char *our_name = g_strdup_printf ("regions, %" G_GUINT64_FORMAT " GiB window half full, batch %u", n_blocks / 512, batch);
  g_autofree char *their_name = g_strdup_printf ("bitmap first-fit, the same");
  median = record (our_name, "ns/block", ours, rounds);
  record (their_name, "ns/block", theirs, rounds);
  g_free (ours);
  g_free (theirs);
  g_free (blocks);
  return median;
}

/* ---- huge pages ---- */

static char *huge_before; /* what shmem_enabled was, when it was changed */

static void
restore_huge (void) {
  FILE *file = huge_before ? fopen (SHMEM_ENABLED, "w") : NULL;

  if (!file)
    return;
  fputs (huge_before, file);
  fclose (file);
  g_clear_pointer (&huge_before, g_free);
}

static void
on_interrupt (int signal_number) {
  restore_huge ();
  _exit (130);
}

/* Whether shmem huge pages can be had. With --set-huge the host's setting is changed for the time of the run. */
static bool
huge_is_possible (void) {
  g_autofree char *text = NULL;
  const char *chosen, *end;

  if (!g_file_get_contents (SHMEM_ENABLED, &text, NULL, NULL) || !(chosen = strchr (text, '[')) || !(end = strchr (chosen, ']')))
    return false;
  g_autofree char *now = g_strndup (chosen + 1, (gsize)(end - chosen - 1));
  if (strcmp (now, "never") != 0 && strcmp (now, "deny") != 0)
    return true;
  if (set_huge) {
    FILE *file = fopen (SHMEM_ENABLED, "w");

    if (file && fputs ("advise", file) >= 0 && fclose (file) == 0) {
      huge_before = g_steal_pointer (&now);
      atexit (restore_huge);
      signal (SIGINT, on_interrupt);
      signal (SIGTERM, on_interrupt);
      return true;
    }
  }
  printf ("\nHuge pages: not measured, %s is \"%s\" (\"advise\" is needed; --set-huge sets it for the time of the run)\n", SHMEM_ENABLED,
          now);
  return false;
}

static uint64_t
shmem_huge_kib (void) {
  g_autofree char *text = NULL;
  const char *line;

  if (!g_file_get_contents ("/proc/meminfo", &text, NULL, NULL) || !(line = strstr (text, "ShmemHugePages:")))
    return 0;
  return g_ascii_strtoull (line + strlen ("ShmemHugePages:"), NULL, 10);
}

/* Whether a front-end's touches in fact give huge pages: the advice only helps at an aligned address. */
static bool
huge_works (void) {
  const char *const arguments[] = { "--window=4G", "--host-account=none", "--host-reserve=0", NULL };
  g_autoptr (backend_t) backend = backend_start (arguments);
  g_autoptr (fe_t) fe = connect_to (backend, true);
  const uint64_t before = shmem_huge_kib ();
  struct fe_answer answer;

  fe_must (fe, fe_grant (fe, 16, DOMYBS_HINT_LOCAL, DOMYBS_GRANT_F_ALL, 0, 0, &answer));
  for (uint64_t block = 0; block < 16; block++)
    *fe_block (fe, answer.runs[0].start + block) = 1;
  return shmem_huge_kib () >= before + 8 * 2048;
}

/* ---- all of it ---- */

static void
write_json (void) {
  g_autoptr (JsonBuilder) builder = json_builder_new ();
  g_autoptr (JsonGenerator) generator = json_generator_new ();
  g_autoptr (JsonNode) root = NULL;
  g_autoptr (GError) error = NULL;

  json_builder_begin_object (builder);
  json_builder_set_member_name (builder, "benchmark");
  json_builder_add_string_value (builder, "grant");
  json_builder_set_member_name (builder, "rounds");
  json_builder_add_int_value (builder, rounds);
  json_builder_set_member_name (builder, "results");
  json_builder_begin_array (builder);
  for (guint i = 0; i < results->len; i++) {
    const struct result *result = &g_array_index (results, struct result, i);

    json_builder_begin_object (builder);
    json_builder_set_member_name (builder, "name");
    json_builder_add_string_value (builder, result->name);
    json_builder_set_member_name (builder, "unit");
    json_builder_add_string_value (builder, result->unit);
    json_builder_set_member_name (builder, "median");
    json_builder_add_double_value (builder, result->median);
    json_builder_set_member_name (builder, "min");
    json_builder_add_double_value (builder, result->min);
    json_builder_set_member_name (builder, "max");
    json_builder_add_double_value (builder, result->max);
    json_builder_end_object (builder);
  }
  json_builder_end_array (builder);
  json_builder_end_object (builder);
  root = json_builder_get_root (builder);
  json_generator_set_root (generator, root);
  json_generator_set_pretty (generator, TRUE);
  if (!json_generator_to_file (generator, json_path, &error))
    g_error ("%s", error->message);
  printf ("\nThe same as JSON: %s\n", json_path);
}

static void
verdict (const char *what, double value, double goal, const char *unit) {
  printf ("  %-64s %10.3f %s, goal %g: %s\n", what, value, unit, goal, value <= goal ? "met" : "MISSED");
}

int
main (int argc, char **argv) {
  static const struct series untouched[] = {
    { "untouched", 1, 1, false },  { "untouched", 1, 16, false },  { "untouched", 8, 1, false },
    { "untouched", 64, 1, false }, { "untouched", 512, 1, false },
  };
  static const struct series batched[] = { { "untouched", 64, 1, false } };
  static const struct series touched_4k[] = { { "touched, 4 KiB pages", 1, 1, true }, { "touched, 4 KiB pages", 64, 1, true } };
  static const struct series touched_huge[] = { { "touched, huge pages", 1, 1, true }, { "touched, huge pages", 64, 1, true } };
  static const struct series populated_4k[] = { { "populate, 4 KiB pages", 64, 1, false } };
  static const struct series populated_huge[] = { { "populate, huge pages", 64, 1, false } };
  const GOptionEntry entries[] = {
    { "rounds", 0, 0, G_OPTION_ARG_INT, &rounds, "Rounds of each measurement (7)", "N" },
    { "json", 0, 0, G_OPTION_ARG_FILENAME, &json_path, "Write the results there, too", "FILE" },
    { "set-huge", 0, 0, G_OPTION_ARG_NONE, &set_huge, "Allow shmem huge pages on this host while the benchmark runs", NULL },
    G_OPTION_ENTRY_NULL,
  };
  g_autoptr (GOptionContext) context = g_option_context_new ("– what a grant and a release cost, without a VM");
  g_autoptr (GError) error = NULL;
  double grant_batched, region_alone;

  g_option_context_add_main_entries (context, entries, NULL);
  if (!g_option_context_parse (context, &argc, &argv, &error) || rounds < 5 || rounds > 1000) {
    fprintf (stderr, "%s\n", error ? error->message : "--rounds: 5 to 1000");
    return 1;
  }
  results = g_array_new (FALSE, FALSE, sizeof (struct result));
  printf ("%ld cores, %d rounds of each measurement; blocks are 2 MiB\n", sysconf (_SC_NPROCESSORS_ONLN), rounds);

  heading ("peers");
  ping_pong ("unix socket ping-pong, 48 bytes, same core", true, last_cpu ());
  ping_pong ("unix socket ping-pong, 48 bytes, not pinned", true, -1);
  ping_pong ("eventfd ping-pong, same core", false, last_cpu ());
  ping_pong ("eventfd ping-pong, not pinned", false, -1);
  punch_holes ();
  raw_memfd ("unwritten", false, false);
  raw_memfd ("4 KiB pages", true, false);

  heading ("grant and release, untouched (reserve)");
  run_series ("--grant=reserve", untouched, G_N_ELEMENTS (untouched), false, true);
  run_series ("--grant=reserve", untouched, G_N_ELEMENTS (untouched), false, false);
  grant_batched = run_series ("--grant=reserve", batched, 1, false, true);
  heading ("grant, touch and release, 4 KiB pages");
  run_series ("--grant=reserve", touched_4k, G_N_ELEMENTS (touched_4k), false, true);
  run_series ("--grant=populate", populated_4k, G_N_ELEMENTS (populated_4k), false, true);
  if (huge_is_possible ()) {
    heading ("grant, touch and release, huge pages");
    raw_memfd ("huge pages", true, true);
    if (huge_works ()) {
      run_series ("--grant=reserve", touched_huge, G_N_ELEMENTS (touched_huge), true, true);
      run_series ("--grant=populate", populated_huge, G_N_ELEMENTS (populated_huge), true, true);
    } else {
      printf ("  not measured: touches of the window gave no huge pages (this kernel does not align the map; 6.7 and later do)\n");
    }
  }
  restore_huge ();

  heading ("region allocation, one core, CPU time");
  pin (0, last_cpu ());
  region_alone = allocator (8192, 1);
  allocator (8192, 64);
  allocator (524288, 1);
  allocator (524288, 64);

  printf ("\nGoals\n");
  verdict ("untouched grant + release, batch 64, same core", grant_batched, 1, "µs/block");
  verdict ("region allocation: choose, take and give one block", region_alone, 50, "ns/block");
  if (json_path)
    write_json ();
  return 0;
}
