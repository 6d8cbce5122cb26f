/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Back-ends are started and ended as launch.h says, and nobody else's process ever is. */
#include "place.h"
#include "error.h"
#include "host/launch.h"
#include "host/qemu-group.h"
#include "host/unix-socket.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <glib/gstdio.h>

static const DomainMemory memory = { 2ull << 30, 1ull << 30, FALSE, -1, TRUE };
static DomainIdentity identity = { (char *)"vm1", NULL, -1 }; /* with PLACE_UUID, from main on */

/* As root a group that nobody has; else the only one that we may give. */
static gid_t
the_gid (void) {
  return geteuid () == 0 ? 54321 : getegid ();
}

static const char *
label (void) {
  static char text[32];

  g_snprintf (text, sizeof text, "+0:+%u", (unsigned)the_gid ());
  return text;
}

static void
start (void) {
  g_autoptr (GError) error = NULL;

  launch_start (&identity, &memory, label (), &error);
  g_assert_no_error (error);
  g_assert_cmpint (launch_pid (PLACE_UUID), >, 0);
}

static void
stop (void) {
  g_autoptr (GError) error = NULL;

  launch_stop (PLACE_UUID, &error);
  g_assert_no_error (error);
  g_assert_cmpint (launch_pid (PLACE_UUID), ==, 0);
}

static void
stop_and_find_nothing (void) {
  stop ();
  g_assert_cmpuint (place_folders (), ==, 0);
  place_tear_down ();
}

static void
fails (int code, const char *words) {
  g_autoptr (GError) error = NULL;

  g_assert_false (launch_start (&identity, &memory, label (), &error));
  g_assert_error (error, CTL_ERROR, code);
  if (!strstr (error->message, words))
    g_error ("'%s' does not say '%s'", error->message, words);
}

static void
assert_file (const char *name, mode_t type, mode_t mode, gid_t gid) {
  g_autofree char *folder = launch_folder (PLACE_UUID);
  g_autofree char *path = g_build_filename (folder, name, NULL);
  struct stat st;

  g_assert_cmpint (lstat (path, &st), ==, 0);
  g_assert_cmphex (st.st_mode, ==, type | mode);
  g_assert_cmpuint (st.st_uid, ==, geteuid ());
  g_assert_cmpuint (st.st_gid, ==, gid);
}

static char *
proc_text (pid_t pid, const char *name) {
  g_autofree char *path = g_strdup_printf ("/proc/%d/%s", (int)pid, name);
  char *text = NULL;

  g_assert_true (g_file_get_contents (path, &text, NULL, NULL));
  return text;
}

/* ---- starting ---- */

static void
gives_rights_to_qemu (void) {
  place_set_up ();
  start ();
  assert_file ("", S_IFDIR, 0750, the_gid ());
  assert_file ("backend.sock", S_IFSOCK, 0660, the_gid ());
  assert_file ("backend.pid", S_IFREG, 0644, getegid ());
  stop_and_find_nothing ();
}

