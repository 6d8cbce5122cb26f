/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Pools to test decisions with: random ones, and a plain second opinion on what the rules allow. */
#ifndef DOMYBS_TESTS_POOL_RANDOM_H
#define DOMYBS_TESTS_POOL_RANDOM_H

#include "core/rebalance.h"
#include "testing.h"

/* A snapshot with room to be changed in. */
struct random_pool {
  struct pool_snapshot snapshot;
  struct pool_host hosts[POOL_HOSTS_MAX];
  struct pool_tenant tenants[4];
  struct pool_borrower *borrowers;
  struct pool_extent *extents;
  struct pool_copyset copysets[POOL_COPYSETS_MAX];
  uint32_t extents_room;
};

struct random_shape {
  uint32_t hosts, borrowers, extents; /* at most */
  uint64_t blocks;                    /* that a host has, about */
  uint64_t extent_blocks;             /* at most */
  unsigned pairs;                     /* percent of borrowers with two copies at donors */
  bool is_plain;                      /* all hosts up, nobody under pressure, all have keys for all */
};

struct random_pool *random_pool_new (GRand *rand, const struct random_shape *shape);
void random_pool_free (struct random_pool *pool);
/* Opens it; it must be good. */
void random_pool_open (struct random_pool *random, struct pool *pool);

/* Whether that donor may take a copy of the borrower's, whose other copy is with `other` (or POOL_NOBODY), rules read from the
 * snapshot one by one. */
bool rules_allow (const struct pool_snapshot *s, uint32_t borrower, uint32_t donor, uint32_t other);
/* The sum of the extents there. */
uint64_t rules_lent (const struct pool_snapshot *s, enum pool_tier tier, uint32_t host);
uint64_t rules_limit (const struct pool_snapshot *s, enum pool_tier tier, uint32_t host);
/* What of d's loss the others could not take, 0 if all: the worst d. */
uint64_t rules_missing (const struct pool_snapshot *s, enum pool_tier tier);

/* Carries a step out, or so many blocks of it. */
void random_pool_move (struct random_pool *random, uint32_t borrower, enum pool_tier tier, uint32_t from, uint32_t to,
                       uint32_t stays, uint64_t blocks);

#endif
