/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The vhost-user codec: every rule for a single message, and the layout of what we send. */
#include "core/vhost-user.h"

#include <string.h>

#include "testing.h"

#define VERSION 1u
#define REPLY 4u
#define NEED_REPLY 8u

enum shape { NOTHING, NUMBER, VRING_STATE, VRING_ADDR, VRING_FD, MEMORY, CONFIG, INFLIGHT, REGION };

/* The protocol as its document has it, apart from the codec's own table. */
static const struct {
  uint32_t request;
  enum shape shape;
  unsigned fds;
  const char *name;
} known[] = {
  { 1, NOTHING, 0, "GET_FEATURES" },
  { 2, NUMBER, 0, "SET_FEATURES" },
  { 3, NOTHING, 0, "SET_OWNER" },
  { 4, NOTHING, 0, "RESET_OWNER" },
  { 5, MEMORY, 0, "SET_MEM_TABLE" },
  { 8, VRING_STATE, 0, "SET_VRING_NUM" },
  { 9, VRING_ADDR, 0, "SET_VRING_ADDR" },
  { 10, VRING_STATE, 0, "SET_VRING_BASE" },
  { 11, VRING_STATE, 0, "GET_VRING_BASE" },
  { 12, VRING_FD, 0, "SET_VRING_KICK" },
  { 13, VRING_FD, 0, "SET_VRING_CALL" },
  { 14, VRING_FD, 0, "SET_VRING_ERR" },
  { 15, NOTHING, 0, "GET_PROTOCOL_FEATURES" },
  { 16, NUMBER, 0, "SET_PROTOCOL_FEATURES" },
  { 17, NOTHING, 0, "GET_QUEUE_NUM" },
  { 18, VRING_STATE, 0, "SET_VRING_ENABLE" },
  { 21, NOTHING, 1, "SET_BACKEND_REQ_FD" },
  { 24, CONFIG, 0, "GET_CONFIG" },
  { 25, CONFIG, 0, "SET_CONFIG" },
  { 31, INFLIGHT, 0, "GET_INFLIGHT_FD" },
  { 32, INFLIGHT, 1, "SET_INFLIGHT_FD" },
  { 34, NOTHING, 0, "RESET_DEVICE" },
  { 36, NOTHING, 0, "GET_MAX_MEM_SLOTS" },
  { 37, REGION, 1, "ADD_MEM_REG" },
  { 38, REGION, 0, "REM_MEM_REG" },
  { 44, NOTHING, 0, "GET_SHMEM_CONFIG" },
};

static bool
is_known (uint32_t request) {
  for (size_t i = 0; i < G_N_ELEMENTS (known); i++)
    if (known[i].request == request)
      return true;
  return false;
}

static const char *
decode_header (uint32_t request, uint32_t flags, uint32_t bytes, struct vhu_header *ret) {
  const uint32_t wire[3] = { request, flags, bytes };
  uint8_t copy[VHU_HEADER_BYTES];

  memcpy (copy, wire, sizeof copy);
  return vhu_decode_header (copy, ret);
}

/* Decodes a payload that ends where its memory ends, so that a sanitiser sees any read behind it. */
static const char *
decode_flags (uint32_t request, uint32_t flags, const void *payload, uint32_t bytes, unsigned fds, struct vhu_message *ret) {
  const struct vhu_header header = { request, flags, bytes };
  g_autofree uint8_t *copy = g_memdup2 (payload, bytes);

  return vhu_decode (&header, copy, fds, ret);
}

static const char *
decode (uint32_t request, const void *payload, uint32_t bytes, unsigned fds, struct vhu_message *ret) {
  return decode_flags (request, VERSION, payload, bytes, fds, ret);
}

static void
test_header_version (void) {
  struct vhu_header header;

  for (uint32_t flags = 0; flags < 16; flags++) {
    const char *why = decode_header (VHU_GET_FEATURES, flags, 0, &header);

    if ((flags & 3) != VERSION)
      g_assert_cmpstr (why, ==, "wrong protocol version");
    else if (flags & REPLY)
      g_assert_cmpstr (why, ==, "a reply where a request belongs");
    else
      g_assert_cmpstr (why, ==, NULL);
  }
}

static void
test_header_unknown_requests (void) {
  struct vhu_header header;

  for (uint32_t request = 0; request < 1000; request++)
    g_assert_cmpstr (decode_header (request, VERSION, 0, &header), ==, is_known (request) ? NULL : "unknown request");
  g_assert_cmpstr (decode_header (UINT32_MAX, VERSION, 0, &header), ==, "unknown request");
  /* low bits of a known one do not make it known */
  g_assert_cmpstr (decode_header (VHU_GET_FEATURES | 0x10000, VERSION, 0, &header), ==, "unknown request");
}

