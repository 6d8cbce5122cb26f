/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A host of a small zone, to which a member with a good key says anything, and repeats and changes what others said: their
 * records stay those that they signed, nobody is in the zone who is not approved, and what goes out is bounded.
 */
#include <glib.h>
#include <string.h>

#include "core/gossip.h"
#include "fuzz.h"

#define FRIENDS 3u /* 1 … 3; 4 is the liar */
#define LIAR 4u
#define VERSION 7u /* of friends' records */

struct scene {
  struct gossip *gossip;
  uint64_t now;
  unsigned sends;
};

static void
name (unsigned host, uint8_t *id) {
  memset (id, 0, GOSSIP_ID_BYTES);
  id[0] = (uint8_t)host;
}

static void
make_signature (const uint8_t *id, const uint8_t *bytes, size_t n, uint8_t *signature) {
  uint32_t sum = id[0];

  for (size_t i = 0; i < n; i++)
    sum = sum * 31 + bytes[i];
  memset (signature, 0, GOSSIP_SIGNATURE_BYTES);
  memcpy (signature, &sum, sizeof sum);
  signature[8] = id[0];
}

static void
sign (void *data, const uint8_t *bytes, size_t n, uint8_t *ret_signature) {
  make_signature (bytes, bytes, n, ret_signature);
}

/* The liar signs what it likes; of friends, there is one record each. */
static bool
verify (void *data, const uint8_t *id, const uint8_t *bytes, size_t n, const uint8_t *signature) {
  uint8_t good[GOSSIP_SIGNATURE_BYTES], whole[GOSSIP_ID_BYTES];

  name (id[0], whole);
  if (id[0] > LIAR || memcmp (whole, id, sizeof whole) != 0)
    return false;
  make_signature (id, bytes, n, good);
  return id[0] == LIAR || (bytes[39] == VERSION && bytes[35] == 1 && memcmp (good, signature, sizeof good) == 0);
}

static void
take_packet (void *data, const uint8_t *to, const uint8_t *address, const uint8_t *bytes, size_t n) {
  struct scene *scene = data;
  static struct gossip_packet packet;

  g_assert_true (gossip_packet_decode (bytes, n, &packet));
  g_assert_cmpuint (++scene->sends, <=, 10);
}

static void
hear (struct scene *scene, unsigned from, const uint8_t *bytes, size_t n) {
  const uint8_t address[GOSSIP_ADDRESS_BYTES] = { (uint8_t)from };
  uint8_t id[GOSSIP_ID_BYTES];

  name (from, id);
  scene->sends = 0;
  gossip_receive (scene->gossip, scene->now, id, true, address, bytes, n);
}

static void
begin (struct scene *scene) {
  struct gossip_options options
      = { .zone = 1, .incarnation = 1, .seed = 5, .rules = gossip_rules_default, .ops = { take_packet, sign, verify, scene } };

  *scene = (struct scene){ .now = 1000 };
  options.id[0] = 200;
  scene->gossip = gossip_new (&options, scene->now);
  for (unsigned host = 1; host <= FRIENDS; host++) {
    struct gossip_packet packet = { .kind = GOSSIP_TELL, .zone = 1, .low = 1, .n_records = 1 };
    uint8_t bytes[GOSSIP_PACKET_BYTES];

    name (host, packet.records[0].id);
    packet.records[0].incarnation = 1;
    packet.records[0].version = VERSION;
    gossip_record_encode (&packet.records[0], bytes);
    make_signature (packet.records[0].id, bytes, GOSSIP_RECORD_SIGNED_BYTES, packet.records[0].signature);
    hear (scene, host, bytes, gossip_packet_encode (&packet, bytes));
  }
}

static void
check (struct scene *scene) {
  struct gossip_member member;

  for (uint32_t i = 0; gossip_member (scene->gossip, i, &member); i++) {
    g_assert_cmpuint (i, <, LIAR);
    g_assert_true (gossip_record_is_sane (member.record));
    g_assert_cmpuint (member.record->id[0], <=, LIAR);
    if (member.record->id[0] == LIAR)
      continue;
    g_assert_cmpuint (member.record->version, ==, VERSION);
    g_assert_cmpuint (member.record->incarnation, ==, 1);
    g_assert_cmpuint (member.record->tiers[0].capacity, ==, 0);
  }
  g_assert_cmpuint (gossip_own (scene->gossip)->incarnation, <, 1000000);
}

/* Input: a first byte says what: time passes (1 byte, × 50 ms), or a packet of the liar's: its length (2 bytes), its bytes. */
int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size) {
  struct input input = { data, size };
  uint8_t bytes[GOSSIP_PACKET_BYTES + 1];
  struct scene scene;

  begin (&scene);
  while (input.left) {
    if (input_8 (&input) % 4 == 0) {
      scene.now += input_8 (&input) * 50u;
      scene.sends = 0;
      gossip_step (scene.gossip, scene.now);
    } else {
      const size_t n = input_16 (&input) % sizeof bytes;

      input_bytes (&input, bytes, n);
      hear (&scene, LIAR, bytes, n);
    }
    check (&scene);
  }
  gossip_free (scene.gossip);
  return 0;
}