static void
is_nobodys_child (void) {
  g_autofree char *path = NULL, *stat = NULL, *environment = NULL, *folder = NULL, *pid_file = NULL, *text = NULL;
  char program[256];
  int ppid = 0, session = 0;
  unsigned n = 0;
  g_autoptr (GDir) fds = NULL;
  const char *name;
  int leaked;
  pid_t pid;

  place_set_up ();
  leaked = open ("/dev/null", O_RDONLY); /* not close-on-exec: it must not get it in spite of that */
  start ();
  close (leaked);
  pid = launch_pid (PLACE_UUID);
  stat = proc_text (pid, "stat");
  g_assert_cmpint (sscanf (stat, "%*d (%255[^)]) %*c %d %*d %d", program, &ppid, &session), ==, 3);
  g_assert_cmpint (ppid, !=, getpid ());
  g_assert_cmpint (session, !=, getsid (0));
  path = g_strdup_printf ("/proc/%d/fd", (int)pid);
  fds = g_dir_open (path, 0, NULL);
  while ((name = g_dir_read_name (fds))) {
    g_autofree char *fd_path = g_build_filename (path, name, NULL);
    g_autofree char *to = g_file_read_link (fd_path, NULL);

    if (g_str_equal (name, "0"))
      g_assert_cmpstr (to, ==, "/dev/null");
    else if (to && (g_str_equal (name, "1") || g_str_equal (name, "2")))
      g_assert_true (g_str_has_suffix (to, "/log/vm1.log"));
    else if (to)
      g_assert_cmpstr (to, !=, "/dev/null");
    n++;
  }
  g_assert_cmpuint (n, <, 16);
  environment = proc_text (pid, "environ");
  g_assert_true (g_str_has_prefix (environment, "PATH="));
  folder = launch_folder (PLACE_UUID);
  pid_file = g_build_filename (folder, "backend.pid", NULL);
  g_assert_true (g_file_get_contents (pid_file, &text, NULL, NULL));
  g_assert_cmpint (atoi (text), ==, pid);
  stop_and_find_nothing ();
}

static void
starts_once (void) {
  const DomainMemory other = { 4ull << 30, 1ull << 30, TRUE, 1, TRUE };
  g_autoptr (GError) error = NULL;
  pid_t pid;

  place_set_up ();
  start ();
  pid = launch_pid (PLACE_UUID);
  start ();
  g_assert_cmpint (launch_pid (PLACE_UUID), ==, pid);
  launch_start (&identity, &other, label (), &error);
  g_assert_no_error (error);
  g_assert_cmpint (launch_pid (PLACE_UUID), !=, pid);
  g_assert_cmpuint (place_process_count (), ==, 1);
  stop_and_find_nothing ();
}

static void
tells_why_it_did_not_start (void) {
  g_autofree char *log = NULL;

  place_set_up ();
  place_use_program ("dies");
  fails (CTL_ERROR_FAILED, "no memory for you");
  g_assert_cmpuint (place_folders (), ==, 0);
  log = place_log ("vm1");
  g_assert_nonnull (strstr (log, "a first line"));
  g_setenv ("DOMYBS_BACKEND", "/nowhere/at/all", TRUE);
  fails (CTL_ERROR_FAILED, "/nowhere/at/all");
  g_setenv ("DOMYBS_BACKEND", "/etc/passwd", TRUE);
  fails (CTL_ERROR_FAILED, "/etc/passwd");
  stop_and_find_nothing ();
}

/* It listens by then: QEMU could be started, and would find nobody. */
static void
tells_why_its_worker_can_not_begin (void) {
  place_set_up ();
  place_use_program ("refuses");
  fails (CTL_ERROR_FAILED, "there is no room for a window");
  g_assert_cmpuint (place_folders (), ==, 0);
  g_assert_cmpuint (place_process_count (), ==, 0);
  stop_and_find_nothing ();
}

static void
does_not_wait_for_ever (void) {
  static const char *const programs[][2] = { { "deaf", "does not listen" }, { "idle", "does not begin to work" } };

  for (size_t i = 0; i < G_N_ELEMENTS (programs); i++) {
    place_set_up ();
    place_use_program (programs[i][0]);
    fails (CTL_ERROR_FAILED, programs[i][1]);
    g_assert_cmpuint (place_process_count (), ==, 0);
    stop_and_find_nothing ();
  }
}

static void
names_a_group_that_is_missing (void) {
  g_autoptr (GError) error = NULL;

  place_set_up ();
  g_assert_false (launch_start (&identity, &memory, "+0:no such group", &error));
  g_assert_error (error, CTL_ERROR, CTL_ERROR_FAILED);
  g_assert_nonnull (strstr (error->message, "'no such group'"));
  stop_and_find_nothing ();
}

