/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What domybsctl shows of the objects of VMs, and what it refuses. That they can be attached is in tests/libvirt. */
#include "ctl-scene.h"
#include "fake-control.h"

#include <string.h>

#define OBJECT(rest) "\"objects\":[{\"name\":\"model\"" rest "}]"

static void
must_say (const char *text, const char *part) {
  if (!strstr (text, part))
    g_error ("no “%s” in:\n%s", part, text);
}

static void
must_not_say (const char *text, const char *part) {
  if (strstr (text, part))
    g_error ("there is “%s” in:\n%s", part, text);
}

static void
shows_objects (void) {
  g_autoptr (Scene) scene = scene_new ();
  const FakeHabits habits = { .status = SCENE_OBJECT_STATUS }, other = { .status = "\"objects\":[{\"name\":\"data-set\"}]" };
  const char *uuid = scene_add (scene, "vm1", TRUE, SCENE_OBJECTS);
  g_autofree char *path = scene_object_control_path (scene, uuid, "model"),
                  *other_path = scene_object_control_path (scene, uuid, "data-set");
  g_autoptr (FakeControl) fake = fake_control_start (path, &habits), other_fake = fake_control_start (other_path, &other);
  g_auto (Run) status = { 0 }, list = { 0 }, json = { 0 }, off = { 0 };
  g_autoptr (JsonObject) object = NULL;
  JsonArray *objects;

  scene_add (scene, "off", FALSE, SCENE_OBJECTS);
  scene_add (scene, "memory", FALSE, SCENE_MEMORY (SCENE_GIB));
  setenv ("LC_ALL", "C.UTF-8", 1);
  scene_run (scene, &status, ARGS ("status", "vm1"));
  run_must_succeed (&status);
  must_say (status.out, "Object model   1G; reads take 90 µs (p50), 400 µs (p99)\n");
  must_say (status.out, "Object data-set ?; not connected to QEMU\n");
  must_say (status.out, "/dev/disk/by-id/virtio-domybs-model");
  must_not_say (status.out, "Window");
  must_not_say (status.out, "trouble");
  scene_run (scene, &off, ARGS ("status", "off"));
  run_must_succeed (&off);
  must_say (off.out, "Object model   read-only\n");
  must_say (off.out, "its objects come with the next start");
  scene_run (scene, &list, ARGS ("list"));
  run_must_succeed (&list);
  must_say (list.out, "OBJECTS");
  must_say (list.out, "  model,data-set  ");
  must_not_say (list.out, "FAR");
  scene_run (scene, &json, ARGS ("status", "vm1", "--json"));
  object = run_json (&json);
  objects = json_object_get_array_member (json_object_get_object_member (object, "domain"), "objects");
  g_assert_cmpuint (json_array_get_length (objects), ==, 2);
  g_assert_cmpint (json_object_get_int_member (json_array_get_object_element (objects, 0), "read-pages"), ==, 50);
  g_unsetenv ("LC_ALL");
}

/* Nobody who has none sees anything of them, and objects are no far disks. */
static void
shows_none (void) {
  g_autoptr (Scene) scene = scene_new ();
  g_auto (Run) list = { 0 }, json = { 0 }, far = { 0 }, blocks = { 0 };

  scene_add (scene, "off", FALSE, SCENE_MEMORY (SCENE_GIB));
  scene_run (scene, &list, ARGS ("list"));
  run_must_succeed (&list);
  must_not_say (list.out, "OBJECTS");
  scene_run (scene, &json, ARGS ("list", "--json"));
  must_not_say (json.out, "\"objects\"");
  scene_add (scene, "vm1", TRUE, SCENE_OBJECTS);
  scene_run (scene, &far, ARGS ("detach", "vm1", "--far"));
  run_must_fail (&far, 3, ARGS ("no far disk is attached"));
  scene_run (scene, &blocks, ARGS ("blocks", "vm1"));
  run_must_fail (&blocks, 3, ARGS ("no memory device is attached"));
}

