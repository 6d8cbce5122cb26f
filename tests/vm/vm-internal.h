/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Shared by the parts of the harness; tests use vm.h. */
#ifndef DOMYBS_TESTS_VM_VM_INTERNAL_H
#define DOMYBS_TESTS_VM_VM_INTERNAL_H

#include "channel.h"
#include "qmp.h"
#include "vm.h"

/* A child process, its output going to a file. */
typedef struct {
  const char *what; /* in messages */
  GPid pid;         /* 0: not running */
  int status;       /* as waitpid says, once it has ended */
  char *log;        /* path */
} VmProcess;

struct Vm {
  char *name;
  char *series;
  char *driver_params;
  gboolean expect_complaints;
  gboolean expect_backend_death;
  gboolean ending; /* QEMU may end now */
  char *folder;
  char *serial; /* path of the guest's console log */
  VmProcess backend;
  VmProcess qemu;
  Channel *agent;
  Qmp *qmp;
  Qmp *control; /* connected when first used */
  guint tag;    /* of the last request to the agent */
  double boot_seconds;
  GHashTable *jobs;    /* name → GString: output that was polled and not yet read by the test */
  char *driver_folder; /* the driver's sysfs folder, once found */
};

/* ---- vm-process.c ---- */

/* Starts a program with its output going to FOLDER/what.log. It is killed when this program ends, however that comes. */
void vm_process_start (Vm *vm, VmProcess *process, const char *what, const char *const *arguments);

/* TRUE while it runs; else status is set. */
gboolean vm_process_runs (VmProcess *process);

/* Sends the signal and waits; FALSE if it runs on. */
gboolean vm_process_wait (VmProcess *process, double seconds);

/* Ends it: SIGTERM, and SIGKILL after seconds. Returns FALSE if that was necessary. */
gboolean vm_process_end (VmProcess *process, double seconds);

/* "exit status 1", "killed by signal 11 (Segmentation fault)", "running". */
char *vm_process_describe (VmProcess *process);

/* Runs a command of the source tree's scripts and returns its standard output without the last newline; ends the program if it
 * fails. What it says on standard error is shown then only. */
char *vm_script (const char *const *arguments);

/* ---- vm-guest.c ---- */

void vm_wait_hello (Vm *vm, double seconds);

/* ---- vm.c ---- */

gboolean vm_watch (gpointer vm, GError **error);
void vm_fail_with (Vm *vm, GError *error, const char *doing) G_GNUC_NORETURN;

#endif
