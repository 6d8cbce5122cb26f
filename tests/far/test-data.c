/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What was written is what is read: random requests in chains of any shape, on several queues, pages of every kind, a disk that
 * is full. */
#include "load.h"
#include "testing.h"

#include <string.h>

struct variant {
  struct far_options options;
  unsigned kinds; /* 0: all */
  unsigned requests;
  uint64_t hot_pages; /* 0: all */
};

static const char *const packed_and_small[] = { "--compress", "--stage=8M", NULL };
static const char *const packed[] = { "--compress", NULL };
static const char *const plain[] = { "--no-seal", "--no-compress", "--stage=10M", NULL };

static const struct variant sealed = { .options = { .disk_extra = ",queues=4" }, .requests = 20000 };
static const struct variant compressed
    = { .options = { .arguments = packed_and_small, .disk_extra = ",queues=3" }, .requests = 20000 };
static const struct variant unsealed
    = { .options = { .arguments = plain, .disk_extra = ",queues=1,spare=2" }, .requests = 20000 };
static const struct variant hot
    = { .options = { .arguments = packed, .disk_extra = ",queues=16" }, .requests = 20000, .hot_pages = 300 };
static const struct variant random_only
    = { .options = { .bytes = 32ull << 20, .disk_extra = ",spare=2" }, .kinds = 1u << LOAD_RANDOM, .requests = 20000 };

static void
print_status (struct far *far) {
  static const char *const names[] = { "pages.none",
                                       "pages.same",
                                       "pages.raw",
                                       "pages.packed",
                                       "segments.free",
                                       "storage-written-bytes",
                                       "storage-read-bytes",
                                       "cleaned-pages",
                                       "read-pages-from-stage",
                                       "read-pages-from-storage",
                                       "read-latency-us.p99",
                                       "write-latency-us.p99" };

  for (unsigned i = 0; i < G_N_ELEMENTS (names); i++)
    g_test_message ("%s: %" G_GINT64_FORMAT, names[i], far_status (far, 0, names[i]));
}

static void
random_requests (gconstpointer data) {
  const struct variant *variant = data;
  g_autoptr (far_t) far = far_start (&variant->options);
  g_autoptr (GRand) random = testing_rand ();
  struct load load;

  load_init (&load, far, far_connect (far, 0), 0, random);
  if (variant->kinds)
    load.kinds = variant->kinds;
  if (variant->hot_pages)
    load.hot_pages = variant->hot_pages;
  load_run (&load, testing_steps (variant->requests));
  load_check_all (&load);
  print_status (far);
  g_assert_cmpint (far_status (far, 0, "errors"), ==, 0);
  g_assert_cmpint (far_status (far, 0, "damaged-pages"), ==, 0);
  g_assert_cmpint (far_status (far, 0, "in-flight"), ==, 0);
  g_assert_cmpint (far_status_top (far, "worker.starts"), ==, 1);
  load_clear (&load);
}

/* Every page of the disk, twice over and then at random: cleaning has to make room all the time. */
static void
full_disk (void) {
  static const char *const small[] = { "--stage=8M", NULL };
  g_autoptr (far_t) far
      = far_start (&(struct far_options){ .bytes = 48ull << 20, .disk_extra = ",spare=4", .arguments = small });
  g_autoptr (GRand) random = testing_rand ();
  struct load load;

  load_init (&load, far, far_connect (far, 0), 0, random);
  load_write_all (&load, 0, load.n_pages, LOAD_RANDOM);
  load_write_all (&load, 0, load.n_pages, LOAD_RANDOM);
  g_assert_cmpint (far_status (far, 0, "pages.raw"), ==, (int64_t)load.n_pages);
  load.kinds = 1u << LOAD_RANDOM;
  load.discard_percent = 0;
  load.max_pages = 3;
  load_run (&load, testing_steps (20000));
  load_check_all (&load);
  print_status (far);
  g_assert_cmpint (far_status (far, 0, "cleaned-pages"), >, 0);
  g_assert_cmpint (far_status (far, 0, "errors"), ==, 0);
  load_clear (&load);
}

