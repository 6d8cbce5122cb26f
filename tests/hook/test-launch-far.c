/* SPDX-License-Identifier: GPL-2.0-or-later */
/* domybs-far beside the back-end: started and ended by the hook, with nothing left of it. */
#include "error.h"
#include "host/donors.h"
#include "host/launch.h"
#include "place.h"

#include <gio/gio.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MIB ((guint64)1 << 20)

static DomainIdentity identity = { (char *)"vm 1/a", NULL, -1 }; /* with PLACE_UUID, from main on */
static const unsigned both[DOMAIN_FAR_TIERS] = { 2, 1 }, one[DOMAIN_FAR_TIERS] = { 1, 0 }, none[DOMAIN_FAR_TIERS] = { 0, 0 };

static DomainFar
far_in (const char *storage) {
  return (DomainFar){ { 128 * MIB, 64 * MIB }, (char *)storage, FALSE };
}

static const char *
label (void) {
  static char text[32];

  g_snprintf (text, sizeof text, "+0:+%u", (unsigned)getegid ());
  return text;
}

static gboolean
exists (const char *name) {
  g_autofree char *folder = launch_folder (PLACE_UUID), *path = g_build_filename (folder, name, NULL);

  return g_file_test (path, G_FILE_TEST_EXISTS);
}

static pid_t
far_pid (void) {
  return launch_far_pid (PLACE_UUID);
}

static void
start (const DomainFar *far, const unsigned *queues) {
  g_autoptr (GError) error = NULL;

  launch_far_start (&identity, far, queues, FALSE, label (), &error);
  g_assert_no_error (error);
}

static void
stop (void) {
  g_autoptr (GError) error = NULL;

  launch_far_stop (PLACE_UUID, &error);
  g_assert_no_error (error);
}

/* The worker of a domybs-far that has gone is gone a moment later. */
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

static unsigned
count_files (const char *folder) {
  g_autoptr (GDir) files = g_dir_open (folder, 0, NULL);
  unsigned n = 0;

  while (files && g_dir_read_name (files))
    n++;
  return n;
}

static void
starts_and_stops (void) {
  DomainFar far;
  g_autofree char *log = NULL;
  pid_t pid;

  place_set_up ();
  far = far_in (launch_far_folder ());
  for (int i = 0; i < 2; i++) {
    start (&far, both);
    pid = far_pid ();
    g_assert_cmpint (pid, >, 0);
    g_assert_true (exists ("far-shared.sock") && exists ("far-remote.sock") && exists ("far-control.sock"));
    g_assert_cmpuint (count_files (launch_far_folder ()), ==, 0); /* they have no names any more */
    start (&far, both);                                           /* is there already */
    g_assert_cmpint (far_pid (), ==, pid);
    far.compress = TRUE; /* others */
    start (&far, both);
    g_assert_cmpint (far_pid (), !=, pid);
    far.compress = FALSE;
    stop ();
    expect_nothing ();
  }
  log = launch_far_log_path (&identity);
  g_assert_true (g_file_test (log, G_FILE_TEST_EXISTS));
  stop ();
  place_tear_down ();
}

static void
starts_what_there_is (void) {
  DomainFar far;

  place_set_up ();
  far = far_in (launch_far_folder ());
  start (&far, one);
  g_assert_true (exists ("far-shared.sock"));
  g_assert_false (exists ("far-remote.sock"));
  stop ();
  start (&far, none);
  expect_nothing ();
  place_tear_down ();
}

/* It is told of the neighbours that are known, but for those that it would not start with. */
static void
knows_donors (void) {
  static const char *const files[] = { "n1.conf", "[donor]\naddress=127.0.0.1:9\npsk=%s\ndomain=a,b\n",
                                       "n2.conf", "[donor]\naddress=127.0.0.1:9\npsk=%s\n", /* n1's address */
                                       "n3.conf", "[donor]\naddress=127.0.0.1:10\npsk=%s.not\n", "n4.conf", "nonsense %s" };
  g_autofree char *key = NULL, *wanted = NULL, *command = NULL, *proc = NULL;
  DomainFar far;
  gsize n;

  place_set_up ();
  far = far_in (launch_far_folder ());
  key = place_file ("key");
  g_assert_true (
      g_file_set_contents_full (key, "a:00112233445566778899aabbccddeeff\n", -1, G_FILE_SET_CONTENTS_NONE, 0600, NULL));
  g_assert_cmpint (g_mkdir_with_parents (launch_donors_folder (), 0700), ==, 0);
  for (unsigned i = 0; i < G_N_ELEMENTS (files); i += 2) {
    g_autofree char *path = g_build_filename (launch_donors_folder (), files[i], NULL);
    g_auto (GStrv) parts = g_strsplit (files[i + 1], "%s", 2);
    g_autofree char *text = g_strjoinv (key, parts);

    g_assert_true (g_file_set_contents (path, text, -1, NULL));
  }
  start (&far, one);
  proc = g_strdup_printf ("/proc/%d/cmdline", (int)far_pid ());
  g_assert_true (g_file_get_contents (proc, &command, &n, NULL));
  for (gsize i = 0; i + 1 < n; i++)
    command[i] = command[i] ? command[i] : ' ';
  wanted = g_strdup_printf (" --donor=n1,address=127.0.0.1:9,psk=%s,domain=a,,b ", key);
  g_assert_nonnull (strstr (command, wanted));
  g_assert_null (strstr (strstr (command, wanted) + 4, "--donor="));
  g_assert_null (strstr (command, "protection="));
  stop ();
  expect_nothing ();
  for (unsigned i = 0; i < G_N_ELEMENTS (files); i += 2) {
    g_autofree char *path = g_build_filename (launch_donors_folder (), files[i], NULL);

    g_assert_cmpint (g_unlink (path), ==, 0);
  }
  g_assert_cmpint (g_rmdir (launch_donors_folder ()), ==, 0);
  g_assert_cmpint (g_unlink (key), ==, 0);
  place_tear_down ();
}

