/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A connection that pages go over: NBD's transmission phase, with many requests under way.
 *
 * Requests go out in order, as many at a time as one system call takes, their data from where it is. Answers are found by their
 * cookie; small ones come through a buffer, as many at a time as are there, and what is left of large ones goes straight to its
 * place. Simple replies only: an answer is 16 bytes, and the data of a read.
 */
#include "core/nbd.h"
#include "io/page-channel-internal.h"

#include <errno.h>
#include <string.h>

#define IN_BYTES (64u << 10)
#define DIRECT_BYTES (16u << 10)
#define AT_ONCE 32u       /* requests in a system call */
#define READS_AT_ONCE 64u /* system calls before others have their turn */

G_STATIC_ASSERT (2 * AT_ONCE <= SECURE_STREAM_PIECES);

static struct page_link *
link_of (PageWire *wire) {
  return (struct page_link *)wire;
}

/* µs, monotonic; G_MAXINT64: none. */
static gint64
deadline_of (const PageIo *io) {
  return io->deadline_ms ? io->began + (gint64)io->deadline_ms * 1000 : G_MAXINT64;
}

static guint
slot_of (const PageIo *io) {
  return GPOINTER_TO_UINT (io->internal[1]); /* its number + 1; 0: none yet */
}

static void
note_failed (struct page_link *link, gssize result) {
  const char *const why = secure_stream_why (link->wire.stream);

  if (!link->failed) {
    g_free (link->failed_why);
    link->failed_why = g_strdup (result == 0 ? "it has ended the connection" : why ? why : g_strerror ((int)-result));
  }
  link->failed = TRUE;
  channel_wake (link->wire.channel);
}

/* ---- requests ---- */

static gboolean
give_slot (struct page_link *link, PageIo *io) {
  guint number;

  if (slot_of (io))
    return TRUE;
  if (link->n_free == 0)
    return FALSE;
  number = link->free_slots[--link->n_free];
  link->slots[number] = (struct link_slot){ .io = io, .cookie = (guint64)++link->generation << 32 | number };
  io->internal[1] = GUINT_TO_POINTER (number + 1);
  if (io->op != PAGE_READ)
    link->changes++;
  return TRUE;
}

static void
take_slot_back (struct page_link *link, PageIo *io) {
  const guint number = slot_of (io) - 1;

  link->slots[number].io = NULL;
  link->free_slots[link->n_free++] = (guint16)number;
  if (io->op != PAGE_READ)
    link->changes--;
}

static gsize
bytes_to_send (const PageIo *io) {
  return NBD_REQUEST_BYTES + (io->op == PAGE_WRITE ? io->bytes : 0);
}

static void
encode (const struct page_link *link, const PageIo *io, uint8_t *out) {
  static const uint16_t commands[] = { [PAGE_READ] = NBD_CMD_READ, [PAGE_WRITE] = NBD_CMD_WRITE, [PAGE_TRIM] = NBD_CMD_TRIM };
  const struct nbd_request request = {
    .command = commands[io->op],
    .cookie = link->slots[slot_of (io) - 1].cookie,
    .offset = io->offset,
    .bytes = (uint32_t)io->bytes,
  };

  nbd_request_encode (&request, out);
}

static void
add_piece (struct iovec *pieces, guint *n, gsize *skip, void *at, gsize bytes) {
  if (*skip >= bytes) {
    *skip -= bytes;
    return;
  }
  pieces[(*n)++] = (struct iovec){ (guint8 *)at + *skip, bytes - *skip };
  *skip = 0;
}

static void
was_sent (struct page_link *link, gsize bytes) {
  link->sent += bytes;
  while (link->first && link->sent >= bytes_to_send (link->first)) {
    link->sent -= bytes_to_send (link->first);
    link->first = link->first->internal[0];
  }
}

static void on_link_data (PageWire *wire, GIOCondition ready);

static void
flush (struct page_link *link) {
  uint8_t headers[AT_ONCE][NBD_REQUEST_BYTES];
  struct iovec pieces[2 * AT_ONCE];
  gboolean full = FALSE;

  while (link->first && !full && !link->failed) {
    gsize skip = link->sent;
    guint n = 0, n_headers = 0;
    gssize sent;

    for (PageIo *io = link->first; io && n_headers < AT_ONCE && give_slot (link, io); io = io->internal[0]) {
      encode (link, io, headers[n_headers]);
      add_piece (pieces, &n, &skip, headers[n_headers++], NBD_REQUEST_BYTES);
      if (io->op == PAGE_WRITE)
        add_piece (pieces, &n, &skip, io->buf, io->bytes);
    }
    if (n == 0)
      return; /* until answers come */
    sent = secure_stream_writev (link->wire.stream, pieces, n);
    if (sent > 0)
      was_sent (link, (gsize)sent);
    else if (sent == -EAGAIN)
      full = TRUE;
    else
      note_failed (link, sent);
  }
}

