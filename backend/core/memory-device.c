/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "core/memory-device.h"

#include <endian.h>
#include <string.h>

/* Before the first HELLO the guest's section size is unknown; 64 blocks is Linux' smallest on x86. */
#define SECTION_BLOCKS_DEFAULT 64u
/* How long a driver waits after BUSY. Long enough not to spin, short enough for an operator's patience. */
#define RETRY_MS 100u

bool
memory_device_init (struct memory_device *device, const struct memory_device_options *options, const char **ret_why) {
  const uint64_t bytes = options->window_blocks << DOMYBS_BLOCK_SHIFT;

  memset (device, 0, sizeof *device);
  if (options->window_blocks == 0 || (options->window_blocks & (options->window_blocks - 1)) || bytes < DOMYBS_WINDOW_ALIGN_BYTES
      || options->window_blocks > (UINT64_MAX >> DOMYBS_BLOCK_SHIFT)) {
    *ret_why = "the window must be a power of two of at least 2 GiB";
    return false;
  }
  if (options->max_blocks > options->window_blocks) {
    *ret_why = "the local capacity is larger than the window";
    return false;
  }
  if (options->have_target && options->target_blocks > options->max_blocks) {
    *ret_why = "the target is larger than the local capacity";
    return false;
  }
  if (!regions_init (&device->regions, options->window_blocks, SECTION_BLOCKS_DEFAULT)) {
    *ret_why = "not enough memory for the block table";
    return false;
  }
  device->options = *options;
  device->generation = 1;
  device->answered = -1;
  for (unsigned i = 0; i < DEVICE_FAR_TIERS; i++)
    device->levels[i].known = true; /* there is no session, and so no level */
  return true;
}

void
memory_device_clear (struct memory_device *device) {
  regions_clear (&device->regions);
}

/* FNV-1a, 64 bit: tells repetitions from other requests of the same id. A guest that makes them collide cheats only itself. */
static uint64_t
digest_of (const uint8_t *bytes, size_t n) {
  uint64_t hash = 14695981039346656037ull;

  for (size_t i = 0; i < n; i++)
    hash = (hash ^ bytes[i]) * 1099511628211ull;
  return hash;
}

static void
make_answer (struct memory_device *device, struct device_plan *plan, enum domybs_status status) {
  struct device_response response = {
    .status = status,
    .session = device->session,
    .id = plan->request.id,
    .granted = device->regions.granted,
    .retry_ms = status == DOMYBS_BUSY ? RETRY_MS : 0,
    .generation = device->generation,
  };

  if (status == DOMYBS_OK && (plan->step == DEVICE_STEP_GRANT || plan->step == DEVICE_STEP_RELEASE))
    response.blocks = plan->blocks;
  if ((status == DOMYBS_OK || status == DOMYBS_NO_HOST_CAPACITY) && plan->step == DEVICE_STEP_RESERVE)
    response.blocks = plan->blocks;
  if (status == DOMYBS_OK && plan->step == DEVICE_STEP_GRANT) {
    response.n_runs = plan->n_runs;
    memcpy (response.runs, plan->runs, plan->n_runs * sizeof plan->runs[0]);
  }
  plan->answer_bytes = device_response_encode (&response, plan->answer);
}

/* Notes what happened to the block table, for who saves it. */
static void
note_change (struct memory_device *device, enum device_change_kind kind, const struct device_plan *plan) {
  struct device_change *change = &device->change;

  change->kind = kind;
  change->n_runs = plan->n_runs;
  memcpy (change->runs, plan->runs, plan->n_runs * sizeof plan->runs[0]);
}

