/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which leases a host lowers when it wants blocks back: whose, by how much, and where their contents go.
 *
 * In this order: copies that another donor can take, then copies that go to storage; within each, borrowers of low priority
 * first. Guests that are short of memory come after all others, and go to other donors only: what is in storage they would wait
 * for. Only where the host's own reserve is touched (is_hard) theirs go to storage, too, last of all; so that a revoke then
 * always ends, whatever the pool is like: storage for it was reserved at grant time.
 *
 * To another donor by the rules of the pool, as for rebalancing: different domains, copyset, limit, zone, keys, not its own
 * host.
 *
 * Pure.
 */
#ifndef DOMYBS_CORE_POOL_REVOKE_H
#define DOMYBS_CORE_POOL_REVOKE_H

#include "core/pool-reason.h"

struct pool_call {
  uint32_t extent; /* an index; the copy at the host that revokes */
  uint32_t to;     /* a donor, or POOL_NOBODY: storage */
  uint64_t blocks;
  struct pool_reason reason;
};

struct pool_revoke {
  struct pool_call *calls; /* in the order in which they should be made */
  uint32_t n_calls;
  uint64_t blocks;  /* that come back in all */
  uint64_t missing; /* that do not: of guests short of memory, or not lent at all */
  bool no_memory;
};

/* host wants so many blocks back in that tier. To be freed with pool_revoke_free. A frozen pool or host does not matter: who
 * needs memory gets it back. */
void pool_revoke_make (const struct pool *pool, uint32_t host, enum pool_tier tier, uint64_t blocks, bool is_hard,
                       struct pool_revoke *ret_revoke);
void pool_revoke_free (struct pool_revoke *revoke);

#endif
