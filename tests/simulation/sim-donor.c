/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A donor: the product's table, and a page server of one thread that writes into an arena piece by piece. */
#include "core/crash-point.h"
#include "core/lease-donor-internal.h"
#include "world.h"

#include <string.h>

#define BYTES_GEOMETRY(world) ((struct lease_donor_geometry){ .n_blocks = (world)->plan.blocks, .n_leases = LEASES_MAX })

static const struct lease_donor_limits limits_of_hosts = { .leases = 8, .blocks = BLOCKS_MAX };
static const struct lease_donor_limits limits_of_liars = { .leases = 2, .blocks = 3 };

/* A stop within the time of a lease counts for its ttl. */
#define STOP_MS_MAX 9000u

/* ---- deaths within a call ---- */

static struct world *the_world; /* that crash_point is in */
/* Who dies while it opens its table would take memory along: it lives on, and leaves the state of that instant. */
static void *snapshot;
static size_t snapshot_bytes;

void
crash_point (const char *name) {
  struct world *world = the_world;

  struct sim_donor *donor = world ? world->guarded : NULL;

  if (!donor
      || !(donor->store_to_die_at ? strcmp (donor->store_to_die_at, name) == 0
                                  : donor->stores_to_live && --donor->stores_to_live == 0))
    return;
  if (world->points)
    g_hash_table_add (world->points, (gpointer)name);
  donor->store_to_die_at = NULL;
  if (!donor->table) {
    snapshot = g_memdup2 (donor->state, snapshot_bytes);
    return;
  }
  longjmp (world->death, 1);
}

/* A call of the table, in which the worker may die. False: it did. */
#define GUARDED(world, donor, call)                                                                                            \
  (before_call (world, donor),                                                                                                 \
   setjmp ((world)->death) == 0 ? ((call), after_call (world, donor), TRUE) : (died_within (world, donor), FALSE))

static void
before_call (struct world *world, struct sim_donor *donor) {
  the_world = world;
  world->guarded = donor;
  donor->n_live = 0;
  for (uint32_t slot = 0; donor->table && slot < LEASES_MAX; slot++)
    if (lease_donor_lease (donor->table, slot, &donor->live[donor->n_live]))
      donor->n_live++;
}

/* Whether a lease that is no more may be no more: somebody who may has ended it. */
static gboolean
may_have_ended (struct world *world, struct sim_donor *donor, const struct lease_info *info) {
  g_autofree char *key
      = g_strdup_printf ("%u.%" G_GUINT64_FORMAT ".%" G_GUINT64_FORMAT, donor->number, donor->arenas, info->lease);
  uint64_t vm_id;

  if (info->level == 0 || g_hash_table_contains (world->forgotten, key) || strcmp (info->identity, "liar") == 0)
    return TRUE;
  memcpy (&vm_id, info->vm, sizeof vm_id);
  for (uint32_t i = 0; i < world->n_vms; i++)
    if (world->vms[i] && world->vms[i]->vm_id == vm_id && (!world->vms[i]->alive || world->vms[i]->ending))
      return TRUE;
  return world->plan.ttl_ms && info->silent_ms + STOP_MS_MAX + TICK_MS >= world->plan.ttl_ms;
}

static void
after_call (struct world *world, struct sim_donor *donor) {
  world->guarded = NULL;
  if (!donor->table)
    return;
  for (uint32_t i = 0; i < donor->n_live; i++) {
    gboolean is_there = FALSE;
    struct lease_info info;

    for (uint32_t slot = 0; slot < LEASES_MAX && !is_there; slot++)
      is_there = lease_donor_lease (donor->table, slot, &info) && info.lease == donor->live[i].lease;
    if (!is_there && !may_have_ended (world, donor, &donor->live[i]))
      g_error ("at %" G_GUINT64_FORMAT ": donor %u has ended lease %" G_GUINT64_FORMAT ", level %" G_GUINT64_FORMAT
               ", of a VM that is alive, and nobody has ordered it",
               world->now, donor->number, donor->live[i].lease, donor->live[i].level);
  }
}

