/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Window memory that the guest was not granted: touching it does not last longer than the audit interval, and is counted; rings
 * and buffers in window memory are refused. Costs are read from the memfd itself (st_blocks), through the descriptor that QEMU gets.
 */
#include "rig.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE 4096u

static uint64_t
memfd_bytes (int fd) {
  struct stat st;

  g_assert_cmpint (fstat (fd, &st), ==, 0);
  return (uint64_t)st.st_blocks * 512;
}

/* An audit comes every 200 ms, on a machine that does nothing else. */
static bool
costs_within_audit (int fd, uint64_t bytes) {
  const int64_t deadline = fe_now_ms () + fe_patience_ms ();

  while (memfd_bytes (fd) != bytes) {
    if (fe_now_ms () > deadline)
      return false;
    g_usleep (5000);
  }
  return true;
}

static void
touch (struct fe *fe, uint64_t block, uint64_t bytes) {
  for (uint64_t i = 0; i < bytes; i += PAGE)
    fe_block (fe, block)[i] = 0x42;
}

static int64_t
punched (struct rig *rig) {
  return backend_status (rig->backend, "audit-punched-bytes");
}

static void
touched_without_a_grant (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open (rig);
  const int64_t before = punched (rig);
  struct fe_answer answer;

  fe_must (fe, fe_grant (fe, 1, DOMYBS_HINT_ANY, 0, 100, 1, &answer));
  touch (fe, 100, PAGE); /* granted: stays */
  touch (fe, 101, PAGE);
  touch (fe, 99, PAGE);
  touch (fe, 500, 3 * DOMYBS_BLOCK_BYTES);
  touch (fe, RIG_WINDOW_BLOCKS - 1, PAGE); /* the section that is never granted */
  g_assert_true (costs_within_audit (fe->window.fd, PAGE));
  g_assert_cmpuint (*fe_block (fe, 100), ==, 0x42);
  g_assert_cmpuint (*fe_block (fe, 99), ==, 0);
  g_assert_cmpint (punched (rig) - before, >=, (int64_t)(3 * DOMYBS_BLOCK_BYTES + 3 * PAGE));
  rig_expect_logged (rig, "not granted");
}

static void
touched_again_after_its_release (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open (rig);
  struct fe_answer answer;

  fe_must (fe, fe_grant (fe, 4, DOMYBS_HINT_ANY, DOMYBS_GRANT_F_ALL, 0, 0, &answer));
  const struct domybs_run run = answer.runs[0];
  touch (fe, run.start, 4 * DOMYBS_BLOCK_BYTES);
  fe_must (fe, fe_release (fe, &run, 1, &answer));
  touch (fe, run.start, 4 * DOMYBS_BLOCK_BYTES);
  g_assert_true (costs_within_audit (fe->window.fd, 0));
}

static void
touched_after_bye (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open (rig);
  struct fe_answer answer;

  fe_must (fe, fe_grant (fe, 4, DOMYBS_HINT_ANY, DOMYBS_GRANT_F_ALL, 0, 0, &answer));
  touch (fe, answer.runs[0].start, DOMYBS_BLOCK_BYTES);
  fe_must (fe, fe_bye (fe, &answer));
  touch (fe, 0, 8 * DOMYBS_BLOCK_BYTES);
  g_assert_true (costs_within_audit (fe->window.fd, 0));
}

/* The front-end has broken the protocol and was closed, but the guest still runs with the window mapped (QEMU keeps it). */
static void
touched_after_the_connection_was_closed (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open (rig);
  const uint32_t nonsense[3] = { 4711, 1, 0 };

  fe_must (fe, fe_send_raw (fe, fe->sock, nonsense, sizeof nonsense, NULL, 0));
  rig_expect_closed (rig, fe, "unknown request");
  touch (fe, 0, 8 * DOMYBS_BLOCK_BYTES);
  g_assert_true (costs_within_audit (fe->window.fd, 0));
}

/* The table without the window says that the guest was reset. Somebody who keeps the map all the same gains nothing. */
static void
touched_after_a_reset (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open (rig);
  struct fe_region region = fe_ram_region (fe);
  uint64_t ack;

  fe_must (fe, fe_send_regions (fe, &region, 1, &fe->ram_fd, 1, &ack));
  g_assert_cmpuint (ack, ==, 0);
  touch (fe, 0, 8 * DOMYBS_BLOCK_BYTES);
  g_assert_true (costs_within_audit (fe->window.fd, 0));
}

struct toucher {
  struct fe *fe;
  volatile int stop;
};

static gpointer
keep_touching (gpointer data) {
  struct toucher *toucher = data;

  for (uint64_t at = 0; !toucher->stop; at = (at + PAGE) % (64 * DOMYBS_BLOCK_BYTES)) {
    fe_block (toucher->fe, 200)[at] = 1;
    if (at % (16 * PAGE) == 0)
      g_usleep (200);
  }
  return NULL;
}