static void
reads_qemu_conf (void) {
  static const char text[]
      = "# group = \"commented\"\n#group = \"too\"\n group=\"first\"\ngroups = \"other\"\ngroup_x = \"y\"\n"
        "user = 'me'\nseccomp_sandbox = 1\ngroup = \"last\" # indeed\nbroken = \"no end\n";
  g_autofree char *group = qemu_config_get (text, "group"), *user = qemu_config_get (text, "user");

  g_assert_cmpstr (group, ==, "last");
  g_assert_cmpstr (user, ==, "me");
  g_assert_null (qemu_config_get (text, "seccomp_sandbox"));
  g_assert_null (qemu_config_get (text, "broken"));
  g_assert_null (qemu_config_get ("", "group"));
}

static void
reads_labels (void) {
  gid_t gid = 1;

  g_assert_true (qemu_group_find ("+64055:+993", &gid, NULL));
  g_assert_cmpuint (gid, ==, 993);
  g_assert_true (qemu_group_find ("nobody:root", &gid, NULL));
  g_assert_cmpuint (gid, ==, 0);
  g_assert_false (qemu_group_find ("a:+99999999999", &gid, NULL));
  g_assert_false (qemu_group_find ("a:+4294967295", &gid, NULL)); /* chown would leave the group as it is */
  g_assert_false (qemu_group_find ("a:-1", &gid, NULL));
  g_assert_false (qemu_group_find ("a:b:c", &gid, NULL));
  g_assert_cmpuint (gid, ==, 0);
}

/* ---- names ---- */

static void
makes_names_safe (void) {
  static const char *const names[][2] = {
    { "vm1", "vm1.log" },
    { "web-2.example", "web-2.example.log" },
    { "a vm", "a_vm-UUID.log" },
    { "../../etc/passwd", "_._.._etc_passwd-UUID.log" },
    { ".hidden", "_hidden-UUID.log" },
    { "-n", "-n.log" },
    { "new\nline", "new_line-UUID.log" },
    { "", ".log" },
  };
  g_autofree char *long_name = g_strnfill (1000, 'x');
  DomainIdentity odd = { long_name, identity.uuid, -1 };
  g_autofree char *long_path = NULL, *long_base = NULL;

  place_set_up ();
  for (size_t i = 0; i < G_N_ELEMENTS (names); i++) {
    g_autofree char *path = NULL, *base = NULL, *folder = NULL, *expected = NULL;
    const char *at;

    odd.name = (char *)names[i][0];
    path = launch_log_path (&odd);
    base = g_path_get_basename (path);
    expected = g_strdup (names[i][1]);
    at = strstr (expected, "UUID");
    if (at) {
      g_autofree char *whole = g_strdup_printf ("%.*s%s.log", (int)(at - expected), expected, identity.uuid);

      g_assert_cmpstr (base, ==, whole);
    } else {
      g_assert_cmpstr (base, ==, expected);
    }
    folder = g_path_get_dirname (path);
    g_assert_cmpstr (folder, ==, launch_logdir ());
  }
  odd.name = long_name;
  long_path = launch_log_path (&odd);
  long_base = g_path_get_basename (long_path);
  g_assert_cmpuint (strlen (long_base), <=, 255);
  place_tear_down ();
}

static void
starts_vms_with_odd_names (void) {
  static const char *const names[] = { "ünï cødé ✓", "--once --help", "a\tb\x1b[31m", "%s%n", "'; rm -rf /", "\xff\xfe" };

  place_set_up ();
  for (size_t i = 0; i < G_N_ELEMENTS (names); i++) {
    DomainIdentity odd = { (char *)names[i], identity.uuid, -1 };
    g_autoptr (GError) error = NULL;

    launch_start (&odd, &memory, label (), &error);
    if (error)
      g_error ("%s: %s", names[i], error->message);
    stop ();
  }
  stop_and_find_nothing ();
}

/* ---- what was left over ---- */

