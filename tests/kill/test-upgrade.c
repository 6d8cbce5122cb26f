/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The worker is replaced under load: by the same program, by the version of the state before and by the current one again, and by what is
 * no worker at all, which must leave the old one where it is. $DOMYBS_BACKEND is the current program, $DOMYBS_BACKEND_BEFORE the other;
 * the back-end runs from a copy, that upgrades overwrite as a package manager does.
 */
#include "stage.h"
#include "testing.h"

#include <string.h>
#include <unistd.h>

#include <glib/gstdio.h>

#define ROUNDS 12

static char *directory, *installed, *current, *before;

/* As an installation does: whoever runs the old file goes on running it. */
static void
install (const char *program) {
  g_autofree char *new_path = g_strconcat (installed, ".new", NULL);
  g_autofree char *bytes = NULL;
  g_autoptr (GError) error = NULL;
  gsize n;

  g_file_get_contents (program, &bytes, &n, &error);
  g_assert_no_error (error);
  g_file_set_contents_full (new_path, bytes, (gssize)n, G_FILE_SET_CONTENTS_NONE, 0755, &error);
  g_assert_no_error (error);
  g_assert_cmpint (g_rename (new_path, installed), ==, 0);
}

/* Says command; NULL: the connection ended, as it does when the next worker takes over; else the error's text. */
static char *
replace (struct stage *stage, const char *command) {
  g_autofree char *line = g_strdup_printf ("{\"execute\":\"%s\"}\n", command);
  const int fd = control_open (stage->backend);
  g_autoptr (JsonNode) answer = NULL;

  g_assert_cmpint (write (fd, line, strlen (line)), ==, (gssize)strlen (line));
  answer = control_read (fd, 3 * fe_patience_ms ());
  close (fd);
  if (!answer)
    return NULL;
  return g_strdup (json_object_get_string_member (json_object_get_object_member (json_node_get_object (answer), "error"), "desc"));
}

static gint64
worker_number (struct stage *stage, const char *member) {
  g_autoptr (JsonNode) node = backend_control_again (stage->backend, "{\"execute\":\"status\"}");
  JsonObject *status = json_object_get_object_member (json_node_get_object (node), "return");

  return json_object_get_int_member (json_object_get_object_member (status, "worker"), member);
}

static void
work (struct stage *stage) {
  for (int i = 0; i < 40; i++)
    stage_act (stage);
  for (int i = 0; i < 8 && guest_has_slot (stage->guest) && stage->guest->session; i++)
    guest_submit_random (stage->guest); /* in flight over what comes now */
}

static void
begin (struct stage *stage) {
  static const char *const none[] = { NULL };

  install (current);
  g_setenv ("DOMYBS_BACKEND", installed, TRUE);
  stage_begin (stage, none);
  stage->guest->max_blocks = 1024;
  stage->guest->host_blocks = UINT64_MAX;
  stage->guest->block_cost = GUEST_BYTES_TOUCHED;
}

static void
restarts (void) {
  struct stage stage;

  begin (&stage);
  for (int i = 1; i <= ROUNDS; i++) {
    work (&stage);
    g_assert_null (replace (&stage, "restart"));
    g_assert_cmpint (worker_number (&stage, "starts"), ==, i + 1);
    stage_check (&stage);
  }
  stage_end (&stage);
}

static void
goes_back_and_forth (void) {
  struct stage stage;

  begin (&stage);
  for (int i = 0; i < ROUNDS; i++) {
    const gboolean back = i % 2 == 0;

    work (&stage);
    install (back ? before : current);
    g_assert_null (replace (&stage, "upgrade"));
    g_assert_cmpint (worker_number (&stage, "state-version"), ==, back ? 1 : 2);
    work (&stage);
    stage_check (&stage);
  }
  stage_end (&stage);
}

static void
refuses_what_is_no_worker (void) {
  static const char *const others[] = { "/bin/false", "/bin/cat", "/etc/hostname" };
  struct stage stage;

  begin (&stage);
  for (size_t i = 0; i < G_N_ELEMENTS (others); i++) {
    const pid_t worker = backend_worker (stage.backend);
    g_autofree char *why = NULL;

    work (&stage);
    install (others[i]);
    why = replace (&stage, "upgrade");
    g_test_message ("%s: %s", others[i], why);
    g_assert_nonnull (why);
    g_assert_cmpint (backend_worker (stage.backend), ==, worker);
    work (&stage);
    stage_check (&stage);
  }
  stage_end (&stage);
}

static void
clean_up (void) {
  g_unlink (installed);
  g_rmdir (directory);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  current = backend_program ();
  before = g_strdup (g_getenv ("DOMYBS_BACKEND_BEFORE"));
  g_assert_nonnull (before);
  directory = g_dir_make_tmp ("domybs-upgrade-XXXXXX", NULL);
  installed = g_build_filename (directory, "domybs-backend", NULL);
  atexit (clean_up);
  g_test_add_func ("/kill/upgrade/restarts", restarts);
  g_test_add_func ("/kill/upgrade/goes-back-and-forth", goes_back_and_forth);
  g_test_add_func ("/kill/upgrade/refuses-what-is-no-worker", refuses_what_is_no_worker);
  return g_test_run ();
}
