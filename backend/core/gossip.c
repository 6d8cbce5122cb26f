/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "core/gossip-internal.h"

#include <stdlib.h>
#include <string.h>

/* Suspicion: Lifeguard's K = 3 and β = 6; α is less than its 5, because accusations and refutations go through a zone within 2
 * s here, and suspects are looked at by others at once. (Dadgar, Phillips, Currey: Lifeguard, 2018.) */
const struct gossip_rules gossip_rules_default = {
  .probe_ms = 1000,
  .ack_ms = 400,
  .helpers = 3,
  .suspicion_permille = 1250,
  .suspicion_longest = 6,
  .confirmations = 3,
  .retransmit = 4,
  .spread_ms = 180,
  .pushes = 1,
  .late_pushes = 0,
  .own_pushes = 4,
  .sync_ms = 160,
  .quiet_sync_ms = 10000,
  .recent_ms = 2000,
  .reconnect_ms = 5000,
  .publish_ms = 1000,
  .refute_ms = 500,
  .health = true,
  .buddy = true,
  .help_to_confirm = true,
};

/* Not run for so long beyond what was due: all that has not been heard says nothing. */
#define ABSENT_MS 1000u
/* A record that comes so long after it was asked for is the answer. */
#define LATE_MS 1000u

/* ---- randomness: splitmix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014) ---- */

uint32_t
gossip_random_below (struct gossip *gossip, uint32_t n) {
  uint64_t z = gossip->random += 0x9e3779b97f4a7c15ull;

  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ z >> 27) * 0x94d049bb133111ebull;
  z ^= z >> 31;
  return (uint32_t)((z >> 32) * n >> 32);
}

/* ---- members ---- */

uint32_t
gossip_prefix (const uint8_t *id) {
  return (uint32_t)id[0] << 16 | (uint32_t)id[1] << 8 | id[2];
}

