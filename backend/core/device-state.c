/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "core/device-state.h"
#include "core/crash-point.h"
#include "core/keeper-wire.h"

#include <endian.h>
#include <string.h>

_Static_assert(STATE_NONE == KEEPER_NO_SLOT, "a slot of the keeper");
_Static_assert(STATE_OUT_BYTES_MAX == KEEPER_BYTES_MAX, "a message of the keeper");
_Static_assert(sizeof (struct state_header) % 8 == 0 && sizeof (struct state_scalars) % 8 == 0
                   && sizeof (struct state_answer) % 8 == 0 && sizeof (struct state_record) % 8 == 0,
               "the parts follow each other, aligned");
/* Versions share the layout: what grows takes reserved space. A number that differs here is a new, incompatible format. */
_Static_assert(sizeof (struct state_header) == 144, "");
_Static_assert(sizeof (struct state_device) == 472, "");
_Static_assert(sizeof (struct state_session) == 1232, "");
_Static_assert(sizeof (struct state_backend) == 256, "");
_Static_assert(sizeof (struct state_answer) == 4120, "");

/* ---- layout ---- */

/* The header's part that says where things are; the rest is zero. */
static bool
lay_out (uint64_t window_blocks, struct state_header *ret_header) {
  const uint64_t bits_bytes = (window_blocks + 63) / 64 * sizeof (uint64_t);
  const uint32_t scalars_at = sizeof (struct state_header);
  const uint32_t answers_at = scalars_at + sizeof (struct state_scalars);
  const uint32_t record_at = answers_at + DOMYBS_REPLAY_DEPTH * sizeof (struct state_answer);
  const uint32_t bits_at = record_at + sizeof (struct state_record);

  if (window_blocks == 0 || (window_blocks & (window_blocks - 1)) || bits_bytes > UINT32_MAX)
    return false;
  *ret_header = (struct state_header){
    .magic = DOMYBS_STATE_MAGIC,
    .bytes = bits_at + bits_bytes,
    .window_blocks = window_blocks,
    .scalars_at = scalars_at,
    .scalars_bytes = sizeof (struct state_scalars),
    .answers_at = answers_at,
    .answer_bytes = sizeof (struct state_answer),
    .record_at = record_at,
    .record_bytes = sizeof (struct state_record),
    .bits_at = bits_at,
    .bits_bytes = (uint32_t)bits_bytes,
  };
  return true;
}

static void
attach (struct device_state *state, void *memory, const struct state_header *layout) {
  uint8_t *bytes = memory;

  *state = (struct device_state){
    .bytes = layout->bytes,
    .header = memory,
    .scalars = (struct state_scalars *)(void *)(bytes + layout->scalars_at),
    .answers = (struct state_answer *)(void *)(bytes + layout->answers_at),
    .record = (struct state_record *)(void *)(bytes + layout->record_at),
    .bits = (uint64_t *)(void *)(bytes + layout->bits_at),
  };
}

size_t
device_state_bytes (uint64_t window_blocks) {
  struct state_header layout;

  return lay_out (window_blocks, &layout) ? layout.bytes : 0;
}

void
device_state_attach (struct device_state *state, void *memory) {
  const struct state_header *layout = memory;

  attach (state, memory, layout);
}

static void
set_program (struct state_header *header, const char *program) {
  const size_t n = strnlen (program, sizeof header->program - 1);

  memset (header->program, 0, sizeof header->program);
  memcpy (header->program, program, n);
}

/* Both in one store, so that nobody finds the version of one worker with the other's oldest reader. */
static void
set_version (struct state_header *header) {
  typedef uint64_t __attribute__ ((may_alias)) word;
  const uint32_t versions[2] = { DOMYBS_STATE_VERSION, DOMYBS_STATE_OLDEST };
  uint64_t value;

  _Static_assert(offsetof (struct state_header, version) % 8 == 0
                     && offsetof (struct state_header, oldest_reader) == offsetof (struct state_header, version) + 4,
                 "one aligned word");
  memcpy (&value, versions, sizeof value);
  __atomic_store_n ((word *)(void *)&header->version, value, __ATOMIC_RELEASE);
}

