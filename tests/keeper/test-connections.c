/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Whom the keeper carries for: the backend channel, front-ends that come, go and do not read. */
#include "keeper-rig.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <glib/gstdio.h>

#define MAIN KEEPER_MAIN
#define CHANNEL KEEPER_CHANNEL
#define NO_SLOT KEEPER_NO_SLOT

static const uint8_t text[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

/* ---- the channel ---- */

/* Gives the keeper a channel through MAIN, as QEMU does. Returns our end; *position is where MAIN stands. */
static int
open_channel (struct hand *hand, int peer, uint64_t epoch, uint64_t position, unsigned *ret_slot) {
  int pair[2];

  g_assert_cmpint (socketpair (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), ==, 0);
  peer_send (peer, text, 8, pair + 1, 1);
  close (pair[1]);
  hand_want (hand, MAIN, 1, position, 8);
  *ret_slot = hand_expect (hand, KEEPER_DATA)->message.slots[0];
  hand_say_type (hand, KEEPER_SET_CHANNEL, epoch, *ret_slot, 0);
  return pair[0];
}

static int
receive_fd (int from, const void *bytes, size_t n) {
  union {
    char buf[CMSG_SPACE (sizeof (int))];
    struct cmsghdr align;
  } control;
  char got[64];
  struct iovec iov = { got, sizeof got };
  struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buf, .msg_controllen = sizeof control.buf };
  const ssize_t result = recvmsg (from, &msg, MSG_CMSG_CLOEXEC);
  int fd = -1;

  g_assert_cmpmem (got, result, bytes, n);
  if (CMSG_FIRSTHDR (&msg))
    memcpy (&fd, CMSG_DATA (CMSG_FIRSTHDR (&msg)), sizeof fd);
  return fd;
}

static void
carries_the_channel (void) {
  const int window = new_eventfd (77);
  unsigned slot;
  int channel, other, got;
  RIG_BEGIN;

  hand_say (hand, &(struct keeper_message){ .type = KEEPER_PUT, .slot = 4 }, "", window);
  channel = open_channel (hand, peer, 1, 0, &slot);
  hand_send (hand, CHANNEL, 1, 1, "map this", 8, 4);
  hand_send (hand, CHANNEL, 1, 1, "map this", 8, 4);
  got = receive_fd (channel, "map this", 8);
  g_assert_cmpint (got, >=, 0);
  g_assert_cmpuint (mark_of (got), ==, 77);
  close (got);
  g_assert_true (peer_is_quiet (channel, 20));
  hand_want (hand, CHANNEL, 1, 0, 4);
  peer_send (channel, "done", 4, NULL, 0);
  hand_expect_data (hand, CHANNEL, 1, 0, "done", 4, 0);

  /* the next worker says all of it again */
  hand_sync (hand, rig);
  hand_kill (hand);
  g_autoptr (hand_t) next = rig_running_worker (rig);
  g_assert_cmpuint (mark_of (next->slots[4]), ==, 77);
  hand_say_type (next, KEEPER_SET_CHANNEL, 1, slot, 0);
  hand_send (next, CHANNEL, 1, 1, "map this", 8, 4);
  hand_want (next, CHANNEL, 1, 0, 4);
  hand_expect_data (next, CHANNEL, 1, 0, "done", 4, 0);
  g_assert_true (peer_is_quiet (channel, 20));

  /* another channel */
  other = open_channel (next, peer, 2, 8, &slot);
  hand_send (next, CHANNEL, 1, 2, "to nobody", 9, NO_SLOT);
  hand_send (next, CHANNEL, 2, 1, "hello", 5, NO_SLOT);
  peer_expect (other, "hello", 5);
  g_assert_true (peer_is_quiet (channel, 20));
  hand_want (next, CHANNEL, 2, 0, 1);
  close (other);
  hand_expect_gone (next, CHANNEL, 2, 0, KEEPER_GONE_CLOSED);

  /* none at all; and the end of a connection is its channel's */
  hand_say_type (next, KEEPER_SET_CHANNEL, 3, NO_SLOT, 0);
  hand_send (next, CHANNEL, 3, 1, "to nobody", 9, NO_SLOT);
  other = open_channel (next, peer, 4, 16, &slot);
  hand_close (next, 1);
  g_assert_true (peer_is_closed (other, PATIENCE_MS));
  close (other);
  close (channel);
  close (peer);
  close (window);
}

