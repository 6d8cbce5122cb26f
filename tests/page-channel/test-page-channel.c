/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The page channel against a donor's own page server, in another process: as it should be, and with trouble at its other end.
 */
#include "channel-scene.h"
#include "testing.h"

#include <errno.h>
#include <string.h>

static const SceneOptions plain = { 0 }, tls = { .tls = TRUE }, plain_proxy = { .proxy = TRUE },
                          tls_proxy = { .tls = TRUE, .proxy = TRUE };

/* Whole blocks, all at once: more than a socket takes at a time. */
static void
all_blocks (Scene *scene, enum page_op op) {
  SceneIo *ios[SCENE_BLOCKS];

  for (guint i = 0; i < SCENE_BLOCKS; i++)
    ios[i] = scene_begin (scene, op, i % 3 ? PAGE_WRITE_OUT : PAGE_PREFETCH, i * 512, 512,
                          op == PAGE_WRITE ? ++scene->next_value : 0, 0);
  page_channel_kick (scene->channel);
  for (guint i = 0; i < SCENE_BLOCKS; i++)
    g_assert_cmpint (scene_end (ios[i]), ==, 0);
}

static void
test_round_trip (gconstpointer data) {
  Scene *scene = scene_new (data);
  PageChannelFigures figures;

  scene_level (scene, SCENE_BLOCKS);
  all_blocks (scene, PAGE_WRITE);
  all_blocks (scene, PAGE_READ);
  scene_load (scene, testing_steps (2000), 0, NULL);
  scene_check_all (scene);
  figures = scene_figures (scene);
  g_assert_cmpuint (scene->unknown + scene->nospace, ==, 0);
  g_assert_cmpuint (figures.errors + figures.reconnects + figures.timeouts, ==, 0);
  g_assert_cmpuint (figures.bytes_read, >, 0);
  for (guint i = 0; i < PAGE_CLASSES; i++) {
    g_assert_cmpuint (figures.requests[i], >, 0);
    g_assert_cmpuint (figures.in_flight[i], ==, 0);
  }
  scene_free (scene);
}

static void
on_bad (PageIo *io, int error) {
  *(int *)io->data = error;
}

static void
test_bounds (void) {
  static guint8 buf[(2u << 20) + SCENE_PAGE];
  const guint64 end = (guint64)SCENE_PAGES * SCENE_PAGE;
  const struct {
    guint64 offset;
    gsize bytes;
  } bad[] = { { 0, 0 },
              { 1, SCENE_PAGE },
              { 0, 100 },
              { end, SCENE_PAGE },
              { end - SCENE_PAGE, 2 * SCENE_PAGE },
              { -(guint64)SCENE_PAGE, SCENE_PAGE },
              { -(guint64)SCENE_PAGE, 2 * SCENE_PAGE },
              { 0, sizeof buf } };
  Scene *scene = scene_new (&plain);

  scene_level (scene, 1);
  for (guint i = 0; i < G_N_ELEMENTS (bad); i++)
    for (enum page_op op = PAGE_READ; op <= PAGE_WRITE; op++) {
      int error = -1;
      PageIo io = { .op = op, .offset = bad[i].offset, .bytes = bad[i].bytes, .buf = buf, .done = on_bad, .data = &error };

      page_channel_submit (scene->channel, &io);
      page_channel_kick (scene->channel);
      g_assert_cmpint (error, ==, -1);
      scene_wait (error >= 0);
      g_assert_cmpint (error, ==, EINVAL);
    }
  scene_free (scene);
}

