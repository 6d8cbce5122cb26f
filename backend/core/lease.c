/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The bytes of lease messages, big endian as all of NBD:
 *
 *   request  ┌ version 2, verb 2, disk 4 ┐┌ vm, host, boot, incarnation: 16 each ┐┌ 8 each: session, lease, epoch, seq, blocks,
 *            └───────────────────────────┘└──────────────────────────────────────┘│ revoke_seen, number ┐┌ 32 zeroes ┐ answer
 * ┌ version 2, verdict 2, revoke_left 4 ┐┌ incarnation 16 ┐┌ 8 each: lease, epoch, seq, level, used, free, revoke, │
 * revoke_level, number                         ┐┌ 32 zeroes ┐
 */
#include "core/lease.h"

#include <string.h>

#define REQUEST_NUMBERS 7u
#define ANSWER_NUMBERS 9u
#define REQUEST_USED (8u + 4u * LEASE_ID_BYTES + 8u * REQUEST_NUMBERS)
#define ANSWER_USED (8u + LEASE_ID_BYTES + 8u * ANSWER_NUMBERS)

_Static_assert(REQUEST_USED <= LEASE_REQUEST_BYTES && ANSWER_USED <= LEASE_ANSWER_BYTES, "they fit");

static uint8_t *
put (uint8_t *at, unsigned bytes, uint64_t value) {
  for (unsigned i = 0; i < bytes; i++)
    at[i] = (uint8_t)(value >> 8 * (bytes - 1 - i));
  return at + bytes;
}

static uint64_t
get (const uint8_t **at, unsigned bytes) {
  uint64_t value = 0;

  for (unsigned i = 0; i < bytes; i++)
    value = value << 8 | (*at)[i];
  *at += bytes;
  return value;
}

static uint8_t *
put_id (uint8_t *at, const uint8_t id[LEASE_ID_BYTES]) {
  memcpy (at, id, LEASE_ID_BYTES);
  return at + LEASE_ID_BYTES;
}

static void
get_id (const uint8_t **at, uint8_t *ret_id) {
  memcpy (ret_id, *at, LEASE_ID_BYTES);
  *at += LEASE_ID_BYTES;
}

static bool
is_zero (const uint8_t *bytes, size_t n) {
  for (size_t i = 0; i < n; i++)
    if (bytes[i])
      return false;
  return true;
}

void
lease_request_encode (const struct lease_request *request, uint8_t *out) {
  const uint64_t numbers[REQUEST_NUMBERS] = { request->session, request->lease,       request->epoch, request->seq,
                                              request->blocks,  request->revoke_seen, request->number };
  uint8_t *at = out;

  memset (out, 0, LEASE_REQUEST_BYTES);
  at = put (at, 2, LEASE_PROTOCOL_VERSION);
  at = put (at, 2, request->verb);
  at = put (at, 4, request->disk);
  at = put_id (at, request->vm);
  at = put_id (at, request->host);
  at = put_id (at, request->boot);
  at = put_id (at, request->incarnation);
  for (unsigned i = 0; i < REQUEST_NUMBERS; i++)
    at = put (at, 8, numbers[i]);
}

bool
lease_request_decode (const uint8_t *bytes, size_t n, struct lease_request *ret_request) {
  struct lease_request *request = ret_request;
  uint64_t *const numbers[REQUEST_NUMBERS] = { &request->session, &request->lease,       &request->epoch, &request->seq,
                                               &request->blocks,  &request->revoke_seen, &request->number };
  const uint8_t *at = bytes;
  uint64_t verb;

  if (n != LEASE_REQUEST_BYTES || get (&at, 2) != LEASE_PROTOCOL_VERSION)
    return false;
  verb = get (&at, 2);
  if (verb < LEASE_ATTACH || verb > LEASE_END || !is_zero (bytes + REQUEST_USED, LEASE_REQUEST_BYTES - REQUEST_USED))
    return false;
  request->verb = (enum lease_verb)verb;
  request->disk = (uint32_t)get (&at, 4);
  get_id (&at, request->vm);
  get_id (&at, request->host);
  get_id (&at, request->boot);
  get_id (&at, request->incarnation);
  for (unsigned i = 0; i < REQUEST_NUMBERS; i++)
    *numbers[i] = get (&at, 8);
  return true;
}

