/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Damaged images of a device's state: refused with a reason, and what is not refused does no harm. */
#include "requests.h"
#include "state-image.h"
#include "testing.h"

/* A session with three grants, in some part of its life. */
static struct image
some_image (struct memory_device *device) {
  struct image image = image_new ("test");
  struct device_plan plan;

  image_device_init (device);
  for (uint64_t id = 0; id <= 3; id++) {
    const struct request_bytes request = id == 0 ? request_hello (7, 64) : request_grant (99, id, 0, 0, 5, id * 100, 50);
    struct state_record *record;

    memory_device_plan (device, request.bytes, request.n, DOMYBS_RESPONSE_BYTES_MAX, &plan);
    memory_device_finish (device, &plan, DEVICE_DONE, UINT64_MAX, 99);
    record = image_begin (&image, device);
    record->scalars.session.n_regions = 1;
    record->scalars.session.regions[0] = (struct state_region){ .bytes = 1 << 20, .user_addr = 1 << 20, .slot = 20 };
    image_push (record, 0, plan.answer, plan.answer_bytes);
    image_commit (&image);
  }
  return image;
}

/* The next transaction is committed, and nothing of it is applied. */
static void
make_pending (struct image *image, struct memory_device *device) {
  const struct request_bytes request = request_release_one (99, 4, 100, 2);
  struct device_plan plan;

  memory_device_plan (device, request.bytes, request.n, DOMYBS_RESPONSE_BYTES_MAX, &plan);
  memory_device_finish (device, &plan, DEVICE_DONE, 0, 0);
  image_push (image_begin (image, device), 1, plan.answer, plan.answer_bytes);
  image->state.header->committed++;
}

/* ---- one wrong value at a time ---- */

enum part { HEADER, SCALARS, ANSWERS, RECORD, BITS };

static uint8_t *
part_of (const struct image *image, enum part part) {
  void *const parts[]
      = { image->state.header, image->state.scalars, image->state.answers, image->state.record, image->state.bits };

  return parts[part];
}

struct wrong {
  enum part part;
  size_t at, bytes;
  uint64_t value;
  const char *why; /* NULL: it is good all the same */
};

#define IN(part, type, field, value, why)                                                                                      \
  { part, offsetof (struct type, field), sizeof ((struct type *)0)->field, value, why }
#define LAST(bits)                                                                                                             \
  { BITS, (bits) / 8 & ~7u, 8, 1ull << (bits) % 64, "blocks are granted in it that can't be" }

static const char no_state[]
    = "it is no state of a memory device",
    too_new[] = "it was written by a newer version, for that and newer ones only",
    no_version[] = "its version is none that there was", other_size[] = "it is for a window of another size",
    parts[] = "its parts are not where they belong", order[] = "its transactions are not in order",
    target[] = "its target is larger than the window", reason[] = "it has a number for a reason that there is not",
    driver[] = "its driver's name is not a printable one", q_flags[] = "it has a queue with flags that there are not",
    q_size[] = "it has a queue of a size that can't be", q_fd[] = "it has a queue with descriptors that can't be",
    s_flags[] = "its session has flags that there are not", s_fd[] = "its session has a descriptor that can't be",
    s_regions[] = "its session has more memory regions than there can be",
    s_region[] = "its session has a memory region that can't be",
    s_region_fd[] = "its session has a memory region without a descriptor",
    window[] = "its window is in a slot that there is not", flags[] = "it has flags that there are not",
    blocks[] = "blocks are granted in it that can't be", answer[] = "it has an answer longer than any",
    answers[] = "its answers are not those of its session", sections[] = "it has a session, but no sections",
    no_session[] = "it has requests of no session", r_change[] = "its record changes blocks in a way that can't be",
    r_blocks[] = "its record changes blocks that can't be granted", r_long[] = "its record has an answer longer than any",
    r_answer[] = "its record has an answer to a request that can't be", r_message[] = "its record has a message that can't be";

