/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the keeper carries between a front-end and workers: each byte, message and descriptor once, whoever dies in between. */
#include "keeper-rig.h"
#include "testing.h"

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

static void
gives_what_is_wanted (void) {
  RIG_BEGIN;

  peer_send (peer, text, 20, NULL, 0);
  g_assert_null (hand_hear (hand, 50)); /* nobody asked */
  hand_want (hand, MAIN, 1, 0, 12);
  hand_expect_data (hand, MAIN, 1, 0, text, 12, 0);
  hand_want (hand, MAIN, 1, 0, 12); /* said again: told again */
  hand_expect_data (hand, MAIN, 1, 0, text, 12, 0);
  hand_want (hand, MAIN, 1, 0, 20);
  hand_expect_data (hand, MAIN, 1, 0, text, 20, 0);
  hand_want (hand, MAIN, 1, 0, 5); /* less than there is */
  hand_expect_data (hand, MAIN, 1, 0, text, 5, 0);
  hand_want (hand, MAIN, 1, 15, 5); /* in the middle of what was read */
  hand_expect_data (hand, MAIN, 1, 15, text + 15, 5, 0);
  hand_want (hand, MAIN, 1, 20, 4);
  g_assert_null (hand_hear (hand, 50));
  peer_send (peer, text + 20, 3, NULL, 0);
  g_assert_null (hand_hear (hand, 50)); /* not all of it */
  peer_send (peer, text + 23, 1, NULL, 0);
  hand_expect_data (hand, MAIN, 1, 20, text + 20, 4, 0);
  hand_want (hand, MAIN, 2, 0, 4); /* a connection that there is not */
  g_assert_null (hand_hear (hand, 50));
  close (peer);
}

static void
gives_large_and_trickled (void) {
  g_autofree uint8_t *large = g_malloc (KEEPER_BYTES_MAX);
  RIG_BEGIN;

  for (unsigned i = 0; i < KEEPER_BYTES_MAX; i++)
    large[i] = (uint8_t)(i * 7 + i / 256);
  hand_want (hand, MAIN, 1, 0, KEEPER_BYTES_MAX);
  peer_send (peer, large, KEEPER_BYTES_MAX - 100, NULL, 0);
  for (unsigned i = KEEPER_BYTES_MAX - 100; i < KEEPER_BYTES_MAX; i++) {
    g_assert_null (hand_hear (hand, 0));
    peer_send (peer, large + i, 1, NULL, 0);
  }
  hand_expect_data (hand, MAIN, 1, 0, large, KEEPER_BYTES_MAX, 0);
  close (peer);
}

