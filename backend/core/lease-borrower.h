/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The borrower's side of one lease at one donor: what to ask next, and what the answers mean. Knows no sockets: the page
 * channel (io/page-channel.h) tells it what happens, asks for the next request and when to come again.
 *
 *          connected                  ATTACH: OK                       OTHER_INCARNATION, UNKNOWN
 *   DOWN ─────────────→ ATTACHING ──────────────→ ATTACHED ────────────────────────────────────────→ LOST ── begin_anew ──→
 * DOWN, ATTACHING ↑                    │ ↑  ↑                     │                                                 ↑ └──
 * disconnected ────┘ │  └── renew, OLD_EPOCH ─┘                    (from ATTACHING, too) ───────┘ └── REFUSED (key, limit, a
 * higher session): tried again slowly
 *
 * LOST is the one state that says that contents are gone; it stays until begin_anew. Everything else is "not reachable", which
 * is not lost.
 *
 * The lease connection's end does not end an attachment: while its epoch is in force, data connections go on (requests have
 * their order from seq). The end of a data connection does, if it may still bring a write: renew.
 *
 * One request is under way at a time. One that is not answered in time may have been carried out or not: it is said again, on
 * another connection, and that is harmless.
 *
 * Pure: time is an argument (ms, of any clock that does not go back), memory is the caller's.
 */
#ifndef DOMYBS_CORE_LEASE_BORROWER_H
#define DOMYBS_CORE_LEASE_BORROWER_H

#include "core/lease.h"

#define LEASE_ANSWER_MS 5000u   /* after which a request counts as not answered */
#define LEASE_BUSY_MS 100u      /* after BUSY */
#define LEASE_NO_ROOM_MS 2000u  /* after NO_ROOM: until the level is asked for again */
#define LEASE_REFUSED_MS 15000u /* after a refusal */

struct lease_borrower_options {
  uint8_t vm[LEASE_ID_BYTES], host[LEASE_ID_BYTES], boot[LEASE_ID_BYTES];
  uint32_t disk;
  uint64_t session; /* of the first attempt; this worker's number << LEASE_SESSION_SHIFT, and no worker has the number of
                       another one */
  uint64_t export_blocks;
  uint8_t incarnation[LEASE_ID_BYTES]; /* that copies of earlier workers are in … */
  uint64_t lease;                      /* … with the lease; zeroes, 0: there are none */
  uint32_t keep_ms;                    /* between keep-alives */
};

enum lease_borrower_state {
  LEASE_DOWN,      /* not attached, no connection */
  LEASE_ATTACHING, /* not attached, connected */
  LEASE_ATTACHED,  /* the export of (lease, epoch, incarnation) may be used; connected or not */
  LEASE_LOST,      /* the contents are gone for certain */
  LEASE_REFUSED,   /* `verdict` says why */
  LEASE_ENDED,     /* END was answered: there is no lease, and none is asked for */
};

/* The caller may read all, and writes nothing. */
struct lease_borrower {
  struct lease_borrower_options options; /* incarnation, lease: those that are in force */
  enum lease_borrower_state state;
  bool connected;
  enum lease_verdict verdict; /* REFUSED, LOST: the answer that said so */
  uint64_t session;           /* of the attachment that is in force or asked for */
  uint64_t epoch;             /* ATTACHED */
  uint64_t seq;               /* of the last GRANT or RELEASE that was made up */
  uint64_t level, used, free; /* as last answered */
  uint64_t wanted;
  uint64_t revoke, revoke_level, revoke_until_ms; /* revoke 0: none */
  bool ending;
  bool keep_soon;
  struct lease_request request; /* under way, or the last one */
  bool under_way;
  uint64_t sent_ms, next_ms; /* next_ms: no request before */
  uint64_t level_ms;         /* no GRANT before */
  uint64_t kept_ms;          /* last answer */
  uint64_t answers;
  struct lease_answer last; /* the last answer that counted; zeroes before the first */
};

void lease_borrower_init (struct lease_borrower *borrower, const struct lease_borrower_options *options);

/* The lease connection is there (after TLS), or is not any more. */
void lease_borrower_connected (struct lease_borrower *borrower, uint64_t now_ms);
void lease_borrower_disconnected (struct lease_borrower *borrower);

/* Whether a request is to be sent now: it is in *ret_request, and under way from then on. */
bool lease_borrower_next (struct lease_borrower *borrower, uint64_t now_ms, struct lease_request *ret_request);
/* When to call lease_borrower_next, or look at lease_borrower_timed_out, at the latest if nothing else happens, in ms from now;
 * UINT64_MAX: not at all. */
uint64_t lease_borrower_wait_ms (const struct lease_borrower *borrower, uint64_t now_ms);
/* What is under way was not answered in time: the caller closes the connection, says lease_borrower_disconnected, and connects
 * again. */
bool lease_borrower_timed_out (const struct lease_borrower *borrower, uint64_t now_ms);
/* An answer. One that is not for what is under way changes nothing. False: it is senseless (the peer is no good: close the
 * connection). */
bool lease_borrower_answer (struct lease_borrower *borrower, uint64_t now_ms, const struct lease_answer *answer);

/* The level that is wanted from now on. While a revoke is in force, not more than its level is asked for. */
void lease_borrower_want (struct lease_borrower *borrower, uint64_t blocks);
/* Blocks were trimmed, or a level is urgent: the next keep-alive is due now, and RELEASE or GRANT with it. */
void lease_borrower_hurry (struct lease_borrower *borrower);
/* A data connection broke or was given up: what it was to write may still be carried out. ATTACHING, with a new session, until
 * the donor has fenced the connections of before; no data request may be sent before it is ATTACHED again, under the new epoch.
 */
void lease_borrower_renew (struct lease_borrower *borrower);
/* LOST: the owner has noted, durably, that all copies there are gone. */
void lease_borrower_begin_anew (struct lease_borrower *borrower);
/* Give all back: END is asked until it is answered; then ENDED. */
void lease_borrower_end (struct lease_borrower *borrower);

/* The export's name for data connections; only when ATTACHED. */
void lease_borrower_export_name (const struct lease_borrower *borrower, char *ret_name); /* LEASE_EXPORT_NAME_BYTES */

#endif
