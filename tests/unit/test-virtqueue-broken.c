/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Every way in which a driver can break a virtqueue: it is refused with its exact reason, and the queue stays closed. */
#include "core/virtqueue.h"

#include "ring.h"
#include "testing.h"

#define OUTSIDE "buffer outside of the VM's RAM"
#define TABLE_OUTSIDE "indirect table misaligned or outside of the VM's RAM"

struct breakage {
  const char *name;
  const char *why;
  void (*make) (struct ring *ring);
};

static void
break_avail_index (struct ring *ring) {
  ring_put16 (ring, RING_AVAIL + 2, (uint16_t)(ring->avail + 9));
}

static void
break_avail_index_backwards (struct ring *ring) {
  ring_put16 (ring, RING_AVAIL + 2, (uint16_t)(ring->avail - 1));
}

static void
break_head (struct ring *ring) {
  ring_offer (ring, 8);
}

static void
break_head_far (struct ring *ring) {
  ring_offer (ring, 0xffff);
}

static void
break_next (struct ring *ring) {
  ring_desc (ring, 0, 0, 1, NEXT, 8);
  ring_offer (ring, 0);
}

static void
break_self_loop (struct ring *ring) {
  ring_desc (ring, 0, 0, 1, NEXT, 0);
  ring_offer (ring, 0);
}

static void
break_long_loop (struct ring *ring) {
  for (uint16_t i = 0; i < 8; i++)
    ring_desc (ring, i, i, 1, NEXT, (uint16_t)((i + 1) % 8));
  ring_offer (ring, 3);
}

static void
break_empty (struct ring *ring) {
  ring_desc (ring, 0, 0, 1, NEXT, 1);
  ring_desc (ring, 1, 0, 0, WRITE, 0);
  ring_offer (ring, 0);
}

static void
break_order (struct ring *ring) {
  ring_desc (ring, 0, 0, 1, NEXT | WRITE, 1);
  ring_desc (ring, 1, 8, 1, 0, 0);
  ring_offer (ring, 0);
}

static void
break_outside (struct ring *ring) {
  ring_desc (ring, 0, RING_BYTES - RING_DATA - 1, 2, 0, 0);
  ring_offer (ring, 0);
}

static void
break_outside_wrap (struct ring *ring) {
  ring_desc_at (ring, RING_DESC, 0, UINT64_MAX, 2, 0, 0);
  ring_offer (ring, 0);
}

static void
break_outside_huge (struct ring *ring) {
  ring_desc (ring, 0, 0, UINT32_MAX, WRITE, 0);
  ring_offer (ring, 0);
}

static void
break_indirect_unnegotiated (struct ring *ring) {
  ring->vq.indirect = false;
  ring_indirect_table (ring);
  ring_desc_at (ring, RING_DESC, 0, RING_GUEST_BASE + RING_INDIRECT, 48, INDIRECT, 0);
  ring_offer (ring, 0);
}

static void
break_indirect_next (struct ring *ring) {
  ring_indirect_table (ring);
  ring_desc_at (ring, RING_DESC, 0, RING_GUEST_BASE + RING_INDIRECT, 48, INDIRECT | NEXT, 1);
  ring_offer (ring, 0);
}

static void
break_indirect_in_indirect (struct ring *ring) {
  ring_desc_at (ring, RING_INDIRECT, 0, RING_GUEST_BASE + RING_INDIRECT, 16, INDIRECT, 0);
  ring_desc_at (ring, RING_DESC, 0, RING_GUEST_BASE + RING_INDIRECT, 16, INDIRECT, 0);
  ring_offer (ring, 0);
}

static void
offer_table_of (struct ring *ring, uint64_t addr, uint32_t bytes) {
  ring_desc_at (ring, RING_DESC, 0, addr, bytes, INDIRECT, 0);
  ring_offer (ring, 0);
}

static void
break_table_empty (struct ring *ring) {
  offer_table_of (ring, RING_GUEST_BASE + RING_INDIRECT, 0);
}

static void
break_table_odd (struct ring *ring) {
  ring_indirect_table (ring);
  offer_table_of (ring, RING_GUEST_BASE + RING_INDIRECT, 47);
}

static void
break_table_huge (struct ring *ring) {
  offer_table_of (ring, RING_GUEST_BASE + RING_INDIRECT, 16 * (VIRTQUEUE_PIECES_MAX + 1));
}

