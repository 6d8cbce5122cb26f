/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "core/read-ahead.h"

#include <stdlib.h>
#include <string.h>

/* Pages that the ring has entries for: packed ones may be several to READ_AHEAD_ALIGN. */
#define PAGES_PER_ALIGN 2u
#define NOBODY UINT32_MAX

struct entry {
  struct read_ahead_page now;
  uint32_t next; /* in its bucket */
  uint32_t chunk;
  bool in_bucket; /* it can be found */
  bool used;
};

struct chunk {
  size_t at, bytes;
  uint32_t first, n; /* entries, going round */
  uint32_t stream;
  bool coming;
  void *owner;
};

/* Chunks and entries are used in the order in which they came: rings, too. */
struct read_ahead {
  size_t bytes;
  void (*dropped) (void *data, uint32_t stream, uint32_t pages);
  void *data;
  struct chunk *chunks;
  uint32_t chunks_max, oldest, n_chunks;
  struct entry *entries;
  uint32_t entries_max, next_entry, n_entries;
  uint32_t *buckets, mask;
  struct read_ahead_figures figures;
};

struct read_ahead *
read_ahead_new (size_t bytes, void (*dropped) (void *data, uint32_t stream, uint32_t pages), void *data) {
  struct read_ahead *ahead = calloc (1, sizeof *ahead);
  uint32_t n_buckets = 1;

  if (!ahead)
    return NULL;
  ahead->bytes = bytes;
  ahead->dropped = dropped;
  ahead->data = data;
  ahead->chunks_max = (uint32_t)(bytes / READ_AHEAD_ALIGN);
  ahead->entries_max = ahead->chunks_max * PAGES_PER_ALIGN;
  while (n_buckets < ahead->entries_max)
    n_buckets *= 2;
  ahead->mask = n_buckets - 1;
  ahead->chunks = calloc (ahead->chunks_max, sizeof *ahead->chunks);
  ahead->entries = calloc (ahead->entries_max, sizeof *ahead->entries);
  ahead->buckets = malloc (n_buckets * sizeof *ahead->buckets);
  if (!ahead->chunks || !ahead->entries || !ahead->buckets) {
    read_ahead_free (ahead);
    return NULL;
  }
  for (uint32_t i = 0; i < n_buckets; i++)
    ahead->buckets[i] = NOBODY;
  return ahead;
}

void
read_ahead_free (struct read_ahead *ahead) {
  if (!ahead)
    return;
  free (ahead->chunks);
  free (ahead->entries);
  free (ahead->buckets);
  free (ahead);
}

/* ---- entries ---- */

static uint32_t *
bucket_of (const struct read_ahead *ahead, uint64_t page) {
  return &ahead->buckets[(page * 0x9e3779b97f4a7c15u >> 32) & ahead->mask];
}

static struct entry *
find_entry (const struct read_ahead *ahead, uint64_t page) {
  uint32_t i = *bucket_of (ahead, page);

  while (i != NOBODY && ahead->entries[i].now.page != page)
    i = ahead->entries[i].next;
  return i == NOBODY ? NULL : &ahead->entries[i];
}

static void
remove_entry (struct read_ahead *ahead, struct entry *entry) {
  const uint32_t number = (uint32_t)(entry - ahead->entries);
  uint32_t *at = bucket_of (ahead, entry->now.page);

  if (!entry->in_bucket)
    return;
  while (*at != number)
    at = &ahead->entries[*at].next;
  *at = entry->next;
  entry->in_bucket = false;
  ahead->figures.n_pages--;
}

static void
add_entry (struct read_ahead *ahead, const struct read_ahead_page *page, uint32_t chunk) {
  struct entry *before = find_entry (ahead, page->page);
  const uint32_t number = ahead->next_entry;
  uint32_t *bucket = bucket_of (ahead, page->page);

  if (before)
    remove_entry (ahead, before);
  ahead->entries[number] = (struct entry){ .now = *page, .next = *bucket, .chunk = chunk, .in_bucket = true };
  *bucket = number;
  ahead->figures.n_pages++;
  ahead->next_entry = (number + 1) % ahead->entries_max;
  ahead->n_entries++;
}

/* ---- chunks ---- */

static struct entry *
entry_of (const struct read_ahead *ahead, const struct chunk *chunk, uint32_t i) {
  return &ahead->entries[(chunk->first + i) % ahead->entries_max];
}

