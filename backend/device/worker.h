/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A worker: all of a back-end's logic, in a process that may end at any moment, started by a keeper (core/keeper-wire.h). */
#ifndef DOMYBS_DEVICE_WORKER_H
#define DOMYBS_DEVICE_WORKER_H

#include "device/options.h"

/* Serves until its keeper ends it, or no more is wanted. Returns the exit status, one of enum keeper_exit. What it can't do it says on
 * stderr. */
int worker_run (const Options *options);

#endif
