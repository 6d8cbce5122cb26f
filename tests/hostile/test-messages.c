/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Single vhost-user messages that are wrong in one way each: the back-end closes the connection, says why in its log, and goes on.
 * The bytes are written out here, not made by the back-end's own codec.
 */
#include "rig.h"

#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define FRESH FE_STEP_CONNECT        /* nothing negotiated */
#define REALIZED FE_STEP_SHMEM_CONFIG /* QEMU's realize is done */
#define RUNNING FE_STEP_HELLO

#define U32(v) (uint8_t) (v), (uint8_t)((v) >> 8), (uint8_t)((v) >> 16), (uint8_t)((uint32_t)(v) >> 24)
#define U64(v) U32 ((uint64_t)(v)), U32 ((uint64_t)(v) >> 32)

struct bad_message {
  const char *name;
  enum fe_step after;
  uint32_t request, flags;
  uint32_t declared;   /* size that the header claims */
  uint32_t sent;       /* payload bytes that follow */
  unsigned n_fds;      /* eventfds */
  const char *reason;  /* in the log */
  uint8_t payload[48]; /* the rest is zero */
};

#define V FE_FLAG_VERSION
#define SAME(n) .declared = n, .sent = n

static const struct bad_message bad_messages[] = {
  { "request-0", FRESH, 0, V, SAME (0), .reason = "unknown request" },
  { "request-in-a-gap", FRESH, 7, V, SAME (0), .reason = "unknown request" },
  { "request-of-another-device", FRESH, FE_SET_LOG_BASE, V, SAME (16), .n_fds = 1, .reason = "unknown request" },
  { "request-beyond-the-last", FRESH, 4711, V, SAME (0), .reason = "unknown request" },
  { "request-all-ones", FRESH, UINT32_MAX, V, SAME (0), .reason = "unknown request" },
  { "version-0", FRESH, FE_GET_FEATURES, 0, SAME (0), .reason = "version" },
  { "version-2", FRESH, FE_GET_FEATURES, 2, SAME (0), .reason = "version" },
  { "reply-where-a-request-belongs", FRESH, FE_GET_FEATURES, V | FE_FLAG_REPLY, SAME (0), .reason = "reply" },

  { "size-of-4-GiB", FRESH, FE_SET_FEATURES, V, .declared = UINT32_MAX, .sent = 8, .reason = "too large" },
  { "size-of-2-GiB", FRESH, FE_SET_FEATURES, V, .declared = 0x80000000u, .sent = 8, .reason = "too large" },
  { "size-just-too-large", FRESH, FE_GET_CONFIG, V, .declared = 12 + 256 + 1, .sent = 0, .reason = "too large" },
  { "payload-where-none-belongs", FRESH, FE_GET_FEATURES, V, SAME (8), .reason = "size" },
  { "payload-missing", FRESH, FE_SET_FEATURES, V, SAME (0), .reason = "size" },
  { "payload-too-short-for-u64", FRESH, FE_SET_FEATURES, V, SAME (4), .reason = "size" },
  { "payload-too-long-for-u64", FRESH, FE_SET_FEATURES, V, SAME (16), .reason = "size" },
  { "payload-too-short-for-vring-state", REALIZED, FE_SET_VRING_NUM, V, SAME (4), .reason = "size" },
  { "payload-too-long-for-vring-state", REALIZED, FE_SET_VRING_NUM, V, SAME (12), .reason = "size" },
  { "payload-too-short-for-vring-address", REALIZED, FE_SET_VRING_ADDR, V, SAME (32), .reason = "size" },
  { "payload-too-long-for-vring-address", REALIZED, FE_SET_VRING_ADDR, V, SAME (48), .reason = "size" },
  { "payload-too-short-for-kick", REALIZED, FE_SET_VRING_KICK, V, SAME (4), .n_fds = 1, .reason = "size" },
  { "payload-missing-for-call", REALIZED, FE_SET_VRING_CALL, V, SAME (0), .n_fds = 1, .reason = "size" },
  { "payload-too-short-for-memory-table", REALIZED, FE_SET_MEM_TABLE, V, SAME (4), .reason = "short" },
  { "payload-missing-for-memory-table", REALIZED, FE_SET_MEM_TABLE, V, SAME (0), .n_fds = 1, .reason = "short" },
  { "payload-too-short-for-config", REALIZED, FE_GET_CONFIG, V, SAME (8), .reason = "short" },

  { "memory-regions-without-payload", REALIZED, FE_SET_MEM_TABLE, V, SAME (8), .n_fds = 1, .reason = "number of regions",
    .payload = { U32 (1) } },
  { "memory-regions-4-billion", REALIZED, FE_SET_MEM_TABLE, V, SAME (40), .n_fds = 1, .reason = "memory regions",
    .payload = { U32 (UINT32_MAX) } },
  /* 8 + n * 32 wraps to 40 in 32 bits */
  { "memory-regions-count-wraps-the-size", REALIZED, FE_SET_MEM_TABLE, V, SAME (40), .n_fds = 1, .reason = "memory regions",
    .payload = { U32 (0x08000001u) } },
  { "memory-regions-9", REALIZED, FE_SET_MEM_TABLE, V, .declared = 8 + 9 * 32, .sent = 0, .reason = "too large" },

  { "fd-with-get-features", FRESH, FE_GET_FEATURES, V, SAME (0), .n_fds = 1, .reason = "more file descriptors" },
  { "fd-with-set-features", FRESH, FE_SET_FEATURES, V, SAME (8), .n_fds = 1, .reason = "more file descriptors" },
  { "fds-8-with-set-owner", FRESH, FE_SET_OWNER, V, SAME (0), .n_fds = 8, .reason = "more file descriptors" },
  { "fds-9", FRESH, FE_SET_OWNER, V, SAME (0), .n_fds = 9, .reason = "more file descriptors" },
  { "fds-253", FRESH, FE_SET_OWNER, V, SAME (0), .n_fds = 253, .reason = "more file descriptors" },
  { "kick-without-fd", REALIZED, FE_SET_VRING_KICK, V, SAME (8), .reason = "fewer file descriptors" },
  { "kick-with-2-fds", REALIZED, FE_SET_VRING_KICK, V, SAME (8), .n_fds = 2, .reason = "more file descriptors" },
  { "call-without-fd", REALIZED, FE_SET_VRING_CALL, V, SAME (8), .reason = "fewer file descriptors" },
  { "call-with-fd-and-no-fd-flag", REALIZED, FE_SET_VRING_CALL, V, SAME (8), .n_fds = 1, .reason = "more file descriptors",
    .payload = { U64 (FE_VRING_NOFD) } },
  { "kick-by-polling", REALIZED, FE_SET_VRING_KICK, V, SAME (8), .reason = "polling", .payload = { U64 (FE_VRING_NOFD) } },
  { "channel-without-fd", REALIZED, FE_SET_BACKEND_REQ_FD, V, SAME (0), .reason = "fewer file descriptors" },
  { "channel-with-2-fds", REALIZED, FE_SET_BACKEND_REQ_FD, V, SAME (0), .n_fds = 2, .reason = "more file descriptors" },
  { "memory-table-with-more-fds-than-regions", REALIZED, FE_SET_MEM_TABLE, V, SAME (8), .n_fds = 1, .reason = "number of file" },
  { "memory-table-with-fewer-fds-than-regions", REALIZED, FE_SET_MEM_TABLE, V, SAME (40), .reason = "number of file",
    .payload = { U32 (1), U32 (0), U64 (0), U64 (4096) } },

  /* a queue number as an index: just behind the end, and where a cast to int or to 8 bits would make it look small */
  { "queue-2-in-set-num", REALIZED, FE_SET_VRING_NUM, V, SAME (8), .reason = "no such queue", .payload = { U32 (2), U32 (64) } },
  { "queue-4-billion-in-set-num", REALIZED, FE_SET_VRING_NUM, V, SAME (8), .reason = "no such queue",
    .payload = { U32 (UINT32_MAX), U32 (64) } },
  { "queue-256-in-set-base", REALIZED, FE_SET_VRING_BASE, V, SAME (8), .reason = "no such queue", .payload = { U32 (256) } },
  { "queue-65536-in-set-enable", REALIZED, FE_SET_VRING_ENABLE, V, SAME (8), .reason = "no such queue",
    .payload = { U32 (65536), U32 (1) } },
  { "queue-2-in-set-address", REALIZED, FE_SET_VRING_ADDR, V, SAME (40), .reason = "no such queue", .payload = { U32 (2) } },
  { "queue-minus-1-in-set-address", REALIZED, FE_SET_VRING_ADDR, V, SAME (40), .reason = "no such queue",
    .payload = { U32 (UINT32_MAX) } },
  { "queue-minus-1-in-get-base", REALIZED, FE_GET_VRING_BASE, V, SAME (8), .reason = "no such queue",
    .payload = { U32 (UINT32_MAX) } },
  { "queue-2-in-get-base", RUNNING, FE_GET_VRING_BASE, V, SAME (8), .reason = "no such queue", .payload = { U32 (2) } },
  { "queue-2-in-set-kick", REALIZED, FE_SET_VRING_KICK, V, SAME (8), .n_fds = 1, .reason = "no such queue",
    .payload = { U64 (2) } },
  { "queue-255-in-set-call", REALIZED, FE_SET_VRING_CALL, V, SAME (8), .n_fds = 1, .reason = "no such queue",
    .payload = { U64 (0xff) } },
  { "queue-bits-above-the-index-byte", REALIZED, FE_SET_VRING_CALL, V, SAME (8), .n_fds = 1, .reason = "queue's number",
    .payload = { U64 (1ull << 32) } },

  { "queue-size-0", REALIZED, FE_SET_VRING_NUM, V, SAME (8), .reason = "size", .payload = { U32 (0), U32 (0) } },
  { "queue-size-no-power-of-2", REALIZED, FE_SET_VRING_NUM, V, SAME (8), .reason = "size", .payload = { U32 (0), U32 (63) } },
  { "queue-size-32768", REALIZED, FE_SET_VRING_NUM, V, SAME (8), .reason = "size", .payload = { U32 (0), U32 (32768) } },
  { "queue-size-65537-truncates-to-1", REALIZED, FE_SET_VRING_NUM, V, SAME (8), .reason = "size",
    .payload = { U32 (0), U32 (65537) } },
  { "queue-size-4-billion", REALIZED, FE_SET_VRING_NUM, V, SAME (8), .reason = "size",
    .payload = { U32 (0), U32 (0x80000000u) } },
  { "queue-size-changes-while-it-runs", RUNNING, FE_SET_VRING_NUM, V, SAME (8), .reason = "running",
    .payload = { U32 (0), U32 (1024) } },
  { "queue-position-65536", REALIZED, FE_SET_VRING_BASE, V, SAME (8), .reason = "position",
    .payload = { U32 (0), U32 (65536) } },
  { "queue-position-changes-while-it-runs", RUNNING, FE_SET_VRING_BASE, V, SAME (8), .reason = "running",
    .payload = { U32 (0), U32 (7) } },
  { "queue-enable-2", REALIZED, FE_SET_VRING_ENABLE, V, SAME (8), .reason = "ENABLE", .payload = { U32 (0), U32 (2) } },
  { "queue-log-flag-not-negotiated", REALIZED, FE_SET_VRING_ADDR, V, SAME (40), .reason = "ogging",
    .payload = { U32 (0), U32 (1) } },

  { "config-offset-4-billion", REALIZED, FE_GET_CONFIG, V, SAME (16), .reason = "config",
    .payload = { U32 (UINT32_MAX), U32 (4), U32 (0) } },
  { "config-size-4-billion", REALIZED, FE_GET_CONFIG, V, SAME (16), .reason = "config",
    .payload = { U32 (0), U32 (UINT32_MAX), U32 (0) } },
  { "config-offset-plus-size-wraps", REALIZED, FE_GET_CONFIG, V, SAME (44), .reason = "config",
    .payload = { U32 (0xfffffff0u), U32 (32), U32 (0) } },
  { "config-size-is-not-the-payloads", REALIZED, FE_GET_CONFIG, V, SAME (16), .reason = "config",
    .payload = { U32 (0), U32 (64), U32 (0) } },
  { "config-written", REALIZED, FE_SET_CONFIG, V, SAME (16), .reason = "read-only",
    .payload = { U32 (0), U32 (4), U32 (0), U32 (0x42424242) } },

  { "features-never-offered", REALIZED, FE_SET_FEATURES, V, SAME (8), .reason = "not offered",
    .payload = { U64 (1ull << 63) } },
  { "features-all", REALIZED, FE_SET_FEATURES, V, SAME (8), .reason = "not offered", .payload = { U64 (~0ull) } },
  { "protocol-feature-that-crashes-qemu", FE_STEP_GET_PROTOCOL, FE_SET_PROTOCOL_FEATURES, V, SAME (8), .reason = "not offered",
    .payload = { U64 (1ull << 15) } },
  { "protocol-features-all", FE_STEP_GET_PROTOCOL, FE_SET_PROTOCOL_FEATURES, V, SAME (8), .reason = "not offered",
    .payload = { U64 (~0ull) } },

  /* for a feature that was never negotiated */
  { "config-before-its-feature", FRESH, FE_GET_CONFIG, V, SAME (16), .reason = "negotiated",
    .payload = { U32 (0), U32 (4), U32 (0) } },
  { "shmem-config-before-its-feature", FRESH, FE_GET_SHMEM_CONFIG, V, SAME (0), .reason = "negotiated" },
  { "channel-before-its-feature", FE_STEP_GET_PROTOCOL, FE_SET_BACKEND_REQ_FD, V, SAME (0), .n_fds = 1,
    .reason = "negotiated" },
  { "queue-number-before-its-feature", FRESH, FE_GET_QUEUE_NUM, V, SAME (0), .reason = "negotiated" },
  { "reset-device-not-negotiated", REALIZED, FE_RESET_DEVICE, V, SAME (0), .reason = "negotiated" },
};

