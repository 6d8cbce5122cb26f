/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A connection to a donor, up to NBD's option phase: TCP, the greeting, STARTTLS, TLS. When it ends, another one is tried,
 * later each time.
 *
 * What a peer says before TLS is worth nothing, so it can do no more than end the connection: the answer to STARTTLS must be a
 * bare yes, and no byte may have come behind it.
 */
#include "core/nbd.h"
#include "io/page-channel-internal.h"
#include "io/sandbox-calls.h"
#include "io/sandbox.h"
#include "io/source.h"
#include "io/tcp.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#ifndef WIRE_RETRY_MS_MIN /* a test is in a hurry */
#define WIRE_RETRY_MS_MIN 50u
#define WIRE_RETRY_MS_MAX 5000u
#define WIRE_REFUSED_MS 15000u
#define WIRE_HANDSHAKE_MS 10000u
#endif
#define REPLY_BYTES_MAX 4096u
#define TEXT_CHARS 200u

#define CALLS_TO_CONNECT                                                                                                       \
  SANDBOX_CALL_IF (socket, 0, ~0u, AF_UNIX), SANDBOX_CALL_IF (socket, 0, ~0u, AF_INET),                                        \
      SANDBOX_CALL_IF (socket, 0, ~0u, AF_INET6), SANDBOX_CALL (connect), SANDBOX_CALL (getsockopt),                           \
      SANDBOX_CALL (setsockopt), SANDBOX_CALL (shutdown), SANDBOX_CALL (getpeername), SANDBOX_CALL (getsockname),              \
      SANDBOX_CALL (sendto), SANDBOX_CALL (sendmsg), SANDBOX_CALL (recvfrom), SANDBOX_CALL (recvmsg), SANDBOX_CALL (readv),    \
      SANDBOX_CALL (fcntl)

SANDBOX_KEEPER_CALLS (CALLS_TO_CONNECT);

static const struct sandbox_call calls[] = { CALLS_TO_CONNECT, { INT_MIN, -1, 0, 0 } };

void
wire_tell_sandbox (void) {
  static gboolean told;

  if (!told)
    sandbox_let_worker_call (calls);
  told = TRUE;
}

/* ---- time ---- */

struct wire_source {
  GSource source;
  PageWire *wire;
};

void
wire_set_timer (PageWire *wire, gint64 when_us) {
  wire->due_us = when_us;
  g_source_set_ready_time (wire->timer, when_us);
}

static gboolean
timer_dispatch (GSource *source, GSourceFunc callback, gpointer data) {
  PageWire *const wire = ((struct wire_source *)source)->wire;

  /* GLib may have noted that it is due before it was set anew */
  if (wire->due_us < 0 || wire->due_us > g_get_monotonic_time ())
    return G_SOURCE_CONTINUE;
  wire_set_timer (wire, -1);
  if (wire->phase == WIRE_NONE)
    wire_connect (wire);
  else if (wire->phase < WIRE_OPTIONS)
    wire_break (wire, WIRE_TIMEOUT, "no answer within %u s", WIRE_HANDSHAKE_MS / 1000);
  else
    wire->kind->timer (wire);
  return G_SOURCE_CONTINUE;
}

static GSourceFuncs timer_functions = { .dispatch = timer_dispatch };

/* ---- beginning and end ---- */

void
wire_init (PageWire *wire, const struct wire_kind *kind, PageChannel *channel, const char *name, gsize in_size) {
  g_autoptr (GMainContext) context = g_main_context_ref_thread_default ();

  *wire = (PageWire){
    .kind = kind, .channel = channel, .name = name, .in_size = in_size, .retry_ms = WIRE_RETRY_MS_MIN, .due_us = -1
  };
  wire->in = g_malloc (in_size);
  wire->timer = g_source_new (&timer_functions, sizeof (struct wire_source));
  ((struct wire_source *)wire->timer)->wire = wire;
  g_source_attach (wire->timer, context);
}

static void
drop_stream (PageWire *wire) {
  g_clear_pointer (&wire->stream, secure_stream_free);
  wire->phase = WIRE_NONE;
  wire->in_from = wire->in_to = wire->out_from = wire->out_to = 0;
}

void
wire_clear (PageWire *wire) {
  drop_stream (wire);
  source_clear (&wire->timer);
  g_clear_pointer (&wire->in, g_free);
}

