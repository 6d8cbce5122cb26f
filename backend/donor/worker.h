/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The process of domybs-donor that does the work: serves the leases, until its keeper has reason to start another one. */
#ifndef DOMYBS_DONOR_WORKER_H
#define DOMYBS_DONOR_WORKER_H

#include "donor/options.h"

/* Returns main's exit status: enum keeper_exit, enum process_exit. */
int donor_worker_run (const DonorOptions *options);

#endif
