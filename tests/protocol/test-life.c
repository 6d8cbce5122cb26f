/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a good guest sees, from its first HELLO to its BYE, in all ring formats; and what that costs the host meanwhile. */
#include "rig.h"

#include <endian.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE 4096u
#define USABLE (RIG_WINDOW_BLOCKS - RIG_SECTION_BLOCKS)

static uint64_t
memfd_bytes (struct fe *fe) {
  struct stat st;

  g_assert_cmpint (fstat (fe->window.fd, &st), ==, 0);
  return (uint64_t)st.st_blocks * 512;
}

static void
fill (struct fe *fe, const struct domybs_run *run, uint64_t salt) {
  for (uint64_t block = run->start; block < run->start + run->count; block++)
    for (uint64_t at = 0; at < DOMYBS_BLOCK_BYTES; at += PAGE)
      *(uint64_t *)(void *)(fe_block (fe, block) + at) = salt + block * DOMYBS_BLOCK_BYTES + at;
}

static void
is_filled (struct fe *fe, const struct domybs_run *run, uint64_t salt) {
  for (uint64_t block = run->start; block < run->start + run->count; block++)
    for (uint64_t at = 0; at < DOMYBS_BLOCK_BYTES; at += PAGE)
      g_assert_cmpuint (*(uint64_t *)(void *)(fe_block (fe, block) + at), ==, salt + block * DOMYBS_BLOCK_BYTES + at);
}

static void
is_zero (struct fe *fe, const struct domybs_run *run) {
  for (uint64_t block = run->start; block < run->start + run->count; block++)
    for (uint64_t at = 0; at < DOMYBS_BLOCK_BYTES; at += 8 * PAGE)
      g_assert_cmpuint (*(uint64_t *)(void *)(fe_block (fe, block) + at), ==, 0);
}

static void
whole_life (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = fe_new ();
  struct fe_answer granted, answer;

  fe->features_mask = ~GPOINTER_TO_SIZE (data);
  fe_must (fe, fe_open (fe, rig->backend->socket_path));
  g_assert_cmpuint (fe->queue_count, >=, DOMYBS_VQ_COUNT);
  g_assert_cmpuint (memfd_bytes (fe), ==, 0);
  fe_must (fe, fe_grant (fe, 100, DOMYBS_HINT_LOCAL, DOMYBS_GRANT_F_ALL, 0, 0, &granted));
  g_assert_cmpuint (granted.status, ==, DOMYBS_OK);
  g_assert_cmpuint (granted.blocks, ==, 100);
  g_assert_cmpuint (granted.id, ==, 1);
  g_assert_cmpuint (granted.session, ==, fe->session);
  g_assert_cmpuint (memfd_bytes (fe), ==, 0); /* reserve: nothing until it is touched */
  for (uint32_t i = 0; i < granted.count; i++)
    fill (fe, &granted.runs[i], 7);
  g_assert_cmpuint (memfd_bytes (fe), ==, 100 * DOMYBS_BLOCK_BYTES);
  g_assert_cmpint (backend_status (rig->backend, "memfd-bytes"), ==, 100 * (int64_t)DOMYBS_BLOCK_BYTES);
  g_usleep (3 * RIG_AUDIT_MS * 1000); /* audits leave granted memory alone */
  for (uint32_t i = 0; i < granted.count; i++)
    is_filled (fe, &granted.runs[i], 7);

  const struct domybs_run first = { granted.runs[0].start, 40 };
  fe_must (fe, fe_release (fe, &first, 1, &answer));
  g_assert_cmpuint (answer.status, ==, DOMYBS_OK);
  g_assert_cmpuint (answer.blocks, ==, 40);
  g_assert_cmpuint (answer.granted, ==, 60);
  g_assert_cmpuint (memfd_bytes (fe), ==, 60 * DOMYBS_BLOCK_BYTES); /* at once */
  fe_must (fe, fe_grant (fe, 40, DOMYBS_HINT_ANY, DOMYBS_GRANT_F_ALL, first.start, first.count, &answer));
  g_assert_cmpuint (answer.runs[0].start, ==, first.start);
  is_zero (fe, &first);

  fe_must (fe, fe_bye (fe, &answer));
  g_assert_cmpuint (answer.status, ==, DOMYBS_OK);
  g_assert_cmpuint (answer.granted, ==, 0);
  g_assert_cmpuint (memfd_bytes (fe), ==, 0);
  fe_must (fe, fe_hello (fe, 64, &answer));
  g_assert_cmpuint (answer.status, ==, DOMYBS_OK);
  g_assert_cmpuint (answer.granted, ==, 0);
}

