/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Several back-ends on one host account: the sum never passes the limit, whatever dies when; a refused guest is told when there is
 * room again; a file that is not an account is refused.
 */
#include "frontend.h"
#include "process.h"
#include "rig.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include <glib/gstdio.h>

#define LIMIT 64

struct host {
  char *directory, *path, *path_option;
};

static void
host_init (struct host *host) {
  host->directory = g_dir_make_tmp ("domybs-account-XXXXXX", NULL);
  host->path = g_build_filename (host->directory, "account", NULL);
  host->path_option = g_strdup_printf ("--host-account=%s", host->path);
}

static void
host_clear (struct host *host) {
  g_unlink (host->path);
  g_rmdir (host->directory);
  g_free (host->directory);
  g_free (host->path);
  g_free (host->path_option);
}

static struct backend *
start (struct host *host) {
  const char *const arguments[] = { "--window=2G", "--host-limit=128M", host->path_option, NULL };

  return backend_start (arguments);
}

static struct fe *
open_fe (struct backend *backend) {
  struct fe *fe = fe_new ();

  fe_must (fe, fe_open (fe, backend->socket_path));
  return fe;
}

static void
one_takes_what_the_other_leaves (void) {
  struct host host;
  host_init (&host);
  {
    g_autoptr (backend_t) first = start (&host);
    g_autoptr (backend_t) second = start (&host);
    g_autoptr (fe_t) a = open_fe (first);
    g_autoptr (fe_t) b = open_fe (second);
    struct fe_answer answer;

    fe_must (a, fe_grant (a, 40, DOMYBS_HINT_ANY, DOMYBS_GRANT_F_ALL, 0, 0, &answer));
    g_assert_cmpuint (answer.status, ==, DOMYBS_OK);
    fe_must (b, fe_grant (b, 40, DOMYBS_HINT_ANY, DOMYBS_GRANT_F_ALL, 0, 0, &answer));
    g_assert_cmpuint (answer.status, ==, DOMYBS_NO_HOST_CAPACITY);
    g_assert_cmpuint (answer.granted, ==, 0);
    fe_must (b, fe_grant (b, 40, DOMYBS_HINT_ANY, 0, 0, 0, &answer));
    g_assert_cmpuint (answer.status, ==, DOMYBS_OK);
    g_assert_cmpuint (answer.blocks, ==, LIMIT - 40);
    g_assert_cmpint (backend_status (second, "host-used-blocks"), ==, LIMIT);
    fe_must (b, fe_grant (b, 1, DOMYBS_HINT_ANY, 0, 0, 0, &answer));
    g_assert_cmpuint (answer.status, ==, DOMYBS_NO_HOST_CAPACITY);
  }
  host_clear (&host);
}

static void
refused_guest_gets_an_offer (void) {
  struct host host;
  host_init (&host);
  {
    g_autoptr (backend_t) first = start (&host);
    g_autoptr (backend_t) second = start (&host);
    g_autoptr (fe_t) a = open_fe (first);
    g_autoptr (fe_t) b = open_fe (second);
    struct domybs_event event;
    struct domybs_run run;
    struct fe_answer answer;

    fe_must (a, fe_grant (a, LIMIT, DOMYBS_HINT_ANY, DOMYBS_GRANT_F_ALL, 0, 0, &answer));
    run = answer.runs[0];
    fe_post_events (b, 4);
    fe_must (b, fe_grant (b, 8, DOMYBS_HINT_ANY, 0, 0, 0, &answer));
    g_assert_cmpuint (answer.status, ==, DOMYBS_NO_HOST_CAPACITY);
    g_assert_false (fe_wait_event (b, DOMYBS_EVENT_OFFER, &event, 1500)); /* nothing to offer yet */
    fe_must (a, fe_release (a, &run, 1, &answer));
    fe_must (b, fe_wait_event (b, DOMYBS_EVENT_OFFER, &event, fe_patience_ms ()));
    g_assert_cmpuint (GUINT64_FROM_LE (event.session), ==, b->session);
    fe_must (b, fe_grant (b, 8, DOMYBS_HINT_ANY, 0, 0, 0, &answer));
    g_assert_cmpuint (answer.status, ==, DOMYBS_OK);
    g_assert_false (fe_wait_event (b, DOMYBS_EVENT_OFFER, &event, 1500)); /* once is enough */
  }
  host_clear (&host);
}

static void
killed_back_ends_share_comes_back (void) {
  struct host host;
  host_init (&host);
  {
    g_autoptr (backend_t) first = start (&host);
    g_autoptr (backend_t) second = start (&host);
    g_autoptr (fe_t) a = open_fe (first);
    g_autoptr (fe_t) b = open_fe (second);
    struct domybs_event event;
    struct fe_answer answer;

    fe_must (a, fe_grant (a, LIMIT, DOMYBS_HINT_ANY, DOMYBS_GRANT_F_ALL, 0, 0, &answer));
    fe_post_events (b, 4);
    fe_must (b, fe_grant (b, 8, DOMYBS_HINT_ANY, 0, 0, 0, &answer));
    g_assert_cmpuint (answer.status, ==, DOMYBS_NO_HOST_CAPACITY);
    backend_kill (first);
    fe_must (b, fe_wait_event (b, DOMYBS_EVENT_OFFER, &event, fe_patience_ms ()));
    fe_must (b, fe_grant (b, LIMIT, DOMYBS_HINT_ANY, DOMYBS_GRANT_F_ALL, 0, 0, &answer));
    g_assert_cmpuint (answer.status, ==, DOMYBS_OK);
  }
  host_clear (&host);
}

