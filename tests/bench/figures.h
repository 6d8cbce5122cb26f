/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Figures of several rounds: a table, and JSON with --json FILE. */
#ifndef DOMYBS_TESTS_FIGURES_H
#define DOMYBS_TESTS_FIGURES_H

#include <glib.h>

extern int figures_rounds; /* --rounds */

/* Reads --rounds, --json and `entries` (NULL: none). title: the table's. Ends the program where the arguments are wrong. */
void figures_begin (int argc, char **argv, const char *title, const char *summary, const GOptionEntry *entries);
/* values: one of each round; sorted here. */
void figures_record (const char *name, const char *unit, double *values);
/* Returns the program's exit status. */
int figures_end (void);

/* CPU time of this process, and time, in µs. */
double figures_cpu_us (void);
double figures_us (void);

#endif
