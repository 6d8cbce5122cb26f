/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Requests that take a while: the region that remembers them, over the stop of a queue, and a change of the VM's memory. */
#include "front.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/inflight.h"
#include "core/vhost-user.h"
#include "testing.h"

/* ---- the region ---- */

static void
test_region (void) {
  struct front front;
  const int all = F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL;
  uint8_t byte;

  front_begin (&front);
  front_start (&front);
  g_assert_cmpuint (front.inflight_bytes, ==, FRONT_QUEUES * inflight_region_bytes (FRONT_NUM));
  g_assert_cmpint (lseek (front.inflight_fd, 0, SEEK_END), ==, (off_t)front.inflight_bytes);
  g_assert_cmpint (fcntl (front.inflight_fd, F_GET_SEALS), ==, all);
  for (uint64_t i = inflight_region_bytes (FRONT_NUM); i < front.inflight_bytes; i++) { /* of queues that do not run */
    g_assert_cmpint (pread (front.inflight_fd, &byte, 1, (off_t)i), ==, 1);
    g_assert_cmpuint (byte, ==, 0);
  }
  front_end (&front);
}

static void
test_region_refused (void) {
  static const struct {
    uint64_t bytes, offset;
    uint16_t n_queues, queue_size;
    const char *why;
  } cases[] = {
    { 1 << 20, 0, 0, 8, "an inflight region for more queues than there are, or for none" },
    { 1 << 20, 0, 17, 8, "an inflight region for more queues than there are, or for none" },
    { 1 << 20, 0, 0xffff, 8, "an inflight region for more queues than there are, or for none" },
    { 1 << 20, 0, 1, 0, "an inflight region for queues of a size that none can have" },
    { 1 << 20, 0, 1, 1025, "an inflight region for queues of a size that none can have" },
    { 0, 0, 1, 8, "an inflight region that is too small for its queues" },
    { 2 * 192 - 1, 0, 2, 8, "an inflight region that is too small for its queues" },
    { 192, 8, 1, 8, "a misaligned inflight region" },
    { 192, 4096, 1, 8, "an inflight region that can't be mapped" }, /* the file ends there */
    { 192, 3968, 1, 8, "an inflight region that can't be mapped" },
    { 192, 1ull << 62, 1, 8, "an inflight region that can't be mapped" },
    { 16 * 16448, 0, 16, 1024, "an inflight region that can't be mapped" },
    { 192, 3904, 1, 8, NULL },
    { UINT64_MAX, 0, 1, 8, NULL }, /* says more than it needs, and not more than there is */
    { 192, 0, 1, 8, NULL },
  };
  struct front front;
  const int fd = memfd_create ("small", MFD_CLOEXEC);

  g_assert_cmpint (ftruncate (fd, 4096), ==, 0);
  front_begin (&front);
  for (size_t i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_test_message ("case %zu", i);
    front_connect (&front);
    front_negotiate (&front);
    front_set_inflight (&front, fd, cases[i].bytes, cases[i].offset, cases[i].n_queues, cases[i].queue_size);
    front_run (&front);
    if (cases[i].why)
      front_expect_closed (&front, cases[i].why);
    else
      g_assert_cmpuint (front.n_closed, ==, 0);
  }
  front_connect (&front);
  front_negotiate (&front);
  front_set_inflight (&front, front.kicks[0], 192, 0, 1, 8);
  front_expect_closed (&front, "an inflight region that can't be mapped");
  front_connect (&front);
  front_start (&front);
  front_give_inflight (&front);
  front_expect_closed (&front, "the inflight region can't change while a queue runs");
  front_end (&front);
  close (fd);
}

/* Who has lost the data must not go on as if nothing had been. */
static void
test_owner (void) {
  struct front front;
  const uint8_t *ours = (const uint8_t *)"0123456789abcdef", *theirs = (const uint8_t *)"0123456789abcdeF";

  front_begin (&front);
  front.type.inflight_owner = ours;
  front_connect (&front);
  front_start (&front);
  front_connect (&front);
  front_start (&front);
  g_assert_cmpuint (front.n_closed, ==, 0);
  front.type.inflight_owner = theirs;
  front_connect (&front);
  front_start (&front);
  front_expect_closed (&front, "the VM has worked with another back-end, which took the data with it: the VM has to be reset");
  front_connect (&front);
  front_negotiate (&front);
  front_set_inflight (&front, front.inflight_fd, front.inflight_bytes - 64, 0, FRONT_QUEUES, FRONT_NUM);
  front_expect_closed (&front, "an inflight region that is too small for its queues");
  close (front.inflight_fd); /* the VM is reset */
  front.inflight_fd = -1;
  front_connect (&front);
  front_start (&front);
  g_assert_cmpuint (front.n_closed, ==, 0);
  front_end (&front);
}

