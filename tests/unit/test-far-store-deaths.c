/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The page store over the death of its process, at each instant of each call, and at each instant of the recovery after that: a
 * commit has happened wholly or not at all, nothing older comes back, nothing is lost, leaked or used twice, and life goes on.
 */
#include "core/crash-point.h"
#include "far-model.h"
#include "testing.h"

#include <string.h>

/* ---- deaths: the state as it is at each crash point ---- */

static struct {
  const void *watched; /* NULL: nobody looks */
  size_t bytes;
  GPtrArray *snapshots;
  GHashTable *names; /* of all points that were passed while somebody looked */
} deaths;

void
crash_point (const char *name) {
  if (!deaths.watched)
    return;
  g_ptr_array_add (deaths.snapshots, g_memdup2 (deaths.watched, deaths.bytes));
  g_hash_table_add (deaths.names, (gpointer)name);
}

static void
watch (const void *state, size_t bytes) {
  deaths.watched = state;
  deaths.bytes = bytes;
  deaths.snapshots = g_ptr_array_new_with_free_func (g_free);
}

static GPtrArray *
unwatch (void) {
  deaths.watched = NULL;
  return deaths.snapshots;
}

/* ---- what a process finds that comes after a death ---- */

static const struct far_change *
change_of (const struct far_model *model, uint32_t page) {
  for (unsigned i = 0; i < model->n_changes; i++)
    if (model->changes[i].page == page)
      return &model->changes[i];
  return NULL;
}

/* heir: a model whose store has just been opened on what `model` has left in the middle of a call. Its list of pages is
 * corrected to what it has found. */
static void
judge_pages (struct far_model *heir, const struct far_model *model, enum model_call call) {
  unsigned n_before = 0, n_after = 0;

  for (uint64_t page = 0; page < model->geometry.n_pages; page++) {
    const struct far_change *change = call == CALL_COMMIT ? change_of (model, (uint32_t)page) : NULL;
    const bool discarding = call == CALL_DISCARD && page - model->discard_first < model->discard_n;
    struct model_page after = { 0 };
    bool is_before, is_after;

    is_before = model_page_is (heir, (uint32_t)page, &model->pages[page]);
    if (!change && !discarding) {
      g_assert_true (is_before);
      continue;
    }
    if (change)
      model_after_change (&change->now, &after);
    is_after = model_page_is (heir, (uint32_t)page, &after);
    g_assert_true (is_before || is_after);
    n_before += !is_after;
    n_after += !is_before;
    if (is_after)
      heir->pages[page] = after;
  }
  if (call == CALL_COMMIT)
    g_assert_true (n_before == 0 || n_after == 0);
}

static void
judge (struct far_model *heir, const struct far_model *model, enum model_call call) {
  const struct far_store *store = heir->store;
  struct far_figures figures;

  far_store_figures (store, &figures);
  g_assert_cmpuint (figures.versions + 1, >=, model->versions);
  heir->versions = figures.versions + 1;
  model_recount (heir);
  for (unsigned i = 0; i < model->geometry.n_stage_slots; i++)
    if (store->slots[i].use != FAR_SLOT_FREE)
      g_assert_cmpuint (store->live[store->slots[i].segment].n_pages, >, 0);
  judge_pages (heir, model, call);
}

/* The next process, in copies of all that outlives one. deeper: it dies at each point of its own recovery, too. further: it
 * lives on. */
static void
inherit (const struct far_model *model, const void *state, enum model_call call, bool deeper, bool further) {
  struct far_model heir;

  model_copy (&heir, model, state);
  heir.n_changes = 0;
  heir.discard_n = 0;
  if (deeper)
    watch (heir.state, heir.state_bytes);
  model_open (&heir);
  if (deeper) {
    g_autoptr (GPtrArray) snapshots = unwatch ();

    for (guint i = 0; i < snapshots->len; i++)
      inherit (model, snapshots->pdata[i], call, false, false);
  }
  judge (&heir, model, call);
  if (further) {
    for (unsigned i = 0; i < 30; i++)
      model_step (&heir);
    model_write_out (&heir);
    model_check_pages (&heir);
    model_recount (&heir);
    model_die (&heir);
    model_check_pages (&heir);
  }
  model_clear (&heir);
}

/* ---- a store that is watched in some of its calls ---- */

static struct {
  unsigned odds; /* one call in so many */
  uint64_t n_deaths;
} plan;

