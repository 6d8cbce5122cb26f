/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Far memory ahead of need: a guest's driver tells its memory device (domybs-backend) how much far memory is to be ready beyond
 * what is in use, and domybs-far sees to it. Both programs, either of which may lose its worker at any moment, and storage that
 * has no more.
 */
#include "far.h"
#include "frontend.h"
#include "rig.h"
#include "testing.h"

#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include <glib/gstdio.h>

#define SHARED_BLOCKS 256u
#define BLOCK_PAGES 512u
#define SHARED 0u /* disks of domybs-far; in the backend's status, too */
#define REMOTE 1u

struct stage {
  struct backend *backend;
  struct far *far;
  struct fe *fe;
  struct blk *blk;
};

static const char *const backend_arguments[] = { "--window=2G", "--host-account=none", NULL };

/* both: REMOTE, too. storage NULL: a file in the test's folder. */
static void
start_far (struct stage *s, const char *storage, bool both) {
  g_autofree char *device = g_strdup_printf ("--memory-device=%s", s->backend->control_path);
  const char *arguments[] = { device, "--stage=8M", NULL };
  static const char *const tiers[] = { "shared", "remote", NULL };

  s->far = far_start (&(struct far_options){ .n_disks = both ? 2 : 1,
                                             .bytes = (uint64_t)SHARED_BLOCKS << 21,
                                             .tiers = tiers,
                                             .storage = storage,
                                             .arguments = arguments });
}

static void
open_stage (struct stage *s) {
  *s = (struct stage){ .backend = backend_start (backend_arguments), .fe = fe_new () };
  fe_must (s->fe, fe_open (s->fe, s->backend->socket_path));
}

static void
close_stage (struct stage *s) {
  g_clear_pointer (&s->blk, blk_free);
  g_clear_pointer (&s->fe, fe_free);
  g_clear_pointer (&s->far, far_end);
  g_clear_pointer (&s->backend, backend_free);
}

/* ---- what both sides say ---- */

/* A member of a tier in the backend's status; INT64_MIN: there is none, or null. */
static int64_t
device_says (struct stage *s, unsigned tier, const char *member) {
  g_autoptr (JsonNode) answer = backend_control_again (s->backend, "{\"execute\":\"status\"}");
  JsonObject *status = json_object_get_object_member (json_node_get_object (answer), "return");
  JsonArray *tiers = json_object_get_array_member (json_object_get_object_member (status, "far"), "tiers");

  for (guint i = 0; i < json_array_get_length (tiers); i++) {
    JsonObject *object = json_array_get_object_element (tiers, i);
    JsonNode *node = json_object_get_member (object, member);

    if (strcmp (json_object_get_string_member (object, "tier"), tier == SHARED ? "shared" : "remote") != 0)
      continue;
    if (!node || !JSON_NODE_HOLDS_VALUE (node))
      return INT64_MIN;
    return json_node_get_value_type (node) == G_TYPE_BOOLEAN ? json_node_get_boolean (node) : json_node_get_int (node);
  }
  return INT64_MIN;
}

