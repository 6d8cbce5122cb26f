/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The copies of one far disk: lies between the engine and its storage copy, looks to the engine like storage (io/storage.h),
 * and sees to it that each place has the copies that its protection wants: in storage, and with donors (io/page-channel.h).
 * core/copies.h has the map and the decisions.
 *
 * Writes go to all copies and end when all have ended; what could not be had is made up for later. Reads go to the copy that
 * answers fastest, and, when that is late, to the next one as well. Copies that can't be reached are waited for: only what is
 * gone for certain is an error.
 *
 * Re-protection goes over the map when something has changed: most endangered places first, at a bounded rate. Nothing is done
 * while all is well.
 *
 * One thread, the thread-default GMainContext's.
 */
#ifndef DOMYBS_FAR_COPIES_H
#define DOMYBS_FAR_COPIES_H

#include "core/copies.h"
#include "io/page-channel.h"
#include "io/storage.h"

typedef struct {
  const char *name;         /* "hostb"; NULL: there is none of that number any more, and what the map says of it is nothing */
  const char *address;      /* as in PageChannelOptions */
  const char *domain;       /* donors of the same may fail together */
  const char *psk_identity; /* NULL: no TLS */
  const guint8 *psk;
  gsize psk_bytes;
  guint64 blocks_max; /* of 2 MiB that are asked of it */
  gboolean leaves;    /* all that is there is to be elsewhere */
} FarDonorOptions;

typedef struct {
  const char *name; /* of the disk, for the log */
  enum copies_mode mode;
  guint32 n_places;
  guint n_donors; /* 0 … COPIES_DONORS_MAX */
  const FarDonorOptions *donors;
  guint8 vm[LEASE_ID_BYTES], host[LEASE_ID_BYTES], boot[LEASE_ID_BYTES];
  guint32 disk;        /* its number within the VM */
  guint32 worker;      /* the number of this worker */
  guint64 repair_rate; /* bytes a second that re-protection may read; 0: FAR_REPAIR_RATE_DEFAULT */
  guint
      deadline_ms; /* a donor that has not answered a request by then: its connection is given up; 0: FAR_DEADLINE_MS_DEFAULT */
  guint away_ms;   /* a donor that can't be reached for so long counts as gone: its copies are made elsewhere; 0:
                      FAR_AWAY_MS_DEFAULT */
} FarCopiesOptions;

#define FAR_DEADLINE_MS_DEFAULT 3000u
#define FAR_REPAIR_RATE_DEFAULT (512ull << 20)
#define FAR_AWAY_MS_DEFAULT 10000u

typedef struct FarCopies FarCopies;

/* What the engine uses; storage_free ends it. local is taken over, in any case. state: memory that was formatted with
 * copies_format. What options name must stay. NULL with error: the state can't be gone on from, or an address is none. */
Storage *far_copies_new (const FarCopiesOptions *options, Storage *local, void *state, gsize state_bytes, GError **error);
/* storage: of far_copies_new. */
FarCopies *far_copies_of (Storage *storage);

/* The VM has ended: gives all leases back; done is called when that is so, or after timeout_ms. Nothing is written any more. */
void far_copies_end (FarCopies *copies, guint timeout_ms, void (*done) (gpointer data), gpointer data);

/* Whether that donor is to leave: it is taken for one that wants all of its blocks back. */
void far_copies_donor_leaves (FarCopies *copies, guint donor, gboolean leaves);
/* Gives back what it has lent, as far_copies_end does for all. Nothing is asked of it any more. */
void far_copies_donor_end (FarCopies *copies, guint donor, guint timeout_ms, void (*done) (gpointer data, gboolean ok),
                           gpointer data);

typedef struct {
  const char *name, *domain, *address; /* name NULL: there is none of that number */
  PageChannelFigures channel;
  enum copies_donor_state state;
  guint64 valid, old, suspect; /* places */
  guint64 wanted_blocks;
  guint64 damaged; /* reads that brought something else than what was written */
  guint64 failed_writes;
  guint64 read_p50_us, read_p95_us; /* 0: not known */
  gboolean leaves;
} FarDonorFigures;

typedef struct {
  enum copies_mode mode;
  guint64 places;     /* that hold something */
  guint64 protected;  /* have all copies that they should have */
  guint64 degraded;   /* have fewer, but one at least that counts */
  guint64 endangered; /* have none that counts: with donors that are gone, or suspect */
  guint64 lost;       /* had contents, and have no copy */
  guint64 local_valid;
  guint64 waiting; /* reads that wait for a copy to be reachable */
  guint64 repaired_bytes, repairs_failed, repairs_under_way;
  gboolean repairing; /* there is something to do, and it is being done */
  guint64 hedged, hedges_won;
  guint64 moved_back;     /* blocks given back to donors, by TRIM */
  guint64 read_elsewhere; /* reads that another copy had to answer */
  guint64 degraded_writes;
  guint n_donors;
} FarCopiesFigures;
void far_copies_figures (FarCopies *copies, FarCopiesFigures *ret_figures);
void far_copies_donor_figures (FarCopies *copies, guint donor, FarDonorFigures *ret_figures);

#endif
