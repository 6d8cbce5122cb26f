/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Requests and what the donor answers; what the operator orders. */
#include "core/lease-donor-internal.h"

#include <string.h>

/* ---- time ---- */

static void
pass (struct lease_donor *donor, uint64_t now_ms) {
  uint64_t step = donor->has_clock && now_ms > donor->last_ms ? now_ms - donor->last_ms : 0;

  donor->has_clock = true;
  donor->last_ms = now_ms;
  if (step > LEASE_DONOR_STEP_MS)
    step = LEASE_DONOR_STEP_MS;
  if (step)
    LEASE_STORE (donor->header->served_ms, donor->header->served_ms + step, "lease-served");
}

static uint64_t
silent_ms (const struct lease_donor *donor, const struct donor_record *record) {
  return donor->header->served_ms - record->seen_ms;
}

/* ---- ending ---- */

/* False: its connections still write. */
static bool
end_fenced (struct lease_donor *donor, uint32_t slot) {
  if (!donor->ops.fence (donor->ops.data, donor->records[slot].id, UINT64_MAX))
    return false;
  donor_end_lease (donor, slot);
  return true;
}

unsigned
lease_donor_pass_time (struct lease_donor *donor, uint64_t now_ms, uint64_t ttl_ms) {
  unsigned n = 0;

  pass (donor, now_ms);
  for (uint32_t slot = 0; slot < donor->n_leases; slot++) {
    const struct donor_record *record = &donor->records[slot];

    if (record->id == 0)
      continue;
    if (ttl_ms && silent_ms (donor, record) >= ttl_ms) {
      const bool empty = record->level == 0;

      if (end_fenced (donor, slot) && !empty) {
        donor->ended_by_ttl++;
        n++;
      }
    } else if (record->level == 0 && silent_ms (donor, record) >= LEASE_DONOR_EMPTY_MS) {
      (void)end_fenced (donor, slot);
    }
  }
  return n;
}

static uint32_t
slot_of (const struct lease_donor *donor, uint64_t lease) {
  for (uint32_t slot = 0; lease && slot < donor->n_leases; slot++)
    if (donor->records[slot].id == lease)
      return slot;
  return DONOR_NONE;
}

bool
lease_donor_forget (struct lease_donor *donor, uint64_t lease) {
  const uint32_t slot = slot_of (donor, lease);

  if (slot == DONOR_NONE || !end_fenced (donor, slot))
    return false;
  donor->ended_by_order++;
  return true;
}

/* That boot of the host was alive after `epoch` was given out. A lease that was made before, by another boot, was made by an
 * earlier one, and what was in it went with that. (Detached: where two machines have one host id and one key, they keep what
 * they use.) */
static void
use_evidence (struct lease_donor *donor, const struct donor_record *witness, uint64_t epoch) {
  for (uint32_t slot = 0; slot < donor->n_leases; slot++) {
    const struct donor_record *record = &donor->records[slot];

    if (record->id == 0 || record->id >= epoch || memcmp (record->boot, witness->boot, LEASE_ID_BYTES) == 0
        || memcmp (record->host, witness->host, LEASE_ID_BYTES) != 0 || strcmp (record->identity, witness->identity) != 0
        || silent_ms (donor, record) < LEASE_DONOR_DETACHED_MS)
      continue;
    if (end_fenced (donor, slot))
      donor->ended_by_evidence++;
  }
}

/* ---- orders ---- */

void
lease_donor_set_limit (struct lease_donor *donor, uint64_t blocks) {
  donor->limit = blocks < donor->n_blocks ? blocks : donor->n_blocks;
}

static void
revoke_is_over (struct lease_donor *donor, uint32_t slot) {
  if (donor->records[slot].revoke)
    LEASE_STORE (donor->records[slot].revoke, 0, "lease-revoke-over");
  donor->slots[slot].revoke_seen = 0;
}

bool
lease_donor_revoke (struct lease_donor *donor, uint64_t lease, uint64_t level, uint64_t until_ms) {
  const uint32_t slot = slot_of (donor, lease);
  struct donor_record *record;
  uint64_t number;

  if (slot == DONOR_NONE)
    return false;
  record = &donor->records[slot];
  if (level >= record->level) {
    revoke_is_over (donor, slot);
    return true;
  }
  /* One in force stays in force all the while: its level changes first, its number last */
  number = donor->header->next_revoke;
  LEASE_STORE (donor->header->next_revoke, number + 1, "lease-next-revoke");
  LEASE_STORE (record->revoke_level, level, "lease-revoke-level");
  LEASE_STORE (record->revoke_until_ms, until_ms, "lease-revoke-until");
  LEASE_STORE (record->revoke, number, "lease-revoke");
  donor->slots[slot].revoke_seen = 0;
  return true;
}

