/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "io/secure-side.h"
#include "io/quiet-fds.h"
#include "io/sandbox-calls.h"
#include "io/source.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* GnuTLS's random numbers are from getrandom, and from how much the process has used. */
SANDBOX_CALLS (SANDBOX_CALL (readv), SANDBOX_CALL (recvfrom), SANDBOX_CALL (sendto), SANDBOX_CALL (sendmsg),
               SANDBOX_CALL (shutdown), SANDBOX_CALL (getrandom), SANDBOX_CALL (getrusage));

#define RECORD_BYTES 16384u /* of data in one record */
#define RECORD_OVERHEAD 512u
#define IN_BYTES (64u * 1024)
#define OUT_BYTES (128u * 1024)
#define SPARE_BYTES 4096u /* of out, for what GnuTLS sends by itself */

/* Bytes of TLS on their way between GnuTLS and the socket. */
struct tls {
  gnutls_session_t session;
  gboolean done; /* the handshake */
  gboolean dry;  /* the socket gave less than there was room for: there is nothing more, or the main loop will hear of it */
  size_t in_at, in_end, out_at, out_end;
  guint8 in[IN_BYTES], out[OUT_BYTES];
};

struct SecureStream {
  int fd;
  SecureSide *side;
  struct tls *tls;
  char *identity;
  int broken; /* negative errno; 0: not */
  gboolean refused, again;
  char *why;
  GMainContext *context; /* of who watches it; NULL: nobody has */
  GSource *source;       /* NULL while it rests, too */
  gpointer poll_tag, data;
  QuietFd quiet;
  GIOCondition watched, polled;
  SecureStreamReady function;
};

/* ---- what has broken it ---- */

static int
fail (SecureStream *stream, int error, const char *why) {
  if (!stream->broken) {
    stream->broken = error;
    stream->why = g_strdup (why);
    quiet_fd_wake (&stream->quiet);
  }
  return stream->broken;
}

static int
fail_errno (SecureStream *stream, int error) {
  return fail (stream, -error, g_strerror (error));
}

/* What GnuTLS has ended with. */
static int
fail_tls (SecureStream *stream, int result) {
  struct tls *tls = stream->tls;
  g_autofree char *why = NULL;

  if (stream->broken)
    return stream->broken;
  if (!tls->done)
    stream->refused
        = result != GNUTLS_E_PREMATURE_TERMINATION && result != GNUTLS_E_PULL_ERROR && result != GNUTLS_E_PUSH_ERROR;
  if (result == GNUTLS_E_FATAL_ALERT_RECEIVED)
    why = g_strdup_printf ("TLS: the peer says: %s", gnutls_alert_get_strname (gnutls_alert_get (tls->session)));
  else
    why = g_strdup_printf ("TLS: %s", gnutls_strerror (result));
  return fail (stream, -EPROTO, why);
}

/* ---- between GnuTLS and the socket ---- */

/* Sends what waits. Returns 0 (all of it, or as much as goes now), or a negative errno. */
static int
flush (SecureStream *stream) {
  struct tls *tls = stream->tls;
  ssize_t n;

  if (stream->broken)
    return stream->broken;
  while (tls && tls->out_at < tls->out_end) {
    n = send (stream->fd, tls->out + tls->out_at, tls->out_end - tls->out_at, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0 && errno == EAGAIN)
      return 0;
    if (n < 0)
      return fail_errno (stream, errno);
    tls->out_at += (size_t)n;
  }
  if (tls)
    tls->out_at = tls->out_end = 0;
  return 0;
}

/* Room for n more bytes behind what waits; FALSE: there is none. */
static gboolean
make_room (struct tls *tls, size_t n) {
  if (OUT_BYTES - tls->out_end < n && tls->out_at) {
    memmove (tls->out, tls->out + tls->out_at, tls->out_end - tls->out_at);
    tls->out_end -= tls->out_at;
    tls->out_at = 0;
  }
  return OUT_BYTES - tls->out_end >= n;
}

