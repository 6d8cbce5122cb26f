/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Between a client and a server on unix sockets: what the server says comes later. So storage can be slow without being busy.
 */
#ifndef DOMYBS_TESTS_SLOW_RELAY_H
#define DOMYBS_TESTS_SLOW_RELAY_H

#include <sys/types.h>

/* Starts a process that listens at `path` (which anybody may connect to) and passes each connection on to `to`; what comes back
 * is held for delay_us. It ends with its parent. Aborts when it can't. */
pid_t slow_relay_start (const char *path, const char *to, unsigned delay_us);
void slow_relay_end (pid_t pid);

#endif
