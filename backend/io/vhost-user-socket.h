/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A vhost-user session on the front-end's own socket, for back-ends without a keeper between them and QEMU: those that QEMU
 * connects to again. Nothing of the session outlives the process but what is in the inflight region.
 *
 * Never blocks, and reads no byte before the session wants it; so what a front-end sends waits in its own socket. One that
 * does not read its replies is closed when VHOST_USER_SOCKET_OUT_BYTES wait for it.
 */
#ifndef DOMYBS_IO_VHOST_USER_SOCKET_H
#define DOMYBS_IO_VHOST_USER_SOCKET_H

#include "io/vhost-user-session.h"

#define VHOST_USER_SOCKET_OUT_BYTES 16384u /* of each stream */

typedef struct VhostUserSocket VhostUserSocket;

/* fd: an accepted stream socket, taken over. Runs on the thread-default GMainContext; the first message is read in its next
 * turn. device_type must outlive the socket. When the session closes, the device is told (closed), and after that socket and
 * session free themselves: forget both in `closed`. */
VhostUserSocket *vhost_user_socket_new (int fd, const VhostUserDevice *device_type, gpointer device);

/* Ends the connection without a word to the device. Not in or after `closed`. */
void vhost_user_socket_free (VhostUserSocket *socket);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (VhostUserSocket, vhost_user_socket_free)

VhostUserSession *vhost_user_socket_session (VhostUserSocket *socket);

#endif
