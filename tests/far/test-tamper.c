/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Somebody changes the storage copy behind the VM's back: flips bits, exchanges pages, cuts the file, rolls all of it back to
 * what it was a moment ago, also while no worker lives. Every read of a page that is not there as it was stored ends in an I/O
 * error, and no other read does; what is written again is good again. DOMYBS_TAMPERINGS says how many pages are tampered with.
 *
 * Which page lies where is the program's secret. So the test learns it first, by changing one place after the other: in /flips,
 * exactly those pages fail that live in a place which was changed. Elsewhere it goes by the bytes: no read gives any that were
 * not written last.
 */
#include "load.h"
#include "testing.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SEGMENT_BYTES (2u << 20)

static const char *const small[] = { "--stage=8M", NULL };

static unsigned
tamperings (unsigned otherwise) {
  const char *text = g_getenv ("DOMYBS_TAMPERINGS");

  return text ? (unsigned)atoi (text) : otherwise;
}

struct stage {
  struct far *far;
  struct load load;
  GRand *random;
  int fd;
  uint8_t *before; /* the whole file */
  off_t bytes;
  uint64_t hits, errors;
};

static void
read_file (struct stage *stage, uint8_t *to) {
  struct stat st;

  g_assert_cmpint (fstat (stage->fd, &st), ==, 0);
  stage->bytes = st.st_size;
  for (off_t at = 0; at < stage->bytes;) {
    const ssize_t n = pread (stage->fd, to + at, (size_t)(stage->bytes - at), at);

    g_assert_cmpint (n, >, 0);
    at += n;
  }
}

static void
put (struct stage *stage, const void *bytes, size_t n, off_t at) {
  g_assert_cmpint (pwrite (stage->fd, bytes, n, at), ==, (ssize_t)n);
}

/* All in storage that can be: what is being filled stays in the stage. A new worker begins to write when nothing of the one
 * before is under way any more. */
static void
wait_written (struct stage *stage) {
  const int64_t deadline = fe_now_ms () + fe_patience_ms ();

  while (far_status (stage->far, 0, "storage-settled") != 1 || far_status (stage->far, 0, "stage.writing") > 0) {
    g_assert_cmpint (fe_now_ms (), <, deadline);
    g_usleep (2000);
  }
}

static void
begin (struct stage *stage, const char *const *arguments) {
  *stage = (struct stage){ .random = testing_rand () };
  stage->far = far_start (&(struct far_options){ .bytes = 16ull << 20, .arguments = arguments, .disk_extra = ",queues=1,prefetch=0" });
  load_init (&stage->load, stage->far, far_connect (stage->far, 0), 0, stage->random);
  stage->fd = open (stage->far->storage_path, O_RDWR | O_CLOEXEC);
  g_assert_cmpint (stage->fd, >=, 0);
  stage->before = g_malloc0 (256u << 20);
}

static void
end (struct stage *stage) {
  g_test_message ("%" G_GUINT64_FORMAT " tamperings, %" G_GUINT64_FORMAT " pages with an I/O error", stage->hits,
                  stage->errors);
  close (stage->fd);
  load_clear (&stage->load);
  far_end (stage->far);
  g_free (stage->before);
  g_rand_free (stage->random);
}

/* Reads each page alone. Those that fail are marked as damaged; all others must be right (load's own check). Returns how many
 * failed. */
static unsigned
read_each (struct stage *stage) {
  struct load *load = &stage->load;
  const struct blk_shape plain = { 0 };
  unsigned failed = 0;

  load_drain (load);
  for (uint64_t at = 0; at < load->n_pages || load->blk->n_in_flight;) {
    uint8_t status, page[BLK_PAGE] __attribute__ ((aligned (8)));
    unsigned slot;
    int free_slot;

    while (at < load->n_pages && (free_slot = blk_free_slot (load->blk)) >= 0) {
      blk_prepare (load->blk, (unsigned)free_slot, BLK_IN, at++, 1);
      blk_submit (load->blk, (unsigned)free_slot, &plain, NULL);
    }
    blk_kick (load->blk, 0);
    blk_must (load->blk, blk_wait (load->blk, &slot, &status, fe_patience_ms ()));
    if (status == BLK_S_IOERR) {
      load->pages[load->blk->slots[slot].first].damaged = true;
      failed++;
      continue;
    }
    g_assert_cmpint (status, ==, BLK_S_OK);
    load_fill (load, load->blk->slots[slot].first, &load->pages[load->blk->slots[slot].first], page);
    if (memcmp (page, blk_data (load->blk, slot), BLK_PAGE) != 0)
      g_error ("page %" G_GUINT64_FORMAT " was tampered with, and is read as if it was not", load->blk->slots[slot].first);
  }
  stage->errors += failed;
  return failed;
}

