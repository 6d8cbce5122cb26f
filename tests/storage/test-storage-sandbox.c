/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Storage within the sandbox: a process that is a keeper first, then a worker, then works. What it lacks, it would be ended
 * for. */
#include "nbd-server.h"
#include "storage-scene.h"

#include "io/sandbox-calls.h"
#include "io/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define MIB ((guint64)1 << 20)
#define BYTES (16 * MIB)

/* In place of an exec, at which the keeper's lock on all memory ends. */
SANDBOX_KEEPER_CALLS (SANDBOX_CALL (munlockall));

/* GLib's own asks whether stderr is a terminal. */
static GLogWriterOutput
write_log (GLogLevelFlags level, const GLogField *fields, gsize n_fields, gpointer data) {
  for (gsize i = 0; i < n_fields; i++)
    if (strcmp (fields[i].key, "MESSAGE") == 0)
      dprintf (STDERR_FILENO, "# %s\n", (const char *)fields[i].value);
  return G_LOG_WRITER_HANDLED;
}

static void
go (const char *spec) {
  g_autoptr (GError) error = NULL;
  g_autoptr (GRand) rand = testing_rand ();
  const int fd = storage_open_file (spec, BYTES, &error);
  Storage *storage;
  int ends[2];

  g_log_set_default_handler (g_log_default_handler, NULL); /* not g_test's */
  g_log_set_writer_func (write_log, NULL, NULL);
  g_assert_no_error (error);
  g_assert_cmpint (pipe2 (ends, O_CLOEXEC), ==, 0);
  sandbox_let_worker_lock (8 * MIB); /* newer kernels count rings, too */
  g_assert_true (sandbox_keeper (&error));
  g_assert_cmpint (sandbox_become_worker (), ==, 0);
  g_assert_cmpint (munlockall (), ==, 0);
  storage = storage_new (spec, fd, BYTES, ends[1], -1, &error);
  g_assert_no_error (error);
  sandbox_let_worker_have_kernel_threads ();
  g_assert_true (sandbox_worker (&error));
  g_assert_true (storage_allocate (storage, 0, BYTES / 2, &error));
  scene_round_trip (
      rand,
      &(SceneTrip){
          .storage = storage, .bytes = BYTES, .most = MIB, .steps = testing_steps (3000), .at_a_time = 50, .discards = TRUE });
  storage_free (storage);
  _exit (0);
}

static pid_t
start (const char *spec) {
  const pid_t child = fork ();

  g_assert_cmpint (child, >=, 0);
  if (child > 0)
    return child;
  prctl (PR_SET_PDEATHSIG, SIGKILL);
  go (spec);
  _exit (1);
}

static void
expect_good_end (pid_t child) {
  int status;

  while (waitpid (child, &status, 0) < 0)
    g_assert_cmpint (errno, ==, EINTR);
  if (WIFSIGNALED (status))
    g_error ("it was ended by signal %d%s", WTERMSIG (status),
             WTERMSIG (status) == SIGSYS ? ": a system call that is not on its list" : "");
  g_assert_cmpint (WEXITSTATUS (status), ==, 0);
}

static void
test_file (gconstpointer where) {
  char *folder = scene_folder (where);
  g_autofree char *path = g_build_filename (folder, "far", NULL);

  expect_good_end (start (path));
  scene_folder_free (folder);
}

/* A worker is somebody else where this runs as root. */
static void
open_to_all (NbdServer *server) {
  chmod (server->folder, 0755);
  chmod (server->socket, 0777);
}

static void
use_server (NbdServer *server, const char *uri, unsigned restarts) {
  pid_t child;

  nbd_server_start (server);
  open_to_all (server);
  child = start (uri);
  for (; restarts > 0; restarts--) {
    g_usleep (200000);
    nbd_server_kill (server);
    g_usleep (300000);
    nbd_server_start (server);
    open_to_all (server);
  }
  expect_good_end (child);
  nbd_server_free (server);
}

static void
test_nbd (gconstpointer kind) {
  NbdServer *server;

  if (!nbd_server_have (kind))
    return;
  server = nbd_server_new (kind, BYTES, NULL, NULL);
  use_server (server, server->uri, 2);
}

static void
test_tls (void) {
  const char *const filters[] = { "--tls=require", "--tls-psk=FOLDER/keys", "--filter=delay", NULL };
  const char *const parameters[] = { "delay-read=3ms", "delay-write=3ms", NULL };
  g_autofree char *keys = NULL, *uri = NULL;
  NbdServer *server;

  if (!nbd_server_have ("nbdkit"))
    return;
  server = nbd_server_new ("nbdkit", BYTES, filters, parameters);
  keys = g_build_filename (server->folder, "keys", NULL);
  g_assert_true (
      g_file_set_contents (keys, "vm1:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n", -1, NULL));
  chmod (keys, 0644);
  uri = g_strdup_printf ("nbds+unix://vm1@/?socket=%s&tls-psk-file=%s", server->socket, keys);
  use_server (server, uri, 1);
}

/* libnbd looks the name up itself, at each connection. */
static void
test_certificates (void) {
  const char *const filters[] = { "--tls=require", "--tls-certificates=FOLDER/pki", "--filter=delay", NULL };
  const char *const parameters[] = { "delay-read=3ms", "delay-write=3ms", NULL };
  g_autofree char *pki = NULL, *authority = NULL, *uri = NULL;
  NbdServer *server;

  if (!nbd_server_have ("nbdkit") || !nbd_server_have ("openssl"))
    return;
  server = nbd_server_new ("nbdkit", BYTES, filters, parameters);
  pki = g_build_filename (server->folder, "pki", NULL);
  authority = g_build_filename (pki, "ca-cert.pem", NULL);
  g_assert_cmpint (mkdir (pki, 0755), ==, 0);
  g_assert_true (nbd_server_make_certificates (pki, "localhost"));
  chmod (pki, 0755);
  chmod (authority, 0644);
  nbd_server_use_tcp (server);
  uri = g_strdup_printf ("nbds://localhost:%u/?tls-certificates=%s", server->port, pki);
  use_server (server, uri, 2);
}

int
main (int argc, char **argv) {
  scene_init (&argc, &argv);
  g_test_add_data_func ("/storage/sandbox/tmpfs", "/dev/shm", test_file);
  g_test_add_data_func ("/storage/sandbox/disk", "/var/tmp", test_file);
  g_test_add_data_func ("/storage/sandbox/nbdkit", "nbdkit", test_nbd);
  g_test_add_data_func ("/storage/sandbox/qemu-nbd", "qemu-nbd", test_nbd);
  g_test_add_func ("/storage/sandbox/tls/keys", test_tls);
  g_test_add_func ("/storage/sandbox/tls/certificates", test_certificates);
  return g_test_run ();
}
