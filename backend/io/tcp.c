/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "io/tcp.h"
#include "io/error.h"
#include "io/listen.h"
#include "io/sandbox-calls.h"
#include "io/sandbox.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

/* Listening begins before there is a sandbox. */
SANDBOX_CALLS (SANDBOX_CALL (setsockopt), SANDBOX_CALL (getsockopt), SANDBOX_CALL (getpeername), SANDBOX_CALL (getsockname));

#define CALLS_TO_CONNECT                                                                                                       \
  SANDBOX_CALL_IF (socket, 0, ~0u, AF_INET), SANDBOX_CALL_IF (socket, 0, ~0u, AF_INET6),                                       \
      SANDBOX_CALL_IF (socket, 0, ~0u, AF_UNIX), SANDBOX_CALL (connect), SANDBOX_CALL (setsockopt), SANDBOX_CALL (getsockopt), \
      SANDBOX_CALL (getpeername), SANDBOX_CALL (getsockname)
SANDBOX_KEEPER_CALLS (CALLS_TO_CONNECT);
static const struct sandbox_call calls_to_connect[] = { CALLS_TO_CONNECT, { INT_MIN, -1, 0, 0 } };

#define KEEPALIVE_IDLE_S 10
#define KEEPALIVE_INTERVAL_S 5
#define KEEPALIVE_PROBES 4
#define USER_TIMEOUT_MS 30000u /* data that nobody acknowledges for so long ends the connection */

#define UNIX_PREFIX "unix:"

static gboolean
parse_unix (const char *path, struct sockaddr_storage *ret_address, socklen_t *ret_bytes) {
  struct sockaddr_un *address = (struct sockaddr_un *)ret_address;

  if (!*path || strlen (path) >= sizeof address->sun_path)
    return FALSE;
  address->sun_family = AF_UNIX;
  memcpy (address->sun_path, path, strlen (path) + 1);
  *ret_bytes = sizeof *address;
  return TRUE;
}

gboolean
tcp_parse (const char *text, struct sockaddr_storage *ret_address, socklen_t *ret_bytes, GError **error) {
  struct sockaddr_in *v4 = (struct sockaddr_in *)ret_address;
  struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)ret_address;
  const char *colon = strrchr (text, ':');
  g_autofree char *host = NULL;
  guint64 port;

  memset (ret_address, 0, sizeof *ret_address);
  if (g_str_has_prefix (text, UNIX_PREFIX)) {
    if (parse_unix (text + strlen (UNIX_PREFIX), ret_address, ret_bytes))
      return TRUE;
  } else if (colon && g_ascii_string_to_unsigned (colon + 1, 10, 0, 65535, &port, NULL)) {
    if (*text == '[' && colon > text && colon[-1] == ']') {
      host = g_strndup (text + 1, (gsize)(colon - text - 2));
      if (inet_pton (AF_INET6, host, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons ((guint16)port);
        *ret_bytes = sizeof *v6;
        return TRUE;
      }
    } else {
      host = g_strndup (text, (gsize)(colon - text));
      if (inet_pton (AF_INET, host, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons ((guint16)port);
        *ret_bytes = sizeof *v4;
        return TRUE;
      }
    }
  }
  g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_USAGE,
               "'%s' is no address: expected 192.0.2.1:10809, [2001:db8::1]:10809 or unix:PATH (no host names)", text);
  return FALSE;
}

int
tcp_listen (const char *text, int backlog, GError **error) {
  const ListenRights rights = { LISTEN_GROUP_UNCHANGED, 0600 };
  struct sockaddr_storage address;
  const int one = 1;
  socklen_t bytes;
  int fd;

  if (!tcp_parse (text, &address, &bytes, error))
    return -1;
  if (address.ss_family == AF_UNIX)
    return listen_unix (text + strlen (UNIX_PREFIX), &rights, error);
  fd = socket (address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) {
    domybs_error_errno (error, "can't create a socket for %s", text);
    return -1;
  }
  if (address.ss_family == AF_INET6)
    setsockopt (fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
  if (setsockopt (fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) < 0 || bind (fd, (struct sockaddr *)&address, bytes) < 0
      || listen (fd, backlog) < 0) {
    domybs_error_errno (error, "can't listen at %s", text);
    close (fd);
    return -1;
  }
  return fd;
}

int
tcp_connect (const char *text, GError **error) {
  struct sockaddr_storage address;
  socklen_t bytes;
  int fd;

  if (!tcp_parse (text, &address, &bytes, error))
    return -1;
  fd = socket (address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) {
    domybs_error_errno (error, "can't create a socket for %s", text);
    return -1;
  }
  tcp_tune (fd);
  if (connect (fd, (struct sockaddr *)&address, bytes) < 0 && errno != EINPROGRESS) {
    domybs_error_errno (error, "can't connect to %s", text);
    close (fd);
    return -1;
  }
  return fd;
}

void
tcp_tell_sandbox (void) {
  sandbox_let_worker_call (calls_to_connect);
}

int
tcp_connected (int fd) {
  socklen_t bytes = sizeof (int);
  int result = 0;

  if (getsockopt (fd, SOL_SOCKET, SO_ERROR, &result, &bytes) < 0)
    return errno;
  return result;
}

void
tcp_tune (int fd) {
  const int one = 1, idle = KEEPALIVE_IDLE_S, interval = KEEPALIVE_INTERVAL_S, probes = KEEPALIVE_PROBES;
  const unsigned timeout = USER_TIMEOUT_MS;

  /* On a unix socket these fail, and nothing is missing. */
  if (setsockopt (fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) < 0)
    return;
  setsockopt (fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
  setsockopt (fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
  setsockopt (fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
  setsockopt (fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
  setsockopt (fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout, sizeof timeout);
}

guint
tcp_port (int fd) {
  struct sockaddr_storage address = { 0 };
  socklen_t bytes = sizeof address;

  if (getsockname (fd, (struct sockaddr *)&address, &bytes) < 0)
    return 0;
  if (address.ss_family == AF_INET)
    return ntohs (((struct sockaddr_in *)&address)->sin_port);
  return address.ss_family == AF_INET6 ? ntohs (((struct sockaddr_in6 *)&address)->sin6_port) : 0;
}

char *
tcp_peer_name (int fd) {
  struct sockaddr_storage address = { 0 };
  socklen_t bytes = sizeof address;
  char host[INET6_ADDRSTRLEN] = "";

  if (getpeername (fd, (struct sockaddr *)&address, &bytes) < 0)
    return g_strdup ("somebody who has gone");
  if (address.ss_family == AF_INET) {
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)&address;

    inet_ntop (AF_INET, &v4->sin_addr, host, sizeof host);
    return g_strdup_printf ("%s:%u", host, ntohs (v4->sin_port));
  }
  if (address.ss_family == AF_INET6) {
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&address;

    inet_ntop (AF_INET6, &v6->sin6_addr, host, sizeof host);
    return g_strdup_printf ("[%s]:%u", host, ntohs (v6->sin6_port));
  }
  return g_strdup ("a unix socket");
}
