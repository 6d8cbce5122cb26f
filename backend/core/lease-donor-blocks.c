/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Blocks of the arena: whose they are, and how they come and go. */
#include "core/lease-donor-internal.h"

#include <string.h>

/* ---- lists ---- */

static void
append (struct lease_donor *donor, struct donor_list *list, uint32_t block) {
  struct donor_link *link = &donor->links[block];

  link->next = DONOR_NONE;
  link->prev = list->n ? list->tail : DONOR_NONE;
  if (list->n)
    donor->links[list->tail].next = block;
  else
    list->head = block;
  list->tail = block;
  list->n++;
}

static void
take_off (struct lease_donor *donor, struct donor_list *list, uint32_t block) {
  const struct donor_link link = donor->links[block];

  if (link.prev != DONOR_NONE)
    donor->links[link.prev].next = link.next;
  else
    list->head = link.next;
  if (link.next != DONOR_NONE)
    donor->links[link.next].prev = link.prev;
  else
    list->tail = link.prev;
  list->n--;
}

/* ---- the map ---- */

/* Peers choose the blocks of their exports: without the key they can't choose where those meet. */
static uint64_t
place_of (const struct lease_donor *donor, uint64_t word) {
  const unsigned __int128 product
      = (unsigned __int128)(word ^ donor->hash_key) * (0x9e3779b97f4a7c15ull ^ (donor->hash_key << 1));

  return ((uint64_t)product ^ (uint64_t)(product >> 64)) & donor->map_mask;
}

uint32_t
donor_find (const struct lease_donor *donor, uint64_t word) {
  for (uint64_t at = place_of (donor, word);; at = (at + 1) & donor->map_mask) {
    const uint32_t entry = donor->map[at];

    if (entry == 0)
      return DONOR_NONE;
    if (donor->words[entry - 1] == word)
      return entry - 1;
  }
}

static bool
map_insert (struct lease_donor *donor, uint32_t block) {
  const uint64_t word = donor->words[block];
  uint64_t at = place_of (donor, word);

  for (; donor->map[at]; at = (at + 1) & donor->map_mask)
    if (donor->words[donor->map[at] - 1] == word)
      return false;
  donor->map[at] = block + 1;
  return true;
}

/* While the block's word is still the one that it was inserted with. What comes behind it moves up, so that no search ends too
 * soon. */
static void
map_remove (struct lease_donor *donor, uint32_t block) {
  uint64_t hole = place_of (donor, donor->words[block]);

  while (donor->map[hole] != block + 1)
    hole = (hole + 1) & donor->map_mask;
  for (uint64_t at = (hole + 1) & donor->map_mask; donor->map[at]; at = (at + 1) & donor->map_mask) {
    const uint64_t wanted = place_of (donor, donor->words[donor->map[at] - 1]);

    if (((at - wanted) & donor->map_mask) < ((at - hole) & donor->map_mask))
      continue; /* it would come to lie before its place */
    donor->map[hole] = donor->map[at];
    hole = at;
  }
  donor->map[hole] = 0;
}

bool
donor_note_used (struct lease_donor *donor, uint32_t block) {
  if (!map_insert (donor, block))
    return false;
  append (donor, &donor->slots[donor_word_slot (donor->words[block])].blocks, block);
  donor->used++;
  return true;
}

void
donor_note_dirty (struct lease_donor *donor, uint32_t block) {
  append (donor, &donor->dirty, block);
}

/* A used block is nobody's any more. */
static void
let_go (struct lease_donor *donor, uint32_t block) {
  map_remove (donor, block);
  take_off (donor, &donor->slots[donor_word_slot (donor->words[block])].blocks, block);
  donor->used--;
  LEASE_STORE (donor->words[block], LEASE_BLOCK_DIRTY, "lease-dirty");
  donor_note_dirty (donor, block);
}

void
donor_end_lease (struct lease_donor *donor, uint32_t slot) {
  struct donor_record *record = &donor->records[slot];
  struct donor_list *blocks = &donor->slots[slot].blocks;

  if (record->state != DONOR_RECORD_ENDING)
    LEASE_STORE (record->state, DONOR_RECORD_ENDING, "lease-ending");
  donor->promised -= record->level;
  while (blocks->n)
    let_go (donor, blocks->head);
  LEASE_STORE (record->id, 0, "lease-ended");
  donor->slots[slot].revoke_seen = 0;
  donor->n_live--;
}

/* ---- exports ---- */

static size_t
length_up_to (const char *text, size_t most) {
  size_t n = 0;

  while (n < most && text[n])
    n++;
  return n;
}

