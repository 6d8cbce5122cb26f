/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "io/host-memory.h"
#include "io/error.h"

#include "io/sandbox-calls.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

SANDBOX_CALLS (SANDBOX_CALL (pread64));

/* Held open, because a worker in its sandbox opens nothing. */
static int meminfo_fd = -1;

/* "NAME:   123 kB", in bytes; 0 when there is no such line. */
static uint64_t
find_bytes (const char *text, const char *name) {
  const char *line = strstr (text, name);
  guint64 kib;

  return line && sscanf (line + strlen (name), ": %" G_GUINT64_FORMAT " kB", &kib) == 1 ? kib * 1024 : 0;
}

gboolean
host_memory_read (HostMemory *ret_memory, GError **error) {
  HostMemory memory;
  char text[512]; /* both are in the first three lines */
  ssize_t n;

  if (meminfo_fd < 0)
    meminfo_fd = open ("/proc/meminfo", O_RDONLY | O_CLOEXEC);
  n = meminfo_fd < 0 ? -1 : pread (meminfo_fd, text, sizeof text - 1, 0);
  if (n < 0) {
    domybs_error_errno (error, "can't read /proc/meminfo");
    return FALSE;
  }
  text[n] = '\0';
  memory = (HostMemory){ find_bytes (text, "MemTotal"), find_bytes (text, "MemAvailable") };
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
