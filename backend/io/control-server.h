/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A control socket: JSON objects, one a line, after the manner of QMP.
 *
 *   server  {"domybs": {"program": "domybs-backend", "version": "0.1.0", "protocol": 1}}
 *   client  {"execute": "status"}                         {"execute": "set-target", "arguments": {"blocks": 512}, "id": 7}
 *   server  {"return": {…}}                               {"return": {…}, "id": 7}
 *   server  {"error": {"class": "usage", "desc": "…"}}
 *   server  {"event": "granted", "data": {…}, "timestamp": {"seconds": 1795413600, "microseconds": 250}}
 *
 * Events go only to clients that the handler has subscribed to them. Clients are checked by their credentials (root, or the
 * user that the server runs as); each may have a line of 4 KiB and 64 KiB of unread answers and events, and there are at most
 * 16 of them: more is refused, who does not read is dropped, and none of them can make the server wait.
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
typedef struct ControlClient ControlClient;

/* Runs a command of that client. arguments is never NULL (an empty object where none came) and stays the server's. Returns a
 * new node, or NULL with error; the class in the answer comes from the error's code. NULL without error: the answer comes later, and
 * can only be a refusal (control_server_refuse_waiting). */
typedef JsonNode *(*ControlHandler) (gpointer data, ControlClient *client, const char *command, JsonObject *arguments,
                                     GError **error);

/* Serves a listening socket. Takes over fd; its path, mode and removal are the caller's. */
ControlServer *control_server_new (int fd, const char *program, ControlHandler handler, gpointer data);

/* Answers everybody who waits for a command's answer with that error. */
void control_server_refuse_waiting (ControlServer *server, const GError *error);

/* The events that a client gets from now on: bits whose meaning is the handler's. */
void control_client_subscribe (ControlClient *client, unsigned events);

/* Calls ended when that client has gone, whoever ended it, in the middle of that: the client is not to be used any more. NULL: not
 * any more. */
void control_client_on_end (ControlClient *client, void (*ended) (gpointer data), gpointer data);

/* The events that anybody gets. */
unsigned control_server_subscribed (const ControlServer *server);

/* Sends one event to those who are subscribed to its bit. Takes over data. Not to be called by the handler. */
void control_server_emit (ControlServer *server, unsigned event, const char *name, JsonNode *data);

/* Disconnects all clients. */
void control_server_free (ControlServer *server);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (ControlServer, control_server_free)

#endif