void
wire_break (PageWire *wire, enum wire_trouble trouble, const char *format, ...) {
  const gint64 now = g_get_monotonic_time ();
  va_list arguments;
  guint ms;

  if (trouble != WIRE_OURS) {
    g_free (wire->channel->trouble);
    va_start (arguments, format);
    wire->channel->trouble = g_strdup_vprintf (format, arguments);
    va_end (arguments);
  }
  drop_stream (wire);
  if (trouble == WIRE_OURS)
    wire_set_timer (wire, -1);
  else {
    /* Not in step with all others, for which the time's last digits do: GLib's random numbers open a file, which a sandbox has
     * not */
    ms = trouble == WIRE_REFUSED ? WIRE_REFUSED_MS : wire->retry_ms;
    wire_set_timer (wire, now + (gint64)ms * 750 + now % ((gint64)ms * 500 + 1));
    wire->retry_ms = MIN (wire->retry_ms * 2, WIRE_RETRY_MS_MAX);
  }
  wire->kind->broken (wire, trouble);
}

void
wire_break_stream (PageWire *wire, gssize result) {
  const char *const why = wire->stream ? secure_stream_why (wire->stream) : NULL;
  g_autofree char *copy = g_strdup (why ? why : g_strerror ((int)-result));

  if (result == 0)
    wire_break (wire, WIRE_GONE, "it has ended the connection");
  else if (secure_stream_refused (wire->stream))
    wire_break (wire, WIRE_REFUSED, "its key and ours differ: %s", copy);
  else
    wire_break (wire, result == -EPROTO ? WIRE_PROTOCOL : WIRE_GONE, "%s", copy);
}

void
wire_is_good (PageWire *wire) {
  wire->retry_ms = WIRE_RETRY_MS_MIN;
}

char *
wire_text (const guint8 *data, gsize bytes) {
  char *const text = g_strndup ((const char *)data, MIN (bytes, TEXT_CHARS));

  for (char *c = text; *c; c++)
    if (*c < ' ' || *c > '~')
      *c = '?';
  return text;
}

/* ---- sending ---- */

static void on_ready (SecureStream *stream, GIOCondition ready, gpointer data);

static void
watch (PageWire *wire) {
  const GIOCondition out = wire->out_from < wire->out_to ? G_IO_OUT : 0;

  secure_stream_watch (wire->stream, G_IO_IN | out, on_ready, wire);
}

void
wire_watch_data (PageWire *wire, GIOCondition condition) {
  secure_stream_watch (wire->stream, condition, on_ready, wire);
}

/* An error waits for the next read, which finds it, too. */
static void
flush_out (PageWire *wire) {
  while (wire->out_from < wire->out_to) {
    const gssize n = secure_stream_write (wire->stream, wire->out + wire->out_from, wire->out_to - wire->out_from);

    if (n <= 0) {
      if (n != -EAGAIN)
        wire->out_from = wire->out_to;
      break;
    }
    wire->out_from += (gsize)n;
  }
  if (wire->out_from == wire->out_to)
    wire->out_from = wire->out_to = 0;
  watch (wire);
}

static guint8 *
out_space (PageWire *wire, gsize bytes) {
  guint8 *const at = wire->out + wire->out_to;

  g_assert (bytes <= sizeof wire->out - wire->out_to);
  wire->out_to += bytes;
  return at;
}

void
wire_send_option (PageWire *wire, guint32 option, const guint8 *data, gsize bytes) {
  nbd_option_encode (option, (guint32)bytes, out_space (wire, NBD_OPTION_BYTES));
  if (bytes > 0)
    memcpy (out_space (wire, bytes), data, bytes);
  wire->option = option;
  flush_out (wire);
}

/* ---- receiving ---- */

gsize
wire_fill (PageWire *wire, gboolean *ret_full) {
  gsize space;
  gssize n;

  if (wire->in_from == wire->in_to)
    wire->in_from = wire->in_to = 0;
  else if (wire->in_to == wire->in_size) {
    memmove (wire->in, wire->in + wire->in_from, wire->in_to - wire->in_from);
    wire->in_to -= wire->in_from;
    wire->in_from = 0;
  }
  space = wire->in_size - wire->in_to;
  n = secure_stream_read (wire->stream, wire->in + wire->in_to, space);
  *ret_full = n == (gssize)space;
  if (n > 0) {
    wire->in_to += (gsize)n;
    return (gsize)n;
  }
  if (n != -EAGAIN)
    wire_break_stream (wire, n);
  return 0;
}

