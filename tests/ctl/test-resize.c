/* SPDX-License-Identifier: GPL-2.0-or-later */
/* When growing and shrinking end, and why: each case is a story of figures at times. */
#include "ctl/resize.h"
#include "testing.h"

#include <string.h>

#define GOAL 512u
#define START 64u
#define TIMEOUT_MS 60000

/* A VM that is in order, with START blocks and the target at the goal. */
static VmStatus
good_status (guint64 granted, guint64 target) {
  return (VmStatus){
    .block_bytes = 2u << 20,
    .window_blocks = 2048,
    .max_blocks = 1024,
    .granted_blocks = granted,
    .have_target = TRUE,
    .target_blocks = target,
    .connected = TRUE,
    .window_mapped = TRUE,
    .session = TRUE,
    .requests = 10,
    .host_limit_blocks = 4096,
    .host_reserve_bytes = 1u << 30,
    .refused_age_ms = VM_UNKNOWN,
    .stats_age_ms = VM_UNKNOWN,
    .mem_available_bytes = VM_UNKNOWN,
    .blocks_stuck = VM_UNKNOWN,
  };
}

typedef struct {
  Resize resize;
  VmStatus status;
  ResizeOutcome outcome;
} Story;

static void
begin (Story *story, guint64 start, guint64 goal) {
  story->status = good_status (start, goal);
  story->status.target_blocks = MIN (goal, story->status.max_blocks);
  resize_begin (&story->resize, &story->status, goal, FALSE, 0, TIMEOUT_MS);
}

static void
look (Story *story, gint64 now_ms) {
  resize_look (&story->resize, &story->status, now_ms, &story->outcome);
}

/* Looks every 100 ms until it ends; returns when that was. */
static gint64
watch (Story *story, gint64 from_ms) {
  gint64 now_ms = from_ms;

  for (look (story, now_ms); story->outcome.verdict == RESIZE_GOES_ON; look (story, now_ms)) {
    now_ms += 100;
    if (story->status.stats_age_ms != VM_UNKNOWN)
      story->status.stats_age_ms += 100;
    if (story->status.refused_age_ms != VM_UNKNOWN)
      story->status.refused_age_ms += 100;
    g_assert_cmpint (now_ms, <=, TIMEOUT_MS + 1000);
  }
  return now_ms;
}

#define must_end_short(story, why)                                                                                             \
  do {                                                                                                                         \
    g_assert_cmpint ((story).outcome.verdict, ==, RESIZE_SHORT);                                                               \
    g_assert_cmpstr (resize_reason_name ((story).outcome.reason), ==, resize_reason_name (why));                               \
  } while (0)

static void
reaches_the_goal (void) {
  Story story;

  begin (&story, START, GOAL);
  look (&story, 10);
  g_assert_cmpint (story.outcome.verdict, ==, RESIZE_GOES_ON);
  for (guint64 granted = START; granted < GOAL; granted++) {
    story.status.granted_blocks = granted;
    look (&story, (gint64)granted * 100); /* well after all patience, but it moves */
    g_assert_cmpint (story.outcome.verdict, ==, RESIZE_GOES_ON);
  }
  story.status.granted_blocks = GOAL;
  look (&story, 59000);
  g_assert_cmpint (story.outcome.verdict, ==, RESIZE_REACHED);
  g_assert_cmpuint (story.outcome.reached_blocks, ==, GOAL);
  g_assert_null (resize_reason_name (story.outcome.reason));
}

static void
is_there_already (void) {
  Story story;

  begin (&story, GOAL, GOAL);
  look (&story, 0);
  g_assert_cmpint (story.outcome.verdict, ==, RESIZE_REACHED);
  g_assert_true (resize_progress (&story.resize) == 1);
}

static void
shrinks_to_or_below (void) {
  Story story;

  begin (&story, GOAL, START);
  look (&story, 0);
  g_assert_cmpint (story.outcome.verdict, ==, RESIZE_GOES_ON);
  story.status.granted_blocks = START - 2;
  look (&story, 100);
  g_assert_cmpint (story.outcome.verdict, ==, RESIZE_REACHED);
  g_assert_cmpuint (story.outcome.reached_blocks, ==, START - 2);
}

