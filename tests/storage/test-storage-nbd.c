/* SPDX-License-Identifier: GPL-2.0-or-later */
/* NBD servers of others as storage: nbdkit, qemu-nbd, qemu-storage-daemon; good ones, slow, hung, dead and failing ones. */
#include "nbd-server.h"
#include "storage-scene.h"

#include "io/error.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#define MIB ((guint64)1 << 20)
#define BYTES (32 * MIB)

static Storage *
open_storage (const char *uri, guint64 bytes) {
  g_autoptr (GError) error = NULL;
  Storage *storage = storage_new (uri, -1, bytes, -1, -1, &error);

  g_assert_no_error (error);
  return storage;
}

static void
expect_refused (const char *uri, guint64 bytes, const char *text) {
  g_autoptr (GError) error = NULL;

  g_assert_null (storage_new (uri, -1, bytes, -1, -1, &error));
  g_assert_nonnull (error);
  g_test_message ("%s", error->message);
  if (!strstr (error->message, text))
    g_error ("'%s' does not say '%s'", error->message, text);
}

static gboolean
is_reachable (const Storage *storage) {
  gint64 since;

  return storage_is_reachable (storage, &since);
}

static void
wait_reachable (const Storage *storage, gboolean reachable) {
  const gint64 until = g_get_monotonic_time () + 60 * G_USEC_PER_SEC;

  while (is_reachable (storage) != reachable) {
    g_assert_cmpint (g_get_monotonic_time (), <, until);
    scene_run_for (10);
  }
}

static void
wait_settled (const Storage *storage) {
  const gint64 until = g_get_monotonic_time () + 60 * G_USEC_PER_SEC;

  while (!storage_is_settled (storage)) {
    g_assert_cmpint (g_get_monotonic_time (), <, until);
    scene_run_for (10);
  }
}

/* ---- data ---- */

static void
test_round_trip (gconstpointer kind) {
  g_autoptr (GRand) rand = testing_rand ();
  NbdServer *server;
  Storage *storage;

  if (!nbd_server_have (kind))
    return;
  server = nbd_server_new (kind, BYTES, NULL, NULL);
  nbd_server_start (server);
  storage = open_storage (server->uri, BYTES);
  scene_round_trip (
      rand,
      &(SceneTrip){
          .storage = storage, .bytes = BYTES, .most = MIB, .steps = testing_steps (2000), .at_a_time = 150, .discards = TRUE });
  storage_free (storage);
  nbd_server_free (server);
}

static void
test_slow (void) {
  const char *const filters[] = { "--filter=delay", NULL };
  const char *const parameters[] = { "delay-read=20ms", "delay-write=20ms", "delay-trim=20ms", NULL };
  g_autoptr (GRand) rand = testing_rand ();
  NbdServer *server;
  Storage *storage;

  if (!nbd_server_have ("nbdkit"))
    return;
  server = nbd_server_new ("nbdkit", BYTES, filters, parameters);
  nbd_server_start (server);
  storage = open_storage (server->uri, 4 * MIB);
  scene_round_trip (rand, &(SceneTrip){ .storage = storage,
                                        .bytes = 4 * MIB,
                                        .most = MIB,
                                        .steps = testing_steps (300),
                                        .at_a_time = 100,
                                        .discards = TRUE });
  storage_free (storage);
  nbd_server_free (server);
}

/* A request that is longer than the server's longest goes in parts. */
static void
test_parts (void) {
  const char *const filters[] = { "--filter=blocksize-policy", NULL };
  const char *const parameters[]
      = { "blocksize-minimum=4k", "blocksize-preferred=4k", "blocksize-maximum=64k", "blocksize-error-policy=error", NULL };
  g_autoptr (GRand) rand = testing_rand ();
  NbdServer *server;
  Storage *storage;

  if (!nbd_server_have ("nbdkit"))
    return;
  server = nbd_server_new ("nbdkit", BYTES, filters, parameters);
  nbd_server_start (server);
  storage = open_storage (server->uri, BYTES);
  scene_round_trip (
      rand, &(SceneTrip){ .storage = storage, .bytes = BYTES, .most = 2 * MIB, .steps = testing_steps (300), .at_a_time = 30 });
  storage_free (storage);
  nbd_server_free (server);
}

/* ---- errors ---- */

