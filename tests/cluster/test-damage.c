/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What donors keep is changed behind their backs, while they run: bits flip, blocks are exchanged, all of it is what it was a
 * while ago, or is gone though the donor says that it has it. No page is read as good that is not what was written last: the
 * other copy answers, and where that is damaged as well, exactly those pages are errors.
 */
#include "neighbours.h"
#include "testing.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <glib/gstdio.h>

#define BLOCK LEASE_BLOCK_BYTES
#define BLOCKS 16u /* of each arena */

/* What lies in a file or an arena, by blocks; those that are holes are all zeroes. */
struct image {
  int fd;
  uint8_t *bytes; /* shared with whoever has it */
  size_t n_blocks;
};

static void
image_open (struct image *image, int fd) {
  struct stat st;

  g_assert_cmpint (fd, >=, 0);
  g_assert_cmpint (fstat (fd, &st), ==, 0);
  *image = (struct image){ .fd = fd, .n_blocks = (size_t)st.st_size / BLOCK };
  image->bytes = mmap (NULL, image->n_blocks * BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  g_assert_true (image->bytes != MAP_FAILED);
}

static void
image_close (struct image *image) {
  munmap (image->bytes, image->n_blocks * BLOCK);
  close (image->fd);
}

static uint8_t *
copy_of (const struct image *image) {
  return g_memdup2 (image->bytes, image->n_blocks * BLOCK);
}

/* ---- one of two copies ---- */

enum damage { FLIP, EXCHANGE, ROLL_BACK, EMPTY };

/* before: what was there before all was written anew. */
static void
do_damage (struct neighbours *n, const struct image *image, enum damage damage, const uint8_t *before) {
  const size_t bytes = image->n_blocks * BLOCK;
  uint8_t *const all = image->bytes;

  switch (damage) {
  case FLIP: /* one bit of each page */
    for (size_t at = 0; at < bytes; at += BLK_PAGE)
      all[at + testing_below (n->random, BLK_PAGE)] ^= (uint8_t)(1u << testing_below (n->random, 8));
    break;
  case EXCHANGE: /* with its neighbour: sound pages, but of other places */
    for (size_t at = 0; at + 2 * BLK_PAGE <= bytes; at += 2 * BLK_PAGE)
      for (size_t i = 0; i < BLK_PAGE; i++) {
        const uint8_t byte = all[at + i];

        all[at + i] = all[at + BLK_PAGE + i];
        all[at + BLK_PAGE + i] = byte;
      }
    break;
  case ROLL_BACK:
    memcpy (all, before, bytes);
    break;
  case EMPTY: /* of the same incarnation, lease and epoch */
    g_assert_cmpint (fallocate (image->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)bytes), ==, 0);
  }
}

static const struct one_case {
  const char *name, *mode;
  unsigned n_donors;
  enum damage damage;
  bool is_long;
} one_cases[] = {
  { "/cluster/damage/flip", "ssd", 1, FLIP, false },
  { "/cluster/damage/flip-mirror", "mirror", 2, FLIP, true },
  { "/cluster/damage/exchange", "ssd", 1, EXCHANGE, true },
  { "/cluster/damage/roll-back", "ssd", 1, ROLL_BACK, true },
  { "/cluster/damage/roll-back-mirror", "mirror", 2, ROLL_BACK, false },
  { "/cluster/damage/empty", "ssd", 1, EMPTY, false },
};