static void
test_header_size (void) {
  static const uint32_t too_large[] = { VHU_PAYLOAD_BYTES_MAX + 1, 0x7fffffff, 0x80000000, UINT32_MAX - 11, UINT32_MAX };
  struct vhu_header header;

  g_assert_cmpuint (VHU_PAYLOAD_BYTES_MAX, ==, 268);
  g_assert_cmpstr (decode_header (VHU_SET_CONFIG, VERSION, VHU_PAYLOAD_BYTES_MAX, &header), ==, NULL);
  g_assert_cmpuint (header.bytes, ==, VHU_PAYLOAD_BYTES_MAX);
  for (size_t i = 0; i < G_N_ELEMENTS (too_large); i++)
    g_assert_cmpstr (decode_header (VHU_SET_CONFIG, VERSION, too_large[i], &header), ==, "payload too large");
}

static void
test_header_refusal_leaves_no_trace (void) {
  struct vhu_header header, before;

  memset (&header, 0x5a, sizeof header);
  before = header;
  g_assert_nonnull (decode_header (VHU_GET_FEATURES, 2, 0, &header));
  g_assert_nonnull (decode_header (VHU_GET_FEATURES, VERSION | REPLY, 0, &header));
  g_assert_nonnull (decode_header (0, VERSION, 0, &header));
  g_assert_nonnull (decode_header (VHU_SET_CONFIG, VERSION, 269, &header));
  g_assert_cmpmem (&header, sizeof header, &before, sizeof before);
  g_assert_null (decode_header (VHU_GET_VRING_BASE, VERSION | NEED_REPLY, 8, &header));
  g_assert_cmpuint (header.request, ==, VHU_GET_VRING_BASE);
  g_assert_cmpuint (header.flags, ==, VERSION | NEED_REPLY);
  g_assert_cmpuint (header.bytes, ==, 8);
}

/* Whether a payload of zeroes (where it matters, made to fit) of this size and with that many fds is right. */
static bool
fits (enum shape shape, unsigned fixed_fds, uint32_t bytes, unsigned fds) {
  switch (shape) {
  case NOTHING:
    return bytes == 0 && fds == fixed_fds;
  case NUMBER:
  case VRING_STATE:
    return bytes == 8 && fds == 0;
  case VRING_FD: /* zeroes: queue 0, and a file descriptor comes */
    return bytes == 8 && fds == 1;
  case VRING_ADDR:
    return bytes == 40 && fds == 0;
  case MEMORY: /* zeroes: no regions */
    return bytes == 8 && fds == 0;
  case CONFIG: /* zeroes: 0 bytes at 0 */
    return bytes == 12 && fds == 0;
  case REGION: /* zeroes: an empty region */
    return false;
  case INFLIGHT: /* packed as the document has it, or padded as QEMU has it */
    return (bytes == 20 || bytes == 24) && fds == fixed_fds;
  }
  g_assert_not_reached ();
}

static void
test_size_and_fds (void) {
  static const uint8_t zeroes[VHU_PAYLOAD_BYTES_MAX];

  for (size_t i = 0; i < G_N_ELEMENTS (known); i++)
    for (uint32_t bytes = 0; bytes <= VHU_PAYLOAD_BYTES_MAX; bytes++)
      for (unsigned fds = 0; fds <= VHU_FDS_MAX + 1; fds++) {
        struct vhu_message message, before;
        const char *why;

        memset (&message, 0x5a, sizeof message);
        before = message;
        why = decode (known[i].request, zeroes, bytes, fds, &message);
        if (fits (known[i].shape, known[i].fds, bytes, fds)) {
          g_assert_cmpstr (why, ==, NULL);
          g_assert_cmpuint (message.request, ==, known[i].request);
        } else {
          g_assert_cmpstr (why, !=, NULL);
          g_assert_cmpmem (&message, sizeof message, &before, sizeof before);
        }
      }
}

