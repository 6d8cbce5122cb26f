/* SPDX-License-Identifier: GPL-2.0-or-later */
/* domybs-backend as a program: its options, how it is started by others, how it ends. */
#include "rig.h"

#include <grp.h>
#include <linux/capability.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <glib/gstdio.h>

/* Runs it with these arguments alone until it ends; its standard output goes to ret_out, both outputs to ret_all. */
static int
run (const char *const *arguments, char **ret_out, char **ret_err) {
  g_autoptr (GPtrArray) argv = g_ptr_array_new ();
  g_autoptr (GError) error = NULL;
  g_autofree char *program = backend_program ();
  int status;

  g_ptr_array_add (argv, program);
  for (; *arguments; arguments++)
    g_ptr_array_add (argv, (gpointer)*arguments);
  g_ptr_array_add (argv, NULL);
  g_spawn_sync (NULL, (char **)argv->pdata, NULL, G_SPAWN_DEFAULT, NULL, NULL, ret_out, ret_err, &status, &error);
  g_assert_no_error (error);
  g_assert_true (WIFEXITED (status));
  return WEXITSTATUS (status);
}

#define ARGUMENTS(...) ((const char *const[]){ __VA_ARGS__, NULL })

static void
prints_its_capabilities (void) {
  g_autofree char *out = NULL, *err = NULL;
  g_autoptr (JsonNode) node = NULL;

  g_assert_cmpint (run (ARGUMENTS ("--print-capabilities"), &out, &err), ==, 0);
  node = json_from_string (out, NULL);
  g_assert_nonnull (node);
  g_assert_true (JSON_NODE_HOLDS_OBJECT (node));
  g_assert_true (json_object_has_member (json_node_get_object (node), "type"));
}

static void
prints_its_version (void) {
  g_autofree char *out = NULL, *err = NULL;

  g_assert_cmpint (run (ARGUMENTS ("--version"), &out, &err), ==, 0);
  g_assert_nonnull (strstr (out, "domybs-backend"));
}

static void
refuses_bad_options (void) {
  static const char *const bad[][3] = {
    { "--window=3G", "--socket-path=/tmp/never", "--window" },
    { "--window=1G", "--socket-path=/tmp/never", "--window" },
    { "--window=-2G", "--socket-path=/tmp/never", "--window" },
    { "--window=99999999999999999999G", "--socket-path=/tmp/never", "--window" },
    { "--window=16777216T", "--socket-path=/tmp/never", "--window" },
    { "--window=2G 4G", "--socket-path=/tmp/never", "--window" },
    { "--local-max=1", "--socket-path=/tmp/never", "--local-max" },
    { "--local-max=32G", "--socket-path=/tmp/never", "--local-max" },
    { "--target=64G", "--socket-path=/tmp/never", "--target" },
    { "--grant=maybe", "--socket-path=/tmp/never", "--grant" },
    { "--audit-interval=-1", "--socket-path=/tmp/never", "--audit-interval" },
    { "--numa-node=100000", "--socket-path=/tmp/never", "--numa-node" },
    { "--grow-min=0", "--socket-path=/tmp/never", "--grow-min" },
    { "--socket-mode=0680", "--socket-path=/tmp/never", "--socket-mode" },
    { "--socket-mode=01777", "--socket-path=/tmp/never", "--socket-mode" },
    { "--socket-mode=-1", "--socket-path=/tmp/never", "--socket-mode" },
    { "--socket-mode=", "--socket-path=/tmp/never", "--socket-mode" },
    { "--socket-mode=rw-rw----", "--socket-path=/tmp/never", "--socket-mode" },
    { "--socket-mode=0x1b0", "--socket-path=/tmp/never", "--socket-mode" },
    { "--socket-mode=77777777777777777777777", "--socket-path=/tmp/never", "--socket-mode" },
    { "--socket-group=no such group", "--socket-path=/tmp/never", "there is no group 'no such group'" },
    { "--socket-group=", "--socket-path=/tmp/never", "--socket-group" },
    { "--socket-group=-1", "--socket-path=/tmp/never", "--socket-group" },
    { "--socket-group=+0", "--socket-path=/tmp/never", "--socket-group" },
    { "--socket-group=4294967295", "--socket-path=/tmp/never", "--socket-group" }, /* means "unchanged" to chown */
    { "--socket-group=4294967296", "--socket-path=/tmp/never", "--socket-group" },
    { "--socket-group=1 ", "--socket-path=/tmp/never", "--socket-group" },
    { "--socket-group=0", "--fd=0", "--socket-path" },
    { "--socket-mode=0660", "--fd=0", "--socket-path" },
    { "--name=", "--socket-path=/tmp/never", "--name" },
    { "--name=one\nFORGED", "--socket-path=/tmp/never", "--name" },
    { "--no-such-option", "--socket-path=/tmp/never", "no-such-option" },
    { "surplus", "--socket-path=/tmp/never", "surplus" },
    { "--standalone", "--grant=reserve", "--socket-path" },
    { "--fd=3", "--socket-path=/tmp/never", "--fd" },
    { "--fd=1000", "--standalone", "--fd" },
    { "--socket-path=/nowhere/at/all/socket", "--standalone", "/nowhere" },
    { "--socket-path=/dev/null", "--standalone", "/dev/null" },
  };

  for (size_t i = 0; i < G_N_ELEMENTS (bad); i++) {
    g_autofree char *out = NULL, *err = NULL;

    g_test_message ("%s", bad[i][0]);
    g_assert_cmpint (run (ARGUMENTS (bad[i][0], bad[i][1], "--host-account=none"), &out, &err), !=, 0);
    g_assert_nonnull (strstr (err, bad[i][2]));
  }
  g_assert_false (g_file_test ("/tmp/never", G_FILE_TEST_EXISTS));
}