static void
test_queue_does_not_fit (void) {
  struct front front;

  front_begin (&front);
  front_negotiate (&front);
  front_set_inflight (&front, front.ram_fd, 4096, 0x80000, 2, FRONT_NUM / 2);
  front_give_memory (&front);
  front_start_queue (&front, 0);
  front_run (&front);
  g_assert_true (front_signalled (front.errs[0]));
  front_offer (&front, 0, 0, "?");
  front_kick (&front, 0);
  g_assert_cmpuint (front.n_taken, ==, 0);
  g_assert_cmpuint (front.n_closed, ==, 0);
  front_end (&front);
}

static void
test_hostile_region (void) {
  static const struct {
    off_t at;
    uint16_t value;
    const char *what;
  } cases[] = {
    { 8, 2, "version" },
    { 12, FRONT_NUM, "last_batch_head" },
    { 14, 0x8000, "used_idx" },
  };
  struct front front;

  front_begin (&front);
  for (size_t i = 0; i < G_N_ELEMENTS (cases); i++) {
    const uint16_t old_used = 0xffff;

    g_test_message ("%s", cases[i].what);
    if (front.inflight_fd >= 0)
      close (front.inflight_fd);
    front.inflight_fd = -1;
    front_connect (&front);
    front_start (&front);
    front_connect (&front);
    front_signalled (front.errs[0]);
    g_assert_cmpint (pwrite (front.inflight_fd, &old_used, 2, 14), ==, 2); /* one is to be settled */
    g_assert_cmpint (pwrite (front.inflight_fd, &cases[i].value, 2, cases[i].at), ==, 2);
    front_start (&front);
    g_assert_true (front_signalled (front.errs[0]));
    front_offer (&front, 0, 0, "?");
    front_kick (&front, 0);
    g_assert_cmpuint (front.n_taken, ==, 0);
    g_assert_cmpuint (front.n_closed, ==, 0); /* the queue's end, not the session's */
    front.avail[0]--;
    memcpy (front.ram + FRONT_AVAIL + 2, &front.avail[0], 2);
  }
  front_end (&front);
}

/* A region of the front-end's own can be taken away again. */
static void
test_region_taken_away (void) {
  struct front front;

  front_begin (&front);
  front_negotiate (&front);
  front.inflight_fd = memfd_create ("own", MFD_CLOEXEC);
  front.inflight_bytes = FRONT_QUEUES * inflight_region_bytes (FRONT_NUM);
  g_assert_cmpint (ftruncate (front.inflight_fd, (off_t)front.inflight_bytes), ==, 0);
  front_give_inflight (&front);
  front_give_memory (&front);
  front_start_queue (&front, 0);
  front_run (&front);
  g_assert_cmpint (ftruncate (front.inflight_fd, 0), ==, 0);
  front_offer (&front, 0, 0, "?");
  front_kick (&front, 0);
  front_expect_closed (&front, "the front-end took away memory that it had given us");
  front_end (&front);
}

static void
test_same_head_twice (void) {
  struct front front;

  front_begin (&front);
  front_start (&front);
  front_offer (&front, 0, 2, "?");
  front_kick (&front, 0);
  front_offer (&front, 0, 2, "?");
  g_assert_false (front_signalled (front.errs[0]));
  front_kick (&front, 0);
  FRONT_EXPECT_TAKEN (&front, 2);
  g_assert_true (front_signalled (front.errs[0]));
  front_device_answer (&front, 0);
  g_assert_cmpuint (front.n_closed, ==, 0);
  front_end (&front);
}

/* ---- stop ---- */

