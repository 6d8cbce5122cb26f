/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which copies a place should have. */
#include "core/copies.h"

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
choose (const struct copies_policy *policy, const struct copies *copies, uint32_t place, unsigned n, uint32_t have,
        uint32_t barred) {
  const uint32_t up = donors_in (policy, COPIES_DONOR_UP) & ~have & ~barred;
  const uint32_t blocks = up
                          & (copies_in_state (copies, place, COPY_OLD) | copies_in_state (copies, place, COPY_VALID)
                             | copies_in_state (copies, place, COPY_SUSPECT))
                                >> 1;
  uint32_t chosen = some_of (policy, blocks | have, n) & ~have, with_room = 0;

  for (unsigned d = 0; d < policy->n_donors; d++)
    if ((up >> d & 1) && policy->room[d])
      with_room |= 1u << d;
  return chosen | placement_choose (&policy->placement, place, n, have | chosen, with_room & ~chosen, policy->room);
}

void
copies_plan_write (const struct copies_policy *policy, const struct copies *copies, uint32_t place,
                   struct copies_plan *ret_plan) {
  const unsigned n = copies_wanted_donors (policy->mode);
  /* A donor that has a block is as good a target as the one that placement would name, and costs nothing. */
  const uint32_t donors = choose (policy, copies, place, n, 0, 0);

  *ret_plan = (struct copies_plan){ .add = donors << 1, .is_short = placement_count (donors) < n };
  if (policy->mode != COPIES_MIRROR || ret_plan->is_short)
    ret_plan->add |= COPIES_LOCAL_BIT;
}

/* Good copies that count: not those of donors that are gone or are leaving. */
static uint32_t
counted (const struct copies_policy *policy, const struct copies *copies, uint32_t place) {
  const uint32_t donors = donors_in (policy, COPIES_DONOR_UP) | donors_in (policy, COPIES_DONOR_AWAY);

  return copies_in_state (copies, place, COPY_VALID) & (donors << 1 | COPIES_LOCAL_BIT);
}

int
copies_counted (const struct copies_policy *policy, const struct copies *copies, uint32_t place) {
  if (!copies_in_state (copies, place, COPY_VALID) && !copies_in_state (copies, place, COPY_SUSPECT))
    return -1;
  return (int)placement_count (counted (policy, copies, place));
}

/* Donors' good copies that nobody needs: those beyond n that are at hand. */
static uint32_t
surplus (const struct copies_policy *policy, uint32_t good, unsigned n) {
  const uint32_t at_hand = good & donors_in (policy, COPIES_DONOR_UP), keep = some_of (policy, at_hand, n);

  return placement_count (keep) < n ? 0 : at_hand & ~keep;
}

void
copies_plan_repair (const struct copies_policy *policy, const struct copies *copies, uint32_t place,
                    struct copies_plan *ret_plan) {
  const unsigned n = copies_wanted_donors (policy->mode);
  const uint32_t up = donors_in (policy, COPIES_DONOR_UP), reachable = (up | donors_in (policy, COPIES_DONOR_LEAVING)) << 1;
  const uint32_t gone = donors_in (policy, COPIES_DONOR_GONE) << 1;
  const uint32_t suspect = copies_in_state (copies, place, COPY_SUSPECT);
  const bool has_valid = copies_in_state (copies, place, COPY_VALID) & ~gone;
  /* Where there is nothing better, suspects are what is protected: each has most of its pages. */
  const uint32_t held = has_valid ? copies_in_state (copies, place, COPY_VALID) : suspect;
  const uint32_t good = held & ~gone & ~(donors_in (policy, COPIES_DONOR_LEAVING) << 1);
  const uint32_t have = some_of (policy, good >> 1, n), others = has_valid ? suspect : 0;
  uint32_t donors = 0;

  *ret_plan = (struct copies_plan){ .drop = copies_in_state (copies, place, COPY_OLD) & reachable };
  if (!held)
    return;
  if (placement_count (have) < n)
    donors = choose (policy, copies, place, n, have, (others | held) >> 1);
  /* Whoever gave back something else than what it was given is asked again only if there is nobody else. */
  if (placement_count (have | donors) < n && others)
    donors |= choose (policy, copies, place, n, have | donors, held >> 1) & others >> 1;
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
  if (!(good & (COPIES_LOCAL_BIT | up << 1)))
    return; /* nothing else is at hand: what is away could be gone, and then a suspect or one that is leaving is all there is */
  if (!ret_plan->is_short)
    ret_plan->drop |= others & reachable;
  ret_plan->drop |= (held | others) & donors_in (policy, COPIES_DONOR_LEAVING) << 1;
}