/* Beyond its level a lease gets nothing, and TRIM makes room in it. */
static void
test_level (void) {
  Scene *scene = scene_new (&plain);

  scene_level (scene, 2);
  g_assert_cmpint (scene_write (scene, PAGE_WRITE_OUT, 0, 1, 1), ==, 0);
  g_assert_cmpint (scene_write (scene, PAGE_WRITE_OUT, 512, 1, 2), ==, 0);
  g_assert_cmpint (scene_write (scene, PAGE_WRITE_OUT, 1024, 1, 3), ==, ENOSPC);
  g_assert_cmpint (scene_trim (scene, 0), ==, 0);
  g_assert_cmpint (scene_write (scene, PAGE_WRITE_OUT, 1024, 1, 3), ==, 0);
  scene_check_all (scene);
  /* what is in use can't be released, until it is not */
  page_channel_want (scene->channel, 0);
  g_assert_cmpint (scene_trim (scene, 1), ==, 0);
  scene_wait (scene_figures (scene).lease.level == 1);
  g_assert_cmpint (scene_trim (scene, 2), ==, 0);
  scene_wait (scene_figures (scene).lease.level == 0);
  scene_free (scene);
}

/* ---- a donor that dies ---- */

#define TROUBLE_STEPS testing_steps (2000)

static guint64 next_trouble;
static guint troubles;

/* Ten of them are certain to come while there is load. */
static void
next_trouble_after (const Scene *scene) {
  const guint64 often = TROUBLE_STEPS / 20;

  next_trouble = scene->ended + often / 2 + testing_below (scene->rand, often);
}

static void
kill_sometimes (Scene *scene) {
  if (scene->ended < next_trouble || troubles == 0)
    return;
  next_trouble_after (scene);
  troubles--;
  donor_process_kill (scene->donor);
  donor_process_start (scene->donor);
}

/* It comes back with its arena: what it had said to have, it has. */
static void
test_kill (gconstpointer data) {
  Scene *scene = scene_new (data);
  guint64 epoch;

  scene_level (scene, SCENE_BLOCKS);
  epoch = scene_figures (scene).lease.epoch;
  next_trouble_after (scene);
  troubles = 8;
  scene_load (scene, TROUBLE_STEPS, 0, kill_sometimes);
  g_assert_cmpuint (troubles, ==, 0);
  g_assert_cmpuint (scene->unknown, >, 0);
  g_assert_cmpuint (scene_figures (scene).lease.epoch, >, epoch);
  scene_wait_state (scene, PAGE_CHANNEL_ATTACHED);
  scene_check_all (scene);
  scene_free (scene);
}

static void
cut_sometimes (Scene *scene) {
  if (scene->ended < next_trouble || troubles == 0)
    return;
  next_trouble_after (scene);
  troubles--;
  wire_proxy_cut (scene->proxy);
}

static void
test_cut (gconstpointer data) {
  Scene *scene = scene_new (data);

  scene_level (scene, SCENE_BLOCKS);
  next_trouble_after (scene);
  troubles = 10;
  scene_load (scene, TROUBLE_STEPS, 0, cut_sometimes);
  g_assert_cmpuint (troubles, ==, 0);
  g_assert_cmpuint (scene->unknown, >, 0);
  scene_wait_state (scene, PAGE_CHANNEL_ATTACHED);
  scene_check_all (scene);
  scene_free (scene);
}

/* It comes back without: that is known for certain, and only then. */
static void
test_lost (gconstpointer data) {
  Scene *scene = scene_new (&plain);
  const gboolean forget = GPOINTER_TO_INT (data);

  scene_level (scene, 4);
  g_assert_cmpint (scene_write (scene, PAGE_WRITE_OUT, 0, 512, 1), ==, 0);
  if (forget)
    donor_process_forget (scene->donor);
  else {
    donor_process_kill (scene->donor);
    scene_wait_state (scene, PAGE_CHANNEL_DOWN);
    g_assert_nonnull (scene_figures (scene).why);
    g_assert_cmpint (scene_read (scene, PAGE_DEMAND, 0, 1), ==, ENOTCONN);
    donor_process_lose_arena (scene->donor);
    donor_process_start (scene->donor);
  }
  scene_wait_state (scene, PAGE_CHANNEL_LOST);
  g_assert_cmpint (scene_read (scene, PAGE_DEMAND, 0, 1), ==, ESTALE);
  g_assert_cmpuint (scene->changes, >, 0);
  scene_forget (scene);
  page_channel_begin_anew (scene->channel);
  scene_wait (scene->told == PAGE_CHANNEL_ATTACHED && scene_figures (scene).lease.level == 4);
  scene_check_all (scene);
  g_assert_cmpint (scene_write (scene, PAGE_WRITE_OUT, 0, 1, 2), ==, 0);
  g_assert_cmpint (scene_read (scene, PAGE_PREFETCH, 0, 1), ==, 0);
  scene_free (scene);
}

