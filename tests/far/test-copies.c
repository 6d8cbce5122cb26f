/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Copies with donors, under an engine whose every read is compared: donors (fake-channel.h) die, hang, lie, lose their memory,
 * want it back and return, one at a time, and no page is lost or wrong; two at once, and just the pages that nobody has any
 * more are errors.
 */
#include "engine-rig.h"
#include "far/copies.h"
#include "fake-channel.h"

#include <glib/gstdio.h>
#include <string.h>

#define PATIENCE_US (20 * G_USEC_PER_SEC)
#define AWAY_MS 150u

typedef struct {
  Rig rig;
  enum copies_mode mode;
  guint n_donors;
  const char *const *domains;
  void *map;
  gsize map_bytes;
  FarCopies *copies;
  guint32 worker;
} Scene;

static Storage *
wrap (gpointer data, Storage *local) {
  static const char *const apart[] = { "a", "b", "c", "d", "e", "f" };
  Scene *scene = data;
  FarDonorOptions donors[FAKE_DONORS];
  FarCopiesOptions options = { .name = "test/shared",
                               .mode = scene->mode,
                               .n_places = scene->rig.geometry.n_places,
                               .n_donors = scene->n_donors,
                               .donors = donors,
                               .vm = { 1 },
                               .worker = ++scene->worker,
                               .away_ms = AWAY_MS,
                               .deadline_ms = 500 };
  g_autoptr (GError) error = NULL;
  Storage *storage;

  for (guint d = 0; d < scene->n_donors; d++)
    donors[d] = (FarDonorOptions){
      .name = fake_name (d), .address = "fake", .blocks_max = 1000, .domain = scene->domains ? scene->domains[d] : apart[d]
    };
  storage = far_copies_new (&options, local, scene->map, scene->map_bytes, &error);
  g_assert_no_error (error);
  scene->copies = far_copies_of (storage);
  return storage;
}

static void
scene_init_pages (Scene *scene, enum copies_mode mode, guint n_donors, guint64 n_pages) {
  memset (scene, 0, sizeof *scene);
  rig_init_pages (&scene->rig, n_pages, TRUE, FALSE);
  fake_init (1000, scene->rig.rand);
  scene->mode = mode;
  scene->n_donors = n_donors;
  scene->map_bytes = copies_state_bytes (scene->rig.geometry.n_places);
  scene->map = g_malloc0 (scene->map_bytes);
  copies_format (scene->map, scene->rig.geometry.n_places);
  scene->rig.wrap = wrap;
  scene->rig.wrap_data = scene;
  reopen_engine (&scene->rig);
}

static void
scene_init (Scene *scene, enum copies_mode mode, guint n_donors) {
  scene_init_pages (scene, mode, n_donors, DISK_PAGES);
}

static void
scene_clear (Scene *scene) {
  rig_clear (&scene->rig);
  fake_clear ();
  g_free (scene->map);
}

static FarCopiesFigures
figures (Scene *scene) {
  FarCopiesFigures f;

  far_copies_figures (scene->copies, &f);
  return f;
}

static FarDonorFigures
donor_figures (Scene *scene, guint donor) {
  FarDonorFigures f;

  far_copies_donor_figures (scene->copies, donor, &f);
  return f;
}

#define WAIT_UNTIL(condition)                                                                                                  \
  do {                                                                                                                         \
    const gint64 end_of_patience = g_get_monotonic_time () + PATIENCE_US;                                                      \
    while (!(condition)) {                                                                                                     \
      g_assert_cmpint (g_get_monotonic_time (), <, end_of_patience);                                                           \
      if (!g_main_context_iteration (NULL, FALSE))                                                                             \
        g_usleep (500);                                                                                                        \
    }                                                                                                                          \
  } while (0)

static guint64
all_used (const Scene *scene) {
  guint64 used = 0;

  for (guint d = 0; d < scene->n_donors; d++)
    used += fake_used (d);
  return used;
}

