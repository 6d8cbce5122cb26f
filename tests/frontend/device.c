/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The memory device's requests, as its driver makes them. */
#include "frontend.h"

#include <endian.h>
#include <string.h>

#define PAGE 4096u
#define DESCS_PER_SLOT 4u

void
fe_submit (struct fe *fe, unsigned slot, const void *request, size_t n, uint32_t cap) {
  struct fe_queue *queue = &fe->queues[DOMYBS_VQ_REQUEST];
  const struct fe_piece pieces[] = { { fe_request_gpa (slot), (uint32_t)n, false }, { fe_response_gpa (slot), cap, true } };
  const uint16_t head = (uint16_t)(slot * DESCS_PER_SLOT);

  memcpy (fe_at (fe, fe_request_gpa (slot)), request, n);
  memset (fe_at (fe, fe_response_gpa (slot)), 0xee, PAGE); /* so that a short answer is seen */
  fe_write_chain (queue, head, pieces, cap ? 2 : 1);
  fe_publish (queue, head);
  fe_kick_if_wanted (fe, queue);
}

bool
fe_read_answer (struct fe *fe, uint64_t gpa, uint32_t used_bytes, struct fe_answer *ret) {
  struct domybs_response response;
  const uint8_t *bytes = fe_at (fe, gpa);

  memset (ret, 0, sizeof *ret);
  ret->used_bytes = used_bytes;
  if (used_bytes < sizeof response)
    return fe_fail (fe, "an answer of %u bytes", used_bytes);
  memcpy (&response, bytes, sizeof response);
  ret->status = le16toh (response.status);
  ret->count = le32toh (response.count);
  ret->session = le64toh (response.session);
  ret->id = le64toh (response.id);
  ret->blocks = le64toh (response.blocks);
  ret->granted = le64toh (response.granted);
  ret->retry_ms = le32toh (response.retry_ms);
  ret->generation = le32toh (response.generation);
  if (response.reserved || ret->count > DOMYBS_RUNS_MAX || used_bytes != sizeof response + ret->count * sizeof (struct domybs_run))
    return fe_fail (fe, "an answer with %u runs in %u bytes", ret->count, used_bytes);
  for (uint32_t i = 0; i < ret->count; i++) {
    struct domybs_run run;

    memcpy (&run, bytes + sizeof response + i * sizeof run, sizeof run);
    ret->runs[i] = (struct domybs_run){ le64toh (run.start), le64toh (run.count) };
  }
  return true;
}

bool
fe_complete (struct fe *fe, unsigned slot, struct fe_answer *ret_answer, int timeout_ms) {
  uint32_t head, len;

  if (!fe_wait_used (fe, &fe->queues[DOMYBS_VQ_REQUEST], &head, &len, timeout_ms))
    return false;
  if (head != slot * DESCS_PER_SLOT)
    return fe_fail (fe, "used chain %u, waited for %u", head, slot * DESCS_PER_SLOT);
  if (!fe_read_answer (fe, fe_response_gpa (slot), len, ret_answer))
    return false;
  if (ret_answer->status >= DOMYBS_BAD_REQUEST && ret_answer->status <= DOMYBS_STALE && ret_answer->id
      && ret_answer->id == fe->next_id - 1)
    fe->next_id--;
  return true;
}

bool
fe_call (struct fe *fe, const void *request, size_t n, struct fe_answer *ret_answer) {
  struct fe_answer dropped;

  fe_submit (fe, 0, request, n, PAGE);
  return fe_complete (fe, 0, ret_answer ? ret_answer : &dropped, fe_patience_ms ());
}

static size_t
encode (struct fe *fe, uint8_t *buf, uint16_t type, uint32_t count, uint64_t id, const void *body, size_t body_bytes) {
  const struct domybs_request header = {
    .type = htole16 (type),
    .count = htole32 (count),
    .session = htole64 (fe ? fe->session : 0),
    .id = htole64 (id || !fe ? id : fe->next_id++),
  };

  memcpy (buf, &header, sizeof header);
  if (body_bytes)
    memcpy (buf + sizeof header, body, body_bytes);
  return sizeof header + body_bytes;
}

size_t
fe_encode_hello (uint8_t *buf, uint32_t section_blocks, uint64_t nonce) {
  struct domybs_hello hello = {
    .abi_version = htole32 (DOMYBS_ABI_VERSION),
    .section_blocks = htole32 (section_blocks),
    .nonce = htole64 (nonce),
    .driver = "test-frontend",
  };

  return encode (NULL, buf, DOMYBS_REQ_HELLO, 1, 0, &hello, sizeof hello);
}

size_t
fe_encode_grant (struct fe *fe, uint8_t *buf, uint64_t id, uint64_t blocks, uint32_t hint, uint32_t flags, uint64_t area_start,
                 uint64_t area_blocks) {
  const struct domybs_grant grant = { htole32 (hint), htole32 (flags), htole64 (blocks), htole64 (area_start), htole64 (area_blocks) };

  return encode (fe, buf, DOMYBS_REQ_GRANT, 1, id, &grant, sizeof grant);
}