/* Remembers the answer for replay: every request of a session that has an id and was not itself a repetition. */
static void
remember (struct memory_device *device, const struct device_plan *plan) {
  struct memory_device_answer *answer = &device->answers[plan->request.id % DOMYBS_REPLAY_DEPTH];

  device->answered = (int)(plan->request.id % DOMYBS_REPLAY_DEPTH);
  answer->id = device->last_id = plan->request.id;
  answer->digest = plan->digest;
  answer->bytes = (uint32_t)plan->answer_bytes;
  memcpy (answer->response, plan->answer, plan->answer_bytes);
}

/* A refusal for the guest's own mistake: to be logged. It takes no id, a corrected request may use it. */
static void
refuse (struct memory_device *device, struct device_plan *plan, enum domybs_status status, const char *why) {
  plan->step = DEVICE_STEP_ANSWER;
  plan->refused_why = why;
  device->counters.refused++;
  make_answer (device, plan, status);
}

/* An answer without anything for the host to do. */
static void
answer_now (struct memory_device *device, struct device_plan *plan, enum domybs_status status) {
  plan->step = DEVICE_STEP_ANSWER;
  make_answer (device, plan, status);
  remember (device, plan);
}

const char *
device_shortage_name (enum device_shortage shortage) {
  static const char *const names[] = {
    [DEVICE_SHORTAGE_CAPACITY] = "capacity",
    [DEVICE_SHORTAGE_AREA] = "area",
    [DEVICE_SHORTAGE_RUNS] = "runs",
    [DEVICE_SHORTAGE_TIER] = "tier",
    [DEVICE_SHORTAGE_HOST_LIMIT] = "host-limit",
    [DEVICE_SHORTAGE_HOST_MEMORY] = "host-memory",
    [DEVICE_SHORTAGE_HOST_BUSY] = "host-busy",
    [DEVICE_SHORTAGE_POPULATE] = "populate",
  };

  return (unsigned)shortage < sizeof names / sizeof names[0] ? names[shortage] : NULL;
}

/* A GRANT was carried out: remembers why it got less than it asked for, if it did. */
static void
judge_grant (struct memory_device *device, const struct device_plan *plan) {
  const bool is_short = plan->blocks < plan->request.grant.blocks;

  device->shortage = is_short ? plan->shortage : DEVICE_SHORTAGE_NONE;
  device->counters.short_grants += is_short;
}

/* A GRANT that the VM's own limits leave nothing of. */
static void
grant_nothing (struct memory_device *device, struct device_plan *plan, enum domybs_status status,
               enum device_shortage shortage) {
  plan->blocks = 0;
  plan->n_runs = 0;
  plan->shortage = shortage;
  judge_grant (device, plan);
  answer_now (device, plan, status);
}

/* Ungranted blocks where a GRANT may look for them. */
static uint64_t
free_blocks (const struct regions *regions, const struct device_request *request) {
  const uint64_t start = request->grant.area_start, count = request->grant.area_blocks;
  uint64_t usable;

  if (count == 0)
    return regions->usable_blocks - regions->granted;
  usable = start < regions->usable_blocks ? regions->usable_blocks - start : 0;
  return (count < usable ? count : usable) - regions_count (regions, start, count);
}

/* What the plan of a GRANT ran into. wanted: what the VM's capacity has left of what was asked for. */
static enum device_shortage
shortage_of (const struct memory_device *device, const struct device_plan *plan, uint64_t wanted, unsigned max_runs) {
  const struct device_request *request = &plan->request;
  const bool whole = request->grant.flags & DOMYBS_GRANT_F_SECTION;

  if (plan->blocks == request->grant.blocks)
    return DEVICE_SHORTAGE_NONE;
  if (wanted < request->grant.blocks && plan->blocks == (whole ? wanted - wanted % device->regions.region_blocks : wanted))
    return DEVICE_SHORTAGE_CAPACITY;
  if (device->regions.granted + plan->blocks == device->regions.usable_blocks)
    return DEVICE_SHORTAGE_CAPACITY;
  if (plan->n_runs == max_runs && (whole || plan->blocks < free_blocks (&device->regions, request)))
    return DEVICE_SHORTAGE_RUNS;
  return DEVICE_SHORTAGE_AREA;
}

