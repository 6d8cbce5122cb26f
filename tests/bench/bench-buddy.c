/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What taking and releasing memory costs in the buddy allocator, beside malloc and a plain list of free units, and what is left
 * of free memory after many of both.
 *
 * The donor's units are blocks of 2 MiB, so what is free there is whole blocks by itself. Here units are pages of 4 KiB, 512 of
 * them a block, which is harder: chunks of powers of two (each as likely) are taken until the arena is filled to --fill
 * percent, then released at random and taken again, --operations times in all. A block counts as recoverable where it is free
 * as a whole; nothing is ever moved.
 */
#include "core/buddy.h"
#include "figures.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define BLOCK_ORDER 9u
#define BATCH 16u /* are timed at once: reading the clock costs as much as what is measured */
#define SAMPLES 20000u

static int mib = 4096, fill = 75;
static gint64 operations = 1000000;
static double *samples;

struct chunk {
  uint32_t unit, order;
};

struct arena {
  struct buddy buddy;
  void *memory;
  struct chunk *chunks;
  uint64_t n, n_chunks, random;
};

static uint64_t
below (struct arena *arena, uint64_t n) {
  arena->random ^= arena->random << 13;
  arena->random ^= arena->random >> 7;
  arena->random ^= arena->random << 17;
  return arena->random % n;
}

