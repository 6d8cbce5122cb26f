/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The memory table, the files behind it, and the descriptors that queues are given. */
#include "rig.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

/* ---- files of the wrong kind ---- */

enum kind { PIPE, DEV_ZERO, DEV_NULL, DIRECTORY, READ_ONLY_MEMFD, SOCKET, EVENTFD, EPOLL, PATH_ONLY, PROC_MEM, EMPTY_MEMFD, MEMFD };

static const char *const kind_names[] = { "pipe",   "dev-zero", "dev-null", "directory", "read-only-memfd",
                                          "socket", "eventfd",  "epoll",    "path-only", "proc-self-mem",
                                          "empty-memfd", "memfd" };

static int
open_kind (enum kind kind) {
  int pair[2], fd = -1;

  switch (kind) {
  case PIPE:
    g_assert_cmpint (pipe (pair), ==, 0);
    close (pair[1]);
    return pair[0];
  case DEV_ZERO:
    return open ("/dev/zero", O_RDWR | O_CLOEXEC);
  case DEV_NULL:
    return open ("/dev/null", O_RDWR | O_CLOEXEC);
  case DIRECTORY:
    return open ("/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  case READ_ONLY_MEMFD: {
    g_autofree char *path = NULL;
    const int writable = open_kind (MEMFD);

    path = g_strdup_printf ("/proc/self/fd/%d", writable);
    fd = open (path, O_RDONLY | O_CLOEXEC);
    close (writable);
    return fd;
  }
  case SOCKET:
    g_assert_cmpint (socketpair (AF_UNIX, SOCK_STREAM, 0, pair), ==, 0);
    close (pair[1]);
    return pair[0];
  case EVENTFD:
    return eventfd (0, EFD_CLOEXEC);
  case EPOLL:
    return epoll_create1 (EPOLL_CLOEXEC);
  case PATH_ONLY:
    return open ("/tmp", O_PATH | O_CLOEXEC);
  case PROC_MEM:
    return open ("/proc/self/mem", O_RDWR | O_CLOEXEC);
  case EMPTY_MEMFD:
    return memfd_create ("empty", MFD_CLOEXEC);
  case MEMFD:
    fd = memfd_create ("memory", MFD_CLOEXEC);
    g_assert_cmpint (ftruncate (fd, FE_RAM_BYTES), ==, 0);
    return fd;
  }
  return fd;
}

static void
region_of_kind (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open_to (rig, FE_STEP_SET_FEATURES);
  const struct fe_region region = fe_ram_region (fe);
  int fd = open_kind ((enum kind)GPOINTER_TO_UINT (data));
  uint64_t ack;

  g_assert_cmpint (fd, >=, 0);
  fe_must (fe, fe_send_regions (fe, &region, 1, &fd, 1, &ack));
  close (fd);
  g_assert_cmpuint (ack, !=, 0); /* refused, or closed */
  rig_expect_logged (rig, "memory region");
}

static void
second_region_is_bad_the_first_is_unmapped (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open_to (rig, FE_STEP_SET_FEATURES);
  const struct fe_region regions[2] = { fe_ram_region (fe), { 0, 4096, 0, 0 } };
  int fds[2] = { fe->ram_fd, open_kind (PIPE) };
  uint64_t ack;

  fe_must (fe, fe_send_regions (fe, regions, 2, fds, 2, &ack));
  close (fds[1]);
  g_assert_cmpuint (ack, !=, 0);
  rig_expect_logged (rig, "memory region");
}

static void
queue_fd_of_kind (struct rig *rig, const void *data, uint32_t request) {
  g_autoptr (fe_t) fe = rig_open_to (rig, FE_STEP_VRING_ADDR);
  const uint64_t index = 0;
  int fd = open_kind ((enum kind)GPOINTER_TO_UINT (data));

  fe_must (fe, fe_send (fe, request, 0, &index, sizeof index, &fd, 1));
  close (fd);
  rig_expect_closed (rig, fe, "descriptor");
}

