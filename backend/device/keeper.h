/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The keeper: the part of a back-end that must not die, because QEMU aborts or loses its device for good when a back-end goes away.
 *
 * It accepts QEMU, holds every descriptor, carries bytes between QEMU and the worker (core/keeper-wire.h) and starts the worker again
 * whenever that ends. It looks into nothing that comes from the guest, QEMU or operators; it allocates nothing once it runs, is locked in
 * memory, and never waits for anybody.
 */
#ifndef DOMYBS_DEVICE_KEEPER_H
#define DOMYBS_DEVICE_KEEPER_H

#include <stdbool.h>

struct keeper_options {
  const char *name;     /* for logs */
  int listen_fd;        /* for QEMU; -1: only the one connection below */
  int connection_fd;    /* -1: none yet */
  int control_fd;       /* listening; -1: none. Goes to the worker as KEEPER_SLOT_CONTROL */
  int account_fd;       /* -1: none. Goes to the worker as KEEPER_SLOT_ACCOUNT */
  char *const *worker_argv; /* the keeper's own arguments and --worker: the worker reads the same options */
};

/* Runs until SIGTERM or SIGINT, a worker's KEEPER_EXIT_DONE, or a first worker's KEEPER_EXIT_CANT. Returns the exit status for main. Closes
 * nothing and removes no files: the caller does. Ends its worker with SIGKILL: the state of the VM's memory is left as it is, for QEMU may
 * still use it; the kernel frees it with the last one that has it mapped. */
int keeper_run (const struct keeper_options *options);

#endif