static void
break_table_outside (struct ring *ring) {
  offer_table_of (ring, RING_GUEST_BASE + RING_BYTES - 16, 32);
}

static void
break_table_misaligned (struct ring *ring) {
  offer_table_of (ring, RING_GUEST_BASE + RING_INDIRECT + 4, 16);
}

static void
break_table_next (struct ring *ring) {
  ring_indirect_table (ring);
  ring_desc_at (ring, RING_INDIRECT, 0, RING_GUEST_BASE + RING_DATA, 1, NEXT, 3);
  offer_table_of (ring, RING_GUEST_BASE + RING_INDIRECT, 48);
}

static void
break_table_loop (struct ring *ring) {
  ring_desc_at (ring, RING_INDIRECT, 0, RING_GUEST_BASE + RING_DATA, 1, NEXT, 1);
  ring_desc_at (ring, RING_INDIRECT, 1, RING_GUEST_BASE + RING_DATA, 1, NEXT, 0);
  offer_table_of (ring, RING_GUEST_BASE + RING_INDIRECT, 32);
}

static void
break_table_order (struct ring *ring) {
  /* writable in the queue's own table, readable in the other: the rule holds over both */
  ring_indirect_table (ring);
  ring_desc (ring, 0, 0, 1, NEXT | WRITE, 1);
  ring_desc_at (ring, RING_DESC, 1, RING_GUEST_BASE + RING_INDIRECT, 48, INDIRECT, 0);
  ring_offer (ring, 0);
}

static const struct breakage breakages[] = {
  { "the available index jumps", "available index moved by more than the queue's size", break_avail_index },
  { "the available index goes backwards", "available index moved by more than the queue's size", break_avail_index_backwards },
  { "a head just out of range", "available ring entry out of range", break_head },
  { "a head far out of range", "available ring entry out of range", break_head_far },
  { "a next descriptor out of range", "descriptor index out of range", break_next },
  { "a descriptor that is its own next", "chain loops", break_self_loop },
  { "a chain that loops", "chain loops", break_long_loop },
  { "an empty descriptor", "empty descriptor", break_empty },
  { "readable after writable", "readable descriptor after a writable one", break_order },
  { "a buffer that ends outside of memory", OUTSIDE, break_outside },
  { "a buffer that wraps around", OUTSIDE, break_outside_wrap },
  { "a buffer of 4 GiB", OUTSIDE, break_outside_huge },
  { "an indirect table without the feature", "indirect descriptor, but that feature was not negotiated", break_indirect_unnegotiated },
  { "an indirect table with a next descriptor", "indirect descriptor with a next one", break_indirect_next },
  { "an indirect table in an indirect table", "indirect table within an indirect table", break_indirect_in_indirect },
  { "an empty indirect table", "indirect table of bad size", break_table_empty },
  { "an indirect table of odd size", "indirect table of bad size", break_table_odd },
  { "a huge indirect table", "indirect table of bad size", break_table_huge },
  { "an indirect table outside of memory", TABLE_OUTSIDE, break_table_outside },
  { "a misaligned indirect table", TABLE_OUTSIDE, break_table_misaligned },
  { "an index out of an indirect table", "descriptor index out of range", break_table_next },
  { "an indirect table that loops", "chain loops", break_table_loop },
  { "readable in a table after writable outside", "readable descriptor after a writable one", break_table_order },
};

static void
test_breakage (gconstpointer data) {
  const struct breakage *breakage = data;
  struct ring ring;
  const char *why = NULL;

  ring_init (&ring, 8, 0xfffc);
  ring.vq.indirect = true;
  breakage->make (&ring);
  g_assert_cmpint (ring_pop (&ring), ==, VIRTQUEUE_POP_BROKEN);
  g_assert_cmpstr (ring.vq.broken_why, ==, breakage->why);
  g_assert_cmpint (ring.vq.state, ==, VIRTQUEUE_BROKEN);
  g_assert_cmpuint (ring.vq.next_avail, ==, 0xfffc);

  /* It stays broken, whatever comes, and nothing is written to it … */
  ring_desc (&ring, 0, 0, 1, 0, 0);
  ring_put16 (&ring, RING_AVAIL + 2, 0xfffd);
  ring_put16 (&ring, RING_AVAIL + 4 + 2 * 4, 0);
  g_assert_cmpint (ring_pop (&ring), ==, VIRTQUEUE_POP_BROKEN);
  virtqueue_push (&ring.vq, 0, 1);
  g_assert_cmpuint (ring_get16 (&ring, RING_USED + 2), ==, 0xfffc);
  g_assert_false (virtqueue_should_signal (&ring.vq));
  g_assert_false (virtqueue_enable_kicks (&ring.vq, true));
  /* … until it is set up anew. */
  g_assert_true (virtqueue_resolve (&ring.vq, &ring.memory, &why));
  g_assert_cmpint (ring_pop (&ring), ==, VIRTQUEUE_POP_CHAIN);
  ring_clear (&ring);
}

