/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Virtqueues that a hostile driver wrote: descriptors, chains, indirect tables, ring indexes. Each breaks the queue (which then
 * takes nothing more, with a reason in the log) or is refused in its answer. Some odd but legal shapes must work.
 */
#include "rig.h"

#include <endian.h>
#include <string.h>

#define REQUEST DOMYBS_VQ_REQUEST
#define PAGE 4096u

struct attack {
  const char *name;
  /* Writes the request queue's descriptors; a good GRANT lies at fe_request_gpa (0), a page for the answer at fe_response_gpa (0). */
  void (*write) (struct fe *fe, struct fe_queue *queue);
  const char *reason;
  bool without_indirect; /* the feature is not taken */
  uint16_t head;         /* the chain that is offered then */
};

static void
good_chain (struct fe_queue *queue) {
  const struct fe_piece pieces[] = { { fe_request_gpa (0), 24 + 32, false }, { fe_response_gpa (0), PAGE, true } };

  fe_write_chain (queue, 0, pieces, 2);
}

/* One descriptor in the place of the request's. */
static void
one (struct fe_queue *queue, uint64_t addr, uint32_t len, uint16_t flags, uint16_t next) {
  good_chain (queue);
  queue->desc[0] = (struct fe_desc){ addr, len, flags, next };
}

/* ---- chains ---- */

static void
loops_onto_itself (struct fe *fe, struct fe_queue *queue) {
  one (queue, fe_request_gpa (0), 8, FE_DESC_NEXT, 0);
}

static void
loops_over_two (struct fe *fe, struct fe_queue *queue) {
  queue->desc[1] = (struct fe_desc){ fe_request_gpa (0), 8, FE_DESC_NEXT, 0 };
  queue->desc[0] = (struct fe_desc){ fe_request_gpa (0), 8, FE_DESC_NEXT, 1 };
}

static void
loops_in_its_writable_part (struct fe *fe, struct fe_queue *queue) {
  good_chain (queue);
  queue->desc[1].flags |= FE_DESC_NEXT;
  queue->desc[1].next = 1;
}

static void
next_out_of_range (struct fe *fe, struct fe_queue *queue) {
  one (queue, fe_request_gpa (0), 24, FE_DESC_NEXT, FE_QUEUE_SIZE);
}

static void
next_all_ones (struct fe *fe, struct fe_queue *queue) {
  one (queue, fe_request_gpa (0), 24, FE_DESC_NEXT, UINT16_MAX);
}

static void
good_request (struct fe *fe, struct fe_queue *queue) {
  good_chain (queue);
}

static void
index_jumps_by_more_than_the_ring (struct fe *fe, struct fe_queue *queue) {
  good_chain (queue);
  queue->next_avail = (uint16_t)(queue->next_avail + FE_QUEUE_SIZE);
}

static void
index_jumps_half_around (struct fe *fe, struct fe_queue *queue) {
  good_chain (queue);
  queue->next_avail = (uint16_t)(queue->next_avail + 0x8000);
}

static void
index_goes_back (struct fe *fe, struct fe_queue *queue) {
  good_chain (queue);
  queue->next_avail = (uint16_t)(queue->next_avail - 2);
}

static void
readable_after_writable (struct fe *fe, struct fe_queue *queue) {
  const struct fe_piece pieces[]
    = { { fe_request_gpa (0), 24, false }, { fe_response_gpa (0), PAGE, true }, { fe_request_gpa (0) + 24, 32, false } };

  fe_write_chain (queue, 0, pieces, 3);
}

/* ---- buffers ---- */

static void
address_0 (struct fe *fe, struct fe_queue *queue) {
  one (queue, 0, 56, FE_DESC_NEXT, 1);
}

static void
address_all_ones (struct fe *fe, struct fe_queue *queue) {
  one (queue, UINT64_MAX, 56, FE_DESC_NEXT, 1);
}

static void
address_plus_length_wraps (struct fe *fe, struct fe_queue *queue) {
  one (queue, UINT64_MAX - 15, 56, FE_DESC_NEXT, 1);
}

static void
address_in_no_region (struct fe *fe, struct fe_queue *queue) {
  one (queue, FE_RAM_GPA + FE_RAM_BYTES, 56, FE_DESC_NEXT, 1);
}

static void
length_reaches_behind_its_region (struct fe *fe, struct fe_queue *queue) {
  one (queue, FE_RAM_GPA + FE_RAM_BYTES - 55, 56, FE_DESC_NEXT, 1);
}

