/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One host's gossip, story by story, against others that the test plays. Many of them together are simulated
 * (tests/simulation/test-gossip-simulation.c). */
#include "core/gossip.h"
#include "testing.h"

#include <string.h>

#define ZONE 5u
#define HOSTS 600u /* that the test can play; 0 is the one under test */

struct sent {
  uint32_t to; /* by address */
  struct gossip_packet packet;
};

struct scene {
  struct gossip *gossip;
  uint64_t now;
  GArray *sent; /* of struct sent */
  uint32_t seq;
};

static void
name (uint32_t host, uint8_t *id) {
  memset (id, 0, GOSSIP_ID_BYTES);
  id[0] = (uint8_t)(1 + host % 200);
  id[1] = (uint8_t)(host >> 8);
  id[2] = (uint8_t)host;
}

static uint32_t
number (const uint8_t *id) {
  return (uint32_t)id[1] << 8 | id[2];
}

/* Whose bytes these are: the signature says so by the id and a sum. */
static void
make_signature (const uint8_t *id, const uint8_t *bytes, size_t n, uint8_t *signature) {
  uint32_t sum = 7;

  for (size_t i = 0; i < n; i++)
    sum = sum * 31 + bytes[i];
  memset (signature, 0, GOSSIP_SIGNATURE_BYTES);
  memcpy (signature, id, GOSSIP_ID_BYTES);
  memcpy (signature + GOSSIP_ID_BYTES, &sum, sizeof sum);
}

static void
sign (void *data, const uint8_t *bytes, size_t n, uint8_t *ret_signature) {
  make_signature (bytes, bytes, n, ret_signature);
}

static bool
verify (void *data, const uint8_t *id, const uint8_t *bytes, size_t n, const uint8_t *signature) {
  uint8_t good[GOSSIP_SIGNATURE_BYTES];

  make_signature (id, bytes, n, good);
  return memcmp (good, signature, sizeof good) == 0 && number (id) < HOSTS;
}

static void
take_packet (void *data, const uint8_t *to, const uint8_t *address, const uint8_t *bytes, size_t n) {
  struct scene *scene = data;
  struct sent sent = { .to = (uint32_t)address[0] << 8 | address[1] };

  g_assert_true (gossip_packet_decode (bytes, n, &sent.packet));
  g_array_append_val (scene->sent, sent);
}

static struct gossip_options
options_of (struct scene *scene) {
  struct gossip_options options = {
    .zone = ZONE, .incarnation = 10, .seed = 1, .rules = gossip_rules_default, .ops = { take_packet, sign, verify, scene }
  };

  name (0, options.id);
  return options;
}

static void
scene_init (struct scene *scene) {
  struct gossip_options options;

  *scene = (struct scene){ .now = 100000, .sent = g_array_new (FALSE, FALSE, sizeof (struct sent)) };
  options = options_of (scene);
  scene->gossip = gossip_new (&options, scene->now);
  g_assert_nonnull (scene->gossip);
}

static void
scene_clear (struct scene *scene) {
  gossip_free (scene->gossip);
  g_array_unref (scene->sent);
}

static void
begin (struct gossip_packet *packet, enum gossip_kind kind) {
  memset (packet, 0, sizeof *packet);
  packet->kind = kind;
  packet->zone = ZONE;
  packet->low = 1;
}

static struct gossip_record *
add_record (struct gossip_packet *packet, uint32_t host, uint32_t incarnation, uint32_t version) {
  struct gossip_record *record = &packet->records[packet->n_records++];
  uint8_t bytes[GOSSIP_RECORD_SIGNED_BYTES];

  *record = (struct gossip_record){ .incarnation = incarnation, .version = version };
  name (host, record->id);
  record->address[0] = (uint8_t)(host >> 8);
  record->address[1] = (uint8_t)host;
  gossip_record_encode (record, bytes);
  make_signature (record->id, bytes, sizeof bytes, record->signature);
  return record;
}

