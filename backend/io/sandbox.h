/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a back-end takes away from itself. Two steps, because the keeper has to start workers and a worker has to start nothing:
 *
 *   sandbox_keeper   once, when sockets and files are open: no new privileges, no capabilities but those to start and end
 *                    workers as another user (where it is root), resource limits, no core dumps, memory locked, and a list of
 *                    system calls that a keeper and a program that starts need.
 *   sandbox_become_worker  in the child, before exec: where it is root, another user (`domybs` if the host has it, else
 *                    nobody), no groups.
 *   sandbox_worker   in the worker, when all is set up: a much shorter list of system calls; each module that needs one names
 *                    it beside the code that makes it (io/sandbox-calls.h).
 *
 * What is not on its list, a worker is ended for (SIGSYS): one more death that its keeper mends. To a keeper, which must not die,
 * and to a program that starts, such a call looks as if the kernel did not have it (ENOSYS): the worker of next year comes with
 * another C library, and that knows what to do without calls that are newer than the keeper. In both cases the kernel logs it.
 */
#ifndef DOMYBS_IO_SANDBOX_H
#define DOMYBS_IO_SANDBOX_H

#include <glib.h>

/* Opens no file afterwards but for reading, and no socket. What can't be had (another user, locked memory: containers) is
 * logged and done without. FALSE: there is no sandbox, and the process had better end. */
gboolean sandbox_keeper (GError **error);

/* How much memory a worker may lock, from sandbox_become_worker on: none, if this is not called. */
void sandbox_let_worker_lock (size_t bytes);

/* After sandbox_keeper. Async-signal-safe. Returns 0 or an errno. */
int sandbox_become_worker (void);

struct sandbox_call;

/* Before sandbox_worker, for what not every worker of this program needs: a list as io/sandbox-calls.h has them (ended by INT_MIN), static. The
 * keeper's list has to have the same calls (SANDBOX_KEEPER_CALLS). At most SANDBOX_LISTS_MAX of them. */
#define SANDBOX_LISTS_MAX 8u
void sandbox_let_worker_call (const struct sandbox_call *list);

/* Before sandbox_worker: the kernel may make threads for it, as io_uring needs them. It can make none itself in any case: no list has
 * clone. */
void sandbox_let_worker_have_kernel_threads (void);

/* Sets the locale C with UTF-8. Opens nothing afterwards, and starts no threads. */
gboolean sandbox_worker (GError **error);

#endif
