/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The worker is replaced under load: by the same program, by the version of the state before and by the current one again, and by what is
 * no worker at all or reads other versions of the state only, which must leave the old one where it is. $DOMYBS_BACKEND is the current
 * program (2), $DOMYBS_BACKEND_BEFORE the one before (1), $DOMYBS_BACKEND_NEXT and _AFTER_NEXT (3, 4) come later; the back-end runs from
 * a copy, that upgrades overwrite as a package manager does.
 */
#include "stage.h"
#include "testing.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <glib/gstdio.h>

#include "core/device-state.h"

#define ROUNDS 12

static char *directory, *installed, *current, *before, *next, *after_next;

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

/* Upgrades to a program, under load; why it was refused, NULL: it was not. Refused is refused: the worker that there was goes on. */
static char *
upgrade_to (struct stage *stage, const char *program, gint64 expected_version) {
  const pid_t worker = backend_worker (stage->backend);
  char *why;

  work (stage);
  install (program);
  why = replace (stage, "upgrade");
  if (why)
    g_assert_cmpint (backend_worker (stage->backend), ==, worker);
  g_assert_cmpint (worker_number (stage, "state-version"), ==, expected_version);
  work (stage);
  stage_check (stage);
  return why;
}

/* From 2 to 4 and back only by way of 3: version 4 reads nothing older than 3, and nothing older than 3 reads 4's. */
static void
refuses_what_reads_other_versions (void) {
  g_autofree char *too_old = NULL, *too_new = NULL, *log = NULL;
  struct stage stage;

  begin (&stage);
  too_old = upgrade_to (&stage, after_next, 2);
  g_assert_nonnull (too_old);
  g_assert_null (upgrade_to (&stage, next, 3));
  g_assert_null (upgrade_to (&stage, after_next, 4));
  too_new = upgrade_to (&stage, current, 4);
  g_assert_nonnull (too_new);
  g_test_message ("the operator is told: %s; %s", too_old, too_new);
  log = backend_log_from (stage.backend, 0);
  g_assert_nonnull (strstr (log, "the device's state has version 2; this program ("));
  g_assert_nonnull (strstr (log, ") reads versions from 3 on: one between them has to come first"));
  g_assert_nonnull (strstr (log, "the device's state has version 4, which versions from 3 on can read; this program ("));
  g_assert_nonnull (strstr (log, ") reads up to version 2"));
  g_assert_null (upgrade_to (&stage, next, 3));
  g_assert_null (upgrade_to (&stage, current, 2));
  stage_end (&stage);
}

/* The keeper's descriptor of the state, mapped. */
static struct state_header *
map_state (struct backend *backend) {
  g_autofree char *folder = g_strdup_printf ("/proc/%d/fd", (int)backend->pid);
  g_autoptr (GDir) descriptors = g_dir_open (folder, 0, NULL);
  const char *name;
  void *memory = MAP_FAILED;

  g_assert_nonnull (descriptors);
  while (memory == MAP_FAILED && (name = g_dir_read_name (descriptors))) {
    g_autofree char *path = g_build_filename (folder, name, NULL);
    g_autofree char *target = g_file_read_link (path, NULL);
    const int fd = target && g_str_has_prefix (target, "/memfd:domybs-state") ? open (path, O_RDWR | O_CLOEXEC) : -1;

    if (fd < 0)
      continue;
    memory = mmap (NULL, sizeof (struct state_header), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close (fd);
  }
  g_assert_true (memory != MAP_FAILED);
  return memory;
}

/* No worker there is can read the state that the last one left: each says so and changes nothing, others are tried after pauses that
 * grow, and the first that can read it goes on as if nothing had been. */
static void
waits_for_a_worker_that_can_read (void) {
  static const char *const refusals[] = { "the device's state has version 9, which versions from 8 on can read", "; 5 in a row" };
  struct state_header *header;
  uint64_t versions, committed, done;
  uint16_t used;
  struct stage stage;
  size_t mark;
  pid_t worker;

  begin (&stage);
  work (&stage);
  guest_drain (stage.guest);
  stage_check (&stage);
  header = map_state (stage.backend);
  memcpy (&versions, &header->version, sizeof versions);
  worker = backend_worker (stage.backend);
  g_assert_true (testing_stop (worker)); /* it must not write to what is written here */
  mark = backend_log_size (stage.backend);
  header->version = 9;
  header->oldest_reader = 8;
  g_assert_true (backend_kill_worker (worker));
  committed = header->committed;
  done = header->done;
  guest_submit_stats (stage.guest, 3);
  used = stage.guest->fe->queues[DOMYBS_VQ_REQUEST].used[1];
  for (size_t i = 0; i < G_N_ELEMENTS (refusals); i++)
    g_assert_true (backend_wait_log (stage.backend, mark, refusals[i], 2 * fe_patience_ms ()));
  g_assert_cmpuint (stage.guest->fe->queues[DOMYBS_VQ_REQUEST].used[1], ==, used);
  g_assert_cmpuint (header->version, ==, 9);
  g_assert_cmpuint (header->committed, ==, committed);
  g_assert_cmpuint (header->done, ==, done);
  g_assert_true (backend_is_alive (stage.backend));
  memcpy (&header->version, &versions, sizeof versions);
  munmap (header, sizeof *header);
  guest_drain (stage.guest);
  work (&stage);
  g_atomic_int_set (&stage.reaper.kills, (gint)worker_number (&stage, "deaths")); /* how many it took */
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
  next = g_strdup (g_getenv ("DOMYBS_BACKEND_NEXT"));
  after_next = g_strdup (g_getenv ("DOMYBS_BACKEND_AFTER_NEXT"));
  g_assert_true (before && next && after_next);
  directory = g_dir_make_tmp ("domybs-upgrade-XXXXXX", NULL);
  installed = g_build_filename (directory, "domybs-backend", NULL);
  atexit (clean_up);
  g_test_add_func ("/kill/upgrade/restarts", restarts);
  g_test_add_func ("/kill/upgrade/goes-back-and-forth", goes_back_and_forth);
  g_test_add_func ("/kill/upgrade/refuses-what-is-no-worker", refuses_what_is_no_worker);
  g_test_add_func ("/kill/upgrade/refuses-what-reads-other-versions", refuses_what_reads_other_versions);
  g_test_add_func ("/kill/upgrade/waits-for-a-worker-that-can-read", waits_for_a_worker_that_can_read);
  return g_test_run ();
}
