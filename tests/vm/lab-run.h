/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Programs of the lab that a test uses beside its VMs, or without any: block device clients, and NBD servers as storage of far
 * disks. They see /tmp, and end with the test program. What can't be started fails the test.
 */
#ifndef DOMYBS_TESTS_VM_LAB_RUN_H
#define DOMYBS_TESTS_VM_LAB_RUN_H

#include "vm-internal.h"

/* A folder in /tmp that workers of domybs-far, who are another user, can reach into. vm_delete_folder() removes it, g_free()
 * its name. */
char *lab_folder (const char *name);

/* Starts a command, given as for a shell (no expansions); its log is FOLDER/WHAT.log. vm_process_* of vm-internal.h watch and
 * end it. */
void lab_spawn (VmProcess *process, const char *what, const char *folder, const char *format, ...) G_GNUC_PRINTF (4, 5);

/* Runs one to its end, at most so many seconds (then it is killed, and the status is -1). Returns its exit status; ret_output,
 * if not NULL, is what it said, on standard error, too. */
int lab_run (const char *folder, double seconds, char **ret_output, const char *format, ...) G_GNUC_PRINTF (4, 5);

/* The same; any other status than 0 fails the test. */
char *lab_run_ok (const char *folder, const char *format, ...) G_GNUC_PRINTF (2, 3);

/* An NBD server with a file behind it, which stays over its deaths. */
typedef struct {
  VmProcess process;
  char *folder;  /* its own */
  char *socket;  /* unix */
  char *uri;     /* what domybs-far is given */
  char *image;   /* the file */
  char *trouble; /* a path; with LAB_SERVER_FAILS requests fail while there is a file of that name */
  char *command; /* it is started with */
} LabServer;

typedef enum {
  LAB_SERVER_QEMU,  /* qemu-storage-daemon, O_DIRECT */
  LAB_SERVER_PLAIN, /* nbdkit */
  LAB_SERVER_SLOW,  /* nbdkit; 5 ms for a read, 20 ms for a write */
  LAB_SERVER_FAILS, /* nbdkit; some requests end in EIO at times, see trouble */
} LabServerKind;

void lab_server_start (LabServer *server, LabServerKind kind, guint64 bytes);
/* SIGKILL; and the same command once more. */
void lab_server_kill (LabServer *server);
void lab_server_again (LabServer *server);
/* SIGSTOP and SIGCONT. */
void lab_server_hang (LabServer *server);
void lab_server_go_on (LabServer *server);
void lab_server_end (LabServer *server);

#endif
