/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who is there: SWIM's probes (Das, Gupta, Motivala: SWIM, 2002) with Lifeguard's three amendments: a host that misses answers
 * has itself to blame first (health), suspicion lasts the shorter the more hosts share it, and suspects hear of it in the ping.
 *
 *   probe: PING ──ack_ms──→ PING_REQ to helpers ──ack_ms──→ accusation        all × (health + 1)
 */
#include "core/gossip-internal.h"

#include <string.h>

/* With how many others that hear of a suspicion look at the suspect, on average. */
#define CONFIRMERS 4u
/* Of an answer's time, after which a helper says that it has none yet. */
#define NACK_PERCENT 80u

static const uint8_t nobody[GOSSIP_SHORT_BYTES];

static uint64_t
slowed (const struct gossip *gossip, uint32_t ms) {
  return gossip->rules.health ? (uint64_t)ms * (gossip->figures.health + 1) : ms;
}

static void
change_health (struct gossip *gossip, int change) {
  const int health = (int)gossip->figures.health + change;

  gossip->figures.health = health < 0 ? 0 : health > (int)GOSSIP_HEALTH_MAX ? GOSSIP_HEALTH_MAX : (uint32_t)health;
}

/* ---- suspicion ---- */

/* log(c + 1) / log(K + 1) in thousandths. */
static const uint16_t shares[GOSSIP_ACCUSERS][GOSSIP_ACCUSERS]
    = { { 1000, 1000, 1000, 1000 }, { 0, 1000, 1000, 1000 }, { 0, 631, 1000, 1000 }, { 0, 500, 792, 1000 } };

/* K, where there are so many that could confirm it. */
static uint32_t
confirmations (const struct gossip *gossip) {
  const uint32_t hosts = gossip->figures.alive + gossip->figures.suspect + 1, others = hosts > 2 ? hosts - 2 : 0;
  uint32_t wanted = gossip->rules.confirmations < GOSSIP_ACCUSERS ? gossip->rules.confirmations : GOSSIP_ACCUSERS - 1;

  return wanted < others ? wanted : others;
}

uint64_t
gossip_suspicion_ms (const struct gossip *gossip, const struct member *member) {
  const uint64_t shortest
      = (uint64_t)gossip->rules.suspicion_permille * gossip_log (gossip) / 1000 * gossip->rules.probe_ms / 1000;
  const uint64_t longest = shortest * gossip->rules.suspicion_longest;
  const uint32_t all = confirmations (gossip);
  uint32_t have = member->n_accusers ? member->n_accusers - 1 : 0;

  if (have > all)
    have = all;
  return longest - (longest - shortest) * shares[all][have] / 1000;
}

void
gossip_accuse (struct gossip *gossip, struct member *member, const uint8_t accuser[GOSSIP_SHORT_BYTES], uint64_t now_ms) {
  const bool is_first = member->state == GOSSIP_ALIVE;
  const uint32_t hosts = gossip->figures.alive + gossip->figures.suspect + 1;

  if (member->state >= GOSSIP_DEAD)
    return;
  if (is_first) {
    member->n_accusers = 0;
    gossip_set_state (gossip, member, GOSSIP_SUSPECT, now_ms);
  }
  for (uint32_t i = 0; i < member->n_accusers; i++)
    if (memcmp (member->accusers[i].id, accuser, GOSSIP_SHORT_BYTES) == 0)
      return;
  if (member->n_accusers > gossip->rules.confirmations || member->n_accusers == GOSSIP_ACCUSERS)
    return;
  memcpy (member->accusers[member->n_accusers].id, accuser, GOSSIP_SHORT_BYTES);
  member->accusers[member->n_accusers].sends = gossip->rules.retransmit * ((gossip_log (gossip) + 999) / 1000);
  member->n_accusers++;
  if (is_first && gossip->rules.help_to_confirm && !gossip_is_me (gossip, accuser)
      && memcmp (gossip->urgent, nobody, GOSSIP_SHORT_BYTES) == 0 && gossip_random_below (gossip, hosts) < CONFIRMERS) {
    memcpy (gossip->urgent, member->record.id, GOSSIP_SHORT_BYTES);
    if (!gossip->probe.under_way)
      gossip->next_probe_ms = now_ms + gossip_random_below (gossip, gossip->rules.probe_ms / 4 + 1);
  }
}

/* ---- our probe ---- */

static void
ping (struct gossip *gossip, const struct member *member, uint32_t seq) {
  gossip_begin (gossip, GOSSIP_PING, seq, member->record.id);
  gossip_send (gossip, member, member->record.id, member->record.address);
}

/* Everybody once, in a random order, then anew: nobody is forgotten for longer than two rounds. */
static void
new_round (struct gossip *gossip) {
  gossip->n_round = 0;
  for (uint32_t i = 0; i < gossip->n; i++) {
    uint32_t other;

    if (gossip->members[i]->state >= GOSSIP_DEAD)
      continue;
    other = gossip_random_below (gossip, gossip->n_round + 1);
    memmove (gossip->round[gossip->n_round], gossip->round[other], GOSSIP_SHORT_BYTES);
    memcpy (gossip->round[other], gossip->members[i]->record.id, GOSSIP_SHORT_BYTES);
    gossip->n_round++;
  }
}