static void
test_size_and_fds_reasons (void) {
  static const uint8_t zeroes[64];
  struct vhu_message message;

  g_assert_cmpstr (decode (VHU_SET_FEATURES, zeroes, 7, 0, &message), ==, "wrong payload size");
  g_assert_cmpstr (decode (VHU_SET_FEATURES, zeroes, 9, 0, &message), ==, "wrong payload size");
  g_assert_cmpstr (decode (VHU_GET_FEATURES, zeroes, 8, 0, &message), ==, "wrong payload size");
  g_assert_cmpstr (decode (VHU_SET_VRING_ADDR, zeroes, 39, 0, &message), ==, "wrong payload size");
  g_assert_cmpstr (decode (VHU_SET_VRING_KICK, zeroes, 4, 1, &message), ==, "wrong payload size");
  g_assert_cmpstr (decode (VHU_SET_FEATURES, zeroes, 8, 1, &message), ==, "more file descriptors than expected");
  g_assert_cmpstr (decode (VHU_SET_VRING_KICK, zeroes, 8, 2, &message), ==, "more file descriptors than expected");
  g_assert_cmpstr (decode (VHU_SET_VRING_CALL, zeroes, 8, 0, &message), ==, "fewer file descriptors than expected");
  g_assert_cmpstr (decode (VHU_SET_BACKEND_REQ_FD, NULL, 0, 0, &message), ==, "fewer file descriptors than expected");
  g_assert_cmpstr (decode (VHU_GET_CONFIG, zeroes, 12, 1, &message), ==, "more file descriptors than expected");
  g_assert_cmpstr (decode (99, zeroes, 0, 0, &message), ==, "unknown request");
}

static void
test_vring_fd_mask (void) {
  static const uint32_t requests[] = { VHU_SET_VRING_KICK, VHU_SET_VRING_CALL, VHU_SET_VRING_ERR };
  struct vhu_message message;

  for (size_t i = 0; i < G_N_ELEMENTS (requests); i++) {
    const uint64_t with_fd = 3, without = 3 | VHU_VRING_NOFD_MASK;

    g_assert_cmpstr (decode (requests[i], &with_fd, 8, 1, &message), ==, NULL);
    g_assert_cmpuint (message.u64, ==, 3);
    g_assert_cmpstr (decode (requests[i], &without, 8, 0, &message), ==, NULL);
    g_assert_cmpuint (message.u64, ==, 0x103);
    g_assert_cmpstr (decode (requests[i], &without, 8, 1, &message), ==, "more file descriptors than expected");
  }
}

static void
test_values (void) {
  const uint64_t number = 0x0123456789abcdef;
  const uint32_t state[2] = { 7, 0xfffffffe };
  const uint64_t addr[5] = { 0x0000000200000001, 3, 4, 5, UINT64_MAX };
  struct vhu_message message;

  g_assert_null (decode (VHU_SET_PROTOCOL_FEATURES, &number, 8, 0, &message));
  g_assert_cmpuint (message.u64, ==, number);
  g_assert_null (decode (VHU_SET_VRING_BASE, state, 8, 0, &message));
  g_assert_cmpuint (message.state.index, ==, 7);
  g_assert_cmpuint (message.state.num, ==, 0xfffffffe);
  g_assert_null (decode (VHU_SET_VRING_ADDR, addr, 40, 0, &message));
  g_assert_cmpuint (message.addr.index, ==, 1);
  g_assert_cmpuint (message.addr.flags, ==, 2);
  g_assert_cmpuint (message.addr.desc, ==, 3);
  g_assert_cmpuint (message.addr.used, ==, 4);
  g_assert_cmpuint (message.addr.avail, ==, 5);
  g_assert_cmpuint (message.addr.log, ==, UINT64_MAX);
}

static void
test_need_reply (void) {
  const uint64_t number = 0;
  struct vhu_message message;

  g_assert_null (decode_flags (VHU_SET_FEATURES, VERSION, &number, 8, 0, &message));
  g_assert_false (message.need_reply);
  g_assert_null (decode_flags (VHU_SET_FEATURES, VERSION | NEED_REPLY, &number, 8, 0, &message));
  g_assert_true (message.need_reply);
}

struct table_wire {
  uint32_t n, padding;
  uint64_t regions[9][4];
};

static const char *
decode_table (const struct table_wire *wire, unsigned fds, struct vhu_message *ret) {
  return decode (VHU_SET_MEM_TABLE, wire, 8 + wire->n * 32, fds, ret);
}

