/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "far/worker.h"
#include "core/crash-point.h"
#include "core/keeper-wire.h"
#include "far/commands.h"
#include "far/donor-table.h"
#include "far/object-disk.h"
#include "io/error.h"
#include "io/guest-map.h"
#include "io/sandbox-calls.h"
#include "io/sandbox.h"
#include "io/source.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

SANDBOX_KEEPER_CALLS (SANDBOX_CALL (setitimer));

/* Of processor time. A start takes some 10 ms of it, and the lists of the page stores, in which a full disk has all of its
 * pages. */
#define START_SECONDS 3
#define START_PAGES_PER_SECOND (4ull << 20)
/* A worker that has answered a request of the guest, or has lived for so long, is no crash loop. */
#ifndef FAR_GOOD_CHECK_MS /* tests that have hundreds of workers die set it */
#define FAR_GOOD_CHECK_MS 20u
#endif
#define GOOD_CHECKS (1000u / FAR_GOOD_CHECK_MS)
/* QEMU connects again after a worker's end, and after some errors: who has gone for so long has ended. */
#define ONCE_MS 3000

typedef struct {
  FarOperator op; /* first: what commands get is this */
  const FarOptions *options;
  GMainLoop *loop;
  GSource *good_source, *once_source;
  unsigned good_checks;
  int status; /* enum keeper_exit, enum far_exit */
  GSource *end_source;
  unsigned copies_to_end;
} Run;

/* Donors that do not answer by then keep what they have lent: the keeper does not wait much longer. */
#define END_LEASES_MS 1500

static void
one_ended (gpointer data) {
  Run *run = data;

  if (--run->copies_to_end == 0)
    g_main_loop_quit (run->loop);
}

/* The VM has ended: donors get back what they have lent. */
static void
leave_for_good (Run *run) {
  run->op.ending = TRUE;
  for (unsigned i = 0; i < run->options->n_disks; i++)
    run->copies_to_end += run->op.copies[i] != NULL;
  if (run->copies_to_end == 0)
    g_main_loop_quit (run->loop);
  for (unsigned i = 0; i < run->options->n_disks; i++)
    if (run->op.copies[i])
      far_copies_end (run->op.copies[i], END_LEASES_MS, one_ended, run);
}

static void
leave (FarOperator *op, int status) {
  Run *run = (Run *)op;

  if (op->ending)
    return;
  run->status = status;
  if (status != KEEPER_EXIT_DONE)
    g_main_loop_quit (run->loop);
  else
    leave_for_good (run);
}

static gboolean
on_end_signal (int fd, GIOCondition condition, gpointer data) {
  Run *run = data;
  struct signalfd_siginfo info;

  if (read (fd, &info, sizeof info) == (ssize_t)sizeof info)
    leave (&run->op, KEEPER_EXIT_DONE);
  return G_SOURCE_CONTINUE;
}

/* From the first moment on: it must not be the death of a worker that starts. */
static void
watch_for_the_end (Run *run) {
  sigset_t signals;
  int fd;

  sigemptyset (&signals);
  sigaddset (&signals, FAR_SIGNAL_END);
  sigprocmask (SIG_BLOCK, &signals, NULL);
  fd = signalfd (-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC);
  if (fd >= 0)
    run->end_source = source_fd (NULL, fd, G_IO_IN, on_end_signal, run);
}

static gboolean
has_answered (FarDisk *disk) {
  FarEngineFigures figures;
  guint64 sum = 0;

  far_engine_figures (far_disk_engine (disk), &figures);
  for (guint b = 0; b < FAR_LATENCY_BUCKETS; b++)
    sum += figures.read_latency[b] + figures.write_latency[b];
  return sum + figures.discards > 0;
}

static gboolean
on_good (gpointer data) {
  Run *run = data;
  gboolean good = ++run->good_checks >= GOOD_CHECKS;

  for (unsigned i = 0; i < run->options->n_disks; i++)
    good = good || has_answered (run->op.disks[i]);
  for (unsigned i = 0; i < run->options->n_objects; i++)
    good = good || object_disk_has_answered (run->op.objects[i]);
  if (!good)
    return G_SOURCE_CONTINUE;
  source_clear (&run->good_source);
  __atomic_store_n (&run->op.page->good, run->op.page->starts, __ATOMIC_RELAXED);
  return G_SOURCE_REMOVE;
}

