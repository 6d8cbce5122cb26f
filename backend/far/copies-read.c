/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Reads: of the copy that answers fastest, and of the next one too where that is late. */
#include "far/copies-internal.h"
#include "far/latency.h"

#include <errno.h>
#include <string.h>

/* What reads of up to these bytes take says how long such reads take. */
#define SMALL_READ (64u << 10)
/* Before a second copy is asked: what 95 of 100 reads of the first take, within these bounds. */
#define HEDGE_MIN_US 1000
#define HEDGE_MAX_US 100000
#define HEDGE_UNKNOWN_US 10000
/* Reads that wait for a second answer, at a time: a copy that all are late of must not double the others' work for long. */
#define HEDGES_MAX 16u
/* So many late reads without an answer in between: who hangs is asked only where there is nobody else, until he answers. */
#define LATE_MAX 3u
/* One read of so many is sent to another copy as well, without waiting for it: it may have become the faster one. */
#define EXPLORE 64u
/* Reads in long rows for which no answer is awaited, as cleaning: storage is good enough for them. */
#define BULK_BYTES (1u << 20)
#define RETRY_MS 200u

/* ---- how fast they are ---- */

static gint64
percentile (const Speed *speed, guint percent) {
  guint64 sum = 0;

  for (guint b = 0; b < FAR_LATENCY_BUCKETS; b++) {
    sum += speed->count[b];
    if (sum * 100 >= (guint64)speed->n * percent)
      return (gint64)(1ull << (b / 2)) + (b % 2 ? (gint64)(1ull << (b / 2)) * 2 / 5 : 0);
  }
  return 0;
}

static void
note_speed (FarCopies *c, const Part *part) {
  Speed *speed = &c->speeds[part->target];
  const guint bucket = latency_bucket (g_get_monotonic_time () - part->began);

  speed->count[MIN (bucket, FAR_LATENCY_BUCKETS - 1)]++;
  speed->n++;
  if (speed->n % 32 && speed->p50_us)
    return;
  speed->p50_us = percentile (speed, 50);
  speed->p95_us = percentile (speed, 95);
  if (speed->n >= 512) {
    speed->n = 0;
    for (guint b = 0; b < FAR_LATENCY_BUCKETS; b++)
      speed->n += speed->count[b] /= 2;
  }
}

/* A part of a read has ended: of a copy that does answer, be it late, or with an error of its own. */
static void
note_answer (FarCopies *c, const Op *op, const Part *part, int error) {
  if (error == ENOTCONN || error == ETIMEDOUT) {
    /* When there is a connection again one read may find out, for nothing is on its way there that could be answered. */
    c->speeds[part->target].late = MIN (c->speeds[part->target].late, LATE_MAX - 1);
    return;
  }
  c->speeds[part->target].late = 0;
  if (!error && part->bounce && op->bytes <= SMALL_READ)
    note_speed (c, part);
}

/* Parts of a read that are late now. */
static void
note_late (FarCopies *c, Op *op) {
  for (Part *part = op->parts; part; part = part->next)
    if (part->under_way && !part->late) {
      part->late = TRUE;
      c->speeds[part->target].late++;
    }
}

/* ---- reads ---- */

guint32
copies_held (FarCopies *c, guint32 place) {
  const guint32 valid = copies_in_state (c->map, place, COPY_VALID), suspect = copies_in_state (c->map, place, COPY_SUSPECT);

  return valid | suspect;
}

/* What asking a copy costs, of late. */
static gint64
cost (FarCopies *c, guint target) {
  gint64 since;

  if (target == COPIES_LOCAL && !storage_is_reachable (c->local, &since))
    return G_MAXINT64; /* it may come back */
  return c->speeds[target].late >= LATE_MAX ? G_MAXINT64 - 1 : c->speeds[target].p50_us;
}

int
copies_choose_source (FarCopies *c, guint32 mask, gboolean ahead, gsize bytes) {
  int best = -1;
  gint64 best_us = 0, since;

  if (ahead && bytes >= BULK_BYTES && mask & COPIES_LOCAL_BIT && storage_is_reachable (c->local, &since))
    return COPIES_LOCAL;
  for (guint t = COPIES_TARGETS; t-- > 0;) {
    const gint64 us = cost (c, t);

    if (!(mask >> t & 1) || (t != COPIES_LOCAL && !c->donors[t - 1].up))
      continue;
    if (best < 0 || us < best_us) {
      best = (int)t;
      best_us = us;
    }
  }
  return best;
}

/* Good ones first. */
static int
choose_of (FarCopies *c, const Op *op, guint32 without) {
  const guint32 valid = copies_in_state (c->map, op->place, COPY_VALID) & ~without,
                suspect = copies_in_state (c->map, op->place, COPY_SUSPECT) & ~without;
  const gboolean ahead = op->io && op->io->ahead;
  const int best = copies_choose_source (c, valid, ahead, op->bytes);

  return best >= 0 ? best : copies_choose_source (c, suspect, ahead, op->bytes);
}

