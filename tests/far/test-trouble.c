/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Storage in trouble: full, failing, slow, hung, gone for a while. What was acknowledged stays right, what can't be done is an
 * I/O error, what takes its time is waited for, and the control socket answers all the while. */
#include "load.h"
#include "testing.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <glib/gstdio.h>

static const char *const small_stage[] = { "--stage=8M", NULL };

/* ---- a file system without space ---- */

static void
full_file_system (void) {
  g_autofree char *directory = g_dir_make_tmp ("domybs-far-XXXXXX", NULL),
                  *storage = g_build_filename (directory, "storage", NULL);
  g_autoptr (GRand) random = testing_rand ();
  struct load load;
  struct far *far;

  if (mount ("none", directory, "tmpfs", 0, "size=40m") < 0) {
    g_test_skip ("no mounts here");
    g_rmdir (directory);
    return;
  }
  far = far_start (&(struct far_options){ .bytes = 64ull << 20, .storage = storage, .arguments = small_stage });
  load_init (&load, far, far_connect (far, 0), 0, random);
  load.may_fail_writes = true;
  load.kinds = 1u << LOAD_RANDOM;
  load_write_all (&load, 0, load.n_pages, LOAD_RANDOM);
  g_test_message ("%" G_GUINT64_FORMAT " of %" G_GUINT64_FORMAT " writes failed", load.failed_writes, load.writes);
  g_assert_cmpuint (load.failed_writes, >, 0);
  g_assert_cmpint (far_status (far, 0, "pages.raw"), >, 4096); /* 32 MiB of it are places */
  load_check_all (&load);
  load_run (&load, 500);
  load_check_all (&load);
  /* Half of it is given up: then there is room again, without anybody's help. */
  for (uint64_t first = 0; first < load.n_pages; first += 512) {
    const bool all = first >= load.n_pages / 8;

    if (!all)
      continue;
    g_assert_cmpint (blk_io (load.blk, BLK_T_DISCARD, first, 512, NULL), ==, BLK_S_OK);
    for (uint64_t i = first; i < first + 512; i++)
      load.pages[i] = (struct load_page){ .kind = LOAD_ZERO };
  }
  load.may_fail_writes = false;
  load_write_all (&load, 0, load.n_pages / 4, LOAD_RANDOM);
  load_check_all (&load);
  load_clear (&load);
  far_end (far);
  /* Later, if the kernel has not put all of the last worker's ring away yet. */
  g_assert_cmpint (umount2 (directory, MNT_DETACH), ==, 0);
  g_assert_cmpint (g_rmdir (directory), ==, 0);
}

/* ---- NBD servers ---- */

struct server {
  char *directory, *socket, *uri, *image, *trouble;
  pid_t pid;
};

static void
server_run (struct server *server, const char *const *filter) {
  g_autoptr (GPtrArray) argv = g_ptr_array_new ();
  int64_t deadline = fe_now_ms () + fe_patience_ms ();
  g_autofree char *file = g_strdup_printf ("file=%s", server->image);

  g_ptr_array_add (argv, (char *)"nbdkit");
  g_ptr_array_add (argv, (char *)"--foreground");
  g_ptr_array_add (argv, (char *)"--unix");
  g_ptr_array_add (argv, server->socket);
  if (filter) {
    g_ptr_array_add (argv, (char *)"--filter");
    g_ptr_array_add (argv, (char *)filter[0]);
  }
  g_ptr_array_add (argv, (char *)"file");
  g_ptr_array_add (argv, file);
  for (unsigned i = 1; filter && filter[i]; i++)
    g_ptr_array_add (argv, (char *)filter[i]);
  g_ptr_array_add (argv, NULL);
  g_unlink (server->socket);
  server->pid = fork ();
  if (server->pid == 0) {
    const int null = open ("/dev/null", O_RDWR);

    /* Stopped, it outlives a test that aborts (PDEATHSIG does not reach it then, measured on 6.18): it must hold no pipe of the runner's. */
    prctl (PR_SET_PDEATHSIG, SIGKILL);
    for (int fd = 0; fd < 3; fd++)
      dup2 (null, fd);
    execvp (argv->pdata[0], (char **)argv->pdata);
    _exit (127);
  }
  /* Workers are another user. */
  while (g_chmod (server->socket, 0666) < 0) {
    g_assert_cmpint (fe_now_ms (), <, deadline);
    g_usleep (2000);
  }
}

