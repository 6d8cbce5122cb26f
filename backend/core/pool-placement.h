/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * With whom a borrower's new blocks get their copies, and why not with others.
 *
 * What has to hold (backend/daemon/decisions.md): quotas of VM and tenant; nobody lends to a VM of its own host; hosts that are
 * down, frozen, drained or under pressure take nothing; a host under pressure that lends in a tier does not borrow in it; the
 * two copies are in different failure domains and one copyset; no host beyond its limit; afterwards, whatever one donor lends
 * could be made anew with the others (headroom), and the last part of the pool is for borrowers of high priority.
 *
 * Among the donors (or copysets) for which all that holds, two are drawn and the one that would lend the smaller share is
 * taken: the power of two choices (Mitzenmacher, 2001) spreads load nearly as well as taking the best, without all borrowers of
 * the zone running to the same host that gossip said was empty. The snapshot is what was heard, perhaps seconds ago: the donor
 * decides (pool_admit), and whoever is refused asks again without it.
 *
 * Pure.
 */
#ifndef DOMYBS_CORE_POOL_PLACEMENT_H
#define DOMYBS_CORE_POOL_PLACEMENT_H

#include "core/pool-reason.h"

/* That part of all that is lent or free in a tier stays for higher priorities: a sixteenth for each step below POOL_HIGH. */
#define POOL_PRIORITY_PART 16u

struct pool_grant {
  uint32_t borrower; /* an index */
  enum pool_tier tier;
  uint64_t blocks;
  uint64_t seed;           /* another one for each request */
  struct pool_set refused; /* by donors that were asked about it */
};

struct pool_choice {
  uint32_t n_donors; /* 0: it can't be granted */
  uint32_t donors[POOL_COPIES_MAX];
  struct pool_reason reason;
};

/* blocks, each with as many copies at donors as the borrower's mode wants. All or nothing. A mirror for which there are no two
 * donors gets one (and storage has the other copy). */
void pool_place (const struct pool *pool, const struct pool_grant *grant, struct pool_choice *ret_choice);

/* Why that host does, or does not, take a copy for it; other: the host that has the other copy, or POOL_NOBODY. For `explain`.
 */
struct pool_reason pool_why_host (const struct pool *pool, const struct pool_grant *grant, uint32_t host, uint32_t other);

/* What a donor knows of itself when it is asked. */
struct pool_own {
  struct pool_lending lending;
  uint64_t lent;
  bool has_pressure, is_frozen, is_draining;
};

/* The donor's answer: POOL_YES, all; POOL_ADMIT_LESS, n[0] of them; else none. The reason's host is `host`, for the text only.
 */
struct pool_reason pool_admit (const struct pool_own *own, uint32_t host, uint64_t blocks);

#endif
