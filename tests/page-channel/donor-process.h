/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A donor as a child of the test that ends with it: the page server with the lender behind it, over an arena and a lease table
 * that stay with the test, so that a donor that was killed may come back with them. */
#ifndef DOMYBS_TESTS_DONOR_PROCESS_H
#define DOMYBS_TESTS_DONOR_PROCESS_H

#include <glib.h>
#include <sys/types.h>

#define DONOR_IDENTITY "host-a"
extern const guint8 donor_key[32];

typedef struct {
  guint64 n_blocks;
  gboolean tls;
  guint port;       /* from the first start on */
  char address[32]; /* of localhost */
  int arena_fd, commands;
  void *table;
  gsize table_bytes;
  pid_t pid; /* 0: not running */
} DonorProcess;

DonorProcess *donor_process_new (guint64 n_blocks, gboolean tls);
/* Starts it, again, and waits until it listens. */
void donor_process_start (DonorProcess *donor);
void donor_process_kill (DonorProcess *donor);
/* Not while it runs: what it had lent is gone. */
void donor_process_lose_arena (DonorProcess *donor);
/* SIGSTOP (all of it has stopped on return), or SIGCONT. */
void donor_process_stop (DonorProcess *donor, gboolean stop);
void donor_process_free (DonorProcess *donor);

/* Of the one lease that there is: done when it returns. */
void donor_process_revoke (DonorProcess *donor, guint64 level);
void donor_process_forget (DonorProcess *donor);
/* How many leases it has. */
guint donor_process_leases (DonorProcess *donor);

#endif
