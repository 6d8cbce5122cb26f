/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The worker dies under load: by SIGKILL at random, also again while it starts, and in the program that is built with crash
 * points at each point of small operations, one after the other, and at random points of large ones. The front-end connects
 * again as QEMU does. Each page that was acknowledged is there, each request is answered once, and no version is ever used for
 * two seals.
 */
#include "load.h"
#include "testing.h"

#include "io/crash-point.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <glib/gstdio.h>

#define POINTS_MAX 3000u /* of one operation: more is an operation without an end */

static const char *const small_stage[] = { "--stage=8M", NULL };
static const char *const small_packed[] = { "--stage=8M", "--compress", NULL };

static unsigned
kills (unsigned otherwise) {
  const char *text = g_getenv ("DOMYBS_KILLS");

  return text ? (unsigned)atoi (text) : otherwise;
}

/* ---- SIGKILL at random ---- */

struct killer {
  struct far *far;
  GThread *thread;
  GRand *random;
  gint quit, kills, last;
};

static gpointer
kill_now_and_then (gpointer data) {
  struct killer *killer = data;

  while (!g_atomic_int_get (&killer->quit)) {
    const pid_t worker = backend_worker (killer->far->backend);

    /* Mostly when it works, sometimes while it starts. */
    g_usleep (g_rand_int_range (killer->random, 0, 4) ? (gulong)g_rand_int_range (killer->random, 20000, 90000)
                                                      : (gulong)g_rand_int_range (killer->random, 0, 20000));
    if (worker > 0 && backend_kill_worker (worker))
      g_atomic_int_inc (&killer->kills);
  }
  return NULL;
}

static void
random_kills (gconstpointer data) {
  const char *const *arguments = data;
  const unsigned wanted = kills (60);
  g_autoptr (far_t) far = far_start (&(struct far_options){ .bytes = 48ull << 20, .arguments = arguments });
  struct killer killer = { .far = far };
  g_autoptr (GRand) random = testing_rand ();
  struct load load;

  load_init (&load, far, far_connect (far, 0), 0, random);
  killer.random = g_rand_new_with_seed (g_rand_int (random));
  killer.thread = g_thread_new ("killer", kill_now_and_then, &killer);
  while (g_atomic_int_get (&killer.kills) < (gint)wanted)
    load_run (&load, 200);
  g_atomic_int_set (&killer.quit, 1);
  g_thread_join (killer.thread);
  load_check_all (&load);
  g_test_message ("%d kills, %u connections, %" G_GUINT64_FORMAT " requests", killer.kills, load.blk->reconnects, load.done);
  g_assert_cmpint (far_status (far, 0, "damaged-pages"), ==, 0);
  g_rand_free (killer.random);
  load_clear (&load);
}

/* ---- crash points ---- */

struct crash_stage {
  struct far *far;
  GRand *random;
  struct load load;
  volatile struct crash_file *crash;
  char *path;
  unsigned deaths;
  GHashTable *names; /* where it died, how often */
};

static void
crash_begin (struct crash_stage *stage, const char *const *arguments) {
  int fd;

  *stage = (struct crash_stage){ .random = testing_rand () };
  fd = g_file_open_tmp ("domybs-far-crash-XXXXXX", &stage->path, NULL);
  g_assert_cmpint (fd, >=, 0);
  g_assert_cmpint (ftruncate (fd, CRASH_FILE_BYTES_WITH_NONCES), ==, 0);
  stage->crash = mmap (NULL, sizeof *stage->crash, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  g_assert_true (stage->crash != MAP_FAILED);
  close (fd);
  stage->names = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, NULL);
  stage->far = far_start (&(struct far_options){ .program = g_getenv ("DOMYBS_FAR_CRASH"),
                                                 .bytes = 24ull << 20,
                                                 .arguments = arguments,
                                                 .disk_extra = ",queues=2",
                                                 .crash_file = stage->path });
  load_init (&stage->load, stage->far, far_connect (stage->far, 0), 0, stage->random);
  stage->load.depth = 8;
}

/* The first worker dies at its n-th point from now; the next one at its m-th, 0: not. */
static void
arm (struct crash_stage *stage, unsigned n, unsigned m) {
  __atomic_store_n (&stage->crash->countdown[0], 0, __ATOMIC_SEQ_CST);
  __atomic_store_n (&stage->crash->crashes, 0, __ATOMIC_SEQ_CST);
  __atomic_store_n (&stage->crash->countdown[1], m, __ATOMIC_SEQ_CST);
  __atomic_store_n (&stage->crash->countdown[0], n, __ATOMIC_SEQ_CST);
}

/* How many died since. What it did behind its last answer is over when it has said its status. */
static unsigned
disarm (struct crash_stage *stage) {
  unsigned deaths;

  load_drain (&stage->load);
  far_status (stage->far, 0, "reads");
  __atomic_store_n (&stage->crash->countdown[0], 0, __ATOMIC_SEQ_CST);
  __atomic_store_n (&stage->crash->countdown[1], 0, __ATOMIC_SEQ_CST);
  deaths = (unsigned)__atomic_load_n (&stage->crash->crashes, __ATOMIC_SEQ_CST);
  if (deaths) {
    g_autofree char *name = g_strdup ((const char *)stage->crash->last);
    const guint n = GPOINTER_TO_UINT (g_hash_table_lookup (stage->names, name));

    g_hash_table_insert (stage->names, g_steal_pointer (&name), GUINT_TO_POINTER (n + 1));
  }
  stage->deaths += deaths;
  return deaths;
}

