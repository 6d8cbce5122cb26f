/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Growing and shrinking that ends short: how much was reached is exact, why is said, and it ends in bounded time. Each case
 * waits for a guest, so all of them run at the same time, from when the first one is looked at.
 */
#include "ctl-scene.h"

#include <signal.h>
#include <string.h>

typedef struct {
  const char *name;
  GuestHabits habits;
  gboolean no_qemu;
  const char *option;         /* of the back-end */
  const char *first;          /* what it is grown to before */
  const char *command, *size; /* what ends short, … */
  const char *reason;         /* … why, … */
  gint64 blocks;              /* … with how many, … */
  const char *words[3];       /* … and what is said */
} Case;

static const Case cases[] = {
  { "local-max", .option = "--local-max=100M", .command = "grow", .size = "1G", .reason = "capacity", .blocks = 50,
    .words = { "has 100M, not 1G", "--local-max is 100M", "its target stays 100M" } },
  { "local-max-by-a-block", .option = "--local-max=100M", .first = "100M", .command = "grow", .size = "+2M",
    .reason = "capacity", .blocks = 50, .words = { "has 100M, not 102M" } },
  { "host-limit", .option = "--host-limit=64M", .command = "grow", .size = "1G", .reason = "host-limit", .blocks = 32,
    .words = { "lends no more", "64M" } },
  { "host-memory", .option = "--host-reserve=100T", .command = "grow", .size = "1G", .reason = "host-memory", .blocks = 0,
    .words = { "short of memory", "100T" } },
  { "no-driver", { .no_driver = true }, .command = "grow", .size = "1G", .reason = "no-driver", .words = { "virtio_domybs" } },
  { "no-qemu", .no_qemu = TRUE, .command = "grow", .size = "1G", .reason = "not-connected", .words = { "no QEMU" } },
  { "stuck",
    { .stuck_blocks = 37 },
    .first = "256M",
    .command = "shrink",
    .size = "0",
    .reason = "stuck",
    .blocks = 37,
    .words = { "has 74M, not 0", "74M of it hold pages", "its target stays 0" } },
  { "stuck-by-a-block",
    { .stuck_blocks = 37 },
    .first = "74M",
    .command = "shrink",
    .size = "-2M",
    .reason = "stuck",
    .blocks = 37,
    .words = { "has 74M, not 72M", "2M of it hold pages", "its target stays 72M" } },
  { "needs",
    { .needed_blocks = 37 },
    .first = "256M",
    .command = "shrink",
    .size = "0",
    .reason = "guest-needs",
    .blocks = 37,
    .words = { "needs the rest", "300M available" } },
  { "declines",
    { .most_blocks = 20 },
    .command = "grow",
    .size = "256M",
    .reason = "guest-declines",
    .blocks = 20,
    .words = { "asks for no more" } },
  { "silent",
    { .silent = true },
    .command = "grow",
    .size = "256M",
    .reason = "guest-silent",
    .words = { "does not respond" } },
};

static Scene *all;
static struct backend *backends[G_N_ELEMENTS (cases)];
static Guest *guests[G_N_ELEMENTS (cases)];
static Running *runs[G_N_ELEMENTS (cases)];

static void
start_all (void) {
  const char *uuids[G_N_ELEMENTS (cases)];

  if (all)
    return;
  all = scene_new ();
  for (unsigned i = 0; i < G_N_ELEMENTS (cases); i++)
    uuids[i] = scene_add (all, cases[i].name, TRUE, SCENE_MEMORY (SCENE_GIB));
  for (unsigned i = 0; i < G_N_ELEMENTS (cases); i++) {
    GuestHabits habits = cases[i].habits;
    g_auto (Run) run = { 0 };

    habits.pause_ms = 20;
    backends[i] = scene_backend (all, uuids[i], ARGS (cases[i].option));
    if (!cases[i].no_qemu)
      guests[i] = guest_start (backends[i]->socket_path, &habits);
    if (!cases[i].first)
      continue;
    scene_run (all, &run, ARGS ("grow", "-q", cases[i].name, cases[i].first));
    run_must_succeed (&run);
  }
  for (unsigned i = 0; i < G_N_ELEMENTS (cases); i++)
    runs[i] = scene_start (all, ARGS (cases[i].command, cases[i].name, cases[i].size, "--json"));
}

