/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "testing.h"

#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

static guint32 seed;
static bool tracing;
static unsigned divisor = 1;

static guint64
number_from_env (const char *name, guint64 max, guint64 otherwise) {
  const char *text = g_getenv (name);
  guint64 number = otherwise;
  g_autoptr (GError) error = NULL;

  if (text && !g_ascii_string_to_unsigned (text, 10, 0, max, &number, &error))
    g_error ("%s=%s: %s", name, text, error->message);
  return number;
}

void
testing_init (int *argc, char ***argv) {
  g_test_init (argc, argv, NULL);
  seed = (guint32)number_from_env ("DOMYBS_SEED", G_MAXUINT32, g_random_int ());
  divisor = (unsigned)number_from_env ("DOMYBS_STEPS_DIVISOR", 1000, 1);
  tracing = g_getenv ("DOMYBS_TRACE") != NULL;
  g_print ("# seed %u (the same again: DOMYBS_SEED=%u)\n", seed, seed);
}

GRand *
testing_rand (void) {
  const guint32 seeds[2] = { seed, g_str_hash (g_test_get_path ()) };

  return g_rand_new_with_seed_array (seeds, G_N_ELEMENTS (seeds));
}

bool
testing_once_in (GRand *rand, unsigned n) {
  return testing_below (rand, n) == 0;
}

uint64_t
testing_below (GRand *rand, uint64_t n) {
  const uint64_t high = g_rand_int (rand), low = g_rand_int (rand);

  return (high << 32 | low) % n;
}

uint64_t
testing_edgy (GRand *rand) {
  const uint64_t power = 1ull << testing_below (rand, 64);

  switch (testing_below (rand, 6)) {
  case 0:
    return testing_below (rand, 3);
  case 1:
    return power;
  case 2:
    return power - 1;
  case 3:
    return power + 1;
  case 4:
    return UINT64_MAX - testing_below (rand, 3);
  default:
    return testing_below (rand, UINT64_MAX);
  }
}

void
testing_trace (const char *format, ...) {
  va_list args;

  if (!tracing)
    return;
  va_start (args, format);
  g_autofree char *text = g_strdup_vprintf (format, args);
  va_end (args);
  g_print ("# %s\n", text);
}

unsigned
testing_steps (unsigned steps) {
  return MAX (1, steps / MAX (1, divisor));
}

/* The letter of /proc/PID/task/TID/stat; 0 if the thread has gone. */
static char
thread_state (const char *folder, const char *tid) {
  g_autofree char *path = g_build_filename (folder, tid, "stat", NULL), *text = NULL;
  const char *name_end;

  if (!g_file_get_contents (path, &text, NULL, NULL))
    return 0;
  name_end = strrchr (text, ')');
  return name_end && name_end[1] ? name_end[2] : 0;
}

static bool
all_stand (const char *folder) {
  g_autoptr (GDir) dir = g_dir_open (folder, 0, NULL);
  const char *tid;

  while (dir && (tid = g_dir_read_name (dir))) {
    const char state = thread_state (folder, tid);

    if (state && !strchr ("TtZX", state))
      return false;
  }
  return true;
}

bool
testing_stop (pid_t pid) {
  g_autofree char *folder = g_strdup_printf ("/proc/%d/task", (int)pid);
  const gint64 deadline = g_get_monotonic_time () + 60 * G_USEC_PER_SEC;

  if (kill (pid, SIGSTOP) != 0)
    return false;
  while (!all_stand (folder)) {
    if (g_get_monotonic_time () > deadline)
      g_error ("process %d still runs, 60 s after its SIGSTOP", (int)pid);
    g_usleep (200);
  }
  return true;
}
