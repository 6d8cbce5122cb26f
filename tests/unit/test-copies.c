/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The map of copies, against what is really in storage and in the donors' arenas (the world below), over the death of its
 * process at each instant: what the map says is good is good.
 */
#include "core/copies.h"
#include "core/crash-point.h"
#include "testing.h"

#include <string.h>

#define PLACES 24u
#define DONORS 5u

/* ---- deaths: the state as it is at each crash point ---- */

static struct {
  const void *watched; /* NULL: nobody looks */
  gsize bytes;
  GPtrArray *snapshots;
} deaths;

void
crash_point (const char *name) {
  if (deaths.watched)
    g_ptr_array_add (deaths.snapshots, g_memdup2 (deaths.watched, deaths.bytes));
}

static void
watch (const void *state, gsize bytes) {
  deaths.watched = state;
  deaths.bytes = bytes;
  deaths.snapshots = g_ptr_array_new_with_free_func (g_free);
}

static GPtrArray *
unwatch (void) {
  deaths.watched = NULL;
  return deaths.snapshots;
}

/* ---- what is really where ---- */

typedef struct {
  guint64 contents[PLACES];              /* what each place holds: a number; 0: nothing */
  guint64 there[COPIES_TARGETS][PLACES]; /* what is in each copy */
  guint64 next;                          /* number */
  guint64 arena[DONORS], lease[DONORS];  /* of the donors, as they are now */
} World;

static void
incarnation_of (guint64 arena, guint8 ret[LEASE_ID_BYTES]) {
  memset (ret, 0, LEASE_ID_BYTES);
  memcpy (ret, &arena, sizeof arena);
}

static struct copies *
open_map (void *state) {
  const char *why;
  struct copies *copies = copies_open (state, copies_state_bytes (PLACES), PLACES, &why);

  g_assert_cmpstr (why, ==, NULL);
  g_assert_nonnull (copies);
  return copies;
}

/* busy: a place that is being written, whose contents are in the stage still. */
static void
judge (const struct copies *copies, const World *world, guint busy) {
  struct copies_figures figures;
  guint64 count[COPIES_TARGETS][4] = { { 0 } }, lost = 0;

  copies_figures (copies, &figures);
  for (guint p = 0; p < PLACES; p++) {
    const guint32 good = copies_in_state (copies, p, COPY_VALID) | copies_in_state (copies, p, COPY_SUSPECT);

    for (guint t = 0; t < COPIES_TARGETS; t++) {
      const enum copy_state state = copies_get (copies, p, t);

      count[t][state]++;
      g_assert_true (!(good >> t & 1) == (state == COPY_NONE || state == COPY_OLD));
      if (!(good >> t & 1) || p == busy)
        continue;
      g_assert_cmpuint (world->contents[p], !=, 0);
      if (t > 0) { /* only what is said of this arena and lease counts */
        guint8 said[LEASE_ID_BYTES], is[LEASE_ID_BYTES];
        guint64 lease;

        copies_donor (copies, t - 1, said, &lease);
        incarnation_of (world->arena[t - 1], is);
        if (lease != world->lease[t - 1] || memcmp (said, is, sizeof is) != 0)
          continue;
      }
      g_assert_cmpuint (world->there[t][p], ==, world->contents[p]);
    }
    lost += copies_is_lost (copies, p);
    g_assert_false (good && copies_is_lost (copies, p));
  }
  for (guint d = 0; d < DONORS; d++) {
    guint8 said[LEASE_ID_BYTES];
    guint64 lease;

    copies_donor (copies, d, said, &lease);
    g_assert_true (lease || copies_used (copies, d) == 0); /* what was begun has been finished */
  }
  for (guint t = 0; t < COPIES_TARGETS; t++)
    for (guint s = 1; s < 4; s++)
      g_assert_cmpuint (figures.count[t][s], ==, count[t][s]);
  g_assert_cmpuint (figures.lost, ==, lost);
}

/* Every state that a death would have left behind is opened and judged; then, what was done is done again as a successor would.
 */
static void
judge_deaths (GPtrArray *snapshots, const World *world, guint busy, void (*again) (struct copies *, gpointer), gpointer data) {
  for (guint i = 0; i < snapshots->len; i++) {
    struct copies *heir = open_map (snapshots->pdata[i]);

    judge (heir, world, busy);
    if (again) {
      again (heir, data);
      judge (heir, world, busy);
    }
    copies_close (heir);
  }
  g_ptr_array_unref (snapshots);
}