/* Descriptors belong to the bytes that they came with, also when those of several messages wait in the socket. */
static void
gives_descriptors_with_their_bytes (void) {
  int fds[3];
  unsigned seen[3];
  const struct heard *heard;
  RIG_BEGIN;

  for (unsigned i = 0; i < 3; i++)
    fds[i] = new_eventfd (100 + i);
  peer_send (peer, text, 20, fds, 2);
  peer_send (peer, text, 12, NULL, 0);
  peer_send (peer, text, 12, fds + 2, 1);
  hand_want (hand, MAIN, 1, 0, 12);
  heard = hand_expect (hand, KEEPER_DATA);
  g_assert_cmpuint (heard->message.n_slots, ==, 2);
  for (unsigned i = 0; i < 2; i++) {
    const unsigned slot = heard->message.slots[i];

    seen[i] = slot;
    g_assert_cmpint (hand->slots[slot], >=, 0); /* before the bytes */
    g_assert_cmpuint (mark_of (hand->slots[slot]), ==, 100 + i);
    g_assert_cmpuint (hand->slot_messages[slot].stream, ==, MAIN);
    g_assert_cmpuint (hand->slot_messages[slot].epoch, ==, 1);
    g_assert_cmpuint (hand->slot_messages[slot].position, ==, 0);
  }
  hand_want (hand, MAIN, 1, 0, 20);
  hand_expect_data (hand, MAIN, 1, 0, text, 20, 2); /* told with the whole message, too */
  hand_want (hand, MAIN, 1, 20, 12);
  hand_expect_data (hand, MAIN, 1, 20, text, 12, 0);
  hand_want (hand, MAIN, 1, 32, 12);
  heard = hand_expect (hand, KEEPER_DATA);
  g_assert_cmpuint (heard->message.n_slots, ==, 1);
  seen[2] = heard->message.slots[0];
  g_assert_cmpuint (mark_of (hand->slots[seen[2]]), ==, 102);
  g_assert_cmpuint (hand->slot_messages[seen[2]].position, ==, 32);

  /* the next worker gets what was not dropped, before GO */
  hand_say_type (hand, KEEPER_DROP, 0, seen[1], 0);
  hand_sync (hand, rig);
  hand_kill (hand);
  g_autoptr (hand_t) next = rig_running_worker (rig);
  for (unsigned slot = KEEPER_SLOT_STREAM_FIRST; slot < KEEPER_SLOTS; slot++)
    g_assert_cmpint (next->slots[slot] >= 0, ==, slot == seen[0] || slot == seen[2]);
  g_assert_cmpuint (mark_of (next->slots[seen[0]]), ==, 100);
  g_assert_cmpuint (next->slot_messages[seen[2]].position, ==, 32);
  hand_want (next, MAIN, 1, 32, 12); /* and the bytes that were not done with, with what came with them */
  heard = hand_expect (next, KEEPER_DATA);
  g_assert_cmpuint (heard->message.n_slots, ==, 1);
  g_assert_cmpuint (heard->message.slots[0], ==, seen[2]);
  hand_close (next, 1);
  hand_sync (next, rig);
  g_assert_true (peer_is_closed (peer, PATIENCE_MS));
  for (unsigned i = 0; i < 3; i++)
    close (fds[i]);
  close (peer);
}

static void
closes_descriptors_beyond_its_room (void) {
  int fds[250];
  const struct heard *heard;
  uint64_t position = 0;
  unsigned before, kept = 0;
  RIG_BEGIN;

  for (unsigned i = 0; i < G_N_ELEMENTS (fds); i++)
    fds[i] = new_eventfd (1);
  before = rig_fds (rig);
  for (unsigned turn = 0; turn < 5; turn++) {
    peer_send (peer, text, 8, fds, turn == 0 ? 17 : turn == 1 ? 250 : 16);
    hand_want (hand, MAIN, 1, position, 8);
    heard = hand_expect (hand, KEEPER_DATA);
    g_assert_cmpuint (heard->message.n_slots, ==, turn < 3 ? 16 : 0); /* 48 places in all */
    g_assert_cmpint (heard->message.truncated, ==, turn != 2);
    kept += heard->message.n_slots;
    position += 8;
    g_assert_cmpuint (rig_fds (rig), ==, before + kept);
  }
  for (unsigned slot = KEEPER_SLOT_STREAM_FIRST; slot < KEEPER_SLOTS; slot++)
    hand_say_type (hand, KEEPER_DROP, 0, slot, 0);
  hand_sync (hand, rig);
  g_assert_cmpuint (rig_fds (rig), ==, before);
  peer_send (peer, text, 8, fds, 16);
  hand_want (hand, MAIN, 1, position, 8);
  g_assert_cmpint (hand_expect (hand, KEEPER_DATA)->message.truncated, ==, 0);
  for (unsigned i = 0; i < G_N_ELEMENTS (fds); i++)
    close (fds[i]);
  close (peer);
}

