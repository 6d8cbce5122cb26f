/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A lease and its three connections for pages: which of them there should be, and what the owner is told.
 *
 * All that changes the state ends in the channel's turn, a source of the main loop that is awake only then. It goes from what
 * is to what should be: closes the connections of an epoch that is over, opens those of the one in force, asks what is to be
 * asked, and tells the owner what is new. So nothing happens to the owner, or to a connection, from within a call of the
 * owner's.
 */
#include "io/error.h"
#include "io/page-channel-internal.h"
#include "io/source.h"
#include "io/tcp.h"

#include <errno.h>
#include <string.h>

#define KEEP_MS 5000u
#define REQUEST_BYTES_MAX (2u << 20)
#define ALIGN 4096u

/* ---- requests ---- */

void
channel_end_io (PageChannel *channel, PageIo *io, int error) {
  channel->in_flight[io->class]--;
  if (error != 0)
    channel->errors++;
  else if (io->op == PAGE_READ)
    channel->bytes_read += io->bytes;
  else if (io->op == PAGE_WRITE)
    channel->bytes_written += io->bytes;
  else if (channel->borrower.wanted < channel->borrower.level)
    channel_ask_lease (channel); /* there may be something to give back now */
  io->done (io, error);
}

void
channel_refuse_io (PageChannel *channel, PageIo *io, int error) {
  io->internal[0] = NULL;
  io->internal[1] = GINT_TO_POINTER (error);
  if (channel->refused_first)
    channel->refused_last->internal[0] = io;
  else
    channel->refused_first = io;
  channel->refused_last = io;
  channel_wake (channel);
}

/* Those that are there now; what comes meanwhile has its own turn. */
static void
end_refused (PageChannel *channel) {
  PageIo *io = channel->refused_first, *next;

  channel->refused_first = channel->refused_last = NULL;
  for (; io; io = next) {
    next = io->internal[0];
    channel_end_io (channel, io, GPOINTER_TO_INT (io->internal[1]));
  }
}

static gboolean
is_good (const PageChannel *channel, const PageIo *io) {
  const gsize most = io->op == PAGE_TRIM ? G_MAXUINT32 : REQUEST_BYTES_MAX;

  return io->bytes > 0 && io->bytes <= most && io->offset % ALIGN == 0 && io->bytes % ALIGN == 0
         && io->bytes <= channel->export_bytes && io->offset <= channel->export_bytes - io->bytes;
}

void
page_channel_submit (PageChannel *channel, PageIo *io) {
  struct page_link *const link = &channel->links[io->class];

  io->began = g_get_monotonic_time ();
  channel->requests[io->class]++;
  channel->in_flight[io->class]++;
  if (!is_good (channel, io))
    channel_refuse_io (channel, io, EINVAL);
  else if (!channel->open || link->wire.phase != WIRE_DATA || link->failed)
    channel_refuse_io (channel, io, channel->state == PAGE_CHANNEL_LOST ? ESTALE : ENOTCONN);
  else
    link_submit (link, io);
}

void
page_channel_kick (PageChannel *channel) {
  for (guint i = 0; i < PAGE_CLASSES; i++)
    link_kick (&channel->links[i]);
}

/* ---- what should be ---- */

void
channel_wake (PageChannel *channel) {
  if (!channel->freeing)
    g_source_set_ready_time (channel->turn, 0);
}

void
channel_doubt (PageChannel *channel) {
  channel->open = FALSE;
  channel->doubt = TRUE;
}

void
channel_ask_lease (PageChannel *channel) {
  lease_borrower_hurry (&channel->borrower);
  channel_wake (channel);
}

static void
close_links (PageChannel *channel, int error, const char *why) {
  channel->open = FALSE;
  for (guint i = 0; i < PAGE_CLASSES; i++) {
    struct page_link *const link = &channel->links[i];

    link->fail_with = error;
    wire_break (&link->wire, WIRE_OURS, "%s", why);
    link->fail_with = 0;
  }
}

static void
break_failed (PageChannel *channel) {
  for (guint i = 0; i < PAGE_CLASSES; i++) {
    struct page_link *const link = &channel->links[i];

    if (link->failed && link->wire.phase == WIRE_DATA)
      wire_break (&link->wire, WIRE_GONE, "%s", link->failed_why);
    g_clear_pointer (&link->failed_why, g_free);
  }
}

/* From the lease to the connections. */
static void
follow_lease (PageChannel *channel) {
  struct lease_borrower *const borrower = &channel->borrower;
  uint64_t epoch;

  if (channel->doubt) {
    close_links (channel, 0, "a change of unknown outcome");
    channel->epoch = 0;
    lease_borrower_renew (borrower);
    channel->doubt = FALSE;
    /* what became of one connection may have become of all of them */
    if (channel->lease.phase != WIRE_NONE)
      wire_break (&channel->lease, WIRE_OURS, "another one is to be tried");
    if (channel->lease.phase == WIRE_NONE)
      wire_connect (&channel->lease);
  }
  epoch = borrower->state == LEASE_ATTACHED ? borrower->epoch : 0;
  if (epoch == channel->epoch)
    return;
  if (channel->epoch)
    close_links (channel, borrower->state == LEASE_LOST ? ESTALE : 0, "the lease is not attached");
  channel->doubt = FALSE; /* what they had under way is fenced: the epoch is over */
  channel->epoch = epoch;
  if (epoch) {
    lease_borrower_export_name (borrower, channel->export_name);
    for (guint i = 0; i < PAGE_CLASSES; i++)
      wire_connect (&channel->links[i].wire);
  }
}

