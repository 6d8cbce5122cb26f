/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "donor/worker.h"
#include "core/crash-point.h"
#include "core/keeper-wire.h"
#include "donor/commands.h"
#include "io/error.h"
#include "io/host-memory.h"
#include "io/psk-keys.h"
#include "io/sandbox-calls.h"
#include "io/sandbox.h"
#include "io/source.h"
#include "io/tcp.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

SANDBOX_KEEPER_CALLS (SANDBOX_CALL (setitimer), SANDBOX_CALL (getsockname));

/* Of processor time. A start takes some 10 ms of it, and the lists of the blocks. */
#define START_SECONDS 3
#define START_BLOCKS_PER_SECOND (4ull << 20)
/* A worker that has lived for so long is no crash loop. */
#ifndef DONOR_GOOD_MS
#define DONOR_GOOD_MS 500u
#endif

typedef struct {
  DonorOperator op; /* first: what commands get is this */
  GMainLoop *loop;
  GSource *good_source;
  int status; /* enum keeper_exit, enum process_exit */
} Run;

static void
leave (DonorOperator *op, int status) {
  Run *run = (Run *)op;

  run->status = status;
  g_main_loop_quit (run->loop);
}

static gboolean
on_good (gpointer data) {
  Run *run = data;

  source_clear (&run->good_source);
  __atomic_store_n (&run->op.page->process.good, run->op.page->process.starts, __ATOMIC_RELAXED);
  return G_SOURCE_REMOVE;
}

static gboolean
is_old (gpointer export, gpointer data) {
  return lender_export_is_old (export, data);
}

static void
close_old (gpointer data, const LenderOld *old) {
  Run *run = data;

  page_server_close_export (run->op.pages, is_old, (gpointer)old);
}

/* ---- what the keeper holds ---- */

/* bytes: it must have just that many. */
static void *
map (int fd, gsize bytes, GError **error) {
  struct stat st;
  void *memory;

  if (fstat (fd, &st) < 0 || st.st_size != (off_t)bytes) {
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_CORRUPT,
                 "what the keeper gave as descriptor %d is not of %" G_GSIZE_FORMAT " bytes", fd, bytes);
    return NULL;
  }
  memory = mmap (NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close (fd);
  if (memory != MAP_FAILED)
    return memory;
  domybs_error_errno (error, "can't map %" G_GSIZE_FORMAT " bytes", bytes);
  return NULL;
}

static struct donor_page *
open_page (const DonorOptions *options, GError **error) {
  struct donor_page *page = map (DONOR_FD_PAGE, PROCESS_PAGE_BYTES, error);

  if (page && (page->process.version != DONOR_PAGE_VERSION || page->process.parts != g_strv_length (options->listen))) {
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_CORRUPT, "the keeper speaks version %u about %u addresses",
                 page->process.version, page->process.parts);
    return NULL;
  }
  return page;
}

static gboolean
open_lender (Run *run, GError **error) {
  const DonorOptions *options = run->op.options;
  const struct donor_page *page = run->op.page;
  const gsize bytes = lease_donor_state_bytes (&options->geometry);
  LenderOptions lender_options = { .name = options->name,
                                   .geometry = options->geometry,
                                   .limits = options->limits,
                                   .ttl_ms = options->ttl_ms,
                                   .revoke_ms = options->revoke_ms,
                                   .reserve_bytes = options->reserve_bytes,
                                   .fixed = options->fixed };
  void *table = map (DONOR_FD_TABLE, bytes, error);
  HostMemory memory;
  const char *why;
  Arena *arena;

  if (!table || !host_memory_read (&memory, error))
    return FALSE;
  why = lease_donor_check_header (table, bytes, &options->geometry);
  if (why) {
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_CORRUPT, "this program can't go on from the lease table: %s", why);
    return FALSE;
  }
  if (options->reserve_bytes == DONOR_RESERVE_DEFAULT)
    lender_options.reserve_bytes = host_memory_reserve (memory.total_bytes);
  arena = arena_open (DONOR_FD_ARENA, options->geometry.n_blocks, options->lock, error);
  if (!arena)
    return FALSE;
  CRASH_POINT ("worker-mapped");
  run->op.lender = lender_new (&lender_options, arena, table, bytes,
                               page->has_size ? page->size_blocks : options->geometry.n_blocks, error);
  return run->op.lender != NULL;
}

