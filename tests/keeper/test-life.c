/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How the keeper keeps workers: who follows whom, when, with which program, and how it ends itself. */
#include "keeper-rig.h"

#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <glib/gstdio.h>

#define NO_SLOT KEEPER_NO_SLOT
#define MAIN KEEPER_MAIN

static void
put_state (struct hand *hand, uint64_t mark) {
  const int fd = new_eventfd (mark);

  hand_say (hand, &(struct keeper_message){ .type = KEEPER_PUT, .slot = KEEPER_SLOT_STATE }, "", fd);
  close (fd);
}

static void
good (struct hand *hand) {
  hand_say_type (hand, KEEPER_GOOD, 0, NO_SLOT, 0);
}

static void
replace (struct hand *hand, enum keeper_program program) {
  hand_say_type (hand, KEEPER_REPLACE, 0, NO_SLOT, program);
}

/* Kills it, and returns the next one, which runs. */
static struct hand *
next_after_kill (struct rig *rig, struct hand *hand) {
  hand_kill (hand);
  hand_free (hand);
  return rig_running_worker (rig);
}

static void
tells_a_first_worker (void) {
  const int64_t before = g_get_monotonic_time ();
  g_autoptr (rig_t) rig = rig_start (false);
  g_autoptr (hand_t) hand = rig_worker (rig);

  g_assert_cmpuint (hand->hello.has_state, ==, 0);
  g_assert_cmpuint (hand->hello.mode, ==, KEEPER_MODE_NORMAL);
  g_assert_cmpuint (hand->hello.connection, ==, 0);
  g_assert_cmpuint (hand->hello.is_connected, ==, 0);
  g_assert_cmpuint (hand->hello.accepts, ==, 1);
  g_assert_cmpuint (hand->hello.starts, ==, 1);
  g_assert_cmpuint (hand->hello.deaths, ==, 0);
  g_assert_cmpuint (hand->hello.last_death_us, ==, 0);
  g_assert_cmpint ((int64_t)hand->hello.started_us, >=, before);
  g_assert_null (hand_hear (hand, 50)); /* no slot before it is CHECKED */
  for (unsigned i = 0; i < KEEPER_SLOTS; i++)
    g_assert_cmpint (hand->slots[i], ==, -1);
  hand_check (hand);
  hand_go (hand);
  g_assert_cmpuint (mark_of (hand->slots[KEEPER_SLOT_CONTROL]), ==, 1001);
  g_assert_cmpuint (mark_of (hand->slots[KEEPER_SLOT_ACCOUNT]), ==, 1002);
  g_assert_cmpuint (hand->hello.starts, ==, 1);
}

static void
starts_another_at_once (void) {
  g_autoptr (rig_t) rig = rig_start (false);
  struct hand *hand = rig_running_worker (rig);
  int64_t longest = 0;
  unsigned fds;

  put_state (hand, 7);
  good (hand);
  hand_sync (hand, rig);
  fds = rig_fds (rig);
  for (unsigned i = 1; i <= 20; i++) {
    const int64_t killed = g_get_monotonic_time ();

    if (i % 4 == 0) {
      hand_exit (hand, 1);
      hand_free (hand);
      hand = rig_running_worker (rig);
    } else {
      hand = next_after_kill (rig, hand);
    }
    longest = MAX (longest, (int64_t)hand->seen_at_us - killed);
    g_assert_cmpuint (hand->hello.deaths, ==, i);
    g_assert_cmpuint (hand->hello.starts, ==, i + 1);
    g_assert_cmpuint (hand->hello.strikes, ==, 1);
    g_assert_cmpint ((int64_t)hand->hello.last_death_us, >=, killed);
    g_assert_cmpint (hand->hello.last_status, ==, i % 4 == 0 ? 1 << 8 : SIGKILL);
    g_assert_cmpuint (hand->hello.has_state, ==, 1);
    g_assert_cmpuint (mark_of (hand->slots[KEEPER_SLOT_STATE]), ==, 7);
    good (hand);
    hand_sync (hand, rig);
    g_assert_cmpuint (rig_fds (rig), ==, fds);
  }
  g_test_message ("the longest took %.1f ms", (double)longest / 1000);
  g_assert_true (rig_logged (rig, "died by signal 9 (Killed); 1 in a row, 1 in all: the next one starts"));
  g_assert_true (rig_logged (rig, "died by exit status 1; 1 in a row, 4 in all: the next one starts"));
  hand_free (hand);
}