static void
add_accusation (struct gossip_packet *packet, uint32_t accused, uint32_t accuser, uint32_t incarnation) {
  uint8_t id[GOSSIP_ID_BYTES];

  name (accused, id);
  memcpy (packet->accusations[packet->n_accusations].accused, id, GOSSIP_SHORT_BYTES);
  name (accuser, id);
  memcpy (packet->accusations[packet->n_accusations].accuser, id, GOSSIP_SHORT_BYTES);
  packet->accusations[packet->n_accusations++].incarnation = incarnation;
}

static void
hear (struct scene *scene, uint32_t from, const struct gossip_packet *packet) {
  uint8_t id[GOSSIP_ID_BYTES], address[GOSSIP_ADDRESS_BYTES] = { (uint8_t)(from >> 8), (uint8_t)from };
  uint8_t bytes[GOSSIP_PACKET_BYTES];
  const size_t n = gossip_packet_encode (packet, bytes);

  name (from, id);
  gossip_receive (scene->gossip, scene->now, id, true, address, bytes, n);
}

static void
meet (struct scene *scene, uint32_t first, uint32_t last) {
  for (uint32_t host = first; host <= last; host++) {
    struct gossip_packet packet;

    begin (&packet, GOSSIP_TELL);
    add_record (&packet, host, 10, 1);
    hear (scene, host, &packet);
  }
}

static bool
find (struct scene *scene, uint32_t host, struct gossip_member *member) {
  uint8_t id[GOSSIP_ID_BYTES];

  name (host, id);
  return gossip_find (scene->gossip, id, member);
}

static enum gossip_state
state (struct scene *scene, uint32_t host) {
  struct gossip_member member;

  g_assert_true (find (scene, host, &member));
  return member.state;
}

/* Time goes on; hosts up to `answering` answer pings, as helpers, too (with NACK about those who do not). */
static void
pass (struct scene *scene, uint64_t ms, uint32_t answering) {
  const uint64_t end = scene->now + ms;

  while (scene->now < end) {
    const uint64_t wait = gossip_wait_ms (scene->gossip, scene->now);

    scene->now += wait < 1 ? 1 : wait > end - scene->now ? end - scene->now : wait;
    gossip_step (scene->gossip, scene->now);
    for (guint i = 0; i < scene->sent->len; i++) {
      const struct sent sent = g_array_index (scene->sent, struct sent, i);
      struct gossip_packet packet;

      if (sent.to == 0 || sent.to > answering || (sent.packet.kind != GOSSIP_PING && sent.packet.kind != GOSSIP_PING_REQ))
        continue;
      begin (&packet, sent.packet.kind == GOSSIP_PING ? GOSSIP_ACK : GOSSIP_NACK);
      packet.seq = sent.packet.seq;
      if (packet.kind == GOSSIP_NACK)
        memcpy (packet.target, sent.packet.target, GOSSIP_SHORT_BYTES);
      hear (scene, sent.to, &packet);
    }
    g_array_set_size (scene->sent, 0);
  }
}

static void
test_death (void) {
  struct gossip_figures figures;
  struct scene scene;

  scene_init (&scene);
  meet (&scene, 1, 6);
  pass (&scene, 20000, 6);
  for (uint32_t host = 1; host <= 6; host++)
    g_assert_cmpint (state (&scene, host), ==, GOSSIP_ALIVE);
  pass (&scene, 9000, 5); /* a round of five, and it was asked for */
  g_assert_cmpint (state (&scene, 6), ==, GOSSIP_SUSPECT);
  gossip_figures (scene.gossip, &figures);
  g_assert_cmpuint (figures.health, ==, 0); /* the helpers had no answer, either */
  pass (&scene, 10000, 5);
  g_assert_cmpint (state (&scene, 6), ==, GOSSIP_DEAD);
  for (uint32_t host = 1; host <= 5; host++)
    g_assert_cmpint (state (&scene, host), ==, GOSSIP_ALIVE);
  scene_clear (&scene);
}

