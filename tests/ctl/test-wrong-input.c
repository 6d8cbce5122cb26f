/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Whatever is wrong: one line on stderr that names it, the right exit status, nothing on stdout, nothing changed. */
#include "ctl-scene.h"
#include "ctl/text.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* Runs it, checks how it failed; then again with --json: the same line, and one object with the error's code. */
static void
must_refuse (Scene *scene, const char *const *arguments, int status, const char *code, const char *const *words) {
  g_autoptr (GPtrArray) with_json = g_ptr_array_new ();
  g_auto (Run) plain = { 0 }, json = { 0 };
  g_autoptr (JsonObject) object = NULL;
  g_autofree char *message = NULL;
  JsonObject *error;

  scene_run (scene, &plain, arguments);
  run_must_fail (&plain, status, words);
  g_ptr_array_add (with_json, (gpointer) "--json");
  for (unsigned i = 0; arguments[i]; i++)
    g_ptr_array_add (with_json, (gpointer)arguments[i]);
  g_ptr_array_add (with_json, NULL);
  scene_run (scene, &json, (const char *const *)with_json->pdata);
  g_assert_cmpint (json.status, ==, status);
  g_assert_cmpstr (json.err, ==, plain.err);
  object = run_json (&json);
  error = json_object_get_object_member (object, "error");
  g_assert_cmpstr (json_object_get_string_member (error, "code"), ==, code);
  message = ctl_escape (json_object_get_string_member (error, "message"));
  if (!strstr (message, "\357\277\275")) /* what is no UTF-8 can't be said in JSON */
    g_assert_nonnull (strstr (plain.err, message));
}

#define WORDS(...) ((const char *const[]){ __VA_ARGS__, NULL })

/* ---- the command line ---- */

static void
refuses_wrong_commands (void) {
  g_autoptr (Scene) scene = scene_new ();

  must_refuse (scene, ARGS ("stauts"), 2, "usage", WORDS ("'stauts'", "did you mean 'status'"));
  must_refuse (scene, ARGS ("grwo"), 2, "usage", WORDS ("did you mean 'grow'"));
  must_refuse (scene, ARGS ("lis"), 2, "usage", WORDS ("did you mean 'list'"));
  must_refuse (scene, ARGS ("xyzzy"), 2, "usage", WORDS ("'xyzzy'", "domybsctl help"));
  must_refuse (scene, ARGS (""), 2, "usage", WORDS ("unknown command"));
  must_refuse (scene, ARGS ("a\033[2Jb\nc"), 2, "usage", WORDS ("a\\x1b[2Jb\\nc"));
  must_refuse (scene, ARGS ("--frob", "list"), 2, "usage", WORDS ("--frob"));
  must_refuse (scene, ARGS ("help", "frob"), 2, "usage", WORDS ("'frob'"));
  must_refuse (scene, ARGS ("-c"), 2, "usage", WORDS ("-c"));
}

static void
refuses_no_command (void) {
  g_autoptr (Scene) scene = scene_new ();
  g_auto (Run) run = { 0 };

  scene_run (scene, &run, ARGS (NULL));
  run_must_fail (&run, 2, WORDS ("a command is missing"));
}

static void
refuses_wrong_options (void) {
  static const char *const commands[] = { "list", "status", "top", "grow", "shrink", "target", "blocks" };
  g_autoptr (Scene) scene = scene_new ();

  for (size_t i = 0; i < G_N_ELEMENTS (commands); i++)
    must_refuse (scene, ARGS (commands[i], "--frob"), 2, "usage", WORDS (commands[i], "--frob", "domybsctl help"));
  must_refuse (scene, ARGS ("top", "--interval", "0"), 2, "usage", WORDS ("--interval"));
  must_refuse (scene, ARGS ("top", "--interval=nan"), 2, "usage", WORDS ("--interval"));
  must_refuse (scene, ARGS ("top", "--count=-1"), 2, "usage", WORDS ("--count"));
  must_refuse (scene, ARGS ("top", "--sort=size"), 2, "usage", WORDS ("--sort", "size"));
  must_refuse (scene, ARGS ("grow", "a", "1G", "--timeout=0"), 2, "usage", WORDS ("--timeout"));
  must_refuse (scene, ARGS ("grow", "a", "1G", "--timeout=-5"), 2, "usage", WORDS ("--timeout"));
  must_refuse (scene, ARGS ("grow", "a", "1G", "--timeout", "-5"), 2, "usage", WORDS ("--timeout: -5"));
  must_refuse (scene, ARGS ("grow", "a", "1G", "--timeout=99999999999"), 2, "usage", WORDS ("--timeout"));
}

