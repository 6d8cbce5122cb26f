/* SPDX-License-Identifier: GPL-2.0-or-later */
/* grow, shrink, target, blocks, status and top against real back-ends, with guests that follow. */
#include "ctl-scene.h"

#include <glib/gstdio.h>
#include <signal.h>
#include <string.h>

#define MIB (1024 * 1024)

static const GuestHabits good = { 0 };

static void
grows_and_shrinks (void) {
  g_auto (Stage) stage = stage_new (&good, NULL);
  g_auto (Run) run = { 0 };

  stage_resize (&stage, "grow", "256M", NULL, 0, NULL);
  scene_must_have (stage.backend, "granted-blocks", 128);
  stage_resize (&stage, "grow", "+64M", NULL, 0, NULL);
  scene_must_have (stage.backend, "granted-blocks", 160);
  scene_must_have (stage.backend, "target-blocks", 160);
  stage_resize (&stage, "shrink", "-20M", NULL, 0, NULL);
  scene_must_have (stage.backend, "granted-blocks", 150);
  stage_resize (&stage, "grow", "300M", NULL, 0, NULL); /* it is there already */
  stage_resize (&stage, "shrink", "-1T", NULL, 0, NULL);
  scene_must_have (stage.backend, "granted-blocks", 0);
  scene_must_have (stage.backend, "memfd-bytes", 0);
  stage_resize (&stage, "shrink", "0", NULL, 0, NULL);
  scene_run (stage.scene, &run, ARGS ("grow", "vm1", "2M"));
  run_must_succeed (&run);
  g_assert_nonnull (strstr (run.out, "'vm1' has 2M"));
  g_assert_nonnull (strstr (run.out, "target stays 2M"));
  scene_run (stage.scene, &run, ARGS ("grow", "-q", "vm1", "4M"));
  run_must_succeed (&run);
  g_assert_cmpstr (run.out, ==, "");
}

static void
finds_the_domain_by_anything (void) {
  g_auto (Stage) stage = stage_new (&good, NULL);
  g_auto (Run) run = { 0 };

  scene_run (stage.scene, &run, ARGS ("target", stage.uuid, "10M"));
  run_must_succeed (&run);
  scene_must_have (stage.backend, "target-blocks", 5);
  scene_run (stage.scene, &run, ARGS ("target", "1", "20M"));
  run_must_succeed (&run);
  scene_must_have (stage.backend, "target-blocks", 10);
}

static void
reports_what_is_there_after_overshooting (void) {
  const GuestHabits habits = { .overshoots = true, .pause_ms = 50 };
  g_auto (Stage) stage = stage_new (&habits, NULL);

  stage_resize (&stage, "grow", "200M", NULL, 0, NULL);
  scene_must_have (stage.backend, "granted-blocks", 100);
}

static void
refuses_the_other_way (void) {
  g_auto (Stage) stage = stage_new (&good, NULL);
  g_auto (Run) run = { 0 };

  stage_resize (&stage, "grow", "64M", NULL, 0, NULL);
  scene_run (stage.scene, &run, ARGS ("grow", "vm1", "32M"));
  run_must_fail (&run, 4, ARGS ("domain 'vm1'", "has 64M", "domybsctl shrink vm1 32M"));
  scene_run (stage.scene, &run, ARGS ("shrink", "vm1", "128M"));
  run_must_fail (&run, 4, ARGS ("has 64M", "domybsctl grow vm1 128M"));
  scene_must_have (stage.backend, "target-blocks", 32);
}

static void
sets_targets (void) {
  g_auto (Stage) stage = stage_new (&good, ARGS ("--local-max=1G"));
  g_auto (Run) run = { 0 };

  scene_run (stage.scene, &run, ARGS ("target", "vm1", "-q"));
  run_must_succeed (&run);
  g_assert_cmpstr (run.out, ==, "auto\n");
  scene_run (stage.scene, &run, ARGS ("target", "vm1", "128M"));
  run_must_succeed (&run);
  g_assert_true (backend_wait_status (stage.backend, "granted-blocks", 64, fe_patience_ms ()));
  scene_run (stage.scene, &run, ARGS ("target", "vm1", "-q"));
  g_assert_cmpstr (run.out, ==, "128M\n");
  scene_run (stage.scene, &run, ARGS ("target", "vm1", "2G"));
  run_must_fail (&run, 4, ARGS ("domain 'vm1'", "2G", "--local-max is 1G"));
  scene_must_have (stage.backend, "target-blocks", 64);
  scene_run (stage.scene, &run, ARGS ("target", "vm1", "auto"));
  run_must_succeed (&run);
  scene_must_have (stage.backend, "target-blocks", INT64_MIN);
}