static void
died_within (struct world *world, struct sim_donor *donor) {
  world->guarded = NULL;
  donor->stores_to_live = 0;
  world_trace (world, "donor %u dies within a call", donor->number);
  donor_die (world, donor);
}

/* ---- life ---- */

static gboolean
stop_conn (struct world *world, struct sim_donor *donor, uint32_t number) {
  struct conn *conn = world_conn (world, number);

  if (conn->piece && world->plan.slow_fence && world_below (world, 3)) {
    conn->closing = TRUE;
    return FALSE;
  }
  conn->piece = FALSE;
  world_close (world, number, BACK);
  return TRUE;
}

static bool
fence (void *data, uint64_t lease, uint64_t below_epoch) {
  struct sim_donor *donor = data;
  struct world *world = the_world;
  gboolean over = TRUE;

  for (uint32_t i = 1; i < world->conns->len; i++) {
    const struct conn *conn = world_conn (world, i);

    if (conn && conn->server_open && conn->donor == donor->number && conn->export.lease == lease
        && conn->export.epoch < below_epoch)
      over &= stop_conn (world, donor, i);
  }
  world->busy += !over;
  return over;
}

void
donor_new_arena (struct world *world, struct sim_donor *donor) {
  const struct lease_donor_geometry geometry = BYTES_GEOMETRY (world);
  uint8_t incarnation[LEASE_ID_BYTES] = { 'a', 'r' };
  const uint64_t random[1] = { world_below (world, UINT64_MAX) };

  the_world = world;
  memcpy (incarnation + 8, random, sizeof random);
  memset (donor->state, 0, lease_donor_state_bytes (&geometry));
  lease_donor_format (donor->state, &geometry, incarnation);
  memset (donor->arena, 0, sizeof donor->arena);
  donor->highest_number = 0;
  donor->arenas++;
}

void
donor_make (struct world *world, uint32_t number) {
  const struct lease_donor_geometry geometry = BYTES_GEOMETRY (world);
  struct sim_donor *donor = &world->donors[number];

  donor->number = number;
  donor->state = g_malloc (lease_donor_state_bytes (&geometry));
  donor->limit = world->plan.blocks;
  donor->liar = world->plan.liars > 1 && number == 0;
  donor_new_arena (world, donor);
}

void
donor_start (struct world *world, struct sim_donor *donor) {
  const struct lease_donor_geometry geometry = BYTES_GEOMETRY (world);
  const struct lease_donor_ops ops = { .fence = fence, .data = donor };
  const char *why = NULL;

  if (donor->running)
    return;
  snapshot_bytes = lease_donor_state_bytes (&geometry);
  before_call (world, donor);
  donor->table
      = lease_donor_open (donor->state, snapshot_bytes, &geometry, donor->limit, world_below (world, UINT64_MAX), &ops, &why);
  if (!donor->table)
    g_error ("at %" G_GUINT64_FORMAT ": donor %u can't go on: %s", world->now, donor->number, why);
  if (snapshot) {
    memcpy (donor->state, snapshot, snapshot_bytes);
    g_clear_pointer (&snapshot, g_free);
    died_within (world, donor);
    return;
  }
  world->guarded = NULL;
  donor->running = TRUE;
  donor->life++;
  world_at (world, world->now + TICK_MS, EVENT_DONOR_TICK, donor->number, donor->life);
}

void
donor_die (struct world *world, struct sim_donor *donor) {
  lease_donor_close (donor->table);
  donor->table = NULL;
  donor->running = FALSE;
  donor->life++;
  donor->deaths++;
  for (uint32_t i = 1; i < world->conns->len; i++) {
    struct conn *conn = world_conn (world, i);

    if (conn && conn->server_open && conn->donor == donor->number) {
      conn->piece = FALSE; /* the kernel has nothing under way: it was reaped */
      world_close (world, i, BACK);
    }
  }
  world_at (world, world->now + 1 + world_below (world, 300), EVENT_DONOR_START, donor->number, donor->life);
}

/* ---- the page server ---- */

static void
zero_block (struct sim_donor *donor, uint64_t block) {
  memset (donor->arena[block], 0, sizeof donor->arena[block]);
  (void)lease_donor_zeroed (donor->table, block);
}

