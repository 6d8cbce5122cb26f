/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Copies with donors, under an engine whose every read is compared: donors (fake-channel.h) die, hang, lie, lose their memory,
 * want it back and return, one at a time, and no page is lost or wrong; two at once, and just the pages that nobody has any
 * more are errors.
 */
#include "copies-scene.h"

#include <glib/gstdio.h>
#include <string.h>

/* ---- one thing at a time ---- */

static void
test_ssd (void) {
  FarCopiesFigures f;
  Scene scene;

  scene_init (&scene, COPIES_SSD, 3);
  scene_write_all (&scene);
  scene_churn (&scene, 2000, 5);
  read_all (&scene.rig);
  WAIT_UNTIL (scene_is_protected (&scene));
  f = scene_figures (&scene);
  g_assert_cmpuint (f.local_valid, ==, f.places);
  g_assert_cmpuint (scene_used (&scene), ==, f.places);
  for (guint d = 0; d < 3; d++)
    g_assert_cmpuint (fake_used (d), >, 0);
  reopen_engine (&scene.rig); /* another worker finds them all */
  read_all (&scene.rig);
  WAIT_UNTIL (scene_is_protected (&scene));
  g_assert_cmpuint (scene_figures (&scene).places, ==, f.places);
  g_assert_cmpuint (scene_figures (&scene).repaired_bytes, ==, 0);
  scene_clear (&scene);
}

static void
test_mirror (void) {
  FarCopiesFigures f;
  Scene scene;

  scene_init (&scene, COPIES_MIRROR, 4);
  WAIT_UNTIL (scene_donor (&scene, 3).state == COPIES_DONOR_UP && scene_donor (&scene, 0).state == COPIES_DONOR_UP);
  scene_write_all (&scene);
  scene_churn (&scene, 1000, 5);
  WAIT_UNTIL (scene_is_protected (&scene));
  f = scene_figures (&scene);
  g_assert_cmpuint (scene_used (&scene), ==, 2 * f.places);
  read_all (&scene.rig);
  scene_clear (&scene);
}

/* The storage copy is not even read where donors have it, and the other way round: a protection that is one is no protection.
 */
static void
test_storage_only (void) {
  Scene scene;

  scene_init (&scene, COPIES_STORAGE, 2);
  scene_write_all (&scene);
  WAIT_UNTIL (scene_is_protected (&scene));
  g_assert_cmpuint (scene_used (&scene), ==, 0);
  read_all (&scene.rig);
  scene_clear (&scene);
}

static void
test_donor_dies (void) {
  Scene scene;
  guint64 before;

  scene_init (&scene, COPIES_MIRROR, 3);
  WAIT_UNTIL (scene_donor (&scene, 2).state == COPIES_DONOR_UP);
  scene_write_all (&scene);
  WAIT_UNTIL (scene_is_protected (&scene));
  scene_churn (&scene, 300, 3);
  wait_for (&scene.rig, 0);
  WAIT_UNTIL (scene_is_protected (&scene));
  before = scene_donor (&scene, 0).valid;
  fake_set_up (0, FALSE);
  scene_churn (&scene, 500, 0);
  WAIT_UNTIL (scene_donor (&scene, 0).state == COPIES_DONOR_GONE);
  WAIT_UNTIL (scene_is_protected (&scene));
  g_assert_cmpuint (scene_figures (&scene).repaired_bytes, >=, before * FAR_SEGMENT_BYTES / 2);
  scene_churn (&scene, 200, 5);
  wait_for (&scene.rig, 0);
  WAIT_UNTIL (scene_is_protected (&scene));
  fake_set_up (1, FALSE); /* only now the second: nothing is lost */
  read_all (&scene.rig);
  fake_set_up (1, TRUE);
  fake_set_up (0, TRUE); /* what it has is too much now */
  WAIT_UNTIL (scene_is_protected (&scene) && scene_used (&scene) == 2 * scene_figures (&scene).places);
  read_all (&scene.rig);
  g_assert_cmpuint (scene_figures (&scene).lost, ==, 0);
  scene_clear (&scene);
}