static void
draws_blocks (void) {
  g_auto (Stage) stage = stage_new (&good, NULL);
  g_auto (Run) run = { 0 };
  g_autoptr (JsonObject) object = NULL;
  JsonArray *cells;
  gint64 sum = 0;

  stage_resize (&stage, "grow", "200M", NULL, 0, NULL);
  scene_run (stage.scene, &run, ARGS ("blocks", "vm1"));
  run_must_succeed (&run);
  g_assert_nonnull (strstr (run.out, "200M granted in a window of 4G"));
  g_assert_nonnull (strstr (run.out, "free up to 4G"));
  g_assert_null (strchr (run.out, '\033'));
  scene_run (stage.scene, &run, ARGS ("blocks", "vm1", "--json"));
  run_must_succeed (&run);
  object = run_json (&run);
  cells = json_object_get_array_member (object, "cells-granted-bytes");
  for (unsigned i = 0; i < json_array_get_length (cells); i++)
    sum += json_array_get_int_element (cells, i);
  g_assert_cmpint (sum, ==, 200 * (gint64)MIB);
  g_assert_cmpint (json_object_get_int_member (object, "granted-bytes"), ==, sum);
}

static void
shows_status (void) {
  const GuestHabits habits = { .stuck_blocks = 20 };
  g_auto (Stage) stage = stage_new (&habits, NULL);
  g_auto (Run) run = { 0 };

  stage_resize (&stage, "grow", "100M", NULL, 0, NULL);
  scene_run (stage.scene, &run, ARGS ("status", "vm1"));
  run_must_succeed (&run);
  g_assert_nonnull (strstr (run.out, "Granted        100M\n"));
  g_assert_nonnull (strstr (run.out, "Target         100M\n"));
  g_assert_nonnull (strstr (run.out, "Guest driver   test-frontend\n"));
  g_assert_nonnull (strstr (run.out, "that is what it has"));
  stage_resize (&stage, "shrink", "0", NULL, 6, "stuck");
  scene_run (stage.scene, &run, ARGS ("status", "vm1"));
  run_must_succeed (&run);
  g_assert_nonnull (strstr (run.out, "can't move"));
  scene_run (stage.scene, &run, ARGS ("status"));
  run_must_succeed (&run);
  g_assert_nonnull (strstr (run.out, "1 with the memory device, 1 of them running"));
  g_assert_nonnull (strstr (run.out, "test-frontend"));
}

static void
watches (void) {
  g_auto (Stage) stage = stage_new (&good, NULL);
  g_auto (Run) run = { 0 };
  g_auto (GStrv) lines = NULL;
  Running *running;

  stage_resize (&stage, "grow", "100M", NULL, 0, NULL);
  scene_run (stage.scene, &run, ARGS ("top", "--count=2", "--interval=0.1"));
  run_must_succeed (&run);
  g_assert_null (strchr (run.out, '\033'));
  g_assert_nonnull (strstr (run.out, "vm1"));
  scene_run (stage.scene, &run, ARGS ("top", "--json", "--count=3", "--interval=0.1"));
  run_must_succeed (&run);
  lines = g_strsplit (run.out, "\n", -1);
  g_assert_cmpuint (g_strv_length (lines), ==, 4); /* the last one is empty */
  for (unsigned i = 0; i < 3; i++) {
    g_autoptr (JsonNode) node = json_from_string (lines[i], NULL);

    g_assert_nonnull (node);
    g_assert_true (json_object_has_member (json_node_get_object (node), "domains"));
  }
  running = scene_start (stage.scene, ARGS ("top"));
  g_usleep (300000);
  scene_finish (running, SIGINT, &run);
  g_assert_cmpint (run.status, ==, 130);
  g_assert_cmpstr (run.err, ==, "");
}

int
main (int argc, char **argv) {
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/grow/grows-and-shrinks", grows_and_shrinks);
  g_test_add_func ("/grow/finds-the-domain-by-anything", finds_the_domain_by_anything);
  g_test_add_func ("/grow/reports-what-is-there-after-overshooting", reports_what_is_there_after_overshooting);
  g_test_add_func ("/grow/refuses-the-other-way", refuses_the_other_way);
  g_test_add_func ("/grow/sets-targets", sets_targets);
  g_test_add_func ("/grow/draws-blocks", draws_blocks);
  g_test_add_func ("/grow/shows-status", shows_status);
  g_test_add_func ("/grow/watches", watches);
  return g_test_run ();
}