/* As the product's page server does for each piece that it has received. */
static int
take (struct sim_donor *donor, const struct conn *conn, uint64_t block, uint64_t *ret_arena_block) {
  bool fresh;

  for (;;) {
    switch (lease_donor_take (donor->table, &conn->export, block, ret_arena_block, &fresh)) {
    case LEASE_TAKEN:
      return 0;
    case LEASE_TAKE_ZERO:
      zero_block (donor, *ret_arena_block);
      continue;
    case LEASE_TAKE_NO_LEVEL:
      return ENOSPC;
    default:
      return ESTALE;
    }
  }
}

static void
reply (struct world *world, uint32_t number, const struct message *to, int error) {
  struct message message = *to;

  message.error = error;
  world_send (world, number, BACK, &message);
}

/* The one place at which something is written: by the epoch in force, into a block of its lease. */
static void
write_page (struct world *world, struct sim_donor *donor, const struct conn *conn, uint64_t block, uint32_t page,
            uint64_t value) {
  struct lease_info info = { 0 };

  for (uint32_t slot = 0; slot < LEASES_MAX; slot++)
    if (lease_donor_lease (donor->table, slot, &info) && info.lease == conn->export.lease)
      break;
  if (info.lease != conn->export.lease || info.epoch != conn->export.epoch)
    g_error ("at %" G_GUINT64_FORMAT ": donor %u lets epoch %" G_GUINT64_FORMAT " of lease %" G_GUINT64_FORMAT
             " write, %" G_GUINT64_FORMAT " is in force",
             world->now, donor->number, conn->export.epoch, conn->export.lease, info.epoch);
  if (info.session != conn->session && !donor->liar) /* with a liar a borrower's sessions are what the lies make of them */
    g_error ("at %" G_GUINT64_FORMAT ": donor %u lets session %" G_GUINT64_FORMAT " write, %" G_GUINT64_FORMAT " is in force",
             world->now, donor->number, conn->session, info.session);
  donor->arena[block][page] = value;
}

void
donor_piece (struct world *world, uint32_t number) {
  struct conn *conn = world_conn (world, number);
  struct sim_donor *donor = &world->donors[conn->donor];
  int error = 0;
  uint64_t block;

  if (!conn->piece)
    return;
  if (!GUARDED (world, donor, error = take (donor, conn, conn->write.block, &block)))
    return;
  conn = world_conn (world, number);
  if (!error)
    write_page (world, donor, conn, block, conn->next_page, conn->write.pages[conn->next_page]);
  if (!error && ++conn->next_page < PAGES) {
    conn->busy_until = world->now + (world_below (world, 12) ? world_below (world, 2) : world_below (world, 800));
    conn->pending++;
    world_at (world, conn->busy_until, EVENT_PIECE, number, 0);
    return;
  }
  conn->piece = FALSE;
  world->writes++;
  if (conn->closing)
    world_close (world, number, BACK);
  else
    reply (world, number, &conn->write, error);
}

/* Nobody waits any more for what this request brings. */
static gboolean
is_settled (const struct world *world, const struct sim_donor *donor, const struct lease_request *request) {
  uint64_t vm_id;

  memcpy (&vm_id, request->vm, sizeof vm_id);
  for (uint32_t i = 0; i < world->n_vms; i++) {
    const struct channel *channel = &world->vms[i]->channels[donor->number];

    if (world->vms[i]->vm_id == vm_id && channel->settled_session == request->session && request->seq <= channel->settled_seq)
      return TRUE;
  }
  return FALSE;
}

/* A request has changed a level only if none that was made later has done so or was answered, and has not raised it against a
 * revoke. */