static const struct wrong in_header[] = {
  IN (HEADER, state_header, magic, 5, no_state),
  IN (HEADER, state_header, oldest_reader, 3, too_new),
  IN (HEADER, state_header, oldest_reader, UINT32_MAX, too_new),
  IN (HEADER, state_header, version, 0, no_version),
  IN (HEADER, state_header, bytes, 0, parts),
  IN (HEADER, state_header, bytes, UINT64_MAX, parts),
  IN (HEADER, state_header, window_blocks, 2048, other_size),
  IN (HEADER, state_header, window_blocks, 0, other_size),
  IN (HEADER, state_header, scalars_at, 0, parts),
  IN (HEADER, state_header, scalars_bytes, UINT32_MAX, parts),
  IN (HEADER, state_header, answers_at, UINT32_MAX - 7, parts),
  IN (HEADER, state_header, answer_bytes, 0, parts),
  IN (HEADER, state_header, record_at, 1, parts),
  IN (HEADER, state_header, record_bytes, 8, parts),
  IN (HEADER, state_header, bits_at, 0xfffffff8, parts),
  IN (HEADER, state_header, bits_bytes, 1 << 20, parts),
};

static const struct wrong in_settled[] = {
  IN (HEADER, state_header, committed, 6, order),
  IN (HEADER, state_header, committed, 3, order),
  IN (HEADER, state_header, done, UINT64_MAX, order),
  IN (SCALARS, state_scalars, device.region_blocks, 0, sections),
  IN (SCALARS, state_scalars, device.region_blocks, 65, blocks),
  IN (SCALARS, state_scalars, device.region_blocks, 1024, blocks),
  IN (SCALARS, state_scalars, device.region_blocks, 0x80000000, blocks),
  IN (SCALARS, state_scalars, device.session, 0, no_session),
  IN (SCALARS, state_scalars, device.last_id, 4, answers),
  IN (SCALARS, state_scalars, device.last_id, UINT64_MAX, answers),
  IN (SCALARS, state_scalars, device.have_target, 2, target),
  IN (SCALARS, state_scalars, device.target_blocks, 1025, target),
  IN (SCALARS, state_scalars, device.shortage, DEVICE_SHORTAGE_POPULATE + 1, reason),
  IN (SCALARS, state_scalars, device.shortage, UINT32_MAX, reason),
  IN (SCALARS, state_scalars, device.offer_wanted, 2, reason),
  IN (SCALARS, state_scalars, device.driver[0], 7, driver),
  IN (SCALARS, state_scalars, device.driver[32], 'x', driver),
  IN (SCALARS, state_scalars, device.driver[39], 'x', driver),
  IN (SCALARS, state_scalars, session.map_open, 2, s_flags),
  IN (SCALARS, state_scalars, session.have_features, 2, s_flags),
  IN (SCALARS, state_scalars, session.have_protocol_features, 0xff, s_flags),
  IN (SCALARS, state_scalars, session.channel_slot, 64, s_fd),
  IN (SCALARS, state_scalars, session.n_regions, 9, s_regions),
  IN (SCALARS, state_scalars, session.n_regions, UINT32_MAX, s_regions),
  IN (SCALARS, state_scalars, session.n_regions, 2, s_region),
  IN (SCALARS, state_scalars, session.regions[0].bytes, UINT64_MAX, s_region),
  IN (SCALARS, state_scalars, session.regions[0].guest_addr, UINT64_MAX, s_region),
  IN (SCALARS, state_scalars, session.regions[0].user_addr, UINT64_MAX - 4096, s_region),
  IN (SCALARS, state_scalars, session.regions[0].offset, UINT64_MAX, s_region),
  IN (SCALARS, state_scalars, session.regions[0].slot, STATE_NONE, s_region_fd),
  IN (SCALARS, state_scalars, session.regions[0].slot, 64, s_region_fd),
  IN (SCALARS, state_scalars, session.queues[0].num, 2048, q_size),
  IN (SCALARS, state_scalars, session.queues[15].num, 3, q_size),
  IN (SCALARS, state_scalars, session.queues[1].started, 2, q_flags),
  IN (SCALARS, state_scalars, session.queues[1].enabled, 2, q_flags),
  IN (SCALARS, state_scalars, session.queues[1].broken, 2, q_flags),
  IN (SCALARS, state_scalars, session.queues[1].have_addr, 2, q_flags),
  IN (SCALARS, state_scalars, session.queues[1].kick_slot, 64, q_fd),
  IN (SCALARS, state_scalars, session.queues[1].call_slot, 254, q_fd),
  IN (SCALARS, state_scalars, session.queues[15].err_slot, 64, q_fd),
  IN (SCALARS, state_scalars, backend.window_slot, 64, window),
  IN (SCALARS, state_scalars, backend.map_on_its_way, 2, flags),
  IN (SCALARS, state_scalars, backend.finished, 2, flags),
  IN (SCALARS, state_scalars, backend.short_grant.reason, 1ull << 32, reason),
  IN (SCALARS, state_scalars, backend.events[3].type, 9, "it has an event that there is not"),
  IN (ANSWERS, state_answer, bytes, DOMYBS_RESPONSE_BYTES_MAX + 1, answer), /* number 0 is none of the session's yet */
  IN (ANSWERS, state_answer, bytes, UINT32_MAX, answer),
  { ANSWERS, sizeof (struct state_answer) + offsetof (struct state_answer, id), 8, 17, answers },
  { ANSWERS, sizeof (struct state_answer) + offsetof (struct state_answer, bytes), 4, 0, answers },
  LAST (960),
  LAST (1023),
  /* nobody's business while nothing is committed */
  IN (RECORD, state_record, change, 99, NULL),
  IN (RECORD, state_record, n_runs, UINT32_MAX, NULL),
  IN (RECORD, state_record, push_bytes, UINT32_MAX, NULL),
  IN (RECORD, state_record, scalars.session.n_regions, UINT32_MAX, NULL),
};