/* The log of a day of deaths fits on a disk. */
static void
logs_a_few_deaths_only (void) {
  g_autoptr (rig_t) rig = rig_start (false);
  struct hand *hand = rig_running_worker (rig);
  const int64_t from = rig_now_ms ();
  unsigned lines;

  for (unsigned i = 0; i < 60; i++) {
    good (hand);
    hand = next_after_kill (rig, hand);
  }
  lines = rig_log_count (rig, " died by ");
  g_assert_cmpuint (lines, >=, 20);
  g_assert_cmpint (lines, <=, 21 + (rig_now_ms () - from) / 1000);
  hand_free (hand);
}

static void
is_busy_after_three_deaths (void) {
  g_autoptr (rig_t) rig = rig_start (false);
  struct hand *hand = rig_running_worker (rig);

  for (unsigned i = 0; i < 3; i++) {
    g_assert_cmpuint (hand->hello.mode, ==, KEEPER_MODE_NORMAL);
    hand = next_after_kill (rig, hand);
  }
  g_assert_cmpuint (hand->hello.mode, ==, KEEPER_MODE_BUSY);
  g_assert_cmpuint (hand->hello.hold_ms, ==, KEEPER_HOLD_FIRST_MS);
  g_assert_cmpuint (hand->hello.strikes, ==, 3);
  g_assert_true (rig_logged (rig, "3 in a row, 3 in all: the guest is told to wait for 1000 ms"));
  good (hand); /* being busy is nothing to be proud of */
  hand_exit (hand, KEEPER_EXIT_AGAIN);
  hand_free (hand);
  hand = rig_running_worker (rig);
  g_assert_cmpuint (hand->hello.mode, ==, KEEPER_MODE_NORMAL);
  g_assert_cmpuint (hand->hello.strikes, ==, 3);
  g_assert_cmpuint (hand->hello.deaths, ==, 3); /* that was none */
  hand = next_after_kill (rig, hand);
  g_assert_cmpuint (hand->hello.mode, ==, KEEPER_MODE_BUSY);
  g_assert_cmpuint (hand->hello.hold_ms, ==, 2 * KEEPER_HOLD_FIRST_MS);
  hand_exit (hand, KEEPER_EXIT_AGAIN);
  hand_free (hand);
  hand = rig_running_worker (rig);
  good (hand);
  for (unsigned i = 0; i < 3; i++)
    hand = next_after_kill (rig, hand);
  g_assert_cmpuint (hand->hello.hold_ms, ==, KEEPER_HOLD_FIRST_MS); /* all forgotten */
  /* without busy mode, AGAIN is a death as any other */
  hand_exit (hand, KEEPER_EXIT_AGAIN);
  hand_free (hand);
  hand = rig_running_worker (rig);
  good (hand);
  hand_exit (hand, KEEPER_EXIT_AGAIN);
  hand_free (hand);
  hand = rig_running_worker (rig);
  g_assert_cmpint (hand->hello.last_status, ==, KEEPER_EXIT_AGAIN << 8);
  hand_free (hand);
}

/* Not even busy mode lives: more and more slowly, and never more than a second without a try. */
static void
backs_off (void) {
  g_autoptr (rig_t) rig = rig_start (false);
  unsigned busy = 0, normal = 0;
  int64_t died_us = 0, longest = 0;

  for (unsigned i = 0; i < 13; i++) {
    struct hand *hand = rig_worker (rig);

    if (i > 0)
      longest = MAX (longest, (int64_t)hand->seen_at_us - died_us);
    *(hand->hello.mode == KEEPER_MODE_BUSY ? &busy : &normal) += 1;
    hand_kill (hand);
    died_us = g_get_monotonic_time ();
    hand_free (hand);
  }
  g_assert_cmpint (longest, >=, 900 * 1000);
  g_test_message ("the longest pause: %.1f ms", (double)longest / 1000);
  g_assert_cmpuint (busy, ==, 9);
  g_assert_cmpuint (normal, ==, 4); /* one was tried again in between */
  hand_free (rig_running_worker (rig));
}