static void
server_start (struct server *server, const char *const *filter) {
  g_autofree char *program = g_find_program_in_path ("nbdkit");
  FILE *image;

  *server = (struct server){ .directory = g_dir_make_tmp ("domybs-far-XXXXXX", NULL) };
  g_chmod (server->directory, 0755);
  server->socket = g_build_filename (server->directory, "nbd", NULL);
  server->image = g_build_filename (server->directory, "image", NULL);
  server->trouble = g_build_filename (server->directory, "trouble", NULL);
  server->uri = g_strdup_printf ("nbd+unix:///?socket=%s", server->socket);
  image = g_fopen (server->image, "w");
  g_assert_cmpint (ftruncate (fileno (image), 256 << 20), ==, 0);
  fclose (image);
  if (program)
    server_run (server, filter);
}

static void
server_kill (struct server *server) {
  kill (server->pid, SIGKILL);
  waitpid (server->pid, NULL, 0);
}

static void
server_end (struct server *server) {
  if (server->pid > 0)
    server_kill (server);
  g_unlink (server->socket);
  g_unlink (server->image);
  g_unlink (server->trouble);
  g_assert_cmpint (g_rmdir (server->directory), ==, 0);
  g_free (server->directory);
  g_free (server->socket);
  g_free (server->uri);
  g_free (server->image);
  g_free (server->trouble);
}

static bool
have_nbdkit (void) {
  g_autofree char *program = g_find_program_in_path ("nbdkit");

  if (!program)
    g_test_skip ("no nbdkit here");
  return program != NULL;
}

static void
nbd_begin (struct server *server, struct load *load, GRand *random) {
  struct far *far = far_start (&(struct far_options){ .bytes = 32ull << 20, .storage = server->uri, .arguments = small_stage });

  load_init (load, far, far_connect (far, 0), 0, random);
  load->kinds = 1u << LOAD_RANDOM | 1u << LOAD_TEXT;
}

static void
nbd_end (struct server *server, struct load *load) {
  struct far *far = load->far;

  load_clear (load);
  far_end (far);
  server_end (server);
}

static void
failing (void) {
  g_autoptr (GRand) random = testing_rand ();
  struct server server;
  struct load load;

  if (!have_nbdkit ())
    return;
  server_start (&server, NULL);
  server_kill (&server);
  {
    g_autofree char *when = g_strdup_printf ("error-file=%s", server.trouble);
    const char *filter[] = { "error", "error=EIO", "error-pread-rate=20%", "error-pwrite-rate=10%", when, NULL };

    server_run (&server, filter);
  }
  nbd_begin (&server, &load, random);
  load_write_all (&load, 0, load.n_pages / 2, LOAD_RANDOM);
  g_assert_true (g_file_set_contents (server.trouble, "", 0, NULL));
  load.may_fail_reads = true;
  load.may_fail_writes = true; /* when places run out */
  load_run (&load, testing_steps (1500));
  g_test_message ("%" G_GUINT64_FORMAT " reads and %" G_GUINT64_FORMAT " writes failed", load.failed_reads, load.failed_writes);
  g_assert_cmpuint (load.failed_reads, >, 0);
  g_assert_cmpint (far_status (load.far, 0, "storage-errors"), >, 0);
  g_unlink (server.trouble);
  load.may_fail_reads = load.may_fail_writes = false;
  load_check_all (&load); /* all that was acknowledged is there */
  g_assert_cmpint (far_status (load.far, 0, "damaged-pages"), ==, 0);
  nbd_end (&server, &load);
}

static void
slow (void) {
  static const char *const filter[] = { "delay", "rdelay=20ms", "wdelay=100ms", NULL };
  g_autoptr (GRand) random = testing_rand ();
  struct server server;
  struct load load;

  if (!have_nbdkit ())
    return;
  server_start (&server, filter);
  nbd_begin (&server, &load, random);
  load_write_all (&load, 0, load.n_pages / 2, LOAD_RANDOM);
  load_run (&load, testing_steps (500));
  load_check_all (&load);
  nbd_end (&server, &load);
}

/* Only what is still being filled is left in the stage: that none is being written at the moment does not say so. */
static void
wait_written_out (struct far *far) {
  const int64_t deadline = fe_now_ms () + fe_patience_ms ();

  while (far_status (far, 0, "stage.slots") - far_status (far, 0, "stage.free") > 1) {
    g_assert_cmpint (fe_now_ms (), <, deadline);
    g_usleep (10000);
  }
}

