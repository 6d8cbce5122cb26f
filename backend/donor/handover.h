/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the keeper of domybs-donor hands to each of its workers (io/process-keeper.h). Within DONOR_PAGE_VERSION nothing changes
 * its meaning. */
#ifndef DOMYBS_DONOR_HANDOVER_H
#define DOMYBS_DONOR_HANDOVER_H

#include "io/process-keeper.h"

#define DONOR_PAGE_VERSION 1u
#define DONOR_LISTEN_MAX 8u

enum donor_fd {
  DONOR_FD_PAGE = PROCESS_FD_FIRST,       /* memfd with struct donor_page */
  DONOR_FD_CONTROL,                       /* listening; closed without --control-socket */
  DONOR_FD_TABLE,                         /* memfd with the leases (core/lease-donor.h) */
  DONOR_FD_ARENA,                         /* memfd with the blocks */
  DONOR_FD_KEYS,                          /* the file of --psk, opened anew for each worker; closed with --no-tls */
  DONOR_FD_LISTEN = PROCESS_FD_FIRST + 8, /* page.process.parts of them, in the order of the command line */
  DONOR_FD_END = DONOR_FD_LISTEN + (int)DONOR_LISTEN_MAX
};

struct donor_page {
  struct process_page process;    /* cookie: the arena's incarnation */
  uint64_t has_size, size_blocks; /* workers': the operator has set another size than the command line's */
};

#endif
