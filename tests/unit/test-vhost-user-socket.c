/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A vhost-user session on its front-end's own socket: what comes, what goes, and how it ends. */
#include "front.h"

#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/vhost-user.h"
#include "testing.h"

static void
expect_closed (struct front *front, const char *why) {
  front_run (front);
  g_assert_cmpuint (front->n_closed, ==, 1);
  g_assert_cmpstr (front->closed_why, ==, why);
  g_assert_null (front->socket);
}

/* ---- service ---- */

static void
test_all_queues (void) {
  struct front front;
  uint16_t heads[FRONT_NUM];

  front_begin (&front);
  front.answer_at_once = TRUE;
  front_negotiate (&front);
  front_give_memory (&front);
  for (unsigned queue = 0; queue < FRONT_QUEUES; queue++)
    front_start_queue (&front, queue);
  front_run (&front);
  for (unsigned queue = 0; queue < FRONT_QUEUES; queue++)
    front_signalled (front.calls[queue]);
  for (unsigned round = 0; round < 20; round++)
    for (unsigned queue = 0; queue < FRONT_QUEUES; queue++) {
      const uint16_t head = (uint16_t)((round + queue) % 3);

      front_offer (&front, queue, head, "question");
      g_assert_cmpuint (front_collect (&front, queue, heads), ==, 0);
      front_kick (&front, queue);
      g_assert_cmpuint (front_collect (&front, queue, heads), ==, 1);
      g_assert_cmpuint (heads[0], ==, head);
      g_assert_cmpstr (front_answer (&front, queue, head), ==, "ok: question");
      g_assert_true (front_signalled (front.calls[queue]));
    }
  g_assert_cmpuint (front.n_closed, ==, 0);
  front_end (&front);
}

static void
test_config (void) {
  const uint32_t ask[3] = { 0, 60, 0 };
  uint32_t answer[3 + 15];
  uint32_t wce[4] = { 32, 1, 0, 1 };
  struct front front;

  front_begin (&front);
  front_negotiate (&front);
  front_send (&front, VHU_GET_CONFIG, (uint32_t[18]){ ask[0], ask[1], ask[2] }, 12 + 60, NULL, 0);
  g_assert_cmpint (front_reply (&front, VHU_GET_CONFIG, answer, sizeof answer, NULL), ==, sizeof answer);
  g_assert_cmpmem (&answer[3], 7, "config", 7);
  front_send (&front, VHU_SET_CONFIG, wce, 12 + 1, NULL, 0);
  front_run (&front);
  g_assert_cmpuint (front.n_config_writes, ==, 1);
  g_assert_cmpuint (front.n_closed, ==, 0);
  wce[0] = 256; /* of the device's own 256 bytes */
  front_send (&front, VHU_SET_CONFIG, wce, 12 + 1, NULL, 0);
  front_run (&front);
  g_assert_cmpuint (front.n_config_writes, ==, 1);
  g_assert_cmpuint (front.n_closed, ==, 1);
  front_end (&front);
}

/* What the device does not do is not offered, and refused. */
static void
test_not_offered (void) {
  const uint64_t reset = 1u << VHU_PROTOCOL_F_RESET_DEVICE;
  struct front front;

  front_begin (&front);
  front_send (&front, VHU_SET_PROTOCOL_FEATURES, &reset, sizeof reset, NULL, 0);
  expect_closed (&front, "SET_PROTOCOL_FEATURES with a feature that was not offered");
  front.n_closed = 0;
  front.type.inflight = FALSE;
  front_connect (&front);
  front_set_inflight (&front, front.ram_fd, 4096, 0, 1, 8);
  expect_closed (&front, "a request whose protocol feature was not negotiated");
  front_end (&front);
}

/* ---- what comes ---- */

