/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What was read ahead, against a plain list: what is found is what came, no two chunks share a byte, and pages are counted
 * once. */
#include "core/read-ahead.h"
#include "testing.h"

#include <string.h>

#define RING_PAGES 64u
#define PAGES 200u

typedef struct {
  struct read_ahead *ahead;
  uint64_t versions[PAGES]; /* what there is of each, 0: nothing */
  bool coming[PAGES], used[PAGES];
  uint32_t of_chunk[PAGES];     /* number of the chunk, counting all */
  uint64_t in_ring[RING_PAGES]; /* whose bytes are there: chunk number, counting all; 0: nobody's */
  uint64_t n_used, n_wasted, n_came;
  GArray *pending;
} Rig;

typedef struct {
  int chunk;
  uint32_t number;
  size_t at, bytes;
  unsigned n;
  struct read_ahead_page pages[16];
} Chunk;

static void
on_dropped (void *data, uint32_t stream, uint32_t pages) {
  Rig *rig = data;

  g_assert_cmpuint (pages, >, 0);
  g_assert_cmpuint (stream, ==, 77);
  rig->n_wasted += pages;
}

/* What was there of whom the new chunk has the room of, and all that came before it, is there no more. */
static void
check_room (Rig *rig, const Chunk *chunk) {
  size_t at = chunk->at / READ_AHEAD_ALIGN;

  g_assert_cmpuint (chunk->at % READ_AHEAD_ALIGN, ==, 0);
  g_assert_cmpuint (chunk->at + chunk->bytes, <=, RING_PAGES * READ_AHEAD_ALIGN);
  for (size_t i = 0; i < chunk->bytes / READ_AHEAD_ALIGN; i++, at++) {
    for (guint k = 0; k < rig->pending->len; k++)
      g_assert_cmpuint (rig->in_ring[at], !=, g_array_index (rig->pending, Chunk, k).number);
    rig->in_ring[at] = chunk->number;
  }
  for (unsigned page = 0; page < PAGES; page++) {
    size_t offset;
    void *owner;

    if (rig->versions[page] == 0 || read_ahead_find (rig->ahead, page, rig->versions[page], &offset, &owner) != READ_AHEAD_NONE)
      continue;
    g_assert_false (rig->coming[page]); /* dropped */
    rig->versions[page] = 0;
  }
}

static void
begin (Rig *rig, GRand *rand, uint32_t number, uint64_t *version) {
  Chunk chunk = { .number = number, .n = 1 + (unsigned)testing_below (rand, 16) };
  uint64_t first = testing_below (rand, PAGES - 16);

  chunk.bytes = (1 + testing_below (rand, 17)) * READ_AHEAD_ALIGN;
  for (unsigned i = 0; i < chunk.n; i++)
    chunk.pages[i] = (struct read_ahead_page){ first + i, ++*version, (uint32_t)testing_below (rand, chunk.bytes) };
  chunk.chunk = read_ahead_begin (rig->ahead, chunk.pages, chunk.n, chunk.bytes, 77, GUINT_TO_POINTER (number), &chunk.at);
  if (chunk.chunk < 0) {
    g_assert_cmpuint (rig->pending->len, >, 0); /* nobody else keeps room */
    check_room (rig, &(Chunk){ .number = number });
    return;
  }
  for (unsigned i = 0; i < chunk.n; i++) {
    rig->versions[first + i] = chunk.pages[i].version;
    rig->coming[first + i] = true;
    rig->used[first + i] = false;
    rig->of_chunk[first + i] = number;
  }
  check_room (rig, &chunk);
  g_array_append_val (rig->pending, chunk);
}

static void
end (Rig *rig, GRand *rand) {
  const guint which = (guint)testing_below (rand, rig->pending->len);
  const Chunk chunk = g_array_index (rig->pending, Chunk, which);
  bool good[16];
  const bool all = testing_once_in (rand, 2);

  g_array_remove_index (rig->pending, which);
  for (unsigned i = 0; i < chunk.n; i++) {
    const uint64_t page = chunk.pages[i].page;

    good[i] = !testing_once_in (rand, 4);
    if (rig->versions[page] != chunk.pages[i].version)
      continue;
    rig->coming[page] = false;
    if (!all && !good[i])
      rig->versions[page] = 0;
  }
  rig->n_came += chunk.n;
  read_ahead_end (rig->ahead, chunk.chunk, all ? NULL : good);
}