static void
refuses_missing_arguments (void) {
  g_autoptr (Scene) scene = scene_new ();

  must_refuse (scene, ARGS ("grow"), 2, "usage", WORDS ("DOMAIN is missing", "domybsctl grow DOMAIN SIZE"));
  must_refuse (scene, ARGS ("grow", "a"), 2, "usage", WORDS ("SIZE is missing"));
  must_refuse (scene, ARGS ("shrink", "a"), 2, "usage", WORDS ("SIZE is missing"));
  must_refuse (scene, ARGS ("target"), 2, "usage", WORDS ("DOMAIN is missing"));
  must_refuse (scene, ARGS ("blocks"), 2, "usage", WORDS ("DOMAIN is missing"));
  must_refuse (scene, ARGS ("list", "a"), 2, "usage", WORDS ("'a'", "too many"));
  must_refuse (scene, ARGS ("grow", "a", "1G", "2G"), 2, "usage", WORDS ("'2G'", "too many"));
  must_refuse (scene, ARGS ("shrink", "a", "-1G", "-2G"), 2, "usage", WORDS ("'-2G'", "too many"));
}

static void
refuses_wrong_sizes (void) {
  static const char *const bad[]
      = { "x", "", "1Q", "3M", "2097153", "1G1", "+-1G", "--1G", "1e9", " 1G", "0x10", "99999999999999999999G", "16777215T" };
  g_autoptr (Scene) scene = scene_new ();

  for (size_t i = 0; i < G_N_ELEMENTS (bad); i++) {
    if (g_str_has_prefix (bad[i], "--"))
      continue;
    must_refuse (scene, ARGS ("grow", "a", bad[i]), 2, "usage", WORDS ("SIZE"));
    must_refuse (scene, ARGS ("target", "a", bad[i]), 2, "usage", WORDS ("SIZE"));
  }
  must_refuse (scene, ARGS ("grow", "a", "-1G"), 2, "usage", WORDS ("domybsctl shrink"));
  must_refuse (scene, ARGS ("shrink", "a", "+1G"), 2, "usage", WORDS ("domybsctl grow"));
  must_refuse (scene, ARGS ("shrink", "--", "a", "--1G"), 2, "usage", WORDS ("SIZE"));
}

/* ---- domains ---- */

static void
refuses_unknown_domains (void) {
  g_autoptr (Scene) scene = scene_new ();

  scene_add (scene, "there", TRUE, SCENE_MEMORY (SCENE_GIB));
  must_refuse (scene, ARGS ("status", "nope"), 3, "not-found", WORDS ("domain 'nope'", "domybsctl list --all"));
  must_refuse (scene, ARGS ("grow", "nope", "1G"), 3, "not-found", WORDS ("domain 'nope'"));
  must_refuse (scene, ARGS ("shrink", "nope", "-1G"), 3, "not-found", WORDS ("domain 'nope'"));
  must_refuse (scene, ARGS ("target", "nope"), 3, "not-found", WORDS ("domain 'nope'"));
  must_refuse (scene, ARGS ("blocks", "nope"), 3, "not-found", WORDS ("domain 'nope'"));
  must_refuse (scene, ARGS ("status", "99"), 3, "not-found", WORDS ("domain '99'"));
  must_refuse (scene, ARGS ("status", "99999999999999999999"), 3, "not-found", WORDS ("domain '999"));
  must_refuse (scene, ARGS ("status", "00000000-1111-2222-3333-444444444444"), 3, "not-found", WORDS ("domain '00000000-1111"));
  must_refuse (scene, ARGS ("status", ""), 3, "not-found", WORDS ("domain ''"));
  must_refuse (scene, ARGS ("status", "\377\033]0;x\a"), 3, "not-found", WORDS ("\\xff\\x1b]0;x\\x07"));
}

static void
refuses_what_is_not_attached (void) {
  static const char *const none = "domybsctl attach plain";
  g_autoptr (Scene) scene = scene_new ();

  scene_add (scene, "plain", TRUE, NULL);
  must_refuse (scene, ARGS ("grow", "plain", "1G"), 3, "not-found", WORDS ("domain 'plain'", none));
  must_refuse (scene, ARGS ("shrink", "plain", "0"), 3, "not-found", WORDS (none));
  must_refuse (scene, ARGS ("target", "plain", "auto"), 3, "not-found", WORDS (none));
  must_refuse (scene, ARGS ("blocks", "plain"), 3, "not-found", WORDS (none));
}

