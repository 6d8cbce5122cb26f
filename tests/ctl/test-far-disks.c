/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What domybsctl shows of far disks, and what it refuses. */
#include "ctl-scene.h"
#include "fake-control.h"

#include <string.h>

#define DISK(rest) "\"disks\":[{\"tier\":\"shared\"" rest "}]"

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
shows_disks (void) {
  g_autoptr (Scene) scene = scene_new ();
  const FakeHabits habits = { .status = SCENE_FAR_STATUS };
  g_autofree char *path = scene_far_control_path (scene, scene_add (scene, "vm1", TRUE, SCENE_FAR));
  g_autoptr (FakeControl) fake = fake_control_start (path, &habits);
  g_auto (Run) status = { 0 }, list = { 0 }, json = { 0 }, top = { 0 };
  g_autoptr (JsonObject) object = NULL;
  JsonObject *domain, *far;

  scene_add (scene, "off", FALSE, SCENE_FAR);
  scene_add (scene, "plain", TRUE, NULL);
  scene_add (scene, "memory", FALSE, SCENE_MEMORY (SCENE_GIB));
  setenv ("LC_ALL", "C.UTF-8", 1);
  scene_run (scene, &status, ARGS ("status", "vm1"));
  run_must_succeed (&status);
  must_say (status.out, "Far shared     16M of 1G, stored in 10M; reads take 90 µs (p50), 400 µs (p99)");
  must_say (status.out,
            "; 75% of the pages read ahead were used; 32M ready for the guest, which wants 64M; writes are held back by "
            "its wear budget\n");
  must_say (status.out, "… in           file /srv/far/x");
  must_say (status.out, "Far remote     2G");
  must_not_say (status.out, "Window");
  must_not_say (status.out, "trouble");
  scene_run (scene, &list, ARGS ("list"));
  run_must_succeed (&list);
  must_say (list.out, "FAR");
  must_say (list.out, " 16M/3G ");
  must_say (list.out, " -/3G "); /* of the one that does not run */
  scene_run (scene, &top, ARGS ("top", "-n", "1"));
  run_must_succeed (&top);
  must_say (top.out, " 16M/3G ");
  scene_run (scene, &json, ARGS ("status", "vm1", "--json"));
  object = run_json (&json);
  domain = json_object_get_object_member (object, "domain");
  far = json_object_get_object_member (domain, "far");
  g_assert_cmpint (json_object_get_int_member (far, "remote-bytes"), ==, 2147483648);
  g_assert_cmpuint (json_array_get_length (json_object_get_array_member (far, "disks")), ==, 1);
  g_unsetenv ("LC_ALL");
}

static void
draws_blocks (void) {
  static const char *const nonsense[] = {
    "",
    "\"disks\":[]",
    "\"disks\":[{\"tier\":\"shared\"}]",
    "\"disks\":[{\"tier\":\"shared\",\"in-use\":[]}]",
    "\"disks\":[{\"tier\":\"shared\",\"blocks\":512,\"cell-blocks\":256,\"in-use\":[257,0]}]",
    "\"disks\":[{\"tier\":\"shared\",\"blocks\":-1,\"cell-blocks\":0,\"in-use\":[0]}]",
    "\"disks\":[{\"tier\":7,\"blocks\":512,\"cell-blocks\":256,\"in-use\":[{},0]}]",
  };
  g_autoptr (Scene) scene = scene_new ();
  const FakeHabits habits = { .status = SCENE_FAR_STATUS };
  g_autofree char *path = scene_far_control_path (scene, scene_add (scene, "vm1", TRUE, SCENE_FAR));
  g_autoptr (FakeControl) fake = fake_control_start (path, &habits);
  g_auto (Run) run = { 0 }, off = { 0 };

  scene_run (scene, &run, ARGS ("blocks", "vm1"));
  run_must_succeed (&run);
  must_say (run.out, "far disk 'shared' of 1G, of which blocks of 6M are in use");
  must_not_say (run.out, "window");
  scene_add (scene, "off", FALSE, SCENE_FAR);
  scene_run (scene, &off, ARGS ("blocks", "off"));
  run_must_fail (&off, 3, ARGS ("off"));
  for (gsize i = 0; i < G_N_ELEMENTS (nonsense); i++) {
    g_autoptr (Scene) other = scene_new ();
    const FakeHabits odd = { .status = nonsense[i] };
    g_autofree char *other_path = scene_far_control_path (other, scene_add (other, "vm1", TRUE, SCENE_FAR));
    g_autoptr (FakeControl) odd_fake = fake_control_start (other_path, &odd);
    g_auto (Run) odd_run = { 0 };

    scene_run (other, &odd_run, ARGS ("blocks", "vm1"));
    run_must_fail (&odd_run, 5, ARGS ("makes no sense"));
  }
}

