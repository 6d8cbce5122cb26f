/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Workers that say anything at all in any order, with front-ends that do the same. DOMYBS_SEED repeats a run. */
#include "keeper-rig.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define STEPS 6000

/* With a descriptor, unless that is -1. FALSE: it did not go. */
static bool
try_send (int to, const void *bytes, size_t n, int fd) {
  union {
    char buf[CMSG_SPACE (sizeof (int))];
    struct cmsghdr align;
  } control = { { 0 } };
  struct iovec iov = { (void *)bytes, n };
  struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

  if (fd >= 0) {
    msg.msg_control = control.buf;
    msg.msg_controllen = sizeof control.buf;
    *CMSG_FIRSTHDR (&msg)
        = (struct cmsghdr){ .cmsg_len = CMSG_LEN (sizeof fd), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS };
    memcpy (CMSG_DATA (CMSG_FIRSTHDR (&msg)), &fd, sizeof fd);
  }
  return sendmsg (to, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)n;
}

static uint64_t
number (GRand *rand) {
  static const uint64_t numbers[] = { 0, 1, 2, 3, 4, 8, 4095, 4096, 4097, 1u << 31, UINT32_MAX, 1ull << 63, UINT64_MAX };

  return numbers[g_rand_int_range (rand, 0, G_N_ELEMENTS (numbers))];
}

static void
fill_wildly (GRand *rand, struct keeper_message *message, uint8_t *bytes) {
  static const uint8_t types[] = { KEEPER_WANT,  KEEPER_WANT, KEEPER_SEND, KEEPER_PUT,     KEEPER_DROP, KEEPER_SET_CHANNEL,
                                   KEEPER_CLOSE, KEEPER_GOOD, KEEPER_GOOD, KEEPER_REPLACE, 0,           1, 255 };

  *message = (struct keeper_message){
    .type = types[g_rand_int_range (rand, 0, g_rand_int_range (rand, 0, 20) ? 9 : G_N_ELEMENTS (types))],
    .stream = (uint8_t)(g_rand_int_range (rand, 0, 30) ? (uint64_t)g_rand_int_range (rand, 0, 2) : number (rand)),
    .slot = (uint8_t)(g_rand_int_range (rand, 0, 4) ? (uint64_t)g_rand_int_range (rand, 3, 64) : number (rand)),
    .count = (uint32_t)number (rand),
    .epoch = g_rand_int_range (rand, 0, 4) ? (uint64_t)g_rand_int_range (rand, 0, 40) : number (rand),
    .position = number (rand),
    .n_slots = (uint8_t)number (rand),
  };
  if (message->type == KEEPER_SEND)
    message->n_bytes = (uint32_t)g_rand_int_range (rand, 0, KEEPER_BYTES_MAX + 1);
  memset (bytes, (int)message->n_bytes, message->n_bytes);
  memset (message->slots, (int)number (rand), sizeof message->slots);
  if (g_rand_int_range (rand, 0, 50) == 0)
    message->n_bytes ^= 1u << g_rand_int_range (rand, 0, 32);
}

static void
survives_wild_workers (void) {
  static uint8_t bytes[KEEPER_BYTES_MAX];
  const char *seed_text = g_getenv ("DOMYBS_SEED");
  const guint32 seed = seed_text ? (guint32)g_ascii_strtoull (seed_text, NULL, 0) : g_random_int ();
  GRand *rand = g_rand_new_with_seed (seed);
  g_autoptr (rig_t) rig = rig_start (false);
  struct hand *hand = rig_running_worker (rig);
  const struct heard *heard;
  int peer = rig_connect (rig), pair[2];
  unsigned workers = 1, most = 0;

  g_test_message ("DOMYBS_SEED=%u", seed);
  g_assert_cmpint (socketpair (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), ==, 0);
  for (unsigned i = 0; i < STEPS; i++) {
    const unsigned what = (unsigned)g_rand_int_range (rand, 0, 20);
    struct {
      struct keeper_message message;
      uint8_t bytes[KEEPER_BYTES_MAX];
    } whole;

    if (what == 0) {
      close (peer);
      peer = rig_connect (rig);
    } else if (what < 5) {
      try_send (peer, bytes, (size_t)g_rand_int_range (rand, 1, 200), pair[what % 2]);
    }
    if (what < 10)
      try_send (hand->wire, &(struct keeper_message){ .type = KEEPER_GOOD }, sizeof (struct keeper_message), -1);
    fill_wildly (rand, &whole.message, whole.bytes);
    if (try_send (hand->wire, &whole, sizeof whole.message + MIN (whole.message.n_bytes, KEEPER_BYTES_MAX),
                  whole.message.type == KEEPER_PUT ? pair[0] : -1)) {
      while (hand_hear (hand, 0))
        ;
      if (peer_is_quiet (hand->control, 0) && rig_no_worker (rig, 0))
        continue;
    }
    /* dead, or about to be replaced */
    most = MAX (most, rig_fds (rig));
    hand_free (hand);
    hand = rig_running_worker (rig);
    workers++;
  }
  g_test_message ("%u workers, at most %u descriptors", workers, most);
  g_assert_cmpuint (workers, >, 20);
  g_assert_cmpuint (most, <=, KEEPER_SLOTS + 16);

  /* and now as it should be */
  close (peer);
  hand_free (hand);
  g_usleep (1100 * 1000); /* by then no second front-end is held any more */
  hand = rig_running_worker (rig);
  hand_close (hand, hand->hello.connection);
  hand_sync (hand, rig);
  peer = rig_connect (rig);
  while ((heard = hand_hear (hand, PATIENCE_MS)) && heard->message.type != KEEPER_CONNECTED)
    ;
  g_assert_nonnull (heard);
  peer_send (peer, "ping", 4, NULL, 0);
  hand_want (hand, KEEPER_MAIN, heard->message.epoch, 0, 4);
  heard = hand_expect (hand, KEEPER_DATA);
  g_assert_cmpmem (heard->bytes, heard->message.n_bytes, "ping", 4);
  hand_send (hand, KEEPER_MAIN, heard->message.epoch, 1, "pong", 4, KEEPER_NO_SLOT);
  peer_expect (peer, "pong", 4);
  hand_free (hand);
  close (peer);
  close (pair[0]);
  close (pair[1]);
  g_rand_free (rand);
}

int
main (int argc, char **argv) {
  rig_be_another (argc, argv);
  signal (SIGPIPE, SIG_IGN);
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/keeper/wild/survives-wild-workers", survives_wild_workers);
  return g_test_run ();
}
