/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "front.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/vhost-user.h"
#include "io/guest-map.h"
#include "testing.h"

/* ---- device ---- */

static VhostUserSession *
session_of (struct front *front) {
  return vhost_user_socket_session (front->socket);
}

static void
on_get_config (gpointer data, uint8_t *buf) {
  memcpy (buf, "config", 6);
}

static void
on_set_config (gpointer data, const uint8_t *bytes, unsigned offset, unsigned n) {
  struct front *front = data;

  front->n_config_writes++;
}

void
front_device_answer (struct front *front, unsigned i) {
  struct taken taken;
  char text[40] = "ok: ";
  size_t n, written;

  g_assert_cmpuint (i, <, front->n_taken);
  taken = front->taken[i];
  memmove (&front->taken[i], &front->taken[i + 1], (front->n_taken - i - 1) * sizeof taken);
  front->n_taken--;
  n = virtqueue_chain_read (&taken.chain, 0, text + 4, 28);
  written = virtqueue_chain_write (&taken.chain, text, n + 4);
  vhost_user_session_push (session_of (front), taken.queue, taken.chain.head, (uint32_t)written);
  vhost_user_session_signal (session_of (front), taken.queue);
}

static void
on_queue_ready (gpointer data, unsigned queue) {
  struct front *front = data;
  struct taken *taken = &front->taken[front->n_taken];

  while (vhost_user_session_pop (session_of (front), queue, &taken->chain) == VIRTQUEUE_POP_CHAIN) {
    taken->queue = queue;
    front->n_taken++;
    if (front->answer_at_once)
      front_device_answer (front, front->n_taken - 1);
    g_assert_cmpuint (front->n_taken, <, G_N_ELEMENTS (front->taken));
    taken = &front->taken[front->n_taken];
  }
}

static gboolean
on_queue_stop (gpointer data, unsigned queue) {
  struct front *front = data;

  front->n_stops++;
  if (front->stop_at_once) {
    while (front->n_taken)
      front_device_answer (front, 0);
    vhost_user_session_stopped (session_of (front), queue);
    return FALSE;
  }
  return vhost_user_session_in_flight (session_of (front), queue) == 0;
}

static void
on_memory_changed (gpointer data) {
  struct front *front = data;

  front->n_memory_changes++;
  for (unsigned i = 0; i < front->n_taken; i++)
    if (!vhost_user_session_move_chain (session_of (front), &front->taken[i].chain)) {
      front->moves_failed++;
      if (front->drops_what_is_gone)
        vhost_user_session_push (session_of (front), front->taken[i].queue, front->taken[i].chain.head, 0);
    }
  if (front->drops_what_is_gone)
    front->n_taken = 0;
}

static void
on_closed (gpointer data, const char *why) {
  struct front *front = data;

  front->n_closed++;
  g_free (front->closed_why);
  front->closed_why = g_strdup (why);
  front->socket = NULL;
  front->n_taken = 0;
}

/* ---- life ---- */

void
front_init (struct front *front) {
  memset (front, 0, sizeof *front);
  front->type = (VhostUserDevice){
    .name = "disk",
    .n_queues = FRONT_QUEUES,
    .features = 1ull << 9,
    .config_bytes = 256,
    .inflight = TRUE,
    .config_changes = TRUE,
    .get_config = on_get_config,
    .set_config = on_set_config,
    .queue_ready = on_queue_ready,
    .queue_stop = on_queue_stop,
    .memory_changed = on_memory_changed,
    .closed = on_closed,
  };
  front->fd = front->channel = front->inflight_fd = -1;
  front->ram_fd = memfd_create ("ram", MFD_CLOEXEC);
  g_assert_cmpint (ftruncate (front->ram_fd, FRONT_RAM_BYTES), ==, 0);
  front->ram = mmap (NULL, FRONT_RAM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, front->ram_fd, 0);
  g_assert_true (front->ram != MAP_FAILED);
  for (unsigned i = 0; i < FRONT_QUEUES; i++) {
    front->kicks[i] = eventfd (0, EFD_CLOEXEC | EFD_NONBLOCK);
    front->calls[i] = eventfd (0, EFD_CLOEXEC | EFD_NONBLOCK);
    front->errs[i] = eventfd (0, EFD_CLOEXEC | EFD_NONBLOCK);
  }
  front_connect (front);
}

void
front_die (struct front *front) {
  g_clear_pointer (&front->socket, vhost_user_socket_free);
  front->n_taken = 0;
}

void
front_connect (struct front *front) {
  int pair[2];

  front_die (front);
  if (front->fd >= 0)
    close (front->fd);
  if (front->channel >= 0)
    close (front->channel);
  front->channel = -1;
  g_assert_cmpint (socketpair (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), ==, 0);
  front->fd = pair[0];
  front->socket = vhost_user_socket_new (pair[1], &front->type, front);
}