static void
kick_of_kind (struct rig *rig, const void *data) {
  queue_fd_of_kind (rig, data, FE_SET_VRING_KICK);
}

static void
call_of_kind (struct rig *rig, const void *data) {
  queue_fd_of_kind (rig, data, FE_SET_VRING_CALL);
}

static void
err_of_kind (struct rig *rig, const void *data) {
  queue_fd_of_kind (rig, data, FE_SET_VRING_ERR);
}

/* The call descriptor's counter is full and somebody made it blocking again: a write to it would wait for ever. */
static void
call_that_would_block (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = fe_new ();
  struct fe_queue *queue = &fe->queues[DOMYBS_VQ_REQUEST];
  const uint64_t full = UINT64_MAX - 1;
  struct fe_answer answer;
  uint64_t value;

  fe->features_mask = ~FE_F_EVENT_IDX; /* so that each answer is signalled */
  fe_must (fe, fe_open (fe, rig->backend->socket_path));
  /* Filled while it does not block: HELLO's signal may still be on its way, and room for `full` is only where nothing is. */
  for (int64_t deadline = fe_now_ms () + fe_patience_ms (); write (queue->call, &full, sizeof full) != sizeof full;) {
    g_assert_cmpint (errno, ==, EAGAIN);
    g_assert_cmpint (fe_now_ms (), <, deadline);
    if (read (queue->call, &value, sizeof value) < 0)
      g_assert_cmpint (errno, ==, EAGAIN);
  }
  g_assert_cmpint (fcntl (queue->call, F_SETFL, 0), ==, 0);
  uint8_t request[128];
  const size_t n = fe_encode_grant (fe, request, 0, 1, DOMYBS_HINT_ANY, 0, 0, 0);
  fe_submit (fe, 0, request, n, 4096);
  for (int64_t deadline = fe_now_ms () + fe_patience_ms ();; g_usleep (1000)) {
    uint32_t head, len;

    if (fe_poll_used (queue, &head, &len))
      break;
    g_assert_cmpint (fe_now_ms (), <, deadline);
  }
  fe_must (fe, fe_get_u64 (fe, FE_GET_FEATURES, &value));
  g_assert_cmpint (fcntl (queue->call, F_SETFL, O_NONBLOCK), ==, 0);
  g_assert_cmpint (read (queue->call, &value, sizeof value), ==, sizeof value);
  fe_must (fe, fe_grant (fe, 1, DOMYBS_HINT_ANY, 0, 0, 0, &answer));
}

/* The kick descriptor is made blocking, and is emptied by somebody else before the back-end reads it. */
static void
kick_that_is_stolen (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open (rig);
  struct fe_queue *queue = &fe->queues[DOMYBS_VQ_REQUEST];
  struct fe_answer answer;

  g_assert_cmpint (fcntl (queue->kick, F_SETFL, 0), ==, 0);
  for (int i = 0; i < 2000; i++) {
    uint64_t count;
    const struct iovec iov = { &count, sizeof count };
    ssize_t n;

    fe_kick (queue);
    for (const gint64 until = g_get_monotonic_time () + i % 100; g_get_monotonic_time () < until;)
      ; /* the back-end wakes up, and is between its look and its read */
    n = preadv2 (queue->kick, &iov, 1, -1, RWF_NOWAIT); /* EAGAIN when the back-end was faster */
    g_assert_true (n == sizeof count || (n < 0 && errno == EAGAIN));
    fe_must (fe, fe_get_u64 (fe, FE_GET_FEATURES, &count)); /* the next kick would hide that it waits */
  }
  g_assert_cmpint (fcntl (queue->kick, F_SETFL, O_NONBLOCK), ==, 0);
  fe_must (fe, fe_grant (fe, 1, DOMYBS_HINT_ANY, 0, 0, 0, &answer));
}

/* ---- ranges ---- */

struct bad_region {
  const char *name;
  struct fe_region region; /* user 0: RAM's own */
};