/* ---- who may connect ---- */

/* Connects as soon as that can be done, and looks at the socket's file at that moment. */
static void
rights_when_it_listens (const char *const *arguments, struct stat *ret_st) {
  g_autoptr (backend_t) backend = backend_start (arguments);
  g_autoptr (fe_t) fe = fe_new ();

  fe_must (fe, fe_connect (fe, backend->socket_path));
  g_assert_cmpint (stat (backend->socket_path, ret_st), ==, 0);
  g_assert_true (S_ISSOCK (ret_st->st_mode));
}

static void
socket_has_its_rights (void) {
  static const struct {
    const char *option;
    mode_t umask, mode;
  } cases[] = {
    { "--socket-mode=0660", 0, 0660 },   { "--socket-mode=660", 077, 0660 }, { "--socket-mode=0", 0, 0 },
    { "--socket-mode=0777", 077, 0777 }, { "--window=2G", 027, 0750 },
  };
  const mode_t before = umask (0);

  for (size_t i = 0; i < G_N_ELEMENTS (cases); i++) {
    const char *const arguments[] = { "--window=2G", "--host-account=none", cases[i].option, NULL };
    struct stat st;

    if (cases[i].mode == 0 && geteuid () != 0)
      continue; /* nobody but root could connect */
    umask (cases[i].umask);
    g_test_message ("%s, umask %03o", cases[i].option, (unsigned)cases[i].umask);
    rights_when_it_listens (arguments, &st);
    g_assert_cmpuint (st.st_mode & 07777, ==, cases[i].mode);
    g_assert_cmpuint (st.st_gid, ==, getegid ());
  }
  umask (before);
}

static void
socket_has_its_group (void) {
  const struct group *entry = getgrgid (geteuid () == 0 ? 1 : getegid ());
  g_autofree char *by_name = NULL;
  struct stat st;

  if (!entry) {
    g_test_skip ("this group has no name here");
    return;
  }
  by_name = g_strdup_printf ("--socket-group=%s", entry->gr_name);
  const gid_t gid = entry->gr_gid;
  const char *const arguments[] = { "--window=2G", "--host-account=none", "--socket-mode=0660", by_name, NULL };
  rights_when_it_listens (arguments, &st);
  g_assert_cmpuint (st.st_gid, ==, gid);
  g_assert_cmpuint (st.st_mode & 07777, ==, 0660);
  if (geteuid () == 0) {
    const char *const by_number[]
        = { "--window=2G", "--host-account=none", "--socket-mode=0660", "--socket-group=4242424", NULL };

    rights_when_it_listens (by_number, &st); /* nobody has called it anything */
    g_assert_cmpuint (st.st_gid, ==, 4242424);
    g_assert_cmpuint (st.st_mode & 07777, ==, 0660);
  }
}

static void
drop_chown (gpointer data) {
  prctl (PR_CAPBSET_DROP, CAP_CHOWN, 0, 0, 0);
}

