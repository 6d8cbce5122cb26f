/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A keeper between broken workers, front-ends that go at any time, signals and a lack of descriptors: it goes on, holds no more than it
 * should, and does not spin. */
#include "keeper-rig.h"
#include "testing.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAIN KEEPER_MAIN
#define NO_SLOT KEEPER_NO_SLOT

static int64_t
cpu_ms (struct rig *rig) {
  g_autofree char *path = g_strdup_printf ("/proc/%d/stat", (int)rig->pid), *text = NULL;
  unsigned long user = 0, system = 0;

  g_assert_true (g_file_get_contents (path, &text, NULL, NULL));
  g_assert_cmpint (sscanf (strrchr (text, ')'), ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system), ==, 2);
  return (int64_t)(user + system) * 1000 / sysconf (_SC_CLK_TCK);
}

static void
expect_idle (struct rig *rig) {
  const int64_t before = cpu_ms (rig);

  g_usleep (300 * 1000);
  g_assert_cmpint (cpu_ms (rig) - before, <=, 60);
}

static void
good (struct hand *hand) {
  hand_say_type (hand, KEEPER_GOOD, 0, NO_SLOT, 0);
}

/* It still carries bytes both ways; the connection is closed again. */
static void
expect_service (struct rig *rig, struct hand *hand) {
  const int fd = new_eventfd (5);
  const int peer = rig_connect (rig);
  const struct heard *heard;
  uint64_t epoch;

  while ((heard = hand_hear (hand, PATIENCE_MS)) && heard->message.type != KEEPER_CONNECTED)
    ;
  g_assert_nonnull (heard);
  epoch = heard->message.epoch;
  peer_send (peer, "ping", 4, &fd, 1);
  hand_want (hand, MAIN, epoch, 0, 4);
  heard = hand_expect (hand, KEEPER_DATA);
  g_assert_cmpmem (heard->bytes, heard->message.n_bytes, "ping", 4);
  g_assert_cmpuint (heard->message.n_slots, ==, 1);
  g_assert_cmpuint (mark_of (hand->slots[heard->message.slots[0]]), ==, 5);
  hand_send (hand, MAIN, epoch, 1, "pong", 4, NO_SLOT);
  peer_expect (peer, "pong", 4);
  hand_close (hand, epoch);
  g_assert_true (peer_is_closed (peer, PATIENCE_MS));
  hand_sync (hand, rig);
  close (peer);
  close (fd);
}

/* ---- workers ---- */

static void
expect_death_after (const void *bytes, size_t n, const int *fds, unsigned n_fds, const char *why) {
  g_autoptr (rig_t) rig = rig_start (false);
  g_autoptr (hand_t) hand = rig_running_worker (rig);
  g_autoptr (hand_t) next = NULL;

  hand_sync (hand, rig);
  peer_send (hand->wire, bytes, n, fds, n_fds);
  next = rig_running_worker (rig);
  g_test_message ("%s", why);
  g_assert_true (rig_logged (rig, why));
  g_assert_cmpuint (next->hello.deaths, ==, 1);
  expect_service (rig, next);
}

