/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a guest asks for: puts requests into the ring, and notes what it must remember of them. */
#include "guest-internal.h"

#include <endian.h>
#include <string.h>

bool
guest_has_slot (const struct guest *guest) {
  return guest->n_in_flight < FE_SLOTS;
}

static struct guest_request *
submit (struct guest *guest, const uint8_t *bytes, size_t n, uint32_t cap, const char *what) {
  struct fe_queue *queue = &guest->fe->queues[DOMYBS_VQ_REQUEST];
  struct guest_request *request;
  unsigned slot = guest->next_slot;
  uint8_t *page;

  g_assert_true (guest_has_slot (guest));
  while (guest->slots[slot].in_flight)
    slot = (slot + 1) % FE_SLOTS;
  guest->next_slot = (slot + 1) % FE_SLOTS;
  request = &guest->slots[slot];
  page = fe_at (guest->fe, fe_response_gpa (slot));
  if (request->used_before)
    for (unsigned i = 0; i < GUEST_PAGE; i++)
      if (page[i] != GUEST_MARK)
        guest_fail (guest, "the answer in slot %u was written once more after it had been given back (byte %u)", slot, i);
  const struct fe_piece pieces[] = { { fe_request_gpa (slot), (uint32_t)n, false }, { fe_response_gpa (slot), cap, true } };
  *request = (struct guest_request){ .in_flight = true, .head = (uint16_t)(slot * 4), .n = n, .cap = cap };
  memcpy (request->bytes, bytes, n);
  memcpy (fe_at (guest->fe, fe_request_gpa (slot)), bytes, n);
  memset (page, 0xee, GUEST_PAGE); /* so that a short answer is seen */
  if (guest->indirect && g_rand_int_range (guest->random, 0, 3) == 0)
    fe_write_indirect (guest->fe, queue, request->head, pieces, 2, fe_scratch_gpa (slot));
  else
    fe_write_chain (queue, request->head, pieces, 2);
  guest->order[guest->n_in_flight++] = slot;
  guest->submitted++;
  guest_trace (guest, "slot %u: %s, session %04x", slot, what, (unsigned)(guest->fe->session & 0xffff));
  fe_publish (queue, request->head);
  fe_kick_if_wanted (guest->fe, queue);
  return request;
}

void
guest_submit_grant (struct guest *guest, uint64_t blocks, uint32_t hint, uint32_t flags, uint64_t area_start, uint64_t area_blocks) {
  static const uint32_t caps[] = { GUEST_PAGE, GUEST_PAGE, GUEST_PAGE, sizeof (struct domybs_response) + 2 * sizeof (struct domybs_run) };
  uint8_t buf[GUEST_PAGE];
  const size_t n = fe_encode_grant (guest->fe, buf, 0, blocks, hint, flags, area_start, area_blocks);
  g_autofree char *what
    = g_strdup_printf ("GRANT %" G_GUINT64_FORMAT ", id %" G_GUINT64_FORMAT ", hint %u, flags %u, area %" G_GUINT64_FORMAT "+%" G_GUINT64_FORMAT,
                       blocks, guest->fe->next_id - 1, hint, flags, area_start, area_blocks);

  submit (guest, buf, n, guest->roomy ? GUEST_PAGE : caps[g_rand_int_range (guest->random, 0, G_N_ELEMENTS (caps))], what);
}

bool
guest_submit_release (struct guest *guest, unsigned n_runs, uint64_t most) {
  struct domybs_run runs[DOMYBS_RUNS_MAX];
  uint8_t buf[GUEST_PAGE];
  uint32_t n = 0;

  for (unsigned tries = 0; tries < 4 * n_runs && n < n_runs && n < DOMYBS_RUNS_MAX; tries++) {
    uint64_t start = (uint64_t)g_rand_int_range (guest->random, 0, (gint32)guest->window_blocks), count = 0;
    const uint64_t wanted = (uint64_t)g_rand_int_range (guest->random, 1, (gint32)most + 1);

    /* grants are dense at the start: look on from where there is something */
    while (start < guest->window_blocks && (!guest->keys[start] || guest->leaving[start]))
      start++;
    while (count < wanted && start + count < guest->window_blocks && guest->keys[start + count] && !guest->leaving[start + count]) {
      guest_verify_block (guest, start + count);
      guest->leaving[start + count] = true;
      count++;
    }
    if (count)
      runs[n++] = (struct domybs_run){ start, count };
  }
  if (n == 0)
    return false;
  const size_t bytes = fe_encode_release (guest->fe, buf, 0, runs, n);
  g_autofree char *what = g_strdup_printf ("RELEASE of %u runs from %" G_GUINT64_FORMAT "+%" G_GUINT64_FORMAT ", id %" G_GUINT64_FORMAT, n,
                                           (uint64_t)runs[0].start, (uint64_t)runs[0].count, guest->fe->next_id - 1);
  submit (guest, buf, bytes, GUEST_PAGE, what);
  return true;
}

