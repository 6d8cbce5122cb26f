/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "guest.h"
#include "guest-internal.h"

#include <endian.h>
#include <stdarg.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE 4096u
#define MARK 0xcc /* what lies in an answer's page after it was read */

/* ---- telling ---- */

void
guest_trace (struct guest *guest, const char *format, ...) {
  char *line = guest->trace[guest->n_trace++ % GUEST_TRACE_LINES];
  va_list args;
  int n;

  n = g_snprintf (line, sizeof guest->trace[0], "%" G_GINT64_FORMAT " ", g_get_monotonic_time () % 100000000);
  va_start (args, format);
  g_vsnprintf (line + n, sizeof guest->trace[0] - (gulong)n, format, args);
  va_end (args);
}

void
guest_fail (struct guest *guest, const char *format, ...) {
  const size_t size = backend_log_size (guest->backend);
  g_autofree char *log = backend_log_from (guest->backend, size > 6000 ? size - 6000 : 0);
  const unsigned n = MIN (guest->n_trace, GUEST_TRACE_LINES);
  va_list args;

  va_start (args, format);
  g_autofree char *what = g_strdup_vprintf (format, args);
  va_end (args);
  g_printerr ("# the back-end (%s, worker %d) logged at the end:\n%s\n# what the guest did at last:\n",
              backend_end_text (guest->backend), (int)backend_worker (guest->backend), log);
  for (unsigned i = 0; i < n; i++)
    g_printerr ("#   %s\n", guest->trace[(guest->n_trace - n + i) % GUEST_TRACE_LINES]);
  for (unsigned q = 0; q < DOMYBS_VQ_COUNT; q++) {
    const struct fe_queue *queue = &guest->fe->queues[q];

    g_printerr ("# queue %u: offered %u, used %u (seen %u), kick wanted at %u, signal wanted at %u\n", q, queue->avail[1], queue->used[1],
                queue->next_used, queue->used[2 + queue->num * 4], queue->avail[2 + queue->num]);
  }
  g_printerr ("# maps %u, window %s, features %#" G_GINT64_MODIFIER "x\n", guest->fe->maps, guest->fe->window.map ? "mapped" : "not mapped",
              guest->fe->features);
  if (backend_is_alive (guest->backend)) {
    g_autoptr (JsonNode) answer = backend_control_once (guest->backend, "{\"execute\":\"status\"}");
    g_autofree char *status = answer ? json_to_string (answer, FALSE) : NULL;

    g_printerr ("# status: %s\n", status ? status : "none");
  }
  if (guest->reaper)
    g_printerr ("# now %" G_GINT64_FORMAT ", last kill %" G_GINT64_FORMAT ", kills %d\n", g_get_monotonic_time () % 100000000,
                guest->reaper->last_kill_us % 100000000, g_atomic_int_get (&guest->reaper->kills));
  g_assertion_message (G_LOG_DOMAIN, __FILE__, __LINE__, G_STRFUNC, what);
  g_assert_not_reached ();
}

/* ---- contents ---- */

static volatile uint64_t *
word (struct guest *guest, uint64_t block, bool last) {
  return (volatile uint64_t *)(void *)(fe_block (guest->fe, block) + (last ? DOMYBS_BLOCK_BYTES - PAGE : 0));
}

static uint64_t
value (uint64_t key, uint64_t block, bool last) {
  return key * 0x9e3779b97f4a7c15ull + 2 * block + last + 1;
}

void
guest_fill_block (struct guest *guest, uint64_t block) {
  guest->keys[block] = ++guest->next_key;
  for (int last = 0; last < 2; last++)
    *word (guest, block, last) = value (guest->keys[block], block, last);
}

void
guest_verify_block (struct guest *guest, uint64_t block) {
  for (int last = 0; last < 2; last++)
    if (*word (guest, block, last) != value (guest->keys[block], block, last))
      guest_fail (guest, "block %" G_GUINT64_FORMAT ", %s page: %#" G_GINT64_MODIFIER "x is not what was written (%#" G_GINT64_MODIFIER "x)",
                  block, last ? "last" : "first", *word (guest, block, last), value (guest->keys[block], block, last));
}

void
guest_expect_zero (struct guest *guest, uint64_t block) {
  for (int last = 0; last < 2; last++)
    if (*word (guest, block, last))
      guest_fail (guest, "block %" G_GUINT64_FORMAT ", %s page, is granted with %#" G_GINT64_MODIFIER "x in it", block,
                  last ? "last" : "first", *word (guest, block, last));
}

