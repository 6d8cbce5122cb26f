/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A zone in one thread: hosts that run core/gossip*, and a network between them that loses, delays, doubles, reorders and
 * repeats packets, and stops carrying in one direction. One clock that jumps, one seed, a heap of events.
 *
 * The keys are make-believe: a signature is a hash with the host's secret. Every record that was ever signed is noted, so that
 * what a host holds can be compared with what was said.
 */
#ifndef DOMYBS_TESTS_GOSSIP_WORLD_H
#define DOMYBS_TESTS_GOSSIP_WORLD_H

#include "core/gossip.h"

#include <glib.h>
#include <inttypes.h>

#define WORLD_HOSTS_MAX 256u
#define WORLD_QUEUE 256u   /* packets that wait for a host that does not run: as a socket's buffer */
#define WORLD_CAPTURED 32u /* packets that the attacker keeps */
#define WORLD_ZONE 77u
#define WORLD_OVERHEAD 76u /* bytes of a packet beside the payload: IP and UDP 28, seal and sender 48 */

enum host_fate { HOST_NONE, HOST_RUNS, HOST_KILLED, HOST_LEFT };

struct gossip_host {
  uint32_t number;
  uint8_t id[GOSSIP_ID_BYTES], address[GOSSIP_ADDRESS_BYTES];
  enum host_fate fate;
  gboolean liar;
  struct gossip *gossip;
  uint32_t low, high;    /* incarnations that it has not had are below and above */
  uint64_t life;         /* of events that are for it */
  uint64_t step_at;      /* of the step that is planned */
  uint64_t paused_until; /* 0: runs */
  uint64_t starved_until;
  uint64_t healthy_since; /* runs, not paused */
  GQueue waiting;         /* packets that came while it was paused */
  struct gossip_tier tiers[GOSSIP_TIERS];
  uint64_t publish_every_ms;     /* 0: by itself nothing */
  uint64_t *seen;                /* per other host: incarnation << 32 | version, of the record that it holds */
  uint8_t *states;               /* … enum gossip_state */
  uint64_t *dead_since;          /* … 0: not dead */
  uint64_t bytes, packets;       /* sent */
  uint64_t own_stamp, own_since; /* of its own record: as `seen`; when it changed last */
};

struct gossip_plan {
  uint64_t seed;
  uint32_t hosts;
  uint32_t loss, again, late; /* permille of packets: lost, doubled, late by up to 3 s */
  uint32_t delay_ms;          /* 1 … so much */
  uint32_t liars;
  uint32_t replays; /* permille of packets after which an old one comes again */
  uint32_t faults;  /* number of */
  uint64_t calm_at, end_at;
  struct gossip_rules rules;
  gboolean check; /* look at everything after each event */
};

struct gossip_event;

struct gossip_world {
  struct gossip_plan plan;
  uint64_t now, orders, random;
  GArray *heap; /* of struct gossip_event */
  struct gossip_host *hosts;
  GHashTable *said; /* hashes of all that was signed */
  uint64_t *cut;    /* [from × hosts + to]: until when nothing is carried */
  struct {
    uint32_t from;
    guint n;
    uint8_t bytes[GOSSIP_PACKET_BYTES];
  } captured[WORLD_CAPTURED];
  uint32_t sends; /* in the call that is under way */
  uint32_t caller;
  struct {
    uint64_t packets, bytes, records;
  } sent[GOSSIP_WANT + 1]; /* by kind */
  uint64_t events, packets, deaths, lies, restarts;
  /* Called whenever a host holds another record, or thinks otherwise of a host; may be NULL. */
  void (*changed) (struct gossip_world *world, struct gossip_host *host, uint32_t about, const struct gossip_member *member);
  void *data;
};

void gossip_plan_make (struct gossip_plan *plan, uint64_t seed);
/* The hosts are made and joined; then events until plan->end_at. */
void gossip_world_init (struct gossip_world *world, const struct gossip_plan *plan);
void gossip_world_run (struct gossip_world *world, uint64_t until);
/* That all agree; only for worlds that were calm for a while. */
void gossip_world_check_calm (struct gossip_world *world);
void gossip_world_clear (struct gossip_world *world);

uint64_t gossip_world_below (struct gossip_world *world, uint64_t n);
gboolean gossip_world_odds (struct gossip_world *world, unsigned permille);
void gossip_world_start (struct gossip_world *world, struct gossip_host *host, gboolean remembers);
void gossip_world_kill (struct gossip_world *world, struct gossip_host *host);
void gossip_world_pause (struct gossip_world *world, struct gossip_host *host, uint64_t ms);
void gossip_world_change (struct gossip_world *world, struct gossip_host *host);
/* After anything was done to a host from outside. */
void gossip_world_touched (struct gossip_world *world, struct gossip_host *host);

/* gossip-liar.c: something from a liar, an outsider, or the one who has captured packets. */
void gossip_world_lie (struct gossip_world *world, struct gossip_host *liar);
/* A packet to a host, as if from there. */
void gossip_world_inject (struct gossip_world *world, uint32_t from, uint32_t to, const uint8_t *bytes, size_t n);
void gossip_world_sign (struct gossip_world *world, uint32_t host, struct gossip_record *record);

#endif