void
device_state_create (struct device_state *state, void *memory, uint64_t window_blocks, const char *program) {
  struct state_header layout = { 0 };
  struct state_session *session;

  (void)lay_out (window_blocks, &layout);
  memcpy (memory, &layout, sizeof layout);
  attach (state, memory, &layout);
  session = &state->scalars->session;
  session->channel_slot = STATE_NONE;
  for (unsigned i = 0; i < VHU_MEMORY_REGIONS_MAX; i++)
    session->regions[i].slot = STATE_NONE;
  for (unsigned i = 0; i < STATE_QUEUES_MAX; i++)
    session->queues[i].kick_slot = session->queues[i].call_slot = session->queues[i].err_slot = STATE_NONE;
  state->scalars->backend.window_slot = STATE_NONE;
  set_program (state->header, program);
  set_version (state->header);
}

/* ---- checking ---- */

static bool
is_slot (uint32_t slot) {
  return slot < KEEPER_SLOTS || slot == STATE_NONE;
}

static bool
wraps (uint64_t start, uint64_t bytes) {
  return start + bytes < start;
}

static bool
is_shortage (uint64_t shortage) {
  return shortage == DEVICE_SHORTAGE_NONE || (shortage <= 255 && device_shortage_name ((enum device_shortage)shortage));
}

static const char *
check_device (const struct state_device *device, uint64_t window_blocks) {
  bool ended = false;

  if (device->region_blocks == 0 && (device->session || device->last_id))
    return "it has a session, but no sections";
  if (device->session == 0 && device->last_id)
    return "it has requests of no session";
  if (device->have_target > 1 || device->target_blocks > window_blocks)
    return "its target is larger than the window";
  if (!is_shortage (device->shortage) || device->offer_wanted > 1)
    return "it has a number for a reason that there is not";
  for (size_t i = 0; i < sizeof device->driver; i++) {
    const char c = device->driver[i];

    ended = ended || c == 0 || i == sizeof ((struct memory_device *)0)->driver - 1;
    if (ended ? c != 0 : (c < 0x20 || c > 0x7e))
      return "its driver's name is not a printable one";
  }
  return NULL;
}

static const char *
check_queue (const struct state_queue *queue) {
  if (queue->started > 1 || queue->enabled > 1 || queue->broken > 1 || queue->have_addr > 1)
    return "it has a queue with flags that there are not";
  if (queue->num > VIRTQUEUE_SIZE_MAX || (queue->num & (queue->num - 1)))
    return "it has a queue of a size that can't be";
  if (!is_slot (queue->kick_slot) || !is_slot (queue->call_slot) || !is_slot (queue->err_slot))
    return "it has a queue with descriptors that can't be";
  return NULL;
}

static const char *
check_session (const struct state_session *session) {
  if (session->map_open > 1 || session->have_features > 1 || session->have_protocol_features > 1)
    return "its session has flags that there are not";
  if (!is_slot (session->channel_slot))
    return "its session has a descriptor that can't be";
  if (session->n_regions > VHU_MEMORY_REGIONS_MAX)
    return "its session has more memory regions than there can be";
  for (uint32_t i = 0; i < session->n_regions; i++) {
    const struct state_region *region = &session->regions[i];

    if (region->bytes == 0 || wraps (region->guest_addr, region->bytes) || wraps (region->user_addr, region->bytes)
        || wraps (region->offset, region->bytes))
      return "its session has a memory region that can't be";
    if (region->slot >= KEEPER_SLOTS)
      return "its session has a memory region without a descriptor";
  }
  for (unsigned i = 0; i < STATE_QUEUES_MAX; i++) {
    const char *why = check_queue (&session->queues[i]);

    if (why)
      return why;
  }
  return NULL;
}

static const char *
check_backend (const struct state_backend *backend, uint32_t version) {
  if (!is_slot (backend->window_slot))
    return "its window is in a slot that there is not";
  if (backend->map_on_its_way > 1 || backend->finished > 1)
    return "it has flags that there are not";
  if (!is_shortage (backend->short_grant.reason))
    return "it has a number for a reason that there is not";
  if (DOMYBS_STATE_VERSION < 2 || version < 2)
    return NULL; /* there is nothing in events */
  for (size_t i = 0; i < sizeof backend->events / sizeof backend->events[0]; i++)
    if (le16toh (backend->events[i].type) > DOMYBS_EVENT_CONFIG)
      return "it has an event that there is not";
  return NULL;
}