static void
test_memory_table_good (void) {
  /* touching, out of order, one up to the last byte of the address space but one */
  const struct table_wire wire = {
    4, 0, { { 0x1000, 0x1000, 0, 0 }, { 0, 0x1000, 5, 6 }, { UINT64_MAX - 4096, 4096, 7, 8 }, { 0x2000, 1, UINT64_MAX - 1, 9 } }
  };
  struct vhu_message message;

  g_assert_cmpstr (decode_table (&wire, 4, &message), ==, NULL);
  g_assert_cmpuint (message.memory.n_regions, ==, 4);
  for (unsigned i = 0; i < 4; i++) {
    g_assert_cmpuint (message.memory.regions[i].guest_addr, ==, wire.regions[i][0]);
    g_assert_cmpuint (message.memory.regions[i].bytes, ==, wire.regions[i][1]);
    g_assert_cmpuint (message.memory.regions[i].user_addr, ==, wire.regions[i][2]);
    g_assert_cmpuint (message.memory.regions[i].mmap_offset, ==, wire.regions[i][3]);
  }
}

static void
test_memory_table_full (void) {
  struct table_wire wire = { VHU_MEMORY_REGIONS_MAX, 0, { { 0 } } };
  struct vhu_message message;

  for (unsigned i = 0; i < 9; i++)
    memcpy (wire.regions[i], (uint64_t[4]){ i * 4096, 4096, i * 4096, 0 }, 32);
  g_assert_cmpstr (decode_table (&wire, 8, &message), ==, NULL);
  g_assert_cmpuint (message.memory.n_regions, ==, 8);
  g_assert_cmpstr (decode_table (&wire, 7, &message), ==, "number of file descriptors is not the number of regions");
  g_assert_cmpstr (decode_table (&wire, 9, &message), ==, "number of file descriptors is not the number of regions");
  wire.n = 9; /* payload of 8 regions: the size of 9 does not pass the header */
  g_assert_cmpstr (decode (VHU_SET_MEM_TABLE, &wire, 8 + 8 * 32, 8, &message), ==, "more memory regions than 8");
  wire.n = UINT32_MAX; /* times 32 overflows 32 bits: (2^32 − 1) × 32 + 8 = −24 */
  g_assert_cmpstr (decode (VHU_SET_MEM_TABLE, &wire, 8, 0, &message), ==, "more memory regions than 8");
  wire.n = 0x08000000; /* × 32 = 0 in 32 bits */
  g_assert_cmpstr (decode (VHU_SET_MEM_TABLE, &wire, 8, 0, &message), ==, "more memory regions than 8");
}

static void
test_memory_table_size (void) {
  struct table_wire wire = { 2, 0, { { 0, 1, 0, 0 }, { 1, 1, 0, 0 } } };
  struct vhu_message message;

  for (uint32_t bytes = 0; bytes <= 8 + 4 * 32; bytes++) {
    const char *expected = bytes < 8            ? "payload too short"
                           : bytes != 8 + 2 * 32 ? "payload size does not fit its number of regions"
                                                 : NULL;

    g_assert_cmpstr (decode (VHU_SET_MEM_TABLE, &wire, bytes, 2, &message), ==, expected);
  }
}

static void
test_memory_table_bad_regions (void) {
  static const struct {
    uint64_t regions[2][4];
    const char *why;
  } cases[] = {
    { { { 0, 0, 0, 0 }, { 0x1000, 1, 0, 0 } }, "empty memory region" },
    { { { 0, 1, 0, 0 }, { 0x1000, 0, 0, 0 } }, "empty memory region" },
    { { { UINT64_MAX, 1, 0, 0 }, { 0, 1, 0, 0 } }, "memory region wraps around" },
    { { { UINT64_MAX, 2, 0, 0 }, { 8, 1, 0, 0 } }, "memory region wraps around" },
    { { { 1, UINT64_MAX, 0, 0 }, { 0, 1, 0, 0 } }, "memory region wraps around" },
    { { { 0, 2, UINT64_MAX, 0 }, { 8, 1, 0, 0 } }, "memory region wraps around" },
    { { { 0, 2, 0, UINT64_MAX }, { 8, 1, 0, 0 } }, "memory region wraps around" },
    { { { 0, 1, 0, 0 }, { 8, 1, 0, UINT64_MAX } }, "memory region wraps around" },
    { { { 0, 4096, 0, 0 }, { 0, 4096, 0, 0 } }, "memory regions overlap" },
    { { { 0, 4096, 0, 0 }, { 4095, 4096, 0, 0 } }, "memory regions overlap" },
    { { { 4095, 4096, 0, 0 }, { 0, 4096, 0, 0 } }, "memory regions overlap" },
    { { { 0, 4096, 0, 0 }, { 100, 1, 0, 0 } }, "memory regions overlap" },
    { { { 100, 1, 0, 0 }, { 0, 4096, 0, 0 } }, "memory regions overlap" },
    { { { 0, 4096, 0, 0 }, { 4096, 4096, 0, 0 } }, NULL },
    { { { 4096, 4096, 0, 0 }, { 0, 4096, 0, 0 } }, NULL },
  };

  for (size_t i = 0; i < G_N_ELEMENTS (cases); i++) {
    struct table_wire wire = { .n = 2 };
    struct vhu_message message;

    memcpy (wire.regions, cases[i].regions, sizeof cases[i].regions);
    g_test_message ("case %zu", i);
    g_assert_cmpstr (decode_table (&wire, 2, &message), ==, cases[i].why);
  }
}

