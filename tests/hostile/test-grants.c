/* SPDX-License-Identifier: GPL-2.0-or-later */
/* GRANT, RELEASE and STATS with wrong contents: BAD_REQUEST (or what the case says), and nothing is granted or taken back. */
#include "request-bytes.h"

#include <endian.h>
#include <string.h>

#define PAGE 4096u
#define WINDOW RIG_WINDOW_BLOCKS
#define USABLE (RIG_WINDOW_BLOCKS - RIG_SECTION_BLOCKS)

/* ---- GRANT ---- */

static void
grant_with_nonsense (struct rig *rig, const void *data) {
  static const struct {
    uint32_t hint, flags;
    uint64_t blocks, area_start, area_blocks;
  } cases[] = {
    { 4, 0, 1, 0, 0 },
    { UINT32_MAX, 0, 1, 0, 0 },
    { 0, 4, 1, 0, 0 },
    { 0, 0x80000000u, 1, 0, 0 },
    { 0, 0, 0, 0, 0 },
    { 0, 0, WINDOW + 1, 0, 0 },
    { 0, 0, 1ull << 32, 0, 0 }, /* 0 when cut to 32 bits */
    { 0, 0, (1ull << 32) + 1, 0, 0 },
    { 0, 0, 1ull << 63, 0, 0 },
    { 0, 0, UINT64_MAX, 0, 0 },
    { 0, 0, 1, 1, 0 }, /* a start without an area */
    { 0, 0, 1, WINDOW, 1 },
    { 0, 0, 1, WINDOW - 1, 2 },
    { 0, 0, 1, 0, WINDOW + 1 },
    { 0, 0, 1, 1, UINT64_MAX }, /* start + size wraps to 0 */
    { 0, 0, 1, UINT64_MAX, 2 },
    { 0, 0, 1, 1ull << 63, 1ull << 63 },
    { 0, 0, 1, UINT64_MAX, UINT64_MAX },
  };
  g_autoptr (fe_t) fe = rig_open (rig);

  for (size_t i = 0; i < G_N_ELEMENTS (cases); i++) {
    struct bytes bytes;

    put_header (&bytes, DOMYBS_REQ_GRANT, 0, 1, fe->session, 1);
    put (&bytes, cases[i].hint, 4);
    put (&bytes, cases[i].flags, 4);
    put (&bytes, cases[i].blocks, 8);
    put (&bytes, cases[i].area_start, 8);
    put (&bytes, cases[i].area_blocks, 8);
    expect_status (fe, &bytes, DOMYBS_BAD_REQUEST);
  }
  g_assert_cmpint (backend_status (rig->backend, "granted-blocks"), ==, 0);
}

static void
grant_more_than_there_is (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open (rig);
  struct fe_answer answer;

  fe_must (fe, fe_grant (fe, USABLE + 1, DOMYBS_HINT_ANY, DOMYBS_GRANT_F_ALL, 0, 0, &answer));
  g_assert_cmpuint (answer.status, ==, DOMYBS_NO_VM_CAPACITY);
  g_assert_cmpuint (answer.granted, ==, 0);
  fe_must (fe, fe_grant (fe, WINDOW, DOMYBS_HINT_ANY, 0, 0, 0, &answer));
  g_assert_cmpuint (answer.status, ==, DOMYBS_OK);
  g_assert_cmpuint (answer.blocks, ==, USABLE);
  for (uint32_t i = 0; i < answer.count; i++)
    g_assert_cmpuint (answer.runs[i].start + answer.runs[i].count, <=, USABLE);
  fe_must (fe, fe_grant (fe, 1, DOMYBS_HINT_ANY, 0, 0, 0, &answer));
  g_assert_cmpuint (answer.status, ==, DOMYBS_NO_VM_CAPACITY);
  g_assert_cmpuint (answer.granted, ==, USABLE);
}

static void
grant_in_the_last_section (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open (rig);
  struct fe_answer answer;

  fe_must (fe, fe_grant (fe, 1, DOMYBS_HINT_ANY, 0, USABLE, RIG_SECTION_BLOCKS, &answer));
  g_assert_cmpuint (answer.status, ==, DOMYBS_NO_VM_CAPACITY);
  fe_must (fe, fe_grant (fe, 2, DOMYBS_HINT_ANY, 0, USABLE - 1, RIG_SECTION_BLOCKS, &answer));
  g_assert_cmpuint (answer.status, ==, DOMYBS_OK);
  g_assert_cmpuint (answer.blocks, ==, 1);
}