/* Only who may read the file has opened it; whose else it may be is looked at here. */
static SecureSide *
read_keys (const DonorOptions *options, guint *ret_count, GError **error) {
  g_autoptr (PskKeys) keys = NULL;
  g_autofree char *text = NULL;
  struct stat st;
  gssize n;

  if (fstat (DONOR_FD_KEYS, &st) < 0 || !S_ISREG (st.st_mode) || st.st_size > (off_t)PSK_FILE_BYTES_MAX) {
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_USAGE, "%s is no file of at most %u bytes", options->psk_path,
                 PSK_FILE_BYTES_MAX);
    return NULL;
  }
  if (st.st_mode & 077) {
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_USAGE,
                 "%s can be read by others than its owner: keys must not; chmod 600 %s", options->psk_path, options->psk_path);
    return NULL;
  }
  text = g_malloc0 ((gsize)st.st_size + 1);
  n = pread (DONOR_FD_KEYS, text, (gsize)st.st_size, 0);
  close (DONOR_FD_KEYS);
  if (n < 0)
    domybs_error_errno (error, "can't read %s", options->psk_path);
  else
    keys = psk_keys_parse (text, (gsize)n, options->psk_path, error);
  explicit_bzero (text, (gsize)st.st_size);
  if (!keys)
    return NULL;
  *ret_count = psk_keys_count (keys);
  return secure_side_new_server (keys, error);
}

static gboolean
open_server (Run *run, GError **error) {
  const DonorOptions *options = run->op.options;
  const PageServerLimits limits = { 0 };
  g_autoptr (SecureSide) side = NULL;

  if (options->psk_path && !(side = read_keys (options, &run->op.keys, error)))
    return FALSE;
  lender_set_fence (run->op.lender, close_old, run);
  run->op.pages = page_server_new (DONOR_FD_LISTEN, side, &lender_exports, run->op.lender, &limits);
  for (int i = 1; options->listen[i]; i++)
    page_server_listen (run->op.pages, DONOR_FD_LISTEN + i);
  return TRUE;
}

/* ---- all of it ---- */

/* libseccomp can go round for ever where it finds no memory: a worker that does not get on with its start dies, as others do.
 */
static void
limit_start (const DonorOptions *options) {
  struct itimerval limit = { .it_value = { .tv_sec = START_SECONDS } };

  limit.it_value.tv_sec += (time_t)(options->geometry.n_blocks / START_BLOCKS_PER_SECOND);
  signal (SIGPROF, SIG_DFL);
  setitimer (ITIMER_PROF, &limit, NULL);
}

static void
start_is_over (void) {
  const struct itimerval none = { .it_value = { .tv_sec = 0 } };

  setitimer (ITIMER_PROF, &none, NULL);
}

static gboolean
run_all (Run *run, GError **error) {
  const DonorOptions *options = run->op.options;

  run->op.page = open_page (options, error);
  if (!run->op.page)
    return FALSE;
  run->loop = g_main_loop_new (NULL, FALSE);
  if (!open_lender (run, error) || !open_server (run, error))
    return FALSE;
  if (options->control_path)
    run->op.server = control_server_new (DONOR_FD_CONTROL, "domybs-donor", donor_command, &run->op);
  CRASH_POINT ("worker-opened");
  start_is_over ();
  if (!sandbox_worker (error))
    return FALSE;
  CRASH_POINT ("worker-ready");
  run->good_source = source_timeout (DONOR_GOOD_MS, on_good, run);
  lender_start (run->op.lender);
  g_main_loop_run (run->loop);
  return TRUE;
}

int
donor_worker_run (const DonorOptions *options) {
  static Run run;
  g_autoptr (GError) error = NULL;

  run.status = KEEPER_EXIT_CANT;
  run.op.options = options;
  run.op.leave = leave;
  run.op.started_at = g_get_monotonic_time ();
  CRASH_POINTS_ARM ();
  limit_start (options);
  prctl (PR_SET_NAME, "domybs-donor-wk"); /* as the name it would have the descriptor that it was executed from */
  signal (SIGINT, SIG_IGN);               /* what is sent to all of a terminal or a service is for the keeper */
  signal (SIGTERM, SIG_IGN);
  signal (SIGHUP, SIG_IGN);
  if (!run_all (&run, &error))
    fprintf (stderr, "domybs-donor: %s\n", error->message);
  return run.status;
}