/* Nobody who has none sees anything of them. */
static void
shows_none (void) {
  g_autoptr (Scene) scene = scene_new ();
  g_auto (Run) list = { 0 }, json = { 0 };

  scene_add (scene, "off", FALSE, SCENE_MEMORY (SCENE_GIB));
  scene_run (scene, &list, ARGS ("list"));
  run_must_succeed (&list);
  must_not_say (list.out, "FAR");
  scene_run (scene, &json, ARGS ("list", "--json"));
  must_not_say (json.out, "\"far\"");
}

static void
tells_trouble (void) {
  static const struct {
    const char *status, *trouble;
  } cases[] = {
    { DISK (",\"damaged-pages\":3"), "3 pages that the storage gave back were not what had been stored" },
    { DISK (",\"waiting\":4,\"oldest-wait-ms\":12345"), "4 requests of the guest wait for the storage, the oldest for 12 s" },
    { DISK (",\"storage-reachable\":false"), "its storage can't be reached" },
    { DISK (",\"storage-reachable\":true"), NULL },
    { DISK (",\"errors\":5"), "5 requests of the guest ended in an error" },
    { DISK (",\"pages\":{\"lost\":1}"), "1 pages" },
    { DISK (",\"waiting\":4,\"oldest-wait-ms\":12"), NULL },
  };

  for (gsize i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autoptr (Scene) scene = scene_new ();
    const FakeHabits habits = { .status = cases[i].status };
    g_autofree char *path = scene_far_control_path (scene, scene_add (scene, "vm1", TRUE, SCENE_FAR));
    g_autoptr (FakeControl) fake = fake_control_start (path, &habits);
    g_auto (Run) run = { 0 }, list = { 0 };

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
  }
}

/* Answers of another version, or of somebody else. */
static void
survives_nonsense (void) {
  static const char *const answers[] = {
    "",
    "\"disks\":7",
    "\"disks\":[]",
    "\"disks\":[7,null,[],{}]",
    "\"disks\":[{\"tier\":7}]",
    "\"disks\":[{\"tier\":\"local\"}]",
    DISK (""),
    DISK (",\"pages\":[],\"stored-bytes\":-1,\"size-bytes\":\"many\",\"connected\":1,\"storage\":{}"),
    DISK (",\"pages\":{\"same\":9223372036854775807,\"raw\":9223372036854775807,\"packed\":9223372036854775807}"),
    DISK (",\"oldest-wait-ms\":9223372036854775807,\"waiting\":9223372036854775807,\"read-latency-us\":{\"p50\":{}}"),
    DISK (",\"storage\":\"\\u001b[2J\\n\""),
  };

  for (gsize i = 0; i < G_N_ELEMENTS (answers); i++) {
    g_autoptr (Scene) scene = scene_new ();
    const FakeHabits habits = { .status = answers[i] };
    g_autofree char *path = scene_far_control_path (scene, scene_add (scene, "vm1", TRUE, SCENE_FAR));
    g_autoptr (FakeControl) fake = fake_control_start (path, &habits);
    g_auto (Run) run = { 0 }, json = { 0 };
    g_autoptr (JsonObject) object = NULL;

    g_test_message ("%s", answers[i]);
    scene_run (scene, &run, ARGS ("status", "vm1"));
    g_assert_cmpint (run.status, ==, 0);
    must_say (run.out, "Far shared");
    must_not_say (run.out, "\033");
    if (i < 6)
      must_say (run.out, "makes no sense");
    scene_run (scene, &json, ARGS ("status", "vm1", "--json"));
    object = run_json (&json);
    g_assert_nonnull (object);
  }
}

