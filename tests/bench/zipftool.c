/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The workload of the paging benchmarks inside a guest. It has no libraries there.
 *
 *     zipftool SIZE [--served]
 *
 * SIZE (a number with K, M, G) of values of 1 KiB, a power of two of them. It says "ok filled" and obeys lines from standard
 * input:
 *
 *     run N     does N operations. Answer: "ok ran N SECONDS P50 P99 P999 PSWPIN PSWPOUT", percentiles in ns
 *     exit
 *
 * Each start does the same operations. Values are found by a table that is locked in memory, as its code is; values are paged
 * as the kernel likes.
 *
 * --served: another process asks for each operation, and gets the value, over a unix socket, one at a time: a server of values
 * with one client. Without it an operation is a function call.
 *
 * Exit status: 0 all well, 1 could not do it, 2 usage, 3 a value was not what had been put there ("mismatch").
 */
#include "zipf.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

static struct zipf zipf;
static struct zipf_times times;
static char *values;
static uint64_t state = 88172645463325252ull;
static int client = -1; /* the socket to the process that has the values; -1: this one */

static void __attribute__ ((noreturn)) fail (int status, const char *what) {
  printf ("failed %s: %s\n", what, strerror (errno));
  exit (status);
}

static void *
map (size_t bytes) {
  void *start = mmap (NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

  if (start == MAP_FAILED)
    fail (1, "mmap");
  return start;
}

static uint32_t
parse_values (const char *text) {
  char *end;
  uint64_t bytes = strtoull (text, &end, 10), n;

  for (const char *unit = "KMG", *at = unit; *at; at++)
    if (*end == *at && !end[1])
      bytes <<= 10 * (at - unit + 1);
  n = bytes / ZIPF_VALUE_BYTES;
  if (n < 2 || n > 1u << 31 || n & (n - 1)) {
    printf ("failed: '%s' is no power of two of values\n", text);
    exit (2);
  }
  return (uint32_t)n;
}

/* ---- served ---- */

struct request {
  uint32_t i;
  uint32_t replace;
};

static void
serve (int socket) {
  struct request request;

  while (recv (socket, &request, sizeof request, 0) == sizeof request) {
    char *value = values + (size_t)request.i * ZIPF_VALUE_BYTES;

    if (request.replace)
      zipf_replace (values, request.i);
    if (send (socket, value, ZIPF_VALUE_BYTES, 0) != ZIPF_VALUE_BYTES)
      exit (1);
  }
  exit (0);
}

static void
start_server (void) {
  const pid_t parent = getpid ();
  int pair[2];

  if (socketpair (AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
    fail (1, "socketpair");
  switch (fork ()) {
  case -1:
    fail (1, "fork");
  case 0:
    prctl (PR_SET_PDEATHSIG, SIGKILL);
    if (getppid () != parent)
      exit (1);
    zipf_fill (values, zipf.n);
    if (send (pair[1], "", 1, 0) != 1)
      exit (1);
    serve (pair[1]);
    return;
  default:
    close (pair[1]);
    client = pair[0];
    if (recv (client, &(char){ 0 }, 1, 0) != 1)
      fail (1, "the server");
  }
}

static bool
ask (void) {
  static uint64_t value[ZIPF_VALUE_BYTES / 8];
  struct request request;
  bool replace;

  request.i = zipf_choose (&zipf, &state, &replace);
  request.replace = replace;
  if (send (client, &request, sizeof request, 0) != sizeof request || recv (client, value, sizeof value, 0) != sizeof value)
    fail (1, "asking the server");
  return zipf_check (value, request.i);
}

/* ---- running ---- */

static uint64_t
vmstat (const char *key) {
  FILE *file = fopen ("/proc/vmstat", "r");
  char line[128];
  uint64_t value = 0;

  while (file && fgets (line, sizeof line, file))
    if (strncmp (line, key, strlen (key)) == 0 && line[strlen (key)] == ' ')
      value = strtoull (line + strlen (key), NULL, 10);
  if (file)
    fclose (file);
  return value;
}

static double
run (uint64_t n) {
  const uint64_t began = zipf_now_ns ();
  uint64_t now = began;

  memset (&times, 0, sizeof times);
  while (times.count < n) {
    const uint64_t before = now;

    if (!(client < 0 ? zipf_operation (&zipf, values, &state) : ask ())) {
      printf ("mismatch in a value\n");
      exit (3);
    }
    now = zipf_now_ns ();
    zipf_times_add (&times, now - before);
  }
  return (double)(now - began) / 1e9;
}

int
main (int argc, char **argv) {
  const bool served = argc == 3 && strcmp (argv[2], "--served") == 0;
  char line[128];
  uint32_t n;
  void *table;

  setvbuf (stdout, NULL, _IOLBF, 0);
  if (argc < 2 || argc > 3 || (argc == 3 && !served)) {
    printf ("failed usage: zipftool SIZE [--served]\n");
    return 2;
  }
  n = parse_values (argv[1]);
  table = map (zipf_table_bytes (n));
  zipf_init (&zipf, n, table);
  if (mlockall (MCL_CURRENT))
    fail (1, "mlockall");
  values = map (n * (size_t)ZIPF_VALUE_BYTES);
  /* What is paged are pages of 4 KiB: huge ones would be split first, or move whole. */
  madvise (values, n * (size_t)ZIPF_VALUE_BYTES, MADV_NOHUGEPAGE);
  if (served)
    start_server ();
  else
    zipf_fill (values, n);
  printf ("ok filled %u values\n", n);
  while (fgets (line, sizeof line, stdin)) {
    unsigned long long operations;
    uint64_t in, out;
    double seconds;

    if (strncmp (line, "exit", 4) == 0)
      break;
    if (sscanf (line, "run %llu", &operations) != 1) {
      printf ("failed: what is '%s'?\n", strtok (line, "\n"));
      continue;
    }
    in = vmstat ("pswpin");
    out = vmstat ("pswpout");
    seconds = run (operations);
    printf ("ok ran %llu %.6f %.0f %.0f %.0f %llu %llu\n", operations, seconds, zipf_times_at (&times, 0.5),
            zipf_times_at (&times, 0.99), zipf_times_at (&times, 0.999), (unsigned long long)(vmstat ("pswpin") - in),
            (unsigned long long)(vmstat ("pswpout") - out));
  }
  return 0;
}
