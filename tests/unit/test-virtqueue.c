/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Split virtqueues, against a driver that does whatever it likes. */
#include "core/virtqueue.h"

#include "ring.h"
#include "testing.h"

static void
test_sizes (void) {
  struct virtqueue vq = { 0 };

  for (uint32_t num = 0; num <= 2 * VIRTQUEUE_SIZE_MAX; num++)
    g_assert_cmpint (virtqueue_set_num (&vq, num), ==, num && num <= 1024 && (num & (num - 1)) == 0);
  g_assert_cmpuint (vq.num, ==, 1024);
  g_assert_false (virtqueue_set_num (&vq, 0x80000000));
  g_assert_false (virtqueue_set_num (&vq, 0x10000));
  g_assert_cmpuint (vq.num, ==, 1024);
}

static void
test_resolve_bounds (void) {
  static const char misaligned[] = "misaligned ring";
  static const char outside[] = "ring outside of the VM's RAM";
  /* with 8 entries: descriptors 128, available 22, used 70 bytes */
  static const struct {
    uint32_t desc, avail, used;
    const char *why;
  } cases[] = {
    { 0, 0x1000, 0x2000, NULL },
    { 8, 0x1000, 0x2000, misaligned },
    { 0, 0x1001, 0x2000, misaligned },
    { 0, 0x1000, 0x2002, misaligned },
    { RING_BYTES - 128, 0x1000, 0x2000, NULL },
    { RING_BYTES - 112, 0x1000, 0x2000, outside },
    { 0, RING_BYTES - 22, 0x2000, NULL },
    { 0, RING_BYTES - 20, 0x2000, outside },
    { 0, 0x1000, RING_BYTES - 72, NULL },
    { 0, 0x1000, RING_BYTES - 68, outside },
    { RING_BYTES, 0x1000, 0x2000, outside },
  };
  struct ring ring;

  ring_init (&ring, 8, 0);
  for (size_t i = 0; i < G_N_ELEMENTS (cases); i++) {
    const char *why = NULL;
    bool good;

    ring.vq.addr = (struct vhu_vring_addr){
      .desc = RING_USER_BASE + cases[i].desc, .avail = RING_USER_BASE + cases[i].avail, .used = RING_USER_BASE + cases[i].used
    };
    g_test_message ("case %zu", i);
    good = virtqueue_resolve (&ring.vq, &ring.memory, &why);
    g_assert_cmpstr (why, ==, cases[i].why);
    g_assert_cmpint (good, ==, cases[i].why == NULL);
    g_assert_cmpint (ring.vq.state, ==, good ? VIRTQUEUE_READY : VIRTQUEUE_BROKEN);
    if (!good)
      g_assert_cmpstr (ring.vq.broken_why, ==, why);
  }
  ring_clear (&ring);
}

static void
test_resolve_needs_size_and_address (void) {
  struct ring ring;
  const char *why = NULL;

  ring_init (&ring, 8, 0);
  ring.vq.have_addr = false;
  g_assert_false (virtqueue_resolve (&ring.vq, &ring.memory, &why));
  g_assert_cmpstr (why, ==, "size or address not set");
  ring.vq.have_addr = true;
  ring.vq.num = 0;
  g_assert_false (virtqueue_resolve (&ring.vq, &ring.memory, &why));
  g_assert_cmpstr (why, ==, "size or address not set");
  ring_clear (&ring);
}

static void
test_resolve_misaligned_region (void) {
  struct ring ring;
  const char *why = NULL;

  /* the front-end's addresses are aligned, the memory behind them is not */
  ring_init (&ring, 8, 0);
  ring.memory.regions[0].host++;
  ring.memory.regions[0].bytes--;
  g_assert_false (virtqueue_resolve (&ring.vq, &ring.memory, &why));
  g_assert_cmpstr (why, ==, "misaligned memory region");
  ring_clear (&ring);
}

