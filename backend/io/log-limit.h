/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Keeps a guest from flooding the host's log: a burst passes, then one line a second. */
#ifndef DOMYBS_IO_LOG_LIMIT_H
#define DOMYBS_IO_LOG_LIMIT_H

#include <glib.h>

typedef struct {
  gint64 refilled_at; /* g_get_monotonic_time */
  unsigned tokens;
  guint64 suppressed;
} LogLimit;

/* Whether a line may be written now. Says how many were left out, when one passes again. */
gboolean log_limit_pass (LogLimit *limit);

#endif
