/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The backend channel in bad hands: HELLO needs it, and the front-end does not answer, answers nonsense, or lies. While it waits the
 * back-end serves everything else; no session ever begins on a window that the memory table does not show.
 */
#include "rig.h"

#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

static void
submit_hello (struct fe *fe) {
  uint8_t request[128];

  fe_submit (fe, 0, request, fe_encode_hello (request, 64, 4711), 4096);
}

/* Until the front-end has seen the MAP and done its mode's worst; a HELLO that is answered already says so by true. */
static bool
wait_for_map (struct fe *fe, struct fe_answer *ret_answer) {
  const int64_t deadline = fe_now_ms () + fe_patience_ms ();
  const unsigned before = fe->maps;

  while (fe->maps == before && fe_now_ms () < deadline)
    if (fe_complete (fe, 0, ret_answer, 5))
      return true;
  return false;
}

/* Whatever else is asked meanwhile is answered; and the queue can be stopped. */
static void
lives_while_hello_waits (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open_to (rig, FE_STEP_ENABLE);
  struct fe_answer answer;
  struct domybs_config config;
  uint64_t value;
  int64_t asked;

  fe->channel_mode = (enum fe_channel_mode)GPOINTER_TO_UINT (data);
  submit_hello (fe);
  g_assert_false (wait_for_map (fe, &answer));
  asked = fe_now_ms ();
  for (int i = 0; i < 10; i++) {
    fe_must (fe, fe_get_u64 (fe, FE_GET_FEATURES, &value));
    fe_must (fe, fe_get_config (fe, &config));
    fe_must (fe, fe_send_mem_table (fe));
    g_assert_cmpint (backend_status (rig->backend, "granted-blocks"), ==, 0);
  }
  fe_must (fe, fe_stop_queue (fe, DOMYBS_VQ_REQUEST));
  g_assert_cmpint (fe_now_ms () - asked, <, 8000); /* the device itself gives up after 10 s: nobody has waited for that */
  g_assert_cmpuint (fe->queues[DOMYBS_VQ_REQUEST].next_avail, ==, 0); /* the HELLO was put back */
}

/* It gives up by itself; that takes as long as the device's own timeout. */
static void
hello_fails_when_map_is_never_answered (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open_to (rig, FE_STEP_ENABLE);
  struct fe_answer answer;

  fe->channel_mode = (enum fe_channel_mode)GPOINTER_TO_UINT (data);
  submit_hello (fe);
  fe_must (fe, fe_complete (fe, 0, &answer, 10000 + fe_patience_ms ()));
  g_assert_cmpuint (answer.status, !=, DOMYBS_OK);
  g_assert_cmpuint (answer.session, ==, 0);
  rig_expect_logged (rig, "window");
}

static void
hello_fails_at_once (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open_to (rig, FE_STEP_ENABLE);
  struct fe_answer answer;

  fe->channel_mode = (enum fe_channel_mode)GPOINTER_TO_UINT (data);
  submit_hello (fe);
  fe_must (fe, fe_complete (fe, 0, &answer, fe_patience_ms ()));
  g_assert_cmpuint (answer.status, !=, DOMYBS_OK);
  g_assert_cmpuint (answer.session, ==, 0);
  rig_expect_logged (rig, "window");
  /* and the next one may work */
  if (fe->channel >= 0) {
    fe->channel_mode = FE_CHANNEL_SERVE;
    fe_must (fe, fe_hello (fe, 64, &answer));
    g_assert_cmpuint (answer.status, ==, DOMYBS_OK);
  }
}

static void
answer_breaks_the_protocol (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open_to (rig, FE_STEP_ENABLE);
  struct fe_answer answer;

  fe->channel_mode = (enum fe_channel_mode)GPOINTER_TO_UINT (data);
  submit_hello (fe);
  wait_for_map (fe, &answer);
  rig_expect_closed (rig, fe, "a");
}

static void
answer_that_nothing_was_asked_for (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open (rig);
  const uint32_t reply[5] = { FE_CHANNEL_SHMEM_MAP, FE_FLAG_VERSION | FE_FLAG_REPLY, 8, 0, 0 };

  fe_must (fe, fe_send_raw (fe, fe->channel, reply, sizeof reply, NULL, 0));
  rig_expect_closed (rig, fe, "nothing was asked");
}

static void
flood_on_the_channel (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open (rig);
  uint8_t garbage[65536];

  memset (garbage, 0, sizeof garbage);
  for (int i = 0; i < 100; i++)
    if (!fe_send_raw (fe, fe->channel, garbage, sizeof garbage, NULL, 0))
      break;
  rig_expect_closed (rig, fe, NULL);
}

