/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "rig.h"

#include <string.h>
#include <sys/wait.h>

/* How long a back-end may take to notice that a connection is gone, and to free what belonged to it. */
#define SETTLE_MS (fe_patience_ms ())
/* Allocators keep what one test needed once; what grows with repetition is looked for by tests of their own. */
#define ANONYMOUS_SLACK_KIB 4096u

const char *const *rig_arguments;

static struct rig rig;

struct test {
  rig_test function;
  const void *data;
};

/* One good life: what a driver does in a test of its own. */
static void
live_once (void) {
  g_autoptr (fe_t) fe = fe_new ();
  struct fe_answer answer;

  fe_must (fe, fe_open (fe, rig.backend->socket_path));
  fe_must (fe, fe_grant (fe, 4, DOMYBS_HINT_ANY, DOMYBS_GRANT_F_ALL, 0, 0, &answer));
  g_assert_cmpuint (answer.status, ==, DOMYBS_OK);
  g_assert_cmpuint (answer.blocks, ==, 4);
  g_assert_cmpuint (answer.granted, ==, 4);
  for (uint32_t i = 0; i < answer.count; i++)
    for (uint64_t block = answer.runs[i].start; block < answer.runs[i].start + answer.runs[i].count; block++) {
      g_assert_cmpuint (*(uint64_t *)(void *)fe_block (fe, block), ==, 0);
      memset (fe_block (fe, block), 0x5a, 4096);
    }
  fe_must (fe, fe_release (fe, answer.runs, answer.count, &answer));
  g_assert_cmpuint (answer.status, ==, DOMYBS_OK);
  fe_must (fe, fe_bye (fe, &answer));
  g_assert_cmpuint (answer.status, ==, DOMYBS_OK);
}

static void
stop_at_exit (void) {
  g_clear_pointer (&rig.backend, backend_free);
}

struct rig *
rig_get (void) {
  g_autoptr (GPtrArray) arguments = g_ptr_array_new ();

  if (rig.backend)
    return &rig;
  g_ptr_array_add (arguments, (gpointer) "--window=2G");
  g_ptr_array_add (arguments, (gpointer) "--audit-interval=200");
  g_ptr_array_add (arguments, (gpointer) "--host-account=none"); /* of its own: other programs run beside this one */
  for (const char *const *argument = rig_arguments; argument && *argument; argument++)
    g_ptr_array_add (arguments, (gpointer)*argument);
  g_ptr_array_add (arguments, NULL);
  rig.backend = backend_start ((const char *const *)arguments->pdata);
  atexit (stop_at_exit);
  /* Warm up: the first life of a process allocates what the later ones use again. */
  for (int i = 0; i < 3; i++)
    live_once ();
  /* The end of the last connection, and of the one that asks this, may not have been seen yet. */
  g_assert_true (backend_wait_status (rig.backend, "connected", 0, SETTLE_MS));
  for (int quiet = 0; quiet < 10; quiet++) {
    const unsigned fds = backend_fds (rig.backend);

    g_usleep (10000);
    if (backend_fds (rig.backend) != fds)
      quiet = -1;
  }
  rig.worker = backend_worker (rig.backend);
  rig.fds = backend_fds (rig.backend);
  rig.maps = backend_maps (rig.backend);
  rig.anonymous_kib = backend_anonymous_kib (rig.backend);
  return &rig;
}

void
rig_mark (struct rig *r) {
  r->log_mark = backend_log_size (r->backend);
}

struct fe *
rig_open_to (struct rig *r, enum fe_step step) {
  struct fe *fe = fe_new ();

  fe_must (fe, fe_steps_to (fe, step, r->backend->socket_path));
  return fe;
}

struct fe *
rig_open (struct rig *r) {
  return rig_open_to (r, FE_STEP_HELLO);
}

static void
fail_with_log (struct rig *r, const char *what) {
  g_autofree char *log = backend_log_from (r->backend, r->log_mark);
  g_autofree char *text = g_strdup_printf ("%s; the back-end (%s) logged: %s", what, backend_end_text (r->backend), log);

  g_assertion_message (G_LOG_DOMAIN, __FILE__, __LINE__, G_STRFUNC, text);
}

