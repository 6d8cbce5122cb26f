/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which copies a place should have. */
#include "core/copies-internal.h"

#include <string.h>

static const char *const mode_names[] = { [COPIES_SSD] = "ssd", [COPIES_MIRROR] = "mirror", [COPIES_STORAGE] = "storage" };

const char *
copies_mode_name (enum copies_mode mode) {
  return (unsigned)mode <= COPIES_STORAGE ? mode_names[mode] : NULL;
}

bool
copies_mode_parse (const char *text, enum copies_mode *ret_mode) {
  for (unsigned m = 0; m <= COPIES_STORAGE; m++)
    if (strcmp (text, mode_names[m]) == 0) {
      *ret_mode = (enum copies_mode)m;
      return true;
    }
  return false;
}

unsigned
copies_wanted_donors (enum copies_mode mode) {
  return mode == COPIES_MIRROR ? 2 : mode == COPIES_SSD ? 1 : 0;
}

/* The donors (bit d, not 1 + d) in that state. */
static uint32_t
donors_in (const struct copies_policy *policy, enum copies_donor_state state) {
  uint32_t mask = 0;

  for (unsigned d = 0; d < policy->n_donors; d++)
    if (policy->donors[d] == state)
      mask |= 1u << d;
  return mask;
}

/* At most n of the mask, of different domains, the first ones. */
static uint32_t
some_of (const struct copies_policy *policy, uint32_t mask, unsigned n) {
  uint32_t chosen = 0;

  for (unsigned d = 0; d < policy->n_donors && n; d++) {
    bool fits = mask >> d & 1;

    for (unsigned other = 0; other < d && fits; other++)
      fits = !(chosen >> other & 1) || policy->placement.domains[other] != policy->placement.domains[d];
    if (fits) {
      chosen |= 1u << d;
      n--;
    }
  }
  return chosen;
}

/* Donors beside those in have, so that there are n: first those that have a block for the place, then those with room. Of
 * barred, none. */
static uint32_t
choose (const struct copies_policy *policy, uint64_t word, uint32_t place, unsigned n, uint32_t have, uint32_t barred) {
  const uint32_t up = donors_in (policy, COPIES_DONOR_UP) & ~have & ~barred;
  const uint32_t blocks = up
                          & (copies_word_in (word, COPY_OLD) | copies_word_in (word, COPY_VALID) | copies_word_in (word, COPY_SUSPECT))
                                >> 1;
  uint32_t chosen = some_of (policy, blocks | have, n) & ~have, with_room = 0;
  uint64_t room[COPIES_DONORS_MAX] = { 0 };

  for (unsigned d = 0; d < policy->n_donors; d++)
    if ((up >> d & 1) && policy->room[d]) {
      with_room |= 1u << d;
      room[d] = policy->room[d] + policy->free[d];
    }
  return chosen | placement_choose (&policy->placement, place, n, have | chosen, with_room & ~chosen, room);
}

void
copies_plan_write (const struct copies_policy *policy, const struct copies *copies, uint32_t place,
                   struct copies_plan *ret_plan) {
  const unsigned n = copies_wanted_donors (policy->mode);
  const uint64_t word = copies->words[place];
  /* A donor that has a block is as good a target as the one that placement would name, and costs nothing. */
  const uint32_t donors = choose (policy, word, place, n, 0, 0);

  *ret_plan = (struct copies_plan){ .add = donors << 1, .is_short = placement_count (donors) < n };
  if (policy->mode != COPIES_MIRROR || ret_plan->is_short)
    ret_plan->add |= COPIES_LOCAL_BIT;
}

/* Good copies that count: not those of donors that are gone or are leaving. -1: it holds nothing. */
static int
counted (const struct copies_policy *policy, uint64_t word) {
  const uint32_t donors = donors_in (policy, COPIES_DONOR_UP) | donors_in (policy, COPIES_DONOR_AWAY);

  return copies_word_holds (word) ? (int)placement_count (copies_word_in (word, COPY_VALID) & (donors << 1 | COPIES_LOCAL_BIT)) : -1;
}

int
copies_counted (const struct copies_policy *policy, const struct copies *copies, uint32_t place) {
  return counted (policy, copies->words[place]);
}

/* Donors' good copies that nobody needs: those beyond n that are at hand. */
static uint32_t
surplus (const struct copies_policy *policy, uint32_t good, unsigned n) {
  const uint32_t at_hand = good & donors_in (policy, COPIES_DONOR_UP), keep = some_of (policy, at_hand, n);

  return placement_count (keep) < n ? 0 : at_hand & ~keep;
}