static ssize_t
push (gnutls_transport_ptr_t pointer, const void *bytes, size_t n) {
  SecureStream *stream = pointer;
  struct tls *tls = stream->tls;

  if (!make_room (tls, n))
    flush (stream);
  if (stream->broken || !make_room (tls, n)) {
    gnutls_transport_set_errno (tls->session, stream->broken ? EIO : EAGAIN);
    return -1;
  }
  memcpy (tls->out + tls->out_end, bytes, n);
  tls->out_end += n;
  return (ssize_t)n;
}

static ssize_t
pull (gnutls_transport_ptr_t pointer, void *bytes, size_t n) {
  SecureStream *stream = pointer;
  struct tls *tls = stream->tls;
  ssize_t have;

  if (tls->in_at == tls->in_end && tls->dry) {
    tls->dry = FALSE;
    gnutls_transport_set_errno (tls->session, EAGAIN);
    return -1;
  }
  if (tls->in_at == tls->in_end) {
    tls->in_at = tls->in_end = 0;
    do
      have = recv (stream->fd, tls->in, sizeof tls->in, MSG_DONTWAIT);
    while (have < 0 && errno == EINTR);
    if (have < 0 && errno != EAGAIN)
      fail_errno (stream, errno);
    if (have < 0)
      gnutls_transport_set_errno (tls->session, stream->broken ? EIO : EAGAIN);
    if (have <= 0)
      return have;
    tls->in_end = (size_t)have;
    tls->dry = tls->in_end < sizeof tls->in;
  }
  n = MIN (n, tls->in_end - tls->in_at);
  memcpy (bytes, tls->in + tls->in_at, n);
  tls->in_at += n;
  return (ssize_t)n;
}

/* ---- the handshake ---- */

/* 0: it is done. -EAGAIN: not yet. */
static int
handshake (SecureStream *stream) {
  struct tls *tls = stream->tls;
  int result;

  if (tls->done)
    return 0;
  do
    result = gnutls_handshake (tls->session);
  while (result == GNUTLS_E_INTERRUPTED || result == GNUTLS_E_WARNING_ALERT_RECEIVED);
  if (result < 0 && result != GNUTLS_E_AGAIN) {
    /* Says so to the peer, whose fault it may be that his key is another one. */
    if (!stream->broken && result != GNUTLS_E_FATAL_ALERT_RECEIVED && gnutls_alert_send_appropriate (tls->session, result) >= 0)
      flush (stream);
    return fail_tls (stream, result);
  }
  if (flush (stream) < 0)
    return stream->broken;
  if (result == GNUTLS_E_AGAIN)
    return -EAGAIN;
  if (gnutls_protocol_get_version (tls->session) != GNUTLS_TLS1_3 || gnutls_auth_get_type (tls->session) != GNUTLS_CRD_PSK)
    return fail_tls (stream, GNUTLS_E_INSUFFICIENT_CREDENTIALS);
  stream->identity = g_strdup (stream->side->server ? gnutls_psk_server_get_username (tls->session) : stream->side->identity);
  if (!stream->identity)
    return fail_tls (stream, GNUTLS_E_INSUFFICIENT_CREDENTIALS);
  tls->done = TRUE;
  return 0;
}

static int
begin_session (SecureStream *stream) {
  struct tls *tls = stream->tls;
  const int result = secure_side_begin (stream->side, &tls->session);

  if (result < 0)
    return result;
  gnutls_transport_set_ptr (tls->session, stream);
  gnutls_transport_set_push_function (tls->session, push);
  gnutls_transport_set_pull_function (tls->session, pull);
  return result;
}

/* ---- the source ---- */

struct stream_source {
  GSource base;
  SecureStream *stream;
};

static gboolean
holds_input (const SecureStream *stream) {
  const struct tls *tls = stream->tls;

  return tls && tls->done && (tls->in_at < tls->in_end || gnutls_record_check_pending (tls->session) > 0);
}

static gboolean
handshaking (const SecureStream *stream) {
  return stream->tls && !stream->tls->done && !stream->broken;
}

/* Something is there without the socket's saying so. */
static gboolean
ready_already (const SecureStream *stream) {
  if (stream->again || (stream->broken && stream->watched))
    return TRUE;
  return (stream->watched & G_IO_IN) && holds_input (stream);
}