/* ---- requests ---- */

struct asking {
  struct lease_donor *donor;
  uint64_t now_ms;
  const char *identity;
  const struct lease_donor_limits *limits;
  const struct lease_request *request;
  struct lease_answer *answer;
};

static bool
is_zero_id (const uint8_t id[LEASE_ID_BYTES]) {
  static const uint8_t zero[LEASE_ID_BYTES];

  return memcmp (id, zero, LEASE_ID_BYTES) == 0;
}

static uint64_t
take_number (struct lease_donor *donor) {
  const uint64_t number = donor->header->next_number;

  LEASE_STORE (donor->header->next_number, number + 1, "lease-number");
  return number;
}

static void
see (struct lease_donor *donor, struct donor_record *record) {
  LEASE_STORE (record->seen_ms, donor->header->served_ms, "lease-seen");
}

/* What the answer says of a lease. */
static enum lease_verdict
tell (const struct asking *a, uint32_t slot, enum lease_verdict verdict) {
  const struct donor_record *record = &a->donor->records[slot];
  struct lease_answer *answer = a->answer;

  answer->lease = record->id;
  answer->epoch = record->epoch;
  answer->seq = record->seq;
  answer->level = record->level;
  answer->used = a->donor->slots[slot].blocks.n;
  answer->revoke = record->revoke;
  if (record->revoke) {
    const uint64_t left = record->revoke_until_ms > a->now_ms ? record->revoke_until_ms - a->now_ms : 0;

    answer->revoke_level = record->revoke_level;
    answer->revoke_left_ms = left < UINT32_MAX ? (uint32_t)left : UINT32_MAX;
  }
  return verdict;
}

/* How many blocks more this identity may be promised. */
static uint64_t
room_of (const struct asking *a) {
  const struct lease_donor *donor = a->donor;
  uint64_t has = 0, own, all;

  for (uint32_t slot = 0; slot < donor->n_leases; slot++)
    if (donor->records[slot].id && strcmp (donor->records[slot].identity, a->identity) == 0)
      has += donor->records[slot].level;
  own = a->limits->blocks > has ? a->limits->blocks - has : 0;
  all = donor->limit > donor->promised ? donor->limit - donor->promised : 0;
  return own < all ? own : all;
}

static enum lease_verdict
make_lease (const struct asking *a, uint32_t *ret_slot) {
  struct lease_donor *donor = a->donor;
  const struct lease_request *request = a->request;
  uint32_t slot = DONOR_NONE, n = 0;
  struct donor_record *record;
  uint64_t id;

  for (uint32_t i = 0; i < donor->n_leases; i++) {
    if (donor->records[i].id == 0)
      slot = slot == DONOR_NONE ? i : slot;
    else
      n += strcmp (donor->records[i].identity, a->identity) == 0;
  }
  if (slot == DONOR_NONE || n >= a->limits->leases)
    return LEASE_LIMIT;
  id = take_number (donor);
  record = &donor->records[slot];
  memset (record, 0, sizeof *record);
  record->epoch = take_number (donor);
  record->session = request->session;
  record->export_blocks = request->blocks;
  record->seen_ms = donor->header->served_ms;
  record->disk = request->disk;
  memcpy (record->vm, request->vm, LEASE_ID_BYTES);
  memcpy (record->host, request->host, LEASE_ID_BYTES);
  memcpy (record->boot, request->boot, LEASE_ID_BYTES);
  memcpy (record->identity, a->identity, strlen (a->identity));
  LEASE_STORE (record->id, id, "lease-made");
  donor->n_live++;
  *ret_slot = slot;
  return LEASE_OK;
}

/* The epoch first: from then on all that names the one before is refused. Who dies behind that has told nobody. */
static enum lease_verdict
begin_session (const struct asking *a, uint32_t slot) {
  struct donor_record *record = &a->donor->records[slot];

  if (!a->donor->ops.fence (a->donor->ops.data, record->id, a->donor->header->next_number))
    return LEASE_BUSY;
  LEASE_STORE (record->epoch, take_number (a->donor), "lease-epoch");
  LEASE_STORE (record->seq, 0, "lease-seq-anew");
  LEASE_STORE (record->session, a->request->session, "lease-session");
  return LEASE_OK;
}