/* Which place it is decides only who gets a copy, and not whether anybody must. */
static void
plan_repair (const struct copies_policy *policy, uint64_t word, uint32_t place, struct copies_plan *ret_plan) {
  const unsigned n = copies_wanted_donors (policy->mode);
  const uint32_t up = donors_in (policy, COPIES_DONOR_UP), reachable = (up | donors_in (policy, COPIES_DONOR_LEAVING)) << 1;
  const uint32_t gone = donors_in (policy, COPIES_DONOR_GONE) << 1;
  const uint32_t suspect = copies_word_in (word, COPY_SUSPECT);
  const bool has_valid = copies_word_in (word, COPY_VALID) & ~gone;
  /* Where there is nothing better, suspects are what is protected: each has most of its pages. */
  const uint32_t held = has_valid ? copies_word_in (word, COPY_VALID) : suspect;
  const uint32_t good = held & ~gone & ~(donors_in (policy, COPIES_DONOR_LEAVING) << 1);
  const uint32_t have = some_of (policy, good >> 1, n), others = has_valid ? suspect : 0;
  uint32_t donors = 0;

  *ret_plan = (struct copies_plan){ .drop = copies_word_in (word, COPY_OLD) & reachable };
  if (!held)
    return;
  if (placement_count (have) < n)
    donors = choose (policy, word, place, n, have, (others | held) >> 1);
  /* Whoever gave back something else than what it was given is asked again only if there is nobody else. */
  if (placement_count (have | donors) < n && others)
    donors |= choose (policy, word, place, n, have | donors, held >> 1) & others >> 1;
  ret_plan->is_short = placement_count (have | donors) < n;
  ret_plan->add = donors << 1;
  if (!(held & COPIES_LOCAL_BIT) && (policy->mode != COPIES_MIRROR || ret_plan->is_short)) {
    ret_plan->is_short = ret_plan->is_short || policy->local_down;
    ret_plan->add |= policy->local_down ? 0 : COPIES_LOCAL_BIT;
  }
  ret_plan->drop &= ~ret_plan->add;
  if (ret_plan->add)
    return;
  if (policy->mode == COPIES_STORAGE)
    ret_plan->drop |= held & COPIES_LOCAL_BIT ? (held | others) & reachable : 0;
  else if (!ret_plan->is_short)
    ret_plan->drop |= surplus (policy, good >> 1, n) << 1;
  if (!(good & ((policy->local_down ? 0 : COPIES_LOCAL_BIT) | up << 1)))
    return; /* nothing else is at hand: what is away could be gone, and then a suspect or one that is leaving is all there is */
  if (!ret_plan->is_short)
    ret_plan->drop |= others & reachable;
  ret_plan->drop |= (held | others) & donors_in (policy, COPIES_DONOR_LEAVING) << 1;
}

void
copies_plan_repair (const struct copies_policy *policy, const struct copies *copies, uint32_t place,
                    struct copies_plan *ret_plan) {
  plan_repair (policy, copies->words[place], place, ret_plan);
}

bool
copies_can_wait_for_storage (const struct copies_policy *policy, const struct copies *copies, uint32_t place) {
  const uint32_t good = copies_word_in (copies->words[place], COPY_VALID) >> 1 & donors_in (policy, COPIES_DONOR_UP);

  return placement_count (some_of (policy, good, 2)) == 2;
}

void
copies_protection (const struct copies_policy *policy, const struct copies *copies, struct copies_protection *ret_protection) {
  *ret_protection = (struct copies_protection){ 0 };
  for (uint32_t k = 0; k < copies->kinds.n; k++) {
    const struct copies_kind *kind = &copies->kinds.kinds[k];
    const int good = counted (policy, kind->word);
    struct copies_plan plan;

    if (good < 0)
      continue;
    ret_protection->places += kind->n_places;
    plan_repair (policy, kind->word, 0, &plan);
    if (good == 0)
      ret_protection->endangered += kind->n_places;
    else if (plan.add || plan.is_short)
      ret_protection->degraded += kind->n_places;
    else
      ret_protection->is_protected += kind->n_places;
  }
}

/* ---- what is asked of donors ---- */

/* An eighth of what is in use, so that it grows as fast as what it is for. At least as many as may be on their way at once:
 * segments of the engine and re-protection, four each; the answer to a GRANT is there before they are. */
#define AHEAD_PART 8u
#define AHEAD_MIN 8u
#define AHEAD_MAX 64u
/* The reserve is taken where it is no more than such a part of what the donor could lend beyond, and given up by halves where it
 * is full: so that many who know only what it has said a while ago don't make it full and leave it empty in turn. */
#define AHEAD_OF_FREE 8u

static uint64_t
within (uint64_t x, uint64_t least, uint64_t most) {
  return x < least ? least : x > most ? most : x;
}

uint64_t
copies_want (const struct copies_need *need) {
  const uint64_t ahead = within (need->used / AHEAD_PART, AHEAD_MIN, AHEAD_MAX), part = need->free / AHEAD_OF_FREE,
                 most = need->most > need->used ? need->most : need->used;
  uint64_t want = need->asked;

  if (!need->grows)
    want = need->used;
  else if (need->free == 0)
    want = need->used + 1 + (want > need->used ? (want - need->used - 1) / 2 : 0);
  else if (want > need->used + ahead + ahead / 2 || (want < need->used + ahead - ahead / 4 && part >= ahead))
    want = need->used + ahead;
  else if (want <= need->used)
    want = need->used + 1 + part; /* less than ahead */
  want = within (want, need->used, most);
  return need->is_revoked && want > need->revoke_level ? need->revoke_level : want;
}