static void
test_config_range (void) {
  static const struct {
    uint32_t offset, bytes, payload;
    const char *why;
  } cases[] = {
    { 0, 0, 11, "payload too short" },
    { 0, 0, 12, NULL },
    { 0, 64, 76, NULL },
    { 0, 64, 75, "payload size does not fit its config range" },
    { 0, 64, 77, "payload size does not fit its config range" },
    { 0, 64, 12, "payload size does not fit its config range" },
    { 0, 256, 268, NULL },
    { 255, 1, 13, NULL },
    { 256, 0, 12, NULL },
    { 255, 2, 14, "config range outside of config space" },
    { 256, 1, 13, "config range outside of config space" },
    { 257, 0, 12, "config range outside of config space" },
    { 0, 257, 268, "config range outside of config space" },
    { UINT32_MAX, 1, 13, "config range outside of config space" },
    { 1, UINT32_MAX, 12, "config range outside of config space" },
    { UINT32_MAX, UINT32_MAX, 12, "config range outside of config space" },
  };
  struct vhu_message message;

  for (size_t i = 0; i < G_N_ELEMENTS (cases); i++) {
    uint8_t payload[VHU_PAYLOAD_BYTES_MAX];
    const uint32_t head[3] = { cases[i].offset, cases[i].bytes, 1 };

    memset (payload, 0xc3, sizeof payload);
    memcpy (payload, head, sizeof head);
    g_test_message ("case %zu", i);
    g_assert_cmpstr (decode (VHU_SET_CONFIG, payload, cases[i].payload, 0, &message), ==, cases[i].why);
    if (cases[i].why)
      continue;
    g_assert_cmpuint (message.config.offset, ==, cases[i].offset);
    g_assert_cmpuint (message.config.bytes, ==, cases[i].bytes);
    g_assert_cmpuint (message.config.flags, ==, 1);
    for (uint32_t k = 0; k < VHU_CONFIG_BYTES_MAX; k++) /* the rest is zero and not what lay on the stack */
      g_assert_cmpuint (message.config.data[k], ==, k < cases[i].bytes ? 0xc3 : 0);
  }
}

static void
test_one_region (void) {
  uint64_t wire[5] = { UINT64_MAX, 0x1000, 0x2000, 0x3000, 0x4000 }; /* padding first, which says nothing */
  struct vhu_message message;

  for (uint32_t bytes = 0; bytes <= 48; bytes += 4)
    for (unsigned fds = 0; fds < 4; fds++) {
      const uint64_t longest[6] = { 0, 0x1000, 0x2000, 0x3000, 0x4000, 0 };
      const bool good = bytes == 40;

      g_assert_cmpint (decode (VHU_ADD_MEM_REG, longest, bytes, fds, &message) == NULL, ==, good && fds == 1);
      /* a descriptor that comes with a region which goes is let go of */
      g_assert_cmpint (decode (VHU_REM_MEM_REG, longest, bytes, fds, &message) == NULL, ==, good && fds <= 1);
    }
  g_assert_null (decode (VHU_ADD_MEM_REG, wire, 40, 1, &message));
  g_assert_cmpuint (message.region.guest_addr, ==, 0x1000);
  g_assert_cmpuint (message.region.bytes, ==, 0x2000);
  g_assert_cmpuint (message.region.user_addr, ==, 0x3000);
  g_assert_cmpuint (message.region.mmap_offset, ==, 0x4000);
  for (unsigned i = 1; i < 5; i++) {
    const uint64_t was = wire[i];

    if (i == 2)
      continue;
    wire[i] = UINT64_MAX - 0x1fff;
    g_assert_cmpstr (decode (VHU_ADD_MEM_REG, wire, 40, 1, &message), ==, "memory region wraps around");
    wire[i]--;
    g_assert_cmpstr (decode (VHU_ADD_MEM_REG, wire, 40, 1, &message), ==, NULL);
    wire[i] = was;
  }
  wire[2] = 0;
  g_assert_cmpstr (decode (VHU_REM_MEM_REG, wire, 40, 0, &message), ==, "empty memory region");
}