static void
test_resolve_in_the_window (void) {
  struct ring ring;
  const char *why = NULL;

  ring_init (&ring, 8, 0);
  ring.memory.regions[0].own = true;
  g_assert_false (virtqueue_resolve (&ring.vq, &ring.memory, &why));
  g_assert_cmpstr (why, ==, "ring outside of the VM's RAM");
  g_assert_cmpint (ring_pop (&ring), ==, VIRTQUEUE_POP_BROKEN);
  ring.memory.regions[0].own = false;
  g_assert_true (virtqueue_resolve (&ring.vq, &ring.memory, &why));
  g_assert_cmpint (ring_pop (&ring), ==, VIRTQUEUE_POP_EMPTY);
  ring_clear (&ring);
}

static void
test_resolve_reads_used_index (void) {
  struct ring ring;

  ring_init (&ring, 8, 0xfffe);
  g_assert_cmpuint (ring.vq.next_used, ==, 0xfffe);
  ring_clear (&ring);
}

/* ---- a queue that another process has left ---- */

static void
test_restore (void) {
  static const struct {
    uint16_t next_used, in_ring;
    enum virtqueue_restored restored;
  } cases[] = {
    { 5, 5, VIRTQUEUE_RESTORED },           { 5, 4, VIRTQUEUE_RESTORED_OPEN },      { 0, 0xffff, VIRTQUEUE_RESTORED_OPEN },
    { 0xffff, 0, VIRTQUEUE_RESTORE_BROKEN }, { 5, 3, VIRTQUEUE_RESTORE_BROKEN },     { 5, 6, VIRTQUEUE_RESTORE_BROKEN },
    { 5, 0x8005, VIRTQUEUE_RESTORE_BROKEN },
  };

  for (size_t i = 0; i < G_N_ELEMENTS (cases); i++) {
    const char *why = NULL;
    struct ring ring;

    g_test_message ("case %zu", i);
    ring_init (&ring, 8, 77);
    ring_put16 (&ring, RING_USED + 2, cases[i].in_ring);
    g_assert_cmpint (virtqueue_restore (&ring.vq, &ring.memory, 79, cases[i].next_used, &why), ==, cases[i].restored);
    g_assert_cmpstr (why, ==, cases[i].restored == VIRTQUEUE_RESTORE_BROKEN ? "the used index is not ours" : NULL);
    if (why) {
      g_assert_cmpint (ring.vq.state, ==, VIRTQUEUE_BROKEN);
      g_assert_cmpstr (ring.vq.broken_why, ==, why);
    } else {
      g_assert_cmpint (ring.vq.state, ==, VIRTQUEUE_READY);
      g_assert_cmpuint (ring.vq.next_avail, ==, 79);
      if (cases[i].restored == VIRTQUEUE_RESTORED_OPEN)
        virtqueue_push (&ring.vq, 3, 9);
      g_assert_cmpuint (ring.vq.next_used, ==, cases[i].next_used);
      g_assert_cmpuint (ring_get16 (&ring, RING_USED + 2), ==, cases[i].next_used);
      g_assert_true (virtqueue_should_signal (&ring.vq)); /* whoever pushed it may not have come to that */
    }
    ring_clear (&ring);
  }
}

static void
test_restore_without_rings (void) {
  const char *why = NULL;
  struct ring ring;

  ring_init (&ring, 8, 0);
  ring.memory.n_regions = 0;
  g_assert_cmpint (virtqueue_restore (&ring.vq, &ring.memory, 0, 0, &why), ==, VIRTQUEUE_RESTORE_BROKEN);
  g_assert_cmpstr (why, ==, "ring outside of the VM's RAM");
  ring_clear (&ring);
}

