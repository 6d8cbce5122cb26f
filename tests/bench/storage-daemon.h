/* SPDX-License-Identifier: GPL-2.0-or-later */
/* qemu-storage-daemon, as a peer: a raw file as a vhost-user-blk disk of 4 KiB sectors. */
#ifndef DOMYBS_TESTS_STORAGE_DAEMON_H
#define DOMYBS_TESTS_STORAGE_DAEMON_H

#include <stdint.h>
#include <sys/types.h>

struct storage_daemon {
  pid_t pid;
  char *folder, *socket_path, *storage_path;
};

/* On a file of its own in `folder`, reserved, with O_DIRECT and io_uring. NULL: there is no qemu-storage-daemon in PATH. Ends
 * the program where it doesn't start. */
struct storage_daemon *storage_daemon_start (const char *folder, uint64_t bytes);
void storage_daemon_end (struct storage_daemon *daemon);

#endif