static void
sends_each_message_once (void) {
  RIG_BEGIN;

  hand_send (hand, MAIN, 1, 1, "one,", 4, NO_SLOT);
  hand_send (hand, MAIN, 1, 1, "one,", 4, NO_SLOT);
  hand_send (hand, MAIN, 2, 1, "no!", 3, NO_SLOT);
  hand_send (hand, MAIN, 1, 2, "two,", 4, NO_SLOT);
  hand_sync (hand, rig);
  hand_kill (hand);
  g_autoptr (hand_t) next = rig_running_worker (rig);
  hand_send (next, MAIN, 1, 2, "two,", 4, NO_SLOT);
  hand_send (next, MAIN, 1, 3, "three", 5, NO_SLOT);
  peer_expect (peer, "one,two,three", 13);
  g_assert_true (peer_is_quiet (peer, 50));
  hand_send (next, MAIN, 1, 5, "five", 4, NO_SLOT); /* there was no four */
  g_assert_null (hand_hear (next, PATIENCE_MS));
  g_autoptr (hand_t) third = rig_running_worker (rig);
  g_assert_true (rig_logged (rig, "it sends what can't be sent"));
  g_assert_true (peer_is_quiet (peer, 20));
  close (peer);
}

/* A worker that could still speak has spoken. */
static void
hears_what_the_dead_said (void) {
  int pipe_ends[2];
  RIG_BEGIN;

  g_assert_cmpint (pipe2 (pipe_ends, O_CLOEXEC), ==, 0);
  g_assert_true (testing_stop (rig->pid));
  for (unsigned i = 1; i <= 30; i++)
    hand_send (hand, MAIN, 1, i, text + i, 1, NO_SLOT);
  hand_say (hand, &(struct keeper_message){ .type = KEEPER_PUT, .slot = 5 }, "", pipe_ends[1]);
  hand_say_type (hand, KEEPER_GOOD, 0, NO_SLOT, 0);
  close (pipe_ends[1]);
  hand_kill (hand);
  kill (rig->pid, SIGCONT);
  g_autoptr (hand_t) next = rig_running_worker (rig);
  peer_expect (peer, text + 1, 30);
  g_assert_cmpint (next->slots[5], >=, 0);
  hand_say_type (next, KEEPER_DROP, 0, 5, 0);
  close (next->slots[5]);
  next->slots[5] = -1;
  g_assert_true (peer_is_closed (pipe_ends[0], PATIENCE_MS));
  close (pipe_ends[0]);
  close (peer);
}

/* ---- a worker as it should be, killed between any two of its steps ---- */

/* What a worker's state would hold. A request is a number and a descriptor; the answer is the number again. */
struct state {
  uint64_t consumed, sent;
  unsigned drop; /* still to be said; 0: nothing */
  bool committed;
  uint8_t answer[8];
};

/* Steps until `steps` are used up: then the worker is killed, and the next one has as many as it needs. */
static bool
serve (struct hand *hand, struct state *state, unsigned *steps) {
#define STEP                                                                                                           \
  if ((*steps)-- == 0)                                                                                                 \
  return false
  const struct heard *heard;

  STEP;
  if (!state->committed) {
    hand_want (hand, MAIN, 1, state->consumed, 4);
    STEP;
    heard = hand_expect (hand, KEEPER_DATA);
    g_assert_cmpuint (heard->message.n_bytes, ==, 4);
    STEP;
    hand_want (hand, MAIN, 1, state->consumed, 8);
    STEP;
    heard = hand_expect (hand, KEEPER_DATA);
    g_assert_cmpuint (heard->message.n_bytes, ==, 8);
    g_assert_cmpuint (heard->message.n_slots, ==, 1);
    g_assert_cmpint (hand->slots[heard->message.slots[0]], >=, 0);
    g_assert_cmpuint (mark_of (hand->slots[heard->message.slots[0]]), ==, *(const uint64_t *)(const void *)heard->bytes);
    STEP;
    memcpy (state->answer, heard->bytes, 8);
    state->drop = heard->message.slots[0];
    state->consumed += 8;
    state->sent++;
    state->committed = true; /* all of this at once */
    STEP;
  }
  hand_send (hand, MAIN, 1, state->sent, state->answer, 8, NO_SLOT);
  STEP;
  hand_say_type (hand, KEEPER_DROP, 0, state->drop, 0);
  STEP;
  state->committed = false;
  return true;
#undef STEP
}

