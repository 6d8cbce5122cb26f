/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is decided of copies (core/copies.h): which are to be made or given back, what is asked of donors, and which of them get
 * what; with policies and maps at random. What is needed is never given up, and it comes to an end.
 */
#include "core/copies.h"
#include "testing.h"

#include <string.h>

#define PLACES 24u

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
  const char *why;

  copies_format (state, PLACES);
  copies = copies_open (state, copies_state_bytes (PLACES), PLACES, &why);
  for (guint step = 0; step < testing_steps (20000); step++) {
    const guint p = (guint)testing_below (rand, PLACES), d = (guint)testing_below (rand, 6);
    /* Few kinds of places at a time, so that they share them, and come and go. */
    const guint targets = step / 500 % 2 ? 7 : 2;
    struct copies_policy policy;

    if (testing_once_in (rand, 50)) {
      copies_donor_attached (copies, d, (const guint8[LEASE_ID_BYTES]){ 1 }, step + 1);
    } else if (testing_once_in (rand, 100)) {
      copies_close (copies);
      copies = copies_open (state, copies_state_bytes (PLACES), PLACES, &why);
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

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/copies-plan/plans", test_plans);
  g_test_add_func ("/copies-plan/protection", test_protection);
  g_test_add_func ("/copies-plan/want", test_want);
  g_test_add_func ("/copies-plan/modes", test_modes);
  g_test_add_func ("/copies-plan/copysets", test_copysets);
  g_test_add_func ("/copies-plan/spread", test_spread);
  return g_test_run ();
}