static void
test_arena_lost (void) {
  Scene scene;

  scene_init (&scene, COPIES_SSD, 2);
  scene_write_all (&scene);
  WAIT_UNTIL (scene_is_protected (&scene));
  fake_lose_arena (0);
  scene_churn (&scene, 300, 0);
  fake_lose_arena (1);
  read_all (&scene.rig);
  WAIT_UNTIL (scene_is_protected (&scene));
  /* While no worker looks. */
  wait_for (&scene.rig, 0);
  fake_lose_arena (0);
  reopen_engine (&scene.rig);
  read_all (&scene.rig);
  WAIT_UNTIL (scene_is_protected (&scene));
  read_all (&scene.rig);
  g_assert_cmpuint (scene_figures (&scene).lost, ==, 0);
  scene_clear (&scene);
}

static void
expect_failures (Scene *scene, guint *ret_failed, guint *ret_read) {
  *ret_failed = *ret_read = 0;
  for (guint64 page = 0; page < DISK_PAGES; page += 7) {
    Op *op = op_new (&scene->rig, BLK_READ, page, 1);

    op->expect_failure = TRUE; /* op_done compares what was read all the same */
    op_begin (op);
    wait_for (&scene->rig, 0);
    *ret_failed += op->failed;
    *ret_read += !op->failed;
    op_free (op);
  }
}

/* Both of its two at once: an error, and not something else; what one of the others has is read. */
static void
test_last_copy_lost (void) {
  Scene scene;
  guint failed, read;

  scene_init (&scene, COPIES_MIRROR, 4);
  WAIT_UNTIL (scene_donor (&scene, 3).state == COPIES_DONOR_UP && scene_donor (&scene, 0).state == COPIES_DONOR_UP
              && scene_donor (&scene, 1).state == COPIES_DONOR_UP && scene_donor (&scene, 2).state == COPIES_DONOR_UP);
  scene_write_all (&scene);
  WAIT_UNTIL (scene_is_protected (&scene));
  for (guint d = 0; d < 4; d++)
    fake_lose_arena (d);
  WAIT_UNTIL (scene_figures (&scene).lost > 0 && scene_donor (&scene, 3).state == COPIES_DONOR_UP);
  expect_failures (&scene, &failed,
                   &read); /* what is read is in the stage, or was written to storage while a donor was missing */
  g_assert_cmpuint (failed, >, 0);
  scene_write_all (&scene); /* and life goes on */
  read_all (&scene.rig);
  WAIT_UNTIL (scene_is_protected (&scene));
  g_assert_cmpuint (scene_figures (&scene).lost, <=, scene_figures (&scene).places + 20);
  scene_clear (&scene);
}

/* Unreachable is not lost: reads wait. */
static void
test_waits (void) {
  Scene scene;
  gint64 end;

  scene_init (&scene, COPIES_MIRROR, 2);
  WAIT_UNTIL (scene_donor (&scene, 1).state == COPIES_DONOR_UP && scene_donor (&scene, 0).state == COPIES_DONOR_UP);
  scene_write_all (&scene);
  WAIT_UNTIL (scene_is_protected (&scene));
  WAIT_UNTIL (rig_figures (&scene.rig).store.slots_writing == 0);
  fake_set_up (0, FALSE);
  fake_set_up (1, FALSE);
  scene_churn (&scene, 12, 0);
  WAIT_UNTIL (scene_figures (&scene).waiting > 0);
  WAIT_UNTIL (scene_donor (&scene, 0).state == COPIES_DONOR_GONE && scene_donor (&scene, 1).state == COPIES_DONOR_GONE);
  end = g_get_monotonic_time () + 500000;
  while (g_get_monotonic_time () < end)
    g_main_context_iteration (NULL, TRUE);
  g_assert_cmpuint (scene_figures (&scene).waiting, >, 0);
  g_assert_cmpuint (scene_figures (&scene).endangered, >, 0);
  fake_set_up (1, TRUE);
  wait_for (&scene.rig, 0);
  g_assert_cmpuint (scene_figures (&scene).waiting, ==, 0);
  fake_set_up (0, TRUE);
  read_all (&scene.rig);
  WAIT_UNTIL (scene_is_protected (&scene));
  scene_clear (&scene);
}

