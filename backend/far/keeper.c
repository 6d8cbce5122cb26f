/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "far/keeper.h"
#include "core/crash-point.h"
#include "core/crash-policy.h"
#include "device/keeper-log.h"
#include "far/connector.h"
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
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

SANDBOX_KEEPER_CALLS (SANDBOX_CALL (signalfd4), SANDBOX_CALL (wait4), SANDBOX_CALL (kill), SANDBOX_CALL (close_range),
                      SANDBOX_CALL (pipe2), SANDBOX_CALL (fork), SANDBOX_CALL_IF (clone, 0, SANDBOX_NAMESPACES, 0),
                      SANDBOX_CALL_IF (execveat, 4, AT_EMPTY_PATH, AT_EMPTY_PATH));

#define END_TIMEOUT_MS 2000
#define STATUS_NOT_STARTED (127 << 8)

/* Pipes that hang up when the kernel has nothing of a worker on its way any more: io/storage.h. */
struct gone {
  int given; /* read end that the worker has as well; −1: none */
  int own;   /* read end of the worker's own pipe */
};

/* One for the process, and static: nothing is allocated once it runs. */
static struct {
  const struct far_keeper_options *options;
  struct far_handover said; /* what the page must say, whatever workers write there */
  sigset_t old_mask;
  int signal_fd;
  char path[PATH_MAX];         /* where the program was started from */
  int program, program_before; /* −1: there is no upgrade that could be undone */
  struct crash_policy policy;
  struct gone gone[FAR_DISKS_MAX];
  int connector; /* our end of the worker's; −1: none */
  int64_t connector_at; /* ms: no sooner is it looked at */
  pid_t worker; /* 0: none */
  bool was_good, over;
  int64_t start_at;
  int status;
} k;

static int64_t
now_us (void) {
  struct timespec now;

  clock_gettime (CLOCK_MONOTONIC, &now);
  return now.tv_sec * INT64_C (1000000) + now.tv_nsec / 1000;
}

/* ---- workers begin ---- */

/* Nothing of ours has a number that a worker's descriptor gets: so they can be put there in any order. */
static int
move_up (int fd) {
  const int up = fd < 0 ? -1 : fcntl (fd, F_DUPFD_CLOEXEC, FAR_FD_END);

  if (fd >= 0)
    close (fd);
  return up;
}

static bool
put (int fd, int number) {
  if (fd >= 0)
    return dup2 (fd, number) == number;
  close (number);
  return true;
}

static bool
put_all (const int *gone_write, int connector) {
  const struct far_keeper_options *o = k.options;
  bool ok = put (o->page_fd, FAR_FD_PAGE) && put (o->key_fd, FAR_FD_KEY) && put (o->control_fd, FAR_FD_CONTROL);

  for (int fd = FAR_FD_CONTROL + 1; fd < FAR_FD_END; fd++)
    close (fd);
  if (connector >= 0)
    ok = ok && put (connector, FAR_FD_CONNECTOR);
  for (unsigned i = 0; i < o->n_disks && ok; i++)
    ok = put (o->disks[i].listen_fd, far_fd (i, FAR_FD_LISTEN)) && put (o->disks[i].state_fd, far_fd (i, FAR_FD_STATE))
         && put (o->disks[i].stage_fd, far_fd (i, FAR_FD_STAGE)) && put (o->disks[i].storage_fd, far_fd (i, FAR_FD_STORAGE))
         && put (gone_write[i], far_fd (i, FAR_FD_GONE_WRITE)) && put (k.gone[i].given, far_fd (i, FAR_FD_GONE_READ));
  return ok;
}

