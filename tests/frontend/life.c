/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A front-end's life: the handshake, step by step, in the order that QEMU 11.1 was seen to use. */
#include "frontend.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

struct fe *
fe_new (void) {
  struct fe *fe = g_new0 (struct fe, 1);

  fe->sock = fe->channel = fe->channel_theirs = fe->window.fd = -1;
  fe->features_mask = ~0ull;
  fe->ram_fd = memfd_create ("guest-ram", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fe->ram_fd < 0 || ftruncate (fe->ram_fd, FE_RAM_BYTES) < 0)
    g_error ("guest RAM: %s", g_strerror (errno));
  fe->ram = mmap (NULL, FE_RAM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fe->ram_fd, 0);
  if (fe->ram == MAP_FAILED)
    g_error ("guest RAM: %s", g_strerror (errno));
  for (unsigned i = 0; i < DOMYBS_VQ_COUNT; i++) {
    struct fe_queue *queue = &fe->queues[i];

    queue->index = i;
    queue->num = FE_QUEUE_SIZE;
    queue->desc_gpa = FE_RAM_GPA + 0x10000 * (i + 1);
    queue->avail_gpa = queue->desc_gpa + 0x4000;
    queue->used_gpa = queue->desc_gpa + 0x8000;
    queue->kick = eventfd (0, EFD_CLOEXEC | EFD_NONBLOCK);
    queue->call = eventfd (0, EFD_CLOEXEC | EFD_NONBLOCK);
    fe_queue_locate (fe, queue);
  }
  return fe;
}

void
fe_free (struct fe *fe) {
  if (!fe)
    return;
  fe_disconnect (fe);
  for (unsigned i = 0; i < DOMYBS_VQ_COUNT; i++) {
    close (fe->queues[i].kick);
    close (fe->queues[i].call);
  }
  if (fe->window.map)
    munmap (fe->window.map, fe->window.bytes);
  fe_close (&fe->window.fd);
  munmap (fe->ram, FE_RAM_BYTES);
  close (fe->ram_fd);
  g_free (fe->why);
  g_free (fe);
}

const char *
fe_step_name (enum fe_step step) {
  static const char *const names[] = {
    "connect",       "get-features",  "get-protocol-features", "set-protocol-features", "get-queue-num", "set-backend-channel",
    "set-owner",     "set-calls",     "get-shmem-config",      "set-features",          "set-mem-table", "set-vring-num",
    "set-vring-base", "set-vring-addr", "set-vring-kick",      "set-vring-call",        "set-vring-enable", "hello",
  };

  G_STATIC_ASSERT (G_N_ELEMENTS (names) == FE_STEPS);
  return names[step];
}