static void
starts_over_remains (void) {
  g_autofree char *folder = NULL, *socket = NULL, *pid_file = NULL;

  place_set_up ();
  start ();
  folder = launch_folder (PLACE_UUID);
  socket = launch_socket_path (PLACE_UUID);
  pid_file = g_build_filename (folder, "backend.pid", NULL);
  kill (launch_pid (PLACE_UUID), SIGKILL);
  while (place_process_count ())
    g_usleep (1000);
  g_assert_true (g_file_test (socket, G_FILE_TEST_EXISTS));
  start ();
  stop ();
  g_assert_cmpint (g_mkdir (folder, 0700), ==, 0);
  g_assert_true (g_file_set_contents (pid_file, "this is no pid file at all", -1, NULL));
  start ();
  stop ();
  g_assert_cmpint (g_mkdir (folder, 0700), ==, 0);
  g_assert_cmpint (symlink ("/etc/passwd", pid_file), ==, 0);
  start ();
  stop_and_find_nothing ();
  g_assert_true (g_file_test ("/etc/passwd", G_FILE_TEST_EXISTS));
}

static void
refuses_folders_of_others (void) {
  g_autofree char *run = NULL, *folder = NULL, *vm = NULL;
  g_autoptr (GError) error = NULL;

  place_set_up ();
  start ();
  stop ();
  vm = place_path ("vm");
  folder = launch_folder (PLACE_UUID);
  run = place_path ("");
  g_assert_cmpint (symlink ("/tmp", folder), ==, 0);
  fails (CTL_ERROR_FAILED, PLACE_UUID);
  g_assert_false (launch_stop (PLACE_UUID, &error));
  g_assert_cmpint (g_unlink (folder), ==, 0);
  g_assert_cmpint (g_chmod (vm, 0777), ==, 0);
  fails (CTL_ERROR_REFUSED, "others");
  g_assert_cmpint (g_chmod (vm, 0755), ==, 0);
  g_assert_cmpint (g_chmod (run, 0775), ==, 0);
  fails (CTL_ERROR_REFUSED, "others");
  g_assert_cmpint (g_chmod (run, 0755), ==, 0);
  start ();
  stop_and_find_nothing ();
}

static void
stops_what_is_not_there (void) {
  place_set_up ();
  stop ();
  g_assert_false (g_file_test (g_getenv ("DOMYBS_TEST_RUNDIR"), G_FILE_TEST_EXISTS));
  start ();
  stop ();
  stop_and_find_nothing ();
}

static void
kills_what_ignores_it (void) {
  place_set_up ();
  place_use_program ("stubborn");
  start ();
  stop_and_find_nothing ();
}

/* ---- nobody else's ---- */

/* The start time as the kernel has it, plus off, behind the pid. */
static void
write_pid_file (pid_t pid, int off) {
  g_autofree char *folder = launch_folder (PLACE_UUID), *path = g_build_filename (folder, "backend.pid", NULL), *text = NULL;
  g_autofree char *stat = proc_text (pid, "stat");
  g_auto (GStrv) fields = g_strsplit (strrchr (stat, ')') + 2, " ", -1);

  text = g_strdup_printf ("%d %d\n", (int)pid, atoi (fields[19]) + off);
  g_assert_cmpint (g_mkdir_with_parents (folder, 0755), ==, 0);
  g_assert_true (g_file_set_contents (path, text, -1, NULL));
}

static void
leave_alone (pid_t pid, int off) {
  write_pid_file (pid, off);
  g_assert_cmpint (launch_pid (PLACE_UUID), ==, 0);
  start ();
  g_assert_cmpint (launch_pid (PLACE_UUID), !=, pid);
  stop ();
  write_pid_file (pid, off);
  stop ();
  g_assert_cmpint (waitpid (pid, NULL, WNOHANG), ==, 0);
}