struct inflight_wire {
  uint64_t bytes, offset;
  uint16_t n_queues, queue_size;
  uint32_t padding;
};

static void
test_inflight (void) {
  struct inflight_wire wire = { 1ull << 40, 0x5000, 16, 1024, 0 };
  struct vhu_message message;

  for (uint32_t bytes = 20; bytes <= 24; bytes += 4) {
    wire.padding = 0x77777777; /* says nothing */
    g_assert_cmpstr (decode (VHU_SET_INFLIGHT_FD, &wire, bytes, 1, &message), ==, NULL);
    g_assert_cmpuint (message.inflight.bytes, ==, 1ull << 40);
    g_assert_cmpuint (message.inflight.offset, ==, 0x5000);
    g_assert_cmpuint (message.inflight.n_queues, ==, 16);
    g_assert_cmpuint (message.inflight.queue_size, ==, 1024);
    g_assert_cmpuint (message.inflight.payload_bytes, ==, bytes);
  }
  wire.offset = UINT64_MAX - (1ull << 40);
  g_assert_cmpstr (decode (VHU_SET_INFLIGHT_FD, &wire, 24, 1, &message), ==, NULL);
  wire.offset++;
  g_assert_cmpstr (decode (VHU_SET_INFLIGHT_FD, &wire, 24, 1, &message), ==, "inflight region wraps around");
  g_assert_cmpstr (decode (VHU_GET_INFLIGHT_FD, &wire, 24, 0, &message), ==, "inflight region wraps around");
  wire.offset = UINT64_MAX;
  wire.bytes = 1;
  g_assert_cmpstr (decode (VHU_SET_INFLIGHT_FD, &wire, 20, 1, &message), ==, "inflight region wraps around");
}

static void
test_names (void) {
  for (size_t i = 0; i < G_N_ELEMENTS (known); i++)
    g_assert_cmpstr (vhu_request_name (known[i].request), ==, known[i].name);
  g_assert_cmpstr (vhu_request_name (0), ==, "unknown");
  g_assert_cmpstr (vhu_request_name (UINT32_MAX), ==, "unknown");
}

/* Checks header and payload of an encoded message, and that one byte less of room gives nothing. */
#define assert_message(encode, expected_request, expected_flags, payload, payload_bytes)                                          \
  G_STMT_START {                                                                                                                  \
    uint8_t out[4096];                                                                                                            \
    size_t cap = sizeof out;                                                                                                      \
    const uint32_t head[3] = { (expected_request), (expected_flags), (uint32_t)(payload_bytes) };                                 \
                                                                                                                                  \
    memset (out, 0x77, sizeof out);                                                                                               \
    g_assert_cmpuint ((encode), ==, VHU_HEADER_BYTES + (payload_bytes));                                                          \
    g_assert_cmpmem (out, sizeof head, head, sizeof head);                                                                        \
    g_assert_cmpmem (out + sizeof head, (payload_bytes), (payload), (payload_bytes));                                             \
    g_assert_cmpuint (out[sizeof head + (payload_bytes)], ==, 0x77);                                                              \
    cap = VHU_HEADER_BYTES + (payload_bytes);                                                                                     \
    g_assert_cmpuint ((encode), ==, cap);                                                                                         \
    memset (out, 0x77, sizeof out);                                                                                               \
    cap--;                                                                                                                        \
    g_assert_cmpuint ((encode), ==, 0);                                                                                           \
    g_assert_cmpuint (out[cap], ==, 0x77);                                                                                        \
  }                                                                                                                               \
  G_STMT_END

static void
test_encode_replies (void) {
  const uint64_t number = 0x1122334455667788;
  const struct vhu_vring_state state = { 1, 0xabcd };
  struct vhu_config config = { 3, 5, 0, { 1, 2, 3, 4, 5 } };

  assert_message (vhu_encode_u64 (VHU_GET_FEATURES, number, out, cap), VHU_GET_FEATURES, VERSION | REPLY, &number, 8);
  assert_message (vhu_encode_state (VHU_GET_VRING_BASE, &state, out, cap), VHU_GET_VRING_BASE, VERSION | REPLY,
                  ((const uint32_t[]){ 1, 0xabcd }), 8);
  assert_message (vhu_encode_config (&config, out, cap), VHU_GET_CONFIG, VERSION | REPLY, "\3\0\0\0\5\0\0\0\0\0\0\0\1\2\3\4\5", 17);
  config.bytes = VHU_CONFIG_BYTES_MAX;
  assert_message (vhu_encode_config (&config, out, cap), VHU_GET_CONFIG, VERSION | REPLY, &config, 268);
  assert_message (vhu_encode_empty_config (out, cap), VHU_GET_CONFIG, VERSION | REPLY, "", 0);
}