static void __attribute__ ((noreturn)) be_worker (const int *gone_write, int connector, pid_t keeper) {
  int error;

  sigprocmask (SIG_SETMASK, &k.old_mask, NULL);
  if (!put_all (gone_write, connector))
    _exit (KEEPER_EXIT_CANT);
  close_range (FAR_FD_END, ~0u, CLOSE_RANGE_CLOEXEC);
  CRASH_POINTS_INHERIT ();
  error = sandbox_become_worker ();
  if (error == 0 && prctl (PR_SET_PDEATHSIG, SIGKILL) == 0 && getppid () == keeper) {
    execveat (k.program, "", k.options->worker_argv, environ, AT_EMPTY_PATH);
    error = errno;
  }
  keeper_log ("domybs-far: can't start a worker: %s", strerrordesc_np (error));
  _exit (KEEPER_EXIT_CANT);
}

static bool
make_pipes (int *gone_write) {
  bool ok = true;

  for (unsigned i = 0; i < k.options->n_disks; i++) {
    int pair[2] = { -1, -1 };

    ok = pipe2 (pair, O_CLOEXEC) == 0 && ok;
    k.gone[i].own = move_up (pair[0]);
    gone_write[i] = move_up (pair[1]);
  }
  return ok;
}

static void
drop_connector (void) {
  if (k.connector >= 0)
    close (k.connector);
  k.connector = -1;
}

/* Returns the worker's end; −1: it has to do without. */
static int
make_connector (void) {
  int ends[2];

  k.connector = -1;
  if (!k.options->memory_device || !far_connector_pair (ends))
    return -1;
  k.connector = move_up (ends[0]);
  k.connector_at = 0;
  return move_up (ends[1]);
}

static void now_ended (int status);

static void
start_worker (void) {
  const pid_t self = getpid ();
  int gone_write[FAR_DISKS_MAX], connector;

  k.said.starts++;
  k.said.strikes = k.policy.strikes;
  memcpy (k.options->page, &k.said, offsetof (struct far_handover, good));
  connector = make_connector ();
  k.worker = make_pipes (gone_write) ? fork () : -1;
  if (k.worker == 0)
    be_worker (gone_write, connector, self);
  if (connector >= 0)
    close (connector);
  for (unsigned i = 0; i < k.options->n_disks; i++)
    if (gone_write[i] >= 0)
      close (gone_write[i]); /* the worker's is the only one */
  if (k.worker < 0)
    now_ended (STATUS_NOT_STARTED);
}

/* ---- workers end ---- */

/* A worker that was given a pipe which has not hung up yet has written nothing: the next one, too, waits for those before. */
static void
keep_pipes (void) {
  for (unsigned i = 0; i < k.options->n_disks; i++) {
    struct gone *gone = &k.gone[i];
    struct pollfd pfd = { .fd = gone->given, .events = POLLIN };
    const bool waits = gone->given >= 0 && (poll (&pfd, 1, 0) != 1 || !(pfd.revents & (POLLHUP | POLLERR)));
    const int dropped = waits ? gone->own : gone->given;

    if (dropped >= 0)
      close (dropped);
    gone->given = waits ? gone->given : gone->own;
    gone->own = -1;
  }
}

/* The program that is installed now, for the next worker. The one before stays at hand. */
static void
upgrade (void) {
  int program = open (k.path, O_PATH | O_CLOEXEC);

  if (program < 0) {
    keeper_log ("warning: %s: no upgrade: can't open %s: %s", k.options->name, k.path, strerrordesc_np (errno));
    return;
  }
  program = move_up (program);
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
    keeper_log ("warning: %s: the worker (process %d) died by %s; %u in a row, %" PRIu64 " in all: %s", k.options->name,
                (int)pid, keeper_status_text (status), strikes, k.said.deaths,
                back ? "back to the program before the upgrade" : "the next one starts");
}

/* A worker that can't begin: with the first one that is the operator's mistake, or the host's, and known at once. */
static bool
is_hopeless (int status) {
  return WIFEXITED (status) && WEXITSTATUS (status) == KEEPER_EXIT_CANT && k.said.starts <= 1 && !k.was_good;
}