static void
one_copy (gconstpointer data) {
  static const unsigned blocks[] = { BLOCKS, BLOCKS };
  const struct one_case *one = data;
  g_autofree uint8_t *before = NULL;
  struct neighbours n;
  struct image image;
  int fd;

  neighbours_lend (&n, one->n_donors, blocks, false);
  neighbours_borrow (&n, &(struct neighbours_options){ .mode = one->mode });
  fd = neighbours_arena (&n, 0);
  if (fd >= 0) {
    image_open (&image, fd);
    load_write_all (&n.load, 0, n.load.n_pages, LOAD_RANDOM);
    neighbours_wait_protected (&n);
    before = copy_of (&image);
    load_write_all (&n.load, 0, n.load.n_pages, LOAD_RANDOM);
    neighbours_wait_protected (&n);
    g_assert_cmpint (neighbours_donor (&n, 0, "damaged"), ==, 0);
    do_damage (&n, &image, one->damage, before);
    /* Which copy answers is a matter of speed, so until that one was asked */
    NEIGHBOURS_UNTIL ((load_check_all (&n.load), neighbours_donor (&n, 0, "damaged") > 0), "the damage is seen");
    load_run (&n.load, 200);
    neighbours_wait_protected (&n);
    neighbours_check (&n);
    g_assert_cmpint (neighbours_copies (&n, "read-elsewhere"), >, 0);
    g_test_message ("%d of %d places came back damaged, %d reads were answered by the other copy",
                    (int)neighbours_donor (&n, 0, "damaged"), (int)neighbours_copies (&n, "places"),
                    (int)neighbours_copies (&n, "read-elsewhere"));
    image_close (&image);
  }
  neighbours_end (&n);
}

/* ---- both copies ---- */

/* Block i of `one` has the same contents as block ret[i] of `other`; −1: no block has. */
static void
match (const struct image *one, const struct image *other, ssize_t *ret) {
  static const uint8_t none[BLK_PAGE];

  for (size_t i = 0; i < one->n_blocks; i++) {
    ret[i] = -1;
    if (memcmp (one->bytes + i * BLOCK, none, sizeof none) == 0)
      continue;
    for (size_t j = 0; j < other->n_blocks && ret[i] < 0; j++)
      if (memcmp (one->bytes + i * BLOCK, other->bytes + j * BLOCK, BLOCK) == 0)
        ret[i] = (ssize_t)j;
  }
}

/* Both copies of these pages: a bit of each, the same or not. */
static void
hit (struct neighbours *n, const struct image images[2], const ssize_t *same, const bool *pages, bool wanted) {
  for (size_t i = 0; i < images[0].n_blocks; i++)
    for (size_t p = 0; same[i] >= 0 && p < BLOCK / BLK_PAGE; p++)
      if (pages[i * (BLOCK / BLK_PAGE) + p] == wanted) {
        images[0].bytes[i * BLOCK + p * BLK_PAGE + testing_below (n->random, BLK_PAGE)] ^= 1;
        images[1].bytes[(size_t)same[i] * BLOCK + p * BLK_PAGE + testing_below (n->random, BLK_PAGE)] ^= 2;
      }
}

/* Which pages of the disk failed. */
static bool *
failures (struct neighbours *n, const char *what) {
  bool *failed = g_new0 (bool, n->load.n_pages);
  const unsigned count = neighbours_read_each (n);

  for (uint64_t page = 0; page < n->load.n_pages; page++)
    failed[page] = n->load.pages[page].damaged;
  load_check_all (&n->load); /* the same ones again, and no others */
  neighbours_forget_damage (n);
  g_test_message ("%s: %u of %" G_GUINT64_FORMAT " pages are errors", what, count, n->load.n_pages);
  return failed;
}

static const struct both_case {
  const char *name, *mode;
  unsigned n_donors;
  bool is_long;
} both_cases[] = { { "/cluster/damage/both", "ssd", 1, false }, { "/cluster/damage/both-mirror", "mirror", 2, true } };

/* Which page of the disk lies where is the program's secret, and each fills a page of its place. So one half of these pages, at
 * random, is damaged in both copies, then the other half: no page of the disk fails in both cases, and each that is not in the
 * stage does in one of them. */