static void
update_poll (SecureStream *stream) {
  GIOCondition condition = handshaking (stream) ? G_IO_IN : stream->watched;

  if (secure_stream_unsent (stream))
    condition |= G_IO_OUT;
  if (!stream->source || condition == stream->polled)
    return;
  /* Wakes the loop up each time, so that it would never sleep */
  g_source_modify_unix_fd (stream->source, stream->poll_tag, condition);
  stream->polled = condition;
}

static gboolean
source_prepare (GSource *source, int *ret_timeout) {
  SecureStream *stream = ((struct stream_source *)source)->stream;

  *ret_timeout = -1;
  update_poll (stream);
  return ready_already (stream);
}

static gboolean
source_check (GSource *source) {
  SecureStream *stream = ((struct stream_source *)source)->stream;

  return ready_already (stream) || g_source_query_unix_fd (source, stream->poll_tag);
}

static gboolean
source_dispatch (GSource *source, GSourceFunc unused, gpointer unused_data) {
  SecureStream *stream = ((struct stream_source *)source)->stream;
  const GIOCondition got = g_source_query_unix_fd (source, stream->poll_tag);
  const gboolean again = stream->again, was_handshaking = handshaking (stream);
  GIOCondition ready = 0;

  quiet_fd_busy (&stream->quiet);
  stream->again = FALSE;
  if (stream->tls && (got & G_IO_IN))
    stream->tls->dry = FALSE;
  if (secure_stream_unsent (stream) && (got & G_IO_OUT))
    flush (stream);
  if (was_handshaking && handshake (stream) == -EAGAIN)
    return G_SOURCE_CONTINUE;
  if (stream->broken || (got & (G_IO_HUP | G_IO_ERR)))
    ready = stream->watched ? stream->watched : G_IO_IN;
  else if (again || was_handshaking)
    ready = stream->watched;
  else {
    if ((stream->watched & G_IO_IN) && ((got & G_IO_IN) || holds_input (stream)))
      ready |= G_IO_IN;
    if ((stream->watched & G_IO_OUT) && (got & G_IO_OUT) && !secure_stream_unsent (stream))
      ready |= G_IO_OUT;
  }
  if (ready)
    stream->function (stream, ready, stream->data); /* stream may be gone */
  return G_SOURCE_CONTINUE;
}

static GSourceFuncs source_functions = { .prepare = source_prepare, .check = source_check, .dispatch = source_dispatch };

static void
start_source (gpointer owner) {
  SecureStream *stream = owner;

  stream->source = g_source_new (&source_functions, sizeof (struct stream_source));
  ((struct stream_source *)stream->source)->stream = stream;
  stream->poll_tag = g_source_add_unix_fd (stream->source, stream->fd, stream->watched);
  stream->polled = stream->watched;
  /* It does not; but else GLib takes its descriptor out of the loop and back for each call, with three system calls */
  g_source_set_can_recurse (stream->source, TRUE);
  g_source_attach (stream->source, stream->context);
}

static gboolean
may_rest (const SecureStream *stream) {
  return stream->watched == G_IO_IN && !ready_already (stream) && !handshaking (stream) && !secure_stream_unsent (stream);
}

static gboolean
rest (gpointer owner) {
  SecureStream *stream = owner;

  if (!may_rest (stream))
    return FALSE;
  source_clear (&stream->source);
  return TRUE;
}

static const QuietFdKind quiet_kind = { rest, start_source };

/* Behind each call of the owner's, who may well do something with a stream that rests. */
static void
wake_if_due (SecureStream *stream) {
  if (stream->quiet.resting && !may_rest (stream))
    quiet_fd_wake (&stream->quiet);
}

void
secure_stream_watch (SecureStream *stream, GIOCondition condition, SecureStreamReady function, gpointer data) {
  stream->watched = condition & (G_IO_IN | G_IO_OUT);
  stream->function = function;
  stream->data = data;
  if (!stream->context) {
    stream->context = g_main_context_ref_thread_default ();
    quiet_fd_init (&stream->quiet, stream->fd, &quiet_kind, stream);
    start_source (stream);
  }
  wake_if_due (stream);
}

void
secure_stream_again (SecureStream *stream) {
  stream->again = TRUE;
  wake_if_due (stream);
}

