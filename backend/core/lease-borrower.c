/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "core/lease-borrower.h"

#include <string.h>

static const uint8_t no_id[LEASE_ID_BYTES];

/* The answers of a donor that counts are not above that. */
#define BLOCKS_MAX (1ull << 40)

void
lease_borrower_init (struct lease_borrower *borrower, const struct lease_borrower_options *options) {
  memset (borrower, 0, sizeof *borrower);
  borrower->options = *options;
  borrower->session = options->session;
}

/* ---- what happens ---- */

/* The attachment that was asked for or is in force is over. One that was never asked for needs no successor. */
static void
next_session (struct lease_borrower *borrower) {
  if (borrower->request.session == borrower->session)
    borrower->session++;
}

static void
attach_anew (struct lease_borrower *borrower) {
  next_session (borrower);
  borrower->state = borrower->connected ? LEASE_ATTACHING : LEASE_DOWN;
  borrower->next_ms = 0;
}

void
lease_borrower_connected (struct lease_borrower *borrower, uint64_t now_ms) {
  borrower->connected = true;
  borrower->under_way = false;
  if (borrower->state == LEASE_DOWN)
    borrower->state = LEASE_ATTACHING; /* the same session again, if it was not answered: nobody has written under it */
  if (borrower->state == LEASE_ATTACHED)
    borrower->keep_soon = true;
  if (borrower->state != LEASE_REFUSED)
    borrower->next_ms = now_ms;
}

void
lease_borrower_disconnected (struct lease_borrower *borrower) {
  borrower->connected = false;
  borrower->under_way = false;
  if (borrower->state == LEASE_ATTACHING)
    borrower->state = LEASE_DOWN;
}

void
lease_borrower_renew (struct lease_borrower *borrower) {
  if (borrower->state == LEASE_ATTACHED)
    attach_anew (borrower);
}

void
lease_borrower_begin_anew (struct lease_borrower *borrower) {
  if (borrower->state != LEASE_LOST)
    return;
  memset (borrower->options.incarnation, 0, LEASE_ID_BYTES);
  borrower->options.lease = 0;
  attach_anew (borrower);
}

void
lease_borrower_want (struct lease_borrower *borrower, uint64_t blocks) {
  if (borrower->wanted != blocks)
    borrower->level_ms = 0;
  borrower->wanted = blocks;
}

void
lease_borrower_hurry (struct lease_borrower *borrower) {
  borrower->keep_soon = true;
  borrower->level_ms = 0;
}

void
lease_borrower_end (struct lease_borrower *borrower) {
  borrower->ending = true;
  if (borrower->state == LEASE_LOST)
    borrower->state = LEASE_ENDED; /* there is nothing to give back */
}

/* ---- what to ask ---- */

/* The level to come to: what is wanted, within a revoke, but not below what has contents. */
static uint64_t
goal (const struct lease_borrower *borrower) {
  uint64_t level = borrower->wanted;

  if (borrower->revoke && level > borrower->revoke_level)
    level = borrower->revoke_level;
  return level;
}

/* GRANT, RELEASE or 0; *ret_level: what to ask for. */
static enum lease_verb
level_verb (const struct lease_borrower *borrower, uint64_t *ret_level) {
  const uint64_t level = goal (borrower);

  *ret_level = level;
  if (level > borrower->level)
    return borrower->revoke ? 0 : LEASE_GRANT;
  if (level < borrower->level && borrower->level > borrower->used)
    return LEASE_RELEASE;
  return 0;
}

static bool
keep_is_due (const struct lease_borrower *borrower, uint64_t now_ms) {
  return borrower->keep_soon || now_ms - borrower->kept_ms >= borrower->options.keep_ms;
}

/* What to ask now; 0: nothing. */
static enum lease_verb
next_verb (const struct lease_borrower *borrower, uint64_t now_ms, uint64_t *ret_blocks) {
  enum lease_verb verb;

  *ret_blocks = 0;
  if (!borrower->connected || borrower->under_way || now_ms < borrower->next_ms)
    return 0;
  switch (borrower->state) {
  case LEASE_ATTACHING:
  case LEASE_REFUSED:
    *ret_blocks = borrower->options.export_blocks;
    return LEASE_ATTACH;
  case LEASE_ATTACHED:
    if (borrower->ending)
      return LEASE_END;
    if (borrower->keep_soon)
      return LEASE_KEEP; /* first: it says how many blocks have contents now */
    verb = now_ms >= borrower->level_ms ? level_verb (borrower, ret_blocks) : 0;
    if (verb)
      return verb;
    *ret_blocks = 0;
    return keep_is_due (borrower, now_ms) ? LEASE_KEEP : 0;
  default:
    return 0;
  }
}

