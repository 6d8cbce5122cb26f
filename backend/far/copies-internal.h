/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Inside of the copies layer: donors and life (copies.c), the engine's requests (copies-io.c) and of these the reads
 * (copies-read.c), re-protection (copies-repair.c). */
#ifndef DOMYBS_FAR_COPIES_INTERNAL_H
#define DOMYBS_FAR_COPIES_INTERNAL_H

#include "far/copies.h"
#include "far/engine.h"
#include "io/log-limit.h"
#include "io/source.h"
#include "io/storage-internal.h"

#define PLACE_BYTES ((guint64)FAR_SEGMENT_BYTES)
G_STATIC_ASSERT (FAR_SEGMENT_BYTES == LEASE_BLOCK_BYTES);

/* How long reads of a copy take: two buckets to a power of two, as in far/latency.h; halved now and then, so that it is of
 * late. */
typedef struct {
  guint32 count[FAR_LATENCY_BUCKETS];
  guint n;
  gint64 p50_us, p95_us; /* 0: not known */
  guint late;            /* reads that were, since it has answered one */
} Speed;

typedef struct {
  FarCopies *copies;
  guint number;
  FarDonorOptions options; /* strings and key are the caller's */
  PageChannel *channel;
  PageChannelFigures figures; /* as of the last change */
  gboolean up;                /* attached, and the map says what is there */
  guint life;                 /* grows when what is there is gone */
  GSource *away_source;       /* its copies count for so long */
  guint64 wanted;             /* blocks, as told to the channel */
  gboolean kick;
  gboolean ending; /* it has left: what it has lent is given back */
  guint64 damaged, failed_writes;
} Donor;

enum op_kind { OP_READ, OP_WRITE, OP_REPAIR, OP_TRIM };

typedef struct Op Op;
typedef struct Part Part;

/* What one copy does for an op. */
struct Part {
  StorageIo storage; /* of these two, one is used */
  PageIo page;
  Op *op;
  guint target, life;
  gboolean is_write, under_way, late;
  guint8 *bounce; /* a read that may come too late to be wanted has its own memory */
  gint64 began;
  Part *next;
};

struct Op {
  FarCopies *copies;
  enum op_kind kind;
  StorageIo *io; /* READ, WRITE: NULL when it was answered */
  guint32 place;
  guint32 generation; /* of the place, when it began */
  guint64 offset;
  gsize bytes;
  guint8 *buf;      /* REPAIR: its own */
  guint32 tried;    /* READ, REPAIR: copies that are no good: do not ask them again */
  guint32 skipped;  /* they failed, but may be good another time */
  guint32 targets;  /* WRITE, REPAIR: being written; TRIM: given back */
  gboolean reading; /* REPAIR */
  guint source;     /* REPAIR: what was read */
  gsize checked;    /* REPAIR: bytes of it that were looked at */
  GSource *check_source;
  gboolean can_hedge, hedged, failed;
  enum copy_state source_state;
  int error;
  guint under_way;
  Part *parts;
  gint64 hedge_at;        /* µs; 0: not in the list of those that may be hedged */
  gboolean waits;         /* for a copy to be reachable */
  struct io_queue behind; /* writes to the same place that came meanwhile */
  GList link, hedge_link;
};

struct FarCopies {
  Storage base; /* first: what the engine has */
  Storage *local;
  char *name;
  FarCopiesOptions options;
  struct copies *map;
  struct copies_policy policy;
  Donor donors[COPIES_DONORS_MAX];
  guint32 *generations; /* of each place: grows when what it holds is another thing */
  Speed speeds[COPIES_TARGETS];
  guint64 n_choices;
  gboolean local_kick, closing;
  GQueue ops;    /* all of them */
  GQueue hedges; /* reads under way, by hedge_at, more or less */
  GSource *hedge_source;
  guint hedges_under_way;
  GSource *change_source; /* some donor has come or gone */
  GHashTable *busy;       /* place → the op that writes or trims it */
  GSource *wait_source;   /* those that wait are tried again */
  guint64 n_waiting;
  LogLimit log_limit;

  /* re-protection */
  gboolean scan_wanted; /* something has changed */
  gboolean scanning, scan_found, scan_left;
  guint pass; /* 0: the most endangered ones */
  guint32 cursor;
  GSource *repair_source;
  guint64 wear_wait_us; /* some copies in storage wait for the wear budget; 0: none */
  GSource *wear_source;
  gint64 pause_until; /* µs: something failed */
  gint64 tokens_at;   /* µs: when the tokens were last counted */
  gint64 tokens;      /* bytes that may be read now */
  guint repairs_under_way, trims_under_way;

  gboolean ending;
  guint end_left;
  GSource *end_source;
  void (*end_done) (gpointer data);
  gpointer end_data;
  FarCopiesFigures figures;
};

/* copies.c */
/* What is known of donors now, for a decision. */
const struct copies_policy *copies_policy_now (FarCopies *c);
void copies_update_wants (FarCopies *c);
void copies_kick (FarCopies *c);

/* copies-io.c */
void copies_io_submit (Storage *storage, StorageIo *io);
void copies_io_clear (FarCopies *c);
/* Tells the engine. The op is still there afterwards; copies_op_end follows. */
void copies_answer (Op *op, int error);
Op *copies_op_new (FarCopies *c, enum op_kind kind, guint32 place);
/* Frees it if nothing of it is under way; lets those go that were behind it. */
void copies_op_end (Op *op);
/* Begins a part; buf: where to, or from. The op's part_done follows. */
void copies_part_begin (Op *op, guint target, gboolean is_write, guint8 *buf, guint8 *bounce);
void copies_part_trim (Op *op, guint target);

/* copies-read.c */
void copies_read_begin (FarCopies *c, StorageIo *io);
gboolean copies_io_read_again (Storage *storage, StorageIo *io);
/* Those that wait are tried again. */
void copies_io_retry (FarCopies *c);
void copies_read_part_done (Op *op, Part *part, int error);
void copies_read_clear (FarCopies *c);
void copies_hedge_no_more (Op *op);
/* A copy to read, of that mask; 0 … COPIES_TARGETS - 1, or -1: none that can be reached. */
int copies_choose_source (FarCopies *c, guint32 mask, gboolean ahead, gsize bytes);
guint32 copies_held (FarCopies *c, guint32 place);
void copies_damaged (FarCopies *c, guint32 place, guint target);

/* copies-repair.c */
/* There may be something to do: everything is looked at once more. */
void copies_repair_wake (FarCopies *c);
/* That place was written, and may want more, or less, than it got. */
void copies_repair_place (FarCopies *c, guint32 place);
void copies_repair_part_done (Op *op, Part *part, int error);
void copies_repair_clear (FarCopies *c);

#endif