static void
ends_a_worker_that_breaks_rules (void) {
  static const struct {
    struct keeper_message message;
    const char *why;
  } cases[] = {
    { { .type = 0 }, "there is no such message" },
    { { .type = KEEPER_HELLO }, "there is no such message" },
    { { .type = KEEPER_CHECKED }, "there is no such message" },
    { { .type = 9999 }, "there is no such message" },
    { { .type = KEEPER_PUT, .slot = 5 }, "it puts nothing" },
    { { .type = KEEPER_DROP, .slot = KEEPER_SLOT_STATE }, "it drops what it may not" },
    { { .type = KEEPER_DROP, .slot = KEEPER_SLOT_CONTROL }, "it drops what it may not" },
    { { .type = KEEPER_DROP, .slot = KEEPER_SLOT_ACCOUNT }, "it drops what it may not" },
    { { .type = KEEPER_DROP, .slot = KEEPER_SLOTS }, "it drops what it may not" },
    { { .type = KEEPER_DROP, .slot = 255 }, "it drops what it may not" },
    { { .type = KEEPER_SET_CHANNEL, .epoch = 1, .slot = KEEPER_SLOT_CONTROL }, "its channel is no stream socket" },
    { { .type = KEEPER_SET_CHANNEL, .epoch = 1, .slot = 40 }, "its channel is no stream socket" },
    { { .type = KEEPER_SET_CHANNEL, .epoch = 1, .slot = 200 }, "its channel is no stream socket" },
    { { .type = KEEPER_WANT, .n_bytes = 1 }, "its message is broken" },
    { { .type = KEEPER_SEND, .n_bytes = UINT32_MAX }, "its message is broken" },
  };
  static uint8_t large[KEEPER_MESSAGE_BYTES_MAX + 1];
  const int fds[4] = { 0, 0, 0, 0 };

  for (unsigned i = 0; i < G_N_ELEMENTS (cases); i++)
    expect_death_after (&cases[i].message, sizeof cases[i].message, NULL, 0, cases[i].why);
  for (unsigned slot = 1; slot < 256; slot += slot < 3 ? 1 : slot == 3 ? 13 : slot < 60 ? 47 : 192) { /* 1, 2, 3, 16, 63, 255 */
    const struct keeper_message put = { .type = KEEPER_PUT, .slot = (uint8_t)slot };

    expect_death_after (&put, sizeof put, fds, 1, "it puts nothing, or where it may not");
  }
  expect_death_after (large, 10, NULL, 0, "its message is broken");
  ((struct keeper_message *)(void *)large)->type = KEEPER_SEND;
  ((struct keeper_message *)(void *)large)->n_bytes = KEEPER_BYTES_MAX + 1;
  expect_death_after (large, sizeof large, NULL, 0, "its message is broken");
}

/* Of a connection that there is. */
static void
ends_a_worker_that_breaks_a_stream (void) {
  for (unsigned i = 0; i < 5; i++) {
    g_autoptr (rig_t) rig = rig_start (false);
    g_autoptr (hand_t) hand = rig_running_worker (rig);
    g_autoptr (hand_t) next = NULL;
    const int peer = rig_connect (rig);

    hand_expect (hand, KEEPER_CONNECTED);
    peer_send (peer, "0123456789", 10, NULL, 0);
    hand_want (hand, MAIN, 1, 2 - 2, 10);
    hand_expect (hand, KEEPER_DATA);
    hand_want (hand, MAIN, 1, 4, 0);
    hand_sync (hand, rig);
    if (i == 0)
      hand_want (hand, MAIN, 1, 3, 2); /* what it was done with */
    else if (i == 1)
      hand_want (hand, MAIN, 1, 11, 2); /* what it was never told */
    else if (i == 2)
      hand_want (hand, MAIN, 1, 4, KEEPER_BYTES_MAX + 1);
    else if (i == 3)
      hand_want (hand, MAIN, 1, UINT64_MAX, 1);
    else
      hand_send (hand, MAIN, 1, 1, "x", 1, 30); /* a slot with nothing in it */
    next = rig_running_worker (rig);
    g_assert_true (rig_logged (rig, i < 4 ? "it wants bytes that can't be had" : "it sends what can't be sent"));
    hand_want (next, MAIN, 1, 4, 6);
    g_assert_cmpmem (hand_expect (next, KEEPER_DATA)->bytes, 6, "456789", 6);
    g_assert_true (peer_is_quiet (peer, 10));
    close (peer);
  }
}

/* Descriptors where none belong are closed. */
static void
closes_stray_descriptors (void) {
  g_autoptr (rig_t) rig = rig_start (false);
  g_autoptr (hand_t) hand = rig_running_worker (rig);
  const int fds[16] = { 0 };
  const struct keeper_message messages[]
      = { { .type = KEEPER_GOOD }, { .type = KEEPER_PUT, .slot = 6 }, { .type = KEEPER_WANT }, { .type = KEEPER_DROP, .slot = 6 } };
  unsigned before;

  hand_sync (hand, rig);
  before = rig_fds (rig);
  for (unsigned i = 0; i < 100; i++)
    peer_send (hand->wire, &messages[i % 4], sizeof messages[0], fds, i % 16 + 1);
  hand_sync (hand, rig);
  g_assert_cmpuint (rig_fds (rig), ==, before);
  hand_say (hand, &(struct keeper_message){ .type = 77 }, "", 0); /* its last one has one, too */
  g_autoptr (hand_t) next = rig_running_worker (rig);
  hand_sync (next, rig);
  g_assert_cmpuint (rig_fds (rig), ==, before);
}

