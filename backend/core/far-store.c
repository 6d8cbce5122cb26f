/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The pages of a store: reading, changing and discarding them. */
#include "core/far-store-internal.h"

#include <string.h>

void
far_store_get (const struct far_store *store, uint32_t page, struct far_page *ret_page) {
  const struct far_entry *entry = &store->entries[page];
  const uint64_t where = far_is_touched (store, page) ? entry->where : 0;

  ret_page->kind = far_where_kind (where);
  ret_page->bytes = far_where_bytes (where);
  ret_page->segment = far_where_segment (where);
  ret_page->offset = far_where_unit (where) * FAR_UNIT_BYTES;
  if (where == 0) {
    ret_page->version = 0;
    memset (ret_page->tag, 0, sizeof ret_page->tag);
    return;
  }
  ret_page->version = entry->version;
  memcpy (ret_page->tag, entry->tag, sizeof ret_page->tag);
}

uint64_t
far_store_take_versions (struct far_store *store, unsigned n) {
  const uint64_t first = store->header->next_version;

  FAR_STORE (store->header->next_version, first + n, "far-version");
  return first;
}

/* ---- lists and figures ---- */

static void
count_page (struct far_store *store, uint32_t page, enum far_kind kind, int by) {
  uint16_t *n = &store->block_pages[page / FAR_BLOCK_PAGES];

  if (kind == FAR_NONE)
    return;
  store->n_pages[kind] += (uint64_t)(int64_t)by;
  if (by > 0)
    store->blocks_in_use += (*n)++ == 0;
  else
    store->blocks_in_use -= --*n == 0;
}

void
far_store_link (struct far_store *store, uint32_t page, uint64_t where) {
  struct far_live *live;
  struct far_link *link;

  count_page (store, page, far_where_kind (where), 1);
  if (!far_where_is_stored (where))
    return;
  store->stored_bytes += far_where_bytes (where);
  live = &store->live[far_where_segment (where)];
  link = &store->links[page];
  link->prev = page;
  link->next = page;
  if (live->n_pages) {
    link->next = live->head;
    store->links[live->head].prev = page;
  }
  live->head = page;
  live->n_pages++;
  live->units = (uint16_t)(live->units + far_units (far_where_bytes (where)));
}

/* Returns whether that was its segment's last page. */
static bool
unlink_page (struct far_store *store, uint32_t page, uint64_t where) {
  const uint32_t segment = far_where_segment (where);
  const struct far_link link = store->links[page];
  struct far_live *live;

  count_page (store, page, far_where_kind (where), -1);
  if (!far_where_is_stored (where))
    return false;
  store->stored_bytes -= far_where_bytes (where);
  live = &store->live[segment];
  if (link.prev != page)
    store->links[link.prev].next = link.next == page ? link.prev : link.next;
  else
    live->head = link.next;
  if (link.next != page)
    store->links[link.next].prev = link.prev == page ? link.next : link.prev;
  live->n_pages--;
  live->units = (uint16_t)(live->units - far_units (far_where_bytes (where)));
  if (live->bucket && live->bucket != far_bucket_of (live->units) && (live->bucket != FAR_BUCKET_SPARED || live->n_pages == 0))
    far_store_set_bucket (store, segment, far_bucket_of (live->units));
  return live->n_pages == 0;
}

/* ---- commits ---- */

static void
copy_entry (struct far_entry *to, const struct far_entry *from) {
  to->tag[0] = from->tag[0];
  CRASH_POINT ("far-copy-tag");
  to->tag[1] = from->tag[1];
  CRASH_POINT ("far-copy-tag-2");
  to->version = from->version;
  CRASH_POINT ("far-copy-version");
  to->where = from->where;
  CRASH_POINT ("far-copy-where");
}

void
far_store_apply (struct far_store *store) {
  const uint64_t n = store->header->n_records;

  for (uint64_t i = 0; i < n; i++) {
    const struct far_record *record = &store->journal[i];

    if (record->target >> 32 == FAR_RECORD_PAGE)
      copy_entry (&store->entries[(uint32_t)record->target], &record->now);
    else
      FAR_STORE (store->segments[(uint32_t)record->target], record->now.where, "far-copy-segment");
  }
  FAR_STORE (store->header->n_records, 0, "far-done");
}

/* What is in a block's entries counts from now on. */
static void
touch (struct far_store *store, uint32_t page) {
  const uint64_t block = page / FAR_BLOCK_PAGES;
  uint64_t *word = &store->touched[block / 64];

  memset (&store->entries[block * FAR_BLOCK_PAGES], 0, FAR_BLOCK_PAGES * sizeof *store->entries);
  CRASH_POINT ("far-zeroed");
  FAR_ORDER ();
  FAR_STORE (*word, *word | 1ull << block % 64, "far-touched");
}

