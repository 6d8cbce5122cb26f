/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Front-ends that are in trouble themselves: one that is stopped with everything under way, one that reads nothing, one whose
 * messages come byte by byte. Workers are killed meanwhile. The device goes on when the front-end does, and operators are
 * answered all the time.
 */
#include "fault-rig.h"
#include "testing.h"

#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *const none[] = { NULL };

static void
open_stage (struct stage *stage) {
  fault_begin (stage, none, 1024, GUEST_BYTES_TOUCHED);
}

static void
kill_the_worker (struct stage *stage) {
  g_assert_true (backend_kill_worker (backend_wait_worker (stage->backend, 0, fe_patience_ms ())));
}

/* ---- stopped ---- */

/* The front-end is a process of its own, and the guest in it judges for itself. */
static pid_t
start_front_end (struct stage *stage, unsigned steps) {
  pid_t pid;

  fflush (NULL);
  pid = fork ();
  g_assert_cmpint (pid, >=, 0);
  if (pid == 0) {
    for (unsigned i = 0; i < steps; i++)
      stage_act (stage);
    guest_check (stage->guest);
    _exit (0);
  }
  fe_disconnect (stage->guest->fe); /* its own only */
  return pid;
}

static void
is_stopped (gconstpointer data) {
  const unsigned kills_of_8 = GPOINTER_TO_UINT (data);
  unsigned stops = 0, kills = 0;
  struct stage stage;
  int status = 0;
  pid_t pid;

  open_stage (&stage);
  pid = start_front_end (&stage, testing_steps (250));
  while (waitpid (pid, &status, WNOHANG) == 0) {
    g_usleep (testing_below (stage.random, 6000));
    if (kill (pid, SIGSTOP) < 0)
      break;
    stops++;
    for (int i = 0; i < 2; i++) {
      g_autoptr (JsonNode) answer = NULL;

      if (testing_below (stage.random, 8) < kills_of_8) {
        kill_the_worker (&stage);
        kills++;
      }
      answer = backend_control_again (stage.backend, "{\"execute\":\"status\"}");
      g_assert_true (json_object_has_member (json_node_get_object (answer), "return"));
    }
    kill (pid, SIGCONT);
  }
  g_test_message ("stopped %u times, %u workers killed", stops, kills);
  g_assert_true (WIFEXITED (status) && WEXITSTATUS (status) == 0);
  g_assert_cmpuint (stops, >, 3);
  /* What this process knows of the guest is old: how often it was asked to give back, too. */
  stage.guest->reclaims_asked += 10000;
  guest_reconnect (stage.guest);
  guest_set_target (stage.guest, true, 77);
  guest_set_target (stage.guest, false, 0);
  g_assert_cmpuint (fault_check (&stage), ==, kills);
  fault_end (&stage);
}

/* ---- reads nothing ---- */

#define UNREAD 150u /* fewer than what a socket and the keeper hold */

/* For a while: every reply is there when it reads again, once. */
static void
reads_later (void) {
  struct stage stage;
  struct fe *fe;

  open_stage (&stage);
  fe = stage.guest->fe;
  for (unsigned i = 0; i < UNREAD; i++) {
    guest_must (stage.guest, fe_send (fe, i % 2 ? FE_GET_FEATURES : FE_GET_QUEUE_NUM, 0, NULL, 0, NULL, 0));
    if (i % 15 == 7)
      kill_the_worker (&stage);
  }
  operation_named ("grant-and-release")->run (stage.guest); /* the rings go on */
  guest_drain (stage.guest);
  for (unsigned i = 0; i < UNREAD; i++) {
    uint64_t value = 0;
    uint32_t bytes;

    guest_must (stage.guest, fe_receive (fe, i % 2 ? FE_GET_FEATURES : FE_GET_QUEUE_NUM, &value, sizeof value, &bytes));
    g_assert_cmpuint (value, ==, i % 2 ? fe->features_offered : fe->queue_count);
  }
  g_assert_cmpuint (fault_check (&stage), ==, UNREAD / 15);
  guest_read_config (stage.guest, false); /* no reply is left over */
  fault_end (&stage);
}

/* For good: its connection ends, with the reason in the log, its memory is the host's again, and the next one is served. */
static void
never_reads (void) {
  struct stage stage;
  unsigned n = 0;
  size_t mark;

  open_stage (&stage);
  guest_submit_grant (stage.guest, 50, DOMYBS_HINT_ANY, 0, 0, 0);
  guest_drain (stage.guest);
  mark = backend_log_size (stage.backend);
  while (fe_send (stage.guest->fe, FE_GET_FEATURES, 0, NULL, 0, NULL, 0)) {
    g_assert_cmpuint (++n, <, 1000000);
    if (n % 400 == 399)
      kill_the_worker (&stage);
  }
  g_test_message ("closed after %u requests", n);
  g_assert_true (backend_wait_log (stage.backend, mark, "connection closed: ", fe_patience_ms ()));
  guest_reconnect (stage.guest); /* sees that the window is empty */
  guest_submit_grant (stage.guest, 50, DOMYBS_HINT_ANY, 0, 0, 0);
  fault_check (&stage);
  fault_end (&stage);
}

/* ---- trickles ---- */

struct trickle {
  struct stage *stage;
  unsigned bytes, kills, since; /* the last kill */
  unsigned every; /* from one kill to the next there are at least so many bytes; 0: none */
};

static void
before_a_byte (void *data) {
  struct trickle *trickle = data;

  trickle->bytes++;
  /* Not so soon that it looks like a crash loop. */
  if (trickle->every && ++trickle->since > trickle->every && testing_once_in (trickle->stage->random, trickle->every / 2)) {
    kill_the_worker (trickle->stage);
    trickle->kills++;
    trickle->since = 0;
  } else if (testing_once_in (trickle->stage->random, 40)) {
    g_usleep (testing_below (trickle->stage->random, 300));
  }
}

/* All of a life: handshake, descriptors, memory tables, configuration, stops and starts; and few workers live to see more than
 * some messages. */
static void
trickles (gconstpointer data) {
  struct stage stage;
  struct trickle trickle = { .stage = &stage, .every = GPOINTER_TO_UINT (data) };

  open_stage (&stage);
  stage.guest->trickle = before_a_byte;
  stage.guest->trickle_data = &trickle;
  guest_reconnect (stage.guest);
  for (size_t i = 0; i < n_operations; i++) {
    operations[i].run (stage.guest);
    guest_drain (stage.guest);
    if (stage.guest->session == 0)
      guest_begin (stage.guest);
  }
  g_test_message ("%u bytes, %u workers killed", trickle.bytes, trickle.kills);
  g_assert_cmpuint (trickle.bytes, >, 2000);
  g_assert_cmpuint (fault_check (&stage), ==, trickle.kills);
  stage.guest->trickle = NULL;
  stage.guest->fe->trickle = NULL;
  fault_end (&stage);
}

int
main (int argc, char **argv) {
  fault_init (&argc, &argv);
  g_test_add_data_func ("/fault/front-ends/is-stopped", GUINT_TO_POINTER (0), is_stopped);
  g_test_add_data_func ("/fault/front-ends/is-stopped-and-kills", GUINT_TO_POINTER (1), is_stopped);
  g_test_add_func ("/fault/front-ends/reads-later", reads_later);
  g_test_add_func ("/fault/front-ends/never-reads", never_reads);
  g_test_add_data_func ("/fault/front-ends/trickles", GUINT_TO_POINTER (0), trickles);
  g_test_add_data_func ("/fault/front-ends/trickles-and-kills", GUINT_TO_POINTER (40), trickles);
  return g_test_run ();
}