static void
set_failing (NbdServer *server, gboolean failing) {
  g_autofree char *path = g_build_filename (server->folder, "failing", NULL);

  if (failing)
    close (open (path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
  else
    unlink (path);
}

static void
test_errors (void) {
  const char *const filters[] = { "--filter=error", NULL };
  const char *const parameters[] = { "error-pread=EIO",
                                     "error-pread-rate=100%",
                                     "error-pread-file=FOLDER/failing",
                                     "error-pwrite=ENOSPC",
                                     "error-pwrite-rate=100%",
                                     "error-pwrite-file=FOLDER/failing",
                                     NULL };
  guint8 *buf = scene_buffer (MIB);
  NbdServer *server;
  Storage *storage;

  if (!nbd_server_have ("nbdkit"))
    return;
  server = nbd_server_new ("nbdkit", BYTES, filters, parameters);
  nbd_server_start (server);
  storage = open_storage (server->uri, BYTES);
  wait_settled (storage);
  for (int i = 0; i < 3; i++) {
    scene_pattern (buf, 0, MIB, 7);
    g_assert_cmpint (scene_do (storage, TRUE, 0, buf, MIB), ==, 0);
    set_failing (server, TRUE);
    g_assert_cmpint (scene_do (storage, TRUE, MIB, buf, MIB), ==, ENOSPC);
    g_assert_cmpint (scene_do (storage, FALSE, 0, buf, 4096), ==, EIO);
    set_failing (server, FALSE);
    memset (buf, 0, MIB);
    g_assert_cmpint (scene_do (storage, FALSE, 0, buf, MIB), ==, 0);
    g_assert_true (scene_is_pattern (buf, 0, MIB, 7));
    g_assert_true (is_reachable (storage));
  }
  free (buf);
  storage_free (storage);
  nbd_server_free (server);
}

static void
test_refused (void) {
  const char *const read_only[] = { "--readonly", NULL };
  g_autofree char *not_there = g_build_filename (g_get_tmp_dir (), "domybs-no-such-socket", NULL);
  g_autofree char *uri = g_strdup_printf ("nbd+unix:///?socket=%s", not_there), *other = NULL;
  NbdServer *server;

  expect_refused (uri, BYTES, "No such file");
  expect_refused ("nbd+unix:///x", BYTES, "no socket");
  expect_refused ("nbd://", BYTES, "host");
  expect_refused ("nbd://host/?socket=/x", BYTES, "socket=PATH is for");
  expect_refused ("nbd://host/?tls-psk-file=/x", BYTES, "nbds://");
  expect_refused ("nbd://host/?what=1", BYTES, "'what'");
  expect_refused ("nbd+unix:///?socket=/x&socket=/y", BYTES, "twice");
  expect_refused ("nbds://host/?tls-psk-file=/x&tls-certificates=/y", BYTES, "one of them");
  expect_refused ("nbd://host.invalid/", BYTES, "host.invalid");
  if (!nbd_server_have ("nbdkit"))
    return;
  server = nbd_server_new ("nbdkit", BYTES, read_only, NULL);
  nbd_server_start (server);
  expect_refused (server->uri, BYTES + 4096, "are needed");
  expect_refused (server->uri, BYTES, "can't be written");
  nbd_server_free (server);
  if (!nbd_server_have ("qemu-nbd"))
    return;
  server = nbd_server_new ("qemu-nbd", BYTES, NULL, NULL);
  nbd_server_start (server);
  other = g_strdup_printf ("nbd+unix:///other?socket=%s", server->socket);
  expect_refused (other, BYTES, "other");
  nbd_server_free (server);
}

/* ---- servers that stop, die and come back ---- */

static void
test_hung (void) {
  enum { N = 20 };
  guint8 *buf = scene_buffer (N * 4096);
  NbdServer *server;
  Storage *storage;
  SceneIo io[N];

  if (!nbd_server_have ("nbdkit"))
    return;
  server = nbd_server_new ("nbdkit", BYTES, NULL, NULL);
  nbd_server_start (server);
  storage = open_storage (server->uri, BYTES);
  wait_settled (storage);
  nbd_server_signal (server, SIGSTOP);
  for (guint64 i = 0; i < N; i++) {
    scene_pattern (buf + i * 4096, i * 4096, 4096, 1);
    scene_io (&io[i], TRUE, i * 4096, buf + i * 4096, 4096);
    scene_submit (storage, &io[i]);
  }
  storage_kick (storage);
  scene_run_for (1000);
  for (int i = 0; i < N; i++)
    g_assert_false (io[i].ended);
  g_assert_true (is_reachable (storage));
  nbd_server_signal (server, SIGCONT);
  for (int i = 0; i < N; i++) {
    scene_wait (&io[i].ended, 60);
    g_assert_cmpint (io[i].error, ==, 0);
  }
  g_assert_cmpint (scene_do (storage, FALSE, 0, buf, N * 4096), ==, 0);
  g_assert_true (scene_is_pattern (buf, 0, N * 4096, 1));
  free (buf);
  storage_free (storage);
  nbd_server_free (server);
}

/* With a write under way, writes wait after the server is back (the old one may come yet), and reads do not. */
static void
test_doubtful (void) {
  guint8 *written = scene_buffer (MIB), *read = scene_buffer (4096);
  NbdServer *server;
  Storage *storage;
  SceneIo write;

  if (!nbd_server_have ("nbdkit"))
    return;
  server = nbd_server_new ("nbdkit", BYTES, NULL, NULL);
  nbd_server_start (server);
  storage = open_storage (server->uri, BYTES);
  wait_settled (storage);
  nbd_server_signal (server, SIGSTOP);
  scene_pattern (written, MIB, MIB, 5);
  scene_io (&write, TRUE, MIB, written, MIB);
  scene_submit (storage, &write);
  storage_kick (storage);
  scene_run_for (50);
  nbd_server_kill (server);
  wait_reachable (storage, FALSE);
  g_assert_false (storage_is_settled (storage));
  scene_run_for (500);
  nbd_server_start (server);
  wait_reachable (storage, TRUE);
  g_assert_false (storage_is_settled (storage));
  g_assert_cmpint (scene_do (storage, FALSE, 0, read, 4096), ==, 0);
  g_assert_false (write.ended);
  scene_wait (&write.ended, 60);
  g_assert_true (storage_is_settled (storage));
  g_assert_cmpint (write.error, ==, 0);
  g_assert_cmpint (scene_do (storage, FALSE, MIB, read, 4096), ==, 0);
  g_assert_true (scene_is_pattern (read, MIB, 4096, 5));
  free (written);
  free (read);
  storage_free (storage);
  nbd_server_free (server);
}

struct disturbance {
  NbdServer *server;
  Storage *storage;
  unsigned left;
};

static void
restart_server (gpointer data) {
  struct disturbance *disturbance = data;

  if (disturbance->left == 0 || !is_reachable (disturbance->storage) || !storage_is_settled (disturbance->storage))
    return;
  disturbance->left--;
  storage_kick (disturbance->storage);
  nbd_server_kill (disturbance->server);
  wait_reachable (disturbance->storage, FALSE);
  nbd_server_start (disturbance->server);
}

static void
test_restarts (gconstpointer kind) {
  g_autoptr (GRand) rand = testing_rand ();
  struct disturbance disturbance = { .left = 3 };

  if (!nbd_server_have (kind))
    return;
  disturbance.server = nbd_server_new (kind, BYTES, NULL, NULL);
  nbd_server_start (disturbance.server);
  disturbance.storage = open_storage (disturbance.server->uri, BYTES);
  scene_round_trip (rand, &(SceneTrip){ .storage = disturbance.storage,
                                        .bytes = BYTES,
                                        .most = MIB / 2,
                                        .steps = 3000,
                                        .at_a_time = 60,
                                        .discards = TRUE,
                                        .disturb = restart_server,
                                        .disturb_data = &disturbance });
  g_assert_cmpuint (disturbance.left, ==, 0);
  storage_free (disturbance.storage);
  nbd_server_free (disturbance.server);
}

static void
test_tcp (void) {
  g_autoptr (GRand) rand = testing_rand ();
  struct disturbance disturbance = { .left = 1 };

  if (!nbd_server_have ("nbdkit"))
    return;
  disturbance.server = nbd_server_new ("nbdkit", BYTES, NULL, NULL);
  nbd_server_use_tcp (disturbance.server);
  nbd_server_start (disturbance.server);
  disturbance.storage = open_storage (disturbance.server->uri, BYTES);
  scene_round_trip (rand, &(SceneTrip){ .storage = disturbance.storage,
                                        .bytes = BYTES,
                                        .most = MIB / 2,
                                        .steps = 1000,
                                        .at_a_time = 60,
                                        .discards = TRUE,
                                        .disturb = restart_server,
                                        .disturb_data = &disturbance });
  g_assert_cmpuint (disturbance.left, ==, 0);
  storage_free (disturbance.storage);
  nbd_server_free (disturbance.server);
}

/* ---- TLS ---- */

/* Certificates, over TCP: the server has to have one for the name that is in the URI. */
static void
test_certificates (void) {
  const char *const filters[] = { "--tls=require", "--tls-certificates=FOLDER/pki", NULL };
  g_autoptr (GRand) rand = testing_rand ();
  g_autofree char *pki = NULL, *good = NULL, *wrong = NULL;
  struct disturbance disturbance = { .left = 1 };
  NbdServer *server;

  if (!nbd_server_have ("nbdkit") || !nbd_server_have ("openssl"))
    return;
  disturbance.server = server = nbd_server_new ("nbdkit", BYTES, filters, NULL);
  pki = g_build_filename (server->folder, "pki", NULL);
  g_assert_cmpint (g_mkdir (pki, 0700), ==, 0);
  g_assert_true (nbd_server_make_certificates (pki, "localhost"));
  nbd_server_use_tcp (server);
  nbd_server_start (server);
  good = g_strdup_printf ("nbds://localhost:%u/?tls-certificates=%s", server->port, pki);
  wrong = g_strdup_printf ("nbds://127.0.0.1:%u/?tls-certificates=%s", server->port, pki);
  expect_refused (wrong, BYTES, "ertificate");
  expect_refused (server->uri, BYTES, ""); /* without TLS */
  disturbance.storage = open_storage (good, BYTES);
  scene_round_trip (rand, &(SceneTrip){ .storage = disturbance.storage,
                                        .bytes = BYTES,
                                        .most = MIB / 2,
                                        .steps = 500,
                                        .at_a_time = 60,
                                        .discards = TRUE,
                                        .disturb = restart_server,
                                        .disturb_data = &disturbance });
  storage_free (disturbance.storage);
  nbd_server_free (server);
}

/* A shared key: without it, or with another one, there is no storage. */
static void
test_keys (void) {
  const char *const filters[] = { "--tls=require", "--tls-psk=FOLDER/keys", NULL };
  g_autoptr (GRand) rand = testing_rand ();
  g_autofree char *keys = NULL, *other = NULL, *good = NULL, *wrong_key = NULL, *wrong_user = NULL;
  NbdServer *server;
  Storage *storage;

  if (!nbd_server_have ("nbdkit"))
    return;
  server = nbd_server_new ("nbdkit", BYTES, filters, NULL);
  keys = g_build_filename (server->folder, "keys", NULL);
  other = g_build_filename (server->folder, "other", NULL);
  g_file_set_contents (keys, "vm1:00112233445566778899aabbccddeeff\n", -1, NULL);
  g_file_set_contents (other, "vm1:ff112233445566778899aabbccddeeff\nvm2:00112233445566778899aabbccddeeff\n", -1, NULL);
  nbd_server_use_tcp (server);
  nbd_server_start (server);
  good = g_strdup_printf ("nbds://vm1@localhost:%u/?tls-psk-file=%s", server->port, keys);
  wrong_key = g_strdup_printf ("nbds://vm1@localhost:%u/?tls-psk-file=%s", server->port, other);
  wrong_user = g_strdup_printf ("nbds://vm2@localhost:%u/?tls-psk-file=%s", server->port, other);
  expect_refused (wrong_key, BYTES, "");
  expect_refused (wrong_user, BYTES, "");
  storage = open_storage (good, BYTES);
  scene_round_trip (
      rand, &(SceneTrip){ .storage = storage, .bytes = BYTES, .most = MIB, .steps = 500, .at_a_time = 60, .discards = TRUE });
  storage_free (storage);
  nbd_server_free (server);
}

/* The process before may have died together with the server: the VM goes on, and so storage is there, though out of reach. */
static void
test_away_at_start (void) {
  g_autoptr (GError) error = NULL;
  guint8 *buf = scene_buffer (4096);
  int ends[2];
  NbdServer *server;
  Storage *storage;
  SceneIo read, write;

  if (!nbd_server_have ("nbdkit"))
    return;
  server = nbd_server_new ("nbdkit", BYTES, NULL, NULL);
  g_assert_cmpint (pipe2 (ends, O_CLOEXEC), ==, 0);
  storage = storage_new (server->uri, -1, BYTES, -1, ends[0], &error);
  g_assert_no_error (error);
  g_assert_false (is_reachable (storage));
  scene_io (&write, TRUE, 0, buf, 4096);
  scene_submit (storage, &write);
  scene_io (&read, FALSE, 8192, buf, 4096);
  scene_submit (storage, &read);
  storage_kick (storage);
  scene_run_for (700);
  g_assert_false (read.ended || write.ended);
  nbd_server_start (server);
  scene_wait (&read.ended, 60);
  g_assert_false (write.ended);
  scene_wait (&write.ended, 60);
  g_assert_cmpint (read.error, ==, 0);
  g_assert_cmpint (write.error, ==, 0);
  close (ends[0]);
  close (ends[1]);
  free (buf);
  storage_free (storage);
  nbd_server_free (server);
}

/* Freed with requests under way, and while it is out of reach: nothing is called, nothing leaks. */
static void
test_free (void) {
  guint8 *buf = scene_buffer (MIB);
  NbdServer *server;
  Storage *storage;
  SceneIo io;

  if (!nbd_server_have ("nbdkit"))
    return;
  server = nbd_server_new ("nbdkit", BYTES, NULL, NULL);
  for (int i = 0; i < 3; i++) {
    nbd_server_start (server);
    storage = open_storage (server->uri, BYTES);
    nbd_server_signal (server, SIGSTOP);
    scene_io (&io, i == 1, 0, buf, MIB);
    scene_submit (storage, &io);
    storage_discard (storage, 2 * MIB, MIB);
    storage_kick (storage);
    if (i == 2) {
      nbd_server_kill (server);
      wait_reachable (storage, FALSE);
    }
    storage_free (storage);
    g_assert_false (io.ended);
    nbd_server_kill (server);
  }
  free (buf);
  nbd_server_free (server);
}

static void
test_out_of_bounds (void) {
  guint8 *buf = scene_buffer (MIB);
  NbdServer *server;
  Storage *storage;

  if (!nbd_server_have ("nbdkit"))
    return;
  server = nbd_server_new ("nbdkit", 2 * BYTES, NULL, NULL);
  nbd_server_start (server);
  storage = open_storage (server->uri, BYTES);
  g_assert_cmpint (scene_do (storage, FALSE, BYTES, buf, 4096), ==, EINVAL);
  g_assert_cmpint (scene_do (storage, TRUE, BYTES - 4096, buf, 8192), ==, EINVAL);
  g_assert_cmpint (scene_do (storage, FALSE, 100, buf, 4096), ==, EINVAL);
  g_assert_cmpint (scene_do (storage, FALSE, G_MAXUINT64 - 4095, buf, 4096), ==, EINVAL);
  g_assert_cmpint (scene_do (storage, FALSE, 0, buf, 0), ==, EINVAL);
  g_assert_cmpint (scene_do (storage, FALSE, BYTES - 4096, buf, 4096), ==, 0);
  free (buf);
  storage_free (storage);
  nbd_server_free (server);
}

int
main (int argc, char **argv) {
  scene_init (&argc, &argv);
  g_test_add_data_func ("/storage/nbd/round-trip/nbdkit", "nbdkit", test_round_trip);
  g_test_add_data_func ("/storage/nbd/round-trip/qemu-nbd", "qemu-nbd", test_round_trip);
  g_test_add_data_func ("/storage/nbd/round-trip/qemu-storage-daemon", "qemu-storage-daemon", test_round_trip);
  g_test_add_func ("/storage/nbd/slow", test_slow);
  g_test_add_func ("/storage/nbd/parts", test_parts);
  g_test_add_func ("/storage/nbd/out-of-bounds", test_out_of_bounds);
  g_test_add_func ("/storage/nbd/errors", test_errors);
  g_test_add_func ("/storage/nbd/refused", test_refused);
  g_test_add_func ("/storage/nbd/hung", test_hung);
  g_test_add_func ("/storage/nbd/doubtful", test_doubtful);
  g_test_add_data_func ("/storage/nbd/restarts/nbdkit", "nbdkit", test_restarts);
  g_test_add_data_func ("/storage/nbd/restarts/qemu-nbd", "qemu-nbd", test_restarts);
  g_test_add_func ("/storage/nbd/tcp", test_tcp);
  g_test_add_func ("/storage/nbd/tls/certificates", test_certificates);
  g_test_add_func ("/storage/nbd/tls/keys", test_keys);
  g_test_add_func ("/storage/nbd/away-at-start", test_away_at_start);
  g_test_add_func ("/storage/nbd/free", test_free);
  return g_test_run ();
}