/* A donor that hangs holds up no read for long, though it was the one to be asked. */
static void
test_hung (void) {
  Scene scene;

  scene_init (&scene, COPIES_SSD, 2);
  WAIT_UNTIL (scene_donor (&scene, 0).state == COPIES_DONOR_UP && scene_donor (&scene, 1).state == COPIES_DONOR_UP);
  scene_write_all (&scene);
  WAIT_UNTIL (scene_is_protected (&scene));
  scene_churn (&scene, 500, 0);
  fake_set_hung (0, TRUE);
  fake_set_hung (1, TRUE);
  read_all (&scene.rig);
  /* Where storage has become the faster one, nobody asks them: far-copies-care sees to it that they are the ones to be asked. */
  scene_churn (&scene, 300, 10); /* writes do without them, after a while */
  wait_for (&scene.rig, 0);
  WAIT_UNTIL (scene_donor (&scene, 0).state != COPIES_DONOR_UP || scene_donor (&scene, 1).state != COPIES_DONOR_UP);
  fake_set_hung (0, FALSE);
  fake_set_hung (1, FALSE);
  read_all (&scene.rig);
  WAIT_UNTIL (scene_is_protected (&scene));
  scene_clear (&scene);
}

static void
test_slow (void) {
  Scene scene;

  scene_init (&scene, COPIES_SSD, 1);
  WAIT_UNTIL (scene_donor (&scene, 0).state == COPIES_DONOR_UP);
  scene_write_all (&scene);
  WAIT_UNTIL (scene_is_protected (&scene));
  fake_set_slow (0, 300);
  scene_churn (&scene, 3000, 1);
  wait_for (&scene.rig, 0);
  fake_set_slow (0, 0);
  WAIT_UNTIL (scene_is_protected (&scene));
  read_all (&scene.rig);
  scene_clear (&scene);
}

/* A donor that gives back something else: never believed, and no error while there is another copy. */
static void
test_corrupt (void) {
  Scene scene;
  guint64 before;

  scene_init (&scene, COPIES_SSD, 2);
  WAIT_UNTIL (scene_donor (&scene, 0).state == COPIES_DONOR_UP && scene_donor (&scene, 1).state == COPIES_DONOR_UP);
  scene_write_all (&scene);
  WAIT_UNTIL (scene_is_protected (&scene));
  fake_set_corrupt (0, 1000);
  fake_set_corrupt (1, 500);
  scene_churn (&scene, 3000, 4);
  read_all (&scene.rig);
  wait_for (&scene.rig, 0);
  before = scene_donor (&scene, 0).damaged + scene_donor (&scene, 1).damaged;
  g_assert_cmpuint (before, >, 0);
  g_assert_cmpuint (rig_figures (&scene.rig).damaged, ==, 0);
  fake_set_corrupt (0, 0);
  fake_set_corrupt (1, 0);
  WAIT_UNTIL (scene_is_protected (&scene));
  read_all (&scene.rig);
  scene_clear (&scene);
}