/* Nobody answers: it is us. */
static void
test_own_health (void) {
  struct gossip_figures figures;
  struct scene scene;

  scene_init (&scene);
  meet (&scene, 1, 6);
  pass (&scene, 6000, 0);
  gossip_figures (scene.gossip, &figures);
  g_assert_cmpuint (figures.health, >=, 3);
  pass (&scene, 200000, 6);
  gossip_figures (scene.gossip, &figures);
  g_assert_cmpuint (figures.health, ==, 0);
  scene_clear (&scene);
}

static void
accuse (struct scene *scene, uint32_t from, uint32_t accused, uint32_t incarnation) {
  struct gossip_packet packet;

  begin (&packet, GOSSIP_TELL);
  add_accusation (&packet, accused, from, incarnation);
  hear (scene, from, &packet);
}

/* How long a suspicion lasts with so many accusers. */
static uint64_t
suspicion_ms (uint32_t accusers) {
  struct scene scene;
  uint64_t began;

  scene_init (&scene);
  meet (&scene, 1, 9);
  pass (&scene, 2000, 9);
  began = scene.now;
  for (uint32_t host = 1; host <= accusers; host++)
    accuse (&scene, host, 9, 10);
  while (state (&scene, 9) != GOSSIP_DEAD) {
    g_assert_cmpint (state (&scene, 9), ==, GOSSIP_SUSPECT);
    pass (&scene, 10, 9);
    g_assert_cmpuint (scene.now - began, <, 60000);
  }
  began = scene.now - began;
  scene_clear (&scene);
  return began;
}

static void
test_confirmations (void) {
  uint64_t last = UINT64_MAX;

  for (uint32_t accusers = 1; accusers <= 4; accusers++) {
    const uint64_t ms = suspicion_ms (accusers);

    g_assert_cmpuint (ms, <, last);
    last = ms;
  }
  g_assert_cmpuint (suspicion_ms (6), ==, last);
  g_assert_cmpuint (last, >=, 1250);
}

/* The same one twice, one that nobody knows, of an incarnation that was, or never was, are none. */
static void
test_empty_accusations (void) {
  struct gossip_packet packet;
  struct gossip_member member;
  struct scene scene;

  scene_init (&scene);
  meet (&scene, 1, 5);
  accuse (&scene, 1, 5, 9);
  accuse (&scene, 1, 5, 11);
  begin (&packet, GOSSIP_TELL);
  add_accusation (&packet, 5, 77, 10); /* who is that? */
  add_accusation (&packet, 78, 2, 10);
  add_accusation (&packet, 5, 0, 10); /* we know better what we say */
  hear (&scene, 2, &packet);
  g_assert_cmpint (state (&scene, 5), ==, GOSSIP_ALIVE);
  accuse (&scene, 1, 5, 10);
  accuse (&scene, 1, 5, 10);
  g_assert_true (find (&scene, 5, &member));
  g_assert_cmpint (member.state, ==, GOSSIP_SUSPECT);
  g_assert_cmpuint (member.accusers, ==, 1);
  scene_clear (&scene);
}

/* The suspect says with a higher incarnation that it is there; one that is dead, too. A newer version alone does not. */
static void
test_refuted (void) {
  struct gossip_packet packet;
  struct scene scene;

  scene_init (&scene);
  meet (&scene, 1, 5);
  for (uint32_t incarnation = 10; incarnation < 14; incarnation++) {
    accuse (&scene, 1, 5, incarnation);
    g_assert_cmpint (state (&scene, 5), ==, GOSSIP_SUSPECT);
    begin (&packet, GOSSIP_TELL);
    add_record (&packet, 5, incarnation, 100 + 2 * incarnation);
    hear (&scene, 2, &packet);
    g_assert_cmpint (state (&scene, 5), ==, GOSSIP_SUSPECT);
    if (incarnation == 12) {
      pass (&scene, 20000, 5);
      g_assert_cmpint (state (&scene, 5), ==, GOSSIP_DEAD);
    }
    begin (&packet, GOSSIP_TELL);
    add_record (&packet, 5, incarnation + 1, 101 + 2 * incarnation);
    hear (&scene, 2, &packet);
    g_assert_cmpint (state (&scene, 5), ==, GOSSIP_ALIVE);
  }
  scene_clear (&scene);
}

