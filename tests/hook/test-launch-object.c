/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A domybs-far for each object of a VM: started and ended one by one and by the hook, with nothing left of them. */
#include "error.h"
#include "host/launch.h"
#include "io/object-file.h"
#include "place.h"

#include <gio/gio.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CONTENT_BYTES 100000

static DomainIdentity identity = { (char *)"vm 1/a", NULL, -1 }; /* with PLACE_UUID, from main on */

static const char *
label (void) {
  static char text[32];

  g_snprintf (text, sizeof text, "+0:+%u", (unsigned)getegid ());
  return text;
}

/* Makes an object of that name. */
static void
import (const char *name) {
  g_autofree char *source = place_file ("source"), *content = g_malloc (CONTENT_BYTES), *path = launch_object_path (name);
  struct object_header header;
  g_autoptr (GError) error = NULL;

  memset (content, name[0], CONTENT_BYTES);
  g_assert_cmpint (g_mkdir_with_parents (launch_object_folder (), 0700), ==, 0);
  g_assert_true (g_file_set_contents (source, content, CONTENT_BYTES, NULL));
  g_assert_true (object_file_import (source, path, NULL, NULL, &header, &error));
  g_assert_no_error (error);
}

static DomainObject
object (const char *name) {
  DomainObject object = { .queues = 2 };

  g_strlcpy (object.name, name, sizeof object.name);
  return object;
}

static gboolean
exists (const char *name) {
  g_autofree char *folder = launch_folder (PLACE_UUID), *path = g_build_filename (folder, name, NULL);

  return g_file_test (path, G_FILE_TEST_EXISTS);
}

static pid_t
pid_of (const char *name) {
  return launch_object_pid (PLACE_UUID, name);
}

static void
start (const char *name) {
  const DomainObject one = object (name);
  g_autoptr (GError) error = NULL;

  launch_object_start (&identity, &one, label (), &error);
  g_assert_no_error (error);
}

static void
stop (const char *name) {
  g_autoptr (GError) error = NULL;

  launch_object_stop (PLACE_UUID, name, &error);
  g_assert_no_error (error);
}

static void
stop_all (void) {
  g_autoptr (GError) error = NULL;

  launch_objects_stop (PLACE_UUID, &error);
  g_assert_no_error (error);
}

static void
expect_processes (unsigned n) {
  for (int tries = 500; place_process_count () != n && tries > 0; tries--)
    g_usleep (10 * 1000);
  g_assert_cmpuint (place_process_count (), ==, n);
}

static void
expect_nothing (void) {
  expect_processes (0);
  g_assert_cmpuint (place_folders (), ==, 0);
}

/* ---- one by one ---- */

static void
starts_and_stops (void) {
  g_autofree char *log = NULL, *text = NULL, *control = NULL;
  DomainObjects there;
  pid_t model, data;

  place_set_up ();
  import ("model");
  import ("data");
  log = launch_object_log_path (&identity, "model");
  start ("model");
  model = pid_of ("model");
  g_assert_cmpint (model, >, 0);
  g_assert_true (exists ("object-model.sock") && exists ("object-model.control.sock"));
  g_assert_false (exists ("object-data.sock"));
  start ("model"); /* is there already */
  g_assert_cmpint (pid_of ("model"), ==, model);
  start ("data");
  data = pid_of ("data");
  g_assert_cmpint (data, !=, model);
  launch_object_list (PLACE_UUID, &there);
  g_assert_cmpuint (there.n, ==, 2);
  stop ("model"); /* the other one goes on */
  g_assert_cmpint (pid_of ("data"), ==, data);
  g_assert_true (exists ("object-data.sock"));
  g_assert_false (exists ("object-model.sock") || exists ("object-model.pid") || exists ("object-model.control.sock"));
  expect_processes (1);
  stop_all ();
  expect_nothing ();
  g_assert_true (g_file_get_contents (log, &text, NULL, NULL));
  control = g_strdup_printf ("/object-model.sock,queues=2 ");
  g_assert_nonnull (strstr (text, control));
  stop ("model");
  place_tear_down ();
}

static void
refuses_what_is_not_there (void) {
  const DomainObject missing = object ("missing"), broken = object ("broken");
  g_autoptr (GError) error = NULL, other = NULL;
  g_autofree char *path = NULL;

  place_set_up ();
  import ("model");
  path = launch_object_path ("broken");
  g_assert_true (g_file_set_contents (path, "no object at all", -1, NULL));
  start ("model");
  g_assert_false (launch_object_start (&identity, &missing, label (), &error));
  g_assert_error (error, CTL_ERROR, CTL_ERROR_NOT_FOUND);
  g_assert_nonnull (strstr (error->message, "domybsctl object import FILE --name missing"));
  g_assert_false (launch_object_start (&identity, &broken, label (), &other));
  g_assert_error (other, CTL_ERROR, CTL_ERROR_FAILED);
  g_assert_nonnull (strstr (other->message, "its domybs-far for object 'broken' ended at once"));
  expect_processes (1);
  stop_all ();
  expect_nothing ();
  place_tear_down ();
}

/* One that died is started again where it was. */
static void
takes_over_from_the_dead (void) {
  pid_t pid;

  place_set_up ();
  import ("model");
  start ("model");
  pid = pid_of ("model");
  kill (pid, SIGKILL);
  start ("model");
  g_assert_cmpint (pid_of ("model"), !=, pid);
  kill (pid_of ("model"), SIGKILL);
  stop_all ();
  expect_nothing ();
  place_tear_down ();
}