static void
judge_level (struct world *world, struct sim_donor *donor, const struct lease_request *request) {
  const struct lease_info *before = NULL;
  struct lease_info now = { 0 };
  g_autofree char *key = NULL;

  for (uint32_t i = 0; i < donor->n_live && !before; i++)
    if (donor->live[i].lease == request->lease)
      before = &donor->live[i];
  for (uint32_t slot = 0; slot < LEASES_MAX && now.lease != request->lease; slot++)
    if (!lease_donor_lease (donor->table, slot, &now))
      now.lease = 0;
  if (!before || now.lease != request->lease || now.level == before->level)
    return;
  if (before->revoke && now.level > before->level)
    g_error ("at %" G_GUINT64_FORMAT ": donor %u raises a level that it has revoked", world->now, donor->number);
  if (!donor->liar && is_settled (world, donor, request))
    g_error ("at %" G_GUINT64_FORMAT ": donor %u changes a level by a request that nobody waits for any more", world->now,
             donor->number);
  key = g_strdup_printf ("%u.%" G_GUINT64_FORMAT ".%" G_GUINT64_FORMAT ".%" G_GUINT64_FORMAT, donor->number, donor->arenas,
                         now.lease, now.epoch);
  if (GPOINTER_TO_SIZE (g_hash_table_lookup (world->seqs, key)) > request->seq)
    g_error ("at %" G_GUINT64_FORMAT ": donor %u: an old request changes the level of lease %" G_GUINT64_FORMAT, world->now,
             donor->number, now.lease);
  g_hash_table_insert (world->seqs, g_steal_pointer (&key), GSIZE_TO_POINTER (request->seq + 1));
}

/* An epoch is one session's, and sessions of a lease come in their order. */
static void
judge_session (struct world *world, struct sim_donor *donor, uint64_t session, const struct lease_answer *answer) {
  char *of_lease = g_strdup_printf ("%u.%" G_GUINT64_FORMAT ".%" G_GUINT64_FORMAT, donor->number, donor->arenas, answer->lease);
  char *of_epoch = g_strdup_printf ("%s.%" G_GUINT64_FORMAT, of_lease, answer->epoch);
  const gsize other = GPOINTER_TO_SIZE (g_hash_table_lookup (world->sessions, of_epoch));

  if (other && other != session)
    g_error ("at %" G_GUINT64_FORMAT ": donor %u tells two sessions one epoch", world->now, donor->number);
  if (GPOINTER_TO_SIZE (g_hash_table_lookup (world->sessions, of_lease)) > session)
    g_error ("at %" G_GUINT64_FORMAT ": donor %u attaches a session that is over", world->now, donor->number);
  g_hash_table_insert (world->sessions, of_lease, GSIZE_TO_POINTER (session));
  g_hash_table_insert (world->sessions, of_epoch, GSIZE_TO_POINTER (session));
}

static void
hear_lease (struct world *world, struct sim_donor *donor, uint32_t number, const struct message *message) {
  const struct conn *conn = world_conn (world, number);
  struct message back = { .kind = SAY_LEASE };
  struct lease_answer answer;

  donor_told (world, donor, vm_identity (world, conn->vm), message, &answer);
  if (!donor->running)
    return;
  if (donor->liar && world_below (world, 3) == 0) {
    uint64_t *const numbers[]
        = { &answer.lease, &answer.epoch, &answer.level, &answer.used, &answer.revoke, &answer.revoke_level, &answer.seq };

    answer.verdict = (enum lease_verdict)world_below (world, LEASE_IN_USE + 1);
    for (uint64_t n = world_below (world, 4); n; n--)
      *numbers[world_below (world, G_N_ELEMENTS (numbers))] = world_below (world, world_below (world, 2) ? 8 : UINT64_MAX);
  }
  lease_answer_encode (&answer, back.bytes);
  world_send (world, number, BACK, &back);
}

void
donor_told (struct world *world, struct sim_donor *donor, const char *identity, const struct message *message,
            struct lease_answer *ret_answer) {
  const struct lease_donor_limits *limits = strcmp (identity, "liar") == 0 ? &limits_of_liars : &limits_of_hosts;
  struct lease_request request;

  if (!lease_request_decode (message->bytes, LEASE_REQUEST_BYTES, &request))
    g_error ("a request is none");
  if (GUARDED (world, donor, lease_donor_step (donor->table, world->now, identity, limits, &request, ret_answer))) {
    judge_level (world, donor, &request);
    if (ret_answer->verdict == LEASE_OK && ret_answer->lease)
      judge_session (world, donor, request.session, ret_answer);
  }
}

