/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Messages of a front-end, one after the other: a byte that says how many file descriptors came, header, payload. */
#include <glib.h>

#include "core/vhost-user.h"
#include "fuzz.h"

static void
check_memory_table (const struct vhu_memory_table *table) {
  g_assert_cmpuint (table->n_regions, <=, VHU_MEMORY_REGIONS_MAX);
  for (unsigned i = 0; i < table->n_regions; i++) {
    const struct vhu_memory_region *r = &table->regions[i];

    g_assert_cmpuint (r->bytes, >, 0);
    g_assert_cmpuint (r->bytes, <=, UINT64_MAX - r->guest_addr);
    g_assert_cmpuint (r->bytes, <=, UINT64_MAX - r->user_addr);
    g_assert_cmpuint (r->bytes, <=, UINT64_MAX - r->mmap_offset);
    for (unsigned k = 0; k < i; k++) {
      const struct vhu_memory_region *other = &table->regions[k];

      g_assert_true (r->guest_addr >= other->guest_addr + other->bytes || other->guest_addr >= r->guest_addr + r->bytes);
    }
  }
}

/* A config space request can be answered with what it said about itself. */
static void
check_config (const struct vhu_config *config) {
  uint8_t out[VHU_HEADER_BYTES + VHU_PAYLOAD_BYTES_MAX];
  struct vhu_header header;
  struct vhu_message again;

  g_assert_cmpuint (config->offset, <=, VHU_CONFIG_BYTES_MAX);
  g_assert_cmpuint (config->bytes, <=, VHU_CONFIG_BYTES_MAX - config->offset);
  g_assert_cmpuint (vhu_encode_config (config, out, sizeof out), ==, VHU_HEADER_BYTES + 12 + config->bytes);
  out[4] = 1; /* a reply is no request: without that flag it is one */
  g_assert_null (vhu_decode_header (out, &header));
  g_assert_null (vhu_decode (&header, out + VHU_HEADER_BYTES, 0, &again));
  g_assert_cmpmem (&again.config, 12 + config->bytes, config, 12 + config->bytes);
}

/* As can be said back, for as many bytes as it came in. */
static void
check_inflight (const struct vhu_inflight *inflight, uint32_t bytes) {
  uint8_t out[VHU_HEADER_BYTES + VHU_PAYLOAD_BYTES_MAX];

  g_assert_cmpuint (inflight->bytes, <=, UINT64_MAX - inflight->offset);
  g_assert_cmpuint (vhu_encode_inflight (inflight, out, sizeof out), ==, VHU_HEADER_BYTES + bytes);
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size) {
  struct input input = { data, size };

  while (input.left) {
    const unsigned n_fds = input_8 (&input);
    struct vhu_message message, before;
    struct vhu_header header = { 0, 0, 0 };
    uint8_t head[VHU_HEADER_BYTES], reply[VHU_HEADER_BYTES + 8];
    uint32_t request;
    uint64_t value;
    g_autofree uint8_t *payload = NULL;

    memset (reply, 0, sizeof reply);
    memcpy (reply, input.at, MIN (input.left, sizeof reply));
    (void)vhu_decode_backend_reply (reply, &request, &value);
    input_bytes (&input, head, sizeof head);
    if (vhu_decode_header (head, &header))
      continue;
    g_assert_cmpuint (header.bytes, <=, VHU_PAYLOAD_BYTES_MAX);
    g_assert_cmpstr (vhu_request_name (header.request), !=, "unknown");
    payload = g_malloc (header.bytes); /* its end is the end of its memory */
    input_bytes (&input, payload, header.bytes);
    memset (&message, 0x5a, sizeof message);
    before = message;
    if (vhu_decode (&header, payload, n_fds, &message)) {
      g_assert_cmpmem (&message, sizeof message, &before, sizeof before);
      continue;
    }
    g_assert_cmpuint (n_fds, <=, VHU_FDS_MAX);
    g_assert_cmpuint (message.request, ==, header.request);
    if (message.request == VHU_SET_MEM_TABLE) {
      check_memory_table (&message.memory);
      g_assert_cmpuint (message.memory.n_regions, ==, n_fds);
    }
    if (message.request == VHU_GET_CONFIG || message.request == VHU_SET_CONFIG)
      check_config (&message.config);
    if (message.request == VHU_ADD_MEM_REG || message.request == VHU_REM_MEM_REG)
      check_memory_table (&(struct vhu_memory_table){ 1, 0, { message.region } });
    if (message.request == VHU_GET_INFLIGHT_FD || message.request == VHU_SET_INFLIGHT_FD)
      check_inflight (&message.inflight, header.bytes);
  }
  return 0;
}