static void
test_chain_at (void) {
  struct ring ring;

  ring_init (&ring, 8, 0);
  ring_desc (&ring, 5, 0, 10, NEXT, 2);
  ring_desc (&ring, 2, 100, 7, WRITE, 0);
  g_assert_cmpint (virtqueue_chain_at (&ring.vq, &ring.memory, 5, &ring.chain), ==, VIRTQUEUE_POP_CHAIN);
  g_assert_cmpuint (ring.chain.head, ==, 5);
  g_assert_cmpuint (ring.chain.out_bytes, ==, 10);
  g_assert_cmpuint (ring.chain.in_bytes, ==, 7);
  g_assert_cmpuint (ring.vq.next_avail, ==, 0); /* nothing was taken */
  virtqueue_unresolve (&ring.vq);
  g_assert_cmpint (virtqueue_chain_at (&ring.vq, &ring.memory, 5, &ring.chain), ==, VIRTQUEUE_POP_EMPTY);
  ring_clear (&ring);

  ring_init (&ring, 8, 0);
  g_assert_cmpint (virtqueue_chain_at (&ring.vq, &ring.memory, 8, &ring.chain), ==, VIRTQUEUE_POP_BROKEN);
  g_assert_cmpint (virtqueue_chain_at (&ring.vq, &ring.memory, 0, &ring.chain), ==, VIRTQUEUE_POP_BROKEN);
  ring_clear (&ring);

  ring_init (&ring, 8, 0);
  ring_desc (&ring, 0, 0, 10, NEXT, 0);
  g_assert_cmpint (virtqueue_chain_at (&ring.vq, &ring.memory, 0, &ring.chain), ==, VIRTQUEUE_POP_BROKEN);
  g_assert_cmpstr (ring.vq.broken_why, ==, "chain loops");
  ring_clear (&ring);
}

static void
test_empty_and_idle (void) {
  struct ring ring;

  ring_init (&ring, 8, 0);
  g_assert_cmpint (ring_pop (&ring), ==, VIRTQUEUE_POP_EMPTY);
  ring_desc (&ring, 0, 0, 1, 0, 0);
  ring_offer (&ring, 0);
  virtqueue_unresolve (&ring.vq);
  g_assert_cmpint (ring_pop (&ring), ==, VIRTQUEUE_POP_EMPTY);
  /* nobody waits for answers on a queue that was stopped */
  virtqueue_push (&ring.vq, 0, 0);
  g_assert_cmpuint (ring_get16 (&ring, RING_USED + 2), ==, 0);
  g_assert_false (virtqueue_should_signal (&ring.vq));
  g_assert_false (virtqueue_enable_kicks (&ring.vq, true));
  ring_clear (&ring);
}

static void
check_three_pieces (const struct ring *ring) {
  const struct virtqueue_chain *chain = &ring->chain;

  g_assert_cmpuint (chain->n_out, ==, 2);
  g_assert_cmpuint (chain->n_in, ==, 1);
  g_assert_cmpuint (chain->out_bytes, ==, 15);
  g_assert_cmpuint (chain->in_bytes, ==, 7);
  g_assert_true (chain->pieces[0].iov_base == ring->bytes + RING_DATA);
  g_assert_true (chain->pieces[1].iov_base == ring->bytes + RING_DATA + 100);
  g_assert_true (chain->pieces[2].iov_base == ring->bytes + RING_DATA + 200);
  g_assert_cmpuint (chain->pieces[0].iov_len, ==, 10);
  g_assert_cmpuint (chain->pieces[1].iov_len, ==, 5);
  g_assert_cmpuint (chain->pieces[2].iov_len, ==, 7);
}

static void
test_direct_chain (void) {
  struct ring ring;

  ring_init (&ring, 8, 0);
  ring_desc (&ring, 5, 0, 10, NEXT, 7);
  ring_desc (&ring, 7, 100, 5, NEXT, 0);
  ring_desc (&ring, 0, 200, 7, WRITE, 3 /* means nothing without NEXT */);
  ring_offer (&ring, 5);
  g_assert_cmpint (ring_pop (&ring), ==, VIRTQUEUE_POP_CHAIN);
  g_assert_cmpuint (ring.chain.head, ==, 5);
  check_three_pieces (&ring);
  g_assert_cmpint (ring_pop (&ring), ==, VIRTQUEUE_POP_EMPTY);
  ring_clear (&ring);
}