static void
tells_of_the_gone (void) {
  g_autoptr (Scene) scene = scene_new ();
  g_auto (Run) run = { 0 }, list = { 0 }, check = { 0 };

  scene_add (scene, "vm1", TRUE, SCENE_FAR);
  scene_run (scene, &run, ARGS ("status", "vm1"));
  run_must_succeed (&run);
  must_say (run.out, "its domybs-far is gone");
  must_say (run.out, "virsh destroy vm1");
  must_say (run.out, "log/vm1.far.log");
  scene_run (scene, &list, ARGS ("list"));
  g_assert_cmpint (list.status, ==, 0);
  must_say (list.err, "its domybs-far is gone");
  must_say (list.out, " ?/3G ");
  scene_run (scene, &check, ARGS ("check"));
  g_assert_cmpint (check.status, ==, 1);
  must_say (check.out, "domain 'vm1': its domybs-far is gone");
}

static void
refuses (void) {
  static const struct {
    const char *option, *word;
  } wrong[] = {
    { "--far=", "empty" },
    { "--far=8G", "neither shared=SIZE nor remote=SIZE" },
    { "--far=shared", "neither shared=SIZE nor remote=SIZE" },
    { "--far=local=8G", "neither shared=SIZE nor remote=SIZE" },
    { "--far=shared=8G,shared=8G", "twice" },
    { "--far=shared=8G,", "neither" },
    { "--far=mem-shared", "mem-shared=SIZE" },
    { "--far=mem-local=8G", "mem-shared=SIZE" },
    { "--far=mem-shared=8G,mem-shared=8G", "twice" },
    { "--far=shared=32M", "between 64M and 16T" },
    { "--far=remote=17T", "between 64M and 16T" },
    { "--far=remote=1000001", "multiple of 2M" },
    { "--far-storage=http://x/y", "NBD URI" },
    { "--far-storage=/a,b", "without commas" },
    { "--far-storage=", "neither a path" },
    { "--far-wear=2M", "between 64M and 1024T" },
    { "--far-wear=much", "--far-wear" },
    { "--far-protection=raid", "none of ssd, mirror, storage, default" },
    { "--far-protection=", "none of ssd, mirror, storage, default" },
    { "--far-protection=ssd,mirror", "none of ssd, mirror, storage, default" },
    { "--far-protection=SSD", "none of ssd, mirror, storage, default" },
  };
  g_autoptr (Scene) scene = scene_new ();
  g_auto (Run) both = { 0 }, config = { 0 }, nothing = { 0 };

  scene_add (scene, "vm1", TRUE, SCENE_FAR);
  scene_add (scene, "memory", FALSE, SCENE_MEMORY (SCENE_GIB));
  for (gsize i = 0; i < G_N_ELEMENTS (wrong); i++) {
    g_auto (Run) run = { 0 };

    scene_run (scene, &run, ARGS ("attach", "vm1", wrong[i].option));
    run_must_fail (&run, 2, ARGS (wrong[i].word));
  }
  scene_run (scene, &both, ARGS ("attach", "vm1", "--far=shared=8G", "--far-compress", "--no-far-compress"));
  run_must_fail (&both, 2, ARGS ("opposites"));
  scene_run (scene, &nothing, ARGS ("detach", "memory", "--far"));
  run_must_fail (&nothing, 3, ARGS ("no far disk is attached"));
  scene_run (scene, &config, ARGS ("detach", "vm1", "--far", "--config", "--dry-run"));
  run_must_succeed (&config);
}

/* ---- copies with neighbours ---- */

#define COPIES(members) DISK (",\"protection\":\"mirror\",\"copies\":{" members "}")
#define DONOR_B                                                                                                                \
  "{\"name\":\"b\",\"domain\":\"rack1\",\"channel\":\"attached\",\"state\":\"up\",\"copies\":170,\"read-p50-us\":90,"                    \
  "\"read-p95-us\":210}"
