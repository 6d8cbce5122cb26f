/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * An NBD server that breaks the rules in all ways: nothing is read or written outside the requests' memory (a sanitiser would
 * see it), no request ends twice, and when the server has become good all that waited ends well. What a bad server returns as
 * data is for the seals to find out. storage-nbd.c is compiled for this test with short waits.
 */
#include "evil-server.h"
#include "storage-scene.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#define MIB ((guint64)1 << 20)
#define BYTES (8 * MIB)
#define N 64

struct one {
  SceneIo scene;
  guint8 *memory; /* with a page before and behind it that nobody may touch */
  gsize bytes;
  gboolean started;
};

static const char *const names[N_EVIL]
    = { "close", "short", "noise", "magic", "cookie", "twice", "error", "silent", "slow", "chunk", "export", "option" };

static gboolean
is_filled (const guint8 *page, guint8 with) {
  for (unsigned i = 0; i < 4096; i++)
    if (page[i] != with)
      return FALSE;
  return TRUE;
}

static void
start (struct one *one, Storage *storage, GRand *rand) {
  const gsize bytes = (1 + testing_below (rand, 64)) * 4096;

  one->bytes = bytes;
  one->memory = scene_buffer (bytes + 8192);
  memset (one->memory, 0x6b, bytes + 8192);
  scene_io (&one->scene, testing_once_in (rand, 2), testing_below (rand, (BYTES - bytes) / 4096 + 1) * 4096, one->memory + 4096,
            bytes);
  one->started = TRUE;
  scene_submit (storage, &one->scene);
}

/* Returns whether it had ended. */
static gboolean
end (struct one *one) {
  if (!one->started || !one->scene.ended)
    return FALSE;
  g_assert_true (is_filled (one->memory, 0x6b));
  g_assert_true (is_filled (one->memory + 4096 + one->bytes, 0x6b));
  free (one->memory);
  memset (one, 0, sizeof *one);
  return TRUE;
}

static gboolean
seen_enough (const EvilServer *server) {
  for (int i = 0; i < N_EVIL; i++)
    if (g_atomic_int_get (&server->shared->done[i]) < 3)
      return FALSE;
  return TRUE;
}

static void
test_evil (void) {
  g_autoptr (GRand) rand = testing_rand ();
  char *folder = scene_folder (NULL);
  EvilServer *server = evil_server_new (folder, BYTES, (guint32)testing_below (rand, G_MAXUINT32));
  g_autofree char *uri = g_strdup_printf ("nbd+unix:///?socket=%s", server->socket);
  const gint64 until = g_get_monotonic_time () + 20 * G_USEC_PER_SEC;
  g_autofree struct one *ones = g_new0 (struct one, N);
  g_autoptr (GError) error = NULL;
  guint8 *buf = scene_buffer (MIB);
  unsigned ended = 0;
  Storage *storage;
  int ends[2];

  g_assert_cmpint (pipe2 (ends, O_CLOEXEC), ==, 0);
  storage = storage_new (uri, -1, BYTES, -1, ends[0], &error); /* as after another process: it waits for good servers */
  g_assert_no_error (error);
  while (g_get_monotonic_time () < until && (!seen_enough (server) || ended < testing_steps (500))) {
    for (int i = 0; i < N; i++) {
      ended += end (&ones[i]);
      if (!ones[i].started && testing_once_in (rand, 4))
        start (&ones[i], storage, rand);
    }
    if (testing_once_in (rand, 10))
      storage_discard (storage, testing_below (rand, BYTES / MIB) * MIB, MIB);
    storage_kick (storage);
    scene_run_for ((unsigned)testing_below (rand, 5));
  }
  for (int i = 0; i < N_EVIL; i++)
    g_test_message ("%s: %d", names[i], server->shared->done[i]);
  g_test_message ("%d connections, %u requests ended meanwhile", server->shared->connections, ended);
  g_atomic_int_set (&server->shared->good, 1);
  for (int i = 0; i < N; i++)
    if (ones[i].started) {
      scene_wait (&ones[i].scene.ended, 60);
      g_assert_true (end (&ones[i]));
    }
  for (guint64 at = 0; at < BYTES; at += MIB) {
    scene_pattern (buf, at, MIB, 1);
    g_assert_cmpint (scene_do (storage, TRUE, at, buf, MIB), ==, 0);
    memset (buf, 0, MIB);
    g_assert_cmpint (scene_do (storage, FALSE, at, buf, MIB), ==, 0);
    g_assert_true (scene_is_pattern (buf, at, MIB, 1));
  }
  storage_free (storage);
  evil_server_free (server);
  scene_folder_free (folder);
  free (buf);
  close (ends[0]);
  close (ends[1]);
}

/* A server that is evil when somebody wants to begin: an error, or a storage; never anything else. */
static void
test_evil_at_start (void) {
  g_autoptr (GRand) rand = testing_rand ();
  char *folder = scene_folder (NULL);
  EvilServer *server = evil_server_new (folder, BYTES, (guint32)testing_below (rand, G_MAXUINT32));
  g_autofree char *uri = g_strdup_printf ("nbd+unix:///?socket=%s", server->socket);
  unsigned good = 0, bad = 0;

  for (unsigned i = 0; i < testing_steps (300); i++) {
    g_autoptr (GError) error = NULL;
    Storage *storage = storage_new (uri, -1, BYTES, -1, -1, &error);

    g_assert_true ((storage == NULL) == (error != NULL));
    storage ? good++ : bad++;
    storage_free (storage);
  }
  g_test_message ("%u good, %u bad", good, bad);
  g_assert_cmpuint (bad, >, 0);
  evil_server_free (server);
  scene_folder_free (folder);
}

static void
no_log (const char *domain, GLogLevelFlags level, const char *message, gpointer data) {
}

int
main (int argc, char **argv) {
  scene_init (&argc, &argv);
  g_log_set_handler (NULL, G_LOG_LEVEL_MESSAGE, no_log, NULL); /* a connection's every end */
  g_test_add_func ("/storage/evil/at-start", test_evil_at_start);
  g_test_add_func ("/storage/evil/at-work", test_evil);
  return g_test_run ();
}
