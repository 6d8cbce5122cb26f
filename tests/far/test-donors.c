/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * domybs-far with real donors (domybs-donor, TLS): they are killed, with and without their memory, stopped, told to ask for
 * their memory back, while the disk works; its worker is killed, too. Every page is compared. test-copies has the same in more
 * ways, without processes.
 */
#include "donor.h"
#include "io/crash-point.h"
#include "load.h"
#include "testing.h"

#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <glib/gstdio.h>

#define N_DONORS 3u
#define KEYS "host1:000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n"
#define BYTES (32ull << 20)
#define LONG_BYTES (1ull << 30)

struct scene {
  struct donor *donors[N_DONORS];
  unsigned n_donors;
  const char *program, *crash_file; /* NULL: the usual one */
  char *key_path, *folder;
  struct far *far;
  struct load load;
  GRand *random;
  char *addresses[N_DONORS];
  unsigned kills; /* of the worker, by far_kill_worker */
  uint64_t bytes; /* of the disk; 0: BYTES */
};

static uint64_t
arena_bytes (const struct scene *scene) {
  return scene->bytes ? scene->bytes + scene->bytes / 4 : 128ull << 20;
}

static void
scene_begin (struct scene *scene, const char *mode, unsigned n_donors) {
  g_autoptr (GPtrArray) arguments = g_ptr_array_new_with_free_func (g_free);
  g_autofree char *extra = g_strdup_printf (",protection=%s", mode);

  scene->n_donors = n_donors;
  scene->random = testing_rand ();
  scene->folder = g_dir_make_tmp ("domybs-far-keys-XXXXXX", NULL);
  scene->key_path = g_build_filename (scene->folder, "keys", NULL);
  g_assert_true (g_file_set_contents_full (scene->key_path, KEYS, -1, G_FILE_SET_CONTENTS_NONE, 0600, NULL));
  for (unsigned d = 0; d < n_donors; d++) {
    scene->donors[d] = donor_start (&(struct donor_options){ .bytes = arena_bytes (scene), .keys = KEYS });
    scene->addresses[d] = g_strdup (scene->donors[d]->address);
    g_ptr_array_add (arguments, g_strdup_printf ("--donor=d%u,address=%s,psk=%s", d, scene->addresses[d], scene->key_path));
  }
  g_ptr_array_add (arguments, g_strdup ("--donor-away=1"));
  g_ptr_array_add (arguments, g_strdup ("--stage=8M"));
  g_ptr_array_add (arguments, NULL);
  scene->far = far_start (&(struct far_options){ .bytes = scene->bytes ? scene->bytes : BYTES,
                                                 .disk_extra = extra,
                                                 .arguments = (const char *const *)arguments->pdata,
                                                 .program = scene->program,
                                                 .crash_file = scene->crash_file });
  load_init (&scene->load, scene->far, far_connect (scene->far, 0), 0, scene->random);
  scene->load.kinds = 1u << LOAD_RANDOM | 1u << LOAD_SAME;
}

static void
scene_init (struct scene *scene, const char *mode, unsigned n_donors) {
  memset (scene, 0, sizeof *scene);
  scene_begin (scene, mode, n_donors);
}

/* For DOMYBS_TRACE: what takes its time. */
#define STEP(text) testing_trace ("%d ms: " text, (int)(g_get_monotonic_time () / 1000 % 1000000))

/* Ends the VM: then donors have nothing of it any more. */
static void
scene_clear (struct scene *scene) {
  load_clear (&scene->load);
  if (!scene->crash_file) /* but for those that were killed: the sandbox has let them do all that they do */
    g_assert_cmpint (far_status_top (scene->far, "worker.deaths"), ==, scene->kills);
  STEP ("ends");
  far_end (scene->far);
  STEP ("has ended");
  for (unsigned d = 0; d < scene->n_donors; d++) {
    g_assert_true (donor_wait_status (scene->donors[d], "used-blocks", 0));
    donor_end (scene->donors[d]);
    g_free (scene->addresses[d]);
  }
  g_unlink (scene->key_path);
  g_rmdir (scene->folder);
  g_free (scene->key_path);
  g_free (scene->folder);
  g_rand_free (scene->random);
}