#define DONOR_C                                                                                                                \
  "{\"name\":\"c\",\"domain\":\"rack2\",\"channel\":\"down\",\"channel-age-ms\":12000,\"why\":\"no answer\",\"state\":\"gone\","        \
  "\"leaves\":true,\"copies\":12,\"damaged\":3}"

static void
shows_copies (void) {
  g_autoptr (Scene) scene = scene_new ();
  const FakeHabits habits
      = { .status = COPIES ("\"protected\":170,\"degraded\":12,\"endangered\":1,\"lost\":0,\"repairing\":true,"
                            "\"repaired-bytes\":2097152,\"waiting\":2,\"donors\":[" DONOR_B "," DONOR_C "]") };
  g_autofree char *path = scene_far_control_path (scene, scene_add (scene, "vm1", TRUE, SCENE_FAR));
  g_autoptr (FakeControl) fake = fake_control_start (path, &habits);
  g_auto (Run) status = { 0 }, list = { 0 };

  setenv ("LC_ALL", "C.UTF-8", 1);
  scene_run (scene, &status, ARGS ("status", "vm1"));
  run_must_succeed (&status);
  must_say (status.out, "… protection   mirror: 170 places of 2M protected, 12 degraded, 1 endangered, 0 lost; copies are being "
                        "made, 2M so far; 2 reads wait for a copy\n");
  must_say (status.out, "… donor b      rack1, up, 170 copies; reads take 90 µs (p50), 210 µs (p95)\n");
  must_say (status.out, "… donor c      rack2, gone (removed), down for 12 s (no answer), 12 copies, 3 reads damaged\n");
  must_say (status.out, "1 places of 2M have no copy that counts (its donors c can't be reached)");
  scene_run (scene, &list, ARGS ("list"));
  g_assert_cmpint (list.status, ==, 0);
  must_say (list.err, "far disk 'shared': 1 places of 2M have no copy that counts");
  must_not_say (list.out, "waits");
  g_unsetenv ("LC_ALL");
}

/* What needs somebody, and what does not. */
static void
tells_of_copies (void) {
  static const struct {
    const char *status, *trouble; /* NULL: none */
  } cases[] = {
    { COPIES ("\"degraded\":3,\"donors\":[" DONOR_B "]"), "3 places of 2M have fewer copies than 'mirror' wants, as its donors have no room" },
    { COPIES ("\"degraded\":3,\"donors\":[]"), "there are no donors; see that they come back, or add one" },
    { COPIES ("\"degraded\":3,\"repairing\":true,\"donors\":[" DONOR_B "]"), NULL },
    { COPIES ("\"lost\":4,\"endangered\":3,\"donors\":[]"), "no copy is left of 4 places of 2M" },
    { COPIES ("\"degraded\":-3,\"donors\":[7,{}]"), NULL },
    { COPIES ("\"degraded\":\"x\",\"donors\":{}"), NULL },
    { DISK (",\"protection\":5,\"copies\":[1]"), NULL },
    { DISK (",\"waiting\":2,\"oldest-wait-ms\":2000,\"copies\":{\"donors\":[" DONOR_B "]}"),
      "2 requests of the guest wait for the storage or donors, the oldest for 2 s; see that they answer" },
  };

  for (gsize i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autoptr (Scene) scene = scene_new ();
    const FakeHabits habits = { .status = cases[i].status };
    g_autofree char *path = scene_far_control_path (scene, scene_add (scene, "vm1", TRUE, SCENE_FAR));
    g_autoptr (FakeControl) fake = fake_control_start (path, &habits);
    g_auto (Run) status = { 0 }, list = { 0 }, json = { 0 };

    scene_run (scene, &status, ARGS ("status", "vm1"));
    run_must_succeed (&status);
    if (cases[i].trouble)
      must_say (status.out, cases[i].trouble);
    else
      must_not_say (status.out, "trouble");
    scene_run (scene, &list, ARGS ("list"));
    g_assert_cmpint (list.status, ==, 0);
    if (strstr (cases[i].status, "\"waiting\":2"))
      must_say (list.out, " waits ");
    else
      must_not_say (list.out, "waits");
    scene_run (scene, &json, ARGS ("list", "--json"));
    g_assert_cmpint (json.status, ==, 0);
  }
}