static void
end_all (void) {
  for (unsigned i = 0; all && i < G_N_ELEMENTS (cases); i++)
    g_clear_pointer (&guests[i], guest_stop);
  g_clear_pointer (&all, scene_free);
}

static void
ends_short (gconstpointer data) {
  const Case *one = data;
  const unsigned i = (unsigned)(one - cases);
  g_autofree char *prefix = g_strdup_printf ("domybsctl: error: domain '%s': has ", one->name);
  g_autoptr (JsonObject) object = NULL;
  g_auto (Run) run = { 0 };

  start_all ();
  scene_finish (runs[i], 0, &run);
  if (run.status != 6 || !g_str_has_prefix (run.err, prefix))
    g_error ("expected was status 6, and not %d and: %s", run.status, run.err);
  for (unsigned word = 0; word < G_N_ELEMENTS (one->words) && one->words[word]; word++)
    if (!strstr (run.err, one->words[word]))
      g_error ("'%s' is not in: %s", one->words[word], run.err);
  object = run_json (&run);
  g_assert_cmpstr (json_object_get_string_member (object, "reason"), ==, one->reason);
  g_assert_cmpint (json_object_get_int_member (object, "reached-bytes"), ==, one->blocks << 21);
  g_assert_cmpstr (json_object_get_string_member (json_object_get_object_member (object, "error"), "code"), ==, "incomplete");
  scene_must_have (backends[i], "granted-blocks", one->blocks);
}

/* ---- ends that are not the guest's ---- */

static void
ends_when_time_is_up (void) {
  const GuestHabits habits = { .step_blocks = 1, .pause_ms = 200 };
  g_auto (Stage) stage = stage_new (&habits, NULL);
  g_auto (Run) run = { 0 };
  g_autoptr (JsonObject) object = NULL;
  const gint64 began = fe_now_ms ();

  scene_run (stage.scene, &run, ARGS ("grow", "vm1", "1G", "--timeout=1", "--json"));
  g_assert_cmpint (run.status, ==, 6);
  g_assert_cmpint (fe_now_ms () - began, >=, 1000);
  object = run_json (&run);
  g_assert_cmpstr (json_object_get_string_member (object, "reason"), ==, "timeout");
  g_assert_cmpint (json_object_get_int_member (object, "reached-bytes"), >, 0);
}

/* Ctrl-C: says what state things are in; the target stays. */
static void
ends_on_ctrl_c (void) {
  const GuestHabits habits = { .step_blocks = 1, .pause_ms = 200 };
  g_auto (Stage) stage = stage_new (&habits, NULL);
  g_auto (Run) run = { 0 };
  Running *running = scene_start (stage.scene, ARGS ("grow", "vm1", "1G"));

  g_assert_true (backend_wait_status (stage.backend, "target-blocks", 512, fe_patience_ms ()));
  g_usleep (300000);
  scene_finish (running, SIGINT, &run);
  g_assert_cmpint (run.status, ==, 130);
  g_assert_true (g_str_has_prefix (run.err, "domybsctl: interrupted: domain 'vm1': has "));
  g_assert_nonnull (strstr (run.err, "target stays 1G"));
  scene_must_have (stage.backend, "target-blocks", 512);
}

/* The back-end goes away under it. */
static void
tells_of_a_back_end_that_ends (void) {
  const GuestHabits habits = { .silent = true };
  g_auto (Stage) stage = stage_new (&habits, NULL);
  g_auto (Run) run = { 0 };
  Running *running = scene_start (stage.scene, ARGS ("grow", "vm1", "1G"));

  g_assert_true (backend_wait_status (stage.backend, "target-blocks", 512, fe_patience_ms ()));
  g_clear_pointer (&stage.guest, guest_stop);
  backend_kill (stage.backend);
  scene_finish (running, 0, &run);
  run_must_fail (&run, 5, ARGS ("domain 'vm1'", "back-end"));
}

int
main (int argc, char **argv) {
  int status;

  g_test_init (&argc, &argv, NULL);
  for (unsigned i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autofree char *path = g_strdup_printf ("/short/reasons/%s", cases[i].name);

    g_test_add_data_func (path, &cases[i], ends_short);
  }
  g_test_add_func ("/short/time-is-up", ends_when_time_is_up);
  g_test_add_func ("/short/ctrl-c", ends_on_ctrl_c);
  g_test_add_func ("/short/back-end-ends", tells_of_a_back_end_that_ends);
  status = g_test_run ();
  end_all ();
  return status;
}
