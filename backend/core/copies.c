/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "core/copies-internal.h"
#include "core/crash-point.h"

#include <stdlib.h>
#include <string.h>

#define COPIES_MAGIC 0x5345495043425944ull /* "DYBCPIES" */
#define COPIES_OLDEST 1u
#define COPIES_HEADER_BYTES 4096u

_Static_assert(sizeof (struct copies_header) <= COPIES_HEADER_BYTES, "");

#define ORDER() __atomic_signal_fence (__ATOMIC_SEQ_CST)
/* One store that is there or is not, after all before it and before all after it; and a place to die at. */
#define STORE(target, value, name)                                                                                             \
  do {                                                                                                                         \
    __atomic_store_n (&(target), (value), __ATOMIC_RELEASE);                                                                   \
    ORDER ();                                                                                                                  \
    CRASH_POINT (name);                                                                                                        \
  } while (0)

size_t
copies_state_bytes (uint32_t n_places) {
  return COPIES_HEADER_BYTES + (size_t)n_places * 8;
}

void
copies_format (void *state, uint32_t n_places) {
  struct copies_header *header = state;

  header->version = COPIES_STATE_VERSION;
  header->oldest_reader = COPIES_OLDEST;
  header->n_places = n_places;
  STORE (header->magic, COPIES_MAGIC, "copies-format");
}

static void
tally (struct copies *c, uint64_t word, int sign) {
  for (unsigned t = 0; word & COPIES_WORD_ALL && t < COPIES_TARGETS; t++)
    if (copies_word_state (word, t) != COPY_NONE)
      c->count[t][copies_word_state (word, t)] += (uint64_t)(int64_t)sign;
  if (word & COPIES_WORD_LOST)
    c->lost += (uint64_t)(int64_t)sign;
}

static void
put (struct copies *c, uint32_t place, uint64_t word) {
  const uint64_t was = c->words[place];

  if (was == word)
    return;
  tally (c, was, -1);
  tally (c, word, 1);
  copies_words_remove (&c->kinds, was);
  copies_words_add (&c->kinds, word);
  STORE (c->words[place], word, "copies-place");
}

/* ---- donors ---- */

static uint64_t
sweep (struct copies *c, unsigned donor) {
  uint64_t gone = 0;

  for (uint32_t p = 0; p < c->n_places; p++) {
    const uint64_t was = c->words[p];
    uint64_t word = copies_word_with (was, 1 + donor, COPY_NONE);

    if (word == was)
      continue;
    gone += copies_word_state (was, 1 + donor) != COPY_OLD;
    /* What was being written is still in the stage: that is no loss. */
    if (copies_word_holds (was) && !copies_word_holds (word))
      word |= COPIES_WORD_LOST;
    put (c, p, word);
  }
  return gone;
}

void
copies_donor (const struct copies *c, unsigned donor, uint8_t ret_incarnation[LEASE_ID_BYTES], uint64_t *ret_lease) {
  const struct copies_donor_record *record = &c->header->donors[donor];

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
  struct copies_donor_record *record = &c->header->donors[donor];
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

void
copies_donor_left (struct copies *c, unsigned donor) {
  if (!copies_used (c, donor)) {
    copies_donor_lost (c, donor);
    return;
  }
  for (uint32_t p = 0; p < c->n_places; p++) {
    const enum copy_state state = copies_word_state (c->words[p], 1 + donor);

    if (state == COPY_VALID || state == COPY_SUSPECT)
      copies_set (c, p, 1 + donor, COPY_OLD);
  }
}

/* ---- places ---- */

enum copy_state
copies_get (const struct copies *c, uint32_t place, unsigned target) {
  return copies_word_state (c->words[place], target);
}

uint32_t
copies_in_state (const struct copies *c, uint32_t place, enum copy_state state) {
  return copies_word_in (c->words[place], state);
}

bool
copies_is_lost (const struct copies *c, uint32_t place) {
  return c->words[place] & COPIES_WORD_LOST;
}

void
copies_set (struct copies *c, uint32_t place, unsigned target, enum copy_state state) {
  const uint64_t was = c->words[place];
  uint64_t word = copies_word_with (was, target, state);

  if (copies_word_holds (was) && !copies_word_holds (word))
    word |= COPIES_WORD_LOST;
  else if (copies_word_holds (word))
    word &= ~COPIES_WORD_LOST;
  put (c, place, word);
}

void
copies_begin_write (struct copies *c, uint32_t place, uint32_t targets) {
  uint64_t word = 0;

  for (unsigned t = 0; t < COPIES_TARGETS; t++)
    if ((targets >> t & 1) || (t != COPIES_LOCAL && copies_word_state (c->words[place], t) != COPY_NONE))
      word = copies_word_with (word, t, COPY_OLD);
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
  struct copies_header *header = state;
  struct copies *c;

  *ret_why = NULL;
  if (bytes != copies_state_bytes (n_places) || header->magic != COPIES_MAGIC || header->n_places != n_places)
    *ret_why = "it is no map of the copies of this disk";
  else if (header->oldest_reader > COPIES_STATE_VERSION)
    *ret_why = "the map of copies is of a newer program";
  if (*ret_why)
    return NULL;
  for (uint32_t p = 0; p < n_places; p++)
    if (((uint64_t *)((char *)state + COPIES_HEADER_BYTES))[p] & ~(COPIES_WORD_ALL | COPIES_WORD_LOST)) {
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
  if (!copies_words_init (&c->kinds, n_places)) {
    free (c);
    *ret_why = "there is no memory";
    return NULL;
  }
  for (uint32_t p = 0; p < n_places; p++) {
    tally (c, c->words[p], 1);
    copies_words_add (&c->kinds, c->words[p]);
  }
  for (unsigned d = 0; d < COPIES_DONORS_MAX; d++)
    if (header->donors[d].lease == 0 && copies_used (c, d))
      sweep (c, d); /* a predecessor was at it */
  return c;
}

void
copies_close (struct copies *c) {
  if (c)
    copies_words_clear (&c->kinds);
  free (c);
}
