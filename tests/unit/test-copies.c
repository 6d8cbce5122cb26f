/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The map of copies, against what is really in storage and in the donors' arenas (the world below), over the death of its
 * process at each instant: what the map says is good is good. And the decisions on protection: they never give up what is
 * needed, and come to an end.
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

/* ---- protection ---- */

static void
random_policy (GRand *rand, struct copies_policy *policy) {
  guint32 domains[COPIES_DONORS_MAX];

  *policy = (struct copies_policy){ .mode = (enum copies_mode)testing_below (rand, 3),
                                    .n_donors = (unsigned)testing_below (rand, 7) };
  for (guint d = 0; d < policy->n_donors; d++) {
    domains[d] = (guint32)testing_below (rand, 4);
    policy->donors[d] = testing_once_in (rand, 2) ? COPIES_DONOR_UP : (enum copies_donor_state)testing_below (rand, 4);
    policy->room[d] = testing_once_in (rand, 4) ? 0 : testing_below (rand, 100);
  }
  placement_init (&policy->placement, policy->n_donors, domains, copies_wanted_donors (policy->mode), 4,
                  testing_below (rand, 1000));
}

static guint32
in_policy (const struct copies_policy *policy, enum copies_donor_state state) {
  guint32 mask = 0;

  for (guint d = 0; d < policy->n_donors; d++)
    mask |= (guint32)(policy->donors[d] == state) << (1 + d);
  return mask;
}

/* Donors of the mask, all in different domains? */
static gboolean
are_apart (const struct copies_policy *policy, guint32 targets) {
  for (guint a = 0; a < policy->n_donors; a++)
    for (guint b = 0; b < a; b++)
      if ((targets >> (1 + a) & 1) && (targets >> (1 + b) & 1) && policy->placement.domains[a] == policy->placement.domains[b])
        return FALSE;
  return TRUE;
}

/* What can be read at once, whatever happens to those that are away. */
static guint32
at_hand (const struct copies_policy *policy, const struct copies *copies, guint p) {
  return (copies_in_state (copies, p, COPY_VALID) | copies_in_state (copies, p, COPY_SUSPECT))
         & (COPIES_LOCAL_BIT | in_policy (policy, COPIES_DONOR_UP) | in_policy (policy, COPIES_DONOR_LEAVING));
}

static void
check_plan (const struct copies_policy *policy, const struct copies *copies, guint p, const struct copies_plan *plan) {
  const guint32 up = in_policy (policy, COPIES_DONOR_UP), leaving = in_policy (policy, COPIES_DONOR_LEAVING);
  const guint32 valid = copies_in_state (copies, p, COPY_VALID), suspect = copies_in_state (copies, p, COPY_SUSPECT);

  g_assert_cmphex (plan->add & plan->drop, ==, 0);
  g_assert_cmphex (plan->add & ~(COPIES_LOCAL_BIT | up), ==, 0);
  g_assert_cmphex (plan->add & valid, ==, 0);
  g_assert_cmphex (plan->drop & ~(up | leaving), ==, 0);
  for (guint d = 0; d < policy->n_donors; d++)
    if ((plan->add >> (1 + d) & 1) && policy->room[d] == 0)
      g_assert_cmpint (copies_get (copies, p, 1 + d), !=, COPY_NONE);
  /* There is a source for what is added, and something is left where there was something. */
  if (plan->add)
    g_assert_cmphex ((valid | suspect) & ~plan->add, !=, 0);
  if (valid & ~in_policy (policy, COPIES_DONOR_GONE))
    g_assert_cmphex (valid & ~plan->drop & ~plan->add, !=, 0);
  else if (suspect)
    g_assert_cmphex (suspect & ~plan->drop & ~plan->add, !=, 0);
  if (at_hand (policy, copies, p))
    g_assert_cmphex (at_hand (policy, copies, p) & ~plan->drop, !=, 0); /* what is added was read before */
}

static void
carry_out (const struct copies_policy *policy, struct copies *copies, guint p, const struct copies_plan *plan) {
  const guint32 gone = in_policy (policy, COPIES_DONOR_GONE);
  const enum copy_state as = copies_in_state (copies, p, COPY_VALID) & ~gone ? COPY_VALID : COPY_SUSPECT;

  for (guint t = 0; t < COPIES_TARGETS; t++)
    if (plan->add >> t & 1)
      copies_set (copies, p, t, as);
    else if (plan->drop >> t & 1)
      copies_set (copies, p, t, COPY_NONE);
}

