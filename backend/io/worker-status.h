/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a worker says about itself and those before it in the answer to `status`, the same in each program. */
#ifndef DOMYBS_IO_WORKER_STATUS_H
#define DOMYBS_IO_WORKER_STATUS_H

#include <json-glib/json-glib.h>

struct worker_status {
  guint64 keeper_pid;
  const char *mode; /* NULL: it has none */
  guint64 state_version;
  guint64 starts, deaths, strikes;                     /* as the keeper counts them */
  int last_status;                                     /* wait status of the last that died */
  gint64 last_death_at, keeper_started_at, started_at; /* monotonic time in µs */
  gboolean rolled_back;
};

/* Adds the member "worker". */
void worker_status_add (JsonBuilder *builder, const struct worker_status *status);

#endif
