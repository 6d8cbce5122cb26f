/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Re-protection: copies that are missing are made, and those that nobody needs are given back, by going over the map until
 * there is nothing to do. */
#include "core/crash-point.h"
#include "far/copies-internal.h"

#include <errno.h>

/* The wear budget is looked at again after so long at the latest. */
#define WEAR_WAIT_MAX_MS 60000u
/* At a time: enough for a fast network, few enough that what the guest waits for is not behind a long row. */
#define REPAIRS_MAX 4u
#define TRIMS_MAX 32u
/* After a failure: time for who has failed to be known as unreachable, or for another way to be found. */
#define PAUSE_US 500000
/* Places that are looked at in one turn of the main loop. */
#define SCAN_PLACES 8192u
/* What was read is looked at in such pieces, in a turn of the main loop each: some 70 µs. */
#define CHECK_BYTES ((gsize)256 << 10)
/* So much may be read in a burst. */
#define BURST_BYTES ((gint64)16 << 20)

static void pump (FarCopies *c);

static gboolean
on_repair (gpointer data) {
  FarCopies *c = data;

  source_clear (&c->repair_source);
  pump (c);
  copies_kick (c);
  return G_SOURCE_REMOVE;
}

static void
pump_later (FarCopies *c, guint ms) {
  if (!c->repair_source && !c->closing)
    c->repair_source = source_timeout (ms, on_repair, c);
}

/* There may be something left of the wear budget again, or storage may be back. */
static gboolean
on_wear (gpointer data) {
  FarCopies *c = data;

  source_clear (&c->wear_source);
  copies_repair_wake (c);
  return G_SOURCE_REMOVE;
}

static void
look_again_for_storage (FarCopies *c) {
  if (c->wear_wait_us && !c->wear_source && !c->closing)
    c->wear_source = source_timeout ((guint)MIN (c->wear_wait_us / 1000 + 1, WEAR_WAIT_MAX_MS), on_wear, c);
}

void
copies_repair_wake (FarCopies *c) {
  c->scan_wanted = TRUE;
  pump_later (c, 0);
}

static void
failed (FarCopies *c) {
  c->figures.repairs_failed++;
  c->pause_until = g_get_monotonic_time () + PAUSE_US;
  c->scan_wanted = TRUE;
}

/* ---- one place ---- */

static void
drop (FarCopies *c, guint32 place, guint32 targets) {
  Op *op = copies_op_new (c, OP_TRIM, place);

  op->targets = targets;
  c->trims_under_way++;
  for (guint t = 1; t < COPIES_TARGETS; t++)
    if (targets >> t & 1) {
      copies_set (c->map, place, t, COPY_OLD);
      CRASH_POINT ("copies-trim");
      copies_part_trim (op, t);
    }
}

static void
end (Op *op, gboolean ok) {
  FarCopies *c = op->copies;
  const guint32 place = op->place;

  if (op->kind == OP_REPAIR)
    c->repairs_under_way--;
  else
    c->trims_under_way--;
  if (!ok)
    failed (c);
  copies_op_end (op);
  copies_repair_place (c, place); /* what is to come after that */
  pump_later (c, 0);
}

/* Whether there is a good copy somewhere that may be had again: then damaged ones are no sources. */
static gboolean
has_good (FarCopies *c, guint32 place) {
  const struct copies_policy *policy = copies_policy_now (c);
  const guint32 valid = copies_in_state (c->map, place, COPY_VALID);

  for (guint d = 0; d < policy->n_donors; d++)
    if ((valid >> (1 + d) & 1) && policy->donors[d] != COPIES_DONOR_GONE)
      return TRUE;
  return valid & COPIES_LOCAL_BIT;
}

/* TRUE: it reads. */
static gboolean
read_source (Op *op) {
  FarCopies *c = op->copies;
  gint64 since;
  /* It would hold this repair, and with a few more all others, until storage is back. */
  const guint32 barred = op->tried | (storage_is_reachable (c->local, &since) ? 0 : COPIES_LOCAL_BIT);
  const guint32 valid = copies_in_state (c->map, op->place, COPY_VALID),
                suspect = copies_in_state (c->map, op->place, COPY_SUSPECT);
  int source = copies_choose_source (c, valid & ~barred, TRUE, op->bytes);

  op->source_state = COPY_VALID;
  if (source < 0 && !has_good (c, op->place)) {
    source = copies_choose_source (c, suspect & ~barred & ~op->targets, TRUE, op->bytes);
    op->source_state = COPY_SUSPECT;
  }
  if (source < 0)
    return FALSE;
  op->reading = TRUE;
  op->source = (guint)source;
  copies_part_begin (op, (guint)source, FALSE, op->buf, NULL);
  return TRUE;
}

