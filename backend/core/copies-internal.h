/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Inside of the map of copies: a place's word, and how many places have which (copies.c, copies-words.c, copies-plan.c). */
#ifndef DOMYBS_CORE_COPIES_INTERNAL_H
#define DOMYBS_CORE_COPIES_INTERNAL_H

#include "core/copies.h"

/* Of a place's word: bits 2t and 2t + 1 are target t's, then one that says that the last copy is gone. */
#define COPIES_WORD_LOST (1ull << 40)
#define COPIES_WORD_ALL ((1ull << (2 * COPIES_TARGETS)) - 1)
_Static_assert(2 * COPIES_TARGETS < 40, "");

/* How many places have which word: of all words that there could be, a disk has a few hundred, for its places have copies with
 * a few sets of donors. So what is known of all places is known of these words, in no more time than there are of them. */
struct copies_kind {
  uint64_t word;
  uint32_t n_places; /* 0: it is not there any more */
};

/* kinds: in a row, without gaps. table: open addressing with linear probing, kind + 1; 0: empty. Both have room for a word of its
 * own for each place, of which the kernel backs what is touched. */
struct copies_words {
  struct copies_kind *kinds;
  uint32_t *table;
  uint32_t n, mask;
};

/* False: there is no memory. */
bool copies_words_init (struct copies_words *words, uint32_t n_places);
void copies_words_clear (struct copies_words *words);
void copies_words_add (struct copies_words *words, uint64_t word);
/* One that was added. */
void copies_words_remove (struct copies_words *words, uint64_t word);

/* lease 0: no copies there, incarnation says nothing, and the map is to be swept. */
struct copies_donor_record {
  uint64_t incarnation[LEASE_ID_BYTES / 8];
  uint64_t lease;
  uint64_t reserved;
};

struct copies_header {
  uint64_t magic; /* written last */
  uint32_t version, oldest_reader;
  uint64_t n_places;
  uint64_t reserved;
  struct copies_donor_record donors[COPIES_DONORS_MAX];
};

struct copies {
  struct copies_header *header;
  uint64_t *words;
  uint32_t n_places;
  uint64_t count[COPIES_TARGETS][4];
  uint64_t lost;
  struct copies_words kinds;
};

static inline enum copy_state
copies_word_state (uint64_t word, unsigned target) {
  return (enum copy_state) (word >> (2 * target) & 3);
}

static inline uint64_t
copies_word_with (uint64_t word, unsigned target, enum copy_state state) {
  return (word & ~(3ull << (2 * target))) | (uint64_t)state << (2 * target);
}

/* The targets in that state: the even bits of a word, drawn together. */
static inline uint32_t
copies_word_in (uint64_t word, enum copy_state state) {
  const uint64_t low = 0x5555555555555555ull & COPIES_WORD_ALL;
  uint64_t x = ((state & 1) ? word : ~word) & ((state & 2) ? word >> 1 : ~word >> 1) & low;
  uint32_t mask = 0;

  for (; x; x &= x - 1)
    mask |= 1u << (__builtin_ctzll (x) / 2);
  return mask;
}

static inline bool
copies_word_holds (uint64_t word) {
  return word & 0x5555555555555555ull & COPIES_WORD_ALL; /* VALID and SUSPECT are the odd ones */
}

#endif