static void
test_byte_by_byte (void) {
  const struct {
    uint32_t header[3];
    uint64_t value;
  } __attribute__ ((packed)) features = { { VHU_SET_FEATURES, 1, 8 }, 1ull << 9 };
  struct front front;

  front_begin (&front);
  for (size_t i = 0; i < sizeof features; i++) {
    g_assert_cmpint (send (front.fd, (const char *)&features + i, 1, 0), ==, 1);
    front_run (&front);
  }
  g_assert_true (front_ask_u64 (&front, VHU_GET_FEATURES) & 1ull << 9);
  g_assert_cmpuint (front.n_closed, ==, 0);
  front_end (&front);
}

/* Many messages wait in the socket at once: each one gets the descriptor that came with it. */
static void
test_burst (void) {
  struct front front;
  uint16_t heads[FRONT_NUM];

  front_begin (&front);
  front.answer_at_once = TRUE;
  front_negotiate (&front);
  front_give_memory (&front);
  for (unsigned queue = 0; queue < FRONT_QUEUES; queue++)
    front_start_queue (&front, queue);
  for (unsigned queue = 0; queue < FRONT_QUEUES; queue++) {
    front_send_vring_fds (&front, queue);
    front_offer (&front, queue, 1, "?");
  }
  front_run (&front);
  for (unsigned queue = 0; queue < FRONT_QUEUES; queue++) {
    g_assert_cmpuint (front_collect (&front, queue, heads), ==, 1);
    g_assert_true (front_signalled (front.calls[queue]));
    g_assert_false (front_signalled (front.errs[queue]));
  }
  g_assert_cmpuint (front.n_closed, ==, 0);
  front_end (&front);
}

static void
test_too_many_fds (void) {
  struct front front;
  int fds[20];
  const uint64_t queue = 0;

  front_begin (&front);
  for (unsigned i = 0; i < G_N_ELEMENTS (fds); i++)
    fds[i] = front.kicks[0];
  front_send (&front, VHU_SET_VRING_KICK, &queue, sizeof queue, fds, 20);
  expect_closed (&front, "more file descriptors than any request has");
  front.n_closed = 0;
  front_connect (&front);
  front_send (&front, VHU_SET_VRING_KICK, &queue, sizeof queue, fds, 9);
  expect_closed (&front, "more file descriptors than any request has");
  front.n_closed = 0;
  front_connect (&front);
  front_send (&front, VHU_SET_VRING_KICK, &queue, sizeof queue, fds, 2);
  expect_closed (&front, "more file descriptors than expected");
  front.n_closed = 0;
  front_connect (&front);
  for (unsigned i = 0; i < VHU_HEADER_BYTES; i++) { /* each byte brings some */
    front_send_raw (&front, "\14\0\0\0\1\0\0\0\10\0\0\0" + i, 1, fds, 3);
    front_run (&front);
  }
  expect_closed (&front, "more file descriptors than any request has");
  front_end (&front);
}

/* ---- what goes ---- */

static void
test_does_not_read (void) {
  struct front front;
  unsigned sent = 0;

  front_begin (&front);
  for (; sent < 100000 && !front.n_closed; sent++) {
    front_send (&front, VHU_GET_FEATURES, NULL, 0, NULL, 0);
    front_run (&front);
  }
  expect_closed (&front, "the front-end does not read its replies");
  g_assert_cmpuint (sent, >=, VHOST_USER_SOCKET_OUT_BYTES / (VHU_HEADER_BYTES + 8));
  front_end (&front);
}