/* A stopped process keeps what it has, and does not stop the others. */
static void
stopped_back_end_keeps_its_share (void) {
  struct host host;
  host_init (&host);
  {
    g_autoptr (backend_t) first = start (&host);
    g_autoptr (backend_t) second = start (&host);
    g_autoptr (fe_t) a = open_fe (first);
    g_autoptr (fe_t) b = open_fe (second);
    struct fe_answer answer;

    fe_must (a, fe_grant (a, 40, DOMYBS_HINT_ANY, DOMYBS_GRANT_F_ALL, 0, 0, &answer));
    backend_signal_all (first, SIGSTOP);
    fe_must (b, fe_grant (b, LIMIT, DOMYBS_HINT_ANY, 0, 0, 0, &answer));
    backend_signal_all (first, SIGCONT);
    g_assert_cmpuint (answer.status, ==, DOMYBS_OK);
    g_assert_cmpuint (answer.blocks, ==, LIMIT - 40);
  }
  host_clear (&host);
}

/* On a busy host who holds the account's lock may not run for a while: a back-end that starts waits for it, and a worker that starts does not
 * need it. */
static void
start_waits_for_the_lock (void) {
  const struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1 };
  struct host host;
  host_init (&host);
  {
    g_autoptr (backend_t) first = start (&host);
    g_autoptr (fe_t) a = open_fe (first);
    const int fd = open (host.path, O_RDWR | O_CLOEXEC);
    const pid_t worker = backend_worker (first);
    struct fe_answer answer;

    g_assert_cmpint (fd, >=, 0);
    while (fcntl (fd, F_OFD_SETLK, &lock) < 0)
      g_usleep (1000);
    g_autoptr (backend_t) second = start (&host);
    g_usleep (100000); /* longer than a grant waits */
    g_assert_true (backend_kill_worker (worker));
    fe_must (a, fe_stats (a, NULL, 0, &answer)); /* of another worker, while the lock is held */
    g_assert_cmpuint (answer.status, ==, DOMYBS_OK);
    g_assert_true (backend_is_alive (second));
    close (fd);
    {
      g_autoptr (fe_t) b = open_fe (second);

      fe_must (b, fe_grant (b, LIMIT, DOMYBS_HINT_ANY, 0, 0, 0, &answer));
      g_assert_cmpuint (answer.blocks, ==, LIMIT);
    }
  }
  host_clear (&host);
}

static void
disconnected_guests_share_comes_back (void) {
  struct host host;
  host_init (&host);
  {
    g_autoptr (backend_t) first = start (&host);
    g_autoptr (backend_t) second = start (&host);
    struct fe *a = open_fe (first);
    g_autoptr (fe_t) b = open_fe (second);
    struct fe_answer answer;

    fe_must (a, fe_grant (a, LIMIT, DOMYBS_HINT_ANY, DOMYBS_GRANT_F_ALL, 0, 0, &answer));
    fe_free (a);
    g_assert_true (backend_wait_status (second, "host-used-blocks", 0, fe_patience_ms ()));
    fe_must (b, fe_grant (b, LIMIT, DOMYBS_HINT_ANY, DOMYBS_GRANT_F_ALL, 0, 0, &answer));
    g_assert_cmpuint (answer.status, ==, DOMYBS_OK);
  }
  host_clear (&host);
}

/* ---- a race for the last blocks ---- */

struct racer {
  struct fe *fe;
  GRand *random;
  volatile gint *held; /* blocks of all racers, as their answers say */
  volatile gint *over; /* how often that was more than the limit */
  unsigned rounds;
};

static gpointer
race (gpointer data) {
  struct racer *racer = data;

  for (unsigned i = 0; i < racer->rounds; i++) {
    struct fe_answer answer, released;
    const unsigned wanted = (unsigned)g_rand_int_range (racer->random, 1, LIMIT + 1);

    if (!fe_grant (racer->fe, wanted, DOMYBS_HINT_ANY, i % 2 ? DOMYBS_GRANT_F_ALL : 0, 0, 0, &answer))
      return g_strdup (racer->fe->why);
    if (answer.status == DOMYBS_NO_HOST_CAPACITY || answer.status == DOMYBS_BUSY)
      continue;
    if (answer.status != DOMYBS_OK)
      return g_strdup_printf ("GRANT: status %u", answer.status);
    if (g_atomic_int_add (racer->held, (gint)answer.blocks) + (gint)answer.blocks > LIMIT)
      g_atomic_int_inc (racer->over);
    g_thread_yield ();
    /* Before the release is sent: after its answer somebody else may have them already. */
    g_atomic_int_add (racer->held, -(gint)answer.blocks);
    if (!fe_release (racer->fe, answer.runs, answer.count, &released) || released.status != DOMYBS_OK)
      return g_strdup_printf ("RELEASE: %s", racer->fe->why ? racer->fe->why : "refused");
  }
  return NULL;
}