static const struct wrong in_pending[] = {
  IN (HEADER, state_header, committed, 6, order),
  IN (RECORD, state_record, change, DEVICE_CHANGE_CLEAR + 1, r_change),
  IN (RECORD, state_record, n_runs, DOMYBS_RUNS_MAX + 1, r_change),
  IN (RECORD, state_record, n_runs, UINT32_MAX, r_change),
  IN (RECORD, state_record, runs[0].start, 960, r_blocks),
  IN (RECORD, state_record, runs[0].start, UINT64_MAX, r_blocks),
  IN (RECORD, state_record, runs[0].count, 0, r_blocks),
  IN (RECORD, state_record, runs[0].count, 861, r_blocks),
  IN (RECORD, state_record, runs[0].count, UINT64_MAX, r_blocks),
  IN (RECORD, state_record, push_bytes, DOMYBS_RESPONSE_BYTES_MAX + 1, r_long),
  IN (RECORD, state_record, push_bytes, 0, answers),
  IN (RECORD, state_record, have_push, 2, r_answer),
  IN (RECORD, state_record, push_queue, 16, r_answer),
  IN (RECORD, state_record, push_queue, 1, r_answer), /* of size 0 */
  IN (RECORD, state_record, push_head, 128, r_answer),
  IN (RECORD, state_record, answer, DOMYBS_REPLAY_DEPTH, r_answer),
  IN (RECORD, state_record, answer, UINT32_MAX - 1, r_answer),
  IN (RECORD, state_record, answer, STATE_NO_ANSWER, answers),
  IN (RECORD, state_record, answer_id, 20, answers),
  IN (RECORD, state_record, answer_id, 5, r_answer),
  IN (RECORD, state_record, out_bytes[0], STATE_OUT_BYTES_MAX + 1, r_message),
  IN (RECORD, state_record, out_bytes[1], UINT32_MAX, r_message),
  IN (RECORD, state_record, out_slot, 64, r_message),
  IN (RECORD, state_record, out_slot, 256, r_message),
  IN (RECORD, state_record, scalars.session.n_regions, UINT32_MAX, s_regions),
  IN (RECORD, state_record, scalars.device.region_blocks, 0, sections),
  IN (RECORD, state_record, scalars.device.region_blocks, 128,
      NULL), /* 960 blocks are 896 then, none of the last 64 is granted */
  IN (RECORD, state_record, scalars.device.region_blocks, 3, blocks),
  IN (RECORD, state_record, scalars.device.last_id, 5, answers),
  LAST (960),
  /* half applied already, perhaps: the record will say */
  IN (SCALARS, state_scalars, session.n_regions, UINT32_MAX, NULL),
  IN (SCALARS, state_scalars, device.region_blocks, 3, NULL),
  { ANSWERS, 4 * sizeof (struct state_answer) + offsetof (struct state_answer, bytes), 4, UINT32_MAX, NULL },
};