typedef struct {
  World *world;
  guint donor;
} Attach;

static void
attach (struct copies *copies, gpointer data) {
  const Attach *a = data;
  guint8 incarnation[LEASE_ID_BYTES], said[LEASE_ID_BYTES];
  guint64 lease;

  incarnation_of (a->world->arena[a->donor], incarnation);
  copies_donor_attached (copies, a->donor, incarnation, a->world->lease[a->donor]);
  copies_donor (copies, a->donor, said, &lease);
  g_assert_cmpmem (said, sizeof said, incarnation, sizeof incarnation);
  g_assert_cmpuint (lease, ==, a->world->lease[a->donor]);
}

static void
write_place (struct copies *copies, World *world, GRand *rand, guint p) {
  const guint32 targets = (guint32)testing_below (rand, 1u << (DONORS + 1));

  world->contents[p] = ++world->next;
  copies_begin_write (copies, p, targets);
  g_assert_cmpuint (copies_in_state (copies, p, COPY_VALID), ==, 0);
  for (guint t = 0; t <= DONORS; t++) {
    if (!(targets >> t & 1))
      continue;
    world->there[t][p] = testing_once_in (rand, 4) ? 999999 : world->next; /* failed, half of it written */
    if (world->there[t][p] == world->next)
      copies_set (copies, p, t, COPY_VALID);
  }
}

/* Some copy is made anew, is found damaged, or is given back. */
static void
change_copy (struct copies *copies, World *world, GRand *rand, guint p) {
  const guint t = (guint)testing_below (rand, DONORS + 1);
  const guint32 valid = copies_in_state (copies, p, COPY_VALID);

  switch (copies_get (copies, p, t)) {
  case COPY_VALID:
    copies_set (copies, p, t, testing_once_in (rand, 2) ? COPY_SUSPECT : COPY_OLD);
    break;
  case COPY_SUSPECT:
  case COPY_NONE:
    if (!(valid & ~(1u << t)))
      break;
    copies_set (copies, p, t, COPY_OLD);
    world->there[t][p] = world->contents[p];
    copies_set (copies, p, t, COPY_VALID);
    break;
  case COPY_OLD:
    world->there[t][p] = 0;
    copies_set (copies, p, t, COPY_NONE);
  }
}

static void
new_arena (struct copies *copies, World *world, GRand *rand, guint d) {
  Attach a = { world, d };

  world->lease[d]++;
  if (testing_once_in (rand, 2))
    world->arena[d]++;
  for (guint p = 0; p < PLACES; p++)
    world->there[1 + d][p] = 0;
  if (testing_once_in (rand, 2))
    copies_donor_lost (copies, d);
  attach (copies, &a);
}

static void
test_map (void) {
  GRand *rand = testing_rand ();
  const gsize bytes = copies_state_bytes (PLACES);
  guint64 *state = g_malloc0 (bytes);
  struct copies *copies;
  World world = { .next = 0 };

  copies_format (state, PLACES);
  copies = open_map (state);
  for (guint d = 0; d < DONORS; d++) {
    world.arena[d] = d + 1;
    world.lease[d] = 1;
    attach (copies, &(Attach){ &world, d });
  }
  for (guint step = 0; step < testing_steps (4000); step++) {
    const guint p = (guint)testing_below (rand, PLACES), d = (guint)testing_below (rand, DONORS);
    guint busy = PLACES;
    Attach a = { &world, d };
    gboolean is_attach = FALSE;

    watch (state, bytes);
    switch (testing_below (rand, 16)) {
    case 0:
      new_arena (copies, &world, rand, d);
      is_attach = TRUE;
      break;
    case 1:
    case 2:
      copies_discard (copies, p);
      world.contents[p] = 0;
      busy = p;
      break;
    case 3:
    case 4:
    case 5:
    case 6:
      write_place (copies, &world, rand, p);
      busy = p;
      break;
    case 7:
      copies_close (copies);
      copies = open_map (state);
      break;
    default:
      change_copy (copies, &world, rand, p);
      busy = p; /* judged below, when it is done */
    }
    judge_deaths (unwatch (), &world, busy, is_attach ? attach : NULL, &a);
    judge (copies, &world, PLACES);
  }
  copies_close (copies);
  g_free (state);
  g_rand_free (rand);
}

