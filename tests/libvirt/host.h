/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A host of its own for tests, with a real libvirtd and the product of this build installed: what `scripts/lab host` makes. It
 * ends with the test program, however that ends, and everything that runs on it, too. With DOMYBS_TRACE=1 each command that is
 * run there is told with its time.
 */
#ifndef DOMYBS_TESTS_LIBVIRT_HOST_H
#define DOMYBS_TESTS_LIBVIRT_HOST_H

#include "vm.h"

typedef struct Host Host;

/* The host of this test program, started when first asked for, and ended by host_end(). */
Host *host_get (void);
void host_end (void);

/* The root of its file system, as the outside sees it; and its /var/log, which outlives it. */
const char *host_root (Host *host);
const char *host_log (Host *host);

/* A command that has ended. */
typedef struct {
  char *command; /* for messages */
  int status;    /* exit status; 128 + signal */
  char *out, *err;
  double seconds;
} HostResult;
void host_result_free (HostResult *result);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (HostResult, host_result_free)

/* Runs a program on the host, as root; at most 90 s. */
HostResult *host_run (Host *host, const char *program, ...) G_GNUC_NULL_TERMINATED;
HostResult *host_run_argv (Host *host, const char *const *argv);

/* The same; anything but status 0 fails the test. Returns what it printed. */
char *host_run_ok (Host *host, const char *program, ...) G_GNUC_NULL_TERMINATED;

/* A line of a shell there; anything but status 0 fails the test. */
char *host_shell (Host *host, const char *format, ...) G_GNUC_PRINTF (2, 3);

/* Fails the test with all that is known of the command. */
void host_fail (const HostResult *result, const char *format, ...) G_GNUC_PRINTF (2, 3) G_GNUC_NORETURN;

/* libvirtd alone: "start", "stop" (SIGTERM) or "kill". VMs live on. */
void host_libvirtd (Host *host, const char *what);

void host_write (Host *host, const char *path, const char *text);
char *host_read (Host *host, const char *path); /* NULL: it is not there */

/* The process (of a back-end: its keeper) whose name (as the kernel cuts it) is comm and whose command line holds needle, as the outside numbers it; 0 if
 * there is none. */
GPid host_find_process (Host *host, const char *comm, const char *needle);

/* What remains on the host of our product and of VMs, a line each, empty if nothing: processes besides libvirtd, sockets, files
 * in /run, /dev/shm and /var/tmp. */
char *host_remains (Host *host);

/* Waits until nothing remains, else fails the test. */
void host_expect_clean (Host *host, double seconds);

#endif