/* We are accused: whoever said so hears at once that we are there; a flood of it makes few incarnations. */
static void
test_refute (void) {
  struct gossip_figures figures;
  const struct sent *sent;
  struct scene scene;
  uint32_t before;

  scene_init (&scene);
  meet (&scene, 1, 3);
  g_array_set_size (scene.sent, 0);
  accuse (&scene, 2, 0, 11);
  accuse (&scene, 2, 0, 9);
  accuse (&scene, 2, 0, UINT32_MAX);
  g_assert_cmpuint (gossip_own (scene.gossip)->incarnation, ==, 10);
  g_assert_cmpuint (scene.sent->len, ==, 0);
  accuse (&scene, 2, 0, 10);
  g_assert_cmpuint (gossip_own (scene.gossip)->incarnation, ==, 11);
  sent = &g_array_index (scene.sent, struct sent, 0);
  g_assert_cmpuint (sent->to, ==, 2);
  g_assert_cmpuint (sent->packet.records[0].incarnation, ==, 11);
  before = gossip_own (scene.gossip)->incarnation;
  for (unsigned i = 0; i < 1000; i++) {
    accuse (&scene, 2, 0, gossip_own (scene.gossip)->incarnation);
    pass (&scene, 5, 3);
  }
  g_assert_cmpuint (gossip_own (scene.gossip)->incarnation - before, >=, 5);
  g_assert_cmpuint (gossip_own (scene.gossip)->incarnation - before, <=, 11);
  gossip_figures (scene.gossip, &figures);
  g_assert_cmpuint (figures.refutations, ==, gossip_own (scene.gossip)->incarnation - 10);
  scene_clear (&scene);
}

/* Records of others count with their signature only, and never go back. */
static void
test_records (void) {
  struct gossip_figures figures;
  struct gossip_packet packet;
  struct gossip_member member;
  struct scene scene;

  scene_init (&scene);
  meet (&scene, 1, 3);
  begin (&packet, GOSSIP_TELL);
  add_record (&packet, 2, 10, 5)->version = 6; /* changed on the way */
  add_record (&packet, 9, 10, 5)->flags = GOSSIP_LEFT;
  add_record (&packet, 700, 10, 5); /* not approved */
  hear (&scene, 1, &packet);
  g_assert_true (find (&scene, 2, &member));
  g_assert_cmpuint (member.record->version, ==, 1);
  g_assert_false (find (&scene, 9, &member));
  g_assert_false (find (&scene, 700, &member));
  gossip_figures (scene.gossip, &figures);
  g_assert_cmpuint (figures.refused_records, ==, 3);
  begin (&packet, GOSSIP_TELL);
  add_record (&packet, 2, 10, 5);
  add_record (&packet, 2, 10, 4);
  add_record (&packet, 2, 9, 99);
  hear (&scene, 1, &packet);
  g_assert_true (find (&scene, 2, &member));
  g_assert_cmpuint (member.record->version, ==, 5);
  g_assert_cmpuint (member.record->incarnation, ==, 10);
  scene_clear (&scene);
}

