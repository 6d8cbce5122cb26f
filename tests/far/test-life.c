/* SPDX-License-Identifier: GPL-2.0-or-later */
/* domybs-far's life: command lines that are refused, connections that come, go and come again, a second front-end, --once,
 * restart, upgrade and its undoing, several disks, and what is left behind at the end. */
#include "load.h"
#include "testing.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <glib/gstdio.h>

/* ---- command lines ---- */

static void
expect_refused (const char *const *arguments, int status, const char *words) {
  struct far *far = far_start_arguments (arguments);
  g_autofree char *log = NULL;

  if (!backend_wait_end (far->backend, fe_patience_ms ()))
    g_error ("it runs");
  log = backend_log_from (far->backend, 0);
  if (WEXITSTATUS (far->backend->wait_status) != status || !strstr (log, words))
    g_error ("%s, log: %s; expected exit %d and '%s'", backend_end_text (far->backend), log, status, words);
  g_assert_null (strchr (strchr (log, '\n') + 1, '\n')); /* one line */
  far_end (far);
}

#define NAME "--name=x"
#define DISK "--disk=shared,size=4M,socket=/nowhere/s,storage=/nowhere/t"

static void
command_lines (void) {
  static const struct {
    const char *arguments[6];
    const char *words;
  } wrong[] = {
    { { NULL }, "--name is missing" },
    { { NAME, NULL }, "--disk is missing" },
    { { NAME, "--disk=", NULL }, "'' is no name of a disk" },
    { { NAME, "--disk=Shared,size=4M", NULL }, "is no name of a disk" },
    { { NAME, "--disk=shared-for-everybody,size=4M", NULL }, "is no name of a disk" },
    { { NAME, "--disk=shared,size=4M,socket=/a", NULL }, "storage= is missing" },
    { { NAME, "--disk=shared,size=4M,storage=/a", NULL }, "socket=PATH is missing" },
    { { NAME, "--disk=shared,storage=/a,socket=/b", NULL }, "size=SIZE is missing" },
    { { NAME, "--disk=shared,size=5000,socket=/a,storage=/b", NULL }, "not a multiple of 2M" },
    { { NAME, "--disk=shared,size=0,socket=/a,storage=/b", NULL }, "not a multiple of 2M" },
    { { NAME, "--disk=shared,size=32T,socket=/a,storage=/b", NULL }, "more than 16T" },
    { { NAME, "--disk=shared,size=x,socket=/a,storage=/b", NULL }, "size='x' is not a size" },
    { { NAME, "--disk=shared,size=4M,socket=/a,storage=/b,queues=17", NULL }, "from 1 to 16" },
    { { NAME, "--disk=shared,size=4M,socket=/a,storage=/b,queues=-1", NULL }, "from 1 to 16" },
    { { NAME, "--disk=shared,size=4M,socket=/a,storage=/b,spare=1000", NULL }, "from 0 to" },
    { { NAME, "--disk=shared,size=4M,socket=/a,storage=/b,color=red", NULL }, "there is no 'color'" },
    { { NAME, "--disk=shared,size=4M,socket,storage=/b", NULL }, "'socket' is no NAME=VALUE" },
    { { NAME, DISK, DISK, NULL }, "two of that name" },
    { { NAME, DISK, "--disk=remote,size=4M,socket=/nowhere/r,storage=/nowhere/t", NULL }, "each needs its own" },
    { { NAME, DISK, "--stage=1M", NULL }, "from 8M to" },
    { { NAME, DISK, "--stage=2G", NULL }, "from 8M to" },
    { { NAME, DISK,
        "--memory-device=/run/a/path/that/is/longer/than/what/the/kernel/takes/for/a/unix/socket/which/is/one/hundred/and/seven/bytes",
        NULL },
      "longer than a socket's path" },
    { { NAME, DISK, "--compress", "--no-compress", NULL }, "can't be used together" },
    { { NAME, DISK, "--socket-mode=9", NULL }, "not an octal mode" },
    { { NAME, DISK, "--socket-group=no-such-group", NULL }, "no group 'no-such-group'" },
    { { NAME, DISK, "more", NULL }, "unknown argument 'more'" },
    { { "--name=a\nb", DISK, NULL }, "printable text" },
    { { NAME, DISK ",protection=mirror", NULL }, "needs donors" },
    { { NAME, DISK ",protection=raid", NULL }, "none of ssd, mirror, storage" },
    { { NAME, DISK, "--donor=b c,address=x:1,tls=off", NULL }, "is no name of a donor" },
    { { NAME, DISK, "--donor=b,tls=off", NULL }, "address=HOST:PORT is missing" },
    { { NAME, DISK, "--donor=b,address=x:1", NULL }, "psk=FILE is missing" },
    { { NAME, DISK, "--donor=b,address=x:1,psk=/nowhere/k,tls=off", NULL }, "can't be used together" },
    { { NAME, DISK, "--donor=b,address=x:1,tls=off,size=1K", NULL }, "no size of 2M or more" },
    { { NAME, DISK, "--donor=b,address=x:1,tls=off,color=red", NULL }, "there is no 'color'" },
    { { NAME, DISK, "--donor=b,address=x:1,tls=off", "--donor=c,address=x:1,tls=off", NULL }, "name or the address of another one" },
    { { NAME, DISK, "--donor-away=0", NULL }, "from 1 to" },
    { { NAME, DISK, "--repair-rate=1M", NULL }, "4M or more" },
  };

  for (unsigned i = 0; i < G_N_ELEMENTS (wrong); i++)
    expect_refused (wrong[i].arguments, 2, wrong[i].words);
  expect_refused ((const char *const[]){ NAME, DISK, NULL }, 1, "/nowhere/s");
}