/* A group that it may not give away: one line, and no socket that somebody else could connect to. */
static void
socket_of_a_forbidden_group (void) {
  g_autofree char *directory = g_dir_make_tmp ("domybs-group-XXXXXX", NULL);
  g_autofree char *path = g_build_filename (directory, "socket", NULL), *option = g_strdup_printf ("--socket-path=%s", path);
  g_autofree char *program = backend_program (), *err = NULL;
  char *argv[]
      = { program, (char *)"--window=2G", (char *)"--host-account=none", option, (char *)"--socket-group=4242424", NULL };
  g_autoptr (GError) error = NULL;
  int status;

  g_spawn_sync (NULL, argv, NULL, G_SPAWN_DEFAULT, drop_chown, NULL, NULL, &err, &status, &error);
  g_assert_no_error (error);
  g_assert_true (WIFEXITED (status));
  g_assert_cmpint (WEXITSTATUS (status), ==, 1);
  g_assert_nonnull (strstr (err, "can't give "));
  g_assert_nonnull (strstr (err, "to group 4242424"));
  g_assert_false (g_file_test (path, G_FILE_TEST_EXISTS));
  g_rmdir (directory);
}

/* At no moment between its first appearance and its use does the socket let in anybody else than in the end. */
static void
socket_is_never_wider (void) {
  static const char *const arguments[] = { "--window=2G", "--host-account=none", "--socket-mode=0640", NULL };
  const mode_t before = umask (0);

  for (int i = 0; i < 30; i++) {
    g_autoptr (backend_t) backend = backend_start (arguments);
    struct stat st;

    for (const int64_t deadline = fe_now_ms () + fe_patience_ms (); lstat (backend->socket_path, &st) < 0;)
      g_assert_cmpint (fe_now_ms (), <, deadline);
    g_assert_cmpuint (st.st_mode & 07777, ==, 0640);
  }
  umask (before);
}

/* Whatever the umask says. */
static void
control_socket_is_private (void) {
  static const char *const arguments[] = { "--window=2G", "--host-account=none", NULL };
  const mode_t before = umask (0);
  g_autoptr (backend_t) backend = backend_start (arguments);
  struct stat st;

  umask (before);
  close (control_open (backend));
  g_assert_cmpint (stat (backend->control_path, &st), ==, 0);
  g_assert_cmpuint (st.st_mode & 07777, ==, 0600);
}

/* ---- how it is started ---- */

static void
takes_a_connected_socket (void) {
  static const char *const arguments[] = { "--window=2G", "--host-account=none", NULL };
  g_autoptr (fe_t) fe = fe_new ();
  struct fe_answer answer;
  int pair[2];

  g_assert_cmpint (socketpair (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), ==, 0);
  g_autoptr (backend_t) backend = backend_start_fd (pair[1], arguments);
  close (pair[1]);
  fe->sock = pair[0];
  for (enum fe_step step = FE_STEP_GET_FEATURES; step <= FE_STEP_HELLO; step++)
    fe_must (fe, fe_step (fe, step, NULL));
  fe_must (fe, fe_grant (fe, 4, DOMYBS_HINT_ANY, DOMYBS_GRANT_F_ALL, 0, 0, &answer));
  g_assert_cmpuint (answer.status, ==, DOMYBS_OK);
  /* the only connection that it can ever have is over: so is it */
  fe_disconnect (fe);
  g_assert_true (backend_wait_end (backend, fe_patience_ms ()));
  g_assert_cmpstr (backend_end_text (backend), ==, "exit 0");
}

static void
takes_a_listening_socket (void) {
  static const char *const arguments[] = { "--window=2G", "--host-account=none", NULL };
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  g_autofree char *directory = g_dir_make_tmp ("domybs-listen-XXXXXX", NULL);
  g_autofree char *path = g_build_filename (directory, "socket", NULL);
  const int fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

  strcpy (address.sun_path, path);
  g_assert_cmpint (bind (fd, (const struct sockaddr *)&address, sizeof address), ==, 0);
  g_assert_cmpint (listen (fd, 4), ==, 0);
  g_autoptr (backend_t) backend = backend_start_fd (fd, arguments);
  close (fd);
  for (int i = 0; i < 2; i++) {
    g_autoptr (fe_t) fe = fe_new ();

    fe_must (fe, fe_open (fe, path));
  }
  g_unlink (path);
  g_rmdir (directory);
}