void
front_clear (struct front *front) {
  front_die (front);
  if (front->fd >= 0)
    close (front->fd);
  if (front->channel >= 0)
    close (front->channel);
  if (front->inflight_fd >= 0)
    close (front->inflight_fd);
  for (unsigned i = 0; i < FRONT_QUEUES; i++) {
    close (front->kicks[i]);
    close (front->calls[i]);
    close (front->errs[i]);
  }
  munmap (front->ram, FRONT_RAM_BYTES);
  close (front->ram_fd);
  g_free (front->closed_why);
}

void
front_run (struct front *front) {
  while (g_main_context_iteration (NULL, FALSE))
    ;
}

unsigned
front_open_fds (void) {
  DIR *folder = opendir ("/proc/self/fd");
  unsigned n = 0;

  g_assert_nonnull (folder);
  while (readdir (folder))
    n++;
  closedir (folder);
  return n;
}

/* ---- messages ---- */

void
front_send_raw (struct front *front, const void *bytes, size_t n, const int *fds, unsigned n_fds) {
  union {
    char buf[CMSG_SPACE (sizeof (int) * 32)];
    struct cmsghdr align;
  } control = { { 0 } };
  struct iovec iov = { (void *)bytes, n };
  struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1 };

  if (n_fds) {
    struct cmsghdr *cmsg = &control.align;

    message.msg_control = control.buf;
    message.msg_controllen = CMSG_SPACE (n_fds * sizeof *fds);
    *cmsg = (struct cmsghdr){ .cmsg_len = CMSG_LEN (n_fds * sizeof *fds), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS };
    memcpy (CMSG_DATA (cmsg), fds, n_fds * sizeof *fds);
  }
  /* a back-end that has closed already is found out otherwise */
  g_assert_true (sendmsg (front->fd, &message, MSG_NOSIGNAL) == (ssize_t)n || errno == EPIPE);
}

void
front_send (struct front *front, uint32_t request, const void *payload, uint32_t bytes, const int *fds, unsigned n_fds) {
  const uint32_t header[3] = { request, 1, bytes };
  uint8_t message[sizeof header + VHU_PAYLOAD_BYTES_MAX];

  g_assert_cmpuint (bytes, <=, VHU_PAYLOAD_BYTES_MAX);
  memcpy (message, header, sizeof header);
  if (bytes)
    memcpy (message + sizeof header, payload, bytes);
  front_send_raw (front, message, sizeof header + bytes, fds, n_fds);
}

void
front_send_state (struct front *front, uint32_t request, uint32_t index, uint32_t num) {
  const uint32_t state[2] = { index, num };

  front_send (front, request, state, sizeof state, NULL, 0);
}

