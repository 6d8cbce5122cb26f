/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Shared memory that is full. With --grant=populate a granted block has its memory: no touch of it can be SIGBUS. So a grant
 * that can't be populated, at its first byte, in the middle, or in the last of its runs, is refused as a whole and with the
 * reason, and the window costs what it cost before. With --grant=reserve a grant touches nothing, and there is nothing to fail.
 */
#include "fault-rig.h"
#include "testing.h"

#include <errno.h>
#include <sys/stat.h>

static const char *const populate[] = { "--grant=populate", "--local-max=200M", "--audit-interval=0", NULL };

static uint64_t
window_cost (struct guest *guest) {
  struct stat st;

  g_assert_cmpint (fstat (guest->fe->window.fd, &st), ==, 0);
  return (uint64_t)st.st_blocks * 512;
}

static const char *
refused_reason (struct stage *stage, char **ret_text) {
  g_autoptr (JsonNode) node = backend_control_again (stage->backend, "{\"execute\":\"status\"}");
  JsonObject *status = json_object_get_object_member (json_node_get_object (node), "return");
  JsonNode *reason = json_object_get_member (status, "refused-reason");

  *ret_text = JSON_NODE_HOLDS_VALUE (reason) ? g_strdup (json_node_get_string (reason)) : g_strdup ("");
  return *ret_text;
}

struct shortage {
  const char *name;
  int populate_error; /* EINVAL: a kernel without it; fallocate does it then */
  int fallocate_error;
  uint32_t percent;   /* of the run that fails */
  unsigned run;       /* which one fails, from 1 on */
  uint32_t flags;
};

static const struct shortage shortages[] = {
  { "at-the-first-byte", EFAULT, 0, 0, 1, 0 },
  { "in-the-middle", EFAULT, 0, 50, 1, 0 },
  { "in-the-last-page", ENOMEM, 0, 99, 1, DOMYBS_GRANT_F_ALL },
  { "in-the-second-run", ENOMEM, 0, 50, 2, 0 },
  { "in-the-third-run", EFAULT, 0, 0, 3, DOMYBS_GRANT_F_ALL },
  { "of-a-broken-page", EHWPOISON, 0, 30, 2, 0 },
  { "to-fallocate", EINVAL, ENOSPC, 0, 1, 0 },
  { "to-fallocate-in-the-middle", EINVAL, ENOSPC, 50, 1, DOMYBS_GRANT_F_ALL },
  { "to-fallocate-in-the-second-run", EINVAL, ENOMEM, 50, 2, 0 },
};

static void
arm (const struct shortage *shortage) {
  if (shortage->fallocate_error) {
    fault_arm (FAULT_WORKER, FAULT_POPULATE, 1, 1000, shortage->populate_error, 0);
    fault_arm (FAULT_WORKER, FAULT_FALLOCATE, shortage->run, 1, shortage->fallocate_error, shortage->percent);
  } else {
    fault_arm (FAULT_WORKER, FAULT_POPULATE, shortage->run, 1, shortage->populate_error, shortage->percent);
  }
}

static uint64_t
disarm (const struct shortage *shortage) {
  const uint64_t populates = fault_disarm (FAULT_WORKER, FAULT_POPULATE), fallocates = fault_disarm (FAULT_WORKER, FAULT_FALLOCATE);

  return shortage->fallocate_error ? fallocates : populates;
}

/* Every other block is taken: what comes next has several runs. */
static void
leave_holes (struct guest *guest) {
  for (uint64_t block = 1; block < 12; block += 2) {
    guest_submit_grant (guest, 1, DOMYBS_HINT_ANY, 0, block, 1);
    guest_drain (guest);
    g_assert_cmpuint (guest->keys[block], !=, 0);
  }
}

