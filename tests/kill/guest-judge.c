/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What an answer must be, by the guest's own books; and the books after it. */
#include "guest-internal.h"

#include <endian.h>
#include <string.h>

void
guest_void_books (struct guest *guest) {
  guest->session = guest->nonce = 0;
  guest->last_id = 0;
  guest->n_granted = 0;
  guest->last_stat = 0;
  guest->config_event_generation = 0;
  guest->config_due = guest->reclaim_due = false;
  /* one that was asked for and did not get through yet goes to the next session */
  guest->reclaims_asked -= guest->reclaims_got;
  guest->reclaims_got = 0;
  memset (guest->keys, 0, sizeof guest->keys);
  memset (guest->leaving, 0, sizeof guest->leaving);
  memset (guest->past, 0, sizeof guest->past);
}

static void
expect (struct guest *guest, const struct fe_answer *answer, uint16_t status, const char *why) {
  if (answer->status != status)
    guest_fail (guest, "status %u, expected %u: %s", answer->status, status, why);
}

/* Of every answer. */
static void
check_head (struct guest *guest, const struct fe_answer *answer, uint64_t id) {
  if (answer->id != id)
    guest_fail (guest, "an answer to id %" G_GUINT64_FORMAT ", expected %" G_GUINT64_FORMAT, answer->id, id);
  if (answer->session != guest->session)
    guest_fail (guest, "an answer of session %#" G_GINT64_MODIFIER "x, the guest's is %#" G_GINT64_MODIFIER "x", answer->session,
                guest->session);
  if (answer->granted != guest->n_granted)
    guest_fail (guest, "the device says %" G_GUINT64_FORMAT " blocks are granted, the guest has %" G_GUINT64_FORMAT, answer->granted,
                guest->n_granted);
  if (answer->generation < guest->generation)
    guest_fail (guest, "generation %u after %u", answer->generation, guest->generation);
  guest->generation = answer->generation;
  if (answer->status != DOMYBS_OK && answer->count)
    guest_fail (guest, "%u runs with status %u", answer->count, answer->status);
}

/* ---- HELLO ---- */

static void
judge_hello (struct guest *guest, const struct guest_request *request, const struct fe_answer *answer) {
  struct domybs_hello hello;
  uint64_t nonce;

  memcpy (&hello, request->bytes + sizeof (struct domybs_request), sizeof hello);
  nonce = le64toh (hello.nonce);
  if (nonce == 0) { /* repeated before there was a session */
    expect (guest, answer, DOMYBS_BAD_REQUEST, "HELLO with nonce 0");
    guest->refused++;
    check_head (guest, answer, 0);
    return;
  }
  if (guest->session && nonce == guest->nonce) {
    if (answer->status != DOMYBS_BUSY)
      expect (guest, answer, DOMYBS_OK, "HELLO of the same session");
    guest->replayed++;
    check_head (guest, answer, 0);
    return;
  }
  if (answer->status == DOMYBS_BUSY && answer->session && answer->session == guest->session) {
    guest->busy++; /* nothing was done */
    check_head (guest, answer, 0);
    return;
  }
  const uint64_t before = guest->session;
  guest_void_books (guest);
  if (answer->status == DOMYBS_OK) {
    if (answer->session == 0 || answer->session == before)
      guest_fail (guest, "HELLO with a new nonce got session %#" G_GINT64_MODIFIER "x", answer->session);
    guest->session = answer->session;
    guest->nonce = nonce;
    guest->section_blocks = le32toh (hello.section_blocks);
    guest->fe->session = answer->session;
    guest->fe->next_id = 1;
    guest->hellos++;
    if (!guest->fe->window.map)
      guest_fail (guest, "HELLO is answered, and there is no window");
  } else if (answer->status == DOMYBS_BUSY) {
    guest->busy++;
  } else if (!guest->poor_host || answer->status != DOMYBS_FAILED) {
    guest_fail (guest, "HELLO: status %u", answer->status);
  }
  check_head (guest, answer, 0);
}

/* ---- GRANT ---- */

/* How many blocks a GRANT could find, runs being no matter. */
static uint64_t
findable (const struct guest *guest, uint64_t start, uint64_t count, bool whole) {
  const uint64_t usable = guest->window_blocks - guest->section_blocks, section = guest->section_blocks;
  const uint64_t end = MIN (count ? start + count : usable, usable);
  uint64_t n = 0;

  if (!whole) {
    for (uint64_t block = start; block < end; block++)
      n += !guest->keys[block];
    return n;
  }
  for (uint64_t at = (start + section - 1) / section * section; at + section <= end; at += section) {
    bool empty = true;

    for (uint64_t block = at; block < at + section && empty; block++)
      empty = !guest->keys[block];
    n += empty ? section : 0;
  }
  return n;
}