static void
look (Rig *rig, uint64_t page) {
  const uint64_t version = rig->versions[page];
  enum read_ahead_state state;
  size_t at = 0;
  void *owner = NULL;

  g_assert_cmpint (read_ahead_find (rig->ahead, page, version + 1000000, &at, &owner), ==, READ_AHEAD_NONE);
  state = read_ahead_find (rig->ahead, page, version, &at, &owner);
  if (version == 0) {
    g_assert_cmpint (state, ==, READ_AHEAD_NONE);
    return;
  }
  g_assert_cmpint (state, ==, rig->coming[page] ? READ_AHEAD_COMING : READ_AHEAD_THERE);
  g_assert_cmpuint (rig->in_ring[at / READ_AHEAD_ALIGN], ==, rig->of_chunk[page]);
  if (rig->coming[page]) {
    g_assert_cmpuint (GPOINTER_TO_UINT (owner), ==, rig->of_chunk[page]);
    return;
  }
  g_assert_cmpint (read_ahead_use (rig->ahead, page), ==, !rig->used[page]);
  rig->n_used += !rig->used[page];
  rig->used[page] = true;
}

static void
test_random (void) {
  GRand *rand = testing_rand ();
  Rig rig = { .pending = g_array_new (FALSE, FALSE, sizeof (Chunk)) };
  struct read_ahead_figures figures;
  uint32_t number = 0;
  uint64_t version = 0;

  rig.ahead = read_ahead_new (RING_PAGES * READ_AHEAD_ALIGN, on_dropped, &rig);
  g_assert_nonnull (rig.ahead);
  for (unsigned i = 0; i < testing_steps (200000); i++) {
    const uint64_t page = testing_below (rand, PAGES);

    if (testing_once_in (rand, 4))
      begin (&rig, rand, ++number, &version);
    else if (testing_once_in (rand, 3) && rig.pending->len)
      end (&rig, rand);
    else if (testing_once_in (rand, 20) && !rig.coming[page]) {
      read_ahead_drop (rig.ahead, page);
      rig.versions[page] = 0;
    } else
      look (&rig, page);
  }
  while (rig.pending->len)
    end (&rig, rand);
  read_ahead_drop_all (rig.ahead);
  read_ahead_get_figures (rig.ahead, &figures);
  g_assert_cmpuint (figures.n_chunks, ==, 0);
  g_assert_cmpuint (figures.n_pages, ==, 0);
  g_assert_cmpuint (figures.pages, ==, rig.n_came);
  g_assert_cmpuint (figures.used, ==, rig.n_used);
  g_assert_cmpuint (figures.wasted, ==, rig.n_wasted);
  g_assert_cmpuint (figures.used + figures.wasted, ==, figures.pages);
  g_test_message ("%u chunks, %" G_GUINT64_FORMAT " pages, %" G_GUINT64_FORMAT " used", number, figures.pages, figures.used);
  read_ahead_free (rig.ahead);
  g_array_free (rig.pending, TRUE);
  g_rand_free (rand);
}

/* A ring that is filled in turn has its whole size, and what can't fit does no harm. */
static void
test_fits (void) {
  Rig rig = { 0 };
  struct read_ahead *ahead = read_ahead_new (8 * READ_AHEAD_ALIGN, on_dropped, &rig);
  struct read_ahead_page page = { 5, 1, 0 };
  struct read_ahead_figures figures;
  size_t at;

  g_assert_cmpint (read_ahead_begin (ahead, &page, 1, 9 * READ_AHEAD_ALIGN, 77, NULL, &at), ==, -1);
  for (unsigned i = 0; i < 8; i++) {
    page.page = i;
    g_assert_cmpint (read_ahead_begin (ahead, &page, 1, READ_AHEAD_ALIGN, 77, NULL, &at), >=, 0);
    g_assert_cmpuint (at, ==, i * READ_AHEAD_ALIGN);
  }
  page.page = 99;
  g_assert_cmpint (read_ahead_begin (ahead, &page, 1, READ_AHEAD_ALIGN, 77, NULL, &at), ==, -1); /* all are coming */
  read_ahead_drop_all (ahead);
  read_ahead_get_figures (ahead, &figures);
  g_assert_cmpuint (figures.n_chunks, ==, 8);
  read_ahead_end (ahead, 0, NULL);
  g_assert_cmpint (read_ahead_begin (ahead, &page, 1, READ_AHEAD_ALIGN, 77, NULL, &at), >=, 0);
  g_assert_cmpuint (at, ==, 0);
  g_assert_cmpuint (rig.n_wasted, ==, 1);
  read_ahead_free (ahead);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/read-ahead/random", test_random);
  g_test_add_func ("/read-ahead/fits", test_fits);
  return g_test_run ();
}