bool
lease_donor_export (const struct lease_donor *donor, const char *identity, const char *name, struct lease_export *ret_export,
                    uint64_t *ret_blocks, const char **ret_why) {
  uint8_t incarnation[LEASE_ID_BYTES];
  uint64_t lease, epoch;

  if (length_up_to (name, LEASE_EXPORT_NAME_BYTES) != LEASE_EXPORT_NAME_BYTES - 1
      || !lease_export_parse (name, &lease, &epoch, incarnation) || lease == 0) {
    *ret_why = "there is no such export: those of leases are named lease-LEASE.EPOCH.INCARNATION";
    return false;
  }
  if (memcmp (incarnation, donor->header->incarnation, sizeof incarnation) != 0) {
    *ret_why = "the arena is another one: what was in that lease is gone";
    return false;
  }
  for (uint32_t slot = 0; slot < donor->n_leases; slot++) {
    const struct donor_record *record = &donor->records[slot];

    if (record->id != lease)
      continue;
    if (strcmp (record->identity, identity) != 0)
      break; /* not even that there is one is told */
    if (record->epoch != epoch) {
      *ret_why = "the lease has another epoch: attach again";
      return false;
    }
    *ret_export = (struct lease_export){ .lease = lease, .epoch = epoch, .slot = slot };
    *ret_blocks = record->export_blocks;
    return true;
  }
  *ret_why = "there is no such lease of this key";
  return false;
}

bool
lease_donor_is_current (const struct lease_donor *donor, const struct lease_export *export) {
  const struct donor_record *record = &donor->records[export->slot];

  return export->lease && record->id == export->lease && record->epoch == export->epoch;
}

bool
lease_donor_look (const struct lease_donor *donor, const struct lease_export *export, uint64_t block,
                  uint64_t *ret_arena_block) {
  uint32_t found;

  if (!lease_donor_is_current (donor, export) || block >= donor->records[export->slot].export_blocks)
    return false;
  found = donor_find (donor, donor_word (export->slot, block));
  if (found == DONOR_NONE)
    return false;
  *ret_arena_block = found;
  return true;
}

enum lease_take
lease_donor_take (struct lease_donor *donor, const struct lease_export *export, uint64_t block, uint64_t *ret_arena_block,
                  bool *ret_fresh) {
  const struct donor_record *record = &donor->records[export->slot];
  uint64_t taken;

  if (!lease_donor_is_current (donor, export))
    return LEASE_TAKE_STALE;
  if (block >= record->export_blocks)
    return LEASE_TAKE_BAD;
  if (lease_donor_look (donor, export, block, ret_arena_block)) {
    *ret_fresh = false;
    return LEASE_TAKEN;
  }
  if (donor->slots[export->slot].blocks.n >= record->level)
    return LEASE_TAKE_NO_LEVEL;
  taken = buddy_take (&donor->buddy, 0);
  if (taken == BUDDY_NONE) {
    /* Levels are not more than there are blocks, so one that is neither used nor free is dirty */
    if (!donor->dirty.n)
      return LEASE_TAKE_NO_LEVEL;
    *ret_arena_block = donor->dirty.head;
    return LEASE_TAKE_ZERO;
  }
  LEASE_STORE (donor->words[taken], donor_word (export->slot, block), "lease-taken");
  (void)donor_note_used (donor, (uint32_t)taken);
  *ret_arena_block = taken;
  *ret_fresh = true;
  return LEASE_TAKEN;
}

void
lease_donor_drop (struct lease_donor *donor, const struct lease_export *export, uint64_t block) {
  uint64_t found;

  if (lease_donor_look (donor, export, block, &found))
    let_go (donor, (uint32_t)found);
}

bool
lease_donor_next_dirty (const struct lease_donor *donor, uint64_t *ret_arena_block) {
  if (!donor->dirty.n)
    return false;
  *ret_arena_block = donor->dirty.head;
  return true;
}

bool
lease_donor_zeroed (struct lease_donor *donor, uint64_t arena_block) {
  if (arena_block >= donor->n_blocks || donor_word_state (donor->words[arena_block]) != LEASE_BLOCK_DIRTY)
    return false;
  take_off (donor, &donor->dirty, (uint32_t)arena_block);
  LEASE_STORE (donor->words[arena_block], LEASE_BLOCK_FREE, "lease-zeroed");
  return buddy_release (&donor->buddy, arena_block, 0);
}

enum lease_block_state
lease_donor_block (const struct lease_donor *donor, uint64_t arena_block) {
  return arena_block < donor->n_blocks ? donor_word_state (donor->words[arena_block]) : LEASE_BLOCK_FREE;
}

const struct buddy *
lease_donor_buddy (const struct lease_donor *donor) {
  return &donor->buddy;
}
