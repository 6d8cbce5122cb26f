/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "core/device-request.h"

#include <endian.h>
#include <string.h>

_Static_assert (sizeof (struct domybs_response) + DOMYBS_RUNS_MAX * sizeof (struct domybs_run) <= DOMYBS_RESPONSE_BYTES_MAX,
                "the largest response fits");
_Static_assert (sizeof (struct domybs_request) + DOMYBS_RUNS_MAX * sizeof (struct domybs_run) <= DOMYBS_REQUEST_BYTES_MAX,
                "the largest RELEASE fits");
_Static_assert (sizeof (struct domybs_request) + DOMYBS_STATS_MAX * sizeof (struct domybs_stat) <= DOMYBS_REQUEST_BYTES_MAX,
                "the largest STATS fits");

static const char *
decode_hello (const uint8_t *p, struct device_request *ret) {
  struct domybs_hello hello;
  bool ended = false;

  memcpy (&hello, p, sizeof hello);
  if (le32toh (hello.abi_version) != DOMYBS_ABI_VERSION)
    return "the driver speaks another ABI version";
  ret->hello.section_blocks = le32toh (hello.section_blocks);
  if (ret->hello.section_blocks == 0 || ret->hello.section_blocks > REGION_BLOCKS_MAX
      || (ret->hello.section_blocks & (ret->hello.section_blocks - 1)))
    return "section size is not a power of two from 1 to 1024 blocks";
  ret->hello.nonce = le64toh (hello.nonce);
  if (ret->hello.nonce == 0)
    return "nonce is 0";
  memset (ret->hello.driver, 0, sizeof ret->hello.driver);
  for (size_t i = 0; i < sizeof hello.driver; i++) {
    const uint8_t c = hello.driver[i];

    ended = ended || c == 0;
    if (ended ? c != 0 : (c < 0x20 || c > 0x7e))
      return "driver name is not printable ASCII";
    ret->hello.driver[i] = (char)c;
  }
  return NULL;
}

static const char *
decode_grant (const uint8_t *p, uint64_t window_blocks, struct device_request *ret) {
  struct domybs_grant grant;
  uint32_t hint;

  memcpy (&grant, p, sizeof grant);
  hint = le32toh (grant.hint);
  if (hint > DOMYBS_HINT_REMOTE)
    return "unknown hint";
  ret->grant.hint = (enum domybs_hint)hint;
  ret->grant.flags = le32toh (grant.flags);
  if (ret->grant.flags & ~(DOMYBS_GRANT_F_ALL | DOMYBS_GRANT_F_SECTION))
    return "unknown flags";
  ret->grant.blocks = le64toh (grant.blocks);
  ret->grant.area_start = le64toh (grant.area_start);
  ret->grant.area_blocks = le64toh (grant.area_blocks);
  if (ret->grant.blocks == 0 || ret->grant.blocks > window_blocks)
    return "number of blocks out of range";
  if (ret->grant.area_blocks == 0 ? ret->grant.area_start != 0
                                  : (ret->grant.area_start >= window_blocks
                                     || ret->grant.area_blocks > window_blocks - ret->grant.area_start))
    return "area outside of the window";
  return NULL;
}

static const char *
decode_release (const uint8_t *p, uint32_t count, uint64_t window_blocks, struct device_request *ret) {
  ret->release.n_runs = count;
  ret->release.blocks = 0;
  for (uint32_t i = 0; i < count; i++) {
    struct domybs_run wire;
    struct block_run run;

    memcpy (&wire, p + i * sizeof wire, sizeof wire);
    run = (struct block_run){ le64toh (wire.start), le64toh (wire.count) };
    if (run.count == 0 || run.start >= window_blocks || run.count > window_blocks - run.start)
      return "run outside of the window";
    ret->release.runs[i] = run;
    ret->release.blocks += run.count;
  }
  return NULL;
}

static void
decode_stats (const uint8_t *p, uint32_t count, struct device_request *ret) {
  ret->stats.n = count;
  for (uint32_t i = 0; i < count; i++) {
    struct domybs_stat stat;

    memcpy (&stat, p + i * sizeof stat, sizeof stat);
    ret->stats.stats[i].tag = le32toh (stat.tag);
    ret->stats.stats[i].value = le64toh (stat.value);
  }
}