/* The next worker goes on with the lease, or learns that it is no more. */
static void
test_next_worker (void) {
  Scene *scene = scene_new (&tls);

  scene_level (scene, SCENE_BLOCKS);
  scene_load (scene, 300, 0, NULL);
  scene_next_worker (scene);
  scene_level (scene, SCENE_BLOCKS);
  scene_check_all (scene);
  donor_process_kill (scene->donor);
  donor_process_lose_arena (scene->donor);
  donor_process_start (scene->donor);
  scene_next_worker (scene);
  scene_wait_state (scene, PAGE_CHANNEL_LOST);
  scene_free (scene);
}

/* The worker of before is told that there is another one. */
static void
test_higher_session (void) {
  Scene *scene = scene_new (&plain);
  PageChannelOptions options = scene->channel_options;
  PageChannel *first = scene->channel;
  const PageChannelWatch nobody = { NULL, NULL };
  PageChannelFigures figures;

  scene_level (scene, 2);
  g_assert_cmpint (scene_write (scene, PAGE_WRITE_OUT, 0, 1, 1), ==, 0);
  options.worker++;
  scene->channel = page_channel_new (&options, &nobody, NULL);
  scene_wait_state (scene, PAGE_CHANNEL_REFUSED);
  page_channel_figures (first, &figures);
  g_assert_cmpint (figures.state, ==, PAGE_CHANNEL_REFUSED);
  g_assert_nonnull (strstr (figures.why, "later worker"));
  scene_wait (scene_figures (scene).state == PAGE_CHANNEL_ATTACHED);
  scene_check_all (scene);
  page_channel_free (first);
  scene_free (scene);
}

/* ---- time ---- */

/* A donor that hangs: deadlines end requests; it is not lost, and all goes on when it does. */
static void
test_stopped (gconstpointer data) {
  Scene *scene = scene_new (data);
  SceneIo *reads[3], *write;

  scene_level (scene, SCENE_BLOCKS);
  scene_load (scene, 200, 0, NULL);
  donor_process_stop (scene->donor, TRUE);
  write = scene_begin (scene, PAGE_WRITE, PAGE_WRITE_OUT, 100, 64, ++scene->next_value, 0);
  for (guint i = 0; i < G_N_ELEMENTS (reads); i++)
    reads[i] = scene_begin (scene, PAGE_READ, PAGE_DEMAND, i, 1, 0, i == 1 ? 100 : 100000);
  page_channel_kick (scene->channel);
  scene_wait (reads[1]->ended);
  g_assert_cmpint (scene_end (reads[1]), ==, ETIMEDOUT);
  g_assert_cmpint (scene_end (reads[0]), ==, ENOTCONN);
  g_assert_cmpint (scene_end (reads[2]), ==, ENOTCONN);
  g_assert_false (write->ended); /* on another connection, without a deadline */
  g_assert_cmpuint (scene_figures (scene).timeouts, ==, 1);
  scene_wait_state (scene, PAGE_CHANNEL_DOWN);
  donor_process_stop (scene->donor, FALSE);
  g_assert_cmpint (scene_end (write), ==, 0);
  scene_wait_state (scene, PAGE_CHANNEL_ATTACHED);
  scene_check_all (scene);
  scene_free (scene);
}