static const char *
check_scalars (const struct state_scalars *scalars, uint64_t window_blocks, uint32_t version) {
  const char *why = check_device (&scalars->device, window_blocks);

  if (!why)
    why = check_session (&scalars->session);
  return why ? why : check_backend (&scalars->backend, version);
}

/* pending: the record will be applied, so what it says counts. */
static const char *
check_answers (const struct device_state *state, const struct state_device *device, bool pending) {
  for (uint32_t i = 0; i < DOMYBS_REPLAY_DEPTH; i++) {
    const bool is_in_record = pending && state->record->answer == i;
    const uint64_t id = is_in_record ? state->record->answer_id : state->answers[i].id;
    const uint32_t bytes = is_in_record ? state->record->push_bytes : state->answers[i].bytes;
    const uint64_t age = (device->last_id - i) % DOMYBS_REPLAY_DEPTH; /* of the id that belongs there */

    if (bytes > DOMYBS_RESPONSE_BYTES_MAX)
      return "it has an answer longer than any";
    if (device->last_id > age && (id != device->last_id - age || bytes < sizeof (struct domybs_response)))
      return "its answers are not those of its session";
  }
  return NULL;
}

/* In a record that is to be applied. */
static const char *
check_record (const struct state_record *record, uint64_t usable_blocks) {
  const uint32_t n_runs = record->n_runs;

  if (record->change > DEVICE_CHANGE_CLEAR || n_runs > DOMYBS_RUNS_MAX)
    return "its record changes blocks in a way that can't be";
  for (uint32_t i = 0; i < n_runs; i++) {
    const struct block_run run = record->runs[i];

    if (run.count == 0 || run.start >= usable_blocks || run.count > usable_blocks - run.start)
      return "its record changes blocks that can't be granted";
  }
  if (record->push_bytes > DOMYBS_RESPONSE_BYTES_MAX && (record->have_push || record->answer != STATE_NO_ANSWER))
    return "its record has an answer longer than any";
  if (record->have_push > 1
      || (record->have_push
          && (record->push_queue >= STATE_QUEUES_MAX
              || record->push_head >= record->scalars.session.queues[record->push_queue].num)))
    return "its record has an answer to a request that can't be";
  if (record->answer != STATE_NO_ANSWER
      && (record->answer >= DOMYBS_REPLAY_DEPTH || record->answer_id % DOMYBS_REPLAY_DEPTH != record->answer))
    return "its record has an answer to a request that can't be";
  if (record->out_bytes[0] > STATE_OUT_BYTES_MAX || record->out_bytes[1] > STATE_OUT_BYTES_MAX || !is_slot (record->out_slot))
    return "its record has a message that can't be";
  return NULL;
}

/* Whether the bits, once the record is applied where it is pending, are those of a window that is cut so. */
static bool
bits_fit (const struct device_state *state, uint32_t region_blocks, bool pending) {
  const uint64_t window_blocks = state->header->window_blocks;
  const bool cleared = pending && state->record->change == DEVICE_CHANGE_CLEAR;

  if (region_blocks)
    return regions_bits_fit (window_blocks, region_blocks, cleared ? NULL : state->bits);
  for (uint64_t i = 0; !cleared && i < state->header->bits_bytes / sizeof *state->bits; i++)
    if (state->bits[i])
      return false; /* granted by no device */
  return true;
}

/* What counts in it. */
static const char *
check_content (const struct device_state *state, bool pending) {
  const struct state_scalars *scalars = pending ? &state->record->scalars : state->scalars;
  const uint64_t window_blocks = state->header->window_blocks;
  const uint32_t region_blocks = scalars->device.region_blocks;
  const char *why = check_scalars (scalars, window_blocks, state->header->version);

  if (why)
    return why;
  if (!bits_fit (state, region_blocks, pending))
    return "blocks are granted in it that can't be";
  if (pending)
    why = check_record (state->record, region_blocks ? window_blocks - region_blocks : 0);
  return why ? why : check_answers (state, &scalars->device, pending);
}