static void
forget_damage (struct stage *stage) {
  for (uint64_t i = 0; i < stage->load.n_pages; i++)
    stage->load.pages[i].damaged = false;
}

/* The file is what it was. */
static void
heal (struct stage *stage) {
  put (stage, stage->before, (size_t)stage->bytes, 0);
  forget_damage (stage);
}

/* Every page of the disk is RAW, so it fills one page of the file; those in the stage are in no place. */
static void
fill (struct stage *stage) {
  load_write_all (&stage->load, 0, stage->load.n_pages, LOAD_RANDOM);
  wait_written (stage);
  read_file (stage, stage->before);
}

/* Which page lives where, by halving: one bit of all places of whose number bit b is set is changed, for each b; a page's
 * failures are the number of its place. */
static void
learn_places (struct stage *stage, gint64 *lives, off_t n_places) {
  const uint64_t n_pages = stage->load.n_pages;
  g_autofree uint64_t *place_of = g_new0 (uint64_t, n_pages);
  g_autofree bool *in_storage = g_new0 (bool, n_pages);

  unsigned n_bits = 0;

  while ((1ll << n_bits) < n_places)
    n_bits++;
  for (unsigned b = 0; b <= n_bits; b++) {
    for (off_t place = 0; place < n_places; place++) {
      const uint8_t byte = stage->before[place * BLK_PAGE] ^ 1;

      if (b == n_bits || (place >> b & 1)) /* at last all: those that fail are in storage at all */
        put (stage, &byte, 1, place * BLK_PAGE);
    }
    read_each (stage);
    for (uint64_t i = 0; i < n_pages; i++)
      if (stage->load.pages[i].damaged) {
        if (b == n_bits)
          in_storage[i] = true;
        else
          place_of[i] |= 1ull << b;
      }
    heal (stage);
  }
  for (off_t place = 0; place < n_places; place++)
    lives[place] = -1;
  for (uint64_t i = 0; i < n_pages; i++)
    if (in_storage[i]) {
      g_assert_cmpint (lives[place_of[i]], ==, -1);
      lives[place_of[i]] = (gint64)i;
    }
}

/* One changed bit in each of a random half of the file's pages. Then all is put back, and is well. */
static void
flips (void) {
  const unsigned wanted = tamperings (6000);
  g_autofree gint64 *lives = NULL; /* the page of a place; −1: none */
  struct stage stage;
  off_t n_places;

  begin (&stage, small);
  fill (&stage);
  n_places = stage.bytes / BLK_PAGE;
  lives = g_new (gint64, n_places);
  learn_places (&stage, lives, n_places);
  while (stage.hits < wanted) {
    g_autofree bool *hit = g_new0 (bool, stage.load.n_pages);

    for (off_t place = 0; place < n_places; place++) {
      const unsigned bit = (unsigned)g_rand_int_range (stage.random, 0, BLK_PAGE * 8);
      uint8_t byte = stage.before[place * BLK_PAGE + bit / 8] ^ (uint8_t)(1u << bit % 8);

      if (!testing_once_in (stage.random, 2))
        continue;
      put (&stage, &byte, 1, place * BLK_PAGE + bit / 8);
      if (lives[place] >= 0) {
        hit[lives[place]] = true;
        stage.hits++;
      }
    }
    read_each (&stage);
    for (uint64_t i = 0; i < stage.load.n_pages; i++)
      if (stage.load.pages[i].damaged != hit[i])
        g_error ("page %" G_GUINT64_FORMAT " was %stampered with, and is %s", i, hit[i] ? "" : "not ",
                 hit[i] ? "read" : "refused");
    heal (&stage);
    g_assert_cmpuint (read_each (&stage), ==, 0);
  }
  end (&stage);
}

/* Pages of the file exchanged, in pairs: all that live there fail. */
static void
swaps (void) {
  const unsigned wanted = tamperings (3000);
  struct stage stage;

  begin (&stage, small);
  fill (&stage);
  while (stage.hits < wanted) {
    const off_t n = stage.bytes / BLK_PAGE;

    for (unsigned i = 0; i < 500; i++) {
      const off_t a = (off_t)testing_below (stage.random, (uint64_t)n), b = (off_t)testing_below (stage.random, (uint64_t)n);

      put (&stage, stage.before + a * BLK_PAGE, BLK_PAGE, b * BLK_PAGE);
      put (&stage, stage.before + b * BLK_PAGE, BLK_PAGE, a * BLK_PAGE);
    }
    stage.hits += read_each (&stage);
    heal (&stage);
    g_assert_cmpuint (read_each (&stage), ==, 0);
  }
  end (&stage);
}