void
guest_submit_stats (struct guest *guest, unsigned n) {
  struct domybs_stat stats[DOMYBS_STATS_MAX];
  uint8_t buf[GUEST_PAGE];

  for (unsigned i = 0; i < n; i++)
    stats[i] = (struct domybs_stat){ i == 0 ? DOMYBS_STAT_BLOCKS_ONLINE : 100 + i, 0, 1 + g_rand_int (guest->random) };
  submit (guest, buf, fe_encode_stats (guest->fe, buf, 0, stats, n), GUEST_PAGE, "STATS");
}

void
guest_submit_bye (struct guest *guest) {
  uint8_t buf[GUEST_PAGE];

  submit (guest, buf, fe_encode_bye (guest->fe, buf, 0), GUEST_PAGE, "BYE");
}

void
guest_submit_hello (struct guest *guest, uint64_t nonce, uint32_t section_blocks) {
  uint8_t buf[GUEST_PAGE];
  g_autofree char *what = g_strdup_printf ("HELLO %04x, sections of %u", (unsigned)(nonce & 0xffff), section_blocks);

  submit (guest, buf, fe_encode_hello (buf, section_blocks, nonce), GUEST_PAGE, what);
}

bool
guest_submit_again (struct guest *guest, unsigned back, bool other_bytes) {
  const uint64_t id = guest->last_id + 1 - MIN (back, guest->last_id);
  const struct guest_past *past = &guest->past[id % DOMYBS_REPLAY_DEPTH];
  uint8_t buf[GUEST_PAGE];

  if (back == 0 || back > guest->last_id || past->id != id || guest->session == 0)
    return false;
  memcpy (buf, past->bytes, past->n);
  if (other_bytes)
    buf[past->n - 1] ^= 1;
  g_autofree char *what = g_strdup_printf ("id %" G_GUINT64_FORMAT " again%s", id, other_bytes ? ", with other bytes" : "");
  submit (guest, buf, past->n, GUEST_PAGE, what)->spoilt = other_bytes;
  return true;
}

static void
submit_grant_of_any_kind (struct guest *guest) {
  GRand *random = guest->random;
  const uint64_t window = guest->window_blocks;
  const bool area = g_rand_int_range (random, 0, 4) == 0;
  const uint64_t start = area ? (uint64_t)g_rand_int_range (random, 0, (gint32)window) : 0;
  uint32_t hint = DOMYBS_HINT_ANY, flags = 0;
  uint64_t blocks = (uint64_t)g_rand_int_range (random, 1, 33);

  if (g_rand_int_range (random, 0, 10) == 0)
    hint = (uint32_t)g_rand_int_range (random, 0, 4);
  if (g_rand_int_range (random, 0, 3) == 0)
    flags |= DOMYBS_GRANT_F_ALL;
  if (g_rand_int_range (random, 0, 6) == 0) {
    flags |= DOMYBS_GRANT_F_SECTION;
    blocks = guest->section_blocks * (uint64_t)g_rand_int_range (random, 1, 3);
  }
  if (g_rand_int_range (random, 0, 30) == 0)
    blocks = (uint64_t)g_rand_int_range (random, 1, (gint32)window + 1);
  guest_submit_grant (guest, blocks, hint, flags, start, area ? 1 + (uint64_t)g_rand_int_range (random, 0, (gint32)(window - start)) : 0);
}

void
guest_submit_random (struct guest *guest) {
  GRand *random = guest->random;
  /* a guest that has much releases more */
  const int grants = guest->n_granted > guest->max_blocks * 3 / 4 ? 20 : guest->n_granted < guest->max_blocks / 8 ? 60 : 42;
  const int die = g_rand_int_range (random, 0, 100);

  if (die < grants) {
    submit_grant_of_any_kind (guest);
  } else if (die < 84) {
    const bool many = g_rand_int_range (random, 0, 8) == 0;

    if (!guest_submit_release (guest, many ? 100 : (unsigned)g_rand_int_range (random, 1, 6), many ? 2 : 48))
      guest_submit_stats (guest, 1);
  } else if (die < 93) {
    guest_submit_stats (guest, (unsigned)g_rand_int_range (random, 0, 20));
  } else if (die < 97) {
    if (!guest_submit_again (guest, (unsigned)g_rand_int_range (random, 1, 20), g_rand_int_range (random, 0, 6) == 0))
      guest_submit_stats (guest, 0);
  } else if (die < 99) {
    guest_submit_hello (guest, guest->nonce, guest->section_blocks); /* the same session again */
  } else {
    uint8_t buf[GUEST_PAGE];
    const size_t n = fe_encode_stats (guest->fe, buf, guest->last_id + 100, NULL, 0); /* an id of the future */

    submit (guest, buf, n, GUEST_PAGE, "an id of the future");
  }
}