const char *
device_state_check_header (const void *memory, size_t n, uint64_t window_blocks) {
  const struct state_header *header = memory;
  struct state_header layout;

  if ((uintptr_t)memory % 8 || n < sizeof *header || header->magic != DOMYBS_STATE_MAGIC)
    return "it is no state of a memory device";
  if (header->oldest_reader > DOMYBS_STATE_VERSION)
    return "it was written by a newer version, for that and newer ones only";
  if (header->version < DOMYBS_STATE_OLDEST || header->oldest_reader > header->version)
    return "its version is none that there was";
  if (header->window_blocks != window_blocks || !lay_out (window_blocks, &layout))
    return "it is for a window of another size";
  if (n != layout.bytes || header->bytes != layout.bytes || header->scalars_at != layout.scalars_at
      || header->scalars_bytes != layout.scalars_bytes || header->answers_at != layout.answers_at
      || header->answer_bytes != layout.answer_bytes || header->record_at != layout.record_at
      || header->record_bytes != layout.record_bytes || header->bits_at != layout.bits_at
      || header->bits_bytes != layout.bits_bytes)
    return "its parts are not where they belong";
  return NULL;
}

const char *
device_state_check (const void *memory, size_t n, uint64_t window_blocks) {
  const struct state_header *header = memory;
  const char *why = device_state_check_header (memory, n, window_blocks);
  struct device_state state;

  if (why)
    return why;
  if (header->committed - header->done > 1)
    return "its transactions are not in order";
  attach (&state, (void *)(uintptr_t)memory, header);
  return check_content (&state, header->committed != header->done);
}

/* ---- transactions ---- */

static void
apply_answer (struct device_state *state) {
  const struct state_record *record = state->record;
  struct state_answer *answer;

  if (record->answer == STATE_NO_ANSWER)
    return;
  answer = &state->answers[record->answer];
  answer->id = record->answer_id;
  CRASH_POINT ("state-answer-id");
  answer->digest = record->answer_digest;
  CRASH_POINT ("state-answer-digest");
  answer->bytes = record->push_bytes;
  CRASH_POINT ("state-answer-bytes");
  memcpy (answer->response, record->push_payload, record->push_bytes);
  CRASH_POINT ("state-answer");
}

static void
apply_change (struct device_state *state) {
  const struct state_record *record = state->record;

  if (record->change == DEVICE_CHANGE_CLEAR)
    memset (state->bits, 0, state->header->bits_bytes);
  else if (record->change != DEVICE_CHANGE_NONE)
    for (uint32_t i = 0; i < record->n_runs; i++) {
      CRASH_POINT ("state-run");
      regions_bits_assign (state->bits, record->runs[i].start, record->runs[i].count, record->change == DEVICE_CHANGE_TAKE);
    }
  CRASH_POINT ("state-bits");
}

static void
apply (struct device_state *state) {
  const struct state_scalars *scalars = &state->record->scalars;

  CRASH_POINT ("state-committed");
  memcpy (&state->scalars->device, &scalars->device, sizeof scalars->device);
  CRASH_POINT ("state-device");
  memcpy (&state->scalars->session, &scalars->session, sizeof scalars->session);
  CRASH_POINT ("state-session");
  memcpy (&state->scalars->backend, &scalars->backend, sizeof scalars->backend);
  CRASH_POINT ("state-backend");
  apply_answer (state);
  apply_change (state);
}

void
device_state_commit (struct device_state *state) {
  struct state_header *header = state->header;

  CRASH_POINT ("state-filled");
  __atomic_store_n (&header->committed, header->done + 1, __ATOMIC_RELEASE);
  __atomic_thread_fence (__ATOMIC_SEQ_CST);
  apply (state);
}

void
device_state_done (struct device_state *state) {
  struct state_header *header = state->header;

  CRASH_POINT ("state-effects");
  __atomic_store_n (&header->done, header->committed, __ATOMIC_RELEASE);
  __atomic_thread_fence (__ATOMIC_SEQ_CST);
  CRASH_POINT ("state-done");
}

/* What is there in our version and was not in that of the image. Until the image says that it is ours, that is no part of it:
 * so this may be done at any time, and again. */
static void
set_defaults (struct device_state *state) {
  if (DOMYBS_STATE_VERSION >= 2 && state->header->version < 2)
    memset (state->scalars->backend.events, 0, sizeof state->scalars->backend.events);
}

