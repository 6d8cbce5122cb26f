/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "io/host-memory.h"
#include "io/error.h"

#include <stdio.h>

gboolean
host_memory_read (HostMemory *ret_memory, GError **error) {
  HostMemory memory = { 0 };
  char line[128];
  FILE *file = fopen ("/proc/meminfo", "re");

  if (!file) {
    domybs_error_errno (error, "can't read /proc/meminfo");
    return FALSE;
  }
  while (fgets (line, sizeof line, file)) {
    guint64 kib;

    if (sscanf (line, "MemTotal: %" G_GUINT64_FORMAT " kB", &kib) == 1)
      memory.total_bytes = kib * 1024;
    else if (sscanf (line, "MemAvailable: %" G_GUINT64_FORMAT " kB", &kib) == 1)
      memory.available_bytes = kib * 1024;
  }
  fclose (file);
  if (memory.total_bytes == 0) {
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_FAILED, "/proc/meminfo has no MemTotal");
    return FALSE;
  }
  *ret_memory = memory;
  return TRUE;
}

uint64_t
host_memory_reserve (uint64_t total_bytes) {
  const uint64_t MiB = 1ull << 20;
  uint64_t reserve = total_bytes / 10;

  reserve = CLAMP (reserve, 512 * MiB, 8192 * MiB);
  return MIN (reserve, total_bytes / 2);
}
