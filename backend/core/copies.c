/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "core/copies.h"
#include "core/crash-point.h"

#include <stdlib.h>
#include <string.h>

#define COPIES_MAGIC 0x5345495043425944ull /* "DYBCPIES" */
#define COPIES_OLDEST 1u
#define COPIES_HEADER_BYTES 4096u
/* Of a place's word: bits 2t and 2t + 1 are target t's, then one that says that the last copy is gone. */
#define WORD_LOST (1ull << 40)
#define WORD_ALL ((1ull << (2 * COPIES_TARGETS)) - 1)

#define ORDER() __atomic_signal_fence (__ATOMIC_SEQ_CST)
/* One store that is there or is not, after all before it and before all after it; and a place to die at. */
#define STORE(target, value, name)                                                                                             \
  do {                                                                                                                         \
    __atomic_store_n (&(target), (value), __ATOMIC_RELEASE);                                                                   \
    ORDER ();                                                                                                                  \
    CRASH_POINT (name);                                                                                                        \
  } while (0)

/* lease 0: no copies there, incarnation says nothing, and the map is to be swept. */
struct donor_record {
  uint64_t incarnation[LEASE_ID_BYTES / 8];
  uint64_t lease;
  uint64_t reserved;
};

struct header {
  uint64_t magic; /* written last */
  uint32_t version, oldest_reader;
  uint64_t n_places;
  uint64_t reserved;
  struct donor_record donors[COPIES_DONORS_MAX];
};
_Static_assert(sizeof (struct header) <= COPIES_HEADER_BYTES, "");
_Static_assert(2 * COPIES_TARGETS < 40, "");

struct copies {
  struct header *header;
  uint64_t *words;
  uint32_t n_places;
  uint64_t count[COPIES_TARGETS][4];
  uint64_t lost;
};

size_t
copies_state_bytes (uint32_t n_places) {
  return COPIES_HEADER_BYTES + (size_t)n_places * 8;
}

void
copies_format (void *state, uint32_t n_places) {
  struct header *header = state;

  header->version = COPIES_STATE_VERSION;
  header->oldest_reader = COPIES_OLDEST;
  header->n_places = n_places;
  STORE (header->magic, COPIES_MAGIC, "copies-format");
}

static enum copy_state
state_of (uint64_t word, unsigned target) {
  return (enum copy_state) (word >> (2 * target) & 3);
}

static uint64_t
with (uint64_t word, unsigned target, enum copy_state state) {
  return (word & ~(3ull << (2 * target))) | (uint64_t)state << (2 * target);
}

/* The even bits of a word, drawn together. */
static uint32_t
in_state (uint64_t word, enum copy_state state) {
  const uint64_t low = 0x5555555555555555ull & WORD_ALL;
  uint64_t x = ((state & 1) ? word : ~word) & ((state & 2) ? word >> 1 : ~word >> 1) & low;
  uint32_t mask = 0;

  for (; x; x &= x - 1)
    mask |= 1u << (__builtin_ctzll (x) / 2);
  return mask;
}

static bool
holds (uint64_t word) {
  return word & 0x5555555555555555ull & WORD_ALL; /* VALID and SUSPECT are the odd ones */
}

static void
tally (struct copies *c, uint64_t word, int sign) {
  for (unsigned t = 0; word & WORD_ALL && t < COPIES_TARGETS; t++)
    if (state_of (word, t) != COPY_NONE)
      c->count[t][state_of (word, t)] += (uint64_t)(int64_t)sign;
  if (word & WORD_LOST)
    c->lost += (uint64_t)(int64_t)sign;
}

static void
put (struct copies *c, uint32_t place, uint64_t word) {
  const uint64_t was = c->words[place];

  if (was == word)
    return;
  tally (c, was, -1);
  tally (c, word, 1);
  STORE (c->words[place], word, "copies-place");
}

/* ---- donors ---- */

static uint64_t
sweep (struct copies *c, unsigned donor) {
  uint64_t gone = 0;

  for (uint32_t p = 0; p < c->n_places; p++) {
    const uint64_t was = c->words[p];
    uint64_t word = with (was, 1 + donor, COPY_NONE);

    if (word == was)
      continue;
    gone += state_of (was, 1 + donor) != COPY_OLD;
    /* What was being written is still in the stage: that is no loss. */
    if (holds (was) && !holds (word))
      word |= WORD_LOST;
    put (c, p, word);
  }
  return gone;
}

