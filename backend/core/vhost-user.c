/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "core/vhost-user.h"

#include <string.h>

#define FLAG_VERSION_MASK 0x3u
#define FLAG_VERSION 0x1u
#define FLAG_REPLY (1u << 2)
#define FLAG_NEED_REPLY (1u << 3)

enum payload { NONE, U64, STATE, ADDR, MEMORY, CONFIG, VRING_FD, INFLIGHT, REGION };

/* One row per request that we answer: anything else is refused by name. */
static const struct request_rule {
  uint32_t request;
  enum payload payload;
  uint8_t fds; /* exactly that many; MEMORY and VRING_FD say it in their payload */
  const char *name;
} rules[] = {
  { VHU_GET_FEATURES, NONE, 0, "GET_FEATURES" },
  { VHU_SET_FEATURES, U64, 0, "SET_FEATURES" },
  { VHU_SET_OWNER, NONE, 0, "SET_OWNER" },
  { VHU_RESET_OWNER, NONE, 0, "RESET_OWNER" },
  { VHU_SET_MEM_TABLE, MEMORY, 0, "SET_MEM_TABLE" },
  { VHU_SET_VRING_NUM, STATE, 0, "SET_VRING_NUM" },
  { VHU_SET_VRING_ADDR, ADDR, 0, "SET_VRING_ADDR" },
  { VHU_SET_VRING_BASE, STATE, 0, "SET_VRING_BASE" },
  { VHU_GET_VRING_BASE, STATE, 0, "GET_VRING_BASE" },
  { VHU_SET_VRING_KICK, VRING_FD, 0, "SET_VRING_KICK" },
  { VHU_SET_VRING_CALL, VRING_FD, 0, "SET_VRING_CALL" },
  { VHU_SET_VRING_ERR, VRING_FD, 0, "SET_VRING_ERR" },
  { VHU_GET_PROTOCOL_FEATURES, NONE, 0, "GET_PROTOCOL_FEATURES" },
  { VHU_SET_PROTOCOL_FEATURES, U64, 0, "SET_PROTOCOL_FEATURES" },
  { VHU_GET_QUEUE_NUM, NONE, 0, "GET_QUEUE_NUM" },
  { VHU_SET_VRING_ENABLE, STATE, 0, "SET_VRING_ENABLE" },
  { VHU_SET_BACKEND_REQ_FD, NONE, 1, "SET_BACKEND_REQ_FD" },
  { VHU_GET_CONFIG, CONFIG, 0, "GET_CONFIG" },
  { VHU_SET_CONFIG, CONFIG, 0, "SET_CONFIG" },
  { VHU_GET_INFLIGHT_FD, INFLIGHT, 0, "GET_INFLIGHT_FD" },
  { VHU_SET_INFLIGHT_FD, INFLIGHT, 1, "SET_INFLIGHT_FD" },
  { VHU_RESET_DEVICE, NONE, 0, "RESET_DEVICE" },
  { VHU_GET_MAX_MEM_SLOTS, NONE, 0, "GET_MAX_MEM_SLOTS" },
  { VHU_ADD_MEM_REG, REGION, 1, "ADD_MEM_REG" },
  { VHU_REM_MEM_REG, REGION, 0, "REM_MEM_REG" },
  { VHU_GET_SHMEM_CONFIG, NONE, 0, "GET_SHMEM_CONFIG" },
};

static const struct request_rule *
find_rule (uint32_t request) {
  for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++)
    if (rules[i].request == request)
      return &rules[i];
  return NULL;
}

const char *
vhu_request_name (uint32_t request) {
  const struct request_rule *rule = find_rule (request);
  return rule ? rule->name : "unknown";
}

/* vhost-user is in the machine's own byte order: both ends are on one host. */
static uint32_t
get32 (const uint8_t *p) {
  uint32_t v;
  memcpy (&v, p, sizeof v);
  return v;
}

static uint16_t
get16 (const uint8_t *p) {
  uint16_t v;
  memcpy (&v, p, sizeof v);
  return v;
}

static uint64_t
get64 (const uint8_t *p) {
  uint64_t v;
  memcpy (&v, p, sizeof v);
  return v;
}

const char *
vhu_decode_header (const uint8_t bytes[VHU_HEADER_BYTES], struct vhu_header *ret_header) {
  struct vhu_header header = { get32 (bytes), get32 (bytes + 4), get32 (bytes + 8) };

  if ((header.flags & FLAG_VERSION_MASK) != FLAG_VERSION)
    return "wrong protocol version";
  if (header.flags & FLAG_REPLY)
    return "a reply where a request belongs";
  if (!find_rule (header.request))
    return "unknown request";
  if (header.bytes > VHU_PAYLOAD_BYTES_MAX)
    return "payload too large";
  *ret_header = header;
  return NULL;
}

static bool
range_overflows (uint64_t start, uint64_t bytes) {
  return start + bytes < start;
}