static void
before_call (struct far_model *model, enum model_call call) {
  /* the dear ones less often */
  const unsigned odds = call == CALL_COMMIT        ? plan.odds * (1 + model->n_changes / 4)
                        : call == CALL_DISCARD     ? plan.odds * 4
                        : call == CALL_NOT_WRITTEN ? 1
                                                   : plan.odds;

  if (testing_once_in (model->rand, odds))
    watch (model->state, model->state_bytes);
}

static void
after_call (struct far_model *model, enum model_call call) {
  g_autoptr (GPtrArray) snapshots = NULL;

  if (!deaths.watched)
    return;
  snapshots = unwatch ();
  for (guint i = 0; i < snapshots->len; i++) {
    const bool few = snapshots->len < 30;

    if (!few && !testing_once_in (model->rand, 8))
      continue;
    plan.n_deaths++;
    inherit (model, snapshots->pdata[i], call, few && testing_once_in (model->rand, 4), testing_once_in (model->rand, 20));
  }
}

static void
fill (struct far_model *model) {
  uint32_t pages[FAR_COMMIT_MAX];

  for (uint32_t first = 0; first < model->geometry.n_pages; first += FAR_COMMIT_MAX) {
    for (unsigned i = 0; i < FAR_COMMIT_MAX; i++)
      pages[i] = first + i;
    model_write (model, pages, FAR_COMMIT_MAX, FAR_RAW);
  }
}

static void
test_random_deaths (void) {
  const unsigned steps = testing_steps (10000);
  struct far_model model;

  deaths.names = g_hash_table_new (g_str_hash, g_str_equal);
  plan.odds = 8;
  plan.n_deaths = 0;
  model_init (&model, 3 * 512, 1200, 5);
  fill (&model);
  model.begin = before_call;
  model.end = after_call;
  for (unsigned i = 0; i < steps; i++) {
    model_step (&model);
    if (testing_once_in (model.rand, 100))
      model_die (&model);
    if (i == steps / 2)
      model_discard (&model, 0, model.geometry.n_pages, 2000); /* and from nothing again */
  }
  model_check_pages (&model);
  model_clear (&model);
  g_test_message ("%" G_GUINT64_FORMAT " deaths", plan.n_deaths);
  if (steps >= 5000) {
    static const char *const expected[] = { "far-version",     "far-copy-tag",  "far-copy-tag-2",    "far-copy-version",
                                            "far-copy-where",  "far-copy-segment", "far-done",       "far-record-target",
                                            "far-record-where", "far-record",   "far-committed",     "far-discarded",
                                            "far-segment",     "far-record-segment", "far-record-bad", "far-version-of-state",
                                            "far-given",       "far-backed" };

    for (unsigned i = 0; i < G_N_ELEMENTS (expected); i++)
      if (!g_hash_table_contains (deaths.names, expected[i]))
        g_error ("nobody died at %s", expected[i]);
  }
  g_hash_table_unref (deaths.names);
}

/* The first page of a block; and what is in memory that nobody has looked at does not count. */
static void
test_first_touch (void) {
  struct far_model model;
  uint32_t pages[] = { 5, 600, 601 };

  deaths.names = g_hash_table_new (g_str_hash, g_str_equal);
  plan.odds = 1;
  model_init (&model, 3 * 512, 150, 5);
  for (unsigned i = 0; i < 512; i++)
    memset (&model.store->entries[512 + i], 0xa5, sizeof *model.store->entries);
  model_check_pages (&model);
  model.begin = before_call;
  model.end = after_call;
  model_write (&model, pages, 3, FAR_RAW);
  model_check_pages (&model);
  g_assert_true (g_hash_table_contains (deaths.names, "far-touched"));
  g_assert_true (g_hash_table_contains (deaths.names, "far-zeroed"));
  model_clear (&model);
  g_hash_table_unref (deaths.names);
}

