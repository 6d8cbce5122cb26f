/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A domybs-far under test. It is watched, and its worker killed, with what tests/frontend/process.h has for a domybs-backend:
 * the same two processes, log and control socket. The program is $DOMYBS_FAR. */
#ifndef DOMYBS_TESTS_FAR_FAR_H
#define DOMYBS_TESTS_FAR_FAR_H

#include "blk.h"
#include "process.h"

#define FAR_TEST_DISKS_MAX 8u

struct far {
  struct backend *backend; /* its socket_path is the first disk's */
  char *storage_path;      /* of the first disk; may be something else than a file, see far_options */
  unsigned n_disks;
  char *socket_paths[FAR_TEST_DISKS_MAX];
};
typedef struct far far_t;

struct far_options {
  uint64_t bytes;         /* of each disk; 0: 64 MiB */
  unsigned n_disks;       /* 0: 1 */
  const char *const *tiers; /* their names; NULL: disk0, disk1 … */
  const char *storage;    /* of the first disk: a path or URI; NULL: a file in $DOMYBS_FAR_FOLDER, else in the test's folder */
  const char *disk_extra; /* ",queues=2" */
  const char *const *arguments; /* more, NULL-terminated; may be NULL */
  const char *program;          /* NULL: $DOMYBS_FAR */
  const char *crash_file;       /* io/crash-point.h; NULL: none */
};

/* Aborts the test when it can't be started; does not wait for its sockets. */
struct far *far_start (const struct far_options *options);
/* The whole command line instead. */
struct far *far_start_arguments (const char *const *arguments);
/* Ends it with SIGTERM, which must succeed if it runs. */
void far_end (struct far *far);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (far_t, far_end)

/* A running disk, connected. */
struct blk *far_connect (struct far *far, unsigned disk);
/* Kills the worker and waits for the next one. */
void far_kill_worker (struct far *far);

/* One number of a disk in `status`; path: "pages.raw". INT64_MIN: missing or null. */
int64_t far_status (struct far *far, unsigned disk, const char *path);
/* The same of the top level: "worker.deaths". */
int64_t far_status_top (struct far *far, const char *path);
bool far_wait_status (struct far *far, unsigned disk, const char *path, int64_t value, int timeout_ms);
char *far_status_text (struct far *far, unsigned disk, const char *path);

#define blk_must(blk, call)                                                                                                    \
  do {                                                                                                                         \
    if (!(call)) {                                                                                                             \
      g_autofree char *text_ = g_strdup_printf ("%s: %s", #call, (blk)->fe->why ? (blk)->fe->why : "?");                       \
      g_assertion_message (G_LOG_DOMAIN, __FILE__, __LINE__, G_STRFUNC, text_);                                                \
    }                                                                                                                          \
  } while (0)

#endif
