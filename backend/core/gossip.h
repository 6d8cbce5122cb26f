/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One host's part in the gossip of its zone (specification: daemon/gossip.md): who is there (SWIM with Lifeguard), and what
 * each of them says of its tiers.
 *
 * All of it is hints. DEAD says that nobody has had an answer for a while, and alone moves no data.
 *
 * What a host is and has is in its record, which only its own key makes (ops.sign, ops.verify). What others can say about a
 * host is that it did not answer: an accusation. Nobody's verdict is taken over: each host waits for its own suspicion to run
 * out, and the accused, who hears of it, refutes with a record of a higher incarnation.
 *
 *           accusation of the incarnation that is known        its time is over
 *   ALIVE ───────────────────────────────────────────→ SUSPECT ─────────────────→ DEAD     a record with LEFT: → LEFT, from any
 *     ↑  ↑                                                │                         │
 *     │  └────── record of a higher incarnation ──────────┴─────────────────────────┘
 *
 * Pure: time is an argument (ms of a clock that does not go back and goes on while the host sleeps or not), randomness comes
 * from options.seed, packets go out through ops.send while a function here runs. One thread.
 */
#ifndef DOMYBS_CORE_GOSSIP_H
#define DOMYBS_CORE_GOSSIP_H

#include "core/gossip-wire.h"

#define GOSSIP_ZONE_HOSTS 256u   /* at most, that are neither dead nor gone */
#define GOSSIP_MEMBERS_MAX 512u  /* with those, whose records are kept so that old ones do not come back */
#define GOSSIP_ACCUSERS 4u       /* counted per accused */
#define GOSSIP_RELAYS 32u        /* pings on others' behalf under way */
#define GOSSIP_ANSWER_PACKETS 4u /* at most, to one that asks for records */
#define GOSSIP_HEALTH_MAX 8u     /* Lifeguard's S */

/* The rules' numbers. gossip_rules_default are ours; others are for comparisons. All hosts of a zone should have the same. */
struct gossip_rules {
  uint32_t probe_ms;           /* between probes of a healthy host */
  uint32_t ack_ms;             /* to wait for the direct answer, and again for the relayed one */
  uint32_t helpers;            /* asked to ping for us */
  uint32_t suspicion_permille; /* α: the shortest suspicion, in probe periods × log10(hosts) */
  uint32_t suspicion_longest;  /* β: the longest one is that many times the shortest */
  uint32_t confirmations;      /* K: with so many accusers beside the first, it is the shortest; 0: always the shortest */
  uint32_t retransmit;         /* λ: an accusation is passed on that often × log10(hosts), rounded up */
  uint32_t spread_ms;          /* between packets with news, while there is any */
  uint32_t pushes, own_pushes; /* how often a record is passed on, and our own one */
  uint32_t late_pushes;        /* … one that a digest has brought, if that is less */
  uint32_t sync_ms;            /* between digests, while there is news */
  uint32_t quiet_sync_ms;      /* … while there is none */
  uint32_t recent_ms;          /* what was learnt since is in each digest */
  uint32_t reconnect_ms;       /* between attempts to reach one of the dead */
  uint32_t publish_ms;         /* between own records, at least */
  uint32_t refute_ms;          /* between refutations, at least */
  bool health;                 /* Lifeguard: a host that misses answers probes more slowly */
  bool buddy;                  /* Lifeguard: a ping tells the suspect that it is one */
  bool help_to_confirm;        /* some that hear of a suspicion probe the suspect at once */
};
extern const struct gossip_rules gossip_rules_default;

struct gossip_ops {
  /* A packet for one member (or, `to` NULL, whoever is at the address): sealed and sent, or lost. Must not call back. */
  void (*send) (void *data, const uint8_t *to, const uint8_t address[GOSSIP_ADDRESS_BYTES], const uint8_t *bytes, size_t n);
  /* Signs with our own key. */
  void (*sign) (void *data, const uint8_t *bytes, size_t n, uint8_t *ret_signature);
  /* Whether that host, by its id, is approved for our zone, and signed that. */
  bool (*verify) (void *data, const uint8_t id[GOSSIP_ID_BYTES], const uint8_t *bytes, size_t n, const uint8_t *signature);
  void *data;
};