/* A copy of many bytes can end at any of them. */
static void
test_torn_commits (void) {
  const unsigned steps = testing_steps (3000);
  struct far_model model;

  model_init (&model, 3 * 512, 150, 5);
  fill (&model);
  for (unsigned i = 0; i < steps; i++) {
    g_autofree uint64_t *before = g_malloc (model.state_bytes);
    g_autofree uint8_t *torn = NULL;
    struct far_layout layout;
    uint32_t pages[3] = { (uint32_t)testing_below (model.rand, 500), 0, 0 };
    uint32_t n = 1 + (uint32_t)testing_below (model.rand, 3);
    struct far_header *header;

    pages[1] = pages[0] + 1;
    pages[2] = pages[0] + 700;
    model_keep_clean (&model);
    memcpy (before, model.state, model.state_bytes);
    model_write (&model, pages, n, FAR_RAW);
    far_store_lay_out (&model.geometry, &layout);
    torn = g_memdup2 (model.state, model.state_bytes);
    header = (struct far_header *)(void *)torn;
    header->n_records = n; /* what is in the journal is still that of this commit */
    for (unsigned k = 0; k < n; k++) {
      const size_t at = layout.pages_at + pages[k] * sizeof (struct far_entry);

      for (size_t byte = at; byte < at + sizeof (struct far_entry); byte++)
        if (testing_once_in (model.rand, 2))
          torn[byte] = ((uint8_t *)before)[byte];
    }
    inherit (&model, torn, CALL_VERSIONS, false, false);
    if (testing_once_in (model.rand, 20))
      model_write_out (&model);
  }
  model_clear (&model);
}

/* A format that was not finished is none, and is done again. */
static void
test_format (void) {
  struct far_model model;
  g_autoptr (GPtrArray) snapshots = NULL;

  deaths.names = g_hash_table_new (g_str_hash, g_str_equal);
  model_init (&model, 512, 150, 5);
  far_store_close (model.store);
  model.store = NULL;
  memset (model.state, 0, model.state_bytes);
  watch (model.state, model.state_bytes);
  far_store_format (model.state, &model.geometry);
  snapshots = unwatch ();
  g_assert_cmpuint (snapshots->len, ==, 3);
  for (guint i = 0; i < snapshots->len; i++) {
    struct far_model heir;
    const char *why = NULL;

    model_copy (&heir, &model, snapshots->pdata[i]);
    g_assert_cmpint (heir.state[0] == 0, ==, i + 1 < snapshots->len);
    if (heir.state[0] == 0) {
      g_assert_null (far_store_open (heir.state, heir.state_bytes, &heir.geometry, &why));
      g_assert_cmpstr (why, ==, "it is no state of a far disk");
      far_store_format (heir.state, &heir.geometry);
    }
    model_open (&heir);
    model_recount (&heir);
    model_clear (&heir);
  }
  model_clear (&model);
  g_hash_table_unref (deaths.names);
}

/* Worst luck: all places are used but those for cleaning, and each process dies when it has moved a few pages. */
static void
test_deaths_while_cleaning (void) {
  const unsigned steps = testing_steps (4000);
  struct far_model model;
  struct far_figures figures;
  unsigned fewest_free = UINT32_MAX, n_filled = 0;

  model_init (&model, 8 * 512, 20, 4);
  fill (&model);
  for (unsigned i = 0; i < steps; i++) {
    uint32_t segment, pages[3];
    unsigned n;

    if (testing_once_in (model.rand, 40)) { /* until nothing is left for writes */
      while (model_put (&model, FAR_CLASS_RAW, (uint32_t)testing_below (model.rand, model.geometry.n_pages)))
        ;
      n_filled++;
    }
    if (testing_once_in (model.rand, 3) && model_begin_write (&model) && testing_once_in (model.rand, 2))
      model_end_write (&model, 0, true);
    if (far_store_victim (model.store, &segment)) {
      n = far_store_pages_of (model.store, segment, pages, 1 + (unsigned)testing_below (model.rand, 3));
      for (unsigned k = 0; k < n; k++)
        g_assert_true (model_put (&model, FAR_CLASS_CLEANED, pages[k])); /* there is always room to go on */
    }
    far_store_figures (model.store, &figures);
    fewest_free = MIN (fewest_free, figures.free);
    if (i % 16 == 0) /* wholly, once in a while */
      model_keep_clean (&model);
    model_die (&model);
    model_recount (&model);
  }
  if (steps >= 1000) {
    g_assert_cmpuint (fewest_free, <, FAR_RESERVED_PLACES);
    g_assert_cmpuint (n_filled, >, 10);
  }
  model_check_pages (&model);
  model_clear (&model);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/far-store-deaths/each instant of any call, and of the recovery", test_random_deaths);
  g_test_add_func ("/far-store-deaths/the first page of a block", test_first_touch);
  g_test_add_func ("/far-store-deaths/a torn commit is completed", test_torn_commits);
  g_test_add_func ("/far-store-deaths/formatting", test_format);
  g_test_add_func ("/far-store-deaths/cleaning goes on however often it is cut short", test_deaths_while_cleaning);
  return g_test_run ();
}
