/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Workers: how they begin, what they are told first, and what follows when they end. */
#include "device/keeper-internal.h"
#include "core/crash-point.h"
#include "core/crash-policy.h"
#include "io/keeper-log.h"
#include "io/fd-message.h"
#include "io/sandbox-calls.h"
#include "io/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

SANDBOX_KEEPER_CALLS (SANDBOX_CALL_IF (socketpair, 0, ~0u, AF_UNIX), SANDBOX_CALL (signalfd4), SANDBOX_CALL (wait4),
                      SANDBOX_CALL (kill), SANDBOX_CALL (close_range), SANDBOX_CALL (fork), SANDBOX_CALL_IF (clone, 0, SANDBOX_NAMESPACES, 0),
                      SANDBOX_CALL_IF (execveat, 4, AT_EMPTY_PATH, AT_EMPTY_PATH));

#define CHECKED_TIMEOUT_MS 10000
#define END_TIMEOUT_MS 2000
/* Messages of a worker in one turn, so that a flood leaves turns for signals and QEMU. */
#define MESSAGES_PER_TURN 64
#define STATUS_NOT_STARTED (127 << 8)

struct worker {
  pid_t pid; /* 0: none */
  int fd;
  bool checked;
  bool runs;       /* GO was said */
  bool hung_up;    /* its socket is closed: it ends, or we end it */
  bool replaced;   /* we ended it: the next one is ready */
  const char *why; /* we ended it for this */
  enum keeper_mode mode;
  int program; /* an upgrade's; -1: as before */
  int64_t deadline;
};

static struct {
  const struct keeper_options *options;
  sigset_t old_mask;
  int signal_fd;
  int64_t started_us;
  bool over;
  int status; /* main's, when it is over */

  char path[PATH_MAX];         /* where the program was started from */
  int program, program_before; /* -1: there is no upgrade that could be undone */
  struct crash_policy policy;
  bool was_good, rolled_back;
  uint64_t starts, deaths;
  int last_status;
  int64_t last_death_us;

  struct worker now, next; /* next: has not got GO */
  int64_t start_at;
} k;

static int64_t
now_us (void) {
  struct timespec now;

  clock_gettime (CLOCK_MONOTONIC, &now);
  return now.tv_sec * INT64_C (1000000) + now.tv_nsec / 1000;
}

/* ---- to workers ---- */

static void
end_worker (struct worker *worker, const char *why) {
  if (worker->pid <= 0 || worker->why || worker->replaced)
    return;
  worker->why = why;
  kill (worker->pid, SIGKILL);
}

/* All that a worker is told it has asked for, and its socket has room for that, unless it does not listen. */
static void
tell (struct worker *worker, const struct keeper_message *message, const void *bytes, int fd) {
  const ssize_t n = fd_message_send (worker->fd, message, sizeof *message, bytes, message->n_bytes, fd);

  if (n < 0 && errno != EPIPE && errno != ECONNRESET)
    end_worker (worker, "it does not take what it asked for");
}

void
keeper_tell (const struct keeper_message *message, const void *bytes, int fd) {
  if (k.now.runs)
    tell (&k.now, message, bytes, fd);
}

static void
tell_slot (struct worker *worker, unsigned i) {
  const struct keeper_slot *slot = &peer.slots[i];
  const struct keeper_message message
      = { .type = KEEPER_SLOT, .slot = (uint8_t)i, .stream = slot->stream, .epoch = slot->epoch, .position = slot->position };

  if (slot->fd >= 0)
    tell (worker, &message, NULL, slot->fd);
}

void
keeper_tell_slot (unsigned slot) {
  if (k.now.runs)
    tell_slot (&k.now, slot);
}

static void
tell_hello (struct worker *worker, enum keeper_type type) {
  const struct keeper_message message = { .type = type, .n_bytes = sizeof (struct keeper_hello) };
  const struct keeper_hello hello = {
    .wire_version = KEEPER_WIRE_VERSION,
    .mode = worker->mode,
    .hold_ms = worker->mode == KEEPER_MODE_BUSY ? k.policy.hold_ms : 0,
    .keeper_pid = (uint32_t)getpid (),
    .connection = peer.main.epoch,
    .is_connected = peer.main.fd >= 0,
    .last_status = k.last_status,
    .starts = k.starts + !worker->runs,
    .deaths = k.deaths,
    .last_death_us = (uint64_t)k.last_death_us,
    .started_us = (uint64_t)k.started_us,
    .strikes = k.policy.strikes,
    .rolled_back = k.rolled_back,
    .accepts = k.options->listen_fd >= 0,
    .has_state = peer.slots[KEEPER_SLOT_STATE].fd >= 0,
  };

  tell (worker, &message, &hello, -1);
}