static void
length_of_4_GiB (struct fe *fe, struct fe_queue *queue) {
  one (queue, fe_request_gpa (0), UINT32_MAX, FE_DESC_NEXT, 1);
}

static void
length_0_at_a_wild_address (struct fe *fe, struct fe_queue *queue) {
  one (queue, 0xdead000000000000ull, 0, FE_DESC_NEXT, 1);
}

static void
answer_at_a_wild_address (struct fe *fe, struct fe_queue *queue) {
  good_chain (queue);
  queue->desc[1].addr = 0xdead000000000000ull;
}

static void
answer_of_4_GiB (struct fe *fe, struct fe_queue *queue) {
  good_chain (queue);
  queue->desc[1].len = UINT32_MAX;
}

/* ---- indirect tables ---- */

static void
indirect_not_negotiated (struct fe *fe, struct fe_queue *queue) {
  const struct fe_piece pieces[] = { { fe_request_gpa (0), 56, false }, { fe_response_gpa (0), PAGE, true } };

  fe_write_indirect (fe, queue, 0, pieces, 2, fe_scratch_gpa (0));
}

static void
indirect_in_indirect (struct fe *fe, struct fe_queue *queue) {
  struct fe_queue inner = { .desc = fe_at (fe, fe_scratch_gpa (1)) };
  const struct fe_piece pieces[] = { { fe_request_gpa (0), 56, false }, { fe_response_gpa (0), PAGE, true } };

  fe_write_indirect (fe, &inner, 0, pieces, 2, fe_scratch_gpa (0));
  one (queue, fe_scratch_gpa (1), 16, FE_DESC_INDIRECT, 0);
}

static void
indirect_to_itself (struct fe *fe, struct fe_queue *queue) {
  struct fe_desc *inner = fe_at (fe, fe_scratch_gpa (0));

  inner[0] = (struct fe_desc){ fe_scratch_gpa (0), 16, FE_DESC_INDIRECT, 0 };
  one (queue, fe_scratch_gpa (0), 16, FE_DESC_INDIRECT, 0);
}

static void
indirect_with_next (struct fe *fe, struct fe_queue *queue) {
  indirect_not_negotiated (fe, queue);
  queue->desc[0].flags |= FE_DESC_NEXT;
  queue->desc[0].next = 1;
}

static void
indirect_in_the_middle_of_a_chain (struct fe *fe, struct fe_queue *queue) {
  one (queue, fe_request_gpa (0), 24, FE_DESC_NEXT, 1);
  /* as the last one it would be good */
  queue->desc[1] = (struct fe_desc){ fe_scratch_gpa (0), 32, FE_DESC_INDIRECT | FE_DESC_NEXT, 2 };
}

static void
indirect_table_of_0_bytes (struct fe *fe, struct fe_queue *queue) {
  one (queue, fe_scratch_gpa (0), 0, FE_DESC_INDIRECT, 0);
}

static void
indirect_table_of_17_bytes (struct fe *fe, struct fe_queue *queue) {
  one (queue, fe_scratch_gpa (0), 17, FE_DESC_INDIRECT, 0);
}

static void
indirect_table_of_4_GiB (struct fe *fe, struct fe_queue *queue) {
  one (queue, fe_scratch_gpa (0), 0xfffffff0u, FE_DESC_INDIRECT, 0);
}

static void
indirect_table_reaches_behind_its_region (struct fe *fe, struct fe_queue *queue) {
  one (queue, FE_RAM_GPA + FE_RAM_BYTES - 16, 32, FE_DESC_INDIRECT, 0);
}

static void
indirect_table_misaligned (struct fe *fe, struct fe_queue *queue) {
  one (queue, fe_scratch_gpa (0) + 1, 32, FE_DESC_INDIRECT, 0);
}

static void
indirect_next_out_of_range (struct fe *fe, struct fe_queue *queue) {
  indirect_not_negotiated (fe, queue);
  ((struct fe_desc *)fe_at (fe, fe_scratch_gpa (0)))[0].next = 2;
}

static void
indirect_chain_loops (struct fe *fe, struct fe_queue *queue) {
  indirect_not_negotiated (fe, queue);
  ((struct fe_desc *)fe_at (fe, fe_scratch_gpa (0)))[0].next = 0;
}

static void
too_many_pieces (struct fe *fe, struct fe_queue *queue) {
  struct fe_piece pieces[1000];

  for (size_t i = 0; i < G_N_ELEMENTS (pieces); i++)
    pieces[i] = (struct fe_piece){ fe_request_gpa (0), 1, false };
  fe_write_indirect (fe, queue, 0, pieces, G_N_ELEMENTS (pieces), fe_scratch_gpa (0));
}