void
lease_answer_encode (const struct lease_answer *answer, uint8_t *out) {
  const uint64_t numbers[ANSWER_NUMBERS] = { answer->lease, answer->epoch,  answer->seq,          answer->level, answer->used,
                                             answer->free,  answer->revoke, answer->revoke_level, answer->number };
  uint8_t *at = out;

  memset (out, 0, LEASE_ANSWER_BYTES);
  at = put (at, 2, LEASE_PROTOCOL_VERSION);
  at = put (at, 2, answer->verdict);
  at = put (at, 4, answer->revoke_left_ms);
  at = put_id (at, answer->incarnation);
  for (unsigned i = 0; i < ANSWER_NUMBERS; i++)
    at = put (at, 8, numbers[i]);
}

bool
lease_answer_decode (const uint8_t *bytes, size_t n, struct lease_answer *ret_answer) {
  struct lease_answer *answer = ret_answer;
  uint64_t *const numbers[ANSWER_NUMBERS]
      = { &answer->lease, &answer->epoch,  &answer->seq,          &answer->level, &answer->used,
          &answer->free,  &answer->revoke, &answer->revoke_level, &answer->number };
  const uint8_t *at = bytes;
  uint64_t verdict;

  if (n != LEASE_ANSWER_BYTES || get (&at, 2) != LEASE_PROTOCOL_VERSION)
    return false;
  verdict = get (&at, 2);
  if (verdict > LEASE_IN_USE || !is_zero (bytes + ANSWER_USED, LEASE_ANSWER_BYTES - ANSWER_USED))
    return false;
  answer->verdict = (enum lease_verdict)verdict;
  answer->revoke_left_ms = (uint32_t)get (&at, 4);
  get_id (&at, answer->incarnation);
  for (unsigned i = 0; i < ANSWER_NUMBERS; i++)
    *numbers[i] = get (&at, 8);
  return true;
}

/* ---- names of exports ---- */

static const char digits[] = "0123456789abcdef";
static const char prefix[] = "lease-";

static char *
put_hex (char *at, uint64_t value) {
  for (int shift = 60; shift >= 0; shift -= 4)
    *at++ = digits[value >> shift & 15];
  return at;
}

void
lease_export_name (uint64_t lease, uint64_t epoch, const uint8_t incarnation[LEASE_ID_BYTES], char *ret_name) {
  char *at = ret_name;

  memcpy (at, prefix, sizeof prefix - 1);
  at = put_hex (at + sizeof prefix - 1, lease);
  *at++ = '.';
  at = put_hex (at, epoch);
  *at++ = '.';
  for (unsigned i = 0; i < LEASE_ID_BYTES; i++) {
    *at++ = digits[incarnation[i] >> 4];
    *at++ = digits[incarnation[i] & 15];
  }
  *at = '\0';
}

static bool
get_digit (const char **at, unsigned *ret_digit) {
  const char c = **at;

  if (c >= '0' && c <= '9')
    *ret_digit = (unsigned)(c - '0');
  else if (c >= 'a' && c <= 'f')
    *ret_digit = (unsigned)(c - 'a' + 10);
  else
    return false;
  ++*at;
  return true;
}

static bool
get_hex (const char **at, uint64_t *ret_value) {
  uint64_t value = 0;
  unsigned digit;

  for (unsigned i = 0; i < 16; i++) {
    if (!get_digit (at, &digit))
      return false;
    value = value << 4 | digit;
  }
  *ret_value = value;
  return true;
}

bool
lease_export_parse (const char *name, uint64_t *ret_lease, uint64_t *ret_epoch, uint8_t ret_incarnation[LEASE_ID_BYTES]) {
  const char *at = name;
  uint8_t incarnation[LEASE_ID_BYTES];
  uint64_t lease, epoch;
  unsigned high, low;

  if (strncmp (at, prefix, sizeof prefix - 1) != 0)
    return false;
  at += sizeof prefix - 1;
  if (!get_hex (&at, &lease) || *at++ != '.' || !get_hex (&at, &epoch) || *at++ != '.')
    return false;
  for (unsigned i = 0; i < LEASE_ID_BYTES; i++) {
    if (!get_digit (&at, &high) || !get_digit (&at, &low))
      return false;
    incarnation[i] = (uint8_t)(high << 4 | low);
  }
  if (*at != '\0')
    return false;
  *ret_lease = lease;
  *ret_epoch = epoch;
  memcpy (ret_incarnation, incarnation, sizeof incarnation);
  return true;
}