static void
refuses_what_is_not_running (void) {
  g_autoptr (Scene) scene = scene_new ();

  scene_add (scene, "off", FALSE, SCENE_MEMORY (SCENE_GIB));
  must_refuse (scene, ARGS ("grow", "off", "1G"), 4, "refused", WORDS ("domain 'off'", "virsh start off"));
  must_refuse (scene, ARGS ("blocks", "off"), 4, "refused", WORDS ("domain 'off'"));
}

static void
refuses_what_is_unplugged (void) {
  static const char metadata[] = "<domybs:domybs xmlns:domybs='urn:domybs:libvirt:1'><domybs:memory window='4294967296' "
                                 "local-max='1073741824' grant='reserve' present='no'/></domybs:domybs>";
  g_autoptr (Scene) scene = scene_new ();

  scene_add (scene, "my vm", TRUE, metadata);
  must_refuse (scene, ARGS ("grow", "my vm", "1G"), 4, "refused", WORDS ("domain 'my vm'", "domybsctl attach 'my vm' --live"));
}

static void
refuses_broken_metadata (void) {
  static const char *const bad[] = {
    "<domybs:domybs xmlns:domybs='urn:domybs:libvirt:1'/>",
    "<domybs:domybs xmlns:domybs='urn:domybs:libvirt:1'><domybs:memory/></domybs:domybs>",
    "<domybs:domybs xmlns:domybs='urn:domybs:libvirt:1'><domybs:memory window='-1' local-max='2' grant='reserve' "
    "present='yes'/>"
    "</domybs:domybs>",
    "<domybs:domybs xmlns:domybs='urn:domybs:libvirt:1'><domybs:memory window='4294967296' local-max='8589934592' "
    "grant='reserve' "
    "present='yes'/></domybs:domybs>",
    "<domybs:domybs xmlns:domybs='urn:domybs:libvirt:1'><domybs:memory window='4294967296' local-max='1073741824' grant='gift' "
    "present='yes'/></domybs:domybs>",
  };

  for (size_t i = 0; i < G_N_ELEMENTS (bad); i++) {
    g_autoptr (Scene) scene = scene_new ();

    scene_add (scene, "broken", TRUE, bad[i]);
    must_refuse (scene, ARGS ("grow", "broken", "1G"), 4, "refused", WORDS ("domain 'broken'", "metadata"));
  }
}

/* The one broken domain has its place in the list; the others' are as they should be. */
static void
lists_broken_metadata (void) {
  g_autoptr (Scene) scene = scene_new ();
  g_auto (Run) run = { 0 };

  scene_add (scene, "broken", TRUE, "<domybs:domybs xmlns:domybs='urn:domybs:libvirt:1'/>");
  scene_add (scene, "fine", FALSE, SCENE_MEMORY (SCENE_GIB));
  scene_run (scene, &run, ARGS ("list"));
  g_assert_cmpint (run.status, ==, 0);
  g_assert_nonnull (strstr (run.out, "broken"));
  g_assert_nonnull (strstr (run.out, "fine    shut off"));
  g_assert_nonnull (strstr (run.err, "domybsctl: warning: domain 'broken': "));
}

/* ---- libvirt ---- */

static void
refuses_unreachable_libvirts (void) {
  g_autoptr (Scene) scene = scene_new ();

  must_refuse (scene, ARGS ("-c", "qemu+unix:///system?socket=/nonexistent/libvirt-sock", "list"), 5, "access",
               WORDS ("libvirt at 'qemu+unix", "can't connect", "libvirtd"));
  must_refuse (scene, ARGS ("list", "-c", "nonsense"), 5, "access", WORDS ("libvirt at 'nonsense'"));
  must_refuse (scene, ARGS ("list", "-c", ""), 5, "access", WORDS ("libvirt at ''"));
  must_refuse (scene, ARGS ("list", "-c", "test:///nonexistent.xml"), 5, "access", WORDS ("/nonexistent.xml"));
  must_refuse (scene, ARGS ("list", "-c", "qemu+ssh://root@elsewhere.example/system"), 4, "refused",
               WORDS ("another host", "ssh elsewhere.example domybsctl"));
}