static void
plan_grant (struct memory_device *device, struct device_plan *plan, size_t answer_cap) {
  const struct device_request *request = &plan->request;
  const bool all = request->grant.flags & DOMYBS_GRANT_F_ALL;
  const unsigned room_for_runs = (unsigned)((answer_cap - sizeof (struct domybs_response)) / sizeof (struct domybs_run));
  const unsigned max_runs = room_for_runs < DOMYBS_RUNS_MAX ? room_for_runs : DOMYBS_RUNS_MAX;
  const uint64_t left = device->options.max_blocks > device->regions.granted ? device->options.max_blocks - device->regions.granted : 0;
  uint64_t wanted = request->grant.blocks;

  if (max_runs == 0) {
    refuse (device, plan, DOMYBS_BAD_REQUEST, "no room for a run in the answer's buffer");
    return;
  }
  if (request->grant.hint == DOMYBS_HINT_SHARED || request->grant.hint == DOMYBS_HINT_REMOTE) {
    grant_nothing (device, plan, DOMYBS_NO_TIER, DEVICE_SHORTAGE_TIER);
    return;
  }
  if (wanted > left && all) {
    grant_nothing (device, plan, DOMYBS_NO_VM_CAPACITY, DEVICE_SHORTAGE_CAPACITY);
    return;
  }
  if (wanted > left)
    wanted = left;
  plan->blocks = regions_choose (&device->regions, wanted, request->grant.area_start, request->grant.area_blocks,
                                 request->grant.flags & DOMYBS_GRANT_F_SECTION ? REGIONS_WHOLE : 0, plan->runs, max_runs,
                                 &plan->n_runs);
  plan->shortage = shortage_of (device, plan, wanted, max_runs);
  if (plan->blocks == 0 || (all && plan->blocks < request->grant.blocks)) {
    grant_nothing (device, plan, DOMYBS_NO_VM_CAPACITY, plan->shortage);
    return;
  }
  plan->step = DEVICE_STEP_GRANT;
}

/* Takes the runs out of the books at once, all or none: a run that occurs twice fails the second time. */
static void
plan_release (struct memory_device *device, struct device_plan *plan) {
  const struct device_request *request = &plan->request;

  for (unsigned i = 0; i < request->release.n_runs; i++) {
    const struct block_run *run = &request->release.runs[i];

    if (!regions_give (&device->regions, run->start, run->count)) {
      while (i-- > 0)
        regions_take (&device->regions, request->release.runs[i].start, request->release.runs[i].count);
      refuse (device, plan, DOMYBS_BAD_REQUEST, "a run is not wholly granted");
      return;
    }
  }
  plan->step = DEVICE_STEP_RELEASE;
  plan->n_runs = request->release.n_runs;
  plan->blocks = request->release.blocks;
  memcpy (plan->runs, request->release.runs, plan->n_runs * sizeof plan->runs[0]);
}

static void
take_stats (struct memory_device *device, const struct device_request *request) {
  for (unsigned i = 0; i < request->stats.n; i++) {
    const uint32_t tag = request->stats.stats[i].tag;

    if (tag >= sizeof device->stats / sizeof device->stats[0])
      continue; /* of a newer driver */
    device->stats[tag] = request->stats.stats[i].value;
    device->stats_known |= 1u << tag;
  }
}

static void
plan_hello (struct memory_device *device, struct device_plan *plan, bool busy) {
  const struct device_request *request = &plan->request;

  if (device->options.window_blocks / request->hello.section_blocks < 2) {
    refuse (device, plan, DOMYBS_BAD_REQUEST, "the window is smaller than two sections of this guest");
    return;
  }
  if (device->session && device->nonce == request->hello.nonce) {
    plan->step = DEVICE_STEP_ANSWER;
    device->counters.replayed++;
    make_answer (device, plan, DOMYBS_OK);
    return;
  }
  if (busy) {
    plan->step = DEVICE_STEP_ANSWER;
    make_answer (device, plan, DOMYBS_BUSY);
    return;
  }
  plan->step = DEVICE_STEP_NEW_SESSION;
}