/* ---- the running VM ---- */

/* What is on a disk is not lost. (That an empty one can be unplugged is in tests/libvirt.) */
static void
keeps_what_is_full (void) {
  static const struct {
    FakeHabits habits;
    const char *words[2];
    int status;
  } cases[] = {
    { { .far = TRUE, .blocks = 3 }, { "far disk 'shared' (in blocks of 6M)", "run 'domybs-swap stop' in the guest" }, 4 },
    { { .status = DISK ("") }, { "does not say what is on far disk 'shared'", "domybsctl backend upgrade vm1" }, 4 },
    { { .status = "\"disks\":[]" }, { "can't be told", "makes no sense" }, 5 },
  };

  for (gsize i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autoptr (Scene) scene = scene_new ();
    g_autofree char *path = scene_far_control_path (scene, scene_add (scene, "vm1", TRUE, SCENE_FAR));
    g_autoptr (FakeControl) fake = fake_control_start (path, &cases[i].habits);
    g_auto (Run) live = { 0 }, all = { 0 }, plan = { 0 };

    scene_run (scene, &live, ARGS ("detach", "vm1", "--far", "--live"));
    run_must_fail (&live, cases[i].status, ARGS ("domain 'vm1': not detached: ", cases[i].words[0], cases[i].words[1]));
    scene_run (scene, &all, ARGS ("detach", "vm1", "--live"));
    run_must_fail (&all, cases[i].status, ARGS (cases[i].words[0]));
    scene_run (scene, &plan, ARGS ("detach", "vm1", "--far", "--live", "--dry-run"));
    run_must_succeed (&plan);
    must_say (plan.out, "running VM: unplugs the far disks, if they are empty");
  }
}

static void
plugs_only_into_what_is_fit (void) {
  static const struct {
    const char *arguments[5];
    const char *words[2];
  } cases[] = {
    { { "attach", "vm1", "--far=shared=2G", "--live" }, { "other far disks", "domybsctl detach vm1 --far --live" } },
    { { "attach", "vm1", "--far=none", "--live" }, { "takes no far disks out", "domybsctl detach vm1 --far --live" } },
    { { "attach", "plain", "--far=shared=2G", "--live" }, { "running VM's memory is not shared", "attach with --config" } },
    { { "attach", "plain", "--far-compress", "--live" }, { "no far disk is attached", "use --far" } },
    { { "attach", "off", "--far=shared=2G", "--live" }, { "not running", "--config" } },
  };
  g_autoptr (Scene) scene = scene_new ();
  g_auto (Run) nothing = { 0 };

  scene_add (scene, "vm1", TRUE, SCENE_FAR);
  scene_add (scene, "off", FALSE, SCENE_FAR);
  scene_add (scene, "plain", TRUE, NULL);
  for (gsize i = 0; i < G_N_ELEMENTS (cases); i++) {
    const char *const *a = cases[i].arguments;
    g_auto (Run) run = { 0 };

    scene_run (scene, &run, ARGS (a[0], a[1], a[2], a[3]));
    run_must_fail (&run, 4, ARGS (cases[i].words[0], cases[i].words[1]));
  }
  scene_run (scene, &nothing, ARGS ("detach", "plain", "--far", "--live"));
  run_must_fail (&nothing, 3, ARGS ("no far disk is attached to the running VM"));
}

int
main (int argc, char **argv) {
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/far/shows disks", shows_disks);
  g_test_add_func ("/far/draws blocks", draws_blocks);
  g_test_add_func ("/far/shows nothing where there are none", shows_none);
  g_test_add_func ("/far/tells trouble", tells_trouble);
  g_test_add_func ("/far/survives nonsense", survives_nonsense);
  g_test_add_func ("/far/tells of a domybs-far that is gone", tells_of_the_gone);
  g_test_add_func ("/far/refuses", refuses);
  g_test_add_func ("/far/shows copies", shows_copies);
  g_test_add_func ("/far/tells of copies", tells_of_copies);
  g_test_add_func ("/far/keeps what is full", keeps_what_is_full);
  g_test_add_func ("/far/plugs only into what is fit", plugs_only_into_what_is_fit);
  return g_test_run ();
}