static uint32_t
lower_bound_short (const struct gossip *gossip, const uint8_t *id) {
  uint32_t low = 0, high = gossip->n;

  while (low < high) {
    const uint32_t middle = (low + high) / 2;

    if (memcmp (gossip->members[middle]->record.id, id, GOSSIP_SHORT_BYTES) < 0)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

uint32_t
gossip_lower_bound (const struct gossip *gossip, uint32_t prefix) {
  const uint8_t id[GOSSIP_SHORT_BYTES] = { (uint8_t)(prefix >> 16), (uint8_t)(prefix >> 8), (uint8_t)prefix };

  return lower_bound_short (gossip, id);
}

struct member *
gossip_by_short (const struct gossip *gossip, const uint8_t id[GOSSIP_SHORT_BYTES]) {
  const uint32_t at = lower_bound_short (gossip, id);

  if (at == gossip->n || memcmp (gossip->members[at]->record.id, id, GOSSIP_SHORT_BYTES) != 0)
    return NULL;
  return gossip->members[at];
}

/* By the whole id. */
static struct member *
by_id (const struct gossip *gossip, const uint8_t id[GOSSIP_ID_BYTES]) {
  struct member *member = gossip_by_short (gossip, id);

  return member && memcmp (member->record.id, id, GOSSIP_ID_BYTES) == 0 ? member : NULL;
}

bool
gossip_is_me (const struct gossip *gossip, const uint8_t id[GOSSIP_SHORT_BYTES]) {
  return memcmp (gossip->own.id, id, GOSSIP_SHORT_BYTES) == 0;
}

static uint32_t *
count_of (struct gossip *gossip, enum gossip_state state) {
  uint32_t *const counts[] = { &gossip->figures.alive, &gossip->figures.suspect, &gossip->figures.dead, &gossip->figures.gone };

  return counts[state];
}

void
gossip_set_state (struct gossip *gossip, struct member *member, enum gossip_state state, uint64_t now_ms) {
  (*count_of (gossip, member->state))--;
  (*count_of (gossip, state))++;
  member->state = state;
  member->since_ms = now_ms;
  if (state == GOSSIP_ALIVE || state == GOSSIP_GONE)
    member->n_accusers = 0;
}

uint32_t
gossip_log (const struct gossip *gossip) {
  const uint32_t hosts = gossip->figures.alive + gossip->figures.suspect + 1;
  uint32_t log2 = 0, log10;

  while (hosts >> (log2 + 1))
    log2++;
  /* Between powers of two a line will do. */
  log10 = (log2 * 1000 + ((hosts - (1u << log2)) * 1000 >> log2)) * 301 / 1000;
  return log10 < 1000 ? 1000 : log10;
}

static void
drop (struct gossip *gossip, uint32_t at) {
  (*count_of (gossip, gossip->members[at]->state))--;
  free (gossip->members[at]);
  gossip->n--;
  memmove (&gossip->members[at], &gossip->members[at + 1], (gossip->n - at) * sizeof gossip->members[0]);
}

/* Room for one more: by dropping the one that has been dead or gone for longest, if need be. */
static bool
make_room (struct gossip *gossip) {
  uint32_t oldest = gossip->n;

  if (gossip->figures.alive + gossip->figures.suspect + 1 >= GOSSIP_ZONE_HOSTS)
    return false;
  if (gossip->n < GOSSIP_MEMBERS_MAX)
    return true;
  for (uint32_t i = 0; i < gossip->n; i++)
    if (gossip->members[i]->state >= GOSSIP_DEAD
        && (oldest == gossip->n || gossip->members[i]->since_ms < gossip->members[oldest]->since_ms))
      oldest = i;
  if (oldest == gossip->n)
    return false;
  drop (gossip, oldest);
  return true;
}

/* Alive, with no record: the caller fills it in. */
static struct member *
add_member (struct gossip *gossip, const uint8_t id[GOSSIP_ID_BYTES]) {
  struct member *member;
  uint32_t at;

  if (!make_room (gossip))
    return NULL;
  member = calloc (1, sizeof *member);
  if (!member)
    return NULL;
  at = lower_bound_short (gossip, id);
  memmove (&gossip->members[at + 1], &gossip->members[at], (gossip->n - at) * sizeof gossip->members[0]);
  gossip->members[at] = member;
  gossip->n++;
  gossip->figures.alive++;
  return member;
}

/* ---- records ---- */

/* < 0: what we have is newer. */
static int
compare (const struct gossip_record *theirs, const struct gossip_record *have) {
  if (theirs->incarnation != have->incarnation)
    return theirs->incarnation < have->incarnation ? -1 : 1;
  return theirs->version < have->version ? -1 : theirs->version > have->version;
}

static bool
is_signed (struct gossip *gossip, const struct gossip_record *record) {
  uint8_t bytes[GOSSIP_RECORD_SIGNED_BYTES];

  gossip_record_encode (record, bytes);
  if (gossip->options.ops.verify (gossip->options.ops.data, record->id, bytes, sizeof bytes, record->signature))
    return true;
  gossip->figures.refused_records++;
  return false;
}

void
gossip_renew_own (struct gossip *gossip, uint64_t now_ms) {
  struct gossip_record *own = &gossip->own;
  uint8_t bytes[GOSSIP_RECORD_SIGNED_BYTES];

  if (own->version == UINT32_MAX) {
    own->version = 0;
    own->incarnation += own->incarnation < UINT32_MAX;
  }
  own->version++;
  gossip_record_encode (own, bytes);
  gossip->options.ops.sign (gossip->options.ops.data, bytes, sizeof bytes, own->signature);
  gossip->own_pushes = gossip->rules.own_pushes;
  gossip->published_ms = now_ms;
  gossip->news_ms = now_ms;
}

static void
raise_incarnation (struct gossip *gossip, uint32_t above, uint64_t now_ms) {
  if (above == UINT32_MAX)
    return;
  gossip->own.incarnation = above + 1;
  gossip_renew_own (gossip, now_ms);
}

/* Our own record, from others: one of an earlier life may be above ours, or beside it. Go above it in both numbers:
 * incarnations say which accusations are refuted, and digests compare versions alone. */
static void
take_own (struct gossip *gossip, const struct gossip_record *record, uint64_t now_ms) {
  struct gossip_record *own = &gossip->own;

  if ((record->incarnation <= own->incarnation && record->version < own->version)
      || memcmp (record->signature, own->signature, GOSSIP_SIGNATURE_BYTES) == 0
      || memcmp (record->id, own->id, GOSSIP_ID_BYTES) != 0 || !is_signed (gossip, record))
    return;
  if (record->version > own->version)
    own->version = record->version;
  if (record->incarnation >= own->incarnation)
    raise_incarnation (gossip, record->incarnation, now_ms);
  else
    gossip_renew_own (gossip, now_ms);
}

/* True: who sent it speaks of itself as in an earlier life than we know of, and should hear so. */
static bool
take_record (struct gossip *gossip, const struct gossip_record *record, const uint8_t *from, uint64_t now_ms) {
  struct member *member = gossip_by_short (gossip, record->id);
  uint32_t incarnation = 0;
  int order = 1;
  bool late;

  if (gossip_is_me (gossip, record->id)) {
    take_own (gossip, record, now_ms);
    return false;
  }
  if (member)
    order = compare (record, &member->record);
  if (order == 0 && member->pushes)
    member->pushes--; /* others pass it on, too */
  if (order <= 0)
    return record->incarnation < member->record.incarnation && memcmp (from, record->id, GOSSIP_ID_BYTES) == 0;
  if ((member && memcmp (member->record.id, record->id, GOSSIP_ID_BYTES) != 0) || !is_signed (gossip, record))
    return false;
  if (member)
    incarnation = member->record.incarnation;
  else
    member = add_member (gossip, record->id);
  if (!member) {
    gossip->figures.refused_records++;
    return false;
  }
  member->record = *record;
  member->learnt_ms = now_ms;
  /* What a digest has brought most have had before: a rumour of it would find few that have not. */
  late = gossip->in.kind == GOSSIP_WANT || (member->wanted_ms && now_ms - member->wanted_ms < LATE_MS);
  member->pushes = late && gossip->rules.late_pushes < gossip->rules.pushes ? gossip->rules.late_pushes : gossip->rules.pushes;
  memcpy (member->source, from, GOSSIP_SHORT_BYTES);
  gossip->news_ms = now_ms;
  if (record->flags & GOSSIP_LEFT)
    gossip_set_state (gossip, member, GOSSIP_GONE, now_ms);
  else if (record->incarnation > incarnation || member->state == GOSSIP_GONE)
    gossip_set_state (gossip, member, GOSSIP_ALIVE, now_ms);
  else if (member->state == GOSSIP_DEAD)
    memcpy (gossip->urgent, record->id, GOSSIP_SHORT_BYTES); /* it speaks, but does not know that we gave it up */
  return false;
}

/* ---- accusations ---- */

static void
refute_if_due (struct gossip *gossip, uint64_t now_ms) {
  if (!gossip->refute_is_due || now_ms - gossip->refuted_ms < gossip->rules.refute_ms)
    return;
  gossip->refute_is_due = false;
  gossip->refuted_ms = now_ms;
  gossip->figures.refutations++;
  raise_incarnation (gossip, gossip->own.incarnation, now_ms);
}

/* True: it was about us, and is answered. */
static bool
take_accusation (struct gossip *gossip, const struct gossip_accusation *accusation, uint64_t now_ms) {
  struct member *member;

  if (gossip_is_me (gossip, accusation->accused)) {
    /* Of any other incarnation it is old, or invented. */
    if (accusation->incarnation != gossip->own.incarnation || gossip->leaving)
      return false;
    if (gossip->rules.health && gossip->figures.health < GOSSIP_HEALTH_MAX && !gossip->refute_is_due)
      gossip->figures.health++;
    gossip->refute_is_due = true;
    refute_if_due (gossip, now_ms);
    return true;
  }
  member = gossip_by_short (gossip, accusation->accused);
  if (member && member->record.incarnation == accusation->incarnation && !gossip_is_me (gossip, accusation->accuser)
      && gossip_by_short (gossip, accusation->accuser))
    gossip_accuse (gossip, member, accusation->accuser, now_ms);
  return false;
}

/* ---- time ---- */

static uint64_t
due_at (const struct gossip *gossip) {
  const uint64_t probe = gossip_probe_due (gossip), spread = gossip_spread_due (gossip);
  uint64_t due = probe < spread ? probe : spread;

  if (gossip->own_is_late && gossip->published_ms + gossip->rules.publish_ms < due)
    due = gossip->published_ms + gossip->rules.publish_ms;
  if (gossip->refute_is_due && gossip->refuted_ms + gossip->rules.refute_ms < due)
    due = gossip->refuted_ms + gossip->rules.refute_ms;
  return due;
}

/* Before anything is concluded from the time: were we here? */
static void
notice_absence (struct gossip *gossip, uint64_t now_ms) {
  uint64_t due = due_at (gossip);

  if (due < gossip->here_ms)
    due = gossip->here_ms;
  gossip->here_ms = now_ms;
  if (!gossip->rules.health || now_ms <= due || now_ms - due < ABSENT_MS)
    return;
  gossip->figures.absences++;
  gossip_probe_absent (gossip, now_ms - due, now_ms);
}

uint64_t
gossip_wait_ms (const struct gossip *gossip, uint64_t now_ms) {
  const uint64_t due = due_at (gossip);

  return due > now_ms ? due - now_ms : 0;
}

void
gossip_own_step (struct gossip *gossip, uint64_t now_ms) {
  refute_if_due (gossip, now_ms);
  if (gossip->own_is_late && now_ms - gossip->published_ms >= gossip->rules.publish_ms)
    gossip_publish (gossip, now_ms, gossip->tiers);
}

void
gossip_step (struct gossip *gossip, uint64_t now_ms) {
  notice_absence (gossip, now_ms);
  gossip_own_step (gossip, now_ms);
  gossip_probe_step (gossip, now_ms);
  gossip_spread_step (gossip, now_ms);
}

/* ---- what comes ---- */

void
gossip_receive (struct gossip *gossip, uint64_t now_ms, const uint8_t from[GOSSIP_ID_BYTES], bool approved,
                const uint8_t address[GOSSIP_ADDRESS_BYTES], const uint8_t *bytes, size_t n) {
  struct gossip_packet *in = &gossip->in;
  bool answered = false, is_behind = false;

  if (!approved || gossip_is_me (gossip, from) || !gossip_packet_decode (bytes, n, in) || in->zone != gossip->options.zone) {
    gossip->figures.refused_packets++;
    return;
  }
  notice_absence (gossip, now_ms);
  for (unsigned i = 0; i < in->n_records; i++)
    is_behind |= take_record (gossip, &in->records[i], from, now_ms);
  for (unsigned i = 0; i < in->n_accusations; i++)
    answered |= take_accusation (gossip, &in->accusations[i], now_ms);
  switch (in->kind) {
  case GOSSIP_SYNC:
    gossip_hear_sync (gossip, from, address, now_ms);
    break;
  case GOSSIP_WANT:
    gossip_hear_want (gossip, from, address);
    break;
  case GOSSIP_TELL:
    break;
  default:
    gossip_hear_probe (gossip, from, address, now_ms);
  }
  if (answered && in->kind != GOSSIP_PING) { /* whoever says that we are not there hears first that we are */
    gossip_begin (gossip, GOSSIP_TELL, 0, NULL);
    gossip_send (gossip, NULL, from, address);
  }
  if (is_behind)
    gossip_tell_of_itself (gossip, from, address);
}

/* ---- what we say of ourselves ---- */

static bool
differs (uint32_t a, uint32_t b, uint32_t whole) {
  return (uint64_t)(a > b ? a - b : b - a) * 20 >= (whole ? whole : 1);
}

static bool
tier_differs (const struct gossip_tier *new, const struct gossip_tier *old) {
  return differs (new->capacity, old->capacity, old->capacity) || differs (new->free, old->free, old->capacity)
         || (new->rate != old->rate &&differs (new->rate, old->rate, old->rate))
         || differs (new->fragmentation, old->fragmentation, 100) || differs (new->load, old->load, 100)
         || differs (new->pressure, old->pressure, 100);
}

static uint8_t
percent (uint8_t value) {
  return value > 100 ? 100 : value;
}

void
gossip_publish (struct gossip *gossip, uint64_t now_ms, const struct gossip_tier *tiers) {
  bool differ = false;

  if (gossip->leaving)
    return;
  for (unsigned i = 0; i < GOSSIP_TIERS; i++) {
    struct gossip_tier tier = tiers[i];

    if (tier.free > tier.capacity)
      tier.free = tier.capacity;
    tier.fragmentation = percent (tier.fragmentation);
    tier.load = percent (tier.load);
    tier.pressure = percent (tier.pressure);
    differ |= tier_differs (&tier, &gossip->own.tiers[i]);
    gossip->tiers[i] = tier;
  }
  gossip->own_is_late = differ && now_ms - gossip->published_ms < gossip->rules.publish_ms;
  if (!differ || gossip->own_is_late)
    return;
  memcpy (gossip->own.tiers, gossip->tiers, sizeof gossip->tiers);
  gossip_renew_own (gossip, now_ms);
}

void
gossip_leave (struct gossip *gossip, uint64_t now_ms) {
  if (gossip->leaving)
    return;
  gossip->leaving = true;
  gossip->own_is_late = gossip->refute_is_due = false;
  gossip->own.flags |= GOSSIP_LEFT;
  gossip_renew_own (gossip, now_ms);
  gossip->own_pushes *= 3; /* nobody will ask us for it */
}

void
gossip_join (struct gossip *gossip, uint64_t now_ms, const uint8_t address[GOSSIP_ADDRESS_BYTES]) {
  gossip_send_sync (gossip, NULL, NULL, address, now_ms);
}

void
gossip_forget (struct gossip *gossip, const uint8_t id[GOSSIP_ID_BYTES]) {
  const struct member *member = by_id (gossip, id);

  for (uint32_t i = 0; member && i < gossip->n; i++)
    if (gossip->members[i] == member) {
      drop (gossip, i);
      return;
    }
}

/* ---- life ---- */

struct gossip *
gossip_new (const struct gossip_options *options, uint64_t now_ms) {
  struct gossip *gossip;

  gossip = calloc (1, sizeof *gossip);
  if (!gossip)
    return NULL;
  gossip->options = *options;
  gossip->rules = options->rules;
  gossip->random = options->seed;
  gossip->seq = gossip_random_below (gossip, UINT32_MAX);
  memcpy (gossip->own.id, options->id, GOSSIP_ID_BYTES);
  memcpy (gossip->own.address, options->address, GOSSIP_ADDRESS_BYTES);
  gossip->own.incarnation = options->incarnation;
  if (!gossip_record_is_sane (&gossip->own)) {
    free (gossip);
    return NULL;
  }
  gossip->here_ms = now_ms;
  gossip_renew_own (gossip, now_ms);
  gossip->published_ms = 0; /* the first state may follow at once */
  /* Hosts that start together do not go on together. */
  gossip->next_probe_ms = now_ms + gossip_random_below (gossip, gossip->rules.probe_ms);
  gossip->next_spread_ms = now_ms + gossip_random_below (gossip, gossip->rules.spread_ms);
  gossip->next_sync_ms = now_ms + gossip_random_below (gossip, gossip->rules.sync_ms);
  gossip->next_reconnect_ms = now_ms + gossip_random_below (gossip, gossip->rules.reconnect_ms);
  return gossip;
}

void
gossip_free (struct gossip *gossip) {
  if (!gossip)
    return;
  for (uint32_t i = 0; i < gossip->n; i++)
    free (gossip->members[i]);
  free (gossip);
}

/* ---- what others may see ---- */

static void
describe (const struct member *member, struct gossip_member *ret_member) {
  *ret_member = (struct gossip_member){
    .record = &member->record, .state = member->state, .since_ms = member->since_ms, .accusers = member->n_accusers
  };
}

bool
gossip_member (const struct gossip *gossip, uint32_t index, struct gossip_member *ret_member) {
  if (index >= gossip->n)
    return false;
  describe (gossip->members[index], ret_member);
  return true;
}

bool
gossip_find (const struct gossip *gossip, const uint8_t id[GOSSIP_ID_BYTES], struct gossip_member *ret_member) {
  const struct member *member = by_id (gossip, id);

  if (member)
    describe (member, ret_member);
  return member != NULL;
}

const struct gossip_record *
gossip_own (const struct gossip *gossip) {
  return &gossip->own;
}

void
gossip_figures (const struct gossip *gossip, struct gossip_figures *ret_figures) {
  *ret_figures = gossip->figures;
}