static void
plan_request (struct memory_device *device, const uint8_t *bytes, size_t n, size_t answer_cap, bool busy,
              struct device_plan *plan) {
  struct device_request *request = &plan->request;
  const char *why;

  plan->refused_why = NULL;
  plan->n_runs = 0;
  plan->blocks = 0;
  plan->shortage = DEVICE_SHORTAGE_NONE;
  plan->answer_bytes = 0;
  plan->step = DEVICE_STEP_ANSWER;
  device->counters.requests++;
  why = device_request_decode (bytes, n, device->options.window_blocks, request);
  if (why) {
    refuse (device, plan, DOMYBS_BAD_REQUEST, why);
    return;
  }
  plan->digest = digest_of (bytes, n);
  if (request->type == DOMYBS_REQ_HELLO) {
    plan_hello (device, plan, busy);
    return;
  }
  if (device->session == 0 || request->session != device->session) {
    refuse (device, plan, DOMYBS_BAD_SESSION, "not the current session");
    return;
  }
  if (request->id <= device->last_id) {
    const struct memory_device_answer *answer = &device->answers[request->id % DOMYBS_REPLAY_DEPTH];

    if (device->last_id - request->id >= DOMYBS_REPLAY_DEPTH) {
      refuse (device, plan, DOMYBS_STALE, "an id from long ago");
    } else if (answer->digest != plan->digest || answer->bytes > answer_cap) {
      refuse (device, plan, DOMYBS_BAD_REQUEST, "a used id with another request");
    } else {
      device->counters.replayed++;
      memcpy (plan->answer, answer->response, answer->bytes);
      plan->answer_bytes = answer->bytes;
    }
    return;
  }
  if (request->id != device->last_id + 1) {
    refuse (device, plan, DOMYBS_BAD_REQUEST, "an id that is not the next one");
    return;
  }
  if (busy) {
    device->offer_wanted = device->offer_wanted || request->type == DOMYBS_REQ_GRANT;
    answer_now (device, plan, DOMYBS_BUSY);
    return;
  }

  switch (request->type) {
  case DOMYBS_REQ_GRANT:
    plan_grant (device, plan, answer_cap);
    break;
  case DOMYBS_REQ_RELEASE:
    plan_release (device, plan);
    break;
  case DOMYBS_REQ_STATS:
    take_stats (device, request);
    answer_now (device, plan, DOMYBS_OK);
    break;
  case DOMYBS_REQ_RESERVE:
    plan->step = DEVICE_STEP_RESERVE;
    break;
  default: /* BYE: the codec lets nothing else through */
    plan->step = DEVICE_STEP_END;
    break;
  }
}

void
memory_device_plan (struct memory_device *device, const uint8_t *bytes, size_t n, size_t answer_cap, struct device_plan *plan) {
  plan_request (device, bytes, n, answer_cap, false, plan);
}

void
memory_device_plan_busy (struct memory_device *device, const uint8_t *bytes, size_t n, size_t answer_cap,
                         struct device_plan *plan) {
  plan_request (device, bytes, n, answer_cap, true, plan);
}

/* Cuts the plan's runs to `blocks` in all. */
static void
trim (struct device_plan *plan, uint64_t blocks) {
  uint64_t kept = 0;

  if (blocks >= plan->blocks)
    return;
  for (unsigned i = 0; i < plan->n_runs; i++) {
    if (plan->runs[i].count > blocks - kept)
      plan->runs[i].count = blocks - kept;
    kept += plan->runs[i].count;
    if (plan->runs[i].count == 0) {
      plan->n_runs = i;
      break;
    }
  }
  plan->blocks = blocks;
}