static gboolean
is_protected (Scene *scene) {
  const FarCopiesFigures f = figures (scene);

  testing_trace ("places %u protected %u degraded %u endangered %u lost %u repairs %u failed %u used %u", (guint)f.places,
                 (guint)f.protected, (guint)f.degraded, (guint)f.endangered, (guint)f.lost, (guint)f.repairs_under_way,
                 (guint)f.repairs_failed, (guint)all_used (scene));

  return f.places > 0 && f.protected == f.places && f.repairs_under_way == 0
         && rig_figures (&scene->rig).store.slots_writing == 0;
}

static void
write_all (Scene *scene) {
  for (guint64 page = 0; page < scene->rig.n_pages; page += REQUEST_PAGES_MAX) {
    Op *op = op_new (&scene->rig, BLK_WRITE, page, REQUEST_PAGES_MAX);

    fill_random (&scene->rig, op->pages, REQUEST_PAGES_MAX * FAR_PAGE_BYTES);
    op_begin (op);
  }
  wait_for (&scene->rig, 0);
}

/* Pages here and there, each read or written. */
static void
churn (Scene *scene, guint n, guint writes_of_ten) {
  for (guint i = 0; i < n; i++) {
    const guint64 pages = 1 + random_below (&scene->rig, 8), first = random_below (&scene->rig, DISK_PAGES - pages);
    const gboolean writes = random_below (&scene->rig, 10) < writes_of_ten;
    Op *op;

    if (!is_free (&scene->rig, first, pages))
      continue;
    op = op_new (&scene->rig, writes ? BLK_WRITE : BLK_READ, first, pages);
    if (writes)
      fill_random (&scene->rig, op->pages, pages * FAR_PAGE_BYTES);
    op_begin (op);
  }
}

/* ---- one thing at a time ---- */

static void
test_ssd (void) {
  FarCopiesFigures f;
  Scene scene;

  scene_init (&scene, COPIES_SSD, 3);
  write_all (&scene);
  churn (&scene, 2000, 5);
  read_all (&scene.rig);
  WAIT_UNTIL (is_protected (&scene));
  f = figures (&scene);
  g_assert_cmpuint (f.local_valid, ==, f.places);
  g_assert_cmpuint (all_used (&scene), ==, f.places);
  for (guint d = 0; d < 3; d++)
    g_assert_cmpuint (fake_used (d), >, 0);
  reopen_engine (&scene.rig); /* another worker finds them all */
  read_all (&scene.rig);
  WAIT_UNTIL (is_protected (&scene));
  g_assert_cmpuint (figures (&scene).places, ==, f.places);
  g_assert_cmpuint (figures (&scene).repaired_bytes, ==, 0);
  scene_clear (&scene);
}

static void
test_mirror (void) {
  FarCopiesFigures f;
  Scene scene;

  scene_init (&scene, COPIES_MIRROR, 4);
  WAIT_UNTIL (donor_figures (&scene, 3).state == COPIES_DONOR_UP && donor_figures (&scene, 0).state == COPIES_DONOR_UP);
  write_all (&scene);
  churn (&scene, 1000, 5);
  WAIT_UNTIL (is_protected (&scene));
  f = figures (&scene);
  g_assert_cmpuint (all_used (&scene), ==, 2 * f.places);
  read_all (&scene.rig);
  scene_clear (&scene);
}

/* The storage copy is not even read where donors have it, and the other way round: a protection that is one is no protection.
 */
static void
test_storage_only (void) {
  Scene scene;

  scene_init (&scene, COPIES_STORAGE, 2);
  write_all (&scene);
  WAIT_UNTIL (is_protected (&scene));
  g_assert_cmpuint (all_used (&scene), ==, 0);
  read_all (&scene.rig);
  scene_clear (&scene);
}