static enum lease_verdict
attach (const struct asking *a) {
  struct lease_donor *donor = a->donor;
  const struct lease_request *request = a->request;
  enum lease_verdict verdict = LEASE_OK;
  uint32_t slot = DONOR_NONE;
  struct donor_record *record;

  if (request->blocks == 0 || request->blocks > LEASE_EXPORT_BLOCKS_MAX
      || is_zero_id (request->incarnation) != (request->lease == 0) || request->lease >= donor->header->next_number)
    return LEASE_BAD;
  for (uint32_t i = 0; i < donor->n_leases && slot == DONOR_NONE; i++) {
    record = &donor->records[i];
    if (record->id && record->disk == request->disk && memcmp (record->vm, request->vm, LEASE_ID_BYTES) == 0
        && strcmp (record->identity, a->identity) == 0)
      slot = i;
  }
  if (slot == DONOR_NONE) {
    const uint32_t named = slot_of (donor, request->lease);

    if (request->lease)
      return named == DONOR_NONE                                         ? LEASE_UNKNOWN
             : strcmp (donor->records[named].identity, a->identity) != 0 ? LEASE_NOT_YOURS
                                                                         : LEASE_BAD;
    verdict = make_lease (a, &slot);
    return verdict == LEASE_OK ? tell (a, slot, LEASE_OK) : verdict;
  }
  record = &donor->records[slot];
  if (memcmp (record->host, request->host, LEASE_ID_BYTES) != 0 || memcmp (record->boot, request->boot, LEASE_ID_BYTES) != 0)
    return LEASE_BAD; /* a VM's life is on one boot of one host */
  see (donor, record);
  if (request->session < record->session)
    return LEASE_OLD_SESSION;
  if (request->lease && request->lease != record->id)
    return LEASE_UNKNOWN;
  if (request->blocks < record->export_blocks)
    return LEASE_BAD;
  if (request->session > record->session)
    verdict = begin_session (a, slot);
  if (verdict == LEASE_OK && request->blocks > record->export_blocks)
    LEASE_STORE (record->export_blocks, request->blocks, "lease-export");
  return tell (a, slot, verdict);
}

/* The level first: a request whose seq is not noted comes again, and asks for the same. */
static void
set_level (struct lease_donor *donor, struct donor_record *record, uint64_t level, uint64_t seq) {
  if (record->level != level) {
    donor->promised = donor->promised - record->level + level;
    LEASE_STORE (record->level, level, "lease-level");
  }
  LEASE_STORE (record->seq, seq, "lease-seq");
}

static enum lease_verdict
grant (const struct asking *a, uint32_t slot) {
  struct donor_record *record = &a->donor->records[slot];
  const uint64_t asked = a->request->blocks;
  uint64_t most = record->level;

  if (a->request->seq <= record->seq)
    return LEASE_OK;
  if (asked > record->level && !record->revoke) {
    const uint64_t room = room_of (a), more = asked - record->level;

    most += more < room ? more : room;
  }
  set_level (a->donor, record, most, a->request->seq);
  return asked > most ? LEASE_NO_ROOM : LEASE_OK;
}

static enum lease_verdict
release (const struct asking *a, uint32_t slot) {
  struct donor_record *record = &a->donor->records[slot];
  const uint64_t asked = a->request->blocks, used = a->donor->slots[slot].blocks.n;
  const uint64_t least = asked > used ? asked : used;

  if (a->request->seq <= record->seq)
    return LEASE_OK;
  set_level (a->donor, record, least < record->level ? least : record->level, a->request->seq);
  if (record->revoke && record->level <= record->revoke_level)
    revoke_is_over (a->donor, slot);
  return asked < used ? LEASE_IN_USE : LEASE_OK;
}