/* Growing goes by sections: more than the goal comes back in a moment, and the end is what is reported. */
static void
waits_for_what_is_too_much (void) {
  Story story;

  begin (&story, START, GOAL);
  story.status.granted_blocks = GOAL + 30;
  look (&story, 100);
  g_assert_cmpint (story.outcome.verdict, ==, RESIZE_GOES_ON);
  story.status.granted_blocks = GOAL;
  look (&story, 200);
  g_assert_cmpint (story.outcome.verdict, ==, RESIZE_REACHED);

  begin (&story, START, GOAL);
  story.status.granted_blocks = GOAL + 30;
  look (&story, 100);
  g_assert_cmpint (watch (&story, 200), <, 3000);
  g_assert_cmpint (story.outcome.verdict, ==, RESIZE_REACHED);
  g_assert_cmpuint (story.outcome.reached_blocks, ==, GOAL + 30);
}

static void
ends_at_the_vms_maximum (void) {
  Story story;

  begin (&story, START, 2000);
  look (&story, 10);
  g_assert_cmpint (story.outcome.verdict, ==, RESIZE_GOES_ON);
  story.status.granted_blocks = 1024;
  look (&story, 20);
  must_end_short (story, RESIZE_CAPACITY);
  g_assert_cmpuint (story.outcome.reached_blocks, ==, 1024);
}

static void
ends_with_the_hosts_refusal (void) {
  static const struct {
    const char *name;
    ResizeReason reason;
  } cases[] = {
    { "capacity", RESIZE_CAPACITY },
    { "host-limit", RESIZE_HOST_LIMIT },
    { "host-memory", RESIZE_HOST_MEMORY },
    { "populate", RESIZE_POPULATE },
    { "area", RESIZE_AREA },
    { "of-next-year", RESIZE_HOST_FAILED },
  };

  for (size_t i = 0; i < G_N_ELEMENTS (cases); i++) {
    Story story;

    begin (&story, START, GOAL);
    story.status.granted_blocks = 100;
    look (&story, 1000);
    story.status.refused_reason = (char *)cases[i].name;
    story.status.refused_age_ms = 0;
    g_assert_cmpint (watch (&story, 1100), <, 6000);
    must_end_short (story, cases[i].reason);
    g_assert_cmpuint (story.outcome.reached_blocks, ==, 100);
  }
}

/* What was refused before the last block came explains nothing; nor does what the driver gets over by itself. */
static void
does_not_end_with_an_old_refusal (void) {
  Story story;

  begin (&story, START, GOAL);
  story.status.refused_reason = (char *)"host-limit";
  story.status.refused_age_ms = 20000;
  look (&story, 100);
  look (&story, 5000);
  g_assert_cmpint (story.outcome.verdict, ==, RESIZE_GOES_ON);
  story.status.refused_reason = (char *)"host-busy";
  story.status.refused_age_ms = 10;
  look (&story, 6000);
  g_assert_cmpint (story.outcome.verdict, ==, RESIZE_GOES_ON);
}

static void
ends_without_a_driver (void) {
  Story story;

  begin (&story, START, GOAL);
  story.status.session = FALSE;
  story.status.granted_blocks = 0;
  g_assert_cmpint (watch (&story, 0), <=, 6000);
  must_end_short (story, RESIZE_NO_DRIVER);

  begin (&story, START, GOAL);
  story.status.connected = story.status.session = FALSE;
  g_assert_cmpint (watch (&story, 0), <=, 6000);
  must_end_short (story, RESIZE_NOT_CONNECTED);
}

/* A guest that reboots has no session for a while. */
static void
waits_for_a_driver (void) {
  Story story;

  begin (&story, 0, GOAL);
  story.status.session = FALSE;
  look (&story, 4000);
  g_assert_cmpint (story.outcome.verdict, ==, RESIZE_GOES_ON);
  story.status.session = TRUE;
  look (&story, 4900);
  story.status.granted_blocks = GOAL;
  look (&story, 7000);
  g_assert_cmpint (story.outcome.verdict, ==, RESIZE_REACHED);
}

static void
ends_with_a_paused_guest (void) {
  Story story;

  story.status = good_status (START, GOAL);
  resize_begin (&story.resize, &story.status, GOAL, TRUE, 0, TIMEOUT_MS);
  g_assert_cmpint (watch (&story, 0), <=, 4000);
  must_end_short (story, RESIZE_PAUSED);
}

