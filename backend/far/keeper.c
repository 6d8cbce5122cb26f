/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "far/keeper.h"
#include "far/connector.h"
#include "io/process-keeper.h"
#include "io/sandbox-calls.h"

#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <unistd.h>

SANDBOX_KEEPER_CALLS (SANDBOX_CALL (pipe2));

/* Workers of a time when this keeper was all in this file have the same numbers and page. */
_Static_assert (FAR_FD_PAGE == PROCESS_FD_FIRST && FAR_FD_END <= PROCESS_FD_END, "all descriptors have a place");
_Static_assert (FAR_HANDOVER_BYTES == PROCESS_PAGE_BYTES && FAR_COOKIE_BYTES == PROCESS_COOKIE_BYTES, "the page is one");
_Static_assert (offsetof (struct far_handover, cookie) == offsetof (struct process_page, cookie)
                  && offsetof (struct far_handover, good) == offsetof (struct process_page, good)
                  && sizeof (struct far_handover) == sizeof (struct process_page),
                "the page is one");
_Static_assert ((int)FAR_EXIT_RESTART == (int)PROCESS_EXIT_RESTART && (int)FAR_EXIT_UPGRADE == (int)PROCESS_EXIT_UPGRADE, "they say the same");

/* Pipes that hang up when the kernel has nothing of a worker on its way any more: io/storage.h. */
struct gone {
  int given; /* read end that the worker has as well; −1: none */
  int own;   /* read end of the worker's own pipe */
};

/* One for the process, and static: nothing is allocated once it runs. */
static struct {
  const struct far_keeper_options *options;
  struct process_keeper_options process;
  struct gone gone[FAR_DISKS_MAX];
  int connector;        /* our end of the worker's; −1: none */
  int64_t connector_at; /* ms: no sooner is it looked at */
} k;

static int *
fd_of (int number) {
  return &k.process.fds[number - PROCESS_FD_FIRST];
}

static void
close_fd (int *fd) {
  if (*fd >= 0)
    close (*fd);
  *fd = -1;
}

/* ---- what each worker has of its own ---- */

static bool
make_pipes (void) {
  bool ok = true;

  for (unsigned i = 0; i < k.options->n_disks; i++) {
    int pair[2] = { -1, -1 };

    ok = pipe2 (pair, O_CLOEXEC) == 0 && ok;
    k.gone[i].own = process_keeper_move_up (pair[0]);
    *fd_of (far_fd (i, FAR_FD_GONE_WRITE)) = process_keeper_move_up (pair[1]);
    *fd_of (far_fd (i, FAR_FD_GONE_READ)) = k.gone[i].given;
  }
  return ok;
}

/* A worker that has none does without. */
static void
make_connector (void) {
  int ends[2];

  if (!k.options->memory_device || !far_connector_pair (ends))
    return;
  k.connector = process_keeper_move_up (ends[0]);
  k.connector_at = 0;
  *fd_of (FAR_FD_CONNECTOR) = process_keeper_move_up (ends[1]);
}

static bool
before (struct process_keeper_options *process, bool first) {
  make_connector ();
  return make_pipes ();
}

/* The worker's ends are the only ones. */
static void
started (struct process_keeper_options *process) {
  close_fd (fd_of (FAR_FD_CONNECTOR));
  for (unsigned i = 0; i < k.options->n_disks; i++)
    close_fd (fd_of (far_fd (i, FAR_FD_GONE_WRITE)));
}

/* A worker that was given a pipe which has not hung up yet has written nothing: the next one, too, waits for those before. */
static void
ended (struct process_keeper_options *process) {
  close_fd (&k.connector);
  for (unsigned i = 0; i < k.options->n_disks; i++) {
    struct gone *gone = &k.gone[i];
    struct pollfd pfd = { .fd = gone->given, .events = POLLIN };
    const bool waits = gone->given >= 0 && (poll (&pfd, 1, 0) != 1 || !(pfd.revents & (POLLHUP | POLLERR)));
    const int dropped = waits ? gone->own : gone->given;

    if (dropped >= 0)
      close (dropped);
    gone->given = waits ? gone->given : gone->own;
    gone->own = -1;
    *fd_of (far_fd (i, FAR_FD_GONE_READ)) = -1;
  }
}

/* ---- the connector ---- */

static int
watch (struct process_keeper_options *process, int64_t now_ms, int64_t *wait_ms) {
  if (k.connector < 0 || k.connector_at <= now_ms)
    return k.connector;
  *wait_ms = k.connector_at - now_ms;
  return -1;
}

static void
ready (struct process_keeper_options *process, int64_t now_ms) {
  if (k.connector < 0)
    return;
  k.connector_at = now_ms + FAR_CONNECTOR_PAUSE_MS;
  if (!far_connector_serve (k.connector, k.options->memory_device))
    close_fd (&k.connector);
}

/* ---- all together ---- */

static void
give (const struct far_keeper_options *o) {
  *fd_of (FAR_FD_PAGE) = o->page_fd;
  *fd_of (FAR_FD_KEY) = o->key_fd;
  *fd_of (FAR_FD_CONTROL) = o->control_fd;
  *fd_of (FAR_FD_DONORS) = o->donors_fd;
  for (unsigned i = 0; i < o->n_disks; i++) {
    *fd_of (far_fd (i, FAR_FD_LISTEN)) = o->disks[i].listen_fd;
    *fd_of (far_fd (i, FAR_FD_STATE)) = o->disks[i].state_fd;
    *fd_of (far_fd (i, FAR_FD_STAGE)) = o->disks[i].stage_fd;
    *fd_of (far_fd (i, FAR_FD_STORAGE)) = o->disks[i].storage_fd;
    *fd_of (far_fd (i, FAR_FD_COPIES)) = o->disks[i].copies_fd;
  }
}

/* What was given has other numbers now, and nobody but the process' end closes it. */
static void
take_back (struct far_keeper_options *o) {
  o->page_fd = *fd_of (FAR_FD_PAGE);
  o->key_fd = *fd_of (FAR_FD_KEY);
  o->control_fd = *fd_of (FAR_FD_CONTROL);
  for (unsigned i = 0; i < o->n_disks; i++) {
    o->disks[i].listen_fd = *fd_of (far_fd (i, FAR_FD_LISTEN));
    o->disks[i].storage_fd = *fd_of (far_fd (i, FAR_FD_STORAGE));
  }
}

int
far_keeper_run (struct far_keeper_options *options) {
  int status;

  k.options = options;
  k.connector = -1;
  for (unsigned i = 0; i < FAR_DISKS_MAX; i++)
    k.gone[i] = (struct gone){ -1, -1 };
  k.process = (struct process_keeper_options){ .program = "domybs-far",
                                               .name = options->name,
                                               .n_fds = (unsigned)(FAR_FD_END - PROCESS_FD_FIRST),
                                               .page = (struct process_page *)options->page,
                                               .worker_argv = options->worker_argv,
                                               .end_signal = options->donors_fd >= 0 ? FAR_SIGNAL_END : 0,
                                               .before = before,
                                               .started = started,
                                               .ended = ended,
                                               .watch = watch,
                                               .ready = ready };
  for (unsigned i = 0; i < PROCESS_FDS_MAX; i++)
    k.process.fds[i] = -1;
  give (options);
  options->page->version = FAR_HANDOVER_VERSION;
  options->page->n_disks = options->n_disks;
  status = process_keeper_run (&k.process);
  take_back (options);
  return status;
}