/* Something is in the way: it stays as it is, and nothing of ours is left. */
static void
storage_in_the_way (void) {
  g_autofree char *directory = g_dir_make_tmp ("domybs-far-XXXXXX", NULL),
                  *file = g_build_filename (directory, "precious", NULL), *socket = g_build_filename (directory, "sock", NULL),
                  *text = NULL, *disk = g_strdup_printf ("--disk=shared,size=4M,socket=%s,storage=%s", socket, file);

  g_assert_true (g_file_set_contents (file, "precious", -1, NULL));
  expect_refused ((const char *const[]){ NAME, disk, NULL }, 1, "precious");
  g_assert_true (g_file_get_contents (file, &text, NULL, NULL));
  g_assert_cmpstr (text, ==, "precious");
  g_assert_false (g_file_test (socket, G_FILE_TEST_EXISTS));
  {
    g_autoptr (far_t) first = far_start (&(struct far_options){ .bytes = 4ull << 20 });
    g_autofree char *same = g_strdup_printf ("--disk=shared,size=4M,socket=%s,storage=%s", socket, first->storage_path);
    blk_free (far_connect (first, 0));
    expect_refused ((const char *const[]){ NAME, same, NULL }, 1, "in use");
    g_assert_true (g_file_test (first->storage_path, G_FILE_TEST_EXISTS));
  }
  g_unlink (file);
  g_assert_cmpint (g_rmdir (directory), ==, 0);
}

/* ---- files ---- */

static void
files (void) {
  struct far *far = far_start (&(struct far_options){ .bytes = 8ull << 20 });
  g_autofree char *storage = g_strdup (far->storage_path), *socket = g_strdup (far->socket_paths[0]),
                  *control = g_strdup (far->backend->control_path);
  struct stat st;

  blk_free (far_connect (far, 0));
  g_assert_cmpint (g_stat (storage, &st), ==, 0);
  g_assert_cmpuint (st.st_mode & 0777, ==, 0600);
  g_assert_cmpint (g_stat (control, &st), ==, 0);
  g_assert_cmpuint (st.st_mode & 0777, ==, 0600);
  g_assert_cmpint (backend_stop (far->backend), ==, 0);
  g_assert_false (g_file_test (storage, G_FILE_TEST_EXISTS)); /* it made it */
  g_assert_false (g_file_test (socket, G_FILE_TEST_EXISTS));
  g_assert_false (g_file_test (control, G_FILE_TEST_EXISTS));
  far_end (far);
}

