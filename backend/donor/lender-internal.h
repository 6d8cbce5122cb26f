/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Shared by lender.c (exports, clearing) and lender-size.c (how much is lent). */
#ifndef DOMYBS_DONOR_LENDER_INTERNAL_H
#define DOMYBS_DONOR_LENDER_INTERNAL_H

#include "donor/lender.h"
#include "io/host-memory.h"
#include "io/log-limit.h"

struct Lender {
  LenderOptions options;
  Arena *arena;
  struct lease_donor *leases;
  GPtrArray *connections; /* of struct export */
  void (*close_old) (gpointer data, const LenderOld *old);
  gpointer fence_data;
  GSource *clear_source, *tick_source;
  gint64 ticked_at; /* g_get_monotonic_time */
  guint64 fill_failures, clear_failures;
  LogLimit log;

  /* lender-size.c */
  guint64 max_blocks;
  struct arena_size size;
  enum arena_reason reason;
  HostMemory memory; /* as it was at the last look */
  HostPressure pressure;
  GHashTable *revoked; /* leases that were revoked for the size's sake, and may be let go again */
};

guint64 lender_now_ms (void);

void lender_size_begin (Lender *lender, guint64 max_blocks);
void lender_size_end (Lender *lender);
/* Looks at the host's memory, and sets limit and revokes. */
void lender_size_tick (Lender *lender);
/* That lease's revoke is the operator's now. */
void lender_size_not_ours (Lender *lender, guint64 lease);
void lender_size_figures (Lender *lender, LenderFigures *ret_figures);

#endif