/* A RELEASE that was not done: its blocks may be as they were, or empty. */
void
guest_refill_block (struct guest *guest, uint64_t block) {
  for (int last = 0; last < 2; last++)
    if (*word (guest, block, last) && *word (guest, block, last) != value (guest->keys[block], block, last))
      guest_fail (guest, "block %" G_GUINT64_FORMAT " has something else in it after a release that was not done", block);
  guest_fill_block (guest, block);
}

void
guest_look_at_some (struct guest *guest, unsigned n) {
  for (unsigned i = 0; guest->n_granted && i < n; i++) {
    const uint64_t block = (uint64_t)g_rand_int_range (guest->random, 0, (gint32)guest->window_blocks);

    if (guest->keys[block] && !guest->leaving[block])
      guest_verify_block (guest, block);
  }
}

/* ---- putting requests into the ring ---- */

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
    for (unsigned i = 0; i < PAGE; i++)
      if (page[i] != MARK)
        guest_fail (guest, "the answer in slot %u was written once more after it had been given back (byte %u)", slot, i);
  const struct fe_piece pieces[] = { { fe_request_gpa (slot), (uint32_t)n, false }, { fe_response_gpa (slot), cap, true } };
  *request = (struct guest_request){ .in_flight = true, .head = (uint16_t)(slot * 4), .n = n, .cap = cap };
  memcpy (request->bytes, bytes, n);
  memcpy (fe_at (guest->fe, fe_request_gpa (slot)), bytes, n);
  memset (page, 0xee, PAGE); /* so that a short answer is seen */
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
  static const uint32_t caps[] = { PAGE, PAGE, PAGE, sizeof (struct domybs_response) + 2 * sizeof (struct domybs_run) };
  uint8_t buf[PAGE];
  const size_t n = fe_encode_grant (guest->fe, buf, 0, blocks, hint, flags, area_start, area_blocks);
  g_autofree char *what
    = g_strdup_printf ("GRANT %" G_GUINT64_FORMAT ", id %" G_GUINT64_FORMAT ", hint %u, flags %u, area %" G_GUINT64_FORMAT "+%" G_GUINT64_FORMAT,
                       blocks, guest->fe->next_id - 1, hint, flags, area_start, area_blocks);

  submit (guest, buf, n, caps[g_rand_int_range (guest->random, 0, G_N_ELEMENTS (caps))], what);
}

bool
guest_submit_release (struct guest *guest, unsigned n_runs, uint64_t most) {
  struct domybs_run runs[DOMYBS_RUNS_MAX];
  uint8_t buf[PAGE];
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
  submit (guest, buf, bytes, PAGE, what);
  return true;
}

void
guest_submit_stats (struct guest *guest, unsigned n) {
  struct domybs_stat stats[DOMYBS_STATS_MAX];
  uint8_t buf[PAGE];

  for (unsigned i = 0; i < n; i++)
    stats[i] = (struct domybs_stat){ i == 0 ? DOMYBS_STAT_BLOCKS_ONLINE : 100 + i, 0, 1 + g_rand_int (guest->random) };
  submit (guest, buf, fe_encode_stats (guest->fe, buf, 0, stats, n), PAGE, "STATS");
}

void
guest_submit_bye (struct guest *guest) {
  uint8_t buf[PAGE];

  submit (guest, buf, fe_encode_bye (guest->fe, buf, 0), PAGE, "BYE");
}

void
guest_submit_hello (struct guest *guest, uint64_t nonce, uint32_t section_blocks) {
  uint8_t buf[PAGE];
  g_autofree char *what = g_strdup_printf ("HELLO %04x, sections of %u", (unsigned)(nonce & 0xffff), section_blocks);

  submit (guest, buf, fe_encode_hello (buf, section_blocks, nonce), PAGE, what);
}

bool
guest_submit_again (struct guest *guest, unsigned back, bool other_bytes) {
  const uint64_t id = guest->last_id + 1 - MIN (back, guest->last_id);
  const struct guest_past *past = &guest->past[id % DOMYBS_REPLAY_DEPTH];
  uint8_t buf[PAGE];

  if (back == 0 || back > guest->last_id || past->id != id || guest->session == 0)
    return false;
  memcpy (buf, past->bytes, past->n);
  if (other_bytes)
    buf[past->n - 1] ^= 1;
  g_autofree char *what = g_strdup_printf ("id %" G_GUINT64_FORMAT " again%s", id, other_bytes ? ", with other bytes" : "");
  submit (guest, buf, past->n, PAGE, what)->spoilt = other_bytes;
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
    uint8_t buf[PAGE];
    const size_t n = fe_encode_stats (guest->fe, buf, guest->last_id + 100, NULL, 0); /* an id of the future */

    submit (guest, buf, n, PAGE, "an id of the future");
  }
}