static void
test_stop_waits (void) {
  struct front front;
  VhostUserSession *session;
  uint32_t state[2];

  front_begin (&front);
  front_start (&front);
  session = vhost_user_socket_session (front.socket);
  front_start_queue (&front, 1);
  front_offer_three (&front);
  front_offer (&front, 0, 1, "not any more");
  front_send_state (&front, VHU_GET_VRING_BASE, 0, 0);
  front_send (&front, VHU_GET_QUEUE_NUM, NULL, 0, NULL, 0);
  g_assert_cmpint (front_reply (&front, VHU_GET_VRING_BASE, state, sizeof state, NULL), ==, -1);
  g_assert_cmpuint (front.n_stops, ==, 1);
  front_kick (&front, 0);
  g_assert_cmpuint (front.n_taken, ==, 3);
  front_offer (&front, 1, 0, "another queue"); /* goes on */
  front_kick (&front, 1);
  g_assert_cmpuint (front.n_taken, ==, 4);
  front_device_answer (&front, 3);
  while (front.n_taken) {
    g_assert_cmpuint (vhost_user_session_in_flight (session, 0), ==, front.n_taken);
    front_device_answer (&front, 0);
    g_assert_cmpint (front_reply (&front, VHU_GET_VRING_BASE, state, sizeof state, NULL), ==, -1);
  }
  FRONT_EXPECT_ANSWERS (&front, 2, 0, 3);
  g_assert_true (front_signalled (front.calls[0]));
  vhost_user_session_stopped (session, 1); /* nobody asked */
  g_assert_cmpint (front_reply (&front, VHU_GET_VRING_BASE, state, sizeof state, NULL), ==, -1);
  vhost_user_session_stopped (session, 0);
  g_assert_cmpint (front_reply (&front, VHU_GET_VRING_BASE, state, sizeof state, NULL), ==, 8);
  g_assert_cmpuint (state[0], ==, 0);
  g_assert_cmpuint (state[1], ==, 3);
  g_assert_cmpint (front_reply (&front, VHU_GET_QUEUE_NUM, (uint64_t[1]){ 0 }, 8, NULL), ==, 8);
  vhost_user_session_stopped (session, 0);
  g_assert_cmpint (front_reply (&front, VHU_GET_VRING_BASE, state, sizeof state, NULL), ==, -1);
  front_send_state (&front, VHU_GET_VRING_BASE, 1, 0);
  g_assert_cmpint (front_reply (&front, VHU_GET_VRING_BASE, state, sizeof state, NULL), ==, 8);
  front_give_inflight (&front); /* as QEMU does before each start */
  front_start_queue (&front, 0);
  front_run (&front);
  g_assert_cmpuint (front.n_closed, ==, 0);
  FRONT_EXPECT_TAKEN (&front, 1);
  front_end (&front);
}

static void
test_stop_from_within (void) {
  struct front front;
  uint32_t state[2];

  front_begin (&front);
  front.stop_at_once = TRUE;
  front_start (&front);
  for (unsigned i = 0; i < 3; i++) {
    front_offer_three (&front);
    front_send_state (&front, VHU_GET_VRING_BASE, 0, 0);
    g_assert_cmpint (front_reply (&front, VHU_GET_VRING_BASE, state, sizeof state, NULL), ==, 8);
    g_assert_cmpuint (state[1], ==, 3 * (i + 1));
    FRONT_EXPECT_ANSWERS (&front, 2, 0, 3);
    front_start_queue (&front, 0);
    front_run (&front);
  }
  g_assert_cmpuint (front_ask_u64 (&front, VHU_GET_QUEUE_NUM), ==, FRONT_QUEUES);
  front_end (&front);
}

/* QEMU dies while it waits for a queue to stop. */
static void
test_front_end_dies_in_stop (void) {
  struct front front;

  front_begin (&front);
  front_start (&front);
  front_offer_three (&front);
  front_send_state (&front, VHU_GET_VRING_BASE, 0, 0);
  front_run (&front);
  close (front.fd);
  front.fd = -1;
  front_expect_closed (&front, NULL);
  front_connect (&front);
  front_start (&front);
  FRONT_EXPECT_TAKEN (&front, 2, 0, 3);
  front_end (&front);
}

/* ---- memory ---- */