static bool
send_channel (struct fe *fe) {
  int pair[2];

  if (socketpair (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
    return fe_fail (fe, "socketpair: %s", g_strerror (errno));
  fe->channel = pair[0];
  fe->channel_theirs = pair[1];
  if (!fe_send_acked (fe, FE_SET_BACKEND_REQ_FD, NULL, 0, &fe->channel_theirs, 1))
    return false;
  fe_close (&fe->channel_theirs);
  return true;
}

static bool
get_shmem_config (struct fe *fe) {
  struct {
    uint32_t n, padding;
    uint64_t sizes[256];
  } reply;
  uint32_t bytes;

  if (!fe_send (fe, FE_GET_SHMEM_CONFIG, 0, NULL, 0, NULL, 0)
      || !fe_receive (fe, FE_GET_SHMEM_CONFIG, &reply, sizeof reply, &bytes))
    return false;
  /* QEMU 11.1 wants exactly the regions that there are, or all 256 slots. */
  if (bytes < 16 || reply.n < 1)
    return fe_fail (fe, "GET_SHMEM_CONFIG: %u bytes, %u regions", bytes, reply.n);
  fe->shmem_bytes = reply.sizes[0];
  return true;
}

static bool
for_all_queues (struct fe *fe, bool (*send) (struct fe *, struct fe_queue *)) {
  for (unsigned i = 0; i < DOMYBS_VQ_COUNT; i++)
    if (!send (fe, &fe->queues[i]))
      return false;
  return true;
}

static bool
set_num (struct fe *fe, struct fe_queue *queue) {
  return fe_set_state (fe, FE_SET_VRING_NUM, queue->index, queue->num);
}

static bool
set_base (struct fe *fe, struct fe_queue *queue) {
  return fe_set_state (fe, FE_SET_VRING_BASE, queue->index, queue->next_avail);
}

static bool
enable (struct fe *fe, struct fe_queue *queue) {
  queue->started = fe_set_state (fe, FE_SET_VRING_ENABLE, queue->index, 1);
  return queue->started;
}

/* At realize QEMU sends the call fd with NEED_REPLY; so it learns at once whether the back-end is there. */
static bool
first_call (struct fe *fe, struct fe_queue *queue) {
  const uint64_t index = queue->index;

  return fe_send_acked (fe, FE_SET_VRING_CALL, &index, sizeof index, &queue->call, 1);
}

bool
fe_step (struct fe *fe, enum fe_step step, const char *path) {
  switch (step) {
  case FE_STEP_CONNECT:
    return fe_connect (fe, path);
  case FE_STEP_GET_FEATURES:
    return fe_get_u64 (fe, FE_GET_FEATURES, &fe->features_offered);
  case FE_STEP_GET_PROTOCOL:
    return fe_get_u64 (fe, FE_GET_PROTOCOL_FEATURES, &fe->protocol_offered);
  case FE_STEP_SET_PROTOCOL:
    fe->protocol = fe->protocol_offered & FE_PROTOCOL_WANTED;
    return fe_set_u64 (fe, FE_SET_PROTOCOL_FEATURES, fe->protocol);
  case FE_STEP_QUEUE_NUM:
    return fe_get_u64 (fe, FE_GET_QUEUE_NUM, &fe->queue_count);
  case FE_STEP_CHANNEL:
    return send_channel (fe);
  case FE_STEP_OWNER:
    return fe_send (fe, FE_SET_OWNER, 0, NULL, 0, NULL, 0) && fe_get_u64 (fe, FE_GET_FEATURES, &fe->features_offered);
  case FE_STEP_VRING_CALLS:
    return for_all_queues (fe, first_call);
  case FE_STEP_SHMEM_CONFIG:
    return get_shmem_config (fe);
  case FE_STEP_SET_FEATURES:
    fe->features = fe->features_offered & fe->features_mask & (FE_F_INDIRECT | FE_F_EVENT_IDX | FE_F_PROTOCOL | FE_F_VERSION_1);
    return fe_set_u64 (fe, FE_SET_FEATURES, fe->features);
  case FE_STEP_MEM_TABLE:
    return fe_send_mem_table (fe);
  case FE_STEP_VRING_NUM:
    return for_all_queues (fe, set_num);
  case FE_STEP_VRING_BASE:
    return for_all_queues (fe, set_base);
  case FE_STEP_VRING_ADDR:
    return for_all_queues (fe, fe_queue_send_addr);
  case FE_STEP_VRING_KICK:
    return for_all_queues (fe, fe_queue_send_kick);
  case FE_STEP_VRING_CALL:
    return for_all_queues (fe, fe_queue_send_call);
  case FE_STEP_ENABLE:
    return for_all_queues (fe, enable);
  case FE_STEP_HELLO: {
    struct fe_answer answer;

    return fe_hello (fe, 64, &answer) && (answer.status == DOMYBS_OK || fe_fail (fe, "HELLO: status %u", answer.status));
  }
  case FE_STEPS:
    break;
  }
  return fe_fail (fe, "no such step");
}

bool
fe_steps_to (struct fe *fe, enum fe_step last, const char *path) {
  for (enum fe_step step = FE_STEP_CONNECT; step <= last; step++)
    if (!fe_step (fe, step, path)) {
      g_autofree char *why = g_steal_pointer (&fe->why);

      return fe_fail (fe, "%s: %s", fe_step_name (step), why ? why : "?");
    }
  return true;
}

bool
fe_open (struct fe *fe, const char *path) {
  return fe_steps_to (fe, FE_STEP_HELLO, path);
}