/* A packet of somebody who is not approved, of another zone, or broken, is none. */
static void
test_refused_packets (void) {
  const uint8_t address[GOSSIP_ADDRESS_BYTES] = { 0, 1 };
  struct gossip_figures figures;
  uint8_t bytes[GOSSIP_PACKET_BYTES + 1] = { 0 }, id[GOSSIP_ID_BYTES];
  struct gossip_packet packet;
  struct gossip_member member;
  struct scene scene;
  size_t n;

  scene_init (&scene);
  begin (&packet, GOSSIP_TELL);
  add_record (&packet, 1, 10, 5);
  n = gossip_packet_encode (&packet, bytes);
  name (1, id);
  gossip_receive (scene.gossip, scene.now, id, false, address, bytes, n);
  gossip_receive (scene.gossip, scene.now, id, true, address, bytes, n - 1);
  gossip_receive (scene.gossip, scene.now, id, true, address, bytes, n + 1);
  gossip_receive (scene.gossip, scene.now, id, true, address, bytes, 0);
  gossip_receive (scene.gossip, scene.now, id, true, address, bytes, sizeof bytes);
  packet.zone++;
  gossip_receive (scene.gossip, scene.now, id, true, address, bytes, gossip_packet_encode (&packet, bytes));
  packet.zone--;
  name (0, id); /* our own, come back */
  gossip_receive (scene.gossip, scene.now, id, true, address, bytes, gossip_packet_encode (&packet, bytes));
  gossip_figures (scene.gossip, &figures);
  g_assert_cmpuint (figures.refused_packets, ==, 7);
  g_assert_false (find (&scene, 1, &member));
  g_assert_cmpuint (scene.sent->len, ==, 0);
  scene_clear (&scene);
}

/* An earlier life, of which we hear from others: above it, in both numbers. */
static void
test_earlier_life (void) {
  struct gossip_packet packet;
  struct scene scene;

  scene_init (&scene);
  begin (&packet, GOSSIP_TELL);
  add_record (&packet, 0, 30, 500);
  hear (&scene, 1, &packet);
  g_assert_cmpuint (gossip_own (scene.gossip)->incarnation, ==, 31);
  g_assert_cmpuint (gossip_own (scene.gossip)->version, ==, 501);
  begin (&packet, GOSSIP_TELL);
  add_record (&packet, 0, 20, 600);
  hear (&scene, 1, &packet);
  g_assert_cmpuint (gossip_own (scene.gossip)->incarnation, ==, 31);
  g_assert_cmpuint (gossip_own (scene.gossip)->version, ==, 601);
  hear (&scene, 1, &packet); /* said again, it says nothing */
  g_assert_cmpuint (gossip_own (scene.gossip)->version, ==, 601);
  begin (&packet, GOSSIP_TELL);
  add_record (&packet, 0, 50, 700)->version = 701; /* nobody's signature */
  hear (&scene, 1, &packet);
  g_assert_cmpuint (gossip_own (scene.gossip)->incarnation, ==, 31);
  scene_clear (&scene);
}

/* 256 hosts and no more; those that are dead or gone make room. */
static void
test_full (void) {
  struct gossip_figures figures;
  struct gossip_packet packet;
  struct gossip_member member;
  struct scene scene;

  scene_init (&scene);
  meet (&scene, 1, 300);
  gossip_figures (scene.gossip, &figures);
  g_assert_cmpuint (figures.alive, ==, GOSSIP_ZONE_HOSTS - 1);
  g_assert_cmpuint (figures.refused_records, ==, 300 - 255);
  for (uint32_t host = 1; host <= 599; host++) {
    begin (&packet, GOSSIP_TELL);
    add_record (&packet, host, 10, 1);
    add_record (&packet, host, 10, 2);
    packet.records[1].flags = GOSSIP_LEFT;
    {
      uint8_t bytes[GOSSIP_RECORD_SIGNED_BYTES];

      gossip_record_encode (&packet.records[1], bytes);
      make_signature (packet.records[1].id, bytes, sizeof bytes, packet.records[1].signature);
    }
    scene.now++;
    hear (&scene, host, &packet);
  }
  gossip_figures (scene.gossip, &figures);
  g_assert_cmpuint (figures.alive, ==, 0);
  g_assert_cmpuint (figures.gone, ==, GOSSIP_MEMBERS_MAX);
  g_assert_false (gossip_member (scene.gossip, GOSSIP_MEMBERS_MAX, &member));
  g_assert_false (find (&scene, 1, &member)); /* the first to leave was the first to be forgotten */
  g_assert_true (find (&scene, 599, &member));
  scene_clear (&scene);
}