static gboolean
add (FarCopies *c, guint32 place, guint32 targets) {
  Op *op = copies_op_new (c, OP_REPAIR, place);

  op->targets = targets;
  op->buf = g_aligned_alloc (1, PLACE_BYTES, STORAGE_ALIGN);
  c->repairs_under_way++;
  if (read_source (op)) {
    c->tokens -= (gint64)PLACE_BYTES;
    /* The room is taken now: others begin before this one writes. */
    for (guint t = 1; t < COPIES_TARGETS; t++)
      if ((targets >> t & 1) && copies_get (c->map, place, t) == COPY_NONE)
        copies_set (c->map, place, t, COPY_OLD);
    copies_update_wants (c);
    return TRUE;
  }
  c->repairs_under_way--;
  copies_op_end (op);
  return FALSE; /* its only copies can't be reached: when they can, everything is looked at again */
}

static void
write_targets (Op *op) {
  FarCopies *c = op->copies;

  for (guint t = 0; t < COPIES_TARGETS; t++)
    if (op->targets >> t & 1) {
      copies_set (c->map, op->place, t, COPY_OLD);
      CRASH_POINT ("copies-repair");
      copies_part_begin (op, t, TRUE, op->buf, NULL);
    }
  copies_update_wants (c);
}

/* What was read is not what was written: another copy is read. Where none is good a damaged one is better than none, for most
 * of its pages are good; reads find out which. */
static void
is_damaged (Op *op) {
  FarCopies *c = op->copies;

  const gboolean was_suspect = op->source_state == COPY_SUSPECT;

  if (!was_suspect)
    copies_damaged (c, op->place, op->source);
  if (read_source (op))
    return;
  op->source_state = COPY_SUSPECT;
  if (was_suspect && !has_good (c, op->place))
    write_targets (op);
  else
    end (op, TRUE); /* then it is looked at as what it is now */
}

/* A copy is never made of what nobody has looked at: damage would spread to where the good one was. */
static gboolean
on_check (gpointer data) {
  Op *op = data;
  FarCopies *c = op->copies;
  const gsize from = op->checked;

  if (op->generation != c->generations[op->place]) {
    source_clear (&op->check_source);
    end (op, TRUE);
  } else if (!storage_is_sound (&c->base, op->offset, op->buf, from, from + CHECK_BYTES)) {
    source_clear (&op->check_source);
    is_damaged (op);
  } else {
    op->checked += CHECK_BYTES;
    if (op->checked < op->bytes)
      return G_SOURCE_CONTINUE;
    source_clear (&op->check_source);
    op->source_state = COPY_VALID; /* also of one that was suspect */
    write_targets (op);
  }
  copies_kick (c);
  return G_SOURCE_REMOVE;
}

static void
read_part_done (Op *op, const Part *part, int error) {
  FarCopies *c = op->copies;
  const gboolean is_other = op->generation != c->generations[op->place];

  op->reading = FALSE;
  op->tried |= 1u << part->target;
  if (error == EIO && !is_other && part->target == COPIES_LOCAL)
    copies_damaged (c, op->place, COPIES_LOCAL); /* what can't be read protects nothing */
  if (error && !is_other && read_source (op))
    return;
  if (error || is_other) {
    end (op, error == 0);
    return;
  }
  op->checked = 0;
  op->check_source = source_timeout (0, on_check, op);
}

static void
repair_part_done (Op *op, const Part *part, int error) {
  FarCopies *c = op->copies;
  const gboolean is_other = op->generation != c->generations[op->place];

  if (op->reading) {
    read_part_done (op, part, error);
    return;
  }
  if (error) {
    op->failed = TRUE;
  } else if (!is_other) {
    copies_set (c->map, op->place, part->target, op->source_state);
    c->figures.repaired_bytes += op->bytes;
    CRASH_POINT ("copies-repaired");
  }
  if (op->under_way == 0)
    end (op, !op->failed);
}

void
copies_repair_part_done (Op *op, Part *part, int error) {
  FarCopies *c = op->copies;

  if (op->kind == OP_REPAIR) {
    repair_part_done (op, part, error);
    return;
  }
  if (error) {
    op->failed = TRUE;
  } else {
    copies_set (c->map, op->place, part->target, COPY_NONE);
    c->figures.moved_back++;
  }
  if (op->under_way)
    return;
  copies_update_wants (c);
  end (op, !op->failed);
}

/* ---- all of them ---- */

/* Bytes that may be read: grow with time. */
static gboolean
has_tokens (FarCopies *c, guint *ret_wait_ms) {
  const gint64 now = g_get_monotonic_time (), rate = (gint64)c->options.repair_rate,
               most = MAX (BURST_BYTES, (gint64)PLACE_BYTES);

  c->tokens = MIN (most, c->tokens + (gint64)((double)(now - c->tokens_at) * (double)rate / 1e6));
  c->tokens_at = now;
  if (c->tokens >= 0)
    return TRUE;
  *ret_wait_ms = (guint)MIN (1000, -c->tokens * 1000 / rate + 1);
  return FALSE;
}