static int64_t
copies (struct scene *scene, const char *member) {
  g_autofree char *path = g_strdup_printf ("copies.%s", member);

  return far_status (scene->far, 0, path);
}

/* Until then a donor that has lost its memory may not be known as such. */
static bool
have_leases (struct scene *scene) {
  for (unsigned d = 0; d < scene->n_donors; d++)
    if (donor_status (scene->donors[d], "leases") < 1)
      return false;
  return true;
}

static void
wait_protected (struct scene *scene) {
  const int64_t deadline = fe_now_ms () + fe_patience_ms () * (scene->bytes ? 6 : 1);

  while (!have_leases (scene) || copies (scene, "places") <= 0 || copies (scene, "protected") != copies (scene, "places")) {
    if (fe_now_ms () > deadline) {
      g_autofree char *log = backend_log_from (scene->far->backend, 0);

      g_error ("it is not protected again: places %d protected %d degraded %d; log:\n%s", (int)copies (scene, "places"),
               (int)copies (scene, "protected"), (int)copies (scene, "degraded"), log);
    }
    g_usleep (10000);
  }
  g_assert_cmpint (copies (scene, "lost"), ==, 0);
}

static void
fill (struct scene *scene) {
  load_write_all (&scene->load, 0, scene->load.n_pages, LOAD_RANDOM);
  load_run (&scene->load, 300);
}

/* At the same address, with an empty arena. */
static void
restart_empty (struct scene *scene, unsigned d) {
  g_autofree char *listen = g_strdup_printf ("--listen=%s", scene->addresses[d]);
  const char *const arguments[] = { listen, NULL };

  const pid_t worker = backend_wait_worker (scene->donors[d]->backend, 0, fe_patience_ms ());

  g_assert_cmpint (kill (scene->donors[d]->backend->pid, SIGKILL), ==, 0);
  g_assert_true (backend_wait_end (scene->donors[d]->backend, fe_patience_ms ()));
  while (kill (worker, 0) == 0) /* it dies with its keeper, and has the port until then */
    g_usleep (1000);
  donor_end (scene->donors[d]);
  scene->donors[d]
      = donor_start (&(struct donor_options){ .bytes = arena_bytes (scene), .keys = KEYS, .arguments = arguments });
}

static void
ssd (void) {
  struct scene scene;

  scene_init (&scene, "ssd", 2);
  fill (&scene);
  wait_protected (&scene);
  g_assert_cmpint (copies (&scene, "in-storage"), ==, copies (&scene, "places"));
  load_check_all (&scene.load);
  far_kill_worker (scene.far); /* the next one finds them */
  scene.kills++;
  load_run (&scene.load, 300);
  STEP ("waits for protection");
  wait_protected (&scene);
  STEP ("is protected");
  load_check_all (&scene.load);
  donor_kill_worker (scene.donors[0]); /* its contents stay */
  load_run (&scene.load, 300);
  load_check_all (&scene.load);
  wait_protected (&scene);
  scene_clear (&scene);
}

/* A mirror has no copy in storage: it lives on the neighbours alone. */
static void
mirror (void) {
  struct scene scene;

  scene_init (&scene, "mirror", 3);
  fill (&scene);
  STEP ("waits for protection");
  wait_protected (&scene);
  STEP ("is protected");
  load_check_all (&scene.load);
  restart_empty (&scene, 0);
  load_run (&scene.load, 500);
  load_check_all (&scene.load);
  wait_protected (&scene);
  restart_empty (&scene, 1); /* now the second */
  load_run (&scene.load, 300);
  far_kill_worker (scene.far);
  scene.kills++;
  load_run (&scene.load, 100);
  STEP ("waits for protection");
  wait_protected (&scene);
  STEP ("is protected");
  load_check_all (&scene.load);
  scene_clear (&scene);
}