/* A write that was given up is on its way for long, and comes when its place has been written anew: it must not count. */
static void
test_late_write (gconstpointer data) {
  Scene *scene = scene_new (data);
  SceneIo *late;

  scene_level (scene, SCENE_BLOCKS);
  g_assert_cmpint (scene_write (scene, PAGE_WRITE_OUT, 7, 1, 1), ==, 0);
  wire_proxy_set (scene->proxy, stall_up, 1);
  late = scene_begin (scene, PAGE_WRITE, PAGE_WRITE_OUT, 7, 1, 2, 100);
  page_channel_kick (scene->channel);
  g_assert_cmpint (scene_end (late), ==, ETIMEDOUT);
  /* another way to the donor, and the first one opens again only after the new write */
  scene_wait_state (scene, PAGE_CHANNEL_DOWN);
  scene->channel_options.address = scene->donor->address;
  scene_next_worker (scene);
  scene_wait_state (scene, PAGE_CHANNEL_ATTACHED);
  g_assert_cmpint (scene_write (scene, PAGE_WRITE_OUT, 7, 1, 3), ==, 0);
  wire_proxy_set (scene->proxy, stall_up, 0);
  for (guint i = 0; i < 20; i++) {
    g_usleep (5000);
    g_assert_cmpint (scene_read (scene, PAGE_DEMAND, 7, 1), ==, 0);
  }
  scene_free (scene);
}

/* The same within one worker: the donor is reached by new connections while the old ones' bytes are still on their way. */
static void
test_late_write_again (gconstpointer data) {
  Scene *scene = scene_new (data);
  const uint64_t epoch = (scene_level (scene, SCENE_BLOCKS), scene_figures (scene).lease.epoch);
  SceneIo *late;

  g_assert_cmpint (scene_write (scene, PAGE_WRITE_OUT, 7, 1, 1), ==, 0);
  wire_proxy_set (scene->proxy, stall_until, g_atomic_int_get (&scene->proxy->knobs->connections));
  late = scene_begin (scene, PAGE_WRITE, PAGE_WRITE_OUT, 7, 1, 2, 100);
  page_channel_kick (scene->channel);
  g_assert_cmpint (scene_end (late), ==, ETIMEDOUT);
  scene_wait (scene->told == PAGE_CHANNEL_ATTACHED && scene_figures (scene).lease.epoch > epoch);
  g_assert_cmpint (scene_read (scene, PAGE_DEMAND, 7, 1), ==, 0);
  g_assert_cmpint (scene_write (scene, PAGE_WRITE_OUT, 7, 1, 3), ==, 0);
  wire_proxy_set (scene->proxy, stall_until, 0);
  for (guint i = 0; i < 20; i++) {
    g_usleep (5000);
    g_assert_cmpint (scene_read (scene, PAGE_DEMAND, 7, 1), ==, 0);
  }
  scene_free (scene);
}

/* ---- keys ---- */

static void
test_refused (gconstpointer data) {
  Scene *scene = scene_new (data);
  const char *why;

  scene_wait_state (scene, PAGE_CHANNEL_REFUSED);
  why = scene_figures (scene).why;
  g_test_message ("%s", why);
  g_assert_nonnull (why);
  g_assert_cmpint (scene_read (scene, PAGE_DEMAND, 0, 1), ==, ENOTCONN);
  scene_free (scene);
}

/* ---- what a donor wants ---- */

static void
test_revoke (void) {
  Scene *scene = scene_new (&plain);
  PageChannelFigures figures;

  scene_level (scene, 4);
  for (guint block = 0; block < 4; block++)
    g_assert_cmpint (scene_write (scene, PAGE_WRITE_OUT, block * 512, 512, block + 1), ==, 0);
  donor_process_revoke (scene->donor, 1);
  scene_wait (scene_figures (scene).lease.revoke != 0);
  figures = scene_figures (scene);
  g_assert_cmpuint (figures.lease.revoke_level, ==, 1);
  g_assert_cmpint (figures.revoke_deadline_us, >, g_get_monotonic_time ());
  for (guint block = 0; block < 3; block++)
    g_assert_cmpint (scene_trim (scene, block), ==, 0);
  scene_wait (scene_figures (scene).lease.level == 1);
  scene_check_all (scene);
  scene_free (scene);
}

