/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Streams that rest (io/quiet-fds.h) while another one is busy: the main loop does not look at their descriptors any more, and
 * nothing else is different. What comes, ends, is asked for or is to be sent wakes them.
 */
#include "io/secure-stream.h"
#include "testing.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define N_STREAMS 6u
#define ROUNDS_TO_REST 300u /* more than enough */
#define MANY_BYTES (1u << 20)

typedef struct {
  SecureStream *stream;
  int peer; /* −1: the other end is a stream, too */
  gsize sent, got;
  gboolean ended, once; /* reads but once when it is called */
  guint calls;
  GIOCondition last;
} Side;

typedef struct {
  GMainContext *context;
  Side sides[N_STREAMS];
} Scene;

static guint polled; /* descriptors, in the last turn */
static guint turns;

static gint
count_and_poll (GPollFD *fds, guint n, gint timeout) {
  polled = n;
  turns++;
  return g_poll (fds, n, timeout);
}

static void
on_ready (SecureStream *stream, GIOCondition ready, gpointer data) {
  Side *side = data;
  guint8 bytes[4096];
  gssize n = 0;

  side->calls++;
  side->last = ready;
  while ((ready & G_IO_IN) && (n = secure_stream_read (stream, bytes, sizeof bytes)) > 0) {
    side->got += (gsize)n;
    if (side->once)
      return;
  }
  side->ended |= (ready & G_IO_IN) && n != -EAGAIN;
  if (side->ended)
    secure_stream_watch (stream, 0, on_ready, side);
}

static void
scene_begin (Scene *scene) {
  memset (scene, 0, sizeof *scene);
  scene->context = g_main_context_new ();
  g_main_context_set_poll_func (scene->context, count_and_poll);
  g_main_context_push_thread_default (scene->context);
  for (guint i = 0; i < N_STREAMS; i++) {
    Side *side = &scene->sides[i];
    int ends[2];

    g_assert_cmpint (socketpair (AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), ==, 0);
    side->stream = secure_stream_new (ends[0]);
    side->peer = ends[1];
    secure_stream_watch (side->stream, G_IO_IN, on_ready, side);
  }
}

static void
scene_end (Scene *scene) {
  for (guint i = 0; i < N_STREAMS; i++) {
    secure_stream_free (scene->sides[i].stream);
    if (scene->sides[i].peer >= 0)
      close (scene->sides[i].peer);
  }
  g_main_context_pop_thread_default (scene->context);
  g_main_context_unref (scene->context);
}

static void
send_to (Side *side, gsize n) {
  static const guint8 bytes[8192];

  g_assert_cmpint (write (side->peer, bytes, n), ==, n);
  side->sent += n;
}

#define RUN_UNTIL(scene, condition)                                                                                            \
  do                                                                                                                           \
    while (!(condition))                                                                                                       \
      g_main_context_iteration ((scene)->context, TRUE);                                                                       \
  while (0)

/* One is busy, until all others rest. */
static void
make_rest (Scene *scene, Side *busy) {
  for (guint i = 0; i < ROUNDS_TO_REST; i++) {
    send_to (busy, 1);
    RUN_UNTIL (scene, busy->got == busy->sent);
  }
}

static void
test_rest (void) {
  Scene scene;

  scene_begin (&scene);
  send_to (&scene.sides[0], 1);
  RUN_UNTIL (&scene, scene.sides[0].got == 1);
  g_assert_cmpuint (polled, ==, 2 + N_STREAMS); /* and the loop's own, and the one that they rest behind */
  make_rest (&scene, &scene.sides[0]);
  g_assert_cmpuint (polled, ==, 2 + 1);
  for (guint i = 1; i < N_STREAMS; i++) {
    const guint calls = scene.sides[i].calls;

    send_to (&scene.sides[i], 100);
    RUN_UNTIL (&scene, scene.sides[i].got == 100);
    g_assert_cmpuint (scene.sides[i].calls, ==, calls + 1);
  }
  g_assert_cmpuint (polled, ==, 2 + N_STREAMS);
  make_rest (&scene, &scene.sides[3]);
  g_assert_cmpuint (polled, ==, 2 + 1);
  scene_end (&scene);
}

/* Whatever happens to a stream that rests. */
static void
test_wake (void) {
  Scene scene;
  Side *busy = &scene.sides[0];

  scene_begin (&scene);
  make_rest (&scene, busy);
  secure_stream_again (scene.sides[1].stream);
  RUN_UNTIL (&scene, scene.sides[1].calls == 1);
  secure_stream_watch (scene.sides[2].stream, G_IO_IN | G_IO_OUT, on_ready, &scene.sides[2]);
  RUN_UNTIL (&scene, scene.sides[2].calls > 0);
  g_assert_cmpint (scene.sides[2].last, ==, G_IO_OUT);
  secure_stream_watch (scene.sides[2].stream, G_IO_IN, on_ready, &scene.sides[2]);
  close (scene.sides[3].peer);
  RUN_UNTIL (&scene, scene.sides[3].ended);
  scene.sides[3].peer = -1;
  /* broken by a write of its owner's */
  close (scene.sides[4].peer);
  scene.sides[4].peer = -1;
  g_assert_cmpint (secure_stream_write (scene.sides[4].stream, "x", 1), ==, -EPIPE);
  RUN_UNTIL (&scene, scene.sides[4].ended);
  /* it ends, and its descriptor's number is another's at once */
  secure_stream_free (scene.sides[5].stream);
  close (scene.sides[5].peer);
  {
    int ends[2];

    g_assert_cmpint (socketpair (AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), ==, 0);
    scene.sides[5] = (Side){ .stream = secure_stream_new (ends[0]), .peer = ends[1] };
    secure_stream_watch (scene.sides[5].stream, G_IO_IN, on_ready, &scene.sides[5]);
  }
  send_to (&scene.sides[5], 10);
  RUN_UNTIL (&scene, scene.sides[5].got == 10);
  make_rest (&scene, busy);
  send_to (&scene.sides[5], 10);
  RUN_UNTIL (&scene, scene.sides[5].got == 20);
  scene_end (&scene);
}

