/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is passed on. News goes out with every packet that has room, and in packets of their own while there is any: each record
 * and accusation a few times per host, fewer where it comes back from others. That reaches most hosts within a second; digests
 * (SYNC: what I have → WANT and records: what you lack, what I lack) bring the rest, and all that was missed. (Demers et al.:
 * Epidemic Algorithms for Replicated Database Maintenance, 1987: rumours with feedback, backed by anti-entropy.)
 */
#include "core/gossip-internal.h"

#include <string.h>

#define RANGE_ENTRIES 12u   /* of a digest while there is news: those whose turn it is */
#define RECENT_ENTRIES 100u /* … and those learnt lately */
#define QUIET_ENTRIES 150u  /* of a digest otherwise */
#define WANT_AGAIN_MS 300u
#define ANSWER_RECORDS (GOSSIP_ANSWER_PACKETS * GOSSIP_PACKET_RECORDS)

/* ---- packets ---- */

void
gossip_begin (struct gossip *gossip, enum gossip_kind kind, uint32_t seq, const uint8_t *target) {
  struct gossip_packet *out = &gossip->out;

  out->kind = kind;
  out->zone = gossip->options.zone;
  out->seq = seq;
  if (target)
    memcpy (out->target, target, GOSSIP_SHORT_BYTES);
  else
    memset (out->target, 0, GOSSIP_SHORT_BYTES);
  out->low = 1;
  out->high = 0;
  out->n_accusations = out->n_entries = out->n_records = 0;
}

static void
add_accusation (struct gossip_packet *out, const struct member *member, const uint8_t *accuser) {
  struct gossip_accusation *accusation = &out->accusations[out->n_accusations];

  if (out->n_accusations == GOSSIP_PACKET_ACCUSATIONS || gossip_packet_room (out) < GOSSIP_ACCUSATION_BYTES)
    return;
  memcpy (accusation->accused, member->record.id, GOSSIP_SHORT_BYTES);
  memcpy (accusation->accuser, accuser, GOSSIP_SHORT_BYTES);
  accusation->incarnation = member->record.incarnation;
  out->n_accusations++;
}

/* That it is suspected, too, if it is. A verdict is ours. */
static void
add_doubt (struct gossip *gossip, const struct member *member) {
  if (member->state == GOSSIP_SUSPECT && member->n_accusers)
    add_accusation (&gossip->out, member, member->accusers[0].id);
  else if (member->state == GOSSIP_SUSPECT || member->state == GOSSIP_DEAD)
    add_accusation (&gossip->out, member, gossip->own.id);
}

static bool
add_record (struct gossip_packet *out, const struct gossip_record *record) {
  if (gossip_packet_room (out) < GOSSIP_RECORD_BYTES)
    return false;
  for (unsigned i = 0; i < out->n_records; i++)
    if (memcmp (out->records[i].id, record->id, GOSSIP_SHORT_BYTES) == 0)
      return true;
  out->records[out->n_records++] = *record;
  return true;
}

/* ---- news ---- */

static void
add_accusations (struct gossip *gossip, const uint8_t *to) {
  const uint32_t start = gossip->n ? gossip_random_below (gossip, gossip->n) : 0;

  if (!gossip->figures.suspect && !gossip->figures.dead)
    return;
  for (uint32_t i = 0; i < gossip->n && gossip->out.n_accusations < GOSSIP_PACKET_ACCUSATIONS; i++) {
    struct member *member = gossip->members[(start + i) % gossip->n];

    for (uint32_t k = 0; k < member->n_accusers; k++) {
      if (!member->accusers[k].sends)
        continue;
      member->accusers[k].sends--;
      if (!to || memcmp (to, member->accusers[k].id, GOSSIP_SHORT_BYTES) != 0)
        add_accusation (&gossip->out, member, member->accusers[k].id);
    }
  }
}

