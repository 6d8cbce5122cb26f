/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "load.h"
#include "testing.h"

#include <string.h>

void
load_init (struct load *load, struct far *far, struct blk *blk, unsigned disk, GRand *random) {
  *load = (struct load){ .far = far, .blk = blk, .random = random, .disk = disk };
  load->n_pages = load->hot_pages = blk->config.capacity / 8;
  load->pages = g_new0 (struct load_page, load->n_pages);
  load->next = g_new0 (struct load_page, load->n_pages);
  load->depth = 16;
  load->max_pages = 16;
  load->read_percent = 40;
  load->discard_percent = 8;
  load->kinds = (1u << LOAD_KINDS) - 1;
}

void
load_clear (struct load *load) {
  blk_free (load->blk);
  g_free (load->pages);
  g_free (load->next);
}

/* ---- what is in a page ---- */

static uint64_t
mix (uint64_t x) {
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

void
load_fill (const struct load *load, uint64_t page, const struct load_page *what, uint8_t *bytes) {
  uint64_t *words = (uint64_t *)(void *)bytes;
  const uint64_t seed = mix (page << 32 | what->number);

  switch (what->kind) {
  case LOAD_ZERO:
    memset (bytes, 0, BLK_PAGE);
    break;
  case LOAD_SAME:
    for (unsigned i = 0; i < BLK_PAGE / 8; i++)
      words[i] = seed | 1;
    break;
  case LOAD_TEXT:
    for (unsigned i = 0; i < BLK_PAGE / 8; i++)
      words[i] = i % 16 ? mix (page) : seed + i;
    break;
  case LOAD_RANDOM:
    for (unsigned i = 0; i < BLK_PAGE / 8; i++)
      words[i] = mix (seed + i);
    break;
  default:
    g_assert_not_reached ();
  }
}

static void
check_page (struct load *load, uint64_t page, const uint8_t *bytes) {
  uint8_t right[BLK_PAGE] __attribute__ ((aligned (8)));
  const struct load_page *what = &load->pages[page];

  load_fill (load, page, what, right);
  if (what->unknown)
    return;
  if (memcmp (right, bytes, BLK_PAGE) == 0)
    return;
  for (uint32_t number = what->number; number-- && what->number - number < 100000;)
    for (unsigned kind = 0; kind < LOAD_KINDS; kind++) {
      const struct load_page other = { .number = number, .kind = (uint8_t)kind };

      load_fill (load, page, &other, right);
      if (memcmp (right, bytes, BLK_PAGE) == 0)
        g_error ("page %" G_GUINT64_FORMAT " has an old version: number %u, kind %u; it was written with number %u, kind %u",
                 page, number, kind, what->number, what->kind);
    }
  g_error ("page %" G_GUINT64_FORMAT " has wrong bytes (%02x %02x %02x %02x …); it was written with number %u, kind %u", page,
           bytes[0], bytes[1], bytes[2], bytes[3], what->number, what->kind);
}

/* ---- requests ---- */

static unsigned
free_run (struct load *load, uint64_t first, unsigned n) {
  for (unsigned i = 0; i < n; i++)
    if (first + i >= load->n_pages || load->pages[first + i].busy)
      return i;
  return n;
}

static void
submit (struct load *load, unsigned slot) {
  const struct blk_slot *s = &load->blk->slots[slot];
  struct blk_shape shape = { 0 };

  if (!load->plain)
    shape = blk_random_shape (load->random);
  if (s->type != BLK_T_FLUSH)
    for (unsigned i = 0; i < s->n; i++) {
      const uint64_t page = s->first + i;

      load->pages[page].busy = true;
      if (s->type == BLK_OUT)
        load_fill (load, page, &load->next[page], blk_data (load->blk, slot) + i * (size_t)BLK_PAGE);
      else if (s->type == BLK_IN)
        memset (blk_data (load->blk, slot) + i * (size_t)BLK_PAGE, 0x5a, BLK_PAGE);
    }
  blk_submit (load->blk, slot, &shape, load->random);
  blk_kick (load->blk, s->queue);
}

static enum load_kind
random_kind (struct load *load) {
  enum load_kind kind;

  do
    kind = (enum load_kind)g_rand_int_range (load->random, 0, LOAD_KINDS);
  while (!(load->kinds & (1u << kind)));
  return kind;
}

void
load_begin (struct load *load) {
  const unsigned dice = (unsigned)g_rand_int_range (load->random, 0, 100);
  uint64_t first = testing_below (load->random, load->hot_pages);
  enum blk_type type = BLK_OUT;
  unsigned n, slot;

  if (load->blk->n_in_flight >= MIN (load->depth, BLK_SLOTS))
    return;
  slot = (unsigned)blk_free_slot (load->blk);
  if (dice < load->read_percent)
    type = BLK_IN;
  else if (dice < load->read_percent + load->discard_percent)
    type = dice % 2 ? BLK_T_DISCARD : BLK_T_WRITE_ZEROES;
  else if (dice == 99)
    type = BLK_T_FLUSH;
  n = free_run (load, first, 1 + (unsigned)testing_below (load->random, type > BLK_OUT ? 300 : load->max_pages));
  if (n == 0 && type != BLK_T_FLUSH)
    return;
  blk_prepare (load->blk, slot, type, first, type == BLK_T_FLUSH ? 0 : n);
  for (unsigned i = 0; i < n && type != BLK_IN; i++)
    load->next[first + i]
        = (struct load_page){ .number = ++load->numbers, .kind = (uint8_t)(type == BLK_OUT ? random_kind (load) : LOAD_ZERO) };
  submit (load, slot);
}

static void
ended (struct load *load, unsigned slot, uint8_t status) {
  const struct blk_slot *s = &load->blk->slots[slot];
  bool damaged = false;

  load->done++;
  for (unsigned i = 0; i < s->n && s->type != BLK_T_FLUSH; i++) {
    load->pages[s->first + i].busy = false;
    damaged = damaged || load->pages[s->first + i].damaged;
  }
  switch (s->type) {
  case BLK_IN:
    load->reads++;
    if (damaged) {
      g_assert_cmpint (status, ==, BLK_S_IOERR);
      load->expected_errors++;
      return;
    }
    if (status == BLK_S_IOERR && load->may_fail_reads) {
      load->failed_reads++;
      return;
    }
    break;
  case BLK_OUT:
    load->writes++;
    if (status == BLK_S_IOERR && load->may_fail_writes) {
      load->failed_writes++;
      for (unsigned i = 0; i < s->n; i++)
        load->pages[s->first + i].unknown = true;
      return;
    }
    break;
  case BLK_T_DISCARD:
  case BLK_T_WRITE_ZEROES:
    load->discards++;
    break;
  default:
    break;
  }
  if (status != BLK_S_OK)
    g_error ("type %u, pages %" G_GUINT64_FORMAT " + %u: status %u", s->type, s->first, s->n, status);
  for (unsigned i = 0; i < s->n && s->type != BLK_T_FLUSH; i++) {
    if (s->type == BLK_IN)
      check_page (load, s->first + i, blk_data (load->blk, slot) + i * (size_t)BLK_PAGE);
    else
      load->pages[s->first + i] = load->next[s->first + i];
  }
}

void
load_reconnect (struct load *load) {
  const int64_t deadline = fe_now_ms () + 2 * fe_patience_ms ();

  /* A worker may die again meanwhile. */
  while (!blk_connect (load->blk, load->far->socket_paths[load->disk])) {
    if (fe_now_ms () > deadline || !backend_is_alive (load->far->backend)) {
      g_autofree char *log = backend_log_from (load->far->backend, 0);

      g_error ("can't connect again: %s; %s; log:\n%s", load->blk->fe->why, backend_end_text (load->far->backend), log);
    }
    blk_disconnect (load->blk);
    g_usleep (1000);
  }
}

bool
load_end_one (struct load *load, int timeout_ms) {
  const int64_t deadline = fe_now_ms () + timeout_ms;
  uint8_t status;
  unsigned slot;

  while (!blk_wait (load->blk, &slot, &status, (int)MAX (deadline - fe_now_ms (), 0))) {
    if (blk_is_connected (load->blk))
      return false;
    load_reconnect (load);
  }
  ended (load, slot, status);
  return true;
}

void
load_drain (struct load *load) {
  while (load->blk->n_in_flight)
    if (!load_end_one (load, 2 * fe_patience_ms ())) {
      g_autofree char *log = backend_log_from (load->far->backend, 0);

      g_error ("%s; %s; log:\n%s", load->blk->fe->why, backend_end_text (load->far->backend), log);
    }
}

void
load_run (struct load *load, unsigned n) {
  const uint64_t until = load->done + n;

  while (load->done < until) {
    load_begin (load);
    if (load->blk->n_in_flight >= load->depth || g_rand_int_range (load->random, 0, 4) == 0)
      load_end_one (load, load->blk->n_in_flight ? fe_patience_ms () : 0);
  }
  load_drain (load);
}

/* In order, and as many at a time as there are slots. */
static void
run_all (struct load *load, enum blk_type type, uint64_t first, uint64_t n, enum load_kind kind) {
  while (n || load->blk->n_in_flight) {
    int slot;

    while (n && (slot = blk_free_slot (load->blk)) >= 0) {
      unsigned some = (unsigned)MIN (n, BLK_SLOT_PAGES);

      /* Exactly those are to fail. */
      if (type == BLK_IN)
        for (unsigned i = 1; i < some; i++)
          if (load->pages[first + i].damaged != load->pages[first].damaged)
            some = i;
      blk_prepare (load->blk, (unsigned)slot, type, first, some);
      for (unsigned i = 0; i < some && type == BLK_OUT; i++)
        load->next[first + i] = (struct load_page){ .number = ++load->numbers, .kind = (uint8_t)kind };
      submit (load, (unsigned)slot);
      first += some;
      n -= some;
    }
    if (!load_end_one (load, 2 * fe_patience_ms ()))
      load_drain (load); /* says what is wrong */
  }
}

void
load_write_all (struct load *load, uint64_t first, uint64_t n, enum load_kind kind) {
  load_drain (load);
  run_all (load, BLK_OUT, first, n, kind);
}

void
load_check_all (struct load *load) {
  load_drain (load);
  run_all (load, BLK_IN, 0, load->n_pages, LOAD_ZERO);
}