static void
take_runs (struct guest *guest, const struct fe_answer *answer, const struct domybs_grant *grant, bool whole) {
  const uint64_t usable = guest->window_blocks - guest->section_blocks, area = le64toh (grant->area_blocks);
  const uint64_t start = area ? le64toh (grant->area_start) : 0, end = area ? MIN (start + area, usable) : usable;
  uint64_t sum = 0;

  for (uint32_t i = 0; i < answer->count; i++) {
    const struct domybs_run *run = &answer->runs[i];

    if (run->count == 0 || run->start < start || run->start >= end || run->count > end - run->start)
      guest_fail (guest, "run %" G_GUINT64_FORMAT "+%" G_GUINT64_FORMAT " is not in the area", (uint64_t)run->start, (uint64_t)run->count);
    if (whole && (run->start % guest->section_blocks || run->count % guest->section_blocks))
      guest_fail (guest, "run %" G_GUINT64_FORMAT "+%" G_GUINT64_FORMAT " is no whole section", (uint64_t)run->start, (uint64_t)run->count);
    for (uint64_t block = run->start; block < run->start + run->count; block++) {
      if (guest->keys[block])
        guest_fail (guest, "block %" G_GUINT64_FORMAT " is granted a second time", block);
      guest_expect_zero (guest, block);
      guest_fill_block (guest, block);
    }
    sum += run->count;
  }
  if (sum != answer->blocks)
    guest_fail (guest, "runs of %" G_GUINT64_FORMAT " blocks, and it says %" G_GUINT64_FORMAT, sum, answer->blocks);
  guest->n_granted += sum;
}

static void
judge_grant (struct guest *guest, const struct guest_request *request, const struct fe_answer *answer) {
  const unsigned room = (unsigned)((request->cap - sizeof (struct domybs_response)) / sizeof (struct domybs_run));
  const uint64_t left = guest->max_blocks - MIN (guest->max_blocks, guest->n_granted);
  uint64_t host_left = guest->host_blocks - MIN (guest->host_blocks, guest->n_granted), wanted, found, expected;
  struct domybs_grant grant;
  bool all, whole;

  memcpy (&grant, request->bytes + sizeof (struct domybs_request), sizeof grant);
  all = le32toh (grant.flags) & DOMYBS_GRANT_F_ALL;
  whole = le32toh (grant.flags) & DOMYBS_GRANT_F_SECTION;
  wanted = le64toh (grant.blocks);
  if (answer->status == DOMYBS_BUSY || (guest->poor_host && (answer->status == DOMYBS_NO_HOST_CAPACITY || answer->status == DOMYBS_FAILED)))
    return;
  if (le32toh (grant.hint) > DOMYBS_HINT_LOCAL) {
    expect (guest, answer, DOMYBS_NO_TIER, "a hint for a tier that there is not");
    return;
  }
  found = findable (guest, le64toh (grant.area_start), le64toh (grant.area_blocks), whole);
  expected = MIN (MIN (wanted, left), found);
  if (whole) {
    expected -= expected % guest->section_blocks;
    host_left -= host_left % guest->section_blocks;
  }
  if (answer->status == DOMYBS_NO_VM_CAPACITY) {
    /* F_ALL may also fail for want of runs */
    if (expected && !(all && (expected < wanted || room < DOMYBS_RUNS_MAX || found >= wanted)))
      guest_fail (guest, "NO_VM_CAPACITY, and there are %" G_GUINT64_FORMAT " blocks", expected);
    return;
  }
  if (answer->status == DOMYBS_NO_HOST_CAPACITY) {
    if (all ? host_left >= wanted : host_left > 0)
      guest_fail (guest, "NO_HOST_CAPACITY, and the host has %" G_GUINT64_FORMAT " blocks", host_left);
    return;
  }
  expect (guest, answer, DOMYBS_OK, "GRANT");
  if (answer->blocks == 0 || answer->blocks > wanted || (all && answer->blocks != wanted) || answer->blocks > left
      || answer->blocks > host_left)
    guest_fail (guest, "%" G_GUINT64_FORMAT " blocks granted of %" G_GUINT64_FORMAT " (the VM may have %" G_GUINT64_FORMAT
                " more, the host %" G_GUINT64_FORMAT ")", answer->blocks, wanted, left, host_left);
  /* Fewer only for a reason. Many flags and areas make for few runs: those are let pass when all runs are used. */
  if (!guest->poor_host && answer->blocks < MIN (expected, host_left) && answer->count < MIN (room, DOMYBS_RUNS_MAX))
    guest_fail (guest, "%" G_GUINT64_FORMAT " blocks granted in %u runs, and there are %" G_GUINT64_FORMAT, answer->blocks,
                answer->count, MIN (expected, host_left));
  take_runs (guest, answer, &grant, whole);
}

/* ---- RELEASE, STATS, BYE ---- */

static void
judge_release (struct guest *guest, const struct guest_request *request, const struct fe_answer *answer, uint32_t count) {
  struct domybs_run runs[DOMYBS_RUNS_MAX];
  uint64_t sum = 0;

  memcpy (runs, request->bytes + sizeof (struct domybs_request), count * sizeof runs[0]);
  if (answer->status != DOMYBS_BUSY && !(guest->poor_host && answer->status == DOMYBS_FAILED))
    expect (guest, answer, DOMYBS_OK, "RELEASE of what was granted");
  for (uint32_t i = 0; i < count; i++)
    for (uint64_t block = le64toh (runs[i].start), n = le64toh (runs[i].count); n; block++, n--) {
      guest->leaving[block] = false;
      if (answer->status == DOMYBS_OK)
        guest->keys[block] = 0;
      else
        guest_refill_block (guest, block);
      sum++;
    }
  if (answer->status != DOMYBS_OK)
    return;
  guest->n_granted -= sum;
  if (answer->blocks != sum)
    guest_fail (guest, "%" G_GUINT64_FORMAT " blocks released, and it says %" G_GUINT64_FORMAT, sum, answer->blocks);
}

