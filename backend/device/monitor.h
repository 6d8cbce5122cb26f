/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The events of the control socket: what has changed in a back-end since the last time, told to those who asked for it.
 *
 * The back-end says only that something has changed. What that was is found out later, by comparing its state with what was
 * told last, at most once in MONITOR_INTERVAL_MS and only while somebody is subscribed. So a guest's flood of requests costs a
 * line of each kind per interval, what happens in between is summed up in the next line, and the last line is always the latest
 * state.
 */
#ifndef DOMYBS_DEVICE_MONITOR_H
#define DOMYBS_DEVICE_MONITOR_H

#include "device/backend.h"
#include "io/control-server.h"

#define MONITOR_INTERVAL_MS 100

typedef struct Monitor Monitor;

/* Watches backend from now on. Both must outlive the monitor. */
Monitor *monitor_new (Backend *backend, ControlServer *server);
void monitor_free (Monitor *monitor);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (Monitor, monitor_free)

/* Events that this client gets from now on, in the place of those that it got so far; names is an array. FALSE with error
 * (USAGE) when it holds something else than names of events. */
gboolean monitor_subscribe (Monitor *monitor, ControlClient *client, JsonArray *names, GError **error);

#endif
