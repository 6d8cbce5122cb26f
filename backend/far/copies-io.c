/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the engine asks for: writes to several copies, reads of one of them. */
#include "core/crash-point.h"
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
#define HEDGES_MAX 16u
/* One read of so many asks another copy than the fastest: it may have become faster. */
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

/* ---- parts ---- */

static void part_done (Part *part, int error);

static void
storage_done (StorageIo *io, int error) {
  part_done (io->data, error);
}

static void
page_done (PageIo *io, int error) {
  part_done (io->data, error);
}

static Part *
part_new (Op *op, guint target, gboolean is_write) {
  Part *part = g_new0 (Part, 1);

  part->op = op;
  part->target = target;
  part->is_write = is_write;
  part->under_way = TRUE;
  part->began = g_get_monotonic_time ();
  part->next = op->parts;
  op->parts = part;
  op->under_way++;
  return part;
}

static void
submit_page (Part *part) {
  Donor *donor = &part->op->copies->donors[part->target - 1];

  part->life = donor->life;
  part->page.done = page_done;
  part->page.data = part;
  donor->kick = TRUE;
  page_channel_submit (donor->channel, &part->page);
}

void
copies_part_begin (Op *op, guint target, gboolean is_write, guint8 *buf, guint8 *bounce) {
  Part *part = part_new (op, target, is_write);
  const gboolean ahead = op->kind == OP_REPAIR || (op->io && op->io->ahead);

  part->bounce = bounce;
  if (target == COPIES_LOCAL) {
    part->storage = (StorageIo){ .is_write = is_write,
                                 .ahead = ahead,
                                 .offset = op->offset,
                                 .buf = bounce ? bounce : buf,
                                 .bytes = op->bytes,
                                 .done = storage_done,
                                 .data = part };
    op->copies->local_kick = TRUE;
    storage_submit (op->copies->local, &part->storage);
    return;
  }
  part->page = (PageIo){ .op = is_write ? PAGE_WRITE : PAGE_READ,
                         .class = is_write ? PAGE_WRITE_OUT
                                  : ahead  ? PAGE_PREFETCH
                                           : PAGE_DEMAND,
                         .offset = op->offset,
                         .bytes = op->bytes,
                         .buf = bounce ? bounce : buf,
                         .deadline_ms = op->copies->options.deadline_ms };
  submit_page (part);
}

void
copies_part_trim (Op *op, guint target) {
  Part *part = part_new (op, target, TRUE);

  part->page = (PageIo){ .op = PAGE_TRIM,
                         .class = PAGE_WRITE_OUT,
                         .offset = op->offset,
                         .bytes = op->bytes,
                         .deadline_ms = op->copies->options.deadline_ms };
  submit_page (part);
}

/* ---- ops ---- */

Op *
copies_op_new (FarCopies *c, enum op_kind kind, guint32 place) {
  Op *op = g_new0 (Op, 1);

  op->copies = c;
  op->kind = kind;
  op->place = place;
  op->generation = c->generations[place];
  op->offset = place * PLACE_BYTES;
  op->bytes = PLACE_BYTES;
  op->link.data = op->hedge_link.data = op;
  g_queue_push_tail_link (&c->ops, &op->link);
  if (kind != OP_READ)
    g_hash_table_insert (c->busy, GUINT_TO_POINTER (place), op);
  return op;
}

static void
hedge_no_more (Op *op) {
  if (op->hedge_at)
    g_queue_unlink (&op->copies->hedges, &op->hedge_link);
  op->hedge_at = 0;
}

static void
op_free (Op *op) {
  FarCopies *c = op->copies;

  hedge_no_more (op);
  c->hedges_under_way -= op->hedged;
  g_queue_unlink (&c->ops, &op->link);
  if (op->kind == OP_REPAIR)
    g_clear_pointer (&op->buf, g_aligned_free);
  while (op->parts) {
    Part *part = op->parts;

    op->parts = part->next;
    g_clear_pointer (&part->bounce, g_aligned_free);
    g_free (part);
  }
  g_free (op);
}

void
copies_op_end (Op *op) {
  FarCopies *c = op->copies;
  struct io_queue behind = op->behind;
  StorageIo *io;

  if (op->under_way || op->io)
    return;
  if (op->kind != OP_READ)
    g_hash_table_remove (c->busy, GUINT_TO_POINTER (op->place));
  op_free (op);
  while ((io = io_queue_pop (&behind)))
    copies_io_submit (&c->base, io);
}

static void
answer (Op *op, int error) {
  StorageIo *io = op->io;

  op->io = NULL;
  hedge_no_more (op);
  op->under_way++; /* whoever hears of it may let the last part end */
  io->done (io, error);
  op->under_way--;
}

/* ---- writes ---- */

static void
write_begin (FarCopies *c, StorageIo *io) {
  const guint32 place = (guint32)(io->offset / PLACE_BYTES);
  struct copies_plan plan;
  Op *op = g_hash_table_lookup (c->busy, GUINT_TO_POINTER (place));

  if (op) { /* a copy of what the place held is being made or given back: it ends soon, and is worth nothing */
    io_queue_push (&op->behind, io);
    return;
  }
  copies_plan_write (copies_policy_now (c), c->map, place, &plan);
  c->generations[place]++;
  op = copies_op_new (c, OP_WRITE, place);
  op->io = io;
  op->bytes = io->bytes;
  op->buf = io->buf;
  op->targets = plan.add;
  copies_begin_write (c->map, place, plan.add);
  CRASH_POINT ("copies-write");
  if (plan.is_short) {
    c->figures.degraded_writes++;
    copies_note_short (c);
  }
  for (guint t = 0; t < COPIES_TARGETS; t++)
    if (plan.add >> t & 1)
      copies_part_begin (op, t, TRUE, op->buf, NULL);
  copies_update_wants (c);
}

