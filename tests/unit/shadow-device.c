/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "shadow-device.h"

#include <endian.h>
#include <glib.h>
#include <string.h>

#define MUST_FINISH (-1) /* the answer depends on the host */

/* A request as the shadow reads it. */
struct read_request {
  struct domybs_request head;
  struct domybs_hello hello;
  struct domybs_grant grant;
  struct domybs_run runs[DOMYBS_RUNS_MAX];
  struct domybs_reserve reserve;
};

/* ---- books ---- */

static uint64_t
usable_blocks (const struct shadow_device *shadow) {
  return (shadow->window_blocks / shadow->section_blocks - 1) * shadow->section_blocks;
}

static bool
run_is (const struct shadow_device *shadow, uint64_t start, uint64_t count, bool granted) {
  for (uint64_t b = start; b < start + count; b++)
    if (b >= usable_blocks (shadow) || shadow->granted[b] != granted)
      return false;
  return true;
}

static void
set_run (struct shadow_device *shadow, uint64_t start, uint64_t count, bool granted) {
  g_assert_true (run_is (shadow, start, count, !granted));
  memset (shadow->granted + start, granted, count);
  shadow->n_granted = granted ? shadow->n_granted + count : shadow->n_granted - count;
}

static void
forget (struct shadow_device *shadow) {
  memset (shadow->granted, 0, shadow->window_blocks);
  shadow->n_granted = 0;
  shadow->session = shadow->nonce = shadow->last_id = 0;
  shadow->offer_wanted = shadow->far_offer_wanted = false;
  shadow->levels[0] = shadow->levels[1] = 0;
}

/* The device's books are the shadow's. */
static void
check_books (const struct shadow_device *shadow) {
  const struct memory_device *device = &shadow->device;
  uint64_t cursor = 0, expected = 0;
  struct block_run run;
  struct domybs_config config;

  g_assert_cmpuint (shadow->n_granted, <=, shadow->max_blocks);
  g_assert_cmpuint (device->regions.granted, ==, shadow->n_granted);
  g_assert_cmpuint (device->regions.usable_blocks, ==, usable_blocks (shadow));
  while (regions_next_run (&device->regions, true, &cursor, &run)) {
    for (; expected < run.start; expected++)
      g_assert_false (shadow->granted[expected]);
    for (; expected < run.start + run.count; expected++)
      g_assert_true (shadow->granted[expected]);
  }
  for (; expected < shadow->window_blocks; expected++)
    g_assert_false (shadow->granted[expected]);
  g_assert_cmpuint (device->session, ==, shadow->session);
  g_assert_cmpuint (device->last_id, ==, shadow->last_id);
  g_assert_cmpint (device->offer_wanted, ==, shadow->offer_wanted);
  g_assert_cmpint (device->far_offer_wanted, ==, shadow->far_offer_wanted);
  for (unsigned i = 0; i < 2; i++) {
    g_assert_true (device->levels[i].known);
    g_assert_cmpuint (device->levels[i].blocks, ==, shadow->levels[i]);
  }
  g_assert_cmpuint (device->counters.requests, ==, shadow->requests);
  memory_device_config (device, &config);
  g_assert_cmpuint (le64toh (config.max_blocks), ==, MIN (shadow->max_blocks, usable_blocks (shadow)));
  g_assert_cmpuint (le64toh (config.target_blocks), <=, le64toh (config.max_blocks));
}

void
shadow_init (struct shadow_device *shadow, const struct memory_device_options *options) {
  const char *why = NULL;

  memset (shadow, 0, sizeof *shadow);
  if (!memory_device_init (&shadow->device, options, &why))
    g_error ("%s", why);
  shadow->window_blocks = options->window_blocks;
  shadow->max_blocks = options->max_blocks;
  shadow->section_blocks = 64; /* Linux' smallest, until a driver says what it has */
  shadow->granted = g_malloc0 (options->window_blocks);
  check_books (shadow);
}