static guint
count_records (struct scene *scene, uint32_t to) {
  guint n = 0;

  for (guint i = 0; i < scene->sent->len; i++)
    if (g_array_index (scene->sent, struct sent, i).to == to)
      n += g_array_index (scene->sent, struct sent, i).packet.n_records;
  return n;
}

/* A newcomer who knows nobody: an answer of a few packets, however many there are. */
static void
test_sync (void) {
  struct gossip_packet packet;
  const struct sent *sent;
  struct scene scene;

  scene_init (&scene);
  meet (&scene, 1, 200);
  pass (&scene, 30000, 200);
  begin (&packet, GOSSIP_SYNC);
  packet.low = 0;
  packet.high = GOSSIP_PREFIX_MAX;
  hear (&scene, 300, &packet);
  g_assert_cmpuint (scene.sent->len, <=, GOSSIP_ANSWER_PACKETS + 2);
  g_assert_cmpuint (count_records (&scene, 300), >=, 20);
  g_array_set_size (scene.sent, 0);
  /* One that has newer, older and unknown ones */
  begin (&packet, GOSSIP_SYNC);
  packet.n_entries = 3;
  for (unsigned i = 0; i < 3; i++) {
    uint8_t id[GOSSIP_ID_BYTES];

    name (i == 2 ? 400 : 1 + i, id);
    packet.entries[i].prefix = (uint32_t)id[0] << 16 | (uint32_t)id[1] << 8 | id[2];
    packet.entries[i].version = i == 0 ? 0 : 2;
  }
  hear (&scene, 3, &packet);
  g_assert_cmpuint (scene.sent->len, ==, 1);
  sent = &g_array_index (scene.sent, struct sent, 0);
  g_assert_cmpint (sent->packet.kind, ==, GOSSIP_WANT);
  g_assert_cmpuint (sent->packet.n_entries, ==, 2);
  g_assert_cmpuint (number (sent->packet.records[0].id), ==, 1);
  scene_clear (&scene);
}

/* Said when it differs by ≥ 5 %, and not more often than once per second. */
static void
test_publish (void) {
  struct gossip_tier tiers[GOSSIP_TIERS] = { { .capacity = 1000, .free = 500 } };
  struct scene scene;
  uint32_t version;

  scene_init (&scene);
  meet (&scene, 1, 3);
  gossip_publish (scene.gossip, scene.now, tiers);
  version = gossip_own (scene.gossip)->version;
  pass (&scene, 5000, 3);
  tiers[0].free = 549;
  tiers[1].load = 4;
  gossip_publish (scene.gossip, scene.now, tiers);
  pass (&scene, 5000, 3);
  g_assert_cmpuint (gossip_own (scene.gossip)->version, ==, version);
  tiers[0].free = 550;
  gossip_publish (scene.gossip, scene.now, tiers);
  g_assert_cmpuint (gossip_own (scene.gossip)->version, ==, version + 1);
  for (unsigned i = 0; i < 100; i++) { /* 10 s of it */
    tiers[0].free = i % 2 ? 100 : 900;
    gossip_publish (scene.gossip, scene.now, tiers);
    pass (&scene, 100, 3);
  }
  g_assert_cmpuint (gossip_own (scene.gossip)->version, <=, version + 12);
  g_assert_cmpuint (gossip_own (scene.gossip)->version, >=, version + 8);
  tiers[0].free = 5000; /* senseless */
  tiers[0].pressure = 200;
  gossip_publish (scene.gossip, scene.now, tiers);
  pass (&scene, 2000, 3);
  g_assert_cmpuint (gossip_own (scene.gossip)->tiers[0].free, ==, 1000);
  g_assert_cmpuint (gossip_own (scene.gossip)->tiers[0].pressure, ==, 100);
  scene_clear (&scene);
}