/* Now one, now another, now many at a time: all that is sent arrives. */
static void
test_random (void) {
  GRand *rand = testing_rand ();
  Scene scene;
  guint busy = 0;

  scene_begin (&scene);
  for (guint step = testing_steps (20000); step > 0; step--) {
    if (testing_once_in (rand, 500))
      busy = (guint)testing_below (rand, N_STREAMS);
    send_to (&scene.sides[busy], 1);
    if (testing_once_in (rand, 40))
      for (guint n = (guint)testing_below (rand, N_STREAMS); n > 0; n--)
        send_to (&scene.sides[testing_below (rand, N_STREAMS)], 1 + testing_below (rand, 5000));
    if (testing_once_in (rand, 100))
      secure_stream_again (scene.sides[testing_below (rand, N_STREAMS)].stream);
    for (guint i = 0; i < N_STREAMS; i++)
      RUN_UNTIL (&scene, scene.sides[i].got == scene.sides[i].sent);
  }
  scene_end (&scene);
  g_rand_free (rand);
}

/* With TLS both ends rest; then one has more to send than its socket takes. */
static void
test_tls (void) {
  static const char text[] = "x:00112233445566778899aabbccddeeff";
  static const guint8 bytes[MANY_BYTES];
  g_autoptr (PskKeys) keys = psk_keys_parse (text, strlen (text), "keys", NULL);
  g_autoptr (SecureSide) server_side = secure_side_new_server (keys, NULL), client_side = NULL;
  Scene scene;
  Side *server = &scene.sides[1], *client = &scene.sides[2];
  const guint8 *key;
  gsize n_key, sent = 0;
  gssize n;

  g_assert (psk_keys_find (keys, "x", &key, &n_key));
  client_side = secure_side_new_client ("x", key, n_key, NULL);
  scene_begin (&scene);
  secure_stream_free (client->stream);
  client->stream = secure_stream_new (dup (server->peer));
  secure_stream_watch (client->stream, G_IO_IN, on_ready, client);
  close (client->peer);
  close (server->peer);
  client->peer = server->peer = -1;
  secure_stream_start_tls (server->stream, server_side);
  secure_stream_start_tls (client->stream, client_side);
  RUN_UNTIL (&scene, secure_stream_identity (server->stream) && secure_stream_identity (client->stream));
  make_rest (&scene, &scene.sides[0]);
  g_assert_cmpuint (polled, ==, 2 + 1);
  while ((n = secure_stream_write (client->stream, bytes, sizeof bytes)) > 0)
    sent += (gsize)n;
  g_assert_cmpint (n, ==, -EAGAIN);
  g_assert_cmpuint (secure_stream_unsent (client->stream), >, 0);
  RUN_UNTIL (&scene, server->got == sent);
  make_rest (&scene, &scene.sides[0]);
  g_assert_cmpuint (polled, ==, 2 + 1);
  g_assert_cmpint (secure_stream_write (server->stream, bytes, 10), ==, 10);
  RUN_UNTIL (&scene, client->got == 10);
  client->once = TRUE;
  /* awake, each message takes one turn of the loop, and no look in vain */
  for (gsize i = 2; i < 12; i++) {
    const guint before = turns, calls = client->calls;

    g_assert_cmpint (secure_stream_write (server->stream, bytes, 10), ==, 10);
    RUN_UNTIL (&scene, client->got == i * 10);
    g_assert_cmpuint (turns, ==, before + 1);
    g_assert_cmpuint (client->calls, ==, calls + 1);
  }
  scene_end (&scene);
}

static void
on_ready_again (SecureStream *stream, GIOCondition ready, gpointer data) {
  Side *side = data;
  guint8 byte;

  if (!(ready & G_IO_IN) || secure_stream_read (stream, &byte, 1) != 1)
    return;
  side->calls++;
  send_to (side, 1);
}

/* More that are always ready than one turn wakes: each has its turns. */
static void
test_crowd (void) {
  enum { CROWD = 200, TURNS = 2000 };
  g_autoptr (GMainContext) context = g_main_context_new ();
  Side *sides = g_new0 (Side, CROWD);

  g_main_context_push_thread_default (context);
  for (guint i = 0; i < CROWD; i++) {
    int ends[2];

    g_assert_cmpint (socketpair (AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), ==, 0);
    sides[i].stream = secure_stream_new (ends[0]);
    sides[i].peer = ends[1];
    send_to (&sides[i], 1);
    secure_stream_watch (sides[i].stream, G_IO_IN, on_ready_again, &sides[i]);
  }
  for (guint turn = 0; turn < TURNS; turn++)
    g_main_context_iteration (context, FALSE);
  for (guint i = 0; i < CROWD; i++) {
    g_assert_cmpuint (sides[i].calls, >, TURNS / 4);
    secure_stream_free (sides[i].stream);
    close (sides[i].peer);
  }
  g_main_context_pop_thread_default (context);
  g_free (sides);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  alarm (120); /* who is not woken waits forever */
  g_test_add_func ("/quiet-fds/rest", test_rest);
  g_test_add_func ("/quiet-fds/wake", test_wake);
  g_test_add_func ("/quiet-fds/random", test_random);
  g_test_add_func ("/quiet-fds/tls", test_tls);
  g_test_add_func ("/quiet-fds/crowd", test_crowd);
  return g_test_run ();
}