static void
write_part_done (Op *op, const Part *part, int error) {
  FarCopies *c = op->copies;
  guint32 place;

  if (error == 0) {
    copies_set (c->map, op->place, part->target, COPY_VALID);
  } else {
    op->failed = TRUE;
    if (part->target == COPIES_LOCAL)
      op->error = error;
  }
  CRASH_POINT ("copies-written");
  if (op->under_way)
    return;
  if (!op->error && !copies_in_state (c->map, op->place, COPY_VALID) && !(op->targets & COPIES_LOCAL_BIT)) {
    op->targets |= COPIES_LOCAL_BIT; /* no donor has taken it */
    copies_part_begin (op, COPIES_LOCAL, TRUE, op->buf, NULL);
    copies_kick (c);
    return;
  }
  if (op->error) {
    copies_discard (c->map, op->place); /* the engine takes another place */
    copies_repair_wake (c);
  } else if (op->failed) {
    c->figures.degraded_writes++;
  }
  place = op->place;
  answer (op, op->error);
  copies_op_end (op);
  copies_repair_place (c, place);
}

/* ---- reads ---- */

guint32
copies_held (FarCopies *c, guint32 place) {
  const guint32 valid = copies_in_state (c->map, place, COPY_VALID), suspect = copies_in_state (c->map, place, COPY_SUSPECT);

  return valid | suspect;
}

int
copies_choose_source (FarCopies *c, guint32 mask, gboolean ahead, gsize bytes) {
  const gboolean explores = ++c->n_choices % EXPLORE == 0;
  int best = -1;
  gint64 best_us = 0;

  if (ahead && bytes >= BULK_BYTES && mask & COPIES_LOCAL_BIT && storage_is_reachable (c->local, &best_us))
    return COPIES_LOCAL;
  for (guint t = COPIES_TARGETS; t-- > 0;) {
    gint64 us = c->speeds[t].p50_us, since;

    if (!(mask >> t & 1) || (t != COPIES_LOCAL && !c->donors[t - 1].up))
      continue;
    if (t == COPIES_LOCAL && !storage_is_reachable (c->local, &since))
      us = G_MAXINT64; /* it may come back */
    if (explores && us != G_MAXINT64)
      us = -us;
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

static void
hedge_later (Op *op, gint64 at) {
  op->hedge_at = at;
  g_queue_push_tail_link (&op->copies->hedges, &op->hedge_link);
  arm_hedges (op->copies);
}

static void
ask (Op *op, guint target) {
  guint8 *bounce = op->can_hedge ? g_aligned_alloc (1, op->bytes, STORAGE_ALIGN) : NULL;

  copies_part_begin (op, target, FALSE, op->buf, bounce);
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
  answer (op, is_other ? 0 : op->error ? op->error : EIO);
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

static void
read_part_done (Op *op, Part *part, int error) {
  FarCopies *c = op->copies;
  const guint32 bit = 1u << part->target;

  if (!error && part->bounce && op->bytes <= SMALL_READ)
    note_speed (c, part);
  if (!op->io) { /* another copy was faster */
    copies_op_end (op);
    return;
  }
  if (error) {
    c->figures.read_elsewhere++;
    if (part->target == COPIES_LOCAL) {
      op->error = error;
      op->tried |= bit;
    } else {
      op->skipped |= bit; /* it may answer another time */
    }
    if (!op->under_way)
      read_go_on (op);
    return;
  }
  if (part->bounce)
    memcpy (op->io->buf, part->bounce, op->bytes);
  c->figures.hedges_won += op->under_way > 0;
  remember (op->io, op->tried, part->target);
  answer (op, 0);
  copies_op_end (op);
}

/* ---- a second copy is asked where the first is late ---- */

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
    hedge_no_more (op);
    if (!op->under_way)
      continue; /* it waits */
    target = c->hedges_under_way < HEDGES_MAX ? choose_of (c, op, op->tried | op->skipped | asked (op)) : -1;
    if (target >= 0) {
      c->figures.hedged++;
      c->hedges_under_way += !op->hedged;
      op->hedged = TRUE;
      ask (op, (guint)target);
    }
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

/* ---- all of them ---- */

static void
part_done (Part *part, int error) {
  Op *op = part->op;
  FarCopies *c = op->copies;

  part->under_way = FALSE;
  op->under_way--;
  if (c->closing)
    return; /* freed with all the others */
  if (part->target != COPIES_LOCAL) {
    if (!error && part->life != c->donors[part->target - 1].life)
      error = ESTALE; /* it is in an arena that is gone */
    if (error && part->is_write)
      c->donors[part->target - 1].failed_writes++;
  }
  switch (op->kind) {
  case OP_READ:
    read_part_done (op, part, error);
    break;
  case OP_WRITE:
    write_part_done (op, part, error);
    break;
  case OP_REPAIR:
  case OP_TRIM:
    copies_repair_part_done (op, part, error);
  }
  copies_kick (c); /* what was begun instead, or next */
}

void
copies_io_submit (Storage *storage, StorageIo *io) {
  FarCopies *c = (FarCopies *)storage;

  if (io->offset / PLACE_BYTES != (io->offset + io->bytes - 1) / PLACE_BYTES || (io->is_write && io->offset % PLACE_BYTES))
    storage_refuse (storage, io, EINVAL);
  else if (io->is_write)
    write_begin (c, io);
  else if (!copies_held (c, (guint32)(io->offset / PLACE_BYTES)))
    storage_refuse (storage, io, EIO);
  else
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
copies_io_clear (FarCopies *c) {
  source_clear (&c->hedge_source);
  source_clear (&c->wait_source);
  while (c->ops.head)
    op_free (c->ops.head->data);
}
