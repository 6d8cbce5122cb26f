/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "donor/lender.h"
#include "core/crash-point.h"
#include "donor/lender-internal.h"
#include "io/error.h"
#include "io/log-limit.h"
#include "io/source.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

/* Blocks that are cleared in one go: some hundred µs, which requests have to wait for. */
#define CLEAR_AT_ONCE 4u
#define CLEAR_AGAIN_MS 1000u
/* The host's memory is looked at so often; less often while nothing is lent. */
#define TICK_MS 1000u
#define IDLE_TICK_MS 10000u

struct export {
  struct lease_export at;
  Lender *lender;
};

guint64
lender_now_ms (void) {
  struct timespec now;

  clock_gettime (CLOCK_BOOTTIME, &now);
  return (guint64)now.tv_sec * 1000 + (guint64)now.tv_nsec / 1000000;
}

/* ---- clearing ---- */

static gboolean
clear_block (Lender *lender, guint64 block) {
  if (arena_clear (lender->arena, block)) {
    CRASH_POINT ("lender-cleared");
    lease_donor_zeroed (lender->leases, block);
    return TRUE;
  }
  lender->clear_failures++;
  if (log_limit_pass (&lender->log))
    g_warning ("%s: block %" G_GUINT64_FORMAT " of the arena can't be cleared: %s; it is tried again", lender->options.name,
               block, g_strerror (errno));
  return FALSE;
}

static gboolean on_clear (gpointer data);

static void
clear_later (Lender *lender, guint ms) {
  guint64 block;

  if (!lender->clear_source && lease_donor_next_dirty (lender->leases, &block))
    lender->clear_source = source_timeout (ms, on_clear, lender);
}

static gboolean
on_clear (gpointer data) {
  Lender *lender = data;
  guint64 block;
  gboolean ok = TRUE;

  source_clear (&lender->clear_source);
  for (guint i = 0; i < CLEAR_AT_ONCE && ok && lease_donor_next_dirty (lender->leases, &block); i++)
    ok = clear_block (lender, block);
  clear_later (lender, ok ? 0 : CLEAR_AGAIN_MS);
  return G_SOURCE_REMOVE;
}

/* ---- time ---- */

static gboolean on_tick (gpointer data);

static void
tick_later (Lender *lender) {
  struct lease_donor_figures figures;

  lease_donor_figures (lender->leases, &figures);
  source_clear (&lender->tick_source);
  lender->tick_source = source_timeout (figures.promised ? TICK_MS : IDLE_TICK_MS, on_tick, lender);
}

/* Ends what is to be ended, and has the size follow the host. */
static gboolean
on_tick (gpointer data) {
  Lender *lender = data;
  const unsigned ended = lease_donor_pass_time (lender->leases, lender_now_ms (), lender->options.ttl_ms);

  if (ended)
    g_message ("%s: %u leases were ended: nobody had asked for them for %" G_GUINT64_FORMAT " hours (--ttl)",
               lender->options.name, ended, lender->options.ttl_ms / 3600000);
  clear_later (lender, 0);
  lender_size_tick (lender);
  lender->ticked_at = g_get_monotonic_time ();
  tick_later (lender);
  return G_SOURCE_REMOVE;
}

/* Nothing is promised by what the host's memory was like a while ago. */
static void
look_now (Lender *lender) {
  if (lender->tick_source && g_get_monotonic_time () - lender->ticked_at >= TICK_MS * 1000)
    on_tick (lender);
}

/* ---- exports ---- */

static gpointer
open_export (gpointer exports, const char *identity, const char *name, guint64 *ret_bytes, const char **ret_why) {
  Lender *lender = exports;
  struct lease_export at;
  struct export *export;
  guint64 blocks;

  if (!lease_donor_export (lender->leases, identity, name, &at, &blocks, ret_why))
    return NULL;
  export = g_new (struct export, 1);
  *export = (struct export){ at, lender };
  g_ptr_array_add (lender->connections, export);
  *ret_bytes = blocks * ARENA_BLOCK_BYTES;
  return export;
}