static void
files_of_others (void) {
  g_autofree char *path = NULL;
  struct far *far;
  int fd = g_file_open_tmp ("domybs-far-XXXXXX", &path, NULL);

  close (fd);
  far = far_start (&(struct far_options){ .bytes = 8ull << 20, .storage = path });
  blk_free (far_connect (far, 0));
  g_assert_cmpint (backend_stop (far->backend), ==, 0);
  g_assert_true (g_file_test (path, G_FILE_TEST_EXISTS)); /* it was there before */
  far_end (far);
}

/* ---- connections ---- */

static void
reconnects (void) {
  g_autoptr (far_t) far = far_start (&(struct far_options){ .bytes = 16ull << 20 });
  g_autoptr (GRand) random = testing_rand ();
  struct load load;

  load_init (&load, far, far_connect (far, 0), 0, random);
  for (unsigned i = 0; i < 20; i++) {
    load_run (&load, 100);
    while (load.blk->n_in_flight < 8)
      load_begin (&load);
    blk_disconnect (load.blk); /* in the middle of it */
    load_reconnect (&load);
    load_drain (&load);
  }
  load_check_all (&load);
  g_assert_cmpint (far_status (far, 0, "connections"), ==, 21);
  g_assert_cmpint (far_status_top (far, "worker.starts"), ==, 1);
  /* A pause, and a guest that was reset. */
  for (unsigned i = 0; i < 5; i++) {
    blk_must (load.blk, blk_stop_queues (load.blk));
    blk_must (load.blk, blk_start_queues (load.blk));
    load_run (&load, 50);
  }
  blk_must (load.blk, blk_stop_queues (load.blk));
  blk_forget (load.blk);
  blk_must (load.blk, blk_start_queues (load.blk));
  load_run (&load, 100);
  load_check_all (&load);
  load_clear (&load);
}

/* One is served; the other one waits, costs nothing meanwhile, and is next. */
static void
second_front_end (void) {
  g_autoptr (far_t) far = far_start (&(struct far_options){ .bytes = 16ull << 20 });
  struct blk *first = far_connect (far, 0);
  g_autoptr (blk_t) second = blk_new ();
  uint8_t page[BLK_PAGE] = { 7 };

  g_assert_cmpint (blk_io (first, BLK_OUT, 1, 1, page), ==, BLK_S_OK);
  g_assert_true (fe_connect (second->fe, far->socket_paths[0]));
  g_assert_cmpint (blk_io (first, BLK_IN, 1, 1, page), ==, BLK_S_OK);
  g_assert_cmpint (far_status (far, 0, "connections"), ==, 1);
  blk_disconnect (second);
  blk_free (first);
  blk_must (second, blk_connect (second, far->socket_paths[0]));
  g_assert_cmpint (blk_io (second, BLK_IN, 1, 1, page), ==, BLK_S_OK);
  g_assert_cmpint (page[0], ==, 7);
}

/* A VM that worked with another keeper: its pages are gone, and it must not take zeroes for them. */
static void
another_keepers_vm (void) {
  struct far *far = far_start (&(struct far_options){ .bytes = 16ull << 20 });
  g_autoptr (blk_t) blk = far_connect (far, 0);
  g_autofree char *path = g_strdup (far->storage_path);
  uint8_t page[BLK_PAGE] = { 7 };

  g_assert_cmpint (blk_io (blk, BLK_OUT, 1, 1, page), ==, BLK_S_OK);
  backend_kill (far->backend);
  far_end (far);
  far = far_start (&(struct far_options){ .bytes = 16ull << 20 });
  if (blk_connect (blk, far->socket_paths[0]))
    g_assert_cmpint (blk_io (blk, BLK_IN, 1, 1, page), ==, BLK_S_NONE);
  g_assert_false (blk_is_connected (blk));
  g_assert_true (backend_wait_log (far->backend, 0, "another", fe_patience_ms ()));
  blk_disconnect (blk);
  blk_forget (blk); /* a reset */
  blk_must (blk, blk_connect (blk, far->socket_paths[0]));
  g_assert_cmpint (blk_io (blk, BLK_IN, 1, 1, page), ==, BLK_S_OK);
  far_end (far);
}