/* What was said of protection; with what needs donors it starts without any, too. */
static void
passes_protection (void) {
  static const struct {
    DomainFarProtection protection;
    const char *word;
    gboolean later;
  } cases[] = {
    { DOMAIN_FAR_PROTECTION_MIRROR, ",protection=mirror ", TRUE },
    { DOMAIN_FAR_PROTECTION_STORAGE, ",protection=storage ", FALSE },
  };

  for (gsize i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autofree char *command = NULL, *proc = NULL;
    DomainFar far;
    gsize n;

    place_set_up ();
    far = far_in (launch_far_folder ());
    far.protection = cases[i].protection;
    start (&far, one);
    proc = g_strdup_printf ("/proc/%d/cmdline", (int)far_pid ());
    g_assert_true (g_file_get_contents (proc, &command, &n, NULL));
    for (gsize k = 0; k + 1 < n; k++)
      command[k] = command[k] ? command[k] : ' ';
    g_assert_nonnull (strstr (command, cases[i].word));
    g_assert_cmpint (strstr (command, " --donors-later ") != NULL, ==, cases[i].later);
    stop ();
    expect_nothing ();
    place_tear_down ();
  }
}

/* Four disks at once, and nothing left of them. */
static void
starts_all_kinds (void) {
  static const unsigned all[DOMAIN_FAR_TIERS] = { 1, 1, 2, 1 };
  DomainFar far = { { 128 * MIB, 64 * MIB, 64 * MIB, 64 * MIB }, NULL, TRUE, 512 * MIB };
  g_autofree char *log = NULL, *text = NULL;

  place_set_up ();
  log = launch_far_log_path (&identity);
  far.storage = (char *)launch_far_folder ();
  start (&far, all);
  for (DomainFarTier tier = 0; tier < DOMAIN_FAR_TIERS; tier++) {
    g_autofree char *name = domain_far_socket_name (tier);

    g_assert_true (exists (name));
  }
  g_assert_cmpuint (count_files (launch_far_folder ()), ==, 0);
  start (&far, all); /* is there already */
  g_assert_true (g_file_get_contents (log, &text, NULL, NULL));
  g_assert_nonnull (strstr (text, "--disk=mem-shared,size=67108864,queues=2,"));
  g_assert_nonnull (strstr (text, ",wear=536870912 "));
  stop ();
  expect_nothing ();
  place_tear_down ();
}

/* Either ends without the other. */
static void
lives_beside_the_backend (void) {
  static const DomainMemory memory = { 2ull << 30, 1ull << 30, FALSE, -1, TRUE };
  g_autoptr (GError) error = NULL;
  DomainFar far;

  place_set_up ();
  far = far_in (launch_far_folder ());
  g_assert_true (launch_start (&identity, &memory, label (), &error));
  start (&far, both);
  expect_processes (2);
  stop ();
  expect_processes (1);
  g_assert_cmpint (launch_pid (PLACE_UUID), >, 0);
  g_assert_true (exists ("backend.sock"));
  g_assert_false (exists ("far-shared.sock"));
  start (&far, both);
  g_assert_true (launch_stop (PLACE_UUID, &error));
  expect_processes (1);
  g_assert_true (exists ("far-shared.sock"));
  stop ();
  expect_nothing ();
  place_tear_down ();
}

static void
takes_over_from_the_dead (void) {
  DomainFar far;
  pid_t pid;

  place_set_up ();
  far = far_in (launch_far_folder ());
  start (&far, both);
  pid = far_pid ();
  kill (pid, SIGKILL);
  start (&far, both);
  g_assert_cmpint (far_pid (), !=, pid);
  kill (far_pid (), SIGKILL);
  stop ();
  expect_nothing ();
  place_tear_down ();
}

