/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How domybs-donor begins: all that needs a path or a privilege is opened here, by the process that becomes the keeper. */
#ifndef DOMYBS_DONOR_START_H
#define DOMYBS_DONOR_START_H

#include "donor/options.h"

/* Opens sockets, makes arena and lease table, gives away what a keeper does not need (io/sandbox) and runs it. arguments: the
 * program's own, NULL-terminated, as it was given them. Returns main's exit status; what can't be done it says on stderr.
 * Removes its unix sockets. */
int donor_start_run (const DonorOptions *options, char *const *arguments);

#endif
