/* SPDX-License-Identifier: GPL-2.0-or-later */
/* TCP addresses as they stand in options, "HOST:PORT" or "[V6]:PORT", numeric: a daemon asks no name server. And "unix:PATH".
 */
#ifndef DOMYBS_IO_TCP_H
#define DOMYBS_IO_TCP_H

#include <glib.h>
#include <sys/socket.h>

/* The socket address; FALSE with a USAGE error that names the text. PORT may be 0. */
gboolean tcp_parse (const char *text, struct sockaddr_storage *ret_address, socklen_t *ret_bytes, GError **error);
/* A listening socket, non-blocking and close-on-exec; -1 with error. Of "unix:PATH", too (mode 0600). */
int tcp_listen (const char *text, int backlog, GError **error);
/* A socket that connects, non-blocking: writable when it is done, and SO_ERROR says how (tcp_connected). -1 with error: at once
 * refused. */
int tcp_connect (const char *text, GError **error);
/* Before sandbox_worker: connecting is to be possible afterwards. */
void tcp_tell_sandbox (void);
/* 0, or the errno that connecting ended with. */
int tcp_connected (int fd);
/* No delay of small pieces; a peer whose host is gone is noticed after some 30 s, also when there is nothing to send. Nothing
 * for unix sockets. */
void tcp_tune (int fd);
/* The port that a socket is bound to, 0: none. */
guint tcp_port (int fd);
/* The peer's address for people. Free it. */
char *tcp_peer_name (int fd);

#endif