static void
refuses_broken_xml (void) {
  g_autoptr (Scene) scene = scene_new ();

  scene_use_xml (scene, "<node><domain type='test'><name>half");
  must_refuse (scene, ARGS ("list"), 5, "access", WORDS ("libvirt.xml"));
}

static void
takes_the_address_from_the_environment (void) {
  g_autoptr (Scene) scene = scene_new ();
  g_autofree char *command = NULL, *out = NULL;
  int status;

  scene_add (scene, "from-env", TRUE, NULL);
  command = g_strdup_printf ("env LIBVIRT_DEFAULT_URI=test:///nonexistent VIRSH_DEFAULT_CONNECT_URI=%s %s list --all",
                             scene_uri (scene), g_getenv ("DOMYBSCTL"));
  g_assert_true (g_spawn_command_line_sync (command, &out, NULL, &status, NULL));
  g_assert_cmpint (status, ==, 0);
  g_assert_nonnull (strstr (out, "from-env"));
}

/* ---- back-ends ---- */

static void
refuses_without_a_back_end (void) {
  g_autoptr (Scene) scene = scene_new ();
  const char *uuid = scene_add (scene, "vm1", TRUE, SCENE_MEMORY (SCENE_GIB));
  g_autofree char *path = NULL;
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  int fd;

  must_refuse (
      scene, ARGS ("grow", "vm1", "1G"), 5, "access",
      WORDS ("domain 'vm1'", "its back-end is gone and QEMU runs on", "detach vm1 --live", "attach vm1 --live", "log/vm1.log"));
  must_refuse (scene, ARGS ("blocks", "vm1"), 5, "access", WORDS ("domain 'vm1'", "its back-end is gone"));
  must_refuse (scene, ARGS ("target", "vm1"), 5, "access", WORDS ("domain 'vm1'", "its back-end is gone"));
  /* a socket that nobody listens at any more */
  path = scene_control_path (scene, uuid);
  strcpy (address.sun_path, path);
  fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  g_assert_cmpint (bind (fd, (const struct sockaddr *)&address, sizeof address), ==, 0);
  must_refuse (scene, ARGS ("grow", "vm1", "1G"), 5, "access", WORDS ("domain 'vm1'", "its back-end is gone"));
  close (fd);
  /* no socket at all */
  g_unlink (path);
  g_assert_true (g_file_set_contents (path, "", 0, NULL));
  must_refuse (scene, ARGS ("grow", "vm1", "1G"), 5, "access", WORDS ("domain 'vm1'"));
}

/* As somebody who may not. */
static void
refuses_without_permission (void) {
  g_autoptr (Scene) scene = scene_new ();
  const char *uuid = scene_add (scene, "vm1", TRUE, SCENE_MEMORY (SCENE_GIB));
  struct backend *backend = scene_backend (scene, uuid, NULL);
  g_autofree char *command = NULL, *err = NULL, *out = NULL, *path = scene_control_path (scene, uuid);
  int status;

  if (geteuid () != 0) {
    g_test_skip ("needs root, to be somebody else");
    return;
  }
  command = g_strdup_printf ("chmod -R a+rX %s", g_getenv ("DOMYBS_TEST_RUNDIR"));
  g_assert_true (g_spawn_command_line_sync (command, NULL, NULL, NULL, NULL));
  g_free (command);
  command = g_strdup_printf ("setpriv --reuid=65534 --regid=65534 --clear-groups %s -c %s grow vm1 1G", g_getenv ("DOMYBSCTL"),
                             scene_uri (scene));
  g_assert_true (g_spawn_command_line_sync (command, &out, &err, &status, NULL));
  if (strstr (err, "failed to execute")) {
    g_test_skip ("the build folder is not open to other users");
    return;
  }
  const Run run = { g_spawn_check_wait_status (status, NULL) ? 0 : WEXITSTATUS (status), out, err };
  run_must_fail (&run, 5, WORDS ("domain 'vm1'", "no permission", "run it as root"));
  g_assert_cmpint (backend_status (backend, "target-blocks"), ==, INT64_MIN);
}

