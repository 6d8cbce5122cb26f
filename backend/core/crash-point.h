/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Where a test may end the worker: between two stores, at each message boundary, at each step of a start. Nothing in the
 * product; in the program that tests build with -DDOMYBS_CRASH_POINTS, the process ends itself as kill -9 would when the
 * countdown in the test's file (io/crash-point.h) reaches zero here. */
#ifndef DOMYBS_CORE_CRASH_POINT_H
#define DOMYBS_CORE_CRASH_POINT_H

#ifdef DOMYBS_CRASH_POINTS
#include <stdint.h>

void crash_point (const char *name);
void crash_points_init (void);
void crash_points_inherit (void);
void crash_points_arm (void);
void crash_nonce (uint32_t device, uint64_t version);
#define CRASH_POINT(name) crash_point (name)
/* First thing in main, of keeper and worker: opens the test's file, or finds it inherited. */
#define CRASH_POINTS_INIT() crash_points_init ()
/* In the keeper's child, after it has marked what a worker does not get: the worker gets the test's file all the same. */
#define CRASH_POINTS_INHERIT() crash_points_inherit ()
/* In the worker, when its points begin to count. The keeper never does this: it must not be hit. */
#define CRASH_POINTS_ARM() crash_points_arm ()
/* A page is about to be sealed with this nonce: the test's file notes it, and whether that was so before, in whatever process. */
#define CRASH_NONCE(device, version) crash_nonce (device, version)
#else
#define CRASH_POINT(name) ((void)0)
#define CRASH_POINTS_INIT() ((void)0)
#define CRASH_POINTS_INHERIT() ((void)0)
#define CRASH_POINTS_ARM() ((void)0)
#define CRASH_NONCE(device, version) ((void)0)
#endif

#endif
