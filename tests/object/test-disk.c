/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The disks that domybs-far makes of objects, with front-ends that play QEMU and the guest; and what domybsctl says meanwhile.
 */
#include "object-scene.h"
#include "testing.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <glib/gstdio.h>

#define RO_BIT (1ull << 5)

/* Its worker was killed: the next one goes on, if it is not killed as well. */
static void
reconnect (struct blk *blk, struct far *far) {
  const gint64 deadline = fe_now_ms () + 2 * fe_patience_ms ();

  do {
    g_assert_cmpint (fe_now_ms (), <, deadline);
    blk_disconnect (blk);
    g_usleep (1000);
  } while (!blk_connect (blk, far->socket_paths[0]));
}

/* n reads at random, many at a time, in chains of any shape; each is answered once, and right. Returns how many failed. */
static unsigned
read_at_random (Scene *scene, struct blk *blk, struct far *far, unsigned n) {
  unsigned begun = 0, ended = 0, failed = 0;

  while (ended < n) {
    unsigned slot;
    guint8 status;
    int next;

    while (begun < n && blk->n_in_flight < 16 && (next = blk_free_slot (blk)) >= 0) {
      const struct blk_shape shape = blk_random_shape (scene->random);
      const unsigned pages = 1 + (unsigned)testing_below (scene->random, 32);

      blk_prepare (blk, (unsigned)next, BLK_IN, testing_below (scene->random, scene->n_pages - pages), pages);
      memset (blk_data (blk, (unsigned)next), 0xee, pages * (gsize)BLK_PAGE);
      blk_submit (blk, (unsigned)next, &shape, scene->random);
      blk_kick (blk, blk->slots[next].queue);
      begun++;
    }
    if (!blk_wait (blk, &slot, &status, fe_patience_ms ())) {
      g_assert_false (blk_is_connected (blk));
      reconnect (blk, far);
      continue;
    }
    ended++;
    failed += status != BLK_S_OK;
    if (status == BLK_S_OK)
      g_assert_cmpint (memcmp (blk_data (blk, slot), scene->content + blk->slots[slot].first * BLK_PAGE,
                               blk->slots[slot].n * (gsize)BLK_PAGE),
                       ==, 0);
  }
  return failed;
}

/* Two VMs at the same time. */
static void
two_readers (void) {
  g_autoptr (Scene) scene = scene_new (3000);
  g_autoptr (far_t) one = NULL, two = NULL;
  g_autoptr (blk_t) a = NULL, b = NULL;

  scene_import (scene);
  one = scene_serve (scene, "vm1", "");
  two = scene_serve (scene, "vm2", ",queues=2");
  a = scene_connect (one);
  b = scene_connect (two);
  for (unsigned i = 0; i < testing_steps (20); i++) {
    g_assert_cmpuint (read_at_random (scene, a, one, 100), ==, 0);
    g_assert_cmpuint (read_at_random (scene, b, two, 100), ==, 0);
  }
  g_assert_cmpint (scene_status (one, "reads"), ==, 100 * testing_steps (20));
  g_assert_cmpint (scene_status (one, "errors"), ==, 0);
  g_assert_cmpint (scene_status (two, "read-pages-zero"), >, 0);
  g_assert_cmpint (scene_status (two, "in-flight"), ==, 0);
  g_assert_cmpint (scene_status (two, "waiting"), ==, 0);
}