static void
now_ended (int status) {
  const int code = WIFEXITED (status) ? WEXITSTATUS (status) : -1;
  const pid_t pid = k.worker;

  k.worker = 0;
  drop_connector ();
  keep_pipes ();
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
  case FAR_EXIT_UPGRADE:
    upgrade ();
    return;
  case FAR_EXIT_RESTART:
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
      keeper_log ("told to end");
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
  kill (k.worker, SIGKILL);
  while (waitpid (k.worker, NULL, WNOHANG) == 0 && now_us () / 1000 < deadline)
    poll (NULL, 0, 1);
}

/* The program that runs, whatever becomes of its file. */
static bool
find_program (void) {
  const ssize_t n = readlink ("/proc/self/exe", k.path, sizeof k.path - 1);

  k.program = move_up (open ("/proc/self/exe", O_PATH | O_CLOEXEC));
  k.program_before = -1;
  if (n < 0)
    return false;
  k.path[n] = 0;
  return k.program >= 0;
}

static bool
begin (struct far_keeper_options *o) {
  bool ok = true;

  for (unsigned i = 0; i < FAR_DISKS_MAX; i++)
    k.gone[i] = (struct gone){ -1, -1 };
  for (unsigned i = 0; i < o->n_disks; i++) {
    struct far_keeper_disk *disk = &o->disks[i];
    const bool file = disk->storage_fd >= 0, stage = disk->stage_fd >= 0;

    disk->listen_fd = move_up (disk->listen_fd);
    disk->state_fd = move_up (disk->state_fd);
    disk->stage_fd = move_up (disk->stage_fd);
    disk->storage_fd = move_up (disk->storage_fd);
    ok = ok && disk->listen_fd >= 0 && disk->state_fd >= 0 && (!stage || disk->stage_fd >= 0) && (!file || disk->storage_fd >= 0);
  }
  o->page_fd = move_up (o->page_fd);
  o->key_fd = move_up (o->key_fd);
  o->control_fd = move_up (o->control_fd);
  return ok && o->page_fd >= 0;
}

int
far_keeper_run (struct far_keeper_options *options) {
  sigset_t signals;

  k.options = options;
  k.status = EXIT_FAILURE;
  k.connector = -1;
  k.said = (struct far_handover){ .version = FAR_HANDOVER_VERSION,
                                  .n_disks = options->n_disks,
                                  .keeper_pid = (uint32_t)getpid () };
  memcpy (k.said.cookie, options->page->cookie, sizeof k.said.cookie);
  k.said.started_us = (uint64_t)now_us ();
  sigemptyset (&signals);
  sigaddset (&signals, SIGCHLD);
  sigaddset (&signals, SIGTERM);
  sigaddset (&signals, SIGINT);
  sigprocmask (SIG_BLOCK, &signals, &k.old_mask);
  signal (SIGCHLD, SIG_DFL); /* else nobody would be left to be waited for */
  k.signal_fd = signalfd (-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC);
  if (k.signal_fd < 0 || !begin (options) || !find_program ()) {
    keeper_log ("domybs-far: can't begin to keep a worker: %s", strerrordesc_np (errno));
    return EXIT_FAILURE;
  }
  while (!k.over) {
    const int64_t now = now_us () / 1000;
    struct pollfd pfds[2] = { { .fd = k.signal_fd, .events = POLLIN }, { .fd = -1, .events = POLLIN } };
    int64_t wait_ms = -1;

    if (k.worker <= 0 && now >= k.start_at)
      start_worker ();
    if (k.worker <= 0)
      wait_ms = k.start_at > now ? k.start_at - now : 0;
    else if (k.connector >= 0 && k.connector_at > now)
      wait_ms = k.connector_at - now;
    else
      pfds[1].fd = k.connector;
    if (poll (pfds, 2, (int)wait_ms) <= 0)
      continue;
    if (pfds[0].revents)
      take_signals ();
    if (pfds[1].revents && pfds[1].fd == k.connector) {
      k.connector_at = now_us () / 1000 + FAR_CONNECTOR_PAUSE_MS;
      if (!far_connector_serve (k.connector, k.options->memory_device))
        drop_connector ();
    }
  }
  end_worker ();
  return k.status;
}
