/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Leases: what a borrower's far disk and a donor say to each other (backend/donor/leases.md is the specification).
 *
 * A lease is a donor's promise of arena blocks to one far disk of one life of a VM. It is asked for, kept, and ended by requests that
 * the borrower sends and the donor answers; page data goes over the page channel, to an export that belongs to the lease. Requests may
 * be lost, repeated, and come late: each is idempotent, and what is older than what was done already is refused.
 *
 *   lease id     the donor's, never used twice by an arena
 *   incarnation  16 random bytes of an arena: another one means that the contents are gone
 *   session      the borrower's: one attachment, grows with each of its workers and each of their attempts. The donor fences: before a
 *                higher session is answered, the connections of the lower ones are closed and what they had under way has ended
 *   epoch        the donor's: a new one for each session of a lease. Epochs and lease ids come from one counter, so an epoch that was
 *                given out later is higher than a lease id that was given out before. The page channel is opened with (lease id, epoch,
 *                incarnation), so nothing of an older epoch reaches what a newer one writes
 *   level        how many blocks are promised; GRANT and RELEASE say the level that is asked for, not a difference. Which blocks of
 *                the export have them is decided by the writes that come (ENOSPC beyond the level) and by TRIM
 *   seq          orders a session's GRANTs and RELEASEs: those not above the last one that was carried out, or that a KEEP has named,
 *                change nothing
 *
 * Evidence that a VM is gone: its host has another boot id now. Boot ids have no order, and requests come late; but one that names an
 * epoch was made after that epoch was given out, so its boot is later than those whose leases are older than that.
 *
 * Here: the messages, and their bytes. Pure.
 */
#ifndef DOMYBS_CORE_LEASE_H
#define DOMYBS_CORE_LEASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LEASE_PROTOCOL_VERSION 1u
#define LEASE_BLOCK_BYTES (2u << 20)
#define LEASE_EXPORT_BLOCKS_MAX (1ull << 30)
#define LEASE_IDENTITY_BYTES 64u /* with the terminating 0 */
#define LEASE_ID_BYTES 16u
#define LEASE_REQUEST_BYTES 160u /* on the wire, big endian, what is not used is zero */
#define LEASE_ANSWER_BYTES 128u

enum lease_verb {
  LEASE_ATTACH = 1,  /* a session begins: the lease is made where there is none, with level 0. blocks: of the export */
  LEASE_GRANT = 2,   /* blocks: the level that is asked for, above the one in force */
  LEASE_RELEASE = 3, /* blocks: the level that is asked for, below; not below what has contents (TRIM first) */
  LEASE_KEEP = 4,    /* I am still here; the answer says what is to be given back */
  LEASE_END = 5,     /* all of it is given back, with its contents: the VM has ended */
};

struct lease_request {
  enum lease_verb verb;
  uint32_t disk;                 /* its number within the VM */
  uint8_t vm[LEASE_ID_BYTES];    /* of this life of the VM: random, its keeper's */
  uint8_t host[LEASE_ID_BYTES];  /* machine-id, and */
  uint8_t boot[LEASE_ID_BYTES];  /* boot id of the borrower's host: a new one is evidence that the VMs of the old one are gone */
  uint64_t session;
  uint8_t incarnation[LEASE_ID_BYTES]; /* ATTACH: zeroes: none is known */
  uint64_t lease;  /* ATTACH: the one that copies are in, if incarnation is known (UNKNOWN is the answer if it is no more); else 0 */
  uint64_t epoch;  /* all but ATTACH */
  uint64_t seq;                        /* GRANT, RELEASE; KEEP: those up to it that have not come are not carried out any more */
  uint64_t blocks;                     /* ATTACH, GRANT, RELEASE */
  uint64_t revoke_seen;                /* KEEP: the last revoke's number that the borrower works at; 0: none */
  uint64_t number;                     /* comes back in the answer; anything */
};

enum lease_verdict {
  LEASE_OK = 0,
  LEASE_BAD = 1,               /* no such request, or senseless numbers */
  LEASE_BUSY = 2,              /* older connections still end, or blocks are zeroed: ask again soon */
  LEASE_OLD_SESSION = 3,       /* a higher session has come: this worker is to end */
  LEASE_OLD_EPOCH = 4,         /* attach again */
  LEASE_OTHER_INCARNATION = 5, /* the arena is another one: what was lent is gone, for certain */
  LEASE_UNKNOWN = 6,           /* no such lease in this arena: it was ended (by END, evidence, the operator): contents gone, for certain */
  LEASE_NOT_YOURS = 7,         /* another identity's */
  LEASE_LIMIT = 8,             /* more leases or blocks than this identity may have */
  LEASE_NO_ROOM = 9,           /* GRANT: fewer than asked for; blocks says the level in force */
  LEASE_IN_USE = 10,           /* RELEASE: some of them have contents; blocks says the level in force */
};

struct lease_answer {
  enum lease_verdict verdict;
  uint8_t incarnation[LEASE_ID_BYTES];
  uint64_t lease, epoch;
  uint64_t seq;    /* the highest of this session so far */
  uint64_t level;  /* in force */
  uint64_t used;   /* blocks with contents */
  uint64_t free;   /* blocks that the donor could lend beyond: a hint */
  uint64_t revoke; /* number of the revoke in force; 0: none */
  uint64_t revoke_level;   /* the level that the borrower is to come down to … */
  uint32_t revoke_left_ms; /* … within so long; 0: overdue */
  uint64_t number;         /* the request's */
};

/* A session is the worker's number << LEASE_SESSION_SHIFT | which of its attempts it is, from 0 on. */
#define LEASE_SESSION_SHIFT 32u

/* Into out, of LEASE_REQUEST_BYTES or LEASE_ANSWER_BYTES. */
void lease_request_encode (const struct lease_request *request, uint8_t *out);
void lease_answer_encode (const struct lease_answer *answer, uint8_t *out);
/* FALSE: these are no such bytes (length, version, verb, bytes that should be zero). */
bool lease_request_decode (const uint8_t *bytes, size_t n, struct lease_request *ret_request);
bool lease_answer_decode (const uint8_t *bytes, size_t n, struct lease_answer *ret_answer);

/* The export of a lease, as it stands in NBD's export name: "lease-LEASE.EPOCH.INCARNATION", all in lower case hexadecimal digits, of 16,
 * 16 and 32. */
#define LEASE_EXPORT_NAME_BYTES 73u /* with the terminating 0 */
void lease_export_name (uint64_t lease, uint64_t epoch, const uint8_t incarnation[LEASE_ID_BYTES], char *ret_name);
bool lease_export_parse (const char *name, uint64_t *ret_lease, uint64_t *ret_epoch, uint8_t ret_incarnation[LEASE_ID_BYTES]);

#endif
