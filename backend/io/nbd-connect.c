/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "io/nbd-connect.h"
#include "io/sandbox-calls.h"
#include "io/sandbox.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

/* TCP: a host that is gone says nothing. One that is there keeps its connections, even if the server has stopped. */
#define IDLE_S 10
#define PROBE_S 5
#define PROBES 4

/* To connect. Workers with files need none of these: they are let in when there is an NBD server (nbd_connect_tell_sandbox). */
#define CALLS_TO_CONNECT                                                                                                       \
  SANDBOX_CALL_IF (socket, 0, ~0u, AF_UNIX), SANDBOX_CALL_IF (socket, 0, ~0u, AF_INET),                                        \
      SANDBOX_CALL_IF (socket, 0, ~0u, AF_INET6), SANDBOX_CALL (connect), SANDBOX_CALL (getsockopt),                           \
      SANDBOX_CALL (setsockopt), SANDBOX_CALL (shutdown), SANDBOX_CALL (getpeername), SANDBOX_CALL (sendto),                   \
      SANDBOX_CALL (sendmsg), SANDBOX_CALL (recvfrom), SANDBOX_CALL (recvmsg), SANDBOX_CALL (fcntl)
/* Keys and certificates are read each time. */
#define CALLS_FOR_TLS                                                                                                          \
  SANDBOX_CALL_IF (openat, 2, O_ACCMODE | O_CREAT | O_TRUNC, O_RDONLY),                                                        \
      SANDBOX_CALL_IF (open, 1, O_ACCMODE | O_CREAT | O_TRUNC, O_RDONLY), SANDBOX_CALL (stat), SANDBOX_CALL (access),          \
      SANDBOX_CALL (faccessat), SANDBOX_CALL (faccessat2), SANDBOX_CALL (getdents64), SANDBOX_CALL (getuid),                   \
      SANDBOX_CALL (getgid), SANDBOX_CALL (getegid), SANDBOX_CALL (getrusage), SANDBOX_CALL (pread64)
/* A certificate is for a name, so with them libnbd is to connect by name, and looks it up each time. */
#define CALLS_TO_LOOK_UP                                                                                                       \
  SANDBOX_CALL_IF (socket, 0, ~0u, AF_NETLINK), SANDBOX_CALL (bind), SANDBOX_CALL (getsockname), SANDBOX_CALL (sendmmsg),      \
      SANDBOX_CALL (ioctl), SANDBOX_CALL (uname)

SANDBOX_KEEPER_CALLS (CALLS_TO_CONNECT, CALLS_FOR_TLS, CALLS_TO_LOOK_UP);

static const struct sandbox_call calls_plain[] = { CALLS_TO_CONNECT, { INT_MIN, -1, 0, 0 } };
static const struct sandbox_call calls_tls[] = { CALLS_FOR_TLS, { INT_MIN, -1, 0, 0 } };
static const struct sandbox_call calls_look_up[] = { CALLS_TO_LOOK_UP, { INT_MIN, -1, 0, 0 } };

struct nbd_handle *
nbd_connect_begin (const NbdUri *uri, unsigned number) {
  struct nbd_handle *nbd = nbd_create ();
  const struct nbd_address *address;
  gboolean ok;

  if (!nbd)
    return NULL;
  ok = nbd_set_export_name (nbd, uri->export) == 0 && nbd_set_full_info (nbd, true) == 0
       && nbd_set_pread_initialize (nbd, false) == 0;
  if (ok && uri->tls)
    ok = nbd_set_tls (nbd, LIBNBD_TLS_REQUIRE) == 0 && (!uri->user || nbd_set_tls_username (nbd, uri->user) == 0)
         && (!uri->psk_file || nbd_set_tls_psk_file (nbd, uri->psk_file) == 0)
         && (!uri->certificates || nbd_set_tls_certificates (nbd, uri->certificates) == 0);
  if (ok && uri->tls && !uri->psk_file && !uri->socket)
    ok = nbd_aio_connect_tcp (nbd, uri->host, uri->port) == 0;
  else if (ok) {
    address = &uri->addresses[number % uri->n_addresses];
    ok = nbd_aio_connect (nbd, (const struct sockaddr *)&address->address, address->bytes) == 0;
  }
  if (ok)
    return nbd;
  nbd_close (nbd);
  return NULL;
}

void
nbd_connect_tune (struct nbd_handle *nbd, const NbdUri *uri) {
  const int fd = nbd_aio_get_fd (nbd), on = 1, idle = IDLE_S, probe = PROBE_S, probes = PROBES;
  const unsigned patience_ms = (IDLE_S + PROBE_S * PROBES) * 1000;
  /* what was not sent when it is closed is not to be sent any more */
  const struct linger drop = { .l_onoff = 1 };

  if (fd < 0 || uri->socket)
    return;
  setsockopt (fd, SOL_SOCKET, SO_LINGER, &drop, sizeof drop);
  setsockopt (fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  setsockopt (fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
  setsockopt (fd, IPPROTO_TCP, TCP_KEEPINTVL, &probe, sizeof probe);
  setsockopt (fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
  setsockopt (fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &patience_ms, sizeof patience_ms);
}

void
nbd_connect_tell_sandbox (const NbdUri *uri) {
  sandbox_let_worker_call (calls_plain);
  if (uri->tls)
    sandbox_let_worker_call (calls_tls);
  if (uri->tls && !uri->psk_file && !uri->socket)
    sandbox_let_worker_call (calls_look_up);
}
