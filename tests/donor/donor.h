/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A domybs-donor under test, watched with what tests/frontend/process.h has. The program is $DOMYBS_DONOR. */
#ifndef DOMYBS_TESTS_DONOR_DONOR_H
#define DOMYBS_TESTS_DONOR_DONOR_H

#include "borrower.h"
#include "process.h"

struct donor {
  struct backend *backend;
  char *address;  /* "127.0.0.1:PORT"; NULL before donor_wait */
  char *psk_path; /* NULL: no TLS */
};
typedef struct donor donor_t;

struct donor_options {
  uint64_t bytes;               /* 0: 64 MiB */
  const char *keys;             /* contents of the file of keys; NULL: no TLS */
  const char *const *arguments; /* more, NULL-terminated; may be NULL */
  const char *program;          /* NULL: $DOMYBS_DONOR */
  const char *crash_file;       /* io/crash-point.h; NULL: none */
};

/* Starts it with a port of its own and --fixed-size, and waits until borrowers can connect. */
struct donor *donor_start (const struct donor_options *options);
/* The whole command line instead; waits for nothing. */
struct donor *donor_start_arguments (const char *const *arguments);
/* Ends it with SIGTERM, which must succeed if it runs. */
void donor_end (struct donor *donor);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (donor_t, donor_end)

/* Kills the worker and waits for the next one. */
void donor_kill_worker (struct donor *donor);
/* One number of `status`; path: "worker.deaths". INT64_MIN: missing or null. */
int64_t donor_status (struct donor *donor, const char *path);
bool donor_wait_status (struct donor *donor, const char *path, int64_t value);
/* The same of the lease with that number, of `leases`; text: of a string. */
int64_t donor_lease (struct donor *donor, uint64_t lease, const char *path);
char *donor_lease_text (struct donor *donor, uint64_t lease, const char *path);
/* A command that ends with an answer; FALSE: it was refused. */
bool donor_order (struct donor *donor, const char *format, ...) G_GNUC_PRINTF (2, 3);

/* A borrower of that donor. */
void donor_borrower (struct donor *donor, uint8_t vm, const struct borrower_key *key, struct borrower *ret_borrower);

#endif
