/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A stage (tests/kill/stage.h) whose back-end fails where the test says. Faults end workers, or do not: that is the test's to
 * say; that no request is lost or answered twice, and no block leaked or granted twice, is looked at in any case.
 */
#ifndef DOMYBS_TESTS_FAULT_RIG_H
#define DOMYBS_TESTS_FAULT_RIG_H

#include "fault.h"
#include "operations.h"
#include "stage.h"

/* Once in a program, first: testing_init, and the file. $DOMYBS_FAULT_SHIM is the shim. */
void fault_init (int *argc, char ***argv);

/* stage_begin with the shim in it. Nothing fails yet. */
void fault_begin (struct stage *stage, const char *const *arguments, uint64_t max_blocks, uint64_t block_cost);
/* Nothing fails any more; checks everything, and ends. */
void fault_end (struct stage *stage);

/* From now on the n-th call (from 1 on), and those after it, `times` in all, fail. */
void fault_arm (enum fault_process process, enum fault_kind kind, uint64_t n, uint64_t times, int error, uint32_t percent);
/* No rule any more for that kind; how many calls failed since it was armed. */
uint64_t fault_disarm (enum fault_process process, enum fault_kind kind);
uint64_t fault_failed (enum fault_process process, enum fault_kind kind);
uint64_t fault_calls (enum fault_process process, enum fault_kind kind);
void fault_interrupt (enum fault_process process, uint32_t of_1024);
uint64_t fault_interrupted (enum fault_process process);

/* Drains, and waits until the worker that there is then has done all that was begun. */
void fault_settle (struct stage *stage);
/* fault_settle and guest_check; returns how many workers have died since the last one. */
unsigned fault_check (struct stage *stage);

/* The worker is ended; the next one's n-th call fails, and those after it. */
void fault_restart (struct stage *stage, enum fault_kind kind, uint64_t n, uint64_t times, int error);

/* Waits for so many failed calls. */
void fault_wait_failed (struct stage *stage, enum fault_process process, enum fault_kind kind, uint64_t n);

/* ---- all of them (fault-every.c) ---- */

/* Repeats the operation with its first call of that kind failing, its second (or about every stride-th), and so on until it makes no more;
 * returns how many failed. A worker may die of each. */
unsigned fault_every_call (struct stage *stage, const struct operation *operation, enum fault_kind kind, int error, unsigned stride);

/* The same for the calls of a worker that starts, while requests wait for it: at most so many of them. */
void fault_every_start (struct stage *stage, enum fault_kind kind, int error, unsigned most);

#endif