static void
hear_data (struct world *world, struct sim_donor *donor, uint32_t number, const struct message *message) {
  struct conn *conn = world_conn (world, number);
  struct message back = *message;
  uint64_t block, blocks;
  const char *why;

  switch (message->kind) {
  case SAY_OPEN:
    if (!lease_donor_export (donor->table, vm_identity (world, conn->vm), (const char *)message->bytes, &conn->export, &blocks,
                             &why)) {
      conn->export.lease = 0;
      reply (world, number, message, ENOENT);
    } else {
      reply (world, number, message, 0);
    }
    break;
  case SAY_WRITE:
    conn->write = *message;
    conn->next_page = 0;
    conn->piece = TRUE;
    donor_piece (world, number);
    break;
  case SAY_TRIM:
    if (!lease_donor_is_current (donor->table, &conn->export))
      reply (world, number, message, ESTALE);
    else if (GUARDED (world, donor, lease_donor_drop (donor->table, &conn->export, message->block)))
      reply (world, number, message, 0);
    world->trims++;
    break;
  case SAY_READ:
    if (lease_donor_look (donor->table, &conn->export, message->block, &block))
      memcpy (back.pages, donor->arena[block], sizeof back.pages);
    else
      memset (back.pages, 0, sizeof back.pages);
    if (donor->liar && world_below (world, 3) == 0)
      back.pages[world_below (world, PAGES)] = world_below (world, UINT64_MAX);
    reply (world, number, &back, lease_donor_is_current (donor->table, &conn->export) ? 0 : ESTALE);
    world->reads++;
    break;
  default:
    g_error ("a donor hears what is not said");
  }
}

void
donor_hear (struct world *world, uint32_t number, const struct message *message) {
  const struct conn *conn = world_conn (world, number);
  struct sim_donor *donor = &world->donors[conn->donor];

  if (message->kind == SAY_LEASE)
    hear_lease (world, donor, number, message);
  else
    hear_data (world, donor, number, message);
}

/* ---- now and then ---- */

static struct lease_info *
some_lease (struct world *world, struct sim_donor *donor, uint32_t which) {
  static struct lease_info found[LEASES_MAX];
  uint32_t n = 0;

  for (uint32_t slot = 0; slot < LEASES_MAX; slot++)
    if (lease_donor_lease (donor->table, slot, &found[n]))
      n++;
  return n ? &found[which % n] : NULL;
}

static void
allow_end (struct world *world, struct sim_donor *donor, uint64_t lease) {
  g_hash_table_add (world->forgotten,
                    g_strdup_printf ("%u.%" G_GUINT64_FORMAT ".%" G_GUINT64_FORMAT, donor->number, donor->arenas, lease));
}

void
donor_order (struct world *world, struct sim_donor *donor, const struct plan_fault *fault) {
  const struct lease_info *info = donor->running ? some_lease (world, donor, fault->b) : NULL;

  if (fault->fault == FAULT_LIMIT) {
    donor->limit = fault->ms;
    if (donor->running)
      lease_donor_set_limit (donor->table, donor->limit);
  } else if (fault->fault == FAULT_FORGET && info) {
    allow_end (world, donor, info->lease);
    (void)GUARDED (world, donor, lease_donor_forget (donor->table, info->lease));
  } else if (fault->fault == FAULT_REVOKE && info) {
    world->revokes++;
    (void)GUARDED (world, donor, lease_donor_revoke (donor->table, info->lease, fault->ms, world->now + 2000));
  }
}

void
donor_tick (struct world *world, struct sim_donor *donor) {
  uint64_t block;

  for (unsigned n = (unsigned)world_below (world, 4); n && donor->running && lease_donor_next_dirty (donor->table, &block); n--)
    if (!GUARDED (world, donor, zero_block (donor, block)))
      return;
  if (!GUARDED (world, donor, lease_donor_pass_time (donor->table, world->now, world->plan.ttl_ms)))
    return;
  world_at (world, world->now + TICK_MS, EVENT_DONOR_TICK, donor->number, donor->life);
}