/* ---- room for the answer ---- */

static void
no_room_for_an_answer (struct fe *fe, struct fe_queue *queue) {
  one (queue, fe_request_gpa (0), 56, 0, 0);
}

static void
room_for_47_bytes (struct fe *fe, struct fe_queue *queue) {
  good_chain (queue);
  queue->desc[1].len = 47;
}

static const struct attack attacks[] = {
  { "chain-loops-onto-itself", loops_onto_itself, "loops" },
  { "chain-loops-over-two-descriptors", loops_over_two, "loops" },
  { "chain-loops-in-its-writable-part", loops_in_its_writable_part, "loops" },
  { "descriptor-next-out-of-range", next_out_of_range, "out of range" },
  { "descriptor-next-all-ones", next_all_ones, "out of range" },
  { "ring-entry-out-of-range", good_request, "ring entry out of range", .head = FE_QUEUE_SIZE },
  { "ring-entry-all-ones", good_request, "ring entry out of range", .head = UINT16_MAX },
  { "ring-index-jumps-by-more-than-the-ring", index_jumps_by_more_than_the_ring, "index moved" },
  { "ring-index-jumps-half-around", index_jumps_half_around, "index moved" },
  { "ring-index-goes-back", index_goes_back, "index moved" },
  { "readable-after-writable", readable_after_writable, "readable" },
  { "address-0", address_0, "outside" },
  { "address-all-ones", address_all_ones, "outside" },
  { "address-plus-length-wraps", address_plus_length_wraps, "outside" },
  { "address-in-no-region", address_in_no_region, "outside" },
  { "length-reaches-behind-its-region", length_reaches_behind_its_region, "outside" },
  { "length-of-4-GiB", length_of_4_GiB, "outside" },
  { "length-0-at-a-wild-address", length_0_at_a_wild_address, "empty" },
  { "answer-at-a-wild-address", answer_at_a_wild_address, "outside" },
  { "answer-of-4-GiB", answer_of_4_GiB, "outside" },
  { "indirect-not-negotiated", indirect_not_negotiated, "not negotiated", .without_indirect = true },
  { "indirect-in-indirect", indirect_in_indirect, "indirect" },
  { "indirect-to-itself", indirect_to_itself, "indirect" },
  { "indirect-with-next", indirect_with_next, "indirect" },
  { "indirect-in-the-middle-of-a-chain", indirect_in_the_middle_of_a_chain, "indirect" },
  { "indirect-table-of-0-bytes", indirect_table_of_0_bytes, "bad size" },
  { "indirect-table-of-17-bytes", indirect_table_of_17_bytes, "bad size" },
  { "indirect-table-of-4-GiB", indirect_table_of_4_GiB, "bad size" },
  { "indirect-table-reaches-behind-its-region", indirect_table_reaches_behind_its_region, "outside" },
  { "indirect-table-misaligned", indirect_table_misaligned, "misaligned" },
  { "indirect-next-out-of-range", indirect_next_out_of_range, "out of range" },
  { "indirect-chain-loops", indirect_chain_loops, "loops" },
  { "too-many-pieces", too_many_pieces, "bad size" },
  { "no-room-for-an-answer", no_room_for_an_answer, "room" },
  { "room-for-47-bytes-of-answer", room_for_47_bytes, "room" },
};

static struct fe *
open_for (struct rig *rig, bool without_indirect) {
  struct fe *fe = fe_new ();

  if (without_indirect)
    fe->features_mask = ~FE_F_INDIRECT;
  fe_must (fe, fe_open (fe, rig->backend->socket_path));
  return fe;
}

/* QEMU's way after a driver was unloaded or the guest reset: a clean start makes the queue whole again. */
static void
queue_can_be_set_up_anew (struct fe *fe) {
  struct fe_queue *queue = &fe->queues[REQUEST];
  struct fe_answer answer;

  fe_must (fe, fe_drop_window (fe));
  fe_must (fe, fe_stop_queue (fe, REQUEST));
  memset (fe_at (fe, queue->desc_gpa), 0, 0xc000);
  queue->next_avail = queue->next_used = 0;
  fe_must (fe, fe_start_queue (fe, REQUEST));
  fe_must (fe, fe_hello (fe, 64, &answer));
  g_assert_cmpuint (answer.status, ==, DOMYBS_OK);
}