/* Sixteen in flight, answered in order. */
static void
requests_in_flight (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open (rig);
  struct fe_answer answer;
  uint8_t request[PAGE];

  for (int round = 0; round < 50; round++) {
    for (unsigned slot = 0; slot < FE_SLOTS; slot++)
      fe_submit (fe, slot, request, fe_encode_grant (fe, request, 0, 1, DOMYBS_HINT_ANY, 0, 0, 0), PAGE);
    for (unsigned slot = 0; slot < FE_SLOTS; slot++) {
      fe_must (fe, fe_complete (fe, slot, &answer, fe_patience_ms ()));
      g_assert_cmpuint (answer.granted, ==, (unsigned)round * FE_SLOTS + slot + 1);
    }
  }
}

static void
ring_of_size (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = fe_new ();
  struct fe_answer answer;

  for (unsigned i = 0; i < DOMYBS_VQ_COUNT; i++)
    fe->queues[i].num = (uint16_t)GPOINTER_TO_UINT (data);
  fe_must (fe, fe_open (fe, rig->backend->socket_path));
  for (unsigned i = 0; i < 3000; i++) { /* around the ring more than once */
    fe_must (fe, fe_stats (fe, NULL, 0, &answer));
    g_assert_cmpuint (answer.status, ==, DOMYBS_OK);
  }
}

/* The 16-bit ring indexes wrap. */
static void
ring_indexes_wrap (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open (rig);
  struct fe_answer answer;
  uint8_t request[PAGE];

  for (unsigned i = 0; i < 66000; i += FE_SLOTS) {
    for (unsigned slot = 0; slot < FE_SLOTS; slot++)
      fe_submit (fe, slot, request, fe_encode_stats (fe, request, 0, NULL, 0), PAGE);
    for (unsigned slot = 0; slot < FE_SLOTS; slot++)
      fe_must (fe, fe_complete (fe, slot, &answer, fe_patience_ms ()));
  }
  fe_must (fe, fe_grant (fe, 1, DOMYBS_HINT_ANY, 0, 0, 0, &answer));
  g_assert_cmpuint (answer.status, ==, DOMYBS_OK);
}

static void
config_space (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open_to (rig, FE_STEP_SHMEM_CONFIG);
  struct domybs_config config;

  fe_must (fe, fe_get_config (fe, &config));
  g_assert_cmpuint (le32toh (config.magic), ==, 0x42594d44);
  g_assert_cmpuint (le16toh (config.abi_version), ==, 1);
  g_assert_cmpuint (le16toh (config.flags), ==, 0);
  g_assert_cmpuint (le32toh (config.block_bytes), ==, 2 << 20);
  g_assert_cmpuint (le64toh (config.window_blocks), ==, RIG_WINDOW_BLOCKS);
  g_assert_cmpuint (le64toh (config.max_blocks), ==, USABLE);
  g_assert_cmpuint (le64toh (config.target_blocks), ==, 0);
  g_assert_cmpuint (le32toh (config.generation), >=, 1);
  /* a byte at a time, as a guest's read arrives */
  for (uint32_t i = 0; i < sizeof config; i++) {
    uint8_t byte[13] = { 0 };
    const uint32_t head[3] = { i, 1, 0 };
    uint32_t n;

    memcpy (byte, head, sizeof head);
    fe_must (fe, fe_send (fe, FE_GET_CONFIG, 0, byte, sizeof byte, NULL, 0));
    fe_must (fe, fe_receive (fe, FE_GET_CONFIG, byte, sizeof byte, &n));
    g_assert_cmpuint (n, ==, sizeof byte);
    g_assert_cmpuint (byte[12], ==, ((const uint8_t *)&config)[i]);
  }
}

static void
set_target (struct rig *rig, const char *blocks) {
  g_autofree char *command = g_strdup_printf ("{\"execute\":\"set-target\",\"arguments\":{\"blocks\":%s}}", blocks);
  g_autoptr (JsonNode) answer = backend_control (rig->backend, command);

  g_assert_true (json_object_has_member (json_node_get_object (answer), "return"));
}