static void
ends_with_a_silent_guest (void) {
  Story story;

  begin (&story, START, GOAL);
  g_assert_cmpint (watch (&story, 0), <=, 15000);
  must_end_short (story, RESIZE_GUEST_SILENT);
  begin (&story, GOAL, START);
  g_assert_cmpint (watch (&story, 0), <=, 15000);
  must_end_short (story, RESIZE_GUEST_SILENT);
}

static void
ends_with_stuck_blocks (void) {
  Story story;

  begin (&story, GOAL, START);
  story.status.granted_blocks = 200;
  look (&story, 1000);
  story.status.blocks_stuck = 200 - START;
  story.status.stats_age_ms = 0;
  story.status.requests++;
  g_assert_cmpint (watch (&story, 2000), <=, 5000);
  must_end_short (story, RESIZE_STUCK);
  g_assert_cmpuint (story.outcome.stuck_blocks, ==, 200 - START);
  g_assert_cmpuint (story.outcome.reached_blocks, ==, 200);
}

/* Figures from before the target say nothing about it. */
static void
does_not_believe_old_figures (void) {
  Story story;

  begin (&story, GOAL, START);
  story.status.blocks_stuck = 7;
  story.status.stats_age_ms = 5000;
  look (&story, 4000);
  g_assert_cmpint (story.outcome.verdict, ==, RESIZE_GOES_ON);
}

static void
ends_with_a_guest_that_needs_it (void) {
  Story story;

  begin (&story, GOAL, START);
  look (&story, 100);
  look (&story, 4000);
  g_assert_cmpint (story.outcome.verdict, ==, RESIZE_GOES_ON);
  story.status.blocks_stuck = 0;
  story.status.stats_age_ms = 3000; /* it may not have seen the target then */
  look (&story, 4050);
  g_assert_cmpint (story.outcome.verdict, ==, RESIZE_GOES_ON);
  story.status.stats_age_ms = 100;
  story.status.requests++;
  look (&story, 4100);
  must_end_short (story, RESIZE_GUEST_NEEDS);
}

/* It finds a block now and then: that is no reason to wait on. */
static void
ends_with_a_trickle (void) {
  Story story;
  gint64 now_ms = 0;

  begin (&story, GOAL, START);
  story.status.granted_blocks = 215;
  do {
    now_ms += 500;
    if (now_ms % 2500 == 0)
      story.status.granted_blocks--;
    if (now_ms % 10000 == 0) {
      story.status.requests++;
      story.status.blocks_stuck = 0;
      story.status.stats_age_ms = 0;
    }
    look (&story, now_ms);
  } while (story.outcome.verdict == RESIZE_GOES_ON);
  must_end_short (story, RESIZE_GUEST_NEEDS);
  g_assert_cmpint (now_ms, <=, 10500);
  g_assert_cmpuint (story.outcome.reached_blocks, ==, story.status.granted_blocks);
}

static void
ends_with_a_guest_that_declines (void) {
  Story story;

  begin (&story, START, GOAL);
  look (&story, 1000);
  story.status.requests++;
  g_assert_cmpint (watch (&story, 5000), <=, 11000);
  must_end_short (story, RESIZE_GUEST_DECLINES);
}

static void
ends_when_somebody_changes_the_target (void) {
  Story story;

  begin (&story, START, GOAL);
  look (&story, 100);
  story.status.target_blocks = 3;
  look (&story, 200);
  must_end_short (story, RESIZE_TARGET_CHANGED);
  begin (&story, START, GOAL);
  story.status.have_target = FALSE;
  look (&story, 200);
  must_end_short (story, RESIZE_TARGET_CHANGED);
}

/* Somebody who always moves a bit still has an end. */
static void
ends_in_bounded_time (void) {
  Story story;
  gint64 now_ms = 0;

  begin (&story, START, GOAL);
  do {
    now_ms += 2000;
    story.status.granted_blocks += 5;
    look (&story, now_ms);
  } while (story.outcome.verdict == RESIZE_GOES_ON);
  g_assert_cmpint (now_ms, ==, TIMEOUT_MS);
  must_end_short (story, RESIZE_TIMEOUT);
}