static void
check_protection (const struct copies_policy *policy, const struct copies *copies, guint p) {
  const guint32 good
      = copies_in_state (copies, p, COPY_VALID) & (in_policy (policy, COPIES_DONOR_UP) | in_policy (policy, COPIES_DONOR_AWAY));
  const gboolean local = copies_get (copies, p, 0) == COPY_VALID;
  const guint donors = (guint)__builtin_popcount (good);

  switch (policy->mode) {
  case COPIES_SSD:
    g_assert_true (local && donors >= 1);
    break;
  case COPIES_MIRROR:
    g_assert_cmpuint (donors, >=, 2);
    break;
  case COPIES_STORAGE:
    g_assert_true (local);
  }
}

static void
test_plans (void) {
  GRand *rand = testing_rand ();
  guint64 *state = g_malloc0 (copies_state_bytes (1));

  for (guint step = 0; step < testing_steps (60000); step++) {
    struct copies_policy policy;
    struct copies_plan plan;
    struct copies *copies;
    const char *why;
    gboolean holds;
    guint rounds = 0;

    memset (state, 0, copies_state_bytes (1));
    copies_format (state, 1);
    copies = copies_open (state, copies_state_bytes (1), 1, &why);
    random_policy (rand, &policy);
    for (guint d = 0; d < policy.n_donors; d++) {
      guint8 incarnation[LEASE_ID_BYTES] = { 1 };

      copies_donor_attached (copies, d, incarnation, 1);
      if (testing_once_in (rand, 2))
        copies_set (copies, 0, 1 + d, (enum copy_state)testing_below (rand, 4));
    }
    copies_set (copies, 0, 0, (enum copy_state)testing_below (rand, 4));

    copies_plan_write (&policy, copies, 0, &plan);
    g_assert_cmphex (plan.add, !=, 0);
    g_assert_cmphex (plan.add & ~(COPIES_LOCAL_BIT | in_policy (&policy, COPIES_DONOR_UP)), ==, 0);
    g_assert_true (are_apart (&policy, plan.add));
    if (!plan.is_short && policy.mode == COPIES_MIRROR)
      g_assert_cmpint (__builtin_popcount (plan.add), ==, 2);

    holds = copies_counted (&policy, copies, 0) >= 0;
    for (;;) {
      copies_plan_repair (&policy, copies, 0, &plan);
      check_plan (&policy, copies, 0, &plan);
      if (!plan.add && !plan.drop)
        break;
      g_assert_cmpuint (rounds++, <, 4);
      carry_out (&policy, copies, 0, &plan);
    }
    g_assert_true (holds == (copies_counted (&policy, copies, 0) >= 0));
    if (holds && !plan.is_short && copies_in_state (copies, 0, COPY_VALID) & ~in_policy (&policy, COPIES_DONOR_GONE))
      check_protection (&policy, copies, 0);
    /* Who wants its blocks back has them, if storage is there at least. */
    if (holds && copies_get (copies, 0, 0) == COPY_VALID)
      for (guint d = 0; d < policy.n_donors; d++)
        g_assert_true (policy.donors[d] != COPIES_DONOR_LEAVING || copies_get (copies, 0, 1 + d) == COPY_NONE);
    copies_close (copies);
  }
  g_free (state);
  g_rand_free (rand);
}

/* ---- what is known of all places, and what is asked of donors ---- */

/* Place by place, and by the words that there are. */
static void
check_all_places (const struct copies_policy *policy, const struct copies *copies) {
  struct copies_protection sum = { 0 }, said;

  for (guint p = 0; p < PLACES; p++) {
    const int good = copies_counted (policy, copies, p);
    struct copies_plan plan;

    if (good < 0)
      continue;
    sum.places++;
    copies_plan_repair (policy, copies, p, &plan);
    if (good == 0)
      sum.endangered++;
    else if (plan.add || plan.is_short)
      sum.degraded++;
    else
      sum.is_protected++;
  }
  copies_protection (policy, copies, &said);
  g_assert_cmpmem (&said, sizeof said, &sum, sizeof sum);
}

