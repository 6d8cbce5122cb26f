/* SPDX-License-Identifier: GPL-2.0-or-later */
/* domybs-donor: lends memory of this host to VMs of others: a keeper, and the worker that it starts from this same program. */
#include "core/crash-point.h"
#include "core/keeper-wire.h"
#include "donor/options.h"
#include "donor/start.h"
#include "donor/worker.h"

#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

/* One line on stderr for each message: services' logs add their own time and name. */
static GLogWriterOutput
write_log (GLogLevelFlags level, const GLogField *fields, gsize n_fields, gpointer data) {
  const char *message = NULL;

  if (level & G_LOG_LEVEL_DEBUG && !g_getenv ("G_MESSAGES_DEBUG"))
    return G_LOG_WRITER_HANDLED;
  for (gsize i = 0; i < n_fields; i++)
    if (g_str_equal (fields[i].key, "MESSAGE"))
      message = fields[i].value;
  if (message)
    fprintf (stderr, "%s%s\n", level & (G_LOG_LEVEL_WARNING | G_LOG_LEVEL_CRITICAL | G_LOG_LEVEL_ERROR) ? "warning: " : "",
             message);
  return G_LOG_WRITER_HANDLED;
}

int
main (int argc, char **argv) {
  g_autoptr (GError) error = NULL;
  g_autoptr (DonorOptions) options = NULL;
  g_auto (GStrv) arguments = g_strdupv (argv); /* parsing takes them out of argv */

  CRASH_POINTS_INIT ();
  setlocale (LC_ALL, "");
  signal (SIGPIPE, SIG_IGN);
  g_log_set_writer_func (write_log, NULL, NULL);
  options = donor_options_parse (&argc, &argv, &error);
  if (!options) {
    fprintf (stderr, "domybs-donor: %s\n", error->message);
    for (char **argument = arguments; *argument; argument++)
      if (g_str_equal (*argument, "--worker")) /* an upgrade that does not know what this one was started with */
        return KEEPER_EXIT_CANT;
    return 2;
  }
  if (options->version) {
    puts ("domybs-donor " DOMYBS_VERSION);
    return EXIT_SUCCESS;
  }
  return options->is_worker ? donor_worker_run (options) : donor_start_run (options, arguments);
}