static const char *
decode_reserve (const uint8_t *p, struct device_request *ret) {
  struct domybs_reserve reserve;
  uint32_t tier;

  memcpy (&reserve, p, sizeof reserve);
  tier = le32toh (reserve.tier);
  if (tier != DOMYBS_HINT_SHARED && tier != DOMYBS_HINT_REMOTE)
    return "not a tier of far memory";
  if (reserve.flags)
    return "unknown flags";
  ret->reserve.tier = (enum domybs_hint)tier;
  ret->reserve.blocks = le64toh (reserve.blocks);
  if (ret->reserve.blocks > DOMYBS_RESERVE_BLOCKS_MAX)
    return "number of blocks out of range";
  return NULL;
}

const char *
device_request_decode (const uint8_t *bytes, size_t n, uint64_t window_blocks, struct device_request *ret_request) {
  struct domybs_request header;
  uint32_t count;
  size_t body;

  memset (ret_request, 0, offsetof (struct device_request, hello));
  if (n < sizeof header)
    return "shorter than its header";
  memcpy (&header, bytes, sizeof header);
  ret_request->type = (enum domybs_request_type)le16toh (header.type);
  ret_request->session = le64toh (header.session);
  ret_request->id = le64toh (header.id);
  count = le32toh (header.count);
  if (n > DOMYBS_REQUEST_BYTES_MAX)
    return "longer than any request";
  if (header.flags)
    return "unknown flags";
  body = n - sizeof header;
  bytes += sizeof header;

  switch (ret_request->type) {
  case DOMYBS_REQ_HELLO:
    if (count != 1 || body != sizeof (struct domybs_hello))
      return "wrong length";
    if (ret_request->session || ret_request->id)
      return "HELLO with a session or an id";
    return decode_hello (bytes, ret_request);
  case DOMYBS_REQ_GRANT:
    if (count != 1 || body != sizeof (struct domybs_grant))
      return "wrong length";
    break;
  case DOMYBS_REQ_RELEASE:
    if (count == 0 || count > DOMYBS_RUNS_MAX || body != count * sizeof (struct domybs_run))
      return "wrong length or number of runs";
    break;
  case DOMYBS_REQ_STATS:
    if (count > DOMYBS_STATS_MAX || body != count * sizeof (struct domybs_stat))
      return "wrong length or number of statistics";
    break;
  case DOMYBS_REQ_BYE:
    if (count || body)
      return "wrong length";
    break;
  case DOMYBS_REQ_RESERVE:
    if (count != 1 || body != sizeof (struct domybs_reserve))
      return "wrong length";
    break;
  default:
    return "unknown request";
  }
  if (ret_request->id == 0)
    return "id is 0";
  if (ret_request->type == DOMYBS_REQ_GRANT)
    return decode_grant (bytes, window_blocks, ret_request);
  if (ret_request->type == DOMYBS_REQ_RELEASE)
    return decode_release (bytes, count, window_blocks, ret_request);
  if (ret_request->type == DOMYBS_REQ_RESERVE)
    return decode_reserve (bytes, ret_request);
  if (ret_request->type == DOMYBS_REQ_STATS)
    decode_stats (bytes, count, ret_request);
  return NULL;
}

size_t
device_response_bytes (const struct device_response *response) {
  return sizeof (struct domybs_response) + response->n_runs * sizeof (struct domybs_run);
}

size_t
device_response_encode (const struct device_response *response, uint8_t *buf) {
  const struct domybs_response head = {
    .status = htole16 ((uint16_t)response->status),
    .count = htole32 (response->n_runs),
    .session = htole64 (response->session),
    .id = htole64 (response->id),
    .blocks = htole64 (response->blocks),
    .granted = htole64 (response->granted),
    .retry_ms = htole32 (response->retry_ms),
    .generation = htole32 (response->generation),
  };

  memcpy (buf, &head, sizeof head);
  for (unsigned i = 0; i < response->n_runs; i++) {
    const struct domybs_run run = { htole64 (response->runs[i].start), htole64 (response->runs[i].count) };

    memcpy (buf + sizeof head + i * sizeof run, &run, sizeof run);
  }
  return device_response_bytes (response);
}

const char *
device_request_name (enum domybs_request_type type) {
  static const char *const names[] = { "0", "HELLO", "GRANT", "RELEASE", "STATS", "BYE", "RESERVE" };

  return (unsigned)type < sizeof names / sizeof names[0] ? names[type] : "unknown";
}

const char *
device_status_name (enum domybs_status status) {
  static const char *const names[] = { "OK",      "BUSY",        "NO_VM_CAPACITY", "NO_HOST_CAPACITY", "NO_TIER",
                                       "BAD_REQUEST", "BAD_SESSION", "STALE",          "FAILED" };

  return (unsigned)status < sizeof names / sizeof names[0] ? names[status] : "unknown";
}