int
front_reply (struct front *front, uint32_t request, void *payload, uint32_t cap, int *ret_fd) {
  uint32_t header[3];
  union {
    char buf[CMSG_SPACE (sizeof (int))];
    struct cmsghdr align;
  } control;
  struct iovec iov = { header, sizeof header };
  struct msghdr message = {
    .msg_iov = &iov,
    .msg_iovlen = 1,
    .msg_control = control.buf,
    .msg_controllen = sizeof control.buf,
  };
  ssize_t n;

  front_run (front);
  n = recvmsg (front->fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (n <= 0)
    return -1;
  g_assert_cmpint (n, ==, sizeof header);
  g_assert_cmpuint (header[0], ==, request);
  g_assert_cmpuint (header[1], ==, 1 | 4);
  g_assert_cmpuint (header[2], <=, cap);
  if (header[2])
    g_assert_cmpint (recv (front->fd, payload, header[2], MSG_DONTWAIT), ==, header[2]);
  if (ret_fd)
    *ret_fd = -1;
  if (CMSG_FIRSTHDR (&message)) {
    g_assert_nonnull (ret_fd);
    memcpy (ret_fd, CMSG_DATA (CMSG_FIRSTHDR (&message)), sizeof *ret_fd);
  }
  return (int)header[2];
}

uint64_t
front_ask_u64 (struct front *front, uint32_t request) {
  uint64_t value = 0;

  front_send (front, request, NULL, 0, NULL, 0);
  g_assert_cmpint (front_reply (front, request, &value, sizeof value, NULL), ==, sizeof value);
  return value;
}

static void
send_u64 (struct front *front, uint32_t request, uint64_t value) {
  front_send (front, request, &value, sizeof value, NULL, 0);
}

void
front_negotiate (struct front *front) {
  const uint64_t wanted = 1u << VHU_PROTOCOL_F_MQ | 1u << VHU_PROTOCOL_F_REPLY_ACK | 1u << VHU_PROTOCOL_F_BACKEND_REQ
                          | 1u << VHU_PROTOCOL_F_CONFIG | 1u << VHU_PROTOCOL_F_INFLIGHT_SHMFD
                          | (front->type.mem_slots ? 1u << VHU_PROTOCOL_F_CONFIGURE_MEM_SLOTS : 0);
  int pair[2];

  g_assert_cmpuint (front_ask_u64 (front, VHU_GET_PROTOCOL_FEATURES), ==, wanted);
  send_u64 (front, VHU_SET_PROTOCOL_FEATURES, wanted);
  g_assert_cmpuint (front_ask_u64 (front, VHU_GET_QUEUE_NUM), ==, FRONT_QUEUES);
  g_assert_cmpint (socketpair (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), ==, 0);
  front->channel = pair[0];
  front_send (front, VHU_SET_BACKEND_REQ_FD, NULL, 0, &pair[1], 1);
  close (pair[1]);
  front_send (front, VHU_SET_OWNER, NULL, 0, NULL, 0);
  send_u64 (front, VHU_SET_FEATURES, 1ull << VIRTIO_F_VERSION_1_BIT | 1ull << VHU_F_PROTOCOL_FEATURES);
}

struct inflight_payload {
  uint64_t bytes, offset;
  uint16_t n_queues, queue_size;
  uint32_t padding;
};

void
front_set_inflight (struct front *front, int fd, uint64_t bytes, uint64_t offset, uint16_t n_queues, uint16_t queue_size) {
  const struct inflight_payload payload = { bytes, offset, n_queues, queue_size, 0 };

  front_send (front, VHU_SET_INFLIGHT_FD, &payload, sizeof payload, &fd, 1);
}

void
front_give_inflight (struct front *front) {
  struct inflight_payload payload = { 0, 0, FRONT_QUEUES, FRONT_NUM, 0 };

  if (front->inflight_fd < 0) {
    front_send (front, VHU_GET_INFLIGHT_FD, &payload, sizeof payload, NULL, 0);
    g_assert_cmpint (front_reply (front, VHU_GET_INFLIGHT_FD, &payload, sizeof payload, &front->inflight_fd), ==,
                     sizeof payload);
    g_assert_cmpint (front->inflight_fd, >=, 0);
    g_assert_cmpuint (payload.offset, ==, 0);
    front->inflight_bytes = payload.bytes;
  }
  front_set_inflight (front, front->inflight_fd, front->inflight_bytes, 0, FRONT_QUEUES, FRONT_NUM);
}

void
front_give_memory (struct front *front) {
  const uint64_t table[5] = { 1, FRONT_GUEST_BASE, FRONT_RAM_BYTES, FRONT_USER_BASE, 0 };

  front_send (front, VHU_SET_MEM_TABLE, table, sizeof table, &front->ram_fd, 1);
}

static void
send_region (struct front *front, uint32_t request, uint64_t at, uint64_t n, unsigned n_fds) {
  const uint64_t region[5] = { 0, FRONT_GUEST_BASE + at, n, FRONT_USER_BASE + at, at };

  front_send (front, request, region, sizeof region, &front->ram_fd, n_fds);
}

void
front_add_memory (struct front *front, uint64_t at, uint64_t n) {
  send_region (front, VHU_ADD_MEM_REG, at, n, 1);
}

void
front_remove_memory (struct front *front, uint64_t at, uint64_t n) {
  send_region (front, VHU_REM_MEM_REG, at, n, 0);
}

static void
send_vring_fd (struct front *front, uint32_t request, uint64_t queue, int fd) {
  front_send (front, request, &queue, sizeof queue, &fd, 1);
}

void
front_send_vring_fds (struct front *front, unsigned queue) {
  send_vring_fd (front, VHU_SET_VRING_KICK, queue, front->kicks[queue]);
  send_vring_fd (front, VHU_SET_VRING_CALL, queue, front->calls[queue]);
  send_vring_fd (front, VHU_SET_VRING_ERR, queue, front->errs[queue]);
}

static uint16_t *
used_idx (struct front *front, unsigned queue) {
  return (uint16_t *)(front->ram + queue * FRONT_QUEUE_BYTES + FRONT_USED + 2);
}

void
front_start_queue (struct front *front, unsigned queue) {
  const uint64_t at = FRONT_USER_BASE + queue * FRONT_QUEUE_BYTES;
  const uint64_t addr[5] = { queue, at, at + FRONT_USED, at + FRONT_AVAIL, 0 };

  send_vring_fd (front, VHU_SET_VRING_ERR, queue, front->errs[queue]); /* long before, with QEMU */
  front_send_state (front, VHU_SET_VRING_NUM, queue, FRONT_NUM);
  front_send_state (front, VHU_SET_VRING_BASE, queue, *used_idx (front, queue));
  front_send (front, VHU_SET_VRING_ADDR, addr, sizeof addr, NULL, 0);
  front_send_vring_fds (front, queue);
  front_send_state (front, VHU_SET_VRING_ENABLE, queue, 1);
}

void
front_start (struct front *front) {
  front_negotiate (front);
  front_give_inflight (front);
  front_give_memory (front);
  front_start_queue (front, 0);
  front_run (front);
}

/* ---- driver ---- */

static uint8_t *
data_of (struct front *front, unsigned queue, uint16_t head) {
  return front->ram + queue * FRONT_QUEUE_BYTES + FRONT_DATA + head * 64;
}

/* Two descriptors for each head: h, and h + FRONT_NUM / 2 behind it. */
void
front_offer (struct front *front, unsigned queue, uint16_t head, const char *text) {
  uint8_t *ring = front->ram + queue * FRONT_QUEUE_BYTES;
  const uint16_t second = (uint16_t)(head + FRONT_NUM / 2);
  const uint64_t at = FRONT_GUEST_BASE + (uint64_t)(data_of (front, queue, head) - front->ram);
  const struct {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next;
  } out = { at, 28, 1, second }, in = { at + 32, 32, 2, 0 };

  g_assert_cmpuint (head, <, FRONT_NUM / 2);
  memset (data_of (front, queue, head), 0, 64);
  g_strlcpy ((char *)data_of (front, queue, head), text, 28);
  memcpy (ring + head * 16, &out, 16);
  memcpy (ring + second * 16, &in, 16);
  memcpy (ring + FRONT_AVAIL + 4 + 2 * (front->avail[queue] % FRONT_NUM), &head, 2);
  front->avail[queue]++;
  memcpy (ring + FRONT_AVAIL + 2, &front->avail[queue], 2);
}

void
front_kick (struct front *front, unsigned queue) {
  const uint64_t one = 1;

  g_assert_cmpint (write (front->kicks[queue], &one, sizeof one), ==, sizeof one);
  front_run (front);
}

unsigned
front_collect (struct front *front, unsigned queue, uint16_t *heads) {
  unsigned n = 0;

  for (; front->seen_used[queue] != *used_idx (front, queue); front->seen_used[queue]++) {
    uint32_t head;

    memcpy (&head, front->ram + queue * FRONT_QUEUE_BYTES + FRONT_USED + 4 + 8 * (front->seen_used[queue] % FRONT_NUM), 4);
    g_assert_cmpuint (n, <, FRONT_NUM);
    heads[n++] = (uint16_t)head;
  }
  return n;
}

const char *
front_answer (struct front *front, unsigned queue, uint16_t head) {
  return (const char *)data_of (front, queue, head) + 32;
}

gboolean
front_signalled (int fd) {
  uint64_t count;

  return read (fd, &count, sizeof count) == sizeof count;
}

/* ---- tests ---- */

static unsigned fds_before;

void
front_tests_init (int *argc, char ***argv) {
  testing_init (argc, argv);
  g_log_set_always_fatal (G_LOG_FATAL_MASK | G_LOG_LEVEL_CRITICAL);
  g_assert_true (guest_map_init (NULL));
  g_main_context_default (); /* has a descriptor of its own, for ever */
}

void
front_begin (struct front *front) {
  fds_before = front_open_fds ();
  front_init (front);
}

void
front_end (struct front *front) {
  front_clear (front);
  while (g_main_context_iteration (NULL, FALSE))
    ;
  g_assert_cmpuint (front_open_fds (), ==, fds_before);
}

void
front_expect_closed (struct front *front, const char *why) {
  front_run (front);
  g_assert_cmpuint (front->n_closed, ==, 1);
  g_assert_cmpstr (front->closed_why, ==, why);
  front->n_closed = 0;
}

void
front_expect_taken (const struct front *front, unsigned n, const uint16_t *heads) {
  g_assert_cmpuint (front->n_taken, ==, n);
  for (unsigned i = 0; i < n; i++)
    g_assert_cmpuint (front->taken[i].chain.head, ==, heads[i]);
}

void
front_expect_answers (struct front *front, unsigned n, const uint16_t *heads) {
  uint16_t came[FRONT_NUM];

  g_assert_cmpuint (front_collect (front, 0, came), ==, n);
  for (unsigned i = 0; i < n; i++)
    g_assert_cmpuint (came[i], ==, heads[i]);
}

void
front_offer_three (struct front *front) {
  front_offer (front, 0, 2, "two");
  front_offer (front, 0, 0, "zero");
  front_offer (front, 0, 3, "three");
  front_kick (front, 0);
  FRONT_EXPECT_TAKEN (front, 2, 0, 3);
}
