/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What copies take care of: damage of one copy does not spread to others, who hangs is not asked again and again, no more is
 * asked of donors than is of use, and storage is not worn out by what is in no danger. test-copies has the rest.
 */
#include "copies-scene.h"

#include <unistd.h>

#define AT_ONCE 60u

static gboolean
are_up (Scene *scene) {
  for (guint d = 0; d < scene->n_donors; d++)
    if (scene_donor (scene, d).state != COPIES_DONOR_UP)
      return FALSE;
  return TRUE;
}

static void
begin (Scene *scene, enum copies_mode mode, guint n_donors) {
  scene_init (scene, mode, n_donors);
  WAIT_UNTIL (are_up (scene));
  scene_write_all (scene);
  WAIT_UNTIL (scene_is_protected (scene));
}

/* The copies of the donor that is asked first have rotted, and are to be moved elsewhere. */
static void
test_donor_damaged (void) {
  Scene scene;

  begin (&scene, COPIES_MIRROR, 3);
  fake_set_slow (1, 4);
  fake_set_slow (2, 4);
  scene_churn (&scene, 1500, 0);
  wait_for (&scene.rig, 0);
  fake_damage (0);
  fake_revoke (0, TRUE, 0);
  WAIT_UNTIL (fake_used (0) == 0);
  WAIT_UNTIL (scene_is_protected (&scene) && scene_used (&scene) == 2 * scene_figures (&scene).places);
  g_assert_cmpuint (scene_donor (&scene, 0).damaged, >, 0);
  g_assert_cmpuint (fake_differences (1, 2), ==, 0);
  g_assert_cmpuint (scene_donor (&scene, 1).suspect + scene_donor (&scene, 2).suspect, ==, 0);
  read_all (&scene.rig);
  g_assert_cmpuint (rig_figures (&scene.rig).damaged, ==, 0);
  scene_clear (&scene);
}

static void
damage_storage (Scene *scene) {
  for (gsize at = 0; at < scene->rig.storage_bytes; at += FAR_PAGE_BYTES) {
    g_autofree guint8 *page = g_aligned_alloc (1, FAR_PAGE_BYTES, FAR_PAGE_BYTES);

    if (pread (scene->rig.fd, page, FAR_PAGE_BYTES, (off_t)at) != FAR_PAGE_BYTES)
      continue;
    page[random_below (&scene->rig, FAR_PAGE_BYTES)] ^= 1;
    g_assert_cmpint (pwrite (scene->rig.fd, page, FAR_PAGE_BYTES, (off_t)at), ==, FAR_PAGE_BYTES);
  }
}

/* The storage copy has rotted, and is what is read when a donor's blocks are to move. */
static void
test_storage_damaged (void) {
  Scene scene;

  begin (&scene, COPIES_SSD, 2);
  wait_for (&scene.rig, 0);
  damage_storage (&scene);
  fake_revoke (1, TRUE, 0);
  WAIT_UNTIL (fake_used (1) == 0);
  WAIT_UNTIL (scene_is_protected (&scene));
  read_all (&scene.rig);
  g_assert_cmpuint (rig_figures (&scene.rig).damaged, ==, 0);
  scene_clear (&scene);
}

/* No good copy is left: pages are damaged when they are read, just those that are, and nothing goes round for ever. */
static void
test_all_damaged (void) {
  guint failed = 0;
  Scene scene;

  begin (&scene, COPIES_MIRROR, 4);
  fake_damage (0);
  fake_damage (1);
  fake_damage (2);
  fake_damage (3);
  fake_set_up (0, FALSE);
  WAIT_UNTIL (scene_donor (&scene, 0).state == COPIES_DONOR_GONE);
  g_assert_cmpuint (scene_donor (&scene, 0).valid, >, 0);
  WAIT_UNTIL (!scene_figures (&scene).repairing
              && scene_figures (&scene).endangered == scene_donor (&scene, 0).valid); /* copies of damage are no copies */
  fake_set_up (0, TRUE);
  WAIT_UNTIL (scene_donor (&scene, 0).state == COPIES_DONOR_UP);
  for (guint64 page = 0; page < DISK_PAGES; page += 37) {
    Op *op = op_new (&scene.rig, BLK_READ, page, 1);

    op->expect_failure = TRUE;
    op_begin (op);
    wait_for (&scene.rig, 0);
    failed += op->failed;
    op_free (op);
  }
  g_assert_cmpuint (failed, >, 0);
  scene_write_all (&scene);
  read_all (&scene.rig);
  WAIT_UNTIL (!scene_figures (&scene).repairing);
  g_assert_cmpuint (scene_figures (&scene).lost, ==, 0);
  fake_revoke (3, TRUE, 1000); /* so that the map is looked at */
  WAIT_UNTIL (scene_is_protected (&scene));
  scene_clear (&scene);
}