static void
test_donor_dies (void) {
  Scene scene;
  guint64 before;

  scene_init (&scene, COPIES_MIRROR, 3);
  WAIT_UNTIL (donor_figures (&scene, 2).state == COPIES_DONOR_UP);
  write_all (&scene);
  WAIT_UNTIL (is_protected (&scene));
  churn (&scene, 300, 3);
  wait_for (&scene.rig, 0);
  WAIT_UNTIL (is_protected (&scene));
  before = donor_figures (&scene, 0).valid;
  fake_set_up (0, FALSE);
  churn (&scene, 500, 0);
  WAIT_UNTIL (donor_figures (&scene, 0).state == COPIES_DONOR_GONE);
  WAIT_UNTIL (is_protected (&scene));
  g_assert_cmpuint (figures (&scene).repaired_bytes, >=, before * FAR_SEGMENT_BYTES / 2);
  churn (&scene, 200, 5);
  wait_for (&scene.rig, 0);
  WAIT_UNTIL (is_protected (&scene));
  fake_set_up (1, FALSE); /* only now the second: nothing is lost */
  read_all (&scene.rig);
  fake_set_up (1, TRUE);
  fake_set_up (0, TRUE); /* what it has is too much now */
  WAIT_UNTIL (is_protected (&scene) && all_used (&scene) == 2 * figures (&scene).places);
  read_all (&scene.rig);
  g_assert_cmpuint (figures (&scene).lost, ==, 0);
  scene_clear (&scene);
}

static void
test_arena_lost (void) {
  Scene scene;

  scene_init (&scene, COPIES_SSD, 2);
  write_all (&scene);
  WAIT_UNTIL (is_protected (&scene));
  fake_lose_arena (0);
  churn (&scene, 300, 0);
  fake_lose_arena (1);
  read_all (&scene.rig);
  WAIT_UNTIL (is_protected (&scene));
  /* While no worker looks. */
  wait_for (&scene.rig, 0);
  fake_lose_arena (0);
  reopen_engine (&scene.rig);
  read_all (&scene.rig);
  WAIT_UNTIL (is_protected (&scene));
  read_all (&scene.rig);
  g_assert_cmpuint (figures (&scene).lost, ==, 0);
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
  WAIT_UNTIL (donor_figures (&scene, 3).state == COPIES_DONOR_UP && donor_figures (&scene, 0).state == COPIES_DONOR_UP
              && donor_figures (&scene, 1).state == COPIES_DONOR_UP && donor_figures (&scene, 2).state == COPIES_DONOR_UP);
  write_all (&scene);
  WAIT_UNTIL (is_protected (&scene));
  for (guint d = 0; d < 4; d++)
    fake_lose_arena (d);
  WAIT_UNTIL (figures (&scene).lost > 0 && donor_figures (&scene, 3).state == COPIES_DONOR_UP);
  expect_failures (&scene, &failed,
                   &read); /* what is read is in the stage, or was written to storage while a donor was missing */
  g_assert_cmpuint (failed, >, 0);
  write_all (&scene); /* and life goes on */
  read_all (&scene.rig);
  WAIT_UNTIL (is_protected (&scene));
  g_assert_cmpuint (figures (&scene).lost, <=, figures (&scene).places + 20);
  scene_clear (&scene);
}

/* Unreachable is not lost: reads wait. */
static void
test_waits (void) {
  Scene scene;
  gint64 end;

  scene_init (&scene, COPIES_MIRROR, 2);
  WAIT_UNTIL (donor_figures (&scene, 1).state == COPIES_DONOR_UP && donor_figures (&scene, 0).state == COPIES_DONOR_UP);
  write_all (&scene);
  WAIT_UNTIL (is_protected (&scene));
  WAIT_UNTIL (rig_figures (&scene.rig).store.slots_writing == 0);
  fake_set_up (0, FALSE);
  fake_set_up (1, FALSE);
  churn (&scene, 12, 0);
  WAIT_UNTIL (figures (&scene).waiting > 0);
  WAIT_UNTIL (donor_figures (&scene, 0).state == COPIES_DONOR_GONE && donor_figures (&scene, 1).state == COPIES_DONOR_GONE);
  end = g_get_monotonic_time () + 500000;
  while (g_get_monotonic_time () < end)
    g_main_context_iteration (NULL, TRUE);
  g_assert_cmpuint (figures (&scene).waiting, >, 0);
  g_assert_cmpuint (figures (&scene).endangered, >, 0);
  fake_set_up (1, TRUE);
  wait_for (&scene.rig, 0);
  g_assert_cmpuint (figures (&scene).waiting, ==, 0);
  fake_set_up (0, TRUE);
  read_all (&scene.rig);
  WAIT_UNTIL (is_protected (&scene));
  scene_clear (&scene);
}