static void
read_only (void) {
  g_autoptr (Scene) scene = scene_new (100);
  g_autoptr (far_t) far = NULL;
  g_autoptr (blk_t) blk = NULL;
  guint8 page[BLK_PAGE] = { 1 };
  char id[20];

  scene_import (scene);
  far = scene_serve (scene, "vm1", ",queues=3");
  blk = scene_connect (far);
  g_assert_cmpuint (blk->fe->features_offered & (RO_BIT | BLK_BIT_DISCARD | BLK_BIT_WRITE_ZEROES), ==, RO_BIT);
  g_assert_cmpuint (blk->config.capacity, ==, 100 * 8);
  g_assert_cmpuint (blk->config.num_queues, ==, 3);
  g_assert_cmpint (blk_io (blk, BLK_T_GET_ID, 0, 0, id), ==, BLK_S_OK);
  g_assert_cmpstr (id, ==, "domybs-base");
  g_assert_cmpint (blk_io (blk, BLK_OUT, 5, 1, page), ==, BLK_S_IOERR);
  g_assert_cmpint (blk_io (blk, BLK_T_DISCARD, 5, 1, NULL), ==, BLK_S_IOERR);
  g_assert_cmpint (blk_io (blk, BLK_T_WRITE_ZEROES, 5, 1, NULL), ==, BLK_S_IOERR);
  g_assert_cmpint (blk_io (blk, BLK_T_FLUSH, 0, 0, NULL), ==, BLK_S_OK);
  g_assert_cmpint (scene_read (scene, blk, 99, 2), ==, BLK_S_IOERR);
  g_assert_cmpint (scene_read (scene, blk, 99, 1), ==, BLK_S_OK);
  for (guint64 first = 0; first < 100; first += 50)
    g_assert_cmpint (scene_read (scene, blk, first, 50), ==, BLK_S_OK);
}

/* ---- damage ---- */

static void
damage (void) {
  g_autoptr (Scene) scene = scene_new (1500);
  g_autoptr (far_t) far = NULL;
  g_autoptr (blk_t) blk = NULL;
  gint64 expected = 0;

  scene_import (scene);
  far = scene_serve (scene, "vm1", ",prefetch=0");
  blk = scene_connect (far);
  for (unsigned i = 0; i < testing_steps (200); i++) {
    const guint64 page = 40 + testing_below (scene->random, scene->n_pages - 80);
    const gboolean zero = scene_page_is_zero (scene, page);
    const guint64 offset = scene_offset (scene, page) + testing_below (scene->random, OBJECT_PAGE_BYTES);
    const unsigned before = (unsigned)testing_below (scene->random, 20), behind = (unsigned)testing_below (scene->random, 20);

    scene_flip (scene, offset);
    g_assert_cmpint (scene_read (scene, blk, page, 1), ==, zero ? BLK_S_OK : BLK_S_IOERR);
    g_assert_cmpint (scene_read (scene, blk, page - before, before + behind + 1), ==, zero ? BLK_S_OK : BLK_S_IOERR);
    g_assert_cmpint (scene_read (scene, blk, page - 20, 20), ==, BLK_S_OK);
    g_assert_cmpint (scene_read (scene, blk, page + 1, 20), ==, BLK_S_OK);
    expected += zero ? 0 : 2;
    scene_flip (scene, offset);
    g_assert_cmpint (scene_read (scene, blk, page, 1), ==, BLK_S_OK);
  }
  g_assert_cmpint (scene_status (far, "damaged-pages"), ==, expected);
  g_assert_cmpint (scene_status (far, "errors"), ==, expected);
  g_assert_true (backend_wait_log (far->backend, 0, "is not what was imported", fe_patience_ms ()));
}

/* What was read ahead is checked as well, and one damaged page does not spoil its neighbours. */
static void
damage_ahead (void) {
  g_autoptr (Scene) scene = scene_new_full (2000);
  g_autoptr (far_t) far = NULL;
  g_autoptr (blk_t) blk = NULL;

  scene_import (scene);
  for (guint64 page = 100; page < 2000; page += 100)
    scene_flip (scene, scene_offset (scene, page));
  far = scene_serve (scene, "vm1", "");
  blk = scene_connect (far);
  for (guint64 page = 0; page < 2000; page++)
    g_assert_cmpint (scene_read (scene, blk, page, 1), ==, page && page % 100 == 0 ? BLK_S_IOERR : BLK_S_OK);
  g_assert_cmpint (scene_status (far, "prefetch-used-pages"), >, 1000);
  g_assert_cmpint (scene_status (far, "damaged-pages"), ==, 19);
}

/* Somebody cuts the file short: pages that are still there go on, also with the next worker. */
static void
cut_short (void) {
  g_autoptr (Scene) scene = scene_new_full (500);
  g_autoptr (far_t) far = NULL;
  g_autoptr (blk_t) blk = NULL;

  scene_import (scene);
  far = scene_serve (scene, "vm1", "");
  blk = scene_connect (far);
  g_assert_cmpint (truncate (scene->path, (off_t)scene_offset (scene, 300) + 100), ==, 0);
  for (unsigned round = 0; round < 2; round++) {
    for (guint64 page = 200; page < 400; page++)
      g_assert_cmpint (scene_read (scene, blk, page, 1), ==, page < 300 ? BLK_S_OK : BLK_S_IOERR);
    if (round == 0) {
      far_kill_worker (far);
      reconnect (blk, far);
    }
  }
  g_assert_cmpint (scene_status (far, "storage-errors"), >, 0);
}