/* ---- taking answers ---- */

static void
take_event (struct guest *guest, uint32_t head, uint32_t len) {
  struct domybs_event event;

  if (head >= GUEST_EVENT_BUFFERS || !guest->posted[head])
    guest_fail (guest, "event buffer %u was used, but not given", head);
  if (len != sizeof event)
    guest_fail (guest, "an event of %u bytes", len);
  guest->posted[head] = false;
  memcpy (&event, fe_at (guest->fe, fe_scratch_gpa (64) + head * sizeof event), sizeof event);
  guest_trace (guest, "event %u in buffer %u, generation %u", le16toh (event.type), head, le32toh (event.generation));
  if (le64toh (event.session) == guest->session && guest->session) {
    switch (le16toh (event.type)) {
    case DOMYBS_EVENT_CONFIG:
      if (le32toh (event.generation) < guest->config_event_generation)
        guest_fail (guest, "a CONFIG event of generation %u after one of %u", le32toh (event.generation), guest->config_event_generation);
      guest->config_event_generation = le32toh (event.generation);
      break;
    case DOMYBS_EVENT_RECLAIM:
      guest->reclaims_got++;
      guest->reclaim_due = false;
      if (guest->reclaims_got > guest->reclaims_asked)
        guest_fail (guest, "%u RECLAIM events, asked for %u times", guest->reclaims_got, guest->reclaims_asked);
      break;
    case DOMYBS_EVENT_OFFER:
      break;
    default:
      guest_fail (guest, "an event of type %u", le16toh (event.type));
    }
  }
}

static void
post_events (struct guest *guest) {
  struct fe_queue *queue = &guest->fe->queues[DOMYBS_VQ_EVENT];
  bool any = false;

  for (uint16_t i = 0; i < GUEST_EVENT_BUFFERS; i++) {
    const struct fe_piece piece = { fe_scratch_gpa (64) + i * sizeof (struct domybs_event), sizeof (struct domybs_event), true };

    if (guest->posted[i])
      continue;
    memset (fe_at (guest->fe, piece.gpa), 0xee, piece.len);
    fe_write_chain (queue, i, &piece, 1);
    fe_publish (queue, i);
    guest->posted[i] = any = true;
  }
  if (any)
    fe_kick_if_wanted (guest->fe, queue);
}

void
guest_take_events (struct guest *guest) {
  uint32_t head, len;

  while (fe_poll_used (&guest->fe->queues[DOMYBS_VQ_EVENT], &head, &len))
    take_event (guest, head, len);
  post_events (guest);
}

bool
guest_take (struct guest *guest, int timeout_ms) {
  struct fe_queue *queue = &guest->fe->queues[DOMYBS_VQ_REQUEST];
  const int64_t began = fe_now_ms ();
  struct guest_request *request;
  unsigned slot;
  uint32_t head, len;

  guest_take_events (guest);
  if (!fe_wait_used (guest->fe, queue, &head, &len, timeout_ms)) {
    if (!strstr (guest->fe->why, "nothing used"))
      guest_fail (guest, "%s", guest->fe->why);
    return false;
  }
  /* It polls the ring once more at its deadline: an answer that is only found then came without a signal. */
  if (timeout_ms >= 1000 && fe_now_ms () - began >= timeout_ms - 5)
    guest_fail (guest, "chain %u was used, but the guest was not told", head);
  if (guest->n_in_flight == 0)
    guest_fail (guest, "chain %u was used, and nothing is in flight", head);
  slot = guest->order[0];
  request = &guest->slots[slot];
  if (head != request->head)
    guest_fail (guest, "chain %u was used, the oldest in flight is %u (slot %u)", head, request->head, slot);
  memmove (guest->order, guest->order + 1, --guest->n_in_flight * sizeof guest->order[0]);
  request->in_flight = false;
  guest->answered++;
  guest_judge (guest, request, slot, len);
  memset (fe_at (guest->fe, fe_response_gpa (slot)), MARK, PAGE);
  request->used_before = true;
  return true;
}

void
guest_drain (struct guest *guest) {
  while (guest->n_in_flight)
    if (!guest_take (guest, fe_patience_ms ()))
      guest_fail (guest, "%u requests in flight, and no answer within %d ms", guest->n_in_flight, fe_patience_ms ());
}

