/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A donor whose other borrower, with a key of his own, says anything: what the good borrower has stays as it is, and all
 * numbers add up.
 */
#include "fuzz-lease.h"

#include <glib.h>
#include <string.h>

#include "core/lease-donor.h"
#include "fuzz.h"

#define BLOCKS 12u
#define LEASES 6u

struct scene {
  uint64_t state[1024]; /* 4096 + 6 × 256 + 12 × 8 bytes, in pages */
  struct lease_donor *donor;
  struct lease_answer good, last;
  struct lease_export export; /* the bad one's, if he has one */
  uint64_t now;
};

static const struct lease_donor_geometry geometry = { BLOCKS, LEASES };
static const struct lease_donor_limits good_limits = { 2, 6 }, bad_limits = { 3, 4 };

static bool
fence (void *data, uint64_t lease, uint64_t below) {
  return true;
}

static void
open_table (struct scene *scene) {
  const struct lease_donor_ops ops = { .fence = fence };
  const char *why = NULL;

  scene->donor = lease_donor_open (scene->state, lease_donor_state_bytes (&geometry), &geometry, BLOCKS, 99, &ops, &why);
  if (!scene->donor)
    g_error ("what it has written it does not read: %s", why);
}

static struct lease_answer
good_asks (struct scene *scene, enum lease_verb verb, uint64_t blocks) {
  struct lease_request request
      = { .verb = verb, .vm = "good vm", .host = "host", .boot = "boot", .session = 3, .blocks = blocks, .seq = 1 };
  struct lease_answer answer;

  if (verb != LEASE_ATTACH) {
    request.lease = scene->good.lease;
    request.epoch = scene->good.epoch;
    memcpy (request.incarnation, scene->good.incarnation, LEASE_ID_BYTES);
  }
  lease_donor_step (scene->donor, scene->now, "good", &good_limits, &request, &answer);
  return answer;
}

static void
begin (struct scene *scene) {
  struct lease_export export;
  char name[LEASE_EXPORT_NAME_BYTES];
  uint64_t blocks, block;
  const char *why;
  bool fresh;

  g_assert_cmpuint (lease_donor_state_bytes (&geometry), <=, sizeof scene->state);
  memset (scene, 0, sizeof *scene);
  scene->now = 5;
  lease_donor_format (scene->state, &geometry, (const uint8_t *)"of this arena...");
  open_table (scene);
  scene->good = good_asks (scene, LEASE_ATTACH, 40);
  g_assert_cmpint (good_asks (scene, LEASE_GRANT, 5).verdict, ==, LEASE_OK);
  lease_export_name (scene->good.lease, scene->good.epoch, scene->good.incarnation, name);
  g_assert_true (lease_donor_export (scene->donor, "good", name, &export, &blocks, &why));
  for (uint64_t i = 0; i < 3; i++)
    g_assert_cmpint (lease_donor_take (scene->donor, &export, i * 7, &block, &fresh), ==, LEASE_TAKEN);
}

static void
ask (struct scene *scene, const char *identity, const struct lease_request *request) {
  struct lease_answer answer;
  uint8_t bytes[LEASE_ANSWER_BYTES];

  lease_donor_step (scene->donor, scene->now, identity, &bad_limits, request, &answer);
  lease_answer_encode (&answer, bytes);
  g_assert_true (lease_answer_decode (bytes, sizeof bytes, &answer));
  if (answer.lease) {
    g_assert_cmpuint (answer.lease, !=, scene->good.lease);
    g_assert_cmpuint (answer.level, <=, bad_limits.blocks);
    scene->last = answer;
  }
}

static void
ask_in_words (struct scene *scene, struct input *input) {
  struct lease_request request = { .verb = (enum lease_verb) (input_8 (input) % 6), .disk = 0 };
  const struct lease_answer *numbers;
  uint8_t flags;

  request.vm[0] = input_8 (input);
  request.host[0] = input_8 (input);
  request.boot[0] = input_8 (input);
  flags = input_8 (input);
  request.session = input_8 (input);
  request.blocks = input_8 (input);
  request.seq = input_8 (input);
  numbers = flags & FUZZ_LEASE_VICTIM ? &scene->good : &scene->last;
  if (flags & FUZZ_LEASE_VICTIM) {
    memcpy (request.vm, "good vm", 8);
    memcpy (request.host, "host", 5);
    memcpy (request.boot + 1, "oot", 4);
  }
  if (!(flags & FUZZ_LEASE_NO_LEASE)) {
    request.lease = numbers->lease;
    request.epoch = numbers->epoch - !!(flags & FUZZ_LEASE_OLD_EPOCH);
    memcpy (request.incarnation, numbers->incarnation, LEASE_ID_BYTES);
    request.incarnation[3] ^= flags & FUZZ_LEASE_OTHER_ARENA;
  }
  ask (scene, flags & FUZZ_LEASE_OTHER_KEY ? "worse" : "bad", &request);
}