static void
ends_with_its_worker (void) {
  struct rig *rig = rig_start (false);
  struct hand *hand = rig_running_worker (rig);

  hand_exit (hand, KEEPER_EXIT_DONE);
  g_assert_cmpint (rig_wait (rig), ==, 0);
  hand_free (hand);
  rig_free (rig);

  /* before GO, or after: a first one that can't begin is the end */
  for (unsigned i = 0; i < 2; i++) {
    rig = rig_start (false);
    hand = i ? rig_running_worker (rig) : rig_worker (rig);
    hand_exit (hand, KEEPER_EXIT_CANT);
    g_assert_cmpint (rig_wait (rig), ==, 1 << 8);
    g_assert_false (rig_logged (rig, "a")); /* it has said why itself */
    hand_free (hand);
    rig_free (rig);
  }

  /* later ones can't but should */
  rig = rig_start (false);
  hand = rig_running_worker (rig);
  good (hand);
  hand_exit (hand, KEEPER_EXIT_CANT);
  hand_free (hand);
  hand = rig_running_worker (rig);
  g_assert_cmpuint (hand->hello.deaths, ==, 1);
  hand_exit (hand, KEEPER_EXIT_CANT);
  hand_free (hand);
  hand = rig_worker (rig);
  g_assert_cmpuint (hand->hello.deaths, ==, 2);
  hand_free (hand);
  rig_free (rig);
}

static void
ends_on_signals (void) {
  static const int signals[] = { SIGTERM, SIGINT };

  for (unsigned i = 0; i < 4; i++) {
    g_autoptr (rig_t) rig = rig_start (false);
    g_autoptr (hand_t) hand = i < 2 ? rig_running_worker (rig) : rig_worker (rig);

    kill (rig->pid, signals[i % 2]);
    g_assert_cmpint (rig_wait (rig), ==, 0);
    g_assert_cmpint (kill (hand->pid, 0), ==, -1); /* nothing is left of it */
    g_assert_true (rig_logged (rig, "told to end\n"));
    g_assert_false (rig_logged (rig, "died"));
  }
}

/* Workers that ignore all they can must not outlive a keeper that was killed. */
static void
takes_workers_with_it (void) {
  g_autoptr (rig_t) rig = rig_start (false);
  g_autoptr (hand_t) hand = rig_running_worker (rig);
  g_autoptr (hand_t) next = NULL;

  replace (hand, KEEPER_PROGRAM_SAME);
  next = rig_worker (rig);
  kill (rig->pid, SIGKILL);
  g_assert_cmpint (rig_wait (rig), ==, SIGKILL);
  g_assert_true (peer_is_closed (hand->control, PATIENCE_MS));
  g_assert_true (peer_is_closed (next->control, PATIENCE_MS));
}

/* ---- replacing ---- */

static void
replaces_a_worker (void) {
  g_autoptr (rig_t) rig = rig_start (false);
  g_autoptr (hand_t) hand = rig_running_worker (rig);
  const int peer = rig_connect (rig);
  const struct heard *heard;

  hand_expect (hand, KEEPER_CONNECTED);
  put_state (hand, 9);
  replace (hand, KEEPER_PROGRAM_SAME);
  replace (hand, KEEPER_PROGRAM_SAME); /* impatient: still one */
  g_autoptr (hand_t) next = rig_worker (rig);
  g_assert_cmpuint (mark_of (next->slots[KEEPER_SLOT_STATE]), ==, 9);
  g_assert_cmpuint (next->inode, ==, hand->inode);

  /* the old one goes on in the meantime */
  peer_send (peer, "12345678", 8, NULL, 0);
  hand_want (hand, MAIN, 1, 0, 4);
  g_assert_cmpmem (hand_expect (hand, KEEPER_DATA)->bytes, 4, "1234", 4);
  hand_send (hand, MAIN, 1, 1, "one", 3, NO_SLOT);
  hand_sync (hand, rig);
  g_assert_cmpint (kill (hand->pid, 0), ==, 0);

  hand_check (next);
  hand_go (next);
  g_assert_true (peer_is_closed (hand->control, 0)); /* it was dead before */
  g_assert_cmpint (kill (hand->pid, 0), ==, -1);
  g_assert_cmpuint (next->hello.starts, ==, 2);
  g_assert_cmpuint (next->hello.deaths, ==, 0);
  g_assert_cmpuint (next->hello.is_connected, ==, 1);
  g_assert_cmpint (next->slots[KEEPER_SLOT_CONTROL], >=, 0);
  hand_send (next, MAIN, 1, 1, "one", 3, NO_SLOT);
  hand_send (next, MAIN, 1, 2, "two", 3, NO_SLOT);
  peer_expect (peer, "onetwo", 6);
  hand_want (next, MAIN, 1, 0, 8);
  heard = hand_expect (next, KEEPER_DATA);
  g_assert_cmpmem (heard->bytes, heard->message.n_bytes, "12345678", 8);
  g_assert_true (rig_no_worker (rig, 50));
  g_assert_false (rig_logged (rig, "died"));
  close (peer);
}