static void
one_answer_for_each_request (struct rig *rig, struct hand **hand, int peer, struct state *state, uint64_t number, unsigned steps) {
  const int fd = new_eventfd (number);

  peer_send (peer, &number, sizeof number, &fd, 1);
  close (fd);
  while (!serve (*hand, state, &steps)) {
    hand_say_type (*hand, KEEPER_GOOD, 0, NO_SLOT, 0);
    hand_kill (*hand);
    hand_free (*hand);
    *hand = rig_running_worker (rig);
    steps = 100;
  }
  peer_expect (peer, &number, sizeof number);
}

static void
is_exact_at_every_step (void) {
  struct state state = { 0 };
  unsigned before;
  RIG_BEGIN;

  hand_sync (hand, rig);
  before = rig_fds (rig);
  for (unsigned steps = 0; steps < 9; steps++)
    one_answer_for_each_request (rig, &hand, peer, &state, 1000 + steps, steps);
  hand_sync (hand, rig);
  g_assert_cmpuint (rig_fds (rig), ==, before);
  g_assert_true (peer_is_quiet (peer, 20));
  g_assert_cmpuint (hand->hello.deaths, ==, 8);
  close (peer);
}

/* Requests wait in a row, and workers die all the time. */
static void
is_exact_at_random (void) {
  const unsigned n = 301; /* seven at a time */
  GRand *rand = g_rand_new_with_seed (4711);
  struct state state = { 0 };
  uint64_t number = 0;
  unsigned before, kills = 0;
  RIG_BEGIN;

  hand_sync (hand, rig);
  before = rig_fds (rig);
  for (uint64_t i = 0; i < n; i++) {
    const int fd = new_eventfd (i + 1);

    number = i + 1;
    peer_send (peer, &number, sizeof number, &fd, 1);
    close (fd);
    if (i % 7 != 6)
      continue;
    for (unsigned served = 0; served < 7;) {
      unsigned steps = (unsigned)g_rand_int_range (rand, 0, 40);

      while (served < 7 && serve (hand, &state, &steps))
        served++;
      if (served == 7)
        break;
      hand_say_type (hand, KEEPER_GOOD, 0, NO_SLOT, 0);
      hand_kill (hand);
      hand_free (hand);
      hand = rig_running_worker (rig);
      kills++;
    }
    for (uint64_t expected = i - 5; expected <= i + 1; expected++)
      peer_expect (peer, &expected, sizeof expected);
  }
  hand_sync (hand, rig);
  g_assert_cmpuint (rig_fds (rig), ==, before);
  g_test_message ("%u kills", kills);
  g_rand_free (rand);
  close (peer);
}

int
main (int argc, char **argv) {
  rig_be_another (argc, argv);
  signal (SIGPIPE, SIG_IGN);
  g_test_init (&argc, &argv, NULL);
#define ADD(path, function) g_test_add_func ("/keeper/streams/" path, function)
  ADD ("gives-what-is-wanted", gives_what_is_wanted);
  ADD ("gives-large-and-trickled", gives_large_and_trickled);
  ADD ("gives-descriptors-with-their-bytes", gives_descriptors_with_their_bytes);
  ADD ("closes-descriptors-beyond-its-room", closes_descriptors_beyond_its_room);
  ADD ("sends-each-message-once", sends_each_message_once);
  ADD ("hears-what-the-dead-said", hears_what_the_dead_said);
  ADD ("is-exact-at-every-step", is_exact_at_every_step);
  ADD ("is-exact-at-random", is_exact_at_random);
#undef ADD
  return g_test_run ();
}