static void
judge_stats (struct guest *guest, const struct guest_request *request, const struct fe_answer *answer, uint32_t count) {
  struct domybs_stat stat;

  if (answer->status == DOMYBS_BUSY)
    return;
  expect (guest, answer, DOMYBS_OK, "STATS");
  if (count == 0)
    return;
  memcpy (&stat, request->bytes + sizeof (struct domybs_request), sizeof stat);
  guest->last_stat = le64toh (stat.value);
}

/* ---- one answer ---- */

static void
remember (struct guest *guest, const struct guest_request *request, uint64_t id, const uint8_t *answer, size_t n) {
  struct guest_past *past = &guest->past[id % DOMYBS_REPLAY_DEPTH];

  guest->last_id = past->id = id;
  past->n = request->n;
  past->answer_bytes = n;
  memcpy (past->bytes, request->bytes, request->n);
  memcpy (past->answer, answer, n);
}

/* False: it was no new request, and is judged. */
static bool
is_new (struct guest *guest, const struct guest_request *request, const struct domybs_request *header, const struct fe_answer *answer,
        const uint8_t *bytes) {
  const uint64_t id = le64toh (header->id);
  const struct guest_past *past = &guest->past[id % DOMYBS_REPLAY_DEPTH];

  if (guest->session == 0 || le64toh (header->session) != guest->session) {
    expect (guest, answer, DOMYBS_BAD_SESSION, "another session's request");
  } else if (request->spoilt && answer->status == DOMYBS_BAD_REQUEST) {
    /* what it says may be refused before its id is looked at */
  } else if (id + DOMYBS_REPLAY_DEPTH <= guest->last_id) {
    expect (guest, answer, DOMYBS_STALE, "an old id");
  } else if (id > guest->last_id + 1) {
    expect (guest, answer, DOMYBS_BAD_REQUEST, "an id of the future");
  } else if (id == guest->last_id + 1) {
    return true;
  } else if (past->n != request->n || memcmp (past->bytes, request->bytes, request->n) != 0 || past->answer_bytes > request->cap) {
    expect (guest, answer, DOMYBS_BAD_REQUEST, "a used id with another request");
  } else {
    if (past->answer_bytes != answer->used_bytes || memcmp (past->answer, bytes, past->answer_bytes) != 0)
      guest_fail (guest, "id %" G_GUINT64_FORMAT " again has got another answer", id);
    guest->replayed++;
    return false;
  }
  guest->refused++;
  check_head (guest, answer, id);
  return false;
}

void
guest_judge (struct guest *guest, const struct guest_request *request, unsigned slot, uint32_t len) {
  const uint8_t *bytes = fe_at (guest->fe, fe_response_gpa (slot));
  struct domybs_request header;
  struct fe_answer answer;
  uint32_t count;

  if (!fe_read_answer (guest->fe, fe_response_gpa (slot), len, &answer))
    guest_fail (guest, "slot %u: %s", slot, guest->fe->why);
  for (uint32_t i = len; i < 4096; i++)
    if (bytes[i] != 0xee)
      guest_fail (guest, "slot %u: something was written behind the answer's %u bytes", slot, len);
  memcpy (&header, request->bytes, sizeof header);
  count = le32toh (header.count);
  guest_trace (guest, "slot %u: answered, status %u, id %" G_GUINT64_FORMAT ", %" G_GUINT64_FORMAT " blocks, %" G_GUINT64_FORMAT " granted",
               slot, answer.status, answer.id, answer.blocks, answer.granted);
  guest->last_status = answer.status;
  if (answer.status == DOMYBS_BUSY && answer.retry_ms == 0)
    guest_fail (guest, "BUSY without a time to retry after");
  if (le16toh (header.type) == DOMYBS_REQ_HELLO) {
    judge_hello (guest, request, &answer);
    return;
  }
  if (!is_new (guest, request, &header, &answer, bytes))
    return;
  guest->busy += answer.status == DOMYBS_BUSY;
  switch (le16toh (header.type)) {
  case DOMYBS_REQ_GRANT:
    judge_grant (guest, request, &answer);
    break;
  case DOMYBS_REQ_RELEASE:
    judge_release (guest, request, &answer, count);
    break;
  case DOMYBS_REQ_STATS:
    judge_stats (guest, request, &answer, count);
    break;
  default: /* BYE */
    if (answer.status == DOMYBS_BUSY)
      break;
    expect (guest, &answer, DOMYBS_OK, "BYE");
    guest_void_books (guest);
    check_head (guest, &answer, answer.id);
    return;
  }
  remember (guest, request, answer.id, bytes, len);
  check_head (guest, &answer, le64toh (header.id));
}