static void
try_all (const struct image *good, const struct wrong *wrongs, size_t n) {
  g_assert_cmpstr (image_check (good), ==, NULL);
  for (size_t i = 0; i < n; i++) {
    struct image image = image_copy (good);
    const char *expected = wrongs[i].why;

    g_test_message ("case %zu", i);
    memcpy (part_of (&image, wrongs[i].part) + wrongs[i].at, &wrongs[i].value, wrongs[i].bytes);
    g_assert_cmpstr (device_state_check (image.memory, good->state.bytes, IMAGE_WINDOW), ==, expected);
    image_clear (&image);
  }
}

static void
test_header (void) {
  struct memory_device device;
  struct image image = some_image (&device);

  try_all (&image, in_header, G_N_ELEMENTS (in_header));
  for (size_t i = 0; i < G_N_ELEMENTS (in_header); i++) { /* who looks at the header only sees the same */
    struct image copy = image_copy (&image);

    memcpy (copy.memory + in_header[i].at, &in_header[i].value, in_header[i].bytes);
    g_assert_cmpstr (device_state_check_header (copy.memory, image.state.bytes, IMAGE_WINDOW), ==, in_header[i].why);
    image_clear (&copy);
  }
  g_assert_cmpstr (device_state_check (image.memory, image.state.bytes - 1, IMAGE_WINDOW), ==, parts);
  g_assert_cmpstr (device_state_check (image.memory, sizeof (struct state_header) - 1, IMAGE_WINDOW), ==, no_state);
  g_assert_cmpstr (device_state_check (image.memory, 0, IMAGE_WINDOW), ==, no_state);
  g_assert_cmpstr (device_state_check (image.memory + 4, image.state.bytes - 4, IMAGE_WINDOW), ==, no_state);
  g_assert_cmpstr (device_state_check (image.memory, image.state.bytes, 2048), ==, other_size);
  memory_device_clear (&device);
  image_clear (&image);
}

static void
test_settled (void) {
  struct memory_device device;
  struct image image = some_image (&device);

  try_all (&image, in_settled, G_N_ELEMENTS (in_settled));
  memory_device_clear (&device);
  image_clear (&image);
}

static void
test_pending (void) {
  struct memory_device device;
  struct image image = some_image (&device);

  make_pending (&image, &device);
  try_all (&image, in_pending, G_N_ELEMENTS (in_pending));
  memory_device_clear (&device);
  image_clear (&image);
}

/* A device that nobody saved has granted nothing. */
static void
test_nothing_saved (void) {
  struct image image = image_new ("test");

  regions_bits_assign (image.state.bits, 5, 1, true);
  g_assert_cmpstr (image_check (&image), ==, blocks);
  image_clear (&image);
}

/* What load refuses by itself, because it can only be seen then; the device is as before. */
static void
test_load_refuses (void) {
  static const struct memory_device_options larger = { .window_blocks = 2048, .max_blocks = 5 };
  struct memory_device device, other;
  struct image image = some_image (&device);
  const char *why;

  g_assert_true (memory_device_init (&other, &larger, &why));
  g_assert_cmpstr (device_state_load_device (&image.state, &other), ==, other_size);
  memory_device_clear (&other);
  image_device_init (&other);
  regions_bits_assign (image.state.bits, 1000, 1, true);
  g_assert_cmpstr (device_state_load_device (&image.state, &other), ==, blocks);
  regions_bits_assign (image.state.bits, 1000, 1, false);
  image.state.answers[1].bytes = UINT32_MAX;
  g_assert_cmpstr (device_state_load_device (&image.state, &other), ==, answer);
  image.state.scalars->device.target_blocks = 5000;
  g_assert_cmpstr (device_state_load_device (&image.state, &other), ==, target);
  g_assert_cmpuint (other.session, ==, 0);
  g_assert_cmpuint (other.regions.granted, ==, 0);
  memory_device_clear (&other);
  memory_device_clear (&device);
  image_clear (&image);
}