static void __attribute__ ((format (printf, 1, 0)))
tell_not_replaced (const char *format, const char *a, const char *b, const char *c) {
  struct keeper_message message = { .type = KEEPER_REPLACE_FAILED };
  char why[KEEPER_BYTES_MAX];
  const int n = snprintf (why, sizeof why, format, a, b, c);

  message.n_bytes = n < (int)sizeof why ? (uint32_t)n : (uint32_t)sizeof why - 1;
  keeper_log ("warning: %s: the worker is not replaced: %s", k.options->name, why);
  keeper_tell (&message, why, -1);
}

/* ---- workers end ---- */

/* One has died that nobody wanted to end, or could not be started. */
static void
died (pid_t pid, int status, const char *why) {
  const int64_t now = now_us ();
  const uint32_t strikes = k.policy.strikes + 1;
  bool roll_back;
  const uint32_t delay = crash_policy_died (&k.policy, &roll_back);
  char next[64] = "the next one starts";

  k.deaths++;
  k.last_status = status;
  k.last_death_us = now;
  k.start_at = now / 1000 + delay;
  if (roll_back) {
    close (k.program);
    k.program = k.program_before;
    k.program_before = -1;
    k.rolled_back = true;
    strcpy (next, "back to the program before the upgrade");
  } else if (k.policy.mode == KEEPER_MODE_BUSY) {
    snprintf (next, sizeof next, "the guest is told to wait for %u ms", delay + k.policy.hold_ms);
  }
  if (keeper_log_has_room (now / 1000))
    keeper_log ("warning: %s: the worker (process %d) died by %s%s%s; %u in a row, %" PRIu64 " in all: %s", k.options->name,
                (int)pid, keeper_status_text (status), why ? ": " : "", why ? why : "", strikes, k.deaths, next);
}

/* A worker that can't begin: with the first one that is the operator's mistake, or the host's, and known at once. */
static bool
is_hopeless (int status) {
  return WIFEXITED (status) && WEXITSTATUS (status) == KEEPER_EXIT_CANT && k.starts <= 1 && k.deaths == 0 && !k.was_good;
}

static bool hear (struct worker *worker);

static void
now_ended (int status) {
  const int code = WIFEXITED (status) ? WEXITSTATUS (status) : -1;
  const pid_t pid = k.now.pid;
  struct worker was;

  k.now.pid = 0;
  while (hear (&k.now)) /* what it said before counts */
    ;
  was = k.now;
  close (was.fd);
  k.now = (struct worker){ .fd = -1 };
  keeper_peer_new_reader ();
  if (was.replaced)
    return;
  if (code == KEEPER_EXIT_AGAIN && was.mode == KEEPER_MODE_BUSY) {
    crash_policy_busy_over (&k.policy);
  } else if (code == KEEPER_EXIT_DONE || is_hopeless (status)) {
    k.over = true;
    k.status = code == KEEPER_EXIT_DONE ? EXIT_SUCCESS : EXIT_FAILURE;
  } else {
    died (pid, status, was.why);
  }
}

static void
next_ended (int status) {
  const struct worker was = k.next;

  k.next = (struct worker){ .fd = -1 };
  if (was.fd >= 0)
    close (was.fd);
  if (was.program >= 0)
    close (was.program);
  if (k.now.pid > 0 && !k.now.replaced) {
    tell_not_replaced ("the new one ended by %s%s%s", keeper_status_text (status), was.why ? ": " : "", was.why ? was.why : "");
  } else if (is_hopeless (status)) {
    k.over = true;
    k.status = EXIT_FAILURE;
  } else {
    died (was.pid, status, was.why);
  }
}

/* ---- workers begin ---- */

static void __attribute__ ((noreturn))
be_worker (int program, int fd, pid_t keeper) {
  int error;

  if (k.options->listen_fd > KEEPER_WORKER_FD)
    close (k.options->listen_fd); /* now, not when the program begins: nobody may listen who has no keeper any more */
  sigprocmask (SIG_SETMASK, &k.old_mask, NULL);
  if (fd == KEEPER_WORKER_FD ? fcntl (fd, F_SETFD, 0) < 0 : dup2 (fd, KEEPER_WORKER_FD) < 0)
    _exit (KEEPER_EXIT_CANT);
  close_range (KEEPER_WORKER_FD + 1, ~0u, CLOSE_RANGE_CLOEXEC); /* what we were started with is not its business, either */
  CRASH_POINTS_INHERIT ();
  error = sandbox_become_worker ();
  if (error == 0 && prctl (PR_SET_PDEATHSIG, SIGKILL) == 0 && getppid () == keeper) {
    execveat (program, "", k.options->worker_argv, environ, AT_EMPTY_PATH);
    error = errno;
  }
  keeper_log ("domybs-backend: can't start a worker: %s", strerrordesc_np (error));
  _exit (KEEPER_EXIT_CANT);
}