static void
test_protection (void) {
  GRand *rand = testing_rand ();
  guint64 *state = g_malloc0 (copies_state_bytes (PLACES));
  struct copies *copies;

  copies_format (state, PLACES);
  copies = open_map (state);
  for (guint step = 0; step < testing_steps (20000); step++) {
    const guint p = (guint)testing_below (rand, PLACES), d = (guint)testing_below (rand, 6);
    /* Few kinds of places at a time, so that they share them, and come and go. */
    const guint targets = step / 500 % 2 ? 7 : 2;
    struct copies_policy policy;

    if (testing_once_in (rand, 50)) {
      copies_donor_attached (copies, d, (const guint8[LEASE_ID_BYTES]){ 1 }, step + 1);
    } else if (testing_once_in (rand, 100)) {
      copies_close (copies);
      copies = open_map (state);
    } else if (testing_once_in (rand, 10)) {
      copies_discard (copies, p);
    } else {
      copies_set (copies, p, (guint)testing_below (rand, targets), (enum copy_state)testing_below (rand, 4));
    }
    random_policy (rand, &policy);
    check_all_places (&policy, copies);
  }
  copies_close (copies);
  g_free (state);
  g_rand_free (rand);
}

/* Borrowers that share one donor, each as page_channel_want and lease_donor do it. */
static void
share (GRand *rand) {
  const guint64 arena = 10 + testing_below (rand, 3000);
  const guint n = 1 + (guint)testing_below (rand, 6);
  struct copies_need need[6];
  guint64 level[6] = { 0 }, promised = 0, all_used = 0, changes = 0;

  for (guint b = 0; b < n; b++)
    need[b] = (struct copies_need){ .free = G_MAXUINT64, .most = 1 + testing_below (rand, 2000), .grows = TRUE };
  for (guint step = 0; step < 400; step++)
    for (guint b = 0; b < n; b++) {
      const gboolean is_quiet = step >= 300;
      const guint64 more = testing_below (rand, 9);
      guint64 want;

      /* What the disk holds grows, but not beyond its lease, and shrinks. */
      if (!is_quiet && testing_once_in (rand, 8))
        need[b].used -= testing_below (rand, need[b].used + 1);
      else if (!is_quiet)
        need[b].used = MIN (need[b].used + more, MIN (level[b], need[b].most));
      want = copies_want (&need[b]);
      changes += step >= 350 && want != need[b].asked;
      g_assert_cmpuint (want, >=, need[b].used);
      g_assert_cmpuint (want, <=, need[b].most);
      need[b].asked = want;
      promised -= level[b];
      level[b] = MAX (MIN (want, arena - promised), need[b].used);
      promised += level[b];
      g_assert_cmpuint (promised, <=, arena);
      need[b].free = arena - promised;
    }
  g_assert_cmpuint (changes, ==, 0); /* when nobody needs more, nothing moves */
  for (guint b = 0; b < n; b++)
    all_used += need[b].used;
  for (guint b = 0; b < n; b++) {
    const guint64 most = need[b].most - need[b].used;

    g_assert_cmpuint (level[b] - need[b].used, <=, 100); /* no more than is of use */
    /* Whoever is to go on has room, as long as there is any: no one sits on all of it. */
    if (all_used + 8 * n * n <= arena)
      g_assert_cmpuint (level[b] - need[b].used, >=, MIN (most, 1));
  }
}

static void
test_want (void) {
  GRand *rand = testing_rand ();
  struct copies_need need = { .used = 3, .free = 93, .most = 1000, .grows = true };

  g_assert_cmpuint (copies_want (&need), ==, 11); /* a tiny disk, of a small arena */
  need.asked = 11;
  for (need.used = 3; need.used <= 5; need.used++)
    g_assert_cmpuint (copies_want (&need), ==, 11); /* not at each block */
  need.used = 8;
  g_assert_cmpuint (copies_want (&need), ==, 16); /* before it is used up */
  need = (struct copies_need){ .used = 400, .asked = 450, .free = 1000, .most = 1000, .grows = true };
  for (; need.used > 392; need.used--)
    g_assert_cmpuint (copies_want (&need), ==, 450);
  need.used = 300;
  g_assert_cmpuint (copies_want (&need), ==, 337);
  need.free = 0; /* others want some */
  g_assert_cmpuint (copies_want (&need), ==, 375);
  need.asked = 337;
  g_assert_cmpuint (copies_want (&need), ==, 319);
  for (guint n = 0; n < 10; n++)
    need.asked = copies_want (&need);
  g_assert_cmpuint (need.asked, ==, 301);
  need.is_revoked = true;
  need.revoke_level = 5;
  g_assert_cmpuint (copies_want (&need), ==, 5);
  need.revoke_level = 5000;
  g_assert_cmpuint (copies_want (&need), ==, 301);
  need.most = 200; /* it was made smaller: what is there is given back when it is */
  g_assert_cmpuint (copies_want (&need), ==, 300);
  need.grows = false;
  need.is_revoked = false;
  g_assert_cmpuint (copies_want (&need), ==, 300);
  for (guint round = 0; round < testing_steps (300); round++)
    share (rand);
  g_rand_free (rand);
}

