/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the engine asks for, carried out by one or several copies each; and writes. copies-read.c has the reads. */
#include "core/crash-point.h"
#include "far/copies-internal.h"

#include <errno.h>

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
    if (is_write)
      storage_spend (&op->copies->base, op->bytes);
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
op_free (Op *op) {
  FarCopies *c = op->copies;

  copies_hedge_no_more (op);
  source_clear (&op->check_source);
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

void
copies_answer (Op *op, int error) {
  StorageIo *io = op->io;

  op->io = NULL;
  copies_hedge_no_more (op);
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
  c->figures.degraded_writes += plan.is_short;
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
  copies_answer (op, op->error);
  copies_op_end (op);
  copies_repair_place (c, place);
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
    else if (error == ENOSPC && part->is_write)
      copies_set (c->map, op->place, part->target, COPY_NONE); /* who has a block for it says something else */
    if (error && part->is_write)
      c->donors[part->target - 1].failed_writes++;
  }
  switch (op->kind) {
  case OP_READ:
    copies_read_part_done (op, part, error);
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
    copies_read_begin (c, io);
}

void
copies_io_clear (FarCopies *c) {
  copies_read_clear (c);
  while (c->ops.head)
    op_free (c->ops.head->data);
}
