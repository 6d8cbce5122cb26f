/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A client for QMP, QEMU's machine protocol, and for protocols after its manner: JSON objects, one a line. */
#ifndef DOMYBS_TESTS_VM_QMP_H
#define DOMYBS_TESTS_VM_QMP_H

#include "channel.h"

#include <json-glib/json-glib.h>

typedef struct Qmp Qmp;

/* Connects and reads the greeting. With negotiate, leaves QMP's capabilities mode, as QEMU wants before any command. */
Qmp *qmp_connect (const char *path, gboolean negotiate, double seconds, ChannelWatchdog watchdog, gpointer data,
                  GError **error);
void qmp_free (Qmp *qmp);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (Qmp, qmp_free)

/* What the other side said first; stays qmp's. */
JsonObject *qmp_greeting (Qmp *qmp);

/* Sends one command, as JSON text, and returns its "return" value, never NULL without error. An answer {"error": …} becomes
 * G_IO_ERROR_FAILED with its class and description. Events that come meanwhile are kept for qmp_wait_event. */
JsonNode *qmp_execute (Qmp *qmp, const char *json, double seconds, GError **error);

/* The oldest unread event of that name, waited for up to seconds. The caller owns it. */
JsonObject *qmp_wait_event (Qmp *qmp, const char *name, double seconds, GError **error);

/* Forgets the events that came so far. */
void qmp_forget_events (Qmp *qmp);

#endif
