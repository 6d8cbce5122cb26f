/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Three hosts that lend to each other, each with a far disk that lives on the two others alone, under load. All of them are
 * short of memory at once: nobody can take what another one has to give back, and all of it comes back nevertheless. All of
 * their processes are upgraded one by one, and stopped at once.
 */
#include "cluster.h"
#include "donor.h"
#include "load.h"
#include "testing.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

#include <glib/gstdio.h>

#define KEYS "host1:000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n"
#define BYTES (8ull << 20)
#define ARENA_BLOCKS 256u
#define HOSTS 3u

struct scene {
  struct cluster *cluster;
  struct donor *donors[HOSTS];
  struct far *fars[HOSTS];
  struct load loads[HOSTS];
  GRand *random;
  char *folder, *key_path;
};

static void
lend (struct scene *scene, unsigned host) {
  g_autofree char *address = cluster_address (scene->cluster, host, 0), *listen = g_strdup_printf ("--listen=%s", address);
  const char *const arguments[] = { listen, NULL };

  cluster_enter (scene->cluster, host);
  scene->donors[host] = donor_start (
      &(struct donor_options){ .bytes = (uint64_t)ARENA_BLOCKS * LEASE_BLOCK_BYTES, .keys = KEYS, .arguments = arguments });
}

static void
borrow (struct scene *scene, unsigned host) {
  g_autoptr (GPtrArray) arguments = g_ptr_array_new_with_free_func (g_free);

  for (unsigned other = 0; other < HOSTS; other++)
    if (other != host) {
      g_autofree char *address = cluster_address (scene->cluster, other, 0);

      g_ptr_array_add (arguments, g_strdup_printf ("--donor=d%u,address=%s,psk=%s", other, address, scene->key_path));
    }
  g_ptr_array_add (arguments, g_strdup ("--stage=8M"));
  g_ptr_array_add (arguments, NULL);
  cluster_enter (scene->cluster, host);
  scene->fars[host] = far_start (&(struct far_options){
      .bytes = BYTES, .disk_extra = ",protection=mirror", .arguments = (const char *const *)arguments->pdata });
  load_init (&scene->loads[host], scene->fars[host], far_connect (scene->fars[host], 0), 0, scene->random);
  scene->loads[host].kinds = 1u << LOAD_RANDOM | 1u << LOAD_SAME;
  load_write_all (&scene->loads[host], 0, scene->loads[host].n_pages, LOAD_RANDOM);
}

static int64_t
copies (struct scene *scene, unsigned host, const char *member) {
  g_autofree char *path = g_strdup_printf ("copies.%s", member);

  return far_status (scene->fars[host], 0, path);
}

static void
wait_protected (struct scene *scene, unsigned host) {
  const int64_t deadline = fe_now_ms () + CLUSTER_PATIENCE_MS;

  while (copies (scene, host, "places") <= 0 || copies (scene, host, "protected") != copies (scene, host, "places")) {
    if (fe_now_ms () > deadline)
      g_error ("host %u's pages are not protected: places %d, protected %d", host, (int)copies (scene, host, "places"),
               (int)copies (scene, host, "protected"));
    g_usleep (10000);
  }
}

static void
set_sizes (struct scene *scene, unsigned blocks) {
  for (unsigned host = 0; host < HOSTS; host++)
    g_assert_true (donor_order (scene->donors[host], "{\"execute\":\"size\",\"arguments\":{\"blocks\":%u}}", blocks));
}

static void
check (struct scene *scene, unsigned host) {
  load_check_all (&scene->loads[host]);
  g_assert_cmpint (copies (scene, host, "lost"), ==, 0);
  g_assert_cmpint (far_status (scene->fars[host], 0, "damaged-pages"), ==, 0);
}

static bool
scene_init (struct scene *scene) {
  memset (scene, 0, sizeof *scene);
  scene->cluster = cluster_new (HOSTS);
  if (!scene->cluster)
    return false;
  scene->random = testing_rand ();
  scene->folder = g_dir_make_tmp ("domybs-cluster-XXXXXX", NULL);
  scene->key_path = g_build_filename (scene->folder, "keys", NULL);
  g_assert_true (g_file_set_contents_full (scene->key_path, KEYS, -1, G_FILE_SET_CONTENTS_NONE, 0600, NULL));
  for (unsigned host = 0; host < HOSTS; host++)
    lend (scene, host);
  for (unsigned host = 0; host < HOSTS; host++)
    borrow (scene, host);
  for (unsigned host = 0; host < HOSTS; host++) {
    wait_protected (scene, host);
    g_assert_cmpint (donor_status (scene->donors[host], "leases"), ==, HOSTS - 1);
    g_assert_cmpint (donor_status (scene->donors[host], "used-blocks"), >, 0);
  }
  return true;
}