/* ---- what must be so ---- */

gboolean
donor_has_lease (const struct sim_donor *donor, const uint8_t incarnation[LEASE_ID_BYTES], uint64_t lease,
                 struct lease_export *ret_export) {
  const struct donor_header *header = donor->state;
  const struct donor_record *records = (const void *)((const uint8_t *)donor->state + 4096);

  if (memcmp (header->incarnation, incarnation, LEASE_ID_BYTES) != 0)
    return FALSE;
  for (uint32_t slot = 0; slot < LEASES_MAX; slot++)
    if (records[slot].id == lease) {
      *ret_export = (struct lease_export){ .lease = lease, .epoch = records[slot].epoch, .slot = slot };
      return TRUE;
    }
  return FALSE;
}

#define MUST(expression)                                                                                                       \
  do {                                                                                                                         \
    if (!(expression))                                                                                                         \
      g_error ("at %" G_GUINT64_FORMAT ": donor %u: not so: %s", world->now, donor->number, #expression);                      \
  } while (0)

void
donor_check (struct world *world, struct sim_donor *donor) {
  const struct donor_record *records = (const void *)((const uint8_t *)donor->state + 4096);
  const uint64_t *words = (const void *)(records + LEASES_MAX);
  const struct donor_header *header = donor->state;
  uint64_t promised = 0, of_liar = 0, used[LEASES_MAX] = { 0 }, n[3] = { 0 };
  struct lease_donor_figures figures;
  uint32_t places[LEASES_MAX] = { 0 };

  if (!donor->running)
    return;
  for (uint32_t block = 0; block < world->plan.blocks; block++) {
    const enum lease_block_state state = donor_word_state (words[block]);
    const uint32_t slot = donor_word_slot (words[block]);

    MUST (state <= LEASE_BLOCK_DIRTY && lease_donor_block (donor->table, block) == state);
    n[state]++;
    if (state == LEASE_BLOCK_FREE)
      for (unsigned page = 0; page < PAGES; page++)
        MUST (donor->arena[block][page] == 0);
    if (state != LEASE_BLOCK_USED)
      continue;
    MUST (slot < LEASES_MAX && records[slot].id != 0 && donor_word_block (words[block]) < PLACES_MAX);
    MUST (!(places[slot] >> donor_word_block (words[block]) & 1));
    places[slot] |= 1u << donor_word_block (words[block]);
    used[slot]++;
  }
  for (uint32_t slot = 0; slot < LEASES_MAX; slot++) {
    struct lease_info info;

    MUST (lease_donor_lease (donor->table, slot, &info) == (records[slot].id != 0));
    if (records[slot].id == 0)
      continue;
    promised += records[slot].level;
    of_liar += strcmp (info.identity, "liar") == 0 ? records[slot].level : 0;
    MUST (records[slot].state == DONOR_RECORD_LIVE && of_liar <= limits_of_liars.blocks);
    MUST (used[slot] <= records[slot].level && info.used == used[slot] && info.level == records[slot].level);
    MUST (records[slot].epoch > records[slot].id && records[slot].epoch < header->next_number);
    MUST (!info.revoke || info.revoke_level < info.level);
    for (uint32_t other = 0; other < slot; other++)
      MUST (records[other].id != records[slot].id);
  }
  for (uint32_t i = 1; i < world->conns->len; i++) {
    const struct conn *conn = world_conn (world, i);

    /* In the product a piece may be on its way into the arena at any moment */
    MUST (!conn || conn->donor != donor->number || !conn->piece || lease_donor_is_current (donor->table, &conn->export));
  }
  MUST (promised <= world->plan.blocks);
  MUST (header->next_number > donor->highest_number);
  donor->highest_number = header->next_number - 1;
  lease_donor_figures (donor->table, &figures);
  MUST (figures.promised == promised && figures.used == n[LEASE_BLOCK_USED] && figures.dirty == n[LEASE_BLOCK_DIRTY]
        && figures.free == n[LEASE_BLOCK_FREE] && lease_donor_buddy (donor->table)->free == figures.free);
}
