/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A stream with TLS, and somebody in the middle who changes, leaves out, repeats, adds or cuts off bytes, in either direction,
 * in the handshake or later: what arrives is what was sent, or the beginning of it. DOMYBS_TAMPERINGS says how many sessions.
 */
#include "io/secure-stream.h"
#include "testing.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MESSAGE_BYTES_MAX 40000u
#define HELD_BYTES (1u << 18)

enum { NOTHING, FLIP, LEAVE_OUT, REPEAT, ADD, CUT, WAYS };

/* One direction: what its sender says, what has gone through the middle, what has arrived. */
typedef struct {
  SecureStream *from, *to;
  int in, out; /* of the middle */
  guint8 message[MESSAGE_BYTES_MAX], got[MESSAGE_BYTES_MAX + 1], held[HELD_BYTES];
  gsize bytes, sent, arrived;       /* of message */
  gsize passed, held_from, held_to; /* in the middle; all of it is kept */
  guint way;
  gsize at;
  gboolean tampered, cut, ended;
} Direction;

static void
fill (GRand *rand, guint8 *bytes, gsize n) {
  gsize i;

  for (i = 0; i < n; i += sizeof (guint32)) {
    const guint32 some = g_rand_int (rand);

    memcpy (bytes + i, &some, MIN (sizeof some, n - i));
  }
}

/* The middle: reads what there is, tampers with it where that is due, passes it on. */
static gboolean
pass (GRand *rand, Direction *d) {
  guint8 bytes[5000];
  ssize_t n = d->cut ? -1 : recv (d->in, bytes, sizeof bytes, MSG_DONTWAIT), gone;
  gsize here;

  if (n == 0) {
    shutdown (d->out, SHUT_WR);
    d->cut = TRUE;
  }
  if (n > 0) {
    g_assert_cmpuint (d->held_to + 2 * (gsize)n, <=, HELD_BYTES);
    if (!d->tampered && d->way != NOTHING && d->held_to + (gsize)n > d->at) {
      here = d->at - d->held_to;
      d->tampered = TRUE;
      switch (d->way) {
      case FLIP:
        bytes[here] ^= (guint8)(1u << testing_below (rand, 8));
        break;
      case LEAVE_OUT:
        memmove (bytes + here, bytes + here + 1, (gsize)n - here - 1);
        n--;
        break;
      case ADD:
        memcpy (d->held + d->held_to, bytes, here);
        d->held_to += here;
        d->held[d->held_to++] = (guint8)g_rand_int (rand);
        memmove (bytes, bytes + here, (gsize)n - here);
        n -= (ssize_t)here;
        break;
      case REPEAT: /* all of this piece, which may well be a record */
        memcpy (d->held + d->held_to, bytes, (gsize)n);
        d->held_to += (gsize)n;
        break;
      default:
        n = (ssize_t)here;
        d->cut = TRUE;
      }
    }
    memcpy (d->held + d->held_to, bytes, (gsize)n);
    d->held_to += (gsize)n;
  }
  gone = d->held_from < d->held_to
             ? send (d->out, d->held + d->held_from, d->held_to - d->held_from, MSG_DONTWAIT | MSG_NOSIGNAL)
             : 0;
  if (gone > 0)
    d->held_from += (gsize)gone;
  if (d->cut && d->held_from == d->held_to)
    shutdown (d->out, SHUT_WR);
  return n > 0 || gone > 0;
}

/* A piece of the message is sent, and what has arrived is read. */
static gboolean
talk (GRand *rand, Direction *d) {
  const gsize piece = 1 + testing_below (rand, 9000);
  struct iovec pieces[3];
  gboolean moved = FALSE;
  gssize n = 0;

  if (d->sent < d->bytes || secure_stream_unsent (d->from)) {
    const gsize some = MIN (piece, d->bytes - d->sent), third = some / 3;

    pieces[0] = (struct iovec){ d->message + d->sent, third };
    pieces[1] = (struct iovec){ d->message + d->sent + third, third };
    pieces[2] = (struct iovec){ d->message + d->sent + 2 * third, some - 2 * third };
    n = secure_stream_writev (d->from, pieces, 3);
    if (n > 0)
      d->sent += (gsize)n;
    moved = n > 0;
  }
  n = d->ended ? -EAGAIN : secure_stream_read (d->to, d->got + d->arrived, MIN (piece, sizeof d->got - d->arrived));
  if (n > 0) {
    g_assert_cmpuint (d->arrived + (gsize)n, <=, d->sent);
    g_assert_cmpmem (d->got + d->arrived, (gsize)n, d->message + d->arrived, (gsize)n);
    d->arrived += (gsize)n;
  } else if (n != -EAGAIN)
    d->ended = TRUE;
  return moved || n != -EAGAIN;
}

