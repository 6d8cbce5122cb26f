/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which system calls a module makes. Each module names its own, beside the code that makes them:
 *
 *     SANDBOX_CALLS (SANDBOX_CALL (fallocate), SANDBOX_CALL_IF (fcntl, 1, ~0u, F_ADD_SEALS));
 *
 * The linker gathers the lists of all modules of a program; io/sandbox.c makes filters of them. SANDBOX_CALLS is for what a worker
 * calls once it works, SANDBOX_KEEPER_CALLS for what only the keeper calls, or a worker before that. At most one of each in a file.
 *
 * A C library of another version may make another call for the same function: where there are two, name both (poll and ppoll).
 */
#ifndef DOMYBS_IO_SANDBOX_CALLS_H
#define DOMYBS_IO_SANDBOX_CALLS_H

#include <limits.h>
#include <sched.h>
#include <seccomp.h>
#include <stdint.h>

struct sandbox_call {
  int call; /* its number; INT_MIN ends a list */
  int argument;         /* -1: allowed in any case; else only where (argument & mask) == value */
  uint64_t mask, value;
};

#define SANDBOX_CALL(name) { SCMP_SYS (name), -1, 0, 0 }
/* number: of the argument, from 0 on. Only integers can be looked at, not what a pointer points to. */
#define SANDBOX_CALL_IF(name, number, bits, is) { SCMP_SYS (name), (number), (bits), (is) }

/* Flags of clone that make no process but a container. */
#define SANDBOX_NAMESPACES \
  (CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET)

/* Pointers, one for each file, because only of scalars it is certain that the linker puts them side by side. */
#define SANDBOX_LIST(list, list_section, ...)                                                                          \
  static const struct sandbox_call list[] = { __VA_ARGS__, { INT_MIN, -1, 0, 0 } };                                    \
  static const struct sandbox_call *const list##_pointer __attribute__ ((used, section (list_section))) = list

#define SANDBOX_CALLS(...) SANDBOX_LIST (calls_of_worker, "sandbox_calls", __VA_ARGS__)
#define SANDBOX_KEEPER_CALLS(...) SANDBOX_LIST (calls_of_keeper, "sandbox_keeper_calls", __VA_ARGS__)

#endif