static const struct bad_region bad_regions[] = {
  { "empty", { FE_RAM_GPA, 0, 0, 0 } },
  { "empty-at-a-wild-address", { UINT64_MAX, 0, UINT64_MAX, UINT64_MAX } },
  { "longer-than-its-file", { FE_RAM_GPA, FE_RAM_BYTES + 4096, 0, 0 } },
  { "one-byte-longer-than-its-file", { FE_RAM_GPA, FE_RAM_BYTES + 1, 0, 0 } },
  { "offset-behind-its-file", { FE_RAM_GPA, 4096, 0, FE_RAM_BYTES } },
  { "offset-plus-size-wraps", { FE_RAM_GPA, FE_RAM_BYTES, 0, UINT64_MAX - 4095 } },
  { "offset-negative-as-off_t", { FE_RAM_GPA, 4096, 0, 1ull << 63 } },
  { "size-of-everything", { 0, UINT64_MAX, 0, 0 } },
  { "size-of-half-of-everything", { 0, 1ull << 63, 0, 0 } },
  { "guest-address-plus-size-wraps", { UINT64_MAX - 4095, FE_RAM_BYTES, 0, 0 } },
  { "user-address-plus-size-wraps", { FE_RAM_GPA, FE_RAM_BYTES, UINT64_MAX - 4095, 0 } },
};

static void
bad_range (struct rig *rig, const void *data) {
  const struct bad_region *bad = data;
  g_autoptr (fe_t) fe = rig_open_to (rig, FE_STEP_SET_FEATURES);
  struct fe_region region = bad->region;
  uint64_t ack;

  if (region.user == 0)
    region.user = (uint64_t)(uintptr_t)fe->ram;
  fe_must (fe, fe_send_regions (fe, &region, 1, &fe->ram_fd, 1, &ack));
  g_assert_cmpuint (ack, !=, 0);
  rig_expect_logged (rig, "SET_MEM_TABLE refused");
}

static void
overlapping_regions (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open_to (rig, FE_STEP_SET_FEATURES);
  struct fe_region regions[2] = { fe_ram_region (fe), fe_ram_region (fe) };
  const int fds[2] = { fe->ram_fd, fe->ram_fd };
  uint64_t ack;

  regions[1].gpa += FE_RAM_BYTES - 4096;
  fe_must (fe, fe_send_regions (fe, regions, 2, fds, 2, &ack));
  g_assert_cmpuint (ack, !=, 0);
  rig_expect_logged (rig, "overlap");
}

static void
memory_table_of_nothing_while_running (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open (rig);
  uint64_t ack, value;
  uint32_t head, len;
  uint8_t buf[128];

  fe_must (fe, fe_send_regions (fe, NULL, 0, NULL, 0, &ack));
  fe_submit (fe, 0, buf, fe_encode_bye (fe, buf, 0), 4096);
  fe_kick (&fe->queues[0]);
  fe_get_u64 (fe, FE_GET_FEATURES, &value);
  g_usleep (20000);
  g_assert_false (fe_poll_used (&fe->queues[0], &head, &len));
}

/* ---- memory that goes away ---- */

static void
memory_truncated (struct rig *rig, const void *data) {
  const off_t left = (off_t)GPOINTER_TO_SIZE (data);
  g_autoptr (fe_t) fe = rig_open (rig);
  uint64_t ack;

  rig_mark (rig); /* after the session's own line */
  /* The rings, the buffers or both are gone; our own mapping must not be touched any more either. */
  uint8_t request[128];
  const size_t n = fe_encode_grant (fe, request, 0, 1, DOMYBS_HINT_ANY, 0, 0, 0);
  fe_submit (fe, 0, request, n, 4096);
  g_assert_cmpint (ftruncate (fe->ram_fd, left), ==, 0);
  for (int i = 0; i < 100; i++)
    fe_kick (&fe->queues[i & 1]);
  if (!fe_wait_closed (fe, 200)) {
    /* What it touched was still there: it must close once it does touch the rest. */
    const struct fe_region region = fe_ram_region (fe);

    fe_must (fe, fe_send_regions (fe, &region, 1, &fe->ram_fd, 1, &ack));
    g_assert_cmpuint (ack, !=, 0);
  }
  rig_expect_any_log (rig);
}

