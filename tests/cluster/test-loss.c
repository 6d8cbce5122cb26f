/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Donors die for good, with what they kept: another one while the copies of the first are being made again, two at once, and
 * the one that had most of them. What has a copy elsewhere survives; what has none is known as lost, and is an error until it
 * is written again; and re-protection ends, with what fits where.
 */
#include "neighbours.h"
#include "testing.h"

#include <string.h>

#define MIB (1ull << 20)
#define PLACE_PAGES (LEASE_BLOCK_BYTES / BLK_PAGE)

static int64_t
copies_with (struct neighbours *n, unsigned donor) {
  return neighbours_donor (n, donor, "copies");
}

/* Of a mirror over three: the one whose death takes least. What is not with it was with the two others alone, which is most. */
static unsigned
find_third (struct neighbours *n) {
  unsigned third = 0;

  for (unsigned d = 1; d < 3; d++)
    if (copies_with (n, d) < copies_with (n, third))
      third = d;
  return third;
}

static void
begin (struct neighbours *n, const char *mode, uint64_t bytes, const char *rate) {
  const char *const arguments[] = { "--donor-away=1", rate, NULL };

  neighbours_lend (n, 3, NULL, false);
  neighbours_borrow (n, &(struct neighbours_options){ .mode = mode, .bytes = bytes, .arguments = arguments });
  for (unsigned d = 0; d < 3; d++)
    NEIGHBOURS_UNTIL (neighbours_donor (n, d, "level") > 0, "it has been lent something");
  load_write_all (&n->load, 0, n->load.n_pages, LOAD_RANDOM);
  neighbours_wait_quiet (n);
}

/* What was lost is written again, and all is as it was. */
static void
end (struct neighbours *n) {
  load_write_all (&n->load, 0, n->load.n_pages, LOAD_RANDOM);
  neighbours_forget_damage (n);
  NEIGHBOURS_UNTIL ((load_run (&n->load, 200), neighbours_copies (n, "lost") == 0), "nothing is lost any more");
  neighbours_wait_protected (n);
  neighbours_check (n);
  neighbours_end (n);
}

/* With all donors back: as many places are lost as are to be, their pages and no others are errors. What is in the stage is
 * not. */
static void
check_lost (struct neighbours *n, int64_t at_least, int64_t at_most) {
  unsigned failed;

  neighbours_wait_quiet (n);
  g_assert_cmpint (neighbours_copies (n, "lost"), >=, at_least);
  g_assert_cmpint (neighbours_copies (n, "lost"), <=, at_most);
  failed = neighbours_read_each (n);
  g_test_message ("%d places lost, of %d to %d, and %d that hold something: %u pages are errors",
                  (int)neighbours_copies (n, "lost"), (int)at_least, (int)at_most, (int)neighbours_copies (n, "places"),
                  failed);
  g_assert_cmpuint (failed, <=, (guint64)neighbours_copies (n, "lost") * PLACE_PAGES);
  g_assert_cmpuint (failed + 8 * MIB / BLK_PAGE, >=, (guint64)neighbours_copies (n, "lost") * PLACE_PAGES);
  load_check_all (&n->load); /* the same ones again, and all others are right */
}

static const struct second_case {
  const char *name, *mode, *rate;
  bool is_safe; /* there is a copy in storage of all */
  bool is_long;
} second_cases[] = {
  { "/cluster/loss/second-failure", "ssd", "--repair-rate=16M", true, true },
  { "/cluster/loss/second-failure-mirror", "mirror", "--repair-rate=24M", false, false },
};

/* The second one dies in the middle of the first one's re-protection, which is made slow for that. */
static void
second_failure (gconstpointer data) {
  const struct second_case *one = data;
  int64_t both, repaired, lacking;
  unsigned third, first, second;
  struct neighbours n;

  begin (&n, one->mode, 64 * MIB, one->rate);
  neighbours_wait_protected (&n);
  third = find_third (&n);
  first = (third + 1) % 3;
  second = (third + 2) % 3;
  both = neighbours_copies (&n, "places") - copies_with (&n, third);
  repaired = neighbours_copies (&n, "repaired-bytes");
  neighbours_kill (&n, first);
  NEIGHBOURS_UNTIL (neighbours_copies (&n, "repaired-bytes") > repaired, "copies are made again");
  lacking = neighbours_copies (&n, "degraded");
  neighbours_kill (&n, second);
  g_test_message ("%d places lack a copy when the second donor dies", (int)lacking);
  neighbours_return (&n, first, 0);
  neighbours_return (&n, second, 0);
  if (one->is_safe) {
    load_run (&n.load, 300);
    neighbours_wait_protected (&n);
    neighbours_check (&n);
    neighbours_end (&n);
    return;
  }
  neighbours_wait_attached (&n);
  check_lost (&n, 0, both); /* but for what had been made again */
  end (&n);
}

