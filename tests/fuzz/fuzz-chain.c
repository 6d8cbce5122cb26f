/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The descriptor walk over any content of the rings: what comes out lies in the guest's RAM and never in the window. */
#include "fuzz-chain.h"

#include <glib.h>

#include "core/virtqueue.h"
#include "fuzz.h"

#define USER_BASE 0x7f0000000000ull
#define POPS_MAX 100 /* a driver with an index of its own choice could keep us here for long */

struct world {
  struct guest_memory memory;
  struct virtqueue vq;
  uint8_t *ram, *window; /* allocated with exactly their size */
};

static void
check_chain (const struct world *world, const struct virtqueue_chain *chain) {
  size_t out = 0, in = 0;

  g_assert_cmpuint (chain->head, <, world->vq.num);
  g_assert_cmpuint (chain->n_out + chain->n_in, >, 0);
  g_assert_cmpuint (chain->n_out + chain->n_in, <=, VIRTQUEUE_PIECES_MAX);
  for (unsigned i = 0; i < chain->n_out + chain->n_in; i++) {
    const uint8_t *base = chain->pieces[i].iov_base;
    const size_t bytes = chain->pieces[i].iov_len;

    g_assert_true (base >= world->ram && base < world->ram + CHAIN_RAM_BYTES);
    g_assert_cmpuint (bytes, >, 0);
    g_assert_cmpuint (bytes, <=, (size_t)(world->ram + CHAIN_RAM_BYTES - base));
    *(i < chain->n_out ? &out : &in) += bytes;
  }
  g_assert_cmpuint (out, ==, chain->out_bytes);
  g_assert_cmpuint (in, ==, chain->in_bytes);
}

static void
answer_chain (struct world *world, const struct virtqueue_chain *chain) {
  uint8_t request[256], answer[256];
  const size_t got = virtqueue_chain_read (chain, chain->head % 7, request, sizeof request);
  size_t written;

  g_assert_cmpuint (got, ==, chain->out_bytes > chain->head % 7 ? MIN (chain->out_bytes - chain->head % 7, sizeof request) : 0);
  memset (answer, 0xa5, sizeof answer);
  written = virtqueue_chain_write (chain, answer, sizeof answer);
  g_assert_cmpuint (written, ==, MIN (chain->in_bytes, sizeof answer));
  virtqueue_push (&world->vq, chain->head, (uint32_t)written);
}

static void
run_queue (struct world *world, bool put_back) {
  struct virtqueue_chain *chain = g_new0 (struct virtqueue_chain, 1);

  for (unsigned i = 0; i < POPS_MAX; i++) {
    const uint16_t before = world->vq.next_avail;
    const enum virtqueue_pop popped = virtqueue_pop (&world->vq, &world->memory, chain);

    g_assert_cmpuint (world->vq.next_avail, ==, (uint16_t)(before + (popped == VIRTQUEUE_POP_CHAIN)));
    if (popped == VIRTQUEUE_POP_BROKEN) {
      g_assert_nonnull (world->vq.broken_why);
      g_assert_cmpint (virtqueue_pop (&world->vq, &world->memory, chain), ==, VIRTQUEUE_POP_BROKEN);
      break;
    }
    if (popped == VIRTQUEUE_POP_EMPTY && !virtqueue_enable_kicks (&world->vq, true))
      break;
    if (popped == VIRTQUEUE_POP_EMPTY)
      continue; /* our writing to the used ring hit the available ring: that driver gets what it asked for */
    check_chain (world, chain);
    if (put_back && i % 2 == 0) {
      virtqueue_unpop (&world->vq);
      continue;
    }
    answer_chain (world, chain);
    (void)virtqueue_should_signal (&world->vq);
    (void)virtqueue_enable_kicks (&world->vq, i % 3 == 0);
  }
  g_free (chain);
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size) {
  struct input input = { data, size };
  const uint8_t options = input_8 (&input);
  const uint16_t start = input_16 (&input);
  struct world *world = g_new0 (struct world, 1);
  const char *why = NULL;

  world->ram = g_malloc (CHAIN_RAM_BYTES);
  world->window = g_malloc (CHAIN_WINDOW_BYTES);
  input_bytes (&input, world->ram, CHAIN_RAM_BYTES);
  memset (world->window, 0x3c, CHAIN_WINDOW_BYTES);
  world->memory = (struct guest_memory){
    .n_regions = 2,
    .regions = { { .guest_addr = CHAIN_RAM_BASE, .bytes = CHAIN_RAM_BYTES, .user_addr = USER_BASE, .host = world->ram },
                 { .guest_addr = CHAIN_WINDOW_BASE,
                   .bytes = CHAIN_WINDOW_BYTES,
                   .user_addr = USER_BASE + (1ull << 30),
                   .host = world->window,
                   .own = true } },
  };
  g_assert_true (virtqueue_set_num (&world->vq, 1u << MIN (options & CHAIN_NUM_SHIFT_MASK, 5)));
  world->vq.indirect = options & CHAIN_INDIRECT;
  world->vq.event_idx = options & CHAIN_EVENT_IDX;
  world->vq.next_avail = start;
  world->vq.addr = (struct vhu_vring_addr){ .desc = USER_BASE, .avail = USER_BASE + CHAIN_AVAIL, .used = USER_BASE + CHAIN_USED };
  world->vq.have_addr = true;
  g_assert_true (virtqueue_resolve (&world->vq, &world->memory, &why));

  run_queue (world, options & CHAIN_UNPOP);

  /* whatever happened, the window was not written to */
  for (unsigned i = 0; i < CHAIN_WINDOW_BYTES; i++)
    g_assert_cmpuint (world->window[i], ==, 0x3c);
  g_free (world->ram);
  g_free (world->window);
  g_free (world);
  return 0;
}
