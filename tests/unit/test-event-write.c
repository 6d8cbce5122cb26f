/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Signals through an eventfd whose other end is somebody's who may not mean well (io/event-write.h). */
#include "io/event-write.h"
#include "testing.h"

#include <fcntl.h>
#include <glib.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define FULL (UINT64_MAX - 1)

static uint64_t
take (int fd) {
  uint64_t value;

  return read (fd, &value, sizeof value) == sizeof value ? value : 0;
}

static void
adds (void) {
  const int fd = eventfd (0, EFD_CLOEXEC | EFD_NONBLOCK);

  g_assert_true (event_write (fd));
  g_assert_true (event_write (fd));
  g_assert_cmpuint (take (fd), ==, 2);
  close (fd);
}

static void
full_is_a_signal_that_waits (void) {
  const int fd = eventfd (0, EFD_CLOEXEC);
  const uint64_t full = FULL;

  g_assert_cmpint (write (fd, &full, sizeof full), ==, sizeof full);
  g_assert_true (event_write (fd));
  g_assert_cmpuint (take (fd), ==, FULL);
  close (fd);
}

struct peer {
  int fd;
  int stop, writes; /* atomic */
  guint times;
};

/* Makes it full and blocking, again and again, now and then between a look at it and the write, and leaves it so until that one
 * has come back. */
static gpointer
fill_and_block (gpointer data) {
  struct peer *peer = data;
  const uint64_t full = FULL;

  while (!g_atomic_int_get (&peer->stop)) {
    fcntl (peer->fd, F_SETFL, O_NONBLOCK);
    take (peer->fd);
    if (write (peer->fd, &full, sizeof full) == sizeof full) {
      fcntl (peer->fd, F_SETFL, 0);
      peer->times++;
      for (const int writes = g_atomic_int_get (&peer->writes); g_atomic_int_get (&peer->writes) == writes;)
        if (g_atomic_int_get (&peer->stop))
          return NULL;
    }
    g_usleep (peer->times % 7);
  }
  return NULL;
}

/* Without a tick this waits for ever, within moments. */
static void
peer_who_blocks_between_look_and_write (void) {
  struct peer peer = { .fd = eventfd (0, EFD_CLOEXEC | EFD_NONBLOCK) };
  GThread *thread = g_thread_new ("peer", fill_and_block, &peer);
  const gint64 until = g_get_monotonic_time () + 2 * G_USEC_PER_SEC;
  guint writes = 0, slow = 0;

  while (g_get_monotonic_time () < until) {
    const gint64 began = g_get_monotonic_time ();

    g_assert_true (event_write (peer.fd));
    g_atomic_int_set (&peer.writes, (int)++writes);
    slow += g_get_monotonic_time () - began > EVENT_WRITE_MS * 1000 / 2;
  }
  g_atomic_int_set (&peer.stop, 1);
  g_thread_join (thread);
  g_test_message ("%u signals, filled %u times, %u waits", writes, peer.times, slow);
  g_assert_cmpuint (peer.times, >, 0);
  close (peer.fd);
}

static gpointer
empty_later (gpointer data) {
  g_usleep (EVENT_WRITE_MS * 4000);
  take (GPOINTER_TO_INT (data));
  return NULL;
}

/* Nothing but our writes is interrupted by a tick, and an end of waiting is nothing but that. */
static void
others_are_not_interrupted (void) {
  const int fd = eventfd (0, EFD_CLOEXEC), other = eventfd (0, EFD_CLOEXEC | EFD_NONBLOCK);
  const uint64_t full = FULL, one = 1;
  GThread *thread;

  g_assert_true (event_write (other)); /* from here on there are ticks */
  g_assert_cmpint (usleep (EVENT_WRITE_MS * 3000), ==, 0);
  g_assert_cmpint (write (fd, &full, sizeof full), ==, sizeof full);
  thread = g_thread_new ("empty-later", empty_later, GINT_TO_POINTER (fd));
  g_assert_cmpint (write (fd, &one, sizeof one), ==, sizeof one);
  g_thread_join (thread);
  g_assert_true (event_write (other));
  close (fd);
  close (other);
}

int
main (int argc, char **argv) {
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/event-write/adds", adds);
  g_test_add_func ("/event-write/full-is-a-signal-that-waits", full_is_a_signal_that_waits);
  g_test_add_func ("/event-write/others-are-not-interrupted", others_are_not_interrupted);
  g_test_add_func ("/event-write/peer-who-blocks-between-look-and-write", peer_who_blocks_between_look_and_write);
  return g_test_run ();
}
