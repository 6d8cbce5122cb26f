/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The memory device's requests as a driver writes them. */
#ifndef DOMYBS_TESTS_REQUESTS_H
#define DOMYBS_TESTS_REQUESTS_H

#include <endian.h>
#include <stddef.h>
#include <string.h>

#include "domybs-abi.h"

struct request_bytes {
  size_t n;
  uint8_t bytes[DOMYBS_REQUEST_BYTES_MAX];
};

static inline struct request_bytes
request_of (uint16_t type, uint32_t count, uint64_t session, uint64_t id, const void *body, size_t body_bytes) {
  const struct domybs_request head = {
    .type = htole16 (type), .count = htole32 (count), .session = htole64 (session), .id = htole64 (id)
  };
  struct request_bytes request = { .n = sizeof head + body_bytes };

  memcpy (request.bytes, &head, sizeof head);
  if (body_bytes)
    memcpy (request.bytes + sizeof head, body, body_bytes);
  return request;
}

static inline struct request_bytes
request_hello (uint64_t nonce, uint32_t section_blocks) {
  const struct domybs_hello hello = { .abi_version = htole32 (DOMYBS_ABI_VERSION),
                                      .section_blocks = htole32 (section_blocks),
                                      .nonce = htole64 (nonce),
                                      .driver = "test" };

  return request_of (DOMYBS_REQ_HELLO, 1, 0, 0, &hello, sizeof hello);
}

static inline struct request_bytes
request_grant (uint64_t session, uint64_t id, uint32_t hint, uint32_t flags, uint64_t blocks, uint64_t area_start,
               uint64_t area_blocks) {
  const struct domybs_grant grant = { htole32 (hint), htole32 (flags), htole64 (blocks), htole64 (area_start),
                                      htole64 (area_blocks) };

  return request_of (DOMYBS_REQ_GRANT, 1, session, id, &grant, sizeof grant);
}

static inline struct request_bytes
request_release (uint64_t session, uint64_t id, const struct domybs_run *runs, uint32_t n) {
  return request_of (DOMYBS_REQ_RELEASE, n, session, id, runs, n * sizeof *runs);
}

static inline struct request_bytes
request_release_one (uint64_t session, uint64_t id, uint64_t start, uint64_t count) {
  const struct domybs_run run = { htole64 (start), htole64 (count) };

  return request_release (session, id, &run, 1);
}

static inline struct request_bytes
request_stat (uint64_t session, uint64_t id, uint32_t tag, uint64_t value) {
  const struct domybs_stat stat = { .tag = htole32 (tag), .value = htole64 (value) };

  return request_of (DOMYBS_REQ_STATS, 1, session, id, &stat, sizeof stat);
}

static inline struct request_bytes
request_reserve (uint64_t session, uint64_t id, uint32_t tier, uint32_t flags, uint64_t blocks) {
  const struct domybs_reserve reserve = { htole32 (tier), htole32 (flags), htole64 (blocks) };

  return request_of (DOMYBS_REQ_RESERVE, 1, session, id, &reserve, sizeof reserve);
}

static inline struct request_bytes
request_bye (uint64_t session, uint64_t id) {
  return request_of (DOMYBS_REQ_BYE, 0, session, id, NULL, 0);
}

#endif