static void
race_for_the_last_blocks (void) {
  struct host host;
  host_init (&host);
  {
    struct backend *backends[4];
    struct racer racers[4];
    GThread *threads[4];
    volatile gint held = 0, over = 0;

    for (int i = 0; i < 4; i++) {
      backends[i] = start (&host);
      racers[i] = (struct racer){ open_fe (backends[i]), g_rand_new_with_seed ((guint32)g_test_rand_int ()), &held, &over, 1500 };
    }
    for (int i = 0; i < 4; i++)
      threads[i] = g_thread_new ("racer", race, &racers[i]);
    for (int i = 0; i < 4; i++) {
      g_autofree char *why = g_thread_join (threads[i]);

      g_assert_cmpstr (why, ==, NULL);
    }
    g_assert_cmpint (over, ==, 0);
    g_assert_cmpint (backend_status (backends[0], "host-used-blocks"), ==, 0);
    for (int i = 0; i < 4; i++) {
      fe_free (racers[i].fe);
      g_rand_free (racers[i].random);
      backend_free (backends[i]);
    }
  }
  host_clear (&host);
}

/* One racer's back-end is killed again and again. */
static void
race_with_kills (void) {
  struct host host;
  host_init (&host);
  {
    g_autoptr (backend_t) steady = start (&host);
    g_autoptr (fe_t) fe = open_fe (steady);
    struct fe_answer answer;

    for (int i = 0; i < 20; i++) {
      g_autoptr (backend_t) victim = start (&host);
      g_autoptr (fe_t) other = open_fe (victim);

      fe_must (other, fe_grant (other, LIMIT, DOMYBS_HINT_ANY, 0, 0, 0, &answer));
      g_assert_cmpuint (answer.blocks, ==, LIMIT);
      backend_kill (victim);
      fe_must (fe, fe_grant (fe, LIMIT, DOMYBS_HINT_ANY, DOMYBS_GRANT_F_ALL, 0, 0, &answer));
      g_assert_cmpuint (answer.status, ==, DOMYBS_OK);
      fe_must (fe, fe_release (fe, answer.runs, answer.count, &answer));
    }
  }
  host_clear (&host);
}

/* ---- the file ---- */

static void
account_of (const char *content, size_t n, const char *reason) {
  struct host host;
  host_init (&host);
  {
    g_autoptr (backend_t) backend = NULL;

    g_assert_true (g_file_set_contents (host.path, content, (gssize)n, NULL));
    backend = start (&host);
    g_assert_true (backend_wait_end (backend, fe_patience_ms ()));
    g_assert_cmpstr (backend_end_text (backend), ==, "exit 1");
    g_assert_true (backend_wait_log (backend, 0, reason, 100));
  }
  host_clear (&host);
}

static void
file_that_is_no_account (void) {
  account_of ("this is somebody's diary\n", 25, "not a host account");
}

static void
account_is_a_symlink (void) {
  struct host host;
  host_init (&host);
  {
    g_autofree char *target = g_build_filename (host.directory, "target", NULL);
    g_autoptr (backend_t) backend = NULL;

    g_assert_cmpint (symlink (target, host.path), ==, 0);
    backend = start (&host);
    g_assert_true (backend_wait_end (backend, fe_patience_ms ()));
    g_assert_cmpstr (backend_end_text (backend), ==, "exit 1");
    g_assert_false (g_file_test (target, G_FILE_TEST_EXISTS));
  }
  host_clear (&host);
}

int
main (int argc, char **argv) {
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/host-account/one-takes-what-the-other-leaves", one_takes_what_the_other_leaves);
  g_test_add_func ("/host-account/refused-guest-gets-an-offer", refused_guest_gets_an_offer);
  g_test_add_func ("/host-account/killed-back-ends-share-comes-back", killed_back_ends_share_comes_back);
  g_test_add_func ("/host-account/stopped-back-end-keeps-its-share", stopped_back_end_keeps_its_share);
  g_test_add_func ("/host-account/start-waits-for-the-lock", start_waits_for_the_lock);
  g_test_add_func ("/host-account/disconnected-guests-share-comes-back", disconnected_guests_share_comes_back);
  g_test_add_func ("/host-account/race-for-the-last-blocks", race_for_the_last_blocks);
  g_test_add_func ("/host-account/race-with-kills", race_with_kills);
  g_test_add_func ("/host-account/file-that-is-no-account", file_that_is_no_account);
  g_test_add_func ("/host-account/account-is-a-symlink", account_is_a_symlink);
  return g_test_run ();
}
