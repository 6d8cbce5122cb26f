/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The codec of gossip: what it takes it writes again as it was, and it takes nothing that no host would write. */
#include "core/gossip-wire.h"
#include "testing.h"

#include <string.h>

static void
make_record (GRand *rand, struct gossip_record *record) {
  record->id[testing_below (rand, 8)] = 3;
  record->incarnation = (uint32_t)testing_edgy (rand) | 1;
  record->version = (uint32_t)testing_edgy (rand);
  record->flags = (uint8_t)testing_below (rand, 2);
  for (unsigned i = 0; i < GOSSIP_TIERS; i++) {
    struct gossip_tier *tier = &record->tiers[i];

    tier->capacity = (uint32_t)testing_edgy (rand);
    tier->free = (uint32_t)testing_below (rand, tier->capacity + 1ull);
    tier->rate = (uint16_t)testing_edgy (rand);
    tier->fragmentation = (uint8_t)testing_below (rand, 101);
    tier->load = (uint8_t)testing_below (rand, 101);
    tier->pressure = (uint8_t)testing_below (rand, 101);
  }
  memset (record->signature, (int)testing_below (rand, 256), sizeof record->signature);
}

static void
make_packet (GRand *rand, struct gossip_packet *packet) {
  memset (packet, 0, sizeof *packet);
  packet->kind = (enum gossip_kind) (GOSSIP_PING + testing_below (rand, 8));
  packet->zone = (uint32_t)testing_edgy (rand);
  packet->seq = (uint32_t)testing_edgy (rand);
  packet->low = 1;
  if (packet->kind == GOSSIP_PING || (packet->kind >= GOSSIP_PING_REQ && packet->kind <= GOSSIP_NACK))
    for (unsigned i = 0; i < GOSSIP_SHORT_BYTES; i++)
      packet->target[i] = (uint8_t)(1 + testing_below (rand, 255));
  if (packet->kind == GOSSIP_SYNC && testing_once_in (rand, 2)) {
    packet->low = (uint32_t)testing_below (rand, GOSSIP_PREFIX_MAX);
    packet->high = packet->low + (uint32_t)testing_below (rand, GOSSIP_PREFIX_MAX - packet->low + 1);
  }
  packet->n_accusations = (uint8_t)testing_below (rand, GOSSIP_PACKET_ACCUSATIONS + 1);
  for (unsigned i = 0; i < packet->n_accusations; i++) {
    packet->accusations[i].accused[testing_below (rand, 8)] = 1;
    packet->accusations[i].accuser[testing_below (rand, 8)] = 2;
    packet->accusations[i].incarnation = (uint32_t)testing_edgy (rand);
  }
  if (packet->kind == GOSSIP_SYNC || packet->kind == GOSSIP_WANT)
    packet->n_entries = (uint8_t)testing_below (rand, gossip_packet_room (packet) / GOSSIP_ENTRY_BYTES + 1);
  for (unsigned i = 0; i < packet->n_entries; i++) {
    packet->entries[i].prefix = (uint32_t)testing_edgy (rand) & GOSSIP_PREFIX_MAX;
    packet->entries[i].version = packet->kind == GOSSIP_SYNC ? (uint16_t)testing_edgy (rand) : 0;
  }
  packet->n_records = (uint8_t)testing_below (rand, gossip_packet_room (packet) / GOSSIP_RECORD_BYTES + 1);
  for (unsigned i = 0; i < packet->n_records; i++)
    make_record (rand, &packet->records[i]);
}

static void
test_round (void) {
  g_autoptr (GRand) rand = testing_rand ();
  static struct gossip_packet packet, back;
  uint8_t bytes[GOSSIP_PACKET_BYTES], again[GOSSIP_PACKET_BYTES];

  for (unsigned i = 0; i < testing_steps (20000); i++) {
    size_t n;

    make_packet (rand, &packet);
    n = gossip_packet_encode (&packet, bytes);
    g_assert_cmpuint (n, <=, GOSSIP_PACKET_BYTES);
    g_assert_cmpuint (n, ==, GOSSIP_PACKET_BYTES - gossip_packet_room (&packet));
    g_assert_true (gossip_packet_decode (bytes, n, &back));
    g_assert_cmpmem (again, gossip_packet_encode (&back, again), bytes, n);
    g_assert_false (gossip_packet_decode (bytes, n - 1, &back));
    bytes[testing_below (rand, n)] ^= (uint8_t)(1 + testing_below (rand, 255));
    if (gossip_packet_decode (bytes, n, &back)) /* perhaps another one, but a good one */
      g_assert_cmpmem (again, gossip_packet_encode (&back, again), bytes, n);
  }
}