static void
test_indirect_chain (void) {
  struct ring ring;

  ring_init (&ring, 2, 0); /* a chain in a table may be longer than the queue */
  ring.vq.indirect = true;
  ring_indirect_table (&ring);
  for (unsigned write = 0; write < 2; write++) { /* the flag means nothing on a descriptor that refers to a table */
    ring_desc_at (&ring, RING_DESC, 1, RING_GUEST_BASE + RING_INDIRECT, 48, INDIRECT | (write ? WRITE : 0), 0);
    ring_offer (&ring, 1);
    g_assert_cmpint (ring_pop (&ring), ==, VIRTQUEUE_POP_CHAIN);
    g_assert_cmpuint (ring.chain.head, ==, 1);
    check_three_pieces (&ring);
  }
  ring_clear (&ring);
}

static void
test_indirect_after_direct (void) {
  struct ring ring;

  /* VIRTIO 1.2, 2.7.5.3.2: zero or more normal descriptors may come before the one that refers to a table */
  ring_init (&ring, 4, 0);
  ring.vq.indirect = true;
  ring_desc (&ring, 2, 0, 10, NEXT, 3);
  ring_desc_at (&ring, RING_DESC, 3, RING_GUEST_BASE + RING_INDIRECT, 32, INDIRECT, 0);
  ring_desc_at (&ring, RING_INDIRECT, 0, RING_GUEST_BASE + RING_DATA + 100, 5, NEXT, 1);
  ring_desc_at (&ring, RING_INDIRECT, 1, RING_GUEST_BASE + RING_DATA + 200, 7, WRITE, 0);
  ring_offer (&ring, 2);
  g_assert_cmpint (ring_pop (&ring), ==, VIRTQUEUE_POP_CHAIN);
  g_assert_cmpuint (ring.chain.head, ==, 2);
  check_three_pieces (&ring);
  ring_clear (&ring);
}

/* ---- order, wrap-around ---- */

static void
test_full_queue (void) {
  struct ring ring;

  ring_init (&ring, 8, 0xfffb);
  for (uint16_t i = 0; i < 8; i++) {
    ring_desc (&ring, i, i, 1, 0, 0);
    ring_offer (&ring, i);
  }
  for (uint16_t i = 0; i < 8; i++) {
    g_assert_cmpint (ring_pop (&ring), ==, VIRTQUEUE_POP_CHAIN);
    g_assert_cmpuint (ring.chain.head, ==, i);
  }
  g_assert_cmpint (ring_pop (&ring), ==, VIRTQUEUE_POP_EMPTY);
  ring_clear (&ring);
}

static void
test_indices_wrap (void) {
  for (uint32_t num = 1; num <= 64; num *= 4) {
    struct ring ring;
    uint16_t used = 65500;

    ring_init (&ring, num, used);
    for (unsigned round = 0; round < 70000; round++, used++) {
      const uint16_t head = (uint16_t)(round * 7 % num);

      ring_desc (&ring, head, head, 1 + round % 100, WRITE, 0);
      ring_offer (&ring, head);
      g_assert_cmpint (ring_pop (&ring), ==, VIRTQUEUE_POP_CHAIN);
      g_assert_cmpuint (ring.chain.head, ==, head);
      g_assert_cmpuint (ring.chain.in_bytes, ==, 1 + round % 100);
      g_assert_cmpint (ring_pop (&ring), ==, VIRTQUEUE_POP_EMPTY);
      virtqueue_push (&ring.vq, head, round);
      g_assert_cmpuint (ring_get16 (&ring, RING_USED + 2), ==, (uint16_t)(used + 1));
      g_assert_cmpuint (ring_get32 (&ring, RING_USED + 4 + 8 * (used % num)), ==, head);
      g_assert_cmpuint (ring_get32 (&ring, RING_USED + 8 + 8 * (used % num)), ==, round);
    }
    ring_clear (&ring);
  }
}

static void
test_unpop (void) {
  struct ring ring;

  ring_init (&ring, 8, 0xffff);
  for (uint16_t i = 0; i < 2; i++) {
    ring_desc (&ring, i, i, 1, 0, 0);
    ring_offer (&ring, i);
  }
  for (unsigned again = 0; again < 3; again++) {
    g_assert_cmpint (ring_pop (&ring), ==, VIRTQUEUE_POP_CHAIN);
    g_assert_cmpuint (ring.chain.head, ==, 0);
    virtqueue_unpop (&ring.vq);
    g_assert_cmpuint (ring.vq.next_avail, ==, 0xffff);
  }
  g_assert_cmpint (ring_pop (&ring), ==, VIRTQUEUE_POP_CHAIN);
  g_assert_cmpuint (ring.chain.head, ==, 0);
  g_assert_cmpint (ring_pop (&ring), ==, VIRTQUEUE_POP_CHAIN);
  g_assert_cmpuint (ring.chain.head, ==, 1);
  ring_clear (&ring);
}

