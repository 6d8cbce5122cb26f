/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fault-rig.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <glib/gstdio.h>

#include "testing.h"

static volatile struct fault_file *file;
static char *directory, *file_path, *shim_path;
static uint64_t failed_before[FAULT_PROCESSES][FAULT_KINDS];

/* ---- set-up ---- */

static void
clean_up (void) {
  g_unlink (file_path);
  g_unlink (shim_path);
  g_rmdir (directory);
}

/* The shim lies where a worker, who may be another user, can read it. */
static void
copy_shim (void) {
  const char *program = g_getenv ("DOMYBS_FAULT_SHIM");
  g_autofree char *bytes = NULL;
  g_autoptr (GError) error = NULL;
  gsize n;

  g_assert_nonnull (program);
  g_file_get_contents (program, &bytes, &n, &error);
  g_assert_no_error (error);
  g_file_set_contents_full (shim_path, bytes, (gssize)n, G_FILE_SET_CONTENTS_NONE, 0755, &error);
  g_assert_no_error (error);
}

void
fault_init (int *argc, char ***argv) {
  int fd;

  testing_init (argc, argv);
  directory = g_dir_make_tmp ("domybs-fault-XXXXXX", NULL);
  file_path = g_build_filename (directory, "faults", NULL);
  shim_path = g_build_filename (directory, "shim.so", NULL);
  atexit (clean_up);
  g_assert_cmpint (g_chmod (directory, 0755), ==, 0);
  copy_shim ();
  fd = open (file_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0 || ftruncate (fd, sizeof *file) < 0)
    g_error ("%s: %s", file_path, g_strerror (errno));
  file = mmap (NULL, sizeof *file, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  g_assert_true (file != MAP_FAILED);
  close (fd);
  g_setenv (FAULT_FILE_ENV, file_path, TRUE);
}

void
fault_begin (struct stage *stage, const char *const *arguments, uint64_t max_blocks, uint64_t block_cost) {
  const uint64_t keepers = file->loaded[FAULT_KEEPER], workers = file->loaded[FAULT_WORKER];

  g_setenv ("LD_PRELOAD", shim_path, TRUE);
  g_setenv ("G_SLICE", "always-malloc", TRUE); /* an allocation is an allocation */
  stage_begin (stage, arguments);
  unsetenv ("LD_PRELOAD");
  unsetenv ("G_SLICE");
  g_assert_cmpuint (file->loaded[FAULT_KEEPER], ==, keepers + 1);
  g_assert_cmpuint (file->loaded[FAULT_WORKER], ==, workers + 1);
  stage->guest->max_blocks = max_blocks;
  stage->guest->host_blocks = UINT64_MAX;
  stage->guest->block_cost = block_cost;
}

void
fault_end (struct stage *stage) {
  for (int process = 0; process < FAULT_PROCESSES; process++) {
    for (int kind = 0; kind < FAULT_KINDS; kind++)
      fault_disarm (process, kind);
    fault_interrupt (process, 0);
  }
  fault_check (stage);
  stage_end (stage);
}

/* ---- faults ---- */

void
fault_arm (enum fault_process process, enum fault_kind kind, uint64_t n, uint64_t times, int error, uint32_t percent) {
  volatile struct fault_rule *rule = &file->rules[process][kind];

  __atomic_store_n (&rule->times, 0, __ATOMIC_SEQ_CST);
  failed_before[process][kind] = __atomic_load_n (&file->failed[process][kind], __ATOMIC_SEQ_CST);
  rule->first = __atomic_load_n (&file->calls[process][kind], __ATOMIC_SEQ_CST) + n - 1;
  rule->error = error;
  rule->percent = percent;
  __atomic_store_n (&rule->times, times, __ATOMIC_SEQ_CST);
}

uint64_t
fault_failed (enum fault_process process, enum fault_kind kind) {
  return __atomic_load_n (&file->failed[process][kind], __ATOMIC_SEQ_CST) - failed_before[process][kind];
}

uint64_t
fault_disarm (enum fault_process process, enum fault_kind kind) {
  __atomic_store_n (&file->rules[process][kind].times, 0, __ATOMIC_SEQ_CST);
  return fault_failed (process, kind);
}

uint64_t
fault_calls (enum fault_process process, enum fault_kind kind) {
  return __atomic_load_n (&file->calls[process][kind], __ATOMIC_SEQ_CST);
}

void
fault_interrupt (enum fault_process process, uint32_t of_1024) {
  __atomic_store_n (&file->interrupts[process], of_1024, __ATOMIC_SEQ_CST);
}

uint64_t
fault_interrupted (enum fault_process process) {
  return __atomic_load_n (&file->interrupted[process], __ATOMIC_SEQ_CST);
}

void
fault_wait_failed (struct stage *stage, enum fault_process process, enum fault_kind kind, uint64_t n) {
  const int64_t deadline = fe_now_ms () + 2 * fe_patience_ms ();

  while (fault_failed (process, kind) < n) {
    if (fe_now_ms () > deadline)
      guest_fail (stage->guest, "%" G_GUINT64_FORMAT " calls failed, expected %" G_GUINT64_FORMAT, fault_failed (process, kind), n);
    g_usleep (500);
  }
}

/* ---- what follows ---- */

void
fault_settle (struct stage *stage) {
  guest_drain (stage->guest);
  g_autoptr (JsonNode) status = backend_control_again (stage->backend, "{\"execute\":\"status\"}");
  g_assert_nonnull (status);
}

unsigned
fault_check (struct stage *stage) {
  int64_t deaths;
  unsigned more;

  fault_settle (stage);
  if (stage->guest->session == 0)
    guest_begin (stage->guest);
  deaths = guest_check (stage->guest);
  more = (unsigned)(deaths - g_atomic_int_get (&stage->reaper.kills));
  g_atomic_int_set (&stage->reaper.kills, (gint)deaths);
  return more;
}

void
fault_restart (struct stage *stage, enum fault_kind kind, uint64_t n, uint64_t times, int error) {
  const pid_t worker = backend_wait_worker (stage->backend, 0, fe_patience_ms ());

  /* Stopped, so that none of the calls is its own. */
  g_assert_true (testing_stop (worker));
  fault_arm (FAULT_WORKER, kind, n, times, error, 0);
  g_assert_true (backend_kill_worker (worker));
}
