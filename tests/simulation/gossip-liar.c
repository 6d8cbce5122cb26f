/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What hostile members, outsiders and wire-tappers do in a simulated zone. */
#include "gossip-world.h"

#include <string.h>

static void
begin (struct gossip_packet *packet, enum gossip_kind kind) {
  memset (packet, 0, sizeof *packet);
  packet->kind = kind;
  packet->zone = WORLD_ZONE;
  packet->low = 1;
}

static struct gossip_host *
victim (struct gossip_world *world) {
  return &world->hosts[gossip_world_below (world, world->plan.hosts)];
}

static uint32_t
incarnation_of (const struct gossip_host *host) {
  return host->gossip ? gossip_own (host->gossip)->incarnation : 1;
}

/* Others' records, changed or made up; the liar's own ones with the largest numbers, two of the same version. */
static void
add_records (struct gossip_world *world, struct gossip_host *liar, struct gossip_packet *packet) {
  for (unsigned i = 0; i < 1 + gossip_world_below (world, 3); i++) {
    struct gossip_record *record = &packet->records[packet->n_records++];
    struct gossip_host *about = gossip_world_odds (world, 300) ? liar : victim (world);

    if (about->gossip)
      *record = *gossip_own (about->gossip);
    memcpy (record->id, about->id, GOSSIP_ID_BYTES);
    record->incarnation = MAX (record->incarnation, 1);
    switch (gossip_world_below (world, 5)) {
    case 0:
      record->incarnation += (uint32_t)gossip_world_below (world, 3);
      record->version += (uint32_t)gossip_world_below (world, 3);
      break;
    case 1:
      record->flags = GOSSIP_LEFT;
      record->version++;
      break;
    case 2:
      record->tiers[0].free = record->tiers[0].capacity = UINT32_MAX;
      record->version++;
      break;
    case 3: /* Sybil */
      record->id[5] ^= 1;
      break;
    default:
      record->address[1] ^= 1;
      record->version++;
    }
    if (about == liar)
      gossip_world_sign (world, liar->number, record);
  }
}

static void
add_accusations (struct gossip_world *world, const struct gossip_host *liar, struct gossip_packet *packet) {
  const struct gossip_host *accused = victim (world);

  for (unsigned i = 0; i < 1 + gossip_world_below (world, 5); i++) {
    struct gossip_accusation *accusation = &packet->accusations[packet->n_accusations];
    const struct gossip_host *accuser = gossip_world_odds (world, 500) ? liar : victim (world);

    if (accuser == accused)
      continue;
    memcpy (accusation->accused, accused->id, GOSSIP_SHORT_BYTES);
    memcpy (accusation->accuser, accuser->id, GOSSIP_SHORT_BYTES);
    accusation->incarnation = incarnation_of (accused) + (gossip_world_odds (world, 100) ? 1 : 0);
    if (gossip_world_odds (world, 20))
      accusation->incarnation = UINT32_MAX;
    packet->n_accusations++;
  }
}

static void
add_entries (struct gossip_world *world, struct gossip_packet *packet) {
  packet->kind = gossip_world_odds (world, 500) ? GOSSIP_SYNC : GOSSIP_WANT;
  if (packet->kind == GOSSIP_SYNC) {
    packet->low = 0;
    packet->high = GOSSIP_PREFIX_MAX;
  }
  for (unsigned i = 0; i < gossip_world_below (world, 80); i++) {
    const uint8_t *id = victim (world)->id;
    struct gossip_entry *entry = &packet->entries[packet->n_entries++];

    entry->prefix = (uint32_t)id[0] << 16 | (uint32_t)id[1] << 8 | id[2];
    if (packet->kind == GOSSIP_SYNC)
      entry->version = (uint16_t)gossip_world_below (world, 65536);
  }
}

/* As other kinds: answers to pings of others, for others. */
static void
add_target (struct gossip_world *world, struct gossip_packet *packet) {
  packet->kind = (enum gossip_kind) (GOSSIP_PING + gossip_world_below (world, 5));
  packet->seq = (uint32_t)gossip_world_below (world, UINT32_MAX);
  if (packet->kind != GOSSIP_ACK)
    memcpy (packet->target, victim (world)->id, GOSSIP_SHORT_BYTES);
}

void
gossip_world_lie (struct gossip_world *world, struct gossip_host *liar) {
  static struct gossip_packet packet;
  uint8_t bytes[GOSSIP_PACKET_BYTES + 1];
  struct gossip_host *host = victim (world);
  size_t n;

  world->lies++;
  begin (&packet, GOSSIP_TELL);
  if (gossip_world_odds (world, 500))
    add_accusations (world, liar, &packet);
  if (gossip_world_odds (world, 600))
    add_records (world, liar, &packet);
  if (gossip_world_odds (world, 300))
    add_entries (world, &packet);
  else if (gossip_world_odds (world, 300))
    add_target (world, &packet);
  if (gossip_world_odds (world, 50))
    packet.zone++;
  if (gossip_packet_room (&packet) == 0)
    return;
  n = gossip_packet_encode (&packet, bytes);
  if (gossip_world_odds (world, 100))
    bytes[gossip_world_below (world, n)] ^= (uint8_t)(1 + gossip_world_below (world, 255));
  if (gossip_world_odds (world, 50))
    n = gossip_world_below (world, sizeof bytes);
  if (host == liar)
    return;
  if (gossip_world_odds (world, 100) && host->fate == HOST_RUNS && !host->paused_until) { /* somebody who was expelled */
    world->caller = host->number;
    gossip_receive (host->gossip, world->now, (const uint8_t *)"nobody whom anybody has approved", false, liar->address, bytes,
                    n);
    gossip_world_touched (world, host);
    return;
  }
  gossip_world_inject (world, liar->number, host->number, bytes, n);
}
