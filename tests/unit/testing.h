/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the unit tests share: one seed for everything random, printed before the first test and taken from DOMYBS_SEED where
 * that is set, so that whatever a run found can be found again. DOMYBS_TRACE=1 prints every step of a random test.
 */
#ifndef DOMYBS_TESTS_TESTING_H
#define DOMYBS_TESTS_TESTING_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* In place of g_test_init. */
void testing_init (int *argc, char ***argv);

/* A generator that depends on the seed and on the name of the running test only: a test replays alone (-p), too. Free it with
 * g_rand_free. */
GRand *testing_rand (void);

/* True about once in n times. */
bool testing_once_in (GRand *rand, unsigned n);

/* Uniform in [0, n); n ≥ 1. */
uint64_t testing_below (GRand *rand, uint64_t n);

/* A number of 64 bits that likes edges: 0, 1, powers of two and their neighbours, all ones, and anything. */
uint64_t testing_edgy (GRand *rand);

/* For random tests: prints the step when DOMYBS_TRACE is set. */
void testing_trace (const char *format, ...) G_GNUC_PRINTF (1, 2);

/* How many steps a random test takes: `steps`, or less where every one is dear (DOMYBS_STEPS_DIVISOR, as under valgrind). */
unsigned testing_steps (unsigned steps);

/* SIGSTOP to a process of any parent, and waits until none of its threads runs any more: the signal takes effect when one of them
 * gets a processor, and on a busy machine the others go on until then. False if there is no such process. */
bool testing_stop (pid_t pid);

#endif
