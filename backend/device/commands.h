/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The commands of domybs-backend's control socket; control.md describes them. */
#ifndef DOMYBS_DEVICE_COMMANDS_H
#define DOMYBS_DEVICE_COMMANDS_H

#include "device/far-link.h"
#include "device/monitor.h"

/* What the commands work on. */
typedef struct {
  Backend *backend;
  Monitor *monitor;
  FarLink *far;
  ControlServer *server;
  gint64 started_at; /* g_get_monotonic_time: this worker */
} Operator;

/* A ControlHandler; data is an Operator. */
JsonNode *backend_command (gpointer data, ControlClient *client, const char *command, JsonObject *arguments, GError **error);

#endif