/* ---- what the owner is told ---- */

static const char *
refusal (enum lease_verdict verdict) {
  switch (verdict) {
  case LEASE_OLD_SESSION:
    return "a later worker has attached";
  case LEASE_NOT_YOURS:
    return "the lease is another identity's";
  case LEASE_LIMIT:
    return "it lends us no more leases";
  case LEASE_NO_ROOM:
    return "it has no room for another lease";
  default:
    return "it does not take our request";
  }
}

static gboolean
link_is_up (const PageChannel *channel, enum page_class class) {
  return channel->links[class].wire.phase == WIRE_DATA;
}

/* The one that can be done without is waited for at first, until it fails. */
static gboolean
prefetch_is_awaited (const PageChannel *channel) {
  return !channel->open && !link_is_up (channel, PAGE_PREFETCH) && channel->links[PAGE_PREFETCH].wire.phase != WIRE_NONE;
}

static enum page_channel_state
state_now (const PageChannel *channel, const char **ret_why) {
  const struct lease_borrower *const borrower = &channel->borrower;

  *ret_why = NULL;
  if (borrower->state == LEASE_LOST)
    return PAGE_CHANNEL_LOST;
  if (channel->epoch && link_is_up (channel, PAGE_DEMAND) && link_is_up (channel, PAGE_WRITE_OUT)
      && !prefetch_is_awaited (channel))
    return PAGE_CHANNEL_ATTACHED;
  if (borrower->state == LEASE_REFUSED) {
    *ret_why = refusal (borrower->verdict);
    return PAGE_CHANNEL_REFUSED;
  }
  if (channel->lease_refused) {
    *ret_why = channel->trouble;
    return PAGE_CHANNEL_REFUSED;
  }
  if (borrower->state == LEASE_ENDED)
    *ret_why = "the lease was given back";
  else
    *ret_why = channel->trouble ? channel->trouble : "connecting";
  return PAGE_CHANNEL_DOWN;
}

static gboolean
is_news (const struct lease_answer *a, const struct lease_answer *b) {
  return a->level != b->level || a->revoke != b->revoke || a->revoke_level != b->revoke_level || a->epoch != b->epoch
         || a->lease != b->lease || !a->free != !b->free
         || memcmp (a->incarnation, b->incarnation, sizeof a->incarnation) != 0;
}

static struct lease_answer
lease_now (const PageChannel *channel) {
  const struct lease_borrower *const borrower = &channel->borrower;
  struct lease_answer lease = borrower->last;

  lease.level = borrower->level;
  lease.used = borrower->used;
  lease.revoke = borrower->revoke;
  lease.revoke_level = borrower->revoke ? borrower->revoke_level : 0;
  return lease;
}

static void
tell (PageChannel *channel) {
  const struct lease_answer lease = lease_now (channel);
  const char *why;
  const enum page_channel_state state = state_now (channel, &why);
  const gboolean is_new = state != channel->state;

  if (g_strcmp0 (why, channel->why) != 0) {
    g_free (channel->why);
    channel->why = g_strdup (why);
  }
  if (state == PAGE_CHANNEL_ATTACHED) {
    channel->open = !channel->doubt;
    g_clear_pointer (&channel->trouble, g_free);
  }
  if (!is_new && channel->told_any && !is_news (&lease, &channel->told))
    return;
  if (is_new && channel->why)
    g_message ("donor %s: %s", channel->name, channel->why);
  if (is_new)
    channel->since_us = g_get_monotonic_time ();
  channel->state = state;
  channel->told = lease;
  channel->told_any = TRUE;
  if (channel->watch.changed)
    channel->watch.changed (channel, channel->watch.data);
}

static void
tell_end (PageChannel *channel, gboolean ok) {
  void (*const done) (gpointer data, gboolean ok) = channel->end_done;

  channel->end_done = NULL;
  source_clear (&channel->end_timer);
  if (done)
    done (channel->end_data, ok);
}

struct turn_source {
  GSource source;
  PageChannel *channel;
};

static gboolean
turn_dispatch (GSource *source, GSourceFunc callback, gpointer data) {
  PageChannel *const channel = ((struct turn_source *)source)->channel;

  g_source_set_ready_time (source, -1);
  break_failed (channel);
  follow_lease (channel);
  lease_wire_pump (&channel->lease);
  end_refused (channel);
  tell (channel);
  if (channel->end_done && channel->borrower.state == LEASE_ENDED)
    tell_end (channel, TRUE);
  return G_SOURCE_CONTINUE;
}

static GSourceFuncs turn_functions = { .dispatch = turn_dispatch };

/* ---- the owner's wishes ---- */

