/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Between gossip.c (members and records), gossip-probe.c (who is there), gossip-spread.c (what is passed on). */
#ifndef DOMYBS_CORE_GOSSIP_INTERNAL_H
#define DOMYBS_CORE_GOSSIP_INTERNAL_H

#include "core/gossip.h"

struct accuser {
  uint8_t id[GOSSIP_SHORT_BYTES];
  uint32_t sends; /* left */
};

struct member {
  struct gossip_record record;
  enum gossip_state state;
  uint64_t since_ms;
  uint64_t learnt_ms; /* the record */
  uint64_t wanted_ms; /* asked somebody for a newer one; 0: never */
  uint32_t pushes;    /* left, of the record */
  uint32_t listed;    /* serial of the digest that listed it */
  uint32_t n_accusers;
  struct accuser accusers[GOSSIP_ACCUSERS];
  uint8_t source[GOSSIP_SHORT_BYTES]; /* who told the record */
};

struct relay {       /* a ping on somebody's behalf */
  uint64_t until_ms; /* 0: free */
  uint64_t nack_ms;  /* 0: said */
  uint32_t seq, their_seq;
  uint8_t target[GOSSIP_SHORT_BYTES];
  uint8_t client[GOSSIP_ID_BYTES], address[GOSSIP_ADDRESS_BYTES];
};

struct probe {
  bool under_way, helped;
  uint32_t seq, nacks_due;
  uint8_t target[GOSSIP_SHORT_BYTES];
  uint64_t help_ms, end_ms;
};

struct gossip {
  struct gossip_options options;
  struct gossip_rules rules;
  struct gossip_figures figures;
  uint64_t random;
  uint64_t here_ms; /* when time was last told to us */
  uint32_t seq, serial;
  struct gossip_record own;
  uint32_t own_pushes, own_listed;
  uint64_t published_ms, refuted_ms;
  bool leaving, own_is_late, refute_is_due;
  struct gossip_tier tiers[GOSSIP_TIERS]; /* the newest that was given */

  uint32_t n; /* members, sorted by id */
  struct member *members[GOSSIP_MEMBERS_MAX];

  struct probe probe;
  uint64_t next_probe_ms, next_reconnect_ms;
  uint32_t n_round;
  uint8_t round[GOSSIP_MEMBERS_MAX][GOSSIP_SHORT_BYTES]; /* what is left of this round */
  uint8_t urgent[GOSSIP_SHORT_BYTES];                    /* to be probed next; zeroes: none */
  struct relay relays[GOSSIP_RELAYS];

  uint64_t next_spread_ms, next_sync_ms;
  uint64_t news_ms; /* when something was learnt last */
  uint32_t cursor;  /* of digests: the prefix to go on with */

  struct gossip_packet in, out; /* too big for every stack */
  uint8_t bytes[GOSSIP_PACKET_BYTES];
};

/* ---- gossip.c ---- */
uint32_t gossip_random_below (struct gossip *gossip, uint32_t n); /* n ≥ 1 */
/* The first member whose prefix is not below; gossip->n: none. */
uint32_t gossip_lower_bound (const struct gossip *gossip, uint32_t prefix);
uint32_t gossip_prefix (const uint8_t *id);
struct member *gossip_by_short (const struct gossip *gossip, const uint8_t id[GOSSIP_SHORT_BYTES]);
bool gossip_is_me (const struct gossip *gossip, const uint8_t id[GOSSIP_SHORT_BYTES]);
void gossip_set_state (struct gossip *gossip, struct member *member, enum gossip_state state, uint64_t now_ms);
/* A new own record, with what is in gossip->own. */
void gossip_renew_own (struct gossip *gossip, uint64_t now_ms);
void gossip_own_step (struct gossip *gossip, uint64_t now_ms);
/* log10 of members and us, in thousandths, at least 1000. */
uint32_t gossip_log (const struct gossip *gossip);

/* ---- gossip-probe.c ---- */
void gossip_accuse (struct gossip *gossip, struct member *member, const uint8_t accuser[GOSSIP_SHORT_BYTES], uint64_t now_ms);
void gossip_hear_probe (struct gossip *gossip, const uint8_t *from, const uint8_t *address, uint64_t now_ms);
void gossip_probe_step (struct gossip *gossip, uint64_t now_ms);
void gossip_probe_absent (struct gossip *gossip, uint64_t away_ms, uint64_t now_ms);
uint64_t gossip_probe_due (const struct gossip *gossip);
uint64_t gossip_suspicion_ms (const struct gossip *gossip, const struct member *member);

/* ---- gossip-spread.c ---- */
/* Begins gossip->out. */
void gossip_begin (struct gossip *gossip, enum gossip_kind kind, uint32_t seq, const uint8_t *target);
/* Fills what room is left in gossip->out with news for that one, and sends it. member: what we know of it, or NULL. */
void gossip_send (struct gossip *gossip, const struct member *member, const uint8_t *to, const uint8_t *address);
/* Sends a member the record that we have of it. */
void gossip_tell_of_itself (struct gossip *gossip, const uint8_t *to, const uint8_t *address);
/* Answers gossip->in, a SYNC or WANT. */
void gossip_hear_sync (struct gossip *gossip, const uint8_t *from, const uint8_t *address, uint64_t now_ms);
void gossip_hear_want (struct gossip *gossip, const uint8_t *from, const uint8_t *address);
void gossip_send_sync (struct gossip *gossip, const struct member *member, const uint8_t *to, const uint8_t *address,
                       uint64_t now_ms);
void gossip_spread_step (struct gossip *gossip, uint64_t now_ms);
uint64_t gossip_spread_due (const struct gossip *gossip);
bool gossip_has_news (const struct gossip *gossip);

#endif
