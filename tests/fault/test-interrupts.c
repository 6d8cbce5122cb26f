/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Calls that are interrupted, at any time and again and again (EINTR), and processes that are stopped and go on: in the keeper,
 * in the worker, in both; under a full load, and while workers are killed. Nothing is lost, nothing happens twice, and nobody
 * dies of it.
 */
#include "fault-rig.h"
#include "testing.h"

#include <signal.h>

static const char *const none[] = { NULL };
static const char *const populate[] = { "--grant=populate", "--local-max=100M", NULL };

struct storm {
  const char *name;
  const char *const *arguments;
  uint64_t max_blocks, block_cost;
  uint32_t keeper, worker; /* of 1024 calls */
  bool kills;
  unsigned steps;
};

static const struct storm storms[] = {
  { "keeper", none, 1024, GUEST_BYTES_TOUCHED, 500, 0, false, 400 },
  { "worker", none, 1024, GUEST_BYTES_TOUCHED, 0, 500, false, 400 },
  { "both", populate, 50, DOMYBS_BLOCK_BYTES, 300, 300, false, 40 },
  { "both-and-kills", none, 1024, GUEST_BYTES_TOUCHED, 300, 300, true, 400 },
};

static void
arm_a_kill (struct stage *stage) {
  const struct reaper_plan plan = { .after_us = (uint32_t)testing_below (stage->random, 2000) };

  reaper_arm (&stage->reaper, &plan);
}

static void
storm (gconstpointer data) {
  const struct storm *s = data;
  const uint64_t keeper = fault_interrupted (FAULT_KEEPER), worker = fault_interrupted (FAULT_WORKER);
  struct stage stage;

  fault_begin (&stage, s->arguments, s->max_blocks, s->block_cost);
  fault_interrupt (FAULT_KEEPER, s->keeper);
  fault_interrupt (FAULT_WORKER, s->worker);
  for (unsigned i = 1; i <= testing_steps (s->steps); i++) {
    stage_act (&stage);
    if (s->kills && i % 10 == 0)
      arm_a_kill (&stage);
    if (i % 100 == 0)
      stage_check (&stage); /* and no more have died than were killed */
  }
  g_test_message ("%" G_GUINT64_FORMAT " calls of the keeper and %" G_GUINT64_FORMAT " of the worker were interrupted",
                  fault_interrupted (FAULT_KEEPER) - keeper, fault_interrupted (FAULT_WORKER) - worker);
  g_assert_true (s->keeper == 0 || fault_interrupted (FAULT_KEEPER) - keeper > 10);
  g_assert_true (s->worker == 0 || fault_interrupted (FAULT_WORKER) - worker > 10);
  reaper_wait (&stage.reaper);
  fault_end (&stage);
}

/* ---- stopped, and going on ---- */

struct stopper {
  struct backend *backend;
  GRand *random;
  volatile gint over;
  unsigned stops;
};

static gpointer
stop_and_go (gpointer data) {
  struct stopper *stopper = data;

  while (!g_atomic_int_get (&stopper->over)) {
    pid_t pids[BACKEND_PROCESSES_MAX];
    const unsigned n = backend_processes (stopper->backend, pids);
    const pid_t pid = pids[testing_below (stopper->random, n)];

    if (kill (pid, SIGSTOP) == 0)
      stopper->stops++;
    g_usleep (testing_below (stopper->random, testing_once_in (stopper->random, 10) ? 20000 : 500));
    kill (pid, SIGCONT);
    g_usleep (testing_below (stopper->random, 1500));
  }
  return NULL;
}

/* For real: what sleeps in a call is woken, or waits for longer than it meant to. */
static void
stopped_and_going_on (void) {
  struct stopper stopper = { 0 };
  GThread *thread;
  struct stage stage;

  fault_begin (&stage, none, 1024, GUEST_BYTES_TOUCHED);
  stopper.backend = stage.backend;
  stopper.random = g_rand_new_with_seed (g_rand_int (stage.random));
  thread = g_thread_new ("stopper", stop_and_go, &stopper);
  for (unsigned i = 1; i <= testing_steps (300); i++) {
    stage_act (&stage);
    if (i % 100 == 0)
      stage_check (&stage);
  }
  g_atomic_int_set (&stopper.over, TRUE);
  g_thread_join (thread);
  backend_signal_all (stage.backend, SIGCONT);
  g_test_message ("%u stops", stopper.stops);
  g_assert_cmpuint (stopper.stops, >, 10);
  g_rand_free (stopper.random);
  fault_end (&stage);
}

int
main (int argc, char **argv) {
  fault_init (&argc, &argv);
  for (size_t i = 0; i < G_N_ELEMENTS (storms); i++) {
    g_autofree char *name = g_strconcat ("/fault/interrupts/", storms[i].name, NULL);

    g_test_add_data_func (name, &storms[i], storm);
  }
  g_test_add_func ("/fault/interrupts/stopped-and-going-on", stopped_and_going_on);
  return g_test_run ();
}