static void
wait_status (struct far *far, const char *member, int64_t value) {
  const int64_t deadline = fe_now_ms () + fe_patience_ms ();

  while (far_status (far, 0, member) != value) {
    g_assert_cmpint (fe_now_ms (), <, deadline);
    g_usleep (10000);
  }
}

/* The server stands still: requests that need it wait and are seen to, the others don't; then all goes on. `kill_worker`: also
 * over a worker's end, after which the next one has to wait for a server that says nothing. */
static void
hung (gconstpointer data) {
  const bool kill_worker = data != NULL;
  g_autoptr (GRand) random = testing_rand ();
  const struct blk_shape plain = { 0 };
  struct server server;
  struct load load;
  uint8_t status;
  unsigned slot;

  if (!have_nbdkit ())
    return;
  server_start (&server, NULL);
  nbd_begin (&server, &load, random);
  load_write_all (&load, 0, load.n_pages, LOAD_RANDOM);
  wait_written_out (load.far);
  g_assert_true (testing_stop (server.pid));
  if (kill_worker)
    far_kill_worker (load.far);
  else {
    /* Page 0 was written first, so it is not in the stage. */
    blk_prepare (load.blk, 0, BLK_IN, 0, 1);
    blk_submit (load.blk, 0, &plain, NULL);
    blk_kick (load.blk, 0);
    wait_status (load.far, "waiting", 1);
    g_assert_false (blk_wait (load.blk, &slot, &status, 100));
    g_assert_cmpint (far_status (load.far, 0, "waiting"), ==, 1);
    g_assert_cmpint (far_status (load.far, 0, "oldest-wait-ms"), >, 0);
    g_assert_cmpint (far_status (load.far, 0, "in-flight"), ==, 1);
  }
  g_usleep (300000);
  g_assert_cmpint (kill (server.pid, SIGCONT), ==, 0);
  if (!kill_worker) {
    blk_must (load.blk, blk_wait (load.blk, &slot, &status, fe_patience_ms ()));
    g_assert_cmpint (status, ==, BLK_S_OK);
  }
  load_run (&load, 200);
  load_check_all (&load);
  nbd_end (&server, &load);
}

/* The server dies and comes back, again and again. */
static void
gone (void) {
  g_autoptr (GRand) random = testing_rand ();
  struct server server;
  struct load load;

  if (!have_nbdkit ())
    return;
  server_start (&server, NULL);
  nbd_begin (&server, &load, random);
  load_write_all (&load, 0, load.n_pages / 2, LOAD_RANDOM);
  load.read_percent = 80;
  for (unsigned i = 0; i < 2; i++) {
    for (unsigned k = 0; k < 30; k++)
      load_begin (&load);
    server_kill (&server);
    for (unsigned k = 0; k < 30; k++)
      load_begin (&load);
    g_usleep (50000);
    server_run (&server, NULL);
    load_drain (&load);
  }
  load_check_all (&load);
  g_assert_cmpint (far_status_top (load.far, "worker.starts"), ==, 1);
  nbd_end (&server, &load);
}

/* At the start that is the operator's mistake, and said at once. */
static void
not_there (void) {
  struct far *far = far_start (&(struct far_options){ .bytes = 16ull << 20, .storage = "nbd+unix:///?socket=/nowhere/nbd" });
  g_autofree char *log = NULL;

  g_assert_true (backend_wait_end (far->backend, 3 * fe_patience_ms ()));
  log = backend_log_from (far->backend, 0);
  if (WEXITSTATUS (far->backend->wait_status) != 1 || !strstr (log, "/nowhere/nbd"))
    g_error ("%s, log: %s", backend_end_text (far->backend), log);
  far_end (far);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/far/trouble/full-file-system", full_file_system);
  g_test_add_func ("/far/trouble/failing", failing);
  g_test_add_func ("/far/trouble/slow", slow);
  g_test_add_data_func ("/far/trouble/hung", NULL, hung);
  g_test_add_data_func ("/far/trouble/hung-and-killed", "", hung);
  g_test_add_func ("/far/trouble/gone", gone);
  g_test_add_func ("/far/trouble/not-there", not_there);
  return g_test_run ();
}
