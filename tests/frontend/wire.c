/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The main socket: whole messages and raw bytes, always with a deadline. */
#include "frontend.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define FDS_MAX 253 /* SCM_MAX_FD */

int
fe_patience_ms (void) {
  static int patience;

  if (!patience) {
    const char *factor = getenv ("DOMYBS_TEST_SLOW");
    patience = 5000 * MAX (1, factor ? atoi (factor) : 1);
  }
  return patience;
}

int64_t
fe_now_ms (void) {
  return g_get_monotonic_time () / 1000;
}

void
fe_close (int *fd) {
  if (*fd >= 0)
    close (*fd);
  *fd = -1;
}

bool
fe_fail (struct fe *fe, const char *format, ...) {
  va_list args;

  g_free (fe->why);
  va_start (args, format);
  fe->why = g_strdup_vprintf (format, args);
  va_end (args);
  return false;
}

bool
fe_connect (struct fe *fe, const char *path) {
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  const int64_t deadline = fe_now_ms () + fe_patience_ms ();

  if (strlen (path) >= sizeof address.sun_path)
    return fe_fail (fe, "socket path too long: %s", path);
  strcpy (address.sun_path, path);
  fe->sock = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fe->sock < 0)
    return fe_fail (fe, "socket: %s", g_strerror (errno));
  while (connect (fe->sock, (const struct sockaddr *)&address, sizeof address) < 0) {
    if ((errno != ENOENT && errno != ECONNREFUSED && errno != EAGAIN) || fe_now_ms () > deadline)
      return fe_fail (fe, "connect to %s: %s", path, g_strerror (errno));
    g_usleep (5000);
  }
  return true;
}

void
fe_disconnect (struct fe *fe) {
  fe_close (&fe->sock);
  fe_close (&fe->channel);
  fe_close (&fe->channel_theirs);
}

bool
fe_send_raw (struct fe *fe, int sock, const void *bytes, size_t n, const int *fds, unsigned n_fds) {
  union {
    struct cmsghdr align;
    char buf[CMSG_SPACE (FDS_MAX * sizeof (int))];
  } control;
  const int64_t deadline = fe_now_ms () + fe_patience_ms ();

  while (n) {
    const bool trickles = fe->trickle && sock == fe->sock;
    struct iovec iov = { (void *)bytes, trickles ? 1 : n };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
    struct pollfd pfd = { sock, POLLOUT, 0 };
    ssize_t sent;

    if (trickles)
      fe->trickle (fe->trickle_data);
    if (n_fds) {
      struct cmsghdr *cmsg = &control.align;

      memset (&control, 0, sizeof control);
      msg.msg_control = control.buf;
      msg.msg_controllen = CMSG_SPACE (n_fds * sizeof (int));
      cmsg->cmsg_level = SOL_SOCKET;
      cmsg->cmsg_type = SCM_RIGHTS;
      cmsg->cmsg_len = CMSG_LEN (n_fds * sizeof (int));
      memcpy (CMSG_DATA (cmsg), fds, n_fds * sizeof (int));
    }
    sent = sendmsg (sock, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno != EAGAIN && errno != EINTR)
      return fe_fail (fe, "send: %s", g_strerror (errno));
    if (sent > 0) {
      bytes = (const char *)bytes + sent;
      n -= (size_t)sent;
      n_fds = 0;
      continue;
    }
    if (fe_now_ms () > deadline)
      return fe_fail (fe, "send: the back-end does not read (%zu bytes left)", n);
    poll (&pfd, 1, 100);
  }
  return true;
}

bool
fe_send (struct fe *fe, uint32_t request, uint32_t flags, const void *payload, uint32_t bytes, const int *fds, unsigned n_fds) {
  const uint32_t header[3] = { request, flags | FE_FLAG_VERSION, bytes };
  g_autofree uint8_t *message = g_malloc (sizeof header + bytes);

  memcpy (message, header, sizeof header);
  if (bytes)
    memcpy (message + sizeof header, payload, bytes);
  return fe_send_raw (fe, fe->sock, message, sizeof header + bytes, fds, n_fds);
}