static enum lease_verdict
go_on (const struct asking *a) {
  struct lease_donor *donor = a->donor;
  const struct lease_request *request = a->request;
  const uint32_t slot = slot_of (donor, request->lease);
  struct donor_record *record;

  if (is_zero_id (request->incarnation) || request->lease == 0 || request->lease >= donor->header->next_number)
    return LEASE_BAD;
  if (slot == DONOR_NONE)
    return LEASE_UNKNOWN;
  record = &donor->records[slot];
  if (strcmp (record->identity, a->identity) != 0)
    return LEASE_NOT_YOURS;
  if (record->disk != request->disk || memcmp (record->vm, request->vm, LEASE_ID_BYTES) != 0
      || memcmp (record->host, request->host, LEASE_ID_BYTES) != 0 || memcmp (record->boot, request->boot, LEASE_ID_BYTES) != 0)
    return LEASE_BAD;
  see (donor, record);
  if (request->epoch < record->epoch)
    return request->session < record->session ? LEASE_OLD_SESSION : LEASE_OLD_EPOCH;
  if (request->epoch > record->epoch || request->session != record->session)
    return LEASE_BAD;
  use_evidence (donor, record, request->epoch);
  switch (request->verb) {
  case LEASE_GRANT:
    return tell (a, slot, grant (a, slot));
  case LEASE_RELEASE:
    return tell (a, slot, release (a, slot));
  case LEASE_KEEP:
    if (request->revoke_seen == record->revoke)
      donor->slots[slot].revoke_seen = request->revoke_seen;
    /* What of the borrower's is still on its way comes too late: the answer says what is in force */
    if (request->seq > record->seq)
      LEASE_STORE (record->seq, request->seq, "lease-seq");
    return tell (a, slot, LEASE_OK);
  case LEASE_END:
    if (!end_fenced (donor, slot))
      return tell (a, slot, LEASE_BUSY);
    donor->ended_by_end++;
    return LEASE_OK; /* and no lease */
  default:
    return LEASE_BAD;
  }
}

void
lease_donor_step (struct lease_donor *donor, uint64_t now_ms, const char *identity, const struct lease_donor_limits *limits,
                  const struct lease_request *request, struct lease_answer *ret_answer) {
  const struct asking a = { donor, now_ms, identity, limits, request, ret_answer };

  pass (donor, now_ms);
  memset (ret_answer, 0, sizeof *ret_answer);
  memcpy (ret_answer->incarnation, donor->header->incarnation, LEASE_ID_BYTES);
  ret_answer->number = request->number;
  if (!memchr (identity, '\0', LEASE_IDENTITY_BYTES) || is_zero_id (request->vm) || is_zero_id (request->host)
      || is_zero_id (request->boot) || request->session == 0)
    ret_answer->verdict = LEASE_BAD;
  else if (!is_zero_id (request->incarnation) && memcmp (request->incarnation, donor->header->incarnation, LEASE_ID_BYTES) != 0)
    ret_answer->verdict = LEASE_OTHER_INCARNATION;
  else
    ret_answer->verdict = request->verb == LEASE_ATTACH ? attach (&a) : go_on (&a);
  ret_answer->free = donor->limit > donor->promised ? donor->limit - donor->promised : 0;
}

/* ---- figures ---- */

bool
lease_donor_lease (const struct lease_donor *donor, uint32_t slot, struct lease_info *ret_info) {
  const struct donor_record *record;

  if (slot >= donor->n_leases || donor->records[slot].id == 0)
    return false;
  record = &donor->records[slot];
  *ret_info = (struct lease_info){
    .lease = record->id,
    .epoch = record->epoch,
    .session = record->session,
    .disk = (uint32_t)record->disk,
    .export_blocks = record->export_blocks,
    .level = record->level,
    .used = donor->slots[slot].blocks.n,
    .silent_ms = silent_ms (donor, record),
    .revoke = record->revoke,
    .revoke_level = record->revoke_level,
    .revoke_until_ms = record->revoke_until_ms,
    .revoke_seen = record->revoke && donor->slots[slot].revoke_seen == record->revoke,
  };
  memcpy (ret_info->identity, record->identity, sizeof ret_info->identity);
  memcpy (ret_info->vm, record->vm, LEASE_ID_BYTES);
  memcpy (ret_info->host, record->host, LEASE_ID_BYTES);
  memcpy (ret_info->boot, record->boot, LEASE_ID_BYTES);
  return true;
}

void
lease_donor_figures (const struct lease_donor *donor, struct lease_donor_figures *ret_figures) {
  memset (ret_figures, 0, sizeof *ret_figures);
  memcpy (ret_figures->incarnation, donor->header->incarnation, LEASE_ID_BYTES);
  ret_figures->blocks = donor->n_blocks;
  ret_figures->limit = donor->limit;
  ret_figures->promised = donor->promised;
  ret_figures->used = donor->used;
  ret_figures->dirty = donor->dirty.n;
  ret_figures->free = donor->n_blocks - donor->used - donor->dirty.n;
  ret_figures->leases = donor->n_live;
  ret_figures->ended_by_end = donor->ended_by_end;
  ret_figures->ended_by_evidence = donor->ended_by_evidence;
  ret_figures->ended_by_order = donor->ended_by_order;
  ret_figures->ended_by_ttl = donor->ended_by_ttl;
}
