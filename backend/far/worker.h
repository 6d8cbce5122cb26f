/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A worker of domybs-far: does all the work, and may end at any moment (far/handover.h). */
#ifndef DOMYBS_FAR_WORKER_H
#define DOMYBS_FAR_WORKER_H

#include "far/options.h"

/* Serves until its keeper ends it, or no more is wanted. Returns the exit status. What it can't do it says on stderr. */
int far_worker_run (const FarOptions *options);

#endif
