/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "blk.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define RINGS_GPA (FE_RAM_GPA + 0x10000)
#define SLOTS_GPA (FE_RAM_GPA + 0x400000)
/* A slot: pages of data, a page with status and header, a page for an indirect table. Data ends where the status begins. */
#define SLOT_BYTES ((BLK_SLOT_PAGES + 2) * (uint64_t)BLK_PAGE)
#define DESCS_PER_SLOT (BLK_QUEUE_SIZE / BLK_SLOTS)
#define PIECES_MAX 128u

G_STATIC_ASSERT (SLOTS_GPA + BLK_SLOTS * SLOT_BYTES <= FE_RAM_GPA + FE_RAM_BYTES);
G_STATIC_ASSERT (sizeof (struct blk_config_space) == 60);

struct blk *
blk_new (void) {
  struct blk *blk = g_new0 (struct blk, 1);

  blk->fe = fe_new ();
  blk->inflight_fd = -1;
  blk->keep_inflight = true;
  for (unsigned i = 0; i < BLK_QUEUES_MAX; i++) {
    struct fe_queue *queue = &blk->queues[i];

    queue->index = i;
    queue->num = BLK_QUEUE_SIZE;
    queue->desc_gpa = RINGS_GPA + 0x10000 * i;
    queue->avail_gpa = queue->desc_gpa + 0x4000;
    queue->used_gpa = queue->desc_gpa + 0x8000;
    queue->kick = eventfd (0, EFD_CLOEXEC | EFD_NONBLOCK);
    queue->call = eventfd (0, EFD_CLOEXEC | EFD_NONBLOCK);
    fe_queue_locate (blk->fe, queue);
  }
  return blk;
}

void
blk_free (struct blk *blk) {
  if (!blk)
    return;
  for (unsigned i = 0; i < BLK_QUEUES_MAX; i++) {
    close (blk->queues[i].kick);
    close (blk->queues[i].call);
  }
  fe_close (&blk->inflight_fd);
  fe_free (blk->fe);
  g_free (blk);
}

/* ---- connections ---- */

bool
blk_get_config (struct blk *blk, void *config, uint32_t bytes) {
  struct {
    uint32_t offset, bytes, flags;
    uint8_t data[BLK_CONFIG_MAX];
  } message = { 0, bytes, 0, { 0 } };
  uint32_t got;

  if (!fe_send (blk->fe, FE_GET_CONFIG, 0, &message, 12 + bytes, NULL, 0)
      || !fe_receive (blk->fe, FE_GET_CONFIG, &message, sizeof message, &got))
    return false;
  if (got != 12 + bytes)
    return fe_fail (blk->fe, "GET_CONFIG of %u bytes answered with %u", bytes, got);
  memcpy (config, message.data, bytes);
  return true;
}

