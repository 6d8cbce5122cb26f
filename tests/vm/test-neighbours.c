/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Two VMs of one host whose limit is too small for both. */
#include "scene.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#define LIMIT_BLOCKS 192u /* three sections; each VM may have four */

typedef struct {
  Vm *one, *two;
  char *folder;
  char *account;
  guint64 samples, most; /* of the sum, while the test runs */
} Pair;

static Vm *
start (Pair *pair, const char *series, const char *which) {
  g_autofree char *name = g_strdup_printf ("%s-%s", which, series);
  g_autofree char *account = g_strdup_printf ("--host-account=%s", pair->account);
  g_autofree char *limit = g_strdup_printf ("--host-limit=%uM", LIMIT_BLOCKS * 2);
  const char *const backend[] = { "--window=2G", "--local-max=512M", "--grant=populate", account, limit, NULL };
  Vm *vm = vm_start (
      &(VmConfig){ .name = name, .series = series, .ram_mib = 384, .backend_args = backend, .driver_params = "mode=target" });

  scene_booted (vm);
  return vm;
}

/* By way of the hosts' side, because that takes a fraction of a millisecond: the guests' answers come at the same time. */
static void
want (Vm *vm, guint blocks) {
  g_autoptr (JsonNode) answer = vm_control (vm, "{\"execute\": \"set-target\", \"arguments\": {\"blocks\": %u}}", blocks);
}

/* What counts is what the host's kernel has for both, sampled at any time; and that the books say so, too. */
static void
sample (Pair *pair) {
  guint64 blocks = (vm_host_memfd_bytes (pair->one) + vm_host_memfd_bytes (pair->two)) / VM_BLOCK_BYTES;
  guint64 used = (guint64)vm_status_number (pair->one, "host-used-blocks");

  pair->samples++;
  pair->most = MAX (pair->most, blocks);
  g_assert_cmpuint (blocks, <=, LIMIT_BLOCKS);
  g_assert_cmpuint (used, <=, LIMIT_BLOCKS);
}

static void
sample_until (Pair *pair, guint64 one, guint64 two, double seconds) {
  gint64 deadline = g_get_monotonic_time () + (gint64)(seconds * G_USEC_PER_SEC);

  while (scene_granted (pair->one) != one || scene_granted (pair->two) != two) {
    sample (pair);
    if (g_get_monotonic_time () > deadline)
      vm_fail (pair->one, "expected %" PRIu64 " and %" PRIu64 " blocks, there are %" PRIu64 " and %" PRIu64, one, two,
               scene_granted (pair->one), scene_granted (pair->two));
  }
  sample (pair);
}

static void
expect_told_no (Vm *vm) {
  g_autofree char *state = NULL;

  /* read as a whole: it asks again now and then, and is "growing" for that moment */
  vm_expect_within (vm, 10, (g_free (state), state = vm_driver_get (vm, "state"), strstr (state, "the host said: not now")));
  g_test_message ("the one that got less: %s", state);
  g_assert_true (g_str_has_prefix (state, "waiting "));
}

static void
test_race (gconstpointer series) {
  Pair pair = { 0 };
  guint won[2] = { 0 };

  pair.folder = g_dir_make_tmp ("domybs-account-XXXXXX", NULL);
  pair.account = g_build_filename (pair.folder, "account", NULL);
  pair.one = start (&pair, series, "one");
  pair.two = start (&pair, series, "two");
  /* both have it open; whatever happens now, nothing is left behind */
  unlink (pair.account);
  g_assert_cmpint (rmdir (pair.folder), ==, 0);

  for (int round = 0; round < 3; round++) {
    gint64 deadline = g_get_monotonic_time () + 30 * G_USEC_PER_SEC;
    guint64 one, two;
    Vm *less, *more;

    /* both want two sections; there are three */
    want (round % 2 ? pair.one : pair.two, 2 * SCENE_SECTION_BLOCKS);
    want (round % 2 ? pair.two : pair.one, 2 * SCENE_SECTION_BLOCKS);
    do {
      sample (&pair);
      one = scene_granted (pair.one);
      two = scene_granted (pair.two);
      if (g_get_monotonic_time () > deadline)
        vm_fail (pair.one, "the VMs have %" PRIu64 " and %" PRIu64 " blocks, and a section is left", one, two);
    } while (one + two < LIMIT_BLOCKS);
    g_assert_cmpuint (one + two, ==, LIMIT_BLOCKS);
    won[one < two]++;
    less = one < two ? pair.one : pair.two;
    more = one < two ? pair.two : pair.one;
    expect_told_no (less);

    /* both live, and use what they have */
    scene_fill (pair.one, "data", 120, 1, "", 60);
    scene_fill (pair.two, "data", 120, 2, "", 60);
    sample (&pair);

    /* the other releases: the one that waits is offered it, and takes it by itself */
    want (more, SCENE_SECTION_BLOCKS);
    sample_until (&pair, less == pair.one ? 128 : 64, less == pair.one ? 64 : 128, 30);
    scene_verify (pair.one, "data");
    scene_verify (pair.two, "data");
    scene_fill_end (pair.one, "data");
    scene_fill_end (pair.two, "data");
    want (pair.one, 0);
    want (pair.two, 0);
    sample_until (&pair, 0, 0, 30);
  }
  g_test_message ("%" PRIu64 " samples, never more than %" PRIu64 " of %u blocks on the host; the first VM won %u times, the "
                  "second %u times",
                  pair.samples, pair.most, LIMIT_BLOCKS, won[0], won[1]);

  /* a VM that ends, however it does, leaves its share to the other */
  want (pair.one, 2 * SCENE_SECTION_BLOCKS);
  sample_until (&pair, 128, 0, 30);
  want (pair.two, 2 * SCENE_SECTION_BLOCKS);
  sample_until (&pair, 128, 64, 30);
  scene_expect_sane (pair.one);
  vm_stop (pair.one);
  vm_expect_within (pair.two, 30, scene_granted (pair.two) == 128);
  scene_have (pair.two, 0, 30);
  scene_expect_nothing_granted (pair.two, 5);
  scene_expect_sane (pair.two);
  vm_stop (pair.two);
  g_free (pair.account);
  g_free (pair.folder);
}

int
main (int argc, char **argv) {
  static const SceneCase cases[] = {
    { "race-for-the-last-blocks", test_race, SCENE_ONCE },
  };

  vm_test_init (&argc, &argv);
  scene_add_cases ("neighbours", cases, G_N_ELEMENTS (cases));
  return vm_test_run ();
}
