/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "device/worker.h"
#include "core/crash-point.h"
#include "device/commands.h"
#include "io/error.h"
#include "io/guest-map.h"
#include "io/sandbox.h"
#include "io/sandbox-calls.h"
#include "io/source.h"
#include "io/state-file.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/time.h>

SANDBOX_KEEPER_CALLS (SANDBOX_CALL (setitimer));

/* Of processor time. A start takes some 10 ms of it. */
#define START_SECONDS 2

typedef struct {
  GMainLoop *loop;
  int status; /* enum keeper_exit */
} Run;

static void
on_gone (gpointer data) {
  Run *run = data;

  run->status = KEEPER_EXIT_DONE;
  g_main_loop_quit (run->loop);
}

static gboolean
on_busy_long_enough (gpointer data) {
  Run *run = data;

  run->status = KEEPER_EXIT_AGAIN;
  g_main_loop_quit (run->loop);
  return G_SOURCE_REMOVE;
}

static HostAccount *
adopt_account (const Options *options, KeeperLink *link, GError **error) {
  const uint64_t limit = options->host_limit_bytes >> DOMYBS_BLOCK_SHIFT;
  int fd;

  if (options->account_slot < 0)
    return host_account_private (limit);
  fd = fcntl (keeper_link_fd (link, KEEPER_SLOT_ACCOUNT), F_DUPFD_CLOEXEC, 0);
  if (fd < 0) {
    domybs_error_errno (error, "the keeper gave no host account");
    return NULL;
  }
  return host_account_adopt (fd, (unsigned)options->account_slot, limit, error);
}

/* NULL without an error: there is none to be had. */
static ControlServer *
open_control (KeeperLink *link, Operator *op, GError **error) {
  const int socket_fd = keeper_link_fd (link, KEEPER_SLOT_CONTROL);
  const int fd = socket_fd < 0 ? -1 : fcntl (socket_fd, F_DUPFD_CLOEXEC, 0);

  if (fd >= 0)
    return control_server_new (fd, "domybs-backend", backend_command, op);
  if (socket_fd >= 0) /* another worker may have more luck; one without it would be deaf for as long as it lives */
    domybs_error_errno (error, "can't have the control socket");
  return NULL;
}

/* Whether this program can take the place of the worker before: asked before that one ends. */
static gboolean
can_go_on (const Options *options, KeeperLink *link, GError **error) {
  const int fd = keeper_link_fd (link, KEEPER_SLOT_STATE);

  return fd < 0 || state_file_is_ours (fd, options->backend.device.window_blocks, error);
}

/* libseccomp can go round for ever where it finds no memory: a worker that does not get on with its start dies, as others do. */
static void
limit_start (void) {
  const struct itimerval limit = { .it_value = { .tv_sec = START_SECONDS } };

  signal (SIGPROF, SIG_DFL);
  setitimer (ITIMER_PROF, &limit, NULL);
}

static void
start_is_over (void) {
  signal (SIGPROF, SIG_IGN);
}

static gboolean
run (const Options *options, Run *ret_run, GError **error) {
  /* Not freed: to the keeper its end would be ours, before we could say with what status. */
  static KeeperLink *link;
  g_autoptr (GMainLoop) loop = NULL;
  g_autoptr (Backend) backend = NULL;
  g_autoptr (ControlServer) control = NULL;
  g_autoptr (Monitor) monitor = NULL;
  g_autoptr (FarLink) far = NULL;
  g_autoptr (GError) local = NULL;
  GSource *hold = NULL;
  BackendOptions backend_options = options->backend;
  HostAccount *account;
  Operator op = { .started_at = g_get_monotonic_time () };

  link = keeper_link_open (KEEPER_WORKER_FD, error);
  CRASH_POINT ("worker-linked");
  if (!link || !can_go_on (options, link, error) || !keeper_link_checked (link, error))
    return FALSE;
  CRASH_POINT ("worker-go");
  ret_run->loop = loop = g_main_loop_new (NULL, FALSE);
  if (!guest_map_init (error))
    return FALSE;
  account = adopt_account (options, link, error);
  if (!account)
    return FALSE;
  backend_options.once = options->once || !keeper_link_hello (link)->accepts;
  backend = backend_new (&backend_options, account, link, on_gone, ret_run, error);
  if (!backend)
    return FALSE;
  control = open_control (link, &op, &local);
  if (local) {
    g_propagate_error (error, g_steal_pointer (&local));
    return FALSE;
  }
  if (control) {
    monitor = monitor_new (backend, control);
    far = far_link_new (backend, control);
  }
  op = (Operator){ backend, monitor, far, control, op.started_at };
  if (!sandbox_worker (error))
    return FALSE;
  start_is_over ();
  CRASH_POINT ("worker-ready");
  if (keeper_link_hello (link)->mode == KEEPER_MODE_BUSY)
    hold = source_timeout (keeper_link_hello (link)->hold_ms, on_busy_long_enough, ret_run);
  backend_start (backend);
  if (ret_run->status != KEEPER_EXIT_DONE)
    g_main_loop_run (loop);
  source_clear (&hold);
  return TRUE;
}

int
worker_run (const Options *options) {
  g_autoptr (GError) error = NULL;
  Run state = { .status = KEEPER_EXIT_CANT };

  CRASH_POINTS_ARM ();
  limit_start ();
  prctl (PR_SET_NAME, "domybs-worker"); /* as the name it would have the descriptor that it was executed from */
  signal (SIGINT, SIG_IGN); /* what is sent to all of a terminal or a service is for the keeper */
  signal (SIGTERM, SIG_IGN);
  signal (SIGHUP, SIG_IGN);
  if (!run (options, &state, &error))
    fprintf (stderr, "domybs-backend: %s\n", error->message);
  return state.status;
}