void
rig_expect_logged (struct rig *r, const char *reason) {
  g_autofree char *what = g_strdup_printf ("no log line with \"%s\"", reason);

  if (!backend_wait_log (r->backend, r->log_mark, reason, SETTLE_MS))
    fail_with_log (r, what);
}

void
rig_expect_any_log (struct rig *r) {
  rig_expect_logged (r, "\n");
}

void
rig_expect_closed (struct rig *r, struct fe *fe, const char *reason) {
  if (!fe_wait_closed (fe, SETTLE_MS))
    fail_with_log (r, fe->why);
  rig_expect_logged (r, reason ? reason : "\n");
}

void
rig_expect_queue_broken (struct rig *r, struct fe *fe, const char *reason) {
  uint32_t head, len;

  rig_expect_logged (r, reason ? reason : "\n");
  g_usleep (20000);
  if (fe_poll_used (&fe->queues[DOMYBS_VQ_REQUEST], &head, &len))
    fail_with_log (r, "a chain that breaks the rules was answered");
}

static bool
resources_are_back (struct rig *r, char **ret_why) {
  const unsigned fds = backend_fds (r->backend), maps = backend_maps (r->backend);
  const uint64_t kib = backend_anonymous_kib (r->backend);
  g_autofree char *list = fds > r->fds ? backend_fds_text (r->backend) : g_strdup ("");

  *ret_why = g_strdup_printf ("descriptors from %u to %u,%s mappings from %u to %u, anonymous KiB from %" G_GUINT64_FORMAT " to %" G_GUINT64_FORMAT,
                              r->fds, fds, list, r->maps, maps, r->anonymous_kib, kib);
  if (fds > r->fds)
    return false;
  if (backend_is_instrumented (r->backend))
    return true;
  return maps <= r->maps + 2 && kib <= r->anonymous_kib + ANONYMOUS_SLACK_KIB;
}

void
rig_check (struct rig *r) {
  const int64_t deadline = fe_now_ms () + SETTLE_MS;
  g_autofree char *why = NULL;

  if (!backend_is_alive (r->backend))
    fail_with_log (r, "the back-end is gone");
  /* The keeper mends it, and no front-end sees it: but nothing that a peer does may end a worker. */
  if (backend_worker (r->backend) != r->worker)
    fail_with_log (r, "the worker is another one");
  live_once ();
  while (!resources_are_back (r, &why)) {
    if (fe_now_ms () > deadline)
      fail_with_log (r, why);
    g_clear_pointer (&why, g_free);
    g_usleep (5000);
  }
  g_assert_cmpint (backend_status (r->backend, "granted-blocks"), ==, 0);
}

void
rig_waited (struct rig_waits *waits, int64_t ms) {
  waits->n++;
  waits->slow += ms > fe_patience_ms () / 10;
}

void
rig_expect_short_waits (const struct rig_waits *waits) {
  g_test_message ("%u of %u waits were long", waits->slow, waits->n);
  g_assert_cmpuint (waits->n, >, 0);
  g_assert_cmpuint (waits->slow, <=, waits->n / 10);
}

static void
run_test (gconstpointer data) {
  const struct test *test = data;
  struct rig *r = rig_get ();

  rig_mark (r);
  test->function (r, test->data);
  rig_check (r);
}

void
rig_add (const char *path, rig_test test, const void *data) {
  struct test *entry = g_new (struct test, 1); /* as long as the program */

  *entry = (struct test){ test, data };
  g_test_add_data_func_full (path, entry, run_test, g_free);
}

/* Also a test: whatever the hostile ones did, SIGTERM ends the process cleanly. */
static void
ends_on_sigterm (void) {
  struct rig *r = rig_get ();
  const int status = backend_stop (r->backend);

  if (status == -1 || !WIFEXITED (status) || WEXITSTATUS (status) != 0)
    fail_with_log (r, "SIGTERM did not end it with exit status 0");
}

int
rig_run (void) {
  g_test_add_func ("/end/on-sigterm", ends_on_sigterm);
  return g_test_run ();
}
