/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A device's state (core/device-state.h) in a memfd. */
#ifndef DOMYBS_IO_STATE_FILE_H
#define DOMYBS_IO_STATE_FILE_H

#include <glib.h>

#include "core/device-state.h"

/* A fresh one, sealed against shrinking and growing. Returns its descriptor, the caller's; -1 with error. */
int state_file_create (uint64_t window_blocks, struct device_state *ret_state, GError **error);

/* Whether a worker of ours could go on from it, by its header only: for one that looks while another still writes. */
gboolean state_file_is_ours (int fd, uint64_t window_blocks, GError **error);

/* Whether we could go on from that of an earlier worker, which may be living on it still; looks at the header only (versions,
 * sizes). FALSE: error says why not. fd stays the caller's. */
gboolean state_file_is_ours (int fd, uint64_t window_blocks, GError **error);

/* That of an earlier worker which has ended: all of it is checked. fd stays the caller's and may be closed. FALSE when we can't
 * go on from it: error says why, and it is unchanged. */
gboolean state_file_open (int fd, uint64_t window_blocks, struct device_state *ret_state, GError **error);

/* Unmaps it. */
void state_file_close (struct device_state *state);

#endif