/* The signs of messages, where the terminal's character set lacks them. */
static void
writes_plainly (void) {
  g_autoptr (Scene) scene = scene_new ();
  g_auto (Run) run = { 0 };

  setenv ("LC_ALL", "C", 1);
  scene_run (scene, &run, ARGS ("list", "-c", "qemu+ssh://elsewhere.example/system"));
  run_must_fail (&run, 4, WORDS ("domybsctl ...')"));
  scene_run (scene, &run, ARGS ("help"));
  run_must_succeed (&run);
  g_assert_true (g_str_is_ascii (run.out));
  g_assert_null (strchr (run.out, '?'));
  g_unsetenv ("LC_ALL");
}

/* ---- what is no error ---- */

static void
helps (void) {
  static const char *const commands[] = { "list", "status", "top", "grow", "shrink", "target", "blocks" };
  g_autoptr (Scene) scene = scene_new ();
  g_auto (Run) run = { 0 };

  scene_run (scene, &run, ARGS ("--help"));
  run_must_succeed (&run);
  for (size_t i = 0; i < G_N_ELEMENTS (commands); i++) {
    g_auto (Run) by_help = { 0 }, by_option = { 0 }, before = { 0 };

    g_assert_nonnull (strstr (run.out, commands[i]));
    scene_run (scene, &by_help, ARGS ("help", commands[i]));
    scene_run (scene, &by_option, ARGS (commands[i], "--help"));
    scene_run (scene, &before, ARGS ("-h", commands[i]));
    run_must_succeed (&by_help);
    run_must_succeed (&before);
    g_assert_cmpstr (by_help.out, ==, by_option.out);
    g_assert_cmpstr (by_help.out, ==, before.out);
    g_assert_nonnull (strstr (by_help.out, "--json"));
    g_assert_nonnull (strstr (by_help.out, commands[i]));
  }
  scene_run (scene, &run, ARGS ("help"));
  run_must_succeed (&run);
  scene_run (scene, &run, ARGS ("help", "help"));
  run_must_succeed (&run);
  scene_run (scene, &run, ARGS ("help", "--help"));
  run_must_succeed (&run);
  scene_run (scene, &run, ARGS ("--version"));
  run_must_succeed (&run);
  g_assert_true (g_str_has_prefix (run.out, "domybsctl "));
}

static void
tells_when_it_cant_write (void) {
  g_autoptr (Scene) scene = scene_new ();
  g_autofree char *err = NULL, *inner = NULL, *command = NULL;
  int status;

  scene_add (scene, "vm1", TRUE, NULL);
  inner = g_strdup_printf ("%s -c %s list --all >/dev/full", g_getenv ("DOMYBSCTL"), scene_uri (scene));
  command = g_strdup_printf ("sh -c '%s'", inner);
  g_assert_true (g_spawn_command_line_sync (command, NULL, &err, &status, NULL));
  g_assert_cmpint (WEXITSTATUS (status), ==, 1);
  g_assert_nonnull (strstr (err, "No space left on device"));
}

int
main (int argc, char **argv) {
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/wrong-input/commands", refuses_wrong_commands);
  g_test_add_func ("/wrong-input/no-command", refuses_no_command);
  g_test_add_func ("/wrong-input/options", refuses_wrong_options);
  g_test_add_func ("/wrong-input/missing-arguments", refuses_missing_arguments);
  g_test_add_func ("/wrong-input/sizes", refuses_wrong_sizes);
  g_test_add_func ("/wrong-input/unknown-domains", refuses_unknown_domains);
  g_test_add_func ("/wrong-input/not-attached", refuses_what_is_not_attached);
  g_test_add_func ("/wrong-input/not-running", refuses_what_is_not_running);
  g_test_add_func ("/wrong-input/unplugged", refuses_what_is_unplugged);
  g_test_add_func ("/wrong-input/broken-metadata", refuses_broken_metadata);
  g_test_add_func ("/wrong-input/broken-metadata-in-a-list", lists_broken_metadata);
  g_test_add_func ("/wrong-input/unreachable-libvirts", refuses_unreachable_libvirts);
  g_test_add_func ("/wrong-input/broken-xml", refuses_broken_xml);
  g_test_add_func ("/wrong-input/address-from-the-environment", takes_the_address_from_the_environment);
  g_test_add_func ("/wrong-input/no-back-end", refuses_without_a_back_end);
  g_test_add_func ("/wrong-input/no-permission", refuses_without_permission);
  g_test_add_func ("/wrong-input/character-set", writes_plainly);
  g_test_add_func ("/wrong-input/help", helps);
  g_test_add_func ("/wrong-input/no-room-for-output", tells_when_it_cant_write);
  return g_test_run ();
}