void
guest_begin (struct guest *guest) {
  const int64_t deadline = fe_now_ms () + 4 * fe_patience_ms ();
  const uint64_t nonce = ((uint64_t)g_rand_int (guest->random) << 32 | g_rand_int (guest->random)) | 1;
  const uint32_t section = 16u << g_rand_int_range (guest->random, 0, 4);

  guest_drain (guest);
  do {
    if (fe_now_ms () > deadline)
      guest_fail (guest, "HELLO is answered with status %u all the time", guest->last_status);
    if (guest->last_status == DOMYBS_BUSY)
      g_usleep (20000);
    guest_submit_hello (guest, nonce, section);
    guest_drain (guest);
  } while (guest->last_status == DOMYBS_BUSY);
  if (guest->last_status != DOMYBS_OK)
    guest_fail (guest, "HELLO: status %u", guest->last_status);
}

/* ---- life ---- */

static void
forget_rings (struct guest *guest) {
  for (unsigned i = 0; i < FE_SLOTS; i++)
    guest->slots[i] = (struct guest_request){ 0 };
  guest->n_in_flight = 0;
  memset (guest->posted, 0, sizeof guest->posted);
  for (unsigned q = 0; q < DOMYBS_VQ_COUNT; q++) {
    struct fe_queue *queue = &guest->fe->queues[q];

    memset (fe_at (guest->fe, queue->desc_gpa), 0, 0xc000);
    queue->next_avail = queue->next_used = 0;
  }
}

static void
watch (struct guest *guest, bool on) {
  if (guest->reaper)
    reaper_watch (guest->reaper, on ? &guest->fe->queues[DOMYBS_VQ_REQUEST] : NULL);
}

static void
plug (struct guest *guest) {
  guest->fe = fe_new ();
  guest->fe->features_mask = ~(uint64_t)0;
  if (g_rand_int_range (guest->random, 0, 4) == 0)
    guest->fe->features_mask &= ~FE_F_EVENT_IDX;
  guest->indirect = g_rand_boolean (guest->random);
  if (!guest->indirect)
    guest->fe->features_mask &= ~FE_F_INDIRECT;
  guest_trace (guest, "connects");
  guest_must (guest, fe_steps_to (guest->fe, FE_STEP_ENABLE, guest->backend->socket_path));
  guest->last_status = DOMYBS_OK;
  watch (guest, true);
}

struct guest *
guest_new (struct backend *backend, GRand *random) {
  struct guest *guest = g_new0 (struct guest, 1);

  guest->backend = backend;
  guest->random = random;
  guest->window_blocks = 1024;
  guest->section_blocks = 64;
  guest->block_cost = GUEST_BYTES_TOUCHED;
  guest->max_blocks = guest->host_blocks = guest->window_blocks;
  plug (guest);
  return guest;
}

void
guest_free (struct guest *guest) {
  if (!guest)
    return;
  watch (guest, false);
  fe_free (guest->fe);
  g_free (guest->account_path);
  g_free (guest);
}

void
guest_pause (struct guest *guest, unsigned queue) {
  struct fe_queue *q = &guest->fe->queues[queue];
  const uint16_t driver = q->next_avail;

  guest_trace (guest, "stops queue %u", queue);
  guest_must (guest, fe_stop_queue (guest->fe, queue));
  /* What the device has taken it has answered; what it has not it takes later. */
  if (q->next_avail != q->used[1])
    guest_fail (guest, "queue %u stopped at %u, with %u used", queue, q->next_avail, q->used[1]);
  if (g_rand_int_range (guest->random, 0, 3) == 0)
    g_usleep ((gulong)g_rand_int_range (guest->random, 0, 3000));
  if (q->next_avail != q->used[1])
    guest_fail (guest, "queue %u is stopped, and something was used", queue);
  guest_trace (guest, "starts queue %u at %u", queue, q->next_avail);
  guest_must (guest, fe_start_queue (guest->fe, queue));
  q->next_avail = driver;
}

void
guest_new_call (struct guest *guest, unsigned queue) {
  struct fe_queue *q = &guest->fe->queues[queue];
  const int old = q->call;
  const uint64_t one = 1;
  ssize_t done;

  guest_trace (guest, "another call descriptor for queue %u", queue);
  q->call = eventfd (0, EFD_CLOEXEC | EFD_NONBLOCK);
  guest_must (guest, fe_queue_send_call (guest->fe, q));
  /* A signal may have gone, or still go, to the old one: as QEMU does, the guest looks once by itself when the new one is in place. */
  guest_same_table (guest);
  done = write (q->call, &one, sizeof one);
  (void)done;
  close (old);
}

void
guest_same_table (struct guest *guest) {
  guest_trace (guest, "memory table");
  guest_must (guest, fe_send_mem_table (guest->fe));
}

