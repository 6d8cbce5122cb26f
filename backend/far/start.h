/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How domybs-far begins: all that needs a path or a privilege is opened here, by the process that becomes the keeper. */
#ifndef DOMYBS_FAR_START_H
#define DOMYBS_FAR_START_H

#include "far/options.h"

/* Opens sockets and storage, makes key, states and stages, gives away what a keeper does not need (io/sandbox) and runs it.
 * arguments: the program's own, NULL-terminated, as it was given them. Returns main's exit status; what can't be done it says
 * on stderr. Removes its sockets, and the storage files that it made. */
int far_start_run (const FarOptions *options, char *const *arguments);

#endif