/* Those first that were passed on least. */
static void
add_records (struct gossip *gossip, const uint8_t *to) {
  const uint32_t start = gossip->n ? gossip_random_below (gossip, gossip->n) : 0;

  for (uint32_t pushes = gossip->rules.pushes; pushes; pushes--)
    for (uint32_t i = 0; i < gossip->n; i++) {
      struct member *member = gossip->members[(start + i) % gossip->n];

      if (member->pushes != pushes)
        continue;
      if (gossip_packet_room (&gossip->out) < GOSSIP_RECORD_BYTES)
        return;
      member->pushes--;
      if (!to
          || (memcmp (to, member->record.id, GOSSIP_SHORT_BYTES) != 0 && memcmp (to, member->source, GOSSIP_SHORT_BYTES) != 0))
        (void)add_record (&gossip->out, &member->record);
    }
}

void
gossip_send (struct gossip *gossip, const struct member *member, const uint8_t *to, const uint8_t *address) {
  const bool in_doubt = member && (member->state == GOSSIP_SUSPECT || member->state == GOSSIP_DEAD);
  size_t n;

  if (in_doubt && (gossip->rules.buddy || member->state == GOSSIP_DEAD))
    add_doubt (gossip, member);
  if (member && member->state >= GOSSIP_DEAD) /* and yet here: perhaps it has forgotten what it said */
    (void)add_record (&gossip->out, &member->record);
  /* One that may not know us is told who speaks */
  if (!member || in_doubt || gossip->own_pushes) {
    if (add_record (&gossip->out, &gossip->own) && gossip->own_pushes)
      gossip->own_pushes--;
  }
  add_accusations (gossip, to);
  add_records (gossip, to);
  if (gossip->out.kind == GOSSIP_TELL && gossip->out.n_accusations + gossip->out.n_records == 0)
    return;
  n = gossip_packet_encode (&gossip->out, gossip->bytes);
  gossip->options.ops.send (gossip->options.ops.data, to, address, gossip->bytes, n);
}

void
gossip_tell_of_itself (struct gossip *gossip, const uint8_t *to, const uint8_t *address) {
  const struct member *member = gossip_by_short (gossip, to);

  if (!member)
    return;
  gossip_begin (gossip, GOSSIP_TELL, 0, NULL);
  (void)add_record (&gossip->out, &member->record);
  gossip_send (gossip, member, to, address);
}

bool
gossip_has_news (const struct gossip *gossip) {
  if (gossip->own_pushes)
    return true;
  for (uint32_t i = 0; i < gossip->n; i++) {
    const struct member *member = gossip->members[i];

    if (member->pushes)
      return true;
    for (uint32_t k = 0; k < member->n_accusers; k++)
      if (member->accusers[k].sends)
        return true;
  }
  return false;
}

static const struct member *
anybody (struct gossip *gossip) {
  const uint32_t start = gossip->n ? gossip_random_below (gossip, gossip->n) : 0;

  for (uint32_t i = 0; i < gossip->n; i++) {
    const struct member *member = gossip->members[(start + i * 7919u) % gossip->n];

    if (member->state < GOSSIP_DEAD)
      return member;
  }
  return NULL;
}

/* ---- digests ---- */

static void
add_entry (struct gossip_packet *out, const struct gossip_record *record) {
  if (out->n_entries == GOSSIP_PACKET_ENTRIES)
    return;
  out->entries[out->n_entries++]
      = (struct gossip_entry){ .prefix = gossip_prefix (record->id), .version = (uint16_t)record->version };
}

static bool
is_news_time (const struct gossip *gossip, uint64_t now_ms) {
  return now_ms - gossip->news_ms < 2 * (uint64_t)gossip->rules.recent_ms;
}

