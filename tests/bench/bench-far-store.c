/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the page store takes of a page's way: get, place with commit, discard, opening; sequential and at random over a disk
 * that is much larger than the processor's caches. Medians of the rounds, with minimum and maximum. And the bytes that its
 * tables take.
 */
#include <glib.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#include "core/far-store-internal.h"

#define SLOTS 32u
#define SAMPLES (1u << 18) /* of each random measurement */

static int rounds = 7;
static int gib = 16;
static char *json_path;
static GString *json;
static bool prefetching;

static double
now_ns (void) {
  struct timespec ts;

  clock_gettime (CLOCK_MONOTONIC, &ts); /* not of the thread: that is a system call, which is dearer than what is measured */
  return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

static int
compare_doubles (const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;

  return x < y ? -1 : x > y;
}

static void
record_result (const char *name, const char *unit, double *values) {
  qsort (values, (size_t)rounds, sizeof *values, compare_doubles);
  printf ("  %-64s %10.1f %10.1f %10.1f  %s\n", name, values[rounds / 2], values[0], values[rounds - 1], unit);
  g_string_append_printf (json, "%s{\"name\": \"%s\", \"unit\": \"%s\", \"median\": %.2f, \"min\": %.2f, \"max\": %.2f}",
                          json->len ? ",\n  " : "", name, unit, values[rounds / 2], values[0], values[rounds - 1]);
}

static void
record_one (const char *name, const char *unit, double value) {
  printf ("  %-64s %10.2f %32s\n", name, value, unit);
  g_string_append_printf (json, "%s{\"name\": \"%s\", \"unit\": \"%s\", \"value\": %.4f}", json->len ? ",\n  " : "", name, unit,
                          value);
}

struct bench {
  struct far_geometry geometry;
  void *state;
  size_t state_bytes;
  struct far_store *store;
  uint32_t *order; /* SAMPLES pages at random */
};

/* What a storage of endless speed would do. */
static void
drain (struct bench *bench) {
  struct far_write write;

  while (far_store_next_write (bench->store, &write))
    far_store_written (bench->store, write.segment);
}

static void
clean (struct bench *bench) {
  struct far_change changes[FAR_COMMIT_MAX];
  uint32_t segment, pages[FAR_COMMIT_MAX];
  bool urgent;

  while (far_store_wants_cleaning (bench->store, &urgent) && far_store_victim (bench->store, &segment)) {
    unsigned n;

    while ((n = far_store_pages_of (bench->store, segment, pages, FAR_COMMIT_MAX)) > 0) {
      for (unsigned i = 0; i < n; i++) {
        struct far_spot spot;

        changes[i].page = pages[i];
        far_store_get (bench->store, pages[i], &changes[i].now);
        while (far_store_place (bench->store, FAR_CLASS_CLEANED, changes[i].now.bytes, &spot) != FAR_ROOM)
          drain (bench);
        changes[i].now.segment = spot.segment;
        changes[i].now.offset = spot.offset;
      }
      far_store_commit (bench->store, changes, n);
    }
  }
}

/* n pages in commits of `batch`; ns per page. order NULL: one after the other from `first` on. with_cleaning: that is counted,
 * too. */
static double
write_pages (struct bench *bench, const uint32_t *order, uint32_t first, uint32_t n, unsigned batch, uint32_t bytes,
             bool with_cleaning) {
  const enum far_class class = bytes == FAR_PAGE_BYTES ? FAR_CLASS_RAW : FAR_CLASS_PACKED;
  struct far_change changes[FAR_COMMIT_MAX];
  double ns = 0, start;

  for (uint32_t done = 0; done < n; done += batch) {
    uint64_t version;

    if (!with_cleaning)
      clean (bench);
    if (prefetching) { /* as the engine does: long before */
      far_store_prefetch (bench->store, order[done]);
      for (unsigned i = 0; i < 2000; i++)
        __asm__ volatile ("" ::: "memory");
    }
    start = now_ns ();
    if (with_cleaning)
      clean (bench);
    version = far_store_take_versions (bench->store, batch);
    for (unsigned i = 0; i < batch; i++) {
      struct far_spot spot;

      while (far_store_place (bench->store, class, bytes, &spot) != FAR_ROOM)
        drain (bench);
      changes[i] = (struct far_change){ .page = order ? order[done + i] : first + done + i,
                                        .now = { .kind = bytes == FAR_PAGE_BYTES ? FAR_RAW : FAR_PACKED,
                                                 .bytes = bytes,
                                                 .segment = spot.segment,
                                                 .offset = spot.offset,
                                                 .version = version + i } };
    }
    far_store_commit (bench->store, changes, batch);
    ns += now_ns () - start;
  }
  return ns / n;
}

static double
get_pages (struct bench *bench, bool random) {
  const double start = now_ns ();
  struct far_page page;
  uint64_t sum = 0;

  for (uint32_t i = 0; i < SAMPLES; i++) {
    far_store_get (bench->store, random ? bench->order[i] : i, &page);
    sum += page.version;
  }
  g_assert (sum);
  return (now_ns () - start) / SAMPLES;
}

static double
clock_cost (void) {
  const double start = now_ns ();

  for (unsigned i = 0; i < 1000; i++)
    (void)now_ns ();
  return (now_ns () - start) / 1000;
}

/* Pages in order of another random sequence, each once. */
static void
shuffle (struct bench *bench, GRand *rand) {
  const uint32_t step = (uint32_t)(bench->geometry.n_pages / SAMPLES);

  for (uint32_t i = 0; i < SAMPLES; i++)
    bench->order[i] = i * step + g_rand_int (rand) % step;
  for (uint32_t i = SAMPLES - 1; i > 0; i--) {
    const uint32_t k = g_rand_int (rand) % (i + 1), page = bench->order[i];

    bench->order[i] = bench->order[k];
    bench->order[k] = page;
  }
}

static void
run (struct bench *bench) {
  g_autofree double *values = g_new (double, rounds);
  GRand *rand = g_rand_new_with_seed (1);
  const uint32_t n_pages = (uint32_t)bench->geometry.n_pages;
  const double tick = clock_cost ();
  const char *why = NULL;

  (void)write_pages (bench, NULL, 0, n_pages, FAR_COMMIT_MAX, FAR_PAGE_BYTES, true);
#define MEASURE(name, expression)                                                                                              \
  do {                                                                                                                         \
    for (int round = 0; round < rounds; round++) {                                                                             \
      shuffle (bench, rand);                                                                                                   \
      values[round] = (expression);                                                                                            \
    }                                                                                                                          \
    record_result (name, "ns", values);                                                                                        \
  } while (0)
  MEASURE ("get, one after the other", get_pages (bench, false));
  MEASURE ("get, at random", get_pages (bench, true));
  MEASURE ("place + commit of 1 page, one after the other",
           write_pages (bench, NULL, (uint32_t)round * SAMPLES, SAMPLES, 1, FAR_PAGE_BYTES, false) - tick);
  MEASURE ("place + commit of 64 pages, one after the other",
           write_pages (bench, NULL, (uint32_t)round * SAMPLES, SAMPLES, 64, FAR_PAGE_BYTES, false) - tick / 64);
  MEASURE ("place + commit of 1 page, at random",
           write_pages (bench, bench->order, 0, SAMPLES, 1, FAR_PAGE_BYTES, false) - tick);
  prefetching = true;
  MEASURE ("  the same when it was prefetched",
           write_pages (bench, bench->order, 0, SAMPLES, 1, FAR_PAGE_BYTES, false) - tick);
  prefetching = false;
  MEASURE ("place + commit of 64 pages, at random",
           write_pages (bench, bench->order, 0, SAMPLES, 64, FAR_PAGE_BYTES, false) - tick / 64);
  MEASURE ("place + commit of 64 packed pages (1500 bytes), at random",
           write_pages (bench, bench->order, 0, SAMPLES, 64, 1500, false) - tick / 64);
  MEASURE ("  the same with the cleaning that it causes (full, spare 12 %)",
           write_pages (bench, bench->order, 0, SAMPLES, 64, FAR_PAGE_BYTES, true) - tick / 64);
  for (int round = 0; round < rounds; round++) {
    const double start = now_ns ();

    far_store_close (bench->store);
    bench->store = far_store_open (bench->state, bench->state_bytes, &bench->geometry, &why);
    g_assert (bench->store);
    values[round] = (now_ns () - start) / 1e6;
  }
  record_result ("close, open with all checks: the whole disk in use", "ms", values);
  MEASURE ("discard of 512 pages in a row, per page", ({
             const double start = now_ns ();

             (void)far_store_discard (bench->store, (uint64_t)round * SAMPLES, SAMPLES, UINT32_MAX);
             (now_ns () - start) / SAMPLES;
           }));
  record_one ("tables: bytes per page", "bytes", (double)far_store_overhead_bytes (&bench->geometry) / n_pages);
  record_one ("tables: of the disk's size", "%",
              (double)far_store_overhead_bytes (&bench->geometry) / n_pages / FAR_PAGE_BYTES * 100);
  g_rand_free (rand);
}

int
main (int argc, char **argv) {
  const GOptionEntry entries[] = {
    { "rounds", 0, 0, G_OPTION_ARG_INT, &rounds, "Rounds of each measurement (7)", "N" },
    { "gib", 0, 0, G_OPTION_ARG_INT, &gib, "Size of the disk (16)", "N" },
    { "json", 0, 0, G_OPTION_ARG_FILENAME, &json_path, "Write the results there, too", "FILE" },
    { NULL },
  };
  g_autoptr (GOptionContext) context = g_option_context_new ("– what the page store of a far disk takes");
  g_autoptr (GError) error = NULL;
  struct bench bench = { .geometry = { .n_stage_slots = SLOTS } };
  const char *why = NULL;

  g_option_context_add_main_entries (context, entries, NULL);
  if (!g_option_context_parse (context, &argc, &argv, &error) || argc > 1 || rounds < 1 || gib < 8 || gib > 1024
      || rounds > gib) {
    g_printerr ("bench-far-store: %s\n", error ? error->message : "wrong arguments");
    return 2;
  }
  bench.geometry.n_pages = (uint64_t)gib << 18;
  bench.geometry.n_places = far_store_places_needed (bench.geometry.n_pages, 120, SLOTS);
  bench.state_bytes = far_store_state_bytes (&bench.geometry);
  /* shared memory, as a memfd is */
  bench.state = mmap (NULL, bench.state_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (bench.state == MAP_FAILED)
    g_error ("not enough memory");
  far_store_format (bench.state, &bench.geometry);
  bench.store = far_store_open (bench.state, bench.state_bytes, &bench.geometry, &why);
  if (!bench.store)
    g_error ("%s", why);
  far_store_cover (bench.store, bench.geometry.n_places);
  bench.order = g_new (uint32_t, SAMPLES);
  json = g_string_new (NULL);
  printf ("%-66s %10s %10s %10s\n", "The page store, per page", "median", "min", "max");
  run (&bench);
  far_store_close (bench.store);
  g_free (bench.order);
  munmap (bench.state, bench.state_bytes);
  if (json_path) {
    g_autofree char *text = g_strdup_printf ("[\n  %s\n]\n", json->str);

    if (!g_file_set_contents (json_path, text, -1, &error)) {
      g_printerr ("bench-far-store: %s\n", error->message);
      return 1;
    }
  }
  g_string_free (json, TRUE);
  return 0;
}
