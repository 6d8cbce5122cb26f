/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "io/process-keeper.h"
#include "core/crash-point.h"
#include "core/crash-policy.h"
#include "io/keeper-log.h"
#include "io/sandbox-calls.h"
#include "io/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

SANDBOX_KEEPER_CALLS (SANDBOX_CALL (signalfd4), SANDBOX_CALL (wait4), SANDBOX_CALL (kill), SANDBOX_CALL (close_range), SANDBOX_CALL (fork),
                      SANDBOX_CALL_IF (clone, 0, SANDBOX_NAMESPACES, 0), SANDBOX_CALL_IF (execveat, 4, AT_EMPTY_PATH, AT_EMPTY_PATH));

#define END_TIMEOUT_MS 2000
#define STATUS_NOT_STARTED (127 << 8)

/* One for the process, and static: nothing is allocated once it runs. */
static struct {
  struct process_keeper_options *options;
  struct process_page said; /* what the page must say, whatever workers write there */
  sigset_t old_mask;
  int signal_fd;
  char path[PATH_MAX];         /* where the program was started from */
  int program, program_before; /* −1: there is no upgrade that could be undone */
  struct crash_policy policy;
  pid_t worker; /* 0: none */
  bool was_good, over;
  int64_t start_at; /* ms */
  int status;
} k;

static int64_t
now_us (void) {
  struct timespec now;

  clock_gettime (CLOCK_MONOTONIC, &now);
  return now.tv_sec * INT64_C (1000000) + now.tv_nsec / 1000;
}

int
process_keeper_move_up (int fd) {
  const int up = fd < 0 ? -1 : fcntl (fd, F_DUPFD_CLOEXEC, PROCESS_FD_END);

  if (fd >= 0)
    close (fd);
  return up;
}

/* ---- workers begin ---- */

/* None of ours has a number that a worker's descriptor gets: so they can be put there in any order. */
static bool
put_all (void) {
  for (unsigned i = 0; i < PROCESS_FDS_MAX; i++) {
    const int number = PROCESS_FD_FIRST + (int)i, fd = i < k.options->n_fds ? k.options->fds[i] : -1;

    if (fd < 0)
      close (number);
    else if (dup2 (fd, number) != number)
      return false;
  }
  return true;
}

static void __attribute__ ((noreturn)) be_worker (pid_t keeper) {
  int error;

  sigprocmask (SIG_SETMASK, &k.old_mask, NULL);
  if (!put_all ())
    _exit (KEEPER_EXIT_CANT);
  close_range (PROCESS_FD_END, ~0u, CLOSE_RANGE_CLOEXEC);
  CRASH_POINTS_INHERIT ();
  error = sandbox_become_worker ();
  if (error == 0 && prctl (PR_SET_PDEATHSIG, SIGKILL) == 0 && getppid () == keeper) {
    execveat (k.program, "", k.options->worker_argv, environ, AT_EMPTY_PATH);
    error = errno;
  }
  keeper_log ("%s: can't start a worker: %s", k.options->program, strerrordesc_np (error));
  _exit (KEEPER_EXIT_CANT);
}

static void now_ended (int status);

static void
start_worker (void) {
  struct process_keeper_options *o = k.options;
  const pid_t self = getpid ();
  int error;
  bool can;

  k.said.starts++;
  k.said.strikes = k.policy.strikes;
  memcpy (k.options->page, &k.said, offsetof (struct process_page, good));
  can = !o->before || o->before (o, k.said.starts == 1);
  k.worker = can ? fork () : -1;
  error = errno;
  if (k.worker == 0)
    be_worker (self);
  if (o->started)
    o->started (o);
  if (k.worker > 0)
    return;
  if (keeper_log_has_room (now_us () / 1000))
    keeper_log ("%s: %s: can't start a worker: %s", o->program, o->name, strerrordesc_np (error));
  k.worker = 0;
  now_ended (STATUS_NOT_STARTED);
}

/* ---- workers end ---- */

/* The program that is installed now, for the next worker. The one before stays at hand. */
static void
upgrade (void) {
  int program = open (k.path, O_PATH | O_CLOEXEC);

  if (program >= 0)
    program = process_keeper_move_up (program);
  if (program < 0) {
    keeper_log ("warning: %s: no upgrade: can't open %s: %s", k.options->name, k.path, strerrordesc_np (errno));
    return;
  }
  if (k.program_before >= 0)
    close (k.program_before);
  k.program_before = k.program;
  k.program = program;
  k.said.rolled_back = false;
  crash_policy_upgraded (&k.policy);
}

static void
roll_back (void) {
  close (k.program);
  k.program = k.program_before;
  k.program_before = -1;
  k.said.rolled_back = true;
}

static void
died (pid_t pid, int status) {
  const int64_t now = now_us ();
  const bool cant = WIFEXITED (status) && WEXITSTATUS (status) == KEEPER_EXIT_CANT;
  const uint32_t strikes = k.policy.strikes + 1;
  bool back;
  uint32_t delay = crash_policy_died (&k.policy, &back);

  if (cant && k.program_before >= 0 && k.policy.can_roll_back) { /* it has said why */
    k.policy = (struct crash_policy){ .mode = KEEPER_MODE_NORMAL };
    back = true;
    delay = 0;
  }
  k.said.deaths++;
  k.said.last_status = status;
  k.said.last_death_us = (uint64_t)now;
  k.start_at = now / 1000 + delay;
  if (back && k.program_before >= 0)
    roll_back ();
  if (keeper_log_has_room (now / 1000))
    keeper_log ("warning: %s: the worker (process %d) died by %s; %u in a row, %" PRIu64 " in all: %s", k.options->name, (int)pid,
                keeper_status_text (status), strikes, k.said.deaths,
                back ? "back to the program before the upgrade" : "the next one starts");
}

