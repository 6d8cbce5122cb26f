/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The worker dies at every state store, every message boundary and every step of a start, one after the other: for each kind of
 * operation at the first point that it passes, at the second, and so on until the operation comes to its end; and for each step of a
 * start once more, in the worker that mends the first death. guest.h says what is looked at. Needs the back-end that is built with crash
 * points (backend/io/crash-point.h).
 */
#include "operations.h"
#include "stage.h"
#include "testing.h"

#include "io/crash-point.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
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

/* ---- tests ---- */

/* Until all is done that was begun, also behind the last answer; returns how many died. */
static unsigned
settle (struct stage *stage) {
  unsigned deaths;

  guest_drain (stage->guest);
  /* Who answers this has done all that was before it. */
  g_autoptr (JsonNode) status = backend_control_again (stage->backend, "{\"execute\":\"status\"}");
  g_assert_nonnull (status);
  deaths = disarm_points ();
  g_atomic_int_add (&stage->reaper.kills, (gint)deaths);
  if (stage->guest->session == 0)
    guest_begin (stage->guest);
  return deaths;
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
    died = settle (&stage);
    if (n % 16 == 0)
      stage_check (&stage);
  }
  g_test_message ("%d deaths", g_atomic_int_get (&stage.reaper.kills));
  g_assert_cmpint (g_atomic_int_get (&stage.reaper.kills), >, 1);
  stage_end (&stage);
}

/* ---- between a commit and its punches ---- */

/* What the window costs now, in bytes: no audit was asked for, and there are none by the clock. */
static uint64_t
window_cost (struct guest *guest) {
  struct stat st;

  g_assert_cmpint (fstat (guest->fe->window.fd, &st), ==, 0);
  return (uint64_t)st.st_blocks * 512;
}

static void
give_back_some (struct guest *guest) {
  while (!guest_submit_release (guest, 40, 2)) /* it looks at so many random places */
    ;
}

/* Blocks are not granted any more, and still full: what they held is gone when the answer comes, whoever gives it, and nobody gives it
 * twice. Every death at one of the punches of this operation is looked at. */
static void
before_the_punch (gconstpointer data) {
  const struct operation *operation = data;
  static const char *const no_audits[] = { "--audit-interval=0", NULL };
  unsigned n, died = 1, at_a_punch = 0;
  struct stage stage;

  stage_begin (&stage, no_audits);
  stage.guest->max_blocks = 1024;
  stage.guest->host_blocks = UINT64_MAX;
  stage.guest->block_cost = GUEST_BYTES_TOUCHED;
  for (n = 1; died; n++) {
    uint64_t answered;

    g_assert_cmpuint (n, <, POINTS_MAX);
    while (stage.guest->n_granted < 24) {
      guest_submit_grant (stage.guest, 24 - stage.guest->n_granted, DOMYBS_HINT_ANY, 0, 0, 0);
      guest_drain (stage.guest);
    }
    g_assert_cmpuint (window_cost (stage.guest), ==, 24 * GUEST_BYTES_TOUCHED);
    answered = stage.guest->answered;
    arm_points (n, 0);
    operation->run (stage.guest);
    guest_drain (stage.guest);
    died = (unsigned)__atomic_load_n (&crash->crashes, __ATOMIC_SEQ_CST);
    if (died && strcmp ((const char *)crash->last, "punch") == 0) {
      at_a_punch++;
      g_assert_cmpuint (window_cost (stage.guest), ==, stage.guest->n_granted * GUEST_BYTES_TOUCHED);
      g_assert_cmpuint (stage.guest->answered, ==, answered + 1);
      g_assert_cmpuint (stage.guest->fe->queues[DOMYBS_VQ_REQUEST].used[1], ==, stage.guest->fe->queues[DOMYBS_VQ_REQUEST].avail[1]);
      if (stage.guest->session) { /* remembered: the same bytes once more */
        guest_submit_again (stage.guest, 1, false);
        guest_drain (stage.guest);
      }
    }
    died = settle (&stage);
    stage_check (&stage);
  }
  g_test_message ("%d deaths, %u of them before a punch", g_atomic_int_get (&stage.reaper.kills), at_a_punch);
  g_assert_cmpuint (at_a_punch, >, 0);
  stage_end (&stage);
}

static void
say_bye (struct guest *guest) {
  guest_submit_bye (guest);
}

static const struct operation punching[] = {
  { "release", give_back_some },
  { "bye", say_bye },
};

/* Each step of the start after a death in the middle of a transaction, and of one between two. */
static void
every_step_of_a_start (gconstpointer data) {
  const struct operation *grant_and_release = operation_named ("grant-and-release");
  const unsigned first = GPOINTER_TO_UINT (data);
  unsigned m, died = 2;
  struct stage stage;

  open_stage (&stage);
  for (m = 1; died == 2; m++) {
    g_assert_cmpuint (m, <, POINTS_MAX);
    arm_points (first, m);
    grant_and_release->run (stage.guest);
    died = settle (&stage);
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
  for (size_t i = 0; i < n_operations; i++) {
    g_autofree char *name = g_strconcat ("/kill/points/", operations[i].name, NULL);

    g_test_add_data_func (name, &operations[i], every_point);
  }
  for (size_t i = 0; i < G_N_ELEMENTS (punching); i++) {
    g_autofree char *name = g_strconcat ("/kill/points/before-the-punch/", punching[i].name, NULL);

    g_test_add_data_func (name, &punching[i], before_the_punch);
  }
  for (size_t i = 0; i < G_N_ELEMENTS (firsts); i++) {
    g_autofree char *name = g_strdup_printf ("/kill/points/start-after-%u", firsts[i]);

    g_test_add_data_func (name, GUINT_TO_POINTER (firsts[i]), every_step_of_a_start);
  }
  return g_test_run ();
}
