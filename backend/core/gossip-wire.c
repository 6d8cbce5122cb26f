/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Big endian, no padding:
 *
 *   packet      ┌ version 1, kind 1, numbers of accusations 1, entries 1, records 1, zone 4, seq 4, target 8, low 4, high 4 ┐
 *               └ accusations 20 each, entries 5 each, records 162 each ──────────────────────────────────────────────────┘
 *   accusation  accused 8, accuser 8, incarnation 4
 *   entry       prefix 3, version 2
 *   record      id 32, incarnation 4, version 4, flags 1, address 18, tiers 13 each, signature 64
 *   tier        capacity 4, free 4, rate 2, fragmentation 1, load 1, pressure 1
 */
#include "core/gossip-wire.h"

#include <string.h>

_Static_assert(GOSSIP_RECORD_SIGNED_BYTES == GOSSIP_ID_BYTES + 9 + GOSSIP_ADDRESS_BYTES + 13 * GOSSIP_TIERS, "as above");
_Static_assert(GOSSIP_PACKET_ENTRIES <= 255 && GOSSIP_PACKET_RECORDS <= 255, "their numbers are bytes");

static uint8_t *
put (uint8_t *at, unsigned bytes, uint64_t value) {
  for (unsigned i = 0; i < bytes; i++)
    at[i] = (uint8_t)(value >> 8 * (bytes - 1 - i));
  return at + bytes;
}

static uint32_t
get (const uint8_t **at, unsigned bytes) {
  uint32_t value = 0;

  for (unsigned i = 0; i < bytes; i++)
    value = value << 8 | (*at)[i];
  *at += bytes;
  return value;
}

static uint8_t *
put_bytes (uint8_t *at, const uint8_t *bytes, size_t n) {
  memcpy (at, bytes, n);
  return at + n;
}

static void
get_bytes (const uint8_t **at, uint8_t *out, size_t n) {
  memcpy (out, *at, n);
  *at += n;
}

static bool
is_zero (const uint8_t *bytes, size_t n) {
  for (size_t i = 0; i < n; i++)
    if (bytes[i])
      return false;
  return true;
}

/* ---- records ---- */

static uint8_t *
put_record (uint8_t *at, const struct gossip_record *record) {
  at = put_bytes (at, record->id, GOSSIP_ID_BYTES);
  at = put (at, 4, record->incarnation);
  at = put (at, 4, record->version);
  at = put (at, 1, record->flags);
  at = put_bytes (at, record->address, GOSSIP_ADDRESS_BYTES);
  for (unsigned i = 0; i < GOSSIP_TIERS; i++) {
    const struct gossip_tier *tier = &record->tiers[i];

    at = put (at, 4, tier->capacity);
    at = put (at, 4, tier->free);
    at = put (at, 2, tier->rate);
    at = put (at, 1, tier->fragmentation);
    at = put (at, 1, tier->load);
    at = put (at, 1, tier->pressure);
  }
  return at;
}

static void
get_record (const uint8_t **at, struct gossip_record *record) {
  get_bytes (at, record->id, GOSSIP_ID_BYTES);
  record->incarnation = get (at, 4);
  record->version = get (at, 4);
  record->flags = (uint8_t)get (at, 1);
  get_bytes (at, record->address, GOSSIP_ADDRESS_BYTES);
  for (unsigned i = 0; i < GOSSIP_TIERS; i++) {
    struct gossip_tier *tier = &record->tiers[i];

    tier->capacity = get (at, 4);
    tier->free = get (at, 4);
    tier->rate = (uint16_t)get (at, 2);
    tier->fragmentation = (uint8_t)get (at, 1);
    tier->load = (uint8_t)get (at, 1);
    tier->pressure = (uint8_t)get (at, 1);
  }
  get_bytes (at, record->signature, GOSSIP_SIGNATURE_BYTES);
}

void
gossip_record_encode (const struct gossip_record *record, uint8_t *out) {
  (void)put_record (out, record);
}

bool
gossip_record_is_sane (const struct gossip_record *record) {
  if (is_zero (record->id, GOSSIP_SHORT_BYTES) || record->flags > GOSSIP_LEFT || record->incarnation == 0)
    return false;
  for (unsigned i = 0; i < GOSSIP_TIERS; i++) {
    const struct gossip_tier *tier = &record->tiers[i];

    if (tier->free > tier->capacity || tier->fragmentation > 100 || tier->load > 100 || tier->pressure > 100)
      return false;
  }
  return true;
}

/* ---- packets ---- */

static size_t
packet_bytes (const struct gossip_packet *packet) {
  return GOSSIP_HEADER_BYTES + packet->n_accusations * GOSSIP_ACCUSATION_BYTES + packet->n_entries * GOSSIP_ENTRY_BYTES
         + packet->n_records * GOSSIP_RECORD_BYTES;
}

