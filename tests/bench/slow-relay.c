/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "slow-relay.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <glib.h>

#define CONNECTIONS_MAX 16
#define PIECE_BYTES (64u << 10)
#define HELD_MAX 64

/* Bytes that the server has said, and when they are due. */
struct held {
  uint64_t due_ns;
  size_t from, to;
  uint8_t bytes[PIECE_BYTES];
};

struct connection {
  int client, server;
  struct held *held; /* a ring */
  unsigned first, n;
};

static struct connection connections[CONNECTIONS_MAX];
static int n_connections;
static uint64_t delay_ns;

static uint64_t
now_ns (void) {
  struct timespec now;

  clock_gettime (CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static int
unix_socket (const char *path, gboolean listening) {
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  const int fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

  g_strlcpy (address.sun_path, path, sizeof address.sun_path);
  if (fd < 0
      || (listening ? bind (fd, (struct sockaddr *)&address, sizeof address) < 0 || chmod (path, 0666) < 0 || listen (fd, 8) < 0
                    : connect (fd, (struct sockaddr *)&address, sizeof address) < 0))
    g_error ("%s: %s", path, g_strerror (errno));
  return fd;
}

static void
accept_one (int listener, const char *to) {
  struct connection *connection = &connections[n_connections];

  if (n_connections == CONNECTIONS_MAX)
    g_error ("a slow relay has too many connections");
  connection->client = accept4 (listener, NULL, NULL, SOCK_CLOEXEC);
  if (connection->client < 0)
    return;
  connection->server = unix_socket (to, FALSE);
  fcntl (connection->client, F_SETFL, O_NONBLOCK);
  connection->held = g_new (struct held, HELD_MAX);
  connection->first = connection->n = 0;
  n_connections++;
}

/* FALSE: it has ended. */
static gboolean
pass_request (struct connection *connection) {
  static uint8_t bytes[PIECE_BYTES];
  const ssize_t n = recv (connection->client, bytes, sizeof bytes, 0);
  ssize_t sent = 0, now;

  if (n < 0 && errno == EAGAIN)
    return TRUE;
  for (; sent < n; sent += now)
    if ((now = send (connection->server, bytes + sent, (size_t)(n - sent), MSG_NOSIGNAL)) < 0) /* a server takes what it gets */
      return FALSE;
  return n > 0;
}

static gboolean
hold_answer (struct connection *connection) {
  struct held *held = &connection->held[(connection->first + connection->n) % HELD_MAX];
  const ssize_t n = recv (connection->server, held->bytes, sizeof held->bytes, MSG_DONTWAIT);

  if (n < 0)
    return errno == EAGAIN;
  held->due_ns = now_ns () + delay_ns;
  held->from = 0;
  held->to = (size_t)n;
  connection->n++;
  return n > 0;
}

static gboolean
pass_answers (struct connection *connection, uint64_t now) {
  while (connection->n > 0 && connection->held[connection->first].due_ns <= now) {
    struct held *held = &connection->held[connection->first];
    const ssize_t n = send (connection->client, held->bytes + held->from, held->to - held->from, MSG_NOSIGNAL | MSG_DONTWAIT);

    if (n < 0)
      return errno == EAGAIN;
    held->from += (size_t)n;
    if (held->from == held->to) {
      connection->first = (connection->first + 1) % HELD_MAX;
      connection->n--;
    }
  }
  return TRUE;
}

static void
end (int i) {
  close (connections[i].client);
  close (connections[i].server);
  g_free (connections[i].held);
  connections[i] = connections[--n_connections];
}

static _Noreturn void
relay (int listener, const char *to) {
  for (;;) {
    struct pollfd fds[1 + 2 * CONNECTIONS_MAX] = { { listener, POLLIN, 0 } };
    const uint64_t now = now_ns ();
    uint64_t due = UINT64_MAX;

    for (int i = 0; i < n_connections; i++) {
      const struct connection *connection = &connections[i];
      const gboolean late = connection->n > 0 && connection->held[connection->first].due_ns <= now; /* the client is full */

      fds[1 + 2 * i] = (struct pollfd){ connection->client, (short)(POLLIN | (late ? POLLOUT : 0)), 0 };
      fds[2 + 2 * i] = (struct pollfd){ connection->server, connection->n < HELD_MAX ? POLLIN : 0, 0 };
      if (connection->n > 0 && !late)
        due = MIN (due, connection->held[connection->first].due_ns);
    }
    {
      const uint64_t left = due - now;
      const struct timespec timeout = { (time_t)(left / 1000000000u), (long)(left % 1000000000u) };

      ppoll (fds, (nfds_t)(1 + 2 * n_connections), due == UINT64_MAX ? NULL : &timeout, NULL);
    }
    for (int i = n_connections; i-- > 0;)
      if ((fds[1 + 2 * i].revents & ~POLLOUT && !pass_request (&connections[i]))
          || (fds[2 + 2 * i].revents && !hold_answer (&connections[i])) || !pass_answers (&connections[i], now_ns ()))
        end (i);
    if (fds[0].revents)
      accept_one (listener, to);
  }
}

pid_t
slow_relay_start (const char *path, const char *to, unsigned delay_us) {
  const int listener = unix_socket (path, TRUE);
  const pid_t pid = fork ();

  if (pid == 0) {
    prctl (PR_SET_PDEATHSIG, SIGKILL);
    prctl (PR_SET_TIMERSLACK, 1);
    delay_ns = (uint64_t)delay_us * 1000;
    relay (listener, to);
  }
  close (listener);
  return pid;
}

void
slow_relay_end (pid_t pid) {
  kill (pid, SIGKILL);
  waitpid (pid, NULL, 0);
}