static struct member *
next_target (struct gossip *gossip) {
  struct member *member = gossip_by_short (gossip, gossip->urgent);

  memset (gossip->urgent, 0, sizeof gossip->urgent);
  if (member && member->state != GOSSIP_GONE)
    return member;
  if (!gossip->n_round)
    new_round (gossip);
  while (gossip->n_round) {
    member = gossip_by_short (gossip, gossip->round[--gossip->n_round]);
    if (member && member->state < GOSSIP_DEAD)
      return member;
  }
  return NULL;
}

static void
begin_probe (struct gossip *gossip, uint64_t now_ms) {
  struct member *member = next_target (gossip);

  gossip->next_probe_ms = now_ms + slowed (gossip, gossip->rules.probe_ms);
  if (!member)
    return;
  gossip->probe = (struct probe){ .under_way = true,
                                  .seq = ++gossip->seq,
                                  .help_ms = now_ms + slowed (gossip, gossip->rules.ack_ms),
                                  .end_ms = now_ms + 2 * slowed (gossip, gossip->rules.ack_ms) };
  memcpy (gossip->probe.target, member->record.id, GOSSIP_SHORT_BYTES);
  ping (gossip, member, gossip->probe.seq);
}

static void
ask_helpers (struct gossip *gossip) {
  const uint32_t start = gossip->n ? gossip_random_below (gossip, gossip->n) : 0;

  gossip->probe.helped = true;
  for (uint32_t i = 0; i < gossip->n && gossip->probe.nacks_due < gossip->rules.helpers; i++) {
    const struct member *helper = gossip->members[(start + i * 7919u) % gossip->n]; /* 7919 is prime and > n: each once */

    if (helper->state != GOSSIP_ALIVE || memcmp (helper->record.id, gossip->probe.target, GOSSIP_SHORT_BYTES) == 0)
      continue;
    gossip->probe.nacks_due++;
    gossip_begin (gossip, GOSSIP_PING_REQ, gossip->probe.seq, gossip->probe.target);
    gossip_send (gossip, helper, helper->record.id, helper->record.address);
  }
}

static void
probe_failed (struct gossip *gossip, uint64_t now_ms) {
  struct member *member = gossip_by_short (gossip, gossip->probe.target);

  gossip->probe.under_way = false;
  if (gossip->rules.health && member && member->state < GOSSIP_DEAD)
    change_health (gossip, gossip->rules.helpers ? (int)gossip->probe.nacks_due : 1);
  if (member)
    gossip_accuse (gossip, member, gossip->own.id, now_ms);
}

static void
probe_answered (struct gossip *gossip) {
  gossip->probe.under_way = false;
  change_health (gossip, -1);
}

/* ---- pings on others' behalf ---- */

static void
begin_relay (struct gossip *gossip, const uint8_t *from, const uint8_t *address, uint64_t now_ms) {
  const struct member *member = gossip_by_short (gossip, gossip->in.target);
  struct relay *relay = NULL;

  for (uint32_t i = 0; i < GOSSIP_RELAYS && !relay; i++)
    if (!gossip->relays[i].until_ms)
      relay = &gossip->relays[i];
  if (!member || !relay)
    return;
  *relay = (struct relay){ .until_ms = now_ms + 2 * (uint64_t)gossip->rules.ack_ms + 1,
                           .nack_ms = now_ms + (uint64_t)gossip->rules.ack_ms * NACK_PERCENT / 100 + 1,
                           .seq = ++gossip->seq,
                           .their_seq = gossip->in.seq };
  memcpy (relay->target, gossip->in.target, GOSSIP_SHORT_BYTES);
  memcpy (relay->client, from, GOSSIP_ID_BYTES);
  memcpy (relay->address, address, GOSSIP_ADDRESS_BYTES);
  ping (gossip, member, relay->seq);
}

static void
tell_client (struct gossip *gossip, const struct relay *relay, enum gossip_kind kind) {
  gossip_begin (gossip, kind, relay->their_seq, relay->target);
  gossip_send (gossip, gossip_by_short (gossip, relay->client), relay->client, relay->address);
}

static void
relays_step (struct gossip *gossip, uint64_t now_ms) {
  for (uint32_t i = 0; i < GOSSIP_RELAYS; i++) {
    struct relay *relay = &gossip->relays[i];

    if (relay->until_ms && relay->nack_ms && now_ms >= relay->nack_ms) {
      relay->nack_ms = 0;
      tell_client (gossip, relay, GOSSIP_NACK);
    }
    if (now_ms >= relay->until_ms)
      relay->until_ms = 0;
  }
}

/* ---- what comes ---- */