static void
both_copies (gconstpointer data) {
  static const unsigned blocks[] = { BLOCKS, BLOCKS };
  const struct both_case *one = data;
  bool *pages, *failed[2] = { NULL, NULL };
  uint8_t *before[2];
  struct neighbours n;
  struct image images[2];
  ssize_t same[256];
  uint64_t count[2] = { 0, 0 }, n_hit[2] = { 0, 0 };
  int fd;

  neighbours_lend (&n, one->n_donors, blocks, false);
  neighbours_borrow (&n, &(struct neighbours_options){ .mode = one->mode });
  fd = neighbours_arena (&n, 0);
  if (fd < 0) {
    neighbours_end (&n);
    return;
  }
  load_write_all (&n.load, 0, n.load.n_pages, LOAD_RANDOM);
  neighbours_wait_protected (&n);
  image_open (&images[0], fd);
  image_open (&images[1], one->n_donors == 2 ? neighbours_arena (&n, 1) : open (n.far->storage_path, O_RDWR | O_CLOEXEC));
  g_assert_cmpuint (images[0].n_blocks, <=, G_N_ELEMENTS (same));
  match (&images[0], &images[1], same);
  pages = g_new0 (bool, images[0].n_blocks *(BLOCK / BLK_PAGE));
  for (size_t p = 0; p < images[0].n_blocks * (BLOCK / BLK_PAGE); p++)
    if (same[p / (BLOCK / BLK_PAGE)] >= 0) {
      pages[p] = testing_once_in (n.random, 2);
      n_hit[pages[p]]++;
    }
  g_assert_cmpuint (n_hit[0] + n_hit[1], ==, (guint64)neighbours_copies (&n, "places") * (BLOCK / BLK_PAGE));
  for (unsigned half = 0; half < 2; half++) {
    for (unsigned i = 0; i < 2; i++)
      before[i] = copy_of (&images[i]);
    hit (&n, images, same, pages, half);
    failed[half] = failures (&n, half ? "the other half" : "one half");
    neighbours_wait_quiet (&n); /* what is damaged is not made again from what is damaged */
    for (unsigned i = 0; i < 2; i++) {
      memcpy (images[i].bytes, before[i], images[i].n_blocks * BLOCK);
      g_free (before[i]);
    }
    load_check_all (&n.load); /* put back, all is well */
  }
  for (uint64_t page = 0; page < n.load.n_pages; page++) {
    g_assert_false (failed[0][page] && failed[1][page]);
    count[0] += failed[0][page];
    count[1] += failed[1][page];
  }
  for (unsigned half = 0; half < 2; half++) {
    g_assert_cmpuint (count[half], >, 0);
    g_assert_cmpuint (count[half], <=, n_hit[half]);
  }
  /* Those of the stage have a place as well, and are not read from there: 8 MiB at most */
  g_assert_cmpuint (count[0] + count[1] + (8u << 20) / BLK_PAGE, >=, n_hit[0] + n_hit[1]);
  g_assert_cmpint (neighbours_copies (&n, "lost"), ==, 0);
  load_write_all (&n.load, 0, n.load.n_pages, LOAD_RANDOM); /* what is written again is good again … */
  load_check_all (&n.load);
  /* … and places that nothing lives in any more are, as soon as they are taken for something else */
  NEIGHBOURS_UNTIL ((load_run (&n.load, 100), neighbours_copies (&n, "endangered") == 0), "all places are good again");
  neighbours_wait_protected (&n);
  load_check_all (&n.load);
  g_free (pages);
  g_free (failed[0]);
  g_free (failed[1]);
  image_close (&images[0]);
  image_close (&images[1]);
  neighbours_end (&n);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  for (unsigned i = 0; i < G_N_ELEMENTS (one_cases); i++)
    if (!neighbours_leave_out (one_cases[i].is_long))
      g_test_add_data_func (one_cases[i].name, &one_cases[i], one_copy);
  for (unsigned i = 0; i < G_N_ELEMENTS (both_cases); i++)
    if (!neighbours_leave_out (both_cases[i].is_long))
      g_test_add_data_func (both_cases[i].name, &both_cases[i], both_copies);
  return g_test_run ();
}
