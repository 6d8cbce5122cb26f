/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The keeper of domybs-far: holds what must outlive a worker (the key, the page stores' states, the stages, sockets and files)
 * and starts workers. QEMU connects again by itself, so unlike the memory device's keeper it carries no bytes, and never
 * touches what it holds.
 */
#ifndef DOMYBS_FAR_KEEPER_H
#define DOMYBS_FAR_KEEPER_H

#include <stdbool.h>

#include "far/handover.h"

struct far_keeper_disk {
  const char *name;                              /* for logs */
  int listen_fd, state_fd, stage_fd, storage_fd; /* storage_fd −1: NBD; stage_fd −1: an object */
  int copies_fd;                                 /* −1: no donors */
};

struct far_keeper_options {
  const char *name;
  unsigned n_disks;
  struct far_keeper_disk disks[FAR_DISKS_MAX];
  int key_fd;     /* −1: pages are not sealed */
  int control_fd; /* −1: none */
  const char *memory_device; /* where workers are connected to when they ask for it; NULL: nowhere */
  int donors_fd; /* −1: none; otherwise a worker has leases to give back at the end */
  int page_fd;
  struct far_handover *page;
  char *const *worker_argv; /* the keeper's own arguments and --worker: the worker reads the same options */
};

/* Runs until SIGTERM or SIGINT, a worker's KEEPER_EXIT_DONE, or a first worker's KEEPER_EXIT_CANT. Returns the exit status for
 * main. Closes and removes nothing: the caller does. Gives what it was given other numbers. Its worker is dead then, but what
 * that had under way may still be written to storage. */
int far_keeper_run (struct far_keeper_options *options);

#endif
