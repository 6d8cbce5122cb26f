/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Making a donor's table, and going on from one: nothing in it is believed before it was looked at, and nothing in it changes
 * before all of it was found good.
 */
#include "core/lease-donor-internal.h"

#include <stdlib.h>
#include <string.h>

#define HEADER_BYTES 4096u

_Static_assert(sizeof (struct donor_header) <= HEADER_BYTES, "");

void
donor_lay_out (const struct lease_donor_geometry *geometry, struct donor_layout *ret_layout) {
  ret_layout->leases_at = HEADER_BYTES;
  ret_layout->words_at = ret_layout->leases_at + geometry->n_leases * sizeof (struct donor_record);
  ret_layout->bytes = (ret_layout->words_at + geometry->n_blocks * sizeof (uint64_t) + 4095) / 4096 * 4096;
}

const char *
lease_donor_check_geometry (const struct lease_donor_geometry *geometry) {
  if (geometry->n_blocks == 0)
    return "the arena has no block";
  if (geometry->n_blocks > LEASE_DONOR_BLOCKS_MAX)
    return "the arena is larger than 128 TiB";
  if (geometry->n_leases == 0 || geometry->n_leases > LEASE_DONOR_LEASES_MAX)
    return "there is not room for between 1 and 4096 leases";
  return NULL;
}

size_t
lease_donor_state_bytes (const struct lease_donor_geometry *geometry) {
  struct donor_layout layout;

  donor_lay_out (geometry, &layout);
  return layout.bytes;
}

/* Both in one store, so that nobody finds the version of one process with the other's oldest reader. */
static void
set_version (struct donor_header *header) {
  typedef uint64_t __attribute__ ((may_alias)) word;
  const uint32_t versions[2] = { LEASE_DONOR_STATE_VERSION, LEASE_DONOR_OLDEST };
  uint64_t value;

  _Static_assert(offsetof (struct donor_header, version) % 8 == 0
                     && offsetof (struct donor_header, oldest_reader) == offsetof (struct donor_header, version) + 4,
                 "one aligned word");
  memcpy (&value, versions, sizeof value);
  LEASE_STORE (*(word *)(void *)&header->version, value, "lease-version");
}

void
lease_donor_format (void *state, const struct lease_donor_geometry *geometry, const uint8_t incarnation[LEASE_ID_BYTES]) {
  struct donor_header *header = state;

  memset (header, 0, sizeof *header);
  header->bytes = lease_donor_state_bytes (geometry);
  header->n_blocks = geometry->n_blocks;
  header->n_leases = geometry->n_leases;
  memcpy (header->incarnation, incarnation, LEASE_ID_BYTES);
  header->next_number = header->next_revoke = 1;
  set_version (header);
  LEASE_STORE (header->magic, LEASE_DONOR_MAGIC, "lease-formatted");
}

const char *
lease_donor_check_header (const void *state, size_t bytes, const struct lease_donor_geometry *geometry) {
  const struct donor_header *header = state;

  if ((uintptr_t)state % 8 || bytes < HEADER_BYTES || header->magic != LEASE_DONOR_MAGIC)
    return "it is no table of leases";
  if (header->oldest_reader > LEASE_DONOR_STATE_VERSION)
    return "it was written by a newer version, for that and newer ones only";
  if (header->version < LEASE_DONOR_OLDEST || header->oldest_reader > header->version)
    return "its version is none that there was";
  if (lease_donor_check_geometry (geometry) || header->n_blocks != geometry->n_blocks || header->n_leases != geometry->n_leases)
    return "it is for an arena of another size";
  if (header->bytes != bytes || bytes != lease_donor_state_bytes (geometry))
    return "its parts are not where they belong";
  if (header->next_number == 0 || header->next_revoke == 0)
    return "its counters begin nowhere";
  return NULL;
}

/* ---- what is in it ---- */

static bool
same_lease (const struct donor_record *a, const struct donor_record *b) {
  return a->id == b->id
         || (a->disk == b->disk && memcmp (a->vm, b->vm, LEASE_ID_BYTES) == 0 && strcmp (a->identity, b->identity) == 0);
}

static const char *
take_lease (struct lease_donor *donor, uint32_t slot) {
  const struct donor_record *record = &donor->records[slot];
  const struct donor_header *header = donor->header;

  if (record->id >= header->next_number || record->epoch <= record->id || record->epoch >= header->next_number
      || record->revoke >= header->next_revoke || record->seen_ms > header->served_ms)
    return "it has a lease with numbers that were never given";
  if (record->state > DONOR_RECORD_ENDING)
    return "it has a lease in a state that there is not";
  if (record->export_blocks == 0 || record->export_blocks > LEASE_EXPORT_BLOCKS_MAX || record->disk > UINT32_MAX)
    return "it has a lease of an export that can't be";
  if (!memchr (record->identity, '\0', sizeof record->identity))
    return "it has a lease of an identity without an end";
  for (uint32_t other = 0; other < slot; other++)
    if (donor->records[other].id && same_lease (record, &donor->records[other]))
      return "it has one lease twice";
  if (record->level > donor->n_blocks - donor->promised)
    return "it promises more than there is";
  donor->promised += record->level;
  donor->n_live++;
  return NULL;
}