static void
several_disks (void) {
  g_autoptr (far_t) far = far_start (&(struct far_options){ .bytes = 8ull << 20, .n_disks = 8, .disk_extra = ",queues=1" });
  struct load loads[8];
  GRand *random = testing_rand ();

  for (unsigned i = 0; i < 8; i++)
    load_init (&loads[i], far, far_connect (far, i), i, random);
  for (unsigned round = 0; round < 5; round++) {
    for (unsigned i = 0; i < 8; i++)
      load_run (&loads[i], 100);
    far_kill_worker (far);
  }
  for (unsigned i = 0; i < 8; i++) {
    load_check_all (&loads[i]);
    g_assert_cmpint (far_status (far, i, "damaged-pages"), ==, 0);
    load_clear (&loads[i]);
  }
  g_rand_free (random);
}

/* ---- ends ---- */

static void
once (void) {
  static const char *const arguments[] = { "--once", NULL };
  g_autoptr (far_t) far = far_start (&(struct far_options){ .bytes = 8ull << 20, .n_disks = 2, .arguments = arguments });
  g_autoptr (blk_t) first = far_connect (far, 0);
  g_autoptr (blk_t) second = far_connect (far, 1);

  blk_disconnect (first);
  blk_must (first, blk_connect (first, far->socket_paths[0])); /* as QEMU does after an error: that is no end */
  blk_disconnect (first);
  g_usleep (100000);
  g_assert_true (backend_is_alive (far->backend));
  blk_disconnect (second);
  g_assert_true (backend_wait_end (far->backend, 2 * fe_patience_ms ()));
  g_assert_cmpint (far->backend->wait_status, ==, 0);
  g_assert_false (g_file_test (far->storage_path, G_FILE_TEST_EXISTS));
}

static void
keeper_killed (void) {
  g_autoptr (far_t) far = far_start (&(struct far_options){ .bytes = 8ull << 20 });
  g_autoptr (blk_t) blk = far_connect (far, 0);

  backend_kill (far->backend); /* its worker ends by itself */
  g_assert_true (fe_wait_closed (blk->fe, fe_patience_ms ()));
}

/* ---- restart and upgrade ---- */

static void
command (struct far *far, const char *name) {
  g_autofree char *line = g_strdup_printf ("{\"execute\":\"%s\"}", name);
  const int64_t starts = far_status_top (far, "worker.starts"), deadline = fe_now_ms () + fe_patience_ms ();
  JsonNode *answer = backend_control_once (far->backend, line);

  g_assert_null (answer); /* the answer to success is the end of the connection */
  while (far_status_top (far, "worker.starts") == starts) {
    g_assert_cmpint (fe_now_ms (), <, deadline);
    g_usleep (2000);
  }
}

static void
copy (const char *from, const char *to) {
  g_autofree char *text = NULL, *beside = g_strconcat (to, ".new", NULL);
  gsize n;

  g_assert_true (g_file_get_contents (from, &text, &n, NULL));
  g_assert_true (g_file_set_contents (beside, text, (gssize)n, NULL));
  g_assert_cmpint (g_chmod (beside, 0755), ==, 0);
  g_assert_cmpint (g_rename (beside, to), ==, 0);
}

