/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "io/worker-status.h"
#include "io/json-members.h"

#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static guint64
ms_since (gint64 monotonic_time) {
  return (guint64)MAX (g_get_monotonic_time () - monotonic_time, 0) / 1000;
}

/* As a shell would say it. */
static char *
death_text (int status) {
  return WIFSIGNALED (status) ? g_strdup_printf ("signal %d (%s)", WTERMSIG (status), g_strsignal (WTERMSIG (status)))
                              : g_strdup_printf ("exit status %d", WEXITSTATUS (status));
}

void
worker_status_add (JsonBuilder *builder, const struct worker_status *status) {
  g_autofree char *death = status->deaths ? death_text (status->last_status) : NULL;

  json_builder_set_member_name (builder, "worker");
  json_builder_begin_object (builder);
  add_int (builder, "pid", (guint64)getpid ());
  add_int (builder, "keeper-pid", status->keeper_pid);
  add_string (builder, "version", DOMYBS_VERSION);
  add_int (builder, "state-version", status->state_version);
  if (status->mode)
    add_string (builder, "mode", status->mode);
  add_int (builder, "starts", status->starts);
  add_int (builder, "deaths", status->deaths);
  add_int (builder, "strikes", status->strikes);
  if (death)
    add_string (builder, "last-death", death);
  else
    add_null (builder, "last-death");
  add_int_or_null (builder, "last-death-age-ms", death != NULL, ms_since (status->last_death_at));
  add_int (builder, "age-ms", ms_since (status->started_at));
  add_int (builder, "keeper-age-ms", ms_since (status->keeper_started_at));
  add_bool (builder, "rolled-back", status->rolled_back);
  json_builder_end_object (builder);
}