static void
on_end (gpointer data, gboolean ok) {
  *(int *)data = ok;
}

static void
test_end_lease (void) {
  Scene *scene = scene_new (&plain);
  int ok = -1;

  scene_level (scene, 4);
  g_assert_cmpint (scene_write (scene, PAGE_WRITE_OUT, 0, 1, 1), ==, 0);
  g_assert_cmpuint (donor_process_leases (scene->donor), ==, 1);
  page_channel_end_lease (scene->channel, 100000, on_end, &ok);
  scene_wait (ok >= 0);
  g_assert_cmpint (ok, ==, TRUE);
  g_assert_cmpuint (donor_process_leases (scene->donor), ==, 0);
  g_assert_cmpint (scene_read (scene, PAGE_DEMAND, 0, 1), ==, ENOTCONN);
  scene_free (scene);
}

static void
test_end_unanswered (void) {
  Scene *scene = scene_new (&plain);
  int ok = -1;

  scene_level (scene, 1);
  donor_process_kill (scene->donor);
  page_channel_end_lease (scene->channel, 50, on_end, &ok);
  scene_wait (ok >= 0);
  g_assert_cmpint (ok, ==, FALSE);
  scene_free (scene);
}

/* Its owner may go at any time: every request has ended then. */
static void
test_free_under_way (gconstpointer data) {
  for (guint round = 0; round < 8; round++) {
    Scene *scene = scene_new (data);
    GPtrArray *ios = g_ptr_array_new_with_free_func ((GDestroyNotify)scene_io_free);

    if (round > 0)
      scene_level (scene, SCENE_BLOCKS);
    for (guint i = 0; i < 400; i++)
      g_ptr_array_add (ios, scene_begin (scene, i % 2 ? PAGE_WRITE : PAGE_READ, i % PAGE_CLASSES, i * 4, 4, i % 2 ? 9 : 0, 0));
    if (round % 3)
      page_channel_kick (scene->channel);
    for (guint i = 0; i < round; i++)
      g_main_context_iteration (NULL, FALSE);
    page_channel_free (g_steal_pointer (&scene->channel));
    g_assert_cmpuint (scene->under_way, ==, 0);
    g_ptr_array_unref (ios);
    scene_free (scene);
  }
}

/* ---- a wire that changes and delays what it carries ---- */

static void
test_flips (gconstpointer data) {
  const SceneOptions options = { .tls = GPOINTER_TO_INT (data), .proxy = TRUE, .lies = !GPOINTER_TO_INT (data) };
  Scene *scene = scene_new (&options);

  scene_level (scene, SCENE_BLOCKS);
  wire_proxy_set (scene->proxy, flip, options.tls ? 64 : 4);
  do
    scene_load (scene, testing_steps (1000), options.tls ? 0 : 1000, NULL);
  while (scene_figures (scene).reconnects < 3);
  wire_proxy_set (scene->proxy, flip, 0);
  g_assert_cmpint (g_atomic_int_get (&scene->proxy->knobs->flipped), >, 0);
  /* Plain, the lie may have been that the lease is lost: TLS is there for that */
  while (scene->told != PAGE_CHANNEL_ATTACHED) {
    if (scene->told == PAGE_CHANNEL_LOST) {
      g_assert_false (options.tls);
      page_channel_begin_anew (scene->channel);
    }
    g_main_context_iteration (NULL, TRUE);
  }
  scene_check_all (scene);
  scene_free (scene);
}

