/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A damaged image of a device's state: refused, or a worker can go on from it, and then what it writes is good. */
#include "fuzz-state.h"

#include <glib.h>

#include "fuzz.h"
#include "requests.h"
#include "state-image.h"

/* A session with two grants; with `pending` a third one is committed and not applied. */
static struct image
base_image (bool pending) {
  struct image image = image_new ("fuzz");
  struct memory_device device;
  struct device_plan plan;

  image_device_init (&device);
  for (uint64_t id = 0; id <= (pending ? 3u : 2u); id++) {
    const struct request_bytes request = id == 0 ? request_hello (7, 64) : request_grant (99, id, 0, 0, 5, id * 100, 50);
    struct state_record *record;

    memory_device_plan (&device, request.bytes, request.n, DOMYBS_RESPONSE_BYTES_MAX, &plan);
    memory_device_finish (&device, &plan, DEVICE_DONE, UINT64_MAX, 99);
    record = image_begin (&image, &device);
    record->scalars.session.n_regions = 1;
    record->scalars.session.regions[0] = (struct state_region){ .bytes = 1 << 20, .user_addr = 1 << 20, .slot = 20 };
    image_push (record, 0, plan.answer, plan.answer_bytes);
    if (id <= 2)
      image_commit (&image);
    else
      image.state.header->committed++;
  }
  memory_device_clear (&device);
  return image;
}

/* Overwrites a few bytes in one part of the image. */
static void
damage (struct image *image, struct input *input) {
  const struct state_header *header = image->state.header;
  const struct {
    void *at;
    size_t bytes;
  } parts[] = {
    { image->state.header, sizeof *header },
    { image->state.scalars, sizeof *image->state.scalars },
    { image->state.answers, sizeof *image->state.answers * DOMYBS_REPLAY_DEPTH },
    { image->state.record, sizeof *image->state.record },
    { image->state.bits, IMAGE_WINDOW / 8 },
  };
  const uint8_t which = input_8 (input), n = input_8 (input) % 9;
  const size_t at = input_16 (input);
  uint8_t bytes[8];

  input_bytes (input, bytes, n);
  if (at + n <= parts[which % G_N_ELEMENTS (parts)].bytes)
    memcpy ((uint8_t *)parts[which % G_N_ELEMENTS (parts)].at + at, bytes, n);
}

static unsigned
sum_of (const uint8_t *bytes, size_t n) {
  unsigned sum = 0;

  for (size_t i = 0; i < n; i++)
    sum += bytes[i];
  return sum;
}

/* What a worker does that begins with it; returns something so that nothing is left out. */
static unsigned
live_on (struct image *image, struct input *input) {
  const struct state_record *record = image->state.record;
  struct memory_device device;
  struct device_plan plan;
  unsigned sum = 0;

  if (device_state_recover (&image->state)) {
    if (record->have_push)
      sum += sum_of (record->push_payload, record->push_bytes) + image->state.scalars->session.queues[record->push_queue].num;
    for (unsigned i = 0; i < 2; i++)
      sum += sum_of (record->out[i], record->out_bytes[i]);
    device_state_done (&image->state);
  }
  device_state_adopt (&image->state, "next");
  image_device_init (&device);
  g_assert_null (device_state_load_device (&image->state, &device));
  for (unsigned i = 0; i < 8 && input->left; i++) {
    const uint8_t what = input_8 (input);
    const uint64_t id = device.last_id + 1 - what / 64;
    const struct request_bytes request = what % 4 == 0   ? request_hello (input_8 (input), 1u << what / 4 % 11)
                                         : what % 4 == 1 ? request_release_one (device.session, id, input_16 (input), 1)
                                         : what % 4 == 2 ? request_bye (device.session, id)
                                                         : request_grant (device.session, id, 0, 0, 1 + what / 4, 0, 0);
    struct state_record *next;

    memory_device_plan (&device, request.bytes, request.n, DOMYBS_RESPONSE_BYTES_MAX, &plan);
    memory_device_finish (&device, &plan, DEVICE_DONE, UINT64_MAX, 1 + what);
    next = image_begin (image, &device);
    image_push (next, 0, plan.answer, plan.answer_bytes);
    image_commit (image);
    g_assert_null (image_check (image));
  }
  memory_device_clear (&device);
  return sum;
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size) {
  struct input input = { data, size };
  const uint8_t options = input_8 (&input);
  struct image image = base_image (options & FUZZ_STATE_PENDING);
  const size_t bytes = image.state.bytes;
  static volatile unsigned sink;

  for (unsigned n = options >> FUZZ_STATE_DAMAGES_SHIFT; n > 0; n--)
    damage (&image, &input);
  if (!device_state_check (image.memory, bytes, IMAGE_WINDOW)) {
    device_state_attach (&image.state, image.memory);
    sink += live_on (&image, &input);
    (void)sink;
  }
  image_clear (&image);
  return 0;
}