#define REGION_BYTES 32u

static const char *
decode_region (const uint8_t *p, struct vhu_memory_region *ret) {
  const struct vhu_memory_region region = { get64 (p), get64 (p + 8), get64 (p + 16), get64 (p + 24) };

  if (region.bytes == 0)
    return "empty memory region";
  if (range_overflows (region.guest_addr, region.bytes) || range_overflows (region.user_addr, region.bytes)
      || range_overflows (region.mmap_offset, region.bytes))
    return "memory region wraps around";
  *ret = region;
  return NULL;
}

static const char *
decode_memory (const uint8_t *p, uint32_t bytes, unsigned n_fds, struct vhu_memory_table *ret) {
  struct vhu_memory_table table = { 0 };

  if (bytes < 8)
    return "payload too short";
  table.n_regions = get32 (p);
  if (table.n_regions > VHU_MEMORY_REGIONS_MAX)
    return "more memory regions than 8";
  /* QEMU sends the bytes of the regions in use only. */
  if (bytes != 8 + table.n_regions * REGION_BYTES)
    return "payload size does not fit its number of regions";
  if (n_fds != table.n_regions)
    return "number of file descriptors is not the number of regions";
  for (uint32_t i = 0; i < table.n_regions; i++) {
    struct vhu_memory_region region;
    const char *why = decode_region (p + 8 + i * REGION_BYTES, &region);

    if (why)
      return why;
    for (uint32_t k = 0; k < i; k++) {
      const struct vhu_memory_region *other = &table.regions[k];
      if (region.guest_addr < other->guest_addr + other->bytes && other->guest_addr < region.guest_addr + region.bytes)
        return "memory regions overlap";
    }
    table.regions[i] = region;
  }
  *ret = table;
  return NULL;
}

static const char *
decode_config (const uint8_t *p, uint32_t bytes, struct vhu_config *ret) {
  struct vhu_config config = { 0 };

  if (bytes < 12)
    return "payload too short";
  config.offset = get32 (p);
  config.bytes = get32 (p + 4);
  config.flags = get32 (p + 8);
  if (config.bytes > VHU_CONFIG_BYTES_MAX || config.offset > VHU_CONFIG_BYTES_MAX
      || config.offset + config.bytes > VHU_CONFIG_BYTES_MAX)
    return "config range outside of config space";
  if (bytes != 12 + config.bytes)
    return "payload size does not fit its config range";
  memcpy (config.data, p + 12, config.bytes);
  *ret = config;
  return NULL;
}

#define INFLIGHT_BYTES 20u /* and 4 of padding where the struct is not packed */
#define INFLIGHT_PADDED_BYTES 24u

static const char *
decode_inflight (const uint8_t *p, uint32_t bytes, struct vhu_inflight *ret) {
  if (bytes != INFLIGHT_BYTES && bytes != INFLIGHT_PADDED_BYTES)
    return "wrong payload size";
  *ret = (struct vhu_inflight){ get64 (p), get64 (p + 8), get16 (p + 16), get16 (p + 18), bytes };
  return range_overflows (ret->offset, ret->bytes) ? "inflight region wraps around" : NULL;
}

const char *
vhu_decode (const struct vhu_header *header, const uint8_t *payload, unsigned n_fds, struct vhu_message *ret_message) {
  const struct request_rule *rule = find_rule (header->request);
  struct vhu_message message = { .request = header->request, .need_reply = (header->flags & FLAG_NEED_REPLY) != 0 };
  unsigned fds_wanted;
  uint32_t bytes_wanted;
  const char *why = NULL;

  if (!rule)
    return "unknown request";
  fds_wanted = rule->fds;
  switch (rule->payload) {
  case NONE:
    bytes_wanted = 0;
    break;
  case U64:
    bytes_wanted = 8;
    break;
  case STATE:
    bytes_wanted = 8;
    break;
  case ADDR:
    bytes_wanted = 40;
    break;
  case REGION:
    bytes_wanted = 8 + REGION_BYTES; /* padding first */
    if (header->request == VHU_REM_MEM_REG && n_fds == 1)
      fds_wanted = 1; /* QEMU did so once; nobody uses it */
    break;
  case VRING_FD:
    bytes_wanted = 8;
    if (header->bytes == 8)
      fds_wanted = (get64 (payload) & VHU_VRING_NOFD_MASK) ? 0 : 1;
    break;
  case MEMORY:
  case CONFIG:
  case INFLIGHT:
  default:
    bytes_wanted = header->bytes; /* they check their own */
    break;
  }
  if (header->bytes != bytes_wanted)
    return "wrong payload size";

  switch (rule->payload) {
  case NONE:
    break;
  case U64:
  case VRING_FD:
    message.u64 = get64 (payload);
    break;
  case STATE:
    message.state = (struct vhu_vring_state){ get32 (payload), get32 (payload + 4) };
    break;
  case ADDR:
    message.addr = (struct vhu_vring_addr){ get32 (payload),      get32 (payload + 4),  get64 (payload + 8),
                                            get64 (payload + 16), get64 (payload + 24), get64 (payload + 32) };
    break;
  case MEMORY:
    why = decode_memory (payload, header->bytes, n_fds, &message.memory);
    fds_wanted = n_fds;
    break;
  case CONFIG:
    why = decode_config (payload, header->bytes, &message.config);
    break;
  case REGION:
    why = decode_region (payload + 8, &message.region);
    break;
  case INFLIGHT:
    why = decode_inflight (payload, header->bytes, &message.inflight);
    break;
  default:
    break;
  }
  if (why)
    return why;
  if (n_fds != fds_wanted)
    return n_fds > fds_wanted ? "more file descriptors than expected" : "fewer file descriptors than expected";
  *ret_message = message;
  return NULL;
}