static double
now_ns (void) {
  struct timespec ts;

  clock_gettime (CLOCK_MONOTONIC, &ts);
  return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

static int
compare (const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;

  return x < y ? -1 : x > y;
}

static double
p50 (double *values, unsigned n) {
  qsort (values, n, sizeof *values, compare);
  return values[n / 2];
}

static gboolean
take (struct arena *arena, unsigned order) {
  const uint64_t unit = buddy_take (&arena->buddy, order);

  if (unit == BUDDY_NONE)
    return FALSE;
  arena->chunks[arena->n_chunks++] = (struct chunk){ (uint32_t)unit, order };
  return TRUE;
}

static void
drop (struct arena *arena) {
  const uint64_t i = below (arena, arena->n_chunks);

  if (!buddy_release (&arena->buddy, arena->chunks[i].unit, arena->chunks[i].order))
    g_error ("a chunk that was taken can't be released");
  arena->chunks[i] = arena->chunks[--arena->n_chunks];
}

static unsigned
pick_order (struct arena *arena, unsigned orders) {
  return (unsigned)below (arena, orders);
}

static struct arena *
make (unsigned orders) {
  struct arena *arena = g_new0 (struct arena, 1);

  arena->n = (uint64_t)mib * 256;
  arena->memory = g_malloc (buddy_bytes (arena->n));
  arena->chunks = g_new (struct chunk, arena->n);
  arena->random = 88172645463325252u;
  buddy_init (&arena->buddy, arena->n, arena->memory);
  buddy_release_run (&arena->buddy, 0, arena->n);
  while (arena->buddy.free * 100 > arena->n * (100 - (uint64_t)fill))
    if (!take (arena, pick_order (arena, orders)))
      break;
  return arena;
}

static void
clear (struct arena *arena) {
  g_free (arena->memory);
  g_free (arena->chunks);
  g_free (arena);
}

/* ns of one take and one release, on an arena that was worked on. */
static void
measure (struct arena *arena, unsigned orders, double *ret_take, double *ret_release) {
  double *releases = samples + SAMPLES;

  for (unsigned s = 0; s < SAMPLES; s++) {
    struct chunk some[BATCH];
    unsigned wanted[BATCH];
    double began;

    for (unsigned i = 0; i < BATCH; i++) {
      const uint64_t at = below (arena, arena->n_chunks);

      some[i] = arena->chunks[at];
      arena->chunks[at] = arena->chunks[--arena->n_chunks];
      wanted[i] = pick_order (arena, orders);
    }
    began = now_ns ();
    for (unsigned i = 0; i < BATCH; i++)
      buddy_release (&arena->buddy, some[i].unit, some[i].order);
    releases[s] = (now_ns () - began) / BATCH;
    began = now_ns ();
    for (unsigned i = 0; i < BATCH; i++)
      take (arena, wanted[i]);
    samples[s] = (now_ns () - began) / BATCH;
  }
  *ret_take = p50 (samples, SAMPLES);
  *ret_release = p50 (releases, SAMPLES);
}

static void
churn (struct arena *arena, unsigned orders, gint64 count) {
  const uint64_t least = arena->n * (100 - (uint64_t)fill) / 100;

  for (gint64 i = 0; i < count; i++)
    if (arena->n_chunks == 0 || arena->buddy.free > least) /* around `fill` all the time */
      take (arena, pick_order (arena, orders));
    else
      drop (arena);
}

/* malloc of as many bytes as a chunk has units, for a sense of scale. */
static void
measure_malloc (double *ret_take, double *ret_release) {
  const unsigned n = 65536;
  void **all = g_new (void *, n);
  double *releases = samples + SAMPLES;
  struct arena arena = { .random = 88172645463325252u };

  for (unsigned i = 0; i < n; i++)
    all[i] = malloc (16u << below (&arena, 7));
  for (unsigned s = 0; s < SAMPLES; s++) {
    unsigned at[BATCH], sizes[BATCH];
    double began;

    for (unsigned i = 0; i < BATCH; i++) {
      at[i] = (unsigned)below (&arena, n / BATCH) * BATCH + i;
      sizes[i] = 16u << below (&arena, 7);
    }
    began = now_ns ();
    for (unsigned i = 0; i < BATCH; i++)
      free (all[at[i]]);
    releases[s] = (now_ns () - began) / BATCH;
    began = now_ns ();
    for (unsigned i = 0; i < BATCH; i++)
      all[at[i]] = malloc (sizes[i]);
    samples[s] = (now_ns () - began) / BATCH;
  }
  for (unsigned i = 0; i < n; i++)
    free (all[i]);
  g_free (all);
  *ret_take = p50 (samples, SAMPLES);
  *ret_release = p50 (releases, SAMPLES);
}

static void
run_case (const char *what, unsigned orders, gboolean measured) {
  double *takes = g_new (double, figures_rounds), *releases = g_new (double, figures_rounds),
         *whole = g_new (double, figures_rounds);
  g_autofree char *take_name = g_strdup_printf ("%s: take, p50", what),
                  *release_name = g_strdup_printf ("%s: release, p50", what),
                  *whole_name = g_strdup_printf ("%s: free memory in whole blocks", what);

  for (int round = 0; round < figures_rounds; round++) {
    struct arena *arena = make (orders);

    churn (arena, orders, operations);
    whole[round] = 100.0 - buddy_fragmentation_permille (&arena->buddy, BLOCK_ORDER) / 10.0;
    measure (arena, orders, &takes[round], &releases[round]);
    while (arena->n_chunks)
      drop (arena);
    if (buddy_free_in_order (&arena->buddy, BLOCK_ORDER) != arena->n / 512 * 512)
      g_error ("not all is whole at the end");
    clear (arena);
  }
  if (measured) {
    figures_record (take_name, "ns", takes);
    figures_record (release_name, "ns", releases);
  }
  figures_record (whole_name, "%", whole);
  g_free (takes);
  g_free (releases);
  g_free (whole);
}

int
main (int argc, char **argv) {
  const GOptionEntry entries[] = {
    { "mib", 0, 0, G_OPTION_ARG_INT, &mib, "Size of the arena in MiB (4096)", "MIB" },
    { "fill", 0, 0, G_OPTION_ARG_INT, &fill, "How much of it is in use, percent (75)", "PERCENT" },
    { "operations", 0, 0, G_OPTION_ARG_INT64, &operations, "Takes and releases of each case before it is measured (1000000)",
      "N" },
    { NULL },
  };
  double *takes, *releases;

  figures_begin (argc, argv, "The arena's memory", "– what the buddy allocator costs and leaves", entries);
  if (mib < 16 || mib > (1 << 20) || fill < 1 || fill > 99 || operations < 0)
    g_error ("--mib 16 … 1048576, --fill 1 … 99, --operations 0 …");
  samples = g_new (double, 2 * SAMPLES);
  takes = g_new (double, figures_rounds);
  releases = g_new (double, figures_rounds);
  run_case ("pages", 1, TRUE);
  run_case ("1 … 64 pages", 7, TRUE);
  run_case ("1 … 512 pages", 10, TRUE);
  for (int round = 0; round < figures_rounds; round++)
    measure_malloc (&takes[round], &releases[round]);
  figures_record ("malloc of 16 … 1024 bytes: p50", "ns", takes);
  figures_record ("free: p50", "ns", releases);
  g_free (takes);
  g_free (releases);
  g_free (samples);
  return figures_end ();
}