/* A file of one's own stays; one that is not ours is not written to. */
static void
uses_a_file (void) {
  g_autofree char *mine = NULL, *foreign = NULL, *text = NULL;
  g_autoptr (GError) error = NULL;
  DomainFar far;

  place_set_up ();
  mine = place_file ("mine");
  foreign = place_file ("foreign");
  far = far_in (mine);
  far.bytes[DOMAIN_FAR_REMOTE] = 0;
  g_assert_true (g_file_set_contents (mine, "", 0, NULL));
  start (&far, one);
  stop ();
  g_assert_true (g_file_test (mine, G_FILE_TEST_EXISTS));
  g_assert_true (g_file_set_contents (foreign, "precious", -1, NULL));
  far.storage = foreign;
  g_assert_false (launch_far_start (&identity, &far, one, FALSE, label (), &error));
  g_assert_error (error, CTL_ERROR, CTL_ERROR_FAILED);
  g_assert_nonnull (strstr (error->message, "its domybs-far ended at once"));
  g_assert_nonnull (strstr (error->message, foreign));
  g_assert_true (g_file_get_contents (foreign, &text, NULL, NULL));
  g_assert_cmpstr (text, ==, "precious");
  expect_nothing ();
  place_tear_down ();
}

/* ---- the hook ---- */

static char *
domain_xml (const char *folder, gboolean memory) {
  return g_strdup_printf (
      "<domain type='kvm' id='7'><name>vm1</name><uuid>%s</uuid><metadata><domybs:domybs xmlns:domybs='urn:domybs:libvirt:1'>%s"
      "<domybs:far shared='134217728' remote='67108864' storage='%s' compress='no' last-bus='3'/></domybs:domybs></metadata>"
      "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking><devices>"
      "<disk type='vhostuser'><driver queues='2'/><alias name='ua-domybs-shared'/></disk>"
      "<disk type='vhostuser'><driver queues='2'/><alias name='ua-domybs-remote'/></disk></devices>"
      "<seclabel type='dynamic' model='dac' relabel='yes'><label>+0:+%u</label></seclabel></domain>",
      PLACE_UUID, memory ? "<domybs:memory window='4294967296' local-max='1073741824' grant='reserve' present='yes'/>" : "",
      folder, (unsigned)getegid ());
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
hook_does_both (void) {
  for (int memory = 0; memory < 2; memory++) {
    g_autofree char *xml = NULL, *said = NULL, *said_at_end = NULL, *log = NULL, *text = NULL;

    place_set_up ();
    log = g_build_filename (launch_logdir (), "vm1.far.log", NULL);
    xml = domain_xml (launch_far_folder (), memory);
    g_assert_cmpint (hook ("start", "begin", xml, &said), ==, 0);
    g_assert_true (g_file_get_contents (log, &text, NULL, NULL));
    g_assert_cmpint (strstr (text, "/control.sock --socket-group=") != NULL, ==, memory); /* they know each other */
    expect_processes (memory ? 2u : 1u);
    g_assert_true (exists ("far-shared.sock") && exists ("far-remote.sock"));
    g_assert_cmpint (hook ("release", "end", xml, &said_at_end), ==, 0);
    expect_nothing ();
    place_tear_down ();
  }
}

/* One that can't start takes the other with it, and the VM does not start. */
static void
hook_leaves_nothing (void) {
  g_autofree char *xml = NULL, *said = NULL;

  place_set_up ();
  xml = domain_xml ("/nowhere/at/all", TRUE);
  g_assert_cmpint (hook ("start", "begin", xml, &said), ==, 1);
  g_assert_nonnull (strstr (said, "domybs: domain 'vm1': its domybs-far"));
  expect_nothing ();
  place_tear_down ();
}

int
main (int argc, char **argv) {
  g_test_init (&argc, &argv, NULL);
  identity.uuid = (char *)PLACE_UUID;
  g_test_add_func ("/launch-far/starts and stops", starts_and_stops);
  g_test_add_func ("/launch-far/starts what there is", starts_what_there_is);
  g_test_add_func ("/launch-far/knows donors", knows_donors);
  g_test_add_func ("/launch-far/passes protection", passes_protection);
  g_test_add_func ("/launch-far/starts all kinds of disks", starts_all_kinds);
  g_test_add_func ("/launch-far/lives beside the back-end", lives_beside_the_backend);
  g_test_add_func ("/launch-far/takes over from the dead", takes_over_from_the_dead);
  g_test_add_func ("/launch-far/uses a file", uses_a_file);
  g_test_add_func ("/launch-far/the hook does both", hook_does_both);
  g_test_add_func ("/launch-far/the hook leaves nothing", hook_leaves_nothing);
  return g_test_run ();
}