void
page_channel_want (PageChannel *channel, guint64 blocks) {
  lease_borrower_want (&channel->borrower, blocks);
  channel_wake (channel);
}

void
page_channel_begin_anew (PageChannel *channel) {
  lease_borrower_begin_anew (&channel->borrower);
  channel_wake (channel);
}

static gboolean
on_end_timer (gpointer data) {
  tell_end (data, FALSE);
  return G_SOURCE_REMOVE;
}

void
page_channel_end_lease (PageChannel *channel, guint timeout_ms, void (*done) (gpointer data, gboolean ok), gpointer data) {
  source_clear (&channel->end_timer);
  channel->end_done = done;
  channel->end_data = data;
  channel->end_timer = source_timeout (timeout_ms, on_end_timer, channel);
  lease_borrower_end (&channel->borrower);
  channel_wake (channel);
}

void
page_channel_figures (const PageChannel *channel, PageChannelFigures *ret_figures) {
  const struct lease_borrower *const borrower = &channel->borrower;

  *ret_figures = (PageChannelFigures){
    .state = channel->state,
    .why = channel->why,
    .since_us = channel->since_us,
    .lease = lease_now (channel),
    .revoke_deadline_us = borrower->revoke ? (gint64)borrower->revoke_until_ms * 1000 : 0,
    .bytes_read = channel->bytes_read,
    .bytes_written = channel->bytes_written,
    .errors = channel->errors,
    .timeouts = channel->timeouts,
    .reconnects = channel->reconnects,
  };
  memcpy (ret_figures->requests, channel->requests, sizeof channel->requests);
  memcpy (ret_figures->in_flight, channel->in_flight, sizeof channel->in_flight);
}

/* ---- beginning and end ---- */

static gboolean
check_options (const PageChannelOptions *options, GError **error) {
  struct sockaddr_storage address;
  socklen_t bytes;

  if (options->worker == 0 || options->export_blocks == 0 || options->export_blocks > LEASE_EXPORT_BLOCKS_MAX) {
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_USAGE,
                 "donor %s: a lease of %" G_GUINT64_FORMAT " blocks for worker %" G_GUINT32_FORMAT " can't be", options->name,
                 options->export_blocks, options->worker);
    return FALSE;
  }
  return tcp_parse (options->address, &address, &bytes, error);
}

static void
init_borrower (PageChannel *channel, const PageChannelOptions *options) {
  struct lease_borrower_options lease = {
    .disk = options->disk,
    .session = (uint64_t)options->worker << LEASE_SESSION_SHIFT,
    .export_blocks = options->export_blocks,
    .lease = options->lease,
    .keep_ms = options->keep_ms ? options->keep_ms : KEEP_MS,
  };

  memcpy (lease.vm, options->vm, sizeof lease.vm);
  memcpy (lease.host, options->host, sizeof lease.host);
  memcpy (lease.boot, options->boot, sizeof lease.boot);
  memcpy (lease.incarnation, options->incarnation, sizeof lease.incarnation);
  lease_borrower_init (&channel->borrower, &lease);
}

PageChannel *
page_channel_new (const PageChannelOptions *options, const PageChannelWatch *watch, GError **error) {
  g_autoptr (GMainContext) context = g_main_context_ref_thread_default ();
  SecureSide *tls = NULL;
  PageChannel *channel;

  if (!check_options (options, error))
    return NULL;
  if (options->psk_identity && !(tls = secure_side_new_client (options->psk_identity, options->psk, options->psk_bytes, error)))
    return NULL;
  channel = g_new0 (PageChannel, 1);
  channel->tls = tls;
  if (watch)
    channel->watch = *watch;
  channel->name = g_strdup (options->name);
  channel->address = g_strdup (options->address);
  channel->export_bytes = options->export_blocks * LEASE_BLOCK_BYTES;
  channel->why = g_strdup ("connecting");
  channel->since_us = g_get_monotonic_time ();
  channel->told_any = TRUE; /* that there is nothing yet */
  init_borrower (channel, options);
  channel->turn = g_source_new (&turn_functions, sizeof (struct turn_source));
  ((struct turn_source *)channel->turn)->channel = channel;
  g_source_attach (channel->turn, context);
  for (guint i = 0; i < PAGE_CLASSES; i++)
    link_init (&channel->links[i], channel, i);
  lease_wire_init (&channel->lease, channel);
  wire_tell_sandbox ();
  wire_connect (&channel->lease);
  return channel;
}

void
page_channel_free (PageChannel *channel) {
  if (!channel)
    return;
  close_links (channel, 0, "the channel is closed");
  while (channel->refused_first)
    end_refused (channel);
  channel->freeing = TRUE;
  for (guint i = 0; i < PAGE_CLASSES; i++) {
    wire_clear (&channel->links[i].wire);
    g_free (channel->links[i].failed_why);
  }
  wire_clear (&channel->lease);
  source_clear (&channel->turn);
  source_clear (&channel->end_timer);
  if (channel->tls)
    secure_side_unref (channel->tls);
  g_free (channel->name);
  g_free (channel->address);
  g_free (channel->why);
  g_free (channel->trouble);
  g_free (channel);
}