static void
grant_all_or_nothing (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open (rig);
  struct fe_answer answer;
  struct domybs_run run;

  fe_must (fe, fe_grant (fe, 60, DOMYBS_HINT_ANY, DOMYBS_GRANT_F_ALL, 128, 64, &answer));
  g_assert_cmpuint (answer.blocks, ==, 60);
  run = answer.runs[0];
  fe_must (fe, fe_grant (fe, 5, DOMYBS_HINT_ANY, DOMYBS_GRANT_F_ALL, 128, 64, &answer));
  g_assert_cmpuint (answer.status, ==, DOMYBS_NO_VM_CAPACITY);
  g_assert_cmpuint (answer.granted, ==, 60);
  fe_must (fe, fe_grant (fe, 64, DOMYBS_HINT_ANY, DOMYBS_GRANT_F_ALL | DOMYBS_GRANT_F_SECTION, 128, 64, &answer));
  g_assert_cmpuint (answer.status, ==, DOMYBS_NO_VM_CAPACITY); /* the section is not wholly ungranted */
  fe_must (fe, fe_release (fe, &run, 1, &answer));
  fe_must (fe, fe_grant (fe, 64, DOMYBS_HINT_ANY, DOMYBS_GRANT_F_ALL | DOMYBS_GRANT_F_SECTION, 128, 64, &answer));
  g_assert_cmpuint (answer.status, ==, DOMYBS_OK);
  g_assert_cmpuint (answer.runs[0].start, ==, 128);
  g_assert_cmpuint (answer.blocks, ==, 64);
}

static void
grant_of_a_tier_that_is_not_there (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open (rig);
  struct fe_answer answer;

  fe_must (fe, fe_grant (fe, 1, DOMYBS_HINT_SHARED, 0, 0, 0, &answer));
  g_assert_cmpuint (answer.status, ==, DOMYBS_NO_TIER);
  fe_must (fe, fe_grant (fe, 1, DOMYBS_HINT_REMOTE, DOMYBS_GRANT_F_ALL, 0, 0, &answer));
  g_assert_cmpuint (answer.status, ==, DOMYBS_NO_TIER);
  g_assert_cmpuint (answer.granted, ==, 0);
}

/* The window is in pieces, so that an answer needs many runs: what does not fit the buffer is not granted either. */
static void
reply_larger_than_the_guests_buffer (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open (rig);
  struct domybs_run holes[DOMYBS_RUNS_MAX];
  struct fe_answer answer;
  uint8_t request[PAGE];
  size_t n;

  fe_must (fe, fe_grant (fe, 512, DOMYBS_HINT_ANY, DOMYBS_GRANT_F_ALL, 0, 0, &answer));
  for (unsigned i = 0; i < G_N_ELEMENTS (holes); i++)
    holes[i] = (struct domybs_run){ answer.runs[0].start + 2 * i, 1 };
  fe_must (fe, fe_release (fe, holes, G_N_ELEMENTS (holes), &answer));
  g_assert_cmpuint (answer.granted, ==, 512 - 128);

  for (unsigned room = 0; room < 4; room++) {
    const uint32_t cap = (uint32_t)(sizeof (struct domybs_response) + room * sizeof (struct domybs_run)
                                    + (room ? 15 : 0)); /* not quite one more */
    uint8_t *buffer = fe_at (fe, fe_response_gpa (0));

    n = fe_encode_grant (fe, request, 0, 100, DOMYBS_HINT_ANY, 0, 0, 256);
    fe_submit (fe, 0, request, n, cap);
    fe_must (fe, fe_complete (fe, 0, &answer, fe_patience_ms ()));
    g_assert_cmpuint (answer.status, ==, room ? DOMYBS_OK : DOMYBS_BAD_REQUEST);
    g_assert_cmpuint (answer.count, ==, room);
    g_assert_cmpuint (answer.blocks, ==, room);
    for (size_t i = cap; i < PAGE; i++)
      g_assert_cmpuint (buffer[i], ==, 0xee);
  }
  /* a repetition into a smaller buffer than the first had */
  n = fe_encode_grant (fe, request, 0, 8, DOMYBS_HINT_ANY, 0, 0, 256);
  fe_must (fe, fe_call (fe, request, n, &answer));
  g_assert_cmpuint (answer.count, ==, 8);
  const uint64_t granted = answer.granted;
  fe_submit (fe, 0, request, n, sizeof (struct domybs_response));
  fe_must (fe, fe_complete (fe, 0, &answer, fe_patience_ms ()));
  g_assert_cmpuint (answer.status, ==, DOMYBS_BAD_REQUEST);
  g_assert_cmpuint (answer.granted, ==, granted);
}

/* ---- RELEASE ---- */