static void
never_ends_a_pids_next_owner (void) {
  g_autofree char *socket = NULL, *argument = NULL;
  pid_t pid;

  place_set_up ();
  socket = launch_socket_path (PLACE_UUID);
  argument = g_strconcat ("--socket-path=", socket, NULL);
  pid = place_start_program ("deaf", "--socket-path=/another/path", NULL);
  leave_alone (pid, 0); /* the very pid and time, but another program */
  place_end (pid);
  pid = place_start_program ("deaf", argument, NULL);
  leave_alone (pid, 1); /* a back-end of this VM, but not the one that was started */
  leave_alone (pid, -1);
  write_pid_file (pid, 0);
  g_assert_cmpint (launch_pid (PLACE_UUID), ==, pid); /* what makes the difference */
  place_end (pid);
  stop_and_find_nothing ();
}

static void
leaves_a_socket_of_others (void) {
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  g_autofree char *folder = NULL, *socket_path = NULL;
  const int fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  g_autoptr (GError) error = NULL;

  place_set_up ();
  folder = launch_folder (PLACE_UUID);
  socket_path = launch_socket_path (PLACE_UUID);
  g_assert_cmpint (g_mkdir_with_parents (folder, 0755), ==, 0);
  g_strlcpy (address.sun_path, socket_path, sizeof address.sun_path);
  g_assert_cmpint (bind (fd, (struct sockaddr *)&address, sizeof address), ==, 0);
  g_assert_cmpint (listen (fd, 1), ==, 0);
  launch_start (&identity, &memory, label (), &error);
  g_assert_no_error (error);
  g_assert_cmpint (launch_pid (PLACE_UUID), ==, 0);
  g_assert_cmpuint (place_process_count (), ==, 0);
  stop ();
  g_assert_true (g_file_test (socket_path, G_FILE_TEST_EXISTS));
  close (fd);
  start (); /* nobody listens there any more */
  stop_and_find_nothing ();
}

static void
stays_with_its_qemu (void) {
  g_autoptr (GError) error = NULL;
  pid_t qemu, pid;

  place_set_up ();
  start ();
  pid = launch_pid (PLACE_UUID);
  qemu = place_start_qemu (PLACE_UUID);
  g_assert_false (launch_stop (PLACE_UUID, &error));
  g_assert_error (error, CTL_ERROR, CTL_ERROR_REFUSED);
  fails (CTL_ERROR_REFUSED, "serves a running QEMU");
  g_assert_cmpint (launch_pid (PLACE_UUID), ==, pid);
  place_end (qemu);
  while (launch_pid (PLACE_UUID)) /* by itself: this is where libvirtd may be down */
    g_usleep (1000);
  stop_and_find_nothing ();
}

static void
goes_on_after_its_qemu (void) {
  pid_t qemu;

  place_set_up ();
  for (int i = 0; i < 10; i++) {
    start ();
    qemu = place_start_qemu (PLACE_UUID);
    place_end (qemu);
    if (i % 2)
      stop ();
  }
  start ();
  stop_and_find_nothing ();
}

static void
ends_a_hung_one_when_its_qemu_is_gone (void) {
  g_autoptr (GError) error = NULL;
  pid_t qemu;

  place_set_up ();
  place_use_program ("hung");
  start ();
  qemu = place_start_qemu (PLACE_UUID);
  g_assert_false (launch_stop (PLACE_UUID, &error));
  place_end (qemu);
  stop_and_find_nothing ();
}

/* ---- races ---- */

/* Runs `function` in n processes at once; returns how many of them succeeded. */
static unsigned
at_once (unsigned n, gboolean (*function) (unsigned i)) {
  int gate[2];
  unsigned ok = 0;
  pid_t pids[16];

  g_assert_cmpint (pipe (gate), ==, 0);
  for (unsigned i = 0; i < n; i++) {
    pids[i] = fork ();
    if (pids[i] == 0) {
      char c;

      close (gate[1]);
      _exit (read (gate[0], &c, 1) == 0 && function (i) ? 0 : 1);
    }
  }
  close (gate[0]);
  close (gate[1]);
  for (unsigned i = 0; i < n; i++) {
    int status;

    g_assert_cmpint (waitpid (pids[i], &status, 0), ==, pids[i]);
    ok += WIFEXITED (status) && WEXITSTATUS (status) == 0;
  }
  return ok;
}