static void
test_memory_moves (void) {
  struct front front;
  const int more = memfd_create ("more", MFD_CLOEXEC);
  const uint64_t two[9] = { 2,
                            FRONT_GUEST_BASE + FRONT_RAM_BYTES, 4096, FRONT_USER_BASE + FRONT_RAM_BYTES, 0,
                            FRONT_GUEST_BASE, FRONT_RAM_BYTES, FRONT_USER_BASE, 0 };

  g_assert_cmpint (ftruncate (more, 4096), ==, 0);
  front_begin (&front);
  front_start (&front);
  front_offer_three (&front);
  front_send (&front, VHU_SET_MEM_TABLE, two, sizeof two, (const int[]){ more, front.ram_fd }, 2);
  front_run (&front);
  g_assert_cmpuint (front.n_memory_changes, ==, 2);
  g_assert_cmpint (front.moves_failed, ==, 0);
  FRONT_EXPECT_TAKEN (&front, 2, 0, 3); /* once */
  for (unsigned i = 0; i < 50; i++) { /* and what it was before is given back */
    front_give_memory (&front);
    front_send (&front, VHU_SET_MEM_TABLE, two, sizeof two, (const int[]){ more, front.ram_fd }, 2);
    front_run (&front);
  }
  g_assert_cmpuint (front.n_closed, ==, 0);
  g_assert_cmpint (front.moves_failed, ==, 0);
  while (front.n_taken)
    front_device_answer (&front, 0);
  FRONT_EXPECT_ANSWERS (&front, 2, 0, 3);
  g_assert_cmpstr (front_answer (&front, 0, 3), ==, "ok: three");
  front_end (&front);
  close (more);
}

/* Where a request's memory has gone, it is told so, and nothing is written anywhere. */
static void
test_memory_goes (void) {
  struct front front;
  const uint64_t rest[5] = { 1, FRONT_GUEST_BASE + 4096, FRONT_RAM_BYTES - 4096, FRONT_USER_BASE + 4096, 4096 };
  /* the rings stay where the front-end says they are; only at the guest's addresses there is nothing any more */
  const uint64_t elsewhere[5] = { 1, FRONT_GUEST_BASE + FRONT_RAM_BYTES, FRONT_RAM_BYTES, FRONT_USER_BASE, 0 };
  uint16_t heads[FRONT_NUM];

  front_begin (&front);
  front_start (&front);
  front_offer_three (&front);
  front.drops_what_is_gone = TRUE;
  front_signalled (front.calls[0]);
  front_send (&front, VHU_SET_MEM_TABLE, elsewhere, sizeof elsewhere, &front.ram_fd, 1);
  front_run (&front);
  g_assert_cmpint (front.moves_failed, ==, 3);
  g_assert_cmpuint (front_collect (&front, 0, heads), ==, 3);
  g_assert_true (front_signalled (front.calls[0]));
  g_assert_cmpuint (vhost_user_session_in_flight (vhost_user_socket_session (front.socket), 0), ==, 0);
  front_give_memory (&front);
  front_run (&front);
  front.drops_what_is_gone = FALSE;
  front.moves_failed = 0;
  front_offer_three (&front);
  front_send (&front, VHU_SET_MEM_TABLE, rest, sizeof rest, &front.ram_fd, 1);
  front_run (&front);
  g_assert_cmpint (front.moves_failed, ==, 3);
  front.n_taken = 0;
  g_assert_cmpuint (vhost_user_session_in_flight (vhost_user_socket_session (front.socket), 0), ==, 3);
  for (uint16_t head = 0; head < 4; head++)
    vhost_user_session_push (vhost_user_socket_session (front.socket), 0, head, 0);
  g_assert_cmpuint (vhost_user_session_in_flight (vhost_user_socket_session (front.socket), 0), ==, 0);
  front_expect_answers (&front, 0, NULL);
  g_assert_cmpuint (front.n_closed, ==, 0);
  front_end (&front);
}

/* ---- memory, region by region ---- */

#define RINGS_BYTES 0x1000u /* queue 0's rings and data are in the first of two regions, queue 1's in the second */

static void
begin_slots (struct front *front) {
  front_begin (front);
  front->type.mem_slots = TRUE;
  front_connect (front);
  front_negotiate (front);
  front_give_inflight (front);
}

static void
test_slots (void) {
  struct front front;

  begin_slots (&front);
  g_assert_cmpuint (front_ask_u64 (&front, VHU_GET_MAX_MEM_SLOTS), ==, GUEST_REGIONS_MAX);
  front_add_memory (&front, 0, RINGS_BYTES);
  front_start_queue (&front, 0);
  front_run (&front);
  front_offer_three (&front);
  for (unsigned i = 1; i < GUEST_REGIONS_MAX; i++) /* nothing moves for those in flight */
    front_add_memory (&front, i * 0x4000, 0x4000);
  front_run (&front);
  g_assert_cmpuint (front.n_closed, ==, 0);
  g_assert_cmpuint (front.n_memory_changes, ==, 0);
  while (front.n_taken)
    front_device_answer (&front, 0);
  FRONT_EXPECT_ANSWERS (&front, 2, 0, 3);
  for (unsigned i = 1; i < GUEST_REGIONS_MAX; i++) {
    front_remove_memory (&front, i * 0x4000, 0x4000);
    front_add_memory (&front, i * 0x4000, 0x4000);
  }
  front_offer_three (&front);
  front_add_memory (&front, 0xf0000, 0x1000);
  front_expect_closed (&front, "more memory regions than there are slots");
  front_end (&front);
}