static void
note (struct far_record *record, const struct far_change *change) {
  const struct far_page *page = &change->now;

  record->target = (uint64_t)FAR_RECORD_PAGE << 32 | change->page;
  CRASH_POINT ("far-record-target");
  record->now.where = far_where (page);
  CRASH_POINT ("far-record-where");
  if (far_where_is_stored (record->now.where)) {
    record->now.version = page->version;
    memcpy (record->now.tag, page->tag, sizeof record->now.tag);
  } else {
    record->now.version = 0;
    record->now.tag[0] = page->kind == FAR_SAME ? page->value : 0;
    record->now.tag[1] = 0;
  }
  CRASH_POINT ("far-record");
}

/* Before the tables change: the lists follow from what they say until now. */
static unsigned
relink (struct far_store *store, const struct far_change *changes, unsigned n) {
  unsigned n_emptied = 0;

  for (unsigned i = 0; i < n; i++) {
    const uint32_t page = changes[i].page;
    const uint64_t before = store->entries[page].where, now = store->journal[i].now.where;

    if (unlink_page (store, page, before))
      store->emptied[n_emptied++] = far_where_segment (before);
    far_store_link (store, page, now);
    if (far_where_is_stored (now)) {
      const int slot = far_segment_slot (store->segments[far_where_segment (now)]);

      if (slot >= 0 && store->slots[slot].pending)
        store->slots[slot].pending--;
    }
  }
  return n_emptied;
}

void
far_store_prefetch (const struct far_store *store, uint32_t page) {
  if (!far_is_touched (store, page))
    return;
  __builtin_prefetch (&store->entries[page], 1);
  __builtin_prefetch (&store->links[page], 1);
}

void
far_store_commit (struct far_store *store, const struct far_change *changes, unsigned n) {
  unsigned n_emptied;

  for (unsigned i = 0; i < n; i++) {
    if (!far_is_touched (store, changes[i].page))
      touch (store, changes[i].page);
    note (&store->journal[i], &changes[i]);
  }
  n_emptied = relink (store, changes, n);
  FAR_STORE (store->header->n_records, n, "far-committed");
  far_store_apply (store);
  for (unsigned i = 0; i < n_emptied; i++)
    far_store_emptied (store, store->emptied[i]);
}

uint64_t
far_store_discard (struct far_store *store, uint64_t first, uint64_t n, unsigned max_pages) {
  const uint64_t end = first + n;
  uint64_t page = first;

  while (page < end) {
    const uint64_t block = page / FAR_BLOCK_PAGES, block_end = (block + 1) * FAR_BLOCK_PAGES;

    if (store->block_pages[block] == 0) {
      page = block_end;
      continue;
    }
    for (; page < end && page < block_end; page++) {
      struct far_entry *entry = &store->entries[page];
      const uint64_t where = entry->where;

      if (where == 0)
        continue;
      if (max_pages-- == 0)
        return page - first;
      FAR_STORE (entry->where, 0, "far-discarded"); /* a commit of its own */
      if (unlink_page (store, (uint32_t)page, where))
        far_store_emptied (store, far_where_segment (where));
    }
  }
  return n;
}

unsigned
far_store_pages_of (const struct far_store *store, uint32_t segment, uint32_t *pages, unsigned cap) {
  const struct far_live *live = &store->live[segment];
  uint32_t page = live->head;
  unsigned n = 0;

  for (; n < cap && n < live->n_pages; n++) {
    pages[n] = page;
    page = store->links[page].next;
  }
  return n;
}

void
far_store_figures (const struct far_store *store, struct far_figures *ret_figures) {
  uint64_t others = 0;

  memset (ret_figures, 0, sizeof *ret_figures);
  for (unsigned kind = FAR_SAME; kind <= FAR_LOST; kind++)
    others += ret_figures->pages[kind] = store->n_pages[kind];
  ret_figures->pages[FAR_NONE] = store->geometry.n_pages - others;
  ret_figures->stored_bytes = store->stored_bytes;
  ret_figures->blocks_in_use = store->blocks_in_use;
  ret_figures->places = store->geometry.n_places;
  ret_figures->covered = store->covered - store->n_given;
  ret_figures->given = store->n_given;
  ret_figures->free = store->n_free;
  ret_figures->bad = store->n_bad;
  ret_figures->slots = store->geometry.n_stage_slots;
  ret_figures->slots_free = store->n_slots_free;
  ret_figures->slots_writing = store->n_slots_writing;
  ret_figures->versions = store->header->next_version - 1;
}

uint64_t
far_store_count_blocks (const struct far_store *store, uint64_t first, uint64_t n) {
  uint64_t in_use = 0;

  for (uint64_t block = first; block < first + n; block++)
    in_use += store->block_pages[block] != 0;
  return in_use;
}