/* A worker that can't begin: with the first one that is the operator's mistake, or the host's, and known at once. */
static bool
is_hopeless (int status) {
  const bool cant = WIFEXITED (status) && (WEXITSTATUS (status) == KEEPER_EXIT_CANT || status == STATUS_NOT_STARTED);

  return cant && k.said.starts <= 1 && !k.was_good;
}

static void
now_ended (int status) {
  const int code = WIFEXITED (status) ? WEXITSTATUS (status) : -1;
  const pid_t pid = k.worker;

  k.worker = 0;
  if (k.options->ended)
    k.options->ended (k.options);
  if (__atomic_load_n (&k.options->page->good, __ATOMIC_RELAXED) == k.said.starts) {
    k.was_good = true;
    crash_policy_good (&k.policy);
    crash_policy_busy_over (&k.policy); /* there is no such mode here but for the delays between its workers */
  }
  switch (code) {
  case KEEPER_EXIT_DONE:
    k.over = true;
    k.status = EXIT_SUCCESS;
    return;
  case PROCESS_EXIT_UPGRADE:
    upgrade ();
    return;
  case PROCESS_EXIT_RESTART:
    return;
  default:
    if (is_hopeless (status))
      k.over = true;
    else
      died (pid, status);
  }
}

/* ---- all together ---- */

static void
take_signals (void) {
  struct signalfd_siginfo info;
  int status;

  while (read (k.signal_fd, &info, sizeof info) == sizeof info)
    if (info.ssi_signo != SIGCHLD) {
      keeper_log ("%s: told to end", k.options->program);
      k.over = true;
      k.status = EXIT_SUCCESS;
    }
  if (k.worker > 0 && waitpid (k.worker, &status, WNOHANG) == k.worker)
    now_ended (status);
}

static void
end_worker (void) {
  const int64_t deadline = now_us () / 1000 + END_TIMEOUT_MS;

  if (k.worker <= 0)
    return;
  if (k.options->end_signal) {
    kill (k.worker, k.options->end_signal);
    while (now_us () / 1000 < deadline) {
      if (waitpid (k.worker, NULL, WNOHANG) != 0)
        return;
      poll (NULL, 0, 1);
    }
    keeper_log ("warning: %s: the worker did not end in two seconds, and is killed", k.options->name);
  }
  kill (k.worker, SIGKILL);
  while (waitpid (k.worker, NULL, WNOHANG) == 0 && now_us () / 1000 < deadline + END_TIMEOUT_MS)
    poll (NULL, 0, 1);
}

/* The program that runs, whatever becomes of its file. */
static bool
find_program (void) {
  const ssize_t n = readlink ("/proc/self/exe", k.path, sizeof k.path - 1);

  k.program = process_keeper_move_up (open ("/proc/self/exe", O_PATH | O_CLOEXEC));
  k.program_before = -1;
  if (n < 0)
    return false;
  k.path[n] = 0;
  return k.program >= 0;
}

static bool
begin (struct process_keeper_options *options) {
  sigset_t signals;

  for (unsigned i = 0; i < options->n_fds; i++)
    if (options->fds[i] >= 0 && (options->fds[i] = process_keeper_move_up (options->fds[i])) < 0)
      return false;
  sigemptyset (&signals);
  sigaddset (&signals, SIGCHLD);
  sigaddset (&signals, SIGTERM);
  sigaddset (&signals, SIGINT);
  sigprocmask (SIG_BLOCK, &signals, &k.old_mask);
  signal (SIGCHLD, SIG_DFL); /* else nobody would be left to be waited for */
  /* moved, for else it might have a worker's number: the child only closes those that are not in use */
  k.signal_fd = process_keeper_move_up (signalfd (-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC));
  return k.signal_fd >= 0 && find_program ();
}

int
process_keeper_run (struct process_keeper_options *options) {
  k.options = options;
  k.status = EXIT_FAILURE;
  k.said = (struct process_page){ .version = options->page->version,
                                  .parts = options->page->parts,
                                  .keeper_pid = (uint32_t)getpid (),
                                  .started_us = (uint64_t)now_us () };
  memcpy (k.said.cookie, options->page->cookie, sizeof k.said.cookie);
  if (!begin (options)) {
    keeper_log ("%s: can't begin to keep a worker: %s", options->program, strerrordesc_np (errno));
    return EXIT_FAILURE;
  }
  while (!k.over) {
    const int64_t now = now_us () / 1000;
    struct pollfd pfds[2] = { { .fd = k.signal_fd, .events = POLLIN }, { .fd = -1, .events = POLLIN } };
    int64_t wait_ms = -1;

    if (k.worker <= 0 && now >= k.start_at)
      start_worker ();
    if (k.over)
      break;
    if (k.worker <= 0)
      wait_ms = k.start_at > now ? k.start_at - now : 0;
    else if (options->watch)
      pfds[1].fd = options->watch (options, now, &wait_ms);
    if (poll (pfds, 2, (int)wait_ms) <= 0)
      continue;
    if (pfds[0].revents)
      take_signals ();
    if (pfds[1].revents && k.worker > 0)
      options->ready (options, now_us () / 1000);
  }
  end_worker ();
  return k.status;
}