static void
upgrades (void) {
  g_autofree char *directory = g_dir_make_tmp ("domybs-far-XXXXXX", NULL),
                  *program = g_build_filename (directory, "domybs-far", NULL);
  g_autoptr (GRand) random = testing_rand ();
  struct load load;
  struct far *far;

  copy (g_getenv ("DOMYBS_FAR"), program);
  far = far_start (&(struct far_options){ .bytes = 16ull << 20, .program = program });
  load_init (&load, far, far_connect (far, 0), 0, random);
  load_run (&load, 500);
  command (far, "restart");
  load_run (&load, 100);
  g_assert_cmpint (far_status_top (far, "worker.deaths"), ==, 0);
  copy (g_getenv ("DOMYBS_FAR"), program);
  command (far, "upgrade");
  load_run (&load, 100);
  g_assert_cmpint (far_status_top (far, "worker.deaths"), ==, 0);
  /* One that says it can't, and one that just dies: the program before goes on. */
  for (unsigned i = 0; i < 2; i++) {
    copy (g_getenv (i ? "DOMYBS_FAR_DIES" : "DOMYBS_FAR_CANT"), program);
    command (far, "upgrade");
    load_run (&load, 100);
    g_assert_cmpint (far_status_top (far, "worker.deaths"), >, i);
    g_assert_true (backend_wait_log (far->backend, 0, "back to the program before the upgrade", fe_patience_ms ()));
  }
  g_assert_cmpint (g_unlink (program), ==, 0);
  command (far, "upgrade"); /* there is none */
  load_run (&load, 100);
  load_check_all (&load);
  load_clear (&load);
  far_end (far);
  g_assert_cmpint (g_rmdir (directory), ==, 0);
}

/* ---- control socket ---- */

static void
commands (void) {
  g_autoptr (far_t) far = far_start (&(struct far_options){ .bytes = 16ull << 20, .n_disks = 2 });
  g_autoptr (blk_t) blk = far_connect (far, 0);
  g_autoptr (JsonNode) blocks = NULL, wrong = NULL, cells = NULL;
  JsonArray *in_use;
  uint8_t page[BLK_PAGE] = { 7 };

  g_assert_cmpint (blk_io (blk, BLK_OUT, 512, 1, page), ==, BLK_S_OK);
  blocks = backend_control (far->backend, "{\"execute\":\"blocks\",\"arguments\":{\"cells\":4}}");
  in_use = json_object_get_array_member (
      json_array_get_object_element (
          json_object_get_array_member (json_object_get_object_member (json_node_get_object (blocks), "return"), "disks"), 0),
      "in-use");
  g_assert_cmpuint (json_array_get_length (in_use), ==, 4);
  g_assert_cmpint (json_array_get_int_element (in_use, 0), ==, 1);
  g_assert_cmpint (json_array_get_int_element (in_use, 1), ==, 0);
  wrong = backend_control (far->backend, "{\"execute\":\"grow\"}");
  g_assert_true (json_object_has_member (json_node_get_object (wrong), "error"));
  cells = backend_control (far->backend, "{\"execute\":\"blocks\",\"arguments\":{\"cells\":0}}");
  g_assert_true (json_object_has_member (json_node_get_object (cells), "error"));
  g_assert_cmpint (far_status (far, 0, "pages.raw"), ==, 1);
  g_assert_cmpint (far_status (far, 1, "pages.raw"), ==, 0);
  g_assert_cmpint (far_status (far, 0, "size-bytes"), ==, 16 << 20);
  g_assert_cmpint (far_status (far, 0, "writes"), ==, 1);
  g_assert_cmpint (far_status (far, 0, "write-latency-us.p50"), >, 0);
  g_assert_cmpint (far_status (far, 0, "read-latency-us.p50"), ==, INT64_MIN);
  g_assert_cmpint (far_status_top (far, "worker.starts"), ==, 1);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/far/life/command-lines", command_lines);
  g_test_add_func ("/far/life/storage-in-the-way", storage_in_the_way);
  g_test_add_func ("/far/life/files", files);
  g_test_add_func ("/far/life/files-of-others", files_of_others);
  g_test_add_func ("/far/life/reconnects", reconnects);
  g_test_add_func ("/far/life/second-front-end", second_front_end);
  g_test_add_func ("/far/life/another-keepers-vm", another_keepers_vm);
  g_test_add_func ("/far/life/several-disks", several_disks);
  g_test_add_func ("/far/life/once", once);
  g_test_add_func ("/far/life/keeper-killed", keeper_killed);
  g_test_add_func ("/far/life/upgrades", upgrades);
  g_test_add_func ("/far/life/commands", commands);
  return g_test_run ();
}