/* A message goes into the channel as a whole or not at all. */
static void
channel_that_is_not_read (void) {
  static uint8_t message[1000];
  const unsigned n_max = 100000;
  size_t got = 0;
  unsigned slot, n = 0;
  int channel;
  RIG_BEGIN;

  channel = open_channel (hand, peer, 1, 0, &slot);
  while (n < n_max) {
    const struct heard *heard;

    hand_send (hand, CHANNEL, 1, ++n, message, sizeof message, NO_SLOT);
    heard = hand_hear (hand, n % 16 ? 0 : 20);
    if (!heard)
      continue;
    g_assert_cmpuint (heard->message.type, ==, KEEPER_GONE);
    g_assert_cmpuint (heard->message.count, ==, KEEPER_GONE_NO_READ);
    break;
  }
  g_assert_cmpuint (n, <, n_max);
  hand_send (hand, CHANNEL, 1, n + 1, message, sizeof message, NO_SLOT);
  hand_sync (hand, rig);
  for (ssize_t more; (more = recv (channel, message, sizeof message, MSG_DONTWAIT)) > 0;)
    got += (size_t)more;
  g_assert_cmpuint (got % sizeof message, ==, 0);
  g_assert_cmpuint (got, >, 0);
  hand_kill (hand);
  g_autoptr (hand_t) next = rig_running_worker (rig);
  hand_want (next, CHANNEL, 1, 0, 4); /* the next one is told, too */
  hand_expect_gone (next, CHANNEL, 1, 0, KEEPER_GONE_NO_READ);
  close (channel);
  close (peer);
}

static unsigned
messages_that_a_socket_takes (size_t bytes) {
  static uint8_t message[KEEPER_BYTES_MAX];
  unsigned n = 0;
  int pair[2];

  g_assert_cmpint (socketpair (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), ==, 0);
  while (send (pair[0], message, bytes, MSG_DONTWAIT) == (ssize_t)bytes)
    n++;
  close (pair[0]);
  close (pair[1]);
  return n;
}

static void
front_end_that_does_not_read (void) {
  static uint8_t message[2048], expected[2048];
  const unsigned n_max = 100000;
  unsigned n = 0, n_read;
  RIG_BEGIN;

  /* First one that only is slow: what waits in the keeper arrives, in order. */
  for (const unsigned n_slow = messages_that_a_socket_takes (sizeof message) + 6; n < n_slow; n++) {
    memset (message, (int)n, sizeof message);
    hand_send (hand, MAIN, 1, n + 1, message, sizeof message, NO_SLOT);
  }
  hand_sync (hand, rig);
  for (n_read = 0; n_read < n; n_read++) {
    memset (expected, (int)n_read, sizeof expected);
    peer_expect (peer, expected, sizeof expected);
  }
  while (n < n_max) {
    const struct heard *heard;

    memset (message, (int)n, sizeof message);
    hand_send (hand, MAIN, 1, ++n, message, sizeof message, NO_SLOT);
    heard = hand_hear (hand, n % 16 ? 0 : 20);
    if (!heard)
      continue;
    g_assert_cmpuint (heard->message.type, ==, KEEPER_GONE);
    g_assert_cmpuint (heard->message.count, ==, KEEPER_GONE_NO_READ);
    break;
  }
  g_assert_cmpuint (n, <, n_max);
  g_assert_true (rig_lives (rig));
  hand_close (hand, 1);
  close (peer);
  peer = rig_connect (rig);
  g_assert_cmpuint (hand_expect (hand, KEEPER_CONNECTED)->message.epoch, ==, 2);
  hand_send (hand, MAIN, 2, 1, "fresh", 5, NO_SLOT);
  peer_expect (peer, "fresh", 5);
  close (peer);
}

/* ---- connections ---- */

static void
tells_when_a_front_end_goes (void) {
  RIG_BEGIN;

  peer_send (peer, text, 10, NULL, 0);
  hand_want (hand, MAIN, 1, 0, 4);
  hand_expect_data (hand, MAIN, 1, 0, text, 4, 0);
  hand_want (hand, MAIN, 1, 0, 12);
  close (peer);
  hand_expect_gone (hand, MAIN, 1, 10, KEEPER_GONE_CLOSED);
  hand_sync (hand, rig);
  hand_kill (hand);

  /* The next worker first gets what the dead one did not finish. */
  g_autoptr (hand_t) next = rig_running_worker (rig);
  g_assert_cmpuint (next->hello.connection, ==, 1);
  g_assert_cmpuint (next->hello.is_connected, ==, 1);
  hand_want (next, MAIN, 1, 0, 10);
  hand_expect_data (next, MAIN, 1, 0, text, 10, 0);
  hand_want (next, MAIN, 1, 10, 4);
  hand_expect_gone (next, MAIN, 1, 10, KEEPER_GONE_CLOSED);
  hand_want (next, MAIN, 1, 10, 4); /* told once */
  g_assert_null (hand_hear (next, 20));
  hand_close (next, 1);
  hand_close (next, 1);
  peer = rig_connect (rig);
  g_assert_cmpuint (hand_expect (next, KEEPER_CONNECTED)->message.epoch, ==, 2);
  hand_close (next, 1); /* an old one's */
  g_assert_true (peer_is_quiet (peer, 20));
  hand_close (next, 2);
  hand_sync (next, rig);
  hand_kill (next);
  g_autoptr (hand_t) third = rig_running_worker (rig);
  g_assert_cmpuint (third->hello.connection, ==, 2);
  g_assert_cmpuint (third->hello.is_connected, ==, 0);
  close (peer);
}