static void
close_export (gpointer exports, gpointer data) {
  Lender *lender = exports;

  g_ptr_array_remove_fast (lender->connections, data);
  g_free (data);
}

static const guint8 *
look (gpointer exports, gpointer data, guint64 block) {
  Lender *lender = exports;
  const struct export *export = data;
  guint64 at;

  return lease_donor_look (lender->leases, &export->at, block, &at) ? arena_block (lender->arena, at) : NULL;
}

/* What the host has no memory for is given back at once: the borrower hears ENOSPC, and puts the page elsewhere. */
static guint8 *
fill (Lender *lender, const struct export *export, guint64 block, guint64 at, int *ret_errno) {
  CRASH_POINT ("lender-taken");
  if (arena_fill (lender->arena, at))
    return arena_block (lender->arena, at);
  lender->fill_failures++;
  if (log_limit_pass (&lender->log))
    g_warning ("%s: the host has no memory for block %" G_GUINT64_FORMAT
               " of the arena: %s; lower the arena's size, or raise the reserve",
               lender->options.name, at, g_strerror (errno));
  lease_donor_drop (lender->leases, &export->at, block);
  clear_later (lender, 0);
  *ret_errno = ENOSPC;
  return NULL;
}

static guint8 *
take (gpointer exports, gpointer data, guint64 block, int *ret_errno) {
  Lender *lender = exports;
  const struct export *export = data;
  guint64 at;
  bool fresh;

  for (guint i = 0; i < 2; i++)
    switch (lease_donor_take (lender->leases, &export->at, block, &at, &fresh)) {
    case LEASE_TAKEN:
      return fresh ? fill (lender, export, block, at, ret_errno) : arena_block (lender->arena, at);
    case LEASE_TAKE_ZERO:
      if (clear_block (lender, at))
        continue;
      *ret_errno = ENOSPC;
      return NULL;
    case LEASE_TAKE_NO_LEVEL:
      *ret_errno = ENOSPC;
      return NULL;
    case LEASE_TAKE_STALE:
      *ret_errno = ESTALE;
      return NULL;
    case LEASE_TAKE_BAD:
      *ret_errno = EINVAL;
      return NULL;
    }
  *ret_errno = ENOSPC;
  return NULL;
}

static void
drop (gpointer exports, gpointer data, guint64 block) {
  Lender *lender = exports;
  const struct export *export = data;

  lease_donor_drop (lender->leases, &export->at, block);
  clear_later (lender, 0);
}

static gsize
lease (gpointer exports, const char *identity, const guint8 *bytes, gsize n, guint8 *ret_answer) {
  Lender *lender = exports;
  struct lease_request request;
  struct lease_answer answer;

  if (!lease_request_decode (bytes, n, &request))
    return 0;
  if (request.verb == LEASE_GRANT)
    look_now (lender);
  lease_donor_step (lender->leases, lender_now_ms (), identity, &lender->options.limits, &request, &answer);
  CRASH_POINT ("lender-stepped");
  lease_answer_encode (&answer, ret_answer);
  clear_later (lender, 0); /* an END, or evidence */
  if (request.verb == LEASE_GRANT && lender->tick_source)
    tick_later (lender);
  return LEASE_ANSWER_BYTES;
}

const ExportsKind lender_exports
    = { .open = open_export, .close = close_export, .look = look, .take = take, .drop = drop, .lease = lease };

/* ---- connections that are over ---- */

gboolean
lender_export_is_old (gpointer data, const LenderOld *old) {
  const struct export *export = data;

  return export->at.lease == old->lease && export->at.epoch < old->below_epoch;
}

