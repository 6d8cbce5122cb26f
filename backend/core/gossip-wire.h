/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The bytes of gossip packets (specification: daemon/gossip.md). Everything that a peer says passes gossip_packet_decode, which
 * takes any bytes and refuses all that no host of this protocol would write; what it has taken encodes to the same bytes again.
 *
 * Sealing and opening packets, and knowing who has sealed one, is the caller's.
 */
#ifndef DOMYBS_CORE_GOSSIP_WIRE_H
#define DOMYBS_CORE_GOSSIP_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GOSSIP_PROTOCOL_VERSION 1u
#define GOSSIP_ID_BYTES 32u        /* hash of a host's certificate */
#define GOSSIP_SHORT_BYTES 8u      /* the beginning of an id: names a member of the zone */
#define GOSSIP_ADDRESS_BYTES 18u   /* IPv6 (or mapped IPv4) address, port: opaque to the core */
#define GOSSIP_SIGNATURE_BYTES 64u /* room for Ed25519 */
#define GOSSIP_PACKET_BYTES 1200u  /* at most: with its seal within the 1280 bytes that every IPv6 link carries */
#define GOSSIP_TIERS 3u            /* LOCAL, SHARED, REMOTE */

#define GOSSIP_HEADER_BYTES 29u
#define GOSSIP_ACCUSATION_BYTES 20u
#define GOSSIP_ENTRY_BYTES 5u
#define GOSSIP_PREFIX_MAX 0xffffffu
#define GOSSIP_RECORD_SIGNED_BYTES 98u
#define GOSSIP_RECORD_BYTES (GOSSIP_RECORD_SIGNED_BYTES + GOSSIP_SIGNATURE_BYTES)

#define GOSSIP_PACKET_ACCUSATIONS 16u
#define GOSSIP_PACKET_ENTRIES ((GOSSIP_PACKET_BYTES - GOSSIP_HEADER_BYTES) / GOSSIP_ENTRY_BYTES)
#define GOSSIP_PACKET_RECORDS ((GOSSIP_PACKET_BYTES - GOSSIP_HEADER_BYTES) / GOSSIP_RECORD_BYTES)

enum gossip_kind {
  GOSSIP_PING = 1,
  GOSSIP_ACK,      /* to the ping with that seq */
  GOSSIP_PING_REQ, /* ping `target` for me */
  GOSSIP_RELAYED,  /* `target` has answered the ping that you asked for */
  GOSSIP_NACK,     /* it has not, so far: I am here, and it is not me who is slow */
  GOSSIP_TELL,     /* what is in it, and nothing else */
  GOSSIP_SYNC,     /* entries: what I have */
  GOSSIP_WANT,     /* entries: what I want; versions are zero */
};

/* What a host says of one of its tiers. */
struct gossip_tier {
  uint32_t capacity, free; /* blocks; free ≤ capacity */
  uint16_t rate;           /* blocks allocated per second, 65535: or more */
  uint8_t fragmentation;   /* percent, here and below */
  uint8_t load;
  uint8_t pressure;
};

#define GOSSIP_LEFT 1u /* flag of a record: the host has left in order */

/* What a host says of itself, signed with its own key: only it can make a newer one. */
struct gossip_record {
  uint8_t id[GOSSIP_ID_BYTES];
  uint32_t incarnation, version; /* of two records of a host, the one with the higher pair is in force. version goes on when
                                    incarnation grows */
  uint8_t flags;
  uint8_t address[GOSSIP_ADDRESS_BYTES];
  struct gossip_tier tiers[GOSSIP_TIERS];
  uint8_t signature[GOSSIP_SIGNATURE_BYTES]; /* over the bytes before it */
};

/* `accuser` had no answer from `accused`, in that incarnation. */
struct gossip_accusation {
  uint8_t accused[GOSSIP_SHORT_BYTES], accuser[GOSSIP_SHORT_BYTES];
  uint32_t incarnation;
};

/* What somebody has of a host. */
struct gossip_entry {
  uint32_t prefix;  /* the first 3 bytes of the id: whoever has that prefix is meant, which is seldom more than one */
  uint16_t version; /* the low bits */
};

struct gossip_packet {
  enum gossip_kind kind;
  uint32_t zone, seq;
  uint8_t target[GOSSIP_SHORT_BYTES]; /* PING, PING_REQ, RELAYED, NACK: who is probed; zeroes else */
  uint32_t low, high; /* SYNC: of this range of prefixes, all that I have is listed; low > high (1, 0): none is */
  uint8_t n_accusations, n_entries, n_records;
  struct gossip_accusation accusations[GOSSIP_PACKET_ACCUSATIONS];
  struct gossip_entry entries[GOSSIP_PACKET_ENTRIES];
  struct gossip_record records[GOSSIP_PACKET_RECORDS];
};

/* False: no packet of this protocol; *ret_packet is undefined then. Signatures are not looked at. */
bool gossip_packet_decode (const uint8_t *bytes, size_t n, struct gossip_packet *ret_packet);
/* Returns how many bytes it takes; those are ≤ GOSSIP_PACKET_BYTES if what it holds is within gossip_packet_room. */
size_t gossip_packet_encode (const struct gossip_packet *packet, uint8_t *out); /* GOSSIP_PACKET_BYTES */
/* Bytes that are left. */
size_t gossip_packet_room (const struct gossip_packet *packet);

/* The part of a record that is signed. */
void gossip_record_encode (const struct gossip_record *record, uint8_t *out); /* GOSSIP_RECORD_SIGNED_BYTES */
/* Whether a host of this protocol could say that: numbers that add up, percentages ≤ 100, an id. */
bool gossip_record_is_sane (const struct gossip_record *record);

#endif