/* A front-end that comes while no worker runs is no news to the next one: GO says it. */
static void
accepts_without_a_worker (void) {
  g_autoptr (rig_t) rig = rig_start (false);
  g_autoptr (hand_t) hand = rig_worker (rig);
  const int peer = rig_connect (rig);

  peer_send (peer, text, 8, NULL, 0);
  g_usleep (20000);
  g_assert_cmpuint (hand->hello.connection, ==, 0);
  hand_check (hand);
  hand_go (hand);
  g_assert_cmpuint (hand->hello.connection, ==, 1);
  g_assert_cmpuint (hand->hello.is_connected, ==, 1);
  hand_want (hand, MAIN, 1, 0, 8);
  hand_expect_data (hand, MAIN, 1, 0, text, 8, 0);
  close (peer);
}

static void
turns_a_second_front_end_away (void) {
  static const char line[] = "warning: a second front-end was turned away: one device is for one VM\n";
  int64_t from;
  int second, third;
  RIG_BEGIN;

  from = rig_now_ms ();
  second = rig_connect (rig);
  g_assert_true (peer_is_closed (second, PATIENCE_MS));
  g_assert_cmpint (rig_now_ms () - from, >=, 990);
  g_assert_cmpint (rig_now_ms () - from, <, 3000);
  g_assert_cmpuint (rig_log_count (rig, line), ==, 1);
  close (second);
  /* the newest of them is held, and taken when the first one goes */
  second = rig_connect (rig);
  third = rig_connect (rig);
  g_assert_true (peer_is_closed (second, 500));
  peer_send (third, text, 4, NULL, 0);
  hand_close (hand, 1);
  g_assert_true (peer_is_closed (peer, PATIENCE_MS));
  g_assert_cmpuint (hand_expect (hand, KEEPER_CONNECTED)->message.epoch, ==, 2);
  hand_want (hand, MAIN, 2, 0, 4);
  hand_expect_data (hand, MAIN, 2, 0, text, 4, 0);
  g_usleep (1100 * 1000);
  g_assert_true (peer_is_quiet (third, 0));
  g_assert_cmpuint (rig_log_count (rig, line), ==, 1);
  close (second);
  close (third);
  close (peer);
}

static void
has_one_connection_only (void) {
  g_autoptr (rig_t) rig = rig_start (true);
  g_autoptr (hand_t) hand = rig_running_worker (rig);

  g_assert_cmpuint (hand->hello.accepts, ==, 0);
  g_assert_cmpuint (hand->hello.connection, ==, 1);
  g_assert_cmpuint (hand->hello.is_connected, ==, 1);
  peer_send (rig->given_fd, text, 4, NULL, 0);
  hand_want (hand, MAIN, 1, 0, 4);
  hand_expect_data (hand, MAIN, 1, 0, text, 4, 0);
  hand_close (hand, 1);
  g_assert_true (peer_is_closed (rig->given_fd, PATIENCE_MS));
  hand_exit (hand, KEEPER_EXIT_DONE);
  g_assert_cmpint (rig_wait (rig), ==, 0);
}

int
main (int argc, char **argv) {
  rig_be_another (argc, argv);
  signal (SIGPIPE, SIG_IGN);
  g_test_init (&argc, &argv, NULL);
#define ADD(path, function) g_test_add_func ("/keeper/connections/" path, function)
  ADD ("carries-the-channel", carries_the_channel);
  ADD ("channel-that-is-not-read", channel_that_is_not_read);
  ADD ("front-end-that-does-not-read", front_end_that_does_not_read);
  ADD ("tells-when-a-front-end-goes", tells_when_a_front_end_goes);
  ADD ("accepts-without-a-worker", accepts_without_a_worker);
  ADD ("turns-a-second-front-end-away", turns_a_second_front_end_away);
  ADD ("has-one-connection-only", has_one_connection_only);
#undef ADD
  return g_test_run ();
}