static gboolean
start_one (unsigned i) {
  g_autoptr (GError) error = NULL;

  if (!launch_start (&identity, &memory, label (), &error))
    g_printerr ("start %u: %s\n", i, error->message);
  return error == NULL;
}

static gboolean
start_or_stop (unsigned i) {
  g_autoptr (GError) error = NULL;

  for (int n = 0; n < 5; n++)
    if (!(i % 2 ? launch_stop (PLACE_UUID, &error) : launch_start (&identity, &memory, label (), &error))) {
      g_printerr ("%u: %s\n", i, error->message);
      return FALSE;
    }
  return TRUE;
}

static void
starts_one_of_many (void) {
  place_set_up ();
  g_assert_cmpuint (at_once (8, start_one), ==, 8);
  g_assert_cmpuint (place_process_count (), ==, 1);
  stop_and_find_nothing ();
}

static void
starts_and_stops_at_once (void) {
  place_set_up ();
  g_assert_cmpuint (at_once (6, start_or_stop), ==, 6);
  g_assert_cmpuint (place_process_count (), <=, 1);
  stop_and_find_nothing ();
}

int
main (int argc, char **argv) {
  g_test_init (&argc, &argv, NULL);
  identity.uuid = (char *)PLACE_UUID;
  g_test_add_func ("/launch/quick/gives-rights-to-qemu", gives_rights_to_qemu);
  g_test_add_func ("/launch/quick/is-nobodys-child", is_nobodys_child);
  g_test_add_func ("/launch/quick/starts-once", starts_once);
  g_test_add_func ("/launch/quick/tells-why-it-did-not-start", tells_why_it_did_not_start);
  g_test_add_func ("/launch/quick/tells-why-its-worker-can-not-begin", tells_why_its_worker_can_not_begin);
  g_test_add_func ("/launch/slow/does-not-wait-for-ever", does_not_wait_for_ever);
  g_test_add_func ("/launch/quick/names-a-group-that-is-missing", names_a_group_that_is_missing);
  g_test_add_func ("/launch/quick/reads-qemu-conf", reads_qemu_conf);
  g_test_add_func ("/launch/quick/reads-labels", reads_labels);
  g_test_add_func ("/launch/quick/makes-names-safe", makes_names_safe);
  g_test_add_func ("/launch/quick/starts-vms-with-odd-names", starts_vms_with_odd_names);
  g_test_add_func ("/launch/quick/starts-over-remains", starts_over_remains);
  g_test_add_func ("/launch/quick/refuses-folders-of-others", refuses_folders_of_others);
  g_test_add_func ("/launch/quick/stops-what-is-not-there", stops_what_is_not_there);
  g_test_add_func ("/launch/slow/kills-what-ignores-it", kills_what_ignores_it);
  g_test_add_func ("/launch/quick/never-ends-a-pids-next-owner", never_ends_a_pids_next_owner);
  g_test_add_func ("/launch/quick/leaves-a-socket-of-others", leaves_a_socket_of_others);
  g_test_add_func ("/launch/slow/stays-with-its-qemu", stays_with_its_qemu);
  g_test_add_func ("/launch/quick/goes-on-after-its-qemu", goes_on_after_its_qemu);
  g_test_add_func ("/launch/slow/ends-a-hung-one-when-its-qemu-is-gone", ends_a_hung_one_when_its_qemu_is_gone);
  g_test_add_func ("/launch/quick/starts-one-of-many", starts_one_of_many);
  g_test_add_func ("/launch/quick/starts-and-stops-at-once", starts_and_stops_at_once);
  return g_test_run ();
}