static void
test_trickle (gconstpointer data) {
  Scene *scene = scene_new (data);

  wire_proxy_set (scene->proxy, piece, 7);
  scene_level (scene, SCENE_BLOCKS);
  for (guint i = 0; i < 4; i++) {
    g_assert_cmpint (scene_write (scene, PAGE_WRITE_OUT, i * 600, 3, i + 1), ==, 0);
    g_assert_cmpint (scene_read (scene, PAGE_DEMAND, i * 600, 3), ==, 0);
  }
  wire_proxy_set (scene->proxy, piece, 1000);
  scene_load (scene, 200, 0, NULL);
  g_assert_cmpuint (scene->unknown, ==, 0);
  scene_free (scene);
}

int
main (int argc, char **argv) {
  static const guint8 other_key[32] = { 1 };
  static const SceneOptions wrong_key = { .tls = TRUE, .key = other_key },
                            wrong_identity = { .tls = TRUE, .identity = "host-b" },
                            no_tls_here = { .tls = TRUE, .plain_client = TRUE };

  testing_init (&argc, &argv);
  g_test_add_data_func ("/page-channel/round-trip/plain", &plain, test_round_trip);
  g_test_add_data_func ("/page-channel/round-trip/tls", &tls, test_round_trip);
  g_test_add_func ("/page-channel/bounds", test_bounds);
  g_test_add_func ("/page-channel/level", test_level);
  g_test_add_data_func ("/page-channel/kill/plain", &plain, test_kill);
  g_test_add_data_func ("/page-channel/kill/tls", &tls, test_kill);
  g_test_add_data_func ("/page-channel/cut/plain", &plain_proxy, test_cut);
  g_test_add_data_func ("/page-channel/cut/tls", &tls_proxy, test_cut);
  g_test_add_data_func ("/page-channel/lost/arena", GINT_TO_POINTER (FALSE), test_lost);
  g_test_add_data_func ("/page-channel/lost/forgotten", GINT_TO_POINTER (TRUE), test_lost);
  g_test_add_func ("/page-channel/next-worker", test_next_worker);
  g_test_add_func ("/page-channel/higher-session", test_higher_session);
  g_test_add_data_func ("/page-channel/stopped/plain", &plain, test_stopped);
  g_test_add_data_func ("/page-channel/stopped/tls", &tls, test_stopped);
  g_test_add_data_func ("/page-channel/late-write/plain", &plain_proxy, test_late_write);
  g_test_add_data_func ("/page-channel/late-write/tls", &tls_proxy, test_late_write);
  g_test_add_data_func ("/page-channel/late-write-again/plain", &plain_proxy, test_late_write_again);
  g_test_add_data_func ("/page-channel/late-write-again/tls", &tls_proxy, test_late_write_again);
  g_test_add_data_func ("/page-channel/refused/wrong-key", &wrong_key, test_refused);
  g_test_add_data_func ("/page-channel/refused/wrong-identity", &wrong_identity, test_refused);
  g_test_add_data_func ("/page-channel/refused/no-tls-here", &no_tls_here, test_refused);
  g_test_add_func ("/page-channel/revoke", test_revoke);
  g_test_add_func ("/page-channel/end", test_end_lease);
  g_test_add_func ("/page-channel/end-unanswered", test_end_unanswered);
  g_test_add_data_func ("/page-channel/free/plain", &plain, test_free_under_way);
  g_test_add_data_func ("/page-channel/free/tls", &tls, test_free_under_way);
  g_test_add_data_func ("/page-channel/flips/plain", GINT_TO_POINTER (FALSE), test_flips);
  g_test_add_data_func ("/page-channel/flips/tls", GINT_TO_POINTER (TRUE), test_flips);
  g_test_add_data_func ("/page-channel/trickle/plain", &plain_proxy, test_trickle);
  g_test_add_data_func ("/page-channel/trickle/tls", &tls_proxy, test_trickle);
  return g_test_run ();
}