/* 10⁶ packets of any bytes behind a header that leads inside; each is taken whole or not at all. */
static void
test_any_bytes (void) {
  g_autoptr (GRand) rand = testing_rand ();
  static struct gossip_packet back;
  uint8_t bytes[256], again[GOSSIP_PACKET_BYTES];
  unsigned taken = 0;

  for (unsigned i = 0; i < testing_steps (1000000); i++) {
    size_t n = testing_below (rand, sizeof bytes);

    for (size_t k = 0; k < sizeof bytes; k += 4) {
      const uint32_t word = g_rand_int (rand);

      memcpy (bytes + k, &word, 4);
    }
    if (!testing_once_in (rand, 10)) {
      const uint8_t header[] = { GOSSIP_PROTOCOL_VERSION, bytes[1] % 10, bytes[2] % 3, bytes[3] % 4, bytes[4] % 2 };

      memcpy (bytes, header, sizeof header);
      n = GOSSIP_HEADER_BYTES + header[2] * GOSSIP_ACCUSATION_BYTES + header[3] * GOSSIP_ENTRY_BYTES
          + header[4] * GOSSIP_RECORD_BYTES;
      if (bytes[5] % 2)
        memset (bytes + 13, 0, 8);
      memcpy (bytes + 21, "\0\0\0\1\0\0\0\0", 8);
    }
    if (!gossip_packet_decode (bytes, n, &back))
      continue;
    taken++;
    g_assert_cmpmem (again, gossip_packet_encode (&back, again), bytes, n);
  }
  g_print ("# %u of %u taken\n", taken, testing_steps (1000000));
  g_assert_cmpuint (taken, >, testing_steps (1000000) / 1000);
}

/* Each field that is out of its range, alone. */
static void
test_refused (void) {
  struct {
    unsigned at;
    uint8_t value;
  } const wrong[] = {
    { 0, 2 },                                       /* version */
    { 1, 0 },                                       /* kind */
    { 1, 9 },         { 1, GOSSIP_ACK },            /* has no target */
    { 2, 2 },                                       /* more accusations than there are */
    { 3, 1 },                                       /* entries in a ping */
    { 4, 0 },         { 4, 2 },          { 24, 0 }, /* a range in a ping */
    { 29 + 15, 7 },                                 /* accuses itself */
    { 49 + 0, 0 },                                  /* record: no id */
    { 49 + 35, 0 },                                 /* incarnation 0 */
    { 49 + 40, 2 },                                 /* flags */
    { 49 + 66, 11 },                                /* more free than there is */
    { 49 + 69, 101 }, { 49 + 70, 101 },  { 49 + 71, 255 },
  };
  static struct gossip_packet packet;
  uint8_t good[GOSSIP_PACKET_BYTES], bytes[GOSSIP_PACKET_BYTES];
  size_t n;

  packet = (struct gossip_packet){ .kind = GOSSIP_PING, .low = 1, .target = { 9 }, .n_accusations = 1, .n_records = 1 };
  packet.accusations[0].accused[7] = 7;
  packet.accusations[0].accuser[7] = 6;
  packet.records[0].id[0] = 5;
  packet.records[0].incarnation = 1;
  packet.records[0].tiers[0] = (struct gossip_tier){ .capacity = 10, .free = 10 };
  n = gossip_packet_encode (&packet, good);
  g_assert_true (gossip_packet_decode (good, n, &packet));
  for (unsigned i = 0; i < G_N_ELEMENTS (wrong); i++) {
    memcpy (bytes, good, n);
    bytes[wrong[i].at] = wrong[i].value;
    if (gossip_packet_decode (bytes, n, &packet))
      g_error ("it takes byte %u = %u", wrong[i].at, wrong[i].value);
  }
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/gossip-wire/round", test_round);
  g_test_add_func ("/gossip-wire/any-bytes", test_any_bytes);
  g_test_add_func ("/gossip-wire/refused", test_refused);
  return g_test_run ();
}