/* What is damaged or lost, and nobody wants any more. */
static gboolean
is_over (FarCopies *c, guint32 place) {
  return (copies_is_lost (c->map, place)
          || (copies_in_state (c->map, place, COPY_SUSPECT) && !copies_in_state (c->map, place, COPY_VALID)))
         && !g_hash_table_contains (c->busy, GUINT_TO_POINTER (place)) && !storage_is_wanted (&c->base, place * PLACE_BYTES);
}

/* FALSE: no more can be begun now. */
static gboolean
look_at (FarCopies *c, const struct copies_policy *policy, guint32 place, guint *ret_wait_ms) {
  struct copies_plan plan;

  if (is_over (c, place)) {
    c->generations[place]++;
    copies_discard (c->map, place);
  }

  copies_plan_repair (policy, c->map, place, &plan);
  if (policy->local_down && (plan.add || plan.is_short)) /* nobody says when storage is back */
    c->wear_wait_us = c->wear_wait_us ? MIN (c->wear_wait_us, G_USEC_PER_SEC) : G_USEC_PER_SEC;
  if (!plan.add && !plan.drop)
    return TRUE;
  if (g_hash_table_contains (c->busy, GUINT_TO_POINTER (place)))
    return TRUE; /* what is written is looked at when that has ended; what we have begun, in the next round */
  if (plan.drop) {
    if (c->trims_under_way >= TRIMS_MAX)
      return FALSE;
    drop (c, place, plan.drop);
    c->scan_found = TRUE;
    return TRUE; /* and what is to be added, in the next round */
  }
  if (c->pass == 0 && copies_counted (policy, c->map, place) > 1) {
    c->scan_left = TRUE;
    return TRUE;
  }
  if ((plan.add & COPIES_LOCAL_BIT) && copies_can_wait_for_storage (policy, c->map, place)) {
    const guint64 wait_us = storage_spend_wait_us (&c->base, PLACE_BYTES);

    /* What is in no danger is not worth more wear than was allowed. */
    if (wait_us) {
      c->wear_wait_us = c->wear_wait_us ? MIN (c->wear_wait_us, wait_us) : wait_us;
      plan.add &= ~COPIES_LOCAL_BIT;
      if (!plan.add)
        return TRUE;
    }
  }
  if (c->repairs_under_way >= REPAIRS_MAX || !has_tokens (c, ret_wait_ms))
    return FALSE;
  c->scan_found |= add (c, place, plan.add);
  return TRUE;
}

/* Goes on with the round, or begins one if something has changed. */
static void
pump (FarCopies *c) {
  const gint64 now = g_get_monotonic_time ();
  const struct copies_policy *policy = copies_policy_now (c);
  guint wait_ms = 0;

  if (c->closing || c->ending || !storage_is_settled (&c->base))
    return;
  if (c->pause_until > now) {
    pump_later (c, (guint)((c->pause_until - now) / 1000 + 1));
    return;
  }
  if (!c->scanning) {
    if (!c->scan_wanted)
      return;
    c->scanning = TRUE;
    c->scan_wanted = c->scan_found = c->scan_left = FALSE;
    c->wear_wait_us = 0;
    c->cursor = c->pass = 0;
  }
  for (guint n = 0; n < SCAN_PLACES; n++) {
    if (c->cursor == c->options.n_places) {
      c->cursor = 0;
      if (c->pass++ == 0 && c->scan_left)
        continue;
      /* What was begun is looked at again when it has ended; what could not be, when something changes. */
      c->scanning = FALSE;
      c->scan_wanted = c->scan_wanted || c->scan_found;
      copies_update_wants (c);
      if (c->scan_wanted && !c->repairs_under_way && !c->trims_under_way)
        pump_later (c, 20);
      else
        look_again_for_storage (c);
      return;
    }
    if (!look_at (c, policy, c->cursor, &wait_ms)) {
      if (wait_ms)
        pump_later (c, wait_ms);
      return; /* else an end of one of them goes on */
    }
    c->cursor++;
    policy = copies_policy_now (c); /* there is less room */
  }
  pump_later (c, 0);
}

void
copies_repair_place (FarCopies *c, guint32 place) {
  const struct copies_policy *policy = copies_policy_now (c);
  struct copies_plan plan;
  guint wait_ms;

  copies_plan_repair (policy, c->map, place, &plan);
  if (!plan.add && !plan.drop)
    return;
  if (c->scanning || c->pause_until > g_get_monotonic_time () || c->ending || !look_at (c, policy, place, &wait_ms))
    copies_repair_wake (c);
  else
    look_again_for_storage (c);
}

void
copies_repair_clear (FarCopies *c) {
  source_clear (&c->repair_source);
  source_clear (&c->wear_source);
}