static void
test_modes (void) {
  enum copies_mode mode;

  for (guint m = 0; m < 3; m++) {
    g_assert_true (copies_mode_parse (copies_mode_name ((enum copies_mode)m), &mode));
    g_assert_cmpint ((int)mode, ==, (int)m);
  }
  g_assert_false (copies_mode_parse ("raid", &mode));
}

/* ---- placement ---- */

static void
test_copysets (void) {
  GRand *rand = testing_rand ();

  for (guint round = 0; round < 300; round++) {
    const guint n = 2 + (guint)testing_below (rand, 15), copies = 2 + (guint)testing_below (rand, 2);
    guint32 domains[PLACEMENT_DONORS_MAX], in_a_set = 0;
    struct placement p;
    guint n_domains = 0;

    for (guint d = 0; d < n; d++) {
      domains[d] = (guint32)testing_below (rand, 6);
      n_domains += 1;
      for (guint e = 0; e < d; e++)
        if (domains[e] == domains[d]) {
          n_domains--;
          break;
        }
    }
    placement_init (&p, n, domains, copies, 4, round);
    for (guint s = 0; s < p.n_sets; s++) {
      g_assert_cmpint (__builtin_popcount (p.sets[s]), ==, (int)copies);
      for (guint a = 0; a < n; a++)
        for (guint b = 0; b < a; b++)
          g_assert_false ((p.sets[s] >> a & 1) && (p.sets[s] >> b & 1) && domains[a] == domains[b]);
      in_a_set |= p.sets[s];
    }
    if (n_domains < copies)
      g_assert_cmpuint (p.n_sets, ==, 0);
    else
      g_assert_cmphex (in_a_set, ==, (1u << n) - 1);
  }
  g_rand_free (rand);
}

/* Places go evenly to donors with equal room, by more where there is more; and only a few pairs have anything in common. */
static void
test_spread (void) {
  guint32 domains[12];
  guint64 room[12], got[12] = { 0 };
  guint pairs = 0;
  gboolean pair[12][12] = { { FALSE } };
  struct placement p;

  for (guint d = 0; d < 12; d++) {
    domains[d] = d;
    room[d] = 4000;
  }
  placement_init (&p, 12, domains, 2, 4, 7);
  for (guint place = 0; place < 12000; place++) {
    const guint32 chosen = placement_choose (&p, place, 2, 0, 0xfff, room);
    guint members[2], n = 0;

    g_assert_cmpint (__builtin_popcount (chosen), ==, 2);
    for (guint d = 0; d < 12; d++)
      if (chosen >> d & 1) {
        members[n++] = d;
        got[d]++;
        room[d]--;
      }
    pair[members[0]][members[1]] = TRUE;
  }
  for (guint d = 0; d < 12; d++) {
    g_assert_cmpuint (got[d], >, 1700);
    g_assert_cmpuint (got[d], <, 2300);
    for (guint e = 0; e < 12; e++)
      pairs += pair[d][e];
  }
  g_assert_cmpuint (pairs, <=, 24); /* of 66: 4 orders of 6 sets */
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
  g_test_add_func ("/copies/plans", test_plans);
  g_test_add_func ("/copies/protection", test_protection);
  g_test_add_func ("/copies/want", test_want);
  g_test_add_func ("/copies/modes", test_modes);
  g_test_add_func ("/copies/copysets", test_copysets);
  g_test_add_func ("/copies/spread", test_spread);
  return g_test_run ();
}
