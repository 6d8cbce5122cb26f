/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vhost-user message codec: bytes and a count of file descriptors in, one checked message out.
 *
 *   0        4        8        12                12 + size
 *   ┌────────┬────────┬────────┬─────────────────┐
 *   │request │ flags  │  size  │ payload …       │   file descriptors travel beside byte 0 (SCM_RIGHTS)
 *   └────────┴────────┴────────┴─────────────────┘
 *
 * Everything that a front-end can get wrong about a single message is refused here, before anything acts on it: unknown
 * requests, wrong version, payload sizes, fd counts, counts inside the payload, overflows of offset + size. What depends on
 * state (was the feature negotiated? does the queue exist?) is the session's to check.
 *
 * Source: QEMU docs/interop/vhost-user.rst; numbers of the shared-memory messages as measured against QEMU 11.1.
 * Pure: no I/O, no allocation.
 */
#ifndef DOMYBS_CORE_VHOST_USER_H
#define DOMYBS_CORE_VHOST_USER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VHU_HEADER_BYTES 12u
#define VHU_CONFIG_BYTES_MAX 256u /* VHOST_USER_MAX_CONFIG_SIZE */
#define VHU_MEMORY_REGIONS_MAX 8u /* of one table: the limit without CONFIGURE_MEM_SLOTS */
#define VHU_SHMEM_REGIONS_MAX 256u
/* The largest payload that any request we know can have: the reply of GET_SHMEM_CONFIG is larger, but we only send it. */
#define VHU_PAYLOAD_BYTES_MAX (12u + VHU_CONFIG_BYTES_MAX)
#define VHU_FDS_MAX VHU_MEMORY_REGIONS_MAX

enum vhu_request { /* front-end → back-end, those that we answer */
  VHU_GET_FEATURES = 1,
  VHU_SET_FEATURES = 2,
  VHU_SET_OWNER = 3,
  VHU_RESET_OWNER = 4,
  VHU_SET_MEM_TABLE = 5,
  VHU_SET_VRING_NUM = 8,
  VHU_SET_VRING_ADDR = 9,
  VHU_SET_VRING_BASE = 10,
  VHU_GET_VRING_BASE = 11,
  VHU_SET_VRING_KICK = 12,
  VHU_SET_VRING_CALL = 13,
  VHU_SET_VRING_ERR = 14,
  VHU_GET_PROTOCOL_FEATURES = 15,
  VHU_SET_PROTOCOL_FEATURES = 16,
  VHU_GET_QUEUE_NUM = 17,
  VHU_SET_VRING_ENABLE = 18,
  VHU_SET_BACKEND_REQ_FD = 21,
  VHU_GET_CONFIG = 24,
  VHU_SET_CONFIG = 25,
  VHU_GET_INFLIGHT_FD = 31,
  VHU_SET_INFLIGHT_FD = 32,
  VHU_RESET_DEVICE = 34,
  VHU_GET_MAX_MEM_SLOTS = 36,
  VHU_ADD_MEM_REG = 37,
  VHU_REM_MEM_REG = 38,
  VHU_GET_SHMEM_CONFIG = 44,
};

enum vhu_backend_request {                                /* back-end → front-end, on the backend channel */
                           VHU_BACKEND_CONFIG_CHANGE = 2, /* QEMU 11.1 crashes for its test device */
                           VHU_BACKEND_SHMEM_MAP = 9,
                           VHU_BACKEND_SHMEM_UNMAP = 10,
};

enum vhu_protocol_feature { /* bit numbers */
  VHU_PROTOCOL_F_MQ = 0,
  VHU_PROTOCOL_F_REPLY_ACK = 3,
  VHU_PROTOCOL_F_BACKEND_REQ = 5,
  VHU_PROTOCOL_F_CONFIG = 9,
  VHU_PROTOCOL_F_BACKEND_SEND_FD = 10,
  VHU_PROTOCOL_F_INFLIGHT_SHMFD = 12,
  VHU_PROTOCOL_F_RESET_DEVICE = 13,
  VHU_PROTOCOL_F_CONFIGURE_MEM_SLOTS = 15,
  VHU_PROTOCOL_F_SHMEM = 22,
};

#define VHU_F_PROTOCOL_FEATURES 30 /* bit of the virtio feature word that says: protocol features may be negotiated */