static void
crash_end (struct crash_stage *stage) {
  GHashTableIter iter;
  gpointer name, n;

  load_check_all (&stage->load);
  g_assert_cmpint (far_status (stage->far, 0, "damaged-pages"), ==, 0);
  g_test_message ("%u deaths, %" G_GUINT64_FORMAT " seals", stage->deaths, stage->crash->nonces);
  g_hash_table_iter_init (&iter, stage->names);
  while (g_hash_table_iter_next (&iter, &name, &n))
    g_test_message ("  %-24s %u", (char *)name, GPOINTER_TO_UINT (n));
  g_assert_cmpuint (stage->crash->nonces, >, 0);
  g_assert_cmpuint (stage->crash->nonces_out_of_range, ==, 0);
  g_assert_cmpuint (stage->crash->nonces_again, ==, 0);
  load_clear (&stage->load);
  far_end (stage->far);
  g_hash_table_unref (stage->names);
  munmap ((void *)stage->crash, sizeof *stage->crash);
  g_unlink (stage->path);
  g_free (stage->path);
  g_rand_free (stage->random);
}

/* ---- operations ---- */

static void
op_write (struct load *load) {
  load->read_percent = load->discard_percent = 0;
  load->max_pages = 3;
  load_run (load, 2);
}

static void
op_read (struct load *load) {
  load->read_percent = 100;
  load->max_pages = 5;
  load_run (load, 2);
}

static void
op_discard (struct load *load) {
  load->read_percent = 0;
  load->discard_percent = 100;
  load_run (load, 2);
}

static void
op_reconnect (struct load *load) {
  blk_disconnect (load->blk);
  load_reconnect (load);
  op_read (load);
}

static void
op_restart (struct load *load) {
  load->read_percent = load->discard_percent = 0;
  load->max_pages = 2;
  load_begin (load);
  /* May end without an answer, and does when it works. */
  g_clear_pointer (&(JsonNode *){ backend_control_once (load->far->backend, "{\"execute\":\"restart\"}") }, json_node_unref);
  load_drain (load);
}

/* A segment is filled, closed, written, and another one cleaned at times. */
static void
op_segment (struct load *load) {
  load->read_percent = load->discard_percent = 5;
  load->max_pages = 16;
  load->kinds = 1u << LOAD_RANDOM | 1u << LOAD_TEXT;
  load_run (load, 80);
  load->kinds = (1u << LOAD_KINDS) - 1;
}

typedef void (*operation) (struct load *load);

static void
every_point (gconstpointer data) {
  static const operation operations[] = { op_write, op_read, op_discard, op_reconnect, op_restart };
  struct crash_stage stage;

  crash_begin (&stage, small_packed);
  load_write_all (&stage.load, 0, stage.load.n_pages * 3 / 4, LOAD_RANDOM);
  for (unsigned i = 0; i < G_N_ELEMENTS (operations); i++) {
    unsigned died = 1, n;

    for (n = 1; died; n++) {
      g_assert_cmpuint (n, <, POINTS_MAX);
      arm (&stage, n, 0);
      operations[i](&stage.load);
      died = disarm (&stage);
      if (n % 64 == 0)
        load_check_all (&stage.load);
    }
    g_test_message ("operation %u: %u points", i, n - 2);
  }
  crash_end (&stage);
}

/* Large operations, and deaths of who mends the first one: at random. */
static void
random_points (gconstpointer data) {
  const char *const *arguments = data;
  const unsigned n = kills (60);
  struct crash_stage stage;
  unsigned points;

  crash_begin (&stage, arguments);
  load_write_all (&stage.load, 0, stage.load.n_pages, LOAD_RANDOM); /* full: cleaning is never far */
  points = (unsigned)stage.crash->passed;
  op_segment (&stage.load);
  disarm (&stage);
  points = (unsigned)stage.crash->passed - points;
  g_test_message ("%u points in one operation", points);
  while (stage.deaths < n) {
    /* Those of a start are some 30. */
    arm (&stage, 1 + (unsigned)testing_below (stage.random, points),
         testing_once_in (stage.random, 3) ? 1 + (unsigned)testing_below (stage.random, 60) : 0);
    op_segment (&stage.load);
    disarm (&stage);
    if (testing_once_in (stage.random, 10))
      load_check_all (&stage.load);
  }
  crash_end (&stage);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_data_func ("/far/kill/random", small_stage, random_kills);
  g_test_add_data_func ("/far/kill/random-packed", small_packed, random_kills);
  g_test_add_data_func ("/far/kill/every-point", NULL, every_point);
  g_test_add_data_func ("/far/kill/random-points", small_stage, random_points);
  g_test_add_data_func ("/far/kill/random-points-packed", small_packed, random_points);
  return g_test_run ();
}
