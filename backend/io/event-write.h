/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Signals through eventfds whose other end belongs to somebody who may not mean well.
 *
 * A descriptor's blocking mode is shared with the peer, who can make it blocking and its counter full between any two of our
 * steps, and a write would wait for ever. (Reads have RWF_NOWAIT against that; eventfds take no flags for writes.) So a timer
 * interrupts a write that waits.
 */
#ifndef DOMYBS_IO_EVENT_WRITE_H
#define DOMYBS_IO_EVENT_WRITE_H

#include <stdbool.h>

/* How long a peer can keep us at most. */
#define EVENT_WRITE_MS 100

/* Adds 1, unless the counter is full: that is a signal that waits already. False: the descriptor is no good any more. Takes
 * SIGALRM for itself. */
bool event_write (int fd);

#endif