static void
is_refused (struct rig *rig, const void *data) {
  const struct bad_message *bad = data;
  g_autoptr (fe_t) fe = rig_open_to (rig, bad->after);
  const uint32_t header[3] = { bad->request, bad->flags, bad->declared };
  uint8_t bytes[sizeof header + 512] = { 0 };
  int fds[253];

  g_assert_cmpuint (bad->sent, <=, 512);
  memcpy (bytes, header, sizeof header);
  memcpy (bytes + sizeof header, bad->payload, sizeof bad->payload);
  for (unsigned i = 0; i < bad->n_fds; i++)
    fds[i] = eventfd (0, EFD_CLOEXEC);
  rig_mark (rig);
  fe_must (fe, fe_send_raw (fe, fe->sock, bytes, sizeof header + bad->sent, fds, bad->n_fds));
  for (unsigned i = 0; i < bad->n_fds; i++)
    close (fds[i]);
  rig_expect_closed (rig, fe, bad->reason);
}

/* Reads of config space beyond its end are answered "can't" (size 0), as the protocol says; the connection goes on. */
static void
config_range_beyond_the_space (struct rig *rig, const void *data) {
  static const struct {
    uint32_t offset, bytes;
  } ranges[] = { { 60, 8 }, { 64, 1 }, { 0, 65 }, { 255, 1 }, { 0, 256 }, { 256, 0 } };
  g_autoptr (fe_t) fe = rig_open_to (rig, REALIZED);
  struct domybs_config config;

  for (size_t i = 0; i < G_N_ELEMENTS (ranges); i++) {
    uint8_t payload[12 + 256] = { 0 };
    uint32_t bytes;

    memcpy (payload, &ranges[i], sizeof ranges[i]);
    fe_must (fe, fe_send (fe, FE_GET_CONFIG, 0, payload, 12 + ranges[i].bytes, NULL, 0));
    fe_must (fe, fe_receive (fe, FE_GET_CONFIG, payload, sizeof payload, &bytes));
    g_assert_cmpuint (bytes, ==, 0);
  }
  fe_must (fe, fe_get_config (fe, &config));
}