static enum domybs_status
finish_grant (struct memory_device *device, struct device_plan *plan, enum device_outcome outcome, uint64_t blocks) {
  const uint32_t flags = plan->request.grant.flags;

  if (outcome == DEVICE_DONE && blocks < plan->blocks) {
    if (flags & DOMYBS_GRANT_F_SECTION)
      blocks -= blocks % device->regions.region_blocks;
    if (flags & DOMYBS_GRANT_F_ALL)
      blocks = 0;
    if (blocks == 0)
      outcome = DEVICE_NO_HOST_CAPACITY;
  }
  if (outcome != DEVICE_DONE) {
    plan->blocks = 0;
    plan->n_runs = 0;
    device->offer_wanted = device->offer_wanted || outcome != DEVICE_FAILED;
    return outcome == DEVICE_NO_HOST_CAPACITY ? DOMYBS_NO_HOST_CAPACITY : outcome == DEVICE_RETRY ? DOMYBS_BUSY : DOMYBS_FAILED;
  }
  trim (plan, blocks);
  for (unsigned i = 0; i < plan->n_runs; i++)
    regions_take (&device->regions, plan->runs[i].start, plan->runs[i].count);
  note_change (device, DEVICE_CHANGE_TAKE, plan);
  device->counters.blocks_granted += plan->blocks;
  return DOMYBS_OK;
}

static enum domybs_status
finish_release (struct memory_device *device, struct device_plan *plan, enum device_outcome outcome) {
  if (outcome != DEVICE_DONE) {
    memory_device_drop (device, plan);
    return outcome == DEVICE_RETRY ? DOMYBS_BUSY : DOMYBS_FAILED;
  }
  note_change (device, DEVICE_CHANGE_GIVE, plan);
  device->counters.blocks_released += plan->blocks;
  return DOMYBS_OK;
}

static enum domybs_status
finish_reserve (struct memory_device *device, struct device_plan *plan, enum device_outcome outcome, uint64_t blocks) {
  const uint64_t level = plan->request.reserve.blocks;

  device->far_offer_wanted = device->far_offer_wanted || outcome == DEVICE_NO_HOST_CAPACITY || outcome == DEVICE_RETRY;
  if (outcome == DEVICE_NO_TIER)
    return DOMYBS_NO_TIER;
  if (outcome != DEVICE_DONE && outcome != DEVICE_NO_HOST_CAPACITY)
    return outcome == DEVICE_RETRY ? DOMYBS_BUSY : DOMYBS_FAILED;
  device->levels[device_far_tier (plan->request.reserve.tier)] = (struct device_level){ true, level };
  plan->blocks = blocks < level ? blocks : level;
  return outcome == DEVICE_DONE ? DOMYBS_OK : DOMYBS_NO_HOST_CAPACITY;
}

/* The most that this guest can have: the last section of the window is never granted, so its size counts. */
static uint64_t
limit (const struct memory_device *device) {
  return device->options.max_blocks < device->regions.usable_blocks ? device->options.max_blocks : device->regions.usable_blocks;
}

static void
forget_session (struct memory_device *device) {
  device->session = 0;
  device->nonce = 0;
  device->last_id = 0;
  device->offer_wanted = false;
  device->far_offer_wanted = false;
  device->shortage = DEVICE_SHORTAGE_NONE;
  device->stats_known = 0;
  for (unsigned i = 0; i < DEVICE_FAR_TIERS; i++)
    device->levels[i] = (struct device_level){ .known = true };
}