size_t
fe_encode_release (struct fe *fe, uint8_t *buf, uint64_t id, const struct domybs_run *runs, uint32_t n) {
  struct domybs_run wire[DOMYBS_RUNS_MAX];

  for (uint32_t i = 0; i < n && i < DOMYBS_RUNS_MAX; i++)
    wire[i] = (struct domybs_run){ htole64 (runs[i].start), htole64 (runs[i].count) };
  return encode (fe, buf, DOMYBS_REQ_RELEASE, n, id, wire, n * sizeof wire[0]);
}

size_t
fe_encode_stats (struct fe *fe, uint8_t *buf, uint64_t id, const struct domybs_stat *stats, uint32_t n) {
  struct domybs_stat wire[DOMYBS_STATS_MAX];

  for (uint32_t i = 0; i < n && i < DOMYBS_STATS_MAX; i++)
    wire[i] = (struct domybs_stat){ htole32 (stats[i].tag), 0, htole64 (stats[i].value) };
  return encode (fe, buf, DOMYBS_REQ_STATS, n, id, wire, n * sizeof wire[0]);
}

size_t
fe_encode_reserve (struct fe *fe, uint8_t *buf, uint64_t id, uint32_t tier, uint32_t flags, uint64_t blocks) {
  const struct domybs_reserve reserve = { htole32 (tier), htole32 (flags), htole64 (blocks) };

  return encode (fe, buf, DOMYBS_REQ_RESERVE, 1, id, &reserve, sizeof reserve);
}

size_t
fe_encode_bye (struct fe *fe, uint8_t *buf, uint64_t id) {
  return encode (fe, buf, DOMYBS_REQ_BYE, 0, id, NULL, 0);
}

bool
fe_hello (struct fe *fe, uint32_t section_blocks, struct fe_answer *ret_answer) {
  static uint64_t nonces;
  uint8_t buf[PAGE];
  struct fe_answer answer;
  size_t n;

  /* Unlike any nonce of another process on the same back-end, and of an earlier session of this one. */
  fe->nonce = ((uint64_t)g_random_int () << 32) + ++nonces;
  n = fe_encode_hello (buf, section_blocks, fe->nonce);
  if (!fe_call (fe, buf, n, &answer))
    return false;
  if (answer.status == DOMYBS_OK) {
    fe->session = answer.session;
    fe->next_id = 1;
  }
  if (ret_answer)
    *ret_answer = answer;
  return true;
}

bool
fe_grant (struct fe *fe, uint64_t blocks, uint32_t hint, uint32_t flags, uint64_t area_start, uint64_t area_blocks,
          struct fe_answer *ret_answer) {
  uint8_t buf[PAGE];

  return fe_call (fe, buf, fe_encode_grant (fe, buf, 0, blocks, hint, flags, area_start, area_blocks), ret_answer);
}

bool
fe_release (struct fe *fe, const struct domybs_run *runs, uint32_t n, struct fe_answer *ret_answer) {
  uint8_t buf[PAGE];

  return fe_call (fe, buf, fe_encode_release (fe, buf, 0, runs, n), ret_answer);
}

bool
fe_stats (struct fe *fe, const struct domybs_stat *stats, uint32_t n, struct fe_answer *ret_answer) {
  uint8_t buf[PAGE];

  return fe_call (fe, buf, fe_encode_stats (fe, buf, 0, stats, n), ret_answer);
}

bool
fe_reserve (struct fe *fe, uint32_t tier, uint64_t blocks, struct fe_answer *ret_answer) {
  uint8_t buf[PAGE];

  return fe_call (fe, buf, fe_encode_reserve (fe, buf, 0, tier, 0, blocks), ret_answer);
}

bool
fe_bye (struct fe *fe, struct fe_answer *ret_answer) {
  uint8_t buf[PAGE];

  return fe_call (fe, buf, fe_encode_bye (fe, buf, 0), ret_answer);
}

/* Event buffers lie in one scratch page, one descriptor each. */
static void
post_event (struct fe *fe, uint16_t index) {
  struct fe_queue *queue = &fe->queues[DOMYBS_VQ_EVENT];
  const struct fe_piece piece = { fe_scratch_gpa (64) + index * sizeof (struct domybs_event), sizeof (struct domybs_event), true };

  fe_write_chain (queue, index, &piece, 1);
  fe_publish (queue, index);
}

void
fe_post_events (struct fe *fe, unsigned n) {
  for (unsigned i = 0; i < n; i++)
    post_event (fe, (uint16_t)i);
  fe_kick (&fe->queues[DOMYBS_VQ_EVENT]);
}

bool
fe_wait_event (struct fe *fe, uint16_t type, struct domybs_event *ret_event, int timeout_ms) {
  const int64_t deadline = fe_now_ms () + timeout_ms;
  uint32_t head, len;

  while (fe_wait_used (fe, &fe->queues[DOMYBS_VQ_EVENT], &head, &len, (int)MAX (0, deadline - fe_now_ms ()))) {
    struct domybs_event event;

    if (head >= FE_QUEUE_SIZE || len != sizeof event)
      return fe_fail (fe, "an event of %u bytes in chain %u", len, head);
    memcpy (&event, fe_at (fe, fe_scratch_gpa (64) + head * sizeof event), sizeof event);
    post_event (fe, (uint16_t)head);
    fe_kick_if_wanted (fe, &fe->queues[DOMYBS_VQ_EVENT]);
    if (le16toh (event.type) == type) {
      *ret_event = event;
      return true;
    }
  }
  return false;
}
