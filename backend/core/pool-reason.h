/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Why a pool decision is as it is: a value with numbers, and the sentence that it makes. Reasons are plain data, so that plans
 * can be compared, and shown in another language or as JSON. Pure.
 */
#ifndef DOMYBS_CORE_POOL_REASON_H
#define DOMYBS_CORE_POOL_REASON_H

#include "core/pool-snapshot.h"

enum pool_why {
  POOL_YES, /* nothing is against it */
  /* of the pool, or the borrower: nothing is granted */
  POOL_NO_FROZEN,   /* the operator has frozen the pool */
  POOL_NO_SENSE,    /* a request of 0 blocks, or of more than there can be */
  POOL_NO_MODE,     /* it is protected by storage alone, and needs no donor */
  POOL_NO_QUOTA,    /* n[0] asked for, n[1] in use, n[2] the borrower's quota */
  POOL_NO_TENANT,   /* the same of its tenant */
  POOL_NO_SQUEEZED, /* its own host is under pressure and lends n[0] in this tier: it is not to borrow there, too */
  POOL_NO_HEADROOM, /* n[0] blocks would be missing to make anew what `host` lends (n[1]), should it die */
  POOL_NO_PRIORITY, /* the last n[0] blocks of the pool are for borrowers of higher priority, n[1] would be left */
  POOL_NO_DONOR,    /* n[0] hosts, n[1] of them could take something for it, but none so much; the others say why not */
  /* of one host: it does not take the copy */
  POOL_NOT_OWN,      /* it is where the VM runs */
  POOL_NOT_UP,       /* it is not heard of */
  POOL_NOT_FROZEN,   /* the operator has frozen it */
  POOL_NOT_DRAINED,  /* the operator empties it */
  POOL_NOT_PRESSED,  /* its own programs wait for memory */
  POOL_NOT_KNOWN,    /* the VM has no keys for it */
  POOL_NOT_ZONE,     /* it is of another zone */
  POOL_NOT_DOMAIN,   /* it may fail together with `other`, which has the other copy */
  POOL_NOT_SET,      /* it shares no copyset with `other`, which has the other copy */
  POOL_NOT_ROOM,     /* n[0] wanted, n[1] free there */
  POOL_NOT_ADMITTED, /* it was asked and has refused */
  /* a choice that was made */
  POOL_TWO,        /* of two drawn: `host` lends n[0] of n[1] then, `other` n[2] of n[3] */
  POOL_ONLY,       /* nothing else would do; `host`, the fuller one, lends n[0] of n[1] then */
  POOL_SAME,       /* of two copysets drawn: `host` is the fuller one in both; it lends n[0] of n[1] then */
  POOL_ADMIT_LESS, /* a donor's answer: n[0] blocks and no more */
  /* a copy that moves from `host` to `other`: n[0] of n[1] lent by host, n[2] of n[3] by other, before */
  POOL_MOVE_DRAIN, /* the operator empties host */
  POOL_MOVE_LIMIT, /* host lends more than it wants to by now */
  POOL_MOVE_FULL,  /* host lends more than its share */
  POOL_MOVE_EMPTY, /* other lends less than its share */
  POOL_MOVE_ROOM,  /* makes room for another move, which could not go to other directly */
  /* a lease that is lowered */
  POOL_CALL_MOVE,    /* to other, which has room: n[0] blocks */
  POOL_CALL_STORAGE, /* to storage: no donor may take it */
  POOL_CALL_LAST,    /* as CALL_STORAGE, and the guest is short of memory: only because the host's reserve is touched */
};

struct pool_reason {
  enum pool_why why;
  uint32_t host, other; /* indices, or POOL_NOBODY */
  uint64_t n[4];
};

#define POOL_REASON_BYTES 320u /* enough for any */

/* Writes a sentence without a full stop into text (POOL_REASON_BYTES) and returns it. */
const char *pool_reason_text (const struct pool_snapshot *snapshot, const struct pool_reason *reason, char *text);

/* One word for programs: never changes. */
const char *pool_why_name (enum pool_why why);

#endif