static gboolean
take_greeting (PageWire *wire) {
  guint16 flags;

  if (wire->in_to - wire->in_from < NBD_GREETING_BYTES)
    return FALSE;
  if (!nbd_greeting_decode (wire->in + wire->in_from, &flags) || !(flags & NBD_FLAG_FIXED_NEWSTYLE)) {
    wire_break (wire, WIRE_PROTOCOL, "it is no NBD server of the kind that donors are");
    return FALSE;
  }
  wire->in_from += NBD_GREETING_BYTES;
  nbd_put32 (out_space (wire, NBD_CLIENT_FLAGS_BYTES), flags & (NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES));
  if (wire->channel->tls) {
    wire->phase = WIRE_STARTTLS;
    wire_send_option (wire, NBD_OPT_STARTTLS, NULL, 0);
  } else {
    wire->phase = WIRE_OPTIONS;
    wire->kind->ready (wire);
  }
  return wire->phase > WIRE_GREETING;
}

static gboolean
take_starttls (PageWire *wire, guint32 type, gsize bytes) {
  if (type != NBD_REP_ACK) {
    wire_break (wire, NBD_REP_IS_ERROR (type) ? WIRE_REFUSED : WIRE_PROTOCOL, "it has no TLS");
    return FALSE;
  }
  if (bytes > 0 || wire->in_from != wire->in_to) {
    wire_break (wire, WIRE_PROTOCOL, "it said something in between its yes to TLS and TLS");
    return FALSE;
  }
  secure_stream_start_tls (wire->stream, wire->channel->tls);
  wire->phase = WIRE_OPTIONS;
  wire->kind->ready (wire);
  return FALSE;
}

/* FALSE: more has to come first, or it was broken. */
static gboolean
take_reply (PageWire *wire) {
  const guint8 *const at = wire->in + wire->in_from;
  const gsize there = wire->in_to - wire->in_from;
  guint32 option, type, bytes;

  if (there < NBD_OPTION_REPLY_BYTES)
    return FALSE;
  if (!nbd_option_reply_decode (at, &option, &type, &bytes) || option != wire->option || bytes > REPLY_BYTES_MAX) {
    wire_break (wire, WIRE_PROTOCOL, "its answer to an option is none");
    return FALSE;
  }
  if (there < NBD_OPTION_REPLY_BYTES + bytes)
    return FALSE;
  wire->in_from += NBD_OPTION_REPLY_BYTES + bytes;
  if (wire->phase == WIRE_STARTTLS)
    return take_starttls (wire, type, bytes);
  wire->kind->reply (wire, type, at + NBD_OPTION_REPLY_BYTES, bytes);
  return wire->phase == WIRE_OPTIONS;
}

static gboolean
take (PageWire *wire) {
  return wire->phase == WIRE_GREETING ? take_greeting (wire) : take_reply (wire);
}

static void
take_handshake (PageWire *wire) {
  gboolean full;

  do {
    if (wire_fill (wire, &full) == 0)
      return;
    while (take (wire))
      ;
  } while (full && wire->phase != WIRE_NONE && wire->phase < WIRE_DATA);
  /* what came behind the last answer is the first data */
  if (wire->phase == WIRE_DATA && wire->in_from != wire->in_to)
    wire->kind->data (wire, G_IO_IN);
}

static void
on_ready (SecureStream *stream, GIOCondition ready, gpointer data) {
  PageWire *const wire = data;
  int error;

  if (wire->phase == WIRE_CONNECTING) {
    error = tcp_connected (secure_stream_fd (stream));
    if (error == EINPROGRESS)
      return;
    if (error != 0) {
      wire_break (wire, WIRE_GONE, "%s", g_strerror (error));
      return;
    }
    wire->phase = WIRE_GREETING;
    watch (wire);
    return;
  }
  if (wire->phase == WIRE_DATA) {
    wire->kind->data (wire, ready);
    return;
  }
  if (ready & G_IO_OUT)
    flush_out (wire);
  if (ready & G_IO_IN)
    take_handshake (wire);
}

void
wire_connect (PageWire *wire) {
  g_autoptr (GError) error = NULL;
  const int fd = tcp_connect (wire->channel->address, &error);

  g_assert (wire->phase == WIRE_NONE);
  if (fd < 0) {
    wire_break (wire, WIRE_GONE, "%s", error->message);
    return;
  }
  tcp_tune (fd);
  wire->stream = secure_stream_new (fd);
  wire->phase = WIRE_CONNECTING;
  wire_set_timer (wire, g_get_monotonic_time () + (gint64)WIRE_HANDSHAKE_MS * 1000);
  secure_stream_watch (wire->stream, G_IO_OUT, on_ready, wire);
}