static void
test_slots_refused (void) {
  static const struct {
    uint64_t add, add_bytes, remove, remove_bytes;
    const char *why;
  } cases[] = {
    { 0x0000, 0x2000, 0, 0, "memory regions overlap" },
    { 0x1000, 0x1000, 0, 0, "memory regions overlap" },
    { 0x2fff, 0x1000, 0, 0, "memory regions overlap" },
    { 0x0000, 0x8000, 0, 0, "memory regions overlap" },
    { 0x3000, FRONT_RAM_BYTES, 0, 0, "a memory region can't be mapped" },
    { 0, 0, 0x0000, 0x2000, "no such memory region" },
    { 0, 0, 0x1000, 0x1000, "no such memory region" },
    { 0, 0, 0x1000, 0x2001, "no such memory region" },
    { 0, 0, 0x2000, 0x1000, "no such memory region" },
    { 0x3000, 0x1000, 0x1000, 0x2000, NULL },
    { 0x0000, 0x1000, 0x1000, 0x2000, NULL },
  };
  struct front front;

  begin_slots (&front);
  for (size_t i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_test_message ("case %zu", i);
    front_connect (&front);
    front_negotiate (&front);
    front_add_memory (&front, 0x1000, 0x2000);
    if (cases[i].add_bytes)
      front_add_memory (&front, cases[i].add, cases[i].add_bytes);
    if (cases[i].remove_bytes)
      front_remove_memory (&front, cases[i].remove, cases[i].remove_bytes);
    front_run (&front);
    if (cases[i].why)
      front_expect_closed (&front, cases[i].why);
    else
      g_assert_cmpuint (front.n_closed, ==, 0);
  }
  front.type.mem_slots = FALSE;
  front_connect (&front);
  front_negotiate (&front);
  front_add_memory (&front, 0x1000, 0x2000);
  front_expect_closed (&front, "a request whose protocol feature was not negotiated");
  front_end (&front);
}

/* A region is removed and added again, somewhere else for us, while requests are in flight whose rings and buffers are in it. */
static void
test_slots_change_under_requests (void) {
  struct front front;
  VhostUserSession *session;

  begin_slots (&front);
  front_add_memory (&front, 0, FRONT_RAM_BYTES);
  front_start_queue (&front, 0);
  front_run (&front);
  session = vhost_user_socket_session (front.socket);
  for (unsigned round = 0; round < 300; round++) { /* more often than there is room for what leaves, or for mappings */
    front_offer_three (&front);
    front_remove_memory (&front, 0, FRONT_RAM_BYTES);
    front_run (&front);
    front_device_answer (&front, 1); /* without rings: later */
    front_expect_answers (&front, 0, NULL);
    if (round % 2)
      front_add_memory (&front, 0, FRONT_RAM_BYTES / 2);
    front_add_memory (&front, FRONT_RAM_BYTES / 2, FRONT_RAM_BYTES / 2);
    front_run (&front);
    if (round % 2 == 0) {
      front_expect_answers (&front, 0, NULL);
      front_add_memory (&front, 0, FRONT_RAM_BYTES / 2);
      front_run (&front);
    }
    FRONT_EXPECT_ANSWERS (&front, 0);
    g_assert_true (front_signalled (front.calls[0]));
    g_assert_cmpstr (front_answer (&front, 0, 0), ==, "ok: zero");
    front_offer (&front, 0, 1, "new");
    front_kick (&front, 0);
    FRONT_EXPECT_TAKEN (&front, 2, 3, 1);
    front_device_answer (&front, 2);
    front_device_answer (&front, 0);
    front_device_answer (&front, 0);
    FRONT_EXPECT_ANSWERS (&front, 1, 2, 3);
    g_assert_cmpstr (front_answer (&front, 0, 2), ==, "ok: two");
    g_assert_cmpuint (vhost_user_session_in_flight (session, 0), ==, 0);
    front_remove_memory (&front, 0, FRONT_RAM_BYTES / 2);
    front_remove_memory (&front, FRONT_RAM_BYTES / 2, FRONT_RAM_BYTES / 2);
    front_add_memory (&front, 0, FRONT_RAM_BYTES);
    front_run (&front);
    g_assert_cmpuint (front.n_closed, ==, 0);
  }
  g_assert_false (front_signalled (front.errs[0]));
  g_assert_cmpuint (front.n_memory_changes, ==, 0);
  front_end (&front);
}