static bool
receive_exactly (struct fe *fe, void *buf, size_t n, int64_t deadline) {
  while (n) {
    struct pollfd pfd = { fe->sock, POLLIN, 0 };
    const ssize_t got = recv (fe->sock, buf, n, MSG_DONTWAIT);

    if (got == 0)
      return fe_fail (fe, "the back-end closed the connection");
    if (got < 0 && errno != EAGAIN && errno != EINTR)
      return fe_fail (fe, "receive: %s", g_strerror (errno));
    if (got > 0) {
      buf = (char *)buf + got;
      n -= (size_t)got;
      continue;
    }
    if (fe_now_ms () > deadline)
      return fe_fail (fe, "no reply within %d ms", fe_patience_ms ());
    poll (&pfd, 1, 100);
  }
  return true;
}

bool
fe_receive (struct fe *fe, uint32_t request, void *payload, size_t cap, uint32_t *ret_bytes) {
  const int64_t deadline = fe_now_ms () + fe_patience_ms ();
  uint32_t header[3];

  if (!receive_exactly (fe, header, sizeof header, deadline))
    return false;
  if (header[0] != request)
    return fe_fail (fe, "a reply to request %u, expected %u", header[0], request);
  if (header[1] != (FE_FLAG_VERSION | FE_FLAG_REPLY))
    return fe_fail (fe, "a reply with flags %#x", header[1]);
  if (header[2] > cap)
    return fe_fail (fe, "a reply of %u bytes, expected at most %zu", header[2], cap);
  if (header[2] && !receive_exactly (fe, payload, header[2], deadline))
    return false;
  *ret_bytes = header[2];
  return true;
}

bool
fe_get_u64 (struct fe *fe, uint32_t request, uint64_t *ret_value) {
  uint32_t bytes;

  return fe_send (fe, request, 0, NULL, 0, NULL, 0) && fe_receive (fe, request, ret_value, sizeof *ret_value, &bytes)
         && (bytes == sizeof *ret_value || fe_fail (fe, "a reply of %u bytes to request %u", bytes, request));
}

bool
fe_set_u64 (struct fe *fe, uint32_t request, uint64_t value) {
  return fe_send (fe, request, 0, &value, sizeof value, NULL, 0);
}

bool
fe_set_state (struct fe *fe, uint32_t request, uint32_t index, uint32_t num) {
  const uint32_t state[2] = { index, num };

  return fe_send (fe, request, 0, state, sizeof state, NULL, 0);
}

bool
fe_send_acked (struct fe *fe, uint32_t request, const void *payload, uint32_t bytes, const int *fds, unsigned n_fds) {
  uint64_t ack;
  uint32_t ack_bytes;

  if (!fe_send (fe, request, FE_FLAG_NEED_REPLY, payload, bytes, fds, n_fds)
      || !fe_receive (fe, request, &ack, sizeof ack, &ack_bytes))
    return false;
  if (ack_bytes != sizeof ack || ack)
    return fe_fail (fe, "request %u was refused (%" G_GUINT64_FORMAT ")", request, ack);
  return true;
}

bool
fe_get_config (struct fe *fe, struct domybs_config *ret_config) {
  struct {
    uint32_t offset, bytes, flags;
    uint8_t data[sizeof (struct domybs_config)];
  } config = { 0, sizeof (struct domybs_config), 0, { 0 } };
  uint32_t bytes;

  if (!fe_send (fe, FE_GET_CONFIG, 0, &config, sizeof config, NULL, 0)
      || !fe_receive (fe, FE_GET_CONFIG, &config, sizeof config, &bytes))
    return false;
  if (bytes != sizeof config)
    return fe_fail (fe, "GET_CONFIG answered with %u bytes", bytes);
  memcpy (ret_config, config.data, sizeof *ret_config);
  return true;
}

bool
fe_wait_closed (struct fe *fe, int timeout_ms) {
  const int64_t deadline = fe_now_ms () + timeout_ms;
  char sink[4096];

  for (;;) {
    struct pollfd pfd = { fe->sock, POLLIN, 0 };
    const ssize_t got = recv (fe->sock, sink, sizeof sink, MSG_DONTWAIT);

    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR))
      return true;
    if (got > 0)
      continue;
    if (fe_now_ms () >= deadline)
      return fe_fail (fe, "the back-end kept the connection");
    poll (&pfd, 1, (int)MIN (100, deadline - fe_now_ms () + 1));
  }
}