bool
lease_borrower_next (struct lease_borrower *borrower, uint64_t now_ms, struct lease_request *ret_request) {
  const struct lease_borrower_options *options = &borrower->options;
  struct lease_request *request = &borrower->request;
  const uint64_t number = request->number + 1;
  uint64_t blocks;
  const enum lease_verb verb = next_verb (borrower, now_ms, &blocks);

  if (!verb)
    return false;
  memset (request, 0, sizeof *request);
  request->verb = verb;
  request->disk = options->disk;
  memcpy (request->vm, options->vm, LEASE_ID_BYTES);
  memcpy (request->host, options->host, LEASE_ID_BYTES);
  memcpy (request->boot, options->boot, LEASE_ID_BYTES);
  memcpy (request->incarnation, options->incarnation, LEASE_ID_BYTES);
  request->session = borrower->session;
  request->lease = options->lease;
  request->epoch = verb == LEASE_ATTACH ? 0 : borrower->epoch;
  request->seq = verb == LEASE_GRANT || verb == LEASE_RELEASE ? ++borrower->seq : verb == LEASE_KEEP ? borrower->seq : 0;
  request->blocks = blocks;
  request->revoke_seen = verb == LEASE_KEEP ? borrower->revoke : 0;
  request->number = number;
  if (verb == LEASE_KEEP)
    borrower->keep_soon = false;
  borrower->under_way = true;
  borrower->sent_ms = now_ms;
  *ret_request = *request;
  return true;
}

static uint64_t
until (uint64_t when_ms, uint64_t now_ms) {
  return when_ms > now_ms ? when_ms - now_ms : 0;
}

uint64_t
lease_borrower_wait_ms (const struct lease_borrower *borrower, uint64_t now_ms) {
  uint64_t wait = UINT64_MAX, blocks;

  if (!borrower->connected)
    return UINT64_MAX;
  if (borrower->under_way)
    return until (borrower->sent_ms + LEASE_ANSWER_MS, now_ms);
  if (borrower->state == LEASE_ATTACHED) {
    wait = until (borrower->kept_ms + borrower->options.keep_ms, now_ms);
    if (borrower->keep_soon || borrower->ending)
      wait = 0;
    else if (level_verb (borrower, &blocks) && until (borrower->level_ms, now_ms) < wait)
      wait = until (borrower->level_ms, now_ms);
  } else if (borrower->state == LEASE_ATTACHING || borrower->state == LEASE_REFUSED) {
    wait = 0;
  }
  return wait == UINT64_MAX || wait > until (borrower->next_ms, now_ms) ? wait : until (borrower->next_ms, now_ms);
}

bool
lease_borrower_timed_out (const struct lease_borrower *borrower, uint64_t now_ms) {
  return borrower->under_way && now_ms - borrower->sent_ms >= LEASE_ANSWER_MS;
}

/* ---- what the answers mean ---- */

static void
note_lease (struct lease_borrower *borrower, uint64_t now_ms, const struct lease_answer *answer) {
  borrower->epoch = answer->epoch;
  borrower->level = answer->level;
  borrower->used = answer->used;
  borrower->revoke = answer->revoke;
  borrower->revoke_level = answer->revoke_level;
  borrower->revoke_until_ms = now_ms + answer->revoke_left_ms;
  if (answer->seq > borrower->seq)
    borrower->seq = answer->seq;
}

static void
refused (struct lease_borrower *borrower, uint64_t now_ms, enum lease_verdict verdict) {
  if (borrower->state == LEASE_ATTACHED)
    next_session (borrower); /* its data connections are over, perhaps with writes */
  borrower->state = LEASE_REFUSED;
  borrower->verdict = verdict;
  borrower->next_ms = now_ms + LEASE_REFUSED_MS;
}