void
shadow_clear (struct shadow_device *shadow) {
  memory_device_clear (&shadow->device);
  g_free (shadow->granted);
}

void
shadow_reset (struct shadow_device *shadow) {
  memory_device_reset (&shadow->device);
  forget (shadow);
  check_books (shadow);
}

/* ---- the rules ---- */

static bool
hello_is_good (const struct shadow_device *shadow, const struct read_request *request) {
  const uint32_t section = le32toh (request->hello.section_blocks);
  const size_t length = strnlen ((const char *)request->hello.driver, 32);

  if (request->head.session || request->head.id || le32toh (request->hello.abi_version) != 1 || request->hello.nonce == 0)
    return false;
  for (size_t i = 0; i < 32; i++)
    if (i < length ? !g_ascii_isprint ((char)request->hello.driver[i]) : request->hello.driver[i] != 0)
      return false;
  for (uint32_t power = 1; power <= 1024; power *= 2)
    if (section == power)
      return shadow->window_blocks >= 2 * section;
  return false;
}

static bool
run_in_window (const struct shadow_device *shadow, uint64_t start, uint64_t count) {
  return count >= 1 && start < shadow->window_blocks && count <= shadow->window_blocks && start + count <= shadow->window_blocks;
}

static bool
grant_is_good (const struct shadow_device *shadow, const struct domybs_grant *grant) {
  const uint64_t blocks = le64toh (grant->blocks), start = le64toh (grant->area_start), area = le64toh (grant->area_blocks);

  if (le32toh (grant->hint) > 3 || le32toh (grant->flags) > 3 || blocks < 1 || blocks > shadow->window_blocks)
    return false;
  return area ? run_in_window (shadow, start, area) : start == 0;
}

/* Reads a request; false if it is not one. */
static bool
read_request (const struct shadow_device *shadow, const uint8_t *bytes, size_t n, struct read_request *ret) {
  const size_t head = sizeof ret->head, body = n - head;
  uint32_t count;

  memset (ret, 0, sizeof *ret);
  if (n < head)
    return false;
  memcpy (&ret->head, bytes, head);
  count = le32toh (ret->head.count);
  if (n > DOMYBS_REQUEST_BYTES_MAX || ret->head.flags)
    return false;
  switch (le16toh (ret->head.type)) {
  case DOMYBS_REQ_HELLO:
    if (count != 1 || body != 48)
      return false;
    memcpy (&ret->hello, bytes + head, 48);
    return hello_is_good (shadow, ret);
  case DOMYBS_REQ_GRANT:
    if (ret->head.id == 0 || count != 1 || body != 32)
      return false;
    memcpy (&ret->grant, bytes + head, 32);
    return grant_is_good (shadow, &ret->grant);
  case DOMYBS_REQ_RELEASE:
    if (ret->head.id == 0 || count < 1 || count > DOMYBS_RUNS_MAX || body != (size_t)count * 16)
      return false;
    memcpy (ret->runs, bytes + head, body);
    for (uint32_t i = 0; i < count; i++)
      if (!run_in_window (shadow, le64toh (ret->runs[i].start), le64toh (ret->runs[i].count)))
        return false;
    return true;
  case DOMYBS_REQ_STATS:
    return ret->head.id != 0 && count <= DOMYBS_STATS_MAX && body == (size_t)count * 16;
  case DOMYBS_REQ_BYE:
    return ret->head.id != 0 && count == 0 && body == 0;
  case DOMYBS_REQ_RESERVE:
    if (ret->head.id == 0 || count != 1 || body != 16)
      return false;
    memcpy (&ret->reserve, bytes + head, 16);
    return (le32toh (ret->reserve.tier) == 2 || le32toh (ret->reserve.tier) == 3) && ret->reserve.flags == 0
           && le64toh (ret->reserve.blocks) <= 16ull << 19; /* 16 TiB */
  default:
    return false;
  }
}