static void
test_buffer_in_the_window (void) {
  for (unsigned as_table = 0; as_table < 2; as_table++) {
    struct ring ring;

    ring_init (&ring, 8, 0);
    ring.vq.indirect = true;
    /* the data area again, as the window */
    ring.memory.n_regions = 2;
    ring.memory.regions[1] = (struct guest_region){
      .guest_addr = 1ull << 40, .bytes = 0x1000, .user_addr = 1ull << 41, .host = ring.bytes + RING_DATA, .own = true
    };
    ring_desc_at (&ring, RING_DESC, 0, 1ull << 40, 16, as_table ? INDIRECT : WRITE, 0);
    ring_offer (&ring, 0);
    g_assert_cmpint (ring_pop (&ring), ==, VIRTQUEUE_POP_BROKEN);
    g_assert_cmpstr (ring.vq.broken_why, ==, as_table ? TABLE_OUTSIDE : OUTSIDE);
    ring_clear (&ring);
  }
}

static void
test_pieces_max (void) {
  for (uint16_t n = VIRTQUEUE_PIECES_MAX - 1; n <= VIRTQUEUE_PIECES_MAX + 1; n++) {
    struct ring ring;

    ring_init (&ring, 1024, 0);
    for (uint16_t i = 0; i < n; i++)
      ring_desc (&ring, i, i, 1, i + 1 < n ? NEXT : 0, (uint16_t)(i + 1));
    ring_offer (&ring, 0);
    if (n <= VIRTQUEUE_PIECES_MAX) {
      g_assert_cmpint (ring_pop (&ring), ==, VIRTQUEUE_POP_CHAIN);
      g_assert_cmpuint (ring.chain.n_out, ==, n);
    } else {
      g_assert_cmpint (ring_pop (&ring), ==, VIRTQUEUE_POP_BROKEN);
      g_assert_cmpstr (ring.vq.broken_why, ==, "chain has too many pieces");
    }
    ring_clear (&ring);
  }
}

static void
test_pieces_max_over_both_tables (void) {
  struct ring ring;

  /* each table is short enough, together they are not */
  ring_init (&ring, 1024, 0);
  ring.vq.indirect = true;
  for (uint16_t i = 0; i < 200; i++) {
    ring_desc (&ring, i, i, 1, NEXT, (uint16_t)(i + 1));
    ring_desc_at (&ring, RING_INDIRECT, i, RING_GUEST_BASE + RING_DATA + i, 1, i < 199 ? NEXT : 0, (uint16_t)(i + 1));
  }
  ring_desc_at (&ring, RING_DESC, 200, RING_GUEST_BASE + RING_INDIRECT, 200 * 16, INDIRECT, 0);
  ring_offer (&ring, 0);
  g_assert_cmpint (ring_pop (&ring), ==, VIRTQUEUE_POP_BROKEN);
  g_assert_cmpstr (ring.vq.broken_why, ==, "chain has too many pieces");
  ring_clear (&ring);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  for (size_t i = 0; i < G_N_ELEMENTS (breakages); i++) {
    g_autofree char *path = g_strdup_printf ("/virtqueue/broken by/%s", breakages[i].name);
    g_test_add_data_func (path, &breakages[i], test_breakage);
  }
  g_test_add_func ("/virtqueue/broken by/a buffer or table in the device's own window", test_buffer_in_the_window);
  g_test_add_func ("/virtqueue/broken by/more than 260 pieces", test_pieces_max);
  g_test_add_func ("/virtqueue/broken by/more than 260 pieces in two tables together", test_pieces_max_over_both_tables);
  return g_test_run ();
}
