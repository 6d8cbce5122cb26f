/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One host limit for all back-ends of a host: a small shared file with a slot for each.
 *
 *   ┌ header ────────┐┌ slot 0 ──────────┐┌ slot 1 …
 *   │magic, version  ││blocks, pid, name ││
 *   └────────────────┘└──────────────────┘└
 *   lock byte 0: held while sums are made       lock byte 1 + i: held as long as the process of slot i lives
 *
 * Locks are open-file-description locks, so the kernel drops them when their owner dies, however it dies: a slot whose lock nobody
 * holds counts nothing and can be taken over. Limits are each process' own option; the sum that they are compared with is shared.
 * Nothing here waits for another process for longer than a few milliseconds: one that was stopped while it held the sum's lock
 * makes the others answer "busy", not hang.
 */
#ifndef DOMYBS_IO_HOST_ACCOUNT_H
#define DOMYBS_IO_HOST_ACCOUNT_H

#include <glib.h>
#include <stdint.h>

#define HOST_ACCOUNT_SLOTS 512
#define HOST_ACCOUNT_PATH "/run/domybs/host-account"

typedef struct HostAccount HostAccount;

/* Opens or creates the file at path (its directory, too) and takes a slot. name: the VM's, for those who look. */
HostAccount *host_account_open (const char *path, const char *name, uint64_t limit_blocks, GError **error);

/* What a process needs to know to go on with the slot of another one that has the same open file: its descriptor (the account's) and the
 * slot's number. A private account has none: -1. */
int host_account_fd (const HostAccount *account);
int host_account_slot (const HostAccount *account);

/* Goes on with the slot of another process, which holds the same open file, so the slot's lock with it, and does not use it any more. A lock on the
 * sum that it may have held is let go of. Takes over fd, also on failure. */
HostAccount *host_account_adopt (int fd, int slot, uint64_t limit_blocks, GError **error);

/* An account of this process alone, for where no file is wanted. */
HostAccount *host_account_private (uint64_t limit_blocks);

/* Gives the slot back; an adopted one stays, as it is, with the process that opened it. */
void host_account_free (HostAccount *account);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (HostAccount, host_account_free)

/* Reserves up to `blocks` and returns how many; 0 when there is no room. -1 when the account is busy: try again. */
int64_t host_account_reserve (HostAccount *account, uint64_t blocks);

/* Gives blocks back. Never fails and never waits. */
void host_account_return (HostAccount *account, uint64_t blocks);

/* Makes the slot exactly this, whatever it was. Never fails and never waits. */
void host_account_set (HostAccount *account, uint64_t blocks);

/* Blocks of all back-ends of the host, and the limit that this one applies. */
uint64_t host_account_used (HostAccount *account);
uint64_t host_account_limit (const HostAccount *account);

#endif