/* One at a time. */
static void
read_some (Scene *scene, guint n) {
  for (guint i = 0; i < n; i++) {
    op_begin (op_new (&scene->rig, BLK_READ, random_below (&scene->rig, DISK_PAGES), 1));
    wait_for (&scene->rig, 0);
  }
}

/* Some late answers, and the others do without it; when it answers again, it is asked again: also when its connection was given
 * up meanwhile. */
static void
hang (gconstpointer data) {
  const gboolean until_down = GPOINTER_TO_INT (data);
  guint64 before;
  Scene scene;

  begin (&scene, COPIES_MIRROR, 2);
  wait_for (&scene.rig, 0);
  fake_set_slow (1, 2);
  read_some (&scene, 200);
  before = fake_asked (0);
  read_some (&scene, 100);
  g_assert_cmpuint (fake_asked (0) - before, >, 20); /* it is the one that is asked */
  fake_set_hung (0, TRUE);
  before = fake_asked (0);
  read_some (&scene, 100);
  g_assert_cmpuint (fake_asked (0) - before, <=, 8); /* three, and one for each connection that was given up */
  if (until_down)
    WAIT_UNTIL (scene_donor (&scene, 0).state != COPIES_DONOR_UP);
  fake_set_hung (0, FALSE);
  WAIT_UNTIL (are_up (&scene));
  before = fake_asked (0);
  for (guint round = 0; fake_asked (0) - before < 100; round++) {
    g_assert_cmpuint (round, <, 100);
    read_some (&scene, 50);
    WAIT_UNTIL (are_up (&scene));
  }
  WAIT_UNTIL (scene_is_protected (&scene));
  scene_clear (&scene);
}

/* Many at once while one hangs, for longer than anybody would wait: a second copy is asked for each, not only for the first
 * ones. */
static void
test_all_hedged (void) {
  guint64 asked;
  Scene scene;

  begin (&scene, COPIES_MIRROR, 2);
  scene.deadline_ms = 20000;
  reopen_engine (&scene.rig);
  WAIT_UNTIL (are_up (&scene));
  wait_for (&scene.rig, 0);
  fake_set_slow (1, 2);
  read_some (&scene, 200);
  fake_set_hung (0, TRUE);
  asked = fake_asked (1);
  for (guint round = 0; round < 4; round++) {
    for (guint i = 0; i < AT_ONCE; i++)
      far_engine_start (scene.rig.engine, &op_new (&scene.rig, BLK_READ, random_below (&scene.rig, DISK_PAGES), 1)->io);
    far_engine_kick (scene.rig.engine);
    wait_for (&scene.rig, 0);
  }
  g_assert_cmpuint (fake_asked (1) - asked, >=, 3 * AT_ONCE); /* some pages are in the stage */
  g_assert_true (are_up (&scene));                            /* nobody has waited for the deadline */
  fake_set_hung (0, FALSE);
  WAIT_UNTIL (are_up (&scene) && scene_is_protected (&scene));
  scene_clear (&scene);
}

/* The third one has room for a few only, and several are on their way there at once: none is sent in vain. */
static void
test_little_room (void) {
  Scene scene;

  begin (&scene, COPIES_MIRROR, 2);
  scene.n_donors = 3;
  fake_set_capacity (2, 3);
  reopen_engine (&scene.rig);
  WAIT_UNTIL (are_up (&scene));
  fake_set_up (1, FALSE);
  WAIT_UNTIL (scene_donor (&scene, 1).state == COPIES_DONOR_GONE);
  WAIT_UNTIL (scene_donor (&scene, 2).valid == 3 && !scene_figures (&scene).repairing);
  g_assert_cmpuint (scene_figures (&scene).repairs_failed, ==, 0);
  g_assert_cmpuint (scene_figures (&scene).local_valid + 3, >=, scene_figures (&scene).places);
  fake_set_up (1, TRUE);
  fake_set_capacity (2, 100);
  WAIT_UNTIL (scene_is_protected (&scene));

  /* It takes less than it has said: what it has refused is not there, and is not taken for something to be given back. */
  fake_shrink (2, fake_used (2));
  fake_set_up (1, FALSE);
  WAIT_UNTIL (scene_figures (&scene).repairs_failed > 0);
  WAIT_UNTIL (scene_figures (&scene).repairs_under_way == 0 && scene_donor (&scene, 2).old == 0);
  fake_shrink (2, G_MAXUINT64);
  fake_set_up (1, TRUE);
  WAIT_UNTIL (are_up (&scene) && scene_is_protected (&scene));
  read_all (&scene.rig);
  scene_clear (&scene);
}

