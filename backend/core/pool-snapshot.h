/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is known of a pool at one moment: its hosts, who borrows, and where the copies lie. Decisions (pool-placement.h,
 * pool-revoke.h, rebalance.h; rules in backend/daemon/decisions.md) are functions of that and of nothing else, so that each can
 * be shown before it is carried out, explained afterwards, and tested.
 *
 *   snapshot ──pool_open──→ pool ──→ placement, revoke, rebalance: plans, each step with its reason
 *   (anybody's numbers)     (checked, with sums)
 *
 * An extent is so many blocks of one borrower whose copies lie with the same donors: with one (mode ssd), or with two (mirror).
 * What a lease of a donor holds is the sum of the borrower's extents with it; the borrower's far process counts extents by
 * looking at its map of copies. An extent takes its blocks from each of its donors.
 *
 * All amounts are blocks of 2 MiB. Pure.
 */
#ifndef DOMYBS_CORE_POOL_SNAPSHOT_H
#define DOMYBS_CORE_POOL_SNAPSHOT_H

#include "core/copies.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define POOL_HOSTS_MAX 256u /* of a zone */
#define POOL_TENANTS_MAX 4096u
#define POOL_BORROWERS_MAX 16384u
#define POOL_EXTENTS_MAX 65536u
#define POOL_COPYSETS_MAX 2048u /* 256 hosts, 16 sets each */
#define POOL_BLOCKS_MAX                                                                                                        \
  (1ull << 30)                    /* that a host has, or an extent: 2 PiB. So no sum of a snapshot overflows 64 bits, nor      \
                                     does the product of any two amounts of one host */
#define POOL_COPIES_MAX 2u        /* with donors */
#define POOL_NAME_BYTES 64u       /* with the terminating 0 */
#define POOL_NOBODY UINT32_MAX    /* where a host, borrower or extent could be named, and none is */
#define POOL_UNLIMITED UINT64_MAX /* a quota that is none */
#define POOL_SCATTER_MIN 4u
#define POOL_SCATTER_MAX 8u

/* The tiers that hosts lend in. LOCAL is nobody's but the host's own. */
enum pool_tier { POOL_SHARED, POOL_REMOTE };
#define POOL_TIERS 2u

/* Hosts, by index. */
struct pool_set {
  uint64_t words[POOL_HOSTS_MAX / 64];
};

static inline bool
pool_set_has (const struct pool_set *set, uint32_t host) {
  return set->words[host / 64] >> (host % 64) & 1;
}

static inline void
pool_set_add (struct pool_set *set, uint32_t host) {
  set->words[host / 64] |= 1ull << (host % 64);
}

static inline void
pool_set_remove (struct pool_set *set, uint32_t host) {
  set->words[host / 64] &= ~(1ull << (host % 64));
}

struct pool_lending {
  uint64_t capacity; /* set aside to be lent: the arena */
  uint64_t wanted;   /* what the host wants to lend at most now (arena-size.h); above capacity it means nothing */
  uint64_t reserved; /* of that, promised to somebody who is not in the snapshot: grants under way, other zones */
};

struct pool_host {
  char name[POOL_NAME_BYTES]; /* not empty, no other host's */
  uint32_t domain;            /* hosts of the same one may fail together */
  uint32_t zone;
  struct pool_lending lending[POOL_TIERS];
  bool is_up;        /* is heard of; what is down neither gives nor takes */
  bool has_pressure; /* its own programs wait for memory */
  bool is_frozen;    /* the operator: nothing comes, nothing goes */
  bool is_draining;  /* the operator: all goes, nothing comes */
};

struct pool_tenant {
  uint32_t id; /* ascending */
  uint64_t quota;
};

enum pool_priority { POOL_LOW, POOL_NORMAL, POOL_HIGH };

/* A VM. */
struct pool_borrower {
  uint64_t id;   /* ascending */
  uint32_t host; /* where it runs: an index */
  uint32_t tenant;
  uint64_t quota; /* of blocks that its copies take, in all tiers */
  enum pool_priority priority;
  enum copies_mode mode;
  bool has_pressure;      /* the guest is short of memory */
  struct pool_set donors; /* that it may have leases with: those it has keys for */
};

struct pool_extent {
  uint32_t borrower; /* an index */
  enum pool_tier tier;
  uint32_t n_donors;                /* 1 to POOL_COPIES_MAX */
  uint32_t donors[POOL_COPIES_MAX]; /* indices, ascending */
  uint64_t blocks;                  /* at least 1 */
};

/* Hosts that may have the copies of one block together; of different domains. */
struct pool_copyset {
  uint32_t hosts[POOL_COPIES_MAX];
};

struct pool_snapshot {
  uint32_t n_hosts, n_tenants, n_borrowers, n_extents, n_copysets;
  const struct pool_host *hosts;
  const struct pool_tenant *tenants;
  const struct pool_borrower *borrowers;
  const struct pool_extent *extents;
  const struct pool_copyset *copysets; /* none: any two hosts of different domains are one */
  bool is_frozen;                      /* the whole pool: nothing is granted and nothing moves */
};

/* Why a snapshot is none. */
enum pool_fault {
  POOL_GOOD,
  POOL_EMPTY, /* no host */
  POOL_TOO_MANY,
  POOL_HOST_NAME,
  POOL_HOST_TWICE,
  POOL_AMOUNT,   /* more than POOL_BLOCKS_MAX, an extent of 0, or more reserved than there is */
  POOL_OVERLENT, /* extents take more of a host than it has set aside */
  POOL_TENANT_ORDER,
  POOL_BORROWER_ORDER,
  POOL_NO_SUCH_HOST,
  POOL_NO_SUCH_TENANT,
  POOL_NO_SUCH_BORROWER,
  POOL_VALUE, /* an enum without such a value */
  POOL_DONOR_ORDER,
  POOL_COPYSET_DOMAIN,
  POOL_NO_MEMORY,
};

/* What of the snapshot it is, and which one of these. */
struct pool_refusal {
  enum pool_fault fault;
  const char *what;
  uint32_t index;
};

struct pool_sums {
  uint64_t lent;  /* the sum of the extents there */
  uint64_t limit; /* what it may lend at most now; 0 while it is drained */
  uint64_t free;  /* what it can take now: 0 also while it is down, frozen or under pressure */
};

/* A checked snapshot, which has to stay as it is meanwhile. */
struct pool {
  const struct pool_snapshot *snapshot;
  struct pool_sums sums[POOL_TIERS][POOL_HOSTS_MAX];
  uint64_t free[POOL_TIERS];                /* of all hosts */
  struct pool_set borrows[POOL_TIERS];      /* hosts that have borrowed something */
  struct pool_set partners[POOL_HOSTS_MAX]; /* with whom the host may have the copies of one block */
  struct pool_set zone_of[POOL_HOSTS_MAX];  /* the hosts of that host's zone */
  struct pool_set takers;                   /* hosts that can take something at all */
  uint64_t *borrowed;                       /* per borrower, */
  uint64_t *tenant_borrowed;                /* and per tenant */
};

/* False with *ret_refusal: the snapshot is not to be believed; then there is nothing to be closed. */
bool pool_open (struct pool *pool, const struct pool_snapshot *snapshot, struct pool_refusal *ret_refusal);
void pool_close (struct pool *pool);
/* A sentence without a full stop. */
const char *pool_fault_text (enum pool_fault fault);

/* Index of the host of that name, or of the tenant or borrower of that id; POOL_NOBODY: there is none. */
uint32_t pool_find_host (const struct pool_snapshot *snapshot, const char *name);
uint32_t pool_find_tenant (const struct pool_snapshot *snapshot, uint32_t id);
uint32_t pool_find_borrower (const struct pool_snapshot *snapshot, uint64_t id);

/* The hosts that may take a copy of that borrower's, as far as that does not depend on where the other copy is, nor on room:
 * those that take something at all, that it has keys for, of its zone, and not its own. */
void pool_donors_of (const struct pool *pool, uint32_t borrower, struct pool_set *ret_donors);

/* What free room is missing so that what any one donor lends can be made anew with the others, when it dies; 0: nothing. Where
 * something is missing, *ret_host is the donor of which that is most. */
uint64_t pool_headroom_missing (const struct pool *pool, enum pool_tier tier, uint32_t *ret_host);

/* How far the fullest or the emptiest host is from the mean share, in thousandths of that mean. Hosts that neither give nor
 * take do not count, and those that are drained only by what they still have. */
uint32_t pool_imbalance (const struct pool *pool, enum pool_tier tier);

/* Makes copysets of two, such that a host shares sets with about `scatter` others (POOL_SCATTER_MIN to _MAX; others count as
 * the nearest of these): the same for the same hosts and seed. sets: room for POOL_COPYSETS_MAX. Returns how many. */
uint32_t pool_make_copysets (const struct pool_host *hosts, uint32_t n_hosts, uint32_t scatter, uint64_t seed,
                             struct pool_copyset *sets);

/* Mixes the bits of a number well: the same for the same number. */
uint64_t pool_mix (uint64_t x);

#endif
