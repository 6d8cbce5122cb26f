/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the parts of the page channel share: the connections up to NBD's option phase (-wire.c), the one that leases are spoken
 * of on (-lease.c), those that pages go over (-link.c), and the channel, which has one of the former and three of the latter.
 *
 * Connections break in the main loop only: calls of the channel's owner note what they find out, and wake the channel's turn.
 */
#ifndef DOMYBS_IO_PAGE_CHANNEL_INTERNAL_H
#define DOMYBS_IO_PAGE_CHANNEL_INTERNAL_H

#include "core/lease-borrower.h"
#include "io/page-channel.h"
#include "io/secure-stream.h"

/* ---- a connection ---- */

typedef struct PageWire PageWire;

enum wire_phase {
  WIRE_NONE,       /* there is none; perhaps the timer makes one */
  WIRE_CONNECTING, /* the socket is */
  WIRE_GREETING,
  WIRE_STARTTLS,
  WIRE_OPTIONS, /* one at a time (the TLS handshake is behind the first one) */
  WIRE_DATA,
};

enum wire_trouble {
  WIRE_GONE,     /* it ended, or could not be made */
  WIRE_TIMEOUT,  /* no answer */
  WIRE_PROTOCOL, /* the peer broke the rules */
  WIRE_REFUSED,  /* key, no TLS, no leases: it will not be better soon */
  WIRE_OURS,     /* this side does not want it any more */
};

struct wire_kind {
  /* Options may be sent. */
  void (*ready) (PageWire *wire);
  /* The answer to one. May break the wire. */
  void (*reply) (PageWire *wire, guint32 type, const guint8 *data, gsize bytes);
  /* WIRE_DATA: the stream may be read or written. May break the wire. */
  void (*data) (PageWire *wire, GIOCondition ready);
  /* The time set by wire_set_timer has come, in WIRE_OPTIONS or WIRE_DATA. */
  void (*timer) (PageWire *wire);
  /* It has ended; there is no stream any more, and a time to connect again is set (not for WIRE_OURS). */
  void (*broken) (PageWire *wire, enum wire_trouble trouble);
};

struct PageWire {
  const struct wire_kind *kind;
  PageChannel *channel;
  const char *name;
  enum wire_phase phase;
  SecureStream *stream;
  GSource *timer;
  gint64 due_us; /* −1: not */
  guint retry_ms;
  guint32 option;
  guint8 out[256]; /* handshake */
  gsize out_from, out_to;
  guint8 *in;
  gsize in_size, in_from, in_to;
};

void wire_init (PageWire *wire, const struct wire_kind *kind, PageChannel *channel, const char *name, gsize in_size);
/* Without a call of broken. */
void wire_clear (PageWire *wire);
/* Now; WIRE_NONE only. */
void wire_connect (PageWire *wire);
/* Ends the connection. */
void wire_break (PageWire *wire, enum wire_trouble trouble, const char *format, ...) G_GNUC_PRINTF (3, 4);
/* In µs of the monotonic clock; -1: never. There is one timer. */
void wire_set_timer (PageWire *wire, gint64 when_us);
/* WIRE_OPTIONS, with no other one unanswered. */
void wire_send_option (PageWire *wire, guint32 option, const guint8 *data, gsize bytes);
/* Reads into what is free of `in`: the bytes, 0: nothing (or it was broken). *ret_full: there may be more. */
gsize wire_fill (PageWire *wire, gboolean *ret_full);
/* What has ended the stream, from what a call of it returned (0 or less). */
void wire_break_stream (PageWire *wire, gssize result);
/* WIRE_DATA: when `data` is called. */
void wire_watch_data (PageWire *wire, GIOCondition condition);
/* Works well: the next attempts to connect, after it, come soon. */
void wire_is_good (PageWire *wire);
/* Text of the peer's as something that may stand in a log; free it. */
char *wire_text (const guint8 *data, gsize bytes);
/* Before sandbox_worker. */
void wire_tell_sandbox (void);

/* ---- pages ---- */

#define LINK_DEPTH 256u /* requests under way */

struct page_link {
  PageWire wire;
  enum page_class class;
  PageIo *first, *last; /* to be sent; linked by internal[0] */
  gsize sent;           /* bytes of the first one */
  struct link_slot {
    PageIo *io; /* NULL: free */
    guint64 cookie;
  } slots[LINK_DEPTH];
  guint16 free_slots[LINK_DEPTH];
  guint n_free;
  guint32 generation; /* of cookies */
  guint changes;      /* writes and trims among the slots */
  gboolean shown;     /* handshake: the export's size and rights are right */
  PageIo *reading;    /* its data is coming in */
  gsize got;
  gint64 deadline; /* that the timer is set to; G_MAXINT64: none */
  int fail_with;   /* what requests end with if it breaks; 0: ENOTCONN */
  gboolean failed; /* found out while sending: break it */
  char *failed_why;
};

void link_init (struct page_link *link, PageChannel *channel, enum page_class class);
void link_submit (struct page_link *link, PageIo *io);
void link_kick (struct page_link *link);

/* ---- leases ---- */

void lease_wire_init (PageWire *wire, PageChannel *channel);
/* Something has changed, or time has passed: says what is to be said. */
void lease_wire_pump (PageWire *wire);

/* ---- the channel ---- */

struct PageChannel {
  PageChannelWatch watch;
  char *name, *address;
  SecureSide *tls; /* NULL: none */
  guint64 export_bytes;
  struct lease_borrower borrower;
  PageWire lease;
  gboolean lease_refused;
  struct page_link links[PAGE_CLASSES];

  uint64_t epoch; /* whose export the links are for; 0: there is none */
  char export_name[LEASE_EXPORT_NAME_BYTES];
  gboolean open;  /* requests are taken: the owner knows of the epoch */
  gboolean doubt; /* a write of the epoch may still be carried out: begin another */

  GSource *turn;
  gboolean freeing;
  PageIo *refused_first, *refused_last; /* to be ended; internal[0], internal[1]: errno */

  enum page_channel_state state;
  gint64 since_us;
  char *why;
  char *trouble;            /* what the last connection to break broke of, since it was attached */
  struct lease_answer told; /* the lease, as the owner was told */
  gboolean told_any;

  GSource *end_timer;
  void (*end_done) (gpointer data, gboolean ok);
  gpointer end_data;

  guint64 requests[PAGE_CLASSES], bytes_read, bytes_written, errors, timeouts, reconnects;
  guint in_flight[PAGE_CLASSES];
};

static inline uint64_t
channel_now_ms (void) {
  return (uint64_t)(g_get_monotonic_time () / 1000);
}

/* The turn comes at the next turn of the main loop. */
void channel_wake (PageChannel *channel);
/* A link has broken with changes under way: from now on nothing is taken, until there is another epoch. */
void channel_doubt (PageChannel *channel);
/* Something says that the lease may not be what it was: it is asked for at once. */
void channel_ask_lease (PageChannel *channel);
/* The request's end. Calls done. */
void channel_end_io (PageChannel *channel, PageIo *io, int error);
/* The same at the next turn. */
void channel_refuse_io (PageChannel *channel, PageIo *io, int error);

#endif
