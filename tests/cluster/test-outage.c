/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A far disk on one host, its donors on two others, and links that are cut under load: one way, both ways, all of them. Every
 * page is compared; nothing is lost, nobody is told of an error, and all of it is protected again afterwards.
 */
#include "cluster.h"
#include "donor.h"
#include "load.h"
#include "testing.h"

#include <string.h>
#include <unistd.h>

#include <glib/gstdio.h>

#define KEYS "host1:000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n"
#define BYTES (16ull << 20)
#define DONORS 2u

struct scene {
  struct cluster *cluster;
  struct donor *donors[DONORS]; /* on hosts 1 and 2 */
  char *folder, *key_path;
  struct far *far; /* on host 0 */
  struct load load;
  GRand *random;
};

static bool
scene_init (struct scene *scene, const char *mode, const char *away) {
  g_autoptr (GPtrArray) arguments = g_ptr_array_new_with_free_func (g_free);
  g_autofree char *extra = g_strdup_printf (",protection=%s", mode);

  memset (scene, 0, sizeof *scene);
  scene->cluster = cluster_new (1 + DONORS);
  if (!scene->cluster)
    return false;
  scene->random = testing_rand ();
  scene->folder = g_dir_make_tmp ("domybs-cluster-XXXXXX", NULL);
  scene->key_path = g_build_filename (scene->folder, "keys", NULL);
  g_assert_true (g_file_set_contents_full (scene->key_path, KEYS, -1, G_FILE_SET_CONTENTS_NONE, 0600, NULL));
  for (unsigned d = 0; d < DONORS; d++) {
    g_autofree char *address = cluster_address (scene->cluster, 1 + d, 0), *listen = g_strdup_printf ("--listen=%s", address);
    const char *const more[] = { listen, NULL };

    cluster_enter (scene->cluster, 1 + d);
    scene->donors[d] = donor_start (&(struct donor_options){ .bytes = 64ull << 20, .keys = KEYS, .arguments = more });
    g_ptr_array_add (arguments, g_strdup_printf ("--donor=d%u,address=%s,psk=%s", d, address, scene->key_path));
  }
  g_ptr_array_add (arguments, g_strdup_printf ("--donor-away=%s", away));
  g_ptr_array_add (arguments, g_strdup ("--stage=8M"));
  g_ptr_array_add (arguments, NULL);
  cluster_enter (scene->cluster, 0);
  scene->far = far_start (
      &(struct far_options){ .bytes = BYTES, .disk_extra = extra, .arguments = (const char *const *)arguments->pdata });
  load_init (&scene->load, scene->far, far_connect (scene->far, 0), 0, scene->random);
  scene->load.kinds = 1u << LOAD_RANDOM | 1u << LOAD_SAME;
  load_write_all (&scene->load, 0, scene->load.n_pages, LOAD_RANDOM);
  return true;
}

static void
scene_clear (struct scene *scene) {
  load_clear (&scene->load);
  far_end (scene->far);
  for (unsigned d = 0; d < DONORS; d++)
    donor_end (scene->donors[d]);
  g_unlink (scene->key_path);
  g_rmdir (scene->folder);
  g_free (scene->key_path);
  g_free (scene->folder);
  g_rand_free (scene->random);
  cluster_free (scene->cluster);
}

static int64_t
copies (struct scene *scene, const char *member) {
  g_autofree char *path = g_strdup_printf ("copies.%s", member);

  return far_status (scene->far, 0, path);
}

static void
wait_protected (struct scene *scene) {
  const int64_t deadline = fe_now_ms () + CLUSTER_PATIENCE_MS;

  while (copies (scene, "places") <= 0 || copies (scene, "protected") != copies (scene, "places")) {
    if (fe_now_ms () > deadline)
      g_error ("it is not protected again: places %d, protected %d, degraded %d", (int)copies (scene, "places"),
               (int)copies (scene, "protected"), (int)copies (scene, "degraded"));
    g_usleep (10000);
  }
}

/* Nothing is lost for the guest, or known as lost. */
static void
check (struct scene *scene) {
  load_check_all (&scene->load);
  g_assert_cmpint (copies (scene, "lost"), ==, 0);
  g_assert_cmpint (far_status (scene->far, 0, "damaged-pages"), ==, 0);
}

static void
cut_one_way (struct scene *scene, bool to_donor) {
  const unsigned from = to_donor ? 0 : 1, to = 1 - from;
  const int64_t deadline = fe_now_ms () + CLUSTER_PATIENCE_MS;

  testing_trace ("cut %u → %u", from, to);
  cluster_cut (scene->cluster, from, to, 0);
  while (copies (scene, "degraded") == 0) {
    if (fe_now_ms () > deadline)
      g_error ("nothing that is written lacks a copy");
    load_run (&scene->load, 50);
  }
  testing_trace ("degraded");
  wait_protected (scene); /* by the other donor */
  check (scene);
  testing_trace ("healed");
  cluster_heal (scene->cluster, from, to, 0);
  load_run (&scene->load, 200);
  wait_protected (scene);
  check (scene);
}

/* One of two donors can't be heard, then can't be reached: storage has the other copy. */
static void
one_way (void) {
  struct scene scene;

  if (!scene_init (&scene, "ssd", "1"))
    return;
  wait_protected (&scene);
  cut_one_way (&scene, true);
  cut_one_way (&scene, false);
  far_kill_worker (scene.far);
  check (&scene);
  scene_clear (&scene);
}

/* A mirror lives on the donors alone, and no donor can be reached: reads wait, for as long as it takes, and bring what was
 * written. */
static void
all_links (void) {
  const int64_t seconds = g_getenv ("DOMYBS_LONG") ? 55 : 3; /* 50: ten keep-alives */
  struct scene scene;
  int64_t deadline;
  uint64_t done;

  if (!scene_init (&scene, "mirror", "3600"))
    return;
  wait_protected (&scene);
  scene.load.read_percent = 100;
  scene.load.discard_percent = 0;
  for (unsigned d = 0; d < DONORS; d++)
    cluster_part (scene.cluster, 0, 1 + d);
  deadline = fe_now_ms () + CLUSTER_PATIENCE_MS;
  while (copies (&scene, "waiting") == 0) {
    if (fe_now_ms () > deadline)
      g_error ("no read waits");
    load_begin (&scene.load);
    load_end_one (&scene.load, 0);
  }
  deadline = fe_now_ms () + seconds * 1000;
  done = scene.load.done;
  while (fe_now_ms () < deadline)
    load_end_one (&scene.load, 100);
  testing_trace ("%u answers while nobody could be reached", (unsigned)(scene.load.done - done));
  g_assert_cmpint (copies (&scene, "waiting"), >, 0);
  for (unsigned d = 0; d < DONORS; d++)
    cluster_join (scene.cluster, 0, 1 + d);
  load_drain (&scene.load);
  scene.load.read_percent = 40;
  load_run (&scene.load, 200);
  wait_protected (&scene);
  check (&scene);
  for (unsigned d = 0; d < DONORS; d++)
    g_assert_cmpint (donor_status (scene.donors[d], "leases"), ==, 1); /* the same ones */
  scene_clear (&scene);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/cluster/outage/one-way", one_way);
  g_test_add_func ("/cluster/outage/all-links", all_links);
  return g_test_run ();
}
