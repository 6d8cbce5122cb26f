/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "core/pool-snapshot.h"

#include <stdlib.h>
#include <string.h>

uint64_t
pool_mix (uint64_t x) {
  /* Vigna's splitmix64, https://prng.di.unimi.it/splitmix64.c */
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

/* ---- finding ---- */

uint32_t
pool_find_host (const struct pool_snapshot *s, const char *name) {
  for (uint32_t h = 0; h < s->n_hosts; h++)
    if (strcmp (s->hosts[h].name, name) == 0)
      return h;
  return POOL_NOBODY;
}

uint32_t
pool_find_tenant (const struct pool_snapshot *s, uint32_t id) {
  uint32_t from = 0, to = s->n_tenants;

  while (from < to) {
    const uint32_t middle = from + (to - from) / 2;

    if (s->tenants[middle].id < id)
      from = middle + 1;
    else
      to = middle;
  }
  return from < s->n_tenants && s->tenants[from].id == id ? from : POOL_NOBODY;
}

uint32_t
pool_find_borrower (const struct pool_snapshot *s, uint64_t id) {
  uint32_t from = 0, to = s->n_borrowers;

  while (from < to) {
    const uint32_t middle = from + (to - from) / 2;

    if (s->borrowers[middle].id < id)
      from = middle + 1;
    else
      to = middle;
  }
  return from < s->n_borrowers && s->borrowers[from].id == id ? from : POOL_NOBODY;
}

/* ---- checking ---- */

static bool
refuse (struct pool_refusal *refusal, enum pool_fault fault, const char *what, uint32_t index) {
  *refusal = (struct pool_refusal){ .fault = fault, .what = what, .index = index };
  return false;
}

static bool
check_counts (const struct pool_snapshot *s, struct pool_refusal *refusal) {
  const struct {
    const char *what;
    uint32_t n, max;
    const void *items;
  } counts[] = {
    { "hosts", s->n_hosts, POOL_HOSTS_MAX, s->hosts },
    { "tenants", s->n_tenants, POOL_TENANTS_MAX, s->tenants },
    { "borrowers", s->n_borrowers, POOL_BORROWERS_MAX, s->borrowers },
    { "extents", s->n_extents, POOL_EXTENTS_MAX, s->extents },
    { "copysets", s->n_copysets, POOL_COPYSETS_MAX, s->copysets },
  };

  if (s->n_hosts == 0)
    return refuse (refusal, POOL_EMPTY, "pool", 0);
  for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
    if (counts[i].n > counts[i].max || (counts[i].n && !counts[i].items))
      return refuse (refusal, POOL_TOO_MANY, counts[i].what, counts[i].n);
  return true;
}

static bool
check_hosts (const struct pool_snapshot *s, struct pool_refusal *refusal) {
  for (uint32_t h = 0; h < s->n_hosts; h++) {
    const struct pool_host *host = &s->hosts[h];

    if (host->name[0] == 0 || !memchr (host->name, 0, sizeof host->name))
      return refuse (refusal, POOL_HOST_NAME, "host", h);
    for (uint32_t other = 0; other < h; other++)
      if (strcmp (host->name, s->hosts[other].name) == 0)
        return refuse (refusal, POOL_HOST_TWICE, "host", h);
    for (unsigned t = 0; t < POOL_TIERS; t++)
      if (host->lending[t].capacity > POOL_BLOCKS_MAX || host->lending[t].reserved > host->lending[t].capacity)
        return refuse (refusal, POOL_AMOUNT, "host", h);
  }
  for (uint32_t i = 0; i < s->n_copysets; i++) {
    const uint32_t *hosts = s->copysets[i].hosts;

    if (hosts[0] >= s->n_hosts || hosts[1] >= s->n_hosts)
      return refuse (refusal, POOL_NO_SUCH_HOST, "copyset", i);
    if (s->hosts[hosts[0]].domain == s->hosts[hosts[1]].domain)
      return refuse (refusal, POOL_COPYSET_DOMAIN, "copyset", i);
  }
  return true;
}

static bool
check_borrowers (const struct pool_snapshot *s, struct pool_refusal *refusal) {
  for (uint32_t t = 1; t < s->n_tenants; t++)
    if (s->tenants[t].id <= s->tenants[t - 1].id)
      return refuse (refusal, POOL_TENANT_ORDER, "tenant", t);
  for (uint32_t b = 0; b < s->n_borrowers; b++) {
    const struct pool_borrower *borrower = &s->borrowers[b];

    if (b > 0 && borrower->id <= s->borrowers[b - 1].id)
      return refuse (refusal, POOL_BORROWER_ORDER, "borrower", b);
    if (borrower->host >= s->n_hosts)
      return refuse (refusal, POOL_NO_SUCH_HOST, "borrower", b);
    if (pool_find_tenant (s, borrower->tenant) == POOL_NOBODY)
      return refuse (refusal, POOL_NO_SUCH_TENANT, "borrower", b);
    if ((unsigned)borrower->priority > POOL_HIGH || (unsigned)borrower->mode > COPIES_STORAGE)
      return refuse (refusal, POOL_VALUE, "borrower", b);
  }
  return true;
}

static bool
check_extents (const struct pool_snapshot *s, struct pool_refusal *refusal) {
  for (uint32_t e = 0; e < s->n_extents; e++) {
    const struct pool_extent *extent = &s->extents[e];

    if (extent->borrower >= s->n_borrowers)
      return refuse (refusal, POOL_NO_SUCH_BORROWER, "extent", e);
    if ((unsigned)extent->tier >= POOL_TIERS || extent->n_donors < 1 || extent->n_donors > POOL_COPIES_MAX)
      return refuse (refusal, POOL_VALUE, "extent", e);
    if (extent->blocks == 0 || extent->blocks > POOL_BLOCKS_MAX)
      return refuse (refusal, POOL_AMOUNT, "extent", e);
    for (uint32_t d = 0; d < extent->n_donors; d++) {
      if (extent->donors[d] >= s->n_hosts)
        return refuse (refusal, POOL_NO_SUCH_HOST, "extent", e);
      if (d > 0 && extent->donors[d] <= extent->donors[d - 1])
        return refuse (refusal, POOL_DONOR_ORDER, "extent", e);
    }
  }
  return true;
}

/* ---- sums ---- */

static bool
add_extents (struct pool *pool, struct pool_refusal *refusal) {
  const struct pool_snapshot *s = pool->snapshot;

  for (uint32_t e = 0; e < s->n_extents; e++) {
    const struct pool_extent *extent = &s->extents[e];
    const struct pool_borrower *borrower = &s->borrowers[extent->borrower];

    for (uint32_t d = 0; d < extent->n_donors; d++) {
      const struct pool_lending *lending = &s->hosts[extent->donors[d]].lending[extent->tier];
      uint64_t *lent = &pool->sums[extent->tier][extent->donors[d]].lent;

      *lent += extent->blocks;
      if (*lent > lending->capacity - lending->reserved)
        return refuse (refusal, POOL_OVERLENT, "host", extent->donors[d]);
    }
    pool->borrowed[extent->borrower] += extent->blocks * extent->n_donors;
    pool->tenant_borrowed[pool_find_tenant (s, borrower->tenant)] += extent->blocks * extent->n_donors;
    pool_set_add (&pool->borrows[extent->tier], borrower->host);
  }
  return true;
}

static void
sum_host (struct pool *pool, unsigned tier, uint32_t h) {
  const struct pool_host *host = &pool->snapshot->hosts[h];
  const struct pool_lending *lending = &host->lending[tier];
  const uint64_t most = lending->wanted < lending->capacity ? lending->wanted : lending->capacity;
  struct pool_sums *sums = &pool->sums[tier][h];

  sums->limit = host->is_draining || most < lending->reserved ? 0 : most - lending->reserved;
  sums->free = pool_set_has (&pool->takers, h) && sums->limit > sums->lent ? sums->limit - sums->lent : 0;
  pool->free[tier] += sums->free;
}

static void
find_partners (struct pool *pool) {
  const struct pool_snapshot *s = pool->snapshot;

  for (uint32_t i = 0; i < s->n_copysets; i++) {
    const uint32_t *hosts = s->copysets[i].hosts;

    pool_set_add (&pool->partners[hosts[0]], hosts[1]);
    pool_set_add (&pool->partners[hosts[1]], hosts[0]);
  }
  for (uint32_t a = 0; s->n_copysets == 0 && a < s->n_hosts; a++)
    for (uint32_t b = 0; b < s->n_hosts; b++)
      if (s->hosts[a].domain != s->hosts[b].domain)
        pool_set_add (&pool->partners[a], b);
}

bool
pool_open (struct pool *pool, const struct pool_snapshot *s, struct pool_refusal *ret_refusal) {
  *ret_refusal = (struct pool_refusal){ .fault = POOL_GOOD, .what = "" };
  memset (pool, 0, sizeof *pool);
  if (!check_counts (s, ret_refusal) || !check_hosts (s, ret_refusal) || !check_borrowers (s, ret_refusal)
      || !check_extents (s, ret_refusal))
    return false;
  pool->snapshot = s;
  pool->borrowed = calloc ((size_t)s->n_borrowers + 1, sizeof *pool->borrowed);
  pool->tenant_borrowed = calloc ((size_t)s->n_tenants + 1, sizeof *pool->tenant_borrowed);
  if (!pool->borrowed || !pool->tenant_borrowed) {
    pool_close (pool);
    return refuse (ret_refusal, POOL_NO_MEMORY, "pool", 0);
  }
  if (!add_extents (pool, ret_refusal)) {
    pool_close (pool);
    return false;
  }
  for (uint32_t h = 0; h < s->n_hosts; h++) {
    const struct pool_host *host = &s->hosts[h];

    if (host->is_up && !host->is_frozen && !host->is_draining && !host->has_pressure)
      pool_set_add (&pool->takers, h);
    for (unsigned t = 0; t < POOL_TIERS; t++)
      sum_host (pool, t, h);
  }
  for (uint32_t a = 0; a < s->n_hosts; a++)
    for (uint32_t b = 0; b < s->n_hosts; b++)
      if (s->hosts[a].zone == s->hosts[b].zone)
        pool_set_add (&pool->zone_of[a], b);
  find_partners (pool);
  return true;
}

void
pool_close (struct pool *pool) {
  free (pool->borrowed);
  free (pool->tenant_borrowed);
  memset (pool, 0, sizeof *pool);
}

const char *
pool_fault_text (enum pool_fault fault) {
  switch (fault) {
  case POOL_GOOD:
    return "nothing is wrong";
  case POOL_EMPTY:
    return "there is no host";
  case POOL_TOO_MANY:
    return "there are more than a pool may have";
  case POOL_HOST_NAME:
    return "its name is empty or too long";
  case POOL_HOST_TWICE:
    return "another host has the same name";
  case POOL_AMOUNT:
    return "it has a number of blocks that can't be";
  case POOL_OVERLENT:
    return "its leases hold more than it has set aside to lend";
  case POOL_TENANT_ORDER:
  case POOL_BORROWER_ORDER:
    return "its id is not above the one before it: ids ascend, and none is there twice";
  case POOL_NO_SUCH_HOST:
    return "it names a host that is not in the pool";
  case POOL_NO_SUCH_TENANT:
    return "it names a tenant that is not in the pool";
  case POOL_NO_SUCH_BORROWER:
    return "it names a borrower that is not in the pool";
  case POOL_VALUE:
    return "one of its values is none that there is";
  case POOL_DONOR_ORDER:
    return "its donors do not ascend, or one is there twice";
  case POOL_COPYSET_DOMAIN:
    return "its hosts are of one failure domain";
  case POOL_NO_MEMORY:
    return "memory is short";
  }
  return "?";
}

/* ---- figures ---- */

void
pool_donors_of (const struct pool *pool, uint32_t b, struct pool_set *ret_donors) {
  const struct pool_borrower *borrower = &pool->snapshot->borrowers[b];

  for (unsigned w = 0; w < POOL_HOSTS_MAX / 64; w++)
    ret_donors->words[w] = pool->takers.words[w] & borrower->donors.words[w] & pool->zone_of[borrower->host].words[w];
  pool_set_remove (ret_donors, borrower->host);
}

uint64_t
pool_headroom_missing (const struct pool *pool, enum pool_tier tier, uint32_t *ret_host) {
  uint64_t most = 0;

  for (uint32_t h = 0; h < pool->snapshot->n_hosts; h++) {
    const struct pool_sums *sums = &pool->sums[tier][h];
    const uint64_t others = pool->free[tier] - sums->free;

    if (sums->lent > others && sums->lent - others > most) {
      most = sums->lent - others;
      *ret_host = h;
    }
  }
  return most;
}

uint32_t
pool_imbalance (const struct pool *pool, enum pool_tier tier) {
  const struct pool_snapshot *s = pool->snapshot;
  uint64_t lent = 0, limit = 0;
  uint32_t worst = 0;

  for (uint32_t h = 0; h < s->n_hosts; h++)
    if (s->hosts[h].is_up && !s->hosts[h].is_frozen) {
      lent += pool->sums[tier][h].lent;
      limit += pool->sums[tier][h].limit;
    }
  if (lent == 0)
    return 0;
  for (uint32_t h = 0; h < s->n_hosts; h++) {
    const struct pool_sums *sums = &pool->sums[tier][h];
    double share, mean, off;

    if (!s->hosts[h].is_up || s->hosts[h].is_frozen || (sums->limit == 0 && sums->lent == 0))
      continue;
    if (sums->limit == 0 || limit == 0)
      return UINT32_MAX; /* it has what it is not to have at all */
    share = (double)sums->lent / (double)sums->limit;
    mean = (double)lent / (double)limit;
    off = (share > mean ? share - mean : mean - share) / mean * 1000;
    worst = off > worst ? (uint32_t)off : worst;
  }
  return worst;
}

/* ---- copysets ---- */

uint32_t
pool_make_copysets (const struct pool_host *hosts, uint32_t n_hosts, uint32_t scatter, uint64_t seed,
                    struct pool_copyset *sets) {
  const uint32_t orders = scatter < POOL_SCATTER_MIN   ? POOL_SCATTER_MIN
                          : scatter > POOL_SCATTER_MAX ? POOL_SCATTER_MAX
                                                       : scatter;
  struct pool_set partners[POOL_HOSTS_MAX];
  uint32_t n = 0;

  memset (partners, 0, sizeof partners);
  for (uint32_t o = 0; o < orders; o++) {
    uint32_t order[POOL_HOSTS_MAX];
    struct pool_set used = { 0 };

    for (uint32_t i = 0; i < n_hosts; i++) {
      const uint32_t j = (uint32_t)(pool_mix (seed ^ pool_mix ((uint64_t)o << 32 | i)) % (i + 1));

      order[i] = order[j];
      order[j] = i;
    }
    /* Each with the next one in the order that it has no set with yet; whom nobody is left for takes one that has one. */
    for (uint32_t i = 0; i < n_hosts; i++) {
      uint32_t a = order[i], b = POOL_NOBODY;

      if (pool_set_has (&used, a))
        continue;
      for (unsigned turn = 0; turn < 2 && b == POOL_NOBODY; turn++)
        for (uint32_t j = 0; j < n_hosts && b == POOL_NOBODY; j++)
          if (hosts[order[j]].domain != hosts[a].domain && !pool_set_has (&partners[a], order[j])
              && (turn || !pool_set_has (&used, order[j])))
            b = order[j];
      if (b == POOL_NOBODY || n == POOL_COPYSETS_MAX)
        continue;
      sets[n++] = (struct pool_copyset){ { a < b ? a : b, a < b ? b : a } };
      pool_set_add (&partners[a], b);
      pool_set_add (&partners[b], a);
      pool_set_add (&used, a);
      pool_set_add (&used, b);
    }
  }
  return n;
}
