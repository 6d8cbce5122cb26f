/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "core/copies-internal.h"

#include <stdlib.h>

/* The finalizer of Austin Appleby's MurmurHash3 (public domain): spreads all bits of a word. */
static uint32_t
slot_of (const struct copies_words *words, uint64_t word) {
  word ^= word >> 33;
  word *= 0xff51afd7ed558ccdull;
  word ^= word >> 33;
  word *= 0xc4ceb9fe1a85ec53ull;
  word ^= word >> 33;
  return (uint32_t)word & words->mask;
}

bool
copies_words_init (struct copies_words *words, uint32_t n_places) {
  size_t slots = 16;

  while (slots < 2 * ((size_t)n_places + 2)) /* one more than there are: put adds before it removes */
    slots *= 2;
  words->n = 0;
  words->mask = (uint32_t)(slots - 1);
  words->kinds = calloc ((size_t)n_places + 1, sizeof *words->kinds);
  words->table = calloc (slots, sizeof *words->table);
  if (words->kinds && words->table)
    return true;
  copies_words_clear (words);
  return false;
}

void
copies_words_clear (struct copies_words *words) {
  free (words->kinds);
  free (words->table);
  words->kinds = NULL;
  words->table = NULL;
}

/* Where that word is, or would be. */
static uint32_t
find (const struct copies_words *words, uint64_t word) {
  uint32_t slot = slot_of (words, word);

  while (words->table[slot] && words->kinds[words->table[slot] - 1].word != word)
    slot = (slot + 1) & words->mask;
  return slot;
}

void
copies_words_add (struct copies_words *words, uint64_t word) {
  const uint32_t slot = find (words, word);

  if (!words->table[slot]) {
    words->kinds[words->n] = (struct copies_kind){ .word = word };
    words->table[slot] = ++words->n;
  }
  words->kinds[words->table[slot] - 1].n_places++;
}

/* Empties a slot; those behind it that would not be found any more move up (Knuth, "The Art of Computer Programming", volume 3,
 * 6.4, algorithm R). */
static void
empty (struct copies_words *words, uint32_t slot) {
  for (uint32_t next = (slot + 1) & words->mask; words->table[next]; next = (next + 1) & words->mask) {
    const uint32_t home = slot_of (words, words->kinds[words->table[next] - 1].word);

    if (((next - home) & words->mask) < ((next - slot) & words->mask))
      continue; /* it is found from its home on without passing the empty one */
    words->table[slot] = words->table[next];
    slot = next;
  }
  words->table[slot] = 0;
}

void
copies_words_remove (struct copies_words *words, uint64_t word) {
  const uint32_t slot = find (words, word), kind = words->table[slot] - 1;

  if (--words->kinds[kind].n_places)
    return;
  empty (words, slot);
  words->n--;
  if (kind == words->n)
    return;
  words->table[find (words, words->kinds[words->n].word)] = kind + 1; /* the last one takes its place */
  words->kinds[kind] = words->kinds[words->n];
}