/* All is given back that is asked for; it is still protected as far as it can be. */
static void
test_revoke (void) {
  Scene scene;
  guint64 before;

  scene_init (&scene, COPIES_SSD, 2);
  scene_write_all (&scene);
  WAIT_UNTIL (scene_is_protected (&scene));
  before = fake_used (0);
  g_assert_cmpuint (before, >, 2);
  fake_revoke (0, TRUE, before / 2);
  scene_churn (&scene, 500, 3);
  WAIT_UNTIL (fake_used (0) <= before / 2);
  WAIT_UNTIL (scene_is_protected (&scene)); /* the other one has taken them */
  fake_revoke (0, TRUE, 0);
  scene_churn (&scene, 500, 3);
  WAIT_UNTIL (fake_used (0) == 0);
  fake_revoke (1, TRUE, 0);
  WAIT_UNTIL (scene_used (&scene) == 0); /* to storage */
  read_all (&scene.rig);
  g_assert_cmpuint (scene_figures (&scene).degraded, ==, scene_figures (&scene).places);
  fake_revoke (0, FALSE, 0);
  WAIT_UNTIL (scene_is_protected (&scene));
  scene_clear (&scene);
}

/* Everybody wants everything back from a mirror without a storage copy. */
static void
test_revoke_mirror (void) {
  Scene scene;

  scene_init (&scene, COPIES_MIRROR, 2);
  WAIT_UNTIL (scene_donor (&scene, 0).state == COPIES_DONOR_UP && scene_donor (&scene, 1).state == COPIES_DONOR_UP);
  scene_write_all (&scene);
  WAIT_UNTIL (scene_is_protected (&scene));
  fake_revoke (0, TRUE, 0);
  fake_revoke (1, TRUE, 0);
  scene_churn (&scene, 300, 3);
  WAIT_UNTIL (scene_used (&scene) == 0);
  read_all (&scene.rig);
  g_assert_cmpuint (scene_figures (&scene).local_valid, ==, scene_figures (&scene).places);
  scene_clear (&scene);
}

/* Donors of one domain are as one. */
static void
test_domains (void) {
  static const char *const domains[] = { "rack1", "rack1", "rack1", "rack2" };
  Scene scene;

  scene_init (&scene, COPIES_MIRROR, 0);
  scene.domains = domains;
  scene.n_donors = 4;
  reopen_engine (&scene.rig);
  WAIT_UNTIL (scene_donor (&scene, 3).state == COPIES_DONOR_UP && scene_donor (&scene, 0).state == COPIES_DONOR_UP);
  scene_write_all (&scene);
  scene_churn (&scene, 500, 5);
  WAIT_UNTIL (scene_is_protected (&scene));
  g_assert_cmpuint (fake_used (3), ==, scene_figures (&scene).places);
  g_assert_cmpuint (fake_used (0) + fake_used (1) + fake_used (2), ==, scene_figures (&scene).places);
  scene_clear (&scene);
}

/* What the guest frees comes back to donors, too. */
static void
test_give_back (void) {
  Scene scene;
  guint64 before;
  Op *op;

  scene_init_pages (&scene, COPIES_SSD, 2, 8 * DISK_PAGES);
  scene.rig.give_back_us = 300000;
  reopen_engine (&scene.rig);
  scene_write_all (&scene);
  WAIT_UNTIL (scene_is_protected (&scene));
  before = scene_used (&scene);
  op = op_new (&scene.rig, BLK_DISCARD, FAR_BLOCK_PAGES, scene.rig.n_pages - FAR_BLOCK_PAGES);
  op_begin (op);
  wait_for (&scene.rig, 0);
  WAIT_UNTIL (scene_used (&scene) <= before / 2);
  read_all (&scene.rig);
  scene_write_all (&scene); /* and it is taken again */
  WAIT_UNTIL (scene_is_protected (&scene));
  read_all (&scene.rig);
  scene_clear (&scene);
}

static void
set_true (gpointer data) {
  *(gboolean *)data = TRUE;
}

static void
test_end (void) {
  gboolean ended = FALSE;
  Scene scene;

  scene_init (&scene, COPIES_SSD, 3);
  scene_write_all (&scene);
  WAIT_UNTIL (scene_is_protected (&scene));
  fake_set_up (2, FALSE);
  WAIT_UNTIL (scene_donor (&scene, 2).state != COPIES_DONOR_UP);
  far_copies_end (scene.copies, 1000, set_true, &ended);
  WAIT_UNTIL (ended);
  g_assert_cmpuint (fake_ended_leases (), ==, 2);
  g_assert_cmpuint (fake_used (0) + fake_used (1), ==, 0);
  scene_clear (&scene);
}