/* ---- bytes of a chain ---- */

static void
test_read_and_write (void) {
  struct ring ring;
  uint8_t whole[15], got[20];
  const uint8_t answer[20] = "0123456789abcdefghi";

  ring_init (&ring, 8, 0);
  for (unsigned i = 0; i < 256; i++)
    ring.bytes[RING_DATA + i] = (uint8_t)i;
  memcpy (whole, ring.bytes + RING_DATA, 10);
  memcpy (whole + 10, ring.bytes + RING_DATA + 100, 5);
  ring_desc (&ring, 0, 0, 10, NEXT, 1);
  ring_desc (&ring, 1, 100, 5, NEXT, 2);
  ring_desc (&ring, 2, 200, 3, NEXT | WRITE, 3);
  ring_desc (&ring, 3, 210, 4, WRITE, 0);
  ring_offer (&ring, 0);
  g_assert_cmpint (ring_pop (&ring), ==, VIRTQUEUE_POP_CHAIN);

  for (size_t offset = 0; offset <= 17; offset++)
    for (size_t cap = 0; cap <= 17; cap++) {
      const size_t expected = offset >= 15 ? 0 : MIN (cap, 15 - offset);

      memset (got, 0xee, sizeof got);
      g_assert_cmpuint (virtqueue_chain_read (&ring.chain, offset, got, cap), ==, expected);
      g_assert_cmpmem (got, expected, whole + MIN (offset, 15), expected);
      g_assert_cmpuint (got[expected], ==, 0xee);
    }
  for (size_t bytes = 0; bytes <= 9; bytes++) {
    const size_t expected = MIN (bytes, 7);

    memset (ring.bytes + RING_DATA + 200, 0xee, 20);
    g_assert_cmpuint (virtqueue_chain_write (&ring.chain, answer, bytes), ==, expected);
    for (size_t i = 0; i < 20; i++) {
      const size_t at = i < 3 ? i : i >= 10 && i < 14 ? i - 7 : SIZE_MAX;

      g_assert_cmpuint (ring.bytes[RING_DATA + 200 + i], ==, at < expected ? answer[at] : 0xee);
    }
  }
  ring_clear (&ring);
}

/* ---- signals and kicks ---- */

static void
test_signal_by_flag (void) {
  struct ring ring;

  ring_init (&ring, 8, 0);
  virtqueue_push (&ring.vq, 0, 0);
  g_assert_true (virtqueue_should_signal (&ring.vq));
  ring_put16 (&ring, RING_AVAIL, 1); /* NO_INTERRUPT */
  virtqueue_push (&ring.vq, 0, 0);
  g_assert_false (virtqueue_should_signal (&ring.vq));
  ring_put16 (&ring, RING_AVAIL, 0);
  g_assert_true (virtqueue_should_signal (&ring.vq));
  ring_clear (&ring);
}

