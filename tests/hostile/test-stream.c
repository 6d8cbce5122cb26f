/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The connection as a stream: pieces, floods, silence, disconnects in every place, and the descriptors and mappings that a long
 * series of good requests could leave behind.
 */
#include "rig.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- pieces ---- */

static void
send_trickling (struct fe *fe, const uint8_t *bytes, size_t n, const int *fds, unsigned n_fds) {
  for (size_t i = 0; i < n; i++) {
    fe_must (fe, fe_send_raw (fe, fe->sock, bytes + i, 1, fds, i ? 0 : n_fds));
    if (i % 8 == 0)
      g_usleep (500);
  }
}

/* Slow is not wrong: this must work. */
static void
bytes_trickle_one_at_a_time (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open_to (rig, FE_STEP_SET_FEATURES);
  const struct fe_region ram = fe_ram_region (fe);
  const uint32_t get_features[3] = { FE_GET_FEATURES, FE_FLAG_VERSION, 0 };
  uint32_t table[3 + 2 + 8] = { FE_SET_MEM_TABLE, FE_FLAG_VERSION | FE_FLAG_NEED_REPLY, 40, 1, 0 };
  uint64_t value;
  uint32_t n;
  struct fe_answer answer;

  send_trickling (fe, (const uint8_t *)get_features, sizeof get_features, NULL, 0);
  fe_must (fe, fe_receive (fe, FE_GET_FEATURES, &value, sizeof value, &n));
  g_assert_cmpuint (n, ==, 8);
  memcpy (table + 5, &ram, sizeof ram);
  send_trickling (fe, (const uint8_t *)table, sizeof table, &fe->ram_fd, 1);
  fe_must (fe, fe_receive (fe, FE_SET_MEM_TABLE, &value, sizeof value, &n));
  g_assert_cmpuint (value, ==, 0);
  for (enum fe_step step = FE_STEP_VRING_NUM; step <= FE_STEP_HELLO; step++)
    fe_must (fe, fe_step (fe, step, NULL));
  fe_must (fe, fe_grant (fe, 1, DOMYBS_HINT_ANY, 0, 0, 0, &answer));
  g_assert_cmpuint (answer.status, ==, DOMYBS_OK);
}

static void
many_messages_in_one_send (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open_to (rig, FE_STEP_CONNECT);
  uint32_t messages[100][3];
  uint64_t value;
  uint32_t n;

  for (size_t i = 0; i < G_N_ELEMENTS (messages); i++)
    memcpy (messages[i], (const uint32_t[3]){ FE_GET_FEATURES, FE_FLAG_VERSION, 0 }, 12);
  fe_must (fe, fe_send_raw (fe, fe->sock, messages, sizeof messages, NULL, 0));
  for (size_t i = 0; i < G_N_ELEMENTS (messages); i++)
    fe_must (fe, fe_receive (fe, FE_GET_FEATURES, &value, sizeof value, &n));
}

/* Half a message, with descriptors on it, and then nobody. */
static void
half_a_message_then_gone (struct rig *rig, const void *data) {
  uint8_t table[12 + 40] = { 0 };
  const uint32_t header[3] = { FE_SET_MEM_TABLE, FE_FLAG_VERSION, 40 };

  memcpy (table, header, sizeof header);
  table[12] = 1;
  for (size_t n = 1; n < sizeof table; n += 3) {
    g_autoptr (fe_t) fe = rig_open_to (rig, FE_STEP_SET_FEATURES);

    fe_must (fe, fe_send_raw (fe, fe->sock, table, n, &fe->ram_fd, 1));
  }
}

static void
descriptors_on_every_piece (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open_to (rig, FE_STEP_SET_FEATURES);
  const uint32_t message[3] = { FE_SET_OWNER, FE_FLAG_VERSION, 0 };
  const int fds[4] = { fe->ram_fd, fe->ram_fd, fe->ram_fd, fe->ram_fd };

  for (size_t i = 0; i < sizeof message; i++)
    if (!fe_send_raw (fe, fe->sock, (const uint8_t *)message + i, 1, fds, 4))
      break; /* it may have hung up already */
  rig_expect_closed (rig, fe, "more file descriptors");
}

/* ---- disconnects ---- */

static void
gone_after_step (struct rig *rig, const void *data) {
  const enum fe_step step = (enum fe_step)GPOINTER_TO_UINT (data);

  for (int i = 0; i < 3; i++)
    fe_free (rig_open_to (rig, step));
}

static void
gone_in_the_middle_of_hello (struct rig *rig, const void *data) {
  for (int i = 0; i < 5; i++) {
    g_autoptr (fe_t) fe = rig_open_to (rig, FE_STEP_ENABLE);
    uint8_t hello[128];
    uint32_t head, len;

    fe->channel_mode = FE_CHANNEL_HOLD;
    fe_submit (fe, 0, hello, fe_encode_hello (hello, 64, 77), 4096);
    while (!fe->held)
      g_assert_false (fe_wait_used (fe, &fe->queues[0], &head, &len, 5));
  }
}