static guint32
asked (const Op *op) {
  guint32 mask = 0;

  for (const Part *part = op->parts; part; part = part->next)
    if (part->under_way)
      mask |= 1u << part->target;
  return mask;
}

static void arm_hedges (FarCopies *c);

void
copies_hedge_no_more (Op *op) {
  FarCopies *c = op->copies;

  if (op->hedge_at)
    g_queue_unlink (&c->hedges, &op->hedge_link);
  op->hedge_at = 0;
  c->hedges_under_way -= op->hedged && !op->io;
  op->hedged = op->hedged && op->io;
}

/* The first ones are those that are due first. */
static void
hedge_later (Op *op, gint64 at) {
  FarCopies *c = op->copies;
  GList *after = c->hedges.tail;

  op->hedge_at = at;
  while (after && ((const Op *)after->data)->hedge_at > at)
    after = after->prev;
  g_queue_insert_after_link (&c->hedges, after, &op->hedge_link);
  if (!after)
    source_clear (&c->hedge_source); /* it is due before those that are waited for */
  arm_hedges (c);
}

static void
ask (Op *op, guint target) {
  guint8 *bounce = op->can_hedge ? g_aligned_alloc (1, op->bytes, STORAGE_ALIGN) : NULL;

  copies_part_begin (op, target, FALSE, op->buf, bounce);
}

/* Now and then. The guest does not wait for it. */
static void
explore (Op *op) {
  FarCopies *c = op->copies;
  const guint32 others = copies_in_state (c->map, op->place, COPY_VALID) & ~op->tried & ~op->skipped & ~asked (op);
  guint n;

  if (!op->can_hedge || ++c->n_choices % EXPLORE || !others)
    return;
  n = (guint)(c->n_choices / EXPLORE) % placement_count (others);
  for (guint t = 0; t < COPIES_TARGETS; t++)
    if ((others >> t & 1) && n-- == 0 && (t == COPIES_LOCAL || c->donors[t - 1].up) && cost (c, t) < G_MAXINT64 - 1)
      ask (op, t);
}

static gint64
hedge_delay (const FarCopies *c, guint target) {
  const gint64 p95 = c->speeds[target].p95_us;

  return p95 ? CLAMP (p95, HEDGE_MIN_US, HEDGE_MAX_US) : HEDGE_UNKNOWN_US;
}

static gboolean
on_retry (gpointer data) {
  FarCopies *c = data;

  source_clear (&c->wait_source);
  copies_io_retry (c);
  copies_kick (c);
  return G_SOURCE_REMOVE;
}

static void
wait_for_copies (Op *op) {
  FarCopies *c = op->copies;

  if (!op->waits) {
    op->waits = TRUE;
    c->n_waiting++;
  }
  if (!c->wait_source)
    c->wait_source = source_timeout (RETRY_MS, on_retry, c);
}

/* Nothing is under way for it. */
static void
read_go_on (Op *op) {
  FarCopies *c = op->copies;
  const guint32 held = copies_held (c, op->place);
  const gboolean is_other = op->generation != c->generations[op->place];
  const int target = is_other ? -1 : choose_of (c, op, op->tried | op->skipped);

  if (target >= 0) {
    if (op->waits)
      c->n_waiting--;
    op->waits = FALSE;
    ask (op, (guint)target);
    explore (op);
    if (op->can_hedge && !op->hedge_at)
      hedge_later (op, g_get_monotonic_time () + hedge_delay (c, (guint)target));
    return;
  }
  if (!is_other && held & ~op->tried) {
    wait_for_copies (op);
    return;
  }
  if (op->waits)
    c->n_waiting--;
  op->waits = FALSE;
  if (is_other) /* what was asked for is not there any more: the engine finds that out by itself, whatever it gets */
    memset (op->io->buf, 0, op->io->bytes);
  copies_answer (op, is_other ? 0 : op->error ? op->error : EIO);
  copies_op_end (op);
}

static Op *
read_op (FarCopies *c, StorageIo *io) {
  Op *op = copies_op_new (c, OP_READ, (guint32)(io->offset / PLACE_BYTES));
  const guint32 held = copies_held (c, op->place);

  op->io = io;
  op->offset = io->offset;
  op->bytes = io->bytes;
  op->buf = io->buf;
  op->can_hedge = held & (held - 1) && io->bytes < BULK_BYTES;
  return op;
}

/* What is known of a read that has ended, for read_again. */
static void
remember (StorageIo *io, guint32 tried, guint target) {
  io->internal[1] = GSIZE_TO_POINTER ((gsize)tried << 8 | target);
}