static void
breaks_the_queue (struct rig *rig, const void *data) {
  const struct attack *attack = data;
  g_autoptr (fe_t) fe = open_for (rig, attack->without_indirect);
  struct fe_queue *queue = &fe->queues[REQUEST];
  struct domybs_response *response = fe_at (fe, fe_response_gpa (0));
  uint64_t value;

  fe_encode_grant (fe, fe_at (fe, fe_request_gpa (0)), 0, 1, DOMYBS_HINT_ANY, 0, 0, 0);
  memset (response, 0xee, sizeof *response);
  rig_mark (rig);
  attack->write (fe, queue);
  fe_publish (queue, attack->head);
  fe_kick (queue);
  rig_expect_logged (rig, attack->reason);
  fe_must (fe, fe_get_u64 (fe, FE_GET_FEATURES, &value)); /* a guest's fault does not end the connection */
  g_assert_cmpuint (response->status, ==, 0xeeee);

  /* Broken is broken: a good request behind it is not taken either. */
  uint32_t head, len;
  good_chain (queue);
  fe_publish (queue, 0);
  fe_kick (queue);
  fe_must (fe, fe_get_u64 (fe, FE_GET_FEATURES, &value));
  g_usleep (5000);
  if (fe_poll_used (queue, &head, &len))
    g_assert_cmpuint (len, ==, 0); /* at most the bad chain itself, given back with nothing in it */
  g_assert_cmpuint (response->status, ==, 0xeeee);
  g_assert_cmpint (backend_status (rig->backend, "granted-blocks"), ==, 0);
  queue_can_be_set_up_anew (fe);
}

static void
event_queue_is_broken_the_request_queue_is_not (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open (rig);
  struct fe_queue *events = &fe->queues[DOMYBS_VQ_EVENT];
  struct fe_answer answer;

  events->desc[0] = (struct fe_desc){ fe_scratch_gpa (0), 32, FE_DESC_WRITE | FE_DESC_NEXT, 0 };
  fe_publish (events, 0);
  fe_kick (events);
  g_autoptr (JsonNode) done = backend_control (rig->backend, "{\"execute\":\"set-target\",\"arguments\":{\"blocks\":10}}");
  rig_expect_logged (rig, "loops");
  fe_must (fe, fe_grant (fe, 1, DOMYBS_HINT_ANY, 0, 0, 0, &answer));
  g_assert_cmpuint (answer.status, ==, DOMYBS_OK);
  g_autoptr (JsonNode) undone = backend_control (rig->backend, "{\"execute\":\"set-target\",\"arguments\":{\"blocks\":null}}");
}

static void
event_buffer_too_small (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open (rig);
  struct fe_queue *events = &fe->queues[DOMYBS_VQ_EVENT];
  const struct fe_piece small = { fe_scratch_gpa (0), sizeof (struct domybs_event) - 1, true };
  const struct fe_piece readable = { fe_scratch_gpa (0), sizeof (struct domybs_event), false };

  memset (fe_at (fe, fe_scratch_gpa (0)), 0xee, 64);
  fe_write_chain (events, 0, data ? &readable : &small, 1);
  fe_publish (events, 0);
  fe_kick (events);
  g_autoptr (JsonNode) done = backend_control (rig->backend, "{\"execute\":\"reclaim\",\"arguments\":{\"blocks\":1,\"deadline-ms\":10}}");
  rig_expect_logged (rig, "room");
  for (int i = 0; i < 64; i++)
    g_assert_cmpuint (((uint8_t *)fe_at (fe, fe_scratch_gpa (0)))[i], ==, 0xee);
}

/* ---- ring addresses ---- */

struct bad_ring {
  const char *name;
  uint64_t desc, avail, used; /* 0: the good one; else added to RAM's own user address, or as it is when `absolute` */
  bool absolute;
};

static const struct bad_ring bad_rings[] = {
  { "descriptors-at-a-wild-address", .desc = 0x100000, .absolute = true },
  { "available-at-a-wild-address", .avail = 0x100000, .absolute = true },
  { "used-at-a-wild-address", .used = 0x100000, .absolute = true },
  { "descriptors-wrap", .desc = UINT64_MAX - 15, .absolute = true },
  { "used-wraps", .used = UINT64_MAX - 3, .absolute = true },
  { "descriptors-reach-behind-memory", .desc = FE_RAM_BYTES - FE_QUEUE_SIZE * 16 + 16 },
  { "available-reaches-behind-memory", .avail = FE_RAM_BYTES - (4 + FE_QUEUE_SIZE * 2 + 2) + 2 },
  { "used-reaches-behind-memory", .used = FE_RAM_BYTES - (4 + FE_QUEUE_SIZE * 8 + 2) + 4 },
  { "descriptors-misaligned", .desc = 0x10008 },
  { "available-misaligned", .avail = 0x14001 },
  { "used-misaligned", .used = 0x18002 },
};