/* ---- the stream ---- */

SecureStream *
secure_stream_new (int fd) {
  SecureStream *stream = g_new0 (SecureStream, 1);

  stream->fd = fd;
  return stream;
}

void
secure_stream_free (SecureStream *stream) {
  if (!stream)
    return;
  source_clear (&stream->source);
  quiet_fd_clear (&stream->quiet);
  g_clear_pointer (&stream->context, g_main_context_unref);
  if (stream->tls) {
    if (stream->tls->session)
      gnutls_deinit (stream->tls->session);
    g_free (stream->tls);
  }
  secure_side_unref (stream->side);
  close (stream->fd);
  g_free (stream->identity);
  g_free (stream->why);
  g_free (stream);
}

void
secure_stream_start_tls (SecureStream *stream, SecureSide *side) {
  int result;

  g_return_if_fail (!stream->tls);
  stream->side = secure_side_ref (side);
  stream->tls = g_malloc (sizeof *stream->tls); /* its buffers are not touched before they are needed */
  stream->tls->session = NULL;
  stream->tls->done = stream->tls->dry = FALSE;
  stream->tls->in_at = stream->tls->in_end = stream->tls->out_at = stream->tls->out_end = 0;
  result = begin_session (stream);
  if (result < 0)
    fail_tls (stream, result);
  else if (side->client)
    handshake (stream); /* its first message; an error is heard of by reading */
  wake_if_due (stream);
}

const char *
secure_stream_identity (const SecureStream *stream) {
  return stream->identity;
}

/* FALSE: not now, or broken: the error is in *ret_error. */
static gboolean
usable (SecureStream *stream, gssize *ret_error) {
  int result = stream->broken;

  if (!result && stream->tls)
    result = handshake (stream);
  *ret_error = result;
  return result == 0;
}

static gssize
read_plain (SecureStream *stream, const struct iovec *pieces, guint n) {
  ssize_t have;

  do /* a socket's own call is the faster one */
    have = n == 1 ? recv (stream->fd, pieces->iov_base, pieces->iov_len, MSG_DONTWAIT)
                  : readv (stream->fd, pieces, (int)MIN (n, SECURE_STREAM_PIECES));
  while (have < 0 && errno == EINTR);
  if (have < 0 && errno == EAGAIN)
    return -EAGAIN;
  return have < 0 ? fail_errno (stream, errno) : have;
}

/* One record's data at most. 0: the end. */
static gssize
read_record (SecureStream *stream, void *bytes, gsize n) {
  gssize have;

  do
    have = gnutls_record_recv (stream->tls->session, bytes, n);
  while (have == GNUTLS_E_INTERRUPTED || have == GNUTLS_E_WARNING_ALERT_RECEIVED);
  if (have == GNUTLS_E_AGAIN)
    return -EAGAIN;
  /* An end without notice: each message has a length, so that nothing can be cut off unseen. */
  if (have == GNUTLS_E_PREMATURE_TERMINATION)
    return 0;
  return have < 0 ? fail_tls (stream, (int)have) : have;
}

static gssize
read_tls (SecureStream *stream, const struct iovec *pieces, guint n) {
  gssize have, total = 0;
  gsize at = 0;
  guint i = 0;

  while (i < n) {
    if (at == pieces[i].iov_len) {
      i++;
      at = 0;
      continue;
    }
    have = read_record (stream, (guint8 *)pieces[i].iov_base + at, pieces[i].iov_len - at);
    if (have == -EAGAIN && total)
      stream->tls->dry = TRUE; /* still: who goes on at once need not ask the socket */
    if (have <= 0)
      return total ? total : have;
    total += have;
    at += (gsize)have;
  }
  return total;
}

gssize
secure_stream_readv (SecureStream *stream, const struct iovec *pieces, guint n) {
  gssize result;

  if (usable (stream, &result))
    result = stream->tls ? read_tls (stream, pieces, n) : read_plain (stream, pieces, n);
  wake_if_due (stream);
  return result;
}

gssize
secure_stream_read (SecureStream *stream, void *bytes, gsize n) {
  const struct iovec piece = { bytes, n };

  return secure_stream_readv (stream, &piece, 1);
}

