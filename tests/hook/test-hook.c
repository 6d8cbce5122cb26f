/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The hook as libvirt calls it: what it does, what it keeps its hands off, and what it says. */
#include "place.h"
#include "host/launch.h"

#include <gio/gio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct {
  int status;
  char *out, *err;
} Result;

static void
result_clear (Result *result) {
  g_free (result->out);
  g_free (result->err);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (Result, result_clear)

static char *
text_of (GBytes *bytes) {
  return bytes && g_bytes_get_size (bytes) ? g_strndup (g_bytes_get_data (bytes, NULL), g_bytes_get_size (bytes))
                                           : g_strdup ("");
}

/* Runs it with these three arguments and "-", bytes on stdin (n −1: to their end), and in the C locale, as libvirt does. */
static Result
hook (const char *name, const char *operation, const char *suboperation, const char *xml, gssize n) {
  const char *const argv[] = { g_getenv ("DOMYBS_HOOK"), name, operation, suboperation, "-", NULL };
  g_autoptr (GSubprocessLauncher) launcher
      = g_subprocess_launcher_new (G_SUBPROCESS_FLAGS_STDOUT_PIPE | G_SUBPROCESS_FLAGS_STDERR_PIPE);
  g_autofree char *path = place_file ("xml");
  g_autoptr (GSubprocess) process = NULL;
  g_autoptr (GBytes) out = NULL, err = NULL;
  g_autoptr (GError) error = NULL;

  g_file_set_contents (path, xml, n, &error);
  g_assert_no_error (error);
  g_subprocess_launcher_set_stdin_file_path (launcher, path);
  g_subprocess_launcher_setenv (launcher, "LC_ALL", "C", TRUE);
  process = g_subprocess_launcher_spawnv (launcher, argv, &error);
  g_assert_no_error (error);
  g_subprocess_communicate (process, NULL, NULL, &out, &err, &error);
  g_assert_no_error (error);
  g_assert_true (g_subprocess_get_if_exited (process));
  return (Result){ g_subprocess_get_exit_status (process), text_of (out), text_of (err) };
}

/* A domain's live XML; metadata: ours, or ""; more: what else it has. */
static char *
domain_xml_with (const char *name, const char *metadata, const char *more) {
  return g_strdup_printf ("<domain type='kvm' id='7'><name>%s</name><uuid>%s</uuid><metadata>%s</metadata>%s"
                          "<seclabel type='dynamic' model='dac' relabel='yes'><label>+0:+%u</label></seclabel></domain>",
                          name, PLACE_UUID, metadata, more, (unsigned)getegid ());
}

#define SHARED "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>"

static char *
domain_xml (const char *name, const char *metadata) {
  return domain_xml_with (name, metadata, SHARED);
}

#define MEMORY(attributes) "<domybs:domybs xmlns:domybs='urn:domybs:libvirt:1'><domybs:memory " attributes "/></domybs:domybs>"
static const char good[] = MEMORY ("window='4294967296' local-max='1073741824' grant='reserve' present='yes'");

static void
succeeds (const char *operation, const char *suboperation, const char *xml) {
  g_auto (Result) result = hook ("vm1", operation, suboperation, xml, -1);

  g_assert_cmpstr (result.err, ==, "");
  g_assert_cmpstr (result.out, ==, "");
  g_assert_cmpint (result.status, ==, 0);
}

/* With one line that says whose domain it is. */
static void
refuses_bytes (const char *xml, gssize n) {
  g_auto (Result) result = hook ("vm1", "start", "begin", xml, n);

  if (result.status != 1 || strchr (result.err, '\n') != result.err + strlen (result.err) - 1
      || !g_str_has_prefix (result.err, "domybs: domain 'vm1': ") || strlen (result.err) > 500)
    g_error ("status %d, '%s' for %.200s", result.status, result.err, xml);
  g_assert_cmpstr (result.out, ==, "");
  g_assert_cmpuint (place_process_count (), ==, 0);
  g_assert_cmpuint (place_folders (), ==, 0);
}

static void
starts_and_stops (void) {
  g_autofree char *xml = domain_xml ("vm1", good);
  g_autofree char *socket = NULL;

  place_set_up ();
  socket = launch_socket_path (PLACE_UUID);
  for (int i = 0; i < 3; i++) {
    succeeds ("prepare", "begin", xml);
    g_assert_cmpuint (place_process_count (), ==, 0);
    succeeds ("start", "begin", xml);
    g_assert_cmpint (launch_pid (PLACE_UUID), >, 0);
    g_assert_true (g_file_test (socket, G_FILE_TEST_EXISTS));
    succeeds ("started", "begin", xml);
    succeeds ("stopped", "end", xml);
    g_assert_cmpint (launch_pid (PLACE_UUID), >, 0);
    succeeds ("release", "end", xml);
    g_assert_cmpint (launch_pid (PLACE_UUID), ==, 0);
    g_assert_cmpuint (place_folders (), ==, 0);
  }
  place_tear_down ();
}

static void
does_nothing_twice (void) {
  g_autofree char *xml = domain_xml ("vm1", good);
  pid_t pid;

  place_set_up ();
  succeeds ("release", "end", xml);
  succeeds ("start", "begin", xml);
  pid = launch_pid (PLACE_UUID);
  succeeds ("start", "begin", xml);
  g_assert_cmpint (launch_pid (PLACE_UUID), ==, pid);
  succeeds ("release", "end", xml);
  succeeds ("release", "end", xml);
  place_tear_down ();
}

static void
keeps_out_of_all_else (void) {
  static const char *const turns[][2] = {
    { "reconnect", "begin" }, { "attach", "begin" },  { "migrate", "begin" }, { "restore", "begin" },     { "prepare", "end" },
    { "start", "end" },       { "release", "begin" }, { "stopped", "end" },   { "from the future", "-" }, { "", "" },
  };
  g_autofree char *xml = domain_xml ("vm1", good), *broken = domain_xml ("vm1", MEMORY ("window='1'"));
  pid_t pid;

  place_set_up ();
  succeeds ("start", "begin", xml);
  pid = launch_pid (PLACE_UUID);
  for (size_t i = 0; i < G_N_ELEMENTS (turns); i++) {
    succeeds (turns[i][0], turns[i][1], xml);
    succeeds (turns[i][0], turns[i][1], broken);
    succeeds (turns[i][0], turns[i][1], "");
    g_assert_cmpint (launch_pid (PLACE_UUID), ==, pid);
  }
  succeeds ("release", "end", xml);
  place_tear_down ();
}

static void
leaves_other_domains_alone (void) {
  g_autofree char *plain = domain_xml ("vm1", ""), *others = domain_xml ("vm1", "<a:b xmlns:a='urn:of:others'/>");
  g_autofree char *unplugged
      = domain_xml ("vm1", MEMORY ("window='4294967296' local-max='1073741824' grant='reserve' present='no'"));
  static const char *const odd[] = { "", "<", "no XML at all", "<domain/>", "<domain><name>x</name></domain>", "\x89PNG\r\n" };

  place_set_up ();
  succeeds ("start", "begin", plain);
  succeeds ("start", "begin", others);
  succeeds ("start", "begin", unplugged);
  for (size_t i = 0; i < G_N_ELEMENTS (odd); i++) {
    succeeds ("start", "begin", odd[i]);
    succeeds ("release", "end", odd[i]);
  }
  g_assert_false (g_file_test (g_getenv ("DOMYBS_TEST_RUNDIR"), G_FILE_TEST_EXISTS));
  place_tear_down ();
}

/* Of the processors, so that a busy machine does not count. */
static gint64
time_of_children (void) {
  struct rusage usage;

  g_assert_cmpint (getrusage (RUSAGE_CHILDREN, &usage), ==, 0);
  return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * G_USEC_PER_SEC + usage.ru_utime.tv_usec + usage.ru_stime.tv_usec;
}

static void
costs_other_domains_nothing (void) {
  g_autofree char *padding = g_strnfill (200 * 1024, ' '), *plain = domain_xml ("vm1", padding);
  gint64 best = G_MAXINT64;

  place_set_up ();
  for (int i = 0; i < 20; i++) {
    const gint64 began = time_of_children ();

    succeeds ("start", "begin", plain);
    best = MIN (best, time_of_children () - began);
  }
  g_test_message ("%.1f ms", (double)best / 1000);
#ifndef __SANITIZE_ADDRESS__
  g_assert_cmpint (best, <, 10000);
#endif
  place_tear_down ();
}

static void
refuses_broken_metadata (void) {
  static const char *const broken[] = {
    MEMORY (""),
    MEMORY ("window='4294967296'"),
    MEMORY ("window='-1' local-max='1073741824' grant='reserve' present='yes'"),
    MEMORY ("window='3221225472' local-max='1073741824' grant='reserve' present='yes'"),
    MEMORY ("window='18446744073709551616' local-max='1073741824' grant='reserve' present='yes'"),
    MEMORY ("window='4294967296' local-max='8589934592' grant='reserve' present='yes'"),
    MEMORY ("window='4294967296' local-max='1' grant='reserve' present='yes'"),
    MEMORY ("window='4294967296' local-max='1073741824' grant='--once' present='yes'"),
    MEMORY ("window='4294967296' local-max='1073741824' grant='reserve' present='perhaps'"),
    MEMORY ("window='4294967296' local-max='1073741824' grant='reserve' present='yes' numa-node='100000'"),
    MEMORY ("window='4294967296 --socket-path=/etc/passwd' local-max='1073741824' grant='reserve' present='yes'"),
    "<domybs:domybs xmlns:domybs='urn:domybs:libvirt:1'/>",
  };

  place_set_up ();
  for (size_t i = 0; i < G_N_ELEMENTS (broken); i++) {
    g_autofree char *xml = domain_xml ("vm1", broken[i]);

    refuses_bytes (xml, -1);
  }
  place_tear_down ();
}

/* What somebody put in after attach, and attach would have refused. */
static void
refuses_what_pins_the_window (void) {
  static const char *const more[] = {
    SHARED "<devices><hostdev mode='subsystem' type='pci'/></devices>",
    "<memoryBacking><source type='memfd'/><access mode='shared'/><locked/></memoryBacking>",
    "<memoryBacking><source type='anonymous'/></memoryBacking>",
    "",
  };

  place_set_up ();
  for (size_t i = 0; i < G_N_ELEMENTS (more); i++) {
    g_autofree char *xml = domain_xml_with ("vm1", good, more[i]), *plain = domain_xml_with ("vm1", "", more[i]);

    refuses_bytes (xml, -1);
    succeeds ("start", "begin", plain);
  }
  place_tear_down ();
}

static void
refuses_hostile_xml (void) {
  static const char laughs[]
      = "<!DOCTYPE d [<!ENTITY a 'ha'><!ENTITY b '&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;'><!ENTITY c '&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;'>"
        "<!ENTITY e '&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;'><!ENTITY f '&e;&e;&e;&e;&e;&e;&e;&e;&e;&e;'>"
        "<!ENTITY g '&f;&f;&f;&f;&f;&f;&f;&f;&f;&f;'><!ENTITY h '&g;&g;&g;&g;&g;&g;&g;&g;&g;&g;'>]>";
  g_autofree char *whole = domain_xml ("vm1", good), *escape = domain_xml ("../../../tmp/x", good), *deep = NULL, *huge = NULL;
  g_autofree char *laughing
      = g_strconcat (laughs, "<domain><name>&h;</name><uuid>&h;</uuid><x xmlns='urn:domybs:libvirt:1'/></domain>", NULL);
  g_autofree char *file
      = g_strdup_printf ("<!DOCTYPE d [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><domain><name>&x;</name><uuid>%s</uuid>"
                         "<metadata>%s</metadata></domain>",
                         PLACE_UUID, good);
  g_autofree char *uuid
      = g_strdup_printf ("<domain><name>vm1</name><uuid>../../../../etc</uuid><metadata>%s</metadata></domain>", good);
  g_autoptr (GString) nested = g_string_new (NULL);

  place_set_up ();
  for (gsize n = strlen (whole) - 1; n > strlen (whole) / 2; n -= 7)
    if (memmem (whole, n, "urn:domybs:libvirt:1", 20))
      refuses_bytes (whole, (gssize)n);
  refuses_bytes (laughing, -1);
  refuses_bytes (file, -1);
  refuses_bytes (uuid, -1);
  refuses_bytes (escape, -1);
  for (int i = 0; i < 100000; i++)
    g_string_append (nested, "<a>");
  g_string_append (nested, "urn:domybs:libvirt:1");
  refuses_bytes (nested->str, -1);
  huge = g_strnfill (20u << 20, ' ');
  memcpy (huge, whole, strlen (whole) - strlen ("</domain>"));
  refuses_bytes (huge, -1); /* its end is beyond what is read */
  place_tear_down ();
}

/* One that was ours when it was started. */
static void
stops_without_metadata (void) {
  g_autofree char *xml = domain_xml ("vm1", good), *plain = domain_xml ("renamed", "");

  place_set_up ();
  succeeds ("start", "begin", xml);
  succeeds ("release", "end", plain);
  g_assert_cmpuint (place_folders (), ==, 0);
  place_tear_down ();
}

static void
says_why_it_did_not_start (void) {
  g_autofree char *xml = domain_xml ("vm1", good);
  g_auto (Result) result = { 0 };

  place_set_up ();
  place_use_program ("dies");
  result = hook ("vm1", "start", "begin", xml, -1);
  g_assert_cmpint (result.status, ==, 1);
  g_assert_nonnull (strstr (result.err, "domain 'vm1': its back-end ended at once: no memory for you"));
  /* what libvirt calls after that */
  succeeds ("stopped", "end", xml);
  succeeds ("release", "end", xml);
  g_assert_cmpuint (place_folders (), ==, 0);
  place_tear_down ();
}

/* A start that is refused is followed by a release: that must not end the back-end of the QEMU that was in the way. */
static void
spares_a_living_vm (void) {
  g_autofree char *xml = domain_xml ("vm1", good);
  g_auto (Result) start = { 0 }, release = { 0 };
  pid_t qemu, pid;

  place_set_up ();
  succeeds ("start", "begin", xml);
  pid = launch_pid (PLACE_UUID);
  qemu = place_start_qemu (PLACE_UUID);
  start = hook ("vm1", "start", "begin", xml, -1);
  g_assert_cmpint (start.status, ==, 1);
  release = hook ("vm1", "release", "end", xml, -1);
  g_assert_cmpint (release.status, ==, 1);
  g_assert_cmpint (launch_pid (PLACE_UUID), ==, pid);
  place_end (qemu);
  succeeds ("release", "end", xml);
  g_assert_cmpuint (place_folders (), ==, 0);
  place_tear_down ();
}

static void
wants_arguments (void) {
  const char *const argv[] = { g_getenv ("DOMYBS_HOOK"), "vm1", NULL };
  g_autofree char *err = NULL;
  int status;

  g_assert_true (g_spawn_sync (NULL, (char **)argv, NULL, G_SPAWN_STDOUT_TO_DEV_NULL, NULL, NULL, NULL, &err, &status, NULL));
  g_assert_cmpint (WEXITSTATUS (status), ==, 2);
  g_assert_true (g_str_has_prefix (err, "usage: "));
}

int
main (int argc, char **argv) {
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/hook/starts-and-stops", starts_and_stops);
  g_test_add_func ("/hook/does-nothing-twice", does_nothing_twice);
  g_test_add_func ("/hook/keeps-out-of-all-else", keeps_out_of_all_else);
  g_test_add_func ("/hook/leaves-other-domains-alone", leaves_other_domains_alone);
  g_test_add_func ("/hook/costs-other-domains-nothing", costs_other_domains_nothing);
  g_test_add_func ("/hook/refuses-broken-metadata", refuses_broken_metadata);
  g_test_add_func ("/hook/refuses-what-pins-the-window", refuses_what_pins_the_window);
  g_test_add_func ("/hook/refuses-hostile-xml", refuses_hostile_xml);
  g_test_add_func ("/hook/stops-without-metadata", stops_without_metadata);
  g_test_add_func ("/hook/says-why-it-did-not-start", says_why_it_did_not_start);
  g_test_add_func ("/hook/spares-a-living-vm", spares_a_living_vm);
  g_test_add_func ("/hook/wants-arguments", wants_arguments);
  return g_test_run ();
}