/* Never below the audits, but never above what can be touched in a few of them either; and zero once it stops. */
static void
touched_all_the_time (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open (rig);
  struct toucher toucher = { fe, 0 };
  GThread *thread = g_thread_new ("touch", keep_touching, &toucher);
  struct fe_answer answer;

  for (int i = 0; i < 100; i++) {
    fe_must (fe, fe_grant (fe, 1, DOMYBS_HINT_ANY, 0, 0, 64, &answer));
    fe_must (fe, fe_release (fe, answer.runs, 1, &answer));
    g_usleep (5000);
  }
  toucher.stop = 1;
  g_thread_join (thread);
  g_assert_true (costs_within_audit (fe->window.fd, 0));
}

/* ---- the file itself ---- */

static void
memfd_is_sealed (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open (rig);
  const int fd = fe->window.fd, seals = fcntl (fd, F_GET_SEALS);
  const off_t size = (off_t)RIG_WINDOW_BLOCKS * (off_t)DOMYBS_BLOCK_BYTES;
  struct stat st;

  g_assert_cmpint (seals & (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL), ==, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
  g_assert_cmpint (ftruncate (fd, 0), ==, -1);
  g_assert_cmpint (errno, ==, EPERM);
  g_assert_cmpint (ftruncate (fd, size - 4096), ==, -1);
  g_assert_cmpint (ftruncate (fd, size + 4096), ==, -1);
  g_assert_cmpint (fallocate (fd, 0, size, 4096), ==, -1);
  g_assert_cmpint (pwrite (fd, "x", 1, size), ==, -1);
  /* nor can it be sealed any further: with F_SEAL_WRITE nothing could be punched */
  g_assert_cmpint (fcntl (fd, F_ADD_SEALS, F_SEAL_WRITE), ==, -1);
  g_assert_cmpint (fcntl (fd, F_ADD_SEALS, 0x10 /* F_SEAL_FUTURE_WRITE */), ==, -1);
  g_assert_cmpint (fstat (fd, &st), ==, 0);
  g_assert_cmpint (st.st_size, ==, size);
}

/* Others that have the descriptor (each vhost-user device of the VM) may fill it without mapping it. */
static void
memfd_is_filled_by_fallocate (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open (rig);

  g_assert_cmpint (fallocate (fe->window.fd, FALLOC_FL_KEEP_SIZE, 0, 128 << 20), ==, 0);
  g_assert_true (costs_within_audit (fe->window.fd, 0));
}

static void
map_is_one_page_short_of_the_window (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open (rig);

  g_assert_cmpuint (fe->shmem_bytes, ==, (uint64_t)RIG_WINDOW_BLOCKS << DOMYBS_BLOCK_SHIFT);
  g_assert_cmpuint (fe->window.bytes, ==, fe->shmem_bytes - 4096);
  g_assert_cmpuint (fe->window.shm_offset, ==, 0);
  g_assert_cmpuint (fe->window.fd_offset, ==, 0);
  g_assert_cmpuint (fe->window.flags, ==, 1);
}

/* ---- rings and buffers in window memory ---- */

/* A GRANT whose answer (or whose request) is to lie at gpa. */
static void
submit_with_buffers (struct fe *fe, uint64_t request_gpa, uint64_t response_gpa, uint32_t response_bytes) {
  struct fe_queue *queue = &fe->queues[DOMYBS_VQ_REQUEST];
  uint8_t request[PAGE];
  const size_t n = fe_encode_grant (fe, request, 0, 1, DOMYBS_HINT_ANY, 0, 0, 0);
  const struct fe_piece pieces[] = { { request_gpa, (uint32_t)n, false }, { response_gpa, response_bytes, true } };

  if (request_gpa < FE_WINDOW_GPA)
    memcpy (fe_at (fe, request_gpa), request, n);
  fe_write_chain (queue, 0, pieces, 2);
  fe_publish (queue, 0);
  fe_kick (queue);
}

/* Where the device reads or writes on the guest's behalf, it would touch window memory, and could be made to touch what a release
 * has just given back: so buffers there are refused, granted or not, and nothing of them is touched. */
struct place {
  bool granted, is_request;
  uint64_t offset; /* in the window */
  uint32_t bytes;  /* of the answer's buffer */
};

#define BLOCK_300 (300 * DOMYBS_BLOCK_BYTES)

static const struct place answer_ungranted = { false, false, BLOCK_300, PAGE };
static const struct place answer_granted = { true, false, BLOCK_300, PAGE };
static const struct place answer_over_the_edge = { true, false, BLOCK_300 + DOMYBS_BLOCK_BYTES - 100, 200 };
static const struct place answer_at_the_end = { false, false, RIG_WINDOW_BLOCKS * DOMYBS_BLOCK_BYTES - 4096 - 100, 200 };
static const struct place request_ungranted = { false, true, BLOCK_300, PAGE };
static const struct place request_granted = { true, true, BLOCK_300, PAGE };

static void
buffer_in_window_memory (struct rig *rig, const void *data) {
  const struct place *place = data;
  g_autoptr (fe_t) fe = rig_open (rig);
  const uint64_t gpa = FE_WINDOW_GPA + place->offset;
  struct fe_answer answer;

  if (place->granted)
    fe_must (fe, fe_grant (fe, 1, DOMYBS_HINT_ANY, 0, 300, 1, &answer));
  submit_with_buffers (fe, place->is_request ? gpa : fe_request_gpa (0), place->is_request ? fe_response_gpa (0) : gpa,
                       place->bytes);
  rig_expect_queue_broken (rig, fe, "outside");
  g_assert_cmpuint (memfd_bytes (fe->window.fd), ==, 0);
}

static void
indirect_table_in_window_memory (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open (rig);
  struct fe_queue *queue = &fe->queues[DOMYBS_VQ_REQUEST];

  queue->desc[0] = (struct fe_desc){ FE_WINDOW_GPA + BLOCK_300, 32, FE_DESC_INDIRECT, 0 };
  fe_publish (queue, 0);
  fe_kick (queue);
  rig_expect_queue_broken (rig, fe, "outside");
  g_assert_cmpuint (memfd_bytes (fe->window.fd), ==, 0);
}

/* The guest chooses where its rings lie, and QEMU maps that: it must neither work nor cost the host its control of the window. */
static void
ring_in_window_memory (struct rig *rig, const void *data) {
  const bool granted = data != NULL;
  g_autoptr (fe_t) fe = rig_open (rig);
  struct fe_queue *queue = &fe->queues[DOMYBS_VQ_EVENT];
  struct fe_answer answer;
  uint64_t value;

  if (granted)
    fe_must (fe, fe_grant (fe, 1, DOMYBS_HINT_ANY, 0, 400, 1, &answer));
  fe_must (fe, fe_stop_queue (fe, DOMYBS_VQ_EVENT));
  queue->desc_gpa = FE_WINDOW_GPA + 400 * DOMYBS_BLOCK_BYTES;
  queue->avail_gpa = queue->desc_gpa + 0x4000;
  queue->used_gpa = queue->desc_gpa + 0x8000;
  queue->next_avail = queue->next_used = 0;
  g_assert_true (fe_queue_locate (fe, queue));
  fe_must (fe, fe_start_queue (fe, DOMYBS_VQ_EVENT));
  rig_expect_logged (rig, "ring outside");
  g_autoptr (JsonNode) done = backend_control (rig->backend, "{\"execute\":\"reclaim\",\"arguments\":{\"blocks\":1}}");
  fe_kick (queue);
  fe_must (fe, fe_get_u64 (fe, FE_GET_FEATURES, &value)); /* still connected */
  g_assert_cmpuint (memfd_bytes (fe->window.fd), ==, 0);
  fe_must (fe, fe_grant (fe, 1, DOMYBS_HINT_ANY, 0, 0, 0, &answer)); /* the other queue works */
  g_assert_cmpuint (answer.status, ==, DOMYBS_OK);
  touch (fe, 500, 4 * DOMYBS_BLOCK_BYTES); /* and so does the audit */
  g_assert_true (costs_within_audit (fe->window.fd, 0));
}

int
main (int argc, char **argv) {
  g_test_init (&argc, &argv, NULL);
  rig_add ("/window/touched-without-a-grant", touched_without_a_grant, NULL);
  rig_add ("/window/touched-again-after-its-release", touched_again_after_its_release, NULL);
  rig_add ("/window/touched-after-bye", touched_after_bye, NULL);
  rig_add ("/window/touched-after-the-connection-was-closed", touched_after_the_connection_was_closed, NULL);
  rig_add ("/window/touched-after-a-reset", touched_after_a_reset, NULL);
  rig_add ("/window/touched-all-the-time", touched_all_the_time, NULL);
  rig_add ("/window/memfd-is-sealed", memfd_is_sealed, NULL);
  rig_add ("/window/memfd-is-filled-by-fallocate", memfd_is_filled_by_fallocate, NULL);
  rig_add ("/window/map-is-one-page-short-of-the-window", map_is_one_page_short_of_the_window, NULL);
  rig_add ("/window/answer-in-an-ungranted-block", buffer_in_window_memory, &answer_ungranted);
  rig_add ("/window/answer-in-a-granted-block", buffer_in_window_memory, &answer_granted);
  rig_add ("/window/answer-half-in-an-ungranted-block", buffer_in_window_memory, &answer_over_the_edge);
  rig_add ("/window/answer-behind-the-windows-map", buffer_in_window_memory, &answer_at_the_end);
  rig_add ("/window/request-in-an-ungranted-block", buffer_in_window_memory, &request_ungranted);
  rig_add ("/window/request-in-a-granted-block", buffer_in_window_memory, &request_granted);
  rig_add ("/window/indirect-table-in-an-ungranted-block", indirect_table_in_window_memory, NULL);
  rig_add ("/window/ring-in-an-ungranted-block", ring_in_window_memory, NULL);
  rig_add ("/window/ring-in-a-granted-block", ring_in_window_memory, "granted");
  return rig_run ();
}