static void
hear_ack (struct gossip *gossip, const uint8_t *from) {
  const struct gossip_packet *in = &gossip->in;

  if (gossip->probe.under_way && in->seq == gossip->probe.seq && memcmp (from, gossip->probe.target, GOSSIP_SHORT_BYTES) == 0)
    probe_answered (gossip);
  for (uint32_t i = 0; i < GOSSIP_RELAYS; i++) {
    struct relay *relay = &gossip->relays[i];

    if (relay->until_ms && in->seq == relay->seq && memcmp (from, relay->target, GOSSIP_SHORT_BYTES) == 0) {
      relay->until_ms = 0;
      tell_client (gossip, relay, GOSSIP_RELAYED);
    }
  }
}

void
gossip_hear_probe (struct gossip *gossip, const uint8_t *from, const uint8_t *address, uint64_t now_ms) {
  const struct gossip_packet *in = &gossip->in;
  const bool is_ours = gossip->probe.under_way && in->seq == gossip->probe.seq
                       && memcmp (in->target, gossip->probe.target, GOSSIP_SHORT_BYTES) == 0;

  switch (in->kind) {
  case GOSSIP_PING:
    if (!gossip_is_me (gossip, in->target))
      return; /* for who had this address before */
    gossip_begin (gossip, GOSSIP_ACK, in->seq, NULL);
    gossip_send (gossip, gossip_by_short (gossip, from), from, address);
    break;
  case GOSSIP_PING_REQ:
    begin_relay (gossip, from, address, now_ms);
    break;
  case GOSSIP_RELAYED:
    if (is_ours)
      probe_answered (gossip);
    break;
  case GOSSIP_NACK:
    if (is_ours && gossip->probe.nacks_due)
      gossip->probe.nacks_due--;
    break;
  default:
    hear_ack (gossip, from);
  }
}

/* ---- time ---- */

static void
suspicions_step (struct gossip *gossip, uint64_t now_ms) {
  for (uint32_t i = 0; gossip->figures.suspect && i < gossip->n; i++) {
    struct member *member = gossip->members[i];

    if (member->state != GOSSIP_SUSPECT || now_ms < member->since_ms + gossip_suspicion_ms (gossip, member))
      continue;
    gossip->figures.deaths++;
    gossip_set_state (gossip, member, GOSSIP_DEAD, now_ms);
  }
}

/* Two sides of a partition have given each other up: somebody has to look. It hears in the ping what is said of it. */
static void
reconnect_step (struct gossip *gossip, uint64_t now_ms) {
  uint32_t start;

  if (now_ms < gossip->next_reconnect_ms)
    return;
  gossip->next_reconnect_ms
      = now_ms + gossip->rules.reconnect_ms / 2 + gossip_random_below (gossip, gossip->rules.reconnect_ms + 1);
  if (!gossip->figures.dead || gossip->leaving)
    return;
  start = gossip_random_below (gossip, gossip->n);
  for (uint32_t i = 0; i < gossip->n; i++) {
    const struct member *member = gossip->members[(start + i) % gossip->n];

    if (member->state == GOSSIP_DEAD) {
      ping (gossip, member, ++gossip->seq);
      return;
    }
  }
}

void
gossip_probe_step (struct gossip *gossip, uint64_t now_ms) {
  relays_step (gossip, now_ms);
  suspicions_step (gossip, now_ms);
  reconnect_step (gossip, now_ms);
  if (gossip->probe.under_way && now_ms >= gossip->probe.end_ms)
    probe_failed (gossip, now_ms);
  if (gossip->probe.under_way && now_ms >= gossip->probe.help_ms && !gossip->probe.helped)
    ask_helpers (gossip);
  if (now_ms >= gossip->next_probe_ms && !gossip->probe.under_way && !gossip->leaving)
    begin_probe (gossip, now_ms);
}

/* We were not there: what was not answered may have been, and the suspects' time goes on from here. */
void
gossip_probe_absent (struct gossip *gossip, uint64_t away_ms, uint64_t now_ms) {
  gossip->probe.under_way = false;
  gossip->next_probe_ms = now_ms + gossip_random_below (gossip, gossip->rules.probe_ms);
  gossip->next_reconnect_ms += away_ms;
  change_health (gossip, 1);
  for (uint32_t i = 0; i < gossip->n; i++)
    if (gossip->members[i]->state == GOSSIP_SUSPECT)
      gossip->members[i]->since_ms += away_ms;
}

static void
sooner (uint64_t *due, uint64_t at) {
  if (at < *due)
    *due = at;
}

uint64_t
gossip_probe_due (const struct gossip *gossip) {
  const struct probe *probe = &gossip->probe;
  uint64_t due = gossip->next_reconnect_ms;

  if (probe->under_way)
    sooner (&due, probe->helped ? probe->end_ms : probe->help_ms);
  else if (!gossip->leaving)
    sooner (&due, gossip->next_probe_ms);
  for (uint32_t i = 0; i < GOSSIP_RELAYS; i++)
    if (gossip->relays[i].until_ms)
      sooner (&due, gossip->relays[i].nack_ms ? gossip->relays[i].nack_ms : gossip->relays[i].until_ms);
  for (uint32_t i = 0; gossip->figures.suspect && i < gossip->n; i++)
    if (gossip->members[i]->state == GOSSIP_SUSPECT)
      sooner (&due, gossip->members[i]->since_ms + gossip_suspicion_ms (gossip, gossip->members[i]));
  return due;
}