/* All of a range, from where the last digest has ended; and what was learnt lately. */
void
gossip_send_sync (struct gossip *gossip, const struct member *member, const uint8_t *to, const uint8_t *address,
                  uint64_t now_ms) {
  struct gossip_packet *out = &gossip->out;
  const uint32_t most = is_news_time (gossip, now_ms) ? RANGE_ENTRIES : QUIET_ENTRIES;
  uint32_t at = gossip_lower_bound (gossip, gossip->cursor);

  gossip_begin (gossip, GOSSIP_SYNC, 0, NULL);
  out->low = gossip->cursor;
  for (; at < gossip->n && out->n_entries < most; at++)
    add_entry (out, &gossip->members[at]->record);
  out->high = at < gossip->n ? gossip_prefix (gossip->members[at - 1]->record.id) : GOSSIP_PREFIX_MAX;
  gossip->cursor = out->high == GOSSIP_PREFIX_MAX ? 0 : out->high + 1;
  add_entry (out, &gossip->own);
  for (uint32_t i = 0; i < gossip->n && out->n_entries < most + RECENT_ENTRIES; i++) {
    const struct gossip_record *record = &gossip->members[i]->record;
    const uint32_t prefix = gossip_prefix (record->id);

    if (now_ms - gossip->members[i]->learnt_ms < gossip->rules.recent_ms && (prefix < out->low || prefix > out->high))
      add_entry (out, record);
  }
  gossip_send (gossip, member, to, address);
}

/* Records for one that asked; the caller has begun a packet, which is sent even without any if it has entries. */
static void
send_records (struct gossip *gossip, const struct gossip_record *const *records, uint32_t n, const uint8_t *to,
              const uint8_t *address) {
  const struct member *member = gossip_by_short (gossip, to);

  for (uint32_t i = 0; i < n; i++) {
    const struct member *about = gossip_by_short (gossip, records[i]->id); /* NULL: us */

    if (gossip_packet_room (&gossip->out) < GOSSIP_RECORD_BYTES + GOSSIP_ACCUSATION_BYTES) {
      gossip_send (gossip, member, to, address);
      gossip_begin (gossip, GOSSIP_TELL, 0, NULL);
    }
    (void)add_record (&gossip->out, records[i]);
    if (about)
      add_doubt (gossip, about);
  }
  if (gossip->out.n_records || gossip->out.n_entries)
    gossip_send (gossip, member, to, address);
}

struct answer {
  const struct gossip_record *records[ANSWER_RECORDS];
  uint32_t n;
};

static void
answer_with (struct answer *answer, const struct gossip_record *record) {
  if (answer->n < ANSWER_RECORDS)
    answer->records[answer->n++] = record;
}

static void
want (struct gossip_packet *out, uint32_t prefix) {
  /* Half of the packet at most: the rest is for what they lack. */
  if (out->n_entries < GOSSIP_PACKET_ENTRIES / 2)
    out->entries[out->n_entries++] = (struct gossip_entry){ .prefix = prefix };
}

/* > 0: theirs is newer. Low bits, compared as numbers that go round. */
static int
compare_entry (const struct gossip_entry *entry, const struct gossip_record *have) {
  return (int16_t)(entry->version - (uint16_t)have->version);
}

static void
hear_entry (struct gossip *gossip, const struct gossip_entry *entry, struct answer *answer, uint64_t now_ms) {
  bool known = false;

  if (entry->prefix == gossip_prefix (gossip->own.id)) {
    const int order = compare_entry (entry, &gossip->own);

    known = true;
    gossip->own_listed = gossip->serial;
    if (order < 0)
      answer_with (answer, &gossip->own);
    else if (order > 0)
      want (&gossip->out, entry->prefix); /* from an earlier life */
  }
  for (uint32_t at = gossip_lower_bound (gossip, entry->prefix); at < gossip->n; at++) {
    struct member *member = gossip->members[at];
    int order;

    if (gossip_prefix (member->record.id) != entry->prefix)
      break;
    known = true;
    member->listed = gossip->serial;
    order = compare_entry (entry, &member->record);
    if (order < 0)
      answer_with (answer, &member->record);
    else if (order > 0 && (!member->wanted_ms || now_ms - member->wanted_ms >= WANT_AGAIN_MS)) {
      member->wanted_ms = now_ms;
      want (&gossip->out, entry->prefix);
    }
  }
  if (!known)
    want (&gossip->out, entry->prefix);
}