/* ---- killed workers ---- */

struct killer {
  struct far *far;
  GRand *random;
  gint quit, kills;
};

static gpointer
kill_now_and_then (gpointer data) {
  struct killer *killer = data;

  while (!g_atomic_int_get (&killer->quit)) {
    const pid_t worker = backend_worker (killer->far->backend);

    g_usleep ((gulong)g_rand_int_range (killer->random, 0, 60000));
    if (worker > 0 && backend_kill_worker (worker))
      g_atomic_int_inc (&killer->kills);
  }
  return NULL;
}

static void
kills (void) {
  const char *text = g_getenv ("DOMYBS_KILLS");
  const int wanted = text ? MIN (atoi (text), 1000) : 30;
  g_autoptr (Scene) scene = scene_new (2000);
  g_autoptr (far_t) far = NULL;
  g_autoptr (blk_t) blk = NULL;
  struct killer killer = { 0 };
  GThread *thread;

  scene_import (scene);
  far = scene_serve (scene, "vm1", "");
  blk = scene_connect (far);
  killer.far = far;
  killer.random = g_rand_new_with_seed (g_rand_int (scene->random));
  thread = g_thread_new ("killer", kill_now_and_then, &killer);
  while (g_atomic_int_get (&killer.kills) < wanted)
    g_assert_cmpuint (read_at_random (scene, blk, far, 50), ==, 0);
  g_atomic_int_set (&killer.quit, 1);
  g_thread_join (thread);
  g_assert_cmpuint (read_at_random (scene, blk, far, 50), ==, 0);
  g_test_message ("%d kills", killer.kills);
  g_rand_free (killer.random);
}

/* All that is behind it is killed: the next one has the same to give, and the VM goes on with its list of requests. One with
 * other content under the same name does not get it: what a guest has mounted would change below it. */
static void
another_keeper (void) {
  g_autoptr (Scene) scene = scene_new (500);
  g_autoptr (blk_t) blk = NULL;
  struct far *far;

  scene_import (scene);
  far = scene_serve (scene, "vm1", "");
  blk = scene_connect (far);
  g_assert_cmpint (scene_read (scene, blk, 7, 4), ==, BLK_S_OK);
  for (int round = 0; round < 3; round++) {
    backend_kill (far->backend);
    far_end (far);
    blk_disconnect (blk);
    far = scene_serve (scene, "vm1", "");
    blk_must (blk, blk_connect (blk, far->socket_paths[0]));
    g_assert_cmpint (scene_read (scene, blk, 9, 4), ==, BLK_S_OK);
  }
  backend_kill (far->backend);
  far_end (far);
  blk_disconnect (blk);
  g_assert_cmpint (g_remove (scene->path), ==, 0);
  scene->content[0] ^= 1;
  g_assert_true (g_file_set_contents (scene->source, (const char *)scene->content, (gssize)scene->size, NULL));
  scene_import (scene);
  far = scene_serve (scene, "vm1", "");
  if (blk_connect (blk, far->socket_paths[0]))
    g_assert_cmpint (scene_read (scene, blk, 9, 4), ==, BLK_S_NONE);
  g_assert_false (blk_is_connected (blk));
  blk_disconnect (blk);
  blk_forget (blk); /* a reset */
  blk_must (blk, blk_connect (blk, far->socket_paths[0]));
  g_assert_cmpint (scene_read (scene, blk, 0, 4), ==, BLK_S_OK);
  far_end (far);
}

/* ---- reading ahead ---- */

struct figures {
  gint64 ahead, used, wasted, demanded;
};

static struct figures
figures_of (struct far *far) {
  return (struct figures){ scene_status (far, "prefetched-pages"), scene_status (far, "prefetch-used-pages"),
                           scene_status (far, "prefetch-wasted-pages"), scene_status (far, "read-pages-from-storage") };
}