/* One that reads late gets every reply, in order, and the descriptor with its own. */
static void
test_reads_late (void) {
  const struct {
    uint64_t bytes, offset;
    uint16_t n_queues, queue_size;
    uint32_t padding;
  } asked = { 0, 0, 2, 128, 0 };
  struct front front;
  unsigned n = 0, filled = 0;
  uint64_t payload[3];
  int fd;

  front_begin (&front);
  front_negotiate (&front);
  for (; filled < 600; filled++) { /* more than the socket takes, on Linux of today */
    front_send (&front, VHU_GET_FEATURES, NULL, 0, NULL, 0);
    front_run (&front);
  }
  front_send (&front, VHU_GET_INFLIGHT_FD, &asked, sizeof asked, NULL, 0);
  front_send (&front, VHU_GET_QUEUE_NUM, NULL, 0, NULL, 0);
  front_run (&front);
  g_assert_cmpuint (front.n_closed, ==, 0);
  for (; n < filled; n++)
    g_assert_cmpint (front_reply (&front, VHU_GET_FEATURES, payload, sizeof payload, NULL), ==, 8);
  g_assert_cmpint (front_reply (&front, VHU_GET_INFLIGHT_FD, payload, sizeof payload, &fd), ==, 24);
  g_assert_cmpint (lseek (fd, 0, SEEK_END), ==, (off_t)payload[0]);
  close (fd);
  g_assert_cmpint (front_reply (&front, VHU_GET_QUEUE_NUM, payload, sizeof payload, NULL), ==, 8);
  front_end (&front);
}

/* ---- the end ---- */

static void
test_ends (void) {
  struct front front;
  const uint32_t half[2] = { VHU_GET_FEATURES, 1 }, nonsense[5] = { 0 };

  front_begin (&front);
  shutdown (front.fd, SHUT_RDWR);
  expect_closed (&front, NULL);
  front.n_closed = 0;
  front_connect (&front);
  front_start (&front);
  g_assert_cmpuint (front.n_closed, ==, 0);
  shutdown (front.fd, SHUT_WR);
  expect_closed (&front, NULL);
  front.n_closed = 0;
  front_connect (&front);
  g_assert_cmpint (send (front.fd, half, sizeof half, 0), ==, sizeof half);
  shutdown (front.fd, SHUT_RDWR);
  expect_closed (&front, "the front-end closed in the middle of a message");
  front.n_closed = 0;
  front_connect (&front);
  g_assert_cmpint (send (front.fd, nonsense, sizeof nonsense, 0), ==, sizeof nonsense);
  expect_closed (&front, "wrong protocol version");
  front.n_closed = 0;
  front_connect (&front);
  front_start (&front);
  front_die (&front); /* not a word */
  front_run (&front);
  g_assert_cmpuint (front.n_closed, ==, 0);
  front_end (&front);
}

static void
test_memory_taken_away (void) {
  struct front front;

  front_begin (&front);
  front.answer_at_once = TRUE;
  front_start (&front);
  front_offer (&front, 0, 1, "?");
  g_assert_cmpint (ftruncate (front.ram_fd, 0), ==, 0);
  { /* kicks without touching what is gone */
    const uint64_t one = 1;

    g_assert_cmpint (write (front.kicks[0], &one, sizeof one), ==, sizeof one);
  }
  expect_closed (&front, "the front-end took away memory that it had given us");
  front_end (&front);
}

/* ---- backend channel ---- */

/* Whether a CONFIG_CHANGE waits, and nothing behind it. */
static gboolean
config_change_came (struct front *front) {
  uint32_t header[4];
  ssize_t n;

  front_run (front);
  n = recv (front->channel, header, sizeof header, MSG_DONTWAIT);
  if (n < 0)
    return FALSE;
  g_assert_cmpint (n, ==, VHU_HEADER_BYTES);
  g_assert_cmpuint (header[0], ==, VHU_BACKEND_CONFIG_CHANGE);
  g_assert_cmpuint (header[1], ==, 1);
  g_assert_cmpuint (header[2], ==, 0);
  return TRUE;
}

static void
test_config_change (void) {
  struct front front;
  VhostUserSession *session;

  front_begin (&front);
  session = vhost_user_socket_session (front.socket);
  vhost_user_session_config_changed (session);
  front_negotiate (&front);
  g_assert_false (config_change_came (&front)); /* QEMU bears it only when the device was started */
  front_give_memory (&front);
  front_start_queue (&front, 0);
  g_assert_true (config_change_came (&front));
  g_assert_false (config_change_came (&front));
  vhost_user_session_config_changed (session);
  g_assert_true (config_change_came (&front));
  front_send_state (&front, VHU_GET_VRING_BASE, 0, 0);
  front_run (&front);
  vhost_user_session_config_changed (session);
  vhost_user_session_config_changed (session);
  g_assert_false (config_change_came (&front));
  front_start_queue (&front, 0);
  g_assert_true (config_change_came (&front));
  g_assert_false (config_change_came (&front));
  front_end (&front);
}

