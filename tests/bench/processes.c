/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "processes.h"

#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

static GDir *
open_threads (pid_t pid) {
  g_autofree char *path = g_strdup_printf ("/proc/%d/task", (int)pid);

  return g_dir_open (path, 0, NULL);
}

double
processes_cpu_us (pid_t pid) {
  g_autoptr (GDir) threads = open_threads (pid);
  double sum = 0;
  const char *name;

  while (threads && (name = g_dir_read_name (threads))) {
    g_autofree char *path = g_strdup_printf ("/proc/%d/task/%s/schedstat", (int)pid, name);
    g_autofree char *text = NULL;

    if (g_file_get_contents (path, &text, NULL, NULL))
      sum += strtod (text, NULL) / 1000;
  }
  return sum;
}

void
processes_pin (pid_t pid, gboolean pinned) {
  const long n = sysconf (_SC_NPROCESSORS_ONLN);
  g_autoptr (GDir) threads = open_threads (pid);
  const char *name;
  cpu_set_t set;

  CPU_ZERO (&set);
  for (long i = pinned ? n - 1 : 0; i < n; i++)
    CPU_SET ((int)i, &set);
  while (threads && (name = g_dir_read_name (threads)))
    sched_setaffinity (atoi (name), sizeof set, &set);
}