static void
gone_with_blocks_granted_and_touched (struct rig *rig, const void *data) {
  for (int i = 0; i < 5; i++) {
    g_autoptr (fe_t) fe = rig_open (rig);
    struct fe_answer answer;

    fe_must (fe, fe_grant (fe, 16, DOMYBS_HINT_ANY, DOMYBS_GRANT_F_ALL, 0, 0, &answer));
    for (uint64_t block = 0; block < 16; block++)
      memset (fe_block (fe, answer.runs[0].start + block), 1, 65536);
  }
}

/* ---- floods and silence ---- */

/* A front-end that asks and asks and never reads an answer: closed when what waits for it passes a bound; the control socket is
 * answered all the time. */
static void
replies_are_never_read (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open_to (rig, FE_STEP_SHMEM_CONFIG);
  const uint64_t before = backend_anonymous_kib (rig->backend);
  uint8_t message[12 + 12 + 64] = { 0 };
  const uint32_t header[6] = { FE_GET_CONFIG, FE_FLAG_VERSION, 12 + 64, 0, 64, 0 };
  const int64_t deadline = fe_now_ms () + fe_patience_ms ();
  bool closed = false;

  memcpy (message, header, sizeof header);
  while (!closed) {
    const ssize_t n = send (fe->sock, message, sizeof message, MSG_NOSIGNAL | MSG_DONTWAIT);

    closed = n < 0 && errno != EAGAIN;
    if (n >= 0)
      continue;
    g_assert_cmpint (backend_status (rig->backend, "granted-blocks"), ==, 0);
    /* Not reading any more from a peer that does not read is as good as closing. */
    if (fe_now_ms () > deadline)
      break;
    g_usleep (1000);
  }
  if (!backend_is_instrumented (rig->backend))
    g_assert_cmpuint (backend_anonymous_kib (rig->backend), <, before + 4096);
  if (closed)
    rig_expect_logged (rig, "does not read");
}

static void
flood_of_requests_leaves_room_for_others (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open_to (rig, FE_STEP_CONNECT);
  const int64_t end = fe_now_ms () + 500;
  struct rig_waits waits = { 0 };
  uint64_t value;

  while (fe_now_ms () < end || waits.n < 10) {
    int64_t asked;

    for (int i = 0; i < 100; i++)
      fe_must (fe, fe_send (fe, FE_GET_FEATURES, 0, NULL, 0, NULL, 0));
    asked = fe_now_ms ();
    backend_status (rig->backend, "granted-blocks");
    rig_waited (&waits, fe_now_ms () - asked);
    for (int i = 0; i < 100; i++) {
      uint32_t n;
      fe_must (fe, fe_receive (fe, FE_GET_FEATURES, &value, sizeof value, &n));
    }
  }
  rig_expect_short_waits (&waits);
}

static void
flood_of_kicks (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open (rig);
  struct fe_answer answer;

  for (int i = 0; i < 20000; i++)
    fe_kick (&fe->queues[i & 1]);
  fe_must (fe, fe_grant (fe, 1, DOMYBS_HINT_ANY, 0, 0, 0, &answer));
  g_assert_cmpuint (answer.status, ==, DOMYBS_OK);
}

static void
second_front_end_while_one_is_connected (struct rig *rig, const void *data) {
  g_autoptr (fe_t) first = rig_open (rig);
  struct fe_answer answer;

  for (int i = 0; i < 20; i++) {
    g_autoptr (fe_t) second = fe_new ();

    fe_must (second, fe_connect (second, rig->backend->socket_path));
    if (fe_send (second, FE_GET_FEATURES, 0, NULL, 0, NULL, 0))
      fe_wait_closed (second, 20); /* turned away, or left waiting: both are fine */
  }
  fe_must (first, fe_grant (first, 1, DOMYBS_HINT_ANY, 0, 0, 0, &answer));
  g_assert_cmpuint (answer.status, ==, DOMYBS_OK);
}

/* ---- repetition ---- */

/* What one connection holds does not grow with how often it says the same thing. */
static void
settle_and_count (struct rig *rig, struct fe *fe, unsigned *ret_fds, unsigned *ret_maps) {
  uint64_t value;

  fe_must (fe, fe_get_u64 (fe, FE_GET_FEATURES, &value)); /* everything before it is done */
  *ret_fds = backend_fds (rig->backend);
  *ret_maps = backend_maps (rig->backend);
}

static void
repeat_memory_table (struct fe *fe) {
  fe_must (fe, fe_send_mem_table (fe));
}

static void
repeat_kick (struct fe *fe) {
  fe_must (fe, fe_queue_send_kick (fe, &fe->queues[0]));
}

static void
repeat_call (struct fe *fe) {
  fe_must (fe, fe_queue_send_call (fe, &fe->queues[1]));
}

static void
repeat_err (struct fe *fe) {
  const uint64_t index = 0;

  fe_must (fe, fe_send (fe, FE_SET_VRING_ERR, 0, &index, sizeof index, &fe->queues[0].call, 1));
}