static void
test_signal_by_event_index (void) {
  g_autoptr (GRand) rand = testing_rand ();
  const unsigned steps = testing_steps (300000);
  struct ring ring;
  uint16_t before, now;
  bool first = true;
  unsigned signals = 0;

  /* VIRTIO 1.2, 2.7.10: a signal is due when one of the entries used since the last look is the one that the driver waits for */
  ring_init (&ring, 16, 65000);
  ring.vq.event_idx = true;
  before = now = 65000;
  for (unsigned step = 0; step < steps; step++) {
    const unsigned pushed = (unsigned)testing_below (rand, 17);
    const uint16_t event = (uint16_t)(testing_once_in (rand, 20) ? testing_below (rand, 65536) : now + testing_below (rand, 24) - 6);
    bool due = first && pushed; /* nothing is known of what was signalled before */

    ring_put16 (&ring, RING_AVAIL, (uint16_t)testing_below (rand, 2)); /* the flag means nothing with the event index */
    ring_put16 (&ring, RING_AVAIL + 4 + 2 * 16, event);
    for (unsigned i = 0; i < pushed; i++, now++) {
      virtqueue_push (&ring.vq, 0, 0);
      due = due || now == event;
    }
    testing_trace ("step %u: %u → %u, event %u, due %d", step, before, now, event, due);
    if (first && !pushed)
      continue; /* asking now may say yes or no: both are right */
    g_assert_cmpint (virtqueue_should_signal (&ring.vq), ==, due);
    g_assert_false (virtqueue_should_signal (&ring.vq)); /* once is enough */
    signals += due;
    first = false;
    before = now;
  }
  g_assert_cmpuint (signals, >, steps / 10);
  g_assert_cmpuint (signals, <, steps - steps / 10);
  ring_clear (&ring);
}

static void
test_signal_after_new_setup (void) {
  struct ring ring;
  const char *why;

  ring_init (&ring, 8, 100);
  ring.vq.event_idx = true;
  ring_put16 (&ring, RING_AVAIL + 4 + 2 * 8, 9999); /* the driver waits for something else */
  virtqueue_push (&ring.vq, 0, 0);
  g_assert_true (virtqueue_should_signal (&ring.vq));
  virtqueue_push (&ring.vq, 0, 0);
  g_assert_false (virtqueue_should_signal (&ring.vq));
  g_assert_true (virtqueue_resolve (&ring.vq, &ring.memory, &why));
  virtqueue_push (&ring.vq, 0, 0);
  g_assert_true (virtqueue_should_signal (&ring.vq));
  ring_clear (&ring);
}

static void
test_kicks (void) {
  struct ring ring;

  ring_init (&ring, 8, 0xffff);
  ring_desc (&ring, 0, 0, 1, 0, 0);
  g_assert_false (virtqueue_enable_kicks (&ring.vq, false));
  g_assert_cmpuint (ring_get16 (&ring, RING_USED), ==, 1); /* NO_NOTIFY */
  g_assert_false (virtqueue_enable_kicks (&ring.vq, true));
  g_assert_cmpuint (ring_get16 (&ring, RING_USED), ==, 0);
  ring_offer (&ring, 0);
  g_assert_true (virtqueue_enable_kicks (&ring.vq, true)); /* it came before the driver could know that it must kick */
  g_assert_false (virtqueue_enable_kicks (&ring.vq, false));
  g_assert_cmpint (ring_pop (&ring), ==, VIRTQUEUE_POP_CHAIN);
  g_assert_false (virtqueue_enable_kicks (&ring.vq, true));
  ring_clear (&ring);

  ring_init (&ring, 8, 0xffff);
  ring.vq.event_idx = true;
  ring_desc (&ring, 0, 0, 1, 0, 0);
  g_assert_false (virtqueue_enable_kicks (&ring.vq, true));
  g_assert_cmpuint (ring_get16 (&ring, RING_USED + 4 + 8 * 8), ==, 0xffff);
  ring_offer (&ring, 0);
  g_assert_cmpint (ring_pop (&ring), ==, VIRTQUEUE_POP_CHAIN);
  g_assert_false (virtqueue_enable_kicks (&ring.vq, false));
  g_assert_cmpuint (ring_get16 (&ring, RING_USED), ==, 0); /* the flag is not used then */
  g_assert_false (virtqueue_enable_kicks (&ring.vq, true));
  g_assert_cmpuint (ring_get16 (&ring, RING_USED + 4 + 8 * 8), ==, 0);
  ring_offer (&ring, 0);
  g_assert_true (virtqueue_enable_kicks (&ring.vq, true));
  ring_clear (&ring);
}

/* ---- a driver that changes descriptors while they are read ---- */

struct race {
  struct ring ring;
  gint stop;
};