size_t
gossip_packet_room (const struct gossip_packet *packet) {
  const size_t bytes = packet_bytes (packet);

  return bytes < GOSSIP_PACKET_BYTES ? GOSSIP_PACKET_BYTES - bytes : 0;
}

size_t
gossip_packet_encode (const struct gossip_packet *packet, uint8_t *out) {
  uint8_t *at = out;

  at = put (at, 1, GOSSIP_PROTOCOL_VERSION);
  at = put (at, 1, packet->kind);
  at = put (at, 1, packet->n_accusations);
  at = put (at, 1, packet->n_entries);
  at = put (at, 1, packet->n_records);
  at = put (at, 4, packet->zone);
  at = put (at, 4, packet->seq);
  at = put_bytes (at, packet->target, GOSSIP_SHORT_BYTES);
  at = put (at, 4, packet->low);
  at = put (at, 4, packet->high);
  for (unsigned i = 0; i < packet->n_accusations; i++) {
    at = put_bytes (at, packet->accusations[i].accused, GOSSIP_SHORT_BYTES);
    at = put_bytes (at, packet->accusations[i].accuser, GOSSIP_SHORT_BYTES);
    at = put (at, 4, packet->accusations[i].incarnation);
  }
  for (unsigned i = 0; i < packet->n_entries; i++) {
    at = put (at, 3, packet->entries[i].prefix);
    at = put (at, 2, packet->entries[i].version);
  }
  for (unsigned i = 0; i < packet->n_records; i++) {
    at = put_record (at, &packet->records[i]);
    at = put_bytes (at, packet->records[i].signature, GOSSIP_SIGNATURE_BYTES);
  }
  return (size_t)(at - out);
}

/* Whether the fields that go with the kind, and no others, are used. */
static bool
is_in_order (const struct gossip_packet *packet) {
  const bool has_target = packet->kind == GOSSIP_PING || packet->kind == GOSSIP_PING_REQ || packet->kind == GOSSIP_RELAYED
                          || packet->kind == GOSSIP_NACK;

  if (has_target == is_zero (packet->target, GOSSIP_SHORT_BYTES))
    return false;
  if (packet->kind != GOSSIP_SYNC && packet->kind != GOSSIP_WANT && packet->n_entries)
    return false;
  if (packet->low > packet->high || packet->kind != GOSSIP_SYNC)
    return packet->low == 1 && packet->high == 0;
  return packet->high <= GOSSIP_PREFIX_MAX;
}

bool
gossip_packet_decode (const uint8_t *bytes, size_t n, struct gossip_packet *ret_packet) {
  struct gossip_packet *packet = ret_packet;
  const uint8_t *at = bytes;
  uint32_t kind;

  if (n < GOSSIP_HEADER_BYTES || n > GOSSIP_PACKET_BYTES || get (&at, 1) != GOSSIP_PROTOCOL_VERSION)
    return false;
  kind = get (&at, 1);
  if (kind < GOSSIP_PING || kind > GOSSIP_WANT)
    return false;
  packet->kind = (enum gossip_kind)kind;
  packet->n_accusations = (uint8_t)get (&at, 1);
  packet->n_entries = (uint8_t)get (&at, 1);
  packet->n_records = (uint8_t)get (&at, 1);
  packet->zone = get (&at, 4);
  packet->seq = get (&at, 4);
  get_bytes (&at, packet->target, GOSSIP_SHORT_BYTES);
  packet->low = get (&at, 4);
  packet->high = get (&at, 4);
  if (packet->n_accusations > GOSSIP_PACKET_ACCUSATIONS || packet->n_entries > GOSSIP_PACKET_ENTRIES
      || packet->n_records > GOSSIP_PACKET_RECORDS || packet_bytes (packet) != n || !is_in_order (packet))
    return false;
  for (unsigned i = 0; i < packet->n_accusations; i++) {
    struct gossip_accusation *accusation = &packet->accusations[i];

    get_bytes (&at, accusation->accused, GOSSIP_SHORT_BYTES);
    get_bytes (&at, accusation->accuser, GOSSIP_SHORT_BYTES);
    accusation->incarnation = get (&at, 4);
    if (memcmp (accusation->accused, accusation->accuser, GOSSIP_SHORT_BYTES) == 0)
      return false; /* who can say so has an answer */
  }
  for (unsigned i = 0; i < packet->n_entries; i++) {
    packet->entries[i].prefix = get (&at, 3);
    packet->entries[i].version = (uint16_t)get (&at, 2);
    if (packet->kind == GOSSIP_WANT && packet->entries[i].version)
      return false;
  }
  for (unsigned i = 0; i < packet->n_records; i++) {
    get_record (&at, &packet->records[i]);
    if (!gossip_record_is_sane (&packet->records[i]))
      return false;
  }
  return true;
}