#define wait_until(condition)                                                                                                  \
  do {                                                                                                                         \
    const int64_t deadline_ = fe_now_ms () + 4 * fe_patience_ms ();                                                            \
    while (!(condition)) {                                                                                                     \
      if (fe_now_ms () > deadline_)                                                                                            \
        g_assertion_message (G_LOG_DOMAIN, __FILE__, __LINE__, G_STRFUNC, "never: " #condition);                               \
      g_usleep (5000);                                                                                                         \
    }                                                                                                                          \
  } while (0)

static unsigned
reserve (struct stage *s, uint32_t tier, uint64_t blocks, uint64_t *ret_ready) {
  struct fe_answer answer;

  fe_must (s->fe, fe_reserve (s->fe, tier, blocks, &answer));
  if (ret_ready)
    *ret_ready = answer.blocks;
  return answer.status;
}

/* As the driver does: asks until it is so. */
static void
must_be_ready (struct stage *s, uint32_t tier, uint64_t blocks) {
  uint64_t ready = 0;

  wait_until (reserve (s, tier, blocks, &ready) == DOMYBS_OK && ready == blocks);
}

static void
wait_connected (struct stage *s) {
  wait_until (far_status_top (s->far, "memory-device.connected") == 1);
}

static void
write_blocks (struct stage *s, unsigned first, unsigned n) {
  g_autofree uint8_t *page = g_malloc (64 * 4096);

  for (unsigned i = 0; i < 64 * 4096; i++)
    page[i] = (uint8_t)g_random_int ();
  for (unsigned at = first * BLOCK_PAGES; at < (first + n) * BLOCK_PAGES; at += 64)
    g_assert_cmpint (blk_io (s->blk, BLK_OUT, at, 64, page), ==, BLK_S_OK);
}

/* ---- stories ---- */

static void
ask_and_get (void) {
  struct domybs_event event;
  struct stage s;

  open_stage (&s);
  fe_post_events (s.fe, 4);
  g_assert_cmpuint (reserve (&s, DOMYBS_HINT_SHARED, 32, NULL), ==, DOMYBS_BUSY); /* nobody is there yet */
  start_far (&s, NULL, false);
  fe_must (s.fe, fe_wait_event (s.fe, DOMYBS_EVENT_OFFER, &event, 4 * fe_patience_ms ())); /* now there is */
  must_be_ready (&s, DOMYBS_HINT_SHARED, 32);
  g_assert_cmpuint (reserve (&s, DOMYBS_HINT_REMOTE, 32, NULL), ==, DOMYBS_NO_TIER);
  g_assert_cmpint (far_status (s.far, SHARED, "reserve-blocks"), ==, 32);
  g_assert_cmpint (far_status (s.far, SHARED, "reserved-blocks"), >=, 32);
  g_assert_cmpint (far_status (s.far, SHARED, "segments.covered"), >=, 32);
  g_assert_cmpint (device_says (&s, SHARED, "blocks"), ==, SHARED_BLOCKS);
  g_assert_cmpint (device_says (&s, SHARED, "reserve-blocks"), ==, 32);
  g_assert_cmpint (device_says (&s, SHARED, "reserved-blocks"), ==, 32);
  /* all that the disk has: the level is beyond that, and no storage is missing */
  wait_until (reserve (&s, DOMYBS_HINT_SHARED, SHARED_BLOCKS + 100, NULL) == DOMYBS_NO_HOST_CAPACITY);
  g_assert_cmpint (device_says (&s, SHARED, "reserved-blocks"), ==, SHARED_BLOCKS);
  must_be_ready (&s, DOMYBS_HINT_SHARED, SHARED_BLOCKS);
  close_stage (&s);
}

/* What is in use moves on, and what is ready with it: not one write waits for room. */
static void
level_moves_with_use (void) {
  struct stage s;
  int64_t covered;

  open_stage (&s);
  start_far (&s, NULL, true);
  wait_connected (&s);
  s.blk = far_connect (s.far, SHARED);
  must_be_ready (&s, DOMYBS_HINT_SHARED, 40);
  covered = far_status (s.far, SHARED, "segments.covered");
  g_assert_cmpint (far_status (s.far, REMOTE, "segments.covered"), ==, 0);
  for (unsigned first = 0; first < 80; first += 20) {
    write_blocks (&s, first, 20);
    wait_until (far_status (s.far, SHARED, "reserved-blocks") >= 40);
  }
  g_assert_cmpint (far_status (s.far, SHARED, "segments.covered"), >=, covered + 60);
  wait_until (device_says (&s, SHARED, "in-use-blocks") == 80 && device_says (&s, SHARED, "reserved-blocks") == 40);
  /* Level 0: no more is made ready. */
  g_assert_cmpuint (reserve (&s, DOMYBS_HINT_SHARED, 0, NULL), ==, DOMYBS_OK);
  wait_until (far_status (s.far, SHARED, "reserve-blocks") == 0);
  covered = far_status (s.far, SHARED, "segments.covered");
  g_assert_cmpint (blk_io (s.blk, BLK_T_DISCARD, 0, 20 * BLOCK_PAGES, NULL), ==, BLK_S_OK);
  write_blocks (&s, 0, 20);
  g_assert_cmpint (far_status (s.far, SHARED, "segments.covered"), ==, covered);
  close_stage (&s);
}

static void
levels_end_with_the_guest (void) {
  struct stage s;

  open_stage (&s);
  start_far (&s, NULL, true);
  wait_connected (&s);
  must_be_ready (&s, DOMYBS_HINT_SHARED, 16);
  must_be_ready (&s, DOMYBS_HINT_REMOTE, 8);
  fe_must (s.fe, fe_bye (s.fe, NULL));
  wait_until (far_status (s.far, SHARED, "reserve-blocks") == 0 && far_status (s.far, REMOTE, "reserve-blocks") == 0);
  fe_must (s.fe, fe_hello (s.fe, 64, NULL));
  must_be_ready (&s, DOMYBS_HINT_SHARED, 16);
  fe_must (s.fe, fe_hello (s.fe, 64, NULL)); /* another driver */
  wait_until (far_status (s.far, SHARED, "reserve-blocks") == 0);
  must_be_ready (&s, DOMYBS_HINT_SHARED, 16);
  fe_disconnect (s.fe); /* QEMU has gone */
  wait_until (far_status (s.far, SHARED, "reserve-blocks") == 0);
  close_stage (&s);
}

static void
kill_device_worker (struct stage *s) {
  const pid_t worker = backend_wait_worker (s->backend, 0, fe_patience_ms ());

  g_assert_cmpint (worker, >, 0);
  backend_kill_worker (worker);
  g_assert_cmpint (backend_wait_worker (s->backend, worker, fe_patience_ms ()), >, 0);
}

/* Whoever lives on tells the other one. */
static void
either_dies (void) {
  struct stage s;

  open_stage (&s);
  start_far (&s, NULL, true);
  wait_connected (&s);
  must_be_ready (&s, DOMYBS_HINT_SHARED, 24);
  for (unsigned i = 0; i < 3; i++) {
    far_kill_worker (s.far);
    wait_until (far_status (s.far, SHARED, "reserve-blocks") == 24);
    g_assert_cmpint (far_status (s.far, SHARED, "reserved-blocks"), >=, 24);
    kill_device_worker (&s);
    wait_until (device_says (&s, SHARED, "reserve-blocks") == 24 && device_says (&s, SHARED, "reserved-blocks") == 24);
    wait_connected (&s);
  }
  /* Both at once: nobody knows, until the guest says it again, as its driver does every half minute. */
  backend_signal_all (s.backend, SIGSTOP);
  far_kill_worker (s.far);
  backend_signal_all (s.backend, SIGCONT);
  kill_device_worker (&s);
  must_be_ready (&s, DOMYBS_HINT_SHARED, 24);
  wait_until (far_status (s.far, SHARED, "reserve-blocks") == 24);
  close_stage (&s);
}

/* Without a memory device the disks are what they always were. */
static void
device_ends (void) {
  struct stage s;

  open_stage (&s);
  start_far (&s, NULL, true);
  wait_connected (&s);
  s.blk = far_connect (s.far, SHARED);
  must_be_ready (&s, DOMYBS_HINT_SHARED, 24);
  g_clear_pointer (&s.fe, fe_free);
  g_assert_cmpint (backend_stop (s.backend), ==, 0);
  wait_until (far_status_top (s.far, "memory-device.connected") == 0);
  write_blocks (&s, 0, 30);
  far_kill_worker (s.far);
  g_clear_pointer (&s.blk, blk_free);
  s.blk = far_connect (s.far, SHARED);
  write_blocks (&s, 10, 30);
  g_assert_true (backend_is_alive (s.far->backend));
  close_stage (&s);
}

static void
storage_has_no_more (void) {
  g_autofree char *directory = g_dir_make_tmp ("domybs-far-XXXXXX", NULL),
                  *storage = g_build_filename (directory, "storage", NULL);
  struct domybs_event event;
  struct stage s;
  uint64_t ready = 0;

  if (mount ("none", directory, "tmpfs", 0, "size=80m") < 0) {
    g_test_skip ("no mounts here");
    g_rmdir (directory);
    return;
  }
  open_stage (&s);
  fe_post_events (s.fe, 4);
  start_far (&s, storage, false);
  wait_connected (&s);
  wait_until (reserve (&s, DOMYBS_HINT_SHARED, 100, &ready) == DOMYBS_NO_HOST_CAPACITY);
  g_assert_cmpuint (ready, >, 20); /* 40 places, but for those kept for cleaning and the file's own end */
  g_assert_cmpuint (ready, <, 40);
  g_assert_cmpint (device_says (&s, SHARED, "full"), ==, 1);
  s.blk = far_connect (s.far, SHARED);
  write_blocks (&s, 0, 10); /* which is what it is for */
  must_be_ready (&s, DOMYBS_HINT_SHARED, 5);
  wait_until (reserve (&s, DOMYBS_HINT_SHARED, 100, &ready) == DOMYBS_NO_HOST_CAPACITY);
  /* Somebody makes room: that is found by and by, and the guest is told. */
  g_assert_cmpint (mount ("none", directory, "tmpfs", MS_REMOUNT, "size=600m"), ==, 0);
  fe_must (s.fe, fe_wait_event (s.fe, DOMYBS_EVENT_OFFER, &event, 8 * fe_patience_ms ()));
  must_be_ready (&s, DOMYBS_HINT_SHARED, 100);
  close_stage (&s);
  g_assert_cmpint (umount2 (directory, MNT_DETACH), ==, 0);
  g_assert_cmpint (g_rmdir (directory), ==, 0);
}

/* A guest that changes its mind all the time costs its domybs-far no more than a line now and then, and the last word counts.
 */
static void
flood (void) {
  struct stage s;
  int64_t deaths;

  open_stage (&s);
  start_far (&s, NULL, true);
  wait_connected (&s);
  deaths = far_status_top (s.far, "worker.deaths");
  for (unsigned i = 0; i < 2000; i++) {
    const unsigned status = reserve (&s, i % 2 ? DOMYBS_HINT_SHARED : DOMYBS_HINT_REMOTE, i % 90, NULL);

    g_assert_true (status == DOMYBS_OK || status == DOMYBS_NO_HOST_CAPACITY);
  }
  must_be_ready (&s, DOMYBS_HINT_SHARED, 12);
  wait_until (far_status (s.far, SHARED, "reserve-blocks") == 12);
  g_assert_cmpint (far_status_top (s.far, "memory-device.connected"), ==, 1);
  g_assert_cmpint (far_status_top (s.far, "worker.deaths"), ==, deaths);
  close_stage (&s);
}

/* Any order of deaths, levels and use: in the end it is as the guest said last. */
static void
random_deaths (void) {
  g_autoptr (GRand) rand = testing_rand ();
  const unsigned steps = testing_steps (25);
  uint64_t level = 0;
  struct stage s;

  open_stage (&s);
  start_far (&s, NULL, true);
  wait_connected (&s);
  for (unsigned i = 0; i < steps; i++) {
    switch (testing_below (rand, 4)) {
    case 0:
      far_kill_worker (s.far);
      break;
    case 1:
      kill_device_worker (&s);
      break;
    default:
      level = testing_below (rand, 60);
      reserve (&s, DOMYBS_HINT_SHARED, level, NULL);
    }
    if (testing_once_in (rand, 3))
      g_usleep ((gulong)testing_below (rand, 60000));
  }
  must_be_ready (&s, DOMYBS_HINT_SHARED, level);
  wait_until (far_status (s.far, SHARED, "reserve-blocks") == (int64_t)level);
  g_assert_cmpint (far_status (s.far, SHARED, "reserved-blocks"), >=, (int64_t)level);
  close_stage (&s);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/far/reserve/a level is asked for, and got", ask_and_get);
  g_test_add_func ("/far/reserve/a level moves with what is in use", level_moves_with_use);
  g_test_add_func ("/far/reserve/levels end with the guest", levels_end_with_the_guest);
  g_test_add_func ("/far/reserve/either worker dies", either_dies);
  g_test_add_func ("/far/reserve/the memory device ends", device_ends);
  g_test_add_func ("/far/reserve/storage has no more", storage_has_no_more);
  g_test_add_func ("/far/reserve/a flood of levels", flood);
  g_test_add_func ("/far/reserve/deaths at random", random_deaths);
  return g_test_run ();
}