static void
descriptors_on_the_channel (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open_to (rig, FE_STEP_ENABLE);
  struct fe_answer answer;
  const uint32_t reply[5] = { FE_CHANNEL_SHMEM_MAP, FE_FLAG_VERSION | FE_FLAG_REPLY, 8, 1, 0 };
  const int fds[3] = { fe->ram_fd, fe->ram_fd, fe->ram_fd };

  fe->channel_mode = FE_CHANNEL_MUTE;
  submit_hello (fe);
  g_assert_false (wait_for_map (fe, &answer));
  fe_must (fe, fe_send_raw (fe, fe->channel, reply, sizeof reply, fds, 3));
  fe_complete (fe, 0, &answer, 500); /* refused, or closed; the rig counts the descriptors */
}

/* ---- no usable channel at all ---- */

static void
hello_without_a_channel (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = fe_new ();
  struct fe_answer answer;

  for (enum fe_step step = FE_STEP_CONNECT; step <= FE_STEP_ENABLE; step++)
    if (step != FE_STEP_CHANNEL)
      fe_must (fe, fe_step (fe, step, rig->backend->socket_path));
  submit_hello (fe);
  fe_must (fe, fe_complete (fe, 0, &answer, fe_patience_ms ()));
  g_assert_cmpuint (answer.status, ==, DOMYBS_FAILED);
  rig_expect_logged (rig, "channel");
}

/* A QEMU before 11.0 has no shared-memory regions. */
static void
hello_without_the_shmem_feature (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open_to (rig, FE_STEP_GET_PROTOCOL);
  struct fe_answer answer;

  fe->protocol_offered &= ~(1ull << 22);
  for (enum fe_step step = FE_STEP_SET_PROTOCOL; step <= FE_STEP_ENABLE; step++)
    if (step != FE_STEP_SHMEM_CONFIG)
      fe_must (fe, fe_step (fe, step, NULL));
  submit_hello (fe);
  fe_must (fe, fe_complete (fe, 0, &answer, fe_patience_ms ()));
  g_assert_cmpuint (answer.status, ==, DOMYBS_FAILED);
  rig_expect_logged (rig, "shared-memory");
}

static void
channel_of_the_wrong_kind (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open_to (rig, FE_STEP_QUEUE_NUM);
  const char *kind = data;
  int pair[2] = { -1, -1 };

  if (strcmp (kind, "pipe") == 0)
    g_assert_cmpint (pipe (pair), ==, 0);
  else if (strcmp (kind, "dev-null") == 0)
    pair[0] = open ("/dev/null", O_RDWR);
  else if (strcmp (kind, "datagram") == 0)
    g_assert_cmpint (socketpair (AF_UNIX, SOCK_DGRAM, 0, pair), ==, 0);
  else if (strcmp (kind, "directory") == 0)
    pair[0] = open ("/tmp", O_RDONLY | O_DIRECTORY);
  else
    pair[0] = eventfd (0, 0);
  fe_must (fe, fe_send (fe, FE_SET_BACKEND_REQ_FD, 0, NULL, 0, &pair[0], 1));
  close (pair[0]);
  fe_close (&pair[1]);
  rig_expect_closed (rig, fe, "channel");
}

/* A socket that is not connected to anybody, or to the back-end itself: useless, harmless. */
static void
channel_to_nowhere (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open_to (rig, FE_STEP_QUEUE_NUM);
  struct fe_answer answer;
  int fd = socket (AF_UNIX, SOCK_STREAM, 0);

  fe_must (fe, fe_send (fe, FE_SET_BACKEND_REQ_FD, 0, NULL, 0, &fd, 1));
  close (fd);
  for (enum fe_step step = FE_STEP_OWNER; step <= FE_STEP_ENABLE; step++)
    if (!fe_step (fe, step, NULL))
      return;
  submit_hello (fe);
  fe_must (fe, fe_complete (fe, 0, &answer, fe_patience_ms ()));
  g_assert_cmpuint (answer.status, ==, DOMYBS_FAILED);
}

static void
channel_is_the_main_socket (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open_to (rig, FE_STEP_QUEUE_NUM);
  struct fe_answer answer;

  fe_must (fe, fe_send (fe, FE_SET_BACKEND_REQ_FD, 0, NULL, 0, &fe->sock, 1));
  for (enum fe_step step = FE_STEP_OWNER; step <= FE_STEP_ENABLE; step++)
    if (!fe_step (fe, step, NULL))
      return;
  submit_hello (fe);
  fe_complete (fe, 0, &answer, 500);
}

