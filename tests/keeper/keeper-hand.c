/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Workers in the test's hands, and front-ends. */
#include "keeper-rig-internal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- workers ---- */

static bool
is_readable (int fd, int ms) {
  struct pollfd pfd = { fd, POLLIN, 0 };

  return poll (&pfd, 1, ms) == 1;
}

bool
rig_no_worker (struct rig *rig, int ms) {
  return !is_readable (rig->workers_fd, ms);
}

static bool
hear_one (struct hand *hand, struct heard *heard, int ms) {
  ssize_t n;
  int fd;

  if (!is_readable (hand->wire, ms))
    return false;
  n = rig_receive_with_fd (hand->wire, heard, sizeof heard->message + KEEPER_BYTES_MAX, &fd);
  if (n <= 0)
    return false;
  g_assert_cmpuint ((size_t)n, ==, sizeof heard->message + heard->message.n_bytes);
  heard->bytes[heard->message.n_bytes] = 0;
  if (heard->message.type == KEEPER_SLOT) {
    const unsigned slot = heard->message.slot;

    g_assert_cmpint (fd, >=, 0);
    g_assert_cmpuint (slot, <, KEEPER_SLOTS);
    if (hand->slots[slot] >= 0)
      close (hand->slots[slot]);
    hand->slots[slot] = fd;
    hand->slot_messages[slot] = heard->message;
  } else {
    g_assert_cmpint (fd, ==, -1);
  }
  return true;
}

const struct heard *
hand_hear (struct hand *hand, int ms) {
  static struct heard heard;

  while (hear_one (hand, &heard, ms))
    if (heard.message.type != KEEPER_SLOT)
      return &heard;
  return NULL;
}

const struct heard *
hand_expect (struct hand *hand, enum keeper_type type) {
  const struct heard *heard = hand_hear (hand, PATIENCE_MS);

  if (!heard)
    g_error ("the keeper did not say %d", type);
  g_assert_cmpint (heard->message.type, ==, type);
  return heard;
}

struct hand *
rig_worker (struct rig *rig) {
  struct hand *hand = g_new0 (struct hand, 1);
  struct report report;
  struct heard heard;

  if (!is_readable (rig->workers_fd, PATIENCE_MS))
    rig_fail (rig, "no worker comes");
  hand->control = accept4 (rig->workers_fd, NULL, NULL, SOCK_CLOEXEC);
  g_assert_cmpint (hand->control, >=, 0);
  if (!is_readable (hand->control, PATIENCE_MS)
      || rig_receive_with_fd (hand->control, &report, sizeof report, &hand->wire) != sizeof report)
    rig_fail (rig, "a worker says nothing");
  hand->seen_at_us = (uint64_t)g_get_monotonic_time ();
  hand->pid = report.pid;
  hand->inode = report.inode;
  g_assert_cmpint (report.n_fds, ==, 0);
  g_assert_cmpint (report.death_signal, ==, SIGKILL);
  g_assert_false (report.signals_blocked);
  for (unsigned i = 0; i < KEEPER_SLOTS; i++)
    hand->slots[i] = -1;
  memcpy (&hand->hello, hand_expect (hand, KEEPER_HELLO)->bytes, sizeof hand->hello);
  g_assert_cmpuint (hand->hello.wire_version, ==, KEEPER_WIRE_VERSION);
  g_assert_cmpint ((int)hand->hello.keeper_pid, ==, rig->pid);
  if (hand->hello.has_state) {
    g_assert_true (hear_one (hand, &heard, PATIENCE_MS));
    g_assert_cmpint (hand->slots[KEEPER_SLOT_STATE], >=, 0);
  }
  return hand;
}

void
hand_check (struct hand *hand) {
  hand_say_type (hand, KEEPER_CHECKED, 0, KEEPER_NO_SLOT, 0);
}

void
hand_go (struct hand *hand) {
  const struct heard *heard = hand_expect (hand, KEEPER_GO);

  g_assert_cmpuint (heard->message.n_bytes, ==, sizeof hand->hello);
  memcpy (&hand->hello, heard->bytes, sizeof hand->hello);
}

struct hand *
rig_running_worker (struct rig *rig) {
  struct hand *hand = rig_worker (rig);

  hand_check (hand);
  hand_go (hand);
  return hand;
}

void
hand_free (struct hand *hand) {
  for (unsigned i = 0; i < KEEPER_SLOTS; i++)
    if (hand->slots[i] >= 0)
      close (hand->slots[i]);
  close (hand->wire);
  close (hand->control);
  g_free (hand);
}

/* Returns when the process has let go of everything. */
static void
wait_for_end (struct hand *hand) {
  char c;

  g_assert_true (is_readable (hand->control, PATIENCE_MS));
  g_assert_cmpint (recv (hand->control, &c, 1, 0), <=, 0);
}

void
hand_kill (struct hand *hand) {
  kill (hand->pid, SIGKILL);
  wait_for_end (hand);
}

void
hand_exit (struct hand *hand, int status) {
  rig_send_with_fds (hand->control, &status, sizeof status, NULL, 0);
  wait_for_end (hand);
}