static void
scene_clear (struct scene *scene) {
  for (unsigned host = 0; host < HOSTS; host++) {
    wait_protected (scene, host);
    check (scene, host);
  }
  for (unsigned host = 0; host < HOSTS; host++) {
    load_clear (&scene->loads[host]);
    far_end (scene->fars[host]);
  }
  for (unsigned host = 0; host < HOSTS; host++) {
    g_assert_true (donor_wait_status (scene->donors[host], "used-blocks", 0));
    donor_end (scene->donors[host]);
  }
  g_unlink (scene->key_path);
  g_rmdir (scene->folder);
  g_free (scene->key_path);
  g_free (scene->folder);
  g_rand_free (scene->random);
  cluster_free (scene->cluster);
}

static void
work (struct scene *scene, unsigned requests) {
  for (unsigned host = 0; host < HOSTS; host++)
    load_run (&scene->loads[host], requests);
}

static void
squeezed (void) {
  struct scene scene;
  int64_t deadline;

  if (!scene_init (&scene))
    return;
  set_sizes (&scene, 0);
  deadline = fe_now_ms () + CLUSTER_PATIENCE_MS;
  for (unsigned host = 0; host < HOSTS;) {
    if (donor_status (scene.donors[host], "promised-blocks") == 0) {
      host++;
      continue;
    }
    if (fe_now_ms () > deadline)
      g_error ("host %u does not get its memory back: %d blocks are promised", host,
               (int)donor_status (scene.donors[host], "promised-blocks"));
    work (&scene, 30);
  }
  for (unsigned host = 0; host < HOSTS; host++) {
    g_assert_true (donor_wait_status (scene.donors[host], "memory-bytes", 0));
    check (&scene, host);
    g_assert_cmpint (copies (&scene, host, "in-storage"), ==, copies (&scene, host, "places"));
  }
  set_sizes (&scene, ARENA_BLOCKS);
  scene_clear (&scene);
}

/* Another worker, by the command of that name, in the place of this one. */
static void
change_worker (struct backend *backend, const char *command) {
  g_autofree char *line = g_strdup_printf ("{\"execute\":\"%s\"}", command);
  const pid_t worker = backend_wait_worker (backend, 0, CLUSTER_PATIENCE_MS);
  JsonNode *answer = backend_control_once (backend, line);

  g_assert_null (answer); /* the answer to success is the end of the connection */
  g_assert_cmpint (backend_wait_worker (backend, worker, CLUSTER_PATIENCE_MS), >, 0);
}

/* All are upgraded, one after the other, under load: no copy is lost, and none has to be made again for that. */
static void
upgraded (void) {
  struct scene scene;

  if (!scene_init (&scene))
    return;
  for (unsigned host = 0; host < HOSTS; host++) {
    const int64_t leases = donor_status (scene.donors[host], "leases");

    change_worker (scene.donors[host]->backend, "upgrade");
    work (&scene, 60);
    change_worker (scene.fars[host]->backend, "upgrade");
    work (&scene, 60);
    g_assert_cmpint (donor_status (scene.donors[host], "leases"), ==, leases);
    g_assert_cmpint (donor_status (scene.donors[host], "worker.deaths"), ==, 0);
    for (unsigned other = 0; other < HOSTS; other++)
      g_assert_cmpint (copies (&scene, other, "lost"), ==, 0);
  }
  scene_clear (&scene);
}

/* Every worker on every host is stopped, for a while (DOMYBS_LONG=1: for longer than a dozen keep-alives); then all go on. */
static void
stopped (void) {
  const gulong seconds = g_getenv ("DOMYBS_LONG") ? 65 : 1;
  pid_t workers[2 * HOSTS];
  struct scene scene;

  if (!scene_init (&scene))
    return;
  for (unsigned host = 0; host < HOSTS; host++) {
    workers[2 * host] = backend_wait_worker (scene.donors[host]->backend, 0, CLUSTER_PATIENCE_MS);
    workers[2 * host + 1] = backend_wait_worker (scene.fars[host]->backend, 0, CLUSTER_PATIENCE_MS);
  }
  for (unsigned i = 0; i < 2 * HOSTS; i++)
    g_assert_true (testing_stop (workers[i]));
  g_usleep (seconds * G_USEC_PER_SEC); /* nothing is waited for: this is how long they are away */
  for (unsigned i = 0; i < 2 * HOSTS; i++)
    g_assert_cmpint (kill (workers[i], SIGCONT), ==, 0);
  work (&scene, 100);
  for (unsigned host = 0; host < HOSTS; host++)
    g_assert_cmpint (donor_status (scene.donors[host], "leases"), ==, HOSTS - 1);
  scene_clear (&scene);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/cluster/ring/squeezed", squeezed);
  g_test_add_func ("/cluster/ring/upgraded", upgraded);
  g_test_add_func ("/cluster/ring/stopped", stopped);
  return g_test_run ();
}