static gboolean
on_once (gpointer data) {
  Run *run = data;

  source_clear (&run->once_source);
  for (unsigned i = 0; i < run->options->n_disks; i++)
    if (far_disk_is_connected (run->op.disks[i]))
      return G_SOURCE_REMOVE;
  for (unsigned i = 0; i < run->options->n_objects; i++)
    if (far_disk_is_connected (run->op.objects[i]))
      return G_SOURCE_REMOVE;
  leave (&run->op, KEEPER_EXIT_DONE);
  return G_SOURCE_REMOVE;
}

static void
on_closed (gpointer data) {
  Run *run = data;

  if (!run->options->once)
    return;
  source_clear (&run->once_source);
  run->once_source = source_timeout (ONCE_MS, on_once, run);
}

/* ---- what the keeper holds ---- */

/* bytes: it must have just that many. */
static void *
map (int fd, size_t bytes, GError **error) {
  struct stat st;
  void *memory;

  if (fstat (fd, &st) < 0 || st.st_size != (off_t)bytes) {
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_CORRUPT, "what the keeper gave as descriptor %d is not of %zu bytes", fd,
                 bytes);
    return NULL;
  }
  memory = mmap (NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close (fd);
  if (memory != MAP_FAILED)
    return memory;
  domybs_error_errno (error, "can't map %zu bytes", bytes);
  return NULL;
}

static struct far_handover *
open_page (const FarOptions *options, GError **error) {
  struct far_handover *page = map (FAR_FD_PAGE, FAR_HANDOVER_BYTES, error);

  if (page && (page->version != FAR_HANDOVER_VERSION || page->n_disks != options->n_disks + options->n_objects)) {
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_CORRUPT, "the keeper speaks version %u about %u disks", page->version,
                 page->n_disks);
    return NULL;
  }
  return page;
}

static gboolean
read_key (uint8_t key[SEAL_KEY_BYTES], GError **error) {
  const gboolean ok = pread (FAR_FD_KEY, key, SEAL_KEY_BYTES, 0) == (ssize_t)SEAL_KEY_BYTES;

  if (!ok)
    domybs_error_errno (error, "the keeper gave no key");
  close (FAR_FD_KEY);
  return ok;
}

/* ---- donors ---- */

/* Its copies with donors, around its storage; local is taken over. */
static Storage *
open_copies (Run *run, unsigned i, Storage *local, GError **error) {
  const FarDiskChoice *choice = &run->options->disks[i];
  FarCopiesOptions options = { .name = choice->name,
                               .mode = choice->protection,
                               .n_places = choice->geometry.n_places,
                               .n_donors = far_donor_table_count (run->op.donors),
                               .donors = far_donor_table_options (run->op.donors),
                               .disk = i,
                               .worker = (guint32)run->op.page->starts,
                               .repair_rate = run->options->repair_rate,
                               .away_ms = run->options->donor_away_s * 1000 };
  const size_t bytes = copies_state_bytes (choice->geometry.n_places);
  void *state = map (far_fd (i, FAR_FD_COPIES), bytes, error);
  Storage *storage;

  if (!state) {
    storage_free (local);
    return NULL;
  }
  memcpy (options.vm, run->op.page->cookie, sizeof options.vm);
  memcpy (options.host, far_donor_table_identities (run->op.donors)->host, sizeof options.host);
  memcpy (options.boot, far_donor_table_identities (run->op.donors)->boot, sizeof options.boot);
  storage = far_copies_new (&options, local, state, bytes, error);
  if (storage)
    run->op.copies[i] = far_copies_of (storage);
  return storage;
}

/* ---- disks ---- */

typedef struct {
  void *state;
  guint8 *stage;
} Memory;