static const char *
take_block (struct lease_donor *donor, uint32_t block) {
  const uint64_t word = donor->words[block];
  const struct donor_record *record;

  switch (donor_word_state (word)) {
  case LEASE_BLOCK_FREE:
    if (word != LEASE_BLOCK_FREE)
      return "it has a free block that is somebody's";
    (void)buddy_release (&donor->buddy, block, 0);
    return NULL;
  case LEASE_BLOCK_DIRTY:
    if (word != LEASE_BLOCK_DIRTY)
      return "it has a dirty block that is somebody's";
    donor_note_dirty (donor, block);
    return NULL;
  case LEASE_BLOCK_USED:
    if (word & ~DONOR_WORD_ALL || donor_word_slot (word) >= donor->n_leases || donor->records[donor_word_slot (word)].id == 0)
      return "it has a block of a lease that there is not";
    record = &donor->records[donor_word_slot (word)];
    if (donor_word_block (word) >= record->export_blocks)
      return "it has a block beyond its export";
    if (donor->slots[donor_word_slot (word)].blocks.n >= record->level)
      return "it has a lease with more blocks than its level";
    if (!donor_note_used (donor, block))
      return "it has two blocks for one of an export";
    return NULL;
  default:
    return "it has a block in a state that there is not";
  }
}

static const char *
take_all (struct lease_donor *donor) {
  const char *why = NULL;

  for (uint32_t slot = 0; slot < donor->n_leases && !why; slot++)
    if (donor->records[slot].id)
      why = take_lease (donor, slot);
  for (uint64_t block = 0; block < donor->n_blocks && !why; block++)
    why = take_block (donor, (uint32_t)block);
  return why;
}

/* What was begun with a lease when the process before died. */
static void
finish (struct lease_donor *donor, uint32_t slot) {
  struct donor_record *record = &donor->records[slot];

  if (record->id == 0)
    return;
  if (record->state == DONOR_RECORD_ENDING)
    donor_end_lease (donor, slot);
  else if (record->revoke && record->level <= record->revoke_level)
    LEASE_STORE (record->revoke, 0, "lease-revoke-over");
}

/* ---- open and close ---- */

static bool
get_memory (struct lease_donor *donor) {
  uint64_t entries = 2;

  while (entries < 2 * donor->n_blocks)
    entries *= 2;
  donor->map_mask = entries - 1;
  donor->map = calloc (entries, sizeof *donor->map);
  donor->links = calloc (donor->n_blocks, sizeof *donor->links);
  donor->slots = calloc (donor->n_leases, sizeof *donor->slots);
  donor->buddy_memory = malloc (buddy_bytes (donor->n_blocks));
  if (!donor->map || !donor->links || !donor->slots || !donor->buddy_memory)
    return false;
  buddy_init (&donor->buddy, donor->n_blocks, donor->buddy_memory);
  return true;
}

struct lease_donor *
lease_donor_open (void *state, size_t bytes, const struct lease_donor_geometry *geometry, uint64_t limit, uint64_t hash_key,
                  const struct lease_donor_ops *ops, const char **ret_why) {
  struct lease_donor *donor;
  struct donor_layout layout;
  const char *why = lease_donor_check_header (state, bytes, geometry);

  if (why) {
    *ret_why = why;
    return NULL;
  }
  donor = calloc (1, sizeof *donor);
  if (donor) {
    donor_lay_out (geometry, &layout);
    donor->header = state;
    donor->records = (struct donor_record *)(void *)((uint8_t *)state + layout.leases_at);
    donor->words = (uint64_t *)(void *)((uint8_t *)state + layout.words_at);
    donor->n_blocks = geometry->n_blocks;
    donor->n_leases = geometry->n_leases;
    donor->ops = *ops;
    donor->hash_key = hash_key;
  }
  if (!donor || !get_memory (donor))
    why = "not enough memory for the table of leases";
  else
    why = take_all (donor);
  if (why) {
    lease_donor_close (donor);
    *ret_why = why;
    return NULL;
  }
  if (donor->header->version != LEASE_DONOR_STATE_VERSION || donor->header->oldest_reader != LEASE_DONOR_OLDEST)
    set_version (donor->header);
  for (uint32_t slot = 0; slot < donor->n_leases; slot++)
    finish (donor, slot);
  lease_donor_set_limit (donor, limit);
  return donor;
}

void
lease_donor_close (struct lease_donor *donor) {
  if (!donor)
    return;
  free (donor->map);
  free (donor->links);
  free (donor->slots);
  free (donor->buddy_memory);
  free (donor);
}