static gssize
write_plain (SecureStream *stream, const struct iovec *pieces, guint n) {
  const struct msghdr message = { .msg_iov = (struct iovec *)pieces, .msg_iovlen = MIN (n, SECURE_STREAM_PIECES) };
  ssize_t sent;

  do
    sent = n == 1 ? send (stream->fd, pieces->iov_base, pieces->iov_len, MSG_NOSIGNAL | MSG_DONTWAIT)
                  : sendmsg (stream->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  while (sent < 0 && errno == EINTR);
  if (sent < 0 && errno == EAGAIN)
    return -EAGAIN;
  return sent < 0 ? fail_errno (stream, errno) : sent;
}

/* The next record's data from pieces, from *i and *at on: where it lies, or in scratch if it is of several. */
static const guint8 *
gather (const struct iovec *pieces, guint n, guint *i, gsize *at, guint8 *scratch, gsize *ret_bytes) {
  const guint8 *first = (const guint8 *)pieces[*i].iov_base + *at;
  gsize have = MIN (pieces[*i].iov_len - *at, RECORD_BYTES), more;

  *at += have;
  if (have == RECORD_BYTES || *i + 1 == n) {
    *ret_bytes = have;
    return first;
  }
  memcpy (scratch, first, have);
  while (have < RECORD_BYTES && *i + 1 < n) {
    ++*i;
    more = MIN (pieces[*i].iov_len, RECORD_BYTES - have);
    if (more)
      memcpy (scratch + have, pieces[*i].iov_base, more);
    have += more;
    *at = more;
  }
  *ret_bytes = have;
  return scratch;
}

static gssize
write_tls (SecureStream *stream, const struct iovec *pieces, guint n) {
  struct tls *tls = stream->tls;
  guint8 scratch[RECORD_BYTES];
  const guint8 *bytes;
  gssize total = 0, sent;
  gsize at = 0, have;
  guint i = 0;

  for (;;) {
    while (i < n && at == pieces[i].iov_len) {
      i++;
      at = 0;
    }
    if (i == n)
      break;
    if (!make_room (tls, RECORD_BYTES + RECORD_OVERHEAD + SPARE_BYTES) && flush (stream) < 0)
      return stream->broken;
    if (!make_room (tls, RECORD_BYTES + RECORD_OVERHEAD + SPARE_BYTES))
      break;
    bytes = gather (pieces, n, &i, &at, scratch, &have);
    sent = gnutls_record_send (tls->session, bytes, have);
    if (sent != (gssize)have) /* there is room for all of it */
      return fail_tls (stream, sent < 0 ? (int)sent : GNUTLS_E_INTERNAL_ERROR);
    total += sent;
  }
  if (flush (stream) < 0)
    return stream->broken;
  return total ? total : -EAGAIN;
}

gssize
secure_stream_writev (SecureStream *stream, const struct iovec *pieces, guint n) {
  gssize result;

  if (usable (stream, &result))
    result = stream->tls ? write_tls (stream, pieces, MIN (n, SECURE_STREAM_PIECES)) : write_plain (stream, pieces, n);
  wake_if_due (stream);
  return result;
}

gssize
secure_stream_write (SecureStream *stream, const void *bytes, gsize n) {
  const struct iovec piece = { (void *)bytes, n };

  return secure_stream_writev (stream, &piece, 1);
}

gsize
secure_stream_unsent (const SecureStream *stream) {
  return stream->tls && !stream->broken ? stream->tls->out_end - stream->tls->out_at : 0;
}

void
secure_stream_end (SecureStream *stream) {
  if (stream->tls && stream->tls->done && !stream->broken) {
    gnutls_bye (stream->tls->session, GNUTLS_SHUT_WR);
    flush (stream);
  }
  shutdown (stream->fd, SHUT_WR);
  wake_if_due (stream);
}

const char *
secure_stream_why (const SecureStream *stream) {
  return stream->why;
}

gboolean
secure_stream_refused (const SecureStream *stream) {
  return stream->refused;
}

int
secure_stream_fd (const SecureStream *stream) {
  return stream->fd;
}
