/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "relay.h"

#include "core/nbd.h"
#include "io/tcp.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define CONNECTIONS_MAX 32u
#define PIECE_BYTES (256u << 10)
#define QUEUE_BYTES_MAX (8u << 20) /* of one way: more stays with its sender */
#define TURN_MS 2
#define OPTION_AT 12u /* in what the client sends: flags, magic, option */

struct piece {
  gint64 due_us;
  gsize n, at;
  guint8 bytes[PIECE_BYTES];
};

struct way {
  GQueue pieces;
  gsize queued;
  gboolean ended; /* its sender has */
};

struct connection {
  int fds[RELAY_WAYS]; /* who sends that way; −1: there is none */
  struct way ways[RELAY_WAYS];
  guint8 head[OPTION_AT + 4]; /* of what goes up */
  gsize head_bytes;
  enum relay_kind kind;
};

struct state {
  struct relay_knobs *knobs;
  int listening;
  const char *to;
  struct connection connections[CONNECTIONS_MAX];
};

static void
end (struct connection *c) {
  for (guint w = 0; w < RELAY_WAYS; w++) {
    if (c->fds[w] >= 0)
      close (c->fds[w]);
    g_queue_clear_full (&c->ways[w].pieces, g_free);
  }
  memset (c, 0, sizeof *c);
  c->fds[RELAY_UP] = c->fds[RELAY_DOWN] = -1;
}

static void
begin (struct state *state) {
  const int fd = accept4 (state->listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
  struct connection *c = state->connections;

  if (fd < 0)
    return;
  while (c < state->connections + CONNECTIONS_MAX && c->fds[RELAY_UP] >= 0)
    c++;
  if (c == state->connections + CONNECTIONS_MAX || (c->fds[RELAY_DOWN] = tcp_connect (state->to, NULL)) < 0) {
    close (fd);
    return;
  }
  c->fds[RELAY_UP] = fd;
  tcp_tune (fd);
  tcp_tune (c->fds[RELAY_DOWN]);
}

static void
learn_kind (struct state *state, struct connection *c, const guint8 *bytes, gsize n) {
  guint32 option;

  if (c->head_bytes == sizeof c->head)
    return;
  n = MIN (n, sizeof c->head - c->head_bytes);
  memcpy (c->head + c->head_bytes, bytes, n);
  c->head_bytes += n;
  if (c->head_bytes < sizeof c->head)
    return;
  memcpy (&option, c->head + OPTION_AT, sizeof option);
  c->kind = GUINT32_FROM_BE (option) == NBD_OPT_LEASE ? RELAY_LEASE : RELAY_DATA;
  g_atomic_int_inc (&state->knobs->connections[c->kind]);
}

static void
take_in (struct state *state, struct connection *c, enum relay_way way) {
  struct way *const w = &c->ways[way];
  struct piece *piece;
  ssize_t n;

  if (w->ended || w->queued >= QUEUE_BYTES_MAX)
    return;
  piece = g_malloc (sizeof *piece);
  n = recv (c->fds[way], piece->bytes, sizeof piece->bytes, MSG_DONTWAIT);
  if (n <= 0) {
    w->ended = n == 0 || (errno != EAGAIN && errno != ENOTCONN && errno != EINTR);
    g_free (piece);
    return;
  }
  if (way == RELAY_UP)
    learn_kind (state, c, piece->bytes, (gsize)n);
  piece->n = (gsize)n;
  piece->at = 0;
  piece->due_us = g_get_monotonic_time () + g_atomic_int_get (&state->knobs->delay_ms[way]) * 1000ll;
  g_queue_push_tail (&w->pieces, piece);
  w->queued += piece->n;
}

/* FALSE: the connection has ended. */
static gboolean
pass_on (struct state *state, struct connection *c, enum relay_way way) {
  struct way *const w = &c->ways[way];
  struct piece *piece;

  if (g_atomic_int_get (&state->knobs->stalled[c->kind][way]))
    return TRUE;
  while ((piece = g_queue_peek_head (&w->pieces)) && piece->due_us <= g_get_monotonic_time ()) {
    const ssize_t n = send (c->fds[1 - way], piece->bytes + piece->at, piece->n - piece->at, MSG_DONTWAIT | MSG_NOSIGNAL);

    if (n < 0)
      return errno == EAGAIN || errno == EINTR || errno == ENOTCONN;
    piece->at += (gsize)n;
    w->queued -= (gsize)n;
    if (piece->at < piece->n)
      return TRUE;
    g_free (g_queue_pop_head (&w->pieces));
  }
  return piece || !w->ended;
}

static void
turn (struct state *state) {
  struct pollfd fds[1 + CONNECTIONS_MAX * RELAY_WAYS] = { { state->listening, POLLIN, 0 } };
  gboolean is_busy = FALSE;
  guint n = 1;

  for (guint i = 0; i < CONNECTIONS_MAX; i++)
    for (guint way = 0; way < RELAY_WAYS && state->connections[i].fds[RELAY_UP] >= 0; way++) {
      const struct way *w = &state->connections[i].ways[way];
      const gboolean in = !w->ended && w->queued < QUEUE_BYTES_MAX;

      is_busy = is_busy || w->queued;
      fds[n++] = (struct pollfd){ in ? state->connections[i].fds[way] : -1, POLLIN, 0 };
    }
  poll (fds, n, is_busy ? TURN_MS : 50); /* what is queued goes on by the clock: nobody tells when there is room */
  if (fds[0].revents)
    begin (state);
  for (guint i = 0; i < CONNECTIONS_MAX; i++) {
    struct connection *const c = &state->connections[i];
    gboolean goes_on = TRUE;

    if (c->fds[RELAY_UP] < 0)
      continue;
    for (guint way = 0; way < RELAY_WAYS; way++) {
      take_in (state, c, way);
      goes_on = pass_on (state, c, way) && goes_on;
    }
    if (!goes_on)
      end (c);
  }
}

Relay *
relay_new (const char *to) {
  Relay *relay = g_new0 (Relay, 1);
  struct state *state = g_new0 (struct state, 1);

  relay->knobs = mmap (NULL, sizeof *relay->knobs, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  g_assert_true (relay->knobs != MAP_FAILED);
  *state = (struct state){ .knobs = relay->knobs, .to = to, .listening = tcp_listen ("127.0.0.1:0", 64, NULL) };
  g_assert_cmpint (state->listening, >=, 0);
  relay->address = g_strdup_printf ("127.0.0.1:%u", tcp_port (state->listening));
  relay->pid = fork ();
  g_assert_cmpint (relay->pid, >=, 0);
  if (relay->pid == 0) {
    prctl (PR_SET_PDEATHSIG, SIGKILL);
    for (guint i = 0; i < CONNECTIONS_MAX; i++)
      state->connections[i].fds[RELAY_UP] = state->connections[i].fds[RELAY_DOWN] = -1;
    for (;;)
      turn (state);
  }
  close (state->listening);
  g_free (state);
  return relay;
}

void
relay_free (Relay *relay) {
  kill (relay->pid, SIGKILL);
  g_assert_cmpint (waitpid (relay->pid, NULL, 0), ==, relay->pid);
  munmap (relay->knobs, sizeof *relay->knobs);
  g_free (relay->address);
  g_free (relay);
}
