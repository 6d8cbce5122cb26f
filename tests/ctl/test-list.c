/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Many domains, and domains with odd names. */
#include "ctl-scene.h"

#include <string.h>

static JsonArray *
list (Scene *scene, const char *option, JsonObject **ret_object) {
  g_auto (Run) run = { 0 };

  scene_run (scene, &run, ARGS ("list", "--json", option));
  run_must_succeed (&run);
  *ret_object = run_json (&run);
  return json_object_get_array_member (*ret_object, "domains");
}

static void
lists_nothing (void) {
  g_autoptr (Scene) scene = scene_new ();
  g_autoptr (JsonObject) object = NULL;
  g_auto (Run) run = { 0 };

  scene_add (scene, "plain", TRUE, NULL); /* the test driver wants one */
  g_assert_cmpuint (json_array_get_length (list (scene, NULL, &object)), ==, 0);
  scene_run (scene, &run, ARGS ("list"));
  run_must_succeed (&run);
  g_assert_nonnull (strstr (run.out, "list --all"));
  scene_run (scene, &run, ARGS ("list", "-q"));
  run_must_succeed (&run);
  g_assert_cmpstr (run.out, ==, "");
}

static void
lists_500_domains (void) {
  g_autoptr (Scene) scene = scene_new ();
  g_autoptr (JsonObject) attached = NULL, all = NULL;
  g_auto (Run) run = { 0 };
  g_auto (GStrv) lines = NULL;
  JsonArray *domains;

  for (unsigned i = 0; i < 500; i++) {
    g_autofree char *name = g_strdup_printf ("vm-%03u", 499 - i);

    scene_add (scene, name, i % 3 != 0, i % 5 ? SCENE_MEMORY (SCENE_GIB) : NULL);
  }
  domains = list (scene, "--all", &all);
  g_assert_cmpuint (json_array_get_length (domains), ==, 500);
  for (unsigned i = 0; i < 500; i++) {
    g_autofree char *name = g_strdup_printf ("vm-%03u", i);
    JsonObject *domain = json_array_get_object_element (domains, i);

    g_assert_cmpstr (json_object_get_string_member (domain, "name"), ==, name);
    g_assert_cmpstr (json_object_get_string_member (domain, "state"), ==, (499 - i) % 3 ? "running" : "shut-off");
    g_assert_cmpint (json_object_get_boolean_member (domain, "attached"), ==, (499 - i) % 5 != 0);
  }
  g_assert_cmpuint (json_array_get_length (list (scene, NULL, &attached)), ==, 400);
  scene_run (scene, &run, ARGS ("list", "--names", "--all"));
  run_must_succeed (&run);
  lines = g_strsplit (run.out, "\n", -1);
  g_assert_cmpuint (g_strv_length (lines), ==, 501);
  g_assert_cmpstr (lines[499], ==, "vm-499");
}

/* Names that libvirt takes and terminals don't. */
static void
lists_odd_names (void) {
  static const char *const names[]
      = { "with space", "größe", "大きい", "quote'\"", "-dash", "a\342\200\256b", "1", "$(reboot)", "%s%n" };
  g_autoptr (Scene) scene = scene_new ();
  g_autoptr (JsonObject) object = NULL;
  g_auto (Run) run = { 0 };
  JsonArray *domains;

  for (size_t i = 0; i < G_N_ELEMENTS (names); i++)
    scene_add (scene, names[i], FALSE, SCENE_MEMORY (SCENE_GIB));
  domains = list (scene, NULL, &object);
  g_assert_cmpuint (json_array_get_length (domains), ==, G_N_ELEMENTS (names));
  for (size_t i = 0; i < G_N_ELEMENTS (names); i++) {
    gboolean found = FALSE;

    for (unsigned j = 0; j < json_array_get_length (domains); j++)
      found |= strcmp (json_object_get_string_member (json_array_get_object_element (domains, j), "name"), names[i]) == 0;
    g_assert_true (found);
    if (*names[i] != '-') {
      g_auto (Run) one = { 0 };

      scene_run (scene, &one, ARGS ("status", names[i]));
      run_must_succeed (&one);
    }
  }
  scene_run (scene, &run, ARGS ("status", "--", "-dash"));
  run_must_succeed (&run);
  setenv ("LC_ALL", "C.UTF-8", 1);
  scene_run (scene, &run, ARGS ("list"));
  run_must_succeed (&run);
  g_assert_nonnull (strstr (run.out, "a\\u202eb "));
  g_assert_null (strstr (run.out, "\342\200\256"));
  g_assert_nonnull (strstr (run.out, "\n大きい      shut off"));
  g_assert_nonnull (strstr (run.out, "\ngröße       shut off"));
  /* JSON is UTF-8 whatever the locale is */
  setenv ("LC_ALL", "C", 1);
  scene_run (scene, &run, ARGS ("list", "--json"));
  run_must_succeed (&run);
  g_assert_nonnull (strstr (run.out, "größe"));
  g_unsetenv ("LC_ALL");
}

int
main (int argc, char **argv) {
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/list/nothing", lists_nothing);
  g_test_add_func ("/list/500-domains", lists_500_domains);
  g_test_add_func ("/list/odd-names", lists_odd_names);
  return g_test_run ();
}