static gpointer
flip_descriptors (gpointer data) {
  struct race *race = data;
  volatile uint64_t *desc = (volatile uint64_t *)(race->ring.bytes + RING_DESC);
  const uint64_t good_addr = RING_GUEST_BASE + RING_DATA, bad_addr = RING_GUEST_BASE + RING_BYTES - 8;
  const uint64_t good = 8, bad = 0x100000 | (uint64_t)NEXT << 32 | 0xffffull << 48, loop = 8 | (uint64_t)NEXT << 32;

  while (!g_atomic_int_get (&race->stop)) {
    desc[0] = good_addr;
    desc[1] = good;
    desc[0] = bad_addr;
    desc[1] = bad;
    desc[1] = loop;
  }
  return NULL;
}

static void
test_changing_descriptors (void) {
  struct race *race = g_new0 (struct race, 1);
  struct ring *ring = &race->ring;
  const unsigned steps = testing_steps (200000);
  GThread *thread;
  const char *why;

  ring_init (ring, 4, 0);
  thread = g_thread_new ("driver", flip_descriptors, race);
  for (unsigned step = 0; step < steps; step++) {
    ring_offer (ring, 0);
    if (ring_pop (ring) == VIRTQUEUE_POP_CHAIN) {
      for (unsigned i = 0; i < ring->chain.n_out + ring->chain.n_in; i++) {
        const uint8_t *base = ring->chain.pieces[i].iov_base;

        g_assert_true (base >= ring->bytes && ring->chain.pieces[i].iov_len <= (size_t)(ring->bytes + RING_BYTES - base));
      }
    } else {
      ring->vq.next_avail = ring->avail;
      g_assert_true (virtqueue_resolve (&ring->vq, &ring->memory, &why));
    }
  }
  g_atomic_int_set (&race->stop, 1);
  g_thread_join (thread);
  ring_clear (ring);
  g_free (race);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/virtqueue/set-up/a size is a power of two up to 1024", test_sizes);
  g_test_add_func ("/virtqueue/set-up/rings are aligned and wholly in memory", test_resolve_bounds);
  g_test_add_func ("/virtqueue/set-up/nothing goes without size and address", test_resolve_needs_size_and_address);
  g_test_add_func ("/virtqueue/set-up/a region mapped at an odd address is refused", test_resolve_misaligned_region);
  g_test_add_func ("/virtqueue/set-up/rings in the device's own window are refused", test_resolve_in_the_window);
  g_test_add_func ("/virtqueue/set-up/the used index is taken over from the ring", test_resolve_reads_used_index);
  g_test_add_func ("/virtqueue/restore/the used index tells whether the last push was done", test_restore);
  g_test_add_func ("/virtqueue/restore/rings outside of memory are refused", test_restore_without_rings);
  g_test_add_func ("/virtqueue/restore/a chain is found by its head", test_chain_at);
  g_test_add_func ("/virtqueue/an empty or stopped queue gives nothing and takes nothing", test_empty_and_idle);
  g_test_add_func ("/virtqueue/chain/direct descriptors come out in their order", test_direct_chain);
  g_test_add_func ("/virtqueue/chain/an indirect table is followed", test_indirect_chain);
  g_test_add_func ("/virtqueue/chain/an indirect table may come after direct descriptors", test_indirect_after_direct);
  g_test_add_func ("/virtqueue/order/as many chains as the queue has entries are fine", test_full_queue);
  g_test_add_func ("/virtqueue/order/indices wrap around at 65536", test_indices_wrap);
  g_test_add_func ("/virtqueue/order/a chain that was put back comes again", test_unpop);
  g_test_add_func ("/virtqueue/bytes are read and written across pieces and never beyond", test_read_and_write);
  g_test_add_func ("/virtqueue/signal/the flag of the driver is heeded", test_signal_by_flag);
  g_test_add_func ("/virtqueue/signal/the event index is heeded as VIRTIO says", test_signal_by_event_index);
  g_test_add_func ("/virtqueue/signal/the first entry after a new set-up is always signalled", test_signal_after_new_setup);
  g_test_add_func ("/virtqueue/kicks are asked for and a late entry is noticed", test_kicks);
  g_test_add_func ("/virtqueue/descriptors that change while they are read do no harm", test_changing_descriptors);
  return g_test_run ();
}
