/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Faults that a test chooses: calls of a back-end that fail.
 *
 * fault-shim.c is preloaded into both of a back-end's processes, stands before the C library's functions, counts their calls
 * and makes some of them fail, as `struct fault_file` says: a file that the test has mapped, too. Nothing of it is in the
 * product: it is the product's own program that runs, in its sandbox (so the shim makes no system calls of its own once it is
 * set up).
 *
 * The keeper opens the file ($DOMYBS_FAULT_FILE) as descriptor FAULT_FILE_FD; the worker, which may be another user, inherits
 * it.
 */
#ifndef DOMYBS_TESTS_FAULT_H
#define DOMYBS_TESTS_FAULT_H

#include <stdbool.h>
#include <stdint.h>

#define FAULT_FILE_ENV "DOMYBS_FAULT_FILE"
#define FAULT_FILE_FD 101

enum fault_process { FAULT_KEEPER, FAULT_WORKER, FAULT_PROCESSES };

enum fault_kind {
  FAULT_ALLOC,      /* malloc, calloc, realloc, posix_memalign, aligned_alloc, memalign */
  FAULT_MAP,        /* mmap */
  FAULT_DESCRIPTOR, /* open, memfd_create, dup, F_DUPFD, eventfd, socket, socketpair, accept4, signalfd */
  FAULT_POPULATE,   /* madvise (MADV_POPULATE_WRITE) */
  FAULT_FALLOCATE,  /* fallocate, without PUNCH_HOLE */
  FAULT_PUNCH,      /* fallocate with PUNCH_HOLE */
  FAULT_FORK,
  FAULT_KINDS
};

/* Calls number `first` to first + times − 1 of those that `calls` counts fail. Write `times` last; 0: none fails. */
struct fault_rule {
  uint64_t first, times;
  int32_t error;    /* errno */
  uint32_t percent; /* POPULATE, FALLOCATE: so much of the range is filled first */
};

struct fault_file {
  struct fault_rule rules[FAULT_PROCESSES][FAULT_KINDS];
  uint64_t calls[FAULT_PROCESSES][FAULT_KINDS]; /* so far */
  uint64_t failed[FAULT_PROCESSES][FAULT_KINDS];
  /* So many of 1024 calls that may be interrupted, are: poll, read, recvmsg, … return EINTR. */
  uint32_t interrupts[FAULT_PROCESSES];
  uint64_t interrupted[FAULT_PROCESSES];
  uint64_t loaded[FAULT_PROCESSES]; /* processes that have the shim in them */
};

#endif