/* A donor that hangs holds up no read for long, though it was the one to be asked. */
static void
test_hung (void) {
  Scene scene;

  scene_init (&scene, COPIES_SSD, 2);
  WAIT_UNTIL (donor_figures (&scene, 0).state == COPIES_DONOR_UP && donor_figures (&scene, 1).state == COPIES_DONOR_UP);
  write_all (&scene);
  WAIT_UNTIL (is_protected (&scene));
  churn (&scene, 500, 0);
  fake_set_hung (0, TRUE);
  fake_set_hung (1, TRUE);
  read_all (&scene.rig);
  g_assert_cmpuint (figures (&scene).hedged, >, 0);
  g_assert_cmpuint (figures (&scene).hedges_won, >, 0);
  churn (&scene, 300, 10); /* writes do without them, after a while */
  wait_for (&scene.rig, 0);
  WAIT_UNTIL (donor_figures (&scene, 0).state != COPIES_DONOR_UP || donor_figures (&scene, 1).state != COPIES_DONOR_UP);
  fake_set_hung (0, FALSE);
  fake_set_hung (1, FALSE);
  read_all (&scene.rig);
  WAIT_UNTIL (is_protected (&scene));
  scene_clear (&scene);
}

static void
test_slow (void) {
  Scene scene;

  scene_init (&scene, COPIES_SSD, 1);
  WAIT_UNTIL (donor_figures (&scene, 0).state == COPIES_DONOR_UP);
  write_all (&scene);
  WAIT_UNTIL (is_protected (&scene));
  fake_set_slow (0, 300);
  churn (&scene, 3000, 1);
  wait_for (&scene.rig, 0);
  g_assert_cmpuint (figures (&scene).hedged, >, 0);
  fake_set_slow (0, 0);
  WAIT_UNTIL (is_protected (&scene));
  read_all (&scene.rig);
  scene_clear (&scene);
}

/* A donor that gives back something else: never believed, and no error while there is another copy. */
static void
test_corrupt (void) {
  Scene scene;
  guint64 before;

  scene_init (&scene, COPIES_SSD, 2);
  WAIT_UNTIL (donor_figures (&scene, 0).state == COPIES_DONOR_UP && donor_figures (&scene, 1).state == COPIES_DONOR_UP);
  write_all (&scene);
  WAIT_UNTIL (is_protected (&scene));
  fake_set_corrupt (0, 1000);
  fake_set_corrupt (1, 500);
  churn (&scene, 3000, 4);
  read_all (&scene.rig);
  wait_for (&scene.rig, 0);
  before = donor_figures (&scene, 0).damaged + donor_figures (&scene, 1).damaged;
  g_assert_cmpuint (before, >, 0);
  g_assert_cmpuint (rig_figures (&scene.rig).damaged, ==, 0);
  fake_set_corrupt (0, 0);
  fake_set_corrupt (1, 0);
  WAIT_UNTIL (is_protected (&scene));
  read_all (&scene.rig);
  scene_clear (&scene);
}