static void
ends_a_worker_that_does_not_listen (void) {
  static const uint8_t bytes[KEEPER_BYTES_MAX];
  const struct keeper_message want = { .type = KEEPER_WANT, .epoch = 1, .count = KEEPER_BYTES_MAX };
  g_autoptr (rig_t) rig = rig_start (false);
  g_autoptr (hand_t) hand = rig_running_worker (rig);
  const int peer = rig_connect (rig);

  hand_expect (hand, KEEPER_CONNECTED);
  peer_send (peer, bytes, sizeof bytes, NULL, 0);
  for (unsigned i = 0; i < 10000 && send (hand->wire, &want, sizeof want, MSG_NOSIGNAL) > 0; i++)
    if (!rig_no_worker (rig, 0))
      break;
  g_autoptr (hand_t) next = rig_running_worker (rig);
  g_assert_true (rig_logged (rig, "it does not take what it asked for"));
  hand_want (next, MAIN, 1, 0, KEEPER_BYTES_MAX);
  hand_expect (next, KEEPER_DATA);
  close (peer);
}

/* One that goes on living without its socket is of no use. */
static void
ends_a_worker_that_hangs_up (void) {
  g_autoptr (rig_t) rig = rig_start (false);
  g_autoptr (hand_t) hand = rig_running_worker (rig);

  close (hand->wire);
  hand->wire = dup (0);
  g_autoptr (hand_t) next = rig_running_worker (rig);
  g_assert_true (peer_is_closed (hand->control, PATIENCE_MS));
  expect_service (rig, next);
}

/* ---- front-ends ---- */

static void
front_ends_that_come_and_go (void) {
  g_autoptr (rig_t) rig = rig_start (false);
  g_autoptr (hand_t) hand = rig_running_worker (rig);
  unsigned before;

  hand_sync (hand, rig);
  before = rig_fds (rig);
  for (unsigned i = 0; i < 100; i++) {
    const int peer = rig_connect (rig), fds[2] = { 0, 1 };
    const uint64_t epoch = hand_expect (hand, KEEPER_CONNECTED)->message.epoch;

    g_assert_cmpuint (epoch, ==, i + 1);
    if (i % 3)
      peer_send (peer, "0123456789", 10, fds, 2);
    if (i % 2)
      hand_want (hand, MAIN, epoch, 0, i % 5 ? 4 : 20);
    if (i % 7 == 3)
      hand_send (hand, MAIN, epoch, 1, "answer", 6, NO_SLOT);
    close (peer);
    if (i % 4 == 1)
      hand_send (hand, MAIN, epoch, i % 7 == 3 ? 2 : 1, "too late", 8, NO_SLOT);
    hand_close (hand, epoch);
    for (const struct heard *heard; (heard = hand_hear (hand, 0));)
      g_assert_cmpint (heard->message.type, !=, KEEPER_CONNECTED);
  }
  hand_sync (hand, rig);
  g_assert_cmpuint (rig_fds (rig), ==, before);
  expect_service (rig, hand);
}

/* Nobody asks about a peer that is dead: that must cost nothing. */
static void
does_not_spin (void) {
  g_autoptr (rig_t) rig = rig_start (false);
  g_autoptr (hand_t) hand = rig_running_worker (rig);
  int peer = rig_connect (rig);

  hand_expect (hand, KEEPER_CONNECTED);
  expect_idle (rig);
  peer_send (peer, "0123", 4, NULL, 0);
  expect_idle (rig); /* bytes that nobody wants */
  close (peer);
  expect_idle (rig); /* nor its end */
  hand_want (hand, MAIN, 1, 0, 10);
  hand_expect (hand, KEEPER_GONE);
  expect_idle (rig); /* told, and not closed */
  hand_send (hand, MAIN, 1, 1, "x", 1, NO_SLOT);
  expect_idle (rig);
  g_assert_true (testing_stop (hand->pid)); /* a worker that hangs */
  expect_idle (rig);
  kill (hand->pid, SIGCONT);
}

/* ---- the system ---- */