/* What it is told first is in its socket before it exists. */
static void
start_worker (int program) {
  const pid_t self = getpid ();
  int pair[2];

  k.next = (struct worker){ .fd = -1, .mode = k.now.pid > 0 ? KEEPER_MODE_NORMAL : k.policy.mode, .program = program };
  k.next.deadline = now_us () / 1000 + CHECKED_TIMEOUT_MS;
  if (socketpair (AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0) {
    k.next.fd = pair[0];
    tell_hello (&k.next, KEEPER_HELLO);
    tell_slot (&k.next, KEEPER_SLOT_STATE);
    k.next.pid = fork ();
    if (k.next.pid == 0)
      be_worker (program >= 0 ? program : k.program, pair[1], self);
    close (pair[1]);
  }
  if (k.next.pid <= 0) {
    k.next.pid = 0;
    k.next.why = strerrordesc_np (errno);
    next_ended (STATUS_NOT_STARTED);
  }
}

static void
replace_now (enum keeper_program which) {
  int program = -1;

  if (k.next.pid > 0 || k.now.replaced)
    return; /* of the one that starts already it will be told */
  if (which == KEEPER_PROGRAM_INSTALLED && (program = open (k.path, O_PATH | O_CLOEXEC)) < 0)
    tell_not_replaced ("can't open %s: %s%s", k.path, strerrordesc_np (errno), "");
  else
    start_worker (program);
}

/* The one that is ready is the one now. */
static void
promote_next (void) {
  k.now = k.next;
  k.next = (struct worker){ .fd = -1 };
  k.now.runs = true;
  k.starts++;
  if (k.now.mode == KEEPER_MODE_NORMAL)
    crash_policy_busy_over (&k.policy);
  if (k.now.program >= 0) {
    if (k.program_before >= 0)
      close (k.program_before);
    k.program_before = k.program;
    k.program = k.now.program;
    k.rolled_back = false;
    crash_policy_upgraded (&k.policy);
  }
  for (unsigned i = 0; i < KEEPER_SLOTS; i++)
    if (i != KEEPER_SLOT_STATE)
      tell_slot (&k.now, i);
  tell_hello (&k.now, KEEPER_GO);
}

/* ---- from workers ---- */

static const char *
obey (const struct keeper_message *message, const uint8_t *bytes, struct fd_message_fds *fds) {
  const char *why;

  switch (message->type) {
  case KEEPER_GOOD:
    k.was_good = true;
    if (k.now.mode == KEEPER_MODE_NORMAL)
      crash_policy_good (&k.policy);
    return NULL;
  case KEEPER_REPLACE:
    replace_now (message->count);
    return NULL;
  default:
    why = keeper_peer_obey (message, bytes, fds->n ? fds->fds[0] : -1);
    if (!why && message->type == KEEPER_PUT)
      fds->fds[0] = fds->fds[--fds->n]; /* it was taken */
    return why;
  }
}

/* One message of a worker. FALSE: there is none now. */
static bool
hear (struct worker *worker) {
  static struct {
    struct keeper_message message;
    uint8_t bytes[KEEPER_BYTES_MAX];
  } in;
  struct fd_message_fds fds;
  const ssize_t n = fd_message_receive (worker->fd, &in, sizeof in, &fds);
  const char *why = NULL;

  if (n < 0 && errno == EAGAIN)
    return false;
  if (n <= 0) {
    worker->hung_up = true;
    if (worker->pid > 0)
      kill (worker->pid, SIGKILL); /* changes nothing for one that is ending */
    return false;
  }
  if (fds.truncated || (size_t)n < sizeof in.message || (size_t)n != sizeof in.message + in.message.n_bytes)
    why = "its message is broken";
  else if (worker->runs)
    why = obey (&in.message, in.bytes, &fds);
  else if (in.message.type == KEEPER_CHECKED)
    worker->checked = true;
  else
    why = "it speaks before it is told to go";
  for (unsigned i = 0; i < fds.n; i++)
    close (fds.fds[i]);
  if (why)
    end_worker (worker, why);
  return !why;
}

/* ---- all together ---- */

static void
reap (struct worker *worker, void (*ended) (int status)) {
  int status;

  if (worker->pid > 0 && waitpid (worker->pid, &status, WNOHANG) == worker->pid)
    ended (status);
}

static void
take_signals (void) {
  struct signalfd_siginfo info;

  while (read (k.signal_fd, &info, sizeof info) == sizeof info)
    if (info.ssi_signo != SIGCHLD) {
      keeper_log ("told to end");
      k.over = true;
    }
}

/* What is due by now; the processes that have ended were looked at before. */
static void
keep_a_worker (int64_t now) {
  if (k.next.checked && k.now.pid > 0 && !k.now.replaced) {
    k.now.replaced = true;
    kill (k.now.pid, SIGKILL); /* its state is good at every instant */
  }
  if (k.next.checked && k.now.pid <= 0)
    promote_next ();
  if (k.next.pid > 0 && !k.next.checked && now >= k.next.deadline)
    end_worker (&k.next, "it did not begin in time");
  if (k.now.pid <= 0 && k.next.pid <= 0 && now >= k.start_at)
    start_worker (-1);
}

static int
poll_timeout (int64_t now) {
  int64_t due = keeper_peer_due (now);

  if (k.next.pid > 0 && !k.next.checked && !k.next.why && k.next.deadline < due)
    due = k.next.deadline;
  if (k.now.pid <= 0 && k.next.pid <= 0 && k.start_at < due)
    due = k.start_at;
  return due == INT64_MAX ? -1 : due <= now ? 0 : (int)(due - now);
}

static void
turn (void) {
  enum { SIGNALS, NOW, NEXT, PEER, N = PEER + KEEPER_PEER_POLL_FDS };
  struct pollfd fds[N] = {
    [SIGNALS] = { k.signal_fd, POLLIN, 0 },
    [NOW] = { k.now.why || k.now.hung_up || k.now.replaced ? -1 : k.now.fd, POLLIN, 0 },
    [NEXT] = { k.next.why || k.next.hung_up || k.next.checked ? -1 : k.next.fd, POLLIN, 0 },
  };
  int64_t now = now_us () / 1000;

  keeper_peer_poll_fds (fds + PEER, now);
  if (poll (fds, N, poll_timeout (now)) < 0)
    return;
  now = now_us () / 1000;
  if (fds[NOW].revents)
    for (int i = 0; i < MESSAGES_PER_TURN && hear (&k.now); i++)
      ;
  if (fds[NEXT].revents && k.next.fd == fds[NEXT].fd)
    hear (&k.next);
  keeper_peer_turn (fds + PEER, now);
  if (fds[SIGNALS].revents) {
    take_signals ();
    reap (&k.now, now_ended);
    reap (&k.next, next_ended);
  }
}

static void
end_workers (void) {
  const int64_t deadline = now_us () / 1000 + END_TIMEOUT_MS;

  for (int i = 0; i < 2; i++) {
    struct worker *worker = i ? &k.next : &k.now;

    if (worker->pid <= 0)
      continue;
    kill (worker->pid, SIGKILL);
    while (waitpid (worker->pid, NULL, WNOHANG) == 0 && now_us () / 1000 < deadline)
      poll (NULL, 0, 1);
  }
}

/* The program that runs, whatever becomes of its file; above the number that a worker's socket gets. */
static bool
find_program (void) {
  const ssize_t n = readlink ("/proc/self/exe", k.path, sizeof k.path - 1);
  const int fd = open ("/proc/self/exe", O_PATH | O_CLOEXEC);

  if (n < 0 || fd < 0)
    return false;
  k.path[n] = 0;
  k.program_before = -1;
  k.program = fcntl (fd, F_DUPFD_CLOEXEC, KEEPER_WORKER_FD + 1);
  close (fd);
  return k.program >= 0;
}

int
keeper_run (const struct keeper_options *options) {
  sigset_t signals;

  k.options = options;
  k.started_us = now_us ();
  k.now.fd = k.next.fd = -1;
  sigemptyset (&signals);
  sigaddset (&signals, SIGCHLD);
  sigaddset (&signals, SIGTERM);
  sigaddset (&signals, SIGINT);
  sigprocmask (SIG_BLOCK, &signals, &k.old_mask);
  signal (SIGCHLD, SIG_DFL); /* else nobody would be left to be waited for */
  k.signal_fd = signalfd (-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC);
  if (k.signal_fd < 0 || !find_program ()) {
    keeper_log ("domybs-backend: can't begin to keep a worker: %s", strerrordesc_np (errno));
    return EXIT_FAILURE;
  }
  keeper_peer_init (options);
  while (!k.over) {
    keep_a_worker (now_us () / 1000);
    turn ();
  }
  end_workers ();
  return k.status;
}
