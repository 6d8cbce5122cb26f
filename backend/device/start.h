/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How a back-end begins: all that needs a path or a privilege is opened here, by the process that becomes its keeper. */
#ifndef DOMYBS_DEVICE_START_H
#define DOMYBS_DEVICE_START_H

#include "device/options.h"

/* Opens the sockets and the host account, gives away what a keeper does not need (io/sandbox) and runs it. arguments: the program's
 * own, NULL-terminated, as it was given them. Returns main's exit status; what can't be done it says on stderr. Removes its sockets. */
int start_run (const Options *options, char *const *arguments);

#endif