static bool
send_channel (struct blk *blk) {
  int pair[2];

  if (socketpair (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
    return fe_fail (blk->fe, "socketpair: %s", g_strerror (errno));
  blk->fe->channel = pair[0];
  blk->fe->channel_theirs = pair[1];
  if (!fe_send_acked (blk->fe, FE_SET_BACKEND_REQ_FD, NULL, 0, &blk->fe->channel_theirs, 1))
    return false;
  fe_close (&blk->fe->channel_theirs);
  return true;
}

/* What QEMU does when it realizes the device. */
bool
blk_negotiate (struct blk *blk, const char *path) {
  struct fe *fe = blk->fe;

  if (!fe_connect (fe, path) || !fe_get_u64 (fe, FE_GET_FEATURES, &fe->features_offered)
      || !fe_get_u64 (fe, FE_GET_PROTOCOL_FEATURES, &fe->protocol_offered))
    return false;
  fe->protocol = fe->protocol_offered & BLK_PROTOCOL_WANTED;
  if (!fe_set_u64 (fe, FE_SET_PROTOCOL_FEATURES, fe->protocol) || !fe_get_u64 (fe, FE_GET_QUEUE_NUM, &fe->queue_count)
      || !send_channel (blk) || !fe_send (fe, FE_SET_OWNER, 0, NULL, 0, NULL, 0)
      || !fe_get_u64 (fe, FE_GET_FEATURES, &fe->features_offered) || !blk_get_config (blk, &blk->config, sizeof blk->config))
    return false;
  if (blk->n_queues == 0)
    blk->n_queues = blk->config.num_queues;
  if (blk->n_queues == 0 || blk->n_queues > BLK_QUEUES_MAX || blk->n_queues > fe->queue_count)
    return fe_fail (fe, "%u queues, GET_QUEUE_NUM says %" G_GUINT64_FORMAT, blk->n_queues, fe->queue_count);
  return true;
}

bool
blk_get_inflight (struct blk *blk) {
  const struct blk_inflight_wire ask = { .n_queues = (uint16_t)blk->n_queues, .queue_size = BLK_QUEUE_SIZE };
  const int64_t deadline = fe_now_ms () + fe_patience_ms ();
  struct {
    uint32_t request, flags, bytes;
    struct blk_inflight_wire inflight;
  } __attribute__ ((packed)) reply;
  union {
    struct cmsghdr align;
    char buf[CMSG_SPACE (4 * sizeof (int))];
  } control;
  struct iovec iov = { &reply, 12 + sizeof reply.inflight };
  struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buf, .msg_controllen = sizeof control.buf };
  ssize_t got;

  fe_close (&blk->inflight_fd);
  if (!fe_send (blk->fe, BLK_GET_INFLIGHT_FD, 0, &ask, sizeof ask, NULL, 0))
    return false;
  while ((got = recvmsg (blk->fe->sock, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT)) < 0 && errno == EAGAIN
         && fe_now_ms () < deadline) {
    struct pollfd pfd = { blk->fe->sock, POLLIN, 0 };

    poll (&pfd, 1, 100);
    msg.msg_controllen = sizeof control.buf;
  }
  if (got != 12 + (ssize_t)sizeof reply.inflight || reply.request != BLK_GET_INFLIGHT_FD
      || reply.bytes != sizeof reply.inflight)
    return fe_fail (blk->fe, "GET_INFLIGHT_FD: %zd bytes (%s)", got, got < 0 ? g_strerror (errno) : "?");
  for (struct cmsghdr *cmsg = CMSG_FIRSTHDR (&msg); cmsg; cmsg = CMSG_NXTHDR (&msg, cmsg))
    if (cmsg->cmsg_level == SOL_SOCKET && cmsg->cmsg_type == SCM_RIGHTS)
      memcpy (&blk->inflight_fd, CMSG_DATA (cmsg), sizeof blk->inflight_fd);
  blk->inflight = reply.inflight;
  return blk->inflight_fd >= 0 || fe_fail (blk->fe, "GET_INFLIGHT_FD: no descriptor");
}

bool
blk_set_inflight (struct blk *blk, const struct blk_inflight_wire *inflight, int fd) {
  return fe_send (blk->fe, BLK_SET_INFLIGHT_FD, 0, inflight, sizeof *inflight, &fd, 1);
}

static bool
start_queue (struct blk *blk, struct fe_queue *queue) {
  struct fe *fe = blk->fe;

  /* After a connection that was lost the used index is where the driver's view goes on; what was taken before is in the
   * inflight region. After a stop the same: then nothing is in flight. */
  return fe_set_state (fe, FE_SET_VRING_NUM, queue->index, queue->num)
         && fe_set_state (fe, FE_SET_VRING_BASE, queue->index, queue->used[1]) && fe_queue_send_addr (fe, queue)
         && fe_queue_send_kick (fe, queue) && fe_queue_send_call (fe, queue);
}

bool
blk_start_queues (struct blk *blk) {
  struct fe *fe = blk->fe;

  fe->features = fe->features_offered & fe->features_mask;
  if (!fe_set_u64 (fe, FE_SET_FEATURES, fe->features))
    return false;
  if (fe->protocol & (1ull << 12)) {
    if ((blk->inflight_fd < 0 || !blk->keep_inflight) && !blk_get_inflight (blk))
      return false;
    if (!blk_set_inflight (blk, &blk->inflight, blk->inflight_fd))
      return false;
  }
  if (!fe_send_mem_table (fe))
    return false;
  for (unsigned i = 0; i < blk->n_queues; i++)
    if (!start_queue (blk, &blk->queues[i]))
      return false;
  for (unsigned i = 0; i < blk->n_queues; i++) {
    if (!fe_set_state (fe, FE_SET_VRING_ENABLE, i, 1))
      return false;
    blk->queues[i].started = true;
    fe_kick (&blk->queues[i]); /* QEMU, too, kicks what it starts */
  }
  return true;
}

bool
blk_connect (struct blk *blk, const char *path) {
  if (blk->fe->sock >= 0)
    blk_disconnect (blk);
  blk->reconnects++;
  return blk_negotiate (blk, path) && blk_start_queues (blk);
}

bool
blk_stop_queues (struct blk *blk) {
  for (unsigned i = 0; i < blk->n_queues; i++) {
    const uint32_t ask[2] = { i, 0 };
    uint32_t state[2], bytes;

    if (!fe_set_state (blk->fe, FE_SET_VRING_ENABLE, i, 0) || !fe_send (blk->fe, FE_GET_VRING_BASE, 0, ask, sizeof ask, NULL, 0)
        || !fe_receive (blk->fe, FE_GET_VRING_BASE, state, sizeof state, &bytes))
      return false;
    if (bytes != sizeof state || state[0] != i || (uint16_t)state[1] != blk->queues[i].used[1])
      return fe_fail (blk->fe, "GET_VRING_BASE of queue %u: position %u, the used index is %u", i, state[1],
                      blk->queues[i].used[1]);
    blk->queues[i].started = false;
  }
  return true;
}

void
blk_disconnect (struct blk *blk) {
  fe_disconnect (blk->fe);
  for (unsigned i = 0; i < BLK_QUEUES_MAX; i++)
    blk->queues[i].started = false;
}

void
blk_forget (struct blk *blk) {
  for (unsigned i = 0; i < BLK_QUEUES_MAX; i++) {
    struct fe_queue *queue = &blk->queues[i];
    uint64_t count;

    memset (fe_at (blk->fe, queue->desc_gpa), 0, 0x10000);
    queue->next_avail = queue->next_used = blk->kicked[i] = 0;
    while (read (queue->kick, &count, sizeof count) > 0 || read (queue->call, &count, sizeof count) > 0)
      ;
  }
  memset (blk->slots, 0, sizeof blk->slots);
  blk->n_in_flight = 0;
  fe_close (&blk->inflight_fd);
}

bool
blk_is_connected (struct blk *blk) {
  struct pollfd pfd = { blk->fe->sock, POLLRDHUP, 0 };

  return blk->fe->sock >= 0 && (poll (&pfd, 1, 0) <= 0 || !(pfd.revents & (POLLRDHUP | POLLHUP | POLLERR)));
}

/* ---- requests ---- */

struct blk_shape
blk_random_shape (GRand *random) {
  const guint32 bits = g_rand_int (random);

  return (struct blk_shape){
    .indirect = bits & 1,
    .status_with_data = bits & 2,
    .header_with_data = (bits & 12) == 12,
    .cuts = bits & 16 ? 0 : (unsigned)g_rand_int_range (random, 0, bits & 32 ? 4 : 40),
    .split_header = (bits & 0xc0) == 0xc0,
  };
}

static uint64_t
slot_gpa (unsigned slot) {
  return SLOTS_GPA + slot * SLOT_BYTES;
}

uint8_t *
blk_data (struct blk *blk, unsigned slot) {
  return fe_at (blk->fe, blk->slots[slot].data_gpa);
}

int
blk_free_slot (struct blk *blk) {
  for (unsigned i = 0; i < BLK_SLOTS; i++)
    if (!blk->slots[i].in_flight)
      return (int)i;
  return -1;
}

void
blk_prepare (struct blk *blk, unsigned slot, enum blk_type type, uint64_t first, unsigned n) {
  struct blk_slot *s = &blk->slots[slot];

  g_assert_false (s->in_flight);
  g_assert_cmpuint (n, <=, type <= BLK_OUT ? BLK_SLOT_PAGES : UINT_MAX);
  *s = (struct blk_slot){ .type = type, .first = first, .n = n, .queue = slot % blk->n_queues };
  s->status_gpa = slot_gpa (slot) + BLK_SLOT_PAGES * (uint64_t)BLK_PAGE;
  s->data_gpa = s->status_gpa - (type <= BLK_OUT ? n : 1) * (uint64_t)BLK_PAGE;
  /* Within its queue, every slot has its own descriptors. */
  s->head = (uint16_t)(slot * DESCS_PER_SLOT);
}

static unsigned
add_piece (struct fe_piece *pieces, unsigned n, uint64_t gpa, uint32_t len, bool write) {
  pieces[n] = (struct fe_piece){ gpa, len, write };
  return len ? n + 1 : n;
}

static int
compare_cuts (gconstpointer a, gconstpointer b) {
  return *(const guint32 *)a < *(const guint32 *)b ? -1 : *(const guint32 *)a > *(const guint32 *)b;
}

static unsigned
add_data (struct fe_piece *pieces, unsigned n, uint64_t gpa, uint32_t bytes, bool write, unsigned cuts, GRand *random) {
  guint32 at[64], begin = 0;

  cuts = MIN (cuts, G_N_ELEMENTS (at));
  for (unsigned i = 0; i < cuts; i++)
    at[i] = !random ? bytes / (cuts + 1) * (i + 1) : (guint32)g_rand_int_range (random, 0, (gint32)bytes + 1);
  qsort (at, cuts, sizeof at[0], compare_cuts);
  for (unsigned i = 0; i <= cuts; i++) {
    const guint32 end = i < cuts ? at[i] : bytes;

    n = add_piece (pieces, n, gpa + begin, end - begin, write);
    begin = end;
  }
  return n;
}

/* DISCARD and WRITE_ZEROES: [first, + n) in up to 4 ranges. */
static uint32_t
write_ranges (struct blk *blk, const struct blk_slot *s, GRand *random) {
  struct blk_range_wire *wire = fe_at (blk->fe, s->data_gpa);
  unsigned n_ranges = random ? (unsigned)g_rand_int_range (random, 1, 5) : 1;
  uint64_t at = s->first, left = s->n;

  for (unsigned i = 0; i < n_ranges; i++) {
    const uint64_t n = i + 1 == n_ranges ? left : left / (n_ranges - i);

    wire[i] = (struct blk_range_wire){ at * 8, (uint32_t)(n * 8), 0 };
    at += n;
    left -= n;
  }
  return n_ranges * (uint32_t)sizeof *wire;
}

void
blk_submit (struct blk *blk, unsigned slot, const struct blk_shape *shape, GRand *random) {
  struct blk_slot *s = &blk->slots[slot];
  struct fe_queue *queue = &blk->queues[s->queue];
  struct fe_piece pieces[PIECES_MAX];
  uint64_t header_gpa = s->status_gpa + 64;
  const bool write = s->type == BLK_IN || s->type == BLK_T_GET_ID;
  uint32_t bytes = s->n * BLK_PAGE;
  struct {
    uint32_t type, reserved;
    uint64_t sector;
  } header = { s->type, 0, s->type <= BLK_OUT ? s->first * 8 : 0 };
  unsigned n = 0;

  if (s->type == BLK_T_DISCARD || s->type == BLK_T_WRITE_ZEROES)
    bytes = write_ranges (blk, s, random);
  else if (s->type == BLK_T_GET_ID)
    bytes = 20;
  else if (s->type == BLK_T_FLUSH)
    bytes = 0;
  /* One descriptor of both: the header lies before the data (there is room unless that fills the slot). */
  if (shape->header_with_data && !write && bytes && s->data_gpa - sizeof header >= slot_gpa (slot)) {
    header_gpa = s->data_gpa - sizeof header;
    n = add_data (pieces, n, header_gpa, bytes + (uint32_t)sizeof header, false, MIN (shape->cuts, 20), random);
  } else {
    n = add_piece (pieces, n, header_gpa, shape->split_header ? 7 : 16, false);
    n = add_piece (pieces, n, header_gpa + 7, shape->split_header ? 9 : 0, false);
    if (bytes)
      n = add_data (pieces, n, s->data_gpa, bytes, write, shape->cuts, random);
  }
  if (shape->status_with_data && s->type == BLK_IN && bytes)
    pieces[n - 1].len++;
  else
    n = add_piece (pieces, n, s->status_gpa, 1, true);
  memcpy (fe_at (blk->fe, header_gpa), &header, sizeof header);
  *(uint8_t *)fe_at (blk->fe, s->status_gpa) = BLK_S_NONE;
  if (shape->indirect || n > DESCS_PER_SLOT)
    fe_write_indirect (blk->fe, queue, s->head, pieces, n, s->status_gpa + BLK_PAGE);
  else
    fe_write_chain (queue, s->head, pieces, n);
  s->in_flight = true;
  blk->n_in_flight++;
  fe_publish (queue, s->head);
}

void
blk_kick (struct blk *blk, unsigned queue) {
  struct fe_queue *q = &blk->queues[queue];
  const uint16_t before = blk->kicked[queue], now = q->next_avail;

  blk->kicked[queue] = now;
  __atomic_thread_fence (__ATOMIC_SEQ_CST);
  /* VIRTIO 1.2, 2.7.10.1: the event index was passed */
  if (blk->fe->features & FE_F_EVENT_IDX ? (uint16_t)(now - q->used[2 + q->num * 4] - 1) < (uint16_t)(now - before)
                                         : !(q->used[0] & 1))
    fe_kick (q);
}

bool
blk_poll (struct blk *blk, unsigned *ret_slot, uint8_t *ret_status) {
  uint32_t head, len;

  for (unsigned i = 0; i < blk->n_queues; i++) {
    struct blk_slot *s;

    if (!fe_poll_used (&blk->queues[i], &head, &len))
      continue;
    *ret_slot = head / DESCS_PER_SLOT;
    if (*ret_slot >= BLK_SLOTS || head % DESCS_PER_SLOT)
      g_error ("queue %u: head %u was used, which is nobody's", i, head);
    s = &blk->slots[*ret_slot];
    if (!s->in_flight || s->queue != i)
      g_error ("queue %u: head %u was answered, which was not in flight: twice?", i, head);
    s->in_flight = false;
    blk->n_in_flight--;
    *ret_status = *(uint8_t *)fe_at (blk->fe, s->status_gpa);
    return true;
  }
  return false;
}

bool
blk_wait (struct blk *blk, unsigned *ret_slot, uint8_t *ret_status, int timeout_ms) {
  const int64_t deadline = fe_now_ms () + timeout_ms;

  for (;;) {
    struct pollfd pfds[BLK_QUEUES_MAX + 1];
    uint64_t count;

    for (unsigned i = 0; i < blk->n_queues; i++) {
      struct fe_queue *queue = &blk->queues[i];

      queue->avail[2 + queue->num] = queue->next_used; /* used_event: signal the next one */
      pfds[i] = (struct pollfd){ queue->call, POLLIN, 0 };
    }
    pfds[blk->n_queues] = (struct pollfd){ blk->fe->sock, POLLRDHUP, 0 };
    __atomic_thread_fence (__ATOMIC_SEQ_CST);
    if (blk_poll (blk, ret_slot, ret_status))
      return true;
    if (!blk_is_connected (blk))
      return fe_fail (blk->fe, "the back-end closed the connection");
    if (fe_now_ms () >= deadline)
      return fe_fail (blk->fe, "no answer within %d ms, %u in flight", timeout_ms, blk->n_in_flight);
    poll (pfds, blk->n_queues + 1, (int)MAX (deadline - fe_now_ms (), 0));
    for (unsigned i = 0; i < blk->n_queues; i++)
      if ((pfds[i].revents & POLLIN) && read (blk->queues[i].call, &count, sizeof count) < 0 && errno != EAGAIN)
        return fe_fail (blk->fe, "call fd: %s", g_strerror (errno));
  }
}

uint8_t
blk_io (struct blk *blk, enum blk_type type, uint64_t first, unsigned n, void *data) {
  const struct blk_shape plain = { 0 };
  uint8_t status;
  unsigned slot;

  blk_prepare (blk, 0, type, first, n);
  if (type == BLK_OUT)
    memcpy (blk_data (blk, 0), data, n * (size_t)BLK_PAGE);
  blk_submit (blk, 0, &plain, NULL);
  blk_kick (blk, blk->slots[0].queue);
  if (!blk_wait (blk, &slot, &status, fe_patience_ms ()))
    return BLK_S_NONE;
  g_assert_cmpuint (slot, ==, 0);
  if (type == BLK_IN && data)
    memcpy (data, blk_data (blk, 0), n * (size_t)BLK_PAGE);
  if (type == BLK_T_GET_ID && data)
    memcpy (data, blk_data (blk, 0), 20);
  return status;
}