static void
expect_not_replaced (struct rig *rig, struct hand *hand, const char *why) {
  const struct heard *heard = hand_expect (hand, KEEPER_REPLACE_FAILED);

  g_test_message ("%s", (const char *)heard->bytes);
  g_assert_nonnull (strstr ((const char *)heard->bytes, why));
  g_assert_true (rig_logged (rig, why));
  g_assert_cmpint (kill (hand->pid, 0), ==, 0);
  g_assert_true (rig_no_worker (rig, 20));
}

static void
goes_on_where_replacing_fails (void) {
  g_autoptr (rig_t) rig = rig_start (false);
  g_autoptr (hand_t) hand = rig_running_worker (rig);
  g_autofree char *aside = g_strconcat (rig->program, ".aside", NULL);
  static const char *const whys[] = { "exit status 65", "signal 9 (Killed)", "it speaks before it is told to go",
                                      "it speaks before it is told to go", "signal 9 (Killed)", "exit status 65" };
  unsigned fds;
  int64_t from;

  hand_sync (hand, rig);
  fds = rig_fds (rig);
  for (unsigned i = 0; i < G_N_ELEMENTS (whys); i++) {
    struct hand *next;

    if (i == 5)
      rig_install (rig);
    replace (hand, i == 5 ? KEEPER_PROGRAM_INSTALLED : KEEPER_PROGRAM_SAME);
    next = rig_worker (rig);
    switch (i) {
    case 1:
      hand_kill (next);
      break;
    case 2:
      hand_say_type (next, KEEPER_GOOD, 0, NO_SLOT, 0);
      break;
    case 3:
      hand_say (next, &(struct keeper_message){ .type = KEEPER_SEND, .n_bytes = 3 }, "boo", -1);
      break;
    case 4:
      close (next->wire);
      next->wire = -1;
      break;
    default:
      hand_exit (next, KEEPER_EXIT_CANT);
    }
    expect_not_replaced (rig, hand, whys[i]);
    g_assert_cmpuint (rig_fds (rig), ==, fds);
    if (next->wire < 0)
      next->wire = dup (next->control);
    hand_free (next);
  }

  /* the program is not there */
  g_assert_cmpint (g_rename (rig->program, aside), ==, 0);
  replace (hand, KEEPER_PROGRAM_INSTALLED);
  expect_not_replaced (rig, hand, "No such file or directory");
  g_assert_true (rig_logged (rig, rig->program));
  /* or is no program */
  g_assert_true (g_file_set_contents (rig->program, "?", 1, NULL));
  replace (hand, KEEPER_PROGRAM_INSTALLED);
  expect_not_replaced (rig, hand, "exit status 65");
  g_assert_cmpint (g_rename (aside, rig->program), ==, 0);

  /* it hangs */
  from = rig_now_ms ();
  replace (hand, KEEPER_PROGRAM_SAME);
  g_autoptr (hand_t) next = rig_worker (rig);
  expect_not_replaced (rig, hand, "it did not begin in time");
  g_assert_cmpint (rig_now_ms () - from, >=, 9900);
  g_assert_true (peer_is_closed (next->control, PATIENCE_MS));
  hand_sync (hand, rig);
  g_assert_cmpuint (rig_fds (rig), ==, fds);
  g_assert_false (rig_logged (rig, "died by")); /* none of those ever worked */
}

/* Either may die while the other gets ready. */
static void
deaths_while_replacing (void) {
  g_autoptr (rig_t) rig = rig_start (false);
  struct hand *hand = rig_running_worker (rig), *next;

  good (hand);
  replace (hand, KEEPER_PROGRAM_SAME);
  next = rig_worker (rig);
  hand_kill (hand);
  hand_free (hand);
  while (!rig_logged (rig, "1 in all")) /* else it may be that it was ended for its successor */
    g_usleep (1000);
  hand_check (next);
  hand_go (next);
  g_assert_cmpuint (next->hello.deaths, ==, 1);
  hand = next;
  good (hand);

  replace (hand, KEEPER_PROGRAM_SAME);
  next = rig_worker (rig);
  hand_kill (hand);
  hand_kill (next);
  hand_free (hand);
  hand_free (next);
  hand = rig_running_worker (rig);
  /* When the keeper hears of both at once, the successor has died before it was one. */
  g_assert_cmpuint (hand->hello.deaths, >=, 2);
  g_assert_cmpuint (hand->hello.deaths, <=, 3);
  good (hand);

  g_assert_true (rig_no_worker (rig, 50));
  hand_free (hand);
}

