/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A connected socket as a stream of bytes that never waits: plain at first, and TLS 1.3 with a pre-shared key (ECDHE-PSK) from
 * the moment on at which the owner says so (NBD's STARTTLS). Plain, what is read and written goes between the socket and the
 * caller's memory, with nothing between them. With TLS, many small pieces become one record, and many records one system call.
 *
 * The owner gives a function that is called, from the main loop, when the stream may be read or written (secure_stream_watch);
 * it need not read all there is. What TLS holds back (bytes read from the socket already, or not yet written to it) is the
 * stream's own affair.
 */
#ifndef DOMYBS_IO_SECURE_STREAM_H
#define DOMYBS_IO_SECURE_STREAM_H

#include <glib-unix.h>
#include <sys/uio.h>

#include "io/psk-keys.h"

typedef struct SecureStream SecureStream;
/* What a side of TLS needs, for all of its streams: made once, and before there is a sandbox (it reads files, perhaps). */
typedef struct SecureSide SecureSide;

/* The server's: any of these identities may connect. */
SecureSide *secure_side_new_server (PskKeys *keys, GError **error);
/* The client's: key is copied, and wiped with the side. */
SecureSide *secure_side_new_client (const char *identity, const guint8 *key, gsize bytes, GError **error);
SecureSide *secure_side_ref (SecureSide *side);
void secure_side_unref (SecureSide *side);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (SecureSide, secure_side_unref)

/* Takes over fd, which is non-blocking and connected (or connecting: it is writable, then). */
SecureStream *secure_stream_new (int fd);
/* From within its own function, too. Closes the socket at once: what was not sent is not sent. */
void secure_stream_free (SecureStream *stream);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (SecureStream, secure_stream_free)

/* TLS begins with the next byte. Everything that was to be sent plain has been (secure_stream_unsent is 0), and no byte was
 * read beyond. The handshake is made by the calls below: until it is done they say -EAGAIN. */
void secure_stream_start_tls (SecureStream *stream, SecureSide *side);
/* NULL: no TLS, or not yet. Of the server's side the identity that the client has shown the key of; of the client's its own. */
const char *secure_stream_identity (const SecureStream *stream);

/* Bytes read, > 0; 0: the peer has ended the stream; -EAGAIN: not now; another negative errno: the stream is broken (-EPROTO:
 * TLS, see secure_stream_why). May be less than what is there. */
gssize secure_stream_readv (SecureStream *stream, const struct iovec *pieces, guint n);
gssize secure_stream_read (SecureStream *stream, void *bytes, gsize n);
/* Bytes taken, > 0, or as above, with EPIPE among the errors. At most SECURE_STREAM_PIECES are looked at. */
#define SECURE_STREAM_PIECES 64u
gssize secure_stream_writev (SecureStream *stream, const struct iovec *pieces, guint n);
gssize secure_stream_write (SecureStream *stream, const void *bytes, gsize n);
/* Bytes that were taken and wait for the socket (TLS only, at most some 100 KiB). They are sent as soon as that is possible,
 * whatever is watched, while the stream has a function. */
gsize secure_stream_unsent (const SecureStream *stream);
/* Tells the peer that this side sends no more, as well as that is possible now. */
void secure_stream_end (SecureStream *stream);

/* A sentence about what has broken it; NULL: nothing has. Valid as long as the stream. */
const char *secure_stream_why (const SecureStream *stream);
/* The handshake of TLS has failed because of what the peer said, not because the connection broke: it has another key, or none
 * of ours. */
gboolean secure_stream_refused (const SecureStream *stream);
int secure_stream_fd (const SecureStream *stream);

/* ready: G_IO_IN, G_IO_OUT, or both; only what was asked for. A call may be for nothing (-EAGAIN). When the connection has
 * ended or broken, the function is called with all that was asked for (nothing: G_IO_IN), and reading or writing says how. */
typedef void (*SecureStreamReady) (SecureStream *stream, GIOCondition ready, gpointer data);
/* Calls function from the calling thread's default context while `condition` (G_IO_IN, G_IO_OUT) holds. 0: only what is unsent
 * is sent. Cheap to call again. */
void secure_stream_watch (SecureStream *stream, GIOCondition condition, SecureStreamReady function, gpointer data);
/* The function is called once more at the next turn of the loop, with `ready` of what is watched, even if nothing new has come:
 * the owner has bytes of its own left. */
void secure_stream_again (SecureStream *stream);

#endif
