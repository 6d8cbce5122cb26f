/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Split virtqueues from the driver's side. */
#include "frontend.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#define BUFFERS_GPA (FE_RAM_GPA + 0x100000)
#define SCRATCH_GPA (FE_RAM_GPA + 0x200000)
#define PAGE 4096ull

uint64_t
fe_request_gpa (unsigned slot) {
  return BUFFERS_GPA + 2 * slot * PAGE;
}

uint64_t
fe_response_gpa (unsigned slot) {
  return BUFFERS_GPA + (2 * slot + 1) * PAGE;
}

uint64_t
fe_scratch_gpa (unsigned page) {
  return SCRATCH_GPA + page * PAGE;
}

bool
fe_queue_locate (struct fe *fe, struct fe_queue *queue) {
  queue->desc = fe_at (fe, queue->desc_gpa);
  queue->avail = fe_at (fe, queue->avail_gpa);
  queue->used = fe_at (fe, queue->used_gpa);
  return queue->desc && queue->avail && queue->used;
}

bool
fe_queue_send_addr (struct fe *fe, struct fe_queue *queue) {
  struct {
    uint32_t index, flags;
    uint64_t desc, used, avail, log;
  } addr = { queue->index, 0, (uintptr_t)queue->desc, (uintptr_t)queue->used, (uintptr_t)queue->avail, 0 };

  return fe_send (fe, FE_SET_VRING_ADDR, 0, &addr, sizeof addr, NULL, 0);
}

bool
fe_queue_send_kick (struct fe *fe, struct fe_queue *queue) {
  const uint64_t index = queue->index;

  return fe_send (fe, FE_SET_VRING_KICK, 0, &index, sizeof index, &queue->kick, 1);
}

bool
fe_queue_send_call (struct fe *fe, struct fe_queue *queue) {
  const uint64_t index = queue->index;

  return fe_send (fe, FE_SET_VRING_CALL, 0, &index, sizeof index, &queue->call, 1);
}

bool
fe_start_queue (struct fe *fe, unsigned index) {
  struct fe_queue *queue = &fe->queues[index];

  /* Restarted as for pause and resume: what is in the rings stays, SET_VRING_BASE says where to go on. The position that the
   * device reported is the driver's own unless requests are under way. */
  if (!fe_set_state (fe, FE_SET_VRING_NUM, index, queue->num) || !fe_set_state (fe, FE_SET_VRING_BASE, index, queue->next_avail)
      || !fe_queue_send_addr (fe, queue) || !fe_queue_send_kick (fe, queue) || !fe_queue_send_call (fe, queue)
      || !fe_set_state (fe, FE_SET_VRING_ENABLE, index, 1))
    return false;
  queue->started = true;
  return true;
}

bool
fe_stop_queue (struct fe *fe, unsigned index) {
  const uint32_t ask[2] = { index, 0 };
  uint32_t state[2], bytes;

  if (!fe_set_state (fe, FE_SET_VRING_ENABLE, index, 0) || !fe_send (fe, FE_GET_VRING_BASE, 0, ask, sizeof ask, NULL, 0)
      || !fe_receive (fe, FE_GET_VRING_BASE, state, sizeof state, &bytes))
    return false;
  if (bytes != sizeof state || state[0] != index)
    return fe_fail (fe, "GET_VRING_BASE answered for queue %u with %u bytes", state[0], bytes);
  fe->queues[index].started = false;
  fe->queues[index].next_avail = (uint16_t)state[1];
  return true;
}

unsigned
fe_write_chain (struct fe_queue *queue, uint16_t first, const struct fe_piece *pieces, unsigned n) {
  for (unsigned i = 0; i < n; i++)
    queue->desc[first + i] = (struct fe_desc){
      .addr = pieces[i].gpa,
      .len = pieces[i].len,
      .flags = (uint16_t)((pieces[i].write ? FE_DESC_WRITE : 0) | (i + 1 < n ? FE_DESC_NEXT : 0)),
      .next = (uint16_t)(i + 1 < n ? first + i + 1 : 0),
    };
  return n;
}

void
fe_write_indirect (struct fe *fe, struct fe_queue *queue, uint16_t first, const struct fe_piece *pieces, unsigned n,
                   uint64_t table_gpa) {
  struct fe_queue inner = { .desc = fe_at (fe, table_gpa) };

  fe_write_chain (&inner, 0, pieces, n);
  queue->desc[first] = (struct fe_desc){ table_gpa, (uint32_t)(n * sizeof (struct fe_desc)), FE_DESC_INDIRECT, 0 };
}

void
fe_publish (struct fe_queue *queue, uint16_t head) {
  queue->avail[2 + (queue->next_avail & (queue->num - 1))] = head;
  queue->next_avail++;
  __atomic_store_n (&queue->avail[1], queue->next_avail, __ATOMIC_RELEASE);
}

void
fe_kick (struct fe_queue *queue) {
  const uint64_t one = 1;
  const ssize_t done = write (queue->kick, &one, sizeof one);

  (void)done; /* EAGAIN: it is kicked already */
}

void
fe_kick_if_wanted (struct fe *fe, struct fe_queue *queue) {
  bool wanted;

  __atomic_thread_fence (__ATOMIC_SEQ_CST);
  if (fe->features & FE_F_EVENT_IDX)
    wanted = queue->used[2 + queue->num * 4] == (uint16_t)(queue->next_avail - 1);
  else
    wanted = !(queue->used[0] & 1);
  if (wanted)
    fe_kick (queue);
}

bool
fe_poll_used (struct fe_queue *queue, uint32_t *ret_head, uint32_t *ret_len) {
  volatile uint32_t *entry;

  if (__atomic_load_n (&queue->used[1], __ATOMIC_ACQUIRE) == queue->next_used)
    return false;
  entry = (volatile uint32_t *)(queue->used + 2) + 2 * (queue->next_used & (queue->num - 1));
  *ret_head = entry[0];
  *ret_len = entry[1];
  queue->next_used++;
  return true;
}

bool
fe_wait_used (struct fe *fe, struct fe_queue *queue, uint32_t *ret_head, uint32_t *ret_len, int timeout_ms) {
  const int64_t deadline = fe_now_ms () + timeout_ms;

  for (;;) {
    struct pollfd pfds[3] = { { queue->call, POLLIN, 0 }, { fe->channel, POLLIN, 0 }, { fe->sock, POLLRDHUP, 0 } };
    uint64_t count;
    ssize_t got;

    queue->avail[2 + queue->num] = queue->next_used; /* used_event: signal the next one */
    __atomic_thread_fence (__ATOMIC_SEQ_CST);
    if (fe_poll_used (queue, ret_head, ret_len))
      return true;
    if (fe_now_ms () >= deadline)
      return fe_fail (fe, "queue %u: nothing used within %d ms", queue->index, timeout_ms);
    poll (pfds, G_N_ELEMENTS (pfds), (int)MAX (deadline - fe_now_ms (), 0)); /* below 0 it would wait for ever */
    got = read (queue->call, &count, sizeof count);
    if (got < 0 && errno != EAGAIN)
      return fe_fail (fe, "call fd: %s", g_strerror (errno));
    if ((pfds[1].revents & (POLLIN | POLLHUP)) && !fe_serve_channel (fe))
      return false;
    if (fe->sock < 0 || (pfds[2].revents & (POLLRDHUP | POLLHUP | POLLERR))) {
      if (fe_poll_used (queue, ret_head, ret_len))
        return true;
      return fe_fail (fe, "the back-end closed the connection");
    }
  }
}