/* ---- another program ---- */

static void
upgrades_and_rolls_back (void) {
  g_autoptr (rig_t) rig = rig_start (false);
  struct hand *hand = rig_running_worker (rig), *next;
  const uint64_t old = hand->inode;
  uint64_t new;
  unsigned fds;

  g_assert_cmpuint (old, ==, rig_installed_inode (rig));
  put_state (hand, 5);
  hand_sync (hand, rig);
  fds = rig_fds (rig);
  rig_install (rig);
  new = rig_installed_inode (rig);
  g_assert_cmpuint (new, !=, old);
  /* a death, or a restart, changes nothing about the program */
  hand = next_after_kill (rig, hand);
  g_assert_cmpuint (hand->inode, ==, old);
  replace (hand, KEEPER_PROGRAM_SAME);
  next = rig_running_worker (rig);
  g_assert_cmpuint (next->inode, ==, old);
  hand_free (hand);
  replace (next, KEEPER_PROGRAM_INSTALLED);
  hand = rig_running_worker (rig);
  hand_free (next);
  g_assert_cmpuint (hand->inode, ==, new);
  g_assert_cmpuint (hand->hello.rolled_back, ==, 0);
  hand_sync (hand, rig);
  g_assert_cmpuint (rig_fds (rig), ==, fds + 1); /* the program before */

  /* it is no good: three deaths, and the one before is back, in normal mode */
  good (hand);
  for (unsigned i = 0; i < 3; i++) {
    g_assert_cmpuint (hand->inode, ==, new);
    hand = next_after_kill (rig, hand);
  }
  g_assert_cmpuint (hand->inode, ==, old);
  g_assert_cmpuint (hand->hello.rolled_back, ==, 1);
  g_assert_cmpuint (hand->hello.mode, ==, KEEPER_MODE_NORMAL);
  g_assert_true (rig_logged (rig, "3 in a row, 4 in all: back to the program before the upgrade"));
  hand_sync (hand, rig);
  g_assert_cmpuint (rig_fds (rig), ==, fds);
  /* once: there is nothing else to go back to */
  for (unsigned i = 0; i < 3; i++)
    hand = next_after_kill (rig, hand);
  g_assert_cmpuint (hand->hello.mode, ==, KEEPER_MODE_BUSY);
  g_assert_cmpuint (hand->inode, ==, old);
  g_assert_cmpuint (hand->hello.rolled_back, ==, 1);

  /* mended: it can be installed from busy mode, too */
  replace (hand, KEEPER_PROGRAM_INSTALLED);
  next = rig_running_worker (rig);
  hand_free (hand);
  g_assert_cmpuint (next->inode, ==, new);
  g_assert_cmpuint (next->hello.mode, ==, KEEPER_MODE_NORMAL);
  g_assert_cmpuint (next->hello.rolled_back, ==, 0);
  for (unsigned i = 0; i < 5; i++) { /* and again, and again: each holds one program more than was started, at most */
    rig_install (rig);
    replace (next, KEEPER_PROGRAM_INSTALLED);
    hand = rig_running_worker (rig);
    hand_free (next);
    next = hand;
    hand_sync (next, rig);
    g_assert_cmpuint (rig_fds (rig), ==, fds + 1);
  }
  hand_free (next);
}

int
main (int argc, char **argv) {
  rig_be_another (argc, argv);
  signal (SIGPIPE, SIG_IGN);
  g_test_init (&argc, &argv, NULL);
#define ADD(path, function) g_test_add_func ("/keeper/life/" path, function)
  ADD ("tells-a-first-worker", tells_a_first_worker);
  ADD ("starts-another-at-once", starts_another_at_once);
  ADD ("logs-a-few-deaths-only", logs_a_few_deaths_only);
  ADD ("is-busy-after-three-deaths", is_busy_after_three_deaths);
  ADD ("backs-off", backs_off);
  ADD ("ends-with-its-worker", ends_with_its_worker);
  ADD ("ends-on-signals", ends_on_signals);
  ADD ("takes-workers-with-it", takes_workers_with_it);
  ADD ("replaces-a-worker", replaces_a_worker);
  ADD ("goes-on-where-replacing-fails", goes_on_where_replacing_fails);
  ADD ("deaths-while-replacing", deaths_while_replacing);
  ADD ("upgrades-and-rolls-back", upgrades_and_rolls_back);
#undef ADD
  return g_test_run ();
}
