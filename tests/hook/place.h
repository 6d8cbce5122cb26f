/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the tests of launch and of the hook share: a run folder of their own, and a look at what is in it. */
#ifndef DOMYBS_TESTS_HOOK_PLACE_H
#define DOMYBS_TESTS_HOOK_PLACE_H

#include <glib.h>
#include <sys/types.h>

/* The VM's. Another one in each program: what looks for a VM's QEMU looks at all processes of the machine. */
#define PLACE_UUID (place_uuid ())
const char *place_uuid (void);

/* Makes the run folder (DOMYBS_TEST_RUNDIR) with an empty log folder, and sets the program that is started: the real back-end
 * if name is NULL, else fake-process by that name. Call it at the beginning of each test. */
void place_set_up (void);
void place_use_program (const char *name);
/* Ends what this test left running, and removes the folder. Fails when something was left. */
void place_tear_down (void);

/* Path in the run folder, and of a file of the test's own beside it; the caller's. */
char *place_path (const char *name);
char *place_file (const char *name);
/* Number of entries in RUNDIR/vm, the lock not counted. */
unsigned place_folders (void);
/* How many processes run whose command line has a path in our run folder; a back-end and its workers count as one. */
unsigned place_process_count (void);
/* The log of the VM of this name. */
char *place_log (const char *name);

/* Starts fake-process by this name with these arguments; returns when it runs. */
pid_t place_start_program (const char *name, ...) G_GNUC_NULL_TERMINATED;
/* Starts fake-process as a QEMU of this VM, connected to its back-end; returns when the connection is there. */
pid_t place_start_qemu (const char *uuid);
void place_end (pid_t pid); /* SIGKILL and wait */

#endif