void
guest_read_config (struct guest *guest, bool trickled) {
  struct domybs_config config;
  uint64_t max, usable;

  guest_trace (guest, "reads config%s", trickled ? ", byte by byte" : "");
  if (trickled) {
    uint8_t message[12 + 12 + sizeof config] = { 0 };
    const uint32_t header[6] = { FE_GET_CONFIG, FE_FLAG_VERSION, 12 + sizeof config, 0, sizeof config, 0 };
    uint8_t reply[12 + sizeof config];
    uint32_t bytes;

    memcpy (message, header, sizeof header);
    for (size_t at = 0; at < sizeof message;) {
      const size_t left = sizeof message - at, some = (size_t)g_rand_int_range (guest->random, 1, 40), n = MIN (left, some);

      guest_must (guest, fe_send_raw (guest->fe, guest->fe->sock, message + at, n, NULL, 0));
      at += n;
      g_usleep ((gulong)g_rand_int_range (guest->random, 0, 400));
    }
    guest_must (guest, fe_receive (guest->fe, FE_GET_CONFIG, reply, sizeof reply, &bytes));
    if (bytes != sizeof reply)
      guest_fail (guest, "GET_CONFIG answered with %u bytes", bytes);
    memcpy (&config, reply + 12, sizeof config);
  } else {
    guest_must (guest, fe_get_config (guest->fe, &config));
  }
  if (le32toh (config.magic) != DOMYBS_MAGIC || le64toh (config.window_blocks) != guest->window_blocks)
    guest_fail (guest, "config space is not ours");
  if (le32toh (config.generation) < MAX (guest->generation, guest->config_generation))
    guest_fail (guest, "generation %u in config space, %u before, %u in an answer", le32toh (config.generation), guest->config_generation,
                guest->generation);
  guest->config_generation = le32toh (config.generation);
  max = le64toh (config.max_blocks);
  usable = guest->window_blocks - guest->section_blocks;
  if (guest->session && max != MIN (guest->max_blocks, usable))
    guest_fail (guest, "max_blocks %" G_GUINT64_FORMAT ", expected %" G_GUINT64_FORMAT, max, MIN (guest->max_blocks, usable));
  if (!!(le16toh (config.flags) & DOMYBS_CONFIG_F_TARGET) != guest->have_target
      || le64toh (config.target_blocks) != (guest->have_target ? MIN (guest->target, max) : 0))
    guest_fail (guest, "target %" G_GUINT64_FORMAT " in config space, flags %u; it was set to %" G_GUINT64_FORMAT " (%d)",
                (uint64_t)le64toh (config.target_blocks), le16toh (config.flags), guest->target, guest->have_target);
}

void
guest_reset (struct guest *guest) {
  const int kept = guest->fe->window.fd >= 0 ? dup (guest->fe->window.fd) : -1;
  struct stat st;

  guest_trace (guest, "is reset, %u in flight", guest->n_in_flight);
  watch (guest, false);
  guest_must (guest, fe_drop_window (guest->fe));
  for (unsigned q = 0; q < DOMYBS_VQ_COUNT; q++)
    guest_must (guest, fe_stop_queue (guest->fe, q));
  if (kept >= 0) {
    if (fstat (kept, &st) < 0 || st.st_blocks)
      guest_fail (guest, "%" G_GUINT64_FORMAT " KiB of the window are left after a reset", (uint64_t)st.st_blocks / 2);
    close (kept);
  }
  guest_void_books (guest);
  forget_rings (guest);
  for (unsigned q = 0; q < DOMYBS_VQ_COUNT; q++)
    guest_must (guest, fe_start_queue (guest->fe, q));
  guest->resets++;
  guest->last_status = DOMYBS_OK;
  watch (guest, true);
}

void
guest_reconnect (struct guest *guest) {
  const int kept = guest->fe->window.fd >= 0 ? dup (guest->fe->window.fd) : -1;

  guest_trace (guest, "is unplugged, %u in flight", guest->n_in_flight);
  watch (guest, false);
  fe_free (guest->fe);
  guest_void_books (guest);
  for (unsigned i = 0; i < FE_SLOTS; i++)
    guest->slots[i] = (struct guest_request){ 0 };
  guest->n_in_flight = 0;
  memset (guest->posted, 0, sizeof guest->posted);
  plug (guest);
  guest_begin (guest);
  if (kept >= 0) {
    struct stat st;

    if (fstat (kept, &st) < 0 || st.st_blocks)
      guest_fail (guest, "%" G_GUINT64_FORMAT " KiB of the window are left after it was unplugged", (uint64_t)st.st_blocks / 2);
    close (kept);
  }
}
