/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a donor lends: its leases (core/lease-donor.h) and the arena's memory behind them, as exports of the page server. Blocks
 * that were given back are cleared piece by piece, between other work, before anybody gets them again.
 *
 * Its size follows the host's memory (core/arena-size.h) up to a limit: what is promised beyond the wanted size is revoked,
 * from all leases in proportion.
 */
#ifndef DOMYBS_DONOR_LENDER_H
#define DOMYBS_DONOR_LENDER_H

#include "core/arena-size.h"
#include "core/lease-donor.h"
#include "donor/arena.h"
#include "donor/exports.h"
#include "io/host-pressure.h"

/* A borrower that was not heard of for so long counts as detached: it is shown, and nothing else. */
#define LENDER_DETACHED_MS LEASE_DONOR_DETACHED_MS

typedef struct {
  const char *name; /* for the log */
  struct lease_donor_geometry geometry;
  struct lease_donor_limits limits; /* of an identity */
  guint64 ttl_ms;                   /* 0: never */
  guint64 revoke_ms;                /* how long borrowers get */
  guint64 reserve_bytes;            /* the host's own */
  gboolean fixed;                   /* the size does not follow the host's memory */
} LenderOptions;

typedef struct Lender Lender;

/* Goes on from the table, which is the caller's, with a limit of so many blocks. Takes over arena, also on failure. */
Lender *lender_new (const LenderOptions *options, Arena *arena, void *table, gsize table_bytes, guint64 max_blocks,
                    GError **error);
void lender_free (Lender *lender);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (Lender, lender_free)

/* Its exports: the first argument is the Lender. */
extern const ExportsKind lender_exports;

/* Whether the connection that has this export is of that lease, of an epoch below that one. */
typedef struct {
  guint64 lease, below_epoch;
} LenderOld;
gboolean lender_export_is_old (gpointer export, const LenderOld *old);
/* How connections are closed when a lease gets a new epoch or ends: all those whose export is `old`, and nothing of theirs is
 * written any more when it returns. Before the first connection. */
void lender_set_fence (Lender *lender, void (*close_old) (gpointer data, const LenderOld *old), gpointer data);
/* The timers begin. */
void lender_start (Lender *lender);

/* ---- the operator ---- */

/* Never more than the arena has. */
void lender_set_max (Lender *lender, guint64 blocks);
gboolean lender_revoke (Lender *lender, guint64 lease, guint64 level, GError **error);
gboolean lender_forget (Lender *lender, guint64 lease, GError **error);

typedef struct {
  guint64 max_blocks;       /* the operator's limit */
  guint64 wanted_blocks;    /* the size at the moment */
  enum arena_reason reason; /* why it is what it is: of the last change */
  guint64 host_available_bytes, reserve_bytes;
  HostPressure pressure;
  guint64 memory_bytes; /* that the arena takes */
  gboolean locked;
  guint64 fill_failures, clear_failures;
  guint connections;
  guint64 now_ms; /* of the leases' clock */
} LenderFigures;
void lender_figures (Lender *lender, LenderFigures *ret_figures);
const struct lease_donor *lender_leases (const Lender *lender);
/* Open connections with an export of that lease. */
guint lender_connections (const Lender *lender, guint64 lease);

#endif