/* The back-end, far disks and objects end without each other. */
static void
lives_beside_the_others (void) {
  static const DomainMemory memory = { 2ull << 30, 1ull << 30, FALSE, -1, TRUE };
  static const unsigned queues[DOMAIN_FAR_TIERS] = { 1 };
  g_autoptr (GError) error = NULL;
  DomainFar far = { { 64 << 20 }, NULL, FALSE, 0 };
  pid_t pid;

  place_set_up ();
  import ("model");
  far.storage = (char *)launch_far_folder ();
  start ("model");
  pid = pid_of ("model");
  g_assert_true (launch_start (&identity, &memory, label (), &error));
  g_assert_true (launch_far_start (&identity, &far, queues, FALSE, label (), &error));
  expect_processes (3);
  g_assert_true (launch_far_stop (PLACE_UUID, &error));
  g_assert_true (launch_stop (PLACE_UUID, &error));
  g_assert_no_error (error);
  expect_processes (1);
  g_assert_cmpint (pid_of ("model"), ==, pid);
  g_assert_true (exists ("object-model.sock"));
  g_assert_true (launch_far_start (&identity, &far, queues, FALSE, label (), &error));
  stop ("model");
  expect_processes (1);
  g_assert_true (exists ("far-shared.sock"));
  g_assert_true (launch_far_stop (PLACE_UUID, &error));
  expect_nothing ();
  place_tear_down ();
}

/* ---- the hook ---- */

static char *
domain_xml (gboolean others, const char *second) {
  g_autofree char *far
      = g_strdup_printf ("<domybs:far shared='134217728' storage='%s' compress='no' last-bus='3'/>"
                         "<domybs:memory window='4294967296' local-max='1073741824' grant='reserve' present='yes'/>",
                         launch_far_folder ());

  return g_strdup_printf (
      "<domain type='kvm' id='7'><name>vm1</name><uuid>%s</uuid><metadata><domybs:domybs xmlns:domybs='urn:domybs:libvirt:1'>%s"
      "<domybs:objects names='model %s' last-bus='3'/></domybs:domybs></metadata>"
      "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking><devices>"
      "<disk type='vhostuser'><driver queues='2'/><alias name='ua-domybs-shared'/></disk>"
      "<disk type='vhostuser'><driver queues='2'/><alias name='ua-domybs-object-model'/></disk>"
      "<disk type='vhostuser'><alias name='ua-domybs-object-%s'/></disk></devices>"
      "<seclabel type='dynamic' model='dac' relabel='yes'><label>+0:+%u</label></seclabel></domain>",
      PLACE_UUID, others ? far : "", second, second, (unsigned)getegid ());
}

static int
hook (const char *operation, const char *suboperation, const char *xml, char **ret_said) {
  const char *const argv[] = { g_getenv ("DOMYBS_HOOK"), "vm1", operation, suboperation, "-", NULL };
  g_autoptr (GSubprocessLauncher) launcher = g_subprocess_launcher_new (G_SUBPROCESS_FLAGS_STDERR_PIPE);
  g_autofree char *path = place_file ("xml");
  g_autoptr (GSubprocess) process = NULL;
  g_autoptr (GError) error = NULL;

  g_assert_true (g_file_set_contents (path, xml, -1, NULL));
  g_subprocess_launcher_set_stdin_file_path (launcher, path);
  process = g_subprocess_launcher_spawnv (launcher, argv, &error);
  g_assert_no_error (error);
  g_assert_true (g_subprocess_communicate_utf8 (process, NULL, NULL, NULL, ret_said, NULL));
  return g_subprocess_get_exit_status (process);
}

static void
hook_starts_and_ends (void) {
  for (int others = 0; others < 2; others++) {
    g_autofree char *xml = NULL, *said = NULL, *said_at_end = NULL;

    place_set_up ();
    import ("model");
    import ("data");
    xml = domain_xml (others, "data");
    if (hook ("start", "begin", xml, &said) != 0)
      g_error ("%s", said);
    expect_processes (others ? 4u : 2u);
    g_assert_true (exists ("object-model.sock") && exists ("object-data.sock"));
    g_assert_cmpint (exists ("far-shared.sock"), ==, others);
    g_assert_cmpint (hook ("release", "end", xml, &said_at_end), ==, 0);
    expect_nothing ();
    place_tear_down ();
  }
}

/* An object that is not there keeps the VM from starting, and takes along what was started before it. */
static void
hook_leaves_nothing (void) {
  g_autofree char *xml = NULL, *said = NULL;

  place_set_up ();
  import ("model");
  xml = domain_xml (TRUE, "missing");
  g_assert_cmpint (hook ("start", "begin", xml, &said), ==, 1);
  g_assert_nonnull (strstr (said, "domybs: domain 'vm1': its object 'missing' is not on this host; "));
  expect_nothing ();
  place_tear_down ();
}

int
main (int argc, char **argv) {
  g_test_init (&argc, &argv, NULL);
  identity.uuid = (char *)PLACE_UUID;
  g_test_add_func ("/launch-object/starts and stops", starts_and_stops);
  g_test_add_func ("/launch-object/refuses what is not there", refuses_what_is_not_there);
  g_test_add_func ("/launch-object/takes over from the dead", takes_over_from_the_dead);
  g_test_add_func ("/launch-object/lives beside the others", lives_beside_the_others);
  g_test_add_func ("/launch-object/the hook starts and ends them", hook_starts_and_ends);
  g_test_add_func ("/launch-object/the hook leaves nothing", hook_leaves_nothing);
  return g_test_run ();
}