static void
repeat_call_without_fd (struct fe *fe) {
  const uint64_t index = FE_VRING_NOFD | 1;

  fe_must (fe, fe_send (fe, FE_SET_VRING_CALL, 0, &index, sizeof index, NULL, 0));
}

static void
repeat_channel (struct fe *fe) {
  int pair[2];

  g_assert_cmpint (socketpair (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), ==, 0);
  fe_close (&fe->channel);
  fe->channel = pair[0];
  fe_must (fe, fe_send_acked (fe, FE_SET_BACKEND_REQ_FD, NULL, 0, &pair[1], 1));
  close (pair[1]);
}

static void
repeat_stop_and_start (struct fe *fe) {
  fe_must (fe, fe_stop_queue (fe, 0));
  fe_must (fe, fe_start_queue (fe, 0));
}

static void
repeat_hello (struct fe *fe) {
  struct fe_answer answer;

  fe_must (fe, fe_hello (fe, 64, &answer));
  g_assert_cmpuint (answer.status, ==, DOMYBS_OK);
}

static void
repeat_reset_and_hello (struct fe *fe) {
  struct fe_answer answer;

  fe_must (fe, fe_drop_window (fe));
  repeat_stop_and_start (fe);
  fe_must (fe, fe_hello (fe, 64, &answer));
  g_assert_cmpuint (answer.status, ==, DOMYBS_OK);
}

struct repetition {
  const char *name;
  void (*function) (struct fe *fe);
  unsigned times;
};

static const struct repetition repetitions[] = {
  { "memory-table", repeat_memory_table, 500 },
  { "kick", repeat_kick, 1000 },
  { "call", repeat_call, 1000 },
  { "err", repeat_err, 1000 },
  { "call-without-fd", repeat_call_without_fd, 1000 },
  { "channel", repeat_channel, 500 },
  { "stop-and-start", repeat_stop_and_start, 300 },
  { "hello", repeat_hello, 300 },
  { "reset-and-hello", repeat_reset_and_hello, 100 },
};

static void
repeated_leaks_nothing (struct rig *rig, const void *data) {
  const struct repetition *repetition = data;
  g_autoptr (fe_t) fe = rig_open (rig);
  unsigned fds[2], maps[2];
  uint64_t kib;

  for (int i = 0; i < 20; i++)
    repetition->function (fe);
  settle_and_count (rig, fe, &fds[0], &maps[0]);
  kib = backend_anonymous_kib (rig->backend);
  for (unsigned i = 0; i < repetition->times; i++)
    repetition->function (fe);
  settle_and_count (rig, fe, &fds[1], &maps[1]);
  g_assert_cmpuint (fds[1], <=, fds[0]);
  if (!backend_is_instrumented (rig->backend)) {
    g_assert_cmpuint (maps[1], <=, maps[0] + 2);
    g_assert_cmpuint (backend_anonymous_kib (rig->backend), <=, kib + 512);
  }
}

static void
reconnects_leak_nothing (struct rig *rig, const void *data) {
  for (int i = 0; i < 200; i++) {
    g_autoptr (fe_t) fe = rig_open (rig);
    struct fe_answer answer;

    fe_must (fe, fe_grant (fe, 8, DOMYBS_HINT_LOCAL, 0, 0, 0, &answer));
  }
}

int
main (int argc, char **argv) {
  g_test_init (&argc, &argv, NULL);
  rig_add ("/stream/bytes-trickle-one-at-a-time", bytes_trickle_one_at_a_time, NULL);
  rig_add ("/stream/many-messages-in-one-send", many_messages_in_one_send, NULL);
  rig_add ("/stream/half-a-message-then-gone", half_a_message_then_gone, NULL);
  rig_add ("/stream/descriptors-on-every-piece", descriptors_on_every_piece, NULL);
  for (enum fe_step step = FE_STEP_CONNECT; step < FE_STEPS; step++) {
    g_autofree char *path = g_strdup_printf ("/stream/gone-after/%s", fe_step_name (step));

    rig_add (path, gone_after_step, GUINT_TO_POINTER (step));
  }
  rig_add ("/stream/gone-in-the-middle-of-hello", gone_in_the_middle_of_hello, NULL);
  rig_add ("/stream/gone-with-blocks-granted-and-touched", gone_with_blocks_granted_and_touched, NULL);
  rig_add ("/stream/replies-are-never-read", replies_are_never_read, NULL);
  rig_add ("/stream/flood-of-requests-leaves-room-for-others", flood_of_requests_leaves_room_for_others, NULL);
  rig_add ("/stream/flood-of-kicks", flood_of_kicks, NULL);
  rig_add ("/stream/second-front-end-while-one-is-connected", second_front_end_while_one_is_connected, NULL);
  for (size_t i = 0; i < G_N_ELEMENTS (repetitions); i++) {
    g_autofree char *path = g_strdup_printf ("/stream/repeated-leaks-nothing/%s", repetitions[i].name);

    rig_add (path, repeated_leaks_nothing, &repetitions[i]);
  }
  rig_add ("/stream/reconnects-leak-nothing", reconnects_leak_nothing, NULL);
  return rig_run ();
}
