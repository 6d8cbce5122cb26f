/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Requests that take a while, over deaths: of the back-end, which forgets all, and of the connection. */
#include "front.h"

#include <string.h>
#include <unistd.h>

#include "core/vhost-user.h"
#include "testing.h"

static void
test_death (void) {
  struct front front;

  front_begin (&front);
  front_start (&front);
  front_offer_three (&front);
  front_device_answer (&front, 1);
  FRONT_EXPECT_ANSWERS (&front, 0);
  g_assert_true (front_signalled (front.calls[0]));
  front_offer (&front, 0, 1, "one"); /* nobody was told of this one */
  for (unsigned deaths = 0; deaths < 3; deaths++) {
    front_connect (&front);
    front_start (&front);
    FRONT_EXPECT_TAKEN (&front, 2, 3, 1);
    g_assert_true (front_signalled (front.calls[0])); /* that of the one before may never have come */
  }
  front_device_answer (&front, 2);
  front_device_answer (&front, 0);
  front_device_answer (&front, 0);
  FRONT_EXPECT_ANSWERS (&front, 1, 2, 3);
  g_assert_cmpstr (front_answer (&front, 0, 1), ==, "ok: one");
  g_assert_cmpstr (front_answer (&front, 0, 2), ==, "ok: two");
  g_assert_cmpstr (front_answer (&front, 0, 3), ==, "ok: three");
  front_connect (&front);
  front_start (&front);
  g_assert_cmpuint (front.n_taken, ==, 0);
  front_offer (&front, 0, 3, "again");
  front_kick (&front, 0);
  FRONT_EXPECT_TAKEN (&front, 3);
  front_end (&front);
}

/* The front-end closes, the back-end lives: what was in flight comes again with the next connection, and only there. */
static void
test_reconnect (void) {
  struct front front;

  front_begin (&front);
  front_start (&front);
  front_offer_three (&front);
  close (front.fd);
  front.fd = -1;
  front_expect_closed (&front, NULL);
  front_connect (&front);
  front_start (&front);
  FRONT_EXPECT_TAKEN (&front, 2, 0, 3);
  while (front.n_taken)
    front_device_answer (&front, 0);
  FRONT_EXPECT_ANSWERS (&front, 2, 0, 3);
  front_end (&front);
}

/* Any driver, any deaths: every request is answered once. */
static void
test_random_deaths (void) {
  g_autoptr (GRand) rand = testing_rand ();
  const unsigned steps = testing_steps (5000);
  gboolean offered[FRONT_QUEUES][FRONT_NUM / 2] = { { 0 } };
  unsigned answers = 0, deaths = 0;
  struct front front;

  front_begin (&front);
  front_start (&front);
  for (unsigned queue = 1; queue < 3; queue++)
    front_start_queue (&front, queue);
  front_run (&front);
  for (unsigned step = 0; step < steps; step++) {
    const unsigned queue = (unsigned)testing_below (rand, 3);
    const uint16_t head = (uint16_t)testing_below (rand, FRONT_NUM / 2);
    uint16_t heads[FRONT_NUM];
    unsigned n;

    switch (testing_below (rand, 8)) {
    case 0:
    case 1:
    case 2:
      if (offered[queue][head])
        break;
      offered[queue][head] = TRUE;
      front_offer (&front, queue, head, "?");
      if (testing_once_in (rand, 2))
        front_kick (&front, queue);
      break;
    case 3:
      if (!testing_once_in (rand, 8))
        break;
      deaths++;
      front_connect (&front);
      front_start (&front);
      for (unsigned i = 1; i < 3; i++)
        front_start_queue (&front, i);
      front_run (&front);
      for (unsigned q = 0, in_flight = 0; q < 3; q++) { /* all that are open, at once */
        for (uint16_t h = 0; h < FRONT_NUM / 2; h++)
          in_flight += offered[q][h] ? 1 : 0;
        if (q == 2)
          g_assert_cmpuint (front.n_taken, ==, in_flight);
      }
      break;
    case 4: /* a stop that has to wait, and a start */
      if (!testing_once_in (rand, 8))
        break;
      front_send_state (&front, VHU_GET_VRING_BASE, queue, 0);
      front_run (&front);
      for (unsigned i = front.n_taken; i-- > 0;)
        if (front.taken[i].queue == queue)
          front_device_answer (&front, i);
      vhost_user_session_stopped (vhost_user_socket_session (front.socket), queue);
      {
        uint32_t state[2];

        g_assert_cmpint (front_reply (&front, VHU_GET_VRING_BASE, state, sizeof state, NULL), ==, 8);
        g_assert_cmpuint (state[1], <=, front.avail[queue]);
      }
      front_start_queue (&front, queue);
      front_run (&front);
      break;
    default:
      if (front.n_taken)
        front_device_answer (&front, (unsigned)testing_below (rand, front.n_taken));
    }
    for (unsigned q = 0; q < 3; q++) {
      n = front_collect (&front, q, heads);
      for (unsigned i = 0; i < n; i++, answers++) {
        g_assert_true (offered[q][heads[i]]);
        offered[q][heads[i]] = FALSE;
        g_assert_cmpstr (front_answer (&front, q, heads[i]), ==, "ok: ?");
      }
    }
  }
  g_assert_cmpuint (front.n_closed, ==, 0);
  g_assert_cmpuint (answers, >, steps / 10);
  g_assert_cmpuint (deaths, >, steps / 1000);
  front_end (&front);
}

int
main (int argc, char **argv) {
  front_tests_init (&argc, &argv);
  g_test_add_func ("/vhost-user-deaths/what had no answer is carried out again", test_death);
  g_test_add_func ("/vhost-user-deaths/a front-end that connects again gets its answers", test_reconnect);
  g_test_add_func ("/vhost-user-deaths/however often, each request is answered once", test_random_deaths);
  return g_test_run ();
}