/* All is given back that is asked for; it is still protected as far as it can be. */
static void
test_revoke (void) {
  Scene scene;
  guint64 before;

  scene_init (&scene, COPIES_SSD, 2);
  write_all (&scene);
  WAIT_UNTIL (is_protected (&scene));
  before = fake_used (0);
  g_assert_cmpuint (before, >, 2);
  fake_revoke (0, TRUE, before / 2);
  churn (&scene, 500, 3);
  WAIT_UNTIL (fake_used (0) <= before / 2);
  WAIT_UNTIL (is_protected (&scene)); /* the other one has taken them */
  fake_revoke (0, TRUE, 0);
  churn (&scene, 500, 3);
  WAIT_UNTIL (fake_used (0) == 0);
  fake_revoke (1, TRUE, 0);
  WAIT_UNTIL (all_used (&scene) == 0); /* to storage */
  read_all (&scene.rig);
  g_assert_cmpuint (figures (&scene).degraded, ==, figures (&scene).places);
  fake_revoke (0, FALSE, 0);
  WAIT_UNTIL (is_protected (&scene));
  scene_clear (&scene);
}

/* Everybody wants everything back from a mirror without a storage copy. */
static void
test_revoke_mirror (void) {
  Scene scene;

  scene_init (&scene, COPIES_MIRROR, 2);
  WAIT_UNTIL (donor_figures (&scene, 0).state == COPIES_DONOR_UP && donor_figures (&scene, 1).state == COPIES_DONOR_UP);
  write_all (&scene);
  WAIT_UNTIL (is_protected (&scene));
  fake_revoke (0, TRUE, 0);
  fake_revoke (1, TRUE, 0);
  churn (&scene, 300, 3);
  WAIT_UNTIL (all_used (&scene) == 0);
  read_all (&scene.rig);
  g_assert_cmpuint (figures (&scene).local_valid, ==, figures (&scene).places);
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
  WAIT_UNTIL (donor_figures (&scene, 3).state == COPIES_DONOR_UP && donor_figures (&scene, 0).state == COPIES_DONOR_UP);
  write_all (&scene);
  churn (&scene, 500, 5);
  WAIT_UNTIL (is_protected (&scene));
  g_assert_cmpuint (fake_used (3), ==, figures (&scene).places);
  g_assert_cmpuint (fake_used (0) + fake_used (1) + fake_used (2), ==, figures (&scene).places);
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
  write_all (&scene);
  WAIT_UNTIL (is_protected (&scene));
  before = all_used (&scene);
  op = op_new (&scene.rig, BLK_DISCARD, FAR_BLOCK_PAGES, scene.rig.n_pages - FAR_BLOCK_PAGES);
  op_begin (op);
  wait_for (&scene.rig, 0);
  WAIT_UNTIL (all_used (&scene) <= before / 2);
  read_all (&scene.rig);
  write_all (&scene); /* and it is taken again */
  WAIT_UNTIL (is_protected (&scene));
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
  write_all (&scene);
  WAIT_UNTIL (is_protected (&scene));
  fake_set_up (2, FALSE);
  WAIT_UNTIL (donor_figures (&scene, 2).state != COPIES_DONOR_UP);
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
    churn (scene, 100, 5);
    fake_lose_arena (d);
    break;
  default:
    reopen_engine (&scene->rig);
  }
  churn (scene, (guint)random_below (&scene->rig, 600), (guint)random_below (&scene->rig, 10));
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
    WAIT_UNTIL (donor_figures (&scene, 0).state == COPIES_DONOR_UP
                && donor_figures (&scene, scene.n_donors - 1).state == COPIES_DONOR_UP);
    write_all (&scene);
    for (guint round = 0; round < rounds / 2; round++) {
      WAIT_UNTIL (fake_is_quiet (scene.n_donors) && is_protected (&scene)); /* it was noticed, and is over */
      g_assert_cmpuint (figures (&scene).lost, ==, 0);
      one_failure (&scene, (guint)random_below (&scene.rig, scene.n_donors));
    }
    WAIT_UNTIL (fake_is_quiet (scene.n_donors) && is_protected (&scene));
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