static gboolean
map_disk (const FarDiskChoice *choice, unsigned i, Memory *ret_memory, GError **error) {
  const size_t bytes = far_store_state_bytes (&choice->geometry);
  const size_t stage_bytes = (size_t)choice->geometry.n_stage_slots * FAR_SEGMENT_BYTES;
  const char *why;

  ret_memory->state = map (far_fd (i, FAR_FD_STATE), bytes, error);
  if (!ret_memory->state)
    return FALSE;
  why = far_store_check_header (ret_memory->state, bytes, &choice->geometry);
  if (why) {
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_CORRUPT, "%s: this program can't go on from the page store's state: %s",
                 choice->name, why);
    return FALSE;
  }
  ret_memory->stage = map (far_fd (i, FAR_FD_STAGE), stage_bytes, error);
  if (!ret_memory->stage)
    return FALSE;
  if (madvise (ret_memory->stage, stage_bytes, MADV_HUGEPAGE) < 0)
    g_debug ("stage: %s", g_strerror (errno)); /* a kernel without huge pages */
  return TRUE;
}

static FarDisk *
open_disk (Run *run, unsigned i, const Memory *memory, const uint8_t *key, GError **error) {
  const FarDiskChoice *choice = &run->options->disks[i];
  const FarEngineOptions engine_options = { .name = choice->name,
                                            .geometry = choice->geometry,
                                            .pack = run->options->pack,
                                            .prefetch_bytes = choice->prefetch_bytes,
                                            .wear_day_bytes = choice->wear_day_bytes,
                                            .give_back_us = (guint64)choice->give_back_s * G_USEC_PER_SEC };
  const FarDiskOptions disk_options = { .name = choice->name,
                                        .id = choice->id,
                                        .n_queues = choice->n_queues,
                                        .mem_slots = choice->mem_slots,
                                        .inflight_owner = run->op.page->cookie,
                                        .closed = on_closed,
                                        .data = run };
  const gboolean is_first = run->op.page->starts <= 1;
  FarEngine *engine;
  Storage *storage;
  Seal *seal;

  storage = storage_new (choice->storage, far_fd (i, FAR_FD_STORAGE), (guint64)choice->geometry.n_places * FAR_SEGMENT_BYTES,
                         far_fd (i, FAR_FD_GONE_WRITE), is_first ? -1 : far_fd (i, FAR_FD_GONE_READ), error);
  close (far_fd (i, FAR_FD_GONE_READ));
  if (!storage)
    return NULL;
  run->op.storages[i] = storage;
  if (choice->protection != COPIES_STORAGE) {
    storage = open_copies (run, i, storage, error);
    if (!storage)
      return NULL;
  }
  CRASH_POINT ("worker-storage");
  seal = seal_new (key, choice->geometry.device, error);
  if (!seal)
    return NULL;
  engine = far_engine_new (&engine_options, memory->state, far_store_state_bytes (&choice->geometry), memory->stage, storage,
                           seal, error);
  CRASH_POINT ("worker-engine");
  return engine ? far_disk_new (&disk_options, far_fd (i, FAR_FD_LISTEN), engine) : NULL;
}

static gboolean
open_objects (Run *run, GError **error) {
  for (unsigned i = 0; i < run->options->n_objects; i++) {
    const FarObjectChoice *choice = &run->options->objects[i];
    const FarDiskOptions disk_options = { .name = choice->label,
                                          .id = choice->id,
                                          .n_queues = choice->n_queues,
                                          .read_only = TRUE,
                                          .mem_slots = choice->mem_slots,
                                          .closed = on_closed,
                                          .data = run };

    run->op.objects[i] = object_disk_new (choice, &disk_options, run->options->n_disks + i, error);
    if (!run->op.objects[i])
      return FALSE;
  }
  return TRUE;
}

static gboolean
open_disks (Run *run, GError **error) {
  Memory memory[FAR_DISKS_MAX];
  uint8_t key[SEAL_KEY_BYTES];
  gboolean ok = TRUE;

  /* First whether we can go on at all, then what takes its time. */
  for (unsigned i = 0; i < run->options->n_disks; i++)
    if (!map_disk (&run->options->disks[i], i, &memory[i], error))
      return FALSE;
  CRASH_POINT ("worker-mapped");
  if (run->options->seal && !read_key (key, error))
    return FALSE;
  if ((run->options->n_donors || run->options->donors_later)
      && !(run->op.donors = far_donor_table_open (FAR_FD_DONORS, run->options, error)))
    return FALSE;
  for (unsigned i = 0; i < run->options->n_disks && ok; i++) {
    run->op.disks[i] = open_disk (run, i, &memory[i], run->options->seal ? key : NULL, error);
    ok = run->op.disks[i] != NULL;
  }
  explicit_bzero (key, sizeof key);
  return ok;
}