static void
target_change_reaches_the_guest (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open (rig);
  struct domybs_config before, after;
  struct domybs_event event;
  struct fe_answer answer;

  fe_post_events (fe, 4);
  fe_must (fe, fe_get_config (fe, &before));
  set_target (rig, "123");
  fe_must (fe, fe_wait_event (fe, DOMYBS_EVENT_CONFIG, &event, fe_patience_ms ()));
  fe_must (fe, fe_get_config (fe, &after));
  g_assert_cmpuint (le16toh (after.flags), ==, DOMYBS_CONFIG_F_TARGET);
  g_assert_cmpuint (le64toh (after.target_blocks), ==, 123);
  g_assert_cmpuint (le32toh (after.generation), ==, le32toh (before.generation) + 1);
  g_assert_cmpuint (le32toh (event.generation), ==, le32toh (after.generation));
  g_assert_cmpuint (le64toh (event.session), ==, fe->session);
  fe_must (fe, fe_grant (fe, 1, DOMYBS_HINT_ANY, 0, 0, 0, &answer));
  g_assert_cmpuint (answer.generation, ==, le32toh (after.generation));
  /* the same again is no change */
  set_target (rig, "123");
  fe_must (fe, fe_get_config (fe, &before));
  g_assert_cmpuint (before.generation, ==, after.generation);
  g_assert_false (fe_wait_event (fe, DOMYBS_EVENT_CONFIG, &event, 100));
  set_target (rig, "null");
  fe_must (fe, fe_wait_event (fe, DOMYBS_EVENT_CONFIG, &event, fe_patience_ms ()));
  fe_must (fe, fe_get_config (fe, &after));
  g_assert_cmpuint (le16toh (after.flags), ==, 0);
}

/* QEMU crashes when it is asked for a configuration interrupt while the device is not started. There is always a moment at
 * which it is not any more and we do not know yet: so it is never asked for, whenever the target changes. */
static void
target_change_asks_qemu_for_nothing (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = fe_new ();
  struct domybs_config config;
  struct fe_answer answer;
  unsigned target = 1;

  for (enum fe_step step = FE_STEP_CONNECT; step < FE_STEPS; step++) {
    g_autofree char *blocks = g_strdup_printf ("%u", target++);

    fe_must (fe, fe_step (fe, step, rig->backend->socket_path));
    set_target (rig, blocks);
    fe_must (fe, fe_serve_channel (fe));
  }
  /* no event was lost on it, either: a driver sees by its first answer that there is something new */
  fe_must (fe, fe_stats (fe, NULL, 0, &answer));
  fe_must (fe, fe_get_config (fe, &config));
  g_assert_cmpuint (answer.generation, ==, le32toh (config.generation));
  g_assert_cmpuint (le64toh (config.target_blocks), ==, target - 1);
  for (unsigned q = 0; q < DOMYBS_VQ_COUNT; q++)
    fe_must (fe, fe_stop_queue (fe, q));
  set_target (rig, "1000");
  fe_must (fe, fe_drop_window (fe));
  set_target (rig, "null");
  fe_must (fe, fe_serve_channel (fe));
  g_assert_cmpuint (fe->config_changes, ==, 0);
  g_assert_cmpuint (fe->maps, ==, 1);
}

static void
reclaim_reaches_the_guest (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open (rig);
  struct domybs_event event;

  /* asked before there is a buffer: it waits for one */
  g_autoptr (JsonNode) asked
    = backend_control (rig->backend, "{\"execute\":\"reclaim\",\"arguments\":{\"blocks\":17,\"deadline-ms\":2500}}");
  g_usleep (10000);
  fe_post_events (fe, 2);
  fe_must (fe, fe_wait_event (fe, DOMYBS_EVENT_RECLAIM, &event, fe_patience_ms ()));
  g_assert_cmpuint (le64toh (event.blocks), ==, 17);
  g_assert_cmpuint (le32toh (event.deadline_ms), ==, 2500);
  g_assert_cmpuint (le64toh (event.session), ==, fe->session);
}

static void
stats_show_in_status (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open (rig);
  const struct domybs_stat stats[] = { { DOMYBS_STAT_MEM_TOTAL, 0, 1u << 30 }, { DOMYBS_STAT_BLOCKS_ONLINE, 0, 12 }, { 9999, 0, 1 } };
  struct fe_answer answer;

  fe_must (fe, fe_stats (fe, stats, G_N_ELEMENTS (stats), &answer));
  g_assert_cmpuint (answer.status, ==, DOMYBS_OK);
  g_autoptr (JsonNode) node = backend_control (rig->backend, "{\"execute\":\"status\"}");
  JsonObject *status = json_object_get_object_member (json_node_get_object (node), "return");
  JsonObject *guest = json_object_get_object_member (status, "guest");
  g_assert_cmpint (json_object_get_int_member (guest, "mem-total-bytes"), ==, 1 << 30);
  g_assert_cmpint (json_object_get_int_member (guest, "blocks-online"), ==, 12);
}