void
copies_donor (const struct copies *c, unsigned donor, uint8_t ret_incarnation[LEASE_ID_BYTES], uint64_t *ret_lease) {
  const struct donor_record *record = &c->header->donors[donor];

  memset (ret_incarnation, 0, LEASE_ID_BYTES);
  if (record->lease)
    memcpy (ret_incarnation, record->incarnation, LEASE_ID_BYTES);
  *ret_lease = record->lease;
}

uint64_t
copies_donor_lost (struct copies *c, unsigned donor) {
  STORE (c->header->donors[donor].lease, 0, "copies-donor-lost");
  return sweep (c, donor);
}

uint64_t
copies_donor_attached (struct copies *c, unsigned donor, const uint8_t incarnation[LEASE_ID_BYTES], uint64_t lease) {
  struct donor_record *record = &c->header->donors[donor];
  uint64_t gone;

  if (record->lease && record->lease == lease && memcmp (record->incarnation, incarnation, LEASE_ID_BYTES) == 0)
    return 0;
  gone = copies_donor_lost (c, donor);
  memcpy (record->incarnation, incarnation, LEASE_ID_BYTES);
  ORDER ();
  CRASH_POINT ("copies-incarnation");
  STORE (record->lease, lease, "copies-donor");
  return gone;
}

/* ---- places ---- */

enum copy_state
copies_get (const struct copies *c, uint32_t place, unsigned target) {
  return state_of (c->words[place], target);
}

uint32_t
copies_in_state (const struct copies *c, uint32_t place, enum copy_state state) {
  return in_state (c->words[place], state);
}

bool
copies_is_lost (const struct copies *c, uint32_t place) {
  return c->words[place] & WORD_LOST;
}

void
copies_set (struct copies *c, uint32_t place, unsigned target, enum copy_state state) {
  const uint64_t was = c->words[place];
  uint64_t word = with (was, target, state);

  if (holds (was) && !holds (word))
    word |= WORD_LOST;
  else if (holds (word))
    word &= ~WORD_LOST;
  put (c, place, word);
}

void
copies_begin_write (struct copies *c, uint32_t place, uint32_t targets) {
  uint64_t word = 0;

  for (unsigned t = 0; t < COPIES_TARGETS; t++)
    if ((targets >> t & 1) || (t != COPIES_LOCAL && state_of (c->words[place], t) != COPY_NONE))
      word = with (word, t, COPY_OLD);
  put (c, place, word);
}

void
copies_discard (struct copies *c, uint32_t place) {
  copies_begin_write (c, place, 0);
}

void
copies_figures (const struct copies *c, struct copies_figures *ret_figures) {
  memcpy (ret_figures->count, c->count, sizeof c->count);
  ret_figures->lost = c->lost;
}

uint64_t
copies_used (const struct copies *c, unsigned donor) {
  const uint64_t *count = c->count[1 + donor];

  return count[COPY_VALID] + count[COPY_OLD] + count[COPY_SUSPECT];
}

/* ---- life ---- */

struct copies *
copies_open (void *state, size_t bytes, uint32_t n_places, const char **ret_why) {
  struct header *header = state;
  struct copies *c;

  *ret_why = NULL;
  if (bytes != copies_state_bytes (n_places) || header->magic != COPIES_MAGIC || header->n_places != n_places)
    *ret_why = "it is no map of the copies of this disk";
  else if (header->oldest_reader > COPIES_STATE_VERSION)
    *ret_why = "the map of copies is of a newer program";
  if (*ret_why)
    return NULL;
  for (uint32_t p = 0; p < n_places; p++)
    if (((uint64_t *)((char *)state + COPIES_HEADER_BYTES))[p] & ~(WORD_ALL | WORD_LOST)) {
      *ret_why = "the map of copies is damaged";
      return NULL;
    }
  c = calloc (1, sizeof *c);
  if (!c) {
    *ret_why = "there is no memory";
    return NULL;
  }
  c->header = header;
  c->words = (uint64_t *)((char *)state + COPIES_HEADER_BYTES);
  c->n_places = n_places;
  for (uint32_t p = 0; p < n_places; p++)
    tally (c, c->words[p], 1);
  for (unsigned d = 0; d < COPIES_DONORS_MAX; d++)
    if (header->donors[d].lease == 0 && copies_used (c, d))
      sweep (c, d); /* a predecessor was at it */
  return c;
}

void
copies_close (struct copies *c) {
  free (c);
}