/* What takes no storage: pages of one value, and what was discarded. */
static void
nothing_stored (void) {
  g_autoptr (far_t) far = far_start (&(struct far_options){ .bytes = 32ull << 20 });
  g_autoptr (GRand) random = testing_rand ();
  struct load load;

  load_init (&load, far, far_connect (far, 0), 0, random);
  load_write_all (&load, 0, load.n_pages, LOAD_SAME);
  g_assert_cmpint (far_status (far, 0, "pages.same"), ==, (int64_t)load.n_pages);
  load_write_all (&load, 0, load.n_pages / 2, LOAD_ZERO);
  g_assert_cmpint (far_status (far, 0, "pages.none"), ==, (int64_t)load.n_pages / 2);
  g_assert_cmpint (far_status (far, 0, "stored-bytes"), ==, 0);
  load_check_all (&load);
  load_write_all (&load, 0, load.n_pages, LOAD_RANDOM);
  g_assert_cmpint (far_status (far, 0, "stored-bytes"), ==, (int64_t)load.n_pages * 4096);
  g_assert_cmpint (blk_io (load.blk, BLK_T_DISCARD, 0, (unsigned)load.n_pages, NULL), ==, BLK_S_OK);
  for (uint64_t i = 0; i < load.n_pages; i++)
    load.pages[i].kind = LOAD_ZERO;
  g_assert_cmpint (far_status (far, 0, "stored-bytes"), ==, 0);
  g_assert_cmpint (far_status (far, 0, "blocks-in-use"), ==, 0);
  load_check_all (&load);
  load_clear (&load);
}

/* Requests that ask for something that is not there are refused, one by one, and nothing else happens to the disk. */
static void
refusals (void) {
  g_autoptr (far_t) far = far_start (&(struct far_options){ .bytes = 16ull << 20 });
  g_autoptr (blk_t) blk = far_connect (far, 0);
  uint8_t page[BLK_PAGE] = { 1 }, id[20];
  const uint64_t n = blk->config.capacity / 8;

  g_assert_cmpuint (n, ==, 4096);
  g_assert_cmpuint (blk->config.blk_size, ==, 4096);
  g_assert_cmpuint (blk->config.num_queues, ==, 4);
  g_assert_cmpuint (blk->config.max_discard_seg, >, 1);
  g_assert_cmpint (blk_io (blk, BLK_T_GET_ID, 0, 1, id), ==, BLK_S_OK);
  g_assert_cmpint (memcmp (id, "domybs-disk0\0\0\0\0\0\0\0\0", sizeof id), ==, 0);
  g_assert_cmpint (blk_io (blk, BLK_OUT, n - 1, 1, page), ==, BLK_S_OK);
  g_assert_cmpint (blk_io (blk, BLK_OUT, n, 1, page), ==, BLK_S_IOERR);
  g_assert_cmpint (blk_io (blk, BLK_IN, n, 1, page), ==, BLK_S_IOERR);
  g_assert_cmpint (blk_io (blk, BLK_IN, n - 1, 2, NULL), ==, BLK_S_IOERR);
  g_assert_cmpint (blk_io (blk, BLK_IN, UINT64_MAX / 8, 1, NULL), ==, BLK_S_IOERR);
  g_assert_cmpint (blk_io (blk, BLK_T_DISCARD, n - 1, 2, NULL), ==, BLK_S_IOERR);
  g_assert_cmpint (blk_io (blk, BLK_T_WRITE_ZEROES, n, 1, NULL), ==, BLK_S_IOERR);
  g_assert_cmpint (blk_io (blk, 12345, 0, 1, NULL), ==, BLK_S_UNSUPP);
  memset (page, 0, sizeof page);
  g_assert_cmpint (blk_io (blk, BLK_IN, n - 1, 1, page), ==, BLK_S_OK);
  g_assert_cmpint (page[0], ==, 1);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/far/data/refusals", refusals);
  g_test_add_data_func ("/far/data/sealed", &sealed, random_requests);
  g_test_add_data_func ("/far/data/compressed", &compressed, random_requests);
  g_test_add_data_func ("/far/data/unsealed", &unsealed, random_requests);
  g_test_add_data_func ("/far/data/hot", &hot, random_requests);
  g_test_add_data_func ("/far/data/random-only", &random_only, random_requests);
  g_test_add_func ("/far/data/full", full_disk);
  g_test_add_func ("/far/data/nothing-stored", nothing_stored);
  return g_test_run ();
}