static void
stopped (void) {
  struct scene scene;
  pid_t worker;

  scene_init (&scene, "ssd", 2);
  fill (&scene);
  wait_protected (&scene);
  worker = backend_wait_worker (scene.donors[0]->backend, 0, fe_patience_ms ());
  g_assert_true (testing_stop (worker));
  load_run (&scene.load, 600);
  load_check_all (&scene.load);
  g_assert_cmpint (kill (worker, SIGCONT), ==, 0);
  load_run (&scene.load, 100);
  STEP ("waits for protection");
  wait_protected (&scene);
  STEP ("is protected");
  load_check_all (&scene.load);
  scene_clear (&scene);
}

/* The worker dies at points of its own, also while the next one starts, and a donor's worker now and then. */
static void
crashes (void) {
  struct scene scene = { .program = g_getenv ("DOMYBS_FAR_CRASH") };
  g_autofree char *path = NULL;
  const int fd = g_file_open_tmp ("domybs-far-crash-XXXXXX", &path, NULL);
  const guint rounds = testing_steps (24);
  volatile struct crash_file *crash;
  guint deaths = 0;

  g_assert_cmpint (fd, >=, 0);
  g_assert_cmpint (ftruncate (fd, (off_t)CRASH_FILE_BYTES_WITH_NONCES), ==, 0);
  crash = mmap (NULL, sizeof *crash, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  g_assert_true (crash != MAP_FAILED);
  scene.crash_file = path;
  scene_begin (&scene, "ssd", 2);
  fill (&scene);
  for (guint round = 0; round < rounds; round++) {
    __atomic_store_n (&crash->crashes, 0, __ATOMIC_SEQ_CST);
    __atomic_store_n (&crash->countdown[1], testing_once_in (scene.random, 2) ? 1 + testing_below (scene.random, 60) : 0,
                      __ATOMIC_SEQ_CST);
    __atomic_store_n (&crash->countdown[0], 1 + testing_below (scene.random, 600), __ATOMIC_SEQ_CST);
    load_run (&scene.load, 150);
    if (testing_once_in (scene.random, 6))
      donor_kill_worker (scene.donors[testing_below (scene.random, 2)]);
    load_run (&scene.load, 50);
    __atomic_store_n (&crash->countdown[0], 0, __ATOMIC_SEQ_CST);
    __atomic_store_n (&crash->countdown[1], 0, __ATOMIC_SEQ_CST);
    if (crash->crashes)
      testing_trace ("%u deaths, the last one at %s", (guint)crash->crashes, (const char *)crash->last);
    deaths += (guint)crash->crashes;
  }
  g_assert_cmpuint (deaths, >=, rounds / 2);
  wait_protected (&scene);
  load_check_all (&scene.load);
  g_assert_cmpint (far_status (scene.far, 0, "damaged-pages"), ==, 0);
  g_assert_cmpuint (crash->nonces_again, ==, 0);
  scene_clear (&scene);
  munmap ((void *)crash, sizeof *crash);
  close (fd);
  g_unlink (path);
}

/* Figures, by DOMYBS_LONG: how long 1 GiB takes to be protected again. */
static void
one_gib (void) {
  struct scene scene = { .bytes = LONG_BYTES };
  int64_t began;

  scene_begin (&scene, "ssd", 1);
  began = fe_now_ms ();
  load_write_all (&scene.load, 0, scene.load.n_pages, LOAD_RANDOM);
  wait_protected (&scene);
  g_test_message ("1 GiB written and protected in %d ms", (int)(fe_now_ms () - began));
  restart_empty (&scene, 0);
  while (copies (&scene, "protected") == copies (&scene, "places"))
    g_usleep (1000);
  began = fe_now_ms ();
  wait_protected (&scene);
  g_test_message ("%d MiB protected again in %d ms", (int)(copies (&scene, "repaired-bytes") >> 20),
                  (int)(fe_now_ms () - began));
  scene_clear (&scene);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/donors/ssd", ssd);
  g_test_add_func ("/donors/mirror", mirror);
  g_test_add_func ("/donors/stopped", stopped);
  g_test_add_func ("/donors/crashes", crashes);
  if (g_getenv ("DOMYBS_LONG"))
    g_test_add_func ("/donors/1-gib", one_gib);
  return g_test_run ();
}
