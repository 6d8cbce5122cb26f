/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A client of a back-end's control socket (backend/device/control.md). It believes nothing: the greeting's protocol number is
 * checked, every answer has a time limit, a line has at most CONTROL_CLIENT_LINE_BYTES_MAX bytes and must be a JSON object that
 * answers the question asked (by its id).
 *
 * A back-end's worker can be replaced or die at any time, and another one goes on where it was: then every client loses its
 * connection. What may be asked twice (all that is here, but for control_client_replace) is asked again on a new one, a few
 * times at most, with what was subscribed to before; the caller sees nothing of it but the delay.
 *
 * Errors, all of CTL_ERROR: ACCESS when there is nobody to talk to, or who is there says nothing in time or no protocol of
 * ours; FAILED when the command was understood and not done. Messages name no object ("its back-end is not running (…)"): the
 * caller puts "domain 'x': " in front.
 */
#ifndef DOMYBS_HOST_TOOLS_CONTROL_CLIENT_H
#define DOMYBS_HOST_TOOLS_CONTROL_CLIENT_H

#include <glib.h>
#include <json-glib/json-glib.h>

/* `blocks` with 4096 cells is the longest answer: 4096 × 5 bytes and then some. */
#define CONTROL_CLIENT_LINE_BYTES_MAX (256 * 1024)
#define CONTROL_CLIENT_TIMEOUT_MS 5000

typedef struct ControlClient ControlClient;

/* Connects and reads the greeting, which must be a domybs-backend's; at a path that ends with /far-control.sock, a domybs-far's. */
ControlClient *control_client_new (const char *path, int timeout_ms, GError **error);
/* The same where the path says nothing: program, a static string, is to be there. */
ControlClient *control_client_new_of (const char *path, const char *program, int timeout_ms, GError **error);
void control_client_free (ControlClient *client);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (ControlClient, control_client_free)

/* Whether nobody listens at path: then there is no back-end. FALSE also when that can't be told. */
gboolean control_client_nobody (const char *path);

/* Of the program that has greeted last; "unknown" if it did not say. Valid until the next call. */
const char *control_client_version (const ControlClient *client);

/* Runs one command; arguments may be NULL and are taken over. Returns the object in "return" (the caller's). Events that come
 * meanwhile are kept for control_client_event. After an error of code ACCESS the client is of no use any more. */
JsonObject *control_client_execute (ControlClient *client, const char *command, JsonObject *arguments, int timeout_ms,
                                    GError **error);

/* Runs a command ("restart", "upgrade") that ends with another worker, and returns when that has greeted us; the client goes on
 * with it. FALSE: the worker is the one that it was: CTL_ERROR_REFUSED when the back-end is too old to know the command, FAILED
 * when it could not. Or nobody can be reached any more: CTL_ERROR_ACCESS. Who is greeted need not be the one that was asked
 * for: the caller looks. */
gboolean control_client_replace (ControlClient *client, const char *command, int timeout_ms, GError **error);

/* Subscribes to events (NULL-terminated names). FALSE without error: this back-end knows no events; poll its status then. */
gboolean control_client_subscribe (ControlClient *client, const char *const *events, GError **error);
/* The descriptor to wait at for events; another one after each call. */
int control_client_fd (const ControlClient *client);
/* Takes the next event that has arrived, without waiting: its name (the caller's), NULL if there is none now. NULL with error:
 * the connection is of no use any more. Where a worker has gone, events may be missing: what they are about is to be asked for.
 */
char *control_client_event (ControlClient *client, GError **error);

/* Asks many at once, within one time limit for all of them. paths[i] NULL: left out. Fills ret_answers[i] or ret_errors[i]
 * (both zeroed by the caller). command has no arguments. */
void control_client_gather (const char *const *paths, unsigned n, const char *command, int timeout_ms, JsonObject **ret_answers,
                            GError **ret_errors);

#endif