#define VHU_VRING_NOFD_MASK 0x100u  /* SET_VRING_KICK/CALL/ERR: no fd comes, poll instead */
#define VHU_SHMEM_MAP_F_RW (1ull << 0)

struct vhu_vring_state {
  uint32_t index;
  uint32_t num;
};

struct vhu_vring_addr { /* addresses are the front-end's virtual addresses */
  uint32_t index;
  uint32_t flags;
  uint64_t desc;
  uint64_t used;
  uint64_t avail;
  uint64_t log;
};

struct vhu_memory_region {
  uint64_t guest_addr;
  uint64_t bytes;
  uint64_t user_addr; /* where the front-end has it mapped */
  uint64_t mmap_offset;
};

struct vhu_memory_table {
  uint32_t n_regions;
  uint32_t padding;
  struct vhu_memory_region regions[VHU_MEMORY_REGIONS_MAX];
};

struct vhu_config {
  uint32_t offset;
  uint32_t bytes;
  uint32_t flags;
  uint8_t data[VHU_CONFIG_BYTES_MAX];
};

struct vhu_inflight { /* the memory in which requests in flight are listed (core/inflight.h) */
  uint64_t bytes;
  uint64_t offset; /* in its descriptor */
  uint16_t n_queues;
  uint16_t queue_size;
  uint32_t payload_bytes; /* the message's: 20, or 24 from who does not pack the struct, which is QEMU; a reply has as many */
};

struct vhu_message {
  uint32_t request;
  bool need_reply; /* REPLY_ACK was asked for; only meaningful when that feature was negotiated */
  union {
    uint64_t u64;
    struct vhu_vring_state state;
    struct vhu_vring_addr addr;
    struct vhu_memory_table memory;
    struct vhu_memory_region region;
    struct vhu_config config;
    struct vhu_inflight inflight;
  };
};

struct vhu_header {
  uint32_t request;
  uint32_t flags;
  uint32_t bytes; /* of the payload */
};

/* Payload of SHMEM_MAP and SHMEM_UNMAP */
struct vhu_shmem_map {
  uint8_t id;
  uint64_t fd_offset;
  uint64_t shm_offset;
  uint64_t bytes;
  uint64_t flags; /* VHU_SHMEM_MAP_F_* */
};
#define VHU_SHMEM_MAP_BYTES 40u

/* Reads the 12 header bytes. Refuses (returns a reason, never NULL-terminated nonsense) what no known request can be, so that
 * the payload never needs more than VHU_PAYLOAD_BYTES_MAX. Returns NULL when good. */
const char *vhu_decode_header (const uint8_t bytes[VHU_HEADER_BYTES], struct vhu_header *ret_header);

/* Reads the payload (header->bytes long) that came with n_fds file descriptors. Returns NULL when good, else the reason;
 * ret_message is untouched then. */
const char *vhu_decode (const struct vhu_header *header, const uint8_t *payload, unsigned n_fds, struct vhu_message *ret_message);

/* A printable name for logs; "unknown" where there is none. */
const char *vhu_request_name (uint32_t request);

/* Replies and backend-channel messages. Each writes header + payload into out (capacity cap) and returns the length in bytes,
 * 0 when cap is too small. */
size_t vhu_encode_u64 (uint32_t request, uint64_t value, uint8_t *out, size_t cap);
size_t vhu_encode_state (uint32_t request, const struct vhu_vring_state *state, uint8_t *out, size_t cap);
size_t vhu_encode_config (const struct vhu_config *config, uint8_t *out, size_t cap);
size_t vhu_encode_empty_config (uint8_t *out, size_t cap); /* size 0: "can't" */
size_t vhu_encode_inflight (const struct vhu_inflight *inflight, uint8_t *out, size_t cap);
size_t vhu_encode_shmem_config (const uint64_t *sizes, uint32_t n, uint8_t *out, size_t cap);
size_t vhu_encode_backend (uint32_t request, bool need_reply, const struct vhu_shmem_map *map, uint8_t *out, size_t cap);

/* Reads a reply on the backend channel (header and u64). Returns NULL when good, else the reason. */
const char *vhu_decode_backend_reply (const uint8_t bytes[VHU_HEADER_BYTES + 8], uint32_t *ret_request, uint64_t *ret_value);

#endif