static void
use (struct scene *scene, struct input *input) {
  const uint8_t block = input_8 (input), what = input_8 (input);
  char name[LEASE_EXPORT_NAME_BYTES];
  uint64_t blocks, arena_block;
  const char *why;
  bool fresh;

  lease_export_name (scene->last.lease, scene->last.epoch, scene->last.incarnation, name);
  if (what & 8)
    (void)(lease_donor_export (scene->donor, "bad", name, &scene->export, &blocks, &why));
  switch (what % 3) {
  case 0:
    if (lease_donor_take (scene->donor, &scene->export, block, &arena_block, &fresh) == LEASE_TAKE_ZERO)
      g_assert_true (lease_donor_zeroed (scene->donor, arena_block));
    break;
  case 1:
    (void)lease_donor_look (scene->donor, &scene->export, block, &arena_block);
    break;
  default:
    lease_donor_drop (scene->donor, &scene->export, block);
  }
}

static void
order (struct scene *scene, struct input *input) {
  const uint8_t lease = input_8 (input), level = input_8 (input);

  if (input_8 (input) % 2)
    lease_donor_set_limit (scene->donor, level);
  else if (lease != scene->good.lease)
    (void)lease_donor_revoke (scene->donor, lease, level, scene->now + level);
}

static void
act (struct scene *scene, struct input *input) {
  uint8_t bytes[LEASE_REQUEST_BYTES], again[LEASE_REQUEST_BYTES];
  struct lease_request request;
  struct lease_export export;
  uint64_t block, blocks;
  const char *why;

  switch (input_8 (input) % FUZZ_LEASE_ACTIONS) {
  case FUZZ_LEASE_ASK:
    ask_in_words (scene, input);
    break;
  case FUZZ_LEASE_RAW:
    input_bytes (input, bytes, sizeof bytes);
    if (!lease_request_decode (bytes, sizeof bytes, &request))
      break;
    lease_request_encode (&request, again);
    g_assert_cmpmem (again, sizeof again, bytes, sizeof bytes);
    ask (scene, "bad", &request);
    break;
  case FUZZ_LEASE_NAME:
    input_bytes (input, bytes, LEASE_EXPORT_NAME_BYTES - 1);
    bytes[LEASE_EXPORT_NAME_BYTES - 1] = '\0';
    if (lease_donor_export (scene->donor, "bad", (const char *)bytes, &export, &blocks, &why))
      g_assert_cmpuint (export.lease, !=, scene->good.lease);
    break;
  case FUZZ_LEASE_USE:
    use (scene, input);
    break;
  case FUZZ_LEASE_RESTART:
    lease_donor_close (scene->donor);
    open_table (scene);
    break;
  case FUZZ_LEASE_ZERO:
    if (lease_donor_next_dirty (scene->donor, &block))
      g_assert_true (lease_donor_zeroed (scene->donor, block));
    break;
  case FUZZ_LEASE_ORDER:
    order (scene, input);
    break;
  default:
    scene->now += input_8 (input) * 1000u;
    (void)lease_donor_pass_time (scene->donor, scene->now, 0);
  }
}

static void
check (struct scene *scene) {
  const struct lease_answer now = good_asks (scene, LEASE_KEEP, 0);
  struct lease_donor_figures figures;
  uint64_t used = 0;

  g_assert_cmpint (now.verdict, ==, LEASE_OK);
  g_assert_cmpuint (now.epoch, ==, scene->good.epoch);
  g_assert_cmpuint (now.level, ==, 5);
  g_assert_cmpuint (now.used, ==, 3);
  lease_donor_figures (scene->donor, &figures);
  g_assert_cmpuint (figures.promised, <=, BLOCKS);
  g_assert_cmpuint (figures.used + figures.dirty + figures.free, ==, BLOCKS);
  for (uint32_t slot = 0; slot < LEASES; slot++) {
    struct lease_info info;

    if (!lease_donor_lease (scene->donor, slot, &info))
      continue;
    g_assert_cmpuint (info.used, <=, info.level);
    used += info.used;
  }
  g_assert_cmpuint (used, ==, figures.used);
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size) {
  struct input input = { data, size };
  struct scene scene;

  begin (&scene);
  while (input.left) {
    act (&scene, &input);
    check (&scene);
  }
  lease_donor_close (scene.donor);
  return 0;
}
