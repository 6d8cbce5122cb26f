/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "io/keeper-log.h"

#include <poll.h>
#include <stdarg.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define BURST 20
#define INTERVAL_MS 1000

void
keeper_log (const char *format, ...) {
  static char line[KEEPER_LINE_BYTES_MAX];
  struct pollfd room = { .fd = STDERR_FILENO, .events = POLLOUT };
  va_list args;
  int n;

  va_start (args, format);
  n = vsnprintf (line, sizeof line - 1, format, args);
  va_end (args);
  if (n < 0 || poll (&room, 1, 0) != 1)
    return;
  if (n > (int)sizeof line - 2)
    n = (int)sizeof line - 2;
  line[n++] = '\n';
  if (write (STDERR_FILENO, line, (size_t)n) < 0)
    return; /* there is nobody to tell */
}

bool
keeper_log_has_room (int64_t now_ms) {
  static int64_t full_at; /* when the whole burst may be used again */

  if (full_at < now_ms)
    full_at = now_ms;
  if (full_at > now_ms + (BURST - 1) * INTERVAL_MS)
    return false;
  full_at += INTERVAL_MS;
  return true;
}

const char *
keeper_status_text (int wait_status) {
  static char text[64];
  const char *what = WIFSIGNALED (wait_status) ? sigdescr_np (WTERMSIG (wait_status)) : NULL;

  if (WIFSIGNALED (wait_status))
    snprintf (text, sizeof text, "signal %d (%s)", WTERMSIG (wait_status), what ? what : "?");
  else
    snprintf (text, sizeof text, "exit status %d", WEXITSTATUS (wait_status));
  return text;
}