bool
device_state_recover (struct device_state *state) {
  const bool pending = state->header->committed != state->header->done;

  if (pending)
    apply (state);
  set_defaults (state);
  CRASH_POINT ("state-recovered");
  return pending;
}

void
device_state_adopt (struct device_state *state, const char *program) {
  set_defaults (state);
  CRASH_POINT ("state-defaults");
  set_version (state->header);
  __atomic_thread_fence (__ATOMIC_SEQ_CST);
  CRASH_POINT ("state-adopted");
  set_program (state->header, program);
  CRASH_POINT ("state-program");
}

/* ---- struct memory_device from and to an image ---- */

void
device_state_save_device (struct state_record *record, struct memory_device *device) {
  struct state_device *saved = &record->scalars.device;

  *saved = (struct state_device){
    .session = device->session,
    .nonce = device->nonce,
    .last_id = device->last_id,
    .target_blocks = device->options.target_blocks,
    .have_target = device->options.have_target,
    .generation = device->generation,
    .region_blocks = device->regions.region_blocks,
    .shortage = device->shortage,
    .offer_wanted = device->offer_wanted,
    .stats_known = device->stats_known,
    .counters = device->counters,
  };
  _Static_assert(sizeof saved->stats == sizeof device->stats && sizeof saved->driver >= sizeof device->driver, "");
  memcpy (saved->stats, device->stats, sizeof device->stats);
  memcpy (saved->driver, device->driver, sizeof device->driver);

  record->change = (uint32_t)device->change.kind;
  record->n_runs = device->change.n_runs;
  memcpy (record->runs, device->change.runs, device->change.n_runs * sizeof record->runs[0]);
  device->change.kind = DEVICE_CHANGE_NONE;
  device->change.n_runs = 0;

  record->answer = STATE_NO_ANSWER;
  if (device->answered >= 0) {
    const struct memory_device_answer *answer = &device->answers[device->answered];

    record->answer = (uint32_t)device->answered;
    record->answer_id = answer->id;
    record->answer_digest = answer->digest;
    record->push_bytes = answer->bytes;
    memcpy (record->push_payload, answer->response, answer->bytes);
  }
  device->answered = -1;
}

static void
load_answers (const struct device_state *state, struct memory_device *device) {
  for (unsigned i = 0; i < DOMYBS_REPLAY_DEPTH; i++) {
    const struct state_answer *saved = &state->answers[i];
    struct memory_device_answer *answer = &device->answers[i];

    answer->id = saved->id;
    answer->digest = saved->digest;
    answer->bytes = saved->bytes;
    memcpy (answer->response, saved->response, saved->bytes);
  }
}

const char *
device_state_load_device (const struct device_state *state, struct memory_device *device) {
  const struct state_device *saved = &state->scalars->device;
  struct memory_device_options *options = &device->options;
  const char *why;

  if (state->header->window_blocks != options->window_blocks)
    return "it is for a window of another size";
  why = check_device (saved, options->window_blocks);
  if (!why)
    why = check_answers (state, saved, false);
  if (!why && !bits_fit (state, saved->region_blocks, false))
    why = "blocks are granted in it that can't be";
  if (why || saved->region_blocks == 0)
    return why;
  if (!regions_load (&device->regions, saved->region_blocks, state->bits))
    return "not enough memory for the block table";
  device->session = saved->session;
  device->nonce = saved->nonce;
  device->last_id = saved->last_id;
  options->have_target = saved->have_target;
  options->target_blocks = saved->target_blocks < options->max_blocks ? saved->target_blocks : options->max_blocks;
  device->generation = saved->generation;
  device->shortage = (enum device_shortage)saved->shortage;
  device->offer_wanted = saved->offer_wanted;
  device->stats_known = saved->stats_known;
  device->counters = saved->counters;
  memcpy (device->stats, saved->stats, sizeof device->stats);
  memcpy (device->driver, saved->driver, sizeof device->driver);
  load_answers (state, device);
  for (unsigned i = 0; i < DEVICE_FAR_TIERS; i++)
    device->levels[i] = (struct device_level){ .known = saved->session == 0 };
  device->far_offer_wanted = saved->session != 0; /* not known either: one OFFER too many does no harm */
  device->change.kind = DEVICE_CHANGE_NONE;
  device->change.n_runs = 0;
  device->answered = -1;
  return NULL;
}
