/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The commands of domybs-backend's control socket; control.md describes them. */
#ifndef DOMYBS_DEVICE_COMMANDS_H
#define DOMYBS_DEVICE_COMMANDS_H

#include "device/backend.h"
#include "io/control-server.h"

/* A ControlHandler; data is the Backend. */
JsonNode *backend_command (gpointer data, const char *command, JsonObject *arguments, GError **error);

#endif