static void
grant_that_fails (gconstpointer data) {
  const struct shortage *shortage = data;
  g_autofree char *reason = NULL;
  struct stage stage;
  uint64_t before, granted;
  size_t mark;

  fault_begin (&stage, populate, 100, DOMYBS_BLOCK_BYTES);
  stage.guest->roomy = true;
  leave_holes (stage.guest);
  before = window_cost (stage.guest);
  granted = stage.guest->n_granted;
  g_assert_cmpuint (before, ==, granted * DOMYBS_BLOCK_BYTES);
  mark = backend_log_size (stage.backend);
  arm (shortage);
  stage.guest->poor_host = true;
  guest_submit_grant (stage.guest, 6, DOMYBS_HINT_ANY, shortage->flags, 0, 24);
  guest_drain (stage.guest);
  g_assert_cmpuint (disarm (shortage), ==, 1);
  g_assert_cmpuint (stage.guest->last_status, ==, DOMYBS_NO_HOST_CAPACITY);
  g_assert_cmpuint (stage.guest->n_granted, ==, granted);
  g_assert_cmpuint (window_cost (stage.guest), ==, before); /* nobody has audited */
  g_assert_cmpstr (refused_reason (&stage, &reason), ==, "populate");
  g_assert_true (backend_wait_log (stage.backend, mark, "can't populate", fe_patience_ms ()));
  g_assert_cmpuint (fault_check (&stage), ==, 0);
  /* It was a moment's shortage: the same grant comes through, and all of it is there. */
  stage.guest->poor_host = false;
  guest_submit_grant (stage.guest, 6, DOMYBS_HINT_ANY, shortage->flags, 0, 24);
  guest_drain (stage.guest);
  g_assert_cmpuint (stage.guest->n_granted, ==, granted + 6);
  g_assert_cmpuint (window_cost (stage.guest), ==, stage.guest->n_granted * DOMYBS_BLOCK_BYTES);
  fault_end (&stage);
}

/* What was populated for the grant can't be taken back at once, either: an audit does, and no grant gets at it before it was
 * emptied. */
static void
punch_that_fails (void) {
  struct stage stage;

  fault_begin (&stage, populate, 100, DOMYBS_BLOCK_BYTES);
  fault_arm (FAULT_WORKER, FAULT_POPULATE, 1, 1, EFAULT, 50);
  fault_arm (FAULT_WORKER, FAULT_PUNCH, 1, 1, ENOMEM, 0);
  stage.guest->poor_host = true;
  guest_submit_grant (stage.guest, 8, DOMYBS_HINT_ANY, 0, 0, 0);
  guest_drain (stage.guest);
  g_assert_cmpuint (stage.guest->last_status, ==, DOMYBS_NO_HOST_CAPACITY);
  g_assert_cmpuint (fault_disarm (FAULT_WORKER, FAULT_PUNCH), ==, 1);
  fault_disarm (FAULT_WORKER, FAULT_POPULATE);
  g_assert_cmpuint (window_cost (stage.guest), >, 0);
  stage.guest->poor_host = false;
  fault_end (&stage); /* asks for an audit, and compares */
}

/* A RELEASE whose blocks can't be emptied is done all the same: they cost until an audit, and are empty before anybody is
 * granted them. */
static void
release_that_fails (void) {
  struct stage stage;

  fault_begin (&stage, populate, 100, DOMYBS_BLOCK_BYTES);
  guest_submit_grant (stage.guest, 4, DOMYBS_HINT_ANY, 0, 0, 4);
  guest_drain (stage.guest);
  fault_arm (FAULT_WORKER, FAULT_PUNCH, 1, 1000, ENOMEM, 0);
  while (!guest_submit_release (stage.guest, 100, 4))
    ;
  guest_drain (stage.guest);
  g_assert_cmpuint (stage.guest->last_status, ==, DOMYBS_OK);
  /* … what was in them must not come back */
  stage.guest->poor_host = true;
  guest_submit_grant (stage.guest, 4, DOMYBS_HINT_ANY, 0, 0, 4);
  guest_drain (stage.guest);
  g_assert_cmpuint (fault_disarm (FAULT_WORKER, FAULT_PUNCH), >, 0);
  stage.guest->poor_host = false;
  fault_end (&stage);
}

/* Every grant of a random load fails at a random place, or not: and nothing costs that is not granted, nothing is granted that
 * does not. */
