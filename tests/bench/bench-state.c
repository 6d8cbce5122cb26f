/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What it costs to keep a device's state valid at every instant: filling and committing the record of one transaction, without
 * its effects; and what the next worker does before it can go on. CPU time of one thread; medians of the rounds, with minimum
 * and maximum.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "requests.h"
#include "state-image.h"

#define COMMITS 20000
#define LOADS 200

static int rounds = 7;
static char *json_path;
static GString *json;

static double
now_ns (void) {
  struct timespec ts;

  clock_gettime (CLOCK_THREAD_CPUTIME_ID, &ts);
  return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

static int
compare_doubles (const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;

  return x < y ? -1 : x > y;
}

static void
record_result (const char *name, double *values) {
  qsort (values, (size_t)rounds, sizeof *values, compare_doubles);
  printf ("  %-64s %10.0f %10.0f %10.0f  ns\n", name, values[rounds / 2], values[0], values[rounds - 1]);
  g_string_append_printf (json, "%s{\"name\": \"%s\", \"unit\": \"ns\", \"median\": %.1f, \"min\": %.1f, \"max\": %.1f}",
                          json->len ? ",\n  " : "", name, values[rounds / 2], values[0], values[rounds - 1]);
}

/* A device in a session; each transaction notes a change of n_runs runs of one block and an answer of so many bytes. */
static void
commits (const char *name, struct image *image, struct memory_device *device, unsigned n_runs, unsigned answer_bytes) {
  g_autofree double *values = g_new (double, rounds);

  for (int round = 0; round < rounds; round++) {
    const double start = now_ns ();

    for (unsigned i = 0; i < COMMITS; i++) {
      struct memory_device_answer *answer = &device->answers[i % DOMYBS_REPLAY_DEPTH];
      struct state_record *record;

      if (n_runs) {
        device->change.kind = i % 2 ? DEVICE_CHANGE_GIVE : DEVICE_CHANGE_TAKE;
        device->change.n_runs = n_runs;
        for (unsigned k = 0; k < n_runs; k++)
          device->change.runs[k] = (struct block_run){ 2 * k, 1 };
        device->answered = (int)(i % DOMYBS_REPLAY_DEPTH);
        answer->id = i;
        answer->bytes = answer_bytes;
      }
      record = image_begin (image, device);
      if (n_runs)
        image_push (record, 0, answer->response, answer_bytes);
      image_commit (image);
    }
    values[round] = (now_ns () - start) / COMMITS;
  }
  record_result (name, values);
}

static void
loads (const char *name, uint64_t window_blocks) {
  const struct memory_device_options options = { .window_blocks = window_blocks, .max_blocks = window_blocks };
  const size_t bytes = device_state_bytes (window_blocks);
  g_autofree double *values = g_new (double, rounds);
  g_autofree uint8_t *memory = g_malloc0 (bytes);
  struct device_state state;
  struct memory_device device;
  const char *why;

  device_state_create (&state, memory, window_blocks, "bench");
  g_assert (memory_device_init (&device, &options, &why));
  device_state_save_device (state.record, &device);
  state.record->scalars.session = state.scalars->session;
  state.record->scalars.backend = state.scalars->backend;
  device_state_commit (&state);
  device_state_done (&state);
  for (uint64_t i = 0; i < window_blocks / 128; i++)
    state.bits[i] = 0x5555555555555555ull; /* half of the window, every other block */
  for (int round = 0; round < rounds; round++) {
    const double start = now_ns ();

    for (unsigned i = 0; i < LOADS; i++) {
      g_assert (!device_state_check (memory, bytes, window_blocks));
      device_state_recover (&state);
      g_assert (!device_state_load_device (&state, &device));
    }
    values[round] = (now_ns () - start) / LOADS;
  }
  record_result (name, values);
  memory_device_clear (&device);
}

int
main (int argc, char **argv) {
  const GOptionEntry entries[] = {
    { "rounds", 0, 0, G_OPTION_ARG_INT, &rounds, "Rounds of each measurement (7)", "N" },
    { "json", 0, 0, G_OPTION_ARG_FILENAME, &json_path, "Write the results there, too", "FILE" },
    { NULL },
  };
  g_autoptr (GOptionContext) context = g_option_context_new ("– what a transaction of the device's state costs");
  g_autoptr (GError) error = NULL;
  struct memory_device device;
  struct image image = image_new ("bench");

  g_option_context_add_main_entries (context, entries, NULL);
  if (!g_option_context_parse (context, &argc, &argv, &error) || argc > 1 || rounds < 1) {
    g_printerr ("bench-state: %s\n", error ? error->message : "wrong arguments");
    return 2;
  }
  json = g_string_new (NULL);
  printf ("%-66s %10s %10s %10s\n", "A device's state", "median", "min", "max");
  image_device_init (&device);
  commits ("commit: numbers only", &image, &device, 0, 0);
  commits ("commit: GRANT or RELEASE of 1 run", &image, &device, 1, 64);
  commits ("commit: GRANT or RELEASE of 128 runs", &image, &device, 128, 2096);
  memory_device_clear (&device);
  image_clear (&image);
  loads ("check, recover and load: window of 2 GiB", 1024);
  loads ("check, recover and load: window of 1 TiB", 524288);
  if (json_path) {
    g_autofree char *text = g_strdup_printf ("[\n  %s\n]\n", json->str);

    if (!g_file_set_contents (json_path, text, -1, &error)) {
      g_printerr ("bench-state: %s\n", error->message);
      return 1;
    }
  }
  g_string_free (json, TRUE);
  return 0;
}