/* What was changed is a record's type or version. TLS 1.3 has both for old machines in the middle only and takes the true type
 * from what is encrypted; GnuTLS checks the record with what they ought to be, and does not look at them. */
static gboolean
is_for_show (const Direction *d) {
  for (gsize record = 0; record <= d->at && record + 5 <= d->held_to;) {
    if (d->at < record + 3)
      return d->way == FLIP;
    record += 5u + ((gsize)d->held[record + 3] << 8 | d->held[record + 4]);
  }
  return FALSE;
}

static void
session (GRand *rand, SecureSide *client_side, SecureSide *server_side, guint way) {
  g_autofree Direction *up = g_new0 (Direction, 1), *down = g_new0 (Direction, 1);
  Direction *victim = testing_once_in (rand, 2) ? up : down;
  int client[2], server[2];
  guint idle = 0;

  g_assert_cmpint (socketpair (AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, client), ==, 0);
  g_assert_cmpint (socketpair (AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, server), ==, 0);
  up->from = down->to = secure_stream_new (client[0]);
  up->to = down->from = secure_stream_new (server[0]);
  up->in = down->out = client[1];
  up->out = down->in = server[1];
  up->bytes = 1 + testing_below (rand, MESSAGE_BYTES_MAX);
  down->bytes = 1 + testing_below (rand, MESSAGE_BYTES_MAX);
  fill (rand, up->message, up->bytes);
  fill (rand, down->message, down->bytes);
  victim->way = way;
  victim->at = testing_below (rand, testing_once_in (rand, 3) ? 300 : victim->bytes + 400);
  testing_trace ("way %u at %zu of the %s", way, victim->at, victim == up ? "client's" : "server's");
  secure_stream_start_tls (up->to, server_side);
  secure_stream_start_tls (up->from, client_side);
  while (idle < 20 && !(up->arrived == up->bytes && down->arrived == down->bytes)) {
    gboolean moved = talk (rand, up);

    moved |= talk (rand, down);
    moved |= pass (rand, up);
    moved |= pass (rand, down);
    idle = moved ? 0 : idle + 1;
  }
  if (!victim->tampered) {
    g_assert_cmpuint (up->arrived, ==, up->bytes);
    g_assert_cmpuint (down->arrived, ==, down->bytes);
    g_assert_cmpstr (secure_stream_identity (up->to), ==, "x");
  } else if (way != CUT && way != REPEAT && victim->at > 700 && !is_for_show (victim))
    /* behind the handshake, where every byte counts; what is repeated may be the end */
    g_assert_cmpuint (victim->arrived, <, victim->bytes);
  secure_stream_free (up->from);
  secure_stream_free (up->to);
  close (client[1]);
  close (server[1]);
}

static void
test_tampered (void) {
  static const char text[] = "x:00112233445566778899aabbccddeeff";
  const char *asked = g_getenv ("DOMYBS_TAMPERINGS");
  const guint sessions = asked ? (guint)strtoul (asked, NULL, 10) : testing_steps (400);
  g_autoptr (PskKeys) keys = psk_keys_parse (text, strlen (text), "keys", NULL);
  g_autoptr (SecureSide) server = secure_side_new_server (keys, NULL), client = NULL;
  GRand *rand = testing_rand ();
  const guint8 *key;
  gsize bytes;
  guint i;

  g_assert (psk_keys_find (keys, "x", &key, &bytes));
  client = secure_side_new_client ("x", key, bytes, NULL);
  for (i = 0; i < sessions; i++)
    session (rand, client, server, i % WAYS);
  g_rand_free (rand);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/secure-stream/tampered", test_tampered);
  return g_test_run ();
}
