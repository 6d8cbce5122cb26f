/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Between the parts of the rig. */
#ifndef DOMYBS_TESTS_KEEPER_RIG_INTERNAL_H
#define DOMYBS_TESTS_KEEPER_RIG_INTERNAL_H

#include "keeper-rig.h"

/* What a worker's process reports of itself when it begins. */
struct report {
  pid_t pid;
  uint64_t inode;
  int n_fds; /* besides 0 to 3 and its own */
  int death_signal;
  bool signals_blocked;
};

ssize_t rig_receive_with_fd (int from, void *bytes, size_t n, int *ret_fd);
void rig_send_with_fds (int to, const void *bytes, size_t n, const int *fds, unsigned n_fds);
void __attribute__ ((noreturn)) rig_fail (struct rig *rig, const char *what);

#endif
