/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The pager of bench-native-swap, on a domybs-far: every value is what was put there last, however often its page has gone and
 * come back, and the disk holds no more than there is. */
#include "far.h"
#include "pager.h"
#include "testing.h"
#include "zipf.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#define N_PAGES 4096u
#define VALUES_PER_PAGE (BLK_PAGE / ZIPF_VALUE_BYTES)
#define N_VALUES (N_PAGES * VALUES_PER_PAGE)

static void
operate (struct pager *pager, const struct zipf *zipf, uint64_t *state, unsigned n, unsigned *versions) {
  while (n-- > 0) {
    bool replace;
    const uint32_t i = zipf_choose (zipf, state, &replace);
    uint64_t *words = (uint64_t *)(void *)(pager->area + (size_t)i * ZIPF_VALUE_BYTES);

    pager_note (pager, i / VALUES_PER_PAGE, replace);
    g_assert_cmpuint (words[1], ==, versions[i]); /* the second word: how often it was put there */
    g_assert_true (zipf_check (words, i));
    if (replace) {
      zipf_replace (pager->area, i);
      versions[i]++;
    }
  }
}

static uint32_t
n_present (const struct pager *pager) {
  uint32_t n = 0;

  for (uint32_t page = 0; page < pager->n_pages; page++)
    n += !!(pager->flags[page] & PAGER_PRESENT);
  return n;
}

static void
test_values (void) {
  g_autoptr (GRand) rand = testing_rand ();
  g_autoptr (far_t) far = far_start (&(struct far_options){ .bytes = 2ull * N_PAGES * BLK_PAGE,
                                                            .disk_extra = ",queues=1",
                                                            .arguments = (const char *const[]){ "--stage=8M", NULL } });
  g_autoptr (blk_t) blk = blk_new ();
  g_autofree void *table = g_malloc (zipf_table_bytes (N_VALUES));
  g_autofree unsigned *versions = g_new (unsigned, N_VALUES);
  uint64_t state = testing_below (rand, UINT64_MAX - 1) + 1;
  struct pager *pager;
  struct zipf zipf;

  blk->n_queues = 1;
  blk_must (blk, blk_connect (blk, far->socket_paths[0]));
  zipf_init (&zipf, N_VALUES, table);
  pager = pager_new (blk, N_PAGES);
  for (uint32_t i = 0; i < N_VALUES; i++) {
    pager_note (pager, i / VALUES_PER_PAGE, true);
    versions[i] = 1;
  }
  zipf_fill (pager->area, N_VALUES);
  g_assert_cmpuint (pager->faults, ==, N_PAGES);
  g_assert_cmpuint (pager->ins + pager->outs, ==, 0);
  operate (pager, &zipf, &state, 1000, versions);
  g_assert_cmpuint (pager->faults, ==, N_PAGES); /* all of it is there */
  for (uint32_t n_local = N_PAGES / 2; n_local >= N_PAGES / 16; n_local /= 2) {
    const uint64_t ins = pager->ins;

    pager_limit (pager, n_local);
    g_assert_cmpuint (n_present (pager), <=, n_local);
    g_assert_cmpuint (pager->outs, >=, N_PAGES - n_local);
    operate (pager, &zipf, &state, testing_steps (20000), versions);
    g_assert_cmpuint (pager->ins, >, ins);
    g_assert_cmpuint (n_present (pager), <=, n_local);
    g_assert_cmpuint (n_present (pager), >=, n_local / 2);
    g_test_message ("%u of %u pages: %" G_GUINT64_FORMAT " in, %" G_GUINT64_FORMAT " out", n_local, N_PAGES, pager->ins,
                    pager->outs);
  }
  for (uint32_t i = 0; i < N_VALUES; i++) {
    const uint64_t *words = (const uint64_t *)(const void *)(pager->area + (size_t)i * ZIPF_VALUE_BYTES);

    pager_note (pager, i / VALUES_PER_PAGE, false);
    g_assert_cmpuint (words[1], ==, versions[i]);
    g_assert_true (zipf_check (words, i));
  }
  pager_free (pager);
  g_assert_cmpint (far_status (far, 0, "pages.raw"), <=, N_PAGES + 16 * 512);
  g_assert_cmpint (far_status (far, 0, "pages.raw"), >=, N_PAGES / 2);
}

int
main (int argc, char **argv) {
  const int uffd = (int)syscall (SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);

  if (uffd < 0) {
    g_print ("1..0 # SKIP no userfaultfd here: %s\n", g_strerror (errno));
    return 0;
  }
  close (uffd);
  testing_init (&argc, &argv);
  g_test_add_func ("/pager/values", test_values);
  return g_test_run ();
}