/* What of the window a GRANT could get: blocks, and pieces of them cut at section borders. */
static void
supply (const struct shadow_device *shadow, const struct domybs_grant *grant, uint64_t *ret_blocks, uint64_t *ret_pieces) {
  const uint64_t size = shadow->section_blocks, area = le64toh (grant->area_blocks);
  const uint64_t first = le64toh (grant->area_start), end = area ? first + area : shadow->window_blocks;

  *ret_blocks = *ret_pieces = 0;
  for (uint64_t section = 0; section < usable_blocks (shadow); section += size) {
    bool in_piece = false;

    if (le32toh (grant->flags) & DOMYBS_GRANT_F_SECTION) {
      if (section >= first && section + size <= end && run_is (shadow, section, size, false)) {
        *ret_blocks += size;
        *ret_pieces += 1;
      }
      continue;
    }
    for (uint64_t b = MAX (section, first); b < MIN (section + size, end); b++) {
      const bool is_free = !shadow->granted[b];

      *ret_blocks += is_free;
      *ret_pieces += is_free && !in_piece;
      in_piece = is_free;
    }
  }
}

/* The answer to a new GRANT before the host is asked: a status, or MUST_FINISH with a plan that keeps the rules. */
static int
judge_grant (const struct shadow_device *shadow, const struct domybs_grant *grant, size_t cap, const struct device_plan *plan) {
  const uint64_t left = shadow->max_blocks - shadow->n_granted, asked = le64toh (grant->blocks);
  const uint64_t start = le64toh (grant->area_start), area = le64toh (grant->area_blocks);
  const uint64_t max_runs = MIN ((cap - sizeof (struct domybs_response)) / sizeof (struct domybs_run), DOMYBS_RUNS_MAX);
  const bool all = le32toh (grant->flags) & DOMYBS_GRANT_F_ALL, sections = le32toh (grant->flags) & DOMYBS_GRANT_F_SECTION;
  g_autofree uint8_t *seen = g_malloc0 (shadow->window_blocks);
  uint64_t available, pieces, sum = 0;

  if (max_runs == 0)
    return DOMYBS_BAD_REQUEST;
  if (le32toh (grant->hint) == DOMYBS_HINT_SHARED || le32toh (grant->hint) == DOMYBS_HINT_REMOTE)
    return DOMYBS_NO_TIER;
  supply (shadow, grant, &available, &pieces);
  available = MIN (available, MIN (asked, left));
  if (sections)
    available -= available % shadow->section_blocks;
  if (available == 0 || (all && available < asked))
    return DOMYBS_NO_VM_CAPACITY;
  if (plan->step == DEVICE_STEP_ANSWER) {
    /* enough is there, so only the number of runs can be in the way of it, and only where all is asked for */
    g_assert_true (all && pieces > max_runs);
    return DOMYBS_NO_VM_CAPACITY;
  }
  g_assert_cmpint (plan->step, ==, DEVICE_STEP_GRANT);
  g_assert_cmpuint (plan->n_runs, >=, 1);
  g_assert_cmpuint (plan->n_runs, <=, max_runs);
  for (unsigned i = 0; i < plan->n_runs; i++) {
    const struct block_run *run = &plan->runs[i];

    g_assert_true (run->count >= 1 && run_in_window (shadow, run->start, run->count));
    g_assert_true (run_is (shadow, run->start, run->count, false));
    if (area)
      g_assert_true (run->start >= start && run->start + run->count <= start + area);
    if (sections)
      g_assert_true (run->start % shadow->section_blocks == 0 && run->count % shadow->section_blocks == 0);
    for (uint64_t b = run->start; b < run->start + run->count; b++)
      g_assert_false (seen[b]++);
    sum += run->count;
  }
  g_assert_cmpuint (plan->blocks, ==, sum);
  if (all)
    g_assert_cmpuint (sum, ==, asked);
  if (plan->n_runs < max_runs)
    g_assert_cmpuint (sum, ==, available);
  else
    g_assert_cmpuint (sum, <=, available);
  return MUST_FINISH;
}

