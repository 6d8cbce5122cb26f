/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the operator may ask a donor, at its control socket (control.md). */
#ifndef DOMYBS_DONOR_COMMANDS_H
#define DOMYBS_DONOR_COMMANDS_H

#include "donor/handover.h"
#include "donor/lender.h"
#include "donor/options.h"
#include "donor/page-server.h"
#include "io/control-server.h"

typedef struct DonorOperator DonorOperator;

struct DonorOperator {
  const DonorOptions *options;
  struct donor_page *page;
  Lender *lender;
  PageServer *pages;
  guint keys;            /* identities that may connect */
  ControlServer *server; /* NULL: none */
  gint64 started_at;     /* g_get_monotonic_time */
  /* Ends this worker with that status (enum keeper_exit, enum process_exit). */
  void (*leave) (DonorOperator *op, int status);
};

/* A ControlHandler; data: the DonorOperator. */
JsonNode *donor_command (gpointer data, ControlClient *client, const char *command, JsonObject *arguments, GError **error);

#endif