static struct figures
read_in_steps (const char *options, gint64 step, unsigned pages) {
  g_autoptr (Scene) scene = scene_new_full (8000);
  g_autoptr (far_t) far = NULL;
  g_autoptr (blk_t) blk = NULL;
  struct figures f;

  scene_import (scene);
  far = scene_serve (scene, "vm1", options);
  blk = scene_connect (far);
  for (unsigned i = 0; i < 800; i++) {
    const guint64 first = step ? (guint64)(step > 0 ? step * i : 8000 - pages + step * i) % (8000 - pages)
                               : testing_below (scene->random, 8000 - pages);

    g_assert_cmpint (scene_read (scene, blk, first, pages), ==, BLK_S_OK);
  }
  f = figures_of (far);
  g_test_message ("step %d: %d read ahead, %d of them used, %d wasted, %d demanded", (int)step, (int)f.ahead, (int)f.used,
                  (int)f.wasted, (int)f.demanded);
  g_assert_cmpint (f.used + f.demanded, ==, 800 * (gint64)pages);
  g_assert_cmpint (f.used + f.wasted, <=, f.ahead);
  return f;
}

static void
ahead (void) {
  struct figures f = read_in_steps ("", 1, 1);

  g_assert_cmpint (f.used, >=, 700);
  f = read_in_steps ("", 4, 4);
  g_assert_cmpint (f.used, >=, 2800);
  f = read_in_steps ("", 9, 1); /* every ninth page */
  g_assert_cmpint (f.used, >=, 700);
  g_assert_cmpint (f.wasted, <=, 50);
  f = read_in_steps ("", -2, 2); /* backwards */
  g_assert_cmpint (f.used, >=, 1400);
  f = read_in_steps ("", 0, 1); /* at random */
  g_assert_cmpint (f.ahead, <=, 200);
  f = read_in_steps (",prefetch=0", 1, 1);
  g_assert_cmpint (f.ahead, ==, 0);
  f = read_in_steps (",prefetch=128K", 1, 1); /* one buffer */
  g_assert_cmpint (f.used, >=, 300);
}

/* ---- who has it ---- */

static void
must_say (const char *said, const char *what) {
  if (!strstr (said, what))
    g_error ("no “%s” in “%s”", what, said);
}

static void
removed_while_used (void) {
  g_autoptr (Scene) scene = scene_new (50);
  g_autoptr (far_t) far = NULL, late = NULL;
  g_autoptr (blk_t) blk = NULL;
  g_autofree char *said = NULL, *list = NULL, *show = NULL, *gone = NULL;

  scene_import (scene);
  far = scene_serve (scene, "vm7", "");
  blk = scene_connect (far);
  g_assert_cmpint (scene_ctl (scene, &said, CTL ("object", "remove", "base")), ==, 4);
  must_say (said, "object 'base': it is in use by 'vm7' (process ");
  g_assert_cmpint (scene_ctl (scene, &list, CTL ("object", "list")), ==, 0);
  must_say (list, "vm7");
  g_assert_cmpint (scene_ctl (scene, &show, CTL ("object", "show", "base")), ==, 0);
  must_say (show, "Used by        'vm7'");
  g_assert_cmpint (scene_read (scene, blk, 0, 50), ==, BLK_S_OK);
  far_kill_worker (far); /* the keeper's lock */
  g_assert_cmpint (scene_ctl (scene, NULL, CTL ("object", "remove", "base")), ==, 4);
  g_clear_pointer (&blk, blk_free);
  g_clear_pointer (&far, far_end);
  g_assert_cmpint (scene_ctl (scene, NULL, CTL ("object", "remove", "base")), ==, 0);
  g_assert_cmpint (scene_ctl (scene, &gone, CTL ("object", "show", "base")), ==, 3);
  late = scene_serve (scene, "vm8", "");
  g_assert_true (backend_wait_end (late->backend, fe_patience_ms ()));
  g_assert_cmpstr (backend_end_text (late->backend), ==, "exit 1");
}

/* ---- domybsctl object ---- */