/* A violation of the protocol ends the connection, not the process that still has the guest's window to look after. */
static void
stays_when_it_hangs_up_itself (void) {
  static const char *const arguments[] = { "--window=2G", "--host-account=none", "--audit-interval=100", NULL };
  g_autoptr (fe_t) fe = fe_new ();
  const uint32_t nonsense[3] = { 4711, 1, 0 };
  struct stat st;
  int pair[2];

  g_assert_cmpint (socketpair (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), ==, 0);
  g_autoptr (backend_t) backend = backend_start_fd (pair[1], arguments);
  close (pair[1]);
  fe->sock = pair[0];
  for (enum fe_step step = FE_STEP_GET_FEATURES; step <= FE_STEP_HELLO; step++)
    fe_must (fe, fe_step (fe, step, NULL));
  fe_must (fe, fe_send_raw (fe, fe->sock, nonsense, sizeof nonsense, NULL, 0));
  fe_must (fe, fe_wait_closed (fe, fe_patience_ms ()));
  g_usleep (50000);
  g_assert_true (backend_is_alive (backend));
  memset (fe_block (fe, 5), 1, DOMYBS_BLOCK_BYTES);
  for (const int64_t deadline = fe_now_ms () + fe_patience_ms ();; g_usleep (5000)) {
    g_assert_cmpint (fstat (fe->window.fd, &st), ==, 0);
    if (st.st_blocks == 0)
      break;
    g_assert_cmpint (fe_now_ms (), <, deadline);
  }
}

static void
replaces_a_dead_socket_file (void) {
  static const char *const arguments[] = { "--window=2G", "--host-account=none", NULL };
  g_autoptr (backend_t) first = backend_start (arguments);
  g_autoptr (fe_t) fe = fe_new ();
  g_autoptr (fe_t) again = fe_new ();
  g_autofree char *same_path = NULL;

  fe_must (fe, fe_open (fe, first->socket_path));
  same_path = g_strdup_printf ("--socket-path=%s", first->socket_path);
  {
    /* in use: refused, and the first one keeps its socket */
    g_autofree char *out = NULL, *err = NULL;

    g_assert_cmpint (run (ARGUMENTS ("--window=2G", "--host-account=none", same_path), &out, &err), !=, 0);
    g_assert_true (g_file_test (first->socket_path, G_FILE_TEST_EXISTS));
  }
  backend_kill (first);
  g_assert_true (g_file_test (first->socket_path, G_FILE_TEST_EXISTS));
  const char *const here[] = { "--window=2G", "--host-account=none", same_path, NULL };
  g_autoptr (backend_t) second = backend_start (here); /* the later of two --socket-path counts */
  fe_must (again, fe_open (again, first->socket_path));
}

static void
ends_on_sigterm_with_a_guest (void) {
  static const char *const arguments[] = { "--window=2G", "--host-account=none", NULL };
  g_autoptr (backend_t) backend = backend_start (arguments);
  g_autoptr (fe_t) fe = fe_new ();
  struct fe_answer answer;

  fe_must (fe, fe_open (fe, backend->socket_path));
  fe_must (fe, fe_grant (fe, 4, DOMYBS_HINT_ANY, 0, 0, 0, &answer));
  g_assert_cmpint (backend_stop (backend), ==, 0);
  g_assert_false (g_file_test (backend->socket_path, G_FILE_TEST_EXISTS));
  g_assert_false (g_file_test (backend->control_path, G_FILE_TEST_EXISTS));
}

static void
populates_what_it_grants (void) {
  static const char *const arguments[] = { "--window=2G", "--host-account=none", "--grant=populate", NULL };
  g_autoptr (backend_t) backend = backend_start (arguments);
  g_autoptr (fe_t) fe = fe_new ();
  struct fe_answer answer;
  struct stat st;

  fe_must (fe, fe_open (fe, backend->socket_path));
  fe_must (fe, fe_grant (fe, 20, DOMYBS_HINT_ANY, DOMYBS_GRANT_F_ALL, 0, 0, &answer));
  g_assert_cmpuint (answer.status, ==, DOMYBS_OK);
  g_assert_cmpint (fstat (fe->window.fd, &st), ==, 0);
  g_assert_cmpint (st.st_blocks * 512, ==, 20 * (int64_t)DOMYBS_BLOCK_BYTES);
  for (uint64_t block = 0; block < 20; block++)
    g_assert_cmpuint (*(uint64_t *)(void *)fe_block (fe, answer.runs[0].start + block), ==, 0);
  fe_must (fe, fe_release (fe, answer.runs, answer.count, &answer));
  g_assert_cmpint (fstat (fe->window.fd, &st), ==, 0);
  g_assert_cmpint (st.st_blocks, ==, 0);
}