static void
test_encode_inflight (void) {
  const struct inflight_wire wire = { 0x1122, 0x3344, 2, 128, 0 };
  struct vhu_inflight inflight = { 0x1122, 0x3344, 2, 128, 24 };

  assert_message (vhu_encode_inflight (&inflight, out, cap), VHU_GET_INFLIGHT_FD, VERSION | REPLY, &wire, 24);
  inflight.payload_bytes = 20;
  assert_message (vhu_encode_inflight (&inflight, out, cap), VHU_GET_INFLIGHT_FD, VERSION | REPLY, &wire, 20);
}

static void
test_encode_shmem_config (void) {
  static const uint64_t one[2] = { 1, 16ull << 30 };
  uint64_t most[1 + VHU_SHMEM_REGIONS_MAX] = { VHU_SHMEM_REGIONS_MAX };
  static const uint64_t none[1] = { 0 };
  uint8_t room[4096];

  for (unsigned i = 0; i < VHU_SHMEM_REGIONS_MAX; i++)
    most[1 + i] = i + 1;
  assert_message (vhu_encode_shmem_config (none, 0, out, cap), VHU_GET_SHMEM_CONFIG, VERSION | REPLY, none, 8);
  assert_message (vhu_encode_shmem_config (one + 1, 1, out, cap), VHU_GET_SHMEM_CONFIG, VERSION | REPLY, one, 16);
  assert_message (vhu_encode_shmem_config (most + 1, 256, out, cap), VHU_GET_SHMEM_CONFIG, VERSION | REPLY, most, 8 + 256 * 8);
  g_assert_cmpuint (vhu_encode_shmem_config (most, 257, room, sizeof room), ==, 0);
  g_assert_cmpuint (vhu_encode_shmem_config (most, UINT32_MAX, room, sizeof room), ==, 0);
}

static void
test_encode_backend (void) {
  const struct vhu_shmem_map map = { 0x5c, 0x1111, 0x2222, 0x3333, VHU_SHMEM_MAP_F_RW };
  const uint64_t wire[5] = { 0x5c, 0x1111, 0x2222, 0x3333, 1 };

  assert_message (vhu_encode_backend (VHU_BACKEND_SHMEM_MAP, true, &map, out, cap), 9, VERSION | NEED_REPLY, wire, 40);
  assert_message (vhu_encode_backend (VHU_BACKEND_SHMEM_UNMAP, false, &map, out, cap), 10, VERSION, wire, 40);
  assert_message (vhu_encode_backend (VHU_BACKEND_CONFIG_CHANGE, false, NULL, out, cap), 2, VERSION, "", 0);
}

static void
test_backend_reply (void) {
  static const struct {
    uint32_t flags, bytes;
    bool good;
  } cases[] = {
    { VERSION | REPLY, 8, true },   { VERSION | REPLY | NEED_REPLY, 8, true },
    { VERSION, 8, false },          { REPLY, 8, false },
    { 2 | REPLY, 8, false },        { VERSION | REPLY, 0, false },
    { VERSION | REPLY, 16, false }, { VERSION | REPLY, UINT32_MAX, false },
  };

  for (size_t i = 0; i < G_N_ELEMENTS (cases); i++) {
    const uint32_t head[3] = { VHU_BACKEND_SHMEM_MAP, cases[i].flags, cases[i].bytes };
    const uint64_t value = 1;
    uint8_t bytes[VHU_HEADER_BYTES + 8];
    uint32_t request = 77;
    uint64_t got = 77;

    memcpy (bytes, head, sizeof head);
    memcpy (bytes + sizeof head, &value, sizeof value);
    g_assert_cmpstr (vhu_decode_backend_reply (bytes, &request, &got), ==, cases[i].good ? NULL : "not a reply");
    g_assert_cmpuint (request, ==, cases[i].good ? VHU_BACKEND_SHMEM_MAP : 77);
    g_assert_cmpuint (got, ==, cases[i].good ? 1 : 77);
  }
}