static void
lost (struct lease_borrower *borrower, enum lease_verdict verdict) {
  borrower->verdict = verdict;
  borrower->level = borrower->used = borrower->revoke = 0;
  borrower->state = borrower->ending ? LEASE_ENDED : LEASE_LOST;
}

/* False: it says nothing that could be so. */
static bool
is_sensible (const struct lease_borrower *borrower, const struct lease_answer *answer) {
  const bool attached = borrower->request.verb != LEASE_ATTACH;

  if (answer->level > BLOCKS_MAX || answer->used > answer->level || answer->revoke_level > BLOCKS_MAX)
    return false;
  if (memcmp (answer->incarnation, no_id, LEASE_ID_BYTES) == 0)
    return false;
  switch (answer->verdict) {
  case LEASE_OK:
  case LEASE_NO_ROOM:
  case LEASE_IN_USE:
    if (borrower->request.verb == LEASE_END)
      return answer->verdict == LEASE_OK;
    if (answer->lease == 0 || answer->epoch == 0)
      return false;
    /* Of the arena that was asked for, if one was; and what was in force stays so until the answer to another ATTACH */
    if (borrower->options.lease
        && (answer->lease != borrower->options.lease
            || memcmp (answer->incarnation, borrower->options.incarnation, LEASE_ID_BYTES) != 0))
      return false;
    return !attached || answer->epoch == borrower->epoch;
  case LEASE_OTHER_INCARNATION:
    return borrower->options.lease && memcmp (answer->incarnation, borrower->options.incarnation, LEASE_ID_BYTES) != 0;
  case LEASE_UNKNOWN:
    return borrower->options.lease && memcmp (answer->incarnation, borrower->options.incarnation, LEASE_ID_BYTES) == 0;
  default:
    return true;
  }
}

static void
attached (struct lease_borrower *borrower, uint64_t now_ms, const struct lease_answer *answer) {
  borrower->options.lease = answer->lease;
  memcpy (borrower->options.incarnation, answer->incarnation, LEASE_ID_BYTES);
  borrower->seq = 0;
  borrower->level_ms = 0;
  note_lease (borrower, now_ms, answer);
  borrower->state = LEASE_ATTACHED;
}

bool
lease_borrower_answer (struct lease_borrower *borrower, uint64_t now_ms, const struct lease_answer *answer) {
  const enum lease_verb verb = borrower->request.verb;

  if (!borrower->under_way || answer->number != borrower->request.number)
    return true;
  if (borrower->request.session != borrower->session) {
    borrower->under_way = false; /* of an attachment that was given up meanwhile */
    return true;
  }
  if (!is_sensible (borrower, answer))
    return false;
  borrower->under_way = false;
  borrower->kept_ms = now_ms;
  borrower->next_ms = now_ms;
  borrower->free = answer->free;
  borrower->last = *answer;
  borrower->answers++;
  switch (answer->verdict) {
  case LEASE_OK:
    if (verb == LEASE_END) {
      borrower->level = borrower->used = borrower->revoke = 0;
      borrower->state = LEASE_ENDED;
    } else if (verb == LEASE_ATTACH) {
      attached (borrower, now_ms, answer);
    } else {
      note_lease (borrower, now_ms, answer);
    }
    break;
  case LEASE_NO_ROOM:
    note_lease (borrower, now_ms, answer);
    borrower->level_ms = now_ms + LEASE_NO_ROOM_MS;
    break;
  case LEASE_IN_USE:
    note_lease (borrower, now_ms, answer);
    break;
  case LEASE_BUSY:
    borrower->next_ms = now_ms + LEASE_BUSY_MS;
    break;
  case LEASE_OLD_EPOCH:
    attach_anew (borrower);
    break;
  case LEASE_OTHER_INCARNATION:
  case LEASE_UNKNOWN:
    lost (borrower, answer->verdict);
    break;
  default:
    refused (borrower, now_ms, answer->verdict);
  }
  return true;
}

void
lease_borrower_export_name (const struct lease_borrower *borrower, char *ret_name) {
  lease_export_name (borrower->options.lease, borrower->epoch, borrower->options.incarnation, ret_name);
}
