/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "io/host-pressure.h"
#include "io/sandbox-calls.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

SANDBOX_CALLS (SANDBOX_CALL (pread64));

/* Held open, because a worker in its sandbox opens nothing. −2: there is none. */
static int pressure_fd = -1;

/* "some avg10=1.23 avg60=…" */
static gboolean
find (const char *text, const char *line, unsigned *ret_value) {
  const char *at = strstr (text, line);
  unsigned whole, part;

  if (!at || sscanf (at + strlen (line), " avg10=%u.%2u", &whole, &part) != 2 || whole > 100)
    return FALSE;
  *ret_value = whole * 100 + part;
  return TRUE;
}

gboolean
host_pressure_read (HostPressure *ret_pressure) {
  char text[256];
  ssize_t n;

  *ret_pressure = (HostPressure){ 0 };
  if (pressure_fd == -1) {
    pressure_fd = open ("/proc/pressure/memory", O_RDONLY | O_CLOEXEC);
    if (pressure_fd < 0)
      pressure_fd = -2;
  }
  n = pressure_fd < 0 ? -1 : pread (pressure_fd, text, sizeof text - 1, 0);
  if (n <= 0)
    return FALSE;
  text[n] = 0;
  return find (text, "some", &ret_pressure->some) && find (text, "full", &ret_pressure->full);
}
