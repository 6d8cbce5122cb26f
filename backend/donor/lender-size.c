/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How much a donor lends at the moment. Revokes that this module makes for the size's sake are taken back when there is room
 * again; those of a worker before count as the operator's, and end in their own way. */
#include "donor/lender-internal.h"

#define BLOCK_MIB (ARENA_BLOCK_BYTES >> 20)

static guint64
wanted_blocks (const Lender *lender) {
  return MIN (lender->size.wanted_mib / BLOCK_MIB, lender->max_blocks);
}

/* The level that a lease has, or is to come down to. */
static guint64
level_to_be (const struct lease_info *info) {
  return info->revoke ? MIN (info->level, info->revoke_level) : info->level;
}

static guint64
sum_to_be (const Lender *lender) {
  struct lease_info info;
  guint64 sum = 0;

  for (guint32 slot = 0; slot < lender->options.geometry.n_leases; slot++)
    if (lease_donor_lease (lender->leases, slot, &info))
      sum += level_to_be (&info);
  return sum;
}

/* Each its share of what is left. */
static void
revoke_all (Lender *lender, guint64 wanted, guint64 sum) {
  const guint64 until = lender_now_ms () + lender->options.revoke_ms;
  struct lease_info info;
  guint n = 0;

  for (guint32 slot = 0; slot < lender->options.geometry.n_leases; slot++) {
    guint64 level, share;

    if (!lease_donor_lease (lender->leases, slot, &info))
      continue;
    level = level_to_be (&info);
    share = arena_share (level, wanted, sum);
    if (share < level && lease_donor_revoke (lender->leases, info.lease, share, until)) {
      g_hash_table_add (lender->revoked, g_memdup2 (&info.lease, sizeof info.lease));
      n++;
    }
  }
  if (n)
    g_message ("%s: %" G_GUINT64_FORMAT " of %" G_GUINT64_FORMAT " MiB that are lent are wanted back, from %u leases: %s",
               lender->options.name, (sum - wanted) * BLOCK_MIB, sum * BLOCK_MIB, n, arena_reason_text (lender->reason));
}

static void
let_go (Lender *lender) {
  GHashTableIter iter;
  gpointer lease;
  struct lease_info info;

  if (g_hash_table_size (lender->revoked) == 0)
    return;
  for (guint32 slot = 0; slot < lender->options.geometry.n_leases; slot++)
    if (lease_donor_lease (lender->leases, slot, &info) && info.revoke && g_hash_table_contains (lender->revoked, &info.lease))
      lease_donor_revoke (lender->leases, info.lease, info.level, 0);
  g_hash_table_iter_init (&iter, lender->revoked);
  while (g_hash_table_iter_next (&iter, &lease, NULL))
    g_hash_table_iter_remove (&iter);
}

static void
apply (Lender *lender) {
  const guint64 wanted = wanted_blocks (lender);
  struct lease_donor_figures figures;
  guint64 sum;

  lease_donor_set_limit (lender->leases, wanted);
  lease_donor_figures (lender->leases, &figures);
  if (figures.promised <= wanted) {
    let_go (lender);
    return;
  }
  sum = sum_to_be (lender);
  if (sum > wanted)
    revoke_all (lender, wanted, sum);
}

static void
look (Lender *lender) {
  const struct arena_limits limits = { lender->max_blocks * BLOCK_MIB, lender->options.reserve_bytes >> 20 };
  g_autoptr (GError) error = NULL;
  struct lease_donor_figures figures;
  struct arena_sample sample = { .now_ms = lender_now_ms () };
  enum arena_reason reason;
  guint64 before = lender->size.wanted_mib;

  if (!host_memory_read (&lender->memory, &error)) {
    if (log_limit_pass (&lender->log))
      g_warning ("%s: %s; the size of the arena stays", lender->options.name, error->message);
    return;
  }
  host_pressure_read (&lender->pressure);
  if (lender->options.fixed) {
    lender->size.wanted_mib = limits.max_mib;
    lender->reason = ARENA_OPERATOR;
    return;
  }
  lease_donor_figures (lender->leases, &figures);
  sample.available_mib = lender->memory.available_bytes >> 20;
  sample.has_mib = arena_bytes (lender->arena) >> 20;
  sample.promised_mib = figures.promised * BLOCK_MIB > sample.has_mib ? figures.promised * BLOCK_MIB - sample.has_mib : 0;
  sample.some = lender->pressure.some;
  sample.full = lender->pressure.full;
  reason = arena_size_step (&lender->size, &limits, &sample);
  if (reason == ARENA_KEEP)
    return;
  lender->reason = reason;
  g_debug ("%s: the arena's size goes from %" G_GUINT64_FORMAT " to %" G_GUINT64_FORMAT " MiB: %s", lender->options.name,
           before, lender->size.wanted_mib, arena_reason_text (reason));
}

void
lender_size_tick (Lender *lender) {
  look (lender);
  apply (lender);
}

void
lender_size_begin (Lender *lender, guint64 max_blocks) {
  lender->revoked = g_hash_table_new_full (g_int64_hash, g_int64_equal, g_free, NULL);
  lender->max_blocks = MIN (max_blocks, lender->options.geometry.n_blocks);
  lender_size_tick (lender);
}

void
lender_size_end (Lender *lender) {
  g_clear_pointer (&lender->revoked, g_hash_table_unref);
}

void
lender_size_not_ours (Lender *lender, guint64 lease) {
  g_hash_table_remove (lender->revoked, &lease);
}

void
lender_set_max (Lender *lender, guint64 blocks) {
  lender->max_blocks = MIN (blocks, lender->options.geometry.n_blocks);
  lender_size_tick (lender);
}

void
lender_size_figures (Lender *lender, LenderFigures *ret_figures) {
  *ret_figures = (LenderFigures){ .max_blocks = lender->max_blocks,
                                  .wanted_blocks = wanted_blocks (lender),
                                  .reason = lender->reason,
                                  .host_available_bytes = lender->memory.available_bytes,
                                  .reserve_bytes = lender->options.reserve_bytes,
                                  .pressure = lender->pressure };
}