/* A place that is written over a death: nothing may pass for good before its write has ended. */
static void
test_write (void) {
  const gsize bytes = copies_state_bytes (PLACES);
  guint64 *state = g_malloc0 (bytes);
  GPtrArray *snapshots;
  struct copies *copies;

  copies_format (state, PLACES);
  copies = open_map (state);
  for (guint d = 0; d < 2; d++)
    copies_donor_attached (copies, d, (const guint8[LEASE_ID_BYTES]){ 1 }, 1);
  copies_set (copies, 3, 0, COPY_VALID);
  copies_set (copies, 3, 2, COPY_VALID);
  watch (state, bytes);
  copies_begin_write (copies, 3, 1u << 1 | 1u);
  snapshots = unwatch ();
  g_assert_cmpuint (snapshots->len, ==, 1);
  for (guint i = 0; i < snapshots->len; i++) {
    struct copies *heir = open_map (snapshots->pdata[i]);

    g_assert_cmpuint (copies_in_state (heir, 3, COPY_VALID), ==, 0);
    g_assert_cmpuint (copies_in_state (heir, 3, COPY_OLD), ==, 7); /* donor 1 has a block still */
    g_assert_false (copies_is_lost (heir, 3));
    copies_close (heir);
  }
  g_ptr_array_unref (snapshots);
  copies_close (copies);
  g_free (state);
}

static void
test_bad_state (void) {
  const gsize bytes = copies_state_bytes (PLACES);
  guint64 *state = g_malloc0 (bytes);
  const char *why;

  g_assert_null (copies_open (state, bytes, PLACES, &why));
  g_assert_nonnull (why);
  copies_format (state, PLACES);
  g_assert_null (copies_open (state, bytes - 8, PLACES, &why));
  g_assert_null (copies_open (state, bytes, PLACES - 1, &why));
  state[512 + 5] = 1ull << 50;
  g_assert_null (copies_open (state, bytes, PLACES, &why));
  g_assert_nonnull (why);
  state[512 + 5] = 0;
  ((guint32 *)state)[3] = COPIES_STATE_VERSION + 1; /* oldest reader */
  g_assert_null (copies_open (state, bytes, PLACES, &why));
  g_free (state);
}

/* A donor that was removed: nothing there counts any more, over the next worker's start too; but what it has is not forgotten as
 * long as it has something. */
static void
test_left (void) {
  const gsize bytes = copies_state_bytes (PLACES);
  guint64 *state = g_malloc0 (bytes), lease;
  guint8 incarnation[LEASE_ID_BYTES];
  struct copies *copies;

  copies_format (state, PLACES);
  copies = open_map (state);
  for (guint d = 0; d < 3; d++)
    copies_donor_attached (copies, d, (const guint8[LEASE_ID_BYTES]){ 1 }, 7);
  copies_set (copies, 0, COPIES_LOCAL, COPY_VALID);
  copies_set (copies, 0, 1 + 2, COPY_VALID);
  copies_set (copies, 1, 1 + 2, COPY_VALID);
  copies_set (copies, 1, 1 + 0, COPY_SUSPECT);
  copies_set (copies, 2, 1 + 2, COPY_VALID);
  copies_donor_left (copies, 1);
  copies_donor_left (copies, 2);
  copies_donor (copies, 1, incarnation, &lease);
  g_assert_cmpuint (lease, ==, 0); /* had nothing */
  copies_close (copies);
  copies = open_map (state);
  copies_donor (copies, 2, incarnation, &lease);
  g_assert_cmpuint (lease, ==, 7);
  for (guint p = 0; p < 3; p++)
    g_assert_cmpint (copies_get (copies, p, 1 + 2), ==, COPY_OLD);
  g_assert_cmpint (copies_get (copies, 0, COPIES_LOCAL), ==, COPY_VALID);
  g_assert_false (copies_is_lost (copies, 0));
  g_assert_false (copies_is_lost (copies, 1));
  g_assert_true (copies_is_lost (copies, 2));
  copies_donor_attached (copies, 2, (const guint8[LEASE_ID_BYTES]){ 2 }, 7); /* another one has its number */
  g_assert_cmpuint (copies_used (copies, 2), ==, 0);
  copies_close (copies);
  g_free (state);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/copies/map", test_map);
  g_test_add_func ("/copies/write", test_write);
  g_test_add_func ("/copies/left", test_left);
  g_test_add_func ("/copies/bad-state", test_bad_state);
  return g_test_run ();
}
