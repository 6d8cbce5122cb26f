/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The worker dies at every state store, every message boundary and every step of a start, one after the other: for each kind of
 * operation at the first point that it passes, at the second, and so on until the operation comes to its end; and for each step of a
 * start once more, in the worker that mends the first death. guest.h says what is looked at. Needs the back-end that is built with crash
 * points (backend/io/crash-point.h).
 */
#include "stage.h"
#include "testing.h"

#include "io/crash-point.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <glib/gstdio.h>

#define POINTS_MAX 2000u /* of one operation: more is an operation without an end */

static volatile struct crash_file *crash;

/* The first worker dies at its n-th point from now; the next one at its m-th, 0: not. */
static void
arm_points (unsigned n, unsigned m) {
  __atomic_store_n (&crash->crashes, 0, __ATOMIC_SEQ_CST);
  __atomic_store_n (&crash->countdown[1], m, __ATOMIC_SEQ_CST);
  __atomic_store_n (&crash->countdown[0], n, __ATOMIC_SEQ_CST);
}

/* How many died since arm_points; from now on nobody does. */
static unsigned
disarm_points (void) {
  __atomic_store_n (&crash->countdown[0], 0, __ATOMIC_SEQ_CST);
  __atomic_store_n (&crash->countdown[1], 0, __ATOMIC_SEQ_CST);
  return (unsigned)__atomic_load_n (&crash->crashes, __ATOMIC_SEQ_CST);
}

/* ---- operations ---- */

static void
grant (struct guest *guest) {
  guest_submit_grant (guest, 1, DOMYBS_HINT_ANY, 0, 0, 0);
}

static void
grant_and_release (struct guest *guest) {
  guest_submit_grant (guest, 3, DOMYBS_HINT_LOCAL, DOMYBS_GRANT_F_ALL, 0, 0);
  guest_submit_release (guest, 3, 2);
  guest_submit_stats (guest, 2);
}

static void
release (struct guest *guest) {
  if (!guest_submit_release (guest, 4, 2))
    guest_submit_grant (guest, 40, DOMYBS_HINT_ANY, 0, 0, 0);
}

static void
repeat (struct guest *guest) {
  guest_submit_again (guest, 1, false);
  if (guest_has_slot (guest))
    guest_submit_again (guest, 2, true);
}

static void
bye (struct guest *guest) {
  guest_submit_bye (guest);
}

static void
hello (struct guest *guest) {
  guest_submit_hello (guest, g_rand_int (guest->random) | 1ull << 40, 64);
}

static void
pause_requests (struct guest *guest) {
  guest_submit_stats (guest, 1);
  guest_pause (guest, DOMYBS_VQ_REQUEST);
}

static void
pause_events (struct guest *guest) {
  guest_pause (guest, DOMYBS_VQ_EVENT);
}

static void
new_call (struct guest *guest) {
  guest_new_call (guest, DOMYBS_VQ_REQUEST);
}

static void
read_config (struct guest *guest) {
  guest_read_config (guest, false);
}

static void
set_target (struct guest *guest) {
  guest_set_target (guest, true, g_rand_int_range (guest->random, 0, 900));
}

static void
reclaim (struct guest *guest) {
  guest_reclaim (guest, 7);
}

static const struct operation {
  const char *name;
  void (*run) (struct guest *guest);
} operations[] = {
  { "grant", grant },
  { "grant-and-release", grant_and_release },
  { "release", release },
  { "repeat", repeat },
  { "bye", bye },
  { "hello", hello },
  { "pause-requests", pause_requests },
  { "pause-events", pause_events },
  { "memory-table", guest_same_table },
  { "new-call", new_call },
  { "read-config", read_config },
  { "set-target", set_target },
  { "reclaim", reclaim },
  { "reset", guest_reset },
  { "reconnect", guest_reconnect },
};

/* ---- tests ---- */

static void
settle (struct stage *stage, unsigned deaths) {
  guest_drain (stage->guest);
  deaths += disarm_points ();
  g_atomic_int_add (&stage->reaper.kills, (gint)deaths);
  if (stage->guest->session == 0)
    guest_begin (stage->guest);
}

static void
open_stage (struct stage *stage) {
  static const char *const none[] = { NULL };

  stage_begin (stage, none);
  stage->guest->max_blocks = 1024;
  stage->guest->host_blocks = UINT64_MAX;
  stage->guest->block_cost = GUEST_BYTES_TOUCHED;
  guest_submit_grant (stage->guest, 200, DOMYBS_HINT_ANY, 0, 0, 0);
  guest_drain (stage->guest);
}

static void
every_point (gconstpointer data) {
  const struct operation *operation = data;
  unsigned n, died = 1;
  struct stage stage;

  open_stage (&stage);
  for (n = 1; died; n++) {
    g_assert_cmpuint (n, <, POINTS_MAX);
    arm_points (n, 0);
    operation->run (stage.guest);
    guest_drain (stage.guest);
    died = (unsigned)__atomic_load_n (&crash->crashes, __ATOMIC_SEQ_CST);
    settle (&stage, 0);
    if (n % 16 == 0)
      stage_check (&stage);
  }
  g_test_message ("%d deaths", g_atomic_int_get (&stage.reaper.kills));
  g_assert_cmpint (g_atomic_int_get (&stage.reaper.kills), >, 1);
  stage_end (&stage);
}

/* Each step of the start after a death in the middle of a transaction, and of one between two. */
static void
every_step_of_a_start (gconstpointer data) {
  const unsigned first = GPOINTER_TO_UINT (data);
  unsigned m, died = 2;
  struct stage stage;

  open_stage (&stage);
  for (m = 1; died == 2; m++) {
    g_assert_cmpuint (m, <, POINTS_MAX);
    arm_points (first, m);
    grant_and_release (stage.guest);
    guest_drain (stage.guest);
    died = (unsigned)__atomic_load_n (&crash->crashes, __ATOMIC_SEQ_CST);
    settle (&stage, 0);
    if (m % 16 == 0)
      stage_check (&stage);
  }
  g_test_message ("%d deaths", g_atomic_int_get (&stage.reaper.kills));
  g_assert_cmpint (g_atomic_int_get (&stage.reaper.kills), >, 20);
  stage_end (&stage);
}

static char *directory, *path;

static void
clean_up (void) {
  g_unlink (path);
  g_rmdir (directory);
}

int
main (int argc, char **argv) {
  static const unsigned firsts[] = { 1, 3, 6, 9, 12 };
  int fd;

  testing_init (&argc, &argv);
  directory = g_dir_make_tmp ("domybs-points-XXXXXX", NULL);
  path = g_build_filename (directory, "crash", NULL);
  atexit (clean_up);
  fd = open (path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0 || ftruncate (fd, sizeof *crash) < 0)
    g_error ("%s: %s", path, g_strerror (errno));
  crash = mmap (NULL, sizeof *crash, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  g_assert_true (crash != MAP_FAILED);
  g_setenv (CRASH_FILE_ENV, path, TRUE);
  for (size_t i = 0; i < G_N_ELEMENTS (operations); i++) {
    g_autofree char *name = g_strconcat ("/kill/points/", operations[i].name, NULL);

    g_test_add_data_func (name, &operations[i], every_point);
  }
  for (size_t i = 0; i < G_N_ELEMENTS (firsts); i++) {
    g_autofree char *name = g_strdup_printf ("/kill/points/start-after-%u", firsts[i]);

    g_test_add_data_func (name, GUINT_TO_POINTER (firsts[i]), every_step_of_a_start);
  }
  return g_test_run ();
}