gboolean
copies_io_read_again (Storage *storage, StorageIo *io) {
  FarCopies *c = (FarCopies *)storage;
  const gsize known = GPOINTER_TO_SIZE (io->internal[1]);
  const guint32 place = (guint32)(io->offset / PLACE_BYTES), target = known & 0xff,
                tried = (guint32)(known >> 8) | 1u << target;
  Op *op;

  copies_damaged (c, place, target);
  if (!(copies_held (c, place) & ~tried))
    return FALSE;
  c->figures.read_elsewhere++;
  op = read_op (c, io);
  op->tried = tried;
  op->can_hedge = FALSE;
  read_go_on (op);
  return TRUE;
}

void
copies_damaged (FarCopies *c, guint32 place, guint target) {
  if (copies_get (c->map, place, target) != COPY_VALID)
    return;
  if (target != COPIES_LOCAL)
    c->donors[target - 1].damaged++;
  if (log_limit_pass (&c->log_limit))
    g_warning ("%s: %s: place %u came back damaged; other copies are asked", c->name,
               target == COPIES_LOCAL ? storage_description (c->local) : c->donors[target - 1].options.name, place);
  copies_set (c->map, place, target, COPY_SUSPECT);
  copies_repair_wake (c);
}

void
copies_read_part_done (Op *op, Part *part, int error) {
  FarCopies *c = op->copies;
  const guint32 bit = 1u << part->target;

  note_answer (c, op, part, error);
  if (!error && part->target != COPIES_LOCAL && op->generation == c->generations[op->place]
      && !(copies_held (c, op->place) & bit))
    error = ESTALE; /* its block was given back meanwhile: that may be zeroes */
  if (!op->io) { /* another copy was faster */
    copies_op_end (op);
    return;
  }
  if (error) {
    c->figures.read_elsewhere++;
    if (part->target == COPIES_LOCAL) {
      op->error = error;
      op->tried |= bit;
      if (error == EIO && op->generation == c->generations[op->place])
        copies_damaged (c, op->place, COPIES_LOCAL); /* what can't be read protects nothing: it is written anew */
    } else {
      op->skipped |= bit; /* it may answer another time */
    }
    if (!op->under_way)
      read_go_on (op);
    return;
  }
  if (part->bounce)
    memcpy (op->io->buf, part->bounce, op->bytes);
  c->figures.hedges_won += op->hedged && !part->late;
  remember (op->io, op->tried, part->target);
  copies_answer (op, 0);
  copies_op_end (op);
}

/* ---- a second copy is asked where the first is late ---- */

/* All that were asked hang: then asking another one is no hedge, and not bounded as these are. */
static gboolean
waits_for_hung (const FarCopies *c, const Op *op) {
  for (const Part *part = op->parts; part; part = part->next)
    if (part->under_way && c->speeds[part->target].late < LATE_MAX)
      return FALSE;
  return TRUE;
}

static gboolean
on_hedge (gpointer data) {
  FarCopies *c = data;
  const gint64 now = g_get_monotonic_time ();
  guint n = c->hedges.length;

  source_clear (&c->hedge_source);
  while (n-- && c->hedges.head) {
    Op *op = c->hedges.head->data;
    int target;

    if (op->hedge_at > now)
      break;
    g_queue_unlink (&c->hedges, &op->hedge_link);
    op->hedge_at = 0;
    if (!op->under_way)
      continue; /* it waits */
    note_late (c, op);
    target = op->hedged || c->hedges_under_way < HEDGES_MAX || waits_for_hung (c, op)
                 ? choose_of (c, op, op->tried | op->skipped | asked (op))
                 : -1;
    if (target >= 0 && cost (c, (guint)target) < G_MAXINT64 - 1) {
      c->figures.hedged++;
      c->hedges_under_way += !op->hedged;
      op->hedged = TRUE;
      ask (op, (guint)target);
    }
    if (target < 0)
      op->skipped = 0; /* who has failed may answer by the next turn; only those that can be reached are asked */
    hedge_later (op, now + HEDGE_MAX_US); /* a third one, or one that could not be reached */
  }
  copies_kick (c);
  arm_hedges (c);
  return G_SOURCE_REMOVE;
}

static void
arm_hedges (FarCopies *c) {
  const Op *first = c->hedges.head ? c->hedges.head->data : NULL;

  if (first && !c->hedge_source) {
    const gint64 left = first->hedge_at - g_get_monotonic_time ();

    c->hedge_source = source_timeout (left > 0 ? (guint)((left + 999) / 1000) : 0, on_hedge, c);
  }
}

void
copies_read_begin (FarCopies *c, StorageIo *io) {
  read_go_on (read_op (c, io));
}

void
copies_io_retry (FarCopies *c) {
  g_autoptr (GPtrArray) waiting = g_ptr_array_new ();

  for (GList *l = c->ops.head; l; l = l->next)
    if (((Op *)l->data)->waits)
      g_ptr_array_add (waiting, l->data);
  for (guint i = 0; i < waiting->len; i++) { /* nobody else ends one of them */
    Op *op = waiting->pdata[i];

    op->skipped = 0;
    read_go_on (op);
  }
}

void
copies_read_clear (FarCopies *c) {
  source_clear (&c->hedge_source);
  source_clear (&c->wait_source);
}