static void
tells_trouble (void) {
  static const struct {
    const char *status, *trouble;
  } cases[] = {
    { OBJECT (",\"damaged-pages\":3"), "3 times a page was read that is not what was imported" },
    { OBJECT (",\"waiting\":4,\"oldest-wait-ms\":12345"), "4 requests of the guest wait for the storage, the oldest for 12 s" },
    { OBJECT (",\"errors\":5"), "5 requests of the guest ended in an error" },
    { OBJECT (",\"waiting\":4,\"oldest-wait-ms\":12"), NULL },
    { OBJECT (",\"errors\":\"many\",\"connected\":7,\"read-latency-us\":[],\"size-bytes\":-1"), NULL },
    { "", "that object is not in it" },
    { "\"objects\":[7,null,{},{\"name\":{}},{\"name\":\"other\"}]", "that object is not in it" },
    { "\"objects\":{\"name\":\"model\"}", "that object is not in it" },
  };

  for (gsize i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autoptr (Scene) scene = scene_new ();
    const FakeHabits habits = { .status = cases[i].status }, well = { .status = "\"objects\":[{\"name\":\"data-set\"}]" };
    const char *uuid = scene_add (scene, "vm1", TRUE, SCENE_OBJECTS);
    g_autofree char *path = scene_object_control_path (scene, uuid, "model"),
                    *other_path = scene_object_control_path (scene, uuid, "data-set");
    g_autoptr (FakeControl) fake = fake_control_start (path, &habits), other = fake_control_start (other_path, &well);
    g_auto (Run) run = { 0 }, list = { 0 }, json = { 0 };
    g_autoptr (JsonObject) object = NULL;

    scene_run (scene, &run, ARGS ("status", "vm1"));
    run_must_succeed (&run);
    scene_run (scene, &list, ARGS ("list"));
    g_assert_cmpint (list.status, ==, 0);
    if (cases[i].trouble) {
      must_say (run.out, cases[i].trouble);
      must_say (list.err, cases[i].trouble);
    } else {
      g_assert_cmpstr (list.err, ==, "");
    }
    scene_run (scene, &json, ARGS ("status", "vm1", "--json"));
    object = run_json (&json);
    g_assert_nonnull (object);
  }
}

/* One that is gone can be started again, other than the keeper of far disks: the advice is another. */
static void
tells_of_the_gone (void) {
  g_autoptr (Scene) scene = scene_new ();
  g_auto (Run) run = { 0 }, check = { 0 }, restart = { 0 };

  scene_add (scene, "vm1", TRUE, SCENE_OBJECTS);
  scene_run (scene, &run, ARGS ("status", "vm1"));
  run_must_succeed (&run);
  must_say (run.out, "its domybs-far for object 'model' is gone");
  must_say (run.out, "'domybsctl backend restart vm1'");
  must_say (run.out, "log/vm1.object-model.log");
  scene_run (scene, &check, ARGS ("check"));
  g_assert_cmpint (check.status, ==, 1);
  must_say (check.out, "domain 'vm1': its domybs-far for object 'data-set' is gone");
  scene_run (scene, &restart, ARGS ("backend", "restart", "vm1")); /* … if there was such an object */
  run_must_fail (&restart, 3, ARGS ("domain 'vm1': its object 'model' is not on this host", "domybsctl object import"));
}

static void
replaces_workers (void) {
  g_autoptr (Scene) scene = scene_new ();
  const FakeHabits model_habits = { .far = TRUE, .away = 2, .installed = "0.2.0" };
  const char *uuid = scene_add (scene, "vm1", TRUE,
                                "<domybs:domybs xmlns:domybs='urn:domybs:libvirt:1'><domybs:objects names='model' "
                                "last-bus='4'/></domybs:domybs>");
  g_autofree char *path = scene_object_control_path (scene, uuid, "model");
  g_autoptr (FakeControl) fake = fake_control_start (path, &model_habits);
  g_auto (Run) restart = { 0 }, upgrade = { 0 };
  g_autoptr (JsonObject) object = NULL;
  JsonObject *replacement;

  scene_run (scene, &restart, ARGS ("backend", "restart", "vm1"));
  run_must_succeed (&restart);
  must_say (restart.out, "Domain 'vm1': domybs-far for object 'model' restarted, version 0.1.0, in ");
  g_assert_cmpuint (fake_control_starts (fake), ==, 2);
  scene_run (scene, &upgrade, ARGS ("backend", "upgrade", "--all", "--json"));
  object = run_json (&upgrade);
  g_assert_cmpuint (json_array_get_length (json_object_get_array_member (object, "domains")), ==, 1);
  replacement = json_array_get_object_element (json_object_get_array_member (object, "domains"), 0);
  g_assert_cmpstr (json_object_get_string_member (replacement, "process"), ==, "object");
  g_assert_cmpstr (json_object_get_string_member (replacement, "object"), ==, "model");
  g_assert_cmpstr (json_object_get_string_member (replacement, "version-after"), ==, "0.2.0");
}

