/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Back-ends whose workers are replaced, die, are busy, or are gone with their keeper: what the commands do then, and what they
 * say. */
#include "ctl-scene.h"
#include "fake-control.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

#define FAKES_MAX 4

/* Domains vm1, vm2, … with such back-ends. */
typedef struct {
  Scene *scene;
  FakeControl *fakes[FAKES_MAX];
} Fakes;

static void
fakes_clear (Fakes *fakes) {
  for (unsigned i = 0; i < FAKES_MAX; i++)
    g_clear_pointer (&fakes->fakes[i], fake_control_stop);
  g_clear_pointer (&fakes->scene, scene_free);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (Fakes, fakes_clear)

static Fakes
fakes_new (const FakeHabits *habits, unsigned n) {
  Fakes fakes = { .scene = scene_new () };

  g_assert_cmpuint (n, <=, FAKES_MAX);
  for (unsigned i = 0; i < n; i++) {
    g_autofree char *name = g_strdup_printf ("vm%u", i + 1);
    g_autofree char *path = scene_control_path (fakes.scene, scene_add (fakes.scene, name, TRUE, SCENE_MEMORY (SCENE_GIB)));

    fakes.fakes[i] = fake_control_start (path, &habits[i]);
  }
  return fakes;
}

static void
must_contain (const char *text, const char *words) {
  if (!strstr (text, words))
    g_error ("'%s' is not in: %s", words, text);
}

/* Member of domain number i. */
static const char *
member (JsonObject *object, unsigned i, const char *name) {
  JsonObject *domain = json_array_get_object_element (json_object_get_array_member (object, "domains"), i);

  return json_object_get_string_member_with_default (domain, name, "null");
}

/* ---- replacing one ---- */

static void
restarts (void) {
  const FakeHabits habits = { 0 };
  g_auto (Fakes) fakes = fakes_new (&habits, 1);
  g_autoptr (JsonObject) object = NULL;
  g_auto (Run) run = { 0 };

  scene_run (fakes.scene, &run, ARGS ("backend", "restart", "vm1"));
  run_must_succeed (&run);
  g_assert_true (g_str_has_prefix (run.out, "Domain 'vm1': back-end restarted, version 0.1.0, in "));
  g_assert_cmpuint (fake_control_starts (fakes.fakes[0]), ==, 2);
  scene_run (fakes.scene, &run, ARGS ("backend", "restart", "vm1", "-q"));
  run_must_succeed (&run);
  g_assert_cmpstr (run.out, ==, "");
  scene_run (fakes.scene, &run, ARGS ("backend", "restart", "vm1", "--json"));
  run_must_succeed (&run);
  object = run_json (&run);
  g_assert_cmpstr (json_object_get_string_member (object, "action"), ==, "restart");
  g_assert_cmpstr (member (object, 0, "domain"), ==, "vm1");
  g_assert_cmpstr (member (object, 0, "result"), ==, "done");
  g_assert_cmpstr (member (object, 0, "version-before"), ==, "0.1.0");
  g_assert_cmpstr (member (object, 0, "version-after"), ==, "0.1.0");
  g_assert_cmpuint (fake_control_starts (fakes.fakes[0]), ==, 4);
}

static void
upgrades (void) {
  const FakeHabits habits[] = { { .installed = "0.2.0" }, { 0 } };
  g_auto (Fakes) fakes = fakes_new (habits, 2);
  g_auto (Run) run = { 0 };

  setenv ("LC_ALL", "C.UTF-8", 1);
  scene_run (fakes.scene, &run, ARGS ("backend", "upgrade", "vm1"));
  run_must_succeed (&run);
  g_assert_true (g_str_has_prefix (run.out, "Domain 'vm1': back-end upgraded, 0.1.0 → 0.2.0, in "));
  must_contain (run.out, "its guest waited at most that long");
  scene_run (fakes.scene, &run, ARGS ("backend", "upgrade", "vm2"));
  run_must_succeed (&run);
  must_contain (run.out, "'vm2': back-end upgraded, still version 0.1.0, in ");
  g_assert_cmpuint (fake_control_starts (fakes.fakes[1]), ==, 2);
}

static void
tells_why_not (void) {
  static const struct {
    FakeHabits habits;
    int status;
    const char *words[2];
  } cases[] = {
    { { .too_old = TRUE }, 4, { "(version 0.1.0) is too old", "restart of the VM" } },
    { { .refusal = "state of version 7" }, 1, { "its back-end says: state of version 7", "domain 'vm1'" } },
    { { .silent = TRUE }, 1, { "has not replaced its worker within", "see its log" } },
    { { .same = TRUE }, 1, { "(process 101) is the same as before", "see its log" } },
    { { .short_lived = TRUE, .installed = "0.2.0" },
      1,
      { "was undone, because workers of the new version died (signal 9", "0.1.0" } },
  };

  setenv ("DOMYBS_TEST_HASTE", "15", 1);
  for (size_t i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_auto (Fakes) fakes = fakes_new (&cases[i].habits, 1);
    g_auto (Run) run = { 0 };

    scene_run (fakes.scene, &run, ARGS ("backend", "upgrade", "vm1"));
    run_must_fail (&run, cases[i].status, ARGS ("domain 'vm1': ", cases[i].words[0], cases[i].words[1]));
    g_assert_cmpuint (fake_control_orders (fakes.fakes[0]), ==, 1);
  }
  unsetenv ("DOMYBS_TEST_HASTE");
}

static void
refuses_nonsense (void) {
  static const struct {
    const char *arguments[4];
    const char *words;
  } cases[] = {
    { { "backend" }, "ACTION is missing" },
    { { "backend", "restart" }, "a domain is missing" },
    { { "backend", "reboot", "vm1" }, "neither restart nor upgrade" },
    { { "backend", "restart", "vm1", "--all" }, "can't both be" },
  };
  const FakeHabits habits = { 0 };
  g_auto (Fakes) fakes = fakes_new (&habits, 1);
  g_auto (Run) run = { 0 };

  for (size_t i = 0; i < G_N_ELEMENTS (cases); i++) {
    const char *const *a = cases[i].arguments;

    scene_run (fakes.scene, &run, ARGS (a[0], a[1], a[2], a[3]));
    run_must_fail (&run, 2, ARGS (cases[i].words));
  }
  scene_run (fakes.scene, &run, ARGS ("backend", "restart", "nobody"));
  run_must_fail (&run, 3, ARGS ("domain 'nobody'"));
  scene_add (fakes.scene, "plain", TRUE, NULL);
  scene_run (fakes.scene, &run, ARGS ("backend", "restart", "plain"));
  run_must_fail (&run, 3, ARGS ("domain 'plain': no memory device is attached"));
  scene_add (fakes.scene, "off", FALSE, SCENE_FAR);
  scene_run (fakes.scene, &run, ARGS ("backend", "upgrade", "off"));
  run_must_fail (&run, 3, ARGS ("domain 'off': no memory device is attached"));
  g_assert_cmpuint (fake_control_orders (fakes.fakes[0]), ==, 0);
}

/* ---- replacing all ---- */

static void
stops_at_a_failure (void) {
  const FakeHabits habits[] = { { .installed = "0.2.0" }, { .refusal = "no" }, { .installed = "0.2.0" } };
  g_auto (Fakes) fakes = fakes_new (habits, 3);
  g_autoptr (JsonObject) object = NULL;
  g_auto (Run) run = { 0 };

  scene_add (fakes.scene, "off", FALSE, SCENE_MEMORY (SCENE_GIB));
  scene_add (fakes.scene, "plain", TRUE, NULL);
  scene_run (fakes.scene, &run, ARGS ("backend", "upgrade", "--all"));
  g_assert_cmpint (run.status, ==, 6);
  must_contain (run.out, "Domain 'vm1': back-end upgraded");
  must_contain (run.err, "domain 'vm2': its back-end says: no (1 of 3 back-ends upgraded, 1 not tried; --keep-going");
  g_assert_cmpuint (fake_control_orders (fakes.fakes[2]), ==, 0);

  scene_run (fakes.scene, &run, ARGS ("backend", "upgrade", "--all", "--json", "--keep-going", "-q"));
  g_assert_cmpint (run.status, ==, 6);
  must_contain (run.err, "2 of 3 back-ends upgraded, 1 failed; the first of those: domain 'vm2': its back-end says: no");
  object = run_json (&run);
  g_assert_cmpuint (json_array_get_length (json_object_get_array_member (object, "domains")), ==, 3);
  g_assert_cmpstr (member (object, 0, "result"), ==, "done");
  g_assert_cmpstr (member (object, 1, "result"), ==, "failed");
  g_assert_cmpstr (member (object, 2, "result"), ==, "done");
  g_assert_cmpstr (member (object, 2, "version-before"), ==, "0.1.0");
  g_assert_cmpstr (member (object, 2, "version-after"), ==, "0.2.0");
}

static void
replaces_nothing (void) {
  g_autoptr (Scene) scene = scene_new ();
  g_auto (Run) run = { 0 };

  scene_add (scene, "off", FALSE, SCENE_MEMORY (SCENE_GIB));
  scene_run (scene, &run, ARGS ("backend", "restart", "--all"));
  run_must_succeed (&run);
  g_assert_cmpstr (run.out, ==, "No running domain has the memory device, far disks or objects.\n");
}

/* It waits for the one that it is at, and begins no other. */
static void
ends_at_ctrl_c (void) {
  const FakeHabits habits[] = { { .silent = TRUE }, { 0 } };
  g_auto (Fakes) fakes = fakes_new (habits, 2);
  g_auto (Run) run = { 0 };
  Running *running;

  setenv ("DOMYBS_TEST_HASTE", "8", 1);
  running = scene_start (fakes.scene, ARGS ("backend", "restart", "--all", "--keep-going"));
  while (fake_control_orders (fakes.fakes[0]) == 0)
    g_usleep (5000);
  scene_finish (running, SIGINT, &run);
  unsetenv ("DOMYBS_TEST_HASTE");
  g_assert_cmpint (run.status, ==, 130);
  must_contain (run.err, "domybsctl: interrupted: 0 of 2 back-ends restarted, 1 not tried");
  g_assert_cmpuint (fake_control_orders (fakes.fakes[1]), ==, 0);
}

/* ---- what is behind far disks ---- */

static FakeControl *
far_start (Scene *scene, const char *name, const char *metadata, const FakeHabits *habits) {
  g_autofree char *path = scene_far_control_path (scene, scene_add (scene, name, TRUE, metadata));

  return fake_control_start (path, habits);
}

static void
replaces_far (void) {
  const FakeHabits habits = { .far = TRUE, .installed = "0.2.0", .away = 3 };
  g_autoptr (Scene) scene = scene_new ();
  g_autoptr (FakeControl) fake = far_start (scene, "vm1", SCENE_FAR, &habits);
  g_autoptr (JsonObject) object = NULL;
  g_auto (Run) restart = { 0 }, upgrade = { 0 }, json = { 0 };

  setenv ("LC_ALL", "C.UTF-8", 1);
  scene_run (scene, &restart, ARGS ("backend", "restart", "vm1"));
  run_must_succeed (&restart);
  must_contain (restart.out, "Domain 'vm1': domybs-far restarted, version 0.1.0, in ");
  g_assert_cmpuint (fake_control_starts (fake), ==, 2);
  scene_run (scene, &upgrade, ARGS ("backend", "upgrade", "vm1"));
  run_must_succeed (&upgrade);
  must_contain (upgrade.out, "Domain 'vm1': domybs-far upgraded, 0.1.0 → 0.2.0, in ");
  scene_run (scene, &json, ARGS ("backend", "restart", "--all", "--json"));
  run_must_succeed (&json);
  object = run_json (&json);
  g_assert_cmpstr (member (object, 0, "process"), ==, "far");
  g_assert_cmpstr (member (object, 0, "result"), ==, "done");
  g_assert_cmpuint (fake_control_starts (fake), ==, 4);
}

/* First the one, then the other; and each of them may fail. */
static void
replaces_both (void) {
  static const struct {
    FakeHabits backend, far;
    int status;
    const char *words;
  } cases[] = {
    { { 0 }, { .far = TRUE }, 0, "" },
    { { .refusal = "no" }, { .far = TRUE }, 6, "domain 'vm1': its back-end says: no (0 of 2 back-ends" },
    { { 0 }, { .far = TRUE, .refusal = "no" }, 6, "domain 'vm1': its domybs-far says: no (1 of 2 back-ends" },
  };

  for (size_t i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autoptr (Scene) scene = scene_new ();
    const char *uuid = scene_add (scene, "vm1", TRUE, SCENE_BOTH);
    g_autofree char *path = scene_control_path (scene, uuid), *far_path = scene_far_control_path (scene, uuid);
    g_autoptr (FakeControl) backend = fake_control_start (path, &cases[i].backend);
    g_autoptr (FakeControl) far = fake_control_start (far_path, &cases[i].far);
    g_auto (Run) run = { 0 };

    scene_run (scene, &run, ARGS ("backend", "restart", "--all"));
    g_assert_cmpint (run.status, ==, cases[i].status);
    must_contain (run.err, cases[i].words);
    g_assert_cmpuint (fake_control_orders (far), ==, cases[i].backend.refusal ? 0 : 1);
    if (!cases[i].status)
      must_contain (run.out, "Domain 'vm1': back-end restarted, version 0.1.0, in ");
    if (!cases[i].status)
      must_contain (run.out, "Domain 'vm1': domybs-far restarted, version 0.1.0, in ");
  }
}

static void
tells_why_not_far (void) {
  static const struct {
    FakeHabits habits;
    const char *words[2];
  } cases[] = {
    { { .far = TRUE, .silent = TRUE }, { "'vm1': its domybs-far has not replaced its worker within", "see its log" } },
    { { .far = TRUE, .same = TRUE }, { "'vm1': domybs-far: its worker (process 101) is the same as before", "see its log" } },
    { { .far = TRUE, .away = 1000000 }, { "domybs-far: QEMU has not connected to its new worker", "see its log" } },
    { { .far = TRUE, .short_lived = TRUE, .installed = "0.2.0" },
      { "its upgrade was undone, because workers of the new version died (signal 9", "0.1.0" } },
  };

  setenv ("DOMYBS_TEST_HASTE", "15", 1);
  for (size_t i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autoptr (Scene) scene = scene_new ();
    g_autoptr (FakeControl) fake = far_start (scene, "vm1", SCENE_FAR, &cases[i].habits);
    g_auto (Run) run = { 0 };

    scene_run (scene, &run, ARGS ("backend", "upgrade", "vm1"));
    run_must_fail (&run, 1, ARGS ("domain 'vm1': ", cases[i].words[0], cases[i].words[1]));
  }
  unsetenv ("DOMYBS_TEST_HASTE");
}

static void
tells_of_far_workers (void) {
  const FakeHabits deaths = { .far = TRUE, .deaths = 3 }, undone = { .far = TRUE, .short_lived = TRUE };
  g_autoptr (Scene) scene = scene_new ();
  g_autoptr (FakeControl) first = far_start (scene, "vm1", SCENE_FAR, &deaths);
  g_autoptr (FakeControl) second = far_start (scene, "vm2", SCENE_FAR, &undone);
  g_auto (Run) status = { 0 }, upgrade = { 0 }, list = { 0 }, check = { 0 }, gone = { 0 };

  scene_run (scene, &status, ARGS ("status", "vm1"));
  run_must_succeed (&status);
  must_contain (status.out, "\nFar worker     process 104, version 0.1.0, for 1 min\n");
  must_contain (status.out, "\nFar restarts   worker restarted 3 times, last 5 min ago: signal 9 (Killed)\n");
  scene_run (scene, &upgrade, ARGS ("backend", "upgrade", "vm2"));
  g_assert_cmpint (upgrade.status, ==, 1);
  scene_run (scene, &list, ARGS ("list"));
  must_contain (list.err, "domain 'vm2': the last upgrade of its domybs-far was undone");
  g_assert_null (strstr (list.err, "'vm1'"));
  scene_run (scene, &check, ARGS ("check"));
  must_contain (check.out, "\nNOTE   domain 'vm1': domybs-far: worker restarted 3 times");
  must_contain (check.out, "\nTO DO  domain 'vm2': the last upgrade of its domybs-far was undone");
  g_clear_pointer (&first, fake_control_stop);
  scene_run (scene, &gone, ARGS ("backend", "restart", "vm1"));
  run_must_fail (&gone, 5, ARGS ("domain 'vm1': its domybs-far is gone", "log/vm1.far.log"));
}

/* ---- living with it ---- */

/* Workers die while they are asked: nothing of it is seen. */
static void
asks_again (void) {
  static const struct {
    const char *arguments[4];
  } cases[] = {
    { { "target", "vm1" } }, { { "target", "vm1", "64M" } }, { { "grow", "vm1", "256M" } },       { { "status", "vm1" } },
    { { "list" } },          { { "top", "-n", "1" } },       { { "backend", "restart", "vm1" } },
  };

  for (size_t i = 0; i < G_N_ELEMENTS (cases); i++)
    for (unsigned hang_ups = 1; hang_ups <= 3; hang_ups++) {
      const char *const *a = cases[i].arguments;
      const FakeHabits habits = { .hang_ups = hang_ups };
      g_auto (Fakes) fakes = fakes_new (&habits, 1);
      g_auto (Run) run = { 0 };

      scene_run (fakes.scene, &run, ARGS (a[0], a[1], a[2], a[3]));
      run_must_succeed (&run);
      g_assert_cmpuint (fake_control_starts (fakes.fakes[0]), >, hang_ups);
    }
}

/* Real ones, killed under a guest that grows and shrinks. */
static void
resizes_over_deaths (void) {
  const GuestHabits habits = { .step_blocks = 8, .pause_ms = 10 };
  g_auto (Stage) stage = stage_new (&habits, NULL);
  g_auto (Run) run = { 0 };
  pid_t killed = 0;

  for (int round = 0; round < 4; round++) {
    Running *running = scene_start (stage.scene, round % 2 ? ARGS ("shrink", "vm1", "0") : ARGS ("grow", "vm1", "512M"));

    for (int i = 0; i < 3; i++) {
      g_usleep (60000);
      killed = backend_wait_worker (stage.backend, killed, fe_patience_ms ());
      g_assert_true (backend_kill_worker (killed));
    }
    scene_finish (running, 0, &run);
    run_must_succeed (&run);
    scene_must_have (stage.backend, "granted-blocks", round % 2 ? 0 : 256);
  }
  scene_run (stage.scene, &run, ARGS ("status", "vm1"));
  run_must_succeed (&run);
  must_contain (run.out, "\nRestarts       worker restarted 12 times, last ");
  must_contain (run.out, " s ago: signal 9 (Killed)\n");
  scene_run (stage.scene, &run, ARGS ("backend", "restart", "vm1"));
  run_must_succeed (&run);
  scene_run (stage.scene, &run, ARGS ("backend", "upgrade", "--all"));
  run_must_succeed (&run);
  scene_run (stage.scene, &run, ARGS ("status", "vm1"));
  must_contain (run.out, "worker restarted 12 times"); /* what was asked for is no death */
}

static void
tells_of_deaths (void) {
  const FakeHabits habits[] = { { .deaths = 3, .last_death = "signal 9 (Killed)" }, { 0 } };
  g_auto (Fakes) fakes = fakes_new (habits, 2);
  g_auto (Run) run = { 0 };

  scene_run (fakes.scene, &run, ARGS ("status", "vm1"));
  run_must_succeed (&run);
  must_contain (run.out, "\nWorker         process 104, version 0.1.0, for 1 min\n");
  must_contain (run.out, "\nRestarts       worker restarted 3 times, last 5 min ago: signal 9 (Killed)\n");
  scene_run (fakes.scene, &run, ARGS ("status", "vm2"));
  run_must_succeed (&run);
  g_assert_null (strstr (run.out, "Restarts"));
  scene_run (fakes.scene, &run, ARGS ("list"));
  run_must_succeed (&run); /* no warning: it is over */
  scene_run (fakes.scene, &run, ARGS ("check"));
  must_contain (run.out, "\nNOTE   domain 'vm1': worker restarted 3 times, last 5 min ago: signal 9 (Killed) → ");
  g_assert_null (strstr (run.out, "TO DO  domain 'vm1'"));
}

static void
tells_of_busy_ones (void) {
  const FakeHabits habits = { .deaths = 7, .strikes = 3, .last_death = "signal 11 (Segmentation fault)", .busy = TRUE };
  g_auto (Fakes) fakes = fakes_new (&habits, 1);
  g_autoptr (JsonObject) object = NULL;
  g_auto (Run) run = { 0 };
  JsonObject *worker;

  scene_run (fakes.scene, &run, ARGS ("status", "vm1"));
  run_must_succeed (&run);
  must_contain (run.out, ", busy\n");
  must_contain (run.out, "Its memory device is busy: its worker died 3 times in a row, last by signal 11 (Segmentation fault)");
  must_contain (run.out, "/log/vm1.log");
  scene_run (fakes.scene, &run, ARGS ("list"));
  g_assert_cmpint (run.status, ==, 0);
  must_contain (run.out, "(busy)\n");
  must_contain (run.err, "domybsctl: warning: domain 'vm1': its memory device is busy: ");
  scene_run (fakes.scene, &run, ARGS ("top", "-n", "1"));
  must_contain (run.out, "(busy)\n");
  scene_run (fakes.scene, &run, ARGS ("check"));
  g_assert_cmpint (run.status, ==, 1);
  must_contain (run.out, "\nTO DO  domain 'vm1': its memory device is busy: ");
  scene_run (fakes.scene, &run, ARGS ("list", "--json"));
  object = run_json (&run);
  worker = json_object_get_object_member (
      json_object_get_object_member (json_array_get_object_element (json_object_get_array_member (object, "domains"), 0),
                                     "backend"),
      "worker");
  g_assert_cmpstr (json_object_get_string_member (worker, "mode"), ==, "busy");
  g_assert_cmpint (json_object_get_int_member (worker, "strikes"), ==, 3);
  g_assert_cmpint (json_object_get_int_member (worker, "deaths"), ==, 7);
}

static void
tells_of_undone_upgrades (void) {
  const FakeHabits habits = { .short_lived = TRUE };
  g_auto (Fakes) fakes = fakes_new (&habits, 1);
  g_auto (Run) run = { 0 };

  scene_run (fakes.scene, &run, ARGS ("backend", "upgrade", "vm1"));
  g_assert_cmpint (run.status, ==, 1);
  scene_run (fakes.scene, &run, ARGS ("list"));
  must_contain (run.err, "domain 'vm1': its last upgrade was undone");
  scene_run (fakes.scene, &run, ARGS ("status", "vm1"));
  run_must_succeed (&run);
  must_contain (run.out, "\nUpgrade        the last one was undone");
}

/* A dead keeper: the pid file is there, and nobody listens. */
static void
tells_of_gone_ones (void) {
  g_auto (Stage) stage = stage_new (NULL, NULL);
  g_autofree char *path = scene_control_path (stage.scene, stage.uuid);
  g_autofree char *folder = g_path_get_dirname (path), *pid_path = g_build_filename (folder, "backend.pid", NULL);
  g_autoptr (JsonObject) object = NULL;
  g_auto (Run) run = { 0 };

  g_assert_true (g_file_set_contents (pid_path, "4711 12\n", -1, NULL));
  backend_kill (stage.backend);
  scene_run (stage.scene, &run, ARGS ("status", "vm1"));
  g_assert_cmpint (run.status, ==, 5);
  must_contain (run.out, "\nBack-end       gone\n");
  must_contain (run.err, "its back-end (process 4711) is gone and QEMU runs on: ");
  must_contain (run.err, "'domybsctl detach vm1 --live' and then 'domybsctl attach vm1 --live'");
  must_contain (run.err, "/log/vm1.log");
  scene_run (stage.scene, &run, ARGS ("backend", "restart", "vm1"));
  run_must_fail (&run, 5, ARGS ("domain 'vm1': its back-end (process 4711) is gone"));
  scene_run (stage.scene, &run, ARGS ("backend", "restart", "--all"));
  run_must_fail (&run, 6, ARGS ("domain 'vm1': its back-end (process 4711) is gone", "0 of 1"));
  scene_run (stage.scene, &run, ARGS ("list"));
  g_assert_cmpint (run.status, ==, 0);
  must_contain (run.out, "(gone)\n");
  scene_run (stage.scene, &run, ARGS ("check"));
  must_contain (run.out, "\nTO DO  domain 'vm1': its back-end (process 4711) is gone");
  must_contain (run.out, " → 'domybsctl detach vm1 --live'");
  scene_run (stage.scene, &run, ARGS ("list", "--json"));
  object = run_json (&run);
  g_assert_true (json_object_get_boolean_member (
      json_array_get_object_element (json_object_get_array_member (object, "domains"), 0), "backend-gone"));
}

int
main (int argc, char **argv) {
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/backend/restarts", restarts);
  g_test_add_func ("/backend/upgrades", upgrades);
  g_test_add_func ("/backend/tells-why-not", tells_why_not);
  g_test_add_func ("/backend/refuses-nonsense", refuses_nonsense);
  g_test_add_func ("/backend/stops-at-a-failure", stops_at_a_failure);
  g_test_add_func ("/backend/replaces-nothing", replaces_nothing);
  g_test_add_func ("/backend/ends-at-ctrl-c", ends_at_ctrl_c);
  g_test_add_func ("/backend/replaces-far", replaces_far);
  g_test_add_func ("/backend/replaces-both", replaces_both);
  g_test_add_func ("/backend/tells-why-not-far", tells_why_not_far);
  g_test_add_func ("/backend/tells-of-far-workers", tells_of_far_workers);
  g_test_add_func ("/backend/asks-again", asks_again);
  g_test_add_func ("/backend/resizes-over-deaths", resizes_over_deaths);
  g_test_add_func ("/backend/tells-of-deaths", tells_of_deaths);
  g_test_add_func ("/backend/tells-of-busy-ones", tells_of_busy_ones);
  g_test_add_func ("/backend/tells-of-undone-upgrades", tells_of_undone_upgrades);
  g_test_add_func ("/backend/tells-of-gone-ones", tells_of_gone_ones);
  return g_test_run ();
}