static void
test_random_bytes (void) {
  g_autoptr (GRand) rand = testing_rand ();
  const unsigned steps = testing_steps (200000);
  unsigned accepted = 0;

  for (unsigned step = 0; step < steps; step++) {
    uint32_t head[3] = { known[testing_below (rand, G_N_ELEMENTS (known))].request, VERSION, (uint32_t)testing_below (rand, 280) };
    uint8_t payload[VHU_PAYLOAD_BYTES_MAX];
    struct vhu_header header;
    struct vhu_message message;

    if (testing_once_in (rand, 2))
      head[2] = (uint32_t[]){ 0, 8, 12, 40, 8 + 32, 8 + 64, 24 }[testing_below (rand, 7)];
    for (unsigned i = 0; i < sizeof payload; i += 8) {
      const uint64_t word = testing_once_in (rand, 3) ? testing_edgy (rand) : testing_below (rand, 4);

      memcpy (payload + i, &word, MIN (8, sizeof payload - i));
    }
    if (decode_header (head[0], head[1], head[2], &header)
        || decode (head[0], payload, header.bytes, (unsigned)testing_below (rand, 3), &message))
      continue;
    accepted++;
    if (header.request == VHU_GET_INFLIGHT_FD || header.request == VHU_SET_INFLIGHT_FD)
      g_assert_cmpuint (message.inflight.offset + message.inflight.bytes, >=, message.inflight.bytes);
    if (header.request != VHU_SET_MEM_TABLE)
      continue;
    g_assert_cmpuint (message.memory.n_regions, <=, VHU_MEMORY_REGIONS_MAX);
    for (unsigned i = 0; i < message.memory.n_regions; i++) {
      const struct vhu_memory_region *r = &message.memory.regions[i];

      g_assert_cmpuint (r->bytes, >, 0);
      g_assert_cmpuint (r->guest_addr + r->bytes, >, r->guest_addr);
      g_assert_cmpuint (r->user_addr + r->bytes, >, r->user_addr);
      g_assert_cmpuint (r->mmap_offset + r->bytes, >, r->mmap_offset);
    }
  }
  g_assert_cmpuint (accepted, >, steps / 100);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/vhost-user/header/only version 1 requests are taken", test_header_version);
  g_test_add_func ("/vhost-user/header/requests that we do not know are refused", test_header_unknown_requests);
  g_test_add_func ("/vhost-user/header/a payload larger than any is refused before it is read", test_header_size);
  g_test_add_func ("/vhost-user/header/a refused header leaves no trace", test_header_refusal_leaves_no_trace);
  g_test_add_func ("/vhost-user/payload/every request takes exactly its size and its file descriptors", test_size_and_fds);
  g_test_add_func ("/vhost-user/payload/wrong sizes and counts of file descriptors are told apart", test_size_and_fds_reasons);
  g_test_add_func ("/vhost-user/payload/kick call and err come without a file descriptor when they say so", test_vring_fd_mask);
  g_test_add_func ("/vhost-user/payload/values come out as they went in", test_values);
  g_test_add_func ("/vhost-user/payload/the wish for a reply is seen", test_need_reply);
  g_test_add_func ("/vhost-user/memory table/touching regions in any order are good", test_memory_table_good);
  g_test_add_func ("/vhost-user/memory table/8 regions are good and 9 are not", test_memory_table_full);
  g_test_add_func ("/vhost-user/memory table/its size is that of the regions in it", test_memory_table_size);
  g_test_add_func ("/vhost-user/memory table/empty and wrapping and overlapping regions are refused",
                   test_memory_table_bad_regions);
  g_test_add_func ("/vhost-user/config/a range outside of config space is refused", test_config_range);
  g_test_add_func ("/vhost-user/memory slots/a region is checked as one of a table is", test_one_region);
  g_test_add_func ("/vhost-user/inflight/packed or padded it says the same, and wraps nowhere", test_inflight);
  g_test_add_func ("/vhost-user/every request has its name", test_names);
  g_test_add_func ("/vhost-user/encode/replies have their layout and never exceed their room", test_encode_replies);
  g_test_add_func ("/vhost-user/encode/a shared memory config has its layout and at most 256 regions", test_encode_shmem_config);
  g_test_add_func ("/vhost-user/encode/an inflight region is described as it was asked for", test_encode_inflight);
  g_test_add_func ("/vhost-user/encode/messages to the front-end have their layout", test_encode_backend);
  g_test_add_func ("/vhost-user/only a reply of 8 bytes is a reply", test_backend_reply);
  g_test_add_func ("/vhost-user/what is accepted of random bytes keeps the promises", test_random_bytes);
  return g_test_run ();
}