static void
test_config_change_not_allowed (void) {
  struct front front;

  front_begin (&front);
  front.type.config_changes = FALSE;
  front_start (&front);
  vhost_user_session_config_changed (vhost_user_socket_session (front.socket));
  g_assert_false (config_change_came (&front));
  front_end (&front);
}

static void
test_channel_comes_and_goes (void) {
  struct front front;
  int pair[2];

  front_begin (&front);
  front.answer_at_once = TRUE;
  front_start (&front);
  close (front.channel);
  front_run (&front);
  g_assert_cmpuint (front.n_closed, ==, 0);
  vhost_user_session_config_changed (vhost_user_socket_session (front.socket));
  for (unsigned i = 0; i < 100; i++) { /* each takes the place of the one before */
    g_assert_cmpint (socketpair (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), ==, 0);
    front.channel = pair[0];
    front_send (&front, VHU_SET_BACKEND_REQ_FD, NULL, 0, &pair[1], 1);
    close (pair[1]);
    g_assert_cmpint (config_change_came (&front), ==, i == 0);
    if (i < 99)
      close (pair[0]);
  }
  g_assert_cmpuint (front.n_closed, ==, 0);
  g_assert_cmpint (send (front.channel, "an answer to nothing", 20, 0), ==, 20);
  front_run (&front);
  g_assert_cmpuint (front.n_closed, ==, 1);
  front_end (&front);
}

static void
test_channel_is_full (void) {
  struct front front;

  front_begin (&front);
  front_start (&front);
  for (unsigned i = 0; i < 100000 && !front.n_closed; i++) {
    vhost_user_session_config_changed (vhost_user_socket_session (front.socket));
    front_run (&front);
  }
  g_assert_cmpuint (front.n_closed, ==, 0); /* only the channel is given up */
  close (front.channel);
  front.channel = -1;
  g_assert_cmpuint (front_ask_u64 (&front, VHU_GET_QUEUE_NUM), ==, FRONT_QUEUES);
  front_end (&front);
}

int
main (int argc, char **argv) {
  front_tests_init (&argc, &argv);
  g_test_add_func ("/vhost-user-socket/16 queues are served", test_all_queues);
  g_test_add_func ("/vhost-user-socket/config space is read, and written to where the device allows it", test_config);
  g_test_add_func ("/vhost-user-socket/what the device does not do is not offered", test_not_offered);
  g_test_add_func ("/vhost-user-socket/messages may come byte by byte", test_byte_by_byte);
  g_test_add_func ("/vhost-user-socket/of many messages each has its own descriptors", test_burst);
  g_test_add_func ("/vhost-user-socket/too many descriptors end the session", test_too_many_fds);
  g_test_add_func ("/vhost-user-socket/a front-end that does not read is closed", test_does_not_read);
  g_test_add_func ("/vhost-user-socket/a front-end that reads late gets everything", test_reads_late);
  g_test_add_func ("/vhost-user-socket/every end is told once, and its reason", test_ends);
  g_test_add_func ("/vhost-user-socket/memory that is taken away ends the session", test_memory_taken_away);
  g_test_add_func ("/vhost-user-socket/channel/a change of config is told when a queue runs", test_config_change);
  g_test_add_func ("/vhost-user-socket/channel/it is not told where that crashes", test_config_change_not_allowed);
  g_test_add_func ("/vhost-user-socket/channel/it comes and goes", test_channel_comes_and_goes);
  g_test_add_func ("/vhost-user-socket/channel/one that nobody reads is given up", test_channel_is_full);
  return g_test_run ();
}