static void
test_leave (void) {
  struct scene scene;
  guint told = 0;

  scene_init (&scene);
  meet (&scene, 1, 5);
  pass (&scene, 5000, 5);
  gossip_leave (scene.gossip, scene.now);
  for (uint64_t end = scene.now + 3000; scene.now < end; scene.now += 50) {
    gossip_step (scene.gossip, scene.now);
    for (guint i = 0; i < scene.sent->len; i++) {
      const struct sent *sent = &g_array_index (scene.sent, struct sent, i);

      told += sent->packet.n_records && (sent->packet.records[0].flags & GOSSIP_LEFT);
      g_assert_cmpint (sent->packet.kind, !=, GOSSIP_PING);
    }
    g_array_set_size (scene.sent, 0);
  }
  g_assert_cmpuint (told, >=, gossip_rules_default.own_pushes);
  accuse (&scene, 1, 0, gossip_own (scene.gossip)->incarnation);
  g_assert_cmpuint (gossip_own (scene.gossip)->incarnation, ==, 10); /* let them */
  scene_clear (&scene);
}

/* Stopped for a minute with a suspect: its time has not run out meanwhile. */
static void
test_absence (void) {
  struct gossip_figures figures;
  struct scene scene;

  scene_init (&scene);
  meet (&scene, 1, 9);
  pass (&scene, 3000, 9);
  for (uint32_t host = 1; host <= 4; host++)
    accuse (&scene, host, 9, 10);
  scene.now += 60000;
  gossip_step (scene.gossip, scene.now);
  g_assert_cmpint (state (&scene, 9), ==, GOSSIP_SUSPECT);
  gossip_figures (scene.gossip, &figures);
  g_assert_cmpuint (figures.absences, ==, 1);
  g_assert_cmpuint (figures.health, ==, 1);
  pass (&scene, 5000, 9);
  g_assert_cmpint (state (&scene, 9), ==, GOSSIP_DEAD);
  scene_clear (&scene);
}

static void
test_forget (void) {
  uint8_t id[GOSSIP_ID_BYTES];
  struct gossip_member member;
  struct scene scene;

  scene_init (&scene);
  meet (&scene, 1, 3);
  name (2, id);
  gossip_forget (scene.gossip, id);
  gossip_forget (scene.gossip, id);
  g_assert_false (find (&scene, 2, &member));
  g_assert_true (find (&scene, 1, &member));
  g_assert_true (find (&scene, 3, &member));
  pass (&scene, 10000, 3);
  scene_clear (&scene);
}

static void
test_new (void) {
  struct scene scene = { 0 };
  struct gossip_options options = options_of (&scene);

  options.incarnation = 0;
  g_assert_null (gossip_new (&options, 0));
  options.incarnation = 1;
  memset (options.id, 0, GOSSIP_SHORT_BYTES);
  g_assert_null (gossip_new (&options, 0));
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/gossip/new", test_new);
  g_test_add_func ("/gossip/death", test_death);
  g_test_add_func ("/gossip/own-health", test_own_health);
  g_test_add_func ("/gossip/confirmations", test_confirmations);
  g_test_add_func ("/gossip/empty-accusations", test_empty_accusations);
  g_test_add_func ("/gossip/refuted", test_refuted);
  g_test_add_func ("/gossip/refute", test_refute);
  g_test_add_func ("/gossip/records", test_records);
  g_test_add_func ("/gossip/refused-packets", test_refused_packets);
  g_test_add_func ("/gossip/earlier-life", test_earlier_life);
  g_test_add_func ("/gossip/full", test_full);
  g_test_add_func ("/gossip/sync", test_sync);
  g_test_add_func ("/gossip/publish", test_publish);
  g_test_add_func ("/gossip/leave", test_leave);
  g_test_add_func ("/gossip/absence", test_absence);
  g_test_add_func ("/gossip/forget", test_forget);
  return g_test_run ();
}