static void
refuses (void) {
  static const struct {
    const char *arguments[6];
    int status;
    const char *words[2];
  } cases[] = {
    { { "attach", "vm1", "--object=No/Name" }, 2, { "no name for an object" } },
    { { "attach", "vm1", "--object=shared" }, 2, { "no name for an object" } },
    { { "attach", "vm1", "--object=" }, 2, { "no name for an object" } },
    { { "attach", "vm1", "--object=missing" }, 3, { "object 'missing': there is none of that name" } },
    { { "attach", "vm1", "--object=broken" }, 4, { "object 'broken': ", "remove it and import it again" } },
    { { "attach", "plain", "--object=good", "--live" }, 4, { "running VM's memory is not shared", "attach with --config" } },
    { { "attach", "off", "--object=good", "--live" }, 4, { "not running", "--config" } },
    { { "detach", "vm1", "--object=No/Name" }, 2, { "no name for an object" } },
    { { "detach", "vm1", "--object=other" }, 3, { "no object of that name is attached" } },
    { { "detach", "memory", "--all-objects" }, 3, { "no object is attached" } },
    { { "detach", "vm1", "--memory" }, 3, { "no memory device is attached" } },
  };
  g_autoptr (Scene) scene = scene_new ();
  g_autofree char *folder = g_build_filename (g_getenv ("DOMYBS_TEST_RUNDIR"), "objects", NULL),
                  *source = g_build_filename (folder, "source", NULL),
                  *broken = g_build_filename (folder, "broken.object", NULL);
  g_auto (Run) import = { 0 }, plan = { 0 }, all = { 0 };

  scene_add (scene, "vm1", TRUE, SCENE_OBJECTS);
  scene_add (scene, "off", FALSE, SCENE_OBJECTS);
  scene_add (scene, "memory", FALSE, SCENE_MEMORY (SCENE_GIB));
  scene_add (scene, "plain", TRUE, NULL);
  g_assert_cmpint (g_mkdir_with_parents (folder, 0700), ==, 0);
  g_assert_true (g_file_set_contents (source, "content", -1, NULL));
  g_assert_true (g_file_set_contents (broken, "nothing", -1, NULL));
  scene_run (scene, &import, ARGS ("object", "import", source, "--name=good"));
  run_must_succeed (&import);
  for (gsize i = 0; i < G_N_ELEMENTS (cases); i++) {
    const char *const *a = cases[i].arguments;
    g_auto (Run) run = { 0 };

    scene_run (scene, &run, ARGS (a[0], a[1], a[2], a[3]));
    run_must_fail (&run, cases[i].status, ARGS (cases[i].words[0], cases[i].words[1]));
  }
  scene_run (scene, &plan, ARGS ("detach", "off", "--object=model", "--dry-run"));
  run_must_succeed (&plan);
  must_say (plan.out, "configuration: removes the disk of object model");
  must_not_say (plan.out, "not shared");
  scene_run (scene, &all, ARGS ("detach", "vm1", "--all-objects", "--dry-run"));
  run_must_succeed (&all);
  must_say (all.out, "running VM: unplugs objects 'model', 'data-set'");
}

int
main (int argc, char **argv) {
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/objects/shows objects", shows_objects);
  g_test_add_func ("/objects/shows nothing where there are none", shows_none);
  g_test_add_func ("/objects/tells trouble", tells_trouble);
  g_test_add_func ("/objects/tells of a domybs-far that is gone", tells_of_the_gone);
  g_test_add_func ("/objects/replaces workers", replaces_workers);
  g_test_add_func ("/objects/refuses", refuses);
  return g_test_run ();
}
