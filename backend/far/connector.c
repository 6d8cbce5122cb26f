/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "far/connector.h"
#include "io/fd-message.h"
#include "io/sandbox-calls.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

SANDBOX_CALLS (SANDBOX_CALL (sendto), SANDBOX_CALL (recvfrom));
SANDBOX_KEEPER_CALLS (SANDBOX_CALL (socketpair), SANDBOX_CALL_IF (socket, 0, ~0u, AF_UNIX), SANDBOX_CALL (connect));

static const char greeting[] = "{\"execute\":\"far-serve\"}\n";

bool
far_connector_pair (int ret_ends[2]) {
  return socketpair (AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ret_ends) == 0;
}

/* A unix socket connects at once or not at all. */
static int
open_connection (const char *path) {
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  const size_t n = strlen (path);
  int fd, error;

  if (n >= sizeof address.sun_path) {
    errno = ENAMETOOLONG;
    return -1;
  }
  memcpy (address.sun_path, path, n);
  fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0)
    return -1;
  if (connect (fd, (const struct sockaddr *)&address, sizeof address) == 0
      && send (fd, greeting, sizeof greeting - 1, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)(sizeof greeting - 1))
    return fd;
  error = errno;
  close (fd);
  errno = error;
  return -1;
}

bool
far_connector_serve (int fd, const char *path) {
  struct far_connector_answer answer = { 0 };
  char question;
  int connection;
  ssize_t n;

  n = recv (fd, &question, 1, MSG_DONTWAIT);
  if (n < 0)
    return errno == EAGAIN || errno == EINTR;
  if (n == 0)
    return false;
  connection = open_connection (path);
  if (connection < 0)
    answer.error = errno;
  fd_message_send (fd, &answer, sizeof answer, NULL, 0, connection);
  if (connection >= 0)
    close (connection);
  return true;
}

bool
far_connector_ask (int fd) {
  return send (fd, "c", 1, MSG_NOSIGNAL | MSG_DONTWAIT) == 1;
}

int
far_connector_take (int fd) {
  struct far_connector_answer answer;
  struct fd_message_fds fds;
  const ssize_t n = fd_message_receive (fd, &answer, sizeof answer, &fds);

  if (n == (ssize_t)sizeof answer && answer.error == 0 && fds.n == 1)
    return fds.fds[0];
  for (unsigned i = 0; i < fds.n; i++)
    close (fds.fds[i]);
  if (n >= 0)
    errno = n == (ssize_t)sizeof answer && answer.error > 0 ? answer.error : EPIPE;
  if (n >= 0 && errno == EAGAIN) /* so many wait to be connected that there is no room: an answer, too */
    errno = EBUSY;
  return -1;
}