static size_t
encode (uint32_t request, uint32_t flags, const void *payload, size_t bytes, uint8_t *out, size_t cap) {
  const uint32_t header[3] = { request, flags | FLAG_VERSION, (uint32_t)bytes };

  if (cap < sizeof header || cap - sizeof header < bytes)
    return 0;
  memcpy (out, header, sizeof header);
  if (bytes)
    memcpy (out + sizeof header, payload, bytes);
  return sizeof header + bytes;
}

size_t
vhu_encode_u64 (uint32_t request, uint64_t value, uint8_t *out, size_t cap) {
  return encode (request, FLAG_REPLY, &value, sizeof value, out, cap);
}

size_t
vhu_encode_state (uint32_t request, const struct vhu_vring_state *state, uint8_t *out, size_t cap) {
  return encode (request, FLAG_REPLY, state, sizeof *state, out, cap);
}

size_t
vhu_encode_config (const struct vhu_config *config, uint8_t *out, size_t cap) {
  return encode (VHU_GET_CONFIG, FLAG_REPLY, config, 12 + config->bytes, out, cap);
}

size_t
vhu_encode_empty_config (uint8_t *out, size_t cap) {
  return encode (VHU_GET_CONFIG, FLAG_REPLY, NULL, 0, out, cap);
}

size_t
vhu_encode_inflight (const struct vhu_inflight *inflight, uint8_t *out, size_t cap) {
  uint8_t payload[INFLIGHT_PADDED_BYTES] = { 0 };

  memcpy (payload, &inflight->bytes, 8);
  memcpy (payload + 8, &inflight->offset, 8);
  memcpy (payload + 16, &inflight->n_queues, 2);
  memcpy (payload + 18, &inflight->queue_size, 2);
  return encode (VHU_GET_INFLIGHT_FD, FLAG_REPLY, payload,
                 inflight->payload_bytes == INFLIGHT_BYTES ? INFLIGHT_BYTES : INFLIGHT_PADDED_BYTES, out, cap);
}

size_t
vhu_encode_shmem_config (const uint64_t *sizes, uint32_t n, uint8_t *out, size_t cap) {
  const uint32_t head[2] = { n, 0 };
  size_t done;

  if (n > VHU_SHMEM_REGIONS_MAX || cap < VHU_HEADER_BYTES + sizeof head + n * sizeof *sizes)
    return 0;
  done = encode (VHU_GET_SHMEM_CONFIG, FLAG_REPLY, NULL, 0, out, cap);
  memcpy (out + done, head, sizeof head);
  memcpy (out + done + sizeof head, sizes, n * sizeof *sizes);
  const uint32_t bytes = (uint32_t)(sizeof head + n * sizeof *sizes);
  memcpy (out + 8, &bytes, sizeof bytes);
  return done + bytes;
}

size_t
vhu_encode_backend (uint32_t request, bool need_reply, const struct vhu_shmem_map *map, uint8_t *out, size_t cap) {
  uint8_t payload[VHU_SHMEM_MAP_BYTES] = { 0 };

  if (map) {
    payload[0] = map->id; /* 7 bytes of padding follow */
    memcpy (payload + 8, &map->fd_offset, 8);
    memcpy (payload + 16, &map->shm_offset, 8);
    memcpy (payload + 24, &map->bytes, 8);
    memcpy (payload + 32, &map->flags, 8);
  }
  return encode (request, need_reply ? FLAG_NEED_REPLY : 0, payload, map ? sizeof payload : 0, out, cap);
}

const char *
vhu_decode_backend_reply (const uint8_t bytes[VHU_HEADER_BYTES + 8], uint32_t *ret_request, uint64_t *ret_value) {
  const uint32_t flags = get32 (bytes + 4);

  if ((flags & FLAG_VERSION_MASK) != FLAG_VERSION || !(flags & FLAG_REPLY) || get32 (bytes + 8) != 8)
    return "not a reply";
  *ret_request = get32 (bytes);
  *ret_value = get64 (bytes + VHU_HEADER_BYTES);
  return NULL;
}