static void
keeps_to_the_vms_limit (void) {
  static const char *const arguments[] = { "--window=2G", "--host-account=none", "--local-max=100M", "--target=50M", "--numa-node=1",
                                           "--grow-min=16M", NULL };
  g_autoptr (backend_t) backend = backend_start (arguments);
  g_autoptr (fe_t) fe = fe_new ();
  struct domybs_config config;
  struct fe_answer answer;

  fe_must (fe, fe_open (fe, backend->socket_path));
  fe_must (fe, fe_get_config (fe, &config));
  g_assert_cmpuint (GUINT64_FROM_LE (config.max_blocks), ==, 50);
  g_assert_cmpuint (GUINT64_FROM_LE (config.target_blocks), ==, 25);
  g_assert_cmpuint (GUINT32_FROM_LE (config.grow_min_blocks), ==, 8);
  g_assert_cmpuint (GUINT32_FROM_LE (config.numa_pxm), ==, 1);
  g_assert_cmpuint (GUINT16_FROM_LE (config.flags), ==, DOMYBS_CONFIG_F_TARGET | DOMYBS_CONFIG_F_NUMA_NODE);
  fe_must (fe, fe_grant (fe, 51, DOMYBS_HINT_ANY, DOMYBS_GRANT_F_ALL, 0, 0, &answer));
  g_assert_cmpuint (answer.status, ==, DOMYBS_NO_VM_CAPACITY);
  fe_must (fe, fe_grant (fe, 51, DOMYBS_HINT_ANY, 0, 0, 0, &answer));
  g_assert_cmpuint (answer.blocks, ==, 50);
}

/* A host that has less left than it keeps for itself grants nothing. */
static void
keeps_the_hosts_reserve (void) {
  static const char *const arguments[] = { "--window=2G", "--host-account=none", "--host-reserve=100T", NULL };
  g_autoptr (backend_t) backend = backend_start (arguments);
  g_autoptr (fe_t) fe = fe_new ();
  struct fe_answer answer;

  fe_must (fe, fe_open (fe, backend->socket_path));
  fe_must (fe, fe_grant (fe, 1, DOMYBS_HINT_ANY, 0, 0, 0, &answer));
  g_assert_cmpuint (answer.status, ==, DOMYBS_NO_HOST_CAPACITY);
}

static void
window_of_a_tebibyte (void) {
  static const char *const arguments[] = { "--window=1T", "--host-account=none", "--host-limit=4T", NULL };
  g_autoptr (backend_t) backend = backend_start (arguments);
  g_autoptr (fe_t) fe = fe_new ();
  struct fe_answer answer;

  fe_must (fe, fe_steps_to (fe, FE_STEP_ENABLE, backend->socket_path));
  fe_must (fe, fe_hello (fe, 1024, &answer));
  g_assert_cmpuint (answer.status, ==, DOMYBS_OK);
  fe_must (fe, fe_grant (fe, 10, DOMYBS_HINT_ANY, DOMYBS_GRANT_F_ALL, 523000, 20, &answer));
  g_assert_cmpuint (answer.status, ==, DOMYBS_OK);
  memset (fe_block (fe, answer.runs[0].start), 1, 4096);
}

int
main (int argc, char **argv) {
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/program/prints-its-capabilities", prints_its_capabilities);
  g_test_add_func ("/program/prints-its-version", prints_its_version);
  g_test_add_func ("/program/refuses-bad-options", refuses_bad_options);
  g_test_add_func ("/program/socket-has-its-rights", socket_has_its_rights);
  g_test_add_func ("/program/socket-has-its-group", socket_has_its_group);
  g_test_add_func ("/program/socket-of-a-forbidden-group", socket_of_a_forbidden_group);
  g_test_add_func ("/program/socket-is-never-wider", socket_is_never_wider);
  g_test_add_func ("/program/control-socket-is-private", control_socket_is_private);
  g_test_add_func ("/program/takes-a-connected-socket", takes_a_connected_socket);
  g_test_add_func ("/program/takes-a-listening-socket", takes_a_listening_socket);
  g_test_add_func ("/program/stays-when-it-hangs-up-itself", stays_when_it_hangs_up_itself);
  g_test_add_func ("/program/replaces-a-dead-socket-file", replaces_a_dead_socket_file);
  g_test_add_func ("/program/ends-on-sigterm-with-a-guest", ends_on_sigterm_with_a_guest);
  g_test_add_func ("/program/populates-what-it-grants", populates_what_it_grants);
  g_test_add_func ("/program/keeps-to-the-vms-limit", keeps_to_the_vms_limit);
  g_test_add_func ("/program/keeps-the-hosts-reserve", keeps_the_hosts_reserve);
  g_test_add_func ("/program/window-of-a-tebibyte", window_of_a_tebibyte);
  return g_test_run ();
}