/* A reserve ahead, and not the whole donor. */
static void
test_want (void) {
  Scene scene;

  scene_init (&scene, COPIES_SSD, 2);
  WAIT_UNTIL (are_up (&scene));
  for (guint d = 0; d < 2; d++)
    g_assert_cmpuint (scene_donor (&scene, d).wanted_blocks, <=, 8);
  scene_write_all (&scene);
  WAIT_UNTIL (scene_is_protected (&scene));
  for (guint d = 0; d < 2; d++) {
    g_assert_cmpuint (scene_donor (&scene, d).wanted_blocks, >, fake_used (d));
    g_assert_cmpuint (scene_donor (&scene, d).wanted_blocks, <=, fake_used (d) + 12);
  }
  scene_clear (&scene);
}

static void
reopen_as (Scene *scene, enum copies_mode mode, guint64 wear_day_bytes) {
  scene->mode = mode;
  scene->rig.wear_day_bytes = wear_day_bytes;
  reopen_engine (&scene->rig);
  WAIT_UNTIL (are_up (scene));
}

#define DAY_BYTES (64ull << 20) /* and a burst of 8 MiB: 4 places */

/* Mirrors don't wear storage, and cost nothing of its budget; what one does write there counts. */
static void
test_wear (void) {
  const gint64 second = G_USEC_PER_SEC;
  FarEngineFigures f;
  gint64 end;
  Scene scene;

  scene_init_pages (&scene, COPIES_MIRROR, 3, 2 * DISK_PAGES);
  WAIT_UNTIL (are_up (&scene));
  reopen_as (&scene, COPIES_MIRROR, DAY_BYTES);
  scene_write_all (&scene);
  scene_churn (&scene, 300, 10);
  wait_for (&scene.rig, 0);
  f = rig_figures (&scene.rig);
  g_assert_cmpuint (f.wear_left_bytes + FAR_PAGE_BYTES, >, f.wear_burst_bytes);
  g_assert_cmpuint (f.held_us, ==, 0);
  reopen_as (&scene, COPIES_MIRROR, 0); /* what waits in the stage goes out */
  scene_churn (&scene, 10, 10);
  WAIT_UNTIL (scene_is_protected (&scene));
  g_assert_cmpuint (scene_figures (&scene).places, >, 12);

  /* Two good copies each, and storage is wanted as well: that waits. */
  reopen_as (&scene, COPIES_SSD, DAY_BYTES);
  WAIT_UNTIL (rig_figures (&scene.rig).wear_left_bytes < FAR_SEGMENT_BYTES);
  for (end = g_get_monotonic_time () + second / 2; g_get_monotonic_time () < end;)
    g_main_context_iteration (NULL, FALSE);
  g_assert_cmpuint (scene_figures (&scene).local_valid, <=, 8); /* those that had begun, too */
  g_assert_cmpuint (scene_figures (&scene).degraded, >, 0);

  /* One is gone, and storage is the only way to have a second one now: that does not. */
  fake_revoke (0, TRUE, 0);
  fake_revoke (1, TRUE, 0);
  WAIT_UNTIL (fake_used (0) + fake_used (1) == 0);
  WAIT_UNTIL (scene_figures (&scene).local_valid == scene_figures (&scene).places);
  g_assert_cmpuint (rig_figures (&scene.rig).wear_left_bytes, <, FAR_PAGE_BYTES * 16); /* no debt: it fills again at once */
  read_all (&scene.rig);

  /* Nothing is left, and a mirror does not care. */
  fake_revoke (0, FALSE, 0);
  fake_revoke (1, FALSE, 0);
  reopen_as (&scene, COPIES_MIRROR, DAY_BYTES);
  scene_write_all (&scene);
  read_all (&scene.rig);
  scene_clear (&scene);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_log_set_always_fatal (G_LOG_FATAL_MASK); /* warnings are what is expected here */
  g_test_add_func ("/copies-care/donor-damaged", test_donor_damaged);
  g_test_add_func ("/copies-care/storage-damaged", test_storage_damaged);
  g_test_add_func ("/copies-care/all-damaged", test_all_damaged);
  g_test_add_data_func ("/copies-care/hung", GINT_TO_POINTER (FALSE), hang);
  g_test_add_data_func ("/copies-care/hung-long", GINT_TO_POINTER (TRUE), hang);
  g_test_add_func ("/copies-care/all-hedged", test_all_hedged);
  g_test_add_func ("/copies-care/little-room", test_little_room);
  g_test_add_func ("/copies-care/want", test_want);
  g_test_add_func ("/copies-care/wear", test_wear);
  return g_test_run ();
}
