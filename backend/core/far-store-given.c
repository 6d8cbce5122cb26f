/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Places that are given back to storage, and backed by it again. */
#include "core/far-store-internal.h"

static bool
is_given (const struct far_store *store, uint32_t segment) {
  return store->segments[segment] & FAR_SEGMENT_GIVEN;
}

static bool
is_free (const struct far_store *store, uint32_t segment) {
  return store->free_segments[segment / 64] >> segment % 64 & 1;
}

static uint32_t
place_of (const struct far_store *store, uint32_t segment) {
  return far_segment_place (store->segments[segment], segment);
}

/* ---- giving back ---- */

/* There is one. */
static uint32_t
last_free (struct far_store *store) {
  uint32_t word = store->highest_free / 64;

  while (store->free_segments[word] == 0)
    word--;
  store->highest_free = word * 64 + 63 - (uint32_t)__builtin_clzll (store->free_segments[word]);
  return store->highest_free;
}

bool
far_store_give_back (struct far_store *store, uint32_t most, struct far_places *ret_places) {
  uint32_t last, n = 0;

  if (store->n_free <= FAR_RESERVED_PLACES || most == 0)
    return false;
  if (most > store->n_free - FAR_RESERVED_PLACES)
    most = store->n_free - FAR_RESERVED_PLACES;
  last = last_free (store);
  if (store->n_given == 0) /* from now on who does not know them must not go on from this */
    far_store_set_version (store->header, FAR_GIVEN_OLDEST_READER);
  for (; n < most && n <= last && is_free (store, last - n) && place_of (store, last - n) + n == place_of (store, last); n++) {
    const uint32_t segment = last - n;

    store->free_segments[segment / 64] &= ~(1ull << segment % 64);
    store->n_free--;
    store->n_given++;
    FAR_STORE (store->segments[segment], (store->segments[segment] & UINT32_MAX) | FAR_SEGMENT_GIVEN, "far-given");
  }
  ret_places->segment = last - n + 1;
  ret_places->place = place_of (store, ret_places->segment);
  ret_places->n = n;
  if (ret_places->segment < store->lowest_given)
    store->lowest_given = ret_places->segment;
  if (store->n_free < store->fewest_free)
    store->fewest_free = store->n_free;
  return true;
}

bool
far_store_given (const struct far_store *store, uint32_t from, uint32_t most, struct far_places *ret_places) {
  uint32_t segment = from, n = 1;

  if (store->n_given == 0 || most == 0)
    return false;
  while (segment < store->covered && !is_given (store, segment))
    segment++;
  if (segment >= store->covered)
    return false;
  while (n < most && segment + n < store->covered && is_given (store, segment + n)
         && place_of (store, segment + n) == place_of (store, segment) + n)
    n++;
  *ret_places = (struct far_places){ segment, place_of (store, segment), n };
  return true;
}

/* ---- backing again ---- */

bool
far_store_next_uncovered (struct far_store *store, uint32_t most, bool only_new, struct far_places *ret_places) {
  const uint32_t left = store->geometry.n_places - store->covered;

  if (most == 0)
    return false;
  if (!only_new && far_store_given (store, store->lowest_given, most, ret_places)) {
    store->lowest_given = ret_places->segment;
    return true;
  }
  *ret_places = (struct far_places){ store->covered, store->covered, left < most ? left : most };
  return ret_places->n > 0;
}

void
far_store_cover_places (struct far_store *store, const struct far_places *places) {
  if (places->segment == store->covered) {
    far_store_cover (store, places->segment + places->n);
    return;
  }
  for (uint32_t segment = places->segment; segment < places->segment + places->n; segment++) {
    FAR_STORE (store->segments[segment], store->segments[segment] & UINT32_MAX, "far-backed");
    store->n_given--;
    far_store_set_free (store, segment);
  }
  if (store->n_given == 0)
    far_store_set_version (store->header, FAR_STATE_OLDEST);
}

uint32_t
far_store_fewest_free (struct far_store *store) {
  const uint32_t fewest = store->fewest_free;

  store->fewest_free = store->n_free;
  return fewest;
}
