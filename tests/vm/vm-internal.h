/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Shared by the parts of the harness; tests use vm.h. */
#ifndef DOMYBS_TESTS_VM_VM_INTERNAL_H
#define DOMYBS_TESTS_VM_VM_INTERNAL_H

#include "channel.h"
#include "qmp.h"
#include "vm.h"

/* A child process, its output going to a file; or one that is somebody else's child. */
typedef struct {
  const char *what; /* in messages */
  GPid pid;         /* 0: not running */
  int pidfd;        /* of somebody else's; 0: it is ours */
  int status;       /* as waitpid says, once it has ended; nobody tells us of somebody else's */
  char *log;        /* path */
} VmProcess;

struct Vm {
  char *name;
  char *series;
  char *driver_params;
  gboolean expect_complaints;
  gboolean expect_backend_death;
  gboolean foreign; /* its processes are somebody else's */
  gboolean ending;  /* QEMU may end now */
  char *folder;
  char *serial; /* path of the guest's console log */
  VmProcess backend;
  VmProcess qemu;
  Channel *agent;
  Qmp *qmp;           /* NULL: QEMU is somebody else's */
  char *control_path; /* the back-end's control socket */
  Qmp *control;       /* connected when first used */
  guint shots;        /* workers that were killed by the test */
  guint tag;    /* of the last request to the agent */
  double boot_seconds;
  GHashTable *jobs;    /* name → GString: output that was polled and not yet read by the test */
  char *driver_folder; /* the driver's sysfs folder, once found */
};

/* ---- vm-process.c ---- */

/* Starts a program with its output going to FOLDER/what.log. It is killed when this program ends, however that comes. */
void vm_process_start (Vm *vm, VmProcess *process, const char *what, const char *const *arguments);
gboolean vm_process_spawn (VmProcess *process, const char *what, const char *folder, const char *const *arguments, GError **error);

/* Takes note of a process that somebody else has started: everything here works with it, but for its exit status. */
gboolean vm_process_adopt (VmProcess *process, const char *what, GPid pid, const char *log, GError **error);

/* Frees what is in there; the process is left alone. */
void vm_process_clear (VmProcess *process);

/* TRUE while it runs; else status is set. */
gboolean vm_process_runs (VmProcess *process);

/* Sends the signal and waits; FALSE if it runs on. */
gboolean vm_process_wait (VmProcess *process, double seconds);

/* Ends it: SIGTERM, and SIGKILL after seconds. Returns FALSE if that was necessary. */
gboolean vm_process_end (VmProcess *process, double seconds);

/* "exit status 1", "killed by signal 11 (Segmentation fault)", "running", "ended". */
char *vm_process_describe (VmProcess *process);

/* Runs a command of the source tree's scripts and returns its standard output without the last newline; ends the program if it
 * fails. What it says on standard error is shown then only. */
char *vm_script (const char *const *arguments);

/* ---- vm-guest.c ---- */

void vm_wait_hello (Vm *vm, double seconds);

/* ---- vm.c ---- */

/* A new folder in /tmp, or where DOMYBS_FOLDERS says; and its end. */
char *vm_make_folder (const char *name);
void vm_delete_folder (const char *folder);

/* A VM of which nothing runs yet; what is NULL gets the defaults of VmConfig. And the end of its description. */
Vm *vm_new (const char *name, const char *series, const char *driver_params);
void vm_free (Vm *vm);

/* As its configuration says. */
void vm_load_driver (Vm *vm);

/* The path of scripts/lab. */
char *vm_lab_script (void);

/* How many workers of the back-end have died by themselves. 0 if it can't be asked any more. */
gint64 vm_worker_deaths (Vm *vm);

gboolean vm_watch (gpointer vm, GError **error);
void vm_fail_with (Vm *vm, GError *error, const char *doing) G_GNUC_NORETURN;

#endif