void
memory_device_finish (struct memory_device *device, struct device_plan *plan, enum device_outcome outcome, uint64_t blocks,
                      uint64_t new_session) {
  enum domybs_status status = outcome == DEVICE_DONE ? DOMYBS_OK : outcome == DEVICE_RETRY ? DOMYBS_BUSY : DOMYBS_FAILED;
  const uint64_t limit_before = limit (device);

  switch (plan->step) {
  case DEVICE_STEP_ANSWER:
    return;
  case DEVICE_STEP_NEW_SESSION:
    /* The old grants are void in any case: their window is gone by now. */
    memory_device_reset (device);
    if (outcome == DEVICE_DONE && !regions_reset (&device->regions, plan->request.hello.section_blocks))
      status = DOMYBS_FAILED;
    if (limit (device) != limit_before)
      device->generation++; /* max_blocks in config space is another */
    if (status == DOMYBS_OK) {
      device->session = new_session;
      device->nonce = plan->request.hello.nonce;
      memcpy (device->driver, plan->request.hello.driver, sizeof device->driver);
      device->counters.sessions++;
    }
    make_answer (device, plan, status); /* id 0: not remembered; the nonce makes it repeatable */
    return;
  case DEVICE_STEP_GRANT:
    status = finish_grant (device, plan, outcome, blocks);
    judge_grant (device, plan);
    break;
  case DEVICE_STEP_RELEASE:
    status = finish_release (device, plan, outcome);
    break;
  case DEVICE_STEP_END:
    if (status == DOMYBS_OK) {
      device->counters.blocks_released += device->regions.granted;
      memory_device_reset (device);
      make_answer (device, plan, status);
      return;
    }
    break;
  case DEVICE_STEP_RESERVE:
    status = finish_reserve (device, plan, outcome, blocks);
    break;
  }
  make_answer (device, plan, status);
  remember (device, plan);
}

void
memory_device_drop (struct memory_device *device, struct device_plan *plan) {
  if (plan->step == DEVICE_STEP_RELEASE)
    for (unsigned i = 0; i < plan->n_runs; i++)
      regions_take (&device->regions, plan->runs[i].start, plan->runs[i].count);
  plan->blocks = 0;
  plan->n_runs = 0;
}

void
memory_device_reset (struct memory_device *device) {
  forget_session (device);
  regions_reset (&device->regions, device->regions.region_blocks);
  device->change.kind = DEVICE_CHANGE_CLEAR;
  device->change.n_runs = 0;
  device->answered = -1; /* of a session that is over */
}

bool
memory_device_set_target (struct memory_device *device, bool have_target, uint64_t target_blocks) {
  if (target_blocks > device->options.max_blocks)
    target_blocks = device->options.max_blocks;
  if (!have_target)
    target_blocks = 0;
  if (device->options.have_target == have_target && device->options.target_blocks == target_blocks)
    return false;
  device->options.have_target = have_target;
  device->options.target_blocks = target_blocks;
  device->generation++;
  return true;
}

void
memory_device_config (const struct memory_device *device, struct domybs_config *ret_config) {
  const struct memory_device_options *options = &device->options;
  const uint64_t max = limit (device);
  const uint64_t target = options->target_blocks < max ? options->target_blocks : max;

  memset (ret_config, 0, sizeof *ret_config);
  ret_config->magic = htole32 (DOMYBS_MAGIC);
  ret_config->abi_version = htole16 (DOMYBS_ABI_VERSION);
  ret_config->flags = htole16 ((uint16_t)((options->have_target ? DOMYBS_CONFIG_F_TARGET : 0)
                                          | (options->have_numa_pxm ? DOMYBS_CONFIG_F_NUMA_NODE : 0)));
  ret_config->block_bytes = htole32 ((uint32_t)DOMYBS_BLOCK_BYTES);
  ret_config->grow_min_blocks = htole32 (options->grow_min_blocks);
  ret_config->window_blocks = htole64 (options->window_blocks);
  ret_config->max_blocks = htole64 (max);
  ret_config->target_blocks = htole64 (options->have_target ? target : 0);
  ret_config->generation = htole32 (device->generation);
  ret_config->numa_pxm = htole32 (options->have_numa_pxm ? options->numa_pxm : 0);
}