/* The answer to a new RELEASE before the host is asked. Leaves the books as they are. */
static int
judge_release (struct shadow_device *shadow, const struct read_request *request) {
  const uint32_t count = le32toh (request->head.count);
  uint32_t done = 0;

  for (; done < count; done++) {
    if (!run_is (shadow, le64toh (request->runs[done].start), le64toh (request->runs[done].count), true))
      break;
    set_run (shadow, le64toh (request->runs[done].start), le64toh (request->runs[done].count), false);
  }
  for (uint32_t i = 0; i < done; i++)
    set_run (shadow, le64toh (request->runs[i].start), le64toh (request->runs[i].count), true);
  return done == count ? MUST_FINISH : DOMYBS_BAD_REQUEST;
}

/* The answer to a request before the host is asked; *ret_past when it is an old one again, *ret_takes_id when it uses its id up. */
static int
judge (struct shadow_device *shadow, const struct read_request *request, bool good, bool busy, const uint8_t *bytes, size_t n,
       size_t cap, const struct shadow_past **ret_past, bool *ret_takes_id) {
  const uint64_t id = le64toh (request->head.id);
  int status;

  *ret_past = NULL;
  *ret_takes_id = false;
  if (!good)
    return DOMYBS_BAD_REQUEST;
  if (le16toh (request->head.type) == DOMYBS_REQ_HELLO)
    return shadow->session && shadow->nonce == le64toh (request->hello.nonce) ? DOMYBS_OK : busy ? DOMYBS_BUSY : MUST_FINISH;
  if (shadow->session == 0 || le64toh (request->head.session) != shadow->session)
    return DOMYBS_BAD_SESSION;
  if (id <= shadow->last_id) {
    const struct shadow_past *past = &shadow->past[id % DOMYBS_REPLAY_DEPTH];

    if (id + DOMYBS_REPLAY_DEPTH <= shadow->last_id)
      return DOMYBS_STALE;
    g_assert_cmpuint (past->id, ==, id);
    if (past->request_bytes != n || memcmp (past->request, bytes, n) != 0 || past->answer_bytes > cap)
      return DOMYBS_BAD_REQUEST;
    *ret_past = past;
    return past->answer[0] | past->answer[1] << 8;
  }
  if (id != shadow->last_id + 1)
    return DOMYBS_BAD_REQUEST;
  if (busy) {
    shadow->offer_wanted = shadow->offer_wanted || le16toh (request->head.type) == DOMYBS_REQ_GRANT;
    *ret_takes_id = true;
    return DOMYBS_BUSY;
  }
  switch (le16toh (request->head.type)) {
  case DOMYBS_REQ_GRANT:
    status = judge_grant (shadow, &request->grant, cap, &shadow->plan);
    break;
  case DOMYBS_REQ_RELEASE:
    status = judge_release (shadow, request);
    break;
  case DOMYBS_REQ_STATS:
    status = DOMYBS_OK;
    break;
  default:
    status = MUST_FINISH;
    break;
  }
  *ret_takes_id = status != DOMYBS_BAD_REQUEST;
  return status;
}

/* ---- the host's turn ---- */

static int
status_of (enum device_outcome outcome) {
  return outcome == DEVICE_DONE ? DOMYBS_OK : outcome == DEVICE_RETRY ? DOMYBS_BUSY : DOMYBS_FAILED;
}