struct gossip_options {
  uint8_t id[GOSSIP_ID_BYTES]; /* its first 8 bytes are not all zero */
  uint8_t address[GOSSIP_ADDRESS_BYTES];
  uint32_t zone;
  uint32_t incarnation; /* ≥ 1; not one of an earlier life. One that is below those is corrected when others tell */
  uint64_t seed;
  struct gossip_rules rules;
  struct gossip_ops ops;
};

enum gossip_state { GOSSIP_ALIVE, GOSSIP_SUSPECT, GOSSIP_DEAD, GOSSIP_GONE /* left in order */ };

struct gossip_member {
  const struct gossip_record *record;
  enum gossip_state state;
  uint64_t since_ms; /* of the state */
  uint32_t accusers;
};

struct gossip_figures {
  uint32_t alive, suspect, dead, gone; /* we ourselves are not counted */
  uint32_t health;                     /* 0: good … GOSSIP_HEALTH_MAX */
  uint64_t refused_packets;            /* no packets, of another zone, or of one who is not approved */
  uint64_t refused_records;            /* whose signature is not good, or for which there is no room */
  uint64_t refutations;                /* of accusations of us */
  uint64_t deaths;                     /* verdicts of ours */
  uint64_t absences;                   /* times at which we did not run for long */
};

struct gossip;

/* NULL: no memory, or an id or incarnation that may not be. Everything is allocated here. */
struct gossip *gossip_new (const struct gossip_options *options, uint64_t now_ms);
void gossip_free (struct gossip *gossip);

/* Asks whoever is at that address for what there is. Again and again is the caller's: often until there are members, and every
 * now and then for a seed that is none (two zones that never met stay two). */
void gossip_join (struct gossip *gossip, uint64_t now_ms, const uint8_t address[GOSSIP_ADDRESS_BYTES]);
/* What there is to say of our tiers: said when it differs by ≥ 5 % from what was said last (of a number of blocks: of the
 * capacity; of a percentage: by 5), and not more often than each publish_ms. Senseless numbers are cut to what is sane. */
void gossip_publish (struct gossip *gossip, uint64_t now_ms, const struct gossip_tier *tiers); /* GOSSIP_TIERS */
/* Leave in order. The caller goes on with gossip_step for some spread_ms, so that others hear of it. */
void gossip_leave (struct gossip *gossip, uint64_t now_ms);
/* Drop a member, as when it is expelled: ops.verify refuses it from now on, or it comes back. */
void gossip_forget (struct gossip *gossip, const uint8_t id[GOSSIP_ID_BYTES]);

/* A packet that was opened: whose it is, whether that one is approved, and where it came from. */
void gossip_receive (struct gossip *gossip, uint64_t now_ms, const uint8_t from[GOSSIP_ID_BYTES], bool approved,
                     const uint8_t address[GOSSIP_ADDRESS_BYTES], const uint8_t *bytes, size_t n);
/* What is due. */
void gossip_step (struct gossip *gossip, uint64_t now_ms);
/* When to call it at the latest, in ms from now. */
uint64_t gossip_wait_ms (const struct gossip *gossip, uint64_t now_ms);

/* Members in the order of their ids, without us; false: there are not so many. The record is valid until the next call that
 * changes something. */
bool gossip_member (const struct gossip *gossip, uint32_t index, struct gossip_member *ret_member);
bool gossip_find (const struct gossip *gossip, const uint8_t id[GOSSIP_ID_BYTES], struct gossip_member *ret_member);
const struct gossip_record *gossip_own (const struct gossip *gossip);
void gossip_figures (const struct gossip *gossip, struct gossip_figures *ret_figures);

#endif