static void
channel_replaced_while_map_is_open (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open_to (rig, FE_STEP_ENABLE);
  struct fe_answer answer;
  int pair[2];

  fe->channel_mode = FE_CHANNEL_MUTE;
  submit_hello (fe);
  g_assert_false (wait_for_map (fe, &answer));
  g_assert_cmpint (socketpair (AF_UNIX, SOCK_STREAM, 0, pair), ==, 0);
  fe_must (fe, fe_send (fe, FE_SET_BACKEND_REQ_FD, 0, NULL, 0, &pair[0], 1));
  close (pair[0]);
  close (pair[1]);
  rig_expect_any_log (rig);
}

static void
channel_shut_while_map_is_open (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open_to (rig, FE_STEP_ENABLE);
  struct fe_answer answer;

  fe->channel_mode = FE_CHANNEL_MUTE;
  submit_hello (fe);
  g_assert_false (wait_for_map (fe, &answer));
  g_assert_cmpint (shutdown (fe->channel, SHUT_RDWR), ==, 0);
  fe_close (&fe->channel);
  fe_must (fe, fe_complete (fe, 0, &answer, fe_patience_ms ()));
  g_assert_cmpuint (answer.status, ==, DOMYBS_FAILED);
}

/* Nobody reads the channel while the target changes and changes: the control socket goes on working. */
static void
channel_is_never_read (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open (rig);
  struct fe_answer answer;

  for (int i = 0; i < 1500; i++) {
    g_autofree char *command = g_strdup_printf ("{\"execute\":\"set-target\",\"arguments\":{\"blocks\":%d}}", 1 + i % 100);
    g_autoptr (JsonNode) done = backend_control (rig->backend, command);
  }
  fe_must (fe, fe_grant (fe, 1, DOMYBS_HINT_ANY, 0, 0, 0, &answer));
  g_assert_cmpuint (answer.status, ==, DOMYBS_OK);
  g_autoptr (JsonNode) undone = backend_control (rig->backend, "{\"execute\":\"set-target\",\"arguments\":{\"blocks\":null}}");
}

int
main (int argc, char **argv) {
  g_test_init (&argc, &argv, NULL);
#define MODE(m) GUINT_TO_POINTER (FE_CHANNEL_##m)
  rig_add ("/channel/lives-while-map-is-not-answered", lives_while_hello_waits, MODE (MUTE));
  rig_add ("/channel/lives-while-map-is-half-answered", lives_while_hello_waits, MODE (HALF_ANSWER));
  rig_add ("/channel/hello-fails-when-map-is-never-answered", hello_fails_when_map_is_never_answered, MODE (MUTE));
  rig_add ("/channel/hello-fails-when-the-table-never-comes", hello_fails_when_map_is_never_answered, MODE (NO_TABLE));
  rig_add ("/channel/hello-fails-when-the-table-shows-another-file", hello_fails_when_map_is_never_answered, MODE (OTHER_FD));
  rig_add ("/channel/hello-fails-when-map-is-refused", hello_fails_at_once, MODE (REFUSE));
  rig_add ("/channel/hello-fails-when-the-channel-is-closed", hello_fails_at_once, MODE (CLOSE));
  rig_add ("/channel/answer-is-garbage", answer_breaks_the_protocol, MODE (GARBAGE));
  rig_add ("/channel/answer-is-for-another-request", answer_breaks_the_protocol, MODE (WRONG_REQUEST));
  rig_add ("/channel/answer-comes-twice", answer_breaks_the_protocol, MODE (TWO_ANSWERS));
  rig_add ("/channel/answer-that-nothing-was-asked-for", answer_that_nothing_was_asked_for, NULL);
  rig_add ("/channel/flood", flood_on_the_channel, NULL);
  rig_add ("/channel/descriptors-on-it", descriptors_on_the_channel, NULL);
  rig_add ("/channel/hello-without-a-channel", hello_without_a_channel, NULL);
  rig_add ("/channel/hello-without-the-shmem-feature", hello_without_the_shmem_feature, NULL);
  rig_add ("/channel/of-kind/pipe", channel_of_the_wrong_kind, "pipe");
  rig_add ("/channel/of-kind/dev-null", channel_of_the_wrong_kind, "dev-null");
  rig_add ("/channel/of-kind/datagram-socket", channel_of_the_wrong_kind, "datagram");
  rig_add ("/channel/of-kind/directory", channel_of_the_wrong_kind, "directory");
  rig_add ("/channel/of-kind/eventfd", channel_of_the_wrong_kind, "eventfd");
  rig_add ("/channel/to-nowhere", channel_to_nowhere, NULL);
  rig_add ("/channel/is-the-main-socket", channel_is_the_main_socket, NULL);
  rig_add ("/channel/replaced-while-map-is-open", channel_replaced_while_map_is_open, NULL);
  rig_add ("/channel/shut-while-map-is-open", channel_shut_while_map_is_open, NULL);
  rig_add ("/channel/is-never-read", channel_is_never_read, NULL);
  return rig_run ();
}