/* All of it is what it was before each page was written again: every page that is read from storage fails. Over a worker's
 * death, too. */
static void
roll_back (gconstpointer data) {
  const bool kill = data != NULL;
  const unsigned wanted = tamperings (6000);
  struct stage stage;

  begin (&stage, small);
  fill (&stage);
  while (stage.hits < wanted) {
    const uint64_t in_stage
        = (uint64_t)(far_status (stage.far, 0, "stage.slots") - far_status (stage.far, 0, "stage.free")) * 512;
    g_autofree uint8_t *older = g_memdup2 (stage.before, (gsize)stage.bytes);
    unsigned failed;

    fill (&stage);
    if (kill) { /* what was half full in the stage may be written by the next worker */
      far_kill_worker (stage.far);
      load_reconnect (&stage.load);
      wait_written (&stage);
      read_file (&stage, stage.before);
    }
    put (&stage, older, (size_t)stage.bytes, 0);
    if (kill) { /* nothing is left that the next one would write */
      far_kill_worker (stage.far);
      load_reconnect (&stage.load);
    }
    failed = read_each (&stage);
    /* A place that was not written meanwhile has what it had. None is as old as that: all were written again. */
    g_assert_cmpuint (failed + in_stage, >=, stage.load.n_pages);
    stage.hits += failed;
    heal (&stage);
    g_assert_cmpuint (read_each (&stage), ==, 0);
  }
  end (&stage);
}

/* The file is cut while it is in use: what was behind the cut fails; the VM goes on, and what it writes again is there. */
static void
truncated (void) {
  struct stage stage;

  begin (&stage, small);
  fill (&stage);
  g_assert_cmpint (ftruncate (stage.fd, 2 * SEGMENT_BYTES), ==, 0);
  g_assert_cmpuint (read_each (&stage), >, 0);
  /* A read fails, a write makes the file longer again. */
  forget_damage (&stage);
  load_write_all (&stage.load, 0, stage.load.n_pages, LOAD_RANDOM);
  load_write_all (&stage.load, 0, stage.load.n_pages, LOAD_RANDOM);
  g_assert_cmpuint (read_each (&stage), ==, 0);
  g_assert_true (backend_is_alive (stage.far->backend));
  end (&stage);
}

/* Packed pages, of which several are in a page of the file, changed under load: reads end well or in an I/O error, never in
 * wrong bytes; and the worker lives. */
static void
under_load (void) {
  static const char *const packed[] = { "--compress", "--stage=8M", NULL };
  struct stage stage;

  begin (&stage, packed);
  stage.load.kinds = 1u << LOAD_TEXT | 1u << LOAD_RANDOM;
  load_write_all (&stage.load, 0, stage.load.n_pages, LOAD_TEXT);
  for (unsigned round = 0; round < tamperings (3000) / 100; round++) {
    struct stat st;

    g_assert_cmpint (fstat (stage.fd, &st), ==, 0);
    for (unsigned i = 0; i < 100; i++) {
      const uint64_t noise = (uint64_t)g_rand_int (stage.random) << 32 | g_rand_int (stage.random);

      put (&stage, &noise, sizeof noise, (off_t)testing_below (stage.random, (uint64_t)st.st_size - sizeof noise));
      stage.hits++;
    }
    stage.load.read_percent = stage.load.discard_percent = 0;
    load_run (&stage.load, 50); /* cleaning carries what was damaged to other places */
    forget_damage (&stage);
    read_each (&stage);
  }
  forget_damage (&stage);
  load_write_all (&stage.load, 0, stage.load.n_pages, LOAD_TEXT);
  g_assert_cmpuint (read_each (&stage), ==, 0);
  g_assert_cmpint (far_status_top (stage.far, "worker.starts"), ==, 1);
  end (&stage);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/far/tamper/flips", flips);
  g_test_add_func ("/far/tamper/swaps", swaps);
  g_test_add_data_func ("/far/tamper/roll-back", NULL, roll_back);
  g_test_add_data_func ("/far/tamper/roll-back-and-kill", "", roll_back);
  g_test_add_func ("/far/tamper/truncated", truncated);
  g_test_add_func ("/far/tamper/under-load", under_load);
  return g_test_run ();
}