/* ---- stop, resume, reset ---- */

static void
pause_and_resume (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open (rig);
  struct fe_answer answer, later;
  uint8_t request[PAGE];

  fe_must (fe, fe_grant (fe, 4, DOMYBS_HINT_ANY, DOMYBS_GRANT_F_ALL, 0, 0, &answer));
  fill (fe, &answer.runs[0], 3);
  for (int i = 0; i < 20; i++) {
    fe_must (fe, fe_stop_queue (fe, DOMYBS_VQ_REQUEST));
    fe_must (fe, fe_stop_queue (fe, DOMYBS_VQ_EVENT));
    /* offered while it is stopped: taken when it goes on, without a kick */
    fe_submit (fe, 0, request, fe_encode_grant (fe, request, 0, 1, DOMYBS_HINT_ANY, 0, 0, 0), PAGE);
    g_assert_false (fe_complete (fe, 0, &later, 20));
    fe->queues[0].next_avail--; /* SET_VRING_BASE: where the device left off */
    fe_must (fe, fe_start_queue (fe, DOMYBS_VQ_REQUEST));
    fe->queues[0].next_avail++;
    fe_must (fe, fe_start_queue (fe, DOMYBS_VQ_EVENT));
    fe_must (fe, fe_complete (fe, 0, &later, fe_patience_ms ()));
    g_assert_cmpuint (later.granted, ==, 4 + (unsigned)i + 1);
  }
  is_filled (fe, &answer.runs[0], 3);
}

/* The VM is stopped while HELLO waits for the window; QEMU has mapped it or not yet, and says so in time or too late. */
static void
pause_in_the_middle_of_hello (struct rig *rig, const void *data) {
  const bool map_before_stop = data != NULL;
  g_autoptr (fe_t) fe = rig_open_to (rig, FE_STEP_ENABLE);
  struct fe_queue *queue = &fe->queues[DOMYBS_VQ_REQUEST];
  struct fe_answer answer;
  uint8_t request[128];

  fe->channel_mode = FE_CHANNEL_HOLD;
  fe->nonce = 99;
  fe_submit (fe, 0, request, fe_encode_hello (request, 64, fe->nonce), PAGE);
  while (!fe->held)
    g_assert_false (fe_complete (fe, 0, &answer, 5));
  if (map_before_stop)
    fe_must (fe, fe_map_now (fe));
  fe_must (fe, fe_stop_queue (fe, DOMYBS_VQ_REQUEST));
  if (!map_before_stop)
    fe_must (fe, fe_map_now (fe));
  fe->channel_mode = FE_CHANNEL_SERVE;
  fe_must (fe, fe_start_queue (fe, DOMYBS_VQ_REQUEST));
  queue->next_avail = queue->avail[1];
  fe_must (fe, fe_complete (fe, 0, &answer, fe_patience_ms ()));
  g_assert_cmpuint (answer.status, ==, DOMYBS_OK);
  fe->session = answer.session;
  fe->next_id = 1;
  fe_must (fe, fe_grant (fe, 2, DOMYBS_HINT_ANY, DOMYBS_GRANT_F_ALL, 0, 0, &answer));
  g_assert_cmpuint (answer.status, ==, DOMYBS_OK);
  fill (fe, &answer.runs[0], 5);
  g_usleep (2 * RIG_AUDIT_MS * 1000);
  is_filled (fe, &answer.runs[0], 5);
  g_assert_cmpuint (memfd_bytes (fe), ==, 2 * DOMYBS_BLOCK_BYTES); /* in the window that the guest has, not in another one */
}