/* planned: the runs before the host had its say. */
static int
finish_grant (struct shadow_device *shadow, const struct read_request *request, const struct shadow_host *host,
              const struct device_plan *planned) {
  const struct device_plan *plan = &shadow->plan;
  const uint32_t flags = le32toh (request->grant.flags);
  uint64_t blocks = MIN (host->blocks, planned->blocks), kept = 0;

  if (host->outcome == DEVICE_DONE && blocks < planned->blocks) {
    if (flags & DOMYBS_GRANT_F_SECTION)
      blocks -= blocks % shadow->section_blocks;
    if (flags & DOMYBS_GRANT_F_ALL)
      blocks = 0;
  }
  if (host->outcome != DEVICE_DONE || blocks == 0) {
    g_assert_cmpuint (plan->blocks, ==, 0);
    g_assert_cmpuint (plan->n_runs, ==, 0);
    if (host->outcome == DEVICE_FAILED)
      return DOMYBS_FAILED;
    shadow->offer_wanted = true;
    return host->outcome == DEVICE_RETRY ? DOMYBS_BUSY : DOMYBS_NO_HOST_CAPACITY;
  }
  /* what was planned, from the first run on */
  g_assert_cmpuint (plan->blocks, ==, blocks);
  for (unsigned i = 0; i < plan->n_runs; i++) {
    g_assert_cmpuint (plan->runs[i].start, ==, planned->runs[i].start);
    g_assert_cmpuint (plan->runs[i].count, ==, MIN (planned->runs[i].count, blocks - kept));
    set_run (shadow, plan->runs[i].start, plan->runs[i].count, true);
    kept += plan->runs[i].count;
  }
  g_assert_cmpuint (kept, ==, blocks);
  return DOMYBS_OK;
}

static int
finish (struct shadow_device *shadow, const struct read_request *request, const struct shadow_host *host,
        const struct device_plan *planned, bool *ret_takes_id) {
  const int status = status_of (host->outcome);

  switch (le16toh (request->head.type)) {
  case DOMYBS_REQ_HELLO:
    g_assert_cmpint (planned->step, ==, DEVICE_STEP_NEW_SESSION);
    forget (shadow);
    if (status == DOMYBS_OK) {
      shadow->section_blocks = le32toh (request->hello.section_blocks);
      shadow->session = host->new_session;
      shadow->nonce = le64toh (request->hello.nonce);
    }
    return status;
  case DOMYBS_REQ_GRANT:
    return finish_grant (shadow, request, host, planned);
  case DOMYBS_REQ_RELEASE:
    g_assert_cmpint (planned->step, ==, DEVICE_STEP_RELEASE);
    g_assert_cmpuint (planned->n_runs, ==, le32toh (request->head.count));
    for (unsigned i = 0; i < planned->n_runs; i++) {
      g_assert_cmpuint (planned->runs[i].start, ==, le64toh (request->runs[i].start));
      g_assert_cmpuint (planned->runs[i].count, ==, le64toh (request->runs[i].count));
      if (status == DOMYBS_OK)
        set_run (shadow, planned->runs[i].start, planned->runs[i].count, false);
    }
    return status;
  case DOMYBS_REQ_RESERVE:
    g_assert_cmpint (planned->step, ==, DEVICE_STEP_RESERVE);
    if (host->outcome == DEVICE_NO_TIER)
      return DOMYBS_NO_TIER;
    if (host->outcome != DEVICE_DONE && host->outcome != DEVICE_FAILED)
      shadow->far_offer_wanted = true;
    if (host->outcome == DEVICE_DONE || host->outcome == DEVICE_NO_HOST_CAPACITY)
      shadow->levels[le32toh (request->reserve.tier) - 2] = le64toh (request->reserve.blocks);
    return host->outcome == DEVICE_NO_HOST_CAPACITY ? DOMYBS_NO_HOST_CAPACITY : status;
  default:
    g_assert_cmpint (planned->step, ==, DEVICE_STEP_END);
    if (status == DOMYBS_OK) {
      forget (shadow);
      *ret_takes_id = false; /* there is no session any more in which it could be used again */
    }
    return status;
  }
}

/* ---- the answer ---- */