/* ---- all of it, at random ---- */

/* Whatever happens to one donor; it is over when everything is protected again. */
static void
one_failure (Scene *scene, guint d) {
  switch (random_below (&scene->rig, 7)) {
  case 0:
    fake_set_up (d, FALSE);
    break;
  case 1:
    fake_lose_arena (d);
    break;
  case 2:
    fake_set_corrupt (d, 1 + (guint)random_below (&scene->rig, 1000));
    break;
  case 3:
    fake_set_slow (d, (guint)random_below (&scene->rig, 50));
    break;
  case 4:
    fake_revoke (d, TRUE, random_below (&scene->rig, 8));
    break;
  case 5:
    fake_set_up (d, FALSE);
    scene_churn (scene, 100, 5);
    fake_lose_arena (d);
    break;
  default:
    reopen_engine (&scene->rig);
  }
  scene_churn (scene, (guint)random_below (&scene->rig, 600), (guint)random_below (&scene->rig, 10));
  if (testing_once_in (scene->rig.rand, 3))
    reopen_engine (&scene->rig);
  fake_set_up (d, TRUE);
  fake_set_corrupt (d, 0);
  fake_set_slow (d, 0);
  fake_revoke (d, FALSE, 0);
}

static void
test_random (void) {
  const guint rounds = testing_steps (60);
  Scene scene;

  for (enum copies_mode mode = COPIES_SSD; mode <= COPIES_MIRROR; mode++) {
    scene_init (&scene, mode, mode == COPIES_SSD ? 2 : 4);
    WAIT_UNTIL (scene_donor (&scene, 0).state == COPIES_DONOR_UP
                && scene_donor (&scene, scene.n_donors - 1).state == COPIES_DONOR_UP);
    scene_write_all (&scene);
    for (guint round = 0; round < rounds / 2; round++) {
      WAIT_UNTIL (fake_is_quiet (scene.n_donors) && scene_is_protected (&scene)); /* it was noticed, and is over */
      g_assert_cmpuint (scene_figures (&scene).lost, ==, 0);
      one_failure (&scene, (guint)random_below (&scene.rig, scene.n_donors));
    }
    WAIT_UNTIL (fake_is_quiet (scene.n_donors) && scene_is_protected (&scene));
    read_all (&scene.rig);
    g_assert_cmpuint (rig_figures (&scene.rig).damaged, ==, 0);
    scene_clear (&scene);
  }
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_log_set_always_fatal (G_LOG_FATAL_MASK); /* warnings are what is expected here */
  g_test_add_func ("/copies/ssd", test_ssd);
  g_test_add_func ("/copies/mirror", test_mirror);
  g_test_add_func ("/copies/storage", test_storage_only);
  g_test_add_func ("/copies/donor-dies", test_donor_dies);
  g_test_add_func ("/copies/arena-lost", test_arena_lost);
  g_test_add_func ("/copies/last-copy-lost", test_last_copy_lost);
  g_test_add_func ("/copies/waits", test_waits);
  g_test_add_func ("/copies/hung", test_hung);
  g_test_add_func ("/copies/slow", test_slow);
  g_test_add_func ("/copies/corrupt", test_corrupt);
  g_test_add_func ("/copies/revoke", test_revoke);
  g_test_add_func ("/copies/revoke-mirror", test_revoke_mirror);
  g_test_add_func ("/copies/domains", test_domains);
  g_test_add_func ("/copies/give-back", test_give_back);
  g_test_add_func ("/copies/end", test_end);
  g_test_add_func ("/copies/random", test_random);
  return g_test_run ();
}
