/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Messages with descriptors over unix sockets: never waits, allocates nothing, no GLib. */
#ifndef DOMYBS_IO_FD_MESSAGE_H
#define DOMYBS_IO_FD_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define FD_MESSAGE_FDS_MAX 16u

/* Sends head and body (either may be of 0 bytes), and fd with them unless that is -1. Returns as sendmsg. */
ssize_t fd_message_send (int to, const void *head, size_t n_head, const void *body, size_t n_body, int fd);

struct fd_message_fds {
  int fds[FD_MESSAGE_FDS_MAX];
  unsigned n;
  bool truncated; /* there were more bytes (of one message), or descriptors, than could be taken: they are gone */
};

/* Reads up to n bytes, and the descriptors (close-on-exec) that came with them: they are the caller's, who must close those it did not
 * want. Returns as recvmsg; ret_fds is set in any case. */
ssize_t fd_message_receive (int from, void *bytes, size_t n, struct fd_message_fds *ret_fds);

#endif