static gpointer
truncate_and_grow (gpointer data) {
  struct fe *fe = data;

  for (int i = 0; i < 200; i++) {
    if (ftruncate (fe->ram_fd, 0) < 0 || ftruncate (fe->ram_fd, FE_RAM_BYTES) < 0)
      return NULL;
    g_usleep (100);
  }
  return NULL;
}

static void
memory_truncated_and_grown_while_requests_run (struct rig *rig, const void *data) {
  for (int round = 0; round < 5; round++) {
    g_autoptr (fe_t) fe = rig_open (rig);
    uint64_t one = 1;
    GThread *thread = g_thread_new ("truncate", truncate_and_grow, fe);

    for (int i = 0; i < 2000; i++) {
      g_assert_cmpint (write (fe->queues[0].kick, &one, sizeof one), ==, sizeof one);
      g_usleep (10);
    }
    g_thread_join (thread);
  }
}

static void
file_behind_memory_is_punched (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open (rig);
  uint32_t head, len;
  uint8_t buf[128];

  g_assert_cmpint (fallocate (fe->ram_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, FE_RAM_BYTES), ==, 0);
  fe->queues[0].next_avail = 0; /* the rings read as zero now: the index seems to have gone back */
  fe_submit (fe, 0, buf, fe_encode_bye (fe, buf, 0), 4096);
  fe_kick (&fe->queues[0]);
  g_usleep (20000);
  fe_poll_used (&fe->queues[0], &head, &len);
}

int
main (int argc, char **argv) {
  g_test_init (&argc, &argv, NULL);
  for (enum kind kind = PIPE; kind < MEMFD; kind++) {
    g_autofree char *region = g_strdup_printf ("/memory/region-of-kind/%s", kind_names[kind]);

    rig_add (region, region_of_kind, GUINT_TO_POINTER (kind));
  }
  for (enum kind kind = PIPE; kind <= MEMFD; kind++) {
    g_autofree char *kick = g_strdup_printf ("/memory/kick-of-kind/%s", kind_names[kind]);
    g_autofree char *call = g_strdup_printf ("/memory/call-of-kind/%s", kind_names[kind]);
    g_autofree char *err = g_strdup_printf ("/memory/err-of-kind/%s", kind_names[kind]);

    if (kind == EVENTFD)
      continue;
    rig_add (kick, kick_of_kind, GUINT_TO_POINTER (kind));
    rig_add (call, call_of_kind, GUINT_TO_POINTER (kind));
    rig_add (err, err_of_kind, GUINT_TO_POINTER (kind));
  }
  rig_add ("/memory/call-that-would-block", call_that_would_block, NULL);
  rig_add ("/memory/kick-that-is-stolen", kick_that_is_stolen, NULL);
  rig_add ("/memory/second-region-is-bad-the-first-is-unmapped", second_region_is_bad_the_first_is_unmapped, NULL);
  for (size_t i = 0; i < G_N_ELEMENTS (bad_regions); i++) {
    g_autofree char *path = g_strdup_printf ("/memory/range/%s", bad_regions[i].name);

    rig_add (path, bad_range, &bad_regions[i]);
  }
  rig_add ("/memory/overlapping-regions", overlapping_regions, NULL);
  rig_add ("/memory/memory-table-of-nothing-while-running", memory_table_of_nothing_while_running, NULL);
  rig_add ("/memory/truncated-after-mmap/to-nothing", memory_truncated, GSIZE_TO_POINTER (0));
  rig_add ("/memory/truncated-after-mmap/behind-the-rings", memory_truncated, GSIZE_TO_POINTER (0x80000));
  rig_add ("/memory/truncated-and-grown-while-requests-run", memory_truncated_and_grown_while_requests_run, NULL);
  rig_add ("/memory/file-behind-memory-is-punched", file_behind_memory_is_punched, NULL);
  return rig_run ();
}