void
hand_say (struct hand *hand, const struct keeper_message *message, const void *bytes, int fd) {
  uint8_t whole[KEEPER_MESSAGE_BYTES_MAX];

  memcpy (whole, message, sizeof *message);
  memcpy (whole + sizeof *message, bytes, message->n_bytes);
  rig_send_with_fds (hand->wire, whole, sizeof *message + message->n_bytes, &fd, fd >= 0 ? 1 : 0);
}

void
hand_say_type (struct hand *hand, enum keeper_type type, uint64_t epoch, unsigned slot, unsigned count) {
  hand_say (hand, &(struct keeper_message){ .type = type, .epoch = epoch, .slot = (uint8_t)slot, .count = count }, "", -1);
}

void
hand_want (struct hand *hand, enum keeper_stream stream, uint64_t epoch, uint64_t position, unsigned count) {
  hand_say (hand,
            &(struct keeper_message){ .type = KEEPER_WANT, .stream = stream, .epoch = epoch, .position = position, .count = count },
            "", -1);
}

void
hand_send (struct hand *hand, enum keeper_stream stream, uint64_t epoch, uint64_t number, const void *bytes, unsigned n,
           unsigned slot) {
  hand_say (hand,
            &(struct keeper_message){
              .type = KEEPER_SEND, .stream = stream, .epoch = epoch, .position = number, .n_bytes = n, .slot = (uint8_t)slot },
            bytes, -1);
}

void
hand_close (struct hand *hand, uint64_t epoch) {
  for (unsigned slot = KEEPER_SLOT_STREAM_FIRST; slot < KEEPER_SLOTS; slot++)
    if (hand->slots[slot] >= 0) {
      close (hand->slots[slot]);
      hand->slots[slot] = -1;
    }
  hand_say_type (hand, KEEPER_CLOSE, epoch, KEEPER_NO_SLOT, 0);
}

/* The keeper closes what it is told to drop: our end of a pipe shows that. */
void
hand_sync (struct hand *hand, struct rig *rig) {
  const struct keeper_message put = { .type = KEEPER_PUT, .slot = 15 };
  int ends[2];

  g_assert_cmpint (pipe2 (ends, O_CLOEXEC), ==, 0);
  hand_say (hand, &put, "", ends[1]);
  close (ends[1]);
  hand_say_type (hand, KEEPER_DROP, 0, 15, 0);
  if (!is_readable (ends[0], PATIENCE_MS))
    rig_fail (rig, "the keeper does not listen");
  close (ends[0]);
}

/* ---- what is heard of streams ---- */

void
hand_expect_data (struct hand *hand, enum keeper_stream stream, uint64_t epoch, uint64_t position, const void *bytes, unsigned n,
             unsigned n_slots) {
  const struct heard *heard = hand_expect (hand, KEEPER_DATA);

  g_assert_cmpuint (heard->message.stream, ==, stream);
  g_assert_cmpuint (heard->message.epoch, ==, epoch);
  g_assert_cmpuint (heard->message.position, ==, position);
  g_assert_cmpmem (heard->bytes, heard->message.n_bytes, bytes, n);
  g_assert_cmpuint (heard->message.n_slots, ==, n_slots);
}

void
hand_expect_gone (struct hand *hand, enum keeper_stream stream, uint64_t epoch, uint64_t position, enum keeper_gone why) {
  const struct heard *heard = hand_expect (hand, KEEPER_GONE);

  g_assert_cmpuint (heard->message.stream, ==, stream);
  g_assert_cmpuint (heard->message.epoch, ==, epoch);
  g_assert_cmpuint (heard->message.position, ==, position);
  g_assert_cmpuint (heard->message.count, ==, why);
}

void
rig_begin (struct rig **ret_rig, struct hand **ret_hand, int *ret_peer) {
  *ret_rig = rig_start (false);
  *ret_hand = rig_running_worker (*ret_rig);
  *ret_peer = rig_connect (*ret_rig);
  g_assert_cmpuint (hand_expect (*ret_hand, KEEPER_CONNECTED)->message.epoch, ==, 1);
}

/* ---- front-ends ---- */

void
peer_send (int fd, const void *bytes, size_t n, const int *fds, unsigned n_fds) {
  rig_send_with_fds (fd, bytes, n, fds, n_fds);
}

void
peer_expect (int fd, const void *bytes, size_t n) {
  g_autofree uint8_t *got = g_malloc (n);

  for (size_t have = 0; have < n;) {
    g_assert_true (is_readable (fd, PATIENCE_MS));
    const ssize_t more = recv (fd, got + have, n - have, 0);

    g_assert_cmpint (more, >, 0);
    have += (size_t)more;
  }
  g_assert_cmpmem (got, n, bytes, n);
}

bool
peer_is_quiet (int fd, int ms) {
  return !is_readable (fd, ms);
}

bool
peer_is_closed (int fd, int ms) {
  char c;

  return is_readable (fd, ms) && recv (fd, &c, 1, 0) <= 0;
}

int
new_eventfd (uint64_t mark) {
  const int fd = eventfd (0, EFD_CLOEXEC | EFD_NONBLOCK);

  if (fd < 0 || write (fd, &mark, sizeof mark) != sizeof mark)
    abort ();
  return fd;
}

uint64_t
mark_of (int fd) {
  uint64_t mark = 0;

  if (read (fd, &mark, sizeof mark) == sizeof mark && write (fd, &mark, sizeof mark) != sizeof mark)
    abort ();
  return mark;
}