static void
release_with_nonsense (struct rig *rig, const void *data) {
  static const struct domybs_run cases[] = {
    { WINDOW, 1 },
    { WINDOW - 1, 2 },
    { 0, 0 },
    { 0, WINDOW + 1 },
    { 0, UINT64_MAX },
    { 1, UINT64_MAX },            /* start + count wraps to 0 */
    { UINT64_MAX, 1 },
    { UINT64_MAX, UINT64_MAX },
    { 1ull << 63, 1 },            /* negative as a signed number */
    { 1ull << 43, 1 },            /* wraps to 0 when shifted to bytes */
    { (1ull << 32) + 1, 1 },      /* 1 when cut to 32 bits */
    { USABLE, RIG_SECTION_BLOCKS }, /* in the window, never granted */
    { 9, 2 },                     /* half of it is granted */
    { 10, 1 },                    /* not granted */
    { 0, 11 },
  };
  g_autoptr (fe_t) fe = rig_open (rig);
  struct fe_answer answer;

  fe_must (fe, fe_grant (fe, 10, DOMYBS_HINT_ANY, DOMYBS_GRANT_F_ALL, 0, 64, &answer));
  g_assert_cmpuint (answer.runs[0].start, ==, 0);
  for (size_t i = 0; i < G_N_ELEMENTS (cases); i++) {
    struct domybs_run runs[2] = { { 0, 1 }, cases[i] };

    fe_must (fe, fe_release (fe, &cases[i], 1, &answer));
    g_assert_cmpuint (answer.status, ==, DOMYBS_BAD_REQUEST);
    /* the good run before the bad one is not released either */
    fe_must (fe, fe_release (fe, runs, 2, &answer));
    g_assert_cmpuint (answer.status, ==, DOMYBS_BAD_REQUEST);
    g_assert_cmpuint (answer.granted, ==, 10);
  }
}

static void
release_twice (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open (rig);
  const struct domybs_run once = { 3, 2 }, twice[] = { { 6, 1 }, { 6, 1 } }, overlapping[] = { { 5, 3 }, { 7, 2 } };
  struct fe_answer answer;

  fe_must (fe, fe_grant (fe, 10, DOMYBS_HINT_ANY, DOMYBS_GRANT_F_ALL, 0, 64, &answer));
  fe_must (fe, fe_release (fe, &once, 1, &answer));
  g_assert_cmpuint (answer.status, ==, DOMYBS_OK);
  fe_must (fe, fe_release (fe, &once, 1, &answer));
  g_assert_cmpuint (answer.status, ==, DOMYBS_BAD_REQUEST);
  fe_must (fe, fe_release (fe, twice, 2, &answer));
  g_assert_cmpuint (answer.status, ==, DOMYBS_BAD_REQUEST);
  fe_must (fe, fe_release (fe, overlapping, 2, &answer));
  g_assert_cmpuint (answer.status, ==, DOMYBS_BAD_REQUEST);
  g_assert_cmpuint (answer.granted, ==, 8);
  g_assert_cmpint (backend_status (rig->backend, "granted-blocks"), ==, 8);
}

/* ---- STATS ---- */

static void
stats_tags_as_indexes (struct rig *rig, const void *data) {
  static const uint32_t tags[] = { 0, 14, 31, 32, 33, 63, 64, 1000, 0x7fffffff, 0x80000000u, UINT32_MAX };
  g_autoptr (fe_t) fe = rig_open (rig);
  struct domybs_stat stats[DOMYBS_STATS_MAX] = { 0 };
  struct fe_answer answer;

  for (size_t i = 0; i < G_N_ELEMENTS (tags); i++) {
    for (size_t k = 0; k < G_N_ELEMENTS (stats); k++)
      stats[k] = (struct domybs_stat){ tags[i], UINT32_MAX, UINT64_MAX };
    fe_must (fe, fe_stats (fe, stats, G_N_ELEMENTS (stats), &answer));
    g_assert_cmpuint (answer.status, ==, DOMYBS_OK);
    backend_status (rig->backend, "granted-blocks"); /* prints them */
  }
}

int
main (int argc, char **argv) {
  g_test_init (&argc, &argv, NULL);
  rig_add ("/grants/grant-with-nonsense", grant_with_nonsense, NULL);
  rig_add ("/grants/grant-more-than-there-is", grant_more_than_there_is, NULL);
  rig_add ("/grants/grant-in-the-last-section", grant_in_the_last_section, NULL);
  rig_add ("/grants/grant-all-or-nothing", grant_all_or_nothing, NULL);
  rig_add ("/grants/grant-of-a-tier-that-is-not-there", grant_of_a_tier_that_is_not_there, NULL);
  rig_add ("/grants/reply-larger-than-the-guests-buffer", reply_larger_than_the_guests_buffer, NULL);
  rig_add ("/grants/release-with-nonsense", release_with_nonsense, NULL);
  rig_add ("/grants/release-twice", release_twice, NULL);
  rig_add ("/grants/stats-tags-as-indexes", stats_tags_as_indexes, NULL);
  return rig_run ();
}
