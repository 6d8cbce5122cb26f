/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The connection on which the lease is spoken of: stays in NBD's option phase, and carries what core/lease-borrower.h wants
 * asked. */
#include "core/nbd.h"
#include "io/page-channel-internal.h"

#define IN_BYTES 8192u

static void
on_lease_ready (PageWire *wire) {
  lease_borrower_connected (&wire->channel->borrower, channel_now_ms ());
  lease_wire_pump (wire);
}

void
lease_wire_pump (PageWire *wire) {
  struct lease_borrower *const borrower = &wire->channel->borrower;
  const uint64_t now_ms = channel_now_ms ();
  uint8_t bytes[LEASE_REQUEST_BYTES];
  struct lease_request request;
  uint64_t wait_ms;

  if (wire->phase != WIRE_OPTIONS)
    return;
  if (lease_borrower_timed_out (borrower, now_ms)) {
    wire_break (wire, WIRE_TIMEOUT, "it does not answer");
    return;
  }
  if (lease_borrower_next (borrower, now_ms, &request)) {
    lease_request_encode (&request, bytes);
    wire_send_option (wire, NBD_OPT_LEASE, bytes, sizeof bytes);
  }
  wait_ms = lease_borrower_wait_ms (borrower, now_ms);
  wire_set_timer (wire, wait_ms == UINT64_MAX ? -1 : (gint64)(now_ms + MAX (wait_ms, 1)) * 1000);
}

static void
on_lease_reply (PageWire *wire, guint32 type, const guint8 *data, gsize bytes) {
  struct lease_answer answer;

  if (NBD_REP_IS_ERROR (type)) {
    g_autofree char *text = wire_text (data, bytes);

    wire_break (wire, WIRE_REFUSED, "it lends nothing%s%s", *text ? ": " : "", text);
    return;
  }
  if (type != NBD_REP_LEASE || !lease_answer_decode (data, bytes, &answer)
      || !lease_borrower_answer (&wire->channel->borrower, channel_now_ms (), &answer)) {
    wire_break (wire, WIRE_PROTOCOL, "its answer about the lease makes no sense");
    return;
  }
  wire->channel->lease_refused = FALSE;
  wire_is_good (wire);
  channel_wake (wire->channel);
  lease_wire_pump (wire);
}

static void
on_lease_broken (PageWire *wire, enum wire_trouble trouble) {
  wire->channel->lease_refused = trouble == WIRE_REFUSED;
  wire->channel->reconnects++;
  lease_borrower_disconnected (&wire->channel->borrower);
  channel_wake (wire->channel);
}

static const struct wire_kind lease_kind = {
  .ready = on_lease_ready,
  .reply = on_lease_reply,
  .timer = lease_wire_pump,
  .broken = on_lease_broken,
};

void
lease_wire_init (PageWire *wire, PageChannel *channel) {
  wire_init (wire, &lease_kind, channel, "lease", IN_BYTES);
}
