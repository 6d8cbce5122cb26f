/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A domybs-backend under test: started with a directory of its own (sockets, log), watched through /proc and its control socket, ended
 * by its pid. It is two processes: the keeper, which is the one that was started, and the worker, its child, which is another one after
 * each restart.
 *
 * The program is $DOMYBS_BACKEND, else ../../backend/domybs-backend beside the test program. $DOMYBS_BACKEND_WRAPPER (split at
 * blanks) is put in front of it: "valgrind --track-fds=yes …" (with --vex-iropt-register-updates=allregs-at-mem-access, without
 * which no program survives a SIGBUS that its handler mends). The process dies with the test program, however that ends.
 */
#ifndef DOMYBS_TESTS_PROCESS_H
#define DOMYBS_TESTS_PROCESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <json-glib/json-glib.h>

struct backend {
  pid_t pid; /* the keeper's */
  char *directory, *socket_path, *control_path, *log_path;
  bool ended;
  int wait_status; /* when ended */
};
typedef struct backend backend_t;

/* The program's path; free it. */
char *backend_program (void);

#define BACKEND_CHILD_FD 30 /* where the_fd lies in the process */

/* A folder of its own, after the template, with paths in it for a socket of that name, the control socket and the log: what is to
 * run does not run yet. */
struct backend *backend_new (const char *folder_template, const char *socket_name);
/* Runs argv (NULL-terminated), with the log as its output and none of the test's descriptors but the_fd (−1: none either).
 * crash_file: as in crash-point.h; may be NULL. */
void backend_run (struct backend *backend, const char *const *argv, int the_fd, const char *crash_file);

/* Starts it with --standalone, --socket-path, --control-path and the arguments given (NULL-terminated). Aborts the test when it
 * can't be started. */
struct backend *backend_start (const char *const *arguments);
/* The same with --fd: the process gets the_fd (which stays the caller's) as its connected socket. */
struct backend *backend_start_fd (int the_fd, const char *const *arguments);
/* SIGTERM, then a bounded wait; SIGKILL if that was in vain. Returns the wait status, -1 when it had to be killed. */
int backend_stop (struct backend *backend);
/* SIGKILL to the keeper, and waits until the worker, too, has gone by itself; aborts the test when that stays. */
void backend_kill (struct backend *backend);
void backend_free (struct backend *backend); /* stops it, removes the directory; prints the log when $DOMYBS_TEST_LOG is set */
G_DEFINE_AUTOPTR_CLEANUP_FUNC (backend_t, backend_free)

bool backend_is_alive (struct backend *backend);
/* Waits (bounded) until it has ended by itself. */
bool backend_wait_end (struct backend *backend, int timeout_ms);
/* "exit 1", "signal 6 (Aborted)", … */
const char *backend_end_text (struct backend *backend);

/* ---- keeper and worker ---- */

#define BACKEND_PROCESSES_MAX 4 /* the keeper, its worker, and a candidate for its place */
/* The keeper and its children that live (no zombies); returns how many: 1 while a worker is being started. */
unsigned backend_processes (struct backend *backend, pid_t ret_pids[BACKEND_PROCESSES_MAX]);
/* The worker that there is now, the youngest if there are two; 0: none. */
pid_t backend_worker (struct backend *backend);
/* Waits for one that is not `other` (0: any); 0 when none came. */
pid_t backend_wait_worker (struct backend *backend, pid_t other, int timeout_ms);
/* SIGKILL to this worker, and waits until it is dead. False when it had ended before. */
bool backend_kill_worker (pid_t worker);
/* SIGSTOP or SIGCONT to all of its processes. */
void backend_signal_all (struct backend *backend, int signal_number);

/* What all of its processes hold now. RSS without shared pages, because those are the guest's. */
unsigned backend_fds (struct backend *backend);
char *backend_fds_text (struct backend *backend); /* what they are */
unsigned backend_maps (struct backend *backend);
uint64_t backend_anonymous_kib (struct backend *backend);

/* Whether it runs under a tool (sanitizer, valgrind) whose own maps and memory grow at will. */
bool backend_is_instrumented (struct backend *backend);

/* Its log: stderr. */
size_t backend_log_size (struct backend *backend);
char *backend_log_from (struct backend *backend, size_t offset);
/* Waits until the log has `text` after offset. */
bool backend_wait_log (struct backend *backend, size_t offset, const char *text, int timeout_ms);

/* ---- control socket ---- */

int control_connect (const char *path); /* -1 when it can't */
/* The next line, parsed; NULL at end of file, after timeout_ms or for what is not JSON. */
JsonNode *control_read (int fd, int timeout_ms);
/* Connects and reads the greeting; aborts the test when that fails. */
int control_open (struct backend *backend);
/* One command on that connection: the whole answer object. The next line must be its answer. */
JsonNode *control_call (int fd, const char *command);
/* The same for a worker that may end meanwhile: NULL when it did. */
JsonNode *backend_control_once (struct backend *backend, const char *command);
/* … and again on a new connection until there is an answer: for commands that may be repeated. Aborts the test when there is none
 * within fe_patience_ms. */
JsonNode *backend_control_again (struct backend *backend, const char *command);
/* One command on a connection of its own: the whole answer object. Aborts the test when there is none. */
JsonNode *backend_control (struct backend *backend, const char *command);
/* One integer of {"return": …} of status; INT64_MIN when it is missing or null. */
int64_t backend_status (struct backend *backend, const char *member);
/* Waits until that member has that value. */
bool backend_wait_status (struct backend *backend, const char *member, int64_t value, int timeout_ms);

#endif