/* The oldest one. False: it is being filled, or there is none. */
static bool
drop_oldest (struct read_ahead *ahead) {
  const struct chunk *chunk = &ahead->chunks[ahead->oldest];
  uint32_t wasted = 0;

  if (ahead->n_chunks == 0 || chunk->coming)
    return false;
  for (uint32_t i = 0; i < chunk->n; i++) {
    struct entry *entry = entry_of (ahead, chunk, i);

    wasted += !entry->used;
    remove_entry (ahead, entry);
  }
  ahead->n_entries -= chunk->n;
  ahead->oldest = (ahead->oldest + 1) % ahead->chunks_max;
  ahead->n_chunks--;
  ahead->figures.wasted += wasted;
  if (wasted)
    ahead->dropped (ahead->data, chunk->stream, wasted);
  return true;
}

/* Behind the newest chunk, or at the ring's start. */
static bool
find_place (const struct read_ahead *ahead, size_t bytes, size_t *ret_at) {
  const struct chunk *oldest = &ahead->chunks[ahead->oldest];
  const struct chunk *newest = &ahead->chunks[(ahead->oldest + ahead->n_chunks + ahead->chunks_max - 1) % ahead->chunks_max];
  size_t end;

  *ret_at = 0;
  if (ahead->n_chunks == 0)
    return true;
  end = newest->at + newest->bytes;
  if (newest->at < oldest->at) { /* it has gone round already */
    *ret_at = end;
    return oldest->at - end >= bytes;
  }
  if (ahead->bytes - end >= bytes)
    *ret_at = end;
  else if (oldest->at < bytes)
    return false;
  return true;
}

int
read_ahead_begin (struct read_ahead *ahead, const struct read_ahead_page *pages, unsigned n, size_t bytes, uint32_t stream,
                  void *owner, size_t *ret_at) {
  struct chunk *chunk;
  uint32_t number;

  if (bytes > ahead->bytes || n > ahead->entries_max)
    return -1;
  while (ahead->n_chunks == ahead->chunks_max || ahead->n_entries + n > ahead->entries_max
         || !find_place (ahead, bytes, ret_at))
    if (!drop_oldest (ahead))
      return -1;
  number = (ahead->oldest + ahead->n_chunks++) % ahead->chunks_max;
  chunk = &ahead->chunks[number];
  *chunk = (struct chunk){ *ret_at, bytes, ahead->next_entry, n, stream, true, owner };
  for (unsigned i = 0; i < n; i++)
    add_entry (ahead, &pages[i], number);
  return (int)number;
}

void
read_ahead_end (struct read_ahead *ahead, int number, const bool *good) {
  struct chunk *chunk = &ahead->chunks[number];

  for (uint32_t i = 0; i < chunk->n; i++)
    if (good && !good[i])
      remove_entry (ahead, entry_of (ahead, chunk, i));
  ahead->figures.pages += chunk->n;
  chunk->coming = false;
  chunk->owner = NULL;
}

/* ---- pages ---- */

enum read_ahead_state
read_ahead_find (const struct read_ahead *ahead, uint64_t page, uint64_t version, size_t *ret_at, void **ret_owner) {
  const struct entry *entry;
  const struct chunk *chunk;

  if (ahead->figures.n_pages == 0)
    return READ_AHEAD_NONE;
  entry = find_entry (ahead, page);
  if (!entry || entry->now.version != version)
    return READ_AHEAD_NONE;
  chunk = &ahead->chunks[entry->chunk];
  *ret_at = chunk->at + entry->now.offset;
  *ret_owner = chunk->owner;
  return chunk->coming ? READ_AHEAD_COMING : READ_AHEAD_THERE;
}

bool
read_ahead_use (struct read_ahead *ahead, uint64_t page) {
  struct entry *entry = find_entry (ahead, page);

  if (!entry || entry->used)
    return false;
  entry->used = true;
  ahead->figures.used++;
  return true;
}

void
read_ahead_drop (struct read_ahead *ahead, uint64_t page) {
  struct entry *entry = find_entry (ahead, page);

  if (entry)
    remove_entry (ahead, entry);
}

void
read_ahead_drop_all (struct read_ahead *ahead) {
  while (drop_oldest (ahead))
    ;
}

void
read_ahead_get_figures (const struct read_ahead *ahead, struct read_ahead_figures *ret_figures) {
  *ret_figures = ahead->figures;
  ret_figures->n_chunks = ahead->n_chunks;
}