static bool
fence (void *data, uint64_t lease_id, uint64_t below_epoch) {
  Lender *lender = data;
  const LenderOld old = { lease_id, below_epoch };

  if (lender->close_old)
    lender->close_old (lender->fence_data, &old);
  /* Not believed: a connection that was left open would write into what is another lease's then. */
  for (guint i = 0; i < lender->connections->len; i++)
    if (lender_export_is_old (g_ptr_array_index (lender->connections, i), &old))
      return false;
  return true;
}

void
lender_set_fence (Lender *lender, void (*close_old) (gpointer data, const LenderOld *old), gpointer data) {
  lender->close_old = close_old;
  lender->fence_data = data;
}

guint
lender_connections (const Lender *lender, guint64 lease_id) {
  guint n = 0;

  for (guint i = 0; i < lender->connections->len; i++)
    n += ((const struct export *)g_ptr_array_index (lender->connections, i))->at.lease == lease_id;
  return n;
}

/* ---- the operator ---- */

gboolean
lender_revoke (Lender *lender, guint64 lease_id, guint64 level, GError **error) {
  if (lease_donor_revoke (lender->leases, lease_id, level, lender_now_ms () + lender->options.revoke_ms)) {
    lender_size_not_ours (lender, lease_id);
    return TRUE;
  }
  g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_USAGE, "there is no lease %016" G_GINT64_MODIFIER "x; see the command leases",
               lease_id);
  return FALSE;
}

gboolean
lender_forget (Lender *lender, guint64 lease_id, GError **error) {
  if (lease_donor_forget (lender->leases, lease_id)) {
    g_message ("%s: lease %016" G_GINT64_MODIFIER "x was forgotten, with what was in it: the operator has said so",
               lender->options.name, lease_id);
    clear_later (lender, 0);
    return TRUE;
  }
  g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_USAGE, "there is no lease %016" G_GINT64_MODIFIER "x; see the command leases",
               lease_id);
  return FALSE;
}

const struct lease_donor *
lender_leases (const Lender *lender) {
  return lender->leases;
}

void
lender_figures (Lender *lender, LenderFigures *ret_figures) {
  lender_size_figures (lender, ret_figures);
  ret_figures->memory_bytes = arena_bytes (lender->arena);
  ret_figures->locked = arena_is_locked (lender->arena);
  ret_figures->fill_failures = lender->fill_failures;
  ret_figures->clear_failures = lender->clear_failures;
  ret_figures->connections = lender->connections->len;
  ret_figures->now_ms = lender_now_ms ();
}

/* ---- begin and end ---- */

Lender *
lender_new (const LenderOptions *options, Arena *arena, void *table, gsize table_bytes, guint64 max_blocks, GError **error) {
  g_autoptr (Lender) lender = g_new0 (Lender, 1);
  const struct lease_donor_ops ops = { fence, lender };
  const char *why;
  guint64 hash_key;

  lender->options = *options;
  lender->arena = arena;
  lender->connections = g_ptr_array_new ();
  if (getrandom (&hash_key, sizeof hash_key, 0) != (gssize)sizeof hash_key) {
    domybs_error_errno (error, "no random numbers");
    return NULL;
  }
  lender->leases = lease_donor_open (table, table_bytes, &options->geometry, 0, hash_key, &ops, &why);
  if (!lender->leases) {
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_CORRUPT, "this program can't go on from the lease table: %s", why);
    return NULL;
  }
  lender_size_begin (lender, max_blocks);
  return g_steal_pointer (&lender);
}

void
lender_start (Lender *lender) {
  lender->ticked_at = g_get_monotonic_time ();
  tick_later (lender);
  clear_later (lender, 0);
}

void
lender_free (Lender *lender) {
  source_clear (&lender->tick_source);
  source_clear (&lender->clear_source);
  lender_size_end (lender);
  if (lender->leases)
    lease_donor_close (lender->leases);
  g_ptr_array_free (lender->connections, TRUE);
  arena_free (lender->arena);
  g_free (lender);
}
