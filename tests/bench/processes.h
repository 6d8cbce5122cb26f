/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Other processes' time and processors. */
#ifndef DOMYBS_TESTS_PROCESSES_H
#define DOMYBS_TESTS_PROCESSES_H

#include <glib.h>
#include <sys/types.h>

/* Processor time, µs, of all threads of a process that live; 0: there is no such process. */
double processes_cpu_us (pid_t pid);

/* All its threads, and those that they start from now on, to the machine's last processor, or back to any. */
void processes_pin (pid_t pid, gboolean pinned);

#endif