static void
check_answer (const struct shadow_device *shadow, const struct read_request *request, int status, size_t cap,
              const struct shadow_host *host) {
  const struct device_plan *plan = &shadow->plan;
  const uint16_t type = le16toh (request->head.type);
  const bool changes = status == DOMYBS_OK && (type == DOMYBS_REQ_GRANT || type == DOMYBS_REQ_RELEASE);
  const unsigned n_runs = changes && type == DOMYBS_REQ_GRANT ? plan->n_runs : 0;
  const bool levels = type == DOMYBS_REQ_RESERVE && (status == DOMYBS_OK || status == DOMYBS_NO_HOST_CAPACITY);
  const uint64_t blocks = levels ? MIN (host->blocks, le64toh (request->reserve.blocks)) : changes ? plan->blocks : 0;
  struct domybs_response response;

  g_assert_cmpuint (plan->answer_bytes, ==, sizeof response + n_runs * sizeof (struct domybs_run));
  g_assert_cmpuint (plan->answer_bytes, <=, cap);
  memcpy (&response, plan->answer, sizeof response);
  g_assert_cmpint (le16toh (response.status), ==, status);
  g_assert_cmpuint (response.reserved, ==, 0);
  g_assert_cmpuint (le32toh (response.count), ==, n_runs);
  g_assert_cmpuint (le64toh (response.session), ==, shadow->session);
  g_assert_cmpuint (response.id, ==, request->head.id);
  g_assert_cmpuint (le64toh (response.blocks), ==, blocks);
  g_assert_cmpuint (le64toh (response.granted), ==, shadow->n_granted);
  g_assert_cmpint (le32toh (response.retry_ms) > 0, ==, status == DOMYBS_BUSY);
  g_assert_cmpuint (le32toh (response.generation), ==, shadow->device.generation);
  for (unsigned i = 0; i < n_runs; i++) {
    struct domybs_run run;

    memcpy (&run, plan->answer + sizeof response + i * sizeof run, sizeof run);
    g_assert_cmpuint (le64toh (run.start), ==, plan->runs[i].start);
    g_assert_cmpuint (le64toh (run.count), ==, plan->runs[i].count);
  }
}

int
shadow_request (struct shadow_device *shadow, const uint8_t *bytes, size_t n, size_t cap, const struct shadow_host *host) {
  struct device_plan *plan = &shadow->plan;
  g_autofree struct device_plan *planned = g_new (struct device_plan, 1);
  g_autofree struct read_request *request = g_new (struct read_request, 1);
  g_autofree uint8_t *copy = g_memdup2 (bytes, n); /* ends where its memory ends, for the sanitisers */
  const struct shadow_past *again;
  const bool good = read_request (shadow, bytes, n, request);
  bool takes_id;
  int status;

  (host->busy ? memory_device_plan_busy : memory_device_plan) (&shadow->device, copy, n, cap, plan);
  shadow->requests++;
  *planned = *plan;
  status = judge (shadow, request, good, host->busy, bytes, n, cap, &again, &takes_id);
  g_assert_cmpint (plan->step == DEVICE_STEP_ANSWER, ==, status != MUST_FINISH);
  g_assert_cmpint (plan->refused_why != NULL, ==,
                   status == DOMYBS_STALE || status == DOMYBS_BAD_SESSION || status == DOMYBS_BAD_REQUEST);
  if (again) {
    g_assert_cmpmem (plan->answer, plan->answer_bytes, again->answer, again->answer_bytes);
    check_books (shadow);
    return status;
  }
  if (host->drop) {
    memory_device_drop (&shadow->device, plan);
    if (status == MUST_FINISH) {
      check_books (shadow); /* it never happened */
      return -1;
    }
  } else {
    memory_device_finish (&shadow->device, plan, host->outcome, host->blocks, host->new_session);
  }
  if (status == MUST_FINISH)
    status = finish (shadow, request, host, planned, &takes_id);
  check_answer (shadow, request, status, cap, host);
  if (takes_id) {
    const uint64_t id = le64toh (request->head.id);
    struct shadow_past *past = &shadow->past[id % DOMYBS_REPLAY_DEPTH];

    shadow->last_id = past->id = id;
    past->request_bytes = n;
    memcpy (past->request, bytes, n);
    past->answer_bytes = plan->answer_bytes;
    memcpy (past->answer, plan->answer, plan->answer_bytes);
  }
  check_books (shadow);
  return status;
}
