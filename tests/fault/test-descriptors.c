/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Descriptors and processes that can't be had (EMFILE, EAGAIN): in the worker, at each call of an operation and of its start;
 * in the keeper, which then waits and tries again: a front-end stays in the queue of the socket, a worker starts later. Nothing
 * is lost meanwhile.
 */
#include "fault-rig.h"
#include "testing.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

static const char *const none[] = { NULL };

static void
open_stage (struct stage *stage) {
  fault_begin (stage, none, 1024, GUEST_BYTES_TOUCHED);
  guest_submit_grant (stage->guest, 100, DOMYBS_HINT_ANY, 0, 0, 0);
  guest_drain (stage->guest);
}

/* ---- worker ---- */

static void
every_call (gconstpointer data) {
  const struct operation *operation = data;
  struct stage stage;

  open_stage (&stage);
  g_assert_cmpuint (fault_every_call (&stage, operation, FAULT_DESCRIPTOR, EMFILE, 1), >, 0);
  fault_end (&stage);
}

/* Another session, in a window of its own. */
static void
reset_and_begin (struct guest *guest) {
  guest_reset (guest);
  guest_begin (guest);
}

static void
every_start (void) {
  struct stage stage;

  open_stage (&stage);
  fault_every_start (&stage, FAULT_DESCRIPTOR, EMFILE, testing_steps (16));
  fault_end (&stage);
}

/* An operator who can't be let in for a while waits, and the guest's requests do not. */
static void
operator_waits (void) {
  g_autoptr (JsonNode) greeting = NULL;
  struct stage stage;
  int fd;

  open_stage (&stage);
  fault_arm (FAULT_WORKER, FAULT_DESCRIPTOR, 1, UINT64_MAX / 2, EMFILE, 0);
  fd = control_connect (stage.backend->control_path);
  g_assert_cmpint (fd, >=, 0);
  fault_wait_failed (&stage, FAULT_WORKER, FAULT_DESCRIPTOR, 1);
  for (int i = 0; i < 200; i++) {
    guest_submit_stats (stage.guest, 1);
    guest_drain (stage.guest);
  }
  /* so often for 200 requests is no endless round */
  g_assert_cmpuint (fault_disarm (FAULT_WORKER, FAULT_DESCRIPTOR), <, 200);
  greeting = control_read (fd, fe_patience_ms ());
  g_assert_nonnull (greeting);
  close (fd);
  g_assert_cmpuint (fault_check (&stage), ==, 0);
  fault_end (&stage);
}

/* ---- keeper ---- */

/* The next front-end is accepted when there is a descriptor for it. */
static void
front_end_waits (void) {
  struct stage stage;

  open_stage (&stage);
  fault_arm (FAULT_KEEPER, FAULT_DESCRIPTOR, 1, 3, EMFILE, 0);
  guest_reconnect (stage.guest);
  g_assert_cmpuint (fault_disarm (FAULT_KEEPER, FAULT_DESCRIPTOR), ==, 3);
  g_assert_cmpuint (fault_check (&stage), ==, 0);
  fault_end (&stage);
}

struct failing_start {
  const char *name;
  enum fault_kind kind;
  int error;
  uint64_t times;
};

static const struct failing_start failing_starts[] = {
  { "no-socket-once", FAULT_DESCRIPTOR, EMFILE, 1 },
  { "no-socket-for-long", FAULT_DESCRIPTOR, ENFILE, 7 },
  { "no-process-once", FAULT_FORK, EAGAIN, 1 },
  { "no-process-for-long", FAULT_FORK, ENOMEM, 7 },
};

/* A worker dies, and the next one can't be started: not the first time, not the second … Requests wait, and none is lost. */
static void
worker_waits (gconstpointer data) {
  const struct failing_start *start = data;
  struct stage stage;

  open_stage (&stage);
  for (int i = 0; i < 3; i++) {
    fault_arm (FAULT_KEEPER, start->kind, 1, start->times, start->error, 0);
    g_assert_true (backend_kill_worker (backend_wait_worker (stage.backend, 0, fe_patience_ms ())));
    operation_named ("grant-and-release")->run (stage.guest);
    guest_drain (stage.guest);
    g_assert_cmpuint (fault_disarm (FAULT_KEEPER, start->kind), ==, start->times);
    g_assert_cmpuint (fault_check (&stage), ==, 1 + start->times);
  }
  fault_end (&stage);
}

/* An operator's restart or upgrade that can't be begun is refused, with the reason, and the worker that there is goes on. */
static void
replacing_is_refused (gconstpointer data) {
  const struct failing_start *start = data;
  static const char *const commands[] = { "restart", "upgrade" };
  struct stage stage;

  open_stage (&stage);
  for (size_t i = 0; i < G_N_ELEMENTS (commands); i++) {
    g_autofree char *command = g_strdup_printf ("{\"execute\":\"%s\"}", commands[i]);
    const pid_t worker = backend_worker (stage.backend);
    g_autoptr (JsonNode) answer = NULL;
    g_autofree char *text = NULL;

    fault_arm (FAULT_KEEPER, start->kind, 1, 1, start->error, 0);
    guest_submit_stats (stage.guest, 1);
    answer = backend_control_once (stage.backend, command);
    g_assert_nonnull (answer);
    text = json_to_string (answer, FALSE);
    g_test_message ("%s: %s", commands[i], text);
    g_assert_true (json_object_has_member (json_node_get_object (answer), "error"));
    g_assert_cmpuint (fault_disarm (FAULT_KEEPER, start->kind), ==, 1);
    g_assert_cmpint (backend_worker (stage.backend), ==, worker);
    g_assert_cmpuint (fault_check (&stage), ==, 0);
  }
  fault_end (&stage);
}

int
main (int argc, char **argv) {
  static const struct operation making[] = { { "reset", reset_and_begin }, { "reconnect", guest_reconnect } };

  fault_init (&argc, &argv);
  for (size_t i = 0; i < G_N_ELEMENTS (making); i++) {
    g_autofree char *name = g_strconcat ("/fault/descriptors/", making[i].name, NULL);

    g_test_add_data_func (name, &making[i], every_call);
  }
  g_test_add_func ("/fault/descriptors/of-a-start", every_start);
  g_test_add_func ("/fault/descriptors/operator-waits", operator_waits);
  g_test_add_func ("/fault/descriptors/front-end-waits", front_end_waits);
  for (size_t i = 0; i < G_N_ELEMENTS (failing_starts); i++) {
    g_autofree char *name = g_strconcat ("/fault/descriptors/worker-waits/", failing_starts[i].name, NULL);
    g_autofree char *refused = g_strconcat ("/fault/descriptors/replacing-is-refused/", failing_starts[i].name, NULL);

    g_test_add_data_func (name, &failing_starts[i], worker_waits);
    if (failing_starts[i].times == 1)
      g_test_add_data_func (refused, &failing_starts[i], replacing_is_refused);
  }
  return g_test_run ();
}
