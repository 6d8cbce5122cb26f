/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "wire-proxy.h"

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

#define CONNECTIONS_MAX 64u
#define BUFFER_BYTES (256u << 10)
#define TURN_MS 5

struct way {
  guint8 *bytes;
  gsize n;
  gboolean ended; /* its sender has */
};

struct connection {
  int fds[2];         /* of the channel, of the donor; −1: there is none */
  struct way ways[2]; /* from each of them */
  gint number;
};

struct proxy {
  struct wire_knobs *knobs;
  int listening;
  const char *to;
  GRand *rand;
  struct connection connections[CONNECTIONS_MAX];
};

static void
end (struct connection *connection) {
  for (guint i = 0; i < 2; i++) {
    if (connection->fds[i] >= 0)
      close (connection->fds[i]);
    connection->fds[i] = -1;
    g_clear_pointer (&connection->ways[i].bytes, g_free);
    connection->ways[i] = (struct way){ 0 };
  }
}

static void
begin (struct proxy *proxy) {
  const int fd = accept4 (proxy->listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
  struct connection *connection = proxy->connections;

  if (fd < 0)
    return;
  while (connection < proxy->connections + CONNECTIONS_MAX && connection->fds[0] >= 0)
    connection++;
  if (connection == proxy->connections + CONNECTIONS_MAX || g_atomic_int_get (&proxy->knobs->refuse)
      || (connection->fds[1] = tcp_connect (proxy->to, NULL)) < 0) {
    close (fd);
    return;
  }
  tcp_tune (fd);
  tcp_tune (connection->fds[1]);
  connection->fds[0] = fd;
  for (guint i = 0; i < 2; i++)
    connection->ways[i].bytes = g_malloc (BUFFER_BYTES);
  connection->number = g_atomic_int_add (&proxy->knobs->connections, 1) + 1;
}

static gboolean
stalled (const struct proxy *proxy, const struct connection *connection, guint from) {
  if (from == 1)
    return g_atomic_int_get (&proxy->knobs->stall_down) != 0;
  return g_atomic_int_get (&proxy->knobs->stall_up) || connection->number <= g_atomic_int_get (&proxy->knobs->stall_until);
}

static void
spoil (struct proxy *proxy, guint8 *bytes, gsize n) {
  const gint flip = g_atomic_int_get (&proxy->knobs->flip);

  for (gsize i = 0; flip && i < n; i++)
    if (g_rand_int_range (proxy->rand, 0, flip * 1024) == 0) {
      bytes[i] ^= (guint8)(1u << g_rand_int_range (proxy->rand, 0, 8));
      g_atomic_int_inc (&proxy->knobs->flipped);
    }
}

static void
take_in (struct proxy *proxy, struct connection *connection, guint from) {
  struct way *const way = &connection->ways[from];
  ssize_t n;

  if (way->ended || way->n == BUFFER_BYTES)
    return;
  n = recv (connection->fds[from], way->bytes + way->n, BUFFER_BYTES - way->n, MSG_DONTWAIT);
  if (n > 0) {
    if (from == 1)
      spoil (proxy, way->bytes + way->n, (gsize)n);
    way->n += (gsize)n;
  } else if (n == 0 || (errno != EAGAIN && errno != ENOTCONN && errno != EINTR))
    way->ended = TRUE;
}

/* FALSE: the connection has ended. */
static gboolean
pass_on (struct proxy *proxy, struct connection *connection, guint from) {
  struct way *const way = &connection->ways[from];
  const gint piece = g_atomic_int_get (&proxy->knobs->piece);
  ssize_t n;

  if (stalled (proxy, connection, from))
    return TRUE;
  if (way->n > 0) {
    n = send (connection->fds[1 - from], way->bytes, piece > 0 ? MIN (way->n, (gsize)piece) : way->n,
              MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0)
      return errno == EAGAIN || errno == EINTR || errno == ENOTCONN;
    memmove (way->bytes, way->bytes + n, way->n - (gsize)n);
    way->n -= (gsize)n;
  }
  return way->n > 0 || !way->ended;
}

static void
turn (struct proxy *proxy) {
  struct pollfd fds[1 + 2 * CONNECTIONS_MAX] = { { proxy->listening, POLLIN, 0 } };
  const gint cuts = g_atomic_int_get (&proxy->knobs->cuts);
  const gboolean cut = cuts != g_atomic_int_get (&proxy->knobs->cut);
  guint n = 1;

  for (guint i = 0; i < CONNECTIONS_MAX; i++)
    for (guint j = 0; j < 2 && proxy->connections[i].fds[0] >= 0; j++) {
      struct connection *const c = &proxy->connections[i];
      const gboolean in
          = !c->ways[j].ended && c->ways[j].n<BUFFER_BYTES, out = c->ways[1 - j].n> 0 && !stalled (proxy, c, 1 - j);

      fds[n++] = (struct pollfd){ in || out ? c->fds[j] : -1, (short)((in ? POLLIN : 0) | (out ? POLLOUT : 0)), 0 };
    }
  poll (fds, n, TURN_MS);
  if (fds[0].revents)
    begin (proxy);
  for (guint i = 0; i < CONNECTIONS_MAX; i++) {
    struct connection *const c = &proxy->connections[i];
    gboolean goes_on = !cut;

    for (guint j = 0; j < 2 && c->fds[0] >= 0; j++) {
      take_in (proxy, c, j);
      goes_on = pass_on (proxy, c, j) && goes_on;
    }
    if (c->fds[0] >= 0 && !goes_on)
      end (c);
  }
  g_atomic_int_set (&proxy->knobs->cut, cuts);
}

void
wire_proxy_cut (WireProxy *proxy) {
  const gint cuts = g_atomic_int_add (&proxy->knobs->cuts, 1) + 1;

  while (g_atomic_int_get (&proxy->knobs->cut) != cuts)
    g_usleep (200);
}

WireProxy *
wire_proxy_new (const char *to, guint32 seed) {
  WireProxy *proxy = g_new0 (WireProxy, 1);
  struct proxy child = { .to = to };

  proxy->knobs = mmap (NULL, sizeof *proxy->knobs, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  g_assert_true (proxy->knobs != MAP_FAILED);
  child.knobs = proxy->knobs;
  child.listening = tcp_listen ("127.0.0.1:0", 64, NULL);
  g_assert_cmpint (child.listening, >=, 0);
  proxy->address = g_strdup_printf ("127.0.0.1:%u", tcp_port (child.listening));
  proxy->pid = fork ();
  g_assert_cmpint (proxy->pid, >=, 0);
  if (proxy->pid == 0) {
    prctl (PR_SET_PDEATHSIG, SIGKILL);
    child.rand = g_rand_new_with_seed (seed);
    for (guint i = 0; i < CONNECTIONS_MAX; i++)
      child.connections[i].fds[0] = child.connections[i].fds[1] = -1;
    for (;;)
      turn (&child);
  }
  close (child.listening);
  return proxy;
}

void
wire_proxy_free (WireProxy *proxy) {
  kill (proxy->pid, SIGKILL);
  g_assert_cmpint (waitpid (proxy->pid, NULL, 0), ==, proxy->pid);
  munmap (proxy->knobs, sizeof *proxy->knobs);
  g_free (proxy->address);
  g_free (proxy);
}