/* Of a mirror's three places two have a copy with each donor: what is not with the third was with the two that die. */
static void
two_at_once (void) {
  unsigned third;
  int64_t both;
  struct neighbours n;

  begin (&n, "mirror", 32 * MIB, NULL);
  /* What was written before all three had lent enough has a copy in storage instead, and is written anew. */
  NEIGHBOURS_UNTIL ((neighbours_wait_protected (&n), neighbours_copies (&n, "in-storage") == 0)
                      || (load_write_all (&n.load, 0, n.load.n_pages, LOAD_RANDOM), false),
                    "all copies are with donors");
  third = find_third (&n);
  both = neighbours_copies (&n, "places") - copies_with (&n, third);
  g_assert_cmpint (both, >, 0);
  neighbours_kill (&n, (third + 1) % 3);
  neighbours_kill (&n, (third + 2) % 3);
  neighbours_return (&n, (third + 1) % 3, 0);
  neighbours_return (&n, (third + 2) % 3, 0);
  NEIGHBOURS_UNTIL (neighbours_copies (&n, "lost") > 0, "it is known what is lost");
  neighbours_wait_attached (&n);
  check_lost (&n, 1, both); /* but for places in which nothing lived any more: nobody misses those */
  end (&n);
}

static const struct most_case {
  const char *name, *mode;
  unsigned blocks[3]; /* of the arenas */
  int percent;        /* of all copies that are lent: the first donor's, at least */
  bool is_long;
} most_cases[] = {
  { "/cluster/loss/most", "ssd", { 64, 12, 12 }, 60, false },
  { "/cluster/loss/most-mirror", "mirror", { 64, 22, 22 }, 25, true }, /* all copies are the donors' */
};

/* The donor dies that had most, for the others came late, or one whose copies do not fit elsewhere: the others take what does,
 * storage takes the rest, and that is all that is done. */
static void
most (gconstpointer data) {
  static const char *const arguments[] = { "--donor-away=1", NULL };
  const struct most_case *one = data;
  const bool is_mirror = g_str_equal (one->mode, "mirror");
  struct neighbours n;
  int64_t places, had, all, others, before, in_storage, failed;
  gint64 began;

  neighbours_lend (&n, 3, one->blocks, false);
  for (unsigned d = 1; d < 3 && !is_mirror; d++)
    neighbours_kill (&n, d);
  neighbours_borrow (&n, &(struct neighbours_options){ .mode = one->mode, .bytes = 64 * MIB, .arguments = arguments });
  NEIGHBOURS_UNTIL (neighbours_donor (&n, 0, "level") > 0, "it has been lent something");
  if (!is_mirror)
    load_write_all (&n.load, 0, n.load.n_pages / 2, LOAD_RANDOM);
  for (unsigned d = 1; d < 3 && !is_mirror; d++)
    neighbours_return (&n, d, one->blocks[d]);
  NEIGHBOURS_UNTIL (neighbours_donor (&n, 1, "level") > 0 && neighbours_donor (&n, 2, "level") > 0, "they have come");
  load_write_all (&n.load, is_mirror ? 0 : n.load.n_pages / 2, n.load.n_pages / (is_mirror ? 1 : 2), LOAD_RANDOM);
  neighbours_wait_protected (&n);
  places = neighbours_copies (&n, "places");
  had = copies_with (&n, 0);
  all = had + copies_with (&n, 1) + copies_with (&n, 2);
  g_assert_cmpint (had * 100, >=, all * one->percent);
  before = neighbours_copies (&n, "in-storage"); /* of a mirror's, what came when nothing had been granted yet */
  neighbours_kill (&n, 0);
  began = g_get_monotonic_time ();
  NEIGHBOURS_UNTIL (neighbours_copies (&n, "degraded") + neighbours_copies (&n, "endangered") > 0, "it is noticed");
  NEIGHBOURS_UNTIL (copies_with (&n, 1) + copies_with (&n, 2) == one->blocks[1] + one->blocks[2], "the others take what fits");
  NEIGHBOURS_UNTIL (neighbours_copies (&n, "endangered") == 0, "all have a copy that counts");
  neighbours_wait_quiet (&n);
  others = copies_with (&n, 1) + copies_with (&n, 2);
  in_storage = neighbours_copies (&n, "in-storage");
  g_test_message (
      "of %d places, %d of %d copies were with the donor that died; %d ms later %d are with the others, %d in storage",
      (int)places, (int)had, (int)all, (int)((g_get_monotonic_time () - began) / 1000), (int)others, (int)in_storage);
  g_assert_cmpint (in_storage + (is_mirror ? others : places), >=, 2 * places); /* two copies of each */
  g_assert_true (!is_mirror || in_storage > before);
  failed = neighbours_copies (&n, "repairs-failed");
  neighbours_check (&n);
  g_assert_cmpint (neighbours_copies (&n, "repairs-failed"), ==, failed); /* nothing is tried again and again */
  load_run (&n.load, 200);
  neighbours_return (&n, 0, one->blocks[0]);
  NEIGHBOURS_UNTIL (copies_with (&n, 0) > 0, "it is back");
  if (!is_mirror)
    neighbours_wait_protected (&n);
  else /* a place that is with the first one alone finds the two others full: storage stands in */
    NEIGHBOURS_UNTIL (neighbours_copies (&n, "degraded") < places / 4, "most have two donors again");
  neighbours_wait_quiet (&n);
  neighbours_check (&n);
  neighbours_end (&n);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  for (unsigned i = 0; i < G_N_ELEMENTS (second_cases); i++)
    if (!neighbours_leave_out (second_cases[i].is_long))
      g_test_add_data_func (second_cases[i].name, &second_cases[i], second_failure);
  g_test_add_func ("/cluster/loss/two-at-once", two_at_once);
  for (unsigned i = 0; i < G_N_ELEMENTS (most_cases); i++)
    if (!neighbours_leave_out (most_cases[i].is_long))
      g_test_add_data_func (most_cases[i].name, &most_cases[i], most);
  return g_test_run ();
}
