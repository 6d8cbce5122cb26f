/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "guest.h"
#include "guest-internal.h"

#include <endian.h>
#include <stdarg.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

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
  return (volatile uint64_t *)(void *)(fe_block (guest->fe, block) + (last ? DOMYBS_BLOCK_BYTES - GUEST_PAGE : 0));
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

  for (uint16_t i = 0; i < GUEST_EVENT_BUFFERS; i++) {
    const struct fe_piece piece = { fe_scratch_gpa (64) + i * sizeof (struct domybs_event), sizeof (struct domybs_event), true };

    if (guest->posted[i])
      continue;
    memset (fe_at (guest->fe, piece.gpa), 0xee, piece.len);
    fe_write_chain (queue, i, &piece, 1);
    fe_publish (queue, i);
    fe_kick_if_wanted (guest->fe, queue); /* each one: the device may want to hear of the first only */
    guest->posted[i] = true;
  }
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
  memset (fe_at (guest->fe, fe_response_gpa (slot)), GUEST_MARK, GUEST_PAGE);
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
  bool again = false;

  guest_drain (guest);
  do {
    if (fe_now_ms () > deadline)
      guest_fail (guest, "HELLO is answered with status %u all the time", guest->last_status);
    if (again)
      g_usleep (20000);
    guest_submit_hello (guest, nonce, section);
    guest_drain (guest);
    again = guest->last_status == DOMYBS_BUSY || (guest->poor_host && guest->last_status == DOMYBS_FAILED);
  } while (again);
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
  guest->fe->trickle = guest->trickle;
  guest->fe->trickle_data = guest->trickle_data;
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
