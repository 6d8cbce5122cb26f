/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "io/log-limit.h"

#define BURST 10u

gboolean
log_limit_pass (LogLimit *limit) {
  const gint64 now = g_get_monotonic_time ();
  const guint64 seconds = limit->refilled_at ? (guint64)(now - limit->refilled_at) / G_USEC_PER_SEC : BURST;

  if (seconds) {
    limit->tokens = (unsigned)MIN (BURST, limit->tokens + seconds);
    limit->refilled_at = now;
  }
  if (limit->tokens == 0) {
    limit->suppressed++;
    return FALSE;
  }
  limit->tokens--;
  if (limit->suppressed)
    g_message ("(%" G_GUINT64_FORMAT " lines of this kind were left out)", limit->suppressed);
  limit->suppressed = 0;
  return TRUE;
}