static void
bad_ring_address (struct rig *rig, const void *data) {
  const struct bad_ring *bad = data;
  g_autoptr (fe_t) fe = rig_open_to (rig, FE_STEP_VRING_BASE);
  const uint64_t base = bad->absolute ? 0 : (uint64_t)(uintptr_t)fe->ram;
  const struct {
    uint32_t index, flags;
    uint64_t desc, used, avail, log;
  } addr = {
    0,
    0,
    bad->desc ? base + bad->desc : (uintptr_t)fe->queues[0].desc,
    bad->used ? base + bad->used : (uintptr_t)fe->queues[0].used,
    bad->avail ? base + bad->avail : (uintptr_t)fe->queues[0].avail,
    0,
  };

  rig_mark (rig);
  fe_must (fe, fe_send (fe, FE_SET_VRING_ADDR, 0, &addr, sizeof addr, NULL, 0));
  /* It may be closed, or the queue broken, from either of these on. */
  fe_queue_send_kick (fe, &fe->queues[0]);
  fe_set_state (fe, FE_SET_VRING_ENABLE, 0, 1);
  fe_kick (&fe->queues[0]);
  rig_expect_logged (rig, "ring");
}

static void
rings_lie_on_each_other (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open_to (rig, FE_STEP_MEM_TABLE);
  struct fe_queue *queue = &fe->queues[0];

  queue->avail_gpa = queue->used_gpa = queue->desc_gpa;
  fe_queue_locate (fe, queue);
  for (enum fe_step step = FE_STEP_VRING_NUM; step <= FE_STEP_ENABLE; step++)
    fe_must (fe, fe_step (fe, step, NULL));
  for (int i = 0; i < 1000; i++) {
    queue->avail[1] = (uint16_t)(i * 7);
    fe_kick (queue);
  }
  g_usleep (20000);
}

/* ---- odd, but right ---- */

static void
header_split_over_descriptors (struct rig *rig, const void *data) {
  const bool indirect = data != NULL;
  g_autoptr (fe_t) fe = rig_open (rig);
  struct fe_queue *queue = &fe->queues[REQUEST];
  struct fe_piece pieces[60];
  struct fe_answer answer;
  uint32_t head, len;
  unsigned n = 0;

  /* the 56 bytes of a GRANT, most of them one to a descriptor, in places that do not adjoin */
  const size_t bytes = fe_encode_grant (fe, fe_at (fe, fe_request_gpa (0)), 0, 3, DOMYBS_HINT_ANY, DOMYBS_GRANT_F_ALL, 0, 0);
  for (unsigned at = 0; at < bytes;) {
    const unsigned piece = n < 50 ? 1 : (unsigned)bytes - at;

    memcpy (fe_at (fe, fe_scratch_gpa (1) + n * 64), fe_at (fe, fe_request_gpa (0) + at), piece);
    pieces[n] = (struct fe_piece){ fe_scratch_gpa (1) + n * 64, piece, false };
    at += piece;
    n++;
  }
  /* and the answer's first bytes one by one */
  for (unsigned i = 0; i < 8; i++)
    pieces[n++] = (struct fe_piece){ fe_response_gpa (0) + i, 1, true };
  pieces[n++] = (struct fe_piece){ fe_response_gpa (0) + 8, PAGE - 8, true };
  if (indirect)
    fe_write_indirect (fe, queue, 0, pieces, n, fe_scratch_gpa (0));
  else
    fe_write_chain (queue, 0, pieces, n);
  fe_publish (queue, 0);
  fe_kick (queue);
  fe_must (fe, fe_wait_used (fe, queue, &head, &len, fe_patience_ms ()));
  fe_must (fe, fe_read_answer (fe, fe_response_gpa (0), len, &answer));
  g_assert_cmpuint (answer.status, ==, DOMYBS_OK);
  g_assert_cmpuint (answer.blocks, ==, 3);
}