/* Guest reset: QEMU drops the maps and stops the queues; the same driver, or the next one, starts all over. */
static void
reset_voids_everything (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open (rig);
  struct fe_answer answer;

  for (int i = 0; i < 10; i++) {
    const uint64_t session = fe->session;
    uint8_t request[PAGE];

    fe_must (fe, fe_grant (fe, 50, DOMYBS_HINT_ANY, DOMYBS_GRANT_F_ALL, 0, 0, &answer));
    fill (fe, &answer.runs[0], 11);
    const int kept = fcntl (fe->window.fd, F_DUPFD_CLOEXEC, 0);
    fe_must (fe, fe_drop_window (fe));
    struct stat st;
    g_assert_cmpint (fstat (kept, &st), ==, 0);
    g_assert_cmpint (st.st_blocks, ==, 0); /* back on the host, at once */
    close (kept);
    g_assert_cmpint (backend_status (rig->backend, "granted-blocks"), ==, 0);
    for (unsigned q = 0; q < DOMYBS_VQ_COUNT; q++) {
      fe_must (fe, fe_stop_queue (fe, q));
      memset (fe_at (fe, fe->queues[q].desc_gpa), 0, 0xc000);
      fe->queues[q].next_avail = fe->queues[q].next_used = 0;
      fe_must (fe, fe_start_queue (fe, q));
    }
    fe_must (fe, fe_call (fe, request, fe_encode_bye (fe, request, 0), &answer));
    g_assert_cmpuint (answer.status, ==, DOMYBS_BAD_SESSION);
    fe_must (fe, fe_hello (fe, i % 2 ? 64 : 32, &answer));
    g_assert_cmpuint (answer.status, ==, DOMYBS_OK);
    g_assert_cmpuint (answer.session, !=, session);
  }
  g_assert_cmpuint (fe->maps, ==, 11);
}

static void
hello_voids_earlier_grants (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open (rig);
  struct fe_answer answer;
  struct domybs_run run;

  fe_must (fe, fe_grant (fe, 10, DOMYBS_HINT_ANY, DOMYBS_GRANT_F_ALL, 0, 0, &answer));
  run = answer.runs[0];
  fill (fe, &run, 1);
  fe_must (fe, fe_hello (fe, 64, &answer));
  g_assert_cmpuint (answer.granted, ==, 0);
  g_assert_cmpuint (memfd_bytes (fe), ==, 0);
  fe_must (fe, fe_grant (fe, 10, DOMYBS_HINT_ANY, DOMYBS_GRANT_F_ALL, run.start, run.count, &answer));
  is_zero (fe, &run);
}

static void
reconnect_starts_anew (struct rig *rig, const void *data) {
  uint64_t session = 0;

  for (int i = 0; i < 5; i++) {
    g_autoptr (fe_t) fe = rig_open (rig);
    struct fe_answer answer;

    g_assert_cmpuint (fe->session, !=, session);
    session = fe->session;
    fe_must (fe, fe_grant (fe, 10, DOMYBS_HINT_ANY, DOMYBS_GRANT_F_ALL, 0, 0, &answer));
    g_assert_cmpuint (answer.granted, ==, 10);
    is_zero (fe, &answer.runs[0]);
    fill (fe, &answer.runs[0], 9);
  }
}

int
main (int argc, char **argv) {
  g_test_init (&argc, &argv, NULL);
  rig_add ("/life/direct-descriptors", whole_life, GSIZE_TO_POINTER (FE_F_INDIRECT | FE_F_EVENT_IDX));
  rig_add ("/life/event-index", whole_life, GSIZE_TO_POINTER (FE_F_INDIRECT));
  rig_add ("/life/all-features", whole_life, NULL);
  rig_add ("/life/requests-in-flight", requests_in_flight, NULL);
  rig_add ("/life/ring-of-size-4", ring_of_size, GUINT_TO_POINTER (4));
  rig_add ("/life/ring-of-size-1024", ring_of_size, GUINT_TO_POINTER (1024));
  rig_add ("/life/ring-indexes-wrap", ring_indexes_wrap, NULL);
  rig_add ("/life/config-space", config_space, NULL);
  rig_add ("/life/target-change-reaches-the-guest", target_change_reaches_the_guest, NULL);
  rig_add ("/life/target-change-asks-qemu-for-nothing", target_change_asks_qemu_for_nothing, NULL);
  rig_add ("/life/reclaim-reaches-the-guest", reclaim_reaches_the_guest, NULL);
  rig_add ("/life/stats-show-in-status", stats_show_in_status, NULL);
  rig_add ("/life/pause-and-resume", pause_and_resume, NULL);
  rig_add ("/life/pause-in-the-middle-of-hello-before-the-map", pause_in_the_middle_of_hello, NULL);
  rig_add ("/life/pause-in-the-middle-of-hello-after-the-map", pause_in_the_middle_of_hello, "mapped");
  rig_add ("/life/reset-voids-everything", reset_voids_everything, NULL);
  rig_add ("/life/hello-voids-earlier-grants", hello_voids_earlier_grants, NULL);
  rig_add ("/life/reconnect-starts-anew", reconnect_starts_anew, NULL);
  return rig_run ();
}