/* A good request in a bad place: nothing of it may be acted on in a way that hurts, the rig's check sees to that. */
static void
queue_set_up_before_anything_else (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open_to (rig, FRESH);

  fe_must (fe, fe_set_state (fe, FE_SET_VRING_ENABLE, 0, 1));
  fe_must (fe, fe_queue_send_addr (fe, &fe->queues[0]));
  fe_must (fe, fe_set_state (fe, FE_SET_VRING_NUM, 0, 64));
  fe_publish (&fe->queues[0], 0);
  fe_queue_send_kick (fe, &fe->queues[0]);
  fe_kick (&fe->queues[0]);
  g_usleep (20000);
}

static void
rings_without_version_1 (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = fe_new ();

  fe->features_mask = ~FE_F_VERSION_1;
  fe_steps_to (fe, FE_STEP_ENABLE, rig->backend->socket_path);
  rig_expect_logged (rig, "VERSION_1");
}

static void
base_of_a_queue_that_never_ran (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open_to (rig, REALIZED);

  for (int i = 0; i < 3; i++)
    fe_must (fe, fe_stop_queue (fe, 1));
}

int
main (int argc, char **argv) {
  g_test_init (&argc, &argv, NULL);
  for (size_t i = 0; i < G_N_ELEMENTS (bad_messages); i++) {
    g_autofree char *path = g_strdup_printf ("/messages/%s", bad_messages[i].name);

    rig_add (path, is_refused, &bad_messages[i]);
  }
  rig_add ("/messages/config-range-beyond-the-space", config_range_beyond_the_space, NULL);
  rig_add ("/messages/queue-set-up-before-anything-else", queue_set_up_before_anything_else, NULL);
  rig_add ("/messages/rings-without-version-1", rings_without_version_1, NULL);
  rig_add ("/messages/base-of-a-queue-that-never-ran", base_of_a_queue_that_never_ran, NULL);
  return rig_run ();
}