static void
random_shortages (void) {
  uint64_t failed = 0, granted = 0;
  struct stage stage;

  fault_begin (&stage, populate, 100, DOMYBS_BLOCK_BYTES);
  stage.guest->poor_host = true;
  for (int i = 0; i < 150; i++) {
    const bool full = testing_once_in (stage.random, 2);
    const uint64_t before = stage.guest->n_granted;

    if (full)
      fault_arm (FAULT_WORKER, FAULT_POPULATE, 1 + testing_below (stage.random, 3), 1, testing_once_in (stage.random, 2) ? EFAULT : ENOMEM,
                 (uint32_t)testing_below (stage.random, 101));
    guest_submit_grant (stage.guest, 1 + testing_below (stage.random, 9), DOMYBS_HINT_ANY, 0, testing_below (stage.random, 60), 30);
    guest_drain (stage.guest);
    failed += fault_disarm (FAULT_WORKER, FAULT_POPULATE);
    granted += stage.guest->n_granted > before;
    g_assert_cmpuint (window_cost (stage.guest), ==, stage.guest->n_granted * DOMYBS_BLOCK_BYTES);
    if (stage.guest->n_granted > 60 || testing_once_in (stage.random, 3)) {
      guest_submit_release (stage.guest, 60, 3);
      guest_drain (stage.guest);
    }
  }
  g_test_message ("%" G_GUINT64_FORMAT " grants failed, %" G_GUINT64_FORMAT " came through", failed, granted);
  g_assert_cmpuint (failed, >, 10);
  g_assert_cmpuint (granted, >, 10);
  stage.guest->poor_host = false;
  fault_end (&stage);
}

/* The worker dies while it populates: the next one takes it back, and does the grant. */
static void
dies_while_it_populates (void) {
  struct stage stage;

  fault_begin (&stage, populate, 100, DOMYBS_BLOCK_BYTES);
  for (int i = 0; i < 10; i++) {
    const pid_t worker = backend_wait_worker (stage.backend, 0, fe_patience_ms ());

    /* It goes on asking for as long as it is told EAGAIN, with half of the run populated: there it is killed. */
    fault_arm (FAULT_WORKER, FAULT_POPULATE, 1, UINT64_MAX / 2, EAGAIN, 50);
    guest_submit_grant (stage.guest, 5, DOMYBS_HINT_ANY, 0, 0, 0);
    fault_wait_failed (&stage, FAULT_WORKER, FAULT_POPULATE, 3);
    g_assert_cmpuint (window_cost (stage.guest), >, stage.guest->n_granted * DOMYBS_BLOCK_BYTES);
    fault_disarm (FAULT_WORKER, FAULT_POPULATE);
    if (backend_kill_worker (worker))
      guest_trace (stage.guest, "killed");
    guest_drain (stage.guest);
    g_assert_cmpuint (stage.guest->last_status, ==, DOMYBS_OK);
    fault_check (&stage);
    while (!guest_submit_release (stage.guest, 100, 5))
      ;
    guest_drain (stage.guest);
  }
  fault_end (&stage);
}

/* Nothing is populated, nothing can fail. */
static void
reserve_touches_nothing (void) {
  static const char *const none[] = { NULL };
  struct stage stage;

  fault_begin (&stage, none, 1024, GUEST_BYTES_TOUCHED);
  fault_arm (FAULT_WORKER, FAULT_POPULATE, 1, UINT64_MAX / 2, ENOMEM, 0);
  fault_arm (FAULT_WORKER, FAULT_FALLOCATE, 1, UINT64_MAX / 2, ENOSPC, 0);
  for (int i = 0; i < 40; i++) {
    guest_submit_grant (stage.guest, 10, DOMYBS_HINT_ANY, 0, 0, 0);
    guest_submit_release (stage.guest, 40, 20);
    guest_drain (stage.guest);
  }
  g_assert_cmpuint (fault_disarm (FAULT_WORKER, FAULT_POPULATE), ==, 0);
  g_assert_cmpuint (fault_disarm (FAULT_WORKER, FAULT_FALLOCATE), ==, 0);
  fault_end (&stage);
}

int
main (int argc, char **argv) {
  fault_init (&argc, &argv);
  for (size_t i = 0; i < G_N_ELEMENTS (shortages); i++) {
    g_autofree char *name = g_strconcat ("/fault/populate/short/", shortages[i].name, NULL);

    g_test_add_data_func (name, &shortages[i], grant_that_fails);
  }
  g_test_add_func ("/fault/populate/punch-that-fails", punch_that_fails);
  g_test_add_func ("/fault/populate/release-that-fails", release_that_fails);
  g_test_add_func ("/fault/populate/random-shortages", random_shortages);
  g_test_add_func ("/fault/populate/dies-while-it-populates", dies_while_it_populates);
  g_test_add_func ("/fault/populate/reserve-touches-nothing", reserve_touches_nothing);
  return g_test_run ();
}