static void
flush_and_watch (struct page_link *link) {
  GIOCondition out;

  flush (link);
  out = link->first && link->n_free > 0 && !link->failed ? G_IO_OUT : 0;
  wire_watch_data (&link->wire, G_IO_IN | out);
}

void
link_kick (struct page_link *link) {
  if (link->wire.phase == WIRE_DATA && link->first && !link->failed)
    flush_and_watch (link);
}

void
link_submit (struct page_link *link, PageIo *io) {
  if (deadline_of (io) < link->deadline) {
    link->deadline = deadline_of (io);
    wire_set_timer (&link->wire, link->deadline);
  }
  io->internal[0] = io->internal[1] = NULL;
  if (link->first)
    link->last->internal[0] = io;
  else
    link->first = io;
  link->last = io;
}

/* ---- answers ---- */

static void
end_answered (struct page_link *link, PageIo *io, int error) {
  take_slot_back (link, io);
  channel_end_io (link->wire.channel, io, error);
}

/* The errors of the wire, whatever system its other end has. */
static int
errno_of (guint32 error) {
  switch (error) {
  case NBD_EPERM:
    return EPERM;
  case NBD_ENOMEM:
    return ENOMEM;
  case NBD_EINVAL:
    return EINVAL;
  case NBD_ENOSPC:
    return ENOSPC;
  case NBD_EOVERFLOW:
    return EOVERFLOW;
  case NBD_ENOTSUP:
    return EOPNOTSUPP;
  case NBD_ESHUTDOWN:
    return ESTALE;
  default:
    return EIO;
  }
}

/* Whether the request with that cookie may be answered: it was sent, wholly. */
static PageIo *
find (const struct page_link *link, guint64 cookie) {
  const guint64 number = cookie & G_MAXUINT32;

  if (number >= LINK_DEPTH || !link->slots[number].io || link->slots[number].cookie != cookie)
    return NULL;
  for (const PageIo *io = link->first; io && slot_of (io); io = io->internal[0])
    if (slot_of (io) == number + 1)
      return NULL;
  return link->slots[number].io;
}

/* FALSE: more has to come, or it was broken. */
static gboolean
take_header (struct page_link *link) {
  PageWire *const wire = &link->wire;
  uint32_t error;
  uint64_t cookie;
  PageIo *io;

  if (wire->in_to - wire->in_from < NBD_SIMPLE_BYTES)
    return FALSE;
  if (!nbd_simple_decode (wire->in + wire->in_from, &error, &cookie) || !(io = find (link, cookie))) {
    wire_break (wire, WIRE_PROTOCOL, "it answers what was not asked");
    return FALSE;
  }
  wire->in_from += NBD_SIMPLE_BYTES;
  if (error == 0 && io->op == PAGE_READ) {
    link->reading = io;
    link->got = 0;
    return TRUE;
  }
  if (error == NBD_ESHUTDOWN)
    channel_ask_lease (wire->channel);
  end_answered (link, io, error == 0 ? 0 : errno_of (error));
  return TRUE;
}

static gboolean
take_data (struct page_link *link) {
  PageWire *const wire = &link->wire;
  PageIo *const io = link->reading;
  const gsize n = MIN (wire->in_to - wire->in_from, io->bytes - link->got);

  memcpy ((guint8 *)io->buf + link->got, wire->in + wire->in_from, n);
  wire->in_from += n;
  link->got += n;
  if (link->got < io->bytes)
    return FALSE;
  link->reading = NULL;
  end_answered (link, io, 0);
  return TRUE;
}

/* More of what comes in, to where it belongs. Returns whether there may be still more. */
static gboolean
receive (struct page_link *link) {
  PageWire *const wire = &link->wire;
  const gsize left = link->reading ? link->reading->bytes - link->got : 0;
  gboolean full;
  gssize n;

  if (left < DIRECT_BYTES) {
    wire_fill (wire, &full);
    return full;
  }
  n = secure_stream_read (wire->stream, (guint8 *)link->reading->buf + link->got, left);
  if (n > 0) {
    link->got += (gsize)n;
    return (gsize)n == left || wire->channel->tls; /* TLS gives a record at a time, and may have more of them */
  }
  if (n != -EAGAIN)
    wire_break_stream (wire, n);
  return FALSE;
}

static void
take_answers (struct page_link *link) {
  gboolean more = TRUE;

  for (guint i = 0; more && i < READS_AT_ONCE && link->wire.phase == WIRE_DATA; i++) {
    more = receive (link);
    while (link->wire.phase == WIRE_DATA && (link->reading ? take_data (link) : take_header (link)))
      ;
  }
}

static void
on_link_data (PageWire *wire, GIOCondition ready) {
  struct page_link *const link = link_of (wire);

  if (ready & G_IO_IN)
    take_answers (link);
  if (wire->phase == WIRE_DATA && (link->first || ready & G_IO_OUT))
    flush_and_watch (link);
}

/* ---- handshake ---- */