/* Every length below a header, and between a header and its body: answered as a bad request. */
static void
chain_shorter_than_its_header (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open (rig);
  struct fe_answer answer;
  uint8_t request[PAGE];

  for (size_t n = 1; n < 24 + 32; n++) {
    fe_encode_grant (fe, request, 1, 1, DOMYBS_HINT_ANY, 0, 0, 0);
    fe_must (fe, fe_call (fe, request, n, &answer));
    g_assert_cmpuint (answer.status, ==, DOMYBS_BAD_REQUEST);
    g_assert_cmpuint (answer.granted, ==, 0);
  }
}

static void
chain_without_a_readable_part (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open (rig);
  struct fe_queue *queue = &fe->queues[REQUEST];
  const struct fe_piece piece = { fe_response_gpa (0), PAGE, true };
  struct fe_answer answer;
  uint32_t head, len;

  fe_write_chain (queue, 0, &piece, 1);
  fe_publish (queue, 0);
  fe_kick (queue);
  fe_must (fe, fe_wait_used (fe, queue, &head, &len, fe_patience_ms ()));
  fe_must (fe, fe_read_answer (fe, fe_response_gpa (0), len, &answer));
  g_assert_cmpuint (answer.status, ==, DOMYBS_BAD_REQUEST);
}

static void
request_of_a_gigabyte (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open (rig);
  struct fe_queue *queue = &fe->queues[REQUEST];
  struct fe_piece pieces[FE_QUEUE_SIZE];
  struct fe_answer answer;
  uint32_t head, len;

  /* each descriptor is good: together they are far more than any request */
  for (unsigned i = 0; i < FE_QUEUE_SIZE - 1; i++)
    pieces[i] = (struct fe_piece){ FE_RAM_GPA, FE_RAM_BYTES, false };
  pieces[FE_QUEUE_SIZE - 1] = (struct fe_piece){ fe_response_gpa (0), PAGE, true };
  fe_write_chain (queue, 0, pieces, FE_QUEUE_SIZE);
  fe_publish (queue, 0);
  fe_kick (queue);
  fe_must (fe, fe_wait_used (fe, queue, &head, &len, fe_patience_ms ()));
  fe_must (fe, fe_read_answer (fe, fe_response_gpa (0), len, &answer));
  g_assert_cmpuint (answer.status, ==, DOMYBS_BAD_REQUEST);
}

static void
one_chain_offered_many_times (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open (rig);
  struct fe_queue *queue = &fe->queues[REQUEST];
  uint32_t head, len;

  fe_encode_grant (fe, fe_at (fe, fe_request_gpa (0)), 0, 2, DOMYBS_HINT_ANY, DOMYBS_GRANT_F_ALL, 0, 0);
  good_chain (queue);
  for (int i = 0; i < 64; i++)
    fe_publish (queue, 0);
  fe_kick (queue);
  for (int i = 0; i < 64; i++)
    fe_must (fe, fe_wait_used (fe, queue, &head, &len, fe_patience_ms ()));
  g_assert_cmpint (backend_status (rig->backend, "granted-blocks"), ==, 2); /* the first counts, the rest are repetitions */
}

int
main (int argc, char **argv) {
  g_test_init (&argc, &argv, NULL);
  for (size_t i = 0; i < G_N_ELEMENTS (attacks); i++) {
    g_autofree char *path = g_strdup_printf ("/rings/%s", attacks[i].name);

    rig_add (path, breaks_the_queue, &attacks[i]);
  }
  rig_add ("/rings/event-queue-is-broken-the-request-queue-is-not", event_queue_is_broken_the_request_queue_is_not, NULL);
  rig_add ("/rings/event-buffer-too-small", event_buffer_too_small, NULL);
  rig_add ("/rings/event-buffer-not-writable", event_buffer_too_small, "readable");
  for (size_t i = 0; i < G_N_ELEMENTS (bad_rings); i++) {
    g_autofree char *path = g_strdup_printf ("/rings/address/%s", bad_rings[i].name);

    rig_add (path, bad_ring_address, &bad_rings[i]);
  }
  rig_add ("/rings/rings-lie-on-each-other", rings_lie_on_each_other, NULL);
  rig_add ("/rings/header-split-over-descriptors", header_split_over_descriptors, NULL);
  rig_add ("/rings/header-split-over-indirect-descriptors", header_split_over_descriptors, "indirect");
  rig_add ("/rings/chain-shorter-than-its-header", chain_shorter_than_its_header, NULL);
  rig_add ("/rings/chain-without-a-readable-part", chain_without_a_readable_part, NULL);
  rig_add ("/rings/request-of-a-gigabyte", request_of_a_gigabyte, NULL);
  rig_add ("/rings/one-chain-offered-many-times", one_chain_offered_many_times, NULL);
  return rig_run ();
}
