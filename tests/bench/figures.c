/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "figures.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

int figures_rounds = 7;
static char *json_path;
static GString *json;

void
figures_begin (int argc, char **argv, const char *title, const char *summary, const GOptionEntry *entries) {
  const GOptionEntry own[] = {
    { "rounds", 0, 0, G_OPTION_ARG_INT, &figures_rounds, "Rounds of each measurement (7)", "N" },
    { "json", 0, 0, G_OPTION_ARG_FILENAME, &json_path, "Write the results there, too", "FILE" },
    { NULL },
  };
  g_autoptr (GOptionContext) context = g_option_context_new (summary);
  g_autoptr (GError) error = NULL;

  g_option_context_add_main_entries (context, own, NULL);
  if (entries)
    g_option_context_add_main_entries (context, entries, NULL);
  if (!g_option_context_parse (context, &argc, &argv, &error) || argc > 1 || figures_rounds < 1) {
    g_printerr ("%s: %s\n", g_get_prgname (), error ? error->message : "wrong arguments");
    exit (2);
  }
  json = g_string_new (NULL);
  printf ("%-66s %10s %10s %10s\n", title, "median", "min", "max");
}

static int
compare_doubles (const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;

  return x < y ? -1 : x > y;
}

void
figures_record (const char *name, const char *unit, double *values) {
  const size_t n = (size_t)figures_rounds;

  qsort (values, n, sizeof *values, compare_doubles);
  printf ("  %-64s %10.1f %10.1f %10.1f  %s\n", name, values[n / 2], values[0], values[n - 1], unit);
  fflush (stdout);
  g_string_append_printf (json, "%s{\"name\": \"%s\", \"unit\": \"%s\", \"median\": %.2f, \"min\": %.2f, \"max\": %.2f}",
                          json->len ? ",\n  " : "", name, unit, values[n / 2], values[0], values[n - 1]);
}

int
figures_end (void) {
  g_autofree char *text = g_strdup_printf ("[\n  %s\n]\n", json->str);
  g_autoptr (GError) error = NULL;

  g_string_free (json, TRUE);
  if (!json_path || g_file_set_contents (json_path, text, -1, &error))
    return 0;
  g_printerr ("%s: %s\n", g_get_prgname (), error->message);
  return 1;
}

static double
read_us (clockid_t clock) {
  struct timespec ts;

  clock_gettime (clock, &ts);
  return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
}

double
figures_cpu_us (void) {
  return read_us (CLOCK_PROCESS_CPUTIME_ID);
}

double
figures_us (void) {
  return read_us (CLOCK_MONOTONIC);
}
