/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Codec of the memory device's requests and responses (guest-driver/domybs-abi.h): bytes in, one checked request out.
 *
 * The bytes must be a private copy: the guest may go on writing to the original. What a request says about itself (type, counts,
 * lengths, values in range of the window) is checked here; what depends on the session and on what is granted is
 * memory-device's. Ids and block numbers come out as plain numbers, never as indexes.
 *
 * Pure.
 */
#ifndef DOMYBS_CORE_DEVICE_REQUEST_H
#define DOMYBS_CORE_DEVICE_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/regions.h"

struct device_request {
  enum domybs_request_type type;
  uint64_t session;
  uint64_t id;
  union {
    struct {
      uint32_t section_blocks;
      uint64_t nonce;
      char driver[33]; /* printable ASCII, NUL-terminated */
    } hello;
    struct {
      enum domybs_hint hint;
      uint32_t flags; /* DOMYBS_GRANT_F_* */
      uint64_t blocks, area_start, area_blocks;
    } grant;
    struct {
      unsigned n_runs;
      uint64_t blocks; /* sum; runs may still overlap each other */
      struct block_run runs[DOMYBS_RUNS_MAX];
    } release;
    struct {
      unsigned n;
      struct {
        uint32_t tag;
        uint64_t value;
      } stats[DOMYBS_STATS_MAX];
    } stats;
    struct {
      enum domybs_hint tier; /* SHARED or REMOTE */
      uint64_t blocks;       /* ≤ DOMYBS_RESERVE_BLOCKS_MAX */
    } reserve;
  };
};

/* Checks and reads a request for a window of window_blocks. Returns NULL when good, else the reason. The header fields (type,
 * session, id) of *ret_request are filled as far as there are bytes for them, so that a refusal can be addressed; everything
 * else is valid only when good. */
const char *device_request_decode (const uint8_t *bytes, size_t n, uint64_t window_blocks, struct device_request *ret_request);

struct device_response {
  enum domybs_status status;
  uint64_t session;
  uint64_t id;
  uint64_t blocks;
  uint64_t granted;
  uint32_t retry_ms;
  uint32_t generation;
  unsigned n_runs; /* ≤ DOMYBS_RUNS_MAX */
  struct block_run runs[DOMYBS_RUNS_MAX];
};

/* The length of the answer in bytes. */
size_t device_response_bytes (const struct device_response *response);

/* Writes it; buf holds DOMYBS_RESPONSE_BYTES_MAX. Returns its length. */
size_t device_response_encode (const struct device_response *response, uint8_t *buf);

const char *device_request_name (enum domybs_request_type type);
const char *device_status_name (enum domybs_status status);

#endif
