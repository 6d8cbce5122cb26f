/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A control socket: JSON objects, one a line, after the manner of QMP.
 *
 *   server  {"domybs": {"program": "domybs-backend", "version": "0.1.0", "protocol": 1}}
 *   client  {"execute": "status"}                         {"execute": "set-target", "arguments": {"blocks": 512}, "id": 7}
 *   server  {"return": {…}}                               {"return": {…}, "id": 7}
 *   server  {"error": {"class": "usage", "desc": "…"}}
 *
 * Clients are checked by their credentials (root, or the user that the server runs as); each may have a line of 4 KiB and 64 KiB of
 * unread answers, and there are at most 16 of them: more is refused, and none of them can make the server wait.
 */
#ifndef DOMYBS_IO_CONTROL_SERVER_H
#define DOMYBS_IO_CONTROL_SERVER_H

#include <glib.h>
#include <json-glib/json-glib.h>

#define CONTROL_PROTOCOL 1
#define CONTROL_LINE_BYTES_MAX 4096
#define CONTROL_OUT_BYTES_MAX (64 * 1024)
#define CONTROL_CLIENTS_MAX 16

typedef struct ControlServer ControlServer;

/* Runs a command. arguments is never NULL (an empty object where none came) and stays the server's. Returns a new node, or NULL
 * with error; the class in the answer comes from the error's code. */
typedef JsonNode *(*ControlHandler) (gpointer data, const char *command, JsonObject *arguments, GError **error);

/* Listens at path. */
ControlServer *control_server_new (const char *path, const char *program, ControlHandler handler, gpointer data, GError **error);

/* Disconnects all clients and removes the socket. */
void control_server_free (ControlServer *server);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (ControlServer, control_server_free)

#endif