static void
on_link_ready (PageWire *wire) {
  uint8_t data[6 + LEASE_EXPORT_NAME_BYTES];
  const gsize bytes = nbd_go_encode (wire->channel->export_name, data);

  link_of (wire)->shown = FALSE;
  wire_send_option (wire, NBD_OPT_GO, data, bytes);
}

static void
on_link_reply (PageWire *wire, guint32 type, const guint8 *data, gsize bytes) {
  struct page_link *const link = link_of (wire);
  uint64_t size;
  uint16_t flags;

  if (NBD_REP_IS_ERROR (type)) {
    g_autofree char *text = wire_text (data, bytes);

    channel_ask_lease (wire->channel);
    wire_break (wire, WIRE_GONE, "it does not open the lease%s%s", *text ? ": " : "", text);
  } else if (type == NBD_REP_INFO) {
    if (!nbd_info_export_decode (data, bytes, &size, &flags))
      return;
    if (size != wire->channel->export_bytes || flags & NBD_FLAG_READ_ONLY || !(flags & NBD_FLAG_SEND_TRIM)) {
      wire_break (wire, WIRE_PROTOCOL, "what it opens is not what was lent");
      return;
    }
    link->shown = TRUE;
  } else if (type != NBD_REP_ACK || !link->shown) {
    wire_break (wire, WIRE_PROTOCOL, "its answer to an option is none");
  } else {
    link->deadline = G_MAXINT64;
    wire->phase = WIRE_DATA;
    wire_set_timer (wire, -1);
    wire_is_good (wire);
    channel_wake (wire->channel);
  }
}

/* ---- ends ---- */

static gint64
earliest_deadline (const struct page_link *link) {
  gint64 earliest = G_MAXINT64;

  for (guint i = 0; i < LINK_DEPTH; i++)
    if (link->slots[i].io)
      earliest = MIN (earliest, deadline_of (link->slots[i].io));
  for (const PageIo *io = link->first; io; io = io->internal[0])
    earliest = MIN (earliest, deadline_of (io));
  return earliest;
}

static void
on_link_timer (PageWire *wire) {
  struct page_link *const link = link_of (wire);

  if (wire->phase != WIRE_DATA) {
    wire_break (wire, WIRE_TIMEOUT, "no answer when the lease was to be opened");
    return;
  }
  link->deadline = earliest_deadline (link);
  if (link->deadline > g_get_monotonic_time ()) {
    wire_set_timer (wire, link->deadline == G_MAXINT64 ? -1 : link->deadline);
    return;
  }
  /* what it might have answered meanwhile */
  take_answers (link);
  if (wire->phase != WIRE_DATA)
    return;
  link->deadline = earliest_deadline (link);
  if (link->deadline > g_get_monotonic_time ())
    wire_set_timer (wire, link->deadline == G_MAXINT64 ? -1 : link->deadline);
  else
    wire_break (wire, WIRE_TIMEOUT, "it did not answer in time");
}

/* All requests of the link, linked, in no certain order. */
static PageIo *
take_all (struct page_link *link) {
  PageIo *all = link->first;

  /* those that wait without a slot are behind those that have one */
  while (all && slot_of (all))
    all = all->internal[0];
  link->first = link->last = NULL;
  link->n_free = 0;
  for (guint i = LINK_DEPTH; i-- > 0;) {
    if (link->slots[i].io) {
      link->slots[i].io->internal[0] = all;
      all = link->slots[i].io;
      link->slots[i].io = NULL;
    }
    link->free_slots[link->n_free++] = (guint16)i;
  }
  link->sent = link->got = link->changes = 0;
  link->reading = NULL;
  link->failed = FALSE;
  link->deadline = G_MAXINT64;
  return all;
}

static void
on_link_broken (PageWire *wire, enum wire_trouble trouble) {
  struct page_link *const link = link_of (wire);
  const gint64 now = g_get_monotonic_time ();
  const int error = link->fail_with ? link->fail_with : ENOTCONN;
  PageChannel *const channel = wire->channel;
  PageIo *io, *next;

  channel->reconnects += trouble != WIRE_OURS;
  if (link->changes > 0)
    channel_doubt (channel);
  channel_wake (channel);
  for (io = take_all (link); io; io = next) {
    const gboolean late = trouble == WIRE_TIMEOUT && deadline_of (io) <= now;

    next = io->internal[0];
    channel->timeouts += late;
    channel_end_io (channel, io, late ? ETIMEDOUT : error);
  }
}

static const struct wire_kind link_kind = {
  .ready = on_link_ready,
  .reply = on_link_reply,
  .data = on_link_data,
  .timer = on_link_timer,
  .broken = on_link_broken,
};

void
link_init (struct page_link *link, PageChannel *channel, enum page_class class) {
  static const char *const names[] = { [PAGE_DEMAND] = "demand", [PAGE_WRITE_OUT] = "write-out", [PAGE_PREFETCH] = "prefetch" };

  wire_init (&link->wire, &link_kind, channel, names[class], IN_BYTES);
  link->class = class;
  take_all (link);
}