/* ---- many wrong values ---- */

/* A worker begins with an image that was found good, and goes on with it. */
static void
live_on (struct image *image, GRand *rand) {
  const struct state_record *record = image->state.record;
  const struct request_bytes request = request_hello (12345, 1u << testing_below (rand, 10));
  struct memory_device device;
  struct device_plan plan;
  unsigned sum = 0;

  if (device_state_recover (&image->state)) {
    for (uint32_t i = 0; record->have_push && i < record->push_bytes; i++)
      sum += record->push_payload[i];
    for (unsigned k = 0; k < 2; k++)
      for (uint32_t i = 0; i < record->out_bytes[k]; i++)
        sum += record->out[k][i];
    device_state_done (&image->state);
  }
  testing_trace ("good all the same (%u)", sum);
  device_state_adopt (&image->state, "next");
  g_assert_cmpstr (image_check (image), ==, NULL);
  image_device_init (&device);
  g_assert_cmpstr (device_state_load_device (&image->state, &device), ==, NULL);
  memory_device_plan (&device, request.bytes, request.n, DOMYBS_RESPONSE_BYTES_MAX, &plan);
  memory_device_finish (&device, &plan, DEVICE_DONE, 0, 5);
  (void)image_begin (image, &device);
  image_commit (image);
  g_assert_cmpstr (image_check (image), ==, NULL);
  memory_device_clear (&device);
}

static void
test_random_damage (void) {
  const unsigned steps = testing_steps (4000);
  struct memory_device device;
  struct image settled = some_image (&device), pending = image_copy (&settled);
  GRand *rand = testing_rand ();
  unsigned good = 0;

  make_pending (&pending, &device);
  for (unsigned i = 0; i < steps; i++) {
    struct image image = image_copy (testing_once_in (rand, 2) ? &settled : &pending);
    const struct state_header *header = image.state.header;
    const size_t extents[]
        = { header->bytes,        sizeof *header,    header->scalars_bytes, header->answer_bytes * DOMYBS_REPLAY_DEPTH,
            header->record_bytes, header->bits_bytes };

    for (uint64_t k = 1 + testing_below (rand, 4); k > 0; k--) {
      const enum part part = (enum part)testing_below (rand, 5);
      const size_t at = testing_below (rand, extents[part + 1] / 4) * 4;
      const uint64_t value = testing_edgy (rand);

      memcpy (part_of (&image, part) + at, &value, MIN (testing_once_in (rand, 2) ? 1 : 4, extents[part + 1] - at));
    }
    if (!device_state_check (image.memory, settled.state.bytes, IMAGE_WINDOW)) {
      device_state_attach (&image.state, image.memory);
      live_on (&image, rand);
      good++;
    }
    image_clear (&image);
  }
  if (steps == 4000)
    g_assert_true (good > 400 && good < 3600); /* both are tried */
  g_rand_free (rand);
  memory_device_clear (&device);
  image_clear (&settled);
  image_clear (&pending);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/device-state/damage/the header", test_header);
  g_test_add_func ("/device-state/damage/between two transactions", test_settled);
  g_test_add_func ("/device-state/damage/in a transaction", test_pending);
  g_test_add_func ("/device-state/damage/blocks that no device has granted", test_nothing_saved);
  g_test_add_func ("/device-state/damage/what only loading shows", test_load_refuses);
  g_test_add_func ("/device-state/damage/any, and whoever goes on from it is safe", test_random_damage);
  return g_test_run ();
}