/* A request that never ends keeps what it uses, and no more than there is room for. */
static void
test_slots_and_a_hung_request (void) {
  struct front front;
  unsigned removed = 0;

  begin_slots (&front);
  front_add_memory (&front, 0, RINGS_BYTES);
  front_start_queue (&front, 0);
  front_run (&front);
  front_offer_three (&front);
  for (; removed < 100 && !front.n_closed; removed++) {
    front_add_memory (&front, 0x10000, 0x1000);
    front_remove_memory (&front, 0x10000, 0x1000);
    front_run (&front);
  }
  g_assert_cmpuint (removed, ==, GUEST_REGIONS_MAX + 1);
  front_expect_closed (&front, "too many memory regions are removed while requests wait");
  front_end (&front);
}

/* A queue that stops while its rings are away: what could not be told comes again. */
static void
test_slots_and_a_stop (void) {
  struct front front;
  uint32_t state[2];

  begin_slots (&front);
  front_add_memory (&front, 0, FRONT_RAM_BYTES);
  front_start_queue (&front, 0);
  front_run (&front);
  front_offer_three (&front);
  front_remove_memory (&front, 0, FRONT_RAM_BYTES);
  front_run (&front);
  while (front.n_taken)
    front_device_answer (&front, 0);
  front_send_state (&front, VHU_GET_VRING_BASE, 0, 0);
  front_run (&front);
  vhost_user_session_stopped (vhost_user_socket_session (front.socket), 0);
  g_assert_cmpint (front_reply (&front, VHU_GET_VRING_BASE, state, sizeof state, NULL), ==, 8);
  front_add_memory (&front, 0, FRONT_RAM_BYTES);
  front_start_queue (&front, 0);
  front_run (&front);
  FRONT_EXPECT_TAKEN (&front, 2, 0, 3);
  front_remove_memory (&front, 0, FRONT_RAM_BYTES);
  front_add_memory (&front, 0, FRONT_RAM_BYTES);
  front_run (&front);
  front_expect_answers (&front, 0, NULL); /* the answers of then are not those of now */
  front_end (&front);
}

int
main (int argc, char **argv) {
  front_tests_init (&argc, &argv);
  g_test_add_func ("/vhost-user-inflight/region/it is zero and keeps its size", test_region);
  g_test_add_func ("/vhost-user-inflight/region/what does not fit is refused", test_region_refused);
  g_test_add_func ("/vhost-user-inflight/region/that of another owner is refused", test_owner);
  g_test_add_func ("/vhost-user-inflight/region/a queue that does not fit does not run", test_queue_does_not_fit);
  g_test_add_func ("/vhost-user-inflight/region/nonsense in it breaks the queue", test_hostile_region);
  g_test_add_func ("/vhost-user-inflight/region/it may be taken away", test_region_taken_away);
  g_test_add_func ("/vhost-user-inflight/a head that is in flight is not taken again", test_same_head_twice);
  g_test_add_func ("/vhost-user-inflight/stop/it waits for what is in flight", test_stop_waits);
  g_test_add_func ("/vhost-user-inflight/stop/a device may end it at once", test_stop_from_within);
  g_test_add_func ("/vhost-user-inflight/stop/a front-end that dies meanwhile is let go", test_front_end_dies_in_stop);
  g_test_add_func ("/vhost-user-inflight/memory/requests move with it", test_memory_moves);
  g_test_add_func ("/vhost-user-inflight/memory/requests that it has left end", test_memory_goes);
  g_test_add_func ("/vhost-user-inflight/slots/regions come and go one by one", test_slots);
  g_test_add_func ("/vhost-user-inflight/slots/what does not fit is refused", test_slots_refused);
  g_test_add_func ("/vhost-user-inflight/slots/requests outlive the change of their region", test_slots_change_under_requests);
  g_test_add_func ("/vhost-user-inflight/slots/a request that hangs keeps so much and no more", test_slots_and_a_hung_request);
  g_test_add_func ("/vhost-user-inflight/slots/a queue may stop while its rings are away", test_slots_and_a_stop);
  return g_test_run ();
}