static void
survives_a_storm_of_signals (void) {
  g_autoptr (rig_t) rig = rig_start (false);
  struct hand *hand = rig_running_worker (rig);
  const int peer = rig_connect (rig);
  const uint64_t epoch = hand_expect (hand, KEEPER_CONNECTED)->message.epoch;
  const pid_t storm = fork ();

  if (storm == 0)
    for (prctl (PR_SET_PDEATHSIG, SIGKILL);;) {
      kill (rig->pid, SIGCHLD);
      kill (rig->pid, SIGSTOP);
      kill (rig->pid, SIGCONT);
      kill (rig->pid, SIGWINCH);
      usleep (100);
    }
  for (uint64_t i = 0; i < 300; i++) {
    if (i % 30 == 29) {
      good (hand);
      hand_kill (hand);
      hand_free (hand);
      hand = rig_running_worker (rig);
    }
    peer_send (peer, &i, sizeof i, NULL, 0);
    hand_want (hand, MAIN, epoch, i * sizeof i, sizeof i);
    g_assert_cmpmem (hand_expect (hand, KEEPER_DATA)->bytes, sizeof i, &i, sizeof i);
    hand_send (hand, MAIN, epoch, i + 1, &i, sizeof i, NO_SLOT);
    peer_expect (peer, &i, sizeof i);
  }
  kill (storm, SIGKILL);
  waitpid (storm, NULL, 0);
  kill (rig->pid, SIGCONT); /* its last word may have been STOP */
  g_assert_cmpuint (hand->hello.deaths, ==, 10);
  hand_free (hand);
  close (peer);
}

/* Fewer than it has, so that it gets no more; poll itself refuses less than it is to look at. */
#define FEW 6

static void
limit_descriptors (struct rig *rig, rlim_t n) {
  const struct rlimit limit = { n, 4096 };

  g_assert_cmpint (prlimit (rig->pid, RLIMIT_NOFILE, &limit, NULL), ==, 0);
}

/* No descriptor is to be had: none for a peer's, for a connection, a worker's PUT, a worker. */
static void
survives_without_descriptors (void) {
  g_autoptr (rig_t) rig = rig_start (false);
  struct hand *hand = rig_running_worker (rig);
  const struct heard *heard;
  int peer = rig_connect (rig), second, fd = new_eventfd (3);

  hand_expect (hand, KEEPER_CONNECTED);
  limit_descriptors (rig, FEW);
  peer_send (peer, "0123", 4, &fd, 1);
  hand_want (hand, MAIN, 1, 0, 4);
  heard = hand_expect (hand, KEEPER_DATA);
  g_assert_cmpuint (heard->message.n_slots, ==, 0);
  g_assert_cmpint (heard->message.truncated, ==, 1); /* so the worker knows what happened */
  second = rig_connect (rig);
  expect_idle (rig); /* it waits for a place */
  hand_close (hand, 1);
  g_assert_null (hand_hear (hand, 50));
  limit_descriptors (rig, 1024);
  g_assert_cmpuint (hand_expect (hand, KEEPER_CONNECTED)->message.epoch, ==, 2);
  good (hand);
  hand_sync (hand, rig);

  limit_descriptors (rig, FEW);
  hand_kill (hand);
  hand_free (hand);
  g_assert_true (rig_no_worker (rig, 300));
  g_assert_true (rig_logged (rig, "Too many open files"));
  expect_idle (rig);
  limit_descriptors (rig, 1024);
  hand = rig_running_worker (rig); /* within a second */
  g_assert_cmpuint (hand->hello.connection, ==, 2);
  hand_free (hand);
  close (second);
  close (peer);
  close (fd);
}

int
main (int argc, char **argv) {
  rig_be_another (argc, argv);
  signal (SIGPIPE, SIG_IGN);
  g_test_init (&argc, &argv, NULL);
#define ADD(path, function) g_test_add_func ("/keeper/hostile/" path, function)
  ADD ("ends-a-worker-that-breaks-rules", ends_a_worker_that_breaks_rules);
  ADD ("ends-a-worker-that-breaks-a-stream", ends_a_worker_that_breaks_a_stream);
  ADD ("closes-stray-descriptors", closes_stray_descriptors);
  ADD ("ends-a-worker-that-does-not-listen", ends_a_worker_that_does_not_listen);
  ADD ("ends-a-worker-that-hangs-up", ends_a_worker_that_hangs_up);
  ADD ("front-ends-that-come-and-go", front_ends_that_come_and_go);
  ADD ("does-not-spin", does_not_spin);
  ADD ("survives-a-storm-of-signals", survives_a_storm_of_signals);
  ADD ("survives-without-descriptors", survives_without_descriptors);
#undef ADD
  return g_test_run ();
}
