/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A UNIX stream socket on which nothing waits for ever: the agent, QMP and the back-end's control socket are all spoken to
 * through one. While waiting it calls a watchdog several times a second, so that a peer's death is seen when it happens and not
 * when the time limit is over.
 */
#ifndef DOMYBS_TESTS_VM_CHANNEL_H
#define DOMYBS_TESTS_VM_CHANNEL_H

#include <gio/gio.h>

typedef struct Channel Channel;

/* FALSE with error: waiting is pointless, because whoever should answer is gone. */
typedef gboolean (*ChannelWatchdog) (gpointer data, GError **error);

/* Connects to the socket at path; while nobody listens there, tries again until seconds have passed. */
Channel *channel_connect (const char *path, double seconds, ChannelWatchdog watchdog, gpointer data, GError **error);
void channel_free (Channel *channel);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (Channel, channel_free)

gboolean channel_write (Channel *channel, const char *bytes, gsize length, double seconds, GError **error);

/* A line without its newline. NULL with error: time over (G_IO_ERROR_TIMED_OUT), end of the stream, or the watchdog's. */
char *channel_read_line (Channel *channel, double seconds, GError **error);

/* Exactly length bytes, and a terminating zero. */
char *channel_read_bytes (Channel *channel, gsize length, double seconds, GError **error);

#endif
