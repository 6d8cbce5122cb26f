/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fault-rig.h"
#include "testing.h"

#define CALLS_MAX 5000u /* of one operation: more is an operation without an end */

unsigned
fault_every_call (struct stage *stage, const struct operation *operation, enum fault_kind kind, int error, unsigned stride) {
  unsigned n = 0, sum = 0, deaths = 0;
  uint64_t failed = 1;

  for (unsigned i = 1; failed; i++) {
    n += 1 + (unsigned)testing_below (stage->random, 2 * stride - 1);
    g_assert_cmpuint (n, <, CALLS_MAX);
    fault_arm (FAULT_WORKER, kind, n, 1, error, 0);
    stage->guest->poor_host = true; /* a HELLO may fail: then there is no session */
    operation->run (stage->guest);
    guest_drain (stage->guest);
    stage->guest->poor_host = false;
    failed = fault_disarm (FAULT_WORKER, kind);
    sum += (unsigned)failed;
    if (stage->guest->session == 0)
      guest_begin (stage->guest);
    if (i % 16 == 0)
      deaths += fault_check (stage);
  }
  deaths += fault_check (stage);
  g_test_message ("%u calls failed, %u workers died of it", sum, deaths);
  g_assert_cmpuint (deaths, <=, sum + 1); /* one that failed behind the last answer may not be counted */
  return sum;
}

/* Until the worker that there is answers requests. */
static void
get_an_answer (struct guest *guest) {
  guest_submit_stats (guest, 1);
  guest_drain (guest);
}

void
fault_every_start (struct stage *stage, enum fault_kind kind, int error, unsigned most) {
  const uint64_t before = fault_calls (FAULT_WORKER, kind);
  uint64_t calls, failed = 0;
  unsigned deaths = 0, starts;

  fault_restart (stage, kind, 1, 0, 0);
  get_an_answer (stage->guest);
  calls = fault_calls (FAULT_WORKER, kind) - before;
  deaths += fault_check (stage);
  starts = (unsigned)MIN (calls, most);
  for (unsigned i = 0; i < starts; i++) {
    const uint64_t n = 1 + calls * i / starts + (calls > starts ? testing_below (stage->random, calls / starts) : 0);

    fault_restart (stage, kind, n, 1, error);
    stage->guest->poor_host = true;
    operation_named (i % 2 ? "release" : "grant-and-release")->run (stage->guest);
    guest_drain (stage->guest);
    stage->guest->poor_host = false;
    failed += fault_disarm (FAULT_WORKER, kind);
    if (i % 8 == 0)
      deaths += fault_check (stage);
  }
  deaths += fault_check (stage);
  g_test_message ("a start makes %" G_GUINT64_FORMAT " such calls; of %u starts %" G_GUINT64_FORMAT " had one that failed; %u workers died, %u "
                  "were killed", calls, starts, failed, deaths, starts + 1);
  g_assert_cmpuint (failed, >=, starts / 2);
  g_assert_cmpuint (deaths, >=, starts + 1);
  g_assert_cmpuint (deaths, <=, starts + 1 + failed);
}