/* Whatever the figures do, it ends by the deadline, says what the figures say, and claims nothing that is not so. */
static void
ends_whatever_happens (void) {
  static const char *const refusals[] = { NULL, "capacity", "host-limit", "runs", "?" };
  g_autoptr (GRand) rand = testing_rand ();

  for (unsigned step = 0; step < testing_steps (3000); step++) {
    const guint64 goal = testing_below (rand, 1500), start = testing_below (rand, 1024);
    Story story;
    gint64 now_ms = 0;

    begin (&story, start, goal);
    do {
      now_ms += (gint64)testing_below (rand, 4000);
      if (testing_once_in (rand, 2))
        story.status.granted_blocks = testing_below (rand, 1025);
      story.status.session = !testing_once_in (rand, 6);
      story.status.connected = !testing_once_in (rand, 6);
      story.status.requests += testing_below (rand, 2);
      story.status.refused_reason = (char *)refusals[testing_below (rand, G_N_ELEMENTS (refusals))];
      story.status.refused_age_ms = testing_edgy (rand);
      story.status.stats_age_ms = testing_edgy (rand);
      story.status.blocks_stuck = testing_edgy (rand) >> 24;
      look (&story, now_ms);
      g_assert_true (resize_progress (&story.resize) >= 0 && resize_progress (&story.resize) <= 1);
      g_assert_cmpint (now_ms, <=, TIMEOUT_MS + 8000);
    } while (story.outcome.verdict == RESIZE_GOES_ON);
    g_assert_cmpuint (story.outcome.reached_blocks, ==, story.status.granted_blocks);
    if (story.outcome.verdict == RESIZE_REACHED)
      g_assert_true (goal > start ? story.status.granted_blocks >= goal : story.status.granted_blocks <= goal);
    g_assert_cmpint (story.outcome.verdict == RESIZE_SHORT, ==, story.outcome.reason != RESIZE_NO_REASON);
  }
}

static void
explains_each_reason (void) {
  const VmStatus status = good_status (100, 200);

  for (ResizeReason reason = RESIZE_NO_REASON + 1; reason < RESIZE_REASONS; reason++) {
    g_autofree char *text = resize_explain (reason, &status, 5, "vm1");

    g_assert_nonnull (resize_reason_name (reason));
    g_assert_nonnull (strstr (text, "; ")); /* cause; next step */
    g_assert_false (g_str_has_suffix (text, "."));
    g_assert_null (strchr (text, '\n'));
    g_assert_null (strstr (text, "18446744073709551615"));
  }
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/resize/reaches-the-goal", reaches_the_goal);
  g_test_add_func ("/resize/is-there-already", is_there_already);
  g_test_add_func ("/resize/shrinks-to-or-below", shrinks_to_or_below);
  g_test_add_func ("/resize/waits-for-what-is-too-much", waits_for_what_is_too_much);
  g_test_add_func ("/resize/ends-at-the-vms-maximum", ends_at_the_vms_maximum);
  g_test_add_func ("/resize/ends-with-the-hosts-refusal", ends_with_the_hosts_refusal);
  g_test_add_func ("/resize/does-not-end-with-an-old-refusal", does_not_end_with_an_old_refusal);
  g_test_add_func ("/resize/ends-without-a-driver", ends_without_a_driver);
  g_test_add_func ("/resize/waits-for-a-driver", waits_for_a_driver);
  g_test_add_func ("/resize/ends-with-a-paused-guest", ends_with_a_paused_guest);
  g_test_add_func ("/resize/ends-with-a-silent-guest", ends_with_a_silent_guest);
  g_test_add_func ("/resize/ends-with-stuck-blocks", ends_with_stuck_blocks);
  g_test_add_func ("/resize/does-not-believe-old-figures", does_not_believe_old_figures);
  g_test_add_func ("/resize/ends-with-a-guest-that-needs-it", ends_with_a_guest_that_needs_it);
  g_test_add_func ("/resize/ends-with-a-trickle", ends_with_a_trickle);
  g_test_add_func ("/resize/ends-with-a-guest-that-declines", ends_with_a_guest_that_declines);
  g_test_add_func ("/resize/ends-when-somebody-changes-the-target", ends_when_somebody_changes_the_target);
  g_test_add_func ("/resize/ends-in-bounded-time", ends_in_bounded_time);
  g_test_add_func ("/resize/ends-whatever-happens", ends_whatever_happens);
  g_test_add_func ("/resize/explains-each-reason", explains_each_reason);
  return g_test_run ();
}