static void
command (void) {
  g_autoptr (Scene) scene = scene_new_full (300);
  g_autofree char *import = NULL, *again = NULL, *json = NULL, *verify = NULL, *damaged = NULL, *damaged_json = NULL,
                  *broken = NULL, *list = NULL;

  g_assert_cmpint (scene_ctl (scene, &list, CTL ("object", "list")), ==, 0);
  must_say (list, "There are no objects");
  g_assert_cmpint (scene_ctl (scene, &import, CTL ("object", "import", scene->source, "--name", "base")), ==, 0);
  must_say (import, "Object 'base' has the content of ");
  g_assert_cmpint (scene_ctl (scene, &again, CTL ("object", "import", scene->source, "--name=base")), ==, 4);
  must_say (again, "there is one already; remove it first, or import it under another --name");
  g_assert_cmpint (scene_ctl (scene, NULL, CTL ("object", "import", scene->source)), ==, 0); /* "source" */
  g_assert_cmpint (scene_ctl (scene, &json, CTL ("object", "list", "--json")), ==, 0);
  must_say (json, "{\"schema\":\"domybsctl/1\",\"command\":\"object\",\"objects\":[{\"name\":\"base\"");
  must_say (json, "{\"name\":\"source\"");
  g_assert_cmpint (scene_ctl (scene, &verify, CTL ("object", "verify", "--all")), ==, 0);
  must_say (verify, "Object 'base' is good.\nObject 'source' is good.\n");
  scene_flip (scene, scene_offset (scene, 77) + 5);
  g_assert_cmpint (scene_ctl (scene, &damaged, CTL ("object", "verify", "--all")), ==, 1);
  must_say (damaged, "Object 'source' is good.");
  must_say (damaged, "object 'base': 1 of 300 pages are damaged, the first one is page 77; remove it and import it again");
  g_assert_cmpint (scene_ctl (scene, &damaged_json, CTL ("object", "verify", "base", "--json")), ==, 1);
  must_say (damaged_json, "\"verified\":[{\"name\":\"base\",\"pages\":300,\"damaged-pages\":1,\"first-damaged-page\":77}]");
  scene_flip (scene, 50);
  g_assert_cmpint (scene_ctl (scene, &broken, CTL ("object", "list")), ==, 0);
  must_say (broken, "damaged");
  g_assert_cmpint (scene_ctl (scene, NULL, CTL ("object", "remove", "base")), ==, 0);
  g_assert_cmpint (scene_ctl (scene, NULL, CTL ("object", "verify", "base")), ==, 3);
}

static void
command_wrong (void) {
  g_autoptr (Scene) scene = scene_new (1);
  static const char *const wrong[][4] = {
    { "object" },
    { "object", "frob" },
    { "object", "import" },
    { "object", "show" },
    { "object", "remove", "a/b" },
    { "object", "show", "../x" },
    { "object", "list", "x" },
    { "object", "list", "--all" },
    { "object", "verify" },
    { "object", "verify", "x", "--all" },
    { "object", "show", "x", "--name=y" },
    { "object", "import", "x", "--name=shared" },
    { "object", "import", "x", "--name=UPPER" },
    { "object", "import", "/srv/A B" },
  };

  for (unsigned i = 0; i < G_N_ELEMENTS (wrong); i++) {
    const char *const arguments[5] = { wrong[i][0], wrong[i][1], wrong[i][2], wrong[i][3], NULL };
    g_autofree char *said = NULL;

    g_assert_cmpint (scene_ctl (scene, &said, arguments), ==, 2);
    must_say (said, "domybsctl: error: object");
  }
}