void
gossip_hear_sync (struct gossip *gossip, const uint8_t *from, const uint8_t *address, uint64_t now_ms) {
  const struct gossip_packet *in = &gossip->in;
  struct answer answer = { .n = 0 };
  uint32_t first, n = 0, start;

  gossip_begin (gossip, GOSSIP_WANT, 0, NULL);
  gossip->serial++;
  for (unsigned i = 0; i < in->n_entries; i++)
    hear_entry (gossip, &in->entries[i], &answer, now_ms);
  /* What is in their range and not listed, they lack. Beginning anywhere: others tell them others. */
  first = gossip_lower_bound (gossip, in->low);
  while (in->low <= in->high && first + n < gossip->n && gossip_prefix (gossip->members[first + n]->record.id) <= in->high)
    n++;
  if (gossip->own_listed != gossip->serial && gossip_prefix (gossip->own.id) >= in->low
      && gossip_prefix (gossip->own.id) <= in->high)
    answer_with (&answer, &gossip->own);
  start = n ? gossip_random_below (gossip, n) : 0;
  for (uint32_t i = 0; i < n; i++) {
    const struct member *member = gossip->members[first + (start + i) % n];

    if (member->listed != gossip->serial && memcmp (member->record.id, from, GOSSIP_SHORT_BYTES) != 0)
      answer_with (&answer, &member->record);
  }
  send_records (gossip, answer.records, answer.n, from, address);
}

void
gossip_hear_want (struct gossip *gossip, const uint8_t *from, const uint8_t *address) {
  const struct gossip_packet *in = &gossip->in;
  struct answer answer = { .n = 0 };

  for (unsigned i = 0; i < in->n_entries; i++) {
    if (in->entries[i].prefix == gossip_prefix (gossip->own.id))
      answer_with (&answer, &gossip->own);
    for (uint32_t at = gossip_lower_bound (gossip, in->entries[i].prefix); at < gossip->n; at++) {
      if (gossip_prefix (gossip->members[at]->record.id) != in->entries[i].prefix)
        break;
      answer_with (&answer, &gossip->members[at]->record);
    }
  }
  gossip_begin (gossip, GOSSIP_TELL, 0, NULL);
  send_records (gossip, answer.records, answer.n, from, address);
}

/* ---- time ---- */

void
gossip_spread_step (struct gossip *gossip, uint64_t now_ms) {
  const struct member *member;

  if (now_ms >= gossip->next_spread_ms && gossip_has_news (gossip)) {
    gossip->next_spread_ms = now_ms + gossip->rules.spread_ms;
    member = anybody (gossip);
    if (member) {
      gossip_begin (gossip, GOSSIP_TELL, 0, NULL);
      gossip_send (gossip, member, member->record.id, member->record.address);
    }
  }
  if (now_ms >= gossip->next_sync_ms) {
    const uint32_t pause = is_news_time (gossip, now_ms) ? gossip->rules.sync_ms : gossip->rules.quiet_sync_ms;

    gossip->next_sync_ms = now_ms + pause / 2 + gossip_random_below (gossip, pause + 1);
    member = gossip->leaving ? NULL : anybody (gossip);
    if (member)
      gossip_send_sync (gossip, member, member->record.id, member->record.address, now_ms);
  }
  if (is_news_time (gossip, now_ms) && gossip->next_sync_ms > now_ms + 2 * (uint64_t)gossip->rules.sync_ms)
    gossip->next_sync_ms = now_ms + gossip_random_below (gossip, gossip->rules.sync_ms + 1);
}

uint64_t
gossip_spread_due (const struct gossip *gossip) {
  if (gossip->figures.alive + gossip->figures.suspect && gossip->next_spread_ms < gossip->next_sync_ms
      && gossip_has_news (gossip))
    return gossip->next_spread_ms;
  return gossip->next_sync_ms;
}