/* Its engines' tiers that the memory device knows. */
static void
open_reserve (Run *run) {
  static const char *const tiers[] = { "shared", "remote" };
  const FarOptions *options = run->options;
  FarReserveTier list[FAR_RESERVE_TIERS];
  unsigned n = 0;

  if (!options->memory_device || fcntl (FAR_FD_CONNECTOR, F_GETFD) < 0)
    return;
  for (unsigned t = 0; t < G_N_ELEMENTS (tiers); t++)
    for (unsigned i = 0; i < options->n_disks; i++)
      if (g_str_equal (options->disks[i].tier, tiers[t]))
        list[n++] = (FarReserveTier){ tiers[t], far_disk_engine (run->op.disks[i]) };
  run->op.reserve = far_reserve_new (options->name, options->memory_device, FAR_FD_CONNECTOR, list, n);
}

/* ---- all of it ---- */

/* libseccomp can go round for ever where it finds no memory: a worker that does not get on with its start dies, as others do.
 */
static void
limit_start (const FarOptions *options) {
  struct itimerval limit = { .it_value = { .tv_sec = START_SECONDS } };

  for (unsigned i = 0; i < options->n_disks; i++)
    limit.it_value.tv_sec += (time_t)(options->disks[i].geometry.n_pages / START_PAGES_PER_SECOND);
  signal (SIGPROF, SIG_DFL);
  setitimer (ITIMER_PROF, &limit, NULL);
}

static void
start_is_over (void) {
  const struct itimerval none = { .it_value = { .tv_sec = 0 } };

  setitimer (ITIMER_PROF, &none, NULL);
}

/* Nothing is freed at the end: storage would be waited for, and there is no need. */
static gboolean
run_all (Run *run, GError **error) {
  const FarOptions *options = run->options;

  run->op.page = open_page (options, error);
  if (!run->op.page || !guest_map_init (error))
    return FALSE;
  run->loop = g_main_loop_new (NULL, FALSE);
  watch_for_the_end (run);
  if (!open_disks (run, error) || !open_objects (run, error))
    return FALSE;
  if (options->control_path)
    run->op.server = control_server_new (FAR_FD_CONTROL, "domybs-far", far_command, &run->op);
  open_reserve (run);
  if (run->op.donors)
    far_donor_table_start (run->op.donors, &run->op);
  CRASH_POINT ("worker-opened");
  start_is_over ();
  sandbox_let_worker_have_kernel_threads (); /* io_uring's */
  if (!sandbox_worker (error))
    return FALSE;
  CRASH_POINT ("worker-ready");
  run->good_source = source_timeout (FAR_GOOD_CHECK_MS, on_good, run);
  for (unsigned i = 0; i < options->n_disks; i++)
    far_disk_start (run->op.disks[i]);
  for (unsigned i = 0; i < options->n_objects; i++)
    far_disk_start (run->op.objects[i]);
  if (run->op.reserve)
    far_reserve_start (run->op.reserve);
  g_main_loop_run (run->loop);
  return TRUE;
}

int
far_worker_run (const FarOptions *options) {
  static Run run;
  g_autoptr (GError) error = NULL;

  run.options = options;
  run.status = KEEPER_EXIT_CANT;
  run.op.options = options;
  run.op.leave = leave;
  run.op.started_at = g_get_monotonic_time ();
  CRASH_POINTS_ARM ();
  limit_start (options);
  prctl (PR_SET_NAME, "domybs-far-work"); /* as the name it would have the descriptor that it was executed from */
  signal (SIGINT, SIG_IGN);               /* what is sent to all of a terminal or a service is for the keeper */
  signal (SIGTERM, SIG_IGN);
  signal (SIGHUP, SIG_IGN);
  if (!run_all (&run, &error))
    fprintf (stderr, "domybs-far: %s\n", error->message);
  return run.status;
}