/* Ctrl-C in the middle of an import that would take minutes. */
static void
interrupted (void) {
  g_autoptr (Scene) scene = scene_new (1);
  g_autofree char *objects = g_path_get_dirname (scene->path);
  g_auto (GStrv) env = g_environ_setenv (g_get_environ (), "DOMYBS_TEST_RUNDIR", scene->folder, TRUE);
  const char *const argv[] = { g_getenv ("DOMYBSCTL"), "object", "import", scene->source, "--name=big", NULL };
  const gint64 deadline = fe_now_ms () + fe_patience_ms ();
  gboolean begun = FALSE;
  int status;
  GPid pid;

  g_assert_cmpint (truncate (scene->source, 1ll << 40), ==, 0);
  g_assert_true (g_spawn_async (NULL, (char **)argv, env,
                                G_SPAWN_DO_NOT_REAP_CHILD | G_SPAWN_STDOUT_TO_DEV_NULL | G_SPAWN_STDERR_TO_DEV_NULL, NULL, NULL,
                                &pid, NULL));
  while (!begun) { /* its file is there */
    g_autoptr (GDir) dir = g_dir_open (objects, 0, NULL);

    begun = dir && g_dir_read_name (dir) != NULL;
    g_assert_cmpint (fe_now_ms (), <, deadline);
    g_usleep (1000);
  }
  g_assert_cmpint (kill (pid, SIGINT), ==, 0);
  while (waitpid (pid, &status, 0) < 0)
    g_assert_cmpint (errno, ==, EINTR);
  g_assert_true (WIFEXITED (status));
  g_assert_cmpint (WEXITSTATUS (status), ==, 130);
  g_assert_cmpint (g_rmdir (objects), ==, 0); /* empty */
}

/* ---- options ---- */

static void
wrong_options (void) {
  static const char *const wrong[] = {
    "shared,file=/x,socket=/y",
    "A,file=/x,socket=/y",
    "base,file=/x",
    "base,socket=/y",
    "base,file=/x,socket=/y,foo",
    "base,file=/x,socket=/y,queues=0",
    "base,file=/x,socket=/y,queues=99",
    "base,file=/x,socket=/y,prefetch=x",
    "base,file=/x,socket=/y,prefetch=1T",
    "base,file=/x,socket=/y,memory-slots=maybe",
    "base,file=/x,socket=/y,size=1G",
  };

  for (unsigned i = 0; i < G_N_ELEMENTS (wrong); i++) {
    g_autofree char *option = g_strdup_printf ("--object=%s", wrong[i]);
    g_autoptr (far_t) far = far_start_arguments (CTL ("--name=x", option));
    g_autofree char *log = NULL;

    g_assert_true (backend_wait_end (far->backend, fe_patience_ms ()));
    log = backend_log_from (far->backend, 0);
    g_assert_cmpstr (backend_end_text (far->backend), ==, "exit 2");
    must_say (log, "domybs-far: --object");
  }
}

/* Files that are no objects: a clear refusal, and no socket is left behind. */
static void
wrong_files (void) {
  g_autoptr (Scene) scene = scene_new (300);

  scene_import (scene);
  for (unsigned i = 0; i < 3; i++) {
    static const char *const why[]
        = { "has a header that was damaged", "has a table of digests that was damaged", "was cut short" };
    g_autoptr (far_t) far = NULL;
    g_autofree char *log = NULL;

    if (i < 2)
      scene_flip (scene, i ? 5000 : 50);
    else
      g_assert_cmpint (truncate (scene->path, (off_t)scene_offset (scene, 299)), ==, 0);
    far = scene_serve (scene, "vm1", "");
    g_assert_true (backend_wait_end (far->backend, fe_patience_ms ()));
    g_assert_cmpstr (backend_end_text (far->backend), ==, "exit 1");
    log = backend_log_from (far->backend, 0);
    must_say (log, why[i]);
    g_assert_false (g_file_test (far->socket_paths[0], G_FILE_TEST_EXISTS));
    if (i < 2)
      scene_flip (scene, i ? 5000 : 50);
  }
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/object/disk/two-readers", two_readers);
  g_test_add_func ("/object/disk/read-only", read_only);
  g_test_add_func ("/object/disk/damage", damage);
  g_test_add_func ("/object/disk/damage-ahead", damage_ahead);
  g_test_add_func ("/object/disk/cut-short", cut_short);
  g_test_add_func ("/object/disk/kills", kills);
  g_test_add_func ("/object/disk/another-keeper", another_keeper);
  g_test_add_func ("/object/disk/ahead", ahead);
  g_test_add_func ("/object/disk/removed-while-used", removed_while_used);
  g_test_add_func ("/object/disk/wrong-options", wrong_options);
  g_test_add_func ("/object/disk/wrong-files", wrong_files);
  g_test_add_func ("/object/command", command);
  g_test_add_func ("/object/command/wrong", command_wrong);
  g_test_add_func ("/object/command/interrupted", interrupted);
  return g_test_run ();
}
